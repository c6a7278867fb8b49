"""Tests of a generator's file.

A file gives back the generator that was trained, and any other file is refused. A generator is exported only with its own scores.
"""

import dataclasses
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_loop import SETTINGS, dots

from potgan.apply.runs import export, find_run, open_generator
from potgan.cli import main
from potgan.common.errors import UserError
from potgan.methods.generator_file import load_generator, save_generator
from potgan.methods.potgan.generator import Generator
from potgan.settings.layout import Layout
from potgan.settings.reading import dump, load
from potgan.settings.schema import GeneratorSettings, GuidedFilterSettings
from potgan.training.loop import train

HASHES = {"images": "0" * 64, "keypoints": "1" * 64, "pairs_train": "2" * 64}
#: A benchmark whose second model shares the training of the first one, and has another filter.
TREE = {
    "benchmark": "tiny",
    "description": "Of this test.",
    "protocol": "potgan",
    "datasets": {"dots": {"kind": "market1501", "label": "Dots", "image_size": [32, 32]}},
    "generator": {"width": 4, "normalization": "batch", "control_points": [3, 3], "guided_filter": {"mode": "test"}},
    "discriminator": {"width": 4, "normalization": "none"},
    "loss_weights": {"perceptual": 0},
    "masks": {"limb_radius": 2, "heatmap_sigma": 3},
    "training": {"iterations": 4, "batch_size": 2, "decay_from": 2, "perceptual_network": "random", "checkpoints": 2},
    "models": {"potgan": {}, "no-guided-filter": {"generator": {"guided_filter": {"mode": "off"}}}},
    "seeds": [3],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """The folder of a trained and evaluated benchmark, as the stages leave it.

    Each `scores.json` holds only what `export` reads.
    """
    root = tmp_path_factory.mktemp("root")
    benchmark = load(TREE)
    layout = Layout("tiny", root)
    layout.results.mkdir(parents=True)
    layout.configuration.write_text(dump(benchmark))
    folder = layout.train("dots", "potgan", 3)
    train(dots(), None, benchmark.run_settings("dots", "potgan", 3), folder, HASHES, torch.device("cpu"))
    last = folder / "generator-000004.pt"
    for model in TREE["models"]:
        settings = benchmark.run_settings("dots", model, 3)
        scores = {
            "benchmark": "tiny",
            "method": model,
            "protocol": {"id": "potgan", "version": 2, "hash": "abc", "description": "..."},
            "n_pairs": 109,
            "metrics": {"ssim": {"value": 0.25 if model == "potgan" else 0.125, "protocol": "ssim-deform", "n": 109}},
            "hashes": {"generator": hashlib.sha256(last.read_bytes()).hexdigest()},
            "settings": settings.images_fingerprint(last.name),
        }
        path = layout.evaluate("dots", model, 3) / "scores.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(scores))
    return layout.results


@pytest.fixture
def copied(results, tmp_path) -> Path:
    """A copy of the run of `potgan`, which a test may change."""
    shutil.copytree(results, tmp_path / "results" / "tiny")
    return tmp_path / "results" / "tiny" / "dots" / "potgan" / "seed3"


@pytest.fixture
def written(tmp_path) -> Path:
    torch.manual_seed(11)
    path = tmp_path / "g.pt"
    save_generator(path, Generator(SETTINGS.generator, SETTINGS.image_size), SETTINGS, 24, HASHES)
    return path


def content_of(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def one_line(call) -> str:
    with pytest.raises(UserError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


# ------------------------------------------------------------------------------------------------------------ the file


def test_what_was_saved_comes_back(tmp_path) -> None:
    torch.manual_seed(11)
    generator = Generator(SETTINGS.generator, SETTINGS.image_size)
    save_generator(tmp_path / "g.pt", generator, SETTINGS, 24, HASHES)
    found = load_generator(tmp_path / "g.pt")
    assert found.iteration == 24
    assert found.image_size == (32, 32)
    assert found.masks == SETTINGS.masks
    assert found.data_hashes == HASHES
    assert found.scores is None
    assert found.run == {"dataset": "dots", "kind": None, "label": None, "model": None, "seed": 3}
    assert found.generator.settings == SETTINGS.generator
    assert not found.generator.training
    for name, tensor in generator.state_dict().items():
        assert torch.equal(found.generator.state_dict()[name], tensor), name


def test_a_file_holds_plain_tensors_numbers_and_text_and_its_bytes_are_the_same_again(written, tmp_path) -> None:
    content = content_of(written)
    assert all(type(tensor) is torch.Tensor for tensor in content.pop("state").values())
    assert {type(v) for v in content.values()} == {str, int, list}
    for key in ("generator_settings", "masks", "run", "data", "scores"):
        json.loads(content[key])
    torch.manual_seed(11)
    save_generator(tmp_path / "h.pt", Generator(SETTINGS.generator, SETTINGS.image_size), SETTINGS, 24, HASHES)
    assert (tmp_path / "h.pt").read_bytes() == written.read_bytes()


def test_a_training_writes_its_data_and_its_run(results) -> None:
    found = load_generator(results / "dots" / "potgan" / "seed3" / "train" / "generator-000002.pt")
    assert found.iteration == 2
    assert found.data_hashes == HASHES
    assert (found.run["dataset"], found.run["seed"], found.scores) == ("dots", 3, None)


def test_the_package_has_load_generator_and_no_torch_before_it_is_asked_for(written) -> None:
    code = (
        "import sys, potgan; assert 'torch' not in sys.modules; from potgan import load_generator; "
        f"assert load_generator({str(written)!r}).iteration == 24"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    import potgan

    with pytest.raises(AttributeError, match="load_generators"):
        _ = potgan.load_generators


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 8}, "width: 4 in the file, 8 wanted"),
        ({"pose_transform": False}, "pose_transform: True in the file, False wanted"),
        ({"control_points": (4, 4)}, "control_points"),
        ({"guided_filter": GuidedFilterSettings("train")}, "guided_filter"),
    ],
)
def test_another_architecture_is_refused(written, change: dict, said: str) -> None:
    wanted = dataclasses.replace(SETTINGS.generator, **change)
    assert said in one_line(lambda: load_generator(written, wanted))


