"""Which ordered pairs of images are used, from a table of key points (docs/decisions.md, D4, D5, D6).

A rule is an entry of `PAIR_RULES`: which pairs it forms, in which order, and how it draws some of them for a test.

    patn   Deformable GAN's create_pairs_dataset.py, which PATN, GFLA and their successors share: all ordered pairs of two
           images of one person in which both shoulders and both hips were found; names that begin with -1 (junk) or 0000
           (distractors) are dropped. Persons come in the order of their first image in the table and images in the
           table's order: the published test list is a sample of that very sequence.
    pg2    PG2's (and DPIG's) convert_market.py and convert_DF.py: all ordered pairs of two images of one person in which
           any person was found, in the order of sorted names.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from potgan.common.errors import UserError
from potgan.data.keypoint_files import match_names
from potgan.data.pose import TORSO, Keypoints
from potgan.settings.schema import PairSettings

COLUMNS = ["from", "to"]
#: How the names of images begin that show nobody's person (Market-1501: junk, distractors).
NOBODY = ("-1", "0000")
#: PG2 forms a pair of two persons with every image whose place in its list is a multiple of this.
_PG2_NEGATIVES_EVERY = 2000
_CAMERA = re.compile(r"[^_]+_c(\d+)")
_ITEM = re.compile(r"id(\d{8})\d{2}_")


def person_of(name: str, kind: str = "market1501") -> str:
    """The person (re-ID) or outfit (DeepFashion) of an image, from its name.

    Market-1501 and DukeMTMC-reID: the text before the first `_`. DeepFashion: before the *last* `_`, since the category
    keeps its own (`fashionWOMENTees_Tanksid0000783805_7additional.jpg`; docs/decisions.md, D7).
    """
    return name.rsplit("_", 1)[0] if kind == "deepfashion" else name.split("_", 1)[0]


def camera_of(name: str) -> str | None:
    """The camera of a re-ID image (`0002_c1s1_000451_03.jpg`, `0001_c2_f0046182.jpg`); None where the name has none."""
    match = _CAMERA.match(name)
    return match[1] if match else None


def item_of(name: str) -> str | None:
    """The item (its 8 digits) of a DeepFashion image; None for other names. An item has one outfit per colour."""
    match = _ITEM.search(name)
    return match[1] if match else None


# ---------------------------------------------------------------------------------------------------------------------
# Rules


@dataclass(frozen=True)
class PairRule:
    """A named way to choose pairs.

    pairs: (key points of a split, kind of data set) -> all its ordered pairs, a frame with the columns `from` and `to`.
    sample: (such a frame, count or None, seed) -> the pairs of a test; None leaves the frame as it is.
    """

    id: str
    description: str
    pairs: Callable[[Keypoints, str], pd.DataFrame]
    sample: Callable[[pd.DataFrame, int | None, int], pd.DataFrame]


def patn_pairs(keypoints: Keypoints, kind: str = "market1501") -> pd.DataFrame:
    """All ordered pairs under the rule `patn`: a frame with the columns `from` and `to`."""
    usable = keypoints.present[:, list(TORSO)].all(axis=1)
    people: dict[str, list[str]] = {}
    for name, ok in zip(keypoints.names, usable, strict=True):
        if ok and not name.startswith(NOBODY):
            people.setdefault(person_of(name, kind), []).append(name)
    pairs = [pair for names in people.values() for pair in itertools.permutations(names, 2)]
    return pd.DataFrame(pairs, columns=COLUMNS, dtype=str)


def sample(pairs: pd.DataFrame, count: int | None, seed: int) -> pd.DataFrame:
    """`count` pairs drawn without replacement, as the peers draw them: by pandas' own sampling (docs/decisions.md, D5)."""
    if count is None or count >= len(pairs):
        # The peers draw min(count, all) pairs, so a small set is still shuffled.
        count = len(pairs) if count is not None else None
    if count is None:
        return pairs
    return pairs.sample(n=count, replace=False, random_state=seed).reset_index(drop=True)


