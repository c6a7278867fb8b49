"""The jobs of a benchmark: one stage of one thing each, with what decides its result and what it reads.

The workflow's rules, the records, DVC's stages, the packing of folders and the plan are all made from this one list.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from potgan.common.download import is_address
from potgan.common.errors import UserError
from potgan.data.sources.published import PublishedFile, of_section, places, wanted
from potgan.pipeline.code import code_fingerprint
from potgan.settings.layout import Layout
from potgan.settings.protocols import PROTOCOLS
from potgan.settings.reading import as_tree
from potgan.settings.schema import FIRST_CHECKPOINT_SUFFIX, PUBLISHED, REFERENCE_METHODS, Benchmark, RunSettings

#: Per stage: what its rule declares as outputs, the record first.
OUTPUTS = {
    "published": ("published.json",),
    "images": ("images.json", "images.csv"),
    "keypoints": ("keypoints.json", "keypoints.csv"),
    "pairs": ("pairs.json", "pairs-train.csv", "pairs-validation.csv", "pairs-test.csv"),
    "masks": ("masks.json", "masks.npz"),
    "parsing": ("parsing.json", "parsing.zip"),
    "train": ("done.json",),
    "feature_network": ("network.json",),
    "generate": ("generate.json", "generated.csv"),
    "evaluate": ("scores.json", "per-pair.csv", "sensitivity.csv"),
}

Key = tuple[str | int, ...]  # stage, and what it is of: data set, method, seed
TABULATE: Key = ("tabulate",)


@dataclass(frozen=True)
class Job:
    """One stage of one thing. key: (stage, data set, method, seed) as far as there are; before: keys of what it reads."""

    key: Key
    folder: Path
    outputs: tuple[Path, ...]  # as the rule declares them; the first is the record
    settings: str  # JSON
    before: tuple[Key, ...]
    given: tuple[str, ...] = ()  # files and folders of the user that it reads, as the configuration names them
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

    def add(
        key: Key,
        folder: Path,
        settings: object,
        before: tuple[Key, ...],
        given: tuple[str | None, ...] = (),
        method: str | None = None,
    ) -> Key:
        outputs = tuple(folder / name for name in OUTPUTS[key[0]])
        paths = tuple(path for path in given if path and not is_address(path))
        found[key] = Job(key, folder, outputs, json.dumps(settings, sort_keys=True, default=str), before, paths, method)
        return key

    protocol, tree = PROTOCOLS[benchmark.protocol], as_tree(benchmark)
    network: tuple[Key, ...] = ()
    if protocol.feature_network == "synthetic-classifier":
        network = (add(("feature_network",), layout.feature_network, tree["feature_network"], ()),)
    for dataset, settings in tree["datasets"].items():
        given = benchmark.datasets[dataset]
        sources = (given.source, *named_paths(given.splits.values()))
        tables = named_paths(given.keypoints.tables.values())
        lists = named_paths((given.pairs.train, given.pairs.test))
        try:
            files = wanted(given)
        except UserError as error:
            raise UserError(f"datasets.{dataset}.{error}") from None
        published: tuple[Key, ...] = ()
        if files:
            decided = _published_settings(settings, files)
            where = tuple(places(given, layout.data))
            published = (add(("published", dataset), layout.published(dataset), decided, (), where),)
        with_lists = published if of_section(files, "splits") else ()
        images = add(("images", dataset), layout.images(dataset), _images_settings(settings), with_lists, sources)
        decided = _keypoint_settings(settings)
        keypoints = add(("keypoints", dataset), layout.keypoints(dataset), decided, (*published, images), tables)
        decided = _pair_settings(settings)
        pairs = add(("pairs", dataset), layout.pairs(dataset), decided, (*published, images, keypoints), lists)
        data = (images, keypoints, pairs)
        parsing: tuple[Key, ...] = ()
        if any(benchmark.reads_parsing(m) for m in benchmark.models if m in benchmark.methods_of(dataset)):
            folder, decided = layout.parsing(dataset), _parsing_settings(settings)
            parsing = (add(("parsing", dataset), folder, decided, (images, pairs), (given.parsing,)),)
        # Settings of a run for each model, once: they differ between seeds in the seed alone.
        runs = {model: benchmark.run_settings(dataset, model, 0) for model in benchmark.models}
        drawn = [settings["image_size"], runs[benchmark.main_model].masks.limb_radius]
        add(("masks", dataset), layout.masks(dataset), drawn, (images, keypoints))
        trained_as = benchmark.trainings(dataset)
        for method in benchmark.methods_of(dataset):
            model = benchmark.model_of(method)
            inputs = (*data, *parsing) if model is not None and benchmark.reads_parsing(model) else data
            for seed in benchmark.seeds_of(method):
                reads = inputs
                if model is not None:
                    run = runs[trained_as[model]]
                    train = ("train", dataset, trained_as[model], seed)
                    if train not in found:
                        decided = dataclasses.replace(run, seed=seed).training_dict
                        add(train, layout.train(*train[1:]), decided, inputs, method=run.method)
                    reads = (*inputs, train)
                released = benchmark.external_methods.get(method)
                generate = add(
                    ("generate", dataset, method, seed),
                    layout.generate(dataset, method, seed),
                    _generation_settings(benchmark, dataset, method, runs.get(model)),
                    reads,
                    (released.images, released.targets) if released else (),
                    runs[model].method if model else None,
                )
                add(
                    ("evaluate", dataset, method, seed),
                    layout.evaluate(dataset, method, seed),
                    [protocol.hash, settings["image_size"], _generator(runs[model]) if model else None],
                    (*data, generate, *network),
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


def named_paths(values: Iterable[str | None]) -> tuple[str, ...]:
    """The paths among the values of settings that name a file, ask for the published one, or are not set."""
    return tuple(value for value in values if value is not None and value != PUBLISHED)


def _published_settings(dataset: dict, files: dict[str, PublishedFile]) -> dict:
    # Lists of splits may lie beside the images.
    beside = ["source"] if of_section(files, "splits") else []
    return {"files": {setting: dataclasses.asdict(file) for setting, file in files.items()},
            "estimator": dataset["keypoints"]["estimator"], **_only(dataset, "kind", "published", *beside)}  # fmt: skip


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


def _parsing_settings(dataset: dict) -> dict:
    return _only(dataset, "kind", "parsing_classes", *(["synthetic"] if dataset["kind"] == "synthetic" else []))


def _only(tree: dict, *names: str) -> dict:
    return {name: tree[name] for name in names}


def _generation_settings(benchmark: Benchmark, dataset: str, method: str, run: RunSettings | None) -> list[object]:
    size = benchmark.datasets[dataset].image_size
    if method in benchmark.external_methods:
        entry = benchmark.external_methods[method]
        origin = [entry.dataset, entry.images, entry.layout, entry.targets]
        return [*origin, size, PROTOCOLS[benchmark.protocol].targets]
    if method in REFERENCE_METHODS:
        return [method, size]
    variant = benchmark.intervention_of(method) or method.endswith(FIRST_CHECKPOINT_SUFFIX)
    return [_generator(run), dataclasses.asdict(run.masks), size, variant]


def _generator(run: RunSettings) -> dict:
    """What the generator of a run is: PoT-GAN's section, or the options of another method."""
    return dataclasses.asdict(run.generator if run.options is None else run.options)
