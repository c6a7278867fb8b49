"""What a configuration will take before it is started: jobs, disk and hours, as far as they are known here.

Disk is arithmetic from sizes and counts (DISK says how); hours come from trainings of the same shape that this machine has
finished, and where there are none `potgan estimate` measures them. Nothing is run and nothing is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from potgan.common.errors import UserError
from potgan.common.files import free_bytes
from potgan.data.sources.archives import facts_of
from potgan.data.sources.published import outlook
from potgan.pipeline.jobs import jobs
from potgan.pipeline.records import stale, to_do
from potgan.settings.layout import Layout
from potgan.settings.schema import Benchmark, Dataset, RunSettings

#: Bytes on the disk per value of an image: synthesised images as PNG and rendered people as PNG (embedded benchmark), and
#: JPEG files as in Market-1501's archive.
PNG_SHARE, RENDERED_SHARE, JPEG_SHARE = 0.7, 0.2, 0.12
DISK = (
    "Disk: synthesised images at 0.7 bytes per value, JPEG files at 0.12; a training keeps its generators, and while it "
    "runs its state; DVC's cache holds everything once more."
)


@dataclass(frozen=True)
class Stage:
    """One line of the plan. hours: of one device, None where unknown; bytes: what will be written, None where unknown."""

    name: str
    jobs: int
    to_do: int
    bytes: int | None
    hours: float | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    stages: in the pipeline's order. free: bytes on the disk of the results. unknown: what could not be told, and why. left_out:
    models that a data set has not, and why. keypoints: where the key points of each real data set come from. unequal: for each
    data set whose models do not see as many pairs as each other, how many each sees.
    """

    benchmark: str
    stages: tuple[Stage, ...]
    free: int
    unknown: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    keypoints: tuple[str, ...] = ()
    unequal: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(stage.bytes or 0 for stage in self.stages)

    @property
    def fits(self) -> bool:
        return self.bytes <= self.free


def plan(benchmark: Benchmark, layout: Layout) -> Plan:
    """The plan of what is missing or stale."""
    everything = jobs(benchmark, layout)
    waiting = to_do(everything, {job.key for job, _, _ in stale(everything, layout)})
    counts_to_do = Counter(key[0] for key in waiting)
    speeds = _speeds(layout)
    bytes_of: Counter[str] = Counter()
    hours, unknown = 0.0, []
    unknown_stages: set[str] = set()
    for key in waiting:
        stage = key[0]
        if stage == "images":
            bytes_of[stage] += image_bytes(benchmark.datasets[key[1]])
        elif stage == "train":
            settings = benchmark.run_settings(*key[1:])
            bytes_of[stage] += training_bytes(settings)
            speed = speeds.get(_shape(dataclasses.asdict(settings)))
            if speed is None:
                unknown_stages.add(stage)
            else:
                hours += settings.training.iterations * settings.training.batch_size / speed / 3600
        elif stage == "generate":
            count = test_pairs(benchmark.datasets[key[1]], layout, key[1])
            if count is None:
                unknown.append(f"disk of generated images on {key[1]}: its pairs are not built yet")
                continue
            height, width = benchmark.datasets[key[1]].image_size
            bytes_of[stage] += round(count * height * width * 3 * PNG_SHARE)
    if "train" in unknown_stages:
        unknown.append(
            "hours of training: this machine has finished none of that shape; `potgan estimate` measures them"
        )
    known = hours if counts_to_do["train"] and "train" not in unknown_stages else None
    order = dict.fromkeys(key[0] for key in everything)
    counts = Counter(key[0] for key in everything)
    stages = tuple(
        Stage(stage, counts[stage], counts_to_do[stage], bytes_of.get(stage), known if stage == "train" else None)
        for stage in order
    )
    without = tuple(f"{row}: {why}" for row, why in benchmark.left_out.items())
    keypoints = tuple(
        outlook(dataset, name, layout.data, None if ("published", name) in waiting else layout.published(name))
        for name, dataset in benchmark.datasets.items()
        if dataset.kind != "synthetic"
    )
    free, unequal = free_bytes(layout.results), tuple(unequal_budgets(benchmark))
    return Plan(benchmark.benchmark, stages, free, tuple(dict.fromkeys(unknown)), without, keypoints, unequal)


