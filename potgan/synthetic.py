"""The embedded data set: clothed people on an articulated 3-D skeleton, with exact joints and exact flow.

A person is a set of simple surfaces ("parts"), each fixed to one bone. Every part has the same form: in its own frame

    (x / width)^2 + (z / depth)^2 = q0 + q1 y + q2 y^2        for lowest <= y <= highest,

which is an ellipsoid, a cylinder, a cone, a barrel or a waist, depending on the three numbers. A ray of the (weak
perspective) camera meets such a surface in closed form, so that one pass gives for every sample of the picture the part
that is seen and its depth. Everything else follows from the point in the part's own frame: its colour, the light that
falls on it, and, since the same point exists in every other picture of the person, the exact flow.

Frames. Person: x to the person's left, y up, z forward; the unit is the person's stature. Camera: x to the right, y up,
z toward the camera; a person at yaw 0 faces the camera, at 90 degrees the right edge of the picture. Pixels: x right,
y down, pixel centres at integers. The picture is sampled at every half pixel, so that every second sample lies on a
pixel centre: one pass serves the anti-aliased image and the exact surface.

Numpy and OpenCV only. An image depends on `SyntheticSettings.seed`, the person, the index and height, width and cameras;
on nothing else, in particular not on how many identities or images there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from potgan.config import SyntheticSettings
from potgan.errors import UserError
from potgan.pose import JOINT, JOINTS, TORSO

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

_BONES = (
    *("pelvis", "chest", "head", "bag"),
    *(f"{side}_{bone}" for side in ("right", "left") for bone in ("upper_arm", "forearm", "thigh", "shin", "foot")),
)
_BONE = {name: i for i, name in enumerate(_BONES)}
_SIDES = (("right", -1.0), ("left", 1.0))  # sign of x in the person's frame

# Lengths in statures (usual anthropometric ratios: hip at .53, shoulders at .82, chin at .87).
_THIGH, _SHIN, _ANKLE = 0.245, 0.245, 0.040
_WAIST, _SHOULDER_HEIGHT, _SKULL_BASE = 0.100, 0.168, 0.242
_UPPER_ARM, _FOREARM = 0.172, 0.145
_SKULL_CENTRE, _SKULL = (0.0, 0.064, 0.0), (0.047, 0.064, 0.056)
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
    **{"nose": 0.012, "eye": 0.012, "ear": 0.012, "neck": 0.075, "shoulder": 0.075, "elbow": 0.05, "wrist": 0.04},
    **{"hip": 0.10, "knee": 0.07, "ankle": 0.05},
}
_SURFACE_TOLERANCE = 0.006  # statures; under one pixel at 128 x 64

_TEXTURE_ROWS, _TEXTURE_COLUMNS = 64, 96  # along y from lowest to highest; round the part, the front in the middle


@dataclass(frozen=True)
class Surface:
    """The posed body of one render: what `exact_flow` needs.

    part: (H, W) int8, index into PARTS of what each pixel's centre shows, -1 = background. depth: (H, W) float32,
    statures toward the camera. scale, centre: pixel (x, y) = centre + scale * (X, -Y). rotation (P, 3, 3), origin
    (P, 3): camera point = rotation @ local point + origin, for each part of the person. ids: (P,) index into PARTS.
    shape: (P, 7) width, depth, q0, q1, q2, lowest, highest of each part, see the head of this module.
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

    samples = _cast(part_rotation, part_origin, body.shape, scale, centre, settings.height, settings.width)
    position, index_in_body, depth = samples
    colour = _shade(samples, part_rotation, part_origin, look, camera, scale, centre, settings.width)
    image = _compose(position, colour, joints, camera, shot, scale, centre, settings, random)

    rows, columns = settings.height, settings.width
    part_picture = np.full((2 * rows + 1) * (2 * columns + 1), -1, np.int8)
    part_picture[position] = body.ids[index_in_body]
    depth_picture = np.zeros(part_picture.shape, np.float32)
    depth_picture[position] = depth
    surface = Surface(
        part=part_picture.reshape(2 * rows + 1, -1)[1::2, 1::2].copy(),
        depth=depth_picture.reshape(2 * rows + 1, -1)[1::2, 1::2].copy(),
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

    A visible joint has confidence 1. A hidden torso joint (neck, shoulders, hips) inside the frame is reported with 0.5:
    estimators infer those from the rest of the body, and without them no side view would form a pair (PROTOCOLS 2.1).
    Every other hidden joint is missing (confidence 0).
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
    """Camera, name and view. Two images in a row come from one camera; eight in a row see all eight sides."""
    random = np.random.default_rng((seed, 2, person))
    order = random.permutation(cameras) + 1
    first_frame = int(random.integers(500, 90000))
    sequence = int(random.integers(1, 7))
    sides = np.random.default_rng((seed, 3, person, index // 8)).permutation(8)
    jitter = np.random.default_rng((seed, 4, person, index)).uniform(-0.5, 0.5)
    camera = int(order[index // 2 % cameras])
    frame = first_frame + 25 * index
    return _Shot(
        name=f"{person:04d}_c{camera}s{sequence}_{frame:06d}_{index % 2 + 1:02d}.jpg",
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
    shape: np.ndarray  # (P, 7): width, depth, q0, q1, q2, lowest, highest
    texture: np.ndarray  # (P,) row of the atlas


@dataclass(frozen=True)
class _Look:
    """What stays with an identity."""

    upper_colour: int
    lower_colour: int
    shoulder: float  # half the distance of the shoulder joints
    hip: float
    bag: str  # "", "left_hip", "right_hip", "left_hand", "right_hand"
    body: _Body
    atlas: np.ndarray  # (T, rows, columns, 3) uint8


@lru_cache(maxsize=32)
def _look(seed: int, person: int) -> _Look:
    """Draw an identity. Colours are dealt from shuffled decks of all combinations, so that classes are balanced."""
    combinations = len(_UPPER) * len(_LOWER)
    deck = np.random.default_rng((seed, 5, (person - 1) // combinations)).permutation(combinations)
    upper_colour, lower_colour = divmod(int(deck[(person - 1) % combinations]), len(_LOWER))
    random = np.random.default_rng((seed, 6, person))

    def choose(options, weights=None):
        return options[random.choice(len(options), p=weights)]

    woman = random.random() < 0.5
    girth = random.uniform(0.96, 1.24)
    main, lower_main = np.array(list(_UPPER.values())[upper_colour]), np.array(list(_LOWER.values())[lower_colour])
    second = np.array(list(_UPPER.values())[(upper_colour + 1 + random.integers(len(_UPPER) - 1)) % len(_UPPER)])
    vary = random.uniform(-0.12, 0.12, 3)
    wardrobe = {
        "skin": np.array(choose(_SKIN)) + random.uniform(-8, 8),
        "hair": np.array(choose(_HAIR, (0.42, 0.22, 0.14, 0.1, 0.07, 0.05))),
        "hair_style": choose(
            ("long", "bob", "tail", "short", "cap"),
            (0.35, 0.2, 0.25, 0.1, 0.1) if woman else (0.03, 0.07, 0.02, 0.73, 0.15),
        ),
        "upper": np.clip(main * (1 + vary), 0, 255),
        "second": second,
        "pattern": choose(
            ("plain", "stripes", "checks", "dots", "logo", "band", "open"), (0.2, 0.18, 0.12, 0.1, 0.2, 0.1, 0.1)
        ),
        "period": random.uniform(0.035, 0.06),
        "sleeve": choose(("short", "long", "none"), (0.55, 0.33, 0.12)),
        "hem": random.uniform(-0.055, 0.015),
        "lower": np.clip(lower_main * (1 + random.uniform(-0.1, 0.1, 3)), 0, 255),
        "lower_kind": choose(
            ("trousers", "shorts", "skirt", "cropped"), (0.38, 0.2, 0.32, 0.1) if woman else (0.66, 0.3, 0.0, 0.04)
        ),
        "side_stripe": random.random() < 0.15,
        "shoes": np.array(choose(_SHOES)),
        "backpack": random.random() < 0.35,
        "backpack_colour": np.array(choose(_BAGS)),
        "bag": choose(("", "left_hip", "right_hip", "left_hand", "right_hand"), (0.55, 0.13, 0.13, 0.1, 0.09)),
        "bag_colour": np.array(choose(_BAGS)),
        "glasses": random.random() < 0.15,
    }
    if wardrobe["backpack"] and wardrobe["bag"].endswith("hip"):
        wardrobe["bag"] = ""
    build = {
        "shoulder": (0.097 if woman else 0.108) * random.uniform(0.97, 1.05),
        "hip": 0.049 if woman else 0.046,
        "girth": girth,
        "woman": woman,
        "skirt_length": random.uniform(0.15, 0.29),
        "shorts_length": random.uniform(0.5, 0.95),
        "loose": random.uniform(1.0, 1.25),
    }
    textures = _textures(wardrobe, build, random)
    body = _parts(wardrobe, build, tuple(textures))
    return _Look(
        upper_colour,
        lower_colour,
        build["shoulder"],
        build["hip"],
        wardrobe["bag"],
        body,
        np.stack(list(textures.values())),
    )


def _parts(wardrobe: dict, build: dict, textures: tuple[str, ...]) -> _Body:
    """The parts of one identity: which, on which bone, of which size, with which texture."""
    parts: dict[str, tuple] = {}
    girth, shoulder, hip = build["girth"], build["shoulder"], build["hip"]

    def tube(name, bone, texture, highest, lowest, width, depth, radii=(1.0, 1.0, 1.0), at=(0.0, 0.0, 0.0)):
        """Elliptic tube along y; `radii` scale width and depth at its highest, middle and lowest y."""
        middle = (highest + lowest) / 2
        q2, q1, q0 = np.polyfit([highest, middle, lowest], np.square(radii), 2)
        # Local y is measured from the middle, which keeps the raster's range check to one comparison.
        half = (highest - lowest) / 2
        q0, q1 = q0 + q1 * middle + q2 * middle**2, q1 + 2 * q2 * middle
        offset = (at[0], at[1] + middle, at[2])
        parts[name] = (_BONE[bone], offset, (width, depth, q0, q1, q2, -half, half), textures.index(texture))

    def ball(name, bone, texture, at, semi_axes):
        """Ellipsoid."""
        width, height, depth = semi_axes
        shape = (width, depth, 1.0, 0.0, -1 / height**2, -height, height)
        parts[name] = (_BONE[bone], at, shape, textures.index(texture))

    waist = (0.080 if build["woman"] else 0.088) * girth
    chest = waist * (1.16 if build["woman"] else 1.18)
    thick = 0.66
    tube("torso", "chest", "torso", 0.185, -0.03, waist, waist * (thick + 0.08), (chest / waist, 1.12, 1.02))
    ball("yoke", "chest", "yoke", (0, 0.155, -0.003), (shoulder + 0.012, 0.060, 0.060 * girth**0.5))
    seat = 0.102 if build["woman"] else 0.096
    ball("pelvis", "pelvis", "pelvis", (0, 0.022, -0.004), (seat * girth, 0.105, 0.072 * girth))
    hem_width, hem_depth = max(seat * girth, chest) * 1.03, 0.079 * girth
    tube(
        "hem",
        "pelvis",
        "hem",
        0.125,
        wardrobe["hem"],
        hem_width,
        hem_depth,
        (0.80 * waist / hem_width * 1.22, 0.97, 1.0),
    )
    tube("neck", "chest", "skin", 0.262, 0.17, 0.028, 0.030, (0.95, 0.95, 1.25), at=(0, 0, 0.0))

    ball("skull", "head", "face", _SKULL_CENTRE, _SKULL)
    ball("jaw", "head", "jaw", (0, 0.031, 0.012), (0.038, 0.043, 0.041))
    ball("nose", "head", "skin", (0, 0.044, 0.055), (0.0075, 0.012, 0.014))
    style = wardrobe["hair_style"]
    if style == "cap":
        ball("hair", "head", "cap", (0, 0.085, -0.004), (0.053, 0.052, 0.060))
        ball("brim", "head", "cap", (0, 0.097, 0.055), (0.038, 0.008, 0.037))
    else:
        ball("hair", "head", "hair", (0, 0.081, -0.010), (0.052, 0.058, 0.058))
    if style == "long":
        tube("hair_back", "head", "hair", 0.078, -0.078, 0.054, 0.040, (0.85, 1.0, 0.75), at=(0, 0, -0.027))
    elif style == "bob":
        ball("hair_back", "head", "hair", (0, 0.047, -0.018), (0.058, 0.064, 0.050))
    elif style == "tail":
        ball("hair_back", "head", "hair", (0, 0.045, -0.074), (0.019, 0.068, 0.021))

    if wardrobe["backpack"]:
        behind = -0.045 - 0.055 * girth
        tube("backpack", "chest", "backpack", 0.145, -0.04, 0.084, 0.056, (0.88, 1.04, 0.98), at=(0, 0, behind))
        ball("backpack_top", "chest", "bag_top", (0, 0.143, behind), (0.074, 0.026, 0.050))
    if wardrobe["bag"]:
        top = 0.03 if wardrobe["bag"].endswith("hip") else -0.02
        tube("bag", "bag", "bag", top, top - 0.11, 0.026, 0.062, (0.85, 1.0, 1.0))
        ball("bag_top", "bag", "bag_top", (0, top, 0), (0.022, 0.012, 0.053))

    trousers, kind = wardrobe["lower_kind"] in ("trousers", "cropped"), wardrobe["lower_kind"]
    if kind == "skirt":
        length = build["skirt_length"]
        tube("skirt", "pelvis", "skirt", 0.06, -length, 0.100 * girth, 0.082 * girth, (0.86, 1.12, 1.2 + 0.5 * length))
    for side, sign in _SIDES:
        sleeve = wardrobe["sleeve"]
        arm = 0.030 * girth**0.7
        ball(f"{side}_shoulder", f"{side}_upper_arm", "shoulder", (0, -0.008, 0), (arm * 1.2, 0.042, arm * 1.3))
        tube(f"{side}_upper_arm", f"{side}_upper_arm", "upper_arm", 0.0, -_UPPER_ARM, arm, arm, (1.05, 1.0, 0.82))
        if sleeve == "short":
            loose = arm * 1.25
            tube(f"{side}_sleeve", f"{side}_upper_arm", "sleeve", 0.01, -0.105, loose, loose, (1.0, 1.06, 1.1))
        ball(f"{side}_elbow", f"{side}_forearm", "elbow", (0, 0, 0), (arm * 0.86, 0.026, arm * 0.86))
        cloth = 1.12 if sleeve == "long" else 1.0
        tube(
            f"{side}_forearm",
            f"{side}_forearm",
            "forearm",
            0.0,
            -_FOREARM,
            arm * cloth,
            arm * cloth,
            (0.84, 0.82, 0.58),
        )
        ball(f"{side}_hand", f"{side}_forearm", "skin", (0, -_FOREARM - 0.032, 0.004), (0.013, 0.044, 0.022))

        leg = 0.054 * girth
        tube(f"{side}_thigh", f"{side}_thigh", "thigh", 0.02, -_THIGH, leg, leg * 1.08, (1.0, 0.92, 0.70))
        ball(f"{side}_knee", f"{side}_shin", "knee", (0, 0, 0), (leg * 0.72, 0.042, leg * 0.76))
        calf = (0.70, 0.72, 0.62) if trousers else (0.66, 0.70, 0.42)
        tube(f"{side}_shin", f"{side}_shin", "shin", 0.0, -_SHIN - 0.015, leg, leg, calf)
        ball(f"{side}_shoe", f"{side}_foot", "shoe", (0, -0.022, 0.034), (0.027, 0.027, 0.072))
        if kind == "shorts":
            loose, length = leg * build["loose"], build["shorts_length"] * _THIGH
            tube(f"{side}_trouser_leg", f"{side}_thigh", "trouser_leg", 0.02, -length, loose, loose, (0.98, 1.05, 1.08))

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


def _textures(wardrobe: dict, build: dict, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Name -> (rows, columns, 3) uint8 colours; row 0 is the part's lowest y, the middle column its front."""
    row = (np.arange(_TEXTURE_ROWS)[:, None] + 0.5) / _TEXTURE_ROWS  # 0 lowest .. 1 highest
    angle = ((np.arange(_TEXTURE_COLUMNS)[None] + 0.5) / _TEXTURE_COLUMNS - 0.5) * 2 * np.pi  # > 0: the person's left
    skin, upper, second, lower = (wardrobe[k] for k in ("skin", "upper", "second", "lower"))

    def fill(colour) -> np.ndarray:
        return np.broadcast_to(np.asarray(colour, np.float32), (_TEXTURE_ROWS, _TEXTURE_COLUMNS, 3)).copy()

    def cloth(arc, y, on_torso=True) -> np.ndarray:
        """The upper garment's pattern at arc length round the body and height above the waist, in statures."""
        pattern, period = wardrobe["pattern"], wardrobe["period"]
        out, across, up = fill(upper), arc / period, y / period
        if pattern == "stripes":
            out[np.broadcast_to(up % 1 < 0.4, out.shape[:2])] = second
        elif pattern == "checks":
            weight = 0.5 * ((across % 1 < 0.4) + 1.0 * (up % 1 < 0.4))
            out += weight[:, :, None] * (second - upper)
        elif pattern == "dots":
            out[(across % 1 - 0.5) ** 2 + (up % 1 - 0.5) ** 2 < 0.08] = second
        elif pattern == "band" and on_torso:
            out[np.broadcast_to((y > 0.06) & (y < 0.13), out.shape[:2])] = second
        elif pattern == "logo" and on_torso:
            mark = logo[0] * (arc**2 + (y - 0.11) ** 2 < logo[1] ** 2) + (1 - logo[0]) * (
                (abs(arc) < logo[2]) & (abs(y - 0.11) < 0.02)
            )
            out[(mark > 0) & (abs(angle) < 1.4)] = second
        elif pattern == "open" and on_torso:
            out[np.broadcast_to(abs(arc) < 0.022 + 0.08 * np.clip(y - 0.1, 0, 1), out.shape[:2])] = second
        return out

    logo = (int(random.random() < 0.5), random.uniform(0.025, 0.04), random.uniform(0.03, 0.055))
    strap_colour = wardrobe["backpack_colour"] if wardrobe["backpack"] else wardrobe["bag_colour"]

    def straps(out, y) -> np.ndarray:
        """Straps lie flat on the torso, so they are painted."""
        if wardrobe["backpack"]:
            out[(abs(abs(angle) - 0.75) < 0.13) & (y > 0.03)] = strap_colour
        elif wardrobe["bag"].endswith("hip"):
            sign = 1.0 if wardrobe["bag"].startswith("left") else -1.0
            across = sign * (0.55 - 9.0 * (y - 0.06))
            front = abs(angle - across) < 0.16
            back = abs((np.pi - abs(angle)) * np.sign(angle) - across) < 0.16
            out[front | back] = strap_colour
        return out

    def span(highest, lowest):
        return lowest + row * (highest - lowest)

    torso_y, yoke_y, hem_y = span(0.185, -0.03), span(0.215, 0.095), span(0.125, wardrobe["hem"]) - _WAIST
    torso = straps(cloth(angle * 0.085, torso_y), torso_y)
    yoke = straps(cloth(angle * 0.085, yoke_y), yoke_y)
    collar = 0.204 - (0.022 if build["woman"] else 0.012) * np.clip(np.cos(angle), 0, 1) ** 4
    yoke[yoke_y > collar] = skin
    hem = cloth(angle * 0.085, hem_y)
    hem[:2] *= 0.75  # the shadow under the hem

    sleeve_kind, kind = wardrobe["sleeve"], wardrobe["lower_kind"]
    sleeve = cloth(angle * 0.03, row * 0.12, on_torso=False)
    upper_arm = {"short": fill(skin), "long": sleeve, "none": fill(skin)}[sleeve_kind]
    shoulder = fill(skin) if sleeve_kind == "none" else cloth(angle * 0.03, span(0.202, 0.118), on_torso=False)
    forearm = cloth(angle * 0.03, row * 0.145, on_torso=False) if sleeve_kind == "long" else fill(skin)
    elbow = fill(upper) if sleeve_kind == "long" else fill(skin)
    if sleeve_kind == "long" and wardrobe["pattern"] == "checks":
        elbow = fill(upper * 0.6 + second * 0.4)

    leg = fill(lower)
    if wardrobe["side_stripe"]:
        leg[:, np.abs(np.abs(angle[0]) - np.pi / 2) < 0.22] = (225, 225, 222)
    thigh = leg if kind in ("trousers", "cropped") else fill(skin)
    if kind == "shorts":  # what a long stride pushes through the cloth at the hip is cloth too
        thigh[int(_TEXTURE_ROWS * (1.03 - build["shorts_length"])) :] = lower
    elif kind == "skirt":
        thigh[int(_TEXTURE_ROWS * max(0.0, 1.1 - build["skirt_length"] / 0.265)) :] = lower
    shin = {"trousers": leg.copy(), "cropped": fill(skin)}.get(kind, fill(skin))
    if kind == "cropped":
        shin[_TEXTURE_ROWS // 2 :] = lower
    if kind in ("shorts", "skirt") and wardrobe["side_stripe"]:
        shin[: _TEXTURE_ROWS // 3] = (228, 228, 226)  # socks
    shoe = fill(wardrobe["shoes"])
    shoe[: _TEXTURE_ROWS // 3] = (200, 198, 192) if wardrobe["shoes"].mean() > 60 else (60, 58, 56)
    bag = fill(wardrobe["bag_colour"])
    bag[_TEXTURE_ROWS * 3 // 5 : _TEXTURE_ROWS * 2 // 3] *= 0.6
    backpack = fill(wardrobe["backpack_colour"])
    backpack[_TEXTURE_ROWS // 2 : _TEXTURE_ROWS // 2 + 3] *= 0.55
    backpack[np.broadcast_to(abs(abs(angle) - np.pi) < 0.9, backpack.shape[:2]) & (row < 0.42) & (row > 0.08)] *= 1.2

    folds = _wrinkles()
    textures = {
        "torso": torso * folds,
        "yoke": yoke * folds,
        "hem": hem * folds,
        "pelvis": fill(lower) * folds,
        "shoulder": shoulder,
        "sleeve": sleeve * folds,
        "upper_arm": upper_arm,
        "elbow": elbow,
        "forearm": forearm,
        "skirt": fill(lower) * (0.94 + 0.06 * np.cos(14 * angle))[..., None],
        "trouser_leg": leg * folds,
        "thigh": thigh * folds if kind in ("trousers", "cropped") else thigh,
        "knee": fill(lower) if kind in ("trousers", "cropped") else fill(skin),
        "shin": shin * folds if kind == "trousers" else shin,
        "shoe": shoe,
        "skin": fill(skin),
        **_face(wardrobe, fill, row, angle),
        "hair": fill(wardrobe["hair"]) * (1 + 0.10 * np.sin(23 * angle) + 0.0 * row)[..., None],
        "cap": fill(second),
        "backpack": backpack * folds,
        "bag": bag,
        "bag_top": fill(strap_colour),
    }
    return {name: np.clip(texture, 0, 255).astype(np.uint8) for name, texture in textures.items()}


def _face(wardrobe: dict, fill, row: np.ndarray, angle: np.ndarray) -> dict[str, np.ndarray]:
    """Skull and jaw: brows, eyes or glasses, mouth."""
    skin = wardrobe["skin"]
    face, jaw = fill(skin), fill(skin)
    y = (2 * row - 1) * _SKULL[1]
    across = abs(abs(angle) - _EYE_ANGLE)
    face[(across < 0.26) & (abs(y - _EYE_HEIGHT - 0.003) < 0.010)] = skin * 0.86  # the socket's shade
    face[(across < 0.22) & (abs(y - _EYE_HEIGHT - 0.012) < 0.0030)] = 0.45 * skin + 0.45 * wardrobe["hair"]
    face[(across < 0.13) & (abs(y - _EYE_HEIGHT) < 0.0035)] = (60, 46, 42)
    behind = (abs(angle) > 1.85) & (y > -0.042) | (abs(angle) > 1.4) & (y > 0.004) | (y > 0.036)
    face[behind] = wardrobe["hair"]
    if wardrobe["glasses"]:
        face[(across < 0.34) & (abs(y - _EYE_HEIGHT) < 0.012)] = (30, 28, 30)
        face[(abs(angle) < 1.6) & (abs(y - _EYE_HEIGHT) < 0.003)] = (30, 28, 30)
    face[(abs(abs(angle) - np.pi / 2) < 0.22) & (abs(y + 0.008) < 0.018)] = skin * 0.82  # ears
    jaw_y = (2 * row - 1) * 0.043
    jaw[(abs(angle) < 0.5) & (abs(jaw_y + 0.014) < 0.005)] = skin * (0.80, 0.62, 0.60)
    return {"face": face, "jaw": jaw}


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


_ARM_MODES = ("swing", "phone", "hold", "pocket", "strap", "behind")


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
    head = chest @ _turn_y(random.normal(0, 0.28)) @ _turn_x(random.uniform(-0.12, 0.25))
    waist = pelvis @ (0, _WAIST, 0)
    put("pelvis", pelvis, np.zeros(3))
    put("chest", chest, waist)
    put("head", head, waist + chest @ (0, _SKULL_BASE, 0.004))

    weights = (0.58, 0.07, 0.13, 0.10, 0.06, 0.06)
    for side, sign in _SIDES:
        swing = sign * stride * np.cos(phase)  # left thigh forward at phase 0, the arms opposite
        lift = max(0.0, sign * -np.sin(phase + 0.35))
        knee = 0.06 + random.uniform(0, 0.06) + 1.9 * stride * lift**2
        outward = random.uniform(0.0, 0.05)
        thigh = pelvis @ _turn_z(sign * outward) @ _turn_x(-swing - 0.25 * knee)
        shin = thigh @ _turn_x(knee)
        pitch = knee - swing - 0.25 * knee
        foot = pelvis @ _turn_y(sign * random.uniform(0.05, 0.25)) @ _turn_x(0.55 * pitch)
        hip = pelvis @ (sign * look.hip, 0, 0)
        put(f"{side}_thigh", thigh, hip)
        put(f"{side}_shin", shin, hip - _THIGH * thigh[:, 1])
        put(f"{side}_foot", foot, origin[_BONE[f"{side}_shin"]] - _SHIN * shin[:, 1])

        mode = _ARM_MODES[random.choice(len(_ARM_MODES), p=weights)]
        if look.bag == f"{side}_hand":
            mode = "swing"
        forward, away, inward, elbow = {
            "swing": (
                -1.1 * swing + random.uniform(-0.1, 0.1),
                random.uniform(0.08, 0.22),
                0.2,
                random.uniform(0.1, 0.55),
            ),
            "phone": (random.uniform(0.5, 0.9), random.uniform(0.2, 0.5), 0.5, random.uniform(2.2, 2.5)),
            "hold": (
                random.uniform(0.0, 0.35),
                random.uniform(0.05, 0.2),
                random.uniform(0.4, 0.9),
                random.uniform(1.2, 1.8),
            ),
            "pocket": (
                random.uniform(-0.3, -0.1),
                random.uniform(0.25, 0.4),
                random.uniform(0.5, 0.8),
                random.uniform(0.5, 0.8),
            ),
            "strap": (
                random.uniform(0.0, 0.2),
                random.uniform(0.15, 0.3),
                random.uniform(0.5, 0.8),
                random.uniform(2.2, 2.45),
            ),
            "behind": (
                random.uniform(-0.6, -0.4),
                random.uniform(0.1, 0.25),
                random.uniform(1.0, 1.4),
                random.uniform(0.5, 0.9),
            ),
        }[mode]
        arm = chest @ _turn_z(sign * away) @ _turn_x(-forward) @ _turn_y(-sign * inward)
        forearm = arm @ _turn_x(-elbow)
        joint = waist + chest @ (sign * look.shoulder, _SHOULDER_HEIGHT, 0)
        put(f"{side}_upper_arm", arm, joint)
        put(f"{side}_forearm", forearm, joint - _UPPER_ARM * arm[:, 1])

    side, _, place = look.bag.partition("_")
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


def _cast(rotation, origin, shape, scale, centre, height, width) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest surface at every half pixel: position in the flattened (2 height + 1, 2 width + 1) grid, row of the
    body's part table, depth; each (N,), background left out."""
    x = ((np.arange(2 * width + 1) / 2 - 0.5) - centre[0]) / scale
    y = (centre[1] - (np.arange(2 * height + 1) / 2 - 0.5)) / scale
    ray = {key: value[:, None] for key, value in _rays(rotation, origin, shape).items()}
    single = np.float32
    square_x = (ray["s0"] + x * (ray["sx"] + x * ray["sxx"])).astype(single)
    square_y = (y * (ray["sy"] + y * ray["syy"])).astype(single)[:, :, None]
    cross = (y * ray["sxy"]).astype(single)[:, :, None]
    linear_x, linear_y = (ray["z0"] + x * ray["zx"]).astype(single), (y * ray["zy"]).astype(single)[:, :, None]
    local_x, local_y = (ray["y0"] + x * ray["yx"]).astype(single), (y * ray["yy"]).astype(single)[:, :, None]
    slope, half = ray["yz"].astype(single), shape[:, 6].astype(single)
    x = x.astype(single)

    depth = np.full((2 * height + 1, 2 * width + 1), -np.inf, single)
    part = np.full(depth.shape, -1, np.int8)
    left, right, top, bottom = _boxes(rotation, origin, shape, scale, centre, height, width)
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
    position = np.flatnonzero(part >= 0)
    return position, part.ravel()[position], depth.ravel()[position]


def _boxes(rotation, origin, shape, scale, centre, height, width) -> tuple[list[int], ...]:
    """Left, right, top, bottom of every part in samples: a box that holds it, cut to the picture."""
    q0, q1, q2, half = shape[:, 2], shape[:, 3], shape[:, 4], shape[:, 6]
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
    columns = 2 * (centre[0] + scale * np.stack([low[:, 0], high[:, 0]]) + 0.5)
    rows = 2 * (centre[1] - scale * np.stack([high[:, 1], low[:, 1]]) + 0.5)
    left, right = np.clip([np.ceil(columns[0]), np.floor(columns[1]) + 1], 0, 2 * width + 1).astype(int).tolist()
    top, bottom = np.clip([np.ceil(rows[0]), np.floor(rows[1]) + 1], 0, 2 * height + 1).astype(int).tolist()
    return left, right, top, bottom


def _nearest_surface(points: np.ndarray, surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """What the camera sees through each of the (N, 3) points' pixels: part id (-1 = nothing) and depth (-inf), (N,)."""
    ray = {key: value[:, None] for key, value in _rays(surface.rotation, surface.origin, surface.shape).items()}
    x, y = points[:, 0], points[:, 1]
    with np.errstate(invalid="ignore"):
        square = ray["s0"] + x * (ray["sx"] + x * ray["sxx"] + y * ray["sxy"]) + y * (ray["sy"] + y * ray["syy"])
        z = ray["z0"] + x * ray["zx"] + y * ray["zy"] + np.sqrt(square)
        local = ray["y0"] + x * ray["yx"] + y * ray["yy"] + z * ray["yz"]
        z = np.where(abs(local) <= surface.shape[:, 6:], z, -np.inf)
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


def _shade(samples, rotation, origin, look: _Look, camera: _Camera, scale, centre, width) -> np.ndarray:
    """(N, 3) uint8 colours of the samples: the texture at the point's place on its part, times the light on it."""
    position, part, depth = samples
    grid_row, grid_column = np.divmod(position, 2 * width + 1)
    x = ((grid_column * np.float32(0.5) - np.float32(0.5 + centre[0])) / np.float32(scale)).astype(np.float32)
    y = ((np.float32(centre[1] + 0.5) - grid_row * np.float32(0.5)) / np.float32(scale)).astype(np.float32)

    # One row a part of everything that is linear in (x, y, depth): local x / width, local y, local z / depth.
    shape = look.body.shape
    size = np.stack([shape[:, 0], np.ones(len(shape)), shape[:, 1]], 1)
    local = rotation.transpose(0, 2, 1) / size[:, :, None]
    start = -np.einsum("pij,pj->pi", local, origin)
    light = np.einsum("pji,j->pi", rotation, camera.light)
    table = np.concatenate(
        [local.reshape(-1, 9), start, light, size[:, [0, 2]] ** -1, shape[:, 3:5] * (-0.5, -1.0), shape[:, 6:]], 1
    ).astype(np.float32)
    (xx, xy, xz, yx, yy, yz, zx, zy, zz, x0, y0, z0, lx, ly, lz, wide, deep, q1, q2, half) = table.T.take(part, axis=1)
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
    return np.minimum(colour, 255).astype(np.uint8)


def _compose(position, colour, joints, camera, shot, scale, centre, settings, random) -> np.ndarray:
    """The finished picture: the person, anti-aliased, over the camera's background, with shadow and blur."""
    height, width = settings.height, settings.width
    layer = np.zeros((2 * height + 1, 2 * width + 1, 4), np.uint8)
    layer.reshape(-1, 4)[position, :3] = colour
    layer.reshape(-1, 4)[position, 3] = 255
    layer = cv2.GaussianBlur(layer, (3, 3), 0)[1::2, 1::2].astype(np.float32)  # 1 2 1 over the half pixels

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


_PLACES = ("street", "plaza", "grass", "brick", "shop", "hedge")
_LIGHTS = (
    # elevation, light (x, y, z), ambient, diffuse, tint, blur at 128 pixels' height
    (0.10, (-0.5, 0.7, 0.6), 0.52, 0.52, (1.00, 1.00, 0.98), 0.35),
    (0.20, (0.6, 0.7, 0.4), 0.60, 0.48, (1.06, 1.02, 0.94), 0.30),
    (0.14, (0.2, 0.9, 0.5), 0.62, 0.48, (0.98, 1.04, 0.96), 0.50),
    (0.08, (-0.7, 0.5, 0.5), 0.46, 0.55, (1.04, 0.98, 0.92), 0.40),
    (0.12, (0.4, 0.6, 0.7), 0.40, 0.48, (0.92, 0.97, 1.06), 0.60),
    (0.18, (-0.2, 0.8, 0.6), 0.58, 0.52, (1.00, 1.03, 1.00), 0.45),
)


@lru_cache(maxsize=24)
def _camera(seed: int, camera: int, height: int, width: int) -> _Camera:
    random = np.random.default_rng((seed, 8, camera))
    elevation, light, ambient, diffuse, tint, blur = _LIGHTS[camera - 1]
    light = np.array(light) + random.uniform(-0.15, 0.15, 3)
    tint = np.array(tint, np.float32) * random.uniform(0.97, 1.03, 3).astype(np.float32)
    panorama = _panorama(_PLACES[camera - 1], height, width, random)
    panorama = np.clip(panorama * tint * (ambient + 0.6 * diffuse), 0, 255).astype(np.uint8)
    return _Camera(elevation, light / np.linalg.norm(light), ambient, diffuse, tint, blur * height / 128, panorama)


def _panorama(place: str, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """(1.25 height, 6 widths, 3) float32: ground below, a wall, a hedge or a shop front above."""
    rows, columns = height + height // 4, 6 * width
    unit = height / 128
    horizon = int(
        rows * {"street": 0.42, "plaza": 0.30, "grass": 0.34, "brick": 0.62, "shop": 0.66, "hedge": 0.55}[place]
    )
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)

    def noise(grain: float, amount: float) -> np.ndarray:
        field = cv2.GaussianBlur(random.normal(size=(rows, columns)).astype(np.float32), (0, 0), max(0.4, grain * unit))
        return (amount * field / field.std())[:, :, None]

    # Distance to a point on the ground grows like 1 / (row - horizon): joints of slabs get closer toward the wall.
    below = np.maximum(y - horizon, 0.5) / rows
    depth_lines = 0.5 / (below + 0.25)
    ground = {
        "street": (118, 118, 120),
        "plaza": (168, 162, 154),
        "grass": (104, 128, 70),
        "brick": (150, 146, 140),
        "shop": (128, 126, 124),
        "hedge": (158, 150, 142),
    }[place]
    picture = np.empty((rows, columns, 3), np.float32)
    picture[:] = ground
    if place in ("plaza", "brick", "shop", "hedge"):
        size = {"plaza": 14, "brick": 18, "shop": 22, "hedge": 12}[place] * unit
        slant = (x + 0.5 * (y - horizon)) / size
        joint = ((depth_lines * 12) % 1 < 0.10) | (slant % 1 < 1.2 * unit / size)
        picture[joint] *= 0.82
        slab = np.sin(12.9898 * np.floor(slant) + 78.233 * np.floor(depth_lines * 12)) * 43758.5453
        picture *= (0.96 + 0.08 * (slab - np.floor(slab)))[:, :, None]
    if place == "street":
        picture[abs(y - (horizon + 0.16 * rows) - 0.02 * x % (40 * unit) * 0) < 1.2 * unit] = (206, 204, 196)
    if place == "grass":
        path = abs(y - (horizon + 0.30 * rows)) < 0.12 * rows
        picture[path] = (176, 168, 152)
    picture += noise(0.6, 5) + noise(5, 5)
    picture *= (0.88 + 0.24 * np.clip(below * 1.6, 0, 1))[:, :, None]

    wall = y < horizon
    upper = np.empty_like(picture)
    if place == "street":
        upper[:] = (92, 96, 102)
        upper[(x % (46 * unit) < 24 * unit) & (y % (40 * unit) > 10 * unit)] = (52, 58, 68)
        upper += noise(3, 5)
        upper[wall & (y > horizon - 3 * unit)] = (150, 148, 144)
    elif place == "plaza":
        upper[:] = (150, 156, 164)
        upper[x % (30 * unit) < 5 * unit] = (116, 116, 120)
        upper += noise(6, 8)
    elif place == "grass":
        upper[:] = (64, 92, 52)
        upper += noise(2.2, 18) * np.float32([0.9, 1.0, 0.7]) + noise(8, 10)
        trunk = abs((x + 9 * unit) % (58 * unit) - 29 * unit) < 3 * unit
        upper[trunk] = (78, 64, 52)
    elif place == "brick":
        upper[:] = (150, 92, 74)
        course = np.floor(y / (5 * unit))
        joint = (y % (5 * unit) < 1.0 * unit) | ((x + 5.5 * unit * (course % 2)) % (11 * unit) < 1.0 * unit)
        upper[joint] = (176, 162, 150)
        upper += noise(1.5, 5) + noise(9, 6)
    elif place == "shop":
        upper[:] = (40, 44, 50)
        upper[x % (52 * unit) < 4 * unit] = (120, 122, 126)
        upper[abs(y - horizon * 0.55) < 1.5 * unit] = (96, 98, 102)
        glow = np.exp(
            -(((x % (104 * unit)) - 70 * unit) ** 2) / (14 * unit) ** 2 - ((y - horizon * 0.4) / (16 * unit)) ** 2
        )
        upper += glow[:, :, None] * np.float32([70, 62, 46]) + noise(5, 6)
        upper[wall & (y > horizon - 6 * unit)] = (88, 86, 84)
    else:
        upper[:] = (58, 84, 48)
        upper += noise(1.4, 20) * np.float32([0.8, 1.0, 0.6]) + noise(7, 9)
        post = (x % (24 * unit) < 2 * unit) & (y > horizon * 0.45)
        rail = (abs(y - horizon * 0.5) < 1.2 * unit) | (abs(y - horizon * 0.8) < 1.0 * unit)
        upper[post | rail] = (132, 132, 130)
    picture[wall] = upper[wall]
    kerb = abs(y - horizon) < 0.8 * unit
    picture[kerb] *= 0.7
    picture *= (1 + 0.06 * np.sin(x / columns * 2 * np.pi * 1.5 + random.uniform(0, 6)))[:, :, None]
    return np.clip(picture, 0, 255)
