"""PATN's networks and losses give what the authors' own classes give with the same weights.

PATN_CHECKOUT names a copy of github.com/tengteng95/Pose-Transfer. Its classes are imported from there and compared on images of
the smallest size that they take.
"""

import contextlib
import functools
import importlib
import os
import random
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from potgan.data.batches import Batch
from potgan.methods.image_pool import ImagePool
from potgan.methods.method import Method
from potgan.methods.patn.generator import Generator
from potgan.methods.patn.options import PATNOptions
from potgan.methods.registry import build_method
from potgan.methods.residual_discriminator import ResidualDiscriminator, adversarial_loss

CHECKOUT = os.environ.get("PATN_CHECKOUT")
pytestmark = pytest.mark.skipif(not CHECKOUT, reason="PATN_CHECKOUT names no checkout of tengteng95/Pose-Transfer")
SIZE, WIDTH = (32, 16), 8
SPEED = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "speed"


@contextlib.contextmanager
def imported_from(checkout: str) -> Iterator[None]:
    """Put a checkout before all other places of modules, and forget its modules afterwards: their names are common ones."""
    before = set(sys.modules)
    sys.path.insert(0, str(Path(checkout)))
    try:
        yield
    finally:
        sys.path.remove(str(Path(checkout)))
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("models", "util", "losses"):
                del sys.modules[name]


def weighted(network: nn.Module) -> list[nn.Module]:
    """The layers with weights of their own, in the order in which they were made."""
    return [layer for layer in network.modules() if any(True for _ in layer.parameters(recurse=False))]


@torch.no_grad()
def copy_weights(theirs: nn.Module, ours: nn.Module) -> None:
    """Copy weights layer by layer. A convolution of one kind is never filled from another, nor one that lacks a bias."""
    for source, target in zip(weighted(theirs), weighted(ours), strict=True):
        assert type(source) is type(target) or {type(source), type(target)} == {nn.Conv2d, nn.Linear}
        values = dict(source.named_parameters(recurse=False))
        assert values.keys() == dict(target.named_parameters(recurse=False)).keys()
        for name, value in target.named_parameters(recurse=False):
            value.copy_(values[name].view_as(value))


@torch.no_grad()
def random_weights(network: nn.Module, seed: int) -> None:
    """Weights with which no layer is nearly idle, so that each of them shows in the result."""
    torch.manual_seed(seed)
    for weight in network.parameters():
        deviation = (2 / weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.3
        weight.copy_(torch.randn(weight.shape) * deviation + (weight.ndim == 1) * 0.5)


@pytest.fixture(scope="module")
def theirs() -> types.SimpleNamespace:
    with imported_from(CHECKOUT):
        return types.SimpleNamespace(
            variants=importlib.import_module("models.model_variants"),
            networks=importlib.import_module("models.networks"),
            pool=importlib.import_module("util.image_pool"),
        )


def without_dropout(network: nn.Module) -> None:
    for layer in network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0


def assert_same_gradients(theirs: nn.Module, ours: nn.Module, near: float = 1e-3) -> None:
    """Check that the gradients of each layer that is trained are equal, apart from a share `near` of the layer's largest one.

    The layer's, because the gradient of a bias before an instance norm is nothing but rounding.
    """
    for a, b in zip(weighted(theirs), weighted(ours), strict=True):
        expected = {name: weight.grad for name, weight in a.named_parameters(recurse=False) if weight.requires_grad}
        found = {name: weight.grad for name, weight in b.named_parameters(recurse=False) if weight.requires_grad}
        assert expected.keys() == found.keys()
        largest = max((gradient.abs().max() for gradient in expected.values()), default=0)
        for name, gradient in expected.items():
            assert (found[name] - gradient.view_as(found[name])).abs().max() <= near * largest, (b, name)


def norm_layer(kind: str) -> functools.partial:
    return (
        functools.partial(nn.BatchNorm2d, affine=True)
        if kind == "batch"
        else functools.partial(nn.InstanceNorm2d, affine=False)
    )


@pytest.mark.parametrize("kind", ["batch", "instance"])
@pytest.mark.parametrize("training", [True, False])
def test_the_generator_is_theirs(theirs, kind: str, training: bool) -> None:
    network = theirs.variants.PATNetwork([3, 36], 3, WIDTH, norm_layer(kind), use_dropout=not training, n_blocks=9)
    ours = Generator(PATNOptions(width=WIDTH, normalization=kind, dropout=0.0 if training else 0.5), SIZE)
    random_weights(network, 1)
    copy_weights(network, ours)
    network.train(training)
    ours.train(training)
    image, source, target = (torch.rand(2, channels, *SIZE) for channels in (3, 18, 18))
    with torch.no_grad():
        expected = network([image * 2 - 1, torch.cat((source, target), 1)])
        found = ours(image * 2 - 1, source, target)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["batch", "instance"])
