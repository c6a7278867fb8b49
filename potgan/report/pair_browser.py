"""The per-pair browser of the report: every test pair with its images and scores, in files beside the page.

`write_pairs` writes the folder pairs/<data set>/ of a report: `pairs.js`, the names and scores of all pairs as a script
(a page opened from a disk may load scripts, and may not fetch data), and one strip of pictures per pair,
`strips/<thousand>/<number>.jpg`: source, each method's image, target, side by side. Thus a page of a list sorted by anything
loads as many small files as it shows pairs. `templates/report.js` draws the list.

Strips are JPEG of at most STRIP_HEIGHT pixels, to look at; every number is computed from the lossless images.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from potgan.common.errors import UserError
from potgan.common.files import new_folder
from potgan.common.progress import progress
from potgan.data.pixels import read_image, resize
from potgan.report import tables
from potgan.report.figures import Photos
from potgan.results import Results
from potgan.settings.protocols import METRIC_LABELS, METRICS, PROTOCOLS
from potgan.settings.schema import FIRST_CHECKPOINT_SUFFIX, Benchmark

STRIP_HEIGHT = 128  # pixels; Market-1501's images as they are, DeepFashion's halved
STRIP_QUALITY = 85  # JPEG; colours at half resolution, whose blocks of 16 pixels never cross from picture to picture
STRIPS_A_FOLDER = 1000
#: Digits after the point that the browser keeps and shows: column of per-pair.csv -> digits; others have 4.
DIGITS = {"l1": 2, "psnr": 2}


@dataclass(frozen=True)
class Browser:
    """What the page needs to know of a data set's browser. script: path from the page; missing: why there is none."""

    dataset: str
    label: str
    pairs: int = 0
    script: str = ""
    missing: str = ""


def write_pairs(results: Results, dataset: str) -> Browser:
    """Write pairs/<dataset>/ beside the page, whole or not at all: all test pairs, first seed of each method.

    Raises UserError where an evaluated method lacks its per-pair table or its images, or has other pairs than the rest.
    """
    benchmark, layout = results.benchmark, results.layout
    label = tables.group_label(benchmark, dataset)
    methods = browsed_methods(results, dataset)
    if not methods:
        return Browser(dataset, label, missing="nothing was evaluated on it")
    scores = {m: results.per_pair(results.first(dataset, m)) for m in methods}
    pairs = next(iter(scores.values()))[["from", "to"]]
    for method, frame in scores.items():
        if not frame[["from", "to"]].equals(pairs):
            raise UserError(
                f"{layout.evaluate(dataset, method, benchmark.seeds_of(method)[0])}: was evaluated on other pairs than "
                f"{methods[0]}; evaluate both again"
            )
    # The source and the target are the images of two references; their files would show the same again.
    drawn = [method for method in methods if method != "copy-source"]
    files = {m: results.images(results.first(dataset, m)) for m in drawn}
    photos = Photos(results, dataset, benchmark.datasets[dataset].image_size)
    height, width = strip_size(photos.size)
    with new_folder(layout.reports / "pairs" / dataset) as folder:
        _write_strips(folder, pairs, photos, files, (height, width))
        tree = {
            "strip": {"pictures": ["source", *drawn, "target"], "width": width, "height": height},
            **pair_tree(benchmark, scores),
        }
        content = json.dumps(tree, ensure_ascii=True, separators=(",", ":"))
        script = f"potganPairs({json.dumps(dataset)},{content});\n"
        (folder / "pairs.js").write_text(script, encoding="utf-8")
    return Browser(dataset, label, pairs=len(pairs), script=f"pairs/{dataset}/pairs.js")


def browsed_methods(results: Results, dataset: str) -> list[str]:
    """The methods of the browser, main model first: all that were evaluated, without those whose rows say nothing of a
    pair (the mean image, and the target itself).
    """
    benchmark = results.benchmark
    return [
        method
        for method in benchmark.methods_of(dataset)
        if method not in ("mean-image", "real-data") and results.scores(results.first(dataset, method)) is not None
    ]


def strip_size(size: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of one picture of a strip, for images of that size."""
    height, width = size
    if height <= STRIP_HEIGHT:
        return height, width
    return STRIP_HEIGHT, round(width * STRIP_HEIGHT / height / 16) * 16 or 16


def strip_path(index: int) -> Path:
    """Where the strip of the pair with this place in the pair list lies, in pairs/<data set>/."""
    return Path("strips") / f"{index // STRIPS_A_FOLDER:03d}" / f"{index:06d}.jpg"


def pair_tree(benchmark: Benchmark, scores: dict[str, pd.DataFrame]) -> dict[str, object]:
    """Names and scores as the script holds them. scores: method -> per-pair table, all with the same pairs.

    Values are integers, in units of the metric's last digit: shorter than decimals, and exact. A value that is not
    finite (PSNR of two equal images) is null; a metric that no method has a value of is left out.
    """
    first = next(iter(scores.values()))
    names = sorted({*first["from"], *first["to"]})
    place = {name: i for i, name in enumerate(names)}
    protocol = PROTOCOLS[benchmark.protocol]
    metrics, values = [], {method: [] for method in scores}
    for column in METRICS:
        if not any(np.isfinite(frame[column]).any() for frame in scores.values() if column in frame):
            continue
        digits = DIGITS.get(column, 4)
        metrics.append(
            {
                "name": column,
                "label": METRIC_LABELS[column],
                "protocol": protocol.metric_id(column),
                "lower": METRICS[column] == "lower",
                "digits": digits,
            }
        )
        for method, frame in scores.items():
            values[method].append(_integers(frame.get(column), len(first), digits))
    roles = {method: _role(benchmark, method) for method in scores}
    return {
        "images": names,
        "from": [place[name] for name in first["from"]],
        "to": [place[name] for name in first["to"]],
        "metrics": metrics,
        "methods": [
            {
                "name": method,
                "label": tables.method_label(benchmark, method),
                "role": roles[method],
                "values": values[method],
            }
            for method in scores
        ],
    }


def _integers(column: pd.Series | None, count: int, digits: int) -> list[int | None]:
    if column is None:
        return [None] * count
    scaled = column.to_numpy(np.float64) * 10**digits
    return [round(v) if np.isfinite(v) else None for v in scaled.tolist()]


def _role(benchmark: Benchmark, method: str) -> str:
    """model | external | checkpoint | reference; models and others' results are shown from the start."""
    if method in benchmark.models:
        return "model"
    if method in benchmark.external_methods:
        return "external"
    return "checkpoint" if method.endswith(FIRST_CHECKPOINT_SUFFIX) else "reference"


def _write_strips(
    folder: Path,
    pairs: pd.DataFrame,
    photos: Photos,
    files: dict[str, dict[tuple[str, str], Path]],
    size: tuple[int, int],
) -> None:
    """One JPEG per pair. An image is read again for each pair that it is in, because keeping all would fill the memory."""
    blank = np.full((*size, 3), 127, np.uint8)
    both = list(zip(pairs["from"], pairs["to"], strict=True))
    for index, pair in enumerate(progress(both, len(both), "strips of the pair browser", "pairs")):
        pictures = [resize(photos.image(pair[0]), size)]
        for of_method in files.values():
            pictures.append(resize(read_image(of_method[pair]), size) if pair in of_method else blank)
        pictures.append(resize(photos.image(pair[1]), size))
        strip = cv2.cvtColor(np.hstack(pictures), cv2.COLOR_RGB2BGR)
        path = folder / strip_path(index)
        if index % STRIPS_A_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, STRIP_QUALITY])[1].tobytes())
