"""A fingerprint of the code that decides a stage's result.

The fingerprint is taken of definitions (functions, classes and constants of the package), wherever they stand. It begins at
the function of the stage and follows every name that is used, so that it holds what the stage can reach and nothing else.
Each definition is written down once, in the order in which it is first used, and every use of it is written as its place in
that order. So neither the name of a definition nor the module that holds it counts: code can be moved and renamed, and no
training is repeated. Comments, docstrings, formatting, type annotations of functions and texts for people (`say`, `progress`
and the text of an error) do not count either, because they change no result.

The content-addressed code of Unison (https://www.unison-lang.org) is the same idea.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from potgan.common.errors import UserError
from potgan.common.files import write_json
from potgan.common.paths import PACKAGE
from potgan.settings.methods import method_place, options_place

#: Stage -> where its code begins, as "module:definition": its function, the settings whose defaults it depends on, and what it
#: runs in a process of its own.
ENTRIES = {
    "published": ("pipeline.stages:published", "settings.schema:Dataset"),
    "images": ("pipeline.stages:images", "settings.schema:Dataset"),
    "keypoints": ("pipeline.stages:keypoints", "settings.schema:Dataset", "data.openpifpaf_worker:main"),
    "pairs": ("pipeline.stages:pairs", "settings.schema:Dataset"),
    "masks": ("pipeline.stages:masks",),
    "parsing": ("pipeline.stages:parsing", "settings.schema:Dataset"),
    "feature_network": ("pipeline.stages:feature_network",),
    "train": ("pipeline.stages:train", "settings.schema:RunSettings"),
    "generate": ("pipeline.stages:generate", "settings.schema:RunSettings"),
    "evaluate": ("pipeline.stages:evaluate", "settings.schema:RunSettings", "settings.protocols:PROTOCOLS"),
    "tabulate": ("pipeline.stages:tabulate", "settings.schema:Benchmark", "settings.protocols:PROTOCOLS"),
    "imitate": ("data.synthetic.imitations:write_archive", "settings.schema:SyntheticSettings"),
}
FACTS = ("benchmarks/market1501.yaml", "benchmarks/dukemtmc.yaml", "benchmarks/deepfashion.yaml")
#: Stage -> files beside the code that decide its result.
STAGE_FILES = {
    "published": FACTS,
    "images": FACTS,
    "tabulate": ("benchmarks/published.csv", "benchmarks/precision.csv", "potgan/report/templates/*"),
}
#: Functions and classes that change no result by what they do -> how many of their arguments decide something. They speak to
#: people, or take the fingerprint itself, which must not hold its own code.
WORDS = {"code_fingerprint": 0, "setting": 1, "say": 0, "UserError": 0, "Interrupted": 0, "progress": 1}
#: What an earlier process found, since Snakemake asks at each start and reading the whole code takes seconds.
MEMORY = Path(".snakemake", "potgan", "code.json")
#: Tables that name alternatives. They are followed from an entry of their own, by the stages that depend on what they name.
ALTERNATIVES = {"PROTOCOLS"}
#: How the names of functions begin that change how later code computes. They may stand on the right of an assignment.
ACTING = ("set_", "use_", "enable", "disable", "manual_seed", "seed", "register", "filterwarnings", "simplefilter")
#: Decorators that only change the function or class that they stand at. Any other one may enter it into a table.
DECORATORS = {
    "abstractmethod",
    "cache",
    "cached_property",
    "classmethod",
    "contextmanager",
    "dataclass",
    "lru_cache",
    "no_grad",
    "overload",
    "property",
    "recorded",
    "setter",
    "staticmethod",
    "wraps",
}


@functools.cache
def code_fingerprint(stage: str, method: str | None = None) -> str:
    """12 hexadecimal digits over the code of a stage and the bytes of the files that it reads beside the code.

    method: the method that is trained, or whose generator makes the images. Its code counts, and no other method's does.
    """
    known, name = _remembered(), f"{stage} {method or ''}".strip()
    if name not in known:
        known[name] = fingerprint_of(entries_of(stage, method), STAGE_FILES.get(stage, ()), _package())
        if MEMORY.parent.parent.is_dir():  # where Snakemake works already
            with contextlib.suppress(UserError):
                write_json(MEMORY, {"sources": _sources(), "fingerprints": known})
    return known[name]


def entries_of(stage: str, method: str | None = None) -> tuple[str, ...]:
    """Where the code of a stage begins."""
    if method is None:
        return ENTRIES[stage]
    return (*ENTRIES[stage], f"{method_place(method)}:METHOD", f"{options_place(method)}:OPTIONS")


@functools.cache
def _remembered() -> dict[str, str]:
    """Stage and method -> fingerprint, as an earlier process found them for the very same source files."""
    try:
        memory = json.loads(MEMORY.read_bytes())
        return dict(memory["fingerprints"]) if memory["sources"] == _sources() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


@functools.cache
def _sources() -> str:
    """SHA-256 over the bytes of all that a fingerprint may depend on. To hash them takes a hundredth of reading the code."""
    digest = hashlib.sha256(repr(sys.version_info[:2]).encode())
    patterns = {pattern for patterns in STAGE_FILES.values() for pattern in patterns}
    for path in sorted({*PACKAGE.rglob("*.py"), *(path for p in patterns for path in PACKAGE.parent.glob(p))}):
        digest.update(f"{path.relative_to(PACKAGE.parent)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.cache
def _package() -> Package:
    return Package(PACKAGE)


def fingerprint_of(entries: Iterable[str], data_files: Iterable[str], package: Package) -> str:
    """The fingerprint of all definitions that `entries` ("module:definition") reach, and of `data_files` (patterns)."""
    digest = hashlib.sha256(package.program(entries).encode())
    for pattern in data_files:
        for path in sorted(package.folder.parent.glob(pattern)):
            digest.update(b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


class Package:
    """The source code of a package as definitions that use each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._modules: dict[str, _Module | None] = {}
        self._written: dict[tuple[str, str], list[str | tuple[str, str]]] = {}

    def program(self, entries: Iterable[str]) -> str:
        """All that `entries` reach as one text, in which names and places of definitions do not occur."""
        return "\n".join(self._texts(self._numbered(entries)))

    def reached(self, entries: Iterable[str]) -> list[tuple[str, str]]:
        """(module, definition) of all that `entries` reach, in the order in which it is first used."""
        return list(self._numbered(entries))

    def _numbered(self, entries: Iterable[str]) -> dict[tuple[str, str], int]:
        """Definition -> its place. Statements that a module runs when it is imported are definitions without a name."""
        places: dict[tuple[str, str], int] = {}
        waiting = [tuple(entry.split(":")) for entry in entries]
        modules: dict[str, None] = {}
        while waiting:
            for key in waiting:
                places.setdefault(key, len(places))
            for key in list(itertools.islice(places, len(places) - len(waiting), None)):
                modules |= dict.fromkeys(self._imported_with(key[0], modules))
            found = [part for key in waiting for part in self.written(key) if isinstance(part, tuple)]
            found += [(module, "") for module in modules if (module, "") not in places and self.written((module, ""))]
            waiting = [key for key in dict.fromkeys(found) if key not in places]
        return places

    def _texts(self, places: dict[tuple[str, str], int]) -> Iterator[str]:
        for key in places:
            yield "".join(f"#{places[part]}" if isinstance(part, tuple) else part for part in self.written(key))

    def _imported_with(self, module: str, known: Iterable[str]) -> Iterator[str]:
        """The modules of the package that Python runs when it imports this one, itself included."""
        waiting, found = [module], set(known)
        while waiting:
            name = waiting.pop()
            source = self.module(name)
            if source is None or name in found:
                continue
            found.add(name)
            yield name
            parents = list(itertools.accumulate(name.split(".")[:-1], lambda above, part: f"{above}.{part}"))
            waiting += [*parents, *source.imported_modules]

    def module(self, name: str) -> _Module | None:
        """A module of the package by its dotted name within it ("" is the package itself), or None."""
        if name not in self._modules:
            base = self.folder.joinpath(*name.split(".")) if name else self.folder
            path = next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)
            self._modules[name] = _Module(self, name, path) if path is not None else None
        return self._modules[name]

    def written(self, key: tuple[str, str]) -> list[str | tuple[str, str]]:
        """A definition as text, with (module, definition) in the place of each other definition that it uses."""
        if key not in self._written:
            module = self.module(key[0])
            assert module is not None, f"{key[0]}: is no module of {self.folder.name}"
            if key[1] and key[1] not in module.definitions:
                raise UserError(f"{module.path}: binds no {key[1]}; docs/architecture.md tells how to add a method")
            statements = module.definitions[key[1]] if key[1] else module.effects
            self._written[key] = [part for node in statements for part in _Writer(module).write(node)]
        return self._written[key]

    def find(self, module: str, name: str) -> tuple[str, str] | None:
        """Where `name`, as seen in `module`, is defined: (module, definition); (module, "") for a module; None for neither."""
        source = self.module(module)
        if source is not None and name in source.definitions:
            return module, name
        if source is not None and name in source.imports:
            return self.find(*source.imports[name])
        inner = f"{module}.{name}".lstrip(".")
        return (inner, "") if self.module(inner) is not None else None


