"""The stage `keypoints`: one `keypoints.csv` per data set, and `keypoints.json` with its origin and detection rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from potgan.archives import read_image_table
from potgan.config import Dataset
from potgan.errors import UserError
from potgan.files import new_folder, read_json, sha256_of, write_json, write_text
from potgan.pose import JOINTS, Keypoints, keypoints_csv, read_keypoints
from potgan.progress import say

#: Below this share of images with any joint something is broken (a wrong table, a broken detector), not hard to see.
MINIMUM_DETECTION_RATE = 0.5


def prepare_keypoints(dataset: Dataset, name: str, images: Path, out: Path) -> dict[str, Any]:
    """Collect the key points of all images of a data set into the folder `out`.

    Synthetic images have exact ones; real images take the published annotation tables named in the configuration
    (`datasets.<name>.keypoints`). Rows keep their table's order. Raises UserError if a table names images that are not
    there (unless `allow_partial`), or if too few images have any joint.
    """
    table = read_image_table(images)
    if dataset.kind == "synthetic":
        sources = {split: images / "annotation.csv" for split in ("train", "test")}
        estimator = "exact (synthetic renderer); hidden joints missing, hidden torso joints with confidence 0.5"
    else:
        sources = {split: Path(path) for split, path in dataset.keypoints.items()}
        estimator = "published annotation table"
        for split in ("train", "test"):
            if split not in sources:
                raise UserError(
                    f"datasets.{name}.keypoints.{split} is missing: name the published annotation table of the {split} images"
                )
    skipped = skipped_images(images)
    parts, hashes, without = [], {}, {}
    for split, path in sources.items():
        keypoints = read_keypoints(path)
        known = set(table.index[table["split"] == split])
        everything = set(table.index) | skipped
        strangers = [n for n in keypoints.names if n not in everything]
        if strangers and not dataset.allow_partial:
            raise UserError(
                f"{path}: names {len(strangers)} images that are not in {name} (first: {strangers[0]}); "
                "check that table and images belong together, or set allow_partial: true"
            )
        rows = [i for i, n in enumerate(keypoints.names) if n in known]
        parts.append((keypoints, rows))
        hashes[split] = {"file": path.name, "sha256": sha256_of(path)}
        without[split] = len(known) - len(rows)
        if without[split]:
            say(f"{path}: {without[split]} of {len(known)} {split} images have no row and cannot form pairs")
    merged = Keypoints(
        [k.names[i] for k, rows in parts for i in rows],
        np.concatenate([k.joints[rows] for k, rows in parts]),
        np.concatenate([k.confidence[rows] for k, rows in parts]),
    )
    present = merged.present
    rate = float(present.any(axis=1).mean()) if len(merged) else 0.0
    if rate < MINIMUM_DETECTION_RATE:
        raise UserError(
            f"{name}: only {rate:.0%} of {len(merged)} images have any joint; the tables belong to other images, or their "
            "detector was broken"
        )
    record = {
        "dataset": name,
        "estimator": estimator,
        "weights_sha256": None,
        "input_scale": 1.0,
        "images": len(merged),
        "without_row": without,
        "detection_rate": round(rate, 4),
        "joint_rate": {joint: round(float(r), 4) for joint, r in zip(JOINTS, present.mean(axis=0), strict=True)},
        "tables": hashes,
    }
    with new_folder(out) as folder:
        write_text(folder / "keypoints.csv", keypoints_csv(merged))
        record["sha256"] = sha256_of(folder / "keypoints.csv")
        write_json(folder / "keypoints.json", record)
    return record


def skipped_images(images: Path) -> set[str]:
    """Names of images that could not be decoded and were left out, as the configuration allowed."""
    return set(read_json(images / "images.json", "run `potgan images` first")["skipped"])


def split_keypoints(keypoints: Keypoints, images: Path) -> dict[str, Keypoints]:
    """The rows of each split, in the table's order."""
    split_of = read_image_table(images)["split"].to_dict()
    result = {}
    for split in ("train", "test"):
        rows = [i for i, n in enumerate(keypoints.names) if split_of.get(n) == split]
        result[split] = Keypoints(
            [keypoints.names[i] for i in rows], keypoints.joints[rows], keypoints.confidence[rows]
        )
    return result
