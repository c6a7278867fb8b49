"""What a data set's archive or folder holds: found in any layout that is in use, and refused where it is not safe.

An archive's own paths are never followed: a member is an image of the data set if its name fits the grammar and a folder
above it is one of the split's (or, for DeepFashion, if PATN's lists name it); where it is written follows from that
alone. An archive that tries to reach elsewhere is refused all the same, since it is not the published one.

Facts about the data sets (folders, counts, file-name grammar, sources) are read from `benchmarks/<kind>.yaml`.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from potgan.common.download import web_page
from potgan.common.errors import UserError
from potgan.common.paths import FACTS
from potgan.settings.schema import PUBLISHED_KINDS, SPLITS

#: No image of these data sets is larger; a member that claims more is no image.
LARGEST_IMAGE = 64 * 2**20  # bytes
#: JPEG files do not shrink in a zip. An archive that unpacks to more than this many times its size is a bomb.
LARGEST_RATIO = 50
RATIO_FREE = 256 * 2**20  # bytes that any archive may unpack to


class NotTheDataset(UserError):
    """What lies there is no copy of the data set at all: a web page, an empty file, a folder without its images."""


class ListsMissing(UserError):
    """The lists that say which image belongs to which split are not there."""


@dataclass(frozen=True)
class SourceFile:
    """One file of an archive or folder. path: inside it, with `/`; size: bytes; read: its content, b"" if damaged."""

    path: str
    size: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Entry:
    """One image file of a source: where it belongs, and how to read its bytes."""

    split: str
    name: str
    person: str
    camera: str
    path: str
    read: Callable[[], bytes]


@dataclass
class Survey:
    """What was found in a source. entries: sorted by split and name. repeated: names that stand several times alike."""

    entries: list[Entry]
    layout: str  # in words: which of the known layouts
    repeated: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)  # fit the grammar, but no list names them (DeepFashion)

    def of(self, split: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.split == split]


def facts_of(kind: str) -> dict[str, Any]:
    """The facts about a data set, from `benchmarks/<kind>.yaml`; UserError for a kind that is not known."""
    if kind not in PUBLISHED_KINDS:
        raise UserError(f"no data set is known as {kind!r}; there are {', '.join(PUBLISHED_KINDS)}")
    return yaml.safe_load((FACTS / f"{kind}.yaml").read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------------------------------
# Archive or folder


class Source:
    """The files of a folder or a zip archive; a context manager.

    Raises UserError, before anything is read, for a file that is no whole zip archive, and for an archive with an absolute
    path, a path that climbs out (`..`), a link, or more content than an archive of its size can hold.
    """

    def __init__(self, path: Path, facts: dict[str, Any], password: bytes | None = None) -> None:
        self.path, self.facts, self.password = path, facts, password
        self.archive: zipfile.ZipFile | None = None
        if path.is_dir():
            inner = self._inner_archive()
            if inner is None:
                return
            path = self.path = inner
        try:
            self.archive = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise UserError(f"{path}: missing") from None
        except (zipfile.BadZipFile, OSError, ValueError):
            kind = NotTheDataset if web_page(path) or not path.stat().st_size else UserError
            raise kind(f"{path}: {_what_instead(path)}; fetch {facts['archive']} again") from None
        try:
            self._refuse_unsafe()
        except UserError:
            self.archive.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        if self.archive is not None:
            self.archive.close()

    def files(self) -> Iterator[SourceFile]:
        if self.archive is not None:
            for member in self.archive.infolist():
                if not member.is_dir():
                    yield SourceFile(member.filename, member.file_size, lambda m=member: self._read(m))
            return
        for path in sorted(p for p in self.path.rglob("*") if p.is_file()):
            yield SourceFile(path.relative_to(self.path).as_posix(), path.stat().st_size, path.read_bytes)

    def _inner_archive(self) -> Path | None:
        """A half-unpacked copy: a folder without an image, in which the data set's archive lies."""
        pattern = re.compile(self.facts["name_pattern"])
        found = []
        for path in sorted(self.path.rglob("*")):
            if pattern.fullmatch(_flat_name(path.as_posix(), self.facts)):
                return None
            if path.name == self.facts["archive"] and path.is_file():
                found.append(path)
        return found[0] if found else None

    def _refuse_unsafe(self) -> None:
        total = 0
        for member in self.archive.infolist():
            name = member.orig_filename.replace("\\", "/")
            why = ""
            if name.startswith("/") or re.match(r"[A-Za-z]:", name):
                why = "has an absolute path"
            elif ".." in name.split("/"):
                why = "climbs out of the archive"
            elif stat.S_ISLNK(member.external_attr >> 16):
                why = "is a link"
            if why:
                raise UserError(
                    f"{self.path}: refused, since {name[:120]!r} {why}; this is not the published archive: fetch "
                    f"{self.facts['archive']} again"
                )
            total += member.file_size
        size = self.path.stat().st_size
        if total > max(RATIO_FREE, LARGEST_RATIO * size):
            raise UserError(
                f"{self.path}: refused, since its {size:,} bytes claim to unpack to {total:,}; this is not the published "
                f"archive: fetch {self.facts['archive']} again"
            )

    def _read(self, member: zipfile.ZipInfo) -> bytes:
        if member.file_size > LARGEST_IMAGE:
            raise UserError(
                f"{self.path}: {member.filename} claims {member.file_size:,} bytes, too much for one image; fetch "
                f"{self.facts['archive']} again"
            )
        if member.flag_bits & 1 and self.password is None:
            raise UserError(f"{self.path}: is encrypted; {password_hint(self.facts)}")
        try:
            return self.archive.read(member, pwd=self.password if member.flag_bits & 1 else None)
        except RuntimeError:  # zipfile's way to say "Bad password"
            raise UserError(f"{self.path}: the password does not open it; {password_hint(self.facts)}") from None
        except NotImplementedError:
            raise UserError(
                f"{self.path}: {member.filename} is packed or encrypted in a way that Python's zipfile does not know; "
                "unpack the archive with 7-Zip and name the folder as the source"
            ) from None
        except (zipfile.BadZipFile, EOFError, OSError, zlib.error):
            return b""  # counted as unreadable, like an image that does not decode


