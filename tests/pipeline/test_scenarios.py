"""Snakemake and DVC together, with the real project on a tiny configuration: how many trainings run in which situation.

Each situation is here with its exact number, from a fresh clone on. What is compared is what a person relies on: nothing that
is right is made again, and nothing stale survives.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_workflow import TINY

pytestmark = pytest.mark.slow

#: The models of config/config.yaml, since dvc.yaml lists their results; three share nothing, one shares a training.
CONFIGURATION = TINY | {
    "benchmark": "embedded",
    "datasets": {
        "synthetic": TINY["datasets"]["synthetic"]
        | {
            "synthetic": TINY["datasets"]["synthetic"]["synthetic"]
            | {"train_identities": 4, "test_identities": 2, "images_per_identity": 4},
            "pairs": {"test_sample": 10, "validation_identities": 1, "validation_sample": 4},
        }
    },
    "training": TINY["training"] | {"iterations": 4, "checkpoints": 2, "decay_from": 2, "log_every": 2},
    "models": {
        "potgan": {},
        "no-pose-transform": {"generator": {"pose_transform": False}},
        "no-recon": {"loss_weights": {"reconstruction": 0}, "training": {"learning_rate": 0.001}},
        "no-guided-filter": {"generator": {"guided_filter": {"mode": "off"}}},
    },
}
RATE = "models.no-recon.training.learning_rate"


def run(folder: Path, *command: str, check: bool = True) -> str:
    """What a command prints, in a copy of the project."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SNAKEMAKE_", "DVC_", "GIT_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        "PYTHONPATH": str(folder),  # the copy's own package, not the one that is installed
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t",
    }  # fmt: skip
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if check:
        assert done.returncode == 0, done.stdout
    return done.stdout


def trained(output: str) -> list[str]:
    """Models whose training was started, in what Snakemake printed."""
    return sorted(re.findall(r"Job \d+: Training (\S+), seed", output))


def snakemake(folder: Path, *arguments: str) -> str:
    return run(folder, "snakemake", "--cores", "2", *arguments, "--", "all")


def weights(folder: Path) -> dict[str, dict[str, str]]:
    """Model -> the hashes of its generators."""
    return {
        path.parent.parent.parent.name: json.loads(path.read_text())["generators"]
        for path in sorted(folder.glob("results/embedded/synthetic/*/seed0/train/done.json"))
    }


def set_rate(folder: Path, rate: float) -> None:
    path = folder / "config" / "config.yaml"
    tree = yaml.safe_load(path.read_text())
    tree["models"]["no-recon"]["training"]["learning_rate"] = rate
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


@pytest.fixture(scope="module")
def base(repository, tmp_path_factory) -> Path:
    """The project with a tiny configuration in a repository of its own, run with `snakemake all`, then `dvc repro`; results
    pushed to a folder remote. Only copied by tests."""
    folder = tmp_path_factory.mktemp("scenarios") / "project"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=repository, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (repository / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, folder / name)
    # Every key that dvc.yaml lists, from the shipped file.
    shipped = yaml.safe_load((repository / "config" / "config.yaml").read_text())
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(shipped | CONFIGURATION, sort_keys=False))
    shutil.rmtree(folder / ".dvc", ignore_errors=True)
    run(folder, "git", "init", "-q")
    run(folder, "dvc", "init", "-q")
    run(folder, "dvc", "remote", "add", "-q", "-d", "store", str(folder.parent / "store"))
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "project")

    first = snakemake(folder)
    assert len(trained(first)) == 3
    made = weights(folder)
    adopted = run(folder, "dvc", "repro")
    assert trained(adopted) == []  # dvc repro takes over what Snakemake has made
    assert weights(folder) == made
    run(folder, "git", "add", "-A")
    run(folder, "git", "commit", "-qm", "results")
    run(folder, "dvc", "push", "-q")
    return folder


@pytest.fixture
def project(base, tmp_path) -> Path:
    """Where the results were made."""
    return Path(shutil.copytree(base, tmp_path / "project", symlinks=True))


@pytest.fixture
def clone(base, tmp_path) -> Path:
    """A colleague's: cloned, results pulled; Snakemake has no memory here, and times of files mean nothing."""
    run(tmp_path, "git", "clone", "-q", str(base), "clone")
    run(tmp_path / "clone", "dvc", "pull", "-q")
    return tmp_path / "clone"


def test_again_nothing_is_done(project) -> None:
    assert "Nothing to be done" in snakemake(project)
    assert "up to date" in run(project, "dvc", "repro")
    assert run(project, sys.executable, "-m", "potgan", "stale") == ""


def test_commands_that_show_results(project) -> None:
    shown = run(project, "dvc", "metrics", "show")
    for model in CONFIGURATION["models"]:
        assert f"metrics/synthetic/{model}.json" in shown
    runs = [f"results/embedded/synthetic/{model}/seed0" for model in ("potgan", "no-recon")]
    assert "SSIM (potgan-synthetic)" in run(project, "potgan", "compare", *runs)
    folder = project / runs[0] / "generate"
    names = sorted(path.name for path in folder.rglob("*"))
    shutil.rmtree(folder)
    run(project, "potgan", "unpack")
    assert sorted(path.name for path in folder.rglob("*")) == names


