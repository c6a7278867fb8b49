"""The code fingerprint changes with what a stage reaches and means, and with nothing else."""

import shutil
from pathlib import Path

import pytest

from potgan import provenance

STAGES = ("images", "keypoints", "pairs", "train", "feature_network", "generate", "evaluate", "tabulate", "imitate")


def fingerprint(package: Path, stage: str) -> str:
    provenance._module.cache_clear()
    entry = provenance.ENTRIES.get(stage, ("stages", stage))
    return provenance.fingerprint_of(*entry, provenance.STAGE_FILES.get(stage, ()), package)


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


#: (module, old, new, the stages whose results this changes)
EDITS = [
    ("models/blocks.py", "SLOPE = 0.2", "SLOPE = 0.1", {"train", "generate"}),
    ("losses.py", "return (real + fake) / 2", "return real + fake", {"train"}),
    ("adversarial_step.py", '"fused": True', '"fused": False', {"train"}),
    ("rendering.py", "morphologyEx(mask, cv2.MORPH_CLOSE, _SQUARE)", "morphologyEx(mask, cv2.MORPH_OPEN, _SQUARE)",
     {"train", "generate", "evaluate", "tabulate"}),
    ("rendering.py", "thickness = max(1,", "thickness = max(2,", {"tabulate"}),  # a drawing for people
    ("pairs.py", "COLUMNS = ", "COLUMNS = () or ",
     {"pairs", "train", "generate", "evaluate", "imitate"}),
    ("imitations.py", "def write_archive(", "A = 1\n\n\ndef write_archive(", set()),  # used by nobody
    ("progress.py", "interval: float = 10.0", "interval: float = 20.0", set()),
    ("training_log.py", "SAMPLES = 8", "SAMPLES = 9", set()),
    ("archives.py", 'raise UserError(f"', 'raise UserError(f"Sorry: ', set()),  # what is said to people
    ("train.py", '"""Evenly spaced, the last one at the end."""', '"""Other words."""', set()),
    ("train.py", "# -- resume ---", "# -- another comment ---", set()),
    ("train.py", "return 1.0\n", "return (1.0)\n", set()),
    ("train.py", "return 1.0\n", "return 0.5\n", {"train"}),
    ("templates/report.css", "{", "{ ", {"tabulate"}),
]  # fmt: skip


@pytest.mark.parametrize(("module", "old", "new", "expected"), EDITS, ids=lambda value: str(value)[:24])
def test_an_edit_changes_the_stages_that_it_means_something_to(copy, module, old, new, expected) -> None:
    before = {stage: provenance.code_fingerprint(stage) for stage in STAGES}
    edit(copy, module, old, new)
    after = {stage: fingerprint(copy, stage) for stage in STAGES}
    assert {stage for stage in STAGES if before[stage] != after[stage]} == expected


def test_an_edit_of_published_counts_changes_images(copy) -> None:
    before = {stage: provenance.code_fingerprint(stage) for stage in STAGES}
    with open(copy.parent / "benchmarks" / "market1501.yaml", "a") as file:
        file.write("# more\n")
    after = {stage: fingerprint(copy, stage) for stage in STAGES}
    assert {stage for stage in STAGES if before[stage] != after[stage]} == {"images"}


def test_every_data_file_exists(repository) -> None:
    for stage, patterns in provenance.STAGE_FILES.items():
        for pattern in patterns:
            assert list(repository.glob(pattern)), f"{stage}: {pattern}"


@pytest.mark.parametrize("used", ["f", "Thing", "TABLE", "via_module", "inside", "decorated"])
def test_what_is_reached(tmp_path, used: str) -> None:
    """Through names, classes and their methods, tables, modules, imports inside functions and decorators."""
    (tmp_path / "a.py").write_text(
        "from potgan import b\n"
        "from potgan.c import f as renamed, Thing, wrap\n"
        "TABLE = {'x': renamed}\n"
        "def decorated_entry(): return marked()\n"
        "@wrap\ndef marked(): return 1\n"
        "def entry():\n"
        "    from potgan import d\n"
        "    from potgan.d import inside\n"
        "    return TABLE['x'](), Thing(), b.via(), inside(), marked()\n"
        "def unused(): return 1\n"
    )
    (tmp_path / "b.py").write_text("def via(): return helper()\ndef helper(): return 1\ndef unused(): return 1\n")
    (tmp_path / "c.py").write_text(
        "def f(): return 1\nclass Thing:\n    def method(self): return g()\ndef g(): return 1\n"
        "def wrap(x): return x\ndef unused(): return 1\n"
    )
    (tmp_path / "d.py").write_text("def inside(): return 1\ndef unused(): return 1\n")
    provenance._module.cache_clear()
    found = set(provenance.reached("a", "entry", tmp_path))
    expected = {
        "f": {("c", "f")},
        "Thing": {("c", "Thing"), ("c", "g")},
        "TABLE": {("a", "TABLE")},
        "via_module": {("b", "via"), ("b", "helper")},
        "inside": {("d", "inside")},
        "decorated": {("a", "marked"), ("c", "wrap")},
    }
    assert expected[used] <= found
    assert not [name for name in found if name[1] == "unused"]
