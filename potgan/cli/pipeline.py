"""Verbs that run the stages of a configured benchmark, plan them, and look after their results."""

from __future__ import annotations

import argparse
from pathlib import Path

from potgan.cli.verb import CONFIG, DATASET, METHOD, MODEL, ROOT, SEED, Option, Verb, configured, option, verb
from potgan.settings.layout import Layout
from potgan.settings.schema import Benchmark

# Modules that bring torch, pandas or OpenCV are imported inside the verbs that need them, so that `potgan --help` is quick.


def run_stage(arguments: argparse.Namespace) -> None:
    """Run the stage of the pipeline that the verb is named after."""
    from potgan.pipeline import stages

    selected = {
        name: value for name, value in vars(arguments).items() if name in ("dataset", "model", "method", "seed")
    }
    getattr(stages, arguments.verb.replace("-", "_"))(*configured(arguments), **selected)


def _stage(name: str, description: str, *options: Option) -> Verb:
    return Verb(name, description, (CONFIG, ROOT, *options), run_stage)


configure = _stage("configure", "check a configuration and write it, resolved, beside the results")
published = _stage(
    "published", "collect the published tables and lists of a data set, and decide whose key points it has", DATASET
)
keypoints = _stage("keypoints", "collect the key points of a data set's images", DATASET)
parsing = _stage(
    "parsing", "collect the class of each pixel of a data set's images, for the models that read it", DATASET
)
feature_network = _stage("feature-network", "train the small classifier behind is-synthetic and fid-synthetic")
train = _stage("train", "train one model", DATASET, MODEL, SEED)
generate = _stage("generate", "synthesise the test pairs of one method", DATASET, METHOD, SEED)
evaluate = _stage("evaluate", "score one method's images", DATASET, METHOD, SEED)
tabulate = _stage("tabulate", "write TABLE I-IV, the ablation report and the page")


@verb(
    "estimate",
    "tell how long the trainings of a configuration take on this machine",
    CONFIG,
    ROOT,
    option("--dataset", help="only this data set; default: all of the configuration"),
    option("--model", help="only this model; default: all of the configuration"),
    option("--steps", type=int, default=50, help="how many steps of each training are timed; default: %(default)s"),
    option("--price", type=float, metavar="EUR_PER_GPU_HOUR", help="tell also what the trainings cost"),
    option("--json", type=Path, help="also write the numbers into this file"),
)
def estimate(arguments: argparse.Namespace) -> None:
    from potgan.common.files import write_json
    from potgan.training.estimate import as_tree, check_price, estimate, text

    check_price(arguments.price)
    benchmark, _ = configured(arguments)
    costs = estimate(benchmark, arguments.steps, arguments.dataset, arguments.model)
    if arguments.json:
        write_json(arguments.json, as_tree(costs, arguments.steps, arguments.price))
    print(text(costs, arguments.steps, arguments.price), end="")


@verb("pack", "write folders of many images as one archive each, for DVC", CONFIG, ROOT)
def pack(arguments: argparse.Namespace) -> None:
    from potgan.pipeline import packing
    from potgan.pipeline.jobs import jobs

    packing.pack(jobs(*configured(arguments)))


@verb(
    "unpack",
    "restore the folders of `pack` where they are absent or older than their archives; the workflow does this, too",
    CONFIG,
    ROOT,
)
def unpack(arguments: argparse.Namespace) -> None:
    from potgan.pipeline import packing
    from potgan.pipeline.jobs import jobs

    packing.unpack(jobs(*configured(arguments)))


def _as_the_workflow_sees_it(arguments: argparse.Namespace) -> tuple[Benchmark, Layout]:
    """The configured benchmark, without the data sets that cannot be had here.

    An archive that the workflow makes itself counts as present.
    """
    from potgan.pipeline.start import IMITATIONS, present

    benchmark, layout = configured(arguments)
    return present(benchmark, layout.data, IMITATIONS), layout


@verb("plan", "print what is to be done: jobs, disk space and, where they are known, hours", CONFIG, ROOT)
def plan(arguments: argparse.Namespace) -> None:
    from potgan.pipeline import plan

    benchmark, layout = _as_the_workflow_sees_it(arguments)
    print(plan.text(plan.plan(benchmark, layout)), end="")
    for name, reason in benchmark.absent.items():
        print(f"Without {name}: {reason}")


@verb("stale", "list the results that differ from what would be made now, and why", CONFIG, ROOT)
def stale(arguments: argparse.Namespace) -> None:
    """Print one line per stale result: the path of its record, a tab, and the reason. Nothing is changed."""
    from potgan.pipeline.jobs import jobs
    from potgan.pipeline.records import stale

    benchmark, layout = _as_the_workflow_sees_it(arguments)
    for job, why, _ in stale(jobs(benchmark, layout), layout):
        print(f"{job.record}\t{why}")


@verb(
    "dvc-stages",
    "write dvc.yaml's lists of results and settings from a configuration",
    option("--config", type=Path, default=Path("config/config.yaml"), help="default: %(default)s"),
    option("--out", type=Path, default=Path("dvc.yaml"), help="default: %(default)s"),
)
def dvc_stages(arguments: argparse.Namespace) -> None:
    from potgan.common.progress import say
    from potgan.pipeline.dvc import write_stages

    say(f"{arguments.out}: {write_stages(arguments.config, arguments.out)} outputs in four stages")
