"""Where a training's time goes, and how it grows: arithmetic, profile, loader, batch and image size, a whole training.

Usage: python benchmarks/speed/training.py [--parts flops profile loader wall inference scaling] [--batch 8] [--size 128x64]
           [--precision fp32] [--compile never] [--threads 2] [--device cpu] [--json FILE]

flops      floating-point operations per pair by part of the model, and what share of the device's measured peak of matrix
           multiplication in this precision a step achieves
profile    time of an uncompiled step by kind of operation; on a GPU, the kernels of the step as it is run, the ten largest ones,
           and what share of the time the GPU waits
loader     share of a step in which it waits for its batch, with pairs on the device and on the host. The device is idle
           while the clock runs, so this is an upper bound
wall       `train` itself for --iterations, and 90,000 of them extrapolated from its steady state
inference  images per second of `generate.synthesise`, for batches of 1, 8 and 32
scaling    steps for batches of 8 to 512 at 128 x 64 and 256 x 256, with peak memory, each in a process of its own, until
           memory or --limit ends it
"""

from __future__ import annotations

import argparse
import itertools
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from workers import (
    Failed,
    Ours,
    Worker,
    clock_of_updates,
    free_memory,
    kernels,
    matrix_peak,
    paper_settings,
    print_kernels,
    record,
    settings_from,
    size_argument,
    spread,
    write,
)

from potgan.common.device import device_name, keep_freed_memory, set_precision
from potgan.common.processes import Processes
from potgan.data.batches import PairData, training_batches
from potgan.measure.generate import synthesise
from potgan.methods.potgan.generator import Generator
from potgan.settings.schema import RunSettings
from potgan.training import loop
from potgan.training.estimate import WARM_UP, random_pairs, synchronise

PAPER_ITERATIONS = 90_000
#: Of Market-1501's training list, so that shuffling them is timed, too.
PAPER_PAIRS = 263_632
BATCHES = (8, 16, 32, 64, 128, 256, 512)
SIZES = ((128, 64), (256, 256))
#: Kinds of operations, by what their names hold; the first that fits counts.
KINDS = {
    "optimiser": r"adam",
    "convolution, backward": r"conv.*backward",
    "convolution, forward": r"conv",
    "normalisation": r"norm",
    "warps": r"grid_sampler",
    "dense layers and splines": r"::(addmm|mm|bmm|baddbmm|linear|matmul)$",
    "guided filter (box means)": r"avg_pool",
    "copies": r"copy|cat$|clone|contiguous|zero|fill|::to$|index|slice|repeat|empty",
    "activations": r"relu|tanh|threshold|sigmoid",
    "losses": r"l1_loss|cross_entropy|mean|sign|::abs|sum",
}


def settings_of(arguments: argparse.Namespace, **changed: Any) -> RunSettings:
    return paper_settings(
        **settings_from(arguments) | {"precision": arguments.precision, "compile": arguments.compile} | changed
    )


def flops_part(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    eager = Ours(settings_of(arguments, compile="never"), device)
    with FlopCounterMode(display=False) as whole:
        eager.run(1)
    per_pair = whole.get_total_flops() / arguments.batch
    generator = eager.method.generator
    (part,) = next(eager.batches)
    batch = part.on(device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(batch.source_image, batch.source_mask, batch.target_mask, batch.target_heatmaps)
    # Module names begin with the root's; the counter keeps all levels.
    parts = {
        name.rsplit(".", 1)[-1]: sum(counts.values()) / arguments.batch
        for name, counts in counter.get_flop_counts().items()
        if name.count(".") == 1
    }
    del eager
    timed = Ours(settings_of(arguments), device)
    timed.run(WARM_UP[device.type])
    seconds = [timed.run(arguments.steps) / arguments.steps for _ in range(arguments.rounds)]
    rate, peak = per_pair * arguments.batch / min(seconds), matrix_peak(arguments.precision, device)
    print(f"step: {per_pair / 1e9:.2f} GFLOP/pair (a multiplication and an addition are two)")
    print(
        "generator, forward: " + ", ".join(f"{name} {value / 1e9:.2f}" for name, value in parts.items()) + " GFLOP/pair"
    )
    print(
        f"{arguments.precision}, compile {arguments.compile}: best {min(seconds) * 1e3:.2f}, median "
        f"{np.median(seconds) * 1e3:.2f} ms/step; {rate / 1e12:.3f} TFLOP/s, {100 * rate / peak:.1f} % of the measured "
        f"{peak / 1e12:.3f} TFLOP/s of a matrix product"
    )
    return {
        "gflop_per_pair": per_pair / 1e9,
        "generator_forward_gflop_per_pair": {name: value / 1e9 for name, value in parts.items()},
        "seconds_per_step": spread(seconds),
        "peak_flops": peak,
        "share_of_peak": rate / peak,
    }


def kind_of(operation: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, operation.lower())), "rest")


