"""The report page and its figures, on a small made-up results tree with random images. Takes about 30 s."""

import base64
import dataclasses
import html.parser
import json
import re
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from made_records import images_record, training_record
from test_tables import PAIRS as MANY_PAIRS
from test_tables import a_benchmark, write_all, write_run

from potgan.common.errors import UserError
from potgan.data.images import ImagesRecord
from potgan.data.keypoint_files import keypoints_csv
from potgan.data.pose import JOINTS, Keypoints
from potgan.measure.evaluate import Scores
from potgan.measure.generate import GenerationRecord
from potgan.methods.potgan.tps import ThinPlateSpline, resting_points
from potgan.report import environment, figures, glance, sensitivity, tables
from potgan.report import page as report_page
from potgan.results import Results, Row
from potgan.settings.layout import Layout
from potgan.settings.reading import dump
from potgan.settings.schema import GeneratorSettings, SyntheticSettings
from potgan.training.record import TrainingRecord

NAMES = [f"{person:04d}_c1s1_{frame:06d}_00.png" for person in (1, 2, 3) for frame in range(3)]
PAIRS = [(a, b) for a in NAMES for b in NAMES if a != b and a[:4] == b[:4]]
SSIM = np.random.default_rng(3).permutation(np.linspace(0.1, 0.9, len(PAIRS)))
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


def benchmark_with_filter(mode="test", **more):
    filtered = {"guided_filter": {"mode": mode}}
    models = {
        "potgan": {"generator": filtered},
        "no-pose-transform": {"generator": {"pose_transform": False, **filtered}},
        "no-guided-filter": {"generator": {"guided_filter": {"mode": "off"}}},
    }
    training = {"iterations": 900, "decay_from": 600, "perceptual_network": "random"}
    return a_benchmark(models=models, training=training, **more)


def write_png(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[:, :, ::-1])


def results(benchmark, root):
    """A results tree of one data set: 3 persons of 3 images, every ordered pair, all methods, random pictures."""
    layout = Layout(benchmark.benchmark, root)
    random = np.random.default_rng(0)
    dataset = "synthetic"
    rows = []
    for name in NAMES:
        write_png(layout.images(dataset) / "images" / name, random.integers(0, 256, (128, 64, 3), np.uint8))
        rows.append([name, "test", name[:4], 1, 128, 64, "0", f"images/{name}"])
    columns = ["name", "split", "person", "camera", "height", "width", "sha256", "path"]
    pd.DataFrame(rows, columns=columns).to_csv(layout.images(dataset) / "images.csv", index=False)
    record = images_record()
    (layout.images(dataset) / "images.json").write_text(json.dumps(record))
    joints = random.uniform((4, 4), (60, 124), (len(NAMES), len(JOINTS), 2)).astype(np.float32)
    joints[0, 5] = np.nan
    layout.keypoints(dataset).mkdir(parents=True)
    table = Keypoints(NAMES, joints, np.ones((len(NAMES), len(JOINTS)), np.float32))
    (layout.keypoints(dataset) / "keypoints.csv").write_text(keypoints_csv(table))
    rates = {joint: 0.5 for joint in JOINTS}
    record = {"estimator": "exact", "images": 9, "detection_rate": 1.0, "joint_rate": rates, "without_row": {"test": 0}}
    (layout.keypoints(dataset) / "keypoints.json").write_text(json.dumps(record))
    layout.pairs(dataset).mkdir(parents=True)
    split = {"pairs": len(PAIRS), "identities": 3, "images": 9, "targets": 9, "sha256": "0"}
    record = {"rule": "patn", "splits": {"test": split}, "identity_overlap": {"train-test": 0}}
    (layout.pairs(dataset) / "pairs.json").write_text(json.dumps(record))

    for method in benchmark.methods:
        for seed in benchmark.seeds_of(method):
            shift = {"copy-source": -0.05, "no-pose-transform": 0.02, "no-guided-filter": 0.0}.get(method, 0.0)
            ssim = SSIM + shift
            training = {"wall_seconds": 600, "iterations": 900, "parameters": {"generator": 2_500_000}}
            training |= {"device": "CPU", "passes": 0.5}
            scales = [
                {"scale": s, "stride": 2**s, "end_point_error": e, "identity_end_point_error": 5.0, "pixels": 10}
                for s, e in ((1, 2.0), (2, 4.0), (3, 5.5), (4, 6.0))
            ]
            changes = {"training": training if method in benchmark.models else None}
            changes["warp"] = {"scales": scales} if method == "potgan" else None
            values = {"ssim": float(ssim.mean()), "mask_ssim": 0.8, "fid": 50.0}
            write_run(benchmark, layout, dataset, method, seed, values, {"ssim": ssim}, PAIRS, changes)
            if benchmark.model_of(method) is None and method not in benchmark.external_methods:
                continue
            files = []
            for one, other in PAIRS:
                name = f"{one[:-4]}___{other[:-4]}.png"
                picture = random.integers(0, 256, (128, 64, 3), np.uint8)
                write_png(layout.generate(dataset, method, seed) / "images" / name, picture)
                files.append([one, other, f"images/{name}"])
            manifest = pd.DataFrame(files, columns=["from", "to", "file"])
            manifest.to_csv(layout.generate(dataset, method, seed) / "generated.csv", index=False)
            if method not in ("no-pose-transform", *benchmark.external_methods):
                points = resting_points(4, 4, 0.9) + random.normal(0, 0.1, (len(PAIRS), 4, 16, 2))
                np.savez(layout.generate(dataset, method, seed) / "warps.npz", control_points=points)
            if method in benchmark.models and benchmark.trained_as(dataset, method) == method:
                write_progress(layout, dataset, method, seed)
    return layout


