# The configuration, checked, and where results lie. No rule stands here.
import json
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir).parent))

from potgan.config import REFERENCE_METHODS, Layout, as_tree, load
from potgan.errors import UserError
from potgan.metrics.protocols import PROTOCOLS
from potgan.provenance import code_fingerprint
from potgan.stages import configure

try:
    BENCHMARK = load(dict(config))
except UserError as error:
    print(
        f"snakemake: error: {' '.join(map(str, workflow.configfiles)) or 'config/config.yaml'}: {error}",
        file=sys.stderr,
    )
    sys.exit(2)

LAYOUT = Layout(BENCHMARK.benchmark)
RESULTS = str(LAYOUT.results)
# What every stage reads: the resolved configuration, written when a run starts (not by a dry run). It is no job's output:
# as an ancient() input it would hide changed parameters, since Snakemake (9.27) does not look at the parameters of a job
# that is downstream of one that has to run, and then does not run it for an ancient input either.
CONFIGURATION = str(LAYOUT.configuration)
LOGS = f"{RESULTS}/logs"
REPORT = [
    str(LAYOUT.reports / name)
    for name in (
        "index.html",
        "metrics.json",
        *(
            f"tables/table{k}.{suffix}"
            for k in (1, 2, 3, 4)
            for suffix in ("csv", "md", "tex")
        ),
    )
]
# A GPU runs one training at a time (profiles/default); on a CPU trainings share the cores.
GPU = 1 if shutil.which("nvidia-smi") else 0


wildcard_constraints:
    dataset="|".join(map(re.escape, BENCHMARK.datasets)),
    model="|".join(map(re.escape, BENCHMARK.models)),
    method="|".join(map(re.escape, BENCHMARK.methods)),
    seed=r"\d+",


def source_files(wildcards):
    """What the user must have: the archive and tables of a real data set. Folders are not tracked."""
    settings = BENCHMARK.datasets[wildcards.dataset]
    found = [settings.source] if settings.source else []
    return [path for path in found if Path(path).is_file()]


def keypoint_tables(wildcards):
    return [
        path
        for path in BENCHMARK.datasets[wildcards.dataset].keypoints.values()
        if Path(path).is_file()
    ]


def pair_lists(wildcards):
    settings = BENCHMARK.datasets[wildcards.dataset].pairs
    return [
        path
        for path in (settings.train, settings.test)
        if path and Path(path).is_file()
    ]


def dataset_settings(wildcards):
    """Parameters are passed as one text: Snakemake compares a mapping as a set of values, and would miss a swap."""
    return json.dumps(as_tree(BENCHMARK)["datasets"][wildcards.dataset])


def training_settings(wildcards):
    return json.dumps(
        BENCHMARK.run_settings(
            wildcards.dataset, wildcards.model, int(wildcards.seed)
        ).training_dict,
        sort_keys=True,
    )


def training_threads(wildcards):
    return BENCHMARK.run_settings(
        wildcards.dataset, wildcards.model, int(wildcards.seed)
    ).training.threads


def model_of(method):
    """The model behind a row, or None for a reference row."""
    if method in REFERENCE_METHODS:
        return None
    return method if method in BENCHMARK.models else BENCHMARK.main_model


def checkpoint(wildcards):
    """The finished training that a method generates with; reference rows need none."""
    model = model_of(wildcards.method)
    if model is None:
        return []
    trained = BENCHMARK.trained_as(wildcards.dataset, model)
    return str(
        LAYOUT.train(wildcards.dataset, trained, int(wildcards.seed)) / "done.json"
    )


def generation_settings(wildcards):
    model = model_of(wildcards.method)
    if model is None:
        return wildcards.method
    run = BENCHMARK.run_settings(wildcards.dataset, model, int(wildcards.seed))
    return str(run.generator)


def feature_network(wildcards=None):
    needed = PROTOCOLS[BENCHMARK.protocol].feature_network == "synthetic-classifier"
    return str(LAYOUT.feature_network / "network.json") if needed else []


def pair_records():
    return [str(LAYOUT.pairs(dataset) / "pairs.json") for dataset in BENCHMARK.datasets]


def trainings():
    return sorted(
        {
            str(
                LAYOUT.train(dataset, BENCHMARK.trained_as(dataset, model), seed)
                / "done.json"
            )
            for dataset in BENCHMARK.datasets
            for model in BENCHMARK.models
            for seed in BENCHMARK.seeds
        }
    )


def score_files():
    return [
        str(LAYOUT.evaluate(dataset, method, seed) / "scores.json")
        for dataset in BENCHMARK.datasets
        for method in BENCHMARK.methods
        for seed in BENCHMARK.seeds_of(method)
    ]


def print_summary():
    page = LAYOUT.reports / "index.html"
    if page.exists():
        print(
            f"\nBenchmark {BENCHMARK.benchmark}: {len(BENCHMARK.models)} models, {len(BENCHMARK.seeds)} seed(s), "
            f"data sets {', '.join(BENCHMARK.datasets)}.\n"
            f"  page    {page}\n  tables  {LAYOUT.reports / 'tables'}\n  scores  {LAYOUT.reports / 'metrics.json'}",
            file=sys.stderr,
        )