@pytest.mark.parametrize("inputs", [6, 21])
def test_the_discriminators_are_theirs(theirs, kind: str, inputs: int) -> None:
    network = theirs.networks.ResnetDiscriminator(inputs, WIDTH, norm_layer(kind), n_blocks=3, use_sigmoid=True)
    ours = ResidualDiscriminator(inputs, WIDTH, kind, 0.0)
    random_weights(network, 2)
    copy_weights(network, ours)
    images = torch.rand(3, inputs, *SIZE)
    with torch.no_grad():
        expected, found = network(images), ours(images)
        torch.testing.assert_close(found.sigmoid(), expected, rtol=0, atol=1e-5)
        for real in (True, False):
            loss = theirs.networks.GANLoss(use_lsgan=False)(expected.clamp(1e-6, 1 - 1e-6), real)
            assert adversarial_loss(found, real, "cross-entropy").item() == pytest.approx(loss.item(), abs=1e-3)


def test_the_pool_is_theirs_where_chance_is_the_same(theirs, monkeypatch) -> None:
    """Both pools are given the same draws, and show the same images, which are told apart by their number."""
    size, batch = 5, 4
    ours, pool = ImagePool(size, (1, 1, 1)), theirs.pool.ImagePool(size)
    chance = random.Random(3)
    for number in range(12):
        images = torch.arange(batch, dtype=torch.float32).view(-1, 1, 1, 1) + number * batch
        places, coins = [chance.randrange(size) for _ in range(batch)], [chance.random() for _ in range(batch)]
        first = max(0, min(batch, size - number * batch))  # those before it fill the pool and draw nothing
        draws = iter([draw for i in range(first, batch) for draw in (coins[i], places[i])])
        monkeypatch.setattr(theirs.pool.random, "uniform", lambda low, high, draws=draws: remembered(draws))
        monkeypatch.setattr(theirs.pool.random, "randint", lambda low, high: remembered.place)
        monkeypatch.setattr(torch, "randint", lambda *a, drawn=places, **k: torch.tensor(drawn))
        monkeypatch.setattr(torch, "rand", lambda *a, drawn=coins, **k: torch.tensor(drawn))
        assert ours(images).flatten().tolist() == pool.query(images).flatten().tolist()
        assert ours.images.flatten().tolist()[: len(pool.images)] == [image.item() for image in pool.images]


def remembered(draws: Iterator) -> float:
    """Take the coin and the place of the next image. Their code asks for a place only if the coin says so."""
    coin, remembered.place = next(draws), next(draws)
    return coin


@pytest.fixture
def speed(monkeypatch) -> types.ModuleType:
    """The module of benchmarks/speed that drives the authors' code."""
    monkeypatch.syspath_prepend(str(SPEED))
    return importlib.import_module("workers")


def test_a_training_step_is_theirs(speed) -> None:
    """From the same weights and without dropout: the same losses in three steps, and the same gradients in the first."""
    settings = speed.paper_settings(SIZE, 4, width=WIDTH, method="patn", perceptual_width=64)
    ours = build_method(settings, torch.device("cpu"))
    with imported_from(CHECKOUT):
        theirs = speed.build_side("patn", settings, torch.device("cpu"), checkout=CHECKOUT)
    copy_weights(theirs.generator, ours.generator)
    judges = {"appearance_discriminator": theirs.by_person, "shape_discriminator": theirs.by_pose}
    for name, judge in judges.items():
        copy_weights(judge, ours.judges[name])
    copy_weights(theirs.image_loss.vgg_submodel, ours.perceptual)
    for network in (theirs.generator, *judges.values(), *ours.networks.values()):
        without_dropout(network)
    (source, target), (source_pose, target_pose) = theirs.images, theirs.poses
    batch = Batch(source, None, target, None, source_pose, target_pose)
    for number in range(3):
        theirs.run(1)
        first, second, _, adversarial, by_person, by_pose = theirs.told
        terms = update(ours, batch, number)
        found = [10 * terms["reconstruction"], 10 * terms["perceptual"], 5 * terms["adversarial"]]
        found += [5 * terms["appearance_discriminator"], 5 * terms["shape_discriminator"]]
        np.testing.assert_allclose(
            found, [first, second, adversarial, by_person, by_pose], rtol=1e-4 if number == 0 else 2e-2
        )
        if number == 0:
            assert_same_gradients(theirs.generator, ours.generator)
            for name, judge in judges.items():
                assert_same_gradients(judge, ours.judges[name], near=5e-3)


def update(method: Method, batch: Batch, iteration: int) -> dict[str, float]:
    return {name: value.item() for name, value in method.update([batch], iteration).items()}
