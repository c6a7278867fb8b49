"""What each part of PoT-GAN brings, in several benchmarks side by side, such as trainings of several lengths.

`python -m potgan.report.claims REPORT ...` prints Markdown. REPORT is a folder of reports, reports/<benchmark>, whose
tables/ablations.csv is read. A column is a report, and a table is a metric.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from potgan.common.errors import UserError
from potgan.common.text_streams import write_readably
from potgan.report.tables import signed
from potgan.settings.protocols import METRIC_LABELS, METRICS

SHOWN = ("ssim", "foreground_ssim", "mask_ssim", "fid")
#: Part -> rows: (words, method). What a row shows is the main model minus the method: what the model gains by having the part.
PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "The pose transform": (
        ("against no pose transform (the paper's ablation)", "no-pose-transform"),
        ("against no pose transform, as many parameters", "wide-no-pose-transform"),
        ("against no pose transform, masks seen", "masks-without-warps"),
        ("against the module with identity grids", "identity-grids"),
    ),
    "Its warps, in the trained network": (
        ("own warps against none", "{main}-identity-warps"),
        ("own warps against the mean warp", "{main}-mean-warp"),
        ("own warps against another pair's", "{main}-other-warps"),
        ("own warps against the true flow", "{main}-true-flow"),
    ),
    "L_recon": (("against its weight 0", "no-recon"),),
    "The guided filter": (
        ("on the finished network, against none", "no-guided-filter"),
        ("on the finished network, against in training (the paper's place)", "filter-in-training"),
    ),
    "Binary masks": (("against grey levels", "grey-masks"),),
}


def claims(reports: Sequence[Path]) -> str:
    """Return the tables as Markdown: for each data set, one for each of SHOWN that any report has.

    A cell is the mean difference with its 95 % interval over people. It is bold where an effect is shown: the interval excludes 0,
    and all seeds agree in sign. Metrics of a whole set have no interval, and are bold nowhere.

    Raises UserError without a report, for a folder without tables/ablations.csv, for a report without a second model, for two
    reports of one name, and for reports of different main models or metrics' protocols.
    """
    if not reports:
        raise UserError("claims: name at least one folder of reports, such as reports/embedded")
    frames = {report.resolve().name: _read(report) for report in reports}
    if len(frames) < len(reports):
        raise UserError("claims: two of the reports have one name; a column would stand for both")
    # A model in another precision is compared with its twin, which is a model itself and not the main one.
    mains = {main for frame in frames.values() for main in set(frame["against"]) - set(frame["method"])}
    if len(mains) > 1:
        raise UserError(f"claims: the reports compare with different models: {', '.join(sorted(mains))}; name others")
    (main,) = mains
    frames = {name: frame[frame["against"] == main] for name, frame in frames.items()}
    datasets = list(dict.fromkeys(dataset for frame in frames.values() for dataset in frame["dataset"]))
    lines: list[str] = []
    for dataset in datasets:
        lines += [f"### {dataset}", ""] if len(datasets) > 1 else []
        for metric in SHOWN:
            lines += _table(metric, dataset, main, frames)
    counts = {name: int(frame["n_seeds"].max()) for name, frame in frames.items()}
    seeds = ", ".join(f"`{name}`: {count} seed{'s' if count > 1 else ''}" for name, count in counts.items())
    lines.append(
        f"{seeds}. In brackets: 95 % intervals over people, each with all pairs of theirs. Bold: the interval excludes 0, and all "
        "seeds agree in sign. FID belongs to a whole set of images and has no interval. Nothing is corrected for the number of "
        "comparisons."
    )
    return "\n".join(lines) + "\n"


def _table(metric: str, dataset: str, main: str, frames: dict[str, pd.DataFrame]) -> list[str]:
    """The lines of one metric's table on one data set; none if no report has it."""
    found = {
        name: frame[(frame["metric"] == metric) & (frame["dataset"] == dataset)].set_index("method")
        for name, frame in frames.items()
    }
    protocols = {protocol for frame in found.values() for protocol in frame["protocol"]}
    if len(protocols) > 1:
        raise UserError(
            f"claims: {metric} was measured under {', '.join(sorted(protocols))}; name reports of one protocol"
        )
    if not protocols:
        return []
    better = {"higher": "positive is better", "lower": "negative is better"}[METRICS[metric]]
    lines = [f"**{METRIC_LABELS[metric]}** (`{protocols.pop()}`), gain of `{main}`; {better}.", ""]
    lines += ["| | " + " | ".join(f"`{name}`" for name in found) + " |", "|---" * (len(found) + 1) + "|"]
    for part, rows in PARTS.items():
        cells = []
        for words, method in rows:
            method = method.format(main=main)
            texts = [_cell(frame.loc[method]) if method in frame.index else "–" for frame in found.values()]
            if set(texts) != {"–"}:
                cells.append(f"| {words} | " + " | ".join(texts) + " |")
        lines += [f"| **{part}** |" + " |" * len(found), *cells] if cells else []
    return [*lines, ""]


def _read(report: Path) -> pd.DataFrame:
    path = report / "tables" / "ablations.csv"
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError:
        hint = "name a folder such as reports/embedded, or run `potgan tabulate`"
        raise UserError(f"{path}: is missing; {hint}") from None
    if "n_people" not in frame:
        raise UserError(f"{path}: its intervals are over pairs and not over people; run `potgan tabulate` again")
    if frame.empty:
        raise UserError(f"{path}: holds no second model; there is nothing to claim")
    return frame


def _cell(row: pd.Series) -> str:
    """The main model minus the method, with its interval."""
    text = signed(-row["difference"])
    if pd.isna(row["low"]):
        return text
    text += f" [{signed(-row['high'])}, {signed(-row['low'])}]"
    return f"**{text}**" if row["effect"] in ("helps", "hurts") else text


if __name__ == "__main__":
    write_readably()
    try:
        print(claims([Path(argument) for argument in sys.argv[1:]]), end="")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
