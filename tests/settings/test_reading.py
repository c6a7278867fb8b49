"""Configuration: unknown keys, types, overlays, fingerprints; and the three files of config/."""

import dataclasses
import functools
import json

import pandas as pd
import pytest
import yaml

from potgan.common.errors import UserError
from potgan.common.paths import CONFIGURATIONS
from potgan.common.typed import build, setting
from potgan.methods.potgan.generator import Generator
from potgan.settings import reading
from potgan.settings.describe import insert
from potgan.settings.methods import method_names
from potgan.settings.reading import as_tree, dump, load
from potgan.settings.schema import INTERVENTIONS, Benchmark, Dataset, ExternalMethod, TrainingSettings

MINIMAL = {
    "benchmark": "tiny",
    "description": "d",
    "protocol": "potgan-synthetic",
    "datasets": {"synthetic": {"kind": "synthetic", "label": "S"}},
    "models": {"potgan": None},
}
EXTERNAL = {"label": "Theirs", "dataset": "synthetic", "images": "released", "layout": "patn"}


def with_(path: str, value: object) -> dict:
    tree = yaml.safe_load(yaml.safe_dump(MINIMAL))
    *parents, last = path.split(".")
    node = tree
    for name in parents:
        node = node.setdefault(name, {})
        assert node is not None
    node[last] = value
    return tree


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("traning", {}, "unknown key 'traning'; did you mean 'training'"),
        (
            "training",
            {"learning_rte": 1},
            "configuration: training: unknown key 'learning_rte'; did you mean 'learning_rate'",
        ),
        ("generator", {"guided_filter": {"mod": "off"}}, "unknown key 'mod'; did you mean 'mode'"),
        ("models", {"potgan": {"loss_weights": {"recon": 0}}}, "models.potgan.loss_weights: unknown key 'recon'"),
        ("training", {"iterations": "many"}, "must be of type int, and is 'many'"),
        ("training", {"iterations": True}, "must be of type int, and is True"),
        ("training", {"adam_betas": [0.5]}, "must have 2 values, and has 1"),
        ("generator", {"control_point_span": 1.0}, "generator.control_point_span must lie between 0 and 1, and is 1.0"),
        ("generator", {"guided_filter": {"mode": "always"}}, "must be one of train, test, off"),
        ("datasets", {"synthetic": {"kind": "synthetic", "label": "S", "image_size": [120, 64]}}, "image_size"),
        ("datasets", {"m": {"kind": "market1501", "label": "M", "checksum": "65005ab7"}}, "is not of the form sha256:"),
        ("datasets", {"m": {"kind": "deepfashion", "label": "D", "crop_columns": [216, 40]}}, "two rising columns"),
        (
            "datasets",
            {"m": {"kind": "market1501", "label": "M", "keypoints": {"estimator": "openpose"}}},
            "datasets.m.keypoints.estimator must be one of auto, table, openpifpaf",
        ),
        (
            "datasets",
            {"m": {"kind": "market1501", "label": "M", "keypoints": {"frame": "cropped"}}},
            "keypoints.frame is cropped, but there are no crop_columns",
        ),
        ("benchmark", "Über/mut", "must consist of a-z"),
        ("models", {"images": {}}, "reserved"),
        ("models", {"masks": {}}, "reserved"),
        ("external_methods", {"potgan": EXTERNAL}, "external method name 'potgan' is reserved or a model's"),
        ("external_methods", {"copy-source": EXTERNAL}, "external method name 'copy-source' is reserved"),
        ("external_methods", {"x-first-checkpoint": EXTERNAL}, "is reserved or a model's"),
        ("external_methods", {"A/B": EXTERNAL}, "must consist of a-z"),
        (
            "external_methods",
            {"theirs": EXTERNAL | {"dataset": "market"}},
            "external_methods.theirs.dataset must be one of synthetic",
        ),
        (
            "external_methods",
            {"theirs": EXTERNAL | {"layout": "pg2"}},
            "external_methods.theirs.layout must be one of plain, deform, patn, gfla",
        ),
        ("external_methods", {"theirs": EXTERNAL | {"label": " "}}, "external_methods.theirs.label is empty"),
        ("external_methods", {"theirs": EXTERNAL | {"pairs": "x"}}, "external_methods.theirs: unknown key 'pairs'"),
        ("seeds", [1, 1], "repeats"),
        ("protocol", "fid", "protocol must be one of potgan"),
    ],
)
def test_bad_settings_name_place_and_remedy(path: str, value: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        load(with_(path, value))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_broken_files_are_one_line(tmp_path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("benchmark: [unclosed\nmodels: }")
    for path in (tmp_path / "absent.yaml", broken):
        with pytest.raises(UserError) as error:
            load(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_yaml_off_and_exponents_mean_what_people_write() -> None:
    tree = with_("generator", yaml.safe_load("guided_filter: {mode: off}"))
    tree["training"] = yaml.safe_load("learning_rate: 1e-3")
    benchmark = load(tree)
    assert benchmark.generator.guided_filter.mode == "off"
    assert benchmark.training.learning_rate == 0.001


def test_an_external_method_is_a_row_of_its_data_set_and_belongs_to_no_model() -> None:
    tree = with_("external_methods", {"theirs": EXTERNAL})
    tree["datasets"]["market1501"] = {"kind": "market1501", "label": "M"}
    benchmark = load(tree)
    assert "theirs" in benchmark.methods_of("synthetic")
    assert "theirs" not in benchmark.methods_of("market1501")
    assert (benchmark.model_of("theirs"), benchmark.seeds_of("theirs")) == (None, (0,))
    assert load(yaml.safe_load(dump(benchmark))) == benchmark


def test_resolved_copy_reads_back_equal() -> None:
    benchmark = load(MINIMAL)
    assert load(yaml.safe_load(dump(benchmark))) == benchmark
    assert load(as_tree(benchmark)) == benchmark


def test_run_settings_lay_dataset_then_model_over_the_sections() -> None:
    tree = with_("training", {"batch_size": 32})
    tree["datasets"]["synthetic"]["overrides"] = {"training": {"batch_size": 8}}
    tree["models"] = {"potgan": {}, "slow": {"training": {"batch_size": 4}}}
    benchmark = load(tree)
    assert benchmark.run_settings("synthetic", "potgan", 0).training.batch_size == 8
    assert benchmark.run_settings("synthetic", "slow", 0).training.batch_size == 4


def test_a_filter_outside_training_shares_the_training_and_one_inside_does_not() -> None:
    tree = with_("generator", {"guided_filter": {"mode": "test"}})
    tree["models"] = {
        "potgan": {},
        "no-guided-filter": {"generator": {"guided_filter": {"mode": "off"}}},
        "trained": {"generator": {"guided_filter": {"mode": "train"}}},
        "no-recon": {"loss_weights": {"reconstruction": 0}},
    }
    benchmark = load(tree)
    assert [benchmark.trained_as("synthetic", m) for m in tree["models"]] == ["potgan", "potgan", "trained", "no-recon"]


def test_fingerprint_follows_what_is_trained_and_nothing_else() -> None:
    base = load(MINIMAL).run_settings("synthetic", "potgan", 0)
    run = {"log_every": 7, "save_every": 9, "threads": 2, "processes": 2, "device_batch_size": 4, "compile": "always"}
    same = load(with_("training", run)).run_settings("synthetic", "potgan", 0)
    assert base.training_fingerprint == same.training_fingerprint
    for change in ({"learning_rate": 3e-4}, {"adam_betas": [0.999, 0.5]}, {"precision": "bf16"}, {"ema": 0.9}):
        other = load(with_("training", change)).run_settings("synthetic", "potgan", 0)
        assert other.training_fingerprint != base.training_fingerprint
    assert dataclasses.replace(base, seed=1).training_fingerprint != base.training_fingerprint


@pytest.mark.parametrize("name", ["config", "market1501-sample", "paper"])
def test_shipped_configurations_load_and_hold_the_papers_ablations(repository, name: str) -> None:
    benchmark = load(repository / "config" / f"{name}.yaml")
    assert benchmark.main_model == "potgan"
    assert {"no-pose-transform", "no-recon", "no-guided-filter"} <= set(benchmark.models)
    for dataset in benchmark.datasets:
        run = benchmark.run_settings(dataset, "no-recon", 0)
        assert run.loss_weights.reconstruction == 0
        assert not benchmark.run_settings(dataset, "no-pose-transform", 0).generator.pose_transform
        assert benchmark.run_settings(dataset, "no-guided-filter", 0).generator.guided_filter.mode == "off"


def test_paper_configuration_has_the_papers_values(repository) -> None:
    """Section III-C: lambda = 10, 1, 0.5; Adam (0.5, 0.999), 2e-4; about 90K iterations; three data sets."""
    benchmark = load(repository / "config" / "paper.yaml")
    assert set(benchmark.datasets) == {"market1501", "dukemtmc", "deepfashion"}
    assert benchmark.protocol == "potgan"
    run = benchmark.run_settings("market1501", "potgan", 0)
    assert (run.loss_weights.reconstruction, run.loss_weights.perceptual, run.loss_weights.adversarial) == (10, 1, 0.5)
    assert run.training.adam_betas == (0.5, 0.999)
    assert run.training.learning_rate == run.training.discriminator_learning_rate == 2e-4
    assert run.training.iterations == 90_000
    assert run.training.perceptual_network == "vgg16"
    assert run.generator.width == 64
    assert run.generator.guided_filter.mode == "train"
    assert benchmark.run_settings("deepfashion", "potgan", 0).image_size == (256, 256)


def test_three_seeds_overlay_is_the_embedded_benchmark_otherwise(repository) -> None:
    base = yaml.safe_load((repository / "config" / "config.yaml").read_text())
    overlay = yaml.safe_load((repository / "config" / "three-seeds.yaml").read_text())
    assert set(overlay) == {"benchmark", "description", "seeds", "models", "interventions"}
    benchmark = load(base | overlay | {"models": base["models"] | overlay["models"]})
    assert benchmark.seeds == (0, 1, 2)
    controls = ["identity-grids", "wide-no-pose-transform", "masks-without-warps"]
    assert list(benchmark.models) == [*base["models"], "filter-in-training", *controls]
    assert set(benchmark.interventions) == set(INTERVENTIONS)


@pytest.mark.parametrize("name", ["three-seeds", "short", "long"])
def test_lengths_are_the_three_seeds_otherwise(repository, name) -> None:
    """Laid over each other as Snakemake does it. The control of equal size has as many parameters as potgan, within 5 %."""
    files = ["config", "three-seeds", *([name] if name != "three-seeds" else [])]
    trees = [yaml.safe_load((repository / "config" / f"{file}.yaml").read_text()) for file in files]
    benchmark = load(functools.reduce(laid_over, trees))
    assert benchmark.seeds == (0, 1, 2)
    assert {"masks-without-warps", "no-recon", "no-guided-filter"} <= set(benchmark.models)
    inert = ["identity-grids"] if name != "long" else []  # a long training is spared what has the function of another
    counts = {
        model: sum(
            p.numel()
            for p in Generator(benchmark.run_settings("synthetic", model, 0).generator, (128, 64)).parameters()
        )
        for model in ("potgan", "wide-no-pose-transform", "no-pose-transform", *inert)
    }
    assert counts["wide-no-pose-transform"] == pytest.approx(counts["potgan"], rel=0.05)
    assert all(counts[model] == counts["potgan"] for model in inert)
    assert counts["potgan"] > 1.5 * counts["no-pose-transform"]


@pytest.mark.parametrize(
    "files",
    ["config", "config three-seeds", "config three-seeds short", "config three-seeds long",
     "config precision precision-tf32"],
)  # fmt: skip
def test_the_differences_that_a_report_prints_are_those_of_its_settings(repository, files) -> None:
    trees = [yaml.safe_load((repository / "config" / f"{file}.yaml").read_text()) for file in files.split()]
    benchmark = load(functools.reduce(laid_over, trees))
    run = benchmark.run_settings("synthetic", benchmark.main_model, 0)
    said = " ".join(benchmark.differences_from_paper)
    assert f"{run.training.iterations:,} iterations of {run.training.batch_size} pairs" in said
    assert f"etwork width {run.generator.width} instead of 64" in said
    if "channels" in said:
        assert f"{run.training.perceptual_width} channels" in said
        assert f"from iteration {run.training.decay_from:,} on" in said


def test_interventions_need_warps_and_a_known_flow() -> None:
    tree = {"benchmark": "x", "description": "x", "protocol": "potgan-synthetic", "models": {"potgan": {}}}
    people = {"kind": "synthetic", "label": "People"}
    real = {"kind": "market1501", "label": "Market-1501", "source": "somewhere"}
    tree |= {"datasets": {"people": people, "real": real}, "interventions": list(INTERVENTIONS)}
    benchmark = load(tree)
    assert "potgan-true-flow" in benchmark.methods_of("people")
    assert "potgan-true-flow" not in benchmark.methods_of("real")  # nobody knows it there
    assert benchmark.model_of("potgan-mean-warp") == "potgan"
    assert benchmark.intervention_of("potgan") is None
    with pytest.raises(UserError, match="flat has no warps on people that others could stand for"):
        load(tree | {"models": {"flat": {"generator": {"pose_transform": False}}}})
    with pytest.raises(UserError, match="must be one of identity-warps, "):
        load(tree | {"interventions": ["no-such"]})
    with pytest.raises(UserError, match="model name 'a-true-flow' is reserved"):
        load(tree | {"models": {"potgan": {}, "a-true-flow": {}}})


PEOPLE = {"kind": "synthetic", "label": "People"}
MARKET = {"kind": "market1501", "label": "Market-1501", "source": "somewhere"}
LABELLED = MARKET | {"parsing": "labels", "parsing_classes": "lip"}
TWO_MODELS = {"potgan": {}, "adgan": {"method": "adgan"}}


def test_a_model_that_reads_a_parsing_is_a_row_where_there_is_one() -> None:
    datasets = {"people": PEOPLE, "real": MARKET, "labelled": LABELLED}
    benchmark = load(MINIMAL | {"datasets": datasets, "models": TWO_MODELS})
    assert [name for name in datasets if "adgan" in benchmark.methods_of(name)] == ["people", "labelled"]
    assert all("potgan" in benchmark.methods_of(name) for name in datasets)
    assert [benchmark.reads_parsing(model) for model in TWO_MODELS] == [False, True]
    assert list(benchmark.left_out) == ["adgan on real"]
    assert benchmark.why_left_out("real", "adgan").endswith("this data set has none (datasets.real.parsing)")
    assert load(yaml.safe_load(dump(benchmark))) == benchmark


@pytest.mark.parametrize(
    ("dataset", "models", "message"),
    [
        (MARKET | {"parsing": "labels"}, {"potgan": {}}, "datasets.a: parsing and parsing_classes are set together"),
        (MARKET | {"parsing_classes": "lip"}, {"potgan": {}}, "datasets.a: parsing and parsing_classes are set together"),
        (LABELLED | {"parsing_classes": "atr"}, {"potgan": {}}, "parsing_classes must be one of lip, adgan, and is 'atr'"),
        (PEOPLE | {"parsing": "labels", "parsing_classes": "lip"}, {"potgan": {}},
         "datasets.a.parsing: synthetic people have an exact parsing; leave it out"),
        (MARKET, {"adgan": {"method": "adgan"}},
         "models: the first is the main one, which every data set needs, and adgan reads a parsing"),
        (PEOPLE, {"parsing": {}}, "model name 'parsing' is reserved"),
    ],
)  # fmt: skip
def test_settings_of_a_parsing_that_cannot_be_meant_are_one_line(dataset, models, message) -> None:
    with pytest.raises(UserError) as error:
        load(MINIMAL | {"datasets": {"a": dataset}, "models": models})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def laid_over(lower: dict, upper: dict) -> dict:
    """Snakemake's way of laying one configuration file over another."""
    merged = dict(lower)
    for key, value in upper.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = laid_over(merged[key], value) if both else value
    return merged


@pytest.mark.parametrize("base", ["config", "market1501-sample", "paper"])
def test_the_compared_methods_are_laid_over_any_benchmark(repository, base) -> None:
    """They have PoT-GAN's iterations, batch and share of the authors' width, and the authors' rates."""
    trees = [yaml.safe_load((repository / "config" / f"{file}.yaml").read_text()) for file in (base, "methods")]
    benchmark = load(functools.reduce(laid_over, trees))
    dataset = next(iter(benchmark.datasets))
    main = benchmark.run_settings(dataset, benchmark.main_model, 0)
    share = main.generator.width / 64
    # The channels of the authors' code at the first level, and their learning rates.
    facts = {
        "pg2": (128, 2e-5),
        "deformable": (64, 2e-4),
        "vunet": (32, 1e-3),
        "dpig": (128, 2e-5),
        "patn": (64, 2e-4),
        "adgan": (64, 1e-3),
    }
    for method, (width, rate) in facts.items():
        run = benchmark.run_settings(dataset, method, 0)
        assert run.method == method
        assert run.options.width == width * share
        assert run.training.learning_rate == rate
        assert (run.training.iterations, run.training.batch_size) == (
            main.training.iterations,
            main.training.batch_size,
        )


def test_the_rates_of_the_embedded_benchmark_are_those_that_the_search_chose(repository) -> None:
    """Every method has three short tries and two of the whole length, and one more where the better of these lay at the edge."""
    trees = [
        yaml.safe_load((repository / "config" / f"{file}.yaml").read_text())
        for file in ("config", "methods", "methods-embedded")
    ]
    benchmark = load(functools.reduce(laid_over, trees))
    tries = pd.read_csv(repository / "benchmarks" / "rates.csv")
    whole = benchmark.run_settings("synthetic", "pg2", 0).training.iterations
    best = {}
    for method, of_method in tries.groupby("method"):
        short = of_method[of_method["iterations"] < whole].set_index("learning_rate")["validation_ssim"].fillna(-1)
        long = of_method[of_method["iterations"] == whole].set_index("learning_rate")["validation_ssim"].fillna(-1)
        authors = min(short.index)
        assert sorted(short.index / authors) == pytest.approx([1, 5, 25]), method
        # The authors' rate, and the best short one; or the second best where these are the same.
        others = short.sort_values(ascending=False).index
        second = others[0] if others[0] != authors else others[1]
        inside = long[[authors, second]]
        edges = {min(short.index): 1 / 5, max(short.index): 5}
        outwards = {rate * edges[rate] for rate in [inside.idxmax()] if rate in edges}
        assert sorted(set(long.index) - {authors, second}) == pytest.approx(sorted(outwards)), method
        finished = of_method[of_method["iterations"] == whole].set_index("learning_rate").dropna()
        best[method] = (finished["validation_ssim"] + finished["validation_foreground_ssim"]).idxmax()
        assert of_method[of_method["chosen"]]["learning_rate"].tolist() == [best[method]]
    found = {
        model: benchmark.run_settings("synthetic", model, 0).training.learning_rate
        for model in benchmark.models
        if benchmark.method_of(model) != "potgan"
    }
    assert found == best


ONE_DATA_SET = {
    "benchmark": "x",
    "description": "x",
    "protocol": "potgan-synthetic",
    "datasets": {"people": {"kind": "synthetic", "label": "People"}},
    "training": {"iterations": 600, "decay_from": 300},
}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"method": "pg2", "masks": {"heatmap_sigma": 2}}, "models.b.masks.heatmap_sigma: is not read by pg2"),
        (
            {"method": "pg2", "training": {"perceptual_width": 8}},
            "models.b.training.perceptual_width: is not read by pg2",
        ),
        ({"method": "dpig", "masks": {"levels": "grey"}}, "models.b.masks.levels: is not read by dpig"),
        ({"method": "adgan", "masks": {"limb_radius": 2}}, "models.b.masks.limb_radius: is not read by adgan"),
        ({"method": "patn", "generator": {"width": 2}}, "models.b.generator: is not read by patn"),
        ({"method": "pg2", "training": [1]}, r"models.b.training: must be a mapping, and is \[1\]"),
        ({"method": "pg2", "training": 5}, "models.b.training: must be a mapping, and is 5"),
        (
            {"method": "pg2", "options": {"first_stage": 0.9999}},
            "models.b.options: first_stage 1 of 600 iterations leaves none",
        ),
        ({"method": "deformable", "options": {"window": 4}}, "models.b.options: window must be odd"),
    ],
)
def test_what_a_method_does_not_read_or_cannot_take_is_refused(entry, message) -> None:
    """A row that would be a copy of another is no ablation, and a stage without an iteration no training."""
    with pytest.raises(UserError, match=message):
        load(ONE_DATA_SET | {"models": {"a": {}, "b": entry}})