def write_progress(layout, dataset, model, seed):
    iterations = np.arange(50, 901, 50)
    frame = pd.DataFrame({"iteration": iterations, "epoch": iterations / 10})
    for column in figures.LOSSES:
        frame[column] = 1 / iterations
    frame["learning_rate"] = 2e-4
    frame["validation_ssim"] = np.where(iterations % 100 == 0, iterations / 2000, np.nan)
    frame["validation_ssim_unfiltered"] = frame["validation_ssim"] - 0.01
    layout.train(dataset, model, seed).mkdir(parents=True)
    frame.to_csv(layout.train(dataset, model, seed) / "progress.csv", index=False)


class Page(html.parser.HTMLParser):
    """What a page holds: elements as (tag, attributes), visible text, and by the id of a figure the rows of its table as
    lists of texts; fails on a tag that is not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words, self.tables = [], [], [], {}
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "figure":
            self.rows = self.tables.setdefault(dict(attributes).get("id"), [])
        elif tag == "tr" and "figure" in self.open:
            self.rows.append([])
        elif tag in ("td", "th") and "figure" in self.open:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] in (["style"], ["script"]):
            return
        self.words.append(data)
        if "figure" in self.open and ("td" in self.open or "th" in self.open):
            self.rows[-1][-1] += f"{data} "

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(benchmark, layout, page's path) of one report, for tests that only look at it."""
    description = 'Small <script>alert("x")</script> & quick.'
    benchmark = benchmark_with_filter(description=description, differences_from_paper=["Fewer <b>pairs</b>."])
    layout = results(benchmark, tmp_path_factory.mktemp("results"))
    tables.write_tables(Results(benchmark, layout))
    return benchmark, layout, report_page.write_report(Results(benchmark, layout))


def picture_of(uri):
    content = base64.b64decode(re.sub("^data:image/(png|webp);base64,", "", uri), validate=True)
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def test_page_is_well_formed_and_stands_alone(made):
    _, layout, path = made
    assert path == layout.reports / "index.html"
    text = path.read_text()
    page = Page(text)
    assert not re.search(r"https?:|//cdn|@import|url\(|fetch\(|XMLHttpRequest", text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"link", "iframe", "object"}
    ids = {a["id"] for _, a in page.elements if "id" in a}
    for tag, attributes in page.elements:
        if tag == "script":
            assert "src" not in attributes
        if tag == "a" and attributes["href"].startswith("#"):
            assert attributes["href"][1:] in ids
        elif tag == "a":
            assert (path.parent / attributes["href"]).is_file()
        if tag == "img" and "src" in attributes:
            assert attributes["alt"]
            assert picture_of(attributes["src"]).ndim == 3
    assert str(layout.root) not in text


def test_words_of_the_user_are_escaped(made):
    page = Page(made[2].read_text())
    assert 'Small <script>alert("x")</script> & quick.' in page.text
    assert "Fewer <b>pairs</b>." in page.text


def test_head_says_what_the_numbers_cannot_carry(made):
    page = Page(made[2].read_text())
    assert "IS and FID are not Inception's" in page.text
    assert "rendered figures, not photographs" in page.text
    assert "One seed per model" in page.text
    assert "18" in page.text  # pairs
    assert "2.50 M" in page.text
    assert "10 min" in page.text
    assert "network of potgan" in page.text  # no-guided-filter was not trained


def test_caveats_of_a_real_benchmark(tmp_path):
    benchmark = a_benchmark({"market1501": ("market1501", "Market-1501")}, protocol="potgan", seeds=(0, 1))
    layout = Layout("trial", tmp_path)
    write_all(benchmark, layout)
    scores = tables.collect(Results(benchmark, layout))
    smaller, unseen, spread = report_page.caveats(benchmark, scores)
    begins = "Without the pose transform module, and so with "
    assert smaller.startswith(f"{begins}fewer parameters: `no-pose-transform`.")
    assert unseen.startswith(f"{begins}no sight of the pose masks: `no-pose-transform`.")
    assert spread == "2 seeds per model: the spread over them is itself known only roughly."
    warned = scores.assign(warning=np.where(scores["metric"] == "fid", "few images", ""))
    assert "Market-1501, FID: few images" in report_page.caveats(benchmark, warned)
    part = scores[~((scores["method"] == "potgan") & (scores["seed"] == 1))]
    assert "Incomplete: not evaluated are market1501/potgan/seed1." in report_page.caveats(benchmark, part)


def test_a_caveat_names_only_the_models_of_which_it_is_true():
    """A control of equal size has no fewer parameters, and one that sees the masks does see them."""
    off = {"pose_transform": False}
    models = {
        "potgan": {"generator": {"width": 16}},
        "plain": {"generator": off | {"width": 16}},
        "wide": {"generator": off | {"width": 23}},
        "seeing": {"generator": off | {"width": 16, "pose_encoder_masks": True}},
    }
    nothing = pd.DataFrame(columns=["dataset", "warning", "metric", "method", "seed"])
    smaller, unseen = report_page.caveats(a_benchmark(models=models), nothing)[1:3]
    assert "fewer parameters: `plain`, `seeing`." in smaller
    assert "no sight of the pose masks: `plain`, `wide`." in unseen


