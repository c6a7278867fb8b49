"""The one reader of `results/<benchmark>/`: what the stages wrote, as dataclasses and tables, each file read once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from potgan.common.errors import UserError
from potgan.common.files import read_json
from potgan.data.images import ImageFolder
from potgan.data.keypoint_files import read_keypoints
from potgan.data.pose import Keypoints
from potgan.measure.evaluate import Scores, read_flow
from potgan.measure.generate import GenerationRecord
from potgan.settings.layout import Layout
from potgan.settings.protocols import METRICS, PROTOCOLS
from potgan.settings.schema import Benchmark
from potgan.training.record import TrainingRecord

Pair = tuple[str, str]  # names of the source and of the target image
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Row:
    """One row of the tables in one seed: a model, the first checkpoint, a reference, or an external method."""

    dataset: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.dataset}/{self.method}/seed{self.seed}"


class Results:
    """What lies under `results/<benchmark>/` of one benchmark. Each file is read when it is first asked for, and once."""

    def __init__(self, benchmark: Benchmark, layout: Layout) -> None:
        self.benchmark, self.layout = benchmark, layout
        self._read: dict[Path, object] = {}

    def rows(self, dataset: str | None = None) -> Iterator[Row]:
        """All rows that the configuration has, evaluated or not, in its order."""
        for name in self.benchmark.datasets if dataset is None else (dataset,):
            for method in self.benchmark.methods_of(name):
                for seed in self.benchmark.seeds_of(method):
                    yield Row(name, method, seed)

    def first(self, dataset: str, method: str) -> Row:
        """The row of a method in its first seed."""
        return Row(dataset, method, self.benchmark.seeds_of(method)[0])

    def scores(self, row: Row) -> Scores | None:
        """`scores.json`, or None where the row was not evaluated.

        Raises UserError for a file that belongs to another run, or that was measured under another protocol than the
        benchmark's: two protocols never meet in a table.
        """
        path = self.layout.evaluate(row.dataset, row.method, row.seed) / "scores.json"
        return self._once(path, self._checked_scores, row) if path.exists() or path in self._read else None

    def per_pair(self, row: Row) -> pd.DataFrame:
        """`per-pair.csv`: from, to and the metrics of an image and its target. Raises UserError where it is missing."""
        return self._once(self.layout.evaluate(row.dataset, row.method, row.seed) / "per-pair.csv", _read_per_pair)

    def sensitivity(self, row: Row) -> pd.DataFrame | None:
        """`sensitivity.csv`: the same images under all protocols; None where it is missing."""
        path = self.layout.evaluate(row.dataset, row.method, row.seed) / "sensitivity.csv"
        return self._once(path, read_sensitivity) if path.exists() else None

    def generation(self, row: Row) -> GenerationRecord | None:
        """`generate.json`, or None where the row was not generated."""
        path = self.layout.generate(row.dataset, row.method, row.seed) / "generate.json"
        return self._once(path, GenerationRecord.read) if path.exists() else None

    def images(self, row: Row) -> dict[Pair, Path]:
        """(from, to) -> file, of the generated images. Raises UserError where the row was not generated."""
        folder = self.layout.generate(row.dataset, row.method, row.seed)
        return self._once(folder / "generated.csv", _read_generated)

    def training(self, dataset: str, model: str, seed: int) -> TrainingRecord | None:
        """`done.json` of the training that is `model`'s own, or None where there is none."""
        path = self.layout.train(dataset, model, seed) / "done.json"
        return self._once(path, TrainingRecord.read) if path.exists() else None

    def progress(self, dataset: str, model: str, seed: int) -> pd.DataFrame | None:
        """`progress.csv` of the training that `model` uses, or None where there is none."""
        path = self.layout.train(dataset, self.benchmark.trained_as(dataset, model), seed) / "progress.csv"
        return self._once(path, pd.read_csv) if path.exists() else None

    def photos(self, dataset: str) -> ImageFolder:
        """The images of a data set. Raises UserError where the stage has not run."""
        return self._once(self.layout.images(dataset) / "images.csv", lambda path: ImageFolder(path.parent))

    def flow(self, dataset: str) -> tuple[np.ndarray, np.ndarray] | None:
        """The exact flow (N, H, W, 2) of the test pairs and (N, H, W) bool, where it is known; None where the data set has none."""
        path = self.layout.pairs(dataset) / "flow.npz"
        return self._once(path, read_flow) if path.exists() else None

    def keypoints(self, dataset: str) -> Keypoints:
        """The key points of a data set."""
        return self._once(self.layout.keypoints(dataset) / "keypoints.csv", read_keypoints)

    def keypoints_record(self, dataset: str) -> dict[str, object]:
        """`keypoints.json`."""
        return self._once(self.layout.keypoints(dataset) / "keypoints.json", read_json, "run `potgan keypoints`")

    def pairs_record(self, dataset: str) -> dict[str, object]:
        """`pairs.json`."""
        return self._once(self.layout.pairs(dataset) / "pairs.json", read_json, "run `potgan pairs`")

    # -----------------------------------------------------------------------------------------------------------------

    def _once(self, path: Path, read: Callable[..., _Read], *more: object) -> _Read:
        if path not in self._read:
            self._read[path] = read(path, *more)
        return self._read[path]

    def _checked_scores(self, path: Path, row: Row) -> Scores:
        scores, protocol = Scores.read(path), PROTOCOLS[self.benchmark.protocol]
        expected = {"benchmark": self.benchmark.benchmark} | row.__dict__
        for key, value in expected.items():
            found = getattr(scores, key)
            if found != value:
                raise UserError(f"{path}: {key} is {found!r} instead of {value!r}; evaluate this run again")
        if scores.protocol["id"] != protocol.id:
            raise UserError(
                f"{path}: measured under protocol {scores.protocol['id']!r}, and the benchmark's is {protocol.id!r}; evaluate "
                "this run again"
            )
        for metric, entry in scores.metrics.items():
            wanted = protocol.metric_id(metric)
            if metric in METRICS and entry.protocol != wanted:
                raise UserError(
                    f"{path}: {metric} was measured as {entry.protocol!r} instead of {wanted!r}; evaluate this run again"
                )
        return scores


def _read_per_pair(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype={"from": str, "to": str})
    except FileNotFoundError:
        raise UserError(f"{path}: is missing beside its scores.json; evaluate this run again") from None


#: The columns of `sensitivity.csv` that are measured, and what they are called.
SENSITIVITY_METRICS = {"ssim": "SSIM", "mask_ssim": "mask-SSIM", "foreground_ssim": "SSIM inside the mask"}


def read_sensitivity(path: Path) -> pd.DataFrame:
    """A run's `sensitivity.csv`: protocol, ssim, mask_ssim, foreground_ssim. UserError for other columns."""
    frame = pd.read_csv(path)
    missing = {"protocol", *SENSITIVITY_METRICS} - set(frame.columns)
    if missing:
        raise UserError(f"{path}: has no column {sorted(missing)[0]}; evaluate this run again")
    return frame


def _read_generated(path: Path) -> dict[Pair, Path]:
    try:
        manifest = pd.read_csv(path, dtype=str)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; run `potgan generate`") from None
    return {(row["from"], row["to"]): path.parent / row["file"] for row in manifest.to_dict(orient="records")}
