"""Tests of released result folders with a pair list: names, panels, formats, and the mistakes that a person can make.

`test_released_names.py` tests folders without a list and numbered files, `test_released_layouts.py` panels and sizes.

The strips are made here. Every pixel of a panel tells which panel of which pair it is. Real strips are read if they lie beside the
repository.
"""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
from made_records import images_record

from potgan.common.errors import UserError
from potgan.measure.released import ResultFolder, TargetFolder, read_results

#: Names of Market-1501 contain `_` themselves. One name here ends in .jpg.jpg, as 18 names of the published table do.
NAMES = [
    ("0007_c2s3_070952_01.jpg", "0007_c3s3_077419_03.jpg"),
    ("0007_c3s3_077419_03.jpg", "0007_c2s3_070952_01.jpg"),
    ("0152_c1s1_000001_00.jpg.jpg", "0152_c2s1_000002_00.jpg"),
]
PAIRS = pd.DataFrame(NAMES, columns=["from", "to"])
#: Number of panels in a strip -> what they show.
ORDERS = {1: ["result"], 3: ["source", "target", "result"], 5: ["source", "pose", "target", "pose", "result"]}
VALUES = {"source": 10, "target": 20, "result": 30, "pose": 99}


def strip(index: int, panels: int, size: tuple[int, int] = (128, 64)) -> np.ndarray:
    """Return a strip (H, panels * W, 3). Each panel is constant, and its value tells which panel of which pair it is."""
    return np.concatenate([np.full((*size, 3), VALUES[name] + index, np.uint8) for name in ORDERS[panels]], axis=1)


