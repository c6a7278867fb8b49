"""The contract between a method and the code that trains and uses it.

A method consists of two classes. Its `PoseGenerator` is the network that a checkpoint holds and that makes images at test
time. Its `Method` is the training around that network: all networks, losses and optimisers, and how one batch updates them.
The training loop, the saved state, the log, generation, transfer and the estimate of costs know only these two classes. They
know nothing of any particular method. docs/architecture.md tells how to add a method.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from potgan.common.device import actual_precision, compiled_without_failure, set_precision
from potgan.common.processes import Processes
from potgan.data.batches import Batch
from potgan.settings.schema import RunSettings


@dataclass
class Synthesised:
    """What a generator makes from a batch of B pairs.

    image: (B, 3, H, W) in [-1, 1]. control_points: (B, S, F, 2), the F control points of the splines at S scales; None for
    methods that do not warp by splines.
    """

    image: torch.Tensor
    control_points: torch.Tensor | None = None


class PoseGenerator(nn.Module):
    """The network of a method that is kept, exported and used.

    needs: the parts of a `Batch` that `synthesise` reads. A target image is never one of them. By its settings a generator may read
    less than its class.
    """

    needs: frozenset[str]

    def synthesise(self, batch: Batch) -> Synthesised:
        """Return images of the source persons of the batch in the target poses."""
        raise NotImplementedError


#: An instance of `Method.settings_class`, the dataclass that describes the generator of a method.
GeneratorSettings = Any


class Method(ABC):
    """The training of one method.

    settings_class: the dataclass that describes the generator; an instance of it is stored beside the weights.
    needs: the parts of a `Batch` that an update reads.
    losses: name of each loss term -> its short name in a progress line.
    variants: columns of `progress.csv`, one for each kind of image that is validated beside the model's own.
    networks: name -> network, for all networks that are trained; "generator" is the one that is kept.
    precision: the precision of its arithmetic; what `auto` in the settings means on this device.
    compiled: whether the networks are to be compiled; `ran_compiled` says whether they were.
    draws: whether an update draws random numbers, by dropout or as noise. Each update then has a seed of its own, so that a
        training that continues draws what it would have drawn.
    batches_before: how many batches `prepare` is given before the first update.
    loads: how many states were loaded, each of which put other tensors in the place of the optimisers'.

    Between two updates every network is in training mode. If there are several processes, each is given its share of every
    batch, and the gradients are averaged over the processes.
    """

    settings_class: ClassVar[type]
    needs: ClassVar[frozenset[str]]
    losses: ClassVar[Mapping[str, str]]
    variants: ClassVar[tuple[str, ...]] = ()
    networks: dict[str, nn.Module]
    compiled: bool = False
    draws: ClassVar[bool] = False
    batches_before: ClassVar[int] = 0
    loads: int = 0

    def __init__(self, settings: RunSettings, device: torch.device, processes: Processes | None = None) -> None:
        self.settings, self.device, self.processes = settings, device, processes or Processes()
        self.precision = actual_precision(settings.training.precision, device)
        set_precision(self.precision, device)
        torch.manual_seed(settings.seed)

    @staticmethod
    @abstractmethod
    def build_networks(settings: RunSettings) -> dict[str, nn.Module]:
        """Build all networks that are trained, newly initialised, on the current default device."""

    @staticmethod
    @abstractmethod
    def build_generator(settings: GeneratorSettings, size: tuple[int, int]) -> PoseGenerator:
        """Build the generator alone. settings: as `generator_settings` returns them. size: (height, width) in pixels."""

    @staticmethod
    @abstractmethod
    def generator_settings(settings: RunSettings) -> GeneratorSettings:
        """Return the part of a run's settings that describes the generator."""

    def update(self, parts: list[Batch], iteration: int) -> dict[str, torch.Tensor]:
        """Update all networks by one batch, and return its loss terms, as `step` does. iteration: counted from 0."""
        self.begin(iteration)
        terms = self.step(parts)
        self.finish()
        return terms

    def begin(self, iteration: int) -> None:
        """Do what comes before the step of an iteration and cannot be a part of its CUDA graph: rates and the seed."""
        self.set_rates(iteration)
        if self.draws:
            numbers = np.random.SeedSequence([self.settings.seed, iteration, self.processes.rank])
            torch.manual_seed(int(numbers.generate_state(1, np.uint64)[0] >> 1))

    def phase(self, iteration: int) -> int:
        """Return the number of the stage of training that an iteration belongs to. Within a stage every step does the same."""
        return 0

    def prepare(self, batches: list[Batch]) -> None:  # noqa: B027  most methods have nothing to do there
        """Start the weights from the first `batches_before` batches of a training. A training that continues does not call it."""

    @abstractmethod
    def set_rates(self, iteration: int) -> None:
        """Give the optimisers the learning rates of an iteration, with `set_rate`. iteration: counted from 0."""

    @abstractmethod
    def step(self, parts: list[Batch]) -> dict[str, torch.Tensor]:
        """Update all networks by one batch, and return its loss terms.

        Each loss term is a 0-d tensor on the device, a mean over the batch.

        parts: the batch in equal parts. Their gradients are accumulated, so that a large batch fits a small device.

        On a GPU the work of a step is recorded once and then repeated as a CUDA graph (`training/update.py`). So a step reads no
        value from the device, draws random numbers only on the device, and does the same at every iteration of a `phase`.
        Optimisers are made with the options of `optimiser_options`.
        """

    def finish(self) -> None:  # noqa: B027  most methods have nothing to do there
        """Do what comes after a step and cannot be a part of its CUDA graph."""

    @property
    def exact_in_parts(self) -> bool:
        """Whether a batch in parts has the gradients of the whole one. Batch statistics and dropout differ from part to part."""
        return True

    @property
    def ran_compiled(self) -> bool:
        """Whether the networks were meant to be compiled, and no compilation has failed so far."""
        return self.compiled and compiled_without_failure()

    @property
    def optimiser_options(self) -> dict[str, bool]:
        """The options of torch's optimisers with which a CUDA graph can hold their steps."""
        return {"capturable": self.device.type == "cuda"}

    @abstractmethod
    def learning_rate(self, iteration: int) -> float:
        """Return the learning rate of the generator at an iteration (counted from 0), for the log."""

    @property
    def generator(self) -> PoseGenerator:
        """The generator that is kept. A method that averages the weights returns the average here."""
        return self.networks["generator"]

    def validation_images(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Return column of `progress.csv` -> images (B, 3, H, W) in [-1, 1]. The column holds the SSIM of these images.

        The caller has put the generator into eval mode.
        """
        return {"validation_ssim": self.generator.synthesise(batch).image}

    def record(self) -> dict[str, str | None]:
        """Return what the method adds to `done.json`.

        This is `perceptual_network_sha256` if the method has such a network, and whatever else is worth keeping.
        """
        return {}

    @classmethod
    def differing(cls, stored: GeneratorSettings, wanted: GeneratorSettings) -> dict[str, tuple[Any, Any]]:
        """Return setting -> (value in the file, wanted value) for each difference that makes the weights unusable.

        stored: the generator settings that the weights were made with. wanted: those that they are to be used with.
        """
        here, there = dataclasses.asdict(wanted), dataclasses.asdict(stored)
        return {name: (there[name], here[name]) for name in here if there[name] != here[name]}

    def stateful(self) -> dict[str, Any]:
        """Return name -> object with a `state_dict`, for all that an exact continuation needs: networks, optimisers, averages."""
        return dict(self.networks)

    def state_dict(self) -> dict[str, Any]:
        return {name: thing.state_dict() for name, thing in self.stateful().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loads += 1
        for name, thing in self.stateful().items():
            thing.load_state_dict(state[name])
            if isinstance(thing, torch.optim.Optimizer):
                for group in thing.param_groups:
                    group.update(self.optimiser_options)  # the state may have been saved on another device


def set_rate(group: dict[str, Any], rate: float, device: torch.device) -> None:
    """Give a parameter group of an optimiser its learning rate.

    On a GPU the rate is a tensor there, because a CUDA graph would go on with the number that it was recorded with.
    """
    if device.type != "cuda":
        group["lr"] = rate
    elif isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = torch.tensor(rate, device=device)


def rate_factor(iteration: int, decay_from: int, iterations: int) -> float:
    """Return the factor of a learning rate at `iteration` (counted from 0).

    The factor is 1 before `decay_from`. From there it falls linearly, and it reaches 0 at `iterations`.
    """
    if iteration < decay_from:
        return 1.0
    return (iterations - iteration) / (iterations - decay_from)
