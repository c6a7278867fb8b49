"""TABLE I-IV and the ablation comparison, from every `scores.json` of a benchmark and the numbers the paper prints.

The order of this module: `collect` reads the scores into one long frame, `build_tables` lays them out as the paper does,
`markdown` and `latex` print a table, `compare` and `ablations` look at paired differences, `sensitivity` sets the same
images under all protocols side by side, `write_tables` writes all.

Three rules decide the layout. A value is set beside the paper's only if it was measured on the paper's data set under the
paper's protocol; anything else has columns of its own with the protocol's id in their heads. A cell without a number says
why. And where a value stands beside the paper's, the cell has a verdict, which also may be that nothing can be said.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from potgan.common.errors import UserError
from potgan.common.files import write_text
from potgan.common.paths import PUBLISHED
from potgan.data.pairs import camera_of, people_of
from potgan.results import SENSITIVITY_METRICS, Results
from potgan.results import Row as ResultRow
from potgan.settings import precision
from potgan.settings.layout import Layout
from potgan.settings.protocols import IMAGE_METRICS, METRIC_LABELS, METRICS, PROTOCOLS, unmet_demands
from potgan.settings.schema import FIRST_CHECKPOINT_SUFFIX, Benchmark

#: The protocol whose numbers may stand beside the paper's, and the paper's data sets.
PAPER_PROTOCOL = "potgan"
PAPER_DATASETS = {"market1501": "Market-1501", "dukemtmc": "DukeMTMC", "deepfashion": "DeepFashion"}
#: Metrics that are a mean over pairs, so that an interval over pairs means something.
PER_PAIR_METRICS = IMAGE_METRICS
BOOTSTRAP_RESAMPLES = 2000
#: Of fewer people there is no interval: with 12 of them an interval of 95 % excludes a true difference of 0 in 12 % of cases.
FEWEST_PEOPLE = 20
BOOTSTRAP_SEED = 0

_FOUR = ("ssim", "is", "mask_ssim", "mask_is")
_TWO = ("ssim", "is")
_TITLES = {
    1: "Comparison with the literature on Market-1501 and DeepFashion",
    2: "Comparison with the literature on DukeMTMC",
    3: "Comparison with the literature in terms of FID; lower is better",
    4: "Ablation of L_recon over three data sets",
}
#: Printed beside the paper's columns where it is measured. Whole-image SSIM is ruled by the background, which no method can know.
_BESIDE = "foreground_ssim"
#: Table -> data set (or kind of data set) -> metrics, in the paper's order.
_COLUMNS = {
    1: {"market1501": _FOUR, "deepfashion": _TWO},
    2: {"dukemtmc": _FOUR},
    3: {"market1501": ("fid", "mask_fid"), "dukemtmc": ("fid", "mask_fid"), "deepfashion": ("fid",)},
    4: {"market1501": _FOUR, "dukemtmc": _FOUR, "deepfashion": _TWO},
}
_REFERENCE_LABELS = {
    "copy-source": "Copy of the source image",
    "mean-image": "Mean training image",
    "real-data": "Real data",
}
_INTERVENTION_LABELS = {
    "identity-warps": "with identity warps",
    "mean-warp": "with the mean warp",
    "other-warps": "with another pair's warps",
    "true-flow": "with the true flow",
}
#: The tables that compare with the literature, and the methods that have another name in `published.csv` than among `models`.
_LITERATURE_TABLES = (1, 2, 3)
_LITERATURE_NAMES = {"deformable": "deform"}
ROMAN = {1: "I", 2: "II", 3: "III", 4: "IV"}


@dataclass(frozen=True)
class Column:
    """One metric on one data set. `comparable` columns are the paper's; the others are ours alone."""

    dataset: str
    group: str  # heading over the data set's columns
    metric: str
    protocol: str  # id of the metric's protocol
    comparable: bool

    @property
    def head(self) -> str:
        """The metric's name; with the protocol's id where it is not how the paper's protocol measures it."""
        label = METRIC_LABELS[self.metric]
        return f"{label} ({self.own_id})" if self.own_id else label

    @property
    def own_id(self) -> str:
        """The protocol id of the metric where it is not the paper's, else an empty text."""
        return "" if self.protocol == PROTOCOLS[PAPER_PROTOCOL].metric_id(self.metric) else self.protocol


@dataclass(frozen=True)
class Row:
    """One method. role: literature | external (its released images, scored here) | retrained (a method of the literature, trained
    here) | ours (PoT-GAN and its ablations) | intervention | checkpoint | reference | real.

    paper_method: the row of `published.csv` whose values are the paper's for this row. origin: where a literature row's
    values stand, such as "TABLE I of the paper".
    """

    label: str
    method: str
    role: str
    paper_method: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Cell:
    """What one table cell knows. Numbers are None where there is none; then `reason` says why."""

    value: float | None = None  # ours, mean over seeds
    sd: float | None = None  # sample standard deviation over seeds; None for one seed
    n_seeds: int = 0
    n_pairs: int | None = None
    paper_value: float | None = None
    mark: str = ""  # best | second: literature as printed, ours among the trained rows of the column
    reason: str = ""
    verdict: str = ""  # within | not within | not comparable; empty where the paper has no value for this cell
    note: str = ""  # what must be said of a number: why it has no verdict, or that the paper's own is doubtful
    warning: str = ""  # of the measurement, e.g. that FID of so few images is biased

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.value is None or self.paper_value is None else self.value - self.paper_value


@dataclass(frozen=True)
class Table:
    """A table of the paper with our numbers in it. cells[i][j] belongs to rows[i] and columns[j]."""

    number: int
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    cells: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...]  # per data set: number of pairs, protocol ids
    reading: str  # how to read values, marks and parentheses; the same for all tables

    @property
    def name(self) -> str:
        return f"TABLE {ROMAN[self.number]}"

    @property
    def groups(self) -> list[tuple[str, int]]:
        """(heading, number of columns) of each run of columns of one data set."""
        runs: list[tuple[str, int]] = []
        for column in self.columns:
            if runs and runs[-1][0] == column.group:
                runs[-1] = (column.group, runs[-1][1] + 1)
            else:
                runs.append((column.group, 1))
        return runs

    @property
    def reasons(self) -> dict[str, str]:
        """footnote -> its mark (a, b, ...), in reading order."""
        found = dict.fromkeys(text for row in self.cells for cell in row for text in _footnotes(cell))
        return {reason: _letters(index) for index, reason in enumerate(found)}

    @property
    def not_run(self) -> list[str]:
        """The headings of the columns in which no method of this run has a value."""
        kept = self._run_columns
        return list(dict.fromkeys(column.group for j, column in enumerate(self.columns) if j not in kept))

    @property
    def of_this_run(self) -> Table:
        """The columns in which a method of this run has a value, and the rows that have a number there."""
        kept = self._run_columns
        rows = [
            i for i, cells in enumerate(self.cells)
            if any(value is not None for j in kept for value in (cells[j].value, cells[j].paper_value))
        ]  # fmt: skip
        return replace(
            self,
            columns=tuple(self.columns[j] for j in kept),
            rows=tuple(self.rows[i] for i in rows),
            cells=tuple(tuple(self.cells[i][j] for j in kept) for i in rows),
        )

    @property
    def _run_columns(self) -> list[int]:
        return [j for j in range(len(self.columns)) if any(cells[j].value is not None for cells in self.cells)]

    def marks(self, cell: Cell) -> str:
        """The footnote marks of a cell, such as "a" or "a,c"; empty for none."""
        return ",".join(self.reasons[text] for text in _footnotes(cell))


