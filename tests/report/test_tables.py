"""Tables and paired differences, on results trees made up here with known answers. Takes about 10 s."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from potgan.common.errors import UserError
from potgan.data import pairs
from potgan.report import tables
from potgan.results import Results
from potgan.settings.layout import Layout
from potgan.settings.protocols import METRICS, PROTOCOLS
from potgan.settings.reading import load

SHARED = Path(__file__).resolve().parents[3] / "shared"
PAIRS = [(f"{i:04d}_a.jpg", f"{i:04d}_b.jpg") for i in range(40)]
OURS = {"potgan": {}, "no-pose-transform": {"generator": {"pose_transform": False}}}


def a_benchmark(datasets=None, protocol="potgan-synthetic", models=None, seeds=(0,), **more):
    """A small configuration; datasets: name -> (kind, label)."""
    datasets = datasets or {"synthetic": ("synthetic", "Synthetic people")}
    return load(
        {
            "benchmark": "trial",
            "description": "A trial.",
            "protocol": protocol,
            "datasets": {
                name: {"kind": kind, "label": label} | ({} if kind == "synthetic" else {"source": "somewhere"})
                for name, (kind, label) in datasets.items()
            },
            "models": OURS if models is None else models,
            "seeds": list(seeds),
            **more,
        }
    )


def write_run(benchmark, layout, dataset, method, seed, values, per_pair=None, pairs=PAIRS, changes=None):
    """One evaluated run. values: metric -> value; per_pair: column -> (N,) values; changes: of scores.json."""
    protocol = PROTOCOLS[benchmark.protocol]
    folder = layout.evaluate(dataset, method, seed)
    folder.mkdir(parents=True, exist_ok=True)
    scores = {
        "benchmark": benchmark.benchmark,
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "iteration": None,
        "n_pairs": len(pairs),
        "protocol": {"id": protocol.id, "hash": protocol.hash, "description": protocol.description},
        "metrics": {m: {"value": v, "protocol": protocol.metric_id(m), "n": len(pairs)} for m, v in values.items()},
        "warp": None,
        "hashes": {"pairs": "0123"},
        "versions": {"torch": "2"},
        "device": "CPU",
        "training": None,
    }
    (folder / "scores.json").write_text(json.dumps(scores | (changes or {})))
    frame = pd.DataFrame(pairs, columns=["from", "to"])
    for column in ("ssim", "mask_ssim", "l1"):
        frame[column] = (per_pair or {}).get(column, np.zeros(len(pairs)))
    frame.to_csv(folder / "per-pair.csv", index=False)


def write_all(benchmark, layout, value=0.5):
    """Every run of a benchmark, with the same value everywhere."""
    for dataset in benchmark.datasets:
        for method in benchmark.methods_of(dataset):
            for seed in benchmark.seeds_of(method):
                write_run(benchmark, layout, dataset, method, seed, dict.fromkeys(METRICS, value))


def cells_of(table):
    """(method, dataset, metric, comparable) -> Cell"""
    return {
        (row.method, column.dataset, column.metric, column.comparable): cell
        for row, cells in zip(table.rows, table.cells, strict=True)
        for column, cell in zip(table.columns, cells, strict=True)
    }


def build(benchmark, layout):
    return tables.build_tables(Results(benchmark, layout), tables.read_published())


# -- the published numbers --------------------------------------------------------------------------------------------


def paper_rows():
    """(table, row, data set, metric, value, mark) parsed from the paper's own text."""
    path = SHARED / "seed" / "potgan-paper.txt"
    if not path.exists():
        pytest.skip("the paper's text is not beside this checkout (shared/seed)")
    text = path.read_text().replace("$L_{recon}$", "L_recon").replace("<i>et al.</i>", "et al.")
    four = ["ssim", "is", "mask_ssim", "mask_is"]
    heads = {
        "I": [("market1501", m) for m in four] + [("deepfashion", m) for m in four[:2]],
        "II": [("dukemtmc", m) for m in four],
        "III": [(d, m) for d in ("market1501", "dukemtmc", "deepfashion") for m in ("fid", "mask_fid")][:5],
    }
    found = set()
    for index, roman in enumerate(("I", "II", "III", "IV"), 1):
        # The first table of that number is the paper's; the reply to the reviewers repeats some of them.
        after = re.split(rf"^TABLE {roman}\s*$", text, flags=re.MULTILINE)[1]
        body = re.search(r"^Models\t.*\n((?:.*\t.*\n)+)", after, flags=re.MULTILINE).group(1)
        lines = [line for line in body.splitlines() if re.search(r"\d\.\d{3}", line)]
        for position, line in enumerate(lines):
            row, *values = line.split("\t")
            # TABLE IV has two rows for each data set, in this order, and no data set in its head.
            head = heads.get(roman) or [(("market1501", "dukemtmc", "deepfashion")[position // 2], m) for m in four]
            for (where, metric), value in zip(head, values, strict=True):
                if value != "-":
                    mark = "best" if "<b>" in value else "second" if "<u>" in value else ""
                    found.add((index, row, where, metric, float(re.sub("<[^>]*>", "", value)), mark))
    return found


def test_published_numbers_are_those_of_the_paper():
    frame = tables.read_published()
    ours = set(frame[["table", "row", "dataset", "metric", "value", "mark"]].itertuples(index=False, name=None))
    assert ours == paper_rows()
    assert len(ours) == len(frame)


def test_published_methods_and_roles():
    frame = tables.read_published()
    names = dict(zip(frame["row"], frame["method"], strict=True))
    assert names["w/o Pose transform"] == "no-pose-transform"
    assert {names["w/ Pose transform"], names["Ours"], names["w/ L_recon"]} == {"potgan"}
    assert names["w/o L_recon"] == "no-recon"
    assert names["Real data"] == "real-data"
    assert set(frame["metric"]) <= set(METRICS)
    assert set(frame.loc[frame["row"].str.contains(r"\["), "role"]) == {"literature"}
    assert set(frame.loc[frame["method"] == "real-data", "role"]) == {"real"}


def test_published_with_another_header_is_refused(tmp_path):
    path = tmp_path / "published.csv"
    path.write_text("table,value\n1,2\n")
    with pytest.raises(UserError, match=r"published\.csv: header is 'table,value'"):
        tables.read_published(path)


# -- what may stand beside the paper ----------------------------------------------------------------------------------


def test_the_papers_data_set_under_its_protocol_is_compared(tmp_path):
    benchmark = a_benchmark({"market1501": ("market1501", "Market")}, protocol="potgan")
    layout = Layout("trial", tmp_path)
    write_all(benchmark, layout)
    table = build(benchmark, layout)[0]
    assert all(column.comparable for column in table.columns)
    assert [group for group, _ in table.groups] == ["Market-1501", "DeepFashion"]
    cell = cells_of(table)["potgan", "market1501", "ssim", True]
    assert (cell.value, cell.paper_value) == (0.5, 0.394)
    assert cell.difference == pytest.approx(0.106)
    assert tables.cell_text(cell, "ours") == ("0.500", "(0.394, +0.106)")
    assert (cell.verdict, cell.note) == ("not comparable", tables._ONE_VALUE)
    assert "not in benchmark" in cells_of(table)["potgan", "deepfashion", "ssim", True].reason


def test_the_cells_of_an_absent_data_set_say_why(tmp_path):
    """The workflow leaves out what cannot be had; its reason stands in every cell, also after the round trip as YAML."""
    from potgan.pipeline.start import present
    from potgan.settings.reading import as_tree

    whole = a_benchmark(datasets={"synthetic": ("synthetic", "S"), "dukemtmc": ("dukemtmc", "Duke")})
    tree = as_tree(whole)
    tree["datasets"]["dukemtmc"]["source"] = None
    benchmark = load(as_tree(present(load(tree), tmp_path / "data")))
    assert list(benchmark.datasets) == ["synthetic"]
    layout = Layout("trial", tmp_path)
    write_all(benchmark, layout)
    table = tables.build_tables(Results(benchmark, layout), tables.read_published())[1]
    cell = cells_of(table)["potgan", "dukemtmc", "ssim", True]
    assert cell.value is None
    assert cell.reason.startswith("not run: DukeMTMC-reID is not here (withdrawn by Duke University in 2019")
    assert cell.paper_value is not None
    assert "withdrawn by Duke University" in tables.markdown(table)


@pytest.mark.parametrize(
    ("name", "kind", "label", "protocol"),
    [
        ("synthetic", "synthetic", "Synthetic people", "potgan-synthetic"),
        ("market1501-sample", "market1501", "Market-1501", "potgan-synthetic"),
        ("market1501-sample", "market1501", "Market-1501 (sample)", "potgan"),
        ("market1501", "market1501", "Market-1501", "potgan-synthetic"),
    ],
)
def test_anything_else_has_columns_of_its_own(tmp_path, name, kind, label, protocol):
    benchmark = a_benchmark({name: (kind, label)}, protocol=protocol)
    layout = Layout("trial", tmp_path)
    write_all(benchmark, layout)
    for table in build(benchmark, layout):
        for (_, dataset, _, comparable), cell in cells_of(table).items():
            assert not (comparable and cell.value is not None), "a value of ours under the paper's heading"
            assert cell.difference is None
            assert dataset != name or comparable or cell.paper_value is None
        own = [column for column in table.columns if not column.comparable]
        assert all(column.group != "Market-1501" for column in own)
        assert bool(own) == (table.number != 2)
    heads = {column.metric: column.head for column in build(benchmark, layout)[0].columns if not column.comparable}
    suffix = "" if protocol == "potgan" else " (is-synthetic)"
    assert heads["is"] == "IS" + suffix
    assert heads["ssim"] == "SSIM"


@pytest.mark.parametrize("changes", [{"allow_partial": True, "source": "x"}, {"kind": "synthetic"}])
def test_a_name_alone_does_not_make_it_the_papers_data_set(tmp_path, changes):
    datasets = {"market1501": {"kind": "market1501", "label": "Market-1501"} | changes}
    tree = {"benchmark": "trial", "description": "", "protocol": "potgan", "models": OURS}
    benchmark = load(tree | {"datasets": datasets})
    layout = Layout("trial", tmp_path)
    write_all(benchmark, layout)
    cells = cells_of(build(benchmark, layout)[0])
    assert cells["potgan", "market1501", "ssim", True].value is None
    assert "is not the whole published data set" in cells["potgan", "market1501", "ssim", True].reason
    assert cells["potgan", "market1501", "ssim", False].value == 0.5


def test_every_cell_without_a_number_says_why(tmp_path):
    benchmark = a_benchmark()
    layout = Layout("trial", tmp_path)
    write_all(benchmark, layout)
    for table in build(benchmark, layout):
        for row, cells in zip(table.rows, table.cells, strict=True):
            for cell in cells:
                number = cell.paper_value if row.role == "literature" else cell.value
                assert (number is None) == bool(cell.reason)
    literature = cells_of(build(benchmark, layout)[0])["pg2", "synthetic", "ssim", False]
    assert literature.reason == "no published value"
    missing = cells_of(build(benchmark, layout)[3])["no-recon", "synthetic", "ssim", False]
    assert missing.reason == "not run: no-recon is not in benchmark `trial`"


def test_rows_and_their_names(tmp_path):
    benchmark = a_benchmark(models={**OURS, "no-guided-filter": {"generator": {"guided_filter": {"mode": "off"}}}})
    layout = Layout("trial", tmp_path)
    write_all(benchmark, layout)
    first, _, third, fourth = build(benchmark, layout)
    assert [row.label for row in first.rows] == [
        *("Ma et al. [10]", "Siarohin et al. [11]", "Esser et al. [14]", "Ma et al. [16]"),
        *("Zhu et al. [15]", "Men et al. [27]"),
        *("w/ Pose transform (potgan)", "w/o Pose transform (no-pose-transform)", "no-guided-filter"),
        *("First checkpoint of potgan", "Copy of the source image", "Mean training image", "Real data"),
    ]
    assert "Ours (potgan)" in [row.label for row in third.rows]
    assert [row.label for row in fourth.rows][:2] == ["w/ L_recon (potgan)", "no-pose-transform"]
    assert not any(row.role == "literature" for row in fourth.rows)


# -- values -----------------------------------------------------------------------------------------------------------


def test_mean_and_deviation_over_seeds_and_a_missing_seed(tmp_path):
    benchmark = a_benchmark(seeds=(0, 1, 2))
    layout = Layout("trial", tmp_path)
    for seed, value in ((0, 0.40), (1, 0.44), (2, 0.42)):
        write_run(benchmark, layout, "synthetic", "potgan", seed, {"ssim": value})
    write_run(benchmark, layout, "synthetic", "no-pose-transform", 1, {"ssim": 0.3})
    cells = cells_of(build(benchmark, layout)[0])
    full, partial = (cells[m, "synthetic", "ssim", False] for m in ("potgan", "no-pose-transform"))
    assert (full.value, full.sd, full.n_seeds, full.reason) == (pytest.approx(0.42), pytest.approx(0.02), 3, "")
    assert tables.cell_text(full, "ours") == ("0.420 ± 0.020", "")
    assert (partial.value, partial.sd, partial.n_seeds) == (0.3, None, 1)
    assert partial.reason == "without seed 0, 2, which was not evaluated"
    assert cells["potgan", "synthetic", "is", False].reason == "not run: this method was not evaluated here"
    tree = tables.metrics_tree(tables.collect(Results(benchmark, layout)))
    assert tree["synthetic"]["potgan"]["ssim"] == pytest.approx(0.42)
    assert tree["synthetic"]["potgan"]["ssim_sd"] == pytest.approx(0.02)
    assert tree["synthetic"]["potgan"]["seeds"] == 3
    assert tree["synthetic"]["no-pose-transform"] == {"ssim": 0.3}


def test_a_value_that_is_null_is_no_number(tmp_path):
    benchmark = a_benchmark()
    layout = Layout("trial", tmp_path)
    write_run(benchmark, layout, "synthetic", "potgan", 0, {"ssim": 0.4, "mask_is": None})
    cell = cells_of(build(benchmark, layout)[0])["potgan", "synthetic", "mask_is", False]
    assert (cell.value, cell.reason) == (None, "not measured: the scores hold no value of mask-IS")
    assert tables.metrics_tree(tables.collect(Results(benchmark, layout)))["synthetic"]["potgan"]["mask_is"] is None


def test_the_warning_of_a_measurement_is_a_footnote_of_its_number(tmp_path):
    benchmark = a_benchmark(seeds=(0, 1))
    layout = Layout("trial", tmp_path)
    few = {"value": 20.0, "protocol": "fid-synthetic", "n": 40, "warning": "FID of 40 images is biased"}
    for seed in (0, 1):
        write_run(benchmark, layout, "synthetic", "potgan", seed, {}, changes={"metrics": {"fid": few}})
    write_run(benchmark, layout, "synthetic", "no-pose-transform", 0, {"fid": 30.0})
    table = next(table for table in build(benchmark, layout) if any(c.metric == "fid" for c in table.columns))
    cells = cells_of(table)
    warned, plain = (cells[m, "synthetic", "fid", False] for m in ("potgan", "no-pose-transform"))
    assert (warned.warning, plain.warning) == ("FID of 40 images is biased", "")
    mark = table.reasons["FID of 40 images is biased"]
    assert f"20.000 ± 0.000**<sup>{mark}</sup>" in tables.markdown(table)
    assert f"<sup>{mark}</sup> FID of 40 images is biased" in tables.markdown(table)
    assert rf"\textsuperscript{{{mark}}} FID of 40 images is biased." in tables.latex(table)
    records = [r for r in tables.table_records(table) if r["metric"] == "fid" and r["dataset"] == "synthetic"]
    assert {r["method"]: r["warning"] for r in records if r["value"] is not None} == {
        "potgan": "FID of 40 images is biased", "no-pose-transform": "",
    }  # fmt: skip


def test_only_trained_models_are_ranked(tmp_path):
    models = {"potgan": {}, "b": {"generator": {"width": 8}}, "c": {"generator": {"width": 16}}}
    benchmark = a_benchmark(models=models)
    layout = Layout("trial", tmp_path)
    values = {"potgan": 0.40, "b": 0.30, "c": 0.3004, "copy-source": 0.35, "real-data": 1.0, "mean-image": 0.5}
    values["potgan-first-checkpoint"] = 0.9
    for method, value in values.items():
        write_run(benchmark, layout, "synthetic", method, 0, {"ssim": value, "fid": 100 * value})
    first, _, third, _ = build(benchmark, layout)
    marks = {m: cells_of(first)[m, "synthetic", "ssim", False].mark for m in values}
    assert marks == dict.fromkeys(values, "") | {"potgan": "best", "b": "second", "c": "second"}  # equal as printed
    fid = {m: cells_of(third)[m, "synthetic", "fid", False].mark for m in values}
    assert fid == dict.fromkeys(values, "") | {"b": "best", "c": "second"}  # lower is better; 30.00 and 30.04
    assert cells_of(first)["deform", "deepfashion", "is", True].mark == "best"  # as the paper prints it


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 7}, "seed is 7 instead of 0"),
        ({"dataset": "other"}, "dataset is 'other'"),
        ({"protocol": {"id": "potgan", "hash": "x"}}, "measured under protocol 'potgan'"),
        ({"metrics": {"fid": {"value": 1, "n": 40, "protocol": "fid-inception2015"}}}, "instead of 'fid-synthetic'"),
    ],
)
def test_scores_of_another_run_or_protocol_are_refused(tmp_path, changes, message):
    benchmark = a_benchmark()
    layout = Layout("trial", tmp_path)
    write_run(benchmark, layout, "synthetic", "potgan", 0, {"ssim": 0.4}, changes=changes)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        tables.write_tables(Results(benchmark, layout))
    assert "\n" not in str(caught.value)
    assert not layout.reports.exists()


