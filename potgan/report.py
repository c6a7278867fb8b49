"""The report page of a benchmark: one self-contained HTML file with tables, figures, findings and provenance.

`write_report` reads top to bottom in the order of the page. Sentences under "Findings" are computed from the scores,
rows of the image grids are chosen by a rule that their captions state, and everything that cannot be shown says why.
The page needs no network and no JavaScript: images are data URIs, plots come in a light and a dark version.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from potgan import config, rendering, tables
from potgan.config import FIRST_CHECKPOINT_SUFFIX, Benchmark, Layout
from potgan.datasheet import datasheets
from potgan.errors import UserError
from potgan.files import read_json, write_bytes, write_text
from potgan.image_folder import ImageFolder, read_image, resize, scale_joints
from potgan.metrics.protocols import METRIC_LABELS, METRICS, PROTOCOLS
from potgan.pose_files import read_keypoints

#: Okabe and Ito's colours, which people with colour-blindness tell apart; markers differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
THEMES = {
    "light": {"ink": "#22262a", "paper": "#ffffff", "rule": "#d8dadd"},
    "dark": {"ink": "#d6d9dc", "paper": "#181b1e", "rule": "#3a3f44"},
}
PLOT_DPI = 160
#: Rows of the image grids: where in the order of the main model's per-pair SSIM, best first.
QUANTILES = (("best", 0.0), ("75 %", 0.25), ("median", 0.5), ("25 %", 0.75), ("worst", 1.0))
PREVIEW_IMAGES = 10
DRAWING_HEIGHT = 384  # pixels; skeletons of small images are drawn larger, so that they are readable
LOSSES = {
    "reconstruction": r"$L_{\mathrm{recon}}$, Eq. 4",
    "perceptual": r"$L_{\mathrm{per}}$, Eq. 5",
    "adversarial": r"$L_{\mathrm{gan}}$ of G, Eq. 7",
    "discriminator": r"$L$ of D, Eq. 6",
}


@dataclass(frozen=True)
class Picture:
    """One picture of an image grid. small: few pixels, to be enlarged without smoothing."""

    array: np.ndarray  # (H, W, 3) uint8 RGB
    note: str = ""
    small: bool = True

    @property
    def uri(self) -> str:
        return png_uri(encode_png(self.array))


@dataclass(frozen=True)
class Grid:
    """Pictures in rows and columns, with heads."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Picture, ...]], ...]  # (label, one picture per column)


@dataclass(frozen=True)
class Exhibit:
    """A figure of the page: a grid, or a plot as data URIs for light and dark; else the reason why it is not there."""

    name: str  # file stem under figures/
    caption: str
    grid: Grid | None = None
    light: str = ""
    dark: str = ""
    missing: str = ""


