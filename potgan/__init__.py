"""PoT-GAN: from person images to TABLE I-IV. The module map stands in README.md; the stages in `stages.py`."""
