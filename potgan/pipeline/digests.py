"""Digests of what the user brings: archives, folders of images, tables and pair lists, by content and not by time.

To read some gigabytes takes seconds, and Snakemake reads the workflow at each start. So each digest is remembered, with the
names, sizes and times of the files that it was taken of; the content is read again only where these differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path

from potgan.common.errors import UserError
from potgan.common.files import fingerprint, sha256_of, write_json


def digest(path: Path, memory: Path) -> str | None:
    """12 hexadecimal digits of a file's content, or of the names and contents of all files of a folder and its subfolders.

    None where nothing is there. memory: the JSON file of remembered digests; where it cannot be written, nothing is
    remembered.
    """
    files = _files(path)
    if files is None:
        return None
    state = fingerprint([(name, status.st_size, status.st_mtime_ns) for name, status in files])
    remembered = _remembered(memory)
    known = remembered.get(str(path.resolve()))
    if known is not None and known["state"] == state:
        return known["digest"]
    content = hashlib.sha256()
    for name, _ in files:
        content.update(f"{name}\0{sha256_of(path / name)}\0".encode())
    entry = {"state": state, "digest": content.hexdigest()[:12]}
    with contextlib.suppress(UserError):
        write_json(memory, remembered | {str(path.resolve()): entry})
    return entry["digest"]


def _files(path: Path) -> list[tuple[str, os.stat_result]] | None:
    """(name below `path`, status) of each file, sorted by name; a single file has no name below itself."""
    if not path.exists():
        return None
    if not path.is_dir():
        return [("", path.stat())]
    found = []
    for folder, _, names in os.walk(path, followlinks=True):
        for name in names:
            file = Path(folder, name)
            if file.exists():  # a link may lead nowhere
                found.append((file.relative_to(path).as_posix(), file.stat()))
    return sorted(found, key=lambda entry: entry[0])


def _remembered(memory: Path) -> dict[str, dict[str, str]]:
    try:
        return json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}
