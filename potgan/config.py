"""A benchmark's configuration: YAML -> frozen dataclasses, checked; and where each stage's results lie.

A configuration file *is* a benchmark with a name. Every setting stands once in `config/*.yaml`, with its unit and reason
beside it; the dataclasses below say its type and its meaning. An unknown key is an error that names the nearest known
one. `run_settings` resolves what one training sees; its fingerprint keys checkpoints and results.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import json
import os
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from potgan.download import check_checksum_text
from potgan.errors import UserError
from potgan.precision import check_precisions

STAGES = ("images", "keypoints", "pairs", "train", "generate", "evaluate", "tabulate")
#: Methods that need no training; every table shows them, so that a reader knows where the scale begins and ends.
REFERENCE_METHODS = ("copy-source", "mean-image", "real-data")
FIRST_CHECKPOINT_SUFFIX = "-first-checkpoint"
#: Layouts of released result folders (`potgan/result_folders.py`, which says what they are).
RESULT_LAYOUTS = ("plain", "deform", "patn", "gfla")


@dataclass(frozen=True)
class SyntheticSettings:
    """The embedded data set (`potgan/synthetic.py`)."""

    train_identities: int = 96
    test_identities: int = 24
    images_per_identity: int = 8
    height: int = 128  # pixels; Market-1501's size
    width: int = 64
    cameras: int = 6  # 1 to 6
    seed: int = 0


@dataclass(frozen=True)
class PairSettings:
    """Which ordered (from, to) pairs are used; PROTOCOLS 2.1, `potgan/pairs.py`."""

    rule: str = "patn"  # both shoulders and both hips present in both images; junk and distractors dropped
    test_sample: int | None = None  # number of test pairs drawn without replacement; null: all
    test_seed: int = 0
    validation_identities: int = 0  # training identities held out for every choice of a setting
    validation_sample: int | None = None
    train: str | None = None  # a published pair list, used instead of the rule
    test: str | None = None


@dataclass(frozen=True)
class OpenPifPafSettings:
    """Key points by OpenPifPaf, in an environment of its own (`workflow/envs/openpifpaf`)."""

    checkpoint: str = "shufflenetv2k16"  # a published one (`potgan/pretrained.py`), or the path of a checkpoint file
    checkpoint_sha256: str | None = None  # of a file; checked before it is unpickled. null: the published one's
    scale: float = 3.0  # images are enlarged by it before detection: networks fail on people 100 pixels high
    batch_size: int = 8  # images
    workers: int = 2  # processes; the decoder is sequential, so that more of them is what speeds it up
    shard_size: int = 256  # images; a killed run goes on after the last finished shard
    device: str = "auto"  # auto | cpu | cuda


@dataclass(frozen=True)
class KeypointSettings:
    """Where the key points come from, and when they are too bad to go on."""

    estimator: str = "table"  # table: the files below | openpifpaf. Synthetic images: table means the exact ones
    train: str | None = None  # published table, COCO or OpenPose JSON; with openpifpaf: what it is compared with
    test: str | None = None
    frame: str = "original"  # original | cropped: whose pixels the tables count, where crop_columns is set
    minimum_detection_rate: float = 0.5  # share of images with any joint, below which something is broken
    openpifpaf: OpenPifPafSettings = OpenPifPafSettings()

    @property
    def tables(self) -> dict[str, str]:
        """split -> path, of the tables that are named."""
        named = {"train": self.train, "test": self.test}
        return {split: path for split, path in named.items() if path is not None}


@dataclass(frozen=True)
class Dataset:
    """One data set of the benchmark."""

    kind: str  # synthetic | market1501 | dukemtmc | deepfashion: the layout and the file-name grammar
    label: str  # as the tables print it
    image_size: tuple[int, int] = (128, 64)  # height, width in pixels; images of other sizes are resized once
    # The user's archive or folder, an address (http://, https://, drive:<id>), or null: what lies in the data folder,
    # else what benchmarks/<kind>.yaml says where to fetch.
    source: str | None = None
    checksum: str | None = None  # sha256:<digits> (or md5:, sha1:) of the archive; null: the published one
    crop_columns: tuple[int, int] | None = None  # first, and one past the last; PATN's DeepFashion: [40, 216]
    splits: dict[str, str] = field(default_factory=dict)  # split -> list of image names (DeepFashion only)
    keypoints: KeypointSettings = KeypointSettings()
    unreadable_images: str = "stop"  # stop | skip: what happens when an image cannot be decoded (skip counts them)
    allow_partial: bool = False  # accept an archive with fewer images than the published counts
    synthetic: SyntheticSettings = SyntheticSettings()
    pairs: PairSettings = PairSettings()
    overrides: dict[str, typing.Any] = field(default_factory=dict)  # of generator, training ... for this data set


@dataclass(frozen=True)
class GuidedFilterSettings:
    """Section III-B "Guided Filter"; the guide is the target mask M_b."""

    mode: str = "train"  # train: last layer of G always; test: only when generating; off
    radius: int = 1  # pixels; window of (2 radius + 1)^2
    epsilon: float = 1e-2  # squared units of the guide, which lies in [0, 1]


@dataclass(frozen=True)
class GeneratorSettings:
    """G of Section III-B. Channels at strides 2, 4, 8, 16 are width x (1, 2, 4, 8)."""

    width: int = 64
    normalization: str = "instance"  # instance | batch, of encoders and decoder (PoT encoders: always instance)
    pose_transform: bool = True  # false: skip features are not moved, and the module is not built
    control_points: tuple[int, int] = (4, 4)  # rows, columns of the TPS
    control_point_span: float = 0.9  # outermost rest position; < 1, because tanh bounds the output
    guided_filter: GuidedFilterSettings = GuidedFilterSettings()


@dataclass(frozen=True)
class DiscriminatorSettings:
    """D of Section III-B: convolutions and one dense layer on (image, mask)."""

    width: int = 64
    normalization: str = "instance"  # instance | batch | none


@dataclass(frozen=True)
class LossWeights:
    """Eq. (8): lambda_1, lambda_2, lambda_3."""

    reconstruction: float = 10.0
    perceptual: float = 1.0
    adversarial: float = 0.5


@dataclass(frozen=True)
class MaskSettings:
    """The pose masks M and the heat maps P (Section IV-C; PROTOCOLS 7.2 items 21-22)."""

    limb_radius: int = 4  # pixels; 4 at 128 x 64, 8 at 256 x 256
    heatmap_sigma: float = 6.0  # pixels


@dataclass(frozen=True)
class TrainingSettings:
    """Algorithm 1 and Section III-C."""

    iterations: int = 90_000
    batch_size: int = 32
    learning_rate: float = 2e-4
    discriminator_learning_rate: float = 2e-4
    coordinates_learning_rate: float = 2e-4  # of the coordinates generation nets, whose output moves whole images
    adam_betas: tuple[float, float] = (0.5, 0.999)
    decay_from: int = 60_000  # iteration at which the rate starts to fall linearly to 0 at `iterations`
    perceptual_network: str = "vgg16"  # vgg16: ImageNet weights, by SHA-256 | random: the same layers, seeded
    checkpoints: int = 9  # evenly spaced; the generator's weights of each are kept, the state of the last
    log_every: int = 100  # iterations between lines of progress.csv
    save_every: int = 1000  # iterations between saved states, for a run that is killed
    precision: str = "fp32"  # fp32 | tf32 | bf16; another than the paper's fp32 enters a table only with its difference
    ema: float = 0.0  # decay per iteration of a running average of G's weights, which is then what is kept; 0: none
    # How it is run, not what is trained: results may differ by the rounding of sums, as between two machines.
    threads: int = 1  # CPU threads of one training (of each process)
    processes: int = 1  # one a GPU; each gets its share of every batch
    device_batch_size: int | None = (
        None  # the most pairs at once on one device; smaller parts are accumulated. null: all
    )
    compile: str = "auto"  # auto: long trainings on a GPU | always | never


@dataclass(frozen=True)
class ExternalMethod:
    """Somebody else's released results, scored as a row of their own; nothing is trained (`potgan/result_folders.py`)."""

    label: str  # as the tables print it, with "(re-scored)" behind it
    dataset: str  # a data set of this configuration, whose test pairs the images must be of
    images: str  # the folder of result images
    layout: str  # plain | deform | patn | gfla: how its files are named and what they hold
    targets: str | None = None  # folder of target images for results without them; null: the data set's own
    table_row: str | None = None  # method of benchmarks/published.csv whose literature row this one stands under


