"""The stage `images`: one folder of a data set's original image files with `images.csv`, and how they are read from it.

`images.csv` has one row an image: name, split, person, camera, height, width, sha256, path. Height and width are those of
the image as `ImageFolder.read` gives it: upright by its EXIF tag, three channels, and cropped where the configuration says
so. Files keep their original bytes; nothing is decoded and encoded again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from potgan.common.download import check_checksum_text, digest_of, is_address
from potgan.common.errors import UserError
from potgan.common.files import new_folder, write_text
from potgan.common.progress import progress, say
from potgan.common.records import JsonRecord
from potgan.common.typed import build
from potgan.data.acquisition import Copy, acquire
from potgan.data.archives import SPLITS, Source, Survey, facts_of, lists_of, password_of, survey
from potgan.data.keypoint_files import keypoints_csv
from potgan.data.pixels import crop, decode_image, read_image
from potgan.data.pose import Keypoints
from potgan.settings.schema import Dataset, SyntheticSettings

JPEG_QUALITY = 95  # of the synthetic images; Market-1501 itself is JPEG


# ---------------------------------------------------------------------------------------------------------------------
# Reading


@dataclass(frozen=True)
class ImagesRecord(JsonRecord):
    """`images.json`. images, identities: split -> count. sha256: over names and bytes of all images.

    Of an archive or a folder: where it came from (`origin`), its `layout`, whether it is a `partial` copy, its `checksum` and
    whether that is the published one, and the names of images that were `skipped`. Of rendered people: their `settings`.
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
    """A folder that the stage `images` filled: its table, and its images by name.

    table: `images.csv` as a frame indexed by name. Raises UserError where the stage has not run.
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
        """`images.json`: source, counts, hash of all images, what was left out."""
        return ImagesRecord.read(self.folder / "images.json")

    @property
    def crop_columns(self) -> tuple[int, int] | None:
        """The columns that are kept of every image, or None for all."""
        columns = self.record.crop_columns
        return tuple(columns) if columns else None

    @property
    def skipped(self) -> set[str]:
        """Names of images that could not be decoded and were left out, as the configuration allowed."""
        return set(self.record.skipped)

    def names(self, split: str) -> list[str]:
        return list(self.table.index[self.table["split"] == split])

    def path(self, name: str) -> Path:
        return self.folder / self.table.at[name, "path"]

    def size(self, name: str) -> tuple[int, int]:
        """(height, width) in pixels."""
        return int(self.table.at[name, "height"]), int(self.table.at[name, "width"])

    def read(self, name: str) -> np.ndarray:
        """(H, W, 3) uint8 RGB, cropped. UserError for a file that is missing or cannot be decoded."""
        return crop(read_image(self.path(name)), self.crop_columns)


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def prepare_images(dataset: Dataset, name: str, out: Path, data: Path) -> dict[str, Any]:
    """The stage `images`: fill the folder `out` and write `images.csv` and `images.json` into it.

    data: the folder of archives, where a data set is looked for and fetched to. The folder `out` appears whole or not at
    all. Raises UserError for a source that is missing, broken or unsafe, counts that differ from the published ones
    (unless `allow_partial`), and unreadable images (unless `unreadable_images: skip`, which counts them).
    """
    if dataset.kind == "synthetic":
        with new_folder(out) as folder:
            rows, record = _write_synthetic(dataset.synthetic, folder)
            return _finish(dataset, name, folder, rows, record)
    copy = acquire(dataset, name, data)
    record = {"source": copy.path.name, "origin": copy.origin, **_check_archive(dataset, copy)}
    facts = facts_of(dataset.kind)
    lists = lists_of(dataset.splits, (data, copy.path, copy.path.parent))
    with _open(copy, facts, data) as source:
        found = survey(source, facts, lists)
        _check_counts(found, dataset, facts, copy.path)
        with new_folder(out) as folder:
            rows, unreadable = _write_real(found, dataset, name, folder, copy.path)
            record |= {
                "layout": found.layout,
                "partial": any(len(found.of(s)) != n for s, n in facts["counts"].items()),
                "crop_columns": dataset.crop_columns,
                "skipped": unreadable,
            }
            return _finish(dataset, name, folder, rows, record)


def _open(copy: Copy, facts: dict[str, Any], data: Path) -> Source:
    """The source; an archive that this very run fetched and that is refused does not stay, or the next run would take it."""
    try:
        return Source(copy.path, facts, password_of(facts, data))
    except UserError as error:
        if not is_address(copy.origin):
            raise
        copy.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            data.rmdir()  # where nothing else lies in it
        raise UserError(f"{copy.origin}: {str(error).removeprefix(f'{copy.path}: ')}; nothing kept") from None


def _finish(dataset: Dataset, name: str, folder: Path, rows: list[dict], record: dict[str, Any]) -> dict[str, Any]:
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


def _row(split: str, name: str, person: str, camera: Any, shape: tuple[int, ...], content: bytes, place: Path) -> dict:
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


def _write_synthetic(settings: SyntheticSettings, folder: Path) -> tuple[list[dict], dict[str, Any]]:
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
    # Seven digits, as when the published results were made: joints must come back from this table bit for bit as then.
    write_text(folder / "annotation.csv", keypoints_csv(table, digits=7))
    return rows, {"source": "synthetic renderer", "settings": settings.__dict__, "skipped": []}


def _write_real(found: Survey, dataset: Dataset, name: str, folder: Path, source: Path) -> tuple[list[dict], list[str]]:
    rows, unreadable = [], []
    for split in SPLITS:
        (folder / split).mkdir()
    for entry in progress(found.entries, len(found.entries), f"reading {name}", "images"):
        content = entry.read()
        image = decode_image(content)
        if image is None:
            unreadable.append(entry.name)
            continue
        if dataset.crop_columns and image.shape[1] < dataset.crop_columns[1]:
            raise UserError(
                f"{source}: {entry.name} is {image.shape[1]} pixels wide, and datasets.{name}.crop_columns wants columns "
                f"up to {dataset.crop_columns[1]}; leave crop_columns out where the images are cropped already"
            )
        place = Path(entry.split)
        (folder / place / entry.name).write_bytes(content)
        shape = crop(image, dataset.crop_columns).shape
        rows.append(_row(entry.split, entry.name, entry.person, entry.camera, shape, content, place))
    if unreadable:
        listing = ", ".join(unreadable[:5]) + (" ..." if len(unreadable) > 5 else "")
        message = f"{source}: {len(unreadable)} of {len(found.entries)} images cannot be decoded ({listing})"
        if dataset.unreadable_images == "stop" or not rows:
            raise UserError(f"{message}; fetch the data set again, or set datasets.{name}.unreadable_images: skip")
        say(f"{message}; skipped")
    return rows, unreadable


def _check_archive(dataset: Dataset, copy: Copy) -> dict[str, Any]:
    """What is known of the archive file itself: its checksum, and whether it is the published one."""
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


def _check_counts(found: Survey, dataset: Dataset, facts: dict[str, Any], source: Path) -> None:
    for split, expected in facts["counts"].items():
        count = len(found.of(split))
        if count == expected:
            continue
        message = f"{source}: has {count:,} {split} images, and {facts['label']} has {expected:,}"
        if not dataset.allow_partial or count > expected or not count:
            raise UserError(
                f"{message}; `potgan verify {dataset.kind} --source {source}` says what differs; fetch it again, or set "
                "allow_partial: true if a part is what you want"
            )
        say(f"{message}; going on with this part, as allow_partial says")
