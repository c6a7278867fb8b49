"""The workflow on a Slurm cluster of one node that is started for the test: Debian's packages slurm-wlm and munge, root, and
the executor in build/slurm-plugin (`make build/slurm-plugin`) or in the environment. Elsewhere the test is skipped. Takes
about three minutes, of which one and a half is the shortest time limit that Slurm has.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
import yaml
from test_workflow import TINY, jobs, snakemake_command, snakemake_environment, write

from potgan.settings.layout import Layout

PLUGIN = Path("build") / "slurm-plugin"
SBIN = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
#: The first attempt at a training waits in every iteration, longer than the time limit altogether. How it waits is no
#: matter of the package: Python reads a module of this name when it starts.
SLOW_FIRST_ATTEMPT = """
import sys

if "potgan" in sys.orig_argv and "train" in sys.orig_argv:
    import time
    from pathlib import Path

    from potgan.common import progress

    original = progress.progress

    def slow(items, total, what, *arguments, **named):
        first = not list(Path("results/tiny/synthetic/potgan/seed0/checkpoint").glob("*.pt"))
        for item in original(items, total, what, *arguments, **named):
            time.sleep(5 if first and what.startswith("training") else 0)
            yield item

    progress.progress = slow
"""


def why_not(repository: Path) -> str | None:
    """Why no cluster can be started here, or None."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "srun") if not shutil.which(name, path=SBIN)]
    if missing:
        return f"no {', '.join(missing)} here (Debian: apt-get install slurm-wlm munge)"
    if os.getuid() != 0:
        return "slurmd wants to be started by root"
    if not (repository / PLUGIN).is_dir() and not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        return "no snakemake-executor-plugin-slurm (make build/slurm-plugin, or make slurm)"
    real = [name for name in os.environ if name.startswith("SLURM_")]
    real += [path for path in ("/etc/slurm/slurm.conf", "/etc/slurm-llnl/slurm.conf") if Path(path).exists()]
    # One that is run by hand, or by another run of this test: nodes of two clusters would share the cores.
    real += [p.info["name"] for p in psutil.process_iter(["name"]) if p.info["name"] in ("slurmctld", "slurmd")]
    if real:
        return f"this machine belongs to a Slurm cluster ({real[0]}), which is left alone"
    return None


@pytest.fixture
def cluster(repository, tmp_path):
    """The environment of somebody who works on the cluster."""
    reason = why_not(repository)
    if reason:
        pytest.skip(reason)
    folder = tmp_path / "slurm"
    script = ["bash", str(repository / "tests" / "slurm_cluster.sh")]
    try:
        started = subprocess.run(
            [*script, "start", str(folder)], capture_output=True, text=True, timeout=90, check=False
        )
        assert started.returncode == 0, started.stdout + started.stderr
        yield snakemake_environment() | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{folder / 'bin'}{os.pathsep}{SBIN}",
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PYTHONPATH": os.pathsep.join(map(str, (tmp_path / "slow", repository, repository / PLUGIN))),
        }
    finally:
        subprocess.run([*script, "stop", str(folder)], capture_output=True, timeout=60, check=False)