class _Module:
    """definitions: name -> the statements at the top of the module that bind it. imports: local name -> (module of the
    package, name in it). outside: local name -> dotted name of something of another package. effects: statements that do
    something when the module is imported, such as calls."""

    def __init__(self, package: Package, name: str, path: Path) -> None:
        self.package, self.name = package, name
        self.is_package = path.name == "__init__.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        self.definitions: dict[str, list[ast.stmt]] = {}
        self.effects: list[ast.stmt] = []
        self.imports: dict[str, tuple[str, str]] = {}
        self.outside: dict[str, str] = {}
        for node in tree.body:
            self.read_imports(node, self.imports, self.outside)
            names = _bound(node)
            for bound in names:
                self.definitions.setdefault(bound, []).append(node)
            if (not names and not _is_silent(node)) or (names and _acts(node)):
                self.effects.append(node)

    @property
    def imported_modules(self) -> Iterator[str]:
        for module, name in self.imports.values():
            yield from (module, f"{module}.{name}".lstrip("."))

    def read_imports(self, node: ast.AST, ours: dict, outside: dict) -> None:
        """Add what the import statements in `node` bind; those in functions count for the function alone."""
        root = self.package.folder.name
        for part in _walk(node, into_functions=not isinstance(node, ast.FunctionDef | ast.ClassDef)):
            if isinstance(part, ast.Import):
                for alias in part.names:
                    outside[alias.asname or alias.name.split(".")[0]] = (
                        alias.name if alias.asname else alias.name.split(".")[0]
                    )
            elif isinstance(part, ast.ImportFrom):
                above = part.module or ""
                for alias in part.names:
                    local = alias.asname or alias.name
                    if above.split(".")[0] == root:
                        ours[local] = (above.removeprefix(root).lstrip("."), alias.name)
                    else:
                        outside[local] = f"{above}.{alias.name}"


