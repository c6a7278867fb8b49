"""What people do to a workflow at night: each ends in one clear line, and loses nothing.

A second `snakemake` at the same time is in test_kills.py; a lost intermediate file, a result edited by hand and the results of
another revision are in test_scenarios.py; a full disk under a training is in test_loop.py; wrong settings are in
test_workflow.py and test_reading.py.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from test_workflow import TINY, potgan, snakemake, write


def tree_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "results").rglob("*"))
        if path.is_file() and "logs" not in path.parts and "decided" not in path.parts
    }


@pytest.fixture(scope="module")
def with_data(repository, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write(folder, TINY)
    assert snakemake(repository, folder, target="data").returncode == 0
    return folder


@pytest.fixture
def folder(with_data, tmp_path) -> Path:
    return Path(shutil.copytree(with_data, tmp_path / "here"))


@pytest.fixture
def mount():
    """mount(arguments..., folder): skips where it may not; undone at the end."""
    done = []

    def mounted(*arguments: str) -> None:
        if subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here (not root)")
        done.append(arguments[-1])

    yield mounted
    for place in reversed(done):
        subprocess.run(["umount", "-l", place], check=False, capture_output=True)


def test_a_read_only_results_folder(repository, folder, mount) -> None:
    before = tree_of(folder)
    results = str(folder / "results")
    mount("--bind", results, results)
    mount("-o", "remount,ro,bind", results)
    run = snakemake(repository, folder)
    assert run.returncode == 2
    (line,) = [line for line in run.stderr.splitlines() if "error" in line]
    assert "cannot be written (Read-only file system)" in line
    assert "Traceback" not in run.stderr
    subprocess.run(["umount", "-l", results], check=True)
    assert tree_of(folder) == before
    assert "Nothing to be done" in snakemake(repository, folder, target="data").stderr


def test_a_full_disk_in_the_middle_of_a_stage(repository, with_data, tmp_path, mount) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk))  # the images of the tiny benchmark need more
    write(disk, TINY)
    run = snakemake(repository, disk, target="data")
    assert run.returncode != 0
    assert "cannot be written (No space left on device)" in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
    assert not (disk / "results/tiny/synthetic/images").exists()  # nothing half-written stays
    mount("-o", "remount,size=40m", str(disk))
    again = snakemake(repository, disk, target="data")
    assert again.returncode == 0, again.stderr
    assert tree_of(disk)["results/tiny/synthetic/pairs/pairs-train.csv"] == (
        with_data / "results/tiny/synthetic/pairs/pairs-train.csv"
    ).read_bytes()  # fmt: skip


def test_a_half_edited_configuration(repository, folder) -> None:
    """Saved in the middle of a word: nothing runs, and the results of before are still valid when it is whole again."""
    before = tree_of(folder)
    whole = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(whole[: whole.index("training:")] + "training: {iterations: ")
    run = snakemake(repository, folder)
    assert run.returncode != 0
    assert "not valid JSON or YAML" in run.stderr
    told = potgan("configure", "--config", folder / "config.yaml", cwd=folder)
    assert told.returncode == 2
    assert "is not YAML" in told.stderr
    assert "line" in told.stderr  # and says where
    assert len(told.stderr.splitlines()) == 1
    # Whole sentences, but not what was meant: a section is gone.
    (folder / "config.yaml").write_text(whole[: whole.index("models:")])
    run = snakemake(repository, folder)
    assert run.returncode == 2
    assert "models" in run.stderr
    assert tree_of(folder) == before
    (folder / "config.yaml").write_text(whole)
    assert "Nothing to be done" in snakemake(repository, folder, target="data").stderr


def test_a_deleted_intermediate_file_is_made_again_and_equal(repository, folder) -> None:
    lost = folder / "results/tiny/synthetic/keypoints/keypoints.csv"
    content = lost.read_bytes()
    lost.unlink()
    done = snakemake(repository, folder, target="data")
    assert done.returncode == 0
    assert lost.read_bytes() == content


def test_an_output_of_a_stage_that_is_no_file_of_ours_is_not_followed(folder) -> None:
    """A link where results should be, to a place that is gone (a disk that is not mounted)."""
    results = folder / "results"
    shutil.move(results, folder / "elsewhere")
    results.symlink_to(folder / "not-mounted")
    told = potgan("pairs", "--config", folder / "config.yaml", "--root", folder, "--dataset", "synthetic")
    assert told.returncode == 2
    assert len(told.stderr.splitlines()) == 1
    assert not (folder / "not-mounted").exists()
