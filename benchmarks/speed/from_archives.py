"""Seconds, memory and disk of every stage, from served archives with the published numbers of images to TABLE I-IV.

Usage: python benchmarks/speed/from_archives.py FOLDER [--names PUBLISHED] [--share 1] [--without tables|all] [--cores 2]

The real archives are replaced by made ones in their layouts and with their numbers of images. Some hundred pictures of
synthetic people are repeated under all the names, each with a comment of its own, so that no two files are equal. `--names` is a
folder with Market-1501's published tables (market-annotation-{train,test}.csv) and PATN's lists (fashion-{train,test}.lst);
without it the names and tables are made, too. A web server of this process gives out archives, tables and lists. The
configuration is config/paper.yaml with its data sets from these sources and under other names, with small networks that are hardly
trained, one seed, and nothing that needs a weight file. So the numbers in its tables say nothing, and the times of `train`,
`generate` and `evaluate` are not the paper's.

--share 0.003 makes archives of some hundred images. --test-pairs 600 shortens what comes after the trainings. --without tables:
the server has no tables and no lists of pairs, so that OpenPifPaf finds the key points, with a small checkpoint for synthetic
people. (In the real configuration it does so for DukeMTMC-reID in every case. Here a made table stands in its place where there
are tables.) --without all: nothing is served.
FOLDER must be new or empty. It keeps the run, for a look at its reports. An encrypted archive is tried with `--password`, which
needs 7-Zip.
"""

import argparse
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from potgan.common.files import write_text
from potgan.data.keypoint_files import annotation_csv, read_keypoints
from potgan.data.pairs import pairs_csv, patn_pairs, sample
from potgan.data.pose import JOINTS, Keypoints
from potgan.data.sources.archives import facts_of, flat_name
from potgan.data.synthetic.imitations import write_archive
from potgan.pipeline.snakemake import prefer_this_python
from potgan.settings.schema import SPLITS, SyntheticSettings

REPOSITORY = Path(__file__).resolve().parents[2]
#: Where archives, tables and lists lie in the archive or beside it, for each kind of data set.
TOP = {"market1501": "Market-1501-v15.09.15", "dukemtmc": "DukeMTMC-reID", "deepfashion": "img"}
TABLES = {"market1501": "market", "dukemtmc": "duke", "deepfashion": "fasion"}
#: How many images of Market-1501's test folder are junk (-1) and distractors (0000).
JUNK, DISTRACTORS = 3819, 2798
#: The numbers of pairs in DeepFashion's published lists.
FASHION_PAIRS = {"train": 101_966, "test": 8_570}
#: The people whose pictures are repeated.
PEOPLE = SyntheticSettings(train_identities=20, test_identities=8, images_per_identity=6)
#: A checkpoint of OpenPifPaf for synthetic people, which the tests use, too.
DETECTOR = REPOSITORY / "tests" / "reference" / "openpifpaf-synthetic.pkl"
STAGES = ("published", "images", "keypoints", "pairs", "masks")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--names", type=Path, help="folder with Market-1501's published tables and PATN's lists of DeepFashion"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of the published numbers of images")
    parser.add_argument(
        "--test-pairs", type=int, help="draw so many test pairs, and leave the published lists of them out"
    )
    parser.add_argument("--without", choices=("tables", "all"), help="what the server does not have")
    parser.add_argument("--password", help="encrypt DeepFashion's archive with it, as the published one is")
    parser.add_argument("--cores", default="2")
    parser.add_argument("--until", default="all", help="the target of Snakemake (default: all)")
    parser.add_argument("--make-only", action="store_true", help="make what would be served, and stop")
    parser.add_argument("--json", type=Path, help="write the numbers here, too")
    arguments = parser.parse_args()
    if arguments.folder.is_dir() and any(arguments.folder.iterdir()):
        parser.error(f"{arguments.folder}: holds files; name a folder that is new or empty")
    if arguments.folder.is_file():
        parser.error(f"{arguments.folder}: is a file; name a folder that is new or empty")
    for name in ("market-annotation-train.csv", "market-annotation-test.csv", "fashion-train.lst", "fashion-test.lst"):
        if arguments.names and not (arguments.names / name).is_file():
            parser.error(f"--names {arguments.names}: lacks {name}")
    if not arguments.cores.isdigit() or (arguments.test_pairs or 1) < 1:
        parser.error("--cores and --test-pairs are whole numbers from 1 on")
    if not 0 < arguments.share <= 1:
        parser.error(f"--share is {arguments.share}; choose a number above 0 and up to 1")
    folder = arguments.folder.resolve()
    served, run = folder / "served", folder / "run"
    run.mkdir(parents=True)
    for kind in TOP:
        make(kind, served / kind, arguments.share, arguments.names)
    if arguments.password:
        encrypt(served / "deepfashion" / facts_of("deepfashion")["archive"], arguments.password)
    if arguments.make_only:
        return
    if arguments.without:
        remove(served, everything=arguments.without == "all")
    server = serve(served)
    address = f"http://127.0.0.1:{server.server_port}"
    configuration = folder / "configuration.yaml"
    write_text(configuration, yaml.safe_dump(settings(address, served, arguments), sort_keys=False, width=120))
    prefer_this_python()
    command = [
        "snakemake",
        "--snakefile",
        str(REPOSITORY / "Snakefile"),
        "--directory",
        str(run),
        "--cores",
        arguments.cores,
    ]
    command += ["--configfile", str(configuration), "--", arguments.until]
    environment = os.environ | {"POTGAN_DATA": str(run / "data")}
    if arguments.password:
        environment[facts_of("deepfashion")["password_variable"]] = arguments.password
    done = subprocess.run(command, check=False, env=environment)
    server.shutdown()
    table = costs(run)
    if len(table):
        print(table.to_string(index=False))
    if arguments.json:
        write_text(arguments.json, json.dumps(table.to_dict("records"), indent=1) + "\n")
    sys.exit(done.returncode)


