"""The rooms of the package, and the one law of imports (docs/architecture.md)."""

import ast
from graphlib import TopologicalSorter

LAW = "common < settings < data < methods < measure < training < results < apply < report < pipeline < cli"
ROOMS = [*LAW.split(" < "), "__main__", "__init__"]


def test_a_module_imports_only_from_its_own_room_and_from_rooms_before_it(repository) -> None:
    files = {path.relative_to(repository).with_suffix(""): path for path in (repository / "potgan").rglob("*.py")}
    modules = {".".join(name.parts).removesuffix(".__init__"): path for name, path in files.items()}
    imports: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                imports[name] |= inner & set(modules) or {node.module} & set(modules)
    room = {name: ROOMS.index(name.split(".")[1] if "." in name else "__init__") for name in modules}
    assert [(a, b) for a, others in imports.items() for b in others if room[b] > room[a]] == []
    TopologicalSorter(imports).prepare()  # raises CycleError, with the circle


def test_imports_are_absolute_and_by_name_and_no_room_holds_more_than_fourteen_modules(repository) -> None:
    for path in (repository / "potgan").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path
            # The law's test reads `from potgan... import ...` only.
            assert not (isinstance(node, ast.Import) and any(n.name.startswith("potgan") for n in node.names)), path
        assert len(list(path.parent.glob("*.py"))) <= 14, path.parent


def test_the_document_states_this_law(repository) -> None:
    assert f"`{LAW}`" in (repository / "docs" / "architecture.md").read_text()
