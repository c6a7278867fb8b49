"""Where the rays of the camera meet a body, whose parts are simple surfaces.

Every part has the same form. In its own frame it is

    (x / width)^2 + (z / depth)^2 = q0 + q1 y + q2 y^2        for |y| <= half,

which is an ellipsoid, a cylinder, a cone, a barrel or a waist, depending on the three numbers. A ray of the (weak
perspective) camera meets such a surface in closed form, so that one pass gives the part and the depth that each sample of the
picture shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Surface:
    """The posed body of one picture, as far as the exact flow needs it. The person has P parts.

    part: (H, W) int8, index into `body.PARTS` of the part that each pixel's centre shows; -1 is background.
    depth: (H, W) float32, how far that point lies toward the camera, in statures.
    scale, centre: the point (X, Y) of the camera's frame lies at the pixel centre + scale * (X, -Y).
    rotation: (P, 3, 3), and origin: (P, 3): a point of a part's own frame lies at rotation @ point + origin.
    ids: (P,) indices into `body.PARTS`. shape: (P, 6) width, depth, q0, q1, q2, half (see the head of this module).
    """

    part: np.ndarray
    depth: np.ndarray
    scale: float
    centre: tuple[float, float]
    rotation: np.ndarray
    origin: np.ndarray
    ids: np.ndarray
    shape: np.ndarray


def sample_grid(scale: float, centre: tuple[float, float], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(2 width + 1,) X of the columns and (2 height + 1,) Y of the rows of samples, in statures.

    There is a sample at every half pixel, from one edge of the picture to the other.
    """
    x = (np.arange(2 * width + 1) / 2 - 0.5 - centre[0]) / scale
    y = (centre[1] + 0.5 - np.arange(2 * height + 1) / 2) / scale
    return x, y


