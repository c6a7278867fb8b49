"""SSIM, mask-SSIM and foreground-SSIM of many image pairs at once (docs/decisions.md, D33, D34).

The settings of `potgan.settings.protocols.SsimSettings` reproduce `skimage.metrics.structural_similarity`, in float64:
in float32 the variances of flat patches cancel so badly that SSIM exceeds 1.

How it is fast on one core, and flat in memory (`benchmarks/speed/ssim.py` measures both):
- SSIM needs four window means of a pair, not five: of x, of y, of 2xy, and of x^2 + y^2.
- Both passes of the separable window are matrix products with the blocks of its band matrix, each one product over all
  planes of a step; the first writes its result transposed, so that the second finds its axis last.
- The constants C1 and C2 are added to the planes before the windows, whose weights sum to 1, and not to the map after.
- A step has few enough planes for its buffers to stay in the processor's cache; they are made once and written over.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np
import torch

from potgan.common.errors import UserError
from potgan.settings.protocols import SsimSettings

# Wang et al. (2004): C1 = (K1 L)^2 and C2 = (K2 L)^2 for a data range of L.
_K1, _K2 = 0.01, 0.03
_CHUNK = 32  # pairs that are turned from (H, W, 3) to planes together
_STEP = 3 * 128 * 64  # pixels of the planes of one step, at least one plane: about 1.5 MB of buffers
_BLOCK = 20  # positions of the window in one block of the band matrix


def ssim(reference: np.ndarray, generated: np.ndarray, settings: SsimSettings) -> np.ndarray:
    """(N,) float64: the SSIM of each pair of images, at most 1; the channels' mean of the map's mean.

    reference, generated: (N, H, W, 3) uint8, arrays in memory or mapped files. The map is taken where the window lies
    wholly in the image, which is the map of scikit-image after its crop of (size - 1) // 2 pixels. A pair's score does
    not depend on the other pairs.

    With `data_range="generated"` the range is max - min of each generated image over all pixels and channels
    (Deformable GAN and PATN). A constant generated image has range 0, for which SSIM is undefined (0/0 where flat).
    Differs: it is given a range of one grey level, the smallest that an 8-bit image which is not constant can have;
    then equal flat images score 1, and a flat image against a textured one about 0.

    Raises UserError where the window is larger than the images. Source: docs/decisions.md, D33.
    """
    return _scores(reference, generated, None, settings, ("ssim",))["ssim"]


def masked_ssim(reference: np.ndarray, generated: np.ndarray, masks: np.ndarray, settings: SsimSettings) -> np.ndarray:
    """(N,) float64: the SSIM of each pair of images after both are multiplied by the pair's mask.

    reference, generated: (N, H, W, 3) uint8. masks: (N, H, W), each value 0 or 1. The mean goes over the *whole* image:
    the background is black in both and counts as about 1, so the mask's area moves this score more than the images do.
    With `data_range="generated"` the range is that of the *masked* generated image.

    Raises as `ssim`. Source: Deformable GAN `create_masked_image`, PATN getMetrics_market.py; docs/decisions.md, D34.
    """
    return _scores(reference, generated, masks, settings, ("mask_ssim",))["mask_ssim"]


def foreground_ssim(
    reference: np.ndarray, generated: np.ndarray, masks: np.ndarray, settings: SsimSettings
) -> np.ndarray:
    """(N,) float64: the SSIM map of each pair of *unmasked* images, averaged over the mask's pixels and the channels.

    Unlike `masked_ssim` it has no floor that grows as the mask shrinks. Only pixels at which the window lies wholly in
    the image count; NaN for a mask that has none of those. Arguments, range and errors as in `masked_ssim`. No peer
    measures this; docs/decisions.md, D34 says how mask-SSIM depends on the mask's area.
    """
    return _scores(reference, generated, masks, settings, ("foreground_ssim",))["foreground_ssim"]


def all_ssim(
    reference: np.ndarray, generated: np.ndarray, masks: np.ndarray | None, settings: SsimSettings
) -> dict[str, np.ndarray]:
    """`ssim` and, where there are masks, `mask_ssim` and `foreground_ssim` in one pass, by these names."""
    wanted = ("ssim",) if masks is None else ("ssim", "mask_ssim", "foreground_ssim")
    return _scores(reference, generated, masks, settings, wanted)


def _scores(
    reference: np.ndarray,
    generated: np.ndarray,
    masks: np.ndarray | None,
    settings: SsimSettings,
    wanted: tuple[str, ...],
) -> dict[str, np.ndarray]:
    _check_images(reference, generated, settings)
    if masks is not None and masks.shape != reference.shape[:3]:
        raise ValueError(f"masks of shape {masks.shape} for images of shape {reference.shape}")
    scores = {name: np.empty(len(reference)) for name in wanted}
    whole = [name for name in wanted if name != "mask_ssim"]
    means = _WindowMeans(*reference.shape[1:3], settings)
    with _one_thread():
        for start in range(0, len(reference), _CHUNK):
            part = slice(start, start + _CHUNK)
            x, y = _planes(reference[part]), _planes(generated[part])
            mask = None if masks is None else _checked_masks(masks[part])
            if whole:
                image, inside = means.compare(x, y, mask if "foreground_ssim" in wanted else None)
                for name, values in (("ssim", image), ("foreground_ssim", inside)):
                    if name in wanted:
                        scores[name][part] = values
            if "mask_ssim" in wanted:
                scores["mask_ssim"][part] = means.compare(x * mask[:, None], y * mask[:, None])[0]
    return scores


def _check_images(reference: np.ndarray, generated: np.ndarray, settings: SsimSettings) -> None:
    for images in (reference, generated):
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise ValueError(f"images must be (N, H, W, 3) uint8, and are {images.shape} {images.dtype}")
    if reference.shape != generated.shape:
        raise ValueError(f"reference images of shape {reference.shape}, generated images of shape {generated.shape}")
    if min(reference.shape[1:3]) < settings.size:
        height, width = reference.shape[1:3]
        raise UserError(
            f"SSIM: the images are {height} x {width} pixels, smaller than the window of {settings.size} pixels; "
            "use larger images (image_size in the configuration)"
        )


def _planes(images: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N, 3, H, W), contiguous."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _checked_masks(masks: np.ndarray) -> np.ndarray:
    """(N, H, W) uint8 of 0 and 1."""
    if not ((masks == 0) | (masks == 1)).all():
        raise ValueError("masks must hold 0 and 1 only")
    return masks.astype(np.uint8)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Products this small are slower on several threads, and a sum must not depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _WindowMeans:
    """SSIM maps of planes (height, width) under one window. Its buffers are reused from step to step."""

    def __init__(self, height: int, width: int, settings: SsimSettings) -> None:
        self.height, self.width, self.settings = height, width, settings
        self.planes = max(1, _STEP // (height * width))  # of one step
        self.rows, self.columns = (_blocks(size, settings) for size in (height, width))
        self.map_rows, self.map_columns = (size - settings.size + 1 for size in (height, width))
        self._steps: dict[int, _Step] = {}

    def compare(
        self, x: np.ndarray, y: np.ndarray, masks: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """(N,) mean of the map over the image, and over the masks' pixels. x, y: (N, 3, H, W) uint8; masks: (N, H, W)."""
        count = 3 * len(x)
        if self.settings.data_range == "generated":
            flat = y.reshape(len(y), -1)
            data_range = np.maximum(flat.max(axis=1).astype(np.float64) - flat.min(axis=1), 1.0)
        else:
            data_range = np.full(len(y), float(self.settings.data_range))
        pixels = self.settings.size**2  # scikit-image corrects by this count for the Gaussian window too
        correction = pixels / (pixels - 1) if self.settings.covariance == "sample" else 1.0
        c1 = torch.from_numpy(np.repeat((_K1 * data_range) ** 2, 3))
        # The correction multiplies covariance and variances alike: dividing C2 by it instead leaves the ratio as it is.
        c2 = torch.from_numpy(np.repeat((_K2 * data_range) ** 2 / correction, 3))
        x, y = (torch.from_numpy(planes.reshape(count, self.height, self.width)) for planes in (x, y))
        whole, inside, weights = torch.empty(count, dtype=torch.float64), None, None
        if masks is not None:
            margin = (self.settings.size - 1) // 2
            seen = masks[:, margin : margin + self.map_rows, margin : margin + self.map_columns]
            weights = torch.from_numpy(seen.transpose(2, 0, 1).repeat(3, axis=1).astype(np.float64))
            inside = torch.empty(count, dtype=torch.float64)
        for start in range(0, count, self.planes):
            part = slice(start, min(start + self.planes, count))
            step = self._step(part.stop - part.start)
            ssim_map = step(x[part], y[part], c1[part], c2[part])  # (columns, planes, rows)
            whole[part] = ssim_map.mean(dim=(0, 2))
            if weights is not None:
                inside[part] = ssim_map.mul_(weights[:, part]).sum(dim=(0, 2))
        if weights is not None:
            inside /= weights.sum(dim=(0, 2))  # 0 / 0 = NaN for a mask without a pixel
        return tuple(None if t is None else t.view(-1, 3).mean(dim=1).numpy() for t in (whole, inside))

    def _step(self, planes: int) -> _Step:
        if planes not in self._steps:
            self._steps[planes] = _Step(self, planes)
        return self._steps[planes]


