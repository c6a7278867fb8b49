"""From files to batches. Images and masks are read into memory once, so that no training waits for a disk.

In memory and in files, images are uint8 RGB. In a network they are float32 in [-1, 1]. `to_model` and `to_pixels` are the only
functions of the package that convert between the two.
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
from potgan.data.parsing.stage import Parsing
from potgan.data.pixels import resize, resize_labels, scale_joints
from potgan.data.pose import PARSING_CLASSES, Keypoints
from potgan.data.pose_rendering import heatmaps, model_mask
from potgan.settings.schema import MaskSettings


def to_model(images: torch.Tensor) -> torch.Tensor:
    """uint8 in [0, 255] -> float32 in [-1, 1], by x / 127.5 - 1, as in all methods that are compared."""
    return images.float() / 127.5 - 1


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """float in [-1, 1] -> uint8 in [0, 255], clipped and *rounded*.

    Other methods truncate, which darkens their images by half a level (docs/decisions.md, D38).
    """
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_mask(masks: torch.Tensor) -> torch.Tensor:
    """uint8 in 255ths -> float32 in [0, 1]. 255 becomes exactly 1."""
    return masks.float() / 255


def to_class_maps(labels: torch.Tensor) -> torch.Tensor:
    """(B, H, W) uint8 numbers of PARSING_CLASSES -> (B, 8, H, W) float32, 1 where a pixel is of the class and 0 elsewhere."""
    classes = torch.arange(len(PARSING_CLASSES), dtype=torch.uint8, device=labels.device)
    return (labels[:, None] == classes[:, None, None]).float()


@dataclass
class Batch:
    """The inputs and the target of B pairs, all float32.

    Images are (B, 3, H, W) in [-1, 1], masks (B, 1, H, W) in [0, 1], heat maps (B, 18, H, W) in [0, 1]. Joints are (B, 18, 2), as
    (x, y) in pixels, NaN where missing; a method that warps, crops or draws by joints derives it from them. The parsing is
    (B, 8, H, W) of 0 and 1, one map for each of PARSING_CLASSES. A part that the method does not need is None.
    """

    source_image: torch.Tensor | None = None
    source_mask: torch.Tensor | None = None
    target_image: torch.Tensor | None = None
    target_mask: torch.Tensor | None = None
    source_heatmaps: torch.Tensor | None = None
    target_heatmaps: torch.Tensor | None = None
    source_joints: torch.Tensor | None = None
    target_joints: torch.Tensor | None = None
    source_parsing: torch.Tensor | None = None


#: The names of all parts that a batch can have.
PARTS = frozenset(field.name for field in dataclasses.fields(Batch))
#: The part that only data with a parsing have.
PARSING = "source_parsing"


@dataclass
class PairData:
    """A list of P pairs, and the N images that they consist of, on one device.

    names: of the N images. images: (N, 3, H, W) uint8 RGB. masks: (N, 1, H, W) uint8, in 255ths. joints: (N, 18, 2) float32 (x, y)
    pixels, NaN where missing. sources, targets: (P,) indices of the images of each pair. sigma: of the heat maps, in pixels.
    parsing: (N, H, W) uint8, the number of one of PARSING_CLASSES for each pixel, or None if the data have no parsing.
    """

    names: list[str]
    images: torch.Tensor
    masks: torch.Tensor
    joints: torch.Tensor
    sources: torch.Tensor
    targets: torch.Tensor
    sigma: float
    parsing: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images in pixels."""
        return tuple(self.images.shape[2:])

    @property
    def device(self) -> torch.device:
        """Where the data lie."""
        return self.images.device

    @property
    def parts(self) -> frozenset[str]:
        """The parts that a batch of these pairs can have: all PARTS, without the parsing if there is none."""
        return PARTS - {PARSING} if self.parsing is None else PARTS

    def _tensors(self) -> dict[str, torch.Tensor]:
        found = {name: getattr(self, name) for name in ("images", "masks", "joints", "sources", "targets", "parsing")}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def placed(self, device: torch.device) -> PairData:
        """These pairs where `device` reads them fastest.

        This is the device itself if they take less than half of its free memory. Else it is pinned memory of the host, from
        where each batch is copied while the device trains on the batch before.
        """
        tensors = self._tensors()
        if device.type == "cuda":
            needed = sum(tensor.nbytes for tensor in tensors.values())
            if needed > torch.cuda.mem_get_info(device)[0] / 2:
                return dataclasses.replace(self, **{name: tensor.pin_memory() for name, tensor in tensors.items()})
        return dataclasses.replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})

    def batch(
        self, positions: np.ndarray | range, device: torch.device | None = None, needs: frozenset[str] | None = None
    ) -> Batch:
        """The batch of the pairs at these positions of the list.

        device: by default where the data lie. needs: its parts, by default all that there are. Raises UserError for a parsing that
        the data do not have.
        """
        return self.gather(positions, needs).on(device or self.device)

    def gather(self, positions: np.ndarray | range, needs: frozenset[str] | None = None) -> Gathered:
        """The same pairs as they lie in memory, before their ranges are converted and heat maps are made."""
        needs = self.parts if needs is None else needs
        unknown = needs - set(PARTS)
        if unknown:
            raise UserError(f"the method needs {', '.join(sorted(unknown))}; a batch has the parts {', '.join(PARTS)}")
        if not needs <= self.parts:
            raise UserError(
                "this method reads the parsing of the source image (a class for each pixel), and the data set has none: name a "
                "folder of label images with datasets.<name>.parsing, or leave the model out (a new method sets reads_parsing in "
                "its options)"
            )
        picked = torch.as_tensor(np.asarray(positions))
        if self.device.type == "cuda":
            # From pinned memory, because a copy from other memory waits until the device has done all its work.
            picked = picked.pin_memory().to(self.device, non_blocking=True)
        rows = {"source": self.sources[picked], "target": self.targets[picked]}
        kinds = {
            "image": self.images,
            "mask": self.masks,
            "heatmaps": self.joints,
            "joints": self.joints,
            "parsing": self.parsing,
        }
        raw = {part: kinds[part.split("_")[1]][rows[part.split("_")[0]]] for part in sorted(needs)}
        return Gathered(raw, self.size, self.sigma)


