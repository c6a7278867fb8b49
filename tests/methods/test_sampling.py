"""Tests of sampling at places that a matrix gives."""

import torch

from potgan.methods.sampling import pixel_grid, places_of, sample_places


def test_the_identity_leaves_an_image_as_it_is() -> None:
    image = torch.rand(2, 3, 9, 5)
    identity = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).expand(2, 2, 3)
    torch.testing.assert_close(sample_places(image, places_of(identity, 9, 5)), image)


def test_a_translation_by_whole_pixels_moves_an_image_and_brings_zeros_in() -> None:
    """Output (x, y) is taken from (x + 2, y - 1)."""
    image = torch.rand(1, 1, 6, 7)
    moved = sample_places(image, places_of(torch.tensor([[[1.0, 0, 2], [0, 1, -1]]]), 6, 7))
    expected = torch.zeros_like(image)
    expected[:, :, 1:, :5] = image[:, :, :5, 2:]
    torch.testing.assert_close(moved, expected)


def test_half_a_pixel_is_the_mean_of_two() -> None:
    image = torch.tensor([[[[0.0, 4.0, 10.0]]]])
    found = sample_places(image, torch.tensor([[[[0.5, 0.0], [1.5, 0.0]]]]))
    torch.testing.assert_close(found, torch.tensor([[[[2.0, 7.0]]]]))


def test_outside_is_zero_or_the_border_and_nearest_takes_one_pixel() -> None:
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    far = torch.tensor([[[[-50.0, 0.0], [50.0, 1.0]]]])
    assert sample_places(image, far).flatten().tolist() == [0, 0]
    assert sample_places(image, far, outside="border").flatten().tolist() == [1, 4]
    assert sample_places(image, torch.tensor([[[[0.4, 0.9]]]]), mode="nearest").item() == 3


def test_a_perspective_matrix_divides_by_its_third_row() -> None:
    """x / (1 + x) and y / (1 + x), a hand-made case."""
    places = places_of(torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 1]]), 2, 3)
    grid = pixel_grid(2, 3)
    torch.testing.assert_close(places, grid / (1 + grid[..., :1]))


def test_batches_of_matrices_keep_their_shape() -> None:
    assert places_of(torch.zeros(4, 10, 2, 3), 5, 6).shape == (4, 10, 5, 6, 2)


def test_bf16_features_are_sampled_at_places_in_fp32() -> None:
    """bf16 resolves only whole pixels at 200, so a place of 200.5 would be lost."""
    image = torch.arange(256.0).view(1, 1, 1, 256).bfloat16()
    found = sample_places(image / 256, torch.tensor([[[[100.5, 0.0]]]]))
    assert found.dtype == torch.bfloat16
    assert abs(found.item() * 256 - 100.5) < 0.3
