"""Archives in the layouts of the real data sets, filled with synthetic people, so that their code runs without the real data.

An imitation has all that the code which reads a data set meets: names of archives and folders, grammars of file names, files that
are no images, sizes of images, tables of key points and pair lists as they are published (docs/decisions.md, D1, D11). It does not
have the look of real people, nor the numbers of images. The people come from the renderer of the embedded data set, with seeds of
their own.

    market1501   images of 128 x 64 pixels; junk (-1) and distractors (0000) in the test folder, a Thumbs.db beside the images,
                 names of one person that end in `.jpg.jpg`
    dukemtmc     images of all sizes, ids with gaps, eight cameras, people that only one camera has seen among the test images, a
                 few grey images
    deepfashion  images of 256 x 256 pixels with white bars of 40 columns, a plain studio, the tree <gender>/<category>/id_<item>/,
                 several outfits of an item, some in train and some in test (as in PATN's lists), clothes without a person

The outfits of an item are different people, and a category does not tell what they wear, because the renderer dresses each person
once. The bytes of images and archives depend on the versions of OpenCV and zlib.
"""

from __future__ import annotations

import dataclasses
import io
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from potgan.common.errors import UserError
from potgan.common.files import Json, new_folder, sha256_of, write_bytes, write_json, write_text
from potgan.data.keypoint_files import annotation_csv
from potgan.data.pairs import pairs_csv, patn_pairs, sample
from potgan.data.pose import JOINTS, Keypoints
from potgan.data.synthetic import people
from potgan.settings.schema import SyntheticSettings

DEFAULTS = SyntheticSettings(train_identities=12, test_identities=6, images_per_identity=6)
#: The file in the written folder that says what stands where, and that these are no real data.
RECORD = "imitation.json"
NOTICE = "An imitation with synthetic people, written by potgan; not the data set whose layout it has.\n"
#: The first seed of each kind. No person appears in two of them, nor in the embedded data set, whose seeds begin with 0.
_FIRST_SEED = {"market1501": 1_501_000, "dukemtmc": 1_812_000, "deepfashion": 7_982_000}
_ARCHIVES = {"market1501": "Market-1501-v15.09.15.zip", "dukemtmc": "DukeMTMC-reID.zip", "deepfashion": "Img/img.zip"}
#: DeepFashion's official split, which is for retrieval.
_PARTITION = "Eval/list_eval_partition.txt"
#: How the names of a kind's published tables begin (PATN's README). None are published for Duke, so this is a name of ours.
_TABLES = {"market1501": "market", "dukemtmc": "duke", "deepfashion": "fasion"}
#: How many pairs Deformable GAN's and PATN's test lists have.
_PUBLISHED_SAMPLE = 12_000
_JPEG_QUALITY = 95
#: A file that Windows leaves in a folder of pictures: the first bytes of an OLE file, and nothing else.
_THUMBS = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(1528)
#: A MATLAB file: the header, and no variable.
_MATLAB = b"MATLAB 5.0 MAT-file, written by potgan".ljust(124) + b"\0\1IM"

#: The grey of DeepFashion's background, and how many white columns are left and right of the 176 columns of the picture.
_STUDIO, _BAR = 240, 40
#: DeepFashion's views of a person -> the sides that may show it, the best first, and the rows of the picture before it is cut.
_VIEWS = {
    "1_front": (("front", "side", "back"), 352),
    "3_back": (("back", "side", "front"), 352),
    "2_side": (("side", "back", "front"), 352),
    "4_full": (("front", "side", "back"), 256),
    "7_additional": (("side", "back", "front"), 440),
}
_CATEGORIES = (
    ("WOMEN", "Tees_Tanks"),
    ("MEN", "Denim"),
    ("WOMEN", "Dresses"),
    ("MEN", "Shirts_Polos"),
    ("WOMEN", "Blouses_Shirts"),
)


@dataclass(frozen=True)
class _Picture:
    """One JPEG file.

    path: inside the archive. name: in tables. content: its bytes. joints: (18, 2) in its pixels, NaN where missing; None if the
    picture is in no table.
    """

    path: str
    name: str
    content: bytes
    joints: np.ndarray | None = None