def test_two_versions_of_a_protocol_are_refused(tmp_path):
    benchmark = a_benchmark()
    layout = Layout("trial", tmp_path)
    write_run(benchmark, layout, "synthetic", "potgan", 0, {"ssim": 0.4})
    other = {"id": "potgan-synthetic", "hash": "ffffffffffff"}
    write_run(benchmark, layout, "synthetic", "copy-source", 0, {"ssim": 0.4}, changes={"protocol": other})
    with pytest.raises(UserError, match=r"different versions of the protocol.*ffffffffffff"):
        tables.collect(Results(benchmark, layout))


def test_nothing_evaluated_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"holds no scores\.json"):
        tables.collect(Results(a_benchmark(), Layout("trial", tmp_path)))


# -- verdicts and re-scored methods -----------------------------------------------------------------------------------


def paper_benchmark(**more):
    """Two of the paper's data sets under its protocol, three seeds, and somebody else's released images."""
    external = {"label": "VUNet", "dataset": "market1501", "images": "x", "layout": "patn", "table_row": "vunet"}
    return a_benchmark(
        {"market1501": ("market1501", "Market-1501"), "deepfashion": ("deepfashion", "DeepFashion")},
        protocol="potgan",
        seeds=(0, 1, 2),
        models=OURS | {"no-recon": {"loss_weights": {"reconstruction": 0}}},
        external_methods={"vunet-released": external},
        **more,
    )


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        # The paper has 0.394. Sample standard deviations by hand: of (x - d, x, x + d) it is d.
        # The quantile .975 of Student's t with 2 degrees of freedom is 4.303 (any table of it), so that the interval reaches
        # 4.303 sqrt(1 + 1 / 3) = 4.968 standard deviations from the mean.
        ((0.3819, 0.384, 0.3861), "within"),  # 0.010 away; deviation 0.0021, which reaches 0.0104
        ((0.3821, 0.384, 0.3859), "not within"),  # 0.010 away; deviation 0.0019, which reaches 0.0094
        ((0.4030, 0.405, 0.4070), "not within"),  # 0.011 away; deviation 0.0020, which reaches 0.0099
    ],
)
def test_a_verdict_is_the_prediction_interval_of_ours(tmp_path, values, verdict):
    benchmark, layout = paper_benchmark(), Layout("trial", tmp_path)
    for seed, value in enumerate(values):
        write_run(benchmark, layout, "market1501", "potgan", seed, {"ssim": value + 1e-9 * (verdict == "within")})
    cell = cells_of(build(benchmark, layout)[0])["potgan", "market1501", "ssim", True]
    assert (cell.verdict, cell.note, cell.n_seeds) == (verdict, "", 3)
    assert tables.cell_text(cell, "ours")[1].endswith(f", {verdict})")


