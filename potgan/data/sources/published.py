"""The stage `published`: small files that others have published beside a data set's images, and the estimator that follows.

These are tables of key points, pair lists and, for DeepFashion, the lists of the splits. Where a configuration asks for them, each
is looked for on this machine, and else fetched. With `keypoints.estimator: auto`, whether the tables can be had decides whether
the key points are theirs or OpenPifPaf's. The stage runs before the images are fetched, so that the decision is known and
written down first. Every later stage works with the data set that `resolved` returns.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from potgan.common.download import Unreachable, digest_of, fetch, is_address
from potgan.common.errors import UserError
from potgan.common.files import fingerprint, new_folder, read_json, sha256_of, write_json
from potgan.common.progress import say
from potgan.data.sources.acquisition import locate
from potgan.data.sources.archives import SPLITS, facts_of, lists_of
from potgan.settings.schema import PUBLISHED, Dataset

if TYPE_CHECKING:
    from potgan.common.files import Json

RECORD = "published.json"
#: What the files of a setting are, for messages.
_MEANINGS = {"splits": "list of the splits", "keypoints": "table of key points", "pairs": "pair list"}

_NOT_ASKED = "not asked for, because the source gave no answer before"


@dataclass(frozen=True)
class PublishedFile:
    """A published file as `benchmarks/<kind>.yaml` names it. sha256: None where none is known."""

    name: str
    sha256: str | None


def wanted(dataset: Dataset) -> dict[str, PublishedFile]:
    """Setting (such as `keypoints.train`) -> the published file that it stands for; empty where no such file is needed.

    Raises UserError where a setting asks for a published file, and none is published of this kind of data set.
    """
    if dataset.kind == "synthetic":
        return {}
    facts = facts_of(dataset.kind)
    files = facts["published"]["files"] if "published" in facts else {}
    named = {
        **{f"splits.{split}": dataset.splits.get(split) for split in SPLITS},
        **{f"keypoints.{split}": getattr(dataset.keypoints, split) for split in SPLITS},
        **{f"pairs.{split}": getattr(dataset.pairs, split) for split in SPLITS},
    }
    found = {}
    for setting, value in named.items():
        section = setting.split(".")[0]
        by_itself = value is None and (
            (section == "splits" and facts["folders"] is None)
            or (section == "keypoints" and dataset.keypoints.estimator != "openpifpaf")
        )
        if value == PUBLISHED and setting not in files:
            raise UserError(
                f"{setting} is {PUBLISHED}, and no {_MEANINGS[section]} of {facts['label']} is known to be published; name a file, "
                "or leave it out"
            )
        if setting in files and (value == PUBLISHED or by_itself):
            found[setting] = PublishedFile(**files[setting])
    return found


def estimator_of(dataset: Dataset) -> str | None:
    """Where the key points come from: `table` (for synthetic people, the exact joints) or `openpifpaf`.

    None where the stage `published` decides it.
    """
    settings = dataset.keypoints
    if settings.estimator != "auto":
        return settings.estimator
    if dataset.kind == "synthetic" or all(value not in (None, PUBLISHED) for value in (settings.train, settings.test)):
        return "table"
    return None if any(setting.startswith("keypoints.") for setting in wanted(dataset)) else "openpifpaf"


def prepare_published(dataset: Dataset, name: str, data: Path, out: Path) -> dict[str, Json]:
    """The stage `published`: collect the wanted files into the folder `out`, and decide the estimator. Returns the record.

    name: the data set's name in the configuration. data: the folder of archives; fetched files are kept in its folder
    `published/<kind>`. The folder `out` appears whole or not at all.

    Raises UserError where the lists of the splits cannot be had, and where tables are demanded (`estimator: table`) that cannot.
    """
    files = wanted(dataset)
    found: dict[str, tuple[Path, str]] = {}
    missing: dict[str, str] = {}
    reachable = True
    for setting, file in files.items():
        try:
            found[setting] = _obtain(dataset, name, setting, file, data, reachable)
        except UserError as error:
            reachable = reachable and not isinstance(error, Unreachable)
            missing[setting] = str(error)
    without = {section: [setting for setting in missing if setting.startswith(f"{section}.")] for section in _MEANINGS}
    estimator = estimator_of(dataset)
    if without["splits"]:
        raise UserError(
            f"{name}: {missing[without['splits'][0]]}; without {_names(files, without['splits'])} nobody knows which images are "
            f"for training; put them into {data}, or name them as datasets.{name}.splits ({facts_of(dataset.kind)['lists_page']})"
        )
    if without["keypoints"] and estimator == "table":
        raise UserError(
            f"{name}: {missing[without['keypoints'][0]]}; put {_names(files, without['keypoints'])} into {data}, name them as "
            f"datasets.{name}.keypoints.train and .test, or set keypoints.estimator to auto, so that OpenPifPaf finds them"
        )
    for why in missing.values():
        if not why.endswith(_NOT_ASKED):
            say(f"{name}: {why}")
    if estimator is None:
        estimator = "openpifpaf" if without["keypoints"] else "table"
        say(f"{name}: {_decision(estimator, _names(files, without['keypoints']))}")
    for setting in without["pairs"]:
        say(f"{name}: without {files[setting].name}, {_built(dataset, setting.split('.')[1])}")
    record = {
        "dataset": name,
        "estimator": estimator,
        "files": {
            setting: {"file": files[setting].name, "sha256": sha256_of(path)} for setting, (path, _) in found.items()
        },
        "origins": {setting: origin for setting, (_, origin) in found.items()},
        "missing": {setting: {"file": files[setting].name, "why": why} for setting, why in missing.items()},
    }
    with new_folder(out) as folder:
        for setting, (path, _) in found.items():
            shutil.copyfile(path, folder / files[setting].name)
        write_json(folder / RECORD, record)
    return record


def resolved(dataset: Dataset, name: str, folder: Path) -> Dataset:
    """The data set with a path, or None, in place of every `published`, and with the estimator that was decided.

    folder: of the stage `published`. Raises UserError where the stage has not run.
    """
    files = wanted(dataset)
    paths: dict[str, str] = {}
    estimator = estimator_of(dataset)
    if files:
        record = read_json(folder / RECORD, f"run `potgan published` for {name} first")
        paths = {setting: str(folder / entry["file"]) for setting, entry in record["files"].items()}
        estimator = record["estimator"]

    def path_of(setting: str, value: str | None) -> str | None:
        return paths.get(setting) if setting in files else value

    def changed(section: str, settings: Any, **more: str | None) -> Any:
        values = {split: path_of(f"{section}.{split}", getattr(settings, split)) for split in SPLITS}
        return dataclasses.replace(settings, **values, **more)

    keypoints = changed("keypoints", dataset.keypoints, estimator=estimator)
    if estimator == "openpifpaf" and any(s.startswith("keypoints.") and s not in paths for s in files):
        # One table of two is nothing to compare all detected joints with.
        keypoints = dataclasses.replace(keypoints, train=None, test=None)
    splits = {split: path_of(f"splits.{split}", dataset.splits.get(split)) for split in SPLITS}
    return dataclasses.replace(
        dataset,
        splits={split: path for split, path in splits.items() if path is not None},
        keypoints=keypoints,
        pairs=changed("pairs", dataset.pairs),
    )


def decided_estimator(dataset: Dataset, folder: Path) -> str | None:
    """`table` or `openpifpaf`, as `estimator_of` says or as the stage `published` has decided; None before it has run.

    folder: of the stage `published`.
    """
    estimator = estimator_of(dataset)
    if estimator is None and (folder / RECORD).is_file():
        return read_json(folder / RECORD, "remove it")["estimator"]
    return estimator


def why_detected(folder: Path) -> str:
    """Why OpenPifPaf finds the key points in place of published tables, in words; "" where it was asked for, or tables are there.

    folder: of the stage `published`.
    """
    if not (folder / RECORD).is_file():
        return ""
    record = read_json(folder / RECORD, "remove it")
    without = [entry["file"] for setting, entry in record["missing"].items() if setting.startswith("keypoints.")]
    return f"{' and '.join(without)} cannot be had" if without and record["estimator"] == "openpifpaf" else ""


def outlook(dataset: Dataset, name: str, data: Path, folder: Path) -> str:
    """A few words: where the key points of a real data set come from, or how that will be decided. Asks no network."""
    files = {setting: file for setting, file in wanted(dataset).items() if setting.startswith("keypoints.")}
    estimator = estimator_of(dataset)
    if not files:
        return f"{name}: {'OpenPifPaf' if estimator == 'openpifpaf' else 'the named tables'}"
    names = _names(files, list(files))
    if estimator is None and (folder / RECORD).is_file():
        why = why_detected(folder)
        return f"{name}: OpenPifPaf, because {why}" if why else f"{name}: {names}"
    if all(_on_this_machine(dataset, file, data) for file in files.values()):
        return f"{name}: {names}, which are here"
    otherwise = "the run stops" if estimator == "table" else "OpenPifPaf"
    if os.environ.get("POTGAN_NO_DOWNLOAD"):
        return f"{name}: {otherwise}, because {names} are not here, and nothing is fetched"
    return f"{name}: {names}, fetched from {_source(dataset)}; where they cannot be had, {otherwise}"


def places(dataset: Dataset, data: Path) -> list[str]:
    """Where the user may have put the wanted files, so that a file which appears there later is noticed."""
    if dataset.published and is_address(dataset.published):
        return []
    folder = _folder_of_the_user(dataset) or data
    return [str(folder / file.name) for file in wanted(dataset).values()]


# ---------------------------------------------------------------------------------------------------------------------


def _obtain(
    dataset: Dataset, name: str, setting: str, file: PublishedFile, data: Path, reachable: bool
) -> tuple[Path, str]:
    """(path, origin) of a wanted file, which is fetched where it is not on this machine.

    reachable: whether the source is asked, which is not done again after it gave no answer.
    Raises UserError where it cannot be had.
    """
    here = _on_this_machine(dataset, file, data)
    if here is None and setting.startswith("splits."):
        here = _beside_the_images(dataset, name, setting, data)
    if here is not None:
        path, origin = here
        if file.sha256 is not None and digest_of(path, "sha256") != file.sha256:
            say(f"{name}: {path} is not the published {file.name}, and is taken, because it lies here")
            origin += ", and is not the published file"
        return path, origin
    folder = _folder_of_the_user(dataset)
    if folder is not None:
        raise UserError(f"{folder / file.name}: missing")
    address = f"{_source(dataset)}/{file.name}"
    target = _kept(dataset, file, data)
    if not reachable:
        raise UserError(f"{address}: {_NOT_ASKED}")
    # The checksum is that of the public source. What the user names may be other tables in their form.
    fetch(address, target, checksum=f"sha256:{file.sha256}" if file.sha256 and not dataset.published else None)
    return target, address


def _on_this_machine(dataset: Dataset, file: PublishedFile, data: Path) -> tuple[Path, str] | None:
    folder = _folder_of_the_user(dataset)
    if folder is not None:
        return (folder / file.name, "the user's folder") if (folder / file.name).is_file() else None
    kept = _kept(dataset, file, data)
    if dataset.published is None and (data / file.name).is_file():
        return data / file.name, "data folder"
    return (kept, f"{_source(dataset)}/{file.name}") if kept.is_file() else None


def _kept(dataset: Dataset, file: PublishedFile, data: Path) -> Path:
    """Where a fetched file stays. Each source has a folder of its own, so that no file stands for that of another source."""
    source = fingerprint(_source(dataset)) if dataset.published else dataset.kind
    return data / PUBLISHED / source / file.name


def _beside_the_images(dataset: Dataset, name: str, setting: str, data: Path) -> tuple[Path, str] | None:
    copy = locate(dataset, name, data)
    lists = lists_of({}, (copy.path, copy.path.parent)) if copy else {}
    path = lists.get(setting.split(".")[1])
    return (path, "beside the images") if path else None


def _source(dataset: Dataset) -> str:
    return (dataset.published or facts_of(dataset.kind)["published"]["source"]).rstrip("/")


def _folder_of_the_user(dataset: Dataset) -> Path | None:
    return Path(dataset.published) if dataset.published and not is_address(dataset.published) else None


def _names(files: dict[str, PublishedFile], settings: list[str]) -> str:
    return " and ".join(files[setting].name for setting in settings)


def _decision(estimator: str, without: str) -> str:
    if estimator == "table":
        return "key points come from the published tables"
    return f"OpenPifPaf finds the key points, because {without} cannot be had"


def _built(dataset: Dataset, split: str) -> str:
    settings = dataset.pairs
    drawn = (
        f", of which {settings.test_sample:,} are drawn with seed {settings.test_seed}"
        if split == "test" and settings.test_sample
        else ""
    )
    return f"{split} pairs are formed by the rule {settings.rule}{drawn}"
