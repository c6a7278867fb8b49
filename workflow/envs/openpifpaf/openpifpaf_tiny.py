"""A plugin of OpenPifPaf: a base network small enough to be trained on a laptop and kept in a repository, and its data.

OpenPifPaf finds it by its name (`openpifpaf_*` on the path) and calls `register`. It is needed to train only: the
network is put together from classes of OpenPifPaf and torchvision, so that a checkpoint is read where this file is not.
"""

from __future__ import annotations

import functools

import openpifpaf
import torch
from openpifpaf import encoder, transforms
from openpifpaf.network.basenetworks import Resnet
from openpifpaf.plugins.coco import CocoKp
from openpifpaf.plugins.coco.constants import COCO_KEYPOINTS, HFLIP
from torchvision.models.resnet import BasicBlock

#: Output channels of the first convolution and of the four residual stages.
WIDTHS = (32, 40, 64, 80, 80)
#: Stride of each; together 16, OpenPifPaf's usual one. The first is large: an enlarged image has no detail to lose.
STRIDES = (4, 2, 2, 1, 1)


def _layers(_pretrained: bool) -> torch.nn.Sequential:
    """What torchvision's ResNet has as its children, narrower and with one block a stage."""

    def stage(inputs: int, outputs: int, stride: int) -> torch.nn.Sequential:
        shortcut = None
        if stride != 1 or inputs != outputs:
            shortcut = torch.nn.Sequential(
                torch.nn.Conv2d(inputs, outputs, 1, stride, bias=False), torch.nn.BatchNorm2d(outputs)
            )
        return torch.nn.Sequential(BasicBlock(inputs, outputs, stride, shortcut))

    return torch.nn.Sequential(
        torch.nn.Conv2d(3, WIDTHS[0], 7, STRIDES[0], 3, bias=False),
        torch.nn.BatchNorm2d(WIDTHS[0]),
        torch.nn.ReLU(inplace=True),
        torch.nn.Identity(),  # the place of ResNet's max pooling, which OpenPifPaf takes out
        *(stage(WIDTHS[i - 1], WIDTHS[i], STRIDES[i]) for i in range(1, 5)),
    )


class SyntheticPeople(CocoKp):
    """OpenPifPaf's COCO key-point data with an augmentation for one whole person in an upright image.

    Differs: `cocokp` enlarges by factors that spread fivefold, turns and crops, and pads to a square, which a small
    network in a small time cannot learn. Options are those of `cocokp` (`--cocokp-train-annotations` ...).
    """

    enlargement = (1.5, 2.2)  # of the 128 x 64 images; 2, the scale it is measured at, is inside
    canvas = (145, 289)  # width, height in pixels that hold the largest; multiples of the stride, plus one

    @classmethod
    def cli(cls, parser) -> None:
        """Nothing: the options of `cocokp` set the class attributes that this class inherits."""

    @classmethod
    def configure(cls, arguments) -> None:
        """Nothing: see `cli`."""

    def _preprocess(self) -> transforms.Compose:
        encoders = [encoder.Cif(self.head_metas[0], bmin=self.bmin), encoder.Caf(self.head_metas[1], bmin=self.bmin)]
        return transforms.Compose(
            [
                transforms.NormalizeAnnotations(),
                transforms.RandomApply(transforms.HFlip(COCO_KEYPOINTS, HFLIP), 0.5),
                transforms.RescaleRelative(self.enlargement),
                transforms.CenterPad(self.canvas),
                transforms.TRAIN_TRANSFORM,
                transforms.Encoders(encoders),
            ]
        )


def register() -> None:
    torch.manual_seed(0)  # the trainer has no option for it
    openpifpaf.BASE_FACTORIES["tinyresnet"] = functools.partial(Resnet, "tinyresnet", _layers, WIDTHS[-1])
    openpifpaf.DATAMODULES["syntheticpeople"] = SyntheticPeople
