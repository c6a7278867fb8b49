"""The stage `evaluate`: a folder of generated images + its pairs + a named protocol -> `scores.json`, `per-pair.csv`."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from potgan.common.errors import UserError
from potgan.common.files import write_text
from potgan.common.records import JsonRecord
from potgan.data.pixels import read_image
from potgan.data.pose_rendering import limb_mask, metric_mask
from potgan.measure.generate import TrainingSummary
from potgan.measure.inception import FeatureNetwork, measure_distribution
from potgan.measure.ssim import all_ssim
from potgan.methods.potgan.generator import SCALES
from potgan.methods.potgan.tps import interpolation_matrix, resting_points
from potgan.settings.protocols import IMAGE_METRICS, MASKED_METRICS, PROTOCOLS, SET_METRICS, Protocol
from potgan.settings.schema import GeneratorSettings

LIBRARIES = ("torch", "torchvision", "numpy", "opencv-contrib-python-headless", "pandas")


def evaluate(
    generated: np.ndarray,
    targets: np.ndarray,
    masks: np.ndarray | None,
    pairs: pd.DataFrame,
    network: FeatureNetwork | None,
    protocol: Protocol,
    train_images: Iterator[np.ndarray] | None = None,
    absent: str = "",
    cache: Path | None = None,
) -> tuple[dict[str, dict[str, Any]], pd.DataFrame]:
    """All metrics of a protocol.

    generated, targets: (N, H, W, 3) uint8 RGB, in the order of `pairs`; masks: (N, H, W) of the protocol's mask owner, or
    None where nobody knows the poses; network: the protocol's feature network, or None where its weights are not there
    (`absent` says why); train_images: for protocols whose FID looks at all training images, parts (n, H, W, 3); cache:
    where features of targets are kept from row to row.
    Returns metric -> {value, protocol, n, ...}, where a metric that cannot be measured has the value None and a `reason`,
    and the per-pair table (from, to, and a column for each metric of an image and its target).
    Raises UserError as the metrics do, e.g. where the protocol demands more images for FID.
    """
    if len(generated) != len(targets) or len(generated) != len(pairs):
        raise UserError(
            f"evaluate: {len(generated)} images, {len(targets)} targets and {len(pairs)} pairs; run generate again"
        )
    generated, targets, masks = in_frame(generated, protocol), in_frame(targets, protocol), in_frame(masks, protocol, 0)
    per_pair = pairs[["from", "to"]].copy()
    for name, values in image_metrics(generated, targets, masks, protocol).items():
        per_pair[name] = values
    metrics = {
        name: _mean_of_pairs(per_pair[name].to_numpy()) | {"protocol": protocol.metric_id(name)}
        for name in IMAGE_METRICS
        if name in per_pair
    }
    if network is not None:
        metrics |= measure_distribution(generated, targets, masks, network, protocol, train_images, cache)
    for name in (*IMAGE_METRICS, *SET_METRICS):
        if name not in metrics:
            reason = NO_MASKS if masks is None and name in MASKED_METRICS else absent or NO_NETWORK
            metrics[name] = {"value": None, "protocol": protocol.metric_id(name), "n": len(pairs), "reason": reason}
    return metrics, per_pair


NO_MASKS = "no key points are known from which masks could be drawn"
NO_NETWORK = "there is no feature network"
NO_FOREGROUND = "no mask has a pixel at which the window lies in the image"


def _mean_of_pairs(values: np.ndarray) -> dict[str, Any]:
    """value and n of the pairs that have one: where a mask has no pixel, there is no SSIM inside it."""
    there = values[~np.isnan(values)]
    if not len(there):
        return {"value": None, "n": 0, "reason": NO_FOREGROUND}
    return {"value": float(there.mean()), "n": len(there)}


def image_metrics(
    generated: np.ndarray, targets: np.ndarray, masks: np.ndarray | None, protocol: Protocol
) -> dict[str, np.ndarray]:
    """Metric -> (N,) float64 values of each image against its target; masked ones only where there are masks.

    l1: mean absolute difference in grey levels. psnr: in dB for a range of 255; two equal images, whose PSNR is infinite,
    get that of images that differ by one level in one value, so that a mean exists.
    """
    found = all_ssim(targets, generated, masks, protocol.ssim)
    l1, mse = np.empty(len(generated)), np.empty(len(generated))
    for i, (image, target) in enumerate(zip(generated, targets, strict=True)):
        difference = image.astype(np.float64) - target
        l1[i], mse[i] = np.abs(difference).mean(), np.square(difference).mean()
    return found | {"l1": l1, "psnr": 10 * np.log10(255**2 / np.maximum(mse, 1 / generated[0].size))}


def in_frame(images: np.ndarray | None, protocol: Protocol, fill: int = 255) -> np.ndarray | None:
    """Images (N, H, W, 3) or masks (N, H, W) in the frame that the protocol measures in."""
    if images is None or protocol.frame != "pad-256" or images.shape[1:3] != (256, 176):
        return images
    padding = [(0, 0), (0, 0), (40, 40), (0, 0)][: images.ndim]
    return np.pad(images, padding, constant_values=fill)


def masks_of(joints: np.ndarray, size: tuple[int, int], protocol: Protocol) -> np.ndarray:
    """(N, H, W) uint8: the protocol's masks of these (N, 18, 2) poses; equal poses are drawn once."""
    draw = {"rectangles4": metric_mask, "pg2-r4": partial(limb_mask, radius=4)}[protocol.mask_id]
    drawn: dict[bytes, np.ndarray] = {}
    masks = np.empty((len(joints), *size), np.uint8)
    for i, pose in enumerate(joints):
        key = np.ascontiguousarray(pose).tobytes()
        if key not in drawn:
            drawn[key] = draw(pose, *size)
        masks[i] = drawn[key]
    return masks


