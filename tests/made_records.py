"""Files of results as the stages write them, for tests that need one and run no stage."""


def training_record(**changes: object) -> dict[str, object]:
    """`done.json`."""
    record = {
        "settings": {},
        "training_fingerprint": "0123456789ab",
        "data": {},
        "pairs": 100,
        "iterations": 10,
        "passes": 0.5,
        "wall_seconds": 60.0,
        "pairs_per_second": 2.0,
        "peak_memory_bytes": None,
        "parameters": {"generator": 1_500_000, "discriminator": 200_000},
        "device": "CPU",
        "threads": 1,
        "processes": 1,
        "precision": "fp32",
        "compiled": False,
        "generators": {},
    }
    return record | changes


def images_record(**changes: object) -> dict[str, object]:
    """`images.json`."""
    record = {
        "dataset": "synthetic",
        "kind": "synthetic",
        "source": "synthetic renderer",
        "images": {"train": 0, "test": 9},
        "identities": {"train": 0, "test": 3},
        "sha256": "0" * 64,
    }
    return record | changes
