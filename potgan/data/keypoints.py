"""The stage `keypoints`: one `keypoints.csv` per data set, and `keypoints.json` with its origin and detection rates.

Key points come from published tables, from OpenPifPaf, or, for synthetic images, from the renderer. Where detected key points can
be compared with published or exact ones, `keypoints.json` also says how far they agree (PCK).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potgan.common.errors import UserError
from potgan.common.files import Json, new_folder, read_json, sha256_of, write_json, write_text
from potgan.common.paths import openpifpaf_environment
from potgan.common.progress import say
from potgan.common.weights import WEIGHTS, weight_file
from potgan.data import detection
from potgan.data.images import ImageFolder
from potgan.data.keypoint_files import keypoints_csv, match_names, read_keypoints
from potgan.data.pose import JOINTS, Keypoints, refuse_other_frame
from potgan.data.sources.archives import SPLITS, facts_of
from potgan.settings.schema import Dataset, OpenPifPafSettings

#: Distances up to which two joints agree, in lengths of the torso.
PCK_THRESHOLDS = (0.1, 0.2, 0.5)


@dataclass
class _Found:
    """Key points of one origin, in pixels of the images as `ImageFolder.read` gives them, and what is recorded of them."""

    keypoints: Keypoints
    record: dict[str, Any]


def prepare_keypoints(dataset: Dataset, name: str, images: Path, out: Path) -> dict[str, Json]:
    """The stage `keypoints`: collect the key points of a data set's images into the folder `out`. Returns the record.

    dataset: with paths in place of `published` (`potgan.data.sources.published.resolved`). name: the data set's name in the
    configuration. images: the folder of the stage `images`. The rows of published tables keep their order, because the published
    test pairs depend on it. A detection that was killed goes on after its last finished shard;
    shards lie in `.<out>.shards` until all is done.

    Raises UserError if a table names images that are not there (unless `allow_partial`), if its joints do not lie in the images as
    those of people do, and if too few images have any joint.
    """
    folder = ImageFolder(images)
    settings = dataset.keypoints
    published = _exact(images, folder) if dataset.kind == "synthetic" else None
    if dataset.kind != "synthetic" and (settings.tables or settings.estimator != "openpifpaf"):
        published = _from_tables(dataset, name, folder)
    shards = out.with_name(f".{out.name}.shards")
    found, agreement = published, None
    if settings.estimator == "openpifpaf":
        found = _detected(settings.openpifpaf, name, folder, shards)
        if published is not None:
            agreement = _agreement(found.keypoints, published)
    _gate(found.keypoints, settings.minimum_detection_rate, settings.estimator == "openpifpaf", name)
    record = {
        "dataset": name,
        **found.record,
        "images": len(found.keypoints),
        "images_sha256": folder.record.sha256,
        "without_row": _without_row(found.keypoints, folder),
        **_rates(found.keypoints, folder),
        "outside_frame": _outside_frame(found.keypoints, folder),
        "agreement": agreement,
    }
    with new_folder(out) as new:
        write_text(new / "keypoints.csv", keypoints_csv(found.keypoints))
        record["sha256"] = sha256_of(new / "keypoints.csv")
        write_json(new / "keypoints.json", record)
    shutil.rmtree(shards, ignore_errors=True)
    return record


def split_keypoints(keypoints: Keypoints, images: Path) -> dict[str, Keypoints]:
    """Split -> its rows of the table, in the table's order. images: the folder of the stage `images`."""
    split_of = ImageFolder(images).table["split"].to_dict()
    return {split: keypoints.rows([i for i, n in enumerate(keypoints.names) if split_of.get(n) == split])
            for split in SPLITS}  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# Origins


def _exact(images: Path, folder: ImageFolder) -> _Found:
    """The exact key points of synthetic images, which the stage `images` has written."""
    table = read_keypoints(images / "annotation.csv")
    return _Found(
        table.rows([i for i, n in enumerate(table.names) if n in folder.table.index]),
        {
            "estimator": "exact (synthetic renderer); hidden joints missing, hidden torso joints with confidence 0.5",
            "weights_sha256": None,
            "input_scale": 1.0,
            "tables": {"all": {"file": "annotation.csv", "sha256": sha256_of(images / "annotation.csv")}},
        },
    )


