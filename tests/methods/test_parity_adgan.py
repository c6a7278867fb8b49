"""ADGAN's networks and losses give what the authors' own classes give with the same weights.

ADGAN_CHECKOUT names a copy of github.com/menyifang/ADGAN. Its classes are imported from there and compared on small images. Only
their VGG-19 is a stand-in of the same layers with few channels, because theirs reads a file of the authors' machine.
"""

import functools
import importlib
import os
import types

import numpy as np
import pytest
import torch
from test_parity_patn import (
    SPEED,
    assert_same_gradients,
    copy_weights,
    imported_from,
    random_weights,
    update,
    without_dropout,
)
from torch import nn

from potgan.data.batches import Batch
from potgan.methods.adgan.contextual_loss import contextual_loss
from potgan.methods.adgan.generator import ComponentEncoder, Generator, SampleNorm
from potgan.methods.adgan.options import ADGANOptions
from potgan.methods.registry import build_method
from potgan.methods.residual_discriminator import ResidualDiscriminator
from potgan.methods.vgg import Vgg19

CHECKOUT = os.environ.get("ADGAN_CHECKOUT")
pytestmark = pytest.mark.skipif(not CHECKOUT, reason="ADGAN_CHECKOUT names no checkout of menyifang/ADGAN")
#: Their VGG-19, which they run to its end, needs 32 rows and columns.
SIZE, WIDTH, BATCH = (48, 32), 8, 2


class StandInVgg19(nn.Module):
    """torchvision's VGG-19 in layers and names, with `WIDTH` channels in its first block, and without weights of a file."""

    def __init__(self, **_: object) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for multiple, count in ((1, 2), (2, 2), (4, 4), (8, 4), (8, 4)):
            for _ in range(count):
                layers += [nn.Conv2d(channels, WIDTH * multiple, 3, padding=1), nn.ReLU(inplace=True)]
                channels = WIDTH * multiple
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)

    def load_state_dict(self, *_: object, **__: object) -> None:
        """Keep the weights that it has."""


@pytest.fixture(scope="module")
def theirs() -> types.SimpleNamespace:
    with imported_from(CHECKOUT):
        return types.SimpleNamespace(
            generator=importlib.import_module("models.model_adgen"),
            networks=importlib.import_module("models.networks"),
            contextual=importlib.import_module("losses.CX_style_loss"),
            vgg=importlib.import_module("models.vgg"),
        )


@pytest.fixture
def generators(theirs, monkeypatch) -> tuple[nn.Module, Generator]:
    monkeypatch.setattr(theirs.generator.models, "vgg19", StandInVgg19)
    monkeypatch.setattr(torch, "load", lambda *a, **k: {})
    network = theirs.generator.ADGen(3, WIDTH, 8 * WIDTH, 2, 8, 4 * WIDTH)
    monkeypatch.undo()
    random_weights(network, 1)
    ours = Generator(ADGANOptions(width=WIDTH, texture_width=WIDTH), SIZE)
    ours.component_encoder.scales.fill_(1)  # as with ImageNet's weights, which the authors have
    copy_generator(network, ours)
    return network, ours


def halves(network: nn.Module, ours: Generator) -> list[tuple[nn.Module, nn.Module]]:
    """Their parts and ours that have the same layers, without the decoder's layer norms."""
    encoder, mine = network.enc_style, ours.component_encoder
    convolutions = [layer for layer in encoder.vgg if isinstance(layer, nn.Conv2d)]
    return [
        (nn.Sequential(*convolutions[:9]), mine.network),  # up to conv4_1
        (encoder.conv1, mine.first),
        (nn.Sequential(encoder.conv2, encoder.conv3, encoder.conv4), mine.halving),
        (encoder.model, mine.code),
        (network.enc_content, ours.pose_encoder),
        (network.fc, ours.fusion),
        (network.mlp, ours.styles),
        (of_decoder(network.dec), of_decoder(ours.decoder)),
    ]


def of_decoder(decoder: nn.Module) -> nn.Module:
    return nn.Sequential(*(layer for layer in decoder.modules() if isinstance(layer, nn.Conv2d)))


@torch.no_grad()
def copy_generator(network: nn.Module, ours: Generator) -> None:
    for source, target in halves(network, ours):
        copy_weights(source, target)
    for source, target in zip(*layer_norms(network, ours), strict=True):
        target.scale.copy_(source.gamma)
        target.shift.copy_(source.beta)


def layer_norms(network: nn.Module, ours: Generator) -> tuple[list[nn.Module], list[nn.Module]]:
    """The decoders' layer norms, whose classes differ."""
    norms = [m for m in network.dec.modules() if hasattr(m, "gamma")]
    return norms, [m for m in ours.decoder.modules() if isinstance(m, SampleNorm)]


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(4)
    image = torch.rand(BATCH, 3, *SIZE, generator=draw) * 2 - 1
    classes = torch.randint(0, 8, (BATCH, *SIZE), generator=draw)
    parsing = nn.functional.one_hot(classes, 8).permute(0, 3, 1, 2).float()
    return image, parsing, torch.rand(BATCH, 18, *SIZE, generator=draw)


