"""From files to `Batch`: images and masks are read once into memory, batches are gathered on the training device, so that
no worker process and no disk is ever waited for.

The only two range conversions of the package stand here: images are uint8 RGB at rest and float32 in [-1, 1] in a model.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from potgan.common.errors import UserError
from potgan.common.progress import progress
from potgan.data.images import ImageFolder
from potgan.data.pixels import resize, scale_joints
from potgan.data.pose import Keypoints
from potgan.data.pose_rendering import heatmaps, pose_mask
from potgan.settings.schema import MaskSettings


def to_model(images: torch.Tensor) -> torch.Tensor:
    """uint8 [0, 255] -> float32 [-1, 1], x / 127.5 - 1 as all peers."""
    return images.float() / 127.5 - 1


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """float [-1, 1] -> uint8 [0, 255], clipped and *rounded* (peers truncate, which darkens by half a level)."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@dataclass
class Batch:
    """Inputs and target of B pairs: images (B, 3, H, W) in [-1, 1], masks (B, 1, H, W), heat maps (B, 18, H, W) in [0, 1].

    A method says which parts it needs; the others are None.
    """

    source_image: torch.Tensor | None = None
    source_mask: torch.Tensor | None = None
    target_image: torch.Tensor | None = None
    target_mask: torch.Tensor | None = None
    source_heatmaps: torch.Tensor | None = None
    target_heatmaps: torch.Tensor | None = None


#: Every part that a batch can have.
PARTS = frozenset(field.name for field in dataclasses.fields(Batch))


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

    @property
    def device(self) -> torch.device:
        return self.images.device

    def placed(self, device: torch.device) -> PairData:
        """These pairs where `device` reads them fastest: on it, if they take less than half of its free memory, else in
        pinned memory of the host, from where each batch is copied while the one before it is trained on."""
        tensors = {name: getattr(self, name) for name in ("images", "masks", "joints", "sources", "targets")}
        if device.type == "cuda":
            needed = sum(tensor.nbytes for tensor in tensors.values())
            if needed > torch.cuda.mem_get_info(device)[0] / 2:
                return dataclasses.replace(self, **{name: tensor.pin_memory() for name, tensor in tensors.items()})
        return dataclasses.replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})

    def batch(
        self, positions: np.ndarray | range, device: torch.device | None = None, needs: frozenset[str] = PARTS
    ) -> Batch:
        """The pairs at these positions of the pair list, on `device` (by default where the data lie). needs: parts."""
        return self.gather(positions, needs).on(device or self.device)

    def gather(self, positions: np.ndarray | range, needs: frozenset[str] = PARTS) -> Gathered:
        """The same before the ranges are converted: as they lie in memory, where they lie."""
        picked = torch.as_tensor(np.asarray(positions), device=self.device)
        rows = {"source": self.sources[picked], "target": self.targets[picked]}
        kinds = {"image": self.images, "mask": self.masks, "heatmaps": self.joints}
        raw = {part: kinds[part.split("_")[1]][rows[part.split("_")[0]]] for part in sorted(needs)}
        return Gathered(raw, self.size, self.sigma)


@dataclass
class Gathered:
    """The raw material of a Batch: part -> uint8 images and masks, and joints in pixels; a tenth of a batch's bytes."""

    raw: dict[str, torch.Tensor]
    size: tuple[int, int]
    sigma: float

    def pinned(self) -> Gathered:
        """In memory from which a GPU copies by itself."""
        return dataclasses.replace(self, raw={part: values.pin_memory() for part, values in self.raw.items()})

    def on(self, device: torch.device) -> Batch:
        """The batch on `device`, where heat maps are built and ranges converted."""
        moved = {part: values.to(device, non_blocking=True) for part, values in self.raw.items()}
        convert = {"image": to_model, "mask": torch.Tensor.float, "heatmaps": self._heatmaps}
        return Batch(**{part: convert[part.split("_")[1]](values) for part, values in moved.items()})

    def _heatmaps(self, joints: torch.Tensor) -> torch.Tensor:
        return heatmaps(joints, *self.size, self.sigma)


def training_batches(
    data: PairData,
    device: torch.device,
    lists: Iterable[list[np.ndarray]],
    ahead: bool | None = None,
    needs: frozenset[str] = PARTS,
) -> Iterator[list[Batch]]:
    """For each list of positions in `lists`, the batches of these pairs on `device`, in that order.

    ahead: whether a thread gathers the next list while the caller works on this one; by default where the data do not lie
    on the device. What is yielded does not depend on it. needs: the parts of a batch that are wanted.
    """
    if ahead is None:
        ahead = data.device.type != device.type
    if not ahead:
        for parts in lists:
            yield [data.batch(positions, needs=needs) for positions in parts]
        return

    def gathered(parts: list[np.ndarray]) -> list[Gathered]:
        found = [data.gather(positions, needs) for positions in parts]
        return [part.pinned() for part in found] if device.type == "cuda" else found

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        waiting = None
        for parts in lists:
            coming = thread.submit(gathered, parts)
            if waiting is not None:
                yield [part.on(device) for part in waiting.result()]
            waiting = coming
        if waiting is not None:
            yield [part.on(device) for part in waiting.result()]


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