def write_report(benchmark: Benchmark, layout: Layout, published: str | Path = tables.PUBLISHED) -> Path:
    """Write reports/<benchmark>/index.html and figures/*.png; returns the page's path.

    Reads the scores, per-pair tables, generated images of the first seed, progress tables, key points and images of the
    benchmark. Raises UserError as `tables.collect`, or where a file that a finished stage must have written is missing.
    """
    scores = tables.collect(benchmark, layout)
    comparisons = tables.ablations(benchmark, layout, scores)
    summary = {
        "caveats": caveats(benchmark, scores),
        "datasets": dataset_summary(benchmark, layout),
        "datasheets": datasheets(benchmark, layout),
        "models": model_summary(benchmark, layout),
        "findings": findings(benchmark, layout, scores, comparisons),
    }
    figures: list[Exhibit] = []
    for dataset in benchmark.datasets:
        figures += [
            image_grid(benchmark, layout, dataset),
            filter_curve(benchmark, layout, dataset),
            learning_curves(benchmark, layout, dataset),
            data_preview(benchmark, layout, dataset),
        ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        benchmark=benchmark,
        protocol=PROTOCOLS[benchmark.protocol],
        **summary,
        tables=tables.build_tables(benchmark, layout, tables.read_published(published)),
        cell_text=tables.cell_text,
        comparisons=comparisons,
        comparison_text=(tables.metric_text, tables.difference_text, tables.interval_text),
        interval_note=tables.INTERVAL_NOTE,
        group_label=lambda dataset: tables.group_label(benchmark, dataset),
        warps=warp_table(benchmark, layout),
        figures=figures,
        provenance=provenance(benchmark, layout, scores),
        configuration=config.dump(benchmark),
    )
    path = layout.reports / "index.html"
    write_text(path, page)
    return path


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
    without = [m for m in benchmark.models if not benchmark.run_settings(some, m, 0).generator.pose_transform]
    if without and benchmark.run_settings(some, benchmark.main_model, 0).generator.pose_transform:
        found.append(
            f"{', '.join(f'`{m}`' for m in without)}: builds no pose transform module, so it has fewer parameters and never "
            "sees the pose masks. A difference to it is not the warps' alone."
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
    wanted = {(d, m, s) for d in benchmark.datasets for m in benchmark.methods for s in benchmark.seeds_of(m)}
    absent = sorted(wanted - set(scores[["dataset", "method", "seed"]].itertuples(index=False, name=None)))
    if absent:
        runs = ", ".join(f"{d}/{m}/seed{s}" for d, m, s in absent)
        found.append(f"Incomplete: not evaluated are {runs}.")
    return found


def dataset_summary(benchmark: Benchmark, layout: Layout) -> list[dict[str, object]]:
    """Images, identities and pairs per split of each data set, from `images.csv` and `pairs.json`."""
    summaries = []
    for name, dataset in benchmark.datasets.items():
        images = ImageFolder(layout.images(name)).table
        pairs = read_json(layout.pairs(name) / "pairs.json", "run `potgan pairs`")
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


def model_summary(benchmark: Benchmark, layout: Layout) -> list[dict[str, object]]:
    """What each model is and what it cost: one row per data set and model."""
    rows = []
    for dataset in benchmark.datasets:
        for model in benchmark.models:
            trained_as = benchmark.trained_as(dataset, model)
            settings = benchmark.run_settings(dataset, model, benchmark.seeds[0])
            records = [tables.read_scores(benchmark, layout, dataset, model, seed) for seed in benchmark.seeds]
            trainings = [record["training"] for record in records if record and record.get("training")]
            walls = [t["wall_seconds"] for t in trainings]
            rows.append(
                {
                    "dataset": tables.group_label(benchmark, dataset),
                    "model": model,
                    "differs": ", ".join(f"{key} = {value}" for key, value in _leaves(benchmark.models[model]))
                    or "the settings below",
                    "iterations": f"{settings.training.iterations:,}",
                    "parameters": _parameters(trainings[0].get("parameters")) if trainings else "–",
                    "seeds": ", ".join(map(str, benchmark.seeds)),
                    "wall": _duration(float(np.mean(walls))) if walls and trained_as == model else "–",
                    "shared": trained_as if trained_as != model else "",
                    "devices": ", ".join(sorted({r["device"] for r in records if r and r.get("device")})),
                }
            )
    return rows


def _parameters(counts: dict[str, int] | int | None) -> str:
    if counts is None:
        return "–"
    count = counts["generator"] if isinstance(counts, dict) else counts
    return f"{count / 1e6:.2f} M"


def _leaves(tree: dict, prefix: str = "") -> list[tuple[str, str]]:
    """[("generator.pose_transform", "no"), ...] of nested settings or hashes."""
    found = []
    for key, value in tree.items():
        if isinstance(value, dict):
            found += _leaves(value, f"{prefix}{key}.")
        else:
            text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
            found.append((f"{prefix}{key}", text))
    return found


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


# ---------------------------------------------------------------------------------------------------------------------
# Findings


def findings(
    benchmark: Benchmark, layout: Layout, scores: pd.DataFrame, comparisons: list[tables.Comparison]
) -> list[dict[str, object]]:
    """Sentences computed from the scores: groups of {label, items}, an item being {effect, text}."""
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
            comparison = tables.compare(benchmark, layout, scores, dataset, main, other, "ssim")
            if comparison is not None:
                learned.append({"effect": comparison.effect, "text": _sentence(comparison, words)})
        learned += _warp_findings(benchmark, layout, dataset)
        parts = [
            {"effect": c.effect, "text": _sentence(c, c.against)}
            for c in comparisons
            if c.dataset == dataset and c.metric in ("ssim", "mask_ssim")
        ]
        groups.append({"label": f"{label}: does the generator learn?", "items": learned})
        groups.append({"label": f"{label}: do its parts matter?", "items": parts})
    return groups


def _sentence(c: tables.Comparison, against: str) -> str:
    """A comparison as a sentence. against: the other side, in words."""
    runs = f"{c.n_pairs:,} pairs, {c.n_seeds} seed" + ("s" if c.n_seeds > 1 else "")
    return (
        f"{c.method} against {against}: {METRIC_LABELS[c.metric]} {c.method_value:.3f} against {c.against_value:.3f}, "
        f"{tables.difference_text(c)}, 95\u00a0% interval {tables.interval_text(c)} ({runs}). "
        f"{c.verdict[0].upper()}{c.verdict[1:]}."
    )


def _warp_findings(benchmark: Benchmark, layout: Layout, dataset: str) -> list[dict[str, str]]:
    frame = tables.warp_errors(benchmark, layout)
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
    return [{"effect": "not judged", "text": text}]


def warp_table(benchmark: Benchmark, layout: Layout) -> list[dict[str, object]]:
    """Rows of the end-point-error table: one per data set, with a column per scale; identity first."""
    frame = tables.warp_errors(benchmark, layout)
    groups = []
    for dataset, part in frame.groupby("dataset", sort=False):
        strides = sorted(set(part["stride"]))
        identity = part.drop_duplicates("stride").set_index("stride")["identity_end_point_error"]
        rows = [("Not moving (identity)", [identity[s] for s in strides])]
        for method, values in part.groupby("method", sort=False):
            errors = values.set_index("stride")["end_point_error"]
            rows.append((tables.method_label(benchmark, method), [errors.get(s) for s in strides]))
        groups.append({"label": tables.group_label(benchmark, dataset), "strides": strides, "rows": rows})
    return groups


# ---------------------------------------------------------------------------------------------------------------------
# Image grids


def image_grid(benchmark: Benchmark, layout: Layout, dataset: str) -> Exhibit:
    """Source, poses, mask, each model's image and target of five test pairs, as Figs. 1 and 5 to 7 of the paper.

    The pairs are evenly spaced quantiles of the main model's per-pair SSIM with the first seed; no eye picks them.
    """
    main, seed = benchmark.main_model, benchmark.seeds[0]
    name = f"grid-{dataset}"
    label = tables.group_label(benchmark, dataset)
    if tables.read_scores(benchmark, layout, dataset, main, seed) is None:
        return Exhibit(name, f"Synthesised images of {label}.", missing=f"{main} was not evaluated on {dataset}")
    per_pair = {
        model: tables.read_per_pair(layout, dataset, model, seed).set_index(["from", "to"])
        for model in benchmark.models
        if tables.read_scores(benchmark, layout, dataset, model, seed) is not None
    }
    generated = {model: _generated_files(layout, dataset, model, seed) for model in per_pair}
    photos = _Photos(layout, dataset, benchmark.datasets[dataset].image_size)
    masks = benchmark.run_settings(dataset, main, seed).masks
    rows = []
    for quantile, pair in quantile_pairs(per_pair[main].reset_index()):
        (source, source_joints), (target, target_joints) = photos.of(pair[0]), photos.of(pair[1])
        pictures = [
            Picture(source),
            Picture(_skeleton(source_joints, *photos.size), small=False),
            Picture(_skeleton(target_joints, *photos.size), small=False),
            Picture(_mask_picture(rendering.pose_mask(target_joints, *photos.size, masks.limb_radius))),
        ]
        for model, files in generated.items():
            pictures.append(Picture(read_image(files[pair]), note=f"{per_pair[model].loc[pair, 'ssim']:.3f}"))
        pictures.append(Picture(target))
        rows.append((quantile, tuple(pictures)))
    columns = ("Source", "Source pose", "Target pose", "Target mask", *generated, "Target")
    grid = Grid(columns, tuple(rows))
    _write_grid(layout, name, grid)
    caption = (
        f"Synthesised images of {label}, as in Figs. 1 and 5 to 7 of the paper. Rows are evenly spaced quantiles of "
        f"the per-pair SSIM of {main} with seed {seed} over all {len(per_pair[main]):,} test pairs: the best pair, "
        "75 %, the median, 25 %, and the worst. The number under an image is its SSIM."
    )
    return Exhibit(name, caption, grid=grid)


def quantile_pairs(per_pair: pd.DataFrame) -> list[tuple[str, tuple[str, str]]]:
    """(name of the quantile, (from, to)) for QUANTILES of the column ssim; ties are ordered by file name."""
    order = per_pair.sort_values(["ssim", "from", "to"], ascending=[False, True, True])
    picked = [(name, order.iloc[round(place * (len(order) - 1))]) for name, place in QUANTILES]
    return [(name, (row["from"], row["to"])) for name, row in picked]


def data_preview(benchmark: Benchmark, layout: Layout, dataset: str) -> Exhibit:
    """What a model is given: image, joints, heat maps and mask of evenly spaced test images."""
    photos = _Photos(layout, dataset, benchmark.datasets[dataset].image_size)
    settings = benchmark.run_settings(dataset, benchmark.main_model, benchmark.seeds[0]).masks
    usable = photos.test_names
    label = tables.group_label(benchmark, dataset)
    if not usable:
        return Exhibit(f"data-{dataset}", f"Inputs of {label}.", missing="no test image has key points")
    places = np.linspace(0, len(usable) - 1, min(PREVIEW_IMAGES, len(usable))).round().astype(int)
    kinds: dict[str, list[Picture]] = {"Image": [], "Joints": [], "Heat maps P": [], "Mask M": []}
    for name in (usable[i] for i in places):
        image, joints = photos.of(name)
        mask = rendering.pose_mask(joints, *photos.size, settings.limb_radius)
        heat = rendering.heatmaps_preview(joints, *photos.size, settings.heatmap_sigma)
        kinds["Image"].append(Picture(image))
        count = int((~np.isnan(joints[:, 0])).sum())
        drawn = _skeleton(joints, *photos.size, image)
        kinds["Joints"].append(Picture(drawn, note=f"{count} of {len(joints)}", small=False))
        kinds["Heat maps P"].append(Picture(heat, small=False))
        kinds["Mask M"].append(Picture(_mask_picture(mask), note=f"{mask.mean():.0%}"))
    grid = Grid(tuple("" for _ in places), tuple((kind, tuple(pictures)) for kind, pictures in kinds.items()))
    _write_grid(layout, f"data-{dataset}", grid)
    caption = (
        f"Inputs of {label}: {len(places)} evenly spaced test images with a pose: joints (how many of 18 were "
        f"found), the 18 heat maps in one picture (σ = {settings.heatmap_sigma:g} px) and, with its area, the refined "
        f"full body mask (Section IV-C, limbs of radius {settings.limb_radius} px)."
    )
    return Exhibit(f"data-{dataset}", caption, grid=grid)


class _Photos:
    """The images of a data set with their joints, by name, at the size that the models see."""

    def __init__(self, layout: Layout, dataset: str, size: tuple[int, int]) -> None:
        self.folder = ImageFolder(layout.images(dataset))
        self.size = size
        self.keypoints = read_keypoints(layout.keypoints(dataset) / "keypoints.csv")
        present = self.keypoints.present.any(axis=1)
        self.test_names = [
            name
            for name, seen in zip(self.keypoints.names, present, strict=True)
            if seen and name in self.folder.table.index and self.folder.table.at[name, "split"] == "test"
        ]

    def of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 image and (18, 2) joints of it."""
        image = self.folder.read(name)
        joints = scale_joints(self.keypoints.of(name), image.shape[:2], self.size)
        return resize(image, self.size), joints


def _generated_files(layout: Layout, dataset: str, model: str, seed: int) -> dict[tuple[str, str], Path]:
    folder = layout.generate(dataset, model, seed)
    try:
        manifest = pd.read_csv(folder / "generated.csv", dtype=str)
    except FileNotFoundError:
        raise UserError(f"{folder / 'generated.csv'}: missing; run `potgan generate`") from None
    return {(row["from"], row["to"]): folder / row["file"] for row in manifest.to_dict(orient="records")}


def _skeleton(joints: np.ndarray, height: int, width: int, background: np.ndarray | None = None) -> np.ndarray:
    scale = max(1, DRAWING_HEIGHT // height)
    if background is not None:
        background = cv2.resize(background, (width * scale, height * scale), interpolation=cv2.INTER_NEAREST)
    return rendering.draw_skeleton(joints, height, width, background, scale)


def _mask_picture(mask: np.ndarray) -> np.ndarray:
    return np.repeat(mask[:, :, None] * 255, 3, axis=2).astype(np.uint8)


def encode_png(image: np.ndarray) -> bytes:
    """PNG of (H, W, 3) uint8 RGB, with no metadata."""
    return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def png_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _write_grid(layout: Layout, name: str, grid: Grid) -> None:
    """The grid as one picture, for use outside the page."""
    first = grid.rows[0][1][0].array
    cell = 1.1  # inches wide
    height = cell * first.shape[0] / first.shape[1]
    size = (cell * len(grid.columns) + 0.6, (height + 0.16) * len(grid.rows) + 0.3)
    with mpl.rc_context({**_style("light"), "axes.titlesize": 6.5}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(grid.rows), len(grid.columns), squeeze=False)
        for i, (label, pictures) in enumerate(grid.rows):
            for j, picture in enumerate(pictures):
                axis = axes[i, j]
                axis.imshow(picture.array, interpolation="nearest" if picture.small else "antialiased", aspect="equal")
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
                if i == 0 and grid.columns[j]:
                    axis.set_title(grid.columns[j])
                if picture.note:
                    axis.set_xlabel(picture.note, labelpad=1, fontsize=6)
            axes[i, 0].set_ylabel(label, fontsize=7)
        write_bytes(layout.reports / "figures" / f"{name}.png", _figure_png(figure))


# ---------------------------------------------------------------------------------------------------------------------
# Plots


def _style(theme: str) -> dict[str, object]:
    colours = THEMES[theme]
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), colours["ink"])
    return {
        **ink,
        "font.size": 8.5,
        "axes.titlesize": 8.5,
        "axes.titlelocation": "left",
        "axes.edgecolor": colours["rule"],
        "axes.facecolor": colours["paper"],
        "figure.facecolor": colours["paper"],
        "grid.color": colours["rule"],
        "grid.linewidth": 0.5,
        "axes.grid": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "legend.frameon": False,
        "axes.prop_cycle": mpl.cycler(color=COLOURS),
    }


def _figure_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PLOT_DPI, metadata={"Software": None})
    return buffer.getvalue()


def _plot(layout: Layout, name: str, caption: str, draw: Callable[[], Figure]) -> Exhibit:
    """Draw in both themes; the light one is also written to figures/."""
    contents = {}
    for theme in THEMES:
        with mpl.rc_context(_style(theme)):
            contents[theme] = _figure_png(draw())
    write_bytes(layout.reports / "figures" / f"{name}.png", contents["light"])
    return Exhibit(name, caption, light=png_uri(contents["light"]), dark=png_uri(contents["dark"]))


def read_progress(benchmark: Benchmark, layout: Layout, dataset: str, model: str) -> list[tuple[int, pd.DataFrame]]:
    """(seed, progress table) of the trainings that `model` uses; seeds that were not trained are left out."""
    trained_as = benchmark.trained_as(dataset, model)
    found = []
    for seed in benchmark.seeds:
        path = layout.train(dataset, trained_as, seed) / "progress.csv"
        if path.exists():
            found.append((seed, pd.read_csv(path)))
    return found


def own_validation(progress: pd.DataFrame, filter_mode: str) -> pd.Series:
    """Validation SSIM of a model's own output, by iteration: unfiltered where its filter is off and both are there."""
    column = "validation_ssim"
    if filter_mode == "off" and progress["validation_ssim_unfiltered"].notna().any():
        column = "validation_ssim_unfiltered"
    return progress.set_index("iteration")[column].dropna()


def late_checkpoints(values: pd.Series, iterations: int) -> pd.Series:
    """The values nearest to 5/9, 6/9, ... 9/9 of training, indexed by iteration; each at most once.

    Fig. 10 of the paper shows epochs 50 to 90 of 90.
    """
    places = [int(np.abs(values.index - iterations * part / 9).argmin()) for part in range(5, 10)]
    return values.iloc[sorted(set(places))]


def filter_curve(benchmark: Benchmark, layout: Layout, dataset: str) -> Exhibit:
    """Fig. 10: validation SSIM over the last checkpoints, with and without the guided filter."""
    main = benchmark.main_model
    label = tables.group_label(benchmark, dataset)
    name = f"guided-filter-{dataset}"
    caption = f"The guided filter on {label}, as Fig. 10 of the paper: SSIM of validation pairs from 5/9 of training on"
    mode = benchmark.run_settings(dataset, main, benchmark.seeds[0]).generator.guided_filter.mode
    iterations = benchmark.run_settings(dataset, main, benchmark.seeds[0]).training.iterations
    runs = read_progress(benchmark, layout, dataset, main)
    if mode == "off":
        return Exhibit(name, caption + ".", missing=f"{main} uses no guided filter")
    if mode == "test":
        with_filter = [frame.set_index("iteration")["validation_ssim"].dropna() for _, frame in runs]
        without = [frame.set_index("iteration")["validation_ssim_unfiltered"].dropna() for _, frame in runs]
        caption += f"; the same networks ({main}) with and without the filter, which is applied when generating."
    else:
        others = [m for m in benchmark.models if _filter_mode(benchmark, dataset, m) == "off"]
        if not others:
            return Exhibit(name, caption + ".", missing="the benchmark has no model without the filter")
        other = "no-guided-filter" if "no-guided-filter" in others else others[0]
        with_filter = [own_validation(frame, mode) for _, frame in runs]
        without = [own_validation(frame, "off") for _, frame in read_progress(benchmark, layout, dataset, other)]
        caption += f"; {main} (trained through the filter) and {other} (another training)."
    with_filter, without = ([v for v in series if len(v)] for series in (with_filter, without))
    if not with_filter or not without:
        return Exhibit(name, caption, missing="training recorded no validation SSIM with and without the filter")
    if max(len(with_filter), len(without)) > 1:
        caption += " Strong lines are means over seeds, thin ones single seeds."

    def draw() -> Figure:
        figure = Figure(figsize=(5.6, 2.9), layout="constrained")
        axis = figure.subplots()
        for position, (series, text) in enumerate(((with_filter, "with guided filter"), (without, "without"))):
            late = [late_checkpoints(values, iterations) for values in series]
            _draw_mean(axis, late, text, position, marker=MARKERS[position])
        axis.set_xticks(sorted({i for values in with_filter for i in late_checkpoints(values, iterations).index}))
        axis.set(xlabel="iteration", ylabel="validation SSIM (ssim-deform)")
        axis.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
        axis.legend()
        return figure

    return _plot(layout, name, caption, draw)


def _filter_mode(benchmark: Benchmark, dataset: str, model: str) -> str:
    return benchmark.run_settings(dataset, model, benchmark.seeds[0]).generator.guided_filter.mode


def learning_curves(benchmark: Benchmark, layout: Layout, dataset: str) -> Exhibit:
    """The four loss terms and the validation SSIM of every trained model over the iterations."""
    label = tables.group_label(benchmark, dataset)
    name = f"learning-{dataset}"
    trained = [model for model in benchmark.models if benchmark.trained_as(dataset, model) == model]
    shared = [model for model in benchmark.models if model not in trained]
    runs = {model: read_progress(benchmark, layout, dataset, model) for model in trained}
    caption = f"Learning curves on {label}: the loss terms, not weighted, and the SSIM of validation pairs."
    if shared:
        names = ", ".join(f"{m} (of {benchmark.trained_as(dataset, m)})" for m in shared)
        caption += f" Without a training of its own: {names}."
    if not any(runs.values()):
        return Exhibit(name, caption, missing="no training of this benchmark has a progress table")
    if len(benchmark.seeds) > 1:
        caption += " Strong lines are means over seeds, thin ones single seeds."

    def draw() -> Figure:
        figure = Figure(figsize=(7.6, 4.4), layout="constrained")
        axes = figure.subplots(2, 3).ravel()
        for axis, (column, title) in zip(axes, (*LOSSES.items(), ("validation", "Validation SSIM")), strict=False):
            for position, (model, tables_of_seeds) in enumerate(runs.items()):
                mode = _filter_mode(benchmark, dataset, model)
                series = [
                    own_validation(frame, mode)
                    if column == "validation"
                    else frame.set_index("iteration")[column].dropna()
                    for _, frame in tables_of_seeds
                ]
                marker = MARKERS[position % len(MARKERS)] if column == "validation" else ""
                _draw_mean(axis, [s for s in series if len(s)], model, position, marker)
            axis.set_title(title)
            axis.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
        axes[-1].set_axis_off()
        axes[-1].legend(*axes[-2].get_legend_handles_labels(), loc="center left", title="Models", alignment="left")
        for axis in axes[2:5]:
            axis.set_xlabel("iteration")
        return figure

    return _plot(layout, name, caption, draw)


def _draw_mean(axis: mpl.axes.Axes, series: Iterable[pd.Series], label: str, position: int, marker: str) -> None:
    """The mean over seeds as a line, single seeds thin behind it. series: values by iteration, one for each seed."""
    series = list(series)
    if not series:
        return
    colour = COLOURS[position % len(COLOURS)]
    if len(series) > 1:
        for values in series:
            axis.plot(values.index, values, color=colour, linewidth=0.6, alpha=0.45)
    mean = pd.concat(series, axis=1).mean(axis=1)
    axis.plot(mean.index, mean, color=colour, linewidth=1.4, marker=marker, markersize=3.5, label=label)


# ---------------------------------------------------------------------------------------------------------------------
# Provenance


#: Hashes that differ from run to run by their nature; the others should be the same for all runs of a data set.
RUN_HASHES = ("generated", "generator")


def provenance(benchmark: Benchmark, layout: Layout, scores: pd.DataFrame) -> dict[str, object]:
    """What the numbers rest on: protocol ids and hash, mean mask area, hashes of data and weights, versions, devices.

    Each hash and version comes with the runs it belongs to, so that a mixture shows.
    """
    protocol = PROTOCOLS[benchmark.protocol]
    shared: dict[tuple[str, str], list[str]] = {}
    versions: dict[tuple[str, str], list[str]] = {}
    of_runs, mask_areas = [], {}
    runs_of = {name: 0 for name in benchmark.datasets}
    for dataset in benchmark.datasets:
        for method in benchmark.methods:
            for seed in benchmark.seeds_of(method):
                record = tables.read_scores(benchmark, layout, dataset, method, seed)
                if record is None:
                    continue
                runs_of[dataset] += 1
                run = f"{dataset}/{method}/seed{seed}"
                for key, value in _leaves(record.get("hashes") or {}):
                    if key in RUN_HASHES:
                        of_runs.append((run, key, value))
                    else:
                        shared.setdefault((f"{dataset}: {key}", value), []).append(run)
                for leaf in (*_leaves(record.get("versions") or {}), ("device", record.get("device"))):
                    if leaf[1] is not None:
                        versions.setdefault(leaf, []).append(run)
                if record.get("mask_area") is not None:
                    mask_areas[tables.group_label(benchmark, dataset)] = f"{record['mask_area']:.3f}"
    total = sum(runs_of.values())
    return {
        "metrics": [(METRIC_LABELS[metric], protocol.metric_id(metric), METRICS[metric]) for metric in METRICS],
        "protocol_hash": scores["protocol_hash"].iloc[0],
        "mask_areas": mask_areas,
        "hashes": [
            (key, value, _which(runs, runs_of[runs[0].split("/")[0]])) for (key, value), runs in sorted(shared.items())
        ],
        "run_hashes": [entry for entry in of_runs if entry[2] != "None"],
        "versions": [(key, value, _which(runs, total)) for (key, value), runs in sorted(versions.items())],
    }


def _which(runs: list[str], total: int) -> str:
    """In words, which of `total` runs these are."""
    if len(runs) == total:
        return "all runs"
    return ", ".join(runs) if len(runs) <= 3 else f"{len(runs)} of {total} runs, {runs[0]} first"