def _footnotes(cell: Cell) -> list[str]:
    """What stands below the table of a cell. That one value has no verdict is said once, in the table's `reading`."""
    return [text for text in dict.fromkeys((cell.reason, cell.note, cell.warning)) if text and text != _ONE_VALUE]


def _letters(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else _letters(index // 26 - 1) + _letters(index % 26)


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def collect(results: Results) -> pd.DataFrame:
    """All scores of a benchmark, one row per (data set, method, seed, metric).

    Columns: dataset, method, seed, iteration, metric, protocol, value, spread (of IS over its splits), n (images or
    pairs behind the value), warning (of the measurement, or empty), n_pairs, protocol_hash. Runs that were not
    evaluated are left out; the tables say so.
    Raises UserError if nothing was evaluated, or if two runs were measured under different versions of the protocol.
    """
    benchmark, layout = results.benchmark, results.layout
    records = []
    for row in results.rows():
        scores = results.scores(row)
        for metric, entry in (scores.metrics if scores else {}).items():
            records.append(
                row.__dict__
                | {
                    "iteration": scores.iteration,
                    "metric": metric,
                    "protocol": entry.protocol,
                    "value": _number(entry.value),
                    "spread": _number(entry.spread),
                    "n": entry.n,
                    "warning": entry.warning or "",
                    "n_pairs": scores.n_pairs,
                    "protocol_hash": scores.protocol["hash"],
                }
            )
    if not records:
        raise UserError(f"{layout.results}: holds no scores.json of benchmark {benchmark.benchmark!r}; evaluate first")
    frame = pd.DataFrame.from_records(records)
    hashes = frame.groupby("protocol_hash", sort=False).first()
    if len(hashes) > 1:
        where = ", ".join(f"{h} ({row.dataset}/{row.method}/seed{row.seed})" for h, row in hashes.iterrows())
        raise UserError(f"{layout.results}: scores of different versions of the protocol: {where}; evaluate all again")
    return frame


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def read_published(path: str | Path = PUBLISHED) -> pd.DataFrame:
    """The numbers of the paper's TABLE I-IV.

    Columns: table (1-4), row (as printed), method (our name), dataset, metric, value, mark (best, second or empty),
    role (literature, ours, real), note. Raises UserError for a missing file or another header.
    """
    try:
        frame = pd.read_csv(path, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path}: the published numbers are missing; they are part of the repository") from None
    expected = ["table", "row", "method", "dataset", "metric", "value", "mark", "role", "note"]
    if list(frame.columns) != expected:
        raise UserError(f"{path}: header is {','.join(frame.columns)!r}; expected {','.join(expected)!r}")
    return frame


# ---------------------------------------------------------------------------------------------------------------------
# TABLE I-IV


def build_tables(results: Results, published: pd.DataFrame) -> list[Table]:
    """TABLE I-IV with the paper's rows and columns, our rows in them, and columns of our own where they do not compare.

    published: as from `read_published`. The paper's columns are always there; a data set of the benchmark that is not
    one of the paper's (or was measured under another protocol) gets its own columns in the tables of its kind,
    synthetic people in those of Market-1501. Raises UserError as `collect` does, and for an external method's `table_row`
    that is no literature row.
    """
    benchmark = results.benchmark
    known = sorted(set(published.loc[published["role"] == "literature", "method"]))
    for name, entry in benchmark.external_methods.items():
        if entry.table_row is not None and entry.table_row not in known:
            raise UserError(
                f"external_methods.{name}.table_row: no literature row {entry.table_row!r}; there are {', '.join(known)}"
            )
    scores = collect(results)
    detected = _detected(results)
    return [_build_table(number, benchmark, scores, published, detected) for number in _COLUMNS]


def _detected(results: Results) -> dict[str, str]:
    """Data set -> the estimator of its key points, for those on which it is another than the literature's OpenPose."""
    found = {}
    for name, dataset in results.benchmark.datasets.items():
        if dataset.kind != "synthetic" and (results.layout.keypoints(name) / "keypoints.json").exists():
            estimator = results.keypoints_record(name)["estimator"]
            if "OpenPifPaf" in estimator:
                found[name] = estimator
    return found


def is_comparable(benchmark: Benchmark, dataset: str) -> bool:
    """Whether numbers of this data set may stand beside the paper's: its very data set, whole, under its protocol."""
    return dataset in PAPER_DATASETS and _is_papers_data(benchmark, dataset) and benchmark.protocol == PAPER_PROTOCOL


def _is_papers_data(benchmark: Benchmark, dataset: str) -> bool:
    settings = benchmark.datasets.get(dataset)
    return settings is not None and settings.kind == dataset and not settings.allow_partial


def group_label(benchmark: Benchmark, dataset: str) -> str:
    """The heading over a data set's columns; never the paper's name alone for what is not the paper's."""
    if is_comparable(benchmark, dataset):
        return PAPER_DATASETS[dataset]
    label = benchmark.datasets[dataset].label
    return f"{label} ({dataset}, {benchmark.protocol})" if label in PAPER_DATASETS.values() else label


def method_label(benchmark: Benchmark, method: str) -> str:
    """A method's name where no table of the paper has one for it."""
    if method == benchmark.main_model + FIRST_CHECKPOINT_SUFFIX:
        return f"First checkpoint of {benchmark.main_model}"
    if benchmark.intervention_of(method):
        return f"{benchmark.main_model} {_INTERVENTION_LABELS[benchmark.intervention_of(method)]}"
    if method in benchmark.external_methods:
        return f"{benchmark.external_methods[method].label} (re-scored)"
    return _REFERENCE_LABELS.get(method, method)


def _table_columns(number: int, benchmark: Benchmark) -> tuple[Column, ...]:
    """Ours alone first, since they hold what the benchmark measured; then the paper's."""
    columns = []
    for dataset, settings in benchmark.datasets.items():
        if is_comparable(benchmark, dataset):
            continue
        kind = "market1501" if settings.kind == "synthetic" else settings.kind
        for metric in _with_foreground(_COLUMNS[number].get(kind, ())):
            protocol = PROTOCOLS[benchmark.protocol].metric_id(metric)
            columns.append(Column(dataset, group_label(benchmark, dataset), metric, protocol, comparable=False))
    for dataset, metrics in _COLUMNS[number].items():
        for metric in _with_foreground(metrics) if is_comparable(benchmark, dataset) else metrics:
            protocol = PROTOCOLS[PAPER_PROTOCOL].metric_id(metric)
            columns.append(Column(dataset, PAPER_DATASETS[dataset], metric, protocol, comparable=True))
    return tuple(columns)


def _with_foreground(metrics: tuple[str, ...]) -> tuple[str, ...]:
    """The columns of one of our own data sets: the paper's, and SSIM inside the mask beside SSIM."""
    return (*metrics, _BESIDE) if "ssim" in metrics else metrics


def _table_rows(number: int, benchmark: Benchmark, published: pd.DataFrame) -> tuple[Row, ...]:
    printed = published[published["table"] == number].drop_duplicates("method")
    origin = f"TABLE {ROMAN[number]} of the paper"
    literature = [
        Row(r.row, r.method, "literature", r.method, origin) for r in printed.itertuples() if r.role == "literature"
    ]
    # Released results that were scored here stand under the literature; only what the paper calls the same is compared.
    external = [
        Row(method_label(benchmark, name), name, "external", entry.table_row or "")
        for name, entry in benchmark.external_methods.items()
        if _has_columns(number, benchmark, entry.dataset)
    ]
    names = {r.method: r.row for r in printed.itertuples() if r.role == "ours"}
    retrained = _retrained_rows(benchmark, printed) if number in _LITERATURE_TABLES else []
    # A model of the paper that this benchmark lacks keeps its row: the reader sees the paper's value.
    potgan = [model for model in benchmark.models if benchmark.method_of(model) == "potgan"]
    models = [*potgan, *(m for m in names if m not in benchmark.models)]
    ours = [Row(f"{names[m]} ({m})" if m in names else m, m, "ours", m) for m in models]
    others = []
    for method in benchmark.methods:
        if method not in benchmark.models and method not in benchmark.external_methods:
            role = {"real-data": "real"}.get(method, "reference")
            role = "checkpoint" if method.endswith(FIRST_CHECKPOINT_SUFFIX) else role
            role = "intervention" if benchmark.intervention_of(method) else role
            others.append(Row(method_label(benchmark, method), method, role, method))
    return (*literature, *external, *retrained, *ours, *others)


def _retrained_rows(benchmark: Benchmark, printed: pd.DataFrame) -> list[Row]:
    """The models of other methods than PoT-GAN, under the name that the table has for their method."""
    names = {r.method: r.row for r in printed.itertuples() if r.role == "literature"}
    rows = []
    for model in benchmark.models:
        method = benchmark.method_of(model)
        if method != "potgan":
            known = _LITERATURE_NAMES.get(method, method)
            label = f"{names[known]} ({model}, retrained here)" if known in names else f"{model} (trained here)"
            rows.append(Row(label, model, "retrained", known if known in names else ""))
    return rows


def _has_columns(number: int, benchmark: Benchmark, dataset: str) -> bool:
    """Whether a table has columns of a data set's kind."""
    if dataset not in benchmark.datasets:
        return dataset in _COLUMNS[number]
    kind = benchmark.datasets[dataset].kind
    return ("market1501" if kind == "synthetic" else kind) in _COLUMNS[number]


def _build_table(
    number: int, benchmark: Benchmark, scores: pd.DataFrame, published: pd.DataFrame, detected: dict[str, str]
) -> Table:
    columns = _table_columns(number, benchmark)
    rows = _table_rows(number, benchmark, published)
    printed = {
        (r.method, r.dataset, r.metric): (float(r.value), r.mark, r.note)
        for r in published[published["table"] == number].itertuples()
    }
    measured = dict(list(scores.groupby(["dataset", "method", "metric"])))
    cells = [[_cell(benchmark, row, column, printed, measured) for column in columns] for row in rows]
    for j, column in enumerate(columns):
        trained = [
            i for i, row in enumerate(rows) if row.role in ("ours", "retrained") and cells[i][j].value is not None
        ]
        for i, mark in _ranks({i: cells[i][j].value for i in trained}, METRICS[column.metric]).items():
            cells[i][j] = replace(cells[i][j], mark=mark)
    return Table(
        number=number,
        title=_TITLES[number],
        columns=columns,
        rows=rows,
        cells=tuple(map(tuple, cells)),
        notes=_notes(columns, cells, benchmark, detected),
        reading=_reading(number, benchmark),
    )


def _cell(benchmark: Benchmark, row: Row, column: Column, printed: dict, measured: dict) -> Cell:
    paper_value, paper_mark, note = None, "", ""
    external = benchmark.external_methods.get(row.method)
    if column.comparable and (external is None or external.dataset == column.dataset):
        paper_value, paper_mark, note = printed.get((row.paper_method, column.dataset, column.metric), (None, "", ""))
    if row.role == "literature":
        reason = "" if paper_value is not None else "no published value"
        return Cell(paper_value=paper_value, mark=paper_mark, reason=reason, note=note)
    cell = _measured_cell(benchmark, row, column, paper_value, measured)
    return cell if paper_value is None else replace(cell, **_verdict_on_paper(cell, note))


def _measured_cell(benchmark: Benchmark, row: Row, column: Column, paper_value: float | None, measured: dict) -> Cell:
    reason = _why_not(benchmark, row, column)
    if reason:
        return Cell(paper_value=paper_value, reason=reason)
    seeds = benchmark.seeds_of(row.method)
    frame = measured.get((column.dataset, row.method, column.metric))
    found = frame[frame["value"].notna()] if frame is not None else None
    if found is None or not len(found):
        reason = "not run: this method was not evaluated here"
        if frame is not None:
            reason = f"not measured: the scores hold no value of {METRIC_LABELS[column.metric]}"
        return Cell(paper_value=paper_value, reason=reason)
    missing = sorted(set(seeds) - set(found["seed"]))
    return Cell(
        value=float(found["value"].mean()),
        sd=float(found["value"].std(ddof=1)) if len(found) > 1 else None,
        n_seeds=len(found),
        n_pairs=int(found["n_pairs"].iloc[0]),
        paper_value=paper_value,
        reason=f"without seed {', '.join(map(str, missing))}, which was not evaluated" if missing else "",
        warning="; ".join(dict.fromkeys(warning for warning in found["warning"] if warning)),
    )


def _verdict_on_paper(cell: Cell, note: str) -> dict[str, str]:
    """Does the paper's value lie within the 95 % prediction interval of one more training of ours?

    Nothing is said where there is no number of ours, where one value has no spread, or where the paper's own value is
    known not to be what its row says (`note` of published.csv).
    """
    if cell.value is None:
        return {"verdict": "not comparable"}
    if note:
        return {"verdict": "not comparable", "note": f"not comparable: {note}"}
    if cell.sd is None:
        return {"verdict": "not comparable", "note": _ONE_VALUE}
    return {"verdict": "within" if abs(cell.difference) <= prediction_reach(cell.sd, cell.n_seeds) else "not within"}


def prediction_reach(sd: float, count: int, level: float = 0.95) -> float:
    """How far the prediction interval reaches from the mean of `count` trainings, to either side.

    It holds the value of one more training with the probability `level`. The published value is one training of its authors. If
    ours were the same experiment, it would be one more draw from the distribution that ours come from. With normal values,
    (value - mean) / (sd sqrt(1 + 1 / count)) has Student's distribution with count - 1 degrees of freedom (Hahn 1969, "Factors
    for calculating two-sided prediction intervals for samples from a normal distribution"). sd: their sample standard
    deviation.
    """
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, count - 1)) * sd * math.sqrt(1 + 1 / count)


