"""Tests of the generator's parts against independent references.

These are SciPy's thin-plate spline, OpenCV's guided filter and the identity.
"""

import dataclasses

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import RBFInterpolator

from potgan.data.batches import Batch
from potgan.methods.blocks import initialise, up_block
from potgan.methods.perceptual import PerceptualNetwork
from potgan.methods.potgan.discriminator import Discriminator
from potgan.methods.potgan.generator import Generator, sample_at
from potgan.methods.potgan.guided_filter import box_mean, guided_filter
from potgan.methods.potgan.losses import discriminator_loss, generator_losses, weighted_sum
from potgan.methods.potgan.method import PoTGAN
from potgan.methods.potgan.tps import ThinPlateSpline, interpolation_matrix, normalised_grid, resting_points
from potgan.settings.schema import (
    DiscriminatorSettings,
    GeneratorSettings,
    GuidedFilterSettings,
    LossWeights,
    MaskSettings,
    RunSettings,
    TrainingSettings,
)

SMALL = GeneratorSettings(width=4)
SIZE = (64, 32)


def inputs(batch: int = 2, size: tuple[int, int] = SIZE, seed: int = 0) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, *size, generator=g) * 2 - 1
    masks = [(torch.rand(batch, 1, *size, generator=g) > 0.6).float() for _ in range(2)]
    return image, *masks, torch.rand(batch, 18, *size, generator=g)


# -- thin-plate spline ------------------------------------------------------------------------------------------------


@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_spline_equals_scipys_thin_plate_interpolator(rows, columns, seed) -> None:
    random = np.random.default_rng(seed)
    points = resting_points(rows, columns, 0.9)
    values = np.tanh(random.normal(size=points.shape))
    queries = normalised_grid(8, 4)
    found = interpolation_matrix(points, queries) @ values
    # For 4 points in a square the kernel part vanishes, and the affine fit is exact only for affine data. SciPy does the same.
    wanted = RBFInterpolator(points, values, kernel="thin_plate_spline", degree=1)(queries)
    np.testing.assert_allclose(found, wanted, atol=1e-8)


def test_spline_passes_through_its_points_and_keeps_affine_maps() -> None:
    points = resting_points(4, 4, 0.9)
    random = np.random.default_rng(3)
    values = random.normal(size=points.shape)
    np.testing.assert_allclose(interpolation_matrix(points, points) @ values, values, atol=1e-9)
    queries = random.uniform(-1.5, 1.5, size=(50, 2))  # some queries lie outside the convex hull of the points
    matrix, shift = random.normal(size=(2, 2)), random.normal(size=2)
    moved = interpolation_matrix(points, queries) @ (points @ matrix.T + shift)
    np.testing.assert_allclose(moved, queries @ matrix.T + shift, atol=1e-9)


@pytest.mark.parametrize("size", [(128, 64), (256, 256), (64, 32)])
def test_identity_warp_is_exact_at_initialisation_at_every_scale(size) -> None:
    generator = Generator(SMALL, size)
    image, source, target, _ = inputs(1, size)
    points, grids = generator.pose_transform(source, target)
    features = generator.appearance_encoder(image)
    assert len(points) == len(grids) == len(features) == 4
    for f, grid in zip(features, grids, strict=True):
        assert grid.shape[1:3] == f.shape[2:]  # the paper: "the same size as its manipulated image feature maps"
        assert (sample_at(f, grid) - f).abs().max() < 1e-5 * f.abs().max().clamp(min=1)


def test_coarse_to_fine_coordinates_add_up_from_the_coarsest_scale() -> None:
    """What one scale finds counts at this scale and at all finer ones. With independent coordinates it counts nowhere else."""
    offsets = [0.3, -0.2, 0.1, 0.4]  # before tanh, of the scales with strides 2, 4, 8, 16
    _, source, target, _ = inputs(2)
    rest = torch.atanh(torch.from_numpy(resting_points(4, 4, 0.9)).float())
    for coordinates, expected in (("independent", offsets), ("coarse-to-fine", [0.6, 0.3, 0.5, 0.4])):
        generator = Generator(dataclasses.replace(SMALL, coordinates=coordinates), SIZE)
        points, _ = generator.pose_transform(source, target)
        for theta in points:
            torch.testing.assert_close(theta, torch.tanh(rest).expand_as(theta))  # it starts as the identity
        with torch.no_grad():
            for net, offset in zip(generator.pose_transform.coordinates, offsets, strict=True):
                net.points.bias += offset
        points, _ = generator.pose_transform(source, target)
        for theta, offset in zip(points, expected, strict=True):
            torch.testing.assert_close(theta, torch.tanh(rest + offset).expand_as(theta))


