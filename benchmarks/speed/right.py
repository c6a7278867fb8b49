"""The tests marked `cuda`, and what came of each, as JSON.

Usage: python benchmarks/speed/right.py [--device cuda] [--json FILE]

It ends with code 1 if a test fails, and also if none runs.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from workers import REPOSITORY, record, write

TESTS = REPOSITORY / "tests" / "training" / "test_gpu.py"


class Outcomes:
    """Collects the outcome of every test: "passed", "failed", or "skipped" with the reason."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        found: dict[str, Any] = {"outcome": report.outcome, "seconds": round(report.duration, 2)}
        if report.outcome == "failed":
            found["why"] = str(report.longrepr)[-600:]
        elif report.outcome == "skipped":
            found["why"] = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        self.of[report.nodeid.partition("::")[2]] = found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--workers", type=int, default=4, help="processes that tests run in, where pytest-xdist is installed"
    )
    parser.add_argument("--keyword", help="run only the tests that this expression of pytest's -k picks")
    parser.add_argument("--json", type=Path, help="write the outcomes there, too")
    arguments = parser.parse_args()
    os.environ["POTGAN_GPU_TESTS_ON"] = arguments.device
    outcomes = Outcomes()
    options = ["-q", "-m", "cuda", "-p", "no:cacheprovider", "--durations=20"]
    keyword = arguments.keyword or (
        "not compiled" if arguments.device == "cpu" else None
    )  # a C++ compiler takes minutes
    if keyword:
        options += ["-k", keyword]
    try:
        import xdist  # noqa: F401

        options += ["-n", str(arguments.workers)]
    except ImportError:
        pass
    code = pytest.main([*options, str(TESTS)], plugins=[outcomes])
    counts = {
        kind: sum(test["outcome"] == kind for test in outcomes.of.values()) for kind in ("passed", "failed", "skipped")
    }
    print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    write(arguments.json, record("right.py", vars(arguments), counts=counts, tests=outcomes.of))
    if code or not counts["passed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
