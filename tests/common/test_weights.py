"""Weight files that are present, absent, wrong, or a web page. A server on this machine sends them. About 3 s."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import socket
import stat
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from potgan.common import weights
from potgan.common.errors import UserError
from potgan.common.weights import WEIGHTS, weight_file

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def server(monkeypatch):
    """Serves `answers`: path -> (status, body, announced length); counts the requests."""

    class Handler(BaseHTTPRequestHandler):
        answers: ClassVar[dict] = {}
        requests: ClassVar[list] = []

        def do_GET(self):
            self.requests.append(self.path)
            status, body, length = self.answers[self.path]
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    Handler.answers, Handler.requests = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    _publish(monkeypatch, f"http://127.0.0.1:{server.server_port}/weights.pth")
    yield Handler
    server.shutdown()
    thread.join()
    server.server_close()


def _publish(monkeypatch, url: str) -> None:
    """Let `vgg16` be a small file that `url` serves."""
    entry = dataclasses.replace(
        WEIGHTS["vgg16"], url=url, sha256=hashlib.sha256(CONTENT).hexdigest(), size=len(CONTENT)
    )
    monkeypatch.setitem(weights.WEIGHTS, "vgg16", entry)


def _message(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_an_absent_file_is_fetched_once(server, tmp_path, capsys):
    server.answers["/weights.pth"] = (200, CONTENT, len(CONTENT))
    folder = tmp_path / "not" / "yet"
    path = weight_file("vgg16", folder)
    assert path == folder / "vgg16-397923af.pth"
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert weight_file("vgg16", folder) == path
    assert server.requests == ["/weights.pth"]
    assert list(folder.iterdir()) == [path]
    assert capsys.readouterr().err == ""  # no terminal, no bar


def test_a_file_in_place_needs_no_network(monkeypatch, tmp_path):
    _publish(monkeypatch, "http://127.0.0.1:9/unused")
    path = tmp_path / WEIGHTS["vgg16"].file_name
    path.write_bytes(CONTENT)
    assert weight_file("vgg16", tmp_path) == path
    monkeypatch.setenv("POTGAN_WEIGHTS", str(tmp_path))
    assert weight_file("vgg16") == path


def test_a_wrong_file_in_place_is_named_and_left_alone(server, tmp_path):
    server.answers["/weights.pth"] = (200, CONTENT, len(CONTENT))
    path = tmp_path / WEIGHTS["vgg16"].file_name
    path.write_bytes(b"something else")
    message = _message(lambda: weight_file("vgg16", tmp_path))
    assert message.startswith(f"{path}: is not the published file")
    assert hashlib.sha256(b"something else").hexdigest() in message
    assert hashlib.sha256(CONTENT).hexdigest() in message
    assert "move it away" in message
    assert path.read_bytes() == b"something else"
    assert server.requests == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (CONTENT[:-1] + b"?", "sent 102,400 bytes that are not the published"),
        (CONTENT[:-1], "sent 102,399 bytes, and"),
        (b"\n<!DOCTYPE html><p>Sign in", "sent a sign-in page in place of"),
    ],
)
def test_a_wrong_download_is_thrown_away(server, tmp_path, body, said):
    server.answers["/weights.pth"] = (200, body, len(body))
    message = _message(lambda: weight_file("vgg16", tmp_path))
    assert said in message
    assert str(tmp_path / WEIGHTS["vgg16"].file_name) in message
    assert list(tmp_path.iterdir()) == []


def test_a_transfer_that_breaks_off_leaves_nothing(server, tmp_path):
    server.answers["/weights.pth"] = (200, CONTENT[:1000], len(CONTENT))
    assert "put it at" in _message(lambda: weight_file("vgg16", tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_page_is_named_by_its_status(server, tmp_path):
    server.answers["/weights.pth"] = (404, b"", 0)
    message = _message(lambda: weight_file("vgg16", tmp_path))
    assert "the server answered 404" in message
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_message_says_what_to_put_where(monkeypatch, tmp_path):
    with socket.socket() as free:  # a port without a server
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/weights.pth"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    _publish(monkeypatch, url)
    message = _message(lambda: weight_file("vgg16", tmp_path))
    assert message.startswith(f"{url}: cannot be fetched (no connection)")
    assert f"put it at {tmp_path / WEIGHTS['vgg16'].file_name}" in message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    message = _message(lambda: weight_file("vgg16", tmp_path / "file" / "weights"))
    assert "set POTGAN_WEIGHTS" in message


def test_an_unknown_name_is_a_user_error(tmp_path):
    assert "there are vgg16, vgg19, alexnet, inception-2015-12-05" in _message(lambda: weight_file("vgg11", tmp_path))


def test_the_default_folder_is_data_weights(monkeypatch, tmp_path):
    _publish(monkeypatch, "http://127.0.0.1:9/unused")
    monkeypatch.delenv("POTGAN_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data" / "weights" / WEIGHTS["vgg16"].file_name
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert weight_file("vgg16").resolve() == path.resolve()


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_the_published_names_carry_the_first_digits_of_their_hash(name):
    # By torch.hub's convention a file is named `<name>-<first 8 digits of its SHA-256>.pth`, which must fit the table's SHA-256.
    weights = WEIGHTS[name]
    assert re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{8}", weights.sha256)
    assert re.search(rf"-{weights.sha256[:8]}\.(pth|pkl)$", weights.file_name)
    assert weights.url.startswith("https://")
    assert weights.url.endswith(f"/{weights.file_name}")