def test_options_of_methods_on_a_data_set_are_a_mapping() -> None:
    tree = json.loads(json.dumps(ONE_DATA_SET)) | {"models": {"a": {}}}
    for options in ("pg2", ["pg2"], {"pg2": 3}):
        tree["datasets"]["people"]["overrides"] = {"options": options}
        with pytest.raises(UserError, match=r"datasets.people.overrides.options(.pg2)?: must be a mapping"):
            load(tree | {"models": {"a": {}, "b": {"method": "pg2"}}})


def test_the_name_of_a_method_is_not_given_to_a_model_of_another() -> None:
    """methods-embedded.yaml without methods.yaml gave six PoT-GANs the names and the rates of the other methods."""
    with pytest.raises(UserError, match=r"models.vunet: has the name of a method, and would be trained as PoT-GAN"):
        load(ONE_DATA_SET | {"models": {"a": {}, "vunet": {"training": {"learning_rate": 1e-3}}}})


def test_a_method_has_its_authors_rate_and_betas_unless_its_entry_names_others() -> None:
    models = {"a": {}, "v": {"method": "vunet"}, "w": {"method": "vunet", "training": {"learning_rate": 5e-3}}}
    benchmark = load(ONE_DATA_SET | {"models": models})
    training = {model: benchmark.run_settings("people", model, 0).training for model in models}
    assert (training["v"].learning_rate, training["v"].adam_betas) == (1e-3, (0.5, 0.9))
    assert (training["w"].learning_rate, training["w"].adam_betas) == (5e-3, (0.5, 0.9))
    assert training["a"].learning_rate == TrainingSettings().learning_rate


