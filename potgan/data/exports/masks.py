"""All pose masks of a data set as one file, `masks.npz`, for methods that read masks from files.

Trainings of this project draw their own masks in memory (docs/decisions.md, D16), with the same functions. The file holds

- `names`: (N,) the images' names, in the order of the key-point table. An image without a pose is left out.
- `size`: (2,) height and width of the masks in pixels.
- one array per recipe, (N, ceil(height * width / 8)) uint8: the pixels of each mask row by row, eight to a byte, the first in
  the highest bit, as `numpy.packbits` packs them. So mask i is `numpy.unpackbits(array[i], count=height * width).reshape(size)`.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from potgan.common.errors import UserError
from potgan.common.files import Json, new_folder, write_json
from potgan.common.progress import progress
from potgan.data.pixels import keypoints_at, png_bytes
from potgan.data.pose import Keypoints
from potgan.data.pose_rendering import draw_skeleton, limb_mask, mask_parts, metric_mask, pose_mask

ARCHIVE, RECORD, PREVIEW = "masks.npz", "masks.json", "preview.png"
WRITTEN = {ARCHIVE, RECORD, PREVIEW}
#: Recipe -> who draws masks so, and the function of (joints, height, width, radius of limbs).
RECIPES: dict[str, tuple[str, Callable[[np.ndarray, int, int, int], np.ndarray]]] = {
    "potgan": ("PoT-GAN, Section IV-C: limbs, torso and head", pose_mask),
    "pg2": ("PG2: limbs, closed", limb_mask),
    "deformable": (
        "Deformable GAN, PATN, GFLA: limbs of half-width 4, closed",
        lambda joints, height, width, _: metric_mask(joints, height, width),
    ),
}
#: The pictures of a row of the preview, as Fig. 4 of the paper shows how a mask is built.
PREVIEW_COLUMNS = ("image", "key points", "limbs", "torso", "head", *RECIPES)
PREVIEW_ROWS, PREVIEW_HEIGHT = 6, 256

#: An image's name -> its (height, width), or -> its (H, W, 3) uint8 RGB.
Sizes = Callable[[str], tuple[int, int]]
Pictures = Callable[[str], np.ndarray]


def write_masks(
    keypoints: Keypoints,
    size: tuple[int, int],
    limb_radius: int,
    out: Path,
    sizes: Sizes | None = None,
    pictures: Pictures | None = None,
) -> dict[str, Json]:
    """Fill the folder `out` with `masks.npz`, `preview.png` and the record `masks.json`, and return the record.

    keypoints: joints in pixels of images whose sizes `sizes` gives; by default they all have the size of the masks. size: (height,
    width) of the masks in pixels. limb_radius: of the recipes `potgan` and `pg2`, in pixels. pictures: the images, for the preview.
    The folder `out` appears whole or not at all. Raises UserError for a table without any pose.
    """
    height, width = size
    rows = np.flatnonzero(keypoints.present.any(axis=1))
    if not len(rows):
        raise UserError("no image of the table has a pose, so there is no mask to draw; check the table")
    names = [keypoints.names[row] for row in rows]
    joints = (keypoints.rows(rows) if sizes is None else keypoints_at(keypoints, names, sizes, size)).joints
    packed = {recipe: np.empty((len(names), -(-height * width // 8)), np.uint8) for recipe in RECIPES}
    for i in progress(range(len(names)), len(names), "drawing masks", "images"):
        for recipe, (_, draw) in RECIPES.items():
            packed[recipe][i] = np.packbits(draw(joints[i], height, width, limb_radius))
    digest = hashlib.sha256(repr((names, size)).encode())
    for array in packed.values():
        digest.update(array.tobytes())
    record = {
        "images": len(names),
        "images_without_pose": len(keypoints) - len(names),
        "height": height,
        "width": width,
        "limb_radius": limb_radius,
        "recipes": {recipe: described for recipe, (described, _) in RECIPES.items()},
        "mean_area": {recipe: _mean_area(array, height * width) for recipe, array in packed.items()},
        "sha256": digest.hexdigest(),
    }
    with new_folder(out) as folder:
        np.savez_compressed(folder / ARCHIVE, names=np.array(names), size=np.array(size), **packed)
        shown = np.unique(np.linspace(0, len(names) - 1, PREVIEW_ROWS).round().astype(int))
        preview = [_preview_row(names[i], joints[i], size, limb_radius, pictures) for i in shown]
        (folder / PREVIEW).write_bytes(png_bytes(_montage(preview, pictures is not None)))
        write_json(folder / RECORD, record)
    return record


class MaskArchive:
    """The masks of a file that `write_masks` has written, by the names of their images.

    names: of the images. size: (height, width). recipes: the names of RECIPES. Raises UserError for a file that is missing, is
    damaged or is no such archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with np.load(path) as content:
                self.names: list[str] = content["names"].tolist()
                self.size: tuple[int, int] = tuple(content["size"].tolist())
                self._packed = {recipe: content[recipe] for recipe in RECIPES}
        except FileNotFoundError:
            raise UserError(f"{path}: missing; run `potgan masks` first") from None
        except (ValueError, KeyError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path}: is no archive of masks, or is damaged ({error}); run `potgan masks` again"
            ) from None
        self._row = {name: row for row, name in enumerate(self.names)}

    def of(self, name: str, recipe: str = "potgan") -> np.ndarray:
        """The mask of one image: (height, width) uint8, 0 or 1. Raises UserError for an unknown image or recipe."""
        if recipe not in self._packed:
            raise UserError(f"{self.path}: has no recipe {recipe!r}; it has {', '.join(self._packed)}")
        if name not in self._row:
            raise UserError(f"{self.path}: has no mask of {name}; it has no pose, or is not of this data set")
        height, width = self.size
        return np.unpackbits(self._packed[recipe][self._row[name]], count=height * width).reshape(self.size)


