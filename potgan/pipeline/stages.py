"""Each stage of the pipeline as one function of (benchmark, layout, what): it finds its inputs, calls the module that does
the work, and writes its outputs. The command line, the workflow, DVC and tests all come in through here.

images -> keypoints (-> masks) -> pairs (-> parsing) -> train -> generate -> evaluate -> tabulate
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from potgan.common.errors import UserError
from potgan.common.files import fingerprint, new_folder, read_json, write_json, write_text
from potgan.common.progress import progress, say
from potgan.common.typed import build
from potgan.data.images import ImageFolder, ImagesRecord, prepare_images
from potgan.data.keypoint_files import read_keypoints
from potgan.data.keypoints import prepare_keypoints, split_keypoints
from potgan.data.pixels import resize
from potgan.data.sources.published import of_section, prepare_published, resolved, wanted
from potgan.pipeline.code import code_fingerprint
from potgan.pipeline.records import recorded, refuse_strangers
from potgan.pipeline.start import configure
from potgan.settings.layout import Layout
from potgan.settings.protocols import PROTOCOLS, Protocol, unmet_demands
from potgan.settings.schema import FIRST_CHECKPOINT_SUFFIX, REFERENCE_METHODS, Benchmark, Dataset, SyntheticSettings

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from potgan.data.batches import PairData
    from potgan.data.pose import Keypoints
    from potgan.data.synthetic.people import Render
    from potgan.measure.inception import FeatureNetwork
    from potgan.measure.lpips_network import LpipsNetwork

# Imports that bring torch (about 2 s) stand inside the stages that need it.


@recorded
def published(benchmark: Benchmark, layout: Layout, dataset: str) -> None:
    """The published tables and lists that a data set asks for, and whose key points it will have."""
    if not wanted(_dataset(benchmark, dataset)):
        raise UserError(f"{dataset}: asks for no published file; its settings name others, or need none")
    prepare_published(benchmark.datasets[dataset], dataset, layout.data, layout.published(dataset))


@recorded
def images(benchmark: Benchmark, layout: Layout, dataset: str) -> None:
    settings = _dataset(benchmark, dataset)
    if of_section(wanted(settings), "splits"):
        settings = _resolved(benchmark, layout, dataset)
    record = prepare_images(settings, dataset, layout.images(dataset), layout.data)
    say(f"{dataset}: {record['images']['train']} train and {record['images']['test']} test images")


@recorded
def keypoints(benchmark: Benchmark, layout: Layout, dataset: str) -> None:
    settings = _resolved(benchmark, layout, dataset)
    record = prepare_keypoints(settings, dataset, layout.images(dataset), layout.keypoints(dataset))
    say(f"{dataset}: key points of {record['images']} images, {record['detection_rate']:.1%} with a pose")


@recorded
def pairs(benchmark: Benchmark, layout: Layout, dataset: str) -> None:
    """Pair lists, their record, and for synthetic data the true flow of the test pairs."""
    from potgan.data.pairs import build, pairs_csv

    settings = _resolved(benchmark, layout, dataset)
    tables = split_keypoints(_keypoints(layout, dataset), layout.images(dataset))
    skipped = ImageFolder(layout.images(dataset)).skipped
    lists, record = build(tables["train"], tables["test"], settings.pairs, settings.kind, skipped)
    record["dataset"] = dataset
    for split, count in record["pairs_of_skipped_images"].items():
        if count:
            say(f"{dataset}: left out {count} {split} pairs of images that could not be decoded")
    with new_folder(layout.pairs(dataset)) as folder:
        for split, frame in lists.items():
            write_text(folder / f"pairs-{split}.csv", pairs_csv(frame))
        if settings.kind == "synthetic":
            _write_flow(settings.synthetic, lists["test"], folder / "flow.npz")
        write_json(folder / "pairs.json", record)
    for split, counts in record["splits"].items():
        say(f"{dataset}: {counts['pairs']} {split} pairs of {counts['identities']} identities")


@recorded
def masks(benchmark: Benchmark, layout: Layout, dataset: str) -> None:
    """All pose masks as one file, for methods that read masks from files. Trainings draw the same masks in memory."""
    from potgan.data.exports.masks import write_masks

    settings, folder = benchmark.run_settings(dataset, benchmark.main_model, 0), ImageFolder(layout.images(dataset))
    keypoints, radius = _keypoints(layout, dataset), settings.masks.limb_radius
    record = write_masks(keypoints, settings.image_size, radius, layout.masks(dataset), folder.size, folder.read)
    say(f"{dataset}: masks of {record['images']:,} images, {record['images_without_pose']:,} images have no pose")


def prepare(benchmark: Benchmark, layout: Layout, dataset: str, peer: str, out: Path) -> None:
    """A data set in the form that the code of another project reads. It is no stage of a benchmark, and has no record there."""
    from potgan.data.exports import peers

    settings = benchmark.run_settings(dataset, benchmark.main_model, 0)
    pairs = {split: _pairs(layout, dataset, split) for split in peers.SPLITS}
    record = peers.prepare(
        peer,
        _dataset(benchmark, dataset).kind,
        settings.image_size,
        settings.masks.heatmap_sigma,
        layout.images(dataset),
        _keypoints(layout, dataset),
        pairs,
        out,
        layout.parsing(dataset) if _dataset(benchmark, dataset).has_parsing else None,
    )
    counts = (
        f"{record['images'][split]:,} images and {record['pairs'][split]:,} pairs to {split}" for split in peers.SPLITS
    )
    say(f"{out}: {dataset} for {record['for']}, {', '.join(counts)}")


@recorded
def parsing(benchmark: Benchmark, layout: Layout, dataset: str) -> None:
    """The class of each pixel of the images of all pairs. The workflow asks for it only where a model reads it."""
    from potgan.data.parsing.stage import prepare_parsing

    lists = [_pairs(layout, dataset, split) for split in ("train", "validation", "test")]
    names = sorted({name for frame in lists for column in ("from", "to") for name in frame[column]})
    settings = _dataset(benchmark, dataset)
    record = prepare_parsing(settings, dataset, names, layout.images(dataset), layout.parsing(dataset))
    say(f"{dataset}: parsing of {record['images']} images from the {record['source']}")


def _write_flow(settings: SyntheticSettings, test_pairs: pd.DataFrame, path: Path) -> None:
    from potgan.data.synthetic import people

    where = people.find(settings)
    renders: dict[str, Render] = {}

    def render(name: str) -> Render:
        if name not in renders:
            renders[name] = people.render(settings, *where[name])
        return renders[name]

    both = list(zip(test_pairs["from"], test_pairs["to"], strict=True))
    results = [
        people.exact_flow(render(source), render(target))
        for source, target in progress(both, len(both), "true flow of test pairs", "pairs")
    ]
    np.savez_compressed(path, flow=np.stack([f for f, _ in results]), visible=np.stack([v for _, v in results]))


@recorded
def feature_network(benchmark: Benchmark, layout: Layout) -> None:
    """Train the classifier of the synthetic protocol. The workflow asks for it only where the protocol measures so."""
    from potgan.measure.synthetic_network import train_feature_network

    train_feature_network(benchmark.feature_network, layout.feature_network)


@recorded
def train(benchmark: Benchmark, layout: Layout, dataset: str, model: str, seed: int) -> None:
    from potgan.common.processes import launch
    from potgan.training.loop import train as run_training

    settings = benchmark.run_settings(dataset, model, seed)
    if settings.training.processes > 1 and "WORLD_SIZE" not in os.environ:
        command = ["-m", "potgan", "train", "--config", str(layout.configuration), "--root", str(layout.root)]
        command += ["--dataset", dataset, "--model", model, "--seed", str(seed)]
        configure(benchmark, layout)
        launch(settings.training.processes, command)
        return
    reads = benchmark.reads_parsing(model)
    data = _pair_data(benchmark, layout, dataset, "train", "cpu", model, reads)
    record = read_json(layout.pairs(dataset) / "pairs.json", "run `potgan pairs` first")
    validation = (
        _pair_data(benchmark, layout, dataset, "validation", "cpu", model, reads)
        if record["splits"]["validation"]["pairs"]
        else None
    )
    folder, hashes = layout.train(dataset, model, seed), _data_hashes(layout, dataset, reads)
    result = run_training(data, validation, settings, folder, hashes, code=code_fingerprint("train", settings.method))
    say(f"{dataset}/{model}/seed{seed}: trained in {result.wall_seconds} s, {result.pairs_per_second} pairs/s")


@recorded
def generate(benchmark: Benchmark, layout: Layout, dataset: str, method: str, seed: int) -> None:
    """The images of one row: a model's last checkpoint, its first one, an intervention on it, a reference, or an external
    method's folder.
    """
    if method in benchmark.external_methods:
        _import_results(benchmark, layout, dataset, method, seed)
        return
    from potgan.common.device import pick_device
    from potgan.measure import generate as generation
    from potgan.methods.generator_file import load_generator
    from potgan.methods.registry import method_class
    from potgan.training.record import TrainingRecord

    device = pick_device()
    model = benchmark.model_of(method) or benchmark.main_model
    reads = method not in REFERENCE_METHODS and benchmark.reads_parsing(model)
    data = _pair_data(benchmark, layout, dataset, "test", device, model, reads)
    test_pairs = _pairs(layout, dataset, "test")
    record = generation.GenerationRecord(method, seed, None, None)
    if method in REFERENCE_METHODS:
        mean = None
        if method == "mean-image":
            mean = generation.mean_image(_training_images(benchmark, layout, dataset))
        pictures = generation.reference_images(method, data, mean)
    else:
        run = layout.train(dataset, benchmark.trained_as(dataset, model), seed)
        done = TrainingRecord.read(run / "done.json")
        checkpoint = done.kept[0 if method.endswith(FIRST_CHECKPOINT_SUFFIX) else -1]
        settings = benchmark.run_settings(dataset, model, seed)
        intervention = benchmark.intervention_of(method)
        wanted = method_class(settings.method).generator_settings(settings)
        trained = load_generator(run / checkpoint, wanted, device)
        if done.training_fingerprint != settings.training_fingerprint:
            raise UserError(f"{run}: was trained with other settings than {method}'s now; run `potgan train` again")
        record = dataclasses.replace(
            record,
            iteration=trained.iteration,
            settings=settings.images_fingerprint(checkpoint, intervention),
            generator_sha256=done.generators[checkpoint],
            training=generation.TrainingSummary(
                done.wall_seconds, done.iterations, done.parameters, done.device, done.passes
            ),
        )
        import torch

        torch.set_num_threads(settings.training.threads)
        pictures = generation.synthesise(trained.generator, data, settings.training.batch_size)
        if intervention:
            from potgan.measure.interventions import intervened

            flow = _flow(layout, dataset) if intervention == "true-flow" else None
            pictures = intervened(trained.generator, intervention, data, settings.training.batch_size, flow)
    generation.write_generated(pictures, test_pairs, record, layout.generate(dataset, method, seed))


def _import_results(benchmark: Benchmark, layout: Layout, dataset: str, method: str, seed: int) -> None:
    """An external method's folder in the form of the other rows: PNG files bit for bit, in the order of the pairs."""
    from potgan.measure import generate as generation
    from potgan.measure.released import ResultFolder, TargetFolder

    external, protocol = benchmark.external_methods[method], PROTOCOLS[benchmark.protocol]
    where = f"external_methods.{method}"
    if dataset != external.dataset:
        raise UserError(f"{where}: its images are of {external.dataset}, and not of {dataset}")
    test_pairs = _pairs(layout, dataset, "test")
    results = ResultFolder(external.images, external.layout, test_pairs)
    unmet = unmet_demands(protocol, results.file_format, "dataset")
    if unmet:
        raise UserError(
            f"{external.images}: {unmet[0]}; choose another protocol for the benchmark, or score this folder by itself "
            "(`potgan score --as-they-are`)"
        )
    size = _dataset(benchmark, dataset).image_size
    whole = TargetFolder(external.targets, list(test_pairs["to"]), results.numbers) if external.targets else None
    if whole is not None and whole.file_format is not None:  # files with the results' numbers
        raise UserError(
            f"{where}.targets: {external.targets} was released with the results, and protocol {protocol.id} demands the data set's "
            "own images; leave the key out, and the row is measured against those"
        )
    record = generation.GenerationRecord(
        method,
        seed,
        None,
        None,
        settings=_external_fingerprint(benchmark, method),
        origin=external.images,
        layout=external.layout,
        file_format=results.file_format,
        panels=results.panels,
        files_sha256=results.sha256(),
        targets=external.targets or "dataset",
    )
    generation.write_generated(
        generation.imported_images(results, size),
        test_pairs,
        record,
        layout.generate(dataset, method, seed),
        whole and generation.imported_targets(whole, size),
    )
    say(
        f"{dataset}/{method}: {len(results):,} images of {external.images}, {results.file_format}, {results.panels} panels"
    )


