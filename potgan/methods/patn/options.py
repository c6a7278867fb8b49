"""The options of PATN. The defaults are the authors' values at 128 x 64 pixels (docs/methods.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from potgan.common.typed import setting


@dataclass(frozen=True)
class PATNOptions:
    """PATN (Zhu et al. 2019): nine blocks that attend to what the pose moves."""

    training: ClassVar[dict[str, object]] = {"learning_rate": 2e-4, "adam_betas": (0.5, 0.999)}
    unread: ClassVar[tuple[str, ...]] = ("masks.limb_radius", "masks.levels")

    width: int = setting(
        64,
        "channels of the first layer of the generator and of both discriminators",
        at_least=1,
        follows="generator.width",
    )
    blocks: int = setting(9, "attention blocks", at_least=1)
    normalization: str = setting(
        "batch", "`batch` on Market-1501, `instance` on DeepFashion", choices=("batch", "instance")
    )
    dropout: float = setting(
        0.5, "in the attention blocks and in the discriminators' residual blocks", at_least=0, below=1
    )
    reconstruction: float = setting(10.0, "weight of L1; 1 on DeepFashion", at_least=0)
    perceptual: float = setting(10.0, "weight of L1 between features; 1 on DeepFashion", at_least=0)
    adversarial: float = setting(5.0, "weight of the mean of both adversarial losses", at_least=0)
    adversarial_kind: str = setting(
        "cross-entropy",
        "`cross-entropy` on Market-1501, `least-squares` on DeepFashion",
        choices=("cross-entropy", "least-squares"),
    )
    pool: int = setting(
        50, "earlier images that the discriminators are shown half of the time; 0 on DeepFashion", at_least=0
    )


OPTIONS = PATNOptions
