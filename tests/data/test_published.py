"""Published tables and lists: what stands for them, where they are looked for, and whose key points follow where there are none."""

from __future__ import annotations

import concurrent.futures
import hashlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import servers
import yaml
from test_acquisition import everything, one_error, potgan
from test_workflow import TINY, jobs, snakemake, snakemake_environment, write

from potgan.common import download
from potgan.common.download import Unreachable, fetch
from potgan.common.errors import UserError
from potgan.common.files import read_json
from potgan.data.sources import published
from potgan.data.sources.archives import facts_of
from potgan.data.sources.published import estimator_of, outlook, prepare_published, resolved, wanted
from potgan.data.synthetic.imitations import write_archive
from potgan.pipeline.start import present
from potgan.settings.reading import load
from potgan.settings.schema import Dataset, KeypointSettings, PairSettings, SyntheticSettings

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
        present(benchmark, tmp_path)


# ---------------------------------------------------------------------------------------------------------------------
# The stage


@pytest.mark.parametrize("dataset", [market(), fashion()], ids=lambda d: d.kind)
def test_what_is_served_is_fetched_whole_and_decides_for_the_tables(served, made, tmp_path, dataset) -> None:
    kind = dataset.kind
    dataset = Dataset(kind, "X", pairs=dataset.pairs, published=served.url(f"/{kind}"))
    record = prepare_published(dataset, "x", tmp_path / "data", tmp_path / "out")
    assert record["estimator"] == "table"
    assert record["missing"] == {}
    assert everything(tmp_path / "out") == sorted([*FILES[kind], "published.json"])
    for setting, entry in record["files"].items():
        content = (made / kind / entry["file"]).read_bytes()
        assert entry["sha256"] == sha256(content)
        assert (tmp_path / "out" / entry["file"]).read_bytes() == content
        assert record["origins"][setting] == served.url(f"/{kind}/{entry['file']}")
    found = resolved(dataset, "x", tmp_path / "out")
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
    assert record["estimator"] == "openpifpaf"
    said = capsys.readouterr().err
    assert f"m: {served.url(f'/market1501/{lost}')}: cannot be fetched (the server answered 404)" in said
    assert f"m: OpenPifPaf finds the key points, because {lost} cannot be had" in said
    found = resolved(dataset, "m", tmp_path / "out")
    assert found.keypoints.estimator == "openpifpaf"
    assert found.keypoints.tables == {}  # half of the images are nothing to compare with
    assert Path(found.pairs.test).name == "market-pairs-test.csv"


def test_a_missing_pair_list_is_replaced_by_the_rule_and_said(served, tmp_path, capsys) -> None:
    del served.pages["/market1501/market-pairs-test.csv"]
    dataset = market(published=served.url("/market1501"))
    record = prepare_published(dataset, "m", tmp_path / "data", tmp_path / "out")
    assert record["estimator"] == "table"
    said = capsys.readouterr().err
    assert "m: without market-pairs-test.csv, test pairs are formed by the rule patn, of which 40 are drawn" in said
    assert resolved(dataset, "m", tmp_path / "out").pairs == PairSettings(test_sample=40)


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
    assert "without train.lst and test.lst nobody knows which images are for training; put them into data" in line
    assert run.stderr.count("\n") == 1
    assert everything(tmp_path) == ["config.yaml"]


def test_lists_beside_the_users_images_are_taken(made, nobody, tmp_path) -> None:
    dataset = fashion(published=nobody, source=str(made / "deepfashion" / "Img" / "img.zip"))
    with pytest.raises(UserError, match=r"train\.lst"):
        prepare_published(dataset, "d", tmp_path / "data", tmp_path / "out")
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("Img/img.zip", "train.lst", "test.lst"):
        (copy / Path(name).name).write_bytes((made / "deepfashion" / name).read_bytes())
    dataset = fashion(published=nobody, source=str(copy / "img.zip"))
    record = prepare_published(dataset, "d", tmp_path / "data", tmp_path / "out")
    assert record["origins"] == {"splits.train": "beside the images", "splits.test": "beside the images"}
    assert record["estimator"] == "openpifpaf"


def test_a_file_in_the_data_folder_is_taken_and_another_than_the_published_one_is_said(
    made, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("POTGAN_NO_DOWNLOAD", "1")
    data = tmp_path / "data"
    data.mkdir()
    for name in FILES["market1501"]:
        (data / name).write_bytes((made / "market1501" / name).read_bytes())
    record = prepare_published(market(), "m", data, tmp_path / "out")
    assert record["estimator"] == "table"
    assert record["origins"]["keypoints.train"] == "data folder, and is not the published file"
    assert f"m: {data / 'market-annotation-train.csv'} is not the published" in capsys.readouterr().err
    assert "which are here" in outlook(market(), "m", data, tmp_path / "nowhere")


def test_a_folder_that_the_user_names_is_the_only_one(made, tmp_path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "market-annotation-train.csv").write_text("another one")
    dataset = market(published=str(made / "market1501"))
    record = prepare_published(dataset, "m", data, tmp_path / "out")
    content = (made / "market1501" / "market-annotation-train.csv").read_bytes()
    assert record["files"]["keypoints.train"]["sha256"] == sha256(content)
    empty = market(published=str(tmp_path / "empty"))
    record = prepare_published(empty, "m", data, tmp_path / "other")
    assert (
        record["missing"]["keypoints.train"]["why"] == f"{tmp_path / 'empty' / 'market-annotation-train.csv'}: missing"
    )


def served_as_the_public_source(monkeypatch, address: str) -> None:
    facts = facts_of("market1501")
    facts["published"]["source"] = address
    monkeypatch.setattr(published, "facts_of", lambda kind: facts)


def test_other_bytes_from_the_public_source_are_refused(served, tmp_path, monkeypatch, capsys) -> None:
    served_as_the_public_source(monkeypatch, served.url("/market1501"))
    record = prepare_published(market(), "m", tmp_path / "data", tmp_path / "out")
    assert record["estimator"] == "openpifpaf"
    assert capsys.readouterr().err.count("that are not the published market-") == 3
    assert not (tmp_path / "data").exists()


def test_the_published_tables_have_the_known_checksums(server, shared, tmp_path, monkeypatch) -> None:
    for name in FILES["market1501"]:
        server.pages[f"/{name}"] = servers.whole((shared / "published" / name).read_bytes())
    served_as_the_public_source(monkeypatch, server.url(""))
    record = prepare_published(market(), "m", tmp_path / "data", tmp_path / "out")
    assert record["estimator"] == "table"
    assert len(record["files"]) == 3


def test_four_that_fetch_in_vain_at_once_all_say_why(nobody, tmp_path, monkeypatch) -> None:
    """The folder of one, which is removed because nothing came, is that of the others, too."""
    monkeypatch.setattr(download, "RETRIES", 0)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for turn in range(20):
            folder = tmp_path / f"{turn}" / "data" / "published"
            tries = [pool.submit(fetch, f"{nobody}/{k}", folder / str(k), checksum=None) for k in range(4)]
            for one in tries:
                with pytest.raises(Unreachable, match="no connection"):
                    one.result()
            assert not any(path.is_file() for path in tmp_path.rglob("*"))


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
    record = read_json(tmp_path / "results/tiny/m/published/published.json", "")
    assert record["estimator"] == "openpifpaf"
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
