"""A training in several processes, by torch's own collectives and launcher."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from potgan.common.device import take_devices
from potgan.common.errors import Interrupted

#: Signals on which the launcher ends the processes of a training.
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True)
class Processes:
    """The processes of one training, one per GPU or several on a CPU. Each trains on `1 / count` of every batch.

    rank: this process's number, from 0. count: how many there are. control: the group that exchanges flags and numbers on the
    CPU; None where there is one process.
    """

    rank: int = 0
    count: int = 1
    control: object = None

    @property
    def first(self) -> bool:
        """Whether this is the first process, the only one that writes files."""
        return self.rank == 0

    def share(self, total: int) -> slice:
        """The part of a batch of `total` pairs that this process trains on."""
        part = total // self.count
        return slice(self.rank * part, (self.rank + 1) * part)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any of the processes. All of them call this, and get the same answer."""
        if self.count == 1:
            return flag
        told = torch.tensor(int(flag))
        dist.all_reduce(told, dist.ReduceOp.MAX, group=self.control)
        return bool(told)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor on the CPU over all processes. All of them call this, and get the same answer."""
        if self.count == 1:
            return values
        values = values.clone()
        dist.all_reduce(values, group=self.control)
        return values / self.count

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.count > 1:
            dist.barrier(group=self.control)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, with its gradients averaged over the processes."""
        if self.count == 1:
            return module
        with warnings.catch_warnings():  # torch 2.13 warns about this name; torch 2.11 does not know the new one
            warnings.simplefilter("ignore", FutureWarning)
            # Buffers need no broadcast: instance norm has none, and synchronised batch norm keeps its own equal.
            return nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients of `parameters` by their means over the processes. All of them call this together."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.count == 1 or not gradients:
            return
        together = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(together)
        parts = (together / self.count).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))


@contextlib.contextmanager
def processes() -> Iterator[Processes]:
    """The processes of this training: those that torchrun or `launch` started together, or else this one alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % gpus)
    # NCCL refuses two processes on one GPU. Where there are too few GPUs, gloo carries the gradients through the host.
    enough = gpus >= int(os.environ.get("LOCAL_WORLD_SIZE", count))
    dist.init_process_group("nccl" if enough else "gloo")
    try:
        yield Processes(dist.get_rank(), count, dist.new_group(backend="gloo"))
    finally:
        # After an error the other processes may wait for this one; torchrun ends them.
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()


def launch(count: int, command: list[str]) -> None:
    """Run `python <command>` in `count` processes of one training, and wait for them.

    Raises SystemExit with the exit code of the process that failed first, which has printed the reason. Raises Interrupted after
    SIGTERM or Ctrl-C; the processes have got the signal, too, and have saved their state.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if torch.cuda.is_available() and "CUDA_VISIBLE_DEVICES" not in os.environ:
        taken = take_devices(count, torch.cuda.device_count())
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, taken))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # By default the launcher also ends the training on signals that this process was started to ignore: SIGHUP under `nohup`,
    # and SIGINT in the background of a shell.
    heeded = [n.name for n in _STOP_SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    configuration = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0",
        max_restarts=0, monitor_interval=0.2, signals_to_handle=",".join(heeded),
    )  # fmt: skip
    try:
        elastic_launch(configuration, sys.executable)(*command)
    except ChildFailedError as error:
        raise SystemExit(error.get_first_failure()[1].exitcode) from None
    except SignalException:
        raise Interrupted("stopped, with the state saved; the same command continues") from None
