"""What decided each result, and whether what lies there still is what the configuration asks for.

Every job of the pipeline writes a record (a JSON file) beside its results, and `decided_by` in it holds three things: the
settings that it depends on, the code that it reaches, and the content of what it read. Snakemake's own memory
(`.snakemake/metadata`) and file times are not versioned and do not travel: after `dvc pull`, `git checkout` or a copy
they say nothing or the wrong thing. Records travel with the results, and Snakemake is told what they say (`prepare`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import json
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potgan.common.errors import UserError
from potgan.common.files import fingerprint, write_json, write_text
from potgan.common.progress import say
from potgan.pipeline.code import code_fingerprint
from potgan.settings.layout import Layout
from potgan.settings.protocols import PROTOCOLS
from potgan.settings.reading import as_tree
from potgan.settings.schema import FIRST_CHECKPOINT_SUFFIX, REFERENCE_METHODS, Benchmark, RunSettings

#: Per stage: what its rule declares as outputs, the record first; and which of these a later stage's result depends on.
OUTPUTS = {
    "images": ("images.json", "images.csv"),
    "keypoints": ("keypoints.json", "keypoints.csv"),
    "pairs": ("pairs.json", "pairs-train.csv", "pairs-validation.csv", "pairs-test.csv"),
    "train": ("done.json",),
    "feature_network": ("network.json",),
    "generate": ("generate.json", "generated.csv"),
    "evaluate": ("scores.json", "per-pair.csv", "sensitivity.csv"),
}
_CONTENT = {
    "images": ("images.csv",),
    "keypoints": ("keypoints.csv",),
    "pairs": ("pairs-train.csv", "pairs-validation.csv", "pairs-test.csv"),
    "evaluate": ("scores.json",),
    "tabulate": (),  # nothing is made from it
}
#: The age of a stamp that asks for nothing: older than any result.
_LONG_AGO = 946_684_800  # 2000-01-01, in seconds

Key = tuple[Any, ...]  # stage, and what it is of: data set, method, seed
TABULATE: Key = ("tabulate",)


@dataclass(frozen=True)
class Job:
    """One stage of one thing. key: (stage, data set, method, seed) as far as there are; before: keys of what it reads."""

    key: Key
    folder: Path
    outputs: tuple[Path, ...]  # as the rule declares them; the first is the record
    settings: str  # JSON
    before: tuple[Key, ...]
    method: str | None = None  # of a training, or of the images of a trained generator

    @property
    def stage(self) -> str:
        return self.key[0]

    @property
    def code(self) -> str:
        """Fingerprint of the code behind the job's result."""
        return code_fingerprint(self.stage, self.method)

    @property
    def record(self) -> Path:
        return self.outputs[0]

    @property
    def name(self) -> str:
        """As a person writes it: `train synthetic/potgan/seed0`."""
        parts = [f"seed{part}" if isinstance(part, int) else part for part in self.key[1:]]
        return " ".join([self.stage, "/".join(parts)]).strip()


# ---------------------------------------------------------------------------------------------------------------------
# The jobs of a benchmark


def jobs(benchmark: Benchmark, layout: Layout) -> dict[Key, Job]:
    """All jobs of a benchmark, each after those that it reads; the last is `tabulate`."""
    found: dict[Key, Job] = {}

    def add(stage: str, folder: Path, settings: Any, before: tuple[Key, ...], *of: Any, by: str | None = None) -> Key:
        key = (stage, *of)
        outputs = tuple(folder / name for name in OUTPUTS[stage])
        found[key] = Job(key, folder, outputs, json.dumps(settings, sort_keys=True, default=str), before, by)
        return key

    protocol = PROTOCOLS[benchmark.protocol]
    network: tuple[Key, ...] = ()
    if protocol.feature_network == "synthetic-classifier":
        network = (add("feature_network", layout.feature_network, benchmark.feature_network, ()),)
    tree = as_tree(benchmark)
    for dataset, settings in tree["datasets"].items():
        images = add("images", layout.images(dataset), _images_settings(settings), (), dataset)
        keypoints = add("keypoints", layout.keypoints(dataset), _keypoint_settings(settings), (images,), dataset)
        pairs = add("pairs", layout.pairs(dataset), _pair_settings(settings), (images, keypoints), dataset)
        data = (images, keypoints, pairs)
        # Settings of a run for each model, once: they differ between seeds in the seed alone.
        runs = {model: benchmark.run_settings(dataset, model, 0) for model in benchmark.models}
        trained_as = benchmark.trainings(dataset)
        for method in benchmark.methods_of(dataset):
            model = benchmark.model_of(method)
            for seed in benchmark.seeds_of(method):
                reads = data
                if model is not None:
                    run = runs[trained_as[model]]
                    train = ("train", dataset, trained_as[model], seed)
                    if train not in found:
                        decided = dataclasses.replace(run, seed=seed).training_dict
                        add("train", layout.train(*train[1:]), decided, data, *train[1:], by=run.method)
                    reads = (*data, train)
                generate = add(
                    "generate",
                    layout.generate(dataset, method, seed),
                    _generation_settings(benchmark, dataset, method, runs.get(model)),
                    reads,
                    dataset,
                    method,
                    seed,
                    by=runs[model].method if model else None,
                )
                add(
                    "evaluate",
                    layout.evaluate(dataset, method, seed),
                    [protocol.hash, settings["image_size"], _generator(runs[model]) if model else None],
                    (*data, generate, *network),
                    dataset,
                    method,
                    seed,
                )
    # Labels, descriptions and differences are printed: a changed word changes the page.
    scores = tuple(key for key in found if key[0] == "evaluate")
    everything = json.dumps(tree, sort_keys=True)
    found[TABULATE] = Job(TABULATE, layout.reports, _report_files(benchmark, layout), everything, scores)
    return found


