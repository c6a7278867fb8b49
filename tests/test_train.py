"""Training: resume is exact after kills at random moments, a folder has one trainer, batches are a function of the step."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from potgan import batches, train
from potgan.config import (
    DiscriminatorSettings,
    GeneratorSettings,
    GuidedFilterSettings,
    LossWeights,
    MaskSettings,
    RunSettings,
    TrainingSettings,
)
from potgan.errors import UserError
from potgan.generator_files import load_generator

SETTINGS = RunSettings(
    dataset="dots",
    seed=3,
    image_size=(32, 32),
    generator=GeneratorSettings(
        width=4, normalization="batch", control_points=(3, 3), guided_filter=GuidedFilterSettings("test")
    ),
    discriminator=DiscriminatorSettings(width=4, normalization="none"),
    loss_weights=LossWeights(),
    masks=MaskSettings(limb_radius=2, heatmap_sigma=3.0),
    training=TrainingSettings(
        iterations=24,
        batch_size=2,
        learning_rate=1e-3,
        decay_from=12,
        perceptual_network="random",
        checkpoints=3,
        log_every=5,
        save_every=2,
    ),
)


def dots(count: int = 6) -> batches.PairData:
    """A few random images and joints, all pairs of neighbours."""
    g = torch.Generator().manual_seed(1)
    joints = torch.rand(count, 18, 2, generator=g) * 31
    return batches.PairData(
        names=[str(i) for i in range(count)],
        images=torch.randint(0, 256, (count, 3, 32, 32), generator=g, dtype=torch.uint8),
        masks=torch.randint(0, 2, (count, 1, 32, 32), generator=g, dtype=torch.uint8),
        joints=joints,
        sources=torch.arange(count),
        targets=(torch.arange(count) + 1) % count,
        sigma=3.0,
    )


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "generator-000024.pt", weights_only=True)["state"]


def run_here(folder: Path) -> dict:
    return train.train(dots(), dots(4), SETTINGS, folder, {"images": "dots"}, torch.device("cpu"))


SCRIPT = """
import sys, time, torch
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_train
from potgan import train
from potgan.errors import Interrupted
step = torch.optim.Adam.step
def slow(self, *a, **k):  # so that a kill finds it in the middle
    time.sleep(0.03)
    return step(self, *a, **k)
torch.optim.Adam.step = slow
print("ready", flush=True)
try:
    test_train.run_here(Path({folder!r}))
except Interrupted as stop:
    print(stop, file=sys.stderr)
    sys.exit(75)
