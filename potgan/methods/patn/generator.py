"""PATN's generator (Zhu et al. 2019, Section 3.1): an image path and a pose path, whose attention says what is moved.

Source of the sizes: tengteng95/Pose-Transfer, `models/model_variants.py`.
"""

from __future__ import annotations

import torch
from torch import nn

from potgan.data.batches import Batch
from potgan.data.pose import JOINTS
from potgan.methods.blocks import at_least_fp32, normalization
from potgan.methods.method import PoseGenerator, Synthesised
from potgan.methods.patn.options import PATNOptions
from potgan.methods.residual_discriminator import double_convolution, draw_weights, encoder, has_bias, reflected


class AttentionBlock(nn.Module):
    """A pose-attentional transfer block (Section 3.1.2).

    image code (B, C, h, w), pose code (B, pose channels, h, w) -> the new image code (B, C, h, w) and pose code (B, 2 C, h, w).
    pose channels: C in the first block, and 2 C in the others.
    """

    def __init__(self, channels: int, pose_channels: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.image_path = double_convolution(channels, channels, channels, norm, dropout)
        self.image_path.append(normalization(norm, channels))
        self.pose_path = double_convolution(pose_channels, pose_channels, channels, norm, dropout)

    def forward(self, image_code: torch.Tensor, pose_code: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pose = self.pose_path(pose_code)
        attention = torch.sigmoid(pose)
        image_code = image_code + attention * self.image_path(image_code)
        return image_code, torch.cat((pose, image_code), 1)


class Generator(PoseGenerator):
    """Source image (B, 3, H, W) in [-1, 1] and both poses as heat maps (B, 18, H, W) -> image (B, 3, H, W) in [-1, 1].

    H and W are multiples of 4, and the network is the same for all sizes. With batch norm, eval mode uses the running statistics.
    """

    needs = frozenset({"source_image", "source_heatmaps", "target_heatmaps"})

    def __init__(self, options: PATNOptions, size: tuple[int, int]) -> None:
        super().__init__()
        width, norm = options.width, options.normalization
        self.image_encoder = encoder(3, width, norm)
        self.pose_encoder = encoder(2 * len(JOINTS), width, norm)
        self.blocks = nn.ModuleList(
            AttentionBlock(4 * width, (4 if number == 0 else 8) * width, norm, options.dropout)
            for number in range(options.blocks)
        )
        layers: list[nn.Module] = []
        for channels in (4 * width, 2 * width):
            doubling = nn.ConvTranspose2d(
                channels, channels // 2, 3, stride=2, padding=1, output_padding=1, bias=has_bias(norm)
            )
            layers += [doubling, normalization(norm, channels // 2), nn.ReLU(inplace=True)]
        self.decoder = nn.Sequential(*layers, reflected(width, 3, 7))
        draw_weights(self)

    def forward(
        self, source_image: torch.Tensor, source_heatmaps: torch.Tensor, target_heatmaps: torch.Tensor
    ) -> torch.Tensor:
        image_code = self.image_encoder(source_image)
        pose_code = self.pose_encoder(torch.cat((source_heatmaps, target_heatmaps), 1))
        for block in self.blocks:
            image_code, pose_code = block(image_code, pose_code)
        return torch.tanh(at_least_fp32(self.decoder(image_code)))

    def synthesise(self, batch: Batch) -> Synthesised:
        return Synthesised(self(batch.source_image, batch.source_heatmaps, batch.target_heatmaps))
