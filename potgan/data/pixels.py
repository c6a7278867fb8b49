"""Single images: decoded, encoded, resized and cropped. Images are (H, W, 3) uint8 RGB throughout."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from potgan.common.errors import UserError


def decode_image(content: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB of an image file's bytes, or None where they are no image.

    Grey and CMYK files become RGB, an alpha channel is dropped, and the EXIF orientation is applied.
    """
    if not content:
        return None
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file. Raises UserError naming a file that is missing or cannot be decoded."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; fetch the data set again or run `potgan images`") from None
    image = decode_image(content)
    if image is None:
        raise UserError(
            f"{path}: cannot be decoded as an image; fetch the data set again or run `potgan images`"
        ) from None
    return image


def png_bytes(image: np.ndarray) -> bytes:
    """A PNG file of an image (H, W, 3) uint8 RGB."""
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(h, w, 3) uint8 -> (H, W, 3); unchanged if equal. An axis that shrinks is averaged over pixels' areas (antialiased),
    one that grows is interpolated cubically; where one shrinks and the other grows, the shrinking comes first.
    """
    height, width = size
    if image.shape[0] > height or image.shape[1] > width:
        smaller = (min(image.shape[1], width), min(image.shape[0], height))
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)


def scale_joints(joints: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """(..., 2) joints of an image of size `old` (height, width) in the image resized to `new`; pixel centres stay centres."""
    factor = np.array([new[1] / old[1], new[0] / old[0]], np.float32)
    return ((joints + 0.5) * factor - 0.5).astype(np.float32)


def crop(image: np.ndarray, columns: tuple[int, int] | None) -> np.ndarray:
    return image if columns is None else image[:, columns[0] : columns[1]]
