"""Images from archives and folders. Wrong sources are refused, and no folder is half-written."""

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from potgan.common.errors import UserError
from potgan.data import images as images_stage
from potgan.data import keypoints
from potgan.data.pixels import decode_image, resize
from potgan.data.sources import archives
from potgan.settings.schema import Dataset, KeypointSettings

TRAIN = ["0002_c1s1_000451_03.jpg", "0002_c2s1_000301_01.jpg", "0007_c3s3_077419_03.jpg"]
TEST = ["-1_c1s1_000401_03.jpg", "0000_c1s1_000151_01.jpg", "0003_c4s6_015641_02.jpg"]


def jpeg(seed: int, size: tuple[int, int] = (128, 64)) -> bytes:
    image = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def prepare(dataset: Dataset, name: str, out: Path) -> dict:
    return images_stage.prepare_images(dataset, name, out, out.parent / "data")


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
    record = prepare(settings(source), "m", tmp_path / "images")
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
    a = prepare(settings(tmp_path / "unpacked"), "m", tmp_path / "a")
    b = prepare(settings(market(tmp_path / "original.zip")), "m", tmp_path / "b")
    assert a["sha256"] == b["sha256"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "missing; put Market-1501-v15.09.15.zip"),
        (
            b"<!DOCTYPE html><html>Google Drive - Quota exceeded</html>",
            "is a quota page that was saved in place of the archive",
        ),
        (b"PK\x03\x04 cut off", "is cut off (its table of contents is missing)"),
        (b"Rar!", "is a RAR archive; unpack it and name the folder"),
        (b"anything", "is not a zip archive, or is cut off"),
    ],
)
def test_missing_and_broken_archives_are_named_and_kept(tmp_path, content, message) -> None:
    source = tmp_path / "m.zip"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(UserError) as error:
        prepare(settings(source), "m", tmp_path / "results" / "m" / "images")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ([] if content is None else ["m.zip"])
    if content is not None:
        assert source.read_bytes() == content


def test_a_part_needs_permission(tmp_path) -> None:
    whole = Dataset(kind="market1501", label="M", source=str(market(tmp_path / "m.zip")))
    with pytest.raises(UserError, match="has 3 train images, and Market-1501 has 12,936"):
        prepare(whole, "m", tmp_path / "images")
    assert not (tmp_path / "images").exists()


def test_unreadable_images_stop_or_are_counted(tmp_path) -> None:
    broken = {"Market-1501-v15.09.15/bounding_box_train/0002_c5s1_000999_01.jpg": jpeg(3)[:90]}
    source = market(tmp_path / "m.zip", **broken)
    with pytest.raises(UserError, match=r"1 of 7 images cannot be decoded \(0002_c5s1_000999_01\.jpg\)"):
        prepare(settings(source), "m", tmp_path / "images")
    assert not (tmp_path / "images").exists()
    record = prepare(settings(source, unreadable_images="skip"), "m", tmp_path / "images")
    assert record["skipped"] == ["0002_c5s1_000999_01.jpg"]
    assert record["images"] == {"train": 3, "test": 3}


def test_a_name_in_both_splits_is_refused(tmp_path) -> None:
    extra = {f"Market-1501-v15.09.15/bounding_box_test/{TRAIN[0]}": jpeg(0)}
    with pytest.raises(UserError, match="stands twice"):
        prepare(settings(market(tmp_path / "m.zip", **extra)), "m", tmp_path / "images")


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
    prepare(dataset, "d", tmp_path / "images")
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


def test_each_kinds_example_is_of_this_kind_alone() -> None:
    for kind in archives.PUBLISHED_KINDS:
        assert archives.kind_of(archives.example_of(kind)) == kind
    assert (
        archives.example_of("deepfashion") == "fashionWOMENTees_Tanksid0000783805_7additional.jpg"
    )  # in PATN's train.lst


def test_published_market_names_match_the_grammar(shared) -> None:
    import re

    pattern = archives.facts_of("market1501")["name_pattern"]
    for split, count in archives.facts_of("market1501")["counts"].items():
        lines = (shared / "published" / f"market-annotation-{split}.csv").read_text().splitlines()[1:]
        names = [line.split(":")[0] for line in lines]
        assert len(names) == count
        assert all(re.fullmatch(pattern, n) for n in names)


