"""The stage `generate`.

It writes one PNG file per test pair, `<from stem>___<to stem>.png`. The images come from a checkpoint, from a reference method, or
from the released results of somebody else. Released results are imported bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from potgan.common.errors import UserError
from potgan.common.files import new_folder, write_text
from potgan.common.progress import progress
from potgan.common.records import JsonRecord
from potgan.data.batches import PairData, to_pixels
from potgan.data.pixels import read_image
from potgan.measure.released import ResultFolder, TargetFolder, same_frame
from potgan.methods.method import PoseGenerator


@dataclass(frozen=True)
class TrainingSummary:
    """What a training cost. parameters: network -> number of parameters. passes: how often it went through the pair list."""

    wall_seconds: float
    iterations: int
    parameters: dict[str, int]
    device: str
    passes: float


@dataclass(frozen=True)
class GenerationRecord(JsonRecord):
    """The content of `generate.json`.

    iteration: the iteration of the generator; None for rows without a generator. settings: the fingerprint of all that decided the
    images.

    Released results have further entries. origin, layout, file_format and panels describe their folder and its files: its name,
    its layout, the format of the files and the number of panels in each. files_sha256: the SHA-256 over all files. targets: whose
    targets they are measured against.
    """

    REMEDY = "run `potgan generate` first"

    method: str
    seed: int
    iteration: int | None
    training: TrainingSummary | None
    images: int = 0
    settings: str | None = None
    generator_sha256: str | None = None
    origin: str | None = None
    layout: str | None = None
    file_format: str = "png"
    panels: int = 0
    files_sha256: str | None = None
    targets: str | None = None


def file_name(source: str, target: str) -> str:
    """Return the name of the PNG file of a pair.

    It follows PATN's grammar, but has a lossless suffix. The stems keep inner dots of names like `x.jpg.jpg`.
    """
    return f"{source.removesuffix('.jpg')}___{target.removesuffix('.jpg')}.png"


@torch.no_grad()
def synthesise(
    generator: PoseGenerator, data: PairData, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield, pair by pair, the image (H, W, 3) uint8 and the control points (4, F, 2) float32, or None if it has none."""
    generator.eval()
    for first in range(0, len(data), batch_size):
        out = generator.synthesise(data.batch(range(first, min(first + batch_size, len(data))), needs=generator.needs))
        images = to_pixels(out.image).permute(0, 2, 3, 1).cpu().numpy()
        points = [None] * len(images) if out.control_points is None else out.control_points.cpu().numpy()
        yield from zip(images, points, strict=True)


def reference_images(method: str, data: PairData, train_mean: np.ndarray | None) -> Iterator[tuple[np.ndarray, None]]:
    """Yield, pair by pair, the images of a row that needs no training.

    copy-source gives X_a itself. real-data gives X_b itself. mean-image gives the mean of the training images for every pair.
    """
    for source, target in zip(data.sources.tolist(), data.targets.tolist(), strict=True):
        match method:
            case "copy-source":
                image = data.images[source].permute(1, 2, 0).cpu().numpy()
            case "real-data":
                image = data.images[target].permute(1, 2, 0).cpu().numpy()
            case "mean-image":
                image = train_mean
            case _:
                raise ValueError(method)
        yield image, None


def mean_image(images: Iterable[np.ndarray]) -> np.ndarray:
    """Return the mean of images (H, W, 3) uint8 of one size, as such an image. They are taken one at a time."""
    total, count = np.zeros((), np.int64), 0
    for image in images:
        total, count = total + image, count + 1
    return np.rint(total / count).astype(np.uint8)


def imported_images(results: ResultFolder, size: tuple[int, int]) -> Iterator[tuple[np.ndarray, None]]:
    """Yield, pair by pair, the results of a released folder in the frame of the data set.

    size: (height, width) of the data set's images. `same_frame` says how results are brought into this frame.
    """
    for index, path in enumerate(results.files):
        yield same_frame(results.read(index)["result"], size, path), None


def imported_targets(whole: TargetFolder, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yield, pair by pair, the targets that released results are measured against."""
    for name in whole.names:
        yield same_frame(whole.read(name), size, whole.folder / name)


def write_generated(
    images: Iterator[tuple[np.ndarray, np.ndarray | None]],
    pairs: pd.DataFrame,
    record: GenerationRecord,
    out: Path,
    targets: Iterator[np.ndarray] | None = None,
) -> None:
    """Write the folder `out`, which appears whole or not at all.

    It holds `images/*.png`, `generated.csv` (from, to, file) and `generate.json`, which is `record` with the number of images. If
    there are control points, it holds `warps.npz` too.

    targets: the images to measure against, if these are not the data set's own images. They are written to `targets/*.png`, and
    `generated.csv` gets a column `target`.
    """
    with new_folder(out) as folder:
        (folder / "images").mkdir()
        if targets is not None:
            (folder / "targets").mkdir()
        table = pd.DataFrame({"from": pairs["from"], "to": pairs["to"]})
        files, warps = [], []
        total = len(pairs)
        for source, target, (image, points) in zip(
            pairs["from"],
            pairs["to"],
            progress(images, total, f"generating {out.parent.parent.name}", "images"),
            strict=True,
        ):
            name = f"images/{file_name(source, target)}"
            cv2.imwrite(str(folder / name), image[:, :, ::-1])
            files.append(name)
            if targets is not None:
                cv2.imwrite(str(folder / name.replace("images/", "targets/", 1)), next(targets)[:, :, ::-1])
            if points is not None:
                warps.append(points)
        table["file"] = files
        if targets is not None:
            table["target"] = [name.replace("images/", "targets/", 1) for name in files]
        write_text(folder / "generated.csv", table.to_csv(index=False, lineterminator="\n"))
        if warps:
            np.savez_compressed(folder / "warps.npz", control_points=np.stack(warps))
        replace(record, images=len(files)).write(folder / "generate.json")


def read_targets(folder: Path) -> np.ndarray | None:
    """Return the targets that lie beside imported results, in the order of `generated.csv`: (N, H, W, 3) uint8.

    Return None if there are none. Raises UserError if `generated.csv` is missing.
    """
    try:
        table = pd.read_csv(folder / "generated.csv", dtype=str)
    except FileNotFoundError:
        raise UserError(f"{folder / 'generated.csv'}: missing; run `potgan generate` first") from None
    if "target" not in table:
        return None
    return np.stack([read_image(folder / name) for name in table["target"]])
