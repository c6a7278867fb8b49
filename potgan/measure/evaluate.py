"""The stage `evaluate`.

It measures a folder of generated images and their pairs under a named protocol, and writes `scores.json` and `per-pair.csv`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from potgan.common.errors import UserError
from potgan.common.files import write_text
from potgan.common.records import JsonRecord
from potgan.data.pairs import pairs_csv
from potgan.data.pixels import CROPPED, MARGIN, read_image
from potgan.data.pose_rendering import limb_mask, metric_mask, pose_mask
from potgan.measure.generate import TrainingSummary
from potgan.measure.inception import FeatureNetwork, left_out, measure_distribution
from potgan.measure.ssim import all_ssim
from potgan.methods.potgan.generator import SCALES
from potgan.methods.potgan.tps import interpolation_matrix, resting_points
from potgan.settings.protocols import IMAGE_METRICS, MASKED_METRICS, PROTOCOLS, SET_METRICS, Protocol
from potgan.settings.schema import GeneratorSettings

if TYPE_CHECKING:
    from potgan.measure.lpips_network import LpipsNetwork

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
    lpips: LpipsNetwork | str = "",
) -> tuple[dict[str, dict[str, Any]], pd.DataFrame]:
    """Measure all metrics of a protocol.

    generated, targets: (N, H, W, 3) uint8 RGB, in the order of `pairs`.
    masks: (N, H, W), drawn from the poses of the protocol's mask owner, or None if the poses are not known.
    network: the protocol's feature network, or None if its weights are not there.
    train_images: parts (n, H, W, 3) of all training images, for protocols whose FID compares with these.
    absent: why there is no feature network.
    cache: the folder in which the features of targets are kept from one row of the table to the next.
    lpips: the network of LPIPS, or why there is none.

    Returns metric -> {value, protocol, n, ...} and the per-pair table. A metric that cannot be measured has the value None and a
    `reason`. The table has the columns `from` and `to`, and one column for each metric that compares an image with its target.
    Raises UserError as the metrics do, e.g. if the protocol demands more images for FID.
    """
    if len(generated) != len(targets) or len(generated) != len(pairs):
        raise UserError(
            f"evaluate: {len(generated)} images, {len(targets)} targets and {len(pairs)} pairs; run generate again"
        )
    generated, targets, masks = in_frame(generated, protocol), in_frame(targets, protocol), in_frame(masks, protocol, 0)
    no_masks = NO_MASKS if masks is None else None if masks.any() else EMPTY_MASKS
    per_pair = pairs[["from", "to"]].copy()
    for name, values in image_metrics(generated, targets, masks, protocol).items():
        per_pair[name] = values
    if not isinstance(lpips, str):
        per_pair["lpips"] = lpips.distances(generated, targets)
    metrics = {
        name: _mean_of_pairs(per_pair[name].to_numpy(), name) | {"protocol": protocol.metric_id(name)}
        for name in IMAGE_METRICS
        if name in per_pair
    }
    if network is not None:
        metrics |= measure_distribution(generated, targets, masks, network, protocol, train_images, cache)
    for name in (*IMAGE_METRICS, *SET_METRICS):
        if name not in metrics:
            without = lpips if name == "lpips" else absent
            reason = (name in MASKED_METRICS and no_masks) or without or NO_NETWORK
            metrics[name] = {"value": None, "protocol": protocol.metric_id(name), "n": len(pairs), "reason": reason}
    return metrics, per_pair


NO_MASKS = "no key points are known from which masks could be drawn"
EMPTY_MASKS = "no pose has a joint in its image, so every mask is empty"
NO_NETWORK = "there is no feature network"
NO_FOREGROUND = "no mask has a pixel at which the window lies in the image"


def _mean_of_pairs(values: np.ndarray, metric: str) -> dict[str, Any]:
    """Return the mean value, and the number n of pairs that have a value, with a warning where some have none.

    A pair whose mask is empty has no mask-SSIM, and one whose mask has no pixel at which the window lies in the image has no SSIM
    inside the mask.
    """
    there = values[~np.isnan(values)]
    if not len(there):
        return {"value": None, "n": 0, "reason": NO_FOREGROUND if metric == "foreground_ssim" else EMPTY_MASKS}
    entry = {"value": float(there.mean()), "n": len(there)}
    if len(there) < len(values):
        why = ["their masks have no pixel at which the window lies in the image"] if metric == "foreground_ssim" else []
        entry["warning"] = left_out(len(values) - len(there), len(values), *why)
    return entry


def image_metrics(
    generated: np.ndarray, targets: np.ndarray, masks: np.ndarray | None, protocol: Protocol
) -> dict[str, np.ndarray]:
    """Return metric -> (N,) float64 values of each image against its target. Masked metrics need masks.

    l1: the mean absolute difference in grey levels. psnr: in dB, for a range of 255. The PSNR of two equal images is infinite. So
    that a mean exists, they get the PSNR of images that differ by one level in one value.
    """
    found = all_ssim(targets, generated, masks, protocol.ssim)
    l1, mse = np.empty(len(generated)), np.empty(len(generated))
    for i, (image, target) in enumerate(zip(generated, targets, strict=True)):
        difference = image.astype(np.float64) - target
        l1[i], mse[i] = np.abs(difference).mean(), np.square(difference).mean()
    return found | {"l1": l1, "psnr": 10 * np.log10(255**2 / np.maximum(mse, 1 / generated[0].size))}


def in_frame(images: np.ndarray | None, protocol: Protocol, fill: int = 255) -> np.ndarray | None:
    """Return images (N, H, W, 3) or masks (N, H, W) in the frame that the protocol measures in.

    fill: the value of the pixels that are added.
    """
    if images is None or protocol.frame != "pad-256" or images.shape[1:3] != CROPPED:
        return images
    padding = [(0, 0), (0, 0), (MARGIN, MARGIN), (0, 0)][: images.ndim]
    return np.pad(images, padding, constant_values=fill)


def masks_of(joints: np.ndarray, size: tuple[int, int], protocol: Protocol) -> np.ndarray:
    """Return the protocol's masks (N, H, W) uint8 of the poses `joints` (N, 18, 2). Equal poses are drawn once."""
    draw = {
        "rectangles4": metric_mask,
        "refined": partial(pose_mask, limb_radius=4 if size[0] < 256 else 8),
        "pg2-r4": partial(limb_mask, radius=4),
    }[protocol.mask_id]
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
    measured: tuple[Protocol, pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Measure the same images under every protocol, with the metrics that need no feature network.

    source_joints, target_joints: (N, 18, 2), or None if no pose is known. measured: a protocol and what it gave for these images
    against the same targets, pair by pair, which is not measured again.

    Protocols that measure against the targets of released strips are left out, because `targets` are the data set's own.
    `potgan-synthetic` is left out too, because it measures single images as `potgan` does.

    Returns one row per protocol, with the columns protocol, ssim, mask_ssim, foreground_ssim (means over pairs) and mask_area. A
    value is NaN if the protocol's window is larger than the images, or if it needs a pose that is not known.
    """
    rows = []
    for protocol in PROTOCOLS.values():
        if protocol.feature_network == "synthetic-classifier" or protocol.targets == "strip":
            continue
        owner = target_joints if protocol.mask_owner == "target" else source_joints
        masks = None if owner is None else masks_of(owner, generated.shape[1:3], protocol)
        row = {"protocol": protocol.id, "ssim": np.nan, "mask_ssim": np.nan, "foreground_ssim": np.nan}
        row["mask_area"] = np.nan if masks is None else float(masks.mean())
        framed = [in_frame(images, protocol) for images in (targets, generated)]
        if measured is not None and _same_ssim(measured[0], protocol):
            known = measured[1]
            row |= {
                name: float(known[name].mean()) for name in ("ssim", "mask_ssim", "foreground_ssim") if name in known
            }
        elif min(framed[0].shape[1:3]) >= protocol.ssim.size:
            scores = all_ssim(*framed, in_frame(masks, protocol, 0), protocol.ssim)
            # The mean of a Series leaves out the pairs without a value.
            row |= {name: float(pd.Series(values).mean()) for name, values in scores.items()}
        rows.append(row)
    return pd.DataFrame(rows)


def _same_ssim(one: Protocol, other: Protocol) -> bool:
    """Whether two protocols measure SSIM and its masked forms in the same way."""
    return all(
        getattr(one, name) == getattr(other, name) for name in ("ssim", "frame", "targets", "mask_id", "mask_owner")
    )


def read_generated(folder: Path, pairs: pd.DataFrame) -> np.ndarray:
    """Return the images of a `generate` folder in the order of `pairs`: (N, H, W, 3) uint8.

    Raises UserError if an image is missing, belongs to no pair or has another size than the others.
    """
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


def read_flow(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the exact flow (N, H, W, 2) of the test pairs in pixels, and (N, H, W) bool, where it is known."""
    content = np.load(path)
    return content["flow"], content["visible"]


def warp_errors(
    control_points: np.ndarray, flow: np.ndarray, visible: np.ndarray, settings: GeneratorSettings
) -> list[dict[str, float]]:
    """Return, for each scale, the end-point errors of the learned warp and of reference warps against the true flow.

    control_points: (N, 4, F, 2), normalised. flow: (N, H, W, 2), the true displacement from target to source, in pixels.
    visible: (N, H, W) bool, the body pixels of the target whose surface point is seen in the source. The mean goes over all these
    pixels of all pairs.

    The spline is evaluated at the pixels themselves, in the coordinates of each scale. Cell i at stride s has its centre at pixel
    s i + (s - 1) / 2. So no coarse grid has to be interpolated.

    Three references give the errors a scale, all on the same pixels: not moving at all, the best translation of each pair, and the
    best spline of each pair with the same control points, without the bounds of tanh. Best means the least squared error, which
    a network could reach only if it knew the flow.
    """
    count, height, width = visible.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    points = resting_points(*settings.control_points, settings.control_point_span)
    truth = flow.reshape(count, -1, 2)
    seen = visible.reshape(count, -1)
    identity = float(np.linalg.norm(truth, axis=2)[seen].mean())
    translation = sum(
        np.linalg.norm(true[mask] - true[mask].mean(axis=0), axis=1).sum()
        for true, mask in zip(truth, seen, strict=True)
        if mask.any()
    )
    errors = []
    for scale in range(SCALES):
        stride = 2 ** (scale + 1)
        cells = np.array([width // stride, height // stride])
        centre = (stride - 1) / 2
        normalised = 2 * (pixels - centre) / stride / (cells - 1) - 1
        matrix = interpolation_matrix(points, normalised)
        total = best = 0.0
        for theta, true, mask in zip(control_points[:, scale].astype(np.float64), truth, seen, strict=True):
            basis = matrix[mask]
            source = (basis @ theta + 1) / 2 * (cells - 1) * stride + centre
            total += np.linalg.norm(source - pixels[mask] - true[mask], axis=1).sum()
            ends = pixels[mask] + true[mask]
            fitted = basis @ np.linalg.lstsq(basis.T @ basis, basis.T @ ends, rcond=1e-12)[0]
            best += np.linalg.norm(fitted - ends, axis=1).sum()
        errors.append(
            {
                "scale": scale + 1,
                "stride": stride,
                "end_point_error": total / int(seen.sum()),
                "identity_end_point_error": identity,
                "translation_end_point_error": float(translation) / int(seen.sum()),
                "spline_end_point_error": best / int(seen.sum()),
                "pixels": int(seen.sum()),
            }
        )
    return errors


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # the machine has another build, e.g. opencv-python
            found[name] = "not installed under this name"
    return found


def measured_with(
    pairs: pd.DataFrame, targets: np.ndarray, joints: tuple[np.ndarray, np.ndarray] | None
) -> dict[str, str | None]:
    """Return the SHA-256 of the pairs in their order, of the target images, and of the joints that the masks are drawn from.

    targets: (N, H, W, 3) uint8. joints: the sources' and the targets', each (N, 18, 2), or None if no pose is known.

    Two scores with the same three hashes were measured with the same things, wherever these lay.
    """
    return {
        "pairs": hashlib.sha256(pairs_csv(pairs).encode()).hexdigest(),
        "targets": _content(targets),
        # A missing joint is NaN, which has many bit patterns.
        "keypoints": None
        if joints is None
        else _content(*(np.where(np.isnan(j), np.float32("nan"), j) for j in joints)),
    }


def _content(*arrays: np.ndarray) -> str:
    """Return the SHA-256 over the shapes and values of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def folder_hash(folder: Path) -> str:
    """Return the SHA-256 over the names and bytes of the PNG files of a `generate` folder."""
    digest = hashlib.sha256()
    for path in sorted((folder / "images").glob("*.png")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Measured:
    """One metric of a set of images.

    value: None if the metric could not be measured; then `reason` says why. protocol: the id of the metric. n: the number of images
    or pairs behind the value. spread: the standard deviation of the Inception Score over its splits. interval: the interval of KID.
    n_real: the number of real images, if it differs from n.
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
    """The mean end-point errors of the warp at one scale and of reference warps, in pixels.

    identity: nothing moves. translation, spline: the best of each pair in the sense of least squares; None in files of earlier
    versions. pixels: the number of pixels that were compared.
    """

    scale: int
    stride: int
    end_point_error: float
    identity_end_point_error: float
    translation_end_point_error: float | None = None
    spline_end_point_error: float | None = None
    pixels: int = 0


@dataclass(frozen=True)
class WarpErrors:
    scales: tuple[WarpError, ...]


@dataclass(frozen=True)
class Scores(JsonRecord):
    """The content of `scores.json`, for one run or for released results that were scored without a benchmark.

    metrics: name -> what was measured. warp: None if the true flow is not known. settings: the fingerprint of all that decided the
    images. hashes: the hashes of data, weights and images. measured_with: see `measured_with`; empty in files of earlier versions.
    versions: library -> version. origin: where released results come from.
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
    measured_with: dict[str, str | None] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    device: str | None = None
    training: TrainingSummary | None = None
    origin: dict[str, object] | None = None

    def lacks(self) -> str | None:
        missing = [f"protocol.{key}" for key in ("id", "hash") if key not in self.protocol]
        missing += [] if self.metrics else ["metrics"]
        return missing[0] if missing else None


def write_scores(out: Path, scores: Scores, per_pair: pd.DataFrame, under_all: pd.DataFrame | None = None) -> None:
    """Write the files of an evaluation. `scores.json` is written last, so that it is there only if the others are."""
    write_text(out / "per-pair.csv", per_pair.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    if under_all is not None:
        write_text(out / "sensitivity.csv", under_all.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    scores.write(out / "scores.json")