def test_no_verdict_without_a_number_a_spread_or_a_sound_value_of_the_paper(tmp_path):
    benchmark, layout = paper_benchmark(), Layout("trial", tmp_path)
    write_run(benchmark, layout, "market1501", "potgan", 0, {"ssim": 0.39, "is": None})
    write_run(benchmark, layout, "market1501", "vunet-released", 0, {"ssim": 0.262, "mask_ssim": 0.8})
    first = build(benchmark, layout)[0]
    cells = cells_of(first)
    single, absent = (cells["potgan", "market1501", metric, True] for metric in ("ssim", "is"))
    assert (single.verdict, single.note) == ("not comparable", tables._ONE_VALUE)
    assert absent.verdict == "not comparable"
    assert absent.reason.startswith("not measured")
    # VUNet's 0.353 is a reconstruction and no transfer (docs/decisions.md, D40): nothing is said about a re-scored 0.262.
    released = cells["vunet-released", "market1501", "ssim", True]
    assert (released.paper_value, released.verdict) == (0.353, "not comparable")
    assert "reconstructs single images" in released.note
    assert "reconstructs single images" in cells["vunet", "market1501", "ssim", True].note
    assert cells["vunet-released", "market1501", "mask_ssim", True].verdict == ""  # the paper has no such value
    other = cells["vunet-released", "deepfashion", "ssim", True]
    assert (other.paper_value, other.reason) == (None, "not run: the released images are of another data set")


