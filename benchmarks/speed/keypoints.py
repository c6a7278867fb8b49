"""Images a second of the OpenPifPaf detector: by batch size, and by the number of worker processes.

Usage: python benchmarks/speed/keypoints.py [--images 256] [--scale 2] [--checkpoint FILE] [--device cpu]

The time is that of the workers' shards (reading, enlarging, network, decoder, writing), without the seconds that a
process needs to start; the images of several workers are summed over the time in which they all worked.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import cv2

from potgan.common.files import sha256_of
from potgan.data.detection import DetectorSettings, ImageToDetect, detect
from potgan.data.synthetic.people import render_split
from potgan.settings.schema import SyntheticSettings

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SHARD = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--scale", type=float, default=2)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument(
        "--checkpoint", type=Path, default=REPOSITORY / "tests" / "reference" / "openpifpaf-synthetic.pkl"
    )
    parser.add_argument("--environment", type=Path, default=REPOSITORY / "workflow" / "envs" / "openpifpaf" / ".venv")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        images = []
        settings = SyntheticSettings(train_identities=-(-arguments.images // 8), test_identities=0)
        for render in render_split(settings, "train"):
            path = folder / f"{Path(render.name).stem}.png"
            cv2.imwrite(str(path), render.image[:, :, ::-1])
            images.append(ImageToDetect(render.name, path, sha256_of(path), None))
        images = images[: arguments.images]
        for workers in arguments.workers:
            for batch_size in arguments.batch_sizes:
                detector = DetectorSettings(
                    checkpoint=arguments.checkpoint,
                    checkpoint_sha256=sha256_of(arguments.checkpoint),
                    scale=arguments.scale,
                    batch_size=batch_size,
                    workers=workers,
                    shard_size=SHARD,
                    device=arguments.device,
                    python=arguments.environment.absolute() / "bin" / "python",
                )
                shards = folder / f"shards-{workers}-{batch_size}"
                _, record = detect(images, detector, shards)
                seconds = sorted(json.loads(path.read_text())["seconds"] for path in shards.glob("*.json"))
                # A worker's first shard warms it up (memory, code that is compiled on first use); the median is after it.
                each = SHARD / seconds[len(seconds) // 2]
                if (workers, batch_size) == (arguments.workers[0], arguments.batch_sizes[0]):
                    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
                    print(f"{record['device']}; {versions}; 128 x 64 images enlarged {arguments.scale:g} times")
                print(
                    f"{workers} workers, batches of {batch_size}: {each:.1f} images/s and worker (median shard; slowest "
                    f"{SHARD / seconds[-1]:.1f}, fastest {SHARD / seconds[0]:.1f}), {workers * each:.1f} together; "
                    f"{record['images_per_second']:.1f} with the start of the processes",
                    flush=True,
                )


if __name__ == "__main__":
    main()
