"""The archive of pose masks: what it holds, that training draws the same, and the published poses of Market-1501."""

import ast
import json
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from test_workflow import TINY

from potgan import cli
from potgan.common.errors import UserError
from potgan.data.batches import load_pairs
from potgan.data.exports.masks import RECIPES, MaskArchive, write_masks
from potgan.data.images import ImageFolder
from potgan.data.keypoint_files import read_keypoints
from potgan.data.pose import JOINTS, Keypoints
from potgan.data.pose_rendering import limb_mask, metric_mask, pose_mask
from potgan.pipeline import stages
from potgan.settings.layout import Layout
from potgan.settings.reading import load


def table(*poses: np.ndarray) -> Keypoints:
    joints = np.stack(poses).astype(np.float32)
    present = ~np.isnan(joints[..., 0])
    return Keypoints([f"{i}.jpg" for i in range(len(joints))], joints, present.astype(np.float32))


def standing(height: int, width: int) -> np.ndarray:
    """Joints that lie everywhere in the middle half of an image."""
    at = np.random.default_rng(7).random((len(JOINTS), 2)) / 2 + 0.25
    return (at * (width, height)).round()


NOBODY = np.full((len(JOINTS), 2), np.nan)


def test_the_masks_come_out_as_the_document_of_the_module_says(tmp_path) -> None:
    """Without this project's code: 30 x 13 pixels do not fill whole bytes."""
    pose = standing(30, 13)
    record = write_masks(table(NOBODY, pose), (30, 13), 2, tmp_path / "masks")
    with np.load(tmp_path / "masks" / "masks.npz") as content:
        assert content["names"].tolist() == ["1.jpg"]
        assert content["size"].tolist() == [30, 13]
        found = {recipe: np.unpackbits(content[recipe][0], count=30 * 13).reshape(30, 13) for recipe in RECIPES}
    assert np.array_equal(found["potgan"], pose_mask(pose.astype(np.float32), 30, 13, 2))
    assert np.array_equal(found["pg2"], limb_mask(pose.astype(np.float32), 30, 13, 2))
    assert np.array_equal(found["deformable"], metric_mask(pose.astype(np.float32), 30, 13))
    assert (record["images"], record["images_without_pose"]) == (1, 1)
    for recipe, mask in found.items():
        assert record["mean_area"][recipe] == pytest.approx(mask.mean(), abs=5e-5)
    archive = MaskArchive(tmp_path / "masks" / "masks.npz")
    assert archive.size == (30, 13)
    assert np.array_equal(archive.of("1.jpg", "pg2"), found["pg2"])


def test_the_same_poses_give_the_same_bytes(tmp_path) -> None:
    for name in "ab":
        write_masks(table(standing(32, 16)), (32, 16), 2, tmp_path / name)
    assert (tmp_path / "a" / "masks.npz").read_bytes() == (tmp_path / "b" / "masks.npz").read_bytes()


def test_what_cannot_be_drawn_or_read_is_one_line(tmp_path) -> None:
    with pytest.raises(UserError, match="no image of the table has a pose"):
        write_masks(table(NOBODY), (32, 16), 2, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match="missing; run `potgan masks` first"):
        MaskArchive(tmp_path / "none" / "masks.npz")
    write_masks(table(standing(32, 16), NOBODY), (32, 16), 2, tmp_path / "some")
    whole = (tmp_path / "some" / "masks.npz").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        (tmp_path / "damaged.npz").write_bytes(content)
        with pytest.raises(UserError, match="is no archive of masks, or is damaged"):
            MaskArchive(tmp_path / "damaged.npz")
    archive = MaskArchive(tmp_path / "some" / "masks.npz")
    with pytest.raises(UserError, match=r"has no mask of 1\.jpg"):
        archive.of("1.jpg")
    with pytest.raises(UserError, match="has no recipe 'vunet'; it has potgan, pg2, deformable"):
        archive.of("0.jpg", "vunet")


def test_the_archive_holds_the_masks_that_training_draws(tmp_path) -> None:
    """Also where images are resized for the models, and their joints with them."""
    benchmark, layout = load(TINY), Layout("tiny", tmp_path)
    for stage in (stages.images, stages.keypoints, stages.masks, stages.pairs):
        stage(benchmark, layout, "synthetic")
    images, pairs = layout.images("synthetic"), pd.read_csv(layout.pairs("synthetic") / "pairs-train.csv")
    keypoints, settings = read_keypoints(layout.keypoints("synthetic") / "keypoints.csv"), load(TINY).masks
    write_masks(keypoints, (96, 64), settings.limb_radius, tmp_path / "larger", ImageFolder(images).size)
    for size, folder in (((64, 32), layout.masks("synthetic")), ((96, 64), tmp_path / "larger")):
        archive = MaskArchive(folder / "masks.npz")
        data = load_pairs(images, keypoints, pairs, size, settings)
        assert len(data.names) > 4
        for name, drawn in zip(data.names, data.masks.numpy(), strict=True):
            assert np.array_equal(255 * archive.of(name), drawn[0])
    preview = cv2.imread(str(layout.masks("synthetic") / "preview.png"))
    assert preview.shape[0] > 6 * 64


def test_all_published_poses_of_market1501(shared, tmp_path, capsys) -> None:
    """The published table by itself; which rows have a joint is read from it without this project's code."""
    published = shared / "published" / "market-annotation-test.csv"
    rows = pd.read_csv(published, sep=":")
    seen = rows["keypoints_y"].map(lambda text: any(value != -1 for value in ast.literal_eval(text)))
    out = tmp_path / "masks"
    command = ["masks", "--keypoints", str(published), "--size", "128", "64", "--out", str(out)]
    assert cli.main(command) == 0
    record = json.loads((out / "masks.json").read_text())
    assert (record["images"], record["images_without_pose"]) == (seen.sum(), (~seen).sum())
    archive = MaskArchive(out / "masks.npz")
    assert archive.names == rows["name"][seen].tolist()
    assert cli.main(command) == 0  # its own folder is made anew
    (out / "mine.txt").write_text("mine")
    assert cli.main(command) == 2
    assert "holds mine.txt, which drawing masks did not write" in capsys.readouterr().err
    for size in (("256", "256"), ("64", "32")):  # images of other sizes than those of the table
        assert cli.main([*command[:4], *size, "--out", str(tmp_path / "other")]) == 2
        assert str(published) in capsys.readouterr().err
        assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "masks: name --dataset (of the configuration), or --keypoints (a table), --size and --out"),
        (["--keypoints", "t.csv", "--size", "8", "4"], "masks: --out is missing; name it beside --keypoints"),
        (["--keypoints", "t.csv", "--out", "o"], "masks: --size is missing; name it beside --keypoints"),
        (["--keypoints", "t.csv", "--out", "o", "--size", "0", "4"], "--size and --limb-radius must be at least 1"),
    ],
)
def test_the_verb_says_what_is_missing(words: list[str], line: str, capsys) -> None:
    assert cli.main(["masks", *words]) == 2
    assert line in capsys.readouterr().err
    assert not Path("o").exists()
