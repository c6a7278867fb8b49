"""From joints to pixels: heat maps P, pose masks M, and drawings for a person to look at.

Masks and heat maps are functions of the key points and never files (docs/decisions.md, D16). Masks are drawn with OpenCV when
a data set is loaded. Heat maps are built per batch on the training device.
"""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from potgan.data.pose import JOINT, JOINTS, LIMBS

if TYPE_CHECKING:
    import torch

#: The limbs of PG2's mask (docs/decisions.md, D13): the skeleton without shoulder-ear, closed around head, trunk and hips.
MASK_LIMBS = (
    *(limb for limb in LIMBS if limb not in ((2, 16), (5, 17))),
    (1, 16),
    (1, 17),
    (8, 11),
    (11, 5),
    (8, 2),
    (16, 17),
)
_LIMB_ENDS = np.array(MASK_LIMBS)  # (23, 2)
_SQUARE = np.ones((5, 5), np.uint8)  # of the closing in both peers' masks
#: Section IV-C, "depicting head and torso areas as polygons". The paper shows them in Fig. 4 without naming corners:
#: VUNet's torso quadrilateral, and the convex hull of what is seen of the head (docs/decisions.md, D13).
TORSO_POLYGON = tuple(JOINT[n] for n in ("right_shoulder", "left_shoulder", "left_hip", "right_hip"))
HEAD_POLYGON = tuple(JOINT[n] for n in ("nose", "neck", "right_eye", "left_eye", "right_ear", "left_ear"))


def heatmaps(joints: torch.Tensor, height: int, width: int, sigma: float) -> torch.Tensor:
    """Heat maps P: (B, 18, height, width) float32 in [0, 1], exp(-d^2 / (2 sigma^2)), zeros where a joint is missing.

    joints: (B, 18, 2) in pixels, NaN = missing; the result lies on its device. The Gaussian is separable, so each map is
    an outer product. Source: Deformable GAN pose_utils.cords_to_map, sigma = 6 px at every resolution (docs/decisions.md, D12).
    """
    import torch

    missing = torch.isnan(joints[..., 0])
    joints = torch.nan_to_num(joints.float())
    x = torch.arange(width, dtype=torch.float32, device=joints.device)
    y = torch.arange(height, dtype=torch.float32, device=joints.device)
    along_x = torch.exp(-((x - joints[..., :1]) ** 2) / (2 * sigma**2))  # (B, 18, width)
    along_y = torch.exp(-((y - joints[..., 1:]) ** 2) / (2 * sigma**2))  # (B, 18, height)
    along_y = along_y.masked_fill(missing[..., None], 0)
    return along_y[..., :, None] * along_x[..., None, :]


def limb_mask(joints: np.ndarray, height: int, width: int, radius: int) -> np.ndarray:
    """PG2's mask: (height, width) uint8 in {0, 1}.

    Discs of `radius` px at both ends of each limb and every `radius` px between them, then a grey closing with a 5 x 5
    square whatever the image's size. Source: PG2 `_getPoseMask`; points are truncated to whole pixels.
    """
    ends = joints.astype(np.float64)[_LIMB_ENDS]  # (23, 2 ends, 2)
    ends = ends[~np.isnan(ends[:, :, 0]).any(axis=1)]
    start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
    count = np.maximum((np.sqrt((along * along).sum(axis=1)) / radius).astype(int), 1)
    # All limbs' samples in one list: limb l has the samples 0 to count[l].
    limb = np.repeat(np.arange(len(count)), count + 1)
    step = np.arange(len(limb)) - np.repeat(np.cumsum(count + 1) - count - 1, count + 1)
    # Multiplied before it is divided: a sample that falls on a whole pixel must not be truncated to the one before.
    samples = start[limb] + along[limb] * step[:, None] / count[limb, None]
    x, y = (samples.astype(int) + radius).T
    inside = (x >= 0) & (x < width + 2 * radius) & (y >= 0) & (y < height + 2 * radius)
    points = np.zeros((height + 2 * radius, width + 2 * radius), np.uint8)  # a margin, so that discs may be cut
    points[y[inside], x[inside]] = 1
    mask = cv2.dilate(points, _disc(radius))[radius : radius + height, radius : radius + width]
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _SQUARE)


@lru_cache(maxsize=16)
def _disc(radius: int) -> np.ndarray:
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2).astype(np.uint8)


def pose_mask(joints: np.ndarray, height: int, width: int, limb_radius: int) -> np.ndarray:
    """The paper's refined full body mask M (Section IV-C, Fig. 4): (height, width) uint8 in {0, 1}.

    joints: (18, 2) in pixels of an image of this size, NaN = missing; a missing joint never draws. The sum of the
    morphological limb mask, the torso polygon and the head polygon.
    """
    mask = limb_mask(joints, height, width, limb_radius)
    torso = joints[list(TORSO_POLYGON)]
    if not np.isnan(torso).any():
        # The hull, since in profile the quadrilateral crosses itself and would leave a cavity.
        cv2.fillConvexPoly(mask, cv2.convexHull(np.round(torso).astype(np.int32)), 1)
    head = joints[list(HEAD_POLYGON)]
    head = head[~np.isnan(head[:, 0])]
    if len(head) >= 3:
        cv2.fillConvexPoly(mask, cv2.convexHull(np.round(head).astype(np.int32)), 1)
    return mask


