"""Reading and writing files so that nothing half-written is ever taken for complete."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from potgan.common.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Write through a temporary name beside `path`, then move it into place."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    # A name of this process alone: two jobs may write the same entry of a cache at once.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); what was there before is kept"
        ) from None


def write_json(path: Path, tree: Any) -> None:
    write_text(path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, hint: str) -> Any:
    """A JSON file of ours; `hint` says which command writes it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {hint}") from None
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); delete it and {hint}") from None


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears whole or not at all: yields a temporary one, which replaces `path` if the block succeeds."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    new_parents = [parent for parent in partial.parents if not parent.exists()]
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # another job may have put something there
            for parent in new_parents:
                parent.rmdir()
        raise
    if path.exists():
        shutil.rmtree(path)
    partial.replace(path)


def refuse_to_replace(out: Path, writer: str, is_ours: Callable[[Path], bool]) -> None:
    """UserError unless `out` is absent, empty, or holds only what `is_ours`: a folder of the user's is never removed.

    For folders that a person names on a command line, before `new_folder` replaces them. writer: who wrote what is ours.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out}: is a file, and --out names a folder; name a new one")
    strange = next((path.name for path in sorted(out.iterdir()) if not is_ours(path)), None)
    if strange is not None:
        raise UserError(f"{out}: holds {strange}, which no {writer} wrote, and would be replaced; name a new folder")


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(tree: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of the canonical JSON of `tree`."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:12]
