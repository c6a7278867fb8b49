"""The 18 joints: their order, their mirror image, and the table of them in memory."""

import numpy as np
import pytest

from potgan.data import pose


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
