"""A benchmark's configuration: YAML -> frozen dataclasses, checked; and where each stage's results lie.

A configuration file *is* a benchmark with a name. Every setting stands once in `config/*.yaml`, with its unit and reason
beside it; the dataclasses below say its type and its meaning. An unknown key is an error that names the nearest known
one. `run_settings` resolves what one training sees; its fingerprint keys checkpoints and results.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass, field

from potgan.common.errors import UserError
from potgan.common.files import fingerprint
from potgan.common.typed import build, merge

STAGES = ("images", "keypoints", "pairs", "train", "generate", "evaluate", "tabulate")
#: Methods that need no training; every table shows them, so that a reader knows where the scale begins and ends.
REFERENCE_METHODS = ("copy-source", "mean-image", "real-data")
FIRST_CHECKPOINT_SUFFIX = "-first-checkpoint"
#: Layouts of released result folders (`potgan/measure/released.py`, which says what they are).
RESULT_LAYOUTS = ("plain", "deform", "patn", "gfla")


@dataclass(frozen=True)
class SyntheticSettings:
    """The embedded data set (`potgan/data/synthetic`)."""

    train_identities: int = 96
    test_identities: int = 24
    images_per_identity: int = 8
    height: int = 128  # pixels; Market-1501's size
    width: int = 64
    cameras: int = 6  # 1 to 6
    seed: int = 0


@dataclass(frozen=True)
class PairSettings:
    """Which ordered (from, to) pairs are used (docs/decisions.md, D4; `potgan/data/pairs.py`)."""

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

    checkpoint: str = (
        "shufflenetv2k16"  # a published one (`potgan/common/weights.py`), or the path of a checkpoint file
    )
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
    """The pose masks M and the heat maps P (Section IV-C; docs/decisions.md, D12, D13)."""

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
    """Somebody else's released results, scored as a row of their own; nothing is trained (`potgan/measure/released.py`)."""

    label: str  # as the tables print it, with "(re-scored)" behind it
    dataset: str  # a data set of this configuration, whose test pairs the images must be of
    images: str  # the folder of result images
    layout: str  # plain | deform | patn | gfla: how its files are named and what they hold
    targets: str | None = None  # folder of target images for results without them; null: the data set's own
    table_row: str | None = None  # method of benchmarks/published.csv whose literature row this one stands under


#: Method that a model may name (`models.<name>.method`) -> the dataclass of its `options`. PoT-GAN has none: its settings are
#: the sections POTGAN_SECTIONS. What a method is stands in `potgan.methods.registry`.
METHOD_OPTIONS: dict[str, type | None] = {
    "potgan": None,
}
POTGAN_SECTIONS = ("generator", "discriminator", "loss_weights")


@dataclass(frozen=True)
class Benchmark:
    """A whole configuration file."""

    benchmark: str
    description: str
    protocol: str  # an id of potgan.settings.protocols.PROTOCOLS
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
        own = dict(self.models[model])
        method = own.pop("method", "potgan")
        if method not in METHOD_OPTIONS:
            raise UserError(f"models.{model}.method: must be one of {', '.join(METHOD_OPTIONS)}, and is {method!r}")
        sections = {name: dataclasses.asdict(getattr(self, name)) for name in (*POTGAN_SECTIONS, "masks", "training")}
        sections = merge(sections, settings.overrides, f"datasets.{dataset}.overrides")
        options = METHOD_OPTIONS[method]
        if options is not None:
            # PoT-GAN's sections are no settings of this method: an entry that sets them is a mistake.
            others = {name: sections.pop(name) for name in POTGAN_SECTIONS}
            sections = others | merge(sections | {"options": dataclasses.asdict(options())}, own, f"models.{model}")
            sections["options"] = build(options, sections["options"], f"models.{model}.options")
        else:
            sections = merge(sections, own, f"models.{model}")
        of = {"dataset": dataset, "seed": seed, "image_size": settings.image_size, "method": method}
        return build(RunSettings, sections | of, f"models.{model}")

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
    method: str = "potgan"
    options: typing.Any = None  # of the method, an instance of METHOD_OPTIONS[method]

    @property
    def training_dict(self) -> dict[str, typing.Any]:
        """What training depends on. A filter that is not trained through is no part of it."""
        tree = dataclasses.asdict(self)
        for name in HOW_IT_IS_RUN:
            del tree["training"][name]
        if self.generator.guided_filter.mode != "train":
            tree["generator"]["guided_filter"] = "not in training"
        for name in POTGAN_SECTIONS if self.options is not None else ("options",):
            del tree[name]
        return json.loads(json.dumps(tree))

    @property
    def training_fingerprint(self) -> str:
        return fingerprint(self.training_dict)

    def images_fingerprint(self, checkpoint: str) -> str:
        """Of what decides a model's images apart from the data: its training, its generator, and which checkpoint."""
        return fingerprint([self.training_dict, str(self.generator if self.options is None else None), checkpoint])


# ---------------------------------------------------------------------------------------------------------------------
# Reading


# ---------------------------------------------------------------------------------------------------------------------
# Where results lie
