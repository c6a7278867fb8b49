"""SSIM and mask-SSIM of many image pairs at once (PROTOCOLS 5.1 and 5.2).

The settings of `potgan.metrics.protocols.SsimSettings` reproduce `skimage.metrics.structural_similarity`, in float64:
in float32 the variances of flat patches cancel so badly that SSIM exceeds 1.
"""

from __future__ import annotations

import numpy as np
import torch

from potgan.errors import UserError
from potgan.metrics.protocols import SsimSettings

# Wang et al. (2004): C1 = (K1 L)^2 and C2 = (K2 L)^2 for a data range of L.
_K1, _K2 = 0.01, 0.03


def ssim(reference: np.ndarray, generated: np.ndarray, settings: SsimSettings, batch_size: int = 64) -> np.ndarray:
    """(N,) float64: the SSIM of each pair of images, at most 1; the channels' mean of the map's mean.

    reference, generated: (N, H, W, 3) uint8. The map is taken where the window lies wholly in the image, which is the
    map of scikit-image after its crop of (size - 1) // 2 pixels. The result does not depend on `batch_size`.

    With `data_range="generated"` the range is max - min of each generated image over all pixels and channels
    (Deformable GAN and PATN). A constant generated image has range 0, for which SSIM is undefined (0/0 where flat).
    Differs: it is given a range of one grey level, the smallest that an 8-bit image which is not constant can have;
    then equal flat images score 1, and a flat image against a textured one about 0.

    Raises UserError where the window is larger than the images. Source: PROTOCOLS 5.1.
    """
    _check_images(reference, generated, settings)
    rows, columns = (_window_matrix(size, settings) for size in reference.shape[1:3])
    scores = np.empty(len(reference))
    for start in range(0, len(reference), batch_size):
        batch = slice(start, start + batch_size)
        scores[batch] = _ssim_batch(reference[batch], generated[batch], settings, rows, columns)
    return scores


def masked_ssim(
    reference: np.ndarray, generated: np.ndarray, masks: np.ndarray, settings: SsimSettings, batch_size: int = 64
) -> np.ndarray:
    """(N,) float64: the SSIM of each pair of images after both are multiplied by the pair's mask.

    reference, generated: (N, H, W, 3) uint8. masks: (N, H, W), each value 0 or 1. The mean goes over the *whole* image:
    the background is black in both and counts as about 1, so the mask's area moves this score more than the images do.
    With `data_range="generated"` the range is that of the *masked* generated image.

    Raises as `ssim`. Source: Deformable GAN `create_masked_image`, PATN getMetrics_market.py; PROTOCOLS 5.2.
    """
    _check_images(reference, generated, settings)
    if masks.shape != reference.shape[:3]:
        raise ValueError(f"masks of shape {masks.shape} for images of shape {reference.shape}")
    if not ((masks == 0) | (masks == 1)).all():
        raise ValueError("masks must hold 0 and 1 only")
    scores = np.empty(len(reference))
    for start in range(0, len(reference), batch_size):  # by batches, so that no masked copy of the whole set is kept
        batch = slice(start, start + batch_size)
        mask = masks[batch, :, :, None].astype(np.uint8)
        scores[batch] = ssim(reference[batch] * mask, generated[batch] * mask, settings, batch_size)
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


def _window_matrix(size: int, settings: SsimSettings) -> torch.Tensor:
    """(size, size - taps + 1): `signal @ matrix` is the signal's weighted mean under the window at each position.

    The window as a band matrix, since on a CPU two matrix products are several times faster than a separable
    convolution in float64 (on one core 690 against 100 pairs of 128 x 64 pixels a second).
    """
    offsets = np.arange(settings.size) - settings.size // 2
    if settings.window == "gaussian":
        taps = np.exp(-0.5 * (offsets / settings.sigma) ** 2)
    elif settings.window == "uniform":
        taps = np.ones(settings.size)
    else:
        raise ValueError(f"unknown SSIM window {settings.window!r}")
    positions = size - settings.size + 1
    matrix = np.zeros((size, positions))
    for position in range(positions):
        matrix[position : position + settings.size, position] = taps / taps.sum()
    return torch.from_numpy(matrix)


def _ssim_batch(
    reference: np.ndarray, generated: np.ndarray, settings: SsimSettings, rows: torch.Tensor, columns: torch.Tensor
) -> np.ndarray:
    x = torch.from_numpy(np.ascontiguousarray(reference.transpose(0, 3, 1, 2))).double()
    y = torch.from_numpy(np.ascontiguousarray(generated.transpose(0, 3, 1, 2))).double()

    def window_mean(planes: torch.Tensor) -> torch.Tensor:
        return rows.T @ (planes @ columns)

    if settings.data_range == "generated":
        data_range = y.amax(dim=(1, 2, 3), keepdim=True) - y.amin(dim=(1, 2, 3), keepdim=True)
        data_range = data_range.clamp(min=1.0)
    else:
        data_range = torch.full((len(y), 1, 1, 1), float(settings.data_range), dtype=torch.float64)
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2

    mean_x, mean_y = window_mean(x), window_mean(y)
    pixels = settings.size**2  # scikit-image corrects by this count for the Gaussian window too
    correction = pixels / (pixels - 1) if settings.covariance == "sample" else 1.0
    variance_x = correction * (window_mean(x * x) - mean_x**2)
    variance_y = correction * (window_mean(y * y) - mean_y**2)
    covariance = correction * (window_mean(x * y) - mean_x * mean_y)

    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast_and_structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * contrast_and_structure).mean(dim=(1, 2, 3)).numpy()