def test_a_control_sees_the_masks_and_moves_nothing() -> None:
    """`masks-without-warps`: the masks change the image, and no warp is there. Without the setting they change nothing."""
    image, source, target, maps = inputs()
    for sees in (False, True):
        settings = dataclasses.replace(SMALL, pose_transform=False, pose_encoder_masks=sees)
        torch.manual_seed(0)
        generator = Generator(settings, SIZE).eval()
        out, other = generator(image, source, target, maps), generator(image, 1 - source, target, maps)
        assert out.control_points == []
        assert torch.equal(out.unfiltered, other.unfiltered) != sees


def test_coordinates_with_a_rate_of_zero_stay_the_identity() -> None:
    """`identity-grids`: the module is there, and no warp ever moves anything."""
    settings = RunSettings(
        "synthetic", 0, SIZE, SMALL, DiscriminatorSettings(width=4), LossWeights(), MaskSettings(),
        TrainingSettings(coordinates_learning_rate=0.0, perceptual_network="random", perceptual_width=4, iterations=3,
                         decay_from=3, learning_rate=1e-2, batch_size=2),
    )  # fmt: skip
    method = PoTGAN(settings, torch.device("cpu"))
    image, source, target, maps = inputs()
    batch = Batch(image, source, -image, target, None, maps)
    before = [parameter.clone() for parameter in method.generator.decoder.parameters()]
    for iteration in range(3):
        method.update([batch], iteration)
    assert not any(torch.equal(a, b) for a, b in zip(before, method.generator.decoder.parameters(), strict=True))
    rest = torch.from_numpy(resting_points(4, 4, 0.9)).float()
    for theta in method.generator(image, source, target, maps).control_points:
        torch.testing.assert_close(theta, rest.expand_as(theta))


def test_a_shifted_spline_moves_features_by_whole_cells_backward() -> None:
    """The control points move one cell to the right. So target cell x takes what stands at source cell x + 1."""
    height, width = 16, 8
    points = torch.from_numpy(resting_points(4, 4, 0.9)).float()
    spline = ThinPlateSpline(4, 4, 0.9, height, width)
    features = torch.rand(1, 5, height, width)
    moved = sample_at(features, spline((points + torch.tensor([2 / (width - 1), 0.0]))[None]))
    torch.testing.assert_close(moved[..., :-1], features[..., 1:], atol=1e-5, rtol=0)
    assert moved[..., -1].abs().max() < 1e-4  # zeros come in from outside the image


def test_a_new_transposed_convolution_keeps_an_even_map_even() -> None:
    torch.manual_seed(0)
    layer = up_block(8, 16, "none")[0]
    torch.nn.init.normal_(layer.weight, 0, 0.02)
    uneven = layer(torch.ones(1, 8, 6, 6))[..., 2:-2, 2:-2]
    assert uneven.var(dim=(2, 3)).min() > 1e-6  # what DCGAN's own start gives
    initialise(layer)
    even = layer(torch.ones(1, 8, 6, 6))[..., 2:-2, 2:-2]
    assert even.var(dim=(2, 3)).max() < 1e-12
    big = torch.nn.ConvTranspose2d(64, 64, 4, stride=2)
    initialise(big)
    assert big.weight.std().item() == pytest.approx(0.02, rel=0.02)


# -- guided filter ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 4]), st.sampled_from([1e-4, 1e-2]), st.booleans())
@settings(max_examples=20, deadline=None)
def test_guided_filter_agrees_with_opencv_away_from_the_border(seed, radius, epsilon, binary) -> None:
    random = np.random.default_rng(seed)
    guide = random.random((48, 40), dtype=np.float32)
    if binary:
        guide = (cv2.GaussianBlur(guide, (0, 0), 3) > 0.5).astype(np.float32)
    image = random.random((48, 40, 3), dtype=np.float32)
    wanted = cv2.ximgproc.guidedFilter(guide, image, radius, epsilon)
    tensors = torch.from_numpy(guide)[None, None], torch.from_numpy(image).permute(2, 0, 1)[None]
    found = guided_filter(*tensors, radius, epsilon)[0].permute(1, 2, 0).numpy()
    inside = (slice(2 * radius, -2 * radius),) * 2
    # OpenCV works in float32 too. With a variance near 0 and a small epsilon, the quotient amplifies rounding errors.
    np.testing.assert_allclose(found[inside], wanted[inside], atol=2e-3 if epsilon < 1e-3 else 1e-4)


