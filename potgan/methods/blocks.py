"""The convolutional blocks of the generator and the discriminator, and their initialisation."""

from __future__ import annotations

import warnings

import torch
import torch.distributed as dist
from torch import nn

from potgan.common.errors import UserError

# torch announces another place for the function of `mean_over_processes`. A filter around the call would stop the compiler there.
warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.nn")

#: The slope of every leaky ReLU below 0. The value is that of DCGAN, which Deformable GAN and PG2 use too.
SLOPE = 0.2


def normalization(kind: str, channels: int) -> nn.Module:
    """Return the normalization layer of a kind for a number of channels.

    `instance` has no affine part and no running statistics (docs/decisions.md, D20). `batch` has both. `none` is the identity.
    """
    match kind:
        case "instance":
            return nn.InstanceNorm2d(channels)
        case "batch":
            return nn.BatchNorm2d(channels)
        case "none":
            return nn.Identity()
    raise ValueError(f"unknown normalization {kind!r}")


def down_block(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    """Return a block that halves the resolution: 4x4 stride-2 convolution, normalization, leaky ReLU."""
    # A normalization removes the bias of the convolution before it. Such a bias would never receive a gradient.
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=norm == "none"),
        normalization(norm, outputs),
        nn.LeakyReLU(SLOPE, inplace=True),
    )


def up_block(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    """Return a block that doubles the resolution: 4x4 stride-2 transposed convolution, normalization, ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=norm == "none"),
        normalization(norm, outputs),
        nn.ReLU(inplace=True),
    )


def at_least_fp32(x: torch.Tensor) -> torch.Tensor:
    """Return `x` in fp32 if autocast has made it bf16 or fp16; any other `x` is returned as it is.

    Warps, the guided filter and the losses are never computed in a coarser precision than fp32.
    """
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def initialise(module: nn.Module) -> None:
    """Draw new weights for every layer of `module`, as DCGAN and PATN do.

    Convolutions and linear layers get weights from N(0, 0.02) and zero biases. Batch norms get weights from N(1, 0.02) and zero
    biases. The second number is the standard deviation. Differs: the kernels of transposed convolutions are then smoothed, so that
    no training begins with a checkerboard.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if isinstance(layer, nn.ConvTranspose2d):
                even_out(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


@torch.no_grad()
def even_out(kernel: torch.Tensor) -> None:
    """Change the kernel (inputs, outputs, 4, 4) of a transposed convolution with stride 2 so that it has no checkerboard.

    Each of the four places within a cell of the input is made with weights of its own, four of the sixteen. Where their sums
    differ, an even map becomes a checkerboard (Odena, Dumoulin and Olah 2016, "Deconvolution and checkerboard artifacts";
    Aitken et al. 2017 give sub-pixel convolutions an even start for the same reason). Adding the kernel to itself, moved by one
    place in either direction, makes the four sums equal. The factor keeps the variance of the weights.
    """
    moved = kernel + kernel.roll(1, 2)
    kernel.copy_((moved + moved.roll(1, 3)) / 2)


def initialise_as_xavier(module: nn.Module) -> None:
    """Draw new weights for every layer of `module`, as Keras and TF-slim do: Xavier's uniform distribution, and zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def has_batch_norm(network: nn.Module) -> bool:
    """Whether the network has a batch norm, also one that is synchronised over processes."""
    return any(isinstance(layer, nn.BatchNorm2d | nn.SyncBatchNorm) for layer in network.modules())


def synchronised(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network with batch norms whose statistics go over the whole batch.

    Statistics over the share of one process would make the results depend on the number of processes. Raises UserError for a
    batch norm on a device that is no GPU.
    """
    if not has_batch_norm(network):
        return network
    if device.type != "cuda":
        raise UserError(
            "training.processes: batch norm over several processes needs GPUs; use normalization instance, or one process"
        )
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


class BatchStatistics(nn.Module):
    """Batch norm that takes its statistics from the batch at hand, in training and afterwards, as tflib's does (PG2, DPIG).

    The statistics go over the shares of all processes. With few processes the result is that of one process, apart from rounding.
    """

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.epsilon = epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same shape and number format."""
        if not several_processes():
            # In training mode and without running averages torch's own function does just this, in one kernel.
            return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.epsilon)
        values = at_least_fp32(x)
        mean = mean_over_processes(values.mean((0, 2, 3), keepdim=True))
        variance = mean_over_processes(((values - mean) ** 2).mean((0, 2, 3), keepdim=True))
        scale = self.weight.view(1, -1, 1, 1) * torch.rsqrt(variance + self.epsilon)
        return ((values - mean) * scale + self.bias.view(1, -1, 1, 1)).to(x.dtype)


def several_processes() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all processes, through which gradients flow. All processes have equal shares of the batch.

    A single process gets the tensor itself.
    """
    if not several_processes():
        return values
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(values) / dist.get_world_size()
