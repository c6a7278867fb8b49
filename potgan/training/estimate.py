"""Estimates the time and the space that the trainings of a configuration will take.

Some steps of each training are timed on random pairs, and the time of a step is multiplied by the number of iterations. This
needs no data set and no weight file, because the time of a step depends neither on what the images show nor on the values of
the perceptual network's weights.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from potgan.common.device import (
    device_name,
    keep_freed_memory,
    peak_memory_bytes,
    pick_device,
)
from potgan.common.errors import UserError
from potgan.common.processes import Processes
from potgan.common.progress import say
from potgan.common.tensors import tensors_to_bytes
from potgan.data.batches import PairData, training_batches
from potgan.data.pose import PARSING_CLASSES
from potgan.methods.method import Method
from potgan.methods.registry import build_method
from potgan.settings.schema import VGG_WIDTH, Benchmark, RunSettings
from potgan.training.log import LossMeter
from potgan.training.loop import batch_positions, out_of_memory_is_one_line, prepare
from potgan.training.update import Update

#: The number of steps before the clock starts. In these, buffers are allocated, convolution algorithms are chosen, networks are
#: compiled and graphs are recorded.
WARM_UP = {"cpu": 2, "cuda": 10}
#: The number of random images that steps are timed on. They are too many for a cache and few enough for any memory.
IMAGES = 256
NOT_COUNTED = (
    "Not counted: reading images, compiling (minutes at most, once per training), validation, writing checkpoints, generation and "
    "evaluation."
)


def random_pairs(size: tuple[int, int], sigma: float, images: int = IMAGES, pairs: int = 16 * IMAGES) -> PairData:
    """Return pairs of random images, masks and joints on the CPU. They are the same at every call.

    size: (height, width) in pixels. sigma: as `MaskSettings.heatmap_sigma`.
    """
    height, width = size
    generator = torch.Generator().manual_seed(0)

    def whole_numbers(end: int, *shape: int, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
        return torch.randint(0, end, shape, generator=generator, dtype=dtype)

    return PairData(
        names=[str(number) for number in range(images)],
        images=whole_numbers(256, images, 3, height, width),
        masks=255 * whole_numbers(2, images, 1, height, width),
        joints=torch.rand(images, 18, 2, generator=generator) * torch.tensor([width - 1.0, height - 1.0]),
        sources=whole_numbers(images, pairs, dtype=torch.int64),
        targets=whole_numbers(images, pairs, dtype=torch.int64),
        sigma=sigma,
        parsing=whole_numbers(len(PARSING_CLASSES), images, height, width),
    )


class TimedTraining:
    """The inner loop of `train` on given pairs, some steps at a time. It saves no state and writes no files."""

    def __init__(self, settings: RunSettings, device: torch.device, data: PairData) -> None:
        alone = Processes()
        self.device = device
        self.method = build_method(settings, device)
        prepare(self.method, data)
        self.update = Update(self.method)
        self.meter = LossMeter(self.method.losses, alone)
        positions = batch_positions(len(data), settings, itertools.count(), alone)
        self.batches = training_batches(data, device, positions, needs=self.method.needs)

    def run(self, steps: int, iteration: int = 0) -> float:
        """Take this many steps, as at an iteration of the training, and return how many seconds they took.

        The time includes the making of batches. The device has finished its work before the clock starts and before it stops.
        """
        synchronise(self.device)
        start = time.perf_counter()
        for _ in range(steps):
            self.meter.add(self.update(next(self.batches), iteration))
        synchronise(self.device)
        return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Measured:
    """What was measured of one process of one training on this machine.

    generator_bytes and state_bytes are the sizes of the files that a training writes.
    """

    seconds_per_iteration: float
    peak_memory_bytes: int
    generator_bytes: int
    state_bytes: int
    compiled: bool
    device: str


def measure(settings: RunSettings, steps: int) -> Measured:
    """Time that many steps in this process, after some steps to warm up.

    Raises UserError if a batch does not fit the device.
    """
    device = pick_device()
    torch.set_num_threads(settings.training.threads)
    keep_freed_memory()
    with out_of_memory_is_one_line(settings):
        data = random_pairs(settings.image_size, settings.masks.heatmap_sigma).placed(device)
        training = TimedTraining(settings, device, data)
        method, seconds = training.method, 0.0
        for first, share in stages_of(method):
            training.run(WARM_UP[device.type], first)
            seconds += share * training.run(steps, first) / steps
    return Measured(
        seconds,
        peak_memory_bytes(device),
        tensors_to_bytes(method.generator.state_dict()).nbytes,
        tensors_to_bytes(method.state_dict()).nbytes,
        method.ran_compiled,
        device_name(device),
    )


def stages_of(method: Method) -> list[tuple[int, float]]:
    """Return (first iteration, share of the iterations) of every stage of a training, in their order."""
    iterations = method.settings.training.iterations
    phases = [method.phase(iteration) for iteration in range(iterations)]
    firsts = [i for i in range(iterations) if i == 0 or phases[i] != phases[i - 1]]
    return [(first, (end - first) / iterations) for first, end in zip(firsts, [*firsts[1:], iterations], strict=True)]


@dataclass(frozen=True)
class Cost:
    """The cost of all trainings of one model on one data set. There is one training per seed."""

    dataset: str
    model: str
    seeds: int
    settings: RunSettings
    measured: Measured

    @property
    def pairs_per_second(self) -> float:
        return self.settings.training.batch_size / self.measured.seconds_per_iteration

    @property
    def hours_each(self) -> float:
        """The hours from start to end of one training."""
        return self.measured.seconds_per_iteration * self.settings.training.iterations / 3600

    @property
    def device_hours(self) -> float:
        """The device-hours of all seeds: the hours of each training times the number of its devices."""
        return self.hours_each * self.seeds * self.settings.training.processes

    @property
    def kept_bytes(self) -> int:
        return self.measured.generator_bytes * self.settings.training.checkpoints * self.seeds

    def as_dict(self) -> dict[str, Any]:
        options = self.settings.training
        return {
            "dataset": self.dataset,
            "model": self.model,
            "seeds": self.seeds,
            "image_size": list(self.settings.image_size),
            "batch_size": options.batch_size,
            "iterations": options.iterations,
            "processes": options.processes,
            "precision": options.precision,
            **dataclasses.asdict(self.measured),
            "pairs_per_second": self.pairs_per_second,
            "hours_each": self.hours_each,
            "device_hours": self.device_hours,
            "kept_bytes": self.kept_bytes,
        }


def distinct_trainings(
    benchmark: Benchmark, dataset: str | None = None, model: str | None = None
) -> list[tuple[str, str]]:
    """Return (data set, model) of every training of a configuration, or only of the chosen data set or model.

    Models that share a network are listed once. Raises UserError for a name that the configuration does not have.
    """
    found: list[tuple[str, str]] = []
    for name in [dataset] if dataset is not None else benchmark.datasets:
        for one in [model] if model is not None else benchmark.models:
            benchmark.run_settings(name, one, benchmark.seeds[0])  # raises UserError for an unknown name
            left_out = benchmark.why_left_out(name, one)
            if left_out and dataset is not None and model is not None:
                raise UserError(f"{name} has no {one}: {left_out}")
            if left_out:
                continue
            training = (name, benchmark.trained_as(name, one))
            if training not in found:
                found.append(training)
    if not found:
        raise UserError(f"no data set has {model}: {next(iter(benchmark.left_out.values()))}")
    return found


def estimate(benchmark: Benchmark, steps: int, dataset: str | None = None, model: str | None = None) -> list[Cost]:
    """Time each distinct training in a process of its own, so that the trainings do not share memory and threads.

    Trainings with equal settings are timed once. Such are, for example, those of one model on data sets of one image size.
    Raises UserError for fewer steps than 1, for an unknown name and if a training cannot be timed.
    """
    if steps < 1:
        raise UserError(f"--steps must be at least 1, and is {steps}")
    known: dict[RunSettings, Measured] = {}
    costs = []
    for name, one in distinct_trainings(benchmark, dataset, model):
        settings = benchmark.run_settings(name, one, benchmark.seeds[0])
        timed = _what_is_timed(settings)
        if timed not in known:
            say(f"{name}/{one}: timing {steps} steps")
            known[timed] = _in_a_process(timed, steps, f"{name}/{one}")
        costs.append(Cost(name, one, len(benchmark.seeds), settings, known[timed]))
    return costs


def _what_is_timed(settings: RunSettings) -> RunSettings:
    """Return the settings of one process of the training, with fixed values for what does not change its speed."""
    options = settings.training
    training = dataclasses.replace(
        options, batch_size=options.batch_size // options.processes, processes=1, perceptual_network="random"
    )
    return without_weight_files(dataclasses.replace(settings, dataset="random", seed=0, training=training))


def without_weight_files(settings: RunSettings) -> RunSettings:
    """Return the settings with a random network in the place of a published one inside the generator, of the same size."""
    if getattr(settings.options, "texture_network", "random") == "random":
        return settings
    options = dataclasses.replace(settings.options, texture_network="random", texture_width=VGG_WIDTH)
    return dataclasses.replace(settings, options=options)


def _in_a_process(settings: RunSettings, steps: int, what: str) -> Measured:
    # No executor is used here, because it would write to a process that was killed. A broken pipe would end the command line.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_and_send, args=(sender, settings, steps), daemon=True)
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        found = UserError(
            "the process that timed it was killed, most likely for lack of memory; set training.device_batch_size"
        )
    finally:
        receiver.close()
    process.join()
    if isinstance(found, Measured):
        return found
    if isinstance(found, UserError):
        raise UserError(f"{what}: {found}")
    raise found


def _measure_and_send(sender: Connection, settings: RunSettings, steps: int) -> None:
    try:
        sender.send(measure(settings, steps))
    except Exception as error:
        sender.send(error)


def check_price(price: float | None) -> None:
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise UserError(f"--price must be a number of at least 0, and is {price}")


def text(costs: list[Cost], steps: int, price: float | None = None) -> str:
    """Return the table that a person reads. price: the price of one hour of one device, in EUR."""
    unit = "hours" if costs[0].measured.device.startswith("CPU") else "GPU-hours"
    head = ["training", "s/iteration", "pairs/s", "hours each", "seeds", unit, "peak memory", "checkpoints", "state"]
    rows = [
        [
            f"{cost.dataset}/{cost.model}",
            f"{cost.measured.seconds_per_iteration:.4g}",
            f"{cost.pairs_per_second:,.4g}",
            f"{cost.hours_each:,.2f}",
            str(cost.seeds),
            f"{cost.device_hours:,.2f}",
            _gib(cost.measured.peak_memory_bytes),
            _gib(cost.kept_bytes),
            _gib(cost.measured.state_bytes),
        ]
        for cost in costs
    ]
    total = sum(cost.device_hours for cost in costs)
    seeds = sum(cost.seeds for cost in costs)
    kept, state = sum(cost.kept_bytes for cost in costs), max(cost.measured.state_bytes for cost in costs)
    rows.append(["all", "", "", "", str(seeds), f"{total:,.2f}", "", _gib(kept), _gib(state)])
    if price is not None:
        head.insert(6, "EUR")
        for row, hours in zip(rows, [*(cost.device_hours for cost in costs), total], strict=True):
            row.insert(6, f"{hours * price:,.2f}")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for name, *cells in [head, *rows]:
        numbers = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *numbers]))
    notes = [
        f"On {costs[0].measured.device}, {steps} steps of each training on random pairs, after some to warm up.",
        "checkpoints: kept, of all seeds. state: while one training runs, and twice that while it is saved.",
        NOT_COUNTED,
    ]
    if any(cost.settings.training.processes > 1 for cost in costs):
        notes.append("Trainings on several devices: one device's share was timed; exchanging gradients is not counted.")
    return "\n".join([*lines, "", *notes]) + "\n"


def _gib(count: int) -> str:
    return f"{count / 2**30:,.2f} GiB"


def as_tree(costs: list[Cost], steps: int, price: float | None = None) -> dict[str, Any]:
    """Return the content of the table as plain JSON types, for a program."""
    hours = sum(cost.device_hours for cost in costs)
    return {
        "device": costs[0].measured.device,
        "steps": steps,
        "trainings": [cost.as_dict() for cost in costs],
        "device_hours": hours,
        "kept_bytes": sum(cost.kept_bytes for cost in costs),
        "price_per_hour": price,
        "cost": None if price is None else hours * price,
        "not_counted": NOT_COUNTED,
    }
