"""Train a small OpenPifPaf network on synthetic people: proves the detection path where no weights can be downloaded.

Usage, with the project's own Python:

    python workflow/envs/openpifpaf/train_synthetic.py --out FOLDER [--epochs 12] [--environment ENV_FOLDER]

Writes FOLDER/openpifpaf-synthetic.pkl, openpifpaf-synthetic.jpg (found joints against exact ones) and, last,
openpifpaf-synthetic.json with the checkpoint's SHA-256, every setting, the losses and what it reaches on people, clothes
and streets of another seed: PCK by joint, detection rate. With `--checkpoint FILE` nothing is trained: FILE is measured,
and only the picture and the JSON are written.

The images go to OpenPifPaf as COCO key points and are learned by OpenPifPaf's own trainer (`openpifpaf.train`). The
network and the augmentation come from the plugin beside this file, `openpifpaf_tiny.py`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from potgan.common.errors import UserError
from potgan.common.files import sha256_of, write_bytes, write_json
from potgan.common.progress import say
from potgan.data.detection import BUILD, DetectorSettings, ImageToDetect, detect, pck
from potgan.data.pose import JOINT, JOINTS, Keypoints
from potgan.data.synthetic.people import Render, annotate, render_split
from potgan.settings.schema import SyntheticSettings

HERE = Path(__file__).resolve().parent
NAME = "openpifpaf-synthetic"
#: COCO's 17 key points, in COCO's order.
COCO_JOINTS = ("nose", *(f"{side}_{part}" for part in (
    "eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")))  # fmt: skip
#: Seeds of the embedded data set that are learned from, that the trainer's validation loss is taken on, and that are
#: measured on. A seed has its own people, clothes, cameras and streets.
TRAIN_SEEDS, VALIDATION_SEEDS, TEST_SEED = range(100, 124), range(200, 204), 900
SCALE = 2.0  # of the measurement; the network has seen 1.5 to 2.2

#: Keeps what detection needs of a checkpoint, without the paths and the name of the machine that made it.
STRIP = """
import sys, torch
checkpoint = torch.load(sys.argv[1], map_location="cpu", weights_only=False)
torch.save({"model": checkpoint["model"].eval(), "epoch": checkpoint["epoch"]}, sys.argv[2])
"""


def people(seed: int, number: int) -> list[Render]:
    settings = SyntheticSettings(train_identities=number, test_identities=0, seed=seed)
    return list(render_split(settings, "train"))


def coco_annotation(render: Render, number: int) -> dict:
    """One person in COCO's form: visibility 2 for a visible joint, 1 for one that is only inferred, 0 for a missing one;
    pixel centres at integers, as OpenPifPaf takes them."""
    joints, confidence = annotate(render)
    keypoints: list[float] = []
    for name in COCO_JOINTS:
        sure = confidence[JOINT[name]]
        place = [0.0, 0.0] if sure == 0 else [round(float(value), 3) for value in joints[JOINT[name]]]
        keypoints += [*place, 2 if sure == 1 else int(sure > 0)]
    rows, columns = np.nonzero(render.body)
    left, top = int(columns.min()), int(rows.min())
    return {
        "id": number,
        "image_id": number,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1],
        "area": int(render.body.sum()),
        "num_keypoints": sum(visibility > 0 for visibility in keypoints[2::3]),
        "keypoints": keypoints,
    }


def write_coco(folder: Path, seeds: range, number: int) -> int:
    """`folder`/*.png and `folder`.json of `number` people of each seed; returns how many images."""
    folder.mkdir(parents=True)
    images, annotations = [], []
    for seed in seeds:
        for render in people(seed, number):
            name = f"{seed}-{Path(render.name).stem}.png"
            height, width = render.image.shape[:2]
            cv2.imwrite(str(folder / name), render.image[:, :, ::-1])
            images.append({"id": len(images) + 1, "file_name": name, "width": width, "height": height})
            annotations.append(coco_annotation(render, len(images)))
    person = {"id": 1, "name": "person", "keypoints": COCO_JOINTS, "skeleton": []}
    write_json(folder.with_suffix(".json"), {"images": images, "annotations": annotations, "categories": [person]})
    return len(images)


def training_command(python: Path, data: Path, output: Path, arguments: argparse.Namespace) -> list[str]:
    decay = [round(share * arguments.epochs, 2) for share in (0.6, 0.8, 0.92)]
    options: dict[str, object] = {
        "dataset": "syntheticpeople",
        "basenet": "tinyresnet",
        "cocokp-train-annotations": data / "train.json",
        "cocokp-train-image-dir": data / "train",
        "cocokp-val-annotations": data / "val.json",
        "cocokp-val-image-dir": data / "val",
        "cocokp-upsample": 2,
        "batch-size": 8,
        "loader-workers": 1,
        "epochs": arguments.epochs,
        "adam": None,
        "lr": 2e-3,
        "lr-warm-up-epochs": 0.2,
        "lr-decay": decay,
        "lr-decay-factor": 0.3,
        "lr-decay-epochs": 0.2,
        "log-interval": 50,
        "output": output,
    }
    command = [str(python), "-m", "openpifpaf.train"]
    for name, value in options.items():
        values = [] if value is None else value if isinstance(value, list) else [value]
        command += [f"--{name}", *map(str, values)]
    return command


def train(python: Path, data: Path, output: Path, arguments: argparse.Namespace) -> tuple[Path, dict]:
    """Run OpenPifPaf's trainer; returns its final checkpoint, and the losses of the last epoch."""
    command = training_command(python, data, output, arguments)
    environment = {**os.environ, "PYTHONPATH": str(HERE), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    losses: dict = {}
    with subprocess.Popen(
        command, cwd=data, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        last = ""
        for line in process.stdout:
            last = line.strip() or last
            if found := re.search(r"'type': '(train-epoch|val-epoch)', 'epoch': (\d+), 'loss': ([-\d.]+)", line):
                losses[{"train-epoch": "training", "val-epoch": "validation"}[found[1]]] = float(found[3])
                say(f"epoch {found[2]} of {arguments.epochs}: {found[1].removesuffix('-epoch')} loss {found[3]}")
    final = [path for path in output.parent.glob(f"{output.stem}-*.pkl") if path.is_file()]
    if process.returncode or len(final) != 1:
        raise UserError(f"openpifpaf.train ended with status {process.returncode} ({last[-300:]})")
    return final[0], losses


def measure(python: Path, checkpoint: Path, folder: Path, scale: float, picture: Path, number: int = 24) -> dict:
    """What the checkpoint reaches on `number` people (8 images each) of a seed that it has not seen; also writes
    `picture`, of some of them."""
    renders = people(TEST_SEED, number)
    images = []
    for render in renders:
        path = folder / f"{Path(render.name).stem}.png"
        cv2.imwrite(str(path), render.image[:, :, ::-1])
        images.append(ImageToDetect(render.name, path, sha256_of(path), None))
    joints, confidence = (np.array(column) for column in zip(*map(annotate, renders), strict=True))
    exact = Keypoints([image.name for image in images], joints, confidence)
    settings = DetectorSettings(checkpoint, sha256_of(checkpoint), scale, 8, 1, 64, "auto", python)
    found, record = detect(images, settings, folder / "shards")
    write_bytes(picture, drawn(renders[:: len(renders) // 16][:16], found, exact))
    offset = found.joints - exact.joints
    offset[:, JOINT["neck"]] = np.nan  # which is defined otherwise
    offset = offset[~np.isnan(offset[:, :, 0])]
    error = shift = None  # nobody was found
    if len(offset):
        error = round(float(np.median(np.linalg.norm(offset, axis=1))), 3)
        shift = [round(float(value), 3) for value in np.median(offset, axis=0)]
    return {**pck(found, exact), "median_error_pixels": error, "median_offset_pixels": shift, "detector": record}


def drawn(renders: list[Render], found: Keypoints, exact: Keypoints, enlargement: int = 3) -> bytes:
    """A JPEG of the people in two rows: exact joints as green rings, found ones as red dots, and a line from one to the
    other, so that a ring without a line is a missed joint and a dot without one is too much."""
    tiles = []
    for render in renders:
        height, width = render.image.shape[:2]
        size = (width * enlargement, height * enlargement)
        tile = cv2.resize(render.image[:, :, ::-1], size, interpolation=cv2.INTER_CUBIC)

        def place(joint: np.ndarray) -> tuple[int, int]:
            return tuple(round(float(value)) for value in (joint + 0.5) * enlargement - 0.5)

        for there, right in zip(found.of(render.name), exact.of(render.name), strict=True):
            if not np.isnan(there).any() and not np.isnan(right).any():
                cv2.line(tile, place(there), place(right), (0, 255, 255), 1, cv2.LINE_AA)
            if not np.isnan(right).any():
                cv2.circle(tile, place(right), 5, (0, 220, 0), 1, cv2.LINE_AA)
            if not np.isnan(there).any():
                cv2.circle(tile, place(there), 2, (0, 0, 255), -1, cv2.LINE_AA)
        tiles.append(tile)
    half = len(tiles) // 2
    rows = [np.concatenate(row, axis=1) for row in (tiles[:half], tiles[half : 2 * half])]
    return cv2.imencode(".jpg", np.concatenate(rows), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and its record")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--people", type=int, default=25, help="of each of the 24 training seeds; 8 images each")
    parser.add_argument("--checkpoint", type=Path, help="measure this one, train nothing")
    parser.add_argument("--scale", type=float, default=SCALE, help="enlargement at which it is measured")
    parser.add_argument("--environment", type=Path, default=HERE / ".venv", help="OpenPifPaf's environment")
    arguments = parser.parse_args()
    python = arguments.environment.absolute() / "bin" / "python"
    picture = arguments.out / f"{NAME}.jpg"
    record: dict = {"test_seed": TEST_SEED, "scale": arguments.scale}
    try:
        if not (arguments.environment / "ready").is_file():
            raise UserError(f"{arguments.environment}: is no complete environment; run {BUILD} {arguments.environment}")
        with tempfile.TemporaryDirectory() as scratch:
            data = Path(scratch)
            checkpoint = arguments.checkpoint
            if checkpoint is None:
                checkpoint = arguments.out / f"{NAME}.pkl"
                number = write_coco(data / "train", TRAIN_SEEDS, arguments.people)
                write_coco(data / "val", VALIDATION_SEEDS, 8)
                start = time.monotonic()
                trained, losses = train(python, data, data / "model.pkl", arguments)
                record |= {
                    "command": " ".join(training_command(Path("python"), Path("DATA"), Path("model.pkl"), arguments)),
                    "training_images": number,
                    "training_seeds": [TRAIN_SEEDS[0], TRAIN_SEEDS[-1]],
                    "epochs": arguments.epochs,
                    "training_seconds": round(time.monotonic() - start, 1),
                    "losses": losses,
                }
                subprocess.run([python, "-I", "-c", STRIP, trained, data / "stripped.pkl"], check=True)
                write_bytes(checkpoint, (data / "stripped.pkl").read_bytes())
            record |= {
                "checkpoint": checkpoint.name,
                "sha256": sha256_of(checkpoint),
                "bytes": checkpoint.stat().st_size,
                "test": measure(python, checkpoint, data, arguments.scale, picture),
            }
            write_json(arguments.out / f"{NAME}.json", record)
    except UserError as error:
        say(str(error))
        return 2
    test = record["test"]
    say(
        f"{checkpoint}: PCK@0.2 {test['pck']:.3f}, persons found in {test['detection_rate']:.1%} of {test['images']} "
        f"images, SHA-256 {record['sha256']}"
    )
    for name in JOINTS:
        joint = test["by_joint"][name]
        say(
            f"  {name:15} PCK {joint['pck']:.3f} of {joint['joints']}, {joint['missed']} missed, {joint['extra']} extra"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
