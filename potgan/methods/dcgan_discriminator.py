"""The discriminator of PG2 (Ma et al. 2017) and DPIG (Ma et al. 2018): that of DCGAN, with statistics of the batch at hand.

Source: charliememory/Pose-Guided-Person-Image-Generation: wgan_gp.py, `DCGANDiscriminator`, with the layers of tflib.

Differs: convolutions pad two pixels on every side, where TensorFlow's "SAME" pads one at the left and the top, and two opposite.
"""

from __future__ import annotations

import torch
from torch import nn

from potgan.methods.blocks import SLOPE, BatchStatistics, at_least_fp32
from potgan.methods.residual_unet import DEEPFASHION_HEIGHT, size_at

#: The channels of the convolutions, in multiples of the width of 64. Images of DeepFashion's size have the fifth, too.
_WIDTHS = (1, 2, 4, 8, 8)


class DCGANDiscriminator(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> (B,) float32 logits, above 0 for real ones.

    It judges an image by itself: it is told neither the source nor a pose. Its batch norms take their statistics from the batch in
    training and afterwards, so a logit depends on the other images of the batch.

    size: (H, W) in pixels. width: the channels of the first convolution.
    """

    def __init__(self, size: tuple[int, int], width: int) -> None:
        super().__init__()
        widths = [width * factor for factor in _WIDTHS[: 5 if size[0] >= DEEPFASHION_HEIGHT else 4]]
        layers: list[nn.Module] = []
        for inputs, outputs in zip([3, *widths], widths, strict=False):
            # As in the authors' code each convolution has a bias, though the statistics behind it remove it again.
            layers.append(nn.Conv2d(inputs, outputs, 5, stride=2, padding=2))
            if inputs != 3:
                layers.append(BatchStatistics(outputs))
            layers.append(nn.LeakyReLU(SLOPE, inplace=True))
        self.convolutions = nn.Sequential(*layers)
        rows, columns = size_at(len(widths) + 1, size)
        self.logit = nn.Linear(widths[-1] * rows * columns, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):  # tflib's uniform distribution has this standard deviation
                nn.init.uniform_(layer.weight, -0.02 * 3**0.5, 0.02 * 3**0.5)
                nn.init.zeros_(layer.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return at_least_fp32(self.logit(self.convolutions(images).flatten(1)).squeeze(1))
