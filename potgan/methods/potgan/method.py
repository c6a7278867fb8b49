"""PoT-GAN as a method: the two networks, their losses and optimisers, and one iteration of Algorithm 1.

The ablations are settings. A model may have no pose transform, or no L_recon (a weight of 0). The guided filter may be applied in
training, only at test time, or never.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from potgan.common.device import autocast, compile_in_place, compiles
from potgan.common.processes import Processes
from potgan.data.batches import Batch
from potgan.methods.blocks import has_batch_norm, synchronised
from potgan.methods.method import Method, rate_factor, set_rate
from potgan.methods.perceptual import PerceptualNetwork
from potgan.methods.potgan.discriminator import Discriminator
from potgan.methods.potgan.generator import Generator
from potgan.methods.potgan.guided_filter import guided_filter
from potgan.methods.potgan.losses import discriminator_loss, generator_losses, weighted_sum
from potgan.settings.schema import GeneratorSettings, LossWeights, RunSettings


class _GeneratorLoss(nn.Module):
    """Computes Eq. (8) for one batch.

    Only the generator is a part of this module. The module also uses the discriminator and the perceptual network, but these are
    not trained through it, and their gradients are not averaged over processes with it.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        perceptual: PerceptualNetwork | None,
        weights: LossWeights,
        precision: str,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.generator = generator
        self._others = (discriminator, perceptual)
        self._weights, self._precision, self._device = weights, precision, device

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        discriminator, perceptual = self._others
        with autocast(self._precision, self._device):
            fake = self.generator(batch.source_image, batch.source_mask, batch.target_mask, batch.target_heatmaps).image
            logits = discriminator(fake, batch.target_mask) if self._weights.adversarial else None
            terms = generator_losses(fake, batch.target_image, logits, perceptual)
        return fake, weighted_sum(terms, self._weights), terms


class _DiscriminatorLoss(nn.Module):
    """Computes Eq. (6) for one batch."""

    def __init__(self, discriminator: Discriminator, precision: str, device: torch.device) -> None:
        super().__init__()
        self.discriminator = discriminator
        self._precision, self._device = precision, device
        # Batch statistics must not mix real and synthesised pairs. Without a batch norm, one pass over both kinds gives the
        # same result and is quicker.
        self._apart = has_batch_norm(discriminator)

    def forward(self, fake: torch.Tensor, batch: Batch) -> torch.Tensor:
        with autocast(self._precision, self._device):
            if self._apart:
                real_logits = self.discriminator(batch.target_image, batch.target_mask)
                fake_logits = self.discriminator(fake, batch.target_mask)
            else:
                images = torch.cat([batch.target_image, fake])
                masks = torch.cat([batch.target_mask, batch.target_mask])
                real_logits, fake_logits = self.discriminator(images, masks).chunk(2)
        return discriminator_loss(real_logits, fake_logits)


