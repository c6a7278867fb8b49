"""`potgan score` measures a folder of released results under any protocol, without a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from potgan.common.errors import UserError
from potgan.common.files import new_folder, refuse_to_replace, write_text
from potgan.common.progress import say
from potgan.common.typed import build
from potgan.data.keypoint_files import match_names, read_keypoints
from potgan.data.pairs import read_pairs
from potgan.data.pixels import CROPPED, MARGIN, WHOLE
from potgan.data.pose import Keypoints, refuse_other_frame
from potgan.measure import evaluate as evaluation
from potgan.measure.inception import FeatureNetwork
from potgan.measure.lpips_network import LpipsNetwork, load_lpips
from potgan.measure.released import Results, read_results
from potgan.measure.released_layouts import layout_of
from potgan.settings.protocols import METRIC_LABELS, PROTOCOLS, Protocol, as_they_are, unmet_demands

#: The protocols that `all` stands for. The synthetic classifier is missing, because each benchmark has its own.
SCORED = tuple(name for name, p in PROTOCOLS.items() if p.feature_network != "synthetic-classifier")
#: In place of a pair list: the pairs are read from the names of the result files.
FROM_NAMES = "from-names"
#: The files that a scored folder holds, at its top or in the sub-folder of a protocol.
_SCORES = ("scores.json", "per-pair.csv")
_WRITTEN = (*_SCORES, "sensitivity.csv", "sensitivity.md")


def score_folder(
    images: Path,
    layout: str,
    pair_list: Path,
    protocol: str,
    out: Path,
    targets: Path | None = None,
    keypoint_tables: list[Path] | tuple[Path, ...] = (),
    use: str = "result",
    waive: bool = False,
    panel: str | None = None,
    partial: bool = False,
    keypoints_frame: str | None = None,
) -> str:
    """Measure the results in `images`, write the folder `out`, and return a table to print.

    layout: a name that `potgan.measure.released_layouts.layout_of` knows. panel: the panel that is the result, under a layout whose
    files hold the results of several methods. pair_list: a file, or `from-names` to read the pairs from the names of the files.
    partial: leave out the pairs of the list that have no image.
    keypoints_frame: original | cropped, for results of 256 x 256 or 256 x 176: whether the tables count the pixels of the 256 x 256
    images, or those of the images without their margins. With None the joints tell it.

    protocol: an id, or `all`. use: result | source. With `source`, the source panel of the strips is measured as if it were the
    result. waive: measure also what a protocol refuses (JPEG files, other targets, few images), under the id
    `<protocol>-as-they-are-<targets>`, where targets are `strip` (released with the results) or `dataset`.

    With one protocol, `out` holds `scores.json` and `per-pair.csv`. With `all`, `out` holds one folder with these files per
    protocol, and `sensitivity.{csv,md}` beside them. `out` appears whole or not at all.

    A metric that cannot be measured (no key points for masks, no weights of Inception) has a reason in place of a value.

    Raises UserError for folders that do not fit the pair list, or that the protocol refuses. With `all`, a protocol that refuses
    them is left out, and a message says so. If all protocols refuse them, UserError is raised. It is also raised if `out` holds
    anything that no scoring wrote, because `out` is replaced.
    """
    if protocol != "all" and protocol not in SCORED:
        raise UserError(f"score: no protocol {protocol!r}; there are all, {', '.join(SCORED)}")
    refuse_to_replace(out, "scoring", _is_ours)
    layout = layout if panel is None else f"{layout}:{panel}"
    numbered = layout_of(layout).numbered
    listed = None if str(pair_list) == FROM_NAMES else read_pairs(pair_list)
    if numbered and listed is None and keypoint_tables:
        raise UserError(
            f"{images}: its files are named by numbers, which have no key points; name the pair list with --pairs"
        )
    want = ("result", "target") if use == "result" else ("result", "target", "source")
    results = read_results(images, layout, listed, targets, want, partial)
    if use == "source" and results.source_panels is None:
        raise UserError(f"{images}: its files are single images without a source panel; --use source needs strips")
    generated = results.generated if use == "result" else results.source_panels
    pairs = results.pairs
    if listed is not None and len(pairs) < len(listed):
        say(f"{images}: measures the {len(pairs):,} of {len(listed):,} pairs that have an image")
    joints = _joints(keypoint_tables, pairs, generated.shape[1:3], keypoints_frame)
    _, _, shown_panel = layout.partition(":")
    told = {
        "method": f"{images.name}/{shown_panel}" if shown_panel else images.name,
        "n_pairs": len(pairs),
        "origin": {
            "images": images.name,
            "layout": layout,
            "panels": results.panels,
            "file_format": results.file_format,
            "use": use,
            "pairs": FROM_NAMES if listed is None else "list",
        },
        "hashes": {"generated": results.sha256},
        "versions": evaluation.versions(),
    }
    measured_with: dict[int, dict[str, str | None]] = {}  # protocols share one or two arrays of targets
    measured: dict[str, tuple[dict[str, Any], pd.DataFrame]] = {}
    refusals = []
    network, absent = _inception()
    lpips = load_lpips()
    for name in SCORED if protocol == "all" else (protocol,):
        try:
            chosen, real = _targets(PROTOCOLS[name], results, images, waive)
            if id(real) not in measured_with:
                measured_with[id(real)] = evaluation.measured_with(pairs, real, joints)
            record, per_pair = _measure(chosen, generated, real, joints, network, absent, pairs, lpips)
            record["hashes"] = told["hashes"] | record["hashes"]
            record["origin"] = told["origin"] | {"targets": _targets_origin(results, real)}
            measured[name] = told | record | {"measured_with": measured_with[id(real)]}, per_pair
        except UserError as error:
            if protocol != "all":
                raise
            refusals.append(f"{name}: {error}")
    if not measured:
        raise UserError(f"{images}: no protocol takes these results ({'; '.join(refusals)})")
    for line in refusals:
        say(f"left out {line}")
    text = _table([record for record, _ in measured.values()])
    with new_folder(out) as folder:
        for name, (record, per_pair) in measured.items():
            where = folder / name if protocol == "all" else folder
            evaluation.write_scores(where, build(evaluation.Scores, record, "scores.json"), per_pair)
        if protocol == "all":
            write_text(folder / "sensitivity.md", text)
            write_text(folder / "sensitivity.csv", _long([record for record, _ in measured.values()]))
    return text


def _is_ours(path: Path) -> bool:
    """Return whether an earlier scoring wrote `path`, which is an entry of the folder `out`."""
    if path.name in SCORED and path.is_dir():
        return all(inner.name in _SCORES and inner.is_file() for inner in path.iterdir())
    return path.name in _WRITTEN and path.is_file()


def _targets(protocol: Protocol, results: Results, images: Path, waive: bool) -> tuple[Protocol, np.ndarray]:
    """Return the protocol as it is measured, and the targets that it measures against.

    Where there are both, a protocol that demands the targets of strips gets those, and every other one the data set's own.

    Raises UserError if there are no targets. It is also raised, unless `waive` is set, if the results do not meet the demands of
    the protocol, or if of results and released targets one are PNG and the others JPEG files.
    """
    released = results.targets is None or (protocol.targets == "strip" and results.released_targets is not None)
    real = results.released_targets if released else results.targets
    if real is None:
        raise UserError(f"{images}: its files hold no targets; name the folder of the data set's images with --targets")
    kind = "strip" if released else "dataset"
    unmet = unmet_demands(protocol, results.file_format, kind)
    if released and results.by_number and results.target_format != results.file_format:
        unmet.append(f"holds {results.file_format.upper()} files, and its targets are {results.target_format.upper()}")
    if not unmet:
        return protocol, real
    if not waive:
        more = "; name the data set's images with --targets" if released and protocol.targets == "dataset" else ""
        raise UserError(
            f"{images}: {'; '.join(unmet)}{more}, or measure them --as-they-are, which gives the id another name"
        )
    return as_they_are(protocol, kind), real


def _targets_origin(results: Results, real: np.ndarray) -> str:
    """Return where the targets `real` come from: dataset | strip | numbers."""
    if real is results.targets:
        return "dataset"
    return "numbers" if results.by_number else "strip"


def _measure(
    protocol: Protocol,
    generated: np.ndarray,
    real: np.ndarray,
    joints: tuple[np.ndarray, np.ndarray] | None,
    network: FeatureNetwork | None,
    absent: str,
    pairs: pd.DataFrame,
    lpips: LpipsNetwork | str,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return what one protocol adds to the record, and the per-pair table."""
    masks = None
    if joints is not None:
        owner = joints[protocol.mask_owner == "target"]
        masks = evaluation.masks_of(owner, generated.shape[1:3], protocol)
    if len(generated) < max(protocol.inception_splits, protocol.minimum_n) and network is not None:
        # For a few released images, the metrics without a network are still worth measuring.
        network, absent = (
            None,
            f"protocol {protocol.id} wants at least {max(protocol.minimum_n, 10):,} images",
        )
    metrics, per_pair = evaluation.evaluate(
        generated, real, masks, pairs, network, protocol, absent=absent, lpips=lpips
    )
    record = {
        "protocol": protocol.record,
        "metrics": metrics,
        "mask_area": None if masks is None else float(masks.mean()),
        "hashes": {
            "feature_network": None if network is None else network.weights_sha256,
            "lpips_network": None if isinstance(lpips, str) else lpips.weights_sha256,
        },
    }
    return record, per_pair


