"""PATN: sizes as its authors' networks have them, attention, the schedule, and the updates."""

import dataclasses

import numpy as np
import pytest
import torch
from test_loop import SETTINGS, dots
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from potgan.data.batches import Batch
from potgan.methods.method import Method
from potgan.methods.patn.generator import AttentionBlock, Generator
from potgan.methods.patn.method import PATN
from potgan.methods.patn.options import PATNOptions
from potgan.methods.registry import build_method
from potgan.methods.residual_discriminator import (
    AgainstTwoDiscriminators,
    ResidualDiscriminator,
    adversarial_loss,
    discriminators,
)
from potgan.settings.schema import RunSettings

CPU = torch.device("cpu")
SMALL = PATNOptions(width=4, blocks=3, pool=6)


def parameters(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def multiply_adds(network: nn.Module, *shapes: tuple[int, ...]) -> float:
    """Of one pass over inputs of these shapes, on the network's device, in thousand millions."""
    device = next(network.parameters()).device
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*(torch.empty(1, *shape, device=device) for shape in shapes))
    return counter.get_total_flops() / 2 / 1e9


def settings_of(options: PATNOptions, **training: object) -> RunSettings:
    training = {"learning_rate": 2e-4, "perceptual_width": 8} | training
    return dataclasses.replace(
        SETTINGS, method="patn", options=options, training=dataclasses.replace(SETTINGS.training, **training)
    )


def batch_of(method: Method, positions: range = range(4)) -> Batch:
    return dots().batch(np.array(positions), CPU, method.needs)


@pytest.mark.parametrize(
    ("norm", "counts"),
    [
        ("batch", (378_944, 482_432, 40_125_952, 378_435, 41_365_763)),
        ("instance", (378_496, 481_984, 40_119_296, 378_243, 41_358_019)),
    ],
)
def test_the_generator_has_the_published_size(norm: str, counts: tuple[int, ...]) -> None:
    with torch.device("meta"):
        network = Generator(PATNOptions(normalization=norm), (128, 64))
    parts = (network.image_encoder, network.pose_encoder, network.blocks, network.decoder, network)
    assert tuple(map(parameters, parts)) == counts
    if norm == "batch":
        assert list(map(parameters, network.blocks)) == [2_360_832] + 8 * [4_720_640]


@pytest.mark.parametrize(("norm", "counts"), [("batch", (3_930_368, 3_977_408)), ("instance", (3_928_384, 3_975_424))])
def test_the_discriminators_have_the_published_sizes(norm: str, counts: tuple[int, ...]) -> None:
    with torch.device("meta"):
        networks = discriminators(64, norm, 0.5)
    assert tuple(map(parameters, networks.values())) == counts


@pytest.mark.parametrize(
    ("size", "generator", "appearance", "shape"),
    [
        ((128, 64), 22.520, 2.268, 2.653),
        ((256, 256), 180.162, 18.145, 21.227),
        ((256, 176), 123.861, 12.474, 14.594),
    ],
)
def test_a_pass_is_the_published_arithmetic(size, generator: float, appearance: float, shape: float) -> None:
    with torch.device("meta"):
        network, judges = Generator(PATNOptions(), size), discriminators(64, "batch", 0.5)
    assert multiply_adds(network.eval(), (3, *size), (18, *size), (18, *size)) == pytest.approx(generator, abs=6e-4)
    found = [multiply_adds(judge, (judge.inputs, *size)) for judge in judges.values()]
    assert found == pytest.approx([appearance, shape], abs=6e-4)


def test_a_discriminator_gives_a_map_of_256_channels_whose_places_see_61_pixels() -> None:
    with torch.device("meta"):
        judge = ResidualDiscriminator(21, 64, "batch", 0.5)
        assert judge(torch.empty(2, 21, 128, 64)).shape == (2, 256, 32, 16)
    judge = ResidualDiscriminator(6, 3, "batch", 0.5).eval()
    image = torch.rand(1, 6, 128, 128, requires_grad=True)
    judge(image)[:, :, 16, 16].sum().backward()
    for axis in (2, 3):
        seen = image.grad.abs().sum([d for d in range(4) if d != axis]).nonzero().flatten()
        assert seen[-1] - seen[0] + 1 == 61


