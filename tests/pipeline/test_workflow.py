"""The whole graph on a tiny configuration, end to end: what runs, what does not run again, and what a mistake says."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import yaml

from potgan.common.paths import openpifpaf_environment
from potgan.data.images import ImageFolder
from potgan.pipeline.packing import archive_of
from potgan.settings.layout import Layout
from potgan.settings.reading import as_tree, load

TINY = {
    "benchmark": "tiny",
    "description": "The workflow's own test.",
    "protocol": "potgan-synthetic",
    "seeds": [0],
    "datasets": {
        "synthetic": {
            "kind": "synthetic",
            "label": "Synthetic people",
            "image_size": [64, 32],
            "synthetic": {
                "train_identities": 5, "test_identities": 3, "images_per_identity": 5, "height": 64, "width": 32,
            },
            "pairs": {"test_sample": 12, "validation_identities": 1, "validation_sample": 6},
        }
    },
    "generator": {"width": 4, "normalization": "batch", "guided_filter": {"mode": "test"}},
    "discriminator": {"width": 4, "normalization": "none"},
    "masks": {"limb_radius": 2, "heatmap_sigma": 3},
    "training": {
        "iterations": 9, "batch_size": 2, "learning_rate": 0.001, "decay_from": 5, "perceptual_network": "random",
        "checkpoints": 9, "log_every": 3,
    },
    "feature_network": {"identities": 12, "held_out_identities": 3, "images_per_identity": 2, "epochs": 1,
                        "height": 64, "width": 32},
    "models": {
        "potgan": None,
        "no-pose-transform": {"generator": {"pose_transform": False}},
        "no-recon": {"loss_weights": {"reconstruction": 0}},
        "no-guided-filter": {"generator": {"guided_filter": {"mode": "off"}}},
    },
}  # fmt: skip


def snakemake_command(repository: Path, folder: Path, *arguments: str, target: str = "all") -> list[str]:
    """Snakemake with the repository's workflow, at work in a folder that has a config.yaml."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(repository / "Snakefile"),
        "--directory",
        str(folder),
    ]
    return [*command, "--configfile", str(folder / "config.yaml"), *arguments, "--", target]


def snakemake_environment(**more: str) -> dict[str, str]:
    """The sessions of a test run must not share a terminal's settings or a profile of the person who runs it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SNAKEMAKE_")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return environment | more


def snakemake(repository: Path, folder: Path, *arguments: str, target: str = "all") -> subprocess.CompletedProcess:
    return subprocess.run(
        snakemake_command(repository, folder, "--cores", "2", *arguments, target=target),
        capture_output=True, text=True, env=snakemake_environment(), check=False,
    )  # fmt: skip


def potgan(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "potgan", *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False
    )


def write(folder: Path, tree: dict) -> None:
    (folder / "config.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def jobs(output: str) -> dict[str, int]:
    """Rule -> number of jobs of a dry run's statistics."""
    lines = output.split("Job stats:")[-1].split("total")[0].splitlines() if "Job stats:" in output else []
    return {words[0]: int(words[1]) for words in map(str.split, lines) if len(words) == 2 and words[1].isdigit()}


def test_all_tables_hold_all_models_and_references(finished) -> None:
    for k in (1, 2, 3, 4):
        table = pd.read_csv(finished / f"reports/tiny/tables/table{k}.csv")
        assert {*TINY["models"], "copy-source", "mean-image", "real-data"} <= set(table["method"].dropna())
        for suffix in ("md", "tex"):
            text = (finished / f"reports/tiny/tables/table{k}.{suffix}").read_text()
            for model in TINY["models"]:
                assert model in text.replace("\\-", "-")


def test_synthetic_scores_never_stand_under_a_real_protocols_name(finished) -> None:
    for path in finished.glob("results/tiny/synthetic/*/seed0/evaluate/scores.json"):
        scores = json.loads(path.read_text())
        assert scores["protocol"]["id"] == "potgan-synthetic"
        for name, entry in scores["metrics"].items():
            if name.endswith(("is", "fid")):
                assert entry["protocol"].endswith("-synthetic")
    for path in finished.glob("reports/tiny/tables/*.csv"):
        if path.name.startswith("table"):
            table = pd.read_csv(path)
            ours = table[table["value"].notna()]
            assert not ours["dataset"].isin(["market1501", "dukemtmc", "deepfashion"]).any()