@pytest.mark.parametrize("training", [True, False])
def test_the_generator_is_theirs(generators, training: bool) -> None:
    network, ours = (net.train(training) for net in generators)
    image, parsing, pose = inputs()
    with torch.no_grad():
        expected, found = network(pose, image, parsing), ours(image, parsing, pose)
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_component_codes_are_theirs(generators) -> None:
    network, ours = generators
    assert isinstance(ours.component_encoder, ComponentEncoder)
    image, parsing, _ = inputs()
    with torch.no_grad():
        expected = network.enc_style(image, parsing).flatten(1)
        torch.testing.assert_close(ours.component_encoder(image, parsing), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [6, 21])
def test_the_discriminators_are_theirs(theirs, channels: int) -> None:
    norm = functools.partial(nn.InstanceNorm2d, affine=False)
    network = theirs.networks.ResnetDiscriminator(channels, WIDTH, norm, n_blocks=3)
    ours = ResidualDiscriminator(channels, WIDTH, "instance", 0.0)
    random_weights(network, 2)
    copy_weights(network, ours)
    images = torch.rand(3, channels, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), network(images), rtol=0, atol=1e-5)


def test_the_contextual_loss_and_its_gradient_are_theirs(theirs) -> None:
    torch.manual_seed(5)
    target = torch.randn(3, 16, 6, 4)
    made = (0.4 * target + torch.randn(3, 16, 6, 4)).requires_grad_()
    again = made.detach().clone().requires_grad_()
    expected, found = theirs.contextual.CXLoss(sigma=0.5)(target, made), contextual_loss(target, again)
    assert expected > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    expected.backward()
    found.backward()
    torch.testing.assert_close(again.grad, made.grad, rtol=1e-3, atol=1e-6)


def test_the_layers_of_the_contextual_loss_are_theirs(theirs) -> None:
    """Their own VGG takes 64 channels, and so does a random one of ours here."""
    network, ours = theirs.vgg.VGG(), Vgg19("random", 64, "relu4_2", normalise=False)
    names = [name for name, _ in network.named_children() if name.startswith("conv")][: len(ours.convolutions)]
    for name, convolution in zip(names, ours.convolutions, strict=True):
        getattr(network, name).load_state_dict(convolution.state_dict())
    image = inputs()[0]
    with torch.no_grad():
        expected, found = network(image, ["r32", "r42"]), ours(image, ["relu3_2", "relu4_2"])
    for theirs_, ours_ in zip(expected, found.values(), strict=True):
        torch.testing.assert_close(ours_, theirs_, rtol=0, atol=1e-5)


def test_a_training_step_is_theirs(monkeypatch) -> None:
    """From the same weights and without dropout: the same losses in three steps, and the same gradients in the first."""
    monkeypatch.syspath_prepend(str(SPEED))
    speed = importlib.import_module("workers")
    cpu = torch.device("cpu")
    settings = speed.paper_settings(SIZE, 3, width=WIDTH, method="adgan", perceptual_width=64, learning_rate=1e-3)
    ours = build_method(settings, cpu)
    ours.networks["generator"].component_encoder.scales.fill_(1)
    with imported_from(CHECKOUT):
        side = speed.build_side("adgan", settings, cpu, checkout=CHECKOUT)
    # At the weights that a training begins with, the style has gradients of rounding's size only.
    trained = [w for w in side.generator.parameters() if w.requires_grad and w.ndim > 1]
    with torch.no_grad():
        for weight in trained:
            weight.mul_(3)
    copy_generator(side.generator, ours.generator)
    judges = {"appearance_discriminator": side.by_person, "shape_discriminator": side.by_pose}
    for name, judge in judges.items():
        copy_weights(judge, ours.judges[name])
    copy_weights(side.image_loss.vgg_submodel, ours.perceptual)
    of_vgg = [layer for name, layer in side.vgg.named_children() if name.startswith("conv")]
    copy_weights(nn.Sequential(*of_vgg[: len(ours.contextual.convolutions)]), ours.contextual)
    for network in (*judges.values(), *ours.networks.values()):
        without_dropout(network)
    (source, target), (_, pose) = side.images, side.poses
    batch = Batch(source, None, target, None, None, pose, source_parsing=side.parsing)
    for number in range(3):
        side.run(1)
        terms = update(ours, batch, number)
        found = [terms["reconstruction"], terms["perceptual"], 5 * terms["adversarial"], 0.1 * terms["contextual"]]
        found += [5 * terms["appearance_discriminator"], 5 * terms["shape_discriminator"]]
        np.testing.assert_allclose(found, side.told, rtol=1e-4 if number == 0 else 2e-2)
        if number == 0:
            for theirs_, ours_ in halves(side.generator, ours.generator):
                assert_same_gradients(theirs_, ours_, near=1e-2)
            for source_, target_ in zip(*layer_norms(side.generator, ours.generator), strict=True):
                torch.testing.assert_close(target_.scale.grad, source_.gamma.grad, rtol=1e-2, atol=1e-6)
            for name, judge in judges.items():
                assert_same_gradients(judge, ours.judges[name], near=5e-3)
