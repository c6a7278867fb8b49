"""From files to `Batch`: images and masks are read once into memory, batches are gathered on the training device.

The only two range conversions of the package stand here: images are uint8 RGB at rest and float32 in [-1, 1] in a model.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from potgan.config import MaskSettings
from potgan.errors import UserError
from potgan.image_folder import ImageFolder, resize, scale_joints
from potgan.pose import Keypoints
from potgan.progress import progress
from potgan.rendering import heatmaps, pose_mask


def to_model(images: torch.Tensor) -> torch.Tensor:
    """uint8 [0, 255] -> float32 [-1, 1], x / 127.5 - 1 as all peers."""
    return images.float() / 127.5 - 1


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """float [-1, 1] -> uint8 [0, 255], clipped and *rounded* (peers truncate, which darkens by half a level)."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@dataclass
class Batch:
    """Inputs and target of B pairs: images (B, 3, H, W) in [-1, 1], masks (B, 1, H, W), heat maps (B, 18, H, W) in [0, 1]."""

    source_image: torch.Tensor
    source_mask: torch.Tensor
    target_image: torch.Tensor
    target_mask: torch.Tensor
    target_heatmaps: torch.Tensor


@dataclass
class PairData:
    """All that a list of pairs needs, on one device.

    images: (N, 3, H, W) uint8 RGB; masks: (N, 1, H, W) uint8 in {0, 1}; joints: (N, 18, 2) float32 pixels, NaN = missing;
    sources, targets: (P,) indices into those, one entry per pair.
    """

    names: list[str]
    images: torch.Tensor
    masks: torch.Tensor
    joints: torch.Tensor
    sources: torch.Tensor
    targets: torch.Tensor
    sigma: float

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.images.shape[2:])

    def batch(self, indices: np.ndarray | range) -> Batch:
        """The pairs at these positions of the pair list."""
        picked = torch.as_tensor(np.asarray(indices), device=self.sources.device)
        source, target = self.sources[picked], self.targets[picked]
        return Batch(
            to_model(self.images[source]),
            self.masks[source].float(),
            to_model(self.images[target]),
            self.masks[target].float(),
            heatmaps(self.joints[target], *self.size, self.sigma),
        )


def load_pairs(
    images_folder: Path,
    keypoints: Keypoints,
    pairs: pd.DataFrame,
    size: tuple[int, int],
    masks: MaskSettings,
    device: torch.device | str = "cpu",
) -> PairData:
    """Read each image of `pairs` once, resize it with its joints if need be, and draw its mask."""
    folder = ImageFolder(images_folder)
    names = sorted(set(pairs["from"]) | set(pairs["to"]))
    for name in names:
        if name not in folder.table.index or name not in keypoints.row:
            where = "images" if name not in folder.table.index else "key points"
            raise UserError(
                f"pair list: {name!r} is unknown to the {where} in {images_folder.parent}; rebuild the pairs"
            )
    height, width = size
    images = np.empty((len(names), height, width, 3), np.uint8)
    drawn = np.empty((len(names), 1, height, width), np.uint8)
    joints = np.empty((len(names), *keypoints.joints.shape[1:]), np.float32)
    for i, name in enumerate(progress(names, len(names), "reading images", "images")):
        image = folder.read(name)
        joints[i] = scale_joints(keypoints.of(name), image.shape[:2], size)
        images[i] = resize(image, size)
        drawn[i, 0] = pose_mask(joints[i], height, width, masks.limb_radius)
    row = {name: i for i, name in enumerate(names)}
    return PairData(
        names,
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device),
        torch.from_numpy(drawn).to(device),
        torch.from_numpy(joints).to(device),
        torch.tensor([row[n] for n in pairs["from"]], device=device),
        torch.tensor([row[n] for n in pairs["to"]], device=device),
        masks.heatmap_sigma,
    )


@functools.lru_cache(maxsize=2)
def _permutation(count: int, seed: int, number: int) -> np.ndarray:
    return np.random.default_rng([seed, number]).permutation(count)


def training_indices(count: int, batch_size: int, seed: int, iteration: int) -> np.ndarray:
    """Positions of the pairs of training batch `iteration` (from 0): pass after pass over all pairs, each shuffled anew.

    A pure function of its arguments, so that a resumed training needs no sampler state.
    """
    positions = np.arange(iteration * batch_size, (iteration + 1) * batch_size)
    return np.array([_permutation(count, seed, p // count)[p % count] for p in positions])
