"""Inception features and the Frechet distance: ours against pytorch-fid's network and SciPy's matrix square root.

Usage: python benchmarks/speed/inception.py [--images 48] [--rounds 3] [--threads 1]

Both sides run in turn with the same random weights (time does not depend on them), and must agree. pytorch-fid's own loop
is its network in eval mode on NCHW batches; its distance is |m|^2 + tr(S1 + S2 - 2 sqrtm(S1 S2)).
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import scipy.linalg
import torch
from turns import in_turn, ratio

from potgan.measure.inception import InceptionNetwork, _inception_2015, frechet_distance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    plain = _inception_2015().eval()
    with tempfile.TemporaryDirectory() as folder:
        torch.save(plain.state_dict(), Path(folder, "weights.pth"))
        network = InceptionNetwork(Path(folder, "weights.pth"))
    plain.fc = torch.nn.Identity()
    images = np.random.default_rng(0).integers(0, 256, (arguments.images, 128, 64, 3), dtype=np.uint8)

    def of_pytorch_fid() -> np.ndarray:
        found = []
        with torch.no_grad():
            for start in range(0, len(images), 32):
                batch = torch.from_numpy(images[start : start + 32]).permute(0, 3, 1, 2).contiguous().float() / 255
                batch = torch.nn.functional.interpolate(batch, (299, 299), mode="bilinear", align_corners=False)
                found.append(plain(2 * batch - 1).double().numpy())
        return np.concatenate(found)

    sides = {"ours": lambda: network(images)[0], "theirs": of_pytorch_fid}
    seconds, results = in_turn(sides, arguments.rounds, null="ours")
    rates = {side: arguments.images / np.median(times) for side, times in seconds.items()}
    print(
        f"features: {rates['ours']:.1f} against {rates['theirs']:.1f} images/s, ratio {ratio(seconds['theirs'], seconds['ours'])}, "
        f"null comparison {ratio(seconds['null'], seconds['ours'])}, largest difference "
        f"{np.abs(results['ours'] - results['theirs']).max():.1e}"
    )

    rng = np.random.default_rng(1)
    a, b = (rng.normal(size=(2600, 2048)) @ np.diag(rng.uniform(0.1, 2, 2048)) for _ in range(2))

    def of_scipy() -> float:
        s_a, s_b = (np.cov(x, rowvar=False) for x in (a, b))
        root = scipy.linalg.sqrtm(s_a @ s_b).real
        return ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(s_a + s_b - 2 * root)

    sides = {"ours": lambda: frechet_distance(a, b), "theirs": of_scipy}
    seconds, results = in_turn(sides, arguments.rounds, null="ours")
    difference = abs(results["ours"] - results["theirs"]) / results["theirs"]
    print(
        f"Frechet distance, 2 x 2,600 x 2,048: {np.median(seconds['ours']):.2f} against {np.median(seconds['theirs']):.2f} s, "
        f"ratio {ratio(seconds['theirs'], seconds['ours'])}, null comparison {ratio(seconds['null'], seconds['ours'])}, relative "
        f"difference {difference:.1e}"
    )


if __name__ == "__main__":
    main()
