"""SSIM and mask-SSIM of 128 x 64 pairs: ours against a loop over scikit-image with the same settings, one core.

Usage: python benchmarks/speed/ssim.py [--pairs 400] [--rounds 5]

Both sides run in turn on the same pairs, and the ratio of each round is taken. The largest difference is printed too.
"""

import argparse
import resource
import time

import cv2
import numpy as np
import torch
from skimage.metrics import structural_similarity

from potgan.measure.ssim import all_ssim, masked_ssim, ssim
from potgan.settings.protocols import PROTOCOLS

SETTINGS = PROTOCOLS["potgan"].ssim


def theirs(reference: np.ndarray, generated: np.ndarray) -> np.ndarray:
    return np.array(
        [
            structural_similarity(
                r, g, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                data_range=int(g.max()) - int(g.min()),
            )
            for r, g in zip(reference, generated, strict=True)
        ]
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (2, arguments.pairs, 128, 64, 3), dtype=np.uint8)
    reference, generated = (np.stack([cv2.GaussianBlur(i, (0, 0), 2) for i in part]) for part in noise)
    masks = np.zeros((arguments.pairs, 128, 64), np.uint8)
    masks[:, 10:120, 18:46] = 1

    def masked(images: np.ndarray) -> np.ndarray:
        return images * masks[..., None]

    sides = {
        "SSIM": (
            lambda: ssim(reference, generated, SETTINGS),
            lambda: theirs(reference, generated),
        ),
        "mask-SSIM": (
            lambda: masked_ssim(reference, generated, masks, SETTINGS),
            lambda: theirs(masked(reference), masked(generated)),
        ),
        "both": (
            lambda: {k: v for k, v in all_ssim(reference, generated, masks, SETTINGS).items() if "fore" not in k},
            lambda: {
                "ssim": theirs(reference, generated),
                "mask_ssim": theirs(masked(reference), masked(generated)),
            },
        ),
    }
    for name, (ours, other) in sides.items():
        rates: tuple[list[float], list[float]] = ([], [])
        for _ in range(arguments.rounds):
            results = []
            for side, times in zip((ours, other), rates, strict=True):
                start = time.perf_counter()
                results.append(side())
                times.append(arguments.pairs / (time.perf_counter() - start))
        a, b = ([r[k] for k in r] if isinstance(r, dict) else [r] for r in results)
        difference = max(np.abs(x - y).max() for x, y in zip(a, b, strict=True))
        ratios = sorted(o / t for o, t in zip(*rates, strict=True))
        print(
            f"{name}: {np.median(rates[0]):,.0f} against {np.median(rates[1]):,.0f} pairs/s, ratio median "
            f"{ratios[len(ratios) // 2]:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), largest difference {difference:.1e}"
        )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many = np.broadcast_to(reference[:1], (12_000, 128, 64, 3))
    ssim(many, many, SETTINGS)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"12,000 pairs at once: peak memory grows by {grown:.0f} MiB")


if __name__ == "__main__":
    main()