class _Writer:
    """Writes one definition down. Names that are local to a function are written as the order in which they occur."""

    def __init__(self, module: _Module) -> None:
        self.module = module
        self.parts: list[str | tuple[str, str]] = []
        # (kind, names bound in it, parameters, a number of its own)
        self.scopes: list[tuple[str, set[str], set[str], int]] = []
        self.scope_numbers = itertools.count()
        self.locals: dict[tuple[int, str], int] = {}
        self.imports = dict(module.imports)
        self.outside = dict(module.outside)

    def write(self, node: ast.stmt) -> list[str | tuple[str, str]]:
        for part in ast.walk(node):
            if isinstance(part, ast.Import | ast.ImportFrom):
                self.module.read_imports(part, self.imports, self.outside)
        self._node(node, top=True)
        return self.parts

    # -- names --------------------------------------------------------------------------------------------------------

    def _name(self, name: str, read: bool = False) -> None:
        for depth, (kind, bound, parameters, number) in reversed(list(enumerate(self.scopes))):
            if kind == "class" and depth < len(self.scopes) - 1:
                continue  # what a class body binds is seen in the body alone
            if name in parameters or (kind == "class" and name in bound):
                self.parts.append(f" {name}")  # a caller may name it
                if kind == "class" and read and (found := self._found(name)) is not None and found[1]:
                    self.parts.append(found)  # a class body may read a name of the module before it binds its own
                return
            if name in bound:
                place = self.locals.setdefault((number, name), len(self.locals))
                self.parts.append(f" local{place}")
                return
        found = self._found(name)
        if name in ALTERNATIVES:
            self.parts.append(f" {name}")
        elif found is not None and found[1]:
            self.parts.append(found)
        elif found is not None:  # a module as a value: all of it may be used
            definitions = self.module.package.module(found[0]).definitions
            self.parts += [" module", *((found[0], defined) for defined in definitions)]
        else:
            self.parts.append(f" {self.outside.get(name, name)}")

    def _found(self, name: str) -> tuple[str, str] | None:
        imported_here = self.imports.get(name) != self.module.imports.get(name)
        if name in self.module.definitions and not imported_here:
            return self.module.name, name
        if name in self.imports:
            return self.module.package.find(*self.imports[name])
        return None

    def _is_local(self, name: str) -> bool:
        return any(name in bound or name in parameters for _, bound, parameters, _ in self.scopes)

    def _resolved(self, node: ast.expr) -> tuple[str, str] | None:
        """What a chain of attributes names: a definition or a module of the package, or None."""
        if isinstance(node, ast.Name):
            return None if self._is_local(node.id) else self._found(node.id)
        if isinstance(node, ast.Attribute):
            above = self._resolved(node.value)
            if above is not None and not above[1]:
                return self.module.package.find(above[0], node.attr)
        return None

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _node(self, node: object, top: bool = False) -> None:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                self._function(node, top)
            case ast.ClassDef():
                self._class(node, top)
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                bound = {n.id for g in node.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
                self._scoped("function", bound, set(), node, node._fields)
            case ast.Name():
                self._name(node.id, isinstance(node.ctx, ast.Load))
            case ast.Attribute() if (found := self._resolved(node)) is not None:
                if found[1]:
                    self.parts.append(found)
                else:
                    definitions = self.module.package.module(found[0]).definitions
                    self.parts += [" module", *((found[0], defined) for defined in definitions)]
            case ast.Call(func=ast.Name(id=name)) if name in WORDS:
                self.parts.append(f"({name}")
                for argument in node.args[: WORDS[name]]:
                    self._node(argument)
                self.parts.append(")")
            case ast.AnnAssign() if not self.scopes or self.scopes[-1][0] == "function":
                self._fields(node, ("target", "value"))
            case ast.ExceptHandler() if node.name:
                self.parts.append("(ExceptHandler")
                self._node(node.type)
                self._name(node.name)
                self._body(node.body)
                self.parts.append(")")
            case ast.Import() | ast.ImportFrom() | ast.expr_context():
                pass
            case ast.AST():
                self._fields(node, node._fields)
            case list():
                self.parts.append("[")
                for item in node:
                    self._node(item)
                self.parts.append("]")
            case _:
                self.parts.append(f" {node!r}")

    def _fields(self, node: ast.AST, names: Iterable[str]) -> None:
        self.parts.append(f"({type(node).__name__}")
        for name in names:
            value = getattr(node, name)
            if name in ("body", "orelse", "finalbody") and isinstance(value, list):
                self._body(value)
            elif name not in ("type_comment", "kind"):
                self._node(value)
        self.parts.append(")")

    def _body(self, statements: list[ast.stmt]) -> None:
        self.parts.append("[")
        for statement in statements:
            if not _is_silent(statement):
                self._node(statement)
        self.parts.append("]")

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, top: bool) -> None:
        self.parts.append(f"({type(node).__name__}")
        if not isinstance(node, ast.Lambda):
            if not top:
                self._name(node.name)
            self._node([d for d in node.decorator_list if not (top and _is_named(d, "recorded"))])
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
        shape = [
            len(arguments.posonlyargs),
            len(arguments.args),
            arguments.vararg is not None,
            arguments.kwarg is not None,
        ]
        self.parts.append(f" {shape} {[a.arg for a in every]}")
        self._node([*arguments.defaults, *arguments.kw_defaults])
        body = node.body if isinstance(node.body, list) else [node.body]
        parameters = {a.arg for a in every}
        outer = {n for part in body for n in _declared(part)}
        bound = {n for part in body for n in _bound(part, nested=True)} - parameters - outer
        self.scopes.append(("function", bound, parameters, next(self.scope_numbers)))
        self._body(body) if isinstance(node.body, list) else self._node(node.body)
        self.scopes.pop()
        self.parts.append(")")

    def _class(self, node: ast.ClassDef, top: bool) -> None:
        self.parts.append("(Class")
        if not top:
            self._name(node.name)
        self._node([*node.decorator_list, *node.bases, *node.keywords])
        bound = {name for part in node.body for name in _bound(part)}
        self.scopes.append(("class", bound, set(), next(self.scope_numbers)))
        self._body(node.body)
        self.scopes.pop()
        self.parts.append(")")

    def _scoped(self, kind: str, bound: set[str], parameters: set[str], node: ast.AST, fields: Iterable[str]) -> None:
        self.scopes.append((kind, bound, parameters, next(self.scope_numbers)))
        # The iterables come first, since they say what the names of the rest are.
        self._fields(node, sorted(fields, key=lambda field: field != "generators"))
        self.scopes.pop()


