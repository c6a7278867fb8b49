"""The report page, on a small made-up results tree with random images. Takes about 15 s."""

import base64
import html.parser
import json
import re

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_tables import a_benchmark, write_all, write_run

from potgan import report
from potgan.config import Layout
from potgan.errors import UserError
from potgan.pose import JOINTS, Keypoints
from potgan.pose_files import keypoints_csv

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
    record = {"skipped": [], "kind": "synthetic", "images": {"train": 0, "test": 9}}
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
            scales = [
                {"scale": s, "stride": 2**s, "end_point_error": e, "identity_end_point_error": 5.0, "pixels": 10}
                for s, e in ((1, 2.0), (2, 4.0), (3, 5.5), (4, 6.0))
            ]
            changes = {"training": training if method in benchmark.models else None}
            changes["warp"] = {"scales": scales} if method == "potgan" else None
            values = {"ssim": float(ssim.mean()), "mask_ssim": 0.8, "fid": 50.0}
            write_run(benchmark, layout, dataset, method, seed, values, {"ssim": ssim}, PAIRS, changes)
            if method not in benchmark.models:
                continue
            files = []
            for one, other in PAIRS:
                name = f"{one[:-4]}___{other[:-4]}.png"
                picture = random.integers(0, 256, (128, 64, 3), np.uint8)
                write_png(layout.generate(dataset, method, seed) / "images" / name, picture)
                files.append([one, other, f"images/{name}"])
            manifest = pd.DataFrame(files, columns=["from", "to", "file"])
            manifest.to_csv(layout.generate(dataset, method, seed) / "generated.csv", index=False)
            if benchmark.trained_as(dataset, method) == method:
                write_progress(layout, dataset, method, seed)
    return layout


def write_progress(layout, dataset, model, seed):
    iterations = np.arange(50, 901, 50)
    frame = pd.DataFrame({"iteration": iterations, "epoch": iterations / 10})
    for column in report.LOSSES:
        frame[column] = 1 / iterations
    frame["learning_rate"] = 2e-4
    frame["validation_ssim"] = np.where(iterations % 100 == 0, iterations / 2000, np.nan)
    frame["validation_ssim_unfiltered"] = frame["validation_ssim"] - 0.01
    layout.train(dataset, model, seed).mkdir(parents=True)
    frame.to_csv(layout.train(dataset, model, seed) / "progress.csv", index=False)


class Page(html.parser.HTMLParser):
    """What a page holds: elements as (tag, attributes), visible text; fails on a tag that is not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(benchmark, layout, page's path) of one report, for tests that only look at it."""
    description = 'Small <script>alert("x")</script> & quick.'
    benchmark = benchmark_with_filter(description=description, differences_from_paper=["Fewer <b>pairs</b>."])
    layout = results(benchmark, tmp_path_factory.mktemp("results"))
    return benchmark, layout, report.write_report(benchmark, layout)


def picture_of(uri):
    content = base64.b64decode(uri.removeprefix("data:image/png;base64,"), validate=True)
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]


def test_page_is_well_formed_and_stands_alone(made):
    _, layout, path = made
    assert path == layout.reports / "index.html"
    text = path.read_text()
    page = Page(text)
    assert not re.search(r"https?:|//cdn|@import|url\(", text)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object"}
    ids = {a["id"] for _, a in page.elements if "id" in a}
    for tag, attributes in page.elements:
        if tag == "a":
            assert attributes["href"].removeprefix("#") in ids
        if tag == "img":
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
    scores = report.tables.collect(benchmark, layout)
    smaller, spread = report.caveats(benchmark, scores)
    assert "`no-pose-transform`: builds no pose transform module" in smaller
    assert spread == "2 seeds per model: the spread over them is itself known only roughly."
    warned = scores.assign(warning=np.where(scores["metric"] == "fid", "few images", ""))
    assert "Market-1501, FID: few images" in report.caveats(benchmark, warned)
    part = scores[~((scores["method"] == "potgan") & (scores["seed"] == 1))]
    assert "Incomplete: not evaluated are market1501/potgan/seed1." in report.caveats(benchmark, part)


def test_findings_are_those_of_the_numbers(made):
    benchmark, layout, _ = made
    scores = report.tables.collect(benchmark, layout)
    comparisons = report.tables.ablations(benchmark, layout, scores)
    learned, parts = report.findings(benchmark, layout, scores, comparisons)
    texts = [(item["effect"], item["text"].replace("\u00a0", " ")) for item in (*learned["items"], *parts["items"])]
    assert texts[0][0] == "none shown"  # the first checkpoint scores the same
    assert texts[1] == (
        "helps",
        "potgan against copying the source image: SSIM 0.500 against 0.450, +0.050, 95 % interval [+0.050, +0.050] "
        "(18 pairs, 1 seed). Better in the one seed; the interval excludes 0.",
    )
    assert "nearer to the true motion at 2 of 4 scales" in texts[3][1]
    assert "at the best, stride 2: 2.00 px against 5.00 px; at the worst, stride 16: 6.00 px" in texts[3][1]
    ssim = {item["text"].split()[0]: item["effect"] for item in parts["items"] if " SSIM " in item["text"]}
    assert ssim == {"no-pose-transform": "helps", "no-guided-filter": "none shown"}
    page = Page(made[2].read_text())
    assert all(text in page.text for _, text in texts)


def test_tables_of_the_page_hold_the_scores(made):
    page = Page(made[2].read_text())
    for words in ("TABLE I.", "TABLE IV.", "w/ Pose transform (potgan)", "(0.394)", "is-synthetic", "131.950"):
        assert words in page.text
    assert "not run: Market-1501 is not in benchmark trial" in page.text
    assert "Not moving (identity) 5.00 5.00 5.00 5.00" in page.text