@recorded
def evaluate(benchmark: Benchmark, layout: Layout, dataset: str, method: str, seed: int) -> None:
    from potgan.measure import evaluate as evaluation
    from potgan.measure.generate import GenerationRecord, read_targets

    protocol = PROTOCOLS[benchmark.protocol]
    test_pairs = _pairs(layout, dataset, "test")
    # Images and joints only: the masks of metrics are the protocol's, whatever masks the model was given.
    data = _pair_data(benchmark, layout, dataset, "test", "cpu", benchmark.main_model)
    folder = layout.generate(dataset, method, seed)
    generated = evaluation.read_generated(folder, test_pairs)
    targets = data.images[data.targets].permute(0, 2, 3, 1).numpy()
    imported = read_targets(folder)
    joints = data.joints.numpy()
    source_joints, target_joints = joints[data.sources.numpy()], joints[data.targets.numpy()]
    owner = target_joints if protocol.mask_owner == "target" else source_joints
    masks = evaluation.masks_of(owner, data.size, protocol)
    network = _feature_network(benchmark, layout)
    lpips = _lpips(protocol)
    real = _train_images(layout, dataset, data.size) if protocol.fid_reference == "train" else None
    measured = targets if imported is None else imported
    metrics, per_pair = evaluation.evaluate(
        generated, measured, masks, test_pairs, network, protocol, real, cache=layout.feature_cache, lpips=lpips
    )
    under_all = evaluation.sensitivity(generated, measured, source_joints, target_joints, (protocol, per_pair))
    record = GenerationRecord.read(folder / "generate.json")
    flow = _flow(layout, dataset) if benchmark.datasets[dataset].kind == "synthetic" else None
    warp_file, warp = folder / "warps.npz", None
    if flow is not None and warp_file.exists():
        settings = benchmark.run_settings(dataset, benchmark.model_of(method), seed).generator
        points = np.load(warp_file)["control_points"]
        warp = {"scales": evaluation.warp_errors(points, *flow, settings)}
    scores = {
        "benchmark": benchmark.benchmark,
        "dataset": dataset,
        "method": method,
        "seed": seed,
        "iteration": record.iteration,
        "n_pairs": len(test_pairs),
        "protocol": protocol.record,
        "metrics": metrics,
        "warp": warp,
        "mask_area": float(masks.mean()),
        "settings": record.settings,
        "file_format": record.file_format,
        "hashes": _data_hashes(layout, dataset)
        | {
            "feature_network": network.weights_sha256,
            "lpips_network": None if isinstance(lpips, str) else lpips.weights_sha256,
            "generated": evaluation.folder_hash(folder),
            "generator": record.generator_sha256,
        },
        "measured_with": evaluation.measured_with(test_pairs, measured, (source_joints, target_joints)),
        "versions": evaluation.versions(),
        "device": record.training.device if record.training else None,
        "training": record.training,
    }
    out = layout.evaluate(dataset, method, seed)
    evaluation.write_scores(out, build(evaluation.Scores, scores, "scores.json"), per_pair, under_all)
    _log_test_set(layout, f"{dataset}/{method}/seed{seed}", protocol, len(test_pairs))
    shown = (f"{name} {entry['value']:.3f}" for name, entry in metrics.items() if entry["value"] is not None)
    say(f"{dataset}/{method}/seed{seed}: {', '.join(shown)}")


