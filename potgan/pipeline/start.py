"""What the workflow does with a configuration at each start: leave out what cannot be had here, and write it.

So this module imports neither pandas nor OpenCV, which together take half a second.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from potgan.common.errors import UserError
from potgan.common.files import write_text
from potgan.data.sources.acquisition import why_absent
from potgan.data.sources.archives import facts_of
from potgan.settings.layout import Layout
from potgan.settings.reading import dump
from potgan.settings.schema import Benchmark

#: Where the workflow makes archives in the layouts of the real data sets (rule `imitate`).
IMITATIONS = Path("data", "imitations")


def present(benchmark: Benchmark, data: Path, made: Path | None = None) -> Benchmark:
    """The benchmark without the data sets that cannot be had here; `absent` says why, and the tables' cells do.

    A data set whose source is named must be there, unless it lies in `made`, a folder that the workflow fills itself;
    one that can be fetched counts as present. Raises UserError if none is left. Asks no network.
    """
    reasons = dict(benchmark.absent)
    for name, dataset in benchmark.datasets.items():
        if dataset.parsing and not Path(dataset.parsing).is_dir():
            raise UserError(
                f"datasets.{name}.parsing: {dataset.parsing} is no folder; name the folder of the label images, or leave out "
                "parsing and parsing_classes"
            )
        if made is not None and dataset.source and Path(dataset.source).is_relative_to(made):
            continue
        reason = why_absent(dataset, name, data)
        if reason:
            reasons.setdefault(name, reason)
    left = {name: dataset for name, dataset in benchmark.datasets.items() if name not in reasons}
    if not left:
        raise UserError(f"no data set of benchmark {benchmark.benchmark} is here: {'; '.join(reasons.values())}")
    return dataclasses.replace(benchmark, datasets=left, absent=reasons)


def configure(benchmark: Benchmark, layout: Layout) -> None:
    """Write the resolved configuration, which every other stage of the workflow reads."""
    write_text(layout.configuration, dump(benchmark))


def memory_of_training(benchmark: Benchmark, dataset: str) -> int:
    """About how much memory one training takes on this data set, in MB.

    All images of the training split are in memory with their masks, one byte per pixel and channel, and all else takes 1.5 GB.
    Where a part of the published data set is allowed, the number of images is not known before it is unpacked, and taken as small.
    """
    settings = benchmark.datasets[dataset]
    if settings.kind == "synthetic":
        people = settings.synthetic
        images = people.train_identities * people.images_per_identity
    else:
        images = 0 if settings.allow_partial else facts_of(settings.kind)["counts"]["train"]
    height, width = settings.image_size
    channels = 5 if settings.has_parsing else 4
    return 1500 + images * height * width * channels // 1_000_000


def memory_here() -> int:
    """The memory of this machine in MB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1_000_000
