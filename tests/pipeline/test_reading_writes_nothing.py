"""Whoever only looks changes nothing: no file, no time of a file and no folder, but in `.snakemake/` and byte code."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from test_archives import market
from test_workflow import TINY, jobs, potgan, snakemake, snakemake_command, snakemake_environment, write

from potgan.data.images import ImageFolder
from potgan.pipeline import stages
from potgan.pipeline.digests import digest
from potgan.pipeline.jobs import jobs as jobs_of
from potgan.pipeline.packing import archive_of
from potgan.pipeline.records import stale
from potgan.settings.layout import Layout
from potgan.settings.reading import load

MADE_BY_LOOKING = {".snakemake", "__pycache__"}


def snapshot(root: Path) -> dict[str, tuple]:
    """Name -> (kind, size, time, content of small files) of everything below a folder."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        name = path.relative_to(root)
        if MADE_BY_LOOKING & set(name.parts):
            continue
        status = path.lstat()
        # The time of the root itself changes when `.snakemake/` appears in it.
        time = None if path == root else status.st_mtime_ns
        content = path.read_bytes() if path.is_file() and status.st_size < 100_000 else None
        found[str(name)] = (status.st_mode, None if path.is_dir() else status.st_size, time, content)
    return found


def looks(repository: Path, root: Path) -> dict[str, str]:
    """What each command that only looks prints; each is asserted to succeed and to leave the folder as it was."""
    before = snapshot(root)
    said = {}
    for option in ("-n", "--lint", "--rulegraph", "--summary"):
        run = snakemake(repository, root, option)
        assert run.returncode == 0, (option, run.stderr)
        said[option] = run.stdout + run.stderr
        assert snapshot(root) == before, option
    for verb in ("stale", "plan"):
        run = potgan(verb, "--config", root / "config.yaml", "--root", root, cwd=root)
        assert run.returncode == 0, (verb, run.stderr)
        said[verb] = run.stdout
        assert snapshot(root) == before, verb
    return said


def pulled(finished: Path, folder: Path) -> Path:
    """The finished run as `dvc pull` leaves it in a fresh clone: folders of images as archives, and no memory of Snakemake."""
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns(".snakemake", "benchmarks", "logs"))
    assert potgan("pack", "--config", folder / "config.yaml", "--root", folder).returncode == 0
    layout = Layout("tiny", folder)
    packed = [layout.images("synthetic"), *folder.glob("results/tiny/synthetic/*/seed0/generate")]
    assert len(packed) == 1 + len(TINY["models"]) + 4
    for path in packed:
        assert archive_of(path).exists()
        shutil.rmtree(path)
    return folder


def test_where_nothing_is_made_yet(repository, tmp_path) -> None:
    write(tmp_path, TINY)
    said = looks(repository, tmp_path)
    assert jobs(said["-n"])["train"] == 3
    assert said["stale"] == ""


def test_where_results_are_as_they_should_be_or_stale(repository, finished, tmp_path) -> None:
    root = Path(shutil.copytree(finished, tmp_path / "root", symlinks=True))
    said = looks(repository, root)
    assert "Nothing to be done" in said["-n"]
    changed = json.loads(json.dumps(TINY))
    changed["models"]["no-recon"]["training"] = {"learning_rate": 0.002}
    write(root, changed)
    said = looks(repository, root)
    assert "no-recon/seed0/train/done.json\tother settings" in said["stale"]
    planned = jobs(said["-n"])
    assert (planned["train"], planned["generate"], planned["tabulate"]) == (1, 1, 1)