#: Why a single value has no verdict.
_ONE_VALUE = "not comparable: one value has no standard deviation, and the verdict needs at least two seeds"


def _why_not(benchmark: Benchmark, row: Row, column: Column) -> str:
    if column.dataset in benchmark.absent:
        return f"not run: {benchmark.absent[column.dataset]}"
    if column.dataset not in benchmark.datasets:
        return f"not run: {PAPER_DATASETS[column.dataset]} is not in benchmark `{benchmark.benchmark}`"
    if row.method not in benchmark.methods:
        return f"not run: {row.method} is not in benchmark `{benchmark.benchmark}`"
    if column.comparable and not is_comparable(benchmark, column.dataset):
        what = f"`{benchmark.benchmark}` measures under protocol `{benchmark.protocol}`"
        if not _is_papers_data(benchmark, column.dataset):
            what = f"{column.dataset} of `{benchmark.benchmark}` is not the whole published data set"
        return f"not comparable: {what}; see the columns of {group_label(benchmark, column.dataset)}"
    left_out = benchmark.why_left_out(column.dataset, row.method)
    return f"not run: {left_out}" if left_out else ""


def _ranks(values: dict[int, float], direction: str) -> dict[int, str]:
    """best and second, by the printed digits: two rows that look equal are marked alike. One row alone has no rank."""
    rounded = {key: round(value, 3) for key, value in values.items()}
    if len(rounded) < 2:
        return {}
    order = sorted(set(rounded.values()), reverse=direction == "higher")
    marks = dict(zip(order, ("best", "second"), strict=False))
    return {key: marks[value] for key, value in rounded.items() if value in marks}