@dataclass
class _Contents:
    """What the folder of an imitation gets.

    pictures: split -> pictures; "" stands for pictures of no split. inside: other files in the archive, path -> content. beside:
    files beside the archive and the tables, path -> content.
    """

    pictures: dict[str, list[_Picture]] = field(default_factory=lambda: {"train": [], "test": [], "": []})
    inside: dict[str, bytes] = field(default_factory=dict)
    beside: dict[str, bytes] = field(default_factory=dict)


def write_archive(
    kind: str, out_folder: str | Path, settings: SyntheticSettings = DEFAULTS, seed: int = 0
) -> dict[str, Json]:
    """Write an imitation of a data set into the folder `out_folder`, which appears whole or not at all.

    kind: market1501, dukemtmc or deepfashion. settings: only the numbers train_identities, test_identities (for DeepFashion, of
    outfits) and images_per_identity count (for DeepFashion at most 5 views, and for some people a sixth without a person). The
    other values are those of the kind. seed: 0 to 999. The same arguments give the same bytes.

    The folder holds the archive and the tables `<name>-annotation-{train,test}.csv`; for Market-1501 and DeepFashion the lists
    `<name>-pairs-{train,test}.csv`; for DeepFashion also `Eval/list_eval_partition.txt`, `train.lst` and `test.lst`. The tables
    have the renderer's exact joints, truncated to whole pixels of the stored image, in no order, as the published ones.
    `imitation.json` is returned: kind, seed, archive; lists, tables and pairs per split (paths inside the folder); the number of
    images per split; and the SHA-256 of every file.

    Raises UserError for an unknown kind, numbers out of range, and a folder that holds anything else than such an imitation.
    """
    if kind not in _MAKERS:
        raise UserError(f"no data set is known as {kind!r}; there are {', '.join(_MAKERS)}")
    for name, least, most in (
        ("train_identities", 1, 500),
        ("test_identities", 1, 500),
        ("images_per_identity", 2, 40),
    ):
        value = getattr(settings, name)
        if not least <= value <= most:
            raise UserError(f"imitation of {kind}: {name} is {value}; choose {least} to {most}")
    if not 0 <= seed < 1000:
        raise UserError(f"imitation of {kind}: seed is {seed}; choose 0 to 999")
    out_folder = Path(out_folder)
    _refuse_other_content(out_folder, kind)
    numbers = (settings.train_identities, settings.test_identities, settings.images_per_identity)
    random = np.random.default_rng((_FIRST_SEED[kind], seed))
    contents = _MAKERS[kind](_FIRST_SEED[kind] + seed, *numbers, random)
    tables = {
        split: Keypoints(
            [shown.name for shown in shuffled],
            np.stack([shown.joints for shown in shuffled]),
            np.stack([~np.isnan(shown.joints[:, 0]) for shown in shuffled]).astype(np.float32),
        )
        for split in ("train", "test")
        for shuffled in [_shuffled([p for p in contents.pictures[split] if p.joints is not None], random)]
    }
    record: dict[str, Json] = {
        "imitation_of": kind,
        "notice": NOTICE.strip(),
        "seed": seed,
        "settings": dict(zip(("train_identities", "test_identities", "images_per_identity"), numbers, strict=True)),
        "archive": _ARCHIVES[kind],
        "tables": {split: f"{_TABLES[kind]}-annotation-{split}.csv" for split in tables},
        "pairs": {} if kind == "dukemtmc" else {split: f"{_TABLES[kind]}-pairs-{split}.csv" for split in tables},
        "lists": {split: f"{split}.lst" for split in tables} if kind == "deepfashion" else {},
        "images": {split: len(contents.pictures[split]) for split in tables},
    }
    with new_folder(out_folder) as folder:
        _write_zip(folder / _ARCHIVES[kind], contents)
        for path, content in contents.beside.items():
            write_bytes(folder / path, content)
        for split, table in tables.items():
            write_text(folder / record["tables"][split], annotation_csv(table))
            if split in record["pairs"]:
                listed = patn_pairs(table, kind)
                listed = sample(listed, _PUBLISHED_SAMPLE if split == "test" else None, 0)
                write_text(folder / record["pairs"][split], pairs_csv(listed))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        record["sha256"] = {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}
        write_json(folder / RECORD, record)
    return record


