"""What a training and its use do on a GPU: the same as on the CPU, within the rounding of each number format.

All tests here are marked `cuda` and are skipped where there is no GPU. `POTGAN_GPU_TESTS_ON=cpu` runs them with the CPU in the
GPU's place, which shows that the tests themselves work; what only a GPU can show is then left out.

Two things on a GPU are not the same at every run: the backward pass of `grid_sample`, whose sums are made by atomic additions, and
the choice among convolution algorithms. So equality to the last bit is asked for only without a pose transform and with
deterministic algorithms. Else it is asked that a difference is as small as that between two runs of the same thing.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from test_contract import without_chance
from test_loop import TWENTY_STEPS, dots, equal, in_two_processes, losses_of
from test_methods import settings_of

from potgan.common.device import autocast, compiled_without_failure, pick_device
from potgan.common.errors import Interrupted
from potgan.common.tensors import tensors_to_bytes
from potgan.data import batches
from potgan.measure.generate import synthesise
from potgan.methods.generator_file import load_generator
from potgan.methods.potgan.method import PoTGAN
from potgan.methods.registry import build_method
from potgan.settings.methods import method_names
from potgan.settings.schema import RunSettings
from potgan.training import loop
from potgan.training import update as updates
from potgan.training.log import LossMeter
from potgan.training.state import TrainingState

DEVICE = torch.device(os.environ.get("POTGAN_GPU_TESTS_ON", "cuda"))
ON_GPU = DEVICE.type == "cuda"
CPU = torch.device("cpu")

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(ON_GPU and not torch.cuda.is_available(), reason="this machine has no GPU"),
]
only_on_a_gpu = pytest.mark.skipif(not ON_GPU, reason="only a GPU can show this")


def settings(width: int = 16, size: tuple[int, int] = (64, 32), batch: int = 4, **training: object) -> RunSettings:
    """PoT-GAN with instance norm, as config/paper.yaml has it, on small images."""
    return dataclasses.replace(
        TWENTY_STEPS,
        image_size=size,
        generator=dataclasses.replace(TWENTY_STEPS.generator, width=width, normalization="instance"),
        discriminator=dataclasses.replace(TWENTY_STEPS.discriminator, width=width),
        training=dataclasses.replace(TWENTY_STEPS.training, batch_size=batch, **training),
    )


def without_pose_transform(run: RunSettings) -> RunSettings:
    return dataclasses.replace(run, generator=dataclasses.replace(run.generator, pose_transform=False))


def people(size: tuple[int, int] = (64, 32), count: int = 16) -> batches.PairData:
    """Smooth random images, whose features are of the size of those of photographs, and all pairs of neighbours."""
    g = torch.Generator().manual_seed(4)
    rough = torch.rand(count, 3, size[0] // 8, size[1] // 8, generator=g)
    images = torch.nn.functional.interpolate(rough, size, mode="bicubic").clamp(0, 1)
    joints = torch.rand(count, 18, 2, generator=g) * torch.tensor([size[1] - 1.0, size[0] - 1.0])
    joints[:, 3] = torch.nan  # a joint that is missing
    return batches.PairData(
        names=[str(i) for i in range(count)],
        images=(images * 255).to(torch.uint8),
        masks=255 * (torch.rand(count, 1, *size, generator=g) < 0.4).to(torch.uint8),
        joints=joints,
        sources=torch.arange(count),
        targets=(torch.arange(count) + 1) % count,
        sigma=3.0,
        parsing=torch.randint(0, 8, (count, *size), generator=g, dtype=torch.uint8),
    )


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|, of all values together."""
    a, b = a.detach().double().cpu().flatten(), b.detach().double().cpu().flatten()
    assert a.isfinite().all()
    return float((a - b).norm() / b.norm())


