"""Weight files of pretrained networks, each checked by its SHA-256.

A file that the user has put into its place is used. A file that is absent is fetched once. Where it cannot be fetched, the message
says which file to put where.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from potgan.common.download import fetch
from potgan.common.errors import UserError
from potgan.common.files import sha256_of


@dataclass(frozen=True)
class WeightFile:
    """One published file.

    sha256: its 64 hexadecimal digits, or the first 8 of them where only these are published. size: bytes, None where unknown.
    """

    file_name: str
    url: str
    sha256: str
    size: int | None

    @property
    def checksum(self) -> str:
        """The checksum in the form that `fetch` takes."""
        return ("sha256:" if len(self.sha256) == 64 else "sha256-prefix:") + self.sha256


WEIGHTS = {
    # torchvision's VGG16_Weights.IMAGENET1K_V1, for the perceptual loss (Eq. 6 of the paper).
    "vgg16": WeightFile(
        file_name="vgg16-397923af.pth",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        size=553_433_881,
    ),
    # torchvision's VGG19_Weights.IMAGENET1K_V1, for the features of PATN, ADGAN, Deformable GAN and VUNet. Only the 8 digits of
    # the SHA-256 in its name are published, which are what torch.hub checks.
    "vgg19": WeightFile(
        file_name="vgg19-dcbb9e9d.pth",
        url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        sha256="dcbb9e9d",
        size=None,
    ),
    # torchvision's AlexNet_Weights.IMAGENET1K_V1, for LPIPS. Only the 8 digits of the SHA-256 in its name are published.
    "alexnet": WeightFile(
        file_name="alexnet-owt-7be5be79.pth",
        url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        sha256="7be5be79",
        size=None,
    ),
    # pytorch-fid's port of TensorFlow's inception-2015-12-05, for IS and FID (docs/decisions.md, D35 and D36).
    "inception-2015-12-05": WeightFile(
        file_name="pt_inception-2015-12-05-6726825d.pth",
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        size=95_628_359,
    ),
    # The network that OpenPifPaf 0.13 takes for COCO's key points by default. Only the 8 digits of the SHA-256 in its name are
    # published. `keypoints.json` records all digits of the file that was used; openpifpaf.checkpoint_sha256 demands them.
    "shufflenetv2k16": WeightFile(
        file_name="shufflenetv2k16-210820-232500-cocokp-slurm726069-edge513-o10s-7189450a.pkl",
        url="https://github.com/openpifpaf/torchhub/releases/download/v0.13/"
        "shufflenetv2k16-210820-232500-cocokp-slurm726069-edge513-o10s-7189450a.pkl",
        sha256="7189450a",
        size=None,
    ),
    "mobilenetv3small": WeightFile(
        file_name="mobilenetv3small-210822-213409-cocokp-slurm726252-edge513-o10s-803b24ae.pkl",
        url="https://github.com/openpifpaf/torchhub/releases/download/v0.13/"
        "mobilenetv3small-210822-213409-cocokp-slurm726252-edge513-o10s-803b24ae.pkl",
        sha256="803b24ae",
        size=None,
    ),
}


def weight_file(name: str, folder: Path | None = None) -> Path:
    """The path of the weight file `name` (a key of WEIGHTS), checked by SHA-256. It is fetched first where it is absent.

    folder: where it lies or is to lie; by default the environment variable POTGAN_WEIGHTS, or else data/weights.

    Raises UserError where the file that lies there is not the published one (it is left as it is), where the file that was
    fetched is not (it is thrown away), and where nothing can be fetched.
    """
    if name not in WEIGHTS:
        raise UserError(f"no weight file is known as {name!r}; there are {', '.join(WEIGHTS)}")
    weights = WEIGHTS[name]
    folder = Path(folder or os.environ.get("POTGAN_WEIGHTS") or Path("data", "weights"))
    path = folder / weights.file_name
    if not path.exists():
        by_hand = f"download it on another machine and put it at {path.absolute()}, or set POTGAN_WEIGHTS to its folder"
        fetch(weights.url, path, checksum=weights.checksum, size=weights.size, by_hand=by_hand)
        return path
    found = sha256_of(path)
    if not found.startswith(weights.sha256):
        raise UserError(
            f"{path}: is not the published file (SHA-256 {found}, expected {weights.sha256}); move it away, "
            f"and it is fetched again from {weights.url}"
        )
    return path
