"""The named measurement protocols. Facts only: this module imports nothing heavy.

A protocol is a frozen description with an id and a hash. A variant of a metric is another protocol, never a flag, and
every value in a table carries the id of its metric: a number measured through a network that is not Inception never
stands under `fid`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

#: Table columns in their order; "lower" metrics are better when smaller.
METRICS = {
    "ssim": "higher",
    "is": "higher",
    "mask_ssim": "higher",
    "mask_is": "higher",
    "fid": "lower",
    "mask_fid": "lower",
    "l1": "lower",
}
METRIC_LABELS = {
    "ssim": "SSIM",
    "is": "IS",
    "mask_ssim": "mask-SSIM",
    "mask_is": "mask-IS",
    "fid": "FID",
    "mask_fid": "mask-FID",
    "l1": "L1",
}


@dataclass(frozen=True)
class SsimSettings:
    """Window and range of SSIM (PROTOCOLS 5.1)."""

    window: str  # gaussian | uniform
    size: int  # taps
    sigma: float  # of the Gaussian, in pixels
    covariance: str  # population | sample
    data_range: str  # "generated": max - min of each generated image (Deformable GAN, PATN) | "255"


@dataclass(frozen=True)
class Protocol:
    """How a set of generated images is measured against the targets of its pairs."""

    id: str
    description: str
    ssim_id: str  # what the SSIM settings are called in a table
    ssim: SsimSettings
    mask_id: str  # recipe of the mask of masked metrics
    mask_owner: str  # target | source
    feature_network: str  # inception-2015-12-05 | synthetic-classifier
    feature_id: str  # suffix of IS and FID ids
    inception_splits: int  # contiguous, in the order of the pair list
    fid_reference: str  # which real images FID compares with

    @property
    def hash(self) -> str:
        from potgan.config import fingerprint

        return fingerprint(dataclasses.asdict(self))

    def metric_id(self, metric: str) -> str:
        """The protocol id of one metric, e.g. `ssim-deform`, `mask-fid-synthetic`."""
        name = metric.replace("_", "-")
        if metric in ("ssim", "mask_ssim"):
            suffix = self.ssim_id if metric == "ssim" else f"{self.ssim_id}-{self.mask_id}-{self.mask_owner}"
            return f"{name}-{suffix}"
        if metric == "l1":
            return "l1-255"
        return f"{name}-{self.feature_id}"


_DEFORM_SSIM = SsimSettings(window="gaussian", size=11, sigma=1.5, covariance="population", data_range="generated")

POTGAN = Protocol(
    id="potgan",
    description="The paper's measurements with the peers' code read where the paper is silent (PROTOCOLS 5, 7.2 items 23 "
    "and 28 to 31): Deformable GAN's SSIM, target masks of half-width 4, IS and FID through the 2015 Inception network.",
    ssim_id="deform",
    ssim=_DEFORM_SSIM,
    mask_id="rectangles4",
    mask_owner="target",
    feature_network="inception-2015-12-05",
    feature_id="inception2015",
    inception_splits=10,
    fid_reference="targets of the test pairs, with multiplicity",
)

POTGAN_SYNTHETIC = dataclasses.replace(
    POTGAN,
    id="potgan-synthetic",
    description="As `potgan`, but IS and FID go through a small classifier that the workflow trains on synthetic people. "
    "Those numbers compare rows of one table with each other and nothing else: they are not Inception's.",
    feature_network="synthetic-classifier",
    feature_id="synthetic",
)

PROTOCOLS = {protocol.id: protocol for protocol in (POTGAN, POTGAN_SYNTHETIC)}
