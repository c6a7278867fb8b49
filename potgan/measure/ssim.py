"""SSIM, mask-SSIM and foreground-SSIM of many image pairs at once (docs/decisions.md, D33, D34).

With the settings of `potgan.settings.protocols.SsimSettings` the results are those of `skimage.metrics.structural_similarity`.
Everything is computed in float64. In float32 the variances of flat patches lose so many digits that SSIM exceeds 1.

The code is fast on one core, and its use of memory does not grow (`benchmarks/speed/ssim.py` measures both):
- SSIM needs only four window means per pair, and not five: those of x, of y, of 2xy, and of x^2 + y^2.
- The window is separable. Both passes are matrix products with the blocks of its band matrix, and each product goes over all
  planes of a step. The first pass writes its result transposed, so that the axis of the second pass is the last one.
- The constants C1 and C2 are added to the planes before the windows, and not to the map after them. This gives the same result,
  because the weights of a window sum to 1.
- A step has so few planes that its buffers stay in the processor's cache. The buffers are made once and written over.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np
import torch

from potgan.common.errors import UserError
from potgan.settings.protocols import SsimSettings

# Wang et al. (2004) define C1 = (K1 L)^2 and C2 = (K2 L)^2 for a data range of L.
_K1, _K2 = 0.01, 0.03
_CHUNK = 32  # the number of pairs that are turned from (H, W, 3) to planes together
_STEP = 3 * 128 * 64  # the number of pixels of one step, but at least one plane; the buffers then have about 1.5 MB
_BLOCK = 20  # the number of window positions in one block of the band matrix


def ssim(reference: np.ndarray, generated: np.ndarray, settings: SsimSettings) -> np.ndarray:
    """Return the SSIM of each pair of images: (N,) float64, at most 1. It is the mean of the SSIM map over pixels and channels.

    reference, generated: (N, H, W, 3) uint8, arrays in memory or mapped files. The map holds the positions at which the whole
    window lies in the image. This is the map of scikit-image after its crop of (size - 1) // 2 pixels. The score of a pair does
    not depend on the other pairs.

    With `data_range="generated"` the range is max - min of each generated image over all pixels and channels, as in Deformable GAN
    and PATN. A constant generated image has range 0, for which SSIM is undefined (0/0 in flat regions). Here it gets a range of one
    grey level, the smallest that an 8-bit image can have if it is not constant; this differs from the peers. Then equal flat
    images score 1, and a flat image scores about 0 against a textured one.

    Raises UserError if the window is larger than the images. Source: docs/decisions.md, D33.
    """
    return _scores(reference, generated, None, settings, ("ssim",))["ssim"]


def masked_ssim(reference: np.ndarray, generated: np.ndarray, masks: np.ndarray, settings: SsimSettings) -> np.ndarray:
    """Return the SSIM of each pair of images after both are multiplied by the mask of the pair: (N,) float64.

    reference, generated: (N, H, W, 3) uint8. masks: (N, H, W), each value 0 or 1. The mean goes over the *whole* image. The
    background is black in both images and counts as about 1, so this score depends on the area of the mask more than on the
    images. With `data_range="generated"` the range is that of the *masked* generated image. The score is NaN for a mask without a
    pixel, because black against black would be a perfect score of nothing.

    Raises the errors of `ssim`. Source: Deformable GAN `create_masked_image`, PATN getMetrics_market.py; docs/decisions.md, D34.
    """
    return _scores(reference, generated, masks, settings, ("mask_ssim",))["mask_ssim"]


def foreground_ssim(
    reference: np.ndarray, generated: np.ndarray, masks: np.ndarray, settings: SsimSettings
) -> np.ndarray:
    """Return the mean of the SSIM map of each pair of *unmasked* images over the pixels of the mask and the channels: (N,) float64.

    Unlike `masked_ssim`, this score has no lower bound that grows as the mask shrinks. Only pixels at which the whole window lies
    in the image count. The score is NaN for a mask that has none of those. Arguments and errors are those of `masked_ssim`, and the
    data range is that of the unmasked image. No peer measures this. docs/decisions.md, D34 says how mask-SSIM depends on the area
    of the mask.
    """
    return _scores(reference, generated, masks, settings, ("foreground_ssim",))["foreground_ssim"]


def all_ssim(
    reference: np.ndarray, generated: np.ndarray, masks: np.ndarray | None, settings: SsimSettings
) -> dict[str, np.ndarray]:
    """Return `ssim`, and `mask_ssim` and `foreground_ssim` if there are masks, by these names. One pass measures them all."""
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
                values = means.compare(x * mask[:, None], y * mask[:, None])[0]
                scores["mask_ssim"][part] = np.where(mask.any(axis=(1, 2)), values, np.nan)
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
    """Turn images (N, H, W, 3) uint8 into contiguous planes (N, 3, H, W)."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _checked_masks(masks: np.ndarray) -> np.ndarray:
    """Return the masks as (N, H, W) uint8. Raises ValueError if they hold anything but 0 and 1."""
    if not ((masks == 0) | (masks == 1)).all():
        raise ValueError("masks must hold 0 and 1 only")
    return masks.astype(np.uint8)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread in this context.

    Small products are slower on several threads, and a sum must not depend on the number of threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _WindowMeans:
    """Computes SSIM maps of planes (height, width) under one window. It uses the same buffers in every step."""

    def __init__(self, height: int, width: int, settings: SsimSettings) -> None:
        self.height, self.width, self.settings = height, width, settings
        self.planes = max(1, _STEP // (height * width))  # the number of planes in one step
        self.rows, self.columns = (_blocks(size, settings) for size in (height, width))
        self.map_rows, self.map_columns = (size - settings.size + 1 for size in (height, width))
        self._steps: dict[int, _Step] = {}

    def compare(
        self, x: np.ndarray, y: np.ndarray, masks: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the means (N,) of the map over the image and over the pixels of the mask.

        The second one is None without masks. x, y: (N, 3, H, W) uint8. masks: (N, H, W).
        """
        count = 3 * len(x)
        if self.settings.data_range == "generated":
            flat = y.reshape(len(y), -1)
            data_range = np.maximum(flat.max(axis=1).astype(np.float64) - flat.min(axis=1), 1.0)
        else:
            data_range = np.full(len(y), float(self.settings.data_range))
        # scikit-image corrects by this count of pixels for the Gaussian window too.
        pixels = self.settings.size**2
        correction = pixels / (pixels - 1) if self.settings.covariance == "sample" else 1.0
        c1 = torch.from_numpy(np.repeat((_K1 * data_range) ** 2, 3))
        # The correction multiplies the covariance and the variances by the same factor. Dividing C2 by this factor has the same
        # effect on the ratio.
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
            inside /= weights.sum(dim=(0, 2))  # a mask without a pixel gives 0 / 0 = NaN
        return tuple(None if t is None else t.view(-1, 3).mean(dim=1).numpy() for t in (whole, inside))

    def _step(self, planes: int) -> _Step:
        if planes not in self._steps:
            self._steps[planes] = _Step(self, planes)
        return self._steps[planes]


class _Step:
    """Computes the maps of a fixed number of planes in two buffers."""

    def __init__(self, means: _WindowMeans, planes: int) -> None:
        height, width, columns, rows = means.height, means.width, means.map_columns, means.map_rows
        first = torch.empty(4 * planes * height * width, dtype=torch.float64)
        second = torch.empty(columns * 4 * planes * height, dtype=torch.float64)
        self.planes = first.view(4, planes, height, width)  # x, y, 2xy + C1 + C2, x^2 + y^2 + C1 + C2
        # The first pass goes along the columns. Its result is written transposed: (columns, 4 * planes * height).
        signals, along = first.view(-1, width), second.view(columns, -1)
        self.products = [(block.T, signals[:, used].T, along[made]) for block, used, made in means.columns]
        # The second pass goes along the rows. It writes into the first buffer, whose planes are no longer needed.
        signals, along = second.view(-1, height), first[: columns * 4 * planes * rows].view(-1, rows)
        self.products += [(signals[:, used], block, along[:, made]) for block, used, made in means.rows]
        self.means = along.view(columns, 4, planes, rows).unbind(dim=1)
        # After the second pass the second buffer is free too.
        size = columns * planes * rows
        self.luminance = [second[i * size : (i + 1) * size].view(columns, planes, rows) for i in (0, 1)]

    def __call__(self, x: torch.Tensor, y: torch.Tensor, c1: torch.Tensor, c2: torch.Tensor) -> torch.Tensor:
        """Return the SSIM maps (columns, planes, rows) of x, y (planes, H, W) uint8. The next call writes over them."""
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
    """Return the band matrix (size, positions) of the window along an axis, in blocks of about `_BLOCK` positions.

    A block is (matrix, the pixels that it reads, the positions that it makes). `signal[used] @ matrix` is the weighted mean of the
    signal under the window at these positions. The blocks leave out most zeros of the band matrix. The zeros that remain do no
    harm, because products are much faster than convolutions in float64.
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
