"""Shared paths and small fixtures. Data of ../shared are used where they lie and never copied into the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("MPLBACKEND", "Agg")
# A test's server is on this machine: no proxy before it, and no long waits for it.
os.environ["NO_PROXY"] = "127.0.0.1"
os.environ["POTGAN_DOWNLOAD_RETRIES"] = "2"

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real samples and published tables beside the repository."""
    if not (SHARED / "published").is_dir():
        pytest.skip(f"{SHARED} is absent: real Market-1501 samples and published tables are not part of the repository")
    return SHARED


@pytest.fixture
def server():
    """A web server on this machine; its pages are the test's."""
    from servers import Server

    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    import torch

    torch.set_num_threads(1)
