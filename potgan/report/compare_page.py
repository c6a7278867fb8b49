"""`potgan compare --out`: two or more runs, or whole benchmarks, side by side on one page.

What differs in settings, data and code; scores with paired differences; the same test pairs' images next to each other, where
they differ most first; and learning curves over each other. A benchmark is given as its folder `results/<benchmark>`, also of
another clone or of another DVC revision. Of benchmarks, every method that all of them have is compared, over the seeds that all
of them have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from potgan.common.errors import UserError
from potgan.common.files import new_folder, refuse_to_replace, write_json, write_text
from potgan.common.paths import TEMPLATES
from potgan.data.pairs import people_of
from potgan.data.pixels import read_image
from potgan.report import compare
from potgan.report.compare import Difference, Run
from potgan.report.figures import Exhibit, Grid, Photos, Picture, Strip, draw_mean, plot, write_grid
from potgan.report.tables import FEWEST_PEOPLE, bootstrap_interval, signed
from potgan.results import Results
from potgan.settings.layout import Layout
from potgan.settings.protocols import METRIC_LABELS, METRICS
from potgan.settings.reading import load

#: What the folder holds.
WRITTEN = ("index.html", "figures", "comparison.json")
#: The rows of pictures: of a comparison of runs, and of each method in one of benchmarks.
PICTURES, PICTURES_EACH = 16, 6
#: What images are sorted by, the first that all runs have pair by pair.
SORTED_BY = ("ssim", "foreground_ssim", "l1")
#: Settings that tell where a run came from, and not how it was made.
_PROVENANCE = (
    "benchmark",
    "seed",
    "iteration",
    "hashes",
    "versions",
    "device",
    "n_pairs",
    "measured_with",
    "targets",
    "protocol",
)
#: Column of progress.csv -> title of its panel.
_CURVES = {
    "validation_ssim": "Validation SSIM",
    "reconstruction": "L1, training",
    "perceptual": "Perceptual loss",
    "discriminator": "Loss of D",
}


@dataclass(frozen=True)
class Part:
    """The same method in each of the compared sides. sides: for each side its runs, one for each seed that all sides have."""

    title: str
    sides: tuple[tuple[Run, ...], ...]

    @property
    def first_seeds(self) -> list[Run]:
        return [runs[0] for runs in self.sides]


@dataclass(frozen=True)
class Scores:
    """One line of the table of scores: (value, difference, effect) for each side."""

    metric: str
    protocol: str
    lower: bool
    cells: tuple[tuple[str, str, str], ...]
    note: str


@dataclass(frozen=True)
class Shown:
    """A part as the page shows it."""

    title: str
    seeds: int
    scores: tuple[Scores, ...]
    pictures: Exhibit
    curves: Exhibit


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def read_parts(paths: Sequence[Path]) -> tuple[list[str], list[Part]]:
    """The names of the sides, and what is compared. Raises UserError as `compare.read_runs`, and for sides that have no method in
    common or are not of one kind.
    """
    if len(paths) < 2:
        raise UserError("compare: name at least two runs or benchmarks")
    kinds = {is_benchmark(path) for path in paths}
    if kinds == {False}:
        runs = compare.read_runs(list(paths))
        return [run.name for run in runs], [Part("", tuple((run,) for run in runs))]
    if len(kinds) > 1:
        alone = next(path for path in paths if not is_benchmark(path))
        raise UserError(
            f"{alone}: is no folder results/<benchmark> as the others are; compare runs with runs, benchmarks with benchmarks"
        )
    found = [_evaluated(path) for path in paths]
    parts = []
    for dataset, method in dict.fromkeys((dataset, method) for dataset, method, _ in found[0]):
        seeds = [seed for d, m, seed in found[0] if (d, m) == (dataset, method)]
        seeds = [seed for seed in seeds if all((dataset, method, seed) in one for one in found)]
        if seeds:
            by_seed = [compare.read_runs([one[dataset, method, seed] for one in found]) for seed in seeds]
            parts.append(Part(f"{method} on {dataset}", tuple(zip(*by_seed, strict=True))))
    if not parts:
        raise UserError(f"{paths[0]}: has no evaluated method and seed in common with {', '.join(map(str, paths[1:]))}")
    return compare.names_of([Path(path) for path in paths]), parts


def is_benchmark(path: Path) -> bool:
    """Whether a folder is results/<benchmark>."""
    return (path / "config.yaml").is_file() and not (path / "scores.json").is_file()


def _evaluated(folder: Path) -> dict[tuple[str, str, int], Path]:
    """(data set, method, seed) -> the folder of each run that was evaluated, in the order of the configuration."""
    results = results_of(folder)
    found = {}
    for row in results.rows():
        run = results.layout.run(row.dataset, row.method, row.seed)
        if (run / "evaluate" / "scores.json").is_file():
            found[row.dataset, row.method, row.seed] = run
    if not found:
        raise UserError(f"{folder}: holds no scores.json; evaluate first")
    return found


def results_of(folder: Path) -> Results:
    """The results of the benchmark in a folder <root>/results/<benchmark>."""
    folder = folder.resolve()
    return Results(load(folder / "config.yaml"), Layout(folder.name, folder.parent.parent))


def _results_around(run: Run) -> Results | None:
    """The benchmark that a run's folder lies in, or None for a folder of `potgan score`."""
    folder = run.folder.resolve().parents[2] if len(run.folder.resolve().parents) > 3 else None
    return results_of(folder) if folder is not None and is_benchmark(folder) else None


