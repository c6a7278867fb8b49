"""Where each stage's results lie."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """Paths of a benchmark's results: results/<benchmark>/<data set>/<model>/seed<k>/<stage>/..."""

    benchmark: str
    root: Path = Path()

    @property
    def results(self) -> Path:
        return self.root / "results" / self.benchmark

    @property
    def reports(self) -> Path:
        return self.root / "reports" / self.benchmark

    @property
    def data(self) -> Path:
        """The folder of archives, tables and weights that the user has or that were fetched."""
        return Path(os.environ["POTGAN_DATA"]) if os.environ.get("POTGAN_DATA") else self.root / "data"

    @property
    def configuration(self) -> Path:
        return self.results / "config.yaml"

    @property
    def feature_network(self) -> Path:
        return self.results / "feature-network"

    @property
    def feature_cache(self) -> Path:
        """Features of target images, named by content hash; may be deleted at any time."""
        return self.results / "feature-cache"

    @property
    def test_set_log(self) -> Path:
        """One line for each time that test pairs were scored."""
        return self.results / "test-set.log"

    def images(self, dataset: str) -> Path:
        """Folder of the image files, with `images.csv` in it."""
        return self.results / dataset / "images"

    def keypoints(self, dataset: str) -> Path:
        """Folder with `keypoints.csv` and `keypoints.json`."""
        return self.results / dataset / "keypoints"

    def pairs(self, dataset: str) -> Path:
        """Folder with `pairs-{train,validation,test}.csv`, `pairs.json` and, where it is known, `flow.npz`."""
        return self.results / dataset / "pairs"

    def run(self, dataset: str, method: str, seed: int) -> Path:
        return self.results / dataset / method / f"seed{seed}"

    def train(self, dataset: str, model: str, seed: int) -> Path:
        """Folder with `done.json`, `progress.csv` and `generator-<iteration>.pt`; `checkpoint/` beside it holds state."""
        return self.run(dataset, model, seed) / "train"

    def generate(self, dataset: str, method: str, seed: int) -> Path:
        """Folder with `generated.csv`, `images/<from stem>___<to stem>.png` and, for models, `warps.npz`."""
        return self.run(dataset, method, seed) / "generate"

    def evaluate(self, dataset: str, method: str, seed: int) -> Path:
        """Folder with `scores.json` and `per-pair.csv`."""
        return self.run(dataset, method, seed) / "evaluate"

    def stamp(self, stage: str, *of: str | int) -> Path:
        """The file that tells Snakemake what decided a job's result; see `potgan.pipeline.snakemake`."""
        return self.memory / "decided" / self.benchmark / _place(stage, *of, suffix=".json")

    @property
    def memory(self) -> Path:
        """Folder of what only speeds up or steers the next start here, and never travels with results."""
        return self.root / ".snakemake" / "potgan"

    @property
    def digests(self) -> Path:
        """The remembered digests of the user's files; see `potgan.pipeline.digests`."""
        return self.memory / "digests.json"

    @property
    def times_folder(self) -> Path:
        """Folder of what Snakemake measures of each job: seconds and memory."""
        return self.results / "benchmarks"

    def times(self, stage: str, *of: str | int) -> Path:
        """What Snakemake measured of a job; the rules' `benchmark:` says the same."""
        return self.times_folder / _place(stage, *of, suffix=".tsv")


def _place(stage: str, *of: str | int, suffix: str) -> Path:
    *folders, name = [stage, *(f"seed{part}" if isinstance(part, int) else part for part in of)]
    return Path(*folders, f"{name}{suffix}")