def test_a_filter_outside_of_training_may_differ(written) -> None:
    for mode, filters in (("off", False), ("test", True)):
        wanted = dataclasses.replace(SETTINGS.generator, guided_filter=GuidedFilterSettings(mode, radius=2))
        assert load_generator(written, wanted).generator.filters is filters


@pytest.mark.parametrize("change", [{"width": 8}, {"pose_transform": False}, {"normalization": "instance"}])
def test_weights_of_another_architecture_than_the_file_says_are_refused(written, change: dict) -> None:
    content = content_of(written)
    stored = json.loads(content["generator_settings"]) | change
    torch.save(content | {"generator_settings": json.dumps(stored)}, written)
    assert "its weights do not fit its own settings" in one_line(lambda: load_generator(written))


class Bomb:
    """An object whose pickle makes a folder if it is loaded without care."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def text(path: Path) -> None:
    path.write_text("iterations: 500\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def numbers(path: Path) -> None:
    np.save(path.open("wb"), np.arange(9))


def code(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state": Bomb()}))


def code_in_torch(path: Path) -> None:
    torch.save({"state": {}, "generator_settings": Bomb()}, path)


@pytest.mark.parametrize("write", [text, empty, numbers, code, code_in_torch])
def test_what_is_no_generator_is_one_line_and_runs_nothing(tmp_path, monkeypatch, write) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.pt")
    assert "is no generator file, or is damaged" in one_line(lambda: load_generator(tmp_path / "x.pt"))
    assert not (tmp_path / "exploded").exists()


def test_absent_folders_and_other_torch_files_are_told_apart(tmp_path, written) -> None:
    assert "no such checkpoint" in one_line(lambda: load_generator(tmp_path / "absent.pt"))
    assert "is a folder" in one_line(lambda: load_generator(tmp_path))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "x.pt")
    assert "no generator of potgan" in one_line(lambda: load_generator(tmp_path / "x.pt"))
    torch.save(torch.zeros(3), tmp_path / "x.pt")
    assert "no generator of potgan" in one_line(lambda: load_generator(tmp_path / "x.pt"))


def test_the_state_of_a_training_is_named(tmp_path) -> None:
    from potgan.training.state import TrainingState

    state = TrainingState(tmp_path / "run" / "train", {"settings": {}, "data": HASHES})
    state.save({"step": {}, "meter": {}, "iteration": 3, "seconds": 1.0}, torch.device("cpu"))
    assert "the state of an unfinished training" in one_line(lambda: load_generator(state.path))


@pytest.mark.parametrize(
    "key",
    ["generator_settings", "masks", "image_size", "training_fingerprint", "iteration", "run", "data", "state"],
)
def test_a_key_that_is_missing_or_of_another_type_is_one_line(written, key: str) -> None:
    content = content_of(written)
    for other in ({k: v for k, v in content.items() if k != key}, content | {key: 1.5}):
        torch.save(other, written)
        assert str(written) in one_line(lambda: load_generator(written))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("run", "{", "'run' is not JSON"),
        ("data", "[]", "'data' is no mapping"),
        ("masks", '{"limb_radius": 4, "sigma": 3}', "unknown key 'sigma'"),
        ("generator_settings", '{"width": "wide"}', "must be of type int"),
        ("image_size", [32], "image_size is [32]"),
        ("image_size", [33, 32], "image_size is [33, 32]"),
        ("image_size", ["32", 32], "image_size is"),
        ("state", {}, "do not fit"),
        ("state", {"decoder.image.bias": 3}, "do not fit"),
        ("scores", "3", "'scores' is no mapping"),
    ],
)
def test_a_value_that_cannot_be_is_one_line(written, key: str, value: object, said: str) -> None:
    torch.save(content_of(written) | {key: value}, written)
    assert said in one_line(lambda: load_generator(written))


def test_scores_may_be_absent(written) -> None:
    content = content_of(written)
    del content["scores"]
    torch.save(content, written)
    assert load_generator(written).scores is None


def test_a_damaged_file_is_one_line_or_still_a_generator(written, tmp_path) -> None:
    """A file that is cut or changed at any place never gives a traceback."""
    whole = written.read_bytes()
    random = np.random.default_rng(20261125)
    refused = 0
    for number in range(120):
        damaged = bytearray(whole)
        if number % 3 == 0:
            damaged = damaged[: random.integers(0, len(whole))]
        else:  # bytes are changed at the start, where the pickle lies, or at the end, where the zip directory lies
            ends = number % 3 == 1
            at = random.integers(0, 4000, 20) if ends else random.integers(len(whole) - 4000, len(whole), 20)
            for place in at:
                damaged[place] = random.integers(0, 256)
        path = tmp_path / "damaged.pt"
        path.write_bytes(damaged)
        try:
            load_generator(path)
        except UserError as error:
            refused += "\n" not in str(error)
    assert refused >= 40  # at least the files that were cut are refused


# -------------------------------------------------------------------------------------------------------------- export


def test_export_embeds_origin_and_scores(results, tmp_path, capsys) -> None:
    run = results / "dots" / "potgan" / "seed3"
    assert main(["export", str(run), "--out", str(tmp_path / "potgan.pt")]) == 0
    assert "iteration 4 of dots/potgan, ssim-deform 0.250 on 109 pairs" in capsys.readouterr().err
    found = load_generator(tmp_path / "potgan.pt")
    assert found.run == {"dataset": "dots", "kind": "market1501", "label": "Dots", "model": "potgan", "seed": 3}
    assert found.scores["n_pairs"] == 109
    assert found.scores["protocol"]["hash"] == "abc"
    assert found.scores["metrics"]["ssim"]["value"] == 0.25
    last = run / "train" / "generator-000004.pt"
    assert found.scores["generator_sha256"] == hashlib.sha256(last.read_bytes()).hexdigest()
    assert found.data_hashes == HASHES
    for name, tensor in content_of(last)["state"].items():
        assert torch.equal(content_of(tmp_path / "potgan.pt")["state"][name], tensor), name


def test_a_model_that_shares_a_training_is_exported_with_its_own_filter_and_scores(results, tmp_path) -> None:
    export(results / "dots" / "no-guided-filter" / "seed3", tmp_path / "g.pt")
    found = load_generator(tmp_path / "g.pt")
    assert not found.generator.filters
    assert found.run["model"] == "no-guided-filter"
    assert found.scores["metrics"]["ssim"]["value"] == 0.125


def test_without_the_resolved_configuration_the_trainings_own_record_holds(copied, tmp_path) -> None:
    (copied.parents[2] / "config.yaml").unlink()
    export(copied, tmp_path / "g.pt")
    assert load_generator(tmp_path / "g.pt").run["kind"] is None


def test_a_runs_folder_opens_as_its_last_generator(results) -> None:
    opened = open_generator(results / "dots" / "potgan" / "seed3")
    assert (opened.iteration, opened.run["kind"]) == (4, "market1501")
    assert not open_generator(results / "dots" / "no-guided-filter" / "seed3").generator.filters


def spoiled(copied: Path, how: str) -> None:
    scores, done = copied / "evaluate" / "scores.json", copied / "train" / "done.json"
    match how:
        case "untrained":
            done.unlink()
        case "unevaluated":
            scores.unlink()
        case "other scores":
            tree = json.loads(scores.read_text())
            tree["hashes"]["generator"] = "f" * 64
            scores.write_text(json.dumps(tree))
        case "other filter":
            path = copied.parents[2] / "config.yaml"
            tree = load(path)
            section = dataclasses.replace(tree.generator, guided_filter=GuidedFilterSettings("test", radius=2))
            path.write_text(dump(dataclasses.replace(tree, generator=section)))
        case "other width":
            path = copied.parents[2] / "config.yaml"
            tree = load(path)
            path.write_text(dump(dataclasses.replace(tree, generator=GeneratorSettings(width=8))))
        case "other generator":
            shutil.copy(copied / "train" / "generator-000002.pt", copied / "train" / "generator-000004.pt")
        case "no generator":
            (copied / "train" / "generator-000004.pt").unlink()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("untrained", "run `potgan train` first"),
        ("unevaluated", "run `potgan generate` and `potgan evaluate` for it"),
        ("other scores", "scores.json: is of another generator"),
        ("other filter", "scores.json: is of other settings"),
        ("other width", "was trained with other settings than potgan's now"),
        ("other generator", "generator-000004.pt: is not the file that done.json names"),
        ("no generator", "generator-000004.pt: is missing"),
    ],
)
def test_export_refuses_what_does_not_belong_together(copied, tmp_path, how: str, said: str, capsys) -> None:
    spoiled(copied, how)
    assert main(["export", str(copied), "--out", str(tmp_path / "g.pt")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "g.pt").exists()


def test_what_is_no_run_is_one_line(copied, tmp_path) -> None:
    assert "is no run" in one_line(lambda: find_run(copied.parent))
    assert "is no run" in one_line(lambda: find_run(tmp_path / "seed3"))
    shutil.copytree(copied, copied.parent.parent / "copy-source" / "seed0")
    assert "is no model's run" in one_line(lambda: find_run(copied.parent.parent / "copy-source" / "seed0"))
    assert "ends in .pt" in one_line(lambda: export(copied, tmp_path / "g.bin"))


def test_the_example_of_the_document_runs_as_it_stands(repository, results, tmp_path, monkeypatch, capsys) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (repository / "docs/use-a-generator.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    export(results / "dots" / "potgan" / "seed3", Path("potgan.pt"))
    exec(example, {})
    assert capsys.readouterr().out == "dots 4 (32, 32)\n"
