"""The body of a synthetic person: its bones, its parts, its joints, and the poses that it takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from potgan.data.pose import JOINT, JOINTS
from potgan.data.synthetic.clothes import Wardrobe
from potgan.data.synthetic.surfaces import Surface, nearest_surface
from potgan.settings.schema import SyntheticSettings

_SIDED = ("shoulder", "upper_arm", "elbow", "forearm", "hand", "sleeve", "thigh", "knee", "shin", "shoe", "trouser_leg")
#: The parts that a picture can show; `Surface.part` indexes them. No person has all of them.
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
BONE = {name: i for i, name in enumerate(_BONES)}
_SIDES = (("right", -1.0), ("left", 1.0))  # with the sign of x in the person's frame

# Lengths are in statures and follow usual proportions of the body: the hip stands at .53, the shoulders at .82, the chin at .87.
_THIGH, _SHIN, _ANKLE = 0.245, 0.245, 0.040
WAIST, _SHOULDER_HEIGHT, _SKULL_BASE = 0.100, 0.168, 0.242
_UPPER_ARM, _FOREARM = 0.172, 0.145
_SKULL_CENTRE, SKULL, JAW = (0.0, 0.064, 0.0), (0.047, 0.064, 0.056), (0.038, 0.043, 0.041)
EYE_ANGLE, EYE_HEIGHT = 0.42, -0.006

#: A joint counts as visible if the picture shows one of these parts at its place ("*" stands for the joint's own side) ...
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
#: ... and if that point lies in front of the joint by no more than this (statures), the joint's depth in the flesh.
_JOINT_REACH = {
    **{"nose": 0.012, "eye": 0.012, "ear": 0.012, "neck": 0.11, "shoulder": 0.09, "elbow": 0.05, "wrist": 0.04},
    **{"hip": 0.13, "knee": 0.07, "ankle": 0.05},
}

#: What an arm does: how often, and the ranges (radians) of its swing forward, its lift to the side, its turn inward and the bend
#: of the elbow.
_ARM_MODES = {
    "swing": (0.58, (-0.10, 0.10), (0.08, 0.22), (0.2, 0.2), (0.10, 0.55)),  # added to the swing against the leg's
    "phone": (0.07, (0.50, 0.90), (0.20, 0.50), (0.5, 0.5), (2.20, 2.50)),
    "hold": (0.13, (0.00, 0.35), (0.05, 0.20), (0.4, 0.9), (1.20, 1.80)),
    "pocket": (0.10, (-0.30, -0.10), (0.25, 0.40), (0.5, 0.8), (0.50, 0.80)),
    "strap": (0.06, (0.00, 0.20), (0.15, 0.30), (0.5, 0.8), (2.20, 2.45)),
    "behind": (0.06, (-0.60, -0.40), (0.10, 0.25), (1.0, 1.4), (0.50, 0.90)),
}


@dataclass(frozen=True)
class Body:
    """The P parts of a person, in the order of PARTS. Lengths are in statures."""

    ids: np.ndarray  # (P,) indices into PARTS
    bone: np.ndarray  # (P,) the bone that each part is fixed to
    offset: np.ndarray  # (P, 3) its centre in the bone's frame
    shape: np.ndarray  # (P, 6) width, depth, q0, q1, q2, half (see the head of `surfaces`)
    texture: np.ndarray  # (P,) its texture's place in the atlas


@dataclass(frozen=True)
class Look:
    """What all pictures of an identity share."""

    upper_colour: int  # index into clothes.UPPER_COLOURS
    lower_colour: int  # index into clothes.LOWER_COLOURS
    wardrobe: Wardrobe
    body: Body
    atlas: np.ndarray  # (T, rows, columns, 3) uint8, the textures
    classes: np.ndarray  # (T, rows, columns) uint8, the number of one of PARSING_CLASSES for each place of them


def parts_of(wardrobe: Wardrobe, textures: tuple[str, ...]) -> Body:
    """The parts of one identity. textures: the names of the atlas's textures, in its order."""
    parts: dict[str, tuple] = {}

    def tube(
        name: str,
        bone: str,
        texture: str,
        highest: float,
        lowest: float,
        breadths: tuple[float, float],
        radii: tuple[float, float, float],
        z: float = 0.0,
    ) -> None:
        """Add an elliptic tube round the bone's y axis, from the height `highest` to `lowest`.

        breadths: half the width and half the depth. radii: factors on both at the top, the middle and the bottom. z: how far
        the tube is moved forward.
        """
        top, middle, bottom = np.square(radii)
        half = (highest - lowest) / 2
        shape = (*breadths, middle, (top - bottom) / (2 * half), (top + bottom - 2 * middle) / (2 * half**2), half)
        parts[name] = (BONE[bone], (0, (highest + lowest) / 2, z), shape, textures.index(texture))

    def ball(
        name: str, bone: str, texture: str, at: tuple[float, float, float], semi_axes: tuple[float, float, float]
    ) -> None:
        """Add an ellipsoid with its centre `at` a point of the bone's frame."""
        width, height, depth = semi_axes
        parts[name] = (BONE[bone], at, (width, depth, 1, 0, -1 / height**2, height), textures.index(texture))

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
    ball("skull", "head", "face", _SKULL_CENTRE, SKULL)
    ball("jaw", "head", "jaw", (0, 0.031, 0.012), JAW)
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

    # A tube is open. A camera looks down on people, so a flat ball closes the tube's top.
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
        ball(f"{side}_hand", forearm, "hand", (0, -_FOREARM - 0.032, 0.004), (0.013, 0.044, 0.022))

        tube(f"{side}_thigh", thigh, "thigh", 0.02, -_THIGH, (leg, 1.08 * leg), (1, 0.92, 0.70))
        if wardrobe.lower_kind == "shorts":
            loose, lowest = leg * wardrobe.leg_width, -wardrobe.leg_length * _THIGH
            tube(f"{side}_trouser_leg", thigh, "trouser_leg", 0.02, lowest, (loose, 1.05 * loose), (0.98, 1.05, 1.08))
        ball(f"{side}_knee", shin, "knee", (0, 0, 0), (0.72 * leg, 0.042, 0.76 * leg))
        tube(f"{side}_shin", shin, "shin", 0, -_SHIN - 0.015, (leg, leg), calf)
        ball(f"{side}_shoe", foot, "shoe", (0, -0.022, 0.034), (0.027, 0.027, 0.072))

    names = sorted(parts, key=PARTS.index)
    bone, offset, shape, texture = zip(*(parts[name] for name in names), strict=True)
    return Body(
        ids=np.array([PART[name] for name in names]),
        bone=np.array(bone),
        offset=np.array(offset, float),
        shape=np.array(shape, float),
        texture=np.array(texture),
    )


