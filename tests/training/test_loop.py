"""Tests of training.

A training continues exactly after kills at random moments. A folder has only one trainer. The batches are a function of the step.
"""

import contextlib
import dataclasses
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from potgan.common import device
from potgan.common.errors import UserError
from potgan.data import batches
from potgan.methods.generator_file import load_generator
from potgan.methods.method import rate_factor
from potgan.methods.potgan.method import PoTGAN
from potgan.settings.schema import (
    DiscriminatorSettings,
    GeneratorSettings,
    GuidedFilterSettings,
    LossWeights,
    MaskSettings,
    RunSettings,
    TrainingSettings,
)
from potgan.training import loop
from potgan.training import state as training_state
from potgan.training.record import TrainingRecord

SETTINGS = RunSettings(
    dataset="dots",
    seed=3,
    image_size=(32, 32),
    generator=GeneratorSettings(
        width=4, normalization="batch", control_points=(3, 3), guided_filter=GuidedFilterSettings("test")
    ),
    discriminator=DiscriminatorSettings(width=4, normalization="none"),
    loss_weights=LossWeights(),
    masks=MaskSettings(limb_radius=2, heatmap_sigma=3.0),
    training=TrainingSettings(
        iterations=24,
        batch_size=2,
        learning_rate=1e-3,
        decay_from=12,
        perceptual_network="random",
        checkpoints=3,
        log_every=5,
        save_every=2,
    ),
)


def dots(count: int = 6) -> batches.PairData:
    """Return a few random images and joints, with all pairs of neighbours."""
    g = torch.Generator().manual_seed(1)
    joints = torch.rand(count, 18, 2, generator=g) * 31
    return batches.PairData(
        names=[str(i) for i in range(count)],
        images=torch.randint(0, 256, (count, 3, 32, 32), generator=g, dtype=torch.uint8),
        masks=255 * torch.randint(0, 2, (count, 1, 32, 32), generator=g, dtype=torch.uint8),
        joints=joints,
        sources=torch.arange(count),
        targets=(torch.arange(count) + 1) % count,
        sigma=3.0,
        parsing=torch.randint(0, 8, (count, 32, 32), generator=g, dtype=torch.uint8),
    )


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "generator-000024.pt", weights_only=True)["state"]


def run_here(folder: Path) -> dict:
    return loop.train(dots(), dots(4), SETTINGS, folder, {"images": "dots"}, torch.device("cpu"))


SCRIPT = """
import os, sys, time, torch
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_loop
from potgan.common import files
from potgan.common.errors import Interrupted, UserError
folder = Path({folder!r})
steps = open(folder.parent / "steps.log", "a", buffering=1)
step, count = torch.optim.Adam.step, 0
def slow(self, *a, **k):  # so that a kill finds it in the middle; two optimisers an iteration
    global count
    time.sleep(0.03)
    count += 1
    steps.write("step\\n")
    return step(self, *a, **k)
torch.optim.Adam.step = slow
fsync, writes = os.fsync, 0
def dying(number):  # killed with half of a file's bytes on the disk
    global writes
    writes += 1
    if writes == {die_at_write}:
        os.ftruncate(number, os.fstat(number).st_size // 2)
        os.kill(os.getpid(), 9)
    fsync(number)
files.os.fsync = dying
print("ready", flush=True)
try:
    test_loop.run_here(folder)
except Interrupted as stop:
    print(stop, file=sys.stderr)
    sys.exit(75)
except UserError as error:
    print("error:", error, file=sys.stderr)
    sys.exit(2)
"""


def start(folder: Path, die_at_write: int = 0, **how) -> subprocess.Popen:
    folder.parent.mkdir(parents=True, exist_ok=True)
    script = SCRIPT.format(tests=str(Path(__file__).parent), folder=str(folder), die_at_write=die_at_write)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, **how,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def wait_for(process: subprocess.Popen, path: Path) -> None:
    while not path.exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.1)


def saved_iteration(run: Path) -> int:
    """Return the iteration of the state file of a run, or 0 if there is none."""
    files = list(run.glob("checkpoint/*.pt"))
    return torch.load(files[0], weights_only=True)["iteration"] if files else 0


