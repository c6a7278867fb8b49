"""The 18 joints: their order, their mirror image, and the table of them in memory."""

import numpy as np
import pytest

from potgan.common.errors import UserError
from potgan.data import pose
from potgan.data.keypoint_files import read_keypoints


def test_mirror_is_an_involution_that_swaps_sides() -> None:
    mirror = np.array(pose.MIRROR)
    assert (mirror[mirror] == np.arange(18)).all()
    for a, b in ((2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13), (14, 15), (16, 17), (0, 0), (1, 1)):
        assert mirror[a] == b


def test_joint_order_is_openpose_coco_18() -> None:
    """OpenPose, POSE_COCO_BODY_PARTS: 14 REye, 15 LEye, 16 REar, 17 LEar. Other methods swap these names, not the numbers."""
    assert [pose.JOINT[n] for n in ("nose", "neck", "right_shoulder", "left_shoulder")] == [0, 1, 2, 5]
    assert [pose.JOINT[n] for n in ("right_hip", "left_ankle", "right_eye", "left_ear")] == [8, 13, 14, 17]


def test_rows_of_a_table_in_any_order() -> None:
    joints = np.arange(3 * 18 * 2, dtype=np.float32).reshape(3, 18, 2)
    joints[1, 4] = np.nan
    table = pose.Keypoints(["a", "b", "c"], joints, np.linspace(0, 1, 54, dtype=np.float32).reshape(3, 18))
    some = table.rows([2, 1])
    assert some.names == ["c", "b"]
    np.testing.assert_array_equal(some.of("b"), joints[1])
    np.testing.assert_array_equal(some.confidence[0], table.confidence[2])
    assert some.present.sum(axis=1).tolist() == [18, 17]
    assert len(table.rows([])) == 0
    with pytest.raises(KeyError):
        some.of("a")


@pytest.fixture
def people() -> pose.Keypoints:
    """100 people in images of 256 x 256 pixels, as DeepFashion's are: in the 176 columns of the middle, and in all rows."""
    joints = np.random.default_rng(0).triangular((48, 5), (128, 90), (208, 250), (100, 18, 2)).astype(np.float32)
    return pose.Keypoints([f"{i}.jpg" for i in range(100)], joints, np.ones((100, 18), np.float32))


@pytest.mark.parametrize(
    ("size", "shift", "what"),
    [
        ((1101, 750), 0, "no joint lies beyond 2.% of the width and 2.% of the height"),  # img_highres
        ((512, 512), 0, "no joint lies beyond .* of the height"),
        ((128, 128), 0, "of the joints lie outside their images"),
        ((256, 176), -80, "the median joint lies at 2.% of the width"),  # PATN's 40 columns, subtracted twice
        ((256, 256), -40, "the median joint lies at 3.% of the width"),  # a table of cropped images
        ((256, 256), 0, None),
        ((256, 176), -40, None),
        ((256, 200), -28, None),
    ],
)
def test_key_points_of_other_images_are_refused(people, size, shift, what) -> None:
    people.joints[:, :, 0] += shift
    sizes = [size] * len(people)
    if what is None:
        pose.refuse_other_frame(people, sizes, "t.csv")
        return
    with pytest.raises(
        UserError, match=rf"^t\.csv: counts the pixels of other images: .*{what}.* are {size[0]} x {size[1]}\)"
    ):
        pose.refuse_other_frame(people, sizes, "t.csv")


def test_any_part_of_the_published_tables_fits_its_images_and_no_larger_ones(shared) -> None:
    for split in ("train", "test"):
        table = read_keypoints(shared / "published" / f"market-annotation-{split}.csv")
        pose.refuse_other_frame(table, [(128, 64)] * len(table), "t")
        random = np.random.default_rng(0)
        for count in (1, 2, 5, 10, 30, 100) * 50:
            part = table.rows(random.choice(len(table), count, replace=False))
            pose.refuse_other_frame(part, [(128, 64)] * count, "t")
            if part.present.any(axis=1).sum() >= 5:
                with pytest.raises(UserError, match="counts the pixels of other images"):
                    pose.refuse_other_frame(part, [(256, 128)] * count, "t")
