"""Published tables and lists: what stands for them, where they are looked for, and whose key points follow where there are none."""

from __future__ import annotations

import concurrent.futures
import copy
import hashlib
import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import servers
import yaml
from test_acquisition import everything, one_error, potgan
from test_workflow import TINY, jobs, snakemake, snakemake_environment, write

from potgan.common import download
from potgan.common.download import Unreachable, fetch
from potgan.common.errors import UserError
from potgan.data.sources import published
from potgan.data.sources.archives import facts_of
from potgan.data.sources.published import (
    PublishedRecord,
    estimator_of,
    outlook,
    prepare_published,
    resolved,
    wanted,
    why_detected,
)
from potgan.data.synthetic.imitations import write_archive
from potgan.pipeline import stages
from potgan.pipeline.jobs import jobs as pipeline_jobs
from potgan.pipeline.records import stale
from potgan.settings.layout import Layout
from potgan.settings.reading import load
from potgan.settings.schema import (
    PUBLISHED_KINDS,
    Benchmark,
    Dataset,
    KeypointSettings,
    PairSettings,
    SyntheticSettings,
)

FILES = {
    "market1501": ("market-annotation-train.csv", "market-annotation-test.csv", "market-pairs-test.csv"),
    "deepfashion": (
        *("train.lst", "test.lst", "fasion-annotation-train.csv", "fasion-annotation-test.csv"),
        *("fasion-pairs-train.csv", "fasion-pairs-test.csv"),
    ),
}


def market(**settings: object) -> Dataset:
    pairs = PairSettings(test="published", test_sample=40)
    return Dataset("market1501", "M", **{"pairs": pairs, "allow_partial": True} | settings)


