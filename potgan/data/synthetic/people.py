"""The embedded data set: clothed people on an articulated 3-D skeleton, with exact joints and exact flow.

A person is a set of simple surfaces ("parts"), each fixed to one bone. Every part has the same form: in its own frame

    (x / width)^2 + (z / depth)^2 = q0 + q1 y + q2 y^2        for |y| <= half,

which is an ellipsoid, a cylinder, a cone, a barrel or a waist, depending on the three numbers. A ray of the (weak
perspective) camera meets such a surface in closed form, so that one pass gives for every sample of the picture the part
that is seen and its depth. Everything else follows from the point in the part's own frame: its colour, the light that
falls on it, and, since the same point exists in every other picture of the person, the exact flow.

Frames. Person: x to the person's left, y up, z forward; the unit is the person's stature. Camera: x to the right, y up,
z toward the camera; a person at yaw 0 faces the camera, at 90 degrees the right edge of the picture. Pixels: x right,
y down, pixel centres at integers. The picture is sampled at every half pixel, so that every second sample lies on a
pixel centre: one pass serves the anti-aliased image and the exact surface.

Numpy and OpenCV only. An image depends on `SyntheticSettings.seed`, the person, the index, and height, width and
cameras; on nothing else, in particular not on how many identities or images there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from potgan.common.errors import UserError
from potgan.data.pose import JOINT, JOINTS, TORSO
from potgan.settings.schema import SyntheticSettings

# --------------------------------------------------------------------------------------------------------- colours

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
#: Main colours of the clothes, the classes of the feature network; `Render.upper_colour` indexes them.
UPPER_COLOURS: tuple[str, ...] = tuple(_UPPER)
LOWER_COLOURS: tuple[str, ...] = tuple(_LOWER)

_SKIN = ((238, 200, 172), (226, 182, 150), (206, 158, 122), (164, 114, 82), (108, 74, 54))
_HAIR = ((24, 22, 24), (44, 32, 28), (78, 52, 36), (128, 88, 50), (176, 142, 92), (150, 148, 146))
_SHOES = ((28, 28, 30), (226, 226, 224), (104, 72, 48), (160, 44, 48), (60, 70, 100), (120, 122, 126))
_BAGS = ((30, 30, 34), (44, 56, 96), (150, 36, 40), (96, 68, 44), (70, 92, 66), (196, 150, 60), (206, 206, 204))

# ----------------------------------------------------------------------------------------------------------- parts

_SIDED = ("shoulder", "upper_arm", "elbow", "forearm", "hand", "sleeve", "thigh", "knee", "shin", "shoe", "trouser_leg")
#: What a sample of the picture can show; `Surface.part` indexes it. Nobody has all of them.
PARTS: tuple[str, ...] = (
    *("torso", "yoke", "hem", "pelvis", "skirt", "neck", "skull", "jaw", "nose", "hair", "hair_back", "brim"),
    *("backpack", "backpack_top", "bag", "bag_top"),
    *(f"{side}_{part}" for side in ("right", "left") for part in _SIDED),
)
PART = {name: i for i, name in enumerate(PARTS)}

_LIMB_BONES = ("upper_arm", "forearm", "thigh", "shin", "foot")
_BONES = (
    *("pelvis", "chest", "head", "bag"),
    *(f"{side}_{bone}" for side in ("right", "left") for bone in _LIMB_BONES),
)
_BONE = {name: i for i, name in enumerate(_BONES)}
_SIDES = (("right", -1.0), ("left", 1.0))  # sign of x in the person's frame

# Lengths in statures (usual anthropometric ratios: hip at .53, shoulders at .82, chin at .87).
_THIGH, _SHIN, _ANKLE = 0.245, 0.245, 0.040
_WAIST, _SHOULDER_HEIGHT, _SKULL_BASE = 0.100, 0.168, 0.242
_UPPER_ARM, _FOREARM = 0.172, 0.145
_SKULL_CENTRE, _SKULL, _JAW = (0.0, 0.064, 0.0), (0.047, 0.064, 0.056), (0.038, 0.043, 0.041)
_EYE_ANGLE, _EYE_HEIGHT = 0.42, -0.006

#: A joint counts as visible if one of these parts is what is seen at its place ...
_JOINT_PARTS = {
    "nose": "nose skull jaw",
    "eye": "nose skull jaw",
    "ear": "skull jaw hair",
    "neck": "torso yoke neck",
    "shoulder": "torso yoke * shoulder * upper_arm * sleeve",
    "elbow": "* upper_arm * elbow * forearm * sleeve",
    "wrist": "* forearm * hand",
    "hip": "pelvis hem skirt torso * thigh * trouser_leg",
    "knee": "skirt * thigh * knee * shin * trouser_leg",
    "ankle": "* shin * shoe",
}
#: ... and lies at most so far in front of it (statures): the joint's depth in the flesh.
_JOINT_REACH = {
    **{"nose": 0.012, "eye": 0.012, "ear": 0.012, "neck": 0.11, "shoulder": 0.09, "elbow": 0.05, "wrist": 0.04},
    **{"hip": 0.13, "knee": 0.07, "ankle": 0.05},
}
_SURFACE_TOLERANCE = 0.006  # statures; under one pixel at 128 x 64

_TEXTURE_ROWS, _TEXTURE_COLUMNS = 64, 96  # along y from lowest to highest; round the part, the front in the middle


@dataclass(frozen=True)
class Surface:
    """The posed body of one render: what `exact_flow` needs.

    part: (H, W) int8, index into PARTS of what each pixel's centre shows, -1 = background. depth: (H, W) float32,
    statures toward the camera. scale, centre: pixel (x, y) = centre + scale * (X, -Y). rotation (P, 3, 3), origin
    (P, 3): camera point = rotation @ local point + origin, for each part of the person. ids: (P,) index into PARTS.
    shape: (P, 6) width, depth, q0, q1, q2, half of each part, see the head of this module.
    """

    part: np.ndarray
    depth: np.ndarray
    scale: float
    centre: tuple[float, float]
    rotation: np.ndarray
    origin: np.ndarray
    ids: np.ndarray
    shape: np.ndarray


@dataclass(frozen=True)
class Render:
    """One synthetic image with everything that is known about it.

    name: Market-1501's grammar, unique in the data set. split: "train" or "test". person: 1 to train_identities are
    train, the following ones test. camera: from 1. image: (H, W, 3) uint8 RGB. joints: (18, 2) float32 (x, y) pixels of
    all joints, hidden ones and those outside the frame included. visible: (18,) bool, inside the frame and hidden
    neither by another part of the body nor by clothes or a bag. upper_colour, lower_colour: indices into
    UPPER_COLOURS and LOWER_COLOURS.
    """

    name: str
    split: str
    person: int
    camera: int
    image: np.ndarray
    joints: np.ndarray
    visible: np.ndarray
    upper_colour: int
    lower_colour: int
    surface: Surface

    @property
    def body(self) -> np.ndarray:
        """(H, W) bool: every pixel whose centre shows the person (clothes, hair and bags included)."""
        return self.surface.part >= 0


# ------------------------------------------------------------------------------------------------------- interface


def render(settings: SyntheticSettings, person: int, index: int) -> Render:
    """Render image `index` (0 to images_per_identity - 1) of `person` (1 to train + test identities).

    Raises UserError for settings, a person or an index outside their range.
    """
    _check(settings)
    if not 1 <= person <= settings.train_identities + settings.test_identities:
        raise UserError(
            f"synthetic person {person}: the settings have persons 1 to "
            f"{settings.train_identities + settings.test_identities}; choose one of them"
        )
    if not 0 <= index < settings.images_per_identity:
        raise UserError(
            f"synthetic image {index} of person {person}: the settings have images 0 to "
            f"{settings.images_per_identity - 1}; choose one of them"
        )
    look = _look(settings.seed, person)
    shot = _shot(settings.seed, settings.cameras, person, index)
    camera = _camera(settings.seed, shot.camera, settings.height, settings.width)
    random = np.random.default_rng((settings.seed, 1, person, index))

    rotation, origin = _pose(look, random)
    view = _turn_x(camera.elevation) @ _turn_y(shot.yaw)
    rotation, origin = view @ rotation, origin @ view.T
    joints = _joints(look, rotation, origin)
    scale, centre = _framing(joints, rotation, origin, settings, random)
    body = look.body
    part_rotation = rotation[body.bone]
    part_origin = origin[body.bone] + np.einsum("pij,pj->pi", part_rotation, body.offset)

    x, y = _grid(scale, centre, settings.height, settings.width)
    part, depth = _cast(part_rotation, part_origin, body.shape, x, y)
    layer = _shade(part, depth, x, y, part_rotation, part_origin, look, camera)
    image = _compose(layer, joints, camera, shot, scale, centre, random)

    seen = part[1::2, 1::2]  # the samples at pixel centres
    surface = Surface(
        part=np.where(seen >= 0, body.ids[seen], -1).astype(np.int8),
        depth=np.where(seen >= 0, depth[1::2, 1::2], 0),
        scale=scale,
        centre=centre,
        rotation=part_rotation,
        origin=part_origin,
        ids=body.ids,
        shape=body.shape,
    )
    pixels = np.stack([centre[0] + scale * joints[:, 0], centre[1] - scale * joints[:, 1]], 1).astype(np.float32)
    return Render(
        name=shot.name,
        split="train" if person <= settings.train_identities else "test",
        person=person,
        camera=shot.camera,
        image=image,
        joints=pixels,
        visible=_joint_visibility(joints, surface) & _inside(pixels, surface.part.shape),
        upper_colour=look.upper_colour,
        lower_colour=look.lower_colour,
        surface=surface,
    )


def render_split(settings: SyntheticSettings, split: str) -> Iterator[Render]:
    """All renders of "train" or "test", sorted by person and index."""
    if split not in ("train", "test"):
        raise UserError(f"synthetic split {split!r}: there are 'train' and 'test'; choose one of them")
    train, test = settings.train_identities, settings.test_identities
    persons = range(1, train + 1) if split == "train" else range(train + 1, train + test + 1)
    for person in persons:
        for index in range(settings.images_per_identity):
            yield render(settings, person, index)


def find(settings: SyntheticSettings) -> dict[str, tuple[int, int]]:
    """File name -> (person, index) of the whole data set, without rendering; sorted by person and index."""
    _check(settings)
    return {
        _shot(settings.seed, settings.cameras, person, index).name: (person, index)
        for person in range(1, settings.train_identities + settings.test_identities + 1)
        for index in range(settings.images_per_identity)
    }


def annotate(r: Render) -> tuple[np.ndarray, np.ndarray]:
    """What a key-point estimator would report: (18, 2) float32 joints, NaN = missing, and (18,) float32 confidence.

    A visible joint has confidence 1. A hidden torso joint (neck, shoulders, hips) inside the frame is reported with
    0.5: estimators infer those from the rest of the body, and without them no side view would form a pair
    (docs/decisions.md, D4). Every other hidden joint is missing (confidence 0).
    """
    confidence = r.visible.astype(np.float32)
    inferred = np.zeros(len(JOINTS), bool)
    inferred[[JOINT["neck"], *TORSO]] = True
    confidence[inferred & ~r.visible & _inside(r.joints, r.body.shape)] = 0.5
    joints = r.joints.copy()
    joints[confidence == 0] = np.nan
    return joints, confidence


def exact_flow(source: Render, target: Render) -> tuple[np.ndarray, np.ndarray]:
    """Where each body pixel of `target` lies in `source`, another render of the same person.

    Returns flow, (H, W, 2) float32 in pixels of the source: the surface point seen at target pixel (x, y) lies at
    (x + flow[y, x, 0], y + flow[y, x, 1]) in the source; 0 where the target shows no body. And visible, (H, W) bool:
    body pixels of the target whose surface point the source shows too (not hidden, not turned away, inside the frame).
    Exact up to float32: the point is carried through its part's rigid motion, nothing is searched.
    Raises UserError if the two renders show different persons.
    """
    if source.person != target.person:
        raise UserError(
            f"flow from {source.name} to {target.name}: different persons have no common surface; "
            "choose two images of one person"
        )
    row, column = np.nonzero(target.body)
    there, here = source.surface, target.surface
    part = np.searchsorted(here.ids, here.part[row, column])
    point = np.stack(
        [
            (column - here.centre[0]) / here.scale,
            (here.centre[1] - row) / here.scale,
            here.depth[row, column],
        ],
        1,
    )
    motion = there.rotation @ here.rotation.transpose(0, 2, 1)
    moved = np.einsum("nij,nj->ni", motion[part], point - here.origin[part]) + there.origin[part]
    pixels = np.stack([there.centre[0] + there.scale * moved[:, 0], there.centre[1] - there.scale * moved[:, 1]], 1)
    _, nearest = _nearest_surface(moved, there)
    seen = (nearest <= moved[:, 2] + _SURFACE_TOLERANCE) & _inside(pixels, there.part.shape)

    flow = np.zeros((*target.body.shape, 2), np.float32)
    flow[row, column] = pixels - np.stack([column, row], 1)
    visible = np.zeros(target.body.shape, bool)
    visible[row, column] = seen
    return flow, visible


def _check(settings: SyntheticSettings) -> None:
    if not 1 <= settings.cameras <= 6:
        raise UserError(f"synthetic data set: cameras is {settings.cameras}; choose 1 to 6")
    if not 0 < settings.train_identities + settings.test_identities <= 9999:
        raise UserError("synthetic data set: a file name has four digits for the person; choose 1 to 9999 identities")
    if not 0 <= settings.images_per_identity <= 10000:
        raise UserError("synthetic data set: images_per_identity must be 0 to 10000; choose fewer")
    if settings.height < 16 or settings.width < 8:
        raise UserError(f"synthetic data set: {settings.height} x {settings.width} is too small; choose 16 x 8 or more")


def _inside(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return ((pixels >= 0) & (pixels <= (size[1] - 1, size[0] - 1))).all(axis=1)


# ----------------------------------------------------------------------------------------- who, where, from which side


@dataclass(frozen=True)
class _Shot:
    name: str
    camera: int
    sequence: int
    yaw: float


@lru_cache(maxsize=4096)
def _shot(seed: int, cameras: int, person: int, index: int) -> _Shot:
    """Camera, name and view. Three images in a row come from one camera; eight in a row see all eight sides.

    So 25 % of the pairs of eight images share a camera; of Market-1501's 12,000 published test pairs 24 % do.
    """
    random = np.random.default_rng((seed, 2, person))
    order = random.permutation(cameras) + 1
    first_frame = int(random.integers(500, 90000))
    sequence = int(random.integers(1, 7))
    sides = np.random.default_rng((seed, 3, person, index // 8)).permutation(8)
    jitter = np.random.default_rng((seed, 4, person, index)).uniform(-0.5, 0.5)
    camera = int(order[index // 3 % cameras])
    frame = first_frame + 25 * index
    return _Shot(
        name=f"{person:04d}_c{camera}s{sequence}_{frame:06d}_{index % 3 + 1:02d}.jpg",
        camera=camera,
        sequence=sequence,
        yaw=float(np.radians(45 * (sides[index % 8] + jitter))),
    )


@dataclass(frozen=True)
class _Body:
    """A person's parts, sorted by id: index into PARTS, bone, place on the bone, shape, texture of each."""

    ids: np.ndarray  # (P,)
    bone: np.ndarray  # (P,)
    offset: np.ndarray  # (P, 3) in the bone's frame
    shape: np.ndarray  # (P, 6): width, depth, q0, q1, q2, half; see the head of this module
    texture: np.ndarray  # (P,) row of the atlas


