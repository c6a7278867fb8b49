"""ADGAN: sizes as its authors' networks have them, component codes, the contextual loss, and the updates."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from test_loop import SETTINGS, dots, equal
from test_patn import multiply_adds, parameters
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from potgan.data.batches import Batch
from potgan.data.pose import PARSING_CLASSES
from potgan.methods import vgg
from potgan.methods.adgan.contextual_loss import contextual_loss
from potgan.methods.adgan.generator import (
    TAPS,
    ComponentEncoder,
    Generator,
    SampleNorm,
    StyledBlock,
    adaptive_instance_norm,
)
from potgan.methods.adgan.method import ADGAN
from potgan.methods.adgan.options import ADGANOptions
from potgan.methods.generator_file import load_generator, save_generator
from potgan.methods.method import Method
from potgan.methods.registry import build_method
from potgan.settings.schema import RunSettings

CPU = torch.device("cpu")
SMALL = ADGANOptions(width=4, texture_width=4, blocks=2)


def settings_of(options: ADGANOptions, **training: object) -> RunSettings:
    training = {"perceptual_width": 8} | training
    return dataclasses.replace(
        SETTINGS, method="adgan", options=options, training=dataclasses.replace(SETTINGS.training, **training)
    )


def batch_of(method: Method, positions: range = range(4)) -> Batch:
    return dots().batch(np.array(positions), CPU, method.needs)


@pytest.fixture
def large() -> Iterator[Generator]:
    """The authors' sizes, without numbers: only shapes are computed while a test has it."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield Generator(ADGANOptions(), (256, 176))


def test_the_generator_has_the_published_size(large) -> None:
    encoder = large.component_encoder
    own = [encoder.first, *encoder.halving, encoder.code]
    assert list(map(parameters, own)) == [9_472, 262_272, 1_048_832, 4_194_816, 65_600]
    # The authors keep all of VGG-19's convolutions (20,024,384 weights); seven of 512 channels come after the deepest tap.
    assert parameters(encoder.network) == 20_024_384 - 7 * (512 * 512 * 9 + 512)
    assert parameters(large.pose_encoder) == 10_153_536
    assert parameters(large.fusion) == 262_656
    assert parameters(large.styles) == 2_302_464
    assert parameters(large.decoder) == 10_475_267
    assert sum(weight.numel() for weight in large.parameters() if weight.requires_grad) == 48_799_299 - 20_024_384


