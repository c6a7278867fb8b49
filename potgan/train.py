"""Algorithm 1: one training, from pairs to a generator. Read `train` from top to bottom.

The folder of a run holds `progress.csv`, `generator-<iteration>.pt` for each kept checkpoint, and, last of all, `done.json`.
While it runs, `../checkpoint/<key>.pt` holds the whole state; the key is the fingerprint of settings and data, so a changed
setting never continues from another's weights. A run that is killed at any moment continues from there, bit for bit.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import io
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from potgan.batches import PairData, to_pixels, training_indices
from potgan.config import GeneratorSettings, RunSettings, fingerprint
from potgan.errors import Interrupted, UserError
from potgan.files import sha256_of, write_bytes, write_json, write_text
from potgan.losses import PerceptualNetwork, discriminator_loss, generator_losses, weighted_sum
from potgan.metrics.protocols import POTGAN
from potgan.metrics.ssim import ssim
from potgan.models.discriminator import Discriminator
from potgan.models.guided_filter import guided_filter
from potgan.models.potgan import Generator
from potgan.progress import progress, say

#: In the paper's counting one training is 90 epochs (Fig. 10 shows 50 to 90; PROTOCOLS 7.2 item 2).
EPOCHS = 90
PROGRESS_COLUMNS = (
    "iteration",
    "epoch",
    "reconstruction",
    "perceptual",
    "adversarial",
    "discriminator",
    "learning_rate",
    "validation_ssim",
    "validation_ssim_unfiltered",
)


def pick_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def rate_factor(iteration: int, decay_from: int, iterations: int) -> float:
    """The learning rate's factor at `iteration` (from 0): 1, then linear to 0 at `iterations`."""
    if iteration < decay_from:
        return 1.0
    return (iterations - iteration) / (iterations - decay_from)