def pg2_pairs(keypoints: Keypoints, kind: str = "market1501") -> pd.DataFrame:
    """All ordered pairs under the rule `pg2`: a frame with the columns `from` and `to`.

    Names are sorted, junk and distractors dropped; each image i forms (i, j) and (j, i) with every later image j of the
    same person, whatever the cameras; a pair stays if a person was found in both. Source: PG2 convert_market.py and
    convert_DF.py (mode same_diff_cam). The row labels are the places of the pairs among all that are formed, and `attrs`
    holds how many those are, since PG2 draws first and looks for poses afterwards (`pg2_sample`).
    Differs: no flipped copies of the training images with poses of their own, which double PG2's training list (439,420).
    Junk and distractors are dropped by name, in PG2 as the first 6,617 of the sorted test names: the same on the whole
    archive. "Found" is any joint in this table, in PG2 an entry in pickles of its own detections, which hold fewer images
    (half of 439,420 pairs; the published table gives 280,382). Images without a row take no part; in PG2 they move the
    draw.
    """
    found = dict(zip(keypoints.names, keypoints.present.any(axis=1), strict=True))
    names = sorted(name for name in keypoints.names if not name.startswith(NOBODY))
    people: dict[str, list[str]] = {}
    for name in names:
        people.setdefault(person_of(name, kind), []).append(name)
    formed = [
        pair for group in people.values() for i, j in itertools.combinations(group, 2) for pair in ((i, j), (j, i))
    ]
    place = np.flatnonzero([found[i] and found[j] for i, j in formed])
    pairs = pd.DataFrame([formed[i] for i in place], columns=COLUMNS, dtype=str, index=place)
    pairs.attrs = {"formed": len(formed), "negatives": _pg2_negatives(names, kind)}
    return pairs


def _pg2_negatives(names: Sequence[str], kind: str) -> int:
    """How many pairs of two persons PG2 forms beside its list. It never uses them, but shuffles them first."""
    count, seen = 0, Counter()
    for place, name in enumerate(names):
        person = person_of(name, kind)
        if place % _PG2_NEGATIVES_EVERY == 0:
            count += place - seen[person]
        seen[person] += 1
    return count


def pg2_sample(pairs: pd.DataFrame, count: int | None, seed: int) -> pd.DataFrame:
    """The first `count` pairs with poses of PG2's shuffled list; Market-1501's test has count 12,800 and seed 0.

    pairs: what `pg2_pairs` gave. PG2 seeds once, shuffles the pairs of two persons, then its list, all with Python 2's
    shuffle, which is made again here: with PG2's own detections these are PG2's pairs. (It publishes no names to compare.)
    Source: PG2 convert_market.py.
    """
    if count is None:
        return pairs.reset_index(drop=True)
    draw = random.Random(seed).random  # the same numbers in Python 2 and 3; only `shuffle` was changed
    for _ in range(pairs.attrs["negatives"] - 1):
        draw()
    order = list(range(pairs.attrs["formed"]))
    for i in range(len(order) - 1, 0, -1):
        j = int(draw() * (i + 1))
        order[i], order[j] = order[j], order[i]
    with_poses = pd.Index(order)
    return pairs.loc[with_poses[with_poses.isin(pairs.index)][:count]].reset_index(drop=True)


#: Every rule that a configuration can name (`datasets.<name>.pairs.rule`).
PAIR_RULES: dict[str, PairRule] = {
    rule.id: rule
    for rule in (
        PairRule("patn", "both shoulders and both hips found in both images", patn_pairs, sample),
        PairRule("pg2", "any person found in both images", pg2_pairs, pg2_sample),
    )
}


# ---------------------------------------------------------------------------------------------------------------------
# Files


def pairs_csv(pairs: pd.DataFrame) -> str:
    """The text of a pair list: header `from,to`, LF endings, as published."""
    return pairs[COLUMNS].to_csv(index=False, lineterminator="\n")


