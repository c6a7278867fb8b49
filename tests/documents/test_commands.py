"""Every command of the documents: it is run by a test, or the reason why it cannot be run here stands below."""

import re
import shlex
from pathlib import Path

import pytest

from potgan.cli import parser

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "config/README.md", "docs/*.md")

#: Command -> the test that runs it ("file::function"), as it stands or with smaller settings.
RUN = {
    "make test": "this is how the tests were started; .ci/run calls it",
    "make lint": "tests/pipeline/test_publication.py::test_catalogs_linters_are_content",
    'pytest -m "not slow"': "a part of make test",
    "snakemake --cores 8 all": "tests/pipeline/test_scenarios.py::test_again_nothing_is_done",
    "dvc repro": "tests/pipeline/test_scenarios.py::test_again_nothing_is_done",
    "dvc metrics show": "tests/pipeline/test_scenarios.py::test_commands_that_show_results",
    "dvc exp run -S config/config.yaml:models.no-recon.loss_weights.reconstruction=1": (
        "tests/pipeline/test_scenarios.py::test_an_experiment_trains_what_it_changes"
    ),
    "potgan dvc-stages": "tests/pipeline/test_workflow.py::test_dvc_stages_are_written_by_the_command",
    "potgan pack": "tests/pipeline/test_reading_writes_nothing.py::pulled",
    "potgan unpack": "tests/pipeline/test_scenarios.py::test_commands_that_show_results",
    "potgan stale": "tests/pipeline/test_scenarios.py::test_again_nothing_is_done",
    "snakemake --unlock": "tests/pipeline/test_kills.py::test_all_are_killed_and_after_unlock_the_next_run_goes_on",
    "snakemake --cores 1 --report report.zip -- all": (
        "tests/pipeline/test_workflow.py::test_snakemakes_own_report_has_tables_figures_and_page_with_captions"
    ),
    "dvc remote add --default storage /mnt/shared/potgan": "tests/pipeline/test_remotes.py",
    'dvc repro && git add dvc.lock .dvc/config && git commit -m "Results"': "tests/pipeline/test_remotes.py",
    "dvc push": "tests/pipeline/test_remotes.py",
    "dvc remote add --default storage s3://BUCKET/potgan": "tests/pipeline/test_remotes.py",
    "dvc remote modify storage endpointurl https://s3.example.org": "tests/pipeline/test_remotes.py",
    "export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...": "tests/pipeline/test_remotes.py",
    "dvc pull && dvc status -q && snakemake --touch --forceall --cores 1 -- all": "tests/pipeline/test_remotes.py",
    "snakemake --cores 2 --configfile config/market1501-sample.yaml -- all": (
        "tests/pipeline/test_workflow.py::test_real_images_go_through_the_same_stages"
    ),
    "snakemake --cores 2 --configfile config/three-layouts.yaml -- all": (
        "tests/pipeline/test_workflow.py::test_archives_in_all_three_real_layouts_fill_their_columns_of_the_four_tables"
    ),
    "snakemake --cores 2 --configfile config/config.yaml config/three-seeds.yaml -- all": (
        "tests/settings/test_reading.py::test_overlays_of_the_documents_are_read"
    ),
    "snakemake --cores 2 --configfile config/config.yaml config/three-seeds.yaml config/short.yaml -- all": (
        "tests/settings/test_reading.py::test_lengths_are_the_three_seeds_otherwise"
    ),
    "snakemake --cores 2 --configfile config/config.yaml config/three-seeds.yaml config/long.yaml -- all": (
        "tests/settings/test_reading.py::test_lengths_are_the_three_seeds_otherwise"
    ),
    "snakemake --cores 8 --configfile config/paper.yaml config/methods.yaml config/methods-paper.yaml -- all": (
        "tests/settings/test_reading.py::test_a_data_set_may_have_options_of_its_own_for_a_method"
    ),
    "python -m potgan.report.claims reports/published/embedded-three-seeds": (
        "tests/report/test_claims.py::test_the_published_claims_are_those_of_the_published_reports"
    ),
    "snakemake --cores 2 --configfile config/config.yaml config/precision.yaml -- all": (
        "tests/settings/test_reading.py::test_overlays_of_the_documents_are_read"
    ),
    "potgan verify market1501 --source DIR_OR_ZIP": "tests/data/test_verification.py",
    "potgan images market1501 --archive X.zip --out DIR": "tests/data/test_acquisition.py",
    "potgan prepare --dataset market1501 --for patn --out market_data": "tests/data/test_exported_peers.py",
    "potgan masks --keypoints market-annotation-train.csv --size 128 64 --out masks": "tests/data/test_exported_masks.py",
    "potgan convert market-annotation-train.csv train.json --to coco17": "tests/data/test_keypoint_files.py",
    "potgan pairs --keypoints market-annotation-train.csv --rule patn --out train.csv": "tests/data/test_pairs.py",
    "potgan compare results/embedded/synthetic/potgan/seed0 results/embedded/synthetic/no-recon/seed0": (
        "tests/pipeline/test_scenarios.py::test_commands_that_show_results"
    ),
    "potgan compare results/embedded ../other-clone/results/embedded --out comparison": (
        "tests/report/test_compare.py::test_the_page_names_the_weight_and_begins_with_the_pair_that_differs_most"
    ),
    "potgan plan --config config/paper.yaml": "tests/pipeline/test_plan.py::test_the_papers_plan_counts_published_images",
    "potgan estimate --config config/paper.yaml": "tests/training/test_estimate.py",
    "potgan score --images RESULTS --layout patn --pairs pairs.csv --protocol patn --out scores": "tests/measure/test_score.py",
    "potgan score --images RESULTS --layout patn --pairs pairs.csv --protocol all --as-they-are --out scores": (
        "tests/measure/test_score.py"
    ),
    "potgan export results/embedded/synthetic/potgan/seed0 --out potgan.pt": (
        "tests/methods/test_generator_file.py::test_export_embeds_origin_and_scores"
    ),
    "potgan transfer --checkpoint reports/published/generator/potgan-synthetic.pt --source docs/example/0172_c3s4_054046_02.jpg "
    "--pose docs/example/poses.csv --keypoints docs/example/poses.csv --out poses.png": (
        "tests/apply/test_published_generator.py::test_the_command_of_the_document_makes_its_picture"
    ),
    "potgan transfer --checkpoint potgan.pt --source a.jpg --pose b.jpg --keypoints TABLE --out c.png": (
        "tests/apply/test_transfer.py"
    ),
    "potgan transfer --checkpoint potgan.pt --source a.jpg --pose poses.csv poses.csv:NAME pose.json --out walk.gif": (
        "tests/apply/test_transfer.py"
    ),
    "snakemake --workflow-profile profiles/slurm --configfile config/paper.yaml -- all": "tests/pipeline/test_slurm.py",
    "POTGAN_TRAINING_RETRIES=20 snakemake --workflow-profile profiles/slurm -- all": "tests/pipeline/test_slurm.py",
}

