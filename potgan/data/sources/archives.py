"""Which images a data set's archive or folder holds, in any of the layouts in use.

A file is an image of the data set if its name fits the data set's grammar and one of the folders above it is that of a split (for
DeepFashion: if PATN's lists name it). Only the image's name and split decide where it is written; the paths in an archive do not.
An archive with a path that leads out of it is refused nevertheless, because it is not the published one.

The facts about the data sets (folders, counts, grammar of file names, sources) are read from `benchmarks/<kind>.yaml`.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import yaml

from potgan.common.download import web_page
from potgan.common.errors import UserError
from potgan.common.files import is_of_macos, plain_path
from potgan.common.paths import FACTS, at_home
from potgan.settings.schema import PUBLISHED_KINDS, SPLITS

#: Bytes of an image. No image of these data sets is larger.
LARGEST_IMAGE = 64 * 2**20
#: A zip archive hardly makes JPEG files smaller. One that unpacks to more than this many times its size is made to fill the disk.
LARGEST_RATIO = 50
#: Bytes that any archive may unpack to, whatever its size.
RATIO_FREE = 256 * 2**20
#: The bit of a zip member's flags that says that it is encrypted.
_ENCRYPTED = 1
#: The suffix of a file that may be an image.
_SUFFIX = re.compile(r"\.(jpe?g|png|bmp|webp|tiff?)$", re.IGNORECASE)


class NotTheDataset(UserError):
    """A source is no copy of the data set at all, but a web page, an empty file, or a folder without its images."""


class ListsMissing(UserError):
    """The lists that say which image belongs to which split are not there."""


class Locked(UserError):
    """An archive is encrypted and cannot be opened. why, remedy: what is wrong and what to do, the two parts of the message."""

    def __init__(self, path: Path, why: str, remedy: str) -> None:
        super().__init__(f"{path}: {why}; {remedy}")
        self.why, self.remedy = why, remedy


@dataclass(frozen=True)
class SourceFile:
    """One file of an archive or folder.

    path: its path inside of it, as `plain_path` gives it. size: bytes. read: returns its content, or b"" if the archive is
    damaged there.
    """

    path: str
    size: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Entry:
    """One image of a data set in a source.

    split: "train" or "test". name: its name in the data set. person, camera: as they stand in the name; camera is "" where the
    names have none. path: its path inside the source. read: as of `SourceFile`.
    """

    split: str
    name: str
    person: str
    camera: str
    path: str
    read: Callable[[], bytes]


@dataclass
class Survey:
    """What was found in a source.

    entries: the images, sorted by split and name. layout: which of the known layouts they lie in, in words. repeated: names of
    images that lie in the source several times with the same bytes. unlisted: names that fit the grammar and that no list
    contains (DeepFashion).
    """

    entries: list[Entry]
    layout: str
    repeated: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)

    def of(self, split: str) -> list[Entry]:
        """The images of one split."""
        return [entry for entry in self.entries if entry.split == split]


class Facts(TypedDict):
    """The facts about a data set that `benchmarks/<kind>.yaml` holds. The comments there explain them."""

    label: str
    archive: str
    page: str
    licence: str
    access: str
    password_variable: NotRequired[str]
    checksum: str | None
    size: int | None
    sources: list[str]
    candidates: list[str]
    image_size: list[int] | None
    folders: dict[str, list[str]] | None
    lists_page: NotRequired[str]
    counts: dict[str, int]
    identities: dict[str, int]
    names_sha256: dict[str, str]
    name_pattern: str
    tree_pattern: NotRequired[str]
    example: str
    tables_page: str
    published: NotRequired[dict[str, Any]]


@functools.cache
def facts_of(kind: str) -> Facts:
    """The facts about a data set. Raises UserError for a kind that is not known."""
    if kind not in PUBLISHED_KINDS:
        raise UserError(f"no data set is known as {kind!r}; there are {', '.join(PUBLISHED_KINDS)}")
    return yaml.safe_load((FACTS / f"{kind}.yaml").read_text(encoding="utf-8"))


# ---------------------------------------------------------------------------------------------------------------------
# Names


def kind_of(path: str) -> str | None:
    """The kind of data set whose grammar an image's name or path fits, whatever its suffix; None where it fits none."""
    path = _SUFFIX.sub(".jpg", path)
    return next(
        (kind for kind, (facts, grammar) in _grammars().items() if grammar.fullmatch(flat_name(path, facts))), None
    )


