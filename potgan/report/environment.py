"""Where a report was written: the repository's commit, and the hardware of this machine. No path and no host name."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from potgan.common.paths import PACKAGE


@dataclass(frozen=True)
class Commit:
    """What `git` says of the code. date: of the commit, ISO 8601; changed: number of tracked files that differ from it."""

    digest: str
    author: str
    date: str
    changed: int


def commit(folder: Path = PACKAGE) -> Commit | None:
    """The commit of the code in that folder, or None where it is no checkout, or git is not there. Changes nothing."""

    def git(*arguments: str) -> str:
        # Without optional locks: `git status` would otherwise write to the index of a checkout that others work in.
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout

    try:
        # An installed package may lie inside somebody's checkout without being part of it.
        git("ls-files", "--error-unmatch", "__init__.py")
        digest, author, date = git("log", "-1", "--format=%H%n%an%n%cI").splitlines()
        changed = git("status", "--porcelain", "--untracked-files=no").splitlines()
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return Commit(digest, author, date, len(changed))


def hardware() -> list[tuple[str, str]]:
    """(what, text) of this machine: processor, cores, memory, GPU, system."""
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    found = [
        ("Processor", processor()),
        ("Cores", str(cores) if usable == cores else f"{cores}, {usable} of them usable"),
    ]
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no such question on this system
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        found.append(("Memory", f"{memory / 2**30:.1f} GiB"))
    return [*found, ("GPU", gpus()), ("System", f"{platform.system()} {platform.machine()}")]


def processor() -> str:
    """The processor's name as Linux tells it, or what Python knows."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def gpus() -> str:
    """Names of the GPUs that torch sees, or "none"."""
    import torch

    if not torch.cuda.is_available():
        return "none"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))
