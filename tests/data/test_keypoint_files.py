"""Files of key points: tables are written and read without loss, formats are as defined, and bad files give one clear line."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from potgan.common.errors import UserError
from potgan.data import keypoint_files
from potgan.data.keypoint_files import read_keypoints, write_keypoints
from potgan.data.pose import JOINT, JOINTS, Keypoints

LOSSLESS = ("own", "coco17", "openpose")
OWN_HEADER = ",".join(["name"] + [f"{j}_{p}" for j in JOINTS for p in ("x", "y", "confidence")])
PEER_HEADER = "name:keypoints_y:keypoints_x"
X_FIRST_HEADER = "name:keypoints_x:keypoints_y"
GOOD = list(range(18))
#: OpenPose, include/openpose/pose/poseParameters.hpp: POSE_COCO_BODY_PARTS and POSE_BODY_25_BODY_PARTS.
OPENPOSE_18 = [
    "Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "RHip", "RKnee", "RAnkle", "LHip",
    "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar",
]  # fmt: skip
OPENPOSE_25 = [
    "Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "MidHip", "RHip", "RKnee", "RAnkle",
    "LHip", "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar", "LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe",
    "RHeel",
]  # fmt: skip


def our_name(openpose: str) -> str:
    side = {"R": "right_", "L": "left_"}.get(openpose[0], "") if openpose[1].isupper() else ""
    return side + (openpose[1:] if side else openpose).lower()


# ---------------------------------------------------------------------------------------------------------- strategies

coordinates = st.floats(-1e7, 1e7, width=32) | st.integers(-3, 300).map(float)
certainties = st.floats(0, 1, width=32, exclude_min=True)
file_names = (
    st.text(
        st.characters(codec="utf-8", exclude_characters="/\\", exclude_categories=("C", "Z")), min_size=1, max_size=20
    )
    | st.from_regex(r"[ab]{1,2}[ ,\"'.]?c(\.jpg){0,2}(\.png)?", fullmatch=True)
).filter(lambda name: name not in (".", ".."))


@st.composite
def tables(draw, names=file_names) -> Keypoints:
    listed = draw(st.lists(names, max_size=3, unique_by=lambda name: name.removesuffix(".jpg")))
    joints = np.full((len(listed), 18, 2), np.nan, np.float32)
    confidence = np.zeros((len(listed), 18), np.float32)
    for i in range(len(listed)):
        for k in draw(st.sets(st.integers(0, 17)) | st.just(set(range(18)))):
            joints[i, k] = draw(coordinates), draw(coordinates)
            confidence[i, k] = draw(certainties)
        # A pose within one pixel counts shares of the image, and is refused.
        assume((np.abs(np.nan_to_num(joints[i])) > 1).any() or np.nan_to_num(joints[i] % 1).max() == 0)
    return Keypoints(listed, joints, confidence)


def assert_same(found: Keypoints, expected: Keypoints) -> None:
    """The two tables are the same, bit for bit and in the same order."""
    assert found.names == expected.names
    for a, b in ((found.joints, expected.joints), (found.confidence, expected.confidence)):
        assert a.dtype == b.dtype == np.float32
        np.testing.assert_array_equal(a.view(np.uint32), b.view(np.uint32))


def read_or_refuse(path: Path) -> Keypoints | None:
    """The table in a file, after checks that hold for every table. None after an error, which must be one line about this file."""
    refusal = None
    try:
        table = read_keypoints(path)
    except UserError as error:
        refusal = str(error)
    if refusal is not None:
        assert str(path) in refusal
        assert len(refusal.splitlines()) == 1
        assert len(refusal) < 500 + len(str(path))
        return None
    assert table.joints.shape == (len(table), 18, 2)
    assert table.joints.dtype == table.confidence.dtype == np.float32
    assert (np.isnan(table.joints[:, :, 0]) == np.isnan(table.joints[:, :, 1])).all()
    assert (table.present == (table.confidence > 0)).all()
    assert not np.isinf(table.joints).any()
    assert (table.confidence <= 1).all()
    assert len(set(table.names)) == len(table)
    return table


# --------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("format", LOSSLESS)
@given(table=tables())
@settings(max_examples=60, deadline=None)
def test_round_trip_keeps_every_bit(tmp_path_factory, format: str, table: Keypoints) -> None:
    path = tmp_path_factory.mktemp("round") / "table"
    if format == "openpose" and not table.names:
        return  # an empty folder is no table; tested below
    write_keypoints(table, path, format)
    assert_same(read_or_refuse(path), table)
    again = path.with_name("again")
    write_keypoints(read_keypoints(path), again, format)
    files = [path] if path.is_file() else sorted(path.iterdir())
    copies = [again] if again.is_file() else sorted(again.iterdir())
    assert [f.read_bytes() for f in files] == [f.read_bytes() for f in copies]


@given(st.lists(st.lists(st.integers(-9, 300), min_size=36, max_size=36), min_size=1, max_size=4), st.booleans())
@settings(max_examples=40, deadline=None)
def test_annotation_table_round_trip(tmp_path_factory, rows, x_first: bool) -> None:
    path = tmp_path_factory.mktemp("annotation") / "a.csv"
    lines = [X_FIRST_HEADER if x_first else PEER_HEADER]
    for i, row in enumerate(rows):
        ys, xs = row[:18], row[18:]
        pairs = [
            (-1, -1) if -1 in p else p for p in zip(ys, xs, strict=True)
        ]  # tables have -1 in both lists or in none
        lists = [p[0] for p in pairs], [p[1] for p in pairs]
        lines.append(f"{i}.jpg: {lists[x_first]}: {lists[not x_first]}")
    text = "\n".join(lines) + "\n"
    path.write_text(text)
    table = read_or_refuse(path)
    assert table.joints[0, 0, 0] == rows[0][18] or -1 in (rows[0][0], rows[0][18])
    assert keypoint_files.annotation_csv(table, x_first) == text
    for format in keypoint_files.FORMATS:  # through any other format and back
        other = path.with_name(format)
        write_keypoints(table, other, format)
        assert_same(read_keypoints(other), table)


@given(table=tables(st.from_regex(r"[a-d]{1,3}\.jpg", fullmatch=True)))
@settings(max_examples=40, deadline=None)
def test_the_peers_table_truncates(tmp_path_factory, table: Keypoints) -> None:
    path = tmp_path_factory.mktemp("patn") / "a.csv"
    write_keypoints(table, path, "patn")
    found = read_or_refuse(path)
    assert found.names == table.names
    expected = np.trunc(table.joints)
    expected[(expected == -1).any(axis=2)] = np.nan
    np.testing.assert_array_equal(found.joints, expected)


@pytest.mark.parametrize(("split", "count"), [("train", 12_936), ("test", 19_732)])
def test_published_tables_round_trip_byte_for_byte(shared, tmp_path, split: str, count: int) -> None:
    path = shared / "published" / f"market-annotation-{split}.csv"
    table = read_keypoints(path)
    assert len(table) == count
    assert keypoint_files.annotation_csv(table) == path.read_text()
    for format in ("own", "patn-x-first", "coco17"):
        write_keypoints(table, tmp_path / format, format)
        assert_same(read_keypoints(tmp_path / format), table)
    few = table.rows(range(0, count, count // 300))
    write_keypoints(few, tmp_path / "openpose", "openpose")
    assert_same(read_keypoints(tmp_path / "openpose"), few)


def test_y_stands_before_x_in_the_peers_table(tmp_path) -> None:
    path = tmp_path / "a.csv"
    ys, xs = list(range(100, 118)), list(range(18))
    for header, first, second in ((PEER_HEADER, ys, xs), (X_FIRST_HEADER, xs, ys)):
        path.write_text(f"{header}\nA_1.jpg: {first}: {second}\n")
        assert read_keypoints(path).of("A_1.jpg")[3].tolist() == [3, 103]  # (x, y)


@given(table=tables())
@settings(max_examples=40, deadline=None)
def test_seven_digits_are_those_of_percent_g(tmp_path_factory, table: Keypoints) -> None:
    path = tmp_path_factory.mktemp("digits") / "a.csv"
    path.write_text(keypoint_files.keypoints_csv(table, digits=7), encoding="utf-8")
    found = read_keypoints(path)
    expected = np.array([float(f"{v:.7g}") for v in table.joints.ravel()], np.float32).reshape(table.joints.shape)
    np.testing.assert_array_equal(found.joints, expected)


def test_joints_of_the_embedded_data_set_are_those_of_the_published_results(tmp_path) -> None:
    """The joints of the published results were written with seven digits and read again. Other float32 numbers would be another
    data set."""
    from potgan.data.images import prepare_images
    from potgan.data.synthetic import people
    from potgan.settings.schema import Dataset, SyntheticSettings

    few = SyntheticSettings(train_identities=2, test_identities=1, images_per_identity=3)
    prepare_images(Dataset(kind="synthetic", label="S", synthetic=few), "s", tmp_path / "images", tmp_path)
    table = read_keypoints(tmp_path / "images" / "annotation.csv")
    write_keypoints(table, tmp_path / "keypoints.csv", "own")
    table = read_keypoints(tmp_path / "keypoints.csv")
    renders = [render for split in ("train", "test") for render in people.render_split(few, split)]
    assert table.names == [render.name for render in renders]
    for render, joints in zip(renders, table.joints, strict=True):
        exact = people.annotate(render)[0]
        published = np.array([f"{value:.7g}" for value in exact.ravel()], np.float64).astype(np.float32).reshape(18, 2)
        np.testing.assert_array_equal(joints, published)


def test_a_table_as_spreadsheets_save_it(tmp_path) -> None:
    """It has a byte order mark, CR LF, quotes round all fields, a further column, and blank lines."""
    table = Keypoints(["a,b.jpg"], np.arange(36, dtype=np.float32).reshape(1, 18, 2), np.full((1, 18), 0.5, np.float32))
    header, row = keypoint_files.keypoints_csv(table).splitlines()
    fields = ["a,b.jpg", *row.split('",')[1].split(",")]
    lines = ["", ",".join(f'"{c}"' for c in header.split(",")) + ",note", ""]
    lines += [",".join(f'"{f}"' for f in fields) + ',"say ""hm"""', "  "]
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert_same(read_keypoints(path), table)


