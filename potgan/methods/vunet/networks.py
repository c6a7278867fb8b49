"""VUNet's networks (Esser, Sutter and Ommer 2018, "A variational U-Net for conditional appearance and shape generation").

One U-Net draws the stick man c of a pose as an image x. Its two coarsest scales are told the appearance z by another network, which
sees crops of the parts of a person's body. In the paper z has the posterior q(z | x, c) and the prior p(z | c), and x is drawn from
p(x | c, z). In the code both are Gaussians whose covariance is the identity, and only their means are networks' outputs.

The names of the networks are those of CompVis/vunet: models.py, where "up" leads from fine to coarse scales and "down" leads back.
Layers are those of its nn.py.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from potgan.data.batches import Batch
from potgan.methods.blocks import at_least_fp32
from potgan.methods.method import PoseGenerator, Synthesised
from potgan.methods.vunet.options import VUNetOptions
from potgan.methods.vunet.parts import PARTS, joints_in_square, part_crops, stick_man, to_square

#: The number of scales with a latent variable, from the coarsest on.
LATENT_SCALES = 2
#: The most scales of the U-Net, whose widths are at most this many times that of the first.
SCALES, WIDEST = 7, 4
#: The side of the crops at 128 and 256 pixels.
CROP = 64
#: The least side of a square, whose encoder has just the three scales that it is built of.
LEAST_SIDE = 16


# ---------------------------------------------------------------------------------------------------------------------
# Layers


class Convolution(nn.Module):
    """A weight-normalised convolution: the weights of an output channel are gain * direction / |direction|.

    Source: Salimans and Kingma 2016. Differs: the padding is (size - 1) / 2 on each side. TensorFlow's SAME pads an even map only
    on the right and below at a stride of 2, which moves the map by a pixel.
    """

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.randn(outputs, inputs, size, size) * 0.05)
        # A training begins with the gains that `VUNet.start_from` finds. With a half, an unstarted network does not explode.
        self.gain = nn.Parameter(torch.full((outputs,), 0.5))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.stride, self.padding = stride, size // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        squares = self.direction.square().sum((1, 2, 3)).clamp_min(1e-12)
        scale = self.gain * torch.rsqrt(squares)
        return F.conv2d(x, self.direction * scale[:, None, None, None], self.bias, self.stride, self.padding)


class ResidualBlock(nn.Module):
    """x + convolution(dropout(ELU(x, a'))), where a' = 1x1 convolution(ELU(a)) has as many channels as x.

    beside: the channels of a; 0 for a block that is given no a.
    """

    def __init__(self, channels: int, dropout: float, beside: int = 0) -> None:
        super().__init__()
        self.beside = Convolution(beside, channels, 1) if beside else None
        self.convolution = Convolution(channels * (2 if beside else 1), channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, a: torch.Tensor | None = None) -> torch.Tensor:
        joined = x if self.beside is None else torch.cat([x, self.beside(F.elu(a))], dim=1)
        return x + self.convolution(self.dropout(F.elu(joined)))


class Doubling(nn.Module):
    """Twice the resolution: a convolution to four times the channels, which become the four pixels of a cell (sub-pixel)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = Convolution(inputs, 4 * outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(self.convolution(x), 2)


# ---------------------------------------------------------------------------------------------------------------------
# Networks


class UpPass(nn.Module):
    """`dec_up` and `enc_up`: from the finest scale to the coarsest, two residual blocks per scale.

    (B, inputs, S, S) -> the outputs of all blocks, two per scale: (B, widths[l], S / 2^l, S / 2^l).
    """

    def __init__(self, inputs: int, widths: list[int], dropout: float) -> None:
        super().__init__()
        self.first = Convolution(inputs, widths[0], 1)
        self.blocks = nn.ModuleList(ResidualBlock(width, dropout) for width in widths for _ in range(2))
        self.halving = nn.ModuleList(Convolution(fine, coarse, stride=2) for fine, coarse in pairwise(widths))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        outputs = []
        h = self.first(x)
        for scale in range(len(self.blocks) // 2):
            h = self.blocks[2 * scale](h if scale == 0 else self.halving[scale - 1](h))
            outputs.append(h)
            h = self.blocks[2 * scale + 1](h)
            outputs.append(h)
        return outputs


class EncoderDown(nn.Module):
    """`enc_down`: from the outputs of `enc_up` to the means q of the posterior, coarsest scale first.

    The last doubling, the block before it and the block behind it are built as the authors build them, but nothing depends on
    them. They never get a gradient, and they are only computed if `everything` is asked for.
    """

    def __init__(self, widths: list[int], dropout: float) -> None:
        super().__init__()
        coarsest = widths[::-1]
        latent = coarsest[:LATENT_SCALES]
        self.first = Convolution(coarsest[0], coarsest[0], 1)
        self.hidden = nn.ModuleList(
            ResidualBlock(width, dropout, beside=width) for width in coarsest[: LATENT_SCALES + 1]
        )
        self.mean = nn.ModuleList(Convolution(width, width) for width in latent)
        self.feedback = nn.ModuleList(ResidualBlock(width, dropout, beside=2 * width) for width in latent)
        self.doubling = nn.ModuleList(
            Doubling(width, finer) for width, finer in zip(latent, coarsest[1:], strict=False)
        )

    def without_gradient(self) -> list[nn.Module]:
        """The modules that nothing depends on."""
        return [self.feedback[-1], self.doubling[-1], self.hidden[-1]]

    def forward(
        self, outputs: list[torch.Tensor], noise: bool, everything: bool = False
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the means q, and the latent variables z = q + noise, or z = q without noise, both in fp32."""
        skips = list(outputs)
        means, latents = [], []
        h = self.first(skips[-1])
        for scale in range(LATENT_SCALES):
            h = self.hidden[scale](h, skips.pop())
            mean = at_least_fp32(self.mean[scale](h))
            means.append(mean)
            latents.append(mean + torch.randn_like(mean) if noise else mean)
            if scale + 1 < LATENT_SCALES or everything:
                h = self.feedback[scale](h, torch.cat([skips.pop(), latents[-1]], dim=1))
                h = self.doubling[scale](h)
        if everything:
            self.hidden[LATENT_SCALES](h, skips.pop())
        return means, latents


class Prior(nn.Module):
    """The mean p of the prior of one latent variable, autoregressive in four groups.

    A group is one of the four places in cells of 2 x 2 pixels. Its mean depends on the pose and on the groups before it.
    """

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.hidden = ResidualBlock(channels, dropout)
        self.mean = nn.ModuleList(Convolution(4 * channels, channels) for _ in range(4))
        self.feedback = nn.ModuleList(ResidualBlock(4 * channels, dropout, beside=channels) for _ in range(3))

    def forward(self, h: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """h: features of the pose, z: the latent variable of the posterior, both (B, C, S, S). Returns p of that shape, in fp32."""
        features = F.pixel_unshuffle(self.hidden(h), 2)
        means = [self.mean[0](features)]
        for group in range(1, 4):
            before = group - 1
            features = self.feedback[before](features, z[:, :, before // 2 :: 2, before % 2 :: 2])
            means.append(self.mean[group](features))
        return at_least_fp32(F.pixel_shuffle(torch.stack(means, dim=2).flatten(1, 2), 2))


class DecoderDown(nn.Module):
    """`dec_down`: from the outputs of `dec_up` and the latent variables to features of the finest scale, with the priors' means."""

    def __init__(self, widths: list[int], dropout: float) -> None:
        super().__init__()
        coarsest = widths[::-1]
        latent = coarsest[:LATENT_SCALES]
        self.first = Convolution(coarsest[0], coarsest[0], 1)
        self.blocks = nn.ModuleList(ResidualBlock(width, dropout, beside=width) for width in coarsest for _ in range(2))
        self.priors = nn.ModuleList(Prior(width, dropout) for width in latent)
        self.merge = nn.ModuleList(Convolution(2 * width, width, 1) for width in latent)
        self.doubling = nn.ModuleList(Doubling(width, finer) for width, finer in pairwise(coarsest))

    def forward(
        self, outputs: list[torch.Tensor], latents: list[torch.Tensor], with_priors: bool
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return features (B, widths[0], S, S) and the priors' means, coarsest scale first, or no means without priors.

        The image does not depend on the priors, because the posterior's z takes the place of theirs.
        """
        skips = list(outputs)
        means = []
        h = self.first(skips[-1])
        for scale in range(len(self.blocks) // 2):
            h = self.blocks[2 * scale](h if scale == 0 else self.doubling[scale - 1](h), skips.pop())
            if scale < LATENT_SCALES:
                if with_priors:
                    means.append(self.priors[scale](h, latents[scale]))
                h = self.merge[scale](torch.cat([h, latents[scale]], dim=1))
            h = self.blocks[2 * scale + 1](h, skips.pop())
        return h, means


class VUNet(PoseGenerator):
    """The two U-Nets. Images have any size; inside, they are squares whose side is a power of two.

    A square has the longer side of the images, or the next power of two if that is none, and at least 16 pixels.
    """

    needs = frozenset({"source_image", "source_joints", "target_joints"})

    def __init__(self, options: VUNetOptions, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        exponent = math.ceil(math.log2(max(*size, LEAST_SIDE)))
        self.side = 2**exponent
        halvings = min(4, max(1, exponent - int(math.log2(CROP))))  # from an image to its crops
        self.crop = self.side // 2**halvings
        widths = [options.width * min(2**scale, WIDEST) for scale in range(min(SCALES, exponent))]
        crop_widths = [options.width * min(2 ** (scale + halvings), WIDEST) for scale in range(len(widths) - halvings)]
        self.enc_up = UpPass(3 * PARTS, crop_widths, options.dropout)
        self.enc_down = EncoderDown(crop_widths, options.dropout)
        self.dec_up = UpPass(3, widths, options.dropout)
        self.dec_down = DecoderDown(widths, options.dropout)
        self.output = Convolution(widths[0], 3)

    def forward(
        self, crops: torch.Tensor, stick_men: torch.Tensor, everything: bool = False
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
        """Return what training needs: images that are not clamped, the posterior's means and the prior's means.

        crops: (B, 24, crop, crop). stick_men: (B, 3, side, side). The images are (B, 3, side, side), and the means are
        (B, C, S, S) at the two coarsest scales. All of them are fp32. everything: as in `EncoderDown`.
        """
        posterior, latents = self.enc_down(self.enc_up(crops), noise=True, everything=everything)
        h, prior = self.dec_down(self.dec_up(stick_men), latents, with_priors=True)
        return at_least_fp32(self.output(h)), posterior, prior

    def inputs(
        self, images: torch.Tensor, joints: torch.Tensor, wanted: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the part crops of images (B, 3, H, W) with `joints`, and the stick men of the `wanted` joints (B, 18, 2)."""
        crops = part_crops(to_square(images, self.side), joints_in_square(joints, self.size, self.side), self.crop)
        return crops, stick_man(joints_in_square(wanted, self.size, self.side), self.side)

    def synthesise(self, batch: Batch) -> Synthesised:
        """Differs: at test time the authors give the encoder's second scale a noisy z of the first one. Here it is the mean."""
        crops, stick_men = self.inputs(batch.source_image, batch.source_joints, batch.target_joints)
        _, means = self.enc_down(self.enc_up(crops), noise=False)
        h, _ = self.dec_down(self.dec_up(stick_men), means, with_priors=False)
        image = at_least_fp32(self.output(h))
        if self.size != (self.side, self.side):
            image = F.interpolate(image, self.size, mode="bilinear", align_corners=False)
        return Synthesised(image.clamp(-1, 1))

    @torch.no_grad()
    def start_from(self, crops: torch.Tensor, stick_men: torch.Tensor) -> None:
        """Give every layer the gain and bias with which its output has mean 0 and variance 1 per channel on this batch.

        The layers are started one after the other in one pass, so that each sees the outputs of started ones (Salimans and Kingma
        2016, section 3; CompVis/vunet: main.py, init_graph). Dropout and noise are as in training.
        """

        def standardised(layer: Convolution, _: object, output: torch.Tensor) -> torch.Tensor:
            variance, mean = torch.var_mean(output, (0, 2, 3), correction=0)
            gain = torch.rsqrt(variance + 1e-10)
            layer.gain.copy_(gain)
            layer.bias.copy_(-mean * gain)
            return output * gain[:, None, None] + layer.bias[:, None, None]

        layers = [layer for layer in self.modules() if isinstance(layer, Convolution)]
        for layer in layers:
            layer.gain.fill_(1)
            layer.bias.zero_()
        handles = [layer.register_forward_hook(standardised) for layer in layers]
        try:
            self.forward(crops, stick_men, everything=True)  # not the compiled one, which does not know the hooks
        finally:
            for handle in handles:
                handle.remove()
