"""A data set as the code of other projects reads it: the same images, key points and pairs, in their folders and formats.

What each project reads is in its loader of data: PATN `data/keypoint.py` (tengteng95/Pose-Transfer), GFLA `data/base_dataset.py`,
`data/market_dataset.py` and `data/fashion_dataset.py` (RenYurui/Global-Flow-Local-Attention), Deformable GAN `cmd.py` and
`pose_dataset.py` (AliaksandrSiarohin/pose-gan), ADGAN `data/keypoint.py` (menyifang/ADGAN), PG2 `datasets/market1501.py` and
`datasets/deepfashion.py` (charliememory/Pose-Guided-Person-Image-Generation).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from potgan.common.errors import UserError
from potgan.common.files import Json, free_bytes, new_folder, write_json, write_text
from potgan.common.progress import progress, say
from potgan.data.exports import records
from potgan.data.images import ImageFolder
from potgan.data.keypoint_files import annotation_csv
from potgan.data.pairs import pairs_csv
from potgan.data.parsing.stage import Parsing
from potgan.data.pixels import keypoints_at, png_bytes, resize, resize_labels
from potgan.data.pose import JOINTS, Keypoints

if TYPE_CHECKING:
    import pandas as pd

#: The splits that other projects know. The validation people, who are taken from the training people here, are in none of them.
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Peer:
    """What the code of one project reads.

    label: its name. fashion: how its files for DeepFashion begin; those of all other data sets begin with `market`, because no
    peer has more kinds. heat_maps: whether it reads heat maps from files, `<split>K/<name>.npy`. images: the folder of a split's
    images, where `{set}` is `market` or `fashion` as above. sizes: the only (height, width) that its code takes, by kind of data
    set; a kind that is missing there is none that it knows. None: any. parsing: whether it reads a class for each pixel. records:
    whether it reads TFRecords and nothing else; `images` is then the folder of a split's records.
    """

    label: str
    fashion: str = ""
    heat_maps: bool = False
    images: str = "{split}"
    sizes: Mapping[str, tuple[int, int]] | None = None
    parsing: bool = False
    records: bool = False


_MARKET, _FASHION = (128, 64), (256, 256)
_SIZES = {"synthetic": _MARKET, "market1501": _MARKET, "dukemtmc": _MARKET, "deepfashion": _FASHION}
PEERS = {
    "patn": Peer("PATN", "fasion-resize", heat_maps=True),  # spelt as its authors spell it
    "gfla": Peer("GFLA", "fasion"),
    "pose-gan": Peer(
        "Deformable GAN",
        "fasion",
        images="{set}-dataset/{split}",
        sizes=_SIZES,
    ),
    "adgan": Peer("ADGAN", "fashion-resize", heat_maps=True, sizes={"deepfashion": (256, 176)}, parsing=True),
    # Its main.py takes a folder for Market-1501's or DeepFashion's by the word in its name.
    "pg2": Peer("PG2", images="{set}_{split}_data", sizes=_SIZES, records=True),
}
#: How PG2's code calls a data set, in the names of its folders and of its files of records.
_RECORDS = {"deepfashion": ("DF", "DeepFashion")}
_OTHER_RECORDS = ("Market", "Market1501")
#: ADGAN's folder of labels.
LABELS = "semantic_merge3"

#: The names of what `prepare` writes into its folder.
WRITTEN = re.compile(
    r"(train|test)(K|\.lst)?|(market|fasion)-dataset|(Market|DF)_(train|test)_data|(market|fasion|fasion-resize|fashion-resize)-(annotation|pairs)-(train|test)"
    rf"\.csv|{LABELS}|prepare\.json"
)


def prepare(
    peer: str,
    kind: str,
    size: tuple[int, int],
    heatmap_sigma: float,
    images: Path,
    keypoints: Keypoints,
    pairs: Mapping[str, pd.DataFrame],
    out: Path,
    parsing: Path | None = None,
) -> dict[str, Json]:
    """Fill the folder `out` with a data set for a peer's code, and return the record `prepare.json`.

    peer: a name of PEERS. kind: of the data set. size: (height, width) of the images that a model is given, in pixels. images: the
    folder of the stage `images`. keypoints: in pixels of its images. pairs: split -> the pairs (columns `from` and `to`).
    parsing: the folder of the stage `parsing`, for a peer that reads it.

    - `<split>/<name>` (Deformable GAN: `<prefix>-dataset/<split>/<name>`): the images of all pairs. A file is copied if it has this
      size already. Else it holds the cropped and resized image as PNG, without loss, under the same name, because loaders look at
      the content of a file and not at its name.
    - `<split>K/<name>.npy` (PATN, ADGAN): the 18 heat maps of each image, (height, width, 18) float32, as a training here has them.
    - `<prefix>-annotation-<split>.csv`: joints in pixels of these images, truncated to whole ones as in the published tables.
    - `<prefix>-pairs-<split>.csv`, and for DeepFashion `<split>.lst`, the names of the images.
    - `semantic_merge3/<path in DeepFashion's tree>.npy` (ADGAN): the class of each pixel, (height, width) uint8, of its 8 classes.
    - PG2 gets `<set>_<split>_data/` in place of all this: a file of TFRecords (`records.write_pairs`) and the number of pairs. The
      training pairs are in random order, the test pairs in that of their list.

    The folder `out` appears whole or not at all. Raises UserError for an unknown peer, for a data set or a size that its code does
    not take, for a pair whose image or key points are missing, and where a peer reads a parsing and there is none.
    """
    if peer not in PEERS:
        raise UserError(f"prepare: no project {peer!r}; there are {', '.join(PEERS)}")
    reads, folder = PEERS[peer], ImageFolder(images)
    _refuse_what_it_does_not_take(reads, kind, size, parsing)
    prefix = reads.fashion if kind == "deepfashion" else "market"
    photographs = {split: reads.images.format(set=prefix, split=split) for split in SPLITS}
    names = {split: sorted({*pairs[split]["from"], *pairs[split]["to"]}) for split in SPLITS}
    for name in (name for split in SPLITS for name in names[split]):
        if name not in folder.table.index or name not in keypoints.row:
            raise UserError(f"{name}: is in a pair and has no image or no key points; run `potgan pairs` again")
    if reads.heat_maps or reads.records:
        total, what, unit = sum(map(len, names.values())), "heat maps", "images"
        needed = total * size[0] * size[1] * len(JOINTS) * 4
        if reads.records:
            total, what, unit = sum(map(len, pairs.values())), "records", "pairs"
            needed = total * records.bytes_per_pair(size)
        if needed > free_bytes(out):
            raise UserError(
                f"{out}: the {what} take {needed / 1e9:.1f} GB, and less is free there; name another folder"
            )
        say(f"the {what} of {total:,} {unit} take {needed / 1e9:.1f} GB")
    with new_folder(out) as new:
        for split in SPLITS:
            table = keypoints_at(keypoints, names[split], folder.size, size)
            if reads.records:
                _write_records(kind, split, pairs[split], table, folder, size, new)
                continue
            (new / photographs[split]).mkdir(parents=True)
            for name in progress(names[split], len(names[split]), f"images for {reads.label}", "images"):
                _write_image(folder, name, size, new / photographs[split] / name)
            if reads.parsing and parsing is not None:
                _write_labels(Parsing(parsing), names[split], size, new / LABELS)
            if reads.heat_maps:
                _write_heat_maps(table, size, heatmap_sigma, new / f"{split}K")
            write_text(new / f"{prefix}-annotation-{split}.csv", annotation_csv(table))
            write_text(new / f"{prefix}-pairs-{split}.csv", pairs_csv(pairs[split]))
            if kind == "deepfashion":
                write_text(new / f"{split}.lst", "".join(f"{name}\n" for name in names[split]))
        record = {
            "for": reads.label,
            "kind": kind,
            "images": {split: len(names[split]) for split in SPLITS},
            "pairs": {split: len(pairs[split]) for split in SPLITS},
            "height": size[0],
            "width": size[1],
            "heatmap_sigma": heatmap_sigma if reads.heat_maps else None,
        }
        write_json(new / "prepare.json", record)
    return record


def _refuse_what_it_does_not_take(reads: Peer, kind: str, size: tuple[int, int], parsing: Path | None) -> None:
    if reads.sizes is not None and kind not in reads.sizes:
        raise UserError(f"prepare: the code of {reads.label} reads {' and '.join(reads.sizes)} only, and not {kind}")
    if reads.sizes is not None and size != reads.sizes[kind]:
        height, width = reads.sizes[kind]
        raise UserError(
            f"prepare: the code of {reads.label} takes images of {height} x {width} here, and those of this data set are "
            f"{size[0]} x {size[1]}; set its image_size"
        )
    if reads.parsing and parsing is None:
        raise UserError(
            f"prepare: the code of {reads.label} reads a class for each pixel, and the data set has no parsing; name a folder of "
            "label images as its parsing, and run `potgan parsing`"
        )


def _write_labels(parsing: Parsing, names: list[str], size: tuple[int, int], out: Path) -> None:
    """The labels of images in a folder as deep as DeepFashion's tree, which ADGAN's loader makes of a flat name."""
    for name in names:
        path = out / _place_of_labels(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, resize_labels(parsing.of(name), size))


def _place_of_labels(name: str) -> Path:
    """`fashionWOMENTees_Tanksid0000783805_7additional.jpg` -> `WOMEN/Tees_Tanks/id_00007838/05_7_additional.npy`."""
    gender, category, item, pose = re.fullmatch(r"fashion(WOMEN|MEN)(.+)id(\d{8})(\d\d_\d.+)\.jpg", name).groups()
    return Path(gender, category, f"id_{item}", f"{pose[:4]}_{pose[4:]}.npy")


def _write_records(
    kind: str,
    split: str,
    pairs: pd.DataFrame,
    keypoints: Keypoints,
    folder: ImageFolder,
    size: tuple[int, int],
    out: Path,
) -> None:
    name, file_name = _RECORDS.get(kind, _OTHER_RECORDS)
    out = out / PEERS["pg2"].images.format(set=name, split=split)
    out.mkdir()

    @functools.lru_cache(4096)
    def file_of(name: str) -> tuple[bytes, str]:
        content = _file_of(folder, name, size)
        return content, "png" if content.startswith(b"\x89PNG") else "jpg"

    if split == "train":
        # As the authors' converters do. Their trainer takes pairs as they come, and these are in the order of people.
        pairs = pairs.sample(frac=1, random_state=0).reset_index(drop=True)
    path = out / f"{file_name}_{split}_00000-of-00001.tfrecord"
    for _ in progress(
        records.write_pairs(path, pairs, kind, keypoints, size, file_of), len(pairs), f"records to {split}", "pairs"
    ):
        pass
    records.write_count(out / f"pn_pairs_num_{split}.p", len(pairs))


def _write_image(folder: ImageFolder, name: str, size: tuple[int, int], out: Path) -> None:
    out.write_bytes(_file_of(folder, name, size))


def _file_of(folder: ImageFolder, name: str, size: tuple[int, int]) -> bytes:
    """The file of an image in a size: the original one where it has this size, and else a PNG file."""
    if folder.crop_columns is None and folder.size(name) == size:
        return folder.path(name).read_bytes()
    return png_bytes(resize(folder.read(name), size))


def _write_heat_maps(table: Keypoints, size: tuple[int, int], sigma: float, out: Path, part: int = 64) -> None:
    import torch

    from potgan.data.pose_rendering import heatmaps

    out.mkdir()
    for first in progress(range(0, len(table), part), -(-len(table) // part), "heat maps", "parts"):
        maps = heatmaps(torch.from_numpy(table.joints[first : first + part]), *size, sigma)
        for name, channels in zip(table.names[first : first + part], maps, strict=True):
            np.save(out / f"{name}.npy", channels.permute(1, 2, 0).contiguous().numpy())
