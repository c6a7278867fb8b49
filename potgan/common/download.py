"""Fetching one published file over HTTP(S) or from Google Drive: a broken transfer is continued, and the file is checked.

gdown does the transfer itself (byte ranges, `If-Range`, back-off, Google's confirmation page). This module makes it safe for a run
that nobody watches: the file appears under its name only after its size and checksum have been found right, a web page that was
sent in its place is recognised and named, and every failure is one line.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from potgan.common.errors import UserError
from potgan.common.progress import TransferProgress

#: Attempts after the first one, where the connection breaks or the server is busy. The waits between them grow to 30 s at most.
RETRIES = int(os.environ.get("POTGAN_DOWNLOAD_RETRIES", "5"))
TIMEOUT = (10.0, 60.0)  # seconds to wait for a connection, and for the next piece of an answer
_BUSY = (429, 500, 502, 503, 504)
_ATTEMPTS_TO_LOCK = 100
_NO_RANGES = "the connection broke off, and the server cannot continue a broken transfer"
_ALGORITHMS = {"md5": 32, "sha1": 40, "sha256": 64}


class Unreachable(UserError):
    """A server gave no answer, so that its other files need not be asked for now."""


class Unwritable(UserError):
    """A file cannot be written, whoever would send it."""


def is_address(source: str) -> bool:
    """Whether `source` is fetched: http(s)://..., drive:<file id> or drive:<folder id>/<path in the folder>."""
    return source.startswith(("http://", "https://", "drive:"))


def file_name_of(address: str) -> str | None:
    """The file name at the end of an address; None where the address holds no name (drive:<file id>)."""
    if address.startswith("drive:"):
        return address.rsplit("/", 1)[1] if "/" in address else None
    path = re.sub(r"^https?://[^/]*", "", address.split("?", 1)[0].split("#", 1)[0])
    return path.rsplit("/", 1)[-1] or None


def check_checksum_text(text: str, where: str) -> tuple[str, str]:
    """("md5", "65005a...") of "md5:65005a...". Raises UserError, which names `where`, for text of another form.

    "sha256-prefix:7189450a" stands for the first digits of a checksum. The names of torch.hub's files publish no more of it.
    """
    algorithm, _, digest = text.lower().partition(":")
    wanted = r"[0-9a-f]{8,63}" if algorithm == "sha256-prefix" else rf"[0-9a-f]{{{_ALGORITHMS.get(algorithm, 0)}}}"
    if not digest or not re.fullmatch(wanted, digest):
        raise UserError(
            f"{where}: checksum {text!r} is not of the form sha256:<64 hexadecimal digits> (or md5:, sha1:)"
        )
    return algorithm.removesuffix("-prefix"), digest


