"""A benchmark's configuration as frozen dataclasses.

A configuration file *is* a benchmark with a name. Each setting is described once, on its field here, with its type, its choices,
its range and its meaning. `config/README.md` is generated from these fields (`potgan.settings.describe`). `config/*.yaml` hold
the values and the reasons for them. `Benchmark.run_settings` resolves the settings that one training sees. Checkpoints and
results are identified by the fingerprint of these settings.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from dataclasses import dataclass

from potgan.common.errors import UserError
from potgan.common.files import fingerprint
from potgan.common.typed import REQUIRED, build, merge, setting, unknown_key
from potgan.settings.methods import method_names, options_class

STAGES = ("published", "images", "keypoints", "masks", "pairs", "parsing", "train", "generate", "evaluate", "tabulate")
#: The methods that need no training. Every table shows them, so that a reader knows where the scale begins and ends.
REFERENCE_METHODS = ("copy-source", "mean-image", "real-data")
FIRST_CHECKPOINT_SUFFIX = "-first-checkpoint"
#: Other warps than its own that the finished network of the main model may be given (`potgan/measure/interventions.py`).
INTERVENTIONS = ("identity-warps", "mean-warp", "other-warps", "true-flow")
#: Data sets that have a published archive (`benchmarks/<kind>.yaml` holds its facts).
PUBLISHED_KINDS = ("market1501", "dukemtmc", "deepfashion")
SPLITS = ("train", "test")
#: What stands in a setting in place of a path, for the file that others have published.
PUBLISHED = "published"
#: The methods whose results stand side by side in a file of PIDM's comparison, in the order of the panels.
PIDM_PANELS = ("ADGAN", "PISE", "GFLA", "DPTN", "CASD", "NTED", "PIDM")
#: The layouts of released result folders. `potgan/measure/released_layouts.py` describes them.
RESULT_LAYOUTS = (
    *("plain", "deform", "patn", "gfla", "adgan", "cfld", "numbered", "numbered-from-0", "numbered-from-1"),
    *(f"pidm:{panel}" for panel in PIDM_PANELS),
)
PAIR_RULE_NAMES = ("patn", "pg2")


#: numpy, pandas and torch all take seeds up to this one.
LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class SyntheticSettings:
    """The embedded data set (`potgan/data/synthetic`)."""

    train_identities: int = setting(96, "people in the training split", at_least=1)
    test_identities: int = setting(24, "people in the test split", at_least=1)
    images_per_identity: int = setting(8, "images of each person", at_least=1)
    height: int = setting(128, "height of an image, Market-1501's by default", unit="pixels", at_least=32)
    width: int = setting(64, "width of an image, Market-1501's by default", unit="pixels", at_least=32)
    cameras: int = setting(6, "cameras that see the people", at_least=1, at_most=6)
    seed: int = setting(0, "seed of people, clothes and cameras", at_least=0, at_most=LARGEST_SEED)


@dataclass(frozen=True)
class PairSettings:
    """Which ordered (from, to) pairs are used (docs/decisions.md, D4 to D6; `potgan/data/pairs.py`)."""

    rule: str = setting(
        "patn",
        "`patn` (Deformable GAN, PATN, GFLA): both shoulders and both hips are known in both images, junk and distractors are "
        "dropped; `pg2`: as PG2 pairs",
        choices=PAIR_RULE_NAMES,
    )
    test_sample: int | None = setting(None, "test pairs that are drawn without replacement; null: all", at_least=1)
    test_seed: int = setting(0, "seed of that draw", at_least=0, at_most=LARGEST_SEED)
    validation_identities: int = setting(0, "training people held out for every choice of a setting", at_least=0)
    validation_sample: int | None = setting(None, "validation pairs that are drawn; null: all", at_least=1)
    train: str | None = setting(
        None,
        "a list of training pairs, used instead of the rule; `published`: the published one, and the rule where it cannot be had",
    )
    test: str | None = setting(None, "the same of the test pairs")


@dataclass(frozen=True)
class OpenPifPafSettings:
    """Key points by OpenPifPaf, in an environment of its own (`workflow/envs/openpifpaf`)."""

    checkpoint: str = setting("shufflenetv2k16", "a published checkpoint's name, or the path of a file")
    checkpoint_sha256: str | None = setting(
        None, "SHA-256 of the file, checked before it is opened; null: the published one's"
    )
    scale: float = setting(3.0, "images are enlarged so many times; networks miss people 100 pixels high", at_least=1)
    batch_size: int = setting(8, "images that a worker sees at once", at_least=1)
    workers: int = setting(2, "processes; the decoder is sequential, so that more of them speed it up", at_least=1)
    shard_size: int = setting(256, "images per part; a killed run goes on after the last finished part", at_least=1)
    device: str = setting("auto", "where the network runs", choices=("auto", "cpu", "cuda"))


@dataclass(frozen=True)
class KeypointSettings:
    """Where the key points come from, and when they are too bad to go on."""

    estimator: str = setting(
        "auto",
        "`table`: the files `train` and `test`, and for synthetic people the exact joints; `openpifpaf`: they are detected; "
        "`auto`: `table` where the tables can be had, and else `openpifpaf`",
        choices=("auto", "table", "openpifpaf"),
    )
    train: str | None = setting(
        None,
        "a table, COCO or OpenPose JSON of the training images; `published`: the published table; null: the same, but with "
        "`openpifpaf` none. With `openpifpaf`, detected joints are compared with it",
    )
    test: str | None = setting(None, "the same of the test images")
    frame: str = setting(
        "original", "whose pixels the tables count, where `crop_columns` is set", choices=("original", "cropped")
    )
    minimum_detection_rate: float = setting(
        0.5, "share of images with any joint, below which the run stops", at_least=0, at_most=1
    )
    openpifpaf: OpenPifPafSettings = setting(OpenPifPafSettings(), "how OpenPifPaf is run")

    @property
    def tables(self) -> dict[str, str]:
        """Split -> path, for the tables that the settings name."""
        named = {"train": self.train, "test": self.test}
        return {split: path for split, path in named.items() if path is not None}


@dataclass(frozen=True)
class Dataset:
    """One data set of the benchmark."""

    kind: str = setting(
        REQUIRED, "the layout of its files and the grammar of their names", choices=("synthetic", *PUBLISHED_KINDS)
    )
    label: str = setting(REQUIRED, "its name in the tables")
    image_size: tuple[int, int] = setting(
        (128, 64),
        "height and width that models see; images of other sizes are resized once, with their joints",
        unit="pixels",
        at_least=32,
        multiple_of=16,
    )
    source: str | None = setting(
        None,
        "archive, folder or address (`https://...`, `drive:<file id>`, `drive:<folder id>/<path>`); null: what lies in the data "
        "folder, else what `benchmarks/<kind>.yaml` says where to fetch",
    )
    checksum: str | None = setting(
        None, "`sha256:<digits>` (or `md5:`, `sha1:`) of the archive; null: the published one, of a published source"
    )
    crop_columns: tuple[int, int] | None = setting(
        None, "first column that is kept, and one past the last; PATN's DeepFashion is `[40, 216]`", at_least=0
    )
    published: str | None = setting(
        None,
        "folder or address (`https://...`, `drive:<folder id>`) of the published tables and lists; null: what lies in the data "
        "folder, else where `benchmarks/<kind>.yaml` says",
    )
    splits: dict[str, str] = setting(
        dict, "split -> list of image names (DeepFashion only); those that are not named are the published ones"
    )
    keypoints: KeypointSettings = setting(KeypointSettings(), "where its key points come from")
    parsing: str | None = setting(
        None,
        "a folder of label images, `<image's stem>.png`, for models that read a class for each pixel; without it they are left "
        "out. Synthetic people have an exact parsing",
    )
    parsing_classes: str | None = setting(
        None,
        "what the label images count: LIP's 20 classes, which are merged, or the 8 of ADGAN; needed where `parsing` is set",
        choices=("lip", "adgan"),
    )
    unreadable_images: str = setting(
        "stop",
        "what happens when an image cannot be decoded; `skip` leaves it out and counts it",
        choices=("stop", "skip"),
    )
    allow_partial: bool = setting(False, "whether fewer images than the published counts are enough")
    synthetic: SyntheticSettings = setting(SyntheticSettings(), "the rendered people, where `kind` is `synthetic`")
    pairs: PairSettings = setting(PairSettings(), "its pairs")
    overrides: dict[str, typing.Any] = setting(
        dict,
        "what differs for this data set from the sections `generator`, `discriminator`, `loss_weights`, `masks`, `training`; and "
        "`options`: method -> what differs from the options of this method",
    )

    @property
    def has_parsing(self) -> bool:
        """Whether the class of each pixel of its images is known."""
        return self.kind == "synthetic" or self.parsing is not None


@dataclass(frozen=True)
class GuidedFilterSettings:
    """Section III-B, "Guided Filter"; the guide is the target mask M_b (docs/decisions.md, D22 to D24)."""

    mode: str = setting(
        "train",
        "`train`: the last layer of G always, the paper's place; `test`: on the finished network only, so that models which "
        "differ in nothing else share one training; `off`: nowhere",
        choices=("train", "test", "off"),
    )
    radius: int = setting(1, "the window has 2 radius + 1 rows and columns", unit="pixels", at_least=1)
    epsilon: float = setting(1e-2, "in squared units of the guide, which lies in [0, 1]", above=0)


@dataclass(frozen=True)
class GeneratorSettings:
    """G of Section III-B. Channels at strides 2, 4, 8, 16 are width x (1, 2, 4, 8)."""

    width: int = setting(64, "channels at stride 2", at_least=1)
    normalization: str = setting(
        "instance",
        "of encoders and decoder (the PoT encoders always have instance norm)",
        choices=("instance", "batch"),
    )
    pose_transform: bool = setting(True, "whether skip features are warped; without it the module is not built")
    pose_encoder_masks: bool = setting(
        False, "whether the pose encoder sees both masks beside the heat maps; a control, for masks without warps"
    )
    control_points: tuple[int, int] = setting((4, 4), "rows and columns of the spline's control points", at_least=2)
    control_point_span: float = setting(
        0.9, "the outermost rest position; below 1, because tanh bounds the output", above=0, below=1
    )
    coordinates: str = setting(
        "independent",
        "of each scale's control points: `independent`, or `coarse-to-fine`, where each scale adds to what the coarser ones found",
        choices=("independent", "coarse-to-fine"),
    )
    guided_filter: GuidedFilterSettings = setting(GuidedFilterSettings(), "the guided filter")


@dataclass(frozen=True)
class DiscriminatorSettings:
    """D of Section III-B: convolutions and one dense layer on (image, mask)."""

    width: int = setting(64, "channels of its first layer", at_least=1)
    normalization: str = setting("instance", "of its layers but the first", choices=("instance", "batch", "none"))


@dataclass(frozen=True)
class LossWeights:
    """Eq. (8): lambda_1, lambda_2, lambda_3."""

    reconstruction: float = setting(10.0, "lambda_1, of L_recon", at_least=0)
    perceptual: float = setting(1.0, "lambda_2, of the perceptual loss", at_least=0)
    adversarial: float = setting(0.5, "lambda_3, of the adversarial loss", at_least=0)


@dataclass(frozen=True)
class MaskSettings:
    """The pose masks M and the heat maps P (Section IV-C; docs/decisions.md, D12 and D13)."""

    limb_radius: int = setting(4, "of the limbs; 4 at 128 x 64, 8 at 256 x 256", unit="pixels", at_least=1)
    levels: str = setting(
        "binary",
        "`binary`: the body is 1; `grey`: head, torso, arms and legs have grey levels of their own, which tell left from right",
        choices=("binary", "grey"),
    )
    heatmap_sigma: float = setting(6.0, "of the Gaussian around each joint", unit="pixels", above=0)


#: The channels of VGG-16 up to relu1_2.
VGG_WIDTH = 64


@dataclass(frozen=True)
class TrainingSettings:
    """Algorithm 1 and Section III-C."""

    iterations: int = setting(90_000, "updates of the generator", at_least=1)
    batch_size: int = setting(32, "pairs per update", at_least=1)
    learning_rate: float = setting(2e-4, "of the generator", above=0)
    discriminator_learning_rate: float = setting(2e-4, "of the discriminator", above=0)
    coordinates_learning_rate: float = setting(
        2e-4,
        "of the coordinate networks, whose output moves whole images; 0: every warp stays the identity, a control",
        at_least=0,
    )
    adam_betas: tuple[float, float] = setting((0.5, 0.999), "of Adam", at_least=0, below=1)
    decay_from: int = setting(60_000, "iteration at which the rates begin to fall linearly to 0", at_least=0)
    perceptual_network: str = setting(
        "vgg16",
        "`vgg16`: ImageNet's weights, checked by SHA-256; `random`: the same layers, seeded",
        choices=("vgg16", "random"),
    )
    perceptual_width: int = setting(VGG_WIDTH, "channels of a random perceptual network; VGG-16's are 64", at_least=1)
    checkpoints: int = setting(
        9, "evenly spaced; the generator of each is kept, and the whole state of the last", at_least=1
    )
    log_every: int = setting(100, "iterations between rows of `progress.csv`", at_least=1)
    save_every: int = setting(1000, "iterations between saved states, for a run that is killed", at_least=1)
    precision: str = setting(
        "fp32",
        "another than the paper's fp32 enters a table only with its difference to fp32; `auto`: bf16 where the processor or GPU "
        "has it, else fp32, and the record says which",
        choices=("fp32", "tf32", "bf16", "auto"),
    )
    ema: float = setting(
        0.0,
        "decay per iteration of a running average of G's weights, which is then what is kept; 0: none",
        at_least=0,
        below=1,
    )
    # The settings below decide how a training is run, and not what is trained. They may change the results by the rounding of
    # sums, as another machine may. Methods other than PoT-GAN have batch statistics, dropout or noise, which are of each process
    # and of each part of a batch, so that `processes` and `device_batch_size` are a part of their trainings.
    threads: int = setting(1, "CPU threads of each process; changes no training", at_least=1)
    processes: int = setting(1, "one per GPU, each with its share of every batch; changes no training", at_least=1)
    device_batch_size: int | None = setting(
        None, "the most pairs at once on one device, beyond which parts are accumulated; null: no limit", at_least=1
    )
    compile: str = setting(
        "auto",
        "`auto`: trainings of 10,000 iterations and more on a GPU; `never`: nor is a step recorded there",
        choices=("auto", "always", "never"),
    )


@dataclass(frozen=True)
class FeatureNetworkSettings:
    """The classifier behind `is-synthetic` and `fid-synthetic` (`potgan/measure/synthetic_network.py`).

    These settings decide the trained network. Together with `threads` they decide it to the last bit on one machine.
    """

    identities: int = setting(
        240, "people that it is trained on; whole decks of colours (60 people) keep the classes balanced", at_least=1
    )
    held_out_identities: int = setting(60, "people that only measure its accuracy", at_least=1)
    images_per_identity: int = setting(6, "images of each person", at_least=1)
    seed: int = setting(
        1234,
        "of the people and of the training; other than every seed of the benchmark's people",
        at_least=0,
        at_most=LARGEST_SEED,
    )
    height: int = setting(128, "height of its input; other sizes are scaled to it", unit="pixels", at_least=1)
    width: int = setting(64, "width of its input", unit="pixels", at_least=1)
    epochs: int = setting(14, "passes over its images", at_least=1)
    batch_size: int = setting(32, "images per update", at_least=1)
    learning_rate: float = setting(4e-3, "of Adam at its height, over one cycle", above=0)
    brightness: float = setting(0.15, "each image is multiplied by 1 - this to 1 + this", at_least=0, below=1)
    masked_share: float = setting(
        0.5,
        "share of its images that are multiplied by their pose mask, as mask-IS and mask-FID do",
        at_least=0,
        below=1,
    )
    feature_dimension: int = setting(64, "length of a feature vector", at_least=1)
    threads: int = setting(1, "CPU threads", at_least=1)


@dataclass(frozen=True)
class ExternalMethod:
    """Somebody else's released results, scored as a row of their own; nothing is trained (`potgan/measure/released.py`)."""

    label: str = setting(REQUIRED, 'its name in the tables, with "(re-scored)" behind it')
    dataset: str = setting(REQUIRED, "a data set of this configuration, whose test pairs the images are of")
    images: str = setting(REQUIRED, "the folder of result images")
    layout: str = setting(
        REQUIRED,
        "how its files are named and what they hold (docs/scoring.md); behind `pidm:` stands the panel that is scored",
        choices=RESULT_LAYOUTS,
    )
    targets: str | None = setting(
        None,
        "folder of target images, named as the data set's, for results in another frame than the data set's; null: the data "
        "set's own images",
    )
    table_row: str | None = setting(
        None, "method of `benchmarks/published.csv` under whose literature row this one stands"
    )