def cast(
    rotation: np.ndarray, origin: np.ndarray, shape: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The part that is nearest to the camera at every sample of the grid `x`, `y`, and its depth: two (rows, columns) arrays.

    rotation, origin, shape: of the P parts, as in `Surface`. The part is int8, 0 to P - 1; -1 where the ray meets none. The
    depth is float32, in statures; -inf where the ray meets none.
    """
    left, right, top, bottom = _boxes(rotation, origin, shape, x, y)
    ray = {key: value[:, None] for key, value in _rays(rotation, origin, shape).items()}
    single = np.float32
    square_x = (ray["s0"] + x * (ray["sx"] + x * ray["sxx"])).astype(single)
    square_y = (y * (ray["sy"] + y * ray["syy"])).astype(single)[:, :, None]
    cross = (y * ray["sxy"]).astype(single)[:, :, None]
    linear_x, linear_y = (ray["z0"] + x * ray["zx"]).astype(single), (y * ray["zy"]).astype(single)[:, :, None]
    local_x, local_y = (ray["y0"] + x * ray["yx"]).astype(single), (y * ray["yy"]).astype(single)[:, :, None]
    slope, half = ray["yz"].astype(single), shape[:, 5].astype(single)
    x = x.astype(single)

    depth = np.full((len(y), len(x)), -np.inf, single)
    part = np.full(depth.shape, -1, np.int8)
    with np.errstate(invalid="ignore"):
        for p in range(len(shape)):
            j, i = slice(left[p], right[p]), slice(top[p], bottom[p])
            z = cross[p, i] * x[j]
            z += square_x[p, j]
            z += square_y[p, i]
            np.sqrt(z, out=z)  # NaN where the ray misses the part; every comparison with NaN is False
            z += linear_x[p, j]
            z += linear_y[p, i]
            local = slope[p] * z
            local += local_x[p, j]
            local += local_y[p, i]
            seen = np.abs(local, out=local) <= half[p]
            seen &= z > depth[i, j]
            np.copyto(depth[i, j], z, where=seen)
            np.copyto(part[i, j], p, where=seen)
    return part, depth


def nearest_surface(points: np.ndarray, surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """What the camera sees in the direction of each of the (N, 3) points: (N,) part and (N,) depth.

    The part is an index into `body.PARTS`, or -1 where nothing is seen; the depth is then -inf.
    """
    ray = {key: value[:, None] for key, value in _rays(surface.rotation, surface.origin, surface.shape).items()}
    x, y = points[:, 0], points[:, 1]
    with np.errstate(invalid="ignore"):
        square = ray["s0"] + x * (ray["sx"] + x * ray["sxx"] + y * ray["sxy"]) + y * (ray["sy"] + y * ray["syy"])
        z = ray["z0"] + x * ray["zx"] + y * ray["zy"] + np.sqrt(square)
        local = ray["y0"] + x * ray["yx"] + y * ray["yy"] + z * ray["yz"]
        z = np.where(abs(local) <= surface.shape[:, 5:], z, -np.inf)
    nearest = z.argmax(axis=0)
    depth = z[nearest, np.arange(len(points))]
    return np.where(depth > -np.inf, surface.ids[nearest], -1), depth


def _rays(rotation: np.ndarray, origin: np.ndarray, shape: np.ndarray) -> dict[str, np.ndarray]:
    """Where the ray through (X, Y) meets each part, as coefficients of polynomials in X and Y, each (P,).

    The depth of the surface is z = linear + sqrt(square), with linear = z0 + zx X + zy Y and
    square = s0 + sx X + sy Y + sxx X^2 + syy Y^2 + sxy X Y. `square` is negative where the ray misses the part.
    In the part's own frame that point has y = y0 + yx X + yy Y + yz z.
    """
    width, depth, q0, q1, q2 = shape[:, :5].T
    weight = np.stack([1 / width**2, -q2, 1 / depth**2], 1)
    along_x, along_y, along_z = rotation[:, 0], rotation[:, 1], rotation[:, 2]
    start = -np.einsum("pji,pj->pi", rotation, origin)

    def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * weight * b).sum(axis=1)

    # The depth solves A z^2 + 2 B z + C = 0. A tube that points at the camera has A <= 0, and its equation has no nearest
    # root. With A bounded from below the tube ends in a steep blunt surface instead, which the ball at the joint covers.
    a = np.maximum(dot(along_z, along_z), 0.02 / width**2)
    b0, bx, by = dot(start, along_z) - q1 * along_z[:, 1] / 2, dot(along_x, along_z), dot(along_y, along_z)
    c0 = dot(start, start) - q1 * start[:, 1] - q0
    cx, cy = 2 * dot(along_x, start) - q1 * along_x[:, 1], 2 * dot(along_y, start) - q1 * along_y[:, 1]
    cxx, cyy, cxy = dot(along_x, along_x), dot(along_y, along_y), 2 * dot(along_x, along_y)
    b0, bx, by = b0 / a, bx / a, by / a
    return {
        **{"z0": -b0, "zx": -bx, "zy": -by},
        **{"s0": b0 * b0 - c0 / a, "sx": 2 * b0 * bx - cx / a, "sy": 2 * b0 * by - cy / a},
        **{"sxx": bx * bx - cxx / a, "syy": by * by - cyy / a, "sxy": 2 * bx * by - cxy / a},
        **{"y0": start[:, 1], "yx": along_x[:, 1], "yy": along_y[:, 1], "yz": along_z[:, 1]},
    }


def _boxes(
    rotation: np.ndarray, origin: np.ndarray, shape: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[list[int], list[int], list[int], list[int]]:
    """A box of samples that holds each part: its first column, the one after its last, and the same for rows."""
    q0, q1, q2, half = shape[:, 2:].T
    ends = np.stack([q0 - q1 * half + q2 * half**2, q0 + q1 * half + q2 * half**2])
    barrel = q2 < -1e-6
    vertex = np.where(barrel, -q1 / np.where(barrel, 2 * q2, 1), 0)
    bulge = q0 + q1 * vertex + q2 * vertex**2
    radius = np.sqrt(np.maximum(ends.max(axis=0), np.where(barrel & (abs(vertex) < half), bulge, 0)))
    sides = np.hypot(shape[:, None, 0] * rotation[:, :2, 0], shape[:, None, 1] * rotation[:, :2, 2])  # (P, 2) x, y
    reach = radius[:, None] * sides + half[:, None] * abs(rotation[:, :2, 1])
    low, high = origin[:, :2] - reach, origin[:, :2] + reach
    # A barrel is a piece of an ellipsoid. The box of the whole ellipsoid may be smaller.
    whole = np.sqrt(np.where(barrel, bulge, 0))[:, None]
    tall = np.sqrt(np.where(barrel, bulge / np.where(barrel, -q2, 1), 0))[:, None]
    middle = origin[:, :2] + vertex[:, None] * rotation[:, :2, 1]
    reach = np.where(barrel[:, None], np.hypot(whole * sides, tall * rotation[:, :2, 1]), np.inf)
    low, high = np.maximum(low, middle - reach), np.minimum(high, middle + reach)
    left, right = np.searchsorted(x, low[:, 0]), np.searchsorted(x, high[:, 0], "right")
    top, bottom = np.searchsorted(-y, -high[:, 1]), np.searchsorted(-y, -low[:, 1], "right")
    return left.tolist(), right.tolist(), top.tolist(), bottom.tolist()
