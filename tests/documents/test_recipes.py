"""The recipes of docs/architecture.md, each done as it says in a copy of the repository."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_workflow import TINY, jobs

from potgan.settings.protocols import CLEAN

pytestmark = pytest.mark.slow

#: In place of config/config.yaml, so that each recipe takes seconds. Its images have the size of Market-1501's, as the shipped
#: configuration's have.
SMALL = TINY | {
    "benchmark": "embedded",
    "datasets": {
        "synthetic": TINY["datasets"]["synthetic"]
        | {
            "image_size": [128, 64],
            "synthetic": TINY["datasets"]["synthetic"]["synthetic"] | {"height": 128, "width": 64},
        }
    },
    "feature_network": TINY["feature_network"] | {"height": 128, "width": 64},
    "training": TINY["training"] | {"iterations": 3, "checkpoints": 3, "decay_from": 2, "log_every": 1},
    "models": {"potgan": {}, "no-recon": {"loss_weights": {"reconstruction": 0}}},
}


@pytest.fixture
def copy(repository, tmp_path) -> Path:
    """The repository's files, with a small configuration."""
    folder = tmp_path / "copy"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (repository / name).is_file() and not name.startswith("reports/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, folder / name)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    return folder


def recipe(repository: Path, title: str) -> list[tuple[str, dict[str, str], str]]:
    """The fenced blocks of a recipe: language, attributes, content."""
    text = (repository / "docs" / "architecture.md").read_text()
    section = text.split(f"### {title}\n")[1].split("\n### ")[0]
    blocks = re.findall(r"^```(\w+)([^\n]*)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert blocks, title
    return [
        (language, dict(re.findall(r'(\w+)="?((?<=")[^"]*|[^" ]+)', words)), body) for language, words, body in blocks
    ]


def follow(repository: Path, folder: Path, title: str) -> str:
    """Do what a recipe says; returns what its commands printed."""
    said = []
    for language, attributes, body in recipe(repository, title):
        if language == "bash":
            for line in body.splitlines():
                if not re.search(r"\b[A-Z]{4,}\b", line):  # a place for the reader's own files
                    said.append(run(folder, line))
            continue
        path = folder / attributes["file"]
        old = path.read_text() if path.exists() else ""
        if "before" in attributes:
            assert old.count(attributes["before"]) == 1
            new = old.replace(attributes["before"], body + attributes["before"])
        elif "after" in attributes:
            assert old.count(attributes["after"] + "\n") == 1
            new = old.replace(attributes["after"] + "\n", attributes["after"] + "\n" + body)
        elif "replace" in attributes:
            assert old.count(attributes["replace"]) == 1
            new = old.replace(attributes["replace"], body.rstrip("\n"))
        else:
            new = body
            path.parent.mkdir(exist_ok=True)
        path.write_text(new)
    return "\n".join(said)


def run(folder: Path, line: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SNAKEMAKE_", "PYTEST_"))}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}",
        "PYTHONPATH": str(folder),  # the copy's own package, not the one that is installed
    }
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}"
    return done.stdout


def test_add_a_data_set(repository, copy) -> None:
    follow(repository, copy, "Add a data set")
    record = json.loads((copy / "results/mine/mine/pairs/pairs.json").read_text())
    assert record["splits"]["test"]["pairs"] == 12
    assert not (copy / "results/mine/synthetic").exists()  # the overlay has taken it away
    again = run(copy, "snakemake --cores 2 --configfile config/config.yaml config/mine.yaml -- data")
    assert "Nothing to be done" in again


def test_add_an_ablation(repository, copy) -> None:
    said = follow(repository, copy, "Add an ablation")
    assert "Training weak-adversarial, seed 0" in said
    assert jobs(said)["train"] == 3  # nothing was made before


def test_add_a_method(repository, copy) -> None:
    before = run(
        copy, 'python -c \'from potgan.pipeline.code import code_fingerprint as f; print(f("train", "potgan"))\''
    )
    assert [language for language, *_ in recipe(repository, "Add a method")].count("python") == 1  # one file is enough
    said = follow(repository, copy, "Add a method")
    folder = copy / "results/embedded/synthetic/tinted/seed0"
    done = json.loads((folder / "train/done.json").read_text())
    assert done["parameters"] == {"generator": 3}
    scores = json.loads((folder / "evaluate/scores.json").read_text())
    assert 0 < scores["metrics"]["ssim"]["value"] < 1
    assert re.search(r"\d+ passed", said)
    # The trainings of the methods that were there before stay valid.
    after = run(
        copy, 'python -c \'from potgan.pipeline.code import code_fingerprint as f; print(f("train", "potgan"))\''
    )
    assert after == before
    assert "tinted" in run(copy, "potgan estimate --config results/embedded/config.yaml --model tinted --steps 1")


def test_add_a_protocol(repository, copy) -> None:
    said = follow(repository, copy, "Add a protocol")
    assert re.search(r"\d+ passed", said)
    code = (
        "from potgan.settings.protocols import PROTOCOLS; p = PROTOCOLS['narrow']; print(p.metric_id('ssim'), p.hash)"
    )
    name, digest = run(copy, f'python -c "{code}"').split()
    assert name == "ssim-gauss255-narrow-png"
    assert digest != CLEAN.hash
