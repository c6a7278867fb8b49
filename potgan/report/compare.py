"""`potgan compare`: what differs between two or more runs, in settings and in scores, as people look at ablations.

A run is given as its folder (`results/<benchmark>/<data set>/<method>/seed<k>`), its `evaluate` folder, its `scores.json`, or
a folder that `potgan score` wrote, also one with a sub-folder for each protocol. Every run is set against the first one.
Scores are subtracted only where both were measured under the same version of the same protocol. Where both have the same
pairs, a metric that is a mean over pairs gets a 95 % bootstrap interval of the paired difference.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from potgan.common.errors import UserError
from potgan.common.typed import flattened
from potgan.measure.evaluate import Scores
from potgan.measure.generate import GenerationRecord
from potgan.report.tables import interval_over_people, read_published, signed
from potgan.settings.protocols import METRIC_LABELS
from potgan.settings.reading import load
from potgan.training.record import TrainingRecord

#: Parts of `scores.json` that are compared as settings: how a score came about.
_PROVENANCE = (
    "benchmark",
    "dataset",
    "method",
    "seed",
    "iteration",
    "n_pairs",
    "hashes",
    "measured_with",
    "versions",
    "device",
    "origin",
)

#: What `measured_with` in `scores.json` holds hashes of.
_MEASURED_WITH = {
    "measured_with.pairs": "pair lists",
    "measured_with.keypoints": "key points of these images",
    "targets": "target images",
}


@dataclass(frozen=True)
class Measurement:
    """One `scores.json` and the `per-pair.csv` beside it (None where it is not there)."""

    scores: Scores
    per_pair: pd.DataFrame | None

    @property
    def protocol(self) -> tuple[str, str]:
        """(id, hash)"""
        return str(self.scores.protocol["id"]), str(self.scores.protocol["hash"])


@dataclass(frozen=True)
class Run:
    """One run. name: as printed; settings: dotted key -> value; measurements: protocol id -> its scores."""

    name: str
    settings: dict[str, Any]
    measurements: dict[str, Measurement]
    folder: Path = Path()


@dataclass(frozen=True)
class Difference:
    """One metric of one run, beside the first run's.

    difference: this run minus the first, None where it is refused; low, high: 95 % interval of the paired difference, None
    where there is none; note: why not, and the warning of the measurement.
    """

    run: str
    value: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    n_pairs: int | None = None
    note: str = ""


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def read_runs(paths: list[Path]) -> list[Run]:
    """The runs in the order given; each name is the shortest end of its path that tells them apart.

    Raises UserError where fewer than two are given, and for a path that is no run.
    """
    if len(paths) < 2:
        raise UserError("compare: name at least two runs")
    found = [_measurements(Path(path)) for path in paths]
    names = names_of([folder for folder, _ in found])
    return [
        Run(name, _settings(folder, measurements), measurements, folder)
        for name, (folder, measurements) in zip(names, found, strict=True)
    ]


def _measurements(path: Path) -> tuple[Path, dict[str, Measurement]]:
    """(folder of the run, protocol id -> measurement)."""
    if not path.exists():
        raise UserError(f"{path}: does not exist; name a run's folder")
    if (path / "config.yaml").is_file() and not (path / "scores.json").is_file():
        raise UserError(f"{path}: is a whole benchmark; add --out DIR for a page, or name runs of it")
    if path.is_file():
        files, folder = [path], path.parent
    else:
        files = next(
            (found for pattern in ("scores.json", "evaluate/scores.json", "*/scores.json")
             if (found := sorted(path.glob(pattern)))),
            [],
        )  # fmt: skip
        folder = path
    if not files:
        raise UserError(f"{path}: is no run: it has no scores.json; name a run's folder, or evaluate it first")
    measurements: dict[str, Measurement] = {}
    for file in files:
        scores = Scores.read(file)
        table = file.with_name("per-pair.csv")
        per_pair = read_table(table, "table of pairs", ("from", "to"), "evaluate again") if table.is_file() else None
        measurement = Measurement(scores, per_pair)
        name, _ = measurement.protocol
        if name in measurements:
            raise UserError(f"{path}: holds several runs of protocol {name}; name one of them")
        measurements[name] = measurement
    return folder.parent if folder.name == "evaluate" else folder, measurements


def read_table(path: Path, what: str, columns: Collection[str], again: str) -> pd.DataFrame:
    """A CSV file of a run. Raises UserError where it is damaged or lacks one of the columns. what: its name in that message; again:
    what makes it anew.
    """
    try:
        frame = pd.read_csv(path, dtype={"from": str, "to": str})
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError):
        raise UserError(f"{path}: is no {what}; delete it and {again}") from None
    missing = sorted(set(columns) - set(frame.columns))
    if missing:
        raise UserError(f"{path}: has no column {', '.join(missing)}; delete it and {again}")
    return frame


def same_pairs(tables: Sequence[pd.DataFrame]) -> bool:
    """Whether per-pair tables have the same pairs in the same order."""
    return all(table[["from", "to"]].equals(tables[0][["from", "to"]]) for table in tables)


def names_of(folders: list[Path]) -> list[str]:
    parts = [folder.resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(p[-count:]) for p in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]  # the same run twice


def _settings(folder: Path, measurements: dict[str, Measurement]) -> dict[str, Any]:
    """What decided a run: its training's own record, or else the resolved configuration; and its provenance."""
    scores = next(iter(measurements.values())).scores
    settings: dict[str, Any] = {}
    done, configuration = folder / "train" / "done.json", folder.parent.parent.parent / "config.yaml"
    if done.is_file():
        settings = dict(TrainingRecord.read(done).settings)
    elif configuration.is_file() and scores.dataset:
        benchmark = load(configuration)
        # A row that shares another's training, such as a first checkpoint, has no folder `train` of its own.
        if scores.dataset in benchmark.datasets and benchmark.model_of(scores.method) in benchmark.models:
            model = benchmark.model_of(scores.method)
            run = benchmark.run_settings(scores.dataset, model, scores.seed)
            settings = json.loads(json.dumps(dataclasses.asdict(run)))
    generated = folder / "generate" / "generate.json"
    if generated.is_file():
        record = GenerationRecord.read(generated)
        if record.origin is not None:
            settings["images"] = {"origin": record.origin, "layout": record.layout, "file_format": record.file_format}
    settings |= {key: value for key in _PROVENANCE if (value := getattr(scores, key)) not in (None, {})}
    # Protocols of one run may have other targets: the data set's images, or the panels of strips.
    settings["measured_with"] = {k: v for k, v in settings.get("measured_with", {}).items() if k != "targets"}
    settings["targets"] = {
        id_: sha256
        for id_, one in measurements.items()
        if (sha256 := one.scores.measured_with.get("targets")) is not None
    }
    settings["protocol"] = {id_: measurement.protocol[1] for id_, measurement in measurements.items()}
    return flattened(settings)


