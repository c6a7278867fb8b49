"""What the methods that PoT-GAN is compared with have in common.

Each of them has some networks, one Adam for each group of weights that is updated by itself, and a step that consists of a few
updates: generator, discriminator, second discriminator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from potgan.common.device import autocast, compile_in_place, compiles
from potgan.common.processes import Processes
from potgan.data.batches import Batch
from potgan.methods.blocks import synchronised
from potgan.methods.method import GeneratorSettings, Method, PoseGenerator, set_rate
from potgan.methods.vgg import Vgg19
from potgan.settings.schema import RunSettings

#: What an update minimises on a part of the batch, and the terms of it that are logged.
Loss = tuple[torch.Tensor, dict[str, torch.Tensor]]


class ComparedMethod(Method):
    """A method whose step consists of calls of `descend`.

    generator_class: the `PoseGenerator`, which is built from the method's options and the size of the images.
    """

    generator_class: ClassVar[type[PoseGenerator]]

    def __init__(self, settings: RunSettings, device: torch.device, processes: Processes | None = None) -> None:
        super().__init__(settings, device, processes)
        self.options = settings.options
        networks = self.build_networks(settings)
        if self.processes.count > 1:
            networks = {name: synchronised(network, device) for name, network in networks.items()}
        self.networks = {
            name: network.to(device=device, memory_format=torch.channels_last) for name, network in networks.items()
        }
        training = settings.training
        self.compiled = compiles(training.compile, training.iterations, device)
        if self.compiled:
            for network in self.networks.values():
                compile_in_place(network)
        adam: dict[str, Any] = {"betas": training.adam_betas, "fused": True} | self.optimiser_options
        self.optimizers = {
            name: torch.optim.Adam([weight for weight in weights if weight.requires_grad], **adam)
            for name, weights in self.updated().items()
        }

    @classmethod
    def build_networks(cls, settings: RunSettings) -> dict[str, nn.Module]:
        return {"generator": cls.generator_class(settings.options, settings.image_size), **cls.discriminators(settings)}

    @staticmethod
    def discriminators(settings: RunSettings) -> dict[str, nn.Module]:
        """Build the networks that are trained beside the generator. By default there are none."""
        return {}

    def feature_network(self, last: str, normalise: bool = True) -> Vgg19:
        """Return VGG-19 up to a layer, of the kind and width that the training names, on its device."""
        training = self.settings.training
        network = Vgg19(training.perceptual_network, training.perceptual_width, last, normalise)
        return network.to(device=self.device, memory_format=torch.channels_last)

    @staticmethod
    def generator_settings(settings: RunSettings) -> GeneratorSettings:
        return settings.options

    @classmethod
    def build_generator(cls, settings: GeneratorSettings, size: tuple[int, int]) -> PoseGenerator:
        return cls.generator_class(settings, size)

    def updated(self) -> dict[str, list[nn.Parameter]]:
        """Return the name of each update -> the weights that it changes. By default there is one for each network."""
        return {name: list(network.parameters()) for name, network in self.networks.items()}

    def rate_factor(self, iteration: int) -> float:
        """Return what the learning rate is multiplied by at an iteration (counted from 0). By default the rate stays."""
        return 1.0

    def learning_rate(self, iteration: int) -> float:
        return self.settings.training.learning_rate * self.rate_factor(iteration)

    def set_rates(self, iteration: int) -> None:
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                set_rate(group, self.learning_rate(iteration), self.device)

    def descend(self, name: str, parts: list[Batch], loss_of: Callable[[int, Batch], Loss]) -> dict[str, torch.Tensor]:
        """Do the update `name`, and return its logged terms as means over the batch.

        loss_of: (number of the part, part) -> what is minimised and the logged terms, each a mean over the part. It runs under the
        precision of the training.
        """
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        means: dict[str, torch.Tensor] = {}
        for number, part in enumerate(parts):
            with autocast(self.precision, self.device):
                loss, terms = loss_of(number, part)
            (loss / len(parts)).backward()
            for term, value in terms.items():
                share = value.detach().float() / len(parts)
                means[term] = means[term] + share if term in means else share
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self.processes.average_gradients(weights)
        optimizer.step()
        return means

    def stateful(self) -> dict[str, Any]:
        return self.networks | {f"{name}_optimizer": optimizer for name, optimizer in self.optimizers.items()}


def cross_entropy(logits: torch.Tensor, real: bool) -> torch.Tensor:
    """Return the mean cross-entropy of logits that should say "real", or else "synthesised". A 0-d tensor."""
    return F.softplus(-logits if real else logits).mean()


@contextlib.contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Leave out the gradients of these networks' weights, which an update of another network would throw away."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)