def test_findings_are_those_of_the_numbers(made):
    benchmark, layout, _ = made
    scores = tables.collect(Results(benchmark, layout))
    comparisons = tables.ablations(Results(benchmark, layout), scores)
    learned, parts = report_page.findings(Results(benchmark, layout), scores, comparisons)
    texts = [(item["effect"], item["text"].replace("\u00a0", " ")) for item in (*learned["items"], *parts["items"])]
    assert texts[0][0] == "none shown"  # the first checkpoint scores the same
    assert texts[1] == (
        "not judged",
        "potgan against copying the source image: SSIM 0.500 against 0.450, +0.050, 95 % interval – "
        "(18 pairs, 1 seed). Better in the one seed; no interval: 3 people are too few.",
    )
    assert "nearer to the true motion at 2 of 4 scales" in texts[3][1]
    assert "at the best, stride 2: 2.00 px against 5.00 px; at the worst, stride 16: 6.00 px" in texts[3][1]
    ssim = {item["text"].split()[0]: item["effect"] for item in parts["items"] if " SSIM " in item["text"]}
    assert ssim == {"no-pose-transform": "not judged", "no-guided-filter": "none shown"}
    page = Page(made[2].read_text())
    assert all(text in page.text for _, text in texts)


def test_other_methods_are_compared_and_are_no_parts(tmp_path):
    models = {"potgan": {}, "no-recon": {"loss_weights": {"reconstruction": 0}}, "patn": {"method": "patn"}}
    benchmark, layout = a_benchmark(models=models), Layout("trial", tmp_path)
    for model, value in (("potgan", 0.5), ("no-recon", 0.4), ("patn", 0.3)):
        ssim = np.full(len(MANY_PAIRS), value)
        write_run(benchmark, layout, "synthetic", model, 0, {"ssim": value}, {"ssim": ssim}, MANY_PAIRS)
    results = Results(benchmark, layout)
    scores = tables.collect(results)
    _, parts, others = report_page.findings(results, scores, tables.ablations(results, scores))
    assert others["label"] == "Synthetic people: how do other methods compare?"
    assert [(item["effect"], item["label"]) for item in others["items"]] == [("hurts", "worse")]
    assert others["items"][0]["text"].startswith("patn against potgan: SSIM 0.300 against 0.500")
    assert [(item["label"], item["text"].split()[0]) for item in parts["items"]] == [("hurts", "no-recon")]


def test_tables_of_the_page_hold_the_scores(made):
    page = Page(made[2].read_text())
    for words in ("TABLE I.", "TABLE IV.", "w/ Pose transform (potgan)", "(0.394)", "is-synthetic", "131.950"):
        assert words in page.text
    assert "not run: Market-1501 is not in benchmark trial" in page.text
    assert "Not moving (identity) 5.00 5.00 5.00 5.00" in page.text


def test_grid_shows_the_files_of_the_pairs_that_its_rule_names(made):
    benchmark, layout, _ = made
    exhibit = figures.image_grid(Results(benchmark, layout), "synthetic")
    models = ("potgan", "no-pose-transform", "no-guided-filter")
    assert exhibit.grid.columns == ("Source", "Source pose", "Target pose", "Target mask", *models, "Target")
    assert [row.label for row in exhibit.grid.rows] == ["best", "75 %", "median", "25 %", "worst"]
    best = PAIRS[int(SSIM.argmax())]
    assert exhibit.grid.rows[0].title == " → ".join(best)
    pictures = exhibit.grid.rows[0].pictures
    for position, path in (
        (0, layout.images("synthetic") / "images" / best[0]),
        (7, layout.images("synthetic") / "images" / best[1]),
        (5, layout.generate("synthetic", models[1], 0) / "images" / f"{best[0][:-4]}___{best[1][:-4]}.png"),
    ):
        expected = cv2.imread(str(path))[:, :, ::-1]
        np.testing.assert_array_equal(pictures[position].array, expected)
        np.testing.assert_array_equal(picture_of(pictures[position].uri), expected)
    assert pictures[4].note == "0.900"
    assert pictures[5].note == "0.920"
    assert set(np.unique(pictures[3].array)) == {0, 255}
    assert "evenly spaced quantiles" in exhibit.caption


def test_figures_are_written_beside_the_page(made):
    folder = made[1].reports / "figures"
    names = {path.name for path in folder.iterdir()}
    kinds = ("ablations", "grid", "poses", "warps", "guided-filter", "quality", "learning", "data", "mask")
    assert names == {f"{kind}-synthetic.png" for kind in kinds}
    for name in names:
        image = cv2.imread(str(folder / name))
        assert min(image.shape[:2]) > 300
        assert image.std() > 5  # something is drawn
    assert Page(made[2].read_text()).text.count("Not shown") == 1  # no run has a sensitivity.csv


def test_the_same_results_give_the_same_bytes(made):
    benchmark, layout, path = made
    before = {p: p.read_bytes() for p in layout.reports.rglob("*") if p.is_file()}
    assert path in before
    report_page.write_report(Results(benchmark, layout))
    assert {p: p.read_bytes() for p in before} == before
    assert not [p for p in layout.reports.rglob("*.partial")]


def test_quantiles_of_a_known_ranking():
    frame = pd.DataFrame({"from": [f"{i}" for i in range(101)], "to": "x", "ssim": np.arange(101) / 100})
    shuffled = frame.sample(frac=1, random_state=1)
    assert figures.quantile_pairs(shuffled) == [
        ("best", ("100", "x")),
        ("75 %", ("75", "x")),
        ("median", ("50", "x")),
        ("25 %", ("25", "x")),
        ("worst", ("0", "x")),
    ]


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_quantiles_fall_and_reach_both_ends(values):
    frame = pd.DataFrame({"from": [f"{i:02d}" for i in range(len(values))], "to": "x", "ssim": values})
    chosen = [values[int(pair[0])] for _, pair in figures.quantile_pairs(frame)]
    assert chosen == sorted(chosen, reverse=True)
    assert (chosen[0], chosen[-1]) == (max(values), min(values))


