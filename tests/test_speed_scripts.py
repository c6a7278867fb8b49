"""The timing scripts of the training engine run and write their numbers; the sides of a comparison do the same work.

Nothing here looks at how long anything takes.
"""

import argparse
import dataclasses
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from potgan.data.sources.archives import facts_of
from potgan.methods.potgan.method import PoTGAN

REPOSITORY = Path(__file__).resolve().parent.parent
SPEED = REPOSITORY / "benchmarks" / "speed"
TINY = [
    "--device",
    "cpu",
    "--batch",
    "2",
    "--width",
    "4",
    "--size",
    "32x32",
    "--threads",
    "1",
    "--rounds",
    "2",
    "--steps",
    "1",
]
#: A checkout of tengteng95/Pose-Transfer, where somebody has one.
PATN = os.environ.get("POTGAN_PATN_CHECKOUT")


@pytest.fixture
def workers(monkeypatch):
    monkeypatch.syspath_prepend(str(SPEED))
    import workers

    return workers


def run(tmp_path: Path, script: str, *arguments: str, code: int = 0) -> tuple[dict, str]:
    out = tmp_path / "numbers.json"
    done = subprocess.run(
        [sys.executable, str(SPEED / script), *TINY, "--json", str(out), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == code, done.stderr
    tree = json.loads(out.read_text())
    assert tree["versions"]["torch"] == torch.__version__
    assert {"Processor", "GPU"} <= set(tree["hardware"])
    assert tree["arguments"]["batch"] == 2
    return tree, done.stdout


@pytest.mark.slow
def test_step_compares_all_sides_and_names_what_failed(tmp_path) -> None:
    tree, printed = run(
        tmp_path, "step.py", "--only", "sides", "--ways", "eager", "--warm-up", "1", "--patn", str(tmp_path), code=1
    )  # fmt: skip
    sides = tree["sides"]["sides"]
    assert set(sides) == {"patn", "plain", "fp32", "bf16", "null"}
    assert "is no checkout" in sides["patn"]["failed"]
    for name in ("plain", "fp32", "bf16"):
        assert len(sides[name]["seconds"]) == 2
        assert all(math.isfinite(s) and s > 0 for s in sides[name]["seconds"])
    # The plain version also computes gradients that are thrown away, and no more than that.
    ours, plain = sides["fp32"]["gflop_per_pair"], sides["plain"]["gflop_per_pair"]
    assert ours < plain < 1.2 * ours
    rounds = [p / o for p, o in zip(sides["plain"]["seconds"], sides["fp32"]["seconds"], strict=True)]
    assert tree["sides"]["ratios"]["plain / fp32"]["max"] == pytest.approx(max(rounds))
    assert "plain / fp32" in printed


@pytest.mark.slow
def test_step_takes_one_thing_out_at_a_time(tmp_path, workers) -> None:
    tree, _ = run(tmp_path, "step.py", "--only", "improvements", "--warm-up", "1")
    sides = tree["improvements"]["sides"]
    assert set(sides) == {"all", "null", *workers.IMPROVEMENTS} - {"forced layout"}  # which is of compiled steps only
    assert sides.pop("null")["of"] == "losses on the device"
    assert not any("failed" in side for side in sides.values())
    flops = {name: side["gflop_per_pair"] for name, side in sides.items()}
    assert flops.pop("frozen discriminator") > flops["all"]
    assert set(flops.values()) == {flops["all"]}


@pytest.mark.slow
def test_the_embedded_runs_step_is_measured_beside_what_it_was(tmp_path) -> None:
    tree, printed = run(tmp_path, "step.py", "--only", "embedded", "--warm-up", "1")
    sides = tree["embedded"]["sides"]
    assert set(sides) == {"embedded, as it was", "embedded", "null"}
    before, now = (sides[name]["gflop_per_pair"] for name in ("embedded, as it was", "embedded"))
    assert before > 2 * now  # the stand-in was most of the arithmetic
    assert "embedded, as it was / embedded: " in printed
    assert "null comparison, embedded / embedded: " in printed


@pytest.mark.skipif(PATN is None, reason="POTGAN_PATN_CHECKOUT names no checkout of tengteng95/Pose-Transfer")
def test_patn_is_driven_as_its_authors_do(workers) -> None:
    device = torch.device("cpu")
    side = workers.build_side("patn", workers.paper_settings((32, 32), 1, width=64), device, checkout=PATN)
    counts = [sum(p.numel() for p in net.parameters()) for net in (side.generator, side.by_pose, side.by_person)]
    # What was counted when its code was first read, at the options of scripts/train_star.sh.
    assert [round(count / 1e6, 2) for count in counts] == [41.37, 3.98, 3.93]
    before = [next(net.parameters()).detach().clone() for net in (side.generator, side.by_pose, side.by_person)]
    side.run(1)
    after = [next(net.parameters()) for net in (side.generator, side.by_pose, side.by_person)]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.slow
def test_training_runs_all_its_parts(tmp_path) -> None:
    tree, printed = run(
        tmp_path, "training.py", "--iterations", "4", "--batches", "2", "4", "--sizes", "32x32", "48x32"
    )
    assert tree["profile"]["share"].keys() >= {"convolution, forward", "convolution, backward", "optimiser", "warps"}
    assert sum(tree["profile"]["share"].values()) == pytest.approx(1)
    assert 0 < tree["loader"]["on the device"]["share"] < 1
    assert tree["wall"]["iterations"] == 4
    assert tree["wall"]["counted_iterations"] == 1  # two warm up, and the last step's end is not watched
    assert set(tree["inference"]) == {"1", "8", "32"}
    assert [(row["size"], row["batch"]) for row in tree["scaling"]] == [
        ([32, 32], 2), ([32, 32], 4), ([48, 32], 2), ([48, 32], 4)
    ]  # fmt: skip
    assert "extrapolated from 1 steps" in printed


def test_scaling_stops_where_memory_ends(workers) -> None:
    with pytest.raises(workers.Failed, match="out of memory"):
        settings = {"size": (128, 64), "batch_size": 256, "width": 4}
        with workers.Worker("ours", "cpu", settings, limit=120, memory=700 << 20) as worker:
            worker.steps(1)


def test_the_plain_version_is_the_same_training(workers) -> None:
    """Same losses, same order of updates: three steps from the same weights, and both networks agree."""
    settings = workers.paper_settings((32, 32), 4, width=4)
    device = torch.device("cpu")
    ours = workers.Ours(settings, device)
    plain = workers.PlainStep(settings, device)
    batches = [[part.on(device) for part in next(ours.batches)] for _ in range(3)]
    for parts in batches:
        expected = {name: value.item() for name, value in ours.method.update(parts, 0).items()}
        found = plain(parts[0])
        assert found == pytest.approx(expected, rel=2e-3)
    for name in ("generator", "discriminator"):
        for a, b in zip(ours.method.networks[name].parameters(), getattr(plain, name).parameters(), strict=True):
            # Adam's first steps are of the size of the rate, 2e-4, whatever the gradient; signs of tiny ones may differ.
            assert (a - b).abs().max() < 3 * 2 * 2e-4 * 1.1
            assert (a - b).abs().mean() < 2e-5


def test_plain_batches_are_pairs_as_the_model_takes_them(workers, tmp_path) -> None:
    settings = workers.paper_settings((32, 48), 2)
    files = workers.PairFiles(settings, tmp_path, images=5, pairs=3)
    part = files[2]
    assert set(part) == PoTGAN.needs
    assert part["source_image"].shape == part["target_image"].shape == (3, 32, 48)
    assert part["source_image"].min() >= -1
    assert part["source_image"].max() <= 1
    assert part["source_mask"].shape == part["target_mask"].shape == (1, 32, 48)
    assert torch.equal(part["target_heatmaps"], files.data.batch([2]).target_heatmaps[0])


def test_gpu_script_skips_what_is_done_and_keeps_no_half_written_numbers(tmp_path) -> None:
    """With a python that fails: nothing is left that a second call would take for done."""
    fake = tmp_path / "python"
    fake.write_text(
        '#!/bin/sh\necho "$@" >> "$CALLS"\nfor last; do :; done\necho \'"device": "cuda"\' > "$last"\nexit $CODE\n'
    )
    fake.chmod(0o755)
    out = tmp_path / "speed"
    pieces = "right step-batch32 paper-training"

    def call(code: int, **more: str) -> tuple[int, list[str]]:
        calls = tmp_path / "calls"
        calls.write_text("")
        environment = (
            os.environ | {"PYTHON": str(fake), "CALLS": str(calls), "CODE": str(code), "PIECES": pieces} | more
        )
        done = subprocess.run(
            ["bash", str(SPEED / "gpu.sh"), str(out)], env=environment, capture_output=True, check=False
        )
        return done.returncode, calls.read_text().splitlines()

    code, first = call(3)
    assert code == 1
    assert len(first) == 3
    assert not list(out.glob("*.json"))
    code, second = call(0)
    assert code == 0
    assert sorted(second) == sorted(first)  # what is not timed runs while the steps compile, in any order
    assert sorted(p.name for p in out.glob("*.json")) == sorted(f"{name}.json" for name in pieces.split())
    assert call(0) == (0, [])
    assert call(0, DEVICE="cpu") == (1, [])  # what is there is of another device, and is not replaced
    assert call(0, PIECES="step-batch23") == (2, [])
    assert sorted(p.name for p in out.glob("*.json")) == sorted(f"{name}.json" for name in pieces.split())


def test_data_of_market1501s_size_are_all_pairs_of_each_person(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(SPEED))
    import paper_training

    assert [paper_training.IMAGES // paper_training.PEOPLE, paper_training.IMAGES % paper_training.PEOPLE] == [17, 169]
    monkeypatch.setattr(paper_training, "PEOPLE", 3)
    arguments = argparse.Namespace(precision="bf16", iterations=None, batch=None, width=None)
    settings = dataclasses.replace(paper_training.paper_run(arguments), image_size=(32, 16))
    assert (settings.training.iterations, settings.training.batch_size, settings.generator.width) == (90_000, 32, 64)
    data, validation = paper_training.market_sized_pairs(settings, 3 * 17 + 1, validation_people=1)
    assert len(validation.names) == 18  # the first person has one more
    assert len(validation) == 18 * 17
    assert len(data.names) == 2 * 17
    assert len(data) == 2 * 17 * 16
    assert torch.equal(data.sources // 17, data.targets // 17)
    assert not (data.sources == data.targets).any()
    assert data.images.shape == (34, 3, 32, 16)
    assert data.joints.isnan().any()


def test_what_the_documents_say_of_timings_is_what_was_measured() -> None:
    """Each number of the table, and of the sentences about it, follows from the JSON files."""
    results = SPEED / "results" / "h200"
    sides = json.loads((results / "step-batch32.json").read_text())["sides"]
    table = (SPEED / "README.md").read_text()
    rows = {
        "PATN, fp32": "patn",
        "PATN, TF32 (today's default of PyTorch)": "patn tf32",
        "ours, bf16, every kernel started by itself": "bf16",
        "ours, bf16, one CUDA graph": "bf16 recorded",
    }
    for title, name in rows.items():
        seconds = sorted(sides["sides"][name]["seconds"])
        median = seconds[len(seconds) // 2]
        cells = [title, f"{median * 1e3:.1f}", f"{32 / median:,.0f}"]
        for patn in ("patn", "patn tf32"):
            ratios = sorted(
                a / b for a, b in zip(sides["sides"][patn]["seconds"], sides["sides"][name]["seconds"], strict=True)
            )
            cells.append(f"{ratios[2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if name.startswith("bf16") else "")
        assert re.sub(r"\|  (?=\|)", "| ", f"| {' | '.join(cells)} |") in table, cells
    loader = json.loads((results / "waiting.json").read_text())["loader"]
    worked = loader["on the device"]["worked"]
    guide = (REPOSITORY / "docs" / "gpu-and-cluster.md").read_text()
    assert f"{worked * 1e3:.1f} ms" == "5.5 ms"
    assert f"{worked * 90_000 / 60:.1f} minutes" == "8.2 minutes"
    for text in (table, guide):
        assert "5.5 ms" in text
        assert "8.2 minutes" in text
    step = json.loads((SPEED / "results" / "two-cores" / "embedded.json").read_text())["embedded"]
    value = step["ratios"]["embedded, as it was / embedded"]
    assert f"{value['median']:.2f} ({value['min']:.2f} to {value['max']:.2f})" in table
    assert f"by processor time {value['of_processor_seconds']:.2f}" in table
    assert f"{step['null']['median']:.2f} ({step['null']['min']:.2f} to {step['null']['max']:.2f})" in table
    counts = json.loads((results / "right.json").read_text())["counts"]
    assert counts == {"passed": 19, "failed": 1, "skipped": 0}
    assert "Of the 20 tests that need a GPU, 19 passed" in table


def test_the_engine_needs_no_more_than_a_gpu_machine_has() -> None:
    """torch, torchvision, numpy, OpenCV, pandas, PyYAML and tqdm: nothing else is imported before it is needed."""
    absent = ["tensorboard", "snakemake", "dvc", "scipy", "skimage", "matplotlib", "jinja2", "pytorch_fid", "gdown"]
    absent += ["requests", "tenacity", "uv"]
    code = f"""
import sys
for name in {absent!r}:
    sys.modules[name] = None  # an import of it now raises
sys.path.insert(0, {str(SPEED)!r})
import training, step, torch
from pathlib import Path
from potgan.cli import main
from potgan.measure import generate
from potgan.training import estimate, loop
import tempfile
settings = training.paper_settings((32, 32), 2, width=4, iterations=2, checkpoints=1)
with tempfile.TemporaryDirectory() as folder:
    loop.train(estimate.random_pairs((32, 32), 6.0, 4, 4), None, settings, Path(folder, "a", "train"), {{}}, torch.device("cpu"))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def from_archives(monkeypatch):
    monkeypatch.syspath_prepend(str(SPEED))
    import from_archives

    return from_archives


@pytest.mark.parametrize("kind", ["market1501", "dukemtmc", "deepfashion"])
def test_made_archives_have_the_published_numbers_of_names(from_archives, kind) -> None:
    facts = facts_of(kind)
    names = from_archives.names_of(kind, 1, None)
    assert {split: len(set(found)) for split, found in names.items()} == facts["counts"]
    people = {
        split: {re.fullmatch(facts["name_pattern"], name)["person"] for name in found} - {"-1", "0000"}
        for split, found in names.items()
    }
    assert {split: len(found) for split, found in people.items()} == facts["identities"]
    assert not people["train"] & people["test"]


def test_made_names_become_paths_as_the_published_archive_has_them(from_archives) -> None:
    flat = "fashionWOMENTees_Tanksid0000783805_7additional.jpg"
    path = "img/WOMEN/Tees_Tanks/id_00007838/05_7_additional.jpg"
    assert from_archives.path_in_archive("deepfashion", "train", flat) == path
    market = from_archives.path_in_archive("market1501", "test", "0002_c1s1_000451_03.jpg")
    assert market == "Market-1501-v15.09.15/bounding_box_test/0002_c1s1_000451_03.jpg"


def test_the_way_from_served_archives_to_pairs(tmp_path) -> None:
    run = subprocess.run(
        [
            *(
                sys.executable,
                str(SPEED / "from_archives.py"),
                str(tmp_path / "way"),
                "--share",
                "0.002",
                "--until",
                "data",
            ),
            *("--json", str(tmp_path / "numbers.json")),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    rows = json.loads((tmp_path / "numbers.json").read_text())
    stages = {(row["stage"], row["of"]) for row in rows}
    layouts = [f"{kind}-layout" for kind in ("market1501", "dukemtmc", "deepfashion")]
    assert stages == {
        *((stage, of) for stage in ("archive", "images", "keypoints", "pairs", "masks") for of in layouts),
        ("published", "market1501-layout"),
        ("published", "deepfashion-layout"),
    }
    again = subprocess.run(
        [sys.executable, str(SPEED / "from_archives.py"), str(tmp_path / "way")],
        capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert again.returncode == 2
    assert "holds files; name a folder that is new or empty" in again.stderr
