"""The difference that training in another precision than fp32 makes to the results.

The paper implies that it trains in fp32. So no result of a model in bf16 or tf32 stands in a table without its difference to
fp32. If the same benchmark has a twin of the model in fp32, the ablation report compares the two. If not, the report states the
difference that was measured on the embedded benchmark (`benchmarks/precision.csv`, written by
`benchmarks/precision.py`).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from potgan.common.errors import UserError
from potgan.common.paths import MEASURED_PRECISION
from potgan.settings.schema import Benchmark

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("precision", "metric", "fp32", "fp32_sd", "difference", "difference_sd", "n_seeds", "n_pairs")


def precision_of(benchmark: Benchmark, model: str) -> str:
    """Return the precision that a model is trained in on the first data set where this is not fp32, or else "fp32"."""
    found = [benchmark.run_settings(dataset, model, 0).training.precision for dataset in benchmark.datasets]
    return next((precision for precision in found if precision != "fp32"), "fp32")


def _coarsest(precision: str) -> str:
    """The coarsest precision that a setting may mean."""
    return "bf16" if precision == "auto" else precision


def fp32_twin(benchmark: Benchmark, model: str) -> str | None:
    """Return the model that differs, on every data set, only by being trained in fp32. Return None if there is none."""

    def in_fp32(dataset: str, name: str) -> dict:
        run = benchmark.run_settings(dataset, name, 0)
        return dataclasses.replace(run, training=dataclasses.replace(run.training, precision="fp32")).training_dict

    for other in benchmark.models:
        if precision_of(benchmark, other) == "fp32" and all(
            in_fp32(dataset, other) == in_fp32(dataset, model) for dataset in benchmark.datasets
        ):
            return other
    return None


def measured(path: Path = MEASURED_PRECISION) -> pd.DataFrame:
    """Return the measured differences: one row per precision and metric, with COLUMNS.

    The table is empty if the file is not part of the installation. Raises UserError if the file has other columns.
    """
    import pandas as pd  # imported here, because it takes half a second and parsing the workflow does not need it

    if not path.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    frame = pd.read_csv(path)
    if list(frame.columns) != list(COLUMNS):
        raise UserError(f"{path}: its columns must be {', '.join(COLUMNS)}; write it with benchmarks/precision.py")
    return frame


def check_precisions(benchmark: Benchmark, where: str) -> None:
    """Raise UserError for a model in another precision than fp32 whose difference to fp32 would stay unknown.

    where: the name of the configuration, for the message.
    """
    for model in benchmark.models:
        precision = precision_of(benchmark, model)
        if precision == "fp32" or fp32_twin(benchmark, model) is not None:
            continue
        if not (measured()["precision"] == _coarsest(precision)).any():
            raise UserError(
                f"{where}: models.{model}: nobody has measured what training in {precision} changes; add the same model in "
                "fp32 beside it, so that the tables show the difference, or measure it (config/precision.yaml)"
            )


def notes(benchmark: Benchmark) -> tuple[str, ...]:
    """Return what is to be said of the models that are not trained in fp32.

    A note gives the difference to fp32, or says where it is reported. Models of which the same is to be said share a note.
    """
    found, models_of = [], {}
    for model in benchmark.models:
        precision = precision_of(benchmark, model)
        if precision == "fp32":
            continue
        twin = fp32_twin(benchmark, model)
        if twin is not None:
            found.append(
                f"{model} is trained in {precision}; the ablation report compares it with {twin}, the same in fp32."
            )
        else:
            models_of.setdefault((precision, benchmark.method_of(model) == "potgan"), []).append(model)
    frame = measured()
    for (precision, of_potgan), models in models_of.items():
        measured_as = _coarsest(precision)
        how = f"in {precision}"
        if precision == "auto":
            how = f"in {measured_as} where the processor or GPU has it, else in fp32 (`done.json` says which)"
        if not of_potgan:
            are = "is" if len(models) == 1 else "are"
            found.append(f"{', '.join(models)} {are} trained {how}. What that changes in them was not measured.")
            continue
        rows = frame[frame["precision"] == measured_as]
        parts = (
            f"{row.metric} {row.difference:+.3f} ± {row.difference_sd:.3f} (fp32: {row.fp32:.3f} ± {row.fp32_sd:.3f})"
            for row in rows.itertuples()
        )
        found.append(
            f"{', '.join(models)} {'is' if len(models) == 1 else 'are'} trained {how}. On an earlier form of the embedded "
            f"benchmark, with {rows['n_pairs'].max()} test pairs and over {rows['n_seeds'].max()} seeds, {measured_as} minus "
            f"fp32 is: {', '.join(parts)}."
        )
    return tuple(found)
