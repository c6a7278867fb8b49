"""The convolutional blocks that generator and discriminator are made of, and their initialisation."""

from __future__ import annotations

import torch
from torch import nn

SLOPE = 0.2  # of every leaky ReLU; DCGAN's, used by Deformable GAN and PG2


def normalization(kind: str, channels: int) -> nn.Module:
    """`instance`: no affine part, no running statistics (docs/decisions.md, D20). `batch`: both. `none`: identity."""
    match kind:
        case "instance":
            return nn.InstanceNorm2d(channels)
        case "batch":
            return nn.BatchNorm2d(channels)
        case "none":
            return nn.Identity()
    raise ValueError(f"unknown normalization {kind!r}")


def down_block(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    """Half the resolution: 4x4 stride-2 convolution, normalization, leaky ReLU."""
    # A bias before a normalization is taken out again and would never receive gradient.
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=norm == "none"),
        normalization(norm, outputs),
        nn.LeakyReLU(SLOPE, inplace=True),
    )


def up_block(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    """Twice the resolution: 4x4 stride-2 transposed convolution, normalization, ReLU."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=norm == "none"),
        normalization(norm, outputs),
        nn.ReLU(inplace=True),
    )


def at_least_fp32(x: torch.Tensor) -> torch.Tensor:
    """`x` in fp32 where autocast has made it coarser: warps, the guided filter and losses are never computed in bf16."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def initialise(module: nn.Module) -> None:
    """Convolutions and linear layers: N(0, 0.02) weights, zero biases; batch norms: N(1, 0.02), zero (DCGAN, PATN)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)
