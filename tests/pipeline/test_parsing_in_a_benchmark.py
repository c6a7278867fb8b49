"""A model that reads a parsing in a benchmark: what is planned, made, made again and left out. About 20 s on one core."""

import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml
from test_workflow import TINY

from potgan.common.errors import UserError
from potgan.data.batches import PARSING
from potgan.data.synthetic.imitations import write_archive
from potgan.methods.registry import method_class
from potgan.pipeline import jobs, plan, stages
from potgan.pipeline.records import stale
from potgan.pipeline.start import present
from potgan.settings.layout import Layout
from potgan.settings.methods import method_names, options_class
from potgan.settings.reading import load
from potgan.settings.schema import SyntheticSettings
from potgan.training.estimate import distinct_trainings

SMALL = {"width": 4, "texture_width": 4, "blocks": 1}
WITH_ADGAN = TINY | {
    "models": {"potgan": None, "adgan": {"method": "adgan", "options": SMALL}},
    "training": TINY["training"] | {"iterations": 2, "checkpoints": 1, "decay_from": 1, "perceptual_width": 4},
}


@pytest.mark.parametrize("name", method_names())
def test_the_plan_knows_of_each_method_whether_it_reads_a_parsing(name) -> None:
    """The plan is made from the options, without torch. The networks are what counts."""
    method = method_class(name)
    generator = getattr(method, "generator_class", None)
    needs = method.needs | (generator.needs if generator else frozenset())
    assert getattr(options_class(name), "reads_parsing", False) == (PARSING in needs)


def test_jobs_that_read_a_parsing_come_after_it_and_others_do_not_know_it() -> None:
    found = jobs.jobs(load(WITH_ADGAN), Layout("tiny"))
    assert ("parsing", "synthetic") in found
    reading = {key for key, job in found.items() if ("parsing", "synthetic") in job.before}
    assert reading == {("train", "synthetic", "adgan", 0), ("generate", "synthetic", "adgan", 0)}
    order = list(found)
    assert order.index(("parsing", "synthetic")) > order.index(("pairs", "synthetic"))
    assert not [key for key in jobs.jobs(load(TINY), Layout("tiny")) if key[0] == "parsing"]
    # The other jobs are what they are without it, so that a further model makes nothing again.
    alone = jobs.jobs(load(WITH_ADGAN | {"models": {"potgan": None}}), Layout("tiny"))
    assert all(alone[key].settings == found[key].settings for key in alone if key[0] != "tabulate")


def with_market(**more) -> dict:
    """The tiny benchmark with an imitation of Market-1501 beside the synthetic people."""
    market = {"kind": "market1501", "label": "Market", "source": "x", "allow_partial": True, "image_size": [128, 64]}
    return WITH_ADGAN | {"datasets": WITH_ADGAN["datasets"] | {"market": market | more}}


def test_a_data_set_without_a_parsing_is_run_without_the_model_and_the_plan_says_so(tmp_path) -> None:
    benchmark, layout = load(with_market()), Layout("tiny", tmp_path)
    assert "adgan" in benchmark.methods_of("synthetic")
    assert "adgan" not in benchmark.methods_of("market")
    found = jobs.jobs(benchmark, layout)
    assert ("train", "market", "potgan", 0) in found
    assert not [key for key in found if key[1:3] == ("market", "adgan")]
    assert ("parsing", "market") not in found
    told = plan.text(plan.plan(benchmark, layout))
    assert (
        "Without adgan on market: adgan reads a parsing, and this data set has none (datasets.market.parsing)." in told
    )
    with pytest.raises(UserError, match=r"^adgan on market: is not run, because adgan reads a parsing"):
        stages._pair_data(benchmark, layout, "market", "train", "cpu", "adgan", True)
    given = load(with_market(parsing="labels", parsing_classes="lip"))
    found = jobs.jobs(given, layout)
    assert found["parsing", "market"].given == ("labels",)
    assert ("evaluate", "market", "adgan", 0) in found
    assert given.left_out == {}


def test_a_folder_of_labels_that_is_not_there_stops_before_anything_is_made(tmp_path) -> None:
    source = str(tmp_path)
    given = load(with_market(source=source, parsing=str(tmp_path / "labels"), parsing_classes="lip"))
    with pytest.raises(UserError, match=r"datasets.market.parsing: .*labels is no folder; name the folder"):
        present(given, tmp_path)
    (tmp_path / "labels").mkdir()
    assert present(given, tmp_path).datasets["market"] == given.datasets["market"]


def test_the_time_of_a_model_that_a_data_set_has_not_is_not_asked_for() -> None:
    with pytest.raises(UserError, match=r"market has no adgan: adgan reads a parsing, and this data set has none"):
        distinct_trainings(load(with_market()), "market", "adgan")
    assert ("market", "adgan") not in distinct_trainings(load(with_market()))


