"""Finds the class of a method by its name."""

from __future__ import annotations

import torch

from potgan.common.processes import Processes
from potgan.methods.method import Method
from potgan.settings.methods import bound, method_place
from potgan.settings.schema import RunSettings


def method_class(name: str) -> type[Method]:
    """Return the class of the method. Raises UserError for a name that no method has."""
    return bound(method_place(name), "METHOD")


def build_method(settings: RunSettings, device: torch.device, processes: Processes | None = None) -> Method:
    """Return the method that `settings` names, with newly initialised networks on `device`."""
    return method_class(settings.method)(settings, device, processes)
