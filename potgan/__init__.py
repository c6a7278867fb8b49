"""PoT-GAN: from person images to TABLE I-IV. docs/architecture.md shows the rooms of the package and how they fit together."""


def __getattr__(name: str) -> object:
    # On demand: it brings torch, which takes seconds, and most of the package does without.
    if name == "load_generator":
        from potgan.methods.generator_file import load_generator

        return load_generator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
