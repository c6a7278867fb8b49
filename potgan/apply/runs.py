"""A finished training as one thing: its folder, its settings, its last generator, and the file that `potgan export` writes."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from potgan.common.errors import UserError
from potgan.common.files import sha256_of
from potgan.common.typed import build
from potgan.measure.evaluate import Scores
from potgan.methods.generator_file import TrainedGenerator, load_generator, save_generator
from potgan.methods.method import GeneratorSettings
from potgan.methods.registry import method_class
from potgan.settings.methods import options_class
from potgan.settings.reading import load
from potgan.settings.schema import RunSettings
from potgan.training.record import TrainingRecord

RUN_FOLDER = "results/<benchmark>/<data set>/<model>/seed<k>"


@dataclass(frozen=True)
class Run:
    """A finished training of one model: its settings, its last generator, and what is known of both.

    record: dataset, kind, label, model, seed (kind and label None without the benchmark's resolved configuration).
    """

    folder: Path
    settings: RunSettings
    generator_file: Path
    generator_sha256: str
    record: dict[str, Any]


def find_run(folder: Path) -> Run:
    """The run of `results/<benchmark>/<data set>/<model>/seed<k>`.

    A model that shares another's training (`no-guided-filter`) has no folder `train` of its own; the resolved configuration
    beside the data sets says whose it is. Raises UserError where the folder is no run, or is not trained, or was trained
    with other settings than the configuration's, or its generator is not the one that was trained.
    """
    whole = folder.resolve()
    seed = re.fullmatch(r"seed(\d+)", whole.name)
    if not folder.is_dir() or seed is None:
        raise UserError(f"{folder}: is no run; name the folder {RUN_FOLDER}")
    model, dataset = whole.parent.name, whole.parents[1].name
    record = {"dataset": dataset, "kind": None, "label": None, "model": model, "seed": int(seed[1])}
    train, configuration, settings = folder / "train", whole.parents[2] / "config.yaml", None
    if configuration.is_file():
        benchmark = load(configuration)
        if model not in benchmark.models or dataset not in benchmark.datasets:
            raise UserError(
                f"{folder}: is no model's run; {configuration.parent.name} has the models {', '.join(benchmark.models)} on "
                f"{', '.join(benchmark.datasets)}"
            )
        settings = benchmark.run_settings(dataset, model, int(seed[1]))
        train = folder.parent.parent / benchmark.trained_as(dataset, model) / whole.name / "train"
        record |= {"kind": benchmark.datasets[dataset].kind, "label": benchmark.datasets[dataset].label}
    done = TrainingRecord.read(train / "done.json")
    if settings is None:
        where = f"{train / 'done.json'}: settings"
        settings = build(RunSettings, done.settings, where)
        options = options_class(settings.method)
        if options is not None:
            settings = dataclasses.replace(settings, options=build(options, settings.options, f"{where}.options"))
    if done.training_fingerprint != settings.training_fingerprint:
        raise UserError(f"{train}: was trained with other settings than {model}'s now; run `potgan train` again")
    name = done.kept[-1]
    file = train / name
    if not file.is_file() or sha256_of(file) != done.generators[name]:
        state = "is missing" if not file.is_file() else "is not the file that done.json names"
        raise UserError(f"{file}: {state}; run `potgan train` again")
    return Run(folder, settings, file, done.generators[name], record)


def open_generator(run_or_file: Path, device: torch.device | str = "cpu") -> TrainedGenerator:
    """The generator of a file, or the last one of a run's folder with the settings that the run has."""
    if not run_or_file.is_dir():
        return load_generator(run_or_file, device=device)
    run = find_run(run_or_file)
    trained = load_generator(run.generator_file, _generator_settings(run), device)
    return dataclasses.replace(trained, run=run.record)


def export(folder: Path, out: Path) -> TrainedGenerator:
    """Write the last generator of a run, with its settings as they are now and its scores, to the file `out`.

    Raises UserError where the run is not trained or not evaluated, or its scores are another generator's.
    """
    if out.suffix != ".pt":
        raise UserError(f"{out}: a generator's file ends in .pt; correct --out")
    run = find_run(folder)
    path = folder / "evaluate" / "scores.json"
    found = Scores.read(path)
    if found.hashes.get("generator") != run.generator_sha256:
        raise UserError(f"{path}: is of another generator; run `potgan generate` and `potgan evaluate` again")
    if found.settings != run.settings.images_fingerprint(run.generator_file.name):
        raise UserError(f"{path}: is of other settings; run `potgan generate` and `potgan evaluate` again")
    scores = {key: found.tree()[key] for key in ("benchmark", "protocol", "n_pairs", "metrics")}
    scores["generator_sha256"] = run.generator_sha256
    trained = load_generator(run.generator_file, _generator_settings(run))
    save_generator(
        out, trained.generator, run.settings, trained.iteration, trained.data_hashes, run=run.record, scores=scores
    )
    return dataclasses.replace(trained, run=run.record, scores=scores)


def _generator_settings(run: Run) -> GeneratorSettings:
    return method_class(run.settings.method).generator_settings(run.settings)
