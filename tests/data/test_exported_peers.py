"""Data sets in the form of other projects, read by the loaders of those projects where a checkout is named.

PATN_CHECKOUT names a copy of github.com/tengteng95/Pose-Transfer, and GFLA_CHECKOUT one of
github.com/RenYurui/Global-Flow-Local-Attention.
"""

import importlib
import inspect
import io
import json
import os
import sys
import types
import zipfile

import numpy as np
import pandas as pd
import pytest
import skimage.draw
import torch
import torchvision.transforms.functional
from PIL import Image
from test_workflow import TINY

from potgan import cli
from potgan.cli.data import prepare as prepare_verb
from potgan.common.errors import UserError
from potgan.data.batches import PairData, load_pairs
from potgan.data.exports.peers import PEERS, prepare
from potgan.data.keypoint_files import read_keypoints
from potgan.data.pixels import decode_image
from potgan.data.pose_rendering import heatmaps
from potgan.pipeline import stages
from potgan.settings.layout import Layout
from potgan.settings.reading import load

CPU = torch.device("cpu")
SIZE, SIGMA = (64, 32), load(TINY).masks.heatmap_sigma


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Layout:
    """The images, key points and pairs of the tiny benchmark."""
    folder = tmp_path_factory.mktemp("people")
    benchmark, layout = load(TINY), Layout("tiny", folder)
    for stage in (stages.configure, stages.images, stages.keypoints, stages.pairs):
        stage(benchmark, layout, *(["synthetic"] if stage is not stages.configure else []))
    return layout


def inputs(layout: Layout) -> tuple:
    pairs = {split: pd.read_csv(layout.pairs("synthetic") / f"pairs-{split}.csv") for split in ("train", "test")}
    keypoints = read_keypoints(layout.keypoints("synthetic") / "keypoints.csv")
    return layout.images("synthetic"), keypoints, pairs


def ours(layout: Layout, split: str, size: tuple[int, int]) -> PairData:
    images, keypoints, pairs = inputs(layout)
    return load_pairs(images, keypoints, pairs[split], size, load(TINY).masks)


@pytest.mark.parametrize("size", [SIZE, (96, 64)])
@pytest.mark.parametrize("peer", PEERS)
def test_the_files_hold_what_a_training_here_is_given(people, tmp_path, peer, size) -> None:
    """Read by Pillow, NumPy and pandas, as the loaders do. In the second case images are resized."""
    record = prepare(peer, "market1501", size, SIGMA, *inputs(people), tmp_path / "out")
    for split in ("train", "test"):
        data, root = ours(people, split, size), tmp_path / "out"
        pairs = pd.read_csv(root / f"market-pairs-{split}.csv")
        assert record["pairs"][split] == len(pairs) == len(data)
        table = pd.read_csv(root / f"market-annotation-{split}.csv", sep=":").set_index("name")
        assert sorted(path.name for path in (root / split).iterdir()) == data.names == table.index.tolist()
        assert (root / f"{split}K").exists() == PEERS[peer].heat_maps
        for i in range(0, len(data), 7):
            batch = data.batch(np.array([i]), CPU)
            for side, name in (("source", pairs["from"][i]), ("target", pairs["to"][i])):
                picture = np.asarray(Image.open(root / split / name).convert("RGB"))
                wanted = getattr(batch, f"{side}_image")[0].permute(1, 2, 0).numpy()
                assert np.abs(picture / 127.5 - 1 - wanted).max() < 1e-6
                joints = data.joints[data.names.index(name)].numpy()
                for axis, column in ((0, "keypoints_x"), (1, "keypoints_y")):
                    found = np.array(json.loads(table.loc[name, column]))
                    assert np.array_equal(found == -1, np.isnan(joints[:, axis]))
                    assert np.nanmax(np.abs(np.where(found == -1, np.nan, found) - joints[:, axis])) < 1
                if PEERS[peer].heat_maps:
                    maps = np.load(root / f"{split}K" / f"{name}.npy")
                    assert maps.dtype == np.float32
                    assert np.abs(maps - getattr(batch, f"{side}_heatmaps")[0].permute(1, 2, 0).numpy()).max() < 1e-6


def test_files_for_deepfashion_have_its_names(people, tmp_path) -> None:
    for peer, prefix in (("patn", "fasion-resize"), ("gfla", "fasion")):
        prepare(peer, "deepfashion", SIZE, SIGMA, *inputs(people), tmp_path / peer)
        found = {path.name for path in (tmp_path / peer).iterdir() if path.is_file()}
        lists = {f"{prefix}-{what}-{split}.csv" for what in ("annotation", "pairs") for split in ("train", "test")}
        assert found == lists | {"train.lst", "test.lst", "prepare.json"}
        names = (tmp_path / peer / "test.lst").read_text().split()
        assert names == sorted(path.name for path in (tmp_path / peer / "test").iterdir())


