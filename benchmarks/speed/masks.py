"""Pose masks per second on one core, their mean area, and their archive, for all published poses of Market-1501.

Usage: python benchmarks/speed/masks.py --tables FOLDER [--every 1]

FOLDER holds market-annotation-{train,test}.csv as PATN publishes them. Masks are 128 x 64, limbs of radius 4. The mean
area is over the images in which a person was found; masked scores move with it (docs/decisions.md, D34). An archive holds all
recipes (`potgan masks`); each of its masks is compared with the one that a training draws.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from potgan.data import pose_rendering
from potgan.data.exports.masks import MaskArchive, write_masks
from potgan.data.keypoint_files import read_keypoints
from potgan.settings.schema import MaskSettings

HEIGHT, WIDTH, RADIUS = 128, 64, 4
RECIPES = {
    "limb_mask (PG2)": lambda joints: pose_rendering.limb_mask(joints, HEIGHT, WIDTH, RADIUS),
    "pose_mask (the paper's M)": lambda joints: pose_rendering.pose_mask(joints, HEIGHT, WIDTH, RADIUS),
    "metric_mask (Deformable GAN)": lambda joints: pose_rendering.metric_mask(joints, HEIGHT, WIDTH),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--every", type=int, default=1, help="use every n-th pose only")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    tables = {split: read_keypoints(arguments.tables / f"market-annotation-{split}.csv") for split in ("train", "test")}
    joints = {split: table.joints[:: arguments.every] for split, table in tables.items()}
    people = {split: ~np.isnan(poses[:, :, 0]).all(axis=1) for split, poses in joints.items()}
    print(
        ", ".join(f"{split}: {len(joints[split]):,} poses, {people[split].sum():,} with a person" for split in joints)
    )
    for name, draw in RECIPES.items():
        rates, areas = [], {}
        for split, poses in joints.items():
            area = np.empty(len(poses))
            for first in range(0, len(poses), 1000):  # in rounds, so that a busy neighbour shows as spread
                start = time.perf_counter()
                masks = [draw(pose) for pose in poses[first : first + 1000]]
                rates.append(len(masks) / (time.perf_counter() - start))
                area[first : first + 1000] = [mask.mean() for mask in masks]
            areas[split] = area[people[split]].mean()
        rates.sort()
        print(
            f"{name}: median {rates[len(rates) // 2]:,.0f}, slowest {rates[0]:,.0f}, fastest {rates[-1]:,.0f} masks/s; "
            + "mean area "
            + ", ".join(f"{split} {area:.4f}" for split, area in areas.items())
        )
    for split, table in tables.items():
        table = table.rows(range(0, len(table), arguments.every))
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            write_masks(table, (HEIGHT, WIDTH), RADIUS, Path(folder) / "masks")
            seconds = time.perf_counter() - start
            file = Path(folder) / "masks" / "masks.npz"
            archive, size = MaskArchive(file), file.stat().st_size
        settings = MaskSettings(limb_radius=RADIUS)
        drawn = {name: pose_rendering.model_mask(table.of(name), HEIGHT, WIDTH, settings) for name in archive.names}
        same = sum(np.array_equal(255 * archive.of(name), mask) for name, mask in drawn.items())
        print(
            f"archive of {split}: {len(archive.names):,} images x {len(RECIPES)} recipes in {seconds:.1f} s, {size:,} bytes; "
            f"{same:,} masks are those that a training draws"
        )


if __name__ == "__main__":
    main()