def fashion(**settings: object) -> Dataset:
    pairs = PairSettings(train="published", test="published")
    return Dataset("deepfashion", "D", **{"pairs": pairs, "allow_partial": True} | settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Archives in the layouts of Market-1501 and DeepFashion, with their tables and lists."""
    folder = tmp_path_factory.mktemp("made")
    people = SyntheticSettings(train_identities=4, test_identities=3, images_per_identity=4)
    for kind in FILES:
        write_archive(kind, folder / kind, people, 0)
    return folder


@pytest.fixture
def served(server, made) -> servers.Server:
    """A server that has all of `made`, as the shared folder of others has it."""
    for path in made.rglob("*"):
        if path.is_file():
            server.pages[f"/{path.relative_to(made).as_posix()}"] = servers.whole(path.read_bytes())
    return server


@pytest.fixture
def nobody() -> str:
    """The address of a port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/x"


def origins_of(folder: Path) -> dict:
    return json.loads((folder / "origins.json").read_text())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# What is wanted


def test_what_is_not_named_is_the_published_file() -> None:
    assert [file.name for file in wanted(market()).values()] == list(FILES["market1501"])
    assert [file.name for file in wanted(fashion()).values()] == list(FILES["deepfashion"])
    assert wanted(Dataset("dukemtmc", "K")) == {}
    assert wanted(Dataset("synthetic", "S")) == {}


def test_what_is_named_is_not_looked_for_elsewhere() -> None:
    named = KeypointSettings(train="a.csv", test="b.csv")
    assert list(wanted(market(keypoints=named))) == ["pairs.test"]
    assert list(wanted(market(keypoints=KeypointSettings(train="a.csv"), pairs=PairSettings()))) == ["keypoints.test"]
    lists = {"train": "a.lst", "test": "b.lst"}
    assert wanted(fashion(splits=lists, keypoints=named, pairs=PairSettings())) == {}


def test_openpifpaf_by_itself_is_compared_with_nothing_unless_a_table_is_asked_for() -> None:
    alone = KeypointSettings(estimator="openpifpaf")
    compared = KeypointSettings(estimator="openpifpaf", train="published", test="published")
    assert list(wanted(market(keypoints=alone))) == ["pairs.test"]
    assert list(wanted(market(keypoints=compared))) == ["keypoints.train", "keypoints.test", "pairs.test"]


@pytest.mark.parametrize(
    ("dataset", "estimator"),
    [
        (Dataset("synthetic", "S"), "table"),
        (Dataset("dukemtmc", "K"), "openpifpaf"),  # no table of it is published
        (market(), None),  # only who has looked for the tables knows
        (market(keypoints=KeypointSettings(train="a.csv", test="b.csv")), "table"),
        (market(keypoints=KeypointSettings(estimator="openpifpaf")), "openpifpaf"),
        (market(keypoints=KeypointSettings(estimator="table")), "table"),
    ],
)
def test_the_estimator_is_known_beforehand_where_no_file_decides_it(dataset, estimator) -> None:
    assert estimator_of(dataset) == estimator


def test_a_list_that_nobody_has_published_is_refused_before_anything_starts(tmp_path) -> None:
    duke = {"kind": "dukemtmc", "label": "K", "source": str(tmp_path), "pairs": {"test": "published"}}
    benchmark = load(TINY | {"datasets": {"duke": duke}})
    with pytest.raises(UserError, match=r"datasets\.duke\.pairs\.test is published, and no pair list of DukeMTMC-reID"):
        pipeline_jobs(benchmark, Layout("tiny", tmp_path))


# ---------------------------------------------------------------------------------------------------------------------
# The stage


@pytest.mark.parametrize("dataset", [market(), fashion()], ids=lambda d: d.kind)
def test_what_is_served_is_fetched_whole_and_decides_for_the_tables(served, made, tmp_path, dataset) -> None:
    kind = dataset.kind
    dataset = Dataset(kind, "X", pairs=dataset.pairs, published=served.url(f"/{kind}"))
    record = prepare_published(dataset, "x", tmp_path / "data", tmp_path / "out")
    assert record.estimator == "table"
    assert record.missing == ()
    assert everything(tmp_path / "out") == sorted([*FILES[kind], "origins.json", "published.json"])
    for setting, entry in record.files.items():
        content = (made / kind / entry.file).read_bytes()
        assert entry.sha256 == sha256(content)
        assert (tmp_path / "out" / entry.file).read_bytes() == content
        assert origins_of(tmp_path / "out")[setting]["from"] == served.url(f"/{kind}/{entry.file}")
    found = resolved(dataset, tmp_path / "out")
    assert found.keypoints.estimator == "table"
    assert [Path(p).name for p in found.keypoints.tables.values()] == [n for n in FILES[kind] if "annotation" in n]
    assert [Path(p).name for p in (found.pairs.train, found.pairs.test) if p] == [
        n for n in FILES[kind] if "pairs" in n
    ]
    assert [Path(p).name for p in found.splits.values()] == [n for n in FILES[kind] if n.endswith("lst")]
    # Nothing is fetched twice.
    count = len(served.requests)
    prepare_published(dataset, "x", tmp_path / "data", tmp_path / "again")
    assert len(served.requests) == count


@pytest.mark.parametrize("lost", FILES["market1501"][:2])
def test_one_missing_table_makes_openpifpaf_find_all_key_points(served, tmp_path, capsys, lost) -> None:
    del served.pages[f"/market1501/{lost}"]
    dataset = market(published=served.url("/market1501"))
    record = prepare_published(dataset, "m", tmp_path / "data", tmp_path / "out")
    assert record.estimator == "openpifpaf"
    said = capsys.readouterr().err
    assert f"m: {served.url(f'/market1501/{lost}')}: cannot be fetched (the server answered 404)" in said
    assert f"m: OpenPifPaf finds the key points, because {lost} cannot be had" in said
    found = resolved(dataset, tmp_path / "out")
    assert found.keypoints.estimator == "openpifpaf"
    assert found.keypoints.tables == {}  # half of the images are nothing to compare with
    assert Path(found.pairs.test).name == "market-pairs-test.csv"


def test_a_missing_pair_list_is_replaced_by_the_rule_and_said(served, tmp_path, capsys) -> None:
    del served.pages["/market1501/market-pairs-test.csv"]
    dataset = market(published=served.url("/market1501"))
    record = prepare_published(dataset, "m", tmp_path / "data", tmp_path / "out")
    assert record.estimator == "table"
    said = capsys.readouterr().err
    assert "m: without market-pairs-test.csv, test pairs are formed by the rule patn, of which 40 are drawn" in said
    assert resolved(dataset, tmp_path / "out").pairs == PairSettings(test_sample=40)


def test_a_server_without_an_answer_is_asked_once(nobody, tmp_path, capsys) -> None:
    prepare_published(market(published=nobody), "m", tmp_path / "data", tmp_path / "out")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if nobody in line] == [
        f"m: {nobody}/market-annotation-train.csv: cannot be fetched (no connection)"
    ]
    assert not (tmp_path / "data").exists()