def test_a_model_that_a_data_set_lacks_a_parsing_for_says_so_in_its_cells(tmp_path):
    """The rest of the benchmark is measured, and the model is, too, where the data set has one."""
    benchmark = a_benchmark(
        {"synthetic": ("synthetic", "Synthetic people"), "market1501": ("market1501", "Market-1501")},
        protocol="potgan",
        models=OURS | {"adgan": {"method": "adgan"}},
    )
    layout = Layout("trial", tmp_path)
    write_all(benchmark, layout)
    assert not layout.evaluate("market1501", "adgan", 0).exists()
    first = build(benchmark, layout)[0]
    cells = cells_of(first)
    absent = cells["adgan", "market1501", "ssim", True]
    assert absent.value is None
    assert absent.reason == "not run: adgan reads a parsing, and this data set has none (datasets.market1501.parsing)"
    assert cells["potgan", "market1501", "ssim", True].value == 0.5
    assert cells["adgan", "synthetic", "ssim", False].value == 0.5
    assert absent.reason in tables.markdown(first)


def test_a_re_scored_method_stands_under_the_literature_which_stays(tmp_path):
    benchmark, layout = paper_benchmark(), Layout("trial", tmp_path)
    write_all(benchmark, layout)
    assert not layout.evaluate("deepfashion", "vunet-released", 0).exists()
    first, second, third, _ = build(benchmark, layout)
    labels = [row.label for row in first.rows]
    assert labels[6] == "VUNet (re-scored)"
    assert "Esser et al. [14]" in labels[:6]
    assert {row.origin for row in first.rows[:6]} == {"TABLE I of the paper"}
    assert {row.role for row in first.rows[:6]} == {"literature"}
    assert "VUNet (re-scored)" not in [row.label for row in second.rows]  # DukeMTMC's table has no column for it
    assert "VUNet (re-scored)" in [row.label for row in third.rows]
    cell = cells_of(first)["vunet-released", "market1501", "ssim", True]
    assert (cell.value, cell.n_seeds, cell.mark) == (0.5, 1, "")  # not ranked among the trained models
    assert tables.seeds_text(first.rows[6], first.cells[6]) == "1"


def test_a_literature_row_that_does_not_exist_is_named(tmp_path):
    external = {"label": "T", "dataset": "synthetic", "images": "x", "layout": "patn", "table_row": "vunt"}
    benchmark, layout = a_benchmark(external_methods={"theirs": external}), Layout("trial", tmp_path)
    write_all(benchmark, layout)
    with pytest.raises(
        UserError, match=r"external_methods\.theirs\.table_row: no literature row 'vunt'; there are .*vunet"
    ):
        build(benchmark, layout)


def test_the_number_of_seeds_stands_in_every_row(tmp_path):
    benchmark, layout = paper_benchmark(), Layout("trial", tmp_path)
    write_all(benchmark, layout)
    (layout.evaluate("deepfashion", "no-recon", 1) / "scores.json").unlink()
    first = build(benchmark, layout)[0]
    counts = {row.method: tables.seeds_text(row, cells) for row, cells in table_rows(first)}
    assert counts["potgan"] == "3"
    assert counts["no-recon"] == "2–3"
    assert counts["copy-source"] == "1"
    assert counts["vunet"] == "–"
    text = tables.markdown(first)
    assert "| no-recon | 2–3 |" in text


