"""What a person sees of a training.

This is `progress.csv`, pictures of the same pairs, TensorBoard, and an error when a loss is no longer finite or explodes.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from potgan.common.device import peak_memory_bytes
from potgan.common.errors import UserError
from potgan.common.files import write_bytes, write_text
from potgan.common.processes import Processes
from potgan.common.progress import say
from potgan.data.batches import PairData, to_pixels
from potgan.data.pixels import png_bytes
from potgan.data.pose_rendering import draw_skeleton
from potgan.methods.method import Method, PoseGenerator
from potgan.settings.schema import RunSettings

#: What is measured of a model's own images of the validation pairs, at every checkpoint.
VALIDATED = ("ssim", "mask_ssim", "foreground_ssim")

#: The number of epochs of one training, as the paper counts them (Fig. 10 shows 50 to 90; docs/decisions.md, D28).
EPOCHS = 90
#: The number of pairs that every picture of a training shows.
SAMPLES = 8
#: A loss has exploded if its mean since the last line of progress.csv is more than this many times its value in the first
#: iteration. In trainings that went well the factor is at most 1.7, for the adversarial term while the discriminator learns.
EXPLOSION = 100.0


class LossMeter:
    """Computes the means of the loss terms between two lines of `progress.csv`.

    The terms are summed on the device, so that no step waits for them. A method that trains in stages has other terms in each, so
    every term has a count of its own. names: loss term -> its short name in a progress line.
    """

    def __init__(self, names: Mapping[str, str], processes: Processes) -> None:
        self.names, self.processes = names, processes
        self.rows: list[dict[str, float]] = []
        self._first: dict[str, torch.Tensor] = {}  # each loss term in the first iteration that has it
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, terms: dict[str, torch.Tensor]) -> None:
        for name, value in terms.items():
            if name not in self._first:
                self._first[name] = value.double()
            # Sums are in float64, so that a sum does not depend on when it was taken off the device.
            self._sums[name] = self._sums[name] + value if name in self._sums else value.double()
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Return name -> mean over processes and over the iterations that have this term. This waits for the device."""
        if not self._sums:
            return {}
        sums = self.processes.mean(torch.stack(list(self._sums.values())).cpu()).tolist()
        return {name: value / self._counts[name] for name, value in zip(self._sums, sums, strict=True)}

    def start_row(self, row: dict[str, float]) -> None:
        """Keep the finished line `row`, and begin the next one."""
        self.rows.append(row)
        self._sums, self._counts = {}, {}

    def check(self, folder: Path, iteration: int, last_good: str) -> None:
        """Raise UserError if a loss is not finite or has exploded. The loop calls this before it saves anything."""
        for name, value in self.means().items():
            if math.isfinite(value) and value <= EXPLOSION * max(self._first[name].item(), 0.01):
                continue
            what = (
                f"has exploded ({self._first[name].item():.3g} at first)"
                if math.isfinite(value)
                else "is no longer finite"
            )
            raise UserError(
                f"{folder}: the {name} loss {what} at iteration {iteration}: {value:.3g}; lower the learning rate. The last "
                f"good state is {last_good}"
            )

    def note(self) -> str:
        """Return the losses of the last line of `progress.csv`, for a progress line."""
        if not self.rows:
            return "no losses yet"
        last = self.rows[-1]
        return " ".join(f"{short} {last[name]:.3g}" for name, short in self.names.items() if name in last)

    def state_dict(self) -> dict[str, Any]:
        sums, first = ({k: v.item() for k, v in tensors.items()} for tensors in (self._sums, self._first))
        return {"rows": self.rows, "first": first, "sums": sums, "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]
        self._sums, self._first = (
            {k: torch.tensor(v, dtype=torch.float64) for k, v in state[name].items()} for name in ("sums", "first")
        )
        self._counts = dict(state["counts"])


class TrainingLog:
    """Writes what a training did since the iteration `start`."""

    def __init__(self, folder: Path, settings: RunSettings, method: Method, start: int) -> None:
        self.folder = folder
        validation = (*(f"validation_{name}" for name in VALIDATED), *method.variants)
        self.groups = {"loss": tuple(method.losses), "validation": validation, "run": ("learning_rate",)}
        self.began = time.monotonic()
        self.board = None
        with contextlib.suppress(OSError):  # a failure of TensorBoard must never stop a training
            self.board = _board(folder.parent / "tensorboard", start)
        if self.board is not None and not start:
            self.board.add_text("settings", f"```\n{settings}\n```", 0)

    def row(self, row: dict[str, float], rows: list[dict[str, float]], pairs: int, device: torch.device) -> None:
        """Write one more line. rows: all lines so far, with this one. pairs: the number of pairs seen in this session."""
        write_text(self.folder / "progress.csv", progress_csv(rows, self.groups))
        if self.board is None:
            return
        iteration = int(row["iteration"])
        with contextlib.suppress(OSError):
            for group, names in self.groups.items():
                for name in names:
                    if name in row:
                        self.board.add_scalar(f"{group}/{name.removeprefix('validation_')}", row[name], iteration)
            self.board.add_scalar("run/pairs_per_second", pairs / (time.monotonic() - self.began), iteration)
            self.board.add_scalar("run/peak_memory_gib", peak_memory_bytes(device) / 2**30, iteration)
            self.board.flush()

    def pictures(self, generator: PoseGenerator, data: PairData, iteration: int) -> None:
        """Write a picture of what the generator makes from the same pairs every time."""
        picture = samples(generator, data)
        write_bytes(self.folder / f"samples-{iteration:06d}.png", png_bytes(picture))
        if self.board is not None:
            with contextlib.suppress(OSError):
                self.board.add_image("source, pose, synthesised, target", picture, iteration, dataformats="HWC")

    def close(self) -> None:
        if self.board is not None:
            with contextlib.suppress(OSError):
                self.board.close()


@torch.no_grad()
def samples(generator: PoseGenerator, data: PairData, count: int = SAMPLES) -> np.ndarray:
    """Return a picture (rows, columns, 3) uint8 RGB of the same pairs at every call.

    There is one row per pair, and it shows the source, the target pose, the synthesised image and the target.
    """
    generator.eval()
    # The pairs are evenly spaced over the list, so that they do not all show its first person.
    chosen = np.unique(np.linspace(0, len(data) - 1, min(count, len(data))).astype(int))
    needs = generator.needs | {"source_image", "target_image"}
    batch = data.batch(chosen, next(generator.parameters()).device, needs)
    columns = [
        to_pixels(images).permute(0, 2, 3, 1).cpu().numpy()
        for images in (batch.source_image, generator.synthesise(batch).image, batch.target_image)
    ]
    joints = data.joints[data.targets[torch.as_tensor(chosen, device=data.device)]].cpu().numpy()
    poses = np.stack([draw_skeleton(joint, *data.size) for joint in joints])
    rows = np.concatenate([columns[0], poses, columns[1], columns[2]], axis=2)
    generator.train()
    return np.concatenate(list(rows), axis=0)


def _board(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("TensorBoard is not installed: progress.csv and the pictures in the run's folder say the same")
        return None
    _tell_of_full_disks_in_a_line()
    # TensorBoard drops the points that an earlier session drew after the saved state, because they are drawn again.
    return SummaryWriter(str(folder), purge_step=start + 1 if start else None)


def _tell_of_full_disks_in_a_line() -> None:
    """Report a full disk in one line, and let the training go on.

    TensorBoard writes from a thread of its own. Without this, the thread would end with a traceback.
    """
    before = threading.excepthook

    def tell(failure: threading.ExceptHookArgs) -> None:
        if isinstance(failure.exc_value, OSError):
            say(f"TensorBoard's file cannot be written ({failure.exc_value.strerror}); training goes on without it")
        else:
            before(failure)

    threading.excepthook = tell


def progress_csv(rows: list[dict[str, float]], groups: dict[str, tuple[str, ...]]) -> str:
    """Return the text of `progress.csv`.

    groups: the names of the loss terms (`loss`), of the rates (`run`) and of the validated columns (`validation`).
    """
    columns = ["iteration", "epoch", *groups["loss"], *groups["run"], *groups["validation"]]
    return pd.DataFrame(rows, columns=columns).to_csv(index=False, float_format="%.6g", lineterminator="\n")
