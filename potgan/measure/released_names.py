"""Which pair each file of a released result folder belongs to.

With a pair list, the list says which names are looked for (`files_of_pairs`): names of images contain `_` themselves, so a file
name is not split. Each name is tried with and without the `.jpg` inside. Without a list, the files' names are split
(`pairs_of_files`), and only where there is no doubt. Numbered files are places in the list.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from potgan.common.errors import UserError
from potgan.data.pairs import COLUMNS
from potgan.measure.released_layouts import LAYOUTS, FolderLayout

#: The suffixes of image files. Any other file in a folder (an index.html, a Thumbs.db) is ignored.
SUFFIXES = (".png", ".jpg", ".jpeg")
#: The names of the data sets' images without suffix: Market-1501, DukeMTMC-reID, DeepFashion. A test compares them with
#: benchmarks/<kind>.yaml.
DATASET_NAMES = re.compile(
    r"(-1|\d{4})_c[1-6]s\d_\d{6}_\d{2}|\d{4}_c[1-8]_f\d{7}|fashion(WOMEN|MEN)((?!fashion(WOMEN|MEN)).)+id\d{10}_\d[a-z]+"
)
#: A name that itself ends in the suffix of an image, as `a.jpg` in `a.jpg_b.jpg.png`.
_WITH_SUFFIX = re.compile(r".+\.(png|jpe?g)", re.IGNORECASE)

#: The layouts that a message may advise, from the narrowest: `plain` accepts the names of all layouts before it.
_HINTS = ("patn", "gfla", "deform", "numbered", "plain")


def image_files(folder: Path) -> list[Path]:
    """Return the image files of a folder, in the order of their names. Raises UserError if there are none."""
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


def bare(name: str) -> str:
    """Return a name without any suffixes of images, even if there are several."""
    while name.lower().endswith(SUFFIXES):
        name = name[: name.rindex(".")]
    return name


# ---------------------------------------------------------------------------------------------------------------------
# With a pair list


def files_of_pairs(
    folder: Path, files: list[Path], pairs: pd.DataFrame, layout: str, grammar: FolderLayout, partial: bool
) -> dict[int, Path]:
    """Return the place in the pair list -> its file, in the order of the list.

    files: the images of the folder. partial: whether pairs without a file are left out.

    Raises UserError for a pair without a file (unless `partial`), a file without a pair, a name that fits two pairs, two files of
    one pair, and numbers that may be counted from 0 as well as from 1.
    """
    named = list(zip(pairs["from"], pairs["to"], strict=True))
    if grammar.numbered:
        by_place = places_of_numbers(folder, numbers_of(folder, files, grammar), len(named), layout, grammar.first)
        missing = [f"{place + 1:,} ({','.join(named[place])})" for place in range(len(named)) if place not in by_place]
        _check_missing(folder, missing, len(named), "row ", partial)
        return dict(sorted(by_place.items()))
    found = _match(files, named, grammar, folder)
    wanted = list(dict.fromkeys(named))
    if not found:
        fitting = [name for name in _HINTS if _fits(files, named, LAYOUTS[name], folder)]
        hint = f"under layout {fitting[0]} some would be" if fitting else "check that the pair list is theirs"
        raise UserError(
            f"{folder}: none of its {len(files):,} images is named after one of the {len(wanted):,} pairs "
            f"(layout {layout}: {grammar.example}; first image {files[0].name}); {hint}"
        )
    _check_missing(folder, [",".join(pair) for pair in wanted if pair not in found], len(wanted), "", partial)
    surplus = sorted(set(files) - set(found.values()))
    if surplus:
        raise UserError(
            f"{folder}: {len(surplus):,} of {len(files):,} images belong to no pair, first {surplus[0].name}; "
            "check that the pair list belongs to these results"
        )
    return {place: found[pair] for place, pair in enumerate(named) if pair in found}


def _check_missing(folder: Path, missing: list[str], total: int, what: str, partial: bool) -> None:
    if missing and not partial:
        raise UserError(
            f"{folder}: {len(missing):,} of {total:,} pairs have no image, first {what}{missing[0]}; "
            "check that the pair list belongs to these results"
        )


def _fits(files: list[Path], named: list, grammar: FolderLayout, folder: Path) -> bool:
    if grammar.numbered:
        return all(number_of(path, grammar.endings) is not None for path in files)
    try:
        return bool(_match(files, named, grammar, folder))
    except UserError:
        return False


def _match(files: list[Path], named: list, grammar: FolderLayout, folder: Path) -> dict[tuple[str, str], Path]:
    """Return pair -> its file, for the pairs that have one.

    The names are first tried as the list spells them, then without one `.jpg` (the tables of Market-1501 have names that end in
    `.jpg.jpg`), and then without any. Raises UserError if one file name fits two pairs equally well, or if one pair has two files.
    """
    cores: dict[str, Path] = {}
    for path in files:
        for ending in grammar.endings:
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
            for between in grammar.between:
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


def _once(name: str) -> str:
    return name.removesuffix(".jpg")


_SPELLINGS = (
    lambda pair: pair,
    lambda pair: (_once(pair[0]), _once(pair[1])),
    lambda pair: (pair[0], _once(pair[1])),
    lambda pair: (_once(pair[0]), pair[1]),
    lambda pair: (bare(pair[0]), bare(pair[1])),
    lambda pair: (bare(pair[0]) + ".jpg", bare(pair[1]) + ".jpg"),
)


# ---------------------------------------------------------------------------------------------------------------------
# Numbers


def number_of(path: Path, endings: tuple[str, ...] = ("",)) -> int | None:
    """Return the number that a file is named by; None for any other name."""
    stem = path.stem
    for ending in sorted(endings, key=len, reverse=True):
        if stem.endswith(ending) and re.fullmatch("[0-9]+", stem.removesuffix(ending)):
            return int(stem.removesuffix(ending))
    return None


def numbers_of(folder: Path, files: list[Path], grammar: FolderLayout) -> dict[int, Path]:
    """Return number -> file, in the order of the numbers.

    Raises UserError for names that are no numbers, and for a number that stands twice.
    """
    others = [path for path in files if number_of(path, grammar.endings) is None]
    if others:
        raise UserError(
            f"{folder}: {len(others):,} of {len(files):,} names are no numbers, first {others[0].name} (layout numbered: "
            f"{grammar.example}); check the layout"
        )
    found: dict[int, Path] = {}
    twice: list[tuple[Path, Path]] = []
    for path in files:
        number = number_of(path, grammar.endings)
        if found.setdefault(number, path) != path:
            twice.append((found[number], path))
    _refuse_duplicates(folder, twice)
    return dict(sorted(found.items()))


def places_of_numbers(
    folder: Path, numbers: dict[int, Path], count: int, layout: str, first: int | None
) -> dict[int, Path]:
    """Return the place in a list of `count` pairs, from 0, -> its file.

    first: the number of the first pair. If it is None, the numbers must tell: 0 is in a folder only if it is counted from 0, and
    `count` only if it is counted from 1.
    """
    lowest, highest = min(numbers), max(numbers)
    if first is None:
        if lowest > 0 and highest < count:
            raise UserError(
                f"{folder}: its numbers run from {lowest} to {highest}, and may count the {count:,} pairs from 0 or from 1; "
                "say which with the layout numbered-from-0 or numbered-from-1"
            )
        first = 0 if lowest == 0 else 1
    outside = [path for number, path in numbers.items() if not first <= number < first + count]
    if outside:
        raise UserError(
            f"{folder}: {len(outside):,} of {len(numbers):,} numbers are outside of {first} to {first + count - 1}, first "
            f"{outside[0].name} (layout {layout}, {count:,} pairs); check that the pair list belongs to these results"
        )
    return {number - first: path for number, path in numbers.items()}


def _refuse_duplicates(folder: Path, twice: list[tuple[Path, Path]]) -> None:
    if twice:
        one, other = twice[0]
        more = f"; {len(twice):,} files are such" if len(twice) > 1 else ""
        raise UserError(f"{folder}: {one.name} and {other.name} are one pair; keep one of them{more}")


# ---------------------------------------------------------------------------------------------------------------------
# Without a pair list


def pairs_of_files(
    folder: Path, files: list[Path], layout: str, grammar: FolderLayout
) -> tuple[pd.DataFrame, list[Path]]:
    """Return the pairs that the names of files tell, with the columns `from` and `to`, and the file of each.

    They stand in the order of the files' names. Under a numbered layout both names are the number, and the order is that of the
    numbers. A name of a data set's image gets the suffix `.jpg` if it has none, because all images of the
    three data sets end so; any other name stays as it is.

    Raises UserError for names that hold no pair or may hold two, and if two files are one pair.
    """
    if grammar.numbered:
        numbers = numbers_of(folder, files, grammar)
        names = [str(number) for number in numbers]
        return pd.DataFrame({"from": names, "to": names}, dtype=str), list(numbers.values())
    found: dict[tuple[str, str], Path] = {}
    twice, strange = [], []
    for path in files:
        pairs = _splits(path.stem, grammar)
        if len(pairs) != 1:
            strange.append((path, pairs))
        elif found.setdefault(pairs[0], path) != path:
            twice.append((found[pairs[0]], path))
    if strange:
        path, pairs = strange[0]
        if pairs:
            what = f"may be {','.join(pairs[0])} or {','.join(pairs[1])}"
        else:
            what = f"does not hold two image names (layout {layout}: {grammar.example})"
        fitting = [name for name in _HINTS if name != layout and _reads(path, LAYOUTS[name])]
        hint = f"try layout {fitting[0]}, or" if fitting else "else"
        raise UserError(
            f"{folder}: {len(strange):,} of {len(files):,} names cannot be read as pairs; the first, {path.name}, {what}; "
            f"{hint} name a pair list with --pairs"
        )
    _refuse_duplicates(folder, twice)
    return pd.DataFrame(list(found), columns=COLUMNS, dtype=str), list(found.values())


def _reads(path: Path, grammar: FolderLayout) -> bool:
    return number_of(path, grammar.endings) is not None if grammar.numbered else len(_splits(path.stem, grammar)) == 1


def _splits(stem: str, grammar: FolderLayout) -> list[tuple[str, str]]:
    """Return the pairs that a file name without its suffix may hold.

    If both parts can be names of a data set's images, no other split counts. Else a split counts at `___`, `_2_` or `_to_`, and at
    a single `_` only between two names that have a suffix of their own, because names of images contain `_` themselves.
    """
    ending = max((e for e in grammar.endings if stem.endswith(e)), key=len, default=None)
    if ending is None:
        return []
    core = stem.removesuffix(ending)
    known, others = {}, {}
    for between in grammar.between:
        for match in re.finditer(f"(?={re.escape(between)})", core):
            halves = core[: match.start()], core[match.start() + len(between) :]
            names = tuple(dataset_name(half) for half in halves)
            if None not in names:
                known[names] = None
            elif _apart(*halves) and (between != "_" or all(_WITH_SUFFIX.fullmatch(half) for half in halves)):
                others[halves] = None
    return list(known or others)


def _apart(source: str, target: str) -> bool:
    """Return whether two parts of a name are not empty, and no `_` of what stands between them was left in one of them."""
    return bool(source and target) and not source.endswith("_") and not target.startswith("_")


def dataset_name(text: str) -> str | None:
    """Return the name of a data set's image that a text is, with its suffix; None for any other text."""
    if not DATASET_NAMES.fullmatch(bare(text)):
        return None
    return text if text.endswith(".jpg") else bare(text) + ".jpg"