def wait_for_state(process: subprocess.Popen, run: Path, iteration: int = 1) -> None:
    while saved_iteration(run) < iteration:
        assert process.poll() is None
        time.sleep(0.02)


def killed_at(folder: Path, iteration: int) -> None:
    """Start a training, and kill it after it has saved this iteration or a later one."""
    process = start(folder)
    wait_for_state(process, folder.parent, iteration)
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The folder of a run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "train"
    run_here(folder)
    return folder


def assert_same_run(whole: Path, broken: Path) -> None:
    """Check that two runs are equal bit for bit: the weights of every kept generator, the curves and the pictures."""
    names = sorted(path.name for path in whole.glob("*") if path.name != "done.json")
    assert names == sorted(path.name for path in broken.glob("*") if path.name != "done.json")
    for name in names:
        if name.endswith(".pt"):
            ours, theirs = (torch.load(f / name, weights_only=True)["state"] for f in (whole, broken))
            assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
        else:
            assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    assert not list(broken.parent.glob("checkpoint/*partial*"))


def test_killed_at_random_moments_and_resumed_is_bit_equal_to_an_unbroken_run(whole, tmp_path) -> None:
    broken = tmp_path / "broken" / "train"
    moments = random.Random(20261123)
    kills = 0
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        lock = broken.parent / "checkpoint" / "lock"
        lock.unlink(missing_ok=True)  # when the lock is there again, the new process is about to set its handlers
        before = saved_iteration(broken.parent)
        (broken.parent / "steps.log").unlink(missing_ok=True)
        process = start(broken)
        wait_for(process, lock)
        time.sleep(moments.uniform(0.05, 0.4))
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        if (broken / "done.json").exists():  # the training ended before the kill
            break
        kills += 1
        done = before + len((broken.parent / "steps.log").read_text().splitlines()) // 2
        if number == signal.SIGKILL:
            # Only the steps since the last save are lost, and the step that was under way.
            assert saved_iteration(broken.parent) > done - 1 - SETTINGS.training.save_every
        else:
            assert process.returncode == 75, errors
            assert "the same command continues" in errors
            assert saved_iteration(broken.parent) == done
    assert kills >= 1
    run_here(broken)
    assert_same_run(whole, broken)


def test_in_the_background_ctrl_c_is_ignored_and_sigterm_stops_with_the_state_saved(whole, tmp_path) -> None:
    """A process that a shell starts in the background ignores SIGINT. The same holds for a process under `nohup`."""
    broken = tmp_path / "broken" / "train"
    process = start(broken, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    wait_for(process, broken.parent / "checkpoint" / "lock")
    steps = broken.parent / "steps.log"

    def iterations() -> int:
        return len(steps.read_text().splitlines()) // 2

    process.send_signal(signal.SIGINT)
    before = iterations()
    while iterations() < before + 3:  # the training goes on
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert saved_iteration(broken.parent) == iterations()
    run_here(broken)
    assert_same_run(whole, broken)


@pytest.mark.parametrize("die_at_write", [3, 5])
def test_killed_in_the_middle_of_a_write(whole, tmp_path, die_at_write: int) -> None:
    """Half a state (or generator, or table) is on the disk. It is never read, and it is removed."""
    broken = tmp_path / "broken" / "train"
    process = start(broken, die_at_write)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert list(broken.parent.glob("*/.*.partial"))
    run_here(broken)
    assert_same_run(whole, broken)


@pytest.fixture(params=["file size limit", "full disk"])
def little_room(request, tmp_path):
    """A place where a second state does not fit: (folder, arguments for Popen)."""
    room = 40_000  # bytes; a generator of this test is smaller, a state is larger
    if request.param == "file size limit":
        import resource

        yield tmp_path, {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))}
        return
    disk = tmp_path / "disk"
    disk.mkdir()
    size = 4_000_000  # bytes; some states fit until the test fills the disk
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here (not root)")
    yield disk, {}
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_one_line_and_the_state_before_it_stays(whole, little_room, tmp_path) -> None:
    place, how = little_room
    broken = place / "run" / "train"
    killed_at(broken, 4)
    kept = saved_iteration(broken.parent)
    filler = broken.parent / "filler"
    if not how:
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"0" * 4096)
    process = start(broken, **how)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    last = errors.strip().splitlines()[-1]
    assert re.search(r"error: .*cannot be written \((No space left on device|File too large)\); .* is kept", last), (
        errors
    )
    assert "Traceback" not in errors
    assert saved_iteration(broken.parent) == kept
    filler.unlink(missing_ok=True)
    moved = tmp_path / "moved" / "train"  # the disk of this test is too small for a whole run, so the run is moved
    shutil.copytree(broken.parent, moved.parent, ignore=shutil.ignore_patterns("tensorboard", "filler"))
    run_here(moved)
    assert_same_run(whole, moved)