#: Command -> why no test runs it.
NOT_RUN = {
    "make all": "it takes ten minutes; the same workflow is run with small settings by tests/pipeline/test_workflow.py",
    "make seeds": "three times make all",
    "make methods": "two hours; every method is trained by tests/training/test_methods.py",
    "make format": "it rewrites the sources; CI checks that there is nothing to rewrite",
    "make lock": "it asks the package index for the newest versions",
    "make slurm": "it changes the environment that the tests run in; the plug-in is installed beside it for test_slurm.py",
    "make gpu-benchmarks": "it needs a GPU",
    "snakemake --cores 8 --configfile config/paper.yaml -- all": "it needs the real archives and a GPU",
    "snakemake --cores 8 --resources gpu=4 --configfile config/paper.yaml -- all": "it needs four GPUs",
    "snakemake --cores 2 --configfile config/detected.yaml -- all": (
        "it takes half an hour; tests/data/test_detection.py detects with the same network"
    ),
    "tensorboard --logdir results/embedded": "it is a server; tests/training/test_loop.py reads what it would show",
}
CONTAINERS = (
    "docker ",
    "apptainer ",
)  # neither program is on the machines of CI; test_publication.py reads the recipes


def commands(repository: Path) -> dict[str, str]:
    """Command without its comment -> the document that names it. Recipes are run by test_recipes.py."""
    found = {}
    for pattern in DOCUMENTS:
        for path in sorted(repository.glob(pattern)):
            text = path.read_text().split("## Recipes")[0]
            for block in re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
                for line in block.splitlines():
                    command = re.sub(r"\s+#.*", "", line).strip()
                    if command:
                        found[command] = str(path.relative_to(repository))
    return found


def test_every_command_is_run_by_a_test_or_says_why_not(repository) -> None:
    named = commands(repository)
    assert len(named) > 40
    unknown = {
        c: where for c, where in named.items() if c not in RUN and c not in NOT_RUN and not c.startswith(CONTAINERS)
    }
    assert unknown == {}
    assert [command for command in RUN if command not in named] == []


@pytest.mark.parametrize("test", sorted({test for test in RUN.values() if test.startswith("tests/")}))
def test_the_tests_that_are_named_exist(repository, test) -> None:
    path, _, function = test.partition("::")
    assert f"def {function}" in (repository / path).read_text()


def test_every_verb_of_a_command_takes_its_arguments(repository) -> None:
    checked = 0
    for command in commands(repository):
        words = shlex.split(command)
        if words[0] == "potgan":
            parser().parse_args(words[1:])
            checked += 1
    assert checked > 15


def test_every_target_of_make_exists(repository) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    asked = {shlex.split(command)[1] for command in commands(repository) if command.startswith("make ")}
    assert asked <= targets


def test_every_link_leads_to_a_file(repository) -> None:
    for pattern in (*DOCUMENTS, "CHANGELOG.md", "benchmarks/speed/README.md", "reports/README.md"):
        for path in repository.glob(pattern):
            for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
                if "://" not in target:
                    assert (path.parent / target).exists(), f"{path}: {target}"


def test_the_front_page_fits(repository) -> None:
    words = (repository / "README.md").read_text().split()
    assert len(words) <= 900
    first_screen = "\n".join((repository / "README.md").read_text().splitlines()[:35])
    assert "![" in first_screen
    assert "| `potgan` |" in first_screen
    assert "make all" in first_screen