class PoTGAN(Method):
    """PoT-GAN and its ablations.

    If several processes each take a share of every batch, the gradients are averaged over the processes. The weights are then
    those of one process with the whole batch, apart from rounding, because sums are taken in another order.
    """

    settings_class = GeneratorSettings
    needs = frozenset({"source_image", "source_mask", "target_image", "target_mask", "target_heatmaps"})
    losses: ClassVar[dict[str, str]] = {
        "reconstruction": "L1",
        "perceptual": "perceptual",
        "adversarial": "G",
        "discriminator": "D",
    }
    variants = ("validation_ssim_unfiltered",)

    def __init__(self, settings: RunSettings, device: torch.device, processes: Processes | None = None) -> None:
        super().__init__(settings, device, processes)
        options, weights = settings.training, settings.loss_weights
        # With channels_last a step takes a quarter less time.
        layout = {"device": device, "memory_format": torch.channels_last}
        networks = self.build_networks(settings)
        if self.processes.count > 1:
            networks = {name: synchronised(network, device) for name, network in networks.items()}
        self.networks = {name: network.to(**layout) for name, network in networks.items()}
        trained, self.discriminator = self.networks["generator"], self.networks["discriminator"]
        self.perceptual = None
        if weights.perceptual:
            self.perceptual = PerceptualNetwork(options.perceptual_network, options.perceptual_width).to(**layout)
        self.average = None
        if options.ema:
            # Buffers are averaged too, because averaged weights do not fit the running statistics of the latest weights.
            self.average = AveragedModel(
                trained, multi_avg_fn=get_ema_multi_avg_fn(options.ema), use_buffers=True
            ).requires_grad_(False)

        coordinates, others = [], []
        for name, parameter in trained.named_parameters():
            (coordinates if name.startswith("pose_transform.coordinates.") else others).append(parameter)
        # The learning rates of the generator's two groups of parameters.
        self._rates = [options.learning_rate, options.coordinates_learning_rate]
        # The fused Adam updates all weights in one kernel.
        adam = {"betas": options.adam_betas, "fused": True} | self.optimiser_options
        self.generator_optimizer = torch.optim.Adam([{"params": others}, {"params": coordinates}], **adam)
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), **adam)

        generator_loss = _GeneratorLoss(trained, self.discriminator, self.perceptual, weights, self.precision, device)
        discriminator_loss_ = _DiscriminatorLoss(self.discriminator, self.precision, device)
        self.compiled = compiles(options.compile, options.iterations, device)
        if self.compiled:
            compile_in_place(generator_loss)
            compile_in_place(discriminator_loss_)
        self._generator_loss = self.processes.wrap(generator_loss)
        self._discriminator_loss = self.processes.wrap(discriminator_loss_)

    @staticmethod
    def build_networks(settings: RunSettings) -> dict[str, nn.Module]:
        return {
            "generator": Generator(settings.generator, settings.image_size),
            "discriminator": Discriminator(settings.discriminator, settings.image_size),
        }

    @staticmethod
    def build_generator(settings: GeneratorSettings, size: tuple[int, int]) -> Generator:
        return Generator(settings, size)

    @staticmethod
    def generator_settings(settings: RunSettings) -> GeneratorSettings:
        return settings.generator

    @classmethod
    def differing(cls, stored: GeneratorSettings, wanted: GeneratorSettings) -> dict[str, tuple[Any, Any]]:
        """As in `Method`, except that a guided filter which is no part of training may differ."""
        if "train" not in (stored.guided_filter.mode, wanted.guided_filter.mode):
            stored = dataclasses.replace(stored, guided_filter=wanted.guided_filter)
        return super().differing(stored, wanted)

    def learning_rate(self, iteration: int) -> float:
        options = self.settings.training
        return options.learning_rate * rate_factor(iteration, options.decay_from, options.iterations)

    def set_rates(self, iteration: int) -> None:
        options = self.settings.training
        factor = rate_factor(iteration, options.decay_from, options.iterations)
        for group, rate in zip(self.generator_optimizer.param_groups, self._rates, strict=True):
            set_rate(group, rate * factor, self.device)
        (group,) = self.discriminator_optimizer.param_groups
        set_rate(group, options.discriminator_learning_rate * factor, self.device)

    def step(self, parts: list[Batch]) -> dict[str, torch.Tensor]:
        means: dict[str, torch.Tensor] = {}

        def add(name: str, value: torch.Tensor) -> None:
            share = value.detach() / len(parts)
            means[name] = means[name] + share if name in means else share

        # The generator is updated by Eq. (8). The gradients of the discriminator's weights would be thrown away here, so they
        # are not computed.
        self.discriminator.requires_grad_(False)
        self.generator_optimizer.zero_grad(set_to_none=True)
        fakes = []
        for number, batch in enumerate(parts, start=1):
            with _last_only(self._generator_loss, number == len(parts)):
                fake, loss, terms = self._generator_loss(batch)
                (loss / len(parts)).backward()
            fakes.append(fake.detach())
            for name, value in terms.items():
                add(name, value)
        self.generator_optimizer.step()

        # The discriminator is updated by Eq. (6). It sees the images that the generator was just updated for, which is the
        # order of Algorithm 1.
        self.discriminator.requires_grad_(True)
        if self.settings.loss_weights.adversarial:
            self.discriminator_optimizer.zero_grad(set_to_none=True)
            for number, (fake, batch) in enumerate(zip(fakes, parts, strict=True), start=1):
                with _last_only(self._discriminator_loss, number == len(parts)):
                    loss = self._discriminator_loss(fake, batch)
                    (loss / len(parts)).backward()
                add("discriminator", loss)
            self.discriminator_optimizer.step()
        return means

    def finish(self) -> None:
        if self.average is not None:  # `AveragedModel` asks the device whether this is the first update
            self.average.update_parameters(self.networks["generator"])

    @property
    def generator(self) -> Generator:
        """The generator to keep. If `training.ema` asks for a running average of the weights, it is that average."""
        return self.networks["generator"] if self.average is None else self.average.module

    def validation_images(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return images with and without the guided filter, so that one training gives both curves of Fig. 10."""
        out = self.generator(batch.source_image, batch.source_mask, batch.target_mask, batch.target_heatmaps)
        settings = self.settings.generator.guided_filter
        if settings.mode == "train":  # in this mode the unfiltered image is no output of the model
            return {"validation_ssim": out.image}
        # The filtered images are validated with the mode "off" too.
        filtered = guided_filter(batch.target_mask, out.unfiltered, settings.radius, settings.epsilon)
        return {"validation_ssim": filtered, "validation_ssim_unfiltered": out.unfiltered}

    def record(self) -> dict[str, str | None]:
        return {"perceptual_network_sha256": self.perceptual.weights_sha256() if self.perceptual else None}

    def stateful(self) -> dict[str, Any]:
        optimizers = {
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }
        return self.networks | optimizers | ({"average": self.average} if self.average is not None else {})


def _last_only(module: nn.Module, last: bool) -> Any:
    """Return a context in which gradients are exchanged between processes only with the last part of the batch.

    So they are exchanged once per step.
    """
    wrapped = isinstance(module, nn.parallel.DistributedDataParallel)
    return module.no_sync() if wrapped and not last else contextlib.nullcontext()


METHOD = PoTGAN
