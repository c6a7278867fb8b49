"""Tensors as the bytes of a file."""

from __future__ import annotations

import io
from typing import Any

import torch


def tensors_to_bytes(tree: dict[str, Any]) -> memoryview:
    """torch's own file format; read it with `weights_only=True`."""
    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getbuffer()
