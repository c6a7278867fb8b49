"""Where the package and the files beside it lie. No other module uses `__file__`, so that modules can be moved."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parent
#: Facts that the repository holds: about each data set (<kind>.yaml), the paper's numbers, and what other precisions change.
FACTS = REPOSITORY / "benchmarks"
PUBLISHED = FACTS / "published.csv"
MEASURED_PRECISION = FACTS / "precision.csv"
#: The configurations that the repository ships.
CONFIGURATIONS = REPOSITORY / "config"
#: The environment of OpenPifPaf: its recipe, and the script that runs in it.
OPENPIFPAF_RECIPE = REPOSITORY / "workflow" / "envs" / "openpifpaf"
OPENPIFPAF_WORKER = PACKAGE / "data" / "openpifpaf_worker.py"
TEMPLATES = PACKAGE / "report" / "templates"


def at_home(path: str) -> str:
    """The path with the user's home folder in place of a `~` at its beginning, which a shell leaves in `--out=~/x` and in files."""
    try:
        return str(Path(path).expanduser()) if path.startswith("~") else path
    except RuntimeError:  # there is no such user
        return path


def openpifpaf_environment() -> Path:
    """The folder of OpenPifPaf's environment: $POTGAN_OPENPIFPAF_ENV, or else .venv beside its recipe."""
    return Path(os.environ.get("POTGAN_OPENPIFPAF_ENV") or OPENPIFPAF_RECIPE / ".venv")
