"""The stage `generate`: one PNG per test pair, `<from stem>___<to stem>.png`, from a checkpoint or a reference method."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from potgan.batches import PairData, to_pixels
from potgan.files import new_folder, write_json, write_text
from potgan.models.potgan import Generator
from potgan.progress import progress


def file_name(source: str, target: str) -> str:
    """PATN's grammar with a lossless suffix; the stems keep inner dots of names like `x.jpg.jpg`."""
    return f"{source.removesuffix('.jpg')}___{target.removesuffix('.jpg')}.png"


@torch.no_grad()
def synthesise(generator: Generator, data: PairData, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Yield, pair by pair, the image (H, W, 3) uint8 and the control points (4, F, 2) float32 (None without PoT)."""
    generator.eval()
    for first in range(0, len(data), batch_size):
        batch = data.batch(range(first, min(first + batch_size, len(data))))
        out = generator(batch.source_image, batch.source_mask, batch.target_mask, batch.target_heatmaps)
        images = to_pixels(out.image).permute(0, 2, 3, 1).cpu().numpy()
        points = torch.stack(out.control_points, dim=1).cpu().numpy() if out.control_points else [None] * len(images)
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


def write_generated(
    images: Iterator[tuple[np.ndarray, np.ndarray | None]], pairs: pd.DataFrame, record: dict, out: Path
) -> None:
    """Write `out`: `images/*.png`, `generated.csv` (from, to, file), `warps.npz` where there are control points, and,
    naming all that, `generate.json`. The folder appears whole or not at all."""
    with new_folder(out) as folder:
        (folder / "images").mkdir()
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
            if points is not None:
                warps.append(points)
        table = pd.DataFrame({"from": pairs["from"], "to": pairs["to"], "file": files})
        write_text(folder / "generated.csv", table.to_csv(index=False, lineterminator="\n"))
        if warps:
            np.savez_compressed(folder / "warps.npz", control_points=np.stack(warps))
        write_json(folder / "generate.json", record | {"images": len(files)})
