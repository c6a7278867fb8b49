"""Who a synthetic person is: build, skin, hair and clothes, drawn for each identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Colours are (red, green, blue), 0 to 255.
_UPPER = {
    "white": (232, 232, 228),
    "black": (34, 34, 38),
    "grey": (128, 130, 134),
    "red": (196, 36, 44),
    "green": (48, 136, 72),
    "blue": (44, 84, 176),
    "yellow": (230, 200, 52),
    "pink": (234, 128, 164),
    "purple": (112, 60, 140),
    "cyan": (100, 196, 206),
}
_LOWER = {
    "black": (36, 36, 42),
    "denim": (62, 82, 124),
    "grey": (124, 126, 130),
    "khaki": (168, 142, 100),
    "white": (220, 218, 212),
    "red": (150, 40, 58),
}
#: Names of the main colours of the clothes: the classes that the feature network learns. `Render.upper_colour` and
#: `Render.lower_colour` index them.
UPPER_COLOURS: tuple[str, ...] = tuple(_UPPER)
LOWER_COLOURS: tuple[str, ...] = tuple(_LOWER)

_SKIN = ((238, 200, 172), (226, 182, 150), (206, 158, 122), (164, 114, 82), (108, 74, 54))
_HAIR = ((24, 22, 24), (44, 32, 28), (78, 52, 36), (128, 88, 50), (176, 142, 92), (150, 148, 146))
_SHOES = ((28, 28, 30), (226, 226, 224), (104, 72, 48), (160, 44, 48), (60, 70, 100), (120, 122, 126))
_BAGS = ((30, 30, 34), (44, 56, 96), (150, 36, 40), (96, 68, 44), (70, 92, 66), (196, 150, 60), (206, 206, 204))


@dataclass(frozen=True)
class Wardrobe:
    """An identity's build, colours and clothes. Lengths are in statures; colours are (3,) red, green, blue, 0 to 255."""

    woman: bool
    girth: float  # a factor on every breadth
    shoulder: float  # half the distance between the shoulder joints
    hip: float  # half the distance between the hip joints
    skin: np.ndarray
    hair: np.ndarray
    hair_style: str  # long | bob | tail | short | cap
    glasses: bool
    upper: np.ndarray
    second: np.ndarray  # colour of the pattern, of the shirt under an open jacket, and of the cap
    pattern: str  # plain | stripes | checks | dots | disc | bar | band | open
    period: float  # length after which the pattern repeats; also the size of a printed disc or bar
    sleeve: str  # short | long | none
    hem: float  # height of the shirt's lower edge above the hip joints
    lower: np.ndarray
    lower_kind: str  # trousers | cropped | shorts | skirt
    leg_length: float  # length of shorts and skirts, in lengths of the thigh
    leg_width: float  # width of shorts, in widths of the thigh
    side_stripe: bool
    shoes: np.ndarray
    backpack: bool
    bag: str  # "" | left_hip | right_hip | left_hand | right_hand
    bag_colour: np.ndarray  # colour of the backpack and of the bag


def dress(upper_colour: int, lower_colour: int, random: np.random.Generator) -> Wardrobe:
    """Draw an identity's build and clothes. upper_colour, lower_colour: indices into UPPER_COLOURS and LOWER_COLOURS."""

    def choose(weights: dict[str, float]) -> str:
        return str(random.choice(list(weights), p=list(weights.values())))

    def dye(colour: tuple[int, int, int], spread: float = 0.1) -> np.ndarray:
        hue = 1 + 0.4 * random.uniform(-spread, spread, 3)
        return np.clip(np.array(colour) * random.uniform(1 - spread, 1 + spread) * hue, 0, 255)

    woman = random.random() < 0.5
    if woman:
        hair_styles = {"long": 0.35, "bob": 0.2, "tail": 0.25, "short": 0.1, "cap": 0.1}
        lower_kinds = {"trousers": 0.38, "cropped": 0.1, "shorts": 0.2, "skirt": 0.32}
    else:
        hair_styles = {"long": 0.03, "bob": 0.07, "tail": 0.02, "short": 0.73, "cap": 0.15}
        lower_kinds = {"trousers": 0.66, "cropped": 0.04, "shorts": 0.3}
    patterns = {"plain": 0.2, "stripes": 0.18, "checks": 0.12, "dots": 0.1, "disc": 0.1, "bar": 0.1, "band": 0.1}
    bags = {"": 0.55, "left_hip": 0.13, "right_hip": 0.13, "left_hand": 0.1, "right_hand": 0.09}
    backpack, bag = random.random() < 0.35, choose(bags)
    second_colour = (upper_colour + random.integers(1, len(UPPER_COLOURS))) % len(UPPER_COLOURS)
    return Wardrobe(
        woman=woman,
        girth=random.uniform(0.96, 1.24),
        shoulder=(0.097 if woman else 0.108) * random.uniform(0.97, 1.05),
        hip=0.049 if woman else 0.046,
        skin=dye(_SKIN[random.integers(len(_SKIN))], 0.04),
        hair=np.array(_HAIR[random.choice(len(_HAIR), p=(0.42, 0.22, 0.14, 0.1, 0.07, 0.05))]),
        hair_style=choose(hair_styles),
        glasses=random.random() < 0.15,
        upper=dye(_UPPER[UPPER_COLOURS[upper_colour]]),
        second=dye(_UPPER[UPPER_COLOURS[second_colour]]),
        pattern=choose({**patterns, "open": 0.1}),
        period=random.uniform(0.035, 0.06),
        sleeve=choose({"short": 0.55, "long": 0.33, "none": 0.12}),
        hem=random.uniform(-0.055, 0.015),
        lower=dye(_LOWER[LOWER_COLOURS[lower_colour]]),
        lower_kind=choose(lower_kinds),
        leg_length=random.uniform(0.6, 0.95),
        leg_width=random.uniform(1.02, 1.25),
        side_stripe=random.random() < 0.15,
        shoes=np.array(_SHOES[random.integers(len(_SHOES))]),
        backpack=backpack,
        bag="" if backpack and bag.endswith("hip") else bag,  # else its strap would lie on the backpack's
        bag_colour=np.array(_BAGS[random.integers(len(_BAGS))]),
    )
