"""The pair rules, compared with the published lists and with a second, simple program for each rule; and their errors."""

import hashlib
import itertools
import json
import random
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potgan import cli
from potgan.common.errors import UserError
from potgan.data import pairs, pose
from potgan.data.keypoint_files import read_keypoints
from potgan.settings.schema import PairSettings


def table(names: list[str], complete: list[bool] | None = None) -> pose.Keypoints:
    joints = np.zeros((len(names), 18, 2), np.float32)
    for i, whole in enumerate(complete or []):
        if not whole:
            joints[i, 8] = np.nan
    return pose.Keypoints(names, joints, np.ones((len(names), 18), np.float32))


def test_published_market_training_pairs(shared) -> None:
    """There are 263,632 pairs, as in issue 28 of Deformable GAN's repository, in the order of the table's rows."""
    found = pairs.patn_pairs(read_keypoints(shared / "published" / "market-annotation-train.csv"))
    assert len(found) == 263_632
    digest = hashlib.sha256(pairs.pairs_csv(found).encode()).hexdigest()
    assert digest == "b5394ed978c52f2cb424402423496bca4a5eca12a8f7f68393d2f90183120ba1"


def test_published_market_test_pairs_byte_for_byte(shared) -> None:
    found = pairs.patn_pairs(read_keypoints(shared / "published" / "market-annotation-test.csv"))
    published = (shared / "published" / "market-pairs-test.csv").read_bytes()
    assert pairs.pairs_csv(pairs.sample(found, 12_000, 0)).encode() == published


def test_a_sample_of_all_begins_with_the_published_list(shared, tmp_path, capsys) -> None:
    """pandas draws without replacement by cutting off a permutation, so a larger sample begins with a smaller one."""
    table, out = shared / "published" / "market-annotation-test.csv", tmp_path / "pairs.csv"
    command = ["pairs", "--keypoints", str(table), "--out", str(out), "--sample"]
    assert cli.main([*command, "all"]) == 0
    published = (shared / "published" / "market-pairs-test.csv").read_bytes()
    found = out.read_bytes()
    assert found.startswith(published)
    assert len(found) > 10 * len(published)
    assert cli.main([*command, "12000"]) == 0
    assert out.read_bytes() == published
    for wrong in ("0", "-3", "1.5", "every"):
        assert cli.main([*command, wrong]) == 2
        assert f"--sample must be a number from 1 on, or all, and is {wrong}" in capsys.readouterr().err


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


def pairs_of_table(tmp_path, names: list[str], *more: str, x: int = 9) -> tuple[int, pd.DataFrame | None]:
    """The exit code of `potgan pairs` for a table of these images, and the list that it wrote."""
    rows = [f"{name}: {[x] * 18}: {[x] * 18}" for name in names]
    (tmp_path / "table.csv").write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]) + "\n")
    out = tmp_path / "pairs.csv"
    code = cli.main(["pairs", "--keypoints", str(tmp_path / "table.csv"), "--out", str(out), *more])
    return code, pd.read_csv(out) if out.exists() else None


def test_the_names_of_a_table_tell_whose_they_are(tmp_path, shared) -> None:
    """DeepFashion's pairs stay within an outfit: before the first `_` all names of a category are equal."""
    names = (shared / "published" / "fashion-test.lst").read_text().split()
    code, found = pairs_of_table(tmp_path, names)
    outfits = Counter(name.rsplit("_", 1)[0] for name in names)
    assert code == 0
    assert len(found) == sum(count * (count - 1) for count in outfits.values())
    assert (found["from"].str.rsplit("_", n=1).str[0] == found["to"].str.rsplit("_", n=1).str[0]).all()


FASHION = ["fashionMENDenimid0000008001_1front.jpg", "fashionMENDenimid0000008001_2side.jpg"]
MARKET = ["0002_c1s1_000451_03.jpg", "0002_c2s1_000301_01.png"]


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        (
            MARKET,
            ["--kind", "deepfashion"],
            "'0002_c1s1_000451_03.jpg' is the name of an image of market1501; expected",
        ),
        (FASHION, ["--kind", "dukemtmc"], "an image of deepfashion; expected names as 0001_c2_f0046182.jpg (dukemtmc)"),
        (
            MARKET + FASHION,
            [],
            "_1front.jpg' is the name of an image of deepfashion; expected names as 0002_c1s1_000451",
        ),
        (
            ["anna_1.jpg", "anna_2.jpg"],
            [],
            "'anna_1.jpg' is no image's name of a known data set; expected names as 0002",
        ),
        (
            ["anna_1.jpg"],
            ["--kind", "market1501"],
            "'anna_1.jpg' is no image's name of a known data set; expected names as",
        ),
    ],
)
def test_names_of_another_kind_make_no_pairs(tmp_path, capsys, names, more, said) -> None:
    assert pairs_of_table(tmp_path, names, *more) == (2, None)
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1


