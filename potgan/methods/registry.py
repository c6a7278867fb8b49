"""Finds the class of a method by its name."""

from __future__ import annotations

import importlib

import torch

from potgan.common.errors import UserError
from potgan.common.processes import Processes
from potgan.methods import METHODS
from potgan.methods.method import Method
from potgan.settings.schema import RunSettings


def method_class(name: str) -> type[Method]:
    """Return the class of the method. Raises UserError for a name that no method has."""
    if name not in METHODS:
        raise UserError(f"no method {name!r}; there are {', '.join(METHODS)}")
    module, _, found = METHODS[name].partition(":")
    return getattr(importlib.import_module(f"potgan.{module}"), found)


def build_method(settings: RunSettings, device: torch.device, processes: Processes | None = None) -> Method:
    """Return the method that `settings` names, with newly initialised networks on `device`."""
    return method_class(settings.method)(settings, device, processes)
