"""ADGAN's generator (Men et al. 2020, Section 3.2): a pose code, styled by a code of each component of the source person.

Source of the sizes: menyifang/ADGAN, `models/model_adgen.py`; where it names MUNIT's blocks, NVlabs/MUNIT, `networks.py`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from potgan.data.batches import Batch
from potgan.data.pose import JOINTS, PARSING_CLASSES
from potgan.methods.adgan.options import ADGANOptions
from potgan.methods.blocks import at_least_fp32
from potgan.methods.method import PoseGenerator, Synthesised
from potgan.methods.residual_discriminator import ResidualBlock, draw_weights, reflected
from potgan.methods.vgg import Vgg19

#: The layers of VGG-19 that the component encoder reads. The authors take them before the ReLU, but torchvision's ReLU, which works
#: in place, overwrites what they took.
TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
_AUTHORS_WIDTH = ADGANOptions().width


class ComponentEncoder(nn.Module):
    """Decomposed component encoding: one code for each of the K parsed components of the source person (Section 3.2.2).

    image (B, 3, H, W) in [-1, 1], parsing (B, K, H, W) of 0 and 1 -> (B, K width). All components go through one texture encoder,
    which also reads features of a frozen VGG-19. Its images are not normalised. The components are encoded as one batch of K B
    images, which is exact, because no layer mixes images.
    """

    def __init__(self, width: int, network: str, network_width: int) -> None:
        super().__init__()
        self.network = Vgg19(network, network_width, TAPS[-1], normalise=False)
        self.register_buffer("scales", _mean_of_one(self.network) if network == "random" else torch.ones(len(TAPS)))
        both = width + self.network.width
        self.first = nn.Sequential(reflected(3, width, 7), nn.ReLU(inplace=True))
        self.halving = nn.ModuleList(
            nn.Sequential(reflected(both * 2**level, width * 2 ** (level + 1), 4, stride=2), nn.ReLU(inplace=True))
            for level in range(len(TAPS) - 1)
        )
        self.code = nn.Linear(both * 2 ** (len(TAPS) - 1), width)

    def forward(self, image: torch.Tensor, parsing: torch.Tensor) -> torch.Tensor:
        components = (image[:, None] * parsing[:, :, None]).flatten(0, 1)
        features = self.network(components, TAPS)
        features = {tap: features[tap] * scale for tap, scale in zip(TAPS, self.scales, strict=True)}
        x = self.first(components)
        for tap, halving in zip(TAPS, self.halving, strict=False):
            x = halving(torch.cat((x, features[tap]), 1))
        pooled = at_least_fp32(torch.cat((x, features[TAPS[-1]]), 1)).mean((2, 3))
        with torch.autocast(pooled.device.type, enabled=False):
            return self.code(pooled).view(len(image), -1)


def _mean_of_one(network: Vgg19) -> torch.Tensor:
    """Return the factors that give each layer of TAPS a mean activation of 1 on an image of noise, (4,).

    That is the convention of Gatys et al. 2016 for VGG-19. Features of random weights are a tenth of that, and the styles of two
    people would then differ by too little to be learnt from.
    """
    noise = torch.empty(1, 3, 64, 64).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    return torch.stack([1 / features.mean() for features in network(noise, TAPS).values()])


class PoseEncoder(nn.Sequential):
    """Heat maps (B, 18, H, W) -> (B, 4 width, H / 4, W / 4)."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__(
            *self._block(len(JOINTS), width, 7, 1),
            *self._block(width, 2 * width, 4, 2),
            *self._block(2 * width, 4 * width, 4, 2),
            *(ResidualBlock(4 * width, "instance") for _ in range(blocks)),
        )

    @staticmethod
    def _block(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
        return [reflected(inputs, outputs, kernel, stride), nn.InstanceNorm2d(outputs), nn.ReLU(inplace=True)]


def adaptive_instance_norm(x: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
    """Give every map of (B, C, H, W) the mean and deviation that its style says (Huang and Belongie 2017, Eq. 8).

    style: (B, 2, C), first the means, then the deviations, which are used as they are.
    """
    mean, deviation = style[:, 0, :, None, None], style[:, 1, :, None, None]
    return F.instance_norm(x) * deviation + mean


class StyledBlock(nn.Module):
    """A residual block with an adaptive instance norm behind each convolution. With styles of zeros it is the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(reflected(channels, channels, 3) for _ in range(2))

    def forward(self, x: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        """x: (B, C, H, W). styles: (B, 2, 2, C), one for each convolution."""
        first, second = self.convolutions
        y = F.relu(adaptive_instance_norm(first(x), styles[:, 0]))
        return x + adaptive_instance_norm(second(y), styles[:, 1])


class SampleNorm(nn.Module):
    """MUNIT's layer norm: over channels, rows and columns of each sample, with a scale and a shift for each channel.

    It divides by the unbiased deviation plus 1e-5. Scales are drawn from U(0, 1).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(channels).uniform_())
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = at_least_fp32(x)
        variance, mean = torch.var_mean(values, (1, 2, 3), keepdim=True)
        # The gradient of the square root at 0 would be infinite, and a black map has a variance of 0.
        deviation = variance.clamp(min=1e-20).sqrt() + 1e-5
        scale, shift = self.scale.view(1, -1, 1, 1), self.shift.view(1, -1, 1, 1)
        return ((values - mean) / deviation * scale + shift).to(x.dtype)


class Decoder(nn.Module):
    """(B, 4 width, H / 4, W / 4), styles (B, blocks, 2, 2, 4 width) -> image (B, 3, H, W), before tanh."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(StyledBlock(4 * width) for _ in range(blocks))
        layers: list[nn.Module] = []
        for channels in (4 * width, 2 * width):
            layers += [
                nn.Upsample(scale_factor=2, mode="nearest"),
                reflected(channels, channels // 2, 5),
                SampleNorm(channels // 2),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers, reflected(width, 3, 7))

    def forward(self, x: torch.Tensor, styles: torch.Tensor) -> torch.Tensor:
        for number, block in enumerate(self.blocks):
            x = block(x, styles[:, number])
        return self.layers(x)


class Generator(PoseGenerator):
    """Source image (B, 3, H, W) in [-1, 1], its parsing (B, 8, H, W), target heat maps (B, 18, H, W) -> image in [-1, 1].

    H and W are multiples of 8, and the network is the same for all sizes.
    """

    needs = frozenset({"source_image", "source_parsing", "target_heatmaps"})

    def __init__(self, options: ADGANOptions, size: tuple[int, int]) -> None:
        super().__init__()
        width, codes = options.width, len(PARSING_CLASSES) * options.width
        self.component_encoder = ComponentEncoder(width, options.texture_network, options.texture_width)
        self.pose_encoder = PoseEncoder(width, options.blocks)
        self.decoder = Decoder(width, options.blocks)
        self.fusion = nn.Sequential(nn.Linear(codes, codes), nn.ReLU(inplace=True))
        #: The styles of a batch as (blocks, convolutions, mean and deviation, channels).
        self.styles_shape = (options.blocks, 2, 2, 4 * width)
        self.styles = nn.Sequential(
            nn.Linear(codes, 4 * width),
            nn.ReLU(inplace=True),
            nn.Linear(4 * width, 4 * width),
            nn.ReLU(inplace=True),
            nn.Linear(4 * width, options.blocks * 2 * 2 * 4 * width),
        )
        draw_weights(self)
        # The authors' deviation of 0.02 was made for their width. With fewer channels each of these layers, which no norm follows,
        # would make what tells people apart smaller, and 3,000 iterations did not bring it back at a quarter of the width.
        with torch.no_grad():
            for part in (self.component_encoder.halving, self.component_encoder.code, self.fusion, self.styles):
                for layer in part.modules():
                    if isinstance(layer, nn.Conv2d | nn.Linear):
                        layer.weight.mul_(math.sqrt(_AUTHORS_WIDTH / width))

    def forward(
        self, source_image: torch.Tensor, source_parsing: torch.Tensor, target_heatmaps: torch.Tensor
    ) -> torch.Tensor:
        codes = self.component_encoder(source_image, source_parsing)
        # In bf16 the styles of two people, which differ by a thousandth at the beginning, would be one.
        with torch.autocast(codes.device.type, enabled=False):
            styles = self.styles(self.fusion(codes)).unflatten(1, self.styles_shape)
        return torch.tanh(at_least_fp32(self.decoder(self.pose_encoder(target_heatmaps), styles)))

    def synthesise(self, batch: Batch) -> Synthesised:
        return Synthesised(self(batch.source_image, batch.source_parsing, batch.target_heatmaps))