def test_the_width_of_a_network_with_published_weights_is_theirs() -> None:
    options = {"texture_network": "vgg16"}
    models = {
        "a": {},
        "b": {"method": "adgan", "options": options},
        "c": {"method": "adgan", "options": options | {"texture_width": 3}},
    }
    benchmark = load(ONE_DATA_SET | {"generator": {"width": 16}, "models": models})
    assert benchmark.trainings("people")["c"] == "b"
    assert benchmark.run_settings("people", "c", 0).options.texture_width == 64


def test_files_are_laid_over_each_other_and_messages_name_them(repository, tmp_path) -> None:
    config = repository / "config"
    files = [config / name for name in ("config.yaml", "methods.yaml", "methods-embedded.yaml")]
    trees = [yaml.safe_load(path.read_text()) for path in files]
    assert load(files) == load(functools.reduce(laid_over, trees))
    for alone in (files[1], files[2]):
        with pytest.raises(
            UserError, match=r"laid over others is named behind them \(--config config/config.yaml FILE\)"
        ):
            load(alone)
    mine = tmp_path / "mine.yaml"
    mine.write_text("models: { mine: { method: pg2, options: { widht: 3 } } }")
    with pytest.raises(UserError, match=r"config.yaml \+ .*mine.yaml: models.mine.options: unknown key 'widht'"):
        load([files[0], mine])


