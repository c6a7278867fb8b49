"""The ten body regions of Deformable GAN: by which affine map each of them moves, and where it lies in the target image.

Siarohin et al. 2018, "Deformable GANs for pose-based human image generation"; AliaksandrSiarohin/pose-gan: pose_transform.py. The
torso and the head are regions, and so are the two halves of each arm and leg. Each region is assumed to be flat, so that an affine
map moves it from the source pose to the target pose. All numbers follow from the joints of both poses. They are computed for the
whole batch on its device, without reading a value back.

The maps are computed in float64: these are few numbers, and neither autocast nor TF32 makes them coarser.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from potgan.data.pose import JOINT, TORSO

#: From where to where each limb goes, in the order of the regions 2 to 9. Its neighbour is the same limb of the other side.
LIMBS = tuple(
    (JOINT[f"{side}_{start}"], JOINT[f"{side}_{end}"])
    for start, end in (("hip", "knee"), ("knee", "ankle"), ("shoulder", "elbow"), ("elbow", "wrist"))
    for side in ("right", "left")
)
#: The names of the ten regions, in the order of the matrices and masks.
REGIONS = (
    "torso",
    "head",
    "right thigh",
    "left thigh",
    "right shin",
    "left shin",
    "right upper arm",
    "left upper arm",
    "right forearm",
    "left forearm",
)
HEAD = tuple(JOINT[name] for name in ("nose", "right_eye", "left_eye", "right_ear", "left_ear"))
SHOULDERS = (JOINT["right_shoulder"], JOINT["left_shoulder"])

#: Half of a limb's width, and half of the side of the head's square, in lengths of the torso.
LIMB_HALF_WIDTH, HEAD_HALF_SIDE = 0.2, 0.4
#: By which share of its length a limb's rectangle goes on beyond the joint where it starts, and beyond the one where it ends. Of
#: the lower limbs' ends (hands and feet) the authors' matrices and masks take different ones.
START_EXTENSION, UPPER_EXTENSION = 0.1, 0.1
LOWER_EXTENSION_OF_MATRICES, LOWER_EXTENSION_OF_MASKS = 0.3, 0.5
#: Joints that are closer than this, in pixels, coincide. The authors' joints are whole pixels.
COINCIDING = 1.0
#: A pixel centre that is so near to an edge of a rectangle, in pixels, lies on it, whichever way its coordinates are rounded.
ON_EDGE = 1e-3
#: The map of a region that is "off": so many pixels to the side, where there are only zeros.
OFF_SHIFT = 1000.0
#: A torso or a head is off if its points in the target are spread across their main direction by less than this share of their
#: spread along it (standard deviations), because a fit to nearly collinear points multiplies their errors. Of 1536 torsos of
#: synthetic people at 128 x 64 pixels, seen from all sides, 5 % are below it and the median is 0.42. Errors of half a pixel in the
#: joints move a corner of the image by 4 pixels (median) where the spread is above 0.3, by 41 between 0.05 and 0.075, and by 91,
#: more than the width of the image, between 0.02 and 0.05.
LEAST_SPREAD = 0.05
#: A map that shrinks areas to less than this has no inverse, and its region is off.
LEAST_DETERMINANT = 1e-6


@dataclass
class Regions:
    """The regions of B pairs.

    matrices: (B, 10, 2, 3) float64. They map the target's index coordinates (x, y) in pixels to the source's (a backward warp).
    masks: (B, 10, H, W) bool, where each region lies in the target image.
    """

    matrices: torch.Tensor
    masks: torch.Tensor


def body_regions(source_joints: torch.Tensor, target_joints: torch.Tensor, height: int, width: int) -> Regions:
    """Return the regions of B pairs of poses. joints: (B, 18, 2), (x, y) in pixels, NaN where missing."""
    return Regions(affine_matrices(source_joints, target_joints), region_masks(target_joints, height, width))


# -- maps -------------------------------------------------------------------------------------------------------------


def affine_matrices(source_joints: torch.Tensor, target_joints: torch.Tensor) -> torch.Tensor:
    """Return the maps of the ten regions from target to source coordinates, (B, 10, 2, 3) float64.

    A region that one of the poses lacks is off. For a limb that only the source lacks, the source's limb of the other side is used,
    as it lies in the image. Without all four joints of the torso in a pose no length is known there, and all limbs are off.
    """
    source, source_known = _without_missing(source_joints)
    target, target_known = _without_missing(target_joints)
    both = source_known & target_known

    torso = _of(both, TORSO).all(1)
    torso_matrix, torso_spread = fit_affine(_of(target, TORSO), _of(source, TORSO), torch.ones_like(_of(both, TORSO)))
    torso = torso & (torso_spread >= LEAST_SPREAD)

    points = HEAD + SHOULDERS
    head = _of(both, HEAD).any(1) & _of(both, SHOULDERS).all(1)
    head_matrix, head_spread = fit_affine(_of(target, points), _of(source, points), _of(both, points))
    head = head & (head_spread >= LEAST_SPREAD)

    to, to_drawn = limb_rectangles(target, target_known, LOWER_EXTENSION_OF_MATRICES)
    own, own_drawn = limb_rectangles(source, source_known, LOWER_EXTENSION_OF_MATRICES)
    of_other_side, other_drawn = _sides_swapped(own), _sides_swapped(own_drawn)
    limbs = to_drawn & (own_drawn | other_drawn)
    # A rectangle is mapped to a rectangle, so the fit is exact.
    taken = torch.where(own_drawn[..., None, None], own, of_other_side)
    limb_matrices, _ = fit_affine(to, taken, torch.ones_like(to[..., 0]))

    matrices = torch.cat([torso_matrix[:, None], head_matrix[:, None], limb_matrices], dim=1)
    on = torch.cat([torso[:, None], head[:, None], limbs], dim=1)
    determinants = matrices[..., 0, 0] * matrices[..., 1, 1] - matrices[..., 0, 1] * matrices[..., 1, 0]
    on = on & (determinants.abs() >= LEAST_DETERMINANT)
    return torch.where(on[..., None, None], matrices, _off_matrix(matrices))


def fit_affine(points: torch.Tensor, images: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the affine maps that send points to their images with the least sum of squares, and how far the points spread.

    points, images: (..., P, 2) float64. weights: (..., P), 0 for a point that does not count. Returns (..., 2, 3), and the standard
    deviation of the points across their main direction over that along it, (...), which is 0 for points on a line. The map of such
    points is not determined; what is returned then is finite.
    """
    shares = weights.double() / weights.double().sum(-1, keepdim=True).clamp(min=1)
    centre = (shares[..., None] * points).sum(-2)
    image_centre = (shares[..., None] * images).sum(-2)
    x, y = (points - centre[..., None, :]).unbind(-1)
    moved = images - image_centre[..., None, :]
    xx, xy, yy = ((shares * product).sum(-1) for product in (x * x, x * y, y * y))
    determinant = (xx * yy - xy * xy).clamp(min=0)
    # The larger of the two variances, whose product is the determinant.
    main = (xx + yy) / 2 + (((xx - yy) / 2) ** 2 + xy * xy).sqrt()
    spread = determinant.sqrt() / main.clamp(min=1e-12)

    # The normal equations: linear part = covariance of images and points x inverse covariance of the points.
    with_x = ((shares * x)[..., None] * moved).sum(-2)
    with_y = ((shares * y)[..., None] * moved).sum(-2)
    xx, xy, yy = (value[..., None] for value in (xx, xy, yy))
    divisor = determinant.clamp(min=1e-12)[..., None]
    along_x = (with_x * yy - with_y * xy) / divisor
    along_y = (with_y * xx - with_x * xy) / divisor
    shift = image_centre - along_x * centre[..., :1] - along_y * centre[..., 1:]
    return torch.stack([along_x, along_y, shift], dim=-1), spread


