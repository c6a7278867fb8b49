"""Shared paths and small fixtures. Real samples that lie beside the repository are used there and never copied;
where they are absent, the tests that need them skip and say so."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# In the background of a shell, and under `nohup`, SIGINT is ignored here and in all that is started from here. The tests
# that press Ctrl-C need it as a terminal has it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A test that leaves another handler behind would stop the whole run at some later broken pipe or signal."""
    watched = (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in watched}
    yield
    changed = [number.name for number in watched if signal.getsignal(number) != before[number]]
    for number in watched:
        signal.signal(number, before[number])
    assert not changed, f"the test left another handler of {', '.join(changed)} behind"


@pytest.fixture
def no_weights(monkeypatch, tmp_path) -> None:
    """No weight file is here, and none can be fetched."""
    monkeypatch.setenv("POTGAN_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("POTGAN_DOWNLOAD_RETRIES", "0")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # no request leaves this machine
