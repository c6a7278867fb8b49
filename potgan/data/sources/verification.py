"""`potgan verify`: whether a copy of a data set is the published one, and if not, what differs and what to do next.

Nothing is written. The copy is compared with what is known of the published data set, in this order: the archive's checksum, the
layout, the numbers of images and people of each split, the set of file names (by its SHA-256, where that is known) and the images'
sizes. A table `images.csv` or a list of names that the user gives is compared file by file.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from potgan.common.download import check_checksum_text, digest_of
from potgan.common.errors import UserError
from potgan.common.progress import progress
from potgan.data.keypoint_files import match_names
from potgan.data.pixels import decode_image
from potgan.data.sources.acquisition import locate, why_absent
from potgan.data.sources.archives import (
    Entry,
    Facts,
    ListsMissing,
    Locked,
    NotTheDataset,
    Source,
    Survey,
    count_images,
    facts_of,
    lists_of,
    password_of,
    survey,
)
from potgan.data.sources.published import kept_in
from potgan.settings.schema import Dataset

STATES = ("ok", "partial", "wrong version", "encrypted", "absent")
#: How many names a line of the answer shows. `Verification.listings` holds all of them.
SHOWN = 3


@dataclass
class Verification:
    """The answer.

    dataset: its name. state: one of STATES. source: where the copy lies. layout: in words. facts: what agrees with the published
    data set. differences: what does not. next_step: what to do, one sentence. listings: what differs -> all names, for `--out`.
    """

    dataset: str
    state: str
    source: str | None
    layout: str | None = None
    facts: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    next_step: str = ""
    listings: dict[str, list[str]] = field(default_factory=dict)

    def text(self) -> str:
        """The answer in lines, for a terminal."""
        lines = [f"{self.dataset}: {self.state}" + (f" ({self.source})" if self.source else "")]
        lines += [f"  = {fact}" for fact in self.facts]
        lines += [f"  ! {difference}" for difference in self.differences]
        return "\n".join([*lines, f"  next: {self.next_step}"])


def verify(dataset: Dataset, name: str, data: Path, names: Iterable[Path] = (), quick: bool = False) -> Verification:
    """Compare the copy of a data set on this machine with what is known of the published one.

    names: tables that single files are compared with. These are `images.csv` of an earlier run (names and SHA-256), annotation
    tables or lists of names. quick: whether images are not decoded.

    What is wrong with the copy stands in the answer. Raises UserError for other mistakes, such as a table that cannot be read.
    """
    facts = facts_of(dataset.kind)
    try:
        copy = locate(dataset, name, data)
    except UserError as error:
        return Verification(name, "absent", dataset.source, next_step=str(error))
    if copy is None:
        step = why_absent(dataset, name, data) or f"run `potgan images {dataset.kind} --out FOLDER`: it is fetched"
        return Verification(name, "absent", None, next_step=step)
    answer = Verification(name, "ok", str(copy.path))
    lists = lists_of(dataset.splits, (data, kept_in(data, dataset.kind), copy.path, copy.path.parent))
    try:
        with Source(copy.path, facts, password_of(facts, data)) as source:
            if source.archive is not None:
                _compare_archive(answer, source.path, dataset.checksum or facts["checksum"])
            try:
                found = survey(source, facts, lists)
            except ListsMissing as error:
                _worse(answer, "partial")
                total = f"{count_images(source, facts):,} of {sum(facts['counts'].values()):,} images"
                answer.differences.append(f"the lists of its splits are not here ({total}, of all splits, are)")
                answer.next_step = str(error).replace(
                    "name it as", "put both lists into the data folder, or name it as"
                )
                return answer
            answer.layout = found.layout
            answer.facts.append(f"layout: {found.layout}")
            _compare_counts(answer, found, facts)
            _compare_names(answer, found, facts, names)
            _compare_contents(answer, found, facts, _hashes(names), quick)
    except Locked as error:
        _worse(answer, "encrypted")
        answer.differences.append(error.why)
        answer.next_step = error.remedy
    except UserError as error:
        _worse(answer, "absent" if isinstance(error, NotTheDataset) else "wrong version")
        answer.differences.append(str(error))
    answer.next_step = answer.next_step or _next_step(answer, facts, copy.path)
    return answer


def _worse(answer: Verification, state: str) -> None:
    """Change the state to this one, unless it is worse already. STATES begins with the best."""
    answer.state = max(answer.state, state, key=STATES.index)


def _compare_archive(answer: Verification, path: Path, checksum: str | None) -> None:
    """Compare the archive with the published checksum. Another checksum alone is no difference: the images may be the same."""
    if checksum is None:
        answer.facts.append(f"sha256 {digest_of(path, 'sha256')} (none is published to compare it with)")
        return
    algorithm, expected = check_checksum_text(checksum, "checksum")
    found = digest_of(path, algorithm)
    if found == expected:
        answer.facts.append(f"{algorithm} of the archive is the published one")
    else:
        answer.facts.append(
            f"the archive was packed again ({algorithm} {found}; the published one has {expected}), so its images decide"
        )


def _compare_counts(answer: Verification, found: Survey, facts: Facts) -> None:
    """Compare the numbers of images and people of each split."""
    for split, expected in facts["counts"].items():
        entries = found.of(split)
        people = {entry.person for entry in entries} - {"-1", "0000"}
        line = f"{split}: {len(entries):,} of {expected:,} images, {len(people):,} of {facts['identities'][split]:,} people"
        if len(entries) == expected:
            answer.facts.append(line)
            continue
        answer.differences.append(line)
        _worse(answer, "partial" if len(entries) < expected else "wrong version")
    if found.unlisted:
        answer.differences.append(f"{len(found.unlisted):,} images that no list names (first: {found.unlisted[0]})")
        answer.listings["in no list"] = found.unlisted
        _worse(answer, "wrong version")
    if found.repeated:
        answer.facts.append(f"{len(found.repeated):,} images stand twice with the same content, and are taken once")


def _once(name: str) -> str:
    """The name with one suffix where it has two, because copies of the data set write the same file's name both ways."""
    return name.removesuffix(".jpg") if name.endswith(".jpg.jpg") else name


