"""`potgan compare --out`: two or more runs, or whole benchmarks, side by side on one page.

What differs in settings, data and code; scores with paired differences; the same test pairs' images next to each other, where
they differ most first; and learning curves over each other. A benchmark is given as its folder `results/<benchmark>`, also of
another clone or of another DVC revision. Of benchmarks, every method that all of them have is compared, over the seeds that all
of them have.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from potgan.common.errors import UserError
from potgan.common.files import new_folder, refuse_to_replace, write_json, write_text
from potgan.data.pixels import read_image, resize
from potgan.report import compare
from potgan.report.compare import Difference, Run
from potgan.report.figures import Exhibit, Grid, Picture, Strip, draw_mean, plot, write_grid
from potgan.report.page import render
from potgan.report.tables import interval_over_people, signed
from potgan.results import Results, Row
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
    """The same method in each of the compared sides.

    sides: for each side its runs, one for each seed that all sides have. seeds: what these are, where benchmarks are compared.
    """

    title: str
    sides: tuple[tuple[Run, ...], ...]
    seeds: tuple[int, ...] = ()

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
    seeds: tuple[int, ...]
    scores: tuple[Scores, ...]
    pictures: Exhibit
    curves: Exhibit


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def read_parts(paths: Sequence[Path]) -> tuple[list[str], list[Part], list[str]]:
    """The names of the sides, what is compared, and which runs are not, since not all sides have them.

    Raises UserError as `compare.read_runs`, and for sides that have no run in common or are not of one kind.
    """
    if len(paths) < 2:
        raise UserError("compare: name at least two runs or benchmarks")
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: does not exist; name a run's folder or results/<benchmark>")
    kinds = {is_benchmark(path) for path in paths}
    if kinds == {False}:
        runs = compare.read_runs(list(paths))
        return [run.name for run in runs], [Part("", tuple((run,) for run in runs))], []
    if len(kinds) > 1:
        alone = next(path for path in paths if not is_benchmark(path))
        raise UserError(
            f"{alone}: has no config.yaml, and is no folder results/<benchmark> as others here are; compare runs with runs, and "
            "benchmarks with benchmarks"
        )
    found = [_evaluated(path) for path in paths]
    parts, left_out = [], []
    for dataset, method in dict.fromkeys((dataset, method) for one in found for dataset, method, _ in one):
        title = f"{method} on {dataset}"
        seeds = sorted({seed for one in found for d, m, seed in one if (d, m) == (dataset, method)})
        common = [seed for seed in seeds if all((dataset, method, seed) in one for one in found)]
        left_out += [f"{title}, seed {seed}" for seed in seeds if seed not in common]
        if common:
            by_seed = [compare.read_runs([one[dataset, method, seed] for one in found]) for seed in common]
            parts.append(Part(title, tuple(zip(*by_seed, strict=True)), tuple(common)))
    if not parts:
        raise UserError(f"{paths[0]}: has no evaluated run in common with {', '.join(map(str, paths[1:]))}")
    return compare.names_of([Path(path) for path in paths]), parts, left_out


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
    """The results of the benchmark in a folder <root>/results/<benchmark>. Raises UserError for a folder in another place."""
    # A link is not followed, because what it points to may have another name.
    folder = Path(os.path.normpath(folder.absolute()))
    if folder.parent.name != "results":
        raise UserError(f"{folder}: a benchmark lies in a folder named results; move it to results/{folder.name}")
    return Results(load(folder / "config.yaml"), Layout(folder.name, folder.parent.parent))


def _results_around(run: Run) -> Results | None:
    """The benchmark that a run's folder lies in, or None for a folder of `potgan score`."""
    parents = Path(os.path.normpath(run.folder.absolute())).parents
    there = len(parents) > 3 and is_benchmark(parents[2]) and parents[3].name == "results"
    return results_of(parents[2]) if there else None


# ---------------------------------------------------------------------------------------------------------------------
# Scores