def _notes(
    columns: tuple[Column, ...], cells: list[list[Cell]], benchmark: Benchmark, detected: dict[str, str]
) -> tuple[str, ...]:
    notes = []
    for dataset in dict.fromkeys(c.dataset for c in columns if c.dataset in benchmark.datasets):
        ours = [j for j, c in enumerate(columns) if c.dataset == dataset]
        counts = sorted({row[j].n_pairs for row in cells for j in ours if row[j].n_pairs is not None})
        if not counts:
            continue
        ids = ", ".join(
            f"{METRIC_LABELS[columns[j].metric]}: {columns[j].protocol}" for j in ours if not _empty(cells, j)
        )
        pairs = " or ".join(f"{n:,}" for n in counts)
        notes.append(f"{group_label(benchmark, dataset)}: N = {pairs} test pairs; {ids}.")
        if dataset in detected:
            notes.append(
                f"{group_label(benchmark, dataset)}: key points of the rows measured here by {detected[dataset]}, and of the "
                "literature's rows by OpenPose."
            )
    return (*notes, *precision.notes(benchmark))


def _reading(number: int, benchmark: Benchmark) -> str:
    seeds = len(benchmark.seeds)
    spread = f"mean ± sample standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    external = " Re-scored: released images of a method, measured here." if benchmark.external_methods else ""
    others = any(benchmark.method_of(model) != "potgan" for model in benchmark.models)
    if others and number in _LITERATURE_TABLES:
        external += (
            " Retrained here: a method of the literature, trained on the same pairs and for as many images as our rows."
        )
    return (
        f"Our rows: {spread}, and n says of how many; bold and underlined are the best and second among the trained models "
        f"of a column. Literature: values and marks as TABLE {ROMAN[number]} of the paper prints them.{external}"
    )


#: How Markdown and the page print the paper's value, and how LaTeX does.
PARENTHESES = (
    "In parentheses: the paper's value, ours minus the paper's, and, from two seeds on, whether the paper's lies within the 95 % "
    "prediction interval for one more training like ours. With few seeds this interval is wide."
)
_BELOW = (
    r"Below a row of ours: the paper's values, and ours minus the paper's; from two seeds on followed by $\approx$ where the "
    r"paper's value lies within the 95\,\% prediction interval for one more training like ours, and by $\neq$ where it does not."
)


def _empty(cells: list[list[Cell]], j: int) -> bool:
    return all(row[j].value is None for row in cells)


# ---------------------------------------------------------------------------------------------------------------------
# Printing


def cell_text(cell: Cell, role: str) -> tuple[str, str]:
    """(value, paper's value in parentheses) as printed, plain text; an en dash where there is no number of ours."""
    if role == "literature":
        return ("–" if cell.paper_value is None else f"{cell.paper_value:.3f}"), ""
    value = "–" if cell.value is None else f"{cell.value:.3f}" + ("" if cell.sd is None else f" ± {cell.sd:.3f}")
    if cell.paper_value is None:
        return value, ""
    difference = "" if cell.difference is None else f", {signed(cell.difference)}"
    verdict = f", {cell.verdict}" if cell.verdict in ("within", "not within") else ""
    return value, f"({cell.paper_value:.3f}{difference}{verdict})"


