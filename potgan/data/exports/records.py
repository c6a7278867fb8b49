"""Pairs as TFRecords, which the TensorFlow code of PG2 reads.

One file per split holds a `tf.train.Example` for each pair. Its features are those that datasets/market1501.py and
datasets/deepfashion.py of charliememory/Pose-Guided-Person-Image-Generation look for, made as its datasets/convert_market.py and
datasets/convert_DF.py make them, and `image_name_*`, which tells a person which pair it is. What the converters write beyond these
(attributes, segmentations, boxes of parts) is read by nobody there, and is left out. So are the mirrored pairs, which double the
authors' training records. TensorFlow is not needed: the records are framed by TensorBoard's writer.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from potgan.data.pairs import camera_of, person_of
from potgan.data.pose import JOINTS, Keypoints
from potgan.data.pose_rendering import disc, limb_mask

if TYPE_CHECKING:
    import pandas as pd

#: Radius of the discs and of the limbs in pixels, at 128 x 64 and at 256 x 256 (`pose_sparse_r4`, `pose_mask_r4`).
RADIUS = 4
#: The coarse grid of `pose_peaks`, in rows and columns: 16 x 8 at 128 x 64, and 16 x 16 at 256 x 256.
_GRID_ROWS, _GRID_COLUMNS = 16, {64: 8, 256: 16}

#: The values of one feature: integers, floats, or one string of bytes.
Feature = np.ndarray | bytes
#: An image's name -> (the bytes of its file, "jpg" or "png").
Files = Callable[[str], tuple[bytes, str]]


def bytes_per_pair(size: tuple[int, int]) -> int:
    """About how many bytes a pair takes, with two images of a byte per pixel. size: (height, width) in pixels."""
    height, width = size
    peaks = _GRID_ROWS * _GRID_COLUMNS[width] * len(JOINTS) * 4
    return 2 * (2 * height * width + peaks + len(JOINTS) * int(disc(RADIUS).sum()) * (3 + 4))


def write_pairs(
    path: Path, pairs: pd.DataFrame, kind: str, keypoints: Keypoints, size: tuple[int, int], files: Files
) -> Iterator[int]:
    """Write the pairs into the file `path`, and yield the number of pairs written so far after each.

    pairs: columns `from` and `to`. kind: of the data set, by which names tell people. keypoints: joints in pixels of images of
    `size` (height, width). files: the images, in this size.

    Features per pair, where 0 stands for the source and 1 for the target:

    - `image_raw_*` a JPEG or PNG file; `label` 1, a pair of one person; `id_*` numbers of the people from 0 on; `cam_*` the camera,
      0 where names have none;
    - `pose_peaks_*` (16, 8 or 16, 18) float32, 1 in the cell of each joint;
    - `pose_mask_r4_*` (height, width) of 0 and 1: limbs of radius 4, closed;
    - `indices_r4_*`, `values_r4_*`, `shape`: the places of a disc of radius 4 around each joint, in an array (height, width, 18)
      that counts as one dimension;
    - `pose_subs_*` 20 float32 as OpenPose gives them: the number of each found joint or -1, a score, and how many were found. No
      table has scores, so the score is their number.
    """
    from tensorboard.summary.writer.record_writer import RecordWriter

    people: dict[str, int] = {}
    poses = functools.lru_cache(4096)(lambda name: _pose(keypoints.joints[keypoints.row[name]], size))
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for number, (source, target) in enumerate(zip(pairs["from"], pairs["to"], strict=True), 1):
            identity = people.setdefault(person_of(source, kind), len(people))
            features: dict[str, Feature] = {
                "label": np.array([1]),
                "shape": np.array([size[0] * size[1] * len(JOINTS)]),
            }
            for side, name in enumerate((source, target)):
                content, form = files(name)
                features |= {
                    f"image_name_{side}": name.encode(),
                    f"image_raw_{side}": content,
                    f"id_{side}": np.array([identity]),
                    f"cam_{side}": np.array([int(camera_of(name) or 0)]),
                    "image_format": form.encode(),
                    **{f"{feature}_{side}": values for feature, values in poses(name).items()},
                }
            features |= {
                "image_height": np.array([size[0]]),
                "image_width": np.array([size[1]]),
                "real_data": np.array([1]),
            }
            writer.write(example(features))
            yield number


def write_count(path: Path, count: int) -> None:
    """Write the number of pairs as the authors' loader reads it: a pickled integer, in the text form of Python 2."""
    path.write_bytes(pickle.dumps(count, protocol=0))


