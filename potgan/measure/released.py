"""Reads the result folders that the peers release. Such a folder holds one image or one row of panels per pair.

`potgan/measure/released_layouts.py` says how the files are named and which panels they have, and
`potgan/measure/released_names.py` finds the pair of each file. The first bytes of a file decide whether it is PNG or JPEG,
whatever its name says. No image is resized.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from potgan.common.errors import UserError
from potgan.common.progress import progress
from potgan.data.images import ImageFolder
from potgan.data.pixels import CROPPED, MARGIN, WHOLE, decode_image
from potgan.measure.released_layouts import layout_of, places_in, size_text, strip_of
from potgan.measure.released_names import (
    bare,
    files_of_pairs,
    image_files,
    number_of,
    numbers_of,
    pairs_of_files,
    places_of_numbers,
)

_MAGIC = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}


@dataclass(frozen=True)
class Results:
    """A result folder in memory, in the order of `pairs`.

    pairs: the columns `from` and `to`. generated: (N, H, W, 3) uint8 RGB. released_targets: the same for the targets that were
    released with the results: the panels of strips, or files with the results' numbers (by_number). source_panels: the same for
    the sources in strips. targets: the same for the data set's own images, from the folder of targets. Each of these three is None
    if it was not asked for or is not there. file_format, target_format: png | jpeg, of the results and of targets by number.
    panels: the number of panels per file. sha256: the SHA-256 over the names and bytes of all files.
    """

    pairs: pd.DataFrame
    generated: np.ndarray
    released_targets: np.ndarray | None
    source_panels: np.ndarray | None
    targets: np.ndarray | None
    by_number: bool
    file_format: str
    target_format: str | None
    panels: int
    sha256: str


class ResultFolder:
    """A result folder whose files are matched with pairs. An image is decoded when it is asked for.

    layout: a name that `layout_of` knows. pairs: the pair list, or None to read the pairs from the names of the files. partial:
    whether pairs without an image are left out.

    pairs: the pairs that have an image, in the order of the list. files: the path of the file of each of them. numbers: the number
    of each file, or None if the layout has names. panels: the number of panels per file. size: (height, width) of a panel.

    Raises UserError for a folder that is missing or has no image, for what `files_of_pairs` or `pairs_of_files` refuse, PNG and
    JPEG files side by side, a format that the layout does not have, a first image that cannot be decoded, and a size that no
    strip of the layout has.
    """

    def __init__(self, folder: str | Path, layout: str, pairs: pd.DataFrame | None, partial: bool = False) -> None:
        self.folder, self.layout = Path(folder), layout
        grammar = layout_of(layout)
        present = image_files(self.folder)
        if pairs is None:
            self.pairs, self.files = pairs_of_files(self.folder, present, layout, grammar)
        else:
            by_place = files_of_pairs(self.folder, present, pairs, layout, grammar, partial)
            self.pairs, self.files = pairs.iloc[list(by_place)].reset_index(drop=True), list(by_place.values())
        self.numbers = [number_of(path, grammar.endings) for path in self.files] if grammar.numbered else None
        self.file_format = _format(self.folder, self.files)
        if grammar.file_format not in (None, self.file_format):
            raise UserError(
                f"{self.folder}: holds {self.file_format.upper()} files, and those of layout {layout} are "
                f"{grammar.file_format.upper()}; check the layout"
            )
        first = self._decode(self.files[0])
        self.strip_size = first.shape[:2]
        strip = strip_of(self.strip_size, grammar, layout, self.files[0])
        self.panels, self._places = len(strip), places_in(strip)
        self.size = (first.shape[0], first.shape[1] // self.panels)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def has(self) -> tuple[str, ...]:
        """The panels that a file has: result, and in strips also source and target."""
        return tuple(self._places)

    def read(self, index: int) -> dict[str, np.ndarray]:
        """Return panel -> (H, W, 3) uint8 RGB for one pair.

        Raises UserError for a file that has another size than the first one, or that cannot be decoded.
        """
        path = self.files[index]
        strip = self._decode(path)
        if strip.shape[:2] != self.strip_size:
            raise UserError(
                f"{path}: is {size_text(strip.shape)}, and {self.files[0].name} is {size_text(self.strip_size)}; the images of one "
                "method must be of one size"
            )
        width = self.size[1]
        return {name: strip[:, place * width : (place + 1) * width] for name, place in self._places.items()}

    def sha256(self) -> str:
        """Return the SHA-256 over the names and bytes of all files, in the order of their names."""
        digest = hashlib.sha256()
        for path in sorted(set(self.files)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        return digest.hexdigest()

    def _decode(self, path: Path) -> np.ndarray:
        image = decode_image(path.read_bytes())
        if image is None:
            raise UserError(f"{path}: cannot be decoded as an image; fetch the results again")
        return image


def _format(folder: Path, files: Iterable[Path]) -> str:
    """Return png or jpeg. Raises UserError if the first bytes of a file are neither, or if there are files of both."""
    kinds: dict[str, Path] = {}
    for path in files:
        with open(path, "rb") as file:
            start = file.read(4)
        kind = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
        if kind is None:
            raise UserError(f"{path}: is neither a PNG nor a JPEG file; fetch the results again")
        kinds.setdefault(kind, path)
    if len(kinds) > 1:
        raise UserError(
            f"{folder}: holds PNG and JPEG files side by side ({kinds['png'].name}, {kinds['jpeg'].name}); the "
            "images of one method must be of one format"
        )
    return next(iter(kinds))


def read_results(
    folder: str | Path,
    layout: str,
    pairs: pd.DataFrame | None,
    targets: str | Path | None = None,
    want: tuple[str, ...] = ("result", "target"),
    partial: bool = False,
) -> Results:
    """Read all images of a result folder, in the order of `pairs` (columns `from` and `to`) or, without a list, of the files.

    targets: a folder of the data set's own images, which are named by `to`, or of images with the results' numbers (see
    `TargetFolder`). `same_frame` says which differences in size between results and targets are allowed. want: the panels that
    are kept. Each of them is one array of N x H x W x 3 bytes, and no other array of that size is made. partial: whether pairs
    without an image are left out.

    Raises UserError as `ResultFolder`, its `read`, `TargetFolder` and `same_frame` do, and for numbers without a list whose targets
    are not numbered.
    """
    results = ResultFolder(folder, layout, pairs, partial)
    whole = None
    if targets is not None:
        numbered = _named_by_numbers(Path(targets))
        if pairs is None and results.numbers is not None and not numbered:
            raise UserError(
                f"{targets}: is not named by the results' numbers, which alone tell no target; name the pair list with --pairs"
            )
        if pairs is None and results.numbers is None and numbered:
            raise UserError(
                f"{targets}: is named by numbers, which are places in a pair list; name that list with --pairs"
            )
        whole = TargetFolder(targets, list(results.pairs["to"]), results.numbers, partial)
    height, width = results.size
    kept = {name: np.empty((len(results), height, width, 3), np.uint8) for name in want if name in results.has}
    for index in progress(range(len(results)), len(results), f"reading {Path(folder).name}", "images"):
        for name, panel in results.read(index).items():
            if name in kept:
                kept[name][index] = panel
    by_number = whole is not None and whole.file_format is not None
    from_folder = None if whole is None else whole.images(results.size)
    return Results(
        pairs=results.pairs,
        generated=kept["result"],
        released_targets=from_folder if by_number else kept.get("target"),
        source_panels=kept.get("source"),
        targets=None if by_number else from_folder,
        by_number=by_number,
        file_format=results.file_format,
        target_format=whole.file_format if by_number else None,
        panels=results.panels,
        sha256=results.sha256(),
    )


class TargetFolder:
    """The target images of some pairs, read from a folder.

    The folder is one that the stage `images` wrote, or one with image files side by side, which may contain other images too. Or
    its files are named by numbers: those of the results, or else the places in the pair list. Places are counted from 0 if there is
    a 0, and from 1 if there is the number of pairs.

    names: the target of each pair. numbers: the number of each pair's result, or None if the results have no numbers. partial:
    whether there may be more numbered targets than results. file_format: png | jpeg for numbered files; None for others.

    Raises UserError if the folder is missing or lacks one of the targets. Numbered files are refused, too, if some are left over,
    if they are PNG and JPEG side by side, or if two that the pair list gives the same name are different images.
    """

    def __init__(
        self, folder: str | Path, names: list[str], numbers: list[int] | None = None, partial: bool = False
    ) -> None:
        self.folder, self.names = Path(folder), names
        self._stage = ImageFolder(self.folder) if (self.folder / "images.csv").is_file() else None
        self.file_format: str | None = None
        known = list(self._stage.table.index) if self._stage else [path.name for path in image_files(self.folder)]
        by_stem: dict[str, list[str]] = {}
        for name in known:
            by_stem.setdefault(bare(name), []).append(name)
        exact = set(known)
        self.found: dict[str, str] = {}
        missing = []
        for name in dict.fromkeys(names):
            others = [name] if name in exact else by_stem.get(bare(name), [])
            if len(others) == 1:
                self.found[name] = others[0]
            else:
                missing.append(name)
        names_are_numbers = numbers is not None and list(names) == [str(number) for number in numbers]
        # Names that are found are believed, because a data set's own names may be numbers, too.
        if (names_are_numbers or not self.found) and _named_by_numbers(self.folder):
            self._find_by_number(numbers, partial)
        elif missing:
            raise UserError(
                f"{self.folder}: {len(missing):,} of {len(set(names)):,} target images are not there, first {missing[0]}; "
                "name the folder of the data set's test images"
            )

    def _find_by_number(self, numbers: list[int] | None, partial: bool) -> None:
        grammar = layout_of("numbered")
        files = numbers_of(self.folder, image_files(self.folder), grammar)
        if numbers is None:
            files = places_of_numbers(self.folder, files, len(self.names), "numbered", None)
            numbers = list(range(len(self.names)))
        missing = [number for number in numbers if number not in files]
        if missing:
            raise UserError(
                f"{self.folder}: {len(missing):,} of {len(numbers):,} results have no target of their number, first "
                f"{self.names[numbers.index(missing[0])]} (number {missing[0]}); fetch the targets again"
            )
        surplus = sorted(set(files) - set(numbers))
        if surplus and not partial:
            raise UserError(
                f"{self.folder}: {len(surplus):,} of {len(files):,} targets have no result of their number, first "
                f"{files[surplus[0]].name}; fetch the results again"
            )
        self.file_format = _format(self.folder, files.values())
        self.found = {}
        for name, number in zip(self.names, numbers, strict=True):
            path = files[number]
            first = self.found.setdefault(name, path.name)
            if first != path.name and not _same_image(self.folder / first, path):
                raise UserError(
                    f"{self.folder}: {first} and {path.name} are different images, and the pair list says that both are {name}; "
                    "check that the list belongs to these results, and from which number it is counted"
                )

    def read(self, name: str) -> np.ndarray:
        """Return the image (H, W, 3) uint8 RGB. Raises UserError if it cannot be decoded."""
        if self._stage is not None:
            return self._stage.read(self.found[name])
        path = self.folder / self.found[name]
        image = decode_image(path.read_bytes())
        if image is None:
            raise UserError(f"{path}: cannot be decoded as an image; fetch the data set again")
        return image

    def images(self, size: tuple[int, int]) -> np.ndarray:
        """Return (N, H, W, 3) uint8 in the order of the names, in the frame of results with `size` (height, width)."""
        images = np.empty((len(self.names), *size, 3), np.uint8)
        rows: dict[str, int] = {}
        for row, name in enumerate(self.names):
            if name in rows:  # a target of several pairs is decoded once
                images[row] = images[rows[name]]
                continue
            rows[name] = row
            images[row] = same_frame(self.read(name), size, self.folder / self.found[name])
        return images


def _named_by_numbers(folder: Path) -> bool:
    """Return whether all images of a folder are named by numbers and by nothing else.

    The stage `images` also numbers its files, but has a table of their names.
    """
    return not (folder / "images.csv").is_file() and all(number_of(path) is not None for path in image_files(folder))


def _same_image(one: Path, other: Path) -> bool:
    """Return whether two files show the same image. Only files of different bytes are decoded."""
    first, second = one.read_bytes(), other.read_bytes()
    if first == second:
        return True
    first, second = decode_image(first), decode_image(second)
    return first is not None and second is not None and np.array_equal(first, second)


def same_frame(image: np.ndarray, size: tuple[int, int], path: Path) -> np.ndarray:
    """Return the image (H, W, 3) in the frame of `size` (height, width).

    An image of this size is returned as it is. An image of 256 x 256 from DeepFashion loses its margins, so that columns 40 to 215
    remain, if `size` is (256, 176). Raises UserError for any other difference in size, because no image is resized.
    """
    if image.shape[:2] == size:
        return image
    if image.shape[:2] == WHOLE and size == CROPPED:
        return image[:, MARGIN : MARGIN + CROPPED[1]]
    raise UserError(
        f"{path}: is {size_text(image.shape)}, and the results are {size_text(size)}; targets must be of the results' size"
    )