def kind_of_names(names: Sequence[str], where: str, kind: str | None = None) -> str:
    """The one kind of data set whose grammar all names fit: the kind that is named, or else that of the first name.

    where: what holds the names, for the message. Raises UserError where there are none, and for a name of another kind or of none,
    because the person would be read from the wrong part of it.
    """
    if not names:
        raise UserError(f"{where}: names no image; check that it is whole")
    wanted = kind or kind_of(names[0])
    for name in names:
        found = kind_of(name)
        if found is None or found != wanted:
            what = f"the name of an image of {found}" if found else "no image's name of a known data set"
            expected = " or ".join(f"{example_of(one)} ({one})" for one in ([wanted] if wanted else PUBLISHED_KINDS))
            raise UserError(f"{where}: {name[:80]!r} is {what}; expected names as {expected}")
    return wanted


def example_of(kind: str) -> str:
    """The name of an image of a data set."""
    facts = facts_of(kind)
    return flat_name(facts["example"], facts)


@functools.cache
def _grammars() -> dict[str, tuple[Facts, re.Pattern[str]]]:
    """Kind -> its facts, and the grammar of its images' names."""
    sheets = {kind: facts_of(kind) for kind in PUBLISHED_KINDS}
    return {kind: (facts, re.compile(facts["name_pattern"])) for kind, facts in sheets.items()}


# ---------------------------------------------------------------------------------------------------------------------
# Archive or folder


class Source:
    """The files of a folder or a zip archive. It is a context manager, which closes the archive.

    Raises UserError before any content is read: for a file that is no whole zip archive, and for an archive with an absolute path,
    a path that leads out of it (`..`), a link, or more content than images can have in an archive of its size. Raises Locked where
    the password is wrong.
    """

    def __init__(self, path: Path, facts: Facts, password: bytes | None = None) -> None:
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
            self._try_password()
        except UserError:
            self.archive.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        if self.archive is not None:
            self.archive.close()

    def files(self) -> Iterator[SourceFile]:
        """All files, without those that macOS adds to folders and archives (`._*`, `.DS_Store`).

        Reading one raises Locked where a password is missing or no help, and UserError where it is too large.
        """
        return (file for file in self._every_file() if not is_of_macos(file.path))

    def _every_file(self) -> Iterator[SourceFile]:
        if self.archive is not None:
            for member in self.archive.infolist():
                path = plain_path(member.filename)
                if not path.endswith("/"):
                    yield SourceFile(path, member.file_size, lambda m=member: self._read(m))
            return
        for path in sorted(p for p in self.path.rglob("*") if p.is_file()):
            yield SourceFile(plain_path(path.relative_to(self.path).as_posix()), path.stat().st_size, path.read_bytes)

    def _inner_archive(self) -> Path | None:
        """The data set's archive in a folder that holds no image yet, because only an outer archive was unpacked; or None."""
        pattern = re.compile(self.facts["name_pattern"])
        found = []
        for path in sorted(self.path.rglob("*")):
            if pattern.fullmatch(flat_name(plain_path(path.as_posix()), self.facts)):
                return None
            if path.name == self.facts["archive"] and path.is_file():
                found.append(path)
        return found[0] if found else None

    def _refuse_unsafe(self) -> None:
        """Raise UserError for an archive whose table of contents is not one of a data set."""
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
                f"{self.path}: refused, since its {size:,} bytes claim to unpack to {total:,} bytes; this is not the "
                f"published archive: fetch {self.facts['archive']} again"
            )

    def _try_password(self) -> None:
        """Raise Locked where the password is wrong. One member in 256 opens with a wrong one, so several are tried."""
        encrypted = (m for m in self.archive.infolist() if m.flag_bits & _ENCRYPTED and not _is_strongly_encrypted(m))
        for member in itertools.islice(encrypted, 4) if self.password else ():
            try:
                self.archive.open(member, pwd=self.password).close()
            except RuntimeError:  # zipfile raises this for a wrong password
                raise Locked(self.path, "the password does not open it", password_hint(self.facts)) from None
            except (NotImplementedError, zipfile.BadZipFile, EOFError, OSError):
                continue  # The reading of this member says what is wrong.

    def _read(self, member: zipfile.ZipInfo) -> bytes:
        if member.file_size > LARGEST_IMAGE:
            raise UserError(
                f"{self.path}: {member.filename} claims {member.file_size:,} bytes, too much for one image; fetch "
                f"{self.facts['archive']} again"
            )
        if _is_strongly_encrypted(member):
            raise Locked(
                self.path,
                "is encrypted with AES, which Python's zipfile does not know",
                "unpack the archive with 7-Zip and its password, and name the folder as the source",
            )
        encrypted = bool(member.flag_bits & _ENCRYPTED)
        if encrypted and self.password is None:
            raise Locked(self.path, "is encrypted", password_hint(self.facts))
        try:
            return self.archive.read(member, pwd=self.password if encrypted else None)
        except RuntimeError:
            raise Locked(self.path, "the password does not open it", password_hint(self.facts)) from None
        except NotImplementedError:
            raise UserError(
                f"{self.path}: {member.filename} is packed in a way that Python's zipfile does not know; "
                "unpack the archive with 7-Zip and name the folder as the source"
            ) from None
        except (zipfile.BadZipFile, EOFError, OSError, zlib.error):
            return b""  # counted as unreadable, like an image that does not decode


