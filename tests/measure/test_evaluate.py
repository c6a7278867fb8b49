"""Tests of generation and evaluation: the contents of a folder, and the error of a warp if the true flow is known."""

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from potgan.common.errors import UserError
from potgan.data.batches import PairData
from potgan.measure import evaluate, generate
from potgan.methods.potgan.generator import Generator, sample_at
from potgan.methods.potgan.tps import ThinPlateSpline, resting_points
from potgan.settings.protocols import METRICS, PROTOCOLS
from potgan.settings.schema import GeneratorSettings

SETTINGS = GeneratorSettings(width=4)
HEIGHT, WIDTH = 64, 32

RECORD = generate.GenerationRecord("potgan", 0, None, None)


def constant_shift(pixels: tuple[float, float]) -> np.ndarray:
    """Return control points (1, 4, 16, 2) that move every scale by the same number of image pixels."""
    rest = resting_points(4, 4, 0.9)
    scales = []
    for scale in range(4):
        stride = 2 ** (scale + 1)
        cells = np.array([WIDTH // stride, HEIGHT // stride])
        scales.append(rest + 2 * np.array(pixels) / stride / (cells - 1))
    return np.stack(scales)[None]


def test_error_of_a_known_shift_is_zero_and_the_identitys_is_its_length() -> None:
    flow = np.broadcast_to(np.float32([3, -4]), (1, HEIGHT, WIDTH, 2))
    visible = np.zeros((1, HEIGHT, WIDTH), bool)
    visible[0, 10:50, 5:25] = True
    for entry in evaluate.warp_errors(constant_shift((3, -4)), flow, visible, SETTINGS):
        assert entry["end_point_error"] == pytest.approx(0, abs=1e-4)
        assert entry["identity_end_point_error"] == pytest.approx(5)
        assert entry["translation_end_point_error"] == pytest.approx(0, abs=1e-5)
        assert entry["spline_end_point_error"] == pytest.approx(0, abs=1e-4)
        assert entry["pixels"] == 40 * 20
    for entry in evaluate.warp_errors(constant_shift((0, 0)), flow, visible, SETTINGS):
        assert entry["end_point_error"] == pytest.approx(5)


def test_references_of_a_flow_are_the_best_of_their_kind() -> None:
    """The flow is a rotation about the centre of the visible part, which is affine: no translation helps, and a spline is exact.

    The mean distance of the pixels from the centre, times the factor of the rotation, is computed here by itself.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    visible = np.zeros((2, HEIGHT, WIDTH), bool)
    visible[0, 10:50, 5:25] = True
    x, y = x - 14.5, y - 29.5
    turned = 0.1 * np.stack([-y, x], axis=-1)
    flow = np.stack([turned, np.zeros_like(turned)]).astype(np.float32)
    for entry in evaluate.warp_errors(np.concatenate([constant_shift((0, 0))] * 2), flow, visible, SETTINGS):
        away = 0.1 * np.hypot(x, y)[visible[0]].mean()
        assert entry["identity_end_point_error"] == pytest.approx(away, rel=1e-6)
        assert entry["translation_end_point_error"] == pytest.approx(away, rel=1e-6)
        assert entry["spline_end_point_error"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_a_warp_of_the_true_flow_moves_an_image_where_the_flow_says(scale: int) -> None:
    """The test checks the direction of the warp and the half-pixels of a stride.

    A picture is averaged down to the cells of the scale and sampled along the grid. The result must be the averaged picture of the
    shifted image.
    """
    stride = 2 ** (scale + 1)
    shift = 2 * stride  # the shift in pixels, to the right in the source
    random = np.random.default_rng(0)
    source = random.random((HEIGHT, WIDTH)).astype(np.float32)
    target = np.roll(source, -shift, axis=1)  # target pixel x shows source pixel x + shift
    cells = (WIDTH // stride, HEIGHT // stride)
    small = [torch.from_numpy(cv2.resize(i, cells, interpolation=cv2.INTER_AREA))[None, None] for i in (source, target)]
    points = torch.from_numpy(constant_shift((shift, 0))[:, scale]).float()
    moved = sample_at(small[0], ThinPlateSpline(4, 4, 0.9, cells[1], cells[0])(points))
    inside = slice(0, cells[0] - 2)
    torch.testing.assert_close(moved[..., inside], small[1][..., inside], atol=1e-4, rtol=0)


def data(count: int = 5) -> PairData:
    g = torch.Generator().manual_seed(0)
    return PairData(
        [f"{i}.jpg" for i in range(count)],
        torch.randint(0, 256, (count, 3, HEIGHT, WIDTH), generator=g, dtype=torch.uint8),
        255 * torch.randint(0, 2, (count, 1, HEIGHT, WIDTH), generator=g, dtype=torch.uint8),
        torch.rand(count, 18, 2, generator=g) * 30,
        torch.arange(count),
        (torch.arange(count) + 1) % count,
        6.0,
    )


def pairs(count: int = 5) -> pd.DataFrame:
    return pd.DataFrame(
        {"from": [f"{i}.jpg" for i in range(count)], "to": [f"{(i + 1) % count}.jpg" for i in range(count)]}
    )


def test_images_come_back_from_the_folder_to_the_last_bit_and_in_the_order_of_the_pairs(tmp_path) -> None:
    torch.manual_seed(0)
    generator = Generator(SETTINGS, (HEIGHT, WIDTH))
    made = list(generate.synthesise(generator, data(), 2))
    generate.write_generated(iter(made), pairs(), RECORD, tmp_path / "generate")
    read = evaluate.read_generated(tmp_path / "generate", pairs())
    np.testing.assert_array_equal(read, np.stack([image for image, _ in made]))
    assert (tmp_path / "generate" / "images" / "0___1.png").is_file()
    np.testing.assert_array_equal(
        np.load(tmp_path / "generate" / "warps.npz")["control_points"], np.stack([points for _, points in made])
    )


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_images_do_not_depend_on_the_batch_size(batch_size: int) -> None:
    torch.manual_seed(0)
    generator = Generator(SETTINGS, (HEIGHT, WIDTH))
    whole = np.stack([image for image, _ in generate.synthesise(generator, data(), 5)])
    parts = np.stack([image for image, _ in generate.synthesise(generator, data(), batch_size)])
    assert np.abs(whole.astype(int) - parts).max() <= 1  # values close to a half may be rounded up or down
    assert (whole != parts).mean() < 1e-3


def test_references_are_what_they_say() -> None:
    d = data()
    copy = np.stack([i for i, _ in generate.reference_images("copy-source", d, None)])
    real = np.stack([i for i, _ in generate.reference_images("real-data", d, None)])
    np.testing.assert_array_equal(copy, d.images.permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal(real, np.roll(copy, -1, axis=0))
    mean = generate.mean_image(iter(copy))
    assert mean.dtype == np.uint8
    np.testing.assert_allclose(mean, copy.astype(float).mean(axis=0), atol=0.5 + 1e-9)


def test_a_folder_of_another_pair_list_or_without_an_image_is_refused(tmp_path) -> None:
    pictures = generate.reference_images("real-data", data(), None)
    generate.write_generated(pictures, pairs(), RECORD, tmp_path / "generate")
    with pytest.raises(UserError, match="another pair list"):
        evaluate.read_generated(tmp_path / "generate", pairs().iloc[::-1].reset_index(drop=True))
    (tmp_path / "generate" / "images" / "2___3.png").unlink()
    with pytest.raises(UserError, match=r"2___3\.png: is missing"):
        evaluate.read_generated(tmp_path / "generate", pairs())
    with pytest.raises(UserError, match="run `potgan generate` first"):
        evaluate.read_generated(tmp_path / "absent", pairs())


def test_names_with_a_double_suffix_keep_the_inner_one() -> None:
    """Published Market-1501 tables hold names that end in `.jpg.jpg`."""
    assert generate.file_name("0002_c1.jpg.jpg", "0002_c2.jpg") == "0002_c1.jpg___0002_c2.png"


def two_images() -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Return two pairs of 64 x 32 pixels. One pair differs by 4 grey levels everywhere, the other not at all."""
    targets = np.random.default_rng(3).integers(0, 200, (2, HEIGHT, WIDTH, 3), dtype=np.uint8)
    generated = targets.copy()
    generated[0] += 4
    return generated, targets, pd.DataFrame({"from": ["a", "b"], "to": ["b", "a"]})


def test_metrics_of_pairs_are_what_can_be_worked_out_by_hand() -> None:
    generated, targets, table = two_images()
    masks = np.ones((2, HEIGHT, WIDTH), np.uint8)
    metrics, per_pair = evaluate.evaluate(generated, targets, masks, table, None, PROTOCOLS["potgan"])
    assert list(per_pair) == ["from", "to", "ssim", "mask_ssim", "foreground_ssim", "l1", "psnr"]
    np.testing.assert_allclose(per_pair["l1"], [4, 0])
    least = 1 / (HEIGHT * WIDTH * 3)  # the error if one value differs by one level
    np.testing.assert_allclose(per_pair["psnr"], [10 * np.log10(255**2 / 16), 10 * np.log10(255**2 / least)])
    assert per_pair["ssim"][1] == pytest.approx(1)
    np.testing.assert_allclose(per_pair["mask_ssim"], per_pair["ssim"], atol=1e-12)  # all masks are ones
    np.testing.assert_allclose(per_pair["foreground_ssim"], per_pair["ssim"], atol=1e-12)
    assert metrics["l1"] == {"value": pytest.approx(2), "protocol": "l1-255", "n": 2}
    for name in ("is", "fid", "mask_fid", "kid"):
        assert metrics[name]["value"] is None
        assert metrics[name]["reason"]
        assert metrics[name]["protocol"] == PROTOCOLS["potgan"].metric_id(name)
    assert set(metrics) == set(METRICS)


def test_without_poses_masked_metrics_are_absent_with_their_reason() -> None:
    generated, targets, table = two_images()
    metrics, per_pair = evaluate.evaluate(
        generated, targets, None, table, None, PROTOCOLS["potgan"], absent="the weights are not here"
    )
    assert list(per_pair) == ["from", "to", "ssim", "l1", "psnr"]
    for name in ("mask_ssim", "foreground_ssim", "mask_is", "mask_fid"):
        assert metrics[name]["value"] is None
        assert metrics[name]["reason"] == evaluate.NO_MASKS
    assert metrics["kid"]["reason"] == "the weights are not here"


def test_an_empty_mask_has_no_score_and_leaves_the_mean_of_the_others(recwarn) -> None:
    generated, targets, table = two_images()
    masks = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    metrics, _ = evaluate.evaluate(generated, targets, masks, table, None, PROTOCOLS["potgan"])
    entry = metrics["foreground_ssim"]
    assert (entry["value"], entry["n"], entry["reason"]) == (None, 0, evaluate.NO_FOREGROUND)
    assert (metrics["mask_ssim"]["value"], metrics["mask_ssim"]["n"]) == (None, 0)  # black against black is no score
    assert {metrics[name]["reason"] for name in ("mask_ssim", "mask_is", "mask_fid")} == {evaluate.EMPTY_MASKS}
    masks[1] = 1
    metrics, per_pair = evaluate.evaluate(generated, targets, masks, table, None, PROTOCOLS["potgan"])
    assert (metrics["foreground_ssim"]["value"], metrics["foreground_ssim"]["n"]) == (pytest.approx(1), 1)
    assert np.isnan(per_pair["foreground_ssim"][0])
    whole = per_pair["ssim"][1]  # a full mask changes nothing
    assert (metrics["mask_ssim"]["value"], metrics["mask_ssim"]["n"]) == (pytest.approx(whole), 1)
    assert metrics["mask_ssim"]["warning"] == "1 of 2 pairs are left out, because their masks are empty"
    nobody = np.full((2, 18, 2), np.nan, np.float32)
    table = evaluate.sensitivity(generated, targets, nobody, nobody).set_index("protocol")
    assert table[["mask_ssim", "foreground_ssim"]].isna().all(axis=None)
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_a_mask_at_the_border_alone_has_no_inside_and_is_not_called_empty() -> None:
    generated, targets, table = two_images()
    masks = np.ones((2, HEIGHT, WIDTH), np.uint8)
    masks[0, 1:] = 0  # the window of 11 pixels lies in the image at no pixel of the first row
    metrics, _ = evaluate.evaluate(generated, targets, masks, table, None, PROTOCOLS["potgan"])
    assert metrics["mask_ssim"]["n"] == 2
    assert "warning" not in metrics["mask_ssim"]
    assert metrics["foreground_ssim"]["n"] == 1
    assert metrics["foreground_ssim"]["warning"] == (
        "1 of 2 pairs are left out, because their masks have no pixel at which the window lies in the image"
    )


def test_sensitivity_measures_each_protocol_as_it_is_measured_by_itself() -> None:
    generated, targets, table = two_images()
    random = np.random.default_rng(4)
    joints = [random.uniform(4, 28, (2, 18, 2)).astype(np.float32) for _ in range(2)]
    found = evaluate.sensitivity(generated, targets, *joints).set_index("protocol")
    assert list(found.index) == [name for name in PROTOCOLS if name not in ("potgan-synthetic", "patn")]
    for name in ("potgan", "pg2", "clean"):
        protocol = PROTOCOLS[name]
        masks = evaluate.masks_of(joints[protocol.mask_owner == "target"], (HEIGHT, WIDTH), protocol)
        metrics, _ = evaluate.evaluate(generated, targets, masks, table, None, protocol)
        for metric in ("ssim", "mask_ssim", "foreground_ssim"):
            assert found.loc[name, metric] == pytest.approx(metrics[metric]["value"], abs=1e-12)
        assert found.loc[name, "mask_area"] == pytest.approx(masks.mean())
    assert (
        found.loc["gfla", ["ssim", "mask_ssim", "foreground_ssim"]].isna().all()
    )  # the window of gfla is wider than the images
    assert found.loc["pg2", "mask_area"] != found.loc["potgan", "mask_area"]
    # What was measured before is taken over, for the protocol that measures in the same way and for no other.
    benchmarks = PROTOCOLS["potgan-synthetic"]
    masks = evaluate.masks_of(joints[1], (HEIGHT, WIDTH), benchmarks)
    per_pair = evaluate.evaluate(generated, targets, masks, table, None, benchmarks)[1]
    taken = evaluate.sensitivity(generated, targets, *joints, (benchmarks, per_pair)).set_index("protocol")
    pd.testing.assert_frame_equal(taken, found, atol=1e-12)
    marked = evaluate.sensitivity(generated, targets, *joints, (benchmarks, per_pair.assign(ssim=7.0)))
    assert marked.loc[marked["ssim"] == 7, "protocol"].tolist() == ["potgan"]


def test_deepfashions_margins_are_white_and_their_masks_empty() -> None:
    images, masks = np.zeros((1, 256, 176, 3), np.uint8), np.ones((1, 256, 176), np.uint8)
    framed, around = (evaluate.in_frame(v, PROTOCOLS["patn"], fill) for v, fill in ((images, 255), (masks, 0)))
    assert framed.shape == (1, 256, 256, 3)
    assert framed.mean() == pytest.approx(255 * 80 / 256)
    assert around.sum() == 256 * 176
    assert evaluate.in_frame(images, PROTOCOLS["potgan"]) is images


def test_arrays_of_different_lengths_are_refused() -> None:
    generated, targets, table = two_images()
    with pytest.raises(UserError, match="1 images, 2 targets and 2 pairs"):
        evaluate.evaluate(generated[:1], targets, None, table, None, PROTOCOLS["potgan"])