def test_late_checkpoints_are_the_papers_epochs_50_to_90():
    every = pd.Series(np.arange(1, 91), index=np.arange(1000, 90_001, 1000))
    assert figures.late_checkpoints(every, 90_000).index.tolist() == [50_000, 60_000, 70_000, 80_000, 90_000]
    few = pd.Series([1.0, 2.0], index=[450, 900])
    assert figures.late_checkpoints(few, 900).index.tolist() == [450, 900]


def test_validation_of_a_model_is_of_its_own_output():
    progress = pd.DataFrame(
        {"iteration": [1, 2, 3], "validation_ssim": [None, 0.4, 0.5], "validation_ssim_unfiltered": [None, 0.3, 0.2]}
    )
    assert figures.own_validation(progress, "test").to_dict() == {2: 0.4, 3: 0.5}
    assert figures.own_validation(progress, "off").to_dict() == {2: 0.3, 3: 0.2}
    progress["validation_ssim_unfiltered"] = np.nan
    assert figures.own_validation(progress, "off").to_dict() == {2: 0.4, 3: 0.5}


def test_a_filter_inside_training_is_compared_with_another_training(tmp_path):
    benchmark = benchmark_with_filter(mode="train")
    layout = Layout("trial", tmp_path)
    exhibit = figures.filter_curve(Results(benchmark, layout), "synthetic")
    assert exhibit.missing == "training recorded no validation SSIM with and without the filter"
    for model in benchmark.models:
        write_progress(layout, "synthetic", model, 0)
    exhibit = figures.filter_curve(Results(benchmark, layout), "synthetic")
    assert not exhibit.missing
    assert "potgan (trained through the filter) and no-guided-filter (another training)" in exhibit.caption
    assert picture_of(exhibit.light).mean() > 200 > 100 > picture_of(exhibit.dark).mean()


def test_a_main_model_without_filter_says_so(tmp_path):
    benchmark = benchmark_with_filter(mode="off")
    exhibit = figures.filter_curve(Results(benchmark, Layout("trial", tmp_path)), "synthetic")
    assert exhibit.missing == "potgan uses no guided filter"


@pytest.mark.parametrize("lost", ["images/images.csv", "pairs/pairs.json", "potgan/seed0/generate/generated.csv"])
def test_a_lost_file_is_named(tmp_path, lost):
    benchmark = benchmark_with_filter()
    layout = results(benchmark, tmp_path)
    (layout.results / "synthetic" / lost).unlink()
    with pytest.raises(UserError, match=re.escape(lost)):
        report_page.write_report(Results(benchmark, layout))
    assert not (layout.reports / "index.html").exists()


def test_hashes_that_differ_name_their_runs(tmp_path):
    benchmark = a_benchmark()
    layout = Layout("trial", tmp_path)
    write_all(benchmark, layout)
    hashes = {"pairs": {"test": "89"}, "generated": "4567", "generator": None}
    write_run(benchmark, layout, "synthetic", "potgan", 0, {"ssim": 0.5}, changes={"hashes": hashes, "mask_area": 0.25})
    found = report_page.provenance(Results(benchmark, layout), tables.collect(Results(benchmark, layout)))
    assert ("synthetic: pairs.test", "89", "synthetic/potgan/seed0") in found["hashes"]
    assert ("synthetic: pairs", "0123", "5 of 6 runs, synthetic/no-pose-transform/seed0 first") in found["hashes"]
    assert found["run_hashes"] == [("synthetic/potgan/seed0", "generated", "4567")]
    assert found["mask_areas"] == {"Synthetic people": "0.250"}
    assert ("torch", "2", "all runs") in found["versions"]


# -- tables -----------------------------------------------------------------------------------------------------------


def test_tables_of_the_page_hold_the_numbers_of_the_csv(made):
    """Every number of table1.csv to table4.csv stands in its cell, and no cell of the page has another."""
    _, layout, path = made
    page = Page(path.read_text())
    for number in (1, 2, 3, 4):
        frame = pd.read_csv(layout.reports / "tables" / f"table{number}.csv")
        # The paper's columns of data sets that were not run are folded away.
        whole = f"table{number}-paper" if f"table{number}-paper" in page.tables else f"table{number}"
        rows = page.tables[whole][2:]  # below the two rows of heads
        cells = [cell for row in rows for cell in row[2:]]  # right of the method and its seeds
        assert len(cells) == len(frame)
        for cell, record in zip(cells, frame.to_dict(orient="records"), strict=True):
            shown = re.findall(r"[+−]?\d+\.\d{3}", cell)
            numbers = [record["value"], record["paper_value"], record["difference"]]
            assert [float(text.replace("−", "-")) for text in shown] == [
                round(float(n), 3) for n in numbers if pd.notna(n)
            ]


def test_a_table_of_the_page_has_the_columns_that_were_run_and_no_other(made):
    """The data set is synthetic people alone: TABLE II is of DukeMTMC, and has no column of this run."""
    benchmark, layout, path = made
    page = Page(path.read_text())
    heads = [" ".join(text.split()) for text in page.tables["table1"][0]]
    assert heads[2:] == [tables.group_label(benchmark, "synthetic")]
    assert page.tables["table2"] == []
    assert "DukeMTMC was not run here" in page.text
    names = [" ".join(row[0].split()) for row in page.tables["table1"][2:]]
    assert not any("et al." in name for name in names)  # their rows would be empty
    frame = pd.read_csv(layout.reports / "tables" / "table1.csv")
    run = frame[frame["value"].notna()]
    shown = [float(cell.split()[0]) for row in page.tables["table1"][2:] for cell in row[2:] if "." in cell]
    assert shown == [round(value, 3) for value in run["value"]]