def test_guided_filter_with_a_constant_guide_is_the_box_filter_twice() -> None:
    image = torch.rand(1, 3, 20, 20)
    for value in (0.0, 1.0):
        out = guided_filter(torch.full((1, 1, 20, 20), value), image, 2, 1e-2)
        torch.testing.assert_close(out, box_mean(box_mean(image, 2), 2), atol=1e-5, rtol=0)


def test_guided_filter_returns_the_guide_itself_when_epsilon_vanishes() -> None:
    image = torch.rand(1, 1, 20, 20, dtype=torch.float64)
    torch.testing.assert_close(guided_filter(image, image, 2, 1e-12), image, atol=1e-6, rtol=0)


def test_guided_filter_is_differentiable() -> None:
    guide = (torch.rand(1, 1, 8, 8, dtype=torch.float64) > 0.5).double()
    image = torch.rand(1, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: guided_filter(guide, x, 1, 1e-2), (image,))


def test_filter_runs_where_its_mode_says() -> None:
    for mode, in_training, in_test in (("train", True, True), ("test", False, True), ("off", False, False)):
        generator = Generator(GeneratorSettings(width=4, guided_filter=GuidedFilterSettings(mode=mode)), SIZE)
        for training, expected in ((True, in_training), (False, in_test)):
            out = generator.train(training)(*inputs())
            assert (not torch.equal(out.image, out.unfiltered)) == expected


# -- generator and discriminator --------------------------------------------------------------------------------------

VARIANTS = {
    "potgan": SMALL,
    "batch-norm": GeneratorSettings(width=4, normalization="batch"),
    "no-pose-transform": GeneratorSettings(width=4, pose_transform=False),
    "no-guided-filter": GeneratorSettings(width=4, guided_filter=GuidedFilterSettings(mode="off")),
    "filter-at-test": GeneratorSettings(width=4, guided_filter=GuidedFilterSettings(mode="test")),
    "more-points": GeneratorSettings(width=4, control_points=(5, 3)),
}


@pytest.mark.parametrize("reconstruction", [10.0, 0.0])
@pytest.mark.parametrize("name", VARIANTS)
def test_every_parameter_of_every_variant_receives_gradient(name: str, reconstruction: float) -> None:
    """The gradients are checked in the second step.

    In the first step the last coordinate layer has zero weights, so no gradient passes to the layers before it.
    """
    torch.manual_seed(0)
    generator = Generator(VARIANTS[name], SIZE)
    discriminator = Discriminator(DiscriminatorSettings(width=4), SIZE)
    perceptual = PerceptualNetwork("random")
    optimizer = torch.optim.Adam(generator.parameters(), 1e-3)
    image, source, target, maps = inputs(4)
    for _ in range(2):
        out = generator(image, source, target, maps).image
        terms = generator_losses(out, image.flip(0), discriminator(out, target), perceptual)
        optimizer.zero_grad()
        weighted_sum(terms, LossWeights(reconstruction, 1.0, 0.5)).backward()
        without = [n for n, p in generator.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
        optimizer.step()
    assert not without
    discriminator.zero_grad()
    discriminator_loss(discriminator(image, target), discriminator(out.detach(), target)).backward()
    assert all(p.grad.abs().max() > 0 for p in discriminator.parameters())


def test_the_pose_transform_is_what_differs_without_it() -> None:
    """The ablation of TABLE I has identity grids, and nothing else is changed.

    The masks then have no influence on the image.
    """
    plain = Generator(
        GeneratorSettings(width=4, pose_transform=False, guided_filter=GuidedFilterSettings(mode="off")), SIZE
    )
    full = Generator(GeneratorSettings(width=4, guided_filter=GuidedFilterSettings(mode="off")), SIZE)
    missing, unexpected = full.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("pose_transform.") for name in missing)
    image, source, target, maps = inputs()
    with torch.no_grad():  # the warps of the full model start as the identity, as in the ablation
        torch.testing.assert_close(
            full.eval()(image, source, target, maps).image, plain.eval()(image, target, source, maps).image,
            atol=1e-4, rtol=0,
        )  # fmt: skip


