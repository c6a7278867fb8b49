"""Progress that a person can watch: a bar on a terminal, one line per interval in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def progress(
    items: Iterable[Item], total: int, what: str, unit: str, initial: int = 0, interval: float = 10.0
) -> Iterator[Item]:
    """Yield `items` while showing how many of `total`, how fast, and how long it will take.

    On a terminal this is a tqdm bar. Elsewhere a line is printed to standard error every `interval` seconds and at the
    end, so that a log of a night's run is some thousand lines and no carriage returns.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, unit=f" {unit}", initial=initial, dynamic_ncols=True)
        return
    start = last = time.monotonic()
    count = initial
    for item in items:
        yield item
        count += 1
        now = time.monotonic()
        if now - last >= interval or count == total:
            last = now
            rate = (count - initial) / max(now - start, 1e-9)
            left = tqdm.format_interval((total - count) / rate) if rate else "?"
            say(f"{what}: {count}/{total} {unit}, {rate:.3g} {unit}/s, {left} left")


def say(message: str) -> None:
    """One line to standard error, at once."""
    print(message, file=sys.stderr, flush=True)