def test_another_configuration_is_not_continued_from_and_the_differences_are_named(tmp_path, capfd) -> None:
    folder = tmp_path / "run" / "train"
    killed_at(folder, 1)
    states = set(folder.parent.glob("checkpoint/*.pt"))
    other = dataclasses.replace(SETTINGS, training=dataclasses.replace(SETTINGS.training, learning_rate=2e-3))
    loop.train(dots(), None, other, folder, {"images": "other dots"}, torch.device("cpu"), code="edited")
    told = next(line for line in capfd.readouterr().err.splitlines() if "another configuration" in line)
    assert "data.images: dots there, other dots now" in told
    assert "settings.training.learning_rate: 0.001 there, 0.002 now" in told
    assert "code:  there, edited now" in told
    assert told.count(" there, ") == 3
    assert set(folder.parent.glob("checkpoint/*.pt")) == states  # the old training can still be continued
    fresh = tmp_path / "fresh" / "train"
    loop.train(dots(), None, other, fresh, {"images": "other dots"}, torch.device("cpu"))
    for name, tensor in final_weights(fresh).items():
        assert torch.equal(tensor, final_weights(folder)[name]), name


def test_a_damaged_state_is_one_line(tmp_path) -> None:
    folder = tmp_path / "run" / "train"
    state = training_state.TrainingState(
        folder, {"settings": SETTINGS.training_dict, "data": {"images": "dots"}, "code": ""}
    )
    state.save({"iteration": 2}, torch.device("cpu"))
    state.path.write_bytes(state.path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cannot be read .*; delete it, and training starts again at iteration 0"):
        run_here(folder)


def test_two_trainers_in_one_folder_are_refused(tmp_path) -> None:
    folder = tmp_path / "run" / "train"
    process = start(folder)
    try:
        wait_for(process, folder.parent / "checkpoint" / "lock")
        with pytest.raises(UserError, match="another process is training here"):
            run_here(folder)
    finally:
        process.kill()
        process.communicate()


def losses_of(folder: Path) -> np.ndarray:
    columns = ["reconstruction", "perceptual", "adversarial", "discriminator"]
    return pd.read_csv(folder / "progress.csv")[columns].to_numpy()


TWENTY_STEPS = dataclasses.replace(
    SETTINGS,
    generator=dataclasses.replace(SETTINGS.generator, normalization="instance"),
    training=dataclasses.replace(
        SETTINGS.training, iterations=20, decay_from=10, batch_size=4, log_every=1, checkpoints=1
    ),
)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one") / "train"
    loop.train(dots(), None, TWENTY_STEPS, folder, {}, torch.device("cpu"))
    return folder


def in_two_processes(folder: Path, settings: str, *prelude: str) -> list[str]:
    script = folder.parent / "script.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        "import sys, torch, time, dataclasses",
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})",
        "import test_loop",
        "from pathlib import Path",
        "from potgan.training import loop",
        "from potgan.common.errors import Interrupted, UserError",
        *prelude,
        "try:",
        f"    loop.train(test_loop.dots(), test_loop.dots(4), {settings}, Path({str(folder)!r}), {{}})",
        "except Interrupted: sys.exit(75)",
        "except UserError as error: print('error:', error, file=sys.stderr); sys.exit(2)",
    ]
    script.write_text("\n".join(lines))
    parent = folder.parent / "parent.py"
    parent.write_text(
        # On the CPU, wherever the test does not say otherwise.
        "import os, sys; os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')\n"
        "from potgan.common import processes\nfrom potgan.common.errors import Interrupted\n"
        f"try: processes.launch(2, [{str(script)!r}])\nexcept Interrupted: sys.exit(75)\n"
    )
    return [sys.executable, str(parent)]