@dataclass(frozen=True)
class Benchmark:
    """A whole configuration file."""

    benchmark: str
    description: str
    protocol: str  # an id of potgan.metrics.protocols.PROTOCOLS
    datasets: dict[str, Dataset]
    models: dict[str, dict[str, typing.Any]]  # name -> what differs from the sections below; the first is the main one
    seeds: tuple[int, ...] = (0,)
    generator: GeneratorSettings = GeneratorSettings()
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    loss_weights: LossWeights = LossWeights()
    masks: MaskSettings = MaskSettings()
    training: TrainingSettings = TrainingSettings()
    feature_network: dict[str, typing.Any] = field(default_factory=dict)  # of the synthetic protocol; see its module
    external_methods: dict[str, ExternalMethod] = field(default_factory=dict)  # name -> somebody else's images
    differences_from_paper: tuple[str, ...] = ()  # printed in the report
    absent: dict[str, str] = field(default_factory=dict)  # data set -> why it is not run; the workflow fills it in

    @property
    def main_model(self) -> str:
        return next(iter(self.models))

    @property
    def methods(self) -> tuple[str, ...]:
        """All rows that are scored: models, the main model's first checkpoint, references, external methods.

        An external method has images of one data set only: `methods_of` says which rows a data set has.
        """
        return (*self.models, self.main_model + FIRST_CHECKPOINT_SUFFIX, *REFERENCE_METHODS, *self.external_methods)

    def methods_of(self, dataset: str) -> tuple[str, ...]:
        """The rows that are generated (or imported) and scored on a data set."""
        external = self.external_methods
        return tuple(m for m in self.methods if m not in external or external[m].dataset == dataset)

    def seeds_of(self, method: str) -> tuple[int, ...]:
        return self.seeds if self.model_of(method) else (0,)

    def model_of(self, method: str) -> str | None:
        """The model behind a row; None for rows without a training, which are references and external methods."""
        if method in REFERENCE_METHODS or method in self.external_methods:
            return None
        return method.removesuffix(FIRST_CHECKPOINT_SUFFIX)

    def run_settings(self, dataset: str, model: str, seed: int) -> RunSettings:
        """What one training and its generation see: sections <- data set's overrides <- model's entry."""
        if dataset not in self.datasets:
            raise UserError(f"configuration: no data set {dataset!r}; there are {', '.join(self.datasets)}")
        if model not in self.models:
            raise UserError(f"configuration: no model {model!r}; there are {', '.join(self.models)}")
        settings = self.datasets[dataset]
        sections = {
            name: dataclasses.asdict(getattr(self, name))
            for name in ("generator", "discriminator", "loss_weights", "masks", "training")
        }
        for where, override in (
            (f"datasets.{dataset}.overrides", settings.overrides),
            (f"models.{model}", self.models[model]),
        ):
            sections = _merge(sections, override, where)
        return build(
            RunSettings,
            {**sections, "dataset": dataset, "seed": seed, "image_size": settings.image_size},
            f"models.{model}",
        )

    def trained_as(self, dataset: str, model: str) -> str:
        """The model whose training `model` uses: the first with the same training fingerprint.

        With `guided_filter.mode: test` the filter is no part of training, so `no-guided-filter` shares the network of
        `potgan`: the comparison is paired, and nothing is trained twice.
        """
        return self.trainings(dataset)[model]

    def trainings(self, dataset: str) -> dict[str, str]:
        """`trained_as` of every model; those that are trained themselves stand for themselves."""
        prints = {model: self.run_settings(dataset, model, 0).training_fingerprint for model in self.models}
        return {model: next(other for other in prints if prints[other] == prints[model]) for model in prints}


