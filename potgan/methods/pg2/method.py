"""PG2, "Pose guided person image generation" (Ma et al. 2017), as a method: its losses and its two stages.

Source: charliememory/Pose-Guided-Person-Image-Generation: trainer.py (Market-1501, 128 x 64) and trainer256.py (DeepFashion). Where
the paper and this code disagree, the code is followed, because the published scores are of its models. docs/methods.md lists what
differs here.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn

from potgan.common.processes import Processes
from potgan.data.batches import Batch
from potgan.methods.compared import ComparedMethod, Loss, cross_entropy, frozen
from potgan.methods.dcgan_discriminator import DCGANDiscriminator
from potgan.methods.pg2.generator import PG2Generator
from potgan.methods.pg2.options import PG2Options
from potgan.methods.residual_unet import DEEPFASHION_HEIGHT
from potgan.settings.schema import RunSettings


class PG2(ComparedMethod):
    """Stage 1 trains G1 alone. Stage 2 trains G2 and the discriminator, and leaves G1 as it is.

    The adversarial loss and the discriminator's begin with stage 2; the masked L1 is of the coarse image before, and then of the
    refined one.
    """

    generator_class = PG2Generator
    settings_class = PG2Options
    needs = frozenset({"source_image", "target_image", "target_joints", "target_mask"})
    losses: ClassVar[dict[str, str]] = {"reconstruction": "masked L1", "adversarial": "G", "discriminator": "D"}

    def __init__(self, settings: RunSettings, device: torch.device, processes: Processes | None = None) -> None:
        super().__init__(settings, device, processes)
        self._phase = 0

    @staticmethod
    def discriminators(settings: RunSettings) -> dict[str, nn.Module]:
        return {"discriminator": DCGANDiscriminator(settings.image_size, settings.options.discriminator_width)}

    def updated(self) -> dict[str, list[nn.Parameter]]:
        generator = self.networks["generator"]
        return {
            "coarse": list(generator.coarse.parameters()),
            "refinement": list(generator.refinement.parameters()),
            "discriminator": list(self.networks["discriminator"].parameters()),
        }

    def phase(self, iteration: int) -> int:
        """Return 0 in stage 1 and 1 in stage 2. The paper changes at 22,000 of 36,000 iterations."""
        return int(iteration >= self.options.refinement_from(self.settings.training.iterations))

    def set_rates(self, iteration: int) -> None:
        super().set_rates(iteration)
        if self.phase(iteration) != self._phase:
            self._phase = self.phase(iteration)
            # G1's gradients are as large as G1 itself, and stage 2 needs none of them.
            self.optimizers["coarse"].zero_grad(set_to_none=True)

    @property
    def exact_in_parts(self) -> bool:
        return False

    def step(self, parts: list[Batch]) -> dict[str, torch.Tensor]:
        return self._train_coarse(parts) if self._phase == 0 else self._train_refinement(parts)

    def _train_coarse(self, parts: list[Batch]) -> dict[str, torch.Tensor]:
        def coarse_loss(number: int, batch: Batch) -> Loss:
            coarse, _ = self.networks["generator"](batch.source_image, batch.target_joints, refine=False)
            loss = masked_l1(coarse, batch.target_image, batch.target_mask)
            return loss, {"reconstruction": loss}

        return self.descend("coarse", parts, coarse_loss)

    def _train_refinement(self, parts: list[Batch]) -> dict[str, torch.Tensor]:
        generator, discriminator = self.networks["generator"], self.networks["discriminator"]
        made: list[tuple[torch.Tensor, torch.Tensor]] = []

        def refinement_loss(number: int, batch: Batch) -> Loss:
            coarse, refined = generator(batch.source_image, batch.target_joints)
            made.append((coarse.detach(), refined.detach()))
            _, _, refined_logits = self._logits(batch, coarse, refined)
            terms = {
                "reconstruction": masked_l1(refined, batch.target_image, batch.target_mask),
                "adversarial": cross_entropy(refined_logits, real=True),
            }
            return terms["adversarial"] + self.options.reconstruction * terms["reconstruction"], terms

        def discriminator_loss(number: int, batch: Batch) -> Loss:
            target, source, refined = self._logits(batch, *made[number])
            negatives = (cross_entropy(refined, real=False) + cross_entropy(source, real=False)) / 2
            loss = (cross_entropy(target, real=True) + negatives) / 2
            return loss, {"discriminator": loss}

        with frozen(generator.coarse, discriminator):
            terms = self.descend("refinement", parts, refinement_loss)
        return terms | self.descend("discriminator", parts, discriminator_loss)

    def _logits(self, batch: Batch, coarse: torch.Tensor, refined: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the discriminator's (B,) logits of the target images, the source images and the refined images.

        All images are judged in one batch, whose statistics they share. On Market-1501 the coarse images are a part of it, though
        nobody reads their logits.
        """
        images = [batch.target_image, batch.source_image, refined]
        if self.settings.image_size[0] < DEEPFASHION_HEIGHT:
            images.append(coarse)
        return self.networks["discriminator"](torch.cat(images)).chunk(len(images))[:3]


def masked_l1(made: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return mean|made - target| + mean(|made - target| M), a 0-d tensor: L1 that counts twice on the person.

    made, target: (B, 3, H, W). mask: (B, 1, H, W); M is 1 where it is above 0, and 0 elsewhere. Source: the paper's pose mask loss
    for G1; trainer.py has it for G2, too.
    """
    difference = (made - target).abs()
    return difference.mean() + (difference * (mask > 0)).mean()


METHOD = PG2
