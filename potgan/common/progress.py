"""Progress that a person can watch: a bar on a terminal, one line per interval in a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
#: Of several processes of one training, only the first speaks.
QUIET = os.environ.get("RANK", "0") != "0"


def progress(
    items: Iterable[Item],
    total: int,
    what: str,
    unit: str,
    initial: int = 0,
    interval: float = 10.0,
    weight: Callable[[Item], int] = lambda item: 1,
    note: Callable[[float], str] = lambda rate: "",
) -> Iterator[Item]:
    """Yield `items` while showing how many of `total`, how fast, and how long it will take.

    weight: how many units an item counts for, where items are parts of many. note: what else to show, given the rate in
    units per second. On a terminal this is a tqdm bar. Elsewhere a
    line is printed to standard error every `interval` seconds and at the end, so that a log of a night's run is some
    thousand lines and no carriage returns.
    """
    if QUIET:
        yield from items
        return
    if sys.stderr.isatty():
        shown = time.monotonic()
        with tqdm(total=total, desc=what, unit=f" {unit}", initial=initial, dynamic_ncols=True) as bar:
            for item in items:
                yield item
                bar.update(weight(item))
                now = time.monotonic()
                if now - shown >= 1:
                    bar.set_postfix_str(note(bar.format_dict["rate"] or 0.0), refresh=False)
                    shown = now
        return
    start = last = time.monotonic()
    count = initial
    for item in items:
        yield item
        count += weight(item)
        now = time.monotonic()
        if now - last >= interval or count == total:
            last = now
            rate = (count - initial) / max(now - start, 1e-9)
            left = tqdm.format_interval((total - count) / rate) if rate else "?"
            also = note(rate)
            say(f"{what}: {count}/{total} {unit}, {rate:.3g} {unit}/s, {left} left{', ' if also else ''}{also}")


def say(message: str) -> None:
    """One line to standard error, at once."""
    if not QUIET:
        print(message, file=sys.stderr, flush=True)


class TransferProgress:
    """Progress of one file's transfer in bytes: a bar on a terminal, a line every `interval` seconds elsewhere."""

    def __init__(self, what: str, total: int | None, interval: float = 10.0) -> None:
        self.what, self.total, self.interval = what, total, interval
        self.bar: tqdm | None = None
        self.last = time.monotonic()

    def __enter__(self) -> TransferProgress:
        if sys.stderr.isatty():
            self.bar = tqdm(total=self.total, desc=self.what, unit="B", unit_scale=True, dynamic_ncols=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, done: int, total: int | None) -> None:
        """`done` bytes of `total` (None: unknown) have arrived."""
        if self.bar is not None:
            self.bar.total = total or self.total
            self.bar.update(done - self.bar.n)
        elif time.monotonic() - self.last >= self.interval:
            self.last = time.monotonic()
            of = f" of {total / 1e6:.1f}" if total else ""
            say(f"{self.what}: {done / 1e6:.1f}{of} MB")