def _train_images(layout: Layout, dataset: str, size: tuple[int, int], part: int = 512) -> Iterator[np.ndarray]:
    """All training images of a data set in the models' size, in parts, so that a large set needs little memory."""
    folder = ImageFolder(layout.images(dataset))
    names = folder.names("train")
    for start in range(0, len(names), part):
        yield np.stack([resize(folder.read(name), size) for name in names[start : start + part]])


def _log_test_set(layout: Layout, run: str, protocol: Protocol, count: int) -> None:
    """Test pairs are there to be scored once per run: who looks often can count the lines."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with open(layout.test_set_log, "a", encoding="utf-8") as log:
        log.write(f"{now} {run} protocol {protocol.id} {protocol.hash}, {count} test pairs\n")


@recorded
def tabulate(benchmark: Benchmark, layout: Layout) -> None:
    """TABLE I-IV, the ablation comparison, `metrics.json`, the figures and the page."""
    from potgan.report.costs import write_costs
    from potgan.report.page import write_report
    from potgan.report.tables import write_tables
    from potgan.results import Results

    refuse_strangers(benchmark, layout)
    results = Results(benchmark, layout)
    write_tables(results)
    write_costs(results)
    page = write_report(results)
    say(f"the report is {page}")


# ---------------------------------------------------------------------------------------------------------------------


def _external_fingerprint(benchmark: Benchmark, method: str) -> str:
    """What decides an external method's images: its folder, how it is read, and whose targets go with it."""
    entry = benchmark.external_methods[method]
    origin = [entry.dataset, entry.images, entry.layout, entry.targets]
    return fingerprint([*origin, benchmark.datasets[entry.dataset].image_size, PROTOCOLS[benchmark.protocol].targets])


