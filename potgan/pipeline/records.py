"""What decided each result, and whether what lies there still is what the configuration asks for.

Every job of the pipeline writes a record (a JSON file) beside its results, and `decided_by` in it holds three things: the
settings that it depends on, the code that it reaches, and the content of what it read. Snakemake's own memory
(`.snakemake/metadata`) and file times are not versioned and do not travel: after `dvc pull`, `git checkout` or a copy
they say nothing or the wrong thing. Records travel with the results, and Snakemake is told what they say
(`potgan.pipeline.snakemake`).
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from potgan.common.errors import UserError
from potgan.common.files import fingerprint, write_json
from potgan.common.progress import say
from potgan.pipeline import packing
from potgan.pipeline.digests import digest
from potgan.pipeline.jobs import Job, Key, jobs
from potgan.settings.layout import Layout
from potgan.settings.schema import Benchmark

#: Per stage: the files whose content later results depend on. Where a stage is not named, it is the record without what
#: `_NO_CONTENT` names.
_CONTENT = {
    "images": ("images.csv",),
    "keypoints": ("keypoints.csv",),
    "pairs": ("pairs-train.csv", "pairs-validation.csv", "pairs-test.csv"),
    "evaluate": ("scores.json",),
    "tabulate": (),  # nothing is made from it
}
_NO_CONTENT = ("decided_by", "training")
_DECIDED_BY = {"settings", "code", "inputs", "result"}

Record = dict[str, Any]  # a job's JSON file, of whichever stage


def recorded(stage: Callable) -> Callable:
    """A stage's function that, when it has succeeded, writes into its record what decided the result."""

    @functools.wraps(stage)
    def run(benchmark: Benchmark, layout: Layout, *of: Any, **named: Any) -> None:
        everything = jobs(benchmark, layout)
        # A model that shares another's training can be trained by hand, and is no job.
        job = everything.get((stage.__name__, *inspect.signature(stage).bind(benchmark, layout, *of, **named).args[2:]))
        for other in map(everything.get, job.before if job is not None else ()):
            # Verbs that are run by hand: a decision must not outlive its settings.
            if other is not None and other.stage == "published" and _made_with_other_settings(other):
                raise UserError(f"{other.record}: was decided with other settings; run `potgan published` again")
        # Before the stage runs: what it reads is what it finds now.
        decided = _decided_by(job, everything, layout) if job is not None else None
        stage(benchmark, layout, *of, **named)
        if job is not None and os.environ.get("RANK", "0") == "0":
            decided["result"] = _content(job)
            write_json(job.record, (_record(job) or {}) | {"decided_by": decided})

    return run


def to_do(everything: dict[Key, Job], again: Collection[Key]) -> list[Key]:
    """The jobs that a run would do: those of `again`, those whose results are missing, and all that read a result of these.

    A result in an archive that waits to be unpacked is not missing.
    """
    found: dict[Key, None] = {}
    for key, job in everything.items():
        there = packing.waits(job) or all(path.exists() for path in job.outputs)
        if key in again or not there or any(before in found for before in job.before):
            found[key] = None
    return list(found)


def stale(everything: dict[Key, Job], layout: Layout) -> Iterator[tuple[Job, str, bool]]:
    """(job, why, whether more than code differs) of each of these `jobs` whose result is there and is not what would be made now.

    A result whose whole folder is away is not listed: whoever looks sees that, and a part of the results can be pulled. Nor is
    what only depends on something listed.
    """
    records = {key: _record(job) for key, job in everything.items()}
    read = {before for key, job in everything.items() if records[key] is not None for before in job.before}
    for key, job in everything.items():
        record = records[key]
        if record is None:
            if _record_bytes(job) is not None:
                yield job, "its record cannot be read", True
            elif key in read and job.folder.is_dir() and any(job.folder.iterdir()):
                # Snakemake does not miss what only a finished job asks for.
                yield job, f"{job.record.name} is missing", True
            continue
        found = record.get("decided_by")
        if not (isinstance(found, dict) and found.keys() >= _DECIDED_BY and isinstance(found["inputs"], dict)):
            yield job, "has no record of what decided it", True
            continue
        now = _decided_by(job, everything, layout)
        reasons = []
        if found["settings"] != now["settings"]:
            reasons.append("other settings")
        # What a result was made from may be absent now: released results on a disk that is not connected, for example.
        differing = [
            name for name, was in now["inputs"].items() if was is not None and found["inputs"].get(name) != was
        ]
        if differing:
            reasons.append(f"other inputs ({', '.join(differing)})")
        if found["result"] != _content(job):
            reasons.append("its files were changed after they were made")
        missing = _missing_file(job, record)
        if missing:
            reasons.append(f"{missing} is missing")
        more_than_code = bool(reasons)
        if found["code"] != now["code"]:
            reasons.append("other code")
        if reasons:
            yield job, ", ".join(reasons), more_than_code