def _from_tables(dataset: Dataset, name: str, folder: ImageFolder) -> _Found:
    """The key points of the tables that the configuration names."""
    tables = dataset.keypoints.tables
    for split in SPLITS:
        if split not in tables:
            raise UserError(
                f"datasets.{name}.keypoints.{split} is missing: name the published annotation table of the {split} images, "
                f"or set keypoints.estimator to openpifpaf ({facts_of(dataset.kind)['tables_page']})"
            )
    parts, hashes, respelled = [], {}, {}
    everything = set(folder.table.index) | folder.skipped
    for split, path in ((split, Path(tables[split])) for split in SPLITS):
        table = read_keypoints(path)
        image_of = match_names(table.names, everything)
        strangers = [n for n in table.names if n not in image_of]
        if strangers and not dataset.allow_partial:
            raise UserError(
                f"{path}: names {len(strangers)} images that are not in {name} (first: {strangers[0]}); "
                "check that table and images belong together, or set allow_partial: true"
            )
        wanted = set(folder.names(split))
        rows = [i for i, n in enumerate(table.names) if image_of.get(n) in wanted]
        part = table.rows(rows)
        part = Keypoints([image_of[n] for n in part.names], part.joints.copy(), part.confidence)
        if folder.crop_columns and dataset.keypoints.frame == "original":
            part.joints[:, :, 0] -= folder.crop_columns[0]
        refuse_other_frame(part, [folder.size(n) for n in part.names], str(path))
        parts.append(part)
        hashes[split] = {"file": path.name, "sha256": sha256_of(path)}
        respelled[split] = sum(image_of[table.names[i]] != table.names[i] for i in rows)
        missing = len(wanted) - len(rows)
        if wanted and not rows:
            raise UserError(
                f"{path}: has no row of any of the {missing:,} {split} images; name the table of these images as "
                f"datasets.{name}.keypoints.{split}, or set keypoints.estimator to openpifpaf"
            )
        if missing:
            say(f"{path}: {missing} of {len(wanted)} {split} images have no row and cannot form pairs")
    merged = Keypoints(
        [n for part in parts for n in part.names],
        np.concatenate([part.joints for part in parts]),
        np.concatenate([part.confidence for part in parts]),
    )
    return _Found(
        merged,
        {
            "estimator": "published annotation table",
            "weights_sha256": None,
            "input_scale": 1.0,
            "tables": hashes,
            "respelled_names": respelled,
        },
    )


def _detected(settings: OpenPifPafSettings, name: str, folder: ImageFolder, shards: Path) -> _Found:
    """The key points that OpenPifPaf finds."""
    checkpoint, sha256 = checkpoint_of(settings, name)
    images = [
        detection.ImageToDetect(n, folder.path(n), folder.table.at[n, "sha256"], folder.crop_columns)
        for split in SPLITS
        for n in folder.names(split)
    ]
    detector = detection.DetectorSettings(
        checkpoint=checkpoint,
        checkpoint_sha256=sha256,
        scale=settings.scale,
        batch_size=settings.batch_size,
        workers=settings.workers,
        shard_size=settings.shard_size,
        device=settings.device,
        python=openpifpaf_environment() / "bin" / "python",
    )
    keypoints, record = detection.detect(images, detector, shards)
    return _Found(keypoints, record)


