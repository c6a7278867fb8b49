"""The options of VUNet. The defaults are the authors' values at 128 x 64 pixels (docs/methods.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from potgan.common.typed import setting


@dataclass(frozen=True)
class VUNetOptions:
    """VUNet (Esser et al. 2018): a conditional variational autoencoder, trained on single images."""

    training: ClassVar[dict[str, object]] = {"learning_rate": 1e-3, "adam_betas": (0.5, 0.9)}
    unread: ClassVar[tuple[str, ...]] = ("masks.limb_radius", "masks.levels", "masks.heatmap_sigma")

    width: int = setting(
        32,
        "channels of the first scale; the others have at most four times as many",
        at_least=1,
        follows="generator.width",
    )
    dropout: float = setting(0.1, "in every residual block", at_least=0, below=1)
    reconstruction: float = setting(5.0, "weight of the feature loss", at_least=0)


OPTIONS = VUNetOptions
