"""Single images: decoding, encoding, resizing and cropping. Every image is (H, W, 3) uint8 RGB."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from potgan.common.errors import UserError
from potgan.data.pose import Keypoints

#: DeepFashion's images as published, and as most methods make them: without MARGIN columns left and right. (height, width)
WHOLE, CROPPED, MARGIN = (256, 256), (256, 176), 40


def decode_image(content: bytes) -> np.ndarray | None:
    """The image in the bytes of a file, or None where they are no image that can be decoded.

    Grey and CMYK files become RGB, an alpha channel is dropped, and the image is turned upright as its EXIF tag says.
    """
    if not content:
        return None
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_image(path: Path) -> np.ndarray:
    """The image in a file. Raises UserError, which names the file, where it is missing or cannot be decoded."""
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
    """The bytes of a PNG file of an image."""
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image in another size (height, width). An image of that size is returned unchanged.

    An axis that gets shorter is averaged over the areas of pixels, so that no fine pattern turns into a coarse one. An axis that
    gets longer is interpolated cubically. Where one gets shorter and the other longer, the first comes first.
    """
    height, width = size
    if image.shape[0] > height or image.shape[1] > width:
        smaller = (min(image.shape[1], width), min(image.shape[0], height))
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The (H, W) uint8 labels in another size (height, width): each pixel has the label of the pixel that its centre lies in."""
    return cv2.resize(labels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)


def scale_joints(joints: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """The (..., 2) joints of an image of size `old` (height, width), in pixels of the image that is resized to `new`.

    In both images the centres of pixels lie at integers, and the left and upper edges at -0.5.
    """
    if old == new:  # adding and subtracting a half would round
        return joints.astype(np.float32)
    factor = np.array([new[1] / old[1], new[0] / old[0]], np.float32)
    return ((joints + 0.5) * factor - 0.5).astype(np.float32)


def keypoints_at(
    keypoints: Keypoints, names: Sequence[str], size_of: Callable[[str], tuple[int, int]], size: tuple[int, int]
) -> Keypoints:
    """The rows of these images, in pixels of the images that are resized to `size` (height, width).

    size_of: an image's name -> the (height, width) that the key points count the pixels of.
    """
    table = keypoints.rows([keypoints.row[name] for name in names])
    joints = [scale_joints(pose, size_of(name), size) for name, pose in zip(names, table.joints, strict=True)]
    return Keypoints(table.names, np.stack(joints), table.confidence)


def crop(image: np.ndarray, columns: tuple[int, int] | None) -> np.ndarray:
    """The columns from the first number up to, and without, the second; all of them for None."""
    return image if columns is None else image[:, columns[0] : columns[1]]