def test_demanded_tables_that_cannot_be_had_stop_the_run_in_one_line(nobody, tmp_path, capsys) -> None:
    demanded = market(published=nobody, keypoints=KeypointSettings(estimator="table"))
    with pytest.raises(UserError, match=r"^m: .*no connection.*market-annotation-train.csv and market-annotation-test"):
        prepare_published(demanded, "m", tmp_path / "data", tmp_path / "out")
    assert capsys.readouterr().err == ""
    assert everything(tmp_path) == []


def test_deepfashion_without_its_lists_is_refused_in_one_line(nobody, tmp_path) -> None:
    tree = TINY | {"datasets": {"d": {"kind": "deepfashion", "label": "D", "published": nobody}}}
    write(tmp_path, tree)
    run = potgan(tmp_path, "published", "--config", "config.yaml", "--dataset", "d")
    line = one_error(run)
    assert (
        "without train.lst and test.lst nobody knows which images are for training; leave `published` out and put them"
        in line
    )
    assert run.stderr.count("\n") == 1
    assert everything(tmp_path) == ["config.yaml"]


def test_lists_beside_the_users_images_are_taken(made, nobody, tmp_path) -> None:
    dataset = fashion(published=nobody, source=str(made / "deepfashion" / "Img" / "img.zip"))
    with pytest.raises(UserError, match=r"train\.lst"):
        prepare_published(dataset, "d", tmp_path / "data", tmp_path / "out")
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("Img/img.zip", "train.lst", "test.lst"):
        (folder / Path(name).name).write_bytes((made / "deepfashion" / name).read_bytes())
    dataset = fashion(published=nobody, source=str(folder / "img.zip"))
    record = prepare_published(dataset, "d", tmp_path / "data", tmp_path / "out")
    origins = origins_of(tmp_path / "out")
    assert {s: origins[s]["from"] for s in record.files} == dict.fromkeys(
        ("splits.train", "splits.test"), "beside the images"
    )
    assert record.estimator == "openpifpaf"


