"""Which code a stage's results depend on: a fingerprint of the definitions that the stage reaches, and of no others.

A comment, a docstring, the formatter, the text of an error message or of a progress line changes no result and no
fingerprint. Neither does a function of the same module that the stage does not call.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent
#: Modules that decide no result: errors, progress and files; settings, which records hold themselves; transfers, whose
#: content is checked by hash; where a training runs and how it is watched; the bookkeeping around stages.
UNDECISIVE = {
    "__main__", "acquisition", "config", "devices", "download", "dvc_stages", "errors", "estimate", "files", "machine",
    "packing", "plan", "precision", "progress", "provenance", "records", "trained_runs",
    "training_log", "training_state",
}  # fmt: skip
#: Data files that decide results beside the code.
STAGE_FILES = {
    "images": ("benchmarks/market1501.yaml", "benchmarks/dukemtmc.yaml", "benchmarks/deepfashion.yaml"),
    "tabulate": ("benchmarks/published.csv", "benchmarks/precision.csv", "potgan/templates/*"),
}
#: Where a stage's code begins, if not in the function of `stages.py` that has its name.
ENTRIES = {"imitate": ("imitations", "write_archive")}


@functools.cache
def code_fingerprint(stage: str) -> str:
    """12 hexadecimal digits over all definitions that `stages.<stage>` reaches, and the bytes of the stage's data files."""
    return fingerprint_of(*ENTRIES.get(stage, ("stages", stage)), STAGE_FILES.get(stage, ()), PACKAGE)


def fingerprint_of(module: str, name: str, data_files: tuple[str, ...], package: Path) -> str:
    digest = hashlib.sha256()
    for (where, what), definition in sorted(reached(module, name, package).items()):
        digest.update(f"{where}.{what}\0{definition}\0".encode())
    for pattern in data_files:
        for path in sorted(package.parent.glob(pattern)):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def reached(module: str, name: str, package: Path = PACKAGE) -> dict[tuple[str, str], str]:
    """(module, top-level name) -> its meaning as text, of all that `module.name` uses, directly or not.

    A name counts as used wherever it is read, also in a branch that is never taken; a class with all its methods.
    """
    found: dict[tuple[str, str], str] = {}
    waiting = [(module, name)]
    while waiting:
        where, what = waiting.pop()
        if (where, what) in found or where in UNDECISIVE:
            continue
        source = _module(where, package)
        if what not in source.definitions:
            continue  # a builtin, a local name, something of a library
        found[where, what] = "\0".join(source.meaning(node) for node in source.definitions[what])
        for node in source.definitions[what]:
            waiting.extend(source.uses(node))
    return found


class _Module:
    """The top-level definitions of a module, and what each of them uses."""

    def __init__(self, name: str, package: Path) -> None:
        self.name, self.package = name, package
        path = package / (name.replace(".", "/") + ".py")
        tree = _without_words(path.read_text(encoding="utf-8"))
        self._meanings: dict[int, str] = {}
        self._uses: dict[int, list[tuple[str, str]]] = {}
        self.definitions: dict[str, list[ast.stmt]] = {}
        for node in tree.body:
            for defined in _defined(node):
                self.definitions.setdefault(defined, []).append(node)
        self.imports = dict(self._imports(tree.body))

    def _imports(self, nodes: list[ast.AST]) -> Iterator[tuple[str, tuple[str, str | None]]]:
        """local name -> (module of the package, name in it, or None for the module itself)."""
        for node in nodes:
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("potgan"):
                continue
            parent = node.module.removeprefix("potgan").removeprefix(".")
            for alias in node.names:
                inner = f"{parent}.{alias.name}".removeprefix(".")
                is_module = (self.package / (inner.replace(".", "/") + ".py")).exists()
                yield alias.asname or alias.name, (inner, None) if is_module else (parent, alias.name)

    def uses(self, node: ast.stmt) -> list[tuple[str, str]]:
        if id(node) not in self._uses:
            parts = list(ast.walk(node))
            imports = self.imports | dict(self._imports(parts))
            found = set()
            for part in parts:
                if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
                    module, inner = imports.get(part.value.id, (None, ""))
                    if module is not None and inner is None:
                        found.add((module, part.attr))
                elif isinstance(part, ast.Name):
                    module, inner = imports.get(part.id, (self.name, part.id))
                    if inner is not None:
                        found.add((module, inner))
            self._uses[id(node)] = sorted(found)
        return self._uses[id(node)]

    def meaning(self, node: ast.stmt) -> str:
        if id(node) not in self._meanings:
            self._meanings[id(node)] = ast.unparse(node)  # in one style, whatever the formatter's
        return self._meanings[id(node)]


@functools.cache
def _module(name: str, package: Path) -> _Module:
    return _Module(name, package)


def _defined(node: ast.stmt) -> Iterator[str]:
    """Names that a statement of a module's body defines or changes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
        return
    if isinstance(node, ast.Import | ast.ImportFrom):
        return
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            yield part.id


def _without_words(source: str) -> ast.Module:
    """The syntax tree of a source text without docstrings and without what is said to people: of `UserError(...)` and
    `say(...)` it is kept that they are there."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="UserError" | "Interrupted" | "say")):
                node.args, node.keywords = [], []
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str())), *rest]:
                node.body = rest or [ast.Pass()]
    return tree
