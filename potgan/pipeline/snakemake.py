"""What the workflow's files need of the package."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def prefer_this_python() -> None:
    """Let the jobs that this process starts find its own Python first, also where it was called by its path and its
    environment is not active."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
