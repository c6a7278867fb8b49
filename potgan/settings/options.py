"""The options of the methods that PoT-GAN is compared with: `models.<name>.options` of a configuration.

The number of iterations, the batch and the learning rate are those of the section `training`, as for PoT-GAN. Stages and schedules
are shares of the iterations. `unread` names settings of a run that this method never reads, so that a change of them trains nothing
again. The defaults are the authors' values at 128 x 64 pixels (docs/methods.md has a card for each method).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from potgan.common.typed import setting


@dataclass(frozen=True)
class PG2Options:
    """PG2 (Ma et al. 2017): a coarse image by G1, then a difference map by G2."""

    unread: ClassVar[tuple[str, ...]] = (
        "training.perceptual_network",
        "training.perceptual_width",
        "masks.heatmap_sigma",
        "masks.levels",
    )

    width: int = setting(128, "channels of the first level of G1 and G2", at_least=1)
    discriminator_width: int = setting(64, "channels of the discriminator's first layer", at_least=1)
    first_stage: float = setting(
        22 / 36,
        "share of the iterations that train G1; the rest train G2 and D. The paper has 22,000 and 14,000 on Market-1501, and "
        "30,000 and 20,000 on DeepFashion",
        above=0,
        below=1,
    )
    reconstruction: float = setting(10.0, "weight of the masked L1 beside the adversarial loss", at_least=0)


@dataclass(frozen=True)
class DeformableOptions:
    """Deformable GAN (Siarohin et al. 2018): skip connections deformed by one affine warp per body part."""

    unread: ClassVar[tuple[str, ...]] = ("masks.limb_radius", "masks.levels")

    width: int = setting(64, "channels of the first level", at_least=1)
    normalization: str = setting(
        "layer",
        "`layer`: over channels, rows and columns of each sample, with one scale and shift per layer, as the authors' code "
        "computes it; `instance`: per channel",
        choices=("layer", "instance"),
    )
    dropout: float = setting(0.5, "in the decoder's first three blocks", at_least=0, below=1)
    sampling: str = setting(
        "bilinear", "of the warped features; the authors' code takes `nearest`", choices=("bilinear", "nearest")
    )
    nearest_neighbour: float = setting(0.01, "weight of the nearest-neighbour loss", at_least=0)
    window: int = setting(
        3, "side of that loss's window; 3 for Market-1501, 5 for DeepFashion", unit="pixels", at_least=1
    )
    feature_scale: float = setting(
        57.6,
        "factor of that loss's features: 255 x 0.226 brings those of images in units of ImageNet's deviation to the authors', of "
        "images in [0, 255]",
        above=0,
    )


@dataclass(frozen=True)
class VUNetOptions:
    """VUNet (Esser et al. 2018): a conditional variational autoencoder, trained on single images."""

    unread: ClassVar[tuple[str, ...]] = ("masks.limb_radius", "masks.levels", "masks.heatmap_sigma")

    width: int = setting(32, "channels of the first scale; the others have at most four times as many", at_least=1)
    dropout: float = setting(0.1, "in every residual block", at_least=0, below=1)
    reconstruction: float = setting(5.0, "weight of the feature loss", at_least=0)


@dataclass(frozen=True)
class DPIGOptions:
    """DPIG (Ma et al. 2018), its first stage: codes of seven body regions and the background, trained by reconstruction."""

    unread: ClassVar[tuple[str, ...]] = (
        "training.perceptual_network",
        "training.perceptual_width",
        "masks.heatmap_sigma",
        "masks.levels",
    )

    width: int = setting(128, "channels of the first level of encoders and decoder", at_least=1)
    discriminator_width: int = setting(64, "channels of the discriminator's first layer", at_least=1)
    reconstruction: float = setting(20.0, "weight of L1 beside the adversarial loss", at_least=0)
    background: bool = setting(
        True,
        "whether the background has a code of its own, by the source mask; the authors' DeepFashion model has none",
    )


@dataclass(frozen=True)
class PATNOptions:
    """PATN (Zhu et al. 2019): nine blocks that attend to what the pose moves."""

    unread: ClassVar[tuple[str, ...]] = ("masks.limb_radius", "masks.levels")

    width: int = setting(64, "channels of the first layer of the generator and of both discriminators", at_least=1)
    blocks: int = setting(9, "attention blocks", at_least=1)
    normalization: str = setting(
        "batch", "`batch` on Market-1501, `instance` on DeepFashion", choices=("batch", "instance")
    )
    dropout: float = setting(
        0.5, "in the attention blocks and in the discriminators' residual blocks", at_least=0, below=1
    )
    reconstruction: float = setting(10.0, "weight of L1; 1 on DeepFashion", at_least=0)
    perceptual: float = setting(10.0, "weight of L1 between features; 1 on DeepFashion", at_least=0)
    adversarial: float = setting(5.0, "weight of the mean of both adversarial losses", at_least=0)
    adversarial_kind: str = setting(
        "cross-entropy",
        "`cross-entropy` on Market-1501, `least-squares` on DeepFashion",
        choices=("cross-entropy", "least-squares"),
    )
    pool: int = setting(
        50, "earlier images that the discriminators are shown half of the time; 0 on DeepFashion", at_least=0
    )


@dataclass(frozen=True)
class ADGANOptions:
    """ADGAN (Men et al. 2020): a style code of each parsed component of the source, through adaptive instance norm."""

    unread: ClassVar[tuple[str, ...]] = ("masks.limb_radius", "masks.levels")

    #: Whether the method reads the parsing of the source image, which only some data sets have. A plan must know it.
    reads_parsing: ClassVar[bool] = True

    width: int = setting(64, "channels of the first layer of the generator and of both discriminators", at_least=1)
    blocks: int = setting(8, "residual blocks of the pose encoder, and styled blocks of the decoder", at_least=1)
    texture_network: str = setting(
        "random",
        "weights of the frozen VGG-19 in the component encoder: `vgg16`: ImageNet's, as the authors have; `random`: seeded. Left "
        "out, it is of the kind of `training.perceptual_network`",
        choices=("vgg16", "random"),
    )
    texture_width: int = setting(
        64, "channels of the first block of that network where it is random; ImageNet's has 64", at_least=1
    )
    dropout: float = setting(0.5, "in the discriminators' residual blocks", at_least=0, below=1)
    reconstruction: float = setting(1.0, "weight of L1", at_least=0)
    perceptual: float = setting(1.0, "weight of L1 between features", at_least=0)
    adversarial: float = setting(5.0, "weight of the mean of both adversarial losses", at_least=0)
    contextual: float = setting(0.1, "weight of the contextual losses", at_least=0)


#: Method that a model may name (`models.<name>.method`) -> the dataclass of its `options`. PoT-GAN has none, because its settings
#: are sections of a configuration. `potgan.methods.registry` finds the class of a method.
METHOD_OPTIONS: dict[str, type | None] = {
    "potgan": None,
    "pg2": PG2Options,
    "deformable": DeformableOptions,
    "vunet": VUNetOptions,
    "dpig": DPIGOptions,
    "patn": PATNOptions,
    "adgan": ADGANOptions,
}
