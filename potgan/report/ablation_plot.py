"""The ablations as a picture: what each change of the main model does to each metric, with its interval and its seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from potgan.report import tables
from potgan.report.figures import COLOURS, Exhibit, plot
from potgan.results import Results
from potgan.settings.protocols import METRIC_LABELS, METRICS

#: In this order, as far as they were measured. The metrics of whole sets come last; they have no interval.
PANELS = ("ssim", "foreground_ssim", "mask_ssim", "lpips", "psnr", "l1", "is", "fid")
COLUMNS = 4
EFFECT_COLOURS = {"helps": COLOURS[2], "hurts": COLOURS[1]}
FAINT = "#8a9299"


def forest_plot(results: Results, dataset: str, comparisons: Sequence[tables.Comparison]) -> Exhibit:
    """One panel per metric, one line per model or intervention: the difference to the model that it is compared with.

    A bar is the 95 % interval over people and small dots are seeds. Right of the line is better in every panel, so an axis of a
    metric whose lower values are better is turned round. comparisons: as from `tables.ablations`, of any data sets.
    """
    label = tables.group_label(results.benchmark, dataset)
    name, title = f"ablations-{dataset}", f"Ablations on {label}"
    here = [c for c in comparisons if c.dataset == dataset]
    methods = list(dict.fromkeys(c.method for c in here))
    panels = [metric for metric in PANELS if any(c.metric == metric for c in here)]
    if not panels:
        return Exhibit(
            name, title, f"{title}.", missing=f"there is nothing to compare with {results.benchmark.main_model}"
        )
    main = results.benchmark.main_model
    of = {(c.method, c.metric): c for c in here}
    seeds = max(c.n_seeds for c in here)
    caption = (
        f"{title}: each model, and each intervention on the finished network, minus {main}, on the same test pairs. Right of "
        f"the line is better than {main}, in every panel. Bars: 95 % intervals over people. Green and orange: an effect is "
        "shown, which means that the interval excludes 0 and that all seeds agree in sign. Hollow: a metric of a whole set of "
        "images, without an interval."
    )
    caption += (
        " Dots: seeds." if seeds > 1 else " One seed, so nothing is known of how much another training would differ."
    )
    words = {m: tables.method_label(results.benchmark, m) for m in methods}

    def draw() -> Figure:
        columns = min(COLUMNS, len(panels))
        rows = math.ceil(len(panels) / columns)
        height = max(2.0, rows * (0.62 + 0.27 * len(methods)))
        figure = Figure(figsize=(2.0 + 1.75 * columns, height), layout="constrained")
        figure.get_layout_engine().set(wspace=0.06)  # labels at the edges of two panels must not touch
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
        for number, axis in enumerate(axes.ravel()):
            if number >= len(panels):
                axis.set_axis_off()
                continue
            metric = panels[number]
            for place, method in enumerate(methods):
                if (method, metric) in of:
                    _draw(axis, place, of[method, metric])
            ink = mpl.rcParams["text.color"]
            axis.axvline(0, color=ink, linewidth=0.8)
            axis.set_title(f"{METRIC_LABELS[metric]}{', lower is better' if METRICS[metric] == 'lower' else ''}")
            axis.set_yticks(range(len(methods)), [words[method] for method in methods])
            axis.set_ylim(len(methods) - 0.4, -0.6)
            axis.tick_params(axis="y", length=0)
            axis.grid(visible=False, axis="y")
            _around_zero(axis)
            if METRICS[metric] == "lower":
                axis.invert_xaxis()
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(3, steps=[1, 2, 5, 10]))
            axis.tick_params(axis="x", labelsize=7)
            axis.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda value, _: f"{value:+g}" if value else "0"))
        return figure

    return plot(results.layout.figures, name, title, caption, draw)


def _draw(axis: mpl.axes.Axes, place: int, c: tables.Comparison) -> None:
    colour = EFFECT_COLOURS.get(c.effect, FAINT)
    paper = mpl.rcParams["axes.facecolor"]
    if c.low is not None and c.high is not None:
        axis.plot([c.low, c.high], [place, place], color=colour, linewidth=2.4, solid_capstyle="butt", alpha=0.75)
    if len(c.per_seed) > 1:
        axis.plot(c.per_seed, [place + 0.24] * len(c.per_seed), ".", color=colour, markersize=3.2, alpha=0.8)
    filled = colour if c.low is not None else paper
    axis.plot(c.difference, place, "o", markersize=5, color=colour, markerfacecolor=filled)


def _around_zero(axis: mpl.axes.Axes) -> None:
    """Let the axis hold 0 with some room on both sides, so that the line is never at the edge."""
    low, high = axis.get_xlim()
    reach = max(high, 0) - min(low, 0)
    axis.set_xlim(min(low, -0.12 * reach), max(high, 0.12 * reach))
