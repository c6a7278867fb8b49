"""The embedded data set: clothed people on an articulated 3-D skeleton, with exact joints and exact flow.

A person is a set of simple surfaces ("parts"), each fixed to one bone (`surfaces`, `body`). Casting the rays of the camera tells
which part each sample of the picture shows, and at which depth. Everything else follows from the point in the part's own
frame: its colour and its class (`clothes`, `textures`), the light that falls on it (`scene`), and, since the same point exists in
every other picture of the person, the exact flow.

Frames. Person: x to the person's left, y up, z forward; the unit is the person's stature. Camera: x to the right, y up,
z toward the camera; a person at yaw 0 faces the camera, at 90 degrees the right edge of the picture. Pixels: x right,
y down, pixel centres at integers. The picture is sampled at every half pixel, so that every second sample lies on a
pixel centre: one pass serves the anti-aliased image and the exact surface.

Only numpy and OpenCV are used. An image depends on `SyntheticSettings.seed`, the person, the index, and height, width and
cameras. It depends on nothing else, in particular not on how many identities or images there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from potgan.common.errors import UserError
from potgan.data.pose import JOINT, JOINTS, TORSO
from potgan.data.synthetic.body import Look, draw_pose, framing, joints_of, parts_of, turn_x, turn_y, visible_joints
from potgan.data.synthetic.clothes import LOWER_COLOURS, UPPER_COLOURS, dress
from potgan.data.synthetic.scene import Shot, camera_of, compose, shade
from potgan.data.synthetic.surfaces import Surface, cast, nearest_surface, sample_grid
from potgan.data.synthetic.textures import classes_of, textures_of
from potgan.settings.schema import SyntheticSettings

#: A point that lies less than this (statures) behind the surface that is seen counts as seen: under one pixel at 128 x 64.
_SURFACE_TOLERANCE = 0.006


@dataclass(frozen=True)
class Render:
    """One synthetic image with everything that is known about it.

    name: its file name, unique in the data set, in the grammar of Market-1501. split: "train" or "test". person: persons 1 to
    train_identities are train, the following ones are test. camera: from 1. image: (H, W, 3) uint8 RGB.
    joints: (18, 2) float32 (x, y) pixels of all joints, those that are hidden or outside the frame included.
    visible: (18,) bool, whether a joint is inside the frame, and hidden neither by another part of the body nor by clothes or
    a bag. parsing: (H, W) uint8, the number of the class that each pixel's centre shows, one of PARSING_CLASSES.
    upper_colour, lower_colour: indices into `clothes.UPPER_COLOURS` and `clothes.LOWER_COLOURS`.
    """

    name: str
    split: str
    person: int
    camera: int
    image: np.ndarray
    joints: np.ndarray
    visible: np.ndarray
    parsing: np.ndarray
    upper_colour: int
    lower_colour: int
    surface: Surface

    @property
    def body(self) -> np.ndarray:
        """(H, W) bool: the pixels whose centres show the person, with clothes, hair and bags."""
        return self.surface.part >= 0


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
    look = look_of(settings.seed, person)
    shot = _shot(settings.seed, settings.cameras, person, index)
    camera = camera_of(settings.seed, shot.camera, settings.height, settings.width)
    random = np.random.default_rng((settings.seed, 1, person, index))

    rotation, origin = draw_pose(look, random)
    view = turn_x(camera.elevation) @ turn_y(shot.yaw)
    rotation, origin = view @ rotation, origin @ view.T
    joints = joints_of(look, rotation, origin)
    scale, centre = framing(joints, rotation, origin, settings, random)
    body = look.body
    part_rotation = rotation[body.bone]
    part_origin = origin[body.bone] + np.einsum("pij,pj->pi", part_rotation, body.offset)

    x, y = sample_grid(scale, centre, settings.height, settings.width)
    part, depth = cast(part_rotation, part_origin, body.shape, x, y)
    layer, classes = shade(part, depth, x, y, part_rotation, part_origin, look, camera)
    image = compose(layer, joints, camera, shot, scale, centre, random)

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
        visible=visible_joints(joints, surface) & _inside(pixels, surface.part.shape),
        parsing=classes[1::2, 1::2],
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
    """File name -> (person, index) of every image of the data set, sorted by person and index. Nothing is rendered."""
    _check(settings)
    return {
        _shot(settings.seed, settings.cameras, person, index).name: (person, index)
        for person in range(1, settings.train_identities + settings.test_identities + 1)
        for index in range(settings.images_per_identity)
    }


def annotate(r: Render) -> tuple[np.ndarray, np.ndarray]:
    """What a key-point estimator would report: (18, 2) float32 joints, NaN where missing, and (18,) float32 confidence.

    A visible joint has confidence 1. A hidden joint of the torso (neck, shoulders, hips) inside the frame has confidence 0.5,
    because estimators infer those from the rest of the body. Without them no side view would form a pair
    (docs/decisions.md, D4). Every other hidden joint is missing and has confidence 0.
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

    Returns two arrays. The flow is (H, W, 2) float32 in pixels: the surface point that the target shows at (x, y) lies in the
    source at (x + flow[y, x, 0], y + flow[y, x, 1]). It is 0 where the target shows no body. `visible` is (H, W) bool: the
    source shows that surface point too, since it is inside the frame and neither hidden nor turned away.

    The flow is exact up to float32, because each point is moved with its part, and nothing is searched.
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
    _, nearest = nearest_surface(moved, there)
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
    """(N,) bool: which of the (N, 2) x, y lie in a picture of (height, width) `size`."""
    return ((pixels >= 0) & (pixels <= (size[1] - 1, size[0] - 1))).all(axis=1)


@lru_cache(maxsize=4096)
def _shot(seed: int, cameras: int, person: int, index: int) -> Shot:
    """Camera, name and view of one image.

    Three images in a row come from one camera, so that 25 % of the pairs of eight images share a camera. Of Market-1501's
    12,000 published test pairs, 24 % do. Eight images in a row see the person from all eight sides.
    """
    random = np.random.default_rng((seed, 2, person))
    order = random.permutation(cameras) + 1
    first_frame = int(random.integers(500, 90000))
    sequence = int(random.integers(1, 7))
    sides = np.random.default_rng((seed, 3, person, index // 8)).permutation(8)
    jitter = np.random.default_rng((seed, 4, person, index)).uniform(-0.5, 0.5)
    camera = int(order[index // 3 % cameras])
    frame = first_frame + 25 * index
    return Shot(
        name=f"{person:04d}_c{camera}s{sequence}_{frame:06d}_{index % 3 + 1:02d}.jpg",
        camera=camera,
        sequence=sequence,
        yaw=float(np.radians(45 * (sides[index % 8] + jitter))),
    )


@lru_cache(maxsize=32)
def look_of(seed: int, person: int) -> Look:
    """Draw an identity.

    The colours of its clothes are dealt from shuffled decks of all combinations, so that all classes are equally frequent.
    """
    combinations = len(UPPER_COLOURS) * len(LOWER_COLOURS)
    deck = np.random.default_rng((seed, 5, (person - 1) // combinations)).permutation(combinations)
    upper_colour, lower_colour = divmod(int(deck[(person - 1) % combinations]), len(LOWER_COLOURS))
    wardrobe = dress(upper_colour, lower_colour, np.random.default_rng((seed, 6, person)))
    textures, classes = textures_of(wardrobe), classes_of(wardrobe)
    body = parts_of(wardrobe, tuple(textures))
    atlas = np.stack(list(textures.values()))
    return Look(upper_colour, lower_colour, wardrobe, body, atlas, np.stack([classes[name] for name in textures]))
