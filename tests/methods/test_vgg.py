"""Tests of VGG-19 as a network of features."""

import pytest
import torch
from torchvision.models import vgg19

from potgan.common import weights
from potgan.methods import vgg
from potgan.methods.vgg import Vgg19


def test_features_are_torchvisions_after_the_relus(tmp_path, monkeypatch) -> None:
    """A whole VGG-19 with random weights stands in for the published file."""
    torch.manual_seed(0)
    reference = vgg19(weights=None).eval()
    torch.save(reference.state_dict(), tmp_path / "vgg19.pth")
    monkeypatch.setattr(vgg, "weight_file", lambda name: tmp_path / "vgg19.pth" if name == "vgg19" else None)
    images = torch.rand(2, 3, 64, 32) * 2 - 1
    ours = Vgg19("vgg16", 8, "relu5_2", normalise=False)(images, ["relu5_2", "relu1_1", "relu3_4"])
    # The places of these ReLUs in torchvision's `features`: two convolutions, a pooling, and so on.
    for name, place in (("relu1_1", 1), ("relu3_4", 17), ("relu5_2", 31)):
        assert isinstance(reference.features[place], torch.nn.ReLU)
        with torch.no_grad():
            torch.testing.assert_close(ours[name], reference.features[: place + 1](images), rtol=1e-4, atol=1e-6)


def test_normalisation_is_imagenets() -> None:
    """An image of ImageNet's mean colour becomes zeros, so that only biases speak; random ones have none."""
    grey = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1).expand(1, 3, 8, 8) * 2 - 1
    found = Vgg19("random", 4, "relu1_2")(grey, ["relu1_2"])["relu1_2"]
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-6)


def test_a_random_network_is_the_same_each_time_and_of_its_width() -> None:
    first, again = (Vgg19("random", 4, "relu2_1") for _ in range(2))
    assert first.weights_sha256() == again.weights_sha256()
    assert [layer.out_channels for layer in first.convolutions] == [4, 4, 8]
    assert not any(parameter.requires_grad for parameter in first.parameters())
    assert not first.train().training


def test_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="no layer 'relu6_1'"):
        Vgg19("random", 4, "relu6_1")
    with pytest.raises(ValueError, match=r"ends at relu1_2 and has no relu2_1"):
        Vgg19("random", 4, "relu1_2")(torch.zeros(1, 3, 8, 8), ["relu2_1"])


def test_the_published_file_is_known_by_the_digits_of_its_name() -> None:
    file = weights.WEIGHTS["vgg19"]
    assert file.sha256 in file.file_name
    assert file.checksum == "sha256-prefix:dcbb9e9d"
