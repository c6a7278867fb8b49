"""From joints to pixels: heat maps P, pose masks M, and drawings for a person to look at.

Masks and heat maps are functions of the key points, and are not stored in files (docs/decisions.md, D16). Masks are drawn with
OpenCV when a data set is loaded. Heat maps are made for each batch, on the training device.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from potgan.data.pose import JOINT, JOINTS, LIMBS
from potgan.settings.schema import MaskSettings

if TYPE_CHECKING:
    import torch

#: The limbs of PG2's mask (docs/decisions.md, D13): the skeleton without the limbs from shoulder to ear, and with limbs that close
#: it around head, trunk and hips.
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
#: What PG2 and Deformable GAN close their masks with.
_SQUARE = np.ones((5, 5), np.uint8)
#: The paper draws "head and torso areas as polygons" (Section IV-C), and Fig. 4 shows them, but no corners are named. These are the
#: corners of VUNet's torso, and the joints of the head, whose convex hull is drawn (docs/decisions.md, D13).
TORSO_POLYGON = tuple(JOINT[n] for n in ("right_shoulder", "left_shoulder", "left_hip", "right_hip"))
HEAD_POLYGON = tuple(JOINT[n] for n in ("nose", "neck", "right_eye", "left_eye", "right_ear", "left_ear"))


def heatmaps(joints: torch.Tensor, height: int, width: int, sigma: float) -> torch.Tensor:
    """Heat maps P: (B, 18, height, width) float32 in [0, 1], on the device of the joints.

    joints: (B, 18, 2) in pixels, NaN where missing. A map is exp(-d^2 / (2 sigma^2)) at distance d from its joint, and 0 for a
    missing joint. It is made as an outer product, since a Gaussian is separable. Source: Deformable GAN
    pose_utils.cords_to_map, with sigma = 6 pixels at every resolution (docs/decisions.md, D12).
    """
    import torch

    missing = torch.isnan(joints[..., 0])
    joints = torch.nan_to_num(joints.float())
    x = torch.arange(width, dtype=torch.float32, device=joints.device)
    y = torch.arange(height, dtype=torch.float32, device=joints.device)
    along_x = torch.exp(-((x - joints[..., :1]) ** 2) / (2 * sigma**2))  # (B, 18, width)
    along_y = torch.exp(-((y - joints[..., 1:]) ** 2) / (2 * sigma**2))  # (B, 18, height)
    along_y = along_y.masked_fill(missing[..., None], 0)
    # The joints vary fastest in memory (channels_last), so that the first convolution need not copy the maps into that order.
    maps = along_y.transpose(1, 2)[:, :, None] * along_x.transpose(1, 2)[:, None]
    return maps.permute(0, 3, 1, 2)


def limb_mask(
    joints: np.ndarray, height: int, width: int, radius: int, limbs: np.ndarray | Sequence[tuple[int, int]] = _LIMB_ENDS
) -> np.ndarray:
    """PG2's mask: (height, width) uint8, 0 or 1.

    joints: (18, 2) in pixels, NaN where missing. limbs: the pairs of joints that are drawn. There are discs of `radius` pixels
    at both ends of each limb and at every `radius` pixels between them, with centres truncated to whole pixels. The mask is
    then closed with a square of 5 x 5 pixels, in images of every size. Source: PG2 `_getPoseMask`.
    """
    ends = joints.astype(np.float64)[np.asarray(limbs)]  # (limbs, 2 ends, 2)
    ends = ends[~np.isnan(ends[:, :, 0]).any(axis=1)]
    start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
    count = np.maximum((np.sqrt((along * along).sum(axis=1)) / radius).astype(int), 1)
    # The samples of all limbs form one list. Limb l has the samples 0 to count[l].
    limb = np.repeat(np.arange(len(count)), count + 1)
    step = np.arange(len(limb)) - np.repeat(np.cumsum(count + 1) - count - 1, count + 1)
    # Multiplying comes before dividing, or a sample that falls on a whole pixel would be truncated to the pixel before it.
    samples = start[limb] + along[limb] * step[:, None] / count[limb, None]
    x, y = (samples.astype(int) + radius).T
    inside = (x >= 0) & (x < width + 2 * radius) & (y >= 0) & (y < height + 2 * radius)
    points = np.zeros(
        (height + 2 * radius, width + 2 * radius), np.uint8
    )  # the margin holds the parts of discs outside the image
    points[y[inside], x[inside]] = 1
    mask = cv2.dilate(points, disc(radius))[radius : radius + height, radius : radius + width]
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _SQUARE)


@lru_cache(maxsize=16)
def disc(radius: int) -> np.ndarray:
    """(2 radius + 1, 2 radius + 1) uint8: a disc with its edge."""
    offsets = np.arange(-radius, radius + 1)
    return (offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2).astype(np.uint8)


def mask_parts(joints: np.ndarray, height: int, width: int, limb_radius: int) -> tuple[np.ndarray, ...]:
    """The three masks that Section IV-C adds up: limbs, torso and head, each (height, width) uint8, 0 or 1.

    joints: (18, 2) in pixels of an image of this size, NaN where missing. Nothing is drawn at a missing joint.
    """
    torso, head = np.zeros((2, height, width), np.uint8)
    corners = joints[list(TORSO_POLYGON)]
    if not np.isnan(corners).any():
        # The convex hull is drawn, because seen from the side the quadrilateral crosses itself.
        cv2.fillConvexPoly(torso, cv2.convexHull(np.round(corners).astype(np.int32)), 1)
    corners = joints[list(HEAD_POLYGON)]
    corners = corners[~np.isnan(corners[:, 0])]
    if len(corners) >= 3:
        cv2.fillConvexPoly(head, cv2.convexHull(np.round(corners).astype(np.int32)), 1)
    return limb_mask(joints, height, width, limb_radius), torso, head


def pose_mask(joints: np.ndarray, height: int, width: int, limb_radius: int) -> np.ndarray:
    """The paper's refined full body mask M (Section IV-C, Fig. 4): (height, width) uint8, 0 or 1.

    It is the union of `mask_parts`. joints: (18, 2) in pixels of an image of this size, NaN where missing.
    """
    limbs, torso, head = mask_parts(joints, height, width, limb_radius)
    return limbs | torso | head


#: The limbs of a grey mask, in the order of drawing: name -> (limbs, level in 255ths). The six levels are evenly spaced.
GREY_PARTS = {
    "right_leg": ((("right_hip", "right_knee"), ("right_knee", "right_ankle")), 111),
    "left_leg": ((("left_hip", "left_knee"), ("left_knee", "left_ankle")), 183),
    "right_arm": ((("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist")), 75),
    "left_arm": ((("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist")), 147),
}
GREY_HEAD, GREY_TORSO = 219, 255


def grey_mask(joints: np.ndarray, height: int, width: int, limb_radius: int) -> np.ndarray:
    """A greyscale full body mask: (height, width) uint8, 0 outside `pose_mask`, and the grey level of a part of the body inside.

    Section III-B of the paper speaks of "single-channel greyscale pose masks" and gives no levels. Here each leg, each arm, the
    head and the torso have levels of their own. So the mask tells the left side of the body from the right, and a person who is
    seen from the front from one who is seen from behind, which a binary mask cannot.
    """
    limbs, torso, polygon = mask_parts(joints, height, width, limb_radius)
    body = limbs | torso | polygon
    grey = body * np.uint8(GREY_TORSO)
    for ends, level in GREY_PARTS.values():
        part = limb_mask(joints, height, width, limb_radius, [(JOINT[a], JOINT[b]) for a, b in ends])
        grey[(part & body) > 0] = level
    head = limb_mask(joints, height, width, limb_radius, _HEAD_LIMBS) | polygon
    grey[(head & body) > 0] = GREY_HEAD
    return grey


_HEAD_LIMBS = tuple(limb for limb in MASK_LIMBS if set(limb) <= {JOINT[n] for n in (*JOINTS[:2], *JOINTS[14:])})


def model_mask(joints: np.ndarray, height: int, width: int, settings: MaskSettings) -> np.ndarray:
    """The mask that a model is given: (height, width) uint8, in 255ths. joints: (18, 2) in pixels, NaN where missing."""
    if settings.levels == "grey":
        return grey_mask(joints, height, width, settings.limb_radius)
    return pose_mask(joints, height, width, settings.limb_radius) * np.uint8(255)


def metric_mask(joints: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mask of masked metrics, "rectangles4": (height, width) uint8, 0 or 1.

    joints: (18, 2) in pixels, NaN where missing. The same limbs are filled rectangles of half-width 4, every joint is a disc of
    radius 4, and the mask is closed with a square of 5 x 5 pixels. A rectangle holds its edge and a disc does not, as scikit-image
    draws them. Source: Deformable GAN pose_utils.produce_ma_mask, which PATN and GFLA use, too (docs/decisions.md, D14).

    This function differs in two ways. A limb whose ends coincide is left out, where the original divides by zero. Pixels exactly
    on a slanted edge are all inside, where in the original rounding decides (2 of 100,000 pixels).
    """
    radius = 4
    joints = joints.astype(np.float64)
    row = np.arange(height)
    # A row of pixels meets a rectangle or a disc in one run, whose ends (first, last) follow from the shape's edges. All shapes and
    # rows are computed at once. A rectangle is where two strips meet, one across the limb and one along it.
    start, end = joints[_LIMB_ENDS[:, 0]], joints[_LIMB_ENDS[:, 1]]
    length = np.hypot(end[:, 0] - start[:, 0], end[:, 1] - start[:, 1])
    drawn = length > 0  # false for a missing joint, too
    start, length = start[drawn], length[drawn, None]
    along = (end[drawn] - start) / length
    along[along == 0] = 1e-300  # the strip then holds all of a row or nothing of it
    along_x, along_y = along[:, :1], along[:, 1:]
    down = row - start[:, 1:]
    edge = 1e-9  # so that pixels exactly on the edge are inside, whatever rounding gives
    first, last = _run(down * along_x, along_y, -radius - edge, radius + edge)
    first_along, last_along = _run(down * -along_y, along_x, -edge, length + edge)
    first = np.ceil(np.maximum(first, first_along) + start[:, :1])
    last = np.floor(np.minimum(last, last_along) + start[:, :1])

    # Discs do not hold their edge.
    joints = joints[~np.isnan(joints[:, 0])]
    half = radius**2 - (row - joints[:, 1:]) ** 2
    half = np.sqrt(half, out=np.full_like(half, -1), where=half > 0)
    first = np.concatenate([first, np.floor(joints[:, :1] - half) + 1])
    last = np.concatenate([last, np.ceil(joints[:, :1] + half) - 1])
    mask = _fill_runs(first, last, width)
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, _SQUARE)


