"""The stage `evaluate`: a folder of generated images + its pairs + a named protocol -> `scores.json`, `per-pair.csv`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from potgan.config import GeneratorSettings
from potgan.errors import UserError
from potgan.files import write_json, write_text
from potgan.image_folder import read_image
from potgan.metrics.inception import measure_distribution
from potgan.metrics.protocols import Protocol
from potgan.metrics.ssim import masked_ssim, ssim
from potgan.models.potgan import SCALES
from potgan.models.tps import interpolation_matrix, resting_points
from potgan.rendering import metric_mask

LIBRARIES = ("torch", "torchvision", "numpy", "opencv-contrib-python-headless", "pandas")


def evaluate(
    generated: np.ndarray,
    targets: np.ndarray,
    masks: np.ndarray,
    pairs: pd.DataFrame,
    network: Any,
    protocol: Protocol,
) -> tuple[dict[str, dict[str, Any]], pd.DataFrame]:
    """All metrics of a protocol.

    generated, targets: (N, H, W, 3) uint8 RGB, in the order of `pairs`; masks: (N, H, W) of the protocol's mask owner.
    Returns metric -> {value, protocol, n, ...} and the per-pair table (from, to, ssim, mask_ssim, l1).
    """
    per_pair = pairs[["from", "to"]].copy()
    per_pair["ssim"] = ssim(targets, generated, protocol.ssim)
    per_pair["mask_ssim"] = masked_ssim(targets, generated, masks, protocol.ssim)
    difference = np.abs(targets.astype(np.int16) - generated.astype(np.int16))
    per_pair["l1"] = difference.reshape(len(pairs), -1).mean(axis=1)
    metrics = {
        name: {"value": float(per_pair[name].mean()), "protocol": protocol.metric_id(name), "n": len(pairs)}
        for name in ("ssim", "mask_ssim", "l1")
    }
    metrics |= measure_distribution(generated, targets, masks, network, protocol)
    return metrics, per_pair


def read_generated(folder: Path, pairs: pd.DataFrame) -> np.ndarray:
    """The images of a `generate` folder in the order of `pairs`: (N, H, W, 3) uint8. Surplus or missing is an error."""
    try:
        table = pd.read_csv(folder / "generated.csv", dtype=str)
    except FileNotFoundError:
        raise UserError(f"{folder / 'generated.csv'}: missing; run `potgan generate` first") from None
    if not table[["from", "to"]].equals(pairs[["from", "to"]].astype(table["from"].dtype)):
        raise UserError(f"{folder}: was generated for another pair list; run `potgan generate` again")
    return np.stack([read_image(folder / name) for name in table["file"]])


def metric_masks(joints: np.ndarray, rows: list[int], size: tuple[int, int]) -> np.ndarray:
    """(N, H, W) uint8: the masks of masked metrics for these rows of `joints` (M, 18, 2), each drawn once."""
    drawn = {row: metric_mask(joints[row], *size) for row in set(rows)}
    return np.stack([drawn[row] for row in rows])


def warp_errors(
    control_points: np.ndarray, flow: np.ndarray, visible: np.ndarray, settings: GeneratorSettings
) -> list[dict[str, float]]:
    """End-point error of each scale's learned warp against the true flow, with the identity warp beside it.

    control_points: (N, 4, F, 2) normalised; flow: (N, H, W, 2) true target -> source displacement in pixels; visible:
    (N, H, W) bool, body pixels of the target whose surface point is seen in the source. The mean runs over all of these
    pixels of all pairs. The spline is evaluated at the pixels themselves, in the coordinates of each scale: cell i of
    stride s is centred at pixel s i + (s - 1) / 2, so no interpolation of a coarse grid enters.
    """
    count, height, width = visible.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    points = resting_points(*settings.control_points, settings.control_point_span)
    truth = flow.reshape(count, -1, 2)
    seen = visible.reshape(count, -1)
    identity = float(np.linalg.norm(truth, axis=2)[seen].mean())
    errors = []
    for scale in range(SCALES):
        stride = 2 ** (scale + 1)
        cells = np.array([width // stride, height // stride])
        centre = (stride - 1) / 2
        normalised = 2 * (pixels - centre) / stride / (cells - 1) - 1
        matrix = interpolation_matrix(points, normalised)
        total = 0.0
        for theta, true, mask in zip(control_points[:, scale].astype(np.float64), truth, seen, strict=True):
            source = (matrix[mask] @ theta + 1) / 2 * (cells - 1) * stride + centre
            total += np.linalg.norm(source - pixels[mask] - true[mask], axis=1).sum()
        errors.append(
            {
                "scale": scale + 1,
                "stride": stride,
                "end_point_error": total / int(seen.sum()),
                "identity_end_point_error": identity,
                "pixels": int(seen.sum()),
            }
        )
    return errors


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # a machine with another build, e.g. opencv-python
            found[name] = "not installed under this name"
    return found


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and bytes of the PNG files of a `generate` folder."""
    digest = hashlib.sha256()
    for path in sorted((folder / "images").glob("*.png")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def write_scores(out: Path, record: dict[str, Any], per_pair: pd.DataFrame) -> None:
    write_text(out / "per-pair.csv", per_pair.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    write_json(out / "scores.json", record)
