"""The PoT-GAN generator. Its parts stand in the order of Section III-B and Fig. 2-3 of the paper.

    X_a ------> appearance encoder ---f_1..f_4---> grid sampler --f'_1..f'_4--+
    M_a, M_b -> PoT encoders -d_j-> coordinates nets -theta_j-> TPS ---^      +-> U-Net decoder -> guided filter -> X^_b
    P_b ------> pose encoder ----------------------p_1..p_4-------------------+                       ^ M_b

Scale j = 1..4 has stride 2^j. For an image of 128 x 64 pixels the features are 64x32, 32x16, 16x8 and 8x4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from potgan.data.batches import Batch
from potgan.methods.blocks import SLOPE, at_least_fp32, down_block, initialise, normalization, up_block
from potgan.methods.method import PoseGenerator, Synthesised
from potgan.methods.potgan.guided_filter import guided_filter
from potgan.methods.potgan.tps import ThinPlateSpline, resting_points
from potgan.settings.schema import GeneratorSettings

SCALES = 4  # N of the paper
JOINT_COUNT = 18


@dataclass
class Generated:
    """The output of one forward pass.

    image: (B, 3, H, W) in [-1, 1], after the guided filter if the settings apply it.
    unfiltered: the image before the filter; it is the same tensor as `image` if there is no filter.
    control_points: one tensor (B, F, 2) in (-1, 1) per scale; the list is empty without a pose transform, or if grids were given.
    """

    image: torch.Tensor
    unfiltered: torch.Tensor
    control_points: list[torch.Tensor]


class Encoder(nn.Module):
    """N convolutional blocks "down-sampled one by one": (B, C, H, W) -> features at strides 2, 4, 8, 16.

    The class is used twice: as the appearance encoder on X_a and as the pose encoder on the 18 heat maps P_b.
    """

    def __init__(self, inputs: int, channels: list[int], norm: str) -> None:
        super().__init__()
        widths = [inputs, *channels]
        # The first block has no normalization, which would remove the colour and contrast of the image (DCGAN, pix2pix).
        self.blocks = nn.ModuleList(
            down_block(m, n, "none" if i == 0 else norm) for i, (m, n) in enumerate(zip(widths, channels, strict=False))
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return features


class PoTEncoder(nn.Sequential):
    """Phi^{m x n} of Eq. (1): convolution, instance norm, leaky ReLU, convolution, instance norm.

    The block halves the height and the width.
    """

    def __init__(self, m: int, n: int) -> None:
        super().__init__(
            nn.Conv2d(m, n, 4, stride=2, padding=1, bias=False),
            normalization("instance", n),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(n, n, 3, padding=1, bias=False),
            normalization("instance", n),
        )


class CoordinatesNet(nn.Module):
    """F^CGN_j of Eq. (2): pose differential feature d_j (B, C, h, w) -> control points theta_j (B, F, 2) in (-1, 1).

    Convolutional blocks come first. A regression network of two fully connected layers and tanh follows. At initialisation the
    weights of the last layer are zero and its bias is arctanh of the resting points. So every warp starts exactly as the
    identity, as in tps_stn. A random start was worse than no pose transform at all (docs/decisions.md, D18).
    """

    def __init__(self, inputs: int, width: int, size: tuple[int, int], settings: GeneratorSettings) -> None:
        super().__init__()
        height, columns = size
        blocks: list[nn.Module] = []
        channels = 2 * width
        # The blocks reduce the longer side to at most 8 cells, so that the first dense layer stays small at 256 x 256.
        while max(height, columns) > 8 or not blocks:
            stride = 2 if max(height, columns) > 8 else 1
            blocks += [
                nn.Conv2d(inputs, channels, 3, stride=stride, padding=1, bias=False),
                normalization("instance", channels),
                nn.LeakyReLU(SLOPE, inplace=True),
            ]
            if stride == 2:
                height, columns = (height + 1) // 2, (columns + 1) // 2
            inputs = channels
        self.blocks = nn.Sequential(*blocks)
        points = torch.from_numpy(resting_points(*settings.control_points, settings.control_point_span))
        self.hidden = nn.Linear(channels * height * columns, 4 * width)
        self.points = nn.Linear(4 * width, points.numel())
        self.register_buffer("rest", torch.atanh(points).flatten().float(), persistent=False)

    def start_at_identity(self) -> None:
        nn.init.zeros_(self.points.weight)
        with torch.no_grad():
            self.points.bias.copy_(self.rest)

    def forward(self, d: torch.Tensor, coarser: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return theta_j, and what tanh is taken of, (B, 2 F). coarser: the latter of the coarser scale, to which this one adds."""
        hidden = F.leaky_relu(self.hidden(self.blocks(d).flatten(1)), SLOPE)
        # Coordinates are in fp32 whatever the precision of training, since bf16 resolves only an eighth of a pixel.
        with torch.autocast(d.device.type, enabled=False):
            raw = self.points(at_least_fp32(hidden))
            if coarser is not None:
                raw = raw + (coarser - self.rest)
            return torch.tanh(raw).unflatten(1, (-1, 2)), raw


