"""Tests of Deformable GAN against numbers worked out by hand, the authors' layer sizes, and cases with a known answer."""

import copy
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_loop import SETTINGS, dots, equal
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import max_pool2d
from torch.utils.flop_counter import FlopCounterMode

from potgan.common.device import autocast
from potgan.data.batches import Batch
from potgan.data.pose import JOINT
from potgan.methods.deformable.generator import (
    DeformableDiscriminator,
    DeformableGenerator,
    LayerNorm,
    deform,
    level_count,
)
from potgan.methods.deformable.method import (
    DeformableGAN,
    judged_fake,
    judged_real,
    nearest_neighbour_loss,
)
from potgan.methods.deformable.options import DeformableOptions
from potgan.methods.deformable.regions import (
    REGIONS,
    affine_matrices,
    body_regions,
    fit_affine,
    inside_rectangles,
    limb_rectangles,
    region_masks,
    torso_length,
)
from potgan.methods.perceptual import IMAGENET_DEVIATION, IMAGENET_MEAN
from potgan.methods.registry import build_method
from potgan.methods.vgg import Vgg19

CPU = torch.device("cpu")
NAN = float("nan")
MARKET, FASHION = (128, 64), (256, 256)
NARROW = DeformableOptions(width=4)
RUN = dataclasses.replace(SETTINGS, method="deformable", options=NARROW)

SHORT = {
    **{"nose": "nose", "neck": "neck"},
    **{
        f"{letter}{short}": f"{side}_{name}"
        for letter, side in (("R", "right"), ("L", "left"))
        for short, name in (
            ("sho", "shoulder"),
            ("elb", "elbow"),
            ("wri", "wrist"),
            ("hip", "hip"),
            ("kne", "knee"),
            ("ank", "ankle"),
            ("eye", "eye"),
            ("ear", "ear"),
        )
    },
}


def pose(text: str) -> torch.Tensor:
    """Return (1, 18, 2) joints from "nose 32,14 Lear -", where joints that are not named are missing too."""
    joints = torch.full((1, 18, 2), NAN)
    words = text.split()
    for name, place in zip(words[::2], words[1::2], strict=True):
        if place != "-":
            joints[0, JOINT[SHORT[name]]] = torch.tensor([float(value) for value in place.split(",")])
    return joints


SOURCE = pose(
    "nose 32,14 neck 32,26 Rsho 22,27 Relb 16,44 Rwri 14,60 Lsho 42,27 Lelb 48,44 Lwri - Rhip 25,62 Rkne 24,88 Rank 23,114 "
    "Lhip 39,62 Lkne 40,88 Lank 41,114 Leye 30,12 Reye 34,12 Lear 28,13 Rear 36,13"
)
TARGET = pose(
    "nose 30,16 neck 29,28 Rsho 22,29 Relb 12,40 Rwri 20,52 Lsho 38,29 Lelb 44,46 Lwri 52,58 Rhip 24,64 Rkne 18,88 Rank 26,112 "
    "Lhip 36,64 Lkne 44,86 Lank - Leye 28,14 Reye 32,14 Lear - Rear 34,15"
)
OFF = [[1.0, 0.0, 1000.0], [0.0, 1.0, 1000.0]]
#: Made by NumPy's least squares, and for the limbs by solving for three corners.
MATRICES = [
    [[1.2200, 0.0, -4.6000], [0.0, 1.0, -2.0]],
    [[1.2160, 0.0142, -4.9012], [0.0, 1.0, -2.0]],
    [[0.9812, 0.2036, -11.5813], [-0.2175, 1.0289, 1.3683]],
    [[0.9556, -0.3020, 23.9287], [0.3434, 1.0570, -18.0065]],
    [[0.9374, -0.3541, 38.2906], [0.3615, 0.9628, -3.2359]],
    OFF,
    [[0.9707, 0.3370, -9.1268], [-0.5225, 1.0705, 7.4500]],
    [[1.0018, -0.0006, 3.9498], [-0.0006, 1.0002, -1.9823]],
    [[0.7504, -0.6669, 33.6722], [0.7188, 0.8541, 1.2090]],
    [[0.7504, -0.6669, 13.6616], [0.7188, 0.8541, -26.9173]],  # the source's right forearm
]
#: Of skimage's `grid_points_in_poly`.
AREAS = [8192, 784, 417, 401, 597, 0, 252, 307, 337, 337]


def with_joints(joints: torch.Tensor, **places: tuple[float, float]) -> torch.Tensor:
    joints = joints.clone()
    for name, place in places.items():
        joints[:, JOINT[SHORT[name]]] = torch.tensor(place)
    return joints


def known(joints: torch.Tensor) -> torch.Tensor:
    return joints.isfinite().all(-1)


