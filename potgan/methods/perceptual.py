"""The network behind the perceptual loss (Eq. 5)."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from potgan.common.weights import weight_file
from potgan.settings.schema import VGG_WIDTH

#: The number of layers of torchvision's VGG-16 up to relu1_2: conv1_1, relu, conv1_2, relu.
_RELU1_2 = 4
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


def draw_fixed_weights(layer: nn.Conv2d, draw: torch.Generator) -> None:
    """Give a convolution of a random network its weights (Kaiming) from a seeded generator, and biases of zero."""
    deviation = (2 / layer.weight[0].numel()) ** 0.5
    layer.weight.data = torch.randn(layer.weight.shape, generator=draw) * deviation
    nn.init.zeros_(layer.bias)


def weights_sha256(network: nn.Module) -> str:
    """Return the SHA-256 of the parameters' bytes, which says which network a run was trained with."""
    digest = hashlib.sha256()
    for parameter in network.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


class PerceptualNetwork(nn.Module):
    """psi of Eq. (5): VGG-16 up to relu1_2, frozen. Images (B, 3, H, W) in [-1, 1] -> features (B, width, H, W).

    kind `vgg16`: the network has ImageNet weights, which are fetched once and checked by SHA-256. kind `random`: the network has
    the same two layers with fixed, seeded weights (Kaiming). This kind is for benchmarks that may not download anything; it
    measures local contrast in random directions.

    width: the channels of both layers of a random network. VGG-16 has 64. Beside a narrow generator a network of that width is the
    larger part of the arithmetic of a training, and random directions are as good if they are fewer.
    """

    def __init__(self, kind: str, width: int = VGG_WIDTH) -> None:
        super().__init__()
        if kind == "vgg16":
            from torchvision.models import vgg16

            network = vgg16(weights=None, init_weights=False)
            network.load_state_dict(torch.load(weight_file("vgg16"), map_location="cpu", weights_only=True))
            layers = network.features[:_RELU1_2]
        else:
            generator = torch.Generator().manual_seed(16)
            layers = nn.Sequential(
                nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()
            )
            for layer in (layers[0], layers[2]):
                draw_fixed_weights(layer, generator)
        self.kind = kind
        self.layers = layers.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(((image + 1) / 2 - self.mean) / self.deviation)

    def weights_sha256(self) -> str:
        return weights_sha256(self)
