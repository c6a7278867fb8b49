"""The residual U-Net of PG2 (Ma et al. 2017) and its encoder half, with which DPIG (Ma et al. 2018) decodes and encodes.

Level i, counted from 1 at full size, has i times the channels of the first one, and half the rows and columns of level i - 1. Every
convolution is followed by a ReLU, and nothing is normalised. Source: charliememory/Pose-Guided-Person-Image-Generation: models.py,
`GeneratorCNN_Pose_UAEAfterResidual`, with the layers of TF-slim.

Differs: convolutions with stride 2 pad one pixel on every side. TensorFlow's "SAME" pads at the right and at the bottom only, so
that all grids are shifted by a pixel there. As no weights are imported, either serves.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from potgan.methods.blocks import initialise_as_xavier

#: From this height on, PG2 and DPIG are built as the authors built them for DeepFashion (256 x 256), and below it as they did for
#: Market-1501 (128 x 64).
DEEPFASHION_HEIGHT = 256


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution of `kernel` x `kernel` and its ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2),
        nn.ReLU(inplace=True),
    )


def enlarged(x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return `x` with twice its rows and columns, by repetition, cut to `size` where that is one row or column less."""
    return F.interpolate(x, size=size, mode="nearest")


def size_at(level: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return (rows, columns) of a level, counted from 1, for images of `size`. Odd sizes are rounded up when they are halved."""
    return -(-size[0] // 2 ** (level - 1)), -(-size[1] // 2 ** (level - 1))


class ResidualBlock(nn.Module):
    """Two convolutions with ReLU, and the input added behind the second ReLU: (B, C, H, W) -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(convolution(channels, channels), convolution(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.convolutions(x)


class ResidualEncoder(nn.Module):
    """A residual block on each level, and a convolution with stride 2 to the next one.

    Features (B, width, H, W) -> the maps of all levels, of which the i-th is (B, i * width, H / 2^(i - 1), W / 2^(i - 1)).
    """

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(i * width) for i in range(1, levels + 1))
        self.steps_down = nn.ModuleList(convolution(i * width, (i + 1) * width, stride=2) for i in range(1, levels))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = []
        for level, block in enumerate(self.blocks):
            if level > 0:
                x = self.steps_down[level - 1](x)
            x = block(x)
            maps.append(x)
        return maps


class ResidualUNet(nn.Module):
    """PG2's G1: (B, inputs, H, W) -> an image (B, 3, H, W), which no activation bounds.

    The deepest map passes through a fully connected bottleneck of `bottleneck` numbers. The decoder joins each map of the encoder,
    deepest first, to what comes from below, and applies a residual block to both together.

    size: (H, W) in pixels. levels: 5 for 128 x 64 and 6 for 256 x 256 in PG2, and 5 in DPIG. width: channels of the first level.
    """

    def __init__(self, inputs: int, size: tuple[int, int], levels: int, width: int, bottleneck: int) -> None:
        super().__init__()
        self.first = convolution(inputs, width)
        self.encoder = ResidualEncoder(width, levels)
        rows, columns = size_at(levels, size)
        self.to_bottleneck = nn.Linear(levels * width * rows * columns, bottleneck)
        self.from_bottleneck = nn.Linear(bottleneck, width * rows * columns)
        # From the bottleneck come `width` channels, and from each level below as many as the encoder has at this one.
        joined = [(levels + 1) * width] + [2 * level * width for level in range(levels - 1, 0, -1)]
        self.blocks = nn.ModuleList(ResidualBlock(channels) for channels in joined)
        self.steps_up = nn.ModuleList(
            convolution(channels, level * width, kernel=1)
            for channels, level in zip(joined, range(levels - 1, 0, -1), strict=False)
        )
        self.last = nn.Conv2d(joined[-1], 3, 3, padding=1)
        initialise_as_xavier(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.encoder(self.first(x))
        code = self.to_bottleneck(maps[-1].flatten(1))
        x = self.from_bottleneck(code).unflatten(1, (-1, *maps[-1].shape[2:]))
        for step, block in enumerate(self.blocks):
            if step > 0:
                x = self.steps_up[step - 1](enlarged(x, maps[-1 - step].shape[2:]))
            x = block(torch.cat([x, maps[-1 - step]], dim=1))
        return self.last(x)
