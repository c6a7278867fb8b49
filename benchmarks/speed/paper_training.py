"""The paper's own training at full speed, for as long as there is time: config/paper.yaml's model on data of Market-1501's size.

Usage: python benchmarks/speed/paper_training.py [--seconds 150] [--precision bf16] [--out FOLDER] [--json FILE]

The images are synthetic people, as many as Market-1501 has in its training set (751 people, 12,936 images), and all ordered
pairs of each person's images. The perceptual network's weights are random, because ImageNet's cannot be fetched everywhere; that
changes the values of one loss, and not the time. The training is `potgan.training.loop.train` itself, with its checkpoints,
validation, pictures and saved states. After --seconds it is stopped as a user would stop it; the same command continues it.
What is printed is the rate of the iterations that were done, and the time of all 90,000 at that rate.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from workers import REPOSITORY, clock_of_updates, record, write

from potgan.common.device import device_name
from potgan.common.errors import Interrupted
from potgan.data.batches import PairData
from potgan.data.pose_rendering import pose_mask
from potgan.data.synthetic import people
from potgan.settings.reading import load
from potgan.settings.schema import RunSettings, SyntheticSettings
from potgan.training import loop

#: Market-1501's training set. 17 or 18 images of each of 751 people are 12,936.
PEOPLE, IMAGES = 751, 12_936


def _render(task: tuple[int, list[int], tuple[int, int], int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, 3, H, W), masks (N, 1, H, W) and joints (N, 18, 2) of one person."""
    person, indices, (height, width), radius = task
    settings = SyntheticSettings(
        train_identities=PEOPLE, test_identities=0, images_per_identity=max(indices) + 1, height=height, width=width
    )
    images, masks, joints = [], [], []
    for index in indices:
        render = people.render(settings, person, index)
        images.append(render.image.transpose(2, 0, 1))
        seen, _ = people.annotate(render)
        joints.append(seen)
        masks.append(255 * pose_mask(seen, height, width, radius)[None])
    return np.stack(images), np.stack(masks), np.stack(joints).astype(np.float32)


