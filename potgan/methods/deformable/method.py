"""Deformable GAN as a method: its losses, and one iteration (Siarohin et al. 2018).

Sources: AliaksandrSiarohin/pose-gan: conditional_gan.py, and AliaksandrSiarohin/gan: gan.py, train.py.

Differs from the authors' code: both networks are updated by the same batch, the generator first, and the discriminator sees the
images of that update. There, the discriminator is first, and each kind of image comes from a batch of its own.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from potgan.common.processes import Processes
from potgan.data.batches import Batch
from potgan.methods.blocks import at_least_fp32
from potgan.methods.compared import ComparedMethod, Loss, frozen
from potgan.methods.deformable.generator import DeformableDiscriminator, DeformableGenerator
from potgan.methods.deformable.options import DeformableOptions
from potgan.settings.schema import VGG_WIDTH, RunSettings

#: The layer of VGG-19 whose features the nearest-neighbour loss compares: Keras' block1_conv2.
FEATURES = "relu1_2"
#: The value of the reference's features outside of the image, which is far from every feature.
OUTSIDE = -10_000.0
#: What the authors add to a probability before they take its logarithm.
LEAST_PROBABILITY = 1e-7


class DeformableGAN(ComparedMethod):
    """Deformable GAN, the authors' "full" model."""

    settings_class = DeformableOptions
    generator_class = DeformableGenerator
    needs = DeformableGenerator.needs | {"target_image"}
    losses: ClassVar[dict[str, str]] = {"nearest_neighbour": "NN", "adversarial": "G", "discriminator": "D"}
    draws = True

    def __init__(self, settings: RunSettings, device: torch.device, processes: Processes | None = None) -> None:
        super().__init__(settings, device, processes)
        self.features = self.feature_network(FEATURES) if self.options.nearest_neighbour else None

    @staticmethod
    def discriminators(settings: RunSettings) -> dict[str, nn.Module]:
        return {"discriminator": DeformableDiscriminator(settings.options, settings.image_size)}

    @property
    def exact_in_parts(self) -> bool:
        return not self.options.dropout

    def step(self, parts: list[Batch]) -> dict[str, torch.Tensor]:
        fakes: list[torch.Tensor] = []

        def of_generator(_: int, batch: Batch) -> Loss:
            fake = self.generator.synthesise(batch).image
            fakes.append(fake.detach())
            logits = self._judge(batch, fake)
            terms = {"adversarial": judged_real(logits)}
            loss = terms["adversarial"]
            if self.features is not None:
                terms["nearest_neighbour"] = self._nearest_neighbour(fake, batch.target_image)
                loss = loss + self.options.nearest_neighbour * terms["nearest_neighbour"]
            return loss, terms

        def of_discriminator(number: int, batch: Batch) -> Loss:
            # Neither normalization mixes samples, so one pass over both kinds of images gives the same and is quicker.
            twice = Batch(
                source_image=batch.source_image.repeat(2, 1, 1, 1),
                source_heatmaps=batch.source_heatmaps.repeat(2, 1, 1, 1),
                target_heatmaps=batch.target_heatmaps.repeat(2, 1, 1, 1),
            )
            real, fake = self._judge(twice, torch.cat([batch.target_image, fakes[number]])).chunk(2)
            loss = judged_real(real) + judged_fake(fake)
            return loss, {"discriminator": loss}

        with frozen(self.networks["discriminator"]):
            means = self.descend("generator", parts, of_generator)
        return means | self.descend("discriminator", parts, of_discriminator)

    def _judge(self, batch: Batch, image: torch.Tensor) -> torch.Tensor:
        return self.networks["discriminator"](batch.source_image, batch.source_heatmaps, image, batch.target_heatmaps)

    def _nearest_neighbour(self, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Return the nearest-neighbour loss in the units of the authors' features.

        Theirs come from the weights that Keras ships, which take images of the range [0, 255] less a mean. Ours take the same
        divided by ImageNet's deviation, 255 x 0.226 on average. VGG's first two layers are linear but for ReLUs and biases, so that
        their features grow as the input does: `feature_scale` makes up for the division. This is derived and not measured. It
        takes for granted that both sets of weights were trained to the same gain.

        The loss is a sum over channels, of which a narrower random network has fewer than VGG's 64. This is made up for, too.
        """
        (wanted,) = self.features(real, [FEATURES]).values()
        (found,) = self.features(fake, [FEATURES]).values()
        scale = self.options.feature_scale * VGG_WIDTH / self.features.width
        return scale * nearest_neighbour_loss(found, wanted, self.options.window)

    def record(self) -> dict[str, str | None]:
        return {"perceptual_network_sha256": self.features.weights_sha256() if self.features is not None else None}


def judged_real(logits: torch.Tensor) -> torch.Tensor:
    """Return -log of the probability of being real, on average: what a real image costs D, and a generated one G."""
    return -(at_least_fp32(logits).sigmoid() + LEAST_PROBABILITY).log().mean()


def judged_fake(logits: torch.Tensor) -> torch.Tensor:
    """Return -log of the probability of not being real, on average: what a generated image costs D."""
    return judged_real(-logits)


def nearest_neighbour_loss(generated: torch.Tensor, real: torch.Tensor, window: int) -> torch.Tensor:
    """Return the L1 distance of each pixel's features to the nearest ones around it in the real image, on average over pixels.

    generated, real: (B, C, H, W). window: the side of the square of pixels around each pixel, among whose real features the nearest
    are sought. Sums go over channels. No gradient goes to `real`.

    The nearest features are sought without gradients, one shift after the other. Then the distance to them alone has the gradient
    of the minimum, and not all shifts are kept.
    """
    generated, real = at_least_fp32(generated), at_least_fp32(real)
    height, width = real.shape[2:]
    with torch.no_grad():
        before = (window - 1) // 2
        padded = F.pad(real, (before, window - 1 - before) * 2, value=OUTSIDE)
        nearest = real
        least = (generated - real).abs().sum(1, keepdim=True)
        for row in range(window):
            for column in range(window):
                shifted = padded[:, :, row : row + height, column : column + width]
                distance = (generated - shifted).abs().sum(1, keepdim=True)
                nearest = torch.where(distance < least, shifted, nearest)
                least = torch.minimum(distance, least)
    return (generated - nearest).abs().sum(1).mean()


METHOD = DeformableGAN
