"""The state of an unfinished training.

The state is one file, which is always replaced as a whole. Only the same training continues from it.

The file lies in `checkpoint/` beside the folder of the run. It is no output of a rule and no DVC out, because Snakemake removes
the outputs of a failed job before it runs again, and DVC removes those of a stage.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from potgan.common.errors import UserError
from potgan.common.files import fingerprint, sha256_of, write_bytes, write_json
from potgan.common.progress import say
from potgan.common.tensors import tensors_to_bytes
from potgan.common.typed import build, flattened
from potgan.training.record import TrainingRecord


class TrainingState:
    """The state file of one training.

    run: the folder that the results go to. identity: a nested dictionary of JSON types with all that decides the training
    (settings, data hashes and the fingerprint of the code). Its fingerprint is the name of the file, so that another
    configuration and other code never continue from it.
    """

    def __init__(self, run: Path, identity: dict[str, Any]) -> None:
        self.run = run
        self.folder = run.parent / "checkpoint"
        self.identity = json.loads(json.dumps(identity))
        self.path = self.folder / f"{fingerprint(self.identity)}.pt"

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Return what `save` was given, on `device`. Return None if there is nothing to continue from.

        A state of another training in the folder is left as it is, and a line says what differs. Raises UserError for a damaged
        file.
        """
        if not self.path.exists():
            for other in sorted(self.folder.glob("*.pt")):
                self._tell_difference(other)
            return None
        state = _read(self.path, device)
        torch.set_rng_state(state["random_state"].cpu())
        if device.type == "cuda" and "cuda_random_state" in state:
            torch.cuda.set_rng_state(state["cuda_random_state"].cpu(), device)
        return state

    def save(self, state: dict[str, Any], device: torch.device) -> None:
        """Replace the file.

        The earlier file stays readable until the new one is complete, even if the disk is full or the power fails.
        """
        state = state | {"identity": json.dumps(self.identity), "random_state": torch.get_rng_state()}
        if device.type == "cuda":
            state["cuda_random_state"] = torch.cuda.get_rng_state(device)
        write_bytes(self.path, tensors_to_bytes(state))

    def finish(self, record: TrainingRecord) -> None:
        """Replace the state by a note that holds the record of the finished training, so that it can be taken over."""
        write_json(self._note, {"record": record.tree()})
        self.path.unlink(missing_ok=True)

    def finished(self) -> TrainingRecord | None:
        """Return the record of this training if it is finished and all files that it wrote are there. Else return None.

        Snakemake may remove the output of a finished training and run its job again. It does so if Snakemake was killed while the
        trainer went on, or if an input was made again with the same content. Hours of training must not be lost in these cases.
        """
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            record = build(TrainingRecord, note["record"], str(self._note))
        except (OSError, ValueError, KeyError, UserError):
            return None
        for name, digest in record.generators.items():
            path = self.run / name
            if not path.is_file() or sha256_of(path) != digest:
                return None
        return record

    @property
    def _note(self) -> Path:
        return self.path.with_suffix(".finished.json")

    def describe(self) -> str:
        return str(self.path) if self.path.exists() else "none yet: a new run starts at iteration 0"

    @contextlib.contextmanager
    def only_trainer(self) -> Iterator[None]:
        """Make sure that no other process trains in this folder. Raises UserError if one does.

        After a kill of the workflow its trainer may still run. Two trainers in one folder would spoil each other's files.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.run}: another process is training here; wait for it or stop it") from None
            # A kill in the middle of a write leaves partial files behind. No other process writes here now, so they can go.
            for partial in (*self.folder.glob(".*.partial"), *self.run.glob(".*.partial")):
                partial.unlink(missing_ok=True)
            yield

    def _tell_difference(self, other: Path) -> None:
        try:
            theirs = json.loads(_read(other, torch.device("cpu"))["identity"])
        except (UserError, KeyError):
            return
        mine, theirs = flattened(self.identity), flattened(theirs)
        different = [
            f"{key}: {theirs.get(key, 'absent')} there, {mine.get(key, 'absent')} now"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]
        say(
            f"{other}: is of another configuration or of other code ({'; '.join(different)}) and is not continued from; with "
            "those it still can be. Starting at iteration 0"
        )


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{path}: cannot be read ({reason}); delete it, and training starts again at iteration 0"
        ) from None
