"""`potgan verify`: is this copy of a data set the published one, and if not, what exactly differs and what to do next.

Nothing is written. Known facts are compared in this order: the archive's checksum, the layout, counts of each split, the
set of file names (its SHA-256 where it is published), people, image sizes, and, against a table `images.csv` or a list of
names that the user gives, every single file.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from potgan.common.download import check_checksum_text, digest_of
from potgan.common.errors import UserError
from potgan.common.progress import progress
from potgan.data.acquisition import locate, why_absent
from potgan.data.archives import (
    Entry,
    ListsMissing,
    NotTheDataset,
    Source,
    Survey,
    count_images,
    facts_of,
    lists_of,
    password_of,
    survey,
)
from potgan.data.keypoint_files import match_names
from potgan.data.pixels import decode_image
from potgan.settings.schema import Dataset

STATES = ("ok", "partial", "wrong version", "absent")
#: Names that a line of the answer shows; `Verification.listings` has them all.
SHOWN = 3


@dataclass
class Verification:
    """The answer. state: one of STATES; facts: what agrees; differences: what does not; next_step: one sentence.

    listings: what differs -> every name, for `--out`.
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
        lines = [f"{self.dataset}: {self.state}" + (f" ({self.source})" if self.source else "")]
        lines += [f"  = {fact}" for fact in self.facts]
        lines += [f"  ! {difference}" for difference in self.differences]
        return "\n".join([*lines, f"  next: {self.next_step}"])


def verify(dataset: Dataset, name: str, data: Path, names: Iterable[Path] = (), quick: bool = False) -> Verification:
    """Compare the copy of a data set on this machine with what is known of the published one.

    names: tables to compare single files with: `images.csv` of an earlier run (names and SHA-256), annotation tables or
    lists of names. quick: do not decode the images. Raises UserError only for what is no question of the data set, such
    as a table that cannot be read.
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
    lists = lists_of(dataset.splits, (data, copy.path, copy.path.parent))
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
    except UserError as error:
        _worse(answer, "absent" if isinstance(error, NotTheDataset) else "wrong version")
        answer.differences.append(str(error))
    answer.next_step = answer.next_step or _next_step(answer, facts, copy.path)
    return answer


def _worse(answer: Verification, state: str) -> None:
    answer.state = max(answer.state, state, key=STATES.index)


def _compare_archive(answer: Verification, path: Path, checksum: str | None) -> None:
    if checksum is None:
        answer.facts.append(f"sha256 {digest_of(path, 'sha256')} (none is published to compare it with)")
        return
    algorithm, expected = check_checksum_text(checksum, "checksum")
    found = digest_of(path, algorithm)
    if found == expected:
        answer.facts.append(f"{algorithm} of the archive is the published one")
    else:
        answer.facts.append(f"packed anew: {algorithm} {found}, published {expected}; its images decide")


def _compare_counts(answer: Verification, found: Survey, facts: dict[str, Any]) -> None:
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
    """A name with a doubled suffix written once: mirrors spell the same file both ways."""
    return name.removesuffix(".jpg") if name.endswith(".jpg.jpg") else name


def names_digest(names: Iterable[str]) -> str:
    """SHA-256 of sorted names, one a line, as `names_sha256` of the fact sheets."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(map(_once, names))).encode()).hexdigest()


def _compare_names(answer: Verification, found: Survey, facts: dict[str, Any], tables: Iterable[Path]) -> None:
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


def _compare_contents(
    answer: Verification, found: Survey, facts: dict[str, Any], hashes: dict[str, str], quick: bool
) -> None:
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


def _next_step(answer: Verification, facts: dict[str, Any], path: Path) -> str:
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
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


def _hashes(tables: Iterable[Path]) -> dict[str, str]:
    """name -> SHA-256, from those of the tables that are an `images.csv`."""
    hashes: dict[str, str] = {}
    for path in tables:
        if _is_image_table(path):
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
            hashes |= dict(zip(frame["name"], frame["sha256"], strict=True))
    return hashes


def _is_image_table(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return {"name", "sha256"} <= set(file.readline(10_000).strip().split(","))
    except FileNotFoundError:
        raise UserError(f"{path}: no such table") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file; expected a table or list of image names") from None


def _names_in(path: Path) -> list[str]:
    """Names of an `images.csv`, of a key-point table (`:` or `,` after the name), or of a list with one a line."""
    if _is_image_table(path):
        return pd.read_csv(path, dtype=str, keep_default_na=False)["name"].tolist()
    with open(path, encoding="utf-8-sig") as file:
        names = [line.split(":", 1)[0].split(",", 1)[0].strip() for line in file if line.strip()]
    return names[1:] if names and names[0] == "name" else names