def test_without_weights_the_attention_is_one_half_everywhere() -> None:
    block = AttentionBlock(6, 12, "batch", 0.5).eval()
    last = block.pose_path[-1]
    nn.init.zeros_(last.weight)
    image_code, pose_code = torch.randn(2, 6, 8, 4), torch.randn(2, 12, 8, 4)
    new_image, new_pose = block(image_code, pose_code)
    torch.testing.assert_close(new_image, image_code + 0.5 * block.image_path(image_code))
    # The pose code is the pose path before the sigmoid, which is 0 here, and the new image code.
    assert torch.equal(new_pose, torch.cat((torch.zeros(2, 6, 8, 4), new_image), 1))


def test_adversarial_losses_of_what_says_nothing() -> None:
    nothing = torch.zeros(2, 3, 4, 4)
    for real in (True, False):
        assert adversarial_loss(nothing, real, "cross-entropy").item() == pytest.approx(np.log(2))
    assert adversarial_loss(nothing, True, "least-squares").item() == 1
    assert adversarial_loss(nothing, False, "least-squares").item() == 0
    # A logit of 200 is sure, and its loss stays finite if it is wrong.
    assert adversarial_loss(nothing + 200, False, "cross-entropy").item() == pytest.approx(200)


def test_the_rate_is_constant_for_five_sevenths_and_then_falls_linearly() -> None:
    method = build_method(settings_of(SMALL, iterations=700), CPU)
    rates = np.array([method.learning_rate(i) for i in range(700)]) / 2e-4
    assert (rates[:501] == 1).all()
    np.testing.assert_allclose(rates[[600, 650, 699]], [0.5, 0.25, 1 / 200])
    method.set_rates(600)
    assert {group["lr"] for o in method.optimizers.values() for group in o.param_groups} == {1e-4}


