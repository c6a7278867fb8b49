"""`potgan compare` on runs made up here, whose differences are known."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from made_records import training_record
from test_page import benchmark_with_filter, results

from potgan.common.errors import UserError
from potgan.common.files import write_text
from potgan.report import compare, compare_page
from potgan.settings.reading import dump, load
from potgan.settings.schema import LossWeights

PAIRS = [(f"{i:04d}_a.jpg", f"{i:04d}_b.jpg") for i in range(40)]
BASE = np.linspace(0.2, 0.8, len(PAIRS))
CONFIGURATION = {
    "benchmark": "trial",
    "description": "A trial.",
    "protocol": "potgan-synthetic",
    "datasets": {"synthetic": {"kind": "synthetic", "label": "Synthetic people"}},
    "generator": {"guided_filter": {"mode": "test"}},
    "models": {
        "potgan": None,
        "no-recon": {"loss_weights": {"reconstruction": 0}},
        "no-guided-filter": {"generator": {"guided_filter": {"mode": "off"}}},
    },
}


def write_run(root, method, ssim=BASE, protocol=("potgan-synthetic", "aaaa"), fid=10.0, pairs=PAIRS, seed=0, **more):
    """A run's folder as the stages write it; models have their training's record, references have none."""
    benchmark = load(CONFIGURATION)
    results = root / "results" / "trial"
    run = results / "synthetic" / method / f"seed{seed}"
    (run / "evaluate").mkdir(parents=True)
    (results / "config.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    if method in ("potgan", "no-recon"):
        import dataclasses

        (run / "train").mkdir()
        settings = dataclasses.asdict(benchmark.run_settings("synthetic", method, seed))
        (run / "train" / "done.json").write_text(json.dumps(training_record(settings=settings)))
    scores = {
        "benchmark": "trial", "dataset": "synthetic", "method": method, "seed": seed, "n_pairs": len(pairs),
        "protocol": {"id": protocol[0], "hash": protocol[1], "description": ""},
        "metrics": {
            "ssim": {"value": float(np.mean(ssim)), "protocol": "ssim-deform", "n": len(pairs)},
            "fid": {"value": fid, "protocol": "fid-synthetic", "n": len(pairs)},
        },
        "versions": {"torch": "2"},
    }  # fmt: skip
    (run / "evaluate" / "scores.json").write_text(json.dumps(scores | more))
    frame = pd.DataFrame(pairs, columns=["from", "to"])
    frame["ssim"] = ssim
    frame.to_csv(run / "evaluate" / "per-pair.csv", index=False)
    return run


def potgan(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "potgan", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def only(runs, metric="ssim"):
    return next(row for (_, name), row in compare.score_differences(runs).items() if name == metric)


def test_a_constant_difference_is_found_exactly_and_the_setting_behind_it(tmp_path) -> None:
    runs = compare.read_runs([write_run(tmp_path, "potgan"), write_run(tmp_path, "no-recon", BASE - 0.05, fid=14.5)])
    assert [run.name for run in runs] == ["potgan/seed0", "no-recon/seed0"]
    first, second = only(runs)
    assert (first.value, first.difference) == (pytest.approx(0.5), None)
    assert second.difference == pytest.approx(-0.05)
    assert (second.low, second.high) == (pytest.approx(-0.05), pytest.approx(-0.05))
    fid = only(runs, "fid")[1]
    assert (fid.difference, fid.low, fid.note) == (pytest.approx(4.5), None, "of the whole set: no interval")
    assert compare.differing_settings(runs) == {
        "loss_weights.reconstruction": [10.0, 0.0],
        "method": ["potgan", "no-recon"],
    }


def test_the_interval_is_of_paired_differences(tmp_path) -> None:
    """Pairs vary by 0.6, differences by 0.02: normal theory on the differences says how wide the interval is."""
    noise = np.random.default_rng(0).normal(0.01, 0.02, len(PAIRS))
    second = only(compare.read_runs([write_run(tmp_path, "potgan"), write_run(tmp_path, "no-recon", BASE + noise)]))[1]
    half = 1.96 * noise.std(ddof=1) / np.sqrt(len(PAIRS))
    assert (second.high - second.low) / 2 == pytest.approx(half, rel=0.15)
    assert second.difference == pytest.approx(noise.mean())


def test_a_pair_without_a_value_is_in_no_interval(tmp_path) -> None:
    """SSIM inside an empty mask is undefined: the other pairs decide, and the file stays JSON that all can read."""
    gap = np.where(np.arange(len(PAIRS)) == 3, np.nan, BASE)
    write_run(tmp_path, "potgan", BASE)
    runs = [write_run(tmp_path, "no-recon", gap), write_run(tmp_path, "copy-source", gap - 0.05)]
    for run in runs:  # as `evaluate` writes it: the mean of the pairs that have one
        path = run / "evaluate" / "scores.json"
        scores = json.loads(path.read_text())
        scores["metrics"]["ssim"]["value"] = float(pd.read_csv(path.with_name("per-pair.csv"))["ssim"].mean())
        path.write_text(json.dumps(scores))
    second = only(compare.read_runs(runs))[1]
    assert (second.difference, second.low, second.high) == pytest.approx((-0.05, -0.05, -0.05))
    assert "NaN" not in json.dumps(compare.as_tree(compare.read_runs(runs)))


def test_what_was_measured_of_released_strips_is_a_setting(tmp_path) -> None:
    origin = {"layout": "patn", "use": "result"}
    runs = [
        write_run(
            tmp_path / use, "copy-source", origin=origin | {"use": use}, protocol=("clean-as-they-are-strip", "c")
        )
        for use in ("result", "source")
    ]
    assert compare.differing_settings(compare.read_runs(runs)) == {"origin.use": ["result", "source"]}


def test_a_row_that_shares_a_training_takes_its_settings_from_the_configuration(tmp_path) -> None:
    runs = compare.read_runs([write_run(tmp_path, "potgan"), write_run(tmp_path, "no-guided-filter")])
    assert compare.differing_settings(runs)["generator.guided_filter.mode"] == ["test", "off"]
    assert "training.iterations" not in compare.differing_settings(runs)


@pytest.mark.parametrize("other", [("patn", "bbbb"), ("potgan-synthetic", "cccc")])
def test_scores_of_two_protocols_stand_side_by_side_and_are_not_subtracted(tmp_path, other) -> None:
    runs = compare.read_runs([write_run(tmp_path, "potgan"), write_run(tmp_path, "no-recon", protocol=other)])
    for row in compare.score_differences(runs).values():
        assert all(entry.difference is None for entry in row)
    text = compare.text(runs)
    assert "not comparable" in text
    assert text.count("0.500") == 2
    assert f"protocol.{other[0]}" in compare.differing_settings(runs)


def test_other_pairs_have_no_interval(tmp_path) -> None:
    runs = compare.read_runs([write_run(tmp_path, "potgan"), write_run(tmp_path, "no-recon", pairs=PAIRS[::-1])])
    second = only(runs)[1]
    assert (second.difference, second.low, second.note) == (0, None, "other pairs: no interval")


def test_three_runs_are_set_against_the_first(tmp_path) -> None:
    paths = [write_run(tmp_path, m, BASE + d) for m, d in (("potgan", 0), ("no-recon", 0.1), ("copy-source", -0.1))]
    assert [entry.difference for entry in only(compare.read_runs(paths))] == [
        None,
        pytest.approx(0.1),
        pytest.approx(-0.1),
    ]


def test_a_value_that_was_not_measured_says_why(tmp_path) -> None:
    first, second = write_run(tmp_path, "potgan"), write_run(tmp_path, "no-recon", fid=None)
    entry = only(compare.read_runs([first, second]), "fid")[1]
    assert (entry.value, entry.difference) == (None, None)
    assert entry.note.startswith("not measured")


def test_a_warning_stands_below_the_numbers_that_it_is_about(tmp_path) -> None:
    fid = {"value": 9.0, "protocol": "fid-synthetic", "n": 40, "warning": "FID of 40 images is biased"}
    runs = compare.read_runs([write_run(tmp_path, name, metrics={"fid": fid}) for name in ("potgan", "no-recon")])
    assert [entry.note for entry in only(runs, "fid")] == [
        "FID of 40 images is biased",
        "of the whole set: no interval; FID of 40 images is biased",
    ]
    assert "1) FID of 40 images is biased" in compare.text(runs)


def test_a_run_is_named_by_any_of_its_three_paths(tmp_path) -> None:
    run = write_run(tmp_path, "potgan")
    for path in (run, run / "evaluate", run / "evaluate" / "scores.json"):
        assert compare.read_runs([path, run])[0].measurements.keys() == {"potgan-synthetic"}
        assert compare.read_runs([path, run])[0].settings["loss_weights.reconstruction"] == 10.0


def test_folders_of_all_protocols_give_a_table_with_the_literature(tmp_path) -> None:
    for name, value in (("one", 0.262), ("two", 0.384)):
        for id_ in ("patn", "clean"):
            source = write_run(tmp_path / name / id_, "copy-source", BASE - 0.5 + value, protocol=(id_, id_))
            (tmp_path / "scored" / name).mkdir(parents=True, exist_ok=True)
            (source / "evaluate").rename(tmp_path / "scored" / name / id_)
    runs = compare.read_runs([tmp_path / "scored" / "one", tmp_path / "scored" / "two"])
    text = compare.text(runs, "market1501")
    matrix = text.split("SSIM under every protocol")[1].splitlines()[1:]
    assert matrix[0].split() == ["clean", "patn", "as", "published"]
    assert matrix[1].split() == ["one", "0.262", "0.262"]
    assert matrix[2].split() == ["two", "0.384", "0.384"]
    assert any("Siarohin et al. [11]" in line and "0.290 (table 1 of the paper)" in line for line in matrix)
    with pytest.raises(UserError, match="no published SSIM on 'cuhk'"):
        compare.text(runs, "cuhk")


def test_the_command_prints_writes_json_and_refuses_in_one_line(tmp_path) -> None:
    first, second = write_run(tmp_path, "potgan"), write_run(tmp_path, "no-recon", BASE - 0.05)
    out = tmp_path / "difference.json"
    run = potgan("compare", first, second, "--json", out)
    assert run.returncode == 0, run.stderr
    assert "loss_weights.reconstruction" in run.stdout
    assert "−0.050 [−0.050, −0.050]" in run.stdout
    tree = json.loads(out.read_text())
    assert tree["runs"] == ["potgan/seed0", "no-recon/seed0"]
    assert tree["settings"]["loss_weights.reconstruction"] == [10.0, 0.0]
    ssim = next(entry for entry in tree["scores"] if entry["metric"] == "ssim")
    assert ssim["runs"][1]["difference"] == pytest.approx(-0.05)

    (tmp_path / "empty").mkdir()
    (tmp_path / "other.json").write_text("[]")
    for paths, part in (
        ([first], "name at least two runs"),
        ([first, tmp_path / "empty"], "is no run: it has no scores.json"),
        ([first, tmp_path / "other.json"], "is no mapping; run `potgan generate` and `potgan evaluate` for it"),
    ):
        run = potgan("compare", *paths)
        assert run.returncode == 2
        assert len(run.stderr.strip().splitlines()) == 1
        assert part in run.stderr


def test_what_scores_were_measured_with_is_compared_in_words(tmp_path) -> None:
    same = {"pairs": "p" * 64, "targets": "t" * 64, "keypoints": "k" * 64}
    write_run(tmp_path / "a", "copy", measured_with=same)
    for name, measured in (
        ("equal", same), ("other", same | {"targets": "u" * 64, "pairs": "q" * 64}), ("old", {})
    ):  # fmt: skip
        write_run(tmp_path / name, "copy", measured_with=measured)
    runs = compare.read_runs([tmp_path / name / "results/trial/synthetic/copy/seed0" for name in ("a", "equal")])
    assert "No setting differs" in compare.text(runs)
    runs = compare.read_runs([tmp_path / name / "results/trial/synthetic/copy/seed0" for name in ("a", "other")])
    shown = compare.text(runs)
    assert "measured with different pair lists." in shown
    assert "measured with different target images." in shown
    assert "key points" not in shown
    runs = compare.read_runs([tmp_path / name / "results/trial/synthetic/copy/seed0" for name in ("a", "old")])
    assert not compare.measured_with_others(runs)  # an earlier version says nothing of them


# -- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_trainings(tmp_path_factory):
    """Two clones with one benchmark each, which differ in one loss weight and in the images of some pairs."""
    folders = []
    for number, weight in enumerate((10, 5)):
        root = tmp_path_factory.mktemp(f"clone{number}")
        benchmark = benchmark_with_filter(loss_weights=LossWeights(reconstruction=weight))
        layout = results(benchmark, root)
        write_text(layout.configuration, dump(benchmark))
        path = layout.evaluate("synthetic", "potgan", 0) / "per-pair.csv"
        frame = pd.read_csv(path)
        if number:
            frame.loc[frame.index[3], "ssim"] -= 0.3
            frame.loc[frame.index[7], "ssim"] += 0.2
            frame.to_csv(path, index=False)
        folders.append(layout.results)
    return folders, [tuple(frame.iloc[place][["from", "to"]]) for place in (3, 7)]


def test_the_page_names_the_weight_and_begins_with_the_pair_that_differs_most(two_trainings, tmp_path):
    folders, largest = two_trainings
    page = compare_page.write_comparison(folders, tmp_path / "page")
    text = page.read_text()
    assert "loss_weights.reconstruction" in text
    rows = re.findall(r'<tr data-title="([^"]*)"[^>]*><th scope="row">([^<]*)</th>', text)
    assert [title for title, _ in rows[:2]] == [f"{a} → {b}" for a, b in largest]
    assert [difference for _, difference in rows[:2]] == ["−0.300", "+0.200"]
    tree = json.loads((tmp_path / "page" / "comparison.json").read_text())
    assert tree["parts"][0]["title"] == "potgan on synthetic"
    assert tree["parts"][0]["settings"]["loss_weights.reconstruction"] == [10, 5]
    assert {path.name for path in (tmp_path / "page").iterdir()} == set(compare_page.WRITTEN)
    for link in re.findall(r'href="(figures/[^"]*)"', text):
        assert (tmp_path / "page" / link).is_file()
    compare_page.write_comparison(folders, tmp_path / "page")  # its own folder is replaced


def test_runs_and_benchmarks_are_not_mixed_and_a_strange_folder_stays(two_trainings, tmp_path):
    folders, _ = two_trainings
    run = folders[0] / "synthetic" / "potgan" / "seed0"
    with pytest.raises(UserError, match="compare runs with runs"):
        compare_page.read_parts([folders[0], run])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.txt"):
        compare_page.write_comparison(folders, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_differences_over_seeds_are_those_of_numpy(tmp_path):
    """Two seeds of a difference that is known for each pair: the mean over seeds, and an interval around it."""
    steps = np.random.default_rng(5).normal(0.03, 0.01, (2, len(PAIRS)))
    sides = [[], []]
    for seed in (0, 1):
        one = write_run(tmp_path / "a", "potgan", ssim=BASE, seed=seed)
        other = write_run(tmp_path / "b", "potgan", ssim=BASE + steps[seed], seed=seed)
        for side, run in zip(sides, compare.read_runs([one, other]), strict=True):
            side.append(run)
    first, second = compare_page.pooled(sides)["potgan-synthetic", "ssim"]
    assert first.value == pytest.approx(BASE.mean())
    assert second.difference == pytest.approx(steps.mean())
    assert second.low < steps.mean() < second.high
    # 40 people with one pair each: the interval is near that of the normal distribution.
    error = steps.mean(axis=0).std(ddof=1) / np.sqrt(len(PAIRS))
    assert second.high - second.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_a_seed_that_does_not_compare_leaves_no_difference(tmp_path):
    """Seed 1 of the other side was measured under another version of the protocol. The difference of seed 0 is not that of both."""
    sides = [[], []]
    for seed, version in ((0, "aaaa"), (1, "bbbb")):
        one = write_run(tmp_path / "a", "potgan", seed=seed)
        other = write_run(tmp_path / "b", "potgan", ssim=BASE + 0.1, seed=seed, protocol=("potgan-synthetic", version))
        for side, run in zip(sides, compare.read_runs([one, other]), strict=True):
            side.append(run)
    _, second = compare_page.pooled(sides)["potgan-synthetic", "ssim"]
    assert second.value == pytest.approx(BASE.mean() + 0.1)
    assert (second.difference, second.low, second.high) == (None, None, None)
    assert "another version of protocol" in second.note


def test_seeds_with_other_pairs_have_no_interval_together(tmp_path):
    sides = [[], []]
    for seed, pairs in ((0, PAIRS), (1, PAIRS[:30])):
        ssim = BASE[: len(pairs)]
        one = write_run(tmp_path / "a", "potgan", ssim=ssim, pairs=pairs, seed=seed)
        other = write_run(tmp_path / "b", "potgan", ssim=ssim + 0.1, pairs=pairs, seed=seed)
        for side, run in zip(sides, compare.read_runs([one, other]), strict=True):
            side.append(run)
    _, second = compare_page.pooled(sides)["potgan-synthetic", "ssim"]
    assert second.difference == pytest.approx(0.1)
    assert (second.low, second.note) == (None, "other pairs: no interval")


def test_what_not_all_benchmarks_have_is_named(tmp_path):
    for root, seeds in (("a", (0, 1)), ("b", (0,))):
        for seed in seeds:
            write_run(tmp_path / root, "potgan", seed=seed)
    configuration = CONFIGURATION | {"seeds": [0, 1]}
    folders = [tmp_path / root / "results" / "trial" for root in ("a", "b")]
    for folder in folders:
        (folder / "config.yaml").write_text(yaml.safe_dump(configuration))
    _, parts, left_out = compare_page.read_parts(folders)
    assert [(part.title, part.seeds) for part in parts] == [("potgan on synthetic", (0,))]
    assert left_out == ["potgan on synthetic, seed 1"]
    page = compare_page.write_comparison(folders, tmp_path / "page").read_text()
    assert "not every benchmark has them: potgan on synthetic, seed 1." in page
    assert "Seed 0." in page
    (tmp_path / "copies").mkdir()
    folders[0].rename(tmp_path / "copies" / "trial")  # its results would be looked for beside it
    with pytest.raises(UserError, match="lies in a folder named results"):
        compare_page.read_parts([tmp_path / "copies" / "trial", folders[1]])


@pytest.mark.parametrize("mine", ["index.html", "figures/drawing.svg", "figures/pairs-1.png"])
def test_a_folder_that_only_looks_like_a_comparison_stays(tmp_path, mine):
    runs = [write_run(tmp_path, method) for method in ("potgan", "no-recon")]
    file = tmp_path / "paper" / mine
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(UserError, match="did not write"):
        compare_page.write_comparison(runs, tmp_path / "paper")
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "evaluate" / "per-pair.csv").write_text(""), "is no table of pairs"),
        (lambda run: (run / "train" / "progress.csv").write_text(""), "is no table"),
        (lambda run: (run / "train" / "progress.csv").write_text("epoch\n1\n"), "has no column iteration"),
    ],
)
def test_a_damaged_table_is_one_line(tmp_path, damage, message):
    runs = [write_run(tmp_path, method) for method in ("potgan", "no-recon")]
    damage(runs[1])
    with pytest.raises(UserError, match=message):
        compare_page.write_comparison(runs, tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_a_name_is_drawn_as_it_is(tmp_path):
    """matplotlib would read $...$ as a formula, and hide a label that begins with an underscore."""
    runs = [write_run(tmp_path / root, "potgan") for root in ("_old", "x$\\frac$")]
    for number, run in enumerate(runs):
        frame = pd.DataFrame({"iteration": [10, 20], "reconstruction": [0.3, 0.2 + number]})
        frame.to_csv(run / "train" / "progress.csv", index=False)
    assert compare_page.write_comparison(runs, tmp_path / "page").is_file()
    assert (tmp_path / "page" / "figures" / "learning-1.png").is_file()
