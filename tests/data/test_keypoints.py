"""The stage `keypoints`: where key points come from, when it stops, how two tables agree, and crops.

A known answer stands in for the detector."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_archives import TEST, TRAIN, jpeg, market, prepare

from potgan.common.errors import UserError
from potgan.data import detection, images, keypoints
from potgan.data.keypoint_files import read_keypoints
from potgan.data.pose import JOINT, JOINTS, Keypoints
from potgan.settings.schema import Dataset, KeypointSettings, OpenPifPafSettings, SyntheticSettings

SYNTHETIC = SyntheticSettings(train_identities=2, test_identities=1, images_per_identity=2)


@pytest.fixture
def detector(monkeypatch, tmp_path):
    """Stands in for OpenPifPaf. `answer` makes the table from the images, and `asked` keeps the images and the settings."""

    class Detector:
        answer = None
        asked = None

    def detect(images, settings, shards):
        Detector.asked = (images, settings, shards)
        return Detector.answer([image.name for image in images]), {
            "estimator": "openpifpaf (replaced)", "weights_sha256": settings.checkpoint_sha256, "input_scale": settings.scale,
        }  # fmt: skip

    monkeypatch.setattr(detection, "detect", detect)
    (tmp_path / "weights.pkl").write_bytes(b"x")
    return Detector


def settings(tmp_path: Path, **changes: object) -> KeypointSettings:
    own = OpenPifPafSettings(checkpoint=str(tmp_path / "weights.pkl"), checkpoint_sha256="a" * 64, scale=2.5)
    return KeypointSettings(estimator="openpifpaf", openpifpaf=own, **changes)


def everywhere(names: list[str]) -> Keypoints:
    joints = np.full((len(names), 18, 2), 10, np.float32)
    joints[:, JOINT["left_hip"]] = 40
    return Keypoints(names, joints, np.ones((len(names), 18), np.float32))


def synthetic(tmp_path: Path, chosen: KeypointSettings) -> Dataset:
    dataset = Dataset(kind="synthetic", label="S", synthetic=SYNTHETIC, keypoints=chosen)
    images.prepare_images(dataset, "s", tmp_path / "images", tmp_path / "data")
    return dataset


def test_detected_joints_are_compared_with_the_exact_ones(tmp_path, detector) -> None:
    """The detector gives the exact joints, but moves one wrist of each image by 1.9 lengths of the torso."""
    dataset = synthetic(tmp_path, settings(tmp_path))
    exact = read_keypoints(tmp_path / "images" / "annotation.csv")
    wrist = JOINT["right_wrist"]

    def answer(names: list[str]) -> Keypoints:
        table = exact.rows([exact.row[name] for name in names])
        joints = table.joints.copy()
        torso = np.linalg.norm(joints[:, JOINT["right_shoulder"]] - joints[:, JOINT["left_hip"]], axis=1)
        joints[:, wrist, 0] += 1.9 * torso
        return Keypoints(table.names, joints, table.confidence)

    detector.answer = answer
    record = keypoints.prepare_keypoints(dataset, "s", tmp_path / "images", tmp_path / "keypoints")
    agreement = record["agreement"]["pck@0.2"]
    assert agreement["by_joint"]["right_wrist"]["pck"] == 0
    others = [
        agreement["by_joint"][j]["pck"] for j in JOINTS if j != "right_wrist" and agreement["by_joint"][j]["joints"]
    ]
    assert set(others) == {1.0}
    assert record["agreement"]["images"] == 6
    assert record["input_scale"] == 2.5
    assert json.loads((tmp_path / "keypoints" / "keypoints.json").read_text())["weights_sha256"] == "a" * 64
    images, used, shards = detector.asked
    assert len(images) == 6
    assert used.scale == 2.5
    assert not shards.exists()


def test_published_tables_beside_a_detector_are_compared_with_it(tmp_path, detector) -> None:
    tables = {}
    for split, names in (("train", TRAIN), ("test", TEST[2:])):
        tables[split] = str(tmp_path / f"{split}.csv")
        ys, xs = [10] * 18, [10] * 18
        ys[JOINT["left_hip"]] = xs[JOINT["left_hip"]] = 40
        rows = [f"{n}: {ys}: {xs}" for n in names]
        Path(tables[split]).write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]) + "\n")
    source = market(tmp_path / "m.zip")
    dataset = Dataset("market1501", "M", source=str(source), allow_partial=True, keypoints=settings(tmp_path, **tables))
    prepare(dataset, "m", tmp_path / "images")
    detector.answer = everywhere
    record = keypoints.prepare_keypoints(dataset, "m", tmp_path / "images", tmp_path / "keypoints")
    assert record["estimator"] == "openpifpaf (replaced)"
    assert record["images"] == 6  # all images, not only those of the tables
    assert record["agreement"]["images"] == 4
    assert record["agreement"]["with"] == "published annotation table"
    assert record["agreement"]["pck@0.1"]["pck"] == 1.0


def test_too_few_detections_stop_the_run_with_the_likely_cause(tmp_path, detector) -> None:
    dataset = synthetic(tmp_path, settings(tmp_path))

    def nothing(names: list[str]) -> Keypoints:
        table = everywhere(names)
        table.joints[:] = np.nan
        return table

    def one_in_six(names: list[str]) -> Keypoints:
        table = nothing(names)
        table.joints[0] = 3
        return table

    detector.answer = nothing
    with pytest.raises(UserError) as error:
        keypoints.prepare_keypoints(dataset, "s", tmp_path / "images", tmp_path / "keypoints")
    assert "only 0 of 6 images have any joint (0%" in str(error.value)
    assert "openpifpaf.scale higher" in str(error.value)
    assert "\n" not in str(error.value)
    detector.answer = one_in_six
    with pytest.raises(UserError, match=r"only 1 of 6 images have any joint \(17%, and .* is 50%\)"):
        keypoints.prepare_keypoints(dataset, "s", tmp_path / "images", tmp_path / "keypoints")
    assert not (tmp_path / "keypoints").exists()
    lenient = synthetic(tmp_path, settings(tmp_path, minimum_detection_rate=0.1))
    record = keypoints.prepare_keypoints(lenient, "s", tmp_path / "images", tmp_path / "keypoints")
    assert record["detection_rate"] == pytest.approx(1 / 6, abs=1e-4)
    assert record["splits"]["train"]["joint_rate"]["nose"] == 0.25
    with_zero = synthetic(tmp_path, settings(tmp_path, minimum_detection_rate=0.0))
    detector.answer = nothing
    with pytest.raises(UserError, match="only 0 of 6"):  # nothing at all is never a result
        keypoints.prepare_keypoints(with_zero, "s", tmp_path / "images", tmp_path / "keypoints")


def test_a_checkpoint_needs_a_hash_that_somebody_vouches_for(tmp_path) -> None:
    path = tmp_path / "own.pkl"
    with pytest.raises(UserError, match=r"own\.pkl: missing; .* names a checkpoint file or one of shufflenetv2k16"):
        keypoints.checkpoint_of(OpenPifPafSettings(checkpoint=str(path)), "d")
    path.write_bytes(b"pickle")
    with pytest.raises(UserError, match="a checkpoint is a pickle, which runs code when it is loaded; set datasets"):
        keypoints.checkpoint_of(OpenPifPafSettings(checkpoint=str(path)), "d")
    path.with_suffix(".json").write_text('{"sha256": "abc"}')
    assert keypoints.checkpoint_of(OpenPifPafSettings(checkpoint=str(path)), "d") == (path, "abc")
    pinned = OpenPifPafSettings(checkpoint=str(path), checkpoint_sha256="def")
    assert keypoints.checkpoint_of(pinned, "d") == (path, "def")


def test_joints_outside_the_frame_are_counted_and_kept(tmp_path) -> None:
    tables = {}
    for split, names in (("train", TRAIN), ("test", TEST)):
        tables[split] = str(tmp_path / f"{split}.csv")
        rows = [f"{n}: {[130] + [5] * 17}: {[5] * 18}" for n in names]  # the nose is below the image
        Path(tables[split]).write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]) + "\n")
    source = market(tmp_path / "m.zip")
    dataset = Dataset("market1501", "M", source=str(source), allow_partial=True, keypoints=KeypointSettings(**tables))
    prepare(dataset, "m", tmp_path / "images")
    record = keypoints.prepare_keypoints(dataset, "m", tmp_path / "images", tmp_path / "keypoints")
    assert record["outside_frame"] == 6
    assert read_keypoints(tmp_path / "keypoints" / "keypoints.csv").joints[0, 0].tolist() == [5, 130]


def test_a_table_of_smaller_images_is_refused_and_leaves_nothing(tmp_path) -> None:
    """Market-1501's joints, on images of twice the size: each joint would be drawn at half its place."""
    ys, xs = [10 + 6 * k for k in range(18)], [18 + 25 * (k % 2) for k in range(18)]
    tables = {}
    for split, person in (("train", "0002"), ("test", "0003")):
        folder = tmp_path / "source" / f"bounding_box_{split}"
        folder.mkdir(parents=True)
        names = [f"{person}_c1s1_000001_{box:02d}.jpg" for box in range(8)]
        for name in names:
            (folder / name).write_bytes(jpeg(0, (256, 128)))
        tables[split] = str(tmp_path / f"{split}.csv")
        rows = [f"{name}: {ys}: {xs}" for name in names]
        Path(tables[split]).write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]) + "\n")
    dataset = Dataset(
        "market1501", "M", source=str(tmp_path / "source"), allow_partial=True, keypoints=KeypointSettings(**tables)
    )
    prepare(dataset, "m", tmp_path / "images")
    with pytest.raises(UserError, match=r"train\.csv: .* beyond 34% of the width and 44% of the .*are 256 x 128"):
        keypoints.prepare_keypoints(dataset, "m", tmp_path / "images", tmp_path / "keypoints")
    assert not (tmp_path / "keypoints").exists()


def test_missing_tables_name_where_they_are_had(tmp_path) -> None:
    source = market(tmp_path / "m.zip")
    dataset = Dataset("market1501", "M", source=str(source), allow_partial=True)
    prepare(dataset, "m", tmp_path / "images")
    with pytest.raises(
        UserError, match=r"keypoints\.train is missing: .*estimator to openpifpaf \(market-annotation.*PATN"
    ):
        keypoints.prepare_keypoints(dataset, "m", tmp_path / "images", tmp_path / "keypoints")
