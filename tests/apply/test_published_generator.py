"""Tests of the generator that the repository ships: it opens, says where it comes from, and makes the picture of the document."""

import json
from pathlib import Path

import numpy as np
import pytest

from potgan.cli import main
from potgan.data.pixels import read_image
from potgan.methods.generator_file import load_generator

FILE = "reports/published/generator/potgan-synthetic.pt"


def test_it_is_a_few_megabytes_and_says_where_it_comes_from(repository: Path) -> None:
    assert (repository / FILE).stat().st_size < 10e6
    trained = load_generator(repository / FILE)
    assert trained.run["kind"] == "synthetic"
    assert trained.image_size == (128, 64)
    assert trained.scores["n_pairs"] == 1000
    # Of one of the seeds behind the published report, whose mean and standard deviation it prints.
    report = repository / "reports/published/embedded-three-seeds/metrics.json"
    published = json.loads(report.read_text())["synthetic"]["potgan"]
    assert trained.scores["metrics"]["ssim"]["value"] == pytest.approx(published["ssim"], abs=3 * published["ssim_sd"])


def test_the_command_of_the_document_makes_its_picture(repository: Path, tmp_path: Path, monkeypatch) -> None:
    """On another processor a sum may come out one level apart; bf16 is not in it, since generation computes in fp32."""
    monkeypatch.chdir(repository)
    example = repository / "docs" / "example"
    (source,) = example.glob("*.jpg")
    out = tmp_path / "poses.png"
    command = ["transfer", "--checkpoint", FILE, "--source", str(source), "--pose", str(example / "poses.csv")]
    assert main([*command, "--keypoints", str(example / "poses.csv"), "--out", str(out)]) in (0, None)
    ours, shown = (read_image(path).astype(int) for path in (out, example / "poses.png"))
    assert ours.shape == shown.shape
    assert np.abs(ours - shown).max() <= 2