def checkpoint_of(settings: OpenPifPafSettings, name: str) -> tuple[Path, str]:
    """The checkpoint file, and the SHA-256 that is demanded of it before it is unpickled.

    A published checkpoint is fetched once. For a file of the user, the SHA-256 is `checkpoint_sha256`, or else stands as `sha256`
    in a file of the same name with the suffix .json, as the recipe for synthetic people writes it. name: the data set's name.
    Raises UserError where the file is missing, and where its SHA-256 is not known.
    """
    if settings.checkpoint in WEIGHTS:
        path = weight_file(settings.checkpoint)
        return path, settings.checkpoint_sha256 or sha256_of(path)
    path = Path(settings.checkpoint)
    at = f"datasets.{name}.keypoints.openpifpaf"
    if not path.is_file():
        published = ", ".join(n for n, w in WEIGHTS.items() if w.file_name.endswith(".pkl"))
        raise UserError(f"{path}: missing; {at}.checkpoint names a checkpoint file or one of {published}")
    if settings.checkpoint_sha256:
        return path, settings.checkpoint_sha256
    record = path.with_suffix(".json")
    if not record.is_file():
        raise UserError(
            f"{path}: a checkpoint is a pickle, which runs code when it is loaded; set {at}.checkpoint_sha256 to the "
            "SHA-256 of the file that you trust"
        )
    return path, read_json(record, "train it again")["sha256"]


# ---------------------------------------------------------------------------------------------------------------------
# Numbers for the record


def _gate(keypoints: Keypoints, minimum: float, detected: bool, name: str) -> None:
    """Raise UserError where so few images have any joint that the table is wrong or the detector broken."""
    rate = float(keypoints.present.any(axis=1).mean()) if len(keypoints) else 0.0
    if rate >= minimum and rate > 0:
        return
    found = int(keypoints.present.any(axis=1).sum())
    cause = (
        f"set datasets.{name}.keypoints.openpifpaf.scale higher for small people, and check that the checkpoint is one for COCO "
        "key points that this build of torch loads"
        if detected
        else "the tables belong to other images, or their detector was broken"
    )
    raise UserError(
        f"{name}: only {found:,} of {len(keypoints):,} images have any joint ({rate:.0%}, and "
        f"keypoints.minimum_detection_rate is {minimum:.0%}); {cause}"
    )


def _rates(keypoints: Keypoints, folder: ImageFolder) -> dict[str, Json]:
    """The share of images with any joint, and the share of images with each joint, over all images and per split."""
    split_of = folder.table["split"].to_dict()
    present = keypoints.present
    splits = np.array([split_of[n] for n in keypoints.names])

    def rates(chosen: np.ndarray) -> dict[str, Json]:
        part = present[chosen]
        return {
            "detection_rate": round(float(part.any(axis=1).mean()), 4) if len(part) else None,
            "joint_rate": {j: round(float(r), 4) for j, r in zip(JOINTS, part.mean(axis=0), strict=True)}
            if len(part)
            else None,
        }

    return {**rates(np.ones(len(present), bool)), "splits": {s: rates(splits == s) for s in SPLITS}}


def _without_row(keypoints: Keypoints, folder: ImageFolder) -> dict[str, int]:
    """Split -> the number of its images that have no row in the table."""
    return {split: len(set(folder.names(split)) - set(keypoints.names)) for split in SPLITS}


def _outside_frame(keypoints: Keypoints, folder: ImageFolder) -> int:
    """The number of joints that lie outside their image. They are kept, because heat maps and masks end at the frame."""
    size = np.array([folder.size(n) for n in keypoints.names], np.float32).reshape(-1, 1, 2)[..., ::-1]
    with np.errstate(invalid="ignore"):
        outside = (keypoints.joints < -0.5) | (keypoints.joints > size - 0.5)
    return int((outside.any(axis=2) & keypoints.present).sum())


def _agreement(found: Keypoints, published: _Found) -> dict[str, Json]:
    """PCK of the detected joints, compared with the published or exact ones, on the images that both tables have."""
    both = [n for n in published.keypoints.names if n in found.row]
    ours = found.rows([found.row[n] for n in both])
    theirs = published.keypoints.rows([published.keypoints.row[n] for n in both])
    return {
        "with": published.record["estimator"],
        "tables": published.record["tables"],
        "images": len(both),
        **{f"pck@{alpha}": detection.pck(ours, theirs, alpha) for alpha in PCK_THRESHOLDS},
    }
