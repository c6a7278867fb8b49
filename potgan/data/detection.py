"""Key points that OpenPifPaf finds in images, and how well they agree with others (PCK).

OpenPifPaf has an environment of its own (`workflow/envs/openpifpaf`), so it runs in other processes, the workers
(`openpifpaf_worker.py`). Each worker loads the checkpoint once. Then it gets one shard, a list of images, after the other. The
answer to a shard is a file, whose name is the hash of all that its content depends on. So a run that was killed uses the finished
shards again, and a run with another checkpoint, scale or version uses none of them.
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
from typing import IO

import numpy as np

from potgan.common.errors import UserError
from potgan.common.files import Json, sha256_of
from potgan.common.paths import OPENPIFPAF_WORKER
from potgan.common.progress import progress
from potgan.data.pose import JOINT, JOINTS, Keypoints

#: The command that builds OpenPifPaf's environment, for messages.
BUILD = "bash workflow/envs/openpifpaf/build.sh"
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class DetectorSettings:
    """How OpenPifPaf is run.

    checkpoint_sha256: of the checkpoint file. The checkpoint is a pickle, which can run any code, so it is opened only after this
    has been found right. scale: how many times images are enlarged; 1 for not at all. workers: how many run at once.
    shard_size: images per shard. A killed run loses at most the shards that were under way. device: "auto", "cpu" or "cuda".
    python: the interpreter of OpenPifPaf's environment.
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
    """One image.

    name: unique. sha256: of the file. crop: the first column that is kept and the one after the last; None where all are kept.
    """

    name: str
    path: Path
    sha256: str
    crop: tuple[int, int] | None


def detect(images: list[ImageToDetect], settings: DetectorSettings, shards: Path) -> tuple[Keypoints, dict[str, Json]]:
    """The key points of the person with the highest score in each image, in the order of `images`, and a record of their origin.

    Coordinates are pixels of the image file, after cropping. A joint that OpenPifPaf does not report is missing, and an image
    without a person has no joint. The neck is the middle of the shoulders where both are found, with the lower of their
    confidences. shards: the folder of finished shards, which the next run uses.

    Raises UserError for settings outside their range, a missing environment, a checkpoint with another hash, an image that cannot
    be decoded, and a worker that ends early. No worker is left running, whatever is raised.
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
                        f"{shards / name}: does not hold the key points of its images; run the same command again"
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
    """Raise UserError for what can be told to be wrong before any worker starts."""
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
    """Package -> its version in OpenPifPaf's environment. Nothing is imported there, because that takes seconds."""
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
    """The file name of a shard: a hash of all that decides its key points."""
    content = {
        "images": [[image.name, image.sha256, image.crop] for image in part],
        "checkpoint": settings.checkpoint_sha256,
        "scale": float(settings.scale),
        "versions": versions,
        "worker": sha256_of(OPENPIFPAF_WORKER),
    }
    return f"{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]}.json"


def _read_shard(path: Path, part: list[ImageToDetect]) -> dict[str, Json] | None:
    """The content of a finished shard; None where there is no whole file with the key points of these images."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        whole = [row["name"] for row in content["images"]] == [image.name for image in part]
        whole = whole and all(len(row["joints"]) == len(JOINTS) for row in content["images"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if whole else None


# ---------------------------------------------------------------------------------------------------------------------
# The workers


def _run_workers(
    todo: dict[str, list[ImageToDetect]], settings: DetectorSettings, shards: Path, environment: str
) -> Iterator[str]:
    """The names of the shards, each when it is finished. Closing this generator, at whatever point, ends the workers."""
    waiting = collections.deque(todo.items())  # the threads take from it at once, which the methods of a deque allow
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
            # A worker ends by itself when its standard input ends, also where this process was killed. It would finish its shard
            # first, and here there is no reason to wait for that.
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.wait()


def _start_worker(settings: DetectorSettings, number: int, log: IO[str], environment: str) -> subprocess.Popen[str]:
    """Start worker `number` (from 0). log: the file that takes its standard error."""
    command = [settings.python, "-I", OPENPIFPAF_WORKER, "--checkpoint", settings.checkpoint.absolute()]
    command += ["--sha256", settings.checkpoint_sha256, "--scale", settings.scale, "--device", settings.device]
    command += ["--batch-size", settings.batch_size, "--number", number]
    # Several workers run at once, so each gets one thread: more threads than cores slow each other down.
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


def _feed(
    worker: subprocess.Popen[str],
    log: IO[str],
    number: int,
    waiting: collections.deque[tuple[str, list[ImageToDetect]]],
    answers: queue.SimpleQueue[tuple[str | None, str | None]],
    shards: Path,
    environment: str,
) -> None:
    """Give one worker shards until none is waiting, and put each answer into `answers`. It runs in a thread of its own."""
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
    except (
        Exception
    ) as error:  # usually the worker has ended, so that its pipes are closed or end in the middle of an answer
        try:
            status = worker.wait(timeout=10)
        except subprocess.TimeoutExpired:
            worker.kill()
            died, reason = "answered what is no answer", repr(error)
        else:
            died = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            reason = ""
            with contextlib.suppress(OSError, ValueError):  # this run is ending already, and the log is closed
                log.seek(0)
                reason = _last_line(log.read())
        if shard is None:
            remedy = f"build its environment again: {BUILD} {environment}"
        else:
            remedy = f"the finished shards are kept in {shards}: run the same command again"
        answers.put((None, f"OpenPifPaf worker {number} {died}{f' ({reason})' if reason else ''}; {remedy}"))


def _last_line(text: str) -> str:
    """The last line that is not blank, where Python's messages stand; "" where there is none."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


# ---------------------------------------------------------------------------------------------------------------------
# The measure


def pck(found: Keypoints, exact: Keypoints, alpha: float = 0.2) -> dict[str, Json]:
    """The percentage of correct key points (PCK) of `found`, compared with the reference `exact`, which may have more images.

    A joint of the reference is correct if `found` has it at most alpha times the torso's length away. The torso's length is the
    distance of the reference's right shoulder and left hip (the convention of Leeds Sports Pose; Yang and Ramanan, 2013). A joint
    that only the reference has is wrong, and is counted as `missed`, too. A joint that only `found` has is counted as `extra`, and
    does not change the percentage. Images without one of the torso's two ends in the reference are left out.

    Returns the share of correct joints as `pck` (None where the reference has no joint), and the numbers `joints`, `correct`,
    `missed` and `extra`, over all joints and, under `by_joint`, for each of them. `images` and `images_without_torso` are the
    numbers of images that are measured and left out. `detection_rate` is the share of `images` with any joint.
    Raises UserError if `found` has an image that the reference does not have.
    """
    strangers = [name for name in found.names if name not in exact.row]
    if strangers:
        raise UserError(f"PCK: the reference has no image {strangers[0]!r}; compare tables of the same images")
    reference = exact.joints[[exact.row[name] for name in found.names]]
    torso = np.linalg.norm(reference[:, JOINT["right_shoulder"]] - reference[:, JOINT["left_hip"]], axis=1)
    measured = ~np.isnan(torso)
    reference, joints, torso = reference[measured], found.joints[measured], torso[measured]
    there, got = ~np.isnan(reference[:, :, 0]), ~np.isnan(joints[:, :, 0])
    # The distance to a missing joint is NaN, and every comparison with NaN is False.
    correct = np.linalg.norm(joints - reference, axis=2) <= alpha * torso[:, None]

    def counts(columns: slice) -> dict[str, Json]:
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
