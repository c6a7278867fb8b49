"""Files and folders appear whole or not at all, and progress in a log consists of lines without carriage returns."""

import os
import subprocess
import sys
import time

import pytest

from potgan.common import files
from potgan.common.errors import UserError
from potgan.common.progress import progress


def test_a_failed_write_keeps_what_was_there(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"a\.txt: cannot be written \(No space left on device\)"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "deep" / "folder"
    with pytest.raises(RuntimeError), files.new_folder(path) as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with files.new_folder(path) as folder:
        (folder / "one").write_text("1")
        assert not path.exists()
    with pytest.raises(RuntimeError), files.new_folder(path) as folder:
        (folder / "two").write_text("2")
        raise RuntimeError
    assert [p.name for p in path.iterdir()] == ["one"]  # a failed second attempt keeps the first result


def test_a_folder_left_by_a_kill_is_not_taken_for_complete(tmp_path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from potgan.common import files\n"
        "with files.new_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_text('x'); print('in', flush=True); time.sleep(60)\n"
    )
    path = tmp_path / "images"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "in\n"
    process.kill()
    process.wait()
    assert not path.exists()
    with files.new_folder(path) as folder:
        assert list(folder.iterdir()) == []
    assert [p.name for p in tmp_path.iterdir()] == ["images"]


def test_progress_in_a_log_is_one_line_per_interval_and_one_at_the_end(capsys) -> None:
    items = []
    for item in progress(iter(range(40)), 40, "work", "items", interval=0.1):
        time.sleep(0.01)
        items.append(item)
    assert items == list(range(40))
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 10
    assert lines[-1].startswith("work: 40/40 items, ")
    assert all("items/s" in line and "left" in line and "\r" not in line for line in lines)


def test_progress_of_a_resumed_stage_counts_from_where_it_was(capsys) -> None:
    assert list(progress([1, 2], 10, "work", "items", initial=8)) == [1, 2]
    assert "work: 10/10" in capsys.readouterr().err


def test_progress_of_parts_counts_their_weight(capsys) -> None:
    assert list(progress(["abc", "de"], 5, "work", "items", interval=0.0, weight=len)) == ["abc", "de"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["work: 3/5 items", "work: 5/5 items"]


def test_processes_that_write_one_file_at_once_do_not_meet(tmp_path) -> None:
    """Jobs that run at the same time write the same entry of the feature cache. None fails, and the file is always whole."""
    code = (
        "import sys; from pathlib import Path; from potgan.common.files import write_bytes\n"
        "for i in range(60): write_bytes(Path(sys.argv[1]), bytes([int(sys.argv[2])]) * 20_000)"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "entry"), str(k)]) for k in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    content = (tmp_path / "entry").read_bytes()
    assert content in {bytes([k]) * 20_000 for k in range(3)}
    assert [p.name for p in tmp_path.iterdir()] == ["entry"]
