"""The timing scripts of the training engine run and write their numbers; the sides of a comparison do the same work.

Nothing here looks at how long anything takes.
"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


def run(tmp_path: Path, script: str, *arguments: str) -> tuple[dict, str]:
    out = tmp_path / "numbers.json"
    done = subprocess.run(
        [sys.executable, str(SPEED / script), *TINY, "--json", str(out), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    tree = json.loads(out.read_text())
    assert tree["versions"]["torch"] == torch.__version__
    assert {"Processor", "GPU"} <= set(tree["hardware"])
    assert tree["arguments"]["batch"] == 2
    return tree, done.stdout


@pytest.mark.slow
def test_step_compares_all_sides_and_names_what_failed(tmp_path) -> None:
    tree, printed = run(
        tmp_path, "step.py", "--only", "sides", "--ways", "eager", "--warm-up", "1", "--patn", str(tmp_path)
    )
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
    assert set(sides) == {"all", *workers.IMPROVEMENTS}
    assert not any("failed" in side for side in sides.values())
    flops = {name: side["gflop_per_pair"] for name, side in sides.items()}
    assert flops.pop("frozen discriminator") > flops["all"]
    assert set(flops.values()) == {flops["all"]}


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
    fake.write_text('#!/bin/sh\necho "$@" >> "$CALLS"\nfor last; do :; done\necho "{}" > "$last"\nexit $CODE\n')
    fake.chmod(0o755)
    out = tmp_path / "speed"
    pieces = "step-batch8-fp32 wall-bf16-compiled estimate-deepfashion-potgan"

    def call(code: int) -> tuple[int, list[str]]:
        calls = tmp_path / "calls"
        calls.write_text("")
        environment = os.environ | {"PYTHON": str(fake), "CALLS": str(calls), "CODE": str(code), "PIECES": pieces}
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
    assert second == first
    assert sorted(p.name for p in out.glob("*.json")) == sorted(f"{name}.json" for name in pieces.split())
    assert call(0) == (0, [])


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