def test_references_have_the_scores_that_they_must_have(finished) -> None:
    """SSIM(x, x) = 1 and FID(x, x) = 0 whatever the network; a copy of the source is the unmoved image."""
    layout = Layout("tiny", finished)
    real = json.loads((layout.evaluate("synthetic", "real-data", 0) / "scores.json").read_text())["metrics"]
    assert real["ssim"]["value"] == pytest.approx(1, abs=1e-9)
    assert real["mask_ssim"]["value"] == pytest.approx(1, abs=1e-9)
    assert real["l1"]["value"] == 0
    assert real["fid"]["value"] == pytest.approx(0, abs=1e-6)
    mean = json.loads((layout.evaluate("synthetic", "mean-image", 0) / "scores.json").read_text())["metrics"]
    assert mean["is"]["value"] == pytest.approx(1, abs=1e-6)  # one image for all pairs: no diversity


def test_the_shared_training_is_not_run_twice_and_only_the_filter_differs(finished) -> None:
    layout = Layout("tiny", finished)
    assert not layout.train("synthetic", "no-guided-filter", 0).exists()
    a, b = (
        json.loads((layout.generate("synthetic", m, 0) / "generate.json").read_text())
        for m in ("potgan", "no-guided-filter")
    )
    assert a["generator_sha256"] == b["generator_sha256"]


def test_identity_warp_of_an_untrained_start_has_the_identitys_error(finished) -> None:
    """The record carries the identity's end-point error beside the learned one, at each of the four scales."""
    scores = json.loads((Layout("tiny", finished).evaluate("synthetic", "potgan", 0) / "scores.json").read_text())
    scales = scores["warp"]["scales"]
    assert [s["stride"] for s in scales] == [2, 4, 8, 16]
    assert len({s["identity_end_point_error"] for s in scales}) == 1
    assert all(s["pixels"] > 100 for s in scales)


def test_nothing_is_done_twice(repository, finished) -> None:
    run = snakemake(repository, finished)
    assert run.returncode == 0
    assert "Nothing to be done" in run.stdout + run.stderr


def test_page_tells_the_wall_time_of_every_rule_that_ran(finished) -> None:
    """As many jobs as the graph has; and each took some of the time since the run began, on two cores."""
    page = (finished / "reports/tiny/index.html").read_text()
    section = page.split("<h3>Wall time</h3>")[1].split("</table>")[0]
    rows = dict(re.findall(r'<th scope="row">(\w+)</th><td class="n">(\d+)</td>', section))
    methods = len(TINY["models"]) + 4  # the first checkpoint, and three references
    assert {rule: int(count) for rule, count in rows.items()} == {
        "images": 1, "keypoints": 1, "pairs": 1, "feature_network": 1, "train": 3, "generate": methods, "evaluate": methods,
    }  # fmt: skip
    assert list(rows) == ["feature_network", "images", "keypoints", "pairs", "train", "generate", "evaluate"]


def test_adopted_results_are_up_to_date_without_the_times_of_their_jobs(repository, finished, tmp_path) -> None:
    """What a pull brings: results in any order of time, no record of Snakemake, no benchmark files."""
    root = tmp_path / "pulled"
    shutil.copytree(finished, root, ignore=shutil.ignore_patterns(".snakemake", "benchmarks", "logs"))
    for age, path in enumerate(sorted((p for p in root.rglob("*") if p.is_file()), key=lambda p: p.name)):
        os.utime(path, (1_700_000_000 - 60 * age,) * 2)
    for adopt in (False, True):  # a plain run is right without, and with a full memory it stays so
        if adopt:
            run = snakemake(repository, root, "--touch", "--forceall")
            assert run.returncode == 0, run.stderr
        run = snakemake(repository, root, "-n")
        assert "Nothing to be done" in run.stdout + run.stderr
    assert not list(root.glob("results/tiny/benchmarks/**/*.tsv"))


