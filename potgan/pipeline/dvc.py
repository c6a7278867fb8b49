"""`dvc.yaml`, written from a configuration: which results, settings and code each of the four DVC stages has.

Snakemake owns the graph; a DVC stage is one phase of it, and its lists follow from the configuration's data sets, models
and seeds. Writing them by hand is how they come apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from potgan.common.errors import UserError
from potgan.common.files import write_text
from potgan.pipeline.jobs import OUTPUTS, jobs
from potgan.pipeline.packing import PACKED, archive_of
from potgan.settings.layout import Layout
from potgan.settings.reading import layers, load
from potgan.settings.schema import Benchmark

#: Sections of a configuration that data, trainings and scores depend on. A stage has those of the stages before it, too: DVC
#: runs a stage for what changed in its own lists, and a setting (the guided filter's, at test time) may change no training.
_DATA = ("benchmark", "datasets")
_TRAINING = (
    *_DATA,
    "seeds",
    "generator",
    "discriminator",
    "loss_weights",
    "masks",
    "training",
    "models",
    "feature_network",
)
_SCORES = (*_TRAINING, "protocol", "external_methods")
#: Stage -> (Snakemake target, rule file, sections).
PHASES = {
    "data": ("data", "data.smk", _DATA),
    "train": ("models", "train.smk", _TRAINING),
    "evaluate": ("scores", "evaluate.smk", _SCORES),
    "report": ("all", "report.smk", (*_SCORES, "description", "differences_from_paper")),
}
HEADER = """\
# `dvc repro` runs the embedded benchmark: one stage per phase, each a Snakemake target (Snakemake owns the graph, DVC
# versions results and shows metrics, parameters and plots). Outputs persist: DVC's default would delete them, and with
# them days of training, before asking Snakemake whether anything needs to run. Folders with a file for each image are
# versioned as one archive each (potgan/pipeline/packing.py); the workflow unpacks them.
# Written by `potgan dvc-stages` from {configuration}; a test keeps the two in step.
"""


class _Persisted(dict):
    """{path: {persist: true}}, on one line."""


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        return super().increase_indent(flow, False)


def _represent_persisted(dumper: yaml.SafeDumper, entry: _Persisted) -> yaml.Node:
    (path,) = entry
    inner = dumper.represent_mapping("tag:yaml.org,2002:map", {"persist": True}, flow_style=True)
    key = dumper.represent_data(path)
    return yaml.MappingNode("tag:yaml.org,2002:map", [(key, inner)], flow_style=False)


_Dumper.add_representer(_Persisted, _represent_persisted)


def stages(benchmark: Benchmark, settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The tree of `dvc.yaml`. Over-broad lists cost nothing: Snakemake answers in a second that nothing is to be done.

    settings: path from the repository's root, as DVC writes it into `dvc.lock` -> content, of the configuration file and of those
    that it is laid over. DVC stops at a parameter that is not in the file, so only the sections of each are listed.
    """
    layout = Layout(benchmark.benchmark)
    made = jobs(benchmark, layout).values()
    folders = {stage: [job.folder.as_posix() for job in made if job.stage == stage] for stage in OUTPUTS}

    def outs(*names: str) -> list[str]:
        found = [job for job in made if job.stage in names]
        return [(archive_of(job.folder) if job.stage in PACKED else job.folder).as_posix() for job in found]

    data = outs("published", "images", "keypoints", "masks", "pairs", "parsing")
    trained = folders["feature_network"] + folders["train"]
    scored = outs("generate", "evaluate")
    reports = layout.reports.as_posix()
    pages = [f"{reports}/{name}" for name in ("index.html", "metrics.json", "tables", "figures", "pairs")]
    # stage -> (what it reads of the stages before, its outputs)
    files = {
        "data": ([], data),
        "train": (data, trained),
        "evaluate": (data + trained, scored),
        "report": (scored, pages),
    }
    found: dict[str, Any] = {}
    for name, (target, rules, sections) in PHASES.items():
        reads, writes = files[name]
        facts = ["benchmarks/published.csv"] if name == "report" else []
        found[name] = {
            "cmd": f"workflow/stage.sh {target}",
            "deps": ["potgan", *facts, f"workflow/rules/{rules}", *reads],
            "params": [{path: [section for section in sections if section in tree]} for path, tree in settings.items()],
            "outs": [_Persisted({path: None}) for path in writes],
        }
    methods = [(dataset, method) for dataset in benchmark.datasets for method in benchmark.methods_of(dataset)]
    found["report"]["metrics"] = [_Persisted({f"{reports}/metrics/{d}/{method}.json": None}) for d, method in methods]
    curves = {f"{folder}/progress.csv": "validation_ssim" for folder in folders["train"]}
    return {
        "stages": found,
        "plots": [{"validation SSIM": {"template": "linear", "x": "iteration", "y": curves}}],
    }


def write_stages(configuration: Path, out: Path) -> int:
    """Write `dvc.yaml` for a configuration file; returns the number of outputs in it.

    Raises UserError where the configuration is none, or lies elsewhere than below the folder of `out`, from which DVC
    reads its settings.
    """
    benchmark = load(configuration)
    root = out.resolve().parent
    settings = {}
    for path, content in layers(configuration):
        if not path.resolve().is_relative_to(root):
            raise UserError(f"{path}: is not below {root}, where {out.name} lies and DVC looks for it: move it there")
        settings[path.resolve().relative_to(root).as_posix()] = content
    tree, name = stages(benchmark, settings), list(settings)[-1]
    text = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=1000)
    write_text(out, HEADER.format(configuration=name) + text.replace("{persist: true}", "{ persist: true }"))
    return sum(len(stage["outs"]) + len(stage.get("metrics", [])) for stage in tree["stages"].values())