# ---------------------------------------------------------------------------------------------------------------------
# Names


def names_of(kind: str, share: float, published: Path | None) -> dict[str, list[str]]:
    """Split -> names of images in the grammar of the kind, as many as are published, or a share of them.

    They are the published ones where the folder `published` has them.
    """
    counts = facts_of(kind)["counts"]
    if published is not None and kind == "market1501":
        found = {split: read_keypoints(published / f"market-annotation-{split}.csv").names for split in SPLITS}
    elif published is not None and kind == "deepfashion":
        found = {split: (published / f"fashion-{split}.lst").read_text().split() for split in SPLITS}
    else:
        found = {split: sorted(_made_names(kind, split, counts[split])) for split in SPLITS}
    if share == 1:
        return found
    part = {}
    for split, names in found.items():
        number = max(24, round(share * len(names)))
        people = sorted(name for name in names if not _shows_nobody(name))[
            :number
        ]  # sorted, so that they are whole persons
        part[split] = people + sorted(filter(_shows_nobody, names))[: number // 6]
    return part


def _shows_nobody(name: str) -> bool:
    """Whether a name is of Market-1501's junk or distractors."""
    return name.startswith(("-1_", "0000_"))


def _made_names(kind: str, split: str, count: int) -> Iterable[str]:
    """`count` different names. The persons of the two splits have ids of their own, odd and even ones."""
    persons = facts_of(kind)["identities"][split]
    ids = [2 * i + (1 if split == "train" else 2) for i in range(persons)]
    special = [("0000", DISTRACTORS), ("-1", JUNK)] if kind == "market1501" and split == "test" else []
    for person, number in special:
        yield from (f"{person}_c{1 + i % 6}s1_{i:06d}_01.jpg" for i in range(number))
    views = ("1front", "2side", "3back", "4full", "7additional")
    for i in range(count - sum(number for _, number in special)):
        person, image = ids[i % persons], i // persons
        if kind == "market1501":
            yield f"{person:04d}_c{1 + image % 6}s1_{image:06d}_01.jpg"
        elif kind == "dukemtmc":
            yield f"{person:04d}_c{1 + image % 8}_f{image:07d}.jpg"
        else:
            yield f"fashionWOMENDressesid{person:08d}{1 + image // len(views):02d}_{views[image % len(views)]}.jpg"


def path_in_archive(kind: str, split: str, name: str) -> str:
    """Where an image lies in the published archive."""
    if kind != "deepfashion":
        return f"{TOP[kind]}/{facts_of(kind)['folders'][split][0]}/{name}"
    parts = re.fullmatch(r"fashion(WOMEN|MEN)(.+)id(\d{8})(\d\d)_(\d)([a-z]+)\.jpg", name).groups()
    gender, category, item, outfit, view, side = parts
    return f"img/{gender}/{category}/id_{item}/{outfit}_{view}_{side}.jpg"


# ---------------------------------------------------------------------------------------------------------------------
# Archives


def make(kind: str, folder: Path, share: float, published: Path | None) -> None:
    """Write the archive of a kind into the folder, its tables of key points, its lists of pairs and those of the splits."""
    facts = facts_of(kind)
    pictures = _pictures(kind)
    names = names_of(kind, share, published)
    tables = {}
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    with zipfile.ZipFile(folder / facts["archive"], "w") as archive:
        for split in SPLITS:
            joints = np.full((len(names[split]), len(JOINTS), 2), np.nan, np.float32)
            for i, name in enumerate(names[split]):
                content, shown = pictures[i % len(pictures)]
                archive.writestr(path_in_archive(kind, split, name), _with_comment(content, name))
                if not _shows_nobody(name):
                    joints[i] = shown
            order = random.permutation(len(joints))
            confidence = (~np.isnan(joints[:, :, 0])).astype(np.float32)
            tables[split] = Keypoints([names[split][i] for i in order], joints[order], confidence[order])
    for split in SPLITS:
        table = folder / f"{TABLES[kind]}-annotation-{split}.csv"
        if published is not None and kind == "market1501" and share == 1:
            shutil.copyfile(published / table.name, table)
            tables[split] = read_keypoints(table)
        else:
            write_text(table, annotation_csv(tables[split]))
        if kind == "deepfashion":
            write_text(folder / f"{split}.lst", "".join(f"{name}\n" for name in names[split]))
        if kind != "dukemtmc":
            pairs = patn_pairs(tables[split], kind)
            number = FASHION_PAIRS[split] if kind == "deepfashion" else 12_000 if split == "test" else None
            number = None if number is None else max(40, round(share * number))
            write_text(folder / f"{TABLES[kind]}-pairs-{split}.csv", pairs_csv(sample(pairs, number, 0)))


def _pictures(kind: str) -> list[tuple[bytes, np.ndarray]]:
    """Pictures of synthetic people in the size of a kind: (a JPEG file, its (18, 2) joints)."""
    with tempfile.TemporaryDirectory() as place:
        record = write_archive(kind, Path(place) / "made", PEOPLE)
        made = Path(place) / "made"
        joints = {}
        for table in record["tables"].values():
            read = read_keypoints(made / table)
            joints |= {
                flat_name(name, facts_of(kind)): shown for name, shown in zip(read.names, read.joints, strict=True)
            }
        with zipfile.ZipFile(made / record["archive"]) as archive:
            contents = {
                flat_name(member, facts_of(kind)): archive.read(member)
                for member in archive.namelist()
                if member.endswith(".jpg")
            }
    # Five joints and more, so that every picture shows a person.
    people = [name for name, shown in joints.items() if np.isfinite(shown[:, 0]).sum() >= 5 and name in contents]
    return [(contents[name], joints[name]) for name in people]


def encrypt(archive: Path, password: str) -> None:
    """Write an archive again with the traditional encryption of zip archives. It needs 7-Zip."""
    seven_zip = shutil.which("7z") or shutil.which("7zz") or shutil.which("7za")
    if seven_zip is None:
        sys.exit("from_archives.py: error: --password needs 7-Zip (the Debian package p7zip-full)")
    with tempfile.TemporaryDirectory(dir=archive.parent) as place:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(place)
        archive.unlink()
        command = [seven_zip, "a", "-tzip", "-mx=0", "-mem=ZipCrypto", f"-p{password}", str(archive), "."]
        subprocess.run(command, check=True, cwd=place, stdout=subprocess.DEVNULL)


def _with_comment(content: bytes, comment: str) -> bytes:
    """A JPEG file with a comment behind its first marker (ITU-T T.81, B.2.4.5). It shows the same picture."""
    text = comment.encode()
    return content[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + content[2:]


# ---------------------------------------------------------------------------------------------------------------------
# The run


def remove(served: Path, everything: bool) -> None:
    """Remove what the server shall not have: the tables and lists of pairs, or everything."""
    for path in served.rglob("*"):
        if path.is_file() and (everything or path.suffix == ".csv"):
            path.unlink()


def serve(folder: Path) -> http.server.ThreadingHTTPServer:
    """A web server on a free port of this machine. It has no byte ranges, as some real ones."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def settings(address: str, served: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """config/paper.yaml with the served sources, small networks and hardly any training."""
    tree = yaml.safe_load((REPOSITORY / "config" / "paper.yaml").read_text(encoding="utf-8"))
    for kind in TOP:
        facts = facts_of(kind)
        dataset = tree["datasets"].pop(kind)
        dataset |= {"source": f"{address}/{kind}/{facts['archive']}", "label": f"{facts['label']}'s layout"}
        if arguments.share < 1:
            dataset["allow_partial"] = True
        if "published" in facts:
            dataset["published"] = f"{address}/{kind}"
        elif arguments.without is None:
            names = {split: str(served / kind / f"{TABLES[kind]}-annotation-{split}.csv") for split in SPLITS}
            dataset["keypoints"] = {"estimator": "table", **names}
        if "openpifpaf" in dataset["keypoints"]:
            # The small checkpoint knows people of about 200 pixels, and Duke's images have all sizes.
            dataset["keypoints"]["openpifpaf"] = {
                "checkpoint": str(DETECTOR),
                "scale": 2 if kind == "market1501" else 1,
                "device": "cpu",
            }
            dataset["keypoints"]["minimum_detection_rate"] = 0.25
        for key in ("test_sample", "validation_sample"):
            if key in dataset["pairs"]:
                dataset["pairs"][key] = max(40, round(arguments.share * dataset["pairs"][key]))
        if arguments.test_pairs:
            dataset["pairs"] |= {"test": None, "test_sample": arguments.test_pairs}
        if arguments.share < 1 and "validation_identities" in dataset["pairs"]:
            dataset["pairs"]["validation_identities"] = 1
        dataset.setdefault("overrides", {})["training"] = {"batch_size": 2}
        # Never under the name of a real data set, so that its numbers never stand in that one's columns.
        tree["datasets"][f"{kind}-layout"] = dataset
    tree |= {
        "benchmark": "from-archives",
        "description": "config/paper.yaml on made archives, with hardly any training: shows that the way is whole.",
        "protocol": "potgan-synthetic",
        "seeds": [0],
        "generator": tree["generator"] | {"width": 8},
        "discriminator": tree["discriminator"] | {"width": 8},
        "feature_network": {"identities": 60, "epochs": 2},
        "differences_from_paper": ["Everything: no real image is in it, and nothing has learnt anything."],
    }
    tree["training"] |= {
        **{"iterations": 12, "decay_from": 6, "checkpoints": 2, "log_every": 4, "save_every": 12, "batch_size": 4},
        **{"perceptual_network": "random", "perceptual_width": 8, "threads": 1},
    }
    return tree


def costs(run: Path) -> pd.DataFrame:
    """One row per job that has run: stage, data set, seconds, memory in GB, and what its folder takes on the disk in GB."""
    results = run / "results" / "from-archives"
    rows = []
    for path in sorted((results / "benchmarks").rglob("*.tsv")):
        stage, *what = path.relative_to(results / "benchmarks").with_suffix("").parts
        measured = pd.read_csv(path, sep="\t", na_values="-").iloc[0]
        disk = _size(results / what[0] / stage) if stage in STAGES else None
        row = {"stage": stage, "of": "/".join(what), "seconds": round(float(measured["s"]), 1)}
        rows.append(row | {"memory GB": round(float(measured["max_rss"]) / 1024, 2), "disk GB": disk})
    for kind in TOP:
        archive = run / "data" / facts_of(kind)["archive"]
        if archive.is_file():
            rows.append({"stage": "archive", "of": f"{kind}-layout", "disk GB": round(archive.stat().st_size / 1e9, 3)})
    return pd.DataFrame(rows)


def _size(folder: Path) -> float | None:
    """What the files of a folder take on the disk, in GB of whole blocks."""
    if not folder.exists():
        return None
    return round(sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) / 1e9, 3)


if __name__ == "__main__":
    main()