def test_settings_of_potgans_training_are_no_settings_of_another_method() -> None:
    tree = {"benchmark": "x", "description": "x", "protocol": "potgan-synthetic"}
    tree |= {"datasets": {"people": {"kind": "synthetic", "label": "People"}}}
    model = {"method": "patn", "training": {"decay_from": 3}}
    with pytest.raises(
        UserError, match=r"models.b.training.decay_from: is not read by patn, so that nothing would change; remove it"
    ):
        load(tree | {"models": {"a": {}, "b": model}})
    # Neither does a change of such a setting train the other method again.
    prints = []
    for name in ("a", "b"):
        for start in (10, 20):
            benchmark = load(tree | {"models": {"a": {}, "b": {"method": "patn"}}, "training": {"decay_from": start}})
            prints.append(benchmark.run_settings("people", name, 0).training_fingerprint)
    assert prints[0] != prints[1]
    assert prints[2] == prints[3]


def test_a_data_set_may_have_options_of_its_own_for_a_method(repository) -> None:
    """PATN's authors on Market-1501: batch norm, cross-entropy, weights of 10, a pool of 50; on DeepFashion the others."""
    files = ("paper", "methods", "methods-paper")
    trees = [yaml.safe_load((repository / "config" / f"{file}.yaml").read_text()) for file in files]
    benchmark = load(functools.reduce(laid_over, trees))

    def patn(dataset: str) -> tuple[object, ...]:
        options = benchmark.run_settings(dataset, "patn", 0).options
        return options.normalization, options.adversarial_kind, options.reconstruction, options.perceptual, options.pool

    assert patn("market1501") == patn("dukemtmc") == ("batch", "cross-entropy", 10, 10, 50)
    assert patn("deepfashion") == ("instance", "least-squares", 1, 1, 0)
    assert benchmark.run_settings("deepfashion", "deformable", 0).options.window == 5
    people = {"kind": "synthetic", "label": "People", "overrides": {"options": {"nobody": {}}}}
    tree = {"benchmark": "x", "description": "x", "protocol": "potgan-synthetic", "datasets": {"people": people}}
    with pytest.raises(
        UserError, match=r"datasets.people.overrides.options.nobody: no method of this name has options"
    ):
        load(tree | {"models": {"a": {}}})


