"""Images from archives and folders: refused where they are not what they should be, and never half-written."""

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from potgan import archives, keypoints
from potgan.config import Dataset
from potgan.errors import UserError

TRAIN = ["0002_c1s1_000451_03.jpg", "0002_c2s1_000301_01.jpg", "0007_c3s3_077419_03.jpg"]
TEST = ["-1_c1s1_000401_03.jpg", "0000_c1s1_000151_01.jpg", "0003_c4s6_015641_02.jpg"]


def jpeg(seed: int, size: tuple[int, int] = (128, 64)) -> bytes:
    image = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def market(path: Path, folders: tuple[str, str] = ("bounding_box_train", "bounding_box_test"), **extra: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for folder, names in zip(folders, (TRAIN, TEST), strict=True):
            archive.writestr(f"Market-1501-v15.09.15/{folder}/Thumbs.db", b"\0")
            for i, name in enumerate(names):
                archive.writestr(f"Market-1501-v15.09.15/{folder}/{name}", jpeg(i))
        archive.writestr("Market-1501-v15.09.15/query/0003_c1s6_015971_00.jpg", jpeg(9))
        for name, content in extra.items():
            archive.writestr(name, content)
    return path


def settings(source: Path, **changes: object) -> Dataset:
    return Dataset(kind="market1501", label="M", source=str(source), allow_partial=True, **changes)


def test_only_the_two_splits_are_taken_with_original_bytes(tmp_path) -> None:
    source = market(tmp_path / "m.zip")
    record = archives.prepare_images(settings(source), "m", tmp_path / "images")
    table = pd.read_csv(tmp_path / "images" / "images.csv", dtype=str)
    assert sorted(table["name"]) == sorted(TRAIN + TEST)
    assert record["images"] == {"train": 3, "test": 3}
    assert dict(zip(table["name"], table["person"], strict=True))["-1_c1s1_000401_03.jpg"] == "-1"
    with zipfile.ZipFile(source) as archive:
        for row in table.itertuples():
            inside = next(n for n in archive.namelist() if n.endswith("/" + row.name) and "query" not in n)
            assert (tmp_path / "images" / row.path).read_bytes() == archive.read(inside)


def test_folder_and_renamed_folders_are_the_same_data(tmp_path) -> None:
    with zipfile.ZipFile(market(tmp_path / "m.zip", folders=("train", "test"))) as archive:
        archive.extractall(tmp_path / "unpacked")
    a = archives.prepare_images(settings(tmp_path / "unpacked"), "m", tmp_path / "a")
    b = archives.prepare_images(settings(market(tmp_path / "original.zip")), "m", tmp_path / "b")
    assert a["sha256"] == b["sha256"]


def test_names_that_climb_out_are_not_followed(tmp_path) -> None:
    extra = {"../../bounding_box_train/0002_c1s1_000451_04.jpg": jpeg(5), "/bounding_box_test/../x.jpg": jpeg(6)}
    archives.prepare_images(settings(market(tmp_path / "m.zip", **extra)), "m", tmp_path / "inner" / "images")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inner", "m.zip"]
    assert [p.name for p in (tmp_path / "inner").iterdir()] == ["images"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing; put Market-1501-v15.09.15.zip"),
        (
            b"<!DOCTYPE html><html>Google Drive - Quota exceeded</html>",
            "web page that was saved in place of the archive",
        ),
        (b"PK\x03\x04 cut off", "is not a zip archive, or is cut off"),
    ],
)
def test_missing_and_broken_archives_are_named_and_kept(tmp_path, content, message) -> None:
    source = tmp_path / "m.zip"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(UserError) as error:
        archives.prepare_images(settings(source), "m", tmp_path / "results" / "m" / "images")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ([] if content is None else ["m.zip"])
    if content is not None:
        assert source.read_bytes() == content


