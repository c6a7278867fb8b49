"""Label images: a PNG file with one channel whose values are numbers of classes, in the classes of LIP or of ADGAN.

Whatever the file has, the labels that are used are numbers of `PARSING_CLASSES`.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from potgan.common.errors import UserError
from potgan.data.pose import PARSING_CLASSES

#: The 20 classes of LIP (Gong et al. 2017, "Look into Person"), in its order, and the class of ADGAN that each is merged into
#: (menyifang/ADGAN, issue 10). Parsers that were trained on CIHP call class 10 the skin of the torso, which the neck belongs to.
LIP_CLASSES = {
    "background": "background",
    "hat": "hair and hat",
    "hair": "hair and hat",
    "glove": "arms",
    "sunglasses": "face",
    "upper clothes": "upper clothes",
    "dress": "upper clothes",
    "coat": "upper clothes",
    "socks": "legs and shoes",
    "pants": "pants",
    "jumpsuits": "face",
    "scarf": "upper clothes",
    "skirt": "skirt",
    "face": "face",
    "left arm": "arms",
    "right arm": "arms",
    "left leg": "legs and shoes",
    "right leg": "legs and shoes",
    "left shoe": "legs and shoes",
    "right shoe": "legs and shoes",
}
#: `Dataset.parsing_classes` -> the number of one of PARSING_CLASSES for each label of a file.
MERGED = {
    "lip": np.array([PARSING_CLASSES.index(merged) for merged in LIP_CLASSES.values()], np.uint8),
    "adgan": np.arange(len(PARSING_CLASSES), dtype=np.uint8),
}


def read_labels(path: Path, classes: str) -> np.ndarray:
    """(H, W) uint8 numbers of PARSING_CLASSES from a label image in the classes `lip` or `adgan`.

    A file with a palette is read by its indices, because parsers write such files so that people see colours. Raises UserError
    for a file that cannot be read, that has more than one channel, or that has a label outside of the classes.
    """
    from PIL import Image  # which reads a palette's indices; a GPU machine that only trains need not have it

    try:
        with Image.open(path, formats=("PNG",)) as image:
            mode, values = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path}: cannot be read as a label image ({' '.join(str(error).split())}); write it again"
        ) from None
    if values.ndim != 2:
        raise UserError(
            f"{path}: has {values.shape[2]} channels ({mode}), and a label image has one, with the number of the class; "
            "write the numbers themselves, or a PNG with a palette"
        )
    merged = MERGED[classes]
    outside = (values < 0) | (values >= len(merged))
    if outside.any():
        row, column = np.argwhere(outside)[0]
        remedy = "give such pixels the label 0, background"
        if classes == "adgan" and values.max() < len(LIP_CLASSES):
            remedy = "set parsing_classes: lip if it is in LIP's classes"
        raise UserError(
            f"{path}: has the label {values[row, column]} at row {row}, column {column}, and the classes of {classes} are 0 to "
            f"{len(merged) - 1}; {remedy}"
        )
    return merged[values.astype(np.uint8)]


def labels_png(labels: np.ndarray) -> bytes:
    """The bytes of a label image in the classes of ADGAN: (H, W) uint8 numbers of PARSING_CLASSES."""
    return cv2.imencode(".png", labels)[1].tobytes()


def labels_of_png(content: bytes) -> np.ndarray:
    """The (H, W) uint8 labels that `labels_png` wrote."""
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