def _joints(
    tables: list[Path] | tuple[Path, ...], pairs: pd.DataFrame, size: tuple[int, int], frame: str | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the joints (N, 18, 2) of the sources and those of the targets, in pixels of the results. None if there are no tables.

    size: (height, width) of the results. frame: see `score_folder`.

    Raises UserError if an image has no row in the tables, and as `_in_frame` does.
    """
    if not tables:
        return None
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for path in tables:
        table = read_keypoints(path)
        found |= dict(zip(table.names, zip(table.joints, table.confidence, strict=True), strict=True))
    where = ", ".join(str(path) for path in tables)
    wanted = list(dict.fromkeys([*pairs["from"], *pairs["to"]]))
    name_of = match_names(wanted, found)
    missing = [name for name in wanted if name not in name_of]
    if missing:
        raise UserError(
            f"{where}: {len(missing):,} of {len(wanted):,} images have no key points (first: {missing[0]}); name the tables of all "
            "of them"
        )
    rows = [found[name_of[name]] for name in wanted]
    table = _in_frame(Keypoints(wanted, *(np.stack(column) for column in zip(*rows, strict=True))), size, frame, where)
    return tuple(np.stack([table.of(name) for name in pairs[column]]) for column in ("from", "to"))


def _in_frame(table: Keypoints, size: tuple[int, int], frame: str | None, where: str) -> Keypoints:
    """Return the key points in the frame of results with `size` (height, width).

    Results of 256 x 256 and of 256 x 176 have tables of two frames: that of the 256 x 256 images, and that of the images without
    their margins. The joints move as the columns do. Without a declared `frame` the joints must fit exactly one of them.

    Raises UserError for key points that fit no frame, or both, and for a declared frame that they do not fit.
    """
    if not table.present.any():  # no joint has a frame
        return table
    if size == WHOLE:
        frames = {"original": table, "cropped": _moved(table, MARGIN)}
    elif size == CROPPED:
        frames = {"cropped": table, "original": _moved(table, -MARGIN)}
    elif frame is None:
        frames = {"results": table}
    else:
        raise UserError(
            f"--keypoints-frame is for results of 256 x 256 or 256 x 176, and these are {size[0]} x {size[1]}; leave it out"
        )
    fitting, refusal = [], None
    for name in frames if frame is None else (frame,):
        try:
            refuse_other_frame(frames[name], [size] * len(table), where)
            fitting.append(name)
        except UserError as error:
            refusal = refusal or error
    if not fitting:
        raise refusal
    if len(fitting) > 1:
        raise UserError(
            f"{where}: its joints fit both the 256 x 256 images and those of 256 x 176 without margins; say which with "
            "--keypoints-frame original or cropped"
        )
    return frames[fitting[0]]


def _moved(table: Keypoints, columns: int) -> Keypoints:
    """Return the table with all joints moved to the right by that many pixels."""
    return Keypoints(table.names, table.joints + np.float32([columns, 0]), table.confidence)


def _inception() -> tuple[FeatureNetwork | None, str]:
    """Return (network, ""), or (None, the reason) if the network cannot be loaded.

    This is no error, because the other metrics can be measured without the network.
    """
    from potgan.common.device import pick_device
    from potgan.common.weights import weight_file
    from potgan.measure.inception import InceptionNetwork

    try:
        return InceptionNetwork(weight_file("inception-2015-12-05"), pick_device()), ""
    except UserError as error:
        say(f"without IS, FID and KID: {error}")
        return None, "the weights of inception-2015-12-05 are not here"


def _table(records: list[dict[str, Any]]) -> str:
    """Return Markdown with one row per protocol and one column per metric.

    A dash marks what was not measured. The reasons and the warnings stand below the table.
    """
    names = [
        name for name in METRIC_LABELS if any(r["metrics"].get(name, {}).get("value") is not None for r in records)
    ]
    first = records[0]
    lines = [
        f"{first['method']}: {first['n_pairs']:,} pairs, {first['origin']['file_format']}, layout {first['origin']['layout']}, "
        f"{first['origin']['panels']} panels, measuring the {first['origin']['use']}",
        "",
        "| Protocol | " + " | ".join(METRIC_LABELS[name] for name in names) + " |",
        "|---" + "|---:" * len(names) + "|",
    ]
    for record in records:
        values = [record["metrics"][name]["value"] for name in names]
        cells = ["–" if value is None else f"{value:.3f}" for value in values]
        lines.append(f"| {record['protocol']['id']} | " + " | ".join(cells) + " |")
    reasons = {e["reason"] for r in records for e in r["metrics"].values() if e["value"] is None and e.get("reason")}
    lines += ["", *(f"not measured: {reason}  " for reason in sorted(reasons))]
    warnings = {
        f"{METRIC_LABELS[n]}: {e['warning']}" for r in records for n, e in r["metrics"].items() if e.get("warning")
    }
    lines += [f"warning: {line}  " for line in sorted(warnings)]
    return "\n".join(lines).rstrip() + "\n"


def _long(records: list[dict[str, Any]]) -> str:
    rows = [
        {"protocol": r["protocol"]["id"], "metric": name, "metric_id": e["protocol"], "value": e["value"], "n": e["n"],
         "reason": e.get("reason", "")}
        for r in records
        for name, e in r["metrics"].items()
    ]  # fmt: skip
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
