"""One source of what is needed: pyproject.toml, its lock, environment.yml, and what may be imported where."""

import re
import subprocess
import tomllib

import pytest
import yaml

#: Modules whose import must not bring torch, so that parsing the workflow and preparing data stay quick.
WITHOUT_TORCH = [
    *("common.paths", "common.files", "common.progress", "settings.schema", "settings.reading", "settings.layout"),
    *(
        "data.pose",
        "data.keypoint_files",
        "data.pose_rendering",
        "data.sources.archives",
        "data.sources.acquisition",
        "data.sources.verification",
        "data.sources.published",
    ),
    *("data.pixels", "data.images", "data.keypoints", "data.detection", "data.pairs", "data.synthetic.people"),
    *("pipeline.jobs", "pipeline.code", "pipeline.dvc", "pipeline.stages", "cli"),
]


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_the_data_side_imports_no_torch(module: str) -> None:
    import sys

    code = f"import sys, potgan.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[=<>!~;\[ ]", r, maxsplit=1)[0].lower().replace("_", "-") for r in requirements}


def test_lock_holds_what_pyproject_asks_for_with_hashes_and_no_addresses(repository) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lock = (repository / "requirements.lock").read_text()
    pinned = set(re.findall(r"^([a-z0-9._-]+)==", lock, re.MULTILINE))
    wanted = names(project["dependencies"] + project["optional-dependencies"]["test"])
    assert wanted <= {p.replace("_", "-") for p in pinned}
    entries = re.split(r"\n(?=[a-z0-9])", lock)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock  # no registry's address is written into the repository


def test_exact_pins_of_pyproject_are_the_locks(repository) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lock = (repository / "requirements.lock").read_text()
    for requirement in project["dependencies"]:
        if "==" in requirement:
            assert f"\n{requirement.split(' ')[0]} " in lock


def test_environment_yml_installs_the_lock_under_a_python_that_pyproject_allows(repository) -> None:
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python="))
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    low, high = re.findall(r"3\.(\d+)", project["requires-python"])
    assert int(low) <= int(python.split(".")[1]) < int(high)
    # The lock has hashes, and pip refuses a package without one beside it (`-e .` goes in a command of its own).
    assert environment["dependencies"][-1] == {"pip": ["-r requirements.lock"]}


def test_lock_is_what_pyproject_compiles_to(repository, tmp_path) -> None:
    """Offline part: the lock's own constraints satisfy pyproject. (The full compile needs an index: `make lock`.)"""
    from packaging.requirements import Requirement

    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    lock = (repository / "requirements.lock").read_text()
    pins: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", lock, re.MULTILINE):
        pins.setdefault(name, []).append(version)
    for text in project["dependencies"] + project["optional-dependencies"]["test"]:
        requirement = Requirement(text)
        for version in pins[requirement.name.lower().replace("_", "-")]:
            assert requirement.specifier.contains(version), f"{text}: the lock has {version}"


def test_no_absolute_path_of_a_machine_is_committed(repository) -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=False)
    for name in filter(None, listed.stdout.split("\0")):
        path = repository / name
        if path.suffix in {".py", ".md", ".yaml", ".yml", ".smk", ".toml", ".sh", ".lock", ".html", ".css"}:
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"(?<![\w.])/(work|home|root)/", text.replace("/(work|home|root)/", "")), name


def test_the_core_runs_on_a_bare_gpu_machine() -> None:
    """With torch, numpy, OpenCV, pandas, PyYAML and tqdm: training, generation, evaluation and transfer import."""
    import sys

    absent = ["PIL", "accelerate", "dvc", "gdown", "jinja2", "matplotlib", "pytorch_fid", "scipy", "skimage", "snakemake",
              "tenacity", "tensorboard", "torchvision", "uv"]  # fmt: skip
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "import potgan.training.loop, potgan.measure.generate, potgan.measure.evaluate\n"
        "import potgan.pipeline.stages, potgan.apply.transfer"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
