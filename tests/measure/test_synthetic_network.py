"""Tests of the feature network of `potgan-synthetic`: what it learns and writes, and that it is repeatable.

They take about 10 s.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from potgan.common.errors import UserError
from potgan.common.typed import build
from potgan.data.synthetic import people as synthetic_people
from potgan.data.synthetic.clothes import LOWER_COLOURS
from potgan.measure import synthetic_network
from potgan.measure.inception import frechet_distance, inception_score
from potgan.measure.synthetic_network import (
    load_feature_network,
    train_feature_network,
)
from potgan.settings.schema import FeatureNetworkSettings, SyntheticSettings

SMALL = FeatureNetworkSettings(identities=120, images_per_identity=4, height=64, width=32, epochs=8, batch_size=24)
TINY = FeatureNetworkSettings(
    identities=6, held_out_identities=3, images_per_identity=2, height=32, width=16, epochs=1, feature_dimension=8
)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small network that is trained on real renders: (folder, network)."""
    folder = tmp_path_factory.mktemp("feature-network")
    train_feature_network(SMALL, folder)
    return folder, load_feature_network(folder)


@pytest.fixture(scope="module")
def people():
    """Images of 60 people and of cameras with another seed, as in a benchmark.

    The first array holds four views of each person, and the second array four others.
    """
    settings = SyntheticSettings(train_identities=60, test_identities=0, images_per_identity=8, height=64, width=32)
    images = [[synthetic_people.render(settings, person, i).image for i in range(8)] for person in range(1, 61)]
    images = np.array(images)
    return images[:, 0::2].reshape(-1, 64, 32, 3), images[:, 1::2].reshape(-1, 64, 32, 3)


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    return np.stack([cv2.GaussianBlur(image, (0, 0), sigma) for image in images])


def test_people_it_has_not_seen_are_told_apart_well_above_chance(small):
    record = json.loads((small[0] / "network.json").read_text())
    accuracy, commonest = record["held_out_accuracy"], record["commonest_class"]
    # The 60 held-out people wear each combination of colours once.
    assert commonest == pytest.approx({"upper": 1 / 10, "lower": 1 / 6, "joint": 1 / 60}, abs=1e-4)
    assert accuracy["upper"] > 3 * commonest["upper"]
    assert accuracy["lower"] > 3 * commonest["lower"]
    assert accuracy["joint"] > 10 * commonest["joint"]
    assert accuracy["joint"] <= min(accuracy["upper"], accuracy["lower"])
    assert record["held_out_images"] == 240


def test_the_recorded_accuracy_is_that_of_the_saved_network(small):
    folder, network = small
    people = SyntheticSettings(
        train_identities=SMALL.identities,
        test_identities=SMALL.held_out_identities,
        images_per_identity=SMALL.images_per_identity,
        height=64,
        width=32,
        seed=SMALL.seed,
    )
    renders = list(synthetic_people.render_split(people, "test"))
    _, logits = network(np.stack([render.image for render in renders]))
    upper, lower = np.divmod(logits.argmax(axis=1), len(LOWER_COLOURS))
    recorded = json.loads((folder / "network.json").read_text())["held_out_accuracy"]
    assert np.mean([u == r.upper_colour for u, r in zip(upper, renders, strict=True)]) == pytest.approx(
        recorded["upper"], abs=0.01
    )
    assert np.mean([v == r.lower_colour for v, r in zip(lower, renders, strict=True)]) == pytest.approx(
        recorded["lower"], abs=0.01
    )


def test_distance_grows_with_every_kind_of_damage(small, people):
    _, network = small
    reference, others = people
    features, _ = network(reference)

    def distance(images):
        return frechet_distance(network(np.ascontiguousarray(images))[0], features)

    real = distance(others)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=others.shape)
    damages = {
        "blur": [blurred(others, sigma) for sigma in (0.75, 1.5, 3.0)],
        "noise": [np.clip(others + level * noise, 0, 255).astype(np.uint8) for level in (10, 20, 40)],
        "tint": [np.clip(others + np.array((shift, 0, -shift)), 0, 255).astype(np.uint8) for shift in (10, 20, 40)],
    }
    for damage, levels in damages.items():
        distances = [real, *map(distance, levels)]
        assert all(later > earlier for earlier, later in itertools.pairwise(distances)), damage
    assert distance(np.repeat(reference.mean(axis=0, keepdims=True).astype(np.uint8), 240, axis=0)) > 10 * real


def test_varied_people_score_higher_than_one_picture(small, people):
    _, network = small
    _, logits = network(people[0])
    _, of_one = network(np.repeat(people[0][:1], 40, axis=0))
    assert inception_score(of_one, 4)[0] == pytest.approx(1, abs=1e-6)
    assert inception_score(logits, 4)[0] > 3


def test_images_of_other_sizes_are_scaled(small, people):
    _, network = small
    features, logits = network(people[0][:20])
    assert (features.shape, logits.shape) == ((20, 64), (20, 60))
    assert features.dtype == logits.dtype == np.float64
    assert network.dimension == 64
    # The image is doubled by repeating its pixels, and the network halves it by INTER_AREA. This gives the same image exactly.
    doubled = people[0][:20].repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(network(doubled)[0], features)
    halved = np.stack([cv2.resize(image, (16, 32), interpolation=cv2.INTER_AREA) for image in people[0][:20]])
    expected = np.stack([cv2.resize(image, (32, 64), interpolation=cv2.INTER_LINEAR) for image in halved])
    np.testing.assert_array_equal(network(halved)[0], network(expected)[0])


# --- The tests below use a simple stand-in for the renderer