def test_the_verb_writes_them_and_removes_nothing_of_the_user(people, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    command = ["prepare", "--config", str(people.configuration), "--root", str(people.root), "--dataset", "synthetic"]
    command += ["--for", "gfla", "--out", str(out)]
    assert cli.main(command) == 0
    assert "synthetic for GFLA" in capsys.readouterr().err
    assert cli.main(command) == 0
    (out / "checkpoints").mkdir()
    assert cli.main(command) == 2
    assert "holds checkpoints, which preparing did not write" in capsys.readouterr().err
    choices = next(option for option in prepare_verb.options if "--for" in option.flags).settings["choices"]
    assert set(choices) == set(PEERS)


def test_what_is_missing_is_one_line_and_nothing_is_written(people, tmp_path) -> None:
    images, keypoints, pairs = inputs(people)
    with pytest.raises(UserError, match="no project 'pise'; there are patn, gfla"):
        prepare("pise", "market1501", SIZE, SIGMA, images, keypoints, pairs, tmp_path / "out")
    less = keypoints.rows(range(1, len(keypoints)))
    wanted = pairs | {"test": pd.DataFrame({"from": [keypoints.names[0]], "to": [keypoints.names[1]]})}
    with pytest.raises(UserError, match=f"{keypoints.names[0]}: is in a pair and has no image or no key points"):
        prepare("patn", "market1501", SIZE, SIGMA, images, less, wanted, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- the loaders of the projects themselves -------------------------------------------------------------------------------


@pytest.fixture
def checkout(monkeypatch, request) -> str:
    """The folder that an environment variable names, before all other places of modules, whose names are common ones."""
    folder = os.environ.get(request.param)
    if not folder:
        pytest.skip(f"{request.param} names no checkout")
    before = set(sys.modules)
    monkeypatch.syspath_prepend(folder)
    # What newer versions of scikit-image and torchvision no longer have, and these loaders do not use on whole images.
    monkeypatch.setattr(skimage.draw, "circle", skimage.draw.disk, raising=False)
    affine = torchvision.transforms.functional.affine

    def with_old_names(image, *words, fillcolor=None, **named):
        named["translate"] = list(named["translate"])
        return affine(image, *words, fill=fillcolor, **named)

    if "fillcolor" not in inspect.signature(affine).parameters:
        monkeypatch.setattr(torchvision.transforms.functional, "affine", with_old_names)
    yield folder
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("data", "util", "models", "options"):
            del sys.modules[name]


@pytest.mark.parametrize("checkout", ["PATN_CHECKOUT"], indirect=True)
def test_patns_own_data_set_gives_what_a_training_here_is_given(checkout, people, tmp_path) -> None:
    prepare("patn", "market1501", SIZE, SIGMA, *inputs(people), tmp_path / "out")
    data_set = importlib.import_module("data.keypoint").KeyDataset()
    options = {"dataroot": str(tmp_path / "out"), "phase": "test", "resize_or_crop": "no", "use_flip": 0}
    data_set.initialize(types.SimpleNamespace(**options, pairLst=str(tmp_path / "out" / "market-pairs-test.csv")))
    data = ours(people, "test", SIZE)
    assert len(data_set) == len(data)
    for i in range(min(100, len(data))):
        theirs, batch = data_set[i], data.batch(np.array([i]), CPU)
        for key, part in {
            "P1": "source_image",
            "P2": "target_image",
            "BP1": "source_heatmaps",
            "BP2": "target_heatmaps",
        }.items():
            assert (theirs[key] - getattr(batch, part)[0]).abs().max() < 1e-6


@pytest.mark.parametrize("checkout", ["GFLA_CHECKOUT"], indirect=True)
def test_gflas_own_data_set_gives_what_a_training_here_is_given(checkout, people, tmp_path, monkeypatch) -> None:
    """GFLA truncates joints to whole pixels, and its sigma is 6, so its heat maps are those of such joints."""
    prepare("gfla", "market1501", SIZE, SIGMA, *inputs(people), tmp_path / "out")
    data_set = importlib.import_module("data.market_dataset").MarketDataset()
    # NumPy no longer makes a number of a matrix of one by one.
    monkeypatch.setattr(
        sys.modules["util.pose_utils"], "int", lambda value: int(np.asarray(value).item()), raising=False
    )
    options = {"dataroot": str(tmp_path / "out"), "phase": "test", "load_size": SIZE, "old_size": SIZE}
    data_set.initialize(types.SimpleNamespace(**options, angle=False, shift=False, scale=False))
    data = ours(people, "test", SIZE)
    assert len(data_set) == len(data)
    for i in range(min(100, len(data))):
        theirs, batch = data_set[i], data.batch(np.array([i]), CPU)
        for key, side in (("1", "source"), ("2", "target")):
            assert (theirs[f"P{key}"] - getattr(batch, f"{side}_image")[0]).abs().max() < 1e-6
            maps = heatmaps(getattr(batch, f"{side}_joints").trunc(), *SIZE, sigma=6)[0]
            assert (theirs[f"BP{key}"] - maps).abs().max() < 1e-6


def test_the_decoder_of_the_loaders_and_ours_give_the_same_pixels_of_real_files(shared) -> None:
    """Files that have the wanted size are copied, so that Pillow decodes what OpenCV decodes here."""
    with zipfile.ZipFile(shared / "market1501-sample" / "Market-1501-sample.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        assert len(names) == 386
        for name in names:
            content = archive.read(name)
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), decode_image(content))