def test_snakemakes_own_report_has_tables_figures_and_page_with_captions(repository, finished, tmp_path) -> None:
    out = tmp_path / "report.zip"
    run = snakemake(repository, finished, "--report", str(out))
    assert run.returncode == 0, run.stderr
    with zipfile.ZipFile(out) as archive:
        inside = {Path(name).name: archive.read(name) for name in archive.namelist()}
    made = finished / "reports/tiny"
    wanted = [made / "index.html", made / "metrics.json", *made.glob("tables/table[1-4].*")]
    wanted += [made / f"figures/{kind}-synthetic.png" for kind in ("grid", "learning", "data")]
    assert len(wanted) == 2 + 12 + 3
    for path in wanted:
        assert inside[path.name] == path.read_bytes(), path
    page = inside["report.html"].decode()
    for text in (TINY["description"], "TABLE IV", "synthesised images", "learning curves"):
        assert text in page, text
    for category in ("Tables", "Figures", "Page", "Scores"):
        assert f'"{category}"' in page
    captions = sorted(path.stem for path in (repository / "workflow/report").glob("*.rst"))
    assert captions == ["data", "grid", "learning", "page", "scores", "table", "workflow"]
    for words in ("eye has picked them", "Every choice of a setting", "the published rows", "as a model gets them"):
        assert words in page, words
    # What a template left open, or what reStructuredText found fault with, would stand in the page.
    assert "system-message" not in page
    assert "snakemake.config" not in page


def test_times_of_jobs_that_are_older_than_what_a_checkout_brought_make_nothing_stale(
    repository, finished, tmp_path
) -> None:
    """Snakemake takes a benchmark file for an output, and here it is older than every input."""
    root = tmp_path / "checkout"
    shutil.copytree(finished, root, ignore=shutil.ignore_patterns(".snakemake"))
    times = list(root.glob("results/tiny/benchmarks/**/*.tsv"))
    assert len(times) == 5 + 3 + 2 * (len(TINY["models"]) + 4)
    for path in times:
        os.utime(path, (1_000_000_000,) * 2)
    run = snakemake(repository, root, "-n")
    assert "Nothing to be done" in run.stdout + run.stderr


def test_one_models_setting_reruns_that_model_and_the_report_only(repository, finished, tmp_path) -> None:
    changed = json.loads(json.dumps(TINY))
    changed["models"]["no-recon"]["training"] = {"learning_rate": 0.002}
    write(tmp_path, changed)
    before = (finished / "config.yaml").read_text()
    try:
        write(finished, changed)
        plan = snakemake(repository, finished, "--dry-run")
    finally:
        (finished / "config.yaml").write_text(before)
    planned = jobs(plan.stdout)
    assert planned["train"] == 1
    assert planned["generate"] == planned["evaluate"] == planned["tabulate"] == 1
    assert "images" not in planned


def test_a_changed_seed_list_trains_the_new_seed_only(repository, finished) -> None:
    before = (finished / "config.yaml").read_text()
    try:
        write(finished, TINY | {"seeds": [0, 1]})
        planned = jobs(snakemake(repository, finished, "--dry-run").stdout)
    finally:
        (finished / "config.yaml").write_text(before)
    assert planned["train"] == 3


def test_a_setting_on_the_command_line_counts(repository, finished) -> None:
    plan = snakemake(repository, finished, "--dry-run", "--config", "seeds=[0,1]")
    assert jobs(plan.stdout)["train"] == 3, plan.stderr


