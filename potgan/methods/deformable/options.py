"""The options of Deformable GAN. The defaults are the authors' values at 128 x 64 pixels (docs/methods.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from potgan.common.typed import setting


@dataclass(frozen=True)
class DeformableOptions:
    """Deformable GAN (Siarohin et al. 2018): skip connections deformed by one affine warp per body part."""

    training: ClassVar[dict[str, object]] = {"learning_rate": 2e-4, "adam_betas": (0.5, 0.999)}
    unread: ClassVar[tuple[str, ...]] = ("masks.limb_radius", "masks.levels")

    width: int = setting(64, "channels of the first level", at_least=1, follows="generator.width")
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
        3,
        "side of that loss's window, an odd number; 3 for Market-1501, 5 for DeepFashion",
        unit="pixels",
        at_least=1,
        at_most=31,
    )
    feature_scale: float = setting(
        57.6,
        "factor of that loss's features: 255 x 0.226 brings those of images in units of ImageNet's deviation to the authors', of "
        "images in [0, 255]",
        above=0,
    )

    def problem(self, _: int) -> str:
        return "" if self.window % 2 else f"window must be odd, so that it has a middle, and is {self.window}"


OPTIONS = DeformableOptions
