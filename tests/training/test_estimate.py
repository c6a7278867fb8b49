"""Tests of `potgan estimate`.

They check its sums, its file sizes against those that a training writes, which trainings are timed once, and bad input.
"""

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml

from potgan.cli import main
from potgan.common.errors import UserError
from potgan.settings import schema
from potgan.settings.reading import load
from potgan.training import estimate, loop

TINY = {
    "benchmark": "tiny",
    "description": "for a test",
    "protocol": "potgan-synthetic",
    "seeds": [0, 1, 2],
    "datasets": {
        name: {
            "kind": "synthetic",
            "label": name,
            "image_size": [32, 32],
            "synthetic": {"height": 32, "width": 32},
        }
        for name in ("first", "second")
    },
    "generator": {"width": 4, "control_points": [3, 3], "guided_filter": {"mode": "test"}},
    "discriminator": {"width": 4, "normalization": "none"},
    "training": {
        "iterations": 7200,
        "batch_size": 4,
        "decay_from": 100,
        "checkpoints": 3,
        "perceptual_network": "vgg16",  # the weights must not be fetched
        "compile": "never",
    },
    "models": {
        "potgan": {},
        "no-guided-filter": {"generator": {"guided_filter": {"mode": "off"}}},  # shares the network of potgan
        "wide": {"generator": {"width": 8}},
    },
}
MEASURED = estimate.Measured(0.5, 3 << 30, 1000, 5000, False, "CPU (x)")


def test_models_that_share_a_network_are_one_training() -> None:
    benchmark = load(TINY)
    wanted = [("first", "potgan"), ("first", "wide"), ("second", "potgan"), ("second", "wide")]
    assert estimate.distinct_trainings(benchmark) == wanted
    assert estimate.distinct_trainings(benchmark, model="no-guided-filter") == [
        ("first", "potgan"),
        ("second", "potgan"),
    ]
    assert estimate.distinct_trainings(benchmark, dataset="second") == wanted[2:]


def test_costs_add_up_and_equal_settings_are_timed_once(monkeypatch) -> None:
    timed = []

    def measured(settings: schema.RunSettings, steps: int, what: str) -> estimate.Measured:
        timed.append((settings.generator.width, settings.training.batch_size, settings.training.processes))
        return dataclasses.replace(MEASURED, seconds_per_iteration=settings.generator.width / 8)

    monkeypatch.setattr(estimate, "_in_a_process", measured)
    tree = TINY | {"training": TINY["training"] | {"processes": 2}}
    costs = estimate.estimate(load(tree), 5)
    assert timed == [(4, 2, 1), (8, 2, 1)]  # the share of one process is timed, once for both data sets
    # 7,200 iterations of half a second take one hour, and those of one second take two. There are three seeds and two devices.
    assert [cost.hours_each for cost in costs] == [1, 2, 1, 2]
    assert [cost.device_hours for cost in costs] == [6, 12, 6, 12]
    assert [cost.pairs_per_second for cost in costs] == [8, 4, 8, 4]  # the whole batch has four pairs
    assert [cost.kept_bytes for cost in costs] == [9000] * 4  # there are three checkpoints and three seeds
    tree = estimate.as_tree(costs, 5, price=2.5)
    assert tree["device_hours"] == 36
    assert tree["cost"] == 90
    last = estimate.text(costs, 5, 2.5).split("\n\n")[0].splitlines()[-1].split()
    assert last[:4] == ["all", "12", "36.00", "90.00"]
    assert "exchanging gradients is not counted" in estimate.text(costs, 5)
    assert "EUR" not in estimate.text(costs, 5)


def test_sizes_are_those_of_the_files_that_a_training_writes(tmp_path) -> None:
    tree = TINY | {"training": TINY["training"] | {"iterations": 2, "decay_from": 1, "checkpoints": 2, "ema": 0.9,
                                                   "perceptual_network": "random"}}  # fmt: skip
    settings = load(tree).run_settings("first", "potgan", 0)
    found = estimate.measure(settings, 1)
    folder = tmp_path / "seed0" / "train"
    states = []
    save = loop.TrainingState.save

    def watched(self, state: dict, device: torch.device) -> None:
        save(self, state, device)
        states.append(self.path.stat().st_size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop.TrainingState, "save", watched)
        loop.train(estimate.random_pairs((32, 32), 6.0), None, settings, folder, {}, torch.device("cpu"))
    # The files also name settings, losses and the state of the random numbers (5 KB).
    assert found.generator_bytes == pytest.approx((folder / "generator-000002.pt").stat().st_size, abs=8000)
    assert found.state_bytes == pytest.approx(states[-1], abs=16_000)
    assert found.state_bytes > 4 * found.generator_bytes  # weights, average, two Adam moments, discriminator
    assert found.seconds_per_iteration > 0
    assert found.peak_memory_bytes > found.state_bytes


def test_random_pairs_are_pairs() -> None:
    data = estimate.random_pairs((32, 48), 6.0, images=7, pairs=20)
    assert data.size == (32, 48)
    assert len(data) == 20
    batch = data.batch(range(20))
    assert batch.target_heatmaps.shape == (20, 18, 32, 48)
    # Joints lie inside the image, so the maximum of each heat map is close to 1.
    assert (batch.target_heatmaps.amax(dim=(2, 3)) > 0.98).all()
    assert set(batch.target_mask.unique().tolist()) == {0.0, 1.0}


def configuration(folder: Path, tree: dict) -> str:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def test_the_verb_prints_a_table_and_writes_the_same_numbers(tmp_path, capsys) -> None:
    out = tmp_path / "estimate.json"
    code = main(["estimate", "--config", configuration(tmp_path, TINY), "--dataset", "first", "--model", "potgan",
                 "--steps", "2", "--price", "2", "--json", str(out)])  # fmt: skip
    assert code == 0
    tree = json.loads(out.read_text())
    (row,) = tree["trainings"]
    assert row["device_hours"] == pytest.approx(row["seconds_per_iteration"] * 7200 / 3600 * 3)
    assert tree["cost"] == pytest.approx(2 * row["device_hours"])
    printed = capsys.readouterr().out
    assert f"{row['device_hours']:,.2f}" in printed
    assert "Not counted" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps must be at least 1, and is 0"),
        (["--price", "-1"], "--price must be a number of at least 0"),
        (["--price", "nan"], "--price must be a number of at least 0"),
        (["--dataset", "third"], "no data set 'third'; there are first, second"),
        (["--model", "narrow"], "no model 'narrow'"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, arguments, message) -> None:
    assert main(["estimate", "--config", configuration(tmp_path, TINY), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_process_that_is_killed_is_one_line(monkeypatch) -> None:
    """The test runs with a broken pipe ending the process, as the command line has it (`potgan ... | head`)."""
    settings = load(TINY).run_settings("first", "potgan", 0)
    monkeypatch.setattr(estimate, "_measure_and_send", die)
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        with pytest.raises(UserError, match="x/y: the process that timed it was killed"):
            estimate._in_a_process(settings, 1, "x/y")
    finally:
        signal.signal(signal.SIGPIPE, before)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
