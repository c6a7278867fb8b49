"""Which ordered pairs of images are used, from a table of key points (docs/decisions.md, D4, D5, D6).

A rule, an entry of `PAIR_RULES`, says which pairs there are, in which order, and how some of them are drawn for a test.

    patn   The rule of Deformable GAN's create_pairs_dataset.py, which PATN, GFLA and their successors use: all ordered pairs of
           two images of one person in which both shoulders and both hips were found. Names that begin with -1 (junk) or 0000
           (distractors) are dropped. Persons stand in the order of their first image in the table, and images in the table's
           order, because the published test list is a sample of the pairs in this order.
    pg2    The rule of PG2's (and DPIG's) convert_market.py and convert_DF.py: all ordered pairs of two images of one person in
           which any joint was found, in the order of sorted names.
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

import numpy as np
import pandas as pd

from potgan.common.errors import UserError
from potgan.common.files import Json
from potgan.data.keypoint_files import match_names
from potgan.data.pose import TORSO, Keypoints
from potgan.settings.schema import PairSettings

COLUMNS = ["from", "to"]
#: How the names of images begin that show no person of the data set (Market-1501: junk and distractors).
NOBODY = ("-1", "0000")
#: PG2 also forms pairs of two persons, with each image whose place in its list is a multiple of this.
_PG2_NEGATIVES_EVERY = 2000
_CAMERA = re.compile(r"[^_]+_c(\d+)")
_ITEM = re.compile(r"id(\d{8})\d{2}_")


def person_of(name: str, kind: str = "market1501") -> str:
    """The person (re-ID) or outfit (DeepFashion) of an image, from its name.

    For Market-1501 and DukeMTMC-reID this is the text before the first `_`. For DeepFashion it is the text before the *last* `_`,
    because a category may hold one (`fashionWOMENTees_Tanksid0000783805_7additional.jpg`; docs/decisions.md, D7).
    """
    return name.rsplit("_", 1)[0] if kind == "deepfashion" else name.split("_", 1)[0]


def camera_of(name: str) -> str | None:
    """The camera of a re-ID image (`0002_c1s1_000451_03.jpg`, `0001_c2_f0046182.jpg`); None where the name has none."""
    match = _CAMERA.match(name)
    return match[1] if match else None


def item_of(name: str) -> str | None:
    """The 8 digits of the item of a DeepFashion image; None for other names. An item has one outfit per colour."""
    match = _ITEM.search(name)
    return match[1] if match else None


def people_of(names: Iterable[str]) -> np.ndarray:
    """(N,) the person of each re-ID image, and the item of each DeepFashion image, whose outfits one model wears.

    Images of one person are alike. So intervals resample people, each with all pairs of theirs, and not single pairs.
    """
    return np.array([item_of(name) or person_of(name) for name in names])


# ---------------------------------------------------------------------------------------------------------------------
# Rules


@dataclass(frozen=True)
class PairRule:
    """A named way to choose pairs.

    pairs: function of a split's key points and the kind of data set. It returns all ordered pairs, with the columns `from` and
    `to`. sample: function of such pairs, a number and a seed. It returns so many pairs for a test, or all for None.
    """

    id: str
    description: str
    pairs: Callable[[Keypoints, str], pd.DataFrame]
    sample: Callable[[pd.DataFrame, int | None, int], pd.DataFrame]


def patn_pairs(keypoints: Keypoints, kind: str = "market1501") -> pd.DataFrame:
    """All ordered pairs of the rule `patn`, with the columns `from` and `to`."""
    usable = keypoints.present[:, list(TORSO)].all(axis=1)
    people: dict[str, list[str]] = {}
    for name, ok in zip(keypoints.names, usable, strict=True):
        if ok and not name.startswith(NOBODY):
            people.setdefault(person_of(name, kind), []).append(name)
    pairs = [pair for names in people.values() for pair in itertools.permutations(names, 2)]
    return pd.DataFrame(pairs, columns=COLUMNS, dtype=str)


def sample(pairs: pd.DataFrame, count: int | None, seed: int) -> pd.DataFrame:
    """`count` pairs, drawn without replacement by pandas, as PATN draws them (docs/decisions.md, D5); all pairs for None."""
    if count is None or count >= len(pairs):
        # PATN draws as many pairs as there are, so a small set is shuffled, too.
        count = len(pairs) if count is not None else None
    if count is None:
        return pairs
    return pairs.sample(n=count, replace=False, random_state=seed).reset_index(drop=True)


def pg2_pairs(keypoints: Keypoints, kind: str = "market1501") -> pd.DataFrame:
    """All ordered pairs of the rule `pg2`, with the columns `from` and `to`.

    Names are sorted, and junk and distractors are dropped. Each image i forms the pairs (i, j) and (j, i) with every later image j
    of the same person, from whatever cameras. A pair stays if any joint was found in both images. PG2 draws pairs first and looks
    for poses afterwards (`pg2_sample`), so the index holds each pair's place among all pairs that are formed, and `attrs` says how
    many those are. Source: PG2 convert_market.py and convert_DF.py (mode same_diff_cam).

    PG2 itself differs in four ways. It also trains on flipped copies of the images with poses of their own, which doubles its
    training list to 439,420 pairs. It drops the first 6,617 of the sorted test names as junk and distractors, which are the same
    images in the whole archive. It has its own detections, which find fewer people: 219,710 pairs without the flipped copies, where
    the published table gives 280,382. And images without a row form pairs there, which changes the draw.
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
    """The number of pairs of two persons that PG2 forms. PG2 does not use them, but shuffles them before its list."""
    count, seen = 0, Counter()
    for place, name in enumerate(names):
        person = person_of(name, kind)
        if place % _PG2_NEGATIVES_EVERY == 0:
            count += place - seen[person]
        seen[person] += 1
    return count