def _walk(node: ast.AST, into_functions: bool) -> Iterator[ast.AST]:
    """`node` and what it holds; without the inside of functions and classes, unless asked for."""
    waiting = [node]
    while waiting:
        part = waiting.pop(0)
        yield part
        if into_functions or not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            waiting[:0] = ast.iter_child_nodes(part)


def _bound(node: ast.AST, nested: bool = False) -> list[str]:
    """Names that a statement binds in the scope that it stands in. nested: names of caught errors and of imports, too."""
    found: dict[str, None] = {}
    comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    waiting: list[ast.AST] = [node]
    while waiting:
        part = waiting.pop(0)
        match part:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found[part.name] = None
                continue
            case ast.Lambda():
                continue
            case ast.Name(ctx=ast.Store()):
                found[part.id] = None
            case ast.ExceptHandler(name=str()) | ast.MatchAs(name=str()) | ast.MatchStar(name=str()):
                found[part.name] = None
            case ast.MatchMapping(rest=str()):
                found[part.rest] = None
        if isinstance(part, comprehension):
            # Its own names stay in it; `:=` inside it binds outside.
            inner = [p for p in ast.walk(part) if isinstance(p, ast.NamedExpr)]
            found |= {p.target.id: None for p in inner}
            continue
        waiting[:0] = ast.iter_child_nodes(part)
    return list(found)