def digest_of(path: Path, algorithm: str) -> str:
    """The checksum of a file in hexadecimal digits. algorithm: md5, sha1 or sha256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def fetch(address: str, path: Path, *, checksum: str | None, size: int | None = None, by_hand: str = "") -> None:
    """Fetch `address` to `path`. A transfer that broke off, now or in an earlier run, continues where it stopped.

    checksum: "<md5|sha1|sha256>:<hexadecimal digits>", or None where none is published. size: bytes, or None where unknown.
    by_hand: what a person can do instead, the end of every message.

    Raises UserError where the file cannot be fetched. The bytes that came are then kept beside `path` as `<name>........part`,
    and the next call continues. Raises UserError also where what came is not the published file; it is then thrown away. With
    $POTGAN_NO_DOWNLOAD nothing is fetched, and UserError is raised at once.
    """
    if os.environ.get("POTGAN_NO_DOWNLOAD") and not path.exists():
        raise UserError(f"{path}: missing, and nothing is fetched (--no-download){f'; {by_hand}' if by_hand else ''}")
    if checksum is not None:
        check_checksum_text(checksum, address)
    hint = f"; {by_hand}" if by_hand else ""
    try:
        with _one_at_a_time(path.parent):
            if not path.exists():
                _fetch(address, path, checksum, size, hint)
    except OSError as error:
        raise Unwritable(f"{path}: cannot be written ({error.strerror or error}){hint}") from None


def _fetch(address: str, path: Path, checksum: str | None, size: int | None, hint: str) -> None:
    arrived = path.with_name(f".{path.name}.arrived")
    arrived.unlink(missing_ok=True)
    _transfer(address, arrived, size, hint)
    try:
        found = arrived.stat().st_size
        page = web_page(arrived)
        if page:
            raise UserError(f"{address}: sent {page} in place of {path.name}; nothing kept{hint}")
        if size is not None and found != size:
            raise UserError(f"{address}: sent {found:,} bytes, and {path.name} has {size:,}; nothing kept{hint}")
        if checksum is not None:
            algorithm, expected = check_checksum_text(checksum, address)
            digest = digest_of(arrived, algorithm)
            if not digest.startswith(expected):
                raise UserError(
                    f"{address}: sent {found:,} bytes that are not the published {path.name} "
                    f"({algorithm} {digest}, expected {expected}); nothing kept{hint}"
                )
        arrived.chmod(0o644)
        arrived.replace(path)
    finally:
        arrived.unlink(missing_ok=True)


def _transfer(address: str, arrived: Path, size: int | None, hint: str) -> None:
    # Imported here, because most of the package must run where gdown is not installed, and because this takes a tenth of a second.
    import gdown
    import requests
    import tenacity

    def busy(error: BaseException) -> bool:
        return isinstance(error, requests.exceptions.HTTPError) and error.response.status_code in _BUSY

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(busy),
        stop=tenacity.stop_after_attempt(RETRIES + 1),
        wait=tenacity.wait_random_exponential(max=30),
        reraise=True,
    )
    name = arrived.name.removeprefix(".").removesuffix(".arrived")
    for fresh in (False, True):
        try:
            with TransferProgress(name, size) as shown:
                retrying(
                    gdown.download,
                    _url_of(address),
                    str(arrived),
                    quiet=True,
                    use_cookies=address.startswith("drive:"),  # a user who has signed in has larger quotas at Google
                    resume=True,
                    retries=RETRIES,
                    timeout=TIMEOUT,
                    progress=shown.update,
                )
            return
        except gdown.exceptions.FileURLRetrievalError as error:
            reason, keep = f"Google Drive gives no file: {_one_line(error)}", False
        except requests.exceptions.HTTPError as error:
            reason, keep = f"the server answered {error.response.status_code}", False
        except (gdown.exceptions.DownloadError, requests.exceptions.RequestException) as error:
            cause = error.__cause__ if isinstance(error.__cause__, requests.exceptions.RequestException) else error
            reason, keep = _connection(cause), True
        kept = _partial_files(arrived)
        if reason is not _NO_RANGES or fresh or not kept:
            break
        for part in kept:  # the server cannot send the rest alone, so the file is fetched once more from its beginning
            part.unlink()
    got = sum(part.stat().st_size for part in kept)
    if not keep or not got or reason is _NO_RANGES:
        for part in kept:
            part.unlink()
        got = 0
    again = f"; the first {got:,} bytes are kept, and the same command continues" if got else ""
    kind = Unreachable if keep and not got and reason is not _NO_RANGES else UserError
    raise kind(f"{address}: cannot be fetched ({reason}){again}{hint}")


def _url_of(address: str) -> str:
    """The URL of an address: that of the file for drive:<file id> and drive:<folder id>/<path>, and else the address itself."""
    import gdown

    if not address.startswith("drive:"):
        return address
    identifier, _, inside = address.removeprefix("drive:").partition("/")
    if inside:
        listing = gdown.download_folder(id=identifier, quiet=True, skip_download=True, timeout=TIMEOUT)
        found = [file for file in listing if file.path == inside or file.path.endswith(f"/{inside}")]
        if len(found) != 1:
            raise gdown.exceptions.FileURLRetrievalError(f"its folder {identifier} holds {len(found)} files {inside}")
        identifier = found[0].id
    return f"https://drive.google.com/uc?id={identifier}"


def _partial_files(arrived: Path) -> list[Path]:
    """gdown's partial files of this name, which have 8 random characters between the name and `.part`."""
    wanted = re.compile(re.escape(arrived.name) + r".{8}\.part")
    return [part for part in sorted(arrived.parent.iterdir()) if wanted.fullmatch(part.name)]


def _connection(error: Exception) -> str:
    """A few words about why a connection failed."""
    import requests

    if isinstance(error, requests.exceptions.Timeout):
        return "the server did not answer in time"
    text = _one_line(error)
    if "incomplete" in text or isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if "byte range" in text:
        return _NO_RANGES
    return "no connection" if isinstance(error, requests.exceptions.ConnectionError) else text[:160]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def web_page(path: Path) -> str:
    """What kind of web page a file is, such as "a quota page (Google Drive - Quota exceeded)"; "" where it is none."""
    with open(path, "rb") as file:
        start = file.read(200_000)
    if not start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return ""
    text = start.decode("utf-8", "replace")
    title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
    plain = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    kinds = {
        "a quota page": r"quota exceeded|too many users have viewed",
        "a page that asks whether to go on without a virus scan": r"can.?t scan .{0,60}for viruses|virus scan warning",
        "a sign-in page": r"sign in|log ?in|accounts\.google",
    }
    kind = next((name for name, pattern in kinds.items() if re.search(pattern, plain, re.IGNORECASE)), "a web page")
    named = " ".join(title[1].split())[:80] if title else ""
    return f"{kind} ({named})" if named else kind


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Only one process at a time runs this block for a folder. A second one waits, and then finds what the first has fetched.

    The folder is made. Where the block has put nothing into it, the folders that were made are removed again.
    """
    made: set[Path] = set()
    for attempt in itertools.count():
        try:
            made |= {parent for parent in (folder, *folder.parents) if not parent.exists()}
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder, os.O_RDONLY)
        except (FileNotFoundError, FileExistsError):  # another process, which fetched nothing, has just removed it
            if attempt == _ATTEMPTS_TO_LOCK:
                raise
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not (folder.is_dir() and os.path.samestat(os.fstat(handle), folder.stat())):
                continue  # removed by the one that had it before
            try:
                yield
            finally:
                with contextlib.suppress(OSError):  # those that are not empty, or that another process works in, stay
                    for parent in sorted(made, reverse=True):
                        _remove_unless_locked(parent, by_us=parent == folder)
            return
        finally:
            os.close(handle)


def _remove_unless_locked(folder: Path, by_us: bool) -> None:
    """Remove an empty folder. Raises OSError where it is not empty, and where another process has its lock.

    by_us: whether this process has its lock.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        if not by_us:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder.rmdir()
    finally:
        os.close(handle)
