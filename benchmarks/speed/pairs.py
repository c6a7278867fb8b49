"""Seconds to build and write the pair lists of Market-1501 on one core, from the published tables.

Usage: python benchmarks/speed/pairs.py --tables FOLDER [--rounds 5]

FOLDER holds market-annotation-{train,test}.csv as PATN publishes them. "Built" is what the stage `pairs` does: both
lists under the rule, the test's sample, the record with its statistics and hashes; "written" both files.
"""

import argparse
import itertools
import tempfile
import time
from pathlib import Path

from potgan.common.files import write_json, write_text
from potgan.data.keypoint_files import read_keypoints
from potgan.data.pairs import PAIR_RULES, build, pairs_csv, read_pairs
from potgan.settings.schema import PairSettings

TEST_SAMPLES = {"patn": 12_000, "pg2": 12_800}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    start = time.perf_counter()
    train, test = (read_keypoints(arguments.tables / f"market-annotation-{split}.csv") for split in ("train", "test"))
    print(f"key points of {len(train):,} + {len(test):,} images read: {time.perf_counter() - start:.2f} s")
    for rule in PAIR_RULES:
        settings = PairSettings(rule=rule, test_sample=TEST_SAMPLES[rule])
        times = []
        for _ in range(arguments.rounds):  # so that a busy neighbour shows as spread
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                marks = [time.perf_counter()]
                lists, record = build(train, test, settings, "market1501")
                marks.append(time.perf_counter())
                for split, frame in lists.items():
                    write_text(folder / f"pairs-{split}.csv", pairs_csv(frame))
                write_json(folder / "pairs.json", record)
                marks.append(time.perf_counter())
                read_pairs(folder / "pairs-train.csv", train.names, "market1501")
                marks.append(time.perf_counter())
            times.append([b - a for a, b in itertools.pairwise(marks)])
        built, written, read = (sorted(column) for column in zip(*times, strict=True))
        middle = arguments.rounds // 2
        print(
            f"{rule}: {len(lists['train']):,} train and {len(lists['test']):,} test pairs; built in {built[middle]:.2f} s "
            f"(slowest {built[-1]:.2f}), written in {written[middle]:.2f} s (slowest {written[-1]:.2f}), train list read "
            f"and checked in {read[middle]:.2f} s"
        )


if __name__ == "__main__":
    main()