def seeds_text(row: Row, cells: tuple[Cell, ...]) -> str:
    """Behind how many seeds a row's values stand: 3, or 2–3 where cells differ; an en dash for literature and no value."""
    counts = sorted({cell.n_seeds for cell in cells if cell.value is not None})
    if row.role == "literature" or not counts:
        return "–"
    return "–".join(map(str, dict.fromkeys((counts[0], counts[-1]))))


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign: +0.012, −0.012, and 0.000 without one."""
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "−") + text


def markdown(table: Table) -> str:
    """A table as GitHub Markdown: one head line, best bold, second underlined, footnotes below."""
    heads = [f"{column.group}: {column.head}" for column in table.columns]
    lines = [
        f"**{table.name}.** {table.title}.",
        "",
        "| Models | n | " + " | ".join(_escape_markdown(h) for h in heads) + " |",
        "|---" + "|---:" * (len(heads) + 1) + "|",
    ]
    for row, cells in zip(table.rows, table.cells, strict=True):
        texts = []
        for cell in cells:
            value, paper = cell_text(cell, row.role)
            value = {"best": f"**{value}**", "second": f"<u>{value}</u>"}.get(cell.mark, value)
            foot = f"<sup>{table.marks(cell)}</sup>" if table.marks(cell) else ""
            texts.append(f"{value}{foot} {paper}".strip())
        lines.append(f"| {_escape_markdown(row.label)} | {seeds_text(row, cells)} | " + " | ".join(texts) + " |")
    lines.append("")
    lines += [f"<sup>{mark}</sup> {_escape_markdown(reason)}  " for reason, mark in table.reasons.items()]
    lines += ["", *(f"{_escape_markdown(note)}  " for note in (*table.notes, f"{table.reading} {PARENTHESES}"))]
    return "\n".join(lines) + "\n"


def _escape_markdown(text: str) -> str:
    return re.sub(r"([|*_<\[\]])", r"\\\1", text)


def latex(table: Table) -> str:
    r"""A table as LaTeX for \usepackage{booktabs,graphicx}: a `table*` as the paper's, with footnotes below.

    Below a row of ours stand the paper's values and the differences, in rows of their own; a difference is followed by
    \approx where the paper's value lies within the prediction interval of ours, by \neq where it does not. A table that is
    wider than the page is made smaller.
    """
    spans, start = [], 3
    for _, count in table.groups:
        spans.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
        start += count
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{_escape_latex(table.title)}.}}",
        rf"\label{{tab:{table.number}}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{lc*{{{len(table.columns)}}}{{c}}}}",
        r"\toprule",
        " & ".join(["", "", *(rf"\multicolumn{{{n}}}{{c}}{{{_escape_latex(g)}}}" for g, n in table.groups)]).strip()
        + r" \\",
        "".join(spans),
        " & ".join(["Models", "$n$", *(METRIC_LABELS[column.metric] for column in table.columns)]) + r" \\",
    ]
    if any(column.own_id for column in table.columns):
        ids = (rf"{{\tiny {_escape_latex(column.own_id)}}}" if column.own_id else "" for column in table.columns)
        lines.append(" & ".join(["", "", *ids]).strip() + r" \\")
    lines.append(r"\midrule")
    previous = None
    for row, cells in zip(table.rows, table.cells, strict=True):
        kind = "reference" if row.role in ("intervention", "checkpoint", "reference", "real") else row.role
        if previous not in (None, kind):
            lines.append(r"\midrule")
        previous = kind
        lines += [" & ".join(line).rstrip() + r" \\" for line in _latex_rows(table, row, cells)]
    lines += [r"\bottomrule", r"\end{tabular}}", "", r"\smallskip", r"\begin{minipage}{\textwidth}"]
    lines += [r"\scriptsize\raggedright"]
    lines += [rf"\textsuperscript{{{mark}}} {_escape_latex(reason)}.\\" for reason, mark in table.reasons.items()]
    lines += [rf"{_escape_latex(note)}\\" for note in table.notes]
    lines += [rf"{_escape_latex(table.reading)} {_BELOW}\\"]
    lines += [r"\end{minipage}", r"\end{table*}"]
    return "\n".join(lines) + "\n"


#: A verdict in LaTeX, behind the difference.
_LATEX_VERDICTS = {"within": r"$\approx$", "not within": r"$\neq$"}


def _latex_rows(table: Table, row: Row, cells: tuple[Cell, ...]) -> Iterator[list[str]]:
    """The lines of one row: values; then the paper's and the differences, where the paper has some for a row of ours."""
    texts = [_escape_latex(row.label), _escape_latex(seeds_text(row, cells))]
    for cell in cells:
        value, spread = _escape_latex(cell_text(cell, row.role)[0]), ""
        if cell.sd is not None:
            value, spread = _escape_latex(f"{cell.value:.3f}"), rf"{{\tiny$\pm${cell.sd:.3f}}}"
        value = {"best": rf"\textbf{{{value}}}", "second": rf"\underline{{{value}}}"}.get(cell.mark, value)
        foot = rf"\textsuperscript{{{table.marks(cell)}}}" if table.marks(cell) else ""
        texts.append(value + spread + foot)
    yield texts
    if row.role == "literature":
        return
    if any(cell.paper_value is not None for cell in cells):
        values = ("" if cell.paper_value is None else f"{cell.paper_value:.3f}" for cell in cells)
        yield [r"\quad\textit{the paper's value}", "", *(rf"\textit{{{text}}}" if text else "" for text in values)]
    if any(cell.difference is not None for cell in cells):
        texts = [r"\quad\textit{ours minus the paper's}", ""]
        for cell in cells:
            verdict = _LATEX_VERDICTS.get(cell.verdict, "")
            difference = "" if cell.difference is None else rf"\textit{{{_escape_latex(signed(cell.difference))}}}"
            texts.append(f"{difference} {verdict}".strip())
        yield texts


def latex_document(numbers: Iterable[int]) -> str:
    """A document of all tables, for `pdflatex` in their folder."""
    inputs = "\n".join(rf"\input{{table{number}}}" for number in numbers)
    return (
        "\\documentclass[10pt,twocolumn]{article}\n\\usepackage[letterpaper,margin=17mm]{geometry}\n"
        "\\usepackage{booktabs,graphicx}\n\\renewcommand{\\thetable}{\\Roman{table}}\\renewcommand{\\tablename}{TABLE}\n\\begin{document}\n"
        f"{inputs}\n\\end{{document}}\n"
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # a bracket after \\ would be read as its optional argument
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "`": "",  # Markdown's quotes
}


def _escape_latex(text: str) -> str:
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return escaped.replace(r"L\_recon", r"$L_{\mathrm{recon}}$")