def flat(tensors: object) -> torch.Tensor:
    return torch.cat([t.detach().double().cpu().flatten() for t in tensors])


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """The same convolution algorithms at every run, and only those without atomic additions."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def in_precision(precision: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, float]]:
    """One forward and backward pass on the GPU: the image, the gradients of G and of D, and the losses."""
    return gradients(settings(precision=precision), DEVICE)


def gradients(
    run: RunSettings, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, float]]:
    method = away_from_the_identity(PoTGAN(run, device))
    kept: dict[str, torch.Tensor] = {}
    for name, optimizer in (("G", method.generator_optimizer), ("D", method.discriminator_optimizer)):
        optimizer.step = lambda name=name, optimizer=optimizer: kept.update(
            {name: flat(p.grad for group in optimizer.param_groups for p in group["params"])}
        )
    (batch,) = [people().batch(range(4), device)]
    losses = method.update([batch], 0)
    with torch.no_grad(), autocast(run.training.precision, device):
        image = method.networks["generator"].synthesise(batch).image
    return image, kept["G"], kept["D"], {name: value.item() for name, value in losses.items()}


def away_from_the_identity(method: PoTGAN) -> PoTGAN:
    """Move the control points of a new network.

    At the start every warp samples exactly at the centres of cells. There the derivative of bilinear sampling jumps, so that
    rounding decides between two gradients which are both right.
    """
    g = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for net in method.networks["generator"].pose_transform.coordinates:
            net.points.bias += 0.1 * torch.randn(net.points.bias.shape, generator=g).to(net.points.bias)
    return method


# ---------------------------------------------------------------------------------------------------------------------
# The same numbers as on the CPU


def test_forward_and_backward_in_fp32_are_the_cpus() -> None:
    image, of_g, of_d, losses = in_precision("fp32")
    wanted_image, wanted_g, wanted_d, wanted_losses = gradients(settings(), CPU)
    assert difference(image, wanted_image) < 1e-4
    assert difference(of_g, wanted_g) < 1e-4
    assert difference(of_d, wanted_d) < 1e-4
    assert losses == pytest.approx(wanted_losses, rel=1e-4)


#: Precision -> the largest relative difference to fp32 of an image, of G's gradient and of D's. A mantissa of 10 bits (tf32) has
#: a rounding error of 2^-11 = 5e-4, one of 7 bits (bf16) of 2^-8 = 4e-3; each passes through some twenty layers, and gradients
#: through twice as many. The least difference, a hundredth of the bound, says that the format is really used.
BOUNDS = {"tf32": (1e-2, 5e-2, 1e-1), "bf16": (5e-2, 3e-1, 5e-1)}


@pytest.mark.parametrize("precision", BOUNDS)
def test_coarser_formats_are_used_and_stay_within_their_bounds(precision: str) -> None:
    if precision == "tf32" and (not ON_GPU or torch.cuda.get_device_capability()[0] < 8):
        pytest.skip("tf32 needs an NVIDIA GPU since Ampere")
    found, wanted = in_precision(precision)[:3], gradients(settings(), CPU)[:3]
    for ours, theirs, bound in zip(found, wanted, BOUNDS[precision], strict=True):
        assert bound / 100 < difference(ours, theirs) < bound


def test_an_optimiser_step_in_fp32_is_the_cpus() -> None:
    """Both devices are given the same gradients, because Adam turns the sign of a tiny gradient into a whole step."""
    ours, theirs = PoTGAN(settings(), DEVICE), PoTGAN(settings(), CPU)
    before = flat(theirs.generator.parameters())
    g = torch.Generator().manual_seed(8)
    for iteration in (0, 15):  # the second is in the decay of the rates
        for mine, other in zip(ours.generator.parameters(), theirs.generator.parameters(), strict=True):
            # Gradients lie in memory as their weights do.
            other.grad = torch.empty_like(other).copy_(torch.randn(other.shape, generator=g) * 1e-3)
            mine.grad = torch.empty_like(mine).copy_(other.grad)
        for method in (ours, theirs):
            method.set_rates(iteration)
            method.generator_optimizer.step()
    moved = flat(theirs.generator.parameters()) - before
    assert moved.abs().max() > 1e-3  # the rate
    assert difference(flat(ours.generator.parameters()) - before, moved) < 1e-4


def test_the_device_of_a_process_computes_in_fp32_unless_told_otherwise(tmp_path: Path) -> None:
    """torch's default for convolutions on a GPU is TF32, in which images would be those of another precision."""
    loop.train(dots(), None, TWENTY_STEPS, tmp_path / "a" / "train", {}, CPU)
    file = tmp_path / "a" / "train" / "generator-000020.pt"
    if ON_GPU:
        torch.backends.cudnn.allow_tf32 = True
        assert pick_device().type == "cuda"
    data = dots()
    with torch.no_grad():
        ours = load_generator(file, None, DEVICE).generator.eval().synthesise(data.batch(range(6), DEVICE)).image
        theirs = load_generator(file, None, CPU).generator.eval().synthesise(data.batch(range(6))).image
    assert difference(ours, theirs) < 1e-4


