"""PATN's training (Zhu et al. 2019, Sections 3.2 and 3.3; tengteng95/Pose-Transfer, `models/PATN.py`, `scripts/train_star.sh`).

G minimises 10 L1 + 10 L1 between VGG-19's relu1_2 + 5 times the mean of both adversarial losses. Each discriminator minimises 5
times the mean of its losses of real and of synthesised images. These are the weights for Market-1501.
"""

from __future__ import annotations

from fractions import Fraction

from torch import nn

from potgan.methods.patn.generator import Generator
from potgan.methods.patn.options import PATNOptions
from potgan.methods.residual_discriminator import AgainstTwoDiscriminators, discriminators
from potgan.settings.schema import RunSettings


class PATN(AgainstTwoDiscriminators):
    """PATN.

    Differs from the authors' code: the learning rate falls at every iteration and not once in 4,000 pairs; a sigmoid and a
    cross-entropy are one function, which needs no limit for the logarithm; batch norms of the discriminators start with a weight
    of 1, and in PyTorch 0.3 with one from U(0, 1).
    """

    settings_class = PATNOptions
    generator_class = Generator
    constant_share = Fraction(500, 700)

    @staticmethod
    def discriminators(settings: RunSettings) -> dict[str, nn.Module]:
        options = settings.options
        return discriminators(options.width, options.normalization, options.dropout)

    @property
    def adversarial_kind(self) -> str:
        return self.options.adversarial_kind

    @property
    def pool_size(self) -> int:
        return self.options.pool


METHOD = PATN