def test_json_with_a_byte_order_mark_and_blanks(tmp_path) -> None:
    table = Keypoints(["é.jpg"], np.arange(36, dtype=np.float32).reshape(1, 18, 2), np.ones((1, 18), np.float32))
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf\r\n\r\n " + keypoint_files.coco_json(table).replace("\n", "\r\n").encode())
    assert_same(read_keypoints(path), table)


# ---------------------------------------------------------------------------------------- what the formats define


def coco_tree(**changes) -> dict:
    """One image and one person, written by hand after cocodataset.org, "Data format" 1 and 3 ("Keypoint Detection")."""
    points = [[10 + i, 20 + i, 2] for i in range(17)]
    points[3], points[4] = [13, 23, 1], [0, 0, 0]  # left ear labelled but hidden; right ear not labelled
    annotation = {
        "id": 183126, "image_id": 425226, "category_id": 1, "iscrowd": 0, "area": 272.5, "num_keypoints": 16,
        "bbox": [10, 20, 17, 17], "segmentation": [[10.0, 20.0, 27.0, 20.0, 27.0, 37.0]],
        "keypoints": [v for p in points for v in p],
    }  # fmt: skip
    return {
        "info": {"year": 2017, "version": "1.0"},
        "licenses": [],
        "images": [
            {"id": 425226, "width": 640, "height": 480, "file_name": "000000425226.jpg", "license": 2},
            {"id": 7, "width": 640, "height": 480, "file_name": "000000000007.jpg", "license": 2},
        ],
        "annotations": [annotation],
        "categories": [
            {"id": 1, "name": "person", "keypoints": list(keypoint_files.COCO_JOINTS), "skeleton": [[16, 14]]}
        ],
    } | changes


def written(path: Path, tree: object) -> Path:
    path.write_text(json.dumps(tree))
    return path


def test_coco_by_hand(tmp_path) -> None:
    table = read_keypoints(written(tmp_path / "person_keypoints.json", coco_tree()))
    assert table.names == ["000000425226.jpg", "000000000007.jpg"]
    # cocodataset.org: nose, left eye, right eye, left ear, right ear, left shoulder, right shoulder, ...
    expected = {"nose": (10, 20, 1), "left_eye": (11, 21, 1), "right_eye": (12, 22, 1), "left_ear": (13, 23, 0.5)}
    expected |= {"left_shoulder": (15, 25, 1), "right_shoulder": (16, 26, 1), "neck": (15.5, 25.5, 1)}
    expected |= {
        "left_wrist": (19, 29, 1),
        "right_hip": (22, 32, 1),
        "left_knee": (23, 33, 1),
        "right_ankle": (26, 36, 1),
    }
    for joint, (x, y, confidence) in expected.items():
        assert table.joints[0, JOINT[joint]].tolist() == [x, y], joint
        assert table.confidence[0, JOINT[joint]] == confidence
    assert table.present[0].sum() == 17
    assert not table.present[0, JOINT["right_ear"]]
    assert not table.present[1].any()


