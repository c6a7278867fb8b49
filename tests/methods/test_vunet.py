"""Tests of VUNet against numbers of the authors' networks, and against OpenCV, which the authors draw and crop with."""

import copy
import dataclasses
import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from test_loop import SETTINGS, dots, equal
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from potgan.common.device import autocast
from potgan.common.errors import UserError
from potgan.data.batches import Batch
from potgan.data.pose import JOINT
from potgan.methods.perceptual import IMAGENET_DEVIATION, IMAGENET_MEAN
from potgan.methods.registry import build_method
from potgan.methods.vgg import Vgg19
from potgan.methods.vunet.method import FEATURES, FeatureDistance, VUNetMethod, divergence
from potgan.methods.vunet.networks import Convolution, DecoderDown, EncoderDown, Prior, ResidualBlock, UpPass, VUNet
from potgan.methods.vunet.options import VUNetOptions
from potgan.methods.vunet.parts import (
    LIMBS,
    crop_to_quad,
    distances,
    joints_in_square,
    part_crops,
    part_quads,
    stick_man,
    to_square,
)

CPU = torch.device("cpu")
SMALL = VUNetOptions(width=4)
#: Names of the weights of `enc_down` that nothing depends on.
IDLE = ("enc_down.feedback.1.", "enc_down.doubling.1.", "enc_down.hidden.2.")


def settings(iterations: int = 24, options: VUNetOptions = SMALL, seed: int = 3, **training):
    training = {
        "learning_rate": 1e-3,
        "adam_betas": (0.5, 0.9),
        "perceptual_width": 4,
        "iterations": iterations,
    } | training
    return dataclasses.replace(
        SETTINGS,
        method="vunet",
        options=options,
        seed=seed,
        training=dataclasses.replace(SETTINGS.training, **training),
    )


def method(**arguments) -> VUNetMethod:
    return build_method(settings(**arguments), CPU)


def batch(places: tuple[int, ...] = (0, 1, 2, 3)) -> Batch:
    return dots().batch(np.array(places), CPU, VUNetMethod.needs | VUNet.needs)


def figure(**joints: tuple[float, float]) -> torch.Tensor:
    """One pose, (1, 18, 2), of the named joints; the others are missing."""
    pose = torch.full((1, 18, 2), float("nan"))
    for name, place in joints.items():
        pose[0, JOINT[name]] = torch.tensor(place)
    return pose


#: A person from the front, in pixels of a square of 128.
PERSON = {
    "nose": (64, 24), "right_eye": (61, 21), "left_eye": (67, 21), "right_shoulder": (50, 40), "left_shoulder": (78, 40),
    "right_elbow": (40, 58), "left_elbow": (88, 60), "right_wrist": (38, 74), "left_wrist": (92, 76), "right_hip": (56, 76),
    "left_hip": (74, 76), "right_knee": (54, 98), "left_knee": (76, 98), "right_ankle": (52, 120), "left_ankle": (78, 119),
}  # fmt: skip


def without(*names: str) -> dict[str, tuple[float, float]]:
    return {name: place for name, place in PERSON.items() if name not in names}


# ---------------------------------------------------------------------------------------------------------------------
# Sizes


