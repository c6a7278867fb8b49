"""Weight files of pretrained networks, known by their SHA-256.

A file that the user has put in place is used as it is. One that is absent is fetched once. Where there is no network,
the message says what to put where.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from potgan.errors import UserError
from potgan.files import sha256_of


@dataclass(frozen=True)
class WeightFile:
    """One published file. size: bytes."""

    file_name: str
    url: str
    sha256: str
    size: int


WEIGHTS = {
    # torchvision's VGG16_Weights.IMAGENET1K_V1: the perceptual loss (Eq. 6).
    "vgg16": WeightFile(
        file_name="vgg16-397923af.pth",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        size=553_433_881,
    ),
    # pytorch-fid's port of TensorFlow's inception-2015-12-05: IS and FID (PROTOCOLS 5.3 and 5.4).
    "inception-2015-12-05": WeightFile(
        file_name="pt_inception-2015-12-05-6726825d.pth",
        url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        size=95_628_359,
    ),
}


def weight_file(name: str, folder: Path | None = None) -> Path:
    """Path of the weight file `name` (a key of WEIGHTS), checked by SHA-256; fetched first where it is absent.

    folder: where it lies or is to lie; None: the environment variable POTGAN_WEIGHTS, or else data/weights.

    Raises UserError where a file that is there is not the published one (it is left as it is), where what was fetched
    is not (it is thrown away), and where nothing can be fetched.
    """
    if name not in WEIGHTS:
        raise UserError(f"no weight file is known as {name!r}; there are {', '.join(WEIGHTS)}")
    weights = WEIGHTS[name]
    folder = Path(folder or os.environ.get("POTGAN_WEIGHTS") or Path("data", "weights"))
    path = folder / weights.file_name
    if not path.exists():
        _fetch(weights, path)
        return path
    found = sha256_of(path)
    if found != weights.sha256:
        raise UserError(
            f"{path}: is not the published file (SHA-256 {found}, expected {weights.sha256}); move it away, "
            f"and it is fetched anew from {weights.url}"
        )
    return path


def _fetch(weights: WeightFile, path: Path) -> None:
    by_hand = f"download {weights.url} on another machine and put it at {path.absolute()}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own, so that two processes that fetch at once do not write into one file.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot be written ({error.strerror}); set POTGAN_WEIGHTS to a folder that can"
        ) from None
    os.close(handle)
    partial = Path(name)
    try:
        _download(weights, partial, by_hand)
        found = sha256_of(partial)
        if found != weights.sha256:
            raise UserError(
                f"{weights.url}: sent {partial.stat().st_size} bytes{_looks_like(partial)} that are not the published "
                f"file of {weights.size} bytes (SHA-256 {found}, expected {weights.sha256}); nothing kept: {by_hand}"
            )
        partial.chmod(0o644)  # mkstemp makes files that only their owner can read
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _download(weights: WeightFile, partial: Path, by_hand: str) -> None:
    # Only here: the rest of the package must run where pooch is not installed.
    import pooch
    import requests
    from tqdm import tqdm

    # None: shown where stderr is a terminal.
    with tqdm(total=weights.size, desc=weights.file_name, unit="B", unit_scale=True, disable=None) as bar:
        try:
            with partial.open("wb") as file:
                pooch.HTTPDownloader(progressbar=bar, timeout=30)(weights.url, file, None)
        except requests.exceptions.HTTPError as error:
            reason = f"the server answered {error.response.status_code}"
        except requests.exceptions.Timeout:
            reason = "the server did not answer within 30 s"
        except requests.exceptions.ConnectionError:
            reason = "no connection"
        except (requests.exceptions.RequestException, OSError) as error:
            reason = " ".join(str(error).split())[:100]
        else:
            return
    raise UserError(f"{weights.url}: cannot be fetched ({reason}); {by_hand}")


def _looks_like(file: Path) -> str:
    with file.open("rb") as content:
        start = content.read(64).lstrip().lower()
    return " of a web page" if start.startswith((b"<!doctype", b"<html")) else ""
