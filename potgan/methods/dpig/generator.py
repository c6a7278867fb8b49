"""The generator of DPIG's first stage: an encoder of the appearance, region by region, and a decoder that is given a pose.

Source: charliememory/Disentangled-Person-Image-Generation: models.py (`GeneratorCNN_ID_Encoder_BodyROIVis`,
`GeneratorCNN_ID_UAEAfterResidual`), trainer.py (Market-1501, 128 x 64) and trainer_256.py (DeepFashion).
"""

from __future__ import annotations

import torch
from torch import nn

from potgan.data.batches import Batch
from potgan.data.pose import JOINTS
from potgan.methods.blocks import at_least_fp32, initialise_as_xavier
from potgan.methods.disc_maps import disc_maps
from potgan.methods.dpig.options import DPIGOptions
from potgan.methods.dpig.regions import REGIONS, RegionBoxes, crops
from potgan.methods.method import PoseGenerator, Synthesised
from potgan.methods.residual_unet import (
    DEEPFASHION_HEIGHT,
    ResidualBlock,
    ResidualEncoder,
    ResidualUNet,
    convolution,
    size_at,
)

#: The levels of the decoder and of the background's encoder, at 128 x 64 and at 256 x 256 alike.
_LEVELS = 5


class CodeEncoder(nn.Module):
    """Features (B, width, H, W) -> a code (B, length): the encoder of PG2's G1, and a linear layer. size: (H, W)."""

    def __init__(self, width: int, levels: int, size: tuple[int, int], length: int) -> None:
        super().__init__()
        self.encoder = ResidualEncoder(width, levels)
        rows, columns = size_at(levels, size)
        self.code = nn.Linear(levels * width * rows * columns, length)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.code(self.encoder(features)[-1].flatten(1))


class AppearanceEncoder(nn.Module):
    """An image, its joints and its mask -> the code of its appearance (B, length).

    The code consists of `width` / 4 numbers for each of the seven regions, and of `width` numbers for the background, if there is
    such a code. The regions share one encoder. A region without joints has a code of zeros.

    With a code of the background, the person's features are those inside the mask, and the background's are those outside. Without
    such a code no mask is applied. size: (H, W) in pixels.
    """

    def __init__(self, options: DPIGOptions, size: tuple[int, int]) -> None:
        super().__init__()
        width = options.width
        self.side, levels = (64, 7) if size[0] >= DEEPFASHION_HEIGHT else (48, 5)  # of a crop
        self.stem = nn.Sequential(convolution(3, width), ResidualBlock(width))
        self.boxes = RegionBoxes(size)
        region_length = max(1, width // 4)
        self.region = CodeEncoder(width, levels, (self.side, self.side), region_length)
        self.background = CodeEncoder(width, _LEVELS, size, width) if options.background else None
        self.length = len(REGIONS) * region_length + (width if options.background else 0)
        initialise_as_xavier(self)

    def forward(self, image: torch.Tensor, joints: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        features = self.stem(image)
        person = features
        if self.background is not None:
            inside = (mask > 0).to(features.dtype)
            person, background = features * inside, self.background(features * (1 - inside))
        boxes, seen = self.boxes(joints)
        codes = self.region(crops(person, boxes, self.side)).unflatten(0, (-1, len(REGIONS)))  # (B, 7, width / 4)
        codes = (codes * seen[..., None]).flatten(1)
        return codes if self.background is None else torch.cat([codes, background], dim=1)


class DPIGGenerator(PoseGenerator):
    """The appearance of one image in a pose: that of another image at test time, and its own pose in training.

    The decoder is PG2's G1. It is given the code of the appearance at every pixel, beside the pose as discs. Without a code of the
    background no mask is read. size: (H, W) in pixels.
    """

    needs = frozenset({"source_image", "source_joints", "source_mask", "target_joints"})

    def __init__(self, options: DPIGOptions, size: tuple[int, int]) -> None:
        super().__init__()
        if not options.background:
            self.needs = self.needs - {"source_mask"}
        self.encoder = AppearanceEncoder(options, size)
        bottleneck = max(1, options.width // 2)  # 64 at the authors' width
        self.decoder = ResidualUNet(self.encoder.length + len(JOINTS), size, _LEVELS, options.width, bottleneck)

    def forward(
        self, image: torch.Tensor, joints: torch.Tensor, mask: torch.Tensor | None, pose: torch.Tensor
    ) -> torch.Tensor:
        """Return images (B, 3, H, W) float32, not clamped.

        image: (B, 3, H, W) in [-1, 1], of the appearance. joints: (B, 18, 2), its own, in pixels, NaN where missing. mask:
        (B, 1, H, W), its own; every value above 0 counts as 1. pose: (B, 18, 2), the joints of the pose that is wanted.
        """
        code = self.encoder(image, joints, mask)
        maps = disc_maps(pose, *image.shape[2:]).to(code.dtype)
        tiled = code[..., None, None].expand(-1, -1, *image.shape[2:])
        return at_least_fp32(self.decoder(torch.cat([tiled, maps], dim=1)))

    def synthesise(self, batch: Batch) -> Synthesised:
        image = self(batch.source_image, batch.source_joints, batch.source_mask, batch.target_joints)
        return Synthesised(image.clamp(-1, 1))