def read_pairs(path: str | Path, known: Iterable[str] | None = None, kind: str | None = None) -> pd.DataFrame:
    """Read a pair list: a frame with the columns `from` and `to`, in the file's order. Pairs that stand twice are kept.

    UTF-8 with or without a byte order mark, any line ends, blank lines passed over. With `known`, every image must be one
    of those; a name with `.jpg` once more or less than an image's becomes that image's (`pose_files.match_names`). With
    `kind`, the two images of a pair must show one person (DeepFashion: one outfit) and must not be the same.
    Raises UserError with the line for a missing file, another header, a row that is no pair, and pairs as above.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path}: no such pair list") from None
    except UnicodeDecodeError:
        raise UserError(
            f"{path}: is no pair list (not a text file); expected a CSV file with the header 'from,to'"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected a CSV file with the header 'from,to'"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=None))
    rows, lines = [], []
    try:
        header = next(reader, [])
        if [column.strip() for column in header] != COLUMNS:
            raise UserError(f"{path}: unknown header {','.join(header)[:60]!r}; expected 'from,to'")
        for row in reader:
            if row:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: is no pair list ({error})") from None
    odd = next((i for i, row in enumerate(rows) if len(row) != 2 or not (row[0].strip() and row[1].strip())), None)
    if odd is not None:
        raise UserError(f"{path}, line {lines[odd]}: {','.join(rows[odd])[:60]!r} is no pair of two image names")
    pairs = pd.DataFrame(rows, columns=COLUMNS, dtype=str)
    codes, names = pd.factorize(pd.concat([pairs["from"], pairs["to"]], ignore_index=True))
    source, target = codes.reshape(2, -1)
    spelled = [name.strip() for name in names]
    if known is not None:
        known = set(known)
        if not known.issuperset(spelled):
            matched = match_names(spelled, known)
            strange = np.array([name not in matched for name in spelled])
            wrong = strange[source] | strange[target]
            if wrong.any():
                first = int(wrong.argmax())
                name = spelled[source[first] if strange[source[first]] else target[first]]
                raise UserError(
                    f"{path}, line {lines[first]}: unknown image {name!r} "
                    f"({int(wrong.sum())} of {len(pairs)} pairs name images that have no key points); "
                    "check that the pair list belongs to these images"
                )
            spelled = [matched[name] for name in spelled]
    if kind is not None:
        image, _ = pd.factorize(np.array(spelled, object))
        person, _ = pd.factorize(np.array([person_of(name, kind) for name in spelled], object))
        what = "outfits" if kind == "deepfashion" else "persons"
        for wrong, message in (
            (image[source] == image[target], "from and to are the same image"),
            (person[source] != person[target], f"from and to are different {what}"),
        ):
            if wrong.any():
                first = int(wrong.argmax())
                raise UserError(
                    f"{path}, line {lines[first]}: {message} ({','.join(rows[first])[:120]}; {int(wrong.sum())} such of "
                    f"{len(pairs)} pairs); check that this is a pair list of {kind}"
                )
    spelled = np.array(spelled, object)
    return pd.DataFrame({"from": spelled[source], "to": spelled[target]}, dtype=str)


# ---------------------------------------------------------------------------------------------------------------------
# Lists of a data set


def pair_statistics(pairs: pd.DataFrame, kind: str) -> dict[str, Any]:
    """What is in a pair list, for its record.

    pairs, identities, images; targets: distinct `to` images; pairs_per_identity: its minimum, median and maximum;
    duplicates: rows that stand a second time; same_camera, cross_camera (not for DeepFashion, whose names have no camera):
    pairs whose two images come from one camera, or from two; sha256 of the list as a file.
    """
    codes, names = pd.factorize(pd.concat([pairs["from"], pairs["to"]], ignore_index=True))
    source, target = codes.reshape(2, -1)
    person, people = pd.factorize(np.array([person_of(name, kind) for name in names], object))
    per_identity = np.bincount(person[source], minlength=1)
    per_identity = per_identity[per_identity > 0]
    statistics: dict[str, Any] = {
        "pairs": len(pairs),
        "identities": len(people),
        "images": len(names),
        "targets": len(np.unique(target)),
        "pairs_per_identity": {
            name: float(function(per_identity)) if len(per_identity) else 0.0
            for name, function in (("minimum", np.min), ("median", np.median), ("maximum", np.max))
        },
        "duplicates": len(pairs) - len(np.unique(source * max(len(names), 1) + target)),
    }
    if kind != "deepfashion":
        camera = pd.factorize(np.array([camera_of(name) for name in names], object))[0]  # -1: no camera in the name
        both = (camera[source] >= 0) & (camera[target] >= 0)
        same = camera[source] == camera[target]
        statistics |= {"same_camera": int((both & same).sum()), "cross_camera": int((both & ~same).sum())}
    return statistics | {"sha256": hashlib.sha256(pairs_csv(pairs).encode()).hexdigest()}


def deepfashion_split_statistics(train_names: Iterable[str], test_names: Iterable[str]) -> dict[str, Any]:
    """What two lists of DeepFashion's flat names share (PATN's train.lst and test.lst; docs/decisions.md, D3).

    train, test: images, outfits, items, and ordered_pairs of two images of one outfit without any filter. shared: images,
    outfits and items on both sides. Of PATN's 930 test items 513 also stand in train, in another colour: "identities do
    not overlap" holds for outfits, not for items. An item is its 8 digits; 10 of the 513 stand in train under another
    gender or category only.
    """
    names = {"train": list(train_names), "test": list(test_names)}
    sides = {
        split: {
            "images": set(of_split),
            "outfits": {person_of(name, "deepfashion") for name in of_split},
            "items": {item_of(name) for name in of_split} - {None},
        }
        for split, of_split in names.items()
    }
    statistics: dict[str, Any] = {}
    for split, of_split in names.items():
        sizes = Counter(person_of(name, "deepfashion") for name in of_split).values()
        statistics[split] = {what: len(members) for what, members in sides[split].items()}
        statistics[split]["ordered_pairs"] = sum(size * (size - 1) for size in sizes)
    statistics["shared"] = {what: len(members & sides["test"][what]) for what, members in sides["train"].items()}
    return statistics


def build(
    train: Keypoints,
    test: Keypoints,
    settings: PairSettings,
    kind: str,
    skipped: frozenset[str] | set[str] = frozenset(),
) -> tuple[dict[str, pd.DataFrame], dict[str, object]]:
    """The train, validation and test pairs of a data set and their record (`pairs.json`).

    Validation identities are drawn from the training identities (seeded by `test_seed`) and leave the training list; every
    choice of a setting is made on them, never on test pairs. Pairs of a published list that name a `skipped` image are
    left out and counted. The record has `pair_statistics` of each split, how many identities (DeepFashion: outfits) two
    splits share, which must be none, and for DeepFashion how many items, which PATN's lists do share.
    Raises UserError for an unknown rule, if an identity stands on two sides, or if a list is empty.
    """
    rule = PAIR_RULES.get(settings.rule)
    if rule is None:
        raise UserError(f"pairs: no rule {settings.rule!r}; there are {', '.join(PAIR_RULES)}")
    lists, left_out = {}, {}
    for split, table, published in (("train", train, settings.train), ("test", test, settings.test)):
        if published is not None:
            listed = read_pairs(published, set(table.names) | skipped, kind)
            gone = listed["from"].isin(skipped) | listed["to"].isin(skipped)
            lists[split], left_out[split] = listed[~gone].reset_index(drop=True), int(gone.sum())
        else:
            lists[split] = rule.pairs(table, kind)
    if settings.test is None:
        lists["test"] = rule.sample(lists["test"], settings.test_sample, settings.test_seed)

    people = {split: pairs["from"].map(lambda name: person_of(name, kind)) for split, pairs in lists.items()}
    if settings.validation_identities:
        candidates = sorted(set(people["train"]))
        if len(candidates) <= settings.validation_identities:
            raise UserError(
                f"pairs: validation_identities is {settings.validation_identities}, but only {len(candidates)} training "
                "identities have pairs; choose fewer"
            )
        held_out = set(random.Random(settings.test_seed).sample(candidates, settings.validation_identities))
        inside = people["train"].isin(held_out)
        lists["validation"] = sample(
            lists["train"][inside].reset_index(drop=True), settings.validation_sample, settings.test_seed
        )
        lists["train"] = lists["train"][~inside].reset_index(drop=True)
    else:
        lists["train"] = lists["train"].reset_index(drop=True)
        lists["validation"] = lists["train"].iloc[:0]

    record: dict[str, object] = {"rule": settings.rule if settings.test is None else "published lists", "splits": {}}
    record["pairs_of_skipped_images"] = left_out
    splits = ("train", "validation", "test")
    people_of, items_of = {}, {}
    for split in splits:
        pairs = lists[split]
        if not len(pairs) and not (split == "validation" and not settings.validation_identities):
            raise UserError(
                f"pairs: no {split} pair is left: no person has two images that rule {rule.id} takes ({rule.description}); "
                "check the key points of that split"
            )
        names = set(pairs["from"]) | set(pairs["to"])
        people_of[split] = {person_of(name, kind) for name in names}
        items_of[split] = {item_of(name) for name in names} - {None}
        record["splits"][split] = pair_statistics(pairs, kind)
    record["identity_overlap"] = _overlap(people_of)
    shared = {name: count for name, count in record["identity_overlap"].items() if count}
    if shared:
        what = "outfits" if kind == "deepfashion" else "identities"
        raise UserError(
            f"pairs: {what} stand on both sides of a split ({json.dumps(shared)}); check the images' split folders"
        )
    if kind == "deepfashion":
        record["item_overlap"] = _overlap(items_of)
    return lists, record


def _overlap(sides: dict[str, set[str]]) -> dict[str, int]:
    return {f"{a}-{b}": len(sides[a] & sides[b]) for a, b in itertools.combinations(sides, 2)}