def unequal_budgets(benchmark: Benchmark) -> Iterator[str]:
    """One phrase for each data set whose models are not all trained on as many pairs."""
    for dataset in benchmark.datasets:
        seen = {}
        for model in benchmark.models:
            if not benchmark.why_left_out(dataset, model):
                training = benchmark.run_settings(dataset, model, benchmark.seeds[0]).training
                seen[model] = training.iterations * training.batch_size
        if len(set(seen.values())) > 1:
            yield f"{dataset}: {', '.join(f'{model} {count:,}' for model, count in seen.items())}"


def image_bytes(dataset: Dataset) -> int:
    """Bytes of a data set's images, from its settings or its published counts."""
    height, width = dataset.image_size
    if dataset.kind == "synthetic":
        settings = dataset.synthetic
        count = (settings.train_identities + settings.test_identities) * settings.images_per_identity
        return round(count * settings.height * settings.width * 3 * RENDERED_SHARE)
    return round(sum(facts_of(dataset.kind)["counts"].values()) * height * width * 3 * JPEG_SHARE)


def test_pairs(dataset: Dataset, layout: Layout, name: str) -> int | None:
    """Number of test pairs: as built, or as asked for; None where neither is known."""
    try:
        record = json.loads((layout.pairs(name) / "pairs.json").read_text(encoding="utf-8"))
        return int(record["splits"]["test"]["pairs"])
    except (OSError, ValueError, KeyError):
        return dataset.pairs.test_sample


def training_bytes(settings: RunSettings) -> int:
    """Bytes that a training writes and keeps, and its state, which lies beside them while it runs (4 bytes per weight, and
    8 for Adam's two moments of a weight that is trained)."""
    import torch

    from potgan.methods.registry import method_class
    from potgan.training.estimate import without_weight_files

    with torch.device("meta"):  # shapes without memory
        networks = method_class(settings.method).build_networks(without_weight_files(settings))
    kept = 4 * sum(weight.numel() for weight in networks["generator"].parameters())
    weights = [weight for network in networks.values() for weight in network.parameters()]
    state = sum((12 if weight.requires_grad else 4) * weight.numel() for weight in weights)
    return kept * settings.training.checkpoints + state


def _speeds(layout: Layout) -> dict[str, float]:
    """Shape of a training -> pairs per second of the newest one that this machine's device has finished."""
    from potgan.common.device import device_name, pick_device
    from potgan.training.record import TrainingRecord

    here = device_name(pick_device())
    found: dict[str, float] = {}
    records = sorted(layout.results.parent.glob("*/*/*/seed*/train/done.json"), key=lambda path: path.stat().st_mtime)
    for path in records:
        with contextlib.suppress(UserError):  # an earlier version's
            record = TrainingRecord.read(path)
            if record.device == here:
                found[_shape(record.settings)] = record.pairs_per_second
    return found


#: The settings of the section `training` that decide the time of a step.
_TIMED_SETTINGS = (
    "batch_size",
    "device_batch_size",
    "precision",
    "threads",
    "processes",
    "compile",
    "perceptual_network",
    "perceptual_width",
)


def _shape(settings: dict[str, Any]) -> str:
    """What decides the time of a step: everything but the data, the seed, the schedule and the values of weights."""
    training = settings["training"]
    shape = [settings.get("method"), settings.get("options"), settings["image_size"]]
    shape += [settings["generator"], settings["discriminator"], settings["loss_weights"]]
    shape += [training.get(name) for name in _TIMED_SETTINGS]
    return json.dumps(shape, sort_keys=True)


def text(found: Plan) -> str:
    """The plan as a person reads it."""
    lines = [f"Benchmark {found.benchmark}", "", f"{'stage':<17}{'jobs':>6}{'to do':>7}{'disk':>12}{'hours':>9}"]
    for stage in found.stages:
        hours = "" if stage.hours is None else f"{stage.hours:.2f}"
        disk = _size(stage.bytes) if stage.to_do and stage.bytes is not None else ""
        lines.append(f"{stage.name:<17}{stage.jobs:>6}{stage.to_do:>7}{disk:>12}{hours:>9}")
    lines += ["", f"{_size(found.bytes)} will be written, {_size(found.free)} are free."]
    if not found.fits:
        lines.append(
            "WARNING: that does not fit. Free some space, or put results/ on another disk (snakemake --directory)."
        )
    lines += [f"Key points of {sentence}." for sentence in found.keypoints]
    lines += [f"Pairs that each model sees, which are not the same on {sentence}." for sentence in found.unequal]
    lines += [f"Not known: {what}." for what in found.unknown]
    lines += [f"Without {what}." for what in found.left_out]
    return "\n".join([*lines, DISK, ""])


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
