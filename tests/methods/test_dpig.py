"""Tests of DPIG's first stage.

The numbers of parameters and multiply-adds were counted from the authors' layers, by hand and not by this code.
"""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from test_loop import SETTINGS
from test_pg2 import CPU, LARGE, META, SMALL, multiply_adds, pairs, parameters
from torch._subclasses.fake_tensor import FakeTensorMode

from potgan.data.batches import Batch
from potgan.data.pose import JOINT, JOINTS
from potgan.methods.dpig.generator import DPIGGenerator
from potgan.methods.dpig.method import DPIG
from potgan.methods.dpig.options import DPIGOptions
from potgan.methods.dpig.regions import REGIONS, RegionBoxes, box_places, crops
from potgan.settings.schema import RunSettings

MISSING = (float("nan"), float("nan"))
#: A pose at 128 x 64, (x, y), in the order of JOINTS. The left ankle and one ear are missing.
POSE = torch.tensor(
    [
        (30, 16), (29, 28), (22, 29), (12, 40), (20, 52), (38, 29), (44, 46), (52, 58), (24, 64),
        (18, 88), (26, 112), (36, 64), (44, 86), MISSING, (28, 14), (32, 14), MISSING, (34, 15),
    ]
)  # fmt: skip


def settings(size: tuple[int, int] = (32, 32), options: DPIGOptions | None = None, **training) -> RunSettings:
    return dataclasses.replace(
        SETTINGS,
        method="dpig",
        image_size=size,
        options=options or DPIGOptions(width=8, discriminator_width=8),
        training=dataclasses.replace(SETTINGS.training, **training),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Regions


def test_the_regions_are_the_authors_seven() -> None:
    assert [sorted(joints) for joints in REGIONS.values()] == [
        [0, 1, 2, 5, 14, 15, 16, 17],
        [2, 3, 4, 5, 6, 7, 8, 11],
        [8, 9, 10, 11, 12, 13],
        [5, 6, 7],
        [2, 3, 4],
        [11, 12, 13],
        [8, 9, 10],
    ]


def test_the_boxes_of_a_pose_are_the_authors() -> None:
    boxes, seen = RegionBoxes(SMALL)(POSE[None])
    assert seen.all()
    assert boxes[0].tolist() == [
        [8, 16, 35, 44],
        [23, 6, 70, 58],
        [58, 12, 118, 50],
        [23, 32, 64, 58],
        [23, 6, 58, 28],
        [58, 30, 92, 50],
        [58, 12, 118, 32],
    ]


def test_a_region_with_one_joint_has_a_wider_margin_and_one_without_is_not_seen() -> None:
    pose = torch.full((1, 18, 2), torch.nan)
    pose[0, JOINT["left_knee"]] = torch.tensor([60.0, 86.0])
    boxes, seen = RegionBoxes(SMALL)(pose)
    assert dict(zip(REGIONS, seen[0].tolist(), strict=True)) == {name: name in ("legs", "left leg") for name in REGIONS}
    assert boxes[0].tolist() == [[76, 50, 96, 63] if name in ("legs", "left leg") else [0, 0, 1, 1] for name in REGIONS]


def test_the_margins_at_256_depend_on_whether_both_lower_legs_are_seen() -> None:
    pose = torch.full((2, 18, 2), torch.nan)
    for name, place in {
        "nose": (100, 60),
        "neck": (100, 90),
        "right_wrist": (5, 250),
        "left_knee": (90, 180),
        "right_ankle": (110, 200),
    }.items():
        pose[:, JOINT[name]] = torch.tensor(place, dtype=torch.float32)
    pose[1, JOINT["right_ankle"]] = torch.nan
    boxes, _ = RegionBoxes(LARGE)(pose)
    names = list(REGIONS)
    head, legs, arm, left = (names.index(name) for name in ("head", "legs", "right arm", "left leg"))
    # Both seen: margins of 10, and 20 around a single joint; the nose counts as 10 pixels higher.
    assert boxes[0, head].tolist() == [40, 90, 100, 110]
    assert boxes[0, legs].tolist() == [170, 80, 210, 120]
    assert boxes[0, arm].tolist() == [230, 0, 255, 25]
    assert boxes[0, left].tolist() == [160, 70, 200, 110]
    # One of them missing: 20, 40 and 25.
    assert boxes[1, head].tolist() == [15, 80, 110, 120]
    assert boxes[1, left].tolist() == [140, 50, 220, 130]


def test_the_margins_of_other_sizes_are_in_proportion() -> None:
    half, _ = RegionBoxes((64, 32))(POSE[None] / 2)
    whole, _ = RegionBoxes((128, 128))(POSE[None])  # a wide image, in which the clip at the right does not matter
    torch.testing.assert_close(half * 2, whole)


def test_the_places_of_a_crop_are_those_of_tensorflow() -> None:
    places = box_places(torch.tensor([24.0, 11.0, 66.0, 26.0]), 48, (128, 64))
    assert places.shape == (48, 48, 2)
    assert places[0, 0].tolist() == pytest.approx([10.828125, 23.8125])
    assert places[-1, -1].tolist() == pytest.approx([25.59375, 65.484375])
    assert places[3, :, 1].unique().numel() == 1  # a row of the crop is a row of the map
    torch.testing.assert_close(
        places[1, 0, 1] - places[0, 0, 1], places[-1, 0, 1] - places[-2, 0, 1], rtol=1e-4, atol=0
    )


def test_crops_of_a_ramp_hold_its_coordinates() -> None:
    """A feature map that holds x and y is cut exactly by bilinear sampling. Each image has boxes of its own."""
    y, x = torch.meshgrid(torch.arange(128.0), torch.arange(64.0), indexing="ij")
    maps = torch.stack([torch.stack([x, y]), torch.stack([x + 1000, y + 1000])])
    boxes = torch.tensor(
        [[[24.0, 11.0, 66.0, 26.0], [0.0, 0.0, 1.0, 1.0]], [[0.0, 0.0, 127.0, 63.0], [8.0, 8.0, 8.0, 8.0]]]
    )
    cut = crops(maps, boxes, 5)
    assert cut.shape == (4, 2, 5, 5)
    expected = torch.cat([box_places(boxes[i], 5, (128, 64)) + 1000 * i for i in range(2)]).permute(0, 3, 1, 2)
    torch.testing.assert_close(cut, expected, rtol=1e-5, atol=1e-3)
    assert cut[3].std(dim=(1, 2)).max() < 1e-3  # a box without extent


# ---------------------------------------------------------------------------------------------------------------------
# Networks


def test_parameters_are_those_of_the_authors_networks() -> None:
    counts = {}
    for size, background in ((SMALL, True), (LARGE, False)):
        with META:
            generator = DPIGGenerator(DPIGOptions(background=background), size)
        encoder = generator.encoder
        behind = parameters(encoder.background) if background else 0
        counts[size] = (
            parameters(encoder.stem),
            parameters(encoder.region),
            behind,
            parameters(generator.decoder),
            parameters(generator),
        )
    assert counts[SMALL] == (298_752, 22_308_384, 24_745_600, 71_197_123, 118_549_859)
    assert counts[LARGE] == (298_752, 57_842_080, 0, 82_088_387, 140_229_219)


@pytest.mark.parametrize(
    ("size", "background", "stem", "regions", "behind", "decoder"),
    [(SMALL, True, 2.44, 16.56, 8.41, 40.67), (LARGE, False, 19.6, 30.0, 0.0, 315.7)],
)
def test_multiply_adds_are_those_of_the_authors_networks(size, background, stem, regions, behind, decoder) -> None:
    within = 0.005 if size == SMALL else 0.05
    with FakeTensorMode(), torch.no_grad():
        generator = DPIGGenerator(DPIGOptions(background=background), size)
        encoder = generator.encoder
        image, mask, joints = torch.zeros(1, 3, *size), torch.zeros(1, 1, *size), torch.zeros(1, 18, 2)
        features, codes = torch.zeros(1, 128, *size), torch.zeros(1, encoder.length + 18, *size)
        cut = torch.zeros(7, 128, encoder.side, encoder.side)
        counts = [
            multiply_adds(lambda: encoder.stem(image)),
            multiply_adds(lambda: encoder.region(cut)),
            multiply_adds(lambda: encoder.background(features)) if background else 0,
            multiply_adds(lambda: generator.decoder(codes)),
        ]
        whole = multiply_adds(lambda: generator(image, joints, mask, joints))
    assert [count / 1e9 for count in counts] == pytest.approx([stem, regions, behind, decoder], abs=within)
    assert whole == sum(counts)


@pytest.mark.parametrize(
    ("size", "shapes"),
    [
        (SMALL, [(128, 48, 48), (256, 24, 24), (384, 12, 12), (512, 6, 6), (640, 3, 3)]),
        (
            LARGE,
            [(128, 64, 64), (256, 32, 32), (384, 16, 16), (512, 8, 8), (640, 4, 4), (768, 2, 2), (896, 1, 1)],
        ),
    ],
)
def test_the_maps_of_a_region_have_the_authors_shapes(size, shapes) -> None:
    with META:
        encoder = DPIGGenerator(DPIGOptions(), size).encoder
        maps = encoder.region.encoder(torch.zeros(7, 128, encoder.side, encoder.side))
    assert [tuple(m.shape[1:]) for m in maps] == shapes


def test_the_code_has_32_numbers_for_each_region_and_128_for_the_background() -> None:
    with META:
        lengths = [DPIGGenerator(DPIGOptions(background=b), SMALL).encoder.length for b in (True, False)]
    assert lengths == [224 + 128, 224]


@pytest.mark.parametrize("size", [(32, 32), (128, 64), (256, 176), (256, 256)])
@pytest.mark.parametrize("background", [True, False])
def test_an_image_has_its_size_and_does_not_depend_on_the_batch(size, background) -> None:
    torch.manual_seed(0)
    generator = DPIGGenerator(DPIGOptions(width=2, background=background), size).eval()
    batch = pairs(2, size)

    def synthesise(rows: slice) -> torch.Tensor:
        parts = {name: getattr(batch, name)[rows] for name in generator.needs}
        return generator.synthesise(Batch(**parts)).image

    with torch.no_grad():
        image = synthesise(slice(None))
        alone = [synthesise(slice(i, i + 1)) for i in range(2)]
    assert image.shape == (2, 3, *size)
    assert image.isfinite().all()
    assert image.abs().max() <= 1
    torch.testing.assert_close(image, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_without_a_code_of_the_background_no_mask_is_needed() -> None:
    needs = {b: DPIGGenerator(DPIGOptions(width=2, background=b), (32, 32)).needs for b in (True, False)}
    assert needs[True] - needs[False] == {"source_mask"}


def test_a_region_that_is_not_seen_has_a_code_of_zeros() -> None:
    torch.manual_seed(0)
    encoder = DPIGGenerator(DPIGOptions(width=8, background=False), SMALL).encoder
    torch.nn.init.ones_(encoder.region.code.bias)  # a region that is seen has a code, whatever it looks like
    pose = POSE.clone()
    pose[[JOINT[f"left_{name}"] for name in ("shoulder", "elbow", "wrist")]] = torch.nan
    codes = encoder(torch.rand(1, 3, *SMALL), pose[None], None).view(len(REGIONS), -1)
    assert [bool(code.any()) for code in codes] == [name != "left arm" for name in REGIONS]


def test_the_mask_parts_person_and_background() -> None:
    torch.manual_seed(0)
    encoder = DPIGGenerator(DPIGOptions(width=8), (64, 32)).encoder
    person = len(REGIONS) * 2
    # The stem is cut down to the middle of its kernels, so that a change of the image stays where it is made.
    for layer in encoder.stem.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.data[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
    image, pose = torch.rand(1, 3, 64, 32), POSE[None] / 2
    mask = torch.zeros(1, 1, 64, 32)
    mask[..., :16] = 0.2  # every value above 0 counts as 1
    code = encoder(image, pose, mask)
    torch.testing.assert_close(encoder(image, pose, mask.ceil()), code)
    outside, inside = image.clone(), image.clone()
    outside[..., 20], inside[..., 10] = 1 - outside[..., 20], 1 - inside[..., 10]
    changed = encoder(outside, pose, mask) != code
    assert not changed[:, :person].any()
    assert changed[:, person:].any()
    changed = encoder(inside, pose, mask) != code
    assert changed[:, :person].any()
    assert not changed[:, person:].any()


def test_the_code_is_the_same_at_every_pixel_and_the_pose_enters_only_through_its_maps() -> None:
    torch.manual_seed(0)
    generator = DPIGGenerator(DPIGOptions(width=8), (32, 32))
    batch, read = pairs(2), []
    generator.decoder.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    for pose in (batch.target_joints, batch.target_joints.flip(0)):
        generator(batch.source_image, batch.source_joints, batch.source_mask, pose)
    one, other = read
    length = generator.encoder.length
    assert one.shape == (2, length + len(JOINTS), 32, 32)
    assert torch.equal(one[:, :length], one[:, :length, :1, :1].expand(-1, -1, 32, 32))
    assert torch.equal(one[:, :length], other[:, :length])
    assert torch.equal(one[:, length:], other[:, length:].flip(0))
    assert set(one[:, length:].unique().tolist()) == {-1.0, 1.0}


def test_appearance_comes_from_the_source_and_the_pose_from_the_target() -> None:
    torch.manual_seed(0)
    generator = DPIGGenerator(DPIGOptions(width=8), (32, 32)).eval()
    batch = pairs()
    image = generator.synthesise(batch).image
    for name in ("source_image", "source_joints", "source_mask", "target_joints"):
        values = getattr(batch, name)
        other = 1 - values if name == "source_mask" else values.flip(0)
        assert not torch.equal(generator.synthesise(dataclasses.replace(batch, **{name: other})).image, image), name


# ---------------------------------------------------------------------------------------------------------------------
# Training


def test_training_reads_the_target_images_alone() -> None:
    method = DPIG(settings(), CPU)
    assert method.needs == {"target_image", "target_joints", "target_mask"}
    batch = pairs()
    method.update([Batch(**{name: getattr(batch, name) for name in method.needs})], 0)


def test_the_rate_is_halved_after_50000_and_100000_of_120000_iterations() -> None:
    method = DPIG(settings(iterations=120_000, learning_rate=2e-5), CPU)
    rates = {i: method.learning_rate(i) for i in (0, 49_999, 50_000, 99_999, 100_000, 119_999)}
    assert list(rates.values()) == pytest.approx([2e-5, 2e-5, 1e-5, 1e-5, 5e-6, 5e-6])


@pytest.mark.parametrize("size", [(32, 32), (256, 32)])
def test_the_losses_are_the_authors_sums(size) -> None:
    """Real and made images have batch statistics of their own below 256 rows, and share them from there on."""
    method = DPIG(settings(size, DPIGOptions(width=4, discriminator_width=4), learning_rate=1e-12), CPU)
    batch, (generator, judge) = pairs(3, size), method.networks.values()
    with torch.no_grad():
        made = generator(batch.target_image, batch.target_joints, batch.target_mask, batch.target_joints)
        if size[0] < 256:
            real, fake = judge(batch.target_image), judge(made)
        else:
            fake, real = judge(torch.cat([made, batch.target_image])).split(3)
    terms = method.update([batch], 0)

    def entropy(logits: torch.Tensor, label: float) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

    torch.testing.assert_close(terms["reconstruction"], F.l1_loss(made, batch.target_image))
    torch.testing.assert_close(terms["adversarial"], entropy(fake, 1.0), rtol=1e-4, atol=1e-6)
    expected = (entropy(real, 1.0) + entropy(fake, 0.0)) / 2
    torch.testing.assert_close(terms["discriminator"], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("background", [True, False])
def test_every_weight_is_trained(background) -> None:
    options = DPIGOptions(width=8, discriminator_width=8, background=background)
    method = DPIG(settings(options=options, learning_rate=1e-2), CPU)
    before = copy.deepcopy({name: dict(network.named_parameters()) for name, network in method.networks.items()})
    method.update([pairs()], 0)
    for network, weights in before.items():
        for name, weight in weights.items():
            # The batch statistics remove the bias of the convolution before them.
            if network == "discriminator" and name.endswith("bias"):
                continue
            assert not torch.equal(weight, method.networks[network].get_parameter(name)), f"{network} {name}"


def test_it_learns_four_images() -> None:
    method = DPIG(settings(iterations=60, learning_rate=2e-3), CPU)
    batch = pairs()
    terms = [method.update([batch], iteration)["reconstruction"].item() for iteration in range(30)]
    assert min(terms[25:]) < 0.6 * terms[0]


def test_bf16_is_near_fp32() -> None:
    batch, terms = pairs(), {}
    for precision in ("fp32", "bf16"):
        method = DPIG(settings(precision=precision), CPU)
        terms[precision] = [method.update([batch], iteration) for iteration in range(3)]
        assert all(weight.isfinite().all() for network in method.networks.values() for weight in network.parameters())
    for exact, coarse in zip(terms["fp32"], terms["bf16"], strict=True):
        for name, value in exact.items():
            assert coarse[name].dtype == torch.float32
            torch.testing.assert_close(coarse[name], value, rtol=0.05, atol=0.01)


def test_poses_without_joints_or_outside_the_image_train_and_make_finite_images() -> None:
    method = DPIG(settings(), CPU)
    batch = pairs()
    for value in (torch.nan, -50.0, 500.0):
        joints = torch.full((4, 18, 2), value)
        odd = dataclasses.replace(batch, target_joints=joints, source_joints=joints)
        assert all(term.isfinite() for term in method.update([odd], 0).values())
        assert method.generator.synthesise(odd).image.isfinite().all()
    assert all(weight.isfinite().all() for weight in method.generator.parameters())