def table_records(table: Table) -> list[dict[str, object]]:
    """A table as long records, one per cell: what `table<n>.csv` holds. Literature has its number in paper_value."""
    return [
        {
            "table": table.number,
            "row_label": row.label,
            "method": row.method,
            "role": row.role,
            "dataset": column.dataset,
            "metric": column.metric,
            "protocol": "as published" if row.role == "literature" and column.comparable else column.protocol,
            "paper_value": cell.paper_value,
            "value": cell.value,
            "sd": cell.sd,
            "n_seeds": cell.n_seeds if cell.value is not None else None,
            "difference": cell.difference,
            "n_pairs": cell.n_pairs,
            "mark": cell.mark,
            "verdict": cell.verdict,
            "reason": cell.reason or cell.note,
            "warning": cell.warning,
            "origin": row.origin,
        }
        for row, cells in zip(table.rows, table.cells, strict=True)
        for column, cell in zip(table.columns, cells, strict=True)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Paired differences


@dataclass(frozen=True)
class Comparison:
    """`method` minus `against` in one metric on one data set, seed by seed on the same pairs.

    low, high: 95 % bootstrap interval of the mean difference (None for metrics of a whole set, such as IS and FID, and for
    fewer than FEWEST_PEOPLE people). People are resampled, each with all pairs of theirs, because pairs of one person are
    alike. It speaks about these trained networks and other people, not about another training.
    per_seed: the difference of each seed, in the order of the seeds.
    effect: of going from `against` to `method`: helps | hurts | none shown | not judged (no interval for this metric,
    and a few seeds that agree in sign are no proof).
    """

    dataset: str
    method: str
    against: str
    metric: str
    protocol: str
    method_value: float
    against_value: float
    difference: float
    sd: float | None  # of the seed-wise differences; None for one seed
    n_seeds: int
    low: float | None
    high: float | None
    n_pairs: int
    n_people: int | None  # whose pairs they are; None for metrics of a whole set
    per_seed: tuple[float, ...]
    effect: str
    verdict: str


def compare(
    results: Results, scores: pd.DataFrame, dataset: str, method: str, against: str, metric: str
) -> Comparison | None:
    """The paired difference of two methods, or None where one of them has no value.

    scores: as from `collect`. A reference method has one seed, which meets every seed of the other. Raises UserError if
    a `per-pair.csv` is missing or the two were evaluated on different pairs.
    """
    benchmark = results.benchmark
    chosen = scores[(scores["dataset"] == dataset) & (scores["metric"] == metric) & scores["value"].notna()]
    values = {name: chosen[chosen["method"] == name].set_index("seed")["value"] for name in (method, against)}
    only = benchmark.seeds_of(against)[0] if len(benchmark.seeds_of(against)) == 1 else None
    seeds = [(seed, seed if only is None else only) for seed in values[method].index]
    seeds = [(a, b) for a, b in seeds if b in values[against].index]
    if not seeds:
        return None
    differences = np.array([values[method][a] - values[against][b] for a, b in seeds])
    low = high = n_people = None
    n_pairs = int(chosen["n_pairs"].iloc[0])
    if metric in PER_PAIR_METRICS:
        per_seed = [
            _pair_differences(results, ResultRow(dataset, method, a), ResultRow(dataset, against, b), metric)
            for a, b in seeds
        ]
        paired = np.mean(per_seed, axis=0)
        found = interval_over_people(paired, results.per_pair(ResultRow(dataset, method, seeds[0][0]))["from"])
        if found.n_pairs:
            low, high, n_pairs, n_people = found
    effect, verdict = _verdict(differences, METRICS[metric], low, high)
    if low is None and n_people is not None:
        verdict = verdict.replace("no interval for this metric", f"no interval: {n_people} people are too few")
    return Comparison(
        dataset=dataset,
        method=method,
        against=against,
        metric=metric,
        protocol=PROTOCOLS[benchmark.protocol].metric_id(metric),
        method_value=float(np.mean([values[method][a] for a, _ in seeds])),
        against_value=float(np.mean([values[against][b] for _, b in seeds])),
        difference=float(differences.mean()),
        sd=float(differences.std(ddof=1)) if len(seeds) > 1 else None,
        n_seeds=len(seeds),
        low=low,
        high=high,
        n_pairs=n_pairs,
        n_people=n_people,
        per_seed=tuple(map(float, differences)),
        effect=effect,
        verdict=verdict,
    )


def _pair_differences(results: Results, first: ResultRow, second: ResultRow, metric: str) -> np.ndarray:
    """(N,) first minus second, pair by pair; NaN where a pair has no value."""
    one, other = results.per_pair(first), results.per_pair(second)
    if not one[["from", "to"]].equals(other[["from", "to"]]):
        where = results.layout.evaluate(first.dataset, first.method, first.seed)
        raise UserError(f"{where}: was evaluated on other pairs than {second.method}; evaluate both again")
    if metric not in one or metric not in other:  # scored by an earlier revision
        return np.full(len(one), np.nan)
    return (one[metric] - other[metric]).to_numpy()


class Interval(NamedTuple):
    """Of a mean of paired differences, over people. low, high: None for fewer than FEWEST_PEOPLE. n_pairs: those with a value."""

    low: float | None
    high: float | None
    n_pairs: int
    n_people: int


def interval_over_people(differences: np.ndarray, sources: pd.Series) -> Interval:
    """The 95 % bootstrap interval of the mean of (N,) differences, pair by pair; NaN where a pair has no value.

    sources: the names of the N source images, which tell the people. The inside of an empty mask has no SSIM, and such a pair is in
    no mean and in no difference.
    """
    there = ~np.isnan(differences)
    people = people_of(sources)[there]
    n_people = len(set(people))
    low, high = bootstrap_interval(differences[there], people) if n_people >= FEWEST_PEOPLE else (None, None)
    return Interval(low, high, int(there.sum()), n_people)


def bootstrap_interval(differences: np.ndarray, people: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of (N,) differences, in which people are resampled with all their pairs.

    people: (N,) whose pair each is. The draws are seeded, so that the interval is the same every time.
    """
    _, person = np.unique(people, return_inverse=True)
    sums, counts = np.bincount(person, differences), np.bincount(person)
    drawn = np.random.default_rng(BOOTSTRAP_SEED).integers(0, len(sums), (BOOTSTRAP_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _verdict(differences: np.ndarray, direction: str, low: float | None, high: float | None) -> tuple[str, str]:
    """(effect, sentence). An effect is claimed only where neither people nor seeds speak against it."""
    count = len(differences)
    gain = differences.mean() * (1 if direction == "higher" else -1)
    word, effect = ("better", "helps") if gain > 0 else ("worse", "hurts")
    agree = bool((differences > 0).all() or (differences < 0).all())
    seeds = {1: "in the one seed", 2: "in both seeds"}.get(count, f"in all {count} seeds")
    if low is None:
        if not differences.any():
            return "none shown", "no difference: no effect shown"
        if not agree:
            return "none shown", "the seeds disagree in sign: no effect shown"
        return "not judged", f"{word} {seeds}; no interval for this metric"
    if low <= 0 <= high:
        return "none shown", "the interval contains 0: no effect shown"
    if not agree:
        return "none shown", "the interval excludes 0, but the seeds disagree in sign: no effect shown"
    return effect, f"{word} {seeds}; the interval excludes 0"


def ablations(results: Results, scores: pd.DataFrame) -> list[Comparison]:
    """Every other model, and every intervention, against the main model in every metric of every data set.

    The order is the configuration's. A model in another precision than fp32 is compared with its twin in fp32, where there is one.
    """
    benchmark = results.benchmark
    others = [model for model in benchmark.models if model != benchmark.main_model]
    against = {
        model: (precision.precision_of(benchmark, model) != "fp32" and precision.fp32_twin(benchmark, model))
        or benchmark.main_model
        for model in others
    }
    against |= {method: benchmark.main_model for method in benchmark.methods if benchmark.intervention_of(method)}
    found = [
        compare(results, scores, dataset, model, against[model], metric)
        for dataset in benchmark.datasets
        for model in against
        for metric in METRICS
    ]
    return [comparison for comparison in found if comparison is not None]


def ablations_markdown(benchmark: Benchmark, comparisons: list[Comparison]) -> str:
    """The ablation comparison as one Markdown table per data set."""
    lines = [
        f"**Ablations.** Each model, and each intervention on the finished network, minus `{benchmark.main_model}`, seed by seed "
        "on the same test pairs.",
        "",
    ]
    for dataset in dict.fromkeys(c.dataset for c in comparisons):
        lines += [
            f"{_escape_markdown(group_label(benchmark, dataset))}",
            "",
            "| Model | Metric | Value | Main | Difference | 95 % interval | Seeds | N | Effect of change | Verdict |",
            "|---|---|---:|---:|---:|---:|---:|---:|---|---|",
        ]
        for c in comparisons:
            if c.dataset == dataset:
                cells = [
                    c.method,
                    metric_text(c),
                    f"{c.method_value:.3f}",
                    f"{c.against_value:.3f}",
                    difference_text(c),
                    interval_text(c),
                    str(c.n_seeds),
                    f"{c.n_pairs:,}",
                    c.effect,
                    c.verdict,
                ]
                lines.append("| " + " | ".join(_escape_markdown(cell) for cell in cells) + " |")
        lines.append("")
    lines.append(INTERVAL_NOTE)
    return "\n".join(lines) + "\n"


INTERVAL_NOTE = (
    f"Intervals: percentile bootstrap over people, each with all pairs of theirs ({BOOTSTRAP_RESAMPLES:,} resamples, seeded), of "
    f"the difference averaged over seeds; none for fewer than {FEWEST_PEOPLE} people. They speak about these trained networks on "
    "other people, not about another training. IS and FID belong to whole sets of images and have none. Nothing is corrected for "
    "the number of comparisons."
)


def metric_text(c: Comparison) -> str:
    """The metric's name with the id of its protocol."""
    return f"{METRIC_LABELS[c.metric]} ({c.protocol})"


def difference_text(c: Comparison) -> str:
    """+0.012, or +0.012 ± 0.003 over seeds."""
    return signed(c.difference) + ("" if c.sd is None else f" ± {c.sd:.3f}")


def interval_text(c: Comparison) -> str:
    """[−0.020, −0.004], or an en dash for a metric without one."""
    return "–" if c.low is None else f"[{signed(c.low)}, {signed(c.high)}]"


#: Warps that give the end-point errors of learned ones a scale, and what they are called.
WARP_REFERENCES = {
    "identity": "Not moving (identity)",
    "translation": "Best translation of each pair",
    "spline": "Best spline of each pair",
}


def warp_errors(results: Results) -> pd.DataFrame:
    """How well the learned warps follow the exact motion, where the data set knows it (synthetic people).

    Columns: dataset, method, scale (1 = finest), stride, end_point_error, the same of not moving (identity_), of the best
    translation and of the best spline of each pair, in pixels, means over seeds; n_seeds. Empty where no model reports warps.
    """
    records = []
    for row in results.rows():
        scores = results.scores(row)
        for error in scores.warp.scales if scores and scores.warp else ():
            records.append(row.__dict__ | error.__dict__)
    errors = ["end_point_error", *(f"{reference}_end_point_error" for reference in WARP_REFERENCES)]
    columns = ["dataset", "method", "scale", "stride", *errors, "n_seeds"]
    if not records:
        return pd.DataFrame(columns=columns)
    groups = pd.DataFrame.from_records(records).groupby(["dataset", "method", "scale", "stride"], sort=False)
    means = groups[errors].mean()
    return means.assign(n_seeds=groups["seed"].nunique()).reset_index()[columns]


# ---------------------------------------------------------------------------------------------------------------------
# Pairs of one camera and of two


def by_camera(results: Results) -> pd.DataFrame:
    """The metrics of single images, apart for pairs whose two images are of one camera and for pairs of two cameras.

    A pair of one camera often has one background, which a method can copy from the source; that of another camera it cannot know.
    Columns: dataset, method, label, cameras ("same" or "different"), n_pairs, one column per metric of single images (means over
    pairs, then over seeds), n_seeds. Empty for data sets whose file names tell no camera.
    """
    benchmark = results.benchmark
    records = []
    for dataset in benchmark.datasets:
        for method in benchmark.methods_of(dataset):
            rows = [ResultRow(dataset, method, seed) for seed in benchmark.seeds_of(method)]
            tables = [results.per_pair(row) for row in rows if results.scores(row) is not None]
            same = _same_camera(tables[0]) if tables else None
            if same is None:
                continue
            for cameras, chosen in (("same", same), ("different", ~same)):
                parts = [table[chosen] for table in tables]
                means = pd.DataFrame([part.reindex(columns=list(PER_PAIR_METRICS)).mean() for part in parts]).mean()
                record = {"dataset": dataset, "method": method, "label": method_label(benchmark, method)}
                record |= {"cameras": cameras, "n_pairs": len(parts[0])}
                records.append(record | means.to_dict() | {"n_seeds": len(tables)})
    columns = ["dataset", "method", "label", "cameras", "n_pairs", *PER_PAIR_METRICS, "n_seeds"]
    return pd.DataFrame.from_records(records, columns=columns)


def _same_camera(pairs: pd.DataFrame) -> np.ndarray | None:
    """(N,) whether both images of a pair are of one camera; None where the names of images tell no camera."""
    cameras = [[camera_of(name) for name in pairs[column]] for column in ("from", "to")]
    if None in cameras[0] or None in cameras[1]:
        return None
    return np.array(cameras[0]) == np.array(cameras[1])


def by_camera_markdown(benchmark: Benchmark, frame: pd.DataFrame) -> str:
    """`by_camera` as Markdown: per data set a table of methods (rows) with both kinds of pairs side by side."""
    shown = tuple(SENSITIVITY_METRICS)
    lines = [BY_CAMERA_NOTE, ""]
    for dataset in dict.fromkeys(frame["dataset"]):
        part = frame[frame["dataset"] == dataset]
        kinds = {kind: part[part["cameras"] == kind] for kind in ("same", "different")}
        heads = [
            f"{METRIC_LABELS[metric]}, {kind} camera{'' if kind == 'same' else 's'}"
            for metric in shown
            for kind in kinds
        ]
        counts = ", ".join(f"{kind}: {rows['n_pairs'].iloc[0]:,} pairs" for kind, rows in kinds.items() if len(rows))
        lines += [f"{_escape_markdown(group_label(benchmark, dataset))} ({counts})", ""]
        lines += ["| Models | n | " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) + 1) + "|"]
        for (label, seeds), rows in part.groupby(["label", "n_seeds"], sort=False):
            values = {(row.cameras, metric): getattr(row, metric) for row in rows.itertuples() for metric in shown}
            cells = [values.get((kind, metric), math.nan) for metric in shown for kind in kinds]
            texts = ["–" if math.isnan(value) else f"{value:.3f}" for value in cells]
            lines.append(f"| {_escape_markdown(label)} | {seeds} | " + " | ".join(texts) + " |")
        lines.append("")
    return "\n".join(lines) + "\n"


