"""What PATN and ADGAN share: reflection-padded blocks, the residual discriminator, and the training against two of them.

Source: tengteng95/Pose-Transfer, `models/networks.py` and `models/PATN.py`, which ADGAN's authors have taken over.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from potgan.common.device import compile_in_place
from potgan.common.processes import Processes
from potgan.data.batches import Batch
from potgan.data.pose import JOINTS
from potgan.methods.blocks import at_least_fp32, has_batch_norm, normalization
from potgan.methods.compared import ComparedMethod, Loss, cross_entropy, frozen
from potgan.methods.image_pool import ImagePool
from potgan.methods.method import rate_factor
from potgan.methods.vgg import Vgg19
from potgan.settings.schema import RunSettings

# ---------------------------------------------------------------------------------------------------------------------
# Blocks


def reflected(inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """Return a convolution whose input is padded by its mirror image: (H, W) -> (H / stride, W / stride)."""
    padding = (kernel - 1) // 2
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias, padding_mode="reflect")


def has_bias(norm: str) -> bool:
    """Whether a convolution before this normalization has a bias. With `instance` the authors keep one that does nothing."""
    return norm != "batch"


def encoder(inputs: int, width: int, norm: str) -> nn.Sequential:
    """Return PATN's encoder: (B, inputs, H, W) -> (B, 4 width, H / 4, W / 4). H and W are multiples of 4."""
    layers = [reflected(inputs, width, 7, bias=has_bias(norm)), normalization(norm, width), nn.ReLU(inplace=True)]
    for channels in (width, 2 * width):
        # These two are padded by zeros.
        halving = nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1, bias=has_bias(norm))
        layers += [halving, normalization(norm, 2 * channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def double_convolution(inputs: int, middle: int, outputs: int, norm: str, dropout: float = 0.0) -> nn.Sequential:
    """Return two 3x3 convolutions, with a normalization, a ReLU and dropout between them, and nothing behind them."""
    between = [normalization(norm, middle), nn.ReLU(inplace=True)]
    if dropout:
        between.append(nn.Dropout(dropout))
    return nn.Sequential(
        reflected(inputs, middle, 3, bias=has_bias(norm)), *between, reflected(middle, outputs, 3, bias=has_bias(norm))
    )


class ResidualBlock(nn.Module):
    """x + norm(conv(dropout(ReLU(norm(conv(x)))))). There is no ReLU on the sum."""

    def __init__(self, channels: int, norm: str, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = double_convolution(channels, channels, channels, norm, dropout).append(
            normalization(norm, channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x)


def draw_weights(network: nn.Module) -> None:
    """Draw the weights of a generator as its authors do: N(0, 0.02), batch norms N(1, 0.02); the second is the deviation.

    Biases of convolutions keep what PyTorch draws. Frozen networks inside are left as they are.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) and layer.weight.requires_grad:
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)


# ---------------------------------------------------------------------------------------------------------------------
# Discriminator


class ResidualDiscriminator(nn.Module):
    """An encoder and three residual blocks, without a last layer that makes one channel of them.

    (B, inputs, H, W) -> logits (B, 4 width, H / 4, W / 4). The adversarial loss is a mean over all of them. Weights are drawn as
    PyTorch does by default.
    """

    def __init__(self, inputs: int, width: int, norm: str, dropout: float) -> None:
        super().__init__()
        self.inputs = inputs
        self.encoder = encoder(inputs, width, norm)
        self.blocks = nn.Sequential(*(ResidualBlock(4 * width, norm, dropout) for _ in range(3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.encoder(x))


def discriminators(width: int, norm: str, dropout: float) -> dict[str, nn.Module]:
    """Return D_A, which sees an image beside the source image, and D_S, which sees it beside the target pose."""
    return {
        "appearance_discriminator": ResidualDiscriminator(3 + 3, width, norm, dropout),
        "shape_discriminator": ResidualDiscriminator(3 + len(JOINTS), width, norm, dropout),
    }


def condition(discriminator: str, batch: Batch) -> torch.Tensor:
    """Return what a discriminator sees beside an image, (B, C, H, W)."""
    return batch.source_image if discriminator == "appearance_discriminator" else batch.target_heatmaps


def adversarial_loss(logits: torch.Tensor, real: bool, kind: str) -> torch.Tensor:
    """The mean, in fp32, of the loss of logits that should say "real", or else "synthesised".

    kind: `cross-entropy`, of the logits' sigmoid, or `least-squares`, of their distance from 1 or 0.
    """
    logits = at_least_fp32(logits)
    if kind == "cross-entropy":
        return cross_entropy(logits, real)
    return ((logits - float(real)) ** 2).mean()


# ---------------------------------------------------------------------------------------------------------------------
# Training


class AgainstTwoDiscriminators(ComparedMethod):
    """A generator that is trained with L1, a perceptual loss, and two discriminators of the class above.

    A step updates G, then D_A, then D_S, as `optimize_parameters` of the authors does, all with the same synthesised images.
    Differs: the authors draw each pair by chance, with replacement; here a training passes over all pairs.

    adversarial_kind: of `adversarial_loss`. pool_size: earlier images that each discriminator is shown. constant_share: the share
    of the iterations whose learning rate is constant; in the others it falls linearly to 0.

    With several processes each has pools of its own, and a state that is saved holds those of the first process.
    """

    needs = frozenset({"source_image", "target_image", "source_heatmaps", "target_heatmaps"})
    losses: ClassVar[dict[str, str]] = {
        "reconstruction": "L1",
        "perceptual": "perceptual",
        "adversarial": "G",
        "appearance_discriminator": "D_A",
        "shape_discriminator": "D_S",
    }
    draws = True
    constant_share: ClassVar[Fraction]
    adversarial_kind: str
    pool_size: int

    def __init__(self, settings: RunSettings, device: torch.device, processes: Processes | None = None) -> None:
        super().__init__(settings, device, processes)
        self.judges = {name: network for name, network in self.networks.items() if name != "generator"}
        self.perceptual = self.feature_network("relu1_2") if self.options.perceptual else None
        self.pools = {
            name: ImagePool(self.pool_size, (judge.inputs, *settings.image_size)).to(device)
            for name, judge in self.judges.items()
        }
        # Batch statistics must not mix real and synthesised images. Without a batch norm one pass over both is the same.
        self._has_batch_norm = any(map(has_batch_norm, self.networks.values()))

    def feature_network(self, last: str, normalise: bool = True) -> Vgg19:
        network = super().feature_network(last, normalise)
        if self.compiled:
            compile_in_place(network)
        return network

    def rate_factor(self, iteration: int) -> float:
        iterations = self.settings.training.iterations
        return float(rate_factor(iteration, self.constant_share * iterations, iterations))

    @property
    def exact_in_parts(self) -> bool:
        return not self._has_batch_norm and self.options.dropout == 0

    def image_losses(self, number: int, batch: Batch, fake: torch.Tensor) -> dict[str, tuple[float, torch.Tensor]]:
        """Return term -> (weight, value) for all terms of G's loss that compare its images with the target images.

        number: of the part of the batch. fake: (B, 3, H, W) float32 in [-1, 1].
        """
        terms = {"reconstruction": (self.options.reconstruction, F.l1_loss(fake, batch.target_image))}
        if self.perceptual is not None:
            with torch.no_grad():
                wanted = self.perceptual(batch.target_image, ["relu1_2"])["relu1_2"]
            found = self.perceptual(fake, ["relu1_2"])["relu1_2"]
            terms["perceptual"] = (self.options.perceptual, F.l1_loss(at_least_fp32(found), at_least_fp32(wanted)))
        return terms

    def step(self, parts: list[Batch]) -> dict[str, torch.Tensor]:
        fakes: list[torch.Tensor] = []

        def of_generator(number: int, batch: Batch) -> Loss:
            fake = self.networks["generator"].synthesise(batch).image
            fakes.append(fake.detach())
            terms = self.image_losses(number, batch, fake)
            if self.options.adversarial:
                each = [
                    adversarial_loss(judge(torch.cat((fake, condition(name, batch)), 1)), True, self.adversarial_kind)
                    for name, judge in self.judges.items()
                ]
                terms["adversarial"] = (self.options.adversarial, sum(each) / len(each))
            return sum(weight * value for weight, value in terms.values()), {name: v for name, (_, v) in terms.items()}

        with frozen(*self.judges.values()):
            means = self.descend("generator", parts, of_generator)
        if self.options.adversarial:
            for name in self.judges:
                means |= self._update_discriminator(name, parts, fakes)
        return means

    def _update_discriminator(
        self, name: str, parts: list[Batch], fakes: list[torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        judge, kind = self.judges[name], self.adversarial_kind
        seen = [torch.cat((fake, condition(name, batch)), 1) for fake, batch in zip(fakes, parts, strict=True)]
        # The pool is asked once for the whole batch, so that its draws do not depend on the number of parts.
        shown = self.pools[name](torch.cat(seen)).chunk(len(parts))

        def loss_of(number: int, batch: Batch) -> Loss:
            real = torch.cat((batch.target_image, condition(name, batch)), 1)
            if self._has_batch_norm:
                of_real, of_fake = judge(real), judge(shown[number])
            else:
                of_real, of_fake = judge(torch.cat((real, shown[number]))).chunk(2)
            loss = (adversarial_loss(of_real, True, kind) + adversarial_loss(of_fake, False, kind)) / 2
            return self.options.adversarial * loss, {name: loss}

        return self.descend(name, parts, loss_of)

    def record(self) -> dict[str, str | None]:
        return {"perceptual_network_sha256": self.perceptual.weights_sha256() if self.perceptual else None}

    def stateful(self) -> dict[str, Any]:
        return super().stateful() | {f"{name}_pool": pool for name, pool in self.pools.items() if pool.size}
