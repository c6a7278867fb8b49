"""A web server on this machine that serves, breaks off, refuses and lies, for tests of what is fetched."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """pages: path -> what answers it, a function of (handler, offset of the wanted range, or None).

    requests: (path, Range header or None) of every request, in order.
    """

    def __init__(self) -> None:
        self.pages: dict[str, Callable] = {}
        self.requests: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append((self.path, self.headers.get("Range")))
                wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
                page = outer.pages.get(self.path, answer(404, b"not here"))
                page(self, int(wanted[1]) if wanted else None)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


def answer(status: int, body: bytes, kind: str = "application/zip") -> Callable:
    """The same answer to every request, whatever range it wants."""

    def page(handler: BaseHTTPRequestHandler, _: int | None) -> None:
        _send(handler, status, body, {"Content-Type": kind})

    return page


def whole(body: bytes, break_after: list[int] | None = None) -> Callable:
    """A file, with byte ranges. break_after: bytes sent before the connection closes, for the first requests."""
    breaks = list(break_after or [])

    def page(handler: BaseHTTPRequestHandler, offset: int | None) -> None:
        start = offset or 0
        part = body[start:]
        headers = {"ETag": '"1"', "Accept-Ranges": "bytes", "Content-Type": "application/zip"}
        if offset is not None:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        sent = part[: breaks.pop(0)] if breaks else part
        _send(handler, 200 if offset is None else 206, part, headers, sent)
        if len(sent) < len(part):
            handler.close_connection = True

    return page


def busy(times: int, then: Callable) -> Callable:
    """503 for the first requests, then another page."""
    left = [times]

    def page(handler: BaseHTTPRequestHandler, offset: int | None) -> None:
        if left[0]:
            left[0] -= 1
            _send(handler, 503, b"busy", {})
        else:
            then(handler, offset)

    return page


def _send(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], sent: bytes | None = None
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body if sent is None else sent)
    handler.wfile.flush()