def test_keypoints_of_strangers_and_empty_detections_are_refused(tmp_path) -> None:
    prepare(settings(market(tmp_path / "m.zip")), "m", tmp_path / "images")
    lists = {s: tmp_path / f"{s}.csv" for s in ("train", "test")}

    def write(names: dict[str, list[str]], value: int) -> Dataset:
        for split, path in lists.items():
            rows = [f"{n}: {[value] * 18}: {[value] * 18}" for n in names[split]]
            path.write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]) + "\n")
        chosen = KeypointSettings(**{s: str(p) for s, p in lists.items()})
        return Dataset(kind="market1501", label="M", source="m.zip", keypoints=chosen)

    good = {"train": TRAIN, "test": TEST}
    record = keypoints.prepare_keypoints(write(good, 7), "m", tmp_path / "images", tmp_path / "keypoints")
    assert record["images"] == 6
    strange = {"train": [*TRAIN, "0999_c1s1_000001_01.jpg"], "test": TEST}
    with pytest.raises(UserError, match=r"1 images that are not in m \(first: 0999_c1s1_000001_01\.jpg\)"):
        keypoints.prepare_keypoints(write(strange, 7), "m", tmp_path / "images", tmp_path / "k2")
    with pytest.raises(UserError, match="only 0 of 6 images have any joint"):
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
        prepare(settings(path), "m", tmp_path / "images")


# ---------------------------------------------------------------------------------------------------------------------
# Layouts


def unpack(tmp_path: Path, **arguments: object) -> Path:
    with zipfile.ZipFile(market(tmp_path / "m.zip", **arguments)) as archive:
        archive.extractall(tmp_path / "unpacked")
    return tmp_path / "unpacked"


def test_every_known_market_layout_gives_the_same_images(tmp_path) -> None:
    """The layouts are the original one, PATN's renamed folders, the archive without its top folder, images one level deeper,
    layumi's copies in a folder per person, and one split alone."""
    top = unpack(tmp_path) / "Market-1501-v15.09.15"
    wanted = prepare(settings(tmp_path / "m.zip"), "m", tmp_path / "a")["sha256"]
    shallow = prepare(settings(top), "m", tmp_path / "b")
    assert (shallow["sha256"], shallow["layout"]) == (wanted, "the published folders")

    deeper = tmp_path / "deeper"
    for split, names in (("bounding_box_train", TRAIN), ("bounding_box_test", TEST)):
        (deeper / split / "images").mkdir(parents=True)
        for name in names:
            (deeper / split / "images" / name).write_bytes((top / split / name).read_bytes())
    record = prepare(settings(deeper), "m", tmp_path / "c")
    assert (record["sha256"], record["layout"]) == (wanted, "the published folders, images one level deeper")

    for name in TRAIN:  # person re-ID's usual helper script puts a copy of each image into a folder per person
        person = top / "pytorch" / "train" / name[:4]
        person.mkdir(parents=True, exist_ok=True)
        (person / name).write_bytes((top / "bounding_box_train" / name).read_bytes())
    assert prepare(settings(top), "m", tmp_path / "d")["sha256"] == wanted

    renamed = tmp_path / "renamed"
    (top / "bounding_box_train").rename(top / "train")
    (top / "bounding_box_test").rename(top / "test")
    top.rename(renamed)
    record = prepare(settings(renamed), "m", tmp_path / "e")
    assert record["sha256"] == wanted
    assert record["layout"].startswith("renamed folders (PATN)")


def test_a_copy_with_other_content_is_refused(tmp_path) -> None:
    extra = {f"Market-1501-v15.09.15/pytorch/train/0002/{TRAIN[0]}": jpeg(77)}
    with pytest.raises(UserError, match="stands twice"):
        prepare(settings(market(tmp_path / "m.zip", **extra)), "m", tmp_path / "images")


FASHION = {
    "WOMEN/Tees_Tanks/id_00007838/05_7_additional.jpg": "fashionWOMENTees_Tanksid0000783805_7additional.jpg",
    "MEN/Denim/id_00000080/01_1_front.jpg": "fashionMENDenimid0000008001_1front.jpg",
}


def fashion(source: Path, tmp_path: Path, **changes: object) -> Dataset:
    for split, name in zip(("train", "test"), FASHION.values(), strict=True):
        (tmp_path / f"{split}.lst").write_text(name + "\n")
    lists = {s: str(tmp_path / f"{s}.lst") for s in ("train", "test")}
    return Dataset(kind="deepfashion", label="D", source=str(source), allow_partial=True, splits=lists, **changes)


