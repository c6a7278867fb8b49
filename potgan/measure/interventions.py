"""Rows of a finished network that is given other warps than its own, which trains nothing.

An ablation compares two trainings, and these differ in more than the part in question: in the number of parameters, in what they
see, and in chance. An intervention compares a network with itself. If other warps make its images worse, it depends on its own
warps. If the pair's own warps are better than those of another pair, and than the mean warp, they are specific to the
pair. If the true flow makes its images better, its warps are not the true motion. If it makes them worse, nothing follows, because
the decoder was trained on other warps.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from potgan.common.errors import UserError
from potgan.data.batches import PairData, to_pixels
from potgan.methods.potgan.generator import SCALES, Generator

#: The pairs whose warps are exchanged are drawn with this seed.
SEED = 0


@torch.no_grad()
def intervened(
    generator: Generator,
    kind: str,
    data: PairData,
    batch_size: int,
    flow: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[tuple[np.ndarray, None]]:
    """Yield, pair by pair, the image (H, W, 3) uint8 that the network makes with the warps of an intervention.

    generator: with a pose transform. kind: one of `INTERVENTIONS` of the settings.

    - identity-warps: nothing is moved.
    - mean-warp: every pair gets the mean of the control points of all pairs, at each scale.
    - other-warps: every pair gets the control points of another pair. The pairs are brought into a random order, and each gets
      those of the next.
    - true-flow: every cell samples where the exact flow says. A cell in which no pixel is visible in the source stays where it is.

    flow: (N, H, W, 2) displacement from target to source in pixels, and (N, H, W) bool, whether it is known. Only `true-flow`
    needs it. Raises UserError if it is missing or belongs to other pairs.
    """
    generator.eval()
    batches = [range(first, min(first + batch_size, len(data))) for first in range(0, len(data), batch_size)]
    if kind == "true-flow":
        if flow is None or len(flow[0]) != len(data):
            what = "is missing" if flow is None else f"is of {len(flow[0])} pairs instead of {len(data)}"
            raise UserError(f"true-flow: the exact flow of the test pairs {what}; run `potgan pairs` again")
    else:
        points = _other_points(generator, kind, data, batches)
    for positions in batches:
        batch = data.batch(positions, needs=generator.needs)
        device = batch.source_image.device
        if kind == "true-flow":
            part = (values[positions.start : positions.stop] for values in flow)
            grids = [torch.from_numpy(grid).to(device) for grid in flow_grids(*part)]
        else:
            here = points[positions.start : positions.stop]
            grids = [spline(here[:, scale]) for scale, spline in enumerate(generator.pose_transform.splines)]
        out = generator(batch.source_image, batch.source_mask, batch.target_mask, batch.target_heatmaps, grids)
        for image in to_pixels(out.image).permute(0, 2, 3, 1).cpu().numpy():
            yield image, None


def _other_points(generator: Generator, kind: str, data: PairData, batches: list[range]) -> torch.Tensor:
    """Return the control points (N, scales, F, 2) that all pairs are given."""
    own = []
    for positions in batches:
        batch = data.batch(positions, needs=frozenset({"source_mask", "target_mask"}))
        own.append(torch.stack(generator.pose_transform(batch.source_mask, batch.target_mask)[0], dim=1))
    points = torch.cat(own)
    match kind:
        case "identity-warps":
            rest = torch.stack(
                [torch.tanh(net.rest).unflatten(0, (-1, 2)) for net in generator.pose_transform.coordinates]
            )
            return rest.expand_as(points)
        case "mean-warp":
            return points.mean(dim=0, keepdim=True).expand_as(points)
        case "other-warps":
            order = torch.from_numpy(np.random.default_rng(SEED).permutation(len(points))).to(points.device)
            others = torch.empty_like(points)
            others[order] = points[order.roll(-1)]
            return others
    raise ValueError(kind)


def flow_grids(flow: np.ndarray, visible: np.ndarray) -> list[np.ndarray]:
    """Return, for each scale, the sampling grid (N, h, w, 2) float32 that moves every cell along the true flow.

    flow: (N, H, W, 2) displacement from target to source in pixels. visible: (N, H, W) bool, where it is known. A cell moves by the
    mean over its known pixels, and stays where it is if there are none. Cell i at stride s has its centre at pixel
    s i + (s - 1) / 2, and coordinates are normalised with `align_corners=True`.
    """
    count, height, width = visible.shape
    known = np.where(visible[..., None], flow, 0).astype(np.float64)
    grids = []
    for scale in range(SCALES):
        stride = 2 ** (scale + 1)
        rows, columns = height // stride, width // stride
        blocks = known[:, : rows * stride, : columns * stride].reshape(count, rows, stride, columns, stride, 2)
        seen = visible[:, : rows * stride, : columns * stride].reshape(count, rows, stride, columns, stride)
        moved = blocks.sum(axis=(2, 4)) / np.maximum(seen.sum(axis=(2, 4)), 1)[..., None] / stride  # in cells
        y, x = np.mgrid[:rows, :columns]
        cells = np.stack([x, y], axis=-1) + moved
        grids.append((2 * cells / np.array([columns - 1, rows - 1]) - 1).astype(np.float32))
    return grids