# ---------------------------------------------------------------------------------------------------------------------
# Comparing


def differing_settings(runs: list[Run]) -> dict[str, list[Any]]:
    """Setting -> its value in each run (None where a run has no such setting), for the settings that are not all equal."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    values = {key: [run.settings.get(key) for run in runs] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def measured_with_others(runs: list[Run]) -> list[str]:
    """A sentence for each thing that the runs were measured with and that differs between them.

    A run whose scores do not tell, because an earlier version wrote them, differs from none.
    """
    found = {}
    for key, row in differing_settings(runs).items():
        name = _MEASURED_WITH.get("targets" if key.startswith("targets.") else key)
        if name and len({value for value in row if value is not None}) > 1:
            found[name] = f"The runs were measured with different {name}."
    return list(found.values())


def score_differences(runs: list[Run]) -> dict[tuple[str, str], list[Difference]]:
    """(protocol id, metric) -> each run's value; from the second on with its difference from the first run's.

    A run that was not measured under that protocol has its value under its own, side by side, and no difference.
    """
    keys = dict.fromkeys(
        (id_, metric)
        for run in runs
        for id_, measurement in run.measurements.items()
        for metric in measurement.scores.metrics
    )
    found: dict[tuple[str, str], list[Difference]] = {}
    for id_, metric in keys:
        first = runs[0].measurements.get(id_)
        found[id_, metric] = [_difference(first, run, id_, metric, is_first=run is runs[0]) for run in runs]
    return found


def _difference(first: Measurement | None, run: Run, id_: str, metric: str, is_first: bool) -> Difference:
    found = _subtracted(first, run, id_, metric, is_first)
    mine = run.measurements.get(id_)
    entry = mine.scores.metrics.get(metric) if mine else None
    if entry is None or not entry.warning:
        return found
    return dataclasses.replace(found, note="; ".join(filter(None, (found.note, entry.warning))))


def _subtracted(first: Measurement | None, run: Run, id_: str, metric: str, is_first: bool) -> Difference:
    mine = run.measurements.get(id_)
    if mine is None:
        return Difference(run.name, None, note=f"not comparable: measured under {', '.join(run.measurements)}")
    entry, n_pairs = mine.scores.metrics.get(metric), mine.scores.n_pairs
    value = entry.value if entry else None
    if is_first:
        return Difference(run.name, value, n_pairs=n_pairs, note=_absent(mine, metric))
    if first is None:
        return Difference(run.name, value, n_pairs=n_pairs, note="not comparable: the first run has another protocol")
    other = first.scores.metrics.get(metric)
    if value is None or other is None or other.value is None:
        note = _absent(mine, metric) or f"the first run: {_absent(first, metric)}"
        return Difference(run.name, value, n_pairs=n_pairs, note=note)
    if mine.protocol != first.protocol or entry.protocol != other.protocol:
        note = f"not comparable: another version of protocol {id_}"
        return Difference(run.name, value, n_pairs=n_pairs, note=note)
    difference, low, high, note = value - other.value, None, None, ""
    tables = (mine.per_pair, first.per_pair)
    if all(table is not None and metric in table for table in tables):
        if same_pairs(tables):
            paired = (tables[0][metric] - tables[1][metric]).to_numpy()
            low, high, _, n_people = interval_over_people(paired, tables[0]["from"])
            if low is None:
                note = f"no interval: {n_people} people are too few"
        else:
            note = "other pairs: no interval"
    else:
        note = "of the whole set: no interval"
    return Difference(run.name, value, difference, low, high, n_pairs, note)


def _absent(measurement: Measurement, metric: str) -> str:
    """Why a value is not there; empty where it is."""
    entry = measurement.scores.metrics.get(metric)
    if entry is not None and entry.value is not None:
        return ""
    return f"not measured: {(entry.reason if entry else None) or 'the scores hold no value'}"


# ---------------------------------------------------------------------------------------------------------------------
# Printing


def as_tree(runs: list[Run], scores: dict[tuple[str, str], list[Difference]] | None = None) -> dict[str, Any]:
    """What `--json` writes. scores: other ones than those of these runs, such as means over seeds."""
    return {
        "runs": [run.name for run in runs],
        "settings": differing_settings(runs),
        "measured_with": measured_with_others(runs),
        "scores": [
            {"protocol": id_, "metric": metric, "runs": [dataclasses.asdict(entry) for entry in row]}
            for (id_, metric), row in (score_differences(runs) if scores is None else scores).items()
        ],
    }


def text(runs: list[Run], published: str | None = None) -> str:
    """What is printed. published: a data set of the paper whose literature rows are added below."""
    settings = differing_settings(runs)
    lines = [f"({number}) {run.name}" for number, run in enumerate(runs, 1)]
    heads = [f"({number})" for number in range(1, len(runs) + 1)]
    lines += ["", "Settings that differ" if settings else "No setting differs"]
    lines += _aligned(
        [[key, *map(shown_value, row)] for key, row in settings.items()], ["", *heads] if settings else []
    )
    if different := measured_with_others(runs):
        lines += ["", *different]
    lines += ["", "Scores, and what a run has more than the first; in brackets its 95 % interval over people"]
    rows, notes = [], {}
    for (id_, metric), row in score_differences(runs).items():
        cells = [f"{METRIC_LABELS.get(metric, metric)} ({id_})"]
        for entry in row:
            cell = "–" if entry.value is None else f"{entry.value:.3f}"
            if entry.difference is not None:
                interval = "" if entry.low is None else f" [{signed(entry.low)}, {signed(entry.high)}]"
                cell += f"  {signed(entry.difference)}{interval}"
            if entry.note:
                cell += f"  {notes.setdefault(entry.note, len(notes) + 1)})"
            cells.append(cell)
        rows.append(cells)
    lines += _aligned(rows, ["", *heads])
    lines += [f"{number}) {note}" for note, number in notes.items()]
    if any(len(run.measurements) > 1 for run in runs) or published:
        lines += ["", "SSIM under every protocol; columns do not compare with each other", *_matrix(runs, published)]
    return "\n".join(lines) + "\n"


def _matrix(runs: list[Run], published: str | None) -> list[str]:
    """Rows: the runs and the literature. Columns: protocols, and the value as published with its table."""
    protocols = list(dict.fromkeys(id_ for run in runs for id_ in run.measurements))
    rows = []
    for run in runs:
        cells = [run.name]
        for id_ in protocols:
            measurement = run.measurements.get(id_)
            entry = measurement.scores.metrics.get("ssim") if measurement else None
            cells.append("–" if not entry or entry.value is None else f"{entry.value:.3f}")
        rows.append([*cells, ""])
    if published:
        frame = read_published()
        frame = frame[(frame["dataset"] == published) & (frame["metric"] == "ssim")].drop_duplicates("row")
        if not len(frame):
            raise UserError(f"compare: no published SSIM on {published!r}; there is market1501, dukemtmc, deepfashion")
        for entry in frame[frame["role"] == "literature"].itertuples():
            rows.append([entry.row, *("–" for _ in protocols), f"{entry.value:.3f} (table {entry.table} of the paper)"])
    return _aligned(rows, ["", *protocols, "as published" if published else ""])


def _aligned(rows: list[list[str]], head: list[str]) -> list[str]:
    """Columns padded to the same width; nothing for no rows."""
    if not rows:
        return []
    rows = [head, *rows]
    widths = [max(len(row[j]) for row in rows) for j in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def shown_value(value: Any) -> str:
    """A setting as printed: hashes and other long texts by their first 12 characters."""
    shown = "–" if value is None else value if isinstance(value, str) else json.dumps(value)
    return shown if len(shown) <= 40 else f"{shown[:12]}…"