def test_without_a_file_the_embedded_benchmark_is_planned_and_settings_are_laid_over_it(repository, tmp_path) -> None:
    """A root Snakefile that only includes has no default target, and says "nothing to be done"."""
    command = [sys.executable, "-m", "snakemake", "--cores", "8", "--dry-run", "--directory", str(tmp_path)]
    (tmp_path / "config").symlink_to(repository / "config")
    plan = subprocess.run(
        [*command, "--snakefile", str(repository / "Snakefile"), "--config", "benchmark=another"],
        capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    assert jobs(plan.stdout)["train"] == 3, plan.stderr
    assert "results/another/" in plan.stdout


def test_the_matrix_of_ablations_is_planned_and_no_other_name_is_known(repository, tmp_path) -> None:
    """Three data sets, eight models, five seeds: an entry in benchmarks/ablations.yaml is all that a model takes."""
    files = [repository / "config" / "three-layouts.yaml", repository / "benchmarks" / "ablations.yaml"]
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--dry-run", "--directory", str(tmp_path)]
    command += ["--snakefile", str(repository / "Snakefile"), "--configfile", *map(str, files), "--"]
    plan = subprocess.run([*command, "all"], capture_output=True, text=True, check=False)
    assert jobs(plan.stdout)["train"] == 3 * 8 * 5, plan.stderr
    stranger = "results/ablations/market1501-layout/no-such-model/seed0/train/done.json"
    refused = subprocess.run([*command, stranger], capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "MissingRuleException" in refused.stdout + refused.stderr
    seventh = stranger.replace("no-such-model", "potgan").replace("seed0", "seed7")
    assert subprocess.run([*command, seventh], capture_output=True, check=False).returncode != 0


def test_a_training_in_two_processes_through_its_verb(finished, tmp_path) -> None:
    root = Path(shutil.copytree(finished, tmp_path / "root"))
    generator = TINY["generator"] | {"normalization": "instance"}
    write(root, TINY | {"generator": generator, "training": TINY["training"] | {"processes": 2}})
    arguments = ("--dataset", "synthetic", "--model", "potgan", "--seed", "0")
    done = potgan("train", "--config", root / "config.yaml", "--root", root, *arguments)
    assert done.returncode == 0, done.stderr
    record = json.loads((Layout("tiny", root).train("synthetic", "potgan", 0) / "done.json").read_text())
    assert record["processes"] == 2
    assert record["decided_by"]["result"]


def test_a_model_sees_the_masks_that_its_own_entry_asks_for(finished) -> None:
    """An ablation of the masks would otherwise train on the main model's, under another fingerprint."""
    from potgan.pipeline import stages

    tree = json.loads(json.dumps(TINY))
    tree["models"]["thick"] = {"masks": {"limb_radius": 4, "heatmap_sigma": 1}}
    benchmark, layout = load(tree), Layout("tiny", finished)
    thin, thick = (stages._pair_data(benchmark, layout, "synthetic", "test", "cpu", m) for m in ("potgan", "thick"))
    assert (thick.masks >= thin.masks).float().mean() > 0.99
    assert thick.masks.sum() > 1.2 * thin.masks.sum()
    assert (thin.sigma, thick.sigma) == (3, 1)


def test_results_of_other_settings_are_refused_by_the_report(finished, tmp_path) -> None:
    """What a pull or a copy of old results could slip in: the page must not be made from it."""
    changed = json.loads(json.dumps(TINY))
    changed["training"]["learning_rate"] = 0.005
    write(tmp_path, changed)
    (tmp_path / "results").symlink_to(finished / "results")
    run = potgan("tabulate", "--config", tmp_path / "config.yaml", "--root", tmp_path)
    assert run.returncode == 2
    assert "other settings" in run.stderr
    assert not (tmp_path / "reports").exists()


# -- a person's mistakes ----------------------------------------------------------------------------------------------


def assert_one_clear_line(run: subprocess.CompletedProcess, *parts: str) -> None:
    assert run.returncode == 2, run.stdout + run.stderr
    lines = [line for line in run.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, run.stderr
    for part in parts:
        assert part in lines[0]


def test_unknown_key_stops_the_workflow_before_any_job(repository, tmp_path) -> None:
    write(tmp_path, TINY | {"traning": {}})
    run = snakemake(repository, tmp_path)
    assert run.returncode == 2
    assert "unknown key 'traning'; did you mean 'training'" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "results").exists()
    assert_one_clear_line(potgan("configure", "--config", tmp_path / "config.yaml", "--root", tmp_path), "traning")


def test_a_data_set_that_cannot_be_had_leaves_the_graph_and_the_rest_is_planned(repository, tmp_path) -> None:
    absent = {"kind": "dukemtmc", "label": "DukeMTMC-reID", "pairs": {"validation_identities": 1}}
    write(tmp_path, TINY | {"datasets": TINY["datasets"] | {"dukemtmc": absent}})
    run = snakemake(repository, tmp_path, "-n")
    assert run.returncode == 0, run.stderr
    assert "without dukemtmc: DukeMTMC-reID is not here (withdrawn by Duke University in 2019" in run.stderr
    assert "dukemtmc/" not in run.stdout.replace("without dukemtmc", "")
    assert jobs(run.stdout)["images"] == 1
    write(tmp_path, TINY | {"datasets": {"dukemtmc": absent}})
    run = snakemake(repository, tmp_path, "-n")
    assert run.returncode == 2
    assert "no data set of benchmark tiny is here: DukeMTMC-reID is not here" in run.stderr
    assert "Traceback" not in run.stderr


def test_stages_out_of_order_say_what_to_run(tmp_path) -> None:
    write(tmp_path, TINY)
    at = ("--config", tmp_path / "config.yaml", "--root", tmp_path, "--dataset", "synthetic")
    assert_one_clear_line(potgan("keypoints", *at), "images.csv", "potgan images")
    assert_one_clear_line(potgan("pairs", *at), "keypoints.csv", "potgan keypoints")
    assert_one_clear_line(potgan("train", *at, "--model", "potgan"), "missing", "potgan keypoints")
    assert_one_clear_line(potgan("train", *at, "--model", "pot-gan"), "no model 'pot-gan'")
    assert_one_clear_line(potgan("images", *at[:-1], "sinthetic"), "no data set 'sinthetic'")
    assert not (tmp_path / "results").exists()


def test_key_points_of_images_that_were_made_again_are_refused(tmp_path) -> None:
    """The same people at twice the size: the names are equal, and each joint would be drawn at half its place."""
    at = ("--config", tmp_path / "config.yaml", "--root", tmp_path, "--dataset", "synthetic")
    people = TINY["datasets"]["synthetic"]
    for size, stages in ((1, ("images", "keypoints", "pairs")), (2, ("images",))):
        height, width = 64 * size, 32 * size
        rendered = people["synthetic"] | {"height": height, "width": width}
        again = people | {"synthetic": rendered, "image_size": [height, width]}
        write(tmp_path, TINY | {"datasets": {"synthetic": again}})
        for stage in stages:
            assert potgan(stage, *at).returncode == 0
    for words in (("pairs",), ("train", "--model", "potgan")):
        assert_one_clear_line(
            potgan(words[0], *at, *words[1:]), "keypoints.csv: is of other images", "potgan keypoints"
        )
    assert potgan("keypoints", *at).returncode == 0
    assert potgan("pairs", *at).returncode == 0


def test_pairs_of_one_table_on_the_command_line(tmp_path) -> None:
    table = tmp_path / "annotation.csv"
    full = list(range(10, 28))
    rows = [f"{p:04d}_c1s1_{i:06d}_00.jpg: {full}: {full}" for p in (7, 8) for i in range(3)]
    table.write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]) + "\n")
    out = tmp_path / "out.csv"
    run = potgan("pairs", "--keypoints", table, "--rule", "patn", "--out", out)
    assert run.returncode == 0
    assert len(out.read_text().splitlines()) == 1 + 2 * 6
    before = out.read_bytes()
    table.write_text(f"name:keypoints_y:keypoints_x\na_1.jpg: {full}: {full[1:]}\n")
    assert_one_clear_line(potgan("pairs", "--keypoints", table, "--out", out), "line 2", "17 x values")
    table.write_text("name,keypoints\n")
    assert_one_clear_line(potgan("pairs", "--keypoints", table, "--out", out), "unknown header")
    assert_one_clear_line(
        potgan("pairs", "--keypoints", tmp_path / "absent.csv", "--out", out), "no such key-point table"
    )
    assert out.read_bytes() == before  # nothing lost, nothing half-written
    assert sorted(p.name for p in tmp_path.iterdir()) == ["annotation.csv", "out.csv"]