def test_a_part_needs_permission(tmp_path) -> None:
    whole = Dataset(kind="market1501", label="M", source=str(market(tmp_path / "m.zip")))
    with pytest.raises(UserError, match="has 3 train images, and Market-1501 has 12,936"):
        archives.prepare_images(whole, "m", tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_unreadable_images_stop_or_are_counted(tmp_path) -> None:
    broken = {"Market-1501-v15.09.15/bounding_box_train/0002_c5s1_000999_01.jpg": jpeg(3)[:90]}
    source = market(tmp_path / "m.zip", **broken)
    with pytest.raises(UserError, match=r"1 of 7 images cannot be decoded \(0002_c5s1_000999_01\.jpg\)"):
        archives.prepare_images(settings(source), "m", tmp_path / "images")
    assert not (tmp_path / "images").exists()
    record = archives.prepare_images(settings(source, unreadable_images="skip"), "m", tmp_path / "images")
    assert record["skipped"] == ["0002_c5s1_000999_01.jpg"]
    assert record["images"] == {"train": 3, "test": 3}


def test_a_name_in_both_splits_is_refused(tmp_path) -> None:
    extra = {f"Market-1501-v15.09.15/bounding_box_test/{TRAIN[0]}": jpeg(0)}
    with pytest.raises(UserError, match="stands twice"):
        archives.prepare_images(settings(market(tmp_path / "m.zip", **extra)), "m", tmp_path / "images")


def test_deepfashions_tree_becomes_patns_flat_names(tmp_path) -> None:
    tree = tmp_path / "img" / "WOMEN" / "Tees_Tanks" / "id_00007838"
    tree.mkdir(parents=True)
    (tree / "05_7_additional.jpg").write_bytes(jpeg(1, (256, 256)))
    (tree / "05_1_front.jpg").write_bytes(jpeg(2, (256, 256)))
    names = ["fashionWOMENTees_Tanksid0000783805_7additional.jpg", "fashionWOMENTees_Tanksid0000783805_1front.jpg"]
    for split, name in zip(("train", "test"), names, strict=True):
        (tmp_path / f"{split}.lst").write_text(name + "\n")
    dataset = Dataset(
        kind="deepfashion", label="D", image_size=(256, 256), source=str(tmp_path / "img"), allow_partial=True,
        splits={s: str(tmp_path / f"{s}.lst") for s in ("train", "test")},
    )  # fmt: skip
    archives.prepare_images(dataset, "d", tmp_path / "images")
    table = pd.read_csv(tmp_path / "images" / "images.csv", dtype=str)
    assert dict(zip(table["split"], table["name"], strict=True)) == dict(zip(("train", "test"), names, strict=True))


def test_deepfashions_published_lists_match_the_grammar(shared) -> None:
    import re

    facts = archives.facts_of("deepfashion")
    for split in ("train", "test"):
        names = (shared / "published" / f"fashion-{split}.lst").read_text().split()
        assert len(names) == facts["counts"][split]
        matches = [re.fullmatch(facts["name_pattern"], n) for n in names]
        assert all(matches)
        assert len({m["person"] for m in matches}) == facts["identities"][split]


def test_published_market_names_match_the_grammar(shared) -> None:
    import re

    pattern = archives.facts_of("market1501")["name_pattern"]
    for split, count in archives.facts_of("market1501")["counts"].items():
        lines = (shared / "published" / f"market-annotation-{split}.csv").read_text().splitlines()[1:]
        names = [line.split(":")[0] for line in lines]
        assert len(names) == count
        assert all(re.fullmatch(pattern, n) for n in names)


def test_keypoints_of_strangers_and_empty_detections_are_refused(tmp_path) -> None:
    archives.prepare_images(settings(market(tmp_path / "m.zip")), "m", tmp_path / "images")
    lists = {s: tmp_path / f"{s}.csv" for s in ("train", "test")}

    def write(names: dict[str, list[str]], value: int) -> Dataset:
        for split, path in lists.items():
            rows = [f"{n}: {[value] * 18}: {[value] * 18}" for n in names[split]]
            path.write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]) + "\n")
        return Dataset(kind="market1501", label="M", source="m.zip", keypoints={s: str(p) for s, p in lists.items()})

    good = {"train": TRAIN, "test": TEST}
    record = keypoints.prepare_keypoints(write(good, 7), "m", tmp_path / "images", tmp_path / "keypoints")
    assert record["images"] == 6
    strange = {"train": [*TRAIN, "0999_c1s1_000001_01.jpg"], "test": TEST}
    with pytest.raises(UserError, match=r"1 images that are not in m \(first: 0999_c1s1_000001_01\.jpg\)"):
        keypoints.prepare_keypoints(write(strange, 7), "m", tmp_path / "images", tmp_path / "k2")
    with pytest.raises(UserError, match="only 0% of 6 images have any joint"):
        keypoints.prepare_keypoints(write(good, -1), "m", tmp_path / "images", tmp_path / "k3")
    assert not (tmp_path / "k2").exists()
    assert not (tmp_path / "k3").exists()


def test_a_zip_bomb_is_not_read(tmp_path) -> None:
    buffer = io.BytesIO(b"\0" * (65 * 2**20))
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"bounding_box_train/{TRAIN[0]}", buffer.getvalue())
        archive.writestr(f"bounding_box_test/{TEST[0]}", jpeg(1))
    with pytest.raises(UserError, match="too much for one image"):
        archives.prepare_images(settings(path), "m", tmp_path / "images")
