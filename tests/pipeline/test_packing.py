"""Folders as archives: the same bytes for the same content, and the newer of the two wins."""

import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import pytest
from test_workflow import TINY

from potgan.common.errors import UserError
from potgan.pipeline import packing
from potgan.pipeline.jobs import jobs
from potgan.settings.layout import Layout
from potgan.settings.reading import load


def fill(folder: Path, record: str, content: bytes) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.jpg").write_bytes(content)
    (folder / "inner" / "B.jpg").write_bytes(bytes(range(256)) * 5000)
    (folder / "empty").write_bytes(b"")
    (folder / record).write_text(json.dumps({"of": content.decode()}))


@pytest.fixture
def there(tmp_path):
    """(jobs, the two folders that are there)."""
    benchmark, layout = load(TINY), Layout("tiny", tmp_path)
    folders = [layout.images("synthetic"), layout.generate("synthetic", "no-recon", 0)]
    for folder, record in zip(folders, ("images.json", "generate.json"), strict=True):
        fill(folder, record, b"first")
    return jobs(benchmark, layout), folders


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def age(path: Path, seconds: float) -> None:
    for file in [path, *path.rglob("*")] if path.is_dir() else [path]:
        os.utime(file, (time.time() - seconds,) * 2)


def test_what_is_packed_comes_back_and_only_what_is_there_is_packed(there) -> None:
    everything, folders = there
    assert packing.pack(everything) == [f.with_name(f"{f.name}.zip") for f in folders]
    before = [content(folder) for folder in folders]
    for folder in folders:
        with zipfile.ZipFile(packing.archive_of(folder)) as packed:  # Python's own reader as the second opinion
            assert packed.testzip() is None
            assert {name: packed.read(name) for name in packed.namelist()} == content(folder)
            assert {member.compress_type for member in packed.infolist()} == {zipfile.ZIP_STORED}
        shutil.rmtree(folder)
    assert packing.unpack(everything) == folders
    assert [content(folder) for folder in folders] == before
    assert packing.unpack(everything) == packing.pack(everything) == []


def test_the_same_content_gives_the_same_bytes_whatever_the_times(there) -> None:
    everything, (folder, _) = there
    packing.pack(everything)
    first = packing.archive_of(folder).read_bytes()
    packing.archive_of(folder).unlink()
    fill(folder, "images.json", b"first")
    (folder / "inner" / "a.jpg").chmod(0o600)
    age(folder, 5000)
    packing.pack(everything)
    assert packing.archive_of(folder).read_bytes() == first


def test_a_folder_that_was_made_since_stays_and_is_packed_anew(there) -> None:
    everything, (folder, other) = there
    packing.pack(everything)
    for path in (folder, other):
        age(packing.archive_of(path), 100)
    fill(folder, "images.json", b"second")
    assert packing.unpack(everything) == []
    assert content(folder)["inner/a.jpg"] == b"second"
    assert packing.pack(everything) == [packing.archive_of(folder)]
    shutil.rmtree(folder)
    packing.unpack(everything)
    assert content(folder)["inner/a.jpg"] == b"second"


def test_an_archive_that_was_checked_out_since_replaces_the_folder(there) -> None:
    everything, (folder, _) = there
    packing.pack(everything)
    first = packing.archive_of(folder).read_bytes()
    fill(folder, "images.json", b"second")
    (folder / "left over").write_text("")
    age(folder, 100)
    packing.archive_of(folder).write_bytes(first)  # as `dvc checkout` writes it: now
    assert packing.unpack(everything) == [folder]
    assert content(folder)["inner/a.jpg"] == b"first"
    assert "left over" not in content(folder)


def test_a_damaged_archive_is_refused_and_the_folder_is_as_before(there) -> None:
    everything, (folder, _) = there
    packing.pack(everything)
    archive = packing.archive_of(folder)
    whole = archive.read_bytes()
    spoilt = whole.replace(b"first", b"worst", 1)
    assert spoilt != whole
    # One byte of the list of members: a compression that does not exist, and a member that asks for a password.
    entry = whole.index(b"PK\x01\x02")
    unknown, locked = (bytearray(whole) for _ in range(2))
    unknown[entry + 10], locked[entry + 8] = 99, 1
    for damaged in (whole[: len(whole) // 2], spoilt, b"", bytes(unknown), bytes(locked)):
        age(folder, 100)
        fill(folder, "images.json", b"second")
        age(folder, 100)
        archive.write_bytes(damaged)
        with pytest.raises(UserError, match=r"images\.zip: is damaged .*dvc checkout"):
            packing.unpack(everything)
        assert content(folder)["inner/a.jpg"] == b"second"
        assert not [p for p in folder.parent.iterdir() if p.name.startswith(".")]
