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
from pathlib import Path

import torch
from torch import nn

from potgan.common.errors import UserError
from potgan.common.progress import say

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


def compiles(wanted: str, iterations: int, device: torch.device) -> bool:
    """Does this training compile its networks? `auto`: on a GPU, where an eager step is bound by kernel launches."""
    if wanted == "auto":
        return device.type == "cuda" and iterations >= WORTH_COMPILING
    return wanted == "always"


def compile_in_place(module: nn.Module, graphs: bool) -> None:
    """torch.compile. graphs: with CUDA graphs, which one process on one GPU can use.

    A machine that cannot compile (no C++ compiler, no Triton) goes on uncompiled, and torch says why.
    """
    import torch._dynamo

    torch._dynamo.config.suppress_errors = True
    module.compile(mode="reduce-overhead" if graphs else "default", dynamic=False)


# ---------------------------------------------------------------------------------------------------------------------
# Processes