@pytest.mark.parametrize(
    ("place", "layout"),
    [
        (lambda tree, flat: f"img/{tree}", "the published tree"),
        (lambda tree, flat: f"In-shop/Img/img/{tree}", "the published tree"),
        (lambda tree, flat: tree, "the published tree"),
        (lambda tree, flat: f"train/{flat}", "flat names (PATN, GFLA)"),
        (lambda tree, flat: f"fashion_resize/train/{flat}", "flat names (PATN, GFLA)"),
        (lambda tree, flat: flat.replace("Tees_Tanks", "TeesTanks"), None),
    ],
)
def test_every_known_deepfashion_layout_gives_the_same_images(tmp_path, place, layout) -> None:
    folder = tmp_path / "source"
    for i, (tree, flat) in enumerate(FASHION.items()):
        path = folder / place(tree, flat)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i, (256, 256)))
    record = prepare(fashion(folder, tmp_path), "d", tmp_path / "images")
    table = images_stage.ImageFolder(tmp_path / "images").table
    assert dict(zip(table.index, table["split"], strict=True)) == dict(
        zip(FASHION.values(), ("train", "test"), strict=True)
    )
    assert (table["height"] == 256).all()
    assert layout is None or record["layout"] == layout
    if layout is None:
        assert "flat names (Deformable GAN)" in record["layout"]


def test_a_half_unpacked_deepfashion_folder_is_read_through_its_inner_archive(tmp_path) -> None:
    (tmp_path / "source" / "Img").mkdir(parents=True)
    (tmp_path / "source" / "Anno").mkdir()
    (tmp_path / "source" / "Anno" / "list_bbox_inshop.txt").write_text("0\n")
    with zipfile.ZipFile(tmp_path / "source" / "Img" / "img.zip", "w") as archive:
        for i, tree in enumerate(FASHION):
            archive.writestr(f"img/{tree}", jpeg(i, (256, 256)))
    record = prepare(fashion(tmp_path / "source", tmp_path), "d", tmp_path / "images")
    assert record["images"] == {"train": 1, "test": 1}


def test_an_archive_in_an_archive_is_named(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.writestr("In-shop/Img/img.zip", b"PK")
    with pytest.raises(UserError, match=r"it holds In-shop/Img/img\.zip: unpack the outer archive"):
        prepare(fashion(tmp_path / "outer.zip", tmp_path), "d", tmp_path / "images")


def repacked(source: Path, target: Path, spelled) -> Path:
    """A zip archive of the same files, whose paths `spelled` changes."""
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as new:
        for name in archive.namelist():
            new.writestr(spelled(name), archive.read(name))
    return target


@pytest.mark.parametrize(
    "spelled",
    [
        lambda path: path.replace("/", "\\"),
        lambda path: path.replace(".jpg", ".JPG"),
        lambda path: path.replace("/", "\\").replace(".jpg", ".Jpg"),
    ],
    ids=["backslashes", "capitals", "both"],
)
def test_paths_of_windows_and_cameras_are_the_same_data(tmp_path, spelled) -> None:
    source = market(tmp_path / "m.zip")
    expected = prepare(settings(source), "m", tmp_path / "expected")
    archive = repacked(source, tmp_path / "spelled.zip", spelled)
    assert prepare(settings(archive), "m", tmp_path / "a")["sha256"] == expected["sha256"]
    for name in zipfile.ZipFile(archive).namelist():  # as a program for Linux unpacks it
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(zipfile.ZipFile(archive).read(name))
    assert prepare(settings(tmp_path / "folder"), "m", tmp_path / "b")["sha256"] == expected["sha256"]


def test_what_macos_adds_is_no_image(tmp_path) -> None:
    top = "__MACOSX/img/WOMEN/Tees_Tanks/id_00007838"
    with zipfile.ZipFile(tmp_path / "img.zip", "w") as archive:
        for i, tree in enumerate(FASHION):
            archive.writestr(f"img/{tree}", jpeg(i, (256, 256)))
        archive.writestr(f"{top}/._05_7_additional.jpg", b"Mac OS X")
        archive.writestr("img/.DS_Store", b"Bud1")
    prepare(fashion(tmp_path / "img.zip", tmp_path), "d", tmp_path / "images")
    zipfile.ZipFile(tmp_path / "img.zip").extractall(tmp_path / "source")
    with archives.Source(tmp_path / "source", archives.facts_of("deepfashion")) as source:
        assert sorted(file.path for file in source.files()) == sorted(f"img/{tree}" for tree in FASHION)


@pytest.mark.parametrize(
    "listed",
    [lambda tree: f"img/{tree}", lambda tree: "img\\" + tree.replace("/", "\\"), lambda tree: tree[:-3] + "JPG"],
)
def test_lists_of_paths_name_the_same_images(tmp_path, listed) -> None:
    for i, tree in enumerate(FASHION):
        path = tmp_path / "source" / tree
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(i, (256, 256)))
    dataset = fashion(tmp_path / "source", tmp_path)
    for split, tree in zip(("train", "test"), FASHION, strict=True):
        (tmp_path / f"{split}.lst").write_text(listed(tree) + "\r\n")
    prepare(dataset, "d", tmp_path / "images")
    assert list(pd.read_csv(tmp_path / "images" / "images.csv")["name"]) == list(FASHION.values())


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("bounding_box_train/0002_c1s1_000451_03.png", "it holds 1 image files, as {} (named as in Market-1501)"),
        ("photos/0002_c1s1_000451_03.jpg", "it holds 1 image files, as {} (named as in Market-1501)"),
        ("bounding_box_train/0001_c2_f0046182.jpg", "it holds 1 image files, as {} (named as in DukeMTMC-reID)"),
        (f"train/{next(iter(FASHION.values()))}", "it holds 1 image files, as {} (named as in DeepFashion)"),
        ("train/anna.jpeg", "it holds 1 image files, as {}"),
        ("readme.txt", "it holds 1 files, and no image"),
    ],
)
def test_images_of_another_naming_are_shown_beside_what_is_expected(tmp_path, path, said) -> None:
    file = tmp_path / "source" / path
    file.parent.mkdir(parents=True)
    file.write_bytes(jpeg(0))
    (tmp_path / "source" / ".DS_Store").write_bytes(b"Bud1")
    with pytest.raises(UserError) as error:
        prepare(settings(tmp_path / "source"), "m", tmp_path / "images")
    assert str(error.value) == (
        f"{tmp_path / 'source'}: holds no image of Market-1501; expected a folder bounding_box_train or train or "
        "bounding_box_test or test with images, as bounding_box_train/0002_c1s1_000451_03.jpg; " + said.format(path)
    )