def test_coco_joints_lie_in_the_images_of_the_file(tmp_path) -> None:
    """Of 17 joints that are there, the neck with them, one may lie below the image, and two may not."""
    tree = coco_tree()
    assert read_keypoints(written(tmp_path / "a.json", changed(tree, "images", 0, "height", value=36))).present[0, 0]
    with pytest.raises(UserError, match=r"a\.json: counts the pixels of other images: 12% of .* are 35 x 640\)"):
        read_keypoints(written(tmp_path / "a.json", changed(tree, "images", 0, "height", value=35)))


def test_coco_neck_needs_both_shoulders(tmp_path) -> None:
    tree = coco_tree()
    tree["annotations"][0]["keypoints"][3 * 6 + 2] = 0
    assert not read_keypoints(written(tmp_path / "a.json", tree)).present[0, JOINT["neck"]]


def test_coco_third_number_with_fractions_is_a_confidence(tmp_path) -> None:
    """OpenPifPaf and COCO-WholeBody write confidences as third numbers. A 1.0 among them is not the visibility 1."""
    tree = coco_tree()
    tree["annotations"][0]["keypoints"][2::3] = [1.0, 0.25, 1.0625] + [0.5] * 14
    table = read_keypoints(written(tmp_path / "a.json", tree))
    found = [float(table.confidence[0, JOINT[j]]) for j in ("nose", "left_eye", "right_eye", "left_hip", "neck")]
    assert found == [1, 0.25, 1, 0.5, 0.5]


def test_coco_person_of_the_highest_score(tmp_path) -> None:
    def person(x: int, certainty: float, **more: object) -> dict:
        return {"image_id": 7, "keypoints": [x, 5, certainty] * 17} | more

    def winner(*people: dict) -> float:
        table = read_keypoints(written(tmp_path / "a.json", coco_tree(annotations=list(people))))
        return float(table.of("000000000007.jpg")[0, 0])

    assert winner(person(1, 0.5), person(2, 0.75), person(3, 0.75)) == 2  # sum of confidences, the first of equals
    assert winner(person(1, 0.5, score=0.9), person(2, 0.75, score=0.8)) == 1
    assert winner(person(1, 0.5, score=0.9), person(2, 0.75)) == 2  # not everyone has a score


def test_alphaposes_results_by_hand(tmp_path, capsys) -> None:
    """AlphaPose, docs/output.md: a list of people, with the name of the file as `image_id`, and COCO's 17 joints."""

    def person(name: str, x: int, score: float) -> dict:
        points = [[x + k, 2 * k + 1, 0.25 + k / 64] for k in range(17)]
        return {"image_id": name, "category_id": 1, "keypoints": [v for p in points for v in p], "score": score}

    results = [person("b.jpg", 100, 2.5), person("a.png", 200, 1.5), person("b.jpg", 300, 3.5)]
    table = read_keypoints(written(tmp_path / "alphapose-results.json", results))
    assert table.names == ["b.jpg", "a.png"]
    assert table.of("b.jpg")[[JOINT["nose"], JOINT["left_eye"]]].tolist() == [[300, 1], [301, 3]]
    assert table.of("b.jpg")[JOINT["neck"]].tolist() == [305.5, 12]  # between COCO's shoulders, 5 and 6
    assert table.confidence[1, JOINT["right_ankle"]] == 0.5
    assert capsys.readouterr().err == (
        f"{tmp_path / 'alphapose-results.json'}: 1 images show several people; the one of the highest score is taken, and 1 people "
        "are left out\n"
    )


def test_which_of_several_people_is_taken_can_be_chosen(tmp_path) -> None:
    """Three people: the surest one is small, the largest one is unsure, and a third has one joint."""

    def flat(points: list[tuple[float, float, float]], count: int) -> list[float]:
        return [value for point in points + [(0, 0, 0)] * (count - len(points)) for value in point]

    sure = [(10, 10, 0.9), (12, 10, 0.9), (10, 14, 0.9)]
    large = [(50, 5, 0.4), (60, 90, 0.4)]
    one = [(99, 99, 0.8)]
    openpose = tmp_path / "a_keypoints.json"
    people = [{"pose_keypoints_2d": flat(points, 18)} for points in (one, sure, large)]
    written(openpose, {"version": 1.3, "people": people})
    results = [{"image_id": "a.jpg", "keypoints": flat(points, 17)} for points in (one, sure, large)]
    alphapose = written(tmp_path / "results.json", results)
    for path in (openpose, alphapose):
        nose = {
            choice: read_keypoints(path, choice).of("a.jpg")[0].tolist() for choice in ("score", "largest", "1", "3")
        }
        assert nose == {"score": [10, 10], "largest": [50, 5], "1": [99, 99], "3": [50, 5]}
        with pytest.raises(UserError, match=r"shows 3 people, so that --person 4 is none"):
            read_keypoints(path, "4")
    with pytest.raises(UserError, match="--person must be score, largest or a number from 1 on, and is '0'"):
        read_keypoints(alphapose, "0")


def test_an_image_of_nobody_has_no_largest_person(tmp_path) -> None:
    nobody = [{"pose_keypoints_2d": [0.0] * 54}, {"pose_keypoints_2d": [0.0] * 54}]
    path = written(tmp_path / "a_keypoints.json", {"version": 1.3, "people": nobody})
    assert not read_keypoints(path, "largest").present.any()


def pifpaf(x: int, score: float) -> dict:
    return {"keypoints": [v for k in range(17) for v in (x + k, 3.5, 0.0 if k == 9 else 0.75)], "bbox": [0, 0, 9, 9],
            "score": score, "category_id": 1}  # fmt: skip


def test_openpifpafs_predictions_by_hand(tmp_path) -> None:
    """OpenPifPaf's predict --json-output writes one list of people per image, `<name>.predictions.json`."""
    written(tmp_path / "b.jpg.predictions.json", [pifpaf(10, 0.5), pifpaf(20, 0.75), pifpaf(30, 0.25)])
    written(tmp_path / "a.png.predictions.json", [])
    (tmp_path / "._a.png.predictions.json").write_bytes(b"\0\5\x16\7Mac OS X")  # a copy on a disk of another system
    table = read_keypoints(tmp_path)
    assert table.names == ["a.png", "b.jpg"]
    assert not table.present[0].any()
    assert table.joints[1, JOINT["nose"]].tolist() == [20, 3.5]
    assert np.flatnonzero(~table.present[1]).tolist() == [JOINT["left_wrist"]]  # COCO's joint 9
    assert_same(read_keypoints(tmp_path / "b.jpg.predictions.json"), table.rows([1]))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            [{"image_id": 7, "keypoints": [1, 2, 1] * 17}],
            "a.json: is a list of results without image names; expected file",
        ),
        ([{"image_id": "a.jpg", "keypoints": [1, 2, 1] * 26}], "a.json[0].keypoints: has 78 numbers; expected 51"),
        ([{"image": "015601864.jpg", "joints": [[1, 2]] * 16}], "a.json[0]: 'keypoints' is missing"),
        ([{"keypoints": [1, 2, 1] * 17}], "a.json[0]: the name of the image is null; expected a file name"),
        ([5], "a.json[0]: is 5; expected an object with 'keypoints'"),
    ],
)
def test_bad_results_name_the_place(tmp_path, tree, message) -> None:
    with pytest.raises(UserError) as error:
        read_keypoints(written(tmp_path / "a.json", tree))
    assert message in str(error.value)
    assert read_or_refuse(tmp_path / "a.json") is None