def test_dvc_stages_are_in_step_with_the_embedded_configuration(repository) -> None:
    benchmark = load(repository / "config" / "config.yaml")
    layout = Layout(benchmark.benchmark)
    stages = yaml.safe_load((repository / "dvc.yaml").read_text())["stages"]
    settings = yaml.safe_load((repository / "config" / "config.yaml").read_text())
    tracked = {key for stage in stages.values() for entry in stage["params"] for key in entry["config/config.yaml"]}
    assert tracked == set(settings)  # DVC stops at a parameter that is missing, and does not see one that is not named
    outs = {name: [next(iter(o)) for o in stage["outs"]] for name, stage in stages.items()}
    for stage in stages.values():
        for entry in [*stage["outs"], *stage.get("metrics", [])]:
            assert next(iter(entry.values())) == {"persist": True}  # DVC's default deletes results before it asks
    data, train, evaluate = [], [str(layout.feature_network)], []
    for dataset in benchmark.datasets:
        folders = (layout.keypoints(dataset), layout.masks(dataset), layout.pairs(dataset))
        data += [str(archive_of(layout.images(dataset))), *map(str, folders)]
        for model in benchmark.models:
            if benchmark.trained_as(dataset, model) == model:
                train += [str(layout.train(dataset, model, s)) for s in benchmark.seeds]
        for method in benchmark.methods:
            for seed in benchmark.seeds_of(method):
                evaluate += [str(archive_of(layout.generate(dataset, method, seed)))]
                evaluate += [str(layout.evaluate(dataset, method, seed))]
    assert sorted(outs["data"]) == sorted(data)
    assert sorted(outs["train"]) == sorted(train)
    assert sorted(outs["evaluate"]) == sorted(evaluate)


