"""The stage `published`: small files that others have published beside a data set's images, and the estimator that follows.

These are tables of key points, pair lists and, for DeepFashion, the lists of the splits. Where a configuration asks for them, each
is looked for on this machine, and else fetched. With `keypoints.estimator: auto`, whether the tables can be had decides whether
the key points are theirs or OpenPifPaf's. The stage runs before the images are fetched, so that the decision is known and
written down first. Every later stage works with the data set that `resolved` returns.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potgan.common.download import Unreachable, Unwritable, digest_of, fetch, is_address
from potgan.common.errors import UserError
from potgan.common.files import fingerprint, new_folder, sha256_of, write_json
from potgan.common.paths import at_home
from potgan.common.progress import say
from potgan.common.records import JsonRecord
from potgan.data.sources.acquisition import locate
from potgan.data.sources.archives import SPLITS, facts_of, lists_of, read_lists
from potgan.settings.schema import PUBLISHED, Dataset

RECORD, ORIGINS = "published.json", "origins.json"
#: What the files of a section of the settings are, for messages.
_MEANINGS = {"splits": "list of the splits", "keypoints": "table of key points", "pairs": "pair list"}


@dataclass(frozen=True)
class PublishedFile:
    """A published file as `benchmarks/<kind>.yaml` names it. sha256: None where none is known."""

    name: str
    sha256: str | None


@dataclass(frozen=True)
class Obtained:
    """A file in the folder of the stage, by its name."""

    file: str
    sha256: str


@dataclass(frozen=True)
class PublishedRecord(JsonRecord):
    """`published.json`: what was found, and what follows.

    Where a file was found (`from`), or why it was not (`missing`), stands in `origins.json`, by the same settings.

    estimator: `table` or `openpifpaf`. files: setting -> its file. missing: settings whose file could not be had.
    """

    REMEDY = "run `potgan published`"

    dataset: str
    estimator: str
    files: dict[str, Obtained]
    missing: tuple[str, ...]


def wanted(dataset: Dataset) -> dict[str, PublishedFile]:
    """Setting (such as `keypoints.train`) -> the published file that it stands for; empty where no such file is needed.

    Raises UserError where a setting asks for a published file, and none is published of this kind of data set, and where
    `published` is neither a folder nor an address.
    """
    named = {
        **{f"splits.{split}": dataset.splits.get(split) for split in SPLITS},
        **{f"keypoints.{split}": getattr(dataset.keypoints, split) for split in SPLITS},
        **{f"pairs.{split}": getattr(dataset.pairs, split) for split in SPLITS},
    }
    synthetic = dataset.kind == "synthetic"
    facts = None if synthetic else facts_of(dataset.kind)
    files = facts["published"]["files"] if facts and "published" in facts else {}
    found = {}
    for setting, value in named.items():
        section = setting.split(".")[0]
        if value == PUBLISHED and setting not in files:
            whose = "synthetic people" if facts is None else facts["label"]
            raise UserError(
                f"{setting} is {PUBLISHED}, and no {_MEANINGS[section]} of {whose} is known to be published; name a file, or leave "
                "it out"
            )
        by_itself = value is None and (
            (section == "splits" and facts is not None and facts["folders"] is None)
            or (section == "keypoints" and dataset.keypoints.estimator != "openpifpaf")
        )
        if setting in files and (value == PUBLISHED or by_itself):
            found[setting] = PublishedFile(**files[setting])
    if found:
        _check_place(dataset)
    return found


def of_section(settings: Iterable[str], section: str) -> list[str]:
    """Those of the settings, such as `splits.train`, that stand in a section."""
    return [setting for setting in settings if setting.startswith(f"{section}.")]


def estimator_of(dataset: Dataset) -> str | None:
    """Where the key points come from: `table` (for synthetic people, the exact joints) or `openpifpaf`.

    None where the stage `published` decides it.
    """
    settings = dataset.keypoints
    if settings.estimator != "auto":
        return settings.estimator
    if dataset.kind == "synthetic" or all(value not in (None, PUBLISHED) for value in (settings.train, settings.test)):
        return "table"
    return None if of_section(wanted(dataset), "keypoints") else "openpifpaf"


def decided_estimator(dataset: Dataset, folder: Path) -> str | None:
    """`table` or `openpifpaf`, as `estimator_of` says or as the stage `published` has decided; None before it has run.

    folder: of the stage `published`.
    """
    estimator = estimator_of(dataset)
    if estimator is None and (folder / RECORD).is_file():
        try:
            return PublishedRecord.read(folder / RECORD).estimator
        except UserError:
            return None  # the stage makes it again
    return estimator


def prepare_published(dataset: Dataset, name: str, data: Path, out: Path) -> PublishedRecord:
    """The stage `published`: collect the wanted files into the folder `out`, and decide the estimator. Returns the record.

    name: the data set's name in the configuration. data: the folder of archives; fetched files are kept in its folder
    `published/<kind>`. The folder `out` appears whole or not at all.

    Raises UserError where the lists of the splits cannot be had, where tables are demanded (`estimator: table`) that cannot, for a
    file of the user that is no such file, and for a folder that cannot be written.
    """
    files = wanted(dataset)
    found, missing = _collect(dataset, name, files, data)
    without = {section: of_section(missing, section) for section in _MEANINGS}
    estimator = estimator_of(dataset)
    if without["splits"]:
        raise UserError(
            f"{name}: {missing[without['splits'][0]]}; without {_names(files, without['splits'])} nobody knows which images are "
            f"for training; {_put(dataset, data)}, or name them as datasets.{name}.splits ({facts_of(dataset.kind)['lists_page']})"
        )
    if without["keypoints"] and estimator == "table":
        raise UserError(
            f"{name}: {missing[without['keypoints'][0]]}; without {_names(files, without['keypoints'])} there are no tables; "
            f"{_put(dataset, data)}, name them as datasets.{name}.keypoints.train and .test, or set keypoints.estimator to auto, "
            "so that OpenPifPaf finds the key points"
        )
    for why in dict.fromkeys(missing.values()):
        say(f"{name}: {why}")
    if estimator is None:
        estimator = "openpifpaf" if without["keypoints"] else "table"
        say(f"{name}: {_decision(estimator, _names(files, without['keypoints']))}")
    elif without["keypoints"]:
        say(f"{name}: OpenPifPaf's key points are compared with no table, because one cannot be had")
    for setting in without["pairs"]:
        say(f"{name}: without {files[setting].name}, {_built(dataset, setting.split('.')[1])}")
    obtained = {setting: Obtained(files[setting].name, sha256_of(path)) for setting, (path, _) in found.items()}
    record = PublishedRecord(name, estimator, obtained, tuple(missing))
    with new_folder(out) as folder:
        for setting, (path, _) in found.items():
            shutil.copyfile(path, folder / files[setting].name)
        record.write(folder / RECORD)
        origins = {setting: {"from": origin} for setting, (_, origin) in found.items()}
        write_json(folder / ORIGINS, origins | {setting: {"missing": why} for setting, why in missing.items()})
    for setting, (_, origin) in found.items():
        say(f"{name}: {files[setting].name} ({origin})")
    return record


def resolved(dataset: Dataset, folder: Path) -> Dataset:
    """The data set with a path, or None, in place of every `published`, and with the estimator that was decided.

    folder: of the stage `published`. Raises UserError where the stage has not run, or has looked for other files.
    """
    files = wanted(dataset)
    paths: dict[str, str] = {}
    estimator = estimator_of(dataset)
    if files:
        record = PublishedRecord.read(folder / RECORD)
        if files.keys() - record.files.keys() - set(record.missing):
            raise UserError(f"{folder / RECORD}: is of other settings; {record.REMEDY}")
        paths = {setting: str(folder / entry.file) for setting, entry in record.files.items()}
        estimator = estimator or record.estimator

    def path_of(setting: str, value: str | None) -> str | None:
        return paths.get(setting) if setting in files else value

    def changed(section: str, settings: Any, **more: str | None) -> Any:
        values = {split: path_of(f"{section}.{split}", getattr(settings, split)) for split in SPLITS}
        return dataclasses.replace(settings, **values, **more)

    keypoints = changed("keypoints", dataset.keypoints, estimator=estimator)
    if estimator == "openpifpaf" and of_section(files, "keypoints") and len(keypoints.tables) < 2:
        # One table of two is nothing to compare all detected joints with.
        keypoints = dataclasses.replace(keypoints, train=None, test=None)
    splits = {split: path_of(f"splits.{split}", dataset.splits.get(split)) for split in SPLITS}
    return dataclasses.replace(
        dataset,
        splits={split: path for split, path in splits.items() if path is not None},
        keypoints=keypoints,
        pairs=changed("pairs", dataset.pairs),
    )


def why_detected(dataset: Dataset, folder: Path) -> str:
    """Why OpenPifPaf finds the key points in place of published tables, in words; "" where it does not, or was asked for.

    folder: of the stage `published`.
    """
    if estimator_of(dataset) is not None or decided_estimator(dataset, folder) != "openpifpaf":
        return ""
    missing = PublishedRecord.read(folder / RECORD).missing
    return _cannot(_names(wanted(dataset), of_section(missing, "keypoints")))


def outlook(dataset: Dataset, name: str, data: Path, folder: Path | None) -> str:
    """A few words: where the key points of a real data set come from, or how that will be decided. Asks no network.

    folder: of the stage `published` where its result stands; None where it is to be made, or made again.
    """
    every = wanted(dataset)
    files = {setting: every[setting] for setting in of_section(every, "keypoints")}
    lists = of_section(every, "splits")
    offline = os.environ.get("POTGAN_NO_DOWNLOAD") or _folder_of_the_user(dataset)
    estimator = estimator_of(dataset)
    if folder is None and offline and lists and not all(_on_this_machine(dataset, every[s], data) for s in lists):
        return f"{name}: none, and the run stops, unless {_names(every, lists)} lie beside the images"
    if estimator == "openpifpaf":
        return f"{name}: OpenPifPaf"
    if not files:
        return f"{name}: the named tables"
    names = _names(files, list(files))
    if folder is not None:
        why = why_detected(dataset, folder)
        return f"{name}: OpenPifPaf, because {why}" if why else f"{name}: {names}"
    if all(_on_this_machine(dataset, file, data) for file in files.values()):
        return f"{name}: {names}"
    otherwise = "the run stops" if estimator == "table" else "OpenPifPaf"
    if offline:
        return f"{name}: {otherwise}, because {_source(dataset) if dataset.published else data} lacks {names}"
    return f"{name}: {names}, fetched from {_source(dataset)}; where they cannot be had, {otherwise}"


def places(dataset: Dataset, data: Path) -> list[str]:
    """Where the user may have put the wanted files, so that a file which appears or changes there later is noticed."""
    files = wanted(dataset)
    folder = _folder_of_the_user(dataset)
    found = [] if folder is None and dataset.published else [folder or data]
    paths = [place / file.name for place in found for file in files.values()]
    if of_section(files, "splits") and dataset.source and not is_address(dataset.source):
        source = Path(dataset.source)
        paths += [place / f"{split}.lst" for place in (source, source.parent) for split in SPLITS]
    return [str(path) for path in paths]


# ---------------------------------------------------------------------------------------------------------------------


def _collect(
    dataset: Dataset, name: str, files: dict[str, PublishedFile], data: Path
) -> tuple[dict[str, tuple[Path, str]], dict[str, str]]:
    """(setting -> path and origin, setting -> why there is none) of the wanted files.

    Raises UserError for a file on this machine that cannot be read as what it should be, before a decision is made on it.
    """
    here = {setting: place for setting, file in files.items() if (place := _on_this_machine(dataset, file, data))}
    lists = of_section(files, "splits")
    if lists and not here.keys() >= set(lists):  # both lists come from one place
        copy = locate(dataset, name, data)
        beside = lists_of({}, (copy.path, copy.path.parent)) if copy else {}
        here |= {setting: (beside[setting.split(".")[1]], "beside the images") for setting in lists if beside}
    found: dict[str, tuple[Path, str]] = {}
    missing: dict[str, str] = {}
    dead = ""
    for setting, file in files.items():
        if setting in here:
            path, origin = here[setting]
            _parse(setting, path)
            if origin == "data folder" and file.sha256 is not None and digest_of(path, "sha256") != file.sha256:
                say(f"{name}: {path} is not the published {file.name}, and is taken, because it lies here")
                origin += ", and is not the published file"
            found[setting] = path, origin
            continue
        try:
            found[setting] = _fetched(dataset, setting, file, data, dead)
        except Unwritable:
            raise  # which is no matter of what is published
        except UserError as error:
            dead = str(error) if isinstance(error, Unreachable) else dead
            missing[setting] = str(error)
    if len(of_section(found, "splits")) == len(SPLITS):  # no image stands in both
        read_lists({split: found[f"splits.{split}"][0] for split in SPLITS}, facts_of(dataset.kind))
    return found, missing


def _fetched(dataset: Dataset, setting: str, file: PublishedFile, data: Path, dead: str) -> tuple[Path, str]:
    """(path, address) of a wanted file that is not on this machine.

    dead: what happened when the source gave no answer, "" if it was not so; it is not asked again then. Raises UserError where the
    file cannot be had, or where what was sent is no such file.
    """
    folder = _folder_of_the_user(dataset)
    if folder is not None:
        raise UserError(f"{folder / file.name}: missing")
    if dead:
        raise UserError(dead)
    address, target = f"{_source(dataset)}/{file.name}", _kept(dataset, file, data)
    if target.is_file():
        target.unlink()  # it has another checksum than is known now
    # The checksum is that of the public source. What the user names may be other tables in their form.
    fetch(address, target, checksum=f"sha256:{file.sha256}" if file.sha256 and not dataset.published else None)
    try:
        _parse(setting, target)
    except UserError as error:
        target.unlink()
        what = _MEANINGS[setting.split(".")[0]]
        raise UserError(f"{address}: sent no {what} ({str(error).removeprefix(f'{target}: ')}); nothing kept") from None
    return target, address


def _parse(setting: str, path: Path) -> None:
    """Raise UserError where the file is not what the setting is for."""
    section = setting.split(".")[0]
    if section == "keypoints":
        from potgan.data.keypoint_files import read_keypoints

        if not len(read_keypoints(path)):
            raise UserError(f"{path}: has no rows")
    elif section == "pairs":
        from potgan.data.pairs import read_pairs

        if not len(read_pairs(path)):
            raise UserError(f"{path}: has no pairs")
    else:
        names = path.read_bytes().split()
        if not names or not all(re.fullmatch(rb"\S+\.jpg", name, re.IGNORECASE) for name in names):
            raise UserError(f"{path}: is no list of image names, one per line")


def _on_this_machine(dataset: Dataset, file: PublishedFile, data: Path) -> tuple[Path, str] | None:
    """(path, origin) of a wanted file that need not be fetched. Nothing is changed, because a plan asks, too."""
    folder = _folder_of_the_user(dataset)
    if folder is not None:
        return (folder / file.name, "the user's folder") if (folder / file.name).is_file() else None
    if not dataset.published and (data / file.name).is_file():
        return data / file.name, "data folder"
    kept = _kept(dataset, file, data)
    if not kept.is_file():
        return None
    known = None if dataset.published else file.sha256
    if known is not None and digest_of(kept, "sha256") != known:
        return None  # a checksum that was corrected since, or a file that somebody has edited
    return kept, f"{_source(dataset)}/{file.name}"


def _kept(dataset: Dataset, file: PublishedFile, data: Path) -> Path:
    """Where a fetched file stays. Each source has a folder of its own, so that no file stands for that of another source."""
    return kept_in(data, dataset.kind) / (fingerprint(_source(dataset)) if dataset.published else "") / file.name


def kept_in(data: Path, kind: str) -> Path:
    """The folder of the files that were fetched from the public source."""
    return data / PUBLISHED / kind


def _check_place(dataset: Dataset) -> None:
    """Raise UserError where `published` is neither a folder nor an address. It is then most likely mistyped."""
    folder = _folder_of_the_user(dataset)
    address = dataset.published or ""
    if folder is not None and not folder.is_dir():
        what = "is no address that can be fetched (https://..., drive:...)" if "://" in address else "is no folder"
        raise UserError(
            f"published: {address} {what}; name the folder or the address of the published tables and lists, or leave it out"
        )
    if folder is None and re.fullmatch(r"(https?://|drive:)/*", address):
        raise UserError(f"published: {address} names no server or folder; complete it, or leave it out")


def _source(dataset: Dataset) -> str:
    return (dataset.published or facts_of(dataset.kind)["published"]["source"]).rstrip("/")


def _folder_of_the_user(dataset: Dataset) -> Path | None:
    return Path(at_home(dataset.published)) if dataset.published and not is_address(dataset.published) else None


def _put(dataset: Dataset, data: Path) -> str:
    """Where a person puts files that are missing, for a message."""
    if not dataset.published:
        return f"put them into {data}"
    if _folder_of_the_user(dataset) is not None:
        return f"put them into {dataset.published}"
    return f"leave `published` out and put them into {data}"


def _names(files: dict[str, PublishedFile], settings: list[str]) -> str:
    return " and ".join(files[setting].name for setting in settings)


def _cannot(names: str) -> str:
    return f"{names} cannot be had"


def _decision(estimator: str, without: str) -> str:
    if estimator == "table":
        return "key points come from the published tables"
    return f"OpenPifPaf finds the key points, because {_cannot(without)}"


def _built(dataset: Dataset, split: str) -> str:
    settings = dataset.pairs
    drawn = (
        f", of which {settings.test_sample:,} are drawn with seed {settings.test_seed}"
        if split == "test" and settings.test_sample
        else ""
    )
    return f"{split} pairs are formed by the rule {settings.rule}{drawn}"