def sensitivity(
    generated: np.ndarray,
    targets: np.ndarray,
    source_joints: np.ndarray | None,
    target_joints: np.ndarray | None,
    strip_targets: np.ndarray | None = None,
) -> pd.DataFrame:
    """The same images under every protocol, as far as images alone decide: one row per protocol.

    Columns: protocol, ssim, mask_ssim, foreground_ssim (means over pairs), mask_area. joints: (N, 18, 2), or None.
    strip_targets: the targets of released strips; without them, protocols that measure against those are left out. NaN
    where a protocol's window is larger than the images, or no pose is known. `potgan-synthetic` measures images as `potgan`
    does, and is left out.
    """
    rows = []
    for protocol in PROTOCOLS.values():
        if protocol.feature_network == "synthetic-classifier" or (
            protocol.targets == "strip" and strip_targets is None
        ):
            continue
        owner = target_joints if protocol.mask_owner == "target" else source_joints
        masks = None if owner is None else masks_of(owner, generated.shape[1:3], protocol)
        theirs = strip_targets if protocol.targets == "strip" else targets
        row = {"protocol": protocol.id, "ssim": np.nan, "mask_ssim": np.nan, "foreground_ssim": np.nan}
        row["mask_area"] = np.nan if masks is None else float(masks.mean())
        framed = [in_frame(images, protocol) for images in (theirs, generated)]
        if min(framed[0].shape[1:3]) >= protocol.ssim.size:
            scores = all_ssim(*framed, in_frame(masks, protocol, 0), protocol.ssim)
            row |= {name: float(pd.Series(values).mean()) for name, values in scores.items()}  # of those that have one
        rows.append(row)
    return pd.DataFrame(rows)


def read_generated(folder: Path, pairs: pd.DataFrame) -> np.ndarray:
    """The images of a `generate` folder in the order of `pairs`: (N, H, W, 3) uint8. Surplus or missing is an error."""
    try:
        table = pd.read_csv(folder / "generated.csv", dtype=str)
    except FileNotFoundError:
        raise UserError(f"{folder / 'generated.csv'}: missing; run `potgan generate` first") from None
    if not table[["from", "to"]].equals(pairs[["from", "to"]].astype(table["from"].dtype)):
        raise UserError(f"{folder}: was generated for another pair list; run `potgan generate` again")
    surplus = {path.name for path in (folder / "images").glob("*.png")} - {Path(name).name for name in table["file"]}
    if surplus:
        raise UserError(
            f"{folder}: holds {len(surplus)} images of no pair (first: {min(surplus)}); run `potgan generate` again"
        )
    images = [read_image(folder / name) for name in table["file"]]
    other = next(
        (name for name, image in zip(table["file"], images, strict=True) if image.shape != images[0].shape), None
    )
    if other is not None:
        raise UserError(f"{folder / other}: has another size than the other images; run `potgan generate` again")
    return np.stack(images)


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


@dataclass(frozen=True)
class Measured:
    """One metric of a set of images. value: None where it could not be measured; then `reason` says why.

    protocol: the metric's id. n: images or pairs behind the value. spread: of the Inception Score over its splits. interval: of
    KID. n_real: real images, where their number differs.
    """

    value: float | None
    protocol: str
    n: int | None
    spread: float | None = None
    interval: tuple[float, float] | None = None
    n_real: int | None = None
    warning: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class WarpError:
    """Mean end-point error of the warp at one scale, and that of not moving, in pixels; pixels: how many were compared."""

    scale: int
    stride: int
    end_point_error: float
    identity_end_point_error: float
    pixels: int = 0


@dataclass(frozen=True)
class WarpErrors:
    scales: tuple[WarpError, ...]


@dataclass(frozen=True)
class Scores(JsonRecord):
    """`scores.json` of one run, and of released results that were scored by themselves, which have no benchmark.

    metrics: name -> what was measured. warp: None where the true flow is not known. settings: fingerprint of what decided the
    images. hashes: of data, weights and images. versions: library -> version. origin: of released results.
    """

    REMEDY = "run `potgan generate` and `potgan evaluate` for it"

    method: str
    n_pairs: int
    protocol: dict[str, object]
    metrics: dict[str, Measured]
    benchmark: str | None = None
    dataset: str | None = None
    seed: int | None = None
    iteration: int | None = None
    warp: WarpErrors | None = None
    mask_area: float | None = None
    settings: str | None = None
    file_format: str = "png"
    hashes: dict[str, object] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    device: str | None = None
    training: TrainingSummary | None = None
    origin: dict[str, object] | None = None


def write_scores(out: Path, scores: Scores, per_pair: pd.DataFrame, under_all: pd.DataFrame | None = None) -> None:
    """`scores.json` last, so that it is only there where the rest is."""
    write_text(out / "per-pair.csv", per_pair.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    if under_all is not None:
        write_text(out / "sensitivity.csv", under_all.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    scores.write(out / "scores.json")
