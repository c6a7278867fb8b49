"""What is painted on the parts of a synthetic person: cloth, bags, skin, hair and the face, and of which class each place is.

A texture is wrapped round its part. Its rows lie along y, from the lowest to the highest; its columns go round the part, with the
front in the middle.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from potgan.data.pose import PARSING_CLASSES
from potgan.data.synthetic.body import EYE_ANGLE, EYE_HEIGHT, JAW, SKULL, WAIST
from potgan.data.synthetic.clothes import Wardrobe

TEXTURE_ROWS, TEXTURE_COLUMNS = 64, 96
#: (1, columns) angle of each column round the part, in radians: 0 in front, positive on the person's left.
_ANGLE = ((np.arange(TEXTURE_COLUMNS)[None] + 0.5) / TEXTURE_COLUMNS - 0.5) * 2 * np.pi


def textures_of(wardrobe: Wardrobe) -> dict[str, np.ndarray]:
    """Name of each texture -> its (rows, columns, 3) uint8 red, green and blue."""
    skin, upper, lower = wardrobe.skin, wardrobe.upper, wardrobe.lower
    row = _span(1, 0)

    torso, yoke = _upper_cloth(wardrobe, _span(0.185, -0.03)), _upper_cloth(wardrobe, _span(0.215, 0.095))
    hem = _upper_cloth(wardrobe, _span(0.125, wardrobe.hem) - WAIST, straps=False)
    hem[:2] *= 0.75  # the shadow under the hem
    yoke[_is_neck(wardrobe)] = skin
    sleeve = _upper_cloth(wardrobe, _span(0.12, 0), on_torso=False)
    long_sleeve, sleeveless = wardrobe.sleeve == "long", wardrobe.sleeve == "none"
    elbow = upper if wardrobe.pattern != "checks" else 0.6 * upper + 0.4 * wardrobe.second

    trousers = _wears_trousers(wardrobe)
    leg = _fill(lower)
    if wardrobe.side_stripe:
        leg[:, abs(abs(_ANGLE[0]) - np.pi / 2) < 0.22] = (225, 225, 222)
    thigh, shin = (leg.copy() if trousers else _fill(skin)), (leg.copy() if trousers else _fill(skin))
    if (
        not trousers
    ):  # a long stride pushes the thigh through the cloth at the hip, so the thigh is painted as cloth there
        thigh[_is_covered(wardrobe)] = lower
        if wardrobe.side_stripe:
            shin[row[:, 0] < 0.33] = (228, 228, 226)  # socks
    if wardrobe.lower_kind == "cropped":
        shin[_is_below_cropped()] = skin

    shoe, bag, backpack = _fill(wardrobe.shoes), _fill(wardrobe.bag_colour), _fill(wardrobe.bag_colour)
    shoe[row[:, 0] < 0.33] = (200, 198, 192) if wardrobe.shoes.mean() > 60 else (60, 58, 56)  # soles
    bag[(row[:, 0] > 0.6) & (row[:, 0] < 0.66)] *= 0.6  # the flap's edge
    backpack[(row[:, 0] > 0.5) & (row[:, 0] < 0.55)] *= 0.55  # a zip, and a pocket below
    backpack[(abs(_ANGLE) > np.pi - 0.9) & (row > 0.08) & (row < 0.42)] *= 1.2

    folds = _wrinkles()
    textures = {
        "torso": torso * folds,
        "yoke": yoke * folds,
        "hem": hem * folds,
        "pelvis": _fill(lower) * folds,
        "shoulder": _fill(skin) if sleeveless else _upper_cloth(wardrobe, _span(0.202, 0.118), on_torso=False),
        "sleeve": sleeve * folds,
        "upper_arm": sleeve if long_sleeve else _fill(skin),
        "elbow": _fill(elbow if long_sleeve else skin),
        "forearm": _upper_cloth(wardrobe, _span(0.145, 0), on_torso=False) if long_sleeve else _fill(skin),
        "skirt": _fill(lower) * (0.94 + 0.06 * np.cos(14 * _ANGLE))[:, :, None],
        "trouser_leg": leg * folds,
        "thigh": thigh * folds if trousers else thigh,
        "knee": _fill(lower if trousers else skin),
        "shin": shin * folds if trousers else shin,
        "shoe": shoe,
        "skin": _fill(skin),
        "hand": _fill(skin),
        "face": _face(wardrobe),
        "jaw": _jaw(wardrobe),
        "hair": _fill(wardrobe.hair) * (1 + 0.10 * np.sin(23 * _ANGLE))[:, :, None],
        "cap": _fill(wardrobe.second),
        "backpack": backpack * folds,
        "bag": bag,
        "bag_top": _fill(wardrobe.bag_colour),
    }
    return {name: np.clip(texture, 0, 255).astype(np.uint8) for name, texture in textures.items()}


def classes_of(wardrobe: Wardrobe) -> dict[str, np.ndarray]:
    """Name of each texture -> (rows, columns) uint8: the number of one of PARSING_CLASSES for each of its places.

    The neck counts as face, a sock as leg, and shorts as pants. A bag hides the person and is of no class, so that it is
    background, as in LIP. Its straps are painted on the cloth and count as cloth.
    """
    arms, legs, upper, face, hair = "arms", "legs and shoes", "upper clothes", "face", "hair and hat"
    lower = "skirt" if wardrobe.lower_kind == "skirt" else "pants"
    trousers, long_sleeve = _wears_trousers(wardrobe), wardrobe.sleeve == "long"
    painted = {
        **dict.fromkeys(("torso", "yoke", "hem", "sleeve"), upper),
        "shoulder": arms if wardrobe.sleeve == "none" else upper,
        **dict.fromkeys(("upper_arm", "elbow", "forearm"), upper if long_sleeve else arms),
        "hand": arms,
        **{"pelvis": lower, "trouser_leg": "pants", "skirt": "skirt"},
        **dict.fromkeys(("thigh", "knee", "shin"), lower if trousers else legs),
        "shoe": legs,
        **dict.fromkeys(("skin", "face", "jaw"), face),
        **dict.fromkeys(("hair", "cap"), hair),
        **dict.fromkeys(("backpack", "bag", "bag_top"), "background"),
    }
    classes = {
        name: np.full((TEXTURE_ROWS, TEXTURE_COLUMNS), PARSING_CLASSES.index(kind), np.uint8)
        for name, kind in painted.items()
    }
    classes["yoke"][_is_neck(wardrobe)] = PARSING_CLASSES.index(face)
    classes["face"][_is_hair() & ~_is_ear()] = PARSING_CLASSES.index(hair)
    if not trousers:
        classes["thigh"][_is_covered(wardrobe)] = PARSING_CLASSES.index(lower)
    if wardrobe.lower_kind == "cropped":
        classes["shin"][_is_below_cropped()] = PARSING_CLASSES.index(legs)
    return classes


def _wears_trousers(wardrobe: Wardrobe) -> bool:
    """Whether cloth is painted on the legs. Shorts and skirts are parts of their own."""
    return wardrobe.lower_kind in ("trousers", "cropped")


def _is_neck(wardrobe: Wardrobe) -> np.ndarray:
    """(rows, columns) bool: where the yoke shows the neck, above the shirt."""
    neckline = 0.204 - (0.022 if wardrobe.woman else 0.012) * np.clip(np.cos(_ANGLE), 0, 1) ** 4
    return _span(0.215, 0.095) > neckline


def _is_covered(wardrobe: Wardrobe) -> np.ndarray:
    """(rows,) bool: where the thigh is painted as cloth, below shorts or a skirt."""
    covered = wardrobe.leg_length * (1 if wardrobe.lower_kind == "shorts" else 1.1)
    return _span(1, 0)[:, 0] > 1.03 - covered


def _is_below_cropped() -> np.ndarray:
    """(rows,) bool: where the shin shows below cropped trousers."""
    return _span(1, 0)[:, 0] < 0.5


def _is_hair() -> np.ndarray:
    """(rows, columns) bool: where hair grows on the skull below the part "hair"."""
    side, y = abs(_ANGLE), _above_the_eyes()
    return ((side > 1.85) & (y > -0.036)) | ((side > 1.4) & (y > 0.010)) | (y > 0.042)


def _is_ear() -> np.ndarray:
    """(rows, columns) bool: where the ears are painted, over the hair."""
    return (abs(abs(_ANGLE) - np.pi / 2) < 0.22) & (abs(_above_the_eyes() + 0.002) < 0.018)


def _above_the_eyes() -> np.ndarray:
    """(rows, 1) heights on the skull above the eyes."""
    return _span(SKULL[1], -SKULL[1]) - EYE_HEIGHT


def _upper_cloth(wardrobe: Wardrobe, y: np.ndarray, on_torso: bool = True, straps: bool = True) -> np.ndarray:
    """(rows, columns, 3) float32: the upper garment on a part whose rows lie at the heights y.

    y: (rows, 1) statures, on the torso above the waist. Sleeves show stripes, checks and dots; only the torso shows prints, bands,
    openings and straps. straps: whether straps of bags are painted. They lie flat on the torso and are no parts of their own.
    """
    cloth, second, pattern = _fill(wardrobe.upper), wardrobe.second, wardrobe.pattern
    arc = _ANGLE * (0.085 if on_torso else 0.030)  # statures round the part
    across, up = arc / wardrobe.period % 1, y / wardrobe.period % 1
    if pattern == "checks":
        cloth += (0.5 * (across < 0.4) + 0.5 * (up < 0.4))[:, :, None] * (second - wardrobe.upper)
    else:
        size = wardrobe.period
        everywhere = {
            "stripes": (up < 0.4) & (abs(arc) >= 0),
            "dots": (across - 0.5) ** 2 + (up - 0.5) ** 2 < 0.08,
        }
        torso_only = {
            "disc": arc**2 + (y - 0.11) ** 2 < (0.7 * size) ** 2,
            "bar": (abs(arc) < 0.9 * size) & (abs(y - 0.11) < 0.4 * size),
            "band": (y > 0.06) & (y < 0.13) & (abs(arc) >= 0),
            "open": abs(arc) < 0.022 + 0.08 * np.clip(y - 0.1, 0, 1),
        }
        painted = everywhere | torso_only if on_torso else everywhere
        if pattern in painted:
            cloth[painted[pattern]] = second
    if on_torso and straps and wardrobe.backpack:
        cloth[(abs(abs(_ANGLE) - 0.75) < 0.13) & (y > 0.03)] = wardrobe.bag_colour
    elif on_torso and straps and wardrobe.bag.endswith("hip"):
        sign = 1 if wardrobe.bag.startswith("left") else -1
        slant = sign * (0.55 - 9 * (y - 0.06))  # from the bag's hip up to the other shoulder
        behind = (np.pi - abs(_ANGLE)) * np.sign(_ANGLE)
        cloth[(abs(_ANGLE - slant) < 0.16) | (abs(behind - slant) < 0.16)] = wardrobe.bag_colour
    return cloth


def _face(wardrobe: Wardrobe) -> np.ndarray:
    """The texture of the skull: brows, eyes, glasses, ears, and the hair that grows below the part "hair"."""
    face, skin = _fill(wardrobe.skin), wardrobe.skin
    y = _above_the_eyes()
    side, off_eye = abs(_ANGLE), abs(abs(_ANGLE) - EYE_ANGLE)
    face[(off_eye < 0.26) & (abs(y - 0.003) < 0.010)] = 0.86 * skin  # the shade of the eye's socket
    face[(off_eye < 0.22) & (abs(y - 0.012) < 0.003)] = 0.45 * skin + 0.45 * wardrobe.hair
    face[(off_eye < 0.13) & (abs(y) < 0.0035)] = (60, 46, 42)
    face[_is_hair()] = wardrobe.hair
    if wardrobe.glasses:
        face[((off_eye < 0.34) & (abs(y) < 0.012)) | ((side < 1.6) & (abs(y) < 0.003))] = (30, 28, 30)
    face[_is_ear()] = 0.82 * skin
    return face


def _jaw(wardrobe: Wardrobe) -> np.ndarray:
    """The texture of the jaw, with the mouth."""
    jaw = _fill(wardrobe.skin)
    jaw[(abs(_ANGLE) < 0.5) & (abs(_span(JAW[1], -JAW[1]) + 0.014) < 0.005)] = wardrobe.skin * (0.80, 0.62, 0.60)
    return jaw


@lru_cache(maxsize=1)
def _wrinkles() -> np.ndarray:
    """(rows, columns, 1) factors about 1 that look like folds of cloth, the same for all people.

    The last column meets the first one without a seam.
    """
    noise = np.random.default_rng(7).normal(size=(TEXTURE_ROWS, TEXTURE_COLUMNS)).astype(np.float32)
    noise = cv2.GaussianBlur(np.tile(noise, (1, 3)), (0, 0), 3.0)[:, TEXTURE_COLUMNS : 2 * TEXTURE_COLUMNS]
    return (1 + 0.07 * noise / noise.std())[:, :, None]


def _fill(colour: np.ndarray | tuple[int, int, int]) -> np.ndarray:
    """(rows, columns, 3) float32 texture of one colour."""
    return np.broadcast_to(np.asarray(colour, np.float32), (TEXTURE_ROWS, TEXTURE_COLUMNS, 3)).copy()


def _span(highest: float, lowest: float) -> np.ndarray:
    """(rows, 1) heights of the rows of a texture on a part that reaches from `lowest` to `highest`."""
    return lowest + (np.arange(TEXTURE_ROWS)[:, None] + 0.5) / TEXTURE_ROWS * (highest - lowest)
