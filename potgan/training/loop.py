"""One training of any method, from pairs to a generator. `train` is the place to begin reading.

The folder of a run holds `progress.csv`, and `generator-<iteration>.pt` and `samples-<iteration>.png` for each kept checkpoint.
`done.json` is written last. While the training runs, `../checkpoint/` holds its whole state. A run that is killed at any moment
continues from there, and its results are equal bit for bit. `../tensorboard/` holds the same curves and pictures for TensorBoard.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from potgan.common.device import (
    actual_precision,
    device_name,
    keep_freed_memory,
    peak_memory_bytes,
    pick_device,
)
from potgan.common.errors import Interrupted, UserError
from potgan.common.files import sha256_of
from potgan.common.processes import Processes, processes
from potgan.common.progress import progress, say
from potgan.data.batches import PairData, to_pixels, training_batches, training_indices
from potgan.data.pose_rendering import metric_mask
from potgan.measure.ssim import all_ssim, ssim
from potgan.methods.generator_file import save_generator
from potgan.methods.method import Method
from potgan.methods.registry import build_method
from potgan.settings.protocols import POTGAN
from potgan.settings.schema import RunSettings, TrainingSettings
from potgan.training.log import EPOCHS, LossMeter, TrainingLog
from potgan.training.record import TrainingRecord
from potgan.training.state import TrainingState
from potgan.training.update import Update

#: The processes agree once in this many iterations on whether one of them was told to stop.
AGREE_EVERY = 10


def train(
    data: PairData,
    validation: PairData | None,
    settings: RunSettings,
    folder: Path,
    data_hashes: dict[str, str],
    device: torch.device | None = None,
    code: str = "",
) -> TrainingRecord:
    """Train one model, and return the record that is written to `folder/done.json`.

    data, validation: the pairs, on any device. data_hashes: the hashes of the data, which are part of the identity of the state
    and of the record. code: the fingerprint of the code that trains. With the same settings, data and code an unfinished
    training is continued, and a finished one is taken over. Under torchrun each process takes its share of every batch, and
    only the first process writes.

    Raises Interrupted after SIGTERM or Ctrl-C; the state is saved before. Raises UserError if another process trains in this
    folder, a loss is no longer finite or has exploded, the disk is full, or a batch does not fit the device.
    """
    with processes() as ours, out_of_memory_is_one_line(settings):
        return _train(data, validation, settings, folder, data_hashes, device or pick_device(), code, ours)


def _train(
    data: PairData,
    validation: PairData | None,
    settings: RunSettings,
    folder: Path,
    data_hashes: dict[str, str],
    device: torch.device,
    code: str,
    ours: Processes,
) -> TrainingRecord:
    # -- set-up -------------------------------------------------------------------------------------------------------
    options = settings.training
    identity = {"settings": settings.training_dict, "data": data_hashes, "code": code}
    if (
        options.precision == "auto"
    ):  # a state of one precision is not continued on a machine where this means another one
        identity["precision"] = actual_precision(options.precision, device)
    state_file = TrainingState(folder, identity)
    record = state_file.finished()
    if record is not None:
        say(
            f"{folder}: was trained with these settings, data and code already, and is taken over; to train it again, remove "
            f"{state_file.folder}"
        )
        ours.wait()
        if ours.first:
            record.write(folder / "done.json")
        return record
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    method = build_method(settings, device, ours)
    data = data.placed(device)
    validation = validation.placed(device) if validation is not None and len(validation) else None
    kept = checkpoint_iterations(options.iterations, options.checkpoints)
    meter = LossMeter(method.losses, ours)
    start, seconds = 0, 0.0

    with state_file.only_trainer() if ours.first else contextlib.nullcontext(), _stop_signals() as stop:
        # -- resume ---------------------------------------------------------------------------------------------------
        ours.wait()
        state = state_file.load(device)
        if state is not None:
            method.load_state_dict(state["method"])
            meter.load_state_dict(state["meter"])
            start, seconds = state["iteration"], state["seconds"]
            say(f"continuing from iteration {start} of {options.iterations}")
        else:
            prepare(method, data)
        update = Update(method)
        log = TrainingLog(folder, settings, method, start) if ours.first else None
        began = time.monotonic()

        def save(iteration: int) -> None:
            meter.check(folder, iteration, state_file.describe())
            if ours.first:
                state = {"method": method.state_dict(), "meter": meter.state_dict(), "iteration": iteration}
                state_file.save(state | {"seconds": seconds + time.monotonic() - began}, device)

        # -- loop -----------------------------------------------------------------------------------------------------
        positions = batch_positions(len(data), settings, range(start, options.iterations), ours)
        what = f"training {folder.parent.parent.name}/{folder.parent.name}"
        for iteration, batches in enumerate(
            progress(
                training_batches(data, device, positions, needs=method.needs),
                options.iterations,
                what,
                "iterations",
                initial=start,
                note=lambda rate: f"{rate * options.batch_size:.3g} pairs/s, {meter.note()}",
            ),
            start=start,
        ):
            meter.add(update(batches, iteration))

            # -- watch and save ---------------------------------------------------------------------------------------
            done = iteration + 1
            if done % options.log_every == 0 or done in kept or done == options.iterations:
                meter.check(folder, done, state_file.describe())
                row = meter.means() | {"iteration": done, "epoch": done * EPOCHS / options.iterations}
                row["learning_rate"] = method.learning_rate(iteration)
                if done in kept and ours.first:
                    if validation is not None:
                        row |= validation_scores(method, validation, options.batch_size)
                    save_generator(folder / f"generator-{done:06d}.pt", method.generator, settings, done, data_hashes)
                    log.pictures(method.generator, validation or data, done)
                meter.start_row(row)
                if ours.first:
                    log.row(row, meter.rows, pairs=options.batch_size * (done - start), device=device)
            agreed = ours.count == 1 or done % AGREE_EVERY == 0 or done == options.iterations
            stopping = agreed and ours.any(bool(stop))
            if done % options.save_every == 0 or done in kept or stopping:
                save(done)
            if stopping and done < options.iterations:
                raise Interrupted(f"stopped at iteration {done} of {options.iterations}; the same command continues")

        # -- finish ---------------------------------------------------------------------------------------------------
        seconds += time.monotonic() - began
        of_method = dict(method.record())
        kept_files = [f"generator-{i:06d}.pt" for i in sorted(kept)] if ours.first else []
        record = TrainingRecord(
            settings=json.loads(json.dumps(dataclasses.asdict(settings))),
            training_fingerprint=settings.training_fingerprint,
            data=data_hashes,
            pairs=len(data),
            iterations=options.iterations,
            passes=options.iterations * options.batch_size / len(data),
            wall_seconds=round(seconds, 1),
            pairs_per_second=round(options.iterations * options.batch_size / seconds, 2),
            peak_memory_bytes=peak_memory_bytes(device),
            parameters={name: sum(p.numel() for p in net.parameters()) for name, net in method.networks.items()},
            device=device_name(device),
            threads=options.threads,
            processes=ours.count,
            precision=method.precision,
            compiled=method.ran_compiled,
            generators={name: sha256_of(folder / name) for name in kept_files},
            perceptual_network_sha256=of_method.pop("perceptual_network_sha256", None),
            of_method=of_method,
        )
        if ours.first:
            state_file.finish(record)
            record.write(folder / "done.json")
            log.close()
        ours.wait()
        return record


def prepare(method: Method, data: PairData) -> None:
    """Give a method that asks for them the first batches of its training. Every process gives the same, whole ones."""
    options = method.settings.training
    numbers = range(method.batches_before)
    positions = [training_indices(len(data), options.batch_size, method.settings.seed, number) for number in numbers]
    if positions:
        method.prepare([data.batch(places, method.device, method.needs) for places in positions])


def batch_positions(
    count: int, settings: RunSettings, iterations: Iterable[int], ours: Processes
) -> Iterator[list[np.ndarray]]:
    """Yield, for each of `iterations`, the pairs that this process trains on, in equal parts.

    Each pair is given as its position in a list of `count` pairs.
    """
    options = settings.training
    share, parts = ours.share(options.batch_size), part_count(options, ours.count)
    for iteration in iterations:
        yield np.split(training_indices(count, options.batch_size, settings.seed, iteration)[share], parts)


def part_count(options: TrainingSettings, process_count: int) -> int:
    """Return the number of equal parts from which a process accumulates its share of a batch.

    It is the smallest number for which a part fits `device_batch_size`.
    """
    share = options.batch_size // process_count
    limit = options.device_batch_size or share
    return next(parts for parts in range(1, share + 1) if share % parts == 0 and share // parts <= limit)


def checkpoint_iterations(iterations: int, checkpoints: int) -> set[int]:
    """Return the iterations after which a generator is kept. They are evenly spaced, and the last one ends the training."""
    return {round(iterations * (i + 1) / checkpoints) for i in range(checkpoints)}


@torch.no_grad()
def validation_scores(method: Method, validation: PairData, batch_size: int) -> dict[str, float]:
    """Return column of progress.csv -> mean over the validation pairs.

    Every kind of image that the method validates has its SSIM. The model's own output has mask-SSIM and SSIM inside the mask,
    too. Masks and SSIM are those of the protocol `potgan`.
    """
    method.generator.eval()
    needs = method.generator.needs | {"target_image"}
    targets: list[np.ndarray] = []
    made: dict[str, list[np.ndarray]] = {}
    for first in range(0, len(validation), batch_size):
        places = range(first, min(first + batch_size, len(validation)))
        batch = validation.batch(places, method.device, needs)
        targets.append(_pictures(batch.target_image))
        for column, images in method.validation_images(batch).items():
            made.setdefault(column, []).append(_pictures(images))
    method.generator.train()
    real = np.concatenate(targets)
    joints = validation.joints[validation.targets].cpu().numpy()
    masks = np.stack([metric_mask(pose, *validation.size) for pose in joints])
    scores = all_ssim(real, np.concatenate(made.pop("validation_ssim")), masks, POTGAN.ssim)
    means = {f"validation_{name}": float(np.nanmean(values)) for name, values in scores.items()}
    return means | {name: float(ssim(real, np.concatenate(parts), POTGAN.ssim).mean()) for name, parts in made.items()}


def _pictures(images: torch.Tensor) -> np.ndarray:
    """Turn images (B, 3, H, W) in [-1, 1] into (B, H, W, 3) uint8."""
    return to_pixels(images).permute(0, 2, 3, 1).cpu().numpy()


@contextlib.contextmanager
def out_of_memory_is_one_line(settings: RunSettings) -> Iterator[None]:
    """Replace torch's error for a full GPU by a UserError that says what to set."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        options = settings.training
        fits = (options.device_batch_size or options.batch_size // options.processes) // 2
        so = (
            "the result is the same"
            if settings.options is None
            else "batch statistics and dropout are then of each part"
        )
        raise UserError(
            f"the GPU has too little memory ({' '.join(str(error).split())[:160]}); set training.device_batch_size to {fits or 1}: "
            f"the batch is then accumulated from parts, and {so}"
        ) from None


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Give a list that becomes non-empty on SIGTERM or SIGINT. The earlier handlers are put back at the end.

    SIGINT stays ignored if this process was started with SIGINT ignored, as in the background of a shell or under `nohup`.
    """
    received: list[int] = []
    before = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        if number == signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN:
            continue
        with contextlib.suppress(ValueError):  # only the main thread may set handlers
            before[number] = signal.signal(number, lambda n, _: received.append(n))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