@dataclass(frozen=True)
class _Wardrobe:
    """What an identity is drawn from: build (statures), colours (R, G, B) and clothes."""

    woman: bool
    girth: float  # factor on every breadth
    shoulder: float  # half the distance of the shoulder joints
    hip: float
    skin: np.ndarray
    hair: np.ndarray
    hair_style: str  # long | bob | tail | short | cap
    glasses: bool
    upper: np.ndarray
    second: np.ndarray  # of the pattern, the shirt under an open jacket, the cap
    pattern: str  # plain | stripes | checks | dots | disc | bar | band | open
    period: float  # of the pattern; also the size of the printed disc or bar
    sleeve: str  # short | long | none
    hem: float  # of the shirt, above the hip joints
    lower: np.ndarray
    lower_kind: str  # trousers | cropped | shorts | skirt
    leg_length: float  # of shorts and skirts, in thighs
    leg_width: float  # of shorts, in thighs
    side_stripe: bool
    shoes: np.ndarray
    backpack: bool
    bag: str  # "" | left_hip | right_hip | left_hand | right_hand
    bag_colour: np.ndarray  # of the backpack where there is one, else of the bag


@dataclass(frozen=True)
class _Look:
    """What stays with an identity."""

    upper_colour: int
    lower_colour: int
    wardrobe: _Wardrobe
    body: _Body
    atlas: np.ndarray  # (T, rows, columns, 3) uint8


