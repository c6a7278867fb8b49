"""The guided filter of He et al. (TPAMI 2013) in differentiable form (Section III-B "Guided Filter")."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def box_mean(x: torch.Tensor, radius: int) -> torch.Tensor:
    """Return the mean over the (2 radius + 1)^2 window around each pixel. x: (B, C, H, W).

    At the border the mean goes over the part of the window that lies inside the image.
    """
    return F.avg_pool2d(x, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)


def guided_filter(guide: torch.Tensor, image: torch.Tensor, radius: int, epsilon: float) -> torch.Tensor:
    """Filter each channel of `image` by a one-channel guide: q = mean(a) I + mean(b), He et al. Eq. (5)-(8).

    guide: (B, 1, H, W) in [0, 1]. image: (B, C, H, W). radius: in pixels. epsilon: in squared units of the guide.

    If a binary guide is constant over the window, a is 0 and the result is that of a box filter applied twice
    (docs/decisions.md, D23). At the border, windows are cut as in the paper of He et al.; this differs from OpenCV, which
    reflects the image there.
    """
    mean_guide = box_mean(guide, radius)
    mean_image = box_mean(image, radius)
    covariance = box_mean(guide * image, radius) - mean_guide * mean_image
    variance = box_mean(guide * guide, radius) - mean_guide * mean_guide
    a = covariance / (variance + epsilon)
    b = mean_image - a * mean_guide
    return box_mean(a, radius) * guide + box_mean(b, radius)
