"""Reads the result folders that the peers release. Such a folder holds one image or one strip of panels per pair.

    plain    one image per pair, `<from>___<to>`, `<from>_2_<to>` or `<from>_<to>`; targets lie in another folder
    deform   Deformable GAN's test.py: strips source | target | result, `<from>_<to>.png`
    patn     PATN's util/visualizer.py and its followers: `<from>___<to>_vis.jpg` or `.png`, strips of five panels
             (source, its pose, target, its pose, result) or of three (source, target, result)
    gfla     GFLA's base_model.py, also DPTN: `<from>_2_<to>_vis.jpg`, the result alone, or strips as in PATN

The width of a strip decides how many panels it has. A panel is half as wide as high (re-ID), 176 x 256 (DeepFashion without its
margins) or square (DeepFashion with them). Image names contain `_` themselves, so a file name is never split. Instead, the pair
list says which names are looked for, each with and without the `.jpg` inside. The first bytes of a file decide whether it is PNG
or JPEG, whatever its name says.

Source: docs/decisions.md, D38. The names and the single panel of GFLA come from its model/base_model.py, save_results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from potgan.common.errors import UserError
from potgan.common.progress import progress
from potgan.data.images import ImageFolder
from potgan.data.pixels import decode_image

#: The suffixes of image files. Any other file in a folder (an index.html, a Thumbs.db) is ignored.
SUFFIXES = (".png", ".jpg", ".jpeg")
#: The width of one panel divided by its height: Market-1501 and DukeMTMC, DeepFashion cropped, DeepFashion as published.
PANEL_SHAPES = (1 / 2, 176 / 256, 1)
#: Number of panels -> the places of source, target and result among them.
PANELS = {
    1: {"result": 0},
    3: {"source": 0, "target": 1, "result": 2},
    5: {"source": 0, "target": 2, "result": 4},
}


@dataclass(frozen=True)
class FolderLayout:
    """How the files of a result folder are named and what they hold."""

    between: tuple[str, ...]  # the texts that may stand between the two image names
    endings: tuple[str, ...]  # the texts that may stand between the second name and the suffix
    panels: tuple[int, ...]  # the numbers of panels that a file may have
    example: str


LAYOUTS = {
    "plain": FolderLayout(("___", "_2_", "_"), ("", "_vis"), (1,), "<from>___<to>.png"),
    "deform": FolderLayout(("_",), ("",), (3,), "<from>_<to>.png"),
    "patn": FolderLayout(("___",), ("_vis",), (3, 5), "<from>___<to>_vis.jpg"),
    "gfla": FolderLayout(("_2_",), ("_vis",), (1, 3, 5), "<from>_2_<to>_vis.jpg"),
}
_MAGIC = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}


@dataclass(frozen=True)
class Results:
    """A result folder in memory, in the order of the pair list.

    generated: (N, H, W, 3) uint8 RGB. strip_targets, strip_sources: the same for these panels, or None if they were not asked for
    or are not there. targets: (N, H, W, 3) uint8 from the folder of targets, or None. file_format: png | jpeg. panels: the number
    of panels per file, which is 1, 3 or 5. sha256: the SHA-256 over the names and bytes of all files.
    """

    generated: np.ndarray
    strip_targets: np.ndarray | None
    strip_sources: np.ndarray | None
    targets: np.ndarray | None
    file_format: str
    panels: int
    sha256: str


class ResultFolder:
    """A result folder that is matched with its pair list. An image is decoded when it is asked for.

    files: the path of the file of each pair, in the order of `pairs`. panels: the number of panels per file. size: (height, width)
    of a panel.

    Raises UserError for a folder that is missing or has no image, a pair without an image, an image without a pair, a name that
    fits two pairs, PNG and JPEG files side by side, a first image that cannot be decoded, and a strip whose width is no whole
    number of panels.
    """

    def __init__(self, folder: str | Path, layout: str, pairs: pd.DataFrame) -> None:
        if layout not in LAYOUTS:
            raise UserError(f"no layout {layout!r} of result folders; there are {', '.join(LAYOUTS)}")
        self.folder, self.layout = Path(folder), layout
        present = _image_files(self.folder)
        named = list(zip(pairs["from"], pairs["to"], strict=True))
        found = _match(present, named, LAYOUTS[layout], self.folder)
        self._check_complete(present, named, found)
        self.files = [found[pair] for pair in named]
        self.file_format = self._format()
        first = self._decode(self.files[0])
        self.strip_size = first.shape[:2]
        self.panels = panel_count(self.strip_size, layout, self.files[0])
        self.size = (first.shape[0], first.shape[1] // self.panels)

    def __len__(self) -> int:
        return len(self.files)

    @property
    def has(self) -> tuple[str, ...]:
        """The panels that a file has: result, and in strips also source and target."""
        return tuple(PANELS[self.panels])

    def read(self, index: int) -> dict[str, np.ndarray]:
        """Return panel -> (H, W, 3) uint8 RGB for one pair.

        Raises UserError for a file that has another size than the first one, or that cannot be decoded.
        """
        path = self.files[index]
        strip = self._decode(path)
        if strip.shape[:2] != self.strip_size:
            raise UserError(
                f"{path}: is {_size(strip.shape)}, and {self.files[0].name} is {_size(self.strip_size)}; the images of one "
                "method must be of one size"
            )
        width = self.size[1]
        return {name: strip[:, place * width : (place + 1) * width] for name, place in PANELS[self.panels].items()}

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

    def _format(self) -> str:
        kinds: dict[str, Path] = {}
        for path in self.files:
            with open(path, "rb") as file:
                start = file.read(4)
            kind = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
            if kind is None:
                raise UserError(f"{path}: is neither a PNG nor a JPEG file; fetch the results again")
            kinds.setdefault(kind, path)
        if len(kinds) > 1:
            raise UserError(
                f"{self.folder}: holds PNG and JPEG files side by side ({kinds['png'].name}, {kinds['jpeg'].name}); the "
                "images of one method must be of one format"
            )
        return next(iter(kinds))

    def _check_complete(self, present: list[Path], named: list, found: dict) -> None:
        wanted = list(dict.fromkeys(named))
        missing = [pair for pair in wanted if pair not in found]
        if len(missing) == len(wanted):
            # `plain` accepts the names of all other layouts, so it is tried last.
            fitting = [name for name in reversed(LAYOUTS) if _fits(present, named, LAYOUTS[name], self.folder)]
            hint = f"under layout {fitting[0]} some would be" if fitting else "check that the pair list is theirs"
            raise UserError(
                f"{self.folder}: none of its {len(present):,} images is named after one of the {len(wanted):,} pairs "
                f"(layout {self.layout}: {LAYOUTS[self.layout].example}; first image {present[0].name}); {hint}"
            )
        if missing:
            raise UserError(
                f"{self.folder}: {len(missing):,} of {len(wanted):,} pairs have no image, first {','.join(missing[0])}; "
                "check that the pair list belongs to these results"
            )
        surplus = sorted(set(present) - set(found.values()))
        if surplus:
            raise UserError(
                f"{self.folder}: {len(surplus):,} of {len(present):,} images belong to no pair, first {surplus[0].name}; "
                "check that the pair list belongs to these results"
            )


def read_results(
    folder: str | Path,
    layout: str,
    pairs: pd.DataFrame,
    targets: str | Path | None = None,
    want: tuple[str, ...] = ("result", "target"),
) -> Results:
    """Read all images of a result folder, in the order of `pairs` (columns `from` and `to`).

    targets: a folder of the data set's own images, which are named by `to` (see `TargetFolder`). `same_frame` says which
    differences in size between results and targets are allowed. want: the panels that are kept. Each of them is one array of
    N x H x W x 3 bytes, and no other array of that size is made.

    Raises UserError as `ResultFolder`, its `read`, `TargetFolder` and `same_frame` do.
    """
    results = ResultFolder(folder, layout, pairs)
    whole = TargetFolder(targets, list(pairs["to"])) if targets is not None else None
    height, width = results.size
    kept = {name: np.empty((len(results), height, width, 3), np.uint8) for name in want if name in results.has}
    for index in progress(range(len(results)), len(results), f"reading {Path(folder).name}", "images"):
        for name, panel in results.read(index).items():
            if name in kept:
                kept[name][index] = panel
    return Results(
        generated=kept["result"],
        strip_targets=kept.get("target"),
        strip_sources=kept.get("source"),
        targets=None if whole is None else whole.images(results.size),
        file_format=results.file_format,
        panels=results.panels,
        sha256=results.sha256(),
    )


class TargetFolder:
    """The data set's own images with some names, read from a folder.

    The folder is one that the stage `images` wrote, or one with image files side by side. It may contain other images too. Raises
    UserError if the folder is missing or lacks one of `names`.
    """

    def __init__(self, folder: str | Path, names: list[str]) -> None:
        self.folder, self.names = Path(folder), names
        self._stage = ImageFolder(self.folder) if (self.folder / "images.csv").is_file() else None
        known = list(self._stage.table.index) if self._stage else [path.name for path in _image_files(self.folder)]
        by_stem: dict[str, list[str]] = {}
        for name in known:
            by_stem.setdefault(_bare(name), []).append(name)
        exact = set(known)
        self.found: dict[str, str] = {}
        missing = []
        for name in dict.fromkeys(names):
            others = [name] if name in exact else by_stem.get(_bare(name), [])
            if len(others) == 1:
                self.found[name] = others[0]
            else:
                missing.append(name)
        if missing:
            raise UserError(
                f"{self.folder}: {len(missing):,} of {len(set(names)):,} target images are not there, first {missing[0]}; "
                "name the folder of the data set's test images"
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


def same_frame(image: np.ndarray, size: tuple[int, int], path: Path) -> np.ndarray:
    """Return the image (H, W, 3) in the frame of `size` (height, width).

    An image of this size is returned as it is. An image of 256 x 256 from DeepFashion loses its margins, so that columns 40 to 215
    remain, if `size` is (256, 176). Raises UserError for any other difference in size, because no image is resized.
    """
    if image.shape[:2] == size:
        return image
    if image.shape[:2] == (256, 256) and size == (256, 176):
        return image[:, 40:216]
    raise UserError(
        f"{path}: is {_size(image.shape)}, and the results are {_size(size)}; targets must be of the results' size"
    )


def panel_count(size: tuple[int, int], layout: str, path: Path) -> int:
    """Return the number of panels of a strip with `size` (height, width) under a layout.

    Raises UserError for an unexpected width.
    """
    if LAYOUTS[layout].panels == (1,):
        return 1  # the shape does not matter here, because the targets must have the same size
    height, width = size
    fitting = [n for n in LAYOUTS[layout].panels for shape in PANEL_SHAPES if width == round(n * shape * height)]
    if len(fitting) == 1:
        return fitting[0]
    expected = sorted({round(n * shape * height) for n in LAYOUTS[layout].panels for shape in PANEL_SHAPES})
    counts = " or ".join(map(str, LAYOUTS[layout].panels))
    raise UserError(
        f"{path}: is {_size(size)}, and {counts} panels of this height side by side (layout {layout}) are "
        f"{', '.join(map(str, expected[:-1]))} or {expected[-1]} pixels wide; check the layout"
    )


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        inner = next((p for p in sorted(folder.iterdir()) if p.is_dir() and any(_has_images(p))), None)
        hint = f"its folder {inner.name} does; name that" if inner else "name the folder in which the images lie"
        raise UserError(f"{folder}: holds no PNG or JPEG image; {hint}")
    return files


def _has_images(folder: Path) -> Iterator[bool]:
    return (True for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def _fits(present: list[Path], named: list, layout: FolderLayout, folder: Path) -> bool:
    try:
        return bool(_match(present, named, layout, folder))
    except UserError:
        return False


def _match(present: list[Path], named: list, layout: FolderLayout, folder: Path) -> dict[tuple[str, str], Path]:
    """Return pair -> its file, for the pairs that have one.

    The names are first tried as the list spells them, then without one `.jpg` (the tables of Market-1501 have names that end in
    `.jpg.jpg`), and then without any. Raises UserError if one file name fits two pairs equally well, or if one pair has two files.
    """
    cores: dict[str, Path] = {}
    for path in present:
        for ending in layout.endings:
            if path.stem.endswith(ending):
                core = path.stem.removesuffix(ending)
                if cores.setdefault(core, path) != path:
                    raise UserError(f"{folder}: {cores[core].name} and {path.name} are one pair; keep one of them")
    found: dict[tuple[str, str], Path] = {}
    wanted = list(dict.fromkeys(named))
    for spell in _SPELLINGS:
        claims: dict[Path, tuple[str, str]] = {}
        for pair in wanted:
            if pair in found:
                continue
            source, target = spell(pair)
            for between in layout.between:
                path = cores.get(f"{source}{between}{target}")
                if path is None:
                    continue
                if claims.setdefault(path, pair) != pair:
                    raise UserError(
                        f"{folder}: {path.name} fits two pairs, {','.join(claims[path])} and {','.join(pair)}; name the files "
                        "with the whole image names"
                    )
                break
        taken = set(found.values())
        found |= {pair: path for path, pair in claims.items() if path not in taken}
    return found


def _bare(name: str) -> str:
    """Return a name without any suffixes of images, even if there are several."""
    while name.lower().endswith(SUFFIXES):
        name = name[: name.rindex(".")]
    return name


def _once(name: str) -> str:
    return name.removesuffix(".jpg")


_SPELLINGS = (
    lambda pair: pair,
    lambda pair: (_once(pair[0]), _once(pair[1])),
    lambda pair: (pair[0], _once(pair[1])),
    lambda pair: (_once(pair[0]), pair[1]),
    lambda pair: (_bare(pair[0]), _bare(pair[1])),
    lambda pair: (_bare(pair[0]) + ".jpg", _bare(pair[1]) + ".jpg"),
)


def _size(shape: tuple[int, ...]) -> str:
    """Return the size of an image of `shape` (height, width, ...), as the messages state it."""
    return f"{shape[1]} x {shape[0]} pixels (width x height)"
