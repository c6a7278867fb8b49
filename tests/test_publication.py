"""What the repository shows and hands on: the rule graph, the catalog's entry, containers and a public host's CI."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

#: The configurations whose rules the README's graph shows.
SHOWN = ("config", "three-layouts", "detected")


def rule_graph(repository: Path, folder: Path, configuration: str) -> set[tuple[str, str]]:
    """Edges (rule, rule that reads its results) of a configuration, as Snakemake draws them."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEMAKE_", "POTGAN_"))}
    command = ["snakemake", "--snakefile", repository / "Snakefile", "--directory", folder, "--configfile",
               repository / "config" / f"{configuration}.yaml", "--rulegraph", "dot", "--", "all"]  # fmt: skip
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
