"""Turns a configuration, which is YAML or a mapping, into a checked `Benchmark`, and back."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from pathlib import Path

import yaml

from potgan.common.download import check_checksum_text
from potgan.common.errors import UserError
from potgan.common.paths import CONFIGURATIONS, at_home
from potgan.common.typed import build
from potgan.settings.methods import method_names
from potgan.settings.precision import check_precisions
from potgan.settings.protocols import PROTOCOLS
from potgan.settings.schema import (
    FIRST_CHECKPOINT_SUFFIX,
    INTERVENTIONS,
    REFERENCE_METHODS,
    SPLITS,
    STAGES,
    VGG_WIDTH,
    Benchmark,
)

#: Sections whose entries a file that is laid over another can remove.
REMOVABLE = ("datasets", "models", "external_methods")

#: How the names of rows end that are no models of their own.
RESERVED_ENDINGS = (FIRST_CHECKPOINT_SUFFIX, *(f"-{kind}" for kind in INTERVENTIONS))


def load(source: str | Path | list[Path] | dict[str, typing.Any]) -> Benchmark:
    """Read and check a configuration from a YAML file, from several that are laid over each other, or from a mapping.

    If the (first) file has the key `base`, it is laid over the configuration that this key names. Raises UserError for a file that
    is missing or is not YAML, an unknown key, a wrong type or an impossible value.
    """
    files = source if isinstance(source, list) else [source]
    where = "configuration" if isinstance(source, dict) else " + ".join(map(str, files))
    tree: dict[str, typing.Any] = {}
    for path, settings in layers(source):
        for section in REMOVABLE:
            entries = settings.get(section)
            for name in [n for n, entry in entries.items() if entry is False] if isinstance(entries, dict) else ():
                if path is not None and name not in (tree.get(section) or {}):
                    raise UserError(
                        f"{path}: {section}.{name}: false removes an entry, and there is none of this name below{_LAID_OVER}"
                    )
        tree = _laid_over(tree, settings)
    tree.pop("base", None)
    tree = _at_home(tree)
    for section in REMOVABLE:
        if isinstance(tree.get(section), dict):
            # A file that is laid over another can remove an entry of it with `name: false`.
            tree[section] = {name: entry for name, entry in tree[section].items() if entry is not False}
    if "benchmark" not in tree and not isinstance(source, dict):
        raise UserError(f"{where}: key 'benchmark' is missing{_LAID_OVER}")
    benchmark = build(Benchmark, tree, where, root=True)
    try:
        _check(benchmark, where)
        check_precisions(benchmark, where)
    except UserError as error:
        # What one model's settings say names its place alone, because it is also said where no file is known.
        named = isinstance(source, dict) or str(error).startswith(where)
        raise UserError(str(error) if named else f"{where}: {error}") from None
    return benchmark


#: What helps where a file is no whole configuration.
_LAID_OVER = "; a file that is laid over others is named behind them (--config config/config.yaml FILE)"


def layers(
    source: str | Path | list[Path] | dict[str, typing.Any],
) -> list[tuple[Path | None, dict[str, typing.Any]]]:
    """Return (file, its settings) for a configuration and for each one that it is laid over, the lowest first.

    The file is None if `source` is a mapping. Raises UserError for a file that is missing or is no YAML mapping, and for a
    configuration that is laid over itself.
    """
    if isinstance(source, list):
        first, *others = source
        return [*layers(first), *((Path(path), _read(Path(path))) for path in others)]
    found: list[tuple[Path | None, dict[str, typing.Any]]] = []
    path = None if isinstance(source, dict) else Path(source)
    tree = source if isinstance(source, dict) else _read(Path(source))
    while True:
        if any(known == path for known, _ in found if path is not None):
            raise UserError(f"{path}: is laid over itself by the key base")
        found.insert(0, (path, tree))
        base = tree.get("base")
        if base is None:
            return found
        path = CONFIGURATIONS / str(base)
        if not path.is_file():
            names = ", ".join(sorted(known.name for known in CONFIGURATIONS.glob("*.yaml")))
            raise UserError(f"base: {str(base)!r} is no configuration of {CONFIGURATIONS}; there are {names}")
        tree = _read(path)


def _read(path: Path) -> dict[str, typing.Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: must be a mapping of settings, and is {type(tree).__name__}")
    return tree


def _laid_over(lower: typing.Any, upper: typing.Any) -> typing.Any:
    """Merge two settings as Snakemake merges several files.

    Mappings are merged key by key. For anything else the upper value is taken.
    """
    if not isinstance(lower, dict) or not isinstance(upper, dict):
        return upper
    return lower | {key: _laid_over(lower.get(key), value) for key, value in upper.items()}


def _at_home(setting: typing.Any) -> typing.Any:
    """A setting, and all settings inside of it, with the user's home folder in place of a `~` at the beginning of a text."""
    if isinstance(setting, dict):
        return {key: _at_home(value) for key, value in setting.items()}
    if isinstance(setting, list):
        return [_at_home(value) for value in setting]
    return at_home(setting) if isinstance(setting, str) else setting