# ---------------------------------------------------------------------------------------------------------------------
# One training, however it is run


@only_on_a_gpu
def test_no_step_waits_for_the_device() -> None:
    """Else the host could not run ahead, and the GPU would wait for it at every step."""
    run = settings(iterations=40)
    data = people().placed(DEVICE)
    method = PoTGAN(run, DEVICE)
    update, meter = updates.Update(method), LossMeter(method.losses, method.processes)
    positions = loop.batch_positions(len(data), run, range(12), method.processes)
    for iteration, parts in enumerate(batches.training_batches(data, DEVICE, positions, needs=method.needs)):
        meter.add(update(parts, iteration))
        if iteration == 5:
            assert update.recorded
            torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")
    assert meter.means()["reconstruction"] > 0


@only_on_a_gpu
def test_a_state_that_is_loaded_later_is_what_goes_on() -> None:
    """A graph that was recorded before would go on with the optimisers' old tensors."""
    run = without_pose_transform(settings(iterations=40))
    with deterministic():
        method, _, _ = trained(run, 8)
        state = copy.deepcopy(method.state_dict())
        expected, _, _ = trained(run, 16)
        other = PoTGAN(run, DEVICE)
        data, update = people().placed(DEVICE), updates.Update(other)
        positions = list(loop.batch_positions(len(data), run, range(16), other.processes))
        parts = list(batches.training_batches(data, DEVICE, positions, needs=other.needs))
        for iteration in range(5):
            update(parts[iteration], iteration)
        assert update.recorded
        other.load_state_dict(state)
        for iteration in range(8, 16):
            update(parts[iteration], iteration)
        assert update.recorded
    assert torch.equal(weights(other), weights(expected))


def trained(
    run: RunSettings, steps: int, data: batches.PairData | None = None
) -> tuple[PoTGAN, list[dict[str, float]], bool]:
    """The method after some updates, their losses, and whether its step was recorded as a CUDA graph."""
    data = (data or people()).placed(DEVICE)
    method = build_method(run, DEVICE)
    loop.prepare(method, data)
    update = updates.Update(method)
    positions = loop.batch_positions(len(data), run, range(steps), method.processes)
    terms = [
        update(parts, iteration)
        for iteration, parts in enumerate(batches.training_batches(data, DEVICE, positions, needs=method.needs))
    ]
    return method, [{name: value.item() for name, value in values.items()} for values in terms], update.recorded


def weights(method: PoTGAN) -> torch.Tensor:
    return flat(p for network in method.networks.values() for p in network.parameters())