def test_initial_weights_are_the_authors() -> None:
    torch.manual_seed(0)
    network = Generator(PATNOptions(width=16), (32, 32))
    weights = torch.cat(
        [m.weight.flatten() for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    )
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)
    norms = torch.cat([m.weight for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
    assert norms.mean().item() == pytest.approx(1, abs=0.005)
    assert norms.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_every_weight_is_reached_by_one_update(norm: str) -> None:
    method = build_method(settings_of(dataclasses.replace(SMALL, normalization=norm)), CPU)
    method.update([batch_of(method)], 0)
    for network in method.networks.values():
        for name, weight in network.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name
            # An instance norm takes away what the bias before it adds.
            if norm == "batch" or not name.endswith("bias"):
                assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_a_step_makes_its_images_once_and_both_discriminators_are_shown_them(monkeypatch, norm: str) -> None:
    options = dataclasses.replace(SMALL, pool=0, normalization=norm)
    method = build_method(settings_of(options), CPU)
    made: list[torch.Tensor] = []
    method.generator.register_forward_hook(lambda module, inputs, output: made.append(output.detach()))
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in method.judges}
    for name, judge in method.judges.items():
        judge.register_forward_hook(lambda module, inputs, output, name=name: seen[name].append(inputs[0].detach()))
    batch = batch_of(method)
    method.update([batch], 0)
    (fake,) = made
    beside = {"appearance_discriminator": batch.source_image, "shape_discriminator": batch.target_heatmaps}
    for name, passes in seen.items():
        for_generator, *rest = passes
        real, shown = rest if norm == "batch" else rest[0].chunk(2)
        for images, expected in ((for_generator, fake), (real, batch.target_image), (shown, fake)):
            assert torch.equal(images[:, :3], expected)
            assert torch.equal(images[:, 3:], beside[name])


def test_the_pools_are_filled_by_the_updates_and_are_a_part_of_the_state() -> None:
    method = build_method(settings_of(SMALL), CPU)
    for iteration in range(3):
        method.update([batch_of(method)], iteration)
    state = method.state_dict()
    for name in ("appearance_discriminator", "shape_discriminator"):
        pool = state[f"{name}_pool"]
        assert pool["filled"].item() == 6
        assert pool["images"].abs().flatten(1).sum(1).min() > 0
    assert not any(
        name.endswith("pool") for name in build_method(settings_of(PATNOptions(width=4, pool=0)), CPU).stateful()
    )


@pytest.mark.parametrize("kind", ["cross-entropy", "least-squares"])
def test_losses_are_weighted_as_the_authors_do(kind: str) -> None:
    """With a rate of almost 0 the terms of an update say what its loss was."""
    options = dataclasses.replace(
        SMALL, reconstruction=3.0, perceptual=2.0, adversarial=4.0, dropout=0.0, adversarial_kind=kind
    )
    method = build_method(settings_of(options), CPU)
    minimised: dict[str, torch.Tensor] = {}
    descend = AgainstTwoDiscriminators.descend

    def watched(name, parts, loss_of):
        def noted(number, part):
            minimised[name], terms = loss_of(number, part)
            return minimised[name], terms

        return descend(method, name, parts, noted)

    method.descend = watched
    terms = method.update([batch_of(method)], 0)
    expected = 3 * terms["reconstruction"] + 2 * terms["perceptual"] + 4 * terms["adversarial"]
    torch.testing.assert_close(minimised["generator"].detach(), expected)
    for name in ("appearance_discriminator", "shape_discriminator"):
        torch.testing.assert_close(minimised[name].detach(), 4 * terms[name])


@pytest.mark.parametrize("size", [(32, 32), (128, 64), (64, 48)])
def test_missing_joints_leave_everything_finite(size: tuple[int, int]) -> None:
    method = build_method(dataclasses.replace(settings_of(SMALL), image_size=size), CPU)
    data = dots()
    data.joints[:, ::2] = float("nan")
    data.joints[1] = float("nan")
    images = torch.randint(0, 256, (6, 3, *size), dtype=torch.uint8)
    data = dataclasses.replace(data, images=images)
    terms = method.update([data.batch(np.arange(4), CPU, method.needs)], 0)
    assert all(value.isfinite() for value in terms.values())
    assert all(w.isfinite().all() for network in method.networks.values() for w in network.parameters())


def test_it_learns_four_pairs() -> None:
    """From smooth images, because noise cannot be learnt by heart in so few steps."""
    options = PATNOptions(width=8, blocks=2, dropout=0.0, normalization="instance", pool=4, adversarial=0.5)
    method = build_method(settings_of(options, learning_rate=4e-3, iterations=1000), CPU)
    batch = batch_of(method)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    batch.target_image = torch.stack([torch.stack((x, y, x * y * (number - 2))) for number in range(4)]).clamp(-1, 1)
    losses = [method.update([batch], iteration)["reconstruction"].item() for iteration in range(24)]
    assert np.mean(losses[-3:]) < 0.5 * losses[0]


def test_bf16_runs_and_stays_near_fp32() -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        method = build_method(settings_of(SMALL, precision=precision), CPU)
        found[precision] = method.update([batch_of(method)], 0)
        assert all(pool.images.dtype == torch.float32 for pool in method.pools.values())
    for name, value in found["fp32"].items():
        assert found["bf16"][name].item() == pytest.approx(value.item(), rel=0.05), name
        assert found["bf16"][name].item() != value.item(), name


def test_its_parts_are_exact_only_without_chance_and_batch_statistics() -> None:
    for norm, dropout, exact in (("batch", 0.0, False), ("instance", 0.5, False), ("instance", 0.0, True)):
        options = dataclasses.replace(SMALL, normalization=norm, dropout=dropout)
        assert PATN(settings_of(options), CPU).exact_in_parts is exact


def test_parts_see_the_pool_of_the_whole_batch() -> None:
    """After the pool is full, too, a batch in parts gives the losses of the whole one."""
    options = dataclasses.replace(SMALL, normalization="instance", dropout=0.0, pool=3)
    whole, apart = (build_method(settings_of(options), CPU) for _ in range(2))
    for iteration in range(3):
        ours = whole.update([batch_of(whole)], iteration)
        theirs = apart.update([batch_of(apart, range(2)), batch_of(apart, range(2, 4))], iteration)
        for name, value in ours.items():
            torch.testing.assert_close(theirs[name], value, rtol=2e-3, atol=1e-5)
