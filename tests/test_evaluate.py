"""Generation and evaluation: what stands in a folder, and the error of a warp where the truth is known."""

import cv2
import numpy as np
import pandas as pd
import pytest
import torch

from potgan import evaluate, generate
from potgan.batches import PairData
from potgan.config import GeneratorSettings
from potgan.errors import UserError
from potgan.models.potgan import Generator, sample_at
from potgan.models.tps import ThinPlateSpline, resting_points

SETTINGS = GeneratorSettings(width=4)
HEIGHT, WIDTH = 64, 32


def constant_shift(pixels: tuple[float, float]) -> np.ndarray:
    """(1, 4, 16, 2) control points that move every scale by the same number of image pixels."""
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
        assert entry["pixels"] == 40 * 20
    for entry in evaluate.warp_errors(constant_shift((0, 0)), flow, visible, SETTINGS):
        assert entry["end_point_error"] == pytest.approx(5)


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_a_warp_of_the_true_flow_moves_an_image_where_the_flow_says(scale: int) -> None:
    """The direction and the half-pixels of a stride: a picture averaged down to the scale's cells and sampled along the
    grid must be the averaged picture of the shifted image."""
    stride = 2 ** (scale + 1)
    shift = 2 * stride  # pixels to the right in the source
    random = np.random.default_rng(0)
    source = random.random((HEIGHT, WIDTH)).astype(np.float32)
    target = np.roll(source, -shift, axis=1)  # target pixel x shows what the source has at x + shift
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
        torch.randint(0, 2, (count, 1, HEIGHT, WIDTH), generator=g, dtype=torch.uint8),
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
    generate.write_generated(iter(made), pairs(), {}, tmp_path / "generate")
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
    assert np.abs(whole.astype(int) - parts).max() <= 1  # rounding to uint8 may fall either way
    assert (whole != parts).mean() < 1e-3


def test_references_are_what_they_say() -> None:
    d = data()
    copy = np.stack([i for i, _ in generate.reference_images("copy-source", d, None)])
    real = np.stack([i for i, _ in generate.reference_images("real-data", d, None)])
    np.testing.assert_array_equal(copy, d.images.permute(0, 2, 3, 1).numpy())
    np.testing.assert_array_equal(real, np.roll(copy, -1, axis=0))
    mean = generate.mean_image(d)
    np.testing.assert_allclose(mean, copy.astype(float).mean(axis=0), atol=0.5 + 1e-9)


def test_a_folder_of_another_pair_list_or_without_an_image_is_refused(tmp_path) -> None:
    pictures = generate.reference_images("real-data", data(), None)
    generate.write_generated(pictures, pairs(), {}, tmp_path / "generate")
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
