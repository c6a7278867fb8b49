"""Functions that are timed in turn, in another order in every round, with one of them timed twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def in_turn(
    sides: dict[str, Callable[[], Any]], rounds: int, null: str
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Return side -> seconds of each round, and side -> its last result.

    Every side is called once before the first round. The order is another one in every round, because whoever always begins, or
    follows the same neighbour, would look slower or faster than it is. The side `null` is timed a second time in every round, under
    the name "null": the ratio of the two shows what no difference looks like.
    """
    results = {name: side() for name, side in sides.items()}
    calls = sides | {"null": sides[null]}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names, order = list(calls), random.Random(0)
    for _ in range(rounds):
        order.shuffle(names)
        for name in names:
            start = time.perf_counter()
            result = calls[name]()
            seconds[name].append(time.perf_counter() - start)
            if name != "null":
                results[name] = result
    return seconds, results


def ratio(dividend: list[float], divisor: list[float]) -> str:
    """The median and the range of the ratios of the rounds, such as "4.97 (4.85 to 5.02)"."""
    ratios = sorted(a / b for a, b in zip(dividend, divisor, strict=True))
    return f"{np.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
