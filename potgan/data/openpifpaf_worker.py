"""OpenPifPaf in a process of its own: reads jobs, writes shards of key points.

Run by path, with the Python of `workflow/envs/openpifpaf` (Differs: the one module of this folder that is no part of the
package, imports none of it and is imported by none of it; `detection.py` is its driver):

    ENVIRONMENT/bin/python -I openpifpaf_worker.py --checkpoint FILE --sha256 HASH --scale 2 --batch-size 8 --device auto

A job is one line of JSON on standard input, `{"shard": path, "images": [{"name", "path", "crop": [x0, x1] or null}]}`;
`crop` keeps the columns x0 to x1 - 1. For each job the file `shard` is written, whole or not at all, and one line of JSON
goes to standard output, `{"shard", "images", "seconds", "detected"}`. Before the first job that is `{"device",
"versions"}`, and where the user can put something right, `{"error"}`, after which the process ends with status 2. It
ends with status 0 when standard input ends.

Pixels. OpenPifPaf puts pixel centres at integers: it mirrors with x -> width - 1 - x and scales annotations with
(new width - 1) / (width - 1), and its networks see images of 16 k + 1 pixels, whose cell i looks at pixel 16 i. OpenCV
enlarges about the corners of pixels. A point x' of the enlarged image is thus (x' + 0.5) / scale - 0.5 of the original.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

#: OpenPose's COCO-18 order in COCO's names; `None` is the neck, which COCO-17 lacks.
JOINTS = (
    *("nose", None, "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("right_eye", "left_eye", "right_ear", "left_ear"),
)
#: Images are padded to a multiple of this, plus one. OpenPifPaf's own tool pads to 16; 32 makes fewer different sizes, so
#: that more images share a batch, and is the same for Market-1501's and DeepFashion's images at whole scales.
PADDING = 32
VERSIONS = ("openpifpaf", "torch", "opencv-python-headless")


class JobError(Exception):
    """What the user can put right; one line."""


class Detector:
    """A network and its decoder.

    checkpoint: an OpenPifPaf checkpoint, that is, a pickle, which can run any code: it is read only after its SHA-256
    has been found to be `sha256`. scale: how much images are enlarged. device: "cpu", "cuda" or "auto". number: spreads
    several workers over several GPUs. Raises JobError for a wrong or foreign checkpoint and a device that is not there.
    """

    def __init__(self, checkpoint: Path, sha256: str, scale: float, batch_size: int, device: str, number: int) -> None:
        content = read_checked(checkpoint, sha256)
        # Only here: with a wrong checkpoint nothing is waited for. OpenPifPaf takes every module on the path whose name
        # starts with `openpifpaf_` for a plugin, so this file's folder must not be on it.
        here = Path(__file__).resolve().parent
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
        import cv2
        import openpifpaf
        import torch

        cv2.setNumThreads(1)  # as for PyTorch, by the driver's OMP_NUM_THREADS: workers are the parallelism
        if device == "cuda" and not torch.cuda.is_available():
            raise JobError("device cuda: PyTorch finds no GPU; choose device cpu, or auto")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(f"cuda:{number % torch.cuda.device_count()}" if device == "cuda" else "cpu")
        self.device_name = torch.cuda.get_device_name(self.device) if device == "cuda" else "cpu"
        torch.backends.cudnn.allow_tf32 = False  # a GPU's key points are the CPU's, up to rounding
        self.scale, self.batch_size = scale, batch_size
        self.transforms = openpifpaf.transforms
        self.stack = torch.stack

        try:
            # Safe by the check above. `network.Factory` does the same from a path and without `weights_only`, which
            # PyTorch would then refuse (TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD).
            self.network = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)["model"]
            openpifpaf.network.model_migration.model_migration(self.network)
            names = self.network.head_metas[0].keypoints
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise JobError(
                f"{checkpoint}: has the right SHA-256 and is no checkpoint that OpenPifPaf "
                f"{metadata.version('openpifpaf')} can read ({reason}); name another"
            ) from None
        lacking = [name for name in JOINTS if name and name not in names]
        if lacking:
            raise JobError(f"{checkpoint}: its network has no {lacking[0]}; name one trained on COCO's key points")
        self.index = [names.index(name) if name else None for name in JOINTS]
        self.network = self.network.float().eval().to(self.device)
        self.decoder = openpifpaf.decoder.factory(self.network.head_metas)
        self.preprocess = openpifpaf.transforms.Compose(
            [
                openpifpaf.transforms.NormalizeAnnotations(),
                openpifpaf.transforms.CenterPadTight(PADDING),
                openpifpaf.transforms.EVAL_TRANSFORM,
            ]
        )

    def detect(self, images: list[dict]) -> list[list]:
        """The 18 joints of each image's person with the highest score, in the order of `images`: `[x, y, confidence]`
        in pixels of the (cropped) original, or None for a joint that is missing or outside the picture."""
        groups: dict[tuple[int, int], list[int]] = {}
        pictures, factors = [], []
        for i, image in enumerate(images):
            picture, factor = read_enlarged(image, self.scale)
            pictures.append(picture)
            factors.append(factor)
            # What an image is padded to depends on it alone: no result depends on what else is in the batch.
            groups.setdefault(tuple(-(-(side - 1) // PADDING) for side in picture.shape[:2]), []).append(i)
        joints: list[list] = [[None] * len(JOINTS)] * len(images)
        for _, members in sorted(groups.items()):
            for first in range(0, len(members), self.batch_size):
                batch = members[first : first + self.batch_size]
                for i, person in zip(batch, self._persons([pictures[i] for i in batch]), strict=True):
                    if person is not None:
                        joints[i] = openpose_joints(person, self.index, factors[i], pictures[i].shape[:2])
        return joints

    def _persons(self, pictures: list) -> Iterator:
        """(17, 3) x, y, confidence in pixels of each enlarged picture, or None where nobody was found."""
        from PIL import Image

        processed = [self.preprocess(Image.fromarray(picture), [], None) for picture in pictures]
        batch = self.stack([tensor for tensor, _, _ in processed])
        found = self.decoder.batch(self.network, batch, device=self.device)
        for persons, (_, _, meta) in zip(found, processed, strict=True):
            best = max(persons, key=lambda person: person.score, default=None)
            yield None if best is None else best.inverse_transform(meta).data


def openpose_joints(person, index: list, factor: tuple[float, float], size: tuple[int, int]) -> list:
    """The 18 joints of `person`, (K, 3) x, y, confidence in pixels of an enlarged picture of `size` (height, width), in
    pixels of the original. index: the row of each joint of JOINTS, None = the neck. factor: of the enlargement."""
    height, width = size
    joints: list = [None] * len(JOINTS)
    for place, row in enumerate(index):
        if row is None:
            continue
        x, y, confidence = (float(value) for value in person[row])
        # OpenPifPaf completes poses beyond the picture's edge; what is not in the picture is not to be seen.
        if confidence > 0 and -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5:
            x, y = (x + 0.5) / factor[0] - 0.5, (y + 0.5) / factor[1] - 0.5
            joints[place] = [round(x, 4), round(y, 4), round(min(confidence, 1.0), 4)]
    right, left = joints[JOINTS.index("right_shoulder")], joints[JOINTS.index("left_shoulder")]
    if right and left:
        middle = [round((right[0] + left[0]) / 2, 4), round((right[1] + left[1]) / 2, 4)]
        joints[JOINTS.index(None)] = [*middle, min(right[2], left[2])]
    return joints


def read_checked(checkpoint: Path, sha256: str) -> bytes:
    """The bytes of the checkpoint, which are what was hashed. Raises JobError if they are not the expected ones."""
    try:
        content = checkpoint.read_bytes()
    except OSError as error:
        raise JobError(f"{checkpoint}: the checkpoint cannot be read ({error.strerror})") from None
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise JobError(
            f"{checkpoint}: has SHA-256 {found}, expected {sha256}; it is not opened, since a checkpoint can run any "
            "code: put the right file there, or set the hash of one that you trust"
        )
    return content


def read_enlarged(image: dict, scale: float):
    """An image as (height, width, 3) uint8 RGB, turned as its EXIF says, cropped and enlarged, and the (x, y) factors of
    the enlargement, which are `scale` up to whole pixels. Raises JobError naming an image that cannot be decoded."""
    import cv2
    import numpy as np

    picture = cv2.imread(image["path"], cv2.IMREAD_COLOR)
    if picture is None:
        raise JobError(f"{image['path']}: image {image['name']} is missing or cannot be decoded; replace or remove it")
    height, width = picture.shape[:2]
    if image["crop"] is not None:
        first, last = image["crop"]
        if not 0 <= first < last <= width:
            raise JobError(f"{image['path']}: is {width} pixels wide and has no columns {first} to {last - 1}")
        picture, width = picture[:, first:last], last - first
    if scale != 1:
        size = (round(width * scale), round(height * scale))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC)
    factor = (picture.shape[1] / width, picture.shape[0] / height)
    return np.ascontiguousarray(picture[:, :, ::-1]), factor


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a killed worker leaves it absent, not half-written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--sha256", required=True, help="of the checkpoint")
    parser.add_argument("--scale", type=float, required=True, help="how much images are enlarged; 1: not at all")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--number", type=int, default=0, help="of this worker, from 0")
    arguments = parser.parse_args()

    # Answers have standard output to themselves: whatever a library prints goes where messages go.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(tree: dict) -> None:
        answers.write(json.dumps(tree) + "\n")
        answers.flush()

    try:
        detector = Detector(
            *(arguments.checkpoint, arguments.sha256, arguments.scale, arguments.batch_size),
            *(arguments.device, arguments.number),
        )
        origin = {"device": detector.device_name, "versions": {name: metadata.version(name) for name in VERSIONS}}
        answer(origin)
        for line in sys.stdin:
            job = json.loads(line)
            start = time.monotonic()
            found = detector.detect(job["images"])
            seconds = round(time.monotonic() - start, 3)
            rows = [{"name": i["name"], "joints": joints} for i, joints in zip(job["images"], found, strict=True)]
            detected = sum(any(joint for joint in joints) for joints in found)
            write_whole(Path(job["shard"]), json.dumps({**origin, "seconds": seconds, "images": rows}) + "\n")
            answer({"shard": job["shard"], "images": len(rows), "seconds": seconds, "detected": detected})
    except JobError as error:
        answer({"error": str(error)})
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
