"""The pose of 18 joints: their names, limbs and mirror images, and a table of poses. `keypoint_files` reads and writes tables.

Joints are (18, 2) float32, (x, y) in pixels of their image; a missing joint is NaN. Left and right are the person's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
