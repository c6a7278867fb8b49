"""Verbs that use a trained generator."""

from __future__ import annotations

import argparse
from pathlib import Path

from potgan.cli.verb import PERSON, option, options_of, verb


@verb(
    "export",
    "write a run's generator with its settings, origin and scores as one file",
    option("run", type=Path, metavar="RUN", help="results/<benchmark>/<data set>/<model>/seed<k>"),
    option("--out", type=Path, required=True, help="the file to write (.pt)"),
)
def export(arguments: argparse.Namespace) -> None:
    from potgan.apply.runs import export
    from potgan.common.progress import say

    trained = export(arguments.run, arguments.out)
    measured = [
        f"{m['protocol']} {m['value']:.3f}" for m in trained.scores["metrics"].values() if m["value"] is not None
    ]
    say(
        f"{arguments.out}: iteration {trained.iteration:,} of {trained.run['dataset']}/{trained.run['model']}, "
        f"{measured[0] if measured else 'no score'} on {trained.scores['n_pairs']:,} pairs"
    )


@verb(
    "transfer",
    "show the person of an image in other poses, by a trained generator",
    option("--checkpoint", type=Path, required=True, metavar="RUN_OR_FILE",
           help="results/<benchmark>/<data set>/<model>/seed<k>, or a generator's .pt file"),
    option("--source", type=Path, required=True, metavar="IMAGE", help="an image of the person"),
    option("--source-pose", dest="source_word", metavar="TABLE[:NAME]",
           help="key points of that image, in its pixels; default: from --keypoints, or found by OpenPifPaf"),
    option("--pose", dest="words", nargs="+", required=True, metavar="POSE", help="images, tables of key "
           "points (each row is a pose, in the generator's pixels; also COCO's and OpenPose's JSON), or TABLE:NAME for one row"),
    option("--keypoints", dest="tables", type=Path, nargs="+", default=[], metavar="TABLE",
           help="key points of the images, by file name; without them OpenPifPaf finds them"),
    PERSON,
    option("--pose-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"),
           help="size of the images to which the rows of pose tables belong; default: the generator's"),
    option("--out", type=Path, required=True, help=".png: the picture, or a strip of several; .gif: an animation"),
    option("--overlay", action="store_true", help="draw the target's key points on the result"),
    option("--frames-per-second", type=float, default=4.0, help="speed of a .gif; default: %(default)s"),
    option("--batch-size", type=int, default=8, help="how many poses are handled together, which changes no pixel; "
           "default: %(default)s"),
    option("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s"),
)  # fmt: skip
def transfer(arguments: argparse.Namespace) -> None:
    from potgan.apply.transfer import transfer_files

    transfer_files(**options_of(arguments))
