"""Seconds of a training step at the paper's width: ours beside PATN's own, and beside a plain PyTorch version of ours.

Usage: python benchmarks/speed/step.py [--patn CHECKOUT] [--batch 8] [--size 128x64] [--threads 2] [--rounds 7] [--turn 2]
           [--device cpu] [--json FILE]
       python benchmarks/speed/step.py --against patn --patn CHECKOUT
       python benchmarks/speed/step.py --against adgan --adgan CHECKOUT

CHECKOUT is a copy of github.com/tengteng95/Pose-Transfer, whose modules are imported from there. Its batch is ours (its
authors take 32 on Market-1501); everything else is as they run it, in fp32. `plain` has our networks and losses as a
first version would train them: eager, NCHW, PNG files read by two DataLoader workers, Adam's default, every loss waited
for. All sides lie warm in processes of their own and take turns, every round in another order; a ratio is of one round. One
side is measured twice in every round, and its ratio to itself is printed, too. PATN's loader is not timed.

With --against, `ours` is our own version of that method, with its authors' options, in fp32. Batch and size are those that its
authors train with, unless they are given. The checkout of ADGAN is a copy of github.com/menyifang/ADGAN.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import time
from pathlib import Path
from typing import Any

import torch
from workers import (
    AUTHORS,
    IMPROVEMENTS,
    Failed,
    Ours,
    Worker,
    floating_point_operations,
    paper_settings,
    print_kernels,
    record,
    settings_from,
    size_argument,
    spread,
    write,
)

from potgan.common.progress import say

PRECISIONS = ("fp32", "tf32", "bf16")  # tf32: on a GPU only
#: (dividend, divisor, at least): what the project wants to hold at width 64, 128 x 64, batch 8 on two CPU threads.
TARGETS = (("patn", "fp32", 7.5), ("patn", "best", 10.0), ("plain", "fp32", 1.3))


#: Batch, and height and width of the images, that authors train with (scripts/train_star.sh for Market-1501; scripts/train.sh).
AUTHORS_SIZES = {"patn": (32, (128, 64)), "adgan": (6, (256, 176))}
#: How our step may be run: every piece of work started by itself, recorded as one CUDA graph, or compiled (and recorded).
WAYS = ("eager", "recorded", "compiled")


def sides_of(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """name -> arguments of Worker."""
    base = settings_from(arguments)
    on_gpu = arguments.device == "cuda"
    sides: dict[str, dict[str, Any]] = {}
    authors = arguments.against or "patn"
    if getattr(arguments, authors) is not None:
        checkout = str(getattr(arguments, authors).resolve())
        sides[authors] = {"kind": authors, "settings": base, "checkout": checkout}
        if on_gpu:
            sides[f"{authors} tf32"] = sides[authors] | {"tf32": True}
    if arguments.against is not None:
        base = base | {"method": arguments.against}
    elif not arguments.without_plain:
        sides["plain"] = {"kind": "plain", "settings": base}
    for precision in arguments.precisions:
        for way in arguments.ways:
            name = precision if way == "eager" else f"{precision} {way}"
            sides[name] = {"kind": "ours", "settings": base | {"precision": precision} | how(way)}
            if arguments.forced_layout and way == "compiled":
                sides[f"{name}, layout as it comes"] = sides[name] | {"without": "forced layout"}
    unknown = set(arguments.sides or ()) - set(sides)
    if unknown:
        raise SystemExit(f"error: --sides: there is no {', '.join(sorted(unknown))}; there are {', '.join(sides)}")
    return {name: side for name, side in sides.items() if not arguments.sides or name in arguments.sides}


def embedded_sides(arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The step of config/config.yaml, and what it was: in fp32, with a perceptual stand-in of VGG-16's 64 channels and a
    discriminator as wide as the generator.
    """
    base = {"configuration": "config/config.yaml", "batch_size": 8, "threads": arguments.threads, "compile": "never"}
    before = {"precision": "fp32", "perceptual_width": 64, "discriminator_width": 16}
    return {
        "embedded, as it was": {"kind": "ours", "settings": base | before},
        "embedded": {"kind": "ours", "settings": base},
    }


def embedded(arguments: argparse.Namespace) -> dict[str, Any]:
    arguments.kernels, arguments.null = None, "embedded"
    found = take_turns(embedded_sides(arguments), arguments)
    print_sides(found, 8)
    null = print_null(found)
    value = ratio(found, "embedded, as it was", "embedded")
    if value is not None:
        print(f"embedded, as it was / embedded: {ratio_text(value)}; wanted: 3", flush=True)
    return {"sides": found, "ratios": {"embedded, as it was / embedded": value}, "null": null}


