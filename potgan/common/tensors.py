"""Tensors as the bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Mapping

import torch


def tensors_to_bytes(tree: Mapping[str, object]) -> memoryview:
    """`tree` in torch's own file format. `torch.load` reads it, also with `weights_only=True` if all values allow that."""
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getbuffer()