def _declared(node: ast.AST) -> Iterator[str]:
    """Names that `global` and `nonlocal` in a statement take from outside."""
    for part in _walk(node, into_functions=False):
        if isinstance(part, ast.Global | ast.Nonlocal):
            yield from part.names


def _is_silent(node: ast.stmt) -> bool:
    """Statements that do nothing: docstrings, `pass`, imports (names say where they come from), and imports for types."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.Import() | ast.ImportFrom():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=[]):
            return True
    return False


def _acts(node: ast.AST) -> bool:
    """Whether a statement that binds names also does something else when its module is imported.

    It does where a call stands in it as a statement of its own, where it calls a function whose name begins as one of `ACTING`,
    or where a decorator outside `DECORATORS` stands at it.
    """
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.Expr) and isinstance(part.value, ast.Call):
            return True
        if isinstance(part, ast.Call):
            called = part.func.attr if isinstance(part.func, ast.Attribute) else getattr(part.func, "id", "")
            if called.startswith(ACTING):
                return True
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            decorators = [d.func if isinstance(d, ast.Call) else d for d in part.decorator_list]
            names = {d.attr if isinstance(d, ast.Attribute) else getattr(d, "id", "") for d in decorators}
            if names - DECORATORS:
                return True
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += part.decorator_list
        elif not isinstance(part, ast.Lambda):
            waiting += ast.iter_child_nodes(part)
    return False


def _is_named(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
