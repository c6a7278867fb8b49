"""Verbs that measure released results and compare scores."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from potgan.cli.verb import option, options_of, verb
from potgan.settings.schema import RESULT_LAYOUTS


@verb(
    "score",
    "measure a folder of results that somebody has released, as they are",
    option("--images", type=Path, required=True, help="the folder of result images"),
    option("--layout", required=True, choices=("pidm", *RESULT_LAYOUTS), metavar="LAYOUT",
           help="how its files are named: plain <from>___<to>.png; deform <from>_<to>.png; patn and adgan <from>___<to>_vis.jpg; "
           "gfla <from>_2_<to>_vis.jpg; cfld and pidm as plain; numbered 00047.png, a place in the pair list, or "
           "numbered-from-0, numbered-from-1 (docs/scoring.md)"),
    option("--panel", help="pidm: the panel that is measured, such as NTED"),
    option("--pairs", dest="pair_list", type=Path, required=True, metavar="PAIRS",
           help="the pair list (CSV with the columns from and to), or from-names: the pairs that the files' names tell"),
    option("--partial", action="store_true", help="leave out the pairs of the list that have no image"),
    option("--targets", type=Path, help="for results without targets: folder of the data set's own images, or of images with the "
           "results' numbers"),
    option("--keypoints", dest="keypoint_tables", type=Path, nargs="+", default=[], metavar="TABLE",
           help="key points of the images; without them no masked metric is measured"),
    option("--keypoints-frame", choices=("original", "cropped"), help="for results of 256 x 256 or 256 x 176: whether the key "
           "points count the pixels of the 256 x 256 images, or of those without margins; left out, the joints tell it"),
    option("--protocol", required=True, help="a protocol's id, or all"),
    option("--use", choices=("result", "source"), default="result",
           help="measure the results, or the sources in strips as if they were results; default: %(default)s"),
    option("--as-they-are", dest="waive", action="store_true",
           help="measure also what a protocol refuses (JPEG files, targets from strips); the id then says so"),
    option("--no-download", action="store_true",
           help="fetch no weights of networks: what needs absent ones is not measured, and nothing is waited for"),
    option("--out", type=Path, required=True, help="the folder to write; it appears whole or not at all"),
)  # fmt: skip
def score(arguments: argparse.Namespace) -> None:
    from potgan.measure.score import score_folder

    options = options_of(arguments)
    if options.pop("no_download"):
        os.environ["POTGAN_NO_DOWNLOAD"] = "1"
    print(score_folder(**options), end="")


@verb(
    "compare",
    "print what differs between runs, in settings and in scores",
    option("runs", type=Path, nargs="+", metavar="RUN",
           help="results/<benchmark>/<data set>/<method>/seed<k>, a folder of `score`, or a scores.json"),
    option("--json", type=Path, help="also write the comparison into this file"),
    option("--out", type=Path, metavar="DIR", help="write a page instead, with pictures and curves; it also takes whole "
           "benchmarks, results/<benchmark>, of this and of other clones"),
    option("--published", metavar="DATASET", help="add the published results on this data set"),
)  # fmt: skip
def compare(arguments: argparse.Namespace) -> None:
    from potgan.common.errors import UserError
    from potgan.common.files import write_json
    from potgan.report.compare import as_tree, read_runs, text
    from potgan.report.compare_page import write_comparison

    if arguments.out is not None:
        if arguments.json or arguments.published:
            raise UserError(
                "compare: --out writes comparison.json beside the page, and takes neither --json nor --published"
            )
        print(write_comparison(arguments.runs, arguments.out))
        return
    runs = read_runs(arguments.runs)
    comparison = text(runs, arguments.published)
    if arguments.json:
        write_json(arguments.json, as_tree(runs))
    print(comparison, end="")