def _run(
    offset: np.ndarray, slope: np.ndarray, low: float | np.ndarray, high: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest x with low <= slope * x - offset <= high. The slope is not 0."""
    a, b = (offset + low) / slope, (offset + high) / slope
    return np.minimum(a, b), np.maximum(a, b)


def _fill_runs(first: np.ndarray, last: np.ndarray, width: int) -> np.ndarray:
    """(rows, width) uint8, 0 or 1: the union of runs of pixels.

    first, last: (shapes, rows) ends of each shape's run in each row; where last < first there is no run.
    """
    first, last = np.maximum(first, 0), np.minimum(last, width - 1)
    shape, row = np.nonzero(first <= last)
    # The pixels form one long line. Counting one more where a run begins, and one less after its end, gives the runs over a pixel.
    begin = row * (width + 1) + first[shape, row].astype(int)
    after = row * (width + 1) + last[shape, row].astype(int) + 1
    size = first.shape[1] * (width + 1)
    depth = np.cumsum(np.bincount(begin, minlength=size) - np.bincount(after, minlength=size))
    return (depth > 0).reshape(-1, width + 1)[:, :width].astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# Drawings


def _joint_colours() -> np.ndarray:
    """(18, 3) red, green and blue, 0 to 255: evenly spaced hues, so that joints that lie next to each other differ."""
    return np.array([[int(255 * c) for c in colorsys.hsv_to_rgb(i / len(JOINTS), 0.85, 1)] for i in range(len(JOINTS))])


def draw_skeleton(
    joints: np.ndarray, height: int, width: int, background: np.ndarray | None = None, scale: int = 1
) -> np.ndarray:
    """A drawing of a pose: (height * scale, width * scale, 3) uint8 RGB.

    joints: (18, 2) in pixels of an image of height x width, NaN where missing. background: a picture of the drawing's size; None
    for black.
    """
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
    """All 18 heat maps in one picture, (height, width, 3) uint8 RGB, each in the colour of its joint."""
    import torch

    maps = heatmaps(torch.from_numpy(joints)[None], height, width, sigma)[0].numpy()
    return (maps[..., None] * _joint_colours()[:, None, None, :]).max(axis=0).round().astype(np.uint8)
