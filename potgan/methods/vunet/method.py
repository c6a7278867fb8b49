"""VUNet as a method: the features that its images are compared by, the divergence of its latent variables, and their weights.

It learns from the target images of the pairs alone: appearance, stick man and target come from one image. What it is asked for at
test time, the appearance of one image in the pose of another, it never sees in training (CompVis/vunet: main.py, *.yaml).
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from potgan.common.device import compile_in_place
from potgan.common.errors import UserError
from potgan.common.processes import Processes
from potgan.data.batches import Batch
from potgan.methods.blocks import at_least_fp32
from potgan.methods.compared import ComparedMethod, Loss
from potgan.methods.method import rate_factor
from potgan.methods.perceptual import IMAGENET_DEVIATION
from potgan.methods.vgg import Vgg19
from potgan.methods.vunet.networks import Convolution, VUNet
from potgan.methods.vunet.options import VUNetOptions
from potgan.methods.vunet.parts import to_square
from potgan.settings.schema import RunSettings

#: The layers whose features are compared, beside the image itself.
FEATURES = ("relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_2")
#: One unit of an image that has ImageNet's deviation, in grey levels of 0 to 255: 57.6, the mean over the three channels.
GREY_LEVELS = 255 * sum(IMAGENET_DEVIATION) / 3
#: The shares of the iterations at which the learning rate begins to fall, and at which the weight of the divergence begins and
#: ends to rise, with its first and last values. The authors' steps are 1,000, 50,000 and 75,000 of 100,000.
DECAY_FROM, DIVERGENCE_FROM, DIVERGENCE_TO = 0.01, 0.5, 0.75
LEAST_DIVERGENCE, FULL_DIVERGENCE = 1e-6, 1.0


class FeatureDistance(nn.Module):
    """The sum of the mean absolute differences of two batches of images, and of their features in VGG-19.

    The authors' network is Keras' VGG-19, with the weights of Caffe, which reads grey levels of 0 to 255 without their mean. The
    images are compared on that scale, too. torchvision's VGG-19 reads images with ImageNet's standard deviation. A network of
    convolutions, ReLUs and maxima multiplies its features by what its input is multiplied by, apart from its biases. So features
    times GREY_LEVELS are on the authors' scale, whatever the weights are.
    """

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.network = Vgg19(kind, width, FEATURES[-1])

    def forward(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """images, targets: (B, 3, S, S) in [-1, 1], or beyond it -> a mean over the batch, in grey levels, 0-d in fp32."""
        ours = self.network(images, FEATURES)
        with torch.no_grad():
            theirs = self.network(targets, FEATURES)
        distance = (images - targets).abs().mean() * 127.5
        for layer in FEATURES:
            difference = at_least_fp32(ours[layer]) - at_least_fp32(theirs[layer])
            distance = distance + difference.abs().mean() * GREY_LEVELS
        return distance


def divergence(posterior: list[torch.Tensor], prior: list[torch.Tensor]) -> torch.Tensor:
    """KL(q || p) of Gaussians with the identity as covariance: half the squared distance of their means, summed over all of them.

    posterior, prior: means (B, C, S, S) of each latent variable -> (B,).
    """
    return sum((q - p).square().flatten(1).sum(1) for q, p in zip(posterior, prior, strict=True)) / 2


class VUNetMethod(ComparedMethod):
    """VUNet, trained by reconstruction. Update: one Adam for all weights, without a discriminator.

    The two loss terms of the log are `features`, without its weight, and `distance`, the root mean square of q - p for each image.
    With D latent coordinates the divergence is D / 2 times its square. It is logged in this form because it rises by orders of
    magnitude while its weight is next to nothing.
    """

    settings_class = VUNetOptions
    generator_class = VUNet
    needs = frozenset({"target_image", "target_joints"})
    losses: ClassVar[dict[str, str]] = {"features": "VGG", "distance": "q-p"}
    draws = True
    batches_before = 4

    def __init__(self, settings: RunSettings, device: torch.device, processes: Processes | None = None) -> None:
        super().__init__(settings, device, processes)
        training = settings.training
        self.features = FeatureDistance(training.perceptual_network, training.perceptual_width)
        self.features.to(device=device, memory_format=torch.channels_last)
        if self.compiled:
            compile_in_place(self.features)
        # It changes in every iteration, so a CUDA graph must find it on the device.
        self.divergence_weight = torch.tensor(LEAST_DIVERGENCE, device=device)

    @property
    def exact_in_parts(self) -> bool:
        return False  # the noise of the latent variables differs from part to part

    def rate_factor(self, iteration: int) -> float:
        iterations = self.settings.training.iterations
        return rate_factor(iteration, DECAY_FROM * iterations, iterations)

    def divergence_factor(self, iteration: int) -> float:
        """Return the weight of the divergence at an iteration (counted from 0): it rises linearly from 1e-6 to 1."""
        iterations = self.settings.training.iterations
        begin, end = DIVERGENCE_FROM * iterations, DIVERGENCE_TO * iterations
        share = min(1.0, max(0.0, (iteration - begin) / (end - begin)))
        return LEAST_DIVERGENCE + share * (FULL_DIVERGENCE - LEAST_DIVERGENCE)

    def set_rates(self, iteration: int) -> None:
        super().set_rates(iteration)
        self.divergence_weight.fill_(self.divergence_factor(iteration))

    def prepare(self, batches: list[Batch]) -> None:
        """Start the weights from the target images of all batches together, as `VUNet.start_from` says.

        Processes have the same batches and draw the same dropout and noise. But two GPUs may round differently, and so all take
        the means of what they found. Raises UserError if no image has a joint.
        """
        generator: VUNet = self.networks["generator"]
        numbers = np.random.SeedSequence([self.settings.seed])
        torch.manual_seed(int(numbers.generate_state(1, np.uint64)[0] >> 1))
        joined = Batch(
            target_image=torch.cat([batch.target_image for batch in batches]),
            target_joints=torch.cat([batch.target_joints for batch in batches]),
        )
        if not joined.target_joints.isfinite().any():  # the weights would grow beyond all bounds
            raise UserError(
                "VUNet starts its weights from the first batches, and these hold no image with a pose; check the key points"
            )
        _, crops, stick_men = self.example(joined)
        generator.start_from(crops, stick_men)
        if self.processes.count > 1:
            layers = [layer for layer in generator.modules() if isinstance(layer, Convolution)]
            started = [values for layer in layers for values in (layer.gain.data, layer.bias.data)]
            mean = self.processes.mean(torch.cat(started).cpu()).to(self.device)
            for values, agreed in zip(started, mean.split([len(values) for values in started]), strict=True):
                values.copy_(agreed)

    def example(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the target images as squares (B, 3, side, side), with their own part crops and stick men."""
        images, joints = batch.target_image, batch.target_joints
        crops, stick_men = self.networks["generator"].inputs(images, joints, joints)
        return to_square(images, self.networks["generator"].side), crops, stick_men

    def step(self, parts: list[Batch]) -> dict[str, torch.Tensor]:
        return self.descend("generator", parts, self._loss)

    def _loss(self, _: int, batch: Batch) -> Loss:
        images, crops, stick_men = self.example(batch)
        made, posterior, prior = self.networks["generator"](crops, stick_men)
        features = self.features(made, images)
        divergences = divergence(posterior, prior)
        coordinates = sum(mean[0].numel() for mean in posterior)
        distance = (2 * divergences.detach() / coordinates).sqrt().mean()
        loss = self.options.reconstruction * features + self.divergence_weight * divergences.mean()
        return loss, {"features": features, "distance": distance}

    def record(self) -> dict[str, str | None]:
        return {"perceptual_network_sha256": self.features.network.weights_sha256()}


METHOD = VUNetMethod
