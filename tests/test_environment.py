"""One source of what is needed: pyproject.toml, its lock, environment.yml, the stages' files and the rooms of the house."""

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

#: Rows of the house, bottom first: a module imports only from rows above it in this list (DESIGN 3).
ROWS = [
    {"errors", "openpifpaf_worker"},
    {"files", "progress", "metrics.protocols", "precision"},
    {"download"},
    {"config"},
    {"pose", "provenance", "pretrained", "devices"},
    {"records"},
    {"pose_files", "packing"},
    {"rendering", "synthetic", "pairs", "detection", "dvc_stages"},
    {"archives", "imitations"},
    {"acquisition"},
    {"image_folder"},
    {"verification", "keypoints", "batches"},
    {"models.blocks", "models.tps", "models.guided_filter"},
    {"models.potgan", "models.discriminator", "losses"},
    {"metrics.ssim", "metrics.inception", "result_folders"},
    {"metrics.synthetic_network"},
    {"adversarial_step", "training_log", "training_state"},
    {"generator_files"},
    {"train", "generate", "evaluate", "trained_runs"},
    {"transfer"},
    {"scoring", "estimate", "plan"},
    {"tables", "datasheet", "machine"},
    {"compare", "figures"},
    {"browser", "sensitivity"},
    {"report"},
    {"stages"},
    {"__main__"},
]
#: An import inside a function that looks upward, with its reason.
EXCEPTIONS = {
    ("precision", "config"),  # the type of an argument
    ("metrics.protocols", "config"),  # the hash function, when a hash is asked for
}
#: Modules whose import must not bring torch, so that parsing the workflow and preparing data stay quick.
WITHOUT_TORCH = [
    "config",
    "pose",
    "pose_files",
    "pairs",
    "archives",
    "acquisition",
    "image_folder",
    "verification",
    "detection",
    "keypoints",
    "synthetic",
    "rendering",
    "provenance",
    "dvc_stages",
    "stages",
]


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "potgan":
            inner = node.module.removeprefix("potgan").lstrip(".")
            found |= {inner} if inner and inner not in ("models", "metrics") else set()
            if not inner or inner in ("models", "metrics"):
                found |= {f"{inner}.{a.name}".lstrip(".") for a in node.names}
    return found


def test_a_module_imports_only_from_rows_above_it(repository) -> None:
    row_of = {module: i for i, row in enumerate(ROWS) for module in row}
    package = repository / "potgan"
    modules = {
        str(p.relative_to(package).with_suffix("")).replace("/", "."): p
        for p in package.rglob("*.py")
        if p.name != "__init__.py"
    }
    assert set(modules) == set(row_of), "the list of rows and the package differ"
    for module, path in modules.items():
        for imported in imports_of(path) & set(row_of):
            assert row_of[imported] < row_of[module] or (module, imported) in EXCEPTIONS, f"{module} imports {imported}"


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


def test_readme_names_every_module(repository) -> None:
    text = (repository / "README.md").read_text()
    for path in sorted((repository / "potgan").glob("*.py")):
        if path.name != "__init__.py":
            assert f"`{path.name}`" in text, f"the module map of README.md lacks {path.name}"


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
        "import potgan.train, potgan.generate, potgan.evaluate, potgan.stages, potgan.transfer"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
