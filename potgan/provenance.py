"""Which code a stage's results depend on: a fingerprint that a comment, a docstring or the formatter does not change."""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

PACKAGE = Path(__file__).parent
#: Modules (and data files) that decide what a stage writes. Progress, errors and the command line do not.
STAGE_FILES = {
    "images": ("archives.py", "image_folder.py", "synthetic.py", "pose_files.py", "../benchmarks/market1501.yaml",
               "../benchmarks/dukemtmc.yaml", "../benchmarks/deepfashion.yaml"),
    "keypoints": ("keypoints.py", "pose.py", "pose_files.py", "detection.py", "openpifpaf_worker.py"),
    "pairs": ("pairs.py", "pose.py", "pose_files.py", "synthetic.py"),
    "train": ("train.py", "adversarial_step.py", "generator_files.py", "batches.py", "losses.py", "rendering.py",
              "models/*.py"),
    "feature_network": ("metrics/synthetic_network.py", "synthetic.py"),
    "generate": ("generate.py", "generator_files.py", "result_folders.py", "batches.py", "rendering.py", "models/*.py"),
    "evaluate": ("evaluate.py", "rendering.py", "metrics/*.py", "models/tps.py"),
    "imitate": ("imitations.py", "synthetic.py", "pairs.py", "pose.py", "pose_files.py"),
    "tabulate": ("tables.py", "report.py", "datasheet.py", "figures.py", "browser.py", "machine.py",
                 "sensitivity.py", "templates/*", "../benchmarks/published.csv"),
}  # fmt: skip


@functools.cache
def code_fingerprint(stage: str) -> str:
    """12 hexadecimal digits over the syntax trees of the stage's modules, and the bytes of its data files."""
    digest = hashlib.sha256()
    for pattern in STAGE_FILES[stage]:
        folder = PACKAGE.parent if pattern.startswith("../") else PACKAGE
        for path in sorted(folder.glob(pattern.removeprefix("../"))):
            content = (
                _meaning(path.read_text(encoding="utf-8")) if path.suffix == ".py" else path.read_text(encoding="utf-8")
            )
            digest.update(path.name.encode() + b"\0" + content.encode() + b"\0")
    return digest.hexdigest()[:12]


def _meaning(source: str) -> str:
    """The syntax tree of a module without docstrings, as text."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                node.body = rest
    return ast.dump(tree)
