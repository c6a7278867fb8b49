"""The table of claims over several reports, from made-up ablation tables with known numbers."""

import subprocess
import sys

import pandas as pd
import pytest

from potgan.common.errors import UserError
from potgan.report.claims import PARTS, claims
from potgan.settings.schema import INTERVENTIONS


def a_report(folder, rows, against="potgan", protocol="ssim-deform", dataset="people"):
    """rows: (method, metric, difference of the method to the main model, low, high, effect)"""
    columns = ["method", "metric", "difference", "low", "high", "effect"]
    more = {"against": against, "protocol": protocol, "dataset": dataset, "n_seeds": 3, "n_people": 64}
    frame = pd.DataFrame(rows, columns=columns).assign(**more)
    (folder / "tables").mkdir(parents=True)
    frame.to_csv(folder / "tables" / "ablations.csv", index=False)
    return folder


def test_a_cell_is_what_the_main_model_gains(tmp_path) -> None:
    short = a_report(tmp_path / "short", [("no-pose-transform", "ssim", -0.02, -0.03, -0.01, "hurts")])
    long = a_report(
        tmp_path / "long",
        [
            ("no-pose-transform", "ssim", 0.004, -0.002, 0.010, "none shown"),
            ("potgan-mean-warp", "ssim", -0.011, -0.015, -0.007, "hurts"),
        ],
    )
    text = claims([short, long])
    assert "| | `short` | `long` |" in text
    row = "| against no pose transform (the paper's ablation) | **+0.020 [+0.010, +0.030]** | −0.004 [−0.010, +0.002] |"
    assert row in text
    assert "| own warps against the mean warp | – | **+0.011 [+0.007, +0.015]** |" in text
    assert "L_recon" not in text  # neither report has it
    assert "`short`: 3 seeds, `long`: 3 seeds." in text


def test_a_metric_without_an_interval_is_bold_nowhere(tmp_path) -> None:
    report = a_report(tmp_path / "a", [("no-recon", "fid", 3.5, None, None, "not judged")], protocol="fid-synthetic")
    assert "| against its weight 0 | −3.500 |" in claims([report])


def test_each_data_set_has_tables_of_its_own(tmp_path) -> None:
    report = a_report(tmp_path / "a", [("no-recon", "ssim", -0.1, -0.2, -0.05, "hurts")])
    table = report / "tables" / "ablations.csv"
    frame = pd.read_csv(table)
    pd.concat([frame, frame.assign(dataset="others", difference=0.3, low=0.2, high=0.4)]).to_csv(table, index=False)
    text = claims([report])
    people, others = text.split("### people")[1].split("### others")
    assert "**+0.100 [+0.050, +0.200]**" in people
    assert "**−0.300 [−0.400, −0.200]**" in others


def test_reports_that_do_not_fit_each_other_are_refused(tmp_path) -> None:
    one = a_report(tmp_path / "one", [("no-recon", "ssim", 0.1, 0.0, 0.2, "none shown")])
    other = a_report(tmp_path / "other", [("no-recon", "ssim", 0.1, 0.0, 0.2, "none shown")], protocol="ssim-uniform7")
    with pytest.raises(UserError, match="was measured under ssim-deform, ssim-uniform7"):
        claims([one, other])
    third = a_report(tmp_path / "third", [("no-recon", "ssim", 0.1, 0.0, 0.2, "none shown")], against="mine")
    with pytest.raises(UserError, match="compare with different models: mine, potgan"):
        claims([one, third])
    with pytest.raises(UserError, match="name at least one folder"):
        claims([])
    with pytest.raises(UserError, match="holds no second model"):
        claims([a_report(tmp_path / "alone", [])])
    (tmp_path / "elsewhere").mkdir()
    twin = a_report(tmp_path / "elsewhere" / "one", [("no-recon", "ssim", 0.1, 0.0, 0.2, "none shown")])
    with pytest.raises(UserError, match="two of the reports have one name"):
        claims([one, twin])
    old = a_report(tmp_path / "old", [("no-recon", "ssim", 0.1, 0.0, 0.2, "none shown")])
    table = old / "tables" / "ablations.csv"
    pd.read_csv(table).drop(columns="n_people").to_csv(table, index=False)
    with pytest.raises(UserError, match="its intervals are over pairs and not over people"):
        claims([old])
    done = subprocess.run(
        [sys.executable, "-m", "potgan.report.claims", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/tables/ablations.csv: is missing")


def test_every_row_is_a_model_or_an_intervention_of_the_three_seeds(repository) -> None:
    text = "".join((repository / "config" / f"{name}.yaml").read_text() for name in ("config", "three-seeds", "short"))
    methods = {method.format(main="potgan") for rows in PARTS.values() for _, method in rows}
    interventions = {f"potgan-{kind}" for kind in INTERVENTIONS}
    assert interventions <= methods
    for method in methods - interventions:
        assert f"  {method}:" in text, method


def test_the_published_claims_are_those_of_the_published_reports(repository) -> None:
    """reports/published/claims.md is what the command prints, and README quotes its lines."""
    published = repository / "reports" / "published"
    text = (published / "claims.md").read_text()
    names = [
        name for name in ("embedded-short", "embedded-three-seeds", "embedded-long") if (published / name).is_dir()
    ]
    assert claims([published / name for name in names]) == text