# -- the first screen -------------------------------------------------------------------------------------------------


def difference(method, metric, effect, value=-0.02, low=-0.03, high=-0.01):
    """A comparison with the main model of which the test decides what came out."""
    return tables.Comparison(
        "synthetic", method, "potgan", metric, metric, 0.5, 0.5 - value, value, None, 1, low, high, 400, 40, (value,), effect, ""
    )  # fmt: skip


@pytest.mark.parametrize(
    ("effects", "verdict"),
    [
        (("hurts", "hurts", "hurts"), "holds"),  # taking the part away hurts
        (("hurts", "none shown", "none shown"), "holds in part"),
        (("hurts", "helps", "none shown"), "holds in part"),
        (("helps", "none shown", "none shown"), "does not hold"),
        (("none shown", "none shown", "none shown"), "not shown"),
    ],
)
def test_a_claim_is_judged_by_what_taking_the_part_away_does(effects, verdict):
    benchmark = benchmark_with_filter()
    comparisons = [difference("no-pose-transform", *pair) for pair in zip(glance.JUDGED, effects, strict=True)]
    first, second, *_, last = glance.verdicts(benchmark, comparisons)
    assert first.claim.without == "no-pose-transform"
    assert first.verdict == verdict
    # The main model minus the other: the difference and its interval, turned round.
    assert first.evidence[0][0] == "SSIM +0.020 [+0.010, +0.030]"
    assert second.verdict == last.verdict == "not tested"


@pytest.mark.parametrize(
    ("effect", "verdict"), [("hurts", "holds"), ("helps", "holds in part"), ("none shown", "holds in part")]
)
def test_a_claim_that_a_control_contradicts_holds_in_part(effect, verdict):
    """The module comes with sight of the masks. Without warps and with that sight, the gain may be gone."""
    comparisons = [difference("no-pose-transform", "ssim", "hurts"), difference("masks-without-warps", "ssim", effect)]
    first = glance.verdicts(benchmark_with_filter(), comparisons)[0]
    assert first.verdict == verdict
    assert first.evidence[-1][0].endswith("masks-without-warps")


@pytest.mark.parametrize(("ssim", "judged"), [(0.31, True), (0.30, False), (0.02, False)])
def test_no_claim_is_judged_by_a_network_that_has_learnt_nothing(ssim, judged):
    """Grey images differ significantly, too."""
    rows = [("potgan", ssim), ("mean-image", 0.30)]
    scores = pd.DataFrame([{"method": name, "metric": "ssim", "value": value} for name, value in rows])
    found = glance.unlearned(benchmark_with_filter(), scores)
    assert [verdict.verdict for verdict in found] == ([] if judged else ["not judged"] * 4)


def test_other_methods_are_a_claim_of_their_own(monkeypatch):
    benchmark = benchmark_with_filter()
    benchmark = dataclasses.replace(
        benchmark, models=benchmark.models | {"patn": {"method": "patn"}, "adgan": {"method": "adgan"}}
    )
    monkeypatch.setattr(
        type(benchmark), "method_of", lambda _, model: model if model in ("patn", "adgan") else "potgan"
    )
    comparisons = [difference("patn", "ssim", "hurts"), difference("adgan", "ssim", "helps", 0.01, 0.005, 0.02)]
    last = glance.verdicts(benchmark, comparisons)[-1]
    assert last.verdict == "holds in part"
    assert last.evidence == (("better than patn", "helps"), ("worse than adgan", "hurts"))


def test_the_first_screen_holds_the_means_and_marks_the_best_model(made):
    benchmark, layout, path = made
    text = path.read_text()
    first = text.index('<section id="glance"')
    assert first < text.index('<section id="tables"') < text.index('<section id="reading"')
    scores = tables.collect(Results(benchmark, layout))
    rows = glance.score_rows(benchmark, "synthetic", scores, ["ssim", "fid"])
    ssim = {row.label: row.cells[0] for row in rows}
    for label, cell in ssim.items():
        if label in benchmark.models:
            own = [
                json.loads((layout.evaluate("synthetic", label, seed) / "scores.json").read_text())["metrics"]["ssim"][
                    "value"
                ]
                for seed in benchmark.seeds
            ]
            assert float(cell[0]) == round(sum(own) / len(own), 3)
    trained = {label: float(cell[0]) for label, cell in ssim.items() if label in benchmark.models}
    marked = {label for label, cell in ssim.items() if cell[2]}
    assert marked == {label for label, value in trained.items() if value == max(trained.values())}


# -- warps ------------------------------------------------------------------------------------------------------------

SETTINGS = GeneratorSettings()


