"""Where a synthetic person is seen: cameras, their light and backgrounds, and the finished picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from potgan.data.pose import JOINT
from potgan.data.synthetic.body import Look
from potgan.data.synthetic.textures import TEXTURE_COLUMNS, TEXTURE_ROWS


@dataclass(frozen=True)
class Shot:
    """By which camera, and from which side, an image of a person is taken."""

    name: str  # the image's file name
    camera: int  # from 1
    sequence: int  # 1 to 6; it says which piece of the panorama is behind the person
    yaw: float  # radians, how far the person is turned away from the camera


@dataclass(frozen=True)
class Camera:
    """A camera and its place: light, colour, sharpness, and what stands behind the people."""

    elevation: float  # radians that it looks down
    light: np.ndarray  # unit vector toward the light, in the camera's frame
    ambient: float  # brightness of what no light falls on
    diffuse: float  # brightness that the light adds to what faces it
    tint: np.ndarray  # (3,) float32 factors on red, green and blue
    blur: float  # standard deviation, pixels
    panorama: np.ndarray  # (rows, columns, 3) uint8, larger than a picture


@dataclass(frozen=True)
class _Site:
    """What is fixed about a camera's place. Light and tint change a little with the seed."""

    place: str
    horizon: float  # where the ground ends, as a share of the panorama's height from its top
    ground: tuple[int, int, int]
    slab: float  # width of the paving's slabs, in pixels of a picture with 128 rows; 0 for no paving
    elevation: float
    light: tuple[float, float, float]
    ambient: float
    diffuse: float
    tint: tuple[float, float, float]
    blur: float  # in pixels of a picture with 128 rows


_SITES = (
    _Site("street", 0.42, (118, 118, 120), 0, 0.10, (-0.5, 0.7, 0.6), 0.52, 0.52, (1.00, 1.00, 0.98), 0.35),
    _Site("plaza", 0.30, (168, 162, 154), 14, 0.20, (0.6, 0.7, 0.4), 0.60, 0.48, (1.06, 1.02, 0.94), 0.30),
    _Site("grass", 0.34, (104, 128, 70), 0, 0.14, (0.2, 0.9, 0.5), 0.62, 0.48, (0.98, 1.04, 0.96), 0.50),
    _Site("brick", 0.62, (150, 146, 140), 18, 0.08, (-0.7, 0.5, 0.5), 0.46, 0.55, (1.04, 0.98, 0.92), 0.40),
    _Site("shop", 0.66, (128, 126, 124), 22, 0.12, (0.4, 0.6, 0.7), 0.40, 0.48, (0.92, 0.97, 1.06), 0.60),
    _Site("hedge", 0.55, (158, 150, 142), 12, 0.18, (-0.2, 0.8, 0.6), 0.58, 0.52, (1.00, 1.03, 1.00), 0.45),
)


@lru_cache(maxsize=24)
def camera_of(seed: int, camera: int, height: int, width: int) -> Camera:
    """Camera number `camera` (from 1) for pictures of this height and width."""
    random = np.random.default_rng((seed, 8, camera))
    site = _SITES[camera - 1]
    light = np.array(site.light) + random.uniform(-0.15, 0.15, 3)
    tint = np.array(site.tint, np.float32) * random.uniform(0.97, 1.03, 3).astype(np.float32)
    brightness = site.ambient + 0.6 * site.diffuse
    return Camera(
        elevation=site.elevation,
        light=light / np.linalg.norm(light),
        ambient=site.ambient,
        diffuse=site.diffuse,
        tint=tint,
        blur=site.blur * height / 128,
        panorama=np.clip(_panorama(site, height, width, random) * tint * brightness, 0, 255).astype(np.uint8),
    )