POTGAN_SECTIONS = ("generator", "discriminator", "loss_weights")
#: Settings of the section `training` that only PoT-GAN's training reads. The other methods have schedules of their own.
POTGAN_TRAINING = ("discriminator_learning_rate", "coordinates_learning_rate", "decay_from", "ema")


@dataclass(frozen=True)
class Benchmark:
    """A whole configuration file."""

    benchmark: str = setting(REQUIRED, "the name, which becomes a folder of results and of reports")
    description: str = setting(REQUIRED, "a sentence for the report")
    protocol: str = setting(
        REQUIRED, "how results are measured: an id of docs/scoring.md that measures against the data set's own targets"
    )
    datasets: dict[str, Dataset] = setting(REQUIRED, "name -> data set; `name: false` in an overlay takes one away")
    models: dict[str, dict[str, typing.Any]] = setting(
        REQUIRED,
        "name -> what differs from the sections below, and `method` (`potgan` where it is left out); the first is the main one; "
        "`name: false` in an overlay takes one away",
    )
    seeds: tuple[int, ...] = setting((0,), "one training per model and seed", at_least=0, at_most=LARGEST_SEED)
    generator: GeneratorSettings = setting(GeneratorSettings(), "G")
    discriminator: DiscriminatorSettings = setting(DiscriminatorSettings(), "D")
    loss_weights: LossWeights = setting(LossWeights(), "the weights of Eq. (8)")
    masks: MaskSettings = setting(MaskSettings(), "pose masks and heat maps")
    training: TrainingSettings = setting(TrainingSettings(), "Algorithm 1")
    feature_network: FeatureNetworkSettings = setting(
        FeatureNetworkSettings(), "the classifier of the protocol `potgan-synthetic`"
    )
    interventions: tuple[str, ...] = setting(
        (),
        "rows `<main model>-<intervention>`: its finished network with other warps than its own. `identity-warps`: nothing "
        "moves; `mean-warp`: the mean over all test pairs; `other-warps`: those of another test pair; `true-flow`: the exact "
        "motion, which only synthetic people have",
        choices=INTERVENTIONS,
    )
    external_methods: dict[str, ExternalMethod] = setting(dict, "name -> somebody's released results, as a row")
    differences_from_paper: tuple[str, ...] = setting((), "sentences that the report prints")
    absent: dict[str, str] = setting(dict, "data set -> why it is not run; the workflow fills it in")

    @property
    def main_model(self) -> str:
        return next(iter(self.models))

    @property
    def methods(self) -> tuple[str, ...]:
        """All rows that are scored: models, interventions and the first checkpoint of the main model, references, external methods.

        An external method has images of only one data set, and only some data sets know the true flow or a parsing. `methods_of`
        says which rows a data set has, and `why_left_out` why it has not the others.
        """
        intervened = (f"{self.main_model}-{kind}" for kind in self.interventions)
        first = self.main_model + FIRST_CHECKPOINT_SUFFIX
        return (*self.models, *intervened, first, *REFERENCE_METHODS, *self.external_methods)

    def methods_of(self, dataset: str) -> tuple[str, ...]:
        """Return the rows that are generated (or imported) and scored on a data set."""
        return tuple(method for method in self.methods if not self.why_left_out(dataset, method))

    def why_left_out(self, dataset: str, method: str) -> str:
        """Return why a data set has not this row, or "" if it has it."""
        settings, model = self.datasets[dataset], self.model_of(method)
        if method in self.external_methods and self.external_methods[method].dataset != dataset:
            return "the released images are of another data set"
        if self.intervention_of(method) == "true-flow" and settings.kind != "synthetic":
            return "the true flow of this data set is not known"
        if model is not None and self.reads_parsing(model) and not settings.has_parsing:
            return f"{model} reads a parsing, and this data set has none (datasets.{dataset}.parsing)"
        return ""

    @property
    def left_out(self) -> dict[str, str]:
        """Return "<model> on <data set>" -> why, for each model that a data set has not."""
        reasons = {f"{m} on {d}": self.why_left_out(d, m) for d in self.datasets for m in self.models}
        return {row: reason for row, reason in reasons.items() if reason}

    def reads_parsing(self, model: str) -> bool:
        """Return whether the method of a model reads the class of each pixel of the source image."""
        method = self.method_of(model)
        return method in method_names() and getattr(options_class(method), "reads_parsing", False)

    def intervention_of(self, method: str) -> str | None:
        """Return the intervention that a row stands for, one of INTERVENTIONS, or None."""
        prefix = f"{self.main_model}-"
        kind = method.removeprefix(prefix)
        return kind if method.startswith(prefix) and kind in self.interventions and method not in self.models else None

    def seeds_of(self, method: str) -> tuple[int, ...]:
        return self.seeds if self.model_of(method) else (0,)

    def model_of(self, method: str) -> str | None:
        """Return the model behind a row. It is None for references and external methods, which have no training."""
        if method in REFERENCE_METHODS or method in self.external_methods:
            return None
        return self.main_model if self.intervention_of(method) else method.removesuffix(FIRST_CHECKPOINT_SUFFIX)

    def method_of(self, model: str) -> str:
        """Return the method that a model is trained by."""
        return str(self.models[model].get("method", "potgan"))

    def run_settings(self, dataset: str, model: str, seed: int) -> RunSettings:
        """Return the settings that one training and its generation see.

        The sections come first, the overrides of the data set are laid over them, and the entry of the model over both. Raises
        UserError for an unknown data set, model, method or setting, and for a value that a setting does not allow.
        """
        if dataset not in self.datasets:
            raise UserError(f"configuration: no data set {dataset!r}; there are {', '.join(self.datasets)}")
        if model not in self.models:
            raise UserError(f"configuration: no model {model!r}; there are {', '.join(self.models)}")
        settings = self.datasets[dataset]
        at, own = f"models.{model}", dict(self.models[model])
        method = own.pop("method", "potgan")
        if method not in method_names():
            raise UserError(f"models.{model}.method: must be one of {', '.join(method_names())}, and is {method!r}")
        sections = {name: dataclasses.asdict(getattr(self, name)) for name in (*POTGAN_SECTIONS, "masks", "training")}
        where = f"datasets.{dataset}.overrides"
        overrides = dict(settings.overrides)
        of_methods = _mapping(overrides.pop("options", None), f"{where}.options")
        for name in of_methods:
            if name not in method_names() or options_class(name) is None:
                known = ", ".join(known for known in method_names() if options_class(known) is not None)
                raise UserError(f"{where}.options.{name}: no method of this name has options; there are {known}")
        sections = merge(sections, overrides, where)
        options = options_class(method)
        if options is not None:
            # What this method does not read is no setting of it, so an entry that sets it is a mistake.
            for name in (*POTGAN_SECTIONS, *(f"training.{key}" for key in POTGAN_TRAINING), *_unread(options)):
                section, _, key = name.partition(".")
                if section in own and (not key or key in _mapping(own[section], f"{at}.{section}")):
                    raise UserError(f"{at}.{name}: is not read by {method}, so that nothing would change; remove it")
            others = {name: sections.pop(name) for name in POTGAN_SECTIONS}
            sections["training"] |= getattr(options, "training", {})
            training = sections["training"] | _mapping(own.get("training"), f"{at}.training")
            defaults = options_beside(options, training, others["generator"]["width"])
            defaults = merge(
                defaults, _mapping(of_methods.get(method), f"{where}.options.{method}"), f"{where}.options.{method}"
            )
            sections = others | merge(sections | {"options": defaults}, own, at)
            sections["options"] = build(options, sections["options"], f"{at}.options")
        else:
            sections = merge(sections, own, at)
        of = {"dataset": dataset, "seed": seed, "image_size": settings.image_size, "method": method}
        return build(RunSettings, sections | of, at)

    def trained_as(self, dataset: str, model: str) -> str:
        """Return the model whose training `model` uses, which is the first one with the same training fingerprint.

        With `guided_filter.mode: test` the filter is no part of training, so `no-guided-filter` shares the network of `potgan`.
        The comparison of the two is then paired, and nothing is trained twice.
        """
        return self.trainings(dataset)[model]

    def trainings(self, dataset: str) -> dict[str, str]:
        """Return model -> `trained_as`, for every model. A model that is trained itself is mapped to itself."""
        prints = {model: self.run_settings(dataset, model, 0).training_fingerprint for model in self.models}
        return {model: next(other for other in prints if prints[other] == prints[model]) for model in prints}


