"""The loss terms of Section III-C, Eq. (4)-(8)."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import nn

from potgan.config import LossWeights
from potgan.models.blocks import at_least_fp32

#: torchvision's VGG-16 up to relu1_2: conv1_1, relu, conv1_2, relu.
_RELU1_2 = 4
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class PerceptualNetwork(nn.Module):
    """psi of Eq. (5): VGG-16 relu1_2, frozen. Images (B, 3, H, W) in [-1, 1] -> features (B, 64, H, W).

    kind `vgg16`: ImageNet weights, fetched once and checked by SHA-256. kind `random`: the same two layers with fixed,
    seeded weights (Kaiming), for benchmarks that may not download; it measures local contrast in random directions.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        if kind == "vgg16":
            from torchvision.models import vgg16

            from potgan.pretrained import weight_file

            network = vgg16(weights=None, init_weights=False)
            network.load_state_dict(torch.load(weight_file("vgg16"), map_location="cpu", weights_only=True))
            layers = network.features[:_RELU1_2]
        else:
            generator = torch.Generator().manual_seed(16)
            layers = nn.Sequential(
                nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()
            )
            for layer in (layers[0], layers[2]):
                fan_in = layer.weight[0].numel()
                deviation = (2 / fan_in) ** 0.5
                layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * deviation
                nn.init.zeros_(layer.bias)
        self.kind = kind
        self.layers = layers.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(_IMAGENET_DEVIATION).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(((image + 1) / 2 - self.mean) / self.deviation)

    def weights_sha256(self) -> str:
        """SHA-256 of the parameters' bytes: says which network a run was trained with."""
        digest = hashlib.sha256()
        for parameter in self.layers.parameters():
            digest.update(parameter.detach().cpu().numpy().tobytes())
        return digest.hexdigest()


def generator_losses(
    generated: torch.Tensor,
    target: torch.Tensor,
    fake_logits: torch.Tensor | None,
    perceptual_network: PerceptualNetwork | None,
) -> dict[str, torch.Tensor]:
    """The terms of Eq. (8), unweighted; images (B, 3, H, W) in [-1, 1], logits (B,).

    reconstruction: Eq. (4) as a mean over elements (PATN; so that the weights do not depend on the image's size).
    perceptual: Eq. (5), mean over C, H, W (and the batch).
    adversarial: Eq. (7) to be *minimised*: -log D(X^_b, M_b), non-saturating.
    Differs: Eq. (7) has no minus sign, yet is added to a sum that is minimised (PROTOCOLS 7.3 item 6).
    """
    terms = {"reconstruction": F.l1_loss(generated, target)}
    if perceptual_network is not None:
        with torch.no_grad():
            wanted = perceptual_network(target)
        terms["perceptual"] = F.l1_loss(at_least_fp32(perceptual_network(generated)), at_least_fp32(wanted))
    if fake_logits is not None:
        fake_logits = at_least_fp32(fake_logits)
        terms["adversarial"] = F.binary_cross_entropy_with_logits(fake_logits, torch.ones_like(fake_logits))
    return terms


def weighted_sum(terms: dict[str, torch.Tensor], weights: LossWeights) -> torch.Tensor:
    """L_all of Eq. (8). A term of weight 0 is left out, not multiplied: a NaN in it must not matter."""
    parts = [getattr(weights, name) * value for name, value in terms.items() if getattr(weights, name)]
    return torch.stack(parts).sum()


def discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Eq. (6) to be minimised: half the cross-entropy on real and half on synthesised pairs (PG2).

    At chance this is ln 2 = 0.693.
    """
    real_logits, fake_logits = at_least_fp32(real_logits), at_least_fp32(fake_logits)
    real = F.binary_cross_entropy_with_logits(real_logits, torch.ones_like(real_logits))
    fake = F.binary_cross_entropy_with_logits(fake_logits, torch.zeros_like(fake_logits))
    return (real + fake) / 2
