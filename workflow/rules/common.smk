# The configuration, checked, and where results lie. No rule stands here.
import os
import re
import shutil
import sys
from pathlib import Path

# The repository that this file is part of. `workflow.basedir` is the folder of the main Snakefile, wherever that lies.
sys.path.insert(0, str(Path(str(workflow.current_basedir)).parents[1]))

from potgan.common.download import is_address
from potgan.common.errors import UserError
from potgan.common.files import sha256_of
from potgan.common.paths import OPENPIFPAF_RECIPE, openpifpaf_environment
from potgan.data.sources.published import decided_estimator
from potgan.pipeline.code import code_fingerprint
from potgan.pipeline.jobs import TABULATE, jobs, named_paths
from potgan.pipeline.packing import unpack
from potgan.pipeline.snakemake import (
    failures,
    prefer_this_python,
    show,
    write_stamps,
)
from potgan.pipeline.start import (
    IMITATIONS,
    configure,
    memory_here,
    memory_of_training,
    present,
)
from potgan.settings.layout import Layout
from potgan.settings.reading import load

prefer_this_python()

try:
    BENCHMARK = load(dict(config))
    # Data sets that cannot be had here leave the graph; the tables' cells say why.
    BENCHMARK = present(BENCHMARK, Layout(BENCHMARK.benchmark).data, IMITATIONS)
except UserError as error:
    print(
        f"snakemake: error: {' '.join(map(str, workflow.configfiles)) or 'config/config.yaml'}: {error}",
        file=sys.stderr,
    )
    sys.exit(2)

# Models that a data set has not are left out of the graph, too.
for name, reason in (BENCHMARK.absent | BENCHMARK.left_out).items():
    print(f"without {name}: {reason}", file=sys.stderr)

LAYOUT = Layout(BENCHMARK.benchmark)
JOBS = jobs(BENCHMARK, LAYOUT)
# Results that are not what would be made now are made again, whatever Snakemake remembers and whatever their age.
STALE = {}
if workflow.is_main_process:
    try:
        STALE = write_stamps(JOBS, LAYOUT)
    except UserError as error:
        print(f"snakemake: error: {error}", file=sys.stderr)
        sys.exit(2)
    for key, why in STALE.items():
        print(f"to be made again: {JOBS[key].name} ({why})", file=sys.stderr)
RESULTS = str(LAYOUT.results)
OPENPIFPAF = str(openpifpaf_environment() / "ready")
# What every stage reads: the resolved configuration, written when a run starts (not by a dry run). It is no job's output:
# as an ancient() input it would hide changed parameters, since Snakemake (9.27) does not look at the parameters of a job
# that is downstream of one that has to run, and then does not run it for an ancient input either.
CONFIGURATION = str(LAYOUT.configuration)
LOGS = f"{RESULTS}/logs"
# What each job took: the report's table of wall times (potgan/report/page.py). Not of `tabulate`, which writes that table.
BENCHMARKS = str(LAYOUT.times_folder)
REPORT = [str(path) for path in JOBS[TABULATE].outputs]
# What the figures show that are in Snakemake's own report, by the first word of their names.
FIGURES = {
    "grid": "synthesised images",
    "learning": "learning curves",
    "data": "inputs",
}
# A small checkpoint of OpenPifPaf for synthetic people, which the workflow trains where a configuration names it.
SYNTHETIC_CHECKPOINT = "results/openpifpaf-synthetic/openpifpaf-synthetic.pkl"
# A GPU runs one training at a time (profiles/default); on a CPU trainings share the cores.
GPU = 1 if shutil.which("nvidia-smi") else 0
# Trainings that run on this machine share its memory, as they share its cores. A cluster does this itself.
if workflow.is_main_process and workflow.local_exec:
    if "mem_mb" not in workflow.global_resources:
        workflow.register_resource("mem_mb", memory_here())
# How often a training that was stopped is started again, where it goes on. On a cluster every time limit stops it once,
# and the process that is being stopped must not be the one that starts it again.
TRAINING_RETRIES = (
    int(os.environ.get("POTGAN_TRAINING_RETRIES", "2"))
    if workflow.is_main_process
    else 0
)


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
    return files_of_the_user([settings.source, *named_paths(settings.splits.values())])


def published_files(wildcards):
    """The record of the published tables and lists, for a data set that asks for such files."""
    key = ("published", wildcards.dataset)
    return [str(JOBS[key].record)] if key in JOBS else []


def published_lists(wildcards):
    """The same before the images: first it is known whose key points a data set will have, and then archives are fetched. Where
    none of these files is a list of the splits, they do not decide what the images are.
    """
    job = JOBS["images", wildcards.dataset]
    files = published_files(wildcards)
    return files if job.before else [ancient(path) for path in files]


def keypoint_tables(wildcards):
    settings = BENCHMARK.datasets[wildcards.dataset].keypoints
    return files_of_the_user(named_paths(settings.tables.values()))