# -- the same numbers in every file -----------------------------------------------------------------------------------


def random_results(tmp_path, seed=0):
    benchmark, layout = paper_benchmark(), Layout("trial", tmp_path)
    random = np.random.default_rng(seed)
    for dataset in benchmark.datasets:
        for method in benchmark.methods_of(dataset):
            for run in benchmark.seeds_of(method):
                values = {metric: float(random.normal(0.4, 0.05)) for metric in METRICS}
                write_run(benchmark, layout, dataset, method, run, values)
    return benchmark, layout


def plain(text):
    """Numbers, signs and words of a cell, without what bold and the like are written with."""
    for old, new in (("$-$", "-"), ("−", "-"), (r"$\pm$", "±"), (r"$\approx$", "within"), (r"$\neq$", "not within")):
        text = text.replace(old, new)
    text = re.sub(r"<sup>.*?</sup>|\\textsuperscript\{.*?\}|\\(textbf|underline|textit|tiny)|[{}*]|</?u>", "", text)
    return text.replace("--", "").replace("–", "").strip()


def numbers(text):
    return [float(number) for number in re.findall(r"[-+]?\d+\.\d+", plain(text))]


def from_markdown(text):
    """(value, sd, paper's value, difference, verdict) of each cell of each row."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")][2:]
    found = []
    for row in rows:
        cells = []
        for cell in row[2:]:
            ours, _, paper = plain(cell).partition("(")
            value, *spread = numbers(ours) or [None]
            stated, *difference = numbers(paper) or [None]
            verdict = re.search(r"(not )?within", paper)
            cells.append((value, *(spread or [None]), stated, *(difference or [None]), verdict[0] if verdict else ""))
        found.append(cells)
    return found


def from_latex(text):
    body = text.split(r"\midrule", 1)[1].split(r"\bottomrule")[0]
    found = []
    for line in body.splitlines():
        if not line.endswith(r"\\"):
            continue
        label, _, *cells = re.split(r"(?<!\\)&", line.removesuffix(r"\\"))
        values = [numbers(cell) for cell in cells]
        if "the paper's value" in label:
            for row, stated in zip(found[-1], values, strict=True):
                row[2] = stated[0] if stated else None
        elif "ours minus" in label:
            for row, difference, cell in zip(found[-1], values, cells, strict=True):
                row[3] = difference[0] if difference else None
                verdict = re.search(r"(not )?within", plain(cell))
                row[4] = verdict[0] if verdict else ""
        else:
            found.append([[*(v or [None]), *([None] if len(v) < 2 else []), None, None, ""] for v in values])
    return [[tuple(cell) for cell in row] for row in found]


def from_csv(path):
    frame = pd.read_csv(path, keep_default_na=False)

    def number(text):
        return None if text == "" else round(float(text), 3)

    found = []
    for _, rows in frame.groupby(["row_label", "method"], sort=False):
        cells = []
        for row in rows.itertuples():
            if row.role == "literature":
                cells.append((number(row.paper_value), None, None, None, ""))
            else:
                verdict = row.verdict if row.verdict != "not comparable" else ""
                cells.append((*map(number, (row.value, row.sd, row.paper_value, row.difference)), verdict))
        found.append(cells)
    return found


@pytest.mark.parametrize("seed", [0, 1])
def test_csv_markdown_and_latex_hold_the_same_numbers(tmp_path, seed):
    benchmark, layout = random_results(tmp_path, seed)
    tables.write_tables(Results(benchmark, layout))
    folder = layout.reports / "tables"
    counted = 0
    for number in (1, 2, 3, 4):
        expected = from_csv(folder / f"table{number}.csv")
        assert from_markdown((folder / f"table{number}.md").read_text()) == expected
        assert from_latex((folder / f"table{number}.tex").read_text()) == expected
        counted += sum(value is not None for row in expected for cell in row for value in cell[:4])
    assert counted > 250


def test_latex_compiles_and_nothing_runs_over_the_edge(tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-base)")
    for name, (benchmark, layout) in {
        "paper": random_results(tmp_path / "paper"),
        "awkward": awkward_benchmark(tmp_path / "awkward"),
    }.items():
        tables.write_tables(Results(benchmark, layout))
        run = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"],
            cwd=layout.reports / "tables", capture_output=True, text=True, check=False, errors="replace",
        )  # fmt: skip
        assert run.returncode == 0, f"{name}: {run.stdout[-2000:]}"
        assert "Overfull \\hbox" not in run.stdout, name
        assert (layout.reports / "tables" / "tables.pdf").stat().st_size > 10_000


# -- sensitivity ------------------------------------------------------------------------------------------------------


def test_sensitivity_has_methods_as_rows_and_protocols_as_columns(tmp_path):
    benchmark, layout = a_benchmark(seeds=(0, 1)), Layout("trial", tmp_path)
    write_all(benchmark, layout)
    for seed, value in ((0, 0.30), (1, 0.34)):
        frame = pd.DataFrame(
            {"protocol": ["patn", "clean"], "ssim": [value, value + 0.1], "mask_ssim": [0.8, 0.7], "foreground_ssim": [None, 0.2]}
        )  # fmt: skip
        frame.to_csv(layout.evaluate("synthetic", "potgan", seed) / "sensitivity.csv", index=False)
    tables.write_tables(Results(benchmark, layout))
    frame = pd.read_csv(layout.reports / "tables" / "sensitivity.csv").set_index(["method", "protocol"])
    assert frame.loc[("potgan", "patn"), "ssim"] == pytest.approx(0.32)
    assert frame.loc[("potgan", "clean"), "ssim"] == pytest.approx(0.42)
    assert frame.loc[("potgan", "clean"), "n_seeds"] == 2
    absent = frame.loc["copy-source"].iloc[0]
    assert (absent["n_seeds"], absent["reason"]) == (0, tables.NO_SENSITIVITY)
    text = (layout.reports / "tables" / "sensitivity.md").read_text()
    assert "| Models | n | patn | clean |" in text
    assert "| potgan | 2 | 0.320 | 0.420 |" in text
    assert "| potgan | 2 | – | 0.200 |" in text
    assert "| Copy of the source image | 0 | – (not measured) | – |" in text
    assert "sensitivity.csv is missing" in text


def test_released_jpeg_files_never_stand_under_clean_without_a_word(tmp_path):
    benchmark, layout = paper_benchmark(), Layout("trial", tmp_path)
    write_all(benchmark, layout)
    frame = pd.DataFrame(
        {"protocol": ["patn", "clean"], "ssim": [0.262, 0.280], "mask_ssim": 0.8, "foreground_ssim": 0.3}
    )
    for method, file_format in (("vunet-released", "jpeg"), ("copy-source", "png")):
        write_run(benchmark, layout, "market1501", method, 0, {"ssim": 0.262}, changes={"file_format": file_format})
        frame.to_csv(layout.evaluate("market1501", method, 0) / "sensitivity.csv", index=False)
    found = tables.sensitivity(Results(benchmark, layout)).set_index(["dataset", "method", "protocol"])["note"]
    assert "holds JPEG files, and protocol clean demands PNG" in found["market1501", "vunet-released", "clean"]
    assert found["market1501", "vunet-released", "patn"] == found["market1501", "copy-source", "clean"] == ""
    text = tables.sensitivity_markdown(benchmark, tables.sensitivity(Results(benchmark, layout)))
    assert r"| VUNet (re-scored) | 1 | 0.262 | 0.280\* |" in text
    assert "| Copy of the source image | 1 | 0.262 | 0.280 |" in text
    assert text.count(r"\* VUNet (re-scored): holds JPEG files") == 1


def test_a_sensitivity_file_of_other_columns_is_refused(tmp_path):
    benchmark, layout = a_benchmark(), Layout("trial", tmp_path)
    write_all(benchmark, layout)
    (layout.evaluate("synthetic", "potgan", 0) / "sensitivity.csv").write_text("protocol,ssim\npatn,0.3\n")
    with pytest.raises(UserError, match=r"sensitivity\.csv: has no column foreground_ssim"):
        tables.write_tables(Results(benchmark, layout))


# -- files ------------------------------------------------------------------------------------------------------------


def test_files_are_complete_and_the_same_every_time(tmp_path):
    benchmark = a_benchmark()
    layout = Layout("trial", tmp_path)
    write_all(benchmark, layout)
    paths = tables.write_tables(Results(benchmark, layout))
    names = {f"table{n}.{kind}" for n in (1, 2, 3, 4) for kind in ("csv", "md", "tex")}
    names |= {"ablations.csv", "ablations.md", "sensitivity.csv", "sensitivity.md", "tables.tex"}
    few = {p for p in paths if p.parent.parent.name == "metrics"}  # one file per method, for DVC
    assert {p.name for p in paths if p not in few} == names | {"metrics.json"}
    assert {p.stem for p in few} == set(benchmark.methods)
    assert {p.name for p in (layout.reports / "tables").iterdir()} == names  # and no temporary file
    before = [path.read_bytes() for path in paths]
    tables.write_tables(Results(benchmark, layout))
    assert [path.read_bytes() for path in paths] == before

    frame = pd.read_csv(layout.reports / "tables" / "table1.csv", keep_default_na=False)
    assert list(frame.columns) == [
        *("table", "row_label", "method", "role", "dataset", "metric", "protocol", "paper_value", "value", "sd"),
        *("n_seeds", "difference", "n_pairs", "mark", "verdict", "reason", "warning", "origin"),
    ]
    table = build(benchmark, layout)[0]
    assert len(frame) == len(table.rows) * len(table.columns)
    ours = frame[(frame["method"] == "potgan") & (frame["dataset"] == "synthetic") & (frame["metric"] == "is")]
    assert ours[["protocol", "value", "n_seeds", "n_pairs"]].to_numpy().tolist() == [["is-synthetic", "0.5", "1", "40"]]
    metrics = json.loads((layout.reports / "metrics.json").read_text())
    assert metrics["synthetic"]["real-data"]["fid"] == 0.5


def table_rows(table):
    return zip(table.rows, table.cells, strict=True)


def awkward_benchmark(tmp_path):
    """A benchmark whose labels hold every character that LaTeX or Markdown treats specially."""
    benchmark = a_benchmark({"synthetic": ("synthetic", r"50% of A_b & C|d {e} #1 $x^2~\ <f>")}, seeds=(0, 1))
    layout = Layout("trial", tmp_path)
    write_all(benchmark, layout)
    return benchmark, layout


def awkward(tmp_path):
    return build(*awkward_benchmark(tmp_path))


def test_latex_has_as_many_cells_in_every_row(tmp_path):
    for table in awkward(tmp_path):
        text = tables.latex(table)
        body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        papers = sum(row.role != "literature" and any(c.paper_value for c in cells) for row, cells in table_rows(table))
        differences = sum(any(c.difference is not None for c in cells) for _, cells in table_rows(table))
        ids = any(column.own_id for column in table.columns)
        assert len(rows) == len(table.rows) + 2 + ids + papers + differences
        for row in rows:
            cells = re.split(r"(?<!\\)&", row)
            spans = [int(n) for n in re.findall(r"\\multicolumn\{(\d+)\}", row)]
            assert len(cells) + sum(spans) - len(spans) == len(table.columns) + 2
        for environment in set(re.findall(r"\\begin\{([^}]*)\}", text)):
            assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}")
        assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
        assert text.isascii()


@given(st.text(st.sampled_from(list("ab \\&%$#_{}~^<>[]±−–`")), max_size=30))
def test_latex_escaping_leaves_no_special_character(text):
    escaped = tables._escape_latex(text)
    harmless = re.sub(r"\\[&%$#_{}]|\\text[a-z]+\{\}|\{\[\}|\$\\pm\$|\$-\$", "", escaped)
    assert not set(harmless) & set("\\&%$#_{}~^<>[")


def test_markdown_has_as_many_cells_in_every_row(tmp_path):
    for table in awkward(tmp_path):
        rows = [line for line in tables.markdown(table).splitlines() if line.startswith("|")]
        assert len(rows) == len(table.rows) + 2
        assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {len(table.columns) + 3}


# -- paired differences -----------------------------------------------------------------------------------------------


def two_models(tmp_path, differences, metric="ssim", seeds=(0,)):
    """no-pose-transform minus potgan is `differences[seed]`, pair by pair."""
    benchmark = a_benchmark(seeds=seeds)
    layout = Layout("trial", tmp_path)
    base = np.linspace(0.2, 0.8, len(PAIRS))
    for seed, difference in zip(seeds, differences, strict=True):
        for method, values in (("potgan", base), ("no-pose-transform", base + difference)):
            write_run(benchmark, layout, "synthetic", method, seed, {metric: values.mean()}, {metric: values})
    scores = tables.collect(Results(benchmark, layout))
    return tables.compare(Results(benchmark, layout), scores, "synthetic", "no-pose-transform", "potgan", metric)


@pytest.mark.parametrize(("metric", "effect"), [("ssim", "hurts"), ("l1", "helps")])
def test_a_constant_difference_is_found_exactly(tmp_path, metric, effect):
    found = two_models(tmp_path, [np.full(40, -0.05)], metric)
    assert found.difference == pytest.approx(-0.05)
    assert (found.low, found.high) == (pytest.approx(-0.05), pytest.approx(-0.05))
    assert (found.effect, found.n_pairs, found.sd) == (effect, 40, None)
    assert found.verdict.endswith("in the one seed; the interval excludes 0")


def test_a_pair_without_a_value_is_in_no_difference(tmp_path):
    """The inside of an empty mask has no SSIM; the interval is of the other 39 pairs."""
    benchmark, layout = a_benchmark(), Layout("trial", tmp_path)
    base = np.where(np.arange(len(PAIRS)) == 7, np.nan, np.linspace(0.2, 0.8, len(PAIRS)))
    for method, shift in (("potgan", 0.0), ("no-pose-transform", -0.05)):
        write_run(benchmark, layout, "synthetic", method, 0, {"foreground_ssim": float(np.nanmean(base + shift))})
        path = layout.evaluate("synthetic", method, 0) / "per-pair.csv"
        pd.read_csv(path).assign(foreground_ssim=base + shift).to_csv(path, index=False)
    scores = tables.collect(Results(benchmark, layout))
    c = tables.compare(
        Results(benchmark, layout), scores, "synthetic", "no-pose-transform", "potgan", "foreground_ssim"
    )
    assert (c.low, c.high, c.difference) == pytest.approx((-0.05, -0.05, -0.05))
    assert (c.effect, c.n_pairs) == ("hurts", 39)


def test_noise_around_zero_shows_no_effect(tmp_path):
    found = two_models(tmp_path, [np.tile([0.05, -0.05], 20)])
    assert found.low < 0 < found.high
    assert (found.effect, found.verdict) == ("none shown", "the interval contains 0: no effect shown")


def test_seeds_that_disagree_show_no_effect_though_the_interval_excludes_zero(tmp_path):
    found = two_models(tmp_path, [np.full(40, 0.06), np.full(40, -0.02)], seeds=(3, 5))
    assert (found.difference, found.sd) == (pytest.approx(0.02), pytest.approx(0.08 / np.sqrt(2)))
    assert found.low > 0
    assert found.effect == "none shown"
    assert "the seeds disagree" in found.verdict


def test_a_metric_of_the_whole_set_is_not_judged(tmp_path):
    found = two_models(tmp_path, [np.full(40, 4.0), np.full(40, 6.0)], "fid", seeds=(0, 1))
    assert (found.difference, found.low, found.effect) == (pytest.approx(5.0), None, "not judged")
    assert found.verdict == "worse in both seeds; no interval for this metric"


def test_a_reference_meets_every_seed(tmp_path):
    benchmark = a_benchmark(seeds=(4, 9))
    layout = Layout("trial", tmp_path)
    write_run(benchmark, layout, "synthetic", "copy-source", 0, {"ssim": 0.3}, {"ssim": np.full(40, 0.3)})
    for seed, value in ((4, 0.4), (9, 0.6)):
        write_run(benchmark, layout, "synthetic", "potgan", seed, {"ssim": value}, {"ssim": np.full(40, value)})
    scores = tables.collect(Results(benchmark, layout))
    found = tables.compare(Results(benchmark, layout), scores, "synthetic", "potgan", "copy-source", "ssim")
    assert (found.n_seeds, found.difference, found.against_value) == (2, pytest.approx(0.2), pytest.approx(0.3))
    assert tables.compare(Results(benchmark, layout), scores, "synthetic", "potgan", "mean-image", "ssim") is None


def test_other_pairs_are_refused(tmp_path):
    benchmark = a_benchmark()
    layout = Layout("trial", tmp_path)
    write_run(benchmark, layout, "synthetic", "potgan", 0, {"ssim": 0.3})
    write_run(benchmark, layout, "synthetic", "no-pose-transform", 0, {"ssim": 0.3}, pairs=PAIRS[::-1])
    with pytest.raises(UserError, match="on other pairs than potgan"):
        tables.write_tables(Results(benchmark, layout))
    (layout.evaluate("synthetic", "potgan", 0) / "per-pair.csv").unlink()
    with pytest.raises(UserError, match=r"per-pair\.csv: is missing"):
        tables.write_tables(Results(benchmark, layout))


def test_bootstrap_interval_agrees_with_normal_theory():
    sample = np.random.default_rng(5).normal(0.3, 1.0, 900)
    low, high = tables.bootstrap_interval(sample, np.arange(len(sample)))
    half = 1.96 * sample.std(ddof=1) / np.sqrt(len(sample))
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)
    assert (high + low) / 2 == pytest.approx(sample.mean(), abs=0.15 * half)


def test_bootstrap_interval_resamples_people_and_not_pairs():
    """Pairs of one person that are all alike say no more than one pair: the interval is that of the people's values."""
    values = np.random.default_rng(6).normal(0.1, 1.0, 60)
    people, pairs_each = np.arange(60), 20
    of_people = tables.bootstrap_interval(values, people)
    repeated = tables.bootstrap_interval(np.repeat(values, pairs_each), np.repeat(people, pairs_each))
    assert repeated == pytest.approx(of_people, abs=1e-12)
    as_if_independent = tables.bootstrap_interval(np.repeat(values, pairs_each), np.arange(60 * pairs_each))
    narrower = (as_if_independent[1] - as_if_independent[0]) / (of_people[1] - of_people[0])
    assert narrower == pytest.approx(pairs_each**-0.5, rel=0.1)