def test_where_results_were_pulled_and_wait_in_archives(repository, finished, tmp_path) -> None:
    """A look counts an archive as its folder. A run unpacks them all before its first job, and only a run does."""
    root = pulled(finished, tmp_path / "root")
    said = looks(repository, root)
    assert "Nothing to be done" in said["-n"]
    assert said["stale"] == ""
    assert " to do" in said["plan"]
    assert {line.split()[2] for line in said["plan"].splitlines() if line.startswith(("images", "generate"))} == {"0"}
    # Another label of the data set changes the page alone.
    changed = json.loads(json.dumps(TINY))
    changed["datasets"]["synthetic"]["label"] = "Rendered people"
    write(root, changed)
    planned = jobs(looks(repository, root)["-n"])
    assert planned == {"all": 1, "tabulate": 1}
    run = snakemake(repository, root)
    assert run.returncode == 0, run.stderr
    assert "unpacked images synthetic" in run.stderr
    for folder in (finished, root):
        names = {p.relative_to(folder) for p in folder.glob("results/tiny/synthetic/**/*.png")}
        assert len(names) > 12 * 8
    assert "Rendered people" in (root / "reports/tiny/index.html").read_text()
    assert "Nothing to be done" in looks(repository, root)["-n"]


def test_where_an_archive_of_another_run_replaces_the_folder(repository, finished, tmp_path) -> None:
    """The record of what was pulled is in the archive: it is judged by what it will be, and not by the folder of before."""
    root = pulled(finished, tmp_path / "root")
    archive = archive_of(Layout("tiny", root).generate("synthetic", "no-recon", 0))
    theirs = archive_of(Layout("tiny", root).generate("synthetic", "potgan", 0))
    shutil.copy(theirs, archive)
    said = looks(repository, root)
    assert "no-recon/seed0/generate/generate.json\tother inputs" in said["stale"]
    assert jobs(said["-n"])["generate"] == 1
    archive.write_bytes(archive.read_bytes()[:5000])
    before = snapshot(root)
    run = snakemake(repository, root, "-n")
    assert run.returncode == 2
    (line,) = [line for line in run.stderr.splitlines() if "error" in line]
    assert "generate.zip: is damaged" in line
    assert snapshot(root) == before


@pytest.mark.parametrize("training", [{"iterations": 0}, {"batch_size": "many"}, {"no_such_key": 1}])
def test_where_the_configuration_is_refused(repository, finished, tmp_path, training) -> None:
    root = pulled(finished, tmp_path / "root")
    write(root, TINY | {"training": TINY["training"] | training})
    before = snapshot(root)
    stale = potgan("stale", "--config", root / "config.yaml", "--root", root)
    for run in (snakemake(repository, root, "-n"), snakemake(repository, root), stale):
        assert run.returncode == 2
        assert "training" in run.stderr
    assert snapshot(root) == before


def test_in_a_fresh_clone_git_sees_no_difference(repository, tmp_path) -> None:
    clone = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (repository / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, clone / name)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *arguments], cwd=clone, check=True)

    def status() -> list[str]:
        command = ["git", "status", "--porcelain", "--ignored", "--untracked-files=all"]
        lines = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True).stdout.splitlines()
        return [line for line in lines if not any(name in line for name in MADE_BY_LOOKING)]

    environment = snakemake_environment(PYTHONPATH=str(clone))
    for command in (["snakemake", "-n"], ["snakemake", "--lint"], ["potgan", "stale"], ["potgan", "plan"]):
        run = subprocess.run(
            [sys.executable, "-m", *command], cwd=clone, capture_output=True, text=True, env=environment, check=False
        )
        assert run.returncode == 0, run.stderr
        assert status() == []


# ---------------------------------------------------------------------------------------------------------------------
# What the user brings is judged by its content