@pytest.fixture
def stub(monkeypatch):
    """A renderer of people in two flat colours. The fixture is the list of its calls: (settings, person, index)."""
    calls = []

    def render(settings, person, index):
        calls.append((settings, person, index))
        rng = np.random.default_rng((settings.seed, person, index))
        image = rng.integers(0, 60, (settings.height, settings.width, 3), dtype=np.uint8)
        upper, lower = person % 2, person // 2 % 2
        image[: settings.height // 2] += np.uint8(90 * upper)
        image[settings.height // 2 :, :, 0] += np.uint8(90 * lower)
        return SimpleNamespace(image=image, upper_colour=upper, lower_colour=lower)

    nowhere = (np.full((18, 2), np.nan, np.float32), np.zeros(18, np.float32))
    # A mask without joints is empty. So half of the images are black, and the network learns from the others.
    stand_in = SimpleNamespace(render=render, annotate=lambda _: nowhere)
    monkeypatch.setattr(synthetic_network, "people", stand_in)
    monkeypatch.setattr(synthetic_network, "UPPER_COLOURS", ("dark", "bright"))
    monkeypatch.setattr(synthetic_network, "LOWER_COLOURS", ("black", "red"))
    return calls


def weights_of(folder):
    return torch.load(folder / "network.pt", weights_only=True)


def test_equal_settings_give_equal_bytes_and_leave_the_caller_alone(stub, tmp_path):
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    train_feature_network(TINY, tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.rand(7)
    train_feature_network(TINY, tmp_path / "b")
    for name in ("network.pt", "network.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    train_feature_network(dataclasses.replace(TINY, seed=5), tmp_path / "c")
    hashes = {json.loads((tmp_path / f / "network.json").read_text())["weights_sha256"] for f in "abc"}
    assert len(hashes) == 2
    assert not torch.equal(weights_of(tmp_path / "a")["upper.weight"], weights_of(tmp_path / "c")["upper.weight"])
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["network.json", "network.pt"]


def test_it_learns_what_can_be_learnt(stub, tmp_path):
    train_feature_network(dataclasses.replace(TINY, identities=24, held_out_identities=8, epochs=12), tmp_path)
    assert json.loads((tmp_path / "network.json").read_text())["held_out_accuracy"]["joint"] >= 0.9


def test_people_are_drawn_from_the_settings_seed_and_size(stub, tmp_path):
    train_feature_network(TINY, tmp_path)
    assert [(person, index) for _, person, index in stub] == [(p, i) for p in range(1, 10) for i in range(2)]
    assert {(s.seed, s.height, s.width) for s, _, _ in stub} == {(1234, 32, 16)}
    assert FeatureNetworkSettings().seed != SyntheticSettings().seed


def test_joint_classes_number_the_combinations(stub, tmp_path):
    train_feature_network(TINY, tmp_path)
    features, logits = load_feature_network(tmp_path)(
        np.random.default_rng(0).integers(0, 256, (5, 32, 16, 3), dtype=np.uint8)
    )
    weights = {name: tensor.double().numpy() for name, tensor in weights_of(tmp_path).items()}
    upper = features @ weights["upper.weight"].T + weights["upper.bias"]
    lower = features @ weights["lower.weight"].T + weights["lower.bias"]
    for u in range(2):
        for v in range(2):
            np.testing.assert_allclose(logits[:, u * 2 + v], upper[:, u] + lower[:, v], rtol=1e-4, atol=1e-5)


def test_damaged_or_missing_files_are_user_errors(stub, tmp_path):
    train_feature_network(TINY, tmp_path)
    record, weights = json.loads((tmp_path / "network.json").read_text()), (tmp_path / "network.pt").read_bytes()

    def message():
        with pytest.raises(UserError) as caught:
            load_feature_network(tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    (tmp_path / "network.pt").write_bytes(weights[:100])
    assert "network.pt: does not hold this network's weights" in message()
    (tmp_path / "network.pt").unlink()
    assert "network.pt: missing" in message()
    changed = torch.load(io.BytesIO(weights), weights_only=True)
    changed["upper.bias"][0] += 1
    torch.save(changed, tmp_path / "network.pt")
    assert f"network.json names {record['weights_sha256'][:12]}" in message()
    del record["settings"]["seed"], record["weights_sha256"]
    (tmp_path / "network.json").write_text(json.dumps(record))
    assert "network.json: is not of this version" in message()
    (tmp_path / "network.json").unlink()
    assert "network.json: missing" in message()


def test_an_interrupted_training_leaves_no_record(stub, tmp_path, monkeypatch):
    train_feature_network(TINY, tmp_path)
    monkeypatch.setattr(synthetic_network, "_train", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_feature_network(dataclasses.replace(TINY, seed=6), tmp_path)
    assert not (tmp_path / "network.json").exists()  # the old record would be wrong for the new settings


def test_settings_are_read_from_a_configuration():
    def read(section: dict) -> FeatureNetworkSettings:
        return build(FeatureNetworkSettings, section, "feature_network")

    assert read({}) == FeatureNetworkSettings()
    assert read({"epochs": 3, "learning_rate": 0.01}) == FeatureNetworkSettings(epochs=3, learning_rate=0.01)
    with pytest.raises(UserError, match="did you mean 'epochs'"):
        read({"epoch": 3})
    with pytest.raises(UserError, match=r"feature_network\.batch_size must be at least 1, and is 0"):
        read({"batch_size": 0})
    with pytest.raises(UserError, match="brightness must lie between 0 and 1, and is 1"):
        read({"brightness": 1.0})