# ---------------------------------------------------------------------------------------------------------------------
# Scores


def pooled(sides: Sequence[Sequence[Run]], protocol: str, metric: str) -> list[Difference]:
    """Each side's mean over seeds; from the second on with its difference from the first side's, seed by seed on the same pairs."""
    by_seed = [compare.score_differences(list(runs)).get((protocol, metric)) for runs in zip(*sides, strict=True)]
    if len(by_seed) == 1:
        return by_seed[0] or []
    found = []
    for number in range(len(sides)):
        entries = [row[number] for row in by_seed if row is not None]
        values = [entry.value for entry in entries]
        if len(entries) < len(by_seed) or None in values:
            found.append(
                replace(entries[0], value=None, difference=None, low=None, high=None, note="not in every seed")
            )
            continue
        one = replace(entries[0], value=float(np.mean(values)))
        if all(entry.difference is not None for entry in entries):
            low, high = _interval(sides[0], sides[number], protocol, metric) if number else (None, None)
            one = replace(one, difference=float(np.mean([entry.difference for entry in entries])), low=low, high=high)
        found.append(one)
    return found


def _interval(
    first: Sequence[Run], other: Sequence[Run], protocol: str, metric: str
) -> tuple[float | None, float | None]:
    """95 % bootstrap interval over people of the paired difference averaged over seeds; None where there is none."""
    differences = []
    for a, b in zip(first, other, strict=True):
        tables = [run.measurements[protocol].per_pair for run in (a, b)]
        if any(table is None or metric not in table for table in tables) or not _same_pairs(tables):
            return None, None
        differences.append((tables[1][metric] - tables[0][metric]).to_numpy())
    mean = np.mean(differences, axis=0)
    there = ~np.isnan(mean)
    people = people_of(tables[0]["from"])[there]
    return bootstrap_interval(mean[there], people) if len(set(people)) >= FEWEST_PEOPLE else (None, None)


def _same_pairs(tables: Sequence[pd.DataFrame]) -> bool:
    return all(table[["from", "to"]].equals(tables[0][["from", "to"]]) for table in tables)