def inputs(size: tuple[int, int], count: int = 2) -> tuple[torch.Tensor, ...]:
    """Return what `DeformableGenerator.forward` takes, with random joints."""
    g = torch.Generator().manual_seed(0)
    image = torch.rand(count, 3, *size, generator=g) * 2 - 1
    heat = torch.rand(2, count, 18, *size, generator=g)
    joints = torch.rand(2, count, 18, 2, generator=g) * torch.tensor([size[1] - 1, size[0] - 1])
    regions = body_regions(*joints, *size)
    return image, *heat, regions.matrices, regions.masks


# -- regions ----------------------------------------------------------------------------------------------------------


def test_matrices_of_two_poses_are_those_of_an_independent_solver() -> None:
    assert len(REGIONS) == 10
    found = affine_matrices(SOURCE, TARGET)
    torch.testing.assert_close(found[0], torch.tensor(MATRICES).double(), atol=6e-5, rtol=0)


def test_torso_lengths() -> None:
    for joints, length in ((SOURCE, 35.12834), (TARGET, 35.05710)):
        assert torso_length(joints.double(), known(joints)).item() == pytest.approx(length, abs=1e-5)


def test_areas_of_masks_are_those_of_another_polygon_filler() -> None:
    """Head and torso are equal. Rectangles differ in the pixels on their edges, which all belong to them here."""
    masks = region_masks(TARGET, *MARKET)
    areas = masks.sum((2, 3))[0].tolist()
    assert areas[:2] == AREAS[:2]
    assert areas[2:] == pytest.approx(AREAS[2:], rel=0.02)
    rows, columns = masks[0, 1].nonzero().T
    assert [rows.min(), rows.max(), columns.min(), columns.max()] == [0, 27, 17, 44]


UPRIGHT = "Rsho 10,10 Rhip 10,50 Lsho 30,10 Lhip 30,50"  # torso length 40
SMALLER = "Rsho 10,10 Rhip 10,30 Lsho 30,10 Lhip 30,30"  # torso length 20


def test_a_thigh_by_hand() -> None:
    """A thigh that hangs down in the target and lies along a row in the source: a quarter turn."""
    target = with_joints(pose(UPRIGHT), Rhip=(20, 40), Rkne=(20, 60), Rsho=(20, 0), Lhip=(50, 40), Lsho=(50, 0))
    source = with_joints(pose(UPRIGHT), Rhip=(40, 30), Rkne=(60, 30), Rsho=(40, 70), Lhip=(70, 30), Lsho=(70, 70))
    corners, drawn = limb_rectangles(target.double(), known(target), 0.3)
    wanted = torch.tensor([[28, 38], [12, 38], [12, 62.2], [28, 62.2]], dtype=torch.float64)
    torch.testing.assert_close(corners[0, 0], wanted, atol=1e-9, rtol=0)
    assert drawn[0].tolist() == [True] + 7 * [False]
    matrix = affine_matrices(source, target)[0, 2]
    torch.testing.assert_close(matrix, torch.tensor([[0, 1, 0], [-1, 0, 50]]).double(), atol=1e-9, rtol=0)


def test_a_shin_by_hand_half_as_long_in_a_person_half_as_tall() -> None:
    target = with_joints(pose(UPRIGHT), Rkne=(20, 40), Rank=(20, 60))
    source = with_joints(pose(SMALLER), Rkne=(40, 30), Rank=(50, 30))
    matrix = affine_matrices(source, target)[0, 4]
    torch.testing.assert_close(matrix, torch.tensor([[0, 0.5, 20], [-0.5, 0, 40]]).double(), atol=1e-9, rtol=0)


def test_shins_reach_further_in_masks_than_in_matrices() -> None:
    """The shin from (20, 40) to (20, 60) starts at row 38. It ends 0.5 x 22 rows below the ankle, at row 71."""
    target = with_joints(pose(UPRIGHT), Rkne=(20, 40), Rank=(20, 60))
    rows, columns = region_masks(target, *MARKET)[0, 4].nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (38, 71, 12, 28)
    corners, _ = limb_rectangles(target.double(), known(target), 0.3)
    assert corners[0, 2, :, 1].max().item() == pytest.approx(60 + 0.3 * 22)


def test_equal_poses_have_identity_maps() -> None:
    whole = with_joints(TARGET, Lank=(46, 110), Lear=(26, 15))
    identity = torch.eye(2, 3).double().expand(1, 10, 2, 3)
    torch.testing.assert_close(affine_matrices(whole, whole), identity, atol=1e-9, rtol=0)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_joints_are_mapped_onto_joints(seed) -> None:
    """Upper and lower limbs, for poses at random. Lengths grow with the limb, widths with the torso."""
    joints = torch.rand(2, 1, 18, 2, generator=torch.Generator().manual_seed(seed)).double() * 60
    source, target = joints
    matrices = affine_matrices(source, target)[0]
    limbs = {2: ("Rhip", "Rkne"), 5: ("Lkne", "Lank"), 7: ("Lsho", "Lelb"), 8: ("Relb", "Rwri")}
    for region, ends in limbs.items():
        (s, t) = (torch.stack([pose_[0, JOINT[SHORT[name]]] for name in ends]) for pose_ in (source, target))
        if min((s[0] - s[1]).norm(), (t[0] - t[1]).norm()) < 1:
            continue
        matrix = matrices[region]
        torch.testing.assert_close(t @ matrix[:, :2].T + matrix[:, 2], s, atol=1e-6, rtol=0)
        lengths = (s[0] - s[1]).norm() / (t[0] - t[1]).norm()
        widths = torso_length(source, known(source)) / torso_length(target, known(target))
        scales = torch.stack([lengths, widths[0]]).sort().values
        torch.testing.assert_close(torch.linalg.svdvals(matrix[:, :2]).sort().values, scales, atol=1e-6, rtol=1e-6)