def test_few_people_have_no_interval(tmp_path):
    """With 19 people nothing is claimed, whatever the number of pairs; with 20 it is."""
    for count, effect in ((19, "not judged"), (20, "hurts")):
        benchmark, layout = a_benchmark(), Layout("trial", tmp_path / str(count))
        few = [(f"{i % count:04d}_a{i}.jpg", f"{i % count:04d}_b{i}.jpg") for i in range(200)]
        for method, value in (("potgan", 0.5), ("no-pose-transform", 0.4)):
            write_run(benchmark, layout, "synthetic", method, 0, {"ssim": value}, {"ssim": np.full(200, value)}, few)
        scores = tables.collect(Results(benchmark, layout))
        found = tables.compare(Results(benchmark, layout), scores, "synthetic", "no-pose-transform", "potgan", "ssim")
        assert (found.effect, found.n_people, found.n_pairs) == (effect, count, 200)
    assert tables.interval_text(found) == "[−0.100, −0.100]"


def test_people_of_names_are_persons_and_items():
    names = ["0002_c1s1_000451_03.jpg", "0002_c3s1_000551_00.jpg", "fashionMENDenimid0000008001_1front.jpg",
             "fashionMENDenimid0000008002_4full.jpg", "fashionMENDenimid0000008101_1front.jpg"]  # fmt: skip
    people = pairs.people_of(names)
    assert people[0] == people[1]  # one person, two cameras
    assert people[2] == people[3] != people[4]  # one item in two colours, and another item


