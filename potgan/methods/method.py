"""The contract between a method and all that trains and uses it.

A method is two things. Its `PoseGenerator` is the network that a checkpoint holds and that makes images at test time. Its
`Method` is the training around it: all networks, losses and optimisers, and how one batch updates them. The training loop,
the saved state, the log, generation, transfer and the estimate of costs know these two classes and nothing of any one
method. docs/architecture.md tells how to add a method.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from potgan.common.device import set_precision
from potgan.common.processes import Processes
from potgan.data.batches import Batch
from potgan.settings.schema import RunSettings


@dataclass
class Synthesised:
    """What a generator makes of a batch of B pairs.

    image: (B, 3, H, W) in [-1, 1]. control_points: (B, S, F, 2) of methods that warp by splines at S scales; None for others.
    """

    image: torch.Tensor
    control_points: torch.Tensor | None = None


class PoseGenerator(nn.Module):
    """The network of a method that is kept, exported and used.

    needs: the parts of a `Batch` that `synthesise` reads. A target image is never one of them.
    """

    needs: ClassVar[frozenset[str]]

    def synthesise(self, batch: Batch) -> Synthesised:
        """The source persons of the batch in the target poses."""
        raise NotImplementedError


#: An instance of the dataclass that says what a method's generator is (`Method.settings_class`).
GeneratorSettings = Any


class Method(ABC):
    """The training of one method.

    settings_class: the dataclass that says what the generator is; it is stored beside the weights. needs: the parts of a
    `Batch` that an update reads. losses: name of each loss term -> its short name in a progress line.
    variants: columns of `progress.csv` beside `validation_ssim`, for images that are validated as well. networks: name ->
    network, of all that are trained; "generator" is the one that is kept. compiled: whether the networks are compiled.

    Between two updates every network is in training mode. Where there are several processes, each is given its share of
    every batch, and gradients are averaged over them.
    """

    settings_class: ClassVar[type]
    needs: ClassVar[frozenset[str]]
    losses: ClassVar[Mapping[str, str]]
    variants: ClassVar[tuple[str, ...]] = ()
    networks: dict[str, nn.Module]
    compiled: bool = False

    def __init__(self, settings: RunSettings, device: torch.device, processes: Processes | None = None) -> None:
        self.settings, self.device, self.processes = settings, device, processes or Processes()
        set_precision(settings.training.precision, device)
        torch.manual_seed(settings.seed)

    @staticmethod
    @abstractmethod
    def build_networks(settings: RunSettings) -> dict[str, nn.Module]:
        """All networks that are trained, newly initialised, on the current default device."""

    @staticmethod
    @abstractmethod
    def build_generator(settings: GeneratorSettings, size: tuple[int, int]) -> PoseGenerator:
        """The generator alone. settings: as `generator_settings` gives them; size: (height, width) in pixels."""

    @staticmethod
    @abstractmethod
    def generator_settings(settings: RunSettings) -> GeneratorSettings:
        """What the generator is, of a run's settings."""

    @abstractmethod
    def update(self, parts: list[Batch], iteration: int) -> dict[str, torch.Tensor]:
        """Update all networks by one batch; returns its loss terms: 0-d tensors on the device, means over the batch.

        parts: the batch in equal parts, whose gradients are accumulated, so that a large batch fits a small device.
        iteration: from 0; with `settings.training.iterations` it drives learning rates and stages.
        """

    @abstractmethod
    def learning_rate(self, iteration: int) -> float:
        """The generator's learning rate at an iteration (from 0), for the log."""

    @property
    def generator(self) -> PoseGenerator:
        """The generator that is kept. A method that averages its weights gives the average."""
        return self.networks["generator"]

    def validation_images(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Column of `progress.csv` -> images (B, 3, H, W) in [-1, 1], whose SSIM is that column. The generator is in eval mode."""
        return {"validation_ssim": self.generator.synthesise(batch).image}

    def record(self) -> dict[str, str | None]:
        """What the method adds to `done.json`: `perceptual_network_sha256`, where it has one, and what else is worth keeping."""
        return {}

    @classmethod
    def differing(cls, stored: GeneratorSettings, wanted: GeneratorSettings) -> dict[str, tuple[Any, Any]]:
        """Setting -> (in the file, wanted), of the generator settings that weights of one cannot be used with the other."""
        here, there = dataclasses.asdict(wanted), dataclasses.asdict(stored)
        return {name: (there[name], here[name]) for name in here if there[name] != here[name]}

    def stateful(self) -> dict[str, Any]:
        """Name -> everything with a `state_dict` that an exact continuation needs: networks, optimisers, averages."""
        return dict(self.networks)

    def state_dict(self) -> dict[str, Any]:
        return {name: thing.state_dict() for name, thing in self.stateful().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, thing in self.stateful().items():
            thing.load_state_dict(state[name])


def rate_factor(iteration: int, decay_from: int, iterations: int) -> float:
    """The factor of a learning rate at `iteration` (from 0): 1, and from `decay_from` on linear to 0 at `iterations`."""
    if iteration < decay_from:
        return 1.0
    return (iterations - iteration) / (iterations - decay_from)
