"""SSIM and mask-SSIM of 128 x 64 pairs: ours against a loop over scikit-image with the same settings, one core.

Usage: python benchmarks/speed/ssim.py [--pairs 400] [--rounds 5]

Both sides run in turn on the same pairs, and the ratio of each round is taken. The ratio of ours to itself and the largest
difference are printed, too.
"""

import argparse
import resource

import cv2
import numpy as np
import torch
from skimage.metrics import structural_similarity
from turns import in_turn, ratio

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
        seconds, results = in_turn({"ours": ours, "theirs": other}, arguments.rounds, null="ours")
        a, b = ([r[k] for k in r] if isinstance(r, dict) else [r] for r in results.values())
        difference = max(np.abs(x - y).max() for x, y in zip(a, b, strict=True))
        ours_rate, other_rate = (arguments.pairs / np.median(seconds[side]) for side in ("ours", "theirs"))
        print(
            f"{name}: {ours_rate:,.0f} against {other_rate:,.0f} pairs/s, ratio {ratio(seconds['theirs'], seconds['ours'])}, "
            f"null comparison {ratio(seconds['null'], seconds['ours'])}, largest difference {difference:.1e}"
        )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many = np.broadcast_to(reference[:1], (12_000, 128, 64, 3))
    ssim(many, many, SETTINGS)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"12,000 pairs at once: peak memory grows by {grown:.0f} MiB")


if __name__ == "__main__":
    main()