@dataclass
class Gathered:
    """What a batch is made from. It has a tenth of the batch's bytes, so it is what is copied to a device.

    raw: part of the batch -> uint8 images, masks or labels, or joints in pixels, also for heat maps. size, sigma: as of `PairData`.
    """

    raw: dict[str, torch.Tensor]
    size: tuple[int, int]
    sigma: float

    def pinned(self) -> Gathered:
        """The same in pinned memory, from which a GPU copies without the CPU."""
        return dataclasses.replace(self, raw={part: values.pin_memory() for part, values in self.raw.items()})

    def copied(self, device: torch.device) -> Gathered:
        """A copy of the same on `device`, in memory of its own."""
        copies = {part: torch.empty_like(values, device=device).copy_(values) for part, values in self.raw.items()}
        return dataclasses.replace(self, raw=copies)

    def on(self, device: torch.device) -> Batch:
        """The batch on `device`. The device converts the ranges and makes the heat maps."""
        moved = {part: values.to(device, non_blocking=True) for part, values in self.raw.items()}
        convert = {
            "image": to_model,
            "mask": to_mask,
            "heatmaps": self._heatmaps,
            "joints": torch.Tensor.float,
            "parsing": to_class_maps,
        }
        return Batch(**{part: convert[part.split("_")[1]](values) for part, values in moved.items()})

    def _heatmaps(self, joints: torch.Tensor) -> torch.Tensor:
        return heatmaps(joints, *self.size, self.sigma)