def how(way: str) -> dict[str, Any]:
    """Settings of a training that run its step in one of WAYS. A short training is recorded, but not compiled."""
    return {
        "eager": {"compile": "never"},
        "recorded": {"compile": "auto", "iterations": 1000},
        "compiled": {"compile": "always"},
    }[way]


def take_turns(sides: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """name -> seconds of each round, peak memory, floating-point operations per pair; or why there is none.

    The sides come in another order in every round, and every turn begins with a step that is not timed. Else whoever always comes
    first, or after the same neighbour, would look slower or faster than it is. The side named `null` is the process of another side
    measured a second time, so that the ratio of the two shows what no difference looks like.
    """
    found: dict[str, dict[str, Any]] = {}
    with contextlib.ExitStack() as stack:
        started = {
            name: stack.enter_context(Worker(device=arguments.device, limit=arguments.limit, wait=False, **side))
            for name, side in sides.items()
        }
        ready = compiled_together(started, sides, arguments)
        workers: dict[str, Worker] = {}
        turns: dict[str, int] = {}
        for name, worker in started.items():
            try:
                if isinstance(ready[name], Failed):
                    raise ready[name]
                found[name] = {"compile_seconds": ready[name]} if ready[name] else {}
                began = time.perf_counter()
                if sides[name]["settings"].get("compile") != "always":
                    found[name]["gflop_per_pair"] = worker.ask(flops=True) / sides[name]["settings"]["batch_size"] / 1e9
                worker.steps(arguments.warm_up)
                found[name]["warm_up_seconds"] = time.perf_counter() - began
                turns[name] = arguments.steps or max(2, round(arguments.turn / worker.steps(2)[0]))
                workers[name] = worker
                say(f"{name}: warm after {found[name]['warm_up_seconds']:.1f} s, {turns[name]} steps a turn")
            except Failed as failure:
                worker.close()  # what it holds of the device's memory is the others'
                found[name] = {"failed": str(failure)}
                say(f"{name}: {failure}")
        if workers:
            null_of = arguments.null if arguments.null in workers else next(reversed(workers))
            workers["null"], turns["null"], found["null"] = workers[null_of], turns[null_of], {"of": null_of}
        rounds: dict[str, list[float]] = {name: [] for name in workers}
        processors: dict[str, list[float]] = {name: [] for name in workers}
        names = list(workers)
        order = random.Random(0)
        for number in range(arguments.rounds):
            order.shuffle(names)
            for name in names:
                workers[name].steps(1)
                clock, busy = workers[name].steps(turns[name])
                rounds[name].append(clock)
                processors[name].append(busy)
            last = ", ".join(f"{name} {values[-1] * 1e3:.2f}" for name, values in rounds.items())
            say(f"round {number + 1} of {arguments.rounds}, ms/step: {last}")
        for name, worker in workers.items():
            found[name] |= {
                "seconds": rounds[name],
                "processor_seconds": processors[name],
                "peak_memory_bytes": worker.ask(peak=True),
                **spread(rounds[name]),
            }
            if sides.get(name, {}).get("kind") == "ours":
                compile = sides[name]["settings"].get("compile", "never")
                recorded = arguments.device == "cuda" and compile != "never"
                found[name]["wanted"] = {"compiled": compile == "always", "recorded": recorded}
                found[name]["really"] = worker.ask(really=True)
        if any(name.startswith(PRECISIONS) for name in workers):
            _add_shares_of_the_peak(found, workers, sides, arguments)
        for name in arguments.kernels or ():
            if name in workers:
                try:
                    found[name]["kernels"] = workers[name].ask(kernels=20)
                except Failed as failure:  # the times that were measured stay
                    say(f"{name}: kernels: {failure}")
    return found


def compiled_together(
    started: dict[str, Worker], sides: dict[str, dict[str, Any]], arguments: argparse.Namespace
) -> dict[str, float | None | Failed]:
    """name -> seconds that compiling took, None for a side that is not compiled, or why there is no such side.

    All sides compile at the same time. With --hold, what comes after waits until the file of this name is there.
    """
    found: dict[str, float | None | Failed] = {}
    start = time.perf_counter()
    for name, worker in started.items():
        try:
            worker.built()
            found[name] = None
            if sides[name]["settings"].get("compile") == "always" and arguments.device == "cuda":
                worker.tell(compile=True)
                found[name] = math.nan
        except Failed as failure:
            found[name] = failure
    for name, state in found.items():
        if isinstance(state, float):
            try:
                started[name].answer(max(1.0, start + arguments.limit - time.perf_counter()))
                found[name] = time.perf_counter() - start
                say(f"{name}: compiled after {found[name]:.0f} s")
            except Failed as failure:
                found[name] = failure
                say(f"{name}: {failure}")
    if arguments.hold is not None:
        arguments.hold.with_suffix(".ready").touch()
        while not arguments.hold.exists():
            time.sleep(0.1)
    return found


def _add_shares_of_the_peak(
    found: dict[str, dict[str, Any]],
    workers: dict[str, Worker],
    sides: dict[str, dict[str, Any]],
    arguments: argparse.Namespace,
) -> None:
    """Add what share of the device's own rate of matrix products each of our sides reaches, in its precision."""
    peaks: dict[str, float] = {}
    counted = (found[name].get("gflop_per_pair") for name in workers if name.startswith(PRECISIONS))
    flops = 1e9 * (next(filter(None, counted), None) or gflop_per_pair(arguments))
    for name in workers:
        if not name.startswith(PRECISIONS):
            continue
        precision = sides[name]["settings"]["precision"]
        if precision not in peaks:
            peaks[precision] = workers[name].ask(matrix_peak=precision)
        rate = flops * arguments.batch / found[name]["median"]
        found[name] |= {
            "flop_per_second": rate,
            "matrix_peak": peaks[precision],
            "share_of_peak": rate / peaks[precision],
        }


def gflop_per_pair(arguments: argparse.Namespace) -> float:
    """Counted in an eager step of one pair on the CPU. A multiplication and an addition are two; optimisers are left out."""
    settings = paper_settings(arguments.size, 1, arguments.width, method=arguments.against or "potgan")
    return floating_point_operations(Ours(settings, torch.device("cpu"))) / 1e9


def ratio(found: dict[str, dict[str, Any]], dividend: str, divisor: str) -> dict[str, float] | None:
    """How many times as long as `divisor` the side `dividend` takes: of each round, and of the best rounds."""
    if any("seconds" not in found.get(name, {}) for name in (dividend, divisor)):
        return None
    a, b = found[dividend], found[divisor]
    rounds = [x / y for x, y in zip(a["seconds"], b["seconds"], strict=True)]
    busy = min(a["processor_seconds"]) / min(b["processor_seconds"])
    return {**spread(rounds), "of_minima": a["min"] / b["min"], "of_processor_seconds": busy}


def print_null(found: dict[str, dict[str, Any]]) -> dict[str, float] | None:
    """Print and return the ratio of one side to itself."""
    of = found.get("null", {}).get("of")
    value = ratio(found, "null", of) if of else None
    if value is not None:
        print(f"null comparison, {of} / {of}: {ratio_text(value)}", flush=True)
    return value


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
        if "share_of_peak" in side:
            flops += f", {side['flop_per_second'] / 1e12:.3g} TFLOP/s, {100 * side['share_of_peak']:.1f} % of the measured peak"
        print(
            f"{name:16} median {side['median'] * 1e3:.2f}, best {side['min'] * 1e3:.2f}, slowest {side['max'] * 1e3:.2f} "
            f"ms/step, {batch / side['median']:.1f} pairs/s{flops}, peak {side['peak_memory_bytes'] / 2**30:.2f} GiB",
            flush=True,
        )


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    found = take_turns(sides_of(arguments), arguments)
    print_sides(found, arguments.batch)
    ours = [name for name in found if name.startswith(PRECISIONS) and "median" in found[name]]
    for name, side in found.items():
        if "kernels" in side:
            print_kernels(side["kernels"], f"{name}, batch {arguments.batch}")
    best = min(ours, key=lambda name: found[name]["median"], default=None)
    ratios = {}
    null = print_null(found)
    for other in (*(f"{name}{way}" for name in AUTHORS for way in ("", " tf32")), "plain"):
        for name in ours:
            value = ratio(found, other, name)
            if value is not None:
                ratios[f"{other} / {name}"] = value
                print(f"{other} / {name}: {ratio_text(value)}", flush=True)
    measured = (arguments.against, arguments.device, arguments.width, arguments.size, arguments.batch)
    as_wanted = measured == (None, "cpu", 64, (128, 64), 8)
    for name in ours:
        base = name.partition(",")[0]
        value = ratio(found, name, base) if name != base else None
        if value is not None:
            ratios[f"{name} / {base}"] = value
            print(f"{name} / {base}: {ratio_text(value)}", flush=True)
    for dividend, divisor, wanted in TARGETS if as_wanted else ():
        divisor = best if divisor == "best" else divisor
        value = ratios.get(f"{dividend} / {divisor}")
        if value is not None:
            print(f"wanted {dividend} / {divisor} >= {wanted}: {'met' if value['median'] >= wanted else 'missed'}")
    return {"sides": found, "best": best, "ratios": ratios, "null": null}


def improvements(arguments: argparse.Namespace) -> dict[str, Any]:
    """Our step with one thing taken out at a time."""
    base = settings_from(arguments)
    side = {"kind": "ours", "settings": base | {"precision": arguments.improvements_of}}
    found = take_turns({"all": side} | {name: side | {"without": name} for name in IMPROVEMENTS}, arguments)
    values = {}
    null = print_null(found)
    for name, instead in IMPROVEMENTS.items():
        value = ratio(found, name, "all")
        if value is None:
            print(f"without {name}: {found[name].get('failed', found['all'].get('failed'))}")
            continue
        values[name] = value
        print(f"{arguments.improvements_of} without {name} ({instead}): {ratio_text(value)} times the time", flush=True)
    return {"sides": found, "ratios": values, "null": null}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patn", type=Path, metavar="CHECKOUT", help="without it PATN is left out")
    parser.add_argument("--adgan", type=Path, metavar="CHECKOUT", help="of ADGAN, for --against adgan")
    parser.add_argument(
        "--against",
        choices=AUTHORS,
        help="measure our own version of this method beside its authors' code, and not PoT-GAN",
    )
    parser.add_argument("--batch", type=int, help="default: 8, with --against the authors'")
    parser.add_argument(
        "--size", type=size_argument, help="height x width; default: 128x64, with --against the authors'"
    )
    parser.add_argument("--width", type=int, default=64, help="default: %(default)s, the paper's (and PATN's ngf)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, help="of each side in a round; default: as many as fill --turn")
    parser.add_argument("--turn", type=float, default=None, help="seconds of each turn; default: 2, on a GPU 0.4")
    parser.add_argument("--warm-up", type=int, help="steps; default: 2, on a GPU 12")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--limit", type=float, default=300, help="seconds that a side may take to start or for a round")
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="of ours; default: eager and compiled, on a GPU all")
    parser.add_argument("--sides", nargs="+", help="only these, such as `patn` and `bf16 compiled`; default: all")
    parser.add_argument("--kernels", nargs="+", metavar="SIDE", help="sides whose kernels are profiled, on a GPU")
    parser.add_argument(
        "--forced-layout", action="store_true", help="also the compiled sides with the compiler's own layout"
    )
    parser.add_argument(
        "--hold", type=Path, help="wait for this file after compiling, so that nothing else runs while it times"
    )
    parser.add_argument("--without-plain", action="store_true", help="leave the plain version out")
    parser.add_argument("--null", help="the side that is measured twice in a round; default: the last")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="of ours; default: all of the device")
    parser.add_argument("--improvements-of", choices=PRECISIONS, default="fp32")
    parser.add_argument(
        "--only",
        choices=("sides", "improvements", "embedded"),
        help="one of the parts; embedded: the default run's step, as it was and as it is",
    )
    parser.add_argument("--json", type=Path, help="write the numbers there, too")
    arguments = parser.parse_args()
    on_gpu = arguments.device == "cuda"
    batch, size = AUTHORS_SIZES.get(arguments.against, (8, (128, 64)))
    arguments.batch, arguments.size = arguments.batch or batch, arguments.size or size
    if arguments.against is not None:
        if getattr(arguments, arguments.against) is None:
            parser.error(f"--against {arguments.against} needs --{arguments.against} CHECKOUT")
        if arguments.only not in (None, "sides"):
            parser.error("--against measures sides only")
        arguments.only, arguments.precisions = "sides", arguments.precisions or ["fp32"]
    arguments.turn = arguments.turn or (0.4 if on_gpu else 2.0)
    arguments.ways = arguments.ways or [way for way in WAYS if on_gpu or way != "recorded"]
    arguments.precisions = arguments.precisions or [p for p in PRECISIONS if on_gpu or p != "tf32"]
    arguments.warm_up = arguments.warm_up or (12 if on_gpu else 2)
    results: dict[str, Any] = {}
    for part, measure in (("sides", compare), ("improvements", improvements), ("embedded", embedded)):
        if arguments.only == part or (arguments.only is None and part != "embedded"):
            results[part] = measure(arguments)
            write(arguments.json, record("step.py", vars(arguments), **results))
    failures = [f"{name}: {side['failed']}" for part in results.values() for name, side in part["sides"].items()
                if "failed" in side]  # fmt: skip
    # Such as a compiled side on a machine that cannot compile, where torch goes on uncompiled.
    failures += [f"{name}: really {side['really']}" for part in results.values() for name, side in part["sides"].items()
                 if side.get("really") != side.get("wanted")]  # fmt: skip
    if failures:
        raise SystemExit(f"error: not measured: {'; '.join(failures)}")


if __name__ == "__main__":
    main()