def detector(wildcards):
    """What OpenPifPaf needs, where it is asked for: its environment, and a checkpoint that the workflow trains."""
    dataset = BENCHMARK.datasets[wildcards.dataset]
    if ("published", wildcards.dataset) in JOBS:
        # Until the published tables were looked for, Snakemake does not know what the key points need.
        checkpoints.published.get(dataset=wildcards.dataset)
    folder = LAYOUT.published(wildcards.dataset)
    if decided_estimator(dataset, folder) != "openpifpaf":
        return []
    settings = dataset.keypoints
    trained = settings.openpifpaf.checkpoint == SYNTHETIC_CHECKPOINT
    return [OPENPIFPAF, *([SYNTHETIC_CHECKPOINT] if trained else [])]


def detection_threads(wildcards):
    dataset = BENCHMARK.datasets[wildcards.dataset]
    estimator = decided_estimator(dataset, LAYOUT.published(wildcards.dataset))
    return dataset.keypoints.openpifpaf.workers if estimator == "openpifpaf" else 1


def pair_lists(wildcards):
    settings = BENCHMARK.datasets[wildcards.dataset].pairs
    return files_of_the_user(named_paths([settings.train, settings.test]))


def training_threads(wildcards):
    return BENCHMARK.run_settings(
        wildcards.dataset, wildcards.model, int(wildcards.seed)
    ).training.threads


shown = set()


def show_once():
    """Tell Snakemake what the records say, when it asks for the first input of a job: its table of files, which a run and
    a dry run fill anew, is not there before."""
    if workflow.is_main_process and id(workflow.iocache) not in shown:
        show(workflow, JOBS, STALE, LAYOUT)
        shown.add(id(workflow.iocache))


def stamp(stage):
    """The file that holds a job's settings and code, and is new where its result is stale: an input of its rule, in the
    place of parameters, which only Snakemake's own memory could compare."""

    def path(wildcards):
        show_once()
        of = [
            int(value) if name == "seed" else value
            for name, value in wildcards.items()
            if name in ("dataset", "model", "method", "seed")
        ]
        return str(LAYOUT.stamp(stage, *of))

    return path


def trained_checkpoint(wildcards):
    """The finished training that a method generates with; references and external methods need none."""
    key = ("generate", wildcards.dataset, wildcards.method, int(wildcards.seed))
    return [
        str(JOBS[before].record) for before in JOBS[key].before if before[0] == "train"
    ]


def parsing_for(stage):
    """The parsing of a data set, for the jobs of a stage whose model reads it."""

    def paths(wildcards):
        row = wildcards.model if stage == "train" else wildcards.method
        key = (stage, wildcards.dataset, row, int(wildcards.seed))
        before = JOBS[key].before if key in JOBS else ()
        return [
            str(path)
            for other in before
            if other[0] == "parsing"
            for path in JOBS[other].outputs
        ]

    return paths


def made(stage):
    """The records of all jobs of a stage."""
    return [str(job.record) for job in JOBS.values() if job.stage == stage]


def in_the_report(path):
    """A file of the rule `tabulate` with its caption and labels in Snakemake's own report; the record has none."""
    name, suffix = Path(path).stem, Path(path).suffix[1:]
    labels = {"benchmark": BENCHMARK.benchmark}
    match Path(path).parent.name, name:
        case "tables", "record":
            return path
        case "tables", _:
            numeral = ("I", "II", "III", "IV")[int(name.removeprefix("table")) - 1]
            caption, category = "table", "Tables"
            labels = {"table": f"TABLE {numeral}", "format": suffix.upper()}
        case "figures", _:
            caption, _, dataset = name.partition("-")
            category, labels = "Figures", {
                "figure": FIGURES[caption],
                "data set": dataset,
            }
        case _, "index":
            caption, category = "page", "Page"
        case _:
            caption, category = "scores", "Scores"
    return report(
        path, caption=f"../report/{caption}.rst", category=category, labels=labels
    )


def start():
    """What a run writes before its first job, and a dry run does not: the configuration, and folders that DVC has brought
    as archives."""
    try:
        configure(BENCHMARK, LAYOUT)
        unpack(JOBS)
    except UserError as error:
        print(f"snakemake: error: {error}", file=sys.stderr)
        sys.exit(2)


def print_summary():
    page = LAYOUT.reports / "index.html"
    if page.exists():
        print(
            f"\nBenchmark {BENCHMARK.benchmark}: {len(BENCHMARK.models)} models, {len(BENCHMARK.seeds)} seed(s), "
            f"data sets {', '.join(BENCHMARK.datasets)}.\n"
            + "".join(
                f"  without {name}: {reason}\n"
                for name, reason in (BENCHMARK.absent | BENCHMARK.left_out).items()
            )
            + f"  page    {page}\n  tables  {LAYOUT.reports / 'tables'}\n  scores  {LAYOUT.reports / 'metrics.json'}",
            file=sys.stderr,
        )


def print_failures(logs):
    """Say again what has failed, one line for each job, however long its message is ago. logs: the files that Snakemake writes."""
    for line in failures([Path(path) for path in logs], Path(LOGS)):
        print(line, file=sys.stderr)
