"""Files and folders that appear whole or not at all, so that no reader meets a half-written one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from potgan.common.errors import UserError

#: A value that a JSON file can hold.
Json = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
#: The suffix of the published images, which stands twice in some names.
_JPG = re.compile(r"(\.jpg)+$", re.IGNORECASE)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all. Raises UserError where it cannot be written."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file, whole or not at all: under a temporary name in the same folder, which then becomes `path`.

    Raises UserError where it cannot be written. What was there before is then kept.
    """
    # The temporary name holds the number of this process, because two jobs may write the same entry of a cache at once.
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


def write_json(path: Path, tree: object) -> None:
    """Write `tree` (mappings, lists, texts, numbers) as JSON, as `write_text` does."""
    write_text(path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, hint: str) -> Any:
    """What a JSON file of the pipeline holds. hint: the command that writes this file, for the message.

    Raises UserError where the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {hint}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error}); delete it and {hint}") from None


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears whole or not at all.

    The block fills the temporary folder that this yields. The temporary folder replaces `path` if the block succeeds, and is
    removed if it fails.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    new_parents = [parent for parent in partial.parents if not parent.exists()]
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # another job may have put something into it
            for parent in new_parents:
                parent.rmdir()
        raise
    if path.exists():
        shutil.rmtree(path)
    partial.replace(path)


def refuse_to_replace(out: Path, writer: str, is_ours: Callable[[Path], bool]) -> None:
    """Raise UserError where replacing the folder `out` would remove files of the user.

    This is asked before `new_folder` replaces a folder that the user has named. `out` may be absent or empty, or hold entries that
    `is_ours` knows, which an earlier run has written. writer: the kind of that run, for the message.
    """
    if out.name in ("", ".."):
        raise UserError(f"{out}: is a folder that you are in; name a new one")
    if out.is_symlink():
        raise UserError(f"{out}: is a link; name the folder that it points to, or a new one")
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out}: is a file, and --out names a folder; name a new one")
    strange = next((path.name for path in sorted(out.iterdir()) if not is_ours(path)), None)
    if strange is not None:
        raise UserError(f"{out}: holds {strange}, which {writer} did not write and would remove; name a new folder")


def free_bytes(path: Path) -> int:
    """How many bytes are free on the disk that holds a file or folder, or will hold it."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def refuse_to_overwrite(out: Path, inputs: Iterable[Path]) -> None:
    """Raise UserError where the file or folder that is written is one of those that are read."""
    for path in inputs:
        if out.exists() and path.exists() and out.samefile(path):
            raise UserError(f"{out}: is read, and would be overwritten; name another file to write")


def plain_path(path: str) -> str:
    """A path with `/` between its folders, where Windows has a backslash, and with `.jpg` at its end in small letters."""
    return _JPG.sub(lambda suffix: suffix[0].lower(), path.replace("\\", "/"))


def is_of_macos(path: str) -> bool:
    """Whether macOS has added this file: a folder's look, or what a foreign file system cannot hold of another file."""
    name = path.rsplit("/", 1)[-1]
    return name.startswith("._") or name == ".DS_Store"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(tree: object) -> str:
    """12 hexadecimal digits that stand for `tree`: the beginning of the SHA-256 of its JSON with sorted keys."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:12]
