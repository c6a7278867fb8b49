"""Tests that every method keeps the contract of `potgan.methods.method`."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from test_loop import SETTINGS, dots, equal

from potgan.common.errors import UserError
from potgan.data.batches import PARTS
from potgan.methods.generator_file import load_generator, save_generator
from potgan.methods.method import Method, PoseGenerator
from potgan.methods.registry import build_method, method_class
from potgan.settings.methods import method_names, options_class
from potgan.settings.schema import RunSettings

CPU = torch.device("cpu")


@pytest.fixture(params=method_names())
def settings(request) -> RunSettings:
    options = options_class(request.param)
    return dataclasses.replace(SETTINGS, method=request.param, options=small(options) if options else None)


def small(options: type) -> object:
    """The options of a method with a width of 4, or with a sixteenth of the authors' width if that is more."""
    return options(**{f.name: max(4, f.default // 16) for f in dataclasses.fields(options) if f.name.endswith("width")})


def without_chance(settings: RunSettings) -> RunSettings:
    """The settings without dropout and batch norm, if the method can do without them."""
    generator = dataclasses.replace(settings.generator, normalization="instance")
    if settings.options is None:
        return dataclasses.replace(settings, generator=generator)
    names = {field.name for field in dataclasses.fields(settings.options)}
    other = {name: value for name, value in (("dropout", 0.0), ("normalization", "instance")) if name in names}
    return dataclasses.replace(settings, generator=generator, options=dataclasses.replace(settings.options, **other))


def parts(method: Method, count: int = 1, needs: frozenset[str] | None = None) -> list:
    data = dots()
    return [data.batch(part, CPU, needs or method.needs) for part in np.split(np.arange(4), count)]


def test_it_is_fed_what_it_needs_and_nothing_of_the_target_at_test_time(settings) -> None:
    method = build_method(settings, CPU)
    assert method.needs <= PARTS
    assert method.generator.needs <= PARTS
    assert "target_image" not in method.generator.needs
    assert isinstance(method.generator, PoseGenerator)
    # The method runs with only the parts that it needs. The other parts are None.
    method.update(parts(method), 0)
    (batch,) = parts(method, needs=method.generator.needs)
    image = method.generator.eval().synthesise(batch).image
    assert image.shape == (4, 3, *settings.image_size)
    assert image.isfinite().all()
    assert image.abs().max() <= 1


def test_an_update_changes_the_weights_and_names_its_losses(settings) -> None:
    method = build_method(settings, CPU)
    before = copy.deepcopy(method.generator.state_dict())
    losses = method.update(parts(method), 0)
    assert list(losses)
    assert set(losses) <= set(method.losses)
    assert all(value.ndim == 0 and value.isfinite() and not value.requires_grad for value in losses.values())
    assert not equal(before, method.generator.state_dict())
    assert all(network.training for network in method.networks.values())


def test_the_same_seed_gives_the_same_training_and_a_state_continues_it_exactly(settings) -> None:
    whole, again = build_method(settings, CPU), build_method(settings, CPU)
    for iteration in range(4):
        ours, theirs = (m.update(parts(m), iteration) for m in (whole, again))
        assert equal(ours, theirs)
        if iteration == 1:
            state = copy.deepcopy(whole.state_dict())
    resumed = build_method(dataclasses.replace(settings, seed=settings.seed + 1), CPU)
    resumed.load_state_dict(state)
    resumed.settings = settings  # the seed decides what an update draws
    for iteration in (2, 3):
        resumed.update(parts(resumed), iteration)
    assert equal(resumed.state_dict(), whole.state_dict())


def test_a_batch_in_parts_has_the_gradients_of_the_whole(settings) -> None:
    """The gradients are equal apart from rounding. Dropout and batch norm are left out, because they differ from part to part."""
    settings = without_chance(settings)
    if not build_method(settings, CPU).exact_in_parts:
        pytest.skip("its discriminator always takes its statistics from the batch at hand")
    whole, apart = build_method(settings, CPU), build_method(settings, CPU)
    ours, theirs = whole.update(parts(whole), 0), apart.update(parts(apart, 2), 0)
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-6)


def test_an_image_at_test_time_does_not_depend_on_its_batch(settings) -> None:
    method = build_method(settings, CPU)
    method.update(parts(method), 0)
    generator = method.generator.eval()
    with torch.no_grad():
        together = generator.synthesise(dots().batch(range(4), CPU, generator.needs)).image
        alone = generator.synthesise(dots().batch(range(2, 3), CPU, generator.needs)).image
    torch.testing.assert_close(alone, together[2:3], rtol=0, atol=1e-5)


def test_the_rate_falls_to_nothing_or_stays_but_never_rises(settings) -> None:
    method = build_method(settings, CPU)
    rates = [method.learning_rate(i) for i in range(settings.training.iterations)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == settings.training.learning_rate


def test_its_generator_is_a_file_that_builds_it_again(settings, tmp_path: Path) -> None:
    method = build_method(settings, CPU)
    method.update(parts(method), 0)
    save_generator(tmp_path / "g.pt", method.generator, settings, 1, {})
    wanted = method_class(settings.method).generator_settings(settings)
    loaded = load_generator(tmp_path / "g.pt", wanted)
    (batch,) = parts(method, needs=method.generator.needs)
    with torch.no_grad():
        ours = method.generator.eval().synthesise(batch).image
        theirs = loaded.generator.synthesise(batch).image
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)  # its weights may have another memory layout


def test_validation_images_are_columns_of_the_log(settings) -> None:
    method = build_method(settings, CPU)
    (batch,) = parts(method, needs=method.generator.needs | {"target_image"})  # what the loop gives it
    method.generator.eval()
    with torch.no_grad():
        images = method.validation_images(batch)
    assert "validation_ssim" in images
    assert set(images) <= {"validation_ssim", *method.variants}
    assert all(image.shape == (4, 3, *settings.image_size) for image in images.values())


def test_an_unknown_method_is_one_line() -> None:
    with pytest.raises(UserError, match=r"no method 'nothing'; there are .*potgan"):
        method_class("nothing")
