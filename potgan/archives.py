"""Images of a data set, from an archive or folder the user has, or from the synthetic renderer (stage `images`).

What comes out is one folder with the original files under their data set's names, and `images.csv` (name, split, person,
camera, height, width, sha256, path). Facts about the data sets (folders, counts, file-name grammar) are read from
`benchmarks/<kind>.yaml`. Files are never extracted by the path that an archive gives: a name must match the grammar, and
its place follows from its split.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import yaml

from potgan.config import Dataset, SyntheticSettings
from potgan.errors import UserError
from potgan.files import new_folder, write_json, write_text
from potgan.pose import Keypoints, keypoints_csv
from potgan.progress import progress, say

FACTS = Path(__file__).parent.parent / "benchmarks"
SPLITS = ("train", "test")
JPEG_QUALITY = 95  # of the synthetic images; Market-1501 itself is JPEG


@dataclass(frozen=True)
class Entry:
    """One image file of a source: where it belongs, and how to read its bytes."""

    split: str
    name: str
    person: str
    camera: str
    read: Callable[[], bytes]


def facts_of(kind: str) -> dict[str, Any]:
    return yaml.safe_load((FACTS / f"{kind}.yaml").read_text(encoding="utf-8"))


def prepare_images(dataset: Dataset, name: str, out: Path) -> dict[str, Any]:
    """The stage `images`: fill the folder `out` and write `images.csv` and `images.json` into it.

    The folder appears whole or not at all. Raises UserError for a missing or broken source, counts that differ from the
    published ones (unless `allow_partial`), and unreadable images (unless `unreadable_images: skip`, which counts them).
    """
    with new_folder(out) as folder:
        if dataset.kind == "synthetic":
            rows, record = _write_synthetic(dataset.synthetic, folder)
        else:
            rows, record = _write_real(dataset, name, folder)
        table = pd.DataFrame(rows)
        write_text(folder / "images.csv", table.to_csv(index=False, lineterminator="\n"))
        record |= {
            "dataset": name,
            "kind": dataset.kind,
            "images": {split: int((table["split"] == split).sum()) for split in SPLITS},
            "identities": {split: int(table["person"][table["split"] == split].nunique()) for split in SPLITS},
            "sha256": hashlib.sha256("".join(sorted(table["name"] + table["sha256"])).encode()).hexdigest(),
        }
        write_json(folder / "images.json", record)
    return record


def read_image_table(folder: Path) -> pd.DataFrame:
    """`images.csv` of a folder that `prepare_images` filled, indexed by name; UserError where there is none."""
    path = folder / "images.csv"
    try:
        return pd.read_csv(path, dtype={"name": str, "person": str, "path": str}, keep_default_na=False).set_index(
            "name"
        )
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run `potgan images` first") from None


# ---------------------------------------------------------------------------------------------------------------------
# The embedded data set


def _write_synthetic(settings: SyntheticSettings, folder: Path) -> tuple[list[dict], dict[str, Any]]:
    from potgan import synthetic

    facts = facts_of("market1501")
    names, joints, confidence, rows = [], [], [], []
    for split in SPLITS:
        place = Path(facts["folders"][split][0])
        (folder / place).mkdir()
        people = settings.train_identities if split == "train" else settings.test_identities
        total = people * settings.images_per_identity
        for picture in progress(synthetic.render_split(settings, split), total, f"rendering {split} people", "images"):
            options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            content = cv2.imencode(".jpg", picture.image[:, :, ::-1], options)[1].tobytes()
            (folder / place / picture.name).write_bytes(content)
            rows.append(_row(split, picture.name, picture.name[:4], picture.camera, picture.image, content, place))
            points, certainty = synthetic.annotate(picture)
            names.append(picture.name)
            joints.append(points)
            confidence.append(certainty)
    table = Keypoints(names, np.array(joints, np.float32), np.array(confidence, np.float32))
    write_text(folder / "annotation.csv", keypoints_csv(table))
    return rows, {"source": "synthetic renderer", "settings": settings.__dict__, "skipped": []}


def _row(split: str, name: str, person: str, camera: Any, image: np.ndarray, content: bytes, place: Path) -> dict:
    return {
        "name": name,
        "split": split,
        "person": person,
        "camera": camera,
        "height": image.shape[0],
        "width": image.shape[1],
        "sha256": hashlib.sha256(content).hexdigest(),
        "path": (place / name).as_posix(),
    }


# ---------------------------------------------------------------------------------------------------------------------
# Real data sets


def _write_real(dataset: Dataset, name: str, folder: Path) -> tuple[list[dict], dict[str, Any]]:
    facts = facts_of(dataset.kind)
    source = Path(str(dataset.source))
    with _open_source(source, name, facts) as files:
        entries = _entries(files, dataset, facts, source)
        _check_counts(entries, dataset, facts, source)
        rows, unreadable = [], []
        for split in SPLITS:
            (folder / split).mkdir()
        for entry in progress(entries, len(entries), f"reading {name}", "images"):
            content = entry.read()
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
            if image is None:
                unreadable.append(entry.name)
                continue
            place = Path(entry.split)
            (folder / place / entry.name).write_bytes(content)
            rows.append(_row(entry.split, entry.name, entry.person, entry.camera, image, content, place))
    if unreadable:
        listing = ", ".join(unreadable[:5]) + (" ..." if len(unreadable) > 5 else "")
        if dataset.unreadable_images == "stop":
            raise UserError(
                f"{source}: {len(unreadable)} of {len(entries)} images cannot be decoded ({listing}); "
                f"fetch the data set again, or set datasets.{name}.unreadable_images: skip"
            )
        say(f"{source}: skipped {len(unreadable)} of {len(entries)} images that cannot be decoded ({listing})")
    return rows, {"source": source.name, "skipped": unreadable}


class _open_source:
    """The files of a folder or a zip archive: pairs of (path inside it, function that reads the bytes)."""

    def __init__(self, source: Path, name: str, facts: dict[str, Any]) -> None:
        self.source = source
        if not source.exists():
            raise UserError(
                f"{source}: missing; put {facts['archive']} (or its unpacked folder) there, or set "
                f"datasets.{name}.source to where it lies ({facts['label']}: {facts['page']})"
            )
        self.archive = None
        if source.is_file():
            try:
                self.archive = zipfile.ZipFile(source)
            except zipfile.BadZipFile:
                start = source.read_bytes()[:200].lstrip().lower()
                page = start.startswith((b"<!doctype", b"<html"))
                what = (
                    "is a web page that was saved in place of the archive"
                    if page
                    else "is not a zip archive, or is cut off"
                )
                raise UserError(f"{source}: {what}; fetch {facts['archive']} again") from None

    def __enter__(self) -> Iterator[tuple[str, Callable[[], bytes]]]:
        if self.archive is not None:
            archive = self.archive
            return ((i.filename, lambda i=i: _read_member(archive, i, self.source)) for i in archive.infolist())
        found = sorted(p for p in self.source.rglob("*") if p.is_file())
        return ((p.relative_to(self.source).as_posix(), p.read_bytes) for p in found)

    def __exit__(self, *_: object) -> None:
        if self.archive is not None:
            self.archive.close()


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: Path) -> bytes:
    if member.flag_bits & 1:
        raise UserError(f"{source}: is encrypted; unpack it with its password and name the folder as the source")
    if member.file_size > 64 * 2**20:
        raise UserError(
            f"{source}: {member.filename} claims {member.file_size} bytes, too much for one image; fetch it again"
        )
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, EOFError, OSError):
        return b""  # counted as unreadable, like an image that does not decode


def _entries(
    files: Iterator[tuple[str, Callable[[], bytes]]], dataset: Dataset, facts: dict[str, Any], source: Path
) -> list[Entry]:
    """The images among the files, sorted by split and name."""
    pattern = re.compile(facts["name_pattern"])
    by_list = _listed_splits(dataset) if facts["folders"] is None else {}
    folder_split = {f: split for split, names in (facts["folders"] or {}).items() for f in names}
    entries: dict[str, Entry] = {}
    for path, read in files:
        name = _flat_name(path, facts)
        match = pattern.fullmatch(name)
        parts = path.split("/")
        split = by_list.get(name) if by_list else folder_split.get(parts[-2] if len(parts) > 1 else "")
        if match is None or split is None:
            continue
        if name in entries:
            raise UserError(f"{source}: image {name} stands twice ({split} and {entries[name].split}); remove one copy")
        groups = match.groupdict()
        entries[name] = Entry(split, name, groups["person"], groups.get("camera") or "", read)
    if not entries:
        wanted = "images named as in its splits" if by_list else f"a folder {' or '.join(folder_split)} with images"
        raise UserError(f"{source}: holds no image of {facts['label']}; expected {wanted}")
    return sorted(entries.values(), key=lambda e: (SPLITS.index(e.split), e.name))


def _flat_name(path: str, facts: dict[str, Any]) -> str:
    """The data set's name of a file; DeepFashion's tree becomes PATN's flat name."""
    tree = re.search(facts["tree_pattern"] + "$", path) if "tree_pattern" in facts else None
    if tree:
        g = tree.groupdict()
        return f"fashion{g['gender']}{g['category']}id{g['item']}{g['outfit']}_{g['view']}{g['side']}.jpg"
    return path.rsplit("/", 1)[-1]


def _listed_splits(dataset: Dataset) -> dict[str, str]:
    """name -> split, from the lists that the configuration names (PATN's train.lst and test.lst)."""
    splits = {}
    for split in SPLITS:
        path = Path(dataset.splits.get(split, ""))
        if split not in dataset.splits or not path.is_file():
            raise UserError(
                f"datasets: {dataset.label} needs the list of its {split} images (PATN's {split}.lst) as splits.{split}"
                + (f"; {path} is missing" if split in dataset.splits else "")
            )
        splits |= dict.fromkeys(path.read_text().split(), split)
    return splits


def _check_counts(entries: list[Entry], dataset: Dataset, facts: dict[str, Any], source: Path) -> None:
    for split, expected in facts["counts"].items():
        found = sum(e.split == split for e in entries)
        if found == expected:
            continue
        message = f"{source}: has {found:,} {split} images, and {facts['label']} has {expected:,}"
        if not dataset.allow_partial or found > expected or not found:
            raise UserError(f"{message}; fetch it again, or set allow_partial: true if a part is what you want")
        say(f"{message}; going on with this part, as allow_partial says")
