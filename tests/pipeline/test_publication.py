"""What the repository shows and hands on: the rule graph, the catalog's entry, containers and a public host's CI."""

import fnmatch
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from test_workflow import TINY, jobs

#: The configurations whose rules the README's graph shows.
SHOWN = ("config", "three-layouts", "detected", "config methods")


def rule_graph(repository: Path, folder: Path, configuration: str) -> set[tuple[str, str]]:
    """Edges (rule, rule that reads its results) of a configuration, as Snakemake draws them. Its files are apart by spaces."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEMAKE_", "POTGAN_"))}
    files = [repository / "config" / f"{name}.yaml" for name in configuration.split()]
    command = ["snakemake", "--snakefile", repository / "Snakefile", "--directory", folder, "--configfile", *files,
               "--rulegraph", "dot", "--", "all"]  # fmt: skip
    drawn = subprocess.run(
        [sys.executable, "-m", *map(str, command)], capture_output=True, text=True, env=environment, check=True
    ).stdout
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', drawn))
    return {(names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", drawn)}


def test_graph_of_the_readme_is_the_one_that_snakemake_draws(repository, tmp_path) -> None:
    (block,) = re.findall(r"```mermaid\n(.*?)```", (repository / "README.md").read_text(), re.DOTALL)
    shown = set(re.findall(r"^ +(\w+) (?:-->|-\.->) (\w+)$", block, re.MULTILINE))
    embedded = rule_graph(repository, tmp_path / "config", "config")
    assert shown == embedded.union(*(rule_graph(repository, tmp_path / name, name) for name in SHOWN[1:]))
    # What only some configurations have is dotted.
    assert set(re.findall(r"^ +(\w+) --> (\w+)$", block, re.MULTILINE)) == embedded


def test_workflow_catalog_finds_what_it_looks_for(repository) -> None:
    """The rules of its generator, and of its standardised usage."""
    readme = (repository / "README.md").read_text().lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    assert (repository / "workflow/Snakefile").is_file()
    assert list((repository / "workflow/rules").glob("*.smk"))
    assert "configuration" in (repository / "config/README.md").read_text().lower()
    usage = yaml.safe_load((repository / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    deployment = usage["software-stack-deployment"]
    assert set(deployment) == {"conda", "apptainer", "apptainer+conda", "report"}
    assert deployment["report"] is any(
        "report(" in path.read_text() for path in repository.glob("workflow/rules/*.smk")
    )


@pytest.mark.parametrize(
    "command", [["snakemake", "--lint"], ["snakefmt", "--check", "workflow/Snakefile", "workflow/rules"]]
)
def test_catalogs_linters_are_content(repository, command) -> None:
    pytest.importorskip(command[0], reason=f"{command[0]} is not installed")
    done = subprocess.run([sys.executable, "-m", *command], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# -- containers -------------------------------------------------------------------------------------------------------


def targets(repository: Path) -> set[str]:
    return set(re.findall(r"^([a-z]+):", (repository / "Makefile").read_text(), re.MULTILINE))


def dockerfile(repository: Path) -> dict[str, list[str]]:
    """Instruction -> its arguments, in order."""
    text = re.sub(r"^#.*\n", "", (repository / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        found.setdefault(word, []).append(" ".join(rest.split()))
    return found


def definition(repository: Path) -> dict[str, list[str]]:
    """Section of potgan.def -> its lines; "" is the head."""
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in (repository / "potgan.def").read_text().splitlines():
        if line.startswith("%"):
            name = line[1:].strip()
            sections[name] = []
        elif line.strip() and not line.startswith("#"):
            sections[name].append(line.strip())
    return sections


def test_both_containers_are_built_alike_from_the_lock(repository) -> None:
    docker, apptainer = dockerfile(repository), definition(repository)
    assert [f"From: {base}" for base in docker["FROM"]] == apptainer[""][1:]
    (python,) = re.findall(r"python:(3\.\d+)-slim", docker["FROM"][0])
    requires = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["requires-python"]
    low, high = (int(minor) for minor in re.findall(r"3\.(\d+)", requires))
    assert low <= int(python.split(".")[1]) < high
    run = [part.strip() for line in docker["RUN"] for part in line.split("&&")]
    for command in run:
        if not command.startswith(("useradd", "install ")):  # Apptainer runs as the user who calls it
            assert command in apptainer["post"], command
    assert "cd /opt/potgan" in apptainer["post"]
    assert docker["WORKDIR"][0] == "/opt/potgan"
    # Both call the Makefile, and nothing else installs packages of Python.
    called = [re.search(r"\bmake (\w+)", line) for line in [*run, *apptainer["post"]]]
    assert [match[1] for match in called if match] == ["setup", "setup"]
    assert "setup" in targets(repository)
    assert not [line for line in [*run, *apptainer["post"]] if re.search(r"\b(pip|uv|conda) ", line)]
    assert "requirements.lock" in (repository / "Makefile").read_text().split("$(READY): ")[-1].splitlines()[0]


def test_both_containers_hold_the_same_files_and_all_that_the_workflow_reads(repository) -> None:
    copied = {}
    for line in dockerfile(repository)["COPY"]:
        *sources, target = line.split()
        for source in sources:
            name = source if (repository / source).is_dir() else f"{target.rstrip('/')}/{Path(source).name}"
            copied[source] = f"/opt/potgan/{name}".replace("/./", "/")
            if (repository / source).is_dir():
                assert target.rstrip("/") == source  # Docker copies what is in the folder, not the folder
    packed = {}
    for line in definition(repository)["files"]:
        source, target = line.split()
        packed[source] = f"{target.rstrip('/')}/{Path(source).name}"  # Apptainer copies the folder itself
    assert packed == copied
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout")
    needed = [name for name in filter(None, listed.stdout.split("\0"))
              if name.startswith(("potgan/", "workflow/", "config/", "benchmarks/", "profiles/"))
              or name in ("Makefile", "Snakefile", "pyproject.toml", "requirements.lock", "README.md", "LICENSE")]  # fmt: skip
    for name in needed:
        assert any(fnmatch.fnmatch(name, source) or name.startswith(f"{source}/") for source in copied), name
    for source in copied:
        assert list(repository.glob(source)), source


def test_docker_container_has_an_ordinary_user_and_both_start_the_same_command(repository) -> None:
    docker, apptainer = dockerfile(repository), definition(repository)
    assert docker["USER"] == ["potgan"]
    (entry,) = yaml.safe_load(docker["ENTRYPOINT"][0])
    script = repository / Path(entry).relative_to(docker["WORKDIR"][0])
    assert os.access(script, os.X_OK)
    run = apptainer["runscript"]
    assert f'exec {entry} "$@"' in run
    assert f"set -- {shlex.join(yaml.safe_load(docker['CMD'][0]))}" in run
    ignored = (repository / ".dockerignore").read_text().splitlines()
    assert {"**/.venv", ".git", "results", "data"} <= set(ignored)


def in_container(
    repository: Path, folder: Path, *arguments: str, home: str | None = None
) -> subprocess.CompletedProcess:
    """The containers' entry, outside of one: the environment of this test stands for the image's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEMAKE_", "POTGAN_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment |= {"PYTHONPATH": str(repository)} | ({"HOME": home} if home else {})
    command = ["bash", str(repository / "workflow/container.sh"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)


def test_container_runs_the_embedded_benchmark_in_the_folder_of_the_call(repository, tmp_path) -> None:
    plan = in_container(repository, tmp_path, "--cores", "1", "--dry-run", "--", "all", home="/nowhere")
    assert plan.returncode == 0, plan.stderr
    assert jobs(plan.stdout)["train"] == 3
    assert "results/embedded/" in plan.stdout
    assert {path.name for path in tmp_path.iterdir()} <= {".snakemake", "results"}


def test_container_takes_the_folders_own_configuration_or_the_one_that_is_named(repository, tmp_path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text(yaml.safe_dump(TINY))
    plan = in_container(repository, tmp_path, "--cores", "1", "--dry-run", "--", "all")
    assert jobs(plan.stdout)["train"] == 3, plan.stderr
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(TINY | {"benchmark": "other", "models": {"potgan": None}}))
    plan = in_container(repository, tmp_path, "--configfile", "other.yaml", "--cores", "1", "--dry-run", "--", "all")
    assert jobs(plan.stdout)["train"] == 1, plan.stderr
    assert "results/other/" in plan.stdout


def test_container_has_the_other_commands(repository, tmp_path) -> None:
    if shutil.which("potgan", path=str(Path(sys.executable).parent)) is None:
        pytest.skip("the package is not installed beside this Python")
    said = in_container(repository, tmp_path, "potgan", "verify", "market1501", "--source", "absent")
    assert said.returncode != 0
    assert "absent" in said.stdout + said.stderr
    assert "usage: snakemake" not in said.stdout


# -- a public host ----------------------------------------------------------------------------------------------------


def test_public_ci_runs_the_projects_own_commands_under_every_python(repository) -> None:
    tree = yaml.safe_load((repository / ".github/workflows/ci.yml").read_text())
    steps = {job: [step["run"] for step in entry["steps"] if "run" in step] for job, entry in tree["jobs"].items()}
    assert steps["everything"] == [".ci/run"]
    assert os.access(repository / ".ci/run", os.X_OK)
    assert tree["permissions"] == {"contents": "read"}
    assert set(tree[True]) == {"push", "pull_request", "workflow_dispatch"}  # `on` is a truth value of YAML 1.1
    requires = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["requires-python"]
    low, high = (int(minor) for minor in re.findall(r"3\.(\d+)", requires))
    versions = tree["jobs"]["test"]["strategy"]["matrix"]["python-version"]
    assert versions == [f"3.{minor}" for minor in range(low, high)]  # as texts: 3.10 would be the number 3.1
    assert steps["test"] == ["make test PYTHON=python"]
    assert "PYTHON ?=" in (repository / "Makefile").read_text()
    for commands in steps.values():
        assert {match[1] for command in commands if (match := re.match(r"make (\w+)", command))} <= targets(repository)
    assert all("timeout-minutes" in job for job in tree["jobs"].values())