def test_files_of_two_detectors_in_one_folder_are_refused(tmp_path) -> None:
    written(tmp_path / "a.jpg.predictions.json", {"people": []})
    with pytest.raises(
        UserError, match=r"a\.jpg\.predictions\.json: is an object; expected OpenPifPaf's list of people"
    ):
        read_keypoints(tmp_path)
    written(tmp_path / "a_keypoints.json", {"people": []})
    with pytest.raises(UserError, match="has files of OpenPose and of OpenPifPaf"):
        read_keypoints(tmp_path)


def test_what_we_write_has_cocos_layout(tmp_path) -> None:
    """The file has the keys that pycocotools (COCO.createIndex, COCOeval on keypoints) and viewers read."""
    joints = np.full((3, 18, 2), np.nan, np.float32)
    joints[0] = np.arange(36).reshape(18, 2) + 0.1
    joints[2, [1, 4]] = [[3, 4], [13, 24]]
    confidence = np.where(np.isnan(joints[:, :, 0]), 0, 0.7).astype(np.float32)
    table = Keypoints(["a.jpg", "none.jpg", "c.jpg"], joints, confidence)
    sizes = {"a.jpg": (128, 64), "none.jpg": (256, 176), "c.jpg": (np.int64(128), np.int64(64))}
    write_keypoints(table, tmp_path / "a.json", "coco17", sizes)
    tree = json.loads((tmp_path / "a.json").read_text())
    assert [(i["file_name"], i["height"], i["width"]) for i in tree["images"]] == [(n, *sizes[n]) for n in table.names]
    (category,) = tree["categories"]
    assert category["keypoints"][:4] == ["nose", "left_eye", "right_eye", "left_ear"]
    assert [category["keypoints"][k - 1] for k in category["skeleton"][0]] == ["left_ankle", "left_knee"]
    image_of = {i["id"]: i["file_name"] for i in tree["images"]}
    assert [image_of[a["image_id"]] for a in tree["annotations"]] == ["a.jpg", "c.jpg"]
    for annotation in tree["annotations"]:
        flat = annotation["keypoints"]
        assert len(flat) == 51
        assert set(flat[2::3]) <= {0, 2}
        assert annotation["num_keypoints"] == sum(v > 0 for v in flat[2::3])
        assert annotation["category_id"] == category["id"]
        assert annotation["iscrowd"] == 0
        assert annotation["area"] == annotation["bbox"][2] * annotation["bbox"][3]
    assert tree["annotations"][0]["keypoints"][:3] == [0.1, 1.1, 2]  # the fewest digits of a float32
    assert tree["annotations"][1]["bbox"] == [3, 4, 10, 20]
    assert tree["annotations"][1]["keypoints"][3 * 10 : 3 * 11] == [
        13,
        24,
        2,
    ]  # joint 10 of COCO is the right wrist, our joint 4
    with pytest.raises(UserError, match=r"b\.json: image 'a\.jpg': its height and width are not known"):
        write_keypoints(table, tmp_path / "b.json", "coco17", {})


def test_a_joint_removed_from_cocos_own_numbers_is_removed(tmp_path) -> None:
    """Another program changes COCO's own numbers, and leaves the key `potgan` as it was."""
    table = Keypoints(["a.jpg"], np.ones((1, 18, 2), np.float32), np.full((1, 18), 0.3, np.float32))
    tree = json.loads(keypoint_files.coco_json(table))
    tree["annotations"][0]["keypoints"][:3] = [0, 0, 0]
    found = read_keypoints(written(tmp_path / "a.json", tree))
    assert [JOINTS[k] for k in np.flatnonzero(~found.present[0])] == ["nose"]


def test_openpose_by_hand(tmp_path) -> None:
    """A file written by hand after OpenPose's doc/02_output.md: version 1.3, one person with empty other arrays, 18 points."""
    folder = tmp_path / "json"
    folder.mkdir()
    points = [[100.5 + i, 200.25 + i, 0.5] for i in range(18)]
    points[4] = [0, 0, 0]
    points[17][2] = 1.0625  # the peak of an interpolated heat map can overshoot
    person = {"person_id": [-1], "pose_keypoints_2d": [v for p in points for v in p], "face_keypoints_2d": []}
    other = {"person_id": [-1], "pose_keypoints_2d": [1, 2, 0.25] * 18}
    written(folder / "b_keypoints.json", {"version": 1.3, "people": [other, person], "part_candidates": []})
    written(folder / "a.jpg_keypoints.json", {"version": 1.3, "people": []})
    (folder / "a_rendered.png").write_bytes(b"")
    table = read_keypoints(folder)
    assert table.names == ["a.jpg.jpg", "b.jpg"]
    assert not table.present[0].any()
    assert table.joints[1, 3].tolist() == [103.5, 203.25]
    assert np.flatnonzero(~table.present[1]).tolist() == [4]
    assert table.confidence[1, [3, 17]].tolist() == [0.5, 1]


@pytest.mark.parametrize("scaled", [lambda xy: xy, lambda xy: 2 * xy - 1], ids=["0 to 1", "-1 to 1"])
def test_openposes_scaled_numbers_are_no_pixels(tmp_path, scaled) -> None:
    """OpenPose, include/openpose/core/enumClasses.hpp: ScaleMode ZeroToOne and PlusMinusOne, for --keypoint_scale 3 and 4."""
    pixels = np.array([[8 + 2 * k, 5 + 7 * k] for k in range(18)])
    for name, joints in (("a", pixels), ("b", scaled(pixels / (64, 128)))):
        points = [[*map(float, xy), 0.9] for xy in joints]
        points[4] = [0, 0, 0]
        written(
            tmp_path / f"{name}_keypoints.json", {"people": [{"pose_keypoints_2d": [v for p in points for v in p]}]}
        )
    with pytest.raises(UserError) as error:
        read_keypoints(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: all joints of 'b.jpg' lie within 1 pixel of the corner (1 such images), so they are shares of the image; "
        "export them in pixels (OpenPose: without --keypoint_scale)"
    )
    (tmp_path / "b_keypoints.json").unlink()
    assert read_keypoints(tmp_path).joints[0, 0].tolist() == [8, 5]