def test_a_limb_that_the_source_lacks_on_both_sides_is_off() -> None:
    without = with_joints(SOURCE, Rwri=(NAN, NAN))
    assert affine_matrices(without, TARGET)[0, 8:].tolist() == [OFF, OFF]
    # The other limbs are as before.
    assert torch.equal(affine_matrices(without, TARGET)[0, :8], affine_matrices(SOURCE, TARGET)[0, :8])


def test_the_source_s_limb_of_the_other_side_is_used_as_it_lies_in_the_image() -> None:
    """It is not flipped: the left elbow and wrist of the target are mapped onto the right ones of the source."""
    matrix = affine_matrices(SOURCE, TARGET)[0, 9]
    for name in ("elb", "wri"):
        place = TARGET[0, JOINT[SHORT[f"L{name}"]]].double()
        wanted = SOURCE[0, JOINT[SHORT[f"R{name}"]]].double()
        torch.testing.assert_close(matrix[:, :2] @ place + matrix[:, 2], wanted, atol=1e-9, rtol=0)


def test_a_head_without_a_common_point_is_off_and_one_without_a_point_has_no_mask() -> None:
    gone = (NAN, NAN)
    only_ears = with_joints(SOURCE, nose=gone, Leye=gone, Reye=gone)
    only_eyes = with_joints(TARGET, nose=gone, Rear=gone)
    assert affine_matrices(only_ears, only_eyes)[0, 1].tolist() == OFF
    assert region_masks(only_eyes, *MARKET)[0, 1].any()
    assert not region_masks(with_joints(only_eyes, Leye=gone, Reye=gone), *MARKET)[0, 1].any()


@pytest.mark.parametrize(("half_width", "on"), [(0.0, False), (0.9, False), (1.1, True), (8.0, True)])
def test_a_torso_that_is_nearly_a_line_in_the_target_is_off(half_width, on) -> None:
    """Torsos 40 pixels long. Their joints spread by `half_width` across and by 20 along: 0.05 of it is 1 pixel."""
    w = half_width
    target = pose(f"Rsho {30 - w},10 Rhip {30 - w},50 Lsho {30 + w},10 Lhip {30 + w},50")
    source = pose(UPRIGHT)
    matrix = affine_matrices(source, target)[0, 0]
    assert (matrix.tolist() != OFF) == on
    if on:  # x = 30 is the middle of the target, x = 20 that of the source, whose half width is 10
        wanted = torch.tensor([[10 / w, 0, 20 - 30 * 10 / w], [0, 1, 0]]).double()
        torch.testing.assert_close(matrix, wanted, atol=1e-3, rtol=1e-5)
    # The same rule does not depend on where the torso leans to: it is turned by 30 degrees here.
    cos, sin = 3**0.5 / 2, 0.5
    turned = target @ torch.tensor([[cos, sin], [-sin, cos]])
    assert (affine_matrices(source, turned)[0, 0].tolist() != OFF) == on


def test_a_source_torso_on_a_line_is_off_because_its_map_has_no_inverse() -> None:
    line = pose("Rsho 30,10 Rhip 30,50 Lsho 30,10 Lhip 30,50")
    assert affine_matrices(line, pose(UPRIGHT))[0, 0].tolist() == OFF


def test_coinciding_joints_are_a_square_of_two_pixels() -> None:
    target = with_joints(pose(UPRIGHT), Relb=(40, 20), Rwri=(40, 20))
    mask = region_masks(target, *MARKET)[0, 8]
    assert mask.nonzero().tolist() == [[y, x] for y in (19, 20, 21) for x in (39, 40, 41)]
    source = with_joints(pose(UPRIGHT), Relb=(50, 30), Rwri=(50, 30))
    wanted = torch.tensor([[1, 0, 10], [0, 1, 10]]).double()
    torch.testing.assert_close(affine_matrices(source, target)[0, 8], wanted, atol=1e-9, rtol=0)