BY_CAMERA_NOTE = (
    "**Pairs of one camera and of two.** A method can copy the background from a source image of the same camera, and cannot "
    "know it from one of another camera."
)


# ---------------------------------------------------------------------------------------------------------------------
# Sensitivity to the protocol

NO_SENSITIVITY = "not measured: sensitivity.csv is missing; evaluate this run again"


def sensitivity(results: Results) -> pd.DataFrame:
    """The same images under every protocol: one row per (data set, method, protocol), means over seeds.

    Columns: dataset, method, label, protocol, ssim, mask_ssim, foreground_ssim, n_seeds, reason, note. Read from each run's
    `sensitivity.csv`. A method without that file has one row without numbers, whose reason says so. note: what the
    protocol demands and the released files are not, such as PNG; such a value is measured as the files are.
    Raises UserError for a file with other columns.
    """
    benchmark = results.benchmark
    records = []
    for dataset in benchmark.datasets:
        for method in benchmark.methods_of(dataset):
            row = {"dataset": dataset, "method": method, "label": method_label(benchmark, method)}
            measured = (results.sensitivity(ResultRow(dataset, method, seed)) for seed in benchmark.seeds_of(method))
            frames = [frame for frame in measured if frame is not None]
            if not frames:
                records.append(row | {"protocol": "", "n_seeds": 0, "reason": NO_SENSITIVITY, "note": ""})
                continue
            scores = results.scores(results.first(dataset, method))
            file_format = scores.file_format if scores else "png"
            together = pd.concat(frames).groupby("protocol", sort=False)
            means, counts = (
                together[list(SENSITIVITY_METRICS)].mean(),
                together.size(),
            )  # NaN where nothing was measured
            for protocol, values in means.iterrows():
                known = PROTOCOLS.get(protocol)
                unmet = unmet_demands(known, file_format, known.targets) if known else []
                note = f"{unmet[0]}: measured as they are" if unmet else ""
                found = {"protocol": protocol, **values, "n_seeds": int(counts[protocol]), "reason": "", "note": note}
                records.append(row | found)
    columns = ["dataset", "method", "label", "protocol", *SENSITIVITY_METRICS, "n_seeds", "reason", "note"]
    return pd.DataFrame.from_records(records, columns=columns)


