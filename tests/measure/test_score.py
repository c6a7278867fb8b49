"""Tests of `potgan score`: it measures the peers' released results as published, and it refuses bad input.

IS and FID need the weights of Inception, which no test fetches. So they have a reason in place of a value here.
"""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from skimage.metrics import structural_similarity
from test_acquisition import one_error, potgan

from potgan.data.pairs import pairs_csv

#: The SSIM of the authors' strips, measured with Deformable GAN's settings, and with range 255.
PUBLISHED = [
    ("vunet", "patn", ("--protocol", "patn"), 0.262),
    ("deform", "deform", ("--protocol", "patn"), 0.384),
    ("vunet", "patn", ("--protocol", "clean", "--as-they-are"), 0.280),
    ("deform", "deform", ("--protocol", "clean", "--as-they-are"), 0.411),
    ("vunet", "patn", ("--protocol", "clean", "--as-they-are", "--use", "source"), 0.154),
    ("deform", "deform", ("--protocol", "clean", "--as-they-are", "--use", "source"), 0.160),
]


pytestmark = pytest.mark.usefixtures("no_weights")


@pytest.mark.parametrize(("method", "layout", "more", "expected"), PUBLISHED)
def test_released_strips_have_the_published_ssim(shared, tmp_path, method, layout, more, expected) -> None:
    panels = shared / "market1501-sample" / "panels"
    run = potgan(tmp_path, "score", "--images", panels / method, "--layout", layout, "--pairs", panels / f"{method}-pairs.csv",
                 *more, "--out", "out")  # fmt: skip
    assert run.returncode == 0, run.stderr
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["metrics"]["ssim"]["value"] == pytest.approx(expected, abs=0.001)
    assert scores["n_pairs"] == 100
    assert f"| {expected:.3f} |" in run.stdout
    fid = scores["metrics"]["fid"]
    assert fid["value"] is None  # what was not measured has no number
    assert "weights of inception-2015-12-05 are not here" in fid["reason"]
    if "--as-they-are" in more:
        assert scores["protocol"]["id"] == "clean-as-they-are-strip"
        assert scores["metrics"]["ssim"]["protocol"] == "ssim-gauss255-strip"


def test_all_protocols_side_by_side_with_masks(shared, tmp_path) -> None:
    sample = shared / "market1501-sample"
    panels = sample / "panels"
    run = potgan(tmp_path, "score", "--images", panels / "vunet", "--layout", "patn", "--pairs", panels / "vunet-pairs.csv",
                 "--keypoints", shared / "published" / "market-annotation-test.csv", "--protocol", "all", "--as-they-are",
                 "--out", "out")  # fmt: skip
    assert run.returncode == 0, run.stderr
    frame = pd.read_csv(tmp_path / "out" / "sensitivity.csv")
    ssim = frame[frame["metric"] == "ssim"].set_index("protocol")["value"]
    assert len(ssim) == 6
    assert ssim["refined-as-they-are-strip"] == ssim["potgan-as-they-are-strip"]  # only their masks differ
    assert ssim["gfla-as-they-are-strip"] > ssim["patn"] + 0.1  # a window of 51 raises SSIM (docs/decisions.md, D33)
    mask = frame[frame["metric"] == "mask_ssim"].set_index("protocol")["value"]
    assert mask["patn"] == pytest.approx(
        0.793, abs=0.03
    )  # PATN re-ran VUNet on all 12,000 pairs (TABLE 1 of PATN's paper)
    assert frame.groupby("metric")["metric_id"].nunique()["mask_ssim"] == 6
    assert (tmp_path / "out" / "pg2" / "scores.json").is_file()


# ---------------------------------------------------------------------------------------------------------------------
# Refusals