def _is_strongly_encrypted(member: zipfile.ZipInfo) -> bool:
    """Whether a member is encrypted with AES (WinZip's method 99) or by PKWARE's strong encryption (bit 6 of its flags)."""
    return bool(member.flag_bits & _ENCRYPTED) and (member.compress_type == 99 or bool(member.flag_bits & 0x40))


def _what_instead(path: Path) -> str:
    """What a file is that is not a whole zip archive, in words that follow its path."""
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


def password_of(facts: Facts, data: Path) -> bytes | None:
    """The password of an encrypted data set, from the environment or from a file, and never from a configuration.

    It is looked for in this order: in the variable of `facts["password_variable"]`, in the file that <variable>_FILE names, and
    in `<data>/<archive>.password`. None where the data set has no password, or where none was found.
    Raises UserError where <variable>_FILE names a file that does not exist.
    """
    variable = facts.get("password_variable")
    if variable is None:
        return None
    if os.environ.get(variable):
        return os.environ[variable].encode()
    named = os.environ.get(f"{variable}_FILE")
    path = Path(at_home(named)) if named else data / f"{facts['archive']}.password"
    try:
        return path.read_text(encoding="utf-8").strip().encode() or None
    except FileNotFoundError:
        if named:
            raise UserError(f"{variable}_FILE: names {named}, which is not there") from None
        return None


def password_hint(facts: Facts) -> str:
    """What to do about a missing or wrong password, for a message."""
    variable = facts.get("password_variable")
    if variable is None:
        return "unpack it with its password and name the folder as the source"
    return (
        f"put its password into the environment variable {variable} or into a file that {variable}_FILE names "
        f"({facts['access']})"
    )


# ---------------------------------------------------------------------------------------------------------------------
# Survey


