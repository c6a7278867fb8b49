"""The figures of the report: image grids, warps, inputs, and plots of training and of protocols.

Each function makes one `Exhibit`, or says why there is none. Which pairs a grid shows is decided by a rule that its caption
states. Pictures stand in the page as lossless WebP, half the size of PNG; every figure is also written as one PNG under
figures/.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from potgan.common.files import write_bytes
from potgan.data import pose_rendering
from potgan.data.pairs import people_of
from potgan.data.pixels import read_image, resize, scale_joints
from potgan.measure.evaluate import masks_of
from potgan.methods.potgan.tps import interpolation_matrix, resting_points
from potgan.report import tables
from potgan.report.costs import costs
from potgan.results import Results, Row
from potgan.settings.protocols import PROTOCOLS
from potgan.settings.schema import Benchmark, GeneratorSettings

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
#: Rows of the warps, of the same order.
WARP_QUANTILES = ("best", "median", "worst")
PREVIEW_IMAGES = 10
#: People of the grid of one source in several poses, and the most poses of each.
ONE_SOURCE_PEOPLE, ONE_SOURCE_POSES = 3, 6
MASK_STEPS_IMAGES = 4
DRAWING_HEIGHT = 384  # pixels; skeletons and warps of small images are drawn larger, so that they are readable
WEBP_LOSSLESS = 101  # OpenCV's quality beyond 100
WEBP_DRAWING = 90  # of drawings, whose soft lines cost much without loss and gain nothing
ARROW_SPACING = 9  # pixels of a 128-pixel image between the feet of arrows
#: RGB of the arrows of a warp, and of the true motion.
ARROW_COLOURS = {"learned": (0, 114, 178), "true": (213, 94, 0)}
LOSSES = {
    "reconstruction": r"$L_{\mathrm{recon}}$, Eq. 4",
    "perceptual": r"$L_{\mathrm{per}}$, Eq. 5",
    "adversarial": r"$L_{\mathrm{gan}}$ of G, Eq. 7",
    "discriminator": r"$L$ of D, Eq. 6",
}


@dataclass(frozen=True)
class Picture:
    """One picture of an image grid. small: few pixels, kept without loss and enlarged without smoothing; else a drawing."""

    array: np.ndarray  # (H, W, 3) uint8 RGB
    note: str = ""
    small: bool = True

    @property
    def uri(self) -> str:
        return webp_uri(self.array, WEBP_LOSSLESS if self.small else WEBP_DRAWING)


@dataclass(frozen=True)
class Strip:
    """One row of a grid: a picture, or None where there is none, for each column. title: what it shows, in words."""

    label: str
    pictures: tuple[Picture | None, ...]
    title: str = ""
    begins: bool = False  # a group of rows; a little space stands above it


@dataclass(frozen=True)
class Grid:
    """Pictures in rows and columns, with heads. gap: what stands where there is no picture."""

    columns: tuple[str, ...]
    rows: tuple[Strip, ...]
    gap: str = "–"


@dataclass(frozen=True)
class Exhibit:
    """A figure of the page: a grid, or a plot as data URIs for light and dark; else the reason why it is not there."""

    name: str  # file stem under figures/
    title: str  # for the table of contents
    caption: str
    grid: Grid | None = None
    light: str = ""
    dark: str = ""
    missing: str = ""


def figures_of(results: Results, dataset: str) -> list[Exhibit]:
    """Every figure of one data set, in the order of the page. Raises UserError where a finished stage's file is missing."""
    return [
        image_grid(results, dataset),
        one_source_grid(results, dataset),
        warp_grid(results, dataset),
        filter_curve(results, dataset),
        *([quality_and_cost(results, dataset)] if compares_methods(results.benchmark) else []),
        quality_curves(results, dataset),
        learning_curves(results, dataset),
        data_preview(results, dataset),
        mask_steps(results, dataset),
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Image grids


def image_grid(results: Results, dataset: str) -> Exhibit:
    """Source, poses, mask, each method's image and target of five test pairs, as Figs. 1 and 5 to 7 of the paper.

    The pairs are evenly spaced quantiles of the main model's per-pair SSIM with the first seed; no eye picks them.
    """
    benchmark, layout = results.benchmark, results.layout
    main, seed = benchmark.main_model, benchmark.seeds[0]
    name, label = f"grid-{dataset}", tables.group_label(benchmark, dataset)
    title = f"Synthesised images of {label}"
    methods = compared_methods(results, dataset)
    if main not in methods:
        return Exhibit(name, title, f"{title}.", missing=f"{main} was not evaluated on {dataset}")
    per_pair = {
        method: results.per_pair(results.first(dataset, method)).set_index(["from", "to"]) for method in methods
    }
    generated = {method: results.images(results.first(dataset, method)) for method in methods}
    photos = Photos(results, dataset, benchmark.datasets[dataset].image_size)
    masks = benchmark.run_settings(dataset, main, seed).masks
    rows = []
    for quantile, pair in quantile_pairs(per_pair[main].reset_index()):
        (source, source_joints), (target, target_joints) = photos.of(pair[0]), photos.of(pair[1])
        pictures: list[Picture | None] = [
            Picture(source),
            Picture(_skeleton(source_joints, *photos.size), small=False),
            Picture(_skeleton(target_joints, *photos.size), small=False),
            Picture(_mask_picture(pose_rendering.model_mask(target_joints, *photos.size, masks))),
        ]
        for method, files in generated.items():
            there = pair in files and pair in per_pair[method].index
            value = f"{per_pair[method].loc[pair, 'ssim']:.3f}" if there else ""
            pictures.append(Picture(read_image(files[pair]), note=value) if there else None)
        pictures.append(Picture(target))
        rows.append(Strip(quantile, tuple(pictures), f"{pair[0]} → {pair[1]}"))
    heads = (tables.method_label(benchmark, method) for method in generated)
    grid = Grid(("Source", "Source pose", "Target pose", "Target mask", *heads, "Target"), tuple(rows))
    write_grid(layout.figures, name, grid)
    caption = (
        f"{title}, as in Figs. 1 and 5 to 7 of the paper. Rows are evenly spaced quantiles of "
        f"the per-pair SSIM of {main} with seed {seed} over all {len(per_pair[main]):,} test pairs: the best pair, "
        "75 %, the median, 25 %, and the worst. The number under an image is its SSIM."
    )
    return Exhibit(name, title, caption, grid=grid)


def compared_methods(results: Results, dataset: str) -> list[str]:
    """The methods whose images stand side by side: models and others' results that were evaluated, first seed."""
    benchmark = results.benchmark
    rows = [m for m in benchmark.methods_of(dataset) if m in benchmark.models or m in benchmark.external_methods]
    return [method for method in rows if results.scores(results.first(dataset, method)) is not None]


def quantile_pairs(per_pair: pd.DataFrame) -> list[tuple[str, tuple[str, str]]]:
    """(name of the quantile, (from, to)) for QUANTILES of the column ssim; ties are ordered by file name."""
    order = per_pair.sort_values(["ssim", "from", "to"], ascending=[False, True, True])
    picked = [(name, order.iloc[round(place * (len(order) - 1))]) for name, place in QUANTILES]
    return [(name, (row["from"], row["to"])) for name, row in picked]


def data_preview(results: Results, dataset: str) -> Exhibit:
    """What a model is given: image, joints, heat maps and mask of evenly spaced test images."""
    benchmark, layout = results.benchmark, results.layout
    photos = Photos(results, dataset, benchmark.datasets[dataset].image_size)
    settings = benchmark.run_settings(dataset, benchmark.main_model, benchmark.seeds[0]).masks
    usable = photos.test_names
    title = f"Inputs of {tables.group_label(benchmark, dataset)}"
    if not usable:
        return Exhibit(f"data-{dataset}", title, f"{title}.", missing="no test image has key points")
    places = np.linspace(0, len(usable) - 1, min(PREVIEW_IMAGES, len(usable))).round().astype(int)
    kinds: dict[str, list[Picture]] = {"Image": [], "Joints": [], "Heat maps P": [], "Mask M": []}
    for name in (usable[i] for i in places):
        image, joints = photos.of(name)
        mask = pose_rendering.model_mask(joints, *photos.size, settings)
        heat = pose_rendering.heatmaps_preview(joints, *photos.size, settings.heatmap_sigma)
        kinds["Image"].append(Picture(image))
        count = int((~np.isnan(joints[:, 0])).sum())
        drawn = _skeleton(joints, *photos.size, image)
        kinds["Joints"].append(Picture(drawn, note=f"{count} of {len(joints)}", small=False))
        kinds["Heat maps P"].append(Picture(heat, small=False))
        kinds["Mask M"].append(Picture(_mask_picture(mask), note=f"{(mask > 0).mean():.0%}"))
    grid = Grid(tuple("" for _ in places), tuple(Strip(kind, tuple(pictures)) for kind, pictures in kinds.items()))
    write_grid(layout.figures, f"data-{dataset}", grid)
    caption = (
        f"{title}: {len(places)} evenly spaced test images with a pose: joints (how many of 18 were "
        f"found), the 18 heat maps in one picture (σ = {settings.heatmap_sigma:g} px) and, with its area, the refined "
        f"full body mask (Section IV-C, limbs of radius {settings.limb_radius} px)."
    )
    return Exhibit(f"data-{dataset}", title, caption, grid=grid)


def one_source_grid(results: Results, dataset: str) -> Exhibit:
    """One source image in several target poses, as Fig. 5 of the paper.

    The sources are those with the most test pairs, at most one of each person; no eye picks them.
    """
    benchmark, layout = results.benchmark, results.layout
    main, seed = benchmark.main_model, benchmark.seeds[0]
    name, title = f"poses-{dataset}", f"One person in several poses, {tables.group_label(benchmark, dataset)}"
    if main not in compared_methods(results, dataset):
        return Exhibit(name, title, f"{title}.", missing=f"{main} was not evaluated on {dataset}")
    files = results.images(Row(dataset, main, seed))
    targets: dict[str, list[str]] = {}
    for source, target in files:
        targets.setdefault(source, []).append(target)
    order = sorted(targets, key=lambda source: (-len(targets[source]), source))
    first_of: dict[str, str] = {}
    for source, person in zip(order, people_of(order), strict=True):
        first_of.setdefault(person, source)
    chosen = list(first_of.values())[:ONE_SOURCE_PEOPLE]
    count = min(ONE_SOURCE_POSES, max(len(targets[source]) for source in chosen))
    photos = Photos(results, dataset, benchmark.datasets[dataset].image_size)
    rows = []
    for source in chosen:
        picked = sorted(targets[source])[:count]
        gaps = (None,) * (count - len(picked))
        poses = tuple(Picture(_skeleton(photos.of(target)[1], *photos.size), small=False) for target in picked)
        made = tuple(Picture(read_image(files[source, target])) for target in picked)
        truth = tuple(Picture(photos.image(target)) for target in picked)
        rows += [
            Strip("pose", (Picture(photos.image(source)), *poses, *gaps), f"{source}: target poses", begins=True),
            Strip(main, (None, *made, *gaps), f"{source}: synthesised"),
            Strip("target", (None, *truth, *gaps), f"{source}: targets"),
        ]
    grid = Grid(("Source", *(f"Pose {k + 1}" for k in range(count))), tuple(rows), gap="")
    write_grid(layout.figures, name, grid)
    caption = (
        f"{title}, as Fig. 5 of the paper: a source image, the poses of its test pairs, what {main} (seed {seed}) makes of them, "
        f"and the targets. Shown are the {len(chosen)} sources with the most test pairs, one per person, first by name."
    )
    return Exhibit(name, title, caption, grid=grid)


def mask_steps(results: Results, dataset: str) -> Exhibit:
    """How the refined full body mask is built, as Fig. 4 of the paper, for evenly spaced test images."""
    benchmark, layout = results.benchmark, results.layout
    photos = Photos(results, dataset, benchmark.datasets[dataset].image_size)
    radius = benchmark.run_settings(dataset, benchmark.main_model, benchmark.seeds[0]).masks.limb_radius
    name, title = f"mask-{dataset}", f"Building the pose mask on {tables.group_label(benchmark, dataset)}"
    names = photos.test_names
    if not names:
        return Exhibit(name, title, f"{title}.", missing="no test image has key points")
    rows = []
    for place in np.linspace(0, len(names) - 1, min(MASK_STEPS_IMAGES, len(names))).round().astype(int):
        image, joints = photos.of(names[place])
        size = photos.size
        limbs, torso, head = pose_rendering.mask_parts(joints, *size, radius)
        full = limbs | torso | head
        grey = pose_rendering.grey_mask(joints, *size, radius)
        drawn = (limbs, torso, head, full)
        pictures = [Picture(image), Picture(_skeleton(joints, *size, image), small=False)]
        pictures += [Picture(_mask_picture(mask * np.uint8(255)), note=f"{mask.mean():.0%}") for mask in drawn]
        pictures.append(Picture(_mask_picture(grey)))
        metric = masks_of(joints[None], size, PROTOCOLS[benchmark.protocol])[0]
        pictures.append(Picture(_mask_picture(metric * np.uint8(255)), note=f"{metric.mean():.0%}"))
        rows.append(Strip("", tuple(pictures), names[place]))
    heads = ("Image", "Key points", "Limbs, closed", "+ torso", "+ head", "= mask M", "Grey levels", "Metrics’ mask")
    grid = Grid(heads, tuple(rows))
    write_grid(layout.figures, name, grid)
    caption = (
        f"{title}, as Fig. 4 of the paper, for evenly spaced test images: key points are joined by limbs of radius {radius} px and "
        "closed, which leaves cavities; torso and head are filled as polygons; the three add up to the refined full body mask M. "
        "“Grey levels” is the same mask where `masks.levels` is `grey`. At the right is the mask of the metrics, as the protocol "
        f"`{benchmark.protocol}` draws it. Numbers are shares of the image."
    )
    return Exhibit(name, title, caption, grid=grid)


class Photos:
    """The images of a data set with their joints, by name, at the size that the models see."""

    def __init__(self, results: Results, dataset: str, size: tuple[int, int]) -> None:
        self.folder, self.size, self.keypoints = results.photos(dataset), size, results.keypoints(dataset)
        present = self.keypoints.present.any(axis=1)
        self.test_names = [
            name
            for name, seen in zip(self.keypoints.names, present, strict=True)
            if seen and name in self.folder.table.index and self.folder.table.at[name, "split"] == "test"
        ]

    def image(self, name: str) -> np.ndarray:
        """(H, W, 3) uint8."""
        return resize(self.folder.read(name), self.size)

    def of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 image and (18, 2) joints of it."""
        image = self.folder.read(name)
        joints = scale_joints(self.keypoints.of(name), image.shape[:2], self.size)
        return resize(image, self.size), joints


def _enlargement(height: int) -> int:
    """By how much a drawing is larger than its image, so that it is at least DRAWING_HEIGHT high."""
    return max(1, -(-DRAWING_HEIGHT // height))


def _skeleton(joints: np.ndarray, height: int, width: int, background: np.ndarray | None = None) -> np.ndarray:
    scale = _enlargement(height)
    if background is not None:
        background = cv2.resize(background, (width * scale, height * scale), interpolation=cv2.INTER_NEAREST)
    return pose_rendering.draw_skeleton(joints, height, width, background, scale)


def _mask_picture(mask: np.ndarray) -> np.ndarray:
    """(H, W) uint8 in 255ths as a grey picture."""
    return np.repeat(mask[:, :, None], 3, axis=2)


def webp_uri(image: np.ndarray, quality: int) -> str:
    """(H, W, 3) uint8 RGB as a data URI of WebP."""
    encoded = cv2.imencode(".webp", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode()


def png_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def write_grid(folder: Path, name: str, grid: Grid) -> None:
    """Write the grid as one picture, for use outside the page."""
    first = next(picture for picture in grid.rows[0].pictures if picture).array
    cell = 1.1  # inches wide
    height = cell * first.shape[0] / first.shape[1]
    size = (cell * len(grid.columns) + 0.6, (height + 0.16) * len(grid.rows) + 0.3)
    with mpl.rc_context({**_style("light"), "axes.titlesize": 6.5}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(grid.rows), len(grid.columns), squeeze=False)
        for i, row in enumerate(grid.rows):
            for j, picture in enumerate(row.pictures):
                axis = axes[i, j]
                axis.set(xticks=[], yticks=[])
                axis.grid(False)
                axis.spines[:].set_visible(False)
                if i == 0 and grid.columns[j]:
                    axis.set_title(grid.columns[j])
                if picture is None:
                    continue
                kind = "nearest" if picture.small else "antialiased"
                axis.imshow(picture.array, interpolation=kind, aspect="equal")
                if picture.note:
                    axis.set_xlabel(picture.note, labelpad=1, fontsize=6)
            axes[i, 0].set_ylabel(row.label, fontsize=7)
        write_bytes(folder / f"{name}.png", _figure_png(figure))


# ---------------------------------------------------------------------------------------------------------------------
# Warps


def warp_grid(results: Results, dataset: str) -> Exhibit:
    """The learned warps of three test pairs: arrows over the target, beside the true motion where it is known, and the source as
    each warp moves it.
    """
    benchmark, layout = results.benchmark, results.layout
    main, seed = benchmark.main_model, benchmark.seeds[0]
    name = f"warps-{dataset}"
    title = f"Warps of {main} on {tables.group_label(benchmark, dataset)}"
    settings = benchmark.run_settings(dataset, main, seed).generator
    path = layout.generate(dataset, main, seed) / "warps.npz"
    if not settings.pose_transform:
        return Exhibit(name, title, f"{title}.", missing=f"{main} has no pose transform")
    if main not in compared_methods(results, dataset) or not path.exists():
        return Exhibit(name, title, f"{title}.", missing=f"{main} left no control points on {dataset}")
    order = {pair: place for place, pair in enumerate(results.images(Row(dataset, main, seed)))}
    control_points = np.load(path)["control_points"]
    flow = results.flow(dataset)
    photos = Photos(results, dataset, benchmark.datasets[dataset].image_size)
    masks = benchmark.run_settings(dataset, main, seed).masks
    scales = range(control_points.shape[1])
    rows = []
    for quantile, pair in quantile_pairs(results.per_pair(Row(dataset, main, seed))):
        if quantile not in WARP_QUANTILES:
            continue
        (source, source_joints), (target, target_joints) = photos.of(pair[0]), photos.of(pair[1])
        points = control_points[order[pair]].astype(np.float64)
        if flow is None:
            seen = pose_rendering.pose_mask(target_joints, *photos.size, masks.limb_radius) > 0
        else:
            motion, seen = flow[0][order[pair]].astype(np.float64), flow[1][order[pair]]
        feet = arrow_feet(seen)
        ends = [source_positions(feet, points[scale], 2 ** (scale + 1), photos.size, settings) for scale in scales]
        moved = [move_image(source, points[scale], 2 ** (scale + 1), settings) for scale in scales]
        kinds = ["learned"] * len(ends)
        if flow is not None:
            truly = motion[feet[:, 1].astype(int), feet[:, 0].astype(int)]
            ends, kinds = [feet + truly, *ends], ["true", *kinds]
            moved = [move_along(source, motion, seen), *moved]
        arrows = (draw_arrows(target, feet, end, ARROW_COLOURS[kind]) for end, kind in zip(ends, kinds, strict=True))
        poses = [_skeleton(joints, *photos.size, image) for joints, image in ((source_joints, source),
                                                                             (target_joints, target))]  # fmt: skip
        names = f"{pair[0]} → {pair[1]}"
        drawings = tuple(Picture(drawing, small=False) for drawing in (poses[0], *arrows, poses[1]))
        rows.append(Strip(quantile, drawings, f"{names}: from where each place of the target is taken", begins=True))
        rows.append(Strip("moved", tuple(map(Picture, (source, *moved, target))), f"{names}: the source, moved"))
    strides = (f"Stride {2 ** (scale + 1)}" for scale in scales)
    grid = Grid(("Source", *(["True motion"] if flow is not None else []), *strides, "Target"), tuple(rows))
    write_grid(layout.figures, name, grid)
    true_motion = (
        "Orange arrows, under “True motion”: from a place of the visible body in the target to where the same place of the body is "
        "in the source. If a warp were the true motion, its blue arrows would be equal to the orange ones. "
        if flow is not None
        else ""
    )
    caption = (
        f"{title}, seed {seed}, for the best, the median and the worst pair by its SSIM. {true_motion}Blue arrows: from a place of "
        "the target to where the learned warp samples in the source; the columns are the feature maps at strides 2 to "
        f"{2 ** len(scales)}. Rows “moved” show the source image itself, resampled in the same way, to be held against the target "
        "at the right; the networks move features, and never the image."
    )
    return Exhibit(name, title, caption, grid=grid)


def arrow_feet(seen: np.ndarray) -> np.ndarray:
    """(Q, 2) pixels (x, y) of a regular grid that lie in the mask `seen`, (H, W) bool."""
    spacing = ARROW_SPACING * max(1, seen.shape[0] // 128)
    y, x = np.mgrid[spacing // 2 : seen.shape[0] : spacing, spacing // 2 : seen.shape[1] : spacing]
    inside = seen[y, x]
    return np.stack([x[inside], y[inside]], axis=1).astype(np.float64)


def draw_arrows(image: np.ndarray, feet: np.ndarray, ends: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Arrows over a faded image. feet, ends: (Q, 2) pixels (x, y). image: (H, W, 3) uint8.

    Returns (H * k, W * k, 3) uint8, k so that it is at least DRAWING_HEIGHT high.
    """
    scale = _enlargement(image.shape[0])
    canvas = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    canvas = (255 - (255 - canvas.mean(axis=2, keepdims=True)) * 0.35).repeat(3, axis=2).astype(np.uint8)
    for foot, end in zip(_drawn(feet, scale), _drawn(ends, scale), strict=True):
        length = float(np.hypot(*(end - foot))) / 16
        cv2.circle(canvas, tuple(map(int, foot)), 2 * 16, colour, -1, cv2.LINE_AA, shift=4)
        if length >= 1:
            tip = min(0.5, 9 / length)
            cv2.arrowedLine(canvas, tuple(map(int, foot)), tuple(map(int, end)), colour, 2, cv2.LINE_AA, 4, tip)
    return canvas


def move_along(source: np.ndarray, motion: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The source resampled along an exact motion; light grey where it is not known.

    motion: (H, W, 2) displacement from target to source in pixels. seen: (H, W) bool, where it is known.
    """
    height, width = seen.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    where = np.stack([x, y], axis=-1) + motion.astype(np.float32)
    moved = cv2.remap(source, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.where(seen[..., None], moved, np.uint8(225))


def source_positions(
    pixels: np.ndarray, control_points: np.ndarray, stride: int, size: tuple[int, int], settings: GeneratorSettings
) -> np.ndarray:
    """(Q, 2) pixels (x, y) of the target -> (Q, 2) pixels of the source that the warp of one scale samples there.

    control_points: (F, 2) normalised, of the feature maps with that stride, whose cell i is centred at pixel
    stride i + (stride - 1) / 2. size: (height, width) of the image.
    """
    cells = np.array([size[1] // stride, size[0] // stride])
    centre = (stride - 1) / 2
    rest = resting_points(*settings.control_points, settings.control_point_span)
    normalised = 2 * (pixels - centre) / stride / (cells - 1) - 1
    sampled = interpolation_matrix(rest, normalised) @ control_points
    return (sampled + 1) / 2 * (cells - 1) * stride + centre


def move_image(source: np.ndarray, control_points: np.ndarray, stride: int, settings: GeneratorSettings) -> np.ndarray:
    """The source resampled bilinearly through the spline of one scale; black where it looks outside the image."""
    height, width = source.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float64)
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    where = source_positions(pixels, control_points, stride, (height, width), settings)
    where = where.reshape(height, width, 2).astype(np.float32)
    return cv2.remap(source, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _drawn(points: np.ndarray, scale: int) -> np.ndarray:
    """Pixels of the image -> sixteenths of pixels of a drawing `scale` times as large, as OpenCV's shift=4 wants them."""
    return np.round(((points + 0.5) * scale - 0.5) * 16).astype(np.int32)


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


def plot(folder: Path, name: str, title: str, caption: str, draw: Callable[[], Figure]) -> Exhibit:
    """Draw in both themes; the light one is also written into the folder."""
    contents = {}
    for theme in THEMES:
        with mpl.rc_context(_style(theme)):
            contents[theme] = _figure_png(draw())
    write_bytes(folder / f"{name}.png", contents["light"])
    return Exhibit(name, title, caption, light=png_uri(contents["light"]), dark=png_uri(contents["dark"]))


def read_progress(results: Results, dataset: str, model: str) -> list[tuple[int, pd.DataFrame]]:
    """(seed, progress table) of the trainings that `model` uses; seeds that were not trained are left out."""
    found = ((seed, results.progress(dataset, model, seed)) for seed in results.benchmark.seeds)
    return [(seed, frame) for seed, frame in found if frame is not None]


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


def filter_curve(results: Results, dataset: str) -> Exhibit:
    """Fig. 10: validation SSIM over the last checkpoints, with and without the guided filter."""
    benchmark, layout = results.benchmark, results.layout
    main = benchmark.main_model
    label = tables.group_label(benchmark, dataset)
    name = f"guided-filter-{dataset}"
    title = f"The guided filter on {label}"
    caption = f"{title}, as Fig. 10 of the paper: SSIM of validation pairs from 5/9 of training on"
    mode = benchmark.run_settings(dataset, main, benchmark.seeds[0]).generator.guided_filter.mode
    iterations = benchmark.run_settings(dataset, main, benchmark.seeds[0]).training.iterations
    runs = read_progress(results, dataset, main)
    if mode == "off":
        return Exhibit(name, title, caption + ".", missing=f"{main} uses no guided filter")
    if mode == "test":
        with_filter = [frame.set_index("iteration")["validation_ssim"].dropna() for _, frame in runs]
        without = [frame.set_index("iteration")["validation_ssim_unfiltered"].dropna() for _, frame in runs]
        caption += f"; the same networks ({main}) with and without the filter, which is applied when generating."
    else:
        others = [m for m in benchmark.models if _filter_mode(benchmark, dataset, m) == "off"]
        if not others:
            return Exhibit(name, title, caption + ".", missing="the benchmark has no model without the filter")
        other = "no-guided-filter" if "no-guided-filter" in others else others[0]
        with_filter = [own_validation(frame, mode) for _, frame in runs]
        without = [own_validation(frame, "off") for _, frame in read_progress(results, dataset, other)]
        caption += f"; {main} (trained through the filter) and {other} (another training)."
    with_filter, without = ([v for v in series if len(v)] for series in (with_filter, without))
    if not with_filter or not without:
        return Exhibit(name, title, caption, missing="training recorded no validation SSIM with and without the filter")
    if max(len(with_filter), len(without)) > 1:
        caption += " Strong lines are means over seeds, thin ones single seeds."

    def draw() -> Figure:
        figure = Figure(figsize=(5.6, 2.9), layout="constrained")
        axis = figure.subplots()
        for position, (series, text) in enumerate(((with_filter, "with guided filter"), (without, "without"))):
            late = [late_checkpoints(values, iterations) for values in series]
            draw_mean(axis, late, text, position, marker=MARKERS[position])
        axis.set_xticks(sorted({i for values in with_filter for i in late_checkpoints(values, iterations).index}))
        axis.set(xlabel="iteration", ylabel="validation SSIM (ssim-deform)")
        axis.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
        axis.legend()
        return figure

    return plot(layout.figures, name, title, caption, draw)


def compares_methods(benchmark: Benchmark) -> bool:
    """Whether a benchmark trains other methods beside PoT-GAN."""
    return any(benchmark.method_of(model) != "potgan" for model in benchmark.models)


def quality_and_cost(results: Results, dataset: str) -> Exhibit:
    """SSIM and FID of every trained model over its arithmetic per image and the time of its training."""
    benchmark, layout = results.benchmark, results.layout
    name, title = f"cost-{dataset}", f"Quality and cost on {tables.group_label(benchmark, dataset)}"
    found = [cost for cost in costs(results) if cost.dataset == dataset and cost.seconds is not None]
    values: dict[str, dict[str, float]] = {}
    for cost in found:
        rows = [results.scores(Row(dataset, cost.model, seed)) for seed in benchmark.seeds]
        for metric in ("ssim", "fid"):
            there = [row.metrics[metric].value for row in rows if row is not None and metric in row.metrics]
            there = [value for value in there if value is not None]
            if there:
                values.setdefault(metric, {})[cost.model] = float(np.mean(there))
    if not values:
        return Exhibit(name, title, f"{title}.", missing="no trained model was evaluated")
    caption = (
        f"{title}: a model that lies higher up (SSIM) or lower down (FID) is better, and farther to the left it is cheaper. Means "
        "over seeds. Training time is of this machine."
    )
    protocol = PROTOCOLS[benchmark.protocol]
    labels = {
        "ssim": protocol.metric_id("ssim"),
        "fid": f"{protocol.metric_id('fid')}, lower is better",
    }

    def draw() -> Figure:
        figure = Figure(figsize=(8.6, 5.0), layout="constrained")
        axes = figure.subplots(len(values), 2, squeeze=False)
        for row, (metric, of_models) in zip(axes, values.items(), strict=True):
            for axis, (what, amount) in zip(
                row,
                (
                    ("multiply-adds of an image (billions)", lambda cost: cost.multiply_adds / 1e9),
                    ("training (minutes)", lambda cost: cost.seconds / 60),
                ),
                strict=True,
            ):
                for position, cost in enumerate(found):
                    if cost.model in of_models:
                        style = series_style(position)
                        axis.plot(
                            amount(cost), of_models[cost.model], linestyle="", markersize=7, label=cost.model, **style
                        )
                axis.set_xscale("log")
                axis.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
                axis.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
                axis.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
                axis.set(xlabel=what, ylabel=labels[metric])
        figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
        return figure

    return plot(layout.figures, name, title, caption, draw)


def _filter_mode(benchmark: Benchmark, dataset: str, model: str) -> str:
    """The place of PoT-GAN's guided filter in a model; `none` for another method, which has no filter."""
    if benchmark.method_of(model) != "potgan":
        return "none"
    return benchmark.run_settings(dataset, model, benchmark.seeds[0]).generator.guided_filter.mode


def learning_curves(results: Results, dataset: str) -> Exhibit:
    """The four loss terms and the validation SSIM of every trained model over the iterations."""
    benchmark, layout = results.benchmark, results.layout
    label = tables.group_label(benchmark, dataset)
    name = f"learning-{dataset}"
    trained = [model for model in benchmark.models if benchmark.trained_as(dataset, model) == model]
    shared = [model for model in benchmark.models if model not in trained]
    runs = {model: read_progress(results, dataset, model) for model in trained}
    title = f"Learning curves on {label}"
    caption = f"{title}: the loss terms, not weighted, and the SSIM of validation pairs."
    if compares_methods(benchmark):
        caption += (
            " The loss terms are of PoT-GAN's equations; other methods have terms of their own, which do not compare."
        )
    if shared:
        names = ", ".join(f"{m} (of {benchmark.trained_as(dataset, m)})" for m in shared)
        caption += f" Without a training of its own: {names}."
    if not any(runs.values()):
        return Exhibit(name, title, caption, missing="no training of this benchmark has a progress table")
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
                    if column == "validation" or (column in frame and benchmark.method_of(model) == "potgan")
                ]
                marker = MARKERS[position % len(MARKERS)] if column == "validation" else ""
                draw_mean(axis, [s for s in series if len(s)], model, position, marker)
            axis.set_title(title)
            axis.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
        axes[-1].set_axis_off()
        # Without validation pairs the last panel is empty, and the loss terms name the lines.
        named = axes[-2] if axes[-2].lines else axes[0]
        if named is axes[0]:
            axes[-2].set_axis_off()
            axes[-2].text(0, 0.5, "no validation pairs", transform=axes[-2].transAxes)
        axes[-1].legend(*named.get_legend_handles_labels(), loc="center left", title="Models", alignment="left")
        for axis in axes[2:5]:
            axis.set_xlabel("iteration")
        return figure

    return plot(layout.figures, name, title, caption, draw)


def quality_curves(results: Results, dataset: str) -> Exhibit:
    """SSIM, mask-SSIM and SSIM inside the mask of the validation pairs over the iterations: what each part brings, and when."""
    benchmark, layout = results.benchmark, results.layout
    name, title = f"quality-{dataset}", f"Quality over iterations on {tables.group_label(benchmark, dataset)}"
    metrics = {
        "validation_ssim": "SSIM",
        "validation_mask_ssim": "mask-SSIM",
        "validation_foreground_ssim": "SSIM inside the mask",
    }
    trained = [model for model in benchmark.models if benchmark.trained_as(dataset, model) == model]
    runs = {model: read_progress(results, dataset, model) for model in trained}
    # Of a model without a filter, only SSIM is measured on its own images. The other two are of its images with a filter.
    modes = {model: _filter_mode(benchmark, dataset, model) for model in trained}
    found: dict[str, dict[str, list[pd.Series]]] = {metric: {} for metric in metrics}
    for model, frames in runs.items():
        found["validation_ssim"][model] = [own_validation(frame, modes[model]) for _, frame in frames]
        for metric in list(metrics)[1:] if modes[model] != "off" else ():
            there = [frame for _, frame in frames if metric in frame]
            found[metric][model] = [frame.set_index("iteration")[metric].dropna() for frame in there]
    if not any(len(values) for of_models in found.values() for series in of_models.values() for values in series):
        return Exhibit(name, title, f"{title}.", missing="no training measured its validation pairs")
    caption = (
        f"{title}: the validation pairs, at each checkpoint of the trainings; the learning rate falls towards the end. No point of "
        "a curve is what a shorter training would have reached."
    )
    if len(benchmark.seeds) > 1:
        caption += " Strong lines are means over seeds, thin ones single seeds."

    def draw() -> Figure:
        figure = Figure(figsize=(8.6, 3.0), layout="constrained")
        axes = figure.subplots(1, len(metrics))
        for axis, (metric, label) in zip(axes, metrics.items(), strict=True):
            for position, model in enumerate(trained):
                series, style = found[metric].get(model, []), series_style(position)
                draw_mean(axis, [s for s in series if len(s)], model, position, str(style["marker"]))
            axis.set_title(label)
            axis.set_xlabel("iteration")
            axis.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:,.0f}"))
            axis.xaxis.set_major_locator(mpl.ticker.MaxNLocator(4))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=7.5)
        return figure

    return plot(layout.figures, name, title, caption, draw)


def draw_mean(axis: mpl.axes.Axes, series: Iterable[pd.Series], label: str, position: int, marker: str) -> None:
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


def series_style(position: int, faint: bool = False) -> dict[str, object]:
    """Colour and marker of the line with that place among its fellows, no two of the first 36 alike; thin and dotted for
    what is only a reference.
    """
    style: dict[str, object] = {
        "color": COLOURS[position % len(COLOURS)],
        "marker": MARKERS[(position + position // len(COLOURS)) % len(MARKERS)],
    }
    return style | ({"linestyle": ":", "alpha": 0.8} if faint else {})