def draw_pose(look: Look, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a pose: (B, 3, 3) rotations and (B, 3) origins of the bones in the person's frame, with the hips at 0."""
    walking = random.random() < 0.8
    stride = random.uniform(0.22, 0.48) if walking else random.uniform(0.0, 0.07)
    phase = random.uniform(0, 2 * np.pi)
    rotation, origin = np.empty((len(_BONES), 3, 3)), np.zeros((len(_BONES), 3))

    def put(name: str, turn: np.ndarray, at: np.ndarray) -> None:
        rotation[BONE[name]], origin[BONE[name]] = turn, at

    twist = 0.25 * stride * np.cos(phase)
    pelvis = turn_y(twist)
    chest = turn_y(-1.5 * twist) @ turn_x(random.uniform(-0.02, 0.12)) @ _turn_z(random.uniform(-0.05, 0.05))
    head = chest @ turn_y(np.clip(random.normal(0, 0.28), -0.6, 0.6)) @ turn_x(random.uniform(-0.12, 0.25))
    waist = pelvis @ (0, WAIST, 0)
    put("pelvis", pelvis, np.zeros(3))
    put("chest", chest, waist)
    put("head", head, waist + chest @ (0, _SKULL_BASE, 0.004))

    for side, sign in _SIDES:
        swing = sign * stride * np.cos(phase)  # at phase 0 the left thigh is forward; arms swing the other way
        lift = max(0.0, sign * -np.sin(phase + 0.35))
        knee = 0.06 + random.uniform(0, 0.06) + 1.9 * stride * lift**2
        outward = random.uniform(0.0, 0.05)
        thigh = pelvis @ _turn_z(sign * outward) @ turn_x(-swing - 0.25 * knee)
        shin = thigh @ turn_x(knee)
        pitch = knee - swing - 0.25 * knee
        foot = pelvis @ turn_y(sign * random.uniform(0.05, 0.25)) @ turn_x(0.55 * pitch)
        hip = pelvis @ (sign * look.wardrobe.hip, 0, 0)
        put(f"{side}_thigh", thigh, hip)
        put(f"{side}_shin", shin, hip - _THIGH * thigh[:, 1])
        put(f"{side}_foot", foot, origin[BONE[f"{side}_shin"]] - _SHIN * shin[:, 1])

        mode = str(random.choice(list(_ARM_MODES), p=[mode[0] for mode in _ARM_MODES.values()]))
        if look.wardrobe.bag == f"{side}_hand":
            mode = "swing"
        forward, away, inward, elbow = random.uniform(*np.transpose(_ARM_MODES[mode][1:]))
        if mode == "swing":
            forward -= 1.1 * swing
        arm = chest @ _turn_z(sign * away) @ turn_x(-forward) @ turn_y(-sign * inward)
        forearm = arm @ turn_x(-elbow)
        joint = waist + chest @ (sign * look.wardrobe.shoulder, _SHOULDER_HEIGHT, 0)
        put(f"{side}_upper_arm", arm, joint)
        put(f"{side}_forearm", forearm, joint - _UPPER_ARM * arm[:, 1])

    side, _, place = look.wardrobe.bag.partition("_")
    sign = 1.0 if side == "left" else -1.0
    at = pelvis @ (sign * 0.128, 0, 0.0)
    if place == "hand":
        arm = BONE[f"{side}_forearm"]
        at = origin[arm] - (_FOREARM + 0.04) * rotation[arm][:, 1]
    put("bag", pelvis @ turn_x(random.uniform(-0.1, 0.1)), at)
    return rotation, origin


def joints_of(look: Look, rotation: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """(18, 3) joints in the frame that the bones are given in. The neck is the middle of the shoulders, as in OpenPose's order."""
    head = BONE["head"]
    out = np.empty((len(JOINTS), 3))

    def on_head(x: float, y: float, z: float) -> np.ndarray:
        return origin[head] + rotation[head] @ (x, y, z)

    out[JOINT["nose"]] = on_head(0, 0.043, 0.068)
    height = _SKULL_CENTRE[1] + EYE_HEIGHT
    for side, sign in _SIDES:
        eye = (sign * SKULL[0] * np.sin(EYE_ANGLE), height, SKULL[2] * np.cos(EYE_ANGLE))
        out[JOINT[f"{side}_eye"]] = on_head(*eye)
        out[JOINT[f"{side}_ear"]] = on_head(sign * 0.048, 0.056, 0.0)
        forearm = BONE[f"{side}_forearm"]
        out[JOINT[f"{side}_shoulder"]] = origin[BONE[f"{side}_upper_arm"]]
        out[JOINT[f"{side}_elbow"]] = origin[forearm]
        out[JOINT[f"{side}_wrist"]] = origin[forearm] - _FOREARM * rotation[forearm][:, 1]
        out[JOINT[f"{side}_hip"]] = origin[BONE[f"{side}_thigh"]]
        out[JOINT[f"{side}_knee"]] = origin[BONE[f"{side}_shin"]]
        out[JOINT[f"{side}_ankle"]] = origin[BONE[f"{side}_foot"]]
    out[JOINT["neck"]] = (out[JOINT["right_shoulder"]] + out[JOINT["left_shoulder"]]) / 2
    return out


def framing(
    joints: np.ndarray,
    rotation: np.ndarray,
    origin: np.ndarray,
    settings: SyntheticSettings,
    random: np.random.Generator,
) -> tuple[float, tuple[float, float]]:
    """Draw scale (pixels per stature) and centre (pixels) of the picture, as in `Surface`.

    As in a person detector's crop, the person fills most of the frame, and is not quite in its middle.
    """
    head = BONE["head"]
    top = (origin[head] + 0.137 * rotation[head][:, 1])[1]
    feet = [BONE["right_foot"], BONE["left_foot"]]
    bottom = min(
        (origin[feet] + rotation[feet] @ (0, -_ANKLE, 0.09)).min(axis=0)[1],
        (origin[feet] + rotation[feet] @ (0, -_ANKLE, -0.03)).min(axis=0)[1],
    )
    scale = settings.height * random.uniform(0.88, 0.95) / (top - bottom)
    above = settings.height * random.uniform(0.02, 0.05)
    middle = (joints[:, 0].min() + joints[:, 0].max()) / 4 + origin[BONE["chest"], 0] / 2
    across = (settings.width - 1) / 2 + settings.width * random.uniform(-0.05, 0.05)
    return float(scale), (float(across - scale * middle), float(above - 0.5 + scale * top))


def visible_joints(joints: np.ndarray, surface: Surface) -> np.ndarray:
    """(18,) bool: the joints that nothing hides. joints: (18, 3) in the camera's frame."""
    part, depth = nearest_surface(joints, surface)
    belongs, reach = _joint_tables()
    return belongs[np.arange(len(JOINTS)), part] & (part >= 0) & (depth <= joints[:, 2] + reach)


@lru_cache(maxsize=1)
def _joint_tables() -> tuple[np.ndarray, np.ndarray]:
    """(18, len(PARTS)) bool: which parts show a joint, and (18,) how far in front of it they may lie, in statures."""
    belongs, reach = np.zeros((len(JOINTS), len(PARTS)), bool), np.zeros(len(JOINTS))
    for joint, name in enumerate(JOINTS):
        side, _, kind = name.rpartition("_")
        reach[joint] = _JOINT_REACH[kind]
        for part in _JOINT_PARTS[kind].replace("* ", f"{side}_").split():
            belongs[joint, PART[part]] = True
    return belongs, reach


def turn_x(angle: float) -> np.ndarray:
    """(3, 3) rotation by `angle` (radians) that leans what points up toward +z, and swings what hangs down toward -z."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def turn_y(angle: float) -> np.ndarray:
    """(3, 3) rotation by `angle` (radians) that turns +z toward +x."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _turn_z(angle: float) -> np.ndarray:
    """(3, 3) rotation by `angle` (radians) that lifts what hangs down toward +x."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
