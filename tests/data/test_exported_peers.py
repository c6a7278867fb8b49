"""Data sets in the form of other projects, read by the loaders of those projects where a checkout is named.

PATN_CHECKOUT names a copy of github.com/tengteng95/Pose-Transfer, GFLA_CHECKOUT one of
github.com/RenYurui/Global-Flow-Local-Attention, POSE_GAN_CHECKOUT one of github.com/AliaksandrSiarohin/pose-gan, and ADGAN_CHECKOUT
one of github.com/menyifang/ADGAN. PG2_CHECKOUT names a copy of github.com/charliememory/Pose-Guided-Person-Image-Generation, and
PG2_PYTHON a Python that has TensorFlow and tf_slim (`pip install tensorflow-cpu==2.12.1 tf_slim==1.1.0 'setuptools<80'`).
"""

import importlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skimage.draw
import torch
import torchvision.transforms.functional
from PIL import Image
from tensorboard.compat.tensorflow_stub.errors import OutOfRangeError
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New
from test_workflow import TINY

from potgan import cli
from potgan.cli.data import prepare as prepare_verb
from potgan.common.errors import UserError
from potgan.data.batches import PairData, load_pairs
from potgan.data.exports import records
from potgan.data.exports.peers import PEERS, prepare
from potgan.data.keypoint_files import read_keypoints
from potgan.data.pixels import decode_image
from potgan.data.pose_rendering import heatmaps, limb_mask
from potgan.data.synthetic.imitations import write_archive
from potgan.methods.disc_maps import disc_maps
from potgan.pipeline import stages
from potgan.settings.layout import Layout
from potgan.settings.reading import load
from potgan.settings.schema import SyntheticSettings

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


@pytest.mark.parametrize(
    ("peer", "size"),
    [(peer, size) for peer in ("patn", "gfla") for size in (SIZE, (96, 64))] + [("pose-gan", (128, 64))],
)
def test_the_files_hold_what_a_training_here_is_given(people, tmp_path, peer, size) -> None:
    """Read by Pillow, NumPy and pandas, as the loaders do. In the second case images are resized."""
    record = prepare(peer, "market1501", size, SIGMA, *inputs(people), tmp_path / "out")
    for split in ("train", "test"):
        data, root = ours(people, split, size), tmp_path / "out"
        pairs = pd.read_csv(root / f"market-pairs-{split}.csv")
        assert record["pairs"][split] == len(pairs) == len(data)
        table = pd.read_csv(root / f"market-annotation-{split}.csv", sep=":").set_index("name")
        images = root / PEERS[peer].images.format(set="market", split=split)
        assert sorted(path.name for path in images.iterdir()) == data.names == table.index.tolist()
        assert (root / f"{split}K").exists() == PEERS[peer].heat_maps
        for i in range(0, len(data), 7):
            batch = data.batch(np.array([i]), CPU)
            for side, name in (("source", pairs["from"][i]), ("target", pairs["to"][i])):
                picture = np.asarray(Image.open(images / name).convert("RGB"))
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
    published = tmp_path / "data" / "Market_train_data" / "Market1501_train_00000-of-00001.tfrecord"
    published.parent.mkdir(parents=True)
    published.write_bytes(b"of PG2's authors")
    assert cli.main([*command[:-1], str(tmp_path / "data")]) == 2
    assert "holds Market_train_data, which preparing did not write" in capsys.readouterr().err
    assert published.exists()
    choices = next(option for option in prepare_verb.options if "--for" in option.flags).settings["choices"]
    assert set(choices) == set(PEERS)