def survey(source: Source, facts: Facts, lists: dict[str, Path] | None = None) -> Survey:
    """The images of a data set among the files of a source, in any of the known layouts.

    The nearest folder above an image that is a split's folder tells the image's split. So images may lie one level deeper, and
    the archive's top folder may be missing. For DeepFashion, PATN's `lists` (split -> file) tell the split.

    Raises NotTheDataset if there is no image, ListsMissing as `read_lists` does, and UserError if the source holds an image
    twice with different content.
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
        # The name of the source's own folder counts too, because a source may be the folder of one split.
        parts = [*([source.path.name] if source.archive is None else []), *file.path.split("/")]
        name = flat_name(file.path, facts)
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
        wanted = f"a folder {' or '.join(folder_split)} with images" if folder_split else "images that its lists name"
        example = next((name for name, _ in listed.values()), facts["example"])
        raise NotTheDataset(
            f"{source.path}: holds no image of {facts['label']}; expected {wanted}, as {example}; it holds {_what_is_there(files)}"
        )
    found.entries = sorted(entries.values(), key=lambda e: (SPLITS.index(e.split), e.name))
    found.layout = " and ".join(sorted(styles, key=styles.get, reverse=True))
    return found


def _what_is_there(files: Sequence[SourceFile]) -> str:
    """What a source holds in place of the images that were expected, in words, with one example."""
    pictures = [file.path for file in files if _SUFFIX.search(file.path)]
    if pictures:
        kind = kind_of(pictures[0])
        whose = f" (named as in {facts_of(kind)['label']})" if kind else ""
        return f"{len(pictures):,} image files, as {pictures[0]}{whose}"
    inner = next((file.path for file in files if file.path.endswith(".zip")), None)
    return f"{inner}: unpack the outer archive and name its folder" if inner else f"{len(files):,} files, and no image"


def count_images(source: Source, facts: Facts) -> int:
    """How many different images of the data set a source holds, of whatever split."""
    pattern = re.compile(facts["name_pattern"])
    names = (flat_name(file.path, facts) for file in source.files())
    return len({_key(name) for name in names if pattern.fullmatch(name)})


def lists_of(named: dict[str, str], places: Iterable[Path]) -> dict[str, Path]:
    """The lists of the splits (split -> file).

    These are the `named` ones, or else train.lst and test.lst in the first of the `places` that holds both. Empty where there are
    none.
    """
    if named:
        return {split: Path(path) for split, path in named.items()}
    for place in places:
        found = {split: place / f"{split}.lst" for split in SPLITS}
        if all(path.is_file() for path in found.values()):
            return found
    return {}


def read_lists(lists: dict[str, Path], facts: Facts) -> dict[str, tuple[str, str]]:
    """`_key` of a name -> (the flat name, its split), from PATN's train.lst and test.lst. Paths count as the names of their images.

    Raises ListsMissing where a list is missing, and UserError where both lists contain an image.
    """
    splits: dict[str, tuple[str, str]] = {}
    for split in SPLITS:
        path = lists.get(split)
        if path is None or not path.is_file():
            where = f"{path}: missing; " if path else ""
            raise ListsMissing(
                f"{where}{facts['label']} needs the list of its {split} images, PATN's {split}.lst; name it as "
                f"splits.{split} (--splits; {facts['lists_page']})"
            )
        names = path.read_text(encoding="utf-8-sig").split()
        for name in (flat_name(plain_path(name), facts) for name in names):
            if splits.setdefault(_key(name), (name, split))[1] != split:
                raise UserError(f"{path}: {name} stands in both lists; fetch the lists again")
    return splits


def _key(name: str) -> str:
    """A flat name with no `_` in the category, equal for PATN's and Deformable GAN's names of one image."""
    head, mark, tail = name.rpartition("id")
    return head.replace("_", "") + mark + tail


def flat_name(path: str, facts: Facts) -> str:
    """The data set's name of the file at `path`. A path in DeepFashion's tree becomes PATN's flat name."""
    tree = re.search(facts["tree_pattern"] + "$", path) if "tree_pattern" in facts else None
    if tree:
        g = tree.groupdict()
        return f"fashion{g['gender']}{g['category']}id{g['item']}{g['outfit']}_{g['view']}{g['side']}.jpg"
    return path.rsplit("/", 1)[-1]
