"""What the report tells of each data set: where its images and key points come from, how complete they are, which pairs
are used, and how large the masks are. Read from the records that the data stages wrote; nothing is typed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from potgan.data import pose_rendering
from potgan.data.images import ImageFolder, ImagesRecord
from potgan.data.pixels import scale_joints
from potgan.data.pose import JOINTS, Keypoints
from potgan.data.sources.archives import facts_of
from potgan.data.sources.published import why_detected
from potgan.results import Results
from potgan.settings.schema import Benchmark


@dataclass(frozen=True)
class Datasheet:
    """One data set. rows: (what, text) in reading order; joint_rates: joint -> share of images that have it;
    agreement: rows (joint or "all", PCK at each threshold, missed, extra), empty where there is nothing to compare with.
    """

    dataset: str
    rows: tuple[tuple[str, str], ...]
    joint_rates: dict[str, float]
    agreement: tuple[tuple[str, ...], ...] = ()
    agreement_with: str = ""


def datasheets(results: Results) -> list[Datasheet]:
    """One per data set of the benchmark. Raises UserError where a data stage has not run."""
    benchmark = results.benchmark
    return [_datasheet(results, name) for name in benchmark.datasets]


def _datasheet(results: Results, name: str) -> Datasheet:
    benchmark = results.benchmark
    folder = results.photos(name)
    images = folder.record
    found = results.keypoints_record(name)
    pairs = results.pairs_record(name)
    keypoints = results.keypoints(name)
    rows = [
        ("Images", _images_text(benchmark, name, images)),
        ("Sizes", _sizes_text(benchmark, name, folder)),
        ("Key points", _keypoints_text(found, why_detected(benchmark.datasets[name], results.layout.published(name)))),
        ("Pairs", _pairs_text(pairs)),
        *((f"Pairs, {split}", _split_text(counts)) for split, counts in pairs["splits"].items() if counts["pairs"]),
        ("Masks", _masks_text(benchmark, name, folder, keypoints)),
    ]
    agreement = found.get("agreement")
    return Datasheet(
        name,
        tuple(rows),
        found.get("joint_rate") or {},
        _agreement_rows(agreement) if agreement else (),
        f"{agreement['with']}, {agreement['images']:,} images" if agreement else "",
    )


def _images_text(benchmark: Benchmark, name: str, record: ImagesRecord) -> str:
    counts = " and ".join(f"{record.images[s]:,} {s}" for s in ("train", "test"))
    if benchmark.datasets[name].kind == "synthetic":
        return f"{counts} images from the synthetic renderer"
    facts = facts_of(record.kind)
    published = " and ".join(f"{facts['counts'][s]:,} {s}" for s in ("train", "test"))
    whole = f"a part of the published {published}" if record.partial else "all of the published data set"
    text = f"{counts} images, {whole}; from `{record.source}` ({_origin(record.origin)}), {record.layout}"
    if record.checksum:
        same = {True: "the published archive", False: "not the published archive", None: "none is published"}
        text += f"; {record.checksum.replace(':', ' ')} ({same[record.published_archive]})"
    if record.skipped:
        text += f"; {len(record.skipped):,} images could not be decoded and are left out"
    return text


def _origin(origin: str) -> str:
    return {"user": "the user's copy", "data folder": "found in the data folder"}.get(origin, f"fetched from {origin}")


def _sizes_text(benchmark: Benchmark, name: str, folder: ImageFolder) -> str:
    heights, widths = folder.table["height"], folder.table["width"]
    height, width = benchmark.datasets[name].image_size
    used = f"used at {height} × {width}"
    if heights.nunique() == 1 and widths.nunique() == 1:
        size = f"all {heights.iloc[0]} × {widths.iloc[0]} pixels"
        used = used if (heights.iloc[0], widths.iloc[0]) != (height, width) else "used as they are"
    else:
        size = f"heights {heights.min()} to {heights.max()}, widths {widths.min()} to {widths.max()} pixels"
    crop = folder.crop_columns
    return f"{size}{f', columns {crop[0]} to {crop[1] - 1} of the files' if crop else ''}; {used}"


def _keypoints_text(record: dict[str, Any], why: str = "") -> str:
    origin = f"{record['estimator']}, because {why}" if why else record["estimator"]
    text = f"{origin}; {record['detection_rate']:.1%} of {record['images']:,} images have a pose"
    if record.get("weights_sha256"):
        text += f"; images enlarged {record['input_scale']:g} times, weights {record['weights_sha256'][:12]}"
    lowest = sorted((rate, joint) for joint, rate in (record.get("joint_rate") or {}).items())[:2]
    if lowest:
        text += "; rarest: " + ", ".join(f"{joint.replace('_', ' ')} {rate:.0%}" for rate, joint in lowest)
    without = sum(record["without_row"].values())
    if without:
        text += f"; {without:,} images have no row"
    if sum((record.get("respelled_names") or {}).values()):
        text += (
            f"; {sum(record['respelled_names'].values())} names spelled with one `.jpg` more or less than the images"
        )
    if record.get("outside_frame"):
        text += f"; {record['outside_frame']:,} joints lie outside the image"
    return text


def _pairs_text(record: dict[str, Any]) -> str:
    shared = sum(record["identity_overlap"].values())
    text = (
        f"rule `{record['rule']}`; {'no identity' if not shared else f'{shared:,} identities'} on two sides of a split"
    )
    items = record.get("item_overlap")
    if items is not None:
        text += (
            f"; {items['train-test']:,} clothing items stand in train and in test, in other colours: outfits do not "
            "overlap, items do"
        )
    return text


def _split_text(counts: dict[str, Any]) -> str:
    text = f"{counts['pairs']:,} of {counts['identities']:,} identities and {counts['images']:,} images"
    text += f", {counts['targets']:,} distinct targets"
    each = counts.get("pairs_per_identity")
    if each:
        text += f"; {each['minimum']:g} to {each['maximum']:g} an identity, median {each['median']:g}"
    if counts.get("same_camera") is not None:
        text += f"; {counts['same_camera'] / counts['pairs']:.0%} within one camera"
    if counts.get("duplicates"):
        text += f"; {counts['duplicates']:,} stand twice"
    return text


def _masks_text(benchmark: Benchmark, name: str, folder: ImageFolder, keypoints: Keypoints) -> str:
    """Mean share of the image that the masks cover, over all images with a pose: mask metrics move with it."""
    height, width = benchmark.datasets[name].image_size
    settings = benchmark.run_settings(name, benchmark.main_model, benchmark.seeds[0]).masks
    poses = [
        scale_joints(keypoints.of(image), folder.size(image), (height, width))
        for image, seen in zip(keypoints.names, keypoints.present.any(axis=1), strict=True)
        if seen and image in folder.table.index
    ]
    if not poses:
        return "no image has a pose"
    full = np.mean([pose_rendering.pose_mask(joints, height, width, settings.limb_radius).mean() for joints in poses])
    limbs = np.mean([pose_rendering.limb_mask(joints, height, width, settings.limb_radius).mean() for joints in poses])
    metric = np.mean([pose_rendering.metric_mask(joints, height, width).mean() for joints in poses])
    return (
        f"mean area over {len(poses):,} poses: {full:.3f} of the image (the models' full body mask), {limbs:.3f} (PG2's limbs "
        f"alone, radius {settings.limb_radius} px), {metric:.3f} (the metrics' mask, half-width 4 px)"
    )


def _agreement_rows(agreement: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    thresholds = [key for key in agreement if key.startswith("pck@")]
    first = agreement[thresholds[0]]

    def share(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    rows = [("Joint", *(key.upper() for key in thresholds), "Missed", "Extra")]
    rows.append(
        ("all", *(share(agreement[t]["pck"]) for t in thresholds), f"{first['missed']:,}", f"{first['extra']:,}")
    )
    for joint in JOINTS:
        values = [agreement[t]["by_joint"][joint] for t in thresholds]
        rows.append((joint.replace("_", " "), *(share(v["pck"]) for v in values), f"{values[0]['missed']:,}",
                     f"{values[0]['extra']:,}"))  # fmt: skip
    return tuple(rows)