def test_what_is_missing_is_one_line_and_nothing_is_written(people, tmp_path) -> None:
    images, keypoints, pairs = inputs(people)
    with pytest.raises(UserError, match="no project 'pise'; there are patn, gfla, pose-gan, adgan"):
        prepare("pise", "market1501", SIZE, SIGMA, images, keypoints, pairs, tmp_path / "out")
    less = keypoints.rows(range(1, len(keypoints)))
    wanted = pairs | {"test": pd.DataFrame({"from": [keypoints.names[0]], "to": [keypoints.names[1]]})}
    with pytest.raises(UserError, match=f"{keypoints.names[0]}: is in a pair and has no image or no key points"):
        prepare("patn", "market1501", SIZE, SIGMA, images, less, wanted, tmp_path / "out")
    with pytest.raises(
        UserError, match="Deformable GAN takes images of 128 x 64 here, and those of this data set are 64 x 32"
    ):
        prepare("pose-gan", "market1501", SIZE, SIGMA, images, keypoints, pairs, tmp_path / "out")
    with pytest.raises(UserError, match="ADGAN reads deepfashion only, and not market1501"):
        prepare("adgan", "market1501", SIZE, SIGMA, images, keypoints, pairs, tmp_path / "out")
    with pytest.raises(UserError, match="ADGAN reads a class for each pixel, and the data set has no parsing"):
        prepare("adgan", "deepfashion", (256, 176), SIGMA, images, keypoints, pairs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- DeepFashion, with a parsing ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fashion(tmp_path_factory) -> tuple[Layout, Path]:
    """Images of synthetic people under DeepFashion's names, cropped as PATN crops them, with random labels of 8 classes."""
    folder = tmp_path_factory.mktemp("fashion")
    write_archive("deepfashion", folder / "made", SyntheticSettings(4, 3, 4), 0)
    (folder / "labels").mkdir()
    draw = np.random.default_rng(0)
    for path in (folder / "made").glob("*.lst"):
        for name in path.read_text().split():
            labels = np.kron(draw.integers(0, 8, (16, 16)), np.ones((16, 16))).astype(np.uint8)
            Image.fromarray(labels).save(folder / "labels" / f"{name.removesuffix('.jpg')}.png")
    made = {split: str(folder / "made" / f"fasion-annotation-{split}.csv") for split in ("train", "test")}
    entry = {
        "kind": "deepfashion", "label": "D", "image_size": [256, 176], "crop_columns": [40, 216], "allow_partial": True,
        "source": str(folder / "made" / "Img" / "img.zip"), "parsing": str(folder / "labels"), "parsing_classes": "adgan",
        "splits": {split: str(folder / "made" / f"{split}.lst") for split in ("train", "test")}, "keypoints": made,
        "pairs": {split: str(folder / "made" / f"fasion-pairs-{split}.csv") for split in ("train", "test")},
    }  # fmt: skip
    benchmark, layout = load(TINY | {"datasets": {"d": entry}}), Layout("tiny", folder)
    for stage in (stages.images, stages.keypoints, stages.pairs, stages.parsing):
        stage(benchmark, layout, "d")
    stages.prepare(benchmark, layout, "d", "adgan", folder / "out")
    return layout, folder / "out"


def fashion_data(layout: Layout) -> PairData:
    pairs = pd.read_csv(layout.pairs("d") / "pairs-test.csv")
    keypoints = read_keypoints(layout.keypoints("d") / "keypoints.csv")
    masks = load(TINY).masks
    return load_pairs(layout.images("d"), keypoints, pairs, (256, 176), masks, parsing_folder=layout.parsing("d"))


def test_labels_lie_where_adgans_loader_makes_of_a_name(fashion) -> None:
    layout, out = fashion
    data = fashion_data(layout)
    assert (out / "fashion-resize-pairs-test.csv").read_text() == (layout.pairs("d") / "pairs-test.csv").read_text()
    for i, name in enumerate(data.names):
        gender = "WOMEN" if name.startswith("fashionWOMEN") else "MEN"
        category, item, pose, view = re.fullmatch(r"(.+)id(\d{8})(\d\d_\d)(.+)\.jpg", name[7 + len(gender) :]).groups()
        path = out / "semantic_merge3" / gender / category / f"id_{item}" / f"{pose}_{view}.npy"
        assert np.array_equal(np.load(path), data.parsing[i].numpy())


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
        if name.partition(".")[0] in (
            "data",
            "util",
            "models",
            "options",
            "pose_dataset",
            "pose_utils",
            "pose_transform",
        ):
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


@pytest.mark.parametrize("checkout", ["ADGAN_CHECKOUT"], indirect=True)
def test_adgans_own_data_set_gives_what_a_training_here_is_given(checkout, fashion) -> None:
    layout, out = fashion
    data_set = importlib.import_module("data.keypoint").KeyDataset()
    options = {"dataroot": str(out), "dirSem": str(out), "SP_input_nc": 8, "phase": "test", "resize_or_crop": "no"}
    pairs = str(out / "fashion-resize-pairs-test.csv")
    data_set.initialize(types.SimpleNamespace(**options, use_flip=0, pairLst=pairs))
    data = fashion_data(layout)
    assert len(data_set) == len(data) > 0
    for i in range(min(20, len(data))):
        theirs, batch = data_set[i], data.batch(np.array([i]), CPU)
        parts = {"P1": "source_image", "P2": "target_image", "BP1": "source_heatmaps", "BP2": "target_heatmaps"}
        for key, part in parts.items():
            assert (theirs[key] - getattr(batch, part)[0]).abs().max() < 1e-6
        assert np.array_equal(theirs["SP1"], batch.source_parsing[0].numpy())


@pytest.mark.parametrize("checkout", ["POSE_GAN_CHECKOUT"], indirect=True)
def test_deformable_gans_own_data_set_gives_what_a_training_here_is_given(
    checkout, people, tmp_path, monkeypatch
) -> None:
    """Its code is of Python 2, and is translated. Its base class is in a submodule, and has a stand-in. Joints are truncated."""
    size = (128, 64)
    pytest.importorskip("lib2to3", reason="this Python has no lib2to3, which translates Deformable GAN's code")
    names = ("pose_dataset.py", "pose_utils.py")
    translate = [sys.executable, "-W", "ignore", "-m", "lib2to3", "-w", "-n", "-o", str(tmp_path / "code")]
    subprocess.run([*translate, *(f"{checkout}/{name}" for name in names)], check=True, capture_output=True)
    monkeypatch.syspath_prepend(tmp_path / "code")
    prepare("pose-gan", "market1501", size, SIGMA, *inputs(people), tmp_path / "out")
    monkeypatch.setitem(sys.modules, "pose_transform", types.ModuleType("pose_transform"))  # of Keras, for stick men
    monkeypatch.setitem(sys.modules, "gan", types.ModuleType("gan"))
    base = types.ModuleType("gan.dataset")
    base.UGANDataset = type("UGANDataset", (), {"__init__": lambda self, *_: None})
    monkeypatch.setitem(sys.modules, "gan.dataset", base)
    monkeypatch.setattr(np, "float", float, raising=False)
    root = tmp_path / "out"
    words = {
        f"{what}_{split}": str(root / place.format(split=split))
        for split in ("train", "test")
        for what, place in {
            "images_dir": "market-dataset/{split}",
            "bg_images_dir": "none",
            "pairs_file": "market-pairs-{split}.csv",
            "annotations_file": "market-annotation-{split}.csv",
        }.items()
    }
    words |= {"tmp_pose_dir": f"{tmp_path / 'poses'}/", "cache_pose_rep": 0, "pose_rep_type": "hm", "use_bg": 0}
    words |= {"batch_size": 1, "image_size": size, "use_input_pose": 1, "warp_skip": "none", "disc_type": "call"}
    data_set = importlib.import_module("pose_dataset").PoseHMDataset(test_phase=True, **words)
    data = ours(people, "test", size)
    for i in range(min(100, len(data))):
        pair, batch = data_set._pairs_file_test[i : i + 1], data.batch(np.array([i]), CPU)
        for direction, side in (("from", "source"), ("to", "target")):
            picture = data_set.load_image_batch(pair, direction)[0]
            wanted = getattr(batch, f"{side}_image")[0].permute(1, 2, 0).numpy()
            assert np.abs(picture - wanted).max() < 1e-6
            maps = heatmaps(getattr(batch, f"{side}_joints").trunc(), *size, sigma=6)[0].permute(1, 2, 0).numpy()
            assert np.abs(data_set.compute_pose_map_batch(pair, direction)[0] - maps).max() < 1e-6


def test_the_decoder_of_the_loaders_and_ours_give_the_same_pixels_of_real_files(shared) -> None:
    """Files that have the wanted size are copied, so that Pillow decodes what OpenCV decodes here."""
    with zipfile.ZipFile(shared / "market1501-sample" / "Market-1501-sample.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
        assert len(names) == 386
        for name in names:
            content = archive.read(name)
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), decode_image(content))


