"""The options of ADGAN. The defaults are the authors' values (docs/methods.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from potgan.common.typed import setting

#: The channels of VGG-19's first block.
VGG_WIDTH = 64


@dataclass(frozen=True)
class ADGANOptions:
    """ADGAN (Men et al. 2020): a style code of each parsed component of the source, through adaptive instance norm."""

    training: ClassVar[dict[str, object]] = {"learning_rate": 1e-3, "adam_betas": (0.5, 0.999)}
    unread: ClassVar[tuple[str, ...]] = ("masks.limb_radius", "masks.levels")

    #: Whether the method reads the parsing of the source image, which only some data sets have. A plan must know it.
    reads_parsing: ClassVar[bool] = True

    width: int = setting(
        64,
        "channels of the first layer of the generator and of both discriminators",
        at_least=1,
        follows="generator.width",
    )
    blocks: int = setting(8, "residual blocks of the pose encoder, and styled blocks of the decoder", at_least=1)
    texture_network: str = setting(
        "random",
        "weights of the frozen VGG-19 in the component encoder: `vgg16`: ImageNet's, as the authors have; `random`: seeded. Left "
        "out, it is of the kind of `training.perceptual_network`",
        choices=("vgg16", "random"),
        follows="training.perceptual_network",
    )
    texture_width: int = setting(
        64,
        "channels of the first block of that network where it is random; ImageNet's has 64, whatever is set",
        at_least=1,
        follows="generator.width",
    )
    dropout: float = setting(0.5, "in the discriminators' residual blocks", at_least=0, below=1)
    reconstruction: float = setting(1.0, "weight of L1", at_least=0)
    perceptual: float = setting(1.0, "weight of L1 between features", at_least=0)
    adversarial: float = setting(5.0, "weight of the mean of both adversarial losses", at_least=0)
    contextual: float = setting(0.1, "weight of the contextual losses", at_least=0)

    def __post_init__(self) -> None:
        if self.texture_network == "vgg16":
            object.__setattr__(self, "texture_width", VGG_WIDTH)  # two ways to say one network train it once


OPTIONS = ADGANOptions