@pytest.mark.parametrize(
    ("size", "authors", "component_encoder"),
    [((128, 64), 53.080, 38.98), ((256, 256), 424.622, 311.9), ((256, 176), 291.928, 214.4)],
)
def test_a_pass_is_the_published_arithmetic(large, size, authors: float, component_encoder: float) -> None:
    """Without the layers behind conv4_1, which the authors compute and do not read: three at 1/8, four at 1/16 of the size."""
    height, width = size
    saved = 8 * 512 * 512 * 9 * (3 * (height // 8) * (width // 8) + 4 * (height // 16) * (width // 16)) / 1e9
    found = multiply_adds(large, (3, *size), (8, *size), (18, *size))
    assert found + saved == pytest.approx(authors, abs=6e-4)
    alone = multiply_adds(large.component_encoder, (3, *size), (8, *size))
    assert alone + saved == pytest.approx(component_encoder, rel=3e-4)


def test_features_have_the_published_shapes(large) -> None:
    with torch.no_grad():
        taps = large.component_encoder.network(torch.empty(2, 3, 128, 64), ("relu1_1", "relu4_1"))
        codes = large.component_encoder(*(torch.empty(2, channels, 128, 64) for channels in (3, 8)))
        pose = large.pose_encoder(torch.empty(2, 18, 128, 64))
    assert [tuple(tap.shape[1:]) for tap in taps.values()] == [(64, 128, 64), (512, 16, 8)]
    assert tuple(codes.shape) == (2, 512)
    assert tuple(pose.shape[1:]) == (256, 32, 16)


def test_each_component_has_a_code_of_its_own() -> None:
    torch.manual_seed(0)
    encoder = ComponentEncoder(4, "random", 4)
    image = torch.rand(2, 3, 32, 32) * 2 - 1
    parsing = nn.functional.one_hot(torch.randint(0, 8, (2, 32, 32)), 8).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        codes = encoder(image, parsing).view(2, 8, 4)
        # The code of a component is that of its masked image alone.
        for component in range(8):
            alone = encoder(image * parsing[:, component, None], torch.ones(2, 8, 32, 32)).view(2, 8, 4)
            torch.testing.assert_close(alone[:, 0], codes[:, component], rtol=1e-5, atol=1e-6)
        # Another colour of component 5 changes its code, and no other.
        other = torch.where(parsing[:, 5, None] == 1, -image, image)
        differs = (encoder(other, parsing).view(2, 8, 4) - codes).abs().amax(2)
    assert (differs[:, 5] > 1e-4).all()
    assert (differs[:, [0, 1, 2, 3, 4, 6, 7]] == 0).all()


def test_with_styles_of_zeros_a_block_is_the_identity() -> None:
    x = torch.randn(2, 6, 8, 4)
    assert torch.equal(StyledBlock(6)(x, torch.zeros(2, 2, 2, 6)), x)


def test_a_style_is_the_mean_and_then_the_deviation_of_its_map() -> None:
    style = torch.randn(3, 2, 5)
    found = adaptive_instance_norm(torch.randn(3, 5, 16, 16), style)
    torch.testing.assert_close(found.mean((2, 3)), style[:, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.std((2, 3), unbiased=False), style[:, 1].abs(), rtol=1e-3, atol=1e-5)


def test_the_layer_norm_is_over_a_whole_sample_with_a_scale_per_channel() -> None:
    norm = SampleNorm(3)
    x = torch.randn(2, 3, 8, 4) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1) + 2
    with torch.no_grad():
        norm.scale.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.shift.copy_(torch.tensor([0.0, 0.0, 7.0]))
        found = (norm(x) - norm.shift.view(1, 3, 1, 1)) / norm.scale.view(1, 3, 1, 1)
    for sample in found:
        assert sample.mean().item() == pytest.approx(0, abs=1e-5)
        assert sample.std().item() == pytest.approx(1, abs=1e-4)
    black = torch.zeros(1, 3, 8, 4, requires_grad=True)
    norm(black).sum().backward()
    assert black.grad.isfinite().all()


def test_the_contextual_loss_of_equal_images_is_nothing() -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 16, 8, 8)
    assert contextual_loss(features, features).item() == pytest.approx(0, abs=1e-5)
    # Where things lie does not matter.
    moved = features.flatten(2)[:, :, torch.randperm(64)].view_as(features)
    assert contextual_loss(features, moved).item() == pytest.approx(0, abs=1e-5)


def test_the_contextual_loss_is_ln_2_where_half_of_the_target_is_not_there() -> None:
    target = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)  # two places: e1 and e2
    made = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).view(1, 2, 1, 2)  # e1 twice
    assert contextual_loss(target, made).item() == pytest.approx(math.log(2), abs=1e-5)


def test_the_contextual_loss_of_noise() -> None:
    torch.manual_seed(0)
    target, made = torch.randn(64, 16, 8, 8), torch.randn(64, 16, 8, 8)
    assert contextual_loss(target, made).item() == pytest.approx(1.97, abs=0.05)


def test_the_contextual_loss_and_its_gradient_stay_finite() -> None:
    constant = torch.ones(2, 8, 4, 4)
    for target in (constant, torch.randn(2, 8, 4, 4), 1e4 * torch.randn(2, 8, 4, 4)):
        for made in (constant.clone(), target.clone(), 1e-4 * torch.randn(2, 8, 4, 4)):
            made.requires_grad_()
            loss = contextual_loss(target, made)
            loss.backward()
            assert loss.isfinite()
            assert made.grad.isfinite().all()


def test_the_contextual_loss_falls_where_its_gradient_leads() -> None:
    torch.manual_seed(1)
    target, made = torch.randn(1, 16, 6, 6), torch.randn(1, 16, 6, 6, requires_grad=True)
    optimizer = torch.optim.Adam([made], lr=0.05)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = contextual_loss(target, made)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_rate_is_constant_for_one_half_and_then_falls_linearly() -> None:
    method = build_method(settings_of(SMALL, iterations=1000, learning_rate=1e-3), CPU)
    rates = np.array([method.learning_rate(i) for i in range(1000)]) / 1e-3
    assert (rates[:501] == 1).all()
    np.testing.assert_allclose(rates[[600, 750, 999]], [0.8, 0.5, 1 / 500])