def test_whole_numbers_within_one_pixel_are_kept(tmp_path) -> None:
    (tmp_path / "a.csv").write_text(f"{PEER_HEADER}\na.jpg: {[0, 1] * 9}: {[1, 0] * 9}\n")
    assert read_keypoints(tmp_path / "a.csv").present.all()


def test_one_file_of_openpose_is_a_table_of_one_image_whatever_its_name(tmp_path) -> None:
    tree = {"version": 1.3, "people": [{"pose_keypoints_2d": [v for k in range(18) for v in (k, 2 * k + 1, 0.5)]}]}
    for file, name in (
        ("a_keypoints.json", "a.jpg"),
        ("dance.json", "dance.jpg"),
        ("b.jpg_keypoints.json", "b.jpg.jpg"),
        ("c.json_keypoints.json", "c.json.jpg"),
    ):
        table = read_keypoints(written(tmp_path / file, tree))
        assert table.names == [name]
        assert table.joints[0].tolist() == [[k, 2 * k + 1] for k in range(18)]


def test_openpose_orders_are_its_own() -> None:
    assert [our_name(n) for n in OPENPOSE_18] == list(JOINTS)
    assert [our_name(OPENPOSE_25[k]) for k in keypoint_files.BODY_25_PLACES] == list(JOINTS)


def test_body_25_is_mapped_by_name(tmp_path) -> None:
    flat = [v for k in range(25) for v in (k, 2 * k, 0.5)]
    written(tmp_path / "a_keypoints.json", {"people": [{"pose_keypoints_2d": flat}]})
    joints = read_keypoints(tmp_path).of("a.jpg")
    for name, (x, y) in zip(JOINTS, joints, strict=True):
        assert our_name(OPENPOSE_25[int(x)]) == name
        assert y == 2 * x


def test_what_we_write_is_openposes(tmp_path) -> None:
    joints = np.full((2, 18, 2), np.nan, np.float32)
    joints[1, 2] = 0.1, 7
    table = Keypoints(["z.jpg", "a.png"], joints, np.where(np.isnan(joints[:, :, 0]), 0, 0.9).astype(np.float32))
    write_keypoints(table, tmp_path / "json", "openpose")
    trees = {p.name: json.loads(p.read_text()) for p in (tmp_path / "json").iterdir()}
    assert sorted(trees) == ["a.png_keypoints.json", "z_keypoints.json"]
    assert trees["z_keypoints.json"]["people"] == []
    (person,) = trees["a.png_keypoints.json"]["people"]
    assert person["pose_keypoints_2d"] == [0, 0, 0] * 2 + [0.1, 7, 0.9] + [0, 0, 0] * 15


# ------------------------------------------------------------------------------------------------------------ bad files


def own_row(name: str = "a.jpg", **changes: str) -> str:
    cells = {c: str(i) for i, c in enumerate(OWN_HEADER.split(","))} | {f"{j}_confidence": "0.5" for j in JOINTS}
    return ",".join((cells | {"name": name} | changes).values())