def _report_files(benchmark: Benchmark, layout: Layout) -> tuple[Path, ...]:
    """What the rule `tabulate` declares: the record, the page, the scores, the tables, and the figures that every benchmark
    has (a page may have more)."""
    tables = (f"tables/table{k}.{suffix}" for k in (1, 2, 3, 4) for suffix in ("csv", "md", "tex"))
    figures = (
        f"figures/{kind}-{dataset}.png" for dataset in benchmark.datasets for kind in ("grid", "learning", "data")
    )
    return tuple(
        layout.reports / name for name in ("tables/record.json", "index.html", "metrics.json", *tables, *figures)
    )


def _images_settings(dataset: dict) -> dict:
    names = ("kind", "source", "checksum", "crop_columns", "splits", "unreadable_images", "allow_partial")
    return _only(dataset, *names, *(["synthetic"] if dataset["kind"] == "synthetic" else []))


def _keypoint_settings(dataset: dict) -> dict:
    """Without what changes only the speed: another number of workers finds the same joints."""
    tree = json.loads(json.dumps(_only(dataset, "kind", "keypoints", "allow_partial")))
    for name in ("batch_size", "workers", "shard_size", "device"):
        del tree["keypoints"]["openpifpaf"][name]
    return tree


def _pair_settings(dataset: dict) -> dict:
    return _only(dataset, "kind", "pairs", *(["synthetic"] if dataset["kind"] == "synthetic" else []))


def _only(tree: dict, *names: str) -> dict:
    return {name: tree[name] for name in names}


def _generation_settings(benchmark: Benchmark, dataset: str, method: str, run: RunSettings | None) -> Any:
    size = benchmark.datasets[dataset].image_size
    if method in benchmark.external_methods:
        entry = benchmark.external_methods[method]
        folders = [state_of_folder(entry.images), state_of_folder(entry.targets)]
        origin = [entry.dataset, entry.images, entry.layout, entry.targets]
        return [*origin, size, *folders, PROTOCOLS[benchmark.protocol].targets]
    if method in REFERENCE_METHODS:
        return [method, size]
    return [_generator(run), dataclasses.asdict(run.masks), size, method.endswith(FIRST_CHECKPOINT_SUFFIX)]


def _generator(run: RunSettings) -> dict:
    """What the generator of a run is: PoT-GAN's section, or the options of another method."""
    return dataclasses.asdict(run.generator if run.options is None else run.options)