def pooled(sides: Sequence[Sequence[Run]]) -> dict[tuple[str, str], list[Difference]]:
    """As `compare.score_differences`, with means over seeds: the difference is taken seed by seed on the same pairs.

    There is a difference only if every seed has one.
    """
    by_seed = [compare.score_differences(list(runs)) for runs in zip(*sides, strict=True)]
    if len(by_seed) == 1:
        return by_seed[0]
    keys = dict.fromkeys(key for of_seed in by_seed for key in of_seed)
    return {key: [_mean(by_seed, sides, key, number) for number in range(len(sides))] for key in keys}


def _mean(
    by_seed: Sequence[dict[tuple[str, str], list[Difference]]],
    sides: Sequence[Sequence[Run]],
    key: tuple[str, str],
    number: int,
) -> Difference:
    """The mean over seeds of one metric of one side."""
    entries = [of_seed[key][number] for of_seed in by_seed if key in of_seed]
    notes = [entry.note for entry in entries if entry.note]
    found = replace(entries[0], value=None, difference=None, low=None, high=None)
    if len(entries) < len(by_seed) or any(entry.value is None for entry in entries):
        notes.append("not measured in every seed")
    else:
        found = replace(found, value=float(np.mean([entry.value for entry in entries])))
        if number and all(entry.difference is not None for entry in entries):
            found = replace(found, difference=float(np.mean([entry.difference for entry in entries])))
            tables = [run.measurements[key[0]].per_pair for side in (sides[0], sides[number]) for run in side]
            # Where a seed has no such table, its own note says so.
            if all(table is not None and key[1] in table for table in tables):
                if compare.same_pairs(tables):
                    first, other = np.array([table[key[1]] for table in tables]).reshape(2, len(by_seed), -1)
                    low, high, *_ = interval_over_people((other - first).mean(axis=0), tables[0]["from"])
                    found = replace(found, low=low, high=high)
                else:
                    notes.append("other pairs: no interval")
    return replace(found, note="; ".join(dict.fromkeys(notes)))


def as_shown(pooled_scores: dict[tuple[str, str], list[Difference]]) -> list[Scores]:
    """The table of scores of one method: each metric, and what each side has more than the first."""
    found = []
    for (protocol, metric), row in pooled_scores.items():
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


def largest_differences(part: Part, count: int) -> tuple[str, pd.DataFrame, int] | str:
    """(metric, table, number of all pairs) of the pairs on which the first seeds differ most, or the reason why there are none.

    Columns of the table: from, to, difference (the largest in size of any side minus the first) and one value per side, 0, 1 ...
    The order is by size; equal ones stand in the order of their names.
    """
    runs = part.first_seeds
    common = [id_ for id_ in runs[0].measurements if all(id_ in run.measurements for run in runs)]
    for protocol in common:
        tables = [run.measurements[protocol].per_pair for run in runs]
        if any(table is None for table in tables):
            continue
        if not compare.same_pairs(tables):
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
                return metric, frame.drop(columns="size").head(count), len(frame)
    return "the runs have no table of single pairs under one protocol"


