"""The program `potgan`, also as `python -m potgan VERB`: how it ends on signals, and then the command line."""

from __future__ import annotations

import signal
import sys
from types import FrameType

from potgan import cli
from potgan.common.text_streams import write_readably


def main() -> int:
    """Run the verb that the arguments of this process name; returns the exit code.

    Whoever calls `potgan.cli.main` from Python keeps the signal handlers that the process has.
    """
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `potgan ... | head` is no error
    signal.signal(signal.SIGTERM, stop)
    write_readably()
    return cli.main()


def stop(number: int, _: FrameType | None) -> None:
    """Handler of SIGTERM: end as on Ctrl-C, so that workers are ended and half-written folders removed (exit code 143).

    A training has its own handler, which saves the state. A shell hands down an ignored SIGINT to what it starts in the
    background; SIGTERM is then the only signal that asks a process to stop.
    """
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