@pytest.mark.parametrize("parts", [1, 2])
def test_a_recorded_step_is_the_step_itself(parts: int) -> None:
    """16 updates, the second half of them with falling rates: equal to the last bit, losses and weights and averages."""
    with deterministic():
        runs = {
            compile: without_pose_transform(
                settings(compile=compile, iterations=16, decay_from=8, ema=0.9, device_batch_size=4 // parts)
            )
            for compile in ("auto", "never")
        }
        (recorded, losses, graph), (eager, expected, no_graph) = (trained(run, 16) for run in runs.values())
    assert graph == ON_GPU
    assert not no_graph
    assert losses == expected
    assert torch.equal(weights(recorded), weights(eager))
    assert torch.equal(flat(recorded.generator.parameters()), flat(eager.generator.parameters()))  # the averages
    assert not torch.equal(flat(eager.generator.parameters()), flat(eager.networks["generator"].parameters()))


def test_a_recorded_step_with_warps_is_the_step_itself() -> None:
    """The losses of 12 updates, within what the order of the sums of `grid_sample` and Adam make of it.

    Two runs of the same on a GPU were once equal to 3e-7 and once different by 4 % in their weights. Adam makes a whole step of
    every gradient, however small, and the sign of a small one depends on rounding. The losses then still agree.
    """
    run = settings(iterations=12, decay_from=6)
    eager = dataclasses.replace(run, training=dataclasses.replace(run.training, compile="never"))
    with deterministic():
        (_, losses, recorded), (_, expected, _) = (trained(one, 12) for one in (run, eager))
    assert recorded == ON_GPU
    for ours, theirs in zip(losses, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=0.02)
    assert (
        losses[-1]["reconstruction"] < 0.98 * losses[0]["reconstruction"]
    )  # more than that tolerance was learnt meanwhile


@pytest.mark.parametrize("name", [name for name in method_names() if name != "potgan"])
def test_every_method_is_recorded_and_its_recorded_steps_are_the_steps_themselves(name: str) -> None:
    """12 updates, over the change of stages where a method has stages. A learning rate near 0 keeps rounding from growing."""
    changes = {"precision": "fp32", "learning_rate": 1e-6, "compile": "auto"}
    one = settings_of(name)
    run = without_chance(dataclasses.replace(one, training=dataclasses.replace(one.training, **changes)))
    eager = dataclasses.replace(run, training=dataclasses.replace(run.training, compile="never"))
    with deterministic():
        (_, losses, recorded), (_, expected, _) = (trained(one, 12, dots()) for one in (run, eager))
    assert recorded == ON_GPU
    for ours, theirs in zip(losses, expected, strict=True):
        # Noise of a recorded step comes from the same generator as that of a step by itself, with the same seed.
        assert ours == pytest.approx(theirs, rel=0.02, abs=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_is_eager(precision: str) -> None:
    """The losses of eight updates, of which the first are compiled and the rest recorded."""
    compiled, losses, recorded = trained(settings(compile="always", precision=precision), 8)
    _, expected, _ = trained(settings(compile="never", precision=precision), 8)
    assert compiled.compiled
    assert compiled_without_failure()
    assert recorded == ON_GPU
    for ours, theirs in zip(losses, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3 if precision == "fp32" else 5e-2)


def test_batches_are_the_same_from_the_device_and_from_pinned_memory() -> None:
    data = people()
    positions = [[np.array([3, 1])], [np.array([0, 5]), np.array([2, 2])], [np.array([7, 4])]]
    resident = list(batches.training_batches(data.placed(DEVICE), DEVICE, positions))
    pinned = list(batches.training_batches(data, DEVICE, positions, ahead=True))
    for ours, theirs in zip(pinned, resident, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert not ON_GPU or all(values.is_pinned() for values in a.raw.values())
            for one, other in zip(vars(a.on(DEVICE)).values(), vars(b.on(DEVICE)).values(), strict=True):
                assert one.device.type == DEVICE.type
                assert torch.equal(one.nan_to_num(-1.0), other.nan_to_num(-1.0))  # missing joints are NaN


@only_on_a_gpu
def test_data_that_do_not_fit_the_gpu_train_the_same(monkeypatch) -> None:
    run = without_pose_transform(settings(iterations=8, decay_from=4))
    with deterministic():
        resident, losses, _ = trained(run, 8)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
        data = people().placed(DEVICE)
        assert data.images.is_pinned()
        pinned, others, recorded = trained(run, 8, data)
    assert recorded
    assert others == losses
    assert torch.equal(weights(pinned), weights(resident))


def test_a_training_that_was_stopped_continues_exactly(tmp_path: Path, monkeypatch) -> None:
    """Without warps and with deterministic algorithms: the same losses and weights, bit for bit, as without the stop."""
    run = without_pose_transform(settings(iterations=20, save_every=5, log_every=5))
    with deterministic():
        loop.train(people(), None, run, tmp_path / "whole" / "train", {}, DEVICE)
        folder = tmp_path / "broken" / "train"
        stopped_at(10, monkeypatch)
        with pytest.raises(Interrupted, match="iteration 10 of 20"):
            loop.train(people(), None, run, folder, {}, DEVICE)
        monkeypatch.undo()
        loop.train(people(), None, run, folder, {}, DEVICE)
    assert (folder / "progress.csv").read_text() == (tmp_path / "whole" / "train" / "progress.csv").read_text()
    ours, theirs = (
        torch.load(f / "train" / "generator-000020.pt", weights_only=True, map_location="cpu")["state"]
        for f in (tmp_path / "broken", tmp_path / "whole")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def stopped_at(iteration: int, monkeypatch) -> None:
    """The training finds at the end of this iteration that it was told to stop."""
    set_rates = PoTGAN.set_rates
    seen: list[int] = []

    @contextlib.contextmanager
    def signals() -> Iterator[list[int]]:
        yield seen

    def told(self: PoTGAN, now: int) -> None:
        if now == iteration - 1:
            seen.append(15)
        set_rates(self, now)

    monkeypatch.setattr(loop, "_stop_signals", signals)
    monkeypatch.setattr(PoTGAN, "set_rates", told)


def test_a_saved_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    """Weights, both optimisers' moments and counts, the average, and the random numbers of the host and the device."""
    run = settings(iterations=20, ema=0.9)
    method, _, _ = trained(run, 6)
    file = TrainingState(tmp_path / "a" / "train", {"settings": "these"})
    file.folder.mkdir(parents=True)
    file.save({"method": method.state_dict()}, DEVICE)
    expected = [torch.rand(3), torch.rand(3, device=DEVICE)]
    other = PoTGAN(dataclasses.replace(run, seed=run.seed + 1), DEVICE)
    other.load_state_dict(file.load(DEVICE)["method"])
    assert equal(other.state_dict(), method.state_dict())
    assert [
        torch.equal(a, b) for a, b in zip([torch.rand(3), torch.rand(3, device=DEVICE)], expected, strict=True)
    ] == [True] * 2


@only_on_a_gpu
def test_a_state_of_the_cpu_goes_on_on_the_gpu_and_back() -> None:
    """A machine may lose its GPU overnight. The state then continues on the CPU, and the other way round."""
    run = settings(iterations=20)
    on_cpu = PoTGAN(run, CPU)
    batch = people().batch(range(4))
    on_cpu.update([batch], 0)
    on_gpu = PoTGAN(run, DEVICE)
    on_gpu.load_state_dict(copy.deepcopy(on_cpu.state_dict()))
    update = updates.Update(on_gpu)
    for iteration in range(1, 7):
        update([people().placed(DEVICE).gather(range(4), on_gpu.needs)], iteration)
    assert update.recorded
    back = PoTGAN(run, CPU)
    state = torch.load(io.BytesIO(tensors_to_bytes(on_gpu.state_dict())), map_location="cpu", weights_only=True)
    back.load_state_dict(state)
    losses, expected = back.update([batch], 7), on_gpu.update([people().batch(range(4), DEVICE)], 7)
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-3)
    assert back.generator_optimizer.param_groups[0]["capturable"] is False


# ---------------------------------------------------------------------------------------------------------------------
# Use


def test_images_do_not_depend_on_how_many_are_made_at_once() -> None:
    """Another number of images may choose another algorithm, whose rounding may move a value over the middle of two levels."""
    pick_device()
    run = settings(width=32, size=(128, 64))
    generator = PoTGAN(run, DEVICE).generator
    data = people((128, 64)).placed(DEVICE)
    at_once = {batch: np.stack([image for image, _ in synthesise(generator, data, batch)]) for batch in (1, 5, 16)}
    for images in at_once.values():
        apart = np.abs(images.astype(int) - at_once[16].astype(int))
        assert apart.max() <= 1
        assert (apart > 0).mean() < 1e-3


def test_two_processes_on_one_card_train_as_one(tmp_path: Path) -> None:
    """NCCL refuses two processes on one GPU, so gloo carries the gradients."""
    one, two = tmp_path / "one" / "train", tmp_path / "two" / "train"
    loop.train(dots(), None, TWENTY_STEPS, one, {}, DEVICE)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "0" if ON_GPU else ""}
    done = subprocess.run(
        in_two_processes(two, "test_loop.TWENTY_STEPS"),
        capture_output=True, text=True, check=False, timeout=300, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(losses_of(two), losses_of(one), atol=1e-3)


@only_on_a_gpu
def test_a_record_names_the_card_and_a_full_card_is_one_line(tmp_path: Path) -> None:
    from potgan.common.errors import UserError

    record = loop.train(dots(), dots(4), TWENTY_STEPS, tmp_path / "a" / "train", {})
    assert record.device == torch.cuda.get_device_name()
    assert 0 < record.peak_memory_bytes < torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(1e-6)
    torch.cuda.empty_cache()
    try:
        with pytest.raises(UserError, match=r"the GPU has too little memory .* set training.device_batch_size to 2"):
            loop.train(dots(), None, settings(64, (32, 32)), tmp_path / "b" / "train", {})
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