@pytest.mark.parametrize("stride", [2, 4, 8, 16])
def test_the_drawn_warp_is_the_one_that_the_network_samples_with(stride):
    """Sampling a map of its own pixel positions through the network's grid gives the positions that are drawn."""
    height, width = 128, 64
    points = torch.from_numpy(resting_points(4, 4, 0.9)) + 0.15 * torch.randn(16, 2, generator=torch.manual_seed(0))
    points = points.clamp(-0.8, 0.8)
    cells = (height // stride, width // stride)
    y, x = torch.meshgrid(*(torch.arange(n) * stride + (stride - 1) / 2 for n in cells), indexing="ij")
    positions = torch.stack([x, y])[None].float()
    grid = ThinPlateSpline(4, 4, 0.9, *cells)(points[None].float())
    inside = (grid.abs() <= 1).all(dim=-1).reshape(-1).numpy()
    sampled = F.grid_sample(positions, grid, mode="bilinear", align_corners=True)[0].flatten(1).T.numpy()
    pixels = positions[0].flatten(1).T.double().numpy()
    drawn = figures.source_positions(pixels, points.numpy(), stride, (height, width), SETTINGS)
    assert inside.mean() > 0.8
    np.testing.assert_allclose(drawn[inside], sampled[inside], atol=2e-3)


def test_points_at_rest_move_nothing_and_points_moved_together_shift_the_image():
    image = np.random.default_rng(0).integers(0, 256, (128, 64, 3), np.uint8)
    rest = resting_points(4, 4, 0.9)
    np.testing.assert_array_equal(figures.move_image(image, rest, 4, SETTINGS), image)
    # One cell of stride 4 to the right: 2 / (16 - 1) of the normalised width. The warp is backward: the image goes left.
    moved = figures.move_image(image, rest + np.array([2 / 15, 0]), 4, SETTINGS)
    np.testing.assert_allclose(moved[:, :60].astype(int), image[:, 4:].astype(int), atol=1)
    assert not moved[:, 61:].any()


def test_arrows_stand_on_the_body_and_end_where_the_warp_samples():
    seen = np.zeros((128, 64), bool)
    seen[20:100, 16:48] = True
    feet = figures.arrow_feet(seen)
    assert len(feet) > 20
    assert seen[feet[:, 1].astype(int), feet[:, 0].astype(int)].all()
    grey = np.full((128, 64, 3), 120, np.uint8)
    still, moved = (figures.draw_arrows(grey, feet[:1], feet[:1] + shift, (0, 0, 255)) for shift in ([0, 0], [12, 0]))
    # The blue pixels of the longer arrow reach 12 pixels further to the right, in a drawing three times as large.
    reach = [
        int(np.nonzero((image[..., 2] > image[..., 0].astype(int) + 60).any(axis=0))[0].max())
        for image in (still, moved)
    ]
    assert reach[1] - reach[0] == pytest.approx(36, abs=4)


def test_the_true_motion_moves_the_source_onto_the_target_where_it_is_known():
    source = np.random.default_rng(0).integers(0, 200, (64, 32, 3), np.uint8)
    motion, seen = np.zeros((64, 32, 2)), np.zeros((64, 32), bool)
    motion[:] = (3, -2)
    seen[10:40, 5:25] = True
    moved = figures.move_along(source, motion, seen)
    np.testing.assert_array_equal(moved[seen], source[8:38, 8:28].reshape(-1, 3))
    assert (moved[~seen] == 225).all()


def test_warps_are_shown_for_best_median_and_worst(made):
    benchmark, layout, _ = made
    exhibit = figures.warp_grid(Results(benchmark, layout), "synthetic")
    assert exhibit.grid.columns == ("Source", "Stride 2", "Stride 4", "Stride 8", "Stride 16", "Target")
    assert [row.label for row in exhibit.grid.rows] == ["best", "moved", "median", "moved", "worst", "moved"]
    best = PAIRS[int(SSIM.argmax())]
    assert exhibit.grid.rows[0].title.startswith(" → ".join(best))
    assert "True motion" not in exhibit.caption  # these results have no flow
    source = cv2.imread(str(layout.images("synthetic") / "images" / best[0]))[:, :, ::-1]
    np.testing.assert_array_equal(exhibit.grid.rows[1].pictures[0].array, source)
    points = np.load(layout.generate("synthetic", "potgan", 0) / "warps.npz")["control_points"][int(SSIM.argmax()), 2]
    moved = exhibit.grid.rows[1].pictures[3].array
    np.testing.assert_array_equal(moved, figures.move_image(source, points, 8, SETTINGS))


def test_one_source_stands_in_all_poses_of_its_test_pairs(made):
    """Fig. 5. The expected order is found from the pair list by itself: most test pairs first, each person once."""
    benchmark, layout, _ = made
    exhibit = figures.one_source_grid(Results(benchmark, layout), "synthetic")
    count = Counter(source for source, _ in PAIRS)
    order = sorted(count, key=lambda source: (-count[source], source))
    seen: dict[str, str] = {}
    for source in order:
        seen.setdefault(source.split("_")[0], source)
    titles = [row.title for row in exhibit.grid.rows if row.label == "pose"]
    assert titles == [f"{source}: target poses" for source in list(seen.values())[:3]]
    made_images = [row for row in exhibit.grid.rows if row.label == "potgan"]
    for row, source in zip(made_images, list(seen.values())[:3], strict=True):
        targets = sorted(target for start, target in PAIRS if start == source)[:6]
        assert sum(picture is not None for picture in row.pictures) == len(targets)
        file = Results(benchmark, layout).images(Row("synthetic", "potgan", 0))[source, targets[0]]
        np.testing.assert_array_equal(row.pictures[1].array, cv2.imread(str(file))[:, :, ::-1])


def test_steps_of_the_mask_add_up(made):
    benchmark, layout, _ = made
    exhibit = figures.mask_steps(Results(benchmark, layout), "synthetic")
    for row in exhibit.grid.rows:
        limbs, torso, head, full, grey = (picture.array for picture in row.pictures[2:7])
        np.testing.assert_array_equal(np.maximum(np.maximum(limbs, torso), head), full)
        np.testing.assert_array_equal(grey > 0, full > 0)


def test_a_model_without_pose_transform_has_no_warps(tmp_path):
    benchmark = a_benchmark(models={"flat": {"generator": {"pose_transform": False}}})
    exhibit = figures.warp_grid(Results(benchmark, Layout("trial", tmp_path)), "synthetic")
    assert exhibit.missing == "flat has no pose transform"


# -- protocols --------------------------------------------------------------------------------------------------------


def test_sensitivity_says_how_far_protocols_and_methods_lie_apart():
    benchmark = benchmark_with_filter()
    table = pd.DataFrame(
        {"potgan": [0.30, 0.28, 0.9], "patn": [0.26, 0.27, 0.1], "clean": [0.34, 0.30, 0.5]},
        index=["potgan", "no-pose-transform", "copy-source"],
    )
    assert sensitivity.sensitivity_sentences(benchmark, "SSIM", table) == [
        "SSIM: the images of potgan score 0.260 under `patn` and 0.340 under `clean`, 0.080 apart; the 2 methods lie 0.010 "
        "(under `patn`) to 0.040 (under `clean`) apart. The protocols put them in 2 different orders."
    ]
    assert sensitivity.sensitivity_sentences(benchmark, "SSIM", table[["patn"]]) == []


def test_sensitivity_stands_in_the_page(tmp_path):
    benchmark = benchmark_with_filter()
    layout = results(benchmark, tmp_path)
    for method, value in (("potgan", 0.25), ("no-guided-filter", 0.35)):
        frame = pd.DataFrame({"protocol": ["potgan", "clean"], "ssim": [value, value + 0.125]})
        frame["mask_ssim"], frame["foreground_ssim"] = 0.75, np.nan
        if method == "no-guided-filter":
            frame["mask_area"] = [0.3125, np.nan]
        frame.to_csv(layout.evaluate("synthetic", method, 0) / "sensitivity.csv", index=False)
    page = Page(report_page.write_report(Results(benchmark, layout)).read_text())
    assert "potgan 0.250 0.375 0.125" in page.text
    assert "no-guided-filter 0.350 0.475 0.125" in page.text
    assert "Mean share of the image 0.312 –" in page.text
    assert "sensitivity.csv is missing: no-pose-transform, First checkpoint of potgan" in page.text
    assert (layout.reports / "figures" / "protocols-synthetic.png").is_file()


def test_lines_of_many_methods_differ():
    styles = [tuple(figures.series_style(position).values()) for position in range(36)]
    assert len(set(styles)) == 36


# -- others' results --------------------------------------------------------------------------------------------------


def test_an_external_method_stands_beside_the_models(tmp_path):
    other = {"label": "VUNet", "dataset": "synthetic", "images": "somewhere/vunet", "layout": "patn"}
    benchmark = benchmark_with_filter(external_methods={"vunet": other})
    layout = results(benchmark, tmp_path)
    record = {"method": "vunet", "seed": 0, "iteration": None, "training": None, "file_format": "jpeg", "panels": 5}
    record |= {"targets": "strip", "files_sha256": "0123abcd"}
    path = layout.generate("synthetic", "vunet", 0) / "generate.json"
    path.write_text(json.dumps(record))
    page = Page(report_page.write_report(Results(benchmark, layout)).read_text())
    label = "VUNet (re-scored)"
    assert f"{label} Synthetic people vunet JPEG, 5 panels those of its strips 0123abcd" in page.text
    assert [row[0].strip() for row in page.tables["table1"]].count(label) == 1
    exhibit = figures.image_grid(Results(benchmark, layout), "synthetic")
    assert exhibit.grid.columns[4:-1] == ("potgan", "no-pose-transform", "no-guided-filter", label)
    assert exhibit.grid.rows[0].pictures[7].note == "0.900"
    script = (layout.reports / "pairs" / "synthetic" / "pairs.js").read_text()
    assert f'"name":"vunet","label":"{label}","role":"external"' in script
    path.unlink()
    assert report_page.external_summary(Results(benchmark, layout)) == []


# -- provenance -------------------------------------------------------------------------------------------------------


def test_commit_is_gits_and_changes_are_counted(tmp_path):
    def git(*arguments):
        name = ("-c", "user.name=A. Nother", "-c", "user.email=a@example.org")
        return subprocess.run(
            ["git", "-C", tmp_path, *name, *arguments], check=True, capture_output=True, text=True
        ).stdout

    assert environment.commit(tmp_path) is None
    git("init", "--quiet")
    (tmp_path / "__init__.py").write_text("")
    assert environment.commit(tmp_path) is None  # a checkout, and the code is no part of it
    git("add", "__init__.py")
    git("commit", "--quiet", "--message", "First")
    found = environment.commit(tmp_path)
    assert (found.digest, found.author, found.changed) == (git("rev-parse", "HEAD").strip(), "A. Nother", 0)
    (tmp_path / "__init__.py").write_text("changed = True")
    (tmp_path / "new.py").write_text("")
    assert environment.commit(tmp_path).changed == 1


def test_hardware_names_no_host_and_no_path():
    found = dict(environment.hardware())
    assert {"Processor", "Cores", "GPU", "System"} <= set(found)
    assert not any("/" in text and text.startswith("/") for text in found.values())


def test_wall_time_is_that_of_snakemakes_benchmark_files(made, tmp_path):
    benchmark, layout, _ = made
    trained = {
        time.rule: (time.jobs, time.total, time.longest) for time in report_page.wall_times(Results(benchmark, layout))
    }
    assert trained == {"train": (2, "20 min", "10 min")}  # no-guided-filter is not trained
    measured = Layout("trial", tmp_path)
    head = "s\th:m:s\tmax_rss\tmax_vms"
    for job, seconds, memory in (("pairs/synthetic", 3.5, "100.0"), ("train/synthetic/potgan/seed0", 7300, "2048.4"),
                                 ("train/synthetic/no-pose-transform/seed0", 60, "-"), ("feature_network", 9, "NA"),
                                 ("train/synthetic/of-an-older-configuration/seed0", 9999, "1")):  # fmt: skip
        path = measured.results / "benchmarks" / f"{job}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{head}\n{seconds}\t0:00:00\t{memory}\t0\n")
    (measured.results / "benchmarks/images").mkdir()
    (measured.results / "benchmarks/images/synthetic.tsv").write_text("")  # of a job that was killed
    # A training that was stopped after ten minutes, and went on for one.
    stopped = measured.train("synthetic", "no-pose-transform", 0) / "done.json"
    stopped.parent.mkdir(parents=True)
    stopped.write_text(json.dumps(training_record(wall_seconds=660.0)))
    assert report_page.wall_times(Results(benchmark, measured)) == [
        report_page.WallTime("feature_network", 1, "9 s", "9 s", "", "–"),
        report_page.WallTime("pairs", 1, "4 s", "4 s", "synthetic", "100 MiB"),
        report_page.WallTime("train", 2, "2.2 h", "2.0 h", "synthetic/potgan/seed0", "2,048 MiB"),
    ]


