"""Where the package and the facts beside it lie. Nothing else asks for `__file__`, so that modules can be moved."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parent
#: Facts of the repository: the data sets (<kind>.yaml), the paper's numbers, what other precisions change.
FACTS = REPOSITORY / "benchmarks"
PUBLISHED = FACTS / "published.csv"
MEASURED_PRECISION = FACTS / "precision.csv"
#: The configurations that the repository ships.
CONFIGURATIONS = REPOSITORY / "config"
#: The environment of OpenPifPaf: its recipe, and the script that runs in it.
OPENPIFPAF_RECIPE = REPOSITORY / "workflow" / "envs" / "openpifpaf"
OPENPIFPAF_WORKER = PACKAGE / "data" / "openpifpaf_worker.py"
TEMPLATES = PACKAGE / "report" / "templates"