def test_without_a_torso_all_limbs_are_off_and_everything_is_finite() -> None:
    nothing = torch.full((1, 18, 2), NAN)
    for source, target in ((nothing, nothing), (SOURCE, nothing), (nothing, TARGET)):
        regions = body_regions(source, target, *MARKET)
        assert regions.matrices.tolist() == [10 * [OFF]]
        assert regions.masks[0, 0].all()
        assert not body_regions(source, nothing, *MARKET).masks[:, 1:].any()
    no_hip = with_joints(TARGET, Lhip=(NAN, NAN))
    regions = body_regions(SOURCE, no_hip, *MARKET)
    assert regions.matrices[0, 0].tolist() == OFF
    assert regions.matrices[0, 2:].tolist() == 8 * [OFF]
    assert not regions.masks[:, 1:].any()
    assert regions.matrices.isfinite().all()


def test_joints_that_all_coincide_are_finite() -> None:
    same = torch.full((1, 18, 2), 20.0)
    regions = body_regions(same, same, *MARKET)
    assert regions.matrices.isfinite().all()
    assert not regions.masks[:, 1:].any()


def test_pairs_of_a_batch_do_not_touch_each_other() -> None:
    nothing = torch.full((1, 18, 2), NAN)
    sources, targets = torch.cat([SOURCE, nothing, TARGET]), torch.cat([TARGET, TARGET, SOURCE])
    together = body_regions(sources, targets, *MARKET)
    for i in range(3):
        alone = body_regions(sources[i : i + 1], targets[i : i + 1], *MARKET)
        assert torch.equal(together.matrices[i], alone.matrices[0])
        assert torch.equal(together.masks[i], alone.masks[0])


def test_fit_ignores_points_without_weight_and_finds_an_affine_map() -> None:
    g = torch.Generator().manual_seed(3)
    points = torch.rand(5, 7, 2, generator=g).double() * 50
    matrix = torch.randn(5, 2, 3, generator=g).double()
    images = points @ matrix[:, :, :2].mT + matrix[:, None, :, 2]
    images[:, 5:] += 100
    weights = torch.ones(5, 7)
    weights[:, 5:] = 0
    found, spread = fit_affine(points, images, weights)
    torch.testing.assert_close(found, matrix, atol=1e-8, rtol=0)
    deviations = torch.linalg.svdvals(points[:, :5] - points[:, :5].mean(1, keepdim=True))
    torch.testing.assert_close(spread, deviations[:, 1] / deviations[:, 0], atol=1e-9, rtol=0)


def test_pixels_on_the_edges_of_a_rectangle_belong_to_it() -> None:
    x, y = torch.arange(8), torch.arange(6)
    straight = torch.tensor([[2.0, 1.0], [5.0, 1.0], [5.0, 3.0], [2.0, 3.0]])
    diamond = torch.tensor([[3.0, 0.0], [5.0, 2.0], [3.0, 4.0], [1.0, 2.0]])
    inside = inside_rectangles(torch.stack([straight, diamond]), x, y)
    assert inside.sum((1, 2)).tolist() == [4 * 3, 13]
    assert inside[1].nonzero().tolist() == [[r, c] for r in range(5) for c in range(8) if abs(r - 2) + abs(c - 3) <= 2]


# -- warps ------------------------------------------------------------------------------------------------------------


def identity_maps(count: int = 1) -> torch.Tensor:
    return torch.eye(2, 3).double().expand(count, 10, 2, 3).clone()