def training_batches(
    data: PairData,
    device: torch.device,
    lists: Iterable[list[np.ndarray]],
    ahead: bool | None = None,
    needs: frozenset[str] | None = None,
) -> Iterator[list[Gathered]]:
    """For each entry of `lists`, what the batches of the pairs at its positions are made from, on `device` or in pinned memory.

    ahead: whether a thread gathers the next entry while the caller works on this one. By default it does so where the data do not
    lie on the device. The batches do not depend on it. needs: the parts of a batch that are wanted, by default all that there are.
    """
    if ahead is None:
        ahead = data.device.type != device.type
    if not ahead:
        for parts in lists:
            yield [data.gather(positions, needs) for positions in parts]
        return

    def gathered(parts: list[np.ndarray]) -> list[Gathered]:
        found = [data.gather(positions, needs) for positions in parts]
        return [part.pinned() for part in found] if device.type == "cuda" else found

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        waiting = None
        for parts in lists:
            coming = thread.submit(gathered, parts)
            if waiting is not None:
                yield waiting.result()
            waiting = coming
        if waiting is not None:
            yield waiting.result()


def load_pairs(
    images_folder: Path,
    keypoints: Keypoints,
    pairs: pd.DataFrame,
    size: tuple[int, int],
    masks: MaskSettings,
    device: torch.device | str = "cpu",
    parsing_folder: Path | None = None,
) -> PairData:
    """Read the images of `pairs` (columns `from` and `to`), each once, and draw their masks.

    images_folder: of the stage `images`. size: (height, width) that images are resized to with their joints and labels, where
    theirs is another. parsing_folder: of the stage `parsing`, or None for methods that do not read a parsing. Raises UserError
    for a name in `pairs` that has no image, no key points or, where they are asked for, no labels.
    """
    folder = ImageFolder(images_folder)
    names = sorted(set(pairs["from"]) | set(pairs["to"]))
    for name in names:
        if name not in folder.table.index or name not in keypoints.row:
            where = "images" if name not in folder.table.index else "key points"
            raise UserError(
                f"pair list: {name!r} is unknown to the {where} in {images_folder.parent}; rebuild the pairs"
            )
    height, width = size
    # In the order of a network's input from the start: to reorder the images afterwards would take twice the memory.
    images = np.empty((len(names), 3, height, width), np.uint8)
    drawn = np.empty((len(names), 1, height, width), np.uint8)
    joints = np.empty((len(names), *keypoints.joints.shape[1:]), np.float32)
    parsing = None if parsing_folder is None else Parsing(parsing_folder)
    labels = None if parsing is None else np.empty((len(names), height, width), np.uint8)
    for i, name in enumerate(progress(names, len(names), "reading images", "images")):
        image = folder.read(name)
        joints[i] = scale_joints(keypoints.of(name), image.shape[:2], size)
        images[i] = resize(image, size).transpose(2, 0, 1)
        drawn[i, 0] = model_mask(joints[i], height, width, masks)
        if parsing is not None and labels is not None:
            labels[i] = resize_labels(parsing.of(name), size)
    row = {name: i for i, name in enumerate(names)}
    return PairData(
        names,
        torch.from_numpy(images).to(device),
        torch.from_numpy(drawn).to(device),
        torch.from_numpy(joints).to(device),
        torch.tensor([row[n] for n in pairs["from"]], device=device),
        torch.tensor([row[n] for n in pairs["to"]], device=device),
        masks.heatmap_sigma,
        None if labels is None else torch.from_numpy(labels).to(device),
    )


@functools.lru_cache(maxsize=2)
def _permutation(count: int, seed: int, number: int) -> np.ndarray:
    """The order of `count` pairs in pass `number`."""
    return np.random.default_rng([seed, number]).permutation(count)


def training_indices(count: int, batch_size: int, seed: int, iteration: int) -> np.ndarray:
    """(batch_size,) positions, among `count` pairs, of the training batch number `iteration` (from 0).

    A training passes over all pairs again and again, each time in another order. The positions are a function of the arguments
    alone, so that a training that continues needs no saved state of a sampler.
    """
    positions = np.arange(iteration * batch_size, (iteration + 1) * batch_size)
    return np.array([_permutation(count, seed, p // count)[p % count] for p in positions])