def _dataset(benchmark: Benchmark, dataset: str) -> Dataset:
    if dataset not in benchmark.datasets:
        raise UserError(
            f"no data set {dataset!r} in benchmark {benchmark.benchmark}; it has {', '.join(benchmark.datasets)}"
        )
    return benchmark.datasets[dataset]


def _resolved(benchmark: Benchmark, layout: Layout, dataset: str) -> Dataset:
    """The data set with the files and the estimator that the stage `published` has found."""
    return resolved(_dataset(benchmark, dataset), layout.published(dataset))


def _keypoints(layout: Layout, dataset: str) -> Keypoints:
    path = layout.keypoints(dataset) / "keypoints.csv"
    if not path.exists():
        raise UserError(f"{path}: missing; run `potgan keypoints` first")
    again = "run `potgan keypoints` again"
    images = ImagesRecord.read(layout.images(dataset) / "images.json").sha256
    # Records of earlier versions do not say which images the key points are of.
    if read_json(path.with_suffix(".json"), again).get("images_sha256", images) != images:
        raise UserError(f"{path}: is of other images than {layout.images(dataset)} holds now; {again}")
    return read_keypoints(path)


def _pairs(layout: Layout, dataset: str, split: str) -> pd.DataFrame:
    from potgan.data.pairs import read_pairs

    return read_pairs(layout.pairs(dataset) / f"pairs-{split}.csv")