@pytest.mark.parametrize("name", ["potgan", "batch-norm"])
def test_output_in_eval_mode_does_not_depend_on_the_batch(name: str) -> None:
    generator = Generator(VARIANTS[name], SIZE)
    batch = inputs(6)
    with torch.no_grad():
        for _ in range(3):
            generator.train()(*batch)  # this moves the running statistics of batch norms
        generator.eval()
        whole = generator(*batch).image
        parts = torch.cat([generator(*(x[i : i + 1] for x in batch)).image for i in range(6)])
    torch.testing.assert_close(whole, parts, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(128, 64), (256, 256)])
def test_shapes_and_ranges(size) -> None:
    generator, discriminator = Generator(SMALL, size), Discriminator(DiscriminatorSettings(width=4), size)
    image, source, target, maps = inputs(2, size)
    out = generator(image, source, target, maps)
    assert out.image.shape == (2, 3, *size)
    assert out.unfiltered.abs().max() <= 1
    assert [tuple(p.shape) for p in out.control_points] == [(2, 16, 2)] * 4
    assert discriminator(out.image, target).shape == (2,)


def test_full_width_has_the_channels_of_the_paper_configuration() -> None:
    generator = Generator(GeneratorSettings(), (128, 64))
    with torch.no_grad():
        features = generator.appearance_encoder(torch.zeros(1, 3, 128, 64))
    assert [tuple(f.shape[1:]) for f in features] == [(64, 64, 32), (128, 32, 16), (256, 16, 8), (512, 8, 4)]


# -- losses -----------------------------------------------------------------------------------------------------------


def test_losses_at_known_points() -> None:
    image = torch.zeros(2, 3, 8, 8)
    terms = generator_losses(image + 0.25, image, torch.zeros(2), PerceptualNetwork("random"))
    assert terms["reconstruction"].item() == pytest.approx(0.25)
    assert terms["adversarial"].item() == pytest.approx(np.log(2))  # a discriminator that guesses has -log D = ln 2
    assert generator_losses(image, image, None, PerceptualNetwork("random"))["perceptual"].item() == 0
    assert discriminator_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(np.log(2))
    assert weighted_sum(terms, LossWeights(1.0, 0.0, 2.0)).item() == pytest.approx(0.25 + 2 * np.log(2), rel=1e-6)


def test_generator_and_discriminator_pull_apart() -> None:
    """The test checks the sign of Eq. (7).

    A larger logit on a synthesised image lowers the loss of G and raises the loss of D.
    """
    image = torch.zeros(1, 3, 4, 4)
    low, high = (generator_losses(image, image, torch.tensor([v]), None)["adversarial"] for v in (-1.0, 1.0))
    assert high < low
    assert discriminator_loss(torch.zeros(1), torch.ones(1)) > discriminator_loss(torch.zeros(1), -torch.ones(1))


def test_random_perceptual_network_is_vggs_first_two_layers_and_always_the_same() -> None:
    from torchvision.models import vgg16

    reference = vgg16(weights=None).features[:4]
    network = PerceptualNetwork("random")
    shapes = [tuple(p.shape) for p in reference.parameters()]
    assert [tuple(p.shape) for p in network.layers.parameters()] == shapes
    torch.manual_seed(123)
    assert PerceptualNetwork("random").weights_sha256() == network.weights_sha256()
    narrow = PerceptualNetwork("random", 16)
    assert narrow(torch.zeros(2, 3, 32, 16)).shape == (2, 16, 32, 16)
    # Kaiming's weights keep the size of features, whatever the width, so that the weight of the loss means the same.
    images = torch.rand(4, 3, 32, 16, generator=torch.Generator().manual_seed(3)) * 2 - 1
    assert 0.5 < narrow(images).std() / network(images).std() < 2
    assert not any(p.requires_grad for p in network.parameters())
    assert network(torch.zeros(1, 3, 16, 8)).shape == (1, 64, 16, 8)
