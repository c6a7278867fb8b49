"""A number from another precision than fp32 enters a table only beside its difference to fp32."""

import pandas as pd
import pytest

from potgan.common.errors import UserError
from potgan.settings import precision
from potgan.settings.reading import load

SYNTHETIC = {"synthetic": {"kind": "synthetic", "label": "Synthetic"}}


def benchmark(models: dict) -> dict:
    return {
        "benchmark": "precisions",
        "description": "",
        "protocol": "potgan-synthetic",
        "datasets": SYNTHETIC,
        "models": models,
        "training": {"perceptual_network": "random"},
    }


def test_a_precision_that_nobody_measured_is_refused_unless_its_twin_in_fp32_stands_beside_it(monkeypatch, tmp_path):
    monkeypatch.setattr(precision.measured, "__defaults__", (tmp_path / "none.csv",))
    half = {"training": {"precision": "bf16"}}
    with pytest.raises(
        UserError, match=r"models\.potgan: nobody has measured what training in bf16 changes; add the same"
    ):
        load(benchmark({"potgan": half}))
    other = {"potgan": {"generator": {"width": 32}}, "half": half}  # fp32, but not the same model
    with pytest.raises(UserError, match=r"models\.half"):
        load(benchmark(other))
    loaded = load(benchmark({"potgan": {}, "half": half}))
    assert precision.fp32_twin(loaded, "half") == "potgan"
    assert precision.notes(loaded) == (
        "half is trained in bf16; the ablation report compares it with potgan, the same in fp32.",
    )


def test_the_note_prints_what_the_file_says(monkeypatch, tmp_path):
    path = tmp_path / "precision.csv"
    row = ("bf16", "ssim", 0.2766, 0.0081, -0.0012, 0.0034, 3, 200)
    pd.DataFrame([row], columns=list(precision.COLUMNS)).to_csv(path, index=False)
    monkeypatch.setattr(precision.measured, "__defaults__", (path,))
    loaded = load(benchmark({"potgan": {"training": {"precision": "bf16"}}}))
    (note,) = precision.notes(loaded)
    assert (
        "with 200 test pairs and over 3 seeds, bf16 minus fp32 is: ssim -0.001 ± 0.003 (fp32: 0.277 ± 0.008)." in note
    )


def test_a_precision_set_for_a_whole_data_set_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(precision.measured, "__defaults__", (tmp_path / "none.csv",))
    tree = benchmark({"potgan": {}})
    tree["datasets"] = {"synthetic": SYNTHETIC["synthetic"] | {"overrides": {"training": {"precision": "tf32"}}}}
    with pytest.raises(UserError, match="training in tf32"):
        load(tree)


def test_a_model_set_to_false_is_taken_away():
    loaded = load(benchmark({"potgan": {}, "no-recon": False}))
    assert list(loaded.models) == ["potgan"]


def test_auto_counts_as_the_coarsest_that_it_may_be(monkeypatch, tmp_path):
    automatic = benchmark({"potgan": {"training": {"precision": "auto"}}})
    monkeypatch.setattr(precision.measured, "__defaults__", (tmp_path / "none.csv",))
    with pytest.raises(UserError, match=r"models\.potgan: nobody has measured what training in auto changes"):
        load(automatic)
    monkeypatch.undo()
    (note,) = precision.notes(load(automatic))
    assert note.startswith("potgan is trained in bf16 where the processor or GPU has it, else in fp32")
    assert "bf16 minus fp32 is: ssim -0.001" in note


def test_the_committed_measurements_are_whole():
    frame = precision.measured()
    assert set(frame["precision"]) <= {"bf16", "tf32"}
    assert (frame["n_seeds"] >= 2).all()
    assert len(frame) == 2 * 5  # five metrics of each
    assert not frame.isna().any(axis=None)