#: Settings of a training that do not decide what is trained: how it is watched, and on what it runs.
HOW_IT_IS_RUN = ("log_every", "save_every", "threads", "processes", "device_batch_size", "compile")


@dataclass(frozen=True)
class RunSettings:
    """Everything that decides one trained model, apart from the data themselves."""

    dataset: str
    seed: int
    image_size: tuple[int, int]
    generator: GeneratorSettings
    discriminator: DiscriminatorSettings
    loss_weights: LossWeights
    masks: MaskSettings
    training: TrainingSettings

    @property
    def training_dict(self) -> dict[str, typing.Any]:
        """What training depends on. A filter that is not trained through is no part of it."""
        tree = dataclasses.asdict(self)
        for name in HOW_IT_IS_RUN:
            del tree["training"][name]
        if self.generator.guided_filter.mode != "train":
            tree["generator"]["guided_filter"] = "not in training"
        return json.loads(json.dumps(tree))

    @property
    def training_fingerprint(self) -> str:
        return fingerprint(self.training_dict)

    def images_fingerprint(self, checkpoint: str) -> str:
        """Of what decides a model's images apart from the data: its training, its generator, and which checkpoint."""
        return fingerprint([self.training_dict, str(self.generator), checkpoint])


def fingerprint(tree: typing.Any) -> str:
    """12 hexadecimal digits of the SHA-256 of the canonical JSON of `tree`."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True, default=str).encode()).hexdigest()[:12]


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def load(source: str | Path | dict[str, typing.Any]) -> Benchmark:
    """Read and check a configuration, from a YAML file or from a mapping.

    Raises UserError for a file that is missing or no YAML, an unknown key, a wrong type or an impossible value.
    """
    if isinstance(source, dict):
        tree, where = source, "configuration"
    else:
        where = str(source)
        try:
            tree = yaml.safe_load(Path(source).read_text())
        except FileNotFoundError:
            raise UserError(f"{where}: no such configuration file") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{where}: is not YAML ({' '.join(str(error).split())})") from None
    if not isinstance(tree, dict):
        raise UserError(f"{where}: must be a mapping of settings, and is {type(tree).__name__}")
    if isinstance(tree.get("models"), dict):
        # A file laid over another takes a model away with `name: false`.
        tree = tree | {"models": {name: entry for name, entry in tree["models"].items() if entry is not False}}
    benchmark = build(Benchmark, tree, where, root=True)
    _check(benchmark, where)
    check_precisions(benchmark, where)
    return benchmark


def as_tree(benchmark: Benchmark) -> dict[str, typing.Any]:
    """The resolved configuration as plain JSON types; `load(as_tree(b)) == b`."""
    return json.loads(json.dumps(dataclasses.asdict(benchmark)))


def dump(benchmark: Benchmark) -> str:
    """The resolved configuration as YAML; `load` of it gives an equal object."""
    return yaml.safe_dump(as_tree(benchmark), sort_keys=False, allow_unicode=True, width=110)


def _merge(base: dict, override: dict, where: str) -> dict:
    if not isinstance(override, dict):
        raise UserError(f"{where}: must be a mapping, and is {override!r}")
    merged = dict(base)
    for key, value in override.items():
        if key not in base:
            raise UserError(_unknown_key(key, base, where))
        merged[key] = _merge(base[key], value, f"{where}.{key}") if isinstance(base[key], dict) else value
    return merged


def _unknown_key(key: str, known: typing.Iterable[str], where: str) -> str:
    known = list(known)
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return f"{where}: unknown key {key!r}; {hint}"


def build(cls: type, tree: typing.Any, where: str, root: bool = False) -> typing.Any:
    """An instance of dataclass `cls` from nested mappings, every type checked."""
    if not isinstance(tree, dict):
        raise UserError(f"{where}: must be a mapping, and is {tree!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in tree:
        if key not in fields:
            raise UserError(_unknown_key(key, fields, where))
    values = {}
    for name, spec in fields.items():
        if name in tree:
            values[name] = _convert(hints[name], tree[name], f"{where}: {name}" if root else f"{where}.{name}")
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}: key {name!r} is missing")
    return cls(**values)


def _convert(kind: typing.Any, value: typing.Any, where: str) -> typing.Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is typing.Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(arguments[0], value, where)
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else build(kind, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{where}: must be a mapping, and is {value!r}")
        # An empty entry in YAML (`potgan:`) means "no settings of its own".
        return {
            str(k): _convert(arguments[1], {} if v is None and arguments[1] is not str else v, f"{where}.{k}")
            for k, v in value.items()
        }
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: must be a list, and is {value!r}")
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise UserError(f"{where}: must have {len(arguments)} values, and has {len(value)}")
        item = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_convert(t, v, f"{where}[{i}]") for i, (t, v) in enumerate(zip(item, value, strict=True)))
    if kind is str and value is False:
        return "off"  # YAML 1.1 reads the bare word off as false
    if kind in (float, int) and isinstance(value, str):
        # YAML 1.1 reads 1e-3 as a string, and so does `snakemake --config seeds=[0,1]` every item of a list.
        with contextlib.suppress(ValueError):
            return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{where}: must be of type {kind.__name__}, and is {value!r}")
    return value


_CHOICES = {
    "guided_filter.mode": ("train", "test", "off"),
    "generator.normalization": ("instance", "batch"),
    "discriminator.normalization": ("instance", "batch", "none"),
    "training.perceptual_network": ("vgg16", "random"),
    "training.precision": ("fp32", "tf32", "bf16"),
    "training.compile": ("auto", "always", "never"),
}


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
        require(name not in reserved and not name.endswith(FIRST_CHECKPOINT_SUFFIX), f"model name {name!r} is reserved")
    _check_external(benchmark, reserved, require, one_of)
    require(bool(benchmark.datasets), "datasets is empty")
    require(bool(benchmark.models), "models is empty")
    require(bool(benchmark.seeds), "seeds is empty")
    require(len(set(benchmark.seeds)) == len(benchmark.seeds), "seeds repeats a seed")
    from potgan.metrics.protocols import PROTOCOLS  # facts only, no torch

    one_of(benchmark.protocol, tuple(PROTOCOLS), "protocol")
    require(
        PROTOCOLS[benchmark.protocol].targets == "dataset",
        f"protocol {benchmark.protocol} measures against the targets of released strips, which a benchmark's own images have "
        "not; choose another, and measure strips with `potgan score`",
    )
    for name, dataset in benchmark.datasets.items():
        at = f"datasets.{name}"
        one_of(dataset.kind, ("synthetic", "market1501", "dukemtmc", "deepfashion"), f"{at}.kind")
        one_of(dataset.unreadable_images, ("stop", "skip"), f"{at}.unreadable_images")
        one_of(dataset.pairs.rule, ("patn", "pg2"), f"{at}.pairs.rule")
        require(min(dataset.image_size) >= 32, f"{at}.image_size must be at least 32 x 32")
        require(
            all(side % 16 == 0 for side in dataset.image_size),
            f"{at}.image_size must be multiples of 16 (four blocks that halve), and is {list(dataset.image_size)}",
        )
        require(
            dataset.kind != "synthetic"
            or tuple(dataset.image_size) == (dataset.synthetic.height, dataset.synthetic.width),
            f"{at}.image_size must equal synthetic.height and .width, so that the true flow fits the images",
        )
        for split in dataset.splits:
            one_of(split, ("train", "test"), f"{at}.splits")
        _check_keypoints(dataset.keypoints, f"{at}.keypoints", require, one_of)
        if dataset.checksum is not None:
            check_checksum_text(dataset.checksum, f"{where}: {at}.checksum")
        if dataset.crop_columns is not None:
            first, last = dataset.crop_columns
            require(0 <= first < last, f"{at}.crop_columns must be two rising columns, and is {[first, last]}")
            require(dataset.kind != "synthetic", f"{at}.crop_columns: synthetic images are not cropped")
        require(
            dataset.keypoints.frame == "original" or dataset.crop_columns is not None,
            f"{at}.keypoints.frame is cropped, but there are no crop_columns",
        )
        for model in benchmark.models:
            run = benchmark.run_settings(name, model, benchmark.seeds[0])
            at = f"models.{model}"
            values = {
                "guided_filter.mode": run.generator.guided_filter.mode,
                "generator.normalization": run.generator.normalization,
                "discriminator.normalization": run.discriminator.normalization,
                "training.perceptual_network": run.training.perceptual_network,
                "training.precision": run.training.precision,
                "training.compile": run.training.compile,
            }
            for key, value in values.items():
                one_of(value, _CHOICES[key], f"{at}: {key}")
            require(0 < run.generator.control_point_span < 1, f"{at}: control_point_span must lie between 0 and 1")
            require(min(run.generator.control_points) >= 2, f"{at}: control_points must be at least 2 x 2")
            require(run.generator.guided_filter.radius >= 1, f"{at}: guided_filter.radius must be at least 1")
            require(run.generator.guided_filter.epsilon > 0, f"{at}: guided_filter.epsilon must be positive")
            require(run.training.iterations >= 1, f"{at}: training.iterations must be at least 1")
            for key in ("batch_size", "threads", "processes", "log_every", "save_every"):
                require(getattr(run.training, key) >= 1, f"{at}: training.{key} must be at least 1")
            require(
                run.training.batch_size % run.training.processes == 0,
                f"{at}: training.batch_size {run.training.batch_size} cannot be shared equally by "
                f"{run.training.processes} processes",
            )
            require(
                run.training.device_batch_size is None or run.training.device_batch_size >= 1,
                f"{at}: training.device_batch_size must be at least 1, or null",
            )
            require(0 <= run.training.ema < 1, f"{at}: training.ema must lie between 0 and 1 (0.999, say)")
            require(
                1 <= run.training.checkpoints <= run.training.iterations,
                f"{at}: training.checkpoints must lie between 1 and iterations",
            )
            require(
                0 <= run.training.decay_from <= run.training.iterations,
                f"{at}: training.decay_from must lie between 0 and iterations",
            )


def _check_external(
    benchmark: Benchmark, reserved: set[str], require: typing.Callable, one_of: typing.Callable
) -> None:
    for name, method in benchmark.external_methods.items():
        at = f"external_methods.{name}"
        require(
            name not in reserved | set(benchmark.models) and not name.endswith(FIRST_CHECKPOINT_SUFFIX),
            f"external method name {name!r} is reserved or a model's",
        )
        # A data set that cannot be had here has left `datasets`; its cells say why.
        one_of(method.dataset, (*benchmark.datasets, *benchmark.absent), f"{at}.dataset")
        one_of(method.layout, RESULT_LAYOUTS, f"{at}.layout")
        require(bool(method.label.strip()), f"{at}.label is empty")


def _check_keypoints(settings: KeypointSettings, at: str, require: typing.Callable, one_of: typing.Callable) -> None:
    one_of(settings.estimator, ("table", "openpifpaf"), f"{at}.estimator")
    one_of(settings.frame, ("original", "cropped"), f"{at}.frame")
    one_of(settings.openpifpaf.device, ("auto", "cpu", "cuda"), f"{at}.openpifpaf.device")
    require(0 <= settings.minimum_detection_rate <= 1, f"{at}.minimum_detection_rate must lie between 0 and 1")
    require(settings.openpifpaf.scale >= 1, f"{at}.openpifpaf.scale must be at least 1: images are enlarged")
    for name in ("batch_size", "workers", "shard_size"):
        require(getattr(settings.openpifpaf, name) >= 1, f"{at}.openpifpaf.{name} must be at least 1")


# ---------------------------------------------------------------------------------------------------------------------
# Where results lie


@dataclass(frozen=True)
class Layout:
    """Paths of a benchmark's results: results/<benchmark>/<data set>/<model>/seed<k>/<stage>/..."""

    benchmark: str
    root: Path = Path()

    @property
    def results(self) -> Path:
        return self.root / "results" / self.benchmark

    @property
    def reports(self) -> Path:
        return self.root / "reports" / self.benchmark

    @property
    def data(self) -> Path:
        """The folder of archives, tables and weights that the user has or that were fetched."""
        return Path(os.environ["POTGAN_DATA"]) if os.environ.get("POTGAN_DATA") else self.root / "data"

    @property
    def configuration(self) -> Path:
        return self.results / "config.yaml"

    @property
    def feature_network(self) -> Path:
        return self.results / "feature-network"

    @property
    def feature_cache(self) -> Path:
        """Features of target images, named by content hash; may be deleted at any time."""
        return self.results / "feature-cache"

    @property
    def test_set_log(self) -> Path:
        """One line for each time that test pairs were scored."""
        return self.results / "test-set.log"

    def images(self, dataset: str) -> Path:
        """Folder of the image files, with `images.csv` in it."""
        return self.results / dataset / "images"

    def keypoints(self, dataset: str) -> Path:
        """Folder with `keypoints.csv` and `keypoints.json`."""
        return self.results / dataset / "keypoints"

    def pairs(self, dataset: str) -> Path:
        """Folder with `pairs-{train,validation,test}.csv`, `pairs.json` and, where it is known, `flow.npz`."""
        return self.results / dataset / "pairs"

    def run(self, dataset: str, method: str, seed: int) -> Path:
        return self.results / dataset / method / f"seed{seed}"

    def train(self, dataset: str, model: str, seed: int) -> Path:
        """Folder with `done.json`, `progress.csv` and `generator-<iteration>.pt`; `checkpoint/` beside it holds state."""
        return self.run(dataset, model, seed) / "train"

    def generate(self, dataset: str, method: str, seed: int) -> Path:
        """Folder with `generated.csv`, `images/<from stem>___<to stem>.png` and, for models, `warps.npz`."""
        return self.run(dataset, method, seed) / "generate"

    def evaluate(self, dataset: str, method: str, seed: int) -> Path:
        """Folder with `scores.json` and `per-pair.csv`."""
        return self.run(dataset, method, seed) / "evaluate"