def test_a_change_of_what_a_method_never_reads_trains_nothing_again() -> None:
    tree = {"benchmark": "x", "description": "x", "protocol": "potgan-synthetic"}
    tree |= {"datasets": {"people": {"kind": "synthetic", "label": "People"}}}
    methods = ("pg2", "deformable", "vunet", "dpig", "patn", "adgan")
    tree |= {"models": {"a": {}} | {method: {"method": method} for method in methods}}

    def prints(section: str = "masks", **changes: object) -> dict[str, str]:
        benchmark = load(tree | {section: changes})
        return {model: benchmark.run_settings("people", model, 0).training_fingerprint for model in benchmark.models}

    before = prints()
    # PG2 and DPIG read a mask. PATN, ADGAN and Deformable GAN read Gaussian heat maps. VUNet reads joints alone.
    assert {m for m in before if prints(limb_radius=9)[m] != before[m]} == {"a", "pg2", "dpig"}
    assert {m for m in before if prints(heatmap_sigma=3.0)[m] != before[m]} == {"a", "deformable", "patn", "adgan"}
    random = {"perceptual_network": "random"}
    narrow, wide = (prints("training", **random, perceptual_width=width) for width in (8, 16))
    assert {m for m in before if narrow[m] != wide[m]} == {"a", "deformable", "vunet", "patn", "adgan"}
    # Batch statistics, dropout and noise are of each part and of each process; PoT-GAN has none of them.
    assert {m for m in before if prints("training", device_batch_size=4)[m] != before[m]} == set(methods)
    assert prints("training", device_batch_size=32) == before


