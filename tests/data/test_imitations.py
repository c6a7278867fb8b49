"""Imitations have the published names and structure, key points that lie on the people, and are read by the real readers."""

import json
import os
import re
import struct
import subprocess
import sys
import zipfile
import zlib
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from potgan.common.errors import UserError
from potgan.data import pairs
from potgan.data.images import prepare_images
from potgan.data.keypoint_files import read_keypoints
from potgan.data.keypoints import prepare_keypoints, split_keypoints
from potgan.data.pose import JOINT, TORSO
from potgan.data.sources import archives
from potgan.data.sources.acquisition import Copy
from potgan.data.synthetic import imitations
from potgan.settings.schema import Dataset, KeypointSettings, PairSettings, SyntheticSettings

SMALL = SyntheticSettings(train_identities=4, test_identities=3, images_per_identity=6)
KINDS = ("market1501", "dukemtmc", "deepfashion")
TABLES = {"market1501": "market", "dukemtmc": "duke", "deepfashion": "fasion"}


class Written:
    """An imitation on disk, which is read without the package, by zipfile and json alone."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.record = imitations.write_archive(kind, folder, SMALL, seed=3)
        self.archive = folder / self.record["archive"]
        with zipfile.ZipFile(self.archive) as file:
            self.members = {name: file.read(name) for name in file.namelist() if not name.endswith("/")}

    def images(self, folder: str) -> dict[str, np.ndarray]:
        """File name -> image as it is stored (grey or BGR), of the `.jpg` files in a folder of the archive."""
        found = {
            name.rsplit("/", 1)[1]: content
            for name, content in self.members.items()
            if f"/{folder}/" in f"/{name}" and name.endswith(".jpg")
        }
        return {n: cv2.imdecode(np.frombuffer(c, np.uint8), cv2.IMREAD_UNCHANGED) for n, c in found.items()}

    def rows(self, split: str) -> dict[str, np.ndarray]:
        """Name -> (18, 2) x, y of the table, with -1 for missing joints. In the file y stands first."""
        lines = (self.folder / f"{TABLES[self.kind]}-annotation-{split}.csv").read_text().splitlines()
        assert lines[0] == "name:keypoints_y:keypoints_x"
        fields = [line.split(":") for line in lines[1:]]
        return {name: np.array([json.loads(x), json.loads(y)]).T for name, y, x in fields}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> dict[str, Written]:
    folder = tmp_path_factory.mktemp("imitations")
    return {kind: Written(kind, folder / kind) for kind in KINDS}


def test_the_same_seed_gives_the_same_bytes_and_another_other_people(written, tmp_path) -> None:
    settings = SyntheticSettings(train_identities=1, test_identities=1, images_per_identity=2, seed=9, height=32)
    for kind in KINDS:
        a = imitations.write_archive(kind, tmp_path / kind, settings, seed=1)
        b = imitations.write_archive(kind, tmp_path / "again" / kind, settings, seed=1)
        c = imitations.write_archive(kind, tmp_path / "other" / kind, settings, seed=2)
        assert a == b
        for path in a["sha256"]:
            assert (tmp_path / kind / path).read_bytes() == (tmp_path / "again" / kind / path).read_bytes()
        assert a["sha256"][a["archive"]] != c["sha256"][c["archive"]]
        again = imitations.write_archive(kind, tmp_path / kind, settings, seed=2)  # an imitation may be written anew
        assert again == c


def test_every_file_of_the_record_is_there_and_no_other(written) -> None:
    for kind, made in written.items():
        files = {p.relative_to(made.folder).as_posix() for p in made.folder.rglob("*") if p.is_file()}
        assert files == {*made.record["sha256"], "imitation.json"}
        assert json.loads((made.folder / "imitation.json").read_text()) == made.record
        assert made.record["imitation_of"] == kind
        assert Path(made.record["archive"]).name == archives.facts_of(kind)["archive"]
        assert "not the data set" in zipfile.ZipFile(made.archive).comment.decode()


def test_market1501_has_its_folders_names_and_sizes(written) -> None:
    made = written["market1501"]
    top = "Market-1501-v15.09.15"
    grammar = re.compile(r"(-1|\d{4})_c[1-6]s[1-6]_\d{6}_\d\d\.jpg(\.jpg)?")
    folders = {f: made.images(f) for f in ("bounding_box_train", "bounding_box_test", "query", "gt_bbox")}
    for folder, images in folders.items():
        assert f"{top}/{folder}/Thumbs.db" in made.members
        assert all(grammar.fullmatch(name) for name in images)
        assert all(image.shape == (128, 64, 3) for image in images.values())
    assert f"{top}/readme.txt" in made.members
    assert {name.split("/")[0] for name in made.members} == {top}
    train, test = set(folders["bounding_box_train"]), set(folders["bounding_box_test"])
    assert len(train) == 4 * 6
    people = {name[:4] for name in test} - {"-1_c", "0000"}
    assert len(people) == 3
    assert not people & {name[:4] for name in train}
    for prefix in ("-1_", "0000_"):
        assert sum(name.startswith(prefix) for name in test) >= 4
    assert {name[:4] for name in test if name.endswith(".jpg.jpg")} <= people
    assert sum(name.endswith(".jpg.jpg") for name in test) == 6  # one person's
    assert {name[:4] for name in folders["query"]} == people
    assert not set(folders["query"]) & test
    mats = [name for name in made.members if "/gt_query/" in name]
    assert len(mats) == 2 * len(folders["query"])
    assert all(made.members[name].startswith(b"MATLAB 5.0 MAT-file") for name in mats)


def test_dukemtmc_has_its_names_sizes_cameras_and_distractors(written) -> None:
    made = written["dukemtmc"]
    grammar = re.compile(r"(\d{4})_c([1-8])_f\d{7}\.jpg")
    train, test, query = (made.images(f) for f in ("bounding_box_train", "bounding_box_test", "query"))
    everything = train | test
    assert all(grammar.fullmatch(name) for name in [*everything, *query])
    for name in ("CITATION.txt", "LICENSE_DukeMTMC.txt", "README.md"):
        assert f"DukeMTMC-reID/{name}" in made.members
    sizes = {image.shape[:2] for image in everything.values()}
    assert len(sizes) > 0.8 * len(everything)
    assert min(h for h, _ in sizes) >= 120
    assert max(h for h, _ in sizes) <= 300
    assert np.ptp([w / h for h, w in sizes]) > 0.1
    assert any(image.ndim == 2 for image in everything.values())
    cameras = defaultdict(set)
    for name in test:
        cameras[name[:4]].add(name[5:7])
    queried = {name[:4] for name in query}
    distractors = set(cameras) - queried
    assert len(queried) == 3
    assert len(distractors) >= 2
    assert all(len(cameras[person]) == 1 for person in distractors)
    assert all(len(cameras[person]) > 1 for person in queried)
    assert len({name[5:7] for name in [*everything, *query]}) > 6
    assert not {name[:4] for name in train} & set(cameras)
    ids = sorted(int(person) for person in {name[:4] for name in everything})
    assert (np.diff(ids) > 1).any()


def test_deepfashion_has_its_tree_bars_lists_and_shared_items(written) -> None:
    made = written["deepfashion"]
    grammar = re.compile(r"img/(WOMEN|MEN)/(\w+)/id_(\d{8})/(\d\d)_(\d)_([a-z]+)\.jpg")
    views = {"1front", "2side", "3back", "4full", "6flat", "7additional"}
    flat, seen = {}, set()
    for path, content in made.members.items():
        gender, category, item, outfit, number, view = grammar.fullmatch(path).groups()
        flat[f"fashion{gender}{category}id{item}{outfit}_{number}{view}.jpg"] = path
        seen.add(number + view)
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (256, 256, 3)
        column = image.mean(axis=(0, 2))  # white bars beside a picture whose background is light grey
        assert (column[:40] > 251).all()
        assert (column[40:216] < 246).all()
        assert (column[216:] > 251).all()
    assert seen == views
    assert any("_" in path.split("/")[2] for path in made.members)
    train, test = ((made.folder / f"{split}.lst").read_text().split() for split in ("train", "test"))
    assert sorted(train + test) == sorted(flat)
    found = pairs.deepfashion_split_statistics(train, test)
    assert (found["train"]["outfits"], found["test"]["outfits"]) == (4, 3)
    assert found["shared"]["outfits"] == 0
    assert found["shared"]["items"] == 2
    assert found["train"]["items"] < found["train"]["outfits"]
    lines = (made.folder / "Eval" / "list_eval_partition.txt").read_text().splitlines()
    assert int(lines[0]) == len(lines) - 2 == len(flat)
    assert lines[1].split() == ["image_name", "item_id", "evaluation_status"]
    table = [line.split() for line in lines[2:]]
    assert {path for path, _, _ in table} == set(made.members)
    assert {status for _, _, status in table} <= {"train", "query", "gallery"}


def test_tables_have_a_row_for_each_image_of_their_split(written) -> None:
    for split in ("train", "test"):
        for kind in ("market1501", "dukemtmc"):
            made = written[kind]
            assert set(made.rows(split)) == set(made.images(f"bounding_box_{split}"))
        made = written["deepfashion"]
        assert set(made.rows(split)) == set((made.folder / f"{split}.lst").read_text().split())
    for name, joints in written["market1501"].rows("test").items():
        if name.startswith("0000"):
            assert (joints == -1).all()
    junk = [joints for name, joints in written["market1501"].rows("test").items() if name.startswith("-1")]
    assert 0 < sum((joints != -1).any() for joints in junk) < len(junk) / 2
    for name, joints in (written["deepfashion"].rows("train") | written["deepfashion"].rows("test")).items():
        assert (joints == -1).all() == ("6flat" in name)


def test_deepfashions_key_points_lie_on_the_people(written) -> None:
    """The studio has one grey, so the person is where the picture differs from it. Joints would lie beside the person if
    the bars were forgotten, the axes exchanged, or the cut not subtracted."""
    made = written["deepfashion"]
    tree = re.compile(r"img/(\w+)/(\w+)/id_(\d+)/(\d\d)_(\d)_(\w+)\.jpg")
    rows = made.rows("train") | made.rows("test")
    inside, total = 0, 0
    for path, content in made.members.items():
        gender, category, item, outfit, number, view = tree.fullmatch(path).groups()
        joints = rows[f"fashion{gender}{category}id{item}{outfit}_{number}{view}.jpg"]
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).astype(int)
        person = (abs(image - 240).max(axis=2) > 14) & (image.min(axis=2) < 245)
        person = cv2.dilate(person.astype(np.uint8), np.ones((7, 7), np.uint8))  # a nose may stand out by a pixel
        joints = joints[joints[:, 0] >= 0]
        inside += person[joints[:, 1], joints[:, 0]].sum()
        total += len(joints)
    assert total > 200
    assert inside / total > 0.97


@pytest.mark.parametrize("kind", ["market1501", "dukemtmc"])
def test_key_points_have_the_measures_of_their_own_image(written, kind) -> None:
    """A standing person fills a detector's box, so the head is at the top and the ankles at the bottom of *this* image,
    whatever its size is."""
    made = written[kind]
    checked = 0
    for split in ("train", "test"):
        images = made.images(f"bounding_box_{split}")
        for name, joints in made.rows(split).items():
            if name.startswith(("-1", "0000")):
                continue
            height, width = images[name].shape[:2]
            missing = (joints == -1).all(axis=1)
            assert ((joints >= 0) & (joints < (width, height)))[~missing].all()
            y = np.where(missing, np.nan, joints[:, 1] / height)
            head = y[[JOINT["nose"], JOINT["right_ear"], JOINT["left_ear"]]]
            ankles = y[[JOINT["right_ankle"], JOINT["left_ankle"]]]
            shoulders, hips = y[list(TORSO[2:])], y[list(TORSO[:2])]
            assert not np.isnan(y[list(TORSO)]).any()
            assert (head[~np.isnan(head)] < 0.22).all()
            assert ((shoulders > 0.14) & (shoulders < 0.32)).all()
            assert ((hips > 0.4) & (hips < 0.62)).all()
            assert (ankles[~np.isnan(ankles)] > 0.76).all()
            checked += 1
    assert checked >= 7 * 6


def test_pair_lists_are_the_published_kind(written) -> None:
    for kind in ("market1501", "deepfashion"):
        made = written[kind]
        for split in ("train", "test"):
            rows = made.rows(split)
            listed = pairs.read_pairs(made.folder / f"{TABLES[kind]}-pairs-{split}.csv", rows, kind)
            torso = {n for n, j in rows.items() if (j[list(TORSO)] >= 0).all() and not n.startswith(("-1", "0000"))}
            key = (lambda n: n[: n.rindex("_")]) if kind == "deepfashion" else (lambda n: n[:4])
            wanted = {(a, b) for a in torso for b in torso if a != b and key(a) == key(b)}
            assert set(listed.itertuples(index=False, name=None)) == wanted
            assert len(listed) == len(wanted) > 20
    assert not list(written["dukemtmc"].folder.glob("*pairs*"))  # nobody publishes any


# ---------------------------------------------------------------------------------------------------------------------
# The real readers


@pytest.mark.parametrize("kind", KINDS)
def test_the_stages_take_it_as_the_real_archive(written, kind, tmp_path) -> None:
    made = written[kind]
    record = made.record
    tables = {split: str(made.folder / name) for split, name in record["tables"].items()}
    dataset = Dataset(
        kind=kind,
        label="imitation",
        source=str(made.archive),
        allow_partial=True,
        splits={split: str(made.folder / name) for split, name in record["lists"].items()},
        keypoints=KeypointSettings(**tables),
        pairs=PairSettings(**{split: str(made.folder / name) for split, name in record["pairs"].items()}),
    )
    images = prepare_images(dataset, "imitation", tmp_path / "images", tmp_path)
    assert images["images"] == record["images"]
    assert images["layout"] == ("the published tree" if kind == "deepfashion" else "the published folders")
    assert images["skipped"] == []
    prepare_keypoints(dataset, "imitation", tmp_path / "images", tmp_path / "keypoints")
    table = read_keypoints(tmp_path / "keypoints" / "keypoints.csv")
    assert len(table) == sum(record["images"].values())
    split = split_keypoints(table, tmp_path / "images")
    lists, found = pairs.build(split["train"], split["test"], dataset.pairs, kind)
    assert found["identity_overlap"]["train-test"] == 0
    if kind == "deepfashion":
        assert found["item_overlap"]["train-test"] == 2
    else:
        assert found["splits"]["train"]["same_camera"] > 0
        assert found["splits"]["train"]["cross_camera"] > 0
    by_rule = pairs.build(split["train"], split["test"], PairSettings(), kind)[0]
    for part in ("train", "test"):
        assert set(lists[part].itertuples(index=False)) == set(by_rule[part].itertuples(index=False))


def encrypt(source: Path, target: Path, password: bytes) -> None:
    """Write a zip archive again with the traditional encryption (APPNOTE 6.1), as `zip -P` does. zipfile cannot."""
    table = []
    for i in range(256):  # the bare table of CRC-32, without the inversions of zlib.crc32
        value = i
        for _ in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
        table.append(value)

    def cipher(plain: bytes) -> bytes:
        a, b, c = 0x12345678, 0x23456789, 0x34567890

        def update(byte: int) -> None:
            nonlocal a, b, c
            a = a >> 8 ^ table[(a ^ byte) & 255]
            b = ((b + (a & 255)) * 134775813 + 1) & 0xFFFFFFFF
            c = c >> 8 ^ table[(c ^ b >> 24) & 255]

        for byte in password:
            update(byte)
        out = bytearray()
        for byte in plain:
            key = (c | 2) & 0xFFFF
            out.append(byte ^ (key * (key ^ 1) >> 8 & 255))
            update(byte)
        return bytes(out)

    body, directory, count = bytearray(), bytearray(), 0
    with zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            if name.endswith("/"):
                continue
            plain = archive.read(name)
            crc = zlib.crc32(plain)
            stored = cipher(bytes(11) + bytes([crc >> 24]) + plain)
            fields = struct.pack("<HHHHHIIIHH", 20, 1, 0, 0, 33, crc, len(stored), len(plain), len(name), 0)
            directory += (
                b"PK\1\2\x14\3" + fields + struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, len(body)) + name.encode()
            )
            body += b"PK\3\4" + fields + name.encode() + stored
            count += 1
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), len(body), 0)
    target.write_bytes(bytes(body + directory + end))


def test_an_encrypted_archive_needs_its_password_and_gives_the_same_images(written, tmp_path) -> None:
    made = written["deepfashion"]
    path, facts = tmp_path / "img.zip", archives.facts_of("deepfashion")
    encrypt(made.archive, path, b"an agreement")
    lists = {split: made.folder / f"{split}.lst" for split in ("train", "test")}

    def read(password: bytes | None) -> dict[str, bytes]:
        with archives.Source(path, facts, password) as source:
            return {entry.path: entry.read() for entry in archives.survey(source, facts, lists).entries}

    assert read(b"an agreement") == made.members
    with pytest.raises(UserError, match="is encrypted"):
        read(None)
    with pytest.raises(UserError, match="the password does not open it"):
        read(b"a guess")


def test_a_fetched_archive_is_kept_where_only_the_password_is_wrong(written, tmp_path, monkeypatch) -> None:
    path = tmp_path / "img.zip"
    encrypt(written["deepfashion"].archive, path, b"an agreement")
    monkeypatch.setattr(
        "potgan.data.images.acquire", lambda dataset, name, data: Copy(path, "https://example.org/img.zip")
    )
    monkeypatch.setattr("potgan.data.images.password_of", lambda facts, data: b"a guess")
    with pytest.raises(UserError, match=r"img\.zip: the password does not open it"):
        prepare_images(Dataset("deepfashion", "D"), "d", tmp_path / "out", tmp_path)
    assert path.exists()


def test_the_password_opens_the_archive_through_the_verb_and_is_written_nowhere(written, tmp_path) -> None:
    made = written["deepfashion"]
    encrypt(made.archive, tmp_path / "img.zip", b"a-very-secret-agreement")
    command = [sys.executable, "-m", "potgan", "images", "deepfashion", "--archive", "img.zip", "--out", "out",
               "--splits", *(str(made.folder / f"{split}.lst") for split in ("train", "test"))]  # fmt: skip
    for password, code, said in (
        ("", 2, "img.zip: is encrypted; put its password into the environment variable POTGAN_DEEPFASHION_PASSWORD"),
        ("a guess", 2, "img.zip: the password does not open it"),
        ("a-very-secret-agreement", 0, "22 train and 16 test images"),
    ):
        environment = os.environ | {"POTGAN_DEEPFASHION_PASSWORD": password}
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == code, run.stderr
        assert said in run.stderr
        assert "very-secret" not in run.stdout + run.stderr
        assert (tmp_path / "out").exists() == (code == 0)
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"very-secret" not in path.read_bytes()


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


def test_nothing_else_is_replaced(written, tmp_path) -> None:
    tiny = SyntheticSettings(train_identities=1, test_identities=1, images_per_identity=2)
    real = tmp_path / "data" / "Market-1501-v15.09.15.zip"
    real.parent.mkdir()
    real.write_bytes(b"PK the real one")
    with pytest.raises(UserError, match="holds other files"):
        imitations.write_archive("market1501", tmp_path / "data", tiny)
    assert real.read_bytes() == b"PK the real one"
    imitations.write_archive("market1501", tmp_path / "a", tiny)
    with pytest.raises(UserError, match="holds an imitation of market1501"):
        imitations.write_archive("deepfashion", tmp_path / "a", tiny)
    (tmp_path / "a" / "imitation.json").unlink()  # Snakemake removes an output before it makes it anew
    imitations.write_archive("market1501", tmp_path / "a", tiny)
    (tmp_path / "a" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files \(the first: mine\.txt\)"):
        imitations.write_archive("market1501", tmp_path / "a", tiny)
    with pytest.raises(UserError, match="is no folder"):
        imitations.write_archive("market1501", tmp_path / "a" / "mine.txt", tiny)


def test_a_failure_leaves_nothing(tmp_path, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise UserError("no space")

    monkeypatch.setattr(imitations, "pairs_csv", fail)
    with pytest.raises(UserError, match="no space"):
        imitations.write_archive("market1501", tmp_path / "new" / "a", SyntheticSettings(1, 1, 2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cuhk03", SMALL, 0), "no data set is known as 'cuhk03'; there are market1501, dukemtmc, deepfashion"),
        (("dukemtmc", SyntheticSettings(test_identities=0), 0), "test_identities is 0; choose 1 to 500"),
        (("dukemtmc", SyntheticSettings(images_per_identity=1), 0), "images_per_identity is 1; choose 2 to 40"),
        (("dukemtmc", SMALL, -1), "seed is -1; choose 0 to 999"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path, arguments, message) -> None:
    kind, settings, seed = arguments
    with pytest.raises(UserError) as error:
        imitations.write_archive(kind, tmp_path / "a", settings, seed)
    assert message in str(error.value)
    assert not (tmp_path / "a").exists()