def test_dvc_stages_are_written_by_the_command(repository, tmp_path) -> None:
    """And a stage has the settings of all before it: a guided filter at test time changes scores and no training."""
    (tmp_path / "config").mkdir()
    shutil.copy(repository / "config/config.yaml", tmp_path / "config")
    assert potgan("dvc-stages", cwd=tmp_path).returncode == 0
    assert (tmp_path / "dvc.yaml").read_text() == (repository / "dvc.yaml").read_text()
    stages = yaml.safe_load((tmp_path / "dvc.yaml").read_text())["stages"]
    sections = [set(stage["params"][0]["config/config.yaml"]) for stage in stages.values()]
    assert list(stages) == ["data", "train", "evaluate", "report"]
    assert sections[0] < sections[1] < sections[2] < sections[3]
    assert sections[3] == set(yaml.safe_load((repository / "config/config.yaml").read_text()))
    elsewhere = tmp_path / "inner"
    elsewhere.mkdir()
    assert_one_clear_line(potgan("dvc-stages", "--config", "../config/config.yaml", cwd=elsewhere), "is not below")


def test_somebody_elses_released_results_become_a_row_and_train_nothing(repository, finished, tmp_path) -> None:
    """The tiny run's own images of a model as strips in PATN's layout: the same scores as the model itself has."""
    root = tmp_path / "root"
    shutil.copytree(finished, root)
    layout = Layout("tiny", root)
    images = ImageFolder(layout.images("synthetic"))
    made = pd.read_csv(layout.generate("synthetic", "potgan", 0) / "generated.csv", dtype=str)
    (root / "released").mkdir()
    for row in made.itertuples():
        result = cv2.imread(str(layout.generate("synthetic", "potgan", 0) / row.file))
        panels = [images.read(row[1])[:, :, ::-1], images.read(row.to)[:, :, ::-1], result]
        cv2.imwrite(str(root / "released" / f"{row[1]}___{row.to}_vis.png"), np.hstack(panels))
    external = {"label": "Theirs", "dataset": "synthetic", "images": "released", "layout": "patn"}
    write(root, TINY | {"external_methods": {"theirs": external}})
    planned = jobs(snakemake(repository, root, "-n").stdout)
    assert planned.get("train", 0) == 0
    assert planned["generate"] == planned["evaluate"] == planned["tabulate"] == 1
    run = snakemake(repository, root)
    assert run.returncode == 0, run.stdout + run.stderr
    scores = {
        m: json.loads((layout.evaluate("synthetic", m, 0) / "scores.json").read_text()) for m in ("theirs", "potgan")
    }
    for metric in ("ssim", "mask_ssim", "fid"):
        assert scores["theirs"]["metrics"][metric]["value"] == pytest.approx(
            scores["potgan"]["metrics"][metric]["value"]
        )
    table = (root / "reports/tiny/tables/table1.md").read_text()
    assert "Theirs (re-scored)" in table
    assert (root / "results/tiny/test-set.log").read_text().count(
        "synthetic/theirs/seed0 protocol potgan-synthetic"
    ) == 1
    under_all = pd.read_csv(layout.evaluate("synthetic", "theirs", 0) / "sensitivity.csv").set_index("protocol")["ssim"]
    assert under_all["potgan"] == pytest.approx(scores["theirs"]["metrics"]["ssim"]["value"], abs=1e-6)