def test_lists_that_are_missing_or_name_one_image_twice_are_refused(tmp_path) -> None:
    (tmp_path / "source" / "img").mkdir(parents=True)
    (tmp_path / "source" / "x.jpg").write_bytes(b"")
    dataset = fashion(tmp_path / "source", tmp_path)
    with pytest.raises(UserError, match="holds no image of DeepFashion; expected images that its lists name"):
        prepare(dataset, "d", tmp_path / "images")
    (tmp_path / "test.lst").write_text((tmp_path / "train.lst").read_text())
    with pytest.raises(UserError, match="stands in both lists"):
        prepare(dataset, "d", tmp_path / "images")
    (tmp_path / "test.lst").unlink()
    with pytest.raises(UserError, match=r"test\.lst: missing; DeepFashion needs the list of its test images"):
        prepare(dataset, "d", tmp_path / "images")


# ---------------------------------------------------------------------------------------------------------------------
# Images of every kind


def encoded(image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def smooth(height: int = 128, width: int = 64) -> np.ndarray:
    """A picture without fine details, which JPEG hardly changes."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 255 // height, x * 255 // width, (x + y) * 255 // (height + width)], -1).astype(np.uint8)


def test_grey_cmyk_and_rotated_files_read_as_pillow_reads_them() -> None:
    """Pillow reads the same files. Its conversion of CMYK differs by rounding; both know that Adobe inverts the values."""
    from PIL import Image, ImageOps

    picture = Image.fromarray(smooth())
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: 90 degrees
    for content, tolerance in (
        (encoded(picture), 3),
        (encoded(picture.convert("L")), 3),
        (encoded(picture.convert("CMYK")), 6),
        (encoded(picture, exif=exif), 3),
    ):
        ours = decode_image(content)
        theirs = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB"))
        assert ours.shape == theirs.shape
        assert ours.dtype == np.uint8
        assert np.abs(ours.astype(int) - theirs).mean() < tolerance
    assert decode_image(encoded(picture, exif=exif)).shape == (64, 128, 3)
    assert decode_image(b"no image") is None
    assert decode_image(b"") is None


def test_the_table_has_the_size_of_the_upright_image_and_files_keep_their_bytes(tmp_path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 8
    content = encoded(Image.fromarray(smooth(64, 128)), exif=exif)
    extra = {"Market-1501-v15.09.15/bounding_box_train/0009_c1s1_000001_01.jpg": content}
    prepare(settings(market(tmp_path / "m.zip", **extra)), "m", tmp_path / "images")
    folder = images_stage.ImageFolder(tmp_path / "images")
    assert folder.size("0009_c1s1_000001_01.jpg") == (128, 64)
    assert folder.read("0009_c1s1_000001_01.jpg").shape == (128, 64, 3)
    assert folder.path("0009_c1s1_000001_01.jpg").read_bytes() == content


def test_patns_crop_keeps_columns_40_to_215_of_image_and_joints(tmp_path) -> None:
    """PATN's tool/crop_fashion.py keeps columns 40 to 215, and its resize_fashion.py subtracts 40 from x."""
    image = np.zeros((256, 256, 3), np.uint8)
    image[100, 140] = 255
    folder = tmp_path / "source"
    for tree in FASHION:
        path = folder / tree
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())  # lossless, whatever the suffix says
    tables = {}
    for split, name in zip(("train", "test"), FASHION.values(), strict=True):
        tables[split] = str(tmp_path / f"{split}.csv")
        Path(tables[split]).write_text(f"name:keypoints_y:keypoints_x\n{name}: {[100] * 18}: {[140] * 18}\n")
    dataset = fashion(
        folder, tmp_path, crop_columns=(40, 216), image_size=(256, 176), keypoints=KeypointSettings(**tables)
    )
    prepare(dataset, "d", tmp_path / "images")
    images = images_stage.ImageFolder(tmp_path / "images")
    name = next(iter(FASHION.values()))
    assert images.size(name) == (256, 176)
    y, x = np.argwhere(images.read(name)[..., 0] == 255)[0]
    keypoints.prepare_keypoints(dataset, "d", tmp_path / "images", tmp_path / "keypoints")
    from potgan.data.keypoint_files import read_keypoints

    joints = read_keypoints(tmp_path / "keypoints" / "keypoints.csv").of(name)
    assert joints[0].tolist() == [x, y] == [100, 100]


