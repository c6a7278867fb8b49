"""Earlier synthesised images, which a discriminator is shown among the new ones (Shrivastava et al. 2017, Section 2.3)."""

from __future__ import annotations

import torch
from torch import nn


class ImagePool(nn.Module):
    """A pool of earlier images, as PATN's `util/image_pool.py` keeps it.

    The first images that come fill the pool, and each of them is also shown. Then half of the images, by chance, are shown as they
    are. Each of the others takes a random place in the pool, and the image that was there is shown instead of it.

    The pool is buffers, so it is saved and continued exactly. Each process has a pool of its own. A pool reads no value from the
    device, so that a CUDA graph can hold it: a batch is handled as a whole, with the result of one image after the other.

    size: images in the pool; with 0 every image is shown as it is. shape: (C, H, W) of an image.
    """

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Put some of the images (B, C, H, W) into the pool, and return the B images to show, float32."""
        images = images.float()
        if self.size == 0:
            return images
        count, device = len(images), images.device
        number = torch.arange(count, device=device)
        coming = self.filled + number  # the place of each image while the pool is filled
        fills = coming < self.size
        place = torch.where(fills, coming, torch.randint(self.size, (count,), device=device))
        swaps = ~fills & (torch.rand(count, device=device) > 0.5)

        # Several images of one batch may take the same place. `puts[i, j]`: image j is put where image i is or would be.
        puts = (place[:, None] == place[None, :]) & (fills | swaps)[None, :]
        before = puts & (number[None, :] < number[:, None])
        there = self.images[place]

        def latest(which: torch.Tensor) -> torch.Tensor:
            """For each image, the last image of this batch that `which` says was put at its place, or what is there."""
            last = torch.where(which, number[None, :], -1).amax(1)
            return torch.where((last >= 0)[:, None, None, None], images[last.clamp(min=0)], there)

        shown = torch.where(swaps[:, None, None, None], latest(before), images)
        # Images with the same place write the same values, so their order does not matter.
        self.images.index_copy_(0, place, latest(puts))
        self.filled.copy_((self.filled + count).clamp(max=self.size))
        return shown
