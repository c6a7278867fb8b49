"""PoT-GAN has no options of its own: its settings are the sections that a configuration has beside `models`."""

OPTIONS = None