class _Step:
    """The maps of a fixed number of planes, in two buffers."""

    def __init__(self, means: _WindowMeans, planes: int) -> None:
        height, width, columns, rows = means.height, means.width, means.map_columns, means.map_rows
        first = torch.empty(4 * planes * height * width, dtype=torch.float64)
        second = torch.empty(columns * 4 * planes * height, dtype=torch.float64)
        self.planes = first.view(4, planes, height, width)  # x, y, 2xy + C1 + C2, x^2 + y^2 + C1 + C2
        # Along the columns, written transposed: (columns, 4 * planes * height).
        signals, along = first.view(-1, width), second.view(columns, -1)
        self.products = [(block.T, signals[:, used].T, along[made]) for block, used, made in means.columns]
        # Along the rows, into the first buffer, whose planes nobody needs any more.
        signals, along = second.view(-1, height), first[: columns * 4 * planes * rows].view(-1, rows)
        self.products += [(signals[:, used], block, along[:, made]) for block, used, made in means.rows]
        self.means = along.view(columns, 4, planes, rows).unbind(dim=1)
        # The second buffer is free by then too.
        size = columns * planes * rows
        self.luminance = [second[i * size : (i + 1) * size].view(columns, planes, rows) for i in (0, 1)]

    def __call__(self, x: torch.Tensor, y: torch.Tensor, c1: torch.Tensor, c2: torch.Tensor) -> torch.Tensor:
        """(columns, planes, rows) SSIM maps of planes x, y (planes, H, W) uint8; the next call writes over them."""
        both = (c1 + c2)[:, None, None]
        planes_x, planes_y, planes_xy, planes_squares = self.planes
        planes_x.copy_(x)
        planes_y.copy_(y)
        torch.addcmul(both, planes_x, planes_y, value=2, out=planes_xy)
        torch.addcmul(both, planes_x, planes_x, out=planes_squares).addcmul_(planes_y, planes_y)
        for left, right, out in self.products:
            torch.mm(left, right, out=out)
        # (2 mean_x mean_y + C1) (2 covariance + C2) / ((mean_x^2 + mean_y^2 + C1) (variance_x + variance_y + C2))
        mean_x, mean_y, numerator, denominator = self.means
        above, below = self.luminance
        torch.addcmul(c1[:, None], mean_x, mean_y, value=2, out=above)
        torch.addcmul(c1[:, None], mean_x, mean_x, out=below).addcmul_(mean_y, mean_y)
        numerator.sub_(above).mul_(above)
        denominator.sub_(below).mul_(below)
        return numerator.div_(denominator)


