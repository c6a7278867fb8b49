"""The pool of earlier images shows and keeps what one image after the other would show and keep."""

import pytest
import torch

from potgan.methods.image_pool import ImagePool


def numbered(first: int, count: int) -> torch.Tensor:
    """Images of 2 x 1 x 3 that are told apart by their only value."""
    return torch.arange(first, first + count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 2, 1, 3).clone()


def one_after_the_other(pool: list[float], size: int, images: list[float], places: list[int], coins: list[float]):
    """The pool as a list, in plain Python."""
    shown = []
    for image, place, coin in zip(images, places, coins, strict=True):
        if len(pool) < size:
            pool.append(image)
            shown.append(image)
        elif coin > 0.5:
            shown.append(pool[place])
            pool[place] = image
        else:
            shown.append(image)
    return shown


@pytest.mark.parametrize(("size", "batch"), [(5, 4), (3, 8), (1, 3), (50, 32), (4, 1)])
def test_a_batch_is_handled_as_its_images_one_after_the_other(monkeypatch, size: int, batch: int) -> None:
    pool, expected = ImagePool(size, (2, 1, 3)), []
    chance = torch.Generator().manual_seed(size)
    for number in range(20):
        places = torch.randint(size, (batch,), generator=chance)
        coins = torch.rand(batch, generator=chance)
        monkeypatch.setattr(torch, "randint", lambda *a, drawn=places, **k: drawn)
        monkeypatch.setattr(torch, "rand", lambda *a, drawn=coins, **k: drawn)
        images = numbered(number * batch, batch)
        shown = pool(images)
        monkeypatch.undo()
        values = one_after_the_other(expected, size, images[:, 0, 0, 0].tolist(), places.tolist(), coins.tolist())
        assert shown[:, 1, 0, 2].tolist() == values
        assert pool.images[: len(expected), 1, 0, 1].tolist() == expected
        assert pool.filled.item() == len(expected)


def test_it_is_filled_first_and_then_half_are_earlier_images() -> None:
    torch.manual_seed(0)
    pool = ImagePool(50, (2, 1, 3))
    for first in (0, 20):
        assert torch.equal(pool(numbered(first, 20)), numbered(first, 20))
    pool(numbered(40, 10))
    earlier, total = 0, 0
    for number in range(100):
        images = numbered(50 + 20 * number, 20)
        shown = pool(images)[:, 0, 0, 0]
        earlier += (shown != images[:, 0, 0, 0]).sum().item()
        total += 20
        assert (shown <= images[:, 0, 0, 0]).all()  # an image of a later place is never shown
    assert earlier / total == pytest.approx(0.5, abs=4 * 0.5 / total**0.5)


def test_without_a_place_every_image_is_shown_as_it_is() -> None:
    pool = ImagePool(0, (2, 1, 3))
    assert torch.equal(pool(numbered(3, 5)), numbered(3, 5))
    assert pool.state_dict()["images"].numel() == 0


def test_its_state_continues_it_exactly() -> None:
    torch.manual_seed(1)
    pool = ImagePool(6, (2, 1, 3))
    for number in range(4):
        pool(numbered(4 * number, 4))
    again = ImagePool(6, (2, 1, 3))
    again.load_state_dict({name: value.clone() for name, value in pool.state_dict().items()})
    for number in range(4, 9):
        torch.manual_seed(number)
        ours = pool(numbered(4 * number, 4))
        torch.manual_seed(number)
        assert torch.equal(again(numbered(4 * number, 4)), ours)
    assert torch.equal(again.images, pool.images)


def test_what_it_shows_has_no_gradient_and_is_not_changed_later() -> None:
    pool = ImagePool(2, (2, 1, 3))
    images = numbered(0, 2).requires_grad_()
    shown = pool(images)
    assert not shown.requires_grad
    before = shown.clone()
    torch.manual_seed(2)
    for number in range(5):
        pool(numbered(10 + 2 * number, 2))
    assert torch.equal(shown, before)
    assert images.tolist() == numbered(0, 2).tolist()
