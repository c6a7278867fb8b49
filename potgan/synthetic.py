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
    *("torso", "yoke", "pelvis", "skirt", "neck", "skull", "jaw", "nose", "hair", "hair_back", "brim"),
    *("backpack", "bag"),
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
_WAIST, _SHOULDER_HEIGHT, _SKULL_BASE = 0.100, 0.188, 0.245
_UPPER_ARM, _FOREARM = 0.172, 0.145
_SKULL_CENTRE, _SKULL = (0.0, 0.062, 0.0), (0.044, 0.062, 0.053)
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
    "hip": "pelvis skirt torso * thigh * trouser_leg",
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
    girth = random.uniform(0.92, 1.16)
    main, lower_main = np.array(list(_UPPER.values())[upper_colour]), np.array(list(_LOWER.values())[lower_colour])
    second = np.array(list(_UPPER.values())[(upper_colour + 1 + random.integers(len(_UPPER) - 1)) % len(_UPPER)])
    vary = random.uniform(-10, 10, 3)
    wardrobe = {
        "skin": np.array(choose(_SKIN)) + random.uniform(-8, 8),
        "hair": np.array(choose(_HAIR, (0.42, 0.22, 0.14, 0.1, 0.07, 0.05))),
        "hair_style": choose(("long", "bob", "tail", "short", "cap"), (0.35, 0.2, 0.25, 0.1, 0.1) if woman else (0.03, 0.07, 0.02, 0.73, 0.15)),
        "upper": np.clip(main + vary, 0, 255),
        "second": second,
        "pattern": choose(("plain", "stripes", "checks", "dots", "logo", "band", "open"), (0.2, 0.18, 0.12, 0.1, 0.2, 0.1, 0.1)),
        "period": random.uniform(0.035, 0.06),
        "sleeve": choose(("short", "long", "none"), (0.55, 0.33, 0.12)),
        "hem": random.uniform(-0.045, 0.02),
        "lower": np.clip(lower_main + random.uniform(-8, 8, 3), 0, 255),
        "lower_kind": choose(("trousers", "shorts", "skirt", "cropped"), (0.38, 0.2, 0.32, 0.1) if woman else (0.66, 0.3, 0.0, 0.04)),
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
        "shoulder": (0.094 if woman else 0.104) * random.uniform(0.97, 1.04),
        "hip": 0.049 if woman else 0.046,
        "girth": girth,
        "woman": woman,
        "skirt_length": random.uniform(0.15, 0.29),
        "shorts_length": random.uniform(0.5, 0.95),
        "loose": random.uniform(1.0, 1.25),
    }
    textures = _textures(wardrobe, build, random)
    body = _parts(wardrobe, build, tuple(textures))
    return _Look(upper_colour, lower_colour, build["shoulder"], build["hip"], wardrobe["bag"], body, np.stack(list(textures.values())))
