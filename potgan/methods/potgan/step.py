"""One iteration of Algorithm 1: the two networks, their losses and optimisers, and how a batch updates them."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from potgan.common.device import autocast, compile_in_place, compiles, set_precision
from potgan.common.errors import UserError
from potgan.common.processes import Processes
from potgan.data.batches import Batch
from potgan.methods.perceptual import PerceptualNetwork
from potgan.methods.potgan.discriminator import Discriminator
from potgan.methods.potgan.generator import Generator
from potgan.methods.potgan.losses import discriminator_loss, generator_losses, weighted_sum
from potgan.settings.schema import LossWeights, RunSettings


class _GeneratorLoss(nn.Module):
    """Eq. (8) of one batch. Only the generator is a part of this module: the other networks are looked through, and
    neither trained nor averaged over processes with it."""

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
    """Eq. (6) of one batch."""

    def __init__(self, discriminator: Discriminator, precision: str, device: torch.device) -> None:
        super().__init__()
        self.discriminator = discriminator
        self._precision, self._device = precision, device
        # Batch statistics must not mix real and synthesised pairs; without them one pass is the same, and quicker.
        self._apart = any(isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm) for layer in discriminator.modules())

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


class AdversarialStep:
    """Everything that a training updates, and the update.

    processes: where each process is given its share of every batch, gradients are their mean, so that the weights are
    those of one process with the whole batch, but for the order of sums.
    """

    def __init__(self, settings: RunSettings, device: torch.device, processes: Processes | None = None) -> None:
        options, weights = settings.training, settings.loss_weights
        processes = processes or Processes()
        self.settings, self.device, self.processes = settings, device, processes
        set_precision(options.precision, device)
        torch.manual_seed(settings.seed)
        layout = {"device": device, "memory_format": torch.channels_last}  # a quarter less time per step
        generator = Generator(settings.generator, settings.image_size)
        discriminator = Discriminator(settings.discriminator, settings.image_size)
        if processes.count > 1:
            generator, discriminator = (_synchronised(net, device) for net in (generator, discriminator))
        self.generator, self.discriminator = generator.to(**layout), discriminator.to(**layout)
        self.perceptual = None
        if weights.perceptual:
            self.perceptual = PerceptualNetwork(options.perceptual_network).to(**layout)
        self.average = None
        if options.ema:
            # Buffers too: averaged weights beside the running statistics of the last ones fit nothing (FINDINGS 0b).
            self.average = AveragedModel(
                self.generator, multi_avg_fn=get_ema_multi_avg_fn(options.ema), use_buffers=True
            ).requires_grad_(False)

        coordinates, others = [], []
        for name, parameter in self.generator.named_parameters():
            (coordinates if name.startswith("pose_transform.coordinates.") else others).append(parameter)
        self._rates = [options.learning_rate, options.coordinates_learning_rate]  # of the generator's two groups
        adam = {"betas": options.adam_betas, "fused": True}  # one kernel for all weights
        self.generator_optimizer = torch.optim.Adam([{"params": others}, {"params": coordinates}], **adam)
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), **adam)

        generator_loss = _GeneratorLoss(
            self.generator, self.discriminator, self.perceptual, weights, options.precision, device
        )
        discriminator_loss_ = _DiscriminatorLoss(self.discriminator, options.precision, device)
        self.compiled = compiles(options.compile, options.iterations, device)
        if self.compiled:
            graphs = device.type == "cuda" and processes.count == 1
            compile_in_place(generator_loss, graphs)
            compile_in_place(discriminator_loss_, graphs)
        self._generator_loss = processes.wrap(generator_loss)
        self._discriminator_loss = processes.wrap(discriminator_loss_)

    def __call__(self, parts: list[Batch], rate_factor: float) -> dict[str, torch.Tensor]:
        """Update both networks by one batch, and return its loss terms: 0-d tensors on the device, means over the batch.

        parts: the batch in equal parts, whose gradients are accumulated, so that a large batch fits a small device.
        rate_factor: what all learning rates are multiplied by.
        """
        for group, rate in zip(self.generator_optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * rate_factor
        self.discriminator_optimizer.param_groups[0]["lr"] = (
            self.settings.training.discriminator_learning_rate * rate_factor
        )
        if self.compiled and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()  # what earlier steps returned may be overwritten
        means: dict[str, torch.Tensor] = {}

        def add(name: str, value: torch.Tensor) -> None:
            share = value.detach() / len(parts)
            means[name] = means[name] + share if name in means else share

        # Generator: Eq. (8). The discriminator's own gradients would be thrown away, so they are not computed.
        self.discriminator.requires_grad_(False)
        self.generator_optimizer.zero_grad(set_to_none=True)
        fakes = []
        for number, batch in enumerate(parts, start=1):
            with _last_only(self._generator_loss, number == len(parts)):
                fake, loss, terms = self._generator_loss(batch)
                (loss / len(parts)).backward()
            # A CUDA graph's output is overwritten by its next run.
            fakes.append(fake.detach().clone() if self.compiled and len(parts) > 1 else fake.detach())
            for name, value in terms.items():
                add(name, value)
        self.generator_optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.generator)

        # Discriminator: Eq. (6), on the images that the generator was just updated for (Algorithm 1's order).
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

    @property
    def trained_generator(self) -> Generator:
        """The generator to keep: the running average of weights where `training.ema` asks for one."""
        return self.generator if self.average is None else self.average.module

    def _stateful(self) -> dict[str, Any]:
        found = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }
        return found | ({"average": self.average} if self.average is not None else {})

    def state_dict(self) -> dict[str, Any]:
        return {name: thing.state_dict() for name, thing in self._stateful().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, thing in self._stateful().items():
            thing.load_state_dict(state[name])


def _synchronised(network: nn.Module, device: torch.device) -> nn.Module:
    """Batch norms over the whole batch, not over one process's share of it, or results would depend on their number."""
    if not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()):
        return network
    if device.type != "cuda":
        raise UserError(
            "training.processes: batch norm over several processes needs GPUs; use normalization instance, or one process"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


def _last_only(module: nn.Module, last: bool) -> Any:
    """Gradients are exchanged once a step, with the last part of the batch."""
    wrapped = isinstance(module, nn.parallel.DistributedDataParallel)
    return module.no_sync() if wrapped and not last else contextlib.nullcontext()