def test_what_only_potgan_can_do_is_asked_of_potgan_alone() -> None:
    tree = {"benchmark": "x", "description": "x", "protocol": "potgan-synthetic"}
    tree |= {"datasets": {"people": {"kind": "synthetic", "label": "People"}}}
    with pytest.raises(UserError, match=r"the first, b, is the one that the report compares with"):
        load(tree | {"models": {"b": {"method": "patn"}, "a": {}}})
    with pytest.raises(UserError, match=r"models.b: training.ema is 0.9, and patn averages no weights"):
        load(tree | {"models": {"a": {}, "b": {"method": "patn"}}, "training": {"ema": 0.9}})


def test_widths_and_frozen_networks_follow_potgans_unless_an_entry_says_otherwise() -> None:
    tree = {"benchmark": "x", "description": "x", "protocol": "potgan-synthetic", "generator": {"width": 16}}
    tree |= {"datasets": {"people": {"kind": "synthetic", "label": "People"}}}
    models = {"a": {}, "b": {"method": "patn"}, "c": {"method": "patn", "options": {"width": 40}}}
    benchmark = load(tree | {"models": models})
    assert benchmark.run_settings("people", "b", 0).options.width == 16
    assert benchmark.run_settings("people", "c", 0).options.width == 40


@pytest.mark.parametrize("overlay", ["three-seeds", "precision"])
def test_overlays_of_the_documents_are_read(repository, overlay) -> None:
    """Laid over config.yaml, as Snakemake lays several files over each other."""
    base, over = (yaml.safe_load((repository / "config" / f"{name}.yaml").read_text()) for name in ("config", overlay))
    tree = base | over | {"models": base["models"] | over.get("models", {})}
    benchmark = load(tree)
    assert benchmark.benchmark == over["benchmark"]
    assert benchmark.seeds == (0, 1, 2)
    taken_away = {name for name, entry in tree["models"].items() if entry is False}
    assert set(benchmark.models) == set(tree["models"]) - taken_away