def strips(
    folder: Path, count: int = 3, panels: int = 3, suffix: str = "png", size: tuple[int, int] = (64, 32)
) -> Path:
    """Write random strips with names as in PATN, and their pair list beside the folder."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    pairs = pd.DataFrame(
        {"from": [f"000{i}_a.jpg" for i in range(count)], "to": [f"000{i}_b.jpg" for i in range(count)]}
    )
    for source, target in pairs.itertuples(index=False):
        image = random.integers(0, 256, (size[0], size[1] * panels, 3), np.uint8)
        cv2.imwrite(str(folder / f"{source}___{target}_vis.{suffix}"), image)
    (folder.parent / "pairs.csv").write_text(pairs_csv(pairs))
    return folder


def score(place: Path, *more: str, protocol: str = "patn", layout: str = "patn"):
    return potgan(place, "score", "--images", "results", "--layout", layout, "--pairs", "pairs.csv", "--protocol", protocol,
                  "--out", "out", *more)  # fmt: skip


def test_each_mistake_is_one_line_and_exit_code_2(tmp_path) -> None:
    def fresh(**changes: object) -> Path:
        shutil.rmtree(tmp_path / "results", ignore_errors=True)
        return strips(tmp_path / "results", **changes)

    def refused(message: str, *more: str, **changes: str) -> None:
        line = one_error(score(tmp_path, *more, **changes))
        assert message in line
        assert not (tmp_path / "out").exists()

    fresh(suffix="jpg")
    refused("holds JPEG files, and protocol clean demands PNG", protocol="clean")
    fresh()
    refused(
        "its targets are those that were released with the results, and protocol clean demands the data set's own images",
        protocol="clean",
    )
    (tmp_path / "results" / "0001_a.jpg___0001_b.jpg_vis.png").unlink()
    refused("1 of 3 pairs have no image, first 0001_a.jpg,0001_b.jpg")
    folder = fresh()
    shutil.copy(folder / "0001_a.jpg___0001_b.jpg_vis.png", folder / "0007_a.jpg___0007_b.jpg_vis.png")
    refused("1 of 4 images belong to no pair, first 0007_a.jpg___0007_b.jpg_vis.png")
    fresh(size=(64, 33))
    refused("panels of this height side by side (layout patn)")
    folder = fresh()
    cv2.imwrite(str(folder / "0002_a.jpg___0002_b.jpg_vis.png"), np.zeros((64, 160, 3), np.uint8))
    refused("must be of one size")
    fresh()
    (tmp_path / "results" / "0002_a.jpg___0002_b.jpg_vis.png").write_bytes(b"\x89PNG and nothing")
    refused("cannot be decoded as an image")
    fresh()
    (tmp_path / "pairs.csv").write_text("source,target\n")
    refused("unknown header 'source,target'; expected 'from,to'")
    shutil.rmtree(tmp_path / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "pairs.csv").write_text("from,to\n0001_a.jpg,0001_b.jpg\n")
    refused("holds no PNG or JPEG image")
    fresh()
    refused("no protocol 'paper'; there are all, potgan, refined, patn, pg2, gfla, clean", protocol="paper")
    (tmp_path / "keys.csv").write_text("name:keypoints_y:keypoints_x\n0001_a.jpg: " + f"{[5] * 18}: {[5] * 18}\n")
    refused("images have no key points (first: 0000_a.jpg)", "--keypoints", "keys.csv")


def test_out_replaces_an_earlier_scoring_and_nobodys_files(tmp_path) -> None:
    strips(tmp_path / "results")
    for _ in range(2):  # the second run replaces the results of the first
        assert score(tmp_path).returncode == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["per-pair.csv", "scores.json"]
    assert score(tmp_path, "--as-they-are", protocol="all").returncode == 0
    (tmp_path / "out" / "patn" / "notes.txt").write_text("mine")
    assert "holds patn, which scoring did not write" in one_error(score(tmp_path))
    assert (tmp_path / "out" / "patn" / "notes.txt").read_text() == "mine"
    before = sorted((tmp_path / "results").iterdir())
    line = one_error(score(tmp_path, "--out", "results"))
    assert "which scoring did not write and would remove; name a new folder" in line
    assert sorted((tmp_path / "results").iterdir()) == before
    assert "is a file, and --out names a folder" in one_error(score(tmp_path, "--out", "pairs.csv"))


def test_plain_results_are_measured_against_the_data_sets_images(tmp_path) -> None:
    """The results are the targets themselves, so SSIM is 1 and L1 is 0.

    They are measured under the protocol that demands PNG files and real targets.
    """
    folder, targets = tmp_path / "results", tmp_path / "targets"
    strips(folder, panels=1)
    targets.mkdir()
    for i in range(3):
        shutil.move(folder / f"000{i}_a.jpg___000{i}_b.jpg_vis.png", folder / f"000{i}_a___000{i}_b.png")
        shutil.copy(folder / f"000{i}_a___000{i}_b.png", targets / f"000{i}_b.png")
    run = score(tmp_path, "--targets", "targets", protocol="clean", layout="plain")
    assert run.returncode == 0, run.stderr
    metrics = json.loads((tmp_path / "out" / "scores.json").read_text())["metrics"]
    assert metrics["ssim"]["value"] == pytest.approx(1, abs=1e-12)
    assert metrics["l1"]["value"] == 0
    assert metrics["psnr"]["value"] == pytest.approx(10 * np.log10(255**2 * 64 * 32 * 3))
    assert metrics["ssim"]["protocol"] == "ssim-gauss255-png"
    line = one_error(score(tmp_path, protocol="clean", layout="plain"))
    assert "name the folder of the data set's images with --targets" in line


def test_the_id_and_the_record_say_which_targets_were_measured(tmp_path) -> None:
    """Of strips beside a folder of targets, `patn` measures the strips' panels, and every other protocol the folder's images.

    Results that were released without targets are no results of `patn`, whose id stands for panels that JPEG has changed.
    """
    strips(tmp_path / "results")
    (tmp_path / "targets").mkdir()
    for i in range(3):
        grey = np.full((64, 32, 3), 40 * i, np.uint8)
        cv2.imwrite(str(tmp_path / "targets" / f"000{i}_b.png"), grey)
    run = score(tmp_path, "--targets", "targets", protocol="all")
    assert run.returncode == 0, run.stderr
    told = {id_: json.loads((tmp_path / "out" / id_ / "scores.json").read_text()) for id_ in ("patn", "potgan")}
    assert {id_: scores["origin"]["targets"] for id_, scores in told.items()} == {"patn": "strip", "potgan": "dataset"}
    assert told["patn"]["measured_with"]["targets"] != told["potgan"]["measured_with"]["targets"]

    for path in (tmp_path / "results").iterdir():
        cv2.imwrite(str(path), cv2.imread(str(path))[:, 64:])  # only the result is left
    line = one_error(score(tmp_path, "--targets", "targets", layout="plain"))
    assert "its targets are the data set's own images, and protocol patn demands those that were released" in line
    assert score(tmp_path, "--targets", "targets", "--as-they-are", layout="plain").returncode == 0
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["protocol"]["id"] == "patn-as-they-are-dataset"
    assert scores["metrics"]["ssim"]["protocol"] == "ssim-deform-pad-256"


# ---------------------------------------------------------------------------------------------------------------------
# Key points and their frame

#: A standing person in a cropped image of 256 x 176: (x, y) of the 18 joints.
POSE = np.array(
    [(88, 40), (88, 60), (70, 62), (62, 90), (60, 118), (106, 62), (114, 90), (116, 118), (76, 125), (74, 170), (72, 215),
     (100, 125), (102, 170), (104, 215), (84, 36), (92, 36), (80, 40), (96, 40)]
)  # fmt: skip


def table_of(path: Path, poses: dict[str, np.ndarray]) -> Path:
    rows = [f"{name}: {[int(y) for _, y in pose]}: {[int(x) for x, _ in pose]}" for name, pose in poses.items()]
    path.write_text("name:keypoints_y:keypoints_x\n" + "\n".join(rows) + "\n")
    return path


def cropped_results(place: Path, count: int) -> list[str]:
    """Write random results of 256 x 176, targets of 256 x 256 and the pair list. Returns the names of all images."""
    random = np.random.default_rng(0)
    for folder in ("results", "targets"):
        (place / folder).mkdir()
    pairs = pd.DataFrame(
        {"from": [f"{i:04}_a.jpg" for i in range(count)], "to": [f"{i:04}_b.jpg" for i in range(count)]}
    )
    for source, target in pairs.itertuples(index=False):
        image = random.integers(0, 256, (256, 256, 3), np.uint8)
        cv2.imwrite(str(place / "targets" / target.replace("jpg", "png")), image)
        result = image[:, 40:216].copy()
        result[30:220, 50:126] = random.integers(
            0, 256, (190, 76, 3), np.uint8
        )  # the person is wrong, the rest is right
        cv2.imwrite(str(place / "results" / f"{source[:-4]}___{target[:-4]}.png"), result)
    (place / "pairs.csv").write_text(pairs_csv(pairs))
    return [*pairs["from"], *pairs["to"]]


def masked_scores(place: Path, *more: str) -> dict:
    run = score(place, "--targets", "targets", "--keypoints", "keys.csv", *more, protocol="potgan", layout="plain")
    assert run.returncode == 0, run.stderr
    return json.loads((place / "out" / "scores.json").read_text())


def test_joints_move_with_the_columns_of_cropped_targets(tmp_path) -> None:
    """The result is noise where the person stands, so the SSIM inside a mask in the right place is near 0."""
    names = cropped_results(tmp_path, 6)
    table_of(tmp_path / "keys.csv", {name: POSE for name in names})
    cropped = masked_scores(tmp_path)
    table_of(tmp_path / "keys.csv", {name: POSE + np.array([40, 0]) for name in names})
    original = masked_scores(tmp_path)
    assert original["metrics"] == cropped["metrics"]
    assert original["mask_area"] == cropped["mask_area"]
    assert abs(original["metrics"]["foreground_ssim"]["value"]) < 0.05


def test_a_frame_that_nothing_tells_must_be_declared(tmp_path) -> None:
    names = cropped_results(tmp_path, 3)
    table_of(tmp_path / "keys.csv", {name: POSE + np.array([20, 0]) for name in names})
    arguments = ("--targets", "targets", "--keypoints", "keys.csv")
    line = one_error(score(tmp_path, *arguments, protocol="potgan", layout="plain"))
    assert "say which with --keypoints-frame original or cropped" in line
    areas = {masked_scores(tmp_path, "--keypoints-frame", frame)["mask_area"] for frame in ("cropped", "original")}
    assert len(areas) == 1  # the same mask, in two places
    table_of(tmp_path / "keys.csv", {name: POSE + np.array([400, 0]) for name in names})
    line = one_error(score(tmp_path, *arguments, protocol="potgan", layout="plain"))
    assert "keys.csv: counts the pixels of other images: 100% of the joints lie outside their images" in line


def test_a_table_of_cropped_images_beside_whole_results_is_never_taken_as_it_is(tmp_path) -> None:
    """Of few images nothing tells the frame, and both declarations give the mask of the person in the same place."""
    names = cropped_results(tmp_path, 3)
    for path in (tmp_path / "results").iterdir():  # the results get back the margins of their targets
        target = cv2.imread(str(tmp_path / "targets" / path.name.split("___")[1]))
        target[:, 40:216] = cv2.imread(str(path))
        cv2.imwrite(str(path), target)
    found = {}
    for frame, moved in (("cropped", 0), ("original", 40)):
        table_of(tmp_path / "keys.csv", {name: POSE + np.array([moved, 0]) for name in names})
        line = one_error(
            score(tmp_path, "--targets", "targets", "--keypoints", "keys.csv", protocol="potgan", layout="plain")
        )
        assert "say which with --keypoints-frame original or cropped" in line
        found[frame] = masked_scores(tmp_path, "--keypoints-frame", frame)
    assert found["cropped"]["metrics"] == found["original"]["metrics"]
    assert abs(found["cropped"]["metrics"]["foreground_ssim"]["value"]) < 0.05


def test_masks_of_no_joint_have_no_score(tmp_path) -> None:
    names = cropped_results(tmp_path, 3)
    table_of(tmp_path / "keys.csv", {name: np.full((18, 2), -1) for name in names})
    metrics = masked_scores(tmp_path)["metrics"]
    for name in ("mask_ssim", "foreground_ssim", "mask_fid"):
        assert metrics[name]["value"] is None
    assert metrics["mask_ssim"]["reason"] == "no pose has a joint in its image, so every mask is empty"
    table_of(tmp_path / "keys.csv", {name: POSE if name[:4] != "0001" else np.full((18, 2), -1) for name in names})
    run = score(tmp_path, "--targets", "targets", "--keypoints", "keys.csv", "--keypoints-frame", "cropped", protocol="potgan",
                layout="plain")  # fmt: skip
    assert "1 of 3 pairs are left out, because their masks are empty" in run.stdout


def test_scores_name_the_content_of_targets_pairs_and_joints(tmp_path) -> None:
    """A joint and a pixel of a target change one hash each, the order of the pairs changes two. Further rows change none."""
    names = cropped_results(tmp_path, 5)
    table_of(tmp_path / "keys.csv", {name: POSE for name in names})
    first = masked_scores(tmp_path)["measured_with"]

    def changed() -> set[str]:
        now = masked_scores(tmp_path)["measured_with"]
        return {key for key in first if first[key] != now[key]}

    table_of(tmp_path / "keys.csv", {name: POSE for name in [*names, "0099_a.jpg"]})
    assert changed() == set()
    table_of(tmp_path / "keys.csv", {name: POSE + (name == names[0]) for name in names})
    assert changed() == {"keypoints"}
    table_of(tmp_path / "keys.csv", {name: POSE for name in names})
    path = str(tmp_path / "targets" / names[-1].replace("jpg", "png"))
    image = cv2.imread(path)
    image[100, 100] ^= 1
    cv2.imwrite(path, image)
    assert changed() == {"targets"}
    image[100, 100] ^= 1
    cv2.imwrite(path, image)
    head, *rows = (tmp_path / "pairs.csv").read_text().splitlines()
    (tmp_path / "pairs.csv").write_text("\n".join([head, *reversed(rows)]) + "\n")
    assert changed() == {"pairs", "targets"}  # all poses are equal


def test_released_results_beside_other_targets_differ_in_a_setting_that_compare_names(tmp_path) -> None:
    """The 55 results of Deformable GAN's user study on Market-1501, and the same beside the target of the next number."""
    checkout = os.environ.get("POSE_GAN_CHECKOUT")
    if not checkout:
        pytest.skip("POSE_GAN_CHECKOUT names no checkout of github.com/AliaksandrSiarohin/pose-gan")
    study = Path(checkout) / "sup-mat" / "market-userstudy"
    shutil.copytree(study / "to", tmp_path / "right")
    (tmp_path / "next").mkdir()
    for number in range(55):
        shutil.copyfile(study / "to" / f"{(number + 1) % 55}.jpg", tmp_path / "next" / f"{number}.jpg")
    for targets in ("right", "next"):
        run = potgan(
            tmp_path, "score", "--images", study / "gen", "--layout", "numbered-from-0", "--pairs", "from-names", "--targets",
            targets, "--protocol", "patn", "--out", f"{targets}-scores",
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        generated, wanted = (
            [cv2.imread(str(folder / f"{number}.jpg"))[:, :, ::-1] for number in range(55)]
            for folder in (study / "gen", tmp_path / targets)
        )
        expected = np.mean([deformable_ssim(*images) for images in zip(generated, wanted, strict=True)])
        found = json.loads((tmp_path / f"{targets}-scores" / "scores.json").read_text())["metrics"]["ssim"]["value"]
        assert found == pytest.approx(expected, abs=1e-9)
        assert (found == pytest.approx(0.331, abs=0.001)) == (targets == "right")
    compared = potgan(tmp_path, "compare", "right-scores", "next-scores")
    assert compared.returncode == 0, compared.stderr
    assert "targets" in compared.stdout
    assert "No setting differs" not in compared.stdout


def deformable_ssim(generated: np.ndarray, target: np.ndarray) -> float:
    """SSIM as Deformable GAN's test.py calls scikit-image: the range is that of the generated image."""
    return structural_similarity(
        target, generated, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        data_range=int(generated.max()) - int(generated.min()),
    )  # fmt: skip


def test_without_downloads_nothing_is_asked_for_and_the_rest_is_measured(tmp_path) -> None:
    strips(tmp_path / "results")
    run = score(tmp_path, "--no-download")
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("missing, and nothing is fetched (--no-download); download it on another machine") == 2
    assert "cannot be fetched" not in run.stderr
    metrics = json.loads((tmp_path / "out" / "scores.json").read_text())["metrics"]
    assert metrics["ssim"]["value"] is not None
    assert metrics["lpips"]["reason"] == "the weights of AlexNet are not here"
