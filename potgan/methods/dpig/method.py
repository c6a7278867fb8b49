"""DPIG, "Disentangled person image generation" (Ma et al. 2018), stage I, as a method: training by reconstruction of single images.

Encoder and decoder see the same image with its own pose. No pair is ever used in training. At test time the decoder is given the
pose of another image. The authors' transfer ("PG2 task") does just that. Their stage II, which samples codes from noise, has no
part in it and is left out.

Source: charliememory/Disentangled-Person-Image-Generation: trainer.py (Market-1501, 128 x 64), trainer_256.py (DeepFashion) and
tester.py. docs/methods.md lists what differs here.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from potgan.data.batches import Batch
from potgan.methods.compared import ComparedMethod, Loss, cross_entropy, frozen
from potgan.methods.dcgan_discriminator import DCGANDiscriminator
from potgan.methods.dpig.generator import DPIGGenerator
from potgan.methods.dpig.options import DPIGOptions
from potgan.methods.residual_unet import DEEPFASHION_HEIGHT
from potgan.settings.schema import RunSettings


class DPIG(ComparedMethod):
    """Trained on the target images of the pairs, each by itself."""

    generator_class = DPIGGenerator
    settings_class = DPIGOptions
    needs = frozenset({"target_image", "target_joints", "target_mask"})
    losses: ClassVar[dict[str, str]] = {"reconstruction": "L1", "adversarial": "G", "discriminator": "D"}

    @staticmethod
    def discriminators(settings: RunSettings) -> dict[str, nn.Module]:
        return {"discriminator": DCGANDiscriminator(settings.image_size, settings.options.discriminator_width)}

    def rate_factor(self, iteration: int) -> float:
        """Return 1, then 1/2 and 1/4. The authors halve the rates after 50,000 and 100,000 of 120,000 iterations."""
        return 0.5 ** (12 * iteration // (5 * self.settings.training.iterations))

    @property
    def exact_in_parts(self) -> bool:
        return False

    def step(self, parts: list[Batch]) -> dict[str, torch.Tensor]:
        generator, discriminator = self.networks["generator"], self.networks["discriminator"]
        made: list[torch.Tensor] = []

        def generator_loss(number: int, batch: Batch) -> Loss:
            image = generator(batch.target_image, batch.target_joints, batch.target_mask, batch.target_joints)
            made.append(image.detach())
            terms = {
                "reconstruction": (image - batch.target_image).abs().mean(),
                "adversarial": cross_entropy(self._logits(batch.target_image, image)[1], real=True),
            }
            return terms["adversarial"] + self.options.reconstruction * terms["reconstruction"], terms

        def discriminator_loss(number: int, batch: Batch) -> Loss:
            real, fake = self._logits(batch.target_image, made[number])
            loss = (cross_entropy(real, real=True) + cross_entropy(fake, real=False)) / 2
            return loss, {"discriminator": loss}

        with frozen(discriminator):
            terms = self.descend("generator", parts, generator_loss)
        return terms | self.descend("discriminator", parts, discriminator_loss)

    def _logits(self, real: torch.Tensor, fake: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the discriminator's (B,) logits of real images and of images that were made.

        The two kinds share the batch statistics on DeepFashion. On Market-1501 each kind has its own.
        """
        discriminator = self.networks["discriminator"]
        if self.settings.image_size[0] >= DEEPFASHION_HEIGHT:
            real_logits, fake_logits = discriminator(torch.cat([real, fake])).chunk(2)
            return real_logits, fake_logits
        return discriminator(real), discriminator(fake)


METHOD = DPIG