PEER_ROW = f"a.jpg: {GOOD}: {GOOD}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,x,y\n", "line 1: unknown header 'name,x,y'"),
        ("name,keypoints_y,keypoints_x\n", "unknown header"),
        (PEER_ROW + "\n", "line 1: unknown header"),
        ("", "unknown header ''"),
        ("\r\n\r\n", "unknown header ''"),
        (f"{PEER_HEADER}\ra.jpg: {GOOD}: {GOOD}\r", "unknown header"),
        (f"{PEER_HEADER}\na.jpg: {GOOD}: {GOOD[:17]}\n", "line 2: 'a.jpg' has 17 x values; the pose has 18"),
        (f"{X_FIRST_HEADER}\na.jpg: {GOOD}: {GOOD[:17]}\n", "line 2: 'a.jpg' has 17 y values; the pose has 18"),
        (f"{PEER_HEADER}\n\na.jpg: {GOOD}\n", "line 3: has 2 fields instead of 3 (name: y list: x list)"),
        (f"{PEER_HEADER}\na.jpg: {GOOD}: [1, 'b']\n", "line 2: the x list of 'a.jpg' is no list of numbers"),
        (f"{PEER_HEADER}\na.jpg: {GOOD}: {GOOD[:17]}", "line 2: 'a.jpg' has 17"),
        (f"{PEER_HEADER}\na.jpg: {GOOD}: {{}}\n", "is no list of numbers"),
        (f"{PEER_HEADER}\na.jpg: {GOOD}: {'[' * 9000}\n", "is no list of numbers"),
        (f"{PEER_HEADER}\n{PEER_ROW.replace('17]', 'true]')}\n", "is no list of numbers"),
        (f"{PEER_HEADER}\n{PEER_ROW.replace('17]', '[17]]')}\n", "is no list of numbers"),
        (f"{PEER_HEADER}\n{PEER_ROW.replace('17]', 'null]')}\n", "is no list of numbers"),
        (f"{PEER_HEADER}\n{PEER_ROW.replace('17]', 'NaN]')}\n", "line 2: nan in the y list is no pixel coordinate"),
        (f"{PEER_HEADER}\n{PEER_ROW.replace('17]', '1e999]')}\n", "inf in the y list is no pixel coordinate"),
        (f"{PEER_HEADER}\n{PEER_ROW.replace('17]', '9' * 400 + ']')}\n", "in the y list is no pixel coordinate"),
        (f"{PEER_HEADER}\n{PEER_ROW.replace('17]', '10000001]')}\n", "10000001 in the y list is no pixel coordinate"),
        (f"{PEER_HEADER}\n{PEER_ROW}\n\n{PEER_ROW}\n", "line 4: image 'a.jpg' stands twice (first in line 2)"),
        (f"{PEER_HEADER}\n : {GOOD}: {GOOD}\n", "line 2: the name of the image is empty"),
        (f"{PEER_HEADER}\nb/a.jpg: {GOOD}: {GOOD}\n", "line 2: the image name 'b/a.jpg' has a folder"),
        (f"{PEER_HEADER}\n..: {GOOD}: {GOOD}\n", "line 2: the image name '..' has a folder"),
        (f"{PEER_HEADER}\nb\\a.jpg: {GOOD}: {GOOD}\n", "has a folder"),
        (f"{PEER_HEADER}\na\x00.jpg: {GOOD}: {GOOD}\n", "line 2: the image name 'a\\x00.jpg' begins or ends"),
        (f"{OWN_HEADER}\n{own_row()},\n", "line 2: has 56 fields instead of 55"),
        (f"{OWN_HEADER}\n{own_row().rsplit(',', 3)[0]}\n", "line 2: has 52 fields instead of 55"),
        (f"{OWN_HEADER.rsplit(',', 3)[0]}\n", "unknown header"),
        (f"{OWN_HEADER}\n{own_row(neck_x='nan')}\n", "line 2: neck_x is 'nan', which is no number"),
        (f"{OWN_HEADER}\n{own_row(neck_x='inf')}\n", "line 2: neck_x is 'inf', which is no number"),
        (f"{OWN_HEADER}\n{own_row(neck_x='1_0')}\n", "line 2: neck_x is '1_0', which is no number"),
        (f"{OWN_HEADER}\n{own_row(neck_x='٣')}\n", "line 2: neck_x is '٣', which is no number"),
        (f"{OWN_HEADER}\n{own_row(neck_x='1.2.3')}\n", "line 2: neck_x is '1.2.3', which is no number"),
        (f"{OWN_HEADER}\n{own_row(neck_x='1e99')}\n", "line 2: neck_x = 1e+99 is no pixel coordinate"),
        (f"{OWN_HEADER}\n{own_row(neck_x='')}\n", "line 2: neck_x is empty and the joint's y is not"),
        (f"{OWN_HEADER}\n{own_row(neck_y='')}\n", "line 2: neck_y is empty and the joint's x is not"),
        (f"{OWN_HEADER}\n{own_row(neck_confidence='')}\n", "line 2: neck_confidence is empty and the joint's x"),
        (f"{OWN_HEADER}\n{own_row(neck_x='', neck_y='')}\n", "line 2: neck_x is empty and the joint's confidence"),
        (f"{OWN_HEADER}\n{own_row(neck_confidence='1.01')}\n", "line 2: neck_confidence = 1.01 is not in [0, 1]"),
        (f"{OWN_HEADER}\n{own_row(neck_confidence='-0.1')}\n", "line 2: neck_confidence = -0.1 is not in [0, 1]"),
        (f"{OWN_HEADER}\n{own_row()}\n{own_row('b')}\n{own_row()}\n", "line 4: image 'a.jpg' stands twice (first in line 2)"),
        (f"{OWN_HEADER}\n{own_row('')}\n", "line 2: the name of the image is empty"),
        (f"{OWN_HEADER}\n{own_row('a.jpg ')}\n", "line 2: the image name 'a.jpg ' begins or ends with a blank"),
        (f"{OWN_HEADER}\n{own_row('../a.jpg')}\n", "line 2: the image name '../a.jpg' has a folder"),
        (f'{OWN_HEADER}\n"{own_row()}\n', "line 2: is no row of a CSV table"),
        ("[" * 100_000, "is nested too deeply"),
        ("[]", "is a list of results without image names"),
        ("{}", "JSON of another kind: 'images' is missing; expected a list"),
        ('{"images": {}, "annotations": []}', "'images' is an object; expected a list"),
        ('{"images": [], "annotations": [', "is not JSON, or cut off"),
    ],
)  # fmt: skip
def test_bad_tables_name_file_line_and_fault(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode())
    with pytest.raises(UserError) as error:
        read_keypoints(path)
    assert message in str(error.value)
    assert read_or_refuse(path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such key-point table"),
        (b"\x1f\x8b\x08\x00" + bytes(range(256)), "line 1: is not UTF-8 text"),
        (PEER_HEADER.encode("utf-16"), "line 1: is not UTF-8 text"),
        (f"{OWN_HEADER}\n".encode() + b"\xe9.jpg,1\n", "line 2: is not UTF-8 text"),
        (b'{"images": ["\xe9"]}', "is not UTF-8 text"),
    ],
)
def test_files_that_are_no_text(tmp_path, content: bytes | None, message: str) -> None:
    path = tmp_path / "table"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"table.*{message}"):
        read_keypoints(path)


def changed(tree: dict, *route: str | int, value: object) -> dict:
    inner = tree
    for key in route[:-1]:
        inner = inner[key]
    inner[route[-1]] = value
    return tree


FIRST = ("annotations", 0)


@pytest.mark.parametrize(
    ("route", "value", "message"),
    [
        ((*FIRST, "keypoints"), [1, 2, 2] * 16, "annotations[0].keypoints: has 48 numbers; expected 51"),
        ((*FIRST, "keypoints"), [1, 2, 2] * 18, "annotations[0].keypoints: has 54 numbers; expected 51"),
        ((*FIRST, "keypoints"), [[1, 2, 2]] * 17, "annotations[0].keypoints: has 17 numbers; expected 51"),
        ((*FIRST, "keypoints"), None, "annotations[0]: 'keypoints' is null; expected a list"),
        ((*FIRST, "keypoints", 4), "4", "annotations[0].keypoints[4]: '4' is no pixel coordinate"),
        ((*FIRST, "keypoints", 4), True, "annotations[0].keypoints[4]: True is no pixel coordinate"),
        ((*FIRST, "keypoints", 4), [4], "annotations[0].keypoints[4]: a list is no pixel coordinate"),
        ((*FIRST, "keypoints", 4), float("nan"), "annotations[0].keypoints[4]: nan is no pixel coordinate"),
        ((*FIRST, "keypoints", 4), float("-inf"), "annotations[0].keypoints[4]: -inf is no pixel coordinate"),
        ((*FIRST, "keypoints", 5), 3, "annotations[0].keypoints: the confidence of key point 1 is 3; expected 0 to 1"),
        ((*FIRST, "keypoints", 5), -1, "annotations[0].keypoints: the confidence of key point 1 is -1"),
        ((*FIRST, "image_id"), 3, "annotations[0]: image_id 3 is not in 'images'"),
        ((*FIRST, "image_id"), [3], "annotations[0]: image_id a list is not in 'images'"),
        ((*FIRST, "score"), "high", "annotations[0].score: 'high' is no number"),
        ((*FIRST, "score"), float("nan"), "annotations[0].score: nan is no number"),
        ((*FIRST, "potgan"), 3, "annotations[0].potgan: is 3; expected an object with 'confidence'"),
        ((*FIRST, "potgan"), {"confidence": [1] * 17}, "annotations[0].potgan.confidence: has 17 numbers; expected 18"),
        ((*FIRST, "potgan"), {"confidence": [1.5] * 18}, "annotations[0].potgan.confidence: is not within 0 to 1"),
        ((*FIRST, "potgan"), {"confidence": [1] * 18, "neck": 3}, "annotations[0].potgan.neck: is 3; expected a list"),
        (FIRST, 5, "annotations[0]: is 5; expected an object with 'keypoints'"),
        (("images", 1), 5, "images[1]: has no id"),
        (("images", 1, "id"), 425226, "images[1]: image '000000000007.jpg' (id 425226) stands twice"),
        (("images", 1, "file_name"), "000000425226.jpg", "images[1]: image '000000425226.jpg' (id 7) stands twice"),
        (("images", 1, "file_name"), "val/7.jpg", "images[1]: the image name 'val/7.jpg' has a folder"),
        (("images", 1, "file_name"), "", "images[1]: the name of the image is empty"),
        (("images", 1, "file_name"), None, "images[1]: the name of the image is null"),
        (("images", 1, "file_name"), "\ud800.jpg", "images[1]: the image name '\\ud800.jpg' begins or ends"),
        (("annotations",), {}, "'annotations' is an object; expected a list"),
        (("categories", 0, "keypoints"), ["hip"] * 17, "categories[0].keypoints: are not COCO's 17"),
    ],
)  # fmt: skip
def test_bad_coco_names_the_place(tmp_path, route: tuple, value: object, message: str) -> None:
    path = written(tmp_path / "coco.json", changed(coco_tree(), *route, value=value))
    with pytest.raises(UserError) as error:
        read_keypoints(path)
    assert message in str(error.value)
    assert read_or_refuse(path) is None


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "a_keypoints.json: 'people' is missing; expected a list"),
        ([], "a_keypoints.json: is a list; expected an object with 'people'"),
        ({"people": [{}]}, "people[0]: 'pose_keypoints_2d' is missing"),
        ({"people": [{"pose_keypoints_2d": [1, 2, 0.5] * 17}]}, "people[0].pose_keypoints_2d: has 51 numbers; expected 54"),
        ({"people": [{"pose_keypoints_2d": []}]}, "people[0].pose_keypoints_2d: has 0 numbers"),
        ({"people": [{"pose_keypoints_2d": [1, 2, None] * 18}]}, "people[0].pose_keypoints_2d[2]: null is no pixel"),
        ({"people": [{"pose_keypoints_2d": [1, 2, 30] * 18}]}, "confidence of key point 0 is 30; expected 0 to 1"),
        ({"people": [{"pose_keypoints_2d": [1, 2, -0.5] * 18}]}, "confidence of key point 0 is -0.5; expected 0 to 1"),
    ],
)  # fmt: skip
def test_bad_openpose_names_the_file_and_the_place(tmp_path, tree: object, message: str) -> None:
    written(tmp_path / "a_keypoints.json", tree)
    with pytest.raises(UserError) as error:
        read_keypoints(tmp_path)
    assert message in str(error.value)
    assert read_or_refuse(tmp_path) is None