def test_a_table_that_gives_no_pair_writes_no_list(tmp_path, capsys) -> None:
    assert pairs_of_table(tmp_path, MARKET, x=-1) == (2, None)
    assert "table.csv: no pair is left: no person has two images that rule patn takes" in capsys.readouterr().err
    assert pairs_of_table(tmp_path, MARKET)[0] == 0  # the suffix is no matter


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
    """A published list may name an image that cannot be decoded and is left out, as the configuration allows."""
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
    assert record["pairs_of_skipped_images"] == {"train": 4, "test": 0}  # two partners, in both directions
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


# ---------------------------------------------------------------------------------------------------------------------
# PG2's rule


def pg2_by_the_letter(names: list[str], found: set[str], count: int) -> list[tuple[str, str]]:
    """PG2's convert_market.py, loop by loop: it sorts the names without junk, takes both directions of every pair, shuffles
    the pairs of two persons first, shuffles as Python 2 does, and takes the first `count` pairs with poses."""
    random.seed(0)

    def shuffle(items: list) -> None:
        for i in reversed(range(1, len(items))):
            j = int(random.random() * (i + 1))
            items[i], items[j] = items[j], items[i]

    files = sorted(name for name in names if name[:2] != "-1" and name[:4] != "0000")
    positive, negative = [], []
    for i in range(len(files)):
        for j in range(i + 1, len(files)):
            if files[i][:4] == files[j][:4]:
                positive += [(files[i], files[j]), (files[j], files[i])]
            elif j % 2000 == 0:
                negative.append((files[i], files[j]))
    shuffle(negative)
    shuffle(positive)
    return [pair for pair in positive if set(pair) <= found][:count]


def test_pg2_equals_its_loops() -> None:
    """There are 2,300 images, so that PG2's pairs of two persons (for every 2,000th image) change the draw. One joint is a pose."""
    generator = np.random.default_rng(3)
    people = [f"{p:04d}" for p in range(1, 401)] + ["-1", "0000"]
    names = [f"{people[generator.integers(len(people))]}_c1s1_{i:06d}_00.jpg" for i in generator.permutation(2300)]
    keypoints = table(names)
    for row in np.flatnonzero(generator.random(2300) < 0.3):
        keypoints.joints[row] = np.nan
    for row in np.flatnonzero(generator.random(2300) < 0.3):
        keypoints.joints[row, 1:] = np.nan  # a nose is enough
    found = {name for name, joints in zip(names, keypoints.joints, strict=True) if not np.isnan(joints).all()}
    rule = pairs.PAIR_RULES["pg2"]
    candidates = rule.pairs(keypoints, "market1501")
    everything = pg2_by_the_letter(names, found, 10**9)
    assert len(everything) > 2000
    assert sorted(candidates.itertuples(index=False, name=None)) == sorted(everything)
    for count in (1, 700, 10**6):
        drawn = rule.sample(candidates, count, 0)
        assert list(drawn.itertuples(index=False, name=None)) == everything[:count]
    assert not rule.sample(candidates, 700, 1).equals(rule.sample(candidates, 700, 0))


def test_pg2_on_the_published_table(shared) -> None:
    keypoints = read_keypoints(shared / "published" / "market-annotation-test.csv")
    candidates = pairs.pg2_pairs(keypoints)
    people = Counter(name[:4] for name in keypoints.names if not name.startswith(("-1", "0000")))
    assert len(people) == 750
    assert candidates.attrs["formed"] == sum(n * (n - 1) for n in people.values())
    drawn = pairs.pg2_sample(candidates, 12_800, 0)
    assert len(drawn.drop_duplicates()) == 12_800  # as PG2's paper says
    seen = dict(zip(keypoints.names, keypoints.present.any(axis=1), strict=True))
    assert all(a[:4] == b[:4] and a != b and seen[a] and seen[b] for a, b in drawn.itertuples(index=False))


