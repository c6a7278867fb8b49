"""Progress that a person can watch: a bar on a terminal, and one line per interval in a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
#: Of several processes of one training, only the first one prints anything.
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
    """Yield `items`, and show on standard error how many units are done, how fast, and how long the rest will take.

    total: the number of units. what: the name of the work. unit: the name of the units. initial: units done before.
    interval: seconds between two lines of a log. weight: how many units an item counts for. note: further text to show, given
    the rate in units per second.

    On a terminal a tqdm bar is shown. Elsewhere a line is printed every `interval` seconds and at the end, so that the log of
    a night's run has some thousand lines and no carriage returns.
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
    """Print one line to standard error at once."""
    if not QUIET:
        print(message, file=sys.stderr, flush=True)


class TransferProgress:
    """Shows the progress of one file's transfer: as a bar on a terminal, and elsewhere as a line every `interval` seconds.

    what: the file's name. total: its bytes, or None where they are unknown.
    """

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
        """Show that `done` bytes of `total` have arrived. total: None where it is unknown."""
        if self.bar is not None:
            self.bar.total = total or self.total
            self.bar.update(done - self.bar.n)
        elif time.monotonic() - self.last >= self.interval:
            self.last = time.monotonic()
            of = f" of {total / 1e6:.1f}" if total else ""
            say(f"{self.what}: {done / 1e6:.1f}{of} MB")
