"""The options of PG2. The defaults are the authors' values at 128 x 64 pixels (docs/methods.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from potgan.common.typed import setting


@dataclass(frozen=True)
class PG2Options:
    """PG2 (Ma et al. 2017): a coarse image by G1, then a difference map by G2."""

    training: ClassVar[dict[str, object]] = {"learning_rate": 2e-5, "adam_betas": (0.5, 0.999)}
    unread: ClassVar[tuple[str, ...]] = (
        "training.perceptual_network",
        "training.perceptual_width",
        "masks.heatmap_sigma",
        "masks.levels",
    )

    width: int = setting(128, "channels of the first level of G1 and G2", at_least=1, follows="generator.width")
    discriminator_width: int = setting(
        64, "channels of the discriminator's first layer", at_least=1, follows="generator.width"
    )
    first_stage: float = setting(
        22 / 36,
        "share of the iterations that train G1; the rest train G2 and D. The paper has 22,000 and 14,000 on Market-1501, and "
        "30,000 and 20,000 on DeepFashion",
        above=0,
        below=1,
    )
    reconstruction: float = setting(10.0, "weight of the masked L1 beside the adversarial loss", at_least=0)

    def refinement_from(self, iterations: int) -> int:
        """Return the iteration at which G2 and D begin to be trained."""
        return round(self.first_stage * iterations)

    def problem(self, iterations: int) -> str:
        if 0 < self.refinement_from(iterations) < iterations:
            return ""
        return (
            f"first_stage {self.first_stage:.3g} of {iterations} iterations leaves none for one of the two stages; train longer, "
            "or choose another share"
        )


OPTIONS = PG2Options