def _flow(layout: Layout, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """The exact flow (N, H, W, 2) of the test pairs in pixels, and (N, H, W) bool, where it is known."""
    path = layout.pairs(dataset) / "flow.npz"
    if not path.exists():
        raise UserError(f"{path}: missing, so that warps cannot be measured; run `potgan pairs` again")
    from potgan.measure.evaluate import read_flow

    return read_flow(path)


def _training_images(benchmark: Benchmark, layout: Layout, dataset: str) -> Iterator[np.ndarray]:
    """Each image (H, W, 3) uint8 of the training pairs once, at the size that the models see.

    One at a time: those of DeepFashion take 10 GB together, and a training may have the rest of the memory.
    """
    pairs = _pairs(layout, dataset, "train")
    names = sorted(set(pairs["from"]) | set(pairs["to"]))
    folder = ImageFolder(layout.images(dataset))
    for name in progress(names, len(names), "reading images", "images"):
        yield resize(folder.read(name), benchmark.datasets[dataset].image_size)


def _pair_data(
    benchmark: Benchmark,
    layout: Layout,
    dataset: str,
    split: str,
    device: torch.device | str,
    model: str,
    parsing: bool = False,
) -> PairData:
    """The pairs of a split with the masks and heat maps that `model` is given (an ablation may set its own).

    parsing: whether the class of each pixel is wanted, too.
    """
    from potgan.data.batches import load_pairs

    settings = benchmark.run_settings(dataset, model, 0)
    if parsing and benchmark.why_left_out(dataset, model):
        raise UserError(f"{model} on {dataset}: is not run, because {benchmark.why_left_out(dataset, model)}")
    return load_pairs(
        layout.images(dataset),
        _keypoints(layout, dataset),
        _pairs(layout, dataset, split),
        settings.image_size,
        settings.masks,
        device,
        layout.parsing(dataset) if parsing else None,
    )


def _data_hashes(layout: Layout, dataset: str, parsing: bool = False) -> dict[str, str]:
    images_record = ImagesRecord.read(layout.images(dataset) / "images.json")
    keypoints_record = read_json(layout.keypoints(dataset) / "keypoints.json", "run `potgan keypoints` first")
    pairs_record = read_json(layout.pairs(dataset) / "pairs.json", "run `potgan pairs` first")
    return {
        "images": images_record.sha256,
        "keypoints": keypoints_record["sha256"],
        **{f"pairs_{split}": entry["sha256"] for split, entry in pairs_record["splits"].items()},
        **({"parsing": _parsing_hash(layout, dataset)} if parsing else {}),
    }


def _parsing_hash(layout: Layout, dataset: str) -> str:
    return read_json(layout.parsing(dataset) / "parsing.json", "run `potgan parsing` first")["sha256"]


def _lpips(protocol: Protocol) -> LpipsNetwork | str:
    """The network of LPIPS, or why there is none."""
    if protocol.feature_network == "synthetic-classifier":
        return f"{protocol.id} measures through no network that was trained on photographs"
    from potgan.measure.lpips_network import load_lpips

    return load_lpips()


def _feature_network(benchmark: Benchmark, layout: Layout) -> FeatureNetwork:
    if PROTOCOLS[benchmark.protocol].feature_network == "synthetic-classifier":
        from potgan.measure.synthetic_network import load_feature_network

        return load_feature_network(layout.feature_network)
    from potgan.common.device import pick_device
    from potgan.common.weights import weight_file
    from potgan.measure.inception import InceptionNetwork

    return InceptionNetwork(weight_file("inception-2015-12-05"), pick_device())
