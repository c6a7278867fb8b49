"""The record of a finished training: `done.json`."""

from __future__ import annotations

from dataclasses import dataclass, field

from potgan.common.errors import UserError
from potgan.common.records import JsonRecord


@dataclass(frozen=True)
class TrainingRecord(JsonRecord):
    """The content of `done.json`.

    settings: the whole `RunSettings` of the training as a mapping. data: what was trained on -> SHA-256. pairs: the number of
    pairs in the training list. passes: how often the training went through that list. wall_seconds: the time of all attempts
    together. peak_memory_bytes: None if the device does not tell it. parameters: network -> number of parameters. generators:
    file -> SHA-256, for each kept checkpoint. perceptual_network_sha256: the SHA-256 of the perceptual network's weights, or None
    if the method has no such network. of_method: what else the method adds.
    """

    REMEDY = "run `potgan train` first"

    settings: dict[str, object]
    training_fingerprint: str
    data: dict[str, str]
    pairs: int
    iterations: int
    passes: float
    wall_seconds: float
    pairs_per_second: float
    peak_memory_bytes: int | None
    parameters: dict[str, int]
    device: str
    threads: int
    processes: int
    precision: str
    compiled: bool
    generators: dict[str, str]
    perceptual_network_sha256: str | None = None
    of_method: dict[str, str | None] = field(default_factory=dict)

    @property
    def kept(self) -> list[str]:
        """The files of the kept generators, the earliest first. Raises UserError where there is none."""
        if not self.generators:
            raise UserError(f"the record of the training names no generator; {self.REMEDY}")
        return sorted(self.generators)
