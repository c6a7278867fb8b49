"""Masks and heat maps, compared with their definitions, which are drawn pixel by pixel."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.draw import disk, polygon, polygon2mask
from skimage.morphology import dilation, erosion

from potgan.data import pose_rendering
from potgan.data.pixels import resize, scale_joints
from potgan.data.pose import JOINT, MIRROR
from potgan.settings.schema import MaskSettings

poses = st.lists(
    st.one_of(st.none(), st.tuples(st.integers(0, 63), st.integers(0, 127))), min_size=18, max_size=18
).map(lambda js: np.array([(np.nan, np.nan) if j is None else j for j in js], np.float32))


def square(size: int) -> np.ndarray:
    return np.ones((size, size), np.uint8)


def limb_mask_by_definition(joints: np.ndarray, height: int, width: int, radius: int) -> np.ndarray:
    """PG2's _getPoseMask, drawn a second time, one pixel at a time, with scikit-image's morphology."""
    mask = np.zeros((height, width), np.uint8)
    limbs = [
        (1, 2),
        (1, 5),
        (2, 3),
        (3, 4),
        (5, 6),
        (6, 7),
        (1, 8),
        (8, 9),
        (9, 10),
        (1, 11),
        (11, 12),
        (12, 13),
        (1, 0),
    ]
    limbs += [(0, 14), (14, 16), (0, 15), (15, 17), (1, 16), (1, 17), (8, 11), (5, 11), (2, 8), (16, 17)]
    rows, columns = np.mgrid[:height, :width]
    for a, b in limbs:
        if np.isnan(joints[[a, b]]).any():
            continue
        (xa, ya), (xb, yb) = joints[a].tolist(), joints[b].tolist()
        count = int(np.sqrt((xa - xb) ** 2 + (ya - yb) ** 2) / radius)
        centres = [(xa, ya), (xb, yb)]
        centres += [(int(xa + (xb - xa) * i / count), int(ya + (yb - ya) * i / count)) for i in range(1, count)]
        for x, y in centres:
            mask[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = 1
    return erosion(dilation(mask, square(5)), square(5))


@given(poses, st.sampled_from([4, 7]))
@settings(max_examples=30, deadline=None)
def test_limb_mask_equals_its_definition(joints, radius) -> None:
    found = pose_rendering.limb_mask(joints, 128, 64, radius)
    wanted = limb_mask_by_definition(joints, 128, 64, radius)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("length", "radius"), [(75, 5), (154, 7), (176, 8)])
def test_a_sample_on_a_whole_pixel_stays_there(length, radius) -> None:
    """Dividing before multiplying (i / n, then times the length) would round to below the whole pixel, which is then truncated
    to the pixel before. With radius 4 the closing hides the error, but PG2 also uses the radii 7 and 8."""
    joints = np.full((18, 2), np.nan, np.float32)
    joints[[2, 3]] = [(30, 10), (30, 10 + length)]
    found = pose_rendering.limb_mask(joints, 200, 64, radius)
    np.testing.assert_array_equal(found, limb_mask_by_definition(joints, 200, 64, radius))


@given(poses)
@settings(max_examples=30, deadline=None)
def test_full_mask_holds_the_limb_mask_and_is_binary(joints) -> None:
    limbs = pose_rendering.limb_mask(joints, 128, 64, 4)
    full = pose_rendering.pose_mask(joints, 128, 64, 4)
    assert set(np.unique(full)) <= {0, 1}
    assert (full >= limbs).all()


@given(poses)
@settings(max_examples=30, deadline=None)
def test_grey_mask_has_the_support_of_the_binary_one(joints) -> None:
    grey = pose_rendering.model_mask(joints, 128, 64, MaskSettings(levels="grey"))
    binary = pose_rendering.model_mask(joints, 128, 64, MaskSettings())
    assert set(np.unique(binary)) <= {0, 255}
    np.testing.assert_array_equal(grey > 0, binary > 0)


def test_grey_mask_tells_left_from_right_and_front_from_back() -> None:
    """A binary mask of a person and of the same outline seen from behind are equal. The grey ones are not."""
    joints = standing()
    behind = joints[list(MIRROR)]  # the same points in the image, with left and right exchanged
    binary, grey = MaskSettings(limb_radius=8), MaskSettings(limb_radius=8, levels="grey")
    masks = [pose_rendering.model_mask(j, 256, 256, binary) for j in (joints, behind)]
    np.testing.assert_array_equal(*masks)
    front, back = (pose_rendering.model_mask(j, 256, 256, grey) for j in (joints, behind))
    for name in ("elbow", "knee"):
        places = [tuple(joints[JOINT[f"{side}_{name}"]].astype(int)[::-1]) for side in ("right", "left")]
        assert front[places[0]] == back[places[1]] != front[places[1]] == back[places[0]]
    assert len(np.unique(front)) == 7  # the background and six parts


def standing() -> np.ndarray:
    """A person who faces the camera, in an image of 256 x 256 pixels, written by hand as (x, y)."""
    return np.array(
        [(128, 40), (128, 66), (104, 68), (92, 108), (90, 146), (152, 68), (164, 108), (166, 146), (112, 144), (110, 194),
         (108, 240), (144, 144), (146, 194), (148, 240), (123, 35), (133, 35), (114, 38), (142, 38)], np.float32)  # fmt: skip


def test_polygons_fill_the_cavities_of_the_torso() -> None:
    """Section IV-C: after connection and morphology "large cavities can be found within head and torso areas"."""
    joints = standing()
    limbs = pose_rendering.limb_mask(joints, 256, 256, 4)
    full = pose_rendering.pose_mask(joints, 256, 256, 4)
    corners = joints[[2, 5, 11, 8]]
    inside = polygon2mask((256, 256), corners[:, ::-1])  # scikit-image as the oracle of "inside"
    assert full[inside].mean() == 1
    assert limbs[inside].mean() < 0.9


def test_missing_joints_never_draw_and_no_joint_is_an_empty_mask() -> None:
    nothing = np.full((18, 2), np.nan, np.float32)
    assert pose_rendering.pose_mask(nothing, 128, 64, 4).sum() == 0
    assert pose_rendering.metric_mask(nothing, 128, 64).sum() == 0
    one = nothing.copy()
    one[JOINT["nose"]] = (30, 20)
    assert pose_rendering.pose_mask(one, 128, 64, 4).sum() == 0  # a limb needs both its joints
    assert pose_rendering.metric_mask(one, 128, 64).sum() > 0  # every detected joint has its disc


def test_equal_ends_and_joints_outside_do_not_raise() -> None:
    joints = np.full((18, 2), 30, np.float32)
    assert pose_rendering.metric_mask(joints, 128, 64)[30, 30] == 1
    joints[:9] = (-20, 200)
    pose_rendering.metric_mask(joints, 128, 64)
    pose_rendering.pose_mask(joints, 128, 64, 4)


def metric_mask_by_definition(joints: np.ndarray, height: int, width: int, grow: float = 0.0) -> np.ndarray:
    """Deformable GAN's produce_ma_mask, drawn with scikit-image, as Deformable GAN does.

    grow: pixels by which every side of a rectangle is moved outward."""
    mask = np.zeros((height, width), np.uint8)
    for a, b in pose_rendering.MASK_LIMBS:
        length = np.linalg.norm(joints[b] - joints[a])
        if not length > 0:
            continue
        normal = (4 + grow) * np.array([joints[a, 1] - joints[b, 1], joints[b, 0] - joints[a, 0]]) / length
        beyond = grow * (joints[b] - joints[a]) / length
        start, end = joints[a] - beyond, joints[b] + beyond
        corners = np.array([start + normal, start - normal, end - normal, end + normal])
        mask[polygon(corners[:, 1], corners[:, 0], mask.shape)] = 1
    for x, y in joints[~np.isnan(joints[:, 0])]:
        mask[disk((y, x), 4, shape=mask.shape)] = 1
    return erosion(dilation(mask, square(5)), square(5))


@given(poses)
@settings(max_examples=40, deadline=None)
def test_metric_mask_equals_scikit_images(joints) -> None:
    found = pose_rendering.metric_mask(joints, 128, 64)
    joints = joints.astype(np.float64)
    # Where a slanted edge passes exactly through pixel centres, rounding decides on their side. All other pixels must be
    # the same: rectangles a millionth of a pixel smaller and larger enclose ours (a closing keeps that order).
    assert (metric_mask_by_definition(joints, 128, 64, -1e-6) <= found).all()
    assert (found <= metric_mask_by_definition(joints, 128, 64, 1e-6)).all()


# ---------------------------------------------------------------------------------------------------------------------
# 1,000 of the published poses, drawn a second time from the description alone (docs/decisions.md, D13). The second drawing
# counts in whole numbers, so that no rounding decides.

#: PG2's 23 limbs by name; the skeleton and six more.
LIMB_NAMES = """neck-right_shoulder neck-left_shoulder right_shoulder-right_elbow right_elbow-right_wrist
    left_shoulder-left_elbow left_elbow-left_wrist neck-right_hip right_hip-right_knee right_knee-right_ankle
    neck-left_hip left_hip-left_knee left_knee-left_ankle neck-nose nose-right_eye right_eye-right_ear nose-left_eye
    left_eye-left_ear neck-right_ear neck-left_ear right_hip-left_hip left_hip-left_shoulder
    right_hip-right_shoulder right_ear-left_ear"""
NAMED_LIMBS = [tuple(JOINT[name] for name in limb.split("-")) for limb in LIMB_NAMES.split()]


@pytest.fixture(scope="module")
def thousand_poses(shared) -> list[list[tuple[int, int] | None]]:
    """(x, y) whole pixels of 1,000 people of the published test table, None where missing. They are read without the package."""
    lines = (shared / "published" / "market-annotation-test.csv").read_text().splitlines()[1:]
    poses = []
    for line in lines:
        y, x = (json.loads(part) for part in line.split(":")[1:])
        poses.append([None if -1 in joint else joint for joint in zip(x, y, strict=True)])
    people = [pose for pose in poses if any(pose)]
    return people[:: len(people) // 1000][:1000]


def as_array(pose: list[tuple[int, int] | None]) -> np.ndarray:
    return np.array([(np.nan, np.nan) if joint is None else joint for joint in pose], np.float32)


def closed(mask: np.ndarray) -> np.ndarray:
    return ndimage.minimum_filter(ndimage.maximum_filter(mask, 5), 5)


def test_pg2s_masks_of_1000_published_poses_are_the_same_in_whole_numbers(thousand_poses) -> None:
    """Every pixel of 1,000 masks is compared. Here the samples of a limb come from division of whole numbers, the discs from
    SciPy's exact distances, and the closing from SciPy's filters. The package uses none of this code, nor SciPy, for masks."""
    radius, margin = 4, 8
    for pose in thousand_poses:
        centre = np.ones((128 + 2 * margin, 64 + 2 * margin), bool)
        for a, b in NAMED_LIMBS:
            if pose[a] is None or pose[b] is None:
                continue
            (xa, ya), (xb, yb) = pose[a], pose[b]
            parts = math.isqrt(((xb - xa) ** 2 + (yb - ya) ** 2) // radius**2)  # floor(length / radius)
            on_the_way = [(xa + (xb - xa) * i // parts, ya + (yb - ya) * i // parts) for i in range(1, parts)]
            for x, y in [(xa, ya), (xb, yb), *on_the_way]:
                centre[y + margin, x + margin] = False
        discs = np.rint(ndimage.distance_transform_edt(centre) ** 2) <= radius**2 if not centre.all() else ~centre
        wanted = closed(discs[margin:-margin, margin:-margin].astype(np.uint8))
        np.testing.assert_array_equal(pose_rendering.limb_mask(as_array(pose), 128, 64, radius), wanted)


def test_deformable_gans_masks_of_1000_published_poses_differ_from_scikit_images_on_edges_only(thousand_poses) -> None:
    """Deformable GAN draws with skimage.draw.polygon. There rounding decides whether a pixel whose centre lies *exactly* on a
    slanted edge is inside. In our masks all such pixels are inside.

    Whole numbers tell whether a pixel lies on an edge (cross^2 = 16 length^2). Some 200 of 8.2 million pixels differ. If the
    pixels that are exactly on an edge are added to scikit-image's drawing before the closing, no pixel differs. Rectangles and
    discs that are drawn in whole numbers, without scikit-image, also give our mask, to the pixel.
    """
    row, column = np.mgrid[:128, :64]
    differing = 0
    for pose in thousand_poses:
        peers, exact, on_edge = (np.zeros((128, 64), np.uint8) for _ in range(3))
        for a, b in NAMED_LIMBS:
            if pose[a] is None or pose[b] is None or pose[a] == pose[b]:
                continue
            (xa, ya), (xb, yb) = pose[a], pose[b]
            dx, dy, square_ = xb - xa, yb - ya, (xb - xa) ** 2 + (yb - ya) ** 2
            along = (column - xa) * dx + (row - ya) * dy
            cross = ((row - ya) * dx - (column - xa) * dy) ** 2
            inside = (along >= 0) & (along <= square_) & (cross <= 16 * square_)
            exact |= inside
            on_edge |= inside & ((along == 0) | (along == square_) | (cross == 16 * square_))
            nx, ny = 4 * -dy / math.sqrt(square_), 4 * dx / math.sqrt(square_)
            corners_x, corners_y = [xa + nx, xa - nx, xb - nx, xb + nx], [ya + ny, ya - ny, yb - ny, yb + ny]
            peers[polygon(corners_y, corners_x, (128, 64))] = 1
        for joint in pose:
            if joint is not None:
                exact |= (column - joint[0]) ** 2 + (row - joint[1]) ** 2 < 16
                peers[disk(joint[::-1], 4, shape=(128, 64))] = 1
        found = pose_rendering.metric_mask(as_array(pose), 128, 64)
        np.testing.assert_array_equal(found, closed(exact))
        np.testing.assert_array_equal(found, closed(peers | on_edge))
        differing += (found != closed(peers)).sum()
    assert 1 - differing / (1000 * 128 * 64) > 0.9999  # 197 pixels measured


def test_metric_mask_has_the_width_of_its_rectangles() -> None:
    """There is one vertical limb, far from the border. It has half-width 4 around x = 30, and discs of radius 4 at its ends."""
    joints = np.full((18, 2), np.nan, np.float32)
    joints[[2, 3]] = [(30, 30), (30, 80)]
    mask = pose_rendering.metric_mask(joints, 128, 64)
    middle = np.flatnonzero(mask[55])
    assert 26 <= middle[0] <= 27 and 33 <= middle[-1] <= 34  # noqa: PT018
    assert 51 + 2 * 3 <= mask[:, 30].sum() <= 51 + 2 * 4


@given(poses, st.sampled_from([2.0, 6.0]))
@settings(max_examples=20, deadline=None)
def test_heat_maps_equal_the_dense_formula(joints, sigma) -> None:
    maps = pose_rendering.heatmaps(torch.from_numpy(joints)[None], 128, 64, sigma)[0].numpy()
    rows, columns = np.mgrid[:128, :64]
    for joint, found in zip(joints.astype(float), maps, strict=True):
        if np.isnan(joint[0]):
            assert (found == 0).all()
        else:
            wanted = np.exp(-((columns - joint[0]) ** 2 + (rows - joint[1]) ** 2) / (2 * sigma**2))
            np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("new", [(64, 32), (256, 128), (128, 128)])
def test_a_lit_pixel_and_its_joint_land_together(new) -> None:
    """An image with one bright spot is resized, and the scaled joint must be the spot's centre, as in OpenPifPaf's own tests."""
    image = np.zeros((128, 64, 3), np.uint8)
    image[72:80, 24:32] = 255  # centre (27.5, 75.5)
    out = resize(image, new)[..., 0].astype(float)
    rows, columns = np.mgrid[: new[0], : new[1]]
    centre = ((columns * out).sum() / out.sum(), (rows * out).sum() / out.sum())
    joint = scale_joints(np.array([[27.5, 75.5]], np.float32), (128, 64), new)[0]
    np.testing.assert_allclose(joint, centre, atol=0.05)
