"""The judgement over results by their records, where a record was damaged or belongs to another version of the program."""

import os
import shutil
from pathlib import Path

import pytest
from test_workflow import TINY

from potgan.common.errors import UserError
from potgan.pipeline.jobs import Job, jobs
from potgan.pipeline.records import refuse_strangers, stale
from potgan.settings.layout import Layout
from potgan.settings.reading import load

DAMAGED = [
    "",
    "[]",
    "{",
    '{"version": 9}',
    '{"decided_by": [1]}',
    '{"decided_by": {"settings": 1, "code": 1, "inputs": 1, "result": 1}}',
    '{"images": "x", "generators": 5, "decided_by": {"settings": 1, "code": 1, "inputs": {}, "result": 1}}',
    '{"images": "x", "generators": ["a"], "decided_by": {"settings": 1, "code": 1, "inputs": {}, "result": 1}}',
]


@pytest.fixture(scope="module")
def everything(finished, tmp_path_factory) -> tuple[dict[tuple, Job], Layout]:
    root = Path(shutil.copytree(finished, tmp_path_factory.mktemp("records") / "root", symlinks=True))
    layout = Layout("tiny", root)
    return jobs(load(TINY), layout), layout


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_job_whose_record_is_damaged_is_made_again_whichever_job_it_is(everything, damaged) -> None:
    found, layout = everything
    assert list(stale(found, layout)) == []
    for job in found.values():
        whole, times = job.record.read_bytes(), job.record.stat()
        job.record.write_text(damaged)
        listed = {one.key: more_than_code for one, _, more_than_code in stale(found, layout)}
        assert listed[job.key], job.name
        if job.stage != "tabulate":
            with pytest.raises(UserError, match="belongs to another run than the configuration's now"):
                refuse_strangers(load(TINY), layout)
        job.record.write_bytes(whole)
        os.utime(job.record, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert list(stale(found, layout)) == []


def test_every_file_that_a_rule_declares_is_missed(everything) -> None:
    """Snakemake itself looks only at the outputs that a job asks for which it runs, or the command line."""
    found, layout = everything
    for job in found.values():
        # Nothing reads the records of these two, so that without one the job is not done yet.
        for path in job.outputs if job.stage not in ("tabulate", "masks") else job.outputs[1:]:
            path.rename(path.with_name("aside"))
            assert [one.key for one, why, _ in stale(found, layout) if f"{path.name} is missing" in why] == [job.key]
            path.with_name("aside").rename(path)
    assert list(stale(found, layout)) == []


def test_files_that_no_rule_declares_and_later_jobs_read_are_missed(everything) -> None:
    found, layout = everything
    for job, name in ((found["pairs", "synthetic"], "flow.npz"), (found["feature_network",], "network.pt")):
        (job.folder / name).rename(layout.root / "aside")
        assert [(one.key, why) for one, why, _ in stale(found, layout)] == [(job.key, f"{name} is missing")]
        (layout.root / "aside").rename(job.folder / name)
    assert list(stale(found, layout)) == []


def test_a_training_that_is_away_as_a_whole_is_not_missed(everything, tmp_path) -> None:
    """Scores that were pulled or copied without their trainings stay valid."""
    found, layout = everything
    trainings = [job for job in found.values() if job.stage == "train"]
    assert trainings
    for job in trainings:
        job.folder.rename(tmp_path / "away")
        assert list(stale(found, layout)) == []
        (tmp_path / "away").rename(job.folder)