def pg2_sample(pairs: pd.DataFrame, count: int | None, seed: int) -> pd.DataFrame:
    """The first `count` pairs with poses in PG2's shuffled list; all pairs for None.

    pairs: of `pg2_pairs`. PG2's test of Market-1501 has the count 12,800 and the seed 0. PG2 sets the seed once, then shuffles the
    pairs of two persons, and then its list, both as Python 2 does it, which this function repeats. With PG2's own detections
    these would be PG2's pairs, which cannot be checked, because PG2 publishes no names. Source: PG2 convert_market.py.
    """
    if count is None:
        return pairs.reset_index(drop=True)
    draw = random.Random(seed).random  # Python 2 and 3 draw the same numbers; only `shuffle` differs
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


def refuse_none(pairs: pd.DataFrame, rule: PairRule, where: str) -> None:
    """Raise UserError where a list has no pair. where: what the pairs are of, for the message."""
    if not len(pairs):
        raise UserError(
            f"{where}: no pair is left: no person has two images that rule {rule.id} takes ({rule.description}); "
            "check the key points"
        )


# ---------------------------------------------------------------------------------------------------------------------
# Files


def pairs_csv(pairs: pd.DataFrame) -> str:
    """The text of a pair list as it is published: the header `from,to`, and lines that end in LF."""
    return pairs[COLUMNS].to_csv(index=False, lineterminator="\n")


def read_pairs(path: str | Path, known: Iterable[str] | None = None, kind: str | None = None) -> pd.DataFrame:
    """Read a pair list: the columns `from` and `to`, in the file's order. Pairs that stand twice are kept.

    The file is UTF-8, with or without a byte order mark, with any line ends. Blank lines are ignored.

    known: the names of all images, one of which each name must be. A name that has `.jpg` once more or once less than an image's
    becomes the image's (`keypoint_files.match_names`). kind: of the data set. The two images of a pair must then show one person
    (DeepFashion: one outfit), and must not be the same image.

    Raises UserError, which names the line, for a missing file, another header, a row that is no pair, and a pair that `known` or
    `kind` forbids.
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
                    f"{path}, line {lines[first]}: {message} ({','.join(rows[first])[:120]}; as in {int(wrong.sum())} of "
                    f"{len(pairs)} pairs); check that this is a pair list of {kind}"
                )
    spelled = np.array(spelled, object)
    return pd.DataFrame({"from": spelled[source], "to": spelled[target]}, dtype=str)


# ---------------------------------------------------------------------------------------------------------------------
# Lists of a data set


def pair_statistics(pairs: pd.DataFrame, kind: str) -> dict[str, Json]:
    """What is in a pair list, for its record.

    pairs, identities, images: how many there are. targets: the number of different `to` images. pairs_per_identity: the minimum,
    median and maximum. duplicates: the number of rows that stand in the list before. same_camera, cross_camera: the numbers of
    pairs whose images come from one camera or from two (not for DeepFashion, whose names have no camera). sha256: of the list as
    a file.
    """
    codes, names = pd.factorize(pd.concat([pairs["from"], pairs["to"]], ignore_index=True))
    source, target = codes.reshape(2, -1)
    person, people = pd.factorize(np.array([person_of(name, kind) for name in names], object))
    per_identity = np.bincount(person[source], minlength=1)
    per_identity = per_identity[per_identity > 0]
    statistics: dict[str, Json] = {
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
        camera = pd.factorize(np.array([camera_of(name) for name in names], object))[
            0
        ]  # -1 where the name has no camera
        both = (camera[source] >= 0) & (camera[target] >= 0)
        same = camera[source] == camera[target]
        statistics |= {"same_camera": int((both & same).sum()), "cross_camera": int((both & ~same).sum())}
    return statistics | {"sha256": hashlib.sha256(pairs_csv(pairs).encode()).hexdigest()}


def deepfashion_split_statistics(train_names: Iterable[str], test_names: Iterable[str]) -> dict[str, Json]:
    """What two lists of DeepFashion's flat names share (PATN's train.lst and test.lst; docs/decisions.md, D3).

    train, test: the numbers of images, outfits, items, and ordered_pairs (all pairs of two images of one outfit). shared: the
    numbers of images, outfits and items that stand in both lists. 513 of the 930 items in PATN's test list also stand in its
    training list, in another colour, so no outfit is in both lists, but items are. An item is known by its 8 digits; 10 of the 513
    stand in the training list under another gender or category only.
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
    statistics: dict[str, Json] = {}
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
    """The pairs of each split ("train", "validation", "test") of a data set, and their record (`pairs.json`).

    train, test: the key points of the two splits. kind: of the data set. skipped: images that cannot be decoded; pairs of a
    published list that name one of them are left out, and counted.

    Validation identities are drawn from the training identities (with the seed `test_seed`), and their pairs leave the training
    list. Settings are chosen on them, and never on test pairs. The record has `pair_statistics` of each split, and the number of
    identities (DeepFashion: outfits) that two splits share, which must be 0. For DeepFashion it also has the number of items,
    which PATN's lists share.

    Raises UserError for an unknown rule, an identity in two splits, and an empty list.
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
        if split != "validation" or settings.validation_identities:
            refuse_none(pairs, rule, f"pairs: {split}")
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
    """ "<one>-<other>" -> the number of elements that the two sets share."""
    return {f"{a}-{b}": len(sides[a] & sides[b]) for a, b in itertools.combinations(sides, 2)}
