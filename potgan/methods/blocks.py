"""The convolutional blocks of the generator and the discriminator, and their initialisation."""

from __future__ import annotations

import torch
from torch import nn

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
