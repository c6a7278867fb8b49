"""The command line: its verbs in the order of the work, and how a command ends.

Exit codes: 0 for done; 2 for bad input, with one line on standard error; 75 for a run that a signal stopped and that has
saved its state; 130 for any other command that Ctrl-C stopped.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from potgan.cli import data, generator, pipeline, score
from potgan.common.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, Interrupted, UserError

#: The order in which `potgan --help` lists them.
VERBS = (
    *(
        pipeline.configure,
        pipeline.published,
        data.images,
        data.verify,
        pipeline.keypoints,
        data.convert,
        data.masks,
        data.pairs,
    ),
    *(pipeline.parsing, data.prepare, data.imitate, pipeline.feature_network, pipeline.train, pipeline.estimate),
    *(pipeline.generate, pipeline.evaluate, pipeline.tabulate, pipeline.pack, pipeline.unpack, pipeline.plan),
    *(pipeline.stale, pipeline.dvc_stages, score.score, score.compare, generator.export, generator.transfer),
)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line. The parsed arguments hold `verb`, its name, and `call`, its function."""
    top = argparse.ArgumentParser(prog="potgan", description="PoT-GAN: from images to TABLE I-IV, one verb per stage.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in VERBS:
        one = verbs.add_parser(verb.name, help=verb.description, description=verb.description)
        one.set_defaults(call=verb.call)
        for option in verb.options:
            one.add_argument(*option.flags, **option.settings)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code. argv: its words; None for those of this process.

    A mistake in the words themselves raises SystemExit(2), as argparse does it.
    """
    # The workflow runs jobs side by side, one core each; OpenCV would start a thread per core in each of them.
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    arguments = parser().parse_args(argv)
    try:
        return arguments.call(arguments) or 0
    except UserError as error:
        print(f"potgan {arguments.verb}: error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except Interrupted as stop:
        print(f"potgan {arguments.verb}: {stop}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print(f"potgan {arguments.verb}: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        print(f"potgan {arguments.verb}: error: {error.filename or ''}: {os.strerror(error.errno)}", file=sys.stderr)
        return EXIT_BAD_INPUT