def options_beside(options: type, training: dict[str, typing.Any], generator_width: int) -> dict[str, typing.Any]:
    """Return the options of a method where an entry names none, as a tree.

    They are the authors', apart from two kinds that make all methods of a benchmark alike, and say what they follow. Widths are the
    authors' times PoT-GAN's share of the paper's width, `generator.width` / 64. A frozen network of features is of the kind of
    `training.perceptual_network`.
    """
    found = dataclasses.asdict(options())
    share = generator_width / GeneratorSettings().width
    for field in dataclasses.fields(options):
        follows = field.metadata.get("follows")
        if follows == "generator.width":
            found[field.name] = max(1, round(found[field.name] * share))
        elif follows == "training.perceptual_network":
            found[field.name] = training["perceptual_network"]
    return found


@functools.cache  # a plan asks for each training
def _unread(options: type) -> tuple[str, ...]:
    """Return the settings, as "section.key", that the method with these options never reads.

    Raises UserError for a name that is no setting.
    """
    sections = {"training": TrainingSettings, "masks": MaskSettings}
    known = {f"{section}.{field.name}" for section, cls in sections.items() for field in dataclasses.fields(cls)}
    names = tuple(getattr(options, "unread", ()))
    for name in names:
        if name not in known:
            raise UserError(unknown_key(name, known, f"{options.__name__}.unread"))
    return names


