"""The fingerprint of code: it changes with what a stage computes, wherever the edit stands, and with nothing else."""

from __future__ import annotations

import ast
import builtins
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from potgan.pipeline.code import ENTRIES, PACKAGE, STAGE_FILES, Package, code_fingerprint, entries_of, fingerprint_of

#: Stage -> where its code begins, for PoT-GAN where a method is trained.
ENTRIES = {stage: entries_of(stage, "potgan" if stage in ("train", "generate") else None) for stage in ENTRIES}
STAGES = tuple(ENTRIES)


def fingerprints(package: Path) -> dict[str, str]:
    source = Package(package)
    return {stage: fingerprint_of(ENTRIES[stage], STAGE_FILES.get(stage, ()), source) for stage in STAGES}


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    return fingerprints(PACKAGE)


@pytest.fixture
def copy(repository, tmp_path) -> Path:
    """A copy of the package and its data files, to be edited."""
    shutil.copytree(repository / "potgan", tmp_path / "potgan", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(repository / "benchmarks", tmp_path / "benchmarks")
    return tmp_path / "potgan"


def edit(package: Path, module: str, old: str, new: str) -> None:
    path = package / module
    text = path.read_text()
    assert old in text, f"{module} has no {old!r} any more: this test must follow"
    path.write_text(text.replace(old, new, 1))


def changed(package: Path, before: dict[str, str]) -> set[str]:
    return {stage for stage, digest in fingerprints(package).items() if digest != before[stage]}


#: (module, old, new, stages whose results this changes, stages whose results it does not change)
EDITS = [
    ("common/device.py", 'enabled=precision == "bf16"', "enabled=True", {"train"}, {"images", "keypoints", "pairs"}),
    ("common/device.py", "cudnn.benchmark = True", "cudnn.benchmark = False", {"train"}, {"images", "pairs"}),
    ("common/device.py", "import torch\n", "import torch\ntorch.set_default_dtype(torch.float64)\n", {"train", "generate"}, set()),
    ("settings/schema.py", "setting(90_000,", "setting(80_000,", {"train"}, {"images", "pairs"}),
    ("settings/schema.py", "limb_radius: int = setting(4,", "limb_radius: int = setting(5,", {"train", "generate"}, {"images"}),
    ("settings/schema.py", 'rule: str = setting(\n        "patn"', 'rule: str = setting(\n        "pg2"', {"pairs"}, {"train"}),
    ("methods/blocks.py", "SLOPE = 0.2", "SLOPE = 0.1", {"train", "generate"}, {"images", "keypoints", "pairs"}),
    ("methods/potgan/losses.py", "return (real + fake) / 2", "return real + fake", {"train"}, {"evaluate"}),
    ("methods/potgan/method.py", '"fused": True', '"fused": False', {"train"}, {"evaluate"}),
    ("data/pose_rendering.py", "mask, cv2.MORPH_CLOSE, _SQUARE", "mask, cv2.MORPH_OPEN, _SQUARE",
     {"train", "generate", "evaluate", "tabulate"}, {"images", "keypoints", "pairs"}),
    ("training/log.py", "SAMPLES = 8", "SAMPLES = 9", {"train"}, {"generate", "evaluate"}),
    ("methods/method.py", "return 1.0\n", "return 0.5\n", {"train"}, set(STAGES) - {"train", "generate"}),
    ("report/templates/report.css", "{", "{ ", {"tabulate"}, set(STAGES) - {"tabulate"}),
    ("data/openpifpaf_worker.py", "def main() -> int:\n", "def main() -> int:\n    print(1)\n", {"keypoints"}, {"images", "pairs"}),
    ("methods/blocks.py", "SLOPE = 0.2", "SLOPE = 0.2\n_ = torch.set_flush_denormal(True)", {"train", "generate"}, {"images"}),
    ("methods/blocks.py", "SLOPE = 0.2", "SLOPE = 0.2\nif 1:\n  A = 1\n  torch.set_flush_denormal(True)", {"train"}, {"images"}),
    ("methods/potgan/losses.py", "return (real + fake) / 2",
     "class C:\n        torch.manual_seed(1)\n    return (real + fake) / 2", {"train"}, {"images"}),
    ("settings/protocols.py", "PG2, GFLA, CLEAN)}", "PG2, GFLA)}", {"evaluate", "tabulate"}, {"train", "images", "pairs"}),
    # What changes nothing:
    ("settings/schema.py", '"updates of the generator"', '"steps of the generator"', set(), set(STAGES)),
    ("data/synthetic/imitations.py", "def write_archive(", "A = 1\n\n\ndef write_archive(", set(), set(STAGES)),  # used by nobody
    ("common/progress.py", "interval: float = 10.0", "interval: float = 20.0", set(), set(STAGES)),
    ("data/sources/archives.py", 'raise UserError(f"', 'raise UserError(f"Sorry: ', set(), set(STAGES)),
    ("methods/method.py", '"""The contract between a method', '"""Other words', set(), set(STAGES)),
    ("training/loop.py", "# -- resume ---", "# -- another comment ---", set(), set(STAGES)),
    ("methods/method.py", "return 1.0\n", "return (1.0)\n", set(), set(STAGES)),
    ("methods/method.py", "def rate_factor(iteration: int,", "def rate_factor(iteration: float,", set(), set(STAGES)),
]  # fmt: skip


@pytest.mark.parametrize(("module", "old", "new", "yes", "no"), EDITS, ids=[f"{e[0]}: {e[2][:24]!r}" for e in EDITS])
def test_an_edit_changes_the_stages_that_it_means_something_to(copy, before, module, old, new, yes, no) -> None:
    edit(copy, module, old, new)
    found = changed(copy, before)
    assert yes <= found
    assert not no & found


def test_an_edit_of_a_data_sets_facts_changes_what_is_fetched(copy, before) -> None:
    with open(copy.parent / "benchmarks" / "market1501.yaml", "a") as file:
        file.write("# more\n")
    assert changed(copy, before) == {"published", "images"}


def test_every_data_file_exists(repository) -> None:
    for stage, patterns in STAGE_FILES.items():
        for pattern in patterns:
            assert list(repository.glob(pattern)), f"{stage}: {pattern}"


def test_the_fingerprint_of_a_stage_is_that_of_its_entries(before) -> None:
    found = {stage: code_fingerprint(stage, "potgan" if stage in ("train", "generate") else None) for stage in STAGES}
    assert found == before


def test_no_stage_holds_the_code_that_takes_the_fingerprint() -> None:
    for stage, entries in ENTRIES.items():
        reached = {module for module, _ in Package(PACKAGE).reached(entries)}
        assert not reached & {"pipeline.code", "pipeline.jobs", "pipeline.digests"} or stage == "tabulate", stage


def test_a_remembered_fingerprint_is_taken_for_the_very_same_sources_only(copy, tmp_path) -> None:
    """The copy's own package is asked, in a folder where Snakemake works."""
    work = tmp_path / "work"
    (work / ".snakemake").mkdir(parents=True)
    memory = work / ".snakemake/potgan/code.json"

    def ask() -> str:
        command = "from potgan.pipeline.code import code_fingerprint; print(code_fingerprint('images'))"
        run = subprocess.run(
            [sys.executable, "-c", command], cwd=work, env=os.environ | {"PYTHONPATH": str(copy.parent)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return run.stdout.strip()

    first = ask()
    assert json.loads(memory.read_text())["fingerprints"] == {"images": first}
    memory.write_text(memory.read_text().replace(first, "remembered"))
    assert ask() == "remembered"
    edit(copy, "data/images.py", "JPEG_QUALITY = 95", "JPEG_QUALITY = 96")
    changed = ask()
    assert changed not in ("remembered", first)
    memory.write_text("half of a fi")
    assert ask() == changed
    shutil.rmtree(work / ".snakemake")
    assert ask() == changed
    assert list(work.iterdir()) == []  # nothing is written where Snakemake does not work


# ---------------------------------------------------------------------------------------------------------------------
# Generated edits, over all that a stage reaches


def statements_of(package: Path, module: str, name: str) -> list[ast.stmt]:
    return Package(package).module(module).definitions[name]


def file_of(package: Path, module: str) -> Path:
    base = package.joinpath(*module.split("."))
    return base.with_suffix(".py") if base.with_suffix(".py").is_file() else base / "__init__.py"


def decisive_places(tree: ast.AST) -> list[ast.AST]:
    """Numbers, comparisons and arithmetic of a definition; not those inside texts for people, nor the ranges of settings."""
    found, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("say", "UserError", "Interrupted"):
                continue
            if node.func.id in ("progress", "setting"):
                waiting += node.args[:1]
                continue
        if isinstance(node, ast.arg) or (isinstance(node, ast.JoinedStr) and isinstance(tree, ast.stmt)):
            continue
        if (isinstance(node, ast.Constant) and type(node.value) in (int, float, bool)) or isinstance(
            node, ast.BinOp | ast.Compare | ast.BoolOp
        ):
            found.append(node)
        types = (getattr(node, "returns", None), getattr(node, "annotation", None))
        waiting += [part for part in ast.iter_child_nodes(node) if part not in types]
    return found


def mutate(node: ast.AST) -> None:
    match node:
        case ast.Constant(value=bool()):
            node.value = not node.value
        case ast.Constant():
            node.value += 1
        case ast.BinOp():
            node.op = ast.Add() if isinstance(node.op, ast.Sub) else ast.Sub()
        case ast.BoolOp():
            node.op = ast.And() if isinstance(node.op, ast.Or) else ast.Or()
        case ast.Compare():
            node.ops = [ast.NotEq() if isinstance(node.ops[0], ast.Eq) else ast.Eq(), *node.ops[1:]]


@pytest.mark.parametrize("stage", STAGES)
def test_every_kind_of_decisive_edit_in_all_that_a_stage_reaches(stage: str) -> None:
    """A number or an operator of each definition is changed, one after the other: its text is another each time, and so is
    the whole program, which is looked at for some of them."""
    chosen = random.Random(stage)
    source = Package(PACKAGE)
    expected = source.program(ENTRIES[stage])
    reached = source.reached(ENTRIES[stage])
    looked_at = set(chosen.sample(reached, 12))
    tried = 0
    for key in reached:
        module = source.module(key[0])
        for statement in module.definitions.get(key[1], module.effects if not key[1] else ()):
            places = decisive_places(statement)
            if not places:
                continue
            place = chosen.choice(places)
            kept, before = dict(vars(place)), source.written(key)
            mutate(place)
            source._written.clear()
            assert source.written(key) != before, f"{key}: {ast.unparse(statement)}"
            if key in looked_at:
                assert source.program(ENTRIES[stage]) != expected, f"{key}: {ast.unparse(statement)}"
            vars(place).clear()
            vars(place).update(kept)
            source._written.clear()  # a statement may define several names
            tried += 1
    assert source.program(ENTRIES[stage]) == expected
    assert tried > 20


def test_formatting_comments_and_docstrings_change_nothing(copy, before) -> None:
    """Every file is written anew from its syntax tree, with another docstring and a comment in each function."""
    for path in sorted(copy.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                node.body.insert(0, ast.Expr(ast.Constant("Other words.")))
        text = ast.unparse(ast.fix_missing_locations(tree))
        path.write_text(re.sub(r"^( +)(return|if) ", r"\1# a comment\n\1\2 ", text, flags=re.MULTILINE))
    assert changed(copy, before) == set()


def test_messages_change_nothing(copy, before) -> None:
    for path in sorted(copy.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id="say" | "UserError" | "Interrupted")):
                    node.args = [ast.Constant("another message")]
                case ast.Call(func=ast.Name(id="progress"), args=[_, *_]):
                    node.args[3:] = [ast.Constant("other things")]
        path.write_text(ast.unparse(ast.fix_missing_locations(tree)))
    assert changed(copy, before) == set()


def names_bound(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return [statement.name]
    return [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def movable(package: Path, entries: tuple[str, ...]) -> list[tuple[str, str]]:
    """Functions, classes and constants whose name stands nowhere else, neither as a word of a text nor as an attribute."""
    texts = "\n".join(path.read_text() for path in package.rglob("*.py"))
    words = " ".join(re.findall(r"\"[^\"\n]*\"|'[^'\n]*'|\.\w+|\w+=", texts))
    source = Package(package)
    found = []
    for module, name in source.reached(entries):
        if not name or f"{module}:{name}" in entries or len(source.module(module).definitions[name]) != 1:
            continue
        statement = source.module(module).definitions[name][0]
        single = len(names_bound(statement)) == 1
        defined_once = len(re.findall(rf"^(?:def|class) {name}\b|^{name}\b.*=", texts, re.MULTILINE)) == 1
        if single and defined_once and not re.search(rf"\b{name}\b", words) and not hasattr(builtins, name):
            found.append((module, name))
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_renaming_changes_nothing(copy, before, stage: str) -> None:
    chosen = random.Random(stage)
    candidates = movable(copy, ENTRIES[stage])
    assert len(candidates) > 5
    for number, (_, name) in enumerate(chosen.sample(candidates, min(12, len(candidates)))):
        for path in copy.rglob("*.py"):
            path.write_text(re.sub(rf"(?<![\w.]){name}\b", f"renamed_{number}", path.read_text()))
    assert stage not in changed(copy, before)


@pytest.mark.parametrize("stage", STAGES)
def test_moving_changes_nothing(copy, before, stage: str) -> None:
    """Definitions go to a new module, with the imports that they need, and the old one takes them from there."""
    chosen = random.Random(stage)
    candidates = movable(copy, ENTRIES[stage])
    for number, (module, name) in enumerate(chosen.sample(candidates, min(8, len(candidates)))):
        move(copy, module, name, f"new_home_{number}")
    assert stage not in changed(copy, before)


def move(package: Path, module: str, name: str, new: str) -> None:
    path = file_of(package, module)
    lines = path.read_text().splitlines(keepends=True)
    statement = statements_of(package, module, name)[0]
    first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))]) - 1
    text = "".join(lines[first : statement.end_lineno])
    source = Package(package).module(module)
    imports = [
        ast.unparse(node) for node in ast.parse("".join(lines)).body if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    others = [other for other in source.definitions if other != name]
    head = "\n".join([*imports, f"from potgan.{module} import {', '.join(others)}" if others else ""])
    (package / f"{new}.py").write_text(f"{head}\n\n{text}")
    lines[first : statement.end_lineno] = [f"from potgan.{new} import {name}\n"]
    path.write_text("".join(lines))


def test_moving_the_rate_to_another_module_changes_nothing(copy, before) -> None:
    move(copy, "methods.method", "rate_factor", "schedules")
    assert changed(copy, before) == set()


# ---------------------------------------------------------------------------------------------------------------------
# What is reached


@pytest.mark.parametrize(
    "used", ["f", "Thing", "TABLE", "via_module", "inside", "decorated", "module_as_value", "effect"]
)
def test_what_is_reached(tmp_path, used: str) -> None:
    """Through names, classes and their methods, tables, modules, imports inside functions, decorators and imports."""
    package = tmp_path / "potgan"
    package.mkdir()
    (package / "a.py").write_text(
        "from potgan import b, e\n"
        "from potgan.c import f as renamed, Thing, wrap\n"
        "TABLE = {'x': renamed}\n"
        "@wrap\ndef marked(): return 1\n"
        "def entry(name):\n"
        "    from potgan import d\n"
        "    from potgan.d import inside\n"
        "    return TABLE['x'](), Thing(), b.via(), inside(), marked(), getattr(e, name)()\n"
        "def unused(): return 1\n"
    )
    (package / "b.py").write_text("def via(): return helper()\ndef helper(): return 1\ndef unused(): return 1\n")
    (package / "c.py").write_text(
        "def f(): return 1\nclass Thing:\n    def method(self): return g()\ndef g(): return 1\n"
        "def wrap(x): return x\ndef unused(): return 1\n"
    )
    (package / "d.py").write_text("import os\nos.umask(0)\ndef inside(): return 1\ndef unused(): return 1\n")
    (package / "e.py").write_text("def one(): return 1\ndef two(): return 2\n")
    found = set(Package(package).reached(["a:entry"]))
    expected = {
        "f": {("c", "f")},
        "Thing": {("c", "Thing"), ("c", "g")},
        "TABLE": {("a", "TABLE")},
        "via_module": {("b", "via"), ("b", "helper")},
        "inside": {("d", "inside")},
        "decorated": {("a", "marked"), ("c", "wrap")},
        "module_as_value": {("e", "one"), ("e", "two")},
        "effect": {("d", "")},
    }
    assert expected[used] <= found
    assert not [name for name in found if name[1] == "unused"]


@pytest.mark.parametrize("marked", ["@term", "@term('sum')", "@scale.register"])
def test_a_function_that_only_a_decorator_knows_is_reached(tmp_path, marked: str) -> None:
    """A decorator can enter a function into a table that is read at run time."""
    fingerprints = []
    for factor in (1, 2):
        package = tmp_path / str(factor) / "potgan"
        package.mkdir(parents=True)
        (package / "a.py").write_text(
            "import functools\nTERMS = []\ndef term(what): return TERMS.append(what) or TERMS.append\n"
            "@functools.singledispatch\ndef scale(x): return x\n"
            f"{marked}\ndef _sum(parts: list): return sum(parts) * {factor}\n"
            "def entry(parts): return TERMS[0](parts), scale(parts)\n"
        )
        fingerprints.append(Package(package).program(["a:entry"]))
    assert fingerprints[0] != fingerprints[1]
