"""What each trained row costs beside what it reaches: parameters, arithmetic, inputs, images seen and time.

Rows of one benchmark have one budget, unless its configuration says otherwise: the same pairs, and as many of them. What differs
stands here.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from potgan.common.files import write_text
from potgan.data.batches import PARTS, Batch
from potgan.data.pose import JOINTS, PARSING_CLASSES
from potgan.methods.method import GeneratorSettings
from potgan.methods.registry import method_class
from potgan.report import tables
from potgan.results import Results
from potgan.settings.schema import RunSettings

#: What the parts of a batch are called in a table.
INPUTS = {
    "source_image": "source image",
    "source_mask": "source mask",
    "target_mask": "target mask",
    "source_heatmaps": "source heat maps",
    "target_heatmaps": "target heat maps",
    "source_joints": "source joints",
    "target_joints": "target joints",
    "source_parsing": "parsing of the source",
}


@dataclass(frozen=True)
class Cost:
    """One model on one data set.

    parameters: of the generator that is kept. all_parameters: with all networks of the training. multiply_adds: of one image at
    test time, in convolutions and matrix products. inputs: parts of a batch that the generator reads. pairs_seen: pairs that the
    training went through. single_images: whether it read nothing but the target images of these pairs. seconds: wall time of a
    training, the mean over seeds; None where it is another model's training.
    """

    dataset: str
    model: str
    method: str
    parameters: int
    all_parameters: int
    multiply_adds: float
    inputs: tuple[str, ...]
    pairs_seen: int
    single_images: bool
    seconds: float | None
    device: str

    @property
    def inputs_text(self) -> str:
        return ", ".join(name for part, name in INPUTS.items() if part in self.inputs)

    @property
    def seen_text(self) -> str:
        return f"{self.pairs_seen:,}{' (targets alone)' if self.single_images else ''}"


def costs(results: Results) -> list[Cost]:
    """The cost of every model that was trained, in the order of the configuration."""
    benchmark = results.benchmark
    found = []
    for dataset in benchmark.datasets:
        for model in benchmark.models:
            if model not in benchmark.methods_of(dataset):
                continue
            own = benchmark.trained_as(dataset, model)
            records = [results.training(dataset, own, seed) for seed in benchmark.seeds]
            records = [record for record in records if record is not None]
            if not records:
                continue
            settings = benchmark.run_settings(dataset, model, benchmark.seeds[0])
            parameters, multiply_adds, inputs = arithmetic(settings)
            found.append(
                Cost(
                    dataset=dataset,
                    model=model,
                    method=settings.method,
                    parameters=parameters,
                    all_parameters=sum(records[0].parameters.values()),
                    multiply_adds=multiply_adds,
                    inputs=tuple(sorted(inputs)),
                    pairs_seen=settings.training.iterations * settings.training.batch_size,
                    single_images="source_image" not in method_class(settings.method).needs,
                    seconds=float(np.mean([record.wall_seconds for record in records])) if own == model else None,
                    device=records[0].device,
                )
            )
    return found


def arithmetic(settings: RunSettings) -> tuple[int, float, frozenset[str]]:
    """Return the parameters of a generator, its multiply-adds for one image, and the parts of a batch that it reads.

    The generator runs once on tensors that have shapes and no numbers, so that a large one costs no time. Counted are
    convolutions and matrix products; a multiplication and the addition behind it are one.
    """
    of = method_class(settings.method).generator_settings(settings)
    return _arithmetic(settings.method, of, settings.image_size)


@functools.cache  # several models have one architecture, and tables, figures and the page ask for each
def _arithmetic(method: str, of: GeneratorSettings, size: tuple[int, int]) -> tuple[int, float, frozenset[str]]:
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    height, width = size
    shapes = {
        "image": (3, height, width),
        "mask": (1, height, width),
        "heatmaps": (len(JOINTS), height, width),
        "joints": (len(JOINTS), 2),
        "parsing": (len(PARSING_CLASSES), height, width),
    }
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        generator = method_class(method).build_generator(of, size).eval()
        batch = Batch(
            **{part: torch.zeros(1, *shapes[part.split("_")[1]]) for part in PARTS if part in generator.needs}
        )
        with FlopCounterMode(display=False) as counter:
            generator.synthesise(batch)
    return sum(weight.numel() for weight in generator.parameters()), counter.get_total_flops() / 2, generator.needs


def markdown(results: Results, found: list[Cost]) -> str:
    """The costs as Markdown, one table per data set, with what each model reaches."""
    benchmark = results.benchmark
    lines = [
        f"**Costs.** {budgets_text(found)} Multiply-adds are of one image at test time, in convolutions and matrix products.",
        "",
    ]
    for dataset in dict.fromkeys(cost.dataset for cost in found):
        lines += [
            tables.group_label(benchmark, dataset),
            "",
            "| Model | Parameters of G (M) | Multiply-adds (G) | Pairs seen | Training | Inputs at test time |",
            "|---|---:|---:|---:|---:|---|",
        ]
        for cost in found:
            if cost.dataset == dataset:
                cells = (
                    cost.model,
                    f"{cost.parameters / 1e6:.2f}",
                    f"{cost.multiply_adds / 1e9:.3g}",
                    cost.seen_text,
                    "–" if cost.seconds is None else duration(cost.seconds),
                    cost.inputs_text,
                )
                lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def budgets_text(found: list[Cost]) -> str:
    """One sentence: whether all models of a data set have the same budget."""
    budgets = {(cost.dataset, cost.pairs_seen) for cost in found}
    if len(budgets) == len({cost.dataset for cost in found}):
        return "All models of a data set are trained on the same list of pairs, and see as many of them."
    return "The models of a data set did not see as many pairs as each other, so that they do not compare under equal conditions."


def duration(seconds: float) -> str:
    """Seconds in the unit that a person reads easily."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def write_costs(results: Results) -> list[Path]:
    """Write costs.csv and costs.md to reports/<benchmark>/tables, and return their paths."""
    found, folder = costs(results), results.layout.reports / "tables"
    rows = [dataclasses.asdict(cost) | {"inputs": cost.inputs_text} for cost in found]
    names = [field.name for field in dataclasses.fields(Cost)]
    texts = {
        folder / "costs.csv": pd.DataFrame(rows, columns=names).to_csv(index=False),
        folder / "costs.md": markdown(results, found),
    }
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)
