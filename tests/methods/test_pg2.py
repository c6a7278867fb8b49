"""Tests of PG2, and of the blocks that it shares with DPIG.

The numbers of parameters and multiply-adds were counted from the authors' layers, by hand and not by this code.
"""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_loop import SETTINGS, dots, equal
from torch.utils.flop_counter import FlopCounterMode

from potgan.data.batches import Batch
from potgan.methods.compared import cross_entropy
from potgan.methods.dcgan_discriminator import DCGANDiscriminator
from potgan.methods.disc_maps import disc_maps
from potgan.methods.pg2.generator import PG2Generator
from potgan.methods.pg2.method import PG2, masked_l1
from potgan.methods.pg2.options import PG2Options
from potgan.methods.residual_unet import ResidualBlock, size_at
from potgan.settings.schema import RunSettings

CPU, META = torch.device("cpu"), torch.device("meta")
SMALL, LARGE = (128, 64), (256, 256)


def settings(size: tuple[int, int] = (32, 32), options: PG2Options | None = None, **training) -> RunSettings:
    return dataclasses.replace(
        SETTINGS,
        method="pg2",
        image_size=size,
        options=options or PG2Options(width=8, discriminator_width=8),
        training=dataclasses.replace(SETTINGS.training, **training),
    )


def pairs(count: int = 4, size: tuple[int, int] = (32, 32), seed: int = 5) -> Batch:
    """Return smooth images, masks of the left half, and random joints of which one is missing."""
    g = torch.Generator().manual_seed(seed)

    def images() -> torch.Tensor:
        coarse = torch.rand(count, 3, 4, 4, generator=g) * 2 - 1
        return F.interpolate(coarse, size=size, mode="bilinear")

    def joints() -> torch.Tensor:
        places = torch.rand(count, 18, 2, generator=g) * torch.tensor([size[1] - 1.0, size[0] - 1.0])
        places[:, 3] = torch.nan
        return places

    mask = (torch.arange(size[1]) < size[1] // 2).float().expand(count, 1, *size)
    return Batch(
        source_image=images(),
        target_image=images(),
        source_mask=mask,
        target_mask=mask,
        source_joints=joints(),
        target_joints=joints(),
    )


def parameters(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def multiply_adds(run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2


# ---------------------------------------------------------------------------------------------------------------------
# Heat maps


def test_a_disc_has_49_pixels_and_a_missing_joint_none() -> None:
    joints = torch.tensor([[[20.0, 30.0], [torch.nan, torch.nan], [0.0, 0.0], [20.9, 30.9], [66.0, 30.0]]])
    maps = disc_maps(joints, 128, 64)
    assert maps.shape == (1, 5, 128, 64)
    assert set(maps.unique().tolist()) == {-1.0, 1.0}
    # Of the 49 pixels a corner keeps a quarter with both edges; beyond an edge by three pixels the outermost two columns remain.
    assert (maps > 0).sum((2, 3)).tolist() == [[49, 0, 17, 49, 5 + 1]]
    assert maps[0, 0, 30, 24] == maps[0, 0, 26, 20] == maps[0, 0, 32, 23] == 1  # (column 24, row 30) is 4 away
    assert maps[0, 0, 30, 25] == maps[0, 0, 33, 23] == -1
    assert torch.equal(maps[0, 3], maps[0, 0])  # truncated to whole pixels


# ---------------------------------------------------------------------------------------------------------------------
# Networks


def test_parameters_are_those_of_the_authors_networks() -> None:
    counts = {}
    for size in (SMALL, LARGE):
        with META:
            generator, discriminator = PG2Generator(PG2Options(), size), DCGANDiscriminator(size, 64)
        coarse = generator.coarse
        encoder = parameters(coarse.first) + parameters(coarse.encoder)
        linear = parameters(coarse.to_bottleneck) + parameters(coarse.from_bottleneck)
        decoder = parameters(coarse.blocks) + parameters(coarse.steps_up) + parameters(coarse.last)
        counts[size] = (encoder, linear, decoder, parameters(generator.refinement), parameters(discriminator))
    assert counts[SMALL] == (22_148_352, 1_577_024, 47_069_699, 6_058_883, 4_324_737)
    assert counts[LARGE] == (37_191_168, 3_678_272, 81_233_795, 12_696_067, 10_896_257)
    # The table of 2s-ATN prints 437.09 M for DeepFashion: all weights, with Adam's two averages of each.
    assert round(3 * sum(counts[LARGE]) / 1e6, 2) == 437.09


@pytest.mark.parametrize(
    ("size", "coarse", "refinement", "discriminator"),
    [(SMALL, 37.375, 10.202, 0.324), (LARGE, 306.1, 97.0, 3.015)],
)
def test_multiply_adds_are_those_of_the_authors_networks(size, coarse, refinement, discriminator) -> None:
    with META:
        generator, judge = PG2Generator(PG2Options(), size), DCGANDiscriminator(size, 64)
        image, joints = torch.zeros(1, 3, *size), torch.zeros(1, 18, 2)
    first = multiply_adds(lambda: generator(image, joints, refine=False)) / 1e9
    both = multiply_adds(lambda: generator(image, joints)) / 1e9
    assert first == pytest.approx(coarse, abs=0.05 if size == LARGE else 5e-4)
    assert both - first == pytest.approx(refinement, abs=0.05 if size == LARGE else 5e-4)
    assert multiply_adds(lambda: judge(image)) / 1e9 == pytest.approx(discriminator, abs=5e-4)


@pytest.mark.parametrize(
    ("size", "skips", "judged"),
    [
        (
            SMALL,
            [(128, 128, 64), (256, 64, 32), (384, 32, 16), (512, 16, 8), (640, 8, 4)],
            [(64, 64, 32), (128, 32, 16), (256, 16, 8), (512, 8, 4)],
        ),
        (
            LARGE,
            [(128, 256, 256), (256, 128, 128), (384, 64, 64), (512, 32, 32), (640, 16, 16), (768, 8, 8)],
            [(64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16), (512, 8, 8)],
        ),
    ],
)
def test_the_maps_of_all_levels_have_the_authors_shapes(size, skips, judged) -> None:
    with META:
        generator, judge = PG2Generator(PG2Options(), size), DCGANDiscriminator(size, 64)
        maps = generator.coarse.encoder(torch.zeros(1, 128, *size))
        x, shapes = torch.zeros(1, 3, *size), []
        for layer in judge.convolutions:
            x = layer(x)
            if isinstance(layer, torch.nn.Conv2d):
                shapes.append(tuple(x.shape[1:]))
    assert [tuple(m.shape[1:]) for m in maps] == skips
    assert shapes == judged
    assert size_at(len(skips), size) == skips[-1][1:]


@pytest.mark.parametrize("size", [(32, 32), (128, 64), (256, 176), (256, 256)])
def test_an_image_has_its_size_and_does_not_depend_on_the_batch(size) -> None:
    torch.manual_seed(0)
    generator = PG2Generator(PG2Options(width=2), size).eval()
    torch.nn.init.normal_(generator.refinement.last.weight)
    batch = pairs(2, size)
    with torch.no_grad():
        image = generator.synthesise(batch).image
        alone = [
            generator.synthesise(
                Batch(source_image=batch.source_image[i : i + 1], target_joints=batch.target_joints[i : i + 1])
            ).image
            for i in range(2)
        ]
    assert image.shape == (2, 3, *size)
    assert image.isfinite().all()
    assert image.abs().max() <= 1
    torch.testing.assert_close(image, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_a_residual_block_without_weights_is_the_identity() -> None:
    block = ResidualBlock(3)
    torch.nn.init.zeros_(block.convolutions[1][0].weight)
    torch.nn.init.zeros_(block.convolutions[1][0].bias)
    x = torch.randn(1, 3, 5, 4)
    assert torch.equal(block(x), x)  # negative values too, because no ReLU follows the sum


def test_the_difference_map_is_zero_at_first_so_that_the_image_is_the_coarse_one() -> None:
    generator = PG2Generator(PG2Options(width=4), (32, 32))
    batch = pairs()
    coarse, refined = generator(batch.source_image, batch.target_joints)
    assert torch.equal(refined, coarse)
    torch.nn.init.normal_(generator.refinement.last.weight)
    coarse, refined = generator(batch.source_image, batch.target_joints)
    assert not torch.equal(refined, coarse)
    difference = generator.refinement(torch.cat([coarse, batch.source_image], 1))
    torch.testing.assert_close(refined, coarse + difference)


def test_only_the_large_refinement_has_a_skip_at_full_size() -> None:
    """The channels that each level of the decoder reads, deepest first, as in the authors' models.py and models256.py."""
    reads = {}
    for size in (SMALL, LARGE):
        with META:
            refinement = PG2Generator(PG2Options(), size).refinement
        reads[size] = [level[0][0].in_channels for level in refinement.decoder]
    assert reads == {SMALL: [768, 384, 128], LARGE: [1024, 512, 384, 256]}


def test_the_image_depends_on_the_target_pose_and_not_on_the_source_pose() -> None:
    torch.manual_seed(0)
    generator = PG2Generator(PG2Options(width=4), (32, 32)).eval()
    batch = pairs()
    image = generator.synthesise(batch).image
    assert torch.equal(generator.synthesise(dataclasses.replace(batch, source_joints=None)).image, image)
    other = dataclasses.replace(batch, target_joints=batch.target_joints.flip(0))
    assert not torch.equal(generator.synthesise(other).image, image)


def test_the_discriminator_starts_uniform_with_the_deviation_of_0_02() -> None:
    torch.manual_seed(0)
    judge = DCGANDiscriminator((32, 32), 32)
    weight = judge.convolutions[2].weight
    assert weight.abs().max() <= 0.02 * 3**0.5
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert judge.logit.bias.item() == 0


def test_the_discriminator_takes_its_statistics_from_the_batch_in_eval_mode_too() -> None:
    judge = DCGANDiscriminator((32, 32), 8).eval()
    images = pairs().source_image
    together, alone = judge(images), judge(images[:2])
    assert together.shape == (4,)
    assert not torch.allclose(together[:2], alone, rtol=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# Losses and stages


def test_the_masked_l1_counts_twice_inside_the_mask() -> None:
    made, target = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    plain = (made - target).abs().mean()
    torch.testing.assert_close(masked_l1(made, target, torch.ones(2, 1, 4, 4)), 2 * plain)
    torch.testing.assert_close(masked_l1(made, target, torch.zeros(2, 1, 4, 4)), plain)
    # One of four pixels is inside: differences of 1 there and of 3 elsewhere give 10/4 + 1/4. A grey level counts as 1.
    made = torch.tensor([[1.0, 3.0], [3.0, 3.0]]).expand(1, 3, 2, 2)
    mask = torch.tensor([[0.3, 0.0], [0.0, 0.0]]).expand(1, 1, 2, 2)
    assert masked_l1(made, torch.zeros(1, 3, 2, 2), mask).item() == pytest.approx(2.75)


def test_cross_entropy_is_that_of_the_logits() -> None:
    logits = torch.tensor([-30.0, -1.0, 0.0, 2.0])
    for real in (True, False):
        expected = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
        torch.testing.assert_close(cross_entropy(logits, real), expected)


def test_the_stages_are_22_to_14_as_in_the_paper() -> None:
    method = PG2(settings(iterations=36), CPU)
    assert [method.phase(i) for i in range(36)] == 22 * [0] + 14 * [1]


def test_a_stage_trains_its_own_networks_and_leaves_the_others() -> None:
    method = PG2(settings(iterations=36), CPU)
    batch = pairs()

    def changed(iterations) -> set[str]:
        before = copy.deepcopy({name: network.state_dict() for name, network in method.networks.items()})
        for iteration in iterations:
            losses.append(set(method.update([batch], iteration)))
        return {
            name.split(".")[0] if network == "generator" else network
            for network, state in before.items()
            for name, value in state.items()
            if not torch.equal(value, method.networks[network].state_dict()[name])
        }

    losses: list[set[str]] = []
    assert changed(range(3)) == {"coarse"}
    assert changed(range(22, 25)) == {"refinement", "discriminator"}
    assert losses == 3 * [{"reconstruction"}] + 3 * [{"reconstruction", "adversarial", "discriminator"}]


def test_every_weight_is_trained_in_one_of_the_stages() -> None:
    method = PG2(settings(iterations=36, learning_rate=1e-2), CPU)
    before = copy.deepcopy({name: dict(network.named_parameters()) for name, network in method.networks.items()})
    for iteration in (0, 1, 22, 23):
        method.update([pairs()], iteration)
    for network, weights in before.items():
        for name, weight in weights.items():
            # The batch statistics remove the bias of the convolution before them.
            if network == "discriminator" and name.endswith("bias") and weight.shape == (weight.numel(),):
                continue
            assert not torch.equal(weight, method.networks[network].get_parameter(name)), f"{network} {name}"


@pytest.mark.parametrize("size", [(32, 32), (256, 32)])
def test_the_losses_of_the_second_stage_are_the_authors_sums(size) -> None:
    """The discriminator judges targets, sources and refined images in one batch; below 256 rows coarse images are with them."""
    options = PG2Options(width=4, discriminator_width=4, reconstruction=7.0)
    method = PG2(settings(size, options, iterations=36, learning_rate=1e-12), CPU)
    batch, (generator, judge) = pairs(3, size), method.networks.values()
    torch.nn.init.normal_(generator.refinement.last.weight, std=0.1)
    with torch.no_grad():
        coarse, refined = generator(batch.source_image, batch.target_joints)
        kinds = [refined, batch.target_image, batch.source_image] + ([coarse] if size[0] < 256 else [])
        fake, real, source = judge(torch.cat(kinds)).split(3)[:3]
    terms = method.update([batch], 30)

    def entropy(logits: torch.Tensor, label: float) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

    expected = 0.5 * entropy(real, 1.0) + 0.25 * entropy(fake, 0.0) + 0.25 * entropy(source, 0.0)
    torch.testing.assert_close(terms["discriminator"], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(terms["adversarial"], entropy(fake, 1.0), rtol=1e-4, atol=1e-6)
    difference = (refined - batch.target_image).abs()
    torch.testing.assert_close(terms["reconstruction"], difference.mean() + (difference * batch.target_mask).mean())


def test_a_training_continues_exactly_across_the_change_of_stages() -> None:
    options = PG2Options(width=8, discriminator_width=8, first_stage=1 / 3)
    data, run = dots(), settings(options=options, iterations=6)  # the second stage begins with iteration 2
    whole = PG2(run, CPU)
    batches = [data.batch(np.arange(4), CPU, whole.needs)]
    for iteration in range(4):
        if iteration == 1:
            state = copy.deepcopy(whole.state_dict())
        whole.update(batches, iteration)
    resumed = PG2(dataclasses.replace(run, seed=9), CPU)
    resumed.load_state_dict(state)
    for iteration in range(1, 4):
        resumed.update(batches, iteration)
    assert equal(resumed.state_dict(), whole.state_dict())


def test_it_learns_four_pairs_in_both_stages() -> None:
    options = PG2Options(width=8, discriminator_width=8, first_stage=0.25, reconstruction=100.0)
    method = PG2(settings(options=options, iterations=80, learning_rate=2e-3), CPU)
    batch = pairs()
    terms = [method.update([batch], iteration)["reconstruction"].item() for iteration in range(80)]
    assert terms[19] < 0.5 * terms[0]
    assert terms[20] == pytest.approx(terms[19], rel=0.1)  # the second stage begins where the first one ends
    assert np.mean(terms[-5:]) < 0.85 * terms[20]


def test_bf16_is_near_fp32() -> None:
    batch, terms = pairs(), {}
    for precision in ("fp32", "bf16"):
        options = PG2Options(width=8, discriminator_width=8, first_stage=1 / 3)
        method = PG2(settings(options=options, iterations=6, precision=precision), CPU)
        terms[precision] = [method.update([batch], iteration) for iteration in range(4)]
        assert all(weight.isfinite().all() for network in method.networks.values() for weight in network.parameters())
    for exact, coarse in zip(terms["fp32"], terms["bf16"], strict=True):
        for name, value in exact.items():
            assert coarse[name].dtype == torch.float32
            torch.testing.assert_close(coarse[name], value, rtol=0.05, atol=0.01)


def test_a_pose_without_joints_trains_and_makes_finite_images() -> None:
    method = PG2(settings(iterations=6), CPU)
    batch = dataclasses.replace(pairs(), target_joints=torch.full((4, 18, 2), torch.nan))
    for iteration in (0, 3, 4):
        assert all(value.isfinite() for value in method.update([batch], iteration).values())
    assert method.generator.eval().synthesise(batch).image.isfinite().all()
