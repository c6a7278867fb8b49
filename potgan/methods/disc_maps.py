"""The heat maps of Ma et al. (PG2 and DPIG): a disc for each joint."""

from __future__ import annotations

import torch

#: In pixels, at 128 x 64 and at 256 x 256 alike. Such a disc has 49 pixels.
DISC_RADIUS = 4


def disc_maps(joints: torch.Tensor, height: int, width: int, radius: int = DISC_RADIUS) -> torch.Tensor:
    """Return heat maps (B, J, height, width) float32: 1 up to `radius` pixels from a joint, its edge included, and -1 elsewhere.

    joints: (B, J, 2), (x, y) in pixels, truncated to whole pixels as the authors do. The map of a missing joint (NaN) is -1
    everywhere. Source: charliememory/Pose-Guided-Person-Image-Generation: datasets/convert_market.py, `_getSparseKeypoint`; the
    same range in trainer.py.
    """
    centres = joints.trunc()
    x = torch.arange(width, dtype=centres.dtype, device=joints.device)
    y = torch.arange(height, dtype=centres.dtype, device=joints.device)
    along_x = ((x[:, None] - centres[:, None, :, 0]) ** 2)[:, None]  # (B, 1, width, J)
    along_y = ((y[:, None] - centres[:, None, :, 1]) ** 2)[:, :, None]  # (B, height, 1, J)
    # No comparison with NaN is true, so a missing joint has no disc. The joints vary fastest in memory (channels_last), so that the
    # first convolution need not copy the maps into that order.
    inside = along_x + along_y <= radius**2
    return (2 * inside.float() - 1).permute(0, 3, 1, 2)
