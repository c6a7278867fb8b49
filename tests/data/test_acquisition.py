"""Archives that `potgan images` fetches from a server on this machine: whole ones, broken transfers, refused and wrong ones.

The archive has Market-1501's layout and images of noise. One test takes 386 real images instead, and is skipped where they do not
lie beside the repository.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import gdown
import pytest
import servers
from test_archives import market
from test_workflow import TINY, snakemake, write

from potgan.common import download
from potgan.common.errors import UserError
from potgan.data.sources import acquisition
from potgan.settings.schema import Dataset

NAME = "Market-1501-v15.09.15.zip"


@pytest.fixture
def archive(tmp_path) -> bytes:
    """An archive of 3 MB. gdown writes pieces of 512 KiB, and a broken transfer must leave more than one piece."""
    filler = {"Market-1501-v15.09.15/gt_bbox/filler.jpg": random.Random(0).randbytes(3_000_000)}
    return market(tmp_path / "made.zip", **filler).read_bytes()


@pytest.fixture
def place(tmp_path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def potgan(place: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "potgan", *map(str, arguments)],
        capture_output=True, text=True, cwd=place, env=os.environ | environment, check=False,
    )  # fmt: skip


def fetch(place: Path, url: str, *more: str, **environment: str) -> subprocess.CompletedProcess:
    return potgan(place, "images", "market1501", "--source", url, "--out", "out", *more, **environment)


def tree(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file in a folder, without the record of its origin."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name != "images.json")
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def everything(folder: Path) -> list[str]:
    return [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*"))]


def one_error(run: subprocess.CompletedProcess) -> str:
    """The error line of a run that has refused its input. There must be exactly one."""
    assert run.returncode == 2, run.stderr
    lines = [line for line in run.stderr.splitlines() if "error:" in line]
    assert len(lines) == 1, run.stderr
    assert "Traceback" not in run.stderr
    return lines[0]


def test_fetched_resumed_and_local_archives_give_identical_trees(server, place, archive, tmp_path) -> None:
    server.pages["/whole/" + NAME] = servers.whole(archive)
    server.pages["/broken/" + NAME] = servers.whole(archive, break_after=[len(archive) // 3, len(archive) // 3])
    server.pages["/busy/" + NAME] = servers.busy(2, servers.whole(archive))
    trees = [tree_of_local(place, tmp_path / "made.zip")]
    for way in ("whole", "broken", "busy"):
        run = fetch(place, server.url(f"/{way}/{NAME}"), POTGAN_DATA=str(place / way))
        assert run.returncode == 0, run.stderr
        trees.append(tree(place / "out"))
        assert (place / way / NAME).read_bytes() == archive
        assert everything(place / way) == [NAME]  # no partial file is left
    assert all(t == trees[0] for t in trees)
    ranges = [wanted for path, wanted in server.requests if path.startswith("/broken/")]
    assert ranges == [None, "bytes=524288-", "bytes=1048576-"]


def tree_of_local(place: Path, source: Path) -> dict[str, str]:
    run = potgan(place, "images", "market1501", "--archive", source, "--out", "out")
    assert run.returncode == 0, run.stderr
    return tree(place / "out")


def test_an_interrupted_fetch_is_continued_by_the_next_run(server, place, archive) -> None:
    server.pages["/" + NAME] = servers.whole(archive, break_after=[1_200_000])
    line = one_error(fetch(place, server.url("/" + NAME), POTGAN_DOWNLOAD_RETRIES="0"))
    assert "the connection broke off" in line
    assert "the first 1,048,576 bytes are kept, and the same command continues" in line
    assert not (place / "out").exists()
    assert not (place / "data" / NAME).exists()
    run = fetch(place, server.url("/" + NAME))
    assert run.returncode == 0, run.stderr
    assert (place / "data" / NAME).read_bytes() == archive
    assert server.requests[-1][1] == "bytes=1048576-"


def test_a_server_without_ranges_is_asked_again_from_the_beginning(server, place, archive) -> None:
    def page(handler, offset):
        sent = archive[:500] if len(server.requests) == 1 else archive
        servers._send(handler, 200, archive, {"Content-Type": "application/zip"}, sent)

    server.pages["/" + NAME] = page
    run = fetch(place, server.url("/" + NAME))
    assert run.returncode == 0, run.stderr
    assert (place / "data" / NAME).read_bytes() == archive


def evil(archive: bytes, name: str, content: bytes = b"x", link: bool = False, compress: bool = False) -> bytes:
    """The archive with one more member."""
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as opened:
        member = zipfile.ZipInfo(name)
        if compress:
            member.compress_type = zipfile.ZIP_DEFLATED
        if link:
            member.external_attr = 0o120777 << 16
        opened.writestr(member, content)
    return buffer.getvalue()


BAD = {
    "truncated": (lambda a: servers.whole(a[:-40]), "is cut off (its table of contents is missing)"),
    "empty": (lambda a: servers.whole(b""), "is empty"),
    "quota": (
        lambda a: servers.answer(
            200,
            b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title></head>"
            b"<body>Sorry, too many users have viewed or downloaded this file recently.</body></html>",
            "text/html",
        ),
        "a quota page (Google Drive - Quota exceeded) in place of",
    ),
    "virus": (
        lambda a: servers.answer(
            200,
            b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head>"
            b"<body>Google Drive can't scan this file for viruses.</body></html>",
            "text/html",
        ),
        "a page that asks whether to go on without a virus scan",
    ),
    "login": (
        lambda a: servers.answer(200, b"\n<html><title>Sign in</title><p>Log in to go on</html>", "text/html"),
        "a sign-in page (Sign in)",
    ),
    "404": (lambda a: servers.answer(404, b"no"), "the server answered 404"),
    "403": (lambda a: servers.answer(403, b"no"), "the server answered 403"),
    "always busy": (lambda a: servers.answer(503, b"no"), "the server answered 503"),
    "climbs": (lambda a: servers.whole(evil(a, "../evil")), "'../evil' climbs out of the archive"),
    "climbs inside": (
        lambda a: servers.whole(evil(a, "Market-1501-v15.09.15/bounding_box_train/../../../x.jpg")),
        "climbs out of the archive",
    ),
    "absolute": (lambda a: servers.whole(evil(a, "/etc/evil")), "'/etc/evil' has an absolute path"),
    "drive letter": (lambda a: servers.whole(evil(a, "C:\\evil")), "has an absolute path"),
    "link": (lambda a: servers.whole(evil(a, "link.jpg", b"/etc/passwd", link=True)), "'link.jpg' is a link"),
    "bomb": (
        lambda a: servers.whole(evil(a, "bomb", bytes(300 * 2**20), compress=True)),
        "claim to unpack to 317,",
    ),
    "image bomb": (
        lambda a: servers.whole(
            evil(a, "bounding_box_train/0002_c1s1_000999_09.jpg", bytes(65 * 2**20), compress=True)
        ),
        "too much for one image",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BAD))
def test_each_bad_archive_is_one_line_exit_code_2_and_leaves_nothing(server, place, archive, case) -> None:
    page, message = BAD[case]
    server.pages["/" + NAME] = page(archive)
    retries = "1" if case == "always busy" else "2"
    line = one_error(fetch(place, server.url("/" + NAME), POTGAN_DOWNLOAD_RETRIES=retries))
    assert message in line
    # An archive that is whole and holds a wrong image stays. The user has fetched it, and gets a message.
    assert everything(place) == (["data", f"data/{NAME}"] if case == "image bomb" else [])


@pytest.mark.parametrize("case", ["truncated", "climbs", "absolute", "link", "bomb"])
def test_the_same_archives_given_as_files_are_refused_and_kept(place, archive, case, server) -> None:
    content: list[bytes] = []
    page = BAD[case][0](archive)
    server.pages["/x"] = page
    import urllib.request

    content.append(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(server.url("/x")).read())
    (place / "bad.zip").write_bytes(content[0])
    line = one_error(potgan(place, "images", "market1501", "--archive", "bad.zip", "--out", "out"))
    assert line.startswith("potgan images: error: bad.zip: ")
    assert BAD[case][1] in line
    assert everything(place) == ["bad.zip"]
    assert (place / "bad.zip").read_bytes() == content[0]


def test_a_wrong_checksum_keeps_nothing_and_a_right_one_passes(server, place, archive) -> None:
    server.pages["/" + NAME] = servers.whole(archive)
    digest = hashlib.sha256(archive).hexdigest()
    line = one_error(fetch(place, server.url("/" + NAME), "--checksum", "sha256:" + "0" * 64))
    assert f"not the published {NAME} (sha256 {digest}, expected {'0' * 64})" in line
    assert everything(place) == []
    assert fetch(place, server.url("/" + NAME), "--checksum", f"sha256:{digest}").returncode == 0
    line = one_error(fetch(place, server.url("/" + NAME), "--checksum", "sha256:123"))
    assert "not of the form sha256:<64 hexadecimal digits>" in line


def test_a_users_file_is_checked_against_the_configurations_checksum(place, archive, tmp_path) -> None:
    run = potgan(place, "images", "market1501", "--archive", tmp_path / "made.zip", "--out", "out",
                 "--checksum", "md5:" + "1" * 32)  # fmt: skip
    assert "is not the file of the configuration's checksum" in one_error(run)
    assert everything(place) == []


def test_only_an_earlier_unpacking_is_replaced_and_nobodys_files(place, archive, tmp_path) -> None:
    (place / "out").mkdir()
    (place / "out" / "thesis.txt").write_text("years of work")
    command = ("images", "market1501", "--archive", tmp_path / "made.zip", "--out", "out")
    line = one_error(potgan(place, *command))
    assert "out: holds thesis.txt, which unpacking did not write and would remove; name a new folder" in line
    assert (place / "out" / "thesis.txt").read_text() == "years of work"
    (place / "out" / "thesis.txt").unlink()
    for _ in range(2):  # an empty folder, then what the first run wrote
        assert potgan(place, *command).returncode == 0
    (place / "out" / "thesis.txt").write_text("years of work")
    one_error(potgan(place, *command))
    assert (place / "out" / "thesis.txt").exists()
    (place / "file").write_text("x")
    assert "is a file" in one_error(potgan(place, *command[:-1], "file"))


def test_without_a_network_the_line_says_what_to_do(place) -> None:
    with socket.socket() as free:  # a port without a server
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/{NAME}"
    line = one_error(fetch(place, url, POTGAN_DOWNLOAD_RETRIES="0"))
    assert f"{url}: cannot be fetched (no connection); put {NAME} or its unpacked folder into data" in line
    assert everything(place) == []


def test_the_second_source_is_tried_where_the_first_is_dead(server, archive, tmp_path, monkeypatch) -> None:
    server.pages["/second.zip"] = servers.whole(archive)
    facts = acquisition.facts_of("market1501") | {
        "sources": [server.url("/first.zip"), server.url("/second.zip")],
        "checksum": f"md5:{hashlib.md5(archive).hexdigest()}",
    }
    monkeypatch.setattr(acquisition, "facts_of", lambda kind: facts)
    found = acquisition.acquire(Dataset("market1501", "M"), "m", tmp_path / "data")
    assert found.origin == server.url("/second.zip")
    assert found.path.read_bytes() == archive
    again = acquisition.acquire(Dataset("market1501", "M"), "m", tmp_path / "data2")
    assert again.path.exists()
    monkeypatch.setitem(facts, "sources", [server.url("/first.zip"), server.url("/third.zip")])
    with pytest.raises(UserError, match="none of 2 sources gives it"):
        acquisition.acquire(Dataset("market1501", "M"), "m", tmp_path / "data3")
    assert not (tmp_path / "data3").exists()


def test_the_data_folder_is_looked_through_before_anything_is_fetched(tmp_path) -> None:
    data = tmp_path / "data"
    (data / "Market-1501").mkdir(parents=True)
    assert acquisition.locate(Dataset("market1501", "M"), "m", data).path == data / "Market-1501"
    (data / NAME).write_bytes(b"")
    assert acquisition.locate(Dataset("market1501", "M"), "m", data).path == data / NAME  # the archive comes first
    with pytest.raises(UserError, match=r"gone\.zip: missing; put"):
        acquisition.locate(Dataset("market1501", "M", source="gone.zip"), "m", data)


def test_duke_is_never_fetched_by_default_and_deepfashion_not_without_its_password(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("POTGAN_DEEPFASHION_PASSWORD", raising=False)
    monkeypatch.delenv("POTGAN_DEEPFASHION_PASSWORD_FILE", raising=False)
    assert acquisition.facts_of("dukemtmc")["sources"] == []
    assert "withdrawn by Duke University" in acquisition.why_absent(Dataset("dukemtmc", "D"), "d", tmp_path)
    assert acquisition.why_absent(Dataset("dukemtmc", "D", source="http://127.0.0.1/x.zip"), "d", tmp_path) == ""
    assert "is encrypted" in acquisition.why_absent(Dataset("deepfashion", "F"), "f", tmp_path)
    monkeypatch.setenv("POTGAN_DEEPFASHION_PASSWORD", "secret")
    assert acquisition.why_absent(Dataset("deepfashion", "F"), "f", tmp_path) == ""
    assert acquisition.why_absent(Dataset("market1501", "M"), "m", tmp_path) == ""


def test_google_drive_addresses(monkeypatch, tmp_path) -> None:
    """No test can reach Google, so this checks what gdown is asked for, and the messages about what it refuses."""
    asked = []

    class File:
        def __init__(self, identifier: str, path: str) -> None:
            self.id, self.path = identifier, path

    def listing(**arguments):
        asked.append(arguments["id"])
        return [File("a", "Anno/list.txt"), File("b", "Img/img.zip"), File("c", "Img/img_highres.zip")]

    def transfer(url, output, **_):
        asked.append(url)
        Path(output).write_bytes(b"PK\x03\x04")

    monkeypatch.setattr(gdown, "download_folder", listing)
    monkeypatch.setattr(gdown, "download", transfer)
    download.fetch("drive:FOLDER/img.zip", tmp_path / "img.zip", checksum=None)
    assert asked == ["FOLDER", "https://drive.google.com/uc?id=b"]
    download.fetch("drive:FILE", tmp_path / "one.zip", checksum=None)
    assert asked[-1] == "https://drive.google.com/uc?id=FILE"
    with pytest.raises(UserError, match=r"its folder FOLDER holds 0 files other\.zip"):
        download.fetch("drive:FOLDER/other.zip", tmp_path / "other.zip", checksum=None)

    def refuse(*_, **__):
        raise gdown.exceptions.FileURLRetrievalError("Too many users\nhave viewed this file")

    monkeypatch.setattr(gdown, "download", refuse)
    with pytest.raises(UserError, match="Google Drive gives no file: Too many users have viewed this file"):
        download.fetch("drive:FILE", tmp_path / "two.zip", checksum=None)
    assert not (tmp_path / "two.zip").exists()


def test_a_fetch_killed_at_random_moments_leaves_nothing_that_is_taken_for_complete(server, place, archive) -> None:
    """SIGKILL comes five times while the bytes arrive slowly. The next run then has exactly the archive and its images."""

    def slow(handler, offset):
        start = offset or 0
        handler.send_response(200 if offset is None else 206)
        if offset is not None:
            handler.send_header("Content-Range", f"bytes {start}-{len(archive) - 1}/{len(archive)}")
        handler.send_header("Content-Length", str(len(archive) - start))
        handler.send_header("Content-Type", "application/zip")
        handler.end_headers()
        try:
            for at in range(start, len(archive), 40_000):
                handler.wfile.write(archive[at : at + 40_000])
                handler.wfile.flush()
                time.sleep(0.02)
        except OSError:  # the client was killed
            handler.close_connection = True

    server.pages["/slow/" + NAME] = slow
    command = [sys.executable, "-m", "potgan", "images", "market1501", "--source", server.url("/slow/" + NAME),
               "--out", "out"]  # fmt: skip
    chance = random.Random(7)
    for _ in range(5):
        running = subprocess.Popen(command, cwd=place, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.3, 1.6))
        running.send_signal(signal.SIGKILL)
        running.wait()
        if (place / "data" / NAME).exists():
            assert (place / "data" / NAME).read_bytes() == archive
        if (place / "out").exists():
            assert (place / "out" / "images.csv").exists()
    server.pages["/slow/" + NAME] = servers.whole(archive)
    run = fetch(place, server.url("/slow/" + NAME))
    assert run.returncode == 0, run.stderr
    fetched = tree(place / "out")
    assert (place / "data" / NAME).read_bytes() == archive
    (place / "made.zip").write_bytes(archive)
    assert tree_of_local(place, Path("made.zip")) == fetched
    assert everything(place / "data") == [NAME]
    assert not list(place.glob(".out*"))


@pytest.mark.slow
def test_the_rule_fetches_refuses_and_resumes_as_the_verb_does(repository, server, place, archive) -> None:
    """Snakemake prints the line about a refused archive, the log holds it, and no result is left."""
    target = "results/tiny/m/images/images.csv"

    def run(way: str, page, **changes: str) -> subprocess.CompletedProcess:
        server.pages[f"/{way}/{NAME}"] = page
        dataset = {"kind": "market1501", "label": "M", "source": server.url(f"/{way}/{NAME}"), "allow_partial": True}
        dataset["keypoints"] = {"estimator": "openpifpaf"}  # no table is looked for
        write(place, TINY | {"datasets": {"m": dataset | changes}})
        shutil.rmtree(place / "data", ignore_errors=True)
        return snakemake(repository, place, target=target)

    for way, (page, changes, message) in {
        "checksum": (servers.whole(archive), {"checksum": "sha256:" + "0" * 64}, "not the published"),
        "truncated": (BAD["truncated"][0](archive), {}, BAD["truncated"][1]),
        "html": (BAD["quota"][0](archive), {}, BAD["quota"][1]),
        "404": (BAD["404"][0](archive), {}, BAD["404"][1]),
        "climbs": (BAD["climbs"][0](archive), {}, BAD["climbs"][1]),
    }.items():
        failed = run(way, page, **changes)
        assert failed.returncode == 1, failed.stderr  # Snakemake's own code; the job's is 2
        log = (place / "results/tiny/logs/images/m.log").read_text()
        assert message in log
        assert next(line for line in log.splitlines() if "error:" in line) in failed.stdout + failed.stderr
        assert not (place / "results/tiny/m").exists() or everything(place / "results/tiny/m") == []
        assert not (place / "data").exists()

    whole = run("whole", servers.whole(archive))
    assert whole.returncode == 0, whole.stderr
    wanted = tree(place / "results/tiny/m/images")
    shutil.rmtree(place / "results")
    resumed = run("resumed", servers.whole(archive, break_after=[1_200_000]))
    assert resumed.returncode == 0, resumed.stderr
    assert tree(place / "results/tiny/m/images") == wanted
    assert "Nothing to be done" in snakemake(repository, place, target=target).stderr


def test_the_real_sample_through_http_equals_the_file(server, place, shared) -> None:
    sample = shared / "market1501-sample" / "Market-1501-sample.zip"
    server.pages["/Market-1501-sample.zip"] = servers.whole(sample.read_bytes(), break_after=[1_000_000])
    run = fetch(place, server.url("/Market-1501-sample.zip"))
    assert run.returncode == 0, run.stderr
    assert "187 train and 199 test images; a part of the published data set" in run.stderr
    fetched = tree(place / "out")
    assert len(fetched) == 387
    assert tree_of_local(place, sample) == fetched


def test_passwords_come_from_the_environment_or_a_file_only(tmp_path, monkeypatch) -> None:
    from potgan.data.sources.archives import facts_of, password_of

    facts = facts_of("deepfashion")
    for variable in ("POTGAN_DEEPFASHION_PASSWORD", "POTGAN_DEEPFASHION_PASSWORD_FILE"):
        monkeypatch.delenv(variable, raising=False)
    assert password_of(facts, tmp_path) is None
    (tmp_path / "img.zip.password").write_text("from the data folder\n")
    assert password_of(facts, tmp_path) == b"from the data folder"
    (tmp_path / "elsewhere").write_text("from a file\n")
    monkeypatch.setenv("POTGAN_DEEPFASHION_PASSWORD_FILE", str(tmp_path / "elsewhere"))
    assert password_of(facts, tmp_path) == b"from a file"
    monkeypatch.setenv("POTGAN_DEEPFASHION_PASSWORD", "from the environment")
    assert password_of(facts, tmp_path) == b"from the environment"
    monkeypatch.delenv("POTGAN_DEEPFASHION_PASSWORD")
    monkeypatch.setenv("POTGAN_DEEPFASHION_PASSWORD_FILE", "nowhere")
    with pytest.raises(UserError, match="names nowhere, which is not there"):
        password_of(facts, tmp_path)