def kernels_part(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The kernels of a step on a GPU, as it is really run."""
    timed = Ours(settings_of(arguments), device)
    timed.run(WARM_UP[device.type])
    found = kernels(timed, arguments.steps)
    print_kernels(found, f"{arguments.precision}, compile {arguments.compile}, batch {arguments.batch}")
    return found


def profile_part(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    if device.type == "cuda":
        return kernels_part(arguments, device)
    timed = Ours(settings_of(arguments, compile="never"), device)
    timed.run(WARM_UP[device.type])
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        wall = timed.run(arguments.steps)
    totals: dict[str, float] = {}
    operations: dict[str, float] = {}
    for event in profiler.key_averages():
        microseconds = event.self_cpu_time_total
        totals[kind_of(event.key)] = totals.get(kind_of(event.key), 0.0) + microseconds
        operations[event.key] = operations.get(event.key, 0.0) + microseconds
    everything = sum(totals.values())
    print(f"profile of {arguments.steps} uncompiled steps, {arguments.precision}: {wall / arguments.steps * 1e3:.1f} ms/step "
          f"with the profiler, {everything / 1e3 / arguments.steps:.1f} ms of it in operations")  # fmt: skip
    for kind, microseconds in sorted(totals.items(), key=lambda item: -item[1]):
        own = sorted(((t, name) for name, t in operations.items() if kind_of(name) == kind), reverse=True)[:3]
        print(
            f"  {kind:28} {100 * microseconds / everything:5.1f} %  "
            + ", ".join(f"{name} {100 * t / everything:.1f}" for t, name in own if t)
        )
    return {
        "seconds_per_step_while_profiled": wall / arguments.steps,
        "share": {kind: value / everything for kind, value in totals.items()},
        "operations": {
            name: value / everything for name, value in sorted(operations.items(), key=lambda item: -item[1])[:40]
        },
    }


def waiting_share(timed: Ours, data: PairData, settings: RunSettings, steps: int) -> dict[str, float]:
    """Share of the time of some steps in which they wait for their batch, the device being idle at the clock's readings."""
    device = timed.device
    positions = loop.batch_positions(len(data), settings, itertools.count(), Processes())
    batches = training_batches(data, device, positions, needs=timed.method.needs)
    for _ in range(WARM_UP[device.type]):
        timed.update(next(batches), 0)
    waited = worked = 0.0
    for _ in range(steps):
        synchronise(device)
        start = time.perf_counter()
        batch = next(batches)
        synchronise(device)
        middle = time.perf_counter()
        timed.update(batch, 0)
        synchronise(device)
        waited += middle - start
        worked += time.perf_counter() - middle
    return {"waited": waited / steps, "worked": worked / steps, "share": waited / (waited + worked)}


def loader_part(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    settings = settings_of(arguments)
    timed = Ours(settings, device)
    data = random_pairs(settings.image_size, settings.masks.heatmap_sigma, pairs=PAPER_PAIRS)
    steps = arguments.steps * arguments.rounds
    found: dict[str, Any] = {}
    where = {"on the device": data.placed(device)}
    if device.type == "cuda":
        where["on the host, gathered by a thread"] = data
    for name, placed in where.items():
        found[name] = waiting_share(timed, placed, settings, steps)
        print(
            f"pairs {name}: {found[name]['waited'] * 1e3:.3f} ms of {found[name]['worked'] * 1e3:.1f} ms for a batch, "
            f"{100 * found[name]['share']:.2f} % (wanted: less than 2)"
        )
    if device.type != "cuda":
        print("pairs on the host: on a CPU they are on the device already")
    return found


def wall_part(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """`train` itself, with the clock of its updates."""
    settings = settings_of(arguments, iterations=arguments.iterations, checkpoints=1)
    data = random_pairs(settings.image_size, settings.masks.heatmap_sigma, pairs=PAPER_PAIRS)
    with tempfile.TemporaryDirectory() as folder, clock_of_updates() as begun:
        start = time.perf_counter()
        done = loop.train(data, None, settings, Path(folder, "seed0", "train"), {}, device)
        end = time.perf_counter()
    moments = [moment for _, moment in begun]
    first = min(max(WARM_UP[device.type], len(moments) // 10), len(moments) - 1)
    # The end is the last step's start, so the last step and the final checkpoint are in neither count.
    counted = len(moments) - 1 - first
    if counted < 1:
        raise SystemExit("wall: --iterations is too small to time anything")
    each = (moments[-1] - moments[first]) / counted
    started = moments[first] - start
    hours = (started + each * (PAPER_ITERATIONS - first)) / 3600
    print(
        f"train: {done.iterations} iterations in {end - start:.1f} s, {each * 1e3:.2f} ms each over the last {counted}; the "
        f"first {first} with start{' and compiling' if done.compiled else ''} {started:.1f} s; {PAPER_ITERATIONS:,} would take "
        f"{hours:.2f} hours (extrapolated from {counted} steps)"
    )
    return {
        "iterations": done.iterations,
        "compiled": done.compiled,
        "seconds_per_iteration": each,
        "counted_iterations": counted,
        "start_seconds": started,
        "hours_of_90000": hours,
        "pairs_per_second": arguments.batch / each,
        "peak_memory_bytes": done.peak_memory_bytes,
    }


def inference_part(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    settings = settings_of(arguments)
    set_precision("fp32", device)
    torch.manual_seed(0)
    generator = Generator(settings.generator, settings.image_size).to(device)
    found = {}
    for batch in (1, 8, 32):
        count = batch * max(1, (640 if device.type == "cuda" else 32) // batch)
        data = random_pairs(settings.image_size, settings.masks.heatmap_sigma, pairs=count).placed(device)
        seconds = []
        for _ in range(arguments.rounds + 1):  # the first warms up
            start = time.perf_counter()
            made = sum(1 for _ in synthesise(generator, data, batch))
            seconds.append((time.perf_counter() - start) / made)
        found[str(batch)] = spread([1 / s for s in seconds[1:]])
        print(
            f"generate, fp32, batches of {batch}: median {found[str(batch)]['median']:,.1f} images/s "
            f"({found[str(batch)]['min']:,.1f} to {found[str(batch)]['max']:,.1f}), heat maps and conversion to uint8 included"
        )
    return found


def scaling_part(arguments: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    rows = []
    for size in arguments.sizes:
        for batch in arguments.batches:
            row: dict[str, Any] = {"size": list(size), "batch": batch}
            settings = settings_from(arguments) | {
                "size": size,
                "batch_size": batch,
                "precision": arguments.precision,
                "compile": arguments.compile,
            }
            memory = int(free_memory() * 0.7) if device.type == "cpu" and free_memory() else None
            began = time.perf_counter()
            try:
                with Worker("ours", arguments.device, settings, arguments.limit, memory) as worker:
                    worker.steps(WARM_UP[device.type] if device.type == "cuda" else 1)
                    seconds = [worker.steps(arguments.steps)[0] for _ in range(arguments.rounds)]
                    row |= {"seconds": spread(seconds), "peak_memory_bytes": worker.ask(peak=True)}
                    each = row["seconds"]
                    print(
                        f"{size[0]} x {size[1]}, batch {batch}: median {each['median'] * 1e3:.1f} ms/step ({each['min'] * 1e3:.1f} "
                        f"to {each['max'] * 1e3:.1f}), {batch / each['median']:,.1f} pairs/s, peak "
                        f"{row['peak_memory_bytes'] / 2**30:.2f} GiB",
                        flush=True,
                    )
            except Failed as failure:
                row["failed"] = str(failure)
                print(f"{size[0]} x {size[1]}, batch {batch}: {failure}; larger ones are left out", flush=True)
            rows.append(row)
            if "failed" in row:
                break
            if time.perf_counter() - began > arguments.limit:
                print(
                    f"{size[0]} x {size[1]}: more than {arguments.limit:g} s for batch {batch}; larger ones are left out"
                )
                row["stopped"] = f"time limit of {arguments.limit:g} s"
                break
    return rows


PARTS = {
    "flops": flops_part,
    "profile": profile_part,
    "loader": loader_part,
    "wall": wall_part,
    "inference": inference_part,
    "scaling": scaling_part,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=size_argument, default="128x64", help="height x width; default: %(default)s")
    parser.add_argument("--width", type=int, default=64, help="default: %(default)s, the paper's")
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="fp32")
    parser.add_argument("--compile", choices=("auto", "always", "never"), default="never")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of a round; default: 3, on a GPU 50")
    parser.add_argument("--iterations", type=int, help="of `wall`; default: 20, on a GPU 2,000")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="of `scaling`")
    parser.add_argument("--sizes", type=size_argument, nargs="+", default=SIZES, help="of `scaling`")
    parser.add_argument("--limit", type=float, default=120, help="seconds of each point of `scaling`")
    parser.add_argument("--json", type=Path, help="write the numbers there, too")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    arguments.steps = arguments.steps or (50 if device.type == "cuda" else 3)
    arguments.iterations = arguments.iterations or (2000 if device.type == "cuda" else 20)
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    print(f"{device_name(device)}, torch {torch.__version__}, {arguments.threads} threads, batch {arguments.batch}, "
          f"{arguments.size[0]} x {arguments.size[1]}, width {arguments.width}")  # fmt: skip
    results = {}
    for name in arguments.parts:
        results[name] = PARTS[name](arguments, device)
        write(arguments.json, record("training.py", vars(arguments), **results))


if __name__ == "__main__":
    main()