def _panorama(site: _Site, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """(1.25 height, 6 width, 3) float32: the ground below the horizon, and what stands on it above the horizon.

    Lengths are in `unit`s: one is a pixel of a picture with 128 rows.
    """
    rows, columns, unit = height + height // 4, 6 * width, height / 128
    horizon = int(rows * site.horizon)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)

    def noise(grain: float, amount: float) -> np.ndarray:
        field = cv2.GaussianBlur(random.normal(size=(rows, columns)).astype(np.float32), (0, 0), max(0.4, grain * unit))
        return (amount * field / field.std())[:, :, None]

    below = np.maximum(y - horizon, 0) / rows
    ground = np.tile(np.float32(site.ground), (rows, columns, 1))
    if site.slab:
        along = 6 / (below + 0.25)  # distance goes like 1 / row, so slabs get shorter toward the horizon
        across = (x + 0.5 * (y - horizon)) / (site.slab * unit)
        ground *= random.uniform(0.96, 1.04, (64, 64))[along.astype(int) % 64, across.astype(int) % 64, None]
        ground[(along % 1 < 0.10) | (across % 1 < 1.2 / site.slab)] *= 0.82
    if site.place == "street":
        ground[abs(below - 0.16) * rows < 1.2 * unit] = (206, 204, 196)  # a painted line
    if site.place == "grass":
        ground[abs(below - 0.30) < 0.12] = (176, 168, 152)  # a path
    ground += noise(0.6, 5) + noise(5, 5)
    ground *= (0.88 + 0.24 * np.clip(1.6 * below, 0, 1))[:, :, None]
    ground[abs(y - horizon) < 0.8 * unit] *= 0.7

    picture = np.where(
        (y < horizon)[:, :, None], _scenery(site.place, x / unit, y / unit, horizon / unit, noise), ground
    )
    picture *= (1 + 0.06 * np.sin(3 * np.pi * x / columns + random.uniform(0, 6)))[:, :, None]
    return np.clip(picture, 0, 255)


def _scenery(
    place: str, x: np.ndarray, y: np.ndarray, horizon: float, noise: Callable[[float, float], np.ndarray]
) -> np.ndarray:
    """(rows, columns, 3) float32: what stands at a place, a wall, a hedge, trees or a shop front, down to y = horizon.

    x, y: (rows, columns) places in units; horizon: in units. noise: (grain in units, amount) -> (rows, columns, 1) noise.
    """

    def plain(*colour: float) -> np.ndarray:
        return np.tile(np.float32(colour), (*x.shape, 1))

    if place == "street":  # a front with dark windows
        out = plain(92, 96, 102)
        out[(x % 46 < 24) & (y % 40 > 10)] = (52, 58, 68)
        out += noise(3, 5)
        out[y > horizon - 3] = (150, 148, 144)
    elif place == "plaza":  # a light hall with pillars
        out = plain(150, 156, 164)
        out[x % 30 < 5] = (116, 116, 120)
        out += noise(6, 8)
    elif place == "grass":  # trees
        out = plain(64, 92, 52) + noise(2.2, 18) * np.float32([0.9, 1.0, 0.7]) + noise(8, 10)
        out[abs((x + 9) % 58 - 29) < 3] = (78, 64, 52)
    elif place == "brick":
        out = plain(150, 92, 74)
        shift = 5.5 * (np.floor(y / 5) % 2)
        out[(y % 5 < 1) | ((x + shift) % 11 < 1)] = (176, 162, 150)
        out += noise(1.5, 5) + noise(9, 6)
    elif place == "shop":  # dark panes in frames, a lamp here and there
        out = plain(40, 44, 50)
        out[x % 52 < 4] = (120, 122, 126)
        out[abs(y - 0.55 * horizon) < 1.5] = (96, 98, 102)
        lamp = np.exp(-(((x % 104 - 70) / 14) ** 2) - ((y - 0.4 * horizon) / 16) ** 2)
        out += lamp[:, :, None] * np.float32([70, 62, 46]) + noise(5, 6)
        out[y > horizon - 6] = (88, 86, 84)
    else:  # a hedge behind a railing
        out = plain(58, 84, 48) + noise(1.4, 20) * np.float32([0.8, 1.0, 0.6]) + noise(7, 9)
        post = (x % 24 < 2) & (y > 0.45 * horizon)
        out[post | (abs(y - 0.5 * horizon) < 1.2) | (abs(y - 0.8 * horizon) < 1)] = (132, 132, 130)
    return out


