"""Results through DVC remotes: a folder, and S3 as moto's server speaks it. One to two minutes on two cores.

One project makes the results of a tiny benchmark and pushes them; a clone of it pulls, and nothing is left to be done.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_workflow import TINY, jobs

from potgan.pipeline.dvc import write_stages

pytest.importorskip("dvc", reason="DVC is not installed")
if shutil.which("git") is None:
    pytest.skip("no git here", allow_module_level=True)

#: What a clone of the repository holds, as far as the pipeline needs it.
PARTS = (
    "Snakefile",
    "workflow",
    "profiles",
    "config",
    "benchmarks",
    "potgan",
    "environment.yml",
    ".gitignore",
    ".dvcignore",
)
SMALL = TINY | {
    "models": {"potgan": None},
    "training": TINY["training"] | {"iterations": 2, "decay_from": 1, "checkpoints": 1, "log_every": 1},
}
BUCKET = "results"


class Project:
    """A checkout, and the commands of a person who works in it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEMAKE_", "GIT_", "AWS_"))}
        # Nothing of this machine's settings, nor of a repository around this one.
        own |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "DVC_NO_ANALYTICS": "1"}
        own |= {"DVC_GLOBAL_CONFIG_DIR": str(folder.parent), "DVC_SYSTEM_CONFIG_DIR": str(folder.parent)}
        own |= {"DVC_SITE_CACHE_DIR": str(folder.parent / f"site-cache-{folder.name}"), "PYTHONPATH": str(folder)}
        own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}"
        self.environment = own | environment

    def run(self, *command: str, status: int | None = 0) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert status is None or done.returncode == status, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def git(self, *arguments: str) -> str:
        return self.run("git", "-c", "user.name=A. Nother", "-c", "user.email=a@example.org", *arguments)

    def dvc(self, *arguments: str, status: int | None = 0) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments, status=status)

    def plan(self) -> str:
        return self.run(sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--", "all")

    def results(self) -> dict[str, str]:
        """Path -> MD5 of every file that lies in an output of dvc.yaml."""
        stages = yaml.safe_load((self.folder / "dvc.yaml").read_text())["stages"].values()
        outputs = [next(iter(o)) for stage in stages for o in [*stage["outs"], *stage.get("metrics", [])]]
        return {
            path.relative_to(self.folder).as_posix(): hashlib.md5(path.read_bytes()).hexdigest()
            for output in outputs
            for path in [self.folder / output, *(self.folder / output).rglob("*")]
            if path.is_file()
        }


@pytest.fixture(scope="module")
def project(repository, tmp_path_factory) -> Project:
    """The tiny benchmark, made by `dvc repro` in a copy of the repository, with its lock committed."""
    folder = tmp_path_factory.mktemp("remotes") / "project"
    folder.mkdir()
    for name in PARTS:
        if (repository / name).is_dir():
            shutil.copytree(
                repository / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".venv", "*.jpg")
            )
        else:
            shutil.copy(repository / name, folder / name)
    (folder / "config/config.yaml").write_text(yaml.safe_dump(SMALL, sort_keys=False))
    write_stages(folder / "config/config.yaml", folder / "dvc.yaml")
    made = Project(folder)
    made.git("init", "--quiet", "--initial-branch", "main")
    made.dvc("init", "--quiet")
    said = made.dvc("repro")
    assert "rule train:" in said or "Training potgan" in said
    made.git("add", "--all")
    made.git("commit", "--quiet", "--message", "A tiny benchmark, with the lock of its results")
    tracked = made.git("ls-files")
    assert "dvc.lock" in tracked
    assert not re.search("^results/", tracked, re.MULTILINE)  # results travel by DVC, not by git
    return made


@pytest.fixture(scope="module")
def bucket():
    """(address, dummy keys in the environment, boto3's client) of an empty bucket of a server on this machine."""
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed (extra `s3`)")
    pytest.importorskip("dvc_s3", reason="dvc-s3 is not installed (extra `s3`)")
    server = pytest.importorskip("moto.server", reason="moto's server is not installed (extra `test`)")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    address = f"http://{host}:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}
    client = boto3.client(
        "s3",
        endpoint_url=address,
        region_name=keys["AWS_DEFAULT_REGION"],
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=BUCKET)
    yield address, keys, client
    running.stop()