def _refuse_other_content(folder: Path, kind: str) -> None:
    """Raise UserError for a folder that holds anything else than an imitation of this kind.

    The whole folder is replaced, and a real archive in it may have cost somebody an agreement and a day. An imitation is known by
    the comment in its archive, and not by `imitation.json`, because Snakemake removes that file before it runs the rule again.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder; name a folder that is new or empty")
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    there = next((other for other, archive in _ARCHIVES.items() if _is_imitation(folder / archive)), None)
    if files and there != kind:
        what = f"an imitation of {there}" if there else f"other files (the first: {files[0]})"
        raise UserError(f"{folder}: holds {what}; name a folder that is new or empty")
    strange = [file for file in files if file != RECORD and file not in _files_of(kind)]
    if strange:
        raise UserError(f"{folder}: holds other files (the first: {strange[0]}); name a folder that is new or empty")


def _is_imitation(path: Path) -> bool:
    """Whether an archive was written by this module."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.comment == NOTICE.encode()
    except (OSError, zipfile.BadZipFile):
        return False


def _files_of(kind: str) -> set[str]:
    """The paths of all files of an imitation, besides its record."""
    lists = {"train.lst", "test.lst", _PARTITION} if kind == "deepfashion" else set()
    tables = {f"{_TABLES[kind]}-{what}-{split}.csv" for what in ("annotation", "pairs") for split in ("train", "test")}
    return {_ARCHIVES[kind], *lists, *tables}