def example(features: dict[str, Feature]) -> bytes:
    """A `tf.train.Example` as bytes. Integers become an int64 list, floats a float list, and bytes a list of one string."""
    message = _example_class()()
    for name, values in features.items():
        feature = message.features.feature[name]
        if isinstance(values, bytes):
            feature.bytes_list.value.append(values)
        elif values.dtype.kind == "f":
            feature.float_list.value.extend(values.ravel().tolist())
        else:
            feature.int64_list.value.extend(values.ravel().tolist())
    return message.SerializeToString(deterministic=True)


@functools.cache
def _example_class() -> type:
    """The message `tf.train.Example` (tensorflow/core/example/example.proto and feature.proto), without TensorFlow."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="potgan/example.proto", package="potgan.records", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, str]) -> descriptor_pb2.DescriptorProto:
        made = file.message_type.add(name=name)
        for number, (field, kind, label, of) in enumerate(fields, 1):
            entry = made.field.add(name=field, number=number, type=kind, label=label)
            if of:
                entry.type_name = f".potgan.records.{of}"
        return made

    one, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    message("BytesList", ("value", kinds.TYPE_BYTES, many, ""))
    message("FloatList", ("value", kinds.TYPE_FLOAT, many, ""))
    message("Int64List", ("value", kinds.TYPE_INT64, many, ""))
    feature = message(
        "Feature",
        ("bytes_list", kinds.TYPE_MESSAGE, one, "BytesList"),
        ("float_list", kinds.TYPE_MESSAGE, one, "FloatList"),
        ("int64_list", kinds.TYPE_MESSAGE, one, "Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    features = message("Features", ("feature", kinds.TYPE_MESSAGE, many, "Features.FeatureEntry"))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=one)
    entry.field.add(name="value", number=2, type=kinds.TYPE_MESSAGE, label=one, type_name=".potgan.records.Feature")
    message("Example", ("features", kinds.TYPE_MESSAGE, one, "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("potgan.records.Example"))


def _pose(joints: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The features of one pose, without their side. joints: (18, 2) in pixels, NaN where missing."""
    height, width = size
    found = np.flatnonzero(~np.isnan(joints[:, 0]))
    x, y = joints[found].astype(int).T
    rows, columns = _GRID_ROWS, _GRID_COLUMNS[width]
    peaks = np.zeros((rows, columns, len(JOINTS)), np.float32)
    seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # estimators also report joints beyond the edges
    # The authors' code is of Python 2: height / 16 is a whole number there, and here, too.
    peaks[y[seen] // (height // rows), x[seen] // (width // columns), found[seen]] = 1
    offsets = np.argwhere(disc(RADIUS)) - RADIUS
    row, column = (np.stack((y, x))[:, :, None] + offsets.T[:, None]).reshape(2, -1)  # of all pixels of all discs
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    joint = np.repeat(found, len(offsets))
    discs = np.sort(np.ravel_multi_index((row[inside], column[inside], joint[inside]), (height, width, len(JOINTS))))
    order = np.full(len(JOINTS), -1, np.float32)
    order[found] = np.arange(len(found))
    return {
        "pose_peaks": peaks,
        "pose_mask_r4": limb_mask(joints, height, width, RADIUS),
        "indices_r4": discs,
        "values_r4": np.ones(len(discs), np.float32),
        "pose_subs": np.concatenate((order, np.float32([len(found), len(found)]))),
    }
