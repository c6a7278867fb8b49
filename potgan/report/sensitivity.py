"""What the report says of protocols: the same images under each of them, as a table, a figure and sentences.

The numbers are `tables.sensitivity`'s; here they are laid out, and how far protocols move one method's images is set beside
how far the methods lie apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from potgan.report import figures, tables
from potgan.results import SENSITIVITY_METRICS, Results
from potgan.settings.layout import Layout
from potgan.settings.schema import Benchmark


@dataclass(frozen=True)
class Row:
    """One method's value under each protocol (None: not measured), and the distance of the least from the greatest."""

    label: str
    role: str  # ours | external | reference
    cells: tuple[float | None, ...]
    spread: float | None


@dataclass(frozen=True)
class Sensitivity:
    """One data set under several protocols. groups: (metric's label, its rows); sentences: what follows from them; areas:
    mean share of the image inside each protocol's mask, of the first method that has it; unmeasured: labels of the
    methods without a record; without protocols nothing was recorded at all.
    """

    label: str
    protocols: tuple[str, ...] = ()
    groups: tuple[tuple[str, tuple[Row, ...]], ...] = ()
    sentences: tuple[str, ...] = ()
    areas: tuple[float | None, ...] = ()
    unmeasured: tuple[str, ...] = ()
    figure: figures.Exhibit | None = None


def sensitivities(results: Results) -> list[Sensitivity]:
    """One for each data set of the benchmark. Raises UserError as `tables.sensitivity`."""
    benchmark = results.benchmark
    frame = tables.sensitivity(results)
    return [_sensitivity(results, d, frame[frame["dataset"] == d]) for d in benchmark.datasets]


def _sensitivity(results: Results, dataset: str, frame: pd.DataFrame) -> Sensitivity:
    benchmark, layout = results.benchmark, results.layout
    label = tables.group_label(benchmark, dataset)
    measured = frame[frame["protocol"] != ""]
    unmeasured = tuple(frame.loc[frame["protocol"] == "", "label"])
    if measured.empty:
        return Sensitivity(label, unmeasured=unmeasured)
    protocols = tuple(dict.fromkeys(measured["protocol"]))
    groups, sentences = [], []
    for metric, name in SENSITIVITY_METRICS.items():
        # The real images are their own targets: they score 1 under every protocol, and say nothing.
        part = measured[measured[metric].notna() & (measured["method"] != "real-data")]
        if part.empty:
            continue
        table = part.pivot_table(index="method", columns="protocol", values=metric, sort=False)
        table = table.reindex(columns=list(protocols))
        groups.append((name, tuple(_row(benchmark, method, values) for method, values in table.iterrows())))
        sentences += sensitivity_sentences(benchmark, name, table)
    figure = _figure(layout, dataset, label, protocols, tuple(groups)) if groups else None
    areas = mask_areas(results, dataset, protocols)
    return Sensitivity(label, protocols, tuple(groups), tuple(sentences), areas, unmeasured, figure)


def mask_areas(results: Results, dataset: str, protocols: tuple[str, ...]) -> tuple[float | None, ...]:
    """Mean area of each protocol's masks, None where it was not recorded. Masks are of poses: every method has the same."""
    benchmark = results.benchmark
    for method in benchmark.methods_of(dataset):
        frame = results.sensitivity(results.first(dataset, method))
        if frame is not None and "mask_area" in frame and frame["mask_area"].notna().any():
            found = frame.set_index("protocol")["mask_area"].dropna().to_dict()
            return tuple(found.get(protocol) for protocol in protocols)
    return ()


def _row(benchmark: Benchmark, method: str, values: pd.Series) -> Row:
    role = "ours" if method in benchmark.models else "external" if method in benchmark.external_methods else "reference"
    there = values.dropna()
    spread = float(there.max() - there.min()) if len(there) > 1 else None
    cells = tuple(None if pd.isna(value) else float(value) for value in values)
    return Row(tables.method_label(benchmark, method), role, cells, spread)


def sensitivity_sentences(benchmark: Benchmark, metric: str, table: pd.DataFrame) -> list[str]:
    """How far protocols move one method's images, how far the methods lie apart, and whether their order stays.

    metric: its label; table: methods (index) and protocols (columns). References are left out, and so is a protocol or a
    method with a gap.
    """
    compared = table.loc[[m for m in table.index if m in benchmark.models or m in benchmark.external_methods]]
    compared = compared.dropna(axis="columns", how="all").dropna()
    if compared.empty or len(compared.columns) < 2:
        return []
    ranges = compared.max(axis=1) - compared.min(axis=1)
    method = ranges.idxmax()
    values = compared.loc[method]
    text = (
        f"{metric}: the images of {tables.method_label(benchmark, method)} score {values.min():.3f} under "
        f"`{values.idxmin()}` and {values.max():.3f} under `{values.idxmax()}`, {ranges[method]:.3f} apart"
    )
    if len(compared) == 1:
        return [text + "."]
    apart = compared.max() - compared.min()
    orders = {tuple(compared[p].sort_values(ascending=False, kind="stable").index) for p in compared.columns}
    order = "the same order" if len(orders) == 1 else f"{len(orders)} different orders"
    return [
        f"{text}; the {len(compared)} methods lie {apart.min():.3f} (under `{apart.idxmin()}`) to {apart.max():.3f} (under "
        f"`{apart.idxmax()}`) apart. The protocols put them in {order}."
    ]


def _figure(
    layout: Layout,
    dataset: str,
    label: str,
    protocols: tuple[str, ...],
    groups: tuple[tuple[str, tuple[Row, ...]], ...],
) -> figures.Exhibit:
    title = f"Protocols on {label}"
    caption = (
        f"{title}: the same images under each protocol. A line that climbs or falls is protocol, not method; lines that "
        "cross change the order of the methods. The axes do not begin at 0. The table below has the values."
    )

    def draw() -> Figure:
        figure = Figure(figsize=(2.7 * len(groups) + 1.7, 2.9), layout="constrained")
        axes = figure.subplots(1, len(groups), squeeze=False)[0]
        places = np.arange(len(protocols))
        for axis, (metric, rows) in zip(axes, groups, strict=True):
            for position, row in enumerate(rows):
                values = np.array([np.nan if value is None else value for value in row.cells])
                style = figures.series_style(position, faint=row.role == "reference")
                axis.plot(places, values, label=row.label, markersize=4, linewidth=1.2, **style)
            axis.set_title(metric)
            axis.set_xticks(places, protocols, rotation=30, ha="right", rotation_mode="anchor")
            axis.margins(x=0.06)
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7.5)
        return figure

    return figures.plot(layout.figures, f"protocols-{dataset}", title, caption, draw)