def test_openpose_folders_that_are_none(tmp_path) -> None:
    with pytest.raises(UserError, match=r"has no \*_keypoints\.json"):
        read_keypoints(tmp_path)
    (tmp_path / "a_keypoints.json").mkdir()
    with pytest.raises(UserError, match=r"a_keypoints\.json: cannot be read"):
        read_keypoints(tmp_path)
    (tmp_path / "a_keypoints.json").rmdir()
    (tmp_path / "a_keypoints.json").write_text('{"people": [')
    with pytest.raises(UserError, match=r"a_keypoints\.json: is not JSON, or cut off"):
        read_keypoints(tmp_path)
    (tmp_path / "a_keypoints.json").write_text('{"people": []}')
    (tmp_path / "a.jpg_keypoints.json").write_text('{"people": [], "potgan": {"whole_name": true}}')
    with pytest.raises(UserError, match=r"image 'a\.jpg' stands twice \(also in a"):
        read_keypoints(tmp_path)


def test_a_joint_of_confidence_0_is_missing_and_one_outside_the_frame_is_not(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{OWN_HEADER}\n{own_row(nose_confidence='0', neck_x='-1', neck_y='-1', left_hip_x='9999')}\n")
    table = read_or_refuse(path)
    assert np.flatnonzero(~table.present[0]).tolist() == [JOINT["nose"]]
    assert table.joints[0, JOINT["neck"]].tolist() == [-1, -1]
    assert table.joints[0, JOINT["left_hip"], 0] == 9999
    ys = [-1, 5, -7, *GOOD[3:]]
    path.write_text(f"{PEER_HEADER}\na.jpg: {ys}: {[5, -1, *GOOD[2:]]}\n")
    table = read_or_refuse(path)
    assert np.flatnonzero(~table.present[0]).tolist() == [0, 1]  # -1 in one list is enough, as in Deformable GAN's code
    assert table.joints[0, 2].tolist() == [2, -7]


@pytest.mark.parametrize("start", [PEER_HEADER + "\n", OWN_HEADER + "\n" + own_row() + "\n", "", "{", '[{"image_id":'])
def test_a_line_of_one_gigabyte_costs_no_memory(tmp_path, start: str) -> None:
    path = tmp_path / "long"
    with open(path, "wb") as file:
        file.write(start.encode())
        file.truncate(2**30)  # sparse: zeros without a line break
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match=r"is longer than 1,048,576 bytes|has more than 536,870,912 bytes") as error:
            read_keypoints(path)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
    assert str(path) in str(error.value)


def test_limits_are_not_reached_by_what_we_write(shared) -> None:
    table = read_keypoints(shared / "published" / "market-annotation-test.csv").rows(range(200))
    table.joints[:] = np.float32(-123.456789)
    table.confidence[:] = np.float32(0.123456789)
    assert max(map(len, keypoint_files.keypoints_csv(table).splitlines())) < keypoint_files.LONGEST_LINE / 500
    assert len(keypoint_files.coco_json(table)) / 200 < 1500  # a data set of 100,000 images would still be read
    assert keypoint_files.LARGEST_JSON > 1500 * 100_000


# ---------------------------------------------------------------------------------------------------- arbitrary content

pieces = st.sampled_from(
    [
        PEER_HEADER,
        X_FIRST_HEADER,
        OWN_HEADER,
        PEER_ROW,
        own_row(),
        "-1",
        "nan",
        "1e5",
        "é",
        "\x00",
        "\ufeff",
        *':,\n\r"[]{}',
    ]
)


@given(st.binary(max_size=200) | st.lists(pieces | st.text(max_size=5), max_size=12).map(lambda p: "".join(p).encode()))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_are_read_or_refused(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "table"
    path.write_bytes(content)
    read_or_refuse(path)


@pytest.mark.parametrize("format", ["own", "patn", "patn-x-first", "coco17", "openpose"])
@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_damaged_files_are_read_or_refused(tmp_path_factory, format: str, data) -> None:
    table = Keypoints(
        ["a.jpg", "b.jpg"], np.arange(72, dtype=np.float32).reshape(2, 18, 2), np.ones((2, 18), np.float32)
    )
    path = tmp_path_factory.mktemp("damaged") / "table"
    write_keypoints(table, path, format)
    file = path if path.is_file() else path / "b_keypoints.json"
    content = file.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, min(len(content), start + 40)) | st.just(len(content)))
    new = data.draw(st.binary(max_size=4) | pieces.map(str.encode) | st.just(content[: end - start]))
    file.write_bytes(content[:start] + new + content[end:])
    found = read_or_refuse(path)
    if found is not None:  # a table that was read can be written, and reads the same again
        write_keypoints(found, path.with_name("own"), "own")
        assert_same(read_keypoints(path.with_name("own")), found)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "keypoints", "people", "neck", "confidence", "file_name"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def places(tree: object, route: tuple = ()) -> list[tuple]:
    found = [route] if route else []
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        found += places(value, (*route, key))
    return found


