"""The named measurement protocols. This module holds only facts and imports nothing heavy.

A protocol is a frozen description with an id and a hash. A variant of a metric is another protocol and never a flag. Every
value in a table carries the id of its metric. So a number that was measured through another network than Inception never
carries the id of an FID through Inception.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from potgan.common.files import fingerprint

#: Metric, in the order of the table columns -> whether a higher or a lower value is better.
METRICS = {
    "ssim": "higher",
    "is": "higher",
    "mask_ssim": "higher",
    "mask_is": "higher",
    "fid": "lower",
    "mask_fid": "lower",
    "l1": "lower",
    "foreground_ssim": "higher",
    "psnr": "higher",
    "kid": "lower",
    "lpips": "lower",
}
METRIC_LABELS = {
    "ssim": "SSIM",
    "is": "IS",
    "mask_ssim": "mask-SSIM",
    "mask_is": "mask-IS",
    "fid": "FID",
    "mask_fid": "mask-FID",
    "l1": "L1",
    "foreground_ssim": "SSIM inside the mask",
    "psnr": "PSNR",
    "kid": "KID",
    "lpips": "LPIPS",
}
#: The metrics that compare an image with its target.
IMAGE_METRICS = ("ssim", "mask_ssim", "foreground_ssim", "l1", "psnr", "lpips")
#: The metrics of a whole set of images through a feature network.
SET_METRICS = ("is", "mask_is", "fid", "mask_fid", "kid")
#: The metrics that need masks.
MASKED_METRICS = ("mask_ssim", "foreground_ssim", "mask_is", "mask_fid")


@dataclass(frozen=True)
class SsimSettings:
    """The window and the data range of SSIM (docs/decisions.md, D33)."""

    window: str  # gaussian | uniform
    size: int  # number of taps along one side
    sigma: float  # standard deviation of the Gaussian, in pixels
    covariance: str  # population | sample
    data_range: str  # "generated": max - min of each generated image (Deformable GAN, PATN) | "255"


@dataclass(frozen=True)
class Protocol:
    """How a set of generated images is measured against the targets of its pairs."""

    id: str
    version: int  # it is raised whenever the meaning of the id changes
    description: str
    # frame: as-is | pad-256. With pad-256, images of 256 x 176 get 40 white columns left and right before anything is measured.
    frame: str
    # targets: dataset (the data set's own image) | strip (what was released with the results: the target panel of a strip, with its
    # JPEG errors, or a file with the result's number)
    targets: str
    file_format: str  # the format that the images must have been saved in: any | png
    ssim_id: str  # the name of the SSIM settings in a table
    ssim: SsimSettings
    mask_id: str  # the recipe of the masks: rectangles4 (Deformable GAN) | refined (the paper) | pg2-r4
    mask_owner: str  # the image whose pose the mask is drawn from: target | source
    feature_network: str  # inception-2015-12-05 | synthetic-classifier
    feature_id: str  # the suffix of the ids of IS, FID and KID
    inception_splits: int  # the number of splits; they are contiguous, in the order of the pair list
    # fid_reference: "targets" (the targets of the test pairs, as often as they occur) | "train" (every training image once)
    fid_reference: str
    minimum_n: int  # FID of fewer images is refused; with 0 it is measured, with a warning

    @property
    def hash(self) -> str:
        """The fingerprint of every field but the description, whose words change no measurement."""
        return fingerprint({name: value for name, value in dataclasses.asdict(self).items() if name != "description"})

    @property
    def record(self) -> dict[str, str | int]:
        """The entry of the protocol in `scores.json`."""
        return {"id": self.id, "version": self.version, "hash": self.hash, "description": self.description}

    def metric_id(self, metric: str) -> str:
        """Return the protocol id of one metric, e.g. `ssim-deform` or `mask-fid-synthetic`.

        Two protocols give a metric the same id only if they measure it with the same settings.
        """
        parts = [metric.replace("_", "-")]
        if metric in ("ssim", "mask_ssim", "foreground_ssim"):
            parts.append(self.ssim_id if _SSIM_IDS.get(self.ssim_id) == self.ssim else _spelled(self.ssim))
        elif metric in ("l1", "psnr"):
            parts.append("255")
        elif metric == "lpips":
            parts.append("alex")
        else:
            named = _FEATURE_IDS.get(self.feature_id) == self.feature_network
            parts.append(self.feature_id if named else self.feature_network)
        if metric in MASKED_METRICS and (metric.endswith("ssim") or (self.mask_id, self.mask_owner) != _PAPERS_MASK):
            parts += [self.mask_id, self.mask_owner]
        if metric in ("is", "mask_is") and self.inception_splits != 10:
            parts.append(f"{self.inception_splits}splits")
        if metric in ("fid", "mask_fid", "kid") and self.fid_reference != "targets":
            parts.append(self.fid_reference)
        if self.frame != "as-is":
            parts.append(self.frame)
        # IS looks only at generated images. All other metrics look at targets too.
        if self.targets != "dataset" and metric not in ("is", "mask_is"):
            parts.append(self.targets)
        if self.file_format != "any":
            parts.append(self.file_format)
        return "-".join(parts)


_PAPERS_MASK = ("rectangles4", "target")
_DEFORM_SSIM = SsimSettings(window="gaussian", size=11, sigma=1.5, covariance="population", data_range="generated")

POTGAN = Protocol(
    id="potgan",
    version=2,
    description="The paper's measurements with the peers' code read where the paper is silent (docs/decisions.md, D33 "
    "to D38): Deformable GAN's SSIM, target masks of half-width 4, IS and FID through the 2015 Inception network.",
    frame="as-is",
    targets="dataset",
    file_format="any",
    ssim_id="deform",
    ssim=_DEFORM_SSIM,
    mask_id="rectangles4",
    mask_owner="target",
    feature_network="inception-2015-12-05",
    feature_id="inception2015",
    inception_splits=10,
    fid_reference="targets",
    minimum_n=0,
)

POTGAN_SYNTHETIC = dataclasses.replace(
    POTGAN,
    id="potgan-synthetic",
    description="As `potgan`, but IS and FID go through a small classifier that the workflow trains on synthetic people. "
    "Those numbers compare rows of one table with each other and nothing else: they are not Inception's.",
    feature_network="synthetic-classifier",
    feature_id="synthetic",
)

REFINED = dataclasses.replace(
    POTGAN,
    id="refined",
    version=1,
    description="As `potgan`, with the other reading of the paper's mask: Section IV-B says only “the pose mask (i.e. a binary "
    "map)”, which may be its own refined full body mask of Section IV-C (limbs of radius 4, or 8 from 256 pixels on, torso "
    "and head).",
    mask_id="refined",
)

PATN = dataclasses.replace(
    POTGAN,
    id="patn",
    version=1,
    description="PATN's tool/getMetrics_market.py, also Deformable GAN's test.py: SSIM whose range is the generated image's "
    "own, against the target panel of the released strip, which JPEG has changed as well; masks of half-width 4; images of "
    "DeepFashion without its margins get them back, white.",
    frame="pad-256",
    targets="strip",
)

PG2 = dataclasses.replace(
    POTGAN,
    id="pg2",
    version=1,
    description="PG2's and DPIG's score.py and score_mask.py: a uniform window of 7, sample covariance, range 255; their mask "
    "folder holds the *source* pose's mask, limbs of radius 4.",
    ssim_id="uniform7",
    ssim=SsimSettings(window="uniform", size=7, sigma=0.0, covariance="sample", data_range="255"),
    mask_id="pg2-r4",
    mask_owner="source",
)

GFLA = dataclasses.replace(
    POTGAN,
    id="gfla",
    version=1,
    description="GFLA's and DPTN's script/metrics.py: a uniform window of 51, range 1 on images divided by 255; FID against "
    "every training image. Differs: through the 2015 network instead of torchvision's ImageNet one, and the last batch is kept.",
    ssim_id="uniform51",
    ssim=SsimSettings(window="uniform", size=51, sigma=0.0, covariance="sample", data_range="255"),
    fid_reference="train",
)

CLEAN = dataclasses.replace(
    POTGAN,
    id="clean",
    version=1,
    description="What we hold for the best practice today: SSIM with a fixed range, lossless images, the data set's own "
    "targets, FID only with more images than features, and KID with an interval for any number.",
    file_format="png",
    ssim_id="gauss255",
    ssim=dataclasses.replace(_DEFORM_SSIM, data_range="255"),
    minimum_n=2049,
)

PROTOCOLS = {protocol.id: protocol for protocol in (POTGAN, POTGAN_SYNTHETIC, REFINED, PATN, PG2, GFLA, CLEAN)}

#: The settings that each short name stands for. A variant that is made with `dataclasses.replace` has a short name whose
#: settings are others. Its settings are then spelled out in the id, so that it never keeps the name of the original.
_SSIM_IDS = {protocol.ssim_id: protocol.ssim for protocol in PROTOCOLS.values()}
_FEATURE_IDS = {protocol.feature_id: protocol.feature_network for protocol in PROTOCOLS.values()}


def _spelled(ssim: SsimSettings) -> str:
    sigma = f"-sigma{ssim.sigma:g}" if ssim.sigma else ""
    return f"{ssim.window}{ssim.size}{sigma}-{ssim.covariance}-{ssim.data_range}"


def as_they_are(protocol: Protocol, targets: str) -> Protocol:
    """Return the protocol without its demands on files, targets and their number, under an id that says which targets there are.

    targets: dataset | strip, as in `Protocol`.
    """
    return dataclasses.replace(
        protocol, id=f"{protocol.id}-as-they-are-{targets}", targets=targets, file_format="any", minimum_n=0
    )


def unmet_demands(protocol: Protocol, file_format: str, targets: str) -> list[str]:
    """Return the demands of a protocol that a set of images does not meet. The list is empty if all are met.

    Each item ends a sentence that begins with the name of a folder. file_format: png | jpeg. targets: dataset | strip, the targets
    that the images are measured against, as in `Protocol`.
    """
    found = []
    if protocol.file_format == "png" and file_format != "png":
        found.append(f"holds {file_format.upper()} files, and protocol {protocol.id} demands PNG")
    if protocol.targets != targets:
        theirs, wanted = _TARGETS[targets], _TARGETS[protocol.targets]
        found.append(f"its targets are {theirs}, and protocol {protocol.id} demands {wanted}")
    return found


_TARGETS = {"dataset": "the data set's own images", "strip": "those that were released with the results"}