def test_an_overlay_takes_entries_away(repository) -> None:
    tree = yaml.safe_load((repository / "config" / "config.yaml").read_text())
    other = tree["datasets"]["synthetic"] | {"label": "Other people"}
    tree["datasets"] |= {"other": other, "synthetic": False}
    tree["models"]["no-recon"] = False
    benchmark = load(tree)
    assert list(benchmark.datasets) == ["other"]
    assert "no-recon" not in benchmark.models
    with pytest.raises(UserError, match="datasets is empty"):
        load(tree | {"datasets": {"synthetic": False}})


def test_the_readmes_table_of_keys_is_the_fields(repository) -> None:
    text = (repository / "config" / "README.md").read_text()
    assert insert(text) == text, "run: python -m potgan.settings.describe config/README.md"


def test_every_key_of_the_shipped_configurations_is_in_the_readme(repository) -> None:
    text = (repository / "config" / "README.md").read_text()

    def keys(node: object) -> set[str]:
        if not isinstance(node, dict):
            return set()
        return set(node).union(*map(keys, node.values()))

    for path in (repository / "config").glob("*.yaml"):
        tree = yaml.safe_load(path.read_text())
        names = {*tree.get("models", {}), *tree.get("datasets", {}), *tree.get("external_methods", {})}
        for key in keys(tree) - names - {"base", *method_names()}:
            assert f"| `{key}` |" in text, f"{path.name}: {key}"


def test_every_setting_says_what_it_means() -> None:
    def fields(cls: type) -> list[dataclasses.Field]:
        inner = [f.default for f in dataclasses.fields(cls) if dataclasses.is_dataclass(f.default)]
        return [*dataclasses.fields(cls), *(f for section in inner for f in fields(type(section)))]

    everything = [*fields(Benchmark), *fields(Dataset), *fields(ExternalMethod)]
    assert len(everything) > 80
    for field in everything:
        assert field.metadata["meaning"].strip(), field.name


