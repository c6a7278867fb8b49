"""Kills of a training under the real Snakemake: what goes on by itself, what the next run does, and that nothing is lost.

After each event the weights of every kept generator
are, bit for bit, those of a run that nobody killed. Kills of the trainer alone are in test_loop.py.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from test_workflow import TINY, snakemake, snakemake_command, snakemake_environment, write

pytestmark = pytest.mark.slow

RUN = "results/tiny/synthetic/potgan/seed0"
TARGET = f"{RUN}/train/done.json"
CONFIGURATION = TINY | {
    "models": {"potgan": None},
    "training": TINY["training"] | {"iterations": 40, "decay_from": 20, "save_every": 2, "checkpoints": 4},
}
#: So that a kill finds the training in the middle: Python reads a module of this name when it starts.
SLOW = """
import sys

if "potgan" in sys.orig_argv and "train" in sys.orig_argv:
    import time
    from potgan.methods.potgan import method

    original = method.rate_factor

    def slow(*arguments):
        time.sleep(0.1)
        return original(*arguments)

    method.rate_factor = slow
"""


@pytest.fixture(scope="module")
def base(repository, tmp_path_factory) -> Path:
    """Data of the tiny benchmark, and (in `whole`) a training that nobody killed."""
    folder = tmp_path_factory.mktemp("kills") / "base"
    folder.mkdir()
    write(folder, CONFIGURATION)
    made = snakemake(repository, folder, target="data")
    assert made.returncode == 0, made.stderr
    whole = Path(shutil.copytree(folder, folder.parent / "whole"))
    made = snakemake(repository, whole, target=TARGET)
    assert made.returncode == 0, made.stderr
    (folder.parent / "slow").mkdir()
    (folder.parent / "slow" / "sitecustomize.py").write_text(SLOW)
    return folder


@pytest.fixture
def folder(base, tmp_path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "here"))


class Running:
    """Snakemake at work on the training, in a session of its own."""

    def __init__(self, repository: Path, base: Path, folder: Path, background: bool) -> None:
        self.folder = folder
        path = os.pathsep.join(map(str, (base.parent / "slow", repository)))
        self.log = open(folder / "run.log", "a+")  # noqa: SIM115  closed by close()
        self.process = subprocess.Popen(
            snakemake_command(repository, folder, "--cores", "2", target=TARGET),
            stdout=self.log, stderr=self.log, env=snakemake_environment(PYTHONPATH=path), start_new_session=True,
            preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if background else None,
        )  # fmt: skip

    def trainer(self) -> psutil.Process:
        """The training process, once it has saved a state that the one before it had not."""
        before = self.state()
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            found = [
                process
                for process in psutil.process_iter(["name", "cmdline", "cwd"])
                if "train" in (process.info["cmdline"] or []) and process.info["cwd"] == str(self.folder)
                and process.info["name"].startswith("python")
            ]  # fmt: skip
            if found and self.state() != before:
                return found[0]
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)
        raise AssertionError(f"no training after two minutes: {self.said()}")

    def state(self) -> list[tuple[str, int]]:
        return [(path.name, path.stat().st_mtime_ns) for path in self.folder.glob(f"{RUN}/checkpoint/*.pt")]

    def said(self) -> str:
        self.log.seek(0)
        return self.log.read()

    def close(self) -> None:
        self.log.close()
        for process in psutil.process_iter(["cwd"]):
            if process.info["cwd"] == str(self.folder):
                process.kill()


@pytest.fixture
def running(repository, base, folder, request):
    """The parameter says whether it is started as in the background of a shell, with SIGINT ignored."""
    started = Running(repository, base, folder, getattr(request, "param", False))
    yield started
    started.close()


def generators(folder: Path) -> dict:
    return json.loads((folder / TARGET).read_text())["generators"]


def finish_and_compare(repository: Path, base: Path, folder: Path) -> str:
    """The same command again; what it said."""
    done = snakemake(repository, folder, target=TARGET)
    assert done.returncode == 0, done.stdout + done.stderr
    assert generators(folder) == generators(base.parent / "whole")
    progress = f"{RUN}/train/progress.csv"
    assert (folder / progress).read_bytes() == (base.parent / "whole" / progress).read_bytes()
    return done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_the_trainer_is_killed_and_the_same_snakemake_starts_it_again(base, running, folder, number) -> None:
    running.trainer().send_signal(number)
    assert running.process.wait(120) == 0, running.said()
    assert "continuing from iteration" in running.said()
    assert generators(folder) == generators(base.parent / "whole")


@pytest.mark.parametrize(
    ("running", "number"),
    [(False, signal.SIGTERM), (False, signal.SIGINT), (True, signal.SIGTERM)],
    ids=["SIGTERM", "Ctrl-C", "SIGTERM in the background"],
    indirect=["running"],
)
def test_all_are_told_to_stop_and_the_next_run_goes_on(repository, base, running, folder, number) -> None:
    running.trainer()
    os.killpg(running.process.pid, number)
    assert running.process.wait(120) != 0
    assert not (folder / TARGET).exists()
    assert "continuing from iteration" in finish_and_compare(repository, base, folder)


def test_all_are_killed_and_after_unlock_the_next_run_goes_on(repository, base, running, folder) -> None:
    """A power cut."""
    running.trainer()
    os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait(60)
    refused = snakemake(repository, folder, target=TARGET)
    assert refused.returncode != 0
    assert "--unlock" in refused.stdout + refused.stderr
    assert snakemake(repository, folder, "--unlock", target=TARGET).returncode == 0
    assert "continuing from iteration" in finish_and_compare(repository, base, folder)


def test_snakemake_alone_is_killed_and_what_the_orphan_trains_is_taken_over(repository, base, running, folder) -> None:
    trainer = running.trainer()
    running.process.kill()
    running.process.wait(60)
    assert trainer.is_running()
    snakemake(repository, folder, "--unlock", target=TARGET)
    meanwhile = snakemake(repository, folder, "--retries", "0", target=TARGET)
    if meanwhile.returncode:  # else the orphan was quicker
        assert "another process is training here; wait for it or stop it" in meanwhile.stdout + meanwhile.stderr
    trainer.wait(120)
    said = finish_and_compare(repository, base, folder)
    assert "continuing from iteration" not in said  # nothing was trained twice
    assert "taken over" in said or "Nothing to be done" in said


def test_a_second_snakemake_is_refused_and_the_first_goes_on(repository, base, running, folder) -> None:
    running.trainer()
    second = snakemake(repository, folder, target=TARGET)
    assert second.returncode != 0
    assert "cannot be locked" in second.stdout + second.stderr
    assert running.process.wait(120) == 0, running.said()
    assert generators(folder) == generators(base.parent / "whole")