def market_sized_pairs(settings: RunSettings, images: int, validation_people: int) -> tuple[PairData, PairData]:
    """Training and validation pairs: all ordered pairs of images of one person, as PATN's rule builds them."""
    per_person = [images // PEOPLE + (person < images % PEOPLE) for person in range(PEOPLE)]
    tasks = [
        (person + 1, list(range(count)), settings.image_size, settings.masks.limb_radius)
        for person, count in enumerate(per_person)
        if count
    ]
    with concurrent.futures.ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        parts = list(pool.map(_render, tasks, chunksize=8))
    found = []
    for chosen in (slice(validation_people, None), slice(None, validation_people)):
        sources, targets, offset = [], [], 0
        for pictures, _, _ in parts[chosen]:
            a, b = np.nonzero(~np.eye(len(pictures), dtype=bool))
            sources.append(a + offset)
            targets.append(b + offset)
            offset += len(pictures)
        pictures, masks, joints = (torch.from_numpy(np.concatenate(kind)) for kind in zip(*parts[chosen], strict=True))
        found.append(
            PairData(
                [str(number) for number in range(offset)],
                pictures.contiguous(),
                masks,
                joints,
                torch.from_numpy(np.concatenate(sources)),
                torch.from_numpy(np.concatenate(targets)),
                settings.masks.heatmap_sigma,
            )
        )
    training, validation = found
    places = np.unique(np.linspace(0, len(validation) - 1, min(500, len(validation))).astype(int))
    picked = torch.from_numpy(places)
    return training, dataclasses.replace(
        validation, sources=validation.sources[picked], targets=validation.targets[picked]
    )


def paper_run(arguments: argparse.Namespace) -> RunSettings:
    """config/paper.yaml's main model on Market-1501, with random weights in the perceptual network."""
    benchmark = load(REPOSITORY / "config" / "paper.yaml")
    settings = benchmark.run_settings("market1501", benchmark.main_model, 0)
    changed: dict[str, Any] = {"perceptual_network": "random", "precision": arguments.precision}
    if arguments.iterations is not None:
        changed |= {"iterations": arguments.iterations, "decay_from": arguments.iterations * 2 // 3}
    if arguments.batch is not None:
        changed["batch_size"] = arguments.batch
    generator, discriminator = settings.generator, settings.discriminator
    if arguments.width is not None:
        generator = dataclasses.replace(generator, width=arguments.width)
        discriminator = dataclasses.replace(discriminator, width=arguments.width)
    training = dataclasses.replace(settings.training, **changed)
    return dataclasses.replace(settings, training=training, generator=generator, discriminator=discriminator)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=150, help="after which the training is stopped")
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="bf16")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=IMAGES, help="default: %(default)s, Market-1501's")
    parser.add_argument("--iterations", type=int, help="default: the configuration's")
    parser.add_argument("--batch", type=int, help="default: the configuration's")
    parser.add_argument("--width", type=int, help="default: the configuration's")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the training; an unfinished one is continued"
    )
    parser.add_argument("--json", type=Path, help="write the numbers there, too")
    arguments = parser.parse_args()
    settings, device = paper_run(arguments), torch.device(arguments.device)
    began = time.monotonic()
    data, validation = market_sized_pairs(settings, arguments.images, validation_people=50)
    made = time.monotonic() - began
    print(
        f"{len(data.names) + len(validation.names):,} images and {len(data):,} training pairs made in {made:.0f} s",
        flush=True,
    )
    run = arguments.out / "seed0" / "train"
    alarm = threading.Timer(arguments.seconds, os.kill, (os.getpid(), signal.SIGTERM))
    alarm.daemon = True
    alarm.start()
    start = time.perf_counter()
    finished = False
    with clock_of_updates() as begun:
        try:
            loop.train(data, validation, settings, run, {"images": "synthetic people"}, device)
            finished = True
        except Interrupted as stop:
            print(stop, flush=True)
    end = time.perf_counter()
    alarm.cancel()
    iterations, moments = [iteration for iteration, _ in begun], [moment for _, moment in begun]
    if len(moments) < 3:
        raise SystemExit("nothing was timed: --seconds is too small, or the training is finished already")
    # The first tenth holds compiling and recording. The rate of the rest holds checkpoints, validation and saved states.
    first = min(len(moments) // 10 + 4, len(moments) - 2)
    steps = np.diff(moments)
    rate = (moments[-1] - moments[first]) / (len(moments) - 1 - first)
    total = settings.training.iterations
    minutes = (moments[first] - start + rate * (total - first)) / 60
    height, width = settings.image_size
    what = f"{height} x {width}, width {settings.generator.width}, batch {settings.training.batch_size}"
    print(
        f"{device_name(device)}, {settings.training.precision}, {what}: iterations {iterations[0]:,} to {iterations[-1] + 1:,} in "
        f"{end - start:.1f} s, of which {moments[first] - start:.1f} s for the first {first}; then {rate * 1e3:.3f} ms each "
        f"(median step {np.median(steps[first:]) * 1e3:.3f} ms); all {total:,} take {minutes:.2f} minutes"
    )
    progress = run / "progress.csv"
    curve: list[dict[str, Any]] = []
    if progress.exists():
        table = pd.read_csv(progress)
        every = max(1, len(table) // 200)
        curve = table.iloc[::every].round(6).to_dict("records")
        print(table.tail(1).to_string(index=False))
    if arguments.json is not None:
        for path in run.glob("samples-*.png"):
            shutil.copy(path, arguments.json.parent)
    results = {
        "iterations": [iterations[0], iterations[-1] + 1],
        "finished": finished,
        "pairs": len(data),
        "seconds": end - start,
        "start_seconds": moments[first] - start,
        "seconds_per_iteration": rate,
        "median_seconds_between_iterations": float(np.median(steps[first:])),
        "minutes_of_all_iterations": minutes,
        "data_seconds": made,
        "curve": curve,
    }
    write(arguments.json, record("paper_training.py", vars(arguments), **results))


if __name__ == "__main__":
    main()
