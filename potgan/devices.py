"""Where a training runs: its device, its processes, its number format, and what it took.

Devices, collectives and launching are torch's own (`torch.distributed`, `torchrun`'s launcher), and not Accelerate's: the
package must also run on a GPU machine that has torch and no package index, and one wrapper around two loss modules is
all that is needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import resource
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from potgan.config import TrainingSettings
from potgan.errors import Interrupted, UserError
from potgan.progress import say

#: Iterations below which compiling (a minute or two) costs more than it brings.
WORTH_COMPILING = 2000
#: Locks of GPUs that this process holds; the kernel frees them when it ends, however it ends.
_held: list = []


# ---------------------------------------------------------------------------------------------------------------------
# Devices


def pick_device() -> torch.device:
    """The device of this process: its own GPU, or the CPU.

    On a machine with several GPUs, jobs that run side by side take a free one each (Snakemake limits how many run, and
    does not say which GPU is whose). Slurm, or a person who sets CUDA_VISIBLE_DEVICES, has chosen already.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    count = torch.cuda.device_count()
    if count == 1 or "CUDA_VISIBLE_DEVICES" in os.environ:
        return torch.device("cuda", 0)
    return torch.device("cuda", take_devices(1, count)[0])


def take_devices(wanted: int, count: int) -> list[int]:
    """Numbers of `wanted` of the `count` GPUs that no other process of this user has taken; held until this one ends.

    If fewer are free, the rest are shared, with a line that says so.
    """
    taken: list[int] = []
    for index in range(count):
        if len(taken) == wanted:
            break
        path = Path(tempfile.gettempdir(), f"potgan-{os.getuid()}-gpu{index}.lock")
        file = open(path, "w")  # noqa: SIM115  held until the process ends
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        taken.append(index)
    missing = wanted - len(taken)
    if missing:
        shared = [index for index in range(count) if index not in taken][:missing]
        if len(shared) < missing:
            raise UserError(f"{wanted} GPUs are wanted, and this machine has {count}: lower training.processes")
        say(f"all GPUs are in use: sharing GPU {', '.join(map(str, shared))} with another job")
        taken += shared
    return sorted(taken)


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that this process has used: of the GPU, or on a CPU resident (the data and libraries included)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks: by default it gives large ones back to the kernel and faults them in again at
    every step (VGG's share of a step at 128 x 64, batch 8, one thread: 135 ms with the default, 85 ms with this and
    channels-last). A no-op where the C library is another."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
        libc.mallopt(top_pad, 256 << 20)


# ---------------------------------------------------------------------------------------------------------------------
# Number formats


def set_precision(precision: str, device: torch.device) -> None:
    """Switch the process to a named precision; UserError where the device has no such arithmetic.

    fp32: the paper's (implied). tf32: fp32 with 10-bit mantissas in matrix products, on NVIDIA GPUs since Ampere.
    bf16: convolutions and matrix products in bfloat16, all else (warps, guided filter, losses, weights) in fp32.
    """
    if precision == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device)[0] < 8):
        raise UserError(
            f"training.precision: tf32 needs an NVIDIA GPU of compute capability 8 or more, and this is {device_name(device)}; "
            "use fp32 or bf16"
        )
    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True  # the shapes of a training never change


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which networks run under a named precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def compiles(options: TrainingSettings, device: torch.device) -> bool:
    """Does this training compile its networks? `auto`: on a GPU, where an eager step is bound by kernel launches."""
    if options.compile == "auto":
        return device.type == "cuda" and options.iterations >= WORTH_COMPILING
    return options.compile == "always"


def compile_in_place(module: nn.Module, device: torch.device, processes: Processes) -> None:
    """torch.compile, with CUDA graphs where one process owns one GPU. A machine that cannot compile (no C++ compiler, no
    Triton) goes on uncompiled, and torch says why."""
    import torch._dynamo

    torch._dynamo.config.suppress_errors = True
    graphs = device.type == "cuda" and processes.count == 1
    module.compile(mode="reduce-overhead" if graphs else "default", dynamic=False)


# ---------------------------------------------------------------------------------------------------------------------
# Processes


@dataclass(frozen=True)
class Processes:
    """The processes of one training: one a GPU, or several on a CPU. Each sees `1 / count` of every batch."""

    rank: int = 0
    count: int = 1
    control: object = None  # a group over the CPU, for flags

    @property
    def first(self) -> bool:
        """Only the first process writes files."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """This process's part of a batch of `total` pairs."""
        part = total // self.count
        return slice(self.rank * part, (self.rank + 1) * part)

    def any(self, flag: bool) -> bool:
        """Is it so in any process? All of them get the same answer."""
        if self.count == 1:
            return flag
        told = torch.tensor(int(flag))
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self.control)
        return bool(told)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over processes of a tensor on the CPU."""
        if self.count == 1:
            return values
        values = values.clone()
        dist.all_reduce(values, group=self.control)
        return values / self.count

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier(group=self.control)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over the processes."""
        if self.count == 1:
            return module
        with warnings.catch_warnings():  # torch 2.13 has a new name for it, which 2.11 does not know
            warnings.simplefilter("ignore", FutureWarning)
            # Buffers: instance norm has none, and synchronised batch norm keeps its own in step.
            return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)


@contextlib.contextmanager
def processes() -> Iterator[Processes]:
    """The processes that torchrun (or `launch`) started this one among; a single one outside of it."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield Processes(dist.get_rank(), count, dist.new_group(backend="gloo"))
    finally:
        # After an error the others may hang in a collective; torchrun ends them.
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def launch(count: int, command: list[str]) -> None:
    """Run `python <command>` in `count` processes of one training.

    Raises SystemExit with the exit code of the first that failed (it has said why), and Interrupted after SIGTERM or
    Ctrl-C: the processes were told so and have saved their state.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if torch.cuda.is_available() and "CUDA_VISIBLE_DEVICES" not in os.environ:
        taken = take_devices(count, torch.cuda.device_count())
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, taken))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    configuration = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0",
        max_restarts=0, monitor_interval=0.2,
    )  # fmt: skip
    try:
        elastic_launch(configuration, sys.executable)(*command)
    except ChildFailedError as error:
        raise SystemExit(error.get_first_failure()[1].exitcode) from None
    except SignalException:
        raise Interrupted("stopped, with the state saved; the same command continues") from None
