"""The options of DPIG. The defaults are the authors' values at 128 x 64 pixels (docs/methods.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from potgan.common.typed import setting


@dataclass(frozen=True)
class DPIGOptions:
    """DPIG (Ma et al. 2018), its first stage: codes of seven body regions and the background, trained by reconstruction."""

    training: ClassVar[dict[str, object]] = {"learning_rate": 2e-5, "adam_betas": (0.5, 0.999)}
    unread: ClassVar[tuple[str, ...]] = (
        "training.perceptual_network",
        "training.perceptual_width",
        "masks.heatmap_sigma",
        "masks.levels",
    )

    width: int = setting(
        128, "channels of the first level of encoders and decoder", at_least=1, follows="generator.width"
    )
    discriminator_width: int = setting(
        64, "channels of the discriminator's first layer", at_least=1, follows="generator.width"
    )
    reconstruction: float = setting(20.0, "weight of L1 beside the adversarial loss", at_least=0)
    background: bool = setting(
        True,
        "whether the background has a code of its own, by the source mask; the authors' DeepFashion model has none",
    )


OPTIONS = DPIGOptions