def test_build_uses_the_rule_that_is_named() -> None:
    train, test = make(range(1, 5), 3), make(range(5, 8), 3)
    for part in (train, test):
        part.joints[::3, 8] = np.nan  # one image of each person has no right hip: no pair under patn, one under pg2
    by_patn, _ = pairs.build(train, test, PairSettings(), "market1501")
    by_pg2, record = pairs.build(train, test, PairSettings(rule="pg2", test_sample=10), "market1501")
    assert (len(by_patn["train"]), len(by_patn["test"])) == (4 * 2, 3 * 2)
    assert (len(by_pg2["train"]), len(by_pg2["test"])) == (4 * 6, 10)
    assert record["rule"] == "pg2"
    assert list(by_pg2["train"].index) == list(range(24))
    with pytest.raises(UserError, match="no rule 'other'; there are patn, pg2"):
        pairs.build(train, test, PairSettings(rule="other"), "market1501")


# ---------------------------------------------------------------------------------------------------------------------
# Published lists as they are found


def test_line_ends_marks_and_blank_lines_do_not_matter(tmp_path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("from,to\n0001_a.jpg,0001_b.jpg\n0001_b.jpg,0001_a.jpg\n")
    plain = pairs.read_pairs(path)
    for content in (
        b"\xef\xbb\xbffrom,to\r\n0001_a.jpg,0001_b.jpg\r\n\r\n0001_b.jpg,0001_a.jpg",
        b'from, to\n"0001_a.jpg", 0001_b.jpg \n0001_b.jpg,0001_a.jpg\n\n',
        b"from,to\r0001_a.jpg,0001_b.jpg\r0001_b.jpg,0001_a.jpg\r",
    ):
        path.write_bytes(content)
        assert pairs.read_pairs(path, ["0001_a.jpg", "0001_b.jpg"], "market1501").equals(plain)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"from,to\r\n\r\n0001_a.jpg,0001_b.jpg\r\n0001_a.jpg,0002_a.jpg\r\n", "line 4: from and to are different persons"),
        (b"from,to\n0001_a.jpg,0001_a.jpg\n", "line 2: from and to are the same image"),
        (b"from,to\n0001_a.jpg\n", "line 2: '0001_a.jpg' is no pair of two image names"),
        (b"from,to\n0001_a.jpg,0001_b.jpg,1\n", "line 2: '0001_a.jpg,0001_b.jpg,1' is no pair"),
        (b"from,to\n0001_a.jpg,\n", "line 2: '0001_a.jpg,' is no pair"),
        (b",from,to\n0,0001_a.jpg,0001_b.jpg\n", "unknown header ',from,to'"),
        (b"", "unknown header ''"),
        (b"PK\x03\x04\xff\xfe", "not a text file"),
        (b'from,to\n"0001_a.jpg,0001_b.jpg\n' + b"x,y\n" * 50_000, "is no pair list"),
    ],
)  # fmt: skip
def test_what_is_no_pair_list_is_refused_with_its_line(tmp_path, content, message) -> None:
    path = tmp_path / "pairs.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        pairs.read_pairs(path, kind="market1501")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_is_no_pair_list(tmp_path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        pairs.read_pairs(tmp_path)


