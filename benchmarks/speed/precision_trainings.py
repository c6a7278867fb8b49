"""The trainings of a benchmark, several at the same time on one card; by default those of config/precision.yaml.

Usage: snakemake --cores 2 --configfile config/config.yaml config/precision.yaml config/precision-tf32.yaml -- data
       python benchmarks/speed/precision_trainings.py [--device cuda] [--json FILE]
       python benchmarks/speed/precision_trainings.py --config results/embedded-long/config.yaml --models potgan no-recon
           [--seeds 0 1] [--at-once 6] [--recorded]

The first command makes the embedded data set; it may run on another machine, from which `results/precision` is then copied. The
trained runs lie in `results/precision`, as `snakemake` would have made them. Where snakemake is installed, the same configuration
with `-- all` in place of `-- data` then makes the report of them, and `python benchmarks/precision.py` the table.

Small networks leave most of a GPU idle, and so several trainings take hardly longer than one. --recorded: a training is not
compiled, however long it is. Compiling many small networks at the same time takes longer than it saves.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from workers import REPOSITORY, record, write

from potgan.common.errors import UserError
from potgan.settings.layout import Layout
from potgan.settings.reading import load

CONFIGURATION = REPOSITORY / "results" / "precision" / "config.yaml"
#: `potgan`, in a process that finds no training long enough to be compiled.
NOT_COMPILED = (
    "import sys; from potgan.common import device; device.WORTH_COMPILING = sys.maxsize; "
    "from potgan.__main__ import main; sys.exit(main())"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--config", type=Path, default=CONFIGURATION, help="results/<benchmark>/config.yaml; default: precision's"
    )
    parser.add_argument(
        "--models", nargs="+", help="only these; default: all of the benchmark that are trained by themselves"
    )
    parser.add_argument("--seeds", nargs="+", type=int, help="only these; default: all of the benchmark")
    parser.add_argument("--at-once", type=int, default=6, help="trainings at the same time")
    parser.add_argument(
        "--recorded", action="store_true", help="record the step as a CUDA graph, but do not compile it"
    )
    parser.add_argument("--json", type=Path, help="write what each training took there, too")
    arguments = parser.parse_args()
    if not arguments.config.exists():
        raise SystemExit(
            f"{arguments.config}: missing; run `snakemake --cores 2 --configfile config/config.yaml config/precision.yaml "
            "config/precision-tf32.yaml -- data` first"
        )
    benchmark = load(arguments.config)
    environment = dict(os.environ)
    if arguments.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    (dataset,) = benchmark.datasets
    tasks = [
        (model, seed)
        for model in arguments.models or benchmark.models
        for seed in arguments.seeds or benchmark.seeds
        if benchmark.trained_as(dataset, model) == model
        if arguments.device == "cuda" or benchmark.run_settings(dataset, model, seed).training.precision != "tf32"
    ]

    def train(task: tuple[str, int]) -> int:
        model, seed = task
        program = ["-c", NOT_COMPILED] if arguments.recorded else ["-m", "potgan"]
        command = [sys.executable, *program, "train", "--config", str(arguments.config.resolve()), "--dataset", dataset,
                   "--model", model, "--seed", str(seed)]  # fmt: skip
        return subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode

    start = time.perf_counter()
    with ThreadPoolExecutor(arguments.at_once) as pool:
        codes = dict(zip(tasks, pool.map(train, tasks), strict=True))
    seconds = time.perf_counter() - start
    layout, runs = Layout(benchmark.benchmark), {}
    for model, seed in tasks:
        if codes[model, seed]:
            print(f"{model}, seed {seed}: ended with code {codes[model, seed]}")
            continue
        done = json.loads((layout.train(dataset, model, seed) / "done.json").read_text())
        runs[f"{model}/seed{seed}"] = {
            key: done[key] for key in ("device", "precision", "iterations", "wall_seconds", "pairs_per_second")
        }
        print(
            f"{model}, seed {seed}: {done['precision']}, {done['iterations']} iterations in {done['wall_seconds']} s on "
            f"{done['device']}"
        )
    write(arguments.json, record("precision_trainings.py", vars(arguments), seconds=seconds, runs=runs))
    if any(codes.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