@pytest.mark.slow
def test_archives_in_all_three_real_layouts_fill_their_columns_of_the_four_tables(repository, tmp_path) -> None:
    """config/three-layouts.yaml, shrunk: archives are made, read, paired, trained on, measured; a second run does nothing."""
    tree = as_tree(load(repository / "config" / "three-layouts.yaml"))
    tree["models"] = {"potgan": {}}
    tree["generator"]["width"] = tree["discriminator"]["width"] = 4
    tree["training"] |= {"iterations": 2, "decay_from": 1, "batch_size": 2, "checkpoints": 2, "log_every": 1}
    tree["feature_network"] = TINY["feature_network"]
    for dataset in tree["datasets"].values():
        dataset.pop("overrides", None)
        dataset["pairs"] |= {"validation_identities": 0}
    tree["datasets"]["deepfashion-layout"]["image_size"] = [128, 64]  # resized: 256 x 256 would take minutes
    write(tmp_path, tree)
    run = snakemake(repository, tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr
    layout = Layout("three-layouts", tmp_path)
    for name, style in (
        ("market1501", "published folders"),
        ("dukemtmc", "published folders"),
        ("deepfashion", "tree"),
    ):
        record = json.loads((layout.images(f"{name}-layout") / "images.json").read_text())
        assert style in record["layout"]
        assert record["partial"]
    duke = pd.read_csv(layout.images("dukemtmc-layout") / "images.csv")
    assert duke["height"].nunique() > 10
    columns = {1: {"market1501", "deepfashion"}, 2: {"dukemtmc"}, 3: {"market1501", "dukemtmc", "deepfashion"}}
    for number, kinds in (columns | {4: columns[3]}).items():
        table = pd.read_csv(tmp_path / f"reports/three-layouts/tables/table{number}.csv")
        ours = table[(table["method"] == "potgan") & table["value"].notna()]
        assert set(ours["dataset"]) == {f"{kind}-layout" for kind in kinds}
    page = (tmp_path / "reports/three-layouts/index.html").read_text()
    assert "rule <code>pg2</code>" in page
    assert "clothing items stand in train and in test" in page
    assert "mean area over" in page
    again = snakemake(repository, tmp_path)
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    not (openpifpaf_environment() / "ready").is_file(),
    reason="OpenPifPaf's environment is not built (`make openpifpaf`)",
)
def test_openpifpaf_finds_the_joints_of_synthetic_people_through_the_rule(repository, tmp_path) -> None:
    """Recorded by the recipe on people of another seed: PCK@0.2 .874, everybody found (tests/reference)."""
    tree = as_tree(load(repository / "config" / "detected.yaml"))
    people = tree["datasets"]["synthetic"]
    people["synthetic"] |= {"train_identities": 8, "test_identities": 4}
    people["pairs"] = {"test_sample": 12}
    checkpoint = repository / people["keypoints"]["openpifpaf"]["checkpoint"]
    people["keypoints"]["openpifpaf"]["checkpoint"] = str(checkpoint)
    write(tmp_path, tree)
    run = snakemake(repository, tmp_path, target="results/detected/synthetic/pairs/pairs.json")
    assert run.returncode == 0, run.stdout + run.stderr
    record = json.loads((tmp_path / "results/detected/synthetic/keypoints/keypoints.json").read_text())
    assert record["detection_rate"] > 0.95
    assert record["agreement"]["pck@0.2"]["pck"] > 0.78
    assert record["weights_sha256"] == json.loads(checkpoint.with_suffix(".json").read_text())["sha256"]
    assert record["input_scale"] == 2
    assert "images/s" in run.stdout + run.stderr
    assert not (tmp_path / "results/detected/synthetic/.keypoints.shards").exists()


