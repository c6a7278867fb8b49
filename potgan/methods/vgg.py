"""VGG-19 as a frozen network of features, for the methods whose losses or generators compare or read them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from potgan.common.weights import weight_file
from potgan.methods.perceptual import IMAGENET_DEVIATION, IMAGENET_MEAN, draw_fixed_weights, weights_sha256
from potgan.settings.schema import VGG_WIDTH

#: The channels of the convolutions of each of VGG-19's five blocks, in multiples of its width of 64, and how many there are.
_BLOCKS = ((1, 2), (2, 2), (4, 4), (8, 4), (8, 4))


class Vgg19(nn.Module):
    """VGG-19 up to a layer, frozen: images (B, 3, H, W) in [-1, 1] -> the features after some of its ReLUs.

    kind: as `training.perceptual_network`. `random` has fixed, seeded weights (Kaiming) and needs no download; every other kind has
    torchvision's ImageNet weights, which are fetched once and checked. width: the channels of the first block of a random network,
    which the others are multiples of. last: the deepest layer that is asked for, as "relu3_2": block 3, second convolution.
    normalise: whether images are first given ImageNet's mean and standard deviation, as PATN does; ADGAN feeds [-1, 1] as it is.

    Layer "relu<b>_<c>" has the features (B, width x (1, 2, 4, 8, 8)[b - 1], H / 2^(b - 1), W / 2^(b - 1)).
    """

    def __init__(self, kind: str, width: int, last: str, normalise: bool = True) -> None:
        super().__init__()
        names = [f"relu{b}_{c}" for b, (_, count) in enumerate(_BLOCKS, 1) for c in range(1, count + 1)]
        if last not in names:
            raise ValueError(f"VGG-19 has no layer {last!r}")
        self.names = names[: names.index(last) + 1]
        width = width if kind == "random" else VGG_WIDTH
        self.width, self.normalise = width, normalise
        draw = torch.Generator().manual_seed(19)
        channels, layers = 3, []
        for name in self.names:
            outputs = width * _BLOCKS[int(name[4]) - 1][0]
            layer = nn.Conv2d(channels, outputs, 3, padding=1)
            if kind == "random":
                draw_fixed_weights(layer, draw)
            layers.append(layer)
            channels = outputs
        self.convolutions = nn.ModuleList(layers)
        if kind != "random":
            stored = torch.load(weight_file("vgg19"), map_location="cpu", weights_only=True)
            places = sorted({int(key.split(".")[1]) for key in stored if key.startswith("features.")})
            for place, layer in zip(places, layers, strict=False):
                layer.load_state_dict(
                    {"weight": stored[f"features.{place}.weight"], "bias": stored[f"features.{place}.bias"]}
                )
        self.eval().requires_grad_(False)
        # The two are no part of a file: they are the same everywhere.
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION).view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> Vgg19:
        """Do nothing: the network stays frozen, also as a part of one that is trained."""
        return super().train(False)

    def forward(self, images: torch.Tensor, layers: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return layer -> features, for each of `layers`. Nothing beyond the deepest of them is computed."""
        x = ((images + 1) / 2 - self.mean) / self.deviation if self.normalise else images
        wanted = set(layers)
        found: dict[str, torch.Tensor] = {}
        for name, convolution in zip(self.names, self.convolutions, strict=True):
            if name.endswith("_1") and name != "relu1_1":
                x = nn.functional.max_pool2d(x, 2)
            x = nn.functional.relu(convolution(x))
            if name in wanted:
                found[name] = x
                if len(found) == len(wanted):
                    return {layer: found[layer] for layer in layers}
        raise ValueError(f"this VGG-19 ends at {self.names[-1]} and has no {', '.join(sorted(wanted - set(found)))}")

    def weights_sha256(self) -> str:
        return weights_sha256(self)