def _what_instead(path: Path) -> str:
    """What a file is that is no whole zip archive."""
    page = web_page(path)
    if page:
        return f"is {page} that was saved in place of the archive"
    with open(path, "rb") as file:
        start = file.read(8)
    if not start:
        return "is empty"
    if start.startswith(b"PK\x03\x04"):
        return "is cut off (its table of contents is missing)"
    known = {b"Rar!": "a RAR archive", b"7z\xbc\xaf": "a 7-Zip archive", b"\x1f\x8b": "a gzip file"}
    kind = next((name for magic, name in known.items() if start.startswith(magic)), None)
    return f"is {kind}; unpack it and name the folder" if kind else "is not a zip archive, or is cut off"


def password_of(facts: dict[str, Any], data: Path) -> bytes | None:
    """The password of an encrypted data set: from the environment, or from a file; never from a configuration.

    Looked for in this order: the variable of `facts["password_variable"]`, the file that <variable>_FILE names,
    `<data>/<archive>.password`. None where the data set has none or nothing was found.
    """
    variable = facts.get("password_variable")
    if variable is None:
        return None
    if os.environ.get(variable):
        return os.environ[variable].encode()
    named = os.environ.get(f"{variable}_FILE")
    path = Path(named) if named else data / f"{facts['archive']}.password"
    try:
        return path.read_text(encoding="utf-8").strip().encode() or None
    except FileNotFoundError:
        if named:
            raise UserError(f"{variable}_FILE: names {named}, which is not there") from None
        return None


