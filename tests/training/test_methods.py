"""Tests that every method trains as PoT-GAN does: killed and continued bit for bit, in several processes, and it learns."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_contract import small, without_chance
from test_loop import SETTINGS, dots, equal, in_two_processes, plain_descent, saved_iteration, wait_for_state

from potgan.apply.runs import open_generator
from potgan.methods.registry import build_method
from potgan.settings.methods import method_names, options_class
from potgan.settings.schema import RunSettings
from potgan.training import estimate, loop

CPU = torch.device("cpu")
OTHERS = [name for name in method_names() if name != "potgan"]


def settings_of(method: str, iterations: int = 12, rate: float = 1e-3) -> RunSettings:
    """A short training of a method with few channels. Half of it lies after the middle, where stages and schedules change."""
    how = {"log_every": 1, "save_every": 2, "checkpoints": 1}
    training = dataclasses.replace(SETTINGS.training, iterations=iterations, batch_size=4, learning_rate=rate, **how)
    options = options_class(method)
    return dataclasses.replace(SETTINGS, method=method, options=small(options) if options else None, training=training)


def weights_of(folder: Path, iterations: int = 12) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"generator-{iterations:06d}.pt", weights_only=True)["state"]


SLOWLY = """
import sys, time, torch
from pathlib import Path
sys.path[:0] = [{tests!r}, {contract!r}]
import test_loop, test_methods
from potgan.training import estimate, loop
step = torch.optim.Adam.step
def slow(self, *a, **k):
    time.sleep(0.1)
    return step(self, *a, **k)
torch.optim.Adam.step = slow
loop.train(test_loop.dots(), None, test_methods.settings_of({method!r}), Path({folder!r}), {{}}, torch.device("cpu"))
"""


@pytest.mark.parametrize("method", OTHERS)
def test_a_killed_training_continues_bit_for_bit(method: str, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole" / "train", tmp_path / "killed" / "train"
    loop.train(dots(), None, settings_of(method), whole, {}, CPU)
    here = Path(__file__).parent
    script = SLOWLY.format(tests=str(here), contract=str(here.parent / "methods"), method=method, folder=str(killed))
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
    wait_for_state(process, killed.parent, iteration=4)
    process.kill()
    process.communicate()
    assert 4 <= saved_iteration(killed.parent) < 12
    loop.train(dots(), None, settings_of(method), killed, {}, CPU)
    assert equal(weights_of(killed), weights_of(whole))


@pytest.mark.parametrize("method", OTHERS)
def test_two_processes_train_as_one(method: str, tmp_path: Path, monkeypatch) -> None:
    """Plain gradient descent is in the place of Adam, which makes whole steps of gradients that are rounding alone.

    A method whose chance cannot be switched off draws other numbers in each process, so its losses are only near.
    """
    rate = 1e-5 if method == "vunet" else 1e-3  # VUNet's losses are in grey levels
    two, one = tmp_path / "two" / "train", tmp_path / "one" / "train"
    here = Path(__file__).parent
    prelude = (
        f"sys.path.insert(0, {str(here.parent / 'methods')!r})",
        "import test_contract, test_methods",
        f"S = test_contract.without_chance(test_methods.settings_of({method!r}, 6, {rate}))",
        plain_descent(rate),
    )
    done = subprocess.run(
        in_two_processes(two, "S", *prelude), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(torch.optim, "Adam", lambda groups, **_: torch.optim.SGD(groups, lr=rate))
    settings = without_chance(settings_of(method, 6, rate))
    loop.train(dots(), dots(4), settings, one, {}, CPU)
    start = build_method(settings, CPU)
    loop.prepare(start, dots())
    before = start.generator.state_dict()
    ours, theirs = weights_of(two, 6), weights_of(one, 6)
    assert all(value.isfinite().all() for value in ours.values())
    moved = max((theirs[key] - before[key]).abs().max().item() for key in theirs)
    apart = max((ours[key] - theirs[key]).abs().max().item() for key in ours)
    assert moved > 0
    assert apart < (0.01 if not start.draws else 1.0) * moved


@pytest.mark.parametrize("method", OTHERS)
def test_the_same_update_draws_the_same_whatever_was_drawn_before(method: str) -> None:
    first, second = (build_method(settings_of(method), CPU) for _ in range(2))
    if not first.draws:
        pytest.skip("it draws no random numbers")
    torch.manual_seed(99)
    torch.rand(17)
    batch = dots().batch(np.arange(4), CPU, first.needs)
    ours = first.update([batch], 5)
    theirs = second.update([batch], 5)
    assert equal(ours, theirs)
    second = build_method(settings_of(method), CPU)
    assert not equal(ours, second.update([batch], 6))


@pytest.mark.parametrize("method", OTHERS)
def test_bf16_is_near_fp32(method: str) -> None:
    """The losses of the first update differ by what bf16's 8 bits of mantissa can make of them."""
    losses = {}
    for precision in ("fp32", "bf16"):
        settings = without_chance(settings_of(method))
        settings = dataclasses.replace(settings, training=dataclasses.replace(settings.training, precision=precision))
        built = build_method(settings, CPU)
        losses[precision] = built.update([dots().batch(np.arange(4), CPU, built.needs)], 0)
    for name, value in losses["fp32"].items():
        assert losses["bf16"][name].item() == pytest.approx(value.item(), rel=0.05, abs=0.01), name


def test_the_estimate_times_every_stage_by_its_share() -> None:
    """PG2 trains G1 in 22 of 36 iterations, and then G2 and the discriminator."""
    settings = settings_of("pg2", iterations=36)
    assert estimate.stages_of(build_method(settings, CPU)) == [(0, 22 / 36), (22, 14 / 36)]
    assert estimate.stages_of(build_method(settings_of("patn"), CPU)) == [(0, 1.0)]
    training = estimate.TimedTraining(
        settings, CPU, estimate.random_pairs(settings.image_size, 3.0, images=8, pairs=16)
    )
    training.run(1)
    training.run(1, 22)
    assert all(optimizer.state for optimizer in training.method.optimizers.values())


def test_an_estimate_fetches_no_weight_file() -> None:
    settings = settings_of("adgan")
    fetched = dataclasses.replace(settings.options, texture_network="vgg16", texture_width=4)
    replaced = estimate.without_weight_files(dataclasses.replace(settings, options=fetched))
    assert (replaced.options.texture_network, replaced.options.texture_width) == ("random", 64)  # VGG-19's channels
    assert estimate.without_weight_files(settings) == settings


@pytest.mark.parametrize("method", OTHERS)
def test_the_folder_of_a_run_opens_without_its_configuration(method: str, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "x" / "dots" / "mine" / "seed3"
    loop.train(dots(), None, settings_of(method, 2), folder / "train", {}, CPU)
    assert open_generator(folder).iteration == 2
