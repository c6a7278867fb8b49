"""Key points from images: the driver of the OpenPifPaf workers (`openpifpaf_worker.py`), and how good they are (PCK).

OpenPifPaf lives in an environment of its own (`workflow/envs/openpifpaf`), so it is reached through processes: each
worker loads the checkpoint once and is then fed one shard of images after the other, whichever worker is free. A shard
is a file named by the hash of all that its content depends on. A run that was killed therefore takes up the finished
shards, and a run with another checkpoint, scale or version takes up none.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potgan.common.errors import UserError
from potgan.common.files import sha256_of
from potgan.common.paths import OPENPIFPAF_WORKER
from potgan.common.progress import progress
from potgan.data.pose import JOINT, JOINTS, Keypoints

#: Run by path with the other environment's Python; never imported.
BUILD = "bash workflow/envs/openpifpaf/build.sh"
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class DetectorSettings:
    """How OpenPifPaf is run.

    checkpoint_sha256: of the checkpoint, which is a pickle and is opened by nobody before it was found right.
    scale: images are enlarged so many times, 1 = not at all. shard_size: images a shard, the unit of resuming. device:
    "auto", "cpu" or "cuda". python: the interpreter of the other environment.
    """

    checkpoint: Path
    checkpoint_sha256: str
    scale: float
    batch_size: int
    workers: int
    shard_size: int
    device: str
    python: Path


@dataclass(frozen=True)
class ImageToDetect:
    """One image. name: unique. sha256: of the file. crop: first column and last + 1 that are kept, None = all."""

    name: str
    path: Path
    sha256: str
    crop: tuple[int, int] | None


def detect(images: list[ImageToDetect], settings: DetectorSettings, shards: Path) -> tuple[Keypoints, dict[str, Any]]:
    """The key points of the highest-scoring person of each image, in the order of `images`, and a record of their origin.

    Coordinates are pixels of the (cropped) image as it is on disk. A joint that OpenPifPaf does not report is missing,
    an image without a person has no joint, and the neck is the midpoint of the shoulders where both are there, with the
    lower of their confidences. shards: folder of the finished parts, kept for the next run.

    Raises UserError for settings outside their range, a missing environment, a checkpoint of another hash, an image that
    cannot be decoded, and a worker that dies. Whatever is raised, no worker is left running.
    """
    _check(images, settings)
    environment = os.path.abspath(settings.python.parent.parent)  # noqa: PTH100 - `resolve` would leave the environment
    versions = _versions(settings.python, environment)
    wanted: dict[str, list[ImageToDetect]] = {}
    for first in range(0, len(images), settings.shard_size):
        part = images[first : first + settings.shard_size]
        wanted[_shard_name(part, settings, versions)] = part

    shards.mkdir(parents=True, exist_ok=True)
    finished = {name: content for name, part in wanted.items() if (content := _read_shard(shards / name, part))}
    reused = len(finished)
    todo = {name: part for name, part in wanted.items() if name not in finished}
    start = time.monotonic()
    if todo:
        with contextlib.closing(_run_workers(todo, settings, shards, environment)) as answers:
            done = sum(len(wanted[name]) for name in finished)
            for name in progress(
                answers, len(images), "key points", "images", initial=done, weight=lambda n: len(todo[n])
            ):
                finished[name] = _read_shard(shards / name, todo[name])
                if finished[name] is None:
                    raise UserError(
                        f"{shards / name}: was written and does not hold its images; run the same command again"
                    )
    seconds = time.monotonic() - start

    rows = [row for name in wanted for row in finished[name]["images"]]
    missing = [np.nan, np.nan, 0.0]
    table = np.array([[joint or missing for joint in row["joints"]] for row in rows], np.float32)
    table = table.reshape(-1, len(JOINTS), 3)
    detected = sum(len(part) for part in todo.values())
    record = {
        "estimator": f"OpenPifPaf {versions['openpifpaf']} (neck = midpoint of the shoulders)",
        "versions": versions,
        "weights": settings.checkpoint.name,
        "weights_sha256": settings.checkpoint_sha256,
        "input_scale": settings.scale,
        "images": len(rows),
        "persons": int((table[:, :, 2] > 0).any(axis=1).sum()),
        "device": ", ".join(sorted({content["device"] for content in finished.values()})),
        "workers": min(settings.workers, len(todo)),
        "batch_size": settings.batch_size,
        "shards": len(wanted),
        "reused_shards": reused,
        "seconds": round(seconds, 2),
        "images_per_second": round(detected / seconds, 2) if todo else None,
    }
    return Keypoints([row["name"] for row in rows], table[:, :, :2].copy(), table[:, :, 2].copy()), record


def _check(images: list[ImageToDetect], settings: DetectorSettings) -> None:
    if not settings.scale >= 1:
        raise UserError(f"detector: scale is {settings.scale}; images are enlarged, choose 1 or more")
    for name in ("batch_size", "workers", "shard_size"):
        if getattr(settings, name) < 1:
            raise UserError(f"detector: {name} is {getattr(settings, name)}; choose 1 or more")
    if settings.device not in DEVICES:
        raise UserError(f"detector: device is {settings.device!r}; choose one of {', '.join(DEVICES)}")
    names = collections.Counter(image.name for image in images)
    if names and (twice := names.most_common(1)[0])[1] > 1:
        raise UserError(f"detector: image {twice[0]!r} is given {twice[1]} times; each image has one row")
    if not settings.checkpoint.is_file():
        raise UserError(f"{settings.checkpoint}: no such checkpoint; put the OpenPifPaf weights there")
    found = sha256_of(settings.checkpoint)
    if found != settings.checkpoint_sha256:
        raise UserError(
            f"{settings.checkpoint}: has SHA-256 {found}, expected {settings.checkpoint_sha256}; it is not opened, since "
            "a checkpoint can run any code: put the right file there, or set the hash of one that you trust"
        )


def _versions(python: Path, environment: str) -> dict[str, str]:
    """The versions that the other environment has, without importing any of it (which takes seconds)."""
    names = ("openpifpaf", "torch", "opencv-python-headless")
    code = "import json, sys; from importlib.metadata import version; "
    code += "print(json.dumps({name: version(name) for name in sys.argv[1:]}))"
    if not os.path.isfile(python):  # noqa: PTH113 - like the line below, for what is named and not where it points
        raise UserError(f"{python}: no such interpreter; build OpenPifPaf's environment: {BUILD} {environment}")
    try:
        run = subprocess.run(
            [python, "-I", "-c", code, *names], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
        )
        reason = _last_line(run.stderr) or f"exit status {run.returncode}"
    except OSError as error:
        run, reason = None, error.strerror
    if run is None or run.returncode:
        raise UserError(
            f"{python}: OpenPifPaf's environment is broken ({reason}); build it again: {BUILD} {environment}"
        )
    return json.loads(run.stdout)


def _shard_name(part: list[ImageToDetect], settings: DetectorSettings, versions: dict[str, str]) -> str:
    content = {
        "images": [[image.name, image.sha256, image.crop] for image in part],
        "checkpoint": settings.checkpoint_sha256,
        "scale": float(settings.scale),
        "versions": versions,
        "worker": sha256_of(OPENPIFPAF_WORKER),
    }
    return f"{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]}.json"


def _read_shard(path: Path, part: list[ImageToDetect]) -> dict[str, Any] | None:
    """The content of a finished shard; None where there is none or it is not what its name says."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        whole = [row["name"] for row in content["images"]] == [image.name for image in part]
        whole = whole and all(len(row["joints"]) == len(JOINTS) for row in content["images"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if whole else None


# ------------------------------------------------------------------------------------------------------ the workers


def _run_workers(
    todo: dict[str, list[ImageToDetect]], settings: DetectorSettings, shards: Path, environment: str
) -> Iterator[str]:
    """Names of the shards as they are finished. Closing this generator, at whatever point, ends the workers."""
    waiting = collections.deque(todo.items())  # its methods are atomic: whichever worker is free takes the next
    answers: queue.SimpleQueue[tuple[str | None, str | None]] = queue.SimpleQueue()  # (shard, None) or (None, error)
    workers: list[subprocess.Popen] = []
    with contextlib.ExitStack() as logs:
        try:
            for number in range(min(settings.workers, len(todo))):
                log = logs.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace"))
                workers.append(_start_worker(settings, number, log, environment))
                arguments = (workers[-1], log, number, waiting, answers, shards, environment)
                threading.Thread(target=_feed, args=arguments, daemon=True).start()
            for _ in todo:
                shard, error = answers.get()
                if error is not None:
                    raise UserError(error)
                yield shard
        finally:
            # A worker whose standard input ends stops by itself, also when this process was killed; here there is no
            # reason to wait for it.
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.wait()


def _start_worker(settings: DetectorSettings, number: int, log: Any, environment: str) -> subprocess.Popen:
    command = [settings.python, "-I", OPENPIFPAF_WORKER, "--checkpoint", settings.checkpoint.absolute()]
    command += ["--sha256", settings.checkpoint_sha256, "--scale", settings.scale, "--device", settings.device]
    command += ["--batch-size", settings.batch_size, "--number", number]
    # Workers are the parallelism. More threads than cores slow each other down.
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    try:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            env={**os.environ, **threads, "MPLBACKEND": "Agg"},
        )
    except OSError as error:
        raise UserError(
            f"{settings.python}: cannot be run ({error.strerror}); build it again: {BUILD} {environment}"
        ) from None


def _feed(worker: subprocess.Popen, log: Any, number: int, waiting, answers, shards: Path, environment: str) -> None:
    """Give one worker shards until none is left, and report each answer. Runs in a thread of its own."""
    shard = None
    try:
        if "error" in (answer := json.loads(worker.stdout.readline())):
            answers.put((None, answer["error"]))
            return
        while True:
            try:
                shard, part = waiting.popleft()
            except IndexError:
                worker.stdin.close()
                return
            images = [{"name": i.name, "path": str(i.path.absolute()), "crop": i.crop} for i in part]
            worker.stdin.write(json.dumps({"shard": str((shards / shard).absolute()), "images": images}) + "\n")
            worker.stdin.flush()
            answer = json.loads(worker.stdout.readline())
            answers.put((None, answer["error"]) if "error" in answer else (shard, None))
    except Exception as error:  # usually its pipes are closed or end in the middle of an answer: it is dead
        try:
            status = worker.wait(timeout=10)
        except subprocess.TimeoutExpired:
            worker.kill()
            died, reason = "answered what is no answer", repr(error)
        else:
            died = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            reason = ""
            with contextlib.suppress(OSError, ValueError):  # the driver has already stopped, and closed the log
                log.seek(0)
                reason = _last_line(log.read())
        if shard is None:
            remedy = f"build its environment again: {BUILD} {environment}"
        else:
            remedy = f"the finished shards are kept in {shards}: run the same command again"
        answers.put((None, f"OpenPifPaf worker {number} {died}{f' ({reason})' if reason else ''}; {remedy}"))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


# ---------------------------------------------------------------------------------------------------------- measure


def pck(found: Keypoints, exact: Keypoints, alpha: float = 0.2) -> dict[str, Any]:
    """Percentage of correct key points of `found` against the reference `exact`, which may have more images.

    A joint of the reference is correct if it was found at most alpha times the torso's length away; the torso reaches
    from the reference's right shoulder to its left hip (the convention of Leeds Sports Pose; Yang and Ramanan, 2013). A
    joint that the reference has and `found` lacks counts as wrong, and as `missed`; one that only `found` has does not
    enter the share and is counted as `extra`. Images whose reference lacks one of the torso's two ends are left out.

    Returns pck (None where the reference has no joint), joints, correct, missed, extra over all joints; the same for
    each joint under `by_joint`; images, images_without_torso, and detection_rate, the share of `images` with any joint.
    Raises UserError if `found` has an image that the reference lacks.
    """
    strangers = [name for name in found.names if name not in exact.row]
    if strangers:
        raise UserError(f"PCK: the reference has no image {strangers[0]!r}; compare tables of the same images")
    reference = exact.joints[[exact.row[name] for name in found.names]]
    torso = np.linalg.norm(reference[:, JOINT["right_shoulder"]] - reference[:, JOINT["left_hip"]], axis=1)
    measured = ~np.isnan(torso)
    reference, joints, torso = reference[measured], found.joints[measured], torso[measured]
    there, got = ~np.isnan(reference[:, :, 0]), ~np.isnan(joints[:, :, 0])
    # A distance to a missing joint is NaN, which compares as False.
    correct = np.linalg.norm(joints - reference, axis=2) <= alpha * torso[:, None]

    def counts(columns: slice) -> dict[str, Any]:
        number, right = int(there[:, columns].sum()), int(correct[:, columns].sum())
        return {
            "pck": round(right / number, 4) if number else None,
            "joints": number,
            "correct": right,
            "missed": int((there & ~got)[:, columns].sum()),
            "extra": int((got & ~there)[:, columns].sum()),
        }

    return {
        "alpha": alpha,
        **counts(slice(None)),
        "images": int(measured.sum()),
        "images_without_torso": int((~measured).sum()),
        "detection_rate": round(float(got.any(axis=1).mean()), 4) if measured.any() else None,
        "by_joint": {name: counts(slice(i, i + 1)) for i, name in enumerate(JOINTS)},
    }
