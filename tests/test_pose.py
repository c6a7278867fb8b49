"""Key-point tables: lossless round trips, the peers' axis order, and errors that name the line."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potgan import pose
from potgan.errors import UserError


def test_mirror_is_an_involution_that_swaps_sides() -> None:
    mirror = np.array(pose.MIRROR)
    assert (mirror[mirror] == np.arange(18)).all()
    for a, b in ((2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13), (14, 15), (16, 17), (0, 0), (1, 1)):
        assert mirror[a] == b


def test_joint_order_is_openpose_coco_18() -> None:
    """OpenPose, POSE_COCO_BODY_PARTS: 14 REye, 15 LEye, 16 REar, 17 LEar; peers swap these labels, not the indices."""
    assert [pose.JOINT[n] for n in ("nose", "neck", "right_shoulder", "left_shoulder")] == [0, 1, 2, 5]
    assert [pose.JOINT[n] for n in ("right_hip", "left_ankle", "right_eye", "left_ear")] == [8, 13, 14, 17]


@given(st.lists(st.lists(st.integers(-1, 300), min_size=36, max_size=36), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_annotation_table_round_trip(tmp_path_factory, rows) -> None:
    path = tmp_path_factory.mktemp("annotation") / "a.csv"
    lines = ["name:keypoints_y:keypoints_x"]
    for i, row in enumerate(rows):
        ys, xs = row[:18], row[18:]
        pairs = [(-1, -1) if -1 in p else p for p in zip(ys, xs, strict=True)]  # the peers set both or none
        lines.append(f"{i}.jpg: {[p[0] for p in pairs]}: {[p[1] for p in pairs]}")
    text = "\n".join(lines) + "\n"
    path.write_text(text)
    table = pose.read_keypoints(path)
    assert pose.annotation_csv(table) == text
    own = path.with_name("own.csv")
    own.write_text(pose.keypoints_csv(table))
    again = pose.read_keypoints(own)
    assert again.names == table.names
    np.testing.assert_array_equal(again.joints, table.joints)
    np.testing.assert_array_equal(again.confidence, table.confidence)


def test_y_stands_before_x_in_the_peers_table(tmp_path) -> None:
    path = tmp_path / "a.csv"
    ys, xs = list(range(100, 118)), list(range(18))
    path.write_text(f"name:keypoints_y:keypoints_x\nA_1.jpg: {ys}: {xs}\n")
    joints = pose.read_keypoints(path).of("A_1.jpg")
    assert joints[3].tolist() == [3, 103]  # (x, y)


def test_published_tables_round_trip_byte_for_byte(shared) -> None:
    path = shared / "published" / "market-annotation-train.csv"
    table = pose.read_keypoints(path)
    assert len(table) == 12_936
    assert pose.annotation_csv(table) == path.read_text()


GOOD = list(range(18))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,x,y\n", "unknown header 'name,x,y'"),
        ("", "unknown header ''"),
        (
            f"name:keypoints_y:keypoints_x\na.jpg: {GOOD}: {GOOD[:17]}\n",
            "line 2: 'a.jpg' has 17 x values; the pose has 18",
        ),
        (f"name:keypoints_y:keypoints_x\na.jpg: {GOOD}\n", "line 2: has 2 fields instead of 3"),
        (
            f"name:keypoints_y:keypoints_x\na.jpg: {GOOD}: [1, 'b']\n",
            "line 2: the x list of 'a.jpg' is no list of numbers",
        ),
        (f"name:keypoints_y:keypoints_x\na.jpg: {GOOD}: {GOOD}\na.jpg: {GOOD}: {GOOD}\n", "'a.jpg' stands twice"),
    ],
)
def test_bad_tables_name_file_line_and_fault(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        pose.read_keypoints(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