def test_deepfashions_pairs_stay_within_an_outfit(tmp_path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("from,to\n" + f"{fashion(1, 1, '1front')},{fashion(1, 1, '3back')}\n")
    assert len(pairs.read_pairs(path, kind="deepfashion")) == 1
    path.write_text("from,to\n" + f"{fashion(1, 1, '1front')},{fashion(1, 2, '1front')}\n")
    with pytest.raises(UserError, match="line 2: from and to are different outfits"):
        pairs.read_pairs(path, kind="deepfashion")


def test_a_doubled_suffix_is_the_same_image(tmp_path) -> None:
    """Market-1501's published test list names 1488_... with `.jpg` twice, and copies of the data set do not all do so."""
    path = tmp_path / "pairs.csv"
    path.write_text("from,to\n1488_a.jpg.jpg,1488_b.jpg\n1488_b.jpg,1488_c.jpg\n")
    found = pairs.read_pairs(path, ["1488_a.jpg", "1488_b.jpg", "1488_c.jpg.jpg"], "market1501")
    assert found.to_numpy().tolist() == [["1488_a.jpg", "1488_b.jpg"], ["1488_b.jpg", "1488_c.jpg.jpg"]]


def test_the_published_list_fits_images_with_the_suffix_once(shared) -> None:
    path = shared / "published" / "market-pairs-test.csv"
    names = read_keypoints(shared / "published" / "market-annotation-test.csv").names
    once = [name.replace(".jpg.jpg", ".jpg") for name in names]
    assert sum(a != b for a, b in zip(names, once, strict=True)) == 18
    text = "\n".join(path.read_text().splitlines()) + "\n"
    assert pairs.pairs_csv(pairs.read_pairs(path, names, "market1501")) == text
    assert pairs.pairs_csv(pairs.read_pairs(path, once, "market1501")) == text.replace(".jpg.jpg", ".jpg")


def test_pairs_that_stand_twice_are_kept_and_counted(tmp_path) -> None:
    """A pair that a published list repeats counts twice in published numbers, so it counts twice here. The record says so."""
    train, test = make(range(1, 3), 3), make(range(3, 5), 3)
    path = tmp_path / "pairs.csv"
    once = pairs.pairs_csv(pairs.patn_pairs(test))
    path.write_text(once + "\n".join(once.splitlines()[1:4]) + "\n")
    lists, record = pairs.build(train, test, PairSettings(test=str(path)), "market1501")
    assert len(lists["test"]) == 12 + 3
    assert record["splits"]["test"]["duplicates"] == 3
    assert record["splits"]["train"]["duplicates"] == 0


# ---------------------------------------------------------------------------------------------------------------------
# Statistics


def test_statistics_of_a_list_by_hand() -> None:
    listed = """0001_c1s1_000001_00.jpg,0001_c1s1_000002_00.jpg
        0001_c1s1_000001_00.jpg,0001_c2s1_000003_00.jpg
        0001_c1s1_000001_00.jpg,0001_c2s1_000003_00.jpg
        0002_c6s3_000001_00.jpg,0002_c5s1_000004_00.jpg"""
    frame = pd.DataFrame([line.strip().split(",") for line in listed.splitlines()], columns=["from", "to"])
    found = pairs.pair_statistics(frame, "market1501")
    assert found.pop("sha256") == hashlib.sha256(("from,to\n" + listed.replace(" ", "") + "\n").encode()).hexdigest()
    assert found == {
        "pairs": 4,
        "identities": 2,
        "images": 5,
        "targets": 3,
        "pairs_per_identity": {"minimum": 1, "median": 2, "maximum": 3},
        "duplicates": 1,
        "same_camera": 1,
        "cross_camera": 3,
    }


def test_cameras_of_both_grammars() -> None:
    assert pairs.camera_of("0002_c1s1_000451_03.jpg") == "1"
    assert pairs.camera_of("0001_c8_f0046182.jpg") == "8"
    assert pairs.camera_of("-1_c3s1_000401_03.jpg") == "3"
    assert pairs.camera_of(fashion(1, 1, "1front")) is None


def test_statistics_of_the_published_test_pairs(shared) -> None:
    """The pairs of one camera and of two are counted a second time, with slices of the names."""
    listed = pairs.read_pairs(shared / "published" / "market-pairs-test.csv", kind="market1501")
    found = pairs.pair_statistics(listed, "market1501")
    same = sum(a[:7] == b[:7] for a, b in listed.itertuples(index=False))  # 0002_c1
    assert (found["pairs"], found["duplicates"]) == (12_000, 0)
    assert (found["same_camera"], found["cross_camera"]) == (same, 12_000 - same)
    assert found["targets"] == 7_284  # counted by others (issue 1 of PATN's repository)


def test_patns_deepfashion_lists_share_items_but_no_outfit(shared) -> None:
    """Another program has counted these numbers in the published lists."""
    train, test = ((shared / "published" / f"fashion-{split}.lst").read_text().split() for split in ("train", "test"))
    found = pairs.deepfashion_split_statistics(train, test)
    assert found["train"] == {"images": 48_674, "outfits": 12_029, "items": 7_565, "ordered_pairs": 154_758}
    assert found["test"] == {"images": 4_038, "outfits": 1_000, "items": 930, "ordered_pairs": 12_860}
    assert found["shared"] == {"images": 0, "outfits": 0, "items": 513}


def fashion(item: int, outfit: int, view: str) -> str:
    return f"fashionWOMENTees_Tanksid{item:08d}{outfit:02d}_{view}.jpg"


def test_shared_items_are_reported_and_shared_outfits_refused() -> None:
    views = ("1front", "2side", "3back")
    train = table([fashion(item, 1, view) for item in (1, 2, 3) for view in views])
    test = table([fashion(item, 2, view) for item in (2, 3, 4) for view in views])
    _, record = pairs.build(train, test, PairSettings(), "deepfashion")
    assert record["identity_overlap"]["train-test"] == 0
    assert record["item_overlap"]["train-test"] == 2
    assert "same_camera" not in record["splits"]["test"]
    json.dumps(record)
    test = table([fashion(item, 1, view) for item in (3, 4) for view in views])
    with pytest.raises(UserError, match="outfits stand on both sides of a split"):
        pairs.build(train, test, PairSettings(), "deepfashion")
