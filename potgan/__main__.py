"""The command line: one verb per stage. Parse, load the configuration, call one function.

Exit codes: 0 done; 2 bad input, one line on standard error; 75 stopped by a signal with the state saved.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from potgan.errors import Interrupted, UserError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: the same command continues


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="potgan", description="PoT-GAN: from images to TABLE I-IV, one verb per stage.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, description: str, *selectors: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=description, description=description)
        if "config" in selectors:
            sub.add_argument("--config", type=Path, default=Path("config/config.yaml"), help="default: %(default)s")
            sub.add_argument("--root", type=Path, default=Path(), help="where results/ and reports/ lie; default: here")
        if "dataset" in selectors:
            sub.add_argument("--dataset", required=True, help="a data set of the configuration")
        if "model" in selectors:
            sub.add_argument("--model", required=True, help="a model of the configuration")
        if "method" in selectors:
            sub.add_argument(
                "--method",
                required=True,
                help="a model, <model>-first-checkpoint, copy-source, mean-image or real-data",
            )
        if "seed" in selectors:
            sub.add_argument("--seed", type=int, default=0, help="default: %(default)s")
        return sub

    verb("configure", "check a configuration and write it, resolved, beside the results", "config")
    verb("images", "fetch, unpack or render the images of a data set", "config", "dataset")
    verb("keypoints", "collect the key points of a data set's images", "config", "dataset")
    pairs = verb("pairs", "build the pair lists of a data set, or of one key-point table (--keypoints)", "config")
    pairs.add_argument("--dataset", help="a data set of the configuration")
    pairs.add_argument("--keypoints", type=Path, help="instead: a keypoints.csv or a published annotation table")
    pairs.add_argument("--rule", choices=["patn"], default="patn", help="the pair rule; default: %(default)s")
    pairs.add_argument("--kind", choices=["market1501", "dukemtmc", "deepfashion"], default="market1501",
                       help="the file-name grammar; default: %(default)s")  # fmt: skip
    pairs.add_argument("--sample", type=int, help="draw that many pairs without replacement, as the peers do")
    pairs.add_argument("--sample-seed", type=int, default=0, help="default: %(default)s")
    pairs.add_argument("--out", type=Path, help="the pair list to write (with --keypoints)")
    verb("feature-network", "train the small classifier behind is-synthetic and fid-synthetic", "config")
    verb("train", "train one model", "config", "dataset", "model", "seed")
    verb("generate", "synthesise the test pairs of one method", "config", "dataset", "method", "seed")
    verb("evaluate", "score one method's images", "config", "dataset", "method", "seed")
    verb("tabulate", "write TABLE I-IV, the ablation report and the page", "config")
    return top


def run(arguments: argparse.Namespace) -> None:
    if arguments.verb == "pairs" and arguments.keypoints is not None:
        return pairs_of_table(arguments)
    from potgan import stages
    from potgan.config import Layout, load

    benchmark = load(arguments.config)
    layout = Layout(benchmark.benchmark, arguments.root)
    if arguments.verb == "pairs" and arguments.dataset is None:
        raise UserError("pairs: name --dataset (of the configuration) or --keypoints (a table) and --out")
    selectors = {
        name: getattr(arguments, name) for name in ("dataset", "model", "method", "seed") if hasattr(arguments, name)
    }
    getattr(stages, arguments.verb.replace("-", "_"))(benchmark, layout, **selectors)


def pairs_of_table(arguments: argparse.Namespace) -> None:
    from potgan.files import write_text
    from potgan.pairs import pairs_csv, patn_pairs, sample
    from potgan.pose import read_keypoints
    from potgan.progress import say

    if arguments.out is None:
        raise UserError("pairs: --out is missing: the pair list to write")
    if arguments.sample is not None and arguments.sample < 1:
        raise UserError(f"pairs: --sample must be at least 1, and is {arguments.sample}")
    found = patn_pairs(read_keypoints(arguments.keypoints), arguments.kind)
    chosen = sample(found, arguments.sample, arguments.sample_seed)
    write_text(arguments.out, pairs_csv(chosen))
    say(f"{arguments.out}: {len(chosen):,} pairs" + (f" of {len(found):,}" if arguments.sample else ""))


def main(argv: list[str] | None = None) -> int:
    # The workflow runs jobs side by side, one core each; OpenCV would start a thread per core in each of them.
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `potgan ... | head` is no error
    arguments = parser().parse_args(argv)
    try:
        run(arguments)
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
