"""`potgan plan`: counts and sizes against what a run really makes, and against arithmetic."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from made_records import training_record
from test_workflow import TINY

from potgan.pipeline import jobs, plan, stages
from potgan.pipeline.snakemake import failures
from potgan.pipeline.start import memory_here, memory_of_training
from potgan.settings.layout import Layout
from potgan.settings.reading import load


def test_all_is_to_do_at_first_and_what_reads_a_missing_thing_is_too(tmp_path) -> None:
    benchmark, layout = load(TINY), Layout("tiny", tmp_path)
    stages = {stage.name: stage for stage in plan.plan(benchmark, layout).stages}
    assert {name: (stage.jobs, stage.to_do) for name, stage in stages.items()} == {
        "feature_network": (1, 1), "images": (1, 1), "keypoints": (1, 1), "masks": (1, 1), "pairs": (1, 1),
        "train": (3, 3),  # no-guided-filter shares potgan's
        "generate": (8, 8), "evaluate": (8, 8), "tabulate": (1, 1),
    }  # fmt: skip


def test_bytes_of_a_training_are_those_of_its_files(tmp_path) -> None:
    """Against files that torch writes of the real networks and optimisers."""
    import torch

    from potgan.common.tensors import tensors_to_bytes
    from potgan.methods.generator_file import save_generator
    from potgan.methods.registry import build_method

    settings = load(TINY | {"generator": {"width": 16}, "discriminator": {"width": 16}}).run_settings(
        "synthetic", "potgan", 0
    )
    method = build_method(settings, torch.device("cpu"))
    for optimiser in (method.generator_optimizer, method.discriminator_optimizer):
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        optimiser.step()
    save_generator(tmp_path / "g.pt", method.generator, settings, 1, {})
    real = (
        settings.training.checkpoints * (tmp_path / "g.pt").stat().st_size
        + tensors_to_bytes(method.state_dict()).nbytes
    )
    assert plan.training_bytes(settings) == pytest.approx(real, rel=0.05)


def test_a_training_on_the_papers_data_sets_takes_what_its_images_and_masks_take(repository) -> None:
    benchmark = load(yaml.safe_load((repository / "config" / "paper.yaml").read_text()))
    pixels = {"market1501": 12_936 * 128 * 64, "dukemtmc": 16_522 * 128 * 64, "deepfashion": 48_674 * 256 * 256}
    for name, count in pixels.items():
        assert memory_of_training(benchmark, name) == 1500 + 4 * count // 10**6
    assert memory_here() == pytest.approx(psutil.virtual_memory().total / 1e6, rel=0.01)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the memory of a process is read from /proc")
def test_images_are_read_into_memory_once(tmp_path) -> None:
    """Twice their bytes were taken, which on the whole of DeepFashion is 10 GB more."""
    benchmark, layout = load(TINY), Layout("tiny", tmp_path)
    for stage in (stages.images, stages.keypoints, stages.pairs):
        stage(benchmark, layout, "synthetic")
    code = f"""
from pathlib import Path
import pandas as pd
from potgan.data.batches import load_pairs
from potgan.data.keypoint_files import read_keypoints
from potgan.settings.schema import MaskSettings
pairs = pd.read_csv({str(layout.pairs("synthetic") / "pairs-train.csv")!r})
keypoints = read_keypoints({str(layout.keypoints("synthetic") / "keypoints.csv")!r})
def kilobytes(key):
    return int(Path("/proc/self/status").read_text().split(key + ":")[1].split()[0])
