"""The pose of 18 joints: their names, limbs and mirror images, and a table of poses, with checks that its numbers are pixels.
`keypoint_files` reads and writes tables.

Joints are (18, 2) float32, (x, y) in pixels of their image; a missing joint is NaN. Left and right are the person's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from potgan.common.errors import UserError

#: OpenPose's COCO-18 order. Other methods swap the *names* of 14 and 15 and of 16 and 17, but use the same numbers
#: (docs/decisions.md, D10).
JOINTS = (
    "nose",
    "neck",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_eye",
    "left_eye",
    "right_ear",
    "left_ear",
)
JOINT = {name: index for index, name in enumerate(JOINTS)}
#: The limbs of a drawn skeleton: Deformable GAN's LIMB_SEQ.
LIMBS = (
    (1, 2),
    (1, 5),
    (2, 3),
    (3, 4),
    (5, 6),
    (6, 7),
    (1, 8),
    (8, 9),
    (9, 10),
    (1, 11),
    (11, 12),
    (12, 13),
    (1, 0),
    (0, 14),
    (14, 16),
    (0, 15),
    (15, 17),
    (2, 16),
    (5, 17),
)
#: For each joint, the one of the other side. `joints[MIRROR]`, with x mirrored, is the pose of a mirrored image.
MIRROR = tuple(JOINT[n.replace("right", "*").replace("left", "right").replace("*", "left")] for n in JOINTS)
#: The four joints that a pair of the rule `patn` needs in both images (docs/decisions.md, D4).
TORSO = (JOINT["right_hip"], JOINT["left_hip"], JOINT["left_shoulder"], JOINT["right_shoulder"])


@dataclass
class Keypoints:
    """A table of the key points of N images, in the order of its file, on which the published test pairs depend.

    names: the images' file names, each once. joints: (N, 18, 2) float32, (x, y) in pixels, NaN where missing.
    confidence: (N, 18) float32 in [0, 1], 0 where missing.
    """

    names: list[str]
    joints: np.ndarray
    confidence: np.ndarray

    def __post_init__(self) -> None:
        self.row = {name: i for i, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def of(self, name: str) -> np.ndarray:
        """The (18, 2) joints of one image. Raises KeyError where the table has no such image."""
        return self.joints[self.row[name]]

    def rows(self, indices: Sequence[int]) -> Keypoints:
        """A table of these rows, in this order."""
        indices = list(indices)
        return Keypoints([self.names[i] for i in indices], self.joints[indices], self.confidence[indices])

    @property
    def present(self) -> np.ndarray:
        """(N, 18) bool: which joints are not missing."""
        return ~np.isnan(self.joints[:, :, 0])


#: No pose with so many joints lies within one pixel of the corner.
_ENOUGH_JOINTS = 5
#: From so many images on, it is no chance that all joints lie in one quarter, and that their median is far from the middle.
_FEW_IMAGES, _SOME_IMAGES = 5, 10


def refuse_shares(keypoints: Keypoints, where: str) -> None:
    """Raise UserError for a pose that counts shares of the image (0 to 1, or -1 to 1) in place of pixels.

    OpenPose writes such numbers where `--keypoint_scale` is 3 or 4. Truncated to whole pixels they would all be 0.

    where: the table, for the message.
    """
    joints = keypoints.joints
    present = keypoints.present
    with np.errstate(invalid="ignore"):
        within = (abs(joints) <= 1).all(axis=2) | ~present
        fractions = ((joints % 1 != 0) & present[:, :, None]).sum(axis=(1, 2))
    count = present.sum(axis=1)
    wrong = within.all(axis=1) & (count >= _ENOUGH_JOINTS) & (fractions > count)
    if wrong.any():
        raise UserError(
            f"{where}: all joints of {keypoints.names[int(wrong.argmax())][:80]!r} lie within 1 pixel of the corner "
            f"({int(wrong.sum()):,} such images), so they are shares of the image; export them in pixels "
            "(OpenPose: without --keypoint_scale)"
        )


def refuse_outside(keypoints: Keypoints, sizes: Sequence[tuple[int, int]], where: str) -> None:
    """Raise UserError where more than a tenth of the joints lie outside their images: they count the pixels of other images.

    Of Market-1501's published tables no joint lies outside, and detectors place few there. sizes and where are those of
    `refuse_other_frame`.
    """
    shares = _shares(keypoints, sizes)
    outside = ((shares < 0) | (shares > 1)).any(axis=1)
    if outside.sum() > 0.1 * len(outside):
        _refuse_frame(f"{outside.mean():.0%} of the joints lie outside their images", sizes, where)


def refuse_other_frame(keypoints: Keypoints, sizes: Sequence[tuple[int, int]], where: str) -> None:
    """Raise UserError for key points that count the pixels of other images than these.

    sizes: (height, width) of each image of the table, in pixels. where: the table, for the message. What tells another frame:

    - More than a tenth of the joints lie outside their images (`refuse_outside`): the images are smaller, or are crops.
    - All joints of five images or more lie in the upper left quarter: the images are larger. In the published tables one image in a
      thousand is so.
    - The median joint of ten images or more is far from the middle column: the images are larger, or have other columns left and
      right. Of 10 images of the published tables, drawn at random 6,000 times, it was always between 0.38 and 0.63 of the width,
      and of 100 images between 0.45 and 0.54.
    """
    refuse_outside(keypoints, sizes, where)
    count = int(keypoints.present.any(axis=1).sum())
    if count < _FEW_IMAGES:
        return
    shares = _shares(keypoints, sizes)
    reach, middle = shares.max(axis=0), float(np.median(shares[:, 0]))
    if (reach <= 0.5).all():
        _refuse_frame(
            f"no joint lies beyond {reach[0]:.0%} of the width and {reach[1]:.0%} of the height", sizes, where
        )
    if count >= _SOME_IMAGES and abs(middle - 0.5) > 0.12 + 1 / count:
        _refuse_frame(
            f"the median joint lies at {middle:.0%} of the width, and people stand in the middle", sizes, where
        )


def _shares(keypoints: Keypoints, sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """(M, 2) the places of the M joints that are there, as shares of the width and the height of their images."""
    extent = np.array(sizes, np.float32).reshape(-1, 1, 2)[..., ::-1]
    return ((keypoints.joints + 0.5) / extent)[keypoints.present]


def _refuse_frame(what: str, sizes: Sequence[tuple[int, int]], where: str) -> None:
    (height, width), _ = Counter(map(tuple, sizes)).most_common(1)[0]
    raise UserError(
        f"{where}: counts the pixels of other images: {what} (most images are {height} x {width}); take the images that the table "
        "was made for, or make a table for these"
    )


#: The classes of a parsing, by their number in a label image: those of ADGAN's `semantic_merge3` (menyifang/ADGAN, issue 10).
PARSING_CLASSES = (
    "background",
    "pants",
    "hair and hat",
    "skirt",
    "face",
    "upper clothes",
    "arms",
    "legs and shoes",
)