def test_a_file_in_the_data_folder_is_taken_and_another_than_the_published_one_is_said(
    made, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("POTGAN_NO_DOWNLOAD", "1")
    data = tmp_path / "data"
    data.mkdir()
    for name in FILES["market1501"]:
        (data / name).write_bytes((made / "market1501" / name).read_bytes())
    record = prepare_published(market(), "m", data, tmp_path / "out")
    assert record.estimator == "table"
    origin = origins_of(tmp_path / "out")["keypoints.train"]["from"]
    assert origin == "data folder, and is not the published file"
    assert f"m: {data / 'market-annotation-train.csv'} is not the published" in capsys.readouterr().err
    names = "market-annotation-train.csv and market-annotation-test.csv"
    assert outlook(market(), "m", data, None) == f"m: {names}"


def test_a_folder_that_the_user_names_is_the_only_one(made, tmp_path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "market-annotation-train.csv").write_text("another one")
    dataset = market(published=str(made / "market1501"))
    record = prepare_published(dataset, "m", data, tmp_path / "out")
    content = (made / "market1501" / "market-annotation-train.csv").read_bytes()
    assert record.files["keypoints.train"].sha256 == sha256(content)
    (tmp_path / "empty").mkdir()
    empty = market(published=str(tmp_path / "empty"))
    assert prepare_published(empty, "m", data, tmp_path / "other").estimator == "openpifpaf"
    why = origins_of(tmp_path / "other")["keypoints.train"]["missing"]
    assert why == f"{tmp_path / 'empty' / 'market-annotation-train.csv'}: missing"


def served_as_the_public_source(monkeypatch, address: str) -> None:
    facts = copy.deepcopy(facts_of("market1501"))
    facts["published"]["source"] = address
    monkeypatch.setattr(published, "facts_of", lambda kind: facts)


def test_other_bytes_from_the_public_source_are_refused(served, tmp_path, monkeypatch, capsys) -> None:
    served_as_the_public_source(monkeypatch, served.url("/market1501"))
    record = prepare_published(market(), "m", tmp_path / "data", tmp_path / "out")
    assert record.estimator == "openpifpaf"
    assert capsys.readouterr().err.count("that are not the published market-") == 3
    assert not (tmp_path / "data").exists()


def test_a_kept_file_with_another_checksum_is_fetched_anew_by_the_stage_and_left_alone_by_a_plan(
    served, tmp_path, monkeypatch
) -> None:
    served_as_the_public_source(monkeypatch, served.url("/market1501"))
    kept = tmp_path / "data" / "published" / "market1501" / "market-annotation-train.csv"
    kept.parent.mkdir(parents=True)
    kept.write_text("edited")
    assert "fetched from" in outlook(market(), "m", tmp_path / "data", None)
    assert kept.read_text() == "edited"
    prepare_published(market(), "m", tmp_path / "data", tmp_path / "out")
    assert not kept.exists()  # what is served here has not the public checksum


def test_the_published_tables_have_the_known_checksums(server, shared, tmp_path, monkeypatch) -> None:
    for name in FILES["market1501"]:
        server.pages[f"/{name}"] = servers.whole((shared / "published" / name).read_bytes())
    served_as_the_public_source(monkeypatch, server.url(""))
    record = prepare_published(market(), "m", tmp_path / "data", tmp_path / "out")
    assert record.estimator == "table"
    assert len(record.files) == 3


def test_four_that_fetch_in_vain_at_once_all_say_why(nobody, tmp_path, monkeypatch) -> None:
    """The folder of one, which is removed because nothing came, is that of the others, or the one above theirs."""
    monkeypatch.setattr(download, "RETRIES", 0)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for turn in range(20):
            data = tmp_path / f"{turn}" / "data"
            places = [data / "published" / "a", data, data / "published" / "b", data]
            tries = [
                pool.submit(fetch, f"{nobody}/{k}", folder / str(k), checksum=None) for k, folder in enumerate(places)
            ]
            for one in tries:
                with pytest.raises(Unreachable, match="no connection"):
                    one.result()
            assert not any(path.is_file() for path in tmp_path.rglob("*"))


# ---------------------------------------------------------------------------------------------------------------------
# What must not pass


@pytest.mark.parametrize(
    "body",
    [b"", b"Too many requests, please slow down\n", b'{"error": {"code": 403}}', b"version https://git-lfs.github.com/spec/v1\n",
     b"<!-- a page --><html>sign in</html>"],
)  # fmt: skip
def test_what_is_no_table_is_not_taken_and_not_kept(served, tmp_path, capsys, body) -> None:
    served.pages["/market1501/market-annotation-test.csv"] = servers.answer(200, body, "text/plain")
    dataset, data = market(published=served.url("/market1501")), tmp_path / "data"
    record = prepare_published(dataset, "m", data, tmp_path / "out")
    assert record.estimator == "openpifpaf"
    address = served.url("/market1501/market-annotation-test.csv")
    assert f"m: {address}: sent " in capsys.readouterr().err
    assert sorted(path.name for path in data.rglob("*.csv")) == ["market-annotation-train.csv", "market-pairs-test.csv"]
    # What is mended there is fetched by the next run.
    served.pages["/market1501/market-annotation-test.csv"] = served.pages["/market1501/market-annotation-train.csv"]
    assert prepare_published(dataset, "m", data, tmp_path / "again").estimator == "table"


def test_a_list_that_is_none_is_refused(served, tmp_path) -> None:
    served.pages["/deepfashion/train.lst"] = servers.answer(200, b"PK\3\4 not a list", "text/plain")
    with pytest.raises(UserError, match=r"d: .*train\.lst: sent no list of the splits"):
        prepare_published(fashion(published=served.url("/deepfashion")), "d", tmp_path / "data", tmp_path / "out")


def test_a_file_of_the_user_that_is_no_table_stops_the_run(made, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("POTGAN_NO_DOWNLOAD", "1")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "market-annotation-train.csv").write_text("nothing\n")
    with pytest.raises(UserError, match=r"data/market-annotation-train\.csv, line 1: unknown header"):
        prepare_published(market(), "m", tmp_path / "data", tmp_path / "out")


@pytest.mark.parametrize(
    "place", ["/nope/tables", "rel/tables", "~/nope/tables", "htp://x/y", "HTTP://x/y", "http://", "drive:"]
)
def test_a_mistyped_place_of_the_published_files_is_an_error(place, tmp_path) -> None:
    with pytest.raises(UserError, match=f"published: {place}"):
        prepare_published(market(published=place), "m", tmp_path / "data", tmp_path / "out")


def test_a_data_folder_that_cannot_be_written_is_no_reason_for_openpifpaf(served, tmp_path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        prepare_published(market(published=served.url("/market1501")), "m", tmp_path / "data", tmp_path / "out")


def test_another_copy_has_its_own_lists(made, tmp_path, monkeypatch) -> None:
    """The lists lie beside the images, so that another `source` is another split, which the records must tell."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POTGAN_NO_DOWNLOAD", "1")
    swapped = {"train.lst": "test.lst", "test.lst": "train.lst"}
    for copy_, name_of in (("a", {}), ("b", swapped)):
        Path(copy_).mkdir()
        for name in ("Img/img.zip", "train.lst", "test.lst"):
            content = (made / "deepfashion" / name).read_bytes()
            Path(copy_, Path(name_of.get(name, name)).name).write_bytes(content)

    def benchmark(source: str) -> Benchmark:
        entry = {"kind": "deepfashion", "label": "D", "source": source, "allow_partial": True}
        return load(TINY | {"datasets": {"d": entry}})

    layout = Layout("tiny")
    stages.published(benchmark("a/img.zip"), layout, "d")
    stages.images(benchmark("a/img.zip"), layout, "d")
    with pytest.raises(UserError, match="was decided with other settings; run `potgan published` again"):
        stages.images(benchmark("b/img.zip"), layout, "d")
    other = benchmark("b/img.zip")
    assert next(stale(pipeline_jobs(other, layout), layout))[0].key == ("published", "d")
    stages.published(other, layout, "d")
    first = pd.read_csv(layout.images("d") / "images.csv").set_index("name")["split"]
    stages.images(other, layout, "d")
    second = pd.read_csv(layout.images("d") / "images.csv").set_index("name")["split"]
    assert (first != second[first.index]).all()
    Path("b/train.lst").write_bytes(Path("a/train.lst").read_bytes())
    why = {job.key: why for job, why, _ in stale(pipeline_jobs(other, layout), layout)}
    assert "b/train.lst" in why["published", "d"]


def test_an_edited_file_of_the_stage_is_noticed(served, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    benchmark, layout = load(config(served)), Layout("tiny")
    stages.published(benchmark, layout, "m")
    assert [job.key for job, _, _ in stale(pipeline_jobs(benchmark, layout), layout)] == []
    table = layout.published("m") / "market-annotation-train.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:9]))
    why = {job.key: why for job, why, _ in stale(pipeline_jobs(benchmark, layout), layout)}
    assert why["published", "m"] == "its files were changed after they were made"


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"version": 1, "files": 3}'])
def test_a_damaged_record_is_made_again(served, tmp_path, text, repository) -> None:
    write(tmp_path, config(served))
    record = tmp_path / "results/tiny/m/published/published.json"
    record.parent.mkdir(parents=True)
    record.write_text(text)
    run = snakemake(repository, tmp_path, "-n", target=TARGET)
    assert run.returncode == 0, run.stderr
    assert jobs(run.stdout)["published"] == 1
    line = one_error(potgan(tmp_path, "keypoints", "--config", "config.yaml", "--dataset", "m"))
    assert str(Path("results", "tiny", "m")) in line


def test_the_reason_is_told_only_where_the_tables_decided(nobody, tmp_path) -> None:
    automatic = market(published=nobody)
    prepare_published(automatic, "m", tmp_path / "data", tmp_path / "out")
    names = "market-annotation-train.csv and market-annotation-test.csv"
    assert why_detected(automatic, tmp_path / "out") == f"{names} cannot be had"
    assert (
        outlook(automatic, "m", tmp_path / "data", tmp_path / "out") == f"m: OpenPifPaf, because {names} cannot be had"
    )
    demanded = market(
        published=nobody, keypoints=KeypointSettings(estimator="openpifpaf", train="published", test="published")
    )
    assert why_detected(demanded, tmp_path / "out") == ""
    assert outlook(demanded, "m", tmp_path / "data", None) == "m: OpenPifPaf"


# ---------------------------------------------------------------------------------------------------------------------
# In the workflow


def config(server, **market_settings: object) -> dict:
    entry = {
        "kind": "market1501",
        "label": "M",
        "allow_partial": True,
        "image_size": [128, 64],
        "source": server.url("/market1501/Market-1501-v15.09.15.zip"),
        "published": server.url("/market1501"),
        "pairs": {"test": "published", "test_sample": 6, "validation_identities": 1},
    }
    return TINY | {"datasets": {"m": entry | market_settings}}


TARGET = "results/tiny/m/pairs/pairs.json"


def test_the_workflow_goes_from_addresses_to_pairs_and_then_has_nothing_to_do(
    repository, served, made, tmp_path
) -> None:
    write(tmp_path, config(served))
    dry = snakemake(repository, tmp_path, "-n", target=TARGET)
    assert jobs(dry.stdout) == {"published": 1, "images": 1, "keypoints": 1, "pairs": 1}
    assert served.requests == []  # a dry run asks no network
    run = snakemake(repository, tmp_path, target=TARGET)
    assert run.returncode == 0, run.stderr
    asked = [path.rsplit("/", 1)[1] for path, _ in served.requests]
    assert (
        asked.index("Market-1501-v15.09.15.zip") == len(asked) - 1
    )  # it is known whose key points, before images are fetched
    wanted_pairs = (made / "market1501" / "market-pairs-test.csv").read_text()
    assert (tmp_path / "results/tiny/m/pairs/pairs-test.csv").read_text() == wanted_pairs
    assert "Nothing to be done" in snakemake(repository, tmp_path, target=TARGET).stderr
    # Another decision about the key points makes no image again.
    write(tmp_path, config(served, keypoints={"estimator": "table"}))
    again = snakemake(repository, tmp_path, "-n", target=TARGET)
    assert jobs(again.stdout) == {"published": 1, "keypoints": 1, "pairs": 1}, again.stderr


def test_without_tables_the_workflow_asks_for_openpifpaf_and_a_table_that_appears_is_noticed(
    repository, served, made, tmp_path
) -> None:
    for name in FILES["market1501"]:
        del served.pages[f"/market1501/{name}"]
    write(tmp_path, config(served, published=None))
    command = [sys.executable, "-m", "snakemake", "-s", str(repository / "Snakefile"), "--directory", str(tmp_path)]
    environment = snakemake_environment(POTGAN_OPENPIFPAF_ENV=str(tmp_path / "environment"), POTGAN_NO_DOWNLOAD="1")

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*command, "--configfile", str(tmp_path / "config.yaml"), *arguments],
            capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip

    decided = run("--cores", "1", "--", "results/tiny/m/published/published.json")
    assert decided.returncode == 0, decided.stderr
    record = PublishedRecord.read(tmp_path / "results/tiny/m/published/published.json")
    assert record.estimator == "openpifpaf"
    planned = potgan(tmp_path, "plan", "--config", "config.yaml").stdout
    assert "Key points of m: OpenPifPaf, because market-annotation-train.csv and market-annotation-test.csv" in planned
    assert jobs(run("-n", "--", TARGET).stdout) == {
        "images": 1, "openpifpaf_environment": 1, "keypoints": 1, "pairs": 1,
    }  # fmt: skip
    (tmp_path / "data").mkdir(exist_ok=True)
    for name in FILES["market1501"]:
        (tmp_path / "data" / name).write_bytes((made / "market1501" / name).read_bytes())
    noticed = run("-n", "--", TARGET)
    assert "to be made again: published m (other inputs (data/market-annotation-train.csv" in noticed.stderr
    assert jobs(noticed.stdout)["published"] == 1


def test_where_everything_is_dead_the_last_lines_say_it_for_each_data_set(
    repository, nobody, tmp_path, monkeypatch
) -> None:
    """One that fails stops no other one, so that the person who comes back in the morning knows all that is missing."""
    monkeypatch.setenv("POTGAN_DOWNLOAD_RETRIES", "0")
    datasets = {
        kind: {
            "kind": kind,
            "label": kind,
            "image_size": [128, 64],
            "source": f"{nobody}/{kind}/{facts_of(kind)['archive']}",
            "pairs": {"validation_identities": 1},
        }
        for kind in PUBLISHED_KINDS
    }
    for kind in FILES:
        datasets[kind]["published"] = f"{nobody}/{kind}"
    write(tmp_path, TINY | {"datasets": datasets})
    run = snakemake(repository, tmp_path, target="data")
    assert run.returncode == 1  # Snakemake's own; each verb has exited with 2
    last = run.stderr[run.stderr.rindex("Exiting because") :].splitlines()
    said = sorted(line for line in last if ": error: " in line)
    assert [re.match(r"(\w+/\w+): potgan \w+: error: ", line)[1] for line in said] == [
        "images/dukemtmc", "images/market1501", "published/deepfashion",
    ]  # fmt: skip
    for line, archive in zip(said, ("DukeMTMC-reID.zip", "Market-1501-v15.09.15.zip", "train.lst"), strict=True):
        assert f"{archive}: cannot be fetched" in line
    assert run.stderr.count("returned non-zero exit status 2") == 3
    assert not list((tmp_path / "data").rglob("*.*"))
    assert not any((tmp_path / "results" / "tiny" / kind / "images").exists() for kind in datasets)


def test_the_papers_configuration_names_no_file_that_must_be_put_somewhere(repository) -> None:
    tree = yaml.safe_load((repository / "config" / "paper.yaml").read_text())
    assert "data/" not in yaml.safe_dump(tree)
    datasets = load(tree).datasets
    assert {name: estimator_of(dataset) for name, dataset in datasets.items()} == {
        "market1501": None,
        "dukemtmc": "openpifpaf",
        "deepfashion": None,
    }
    assert list(wanted(datasets["deepfashion"])) == [
        *("splits.train", "splits.test", "keypoints.train", "keypoints.test", "pairs.train", "pairs.test")
    ]
