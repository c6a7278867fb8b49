"""The first screen of the page, for each data set: a few pictures, the scores of this run, and what came of the paper's claims.

Everything here is said again further down, with all that belongs to it. So these pictures are three rows of the grid of
`figures.image_grid`, the scores are means over seeds, and a claim is judged by the comparisons of `tables.ablations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from potgan.report import tables
from potgan.report.figures import Exhibit, Grid, Strip
from potgan.results import Results
from potgan.settings.protocols import METRIC_LABELS, METRICS, PROTOCOLS
from potgan.settings.schema import Benchmark

#: Rows of the grid, and how many methods' images fit beside source, pose and target.
ROWS, METHODS = ("75 %", "median", "25 %"), 5
#: Columns of the table. The other metrics stand in the tables further down.
SHOWN = ("ssim", "foreground_ssim", "mask_ssim", "lpips", "is", "fid")
#: What claims are judged by: the paper's own two metrics of single images, and SSIM of the person alone.
JUDGED = ("ssim", "foreground_ssim", "mask_ssim")


@dataclass(frozen=True)
class Claim:
    """What the paper says of a part of PoT-GAN, where it says so, and the model that lacks this part.

    controls: models that lack the part, too, and not what comes along with it (parameters, or the sight of the masks). A claim that
    does not hold against them holds in part.
    """

    text: str
    place: str
    without: str
    controls: tuple[str, ...] = ()


CLAIMS = (
    Claim(
        "The pose transform module makes better images",
        "Section III",
        "no-pose-transform",
        ("wide-no-pose-transform", "masks-without-warps", "identity-grids"),
    ),
    Claim("L_recon makes better images", "TABLE IV", "no-recon"),
    Claim("The guided filter makes better images", "Fig. 10", "no-guided-filter"),
)
OTHERS = Claim("PoT-GAN is better than earlier methods", "TABLE I to III", "")


@dataclass(frozen=True)
class Verdict:
    """What came of a claim.

    verdict: holds | holds in part | does not hold | not shown | not tested | not judged. evidence: (words, effect) of each
    comparison behind it.
    """

    claim: Claim
    verdict: str
    evidence: tuple[tuple[str, str], ...] = ()
    reason: str = ""  # why there is none

    @property
    def effect(self) -> str:
        """The name of its colour."""
        return _colour(self.verdict)


@dataclass(frozen=True)
class ScoreRow:
    """One line of the table. cells: (value, deviation over seeds, mark) or None for each metric."""

    label: str
    role: str  # main | model | external | reference
    cells: tuple[tuple[str, str, str] | None, ...]


@dataclass(frozen=True)
class Glance:
    """The first screen of one data set. heads: (metric, arrow to its better side, protocol's id where it is not the paper's)."""

    label: str
    budget: str
    grid: Grid | None
    missing: str
    left_out: int  # methods whose images are not in this grid
    heads: tuple[tuple[str, str, str], ...]
    rows: tuple[ScoreRow, ...]
    verdicts: tuple[Verdict, ...]
    pairs: int


def glance(
    results: Results, dataset: str, grid: Exhibit, scores: pd.DataFrame, comparisons: Sequence[tables.Comparison]
) -> Glance:
    """The first screen of a data set. grid: that of `figures.image_grid`. scores, comparisons: as from `tables`."""
    benchmark = results.benchmark
    of = scores[scores["dataset"] == dataset]
    here = [comparison for comparison in comparisons if comparison.dataset == dataset]
    metrics = [metric for metric in SHOWN if of.loc[of["metric"] == metric, "value"].notna().any()]
    chosen, left_out = _few(grid.grid) if grid.grid is not None else (None, 0)
    return Glance(
        label=tables.group_label(benchmark, dataset),
        budget=budget(benchmark, dataset, of),
        grid=chosen,
        missing=grid.missing,
        left_out=left_out,
        heads=tuple(_head(benchmark, metric) for metric in metrics),
        rows=tuple(score_rows(benchmark, dataset, of, metrics)),
        verdicts=tuple(unlearned(benchmark, of) or verdicts(benchmark, here)),
        pairs=int(of["n_pairs"].max()) if len(of) else 0,
    )


def budget(benchmark: Benchmark, dataset: str, scores: pd.DataFrame) -> str:
    """What the main model was trained with, such as "3,000 iterations of 4 pairs, 1 seed". scores: of the data set."""
    training = benchmark.run_settings(dataset, benchmark.main_model, benchmark.seeds[0]).training
    seeds, wanted = scores.loc[scores["method"] == benchmark.main_model, "seed"].nunique(), len(benchmark.seeds)
    pairs = f"{training.batch_size} pair" + ("s" if training.batch_size > 1 else "")
    there = f"{seeds}" if seeds == wanted else f"{seeds} of {wanted}"
    return f"{training.iterations:,} iterations of {pairs}, {there} seed" + ("s" if wanted > 1 else "")


def _few(grid: Grid) -> tuple[Grid, int]:
    """Three rows of the grid with source, target pose, the first methods and target; and how many methods are left out."""
    first = grid.columns.index("Target mask") + 1
    methods = range(first, len(grid.columns) - 1)
    columns = [
        grid.columns.index("Source"),
        grid.columns.index("Target pose"),
        *methods[:METHODS],
        len(grid.columns) - 1,
    ]
    rows = [
        Strip(row.label, tuple(row.pictures[column] for column in columns), row.title)
        for row in grid.rows
        if row.label in ROWS
    ]
    return Grid(tuple(grid.columns[column] for column in columns), tuple(rows)), max(0, len(methods) - METHODS)


def _head(benchmark: Benchmark, metric: str) -> tuple[str, str, str]:
    own = PROTOCOLS[benchmark.protocol].metric_id(metric)
    papers = PROTOCOLS[tables.PAPER_PROTOCOL].metric_id(metric)
    arrow = {"higher": "\u2191", "lower": "\u2193"}[METRICS[metric]]
    return METRIC_LABELS[metric], arrow, "" if own == papers else own


def score_rows(benchmark: Benchmark, dataset: str, scores: pd.DataFrame, metrics: Sequence[str]) -> list[ScoreRow]:
    """Models, released results and references that were measured, with their means over seeds; the best model is marked."""
    means = scores.groupby(["method", "metric"])["value"].agg(["mean", "std", "count"])
    rows: list[tuple[str, str]] = []
    for method in benchmark.methods_of(dataset):
        if method in benchmark.models:
            rows.append((method, "main" if method == benchmark.main_model else "model"))
        elif method in benchmark.external_methods:
            rows.append((method, "external"))
        elif method in ("copy-source", "mean-image"):
            rows.append((method, "reference"))
    rows = [(method, role) for method, role in rows if method in means.index.get_level_values(0)]
    best: dict[str, str] = {}  # metric -> the best model's value as it is printed; models that share it are all marked
    for metric in metrics:
        trained = {
            m: means.loc[(m, metric), "mean"] for m, r in rows if r in ("main", "model") and (m, metric) in means.index
        }
        trained = {method: value for method, value in trained.items() if pd.notna(value)}
        if len(trained) > 1:
            best[metric] = f"{(max if METRICS[metric] == 'higher' else min)(trained.values()):.3f}"
    found = []
    for method, role in rows:
        cells: list[tuple[str, str, str] | None] = []
        for metric in metrics:
            there = (method, metric) in means.index and pd.notna(means.loc[(method, metric), "mean"])
            if not there:
                cells.append(None)
                continue
            mean, deviation, count = means.loc[(method, metric)]
            spread = f"±\u00a0{deviation:.3f}" if count > 1 and pd.notna(deviation) else ""
            is_best = role in ("main", "model") and best.get(metric) == f"{mean:.3f}"
            cells.append((f"{mean:.3f}", spread, "best" if is_best else ""))
        label, seeds = tables.method_label(benchmark, method), scores.loc[scores["method"] == method, "seed"].nunique()
        if seeds < len(benchmark.seeds_of(method)):
            label += f" ({seeds} of {len(benchmark.seeds_of(method))} seeds)"
        found.append(ScoreRow(label, role, tuple(cells)))
    return found


def verdicts(benchmark: Benchmark, comparisons: Sequence[tables.Comparison]) -> list[Verdict]:
    """What came of each of CLAIMS, and of OTHERS. comparisons: of one data set, each a model minus the main one."""
    judged = [c for c in comparisons if c.against == benchmark.main_model and c.metric in JUDGED]
    found = []
    for claim in CLAIMS:
        of = [c for c in judged if c.method == claim.without]
        if of:
            evidence = [(f"{METRIC_LABELS[c.metric]} {gain_text(c)}", gain(c)) for c in of]
            verdict = judge([effect for _, effect in evidence])
            against = outcomes_against(claim.controls, judged)
            if verdict == "holds" and set(against.values()) - {"holds"}:
                verdict = "holds in part"
            found.append(Verdict(claim, verdict, (*evidence, *in_words(against))))
        else:
            found.append(Verdict(claim, "not tested", reason="no model of this benchmark lacks this part alone"))
    others = [m for m in benchmark.models if benchmark.method_of(m) != "potgan"]
    outcomes = outcomes_against(others, judged)
    if not outcomes:
        return [*found, Verdict(OTHERS, "not tested", reason="no other method was trained in this benchmark")]
    kinds = set(outcomes.values())
    if len(kinds) == 1:
        (whole,) = kinds
    else:
        whole = "holds in part" if kinds & {"holds", "holds in part"} else "does not hold"
    return [*found, Verdict(OTHERS, whole, in_words(outcomes))]


def unlearned(benchmark: Benchmark, scores: pd.DataFrame) -> list[Verdict]:
    """No verdict at all, with the reason, where the main model is no better than the mean training image; else an empty list.

    Such a training was too short to say anything of its parts. scores: of the data set.
    """
    means = scores[scores["metric"] == "ssim"].groupby("method")["value"].mean()
    if (
        not {benchmark.main_model, "mean-image"} <= set(means.index)
        or means[benchmark.main_model] > means["mean-image"]
    ):
        return []
    reason = (
        f"{benchmark.main_model} is no better than the mean training image (SSIM {means[benchmark.main_model]:.3f} against "
        f"{means['mean-image']:.3f}): it has not learnt enough"
    )
    return [Verdict(claim, "not judged", reason=reason) for claim in (*CLAIMS, OTHERS)]


def outcomes_against(methods: Sequence[str], judged: Sequence[tables.Comparison]) -> dict[str, str]:
    """Method -> whether the main model is better than it, as the verdict of a claim; of those that were compared."""
    found = {method: [gain(c) for c in judged if c.method == method] for method in methods}
    return {method: judge(effects) for method, effects in found.items() if effects}


def in_words(outcomes: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """The main model beside other methods, such as ("worse than adgan", its colour)."""
    words = {
        "holds": "better than",
        "holds in part": "in part better than",
        "does not hold": "worse than",
        "not shown": "no difference shown to",
    }
    named = {verdict: [m for m, outcome in outcomes.items() if outcome == verdict] for verdict in words}
    return tuple(
        (f"{said} {', '.join(named[verdict])}", _colour(verdict)) for verdict, said in words.items() if named[verdict]
    )


def gain(c: tables.Comparison) -> str:
    """The effect of having what `c.method` lacks: helps | hurts | none."""
    return {"helps": "hurts", "hurts": "helps"}.get(c.effect, "none")


def gain_text(c: tables.Comparison) -> str:
    """The main model minus `c.method`, with its interval, such as "+0.012 [+0.010, +0.014]"."""
    interval = "" if c.low is None else f" [{tables.signed(-c.high)}, {tables.signed(-c.low)}]"
    return tables.signed(-c.difference) + interval


def judge(effects: Sequence[str]) -> str:
    """The verdict of a claim, from the effects in each metric: helps | hurts | none.

    It holds if all metrics are better, and in part if some are.
    """
    if "helps" in effects:
        return "holds" if set(effects) == {"helps"} else "holds in part"
    return "does not hold" if "hurts" in effects else "not shown"


def _colour(verdict: str) -> str:
    return {"holds": "helps", "does not hold": "hurts"}.get(verdict, "none")
