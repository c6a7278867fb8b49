"""Verbs for data sets: images, their key points, pair lists, and archives of synthetic people."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from potgan.cli.pipeline import run_stage
from potgan.cli.verb import CONFIG, PERSON, ROOT, Option, configured, option, verb
from potgan.common.errors import EXIT_BAD_INPUT, UserError
from potgan.common.files import refuse_to_overwrite
from potgan.common.paths import at_home
from potgan.data.keypoint_files import FORMATS
from potgan.settings.layout import Layout
from potgan.settings.schema import PUBLISHED_KINDS, Dataset

CONFIGURED_DATASET = option("--dataset", help="a data set of the configuration")


def _run_configured(arguments: argparse.Namespace, otherwise: str) -> None:
    """Run the stage that the verb is named after. Raises UserError without --dataset; otherwise: what the verb wants then."""
    if arguments.dataset is None:
        raise UserError(f"{arguments.verb}: {otherwise}")
    run_stage(arguments)


def _copy_options(optional: bool) -> tuple[Option, ...]:
    """Options that say which copy of which published data set is meant, without a configuration.

    optional: whether KIND may be left out.
    """
    kinds = ", ".join(PUBLISHED_KINDS)
    sources = ", or the published sources" if optional else ""
    return (
        option("kind", metavar="KIND", nargs="?" if optional else None, choices=PUBLISHED_KINDS,
               help=f"the data set: {kinds}"),
        option("--source", "--archive", dest="source", type=at_home,
               help=f"archive, folder or address; default: the data folder ($POTGAN_DATA, or else data){sources}"),
        option("--checksum", help="sha256:<digits> of the archive; default: the published one"),
        option("--splits", type=Path, nargs=2, default=[], metavar=("TRAIN.LST", "TEST.LST"), help="DeepFashion's lists (PATN)"),
    )  # fmt: skip


def _copy_of(arguments: argparse.Namespace, **settings: object) -> tuple[Dataset, str, Path]:
    """The data set that `_copy_options` name, its name, and the data folder."""
    from potgan.data.sources.archives import facts_of

    kind = arguments.kind
    lists = dict(zip(("train", "test"), map(str, arguments.splits), strict=True)) if arguments.splits else {}
    dataset = Dataset(kind, facts_of(kind)["label"], source=arguments.source, checksum=arguments.checksum, splits=lists,
                      **settings)  # fmt: skip
    return dataset, kind, Layout(kind).data


@verb(
    "images",
    "fetch, unpack or render the images of a data set, or of one archive (KIND)",
    CONFIG,
    ROOT,
    CONFIGURED_DATASET,
    *_copy_options(optional=True),
    option("--out", type=Path, help="the folder to fill (with KIND); it appears whole or not at all"),
    option("--complete", action="store_true", help="refuse a part of the data set (with KIND)"),
    option("--skip-unreadable", action="store_true", help="leave out and count images that cannot be decoded"),
)
def images(arguments: argparse.Namespace) -> None:
    if arguments.kind is None:
        _run_configured(arguments, "name a data set of the configuration (--dataset), or KIND, --source and --out")
        return
    from potgan.common.files import refuse_to_replace
    from potgan.common.progress import say
    from potgan.data.images import prepare_images

    if arguments.out is None:
        raise UserError("images: --out is missing; name the folder to fill")
    unpacked = all((arguments.out / name).is_file() for name in ("images.csv", "images.json"))
    ours = {"images.csv", "images.json", "train", "test"} if unpacked else set()
    refuse_to_replace(arguments.out, "unpacking", lambda path: path.name in ours)
    dataset, name, data = _copy_of(
        arguments,
        allow_partial=not arguments.complete,
        unreadable_images="skip" if arguments.skip_unreadable else "stop",
    )
    record = prepare_images(dataset, name, arguments.out, data)
    part = "; a part of the published data set" if record["partial"] else ""
    say(f"{arguments.out}: {_counts(record)} images{part}")


def _counts(record: dict) -> str:
    """The number of images of each split, in words."""
    return " and ".join(f"{count:,} {split}" for split, count in record["images"].items())


@verb(
    "verify",
    "tell whether a copy of a data set is the published one, and what differs if it is not",
    *_copy_options(optional=False),
    option("--names", type=Path, nargs="+", default=[], metavar="TABLE",
           help="compare single files with images.csv of an earlier run, key-point tables or lists"),
    option("--quick", action="store_true", help="do not decode the images"),
    option("--out", type=Path, help="write the whole answer, with all names, as JSON"),
)  # fmt: skip
def verify(arguments: argparse.Namespace) -> int:
    """Print what the verification found. The exit code is 0 where all is well, and else 2."""
    import dataclasses

    from potgan.common.files import write_json
    from potgan.data.sources.verification import verify

    dataset, name, data = _copy_of(arguments)
    if arguments.out:
        source = [Path(arguments.source)] if arguments.source else []
        refuse_to_overwrite(arguments.out, [*source, *arguments.splits, *arguments.names])
    answer = verify(dataset, name, data, arguments.names, arguments.quick)
    if arguments.out:
        write_json(arguments.out, dataclasses.asdict(answer))
    print(answer.text())
    return 0 if answer.state == "ok" else EXIT_BAD_INPUT


@verb(
    "convert",
    "write a table of key points in another format, without loss where the format allows it",
    option("table", type=Path, help="a file or folder in any format that is read; its content tells the format"),
    option("out", type=Path, help="the file (or, for openpose, the folder) to write"),
    option("--to", required=True, choices=FORMATS, help="the format to write"),
    option(
        "--images",
        type=Path,
        help="folder of the stage `images`: joints must fit its images, and coco17 gets their sizes",
    ),
    PERSON,
)
def convert(arguments: argparse.Namespace) -> None:
    from potgan.common.progress import say
    from potgan.data.images import ImageFolder
    from potgan.data.keypoint_files import read_keypoints, write_keypoints
    from potgan.data.pose import refuse_other_frame

    refuse_to_overwrite(arguments.out, [arguments.table])
    keypoints = read_keypoints(arguments.table, arguments.person)
    sizes = None
    if arguments.images:
        folder = ImageFolder(arguments.images)
        sizes = {name: folder.size(name) for name in keypoints.names if name in folder.table.index}
        there = keypoints.rows([keypoints.row[name] for name in sizes])
        refuse_other_frame(there, list(sizes.values()), str(arguments.table))
    write_keypoints(keypoints, arguments.out, arguments.to, sizes)
    say(f"{arguments.out}: key points of {len(keypoints):,} images")


@verb(
    "masks",
    "draw all pose masks of a data set, or of one key-point table (--keypoints), into one file",
    CONFIG,
    ROOT,
    CONFIGURED_DATASET,
    option("--keypoints", type=Path, help="instead of a data set: a key-point table in any format that is read"),
    option("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"),
           help="of the images that the table belongs to, and of the masks (with --keypoints)"),
    option("--limb-radius", type=int, default=4, metavar="PIXELS",
           help="of the limbs, 4 at 128 x 64 and 8 at 256 x 256 (with --keypoints); default: %(default)s"),
    option("--out", type=Path, help="the folder to write; it appears whole or not at all (with --keypoints)"),
)  # fmt: skip
def masks(arguments: argparse.Namespace) -> None:
    if arguments.keypoints is None:
        _run_configured(arguments, "name --dataset (of the configuration), or --keypoints (a table), --size and --out")
        return
    from potgan.common.files import refuse_to_replace
    from potgan.common.progress import say
    from potgan.data.exports.masks import WRITTEN, write_masks
    from potgan.data.keypoint_files import read_keypoints
    from potgan.data.pose import refuse_other_frame

    if arguments.out is None or arguments.size is None:
        raise UserError(f"masks: --{'out' if arguments.out is None else 'size'} is missing; name it beside --keypoints")
    if min(*arguments.size, arguments.limb_radius) < 1:
        raise UserError("masks: --size and --limb-radius must be at least 1")
    refuse_to_replace(arguments.out, "drawing masks", lambda path: path.name in WRITTEN)
    table, size = read_keypoints(arguments.keypoints), tuple(arguments.size)
    refuse_other_frame(table, [size] * len(table), str(arguments.keypoints))
    record = write_masks(table, size, arguments.limb_radius, arguments.out)
    say(f"{arguments.out}: masks of {record['images']:,} images; {record['images_without_pose']:,} images have no pose")


@verb(
    "pairs",
    "build the pair lists of a data set, or of one key-point table (--keypoints)",
    CONFIG,
    ROOT,
    CONFIGURED_DATASET,
    option("--keypoints", type=Path, help="instead of a data set: a keypoints.csv or a published annotation table"),
    option("--rule", default="patn", help="the pair rule, patn or pg2; default: %(default)s"),
    option("--kind", choices=PUBLISHED_KINDS, help="whose file names the table has; default: the names tell"),
    option(
        "--sample",
        metavar="NUMBER|all",
        help="draw so many pairs without replacement, as for the published lists; all: every "
        "pair, in the order of such a draw",
    ),
    option("--sample-seed", type=int, default=0, help="the seed of that draw; default: %(default)s"),
    option("--out", type=Path, help="the pair list to write (with --keypoints)"),
)
def pairs(arguments: argparse.Namespace) -> None:
    if arguments.keypoints is None:
        _run_configured(arguments, "name --dataset (of the configuration) or --keypoints (a table) and --out")
        return
    from potgan.common.files import write_text
    from potgan.common.progress import say
    from potgan.data.keypoint_files import read_keypoints
    from potgan.data.pairs import PAIR_RULES, pairs_csv, refuse_none
    from potgan.data.sources.archives import kind_of_names

    if arguments.out is None:
        raise UserError("pairs: --out is missing; name the pair list to write")
    if arguments.sample not in (None, "all") and not re.fullmatch(r"[1-9][0-9]{0,8}", arguments.sample):
        raise UserError(f"pairs: --sample must be a number from 1 on, or all, and is {arguments.sample}")
    if arguments.rule not in PAIR_RULES:
        raise UserError(f"pairs: no rule {arguments.rule!r}; there are {', '.join(PAIR_RULES)}")
    refuse_to_overwrite(arguments.out, [arguments.keypoints])
    rule = PAIR_RULES[arguments.rule]
    keypoints = read_keypoints(arguments.keypoints)
    kind = kind_of_names(keypoints.names, str(arguments.keypoints), arguments.kind)
    every = rule.pairs(keypoints, kind)
    refuse_none(every, rule, str(arguments.keypoints))
    count = len(every) if arguments.sample == "all" else arguments.sample and int(arguments.sample)
    chosen = rule.sample(every, count, arguments.sample_seed)
    write_text(arguments.out, pairs_csv(chosen))
    say(f"{arguments.out}: {len(chosen):,} pairs" + (f" of {len(every):,}" if arguments.sample else ""))


@verb(
    "prepare",
    "write a data set of the configuration as the code of another project reads it",
    CONFIG,
    ROOT,
    option(
        "--dataset", required=True, help="a data set of the configuration, whose images, key points and pairs are made"
    ),
    option(
        "--for", dest="peer", required=True, choices=("patn", "gfla", "pose-gan", "adgan", "pg2"), help="the project"
    ),
    option("--out", type=Path, required=True, help="the folder to write; it appears whole or not at all"),
)
def prepare(arguments: argparse.Namespace) -> None:
    from potgan.common.files import refuse_to_replace
    from potgan.data.exports.peers import WRITTEN
    from potgan.pipeline import stages

    # Folders have the same names in the data that projects publish themselves. Ours come with a record.
    ours = (arguments.out / "prepare.json").is_file()
    refuse_to_replace(arguments.out, "preparing", lambda path: ours and WRITTEN.fullmatch(path.name) is not None)
    stages.prepare(*configured(arguments), arguments.dataset, arguments.peer, arguments.out)


@verb(
    "imitate",
    "write an archive in the layout of a real data set, filled with synthetic people",
    option("kind", choices=PUBLISHED_KINDS, help="the data set whose layout is imitated"),
    option("--out", type=Path, required=True, help="the folder to write archive, tables and lists into"),
    option("--train-identities", type=int, default=12, help="people to train on; default: %(default)s"),
    option("--test-identities", type=int, default=6, help="people to test on; default: %(default)s"),
    option("--images-per-identity", type=int, default=6, help="images of each of them; default: %(default)s"),
    option("--seed", type=int, default=0, help="another seed gives other people; default: %(default)s"),
)
def imitate(arguments: argparse.Namespace) -> None:
    from potgan.common.progress import say
    from potgan.data.synthetic.imitations import write_archive
    from potgan.settings.schema import SyntheticSettings

    settings = SyntheticSettings(
        train_identities=arguments.train_identities,
        test_identities=arguments.test_identities,
        images_per_identity=arguments.images_per_identity,
    )
    record = write_archive(arguments.kind, arguments.out, settings, arguments.seed)
    say(f"{arguments.out}: {record['archive']}, {_counts(record)} images of synthetic people, and their tables")