def _made_with_other_settings(job: Job) -> bool:
    """Whether the job's result is there, and its record says that it was made with other settings than those of now."""
    record = _record(job)
    decided = record.get("decided_by") if record else None
    return isinstance(decided, dict) and decided.get("settings") not in (None, fingerprint(job.settings))


def refuse_strangers(benchmark: Benchmark, layout: Layout) -> None:
    """UserError unless every score belongs to the settings, data and protocol of now: results that were copied or pulled
    from another revision must not slip into a table."""
    for job, why, more_than_code in stale(jobs(benchmark, layout), layout):
        if job.stage == "tabulate":
            continue
        if more_than_code:
            raise UserError(
                f"{job.record}: belongs to another run than the configuration's now ({why}); run the workflow again "
                "(snakemake --cores 8 all), or this stage by hand"
            )
        say(f"{job.name}: was made by other code than the present; the workflow makes it again")


# ---------------------------------------------------------------------------------------------------------------------


def _decided_by(job: Job, others: dict[Key, Job], layout: Layout) -> Record:
    """What decides the job's result now; `recorded` adds `result`, the content of what came out."""
    inputs = {others[key].name: _content(others[key]) for key in job.before}
    if job.stage == "tabulate":
        inputs = {"scores": fingerprint(inputs)}
    inputs |= {path: digest(Path(path), layout.digests) for path in job.given}
    return {"settings": fingerprint(job.settings), "code": job.code, "inputs": inputs}


def _content(job: Job) -> str | None:
    """Fingerprint of the part of a job's results that later ones depend on; None where it is not there."""
    if job.stage == "train":
        # The record also holds the time that the training took, which is no part of what it found.
        record = _record(job)
        return fingerprint(record.get("generators")) if record else None
    if job.stage == "published":
        # The files themselves, because somebody may have edited one.
        record = _record(job)
        digests = {name: str(_digest_of_output(job, name)) for name in _collected(record or {})}
        return fingerprint([record.get("estimator"), digests]) if record else None
    if job.stage not in _CONTENT:
        record = _record(job)
        return fingerprint({k: v for k, v in record.items() if k not in _NO_CONTENT}) if record else None
    content = hashlib.sha256()
    for name in _CONTENT[job.stage]:
        found = _digest_of_output(job, name)
        if found is None:
            return None
        content.update(found)
    return content.hexdigest()[:12]


def _collected(record: Record) -> list[str]:
    """The files that a record of the stage `published` names; none where it is damaged."""
    files = record.get("files")
    entries = list(files.values()) if isinstance(files, dict) else []
    return [entry["file"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("file"), str)]


def _digest_of_output(job: Job, name: str) -> bytes | None:
    path = packing.archive_of(job.folder) if packing.waits(job) else job.folder / name
    try:
        status = path.stat()
    except OSError:
        return None
    return _digest_once(job, name, status.st_size, status.st_mtime_ns)


@functools.cache
def _digest_once(job: Job, name: str, size: int, time: int) -> bytes:
    content = packing.read(job, name) or b""
    if name.endswith(".json"):
        record = _json(content) or {}
        record.pop("decided_by", None)
        content = json.dumps(record, sort_keys=True).encode()
    return hashlib.sha256(content).digest()


def _record(job: Job) -> Record | None:
    content = _record_bytes(job)
    return None if content is None else _json(content)


def _record_bytes(job: Job) -> bytes | None:
    return packing.read(job, job.record.relative_to(job.folder).as_posix())


def _json(content: bytes) -> Record | None:
    """The mapping that the bytes hold, or None where they hold no mapping."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _missing_file(job: Job, record: Record) -> str | None:
    """A file of the job's results that is not there: one that its rule declares, or one that the record names."""
    if packing.waits(job):  # an archive is whole, or is refused
        return None
    # Snakemake looks only at those outputs that another job asks for.
    wanted_files = [path.relative_to(job.folder).as_posix() for path in job.outputs]
    if job.stage == "train":
        generators = record.get("generators")
        wanted_files += generators if isinstance(generators, dict) else []
    elif job.stage == "published":
        wanted_files += _collected(record)
    elif job.stage == "feature_network":
        wanted_files.append("network.pt")
    elif job.stage == "pairs" and json.loads(job.settings)["kind"] == "synthetic":
        wanted_files.append("flow.npz")
    lost = [name for name in wanted_files if not (job.folder / name).exists()]
    if lost:
        return lost[0]
    if job.stage == "generate":
        folder = job.folder / "images"
        count = sum(1 for _ in os.scandir(folder)) if folder.is_dir() else 0
        wanted = record.get("images")
        return None if not isinstance(wanted, int) or count >= wanted else f"{wanted - count} of {wanted} images"
    return None