@pytest.mark.parametrize("sampling", ["bilinear", "nearest"])
def test_identity_maps_leave_only_what_is_positive_outside_of_the_limbs(sampling) -> None:
    features = torch.randn(1, 5, 16, 8, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(1, 10, 16, 8, dtype=torch.bool)
    masks[:, 0] = True
    found = deform(features, identity_maps(), masks, sampling)
    torch.testing.assert_close(found, features.clamp(min=0), atol=1e-5, rtol=0)
    # Where all ten regions lie, there is no zero among the ten values.
    found = deform(features, identity_maps(), torch.ones_like(masks), sampling)
    torch.testing.assert_close(found, features, atol=1e-5, rtol=0)


@pytest.mark.parametrize("sampling", ["bilinear", "nearest"])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_translations_are_divided_by_the_stride_and_zeros_lie_outside(sampling, stride) -> None:
    features = torch.rand(1, 3, 16, 8) + 1
    matrices = identity_maps()
    matrices[..., 0, 2], matrices[..., 1, 2] = 2.0 * stride, -3.0 * stride
    masks = torch.ones(1, 10, 16 * stride, 8 * stride, dtype=torch.bool)
    found = deform(features, matrices, masks, sampling)
    wanted = torch.zeros_like(features)
    wanted[..., 3:, :6] = features[..., :13, 2:]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_half_pixels_are_averages_or_round_away_from_zero() -> None:
    features = torch.arange(1.0, 9.0).view(1, 1, 1, 8)
    masks = torch.ones(1, 10, 1, 8, dtype=torch.bool)
    matrices = identity_maps()
    matrices[..., 0, 2] = 0.5
    assert deform(features, matrices, masks, "nearest").flatten().tolist() == [2, 3, 4, 5, 6, 7, 8, 0]
    found = deform(features, matrices, masks, "bilinear").flatten().tolist()
    assert found == pytest.approx([1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7.5, 4.0], abs=1e-5)
    matrices[..., 0, 2] = -0.5  # the first pixel comes from -0.5, which becomes -1 and lies outside
    assert deform(features, matrices, masks, "nearest").flatten().tolist() == [0, 2, 3, 4, 5, 6, 7, 8]


def test_a_mask_is_taken_at_every_stride_th_pixel() -> None:
    masks = torch.zeros(1, 10, 8, 8, dtype=torch.bool)
    masks[0, 3, 4, 2] = True
    masks[0, 3, 5, 3] = True  # between the places that are taken
    found = deform(torch.ones(1, 1, 4, 4), identity_maps(), masks, "bilinear")
    assert found[0, 0].nonzero().tolist() == [[2, 1]]


def test_the_largest_of_the_regions_wins_and_receives_the_gradient() -> None:
    """Region 0 stays, region 1 comes from one pixel to the right. The gradient is that of the maximum of both."""
    features = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(1)).requires_grad_()
    matrices = identity_maps(2)
    matrices[:, 1, 0, 2] = 1.0
    masks = torch.zeros(2, 10, 6, 5, dtype=torch.bool)
    masks[:, :2] = True
    weights = torch.rand(2, 3, 6, 5)
    (found,) = torch.autograd.grad((weights * deform(features, matrices, masks, "bilinear")).sum(), features)
    right = torch.nn.functional.pad(features, (0, 1))[..., 1:]
    (wanted,) = torch.autograd.grad((weights * torch.maximum(features, right)).sum(), features)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_not_all_warped_copies_are_kept_for_the_gradients() -> None:
    """What a deformation of one level keeps is less than four copies of it, with ten regions."""
    features = torch.rand(1, 8, 64, 32, requires_grad=True)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t), lambda t: t
    ):
        deform(features, identity_maps(), torch.ones(1, 10, 64, 32, dtype=torch.bool), "bilinear")
    places = 10 * 64 * 32 * 2 * 4
    assert sum(t.nbytes for t in kept.values()) < 4 * features.nbytes + places


# -- networks ---------------------------------------------------------------------------------------------------------


def count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.parametrize(
    ("size", "appearance", "pose_encoder", "whole"),
    [(MARKET, 11_153_288, 11_151_560, 61_109_085), (FASHION, 15_347_594, 15_345_866, 82_080_611)],
)
def test_parameters_are_as_many_as_the_authors(size, appearance, pose_encoder, whole) -> None:
    with torch.device("meta"):
        generator = DeformableGenerator(DeformableOptions(), size)
        discriminator = DeformableDiscriminator(DeformableOptions(), size)
    assert count(generator.appearance) == appearance
    assert count(generator.pose) == pose_encoder
    assert count(generator.decoder) + count(generator.last) == {MARKET: 38_804_237, FASHION: 51_387_151}[size]
    assert count(generator) == whole
    assert count(discriminator) == 2_803_782


def convolutions(counter: FlopCounterMode) -> float:
    counts = counter.get_flop_counts()["Global"]
    return sum(flops for operation, flops in counts.items() if "convolution" in str(operation)) / 2


@pytest.mark.parametrize(
    ("size", "generator_macs", "discriminator_macs", "outputs"),
    [(MARKET, 8.562e9, 0.244e9, (3, 1)), (FASHION, 69.034e9, 2.190e9, (7, 7))],
)
def test_multiply_adds_are_as_many_as_the_authors(size, generator_macs, discriminator_macs, outputs) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True):  # only shapes are computed, as on the meta device
        given_ = inputs(size, count=1)
        generator = DeformableGenerator(DeformableOptions(), size)
        discriminator = DeformableDiscriminator(DeformableOptions(), size)
        with FlopCounterMode(display=False) as counter:
            image = generator(*given_)
        assert image.shape == (1, 3, *size)
        assert convolutions(counter) == pytest.approx(generator_macs, abs=0.5e6)
        with FlopCounterMode(display=False) as counter:
            logits = discriminator(given_[0], given_[1], image, given_[2])
    assert logits.shape == (1, *outputs)
    assert convolutions(counter) == pytest.approx(discriminator_macs, abs=0.5e6)


@pytest.mark.parametrize(
    ("size", "maps"),
    [
        (MARKET, [(64, 128, 64), (128, 64, 32), (256, 32, 16), (512, 16, 8), (512, 8, 4), (512, 4, 2)]),
        (
            FASHION,
            [(64, 256, 256), (128, 128, 128), (256, 64, 64), (512, 32, 32), (512, 16, 16), (512, 8, 8), (512, 4, 4)],
        ),
    ],
)
def test_the_encoder_s_maps_have_the_authors_shapes(size, maps) -> None:
    with torch.device("meta"):
        encoder = DeformableGenerator(DeformableOptions(), size).pose
    assert [tuple(x.shape[1:]) for x in encoder(torch.empty(1, 18, *size, device="meta"))] == maps


