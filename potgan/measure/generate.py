"""The stage `generate`: one PNG per test pair, `<from stem>___<to stem>.png`, from a checkpoint, a reference method, or
somebody else's released results, which are imported bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
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
    """What a training cost. parameters: network -> count; passes: over the pair list."""

    wall_seconds: float
    iterations: int
    parameters: dict[str, int]
    device: str
    passes: float


@dataclass(frozen=True)
class GenerationRecord(JsonRecord):
    """`generate.json`. iteration: of the generator; None for rows without one. settings: fingerprint of what decided the images.

    Of released results: their folder (`origin`), its `layout`, `file_format` and number of `panels`, the SHA-256 of all files,
    and whose `targets` they are measured against.
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
    """PATN's grammar with a lossless suffix; the stems keep inner dots of names like `x.jpg.jpg`."""
    return f"{source.removesuffix('.jpg')}___{target.removesuffix('.jpg')}.png"


@torch.no_grad()
def synthesise(
    generator: PoseGenerator, data: PairData, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield, pair by pair, the image (H, W, 3) uint8 and the control points (4, F, 2) float32 (None without PoT)."""
    generator.eval()
    for first in range(0, len(data), batch_size):
        out = generator.synthesise(data.batch(range(first, min(first + batch_size, len(data))), needs=generator.needs))
        images = to_pixels(out.image).permute(0, 2, 3, 1).cpu().numpy()
        points = [None] * len(images) if out.control_points is None else out.control_points.cpu().numpy()
        yield from zip(images, points, strict=True)


def reference_images(method: str, data: PairData, train_mean: np.ndarray | None) -> Iterator[tuple[np.ndarray, None]]:
    """The rows that need no training, pair by pair.

    copy-source: X_a itself. real-data: X_b itself. mean-image: the mean of the training images, for every pair.
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


def mean_image(data: PairData) -> np.ndarray:
    """(H, W, 3) uint8: the mean over all images of `data`."""
    return data.images.double().mean(dim=0).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def imported_images(results: ResultFolder, size: tuple[int, int]) -> Iterator[tuple[np.ndarray, None]]:
    """The results of a released folder, pair by pair, in the data set's frame (height, width): see `same_frame`."""
    for index, path in enumerate(results.files):
        yield same_frame(results.read(index)["result"], size, path), None


def imported_targets(results: ResultFolder, whole: TargetFolder | None, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The targets that belong to released results, pair by pair: from the folder `whole`, or else from the strips."""
    for index, path in enumerate(results.files):
        if whole is None:
            yield same_frame(results.read(index)["target"], size, path)
        else:
            name = whole.names[index]
            yield same_frame(whole.read(name), size, whole.folder / name)


def write_generated(
    images: Iterator[tuple[np.ndarray, np.ndarray | None]],
    pairs: pd.DataFrame,
    record: GenerationRecord,
    out: Path,
    targets: Iterator[np.ndarray] | None = None,
) -> None:
    """Write `out`: `images/*.png`, `generated.csv` (from, to, file), `warps.npz` where there are control points, and,
    naming all that, `generate.json`. The folder appears whole or not at all.

    targets: what the images are to be measured against where that is not the data set's own image; they become
    `targets/*.png`, and a column `target` of `generated.csv`.
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
    """(N, H, W, 3) uint8: the targets that lie beside imported results, in the order of `generated.csv`; None for none."""
    try:
        table = pd.read_csv(folder / "generated.csv", dtype=str)
    except FileNotFoundError:
        raise UserError(f"{folder / 'generated.csv'}: missing; run `potgan generate` first") from None
    if "target" not in table:
        return None
    return np.stack([read_image(folder / name) for name in table["target"]])
