"""The 18-joint pose: names, limbs, mirror pairs, and a table of key points in memory (its files: pose_files.py).

Joints are `(18, 2)` float32 in (x, y) pixels of the image they belong to, a missing joint is NaN. Left and right are the
person's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: OpenPose's COCO-18 order. Peers swap the *labels* of 14/15 and 16/17 but use the same indices (docs/decisions.md, D10).
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
#: Deformable GAN's LIMB_SEQ, the drawn skeleton.
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
#: Index of the same joint after a left/right flip: `joints[MIRROR]` with x mirrored is the mirrored pose.
MIRROR = tuple(JOINT[n.replace("right", "*").replace("left", "right").replace("*", "left")] for n in JOINTS)
#: The four joints that a pair needs in both images (docs/decisions.md, D4).
TORSO = (JOINT["right_hip"], JOINT["left_hip"], JOINT["left_shoulder"], JOINT["right_shoulder"])


@dataclass
class Keypoints:
    """A table of key points, in the order of its file (the published test pairs depend on that order).

    names: N image file names, unique. joints: (N, 18, 2) float32, (x, y) in pixels, NaN = missing.
    confidence: (N, 18) float32 in [0, 1], 0 = missing.
    """

    names: list[str]
    joints: np.ndarray
    confidence: np.ndarray

    def __post_init__(self) -> None:
        self.row = {name: i for i, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def of(self, name: str) -> np.ndarray:
        """(18, 2) joints of one image; KeyError where the table has no such image."""
        return self.joints[self.row[name]]

    def rows(self, indices: Sequence[int]) -> Keypoints:
        """The table of these rows, in this order."""
        indices = list(indices)
        return Keypoints([self.names[i] for i in indices], self.joints[indices], self.confidence[indices])

    @property
    def present(self) -> np.ndarray:
        """(N, 18) bool."""
        return ~np.isnan(self.joints[:, :, 0])
