"""OpenPifPaf in a process of its own, which reads jobs and writes key points.

This is a program for the Python of `workflow/envs/openpifpaf`, which does not have this package: it imports no other module of it,
and none imports it. `detection.py` starts it:

    ENVIRONMENT/bin/python -I openpifpaf_worker.py --checkpoint FILE --sha256 HASH --scale 2 --batch-size 8 --device auto

A job is one line of JSON on standard input, `{"shard": path, "images": [{"name", "path", "crop": [x0, x1] or null}]}`. `crop`
keeps the columns x0 to x1 - 1. For each job this program writes the file `shard`, whole or not at all, and one line of JSON to
standard output, `{"shard", "images", "seconds", "detected"}`. Before the first job it writes `{"device", "versions"}`. Where the
user can put something right it writes `{"error"}` and ends with status 2. It ends with status 0 when standard input ends.

Pixels. OpenPifPaf puts the centres of pixels at integers: it mirrors with x -> width - 1 - x, it scales annotations with
(new width - 1) / (width - 1), and its networks see images of 16 k + 1 pixels, whose cell i looks at pixel 16 i. OpenCV enlarges
about the corners of pixels. So the point x' of an enlarged image is the point (x' + 0.5) / scale - 0.5 of the original.
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

#: The joints in OpenPose's COCO-18 order, by COCO's names. `None` is the neck, which COCO's 17 joints do not have.
JOINTS = (
    *("nose", None, "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle"),
    *("right_eye", "left_eye", "right_ear", "left_ear"),
)
#: Images are padded to a multiple of this, plus one. OpenPifPaf's own program pads to multiples of 16. With 32 there are fewer
#: different sizes, so that more images fit into one batch. For Market-1501's and DeepFashion's images, enlarged by a whole
#: number, both give the same sizes.
PADDING = 32
VERSIONS = ("openpifpaf", "torch", "opencv-python-headless")


class JobError(Exception):
    """Something that the user can put right. The message is one line."""


class Detector:
    """A network and its decoder.

    checkpoint: of OpenPifPaf. It is a pickle, which can run any code, so it is read only after its SHA-256 has been found to be
    `sha256`. scale: how many times images are enlarged. device: "cpu", "cuda" or "auto". number: of this worker; several workers
    take several GPUs in turn. Raises JobError for a checkpoint that cannot be used, and for a device that is not there.
    """

    def __init__(self, checkpoint: Path, sha256: str, scale: float, batch_size: int, device: str, number: int) -> None:
        content = read_checked(checkpoint, sha256)
        # These imports take seconds, so they come after the check of the checkpoint. OpenPifPaf takes every module on the path
        # whose name starts with `openpifpaf_` for a plugin, so the folder of this file must not be on the path.
        here = Path(__file__).resolve().parent
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
        import cv2
        import openpifpaf
        import torch

        cv2.setNumThreads(1)  # several workers run at once; OMP_NUM_THREADS says the same to PyTorch
        if device == "cuda" and not torch.cuda.is_available():
            raise JobError("device cuda: PyTorch finds no GPU; choose device cpu, or auto")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(f"cuda:{number % torch.cuda.device_count()}" if device == "cuda" else "cpu")
        self.device_name = torch.cuda.get_device_name(self.device) if device == "cuda" else "cpu"
        torch.backends.cudnn.allow_tf32 = (
            False  # with TF32, a GPU's key points would differ from the CPU's by more than rounding
        )
        self.scale, self.batch_size = scale, batch_size
        self.transforms = openpifpaf.transforms
        self.stack = torch.stack

        try:
            # The check above makes this safe. OpenPifPaf's `network.Factory` loads from a path and without `weights_only=False`,
            # which PyTorch refuses unless TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set.
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
        """For each image, the 18 joints of the person with the highest score.

        A joint is `[x, y, confidence]` in pixels of the original image after cropping, or None where it is missing or outside
        the image.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        pictures, factors = [], []
        for i, image in enumerate(images):
            picture, factor = read_enlarged(image, self.scale)
            pictures.append(picture)
            factors.append(factor)
            # The size that an image is padded to depends on the image alone, so no result depends on the rest of its batch.
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
        """For each enlarged picture, (17, 3) x, y (pixels) and confidence of its person, or None where nobody is found."""
        from PIL import Image

        processed = [self.preprocess(Image.fromarray(picture), [], None) for picture in pictures]
        batch = self.stack([tensor for tensor, _, _ in processed])
        found = self.decoder.batch(self.network, batch, device=self.device)
        for persons, (_, _, meta) in zip(found, processed, strict=True):
            best = max(persons, key=lambda person: person.score, default=None)
            yield None if best is None else best.inverse_transform(meta).data


def openpose_joints(person, index: list, factor: tuple[float, float], size: tuple[int, int]) -> list:
    """The 18 joints of a person in pixels of the original image.

    person: (K, 3) x, y, confidence in pixels of the enlarged picture. index: for each of JOINTS its row of `person`; None for the
    neck. factor: by which the picture was enlarged in x and in y. size: its (height, width).
    """
    height, width = size
    joints: list = [None] * len(JOINTS)
    for place, row in enumerate(index):
        if row is None:
            continue
        x, y, confidence = (float(value) for value in person[row])
        # OpenPifPaf guesses joints beyond the picture's edge. Those cannot be seen, so they are missing.
        if confidence > 0 and -0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5:
            x, y = (x + 0.5) / factor[0] - 0.5, (y + 0.5) / factor[1] - 0.5
            joints[place] = [round(x, 4), round(y, 4), round(min(confidence, 1.0), 4)]
    right, left = joints[JOINTS.index("right_shoulder")], joints[JOINTS.index("left_shoulder")]
    if right and left:
        middle = [round((right[0] + left[0]) / 2, 4), round((right[1] + left[1]) / 2, 4)]
        joints[JOINTS.index(None)] = [*middle, min(right[2], left[2])]
    return joints


def read_checked(checkpoint: Path, sha256: str) -> bytes:
    """The bytes of the checkpoint, read once, so that what is loaded is what was checked.

    Raises JobError if their SHA-256 is not the expected one.
    """
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
    """An image, and the factors (x, y) by which it was enlarged, which are `scale` up to rounding to whole pixels.

    The image is (height, width, 3) uint8 RGB, turned upright as its EXIF tag says, cropped and enlarged. Raises JobError, which
    names the image, where it cannot be decoded or is narrower than `crop`.
    """
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
    """Write a file whole or not at all, also where this process is killed."""
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

    # Standard output is for answers alone. What a library prints there goes to standard error instead.
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