def test_one_changed_rate_trains_that_model_and_going_back_restores(base, project) -> None:
    set_rate(project, 0.002)
    assert run(project, sys.executable, "-m", "potgan", "stale").splitlines()[0].startswith(
        "results/embedded/synthetic/no-recon/seed0/train/done.json\tother settings"
    )  # fmt: skip
    assert trained(run(project, "dvc", "repro")) == ["no-recon"]
    before, after = weights(base), weights(project)
    assert {model for model in before if before[model] != after[model]} == {"no-recon"}
    assert "Nothing to be done" in snakemake(project)
    # Another revision and back: DVC restores its files, and nothing at all is run. (Snakemake's memory is of the other one.)
    run(project, "git", "add", "-A")
    run(project, "git", "commit", "-qm", "another rate")
    run(project, "git", "checkout", "-q", "HEAD~1")
    run(project, "dvc", "checkout", "-q")
    assert weights(project) == before
    assert "Nothing to be done" in snakemake(project)
    run(project, "git", "checkout", "-q", "-")
    run(project, "dvc", "checkout", "-q")
    assert weights(project) == after
    assert "up to date" in run(project, "dvc", "repro")
    assert "Nothing to be done" in snakemake(project)


def test_results_of_another_revision_under_this_ones_configuration_are_made_again(base, project) -> None:
    """`git checkout` without `dvc checkout`, or a pull of another revision's cache."""
    set_rate(project, 0.002)
    snakemake(project)
    set_rate(project, 0.001)
    assert trained(snakemake(project)) == ["no-recon"]
    assert weights(project) == weights(base)  # bit for bit what it was


def test_a_clone_with_pulled_results_does_nothing(base, clone) -> None:
    assert weights(clone) == weights(base)
    assert "up to date" in run(clone, "dvc", "repro")
    assert "Nothing to be done" in snakemake(clone)


def test_a_clone_with_a_changed_rate_trains_that_model(clone) -> None:
    """The trap: without records DVC would write the new rate beside the old model."""
    set_rate(clone, 0.002)
    assert trained(run(clone, "dvc", "repro")) == ["no-recon"]
    lock = yaml.safe_load((clone / "dvc.lock").read_text())
    rates = lock["stages"]["train"]["params"]["config/config.yaml"]["models"]
    assert rates["no-recon"]["training"]["learning_rate"] == 0.002


def test_the_same_without_dvc_and_after_a_dry_run(clone) -> None:
    set_rate(clone, 0.002)
    assert "no-recon" in snakemake(clone, "--dry-run")
    assert trained(snakemake(clone)) == ["no-recon"]


def test_a_clone_without_results_makes_them_all_and_they_are_equal(base, tmp_path) -> None:
    run(tmp_path, "git", "clone", "-q", str(base), "clone")
    assert len(trained(run(tmp_path / "clone", "dvc", "repro"))) == 3
    assert weights(tmp_path / "clone") == weights(base)


@pytest.mark.parametrize("where", [[], ["--temp"]], ids=["workspace", "temp"])
def test_an_experiment_trains_what_it_changes(project, where: list[str]) -> None:
    output = run(project, "dvc", "exp", "run", "--name", "faster", *where, "-S", f"config/config.yaml:{RATE}=0.004")
    assert trained(output) == ["no-recon"]
    shown = run(project, "dvc", "exp", "show", "--csv", "--no-pager")
    assert "faster" in shown
    assert "0.004" in shown
    difference = run(project, "dvc", "params", "diff", "HEAD", "faster")
    assert f"{RATE}" in difference
    assert "no-recon" in run(project, "dvc", "metrics", "diff", "HEAD", "faster")


def test_a_lost_file_is_noticed(project) -> None:
    """Files that no rule declares: a record names them."""
    seed = project / "results/embedded/synthetic/no-recon/seed0"
    next((seed / "generate" / "images").glob("*.png")).unlink()
    next((seed / "train").glob("generator-*.pt")).unlink()
    assert trained(snakemake(project)) == ["no-recon"]


def test_a_result_that_was_edited_by_hand_is_made_again(base, project) -> None:
    """By its content, whatever its time: Snakemake looks at times first."""
    pairs = project / "results/embedded/synthetic/pairs/pairs-test.csv"
    whole = pairs.read_text()
    pairs.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    os.utime(pairs, (1, 1))  # as old as a file can be
    assert "its files were changed after they were made" in run(project, sys.executable, "-m", "potgan", "stale")
    output = snakemake(project)
    assert pairs.read_text() == whole
    # Snakemake runs what follows again, but a training whose data are what they were is taken over, not repeated.
    assert len(re.findall("was trained with these settings, data and code already, and is taken over", output)) == 3
    assert not re.findall(r"iterations/s", output)
    assert weights(project) == weights(base)