def scores_of(part: Part) -> list[Scores]:
    """The table of scores of one method: each metric, and what each side has more than the first."""
    found = []
    for protocol, metric in compare.score_differences(part.first_seeds):
        row = pooled(part.sides, protocol, metric)
        if all(entry.value is None for entry in row):
            continue
        lower = METRICS.get(metric) == "lower"
        cells = []
        for entry in row:
            value = "–" if entry.value is None else f"{entry.value:.3f}"
            difference = "" if entry.difference is None else signed(entry.difference)
            effect = ""
            if entry.low is not None and entry.high is not None:
                difference += f" [{signed(entry.low)}, {signed(entry.high)}]"
                if entry.low > 0 or entry.high < 0:
                    effect = "hurts" if (entry.low > 0) == lower else "helps"
            cells.append((value, difference, effect))
        notes = "; ".join(dict.fromkeys(entry.note for entry in row if entry.note))
        found.append(Scores(METRIC_LABELS.get(metric, metric), protocol, lower, tuple(cells), notes))
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


def largest_differences(part: Part, count: int) -> tuple[str, pd.DataFrame] | str:
    """(metric, table) of the pairs on which the first seeds differ most, or the reason why there are none.

    Columns of the table: from, to, difference (the largest in size of any side minus the first) and one value per side, 0, 1 ...
    The order is by size; equal ones stand in the order of their names.
    """
    runs = part.first_seeds
    common = [id_ for id_ in runs[0].measurements if all(id_ in run.measurements for run in runs)]
    for protocol in common:
        tables = [run.measurements[protocol].per_pair for run in runs]
        if any(table is None for table in tables):
            continue
        if not _same_pairs(tables):
            return "the runs were measured on different pairs"
        for metric in SORTED_BY:
            if all(metric in table for table in tables):
                frame = tables[0][["from", "to"]].copy()
                for number, table in enumerate(tables):
                    frame[number] = table[metric]
                differences = np.stack([frame[number] - frame[0] for number in range(1, len(tables))])
                place = np.nan_to_num(np.abs(differences)).argmax(axis=0)
                frame["difference"] = np.take_along_axis(differences, place[None], 0)[0]
                order = frame["difference"].abs().rename("size")
                frame = frame.assign(size=order).sort_values(["size", "from", "to"], ascending=[False, True, True])
                return metric, frame.drop(columns="size").head(count)
    return "the runs have no table of single pairs under one protocol"


def pictures_of(part: Part, names: Sequence[str], number: int, folder: Path) -> Exhibit:
    """The pairs on which the sides differ most: source, target pose's image, and each side's image, with its score."""
    name = f"pairs-{number}"
    title = f"Where the images of {part.title} differ most" if part.title else "Where the images differ most"
    found = largest_differences(part, PICTURES_EACH if part.title else PICTURES)
    if isinstance(found, str):
        return Exhibit(name, title, f"{title}.", missing=found)
    metric, frame = found
    runs = part.first_seeds
    around = [_results_around(run) for run in runs]
    if any(results is None for results in around):
        return Exhibit(
            name,
            title,
            f"{title}.",
            missing="released results keep their images where they are; name runs of a benchmark",
        )
    results = around[0]
    dataset, seed = runs[0].settings["dataset"], runs[0].settings["seed"]
    try:
        images = [
            of.images(next(row for row in of.rows(dataset) if str(row) == "/".join(run.folder.resolve().parts[-3:])))
            for of, run in zip(around, runs, strict=True)
        ]
        photos = Photos(results, dataset, results.benchmark.datasets[dataset].image_size)
    except UserError as error:
        return Exhibit(name, title, f"{title}.", missing=str(error))
    rows = []
    for _, row in frame.iterrows():
        pair = (row["from"], row["to"])
        pictures: list[Picture | None] = [Picture(photos.image(pair[0]))]
        for side, files in enumerate(images):
            there = pair in files
            pictures.append(Picture(read_image(files[pair]), note=f"{row[side]:.3f}") if there else None)
        pictures.append(Picture(photos.image(pair[1])))
        rows.append(Strip(signed(row["difference"]), tuple(pictures), f"{pair[0]} → {pair[1]}"))
    grid = Grid(("Source", *names, "Target"), tuple(rows))
    write_grid(folder, name, grid)
    total = len(next(iter(runs[0].measurements.values())).per_pair)
    what = f"the largest difference to {names[0]}" if len(runs) > 2 else f"{names[1]} minus {names[0]}"
    label = METRIC_LABELS[metric]
    caption = (
        f"{title}: {len(rows)} of {total:,} test pairs, seed {seed}, sorted by the size of the difference in {label}. At the left "
        f"stands {what}, and under an image its own {label}."
    )
    return Exhibit(name, title, caption, grid=grid)