def test_repro_is_up_to_date_and_a_setting_of_the_filter_reaches_scores_and_report(project) -> None:
    assert "Data and pipelines are up to date" in project.dvc("repro")
    assert "Nothing to be done" in project.plan()
    path = project.folder / "config/config.yaml"
    before = path.read_text()
    changed = yaml.safe_load(before)
    changed["generator"]["guided_filter"]["epsilon"] = 0.5  # at test time only: no training depends on it
    try:
        path.write_text(yaml.safe_dump(changed, sort_keys=False))
        said = project.dvc("status", status=None)
        planned = jobs(project.plan())
    finally:
        path.write_text(before)
    assert "data:" not in said.splitlines()
    assert {"evaluate:", "report:"} <= set(said.splitlines())
    assert "train" not in planned
    assert planned["generate"] == 2  # of the model and of its first checkpoint


def pulled_in_a_clone(project: Project, folder: Path, **environment: str) -> Project:
    """Clone, see that everything is missing, pull, and see that nothing is: the same bytes, and no job to run."""
    project.git("clone", "--quiet", str(project.folder), str(folder))
    clone = Project(folder, **environment)
    assert not clone.results()
    assert jobs(clone.plan())["train"] == 1
    clone.dvc("pull")
    assert clone.results() == project.results()
    assert "Nothing to be done" in clone.plan()
    return clone


def test_results_go_to_a_folder_and_come_back_in_a_clone(project, tmp_path) -> None:
    store = tmp_path / "store"
    project.dvc("remote", "add", "--force", "--default", "storage", str(store))
    project.git("commit", "--quiet", "--all", "--message", "Remote: a folder")
    project.dvc("push")
    stored = [path for path in store.rglob("*") if path.is_file()]
    # DVC names an object after its MD5: what is stored is what the project has, nothing more and nothing less.
    names = {"".join(path.parts[-2:]): path for path in stored}
    files = {name: path for name, path in names.items() if not name.endswith(".dir")}
    assert set(files) == set(project.results().values())
    assert all(hashlib.md5(path.read_bytes()).hexdigest() == name for name, path in files.items())
    clone = pulled_in_a_clone(project, tmp_path / "clone")
    assert "Data and pipelines are up to date" in clone.dvc("status")
    # The README's way to give Snakemake a memory of what was pulled.
    clone.run(sys.executable, "-m", "snakemake", "--touch", "--forceall", "--cores", "1", "--quiet", "all", "--", "all")
    assert "Nothing to be done" in clone.plan()
    assert clone.results() == project.results()


def test_an_object_that_the_remote_lost_is_named_and_the_clone_is_not_called_complete(project, tmp_path) -> None:
    store = tmp_path / "store"
    project.dvc("remote", "add", "--force", "--default", "storage", str(store))
    project.git("commit", "--quiet", "--all", "--allow-empty", "--message", "Remote: another folder")
    project.dvc("push")
    lost = project.results()["reports/tiny/metrics.json"]
    (store / "files/md5" / lost[:2] / lost[2:]).unlink()
    project.git("clone", "--quiet", str(project.folder), str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    assert "metrics.json" in clone.dvc("pull", status=1)
    assert jobs(clone.plan()) == {"all": 1, "tabulate": 1}  # what was pulled is kept


def test_results_go_to_s3_and_come_back_in_a_clone(project, bucket, tmp_path) -> None:
    address, keys, client = bucket
    project.environment |= keys
    project.dvc("remote", "add", "--force", "--default", "storage", f"s3://{BUCKET}/tiny")
    project.dvc("remote", "modify", "storage", "endpointurl", address)
    project.git("commit", "--quiet", "--all", "--message", "Remote: a bucket")
    project.dvc("push")
    listed = [
        e["Key"] for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET) for e in page["Contents"]
    ]
    names = {"".join(key.split("/")[-2:]): key for key in listed}
    assert {name for name in names if not name.endswith(".dir")} == set(project.results().values())
    page = project.results()["reports/tiny/index.html"]
    body = client.get_object(Bucket=BUCKET, Key=names[page])["Body"].read()
    assert body == (project.folder / "reports/tiny/index.html").read_bytes()
    committed = project.git("show", "HEAD:.dvc/config")
    assert keys["AWS_SECRET_ACCESS_KEY"] not in committed  # keys are in the environment, never in the repository
    pulled_in_a_clone(project, tmp_path / "clone", **keys)