def _blocks(size: int, settings: SsimSettings) -> list[tuple[torch.Tensor, slice, slice]]:
    """The band matrix (size, positions) of the window along an axis, in blocks of about `_BLOCK` positions.

    Each is (matrix, the pixels that it reads, the positions that it makes): `signal[used] @ matrix` is the signal's
    weighted mean under the window at these positions. Blocks leave out the zeros of the band matrix; products are so
    much faster than convolutions in float64 that the rest of them does no harm.
    """
    offsets = np.arange(settings.size) - settings.size // 2
    if settings.window == "gaussian":
        taps = np.exp(-0.5 * (offsets / settings.sigma) ** 2)
    elif settings.window == "uniform":
        taps = np.ones(settings.size)
    else:
        raise ValueError(f"unknown SSIM window {settings.window!r}")
    positions = size - settings.size + 1
    count = -(-positions // _BLOCK)
    ends = [positions * i // count for i in range(count + 1)]
    blocks = []
    for start, end in itertools.pairwise(ends):
        matrix = np.zeros((end - start + settings.size - 1, end - start))
        for position in range(end - start):
            matrix[position : position + settings.size, position] = taps / taps.sum()
        blocks.append((torch.from_numpy(matrix), slice(start, end + settings.size - 1), slice(start, end)))
    return blocks