@given(
    st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=2, max_size=6),
    st.floats(0.1, 10),
    st.floats(-5, 5),
)
def test_bootstrap_interval_moves_with_its_data(values, factor, shift):
    sample = np.array(values * 2)
    everybody = np.arange(len(sample))
    low, high = tables.bootstrap_interval(sample, everybody)
    assert sample.min() - 1e-12 <= low <= high <= sample.max() + 1e-12
    moved = tables.bootstrap_interval(factor * sample + shift, everybody)
    assert moved == (pytest.approx(factor * low + shift, abs=1e-9), pytest.approx(factor * high + shift, abs=1e-9))


def test_a_prediction_interval_holds_the_next_value_as_often_as_it_says():
    random = np.random.default_rng(8)
    for count in (2, 3, 5):
        draws = random.normal(7.0, 2.0, (4000, count + 1))
        mean, sd = draws[:, :count].mean(axis=1), draws[:, :count].std(axis=1, ddof=1)
        reach = np.array([tables.prediction_reach(value, count) for value in sd])
        assert (np.abs(draws[:, count] - mean) <= reach).mean() == pytest.approx(0.95, abs=0.015)


def test_pairs_of_one_camera_and_of_two_stand_apart(tmp_path):
    benchmark, layout = a_benchmark(), Layout("trial", tmp_path)
    pairs_of = [(f"{i:04d}_c1s1_0001_01.jpg", f"{i:04d}_c{1 + i % 4 // 3}s1_0002_01.jpg") for i in range(40)]
    values = np.array([0.2 if source[5:7] == target[5:7] else 0.6 for source, target in pairs_of])
    write_run(benchmark, layout, "synthetic", "potgan", 0, {"ssim": 0.3}, {"ssim": values}, pairs=pairs_of)
    frame = tables.by_camera(Results(benchmark, layout)).set_index("cameras")
    assert frame["n_pairs"].to_dict() == {"same": 30, "different": 10}
    assert frame["ssim"].to_dict() == pytest.approx({"same": 0.2, "different": 0.6})
    text = tables.by_camera_markdown(benchmark, frame.reset_index())
    assert "| potgan | 1 | 0.200 | 0.600 |" in text
    unnamed, layout = a_benchmark(), Layout("trial", tmp_path / "unnamed")
    write_run(unnamed, layout, "synthetic", "potgan", 0, {"ssim": 0.3})  # `0000_a.jpg` tells no camera
    assert tables.by_camera(Results(unnamed, layout)).empty


