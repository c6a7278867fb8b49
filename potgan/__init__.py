"""PoT-GAN: from person images to TABLE I-IV. The module map stands in README.md; the stages in `stages.py`."""


def __getattr__(name: str) -> object:
    # On demand: it brings torch, which takes seconds, and most of the package does without.
    if name == "load_generator":
        from potgan.generator_files import load_generator

        return load_generator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