@pytest.mark.parametrize("format", ["coco17", "openpose"])
@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_json_with_any_value_anywhere_is_read_or_refused(tmp_path_factory, format: str, data) -> None:
    table = Keypoints(
        ["a.jpg", "b.png"], np.arange(72, dtype=np.float32).reshape(2, 18, 2), np.ones((2, 18), np.float32)
    )
    path = tmp_path_factory.mktemp("json") / "table"
    write_keypoints(table, path, format)
    file = path if path.is_file() else path / "b.png_keypoints.json"
    tree = json.loads(file.read_text())
    tree = changed(tree, *data.draw(st.sampled_from(places(tree))), value=data.draw(json_values))
    file.write_text(json.dumps(tree))
    found = read_or_refuse(path)
    if found is not None:
        write_keypoints(found, path.with_name("own"), "own")
        assert_same(read_keypoints(path.with_name("own")), found)


# -------------------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(
    ("names", "format", "message"),
    [
        (["a:b.jpg"], "patn", "image name 'a:b.jpg': this format separates its fields with ':'"),
        (["a/b.jpg"], "own", "the image name 'a/b.jpg' has a folder"),
        (["a.jpg\n"], "coco17", "begins or ends with a blank"),
        (["a.jpg", "a.jpg"], "own", "image name 'a.jpg' stands twice"),
        (["a.png", "a.png.jpg"], "openpose", "'a.png_keypoints.json' stands for another image too"),
        (["a" * 250 + ".jpg"], "openpose", "cannot be written"),
        ([], "openpose", "the table has no images"),
        (["a.jpg"], "xml", "unknown key-point format 'xml'; choose one of own, patn, patn-x-first, coco17, openpose"),
    ],
)
def test_names_that_a_format_cannot_hold(tmp_path, names: list[str], format: str, message: str) -> None:
    table = Keypoints(names, np.ones((len(names), 18, 2), np.float32), np.ones((len(names), 18), np.float32))
    with pytest.raises(UserError) as error:
        write_keypoints(table, tmp_path / "out", format)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'out'}: ")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("x", "certainty"), [(np.inf, 1), (2.0**25, 1), (1, np.nan), (1, 1.5), (1, -0.5)])
@pytest.mark.parametrize("format", keypoint_files.FORMATS)
def test_numbers_that_no_reader_takes_are_not_written(tmp_path, format: str, x: float, certainty: float) -> None:
    table = Keypoints(["a.jpg"], np.ones((1, 18, 2), np.float32), np.ones((1, 18), np.float32))
    table.joints[0, 3, 0], table.confidence[0, 3] = x, certainty
    with pytest.raises(UserError, match=r"image 'a\.jpg': right_elbow is at .*; expected pixels"):
        write_keypoints(table, tmp_path / "out", format)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_things_is_not_replaced(tmp_path) -> None:
    table = Keypoints(["a.jpg"], np.ones((1, 18, 2), np.float32), np.ones((1, 18), np.float32))
    (tmp_path / "thesis.tex").write_text("all I have")
    with pytest.raises(UserError, match=r"'thesis\.tex' is there, and would be replaced; choose a new folder"):
        write_keypoints(table, tmp_path, "openpose")
    with pytest.raises(UserError, match=r"'thesis\.tex' is there"):
        write_keypoints(table, tmp_path / "thesis.tex", "openpose")
    assert (tmp_path / "thesis.tex").read_text() == "all I have"
    write_keypoints(table, tmp_path / "json", "openpose")
    table.names[0] = "b.jpg"
    write_keypoints(table, tmp_path / "json", "openpose")
    assert [p.name for p in (tmp_path / "json").iterdir()] == ["b_keypoints.json"]


# ------------------------------------------------------------------------------------------------------------- matching

spellings = st.lists(st.builds(lambda stem, n: stem + ".jpg" * n, st.sampled_from("ab"), st.integers(0, 4)), max_size=6)


@given(spellings, spellings)
@settings(max_examples=400, deadline=None)
def test_names_are_matched_exactly_or_by_one_suffix(wanted: list[str], known: list[str]) -> None:
    found = keypoint_files.match_names(iter(wanted), iter(known))
    assert list(found) == [n for n in dict.fromkeys(wanted) if n in found]
    assert set(found.values()) <= set(known)
    assert len(set(found.values())) == len(found)  # no image for two rows
    for name in wanted:
        if name in known:
            assert found[name] == name
            continue
        near = {
            k for k in known if name.endswith(".jpg") and k.endswith(".jpg") and {k + ".jpg", name + ".jpg"} & {name, k}
        }
        if name in found:
            assert near == {found[name]}
        elif len(near) == 1:  # left out only because another row fits the same image
            (image,) = near
            assert any(w != name and w in (image, image + ".jpg", image.removesuffix(".jpg")) for w in wanted)


def test_a_suffix_in_capitals_is_that_of_the_image() -> None:
    """Images keep their names with `.jpg` in small letters, and the tables of their owners say `.JPG`."""
    wanted = ["a.JPG", "b.jpg.JPG", "c.JPG", "c.jpg", "d.PNG"]
    assert keypoint_files.match_names(wanted, ["a.jpg", "b.jpg", "c.jpg", "d.png"]) == {
        "a.JPG": "a.jpg",
        "b.jpg.JPG": "b.jpg",
        "c.jpg": "c.jpg",
    }


def test_published_names_with_two_suffixes_find_their_images(shared) -> None:
    table = read_keypoints(shared / "published" / "market-annotation-test.csv")
    twice = [name for name in table.names if name.endswith(".jpg.jpg")]
    assert len(twice) == 18
    once = [name.replace(".jpg.jpg", ".jpg") for name in table.names]
    found = keypoint_files.match_names(table.names, once)
    assert list(found.values()) == once
    assert keypoint_files.match_names(once, table.names) == {image: name for name, image in found.items()}
    assert keypoint_files.match_names(["a.jpg", "b.png"], ["a", "a.jpeg", "b", "b.png.jpg"]) == {}