def train(
    data: PairData,
    validation: PairData | None,
    settings: RunSettings,
    folder: Path,
    data_hashes: dict[str, str],
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Train one model; returns the record written to `folder/done.json`.

    data, validation: pairs on `device`. data_hashes: what the data are (part of the checkpoint's key and of the record).
    Raises Interrupted after SIGTERM or Ctrl-C, with the state saved; UserError if another process trains in this folder or
    a loss is no longer finite.
    """
    # -- set-up -------------------------------------------------------------------------------------------------------
    device = device or pick_device()
    options = settings.training
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(settings.seed)
    layout = {"device": device, "memory_format": torch.channels_last}  # a quarter less time per step, CPU and GPU
    generator = Generator(settings.generator, settings.image_size).to(**layout)
    discriminator = Discriminator(settings.discriminator, settings.image_size).to(**layout)
    perceptual = None
    if settings.loss_weights.perceptual:
        perceptual = PerceptualNetwork(options.perceptual_network).to(**layout)
    coordinates = [p for name, p in generator.named_parameters() if name.startswith("pose_transform.coordinates.")]
    others = [p for name, p in generator.named_parameters() if not name.startswith("pose_transform.coordinates.")]
    rates = [options.learning_rate, options.coordinates_learning_rate]  # of the generator's two groups
    generator_optimizer = torch.optim.Adam([{"params": others}, {"params": coordinates}], betas=options.adam_betas)
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), betas=options.adam_betas)
    kept = checkpoint_iterations(options.iterations, options.checkpoints)
    rows: list[dict[str, float]] = []
    sums: dict[str, float] = {}
    start, seconds = 0, 0.0

    # -- resume -------------------------------------------------------------------------------------------------------
    key = fingerprint([settings.training_dict, data_hashes])
    state_file = folder.parent / "checkpoint" / f"{key}.pt"
    stateful = {
        "generator": generator,
        "discriminator": discriminator,
        "generator_optimizer": generator_optimizer,
        "discriminator_optimizer": discriminator_optimizer,
    }
    with _only_trainer_in(folder), _stop_signals() as stop:
        if state_file.exists():
            state = torch.load(state_file, map_location=device, weights_only=True)
            for name, thing in stateful.items():
                thing.load_state_dict(state[name])
            rows, sums, start, seconds = state["rows"], state["sums"], state["iteration"], state["seconds"]
            torch.set_rng_state(state["random_state"].cpu())
            say(f"continuing from iteration {start} of {options.iterations}")

        def save(iteration: int) -> None:
            state = {name: thing.state_dict() for name, thing in stateful.items()}
            state |= {"iteration": iteration, "rows": rows, "sums": sums, "random_state": torch.get_rng_state()}
            state["seconds"] = seconds + time.monotonic() - began
            write_bytes(state_file, _saved(state))

        # -- loop -----------------------------------------------------------------------------------------------------
        began = time.monotonic()
        generator.train()
        what = f"training {folder.parent.parent.name}/{folder.parent.name}"
        iterations = range(start, options.iterations)
        for iteration in progress(iterations, options.iterations, what, "iterations", initial=start):
            factor = rate_factor(iteration, options.decay_from, options.iterations)
            for group, rate in zip(generator_optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            discriminator_optimizer.param_groups[0]["lr"] = options.discriminator_learning_rate * factor
            batch = data.batch(training_indices(len(data), options.batch_size, settings.seed, iteration))

            # Generator: Eq. (8). The discriminator's own gradients would be thrown away, so they are not computed.
            fake = generator(batch.source_image, batch.source_mask, batch.target_mask, batch.target_heatmaps).image
            discriminator.requires_grad_(False)
            terms = generator_losses(
                fake,
                batch.target_image,
                discriminator(fake, batch.target_mask) if settings.loss_weights.adversarial else None,
                perceptual,
            )
            generator_optimizer.zero_grad(set_to_none=True)
            weighted_sum(terms, settings.loss_weights).backward()
            generator_optimizer.step()

            # Discriminator: Eq. (6), on the image that the generator was just updated for (Algorithm 1's order).
            discriminator.requires_grad_(True)
            if settings.loss_weights.adversarial:
                # Real and synthesised pairs in two passes: batch statistics, where used, must not mix them.
                real_logits = discriminator(batch.target_image, batch.target_mask)
                fake_logits = discriminator(fake.detach(), batch.target_mask)
                terms["discriminator"] = discriminator_loss(real_logits, fake_logits)
                discriminator_optimizer.zero_grad(set_to_none=True)
                terms["discriminator"].backward()
                discriminator_optimizer.step()

            # -- watch and save ---------------------------------------------------------------------------------------
            done = iteration + 1
            for name, value in terms.items():
                sums[name] = sums.get(name, 0.0) + value.item()
            sums["count"] = sums.get("count", 0) + 1
            if done % options.log_every == 0 or done in kept or done == options.iterations:
                row = {name: total / sums["count"] for name, total in sums.items() if name != "count"}
                if not np.isfinite(list(row.values())).all():
                    raise UserError(
                        f"{folder}: a loss is no longer finite at iteration {done} ({row}); lower the learning rate. "
                        f"The last good state is {state_file if state_file.exists() else 'the start'}"
                    )
                row |= {"iteration": done, "epoch": done * EPOCHS / options.iterations}
                row["learning_rate"] = options.learning_rate * factor
                if done in kept:
                    if validation is not None and len(validation):
                        row |= validation_scores(generator, validation, options.batch_size)
                    save_generator(folder / f"generator-{done:06d}.pt", generator, settings, done)
                rows.append(row)
                sums = {}
                write_text(folder / "progress.csv", progress_csv(rows))
            if done % options.save_every == 0 or done in kept or stop:
                save(done)
            if stop and done < options.iterations:
                raise Interrupted(f"stopped at iteration {done} of {options.iterations}; the same command continues")

        # -- finish ---------------------------------------------------------------------------------------------------
        seconds += time.monotonic() - began
        record = {
            "settings": json.loads(json.dumps(dataclasses.asdict(settings))),
            "training_fingerprint": settings.training_fingerprint,
            "data": data_hashes,
            "perceptual_network_sha256": perceptual.weights_sha256() if perceptual else None,
            "pairs": len(data),
            "iterations": options.iterations,
            "passes": options.iterations * options.batch_size / len(data),
            "wall_seconds": round(seconds, 1),
            "pairs_per_second": round(options.iterations * options.batch_size / seconds, 2),
            "parameters": {
                "generator": sum(p.numel() for p in generator.parameters()),
                "discriminator": sum(p.numel() for p in discriminator.parameters()),
            },
            "device": device_name(device),
            "threads": options.threads,
            "generators": {f"generator-{i:06d}.pt": sha256_of(folder / f"generator-{i:06d}.pt") for i in sorted(kept)},
        }
        write_json(folder / "done.json", record)
        # A finished run keeps its generators; the state would only make a forced rerun do nothing.
        for leftover in state_file.parent.glob("*.pt"):
            leftover.unlink()
        return record


def checkpoint_iterations(iterations: int, checkpoints: int) -> set[int]:
    """Evenly spaced, the last one at the end."""
    return {round(iterations * (i + 1) / checkpoints) for i in range(checkpoints)}


@torch.no_grad()
def validation_scores(generator: Generator, validation: PairData, batch_size: int) -> dict[str, float]:
    """Mean SSIM (`ssim-deform`) over the validation pairs, with and without the guided filter of the settings."""
    generator.eval()
    filter_settings = generator.settings.guided_filter
    targets, filtered, unfiltered = [], [], []
    for first in range(0, len(validation), batch_size):
        batch = validation.batch(range(first, min(first + batch_size, len(validation))))
        out = generator(batch.source_image, batch.source_mask, batch.target_mask, batch.target_heatmaps)
        # With the mode "off" the filter is still shown, so that one training gives both curves of Fig. 10.
        smooth = (
            guided_filter(batch.target_mask, out.unfiltered, filter_settings.radius, filter_settings.epsilon)
            if filter_settings.mode != "train"
            else out.image
        )
        for images, store in ((batch.target_image, targets), (smooth, filtered), (out.unfiltered, unfiltered)):
            store.append(to_pixels(images).permute(0, 2, 3, 1).cpu().numpy())
    generator.train()
    real = np.concatenate(targets)
    scores = {"validation_ssim": float(ssim(real, np.concatenate(filtered), POTGAN.ssim).mean())}
    if filter_settings.mode != "train":  # otherwise the unfiltered image is no output of this model
        scores["validation_ssim_unfiltered"] = float(ssim(real, np.concatenate(unfiltered), POTGAN.ssim).mean())
    return scores


def progress_csv(rows: list[dict[str, float]]) -> str:
    return pd.DataFrame(rows, columns=list(PROGRESS_COLUMNS)).to_csv(
        index=False, float_format="%.6g", lineterminator="\n"
    )


def save_generator(path: Path, generator: Generator, settings: RunSettings, iteration: int) -> None:
    """A generator's weights with all that is needed to build it again; plain tensors, no pickled code."""
    write_bytes(
        path,
        _saved(
            {
                "generator_settings": json.dumps(dataclasses.asdict(settings.generator)),
                "masks": json.dumps(dataclasses.asdict(settings.masks)),
                "image_size": list(settings.image_size),
                "training_fingerprint": settings.training_fingerprint,
                "iteration": iteration,
                "state": {name: tensor.cpu() for name, tensor in generator.state_dict().items()},
            }
        ),
    )


def load_generator(path: Path, settings: GeneratorSettings, device: torch.device) -> tuple[Generator, int]:
    """The generator of a file written by `save_generator`, in eval mode, and its iteration.

    settings: as the configuration has them now. The guided filter may differ where it is no part of training; any other
    difference is a UserError that lists it.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; run `potgan train` first") from None
    stored, wanted = json.loads(content["generator_settings"]), json.loads(json.dumps(dataclasses.asdict(settings)))
    if "train" not in (stored["guided_filter"]["mode"], wanted["guided_filter"]["mode"]):
        stored["guided_filter"] = wanted["guided_filter"]
    different = [f"{k}: {stored[k]} in the file, {wanted[k]} wanted" for k in wanted if stored.get(k) != wanted[k]]
    if different:
        raise UserError(f"{path}: was trained with other settings ({'; '.join(different)}); train it again")
    generator = Generator(settings, tuple(content["image_size"]))
    generator.load_state_dict(content["state"])
    return generator.to(device).eval(), content["iteration"]


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks: by default it gives large ones back to the kernel and faults them in again at
    every step (VGG's share of a step at 128 x 64, batch 8, one thread: 135 ms with the default, 85 ms with this and
    channels-last). A no-op where the C library is another."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
        libc.mallopt(top_pad, 256 << 20)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    import platform

    return f"CPU ({platform.machine()})"


def _saved(tree: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


@contextlib.contextmanager
def _only_trainer_in(folder: Path) -> Iterator[None]:
    """After a kill of the workflow an orphaned trainer may still run: two in one folder would spoil each other."""
    lock = folder.parent / "checkpoint" / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process is training here; wait for it or stop it") from None
        yield


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that becomes non-empty on SIGTERM or SIGINT; the handlers before it are put back."""
    received: list[int] = []
    before = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError):  # only the main thread may set handlers
            before[number] = signal.signal(number, lambda n, _: received.append(n))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
