"""What the workflow's files need of the package: Snakemake is told what the records say, and no result is touched for it.

Snakemake decides by the times of files, which after a pull, a checkout or a copy say the wrong thing. So each job's rule has
a stamp among its inputs, a small file under `.snakemake/`, and Snakemake's table of existing files and their times is
filled before it is used (`show`). A plain `snakemake` is right with or without a memory of its own, and `snakemake -n`
sees what a run would see without writing anything beside `.snakemake/`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from potgan.common.files import write_text
from potgan.pipeline import packing
from potgan.pipeline.jobs import Job, Key
from potgan.pipeline.records import stale, to_do
from potgan.settings.layout import Layout

if TYPE_CHECKING:
    from snakemake.workflow import Workflow

#: The time of a stamp that asks for nothing: older than any result.
_LONG_AGO = 946_684_800.0  # 2000-01-01, in seconds


def prefer_this_python() -> None:
    """Let the jobs that this process starts find its own Python first, also where it was called by its path and its
    environment is not active."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def write_stamps(everything: dict[Key, Job], layout: Layout) -> dict[Key, str]:
    """Write the stamps of these `jobs`; returns why, for each job whose result is stale.

    A stamp holds the settings and the code of its job, and where the result is stale also why. Raises UserError where
    `.snakemake/` cannot be written, or an archive of results is damaged.
    """
    asked = {job.key: why for job, why, _ in stale(everything, layout)}
    for key, job in everything.items():
        stamp = layout.stamp(*key)
        text = json.dumps({"settings": json.loads(job.settings), "code": job.code}, indent=1) + "\n"
        if key in asked:
            # Never the same twice: Snakemake passes over an input that is newer but has a content that it remembers.
            write_text(stamp, json.dumps({"stale": asked[key], "asked": uuid.uuid4().hex}) + "\n" + text)
        elif not stamp.exists() or stamp.read_text(encoding="utf-8") != text:
            write_text(stamp, text)
    return asked


def show(workflow: Workflow, everything: dict[Key, Job], asked: Collection[Key], layout: Layout) -> None:
    """Fill Snakemake's table of files with what the records say of these `jobs`.

    Outputs of a job that is as it should be are no older than those that they were made from, its stamp and the user's
    files are older than all results, and what an archive holds is there. asked: what `write_stamps` returned.
    """
    from snakemake.io import Mtime

    runs = set(to_do(everything, {*asked, *_forced(workflow, everything)}))
    times: dict[Path, float] = {}
    for key, job in everything.items():
        if key in asked:
            continue
        newest = max(
            (times.get(path, 0.0) for before in job.before for path in everything[before].outputs), default=0.0
        )
        # Snakemake counts the file of a job's times among its outputs where it is there.
        for path in (*job.outputs, layout.times(*key)):
            if path.exists():
                times[path] = max(path.stat().st_mtime, newest)
            elif path in job.outputs and key not in runs:  # it waits in an archive
                times[path] = max(packing.archive_of(job.folder).stat().st_mtime, newest)
                workflow.iocache.exists_local[str(path)] = True
        if all(path in times for path in job.outputs):
            times |= {path: _LONG_AGO for path in (layout.stamp(*key), *map(Path, job.given))}
    workflow.iocache.mtime.update({str(path): Mtime(local=time) for path, time in times.items()})


def _forced(workflow: Workflow, everything: dict[Key, Job]) -> list[Key]:
    """Jobs that the command line asks to run whatever the records say (`--forcerun`, `--force`, `--forceall`)."""
    settings = workflow.dag_settings
    named = {*settings.forcerun, *(settings.targets if settings.forcetargets else ())}
    return [
        key
        for key, job in everything.items()
        if settings.forceall or not named.isdisjoint((job.stage, *map(str, job.outputs)))
    ]


def failures(told: Sequence[Path], logs: Path) -> list[str]:
    """One line for each job that has failed and was not done by a later try: the job, and the last words of its log.

    told: the files in which Snakemake writes what it says. logs: the folder of the jobs' logs.
    """
    failed: dict[str, tuple[str, str]] = {}
    rule = number = ""
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in told if path.is_file())
    for line in text.splitlines():
        if match := re.match(r"Error in rule (\w+):", line):
            rule = match[1]
        elif rule and (match := re.match(r"    jobid: (\d+)", line)):
            number = match[1]
            failed[number] = rule, ""
        elif rule and (match := re.match(r"    log: (.+?) \(check", line)):
            failed[number] = rule, match[1]
            rule = ""
        elif match := re.match(r"Finished jobid: (\d+)", line):
            failed.pop(match[1], None)
    return [f"{_name_of_log(path, logs) or rule}: {_last_words(path)}" for rule, path in failed.values()]


def _name_of_log(path: str, logs: Path) -> str:
    place = Path(path)
    return (place.relative_to(logs) if place.is_relative_to(logs) else place).with_suffix("").as_posix() if path else ""


def _last_words(path: str) -> str:
    """The last message in a log: its error line where the end has one, and else its last line."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return "it has left no log"
    said = [line.strip() for line in lines if line.strip()][-5:]
    errors = [line for line in said if ": error: " in line]
    return (errors or said or ["it has said nothing"])[-1]
