"""Write benchmarks/rates.csv from a finished search for learning rates, and print which rate each method is given.

Usage:
    snakemake --cores 2 --configfile config/config.yaml config/methods.yaml config/methods-rates.yaml --keep-going -- models
    python benchmarks/rates.py [results/embedded-rates] [benchmarks/rates.csv]

Each row: a method, one of its learning rates, and the mean scores of the validation pairs at the end of that training. A rate whose
training exploded has none. The rate with the highest SSIM is chosen; no test pair is looked at.
"""

import sys
from pathlib import Path

import pandas as pd

from potgan.common.files import write_text
from potgan.settings.layout import Layout
from potgan.settings.reading import load

SCORES = ("validation_ssim", "validation_mask_ssim", "validation_foreground_ssim")


def main() -> None:
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "results/embedded-rates")
    out = Path(sys.argv[2] if len(sys.argv) > 2 else "benchmarks/rates.csv")
    benchmark = load(results / "config.yaml")
    layout = Layout(benchmark.benchmark, results.parent.parent)
    rows = []
    for dataset in benchmark.datasets:
        for model in benchmark.models:
            settings = benchmark.run_settings(dataset, model, benchmark.seeds[0])
            if settings.method == "potgan":
                continue
            folder = layout.train(dataset, model, benchmark.seeds[0])
            finished = (folder / "done.json").is_file()
            last = pd.read_csv(folder / "progress.csv").iloc[-1] if finished else {}
            rows.append(
                {
                    "method": settings.method,
                    "learning_rate": settings.training.learning_rate,
                    "iterations": settings.training.iterations,
                    "batch_size": settings.training.batch_size,
                    "outcome": "finished" if finished else "exploded or not run",
                    **{score: last.get(score) for score in SCORES},
                }
            )
    table = pd.DataFrame(rows).sort_values(["method", "learning_rate"])
    best = table.groupby("method")["validation_ssim"].idxmax()
    table["chosen"] = [index in set(best) for index in table.index]
    write_text(out, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