def test_two_processes_at_half_the_batch_train_as_one_at_the_whole(one_process, tmp_path) -> None:
    folder = tmp_path / "two" / "train"
    command = in_two_processes(folder, "test_loop.TWENTY_STEPS")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(losses_of(folder), losses_of(one_process), atol=2e-4)
    ours, theirs = (torch.load(f / "generator-000020.pt", weights_only=True)["state"] for f in (folder, one_process))
    # Adam divides a gradient by its own size. If a gradient consists only of rounding, so does the step. 20 steps move a weight
    # by at most 20 x 1e-3, which is the tolerance here.
    difference = torch.cat([(ours[key] - theirs[key]).abs().flatten() for key in ours])
    # With even transposed convolutions at the start, more gradients are small, and more steps are such steps.
    assert difference.quantile(0.5) < 1e-3
    assert difference.quantile(0.999) < 5e-3
    assert difference.max() < 20 * 1e-3
    assert json.loads((folder / "done.json").read_text())["processes"] == 2


def plain_descent(rate: float) -> str:
    """Return a line of a script that puts plain gradient descent in the place of Adam."""
    return f"torch.optim.Adam = lambda groups, **_: torch.optim.SGD(groups, lr={rate})"


def test_without_adam_two_processes_have_the_weights_of_one(tmp_path, monkeypatch) -> None:
    """So the differences that the test above allows are Adam's, which makes whole steps of gradients that are rounding alone."""
    two, one = tmp_path / "two" / "train", tmp_path / "one" / "train"
    command = in_two_processes(two, "test_loop.TWENTY_STEPS", plain_descent(1e-3))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(torch.optim, "Adam", lambda groups, **_: torch.optim.SGD(groups, lr=1e-3))
    loop.train(dots(), None, TWENTY_STEPS, one, {}, torch.device("cpu"))
    ours, theirs = (torch.load(f / "generator-000020.pt", weights_only=True)["state"] for f in (two, one))
    start = PoTGAN(TWENTY_STEPS, torch.device("cpu")).generator.state_dict()
    moved = max((theirs[key] - start[key]).abs().max().item() for key in theirs)
    apart = max((ours[key] - theirs[key]).abs().max().item() for key in ours)
    assert moved > 1e-3
    assert apart < 1e-4 * moved


#: A line of a script that makes its training so slow that a signal can interrupt it.
SLOW_STEPS = "step = torch.optim.Adam.step; torch.optim.Adam.step = lambda self, *a, **k: (time.sleep(.05), step(self, *a, **k))[1]"


