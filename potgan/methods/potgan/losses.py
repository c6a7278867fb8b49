"""The loss terms of Section III-C, Eq. (4)-(8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from potgan.methods.blocks import at_least_fp32
from potgan.methods.perceptual import PerceptualNetwork
from potgan.settings.schema import LossWeights


def generator_losses(
    generated: torch.Tensor,
    target: torch.Tensor,
    fake_logits: torch.Tensor | None,
    perceptual_network: PerceptualNetwork | None,
) -> dict[str, torch.Tensor]:
    """Return the terms of Eq. (8) without their weights. Images are (B, 3, H, W) in [-1, 1], logits are (B,).

    reconstruction: Eq. (4) as a mean over elements, as in PATN, so that the weights do not depend on the size of the image.
    perceptual: Eq. (5) as a mean over C, H and W (and the batch).
    adversarial: Eq. (7) in the form that is *minimised*: -log D(X^_b, M_b), which is the non-saturating loss.

    The last term differs from the paper: Eq. (7) has no minus sign there, although it is added to a sum that is minimised
    (docs/decisions.md, D25).
    """
    terms = {"reconstruction": F.l1_loss(generated, target)}
    if perceptual_network is not None:
        with torch.no_grad():
            wanted = perceptual_network(target)
        terms["perceptual"] = F.l1_loss(at_least_fp32(perceptual_network(generated)), at_least_fp32(wanted))
    if fake_logits is not None:
        fake_logits = at_least_fp32(fake_logits)
        terms["adversarial"] = F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))
    return terms


def weighted_sum(terms: dict[str, torch.Tensor], weights: LossWeights) -> torch.Tensor:
    """Return L_all of Eq. (8).

    A term of weight 0 is left out and not multiplied by 0, because a NaN in it must not matter.
    """
    parts = [getattr(weights, name) * value for name, value in terms.items() if getattr(weights, name)]
    return torch.stack(parts).sum()


def discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Return Eq. (6) in the form that is minimised.

    It is half the cross-entropy on the real pairs plus half that on the synthesised pairs, as in PG2. A discriminator that only
    guesses gets ln 2 = 0.693.
    """
    real_logits, fake_logits = at_least_fp32(real_logits), at_least_fp32(fake_logits)
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return (real + fake) / 2
