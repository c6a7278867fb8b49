"""ADGAN's training (Men et al. 2020, Section 3.3; menyifang/ADGAN, `models/adgan.py`, `scripts/train.sh`).

G minimises L1 + L1 between VGG-19's relu1_2 + 5 times the mean of both adversarial losses + 0.1 times the sum of two contextual
losses. Each discriminator minimises 5 times the mean of its losses of real and of synthesised images. All adversarial losses are
least squares.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import ClassVar

import torch
from torch import nn

from potgan.common.device import autocast
from potgan.common.processes import Processes
from potgan.data.batches import Batch
from potgan.methods.adgan.contextual_loss import contextual_loss
from potgan.methods.adgan.generator import Generator
from potgan.methods.adgan.options import ADGANOptions
from potgan.methods.blocks import at_least_fp32, mean_over_processes
from potgan.methods.method import PoseGenerator
from potgan.methods.residual_discriminator import AgainstTwoDiscriminators, discriminators
from potgan.settings.schema import VGG_WIDTH, RunSettings

#: The layers of a VGG-19 that is fed images in [-1, 1], whose features the contextual loss compares.
CONTEXTUAL_LAYERS = ("relu3_2", "relu4_2")


class ADGAN(AgainstTwoDiscriminators):
    """ADGAN.

    Differs from the authors' code: heat maps are Gaussians, theirs are one pixel for each joint; the contextual loss compares
    features of torchvision's VGG-19, and theirs of the original one (Gatys' `vgg_conv.pth`); the learning rate falls at every
    iteration and not once in 4,000 pairs. VGG-19 is computed only up to the deepest layer that is read.
    """

    settings_class = ADGANOptions
    generator_class = Generator
    needs = frozenset({"source_image", "source_parsing", "target_image", "target_heatmaps"})
    losses: ClassVar[dict[str, str]] = AgainstTwoDiscriminators.losses | {"contextual": "contextual"}
    constant_share = Fraction(1, 2)
    adversarial_kind = "least-squares"
    pool_size = 0

    def __init__(self, settings: RunSettings, device: torch.device, processes: Processes | None = None) -> None:
        super().__init__(settings, device, processes)
        self.contextual = (
            self.feature_network(CONTEXTUAL_LAYERS[-1], normalise=False) if self.options.contextual else None
        )

    @staticmethod
    def discriminators(settings: RunSettings) -> dict[str, nn.Module]:
        return discriminators(settings.options.width, "instance", settings.options.dropout)

    @classmethod
    def build_generator(cls, settings: ADGANOptions, size: tuple[int, int]) -> PoseGenerator:
        # The frozen network's weights are a part of the file that fills this generator, so they are not fetched.
        if settings.texture_network != "random":
            settings = dataclasses.replace(settings, texture_network="random", texture_width=VGG_WIDTH)
        return super().build_generator(settings, size)

    def step(self, parts: list[Batch]) -> dict[str, torch.Tensor]:
        self._wanted = (
            [self._contextual_features(batch.target_image) for batch in parts] if self.contextual is not None else []
        )
        # The mean over the whole batch, so that the loss does not depend on the number of parts and processes.
        self._centres = {}
        for layer in CONTEXTUAL_LAYERS if self._wanted else ():
            centre = sum(wanted[layer].mean((0, 2, 3), keepdim=True) for wanted in self._wanted) / len(parts)
            self._centres[layer] = mean_over_processes(centre)
        terms = super().step(parts)
        self._wanted, self._centres = [], {}
        return terms

    @torch.no_grad()
    def _contextual_features(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        with autocast(self.precision, self.device):
            features = self.contextual(images, CONTEXTUAL_LAYERS)
        return {layer: at_least_fp32(values) for layer, values in features.items()}

    def image_losses(self, number: int, batch: Batch, fake: torch.Tensor) -> dict[str, tuple[float, torch.Tensor]]:
        terms = super().image_losses(number, batch, fake)
        if self.contextual is not None:
            found, wanted = self.contextual(fake, CONTEXTUAL_LAYERS), self._wanted[number]
            losses = [contextual_loss(wanted[layer], found[layer], self._centres[layer]) for layer in CONTEXTUAL_LAYERS]
            terms["contextual"] = (self.options.contextual, sum(losses))
        return terms


METHOD = ADGAN