def pictures_of(part: Part, names: Sequence[str], number: int, folder: Path) -> Exhibit:
    """The pairs on which the sides differ most: source, target pose's image, and each side's image, with its score."""
    name = f"pairs-{number}"
    title = f"Where the images of {part.title} differ most" if part.title else "Where the images differ most"
    found = largest_differences(part, PICTURES_EACH if part.title else PICTURES)
    if isinstance(found, str):
        return Exhibit(name, title, f"{title}.", missing=found)
    metric, frame, total = found
    runs = part.first_seeds
    around = [_results_around(run) for run in runs]
    if any(results is None for results in around):
        return Exhibit(
            name,
            title,
            f"{title}.",
            missing="released results keep their images where they are; name runs of a benchmark",
        )
    seed = runs[0].settings["seed"]
    rows = []
    try:
        images = []
        for results, run in zip(around, runs, strict=True):
            images.append(results.images(Row(*(run.settings[key] for key in ("dataset", "method", "seed")))))
        dataset = runs[0].settings["dataset"]
        if dataset not in around[0].benchmark.datasets:
            raise UserError(f"the configuration of {names[0]} no longer has the data set {dataset}")
        photos, size = around[0].photos(dataset), around[0].benchmark.datasets[dataset].image_size
        for _, row in frame.iterrows():
            pair = (row["from"], row["to"])
            source, target = (resize(photos.read(image), size) for image in pair)
            pictures: list[Picture | None] = [Picture(source)]
            for side, files in enumerate(images):
                there = pair in files and files[pair].is_file()
                pictures.append(Picture(read_image(files[pair]), note=f"{row[side]:.3f}") if there else None)
            pictures.append(Picture(target))
            rows.append(Strip(signed(row["difference"]), tuple(pictures), f"{pair[0]} → {pair[1]}"))
    except UserError as error:
        return Exhibit(name, title, f"{title}.", missing=str(error).rstrip("."))
    grid = Grid(("Source", *names, "Target"), tuple(rows))
    write_grid(folder, name, replace(grid, columns=tuple(map(drawn, grid.columns))))
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
                draw_mean(axis, [values for values in series if len(values)], drawn(names[side]), side, "")
            axis.set_title(words)
            axis.set_xlabel("iteration")
            axis.ticklabel_format(axis="x", style="plain")
        lines = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=min(3, len(names)), fontsize=8)
        return figure

    return plot(folder, name, title, caption, draw)


def _progress(run: Run) -> pd.DataFrame | None:
    path = run.folder / "train" / "progress.csv"
    return compare.read_table(path, "table", ["iteration"], "run `potgan train` again") if path.is_file() else None


def drawn(name: str) -> str:
    """A name as matplotlib draws it: a dollar sign begins no formula, and a first underscore hides no label."""
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def write_comparison(paths: Sequence[Path], out: Path) -> Path:
    """Write DIR/index.html, DIR/figures/*.png and DIR/comparison.json, and return the page's path.

    The folder appears whole or not at all. Raises UserError as `read_parts`, and for a folder that holds anything else.
    """
    refuse_to_replace(out, "an earlier comparison", lambda path: _is_ours(out, path))
    names, parts, left_out = read_parts([Path(path) for path in paths])
    settings, provenance = _apart(compare.differing_settings(parts[0].first_seeds))
    measured_with: dict[str, list[str]] = {}
    for part in parts:
        for runs in zip(*part.sides, strict=True):
            for sentence in compare.measured_with_others(list(runs)):
                measured_with.setdefault(sentence, []).append(part.title)
    with new_folder(out) as folder:
        scores = [pooled(part.sides) for part in parts]
        shown = [
            Shown(
                part.title,
                part.seeds,
                tuple(as_shown(scores[number - 1])),
                pictures_of(part, names, number, folder / "figures"),
                curves_of(part, names, number, folder / "figures"),
            )
            for number, part in enumerate(parts, start=1)
        ]
        page = render(
            "compare.html",
            names=names,
            parts=shown,
            settings=settings,
            provenance=provenance,
            measured_with={sentence: dict.fromkeys(titles) for sentence, titles in measured_with.items()},
            left_out=left_out,
            value=compare.shown_value,
        )
        write_text(folder / "index.html", page)
        trees = [
            {"title": part.title, "seeds": list(part.seeds), **compare.as_tree(part.first_seeds, of_part)}
            for part, of_part in zip(parts, scores, strict=True)
        ]
        write_json(folder / "comparison.json", {"left_out": left_out, "parts": trees})
    return out / "index.html"


def _is_ours(out: Path, path: Path) -> bool:
    """Whether an entry of the folder `out` was written by an earlier comparison, and holds nothing else."""
    if not (out / "comparison.json").is_file() or path.name not in WRITTEN:
        return False
    if path.name != "figures":
        return path.is_file()
    return path.is_dir() and all(file.match("pairs-*.png") or file.match("learning-*.png") for file in path.iterdir())


def _apart(settings: dict[str, list]) -> tuple[dict[str, list], dict[str, list]]:
    """Differing settings, and differing provenance."""
    apart: tuple[dict[str, list], dict[str, list]] = ({}, {})
    for key, row in settings.items():
        apart[key.split(".")[0] in _PROVENANCE][key] = row
    return apart