def password_hint(facts: dict[str, Any]) -> str:
    variable = facts.get("password_variable")
    if variable is None:
        return "unpack it with its password and name the folder as the source"
    return (
        f"put its password into the environment variable {variable} or into a file that {variable}_FILE names "
        f"({facts['access']})"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Survey


def survey(source: Source, facts: dict[str, Any], lists: dict[str, Path] | None = None) -> Survey:
    """The images of a data set among the files of a source, in whatever known layout they lie.

    The split of an image is that of the nearest folder above it which is a split's (so images may lie one level deeper,
    and the archive's top folder may be missing); DeepFashion's comes from PATN's `lists` (split -> file).
    Raises UserError if there is none, or if a name stands twice with different content.
    """
    pattern = re.compile(facts["name_pattern"])
    folder_split = {f: split for split, names in (facts["folders"] or {}).items() for f in names}
    listed = read_lists(lists or {}, facts) if facts["folders"] is None else {}
    entries: dict[str, Entry] = {}
    sizes: dict[str, int] = {}
    found = Survey([], "")
    styles: dict[str, int] = {}
    files = sorted(source.files(), key=lambda file: (file.path.count("/"), file.path))
    for file in files:
        # The folder's own name counts: a source may be the folder of one split.
        parts = [*([source.path.name] if source.archive is None else []), *file.path.split("/")]
        name = _flat_name(file.path, facts)
        match = pattern.fullmatch(name)
        if match is None:
            continue
        if facts["folders"] is None:
            flat = name
            name, split = listed.get(_key(flat), (flat, None))
            if split is None:
                found.unlisted.append(flat)
                continue
            style = "the published tree"
            if parts[-1] == flat:
                style = "flat names (PATN, GFLA)" if flat == name else "flat names (Deformable GAN)"
        else:
            above = next((p for p in reversed(parts[:-1]) if p in folder_split), None)
            if above is None:
                continue
            split = folder_split[above]
            style = "the published folders" if above == facts["folders"][split][0] else "renamed folders (PATN)"
            if parts[-2] != above:
                style += ", images one level deeper"
        styles[style] = styles.get(style, 0) + 1
        if name in entries:
            if entries[name].split == split and sizes[name] == file.size and entries[name].read() == file.read():
                found.repeated.append(name)
                continue
            raise UserError(
                f"{source.path}: image {name} stands twice ({entries[name].path} and {file.path}); remove one copy"
            )
        groups = match.groupdict()
        entries[name] = Entry(split, name, groups["person"], groups.get("camera") or "", file.path, file.read)
        sizes[name] = file.size
    if not entries:
        wanted = "images that its lists name" if listed else f"a folder {' or '.join(folder_split)} with images"
        more = f"; {len(found.unlisted):,} images are there that no list names" if found.unlisted else ""
        inner = next((file.path for file in files if file.path.endswith(".zip")), None)
        if inner and not more:
            more = f"; it holds {inner}: unpack the outer archive and name its folder"
        raise NotTheDataset(f"{source.path}: holds no image of {facts['label']}; expected {wanted}{more}")
    found.entries = sorted(entries.values(), key=lambda e: (SPLITS.index(e.split), e.name))
    found.layout = " and ".join(sorted(styles, key=styles.get, reverse=True))
    return found


def count_images(source: Source, facts: dict[str, Any]) -> int:
    """How many different images of the data set lie in a source, whatever their split."""
    pattern = re.compile(facts["name_pattern"])
    names = (_flat_name(file.path, facts) for file in source.files())
    return len({_key(name) for name in names if pattern.fullmatch(name)})


def lists_of(named: dict[str, str], places: Iterable[Path]) -> dict[str, Path]:
    """The lists of the splits: those that are named, else train.lst and test.lst in the first of `places` that has them."""
    if named:
        return {split: Path(path) for split, path in named.items()}
    for place in places:
        found = {split: place / f"{split}.lst" for split in SPLITS}
        if all(path.is_file() for path in found.values()):
            return found
    return {}


def read_lists(lists: dict[str, Path], facts: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """key of a name -> (its name in the list, its split), from the lists of flat names (PATN's train.lst and test.lst)."""
    splits: dict[str, tuple[str, str]] = {}
    for split in SPLITS:
        path = lists.get(split)
        if path is None or not path.is_file():
            where = f"{path}: missing; " if path else ""
            raise ListsMissing(
                f"{where}{facts['label']} needs the list of its {split} images, PATN's {split}.lst; name it as "
                f"splits.{split} ({facts['lists_page']})"
            )
        names = path.read_text(encoding="utf-8-sig").split()
        for name in names:
            if splits.setdefault(_key(name), (name, split))[1] != split:
                raise UserError(f"{path}: {name} stands in both lists; fetch the lists again")
    return splits


def _key(name: str) -> str:
    """What PATN's and Deformable GAN's flat names of one image have in common: the category without its `_`."""
    head, mark, tail = name.rpartition("id")
    return head.replace("_", "") + mark + tail


def _flat_name(path: str, facts: dict[str, Any]) -> str:
    """The data set's name of a file; DeepFashion's tree becomes PATN's flat name."""
    tree = re.search(facts["tree_pattern"] + "$", path) if "tree_pattern" in facts else None
    if tree:
        g = tree.groupdict()
        return f"fashion{g['gender']}{g['category']}id{g['item']}{g['outfit']}_{g['view']}{g['side']}.jpg"
    return path.rsplit("/", 1)[-1]