def shade(
    part: np.ndarray,
    depth: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    rotation: np.ndarray,
    origin: np.ndarray,
    look: Look,
    camera: Camera,
) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns, 4) uint8 red, green, blue and alpha (255 or 0) of the samples, from the answers of `surfaces.cast`, and
    (rows, columns) uint8, the number of the class that each of them shows, one of PARSING_CLASSES.

    The colour is that of the texture at the point's place on its part, times the light that falls on it (Lambert's law).
    """
    position = np.flatnonzero(part >= 0)
    grid_row, grid_column = np.divmod(position, len(x))
    x, y = x.astype(np.float32).take(grid_column), y.astype(np.float32).take(grid_row)
    size, part, depth = part.shape, part.ravel().take(position), depth.ravel().take(position)

    # One row per part. First comes what is linear in (x, y, depth): local x / width, local y and local z / depth.
    shape = look.body.shape
    breadth = np.stack([shape[:, 0], np.ones(len(shape)), shape[:, 1]], 1)
    local = rotation.transpose(0, 2, 1) / breadth[:, :, None]
    start = -np.einsum("pij,pj->pi", local, origin)
    light = np.einsum("pji,j->pi", rotation, camera.light)
    # Then comes what the normal (the gradient of the part's equation) and the texture's row need.
    normal = np.stack([1 / shape[:, 0], -shape[:, 3] / 2, -shape[:, 4], 1 / shape[:, 1]], 1)
    table = np.concatenate([local.reshape(-1, 9), start, light, normal, shape[:, 5:]], 1).astype(np.float32)
    (xx, xy, xz, yx, yy, yz, zx, zy, zz, x0, y0, z0, lx, ly, lz, wide, q1, q2, deep, half) = table.T.take(part, axis=1)
    local_x = xx * x + xy * y + xz * depth + x0
    local_y = yx * x + yy * y + yz * depth + y0
    local_z = zx * x + zy * y + zz * depth + z0

    normal_x, normal_y, normal_z = local_x * wide, q1 + q2 * local_y, local_z * deep
    length = np.sqrt(normal_x * normal_x + normal_y * normal_y + normal_z * normal_z)
    toward_light = (normal_x * lx + normal_y * ly + normal_z * lz) / length
    brightness = camera.ambient + camera.diffuse * np.maximum(toward_light, -0.3)

    row = ((local_y / half + 1) * (TEXTURE_ROWS / 2)).astype(np.int32)
    np.clip(row, 0, TEXTURE_ROWS - 1, out=row)
    column = (np.arctan2(local_x, local_z) * (TEXTURE_COLUMNS / (2 * np.pi)) + TEXTURE_COLUMNS / 2).astype(np.int32)
    np.clip(column, 0, TEXTURE_COLUMNS - 1, out=column)
    texel = (look.body.texture.astype(np.int32)[part] * TEXTURE_ROWS + row) * TEXTURE_COLUMNS + column
    colour = look.atlas.reshape(-1, 3).take(texel, axis=0) * brightness[:, None]
    colour *= camera.tint
    layer = np.zeros((size[0] * size[1], 4), np.uint8)
    layer[position, :3] = np.minimum(colour, 255)
    layer[position, 3] = 255
    classes = np.zeros(size[0] * size[1], np.uint8)
    classes[position] = look.classes.ravel().take(texel)
    return layer.reshape(*size, 4), classes.reshape(size)


def compose(
    layer: np.ndarray,
    joints: np.ndarray,
    camera: Camera,
    shot: Shot,
    scale: float,
    centre: tuple[float, float],
    random: np.random.Generator,
) -> np.ndarray:
    """(H, W, 3) uint8: the finished picture of the person before the camera's background, with shadow and blur.

    layer: the shaded samples; averaging them to pixels smooths the person's outline. joints: (18, 3) in the camera's frame.
    scale, centre: as in `Surface`.
    """
    layer = cv2.GaussianBlur(layer, (3, 3), 0)[1::2, 1::2].astype(np.float32)  # weights 1, 2, 1 over the half pixels
    height, width = layer.shape[:2]

    view = camera.panorama
    room_x, room_y = view.shape[1] - width, view.shape[0] - height
    left = shot.sequence / 7 * room_x + random.uniform(-0.15, 0.15) * width
    top = room_y * random.uniform(0.2, 0.8)
    i, j = round(float(np.clip(top, 0, room_y))), round(float(np.clip(left, 0, room_x)))
    background = view[i : i + height, j : j + width].astype(np.float32)

    # A soft shadow lies where the feet meet the ground: one wide spot under the person, and a smaller one under each foot.
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    shadow = np.ones((height, width), np.float32)
    ankles = joints[[JOINT["right_ankle"], JOINT["left_ankle"]]]
    spots = [(ankles[:, 0].mean() + 0.03, ankles[:, 1].min() - 0.04, 0.16, 0.035, 0.35)]
    spots += [(ax, ay - 0.04, 0.06, 0.014, 0.4) for ax, ay, _ in ankles]
    for at_x, at_y, reach_x, reach_y, strength in spots:
        along = np.exp(-(((x - centre[0]) / scale - at_x) ** 2) / reach_x**2)
        down = np.exp(-(((centre[1] - y) / scale - at_y) ** 2) / reach_y**2)
        shadow *= 1 - strength * down[:, None].astype(np.float32) * along.astype(np.float32)
    background *= shadow[:, :, None]
    background *= 1 - layer[:, :, 3:] * np.float32(1 / 255)
    picture = (background + layer[:, :, :3]) * np.float32(random.uniform(0.92, 1.06))
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    if camera.blur > 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), camera.blur)
    return picture
