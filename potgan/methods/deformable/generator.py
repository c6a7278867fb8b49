"""The two networks of Deformable GAN (Siarohin et al. 2018; AliaksandrSiarohin/pose-gan: conditional_gan.py).

The generator is a U-Net with two encoders, one of the source image with its pose and one of the target pose. Its deformable skip
connections move what the first encoder found, region by region, to where the target pose has it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from potgan.data.batches import Batch
from potgan.data.pose import JOINTS
from potgan.methods.blocks import SLOPE, at_least_fp32, initialise_as_xavier, normalization
from potgan.methods.deformable.options import DeformableOptions
from potgan.methods.deformable.regions import REGIONS, body_regions
from potgan.methods.method import PoseGenerator, Synthesised
from potgan.methods.sampling import places_of, sample_places

IMAGE, POSE = 3, len(JOINTS)
#: The channels of the levels, in multiples of the width. Deeper levels have as many as the last one named.
_MULTIPLES = (1, 2, 4, 8)
#: The levels whose skip connections are deformed: those with strides 1, 2, 4 and 8.
DEFORMED_LEVELS = 4
#: The blocks of the decoder that have dropout, from the deepest on.
_BLOCKS_WITH_DROPOUT = 3


def level_count(height: int, width: int) -> int:
    """Return the number of levels of the U-Net: 6 for 128 x 64 pixels and 7 for 256 x 256, as the authors have it.

    The deepest level has four rows (or more, if it would have less than two columns otherwise).
    """
    return min(height.bit_length() - 2, width.bit_length() - 1)


class LayerNorm(nn.Module):
    """Normalization over channels, rows and columns of each sample, with one scale and one shift for the layer.

    (x - mean) / (deviation + 0.001) x scale + shift. This is what keras-contrib's `InstanceNormalization()` computes, which the
    authors use: without an axis it goes over all of them but the samples (keras-contrib: layers/normalization.py).
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> the same shape and number format."""
        values = at_least_fp32(x)
        variance, mean = torch.var_mean(values, (1, 2, 3), correction=0, keepdim=True)
        # At 0 the square root has an infinite slope. The least deviation of 1e-6 is nothing beside 0.001.
        scale = self.weight / (variance.clamp(min=1e-12).sqrt() + 1e-3)
        return ((values - mean) * scale + self.bias).to(x.dtype)


def _norm(kind: str, channels: int) -> nn.Module:
    return LayerNorm() if kind == "layer" else normalization(kind, channels)


class Encoder(nn.Module):
    """Maps (B, inputs, H, W) -> one map for each level, (B, channels of the level, H / 2^level, W / 2^level), before its ReLU."""

    def __init__(self, inputs: int, channels: list[int], norm: str) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for level in range(1, len(channels)):
            last = level == len(channels) - 1
            self.blocks.append(
                nn.Sequential(
                    nn.LeakyReLU(SLOPE),
                    nn.Conv2d(channels[level - 1], channels[level], 4, stride=2, padding=1, bias=False),
                    nn.Identity() if last else _norm(norm, channels[level]),
                )
            )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        maps = [self.first(x)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        return maps


class DecoderBlock(nn.Module):
    """Doubles the resolution: ReLU, transposed convolution, normalization, dropout."""

    def __init__(self, inputs: int, outputs: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.convolution = nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False)
        self.norm = _norm(norm, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, size: torch.Size) -> torch.Tensor:
        """(B, inputs, h, w) -> (B, outputs, *size).

        size: (height, width) of the level above. Where halving it rounded down, it is one more than twice h or w.
        """
        return self.dropout(self.norm(self.convolution(F.relu(x), output_size=size)))


def deform(features: torch.Tensor, matrices: torch.Tensor, masks: torch.Tensor, sampling: str) -> torch.Tensor:
    """Return appearance features moved to the target pose: at each place the largest of the ten regions' values.

    A region's value is that of the features warped by its map, times its mask. Outside of the limbs' masks their values are 0, so
    what the torso's map brings counts there only where it is positive.

    features: (B, C, H / stride, W / stride). matrices, masks: as of `Regions`, for the full size. sampling: `bilinear` or
    `nearest`, with zeros outside of the image. Maps are scaled in index coordinates, and the pixel i of a level has the mask of the
    pixel i x stride (pose-gan: AffineTransformLayer). Gradients are those of the sampling; the authors' framework warps them back
    by the inverse map.
    """
    height, width = features.shape[2:]
    stride = masks.shape[2] // height
    values = at_least_fp32(features)
    scaled = torch.cat([matrices[..., :2], matrices[..., 2:] / stride], dim=-1)
    largest = None
    for region in range(len(REGIONS)):
        places = places_of(scaled[:, region], height, width)
        if sampling == "nearest":
            # Halves are rounded away from zero, as in TensorFlow. `grid_sample` alone rounds them to even numbers.
            places = places.sign() * (places.abs() + 0.5).floor()
        warped = sample_places(values, places, sampling) * masks[:, region, None, ::stride, ::stride]
        # Of `where` only the condition is kept for the gradients, a byte for each value. Of `maximum` both inputs would be.
        largest = warped if largest is None else torch.where(warped > largest, warped, largest)
    return largest.to(features.dtype)


class DeformableGenerator(PoseGenerator):
    """G: the source image, both poses and the regions of both -> the image of the person in the target pose.

    size: (height, width) of the images in pixels, which decides the number of levels.
    """

    needs = frozenset({"source_image", "source_heatmaps", "target_heatmaps", "source_joints", "target_joints"})

    def __init__(self, options: DeformableOptions, size: tuple[int, int]) -> None:
        super().__init__()
        self.sampling = options.sampling
        levels = level_count(*size)
        channels = [options.width * _MULTIPLES[min(level, len(_MULTIPLES) - 1)] for level in range(levels)]
        self.appearance = Encoder(IMAGE + POSE, channels, options.normalization)
        self.pose = Encoder(POSE, channels, options.normalization)
        blocks, inputs = [], 0
        for number, level in enumerate(range(levels - 1, 0, -1)):
            # Both encoders' maps of the level, and what the block below gave.
            dropout = options.dropout if number < _BLOCKS_WITH_DROPOUT else 0.0
            blocks.append(DecoderBlock(2 * channels[level] + inputs, channels[level], options.normalization, dropout))
            inputs = channels[level]
        self.decoder = nn.ModuleList(blocks)
        self.last = nn.Conv2d(2 * channels[0] + inputs, IMAGE, 3, padding=1)
        initialise_as_xavier(self)

    def forward(
        self,
        source_image: torch.Tensor,
        source_heatmaps: torch.Tensor,
        target_heatmaps: torch.Tensor,
        matrices: torch.Tensor,
        masks: torch.Tensor,
    ) -> torch.Tensor:
        """Return images (B, 3, H, W) in [-1, 1]. matrices, masks: as of `Regions`."""
        skips = []
        appearance = self.appearance(torch.cat([source_image, source_heatmaps], 1))
        for level, (found, pose) in enumerate(zip(appearance, self.pose(target_heatmaps), strict=True)):
            moved = deform(found, matrices, masks, self.sampling) if level < DEFORMED_LEVELS else found
            skips.append(torch.cat([moved, pose], 1))
        x = skips.pop()
        for block in self.decoder:
            skip = skips.pop()
            x = torch.cat([block(x, skip.shape[2:]), skip], 1)
        return torch.tanh(at_least_fp32(self.last(F.relu(x))))

    def synthesise(self, batch: Batch) -> Synthesised:
        regions = body_regions(batch.source_joints, batch.target_joints, *batch.source_image.shape[2:])
        image = self(batch.source_image, batch.source_heatmaps, batch.target_heatmaps, regions.matrices, regions.masks)
        return Synthesised(image)


class DeformableDiscriminator(nn.Module):
    """D, of the type that the authors call "call": it sees the source, its pose, an image and the target pose at once.

    It gives a logit for each of some overlapping parts of the image: 3 x 1 for 128 x 64 pixels, 7 x 7 for 256 x 256. Its first
    convolution has no padding. For images with a side of less than 34 pixels one layer is left out, because nothing would remain.
    """

    def __init__(self, options: DeformableOptions, size: tuple[int, int]) -> None:
        super().__init__()
        channels = options.width
        layers: list[nn.Module] = [nn.Conv2d(2 * (IMAGE + POSE), channels, 4, stride=2)]
        side = (min(size) - 4) // 2 + 1
        for multiple in _MULTIPLES[1:]:
            side //= 2
            if side < 2:
                break
            outputs = options.width * multiple
            layers += [
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(channels, outputs, 4, stride=2, padding=1, bias=False),
                _norm(options.normalization, outputs),
            ]
            channels = outputs
        layers += [nn.LeakyReLU(SLOPE), nn.Conv2d(channels, 1, 4, stride=2, padding=1, bias=False)]
        self.layers = nn.Sequential(*layers)
        initialise_as_xavier(self)

    def forward(
        self,
        source_image: torch.Tensor,
        source_heatmaps: torch.Tensor,
        image: torch.Tensor,
        target_heatmaps: torch.Tensor,
    ) -> torch.Tensor:
        """Return logits (B, rows, columns) of the image being real, in fp32."""
        x = torch.cat([source_image, source_heatmaps, image, target_heatmaps], 1)
        return at_least_fp32(self.layers(x)).squeeze(1)
