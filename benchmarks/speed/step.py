"""Seconds of a training step at the paper's width: ours beside PATN's own, and beside a plain PyTorch version of ours.

Usage: python benchmarks/speed/step.py [--patn CHECKOUT] [--batch 8] [--size 128x64] [--threads 2] [--rounds 7] [--steps 3]
           [--device cpu] [--json FILE]

CHECKOUT is a copy of github.com/tengteng95/Pose-Transfer, whose modules are imported from there. Its batch is ours (its
authors take 32 on Market-1501); everything else is as they run it, in fp32. `plain` has our networks and losses as a
first version would train them: eager, NCHW, PNG files read by two DataLoader workers, Adam's default, every loss waited
for. All sides lie warm in processes of their own and take turns; a ratio is of one round. PATN's loader is not timed.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path
from typing import Any

import torch
from workers import IMPROVEMENTS, Failed, Worker, record, size_argument, spread, write

from potgan.common.progress import say

PRECISIONS = ("fp32", "tf32", "bf16")  # tf32: on a GPU only
#: (dividend, divisor, at least): what the project wants to hold at width 64, 128 x 64, batch 8 on two CPU threads.
TARGETS = (("patn", "fp32", 7.5), ("patn", "best", 10.0), ("plain", "fp32", 1.3))


def sides_of(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """name -> arguments of Worker."""
    base = {
        "size": arguments.size,
        "batch_size": arguments.batch,
        "width": arguments.width,
        "threads": arguments.threads,
    }
    on_gpu = arguments.device == "cuda"
    sides: dict[str, dict[str, Any]] = {}
    if arguments.patn is not None:
        checkout = str(arguments.patn.resolve())
        sides["patn"] = {"kind": "patn", "settings": base, "checkout": checkout}
        if on_gpu:
            sides["patn tf32"] = sides["patn"] | {"tf32": True}
    sides["plain"] = {"kind": "plain", "settings": base}
    for precision in arguments.precisions:
        for compile in ("never",) if arguments.eager_only else ("never", "always"):
            name = precision + (" compiled" if compile == "always" else "")
            sides[name] = {"kind": "ours", "settings": base | {"precision": precision, "compile": compile}}
    return sides


def take_turns(sides: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """name -> seconds of each round, peak memory, floating-point operations per pair; or why there is none."""
    found: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, side in sides.items():
            try:
                worker = stack.enter_context(Worker(device=arguments.device, limit=arguments.limit, **side))
                found[name] = {}
                if side["settings"].get("compile") != "always":
                    found[name]["gflop_per_pair"] = worker.ask(flops=True) / arguments.batch / 1e9
                worker.steps(arguments.warm_up)
                workers[name] = worker
            except Failed as failure:
                found[name] = {"failed": str(failure)}
        rounds: dict[str, list[float]] = {name: [] for name in workers}
        processors: dict[str, list[float]] = {name: [] for name in workers}
        for number in range(1, arguments.rounds + 1):
            for name, worker in workers.items():
                clock, busy = worker.steps(arguments.steps)
                rounds[name].append(clock)
                processors[name].append(busy)
            last = ", ".join(f"{name} {values[-1] * 1e3:.1f}" for name, values in rounds.items())
            say(f"round {number} of {arguments.rounds}, ms/step: {last}")
        for name, worker in workers.items():
            found[name] |= {
                "seconds": rounds[name],
                "processor_seconds": processors[name],
                "peak_memory_bytes": worker.ask(peak=True),
                **spread(rounds[name]),
            }
    return found


def ratio(found: dict[str, dict[str, Any]], dividend: str, divisor: str) -> dict[str, float] | None:
    """How many times as long as `divisor` the side `dividend` takes: of each round, and of the best rounds."""
    if any("seconds" not in found.get(name, {}) for name in (dividend, divisor)):
        return None
    a, b = found[dividend], found[divisor]
    rounds = [x / y for x, y in zip(a["seconds"], b["seconds"], strict=True)]
    busy = min(a["processor_seconds"]) / min(b["processor_seconds"])
    return {**spread(rounds), "of_minima": a["min"] / b["min"], "of_processor_seconds": busy}


def ratio_text(value: dict[str, float]) -> str:
    return (
        f"{value['median']:.2f} (rounds {value['min']:.2f} to {value['max']:.2f}, best against best "
        f"{value['of_minima']:.2f}; by processor time {value['of_processor_seconds']:.2f})"
    )


def print_sides(found: dict[str, dict[str, Any]], batch: int) -> None:
    for name, side in found.items():
        if "failed" in side:
            print(f"{name:16} {side['failed']}")
            continue
        flops = f", {side['gflop_per_pair']:.1f} GFLOP/pair" if "gflop_per_pair" in side else ""
        print(
            f"{name:16} median {side['median'] * 1e3:.1f}, best {side['min'] * 1e3:.1f}, slowest {side['max'] * 1e3:.1f} "
            f"ms/step, {batch / side['median']:.1f} pairs/s{flops}, peak {side['peak_memory_bytes'] / 2**30:.2f} GiB",
            flush=True,
        )


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    found = take_turns(sides_of(arguments), arguments)
    print_sides(found, arguments.batch)
    ours = [name for name in found if name.startswith(PRECISIONS) and "median" in found[name]]
    best = min(ours, key=lambda name: found[name]["median"], default=None)
    ratios = {}
    for other in ("patn", "patn tf32", "plain"):
        for name in ours:
            value = ratio(found, other, name)
            if value is not None:
                ratios[f"{other} / {name}"] = value
                print(f"{other} / {name}: {ratio_text(value)}", flush=True)
    for dividend, divisor, wanted in TARGETS:
        divisor = best if divisor == "best" else divisor
        value = ratios.get(f"{dividend} / {divisor}")
        if value is not None:
            print(f"wanted {dividend} / {divisor} >= {wanted}: {'met' if value['median'] >= wanted else 'missed'}")
    return {"sides": found, "best": best, "ratios": ratios}


def improvements(arguments: argparse.Namespace) -> dict[str, Any]:
    """Our step with one thing taken out at a time."""
    base = {
        "size": arguments.size,
        "batch_size": arguments.batch,
        "width": arguments.width,
        "threads": arguments.threads,
    }
    side = {"kind": "ours", "settings": base | {"precision": arguments.improvements_of}}
    found = take_turns({"all": side} | {name: side | {"without": name} for name in IMPROVEMENTS}, arguments)
    values = {}
    for name, instead in IMPROVEMENTS.items():
        value = ratio(found, name, "all")
        if value is None:
            print(f"without {name}: {found[name].get('failed', found['all'].get('failed'))}")
            continue
        values[name] = value
        print(f"{arguments.improvements_of} without {name} ({instead}): {ratio_text(value)} times the time", flush=True)
    return {"sides": found, "ratios": values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patn", type=Path, metavar="CHECKOUT", help="without it PATN is left out")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=size_argument, default="128x64", help="height x width; default: %(default)s")
    parser.add_argument("--width", type=int, default=64, help="default: %(default)s, the paper's (and PATN's ngf)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, help="of each side in a round; default: 3, on a GPU 50")
    parser.add_argument("--warm-up", type=int, help="steps; default: 2, on a GPU 12")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--limit", type=float, default=300, help="seconds that a side may take to start or for a round")
    parser.add_argument("--eager-only", action="store_true", help="leave the compiled variants out")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="of ours; default: all of the device")
    parser.add_argument("--improvements-of", choices=PRECISIONS, default="fp32")
    parser.add_argument("--only", choices=("sides", "improvements"), help="one of the two parts")
    parser.add_argument("--json", type=Path, help="write the numbers there, too")
    arguments = parser.parse_args()
    on_gpu = arguments.device == "cuda"
    arguments.steps = arguments.steps or (50 if on_gpu else 3)
    arguments.precisions = arguments.precisions or [p for p in PRECISIONS if on_gpu or p != "tf32"]
    arguments.warm_up = arguments.warm_up or (12 if on_gpu else 2)
    results = {}
    for part, measure in (("sides", compare), ("improvements", improvements)):
        if arguments.only in (None, part):
            results[part] = measure(arguments)
            write(arguments.json, record("step.py", vars(arguments), **results))


if __name__ == "__main__":
    main()