def _write_zip(path: Path, contents: _Contents) -> None:
    """Write the archive. All times in it are 1980-01-01, the earliest in a zip archive, so that its bytes do not vary."""
    members = {p.path: p.content for split in contents.pictures.values() for p in split}
    if len(members) != sum(map(len, contents.pictures.values())):
        raise AssertionError("two pictures of an imitation have one name")
    members |= contents.inside
    folders = {f"{parent.as_posix()}/" for name in members for parent in Path(name).parents if parent != Path()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = NOTICE.encode()
        for name in sorted([*folders, *members]):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (0o40755 << 16 | 0x10) if name in folders else (0o100644 << 16)
            info.compress_type = zipfile.ZIP_STORED if name in folders else zipfile.ZIP_DEFLATED
            archive.writestr(info, members.get(name, b""))
    write_bytes(path, buffer.getvalue())


def _shuffled(items: list, random: np.random.Generator) -> list:
    return [items[i] for i in random.permutation(len(items))]


def _encode(image: np.ndarray) -> bytes:
    """The bytes of a JPEG file of a (H, W, 3) RGB or (H, W) grey image."""
    image = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()


def _render(seed: int, person: int, index: int, height: int, width: int, cameras: int = 6) -> people.Render:
    settings = SyntheticSettings(
        train_identities=9999, test_identities=0, images_per_identity=10_000,
        height=height, width=width, cameras=cameras, seed=seed,
    )  # fmt: skip
    return people.render(settings, person, index)


def _cut(render: people.Render, top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A window of a render: its image, and the (18, 2) joints in its pixels that an estimator would report."""
    joints = people.annotate(render)[0] - np.float32([left, top])
    joints[~((joints >= 0) & (joints <= (width - 1, height - 1))).all(axis=1)] = np.nan
    return render.image[top : top + height, left : left + width], joints


def _nobody() -> np.ndarray:
    return np.full((len(JOINTS), 2), np.nan, np.float32)


def _ids(count: int, largest: int, random: np.random.Generator) -> Iterator[int]:
    """Different ids from 1 to `largest`, in no order, so that those of train and test are mixed."""
    return iter((random.choice(largest, count, replace=False) + 1).tolist())


# ---------------------------------------------------------------------------------------------------------------------
# The kinds


def _market1501(seed: int, train: int, test: int, images: int, random: np.random.Generator) -> _Contents:
    top = "Market-1501-v15.09.15"
    contents = _Contents()
    ids = _ids(train + test, 1501, random)
    used: Counter[str] = Counter()

    def name_of(render: people.Render, person: str, box: str | None = None) -> str:
        """A name in Market-1501's grammar. The boxes of a frame are numbered, because all junk counts as one person."""
        start = f"{person}_{render.name[5:16]}"
        used[start] += 1
        return f"{start}_{box or f'{used[start]:02d}'}.jpg"

    persons = [("train", "bounding_box_train")] * train + [("test", "bounding_box_test")] * test
    for person, (split, folder) in enumerate(persons, 1):
        identity = f"{next(ids):04d}"
        # In the published test table the names of person 1488 end so. In copies of the archive they may not.
        suffix = ".jpg" if person == train + test else ""
        for index in range(images):
            render = _render(seed, person, index, 128, 64)
            name = name_of(render, identity) + suffix
            joints = people.annotate(render)[0]
            contents.pictures[split].append(_Picture(f"{top}/{folder}/{name}", name, _encode(render.image), joints))
        render = _render(
            seed, person, images, 128, 64
        )  # boxes that were drawn by hand, which are also the queries of test people
        name, content = name_of(render, identity, "00"), _encode(render.image)
        contents.pictures[""].append(_Picture(f"{top}/gt_bbox/{name}", name, content))
        if split == "test":
            contents.pictures[""].append(_Picture(f"{top}/query/{name}", name, content))
            for quality in ("good", "junk"):
                contents.inside[f"{top}/gt_query/{name.removesuffix('.jpg')}_{quality}.mat"] = _MATLAB

    # What a person detector finds by mistake. In most of it an estimator finds nobody.
    for i in range(max(4, test * images // 4)):
        render = _render(seed, 1000 + i, 0, 128, 192)
        beside, joints = _cut(render, 0, 0 if i % 2 else 128, 128, 64)  # what stands beside a person
        name = name_of(render, "0000")
        contents.pictures["test"].append(_Picture(f"{top}/bounding_box_test/{name}", name, _encode(beside), _nobody()))
        part, joints = _cut(render, 0, 64 + (24 if i % 2 else -24), 128, 64)  # half a person
        name = name_of(render, "-1")
        shown = joints if i % 4 == 0 else _nobody()
        contents.pictures["test"].append(_Picture(f"{top}/bounding_box_test/{name}", name, _encode(part), shown))

    for folder in ("bounding_box_train", "bounding_box_test", "query", "gt_bbox"):
        contents.inside[f"{top}/{folder}/Thumbs.db"] = _THUMBS
    contents.inside[f"{top}/readme.txt"] = NOTICE.encode()
    return contents


def _dukemtmc(seed: int, train: int, test: int, images: int, random: np.random.Generator) -> _Contents:
    top = "DukeMTMC-reID"
    contents = _Contents()
    distractors = max(2, test // 2)  # people that only one camera has seen: they are valid people, but no queries
    ids = _ids(train + test + distractors, 7140, random)

    def picture(person: int, index: int, identity: str, folder: str) -> _Picture:
        height = int(120 * 2.5 ** random.uniform())  # 120 to 300
        render = _render(seed, person, index, height, int(height * random.uniform(0.36, 0.56)))
        # The data set has two more cameras than the renderer: for half of the people the first two have other numbers.
        camera = render.camera + 6 if render.camera <= 2 and person % 2 else render.camera
        frame = int(re.fullmatch(r".*_(\d{6})_\d\d\.jpg", render.name)[1])
        grey = (person + index) % 11 == 0
        image = cv2.cvtColor(render.image, cv2.COLOR_RGB2GRAY) if grey else render.image
        name = f"{identity}_c{camera}_f{frame:07d}.jpg"
        return _Picture(f"{top}/{folder}/{name}", name, _encode(image), people.annotate(render)[0])

    for person in range(1, train + test + distractors + 1):
        identity = f"{next(ids):04d}"
        split = "train" if person <= train else "test"
        of_one_camera = person > train + test
        for index in range(min(images, 3) if of_one_camera else images):  # three images in a row come from one camera
            contents.pictures[split].append(picture(person, index, identity, f"bounding_box_{split}"))
        if split == "test" and not of_one_camera:
            contents.pictures[""].append(picture(person, images, identity, "query"))
    for name in ("CITATION.txt", "LICENSE_DukeMTMC.txt", "LICENSE_DukeMTMC-reID.txt", "README.md"):
        contents.inside[f"{top}/{name}"] = NOTICE.encode()
    return contents


def _deepfashion(seed: int, train: int, test: int, images: int, random: np.random.Generator) -> _Contents:
    contents = _Contents()
    items = [f"{item:08d}" for item in _ids(train + test, 7982, random)]
    # Outfits are (split, item, number of the outfit). Every third training item has two outfits. Every second test outfit is a
    # further outfit of a training item, and the others have items of their own.
    outfits: list[tuple[str, int, int]] = []
    item = 0
    while len(outfits) < train:
        outfits += [("train", item, outfit) for outfit in range(1, 3 if item % 3 == 0 else 2)][: train - len(outfits)]
        item += 1
    of_train = item
    for i in range(test):
        shared = i % 2 == 0 and i // 2 < of_train
        outfits.append(("test", i // 2, 3) if shared else ("test", item, 1))
        item += not shared

    lists: dict[str, list[str]] = {"train": [], "test": []}
    partition = []
    for person, (split, item, outfit) in enumerate(outfits, 1):
        gender, category = _CATEGORIES[item % len(_CATEGORIES)]
        folder = f"img/{gender}/{category}/id_{items[item]}"
        views = list(_studio_views(seed, person, min(images, len(_VIEWS))))
        if person % 3 == 1 and images > len(_VIEWS):
            views.append(("6_flat", _flat_clothes(random), _nobody()))
        for view, image, joints in sorted(views, key=lambda shown: shown[0]):
            path = f"{folder}/{outfit:02d}_{view}.jpg"
            flat = f"fashion{gender}{category}id{items[item]}{outfit:02d}_{view.replace('_', '')}.jpg"
            lists[split].append(flat)
            contents.pictures[split].append(_Picture(path, flat, _encode(image), joints))
            # The official split for retrieval separates items. No method that is compared uses it.
            status = "train" if item % 2 else ("query" if view == "1_front" else "gallery")
            partition.append((path, f"id_{items[item]}", status))
    for split, names in lists.items():
        contents.beside[f"{split}.lst"] = "".join(f"{name}\n" for name in _shuffled(names, random)).encode()
    rows = "".join(f"{path:<70} {item:<12} {status}\n" for path, item, status in sorted(partition))
    header = f"{len(partition)}\nimage_name item_id evaluation_status\n"
    contents.beside[_PARTITION] = (header + rows).encode()
    return contents


def _studio_views(seed: int, person: int, count: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The first `count` views of a person, each with its name, its (256, 256, 3) uint8 image and its (18, 2) joints."""
    sides = [_side(_render(seed, person, index, 64, 32, cameras=1)) for index in range(8)]
    for view, (wanted, rows) in list(_VIEWS.items())[:count]:
        index = min((wanted.index(side), i) for i, side in enumerate(sides) if side in wanted)[1]
        sides[index] = "taken"
        render = _render(seed, person, index, rows, 176 if rows < 400 else 220, cameras=1)
        left = (render.image.shape[1] - 176) // 2
        image, joints = _cut(dataclasses.replace(render, image=_studio(render)), 0, left, 256, 176)
        framed = np.full((256, 256, 3), 255, np.uint8)
        framed[:, _BAR : _BAR + 176] = image
        yield view, framed, joints + np.float32([_BAR, 0])


def _side(render: people.Render) -> str:
    """The side of the person that a render shows ("front", "side" or "back").

    It follows from the distance of the shoulders in lengths of the trunk, and from which shoulder is on the left.
    """
    right, left, hip = render.joints[[JOINTS.index(n) for n in ("right_shoulder", "left_shoulder", "left_hip")]]
    breadth = (left[0] - right[0]) / (hip[1] - left[1])
    return "front" if breadth > 0.35 else "back" if breadth < -0.35 else "side"


def _studio(render: people.Render) -> np.ndarray:
    """The person before a plain light background.

    The outermost pixels of the person are left out, because they are mixed with the old background.
    """
    body = cv2.erode(render.body.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
    share = cv2.GaussianBlur(body, (3, 3), 0)[:, :, None]
    return np.round(render.image * share + _STUDIO * (1 - share)).astype(np.uint8)


def _flat_clothes(random: np.random.Generator) -> np.ndarray:
    """(256, 256, 3) uint8: a shirt that lies on the floor of the studio."""
    image = np.full((256, 256, 3), 255, np.uint8)
    image[:, _BAR : _BAR + 176] = _STUDIO
    half = np.array([(0, 62), (22, 52), (66, 84), (52, 112), (40, 104), (44, 208), (0, 212)])
    outline = np.vstack([half, half[::-1] * (-1, 1)])
    outline[:, 0] += 128
    cv2.fillPoly(image, [outline.astype(np.int32)], random.integers(30, 210, 3).tolist(), cv2.LINE_AA)
    return image


_MAKERS: dict[str, Callable[..., _Contents]] = {
    "market1501": _market1501,
    "dukemtmc": _dukemtmc,
    "deepfashion": _deepfashion,
}