@pytest.mark.parametrize(
    ("limits", "good", "bad", "words"),
    [
        ({"at_least": 1}, [1, 2], [0, -1], "must be at least 1, and is"),
        ({"above": 0}, [0.1], [0, -1], "must be positive, and is"),
        ({"above": 0, "below": 1}, [0.5], [0, 1], "must lie between 0 and 1, and is"),
        ({"at_least": 0, "at_most": 1}, [0, 1], [-0.1, 1.1], "must lie between 0 and 1, and is"),
        ({"at_most": 6}, [6], [7], "must be at most 6, and is"),
        (
            {"at_least": 32, "multiple_of": 16},
            [32, 64],
            [16, 40],
            "must be at least 32 and be a multiple of 16, and is",
        ),
    ],
)
def test_ranges_are_checked_with_the_whole_path(limits, good, bad, words) -> None:
    cls = dataclasses.make_dataclass("Section", [("value", float, setting(0.0, "a number", **limits))])
    for value in good:
        assert build(cls, {"value": value}, "file: section").value == value
    for value in bad:
        with pytest.raises(UserError, match="file: section.value " + words):
            build(cls, {"value": value}, "file: section")


def test_a_configuration_is_laid_over_the_shipped_one_that_it_names() -> None:
    tree = {
        "base": "config.yaml",
        "benchmark": "mine",
        "training": {"iterations": 7, "decay_from": 3, "checkpoints": 1},
    }
    mine, shipped = load(tree | {"models": {"no-recon": False}}), load(CONFIGURATIONS / "config.yaml")
    assert mine.training == dataclasses.replace(shipped.training, iterations=7, decay_from=3, checkpoints=1)
    assert mine.datasets == shipped.datasets
    assert list(mine.models) == [name for name in shipped.models if name != "no-recon"]
    assert load(yaml.safe_load(dump(mine))) == mine  # the resolved copy names no base


def test_a_base_that_is_not_there_or_goes_in_a_circle_is_one_line(tmp_path, monkeypatch) -> None:
    with pytest.raises(
        UserError, match=r"base: 'paperr.yaml' is no configuration of .*; there are config.yaml, detected"
    ):
        load({"base": "paperr.yaml"})
    monkeypatch.setattr(reading, "CONFIGURATIONS", tmp_path)
    (tmp_path / "a.yaml").write_text("base: b.yaml")
    (tmp_path / "b.yaml").write_text("base: a.yaml")
    with pytest.raises(UserError, match=r"a.yaml: is laid over itself"):
        load(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss_weights: { adversarial: .nan }", "adversarial must be a finite number, and is nan"),
        ("training: { learning_rate: .inf }", "learning_rate must be a finite number, and is inf"),
        ("loss_weights: { perceptual: -1 }", "perceptual must be at least 0, and is -1"),
        ("seeds: [-1]", "seeds must lie between 0 and 4294967295, and is -1"),
        ("seeds: [99999999999999999999999]", "seeds must lie between 0 and 4294967295"),
        ("feature_network: { seed: 0 }", "feature_network.seed is 0, as datasets.synthetic.synthetic.seed is"),
        ("feature_network: { seed: -1 }", "seed must lie between 0 and 4294967295, and is -1"),
        (
            "datasets: { synthetic: { pairs: { test_seed: 99999999999 } } }",
            "test_seed must lie between 0 and 4294967295",
        ),
        ("models: { potgan: { method: [a] } }", "models.potgan.method: must be one of potgan"),
        ("models: { potgn: false }", "models.potgn: false removes an entry, and there is none of this name below"),
    ],
)
def test_values_that_no_run_could_use_are_one_line(tmp_path, text, message) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: config.yaml\n{text}\n")
    with pytest.raises(UserError) as error:
        load(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_paths_may_begin_with_the_home_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tables = {"train": "~/train.csv", "test": "data/~test.csv"}
    real = {"kind": "market1501", "label": "~5 people", "source": "~/m.zip", "keypoints": tables}
    dataset = load(MINIMAL | {"datasets": {"mine": real}}).datasets["mine"]
    assert dataset.source == f"{tmp_path}/m.zip"
    assert dataset.keypoints.tables == {"train": f"{tmp_path}/train.csv", "test": "data/~test.csv"}
    assert dataset.label == "~5 people"
