"""The discriminator D(X, M): "convolutional layers and a dense layer" on a pair of image and mask (Section III-B)."""

from __future__ import annotations

import torch
from torch import nn

from potgan.methods.blocks import SLOPE, initialise, normalization
from potgan.settings.schema import DiscriminatorSettings


class Discriminator(nn.Module):
    """Maps (image (B, 3, H, W) in [-1, 1], mask (B, 1, H, W)) to one logit per pair, (B,).

    It is the DCGAN discriminator of PG2: 5x5 stride-2 convolutions with width x 1, 2, 4, 8 channels. Images whose shorter side
    has 256 pixels or more pass a fifth convolution. The mask is a fourth input channel (docs/decisions.md, D21).
    """

    def __init__(self, settings: DiscriminatorSettings, size: tuple[int, int]) -> None:
        super().__init__()
        height, width = size
        widths = [4, *(settings.width * factor for factor in (1, 2, 4, 8))]
        if min(size) >= 256:
            widths.append(settings.width * 8)
        layers: list[nn.Module] = []
        for i in range(len(widths) - 1):
            norm = "none" if i == 0 else settings.normalization
            layers += [
                nn.Conv2d(widths[i], widths[i + 1], 5, stride=2, padding=2, bias=norm == "none"),
                normalization(norm, widths[i + 1]),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
            height, width = (height + 1) // 2, (width + 1) // 2
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Linear(widths[-1] * height * width, 1)
        initialise(self)

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        features = self.convolutions(torch.cat([image, mask], dim=1))
        return self.dense(features.flatten(1)).squeeze(1)