def test_released_results_are_judged_by_content_and_their_row_survives_their_absence(
    repository, finished, tmp_path
) -> None:
    root = Path(shutil.copytree(finished, tmp_path / "root", symlinks=True))
    layout = Layout("tiny", root)
    images = ImageFolder(layout.images("synthetic"))
    made = pd.read_csv(layout.generate("synthetic", "potgan", 0) / "generated.csv", dtype=str)
    released = root / "released"
    released.mkdir()
    for row in made.itertuples():
        result = cv2.imread(str(layout.generate("synthetic", "potgan", 0) / row.file))
        panels = [images.read(row[1])[:, :, ::-1], images.read(row.to)[:, :, ::-1], result]
        cv2.imwrite(str(released / f"{row[1]}___{row.to}_vis.png"), np.hstack(panels))
    external = {"label": "Theirs", "dataset": "synthetic", "images": "released", "layout": "patn"}
    write(root, TINY | {"external_methods": {"theirs": external}})

    def run(*arguments: str) -> str:
        command = snakemake_command(repository, root, "--cores", "2", *arguments)
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, env=snakemake_environment(), check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    run()
    assert "Nothing to be done" in run("-n")
    for path in released.iterdir():
        path.touch()  # a copy, or a checkout: other times, the same images
    assert "Nothing to be done" in run("-n")
    released.rename(root / "elsewhere")
    assert "Nothing to be done" in run("-n")
    (root / "elsewhere").rename(released)
    changed = next(released.iterdir())
    size, times = changed.stat().st_size, changed.stat()
    image = cv2.imread(str(changed))
    cv2.imwrite(str(changed), image[:, ::-1])
    said = run("-n")
    assert "generate synthetic/theirs/seed0 (other inputs (released))" in said
    assert jobs(said) == {"all": 1, "generate": 1, "evaluate": 1, "tabulate": 1}
    assert size != changed.stat().st_size or times.st_mtime_ns != changed.stat().st_mtime_ns


def test_a_source_that_is_a_folder_is_judged_by_content(tmp_path) -> None:
    source = tmp_path / "source"
    with zipfile.ZipFile(market(tmp_path / "m.zip")) as archive:
        archive.extractall(source)
    dataset = {"kind": "market1501", "label": "M", "image_size": [64, 32], "source": str(source), "allow_partial": True}
    tree = TINY | {"datasets": TINY["datasets"] | {"m": dataset}}
    benchmark, layout = load(tree), Layout("tiny", tmp_path / "root")
    stages.images(benchmark, layout, "m")

    def why() -> list[str]:
        return [reason for job, reason, _ in stale(jobs_of(benchmark, layout), layout) if job.key == ("images", "m")]

    assert why() == []
    file = next(source.rglob("0002_c1s1_000451_03.jpg"))
    file.touch()
    assert why() == []
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    assert why() == [f"other inputs ({source})"]
    content[-3] ^= 1
    file.write_bytes(content)
    assert why() == []
    (source / "one more file").write_text("")
    assert why() == [f"other inputs ({source})"]
    shutil.rmtree(source)
    assert why() == []


def test_a_digest_is_of_names_and_content_and_remembered_by_sizes_and_times(tmp_path) -> None:
    folder, memory = tmp_path / "folder", tmp_path / "memory" / "digests.json"
    (folder / "inner").mkdir(parents=True)
    (folder / "a").write_text("1")
    (folder / "inner" / "b").write_text("2")
    first = digest(folder, memory)
    assert digest(tmp_path / "nothing", memory) is None
    assert digest(folder, tmp_path / "a file" / "x") == first
    (tmp_path / "no memory").write_text("")
    assert digest(folder, tmp_path / "no memory" / "x") == first  # where nothing can be remembered
    seen = {first}
    (folder / "inner" / "b").rename(folder / "inner" / "c")
    seen.add(digest(folder, memory))
    (folder / "inner" / "c").write_text("22")
    seen.add(digest(folder, memory))
    seen.add(digest(folder / "a", memory))
    (folder / "nowhere").symlink_to(tmp_path / "nothing")
    assert digest(folder, memory) in seen
    assert len(seen) == 4
    # A remembered digest is taken where no size and no time differs: the content is not read again.
    remembered = json.loads(memory.read_text())
    remembered[str(folder.resolve())]["digest"] = "remembered"
    memory.write_text(json.dumps(remembered))
    assert digest(folder, memory) == "remembered"
    (folder / "a").touch()
    assert digest(folder, memory) != "remembered"