def names_digest(names: Iterable[str]) -> str:
    """The SHA-256 of sorted names, one per line: `names_sha256` in `benchmarks/<kind>.yaml`."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(map(_once, names))).encode()).hexdigest()


def _compare_names(answer: Verification, found: Survey, facts: Facts, tables: Iterable[Path]) -> None:
    """Compare the names with the SHA-256 of the published ones, and with the tables that the user gives."""
    for split, expected in (facts["names_sha256"] or {}).items():
        entries = found.of(split)
        if len(entries) != facts["counts"][split]:
            continue
        if names_digest(entry.name for entry in entries) == expected:
            answer.facts.append(f"{split}: the names are the published ones")
        else:
            answer.differences.append(
                f"{split}: as many images as published, but other names; --names TABLE tells which (an annotation table)"
            )
            _worse(answer, "wrong version")
    wanted = [name for table in tables for name in _names_in(table)]
    if not wanted:
        return
    here = [entry.name for entry in found.entries]
    matched = match_names(wanted, here)
    missing = [name for name in wanted if name not in matched]
    surplus = sorted(set(here) - set(matched.values()))
    for what, listing, state in (("missing", missing, "partial"), ("not in the tables", surplus, "wrong version")):
        if listing:
            answer.listings[what] = listing
            answer.differences.append(f"{len(listing):,} names {what}: {_some(listing)}")
            _worse(answer, state)
    if not missing and not surplus:
        answer.facts.append(f"all {len(wanted):,} names of the tables are there, and no other")


def _compare_contents(answer: Verification, found: Survey, facts: Facts, hashes: dict[str, str], quick: bool) -> None:
    """Compare the bytes of images with `hashes` (name -> SHA-256) and, unless `quick`, decode all and compare their sizes."""
    if quick and not hashes:
        return
    unreadable, other, sizes = [], [], Counter()
    entries: list[Entry] = found.entries
    for entry in progress(entries, len(entries), "checking images", "images"):
        content = entry.read()
        if entry.name in hashes and hashlib.sha256(content).hexdigest() != hashes[entry.name]:
            other.append(entry.name)
        image = None if quick else decode_image(content)
        if image is None and not quick:
            unreadable.append(entry.name)
        elif image is not None:
            sizes[image.shape[:2]] += 1
    if unreadable:
        answer.listings["cannot be decoded"] = unreadable
        answer.differences.append(f"{len(unreadable):,} images cannot be decoded: {_some(unreadable)}")
        _worse(answer, "partial")
    if other:
        answer.listings["other content"] = other
        answer.differences.append(f"{len(other):,} images have another content than the table says: {_some(other)}")
        _worse(answer, "wrong version")
    elif hashes:
        answer.facts.append(
            f"the content of all {sum(e.name in hashes for e in entries):,} images is as the table says"
        )
    if not sizes:
        return
    if facts["image_size"] is None:
        low, high = (f"{h} x {w}" for h, w in (min(sizes), max(sizes)))
        answer.facts.append(f"sizes vary, as published: {len(sizes):,} of them, from {low} to {high}")
        return
    published = tuple(facts["image_size"])
    strange = {size: n for size, n in sizes.items() if size != published}
    if strange:
        (height, width), count = max(strange.items(), key=lambda item: item[1])
        answer.differences.append(
            f"{sum(strange.values()):,} images are not {published[0]} x {published[1]}; most of them {height} x {width} ({count:,})"
        )
        _worse(answer, "wrong version")
    else:
        answer.facts.append(f"all images are {published[0]} x {published[1]}")


def _next_step(answer: Verification, facts: Facts, path: Path) -> str:
    """What to do about the answer's state."""
    if answer.state == "ok":
        return "nothing; name it as the data set's source, or leave it in the data folder"
    if answer.state == "partial":
        return (
            f"fetch {facts['archive']} again ({facts['page']}), or set allow_partial: true if a part is what you want; its "
            "numbers then never stand in the paper's columns"
        )
    if answer.state == "absent":
        return f"name the archive {facts['archive']} or its unpacked folder as the source ({facts['access']})"
    return f"move {path} away and fetch the published {facts['archive']} ({facts['page']})"


def _some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def _hashes(tables: Iterable[Path]) -> dict[str, str]:
    """Name -> SHA-256 of its file, from the tables that are an `images.csv`."""
    hashes: dict[str, str] = {}
    for path in tables:
        if _is_image_table(path):
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            hashes |= dict(zip(frame["name"], frame["sha256"], strict=True))
    return hashes


def _is_image_table(path: Path) -> bool:
    """Whether a table is an `images.csv`. Raises UserError where it is missing or no text."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return {"name", "sha256"} <= set(file.readline(10_000).strip().split(","))
    except FileNotFoundError:
        raise UserError(f"{path}: no such table") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file; expected a table or list of image names") from None


def _names_in(path: Path) -> list[str]:
    """The names in an `images.csv`, in a key-point table (with `:` or `,` after the name), or in a list with one name per line."""
    if _is_image_table(path):
        return pd.read_csv(path, dtype=str, keep_default_na=False)["name"].tolist()
    with open(path, encoding="utf-8-sig") as file:
        names = [line.split(":", 1)[0].split(",", 1)[0].strip() for line in file if line.strip()]
    return names[1:] if names and names[0] == "name" else names
