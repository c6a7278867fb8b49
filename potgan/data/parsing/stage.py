"""The stage `parsing`: the class of each pixel of the images of all pairs, for the methods that read it.

It comes from the renderer for synthetic people, and from a folder of label images for others. `parsing.zip` holds one label
image `<stem>.png` for each image, in the size that `ImageFolder.read` gives, and in the classes of ADGAN. Unpacked, it is such a
folder itself.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from potgan.common.errors import UserError
from potgan.common.files import Json, new_folder, write_json
from potgan.common.progress import progress
from potgan.data.images import ImageFolder
from potgan.data.parsing.labels import labels_of_png, labels_png, read_labels
from potgan.data.pixels import crop, read_image
from potgan.data.pose import PARSING_CLASSES
from potgan.settings.schema import Dataset, SyntheticSettings

ARCHIVE = "parsing.zip"
#: The earliest time that a ZIP file can name, of every member: times are no content.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
#: An image's name -> its (H, W) labels.
Labels = Callable[[str], np.ndarray]


def prepare_parsing(dataset: Dataset, name: str, names: Sequence[str], images: Path, out: Path) -> dict[str, Json]:
    """Fill the folder `out` with the labels of these images, and return the record.

    name: the data set's name in the configuration. names: of the images that pairs consist of. images: the folder of the stage
    `images`. The folder `out` appears whole or not at all.

    Raises UserError for a data set without a parsing, and for label images that are missing or of another size, that cannot be
    read, or that have labels outside of their classes.
    """
    if dataset.kind == "synthetic":
        labels, source = _rendered(dataset.synthetic), "synthetic renderer"
    elif dataset.parsing is not None:
        labels = _of_folder(dataset, name, names, ImageFolder(images))
        source = f"label images in the classes of {dataset.parsing_classes}"
    else:
        raise UserError(
            f"datasets.{name}: has no parsing; name a folder of label images with datasets.{name}.parsing, or leave out the models "
            "that read one"
        )
    content, counts = hashlib.sha256(), np.zeros(len(PARSING_CLASSES), np.int64)
    with new_folder(out) as folder:
        with zipfile.ZipFile(folder / ARCHIVE, "w", zipfile.ZIP_STORED) as archive:
            for image in progress(names, len(names), f"parsing {name}", "images"):
                found = labels(image)
                content.update(f"{image}\0{found.shape}\0".encode() + found.tobytes())
                counts += np.bincount(found.ravel(), minlength=len(counts))
                member = zipfile.ZipInfo(_member(image), _NO_TIME)
                member.external_attr = 0o644 << 16
                archive.writestr(member, labels_png(found))
        record = {
            "dataset": name,
            "source": source,
            "images": len(names),
            "shares": {
                kind: round(float(n / counts.sum()), 4) for kind, n in zip(PARSING_CLASSES, counts, strict=True)
            },
            "sha256": content.hexdigest(),
        }
        write_json(folder / "parsing.json", record)
    return record


class Parsing:
    """The labels that the stage has written into a folder, by the names of their images.

    Raises UserError where the stage has not run.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ARCHIVE
        try:
            self.archive = zipfile.ZipFile(self.path)
        except FileNotFoundError:
            raise UserError(f"{self.path}: missing; run `potgan parsing` first") from None
        except zipfile.BadZipFile as error:
            raise UserError(f"{self.path}: is damaged ({error}); run `potgan parsing` again") from None

    def of(self, name: str) -> np.ndarray:
        """The (H, W) uint8 labels of one image, numbers of PARSING_CLASSES. Raises UserError for an unknown image."""
        try:
            return labels_of_png(self.archive.read(_member(name)))
        except KeyError:
            raise UserError(f"{self.path}: has no labels of {name}; run `potgan parsing` again") from None
        except zipfile.BadZipFile as error:
            raise UserError(f"{self.path}: is damaged ({error}); run `potgan parsing` again") from None


def _member(name: str) -> str:
    return f"{Path(name).stem}.png"


def _rendered(settings: SyntheticSettings) -> Labels:
    """The exact labels of synthetic people, which are rendered once more for it."""
    from potgan.data.synthetic import people

    where = people.find(settings)
    return lambda name: people.render(settings, *where[name]).parsing


def _of_folder(dataset: Dataset, name: str, names: Sequence[str], images: ImageFolder) -> Labels:
    """The labels in the folder that the configuration names."""
    folder, at = Path(dataset.parsing), f"datasets.{name}.parsing"
    if not folder.is_dir():
        raise UserError(f"{at}: {folder} is no folder; name the folder of the label images")
    missing = [image for image in names if not (folder / _member(image)).is_file()]
    if missing:
        raise UserError(
            f"{folder}: has no label image of {len(missing):,} of the {len(names):,} images that pairs consist of (first: "
            f"{_member(missing[0])}); a label image has the name of its image and the suffix .png"
        )

    def labels(image: str) -> np.ndarray:
        path = folder / _member(image)
        found = read_labels(path, dataset.parsing_classes)
        if found.shape == images.size(image):
            return found  # also where the image is cropped: such labels are of the cropped image
        whole = read_image(images.path(image)).shape[:2] if images.crop_columns else images.size(image)
        if found.shape != whole:
            raise UserError(
                f"{path}: has {found.shape[0]} x {found.shape[1]} labels, and its image has {whole[0]} x {whole[1]} pixels; label "
                "the image as it is"
            )
        return crop(found, images.crop_columns)

    return labels