def count(network: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def on_meta(size: tuple[int, int]) -> tuple[VUNet, torch.Tensor, torch.Tensor]:
    with torch.device("meta"):
        network = VUNet(VUNetOptions(), size)
        return network, torch.empty(1, 24, 64, 64), torch.empty(1, 3, network.side, network.side)


@pytest.mark.parametrize(
    ("size", "enc_up", "total"), [((128, 64), 2_217_600, 47_419_270), ((256, 256), 2_071_296, 47_272_966)]
)
def test_networks_have_the_authors_parameters(size, enc_up, total) -> None:
    network, _, _ = on_meta(size)
    priors = count(network.dec_down.priors)
    assert count(network.enc_up) == enc_up
    assert count(network.enc_down) == 3_085_568
    assert count(network.dec_up) == 2_253_216
    assert count(network.dec_down) - priors == 6_128_896
    assert priors == 33_733_120
    assert count(network.output) == 870
    assert count(network) == total
    assert sum(count(module) for module in network.enc_down.without_gradient()) == 1_230_848


@pytest.mark.parametrize(("size", "total", "priors"), [((128, 64), 5.123, 0.087), ((256, 256), 18.969, 0.346)])
def test_networks_have_the_authors_multiply_adds(size, total, priors) -> None:
    network, crops, stick_men = on_meta(size)
    with FlopCounterMode(display=False) as counter:
        network(crops, stick_men, everything=True)
    assert counter.get_total_flops() / 2e9 == pytest.approx(total, abs=5e-4)
    found = counter.get_flop_counts()
    of_priors = sum(sum(found[f"VUNet.dec_down.priors.{scale}"].values()) for scale in (0, 1))
    assert of_priors / 2e9 == pytest.approx(priors, abs=5e-4)


def test_a_transfer_computes_neither_the_priors_nor_what_nothing_depends_on() -> None:
    with FakeTensorMode():
        network = VUNet(VUNetOptions(), (128, 128)).eval()
        joints = torch.zeros(1, 18, 2)
        pair = Batch(torch.zeros(1, 3, 128, 128), source_joints=joints, target_joints=joints)
        with FlopCounterMode(display=False) as counter:
            assert network.synthesise(pair).image.shape == (1, 3, 128, 128)
    # At 4 x 4 the block that is fed with z, and the doubling; at 8 x 8 the next block.
    idle = 16 * (10 * 256 * 128 + 9 * 128 * 512) + 64 * (128 * 128 + 9 * 256 * 128)
    groups = 4 * 9 * 512 * 128 + 3 * (128 * 512 + 9 * 1024 * 512)
    priors = (4 + 16) * 9 * 128 * 128 + (1 + 4) * groups
    assert counter.get_total_flops() / 2 == pytest.approx(5_122_818_048 - idle - priors, rel=1e-4)


@pytest.mark.parametrize("size", [(128, 64), (256, 256)])
def test_maps_and_latent_variables_have_the_authors_sizes(size) -> None:
    network, crops, stick_men = on_meta(size)
    large = size == (256, 256)
    first = network.enc_up(crops)
    widths, sides = ([128] * 5, [64, 32, 16, 8, 4]) if large else ([64, *[128] * 5], [64, 32, 16, 8, 4, 2])
    assert [tuple(h.shape[1:3]) for h in first[::2]] == list(zip(widths, sides, strict=True))
    assert [h.shape for h in first[::2]] == [h.shape for h in first[1::2]]
    second = network.dec_up(stick_men)
    side = 256 if large else 128
    assert [tuple(h.shape[1:]) for h in second[::2]] == [
        (width, side >> scale, side >> scale) for scale, width in enumerate([32, 64, 128, 128, 128, 128, 128])
    ]
    image, posterior, prior = network(crops, stick_men)
    assert image.shape == (1, 3, side, side)
    coarsest = 4 if large else 2
    expected = [(1, 128, coarsest, coarsest), (1, 128, 2 * coarsest, 2 * coarsest)]
    assert [tuple(mean.shape) for mean in posterior] == [tuple(mean.shape) for mean in prior] == expected


@pytest.mark.parametrize(("coarsest", "expected"), [(2, 1_280), (4, 5_120)])
def test_the_divergence_of_means_that_differ_by_one(coarsest, expected) -> None:
    posterior = [torch.rand(3, 128, side, side) for side in (coarsest, 2 * coarsest)]
    prior = [mean - 1 for mean in posterior]
    torch.testing.assert_close(divergence(posterior, prior), torch.full((3,), float(expected)))


@pytest.mark.parametrize(
    ("size", "side", "crop"),
    [((32, 32), 32, 16), ((16, 16), 16, 8), ((128, 64), 128, 64), ((256, 176), 256, 64), ((48, 32), 64, 32)],
)
def test_images_of_any_size_go_through_a_square(size, side, crop) -> None:
    network = VUNet(VUNetOptions(width=1), size).eval()
    assert (network.side, network.crop) == (side, crop)
    joints = torch.rand(2, 18, 2) * torch.tensor([size[1] - 1.0, size[0] - 1.0])
    joints[0, 3:7] = float("nan")
    pair = Batch(source_image=torch.rand(2, 3, *size) * 2 - 1, source_joints=joints, target_joints=joints.flip(0))
    with torch.no_grad():
        both = network.synthesise(pair).image
        one = network.synthesise(
            Batch(source_image=pair.source_image[1:], source_joints=joints[1:], target_joints=joints[:1])
        ).image
    assert both.shape == (2, 3, *size)
    assert both.isfinite().all()
    torch.testing.assert_close(both[1:], one, rtol=0, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------------
# Layers


def test_a_convolution_is_normalised_by_its_gain() -> None:
    layer = Convolution(3, 5, stride=2)
    torch.nn.init.uniform_(layer.gain, 0.5, 2)
    torch.nn.init.normal_(layer.bias)
    reference = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv2d(3, 5, 3, stride=2, padding=1))
    reference.parametrizations.weight.original0.data = layer.gain.data.view(5, 1, 1, 1)
    reference.parametrizations.weight.original1.data = layer.direction.data.clone()
    reference.bias.data = layer.bias.data
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(layer(x), reference(x))
    layer.direction.data *= 7  # a direction has no length
    torch.testing.assert_close(layer(x), reference(x))


def test_networks_whose_gains_are_zero_do_nothing() -> None:
    network = VUNet(SMALL, (32, 32))
    for layer in network.modules():
        if isinstance(layer, Convolution):
            layer.gain.data.zero_()
    crops, stick_men = torch.randn(2, 24, 16, 16), torch.randn(2, 3, 32, 32)
    image, posterior, prior = network(crops, stick_men)
    assert not image.any()
    assert not any(mean.any() for mean in posterior + prior)
    block = ResidualBlock(4, 0.5, beside=3)
    block.convolution.gain.data.zero_()
    x = torch.randn(2, 4, 8, 8)
    torch.testing.assert_close(block(x, torch.randn(2, 3, 8, 8)), x)


def test_a_residual_block_in_numbers() -> None:
    """With 1x1 maps only the centres of the kernels count: x + w1 ELU(x) + w2 ELU(ELU(a))."""
    block = ResidualBlock(1, dropout=0.0, beside=1)
    block.beside.direction.data.fill_(1)
    block.beside.gain.data.fill_(1)
    block.convolution.direction.data.zero_()
    block.convolution.direction.data[0, :, 1, 1] = torch.tensor([3.0, 4.0])
    block.convolution.gain.data.fill_(5)
    x, a = torch.full((1, 1, 1, 1), -1.0), torch.full((1, 1, 1, 1), -2.0)

    def elu(v: float) -> float:
        return math.expm1(v) if v < 0 else v

    assert block(x, a).item() == pytest.approx(-1 + 3 * elu(-1) + 4 * elu(elu(-2)))


def test_groups_of_the_prior_depend_only_on_the_groups_before_them() -> None:
    """A group is one place in every cell of 2 x 2 pixels; the order is left to right, then down."""
    prior = Prior(3, dropout=0.0)
    h = torch.randn(1, 3, 4, 4)
    z = torch.randn(1, 3, 4, 4, requires_grad=True)
    means = prior(h, z)
    places = [(0, 0), (0, 1), (1, 0), (1, 1)]
    for number, (row, column) in enumerate(places):
        (gradient,) = torch.autograd.grad(means[:, :, row::2, column::2].sum(), z, retain_graph=True, allow_unused=True)
        depends = [bool(gradient[:, :, r::2, c::2].any()) for r, c in places]
        assert depends == [other < number for other in range(4)]


def test_images_depend_on_the_posterior_and_not_on_the_priors() -> None:
    network = VUNet(SMALL, (32, 32)).eval()
    pair = batch()
    with torch.no_grad():
        before = network.synthesise(pair).image
        for weight in network.dec_down.priors.parameters():
            weight.add_(1)
        assert torch.equal(network.synthesise(pair).image, before)
        for layer in network.enc_down.mean:
            layer.bias.add_(1)
        assert not torch.equal(network.synthesise(pair).image, before)


def test_without_noise_the_latent_variables_are_the_means_and_with_it_their_deviation_is_one() -> None:
    widths = [4, 4, 4]
    encoder = EncoderDown(widths, dropout=0.0)
    outputs = UpPass(24, widths, dropout=0.0)(torch.randn(64, 24, 16, 16))
    means, latents = encoder(outputs, noise=False)
    assert all(torch.equal(mean, latent) for mean, latent in zip(means, latents, strict=True))
    means, latents = encoder(outputs, noise=True)
    for mean, latent in zip(means, latents, strict=True):
        assert (latent - mean).mean().item() == pytest.approx(0, abs=0.06)
        assert (latent - mean).std().item() == pytest.approx(1, abs=0.05)
    h, priors = DecoderDown(widths, dropout=0.0)(UpPass(3, widths, 0.0)(torch.randn(64, 3, 16, 16)), latents, False)
    assert h.shape == (64, 4, 16, 16)
    assert priors == []


# ---------------------------------------------------------------------------------------------------------------------
# The square


def test_joints_move_with_the_image_into_the_square() -> None:
    """The colour of a pixel is its column. In the square a joint lies where the image has the colour of its column."""
    image = torch.arange(64.0).expand(1, 3, 128, 64)
    square = to_square(image, 128)
    joints = torch.rand(1, 18, 2) * torch.tensor([60.0, 120.0]) + 2
    moved = joints_in_square(joints, (128, 64), 128)
    torch.testing.assert_close(moved[..., 1], joints[..., 1])
    torch.testing.assert_close(moved[..., 0], 2 * joints[..., 0] + 0.5)
    left = moved[0, :, 0].floor().long()
    share = moved[0, :, 0] - left
    colour = square[0, 0, 0, left] * (1 - share) + square[0, 0, 0, left + 1] * share
    torch.testing.assert_close(colour, joints[0, :, 0])


# ---------------------------------------------------------------------------------------------------------------------
# The crops


def forward_matrix(quad: torch.Tensor) -> torch.Tensor:
    matrix = torch.linalg.inv(crop_to_quad(quad.double(), 64))
    return matrix / matrix[2, 2]


def test_the_matrix_of_a_limb() -> None:
    """A limb from (10, 20) to (10, 60) is 40 long and 20 wide, and runs along the crop's x axis."""
    quads, seen = part_quads(figure(left_shoulder=(10, 20), left_elbow=(10, 60)), 128)
    assert seen[0].tolist() == [part == 2 for part in range(8)]
    assert quads[0, 2].tolist() == [[0, 20], [20, 20], [20, 60], [0, 60]]
    expected = torch.tensor([[0, 1.6, -32], [3.2, 0, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(forward_matrix(quads[0, 2]), expected)


def test_the_matrix_of_a_head() -> None:
    quads, seen = part_quads(figure(left_shoulder=(50, 40), right_shoulder=(30, 40), nose=(40, 30)), 128)
    assert seen[0].tolist() == [part == 1 for part in range(8)]
    expected = torch.tensor([[-3.2, 0, 160], [0, 3.2, -64], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(forward_matrix(quads[0, 1]), expected)


def test_matrices_are_those_of_opencv() -> None:
    draw = np.random.default_rng(0)
    square = np.array([[0, 0], [0, 64], [64, 64], [64, 0]], np.float32)
    for _ in range(20):
        quad = (square * 1.5 + draw.uniform(-20, 20, (4, 2))).astype(np.float32)
        theirs = torch.from_numpy(cv2.getPerspectiveTransform(quad, square))
        torch.testing.assert_close(forward_matrix(torch.from_numpy(quad)), theirs, rtol=1e-5, atol=1e-5)


def test_crops_are_those_of_opencv() -> None:
    draw = np.random.default_rng(0)
    image = cv2.GaussianBlur(draw.normal(size=(128, 128, 3)), (0, 0), 6).astype(np.float32) * 5
    pose = figure(**PERSON)
    crops = part_crops(torch.from_numpy(image).permute(2, 0, 1)[None], pose, 64)[0]
    assert crops.shape == (24, 64, 64)
    quads, seen = part_quads(pose, 128)
    assert seen.all()
    square = np.array([[0, 0], [0, 64], [64, 64], [64, 0]], np.float32)
    for part in range(8):
        matrix = cv2.getPerspectiveTransform(quads[0, part].numpy(), square)
        theirs = cv2.warpPerspective(image, matrix, (64, 64), borderMode=cv2.BORDER_REPLICATE)
        ours = crops[3 * part : 3 * part + 3].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(ours, theirs, atol=0.02)  # OpenCV rounds places to 1/32 of a pixel


def test_the_torso_and_the_limbs_are_in_the_authors_order() -> None:
    quads, _ = part_quads(figure(**PERSON), 128)
    assert quads[0, 0].tolist() == [
        list(PERSON[n]) for n in ("left_shoulder", "left_hip", "right_hip", "right_shoulder")
    ]
    middles = [[(PERSON[a][0] + PERSON[b][0]) / 2, (PERSON[a][1] + PERSON[b][1]) / 2] for a, b in LIMBS]
    torch.testing.assert_close(quads[0, 2:].mean(1), torch.tensor(middles))
    assert LIMBS[0] == ("left_shoulder", "left_elbow")
    assert LIMBS[-1] == ("right_hip", "right_knee")


def test_a_missing_knee_or_nose_has_another_crop_and_other_missing_joints_have_none() -> None:
    whole, _ = part_quads(figure(**PERSON), 128)
    quads, seen = part_quads(figure(**without("right_knee", "nose", "left_wrist")), 128)
    assert seen[0].tolist() == [True, True, True, False, True, True, True, True]
    # From the hip (56, 76) down to the last row, 127: 51 long, 25.5 wide.
    assert quads[0, 7].tolist() == [[43.25, 76], [68.75, 76], [68.75, 127], [43.25, 127]]
    # Between the shoulders (78, 40) and (50, 40): a square of 28 above them.
    assert quads[0, 1].tolist() == [[78, 12], [78, 40], [50, 40], [50, 12]]
    torch.testing.assert_close(quads[0, 6], whole[0, 6])
    turned = {"left_shoulder": PERSON["right_shoulder"], "right_shoulder": PERSON["left_shoulder"]}
    quads, _ = part_quads(figure(**turned), 128)  # seen from behind, it is above them too
    assert quads[0, 1].tolist() == [[50, 12], [50, 40], [78, 40], [78, 12]]
    assert not part_quads(figure(**without("right_knee", "right_hip")), 128)[1][0, 7]
    assert not part_quads(figure(), 128)[1].any()


def test_parts_without_area_are_grey_and_every_crop_is_finite() -> None:
    image = torch.ones(1, 3, 128, 128)
    flat = part_crops(image, figure(**PERSON | {"left_wrist": PERSON["left_elbow"], "right_hip": (64, 40)}), 64)[0]
    grey = [not flat[3 * part : 3 * part + 3].any() for part in range(8)]
    assert grey == [True, False, False, True, False, False, False, False]
    assert flat[[3, 6, 12, 15, 18, 21]].eq(1).all()  # a white image is white everywhere, beyond its border too
    assert not part_crops(image, figure(), 64).any()
    # Shoulders that changed places make the torso's edges cross: somewhere in the crop the place is at infinity.
    crossed = PERSON | {"left_shoulder": PERSON["right_shoulder"], "right_shoulder": PERSON["left_shoulder"]}
    crops = part_crops(torch.rand(1, 3, 128, 128), figure(**crossed), 64)
    assert crops.isfinite().all()
    assert crops.min() >= 0
    assert crops.max() <= 1
    outside = figure(**{name: (x + 500, y - 500) for name, (x, y) in PERSON.items()})
    assert part_crops(torch.rand(1, 3, 128, 128), outside, 64).isfinite().all()


def test_crops_are_exact_under_bf16() -> None:
    image = torch.rand(1, 3, 128, 128)
    with autocast("bf16", CPU):
        crops = part_crops(image, figure(**PERSON), 64)
    torch.testing.assert_close(crops, part_crops(image, figure(**PERSON), 64), rtol=0, atol=0)


# ---------------------------------------------------------------------------------------------------------------------
# The stick man


def drawn_by_opencv(person: dict[str, tuple[float, float]], side: int) -> np.ndarray:
    """(3, side, side) in [0, 255]: lines of OpenCV, where a line whose joint is missing is left out."""
    right, left, torso = np.zeros((3, side, side), np.uint8)
    thickness = int(3 * side / 128)

    def line(image: np.ndarray, start: str, end: str, level: int) -> None:
        if start in points and end in points:
            cv2.line(image, *([round(v) for v in points[name]] for name in (start, end)), level, thickness)

    points = dict(person)
    if {"left_shoulder", "right_shoulder"} <= set(points):
        points["neck"] = tuple(
            (a + b) / 2 for a, b in zip(points["left_shoulder"], points["right_shoulder"], strict=True)
        )
    corners = ["left_hip", "left_shoulder", "right_shoulder", "right_hip"]
    if set(corners) <= set(points):
        cv2.fillPoly(torso, np.array([[points[name] for name in corners]], np.int32), 255)
    chain = ["ankle", "knee", "hip", "shoulder", "elbow", "wrist"]
    for image, which in ((right, "right"), (left, "left")):
        for start, end in pairwise(chain):
            line(image, f"{which}_{start}", f"{which}_{end}", 255)
        line(image, "neck", "nose", 127)
        if {"left_eye", "right_eye"} <= set(points):
            line(image, "nose", f"{which}_eye", 255)
    return np.stack([right, left, torso])


@pytest.mark.parametrize("missing", [(), ("left_eye",), ("nose",), ("right_elbow", "left_hip"), tuple(PERSON)])
def test_the_stick_man_is_that_of_opencv_but_for_the_edges_of_lines(missing) -> None:
    person = without(*missing)
    ours = ((stick_man(figure(**person), 128)[0] + 1) * 127.5).round().numpy()
    theirs = drawn_by_opencv(person, 128)
    other = ours != theirs
    assert other.mean() < 0.004
    for channel in range(3):  # where they differ, another pixel beside has the other's level
        for level in (0, 127, 255):
            here = cv2.dilate((theirs[channel] == level).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            assert here[ours[channel] == level].all()


@pytest.mark.parametrize(("side", "rows"), [(32, 1), (128, 5), (256, 7)])
def test_lines_are_as_thick_as_those_of_opencv(side, rows) -> None:
    scale = side // 128 or 0.25
    ends = {"right_knee": (20 * scale, 64 * scale), "right_hip": (100 * scale, 64 * scale)}
    drawn = stick_man(figure(**ends), side)[0]
    assert (drawn[0, :, side // 2] == 1).sum() == rows
    assert (drawn[1:] == -1).all()
    theirs = np.zeros((side, side), np.uint8)
    cv2.line(theirs, *([int(v) for v in place] for place in ends.values()), 255, max(1, 3 * side // 128))
    assert (theirs[:, side // 2] > 0).sum() == rows


def test_levels_of_the_stick_man() -> None:
    drawn = stick_man(figure(**PERSON), 128)[0]
    assert sorted(set(drawn.unique().tolist())) == pytest.approx([-1, 127 / 127.5 - 1, 1])
    x, y = PERSON["right_elbow"]
    assert drawn[:, y, x].tolist() == [1, -1, -1]
    x, y = PERSON["left_knee"]
    assert drawn[:, y, x].tolist() == [-1, 1, -1]
    assert drawn[:, 60, 65].tolist() == [-1, -1, 1]  # the middle of the torso
    assert drawn[0, 32, 64] == drawn[1, 32, 64] == pytest.approx(127 / 127.5 - 1)  # the throat
    assert stick_man(figure(), 128).eq(-1).all()


def test_distances_from_a_segment() -> None:
    points = torch.tensor([[[0.0, 0.0], [5.0, 2.0], [14.0, 3.0]]])
    found = distances(points, torch.tensor([[0.0, 0.0]]), torch.tensor([[10.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[[0.0, 2.0, 5.0]]]))
    point = distances(points, torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 4.0]]))
    assert point[0, 0, 0] == 5


# ---------------------------------------------------------------------------------------------------------------------
# Training


def test_schedules_are_the_authors() -> None:
    training = method(iterations=100_000)
    assert [training.rate_factor(i) for i in (0, 999, 1_000)] == [1, 1, 1]
    assert training.learning_rate(50_500) == pytest.approx(5e-4)
    assert training.rate_factor(99_999) == pytest.approx(1 / 99_000)
    assert [training.divergence_factor(i) for i in (0, 49_999, 50_000)] == [1e-6] * 3
    assert training.divergence_factor(62_500) == pytest.approx(0.5, abs=1e-6)
    assert [training.divergence_factor(i) for i in (75_000, 99_999)] == pytest.approx([1, 1], abs=1e-12)
    shorter = method(iterations=200)
    assert shorter.learning_rate(101) == pytest.approx(5e-4)
    assert shorter.divergence_factor(125) == pytest.approx(0.5, abs=1e-6)


def test_the_weight_of_the_divergence_stays_one_tensor_on_the_device() -> None:
    training = method(iterations=100)
    place = training.divergence_weight.data_ptr()
    for iteration, expected in ((0, 1e-6), (60, 0.4), (90, 1.0)):
        training.begin(iteration)
        assert training.divergence_weight.item() == pytest.approx(expected, rel=1e-5)
        assert training.divergence_weight.data_ptr() == place


def test_what_is_minimised_is_five_times_the_features_and_the_weighted_divergence() -> None:
    training = method(options=dataclasses.replace(SMALL, dropout=0.0))
    training.begin(15)  # its weight is then half of the way up
    loss, terms = training._loss(0, batch())
    coordinates = 16 * (2 * 2 + 4 * 4)  # 4 x 4 channels at 2 x 2 and at 4 x 4 pixels
    rest = (loss.item() - 5 * terms["features"].item()) / training.divergence_factor(15)
    lowest = coordinates / 2 * terms["distance"].item() ** 2  # the mean of squares is at least the square of the mean
    assert lowest <= rest * 1.001
    assert rest == pytest.approx(lowest, rel=0.3)


def test_only_the_target_image_is_learnt_from() -> None:
    ours, theirs = method(), method()
    pairs = batch()
    nothing = torch.full_like(pairs.source_image, float("nan"))
    unread = dataclasses.replace(pairs, source_image=nothing, source_joints=pairs.source_joints * float("nan"))
    assert equal(ours.update([pairs], 0), theirs.update([unread], 0))
    assert equal(ours.generator.state_dict(), theirs.generator.state_dict())


def test_every_weight_gets_a_gradient_but_those_that_nothing_depends_on() -> None:
    training = method()
    training.prepare([batch()] * 4)
    training.update([batch()], 15)
    without_gradient = set()
    for name, weight in training.generator.named_parameters():
        if weight.grad is None:
            without_gradient.add(name)
        else:
            assert weight.grad.isfinite().all()
            assert weight.grad.any(), name
    assert without_gradient == {n for n, _ in training.generator.named_parameters() if n.startswith(IDLE)}
    # Two blocks of two convolutions each, and one convolution, of three tensors.
    assert len(without_gradient) == 15


def test_after_the_start_every_layer_has_mean_0_and_variance_1() -> None:
    training = method()
    batches = [batch(places) for places in ((0, 1), (2, 3), (4, 5), (1, 4))]
    training.prepare(batches)
    network = training.networks["generator"]
    outputs = {}
    for name, layer in network.named_modules():
        if isinstance(layer, Convolution):
            layer.register_forward_hook(lambda _, __, output, name=name: outputs.__setitem__(name, output))
    images = torch.cat([part.target_image for part in batches])
    joints = torch.cat([part.target_joints for part in batches])
    _, crops, stick_men = training.example(Batch(target_image=images, target_joints=joints))
    numbers = np.random.SeedSequence([training.settings.seed]).generate_state(1, np.uint64)
    torch.manual_seed(int(numbers[0] >> 1))  # the dropout and the noise of the start
    with torch.no_grad():
        image, _, _ = network(crops, stick_men, everything=True)
    assert len(outputs) == sum(isinstance(layer, Convolution) for layer in network.modules())
    for name, output in outputs.items():
        variance, mean = torch.var_mean(output, (0, 2, 3), correction=0)
        assert mean.abs().max() < 2e-4, name
        torch.testing.assert_close(variance, torch.ones_like(variance), rtol=2e-3, atol=0, msg=name)
    assert outputs["output"].shape == image.shape == (8, 3, 32, 32)


def test_the_start_is_the_same_whatever_was_drawn_before_and_whatever_the_gains_were() -> None:
    ours, theirs = method(), method()
    for layer in theirs.generator.modules():
        if isinstance(layer, Convolution):
            layer.gain.data.fill_(9)
            layer.bias.data.fill_(-3)
    ours.prepare([batch()] * 4)
    torch.rand(11)
    theirs.prepare([batch()] * 4)
    assert equal(ours.generator.state_dict(), theirs.generator.state_dict())


def test_a_start_from_images_without_any_pose_is_refused() -> None:
    nobody = batch()
    nobody.target_joints = torch.full_like(nobody.target_joints, float("nan"))
    with pytest.raises(UserError, match="these hold no image with a pose; check the key points"):
        method().prepare([nobody] * 4)


def test_several_processes_agree_on_the_start() -> None:
    class Two:
        count = 2

        def mean(self, values: torch.Tensor) -> torch.Tensor:
            return torch.arange(len(values), dtype=torch.float32)

    training = method()
    training.processes = Two()
    training.prepare([batch()] * 4)
    layers = [layer for layer in training.generator.modules() if isinstance(layer, Convolution)]
    found = torch.cat([values.data for layer in layers for values in (layer.gain, layer.bias)])
    assert torch.equal(found, torch.arange(len(found), dtype=torch.float32))


def test_it_learns_four_images() -> None:
    training = method(iterations=60, learning_rate=4e-3)
    pairs = batch()
    training.prepare([pairs] * 4)
    losses = [training.update([pairs], iteration)["features"].item() for iteration in range(40)]
    assert np.mean(losses[-3:]) < 0.55 * losses[0]


def test_the_divergence_falls_while_it_is_weighted() -> None:
    training = method(iterations=4, learning_rate=1e-2, options=dataclasses.replace(SMALL, reconstruction=0.0))
    pairs = batch()
    training.prepare([pairs] * 4)
    found = [training.update([pairs], 3)["distance"].item() for _ in range(25)]
    assert found[-1] < 0.6 * found[0]


def test_a_state_continues_exactly() -> None:
    whole = method()
    whole.prepare([batch()] * 4)
    for iteration in range(2):
        whole.update([batch()], iteration)
    state = copy.deepcopy(whole.state_dict())
    resumed = method()
    resumed.load_state_dict(state)
    for iteration in (2, 3):
        assert equal(whole.update([batch()], iteration), resumed.update([batch()], iteration))
    assert equal(whole.state_dict(), resumed.state_dict())


def test_bf16_stays_near_fp32() -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        training = method(precision=precision)
        training.prepare([batch()] * 4)
        found[precision] = training.update([batch()], 15)
        assert all(weight.isfinite().all() for weight in training.generator.parameters())
    for name, value in found["fp32"].items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(found["bf16"][name], value, rtol=0.03, atol=0)


def test_missing_joints_leave_every_gradient_finite() -> None:
    training = method()
    pairs = batch()
    pairs.target_joints[0] = float("nan")
    pairs.target_joints[1, ::2] = float("nan")
    pairs.target_joints[2] = pairs.target_joints[2, :1]  # all joints in one place
    training.prepare([pairs] * 4)
    losses = training.update([pairs], 15)
    assert all(value.isfinite() for value in losses.values())
    assert all(weight.isfinite().all() for weight in training.generator.parameters())


# ---------------------------------------------------------------------------------------------------------------------
# The features


def test_equal_images_have_no_distance_and_a_network_of_zeros_leaves_grey_levels() -> None:
    features = FeatureDistance("random", 2)
    images = torch.rand(2, 3, 32, 32)
    assert features(images, images) == 0
    for layer in features.network.convolutions:
        layer.weight.data.zero_()
    assert features(images + 0.2, images).item() == pytest.approx(0.2 * 127.5, rel=1e-5)
    # Beyond [-1, 1] too: the images that a loss sees are not clamped.
    assert features(images + 4, images).item() == pytest.approx(4 * 127.5, rel=1e-5)


def test_features_are_on_the_scale_of_grey_levels() -> None:
    """The same network, fed with grey levels without their mean, has these features, as the authors' network of Caffe has."""
    features = FeatureDistance("random", 2)
    network = Vgg19("random", 2, FEATURES[-1], normalise=False)
    deviation = torch.tensor(IMAGENET_DEVIATION).view(1, 3, 1, 1)
    images, targets = torch.rand(2, 2, 3, 32, 32) * 2 - 1

    def levels(image: torch.Tensor) -> torch.Tensor:
        centred = (image + 1) * 127.5 - 255 * torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        return centred * (deviation.mean() / deviation)  # about 1: the three deviations are nearly equal

    ours, theirs = network(levels(images), FEATURES), network(levels(targets), FEATURES)
    expected = sum((ours[layer] - theirs[layer]).abs().mean() for layer in FEATURES)
    expected = expected + ((images - targets).abs() * 127.5).mean()
    torch.testing.assert_close(features(images, targets), expected, rtol=1e-4, atol=0)