def sensitivity_markdown(benchmark: Benchmark, frame: pd.DataFrame) -> str:
    """`sensitivity` as Markdown: per data set and metric a table of methods (rows) and protocols (columns)."""
    lines = [
        "**Sensitivity.** The same images under every protocol; differences along a row are protocol, not method.",
        "Columns do not compare with each other.",
        "",
    ]
    for dataset in dict.fromkeys(frame["dataset"]):
        part = frame[frame["dataset"] == dataset]
        protocols = [name for name in dict.fromkeys(part["protocol"]) if name]
        for metric, label in SENSITIVITY_METRICS.items():
            values = part[part[metric].notna()].set_index(["method", "protocol"])[metric].to_dict()
            if not values and metric != "ssim":
                continue
            lines += [
                f"{_escape_markdown(group_label(benchmark, dataset))}: {label}",
                "",
                "| Models | n | " + " | ".join(map(_escape_markdown, protocols or ["protocols"])) + " |",
                "|---" + "|---:" * (1 + max(1, len(protocols))) + "|",
            ]
            for name in dict.fromkeys(part["method"]):
                rows = part[part["method"] == name]
                stars = {r.protocol: "\\*" if r.note else "" for r in rows.itertuples()}
                cells = [f"{values[name, p]:.3f}{stars[p]}" if (name, p) in values else "–" for p in protocols] or ["–"]
                if rows["reason"].iloc[0]:
                    cells[0] = "– (not measured)"
                shown = _escape_markdown(rows["label"].iloc[0])
                lines.append(f"| {shown} | {rows['n_seeds'].max()} | " + " | ".join(cells) + " |")
            lines.append("")
    noted = frame[frame["note"] != ""].drop_duplicates(["label", "note"])
    lines += [f"\\* {_escape_markdown(row.label)}: {_escape_markdown(row.note)}.  " for row in noted.itertuples()]
    if (frame["reason"] != "").any():
        lines.append(f"{NO_SENSITIVITY[0].upper()}{NO_SENSITIVITY[1:]}.")
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def metrics_tree(scores: pd.DataFrame) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """data set -> method -> metric -> mean over seeds, for `dvc metrics show`; if n > 1 `<metric>_sd` and `seeds`."""
    tree: dict[str, dict[str, dict[str, float | int | None]]] = {}
    for (dataset, method, metric), frame in scores.groupby(["dataset", "method", "metric"], sort=False):
        entry = tree.setdefault(dataset, {}).setdefault(method, {})
        values = frame["value"].dropna()
        entry[metric] = float(values.mean()) if len(values) else None
        if len(values) > 1:
            entry[f"{metric}_sd"] = float(values.std(ddof=1))
            entry["seeds"] = max(int(entry.get("seeds") or 0), len(values))
    return tree


#: What `dvc metrics show` lists of each method: the headline of each kind of metric.
SUMMARY = ("ssim", "mask_ssim", "is", "fid", "l1")


def summary_path(layout: Layout, dataset: str, method: str) -> Path:
    """One file per method, because DVC prints one line per file and one column per number."""
    return layout.reports / "metrics" / dataset / f"{method}.json"


def write_tables(results: Results, published: str | Path = PUBLISHED) -> list[Path]:
    """Write table{1..4}.{csv,md,tex}, tables.tex, which prints them, ablations.{csv,md}, by-camera.{csv,md} and
    sensitivity.{csv,md} to reports/<benchmark>/tables, and beside it metrics.json and, for DVC, metrics/<data set>/<method>.json.

    Returns the paths in the order written. Everything is computed before the first file is replaced.
    Raises UserError as `collect`, `read_published` and `compare` do.
    """
    benchmark, layout = results.benchmark, results.layout
    scores = collect(results)
    texts: dict[Path, str] = {}
    folder = layout.reports / "tables"
    for table in build_tables(results, read_published(published)):
        stem = f"table{table.number}"
        texts[folder / f"{stem}.csv"] = (
            pd.DataFrame.from_records(table_records(table)).astype(_INTEGERS).to_csv(index=False)
        )
        texts[folder / f"{stem}.md"] = markdown(table)
        texts[folder / f"{stem}.tex"] = latex(table)
    comparisons = ablations(results, scores)
    records = [c.__dict__ | {"per_seed": " ".join(f"{value:.6g}" for value in c.per_seed)} for c in comparisons]
    frame = pd.DataFrame(records, columns=list(Comparison.__dataclass_fields__))
    texts[folder / "ablations.csv"] = frame.to_csv(index=False)
    texts[folder / "ablations.md"] = ablations_markdown(benchmark, comparisons)
    apart = by_camera(results)
    if len(apart):
        texts[folder / "by-camera.csv"] = apart.to_csv(index=False)
        texts[folder / "by-camera.md"] = by_camera_markdown(benchmark, apart)
    under_all = sensitivity(results)
    texts[folder / "sensitivity.csv"] = under_all.to_csv(index=False)
    texts[folder / "sensitivity.md"] = sensitivity_markdown(benchmark, under_all)
    texts[folder / "tables.tex"] = latex_document(_COLUMNS)
    tree = metrics_tree(scores)
    texts[layout.reports / "metrics.json"] = json.dumps(tree, indent=2) + "\n"
    for dataset, methods in tree.items():
        for method, values in methods.items():
            few = {name: values[name] for name in SUMMARY if values.get(name) is not None}
            texts[summary_path(layout, dataset, method)] = json.dumps(few, indent=2) + "\n"
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


_INTEGERS = {"n_seeds": "Int64", "n_pairs": "Int64"}