"""


def start(folder: Path) -> subprocess.Popen:
    script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder))
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def wait_for(process: subprocess.Popen, path: Path) -> None:
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.1)


def test_killed_at_random_moments_and_resumed_is_bit_equal_to_an_unbroken_run(tmp_path) -> None:
    whole = tmp_path / "whole" / "train"
    run_here(whole)
    broken = tmp_path / "broken" / "train"
    moments = random.Random(20261123)
    kills = 0
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        lock = broken.parent / "checkpoint" / "lock"
        lock.unlink(missing_ok=True)  # its return says that the handlers of this process are about to be set
        process = start(broken)
        wait_for(process, lock)
        time.sleep(moments.uniform(0.05, 0.4))
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        if (broken / "done.json").exists():  # the machine was quicker than the kill
            break
        kills += 1
        if number != signal.SIGKILL:
            assert process.returncode == 75, errors
            assert "the same command continues" in errors
    assert kills >= 1
    run_here(broken)
    for name, tensor in final_weights(whole).items():
        assert torch.equal(tensor, final_weights(broken)[name]), name
    assert (whole / "progress.csv").read_text() == (broken / "progress.csv").read_text()


def test_a_changed_setting_starts_anew_and_never_continues_anothers_weights(tmp_path) -> None:
    folder = tmp_path / "run" / "train"
    process = start(folder)
    while not list(folder.parent.glob("checkpoint/*.pt")):
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    other = dataclasses.replace(SETTINGS, training=dataclasses.replace(SETTINGS.training, learning_rate=2e-3))
    train.train(dots(), None, other, folder, {"images": "dots"}, torch.device("cpu"))
    fresh = tmp_path / "fresh" / "train"
    train.train(dots(), None, other, fresh, {"images": "dots"}, torch.device("cpu"))
    for name, tensor in final_weights(fresh).items():
        assert torch.equal(tensor, final_weights(folder)[name]), name


def test_two_trainers_in_one_folder_are_refused(tmp_path) -> None:
    folder = tmp_path / "run" / "train"
    process = start(folder)
    try:
        wait_for(process, folder.parent / "checkpoint" / "lock")
        with pytest.raises(UserError, match="another process is training here"):
            run_here(folder)
    finally:
        process.kill()
        process.communicate()


def test_record_names_every_kept_generator_by_its_hash(tmp_path) -> None:
    import hashlib

    folder = tmp_path / "run" / "train"
    run_here(folder)
    record = json.loads((folder / "done.json").read_text())
    assert list(record["generators"]) == ["generator-000008.pt", "generator-000016.pt", "generator-000024.pt"]
    for name, digest in record["generators"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert not list(folder.parent.glob("checkpoint/*.pt"))  # otherwise a forced rerun would do nothing


def test_a_generator_of_other_settings_is_refused(tmp_path) -> None:
    folder = tmp_path / "run" / "train"
    run_here(folder)
    wider = dataclasses.replace(SETTINGS.generator, width=8)
    with pytest.raises(UserError, match="width: 4 in the file, 8 wanted"):
        load_generator(folder / "generator-000024.pt", wider, torch.device("cpu"))
    no_filter = dataclasses.replace(SETTINGS.generator, guided_filter=GuidedFilterSettings("off"))
    loaded = load_generator(folder / "generator-000024.pt", no_filter, torch.device("cpu"))
    assert loaded.iteration == 24
    assert not loaded.generator.filters


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path) -> None:
    reckless = dataclasses.replace(SETTINGS, loss_weights=LossWeights(reconstruction=float("inf")))
    with pytest.raises(UserError, match="no longer finite at iteration"):
        train.train(dots(), None, reckless, tmp_path / "run" / "train", {}, torch.device("cpu"))


def test_training_learns_to_copy_one_image(tmp_path) -> None:
    """An analytic case: one image, its own target. L1 must fall far below that of a constant grey image."""
    data = dataclasses.replace(dots(1), images=dots(1).images[..., :1].expand(-1, -1, -1, 32).contiguous())
    training = dataclasses.replace(
        SETTINGS.training, iterations=120, decay_from=60, checkpoints=1, batch_size=1, learning_rate=5e-3
    )
    settings = dataclasses.replace(SETTINGS, training=training, loss_weights=LossWeights(10, 0, 0))
    folder = tmp_path / "run" / "train"
    train.train(data, None, settings, folder, {}, torch.device("cpu"))
    lines = (folder / "progress.csv").read_text().splitlines()
    last = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    images = batches.to_model(data.images)
    assert float(last["reconstruction"]) < 0.5 * (images - images.median()).abs().mean().item()


def test_every_pass_sees_every_pair_once_and_differs_between_seeds_and_passes() -> None:
    count, size = 10, 4
    drawn = np.concatenate([batches.training_indices(count, size, 0, i) for i in range(5)])
    assert sorted(drawn[:count]) == list(range(count))
    assert sorted(drawn[count:]) == list(range(count))
    assert list(drawn[:count]) != list(drawn[count:])
    assert list(batches.training_indices(100, 50, 0, 0)) != list(batches.training_indices(100, 50, 1, 0))
    # A batch larger than the set still works: passes are strung together.
    assert sorted(batches.training_indices(3, 6, 0, 0)) == [0, 0, 1, 1, 2, 2]


def test_learning_rate_is_constant_then_linear_to_zero() -> None:
    factors = [train.rate_factor(i, 60, 90) for i in range(90)]
    assert factors[:60] == [1.0] * 60
    np.testing.assert_allclose(np.diff(factors[60:]), -1 / 30)
    assert factors[60] == 1.0
    assert factors[-1] == pytest.approx(1 / 30)
    assert train.rate_factor(5, 10, 10) == 1.0  # no decay at all


@pytest.mark.parametrize("value", range(0, 256, 15))
def test_pixels_survive_the_round_trip(value: int) -> None:
    image = torch.full((1, 3, 2, 2), value, dtype=torch.uint8)
    assert torch.equal(batches.to_pixels(batches.to_model(image)), image)
    assert batches.to_pixels(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]