class PoseTransform(nn.Module):
    """The pose transform module (Fig. 3): M_a, M_b -> control points and sampling grids at the four scales.

    With `coordinates: coarse-to-fine` the coarsest scale finds where the body goes, and each finer one adds to that before tanh is
    taken. This is a reading of "the global difference ... is progressively discerned" (docs/decisions.md, D18).
    """

    def __init__(self, channels: list[int], size: tuple[int, int], settings: GeneratorSettings) -> None:
        super().__init__()
        self.coarse_to_fine = settings.coordinates == "coarse-to-fine"
        widths = [2, *channels]
        sizes = [(size[0] >> j, size[1] >> j) for j in range(1, SCALES + 1)]
        self.encoders = nn.ModuleList(PoTEncoder(m, n) for m, n in zip(widths, channels, strict=False))
        self.coordinates = nn.ModuleList(
            CoordinatesNet(n, settings.width, hw, settings) for n, hw in zip(channels, sizes, strict=True)
        )
        self.splines = nn.ModuleList(
            ThinPlateSpline(*settings.control_points, settings.control_point_span, *hw) for hw in sizes
        )

    def forward(self, source_mask: torch.Tensor, target_mask: torch.Tensor) -> tuple[list, list]:
        d = torch.cat([source_mask, target_mask], dim=1)
        differences = []
        for encoder in self.encoders:
            # Each scale starts from the features of the scale before: "the global difference ... is progressively discerned".
            d = encoder(d)
            differences.append(d)
        points, raw = [], None
        for net, d in zip(reversed(self.coordinates), reversed(differences), strict=True):
            theta, raw = net(d, raw if self.coarse_to_fine else None)
            points.insert(0, theta)
        return points, [spline(theta) for spline, theta in zip(self.splines, points, strict=True)]


