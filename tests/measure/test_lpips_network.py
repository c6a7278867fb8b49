"""LPIPS equals the authors' package, which loads its backbone by itself, on a backbone of random weights."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision

from potgan.common.errors import UserError
from potgan.common.weights import WEIGHTS
from potgan.measure.evaluate import evaluate
from potgan.measure.lpips_network import LpipsNetwork
from potgan.settings.protocols import PROTOCOLS


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    """A file of torchvision's name, with random weights, where torch.hub looks for it."""
    path = tmp_path_factory.mktemp("torch") / "hub" / "checkpoints" / WEIGHTS["alexnet"].file_name
    path.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.alexnet(weights=None).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def images() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    targets = random.integers(0, 256, (35, 64, 32, 3), np.uint8)  # more than one batch
    noise = np.arange(35).reshape(-1, 1, 1, 1) * random.normal(0, 1, targets.shape)
    return np.clip(targets + noise, 0, 255).astype(np.uint8), targets


def test_distances_are_those_of_the_package(backbone, images, monkeypatch) -> None:
    import lpips

    monkeypatch.setenv("TORCH_HOME", str(backbone.parents[2]))
    package = lpips.LPIPS(net="alex", verbose=False)  # reads the backbone through torchvision
    with torch.inference_mode():
        # The package's own conversion of one image of bytes.
        theirs = [float(package(*map(lpips.im2tensor, pair))) for pair in zip(*images, strict=True)]
    ours = LpipsNetwork(backbone).distances(*images)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert ours[0] == 0  # no noise
    assert np.corrcoef(ours, np.arange(35))[0, 1] > 0.8


def test_it_is_a_mean_over_pairs_with_the_protocol_in_its_id(backbone, images) -> None:
    network = LpipsNetwork(backbone)
    pairs = pd.DataFrame({"from": [f"{i}_a.jpg" for i in range(35)], "to": [f"{i}_b.jpg" for i in range(35)]})
    metrics, per_pair = evaluate(*images, None, pairs, None, PROTOCOLS["clean"], lpips=network)
    assert metrics["lpips"]["protocol"] == "lpips-alex-png"
    assert metrics["lpips"]["value"] == pytest.approx(network.distances(*images).mean())
    assert metrics["lpips"]["n"] == len(per_pair["lpips"]) == 35
    metrics, per_pair = evaluate(*images, None, pairs, None, PROTOCOLS["clean"], lpips="its weights are not here")
    assert (metrics["lpips"]["value"], metrics["lpips"]["reason"]) == (None, "its weights are not here")
    assert "lpips" not in per_pair


def test_another_file_than_alexnets_is_refused(tmp_path) -> None:
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "no.pth").write_bytes(b"no weights")
    for name in ("other.pth", "no.pth"):
        with pytest.raises(UserError, match="holds no weights of AlexNet"):
            LpipsNetwork(tmp_path / name)
