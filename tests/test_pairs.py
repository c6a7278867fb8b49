"""The pair rule against the published lists, against a brute-force reading of the rule, and its errors."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potgan import pairs, pose
from potgan.config import PairSettings
from potgan.errors import UserError


def table(names: list[str], complete: list[bool] | None = None) -> pose.Keypoints:
    joints = np.zeros((len(names), 18, 2), np.float32)
    for i, whole in enumerate(complete or []):
        if not whole:
            joints[i, 8] = np.nan
    return pose.Keypoints(names, joints, np.ones((len(names), 18), np.float32))


def test_published_market_training_pairs(shared) -> None:
    """263,632 pairs and the SHA-256 of ../shared/README.md (from the authors' table, PROTOCOLS 2.2)."""
    found = pairs.patn_pairs(pose.read_keypoints(shared / "published" / "market-annotation-train.csv"))
    assert len(found) == 263_632
    digest = hashlib.sha256(pairs.pairs_csv(found).encode()).hexdigest()
    assert digest == "b5394ed978c52f2cb424402423496bca4a5eca12a8f7f68393d2f90183120ba1"


def test_published_market_test_pairs_byte_for_byte(shared) -> None:
    found = pairs.patn_pairs(pose.read_keypoints(shared / "published" / "market-annotation-test.csv"))
    published = (shared / "published" / "market-pairs-test.csv").read_bytes()
    assert pairs.pairs_csv(pairs.sample(found, 12_000, 0)).encode() == published


@given(st.lists(st.tuples(st.sampled_from(["0001", "0002", "0003", "-1", "0000"]), st.booleans()), max_size=14))
@settings(max_examples=60, deadline=None)
def test_rule_equals_brute_force(people) -> None:
    names = [f"{person}_c1s1_{i:06d}_00.jpg" for i, (person, _) in enumerate(people)]
    complete = [whole for _, whole in people]
    found = set(pairs.patn_pairs(table(names, complete)).itertuples(index=False, name=None))
    wanted = {
        (a, b)
        for (a, ok_a), (b, ok_b) in itertools.product(zip(names, complete, strict=True), repeat=2)
        if a != b and ok_a and ok_b and a[:4] == b[:4] and a[:4] not in ("0000", "-1_c")
    }
    assert found == wanted


@pytest.mark.parametrize("joint", ["right_hip", "left_hip", "right_shoulder", "left_shoulder"])
def test_each_torso_joint_is_needed_and_no_other(joint: str) -> None:
    keypoints = table(["0001_a.jpg", "0001_b.jpg"])
    for other in pose.JOINTS:
        if pose.JOINT[other] not in pose.TORSO:
            keypoints.joints[0, pose.JOINT[other]] = np.nan
    assert len(pairs.patn_pairs(keypoints)) == 2
    keypoints.joints[0, pose.JOINT[joint]] = np.nan
    assert len(pairs.patn_pairs(keypoints)) == 0


def test_deepfashion_categories_keep_their_underscore() -> None:
    name = "fashionWOMENTees_Tanksid0000783805_7additional.jpg"
    assert pairs.person_of(name, "deepfashion") == "fashionWOMENTees_Tanksid0000783805"


def make(people: range, images: int) -> pose.Keypoints:
    return table([f"{p:04d}_c1s1_{i:06d}_00.jpg" for p in people for i in range(images)])


def test_splits_share_no_identity_and_counts_add_up() -> None:
    settings_ = PairSettings(validation_identities=3, test_sample=10)
    lists, record = pairs.build(make(range(1, 11), 4), make(range(11, 15), 4), settings_, "market1501")
    assert len(lists["train"]) == 7 * 12
    assert len(lists["validation"]) == 3 * 12
    assert len(lists["test"]) == 10
    assert set(record["identity_overlap"].values()) == {0}
    people = {s: {n[:4] for n in lists[s]["from"]} | {n[:4] for n in lists[s]["to"]} for s in lists}
    assert not people["train"] & people["validation"]
    assert not people["test"] & (people["train"] | people["validation"])


def test_pairs_of_skipped_images_are_left_out_and_counted(tmp_path) -> None:
    """An image that could not be decoded, and was skipped as the configuration allows, must not stop its list."""
    train, test = make(range(1, 4), 3), make(range(4, 6), 3)
    everything = {name: tmp_path / f"{name}.csv" for name in ("train", "test")}
    for name, table_ in (("train", train), ("test", test)):
        everything[name].write_text(pairs.pairs_csv(pairs.patn_pairs(table_)))
    gone = train.names[0]
    kept = pose.Keypoints(train.names[1:], train.joints[1:], train.confidence[1:])
    chosen = PairSettings(train=str(everything["train"]), test=str(everything["test"]))
    with pytest.raises(UserError, match=f"unknown image '{gone}'"):
        pairs.build(kept, test, chosen, "market1501")
    lists, record = pairs.build(kept, test, chosen, "market1501", {gone})
    assert record["pairs_of_skipped_images"] == {"train": 4, "test": 0}  # 2 partners, both directions
    assert len(lists["train"]) == 18 - 4
    assert gone not in set(lists["train"].to_numpy().ravel())


def test_shared_identity_is_refused() -> None:
    with pytest.raises(UserError, match="both sides of a split"):
        pairs.build(make(range(1, 5), 3), make(range(4, 7), 3), PairSettings(), "market1501")


def test_unknown_image_in_a_published_list_names_its_line(tmp_path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("from,to\n0001_a.jpg,0001_b.jpg\n0001_a.jpg,9999_x.jpg\n")
    with pytest.raises(UserError, match=r"pairs\.csv, line 3: unknown image '9999_x\.jpg' \(1 of 2 pairs"):
        pairs.read_pairs(path, {"0001_a.jpg", "0001_b.jpg"})
    path.write_text("source,target\n")
    with pytest.raises(UserError, match="expected 'from,to'"):
        pairs.read_pairs(path)
    with pytest.raises(UserError, match="no such pair list"):
        pairs.read_pairs(tmp_path / "absent.csv")