def test_every_weight_is_reached_by_one_update_and_the_frozen_network_by_none() -> None:
    method = build_method(settings_of(SMALL), CPU)
    frozen = method.generator.component_encoder.network
    before = [weight.clone() for weight in frozen.parameters()]
    # A training does not begin with weights that make the style nearly 0, so larger ones show what is connected.
    with torch.no_grad():
        for weight in method.generator.parameters():
            if weight.requires_grad and weight.ndim > 1:
                weight.mul_(10)
    method.update([batch_of(method)], 0)
    for network in method.networks.values():
        for name, weight in network.named_parameters():
            if not weight.requires_grad:
                assert name.startswith("component_encoder.network.")
                continue
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name
            # An instance norm takes away what the bias before it adds.
            if not name.endswith("bias"):
                assert weight.grad.abs().sum() > 0, name
    assert all(torch.equal(a, b) for a, b in zip(before, frozen.parameters(), strict=True))
    held = {id(w) for o in method.optimizers.values() for group in o.param_groups for w in group["params"]}
    assert not held & {id(w) for w in frozen.parameters()}
    assert not any(module.training for module in frozen.modules())


STYLED = ("component_encoder.halving", "component_encoder.code", "fusion", "styles")


@pytest.mark.parametrize(("width", "styled"), [(8, 0.02 * 8**0.5), (64, 0.02)])
def test_initial_weights_are_the_authors_and_keep_their_gain_at_a_smaller_width(width: int, styled: float) -> None:
    """A layer with an eighth of the inputs and the root of 8 times the deviation has outputs of the same deviation."""
    torch.manual_seed(0)
    network = Generator(ADGANOptions(width=width, texture_width=8), (32, 32))
    weights = {n: w.flatten() for n, w in network.named_parameters() if n.endswith("weight") and w.requires_grad}
    for of_styles, deviation in ((True, styled), (False, 0.02)):
        found = torch.cat([w for n, w in weights.items() if n.startswith(STYLED) == of_styles])
        assert found.std().item() == pytest.approx(deviation, rel=0.02)
    scales = torch.cat([m.scale for m in network.modules() if isinstance(m, SampleNorm)])
    assert 0 <= scales.min() < 0.25 < 0.75 < scales.max() <= 1
    seeded = vgg.Vgg19("random", 8, "relu4_1", normalise=False)
    assert equal(network.component_encoder.network.state_dict(), seeded.state_dict())


def test_at_a_small_width_the_source_tells_people_apart_as_it_does_at_the_authors() -> None:
    """With the authors' deviation alone, the styles of different images differ 36 times less at a quarter of the width."""
    draw = torch.Generator().manual_seed(5)
    images = torch.empty(8, 3, 64, 32).uniform_(-1, 1, generator=draw) * torch.rand(8, 3, 1, 1, generator=draw)
    parsing = torch.ones(8, len(PARSING_CLASSES), 64, 32)

    def spread(width: int) -> float:
        torch.manual_seed(0)
        network = Generator(ADGANOptions(width=width, texture_width=width, blocks=2), (64, 32))
        with torch.no_grad():
            styles = network.styles(network.fusion(network.component_encoder(images, parsing)))
        return float((styles - styles.mean(0)).abs().mean())

    assert spread(16) > spread(64) / 4


def test_a_random_network_of_features_has_a_mean_activation_of_one() -> None:
    encoder = Generator(ADGANOptions(width=8, texture_width=8), (32, 32)).component_encoder
    noise = torch.empty(1, 3, 96, 96).uniform_(
        -1, 1, generator=torch.Generator().manual_seed(1)
    )  # another image of noise
    for features, scale in zip(encoder.network(noise, TAPS).values(), encoder.scales, strict=True):
        assert float(features.mean() * scale) == pytest.approx(1, abs=0.1)


def test_a_file_holds_the_frozen_network_so_that_nothing_is_fetched_to_use_it(monkeypatch, tmp_path) -> None:
    """The file of a generator with ImageNet's weights, which are stand-ins here: random ones in the file of torchvision."""
    torch.manual_seed(3)
    stored, channels = {}, 3
    for place, outputs in zip(
        (0, 2, 5, 7, 10, 12, 14, 16, 19), (64, 64, 128, 128, 256, 256, 256, 256, 512), strict=True
    ):
        stored[f"features.{place}.weight"] = torch.randn(outputs, channels, 3, 3) * (2 / channels / 9) ** 0.5
        stored[f"features.{place}.bias"] = torch.zeros(outputs)
        channels = outputs
    torch.save(stored, tmp_path / "vgg19.pth")
    monkeypatch.setattr(vgg, "weight_file", lambda name: tmp_path / "vgg19.pth")
    settings = settings_of(dataclasses.replace(SMALL, texture_network="vgg16"))
    torch.manual_seed(4)
    generator = ADGAN.build_networks(settings)["generator"].eval()
    assert torch.equal(generator.component_encoder.network.convolutions[8].weight, stored["features.19.weight"])
    monkeypatch.setattr(vgg, "weight_file", lambda name: pytest.fail("a file was asked for"))
    save_generator(tmp_path / "g.pt", generator, settings, 1, {})
    loaded = load_generator(tmp_path / "g.pt", ADGAN.generator_settings(settings), CPU).generator
    assert equal(loaded.state_dict(), generator.state_dict())
    batch = dots().batch(np.arange(2), CPU, generator.needs)
    with torch.no_grad():
        ours, theirs = generator.synthesise(batch).image, loaded.synthesise(batch).image
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-6)


