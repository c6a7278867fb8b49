"""Which ordered pairs of images are used, from a table of key points (PROTOCOLS 2).

The rule `patn` is Deformable GAN's create_pairs_dataset.py, which PATN, GFLA and their successors share: all ordered pairs
of two images of one person in which both shoulders and both hips were found; names that begin with -1 (junk) or 0000
(distractors) are dropped. Persons come in the order of their first image in the table and images in the table's order:
the published test list is a sample of that very sequence.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from pathlib import Path

import pandas as pd

from potgan.config import PairSettings
from potgan.errors import UserError
from potgan.pose import TORSO, Keypoints

COLUMNS = ["from", "to"]


def person_of(name: str, kind: str = "market1501") -> str:
    """The person (re-ID) or outfit (DeepFashion) of an image, from its name.

    Market-1501 and DukeMTMC-reID: the text before the first `_`. DeepFashion: before the *last* `_`, since the category
    keeps its own (`fashionWOMENTees_Tanksid0000783805_7additional.jpg`; PROTOCOLS 2.4).
    """
    return name.rsplit("_", 1)[0] if kind == "deepfashion" else name.split("_", 1)[0]


def patn_pairs(keypoints: Keypoints, kind: str = "market1501") -> pd.DataFrame:
    """All ordered pairs under the rule: a frame with the columns `from` and `to`."""
    usable = keypoints.present[:, list(TORSO)].all(axis=1)
    people: dict[str, list[str]] = {}
    for name, ok in zip(keypoints.names, usable, strict=True):
        if ok and not name.startswith(("-1", "0000")):
            people.setdefault(person_of(name, kind), []).append(name)
    pairs = [pair for names in people.values() for pair in itertools.permutations(names, 2)]
    return pd.DataFrame(pairs, columns=COLUMNS, dtype=str)


def sample(pairs: pd.DataFrame, count: int | None, seed: int) -> pd.DataFrame:
    """`count` pairs drawn without replacement, as the peers draw them: pandas' own sampling (PROTOCOLS 2.1)."""
    if count is None or count >= len(pairs):
        # The peers draw min(count, all) pairs, so a small set is still shuffled.
        count = len(pairs) if count is not None else None
    if count is None:
        return pairs
    return pairs.sample(n=count, replace=False, random_state=seed).reset_index(drop=True)


def pairs_csv(pairs: pd.DataFrame) -> str:
    """The text of a pair list: header `from,to`, LF endings, as published."""
    return pairs[COLUMNS].to_csv(index=False, lineterminator="\n")


def read_pairs(path: str | Path, known: set[str] | None = None) -> pd.DataFrame:
    """Read a pair list; with `known`, every image must be one of those.

    Raises UserError for a missing file, another header, or a pair that names an unknown image (with its line).
    """
    path = Path(path)
    try:
        pairs = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such pair list") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no pair list ({' '.join(str(error).split())})") from None
    if list(pairs.columns) != COLUMNS:
        raise UserError(f"{path}: unknown header {','.join(pairs.columns)[:60]!r}; expected 'from,to'")
    if known is not None:
        for column in COLUMNS:
            unknown = ~pairs[column].isin(known)
            if unknown.any():
                line = int(unknown.idxmax()) + 2
                raise UserError(
                    f"{path}, line {line}: unknown image {pairs[column][line - 2]!r} "
                    f"({int(unknown.sum())} of {len(pairs)} pairs name images that have no key points); "
                    "check that the pair list belongs to these images"
                )
    return pairs


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
    left out and counted. Raises UserError if an identity stands on two sides, or if
    a list is empty.
    """
    lists, left_out = {}, {}
    for split, table, published in (("train", train, settings.train), ("test", test, settings.test)):
        if published is not None:
            listed = read_pairs(published, set(table.names) | skipped)
            gone = listed["from"].isin(skipped) | listed["to"].isin(skipped)
            lists[split], left_out[split] = listed[~gone].reset_index(drop=True), int(gone.sum())
        else:
            lists[split] = patn_pairs(table, kind)
    if settings.test is None:
        lists["test"] = sample(lists["test"], settings.test_sample, settings.test_seed)

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
        lists["validation"] = lists["train"].iloc[:0]

    record: dict[str, object] = {"rule": settings.rule if settings.test is None else "published lists", "splits": {}}
    record["pairs_of_skipped_images"] = left_out
    sides: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        pairs = lists[split]
        if not len(pairs) and not (split == "validation" and not settings.validation_identities):
            raise UserError(
                f"pairs: no {split} pair is left: no person has two images with both shoulders and both hips found; "
                "check the key points of that split"
            )
        sides[split] = {person_of(name, kind) for column in COLUMNS for name in pairs[column]}
        record["splits"][split] = {
            "pairs": len(pairs),
            "identities": len(sides[split]),
            "images": len(set(pairs["from"]) | set(pairs["to"])),
            "targets": pairs["to"].nunique(),
            "sha256": hashlib.sha256(pairs_csv(pairs).encode()).hexdigest(),
        }
    record["identity_overlap"] = {
        f"{a}-{b}": len(sides[a] & sides[b]) for a, b in itertools.combinations(("train", "validation", "test"), 2)
    }
    shared = {name: count for name, count in record["identity_overlap"].items() if count}
    if shared and kind != "deepfashion":
        raise UserError(
            f"pairs: identities stand on both sides of a split ({json.dumps(shared)}); check the images' split folders"
        )
    return lists, record
