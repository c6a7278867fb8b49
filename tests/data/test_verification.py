"""`potgan verify`: its four states, and what it says about differences. The facts are changed to fit small archives."""

import json
import zipfile
from pathlib import Path

import pytest
from test_acquisition import potgan
from test_archives import FASHION, TEST, TRAIN, jpeg, market
from test_imitations import encrypt

from potgan.data import images
from potgan.data.sources import archives, verification
from potgan.settings.schema import Dataset


@pytest.fixture
def facts(monkeypatch) -> dict:
    """The facts about Market-1501, changed as if its images were the six that this test makes."""
    sheet = archives.facts_of("market1501") | {
        "checksum": None,
        "counts": {"train": 3, "test": 3},
        "identities": {"train": 2, "test": 1},
        "names_sha256": {"train": verification.names_digest(TRAIN), "test": verification.names_digest(TEST)},
    }
    monkeypatch.setattr(verification, "facts_of", lambda kind: sheet)
    return sheet


def verify(source: Path, **more: object) -> verification.Verification:
    return verification.verify(Dataset("market1501", "M", source=str(source)), "m", source.parent / "data", **more)


def test_the_published_set_is_ok(tmp_path, facts) -> None:
    answer = verify(market(tmp_path / "m.zip"))
    assert answer.state == "ok"
    assert answer.differences == []
    assert "train: 3 of 3 images, 2 of 2 people" in answer.facts
    assert "test: the names are the published ones" in answer.facts
    assert "all images are 128 x 64" in answer.facts


def test_a_missing_image_is_partial_and_named(tmp_path, facts) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(TRAIN + TEST) + "\n")
    with zipfile.ZipFile(market(tmp_path / "whole.zip")) as whole, zipfile.ZipFile(tmp_path / "m.zip", "w") as part:
        for member in whole.infolist():
            if not member.filename.endswith(TRAIN[1]):
                part.writestr(member, whole.read(member))
    answer = verify(tmp_path / "m.zip", names=[names])
    assert answer.state == "partial"
    assert "train: 2 of 3 images, 2 of 2 people" in answer.differences
    assert answer.listings["missing"] == [TRAIN[1]]
    assert "allow_partial" in answer.next_step


def test_as_many_images_under_other_names_are_another_version(tmp_path, facts) -> None:
    facts["names_sha256"]["train"] = verification.names_digest([*TRAIN[:2], "0008_c1s1_000001_01.jpg"])
    answer = verify(market(tmp_path / "m.zip"))
    assert answer.state == "wrong version"
    assert any("as many images as published, but other names" in d for d in answer.differences)


def test_too_many_images_other_sizes_and_broken_ones(tmp_path, facts) -> None:
    extra = {"Market-1501-v15.09.15/bounding_box_train/0011_c1s1_000001_01.jpg": jpeg(1, (256, 128))}
    answer = verify(market(tmp_path / "a.zip", **extra))
    assert answer.state == "wrong version"
    assert "train: 4 of 3 images, 3 of 2 people" in answer.differences
    assert "1 images are not 128 x 64; most of them 256 x 128 (1)" in answer.differences
    broken = {"Market-1501-v15.09.15/bounding_box_train/0011_c1s1_000001_01.jpg": jpeg(1)[:60]}
    answer = verify(market(tmp_path / "b.zip", **broken))
    assert answer.listings["cannot be decoded"] == ["0011_c1s1_000001_01.jpg"]


def test_per_file_hashes_of_an_earlier_run_find_a_changed_image(tmp_path, facts) -> None:
    source = market(tmp_path / "m.zip")
    dataset = Dataset("market1501", "M", source=str(source), allow_partial=True)
    images.prepare_images(dataset, "m", tmp_path / "images", tmp_path / "data")
    manifest = tmp_path / "images" / "images.csv"
    answer = verify(source, names=[manifest])
    assert answer.state == "ok"
    assert "the content of all 6 images is as the table says" in answer.facts
    folder = tmp_path / "copy"
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)
    (folder / "Market-1501-v15.09.15" / "bounding_box_test" / TEST[2]).write_bytes(jpeg(99))
    answer = verify(folder, names=[manifest], quick=True)
    assert answer.state == "wrong version"
    assert answer.listings["other content"] == [TEST[2]]


@pytest.mark.parametrize(
    ("content", "state", "said"),
    [
        (b"<!DOCTYPE html><title>Sign in</title>", "absent", "a sign-in page (Sign in) that was saved in place"),
        (b"", "absent", "is empty"),
        (b"PK\x03\x04 cut", "wrong version", "is cut off"),
    ],
)
def test_files_that_are_no_archive(tmp_path, facts, content, state, said) -> None:
    (tmp_path / "m.zip").write_bytes(content)
    answer = verify(tmp_path / "m.zip")
    assert answer.state == state
    assert said in answer.differences[0]
    assert answer.next_step