def test_the_contextual_features_are_of_images_as_they_are_and_each_pass_is_counted_once() -> None:
    """An update computes the features of each target once, and those of each synthesised image once, up to relu4_2."""
    method = build_method(settings_of(SMALL), CPU)
    passes: list[tuple[int, bool]] = []
    method.contextual.register_forward_hook(lambda m, i, o: passes.append((len(i[0]), i[0].requires_grad)))
    method.update([batch_of(method, range(2)), batch_of(method, range(2, 4))], 0)
    assert sorted(passes) == [(2, False), (2, False), (2, True), (2, True)]
    assert not method.contextual.normalise
    assert method.contextual.names[-1] == "relu4_2"
    assert method.perceptual.normalise
    assert method.perceptual.names[-1] == "relu1_2"


@pytest.mark.parametrize("size", [(32, 32), (128, 64), (64, 48)])
def test_missing_joints_and_absent_components_leave_everything_finite(size: tuple[int, int]) -> None:
    method = build_method(dataclasses.replace(settings_of(SMALL), image_size=size), CPU)
    data = dots()
    joints = data.joints.clone()
    joints[:, ::2], joints[1] = float("nan"), float("nan")
    images = torch.randint(0, 256, (6, 3, *size), dtype=torch.uint8)
    images[2] = 128  # a grey target
    parsing = torch.zeros(6, *size, dtype=torch.uint8)  # background alone
    data = dataclasses.replace(data, joints=joints, images=images, parsing=parsing)
    for iteration in range(2):
        terms = method.update([data.batch(np.arange(4), CPU, method.needs)], iteration)
        assert all(value.isfinite() for value in terms.values())
    assert all(w.isfinite().all() for network in method.networks.values() for w in network.parameters())


def test_it_learns_four_pairs() -> None:
    """From smooth images, because noise cannot be learnt by heart in so few steps."""
    options = ADGANOptions(width=8, texture_width=4, blocks=2, dropout=0.0, adversarial=0.5)
    method = build_method(settings_of(options, learning_rate=4e-3, iterations=1000), CPU)
    batch = batch_of(method)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    batch.target_image = torch.stack([torch.stack((x, y, x * y * (number - 2))) for number in range(4)]).clamp(-1, 1)
    terms = [method.update([batch], iteration) for iteration in range(30)]
    losses = [values["reconstruction"].item() for values in terms]
    assert np.mean(losses[-3:]) < 0.7 * losses[0]


def test_bf16_runs_and_stays_near_fp32() -> None:
    found = {}
    for precision in ("fp32", "bf16"):
        method = build_method(settings_of(SMALL, precision=precision), CPU)
        found[precision] = method.update([batch_of(method)], 0)
    for name, value in found["fp32"].items():
        assert found["bf16"][name].item() == pytest.approx(value.item(), rel=0.05), name
        assert found["bf16"][name].item() != value.item(), name


def test_a_pass_up_to_the_deepest_tap_is_all_that_is_computed() -> None:
    """One VGG-19 of width 64 for 8 components, and no layer of it behind conv4_1."""
    with torch.device("meta"):
        network = vgg.Vgg19("random", 64, "relu4_1", normalise=False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(8, 3, 128, 64, device="meta"), ("relu4_1",))
    layers = (
        (3, 64, 1),
        (64, 64, 1),
        (64, 128, 4),
        (128, 128, 4),
        (128, 256, 16),
        *3 * ((256, 256, 16),),
        (256, 512, 64),
    )
    assert counter.get_total_flops() / 2 == 8 * sum(9 * a * b * 128 * 64 // area for a, b, area in layers)
