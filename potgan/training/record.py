"""What a finished training says of itself: `done.json`."""

from __future__ import annotations

from dataclasses import dataclass, field

from potgan.common.records import JsonRecord


@dataclass(frozen=True)
class TrainingRecord(JsonRecord):
    """`done.json`.

    settings: the whole `RunSettings` as a mapping, as they were when it was trained. data: what was trained on -> SHA-256.
    pairs: of the training list; passes: over that list. wall_seconds: of all attempts. peak_memory_bytes: None where the device
    does not tell. parameters: network -> count. generators: file -> SHA-256, of each kept checkpoint.
    perceptual_network_sha256: of its weights, where the method has one. of_method: what else the method adds.
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
        """Files of the kept generators, the earliest first."""
        return sorted(self.generators)