def test_deepfashion_without_its_lists_is_counted_and_asks_for_them(tmp_path) -> None:
    for i, tree in enumerate(FASHION):
        path = tmp_path / "source" / "img" / tree
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(i, (256, 256)))
    dataset = Dataset("deepfashion", "D", source=str(tmp_path / "source" / "img"))
    answer = verification.verify(dataset, "d", tmp_path / "data")
    assert answer.state == "partial"
    assert "2 of 52,712 images" in answer.differences[0]
    assert "PATN's train.lst" in answer.next_step
    for split, name in zip(("train", "test"), FASHION.values(), strict=True):  # found beside the images
        (tmp_path / "source" / f"{split}.lst").write_text(name + "\n")
    answer = verification.verify(dataset, "d", tmp_path / "data")
    assert "train: 1 of 48,674 images, 1 of 12,029 people" in answer.differences
    assert "all images are 256 x 256" in answer.facts


@pytest.mark.parametrize(
    ("password", "differences", "next_step"),
    [
        (
            None,
            ["is encrypted"],
            "put its password into the environment variable POTGAN_DEEPFASHION_PASSWORD or into a file",
        ),
        (b"a guess", ["the password does not open it"], "put its password into the environment variable POTGAN_DEEPF"),
        (b"an agreement", [], None),
    ],
)
def test_an_encrypted_archive_asks_for_its_password_and_is_no_wrong_version(
    tmp_path, monkeypatch, password, differences, next_step
) -> None:
    with zipfile.ZipFile(tmp_path / "plain.zip", "w") as archive:
        for i, tree in enumerate(FASHION):
            archive.writestr(f"img/{tree}", jpeg(i, (256, 256)))
    encrypt(tmp_path / "plain.zip", tmp_path / "img.zip", b"an agreement")
    for split, name in zip(("train", "test"), FASHION.values(), strict=True):
        (tmp_path / f"{split}.lst").write_text(name + "\n")
    monkeypatch.setattr(verification, "password_of", lambda facts, data: password)
    answer = verification.verify(Dataset("deepfashion", "D", source=str(tmp_path / "img.zip")), "d", tmp_path)
    assert answer.state == ("encrypted" if differences else "partial")
    assert [d for d in answer.differences if "password" in d or "encrypted" in d] == differences
    assert next_step is None or answer.next_step.startswith(next_step)


@pytest.mark.parametrize("password", [None, b"the right one"])
def test_an_archive_that_zipfile_cannot_decrypt_is_for_7_zip(tmp_path, monkeypatch, password) -> None:
    """WinZip's AES: method 99 and bit 0 of the flags, in the member's header and in the table of contents (APPNOTE 4.4)."""
    content = bytearray(market(tmp_path / "m.zip").read_bytes())
    for magic, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(magic)
        while start >= 0:
            content[start + flags] |= 1
            content[start + flags + 2 : start + flags + 4] = (99).to_bytes(2, "little")
            start = content.find(magic, start + 1)
    (tmp_path / "m.zip").write_bytes(content)
    monkeypatch.setattr(verification, "password_of", lambda facts, data: password)
    answer = verify(tmp_path / "m.zip")
    assert answer.state == "encrypted"
    assert answer.differences[-1] == "is encrypted with AES, which Python's zipfile does not know"
    assert answer.next_step == "unpack the archive with 7-Zip and its password, and name the folder as the source"


def test_absent_names_the_one_next_step(tmp_path) -> None:
    answer = verification.verify(Dataset("dukemtmc", "D"), "dukemtmc", tmp_path)
    assert answer.state == "absent"
    assert "withdrawn" in answer.next_step
    (tmp_path / "empty").mkdir()
    answer = verify(tmp_path / "empty")
    assert answer.state == "absent"
    assert "holds no image of Market-1501" in answer.differences[0]


def test_the_verb_prints_the_answer_and_exits_with_2_unless_ok(tmp_path) -> None:
    market(tmp_path / "m.zip")
    run = potgan(tmp_path, "verify", "market1501", "--source", "m.zip", "--out", "answer.json")
    assert run.returncode == 2
    assert run.stdout.startswith("market1501: partial (m.zip)\n")
    assert "  ! train: 3 of 12,936 images, 2 of 751 people\n" in run.stdout
    assert json.loads((tmp_path / "answer.json").read_text())["state"] == "partial"


def test_the_published_names_have_the_digests_of_the_fact_sheets(shared) -> None:
    """The repository holds the SHA-256 of the names. The lists are the authors' own; without them the test is skipped."""
    for kind, names_of in (
        ("market1501", lambda s: [line.split(":")[0] for line in
                                  (shared / f"published/market-annotation-{s}.csv").read_text().splitlines()[1:]]),
        ("deepfashion", lambda s: (shared / f"published/fashion-{s}.lst").read_text().split()),
    ):  # fmt: skip
        for split in ("train", "test"):
            assert verification.names_digest(names_of(split)) == archives.facts_of(kind)["names_sha256"][split]