def test_the_discriminator_s_maps_have_the_authors_shapes() -> None:
    with torch.device("meta"):
        layers = DeformableDiscriminator(DeformableOptions(), MARKET).layers
    x, shapes = torch.empty(1, 42, *MARKET, device="meta"), []
    for layer in layers:
        x = layer(x)
        if isinstance(layer, torch.nn.Conv2d):
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(64, 63, 31), (128, 31, 15), (256, 15, 7), (512, 7, 3), (1, 3, 1)]


def test_a_logit_sees_94_pixels() -> None:
    torch.manual_seed(0)
    discriminator = DeformableDiscriminator(dataclasses.replace(NARROW, normalization="instance"), FASHION)
    for i, layer in enumerate(discriminator.layers):
        if isinstance(layer, torch.nn.InstanceNorm2d):  # it sees the whole map
            discriminator.layers[i] = torch.nn.Identity()
    image = torch.zeros(1, 3, *FASHION, requires_grad=True)
    heat = torch.zeros(1, 18, *FASHION)
    logits = discriminator(torch.zeros(1, 3, *FASHION), heat, image, heat)
    (gradient,) = torch.autograd.grad(logits[0, 3, 3], image)
    rows, columns = gradient.abs().sum((0, 1)).nonzero().T
    assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (94, 94)


@pytest.mark.parametrize("normalization", ["layer", "instance"])
@pytest.mark.parametrize("size", [(32, 32), (64, 32), (48, 48), (128, 64), (256, 176), (256, 256)])
def test_all_sizes_give_images_and_logits(size, normalization) -> None:
    options = dataclasses.replace(NARROW, normalization=normalization)
    generator, discriminator = DeformableGenerator(options, size), DeformableDiscriminator(options, size)
    given_ = inputs(size, count=1)
    image = generator(*given_)
    assert image.shape == (1, 3, *size)
    assert image.abs().max() <= 1
    assert discriminator(given_[0], given_[1], image, given_[2]).numel() > 0


def test_levels() -> None:
    assert [level_count(*size) for size in (MARKET, FASHION, (256, 176), (32, 32), (128, 32))] == [6, 7, 7, 4, 5]


def test_layer_norm_goes_over_all_of_a_sample_and_has_one_scale() -> None:
    x = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0)) * 7 + 2
    norm = LayerNorm()
    assert count(norm) == 2
    with torch.no_grad():
        norm.weight.fill_(3.0)
        norm.bias.fill_(-1.0)
    for found, sample in zip(norm(x), x, strict=True):
        deviation = ((sample - sample.mean()) ** 2).mean() ** 0.5
        torch.testing.assert_close(found, (sample - sample.mean()) / (deviation + 1e-3) * 3 - 1)
    even = torch.full((1, 4, 5, 6), 2.0, requires_grad=True)
    norm(even).square().sum().backward()
    assert torch.equal(norm(even), torch.full_like(even, -1.0))
    assert even.grad.isfinite().all()


def test_a_last_layer_without_weights_gives_a_grey_image() -> None:
    generator = DeformableGenerator(NARROW, MARKET)
    torch.nn.init.zeros_(generator.last.weight)
    with torch.no_grad():
        generator.last.bias.fill_(0.5)
    torch.testing.assert_close(generator(*inputs(MARKET)), torch.tensor(0.5).tanh().expand(2, 3, *MARKET))


def test_without_weights_everything_is_finite_also_the_gradients() -> None:
    method = build_method(RUN, CPU)
    with torch.no_grad():
        for network in method.networks.values():
            for weight in network.parameters():
                weight.zero_()
    losses = method.update([batch_of(method)], 0)
    assert losses["adversarial"].item() == pytest.approx(0.6931, abs=1e-3)
    assert losses["discriminator"].item() == pytest.approx(2 * 0.6931, abs=2e-3)
    assert all(w.isfinite().all() for n in method.networks.values() for w in n.parameters())


def test_dropout_is_in_the_first_three_blocks_and_off_when_images_are_made() -> None:
    generator = DeformableGenerator(NARROW, MARKET)
    assert [block.dropout.p for block in generator.decoder] == [0.5, 0.5, 0.5, 0.0, 0.0]
    given_ = inputs(MARKET, count=1)
    assert not torch.equal(generator(*given_), generator(*given_))
    generator.eval()
    assert torch.equal(generator(*given_), generator(*given_))