def sample_at(features: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Move every cell of `features` (B, C, h, w) along `grid` (B, h, w, 2). This is the grid sampler "S" of Fig. 2.

    The result has the number format of `features`. It is sampled in fp32, and the next convolution would round it in any case.
    """
    moved = F.grid_sample(at_least_fp32(features), grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return moved.to(features.dtype)


class Decoder(nn.Module):
    """U-Net decoder: N up-sampling blocks on [previous, f'_j, p_j], a 3x3 convolution and tanh -> (B, 3, H, W)."""

    def __init__(self, channels: list[int], norm: str) -> None:
        super().__init__()
        blocks = []
        previous = 0
        for j in reversed(range(SCALES)):
            outputs = channels[max(j - 1, 0)]
            # The last block has no normalization, and neither has the first block of the encoders. This is DCGAN's rule for
            # both ends of a network. With an instance norm at full resolution, images showed bright blobs at fixed places and
            # lost the brightness of the source. Over three seeds of the embedded benchmark, SSIM was .02 higher with that
            # norm, but fid-synthetic was 7.6 instead of 5.0.
            blocks.append(up_block(previous + 2 * channels[j], outputs, norm if j > 0 else "none"))
            previous = outputs
        self.blocks = nn.ModuleList(blocks)
        self.image = nn.Conv2d(previous, 3, 3, padding=1)

    def forward(self, appearance: list[torch.Tensor], pose: list[torch.Tensor]) -> torch.Tensor:
        x: list[torch.Tensor] = []
        for block, f, p in zip(self.blocks, reversed(appearance), reversed(pose), strict=True):
            x = [block(torch.cat([*x, f, p], dim=1))]
        return torch.tanh(self.image(x[0]))


class Generator(PoseGenerator):
    """G of Eq. (3): X^_b = G(X_a, M_a, M_b, P_b).

    size: (height, width) in pixels, multiples of 16. The ablations are settings. `pose_transform=False` leaves the skip
    features where they are and builds no pose transform module. `pose_encoder_masks=True` gives both masks to the pose encoder,
    so that a generator without warps can see all that the pose transform module sees. `guided_filter.mode` is `train` (the
    filter is always the last layer), `test` (the filter is applied only in eval mode) or `off` (there is no filter).
    """

    needs = frozenset({"source_image", "source_mask", "target_mask", "target_heatmaps"})

    def __init__(self, settings: GeneratorSettings, size: tuple[int, int]) -> None:
        super().__init__()
        self.settings = settings
        self.size = tuple(size)
        if not (settings.pose_transform or settings.pose_encoder_masks):
            self.needs = self.needs - {"source_mask"}  # the target mask is also what the guided filter is guided by
        channels = [settings.width * factor for factor in (1, 2, 4, 8)]
        self.appearance_encoder = Encoder(3, channels, settings.normalization)
        pose_inputs = JOINT_COUNT + (2 if settings.pose_encoder_masks else 0)
        self.pose_encoder = Encoder(pose_inputs, channels, settings.normalization)
        self.pose_transform = PoseTransform(channels, self.size, settings) if settings.pose_transform else None
        self.decoder = Decoder(channels, settings.normalization)
        initialise(self)
        if self.pose_transform is not None:
            for net in self.pose_transform.coordinates:
                net.start_at_identity()

    @property
    def filters(self) -> bool:
        """Whether a forward pass ends with the guided filter now."""
        mode = self.settings.guided_filter.mode
        return mode == "train" or (mode == "test" and not self.training)

    def forward(
        self,
        source_image: torch.Tensor,
        source_mask: torch.Tensor,
        target_mask: torch.Tensor,
        target_heatmaps: torch.Tensor,
        grids: list[torch.Tensor] | None = None,
    ) -> Generated:
        """Return the images of a batch.

        source_image (B, 3, H, W) in [-1, 1]; masks (B, 1, H, W) in [0, 1]; heat maps (B, 18, H, W) in [0, 1]. grids: one sampling
        grid (B, h, w, 2) per scale, to be used instead of those that the pose transform finds.
        """
        appearance = self.appearance_encoder(source_image)
        pose = target_heatmaps
        if self.settings.pose_encoder_masks:
            pose = torch.cat([target_heatmaps, source_mask, target_mask], dim=1)
        pose = self.pose_encoder(pose)
        control_points: list[torch.Tensor] = []
        if self.pose_transform is not None:
            if grids is None:
                control_points, grids = self.pose_transform(source_mask, target_mask)
            appearance = [sample_at(f, grid) for f, grid in zip(appearance, grids, strict=True)]
        unfiltered = at_least_fp32(self.decoder(appearance, pose))
        image = unfiltered
        if self.filters:
            settings = self.settings.guided_filter
            image = guided_filter(target_mask, unfiltered, settings.radius, settings.epsilon)
        return Generated(image, unfiltered, control_points)

    def synthesise(self, batch: Batch) -> Synthesised:
        out = self(batch.source_image, batch.source_mask, batch.target_mask, batch.target_heatmaps)
        return Synthesised(out.image, torch.stack(out.control_points, dim=1) if out.control_points else None)