def ignore_what_nohup_ignores() -> None:
    """Ignore SIGHUP, as under `nohup`, and SIGINT, as in the background of a shell. This is called in a new process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("in_new_process", [None, ignore_what_nohup_ignores], ids=["terminal", "background"])
def test_two_processes_told_to_stop_save_together_and_go_on(one_process, tmp_path, in_new_process) -> None:
    folder = tmp_path / "two" / "train"
    process = subprocess.Popen(
        in_two_processes(folder, "test_loop.TWENTY_STEPS", SLOW_STEPS), stderr=subprocess.PIPE, text=True,
        preexec_fn=in_new_process,
    )  # fmt: skip
    wait_for_state(process, folder.parent)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert 2 <= saved_iteration(folder.parent) < 20
    done = subprocess.run(in_two_processes(folder, "test_loop.TWENTY_STEPS"), capture_output=True, check=False)
    assert done.returncode == 0
    np.testing.assert_allclose(losses_of(folder), losses_of(one_process), atol=2e-4)


def test_two_processes_in_the_background_outlive_the_terminal(one_process, tmp_path) -> None:
    folder = tmp_path / "two" / "train"
    process = subprocess.Popen(
        in_two_processes(folder, "test_loop.TWENTY_STEPS", SLOW_STEPS), stderr=subprocess.PIPE, text=True,
        preexec_fn=ignore_what_nohup_ignores,
    )  # fmt: skip
    wait_for_state(process, folder.parent)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    np.testing.assert_allclose(losses_of(folder), losses_of(one_process), atol=2e-4)


def test_a_users_error_in_two_processes_keeps_its_exit_code_and_its_line(tmp_path) -> None:
    folder = tmp_path / "two" / "train"
    batch_norm = "S = dataclasses.replace(test_loop.TWENTY_STEPS, generator=test_loop.SETTINGS.generator)"
    done = subprocess.run(
        in_two_processes(folder, "S", batch_norm), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 2
    assert done.stderr.count("batch norm over several processes needs GPUs") >= 1


def test_accumulated_parts_train_as_the_whole_batch(one_process, tmp_path) -> None:
    halves = dataclasses.replace(TWENTY_STEPS, training=dataclasses.replace(TWENTY_STEPS.training, device_batch_size=3))
    assert loop.part_count(halves.training, 1) == 2  # 4 pairs with at most 3 at once are two parts of 2
    folder = tmp_path / "halves" / "train"
    loop.train(dots(), None, halves, folder, {}, torch.device("cpu"))
    np.testing.assert_allclose(losses_of(folder), losses_of(one_process), atol=1e-4)


def test_gradients_of_parts_are_the_gradient_of_the_batch() -> None:
    """The test takes one step in float64, with plain gradient descent in place of Adam, which would amplify rounding."""
    weights = []
    for parts in (1, 2, 4):
        method = PoTGAN(TWENTY_STEPS, torch.device("cpu"))
        for network in (method.generator, method.discriminator, method.perceptual):
            network.double()
        method.generator_optimizer = torch.optim.SGD(method.generator.parameters(), lr=1.0)
        method.discriminator_optimizer = torch.optim.SGD(method.discriminator.parameters(), lr=1.0)
        method._rates = [1.0]
        whole = dots().batch(range(4))
        batches = [
            type(whole)(**{name: value[i::parts].double() for name, value in vars(whole).items()}) for i in range(parts)
        ]
        method.update(batches, 0)
        weights.append(
            torch.cat(
                [p.detach().flatten() for p in (*method.generator.parameters(), *method.discriminator.parameters())]
            )
        )
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["instance", "none", "batch"])
def test_real_and_synthesised_pairs_never_share_statistics(norm: str) -> None:
    """The loss is always that of two separate passes.

    So batch statistics are taken over real pairs or over synthesised pairs, and never over both.
    """
    settings = dataclasses.replace(
        SETTINGS, discriminator=dataclasses.replace(SETTINGS.discriminator, normalization=norm)
    )
    method = PoTGAN(settings, torch.device("cpu"))
    method.discriminator.double()
    batch = dots().batch(range(3))
    real, fake, mask = (x.double() for x in (batch.target_image, batch.source_image, batch.target_mask))
    target, zero = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
    expected = (
        cross_entropy(method.discriminator(real, mask), target) + cross_entropy(method.discriminator(fake, mask), zero)
    ) / 2
    doubled = dataclasses.replace(batch, target_image=real, target_mask=mask)
    torch.testing.assert_close(method._discriminator_loss(fake, doubled), expected, rtol=0, atol=1e-12)


def test_the_average_of_weights_is_the_recursion(tmp_path) -> None:
    settings = dataclasses.replace(SETTINGS, training=dataclasses.replace(SETTINGS.training, ema=0.75))
    method = PoTGAN(settings, torch.device("cpu"))
    expected = None
    for i in range(4):
        method.update([dots().batch([i, i + 1])], 0)
        trained = method.networks["generator"]
        weight = trained.decoder.image.weight.detach().double()
        running = trained.decoder.blocks[0][1].running_var.double()
        now = torch.cat([weight.flatten(), running])
        expected = now.clone() if expected is None else 0.75 * expected + 0.25 * now
    kept = method.generator
    found = torch.cat([kept.decoder.image.weight.flatten(), kept.decoder.blocks[0][1].running_var])
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-5)


@pytest.mark.parametrize("ahead", [True, False])
def test_batches_do_not_depend_on_who_gathers_them(ahead: bool) -> None:
    data = dots()
    lists = [[np.array([0, 3])], [np.array([5, 1]), np.array([2, 2])], [np.array([4])]]
    found = list(batches.training_batches(data, torch.device("cpu"), lists, ahead=ahead))
    assert [len(parts) for parts in found] == [1, 2, 1]
    for parts, positions in zip(found, lists, strict=True):
        for gathered, picked in zip(parts, positions, strict=True):
            batch = gathered.on(torch.device("cpu"))
            assert torch.equal(batch.source_image, data.images[picked].float() / 127.5 - 1)
            assert torch.equal(batch.target_mask, data.masks[(picked + 1) % 6].float() / 255)
            # The peak of a heat map lies at its joint.
            peaks = batch.target_heatmaps.flatten(2).argmax(dim=2)
            joints = data.joints[(picked + 1) % 6].round().clamp(0, 31)
            assert torch.equal(peaks, (joints[..., 1] * 32 + joints[..., 0]).long())


def test_a_batch_is_shared_among_processes_without_gap_or_overlap() -> None:
    from potgan.common.processes import Processes

    for count in (1, 2, 4):
        shares = [list(range(8))[Processes(rank, count).share(8)] for rank in range(count)]
        assert [i for share in shares for i in share] == list(range(8))
        assert len({len(share) for share in shares}) == 1


def test_bf16_trains_close_to_fp32_and_warps_stay_exact(one_process, tmp_path) -> None:
    half = dataclasses.replace(TWENTY_STEPS, training=dataclasses.replace(TWENTY_STEPS.training, precision="bf16"))
    method = PoTGAN(half, torch.device("cpu"))
    batch = dots().batch(range(4))
    with torch.autocast("cpu", torch.bfloat16):
        out = method.generator(batch.source_image, batch.source_mask, batch.target_mask, batch.target_heatmaps)
    assert out.image.dtype == torch.float32
    from potgan.methods.potgan.tps import resting_points

    rest = torch.from_numpy(resting_points(3, 3, half.generator.control_point_span)).float()
    for points in out.control_points:
        assert points.dtype == torch.float32
        torch.testing.assert_close(points, rest.expand_as(points), rtol=0, atol=1e-6)  # bf16 would be off by 2e-3
    folder = tmp_path / "half" / "train"
    record = loop.train(dots(), None, half, folder, {}, torch.device("cpu"))
    assert record.precision == "bf16"
    np.testing.assert_allclose(losses_of(folder), losses_of(one_process), rtol=0.02)
    assert np.abs(losses_of(folder) - losses_of(one_process)).max() > 1e-6  # bf16 rounds differently


def test_auto_is_bf16_where_the_processor_has_it_and_a_state_says_which(tmp_path, monkeypatch, capfd) -> None:
    automatic = dataclasses.replace(
        TWENTY_STEPS, training=dataclasses.replace(TWENTY_STEPS.training, precision="auto", iterations=6, decay_from=3)
    )
    cpu, folder = torch.device("cpu"), tmp_path / "auto" / "train"
    for has_bf16, wanted in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(device, "_cpu_multiplies_bf16", lambda has_bf16=has_bf16: has_bf16)
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            wanted = "fp32"
        assert device.actual_precision("auto", cpu) == wanted
        record = loop.train(dots(), None, automatic, folder, {}, cpu)
        assert record.precision == wanted
        assert PoTGAN(automatic, cpu).precision == wanted
    assert device.actual_precision("bf16", cpu) == "bf16"
    # The second training was another one: it did not take over what was trained in the other precision.
    notes = list(folder.parent.glob("checkpoint/*.finished.json"))
    assert len(notes) == (2 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else 1)


def test_tf32_without_such_a_gpu_is_one_line(tmp_path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    settings = dataclasses.replace(SETTINGS, training=dataclasses.replace(SETTINGS.training, precision="tf32"))
    with pytest.raises(UserError, match="tf32 needs an NVIDIA GPU of compute capability 8"):
        loop.train(dots(), None, settings, tmp_path / "train", {}, torch.device("cpu"))


def test_tensorboard_tells_what_progress_csv_tells(tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run" / "train"
    killed_at(folder, 10)
    run_here(folder)
    events = EventAccumulator(str(folder.parent / "tensorboard"), {"scalars": 0, "images": 0}).Reload()
    table = pd.read_csv(folder / "progress.csv").set_index("iteration")
    for name in ("reconstruction", "perceptual", "adversarial", "discriminator"):
        # Two sessions wrote points, and each point must be there once.
        points = {event.step: event.value for event in events.Scalars(f"loss/{name}")}
        assert list(points) == list(table.index)
        np.testing.assert_allclose(list(points.values()), table[name], rtol=1e-5)
    assert [e.step for e in events.Images("source, pose, synthesised, target")] == [8, 16, 24]


def test_free_gpus_are_taken_one_each_and_given_back_when_a_process_ends(tmp_path) -> None:
    """The test needs no GPU, because it checks only the locks."""
    code = (
        "import sys; from potgan.common import device\nprint(device.take_devices(int(sys.argv[1]), 3), flush=True)\n"
        "sys.stdin.read()"
    )

    def job(wanted: int) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-c", code, str(wanted)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)},
        )  # fmt: skip

    jobs = [job(2)]
    assert jobs[0].stdout.readline() == "[0, 1]\n"
    jobs.append(job(1))
    assert jobs[1].stdout.readline() == "[2]\n"
    jobs.append(job(1))
    assert jobs[2].stdout.readline() == "[0]\n"
    jobs[0].kill()
    jobs[0].wait()
    jobs.append(job(1))
    assert jobs[3].stdout.readline() == "[0]\n"
    for process in jobs:
        process.kill()
        _, errors = process.communicate()
        assert ("sharing GPU 0" in errors) == (process is jobs[2])


def test_record_names_every_kept_generator_by_its_hash(tmp_path) -> None:
    import hashlib

    folder = tmp_path / "run" / "train"
    run_here(folder)
    record = json.loads((folder / "done.json").read_text())
    assert list(record["generators"]) == ["generator-000008.pt", "generator-000016.pt", "generator-000024.pt"]
    for name, digest in record["generators"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert not list(folder.parent.glob("checkpoint/*.pt"))  # with a state there, a forced rerun would do nothing


def test_a_finished_training_is_taken_over_and_nothing_else_is(tmp_path, monkeypatch, capfd) -> None:
    """If Snakemake was killed while the trainer went on, it removes `done.json` and runs the job again."""
    folder = tmp_path / "run" / "train"
    steps = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *a, **k: (steps.append(1), step(self, *a, **k))[1])
    first = run_here(folder)
    trained = len(steps)
    (folder / "done.json").unlink()
    assert run_here(folder) == first
    assert TrainingRecord.read(folder / "done.json") == first
    assert len(steps) == trained
    assert "is taken over; to train it again, remove" in capfd.readouterr().err
    # A generator file was changed after the training.
    weights = folder / "generator-000016.pt"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    run_here(folder)
    assert len(steps) == 2 * trained
    assert weights.read_bytes() == whole
    # The code is another one.
    loop.train(dots(), dots(4), SETTINGS, folder, {"images": "dots"}, torch.device("cpu"), code="other")
    assert len(steps) == 3 * trained
    # The data are others.
    loop.train(dots(), dots(4), SETTINGS, folder, {"images": "other"}, torch.device("cpu"))
    assert len(steps) == 4 * trained


def test_a_generator_of_other_settings_is_refused(tmp_path) -> None:
    folder = tmp_path / "run" / "train"
    run_here(folder)
    wider = dataclasses.replace(SETTINGS.generator, width=8)
    with pytest.raises(UserError, match="width: 4 in the file, 8 wanted"):
        load_generator(folder / "generator-000024.pt", wider, torch.device("cpu"))
    no_filter = dataclasses.replace(SETTINGS.generator, guided_filter=GuidedFilterSettings("off"))
    loaded = load_generator(folder / "generator-000024.pt", no_filter, torch.device("cpu"))
    assert loaded.iteration == 24
    assert not loaded.generator.filters


def test_a_loss_that_explodes_stops_the_run_and_the_last_good_state_is_named(tmp_path) -> None:
    reckless = dataclasses.replace(
        SETTINGS,
        discriminator=dataclasses.replace(SETTINGS.discriminator, width=16),
        training=dataclasses.replace(SETTINGS.training, discriminator_learning_rate=20.0, iterations=60, decay_from=60),
    )
    folder = tmp_path / "run" / "train"
    with pytest.raises(UserError, match=r"lower the learning rate\. The last good state is") as error:
        loop.train(dots(), None, reckless, folder, {}, torch.device("cpu"))
    assert "has exploded" in str(error.value) or "no longer finite" in str(error.value)
    for path in folder.parent.glob("checkpoint/*.pt"):
        assert str(path) in str(error.value)
        for name, tensor in torch.load(path, weights_only=True)["method"]["generator"].items():
            assert tensor.isfinite().all(), name


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path) -> None:
    reckless = dataclasses.replace(SETTINGS, loss_weights=LossWeights(reconstruction=float("inf")))
    with pytest.raises(UserError, match="no longer finite at iteration"):
        loop.train(dots(), None, reckless, tmp_path / "run" / "train", {}, torch.device("cpu"))


def test_training_learns_to_copy_one_image(tmp_path) -> None:
    """The only image is its own target. L1 must fall far below that of a constant grey image."""
    data = dataclasses.replace(dots(1), images=dots(1).images[..., :1].expand(-1, -1, -1, 32).contiguous())
    training = dataclasses.replace(
        SETTINGS.training, iterations=120, decay_from=60, checkpoints=1, batch_size=1, learning_rate=5e-3
    )
    settings = dataclasses.replace(SETTINGS, training=training, loss_weights=LossWeights(10, 0, 0))
    folder = tmp_path / "run" / "train"
    loop.train(data, None, settings, folder, {}, torch.device("cpu"))
    lines = (folder / "progress.csv").read_text().splitlines()
    last = dict(zip(lines[0].split(","), lines[-1].split(","), strict=True))
    images = batches.to_model(data.images)
    assert float(last["reconstruction"]) < 0.5 * (images - images.median()).abs().mean().item()


def test_every_pass_sees_every_pair_once_and_differs_between_seeds_and_passes() -> None:
    count, size = 10, 4
    drawn = np.concatenate([batches.training_indices(count, size, 0, i) for i in range(5)])
    assert sorted(drawn[:count]) == list(range(count))
    assert sorted(drawn[count:]) == list(range(count))
    assert list(drawn[:count]) != list(drawn[count:])
    assert list(batches.training_indices(100, 50, 0, 0)) != list(batches.training_indices(100, 50, 1, 0))
    # A batch may be larger than the set. It then takes pairs from several passes.
    assert sorted(batches.training_indices(3, 6, 0, 0)) == [0, 0, 1, 1, 2, 2]


def test_learning_rate_is_constant_then_linear_to_zero() -> None:
    factors = [rate_factor(i, 60, 90) for i in range(90)]
    assert factors[:60] == [1.0] * 60
    np.testing.assert_allclose(np.diff(factors[60:]), -1 / 30)
    assert factors[60] == 1.0
    assert factors[-1] == pytest.approx(1 / 30)
    assert rate_factor(5, 10, 10) == 1.0  # there is no decay at all


@pytest.mark.parametrize("value", range(0, 256, 15))
def test_pixels_survive_the_round_trip(value: int) -> None:
    image = torch.full((1, 3, 2, 2), value, dtype=torch.uint8)
    assert torch.equal(batches.to_pixels(batches.to_model(image)), image)
    assert batches.to_pixels(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]


def test_terms_that_begin_later_have_means_and_explosions_of_their_own(tmp_path) -> None:
    """A method that trains in stages: the second term is there in two of three iterations, and its mean is over these."""
    from potgan.common.processes import Processes
    from potgan.training.log import LossMeter

    meter = LossMeter({"first": "A", "second": "B"}, Processes())
    meter.add({"first": torch.tensor(1.0)})
    for value in (10.0, 20.0):
        meter.add({"first": torch.tensor(4.0), "second": torch.tensor(value)})
    assert meter.means() == {"first": 3.0, "second": 15.0}
    again = LossMeter(meter.names, meter.processes)
    again.load_state_dict(json.loads(json.dumps(meter.state_dict())))
    again.add({"second": torch.tensor(30.0)})
    assert again.means() == {"first": 3.0, "second": 20.0}
    again.check(tmp_path, 4, "none")
    again.add({"second": torch.tensor(1e5)})
    with pytest.raises(UserError, match=r"the second loss has exploded \(10 at first\)"):
        again.check(tmp_path, 5, "none")
