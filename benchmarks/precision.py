"""Write benchmarks/precision.csv from a finished run of the benchmark `precision`.

Usage:
    snakemake --cores 2 --configfile config/config.yaml config/precision.yaml -- all
    python benchmarks/precision.py [reports/precision]

Each row: a metric of the embedded benchmark in fp32 (mean and standard deviation over seeds), and the paired difference of
the same training in another precision. Rows of precisions that this run has not are kept: TF32 needs a GPU.
"""

import sys
from pathlib import Path

import pandas as pd

from potgan.common.files import write_text
from potgan.common.paths import MEASURED_PRECISION
from potgan.settings.precision import COLUMNS, measured, precision_of
from potgan.settings.reading import load

METRICS = ("ssim", "mask_ssim", "fid", "is", "l1")


def main() -> None:
    report = Path(sys.argv[1] if len(sys.argv) > 1 else "reports/precision")
    benchmark = load(Path("results", report.name, "config.yaml"))
    table = pd.read_csv(report / "tables" / "ablations.csv")
    per_seed = pd.read_json(report / "metrics.json", typ="series")
    rows = []
    for row in table[table["metric"].isin(METRICS)].itertuples():
        reference = per_seed[row.dataset][row.against]
        found = (
            precision_of(benchmark, row.method), row.metric, row.against_value, reference[f"{row.metric}_sd"],
            row.difference, row.sd, row.n_seeds, row.n_pairs,
        )  # fmt: skip
        rows.append(dict(zip(COLUMNS, found, strict=True)))
    new = pd.DataFrame(rows, columns=list(COLUMNS))
    old = measured()
    frame = pd.concat([new, old[~old["precision"].isin(new["precision"])]])
    write_text(MEASURED_PRECISION, frame.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
    print(frame.to_string(index=False))


if __name__ == "__main__":
    main()
