"""The stage `images`: a folder with the image files of a data set and the table `images.csv`, and how images are read from it.

`images.csv` has one row per image: name, split, person, camera, height, width, sha256, path. Height and width are those of the
image that `ImageFolder.read` gives: turned upright as its EXIF tag says, and cropped where the configuration says so. The files
keep their original bytes, because no image is decoded and encoded again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from potgan.common.download import check_checksum_text, digest_of, is_address
from potgan.common.errors import UserError
from potgan.common.files import new_folder, write_text
from potgan.common.progress import progress, say
from potgan.common.records import JsonRecord
from potgan.common.typed import build
from potgan.data.keypoint_files import keypoints_csv
from potgan.data.pixels import crop, decode_image, read_image
from potgan.data.pose import Keypoints
from potgan.data.sources.acquisition import Copy, acquire
from potgan.data.sources.archives import SPLITS, Facts, Locked, Source, Survey, facts_of, lists_of, password_of, survey
from potgan.data.sources.published import kept_in
from potgan.settings.schema import Dataset, SyntheticSettings

#: Quality of the synthetic images, which are JPEG files because Market-1501's images are.
JPEG_QUALITY = 95

#: One row of `images.csv`: column -> value.
Row = dict[str, str | int]


#: Keys of `ImagesRecord` -> values, as they become known.
Known = dict[str, object]


# ---------------------------------------------------------------------------------------------------------------------
# Reading


@dataclass(frozen=True)
class ImagesRecord(JsonRecord):
    """What `images.json` holds.

    source: file or folder name of the source. origin: as of `Copy`. checksum: "<algorithm>:<digits>" of the archive.
    published_archive: whether this is the published checksum, None where none is published. layout: in words.
    partial: whether images of the published data set are missing. crop_columns: the columns that are kept.
    skipped: names of images that cannot be decoded. dataset, kind: as in the configuration. images, identities: numbers
    per split. sha256: of the names and bytes of all images. settings: those of the synthetic renderer.
    """

    REMEDY = "run `potgan images` first"

    dataset: str
    kind: str
    source: str
    images: dict[str, int]
    identities: dict[str, int]
    sha256: str
    skipped: tuple[str, ...] = ()
    origin: str = ""
    layout: str = ""
    partial: bool = False
    crop_columns: tuple[int, int] | None = None
    checksum: str | None = None
    published_archive: bool | None = None
    settings: SyntheticSettings | None = None


class ImageFolder:
    """A folder that the stage `images` has filled: its table, and its images by name.

    table: `images.csv`, indexed by name. Raises UserError where the stage has not run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "images.csv"
        text = {"name": str, "person": str, "camera": str, "path": str}
        try:
            self.table = pd.read_csv(path, dtype=text, keep_default_na=False).set_index("name")
        except FileNotFoundError:
            raise UserError(f"{path}: missing; run `potgan images` first") from None

    @functools.cached_property
    def record(self) -> ImagesRecord:
        """What `images.json` holds."""
        return ImagesRecord.read(self.folder / "images.json")

    @property
    def crop_columns(self) -> tuple[int, int] | None:
        """The first column that is kept of every image and the one after the last; None where all are kept."""
        columns = self.record.crop_columns
        return tuple(columns) if columns else None

    @property
    def skipped(self) -> set[str]:
        """The names of the images that cannot be decoded and are left out, which the configuration has allowed."""
        return set(self.record.skipped)

    def names(self, split: str) -> list[str]:
        """The names of the images of one split."""
        return list(self.table.index[self.table["split"] == split])

    def path(self, name: str) -> Path:
        """Where an image's file lies."""
        return self.folder / self.table.at[name, "path"]

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) of the image that `read` gives, in pixels."""
        return int(self.table.at[name, "height"]), int(self.table.at[name, "width"])

    def read(self, name: str) -> np.ndarray:
        """(H, W, 3) uint8 RGB, cropped. Raises UserError for a file that is missing or cannot be decoded."""
        return crop(read_image(self.path(name)), self.crop_columns)


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def prepare_images(dataset: Dataset, name: str, out: Path, data: Path) -> Known:
    """The stage `images`: fill the folder `out`, and write `images.csv` and `images.json` into it. Returns the latter.

    name: the data set's name in the configuration. data: the folder of archives, where a data set is looked for and fetched to.
    The folder `out` appears whole or not at all.

    Raises UserError for a source that is missing, broken or unsafe, for numbers of images that differ from the published ones
    (unless `allow_partial`), and for images that cannot be decoded (unless `unreadable_images: skip`).
    """
    if dataset.kind == "synthetic":
        with new_folder(out) as folder:
            rows, record = _write_synthetic(dataset.synthetic, folder)
            return _finish(dataset, name, folder, rows, record)
    copy = acquire(dataset, name, data)
    record = {"source": copy.path.name, "origin": copy.origin, **_check_archive(dataset, copy)}
    facts = facts_of(dataset.kind)
    lists = lists_of(dataset.splits, (data, kept_in(data, dataset.kind), copy.path, copy.path.parent))
    with _open(copy, facts, data) as source:
        found = survey(source, facts, lists)
        _check_counts(found, dataset, facts, copy.path)
        with new_folder(out) as folder:
            rows, unreadable = _write_real(found, dataset, name, folder, copy.path, facts)
            record |= {
                "layout": found.layout,
                "partial": any(len(found.of(s)) != n for s, n in facts["counts"].items()),
                "crop_columns": dataset.crop_columns,
                "skipped": unreadable,
            }
            return _finish(dataset, name, folder, rows, record)


def _open(copy: Copy, facts: Facts, data: Path) -> Source:
    """The files of a copy. An archive that this run has fetched and that is refused is removed, or the next run would take it.

    An archive whose password is wrong is kept.
    """
    try:
        return Source(copy.path, facts, password_of(facts, data))
    except UserError as error:
        if isinstance(error, Locked) or not is_address(copy.origin):
            raise
        copy.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            data.rmdir()  # fails, as it should, where anything else lies in the data folder
        raise UserError(f"{copy.origin}: {str(error).removeprefix(f'{copy.path}: ')}; nothing kept") from None


def _finish(dataset: Dataset, name: str, folder: Path, rows: list[Row], record: Known) -> Known:
    """Write the table and the record of a folder that holds all images."""
    table = pd.DataFrame(rows)
    write_text(folder / "images.csv", table.to_csv(index=False, lineterminator="\n"))
    content = "".join(sorted(table["name"] + table["sha256"]))
    if dataset.crop_columns:
        content += f"columns {dataset.crop_columns}"
    record |= {
        "dataset": name,
        "kind": dataset.kind,
        "images": {split: int((table["split"] == split).sum()) for split in SPLITS},
        "identities": {split: int(table["person"][table["split"] == split].nunique()) for split in SPLITS},
        "sha256": hashlib.sha256(content.encode()).hexdigest(),
    }
    build(ImagesRecord, record, "images.json").write(folder / "images.json")
    return record


def _row(
    split: str, name: str, person: str, camera: int | str, shape: tuple[int, ...], content: bytes, place: Path
) -> Row:
    """One row of `images.csv`. shape: of the image. content: the file's bytes. place: its folder, inside of the data set's."""
    return {
        "name": name,
        "split": split,
        "person": person,
        "camera": camera,
        "height": shape[0],
        "width": shape[1],
        "sha256": hashlib.sha256(content).hexdigest(),
        "path": (place / name).as_posix(),
    }


def _write_synthetic(settings: SyntheticSettings, folder: Path) -> tuple[list[Row], Known]:
    """Render the images of the synthetic data set, and write the table of their exact key points."""
    from potgan.data.synthetic.people import annotate, render_split

    facts = facts_of("market1501")
    names, joints, confidence, rows = [], [], [], []
    for split in SPLITS:
        place = Path(facts["folders"][split][0])
        (folder / place).mkdir()
        people = settings.train_identities if split == "train" else settings.test_identities
        total = people * settings.images_per_identity
        for picture in progress(render_split(settings, split), total, f"rendering {split} people", "images"):
            options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            content = cv2.imencode(".jpg", picture.image[:, :, ::-1], options)[1].tobytes()
            (folder / place / picture.name).write_bytes(content)
            rows.append(
                _row(split, picture.name, picture.name[:4], picture.camera, picture.image.shape, content, place)
            )
            points, certainty = annotate(picture)
            names.append(picture.name)
            joints.append(points)
            confidence.append(certainty)
    table = Keypoints(names, np.array(joints, np.float32), np.array(confidence, np.float32))
    # The published results were made from a table with seven digits. With seven digits its joints are the same, bit for bit.
    write_text(folder / "annotation.csv", keypoints_csv(table, digits=7))
    return rows, {"source": "synthetic renderer", "settings": settings.__dict__, "skipped": []}


def _write_real(
    found: Survey, dataset: Dataset, name: str, folder: Path, source: Path, facts: Facts
) -> tuple[list[Row], list[str]]:
    """Copy the images of a real data set. Returns the rows of the table, and the names of images that cannot be decoded."""
    rows, unreadable = [], []
    for split in SPLITS:
        (folder / split).mkdir()
    for entry in progress(found.entries, len(found.entries), f"reading {name}", "images"):
        content = entry.read()
        image = decode_image(content)
        if image is None:
            unreadable.append(entry.name)
            continue
        if dataset.crop_columns:
            at = f"datasets.{name}.crop_columns"
            _check_crop(dataset.crop_columns, image.shape[:2], facts, f"{source}: {entry.name}", at)
        place = Path(entry.split)
        (folder / place / entry.name).write_bytes(content)
        shape = crop(image, dataset.crop_columns).shape
        rows.append(_row(entry.split, entry.name, entry.person, entry.camera, shape, content, place))
    if unreadable:
        listing = ", ".join(unreadable[:5]) + (" ..." if len(unreadable) > 5 else "")
        message = f"{source}: {len(unreadable)} of {len(found.entries)} images cannot be decoded ({listing})"
        if dataset.unreadable_images == "stop" or not rows:
            raise UserError(
                f"{message}; fetch the data set again, or set datasets.{name}.unreadable_images: skip (--skip-unreadable)"
            )
        say(f"{message}; skipped")
    return rows, unreadable


def _check_crop(columns: tuple[int, int], size: tuple[int, int], facts: Facts, where: str, at: str) -> None:
    """Raise UserError where `columns`, the setting `at`, count the columns of images of another size (height, width).

    Columns of the published size, of which a wider image would keep less than half, were meant for the published images.
    """
    (first, end), (height, width) = columns, size
    if width < end:
        raise UserError(
            f"{where} is {width} pixels wide, and {at} keeps columns up to {end}; leave crop_columns out where the images are "
            "cropped already"
        )
    published = facts["image_size"]
    if published and end <= published[1] and 2 * (end - first) < width:
        raise UserError(
            f"{where} is {height} x {width}, and {at} counts columns of {facts['archive']}'s images, which are {published[0]} x "
            f"{published[1]}; take {facts['archive']}, or leave crop_columns out"
        )


def _check_archive(dataset: Dataset, copy: Copy) -> Known:
    """The archive's checksum, and whether it is the published one.

    Raises UserError where it is not the checksum that the configuration names.
    """
    if copy.path.is_dir():
        return {"checksum": None, "published_archive": None}
    expected = dataset.checksum or facts_of(dataset.kind)["checksum"]
    algorithm, digest = check_checksum_text(expected, "checksum") if expected else ("sha256", None)
    found = digest_of(copy.path, algorithm)
    if dataset.checksum and found != digest:
        raise UserError(
            f"{copy.path}: is not the file of the configuration's checksum ({algorithm} {found}, expected {digest}); "
            "fetch it again, or correct the checksum"
        )
    return {"checksum": f"{algorithm}:{found}", "published_archive": None if digest is None else found == digest}


def _check_counts(found: Survey, dataset: Dataset, facts: Facts, source: Path) -> None:
    """Raise UserError where the numbers of images differ from the published ones and the configuration does not allow it."""
    for split, expected in facts["counts"].items():
        count = len(found.of(split))
        if count == expected:
            continue
        message = f"{source}: has {count:,} {split} images, and {facts['label']} has {expected:,}"
        if not dataset.allow_partial or count > expected or not count:
            raise UserError(
                f"{message}; `potgan verify {dataset.kind} --source {source}` says what differs; fetch it again, or set "
                "allow_partial: true (without --complete) if a part is what you want"
            )
        say(f"{message}; going on, since a part is allowed here")
