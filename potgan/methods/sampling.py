"""Sampling at places that a matrix gives: the affine warps of Deformable GAN, the crops of VUNet and DPIG.

Places are index coordinates: (x, y) = (0, 0) is the centre of the first pixel, and (W - 1, H - 1) that of the last one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def pixel_grid(height: int, width: int, device: torch.device | None = None) -> torch.Tensor:
    """Return the index coordinates (x, y) of all pixels, (height, width, 2) float32."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1)


def places_of(matrix: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return where each pixel of an output of (height, width) is taken from, (..., height, width, 2).

    matrix: (..., 2, 3), affine, or (..., 3, 3), perspective. It maps output coordinates to source coordinates (a backward warp).
    """
    points = pixel_grid(height, width, matrix.device).to(matrix.dtype)
    by_x, by_y, shift = (matrix[..., None, None, :, column] for column in range(3))
    # Not a matrix product, which autocast and TF32 would coarsen to fractions of a pixel.
    mapped = by_x * points[..., :1] + by_y * points[..., 1:] + shift
    return mapped if mapped.shape[-1] == 2 else mapped[..., :2] / mapped[..., 2:]


def sample_places(
    features: torch.Tensor, places: torch.Tensor, mode: str = "bilinear", outside: str = "zeros"
) -> torch.Tensor:
    """Sample (B, C, H, W) at `places` (B, h, w, 2) -> (B, C, h, w).

    mode: `bilinear` or `nearest`. outside: `zeros`, or `border` for the nearest pixel inside. Places are in fp32 whatever the
    precision of the training is, and the result has the number format of `features`.
    """
    height, width = features.shape[2:]
    x, y = places.float().unbind(-1)
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], dim=-1)
    with torch.autocast(features.device.type, enabled=False):
        sampled = F.grid_sample(features.float(), grid, mode=mode, padding_mode=outside, align_corners=True)
    return sampled.to(features.dtype)
