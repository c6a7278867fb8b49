"""The device that a process computes on, and the number format that it computes in.

Devices and processes are handled by torch itself and not by Accelerate, because the package must also run on a GPU machine that
has torch and no package index.
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

#: A training of fewer iterations is not compiled, because compiling takes more than it saves. On an NVIDIA H200, at the paper's
#: width and a batch of 32, it takes about a minute and saves 5 ms per iteration (benchmarks/speed/results/h200).
WORTH_COMPILING = 10_000
#: Open lock files of the GPUs that this process holds. The kernel frees the locks when the process ends, however it ends.
_held: list = []


# ---------------------------------------------------------------------------------------------------------------------
# Devices


def pick_device() -> torch.device:
    """The device of this process: a GPU of its own, or the CPU.

    On a machine with several GPUs, each of the jobs that run at the same time takes a free one, because Snakemake limits how
    many jobs run and does not say which GPU each may use. Where CUDA_VISIBLE_DEVICES is set, Slurm or the user has chosen.

    The process computes in fp32 until a training sets another precision. Torch's own default for convolutions is TF32.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    _allow_tf32(False)
    count = torch.cuda.device_count()
    if "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % count)
    if count == 1 or "CUDA_VISIBLE_DEVICES" in os.environ:
        return torch.device("cuda", 0)
    return torch.device("cuda", take_devices(1, count)[0])


def take_devices(wanted: int, count: int) -> list[int]:
    """The numbers of `wanted` of the `count` GPUs. This process holds them until it ends.

    GPUs that no other process of this user holds are taken first. If too few are free, others are shared, and a line says so.
    Raises UserError where more GPUs are wanted than there are.
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
    """The name of a device for records and messages."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()})"


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that this process has used so far, in bytes.

    On a GPU this is the memory of tensors. On a CPU it is the resident memory of the process, with data and libraries.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks of memory.

    By default glibc gives large blocks back to the kernel and asks for them again at every step. VGG's share of a step (128 x 64
    pixels, batch of 8, one thread) took 135 ms with the default, and 85 ms with this and the channels-last layout. Where the C
    library is another one, this does nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # malloc.h
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
        libc.mallopt(top_pad, 256 << 20)


# ---------------------------------------------------------------------------------------------------------------------
# Number formats


def actual_precision(precision: str, device: torch.device) -> str:
    """The precision that a setting means on a device: for "auto", bf16 where the device has such arithmetic, else fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        has_bf16 = torch.cuda.get_device_capability(device)[0] >= 8
    else:
        has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported() and _cpu_multiplies_bf16()
    return "bf16" if has_bf16 else "fp32"


def _cpu_multiplies_bf16() -> bool:
    """Whether the processor has instructions for products in bf16. Without them, oneDNN computes in fp32 and only rounds."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def set_precision(precision: str, device: torch.device) -> None:
    """Switch this process to a precision. Raises UserError where the device has no such arithmetic.

    fp32: single precision, which the paper implies. tf32: fp32 with 10-bit mantissas in matrix products, on NVIDIA GPUs since
    Ampere. bf16: convolutions and matrix products in bfloat16, and all else (warps, guided filter, losses, weights) in fp32.
    """
    if precision == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device)[0] < 8):
        raise UserError(
            f"training.precision: tf32 needs an NVIDIA GPU of compute capability 8 or more, and this is {device_name(device)}; "
            "use fp32 or bf16"
        )
    tf32 = precision == "tf32"
    _allow_tf32(tf32)
    torch.backends.cudnn.benchmark = True  # the shapes of a training never change


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which networks run under a precision of `set_precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def compiles(wanted: str, iterations: int, device: torch.device) -> bool:
    """Whether a training of so many iterations compiles its networks. wanted: "auto", "always" or "never".

    With "auto", long trainings on a GPU do, because one kernel in place of several moves less through the device's memory.
    """
    if wanted == "auto":
        return device.type == "cuda" and iterations >= WORTH_COMPILING
    return wanted == "always"


def compile_in_place(module: nn.Module) -> None:
    """Compile a network with torch.compile.

    On a machine that cannot compile (without a C++ compiler or Triton) the network runs uncompiled, and torch prints why.
    """
    import torch._dynamo
    import torch._inductor.config

    torch._dynamo.config.suppress_errors = True
    # The compiler keeps channels last where a graph has few convolutions that lower the number of channels. The decoders here have
    # some, and tensor cores read channels last.
    torch._inductor.config.force_layout_optimization = True
    module.compile(dynamic=False)


def compiled_without_failure() -> bool:
    """Whether everything that this process has compiled so far did compile. torch goes on uncompiled after a failure."""
    from torch._dynamo.utils import counters

    frames = counters["frames"]
    return 0 < frames["ok"] == frames["total"]
