"""Write benchmarks/rates.csv from finished searches for learning rates, and print which rate each method is given.

Usage:
    snakemake --cores 2 --configfile config/config.yaml config/methods.yaml config/methods-rates.yaml --keep-going -- models
    snakemake --cores 2 --configfile config/config.yaml config/methods.yaml config/methods-rates-full.yaml --keep-going -- models
    snakemake --cores 2 --configfile config/config.yaml config/methods.yaml config/methods-rates-edge.yaml --keep-going -- models
    python benchmarks/rates.py results/embedded-rates results/embedded-rates-full results/embedded-rates-edge

Each row: a method, one of its learning rates, the length of the training, and the mean scores of the validation pairs at its end.
A training that ended too early has none, because it exploded or was stopped, and its row says after how many iterations. Of the
longest trainings of a method, the one with the highest mean of SSIM and of SSIM inside the mask is chosen, so that neither a smooth
background nor people without one decide alone. No test pair is looked at.
"""

import argparse
from pathlib import Path

import pandas as pd

from potgan.common.files import write_text
from potgan.settings.layout import Layout
from potgan.settings.reading import load

SCORES = ("validation_ssim", "validation_mask_ssim", "validation_foreground_ssim")


def tries(results: Path) -> list[dict]:
    """One row for each training of a compared method in a folder of results."""
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
            progress = pd.read_csv(folder / "progress.csv") if (folder / "progress.csv").is_file() else pd.DataFrame()
            last = progress.iloc[-1] if finished else {}
            stopped = (
                f"ended after {progress['iteration'].iloc[-1]:.0f} iterations"
                if len(progress)
                else "exploded or not run"
            )
            rows.append(
                {
                    "method": settings.method,
                    "learning_rate": settings.training.learning_rate,
                    "iterations": settings.training.iterations,
                    "batch_size": settings.training.batch_size,
                    "outcome": "finished" if finished else stopped,
                    **{score: last.get(score) for score in SCORES},
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/rates.csv"))
    arguments = parser.parse_args()
    rows = [row for results in arguments.results for row in tries(results)]
    table = pd.DataFrame(rows).sort_values(["method", "iterations", "learning_rate"], ignore_index=True)
    longest = table["iterations"] == table.groupby("method")["iterations"].transform("max")
    judged = table[longest & table["validation_ssim"].notna()]
    without = sorted(set(table["method"]) - set(judged["method"]))
    if without:
        raise SystemExit(f"rates.py: none of the longest trainings of {', '.join(without)} is finished; run them first")
    quality = judged["validation_ssim"] + judged["validation_foreground_ssim"]
    table["chosen"] = table.index.isin(quality.groupby(judged["method"]).idxmax())
    write_text(arguments.out, table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
