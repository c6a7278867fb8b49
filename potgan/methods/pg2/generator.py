"""The generator of PG2: G1 makes a coarse image in the target pose, and G2 a difference map that is added to it."""

from __future__ import annotations

import math

import torch
from torch import nn

from potgan.data.batches import Batch
from potgan.data.pose import JOINTS
from potgan.methods.blocks import at_least_fp32, initialise_as_xavier
from potgan.methods.disc_maps import disc_maps
from potgan.methods.method import PoseGenerator, Synthesised
from potgan.methods.pg2.options import PG2Options
from potgan.methods.residual_unet import DEEPFASHION_HEIGHT, ResidualUNet, convolution, enlarged


class DifferenceUNet(nn.Module):
    """PG2's G2: the coarse image and the source image, (B, 6, H, W) -> the difference map (B, 3, H, W).

    Level i, counted from 1 at full size, has i * width channels in the encoder and `width` channels in the decoder. There are no
    residual sums, no fully connected layers and no noise. Source: charliememory/Pose-Guided-Person-Image-Generation: models.py,
    `UAE_noFC_After2Noise`, and models256.py.

    full_size_skip: whether the decoder gets the encoder's map of the first level too, as in the authors' model for 256 x 256.

    Differs: the weights of the last convolution are 0 at first, where the authors draw them. So the image of the whole generator is
    G1's until G2 is trained, and the training of G2 begins there. The first update of G2 changes this convolution alone, and all
    later ones change every layer.
    """

    def __init__(self, levels: int, width: int, full_size_skip: bool) -> None:
        super().__init__()
        self.full_size_skip = full_size_skip
        self.first = convolution(6, width)
        self.encoder = nn.ModuleList(
            nn.Sequential(convolution(max(i - 1, 1) * width, i * width), convolution(i * width, i * width))
            for i in range(1, levels + 1)
        )
        self.steps_down = nn.ModuleList(convolution(i * width, i * width, stride=2) for i in range(1, levels))
        decoder = []
        for i in range(levels, 0, -1):
            below = i * width if i == levels else width
            skip = i * width if i > 1 or full_size_skip else 0
            decoder.append(nn.Sequential(convolution(below + skip, width), convolution(width, width)))
        self.decoder = nn.ModuleList(decoder)
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        initialise_as_xavier(self)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        maps = []
        for level, layers in enumerate(self.encoder):
            if level > 0:
                x = self.steps_down[level - 1](x)
            x = layers(x)
            maps.append(x)
        for step, layers in enumerate(self.decoder):
            level = len(maps) - 1 - step
            if step > 0:
                x = enlarged(x, maps[level].shape[2:])
            if level > 0 or self.full_size_skip:
                x = torch.cat([x, maps[level]], dim=1)
            x = layers(x)
        return self.last(x)


class PG2Generator(PoseGenerator):
    """G1 and G2. G1 reads the source image and the target pose as discs, but not the source pose.

    size: (height, width) in pixels. G1 has log2(height) - 2 levels, so that its deepest map has 8 rows, and G2 has two levels less.
    """

    needs = frozenset({"source_image", "target_joints"})

    def __init__(self, options: PG2Options, size: tuple[int, int]) -> None:
        super().__init__()
        levels = max(1, int(math.log2(size[0])) - 2)
        bottleneck = max(1, options.width // 2)  # 64 at the authors' width
        self.coarse = ResidualUNet(3 + len(JOINTS), size, levels, options.width, bottleneck)
        self.refinement = DifferenceUNet(max(1, levels - 2), options.width, size[0] >= DEEPFASHION_HEIGHT)

    def forward(
        self, source_image: torch.Tensor, target_joints: torch.Tensor, refine: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the coarse and the refined image, both (B, 3, H, W) float32 and not clamped.

        source_image: (B, 3, H, W) in [-1, 1]. target_joints: (B, 18, 2) in pixels, NaN where missing. refine: whether G2 runs;
        without it the second image is the first one.
        """
        maps = disc_maps(target_joints, *source_image.shape[2:])
        coarse = at_least_fp32(self.coarse(torch.cat([source_image, maps], dim=1)))
        if not refine:
            return coarse, coarse
        return coarse, coarse + at_least_fp32(self.refinement(torch.cat([coarse, source_image], dim=1)))

    def synthesise(self, batch: Batch) -> Synthesised:
        _, refined = self(batch.source_image, batch.target_joints)
        return Synthesised(refined.clamp(-1, 1))