def test_the_workflow_leaves_it_out_and_says_so(repository, tmp_path) -> None:
    """Snakemake itself, in a dry run."""
    from test_workflow import snakemake

    tree = with_market()
    tree["datasets"]["market"]["source"] = str(tmp_path / "market.zip")
    (tmp_path / "market.zip").write_bytes(b"")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    run = snakemake(repository, tmp_path, "-n")
    assert run.returncode == 0, run.stderr
    assert "without adgan on market: adgan reads a parsing" in run.stderr
    assert "The class of each pixel of the images of synthetic" in run.stdout + run.stderr
    assert "The class of each pixel of the images of market" not in run.stdout + run.stderr


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """A folder with the images, key points, pairs and parsing of the tiny benchmark's people."""
    folder = tmp_path_factory.mktemp("people")
    benchmark, layout = load(WITH_ADGAN), Layout("tiny", folder)
    for stage in (stages.images, stages.keypoints, stages.pairs, stages.parsing):
        stage(benchmark, layout, "synthetic")
    return folder


def test_the_model_is_trained_and_makes_images(people, tmp_path) -> None:
    root = Path(shutil.copytree(people, tmp_path / "root"))
    benchmark, layout = load(WITH_ADGAN), Layout("tiny", root)
    stages.train(benchmark, layout, "synthetic", "adgan", 0)
    done = json.loads((layout.train("synthetic", "adgan", 0) / "done.json").read_text())
    record = json.loads((layout.parsing("synthetic") / "parsing.json").read_text())
    assert done["data"]["parsing"] == record["sha256"]
    assert record["images"] == len(people_of(layout, "synthetic"))
    assert record["shares"]["background"] > 0.4
    assert all(share > 0.01 for kind, share in record["shares"].items() if kind != "skirt")  # nobody wears one here
    stages.generate(benchmark, layout, "synthetic", "adgan", 0)
    assert len(list((layout.generate("synthetic", "adgan", 0) / "images").glob("*.png"))) == 12
    found = jobs.jobs(benchmark, layout)
    assert list(stale(found, layout)) == []
    # Other labels make what was made with them again, and nothing else.
    changed = json.loads((layout.parsing("synthetic") / "parsing.json").read_text())
    (layout.parsing("synthetic") / "parsing.json").write_text(json.dumps(changed | {"sha256": "0"}))
    reasons = {job.name: why for job, why, _ in stale(found, layout)}
    assert set(reasons) == {
        "parsing synthetic", "train synthetic/adgan/seed0", "generate synthetic/adgan/seed0"
    }  # fmt: skip
    assert reasons["train synthetic/adgan/seed0"] == "other inputs (parsing synthetic)"


def people_of(layout: Layout, dataset: str) -> set[str]:
    """The names of the images that the pairs of a data set consist of."""
    frames = [pd.read_csv(layout.pairs(dataset) / f"pairs-{split}.csv") for split in ("train", "validation", "test")]
    return {name for frame in frames for name in (*frame["from"], *frame["to"])}


def test_without_its_stage_a_training_is_one_clear_line(people, tmp_path) -> None:
    root = Path(shutil.copytree(people, tmp_path / "root"))
    benchmark, layout = load(WITH_ADGAN), Layout("tiny", root)
    shutil.rmtree(layout.parsing("synthetic"))
    with pytest.raises(UserError, match=r"parsing\.zip: missing; run `potgan parsing` first"):
        stages.train(benchmark, layout, "synthetic", "adgan", 0)


def test_label_images_are_an_input_by_their_content(tmp_path) -> None:
    settings = SyntheticSettings(train_identities=3, test_identities=2, images_per_identity=3)
    write_archive("market1501", tmp_path / "archive", settings)
    record = json.loads((tmp_path / "archive" / "imitation.json").read_text())
    tree = with_market(
        source=str(tmp_path / "archive" / record["archive"]),
        keypoints={split: str(tmp_path / "archive" / name) for split, name in record["tables"].items()},
    )
    del tree["datasets"]["synthetic"]
    layout, labels = Layout("tiny", tmp_path), tmp_path / "labels"
    for stage in (stages.images, stages.keypoints, stages.pairs):
        stage(load(tree), layout, "market")
    tree["datasets"]["market"] |= {"parsing": str(labels), "parsing_classes": "lip"}
    benchmark = load(tree)
    found = jobs.jobs(benchmark, layout)
    assert list(stale(found, layout)) == []  # images, key points and pairs are not made again for it

    labels.mkdir()
    random = np.random.default_rng(0)
    for name in people_of(layout, "market"):
        cv2.imwrite(str(labels / f"{Path(name).stem}.png"), random.integers(0, 20, (128, 64)).astype(np.uint8))
    stages.parsing(benchmark, layout, "market")
    assert list(stale(found, layout)) == []
    first = sorted(labels.iterdir())[0]
    first.touch()
    assert list(stale(found, layout)) == []  # the times of files are no content
    cv2.imwrite(str(first), np.zeros((128, 64), np.uint8))
    assert [(job.key, why) for job, why, _ in stale(found, layout)] == [
        (("parsing", "market"), f"other inputs ({labels})")
    ]
    other = load(tree | {"datasets": {"market": tree["datasets"]["market"] | {"parsing_classes": "adgan"}}})
    (again,) = stale(jobs.jobs(other, layout), layout)
    assert "other settings" in again[1]
    stages.parsing(benchmark, layout, "market")
    assert list(stale(found, layout)) == []
    data = stages._pair_data(benchmark, layout, "market", "train", "cpu", "adgan", True)
    assert data.parsing.shape == (len(data.names), 128, 64)
    assert int(data.parsing.max()) < 8
    assert dataclasses.replace(data, parsing=None).parts == data.parts - {PARSING}