def as_tree(benchmark: Benchmark) -> dict[str, typing.Any]:
    """Return the resolved configuration as plain JSON types. `load(as_tree(b)) == b` holds."""
    return json.loads(json.dumps(dataclasses.asdict(benchmark)))


def dump(benchmark: Benchmark) -> str:
    """Return the resolved configuration as YAML. `load` of it gives an equal object."""
    return yaml.safe_dump(as_tree(benchmark), sort_keys=False, allow_unicode=True, width=110)


def _check(benchmark: Benchmark, where: str) -> None:
    def require(condition: bool, message: str) -> None:
        if not condition:
            raise UserError(f"{where}: {message}")

    def one_of(value: str, choices: tuple[str, ...], what: str) -> None:
        require(value in choices, f"{what} must be one of {', '.join(choices)}, and is {value!r}")

    for kind, names in (
        ("benchmark", [benchmark.benchmark]),
        ("data set", benchmark.datasets),
        ("model", benchmark.models),
        ("external method", benchmark.external_methods),
    ):
        for name in names:
            require(
                re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name) is not None,
                f"{kind} name {name!r} must consist of a-z, 0-9, '.' and '-', since it becomes a folder",
            )
    reserved = {*STAGES, *REFERENCE_METHODS}
    for name in benchmark.models:
        require(name not in reserved and not name.endswith(RESERVED_ENDINGS), f"model name {name!r} is reserved")
        require(
            name not in method_names() or name == "potgan" or "method" in benchmark.models[name],
            f"models.{name}: has the name of a method, and would be trained as PoT-GAN; write method: {name} (or lay the file over "
            "config/methods.yaml)",
        )
    _check_external(benchmark, reserved, require, one_of)
    require(bool(benchmark.datasets), "datasets is empty")
    require(bool(benchmark.models), "models is empty")
    require(bool(benchmark.seeds), "seeds is empty")
    for name, dataset in benchmark.datasets.items():
        require(
            dataset.kind != "synthetic" or dataset.synthetic.seed != benchmark.feature_network.seed,
            f"feature_network.seed is {benchmark.feature_network.seed}, as datasets.{name}.synthetic.seed is: the classifier would "
            "be trained on the people that it measures; choose another seed",
        )
    require(len(set(benchmark.seeds)) == len(benchmark.seeds), "seeds repeats a seed")
    require(len(set(benchmark.interventions)) == len(benchmark.interventions), "interventions repeats an entry")
    require(
        "true-flow" not in benchmark.interventions or any(d.kind == "synthetic" for d in benchmark.datasets.values()),
        "interventions: true-flow needs synthetic people, because nobody knows the flow of other data sets",
    )
    one_of(benchmark.protocol, tuple(PROTOCOLS), "protocol")
    require(
        PROTOCOLS[benchmark.protocol].targets == "dataset",
        f"protocol {benchmark.protocol} measures against the targets of released strips, which a benchmark's own images have "
        "not; choose another, and measure strips with `potgan score`",
    )
    for name, dataset in benchmark.datasets.items():
        at = f"datasets.{name}"
        require(
            dataset.kind != "synthetic"
            or tuple(dataset.image_size) == (dataset.synthetic.height, dataset.synthetic.width),
            f"{at}.image_size must equal synthetic.height and .width, so that the true flow fits the images",
        )
        for split in dataset.splits:
            one_of(split, SPLITS, f"{at}.splits")
        if dataset.checksum is not None:
            check_checksum_text(dataset.checksum, f"{where}: {at}.checksum")
        if dataset.crop_columns is not None:
            first, last = dataset.crop_columns
            require(0 <= first < last, f"{at}.crop_columns must be two rising columns, and is {[first, last]}")
            require(dataset.kind != "synthetic", f"{at}.crop_columns: synthetic images are not cropped")
        require(
            dataset.kind != "synthetic" or not (dataset.parsing or dataset.parsing_classes),
            f"{at}.parsing: synthetic people have an exact parsing; leave it out",
        )
        require(
            (dataset.parsing is None) == (dataset.parsing_classes is None),
            f"{at}: parsing and parsing_classes are set together; name the folder of the label images, and say whether they are "
            "in the classes of `lip` or of `adgan`",
        )
        require(
            dataset.keypoints.frame == "original" or dataset.crop_columns is not None,
            f"{at}.keypoints.frame is cropped, but there are no crop_columns",
        )
        left_out = benchmark.why_left_out(name, benchmark.main_model)
        require(
            not left_out,
            f"models: the first is the main one, which every data set needs, and {left_out}; put another first",
        )
        main = benchmark.run_settings(name, benchmark.main_model, benchmark.seeds[0])
        require(
            main.method == "potgan",
            f"models: the first, {benchmark.main_model}, is the one that the report compares with, and must be one of PoT-GAN; put "
            "another first",
        )
        require(
            not benchmark.interventions
            or (main.generator.pose_transform and main.training.coordinates_learning_rate > 0),
            f"interventions: {benchmark.main_model} has no warps on {name} that others could stand for",
        )
        for model in benchmark.models:
            run = benchmark.run_settings(name, model, benchmark.seeds[0])
            at = f"models.{model}"
            require(
                run.training.batch_size % run.training.processes == 0,
                f"{at}: training.batch_size {run.training.batch_size} cannot be shared equally by "
                f"{run.training.processes} processes",
            )
            require(
                run.training.perceptual_network == "random" or run.training.perceptual_width == VGG_WIDTH,
                f"{at}: training.perceptual_width is {run.training.perceptual_width}, and VGG-16 has {VGG_WIDTH} channels; leave "
                "it out, or set perceptual_network: random",
            )
            require(
                run.method == "potgan" or run.training.ema == 0,
                f"{at}: training.ema is {run.training.ema}, and {run.method} averages no weights; set ema in the models of PoT-GAN "
                "alone",
            )
            problem = getattr(run.options, "problem", lambda _: "")(run.training.iterations)
            require(not problem, f"{at}.options: {problem}")
            for key in ("checkpoints", *(["decay_from"] if run.method == "potgan" else [])):
                require(
                    getattr(run.training, key) <= run.training.iterations,
                    f"{at}: training.{key} must be at most training.iterations",
                )


def _check_external(
    benchmark: Benchmark, reserved: set[str], require: typing.Callable, one_of: typing.Callable
) -> None:
    for name, method in benchmark.external_methods.items():
        at = f"external_methods.{name}"
        require(
            name not in reserved | set(benchmark.models) and not name.endswith(RESERVED_ENDINGS),
            f"external method name {name!r} is reserved or a model's",
        )
        # A data set that cannot be had here was moved from `datasets` to `absent`. Its cells in the tables say why.
        one_of(method.dataset, (*benchmark.datasets, *benchmark.absent), f"{at}.dataset")
        require(bool(method.label.strip()), f"{at}.label is empty")