def write(folder, name: str, image: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    assert cv2.imwrite(str(folder / name), image[:, :, ::-1])


def fill(folder, grammar: str, panels: int, suffix: str = "png", size=(128, 64)):
    """Fill a folder with one strip per pair.

    grammar: the name of a file. {a} and {b} stand for the two names, {sa} and {sb} for the names without .jpg.
    """
    for index, (a, b) in enumerate(NAMES):
        name = grammar.format(a=a, b=b, sa=a.removesuffix(".jpg"), sb=b.removesuffix(".jpg"))
        write(folder, f"{name}.{suffix}", strip(index, panels, size))
    return folder


@pytest.mark.parametrize(
    ("layout", "grammar", "panels"),
    [
        ("deform", "{a}_{b}", 3),
        ("deform", "{sa}_{sb}", 3),
        ("patn", "{a}___{b}_vis", 5),
        ("patn", "{a}___{b}_vis", 3),
        ("patn", "{sa}___{sb}_vis", 5),
        ("patn", "{a}___{sb}_vis", 3),
        ("gfla", "{sa}_2_{sb}_vis", 1),
        ("gfla", "{sa}_2_{sb}_vis", 5),
        ("gfla", "{a}_2_{b}_vis", 3),
        ("plain", "{sa}___{sb}", 1),
        ("plain", "{a}_{b}", 1),
        ("plain", "{sa}_2_{b}_vis", 1),
    ],
)
def test_names_and_panels_of_every_layout(tmp_path, layout: str, grammar: str, panels: int) -> None:
    folder = fill(tmp_path / "results", grammar, panels)
    (folder / "index.html").write_text("PATN writes one")
    (folder / "Thumbs.db").write_bytes(b"x")
    order = [2, 0, 1]  # results come in the order of the pair list, not in that of names
    found = read_results(folder, layout, PAIRS.iloc[order], want=("result", "target", "source"))
    assert (found.panels, found.file_format, found.generated.shape) == (panels, "png", (3, 128, 64, 3))
    for name, array in (
        ("result", found.generated),
        ("target", found.released_targets),
        ("source", found.source_panels),
    ):
        if name in ORDERS[panels]:
            assert [set(image.ravel().tolist()) for image in array] == [{VALUES[name] + i} for i in order]
        else:
            assert array is None


@pytest.mark.parametrize(("size", "panels"), [((256, 176), 1), ((256, 256), 5), ((256, 176), 5), ((256, 256), 3)])
def test_deepfashions_two_frames_are_told_by_the_width(tmp_path, size, panels: int) -> None:
    layout = "gfla" if panels == 1 else "patn"
    between = "_2_" if panels == 1 else "___"
    found = read_results(fill(tmp_path / "r", "{a}" + between + "{b}_vis", panels, size=size), layout, PAIRS)
    assert found.panels == panels
    assert found.generated.shape == (3, *size, 3)


def test_the_format_is_what_the_bytes_are_and_not_what_the_name_says(tmp_path) -> None:
    folder = fill(tmp_path / "r", "{a}___{b}_vis", 3, "jpg")
    assert ResultFolder(folder, "patn", PAIRS).file_format == "jpeg"
    for path in folder.iterdir():
        path.rename(path.with_suffix(".png"))
    assert ResultFolder(folder, "patn", PAIRS).file_format == "jpeg"


def test_the_hash_follows_names_and_bytes(tmp_path) -> None:
    folder = fill(tmp_path / "r", "{a}_{b}", 3)
    before = ResultFolder(folder, "deform", PAIRS).sha256()
    assert ResultFolder(folder, "deform", PAIRS.iloc[::-1]).sha256() == before
    write(folder, "{}_{}.png".format(*NAMES[0]), strip(7, 3))
    assert ResultFolder(folder, "deform", PAIRS).sha256() != before


def test_a_pair_that_stands_twice_has_one_image(tmp_path) -> None:
    folder = fill(tmp_path / "r", "{a}_{b}", 3)
    found = read_results(folder, "deform", pd.concat([PAIRS, PAIRS.iloc[:1]], ignore_index=True))
    np.testing.assert_array_equal(found.generated[0], found.generated[3])


# -- targets ----------------------------------------------------------------------------------------------------------


def test_targets_come_from_a_folder_by_the_second_name(tmp_path) -> None:
    folder = fill(tmp_path / "r", "{sa}___{sb}", 1)
    targets = tmp_path / "targets"
    for name, value in (("0007_c3s3_077419_03.png", 1), ("0007_c2s3_070952_01.jpg", 2), ("0152_c2s1_000002_00.jpg", 3)):
        write(targets, name, np.full((128, 64, 3), 50 * value, np.uint8))
    write(targets, "0999_c1s1_000000_00.jpg", np.zeros((128, 64, 3), np.uint8))  # the data set has other images too
    found = read_results(folder, "plain", PAIRS, targets)
    assert found.targets.reshape(3, -1).mean(axis=1).round().tolist() == [50, 100, 150]
    (targets / "0152_c2s1_000002_00.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 3 target images are not there, first 0152_c2s1_000002_00\.jpg"):
        read_results(folder, "plain", PAIRS, targets)


def test_targets_with_deepfashions_margins_lose_them_and_other_sizes_are_refused(tmp_path) -> None:
    folder = fill(tmp_path / "r", "{sa}_2_{sb}_vis", 1, size=(256, 176))
    whole = np.zeros((256, 256, 3), np.uint8)
    whole[:, 40:216] = 200
    for _, name in NAMES:
        write(tmp_path / "targets", name.replace(".jpg", ".png"), whole)
    found = read_results(folder, "gfla", PAIRS, tmp_path / "targets")
    assert (found.targets == 200).all()
    write(tmp_path / "targets", NAMES[1][1].replace(".jpg", ".png"), whole[:, :100])
    with pytest.raises(UserError, match=r"is 100 x 256 pixels .*, and the results are 176 x 256"):
        read_results(folder, "gfla", PAIRS, tmp_path / "targets")


def test_the_stage_images_is_a_folder_of_targets_too(tmp_path) -> None:
    folder = fill(tmp_path / "r", "{sa}___{sb}", 1)
    stage = tmp_path / "images"
    rows = ["name,split,person,camera,height,width,sha256,path"]
    for index, name in enumerate(dict.fromkeys(b for _, b in NAMES)):
        write(stage, f"{index}.png", np.full((128, 64, 3), index, np.uint8))
        rows.append(f"{name},test,0001,1,128,64,x,{index}.png")
    (stage / "images.csv").write_text("\n".join(rows) + "\n")
    (stage / "images.json").write_text(json.dumps(images_record()))
    assert read_results(folder, "plain", PAIRS, stage).targets[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert TargetFolder(stage, [NAMES[0][1]]).read(NAMES[0][1]).shape == (128, 64, 3)


# -- mistakes of a person ---------------------------------------------------------------------------------------------


def wrong(folder, layout: str = "deform", pairs: pd.DataFrame = PAIRS) -> str:
    with pytest.raises(UserError) as caught:
        read_results(folder, layout, pairs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_pair_list_or_layout(tmp_path) -> None:
    folder = fill(tmp_path / "r", "{a}___{b}_vis", 3)
    message = wrong(folder)
    assert "none of its 3 images is named after one of the 3 pairs (layout deform" in message
    assert "under layout patn some would be" in message
    other = pd.DataFrame({"from": ["a.jpg"], "to": ["b.jpg"]})
    assert "check that the pair list is theirs" in wrong(folder, "patn", other)
    assert "no layout 'pg2'" in wrong(folder, "pg2")


def test_missing_and_surplus_images(tmp_path) -> None:
    folder = fill(tmp_path / "r", "{a}_{b}", 3)
    assert "1 of 3 images belong to no pair, first 0152_" in wrong(folder, pairs=PAIRS.iloc[:2])
    (folder / "{}_{}.png".format(*NAMES[1])).unlink()
    assert f"1 of 3 pairs have no image, first {','.join(NAMES[1])}" in wrong(folder)


def test_one_pair_twice_and_one_name_for_two_pairs(tmp_path) -> None:
    folder = fill(tmp_path / "r", "{sa}___{sb}_vis", 3)
    name = "{}___{}_vis".format(*(n.removesuffix(".jpg") for n in NAMES[0]))
    write(folder, f"{name}.jpg", strip(0, 3))
    assert "are one pair; keep one of them" in wrong(folder, "patn")
    # In Deformable GAN's grammar the pairs (a_b, c) and (a, b_c) have the same file name.
    write(tmp_path / "two", "a_b_c.png", strip(0, 3))
    two = pd.DataFrame({"from": ["a_b", "a"], "to": ["c", "b_c"]})
    assert "a_b_c.png fits two pairs, a_b,c and a,b_c" in wrong(tmp_path / "two", pairs=two)


def test_strips_of_another_width_and_mixed_sizes(tmp_path) -> None:
    folder = fill(tmp_path / "r", "{a}_{b}", 5)
    message = wrong(folder)
    assert "is 320 x 128 pixels (width x height), and 3 panels of this height side by side (layout deform)" in message
    assert "are 192, 264 or 384 pixels wide" in message
    folder = fill(tmp_path / "mixed", "{a}_{b}", 3)
    write(folder, "{}_{}.png".format(*NAMES[2]), strip(2, 5))
    assert "must be of one size" in wrong(folder)


def test_empty_broken_and_mixed_files(tmp_path) -> None:
    assert "no such folder of images" in wrong(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "holds no PNG or JPEG image; name the folder in which the images lie" in wrong(tmp_path / "empty")
    folder = fill(tmp_path / "empty" / "images", "{a}_{b}", 3)
    assert "its folder images does; name that" in wrong(tmp_path / "empty")
    path = folder / "{}_{}.png".format(*NAMES[1])
    whole = path.read_bytes()
    path.write_bytes(whole[:40])
    assert "cannot be decoded as an image" in wrong(folder)
    path.write_bytes(b"GIF89a")
    assert "is neither a PNG nor a JPEG file" in wrong(folder)
    path.write_bytes(cv2.imencode(".jpg", strip(1, 3))[1].tobytes())
    assert "holds PNG and JPEG files side by side" in wrong(folder)


# -- real released results -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "layout", "file_format"), [("vunet", "patn", "jpeg"), ("deform", "deform", "png")])
def test_released_panels_are_read_as_they_are(shared, method: str, layout: str, file_format: str) -> None:
    panels = shared / "market1501-sample" / "panels"
    pairs = pd.read_csv(panels / f"{method}-pairs.csv")
    found = read_results(panels / method, layout, pairs)
    assert (found.panels, found.file_format, found.generated.shape) == (3, file_format, (100, 128, 64, 3))
    first = next(
        path for path in (panels / method).iterdir() if pairs["from"][0] in path.name and pairs["to"][0] in path.name
    )
    whole = cv2.imread(str(first))[:, :, ::-1]
    np.testing.assert_array_equal(found.released_targets[0], whole[:, 64:128])
    np.testing.assert_array_equal(found.generated[0], whole[:, 128:])
