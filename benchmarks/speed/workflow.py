"""Seconds until Snakemake and DVC know what is to be done: nothing, or the 120 trainings of the ablation matrix.

Usage: python benchmarks/speed/workflow.py [--rounds 5]       from the repository's root, after `snakemake --cores 2 all`

Whole processes, as a person starts them. Without a finished embedded benchmark only the matrix is planned.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from potgan.pipeline.snakemake import prefer_this_python

MATRIX = ["--configfile", "config/three-layouts.yaml", "benchmarks/ablations.yaml"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    prefer_this_python()
    questions = {
        "snakemake -n, 120 trainings": (["snakemake", "-n", "--cores", "2", *MATRIX, "--", "all"], r"train +120")
    }
    if Path("reports/embedded/index.html").exists():
        questions["snakemake all, nothing to do"] = (["snakemake", "--cores", "2", "--", "all"], "Nothing to be done")
        questions["dvc repro, nothing to do"] = (["dvc", "repro"], "up to date")
    else:
        print("without the two no-ops: run `snakemake --cores 2 all` and `dvc repro` first", file=sys.stderr)
    seconds: dict[str, list[float]] = {name: [] for name in questions}
    for _ in range(rounds):
        for name, (command, expected) in questions.items():
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds[name].append(time.perf_counter() - start)
            if done.returncode or not re.search(expected, done.stdout + done.stderr):
                sys.exit(f"{name}: not what was expected:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    for name, times in seconds.items():
        print(f"{name}: median {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})")


if __name__ == "__main__":
    main()
