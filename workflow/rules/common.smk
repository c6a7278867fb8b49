# The configuration, checked, and where results lie. No rule stands here.
import json
import os
import re
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(workflow.basedir).parent))

from potgan.config import Layout, as_tree, load, fingerprint
from potgan.download import is_address
from potgan.errors import UserError
from potgan.files import sha256_of
from potgan.machine import prefer_this_python
from potgan.keypoints import openpifpaf_environment, openpifpaf_recipe
from potgan.metrics.protocols import PROTOCOLS
from potgan.provenance import code_fingerprint
from potgan.stages import configure, present

prefer_this_python()
# Archives that the rule `imitate` makes, in the layouts of the real data sets.
IMITATIONS = "data/imitations"

try:
    BENCHMARK = load(dict(config))
    # Data sets that cannot be had here leave the graph; the tables' cells say why.
    BENCHMARK = present(BENCHMARK, Layout(BENCHMARK.benchmark).data, Path(IMITATIONS))
except UserError as error:
    print(
        f"snakemake: error: {' '.join(map(str, workflow.configfiles)) or 'config/config.yaml'}: {error}",
        file=sys.stderr,
    )
    sys.exit(2)

for name, reason in BENCHMARK.absent.items():
    print(f"without {name}: {reason}", file=sys.stderr)

LAYOUT = Layout(BENCHMARK.benchmark)
RESULTS = str(LAYOUT.results)
OPENPIFPAF = str(openpifpaf_environment() / "ready")
# What every stage reads: the resolved configuration, written when a run starts (not by a dry run). It is no job's output:
# as an ancient() input it would hide changed parameters, since Snakemake (9.27) does not look at the parameters of a job
# that is downstream of one that has to run, and then does not run it for an ancient input either.
CONFIGURATION = str(LAYOUT.configuration)
LOGS = f"{RESULTS}/logs"
# What each job took: the report's table of wall times (potgan/report.py). Not of `tabulate`, which writes that table.
BENCHMARKS = f"{RESULTS}/benchmarks"
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
# A small checkpoint of OpenPifPaf for synthetic people, which the workflow trains where a configuration names it.
SYNTHETIC_CHECKPOINT = "results/openpifpaf-synthetic/openpifpaf-synthetic.pkl"
# A GPU runs one training at a time (profiles/default); on a CPU trainings share the cores.
GPU = 1 if shutil.which("nvidia-smi") else 0


wildcard_constraints:
    dataset="|".join(map(re.escape, BENCHMARK.datasets)),
    model="|".join(map(re.escape, BENCHMARK.models)),
    method="|".join(map(re.escape, BENCHMARK.methods)),
    seed=r"\d+",


def files_of_the_user(paths):
    """What stages read from outside the results. Files that the rule `imitate` writes stand for its record; others are
    tracked where they are files. The same list before and after a run, or Snakemake would run all again.
    """
    found = []
    for path in filter(None, paths):
        if Path(path).is_relative_to(IMITATIONS):
            kind = Path(path).relative_to(IMITATIONS).parts[0]
            found.append(f"{IMITATIONS}/{kind}/imitation.json")
        elif not is_address(path) and Path(path).is_file():
            found.append(path)
    return sorted(set(found))


def source_files(wildcards):
    """The archive and lists that the configuration names. What lies in the data folder or is fetched is not tracked:
    its place is not known before it is there."""
    settings = BENCHMARK.datasets[wildcards.dataset]
    return files_of_the_user([settings.source, *settings.splits.values()])


def keypoint_tables(wildcards):
    return files_of_the_user(
        BENCHMARK.datasets[wildcards.dataset].keypoints.tables.values()
    )


def detector(wildcards):
    """What OpenPifPaf needs, where it is asked for: its environment, and a checkpoint that the workflow trains."""
    settings = BENCHMARK.datasets[wildcards.dataset].keypoints
    if settings.estimator != "openpifpaf":
        return []
    trained = settings.openpifpaf.checkpoint == SYNTHETIC_CHECKPOINT
    return [OPENPIFPAF, *([SYNTHETIC_CHECKPOINT] if trained else [])]


def detection_threads(wildcards):
    settings = BENCHMARK.datasets[wildcards.dataset].keypoints
    return settings.openpifpaf.workers if settings.estimator == "openpifpaf" else 1


def keypoint_settings(wildcards):
    """Without what changes only the speed: another number of workers finds the same joints."""
    tree = as_tree(BENCHMARK)["datasets"][wildcards.dataset]
    for name in ("batch_size", "workers", "shard_size", "device"):
        del tree["keypoints"]["openpifpaf"][name]
    return json.dumps(tree)


def pair_lists(wildcards):
    settings = BENCHMARK.datasets[wildcards.dataset].pairs
    return files_of_the_user([settings.train, settings.test])


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


def checkpoint(wildcards):
    """The finished training that a method generates with; references and external methods need none."""
    model = BENCHMARK.model_of(wildcards.method)
    if model is None:
        return []
    trained = BENCHMARK.trained_as(wildcards.dataset, model)
    return str(
        LAYOUT.train(wildcards.dataset, trained, int(wildcards.seed)) / "done.json"
    )


def state_of_folder(folder):
    """Names, sizes and times of a folder's files: released results are thousands, too many to be inputs one by one."""
    if folder is None or not Path(folder).is_dir():
        return None  # the job says what is wrong
    with os.scandir(folder) as entries:
        found = [(e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries]
    return fingerprint(sorted(found))


def generation_settings(wildcards):
    model = BENCHMARK.model_of(wildcards.method)
    if wildcards.method in BENCHMARK.external_methods:
        entry = BENCHMARK.external_methods[wildcards.method]
        return json.dumps(
            [
                *(entry.images, entry.layout, entry.targets),
                *(state_of_folder(entry.images), state_of_folder(entry.targets)),
                PROTOCOLS[BENCHMARK.protocol].hash,
            ]
        )
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
        for method in BENCHMARK.methods_of(dataset)
        for seed in BENCHMARK.seeds_of(method)
    ]


def print_summary():
    page = LAYOUT.reports / "index.html"
    if page.exists():
        print(
            f"\nBenchmark {BENCHMARK.benchmark}: {len(BENCHMARK.models)} models, {len(BENCHMARK.seeds)} seed(s), "
            f"data sets {', '.join(BENCHMARK.datasets)}.\n"
            + "".join(
                f"  without {name}: {reason}\n"
                for name, reason in BENCHMARK.absent.items()
            )
            + f"  page    {page}\n  tables  {LAYOUT.reports / 'tables'}\n  scores  {LAYOUT.reports / 'metrics.json'}",
            file=sys.stderr,
        )