# -- masks ------------------------------------------------------------------------------------------------------------


def region_masks(target_joints: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return where the ten regions of the target pose lie, (B, 10, H, W) bool.

    The torso's mask is the whole image, as in the authors' code, so that this region carries the background too. The head's is a
    square, and a limb's is its rectangle. The mask of an absent region is empty. A pixel belongs to a rectangle if its centre lies
    inside or on an edge.
    """
    joints, known = _without_missing(target_joints)
    x = torch.arange(width, device=joints.device)
    y = torch.arange(height, device=joints.device)
    torso = torch.ones(len(joints), 1, height, width, dtype=torch.bool, device=joints.device)

    seen = _of(known, HEAD).double()
    # Without a torso its length is 0, and so is the square. The centre and half of the side are whole numbers of pixels.
    centre = ((_of(joints, HEAD) * seen[..., None]).sum(1) / seen.sum(1, keepdim=True).clamp(min=1)).trunc()
    half = (HEAD_HALF_SIDE * torso_length(joints, known)).trunc() * (seen.sum(1) > 0)
    columns, rows = (
        (centre[:, axis, None] - half[:, None] <= places) & (places < centre[:, axis, None] + half[:, None])
        for axis, places in enumerate((x, y))
    )
    head = (rows[:, :, None] & columns[:, None, :])[:, None]

    corners, drawn = limb_rectangles(joints, known, LOWER_EXTENSION_OF_MASKS)
    limbs = inside_rectangles(corners.float(), x, y) & drawn[..., None, None]
    return torch.cat([torso, head, limbs], dim=1)


def inside_rectangles(corners: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return which pixel centres lie in rectangles or on their edges, (..., H, W) bool.

    corners: (..., 4, 2), in order around the rectangle. x: (W,) and y: (H,) coordinates of the columns and rows. A rectangle is
    where two pairs of half-planes overlap, one pair for each direction of its edges.
    """
    first = corners[..., 0, :]
    inside = []
    for neighbour in (1, 3):
        edge = corners[..., neighbour, :] - first
        along = ((x - first[..., :1]) * edge[..., :1])[..., None, :] + ((y - first[..., 1:]) * edge[..., 1:])[
            ..., :, None
        ]
        length = edge.norm(dim=-1)[..., None, None]
        inside.append((along >= -ON_EDGE * length) & (along <= (length + ON_EDGE) * length))
    return inside[0] & inside[1]


# -- poses ------------------------------------------------------------------------------------------------------------


def torso_length(joints: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the root mean square of the torso's two sides, hip to shoulder, (B,), in pixels; 0 if one of the joints is missing."""
    right_hip, left_hip, left_shoulder, right_shoulder = _of(joints, TORSO).unbind(1)
    squares = ((right_hip - right_shoulder) ** 2).sum(-1) + ((left_hip - left_shoulder) ** 2).sum(-1)
    return (squares / 2).sqrt() * _of(known, TORSO).all(1)


def limb_rectangles(
    joints: torch.Tensor, known: torch.Tensor, lower_extension: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the corners of the eight limbs, (B, 8, 4, 2) in pixels, and which of them are drawn, (B, 8).

    lower_extension: how far shins and forearms go on beyond ankle and wrist. The corners go around the rectangle, two at the start
    and two at the end of the limb. Limbs with coinciding joints are squares of 2 pixels, as if they pointed down. A limb is not
    drawn if one of its joints is missing, or if the torso has no length, from which the width follows.
    """
    start, end = (_of(joints, numbers) for numbers in zip(*LIMBS, strict=True))
    start_known, end_known = (_of(known, numbers) for numbers in zip(*LIMBS, strict=True))
    length = torso_length(joints, known)
    extension = torch.cat(
        [
            torch.full((2, 1), share, dtype=joints.dtype, device=joints.device)
            for share in (UPPER_EXTENSION, lower_extension, UPPER_EXTENSION, lower_extension)
        ]
    )
    near = start + START_EXTENSION * (start - end)
    far = end + extension * (end - near)
    along = near - far
    normal = torch.stack([-along[..., 1], along[..., 0]], dim=-1) / along.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    across = LIMB_HALF_WIDTH * length[:, None, None] * normal
    rectangle = torch.stack([near + across, near - across, far - across, far + across], dim=2)
    x, y = start.unbind(-1)
    box = torch.stack([torch.stack([x + dx, y + dy], dim=-1) for dx, dy in ((1, -1), (-1, -1), (-1, 1), (1, 1))], dim=2)
    coinciding = (start - end).norm(dim=-1) < COINCIDING
    drawn = start_known & end_known & (length > 0)[:, None]
    return torch.where(coinciding[..., None, None], box, rectangle), drawn


def _without_missing(joints: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Joints (B, 18, 2) as float64 with zeros for missing ones, and which of them are known, (B, 18)."""
    known = joints.isfinite().all(-1)
    return joints.double().masked_fill(~known[..., None], 0.0), known


def _of(values: torch.Tensor, numbers: tuple[int, ...]) -> torch.Tensor:
    """The values (B, 18, ...) of the joints with these numbers. Slices, because a list of indices is copied to the device."""
    return torch.stack([values[:, number] for number in numbers], dim=1)


def _sides_swapped(limbs: torch.Tensor) -> torch.Tensor:
    """Values (B, 8, ...) of the limbs, with those of right and left limbs swapped."""
    return limbs.unflatten(1, (4, 2)).flip(2).flatten(1, 2)


def _off_matrix(like: torch.Tensor) -> torch.Tensor:
    """The map of a region that is off, with the shape and kind of `like`."""
    off = torch.zeros_like(like)
    off[..., 0, 0] = off[..., 1, 1] = 1.0
    off[..., :, 2] = OFF_SHIFT
    return off