def test_grid_shows_the_files_of_the_pairs_that_its_rule_names(made):
    benchmark, layout, _ = made
    exhibit = report.image_grid(benchmark, layout, "synthetic")
    models = ("potgan", "no-pose-transform", "no-guided-filter")
    assert exhibit.grid.columns == ("Source", "Source pose", "Target pose", "Target mask", *models, "Target")
    assert [label for label, _ in exhibit.grid.rows] == ["best", "75 %", "median", "25 %", "worst"]
    best = PAIRS[int(SSIM.argmax())]
    pictures = exhibit.grid.rows[0][1]
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
    kinds = ("grid", "guided-filter", "learning", "data")
    assert names == {f"{kind}-synthetic.png" for kind in kinds}
    for name in names:
        image = cv2.imread(str(folder / name))
        assert min(image.shape[:2]) > 300
        assert image.std() > 5  # something is drawn
    assert Page(made[2].read_text()).text.count("Not shown") == 0


def test_the_same_results_give_the_same_bytes(made):
    benchmark, layout, path = made
    before = {p: p.read_bytes() for p in (path, *(layout.reports / "figures").iterdir())}
    report.write_report(benchmark, layout)
    assert {p: p.read_bytes() for p in before} == before
    assert not [p for p in layout.reports.rglob("*.partial")]


def test_quantiles_of_a_known_ranking():
    frame = pd.DataFrame({"from": [f"{i}" for i in range(101)], "to": "x", "ssim": np.arange(101) / 100})
    shuffled = frame.sample(frac=1, random_state=1)
    assert report.quantile_pairs(shuffled) == [
        ("best", ("100", "x")),
        ("75 %", ("75", "x")),
        ("median", ("50", "x")),
        ("25 %", ("25", "x")),
        ("worst", ("0", "x")),
    ]


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_quantiles_fall_and_reach_both_ends(values):
    frame = pd.DataFrame({"from": [f"{i:02d}" for i in range(len(values))], "to": "x", "ssim": values})
    chosen = [values[int(pair[0])] for _, pair in report.quantile_pairs(frame)]
    assert chosen == sorted(chosen, reverse=True)
    assert (chosen[0], chosen[-1]) == (max(values), min(values))


def test_late_checkpoints_are_the_papers_epochs_50_to_90():
    every = pd.Series(np.arange(1, 91), index=np.arange(1000, 90_001, 1000))
    assert report.late_checkpoints(every, 90_000).index.tolist() == [50_000, 60_000, 70_000, 80_000, 90_000]
    few = pd.Series([1.0, 2.0], index=[450, 900])
    assert report.late_checkpoints(few, 900).index.tolist() == [450, 900]


def test_validation_of_a_model_is_of_its_own_output():
    progress = pd.DataFrame(
        {"iteration": [1, 2, 3], "validation_ssim": [None, 0.4, 0.5], "validation_ssim_unfiltered": [None, 0.3, 0.2]}
    )
    assert report.own_validation(progress, "test").to_dict() == {2: 0.4, 3: 0.5}
    assert report.own_validation(progress, "off").to_dict() == {2: 0.3, 3: 0.2}
    progress["validation_ssim_unfiltered"] = np.nan
    assert report.own_validation(progress, "off").to_dict() == {2: 0.4, 3: 0.5}


def test_a_filter_inside_training_is_compared_with_another_training(tmp_path):
    benchmark = benchmark_with_filter(mode="train")
    layout = Layout("trial", tmp_path)
    exhibit = report.filter_curve(benchmark, layout, "synthetic")
    assert exhibit.missing == "training recorded no validation SSIM with and without the filter"
    for model in benchmark.models:
        write_progress(layout, "synthetic", model, 0)
    exhibit = report.filter_curve(benchmark, layout, "synthetic")
    assert not exhibit.missing
    assert "potgan (trained through the filter) and no-guided-filter (another training)" in exhibit.caption
    assert picture_of(exhibit.light).mean() > 200 > 100 > picture_of(exhibit.dark).mean()


def test_a_main_model_without_filter_says_so(tmp_path):
    benchmark = benchmark_with_filter(mode="off")
    exhibit = report.filter_curve(benchmark, Layout("trial", tmp_path), "synthetic")
    assert exhibit.missing == "potgan uses no guided filter"


@pytest.mark.parametrize("lost", ["images/images.csv", "pairs/pairs.json", "potgan/seed0/generate/generated.csv"])
def test_a_lost_file_is_named(tmp_path, lost):
    benchmark = benchmark_with_filter()
    layout = results(benchmark, tmp_path)
    (layout.results / "synthetic" / lost).unlink()
    with pytest.raises(UserError, match=re.escape(lost)):
        report.write_report(benchmark, layout)
    assert not (layout.reports / "index.html").exists()


def test_hashes_that_differ_name_their_runs(tmp_path):
    benchmark = a_benchmark()
    layout = Layout("trial", tmp_path)
    write_all(benchmark, layout)
    hashes = {"pairs": {"test": "89"}, "generated": "4567", "generator": None}
    write_run(benchmark, layout, "synthetic", "potgan", 0, {"ssim": 0.5}, changes={"hashes": hashes, "mask_area": 0.25})
    found = report.provenance(benchmark, layout, report.tables.collect(benchmark, layout))
    assert ("synthetic: pairs.test", "89", "synthetic/potgan/seed0") in found["hashes"]
    assert ("synthetic: pairs", "0123", "5 of 6 runs, synthetic/no-pose-transform/seed0 first") in found["hashes"]
    assert found["run_hashes"] == [("synthetic/potgan/seed0", "generated", "4567")]
    assert found["mask_areas"] == {"Synthetic people": "0.250"}
    assert ("torch", "2", "all runs") in found["versions"]