# ---------------------------------------------------------------------------------------------------------------------
# PG2's records


def records_of(path: Path) -> list[dict[str, np.ndarray | bytes]]:
    """The examples of a file. TensorBoard's reader checks every checksum."""
    reader = PyRecordReader_New(str(path))
    found = []
    while True:
        try:
            reader.GetNext()
        except OutOfRangeError:
            return found
        found.append(features_of(reader.record()))


def features_of(message: bytes) -> dict[str, np.ndarray | bytes]:
    """The features of a `tf.train.Example`, decoded by hand as protobuf's encoding says (protobuf.dev, "Encoding")."""
    found = {}
    for _, features in fields(message):
        for _, entry in fields(features):
            (_, name), (_, feature) = fields(entry)
            ((kind, values),) = fields(feature)
            if kind == 1:  # bytes_list
                ((_, found[name.decode()]),) = fields(values)
            else:
                ((_, packed),) = fields(values)
                found[name.decode()] = np.frombuffer(packed, "<f4") if kind == 2 else np.array(varints(packed))
    return found


def fields(message: bytes):
    """(number, content) of the length-delimited fields of a message."""
    at = 0
    while at < len(message):
        key, at = varint(message, at)
        assert key & 7 == 2
        length, at = varint(message, at)
        yield key >> 3, message[at : at + length]
        at += length


def varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def varints(packed: bytes) -> list[int]:
    at, found = 0, []
    while at < len(packed):
        value, at = varint(packed, at)
        found.append(value)
    return found


def as_pg2_sees_it(data: PairData, i: int) -> dict[str, np.ndarray]:
    """What our own PG2 is given of a pair: images in [-1, 1], discs in [-1, 1], masks."""
    batch, height, width = data.batch(np.array([i]), CPU), *data.size
    found = {}
    for number, side in enumerate(("source", "target")):
        joints = getattr(batch, f"{side}_joints")
        found[f"image_{number}"] = getattr(batch, f"{side}_image")[0].permute(1, 2, 0).numpy()
        found[f"pose_{number}"] = disc_maps(joints, height, width)[0].permute(1, 2, 0).numpy()
        found[f"mask_{number}"] = limb_mask(joints[0].numpy(), height, width, 4)[..., None]
    return found


@pytest.mark.parametrize(("kind", "size"), [("market1501", (128, 64)), ("deepfashion", (256, 256))])
def test_records_hold_what_our_pg2_is_given(people, tmp_path, kind, size) -> None:
    prepare("pg2", kind, size, SIGMA, *inputs(people), tmp_path / "out")
    name, file_name = ("DF", "DeepFashion") if kind == "deepfashion" else ("Market", "Market1501")
    for split in ("train", "test"):
        folder = tmp_path / "out" / f"{name}_{split}_data"
        found = records_of(folder / f"{file_name}_{split}_00000-of-00001.tfrecord")
        data = ours(people, split, size)
        pairs = inputs(people)[2][split]
        assert len(found) == len(data) == len(pairs)
        assert (folder / f"pn_pairs_num_{split}.p").read_bytes() == b"I%d\n." % len(pairs)  # as Python 2 reads it
        places = [(r["image_name_0"].decode(), r["image_name_1"].decode()) for r in found]
        listed = list(pairs[["from", "to"]].itertuples(index=False, name=None))
        assert sorted(places) == sorted(listed)
        assert (places == listed) == (split == "test")  # the authors' trainer takes training pairs as they come
        for i in range(0, len(data), 5):
            record, wanted = found[places.index(listed[i])], as_pg2_sees_it(data, i)
            assert record["label"] == 1
            assert record["id_0"] == record["id_1"]
            for side in (0, 1):
                picture = decode_image(record[f"image_raw_{side}"])
                assert np.abs(picture / 127.5 - 1 - wanted[f"image_{side}"]).max() < 1e-6
                dense = np.zeros(record["shape"][0])
                dense[record[f"indices_r4_{side}"]] = record[f"values_r4_{side}"]
                assert np.array_equal(dense.reshape(*size, 18) * 2 - 1, wanted[f"pose_{side}"])
                assert np.array_equal(record[f"pose_mask_r4_{side}"].reshape(*size, 1), wanted[f"mask_{side}"])
                joints = data.joints[data.names.index(pairs[("from", "to")[side]][i])].numpy()
                peaks = record[f"pose_peaks_{side}"].reshape(16, size[1] * 16 // size[0], 18)
                cell = size[0] // 16
                for k, (x, y) in enumerate(joints):
                    assert peaks[:, :, k].sum() == (not np.isnan(x))
                    assert np.isnan(x) or peaks[int(y) // cell, int(x) // cell, k] == 1
                subset = record[f"pose_subs_{side}"]
                assert (subset[:18] >= 0).tolist() == (~np.isnan(joints[:, 0])).tolist()
                assert len(subset) == 20
                assert subset[19] == np.isfinite(joints[:, 0]).sum()


def test_the_pairs_of_a_person_lie_apart_in_the_training_records(people, tmp_path) -> None:
    """PG2's loader mixes no more than 32 pairs. In the order of the list, 16 pairs in a row are of one or two people."""
    prepare("pg2", "market1501", (128, 64), SIGMA, *inputs(people), tmp_path / "out")
    found = records_of(tmp_path / "out" / "Market_train_data" / "Market1501_train_00000-of-00001.tfrecord")
    identities = [int(record["id_0"][0]) for record in found]
    everybody = len(set(identities))
    assert everybody == 4
    for start in range(0, len(identities) - 16, 16):
        assert len(set(identities[start : start + 16])) >= 3


@pytest.mark.parametrize("place", [(64.7, 20), (64.2, 20), (30, 131), (-6, 20), (30, -20)])
def test_a_joint_beyond_an_edge_is_in_no_cell(place) -> None:
    joints = np.full((18, 2), np.nan, np.float32)
    joints[0], joints[1] = (10, 10), place
    pose = records._pose(joints, (128, 64))
    assert pose["pose_peaks"].sum() == 1
    assert pose["pose_peaks"][1, 1, 0] == 1
    dense = np.zeros(128 * 64 * 18)
    dense[pose["indices_r4"]] = 1
    wanted = disc_maps(torch.from_numpy(joints)[None], 128, 64)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(dense.reshape(128, 64, 18) * 2 - 1, wanted)


_PG2_LOADER = """
import builtins, io, sys, types
import numpy as np
import tensorflow.compat.v1 as tf
import tensorflow, tf_slim
tf.disable_eager_execution()
tf.contrib = types.SimpleNamespace(slim=tf_slim)
sys.modules["tensorflow"] = tf
checkout, module, split, folder, data_name, out = sys.argv[1:]
sys.path.insert(0, checkout)
import importlib
read = importlib.import_module("datasets." + module)
# Python 2 reads a pickle from a file that is opened as text.
read.open = lambda path, mode: builtins.open(path, "rb")
data = read.get_split(split, folder, data_name=data_name)
serialized = tf.placeholder(tf.string)
items = ["image_raw_0", "image_raw_1", "pose_sparse_r4_0", "pose_sparse_r4_1", "pose_mask_r4_0", "pose_mask_r4_1", "label"]
decoded = dict(zip(items, data.decoder.decode(serialized, items)))
for side in "01":  # as trainer.py makes them dense
    decoded["pose_sparse_r4_" + side] = tf.sparse_tensor_to_dense(decoded["pose_sparse_r4_" + side], 0, validate_indices=False)
found = {item: [] for item in items}
with tf.Session() as session:
    for record in tf.io.tf_record_iterator(tf.gfile.Glob(data.data_sources)[0]):
        for item, value in session.run(decoded, {serialized: record}).items():
            found[item].append(value)
np.savez(out, count=data.num_samples, **{item: np.stack(values) for item, values in found.items()})
"""


@pytest.mark.parametrize("kind", ["market1501", "deepfashion"])
@pytest.mark.parametrize("checkout", ["PG2_CHECKOUT"], indirect=True)
def test_pg2s_own_decoder_gives_what_our_pg2_is_given(checkout, people, tmp_path, kind) -> None:
    """The authors' get_split and decoder, in TensorFlow's form of version 1. Its queues of batches are left out."""
    python = os.environ.get("PG2_PYTHON")
    if not python:
        pytest.skip("PG2_PYTHON names no Python with TensorFlow and tf_slim")
    size = (256, 256) if kind == "deepfashion" else (128, 64)
    prepare("pg2", kind, size, SIGMA, *inputs(people), tmp_path / "out")
    folder = tmp_path / "out" / ("DF_test_data" if kind == "deepfashion" else "Market_test_data")
    (tmp_path / "loader.py").write_text(_PG2_LOADER)
    name = "DeepFashion" if kind == "deepfashion" else "Market1501"
    command = [python, tmp_path / "loader.py", checkout, name.lower(), "test", folder, name, tmp_path / "found.npz"]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]}
    )
    assert done.returncode == 0, done.stderr
    found, data = np.load(tmp_path / "found.npz"), ours(people, "test", size)
    assert found["count"] == len(found["label"]) == len(data) > 0
    for i in range(len(data)):
        wanted = as_pg2_sees_it(data, i)
        for side in (0, 1):
            # process_image of its utils_wgan.py: the decoded file, minus 127.5, by 127.5. JPEG decoders differ by rounding.
            image = found[f"image_raw_{side}"][i] / 127.5 - 1
            assert np.abs(image - wanted[f"image_{side}"]).max() <= 3 / 127.5
            assert np.array_equal(found[f"pose_sparse_r4_{side}"][i].reshape(*size, 18) * 2 - 1, wanted[f"pose_{side}"])
            assert np.array_equal(found[f"pose_mask_r4_{side}"][i].reshape(*size, 1), wanted[f"mask_{side}"])