# ---------------------------------------------------------------------------------------------------------------------
# Learning curves


def curves_of(part: Part, names: Sequence[str], number: int, folder: Path) -> Exhibit:
    """The losses and the validation SSIM of each side over the iterations, over each other."""
    name = f"learning-{number}"
    title = f"Learning curves of {part.title}" if part.title else "Learning curves"
    frames = [[frame for run in runs if (frame := _progress(run)) is not None] for runs in part.sides]
    panels = {
        column: words
        for column, words in _CURVES.items()
        if any(column in frame and frame[column].notna().any() for of_side in frames for frame in of_side)
    }
    if not panels:
        return Exhibit(name, title, f"{title}.", missing="no side has a training with a progress table")
    caption = f"{title}. The loss terms are not weighted."
    if any(len(of_side) > 1 for of_side in frames):
        caption += " Strong lines are means over seeds, thin ones single seeds."

    def draw() -> Figure:
        figure = Figure(figsize=(2.4 * len(panels) + 0.6, 2.9), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, (column, words) in zip(axes, panels.items(), strict=True):
            for side, of_side in enumerate(frames):
                series = [f.set_index("iteration")[column].dropna() for f in of_side if column in f]
                draw_mean(axis, [values for values in series if len(values)], names[side], side, "")
            axis.set_title(words)
            axis.set_xlabel("iteration")
            axis.ticklabel_format(axis="x", style="plain")
        lines = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(3, len(names)), fontsize=8)
        return figure

    return plot(folder, name, title, caption, draw)


def _progress(run: Run) -> pd.DataFrame | None:
    path = run.folder / "train" / "progress.csv"
    return pd.read_csv(path) if path.is_file() else None


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def write_comparison(paths: Sequence[Path], out: Path) -> Path:
    """Write DIR/index.html, DIR/figures/*.png and DIR/comparison.json, and return the page's path.

    The folder appears whole or not at all. Raises UserError as `read_parts`, and for a folder that holds anything else.
    """
    names, parts = read_parts([Path(path) for path in paths])
    refuse_to_replace(out, "an earlier comparison", lambda path: path.name in WRITTEN)
    settings, provenance = _apart(compare.differing_settings(parts[0].first_seeds))
    with new_folder(out) as folder:
        shown = [
            Shown(
                part.title,
                len(part.sides[0]),
                tuple(scores_of(part)),
                pictures_of(part, names, number, folder / "figures"),
                curves_of(part, names, number, folder / "figures"),
            )
            for number, part in enumerate(parts, start=1)
        ]
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        page = environment.get_template("compare.html").render(
            names=names,
            parts=shown,
            settings=settings,
            provenance=provenance,
            measured_with=compare.measured_with_others(parts[0].first_seeds),
            value=compare.shown_value,
        )
        write_text(folder / "index.html", page)
        tree = {part.title: compare.as_tree(part.first_seeds) for part in parts}
        write_json(folder / "comparison.json", tree)
    return out / "index.html"


def _apart(settings: dict[str, list]) -> tuple[dict[str, list], dict[str, list]]:
    """Differing settings, and differing provenance."""
    is_provenance: Callable[[str], bool] = lambda key: key.split(".")[0] in _PROVENANCE  # noqa: E731
    return (
        {key: row for key, row in settings.items() if not is_provenance(key)},
        {key: row for key, row in settings.items() if is_provenance(key)},
    )
