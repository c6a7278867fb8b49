"""Tests of what a model costs: parameters and multiply-adds of whole generators, and the rows of the compared methods."""

from pathlib import Path

import pytest
import yaml
from test_reading import laid_over
from test_tables import a_benchmark, build, cells_of, write_all

from potgan.report import tables
from potgan.report.costs import Cost, arithmetic, budgets_text, duration
from potgan.settings.layout import Layout
from potgan.settings.reading import load

#: Method -> parameters of its generator and multiply-adds of an image of 128 x 64 pixels, counted in the authors' networks. ADGAN's
#: are without what its VGG-19 has and never reads: 20,024,384 - 3,505,728 weights and the arithmetic beyond relu4_1.
AUTHORS = {
    "pg2": (70_795_075 + 6_058_883, 47.6e9),
    "deformable": (61_109_085, 8.562e9),
    "dpig": (118_549_859, 68.1e9),
    "patn": (41_365_763, 22.52e9),
    "adgan": (48_799_299 - 20_024_384 + 3_505_728, 53.08e9 - 9.66e9),
}


@pytest.mark.parametrize("method", AUTHORS)
def test_at_the_papers_width_a_method_is_as_large_as_its_authors(repository: Path, method: str) -> None:
    """A benchmark with the paper's width of 64 gives every method the authors' channels."""
    files = (repository / "config" / name for name in ("config.yaml", "methods.yaml"))
    base, methods = (yaml.safe_load(path.read_text()) for path in files)
    benchmark = load(laid_over(laid_over(base, methods), {"generator": {"width": 64}}))
    parameters, multiply_adds, needs = arithmetic(benchmark.run_settings("synthetic", method, 0))
    assert parameters == AUTHORS[method][0]
    assert multiply_adds == pytest.approx(AUTHORS[method][1], rel=0.01)
    assert "target_image" not in needs


def test_durations_are_in_the_unit_that_is_read_easily() -> None:
    assert [duration(seconds) for seconds in (1.4, 119, 180, 7199, 9000)] == [
        "1 s",
        "119 s",
        "3 min",
        "120 min",
        "2.5 h",
    ]


def test_unequal_budgets_are_said(tmp_path: Path) -> None:
    def cost(model: str, dataset: str, seen: int, single: bool = False) -> Cost:
        return Cost(dataset, model, "potgan", 1, 1, 1.0, (), seen, single, None, "CPU")

    equal = [cost("a", "one", 600), cost("b", "one", 600, single=True), cost("a", "two", 90)]
    assert budgets_text(equal).startswith(
        "All models of a data set are trained on the same list of pairs, and see as many"
    )
    assert budgets_text([*equal, cost("c", "two", 91)]).startswith("The models of a data set did not see as many pairs")
    assert [c.seen_text for c in equal[:2]] == ["600", "600 (targets alone)"]


def test_a_retrained_method_stands_under_the_name_that_the_table_has_for_it(tmp_path: Path) -> None:
    models = {"potgan": {}, "patn": {"method": "patn"}, "mine": {"method": "patn", "options": {"blocks": 3}}}
    benchmark, layout = a_benchmark(models=models), Layout("trial", tmp_path)
    write_all(benchmark, layout)
    for table in build(benchmark, layout):
        rows = {row.method: row for row in table.rows if row.role == "retrained"}
        if table.number == 4:  # the ablation of L_recon, which only PoT-GAN has there
            assert not rows
            continue
        assert rows["patn"].label == "Zhu et al. [15] (patn, retrained here)"
        assert rows["patn"].paper_method == "patn"
        assert next(row.method for row in table.rows if row.role == "ours") == "potgan"
        roles = [row.role for row in table.rows]
        assert roles.index("literature") < roles.index("retrained") < roles.index("ours")
        assert "Retrained here" in table.reading
        if table.number != 2:  # DukeMTMC, which has no column of synthetic people
            # All trained rows of a column are ranked together: equal values are all the best.
            metric = {1: "ssim", 3: "fid"}[table.number]
            assert cells_of(table)["patn", "synthetic", metric, False].mark == "best"


def test_a_benchmark_of_potgan_alone_says_nothing_of_others(tmp_path: Path) -> None:
    benchmark, layout = a_benchmark(), Layout("trial", tmp_path)
    write_all(benchmark, layout)
    for table in build(benchmark, layout):
        assert not [row for row in table.rows if row.role == "retrained"]
        assert "Retrained" not in tables.markdown(table)


def test_inputs_are_those_that_a_model_reads(repository: Path) -> None:
    """Without warps nothing reads the source mask. The guided filter still reads the target mask."""
    trees = [yaml.safe_load((repository / "config" / name).read_text()) for name in ("config.yaml", "three-seeds.yaml")]
    benchmark = load(laid_over(*trees))
    inputs = {model: arithmetic(benchmark.run_settings("synthetic", model, 0))[2] for model in benchmark.models}
    assert {model for model in inputs if "source_mask" not in inputs[model]} == {
        "no-pose-transform",
        "wide-no-pose-transform",
    }
    assert all("target_mask" in needs for needs in inputs.values())