def test_tables_as_files_are_linked_where_they_are(made, tmp_path):
    _, layout, path = made
    assert report_page.downloads(layout)["table1"] == ["table1.csv", "table1.md", "table1.tex"]
    assert report_page.downloads(Layout("trial", tmp_path)) == {}
    assert 'href="tables/table4.tex"' in path.read_text()


# -- reading ----------------------------------------------------------------------------------------------------------

AUDITED = """
import collections, os, sys
from pathlib import Path
from potgan.report.page import write_report
from potgan.report.tables import write_tables
from potgan.results import Results, Row
from potgan.settings.layout import Layout
from potgan.settings.reading import load
opened = collections.Counter()
def hook(event, arguments):
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        path = os.fspath(arguments[0])
        if "/results/" in path and path.endswith((".json", ".csv")):
            opened[path] += 1
root = Path(sys.argv[1])
results = Results(load(root / "config.yaml"), Layout("trial", root))
sys.addaudithook(hook)
write_tables(results)
write_report(results)
for path, count in sorted(opened.items()):
    print(count, path)
"""


def test_the_report_reads_each_file_of_the_results_once(tmp_path):
    benchmark = benchmark_with_filter()
    results(benchmark, tmp_path)
    (tmp_path / "config.yaml").write_text(dump(benchmark))
    run = subprocess.run([sys.executable, "-c", AUDITED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    counts = dict(reversed(line.split(" ", 1)) for line in run.stdout.splitlines())
    assert len([path for path in counts if path.endswith("scores.json")]) == len(list(tmp_path.rglob("scores.json")))
    assert set(counts.values()) == {"1"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"version": 2}',
            "scores.json: is version 2 of its format, and this program reads 1; run `potgan generate` and `potgan evaluate` for it",
        ),
        ("[]", "scores.json: is no mapping; run `potgan generate` and `potgan evaluate` for it"),
        (
            '{"method": "potgan"}',
            "scores.json: key 'n_pairs' is missing; run `potgan generate` and `potgan evaluate` for it",
        ),
        (
            '{"metrix": {}}',
            "scores.json: unknown key 'metrix'; did you mean 'metrics'?; run `potgan generate` and `potgan evaluate` for it",
        ),
        ("{", "scores.json: is not JSON"),
        ("[" * 100_000, "scores.json: is not JSON"),
        (
            '{"method": "potgan", "n_pairs": 1, "protocol": {}, "metrics": {}}',
            "scores.json: has no protocol.id; run `potgan generate` and `potgan evaluate` for it",
        ),
    ],
)
def test_a_file_of_another_version_is_one_line(tmp_path, content, message):
    benchmark = benchmark_with_filter()
    layout = results(benchmark, tmp_path)
    (layout.evaluate("synthetic", "potgan", 0) / "scores.json").write_text(content)
    with pytest.raises(UserError) as error:
        report_page.write_report(Results(benchmark, layout))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("record", [Scores, TrainingRecord, GenerationRecord, ImagesRecord])
def test_what_a_record_writes_it_reads_and_a_file_of_before_versions_is_version_1(tmp_path, record):
    made = {
        Scores: {"method": "m", "n_pairs": 3, "protocol": {"id": "potgan", "hash": "0"}, "hashes": {"generator": None},
                 "metrics": {"ssim": {"value": None, "protocol": "ssim-deform", "n": 0, "reason": "why"}},
                 "warp": {"scales": [{"scale": 1, "stride": 2, "end_point_error": 1.5, "identity_end_point_error": 2.0}]}},
        TrainingRecord: training_record(settings={"options": None}),
        GenerationRecord: {"method": "m", "seed": 0, "iteration": None, "training": None, "panels": 5},
        ImagesRecord: images_record(skipped=["a.jpg"], settings=dataclasses.asdict(SyntheticSettings())),
    }[record]  # fmt: skip
    path = tmp_path / "record.json"
    path.write_text(json.dumps(made | {"decided_by": {"code": "x"}}))
    first = record.read(path)
    first.write(path)
    assert json.loads(path.read_text())["version"] == record.VERSION == 1
    assert record.read(path) == first
    written = json.loads(path.read_text())
    for key, value in made.items():
        assert written[key] == value, key