def state_of_folder(folder: str | None) -> str | None:
    """Names, sizes and times of a folder's files: released results are thousands, too many to be inputs one by one."""
    if folder is None or not Path(folder).is_dir():
        return None  # the job says what is wrong
    with os.scandir(folder) as entries:
        return fingerprint(sorted((e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries))


# ---------------------------------------------------------------------------------------------------------------------
# Records


def decided_by(job: Job, others: dict[Key, Job]) -> dict[str, Any]:
    """What decides the job's result now; `recorded` adds `result`, the content of what came out."""
    inputs = {others[key].name: content(others[key]) for key in job.before}
    if job.stage == "tabulate":
        inputs = {"scores": fingerprint(inputs)}
    return {"settings": fingerprint(job.settings), "code": job.code, "inputs": inputs}


def content(job: Job) -> str | None:
    """Fingerprint of the part of a job's results that later ones depend on; None where it is not there."""
    if job.stage == "train":
        # Not of the record itself: the time that a training took is no part of what it found.
        record = _read(job.record)
        return fingerprint(record["generators"]) if record else None
    if job.stage not in _CONTENT:
        record = _read(job.record)
        return fingerprint({k: v for k, v in record.items() if k not in ("decided_by", "training")}) if record else None
    digest = hashlib.sha256()
    for name in _CONTENT[job.stage]:
        found = _digest(job.folder / name)
        if found is None:
            return None
        digest.update(found)
    return digest.hexdigest()[:12]


def _digest(path: Path) -> bytes | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return _digest_of(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _digest_of(path: Path, size: int, time: int) -> bytes:
    if path.suffix == ".json":
        record = _read(path) or {}
        record.pop("decided_by", None)
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).digest()
    return hashlib.sha256(path.read_bytes()).digest()


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def recorded(stage: Callable) -> Callable:
    """A stage's function that, when it has succeeded, writes into its record what decided the result."""

    @functools.wraps(stage)
    def run(benchmark: Benchmark, layout: Layout, *of: Any, **named: Any) -> None:
        everything = jobs(benchmark, layout)
        # A model that shares another's training can be trained by hand, and is no job.
        job = everything.get((stage.__name__, *inspect.signature(stage).bind(benchmark, layout, *of, **named).args[2:]))
        # Before the stage runs: what it reads is what it finds now.
        decided = decided_by(job, everything) if job is not None else None
        stage(benchmark, layout, *of, **named)
        if job is not None and os.environ.get("RANK", "0") == "0":
            decided["result"] = content(job)
            write_json(job.record, (_read(job.record) or {}) | {"decided_by": decided})

    return run


# ---------------------------------------------------------------------------------------------------------------------
# What is stale


def stale(everything: dict[Key, Job]) -> Iterator[tuple[Job, str, bool]]:
    """(job, why, whether more than code differs) of each of these `jobs` whose result is there and is not what would be made now.

    What is missing is not listed: whoever looks sees that. Nor is what only depends on something listed.
    """
    for job in everything.values():
        record = _read(job.record)
        if record is None:
            continue
        found = record.get("decided_by")
        if found is None:
            yield job, "has no record of what decided it", True
            continue
        now = decided_by(job, everything)
        reasons = []
        if found["settings"] != now["settings"]:
            reasons.append("other settings")
        differing = [n for n in now["inputs"] if found["inputs"].get(n) != now["inputs"][n] is not None]
        if differing:
            reasons.append(f"other inputs ({', '.join(differing)})")
        if found["result"] != content(job):
            reasons.append("its files were changed after they were made")
        missing = _missing_file(job, record)
        if missing:
            reasons.append(f"{missing} is missing")
        matters = bool(reasons)
        if found["code"] != now["code"]:
            reasons.append("other code")
        if reasons:
            yield job, ", ".join(reasons), matters


def _missing_file(job: Job, record: dict[str, Any]) -> str | None:
    """A file that the record names, is no declared output, and is not there."""
    if job.stage == "train":
        return next((name for name in record["generators"] if not (job.folder / name).exists()), None)
    if job.stage == "generate":
        folder = job.folder / "images"
        count = sum(1 for _ in os.scandir(folder)) if folder.is_dir() else 0
        return None if count >= record["images"] else f"{record['images'] - count} of {record['images']} images"
    return None


def refuse_strangers(benchmark: Benchmark, layout: Layout) -> None:
    """UserError unless every score belongs to the settings, data and protocol of now: results that were copied or pulled
    from another revision must not slip into a table."""
    for job, why, matters in stale(jobs(benchmark, layout)):
        if job.stage == "tabulate":
            continue
        if matters:
            raise UserError(
                f"{job.record}: belongs to another run ({why} than the configuration's now); run the workflow again "
                "(snakemake --cores 8 all), or this stage by hand"
            )
        say(f"{job.name}: was made by other code than the present; the workflow makes it again")


def prepare(everything: dict[Key, Job], layout: Layout) -> list[tuple[Job, str]]:
    """Tell Snakemake what the records of these `jobs` say, in the two things that it looks at: the content and the times of files.

    A stamp for each job, one of its rule's inputs, holds its settings and code. For a result that is as it should be,
    stamp and inputs are made to look older than the result; for a stale one the stamp is new and says why. So a plain
    `snakemake` is right after a pull, a checkout or a copy, with or without a memory of its own. Returns what is stale.
    """
    try:
        return _prepare(everything, layout)
    except OSError as error:
        where = error.filename or layout.results
        raise UserError(f"{where}: cannot be written ({error.strerror or error}); nothing was changed") from None


def _prepare(everything: dict[Key, Job], layout: Layout) -> list[tuple[Job, str]]:
    asked = {job.key: why for job, why, _ in stale(everything)}
    for key, job in everything.items():
        stamp = layout.stamp(*key)
        text = json.dumps({"settings": json.loads(job.settings), "code": job.code}, indent=1) + "\n"
        if key in asked:
            # Never the same twice: Snakemake passes over an input that is newer but has a content that it remembers.
            write_text(stamp, json.dumps({"stale": asked[key], "asked": uuid.uuid4().hex}) + "\n" + text)
            continue
        if not stamp.exists() or stamp.read_text(encoding="utf-8") != text:
            write_text(stamp, text)
        os.utime(stamp, (_LONG_AGO, _LONG_AGO))
        _put_in_order(job, [everything[before] for before in job.before], layout)
    return [(everything[key], why) for key, why in asked.items()]


def _put_in_order(job: Job, before: list[Job], layout: Layout) -> None:
    """Outputs that are older than inputs whose content they were made from get the inputs' time."""
    # Snakemake counts the file of a job's times among its outputs where it is there, which after a pull it need not be.
    times = layout.times(*job.key)
    outputs = [*job.outputs, times] if times.exists() else job.outputs
    with contextlib.suppress(OSError):  # something is missing, and will be made
        newest = max((path.stat().st_mtime_ns for other in before for path in other.outputs), default=0)
        for path in outputs:
            if path.stat().st_mtime_ns < newest:
                os.utime(path, ns=(newest, newest))
