"""What VUNet sees of an image and its pose: eight crops of parts of the body, and a stick man.

The authors make both on the CPU with OpenCV, when they load an image. Here they are made from the joints of a whole batch at once,
on the device that trains. Images are squares. Joints are (B, 18, 2), (x, y) in pixels of their square, NaN where missing. (0, 0) is
the centre of the first pixel. Source of all numbers: CompVis/vunet: batches.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from potgan.data.pose import JOINT
from potgan.methods.sampling import pixel_grid, places_of, sample_places

#: The limbs that are cropped, in the authors' order. Torso and head come before them.
LIMBS = (
    ("left_shoulder", "left_elbow"),
    ("left_elbow", "left_wrist"),
    ("right_shoulder", "right_elbow"),
    ("right_elbow", "right_wrist"),
    ("left_hip", "left_knee"),
    ("right_hip", "right_knee"),
)
TORSO = ("left_shoulder", "left_hip", "right_hip", "right_shoulder")
PARTS = 2 + len(LIMBS)
#: The lines of one side of the stick man.
SIDE_LINES = (("ankle", "knee"), ("knee", "hip"), ("hip", "shoulder"), ("shoulder", "elbow"), ("elbow", "wrist"))
#: Three corners of a part lie on one line if their triangle has less than half of this area, in square pixels.
_NO_AREA = 1e-2


# ---------------------------------------------------------------------------------------------------------------------
# The square


def to_square(images: torch.Tensor, side: int) -> torch.Tensor:
    """Stretch images (B, C, H, W) to (B, C, side, side), bilinearly. An image of that size is returned unchanged."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, (side, side), mode="bilinear", align_corners=False)


def joints_in_square(joints: torch.Tensor, size: tuple[int, int], side: int) -> torch.Tensor:
    """The joints (B, 18, 2) of images of `size` (height, width), in the square that `to_square` makes of these images.

    In both, the left and upper edges lie at -0.5, a half pixel before the centres of the first pixels.
    """
    height, width = size
    x, y = joints.unbind(-1)
    return torch.stack([(x + 0.5) * (side / width) - 0.5, (y + 0.5) * (side / height) - 0.5], dim=-1)


# ---------------------------------------------------------------------------------------------------------------------
# The crops


def part_crops(images: torch.Tensor, joints: torch.Tensor, crop: int) -> torch.Tensor:
    """Cut the eight parts out of images (B, 3, side, side) -> (B, 24, crop, crop), number format of the images.

    Order: torso, head, LIMBS; three channels each. A part whose joints are missing, or whose corners lie on a line, is 0, the mid
    grey of [-1, 1]. Outside its image a crop repeats the image's border. The arithmetic is in fp32 whatever the precision is.
    """
    batch, side = images.shape[0], images.shape[-1]
    with torch.autocast(images.device.type, enabled=False):
        quads, seen = part_quads(joints.float(), side)
        places = places_of(crop_to_quad(quads, crop), crop, crop)  # (B, 8, crop, crop, 2)
        # The border is the pixel that a place outside is moved to. Places at infinity, where a quadrilateral crosses itself, are
        # moved there too, so that only finite numbers are sampled.
        places = torch.nan_to_num(places).clamp(0, side - 1)
        sampled = sample_places(images, places.reshape(batch, PARTS * crop, crop, 2), outside="border")
    sampled = sampled.reshape(batch, -1, PARTS, crop, crop).transpose(1, 2)
    return sampled.masked_fill(~seen[..., None, None, None], 0).reshape(batch, -1, crop, crop)