def test_a_crop_for_the_published_images_is_refused_on_those_of_img_highres(tmp_path) -> None:
    """Columns 40 to 215 of 750 would be a sliver beside the person. A crop that is meant for wide images is taken."""
    for i, tree in enumerate(FASHION):
        path = tmp_path / "source" / tree
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(i, (1101, 750)))
    dataset = fashion(tmp_path / "source", tmp_path, crop_columns=(40, 216))
    with pytest.raises(
        UserError, match=r"is 1101 x 750, and .*crop_columns counts columns of img\.zip's .*256 x 256; take"
    ):
        prepare(dataset, "d", tmp_path / "images")
    assert not (tmp_path / "images").exists()
    prepare(fashion(tmp_path / "source", tmp_path, crop_columns=(118, 632)), "d", tmp_path / "images")
    assert set(pd.read_csv(tmp_path / "images" / "images.csv")["width"]) == {514}


def test_resizing_is_antialiased_in_each_direction_and_keeps_the_mean() -> None:
    """Stripes of one pixel become grey, the mean of the stripes, and not black or white, whichever side gets shorter."""
    stripes = np.zeros((200, 100, 3), np.uint8)
    stripes[::2] = 255
    for size in ((100, 100), (100, 200), (50, 30)):
        small = resize(stripes, size)
        assert small.shape == (*size, 3)
        assert np.abs(small[5:-5].astype(float) - 127.5).max() < 2
    same = resize(stripes, (200, 100))
    assert same is stripes
    assert resize(smooth(), (256, 128)).mean() == pytest.approx(smooth().mean(), abs=0.5)


def test_names_with_the_suffix_twice_match_whichever_way_the_archive_spells_them(tmp_path) -> None:
    once, twice = "0003_c4s6_015641_05.jpg", "0003_c4s6_015641_05.jpg.jpg"
    extra = {f"Market-1501-v15.09.15/bounding_box_test/{once}": jpeg(4)}
    prepare(settings(market(tmp_path / "m.zip", **extra)), "m", tmp_path / "images")
    tables = {}
    for split, names in (("train", TRAIN), ("test", [*TEST, twice])):
        tables[split] = str(tmp_path / f"{split}.csv")
        rows = [f"{n}: {[7] * 18}: {[7] * 18}" for n in names]
        Path(tables[split]).write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]) + "\n")
    dataset = Dataset(kind="market1501", label="M", keypoints=KeypointSettings(**tables))
    record = keypoints.prepare_keypoints(dataset, "m", tmp_path / "images", tmp_path / "keypoints")
    assert record["respelled_names"] == {"train": 0, "test": 1}
    assert record["images"] == 7
    assert once in (tmp_path / "keypoints" / "keypoints.csv").read_text()
