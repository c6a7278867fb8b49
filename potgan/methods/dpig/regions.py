"""The seven body regions of DPIG: their boxes, which follow from the joints, and the crops of a feature map in these boxes.

Source: charliememory/Disentangled-Person-Image-Generation: datasets/convert_market.py and convert_DF.py (`get_part_bbox`), and
models.py (`GeneratorCNN_ID_Encoder_BodyROIVis`).
"""

from __future__ import annotations

import torch
from torch import nn

from potgan.data.pose import JOINT, JOINTS
from potgan.methods.residual_unet import DEEPFASHION_HEIGHT
from potgan.methods.sampling import sample_places

_LEFT_ARM, _RIGHT_ARM, _LEFT_LEG, _RIGHT_LEG = (
    tuple(JOINT[f"{side}_{name}"] for name in names)
    for names in (("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle"))
    for side in ("left", "right")
)
#: Name of a region -> the numbers of its joints, in the order of the codes.
REGIONS = {
    "head": tuple(JOINT[n] for n in ("nose", "neck", "right_shoulder", "left_shoulder")) + tuple(range(14, 18)),
    "trunk and arms": (*_RIGHT_ARM, *_LEFT_ARM, JOINT["right_hip"], JOINT["left_hip"]),
    "legs": _RIGHT_LEG + _LEFT_LEG,
    "left arm": _LEFT_ARM,
    "right arm": _RIGHT_ARM,
    "left leg": _LEFT_LEG,
    "right leg": _RIGHT_LEG,
}
#: The joints of the two lower legs. An image of DeepFashion shows the whole body if at least one joint of each is seen.
_LOWER_LEGS = tuple(tuple(JOINT[f"{side}_{name}"] for name in ("knee", "ankle")) for side in ("left", "right"))
#: In pixels: how far a box reaches beyond its joints; at 128 x 64, and at 256 x 256 if the whole body is seen, and if it is not.
#: Around a single joint it is the second number.
_MARGINS, _MARGINS_WHOLE, _MARGINS_NEAR = (6, 10), (10, 20), (20, 40)
#: In pixels, at 256 x 256 only: how far above the nose the box of the head is taken to reach, for the same two cases.
_FOREHEAD_WHOLE, _FOREHEAD_NEAR = 10, 25


class RegionBoxes(nn.Module):
    """Joints (B, 18, 2) in pixels, NaN where missing -> the boxes (B, 7, 4) in pixels, and whether a region is seen, (B, 7) bool.

    A box is (y1, x1, y2, x2): the extent of the region's joints, a margin around it, and no more than the image. A region with
    none of its joints has the box (0, 0, 1, 1).

    size: (height, width) of the images in pixels. Below 256 rows the margins are those of Market-1501, in proportion to 128 rows;
    from there on they are those of DeepFashion, in proportion to 256. The authors' joints are whole pixels; these need not be.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.deepfashion = size[0] >= DEEPFASHION_HEIGHT
        self.scale = size[0] / (256 if self.deepfashion else 128)
        # A buffer, because a step that is recorded as a CUDA graph may not copy anything to the device. It is no part of a file.
        members = torch.tensor([[joint in region for joint in range(len(JOINTS))] for region in REGIONS.values()])
        self.register_buffer("members", members, persistent=False)

    def forward(self, joints: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        present = ~joints.isnan().any(dim=-1)  # (B, 18)
        x, y = joints.nan_to_num().unbind(dim=-1)
        beyond, beyond_single = self._margins(present)
        if self.deepfashion:
            nose = y[:, :1] - self._by_view(present, _FOREHEAD_WHOLE, _FOREHEAD_NEAR)
            y = torch.cat([nose.clamp(min=0), y[:, 1:]], dim=1)

        inside = self.members & present[:, None]  # (B, 7, 18)
        count = inside.sum(dim=-1)
        seen, single = count > 0, (count == 1).to(x.dtype)
        margin = beyond * (1 - single) + beyond_single * single
        edges = []
        for values, last in ((y, self.size[0] - 1), (x, self.size[1] - 1)):
            values = values[:, None].expand_as(inside)
            first_joint = values.masked_fill(~inside, float("inf")).amin(dim=-1)
            last_joint = values.masked_fill(~inside, float("-inf")).amax(dim=-1)
            edges.append((first_joint - margin).clamp(0, last).masked_fill(~seen, 0))
            edges.append((last_joint + margin).clamp(0, last).masked_fill(~seen, 1))
        y1, y2, x1, x2 = edges
        return torch.stack([y1, x1, y2, x2], dim=-1), seen

    def _margins(self, present: torch.Tensor) -> tuple[torch.Tensor | float, torch.Tensor | float]:
        """Return the margins around several joints and around a single one, as numbers or as (B, 1)."""
        if not self.deepfashion:
            return _MARGINS[0] * self.scale, _MARGINS[1] * self.scale
        return tuple(
            self._by_view(present, whole, near) for whole, near in zip(_MARGINS_WHOLE, _MARGINS_NEAR, strict=True)
        )

    def _by_view(self, present: torch.Tensor, whole: float, near: float) -> torch.Tensor:
        """Return (B, 1) pixels: `whole` where both lower legs are seen, and elsewhere `near`, as the person is then larger."""
        left, right = ((present[:, knee] | present[:, ankle]) for knee, ankle in _LOWER_LEGS)
        both = (left & right)[:, None].float()
        return (whole * both + near * (1 - both)) * self.scale


def box_places(boxes: torch.Tensor, side: int, size: tuple[int, int]) -> torch.Tensor:
    """Return the places that a crop of `side` x `side` samples is taken from, (..., side, side, 2) index coordinates (x, y).

    boxes: (..., 4), (y1, x1, y2, x2) in pixels of images of `size`. The authors divide a box by the height and the width, and
    `tf.image.crop_and_resize` multiplies it by what is one less. So the samples lie evenly from v1 (n - 1) / n to v2 (n - 1) / n.
    """
    height, width = size
    steps = torch.linspace(0, 1, side, dtype=boxes.dtype, device=boxes.device)
    y1, x1, y2, x2 = (boxes[..., i, None] for i in range(4))
    y = (y1 + (y2 - y1) * steps) * ((height - 1) / height)
    x = (x1 + (x2 - x1) * steps) * ((width - 1) / width)
    shape = (*boxes.shape[:-1], side, side)
    return torch.stack([x[..., None, :].expand(shape), y[..., :, None].expand(shape)], dim=-1)


def crops(features: torch.Tensor, boxes: torch.Tensor, side: int) -> torch.Tensor:
    """Cut R boxes out of each map, bilinearly: (B, C, H, W) and (B, R, 4) -> (B * R, C, side, side), image by image."""
    channels, height, width = features.shape[1:]
    places = box_places(boxes, side, (height, width))
    # The crops of an image are sampled one below another, so that its map is not copied for each of them.
    sampled = sample_places(features, places.flatten(1, 2), outside="border")  # (B, C, R * side, side)
    rows = sampled.unflatten(2, (-1, side)).permute(0, 2, 3, 4, 1)  # (B, R, side, side, C)
    return rows.reshape(-1, side, side, channels).permute(0, 3, 1, 2)