def part_quads(joints: torch.Tensor, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the corners of the eight parts (B, 8, 4, 2), and which parts there are, (B, 8) bool.

    The corners go to (0, 0), (0, 1), (1, 1) and (1, 0) of a crop, in units of its side. The corners of a part that is not there
    are those of a square.
    """

    def joint(name: str) -> torch.Tensor:
        return joints[:, JOINT[name]]

    quads = [torch.stack([joint(name) for name in TORSO], dim=1), _head(joints)]
    for start, end in LIMBS:
        first, last = joint(start), joint(end)
        if end.endswith("knee"):  # without a knee, the part goes from the hip straight down to the last row
            below = torch.stack([first[:, 0], torch.full_like(first[:, 1], side - 1)], dim=-1)
            last = torch.where(last.isnan(), below, last)
        quads.append(_box(first, last, 0.25))
    corners = torch.stack(quads, dim=1)
    seen = corners.isfinite().flatten(2).all(-1)
    for dropped in range(4):
        a, b, c = (corners[:, :, i] for i in range(4) if i != dropped)
        seen = seen & (_cross(b - a, c - a).abs() > _NO_AREA)  # a NaN is not greater
    unit = _unit_square(corners)
    return torch.where(seen[..., None, None], corners, unit), seen


def _head(joints: torch.Tensor) -> torch.Tensor:
    """(B, 4, 2), a square: with the nose at its centre and one side through the neck, or above the shoulders without a nose."""
    left, right, nose = (joints[:, JOINT[name]] for name in ("left_shoulder", "right_shoulder", "nose"))
    neck = (left + right) / 2
    box = _box(neck + 2 * (nose - neck), neck, 0.5)
    # Its first corner is the second of a limb's, so that the head stands upright in its crop.
    upright = box.roll(-1, dims=1)
    normal = _normal(right - left)
    up = torch.where(normal[:, 1:] > 0, -normal, normal)
    above = torch.stack([left + up, left, right, right + up], dim=1)
    return torch.where(nose[:, None].isnan(), above, upright)


def _box(start: torch.Tensor, end: torch.Tensor, half: float) -> torch.Tensor:
    """The rectangle (B, 4, 2) along a limb from `start` to `end` (B, 2). half: half of its width, in lengths of the limb."""
    aside = half * _normal(end - start)
    return torch.stack([start + aside, start - aside, end - aside, end + aside], dim=1)


def _normal(along: torch.Tensor) -> torch.Tensor:
    """(..., 2) turned by a right angle, with the same length."""
    return torch.stack([-along[..., 1], along[..., 0]], dim=-1)


def _cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The cross product of vectors (..., 2), twice the area of their triangle, with a sign."""
    return a[..., 0] * b[..., 1] - b[..., 0] * a[..., 1]


def _unit_square(like: torch.Tensor) -> torch.Tensor:
    """(4, 2): the corners that the parts' corners go to, made on the device, as a CUDA graph demands."""
    number = torch.arange(4, dtype=like.dtype, device=like.device)
    return torch.stack([(number >= 2).to(like.dtype), ((number == 1) | (number == 2)).to(like.dtype)], dim=-1)


def crop_to_quad(quads: torch.Tensor, crop: int) -> torch.Tensor:
    """Return the perspective matrices (..., 3, 3) from index coordinates of a crop to those of an image (a backward warp).

    quads: (..., 4, 2), what (0, 0), (0, crop), (crop, crop) and (crop, 0) go to. No three corners lie on a line. The inverse of a
    matrix is what OpenCV's getPerspectiveTransform returns. It is a closed form and no linear system: the map from the unit square
    to a quadrilateral (Heckbert 1989, "Fundamentals of texture mapping and image warping", section 2.2.3).
    """
    # What (0, 0), (0, 1), (1, 1) and (1, 0) of the unit square go to.
    origin, below, opposite, beside = quads.unbind(-2)
    excess = origin - beside + opposite - below  # zero for a parallelogram, whose map is affine
    from_right, from_below = beside - opposite, below - opposite
    area = _cross(from_right, from_below)
    g = _cross(excess, from_below) / area
    h = _cross(from_right, excess) / area
    along_x = beside - origin + g[..., None] * beside
    along_y = below - origin + h[..., None] * below
    last_row = torch.stack([g, h], dim=-1)
    linear = torch.cat([torch.stack([along_x, along_y], dim=-1), last_row[..., None, :]], dim=-2) / crop
    shift = torch.cat([origin, torch.ones_like(origin[..., :1])], dim=-1)
    return torch.cat([linear, shift[..., None]], dim=-1)


# ---------------------------------------------------------------------------------------------------------------------
# The stick man


def stick_man(joints: torch.Tensor, side: int) -> torch.Tensor:
    """Draw poses as (B, 3, side, side) float32 in [-1, 1].

    Channel 0 has the right side of the body, channel 1 the left one, and channel 2 the filled torso. The lines of a side go from
    the ankle over knee, hip, shoulder and elbow to the wrist, at 255. Over them lies the line from the neck, the mean of the
    shoulders, to the nose, at 127 in both. Over that lies the line from the nose to the eye of the side, at 255, if both eyes are
    there. A line is left out where one of its joints is missing.

    Differs: a line is made of all pixels within a distance of it, and joints are not truncated to whole pixels.
    """
    joints = joints.float()
    grid = pixel_grid(side, side, joints.device)
    reach = line_reach(max(1, int(3 * side / 128)))

    def joint(name: str) -> torch.Tensor:
        return joints[:, JOINT[name]]

    def near(start: torch.Tensor, end: torch.Tensor, distance: float) -> torch.Tensor:
        return distances(grid, start, end) <= distance  # false for a missing joint, whose distance is NaN

    nose, neck = joint("nose"), (joint("left_shoulder") + joint("right_shoulder")) / 2
    throat = near(neck, nose, reach)
    both_eyes = (joint("left_eye") + joint("right_eye"))[:, 0].isfinite()
    channels = []
    for which in ("right", "left"):
        drawn = torch.zeros_like(throat)
        for start, end in SIDE_LINES:
            drawn = drawn | near(joint(f"{which}_{start}"), joint(f"{which}_{end}"), reach)
        eye = near(nose, joint(f"{which}_eye"), reach) & both_eyes[:, None, None]
        level = drawn.float() * 255
        channels.append(level.masked_fill(throat, 127).masked_fill(eye, 255))
    corners = [joint(name) for name in ("left_hip", "left_shoulder", "right_shoulder", "right_hip")]
    channels.append(255 * _filled(grid, corners).float())
    return torch.stack(channels, dim=1) / 127.5 - 1


def line_reach(thickness: int) -> float:
    """Return how far the pixels of a line of OpenCV's `thickness` are from it, at most, in pixels.

    OpenCV rounds thicknesses from 2 on up to an even number, and draws the outline of its rectangle too. So a line of 3 is 5 pixels
    thick, and one of 6 is 7.
    """
    return 0.5 if thickness == 1 else (thickness + thickness % 2) / 2 + 0.5


def distances(points: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return the distances (B, H, W) of points (H, W, 2) from the segments between `start` and `end` (B, 2).

    They are NaN if an end is missing.
    """
    along = (end - start)[:, None, None]
    offset = points - start[:, None, None]
    # The share of the segment at which a point is nearest.
    share = (offset * along).sum(-1) / (along * along).sum(-1).clamp_min(1e-12)
    return (offset - share.clamp(0, 1)[..., None] * along).square().sum(-1).sqrt()


def _filled(points: torch.Tensor, corners: list[torch.Tensor]) -> torch.Tensor:
    """Which points (H, W, 2) lie in the polygons of `corners` (B, 2) each, or within half a pixel of their edges: (B, H, W) bool.

    A point is inside if a ray from it crosses the edges an odd number of times, as OpenCV's fillPoly has it. So a torso whose edges
    cross, seen from the side, is two triangles. A polygon with a missing corner is empty.
    """
    x, y = points.unbind(-1)
    inside = edge = torch.zeros(len(corners[0]), *x.shape, dtype=torch.bool, device=points.device)
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        (start_x, start_y), (end_x, end_y) = (corner[:, :, None, None].unbind(1) for corner in (start, end))
        crossing = start_x + (end_x - start_x) * (y - start_y) / (end_y - start_y)
        inside = inside ^ (((start_y > y) != (end_y > y)) & (x < crossing))
        edge = edge | (distances(points, start, end) <= 0.5)
    complete = sum(corners).isfinite().all(-1)
    return (inside | edge) & complete[:, None, None]
