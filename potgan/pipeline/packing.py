"""Folders of many small files as one archive each: what DVC versions and remotes hold.

DVC takes minutes to hash a folder of 30,000 images, and a remote takes far longer to receive them one object at a time. As
one file they take seconds. So `dvc.yaml` names `images.zip` and `generate.zip`, which `pack` writes beside the folders when
a DVC stage ends. After `dvc pull` or `dvc checkout` an archive may wait for its folder: it counts as the folder wherever the
workflow only looks, and is unpacked when a run starts. The archives are not compressed, since images are, and the same
content gives the same bytes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from potgan.common.errors import UserError
from potgan.common.files import new_folder, sha256_of
from potgan.common.progress import say
from potgan.pipeline.jobs import Job, Key

#: Stages whose folders hold a file for each image.
PACKED = ("images", "generate")
#: The earliest time that a ZIP file can name, of every member: times are no content.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_COMMENT = 64  # bytes: a SHA-256 in hexadecimal digits


def archive_of(folder: Path) -> Path:
    """Where a folder's archive lies: beside it."""
    return folder.with_name(f"{folder.name}.zip")


def pack(everything: dict[Key, Job]) -> list[Path]:
    """Write the archive of each folder of these `jobs` that is there and not yet packed as it is; returns those that were written.

    Whether it is packed is told by the record in both, which changes whenever the stage runs.
    """
    written = []
    for job in _packed(everything):
        archive = archive_of(job.folder)
        if job.record.exists() and _packed_record(archive) != sha256_of(job.record):
            _write(archive, job.folder, job.record)
            say(f"packed {job.name}")
            written.append(archive)
    return written


def waits(job: Job) -> bool:
    """Whether the job's folder is absent, or older than an archive of something else, which is to replace it.

    A folder that is newer than its archive was made here since, and stays.
    """
    if job.stage not in PACKED:
        return False
    archive = archive_of(job.folder)
    if not archive.exists():
        return False
    if not job.record.exists():
        return True
    if job.record.stat().st_mtime_ns >= archive.stat().st_mtime_ns:
        return False
    return _packed_record(archive) != sha256_of(job.record)


def read(job: Job, name: str) -> bytes | None:
    """A file of the job's folder, or of the archive that waits to replace it; None where it is not there.

    Raises UserError for an archive that is damaged.
    """
    try:
        if not waits(job):
            path = job.folder / name
            status = path.stat()
            return _read_once(path, status.st_size, status.st_mtime_ns)
        with _opened(archive_of(job.folder)) as packed:
            return packed.read(name)
    except (OSError, KeyError):
        return None


def unpack(everything: dict[Key, Job]) -> list[Path]:
    """Replace each folder for which an archive waits; returns those that were written.

    Raises UserError for an archive that is damaged.
    """
    written = []
    for job in _packed(everything):
        if not waits(job):
            continue
        with _opened(archive_of(job.folder)) as packed, new_folder(job.folder) as folder:
            packed.extractall(folder)
        say(f"unpacked {job.name}")
        written.append(job.folder)
    return written


@functools.lru_cache(maxsize=1000)
def _read_once(path: Path, size: int, time: int) -> bytes:
    """The records of a benchmark refer to each other, so that each is asked for several times."""
    return path.read_bytes()


#: What Python's reader of ZIP files raises for damaged bytes: one changed byte can also ask for a password, for another version of
#: the format, or for a compression that does not exist.
_DAMAGE = (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error)


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(archive) as packed:
            yield packed
    except _DAMAGE as error:
        raise UserError(f"{archive}: is damaged ({error}); `dvc checkout --force {archive}`, or delete it") from None


def _packed(everything: dict[Key, Job]) -> list[Job]:
    return [job for job in everything.values() if job.stage in PACKED]


def _packed_record(archive: Path) -> str | None:
    """SHA-256 of the record in the archive: the archive's comment, which is the end of the file. The list of all members
    would take long to read at each start of the workflow."""
    try:
        with open(archive, "rb") as file:
            file.seek(-_COMMENT, os.SEEK_END)
            return file.read().decode("ascii", "replace")
    except OSError:  # no archive, or shorter than that
        return None


def _write(archive: Path, folder: Path, record: Path) -> None:
    partial = archive.with_name(f".{archive.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as packed:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                member = zipfile.ZipInfo(path.relative_to(folder).as_posix(), _NO_TIME)
                member.create_system = 3  # Unix, on every system
                member.external_attr = 0o644 << 16
                member.file_size = path.stat().st_size
                with open(path, "rb") as source, packed.open(member, "w") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            packed.comment = sha256_of(record).encode()
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)
