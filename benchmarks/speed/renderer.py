"""Images a second of the synthetic renderer, one core: how long does the embedded data set take to make?

Usage: python benchmarks/speed/renderer.py [--images 400] [--height 128] [--width 64]
"""

import argparse
import time

import cv2

from potgan.data.synthetic import people
from potgan.settings.schema import SyntheticSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    persons = max(1, arguments.images // 8)
    settings = SyntheticSettings(
        train_identities=persons, test_identities=0, height=arguments.height, width=arguments.width
    )
    for index in range(8):  # the cameras' backgrounds are drawn once per process
        people.render(settings, 1, index)
        people.render(settings, persons, index)
    rates = []
    for first in range(1, persons + 1, 5):  # in rounds, so that a busy neighbour shows as spread
        batch = range(first, min(first + 5, persons + 1))
        start = time.perf_counter()
        for person in batch:
            for index in range(8):
                people.render(settings, person, index)
        rates.append(8 * len(batch) / (time.perf_counter() - start))
    rates.sort()
    print(
        f"{arguments.height} x {arguments.width}: median {rates[len(rates) // 2]:.0f}, "
        f"slowest {rates[0]:.0f}, fastest {rates[-1]:.0f} images/s ({len(rates)} rounds)"
    )

    pairs = [(people.render(settings, 1, a), people.render(settings, 1, a + 1)) for a in range(7)] * 20
    start = time.perf_counter()
    for source, target in pairs:
        people.exact_flow(source, target)
    print(f"exact flow: {len(pairs) / (time.perf_counter() - start):.0f} pairs/s")


if __name__ == "__main__":
    main()
