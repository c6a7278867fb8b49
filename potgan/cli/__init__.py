"""The command line: one verb per stage. Parse, load the configuration, call one function.

Exit codes: 0 done; 2 bad input, one line on standard error; 75 stopped by a signal with the state saved.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from potgan.common.errors import Interrupted, UserError
from potgan.settings.layout import Layout
from potgan.settings.reading import load
from potgan.settings.schema import PUBLISHED_KINDS, RESULT_LAYOUTS, Benchmark, Dataset

FORMATS = ("own", "patn", "patn-x-first", "coco17", "openpose")
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL: the same command continues


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="potgan", description="PoT-GAN: from images to TABLE I-IV, one verb per stage.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, description: str, *selectors: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=description, description=description)
        sub.set_defaults(call=stage)
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
                help="a model, <model>-first-checkpoint, copy-source, mean-image, real-data or an external method",
            )
        if "seed" in selectors:
            sub.add_argument("--seed", type=int, default=0, help="default: %(default)s")
        return sub

    verb("configure", "check a configuration and write it, resolved, beside the results", "config")
    images = verb("images", "fetch, unpack or render the images of a data set, or of one archive (KIND)", "config")
    images.add_argument("--dataset", help="a data set of the configuration")
    _add_copy(images, optional=True)
    images.add_argument("--out", type=Path, help="the folder to fill (with KIND); it appears whole or not at all")
    images.add_argument("--complete", action="store_true", help="refuse a part of the data set (with KIND)")
    images.add_argument(
        "--skip-unreadable", action="store_true", help="leave out and count images that cannot be decoded"
    )
    images.set_defaults(call=images_verb)
    check = verb("verify", "is a copy of a data set the published one, and if not, what differs?")
    _add_copy(check)
    check.add_argument("--names", type=Path, nargs="+", default=[], metavar="TABLE",
                       help="compare single files with images.csv of an earlier run, key-point tables or lists")  # fmt: skip
    check.add_argument("--quick", action="store_true", help="do not decode the images")
    check.add_argument("--out", type=Path, help="write the whole answer, with all names, as JSON")
    check.set_defaults(call=verify_verb)
    verb("keypoints", "collect the key points of a data set's images", "config", "dataset")
    convert = verb("convert", "write a table of key points in another format, without loss where the format allows it")
    convert.add_argument("table", type=Path, help="a file or folder in any format that is read; it tells which")
    convert.add_argument("out", type=Path, help="the file (or, for openpose, the folder) to write")
    convert.add_argument("--to", required=True, choices=FORMATS, help="the format to write")
    convert.add_argument("--images", type=Path, help="folder of the stage `images`: coco17 then has the images' sizes")
    convert.set_defaults(call=convert_verb)
    pairs = verb("pairs", "build the pair lists of a data set, or of one key-point table (--keypoints)", "config")
    pairs.add_argument("--dataset", help="a data set of the configuration")
    pairs.add_argument("--keypoints", type=Path, help="instead: a keypoints.csv or a published annotation table")
    pairs.add_argument("--rule", default="patn", help="the pair rule, patn or pg2; default: %(default)s")
    pairs.add_argument("--kind", choices=PUBLISHED_KINDS, default="market1501",
                       help="the file-name grammar; default: %(default)s")  # fmt: skip
    pairs.add_argument("--sample", type=int, help="draw that many pairs without replacement, as the peers do")
    pairs.add_argument("--sample-seed", type=int, default=0, help="default: %(default)s")
    pairs.add_argument("--out", type=Path, help="the pair list to write (with --keypoints)")
    pairs.set_defaults(call=pairs_verb)
    imitate = verb("imitate", "write an archive in the layout of a real data set, filled with synthetic people")
    imitate.add_argument("kind", choices=PUBLISHED_KINDS)
    imitate.add_argument("--out", type=Path, required=True, help="the folder to write archive, tables and lists into")
    imitate.add_argument("--train-identities", type=int, default=12, help="default: %(default)s")
    imitate.add_argument("--test-identities", type=int, default=6, help="default: %(default)s")
    imitate.add_argument("--images-per-identity", type=int, default=6, help="default: %(default)s")
    imitate.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    imitate.set_defaults(call=imitate_verb)
    verb("feature-network", "train the small classifier behind is-synthetic and fid-synthetic", "config")
    verb("train", "train one model", "config", "dataset", "model", "seed")
    estimate = verb("estimate", "how long will the trainings of a configuration take on this machine?", "config")
    estimate.add_argument("--dataset", help="only this data set; default: all of the configuration")
    estimate.add_argument("--model", help="only this model; default: all of the configuration")
    estimate.add_argument("--steps", type=int, default=50, help="steps that are timed of each; default: %(default)s")
    estimate.add_argument("--price", type=float, metavar="EUR_PER_GPU_HOUR", help="adds what it costs")
    estimate.add_argument("--json", type=Path, help="write the numbers there, too")
    estimate.set_defaults(call=estimate_verb)
    verb("generate", "synthesise the test pairs of one method", "config", "dataset", "method", "seed")
    verb("evaluate", "score one method's images", "config", "dataset", "method", "seed")
    verb("tabulate", "write TABLE I-IV, the ablation report and the page", "config")
    for name, description in (
        ("pack", "write folders of many images as one archive each, for DVC"),
        (
            "unpack",
            "restore these folders where they are absent or older than their archives; the workflow does it, too",
        ),
    ):
        verb(name, description, "config").set_defaults(call=pack_verb)
    verb("plan", "what is to be done: jobs, disk and, where it is known, hours", "config").set_defaults(call=plan_verb)
    verb("stale", "list the results that are not what would be made now, and why", "config").set_defaults(
        call=stale_verb
    )
    lists = verb("dvc-stages", "write dvc.yaml's lists of results and settings from a configuration")
    lists.add_argument("--config", type=Path, default=Path("config/config.yaml"), help="default: %(default)s")
    lists.add_argument("--out", type=Path, default=Path("dvc.yaml"), help="default: %(default)s")
    lists.set_defaults(call=dvc_stages_verb)
    score = verb("score", "measure a folder of results that somebody released, as it is")
    score.add_argument("--images", type=Path, required=True, help="the folder of result images")
    score.add_argument("--layout", required=True, choices=RESULT_LAYOUTS, help="how its files are named: plain <from>___<to>"
                       ".png; deform <from>_<to>.png; patn <from>___<to>_vis.jpg; gfla <from>_2_<to>_vis.jpg")  # fmt: skip
    score.add_argument("--pairs", type=Path, required=True, help="the pair list (CSV with the columns from and to)")
    score.add_argument("--targets", type=Path, help="folder of the data set's own images, for results without targets")
    score.add_argument("--keypoints", type=Path, nargs="+", default=[], metavar="TABLE",
                       help="key points of the images; without them masked metrics are not measured")  # fmt: skip
    score.add_argument("--protocol", required=True, help="a protocol's id, or all")
    score.add_argument("--use", choices=("result", "source"), default="result",
                       help="measure the results, or the sources in the strips as if they were; default: %(default)s")  # fmt: skip
    score.add_argument("--as-they-are", action="store_true",
                       help="measure also what a protocol refuses (JPEG files, targets from strips); the id says so")  # fmt: skip
    score.add_argument("--out", type=Path, required=True, help="the folder to write; it appears whole or not at all")
    score.set_defaults(call=score_verb)
    compare = verb("compare", "print what differs between runs, in settings and in scores")
    compare.add_argument("runs", type=Path, nargs="+", metavar="RUN",
                         help="results/<benchmark>/<data set>/<method>/seed<k>, a folder of `score`, or a scores.json")  # fmt: skip
    compare.add_argument("--json", type=Path, help="write the comparison there, too")
    compare.add_argument("--published", metavar="DATASET", help="add the paper's literature rows on this data set")
    compare.set_defaults(call=compare_verb)
    export = verb("export", "write a run's generator with its settings, origin and scores as one file")
    export.add_argument("run", type=Path, metavar="RUN", help="results/<benchmark>/<data set>/<model>/seed<k>")
    export.add_argument("--out", type=Path, required=True, help="the file to write (.pt)")
    export.set_defaults(call=export_verb)
    transfer = verb("transfer", "the person of an image in other poses, by a trained generator")
    transfer.add_argument("--checkpoint", type=Path, required=True, metavar="RUN_OR_FILE",
                          help="results/<benchmark>/<data set>/<model>/seed<k>, or a generator's .pt file")  # fmt: skip
    transfer.add_argument("--source", type=Path, required=True, metavar="IMAGE", help="the person")
    transfer.add_argument("--source-pose", metavar="TABLE[:NAME]",
                          help="its key points, in its pixels; default: from --keypoints, or OpenPifPaf")  # fmt: skip
    transfer.add_argument("--pose", nargs="+", required=True, metavar="POSE", help="images, key-point tables (each row a "
                          "pose, in the generator's pixels; also COCO and OpenPose JSON), or TABLE:NAME for one row")  # fmt: skip
    transfer.add_argument("--keypoints", type=Path, nargs="+", default=[], metavar="TABLE",
                          help="key points of the images, by file name; without them OpenPifPaf finds them")  # fmt: skip
    transfer.add_argument("--pose-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"),
                          help="size of the images that the rows of pose tables belong to; default: the generator's")  # fmt: skip
    transfer.add_argument("--out", type=Path, required=True,
                          help=".png: the picture, or a strip of several; .gif: an animation")  # fmt: skip
    transfer.add_argument("--overlay", action="store_true", help="draw the target's key points on the result")
    transfer.add_argument("--frames-per-second", type=float, default=4.0, help="of a .gif; default: %(default)s")
    transfer.add_argument("--batch-size", type=int, default=8,
                          help="poses handled together; changes no pixel; default: %(default)s")  # fmt: skip
    transfer.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: %(default)s")
    transfer.set_defaults(call=transfer_verb)
    return top


def _add_copy(sub: argparse.ArgumentParser, optional: bool = False) -> None:
    """Arguments that say which copy of which data set, without a configuration."""
    sub.add_argument("kind", metavar="KIND", nargs="?" if optional else None, choices=PUBLISHED_KINDS,
                     help=f"the data set: {', '.join(PUBLISHED_KINDS)}")  # fmt: skip
    sub.add_argument("--source", "--archive", dest="source", help="archive, folder or address; default: the data folder, "
                     "data or $POTGAN_DATA" + (", or the published sources" if optional else ""))  # fmt: skip
    sub.add_argument("--checksum", help="sha256:<digits> of the archive; default: the published one")
    sub.add_argument(
        "--splits", type=Path, nargs=2, metavar=("TRAIN.LST", "TEST.LST"), help="DeepFashion's lists (PATN)"
    )


def _copy_of(arguments: argparse.Namespace, **settings: object) -> tuple[Dataset, str, Path]:
    """(data set, its name, data folder) of a verb that is called with KIND."""
    from potgan.data.archives import facts_of

    kind = arguments.kind
    lists = dict(zip(("train", "test"), map(str, arguments.splits), strict=True)) if arguments.splits else {}
    dataset = Dataset(kind, facts_of(kind)["label"], source=arguments.source, checksum=arguments.checksum, splits=lists,
                      **settings)  # fmt: skip
    return dataset, kind, Layout(kind).data


# ---------------------------------------------------------------------------------------------------------------------
# Verbs


def stage(arguments: argparse.Namespace) -> int:
    """A stage of a configured benchmark."""
    from potgan.pipeline import stages

    benchmark = load(arguments.config)
    layout = Layout(benchmark.benchmark, arguments.root)
    selectors = {
        name: getattr(arguments, name) for name in ("dataset", "model", "method", "seed") if hasattr(arguments, name)
    }
    getattr(stages, arguments.verb.replace("-", "_"))(benchmark, layout, **selectors)
    return 0


def pack_verb(arguments: argparse.Namespace) -> int:
    """`pack` and `unpack`."""
    from potgan.pipeline import packing
    from potgan.pipeline.jobs import jobs

    benchmark = load(arguments.config)
    getattr(packing, arguments.verb)(jobs(benchmark, Layout(benchmark.benchmark, arguments.root)))
    return 0


def _as_the_workflow_sees_it(arguments: argparse.Namespace) -> tuple[Benchmark, Layout]:
    """The configured benchmark without data sets that cannot be had, with those that the workflow makes itself."""
    from potgan.pipeline.stages import IMITATIONS, present

    benchmark = load(arguments.config)
    layout = Layout(benchmark.benchmark, arguments.root)
    return present(benchmark, layout.data, IMITATIONS), layout


def stale_verb(arguments: argparse.Namespace) -> int:
    """One line a stale result: its record, a tab, why. Nothing is changed."""
    from potgan.pipeline.jobs import jobs
    from potgan.pipeline.records import stale

    benchmark, layout = _as_the_workflow_sees_it(arguments)
    for job, why, _ in stale(jobs(benchmark, layout), layout):
        print(f"{job.record}\t{why}")
    return 0


def plan_verb(arguments: argparse.Namespace) -> int:
    from potgan.pipeline import plan

    benchmark, layout = _as_the_workflow_sees_it(arguments)
    print(plan.text(plan.plan(benchmark, layout)), end="")
    for name, reason in benchmark.absent.items():
        print(f"Without {name}: {reason}")
    return 0


def images_verb(arguments: argparse.Namespace) -> int:
    if arguments.kind is None:
        if arguments.dataset is None:
            raise UserError("images: name a data set of the configuration (--dataset), or KIND, --source and --out")
        return stage(arguments)
    from potgan.common.files import refuse_to_replace
    from potgan.common.progress import say
    from potgan.data.images import prepare_images

    if arguments.out is None:
        raise UserError("images: --out is missing: the folder to fill")
    unpacked = all((arguments.out / name).is_file() for name in ("images.csv", "images.json"))
    ours = {"images.csv", "images.json", "train", "test"} if unpacked else set()
    refuse_to_replace(arguments.out, "unpacking", lambda path: path.name in ours)
    dataset, name, data = _copy_of(
        arguments,
        allow_partial=not arguments.complete,
        unreadable_images="skip" if arguments.skip_unreadable else "stop",
    )
    record = prepare_images(dataset, name, arguments.out, data)
    counts = " and ".join(f"{count:,} {split}" for split, count in record["images"].items())
    part = "; a part of the published data set" if record["partial"] else ""
    say(f"{arguments.out}: {counts} images{part}")
    return 0


def verify_verb(arguments: argparse.Namespace) -> int:
    """Exit code 0 for ok, 2 for anything else."""
    import dataclasses

    from potgan.common.files import write_json
    from potgan.data.verification import verify

    dataset, name, data = _copy_of(arguments)
    answer = verify(dataset, name, data, arguments.names, arguments.quick)
    if arguments.out:
        write_json(arguments.out, dataclasses.asdict(answer))
    print(answer.text())
    return 0 if answer.state == "ok" else EXIT_BAD_INPUT


def convert_verb(arguments: argparse.Namespace) -> int:
    from potgan.common.progress import say
    from potgan.data.images import ImageFolder
    from potgan.data.keypoint_files import read_keypoints, write_keypoints

    keypoints = read_keypoints(arguments.table)
    sizes = None
    if arguments.images:
        folder = ImageFolder(arguments.images)
        sizes = {name: folder.size(name) for name in keypoints.names if name in folder.table.index}
    write_keypoints(keypoints, arguments.out, arguments.to, sizes)
    say(f"{arguments.out}: key points of {len(keypoints):,} images")
    return 0


def pairs_verb(arguments: argparse.Namespace) -> int:
    if arguments.keypoints is None:
        if arguments.dataset is None:
            raise UserError("pairs: name --dataset (of the configuration) or --keypoints (a table) and --out")
        return stage(arguments)
    from potgan.common.files import write_text
    from potgan.common.progress import say
    from potgan.data.keypoint_files import read_keypoints
    from potgan.data.pairs import PAIR_RULES, pairs_csv

    if arguments.out is None:
        raise UserError("pairs: --out is missing: the pair list to write")
    if arguments.sample is not None and arguments.sample < 1:
        raise UserError(f"pairs: --sample must be at least 1, and is {arguments.sample}")
    if arguments.rule not in PAIR_RULES:
        raise UserError(f"pairs: no rule {arguments.rule!r}; there are {', '.join(PAIR_RULES)}")
    rule = PAIR_RULES[arguments.rule]
    found = rule.pairs(read_keypoints(arguments.keypoints), arguments.kind)
    chosen = rule.sample(found, arguments.sample, arguments.sample_seed)
    write_text(arguments.out, pairs_csv(chosen))
    say(f"{arguments.out}: {len(chosen):,} pairs" + (f" of {len(found):,}" if arguments.sample else ""))
    return 0


def imitate_verb(arguments: argparse.Namespace) -> int:
    from potgan.common.progress import say
    from potgan.data.synthetic.imitations import write_archive
    from potgan.settings.schema import SyntheticSettings

    settings = SyntheticSettings(
        train_identities=arguments.train_identities,
        test_identities=arguments.test_identities,
        images_per_identity=arguments.images_per_identity,
    )
    record = write_archive(arguments.kind, arguments.out, settings, arguments.seed)
    counts = " and ".join(f"{count:,} {split}" for split, count in record["images"].items())
    say(f"{arguments.out}: {record['archive']}, {counts} images of synthetic people, and their tables")
    return 0


def dvc_stages_verb(arguments: argparse.Namespace) -> int:
    from potgan.common.progress import say
    from potgan.pipeline.dvc import write_stages

    say(f"{arguments.out}: {write_stages(arguments.config, arguments.out)} outputs in four stages")
    return 0


def score_verb(arguments: argparse.Namespace) -> int:
    from potgan.measure.score import score_folder

    text = score_folder(
        arguments.images,
        arguments.layout,
        arguments.pairs,
        arguments.protocol,
        arguments.out,
        targets=arguments.targets,
        keypoint_tables=arguments.keypoints,
        use=arguments.use,
        waive=arguments.as_they_are,
    )
    print(text, end="")
    return 0


def estimate_verb(arguments: argparse.Namespace) -> int:
    from potgan.common.files import write_json
    from potgan.training.estimate import as_tree, check_price, estimate, text

    check_price(arguments.price)
    costs = estimate(load(arguments.config), arguments.steps, arguments.dataset, arguments.model)
    if arguments.json:
        write_json(arguments.json, as_tree(costs, arguments.steps, arguments.price))
    print(text(costs, arguments.steps, arguments.price), end="")
    return 0


def compare_verb(arguments: argparse.Namespace) -> int:
    from potgan.common.files import write_json
    from potgan.report.compare import as_tree, read_runs, text

    runs = read_runs(arguments.runs)
    shown = text(runs, arguments.published)
    if arguments.json:
        write_json(arguments.json, as_tree(runs))
    print(shown, end="")
    return 0


def export_verb(arguments: argparse.Namespace) -> int:
    from potgan.apply.runs import export
    from potgan.common.progress import say

    trained = export(arguments.run, arguments.out)
    ssim = trained.scores["metrics"]["ssim"]
    say(
        f"{arguments.out}: iteration {trained.iteration:,} of {trained.run['dataset']}/{trained.run['model']}, "
        f"{ssim['protocol']} {ssim['value']:.3f} on {trained.scores['n_pairs']:,} pairs"
    )
    return 0


def transfer_verb(arguments: argparse.Namespace) -> int:
    from potgan.apply.transfer import transfer_files

    transfer_files(
        arguments.checkpoint,
        arguments.source,
        arguments.pose,
        arguments.out,
        source_word=arguments.source_pose,
        tables=arguments.keypoints,
        pose_size=tuple(arguments.pose_size) if arguments.pose_size else None,
        overlay=arguments.overlay,
        batch_size=arguments.batch_size,
        frames_per_second=arguments.frames_per_second,
        device=arguments.device,
    )
    return 0


def main(argv: list[str] | None = None) -> int:
    # The workflow runs jobs side by side, one core each; OpenCV would start a thread per core in each of them.
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", "1")
    arguments = parser().parse_args(argv)
    try:
        return arguments.call(arguments)
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
