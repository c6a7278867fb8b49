"""The paths of each stage's results."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from potgan.common.paths import at_home


@dataclass(frozen=True)
class Layout:
    """The paths of a benchmark's results: results/<benchmark>/<data set>/<model>/seed<k>/<stage>/..."""

    benchmark: str
    root: Path = Path()

    @property
    def results(self) -> Path:
        return self.root / "results" / self.benchmark

    @property
    def reports(self) -> Path:
        return self.root / "reports" / self.benchmark

    @property
    def figures(self) -> Path:
        """The folder of the report's figures, each as one PNG."""
        return self.reports / "figures"

    @property
    def data(self) -> Path:
        """The folder of archives, tables and weights, which the user put there or which were fetched."""
        named = os.environ.get("POTGAN_DATA")
        return Path(at_home(named)) if named else self.root / "data"

    @property
    def configuration(self) -> Path:
        return self.results / "config.yaml"

    @property
    def feature_network(self) -> Path:
        return self.results / "feature-network"

    @property
    def feature_cache(self) -> Path:
        """The folder of target images' features, in files named by content hash. It may be deleted at any time."""
        return self.results / "feature-cache"

    @property
    def test_set_log(self) -> Path:
        """The file that gets one line each time that test pairs are scored."""
        return self.results / "test-set.log"

    def published(self, dataset: str) -> Path:
        """The folder of the published tables and lists that a data set asks for, and of `published.json`."""
        return self.results / dataset / "published"

    def images(self, dataset: str) -> Path:
        """The folder of the image files and of `images.csv`."""
        return self.results / dataset / "images"

    def keypoints(self, dataset: str) -> Path:
        """The folder with `keypoints.csv` and `keypoints.json`."""
        return self.results / dataset / "keypoints"

    def pairs(self, dataset: str) -> Path:
        """The folder with `pairs-{train,validation,test}.csv`, `pairs.json` and, if the true flow is known, `flow.npz`."""
        return self.results / dataset / "pairs"

    def masks(self, dataset: str) -> Path:
        """The folder with `masks.npz`, all pose masks of the data set, `masks.json` and `preview.png`."""
        return self.results / dataset / "masks"

    def parsing(self, dataset: str) -> Path:
        """The folder with `parsing.zip`, a label image for each image of the pairs, and `parsing.json`, where a model reads it."""
        return self.results / dataset / "parsing"

    def run(self, dataset: str, method: str, seed: int) -> Path:
        return self.results / dataset / method / f"seed{seed}"

    def train(self, dataset: str, model: str, seed: int) -> Path:
        """The folder with `done.json`, `progress.csv` and `generator-<iteration>.pt`.

        The folder `checkpoint/` beside it holds the state of a training.
        """
        return self.run(dataset, model, seed) / "train"

    def generate(self, dataset: str, method: str, seed: int) -> Path:
        """The folder with `generated.csv`, `images/<from stem>___<to stem>.png` and, for models, `warps.npz`."""
        return self.run(dataset, method, seed) / "generate"

    def evaluate(self, dataset: str, method: str, seed: int) -> Path:
        """The folder with `scores.json` and `per-pair.csv`."""
        return self.run(dataset, method, seed) / "evaluate"

    def stamp(self, stage: str, *of: str | int) -> Path:
        """The file that tells Snakemake what decided the result of a job (see `potgan.pipeline.snakemake`)."""
        return self.memory / "decided" / self.benchmark / _place(stage, *of, suffix=".json")

    @property
    def memory(self) -> Path:
        """The folder of files that only speed up or steer the next start here. They never travel with results."""
        return self.root / ".snakemake" / "potgan"

    @property
    def digests(self) -> Path:
        """The file of the remembered digests of the user's files (see `potgan.pipeline.digests`)."""
        return self.memory / "digests.json"

    @property
    def times_folder(self) -> Path:
        """The folder of what Snakemake measures for each job: seconds and memory."""
        return self.results / "benchmarks"

    def times(self, stage: str, *of: str | int) -> Path:
        """The file of what Snakemake measured for a job. The `benchmark:` of the rules names the same file."""
        return self.times_folder / _place(stage, *of, suffix=".tsv")


def _place(stage: str, *of: str | int, suffix: str) -> Path:
    *folders, name = [stage, *(f"seed{part}" if isinstance(part, int) else part for part in of)]
    return Path(*folders, f"{name}{suffix}")
