"""The 18-joint pose: names, limbs, mirror pairs, and the key-point files.

In memory joints are `(18, 2)` float32 in (x, y) pixels of the image they belong to, a missing joint is NaN. The files'
(y, x) order and -1 exist only in this module's reader and writer. Left and right are the person's.

Two tables are read: our `keypoints.csv` (one named column per number, empty where a joint is missing) and the annotation
table of the peers (Deformable GAN's compute_coordinates.py: `name:keypoints_y:keypoints_x`, integers, -1).
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from potgan.errors import UserError

#: OpenPose's COCO-18 order. Peers swap the *labels* of 14/15 and 16/17 but use the same indices (PROTOCOLS 3).
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
#: The four joints that a pair needs in both images (PROTOCOLS 2.1).
TORSO = (JOINT["right_hip"], JOINT["left_hip"], JOINT["left_shoulder"], JOINT["right_shoulder"])

_COLUMNS = ["name"] + [f"{joint}_{part}" for joint in JOINTS for part in ("x", "y", "confidence")]
_PEER_HEADER = "name:keypoints_y:keypoints_x"


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

    @property
    def present(self) -> np.ndarray:
        """(N, 18) bool."""
        return ~np.isnan(self.joints[:, :, 0])


def read_keypoints(path: str | Path) -> Keypoints:
    """Read `keypoints.csv` or a peer's annotation table; which of them the header tells.

    Raises UserError naming the file and line for a missing file, an unknown header, a row that has not 18 joints, a
    value that is no number, or a name that stands twice.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such key-point table") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file; expected a key-point table (CSV)") from None
    header = lines[0].strip() if lines else ""
    if header.replace(" ", "") == _PEER_HEADER:
        rows = [_peer_row(line, f"{path}, line {n}") for n, line in enumerate(lines[1:], 2) if line.strip()]
    elif header.split(",")[: len(_COLUMNS)] == _COLUMNS:
        rows = [_own_row(line, f"{path}, line {n}") for n, line in enumerate(lines[1:], 2) if line.strip()]
    else:
        raise UserError(
            f"{path}: unknown header {header[:60]!r}; expected {_PEER_HEADER!r} (published annotation table) "
            f"or {','.join(_COLUMNS[:4])!r}... (keypoints.csv)"
        )
    names = [name for name, _, _ in rows]
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in set(names[:i]))
        raise UserError(f"{path}: image {twice!r} stands twice; each image has one row")
    joints = np.array([j for _, j, _ in rows], np.float32).reshape(-1, len(JOINTS), 2)
    confidence = np.array([c for _, _, c in rows], np.float32).reshape(-1, len(JOINTS))
    return Keypoints(names, joints, confidence)


def _peer_row(line: str, where: str) -> tuple[str, np.ndarray, np.ndarray]:
    fields = line.split(":")
    if len(fields) != 3:
        raise UserError(f"{where}: has {len(fields)} fields instead of 3 (name: y list: x list)")
    axes = []
    for axis, text in zip("yx", fields[1:], strict=True):
        try:
            values = json.loads(text)
            values = [float(v) for v in values]
        except (ValueError, TypeError):
            raise UserError(f"{where}: the {axis} list of {fields[0]!r} is no list of numbers") from None
        if len(values) != len(JOINTS):
            raise UserError(
                f"{where}: {fields[0]!r} has {len(values)} {axis} values; the pose has {len(JOINTS)} joints"
            )
        axes.append(values)
    joints = np.array([axes[1], axes[0]], np.float32).T
    joints[(joints == -1).any(axis=1)] = np.nan  # the peers' mark of a missing joint, set in both lists
    return fields[0].strip(), joints, (~np.isnan(joints[:, 0])).astype(np.float32)


def _own_row(line: str, where: str) -> tuple[str, np.ndarray, np.ndarray]:
    fields = next(csv.reader([line]))
    if len(fields) < len(_COLUMNS):
        raise UserError(f"{where}: has {len(fields)} fields instead of {len(_COLUMNS)} (18 joints of x, y, confidence)")
    try:
        numbers = np.array([float(v) if v else np.nan for v in fields[1 : len(_COLUMNS)]], np.float32)
    except ValueError:
        raise UserError(f"{where}: {fields[0]!r} has a value that is no number") from None
    numbers = numbers.reshape(len(JOINTS), 3)
    joints = numbers[:, :2].copy()
    joints[np.isnan(joints).any(axis=1)] = np.nan
    return fields[0], joints, np.where(np.isnan(joints[:, 0]), 0, np.nan_to_num(numbers[:, 2])).astype(np.float32)


def keypoints_csv(keypoints: Keypoints) -> str:
    """The text of `keypoints.csv`: %g with 7 digits, which keeps pixel coordinates to 1e-4 and integers exactly."""

    def cell(value: float) -> str:
        return "" if np.isnan(value) else f"{value:.7g}"

    lines = [",".join(_COLUMNS)]
    for name, joints, confidence in zip(keypoints.names, keypoints.joints, keypoints.confidence, strict=True):
        cells = []
        for (x, y), c in zip(joints, confidence, strict=True):
            cells += ["", "", ""] if np.isnan(x) else [cell(x), cell(y), cell(c)]
        lines.append(",".join([name, *cells]))
    return "\n".join(lines) + "\n"


def annotation_csv(keypoints: Keypoints) -> str:
    """The text of a peer's annotation table (integers, y before x, -1 for missing); coordinates are truncated as theirs."""
    lines = [_PEER_HEADER]
    for name, joints in zip(keypoints.names, keypoints.joints, strict=True):
        whole = np.where(np.isnan(joints), -1, np.nan_to_num(joints)).astype(int)
        lines.append(f"{name}: {whole[:, 1].tolist()}: {whole[:, 0].tolist()}")
    return "\n".join(lines) + "\n"