arguments = Path({str(layout.images("synthetic"))!r}), keypoints, pairs
load_pairs(*arguments, (64, 32), MaskSettings())
Path("/proc/self/clear_refs").write_text("5")  # the largest memory so far is that of now (proc(5))
before = kilobytes("VmRSS")
data = load_pairs(*arguments, (2048, 1024), MaskSettings())
print(1024 * (kilobytes("VmHWM") - before) / (data.images.nbytes + data.masks.nbytes))
"""
    ratio = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 0.9 < float(ratio) < 1.2


def test_hours_come_from_finished_trainings_of_the_same_shape_on_this_device_only(tmp_path) -> None:
    from potgan.common.device import device_name, pick_device

    benchmark, layout = load(TINY), Layout("tiny", tmp_path)
    settings = benchmark.run_settings("synthetic", "potgan", 0)

    def finished(where: str, device: str, run=settings) -> None:
        path = tmp_path / "results" / where / "train" / "done.json"
        path.parent.mkdir(parents=True)
        record = training_record(device=device, settings=dataclasses.asdict(run), pairs_per_second=2.0)
        path.write_text(json.dumps(record))

    def training_of(found: plan.Plan) -> plan.Stage:
        return next(stage for stage in found.stages if stage.name == "train")

    here = device_name(pick_device())
    finished("other/synthetic/potgan/seed3", here)
    assert training_of(plan.plan(benchmark, layout)).hours is None  # two shapes are not known yet
    assert any("potgan estimate" in what for what in plan.plan(benchmark, layout).unknown)
    for model in ("no-pose-transform", "no-recon"):
        finished(f"other/synthetic/{model}/seed3", "another device", benchmark.run_settings("synthetic", model, 0))
    assert training_of(plan.plan(benchmark, layout)).hours is None
    for model in ("no-pose-transform", "no-recon"):
        finished(f"third/synthetic/{model}/seed3", here, benchmark.run_settings("synthetic", model, 0))
    train = training_of(plan.plan(benchmark, layout))
    iterations, batch = settings.training.iterations, settings.training.batch_size
    assert train.hours == pytest.approx(3 * iterations * batch / 2.0 / 3600)


def test_models_that_do_not_see_as_many_pairs_as_each_other_are_named() -> None:
    assert plan.plan(load(TINY), Layout("tiny")).unequal == ()
    shorter = TINY | {"models": TINY["models"] | {"short": {"training": {"batch_size": 1}}}}
    found = plan.plan(load(shorter), Layout("tiny"))
    assert len(found.unequal) == 1
    assert found.unequal[0].startswith("synthetic: potgan 18, ")
    assert found.unequal[0].endswith("short 9")
    assert "not the same on synthetic: potgan 18" in plan.text(found)


def test_too_little_disk_is_a_warning(tmp_path) -> None:
    found = plan.plan(load(TINY), Layout("tiny", tmp_path))
    assert "WARNING" not in plan.text(found)
    full = dataclasses.replace(found, free=found.bytes - 1)
    assert "WARNING: that does not fit" in plan.text(full)


def test_the_papers_plan_counts_published_images() -> None:
    benchmark = load(Path(__file__).parents[2] / "config" / "paper.yaml")
    market = benchmark.datasets["market1501"]
    assert plan.image_bytes(market) == pytest.approx((12936 + 19732) * 128 * 64 * 3 * 0.12)
    assert plan.test_pairs(market, Layout("nowhere"), "market1501") == 12_000
    assert len([key for key in jobs.jobs(benchmark, Layout("nowhere")) if key[0] == "train"]) % 9 == 0  # 3 x 3 seeds


def test_what_failed_is_named_once_with_the_last_words_of_its_log(tmp_path) -> None:
    def failed(rule: str, number: int, log: Path) -> str:
        named = f"    log: {log} (check log file(s) for error details)\n"
        return f"Error in rule {rule}:\n    message: None\n    jobid: {number}\n{named}"

    logs = tmp_path / "logs"
    (logs / "train" / "d").mkdir(parents=True)
    texts = {
        "message": "10 images\npotgan train: error: a cause; a remedy\n\n",
        "traceback": "Traceback (most recent call last):\n  File\nRuntimeError: CUDA out of memory\n",
        "later": "potgan train: error: the first try\n",
    }
    for name, text in texts.items():
        (logs / "train" / "d" / f"{name}.log").write_text(text)
    told = tmp_path / "snakemake.log"
    told.write_text(
        failed("train", 1, logs / "train/d/message.log") * 3  # with every try
        + failed("train", 2, logs / "train/d/traceback.log")
        + failed("train", 3, logs / "train/d/later.log")
        + failed("train", 4, logs / "train/d/killed.log")
        + "Finished jobid: 3 (Rule: train)\nFinished jobid: 9 (Rule: pairs)\n"
    )
    assert failures([told, tmp_path / "none.log"], logs) == [
        "train/d/message: potgan train: error: a cause; a remedy",
        "train/d/traceback: RuntimeError: CUDA out of memory",
        "train/d/killed: it has left no log",
    ]