def _mean_area(packed: np.ndarray, pixels: int) -> float:
    """The share of the pixels that are 1. What fills up the last byte of a mask is 0."""
    ones = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)
    return round(float((np.bincount(packed.ravel(), minlength=256) * ones).sum()) / (len(packed) * pixels), 4)


# ---------------------------------------------------------------------------------------------------------------------
# The preview


def _preview_row(
    name: str, joints: np.ndarray, size: tuple[int, int], limb_radius: int, pictures: Pictures | None
) -> list[np.ndarray]:
    """The pictures of one person, all of one size, in the order of PREVIEW_COLUMNS."""
    height, width = size
    scale = max(1, round(PREVIEW_HEIGHT / height))
    large = (width * scale, height * scale)
    image = None if pictures is None else cv2.resize(pictures(name), large, interpolation=cv2.INTER_CUBIC)
    background = None if image is None else image // 2
    masks = [*mask_parts(joints, height, width, limb_radius)]
    masks += [draw(joints, height, width, limb_radius) for _, draw in RECIPES.values()]
    row = [] if image is None else [image]
    row.append(draw_skeleton(joints, height, width, background, scale))
    row += [
        cv2.cvtColor(cv2.resize(255 * m, large, interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2RGB) for m in masks
    ]
    return row


def _montage(rows: list[list[np.ndarray]], with_images: bool) -> np.ndarray:
    """All rows below each other on white, with the names of the columns above: (H, W, 3) uint8 RGB."""
    columns = PREVIEW_COLUMNS if with_images else PREVIEW_COLUMNS[1:]
    gap, top, font = 8, 28, cv2.FONT_HERSHEY_SIMPLEX
    height, width = rows[0][0].shape[:2]
    cell = max(width, 100)
    page = np.full((top + len(rows) * (height + gap), len(columns) * (cell + gap) + gap, 3), 255, np.uint8)
    for x, column in enumerate(columns):
        left = gap + x * (cell + gap)
        (text, _), _ = cv2.getTextSize(column, font, 0.5, 1)
        cv2.putText(page, column, (left + (cell - text) // 2, top - 9), font, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
        for y, row in enumerate(rows):
            upper, inner = top + y * (height + gap), left + (cell - width) // 2
            page[upper : upper + height, inner : inner + width] = row[x]
    return page
