"""One whole run of the workflow, which the tests of this folder share."""

from pathlib import Path

import pytest
from test_workflow import TINY, snakemake, write


@pytest.fixture(scope="session")
def finished(repository, tmp_path_factory) -> Path:
    """A folder with the finished tiny benchmark. A test that changes it works on a copy, or puts back what it changed."""
    folder = tmp_path_factory.mktemp("tiny")
    write(folder, TINY)
    run = snakemake(repository, folder)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "reports/tiny/index.html" in run.stderr  # the summary says where the report lies
    return folder
