"""The class of each pixel: exact for synthetic people, and from label images for others. About 5 s on one core."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from potgan.common.errors import UserError
from potgan.data.batches import PARSING, PARTS, load_pairs
from potgan.data.images import ImagesRecord, prepare_images
from potgan.data.keypoint_files import read_keypoints
from potgan.data.parsing.labels import LIP_CLASSES
from potgan.data.parsing.stage import Parsing, prepare_parsing
from potgan.data.pixels import resize_labels
from potgan.data.pose import Keypoints
from potgan.data.synthetic import body, clothes, people, scene, surfaces, textures
from potgan.settings.schema import Dataset, MaskSettings, SyntheticSettings

BACKGROUND, PANTS, HAIR, SKIRT, FACE, UPPER, ARMS, LEGS = range(8)
SMALL = SyntheticSettings(train_identities=40, test_identities=0, images_per_identity=3)


# --------------------------------------------------------------------------------------------------- synthetic people


@pytest.fixture(scope="module")
def evenly_lit() -> list[tuple[people.Render, clothes.Wardrobe]]:
    """Images in even, white light and without blur. There a pixel has the colour that is painted, but for the brightness of the
    whole image and the folds of the cloth."""

    def forget() -> None:
        for module in (body, clothes, people, scene, surfaces, textures):
            for cached in vars(module).values():
                if hasattr(cached, "cache_clear"):
                    cached.cache_clear()

    even = [replace(site, ambient=1.0, diffuse=0.0, tint=(1, 1, 1), blur=0.0) for site in scene._SITES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene, "_SITES", even)
        forget()
        found = [(r, people.look_of(0, r.person).wardrobe) for r in people.render_split(SMALL, "train")]
    forget()
    return found


def parts_named(*words: str) -> list[int]:
    return [number for number, name in enumerate(body.PARTS) if any(word in name for word in words)]


def inner(mask: np.ndarray) -> np.ndarray:
    """The pixels of a region whose neighbours belong to it, so that no other colour is mixed in."""
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3)), borderValue=0).astype(bool)


def share_nearer(image: np.ndarray, where: np.ndarray, colour: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """Of the pixels `where`, how many are nearer to the direction of `colour` than to that of `other`, and how many there are.
    Shade, which changes only the length, does not count."""
    pixels = image[where].astype(float)
    unit = [c / np.linalg.norm(c) for c in (colour, other)]
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    first, second = (np.linalg.norm(pixels - u, axis=1) for u in unit)
    return int((first < second).sum()), len(pixels)


def differ(a: np.ndarray, b: np.ndarray) -> bool:
    return float(np.linalg.norm(a / np.linalg.norm(a) - b / np.linalg.norm(b))) > 0.15


def test_background_is_where_no_person_is_and_where_a_bag_hides_the_person(evenly_lit) -> None:
    bags = parts_named("bag", "backpack")
    seen = 0
    for r, _ in evenly_lit:
        bag = np.isin(r.surface.part, bags)
        np.testing.assert_array_equal(r.parsing == BACKGROUND, ~r.body | bag)
        seen += bag.any()
        assert r.parsing.dtype == np.uint8
        assert r.parsing.max() < 8
    assert seen > 20


def test_parts_that_are_of_one_class_have_it_everywhere(evenly_lit) -> None:
    for words, kind in (
        (("shoe",), LEGS),
        (("hand",), ARMS),
        (("jaw", "nose", "neck"), FACE),
        (("brim", "hair"), HAIR),
        (("torso", "hem", "sleeve"), UPPER),
        (("trouser_leg",), PANTS),
    ):
        where = [np.isin(r.surface.part, parts_named(*words)) for r, _ in evenly_lit]
        assert sum(part.sum() for part in where) > 100, words
        assert all((r.parsing[part] == kind).all() for (r, _), part in zip(evenly_lit, where, strict=True)), words


def test_a_skirt_is_no_pair_of_pants_and_pants_are_no_skirt(evenly_lit) -> None:
    kinds = {"skirt": 0, "trousers": 0, "shorts": 0, "cropped": 0}
    for r, wardrobe in evenly_lit:
        kinds[wardrobe.lower_kind] += 1
        there, absent = (SKIRT, PANTS) if wardrobe.lower_kind == "skirt" else (PANTS, SKIRT)
        assert (r.parsing == there).sum() > 50
        assert not (r.parsing == absent).any()
    assert min(kinds.values()) > 2


def test_pants_and_skirts_have_the_colour_of_the_clothes_and_bare_legs_that_of_the_skin(evenly_lit) -> None:
    """The stripe at the side and socks have colours of their own, so that people without them are looked at."""
    legs = parts_named("thigh", "knee", "shin")
    counts = {"cloth": np.zeros(2, int), "skin": np.zeros(2, int)}
    for r, wardrobe in evenly_lit:
        if wardrobe.side_stripe or not differ(wardrobe.lower, wardrobe.skin):
            continue
        cloth = inner(np.isin(r.parsing, (PANTS, SKIRT)))
        bare = inner((r.parsing == LEGS) & np.isin(r.surface.part, legs))
        counts["cloth"] += share_nearer(r.image, cloth, wardrobe.lower, wardrobe.skin)
        counts["skin"] += share_nearer(r.image, bare, wardrobe.skin, wardrobe.lower)
    for nearer, count in counts.values():
        assert count > 1000
        assert nearer > 0.995 * count


def test_sleeves_have_the_colour_of_the_shirt_and_bare_arms_that_of_the_skin(evenly_lit) -> None:
    counts = {"cloth": np.zeros(2, int), "skin": np.zeros(2, int)}
    arm = parts_named("upper_arm", "forearm", "elbow", "shoulder")
    sleeves = set()
    for r, wardrobe in evenly_lit:
        if wardrobe.pattern in ("stripes", "checks", "dots") or not differ(wardrobe.upper, wardrobe.skin):
            continue
        sleeves.add(wardrobe.sleeve)
        here = np.isin(r.surface.part, arm)
        counts["cloth"] += share_nearer(r.image, inner(here & (r.parsing == UPPER)), wardrobe.upper, wardrobe.skin)
        counts["skin"] += share_nearer(r.image, inner(here & (r.parsing == ARMS)), wardrobe.skin, wardrobe.upper)
    assert sleeves == {"short", "long", "none"}
    for nearer, count in counts.values():
        assert count > 300
        assert nearer > 0.99 * count


def test_hair_on_the_skull_has_the_colour_of_hair_and_the_face_that_of_skin(evenly_lit) -> None:
    counts = np.zeros((2, 2), int)
    for r, wardrobe in evenly_lit:
        if np.linalg.norm(wardrobe.skin - wardrobe.hair) < 80 or wardrobe.glasses:
            continue
        for kind, row, colour, other in (
            (HAIR, 0, wardrobe.hair, wardrobe.skin),
            (FACE, 1, wardrobe.skin, wardrobe.hair),
        ):
            pixels = r.image[inner((r.surface.part == body.PART["skull"]) & (r.parsing == kind))].astype(float)
            near, far = (np.linalg.norm(pixels - c, axis=1) for c in (colour, other))
            counts[row] += ((near < far).sum(), len(pixels))
    assert counts[:, 1].min() > 50
    # In the face there are eyes, brows and ears, too.
    assert counts[0, 0] > 0.97 * counts[0, 1]
    assert counts[1, 0] > 0.85 * counts[1, 1]


def test_each_place_of_a_texture_is_of_the_class_whose_colour_is_painted_there() -> None:
    """Where a texture is partly skin and partly cloth. Patterns, straps and stripes are other cloth, and left out."""
    seen = dict.fromkeys(("thigh", "shin", "yoke", "upper_arm"), 0)
    for person in range(1, 200):
        wardrobe = people.look_of(0, person).wardrobe
        painted, classes = textures.textures_of(wardrobe), textures.classes_of(wardrobe)
        assert painted.keys() == classes.keys()
        plain = wardrobe.pattern == "plain" and not wardrobe.backpack and not wardrobe.bag
        lower = SKIRT if wardrobe.lower_kind == "skirt" else PANTS
        for name, cloth, colour, bare in (
            ("thigh", lower, wardrobe.lower, LEGS),
            ("shin", lower, wardrobe.lower, LEGS),
            ("yoke", UPPER, wardrobe.upper, FACE),
            ("upper_arm", UPPER, wardrobe.upper, ARMS),
        ):
            usable = not wardrobe.side_stripe if colour is wardrobe.lower else plain
            if not usable or not differ(colour, wardrobe.skin):
                continue
            pixels = painted[name] / np.linalg.norm(painted[name].astype(float), axis=2, keepdims=True)
            to_cloth, to_skin = (
                np.linalg.norm(pixels - c / np.linalg.norm(c), axis=2) for c in (colour, wardrobe.skin)
            )
            np.testing.assert_array_equal(classes[name], np.where(to_cloth < to_skin, cloth, bare), f"{person} {name}")
            seen[name] += 0 < (classes[name] == bare).mean() < 1
    assert seen.pop("upper_arm") == 0  # it is bare or a sleeve; a short sleeve is a part of its own
    assert min(seen.values()) > 3, seen


def test_the_stage_writes_what_was_rendered_and_batches_have_it(tmp_path) -> None:
    settings = SyntheticSettings(train_identities=2, test_identities=1, images_per_identity=3, height=64, width=32)
    dataset = Dataset(kind="synthetic", label="x", image_size=(64, 32), synthetic=settings)
    prepare_images(dataset, "x", tmp_path / "images", tmp_path)
    where = people.find(settings)
    names = list(where)[:4]
    record = prepare_parsing(dataset, "x", names, tmp_path / "images", tmp_path / "parsing")
    assert record["images"] == 4
    assert sum(record["shares"].values()) == pytest.approx(1, abs=1e-3)
    pairs = pd.DataFrame({"from": [names[0], names[2]], "to": [names[1], names[3]]})
    keypoints = read_keypoints(tmp_path / "images" / "annotation.csv")
    arguments = (tmp_path / "images", keypoints, pairs, (64, 32), MaskSettings(limb_radius=2))
    data = load_pairs(*arguments, parsing_folder=tmp_path / "parsing")
    wanted = np.stack([people.render(settings, *where[name]).parsing for name in sorted(names)])
    np.testing.assert_array_equal(data.parsing.numpy(), wanted)
    maps = data.batch(range(2), needs=frozenset({PARSING})).source_parsing
    sources = [people.render(settings, *where[name]).parsing for name in pairs["from"]]
    assert maps.shape == (2, 8, 64, 32)
    np.testing.assert_array_equal(maps.argmax(1).numpy(), np.stack(sources))
    without = load_pairs(*arguments)
    assert without.parsing is None
    assert without.parts == PARTS - {PARSING}
    assert (without.images == data.images).all()

    again = prepare_parsing(dataset, "x", names, tmp_path / "images", tmp_path / "again")
    assert again == record
    assert (tmp_path / "again" / "parsing.zip").read_bytes() == (tmp_path / "parsing" / "parsing.zip").read_bytes()


# -------------------------------------------------------------------------------------------------------- label images


def a_real_folder(tmp_path: Path, names: list[str], size=(8, 20), crop: tuple[int, int] | None = None) -> Path:
    """What the stage `images` leaves of images of this size (before they are cropped)."""
    folder = tmp_path / "images"
    (folder / "train").mkdir(parents=True)
    for name in names:
        cv2.imwrite(str(folder / "train" / name), np.zeros((*size, 3), np.uint8))
    width = size[1] if crop is None else crop[1] - crop[0]
    rows = {
        "name": names,
        "split": "train",
        "person": "1",
        "camera": 1,
        "height": size[0],
        "width": width,
        "sha256": "",
    }
    pd.DataFrame(rows | {"path": [f"train/{name}" for name in names]}).to_csv(folder / "images.csv", index=False)
    record = ImagesRecord("x", "market1501", "x", {"train": len(names)}, {"train": 1}, "0", crop_columns=crop)
    record.write(folder / "images.json")
    return folder


def labelled(tmp_path: Path, labels: np.ndarray | Image.Image, name: str = "a.jpg", classes="lip", **more) -> Dataset:
    """A data set whose folder has this label image for the image `name`."""
    folder = tmp_path / "labels"
    folder.mkdir(exist_ok=True)
    image = labels if isinstance(labels, Image.Image) else Image.fromarray(labels)
    image.save(folder / f"{Path(name).stem}.png")
    return Dataset(kind="market1501", label="x", parsing=str(folder), parsing_classes=classes, **more)


def parsed(dataset: Dataset, images: Path, out: Path, name: str = "a.jpg") -> np.ndarray:
    prepare_parsing(dataset, "mine", [name], images, out)
    return Parsing(out).of(name)


#: ADGAN's class of each of LIP's, written down from the authors' answer: 1 pants; 2 hat, hair; 3 skirt; 4 face, sunglasses,
#: jumpsuits; 5 upper clothes, dress, coat, scarf; 6 glove, arms; 7 socks, legs, shoes.
LIP_TO_ADGAN = [0, 2, 2, 6, 4, 5, 5, 5, 7, 1, 4, 5, 3, 4, 6, 6, 7, 7, 7, 7]


def test_labels_of_lip_are_merged_as_the_authors_of_adgan_do(tmp_path) -> None:
    images = a_real_folder(tmp_path, ["a.jpg"])
    labels = np.tile(np.arange(20, dtype=np.uint8), (8, 1))
    assert len(LIP_CLASSES) == 20
    expected = np.tile(np.array(LIP_TO_ADGAN, np.uint8), (8, 1))
    np.testing.assert_array_equal(parsed(labelled(tmp_path, labels), images, tmp_path / "out"), expected)
    # Parsers write labels with a palette, so that people see colours, and the colours are no labels.
    with_colours = Image.fromarray(labels)
    with_colours.putpalette([(37 * i) % 256 for i in range(768)])
    assert with_colours.mode == "P"
    np.testing.assert_array_equal(parsed(labelled(tmp_path, with_colours), images, tmp_path / "out"), expected)
    deep = Image.fromarray(labels.astype(np.uint16))
    np.testing.assert_array_equal(parsed(labelled(tmp_path, deep), images, tmp_path / "out"), expected)


def test_labels_of_adgan_are_taken_as_they_are(tmp_path) -> None:
    images = a_real_folder(tmp_path, ["a.jpg"])
    labels = np.random.default_rng(0).integers(0, 8, (8, 20)).astype(np.uint8)
    np.testing.assert_array_equal(parsed(labelled(tmp_path, labels, classes="adgan"), images, tmp_path / "out"), labels)


def test_what_the_stage_writes_is_a_folder_of_label_images_again(tmp_path) -> None:
    import zipfile

    images = a_real_folder(tmp_path, ["a.jpg"])
    labels = np.random.default_rng(1).integers(0, 20, (8, 20)).astype(np.uint8)
    first = parsed(labelled(tmp_path, labels), images, tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out" / "parsing.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    again = Dataset("market1501", "x", parsing=str(tmp_path / "unpacked"), parsing_classes="adgan")
    np.testing.assert_array_equal(parsed(again, images, tmp_path / "second"), first)


def test_labels_are_cropped_as_the_images_are_unless_they_are_so_already(tmp_path) -> None:
    images = a_real_folder(tmp_path, ["a.jpg"], crop=(4, 14))
    labels = np.tile(np.arange(20, dtype=np.uint8), (8, 1))
    expected = np.tile(np.array(LIP_TO_ADGAN[4:14], np.uint8), (8, 1))
    for given in (labels, labels[:, 4:14].copy()):
        dataset = labelled(tmp_path, given, crop_columns=(4, 14))
        np.testing.assert_array_equal(parsed(dataset, images, tmp_path / "out"), expected)


def test_labels_are_resized_to_a_label_that_was_there() -> None:
    labels = np.random.default_rng(0).integers(0, 8, (6, 10)).astype(np.uint8)
    np.testing.assert_array_equal(resize_labels(labels, (12, 20)), labels.repeat(2, 0).repeat(2, 1))
    third = resize_labels(labels.repeat(3, 0).repeat(3, 1), (6, 10))
    np.testing.assert_array_equal(third, labels)
    np.testing.assert_array_equal(resize_labels(labels, (6, 10)), labels)


def test_images_of_another_size_bring_their_labels(tmp_path) -> None:
    names = ["a.jpg", "b.jpg"]
    images = a_real_folder(tmp_path, names, size=(64, 64))
    labels = np.zeros((64, 64), np.uint8)
    labels[:32, 32:] = 9
    dataset = labelled(tmp_path, labels)
    labelled(tmp_path, np.zeros((64, 64), np.uint8), "b.jpg")
    prepare_parsing(dataset, "mine", names, images, tmp_path / "parsing")
    keypoints = Keypoints(names, np.full((2, 18, 2), 30, np.float32), np.ones((2, 18), np.float32))
    pairs = pd.DataFrame({"from": ["a.jpg"], "to": ["b.jpg"]})
    data = load_pairs(images, keypoints, pairs, (32, 16), MaskSettings(), parsing_folder=tmp_path / "parsing")
    expected = np.zeros((32, 16), np.uint8)
    expected[:16, 8:] = PANTS
    np.testing.assert_array_equal(data.parsing[0].numpy(), expected)
    assert not data.parsing[1].any()


GOOD = np.zeros((8, 20), np.uint8)


def with_label(value: int) -> np.ndarray:
    labels = GOOD.copy()
    labels[3, 5] = value
    return labels


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        (
            with_label(20),
            "lip",
            r"a\.png: has the label 20 at row 3, column 5, and the classes of lip are 0 to 19; give",
        ),
        (with_label(255), "lip", r"has the label 255 .* give such pixels the label 0, background"),
        (with_label(8), "adgan", r"has the label 8 .* classes of adgan are 0 to 7; set parsing_classes: lip if"),
        (with_label(255), "adgan", r"has the label 255 .* classes of adgan are 0 to 7; give"),
        (GOOD[:, :19], "lip", r"a\.png: has 8 x 19 labels, and its image has 8 x 20 pixels; label the image as it is"),
        (np.zeros((8, 20, 3), np.uint8), "lip", r"a\.png: has 3 channels \(RGB\), and a label image has one"),
    ],
)
def test_a_label_image_that_cannot_be_right_is_one_clear_line(tmp_path, labels, classes, message) -> None:
    images = a_real_folder(tmp_path, ["a.jpg"])
    with pytest.raises(UserError, match=message) as error:
        parsed(labelled(tmp_path, labels, classes=classes), images, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_wrong_size_of_a_cropped_image_is_told_in_the_size_of_the_file(tmp_path) -> None:
    images = a_real_folder(tmp_path, ["a.jpg"], crop=(4, 14))
    dataset = labelled(tmp_path, GOOD[:, :12], crop_columns=(4, 14))
    with pytest.raises(UserError, match=r"has 8 x 12 labels, and its image has 8 x 20 pixels"):
        parsed(dataset, images, tmp_path / "out")


def test_what_is_missing_or_broken_is_one_clear_line(tmp_path) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg"]
    images = a_real_folder(tmp_path, names)
    dataset = labelled(tmp_path, GOOD)
    with pytest.raises(UserError, match=r"labels: has no label image of 2 of the 3 images .* \(first: b\.png\)"):
        prepare_parsing(dataset, "mine", names, images, tmp_path / "out")
    (tmp_path / "labels" / "a.png").write_bytes(b"no PNG")
    with pytest.raises(UserError, match=r"a\.png: cannot be read as a label image \(.*\); write it again"):
        parsed(dataset, images, tmp_path / "out")
    with pytest.raises(UserError, match=r"datasets\.mine\.parsing: .*nowhere is no folder"):
        parsed(replace(dataset, parsing=str(tmp_path / "nowhere")), images, tmp_path / "out")
    with pytest.raises(UserError, match=r"datasets\.mine: has no parsing; name a folder of label images"):
        parsed(replace(dataset, parsing=None, parsing_classes=None), images, tmp_path / "out")
    with pytest.raises(UserError, match=r"parsing\.zip: missing; run `potgan parsing` first"):
        Parsing(tmp_path / "out")
    labelled(tmp_path, GOOD)
    parsed(dataset, images, tmp_path / "out")
    with pytest.raises(UserError, match=r"parsing\.zip: has no labels of b\.jpg; run `potgan parsing` again"):
        Parsing(tmp_path / "out").of("b.jpg")
    (tmp_path / "out" / "parsing.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"parsing\.zip: is damaged"):
        Parsing(tmp_path / "out")