@lru_cache(maxsize=32)
def _look(seed: int, person: int) -> _Look:
    """Draw an identity. Colours are dealt from shuffled decks of all combinations, so that classes are balanced."""
    combinations = len(UPPER_COLOURS) * len(LOWER_COLOURS)
    deck = np.random.default_rng((seed, 5, (person - 1) // combinations)).permutation(combinations)
    upper_colour, lower_colour = divmod(int(deck[(person - 1) % combinations]), len(LOWER_COLOURS))
    wardrobe = _dress(upper_colour, lower_colour, np.random.default_rng((seed, 6, person)))
    textures = _textures(wardrobe)
    body = _parts(wardrobe, tuple(textures))
    return _Look(upper_colour, lower_colour, wardrobe, body, np.stack(list(textures.values())))


def _dress(upper_colour: int, lower_colour: int, random: np.random.Generator) -> _Wardrobe:
    def choose(weights: dict[str, float]) -> str:
        return str(random.choice(list(weights), p=list(weights.values())))

    def dye(colour, spread=0.1) -> np.ndarray:
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
    return _Wardrobe(
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
        bag="" if backpack and bag.endswith("hip") else bag,  # the straps would lie on top of each other
        bag_colour=np.array(_BAGS[random.integers(len(_BAGS))]),
    )


def _parts(wardrobe: _Wardrobe, textures: tuple[str, ...]) -> _Body:
    """The parts of one identity: which, on which bone, of which size (statures), with which texture."""
    parts: dict[str, tuple] = {}

    def tube(name, bone, texture, highest, lowest, breadths, radii, z=0.0):
        """Elliptic tube round the bone's y axis from `highest` to `lowest`, which `z` shifts forward.

        breadths: half width and half depth; radii: factors on both at the top, the middle and the bottom.
        """
        top, middle, bottom = np.square(radii)
        half = (highest - lowest) / 2
        shape = (*breadths, middle, (top - bottom) / (2 * half), (top + bottom - 2 * middle) / (2 * half**2), half)
        parts[name] = (_BONE[bone], (0, (highest + lowest) / 2, z), shape, textures.index(texture))

    def ball(name, bone, texture, at, semi_axes):
        """Ellipsoid."""
        width, height, depth = semi_axes
        parts[name] = (_BONE[bone], at, (width, depth, 1, 0, -1 / height**2, height), textures.index(texture))

    girth = wardrobe.girth
    waist, seat = ((0.080, 0.102) if wardrobe.woman else (0.088, 0.096)) * np.array(girth)
    tube("torso", "chest", "torso", 0.185, -0.03, (waist, 0.74 * waist), (1.17, 1.12, 1.02))
    ball("yoke", "chest", "yoke", (0, 0.155, -0.003), (wardrobe.shoulder + 0.012, 0.060, 0.060 * girth**0.5))
    ball("pelvis", "pelvis", "pelvis", (0, 0.022, -0.004), (seat, 0.105, 0.072 * girth))
    shirt = 1.03 * max(seat, 1.17 * waist)
    tube("hem", "pelvis", "hem", 0.125, wardrobe.hem, (shirt, 0.079 * girth), (0.98 * waist / shirt, 0.97, 1))
    if wardrobe.lower_kind == "skirt":
        length = wardrobe.leg_length * 1.2 * _THIGH
        tube("skirt", "pelvis", "skirt", 0.06, -length, (0.10 * girth, 0.082 * girth), (0.86, 1.12, 1.2 + 0.5 * length))

    tube("neck", "chest", "skin", 0.262, 0.17, (0.028, 0.030), (0.95, 0.95, 1.25))
    ball("skull", "head", "face", _SKULL_CENTRE, _SKULL)
    ball("jaw", "head", "jaw", (0, 0.031, 0.012), _JAW)
    ball("nose", "head", "skin", (0, 0.044, 0.055), (0.0075, 0.012, 0.014))
    if wardrobe.hair_style == "cap":
        ball("hair", "head", "cap", (0, 0.085, -0.004), (0.053, 0.052, 0.060))
        ball("brim", "head", "cap", (0, 0.097, 0.055), (0.038, 0.008, 0.037))
    else:
        ball("hair", "head", "hair", (0, 0.081, -0.010), (0.052, 0.058, 0.058))
    if wardrobe.hair_style == "long":
        tube("hair_back", "head", "hair", 0.078, -0.078, (0.054, 0.040), (0.85, 1, 0.75), z=-0.027)
    elif wardrobe.hair_style == "bob":
        ball("hair_back", "head", "hair", (0, 0.047, -0.018), (0.058, 0.064, 0.050))
    elif wardrobe.hair_style == "tail":
        ball("hair_back", "head", "hair", (0, 0.045, -0.074), (0.019, 0.068, 0.021))

    # A tube is open; a flat ball closes the top, which a camera above the person sees.
    if wardrobe.backpack:
        behind = -0.045 - 0.055 * girth
        tube("backpack", "chest", "backpack", 0.145, -0.04, (0.084, 0.056), (0.88, 1.04, 0.98), z=behind)
        ball("backpack_top", "chest", "bag_top", (0, 0.143, behind), (0.074, 0.026, 0.050))
    if wardrobe.bag:
        top = 0.03 if wardrobe.bag.endswith("hip") else -0.02
        tube("bag", "bag", "bag", top, top - 0.11, (0.026, 0.062), (0.85, 1, 1))
        ball("bag_top", "bag", "bag_top", (0, top, 0), (0.022, 0.012, 0.053))

    arm, leg = 0.030 * girth**0.7, 0.054 * girth
    clothed_arm = arm * (1.12 if wardrobe.sleeve == "long" else 1)
    calf = (0.70, 0.72, 0.62) if wardrobe.lower_kind in ("trousers", "cropped") else (0.66, 0.70, 0.42)
    for side, _ in _SIDES:
        upper_arm, forearm, thigh, shin, foot = (f"{side}_{bone}" for bone in _LIMB_BONES)
        ball(f"{side}_shoulder", upper_arm, "shoulder", (0, -0.008, 0), (1.2 * arm, 0.042, 1.3 * arm))
        tube(f"{side}_upper_arm", upper_arm, "upper_arm", 0, -_UPPER_ARM, (arm, arm), (1.05, 1, 0.82))
        if wardrobe.sleeve == "short":
            tube(f"{side}_sleeve", upper_arm, "sleeve", 0.01, -0.105, (1.25 * arm, 1.25 * arm), (1, 1.06, 1.1))
        ball(f"{side}_elbow", forearm, "elbow", (0, 0, 0), (0.86 * arm, 0.026, 0.86 * arm))
        tube(f"{side}_forearm", forearm, "forearm", 0, -_FOREARM, (clothed_arm, clothed_arm), (0.84, 0.82, 0.58))
        ball(f"{side}_hand", forearm, "skin", (0, -_FOREARM - 0.032, 0.004), (0.013, 0.044, 0.022))

        tube(f"{side}_thigh", thigh, "thigh", 0.02, -_THIGH, (leg, 1.08 * leg), (1, 0.92, 0.70))
        if wardrobe.lower_kind == "shorts":
            loose, lowest = leg * wardrobe.leg_width, -wardrobe.leg_length * _THIGH
            tube(f"{side}_trouser_leg", thigh, "trouser_leg", 0.02, lowest, (loose, 1.05 * loose), (0.98, 1.05, 1.08))
        ball(f"{side}_knee", shin, "knee", (0, 0, 0), (0.72 * leg, 0.042, 0.76 * leg))
        tube(f"{side}_shin", shin, "shin", 0, -_SHIN - 0.015, (leg, leg), calf)
        ball(f"{side}_shoe", foot, "shoe", (0, -0.022, 0.034), (0.027, 0.027, 0.072))

    names = sorted(parts, key=PARTS.index)
    bone, offset, shape, texture = zip(*(parts[name] for name in names), strict=True)
    return _Body(
        ids=np.array([PART[name] for name in names]),
        bone=np.array(bone),
        offset=np.array(offset, float),
        shape=np.array(shape, float),
        texture=np.array(texture),
    )


# --------------------------------------------------------------------------------------------------------- clothes


@lru_cache(maxsize=1)
def _wrinkles() -> np.ndarray:
    """(rows, columns, 1) smooth noise about 1 that closes round the part: folds of cloth, the same for everybody."""
    noise = np.random.default_rng(7).normal(size=(_TEXTURE_ROWS, _TEXTURE_COLUMNS)).astype(np.float32)
    noise = cv2.GaussianBlur(np.tile(noise, (1, 3)), (0, 0), 3.0)[:, _TEXTURE_COLUMNS : 2 * _TEXTURE_COLUMNS]
    return (1 + 0.07 * noise / noise.std())[:, :, None]


def _fill(colour) -> np.ndarray:
    return np.broadcast_to(np.asarray(colour, np.float32), (_TEXTURE_ROWS, _TEXTURE_COLUMNS, 3)).copy()


def _span(highest: float, lowest: float) -> np.ndarray:
    """(rows, 1) heights of a texture's rows on a part that reaches from `lowest` to `highest`."""
    return lowest + (np.arange(_TEXTURE_ROWS)[:, None] + 0.5) / _TEXTURE_ROWS * (highest - lowest)


#: (1, columns) angle round the part, 0 in front, positive on the person's left.
_ANGLE = ((np.arange(_TEXTURE_COLUMNS)[None] + 0.5) / _TEXTURE_COLUMNS - 0.5) * 2 * np.pi


def _textures(wardrobe: _Wardrobe) -> dict[str, np.ndarray]:
    """Name -> (rows, columns, 3) uint8 colours; row 0 is the part's lowest y, the middle column its front."""
    skin, upper, lower = wardrobe.skin, wardrobe.upper, wardrobe.lower
    row = _span(1, 0)

    torso, yoke = _upper_cloth(wardrobe, _span(0.185, -0.03)), _upper_cloth(wardrobe, _span(0.215, 0.095))
    hem = _upper_cloth(wardrobe, _span(0.125, wardrobe.hem) - _WAIST, straps=False)
    hem[:2] *= 0.75  # the shadow under the hem
    neckline = 0.204 - (0.022 if wardrobe.woman else 0.012) * np.clip(np.cos(_ANGLE), 0, 1) ** 4
    yoke[_span(0.215, 0.095) > neckline] = skin
    sleeve = _upper_cloth(wardrobe, _span(0.12, 0), on_torso=False)
    long_sleeve, sleeveless = wardrobe.sleeve == "long", wardrobe.sleeve == "none"
    elbow = upper if wardrobe.pattern != "checks" else 0.6 * upper + 0.4 * wardrobe.second

    trousers, kind = wardrobe.lower_kind in ("trousers", "cropped"), wardrobe.lower_kind
    leg = _fill(lower)
    if wardrobe.side_stripe:
        leg[:, abs(abs(_ANGLE[0]) - np.pi / 2) < 0.22] = (225, 225, 222)
    thigh, shin = (leg.copy() if trousers else _fill(skin)), (leg.copy() if trousers else _fill(skin))
    if not trousers:  # what a long stride pushes through the cloth at the hip is cloth too
        covered = wardrobe.leg_length * (1 if kind == "shorts" else 1.1)
        thigh[row[:, 0] > 1.03 - covered] = lower
        if wardrobe.side_stripe:
            shin[row[:, 0] < 0.33] = (228, 228, 226)  # socks
    if kind == "cropped":
        shin[row[:, 0] < 0.5] = skin

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
        "face": _face(wardrobe),
        "jaw": _jaw(wardrobe),
        "hair": _fill(wardrobe.hair) * (1 + 0.10 * np.sin(23 * _ANGLE))[:, :, None],
        "cap": _fill(wardrobe.second),
        "backpack": backpack * folds,
        "bag": bag,
        "bag_top": _fill(wardrobe.bag_colour),
    }
    return {name: np.clip(texture, 0, 255).astype(np.uint8) for name, texture in textures.items()}


def _upper_cloth(wardrobe: _Wardrobe, y: np.ndarray, on_torso: bool = True, straps: bool = True) -> np.ndarray:
    """The upper garment where a part's rows lie at heights y (statures; on the torso above the waist).

    Sleeves repeat stripes, checks and dots; prints, bands, openings and straps are on the torso only. Straps lie flat
    on it, so they are painted.
    """
    cloth, second, pattern = _fill(wardrobe.upper), wardrobe.second, wardrobe.pattern
    arc = _ANGLE * (0.085 if on_torso else 0.030)  # length round the part
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


def _face(wardrobe: _Wardrobe) -> np.ndarray:
    """Skull: brows, eyes or glasses, ears, and the hair that no part of its own covers."""
    face, skin = _fill(wardrobe.skin), wardrobe.skin
    y = _span(_SKULL[1], -_SKULL[1]) - _EYE_HEIGHT
    side, off_eye = abs(_ANGLE), abs(abs(_ANGLE) - _EYE_ANGLE)
    face[(off_eye < 0.26) & (abs(y - 0.003) < 0.010)] = 0.86 * skin  # the socket's shade
    face[(off_eye < 0.22) & (abs(y - 0.012) < 0.003)] = 0.45 * skin + 0.45 * wardrobe.hair
    face[(off_eye < 0.13) & (abs(y) < 0.0035)] = (60, 46, 42)
    face[((side > 1.85) & (y > -0.036)) | ((side > 1.4) & (y > 0.010)) | (y > 0.042)] = wardrobe.hair
    if wardrobe.glasses:
        face[((off_eye < 0.34) & (abs(y) < 0.012)) | ((side < 1.6) & (abs(y) < 0.003))] = (30, 28, 30)
    face[(abs(side - np.pi / 2) < 0.22) & (abs(y + 0.002) < 0.018)] = 0.82 * skin  # ears
    return face


def _jaw(wardrobe: _Wardrobe) -> np.ndarray:
    jaw = _fill(wardrobe.skin)
    jaw[(abs(_ANGLE) < 0.5) & (abs(_span(_JAW[1], -_JAW[1]) + 0.014) < 0.005)] = wardrobe.skin * (0.80, 0.62, 0.60)
    return jaw


# ------------------------------------------------------------------------------------------------------------ pose


def _turn_x(angle: float) -> np.ndarray:
    """Leans what points up toward +z, swings what hangs down toward -z."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _turn_y(angle: float) -> np.ndarray:
    """Turns +z toward +x."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _turn_z(angle: float) -> np.ndarray:
    """Lifts what hangs down toward +x."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


#: Arms: how often, and ranges (radians) of swing forward, lift to the side, turn inward and bend of the elbow.
_ARM_MODES = {
    "swing": (0.58, (-0.10, 0.10), (0.08, 0.22), (0.2, 0.2), (0.10, 0.55)),  # against the leg's
    "phone": (0.07, (0.50, 0.90), (0.20, 0.50), (0.5, 0.5), (2.20, 2.50)),
    "hold": (0.13, (0.00, 0.35), (0.05, 0.20), (0.4, 0.9), (1.20, 1.80)),
    "pocket": (0.10, (-0.30, -0.10), (0.25, 0.40), (0.5, 0.8), (0.50, 0.80)),
    "strap": (0.06, (0.00, 0.20), (0.15, 0.30), (0.5, 0.8), (2.20, 2.45)),
    "behind": (0.06, (-0.60, -0.40), (0.10, 0.25), (1.0, 1.4), (0.50, 0.90)),
}


def _pose(look: _Look, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a pose: rotations (B, 3, 3) and origins (B, 3) of the bones in the person's frame, the hips at 0."""
    walking = random.random() < 0.8
    stride = random.uniform(0.22, 0.48) if walking else random.uniform(0.0, 0.07)
    phase = random.uniform(0, 2 * np.pi)
    rotation, origin = np.empty((len(_BONES), 3, 3)), np.zeros((len(_BONES), 3))

    def put(name: str, turn: np.ndarray, at: np.ndarray) -> None:
        rotation[_BONE[name]], origin[_BONE[name]] = turn, at

    twist = 0.25 * stride * np.cos(phase)
    pelvis = _turn_y(twist)
    chest = _turn_y(-1.5 * twist) @ _turn_x(random.uniform(-0.02, 0.12)) @ _turn_z(random.uniform(-0.05, 0.05))
    head = chest @ _turn_y(np.clip(random.normal(0, 0.28), -0.6, 0.6)) @ _turn_x(random.uniform(-0.12, 0.25))
    waist = pelvis @ (0, _WAIST, 0)
    put("pelvis", pelvis, np.zeros(3))
    put("chest", chest, waist)
    put("head", head, waist + chest @ (0, _SKULL_BASE, 0.004))

    for side, sign in _SIDES:
        swing = sign * stride * np.cos(phase)  # left thigh forward at phase 0, the arms opposite
        lift = max(0.0, sign * -np.sin(phase + 0.35))
        knee = 0.06 + random.uniform(0, 0.06) + 1.9 * stride * lift**2
        outward = random.uniform(0.0, 0.05)
        thigh = pelvis @ _turn_z(sign * outward) @ _turn_x(-swing - 0.25 * knee)
        shin = thigh @ _turn_x(knee)
        pitch = knee - swing - 0.25 * knee
        foot = pelvis @ _turn_y(sign * random.uniform(0.05, 0.25)) @ _turn_x(0.55 * pitch)
        hip = pelvis @ (sign * look.wardrobe.hip, 0, 0)
        put(f"{side}_thigh", thigh, hip)
        put(f"{side}_shin", shin, hip - _THIGH * thigh[:, 1])
        put(f"{side}_foot", foot, origin[_BONE[f"{side}_shin"]] - _SHIN * shin[:, 1])

        mode = str(random.choice(list(_ARM_MODES), p=[mode[0] for mode in _ARM_MODES.values()]))
        if look.wardrobe.bag == f"{side}_hand":
            mode = "swing"
        forward, away, inward, elbow = random.uniform(*np.transpose(_ARM_MODES[mode][1:]))
        if mode == "swing":
            forward -= 1.1 * swing
        arm = chest @ _turn_z(sign * away) @ _turn_x(-forward) @ _turn_y(-sign * inward)
        forearm = arm @ _turn_x(-elbow)
        joint = waist + chest @ (sign * look.wardrobe.shoulder, _SHOULDER_HEIGHT, 0)
        put(f"{side}_upper_arm", arm, joint)
        put(f"{side}_forearm", forearm, joint - _UPPER_ARM * arm[:, 1])

    side, _, place = look.wardrobe.bag.partition("_")
    sign = 1.0 if side == "left" else -1.0
    at = pelvis @ (sign * 0.128, 0, 0.0)
    if place == "hand":
        arm = _BONE[f"{side}_forearm"]
        at = origin[arm] - (_FOREARM + 0.04) * rotation[arm][:, 1]
    put("bag", pelvis @ _turn_x(random.uniform(-0.1, 0.1)), at)
    return rotation, origin


def _joints(look: _Look, rotation: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """(18, 3) joints in the frame of the bones; COCO's neck is the middle of the shoulders."""
    head = _BONE["head"]
    out = np.empty((len(JOINTS), 3))

    def on_head(x, y, z):
        return origin[head] + rotation[head] @ (x, y, z)

    out[JOINT["nose"]] = on_head(0, 0.043, 0.068)
    height = _SKULL_CENTRE[1] + _EYE_HEIGHT
    for side, sign in _SIDES:
        eye = (sign * _SKULL[0] * np.sin(_EYE_ANGLE), height, _SKULL[2] * np.cos(_EYE_ANGLE))
        out[JOINT[f"{side}_eye"]] = on_head(*eye)
        out[JOINT[f"{side}_ear"]] = on_head(sign * 0.048, 0.056, 0.0)
        forearm = _BONE[f"{side}_forearm"]
        out[JOINT[f"{side}_shoulder"]] = origin[_BONE[f"{side}_upper_arm"]]
        out[JOINT[f"{side}_elbow"]] = origin[forearm]
        out[JOINT[f"{side}_wrist"]] = origin[forearm] - _FOREARM * rotation[forearm][:, 1]
        out[JOINT[f"{side}_hip"]] = origin[_BONE[f"{side}_thigh"]]
        out[JOINT[f"{side}_knee"]] = origin[_BONE[f"{side}_shin"]]
        out[JOINT[f"{side}_ankle"]] = origin[_BONE[f"{side}_foot"]]
    out[JOINT["neck"]] = (out[JOINT["right_shoulder"]] + out[JOINT["left_shoulder"]]) / 2
    return out


def _framing(joints, rotation, origin, settings, random) -> tuple[float, tuple[float, float]]:
    """Scale (pixels a stature) and centre of a detector's crop: the person fills most of the frame, not exactly."""
    head = _BONE["head"]
    top = (origin[head] + 0.137 * rotation[head][:, 1])[1]
    feet = [_BONE["right_foot"], _BONE["left_foot"]]
    bottom = min(
        (origin[feet] + rotation[feet] @ (0, -_ANKLE, 0.09)).min(axis=0)[1],
        (origin[feet] + rotation[feet] @ (0, -_ANKLE, -0.03)).min(axis=0)[1],
    )
    scale = settings.height * random.uniform(0.88, 0.95) / (top - bottom)
    above = settings.height * random.uniform(0.02, 0.05)
    middle = (joints[:, 0].min() + joints[:, 0].max()) / 4 + origin[_BONE["chest"], 0] / 2
    across = (settings.width - 1) / 2 + settings.width * random.uniform(-0.05, 0.05)
    return float(scale), (float(across - scale * middle), float(above - 0.5 + scale * top))


# ------------------------------------------------------------------------------------------------------ ray casting


def _rays(rotation: np.ndarray, origin: np.ndarray, shape: np.ndarray) -> dict[str, np.ndarray]:
    """Every part's meeting with the ray through (X, Y), as polynomials in X and Y.

    Depth of the surface: z = linear + sqrt(square), where linear = z0 + zx X + zy Y and
    square = s0 + sx X + sy Y + sxx X^2 + syy Y^2 + sxy X Y; NaN where the ray misses.
    Local y of that point: y0 + yx X + yy Y + yz z. Each value is (P,).
    """
    width, depth, q0, q1, q2 = shape[:, :5].T
    weight = np.stack([1 / width**2, -q2, 1 / depth**2], 1)
    along_x, along_y, along_z = rotation[:, 0], rotation[:, 1], rotation[:, 2]
    start = -np.einsum("pji,pj->pi", rotation, origin)

    def dot(a, b):
        return (a * weight * b).sum(axis=1)

    # A z^2 + 2 B z + C = 0. A tube that points at the camera has A <= 0 and no nearest root: bounded below, it ends in
    # a steep blunt surface instead, which the ball at the joint covers.
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


def _grid(scale: float, centre: tuple[float, float], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """X of the 2 width + 1 columns and Y of the 2 height + 1 rows of samples: every half pixel, from edge to edge."""
    x = (np.arange(2 * width + 1) / 2 - 0.5 - centre[0]) / scale
    y = (centre[1] + 0.5 - np.arange(2 * height + 1) / 2) / scale
    return x, y


def _cast(rotation, origin, shape, x, y) -> tuple[np.ndarray, np.ndarray]:
    """The nearest surface at every sample: row of the body's part table (int8, -1 = none) and depth (float32, -inf),
    both (rows, columns) of the grid `x`, `y`."""
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
            np.sqrt(z, out=z)  # NaN where the ray misses; NaN compares as False below
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


def _boxes(rotation, origin, shape, x, y) -> tuple[list[int], ...]:
    """First and last + 1 column, first and last + 1 row of samples of every part: a box that holds it."""
    q0, q1, q2, half = shape[:, 2:].T
    ends = np.stack([q0 - q1 * half + q2 * half**2, q0 + q1 * half + q2 * half**2])
    barrel = q2 < -1e-6
    vertex = np.where(barrel, -q1 / np.where(barrel, 2 * q2, 1), 0)
    bulge = q0 + q1 * vertex + q2 * vertex**2
    radius = np.sqrt(np.maximum(ends.max(axis=0), np.where(barrel & (abs(vertex) < half), bulge, 0)))
    sides = np.hypot(shape[:, None, 0] * rotation[:, :2, 0], shape[:, None, 1] * rotation[:, :2, 2])  # (P, 2) x, y
    reach = radius[:, None] * sides + half[:, None] * abs(rotation[:, :2, 1])
    low, high = origin[:, :2] - reach, origin[:, :2] + reach
    # A barrel is a piece of an ellipsoid, whose box is tighter.
    whole = np.sqrt(np.where(barrel, bulge, 0))[:, None]
    tall = np.sqrt(np.where(barrel, bulge / np.where(barrel, -q2, 1), 0))[:, None]
    middle = origin[:, :2] + vertex[:, None] * rotation[:, :2, 1]
    reach = np.where(barrel[:, None], np.hypot(whole * sides, tall * rotation[:, :2, 1]), np.inf)
    low, high = np.maximum(low, middle - reach), np.minimum(high, middle + reach)
    left, right = np.searchsorted(x, low[:, 0]), np.searchsorted(x, high[:, 0], "right")
    top, bottom = np.searchsorted(-y, -high[:, 1]), np.searchsorted(-y, -low[:, 1], "right")
    return left.tolist(), right.tolist(), top.tolist(), bottom.tolist()


def _nearest_surface(points: np.ndarray, surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """What the camera sees through each of the (N, 3) points' pixels: part id (-1 = nothing) and depth (-inf), (N,)."""
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


def _joint_visibility(joints: np.ndarray, surface: Surface) -> np.ndarray:
    part, depth = _nearest_surface(joints, surface)
    belongs, reach = _joint_tables()
    return belongs[np.arange(len(JOINTS)), part] & (part >= 0) & (depth <= joints[:, 2] + reach)


@lru_cache(maxsize=1)
def _joint_tables() -> tuple[np.ndarray, np.ndarray]:
    """(18, len(PARTS)) bool: the parts that show a joint; (18,) how far in front of it they may lie."""
    belongs, reach = np.zeros((len(JOINTS), len(PARTS)), bool), np.zeros(len(JOINTS))
    for joint, name in enumerate(JOINTS):
        side, _, kind = name.rpartition("_")
        reach[joint] = _JOINT_REACH[kind]
        for part in _JOINT_PARTS[kind].replace("* ", f"{side}_").split():
            belongs[joint, PART[part]] = True
    return belongs, reach


# ------------------------------------------------------------------------------------------------- light and cameras


def _shade(part, depth, x, y, rotation, origin, look: _Look, camera: _Camera) -> np.ndarray:
    """(rows, columns, 4) uint8 R, G, B, alpha of the samples: the texture at the point's place on its part, times the
    light on it (Lambert); alpha is 255 or 0."""
    position = np.flatnonzero(part >= 0)
    grid_row, grid_column = np.divmod(position, len(x))
    x, y = x.astype(np.float32).take(grid_column), y.astype(np.float32).take(grid_row)
    size, part, depth = part.shape, part.ravel().take(position), depth.ravel().take(position)

    # One row a part of everything that is linear in (x, y, depth): local x / width, local y, local z / depth.
    shape = look.body.shape
    breadth = np.stack([shape[:, 0], np.ones(len(shape)), shape[:, 1]], 1)
    local = rotation.transpose(0, 2, 1) / breadth[:, :, None]
    start = -np.einsum("pij,pj->pi", local, origin)
    light = np.einsum("pji,j->pi", rotation, camera.light)
    # Then what the normal (the gradient of the part's equation) and the texture's row need.
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

    row = ((local_y / half + 1) * (_TEXTURE_ROWS / 2)).astype(np.int32)
    np.clip(row, 0, _TEXTURE_ROWS - 1, out=row)
    column = (np.arctan2(local_x, local_z) * (_TEXTURE_COLUMNS / (2 * np.pi)) + _TEXTURE_COLUMNS / 2).astype(np.int32)
    np.clip(column, 0, _TEXTURE_COLUMNS - 1, out=column)
    texel = (look.body.texture.astype(np.int32)[part] * _TEXTURE_ROWS + row) * _TEXTURE_COLUMNS + column
    colour = look.atlas.reshape(-1, 3).take(texel, axis=0) * brightness[:, None]
    colour *= camera.tint
    layer = np.zeros((size[0] * size[1], 4), np.uint8)
    layer[position, :3] = np.minimum(colour, 255)
    layer[position, 3] = 255
    return layer.reshape(*size, 4)


def _compose(layer, joints, camera: _Camera, shot: _Shot, scale, centre, random) -> np.ndarray:
    """The finished picture: the person, anti-aliased, over the camera's background, with shadow and blur."""
    layer = cv2.GaussianBlur(layer, (3, 3), 0)[1::2, 1::2].astype(np.float32)  # 1 2 1 over the half pixels
    height, width = layer.shape[:2]

    view = camera.panorama
    room_x, room_y = view.shape[1] - width, view.shape[0] - height
    left = shot.sequence / 7 * room_x + random.uniform(-0.15, 0.15) * width
    top = room_y * random.uniform(0.2, 0.8)
    i, j = round(float(np.clip(top, 0, room_y))), round(float(np.clip(left, 0, room_x)))
    background = view[i : i + height, j : j + width].astype(np.float32)

    # A soft shadow where the feet meet the ground: one wide spot under the person, a tighter one under each foot.
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


@dataclass(frozen=True)
class _Camera:
    """A place: light, colour, sharpness and what stands behind the people."""

    elevation: float  # radians, looking down
    light: np.ndarray  # unit vector toward the light, in the camera's frame
    ambient: float
    diffuse: float
    tint: np.ndarray  # (3,) float32 gain of R, G, B
    blur: float  # pixels
    panorama: np.ndarray  # (rows, columns, 3) uint8, larger than a picture


@dataclass(frozen=True)
class _Site:
    """What is fixed about each camera, up to small changes with the seed."""

    place: str
    horizon: float  # where the ground ends, share of the panorama's height
    ground: tuple[int, int, int]
    slab: float  # paving, pixels at 128 rows; 0 = none
    elevation: float
    light: tuple[float, float, float]
    ambient: float
    diffuse: float
    tint: tuple[float, float, float]
    blur: float  # pixels at 128 rows


_SITES = (
    _Site("street", 0.42, (118, 118, 120), 0, 0.10, (-0.5, 0.7, 0.6), 0.52, 0.52, (1.00, 1.00, 0.98), 0.35),
    _Site("plaza", 0.30, (168, 162, 154), 14, 0.20, (0.6, 0.7, 0.4), 0.60, 0.48, (1.06, 1.02, 0.94), 0.30),
    _Site("grass", 0.34, (104, 128, 70), 0, 0.14, (0.2, 0.9, 0.5), 0.62, 0.48, (0.98, 1.04, 0.96), 0.50),
    _Site("brick", 0.62, (150, 146, 140), 18, 0.08, (-0.7, 0.5, 0.5), 0.46, 0.55, (1.04, 0.98, 0.92), 0.40),
    _Site("shop", 0.66, (128, 126, 124), 22, 0.12, (0.4, 0.6, 0.7), 0.40, 0.48, (0.92, 0.97, 1.06), 0.60),
    _Site("hedge", 0.55, (158, 150, 142), 12, 0.18, (-0.2, 0.8, 0.6), 0.58, 0.52, (1.00, 1.03, 1.00), 0.45),
)


@lru_cache(maxsize=24)
def _camera(seed: int, camera: int, height: int, width: int) -> _Camera:
    random = np.random.default_rng((seed, 8, camera))
    site = _SITES[camera - 1]
    light = np.array(site.light) + random.uniform(-0.15, 0.15, 3)
    tint = np.array(site.tint, np.float32) * random.uniform(0.97, 1.03, 3).astype(np.float32)
    brightness = site.ambient + 0.6 * site.diffuse
    return _Camera(
        elevation=site.elevation,
        light=light / np.linalg.norm(light),
        ambient=site.ambient,
        diffuse=site.diffuse,
        tint=tint,
        blur=site.blur * height / 128,
        panorama=np.clip(_panorama(site, height, width, random) * tint * brightness, 0, 255).astype(np.uint8),
    )


def _panorama(site: _Site, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """(1.25 height, 6 widths, 3) float32: the ground below, above it what stands there. Lengths are in `unit`s, the
    pixels of a picture of 128 rows."""
    rows, columns, unit = height + height // 4, 6 * width, height / 128
    horizon = int(rows * site.horizon)
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)

    def noise(grain: float, amount: float) -> np.ndarray:
        field = cv2.GaussianBlur(random.normal(size=(rows, columns)).astype(np.float32), (0, 0), max(0.4, grain * unit))
        return (amount * field / field.std())[:, :, None]

    below = np.maximum(y - horizon, 0) / rows
    ground = np.tile(np.float32(site.ground), (rows, columns, 1))
    if site.slab:
        along = 6 / (below + 0.25)  # distance goes like 1 / row: slabs get shorter toward the wall
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


def _scenery(place: str, x: np.ndarray, y: np.ndarray, horizon: float, noise) -> np.ndarray:
    """(rows, columns, 3) float32: wall, hedge, trees or shop front down to y = horizon; x, y and horizon in units."""

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
