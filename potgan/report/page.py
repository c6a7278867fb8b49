"""The report page of a benchmark: one HTML file with tables, figures, findings and provenance, and a browser of its pairs.

`write_report` reads top to bottom in the order of the page. Sentences under "Findings" are computed from the scores,
rows of the image grids are chosen by a rule that their captions state, and everything that cannot be shown says why.
The page needs no network. Without JavaScript only the browser of the pairs is missing: images and plots (light and dark)
are data URIs. The browser's names, scores and thumbnails lie in pairs/ beside the page.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from potgan.common.files import write_text
from potgan.common.paths import TEMPLATES
from potgan.common.typed import flattened
from potgan.report import environment, figures, tables
from potgan.report.ablation_plot import forest_plot
from potgan.report.costs import budgets_text, costs, duration
from potgan.report.data_section import datasheets
from potgan.report.glance import glance
from potgan.report.pair_browser import STRIP_HEIGHT, Browser, write_pairs
from potgan.report.sensitivity import sensitivities
from potgan.results import SENSITIVITY_METRICS, Results, Row
from potgan.settings.layout import Layout
from potgan.settings.protocols import METRIC_LABELS, METRICS, PROTOCOLS
from potgan.settings.reading import dump
from potgan.settings.schema import FIRST_CHECKPOINT_SUFFIX, Benchmark


def write_report(results: Results, published: str | Path = tables.PUBLISHED) -> Path:
    """Write reports/<benchmark>/index.html, figures/*.png and pairs/<data set>/; returns the page's path.

    Reads the scores, per-pair tables, generated images of the first seed, progress tables, key points and images of the
    benchmark. Raises UserError as `tables.collect`, or where a file that a finished stage must have written is missing.
    """
    benchmark, layout = results.benchmark, results.layout
    scores = tables.collect(results)
    comparisons = tables.ablations(results, scores)
    summary = {
        "caveats": caveats(benchmark, scores),
        "datasets": dataset_summary(results),
        "datasheets": datasheets(results),
        "models": model_summary(results),
        "budgets": budgets_text(costs(results)),
        "externals": external_summary(results),
        "findings": findings(results, scores, comparisons),
        "sensitivity": sensitivities(results),
    }
    drawn = {dataset: figures.figures_of(results, dataset) for dataset in benchmark.datasets}
    exhibits = [exhibit for of_dataset in drawn.values() for exhibit in of_dataset]
    glances = [glance(results, dataset, of_dataset[0], scores, comparisons) for dataset, of_dataset in drawn.items()]
    forests = [forest_plot(results, dataset, comparisons) for dataset in benchmark.datasets] if comparisons else []
    browsers: list[Browser] = [write_pairs(results, dataset) for dataset in benchmark.datasets]
    page = render(
        "report.html",
        benchmark=benchmark,
        protocol=PROTOCOLS[benchmark.protocol],
        **summary,
        tables=tables.build_tables(results, tables.read_published(published)),
        cell_text=tables.cell_text,
        seeds_text=tables.seeds_text,
        downloads=downloads(layout),
        comparisons=comparisons,
        glances=glances,
        forests=forests,
        comparison_text=(tables.metric_text, tables.difference_text, tables.interval_text),
        interval_note=tables.INTERVAL_NOTE,
        group_label=lambda dataset: tables.group_label(benchmark, dataset),
        warps=warp_table(results),
        cameras=camera_table(results),
        figures=exhibits,
        browsers=browsers,
        strip_height=STRIP_HEIGHT,
        provenance=provenance(results, scores),
        configuration=dump(benchmark),
    )
    path = layout.reports / "index.html"
    write_text(path, page)
    return path


def render(template: str, **values: object) -> str:
    """Fill a template of this room. What a template names and is not given is an error; texts are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def downloads(layout: Layout) -> dict[str, list[str]]:
    """stem -> names of the files of that table which lie in tables/, such as {"table1": ["table1.csv", ...]}."""
    found: dict[str, list[str]] = {}
    for path in sorted((layout.reports / "tables").glob("*.*")):
        if path.suffix in (".csv", ".md", ".tex"):
            found.setdefault(path.stem, []).append(path.name)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Head


def caveats(benchmark: Benchmark, scores: pd.DataFrame) -> list[str]:
    """What the reader must know before looking at a number."""
    protocol = PROTOCOLS[benchmark.protocol]
    found = []
    if protocol.feature_network != PROTOCOLS[tables.PAPER_PROTOCOL].feature_network:
        found.append(
            f"IS and FID are not Inception's: they go through `{protocol.feature_network}`. They compare rows of one "
            "table with each other and with nothing else, least of all with published values. That network learnt to name "
            "the colours of clothes: it sees colour and texture, and hardly sees a body out of shape."
        )
    some = next(iter(benchmark.datasets))
    potgan = [model for model in benchmark.models if benchmark.method_of(model) == "potgan"]
    generators = {model: benchmark.run_settings(some, model, 0).generator for model in potgan}
    main = generators[benchmark.main_model]
    without = {model: generator for model, generator in generators.items() if not generator.pose_transform}
    unseen = [model for model, generator in without.items() if not generator.pose_encoder_masks]
    smaller = [model for model, generator in without.items() if generator.width <= main.width]
    for models, what in ((smaller, "fewer parameters"), (unseen, "no sight of the pose masks")):
        if models and main.pose_transform:
            names = ", ".join(f"`{model}`" for model in models)
            found.append(
                f"Without the pose transform module, and so with {what}: {names}. A difference to "
                f"{'it' if len(models) == 1 else 'them'} is not the warps' alone."
            )
    for name, dataset in benchmark.datasets.items():
        if dataset.kind == "synthetic":
            found.append(f"{dataset.label}: rendered figures, not photographs. What helps here need not help there.")
        elif dataset.allow_partial or name not in tables.PAPER_DATASETS:
            found.append(f"{dataset.label}: a part of the published data set; nothing here compares with its tables.")
    for name, reason in benchmark.absent.items():
        found.append(f"Without data set `{name}`: {reason}.")
    seeds = len(benchmark.seeds)
    if seeds == 1:
        found.append("One seed per model: nothing here speaks about how much another training would differ.")
    else:
        found.append(f"{seeds} seeds per model: the spread over them is itself known only roughly.")
    for (name, warning), part in scores[scores["warning"] != ""].groupby(["dataset", "warning"], sort=False):
        metrics = ", ".join(METRIC_LABELS[metric] for metric in part["metric"].unique())
        found.append(f"{tables.group_label(benchmark, name)}, {metrics}: {warning}")
    wanted = {(d, m, s) for d in benchmark.datasets for m in benchmark.methods_of(d) for s in benchmark.seeds_of(m)}
    absent = sorted(wanted - set(scores[["dataset", "method", "seed"]].itertuples(index=False, name=None)))
    if absent:
        runs = ", ".join(f"{d}/{m}/seed{s}" for d, m, s in absent)
        found.append(f"Incomplete: not evaluated are {runs}.")
    return found


def dataset_summary(results: Results) -> list[dict[str, object]]:
    """Images, identities and pairs per split of each data set, from `images.csv` and `pairs.json`."""
    benchmark = results.benchmark
    summaries = []
    for name, dataset in benchmark.datasets.items():
        images = results.photos(name).table
        pairs = results.pairs_record(name)
        splits = []
        for split in sorted(set(images["split"]) | set(pairs["splits"]), key=_split_order):
            # What the pairs use; of a split without pairs, what there is.
            there = images[images["split"] == split]
            unused = {"images": len(there), "identities": there["person"].nunique(), "pairs": None}
            splits.append({"split": split, **unused, **pairs["splits"].get(split, {})})
        height, width = dataset.image_size
        summaries.append(
            {
                "label": tables.group_label(benchmark, name),
                "size": f"{height} × {width}",
                "images": len(images),
                "splits": splits,
                "rule": pairs["rule"],
                "overlap": sum(pairs["identity_overlap"].values()),
            }
        )
    return summaries


def _split_order(split: str) -> tuple[int, str]:
    order = ("train", "validation", "test")
    return (order.index(split) if split in order else len(order), split)


def model_summary(results: Results) -> list[dict[str, object]]:
    """What each model is and what it cost: one row per data set and model."""
    benchmark = results.benchmark
    rows = []
    known = {(cost.dataset, cost.model): cost for cost in costs(results)}
    for dataset in benchmark.datasets:
        for model in (name for name in benchmark.methods_of(dataset) if name in benchmark.models):
            cost = known.get((dataset, model))
            trained_as = benchmark.trained_as(dataset, model)
            settings = benchmark.run_settings(dataset, model, benchmark.seeds[0])
            records = [results.scores(Row(dataset, model, seed)) for seed in benchmark.seeds]
            trainings = [record.training for record in records if record and record.training]
            walls = [training.wall_seconds for training in trainings]
            rows.append(
                {
                    "dataset": tables.group_label(benchmark, dataset),
                    "model": model,
                    "differs": ", ".join(f"{key} = {value}" for key, value in _leaves(benchmark.models[model]))
                    or "the settings below",
                    "iterations": f"{settings.training.iterations:,}",
                    "parameters": _parameters(trainings[0].parameters) if trainings else "–",
                    "multiply_adds": f"{cost.multiply_adds / 1e9:.3g} G" if cost else "–",
                    "inputs": cost.inputs_text if cost else "–",
                    "pairs_seen": cost.seen_text if cost else "–",
                    "seeds": str(len(benchmark.seeds)),
                    "wall": duration(float(np.mean(walls))) if walls and trained_as == model else "–",
                    "shared": trained_as if trained_as != model else "",
                    "devices": ", ".join(sorted({record.device for record in records if record and record.device})),
                }
            )
    return rows


def external_summary(results: Results) -> list[dict[str, str]]:
    """What each external method's images are, from its `generate.json`: one row per method that was imported."""
    benchmark = results.benchmark
    rows = []
    for method, entry in benchmark.external_methods.items():
        record = results.generation(results.first(entry.dataset, method))
        if entry.dataset not in benchmark.datasets or record is None:
            continue
        targets = {"dataset": "the data set's", "strip": "those of its strips"}
        rows.append(
            {
                "method": tables.method_label(benchmark, method),
                "dataset": tables.group_label(benchmark, entry.dataset),
                "folder": Path(entry.images).name,
                "files": f"{record.file_format.upper()}, {record.panels} panel{'s' if record.panels > 1 else ''}",
                "targets": targets.get(record.targets, Path(record.targets).name),
                "sha256": record.files_sha256,
            }
        )
    return rows


def _parameters(counts: dict[str, int]) -> str:
    return f"{counts['generator'] / 1e6:.2f} M"


def _leaves(tree: dict, prefix: str = "") -> list[tuple[str, str]]:
    """[("generator.pose_transform", "no"), ...] of nested settings or hashes."""
    words = {True: "yes", False: "no"}
    return [
        (key, words[value] if isinstance(value, bool) else str(value)) for key, value in flattened(tree, prefix).items()
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Findings


def findings(results: Results, scores: pd.DataFrame, comparisons: list[tables.Comparison]) -> list[dict[str, object]]:
    """Sentences computed from the scores: groups of {label, items}, an item being {effect, label, text}.

    The models of other methods are no parts of the main one, so that they have a group of their own.
    """
    benchmark = results.benchmark
    main = benchmark.main_model
    baselines = {
        main + FIRST_CHECKPOINT_SUFFIX: "its first checkpoint",
        "copy-source": "copying the source image",
        "mean-image": "the mean training image",
    }
    groups = []
    for dataset in benchmark.datasets:
        label = tables.group_label(benchmark, dataset)
        learned = []
        for other, words in baselines.items():
            comparison = tables.compare(results, scores, dataset, main, other, "ssim")
            if comparison is not None:
                learned.append(_finding(comparison, words))
        learned += _warp_findings(results, dataset)
        shown = [c for c in comparisons if c.dataset == dataset and c.metric in ("ssim", "mask_ssim")]
        others = [c for c in shown if c.method in benchmark.models and benchmark.method_of(c.method) != "potgan"]
        parts = [_finding(c, c.against) for c in shown if c not in others]
        groups.append({"label": f"{label}: does the generator learn?", "items": learned})
        groups.append({"label": f"{label}: do its parts matter?", "items": parts})
        if others:
            words = {"helps": "better", "hurts": "worse"}
            found = [_finding(c, c.against) for c in others]
            found = [finding | {"label": words.get(finding["effect"], finding["effect"])} for finding in found]
            groups.append({"label": f"{label}: how do other methods compare?", "items": found})
    return groups


def _finding(c: tables.Comparison, against: str) -> dict[str, str]:
    return {"effect": c.effect, "label": c.effect, "text": _sentence(c, against)}


def _sentence(c: tables.Comparison, against: str) -> str:
    """A comparison as a sentence. against: the other side, in words."""
    runs = f"{c.n_pairs:,} pairs, {c.n_seeds} seed" + ("s" if c.n_seeds > 1 else "")
    return (
        f"{c.method} against {against}: {METRIC_LABELS[c.metric]} {c.method_value:.3f} against {c.against_value:.3f}, "
        f"{tables.difference_text(c)}, 95\u00a0% interval {tables.interval_text(c)} ({runs}). "
        f"{c.verdict[0].upper()}{c.verdict[1:]}."
    )


def _warp_findings(results: Results, dataset: str) -> list[dict[str, str]]:
    benchmark = results.benchmark
    frame = tables.warp_errors(results)
    frame = frame[(frame["dataset"] == dataset) & (frame["method"] == benchmark.main_model)]
    if frame.empty:
        return []
    ratio = frame["end_point_error"] / frame["identity_end_point_error"]
    best, worst = frame.loc[ratio.idxmin()], frame.loc[ratio.idxmax()]
    seeds = f"{int(best['n_seeds'])} seed" + ("s" if best["n_seeds"] > 1 else "")
    text = (
        f"Learned warps of {benchmark.main_model} against not moving at all: nearer to the true motion at "
        f"{int((ratio < 1).sum())} of {len(frame)} scales. Mean end-point error at the best, stride "
        f"{int(best['stride'])}: {best['end_point_error']:.2f} px against {best['identity_end_point_error']:.2f} px; "
        f"at the worst, stride {int(worst['stride'])}: {worst['end_point_error']:.2f} px ({seeds}, no interval)."
    )
    return [{"effect": "not judged", "label": "not judged", "text": text}]


def warp_table(results: Results) -> list[dict[str, object]]:
    """Rows of the end-point-error table: one per data set, with a column per scale; references first."""
    benchmark = results.benchmark
    frame = tables.warp_errors(results)
    groups = []
    for dataset, part in frame.groupby("dataset", sort=False):
        strides = sorted(set(part["stride"]))
        first = part.drop_duplicates("stride").set_index("stride")
        rows = []
        for reference, name in tables.WARP_REFERENCES.items():
            errors = first[f"{reference}_end_point_error"]
            if errors.notna().any():
                rows.append((name, [errors[s] for s in strides]))
        references = len(rows)
        for method, values in part.groupby("method", sort=False):
            errors = values.set_index("stride")["end_point_error"]
            rows.append((tables.method_label(benchmark, method), [errors.get(s) for s in strides]))
        of = {"label": tables.group_label(benchmark, dataset), "strides": strides}
        groups.append(of | {"rows": rows, "references": references})
    return groups


def camera_table(results: Results) -> list[dict[str, object]]:
    """Rows of the table of pairs by camera: one table per data set whose names tell cameras."""
    frame = tables.by_camera(results)
    groups = []
    for dataset, part in frame.groupby("dataset", sort=False):
        counts = part.drop_duplicates("cameras").set_index("cameras")["n_pairs"]
        rows = []
        for label, values in part.groupby("label", sort=False):
            of = values.set_index("cameras")
            cells = [of[metric].get(kind) for metric in SENSITIVITY_METRICS for kind in ("same", "different")]
            rows.append((label, [None if pd.isna(value) else float(value) for value in cells]))
        of = {"label": tables.group_label(results.benchmark, dataset), "counts": counts.to_dict(), "rows": rows}
        groups.append(of | {"metrics": list(SENSITIVITY_METRICS.values())})
    return groups


# ---------------------------------------------------------------------------------------------------------------------
# Provenance


#: Hashes that differ from run to run by their nature; the others should be the same for all runs of a data set.
RUN_HASHES = ("generated", "generator")


def provenance(results: Results, scores: pd.DataFrame) -> dict[str, object]:
    """What the numbers rest on: protocol ids and hash, mean mask area, hashes of data and weights, versions, devices; the
    commit and the machine that wrote the page, what each rule took, and when the scores were written.

    Each hash and version comes with the runs it belongs to, so that a mixture shows.
    """
    benchmark = results.benchmark
    protocol = PROTOCOLS[benchmark.protocol]
    shared: dict[tuple[str, str], list[str]] = {}
    versions: dict[tuple[str, str], list[str]] = {}
    of_runs, mask_areas = [], {}
    runs_of = {name: 0 for name in benchmark.datasets}
    for row in results.rows():
        record, run = results.scores(row), str(row)
        if record is None:
            continue
        runs_of[row.dataset] += 1
        for key, value in _leaves(record.hashes):
            if key in RUN_HASHES:
                of_runs.append((run, key, value))
            else:
                shared.setdefault((f"{row.dataset}: {key}", value), []).append(run)
        for leaf in (*_leaves(record.versions), ("device", record.device)):
            if leaf[1] is not None:
                versions.setdefault(leaf, []).append(run)
        if record.mask_area is not None:
            mask_areas[tables.group_label(benchmark, row.dataset)] = f"{record.mask_area:.3f}"
    total = sum(runs_of.values())
    measured = set(scores.loc[scores["value"].notna(), "metric"])
    return {
        "metrics": [
            (METRIC_LABELS[metric], protocol.metric_id(metric), METRICS[metric])
            for metric in METRICS
            if metric in measured
        ],
        "protocol_hash": scores["protocol_hash"].iloc[0],
        "mask_areas": mask_areas,
        "hashes": [
            (key, value, _which(runs, runs_of[runs[0].split("/")[0]])) for (key, value), runs in sorted(shared.items())
        ],
        "run_hashes": [entry for entry in of_runs if entry[2] != "None"],
        "versions": [(key, value, _which(runs, total)) for (key, value), runs in sorted(versions.items())],
        "commit": environment.commit(),
        "hardware": environment.hardware(),
        "times": wall_times(results),
        "scored": scored(results),
    }


@dataclass(frozen=True)
class WallTime:
    """What the jobs of one rule took. memory: the greatest resident set of one of them, where it was measured."""

    rule: str
    jobs: int
    total: str
    longest: str
    longest_job: str
    memory: str = "–"


def wall_times(results: Results) -> list[WallTime]:
    """From Snakemake's benchmark files, results/<benchmark>/benchmarks/<rule>/.../*.tsv; without them, of the trainings
    alone, which time themselves.

    A file of a job that the configuration no longer has is passed over, and so is one that a killed job left empty.
    """
    benchmark, layout = results.benchmark, results.layout
    folder = layout.times_folder
    paths = sorted((folder / "imitate").glob("*.tsv"))
    paths += [layout.times(*key) for key in _timed(benchmark)]
    trainings = {
        layout.times("train", dataset, model, seed): (dataset, model, seed)
        for dataset in benchmark.datasets
        for model in benchmark.models
        for seed in benchmark.seeds
    }
    jobs: dict[str, list[tuple[str, float, float]]] = {}
    for path in paths:
        try:
            table = pd.read_csv(path, sep="\t", na_values="-")
            seconds = float(table["s"].iloc[-1])
        except (FileNotFoundError, pd.errors.EmptyDataError, KeyError, IndexError):
            continue
        done = results.training(*trainings[path]) if path in trainings else None
        if done is not None:
            # Of a training that was stopped and went on, Snakemake's file has the last attempt alone.
            seconds = max(seconds, done.wall_seconds)
        memory = float(table["max_rss"].iloc[-1]) if "max_rss" in table else np.nan
        rule, *rest = path.relative_to(folder).with_suffix("").parts
        jobs.setdefault(rule, []).append(("/".join(rest), seconds, memory))
    if not jobs:
        for dataset in benchmark.datasets:
            for model in benchmark.models:
                for seed in benchmark.seeds if benchmark.trained_as(dataset, model) == model else ():
                    row = Row(dataset, model, seed)
                    record = results.scores(row)
                    if record is not None and record.training is not None:
                        jobs.setdefault("train", []).append((str(row), record.training.wall_seconds, np.nan))
    times = []
    for rule, entries in jobs.items():
        longest = max(entries, key=lambda entry: entry[1])
        memories = [memory for _, _, memory in entries if not np.isnan(memory)]
        times.append(
            WallTime(
                rule,
                len(entries),
                duration(sum(seconds for _, seconds, _ in entries)),
                duration(longest[1]),
                longest[0],
                f"{max(memories):,.0f} MiB" if memories else "–",
            )
        )
    return times


def _timed(benchmark: Benchmark) -> Iterator[tuple[str | int, ...]]:
    """(stage, data set, method, seed), as far as there are, of every job that Snakemake may have timed."""
    yield ("feature_network",)
    for dataset in benchmark.datasets:
        for stage in ("images", "keypoints", "pairs", "parsing"):
            yield stage, dataset
        for stage in ("train", "generate", "evaluate"):
            for method in benchmark.methods_of(dataset):
                for seed in benchmark.seeds_of(method):
                    yield stage, dataset, method, seed


def scored(results: Results) -> tuple[str, str]:
    """(first, last) UTC time at which a `scores.json` of this benchmark was written, as the files' own stamps tell."""
    layout = results.layout
    stamps = [
        path.stat().st_mtime
        for row in results.rows()
        if (path := layout.evaluate(row.dataset, row.method, row.seed) / "scores.json").exists()
    ]
    ends = [datetime.datetime.fromtimestamp(stamp, datetime.UTC) for stamp in (min(stamps), max(stamps))]
    return tuple(f"{end:%Y-%m-%d %H:%M} UTC" for end in ends)


def _which(runs: list[str], total: int) -> str:
    """In words, which of `total` runs these are."""
    if len(runs) == total:
        return "all runs"
    return ", ".join(runs) if len(runs) <= 3 else f"{len(runs)} of {total} runs, {runs[0]} first"