@pytest.mark.slow
def test_a_training_that_the_time_limit_stops_goes_on_and_the_report_is_written(repository, cluster, tmp_path) -> None:
    root, alone = tmp_path / "root", tmp_path / "alone"
    for folder in (root, alone, tmp_path / "slow", tmp_path / "profile"):
        folder.mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text(SLOW_FIRST_ATTEMPT)
    tree = json.loads(json.dumps(TINY | {"models": {"potgan": None}}))
    tree["training"] |= {"iterations": 36, "decay_from": 18, "save_every": 1}
    write(root, tree)
    # The profile as it is, on a machine with less of everything, no accounting and a limit of one minute.
    profile = yaml.safe_load((repository / "profiles" / "slurm" / "config.yaml").read_text())
    profile["default-resources"] |= {"mem_mb": 500, "slurm_partition": "main"}
    for resources in profile["set-resources"].values():
        resources |= {"mem_mb": 1000}
    for rule in ("generate", "evaluate"):
        profile["set-resources"][rule]["gpu"] = 0  # there is one, and five of these jobs
    profile["set-resources"]["train"]["runtime"] = 1
    profile |= {
        "slurm-no-account": True, "slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 2,
        "seconds-between-status-checks": 3, "latency-wait": 10,
    }  # fmt: skip
    (tmp_path / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))

    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = snakemake_command(repository, root, "--workflow-profile", str(tmp_path / "profile"), *arguments)
        return subprocess.run(command, capture_output=True, text=True, env=cluster, timeout=480, check=False)

    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "reports/tiny/index.html").is_file()
    columns = "--Format=State:30,tres-per-job:30,TimeLimit:30,Comment:200"
    asked = ["squeue", "--noheader", "--states=all", "--sort=i", columns]
    listed = subprocess.run(asked, capture_output=True, text=True, env=cluster, check=True).stdout
    entries = list(map(str.split, listed.splitlines()))
    trainings = [entry[:3] for entry in entries if entry[3].startswith("rule_train_")]
    # Stopped once by the limit, then finished; on a GPU, for a minute at most.
    assert [state for state, *_ in trainings[:1]] == ["TIMEOUT"], listed
    assert trainings[-1][0] == "COMPLETED", listed
    assert all(gpu == "gres:gpu:1" and limit == "1:00" for _, gpu, limit in trainings), listed
    assert {state for state, *_, comment in entries if not comment.startswith("rule_train_")} == {"COMPLETED"}, listed
    assert "continuing from iteration" in (root / "results/tiny/logs/train/synthetic/potgan/seed0.log").read_text()

    # The same training, alone and uninterrupted.
    layout, other = Layout("tiny", root), Layout("tiny", alone)
    for stage in ("images", "keypoints", "pairs"):
        shutil.copytree(getattr(layout, stage)("synthetic"), getattr(other, stage)("synthetic"))
    command = [sys.executable, "-m", "potgan", "train", "--config", str(root / "config.yaml"), "--root", str(alone)]
    command += ["--dataset", "synthetic", "--model", "potgan"]
    run_alone = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run_alone.returncode == 0, run_alone.stderr
    folder, expected = (x.train("synthetic", "potgan", 0) for x in (layout, other))
    records = [json.loads((x / "done.json").read_text()) for x in (folder, expected)]
    for name in ("settings", "training_fingerprint", "data", "iterations", "generators"):
        assert records[0][name] == records[1][name], name
    pd.testing.assert_frame_equal(*(pd.read_csv(x / "progress.csv") for x in (folder, expected)), check_exact=True)
    last = max(records[1]["generators"])
    weights = [torch.load(x / last, weights_only=True)["state"] for x in (folder, expected)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    again = run("--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr, jobs(again.stdout)


def test_the_clusters_profile_holds_what_the_default_profile_holds(repository) -> None:
    """--workflow-profile replaces profiles/default as a whole."""
    default, slurm = (
        yaml.safe_load((repository / "profiles" / name / "config.yaml").read_text()) for name in ("default", "slurm")
    )
    default.pop("resources")  # trainings at a time on this machine's GPU: a cluster's scheduler knows better
    assert default.items() <= slurm.items()


def test_the_executor_is_apart_from_the_environment_and_its_lock_is_what_pyproject_asks_for(repository) -> None:
    import tomllib

    from packaging.requirements import Requirement

    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (wanted,) = map(Requirement, extras["slurm"])
    lock = (repository / "workflow" / "envs" / "slurm" / "requirements.lock").read_text()
    pinned = dict(line.split()[0].split("==") for line in lock.splitlines() if "==" in line)
    assert wanted.specifier.contains(pinned[wanted.name])
    assert lock.count("--hash=sha256:") >= len(pinned)
    everyday = (repository / "requirements.lock").read_text()
    assert not any(f"\n{name}==" in everyday for name in pinned)