def test_real_images_go_through_the_same_stages(repository, shared, tmp_path) -> None:
    """386 real Market-1501 images: the counts of the archive and its tables. Skipped where the sample is absent."""
    from potgan.pipeline import stages

    os.chdir(repository)  # the configuration's paths are relative to where the workflow is started
    benchmark = load(repository / "config" / "market1501-sample.yaml")
    layout = Layout(benchmark.benchmark, tmp_path)
    dataset = "market1501-sample"
    stages.images(benchmark, layout, dataset)
    stages.keypoints(benchmark, layout, dataset)
    stages.pairs(benchmark, layout, dataset)
    table = pd.read_csv(layout.images(dataset) / "images.csv", dtype=str)
    assert table["split"].value_counts().to_dict() == {"train": 187, "test": 199}
    assert table.groupby("split")["person"].nunique().to_dict() == {"train": 58, "test": 77}
    record = json.loads((layout.pairs(dataset) / "pairs.json").read_text())
    assert {s: e["pairs"] for s, e in record["splits"].items()} == {"train": 522, "validation": 0, "test": 109}
    # The pair rule finds in these tables what was published for these images.
    rule = tmp_path / "rule.csv"
    source = shared / "market1501-sample"
    assert potgan("pairs", "--keypoints", source / "market-annotation-train.csv", "--out", rule).returncode == 0
    published = pd.read_csv(source / "market-pairs-train.csv")
    assert set(map(tuple, pd.read_csv(rule).to_numpy())) == set(map(tuple, published.to_numpy()))


def test_a_run_and_a_score_of_its_images_were_measured_with_the_same(finished, tmp_path) -> None:
    """`potgan score` of a row's generated images measures what the workflow did, and `compare` says so."""
    from potgan.measure.evaluate import Scores

    place = finished / "results" / "tiny" / "synthetic"
    run = potgan(
        "score", "--images", place / "potgan" / "seed0" / "generate" / "images", "--layout", "plain",
        "--pairs", place / "pairs" / "pairs-test.csv", "--targets", place / "images",
        "--keypoints", place / "keypoints" / "keypoints.csv", "--protocol", "potgan", "--out", tmp_path / "scored",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    scored = Scores.read(tmp_path / "scored" / "scores.json")
    ours = Scores.read(place / "potgan" / "seed0" / "evaluate" / "scores.json")
    assert set(scored.measured_with) == {"pairs", "targets", "keypoints"}
    assert scored.measured_with == ours.measured_with
    assert scored.hashes["generated"] == ours.hashes["generated"]
    for metric in ("ssim", "mask_ssim", "foreground_ssim", "l1", "psnr"):
        assert scored.metrics[metric].value == pytest.approx(ours.metrics[metric].value, abs=1e-12)
    shown = potgan("compare", place / "potgan" / "seed0", tmp_path / "scored")
    assert shown.returncode == 0, shown.stderr
    assert "The runs were measured with different" not in shown.stdout