def metric_mask(joints: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask of masked metrics, "rectangles4": (height, width) uint8 in {0, 1}.

    The same limbs as filled rectangles of half-width 4, discs of radius 4 at every joint, 5 x 5 closing. Source:
    Deformable GAN pose_utils.produce_ma_mask, also used by PATN and GFLA, which draw with scikit-image: a rectangle holds
    its edge, a disc does not.
    Differs: a limb whose ends coincide is skipped (theirs divides by zero); pixels exactly on a slanted edge are all
    inside (theirs: whatever rounding says, 2 of 100,000 pixels).
    """
    radius = 4
    joints = joints.astype(np.float64)
    row = np.arange(height)
    # A row of pixels meets a rectangle or a disc in one run, whose ends (first, last) follow from the shape's edges.
    # Rectangles: the run lies in two strips, across the limb and along it. All (limbs, rows) at once.
    start, end = joints[_LIMB_ENDS[:, 0]], joints[_LIMB_ENDS[:, 1]]
    length = np.hypot(end[:, 0] - start[:, 0], end[:, 1] - start[:, 1])
    drawn = length > 0  # not so for a missing joint either
    start, length = start[drawn], length[drawn, None]
    along = (end[drawn] - start) / length
    along[along == 0] = 1e-300  # a strip that lies along the row holds all of it or nothing of it
    along_x, along_y = along[:, :1], along[:, 1:]
    down = row - start[:, 1:]
    edge = 1e-9  # pixels exactly on the edge are inside, whatever rounding says
    first, last = _run(down * along_x, along_y, -radius - edge, radius + edge)
    first_along, last_along = _run(down * -along_y, along_x, -edge, length + edge)
    first = np.ceil(np.maximum(first, first_along) + start[:, :1])
    last = np.floor(np.minimum(last, last_along) + start[:, :1])

    # Discs: without their edge.
    joints = joints[~np.isnan(joints[:, 0])]
    half = radius**2 - (row - joints[:, 1:]) ** 2
    half = np.sqrt(half, out=np.full_like(half, -1), where=half > 0)
    first = np.concatenate([first, np.floor(joints[:, :1] - half) + 1])
    last = np.concatenate([last, np.ceil(joints[:, :1] + half) - 1])
    mask = _fill_runs(first, last, width)
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _SQUARE)


def _run(offset: np.ndarray, slope: np.ndarray, low: object, high: object) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest x with low <= slope * x - offset <= high; slope is not 0."""
    a, b = (offset + low) / slope, (offset + high) / slope
    return np.minimum(a, b), np.maximum(a, b)


def _fill_runs(first: np.ndarray, last: np.ndarray, width: int) -> np.ndarray:
    """(rows, width) uint8 in {0, 1}: the union of runs of pixels. first, last: (shapes, rows), last < first = no run."""
    first, last = np.maximum(first, 0), np.minimum(last, width - 1)
    shape, row = np.nonzero(first <= last)
    # Along the row-major picture, one more where a run begins and one less where it has ended.
    begin = row * (width + 1) + first[shape, row].astype(int)
    after = row * (width + 1) + last[shape, row].astype(int) + 1
    size = first.shape[1] * (width + 1)
    depth = np.cumsum(np.bincount(begin, minlength=size) - np.bincount(after, minlength=size))
    return (depth > 0).reshape(-1, width + 1)[:, :width].astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# Drawings


def _joint_colours() -> np.ndarray:
    """(18, 3) uint8: evenly spaced hues, so that neighbours along the body differ."""
    return np.array([[int(255 * c) for c in colorsys.hsv_to_rgb(i / len(JOINTS), 0.85, 1)] for i in range(len(JOINTS))])


def draw_skeleton(
    joints: np.ndarray, height: int, width: int, background: np.ndarray | None = None, scale: int = 1
) -> np.ndarray:
    """A drawing of the pose: (height * scale, width * scale, 3) uint8 RGB, on black or on `background` of that size."""
    canvas = np.zeros((height * scale, width * scale, 3), np.uint8) if background is None else background.copy()
    colours = _joint_colours()
    position = (joints + 0.5) * scale - 0.5
    thickness = max(1, round(height * scale / 100))
    for a, b in LIMBS:
        if (a, b) in ((2, 16), (5, 17)) or np.isnan(position[[a, b]]).any():
            continue
        ends = [tuple(round(float(v)) for v in position[j]) for j in (a, b)]
        cv2.line(canvas, *ends, tuple(int(c) for c in colours[b] * 0.8), thickness, cv2.LINE_AA)
    for j, (x, y) in enumerate(position):
        if not np.isnan(x):
            centre = (round(float(x)), round(float(y)))
            cv2.circle(canvas, centre, thickness + 1, tuple(int(c) for c in colours[j]), -1, cv2.LINE_AA)
    return canvas


def heatmaps_preview(joints: np.ndarray, height: int, width: int, sigma: float) -> np.ndarray:
    """All 18 heat maps in one picture, each in its joint's colour: (height, width, 3) uint8 RGB."""
    import torch

    maps = heatmaps(torch.from_numpy(joints)[None], height, width, sigma)[0].numpy()
    return (maps[..., None] * _joint_colours()[:, None, None, :]).max(axis=0).round().astype(np.uint8)
