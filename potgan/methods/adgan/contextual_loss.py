"""The contextual loss (Mechrez, Talmi and Zelnik-Manor 2018, Section 3), as ADGAN computes it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

#: The bandwidth h of Eq. (3), and what is added to the smallest distance in Eq. (2). Source: menyifang/ADGAN, `models/adgan.py`
#: and `losses/CX_style_loss.py`.
BANDWIDTH, EPSILON = 0.5, 1e-5


def contextual_loss(target: torch.Tensor, generated: torch.Tensor, centre: torch.Tensor | None = None) -> torch.Tensor:
    """Return how far the features of generated images are from those of the target images, wherever these lie; 0 if equal.

    target, generated: (B, C, h, w). centre: (1, C, 1, 1), what is taken from both, by default the mean of `target` over the batch
    and all places. The result is 0-d, in fp32, the mean over the batch.

    d(i, j) is half of 1 minus the cosine between place i of the target and place j of the generated image. It is divided by the
    smallest d(i, j) over i. A softmax over i of its negative, divided by the bandwidth, is the similarity. The loss is the negative
    logarithm of the mean over i of the largest similarity over j. Here all of that is done with logarithms, so that no
    similarity becomes 0.
    """
    with torch.autocast(target.device.type, enabled=False):
        target, generated = target.float(), generated.float()
        if centre is None:
            centre = target.mean((0, 2, 3), keepdim=True)
        # A feature at the centre has no direction. It counts as orthogonal to all others.
        target, generated = (F.normalize((x - centre).flatten(2), dim=1, eps=1e-6) for x in (target, generated))
        distance = ((1 - target.transpose(1, 2) @ generated) / 2).clamp(min=0)
        relative = distance / (distance.amin(1, keepdim=True) + EPSILON)
        similarity = F.log_softmax(-relative / BANDWIDTH, dim=1)
        best = similarity.amax(2)
        return (math.log(best.shape[1]) - best.logsumexp(1)).mean()
