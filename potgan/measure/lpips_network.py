"""LPIPS: the learned distance of two images (Zhang et al. 2018, "The unreasonable effectiveness of deep features as a perceptual
metric").

The network is the authors' package `lpips`, version 0.1 with AlexNet, as GFLA's script/metrics.py takes it. The package ships the
linear layers. The backbone is torchvision's file of ImageNet weights, which is fetched and checked here as every other weight file
(`potgan.common.weights`), so that it is not looked for in a cache that this project does not know of.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch

from potgan.common.errors import UserError
from potgan.common.files import sha256_of
from potgan.common.progress import say

#: Pairs that pass through the network together.
_BATCH = 32


class LpipsNetwork:
    """The distance of pairs of images.

    backbone: torchvision's `alexnet-owt-7be5be79.pth`. weights_sha256: of this file.

    Raises UserError if the file does not hold the weights of AlexNet.
    """

    def __init__(self, backbone: Path, device: str | torch.device = "cpu") -> None:
        import lpips

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package uses a spelling that torchvision has deprecated
            network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        try:
            weights = torch.load(backbone, map_location="cpu", weights_only=True)
            # The package cuts `features` into slices, which keep the numbers of the layers.
            for piece in (getattr(network.net, f"slice{k}") for k in range(1, network.net.N_slices + 1)):
                piece.load_state_dict({name: weights[f"features.{name}"] for name in piece.state_dict()})
        except Exception as error:
            raise UserError(
                f"{backbone}: holds no weights of AlexNet ({type(error).__name__}); fetch it again"
            ) from None
        self.weights_sha256 = sha256_of(backbone)
        self._device = torch.device(device)
        self._network = network.eval().to(self._device)

    @torch.inference_mode()
    def distances(self, generated: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return (N,) float64: 0 for equal images, and more for less similar ones. generated, targets: (N, H, W, 3) uint8 RGB."""
        found = np.empty(len(generated))
        for start in range(0, len(generated), _BATCH):
            part = slice(start, start + _BATCH)
            pair = (self._tensor(images[part]) for images in (generated, targets))
            found[part] = self._network(*pair).flatten().double().cpu().numpy()
        return found

    def _tensor(self, images: np.ndarray) -> torch.Tensor:
        """(N, 3, H, W) float32 in [-1, 1], as the package wants it."""
        return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(self._device).float() / 127.5 - 1


def load_lpips() -> LpipsNetwork | str:
    """Return the network, or in words why there is none. This is no error, because the other metrics can be measured without it."""
    from potgan.common.device import pick_device
    from potgan.common.weights import weight_file

    try:
        return LpipsNetwork(weight_file("alexnet"), pick_device())
    except UserError as error:
        say(f"without LPIPS: {error}")
        return "the weights of AlexNet are not here"