def test_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    generator = DeformableGenerator(NARROW, MARKET).eval()
    given_ = inputs(MARKET, count=3)
    with torch.no_grad():
        together = generator(*given_)
        alone = torch.cat([generator(*(x[i : i + 1] for x in given_)) for i in range(3)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_weights_begin_with_glorot_s_uniform_distribution() -> None:
    torch.manual_seed(0)
    generator = DeformableGenerator(dataclasses.replace(NARROW, width=16), (64, 64))
    weight = generator.decoder[0].convolution.weight  # 256 channels -> 128, 4 x 4
    bound = (6 / (16 * (256 + 128))) ** 0.5
    assert weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not generator.last.bias.any()


def test_nothing_reads_a_value_from_the_device() -> None:
    """Fake tensors have no values. Reading one, which would also stop the recording of a CUDA graph, is an error."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        given_ = inputs(MARKET)
        image = DeformableGenerator(NARROW, MARKET)(*given_)
        logits = DeformableDiscriminator(NARROW, MARKET)(*given_[:2], image, given_[2])
        loss = judged_real(logits) + nearest_neighbour_loss(image, given_[0], 3)
        loss.backward()
        with pytest.raises(RuntimeError):
            loss.item()


# -- losses -----------------------------------------------------------------------------------------------------------


def test_nearest_neighbour_loss_of_a_shifted_map_is_zero_inside_the_frame() -> None:
    real = torch.rand(1, 6, 12, 10, generator=torch.Generator().manual_seed(0))
    for down, right in ((0, 0), (1, 0), (-1, 1), (1, 1)):
        moved = real.roll((down, right), (2, 3))
        inside = moved.clone()
        border = torch.ones(12, 10, dtype=torch.bool)
        border[1:-1, 1:-1] = False
        inside[..., border] = real[..., border]  # what was rolled in from the other side
        assert nearest_neighbour_loss(inside, real, 3).item() == 0
    assert nearest_neighbour_loss(real.roll(2, 2), real, 3).item() > 0.1
    two = real.roll(2, 2)
    two[:, :, :2] = real[:, :, :2]
    assert nearest_neighbour_loss(two, real, 5).item() == 0


def test_nearest_neighbour_loss_of_flat_maps_is_the_sum_over_channels() -> None:
    generated, real = torch.full((2, 6, 5, 4), 0.75), torch.full((2, 6, 5, 4), 0.5)
    for window in (1, 3, 5):
        assert nearest_neighbour_loss(generated, real, window).item() == pytest.approx(6 * 0.25)


@pytest.mark.parametrize("window", [1, 3, 5])
def test_nearest_neighbour_loss_and_its_gradient_are_those_of_a_plain_minimum(window) -> None:
    g = torch.Generator().manual_seed(window)
    generated, real = (torch.rand(2, 3, 7, 6, generator=g) for _ in range(2))
    generated.requires_grad_()
    reach = window // 2
    distances = []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            shifted = torch.full_like(real, -10_000.0)
            rows, columns = slice(max(dy, 0), 7 + min(dy, 0)), slice(max(dx, 0), 6 + min(dx, 0))
            to_rows, to_columns = slice(max(-dy, 0), 7 + min(-dy, 0)), slice(max(-dx, 0), 6 + min(-dx, 0))
            shifted[..., to_rows, to_columns] = real[..., rows, columns]
            distances.append((generated - shifted).abs().sum(1))
    wanted = torch.stack(distances).amin(0).mean()
    found = nearest_neighbour_loss(generated, real, window)
    torch.testing.assert_close(found, wanted)
    ours, theirs = (torch.autograd.grad(value, generated)[0] for value in (found, wanted))
    torch.testing.assert_close(ours, theirs)


def test_adversarial_losses_by_hand() -> None:
    logits = torch.tensor([0.0, 3.0])
    real = torch.tensor([0.5, 0.9525741])
    assert judged_real(logits).item() == pytest.approx(-real.log().mean().item(), abs=1e-5)
    assert judged_fake(logits).item() == pytest.approx(-(1 - real).log().mean().item(), abs=1e-5)
    # 1e-7 inside of the logarithm bounds both.
    assert judged_fake(torch.tensor([200.0])).item() == pytest.approx(16.118, abs=1e-3)


def test_the_scale_of_features_makes_up_for_the_range_of_images() -> None:
    """A network of VGG's shape without biases, fed once as torchvision's is and once as the authors' ([0, 255] less the mean)."""
    scale = DeformableOptions().feature_scale
    assert scale == pytest.approx(255 * sum(IMAGENET_DEVIATION) / 3, rel=1e-2)
    image = torch.nn.functional.interpolate(
        torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1, (32, 32), mode="bilinear"
    )
    ours = Vgg19("random", 16, "relu1_2")
    theirs = Vgg19("random", 16, "relu1_2", normalise=False)
    mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    (found,) = ours(image, ["relu1_2"]).values()
    (wanted,) = theirs(255 * ((image + 1) / 2 - mean), ["relu1_2"]).values()
    assert (wanted.abs().mean() / found.abs().mean()).item() == pytest.approx(scale, rel=0.02)


# -- method -----------------------------------------------------------------------------------------------------------


def batch_of(method: DeformableGAN, positions: range = range(4)) -> Batch:
    return dots().batch(positions, CPU, method.needs)


def test_the_logged_losses_are_those_of_the_networks_as_they_were() -> None:
    run = dataclasses.replace(
        RUN,
        options=dataclasses.replace(NARROW, dropout=0.0, feature_scale=2.0),
        training=dataclasses.replace(RUN.training, perceptual_width=16),  # a quarter of VGG's channels
    )
    method = build_method(run, CPU)
    batch = batch_of(method)
    with torch.no_grad():
        fake = method.generator.synthesise(batch).image
        judged = [
            method.networks["discriminator"](batch.source_image, batch.source_heatmaps, x, batch.target_heatmaps)
            for x in (fake, batch.target_image)
        ]
        maps = [method.features(x, ["relu1_2"])["relu1_2"] for x in (fake, batch.target_image)]
    losses = method.update([batch], 0)
    torch.testing.assert_close(losses["adversarial"], judged_real(judged[0]))
    torch.testing.assert_close(losses["discriminator"], judged_real(judged[1]) + judged_fake(judged[0]))
    torch.testing.assert_close(losses["nearest_neighbour"], 4 * 2 * nearest_neighbour_loss(*maps, window=3))


@pytest.mark.parametrize("other", [{}, {"normalization": "instance"}, {"sampling": "nearest", "window": 5}])
def test_every_weight_receives_a_gradient(other) -> None:
    method = build_method(dataclasses.replace(RUN, options=dataclasses.replace(NARROW, **other)), CPU)
    method.update([batch_of(method)], 0)
    for name, network in method.networks.items():
        for weight_name, weight in network.named_parameters():
            assert weight.grad is not None, (name, weight_name)
            assert weight.grad.isfinite().all()
            assert weight.grad.abs().max() > 0, (name, weight_name)


def test_missing_joints_leave_an_update_finite() -> None:
    data = dots()
    data.joints[0] = NAN
    data.joints[1, JOINT["left_hip"]] = NAN
    data.joints[2, JOINT["nose"] :: 5] = NAN
    method = build_method(RUN, CPU)
    losses = method.update([data.batch(range(4), CPU, method.needs)], 0)
    assert all(value.isfinite() for value in losses.values())
    assert all(w.isfinite().all() for n in method.networks.values() for w in n.parameters())


def test_it_learns_four_pairs_by_heart() -> None:
    options = dataclasses.replace(NARROW, width=8, dropout=0.0)
    method = build_method(dataclasses.replace(RUN, options=options), CPU)
    data = dots()
    # Images without noise, which a small network can hold.
    data.images = (max_pool2d(data.images.float(), 16, 16)).repeat_interleave(16, 2).repeat_interleave(16, 3).byte()
    batch = data.batch(range(4), CPU, method.needs)
    losses = [method.update([batch], i)["nearest_neighbour"].item() for i in range(40)]
    assert losses[-1] < 0.1 * losses[0]


def test_the_nearest_neighbour_loss_can_be_left_out() -> None:
    method = build_method(dataclasses.replace(RUN, options=dataclasses.replace(NARROW, nearest_neighbour=0.0)), CPU)
    assert set(method.update([batch_of(method)], 0)) == {"adversarial", "discriminator"}
    assert method.record() == {"perceptual_network_sha256": None}


def test_bf16_runs_and_is_near_fp32() -> None:
    generator = DeformableGenerator(NARROW, MARKET).eval()
    given_ = inputs(MARKET)
    with torch.no_grad():
        fine = generator(*given_)
        with autocast("bf16", CPU):
            coarse = generator(*given_)
    assert coarse.dtype == torch.float32
    assert (coarse - fine).abs().mean() < 0.02
    run = dataclasses.replace(
        RUN,
        options=dataclasses.replace(NARROW, dropout=0.0),
        training=dataclasses.replace(RUN.training, precision="bf16"),
    )
    coarse_method = build_method(run, CPU)
    fine_method = build_method(
        dataclasses.replace(run, training=dataclasses.replace(run.training, precision="fp32")), CPU
    )
    coarse_losses, fine_losses = (m.update([batch_of(m)], 0) for m in (coarse_method, fine_method))
    for name, value in fine_losses.items():
        torch.testing.assert_close(coarse_losses[name], value, rtol=0.03, atol=0.01)


def test_a_state_continues_a_training_exactly_with_dropout() -> None:
    whole = build_method(RUN, CPU)
    for iteration in range(2):
        whole.update([batch_of(whole)], iteration)
    state = copy.deepcopy(whole.state_dict())
    resumed = build_method(dataclasses.replace(RUN, seed=RUN.seed + 1), CPU)  # other weights
    resumed.settings = RUN  # the seeds of updates are the same
    resumed.load_state_dict(state)
    for method in (whole, resumed):
        method.update([batch_of(method)], 2)
    assert equal(resumed.state_dict(), whole.state_dict())