def test_interventions_are_rows_and_are_compared_with_the_network_itself(tmp_path):
    benchmark = a_benchmark(interventions=["identity-warps", "other-warps"], seeds=(0, 1))
    layout = Layout("trial", tmp_path)
    write_all(benchmark, layout)
    for seed in (0, 1):
        worse = np.full(40, 0.45)
        write_run(benchmark, layout, "synthetic", "potgan-other-warps", seed, {"ssim": 0.45}, {"ssim": worse})
        write_run(benchmark, layout, "synthetic", "potgan", seed, {"ssim": 0.5}, {"ssim": np.full(40, 0.5)})
    found = {(row.method, row.role, row.label) for row in build(benchmark, layout)[0].rows}
    assert ("potgan-other-warps", "intervention", "potgan with another pair's warps") in found
    comparisons = tables.ablations(Results(benchmark, layout), tables.collect(Results(benchmark, layout)))
    (of_ssim,) = [c for c in comparisons if (c.method, c.metric) == ("potgan-other-warps", "ssim")]
    assert (of_ssim.against, of_ssim.n_seeds, of_ssim.difference) == ("potgan", 2, pytest.approx(-0.05))
    assert of_ssim.effect == "hurts"


def test_warp_errors_are_means_over_seeds(tmp_path):
    benchmark = a_benchmark(seeds=(0, 1))
    layout = Layout("trial", tmp_path)
    for seed, error in ((0, 2.0), (1, 3.0)):
        scales = [
            {"scale": s, "stride": 2**s, "end_point_error": error * s, "identity_end_point_error": 6.0, "pixels": 9}
            for s in (1, 2)
        ]
        write_run(benchmark, layout, "synthetic", "potgan", seed, {"ssim": 0.4}, changes={"warp": {"scales": scales}})
    frame = tables.warp_errors(Results(benchmark, layout))
    assert frame[
        ["method", "stride", "end_point_error", "identity_end_point_error", "n_seeds"]
    ].to_numpy().tolist() == [
        ["potgan", 2, 2.5, 6.0, 2],
        ["potgan", 4, 5.0, 6.0, 2],
    ]


@given(st.floats(-1000, 1000))
def test_signed_text_reads_back(value):
    text = tables.signed(value)
    assert float(text.replace("−", "-")) == pytest.approx(value, abs=5.01e-4)
    assert text[0] in "+−" or text == "0.000"