def _mapping(entry: typing.Any, where: str) -> dict[str, typing.Any]:
    """Return the settings below a key, which are none where it has no value. Raises UserError for what is no mapping."""
    if entry is not None and not isinstance(entry, dict):
        raise UserError(f"{where}: must be a mapping, and is {entry!r}")
    return entry or {}


#: The settings of a training that do not decide what is trained. They say how it is watched and what it runs on.
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
    options: typing.Any = None  # an instance of options_class(method), or None if the method has no options

    @property
    def training_dict(self) -> dict[str, typing.Any]:
        """The settings that training depends on. A guided filter that is not part of training is left out."""
        tree = dataclasses.asdict(self)
        for name in HOW_IT_IS_RUN:
            del tree["training"][name]
        if self.generator.guided_filter.mode != "train":
            tree["generator"]["guided_filter"] = "not in training"
        for name in POTGAN_SECTIONS if self.options is not None else ("options",):
            del tree[name]
        if self.options is not None:
            for name in (*(f"training.{name}" for name in POTGAN_TRAINING), *_unread(type(self.options))):
                section, _, key = name.partition(".")
                del tree[section][key]
            # Batch statistics, dropout, noise and image pools are of each part of a batch, and of each process.
            options = self.training
            share = options.batch_size // options.processes
            tree["training"]["together"] = [options.processes, min(options.device_batch_size or share, share)]
        return json.loads(json.dumps(tree))

    @property
    def training_fingerprint(self) -> str:
        return fingerprint(self.training_dict)

    def images_fingerprint(self, checkpoint: str, intervention: str | None = None) -> str:
        """Return the fingerprint of all that decides a model's images apart from the data.

        This is the training, the generator, the checkpoint and the intervention.
        """
        generator = str(self.generator if self.options is None else None)
        return fingerprint([self.training_dict, generator, checkpoint, *filter(None, [intervention])])
