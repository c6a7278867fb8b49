"""Detection by OpenPifPaf, and PCK.

Most tests run workers that stand in for OpenPifPaf. Where OpenPifPaf's environment is built, others run the real one with the small
checkpoint of `tests/reference`. About 10 s without OpenPifPaf, and 90 s with it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from potgan import __main__ as program
from potgan.common.errors import UserError
from potgan.common.paths import OPENPIFPAF_RECIPE, OPENPIFPAF_WORKER, REPOSITORY
from potgan.data import detection
from potgan.data.detection import DetectorSettings, ImageToDetect, detect, pck
from potgan.data.pose import JOINT, JOINTS, MIRROR, Keypoints
from potgan.data.synthetic.people import annotate, render_split
from potgan.settings.schema import SyntheticSettings

# --------------------------------------------------------------------------------------- a worker that needs nothing

#: A program that answers as `openpifpaf_worker.py` does. The nose of every image lies at (the image's number, 1). The name of an
#: image says what else happens: `slow...` takes a second, `last...` waits for nine other shards, `die...` ends the worker, and
#: `bad...` is an error that the user can put right.
FAKE_WORKER = """
    import json, os, sys, time
    options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
    origin = {"device": "none", "versions": {}}
    print(json.dumps(origin), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        rows = []
        for image in job["images"]:
            name = image["name"]
            if name.startswith("slow"):
                time.sleep(1)
            if name.startswith("last"):
                folder, deadline = os.path.dirname(job["shard"]), time.monotonic() + 60
                while sum(entry.endswith(".json") for entry in os.listdir(folder)) < 9:
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            if name.startswith("die"):
                print("Traceback: something\\nMemoryError: no room for the network", file=sys.stderr)
                os._exit(7)
            if name.startswith("bad"):
                print(json.dumps({"error": name + " cannot be decoded"}), flush=True)
                sys.exit(2)
            rows.append({"name": name, "joints": [[int(name.split("-")[1]), 1, 0.5]] + [None] * 17})
        done = json.dumps({**origin, "seconds": 1, "images": rows, "by": options["--number"], "pid": os.getpid()})
        open(job["shard"], "w").write(done)
        print(json.dumps({"shard": job["shard"], "images": len(rows), "seconds": 1, "detected": len(rows)}), flush=True)
"""


@pytest.fixture
def fake(monkeypatch, tmp_path) -> DetectorSettings:
    """Settings with which the Python of this test runs FAKE_WORKER."""
    worker = tmp_path / "fake_worker.py"
    worker.write_text(textwrap.dedent(FAKE_WORKER))
    monkeypatch.setattr(detection, "OPENPIFPAF_WORKER", worker)
    monkeypatch.setattr(detection, "_versions", lambda python, environment: {"openpifpaf": "fake"})
    checkpoint = tmp_path / "checkpoint.pkl"
    checkpoint.write_bytes(b"weights")
    return DetectorSettings(
        checkpoint=checkpoint,
        checkpoint_sha256=hashlib.sha256(b"weights").hexdigest(),
        scale=2.0,
        batch_size=4,
        workers=2,
        shard_size=2,
        device="cpu",
        python=Path(sys.executable),
    )


def named(*names: str) -> list[ImageToDetect]:
    return [
        ImageToDetect(name, Path("nowhere") / name, hashlib.sha256(name.encode()).hexdigest(), None) for name in names
    ]


def content(shards: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(shards.glob("*.json"))]


def message(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith(
        "Z"
    )  # Z: it has ended, and its parent has not asked for the status


def until(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_rows_stand_in_the_order_of_the_images(fake, tmp_path):
    images = named("slow-4", "x-2", "x-9", "x-1", "x-7")
    keypoints, record = detect(images, fake, tmp_path / "shards")
    assert keypoints.names == ["slow-4", "x-2", "x-9", "x-1", "x-7"]
    assert keypoints.joints[:, 0].tolist() == [[4, 1], [2, 1], [9, 1], [1, 1], [7, 1]]
    assert np.isnan(keypoints.joints[:, 1:]).all()
    assert keypoints.confidence[:, 0].tolist() == [0.5] * 5
    assert (keypoints.confidence[:, 1:] == 0).all()
    assert (record["images"], record["persons"], record["shards"], record["reused_shards"]) == (5, 5, 3, 0)
    assert record["weights_sha256"] == fake.checkpoint_sha256
    assert record["input_scale"] == 2.0
    assert record["images_per_second"] > 0


def test_shards_go_to_whichever_worker_is_free(fake, tmp_path):
    # The first shard is finished only after all others, so the worker that does not have it must get the rest.
    images = named("last-0", *(f"x-{i}" for i in range(1, 10)))
    detect(images, replace(fake, shard_size=1), tmp_path / "shards")
    by = {shard["images"][0]["name"]: shard["by"] for shard in content(tmp_path / "shards")}
    assert len(by) == 10
    assert [name for name, worker in by.items() if worker == by["last-0"]] == ["last-0"]


def test_finished_shards_are_kept_and_not_made_again(fake, tmp_path):
    images = named("x-0", "x-1", "x-2", "x-3", "die-4", "x-5")
    said = message(lambda: detect(images, replace(fake, workers=1), tmp_path / "shards"))
    assert "ended with status 7 (MemoryError: no room for the network)" in said
    assert "run the same command again" in said
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    assert len(before) == 2
    images[4] = replace(images[4], name="x-4")  # the cause of the end is gone
    keypoints, record = detect(images, fake, tmp_path / "shards")
    assert keypoints.joints[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert (record["shards"], record["reused_shards"]) == (3, 2)
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    assert {name: after[name] for name in before} == before

    again, record = detect(images, replace(fake, python=Path("absent/bin/python")), tmp_path / "shards")
    assert record["reused_shards"] == 3  # there is no worker that could have been started
    assert record["images_per_second"] is None
    assert np.array_equal(again.joints, keypoints.joints, equal_nan=True)


def test_a_driver_that_is_killed_leaves_its_shards_and_no_worker(fake, tmp_path):
    script = tmp_path / "drive.py"
    names = ["x-0", "x-1", "x-2", "x-3", *(f"slow-{i}" for i in range(4, 40))]
    script.write_text(
        textwrap.dedent(
            f"""
            from pathlib import Path
            from potgan.data import detection
            detection.OPENPIFPAF_WORKER = Path({str(detection.OPENPIFPAF_WORKER)!r})
            detection._versions = lambda python, environment: {{"openpifpaf": "fake"}}
            images = [detection.ImageToDetect(n, Path("nowhere") / n, n, None) for n in {names!r}]
            settings = detection.DetectorSettings(
                Path({str(fake.checkpoint)!r}), {fake.checkpoint_sha256!r}, 2.0, 4, 2, 2, "cpu", Path({sys.executable!r})
            )
            detection.detect(images, settings, Path({str(tmp_path / "shards")!r}))
            """
        )
    )
    driver = subprocess.Popen([sys.executable, script], stderr=subprocess.DEVNULL, cwd=REPOSITORY)
    assert until(lambda: len(list((tmp_path / "shards").glob("*.json"))) >= 2, seconds=60)
    driver.kill()
    driver.wait()
    # A shard of slow images takes 2 s. Then the workers see that their standard input has ended.
    assert until(lambda: not any(alive(shard["pid"]) for shard in content(tmp_path / "shards")), seconds=30)
    assert 2 <= len(content(tmp_path / "shards")) < 20
    fast = [replace(i, sha256=i.name) for i in named(*names[:4])]
    _, record = detect(fast, fake, tmp_path / "shards")
    assert record["reused_shards"] == 2


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 3.0},
        {"checkpoint_sha256": hashlib.sha256(b"other weights").hexdigest()},
    ],
)
def test_another_scale_or_checkpoint_takes_up_nothing(fake, tmp_path, change):
    images = named("x-0", "x-1", "x-2")
    detect(images, fake, tmp_path / "shards")
    if "checkpoint_sha256" in change:
        fake.checkpoint.write_bytes(b"other weights")
    _, record = detect(images, replace(fake, **change), tmp_path / "shards")
    assert record["reused_shards"] == 0
    assert len(content(tmp_path / "shards")) == 4


def test_another_image_crop_version_or_worker_takes_up_nothing(fake, tmp_path, monkeypatch):
    images = named("x-0", "x-1")
    detect(images, fake, tmp_path / "shards")

    def reused() -> int:
        return detect(images, fake, tmp_path / "shards")[1]["reused_shards"]

    assert reused() == 1
    for changed in (replace(images[0], sha256="f" * 64), replace(images[0], crop=(2, 20))):
        _, record = detect([changed, images[1]], fake, tmp_path / "shards")
        assert record["reused_shards"] == 0
    monkeypatch.setattr(detection, "_versions", lambda python, environment: {"openpifpaf": "newer"})
    assert reused() == 0
    assert reused() == 1
    detection.OPENPIFPAF_WORKER.write_text(detection.OPENPIFPAF_WORKER.read_text() + "\n# another worker\n")
    assert reused() == 0


def test_a_shard_that_is_not_whole_is_made_again(fake, tmp_path):
    images = named("x-0", "x-1")
    detect(images, fake, tmp_path / "shards")
    (shard,) = (tmp_path / "shards").glob("*.json")
    for broken in (shard.read_text()[:-9], '{"images": []}', "[]"):
        shard.write_text(broken)
        keypoints, record = detect(images, fake, tmp_path / "shards")
        assert record["reused_shards"] == 0
        assert keypoints.joints[:, 0, 0].tolist() == [0, 1]


def test_an_error_ends_every_worker_at_once(fake, tmp_path, monkeypatch):
    started = []
    start = detection._start_worker
    monkeypatch.setattr(detection, "_start_worker", lambda *a: started.append(start(*a)) or started[-1])
    images = named("slow-0", "slow-1", "bad-2", *(f"slow-{i}" for i in range(3, 30)))
    assert message(lambda: detect(images, fake, tmp_path / "shards")) == "bad-2 cannot be decoded"
    assert len(started) == 2
    assert all(worker.poll() is not None for worker in started)


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "SIGTERM in the background"])
def test_a_signal_ends_every_worker(fake, tmp_path, monkeypatch, how):
    started = []
    start = detection._start_worker
    monkeypatch.setattr(detection, "_start_worker", lambda *a: started.append(start(*a)) or started[-1])
    number, raised = (signal.SIGINT, KeyboardInterrupt) if how == "Ctrl-C" else (signal.SIGTERM, SystemExit)
    # In the background a shell hands down an ignored SIGINT.
    ignored = {signal.SIGINT: signal.SIG_IGN} if "background" in how else {}
    before = {n: signal.signal(n, h) for n, h in ({signal.SIGTERM: program.stop} | ignored).items()}
    threading.Timer(1.5, os.kill, [os.getpid(), number]).start()
    start_time = time.monotonic()
    try:
        with pytest.raises(raised) as stopped:
            detect(named(*(f"slow-{i}" for i in range(60))), replace(fake, shard_size=30), tmp_path / "shards")
    finally:
        for n, handler in before.items():
            signal.signal(n, handler)
    assert number == signal.SIGINT or stopped.value.code == 143
    assert time.monotonic() - start_time < 20  # a shard takes 30 s
    assert len(started) == 2
    assert all(worker.poll() is not None for worker in started)


def test_a_missing_or_broken_environment_is_one_line_with_the_command_that_builds_it(fake, tmp_path, monkeypatch):
    monkeypatch.undo()
    environment = tmp_path / "environment"
    settings = replace(fake, python=environment / "bin" / "python")
    said = message(lambda: detect(named("x-0"), settings, tmp_path / "shards"))
    assert said.startswith(f"{settings.python}: no such interpreter")
    assert f"bash workflow/envs/openpifpaf/build.sh {environment}" in said
    assert (OPENPIFPAF_RECIPE / "build.sh").is_file()

    settings.python.parent.mkdir(parents=True)
    settings.python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')  # a Python without OpenPifPaf
    settings.python.chmod(0o755)
    said = message(lambda: detect(named("x-0"), settings, tmp_path / "shards"))
    assert "is broken" in said
    assert "No package metadata was found for openpifpaf" in said
    assert f"bash workflow/envs/openpifpaf/build.sh {environment}" in said
    settings.python.write_text("no program")
    assert "is broken" in message(lambda: detect(named("x-0"), settings, tmp_path / "shards"))


def test_a_worker_that_does_not_start_names_the_command_that_builds_its_environment(fake, tmp_path):
    detection.OPENPIFPAF_WORKER.write_text("raise ImportError('libcudart.so.13: cannot open shared object file')")
    said = message(lambda: detect(named("x-0"), fake, tmp_path / "shards"))
    assert "ended with status 1 (ImportError: libcudart.so.13: cannot open shared object file)" in said
    assert "bash workflow/envs/openpifpaf/build.sh" in said


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"scale": 0.5}, "scale is 0.5"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"workers": 0}, "workers is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"shard_size": 0}, "shard_size is 0"),
        ({"device": "tpu"}, "choose one of auto, cpu, cuda"),
        ({"checkpoint": Path("nowhere.pkl")}, "nowhere.pkl: no such checkpoint"),
        ({"checkpoint_sha256": "0" * 64}, "expected " + "0" * 64),
    ],
)
def test_wrong_settings_are_one_line(fake, tmp_path, change, part):
    assert part in message(lambda: detect(named("x-0"), replace(fake, **change), tmp_path / "shards"))


def test_an_image_given_twice_is_refused(fake, tmp_path):
    assert "'x-0' is given 2 times" in message(lambda: detect(named("x-0", "x-1", "x-0"), fake, tmp_path / "shards"))


def test_no_images_are_no_rows(fake, tmp_path):
    keypoints, record = detect([], fake, tmp_path / "shards")
    assert len(keypoints) == 0
    assert keypoints.joints.shape == (0, 18, 2)
    assert record["shards"] == 0


# ------------------------------------------------------------------- the worker's parts that need no OpenPifPaf


@pytest.fixture(scope="module")
def worker_module():
    """`openpifpaf_worker.py` as a module. It is loaded by its path, because it is no module of the package."""
    specification = importlib.util.spec_from_file_location("worker_by_path", OPENPIFPAF_WORKER)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_worker_has_the_joints_of_the_pose(worker_module):
    assert tuple(name or "neck" for name in worker_module.JOINTS) == JOINTS


@pytest.mark.parametrize("crop", [None, (3, 19)])
@pytest.mark.parametrize("scale", [1.0, 2.0, 2.3, 3.0])
def test_a_lit_pixel_comes_back_to_its_place(worker_module, tmp_path, scale, crop):
    # A detector would find the spot at its centre of brightness in the enlarged picture, with centres of pixels at integers.
    index = [0 if name == "nose" else None if name is None else 1 for name in worker_module.JOINTS]
    for x, y in [(8, 5), (11, 20), (15, 12)]:
        picture = np.zeros((27, 23, 3), np.uint8)
        picture[y, x] = 255
        cv2.imwrite(str(tmp_path / "lit.png"), picture)
        job = {"name": "lit.png", "path": str(tmp_path / "lit.png"), "crop": crop}
        enlarged, factor = worker_module.read_enlarged(job, scale)
        light = enlarged[:, :, 0].astype(float)
        at = [
            (light.sum(axis=0) * np.arange(light.shape[1])).sum(),
            (light.sum(axis=1) * np.arange(light.shape[0])).sum(),
        ]
        person = np.array([[*(np.array(at) / light.sum()), 0.75], [0, 0, 0]])
        joints = worker_module.openpose_joints(person, index, factor, enlarged.shape[:2])
        assert joints[0] == pytest.approx(
            [x - (crop[0] if crop else 0), y, 0.75], abs=0.06
        )  # brightness is rounded to uint8
        assert joints[1:] == [None] * 17


def test_an_image_is_turned_as_its_exif_says(worker_module, tmp_path):
    from PIL import Image

    picture = np.zeros((20, 12, 3), np.uint8)
    picture[2:6, 1:4] = (250, 10, 10)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    Image.fromarray(np.rot90(picture)).save(tmp_path / "turned.jpg", quality=100, subsampling=0, exif=exif)
    job = {"name": "turned.jpg", "path": str(tmp_path / "turned.jpg"), "crop": None}
    upright, _ = worker_module.read_enlarged(job, 1)
    assert upright.shape == picture.shape
    assert np.abs(upright.astype(int) - picture).mean() < 8
    assert upright[3, 2, 0] > 200  # red first
    assert upright[3, 2, 2] < 60


def test_the_neck_is_the_midpoint_of_the_shoulders_and_what_is_outside_is_missing(worker_module):
    names = [name for name in worker_module.JOINTS if name]
    index = [names.index(name) if name else None for name in worker_module.JOINTS]
    person = np.zeros((17, 3))
    person[names.index("right_shoulder")] = (10, 30, 0.9)
    person[names.index("left_shoulder")] = (30, 34, 0.4)
    person[names.index("left_wrist")] = (99.6, 50, 0.8)  # beyond the right edge, which is at 99.5
    person[names.index("right_wrist")] = (-0.4, 50, 0.8)
    joints = worker_module.openpose_joints(person, index, (2.0, 2.0), (200, 100))
    assert joints[JOINT["neck"]] == pytest.approx([9.75, 15.75, 0.4])
    assert joints[JOINT["right_shoulder"]] == pytest.approx([4.75, 14.75, 0.9])
    assert joints[JOINT["left_wrist"]] is None
    assert joints[JOINT["right_wrist"]] == pytest.approx([-0.45, 24.75, 0.8])
    person[names.index("left_shoulder"), 2] = 0
    assert worker_module.openpose_joints(person, index, (2.0, 2.0), (200, 100))[JOINT["neck"]] is None


class Evil:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def run_worker(python: Path | str, *options: object, jobs: str = "") -> tuple[int, list[dict]]:
    command = [str(word) for word in (python, "-I", OPENPIFPAF_WORKER, *options, "--device", "cpu")]
    run = subprocess.run(command, input=jobs, capture_output=True, text=True, check=False)
    return run.returncode, [json.loads(line) for line in run.stdout.splitlines()]


def test_a_checkpoint_of_another_hash_is_not_unpickled(tmp_path):
    evil = tmp_path / "evil.pkl"
    evil.write_bytes(pickle.dumps(Evil(tmp_path / "opened")))
    status, answers = run_worker(sys.executable, "--checkpoint", evil, "--sha256", "0" * 64, "--scale", 1)
    assert status == 2
    assert hashlib.sha256(evil.read_bytes()).hexdigest() in answers[0]["error"]
    assert "0" * 64 in answers[0]["error"]
    assert not (tmp_path / "opened").exists()
    pickle.loads(evil.read_bytes())
    assert (tmp_path / "opened").exists()  # this pickle does run code when it is loaded


# -------------------------------------------------------------------------------------------------------------- PCK


def table(**persons: dict[str, tuple[float, float]]) -> Keypoints:
    joints = np.full((len(persons), 18, 2), np.nan, np.float32)
    for i, person in enumerate(persons.values()):
        for name, place in person.items():
            joints[i, JOINT[name]] = place
    return Keypoints(list(persons), joints, (~np.isnan(joints[:, :, 0])).astype(np.float32))


def test_pck_by_hand():
    # The torso is 50 pixels long (a triangle of 30, 40 and 50), so that 0.2 of it are 10 pixels.
    torso = {"right_shoulder": (10, 10), "left_hip": (40, 50)}
    exact = table(
        a={**torso, "nose": (20, 5), "left_knee": (30, 70), "left_wrist": (5, 60)},
        b={**torso, "nose": (20, 5)},
        no_torso={"right_shoulder": (10, 10), "nose": (20, 5)},
    )
    found = table(
        no_torso={"nose": (20, 5)},
        b={},
        a={
            "right_shoulder": (10, 20),
            "left_hip": (46, 58.1),
            "nose": (20, 5),
            "left_knee": (24, 62),
            "left_ear": (20, 5),
        },
    )
    # a: shoulder 10 away (right), hip 10.08 away (wrong), nose 0, knee 10 away (right), wrist missed, ear extra.
    # b: three joints missed. The third image has no torso.
    result = pck(found, exact)
    assert (result["joints"], result["correct"], result["missed"], result["extra"]) == (8, 3, 4, 1)
    assert result["pck"] == pytest.approx(3 / 8)
    assert (result["images"], result["images_without_torso"]) == (2, 1)
    assert result["detection_rate"] == pytest.approx(1 / 2)
    by = result["by_joint"]
    assert by["nose"] == {"pck": 0.5, "joints": 2, "correct": 1, "missed": 1, "extra": 0}
    assert by["left_ear"] == {"pck": None, "joints": 0, "correct": 0, "missed": 0, "extra": 1}
    assert pck(found, exact, alpha=0.202)["correct"] == 4


def test_pck_of_other_images_is_refused():
    with pytest.raises(UserError, match="no image 'b'"):
        pck(table(b={}), table(a={}))


@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(0.2, 5), alpha=st.floats(0.01, 1))
@hypothesis_settings(deadline=None, max_examples=60)
def test_pck_has_no_unit_and_grows_with_alpha(seed, factor, alpha):
    random = np.random.default_rng(seed)
    joints = random.uniform(0, 100, (6, 18, 2)).astype(np.float32)
    moved = joints + random.normal(0, 15, joints.shape).astype(np.float32)
    joints[random.random((6, 18)) < 0.2] = np.nan
    moved[random.random((6, 18)) < 0.2] = np.nan
    names = [f"image-{i}" for i in range(6)]

    def measure(found: np.ndarray, exact: np.ndarray, alpha: float) -> dict:
        sure = np.ones((6, 18), np.float32)
        return pck(Keypoints(names, found, sure), Keypoints(names, exact, sure), alpha)

    result = measure(moved, joints, alpha)
    bigger = measure(moved * np.float32(factor), joints * np.float32(factor), alpha)
    assert abs(bigger["correct"] - result["correct"]) <= 1  # a joint may lie on the limit, up to rounding
    assert result["correct"] <= measure(moved, joints, 1.5 * alpha)["correct"]
    assert result["correct"] + result["missed"] <= result["joints"]
    assert sum(joint["correct"] for joint in result["by_joint"].values()) == result["correct"]
    itself = measure(joints, joints, alpha)
    assert itself["correct"] == itself["joints"]
    assert itself["missed"] == itself["extra"] == 0
    nobody = measure(np.full_like(joints, np.nan), joints, alpha)
    assert nobody["correct"] == nobody["extra"] == 0
    assert nobody["missed"] == nobody["joints"]


# --------------------------------------------------------------------------------------------------- its environment

FOLDER = OPENPIFPAF_RECIPE


def build(*arguments: object, **environment: str) -> tuple[int, str]:
    run = subprocess.run(
        ["bash", FOLDER / "build.sh", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_the_environment_is_built_once_for_a_lock(tmp_path):
    # Nothing is built here: `uv` is one that fails.
    script(tmp_path / "uv", 'echo "uv was called: $1" >&2; exit 1')
    python = script(tmp_path / "python3.11", "exit 0")
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    script(environment / "bin" / "python", "exit 0")
    (environment / "pyvenv.cfg").touch()
    (environment / "ready").write_text(hashlib.sha256((FOLDER / "requirements.lock").read_bytes()).hexdigest() + "\n")
    status, said = build(environment, PATH=path)
    assert (status, said) == (0, f"{environment}: complete\n")
    (environment / "ready").write_text("another lock\n")
    status, said = build(environment, python, PATH=path)
    assert status != 0
    assert "uv was called: venv" in said
    assert not (environment / "ready").exists()  # an environment that is half built does not count as built


def test_what_the_environment_needs_is_said_in_one_line(tmp_path):
    newer = script(tmp_path / "python3.13", "exit 1")
    fitting = script(tmp_path / "python3.11", "exit 0")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "me.jpg").touch()
    for arguments, environment, part in [
        ([], {}, "usage: build.sh ENV_FOLDER [PYTHON]"),
        ([tmp_path / "new", newer], {}, f"{newer} is not Python 3.10 or 3.11"),
        ([tmp_path / "new", fitting], {"CXX": "no-such-compiler"}, "no C++ compiler (no-such-compiler)"),
        ([tmp_path / "photos", fitting], {"PATH": f"{tmp_path}:{os.environ['PATH']}"}, "is no virtual environment"),
    ]:
        script(tmp_path / "uv", "exit 1")
        status, said = build(*arguments, **environment)
        assert status == 2
        assert part in said
        assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "photos" / "me.jpg").exists()


def test_the_lock_has_hashes_and_the_projects_torch():
    lock = (FOLDER / "requirements.lock").read_text()
    packages = re.findall(r"^([a-z0-9-]+)==(\S+)(.*?)(?=^[a-z])", lock + "z", re.MULTILINE | re.DOTALL)
    assert len(packages) > 30
    assert all("--hash=sha256:" in rest for _, _, rest in packages)
    assert "://" not in lock
    pinned = {(name, version) for name, version, _ in packages}
    main_lock = (FOLDER.parent.parent.parent / "requirements.lock").read_text()
    for name in ("torch", "torchvision"):
        ((_, version),) = [pair for pair in pinned if pair[0] == name]
        assert f"\n{name}=={version} " in main_lock  # the same version, so that uv's cache holds it once
    assert ("openpifpaf", "0.13.11") in pinned


def test_synthetic_people_become_coco_annotations(tmp_path):
    specification = importlib.util.spec_from_file_location("train_synthetic", FOLDER / "train_synthetic.py")
    recipe = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(recipe)
    # COCO's order, from its data format page.
    names = "nose,left_eye,right_eye,left_ear,right_ear,left_shoulder,right_shoulder,left_elbow,right_elbow,left_wrist,"
    names += "right_wrist,left_hip,right_hip,left_knee,right_knee,left_ankle,right_ankle"
    assert recipe.write_coco(tmp_path / "people", range(5, 6), 2) == 16
    tree = json.loads((tmp_path / "people.json").read_text())
    assert tree["categories"][0]["keypoints"] == names.split(",")
    renders = recipe.people(5, 2)
    assert len(tree["annotations"]) == len(tree["images"]) == len(renders) == 16
    for render, image, annotation in zip(renders, tree["images"], tree["annotations"], strict=True):
        assert annotation["image_id"] == image["id"]
        written = cv2.imread(str(tmp_path / "people" / image["file_name"]))[:, :, ::-1]
        assert np.array_equal(written, render.image)
        points = np.array(annotation["keypoints"]).reshape(17, 3)
        for name, (x, y, visibility) in zip(names.split(","), points, strict=True):
            joint = JOINT[name]
            assert (visibility == 2) == render.visible[joint]
            if visibility:
                assert (x, y) == pytest.approx(render.joints[joint], abs=1e-3)
            else:
                assert (x, y) == (0, 0)
        assert annotation["num_keypoints"] == (points[:, 2] > 0).sum()
        x, y, width, height = annotation["bbox"]
        assert render.body[y : y + height, x : x + width].sum() == render.body.sum() == annotation["area"]


# ---------------------------------------------------------------------------------------------------- the real OpenPifPaf

ENVIRONMENT = Path(os.environ.get("POTGAN_OPENPIFPAF_ENV") or OPENPIFPAF_RECIPE / ".venv")
CHECKPOINT = REPOSITORY / "tests" / "reference" / "openpifpaf-synthetic.pkl"
#: The record of its training (reference/openpifpaf-synthetic.json) has 0.874 on 192 images of other people.
PCK_MARGIN = 0.8
openpifpaf = pytest.mark.skipif(
    not (ENVIRONMENT / "ready").is_file(),
    reason=f"{ENVIRONMENT} is not there: OpenPifPaf's environment is built by `{detection.BUILD} {ENVIRONMENT}`",
)


@pytest.fixture(scope="module")
def real() -> DetectorSettings:
    return DetectorSettings(
        checkpoint=CHECKPOINT,
        checkpoint_sha256=hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest(),
        scale=2.0,
        batch_size=8,
        workers=1,
        shard_size=64,
        device="cpu",
        python=ENVIRONMENT / "bin" / "python",
    )


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> tuple[list[ImageToDetect], Keypoints]:
    """64 synthetic people and their exact joints. The checkpoint was neither trained nor measured on people of this seed."""
    folder = tmp_path_factory.mktemp("people")
    images, joints, confidence = [], [], []
    for render in render_split(SyntheticSettings(train_identities=0, test_identities=8, seed=901), "test"):
        path = folder / f"{Path(render.name).stem}.png"
        cv2.imwrite(str(path), render.image[:, :, ::-1])
        images.append(ImageToDetect(render.name, path, hashlib.sha256(path.read_bytes()).hexdigest(), None))
        place, sure = annotate(render)
        joints.append(place)
        confidence.append(sure)
    return images, Keypoints([image.name for image in images], np.array(joints), np.array(confidence))


@pytest.fixture(scope="module")
def detected(real, people, tmp_path_factory) -> tuple[Keypoints, dict]:
    return detect(people[0], real, tmp_path_factory.mktemp("shards"))


def distances(a: Keypoints, b: Keypoints) -> np.ndarray:
    """The distances of the joints that both tables have."""
    both = a.present & b.present
    return np.linalg.norm(a.joints - b.joints, axis=2)[both]


@openpifpaf
def test_synthetic_people_are_found(detected, people):
    keypoints, record = detected
    result = pck(keypoints, people[1])
    assert result["pck"] > PCK_MARGIN
    assert result["detection_rate"] > 0.9
    assert record["estimator"].startswith("OpenPifPaf 0.13.11")
    assert record["device"] == "cpu"
    shoulders = keypoints.joints[:, [JOINT["right_shoulder"], JOINT["left_shoulder"]]]
    neck = keypoints.joints[:, JOINT["neck"]]
    assert np.allclose(neck, shoulders.mean(axis=1), atol=1e-3, equal_nan=True)
    assert ((keypoints.confidence > 0) == keypoints.present).all()


@openpifpaf
@pytest.mark.parametrize("scale", [2.0, 2.1])
def test_coordinates_have_no_shift(real, people, tmp_path, scale):
    # The network was trained on mirrored images too, so it sees a mirrored person as it sees the person. If coordinates
    # were off by half a pixel of the enlarged picture (0.25 here), the two would differ by twice that.
    mirrored = []
    for image in people[0]:
        path = tmp_path / image.path.name
        cv2.imwrite(str(path), cv2.imread(str(image.path))[:, ::-1])
        mirrored.append(replace(image, path=path, sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    once, record = detect(people[0], replace(real, scale=scale), tmp_path / "shards")
    twice, _ = detect(mirrored, replace(real, scale=scale), tmp_path / "shards")
    assert record["input_scale"] == scale
    back = twice.joints[:, list(MIRROR)]
    back[:, :, 0] = 63 - back[:, :, 0]
    offset = (once.joints - back)[once.present & ~np.isnan(back[:, :, 0])]
    assert len(offset) > 600
    assert (np.abs(np.median(offset, axis=0)) < 0.15).all()


@openpifpaf
def test_enlarging_here_or_before_is_the_same(detected, real, people, tmp_path):
    # Pixel (x, y) of an image has its centre at (2 x + 0.5, 2 y + 0.5) of the image of twice the size.
    keypoints, _ = detect(enlarged_twice(people[0][:16], tmp_path), replace(real, scale=1), tmp_path / "shards")
    expected = 2 * detected[0].joints[:16] + 0.5
    assert (~np.isnan(expected)).sum() > 300
    assert np.allclose(keypoints.joints, expected, atol=0.02, equal_nan=True)


def enlarged_twice(images: list[ImageToDetect], folder: Path) -> list[ImageToDetect]:
    enlarged = []
    for image in images:
        picture = cv2.resize(cv2.imread(str(image.path)), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / image.path.name), picture)
        enlarged.append(replace(image, path=folder / image.path.name))
    return enlarged


@openpifpaf
def test_no_result_depends_on_the_batch(detected, real, people, tmp_path):
    images = [*people[0][:10]]
    # Images of two more sizes stand among them, so that the 8 images of a batch do not stand in a row.
    for i in (2, 5, 8):
        images[i] = replace(images[i], crop=(4, 60 - i))
    one, _ = detect(images, replace(real, batch_size=1), tmp_path / "one")
    eight, _ = detect(images, replace(real, shard_size=4), tmp_path / "eight")
    assert one.present.sum() > 60
    assert (one.present == eight.present).mean() > 0.99
    assert distances(one, eight).max() < 0.01
    whole = [i for i in range(10) if i not in (2, 5, 8)]
    apart = np.linalg.norm(one.joints[whole] - detected[0].joints[whole], axis=2)
    assert np.nanmax(apart) < 0.01


@openpifpaf
def test_a_crop_is_the_image_without_the_other_columns(real, people, tmp_path):
    cropped = []
    for image in people[0][:4]:
        cv2.imwrite(str(tmp_path / image.path.name), cv2.imread(str(image.path))[:, 5:61])
        cropped.append(replace(image, path=tmp_path / image.path.name))
    by_hand, _ = detect(cropped, real, tmp_path / "shards")
    by_crop, _ = detect([replace(image, crop=(5, 61)) for image in people[0][:4]], real, tmp_path / "shards")
    assert np.array_equal(by_hand.joints, by_crop.joints, equal_nan=True)


#: OpenPifPaf's own Predictor on files, as its command line uses it: `image -> [[score, 17 x [x, y, confidence]], ...]`.
PREDICTOR = """
import json, sys
import openpifpaf
predictor = openpifpaf.Predictor(checkpoint=sys.argv[1])
found = {}
for path in sys.argv[3:]:
    persons, _, _ = predictor.image(path)
    found[path] = [[float(p.score), p.data.tolist(), p.keypoints] for p in persons]
open(sys.argv[2], "w").write(json.dumps(found))
"""


@openpifpaf
def test_the_worker_reports_what_openpifpafs_own_predictor_finds(real, people, tmp_path):
    # OpenPifPaf's own Predictor reads the files itself. At scale 1 its coordinates must be the worker's.
    images = enlarged_twice(people[0][:8], tmp_path)
    keypoints, _ = detect(images, replace(real, scale=1), tmp_path / "shards")
    subprocess.run(
        [real.python, "-I", "-c", PREDICTOR, real.checkpoint, tmp_path / "found", *(image.path for image in images)],
        env={**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads((tmp_path / "found").read_text())
    compared = 0
    for image in images:
        persons = found[str(image.path)]
        if not persons:
            assert not keypoints.present[keypoints.row[image.name]].any()
            continue
        _, data, names = max(persons, key=lambda person: person[0])
        for name, (x, y, confidence) in zip(names, data, strict=True):
            joint, sure = (
                keypoints.of(image.name)[JOINT[name]],
                keypoints.confidence[keypoints.row[image.name], JOINT[name]],
            )
            if confidence > 0 and -0.5 <= x <= 127.5 and -0.5 <= y <= 255.5:
                assert joint == pytest.approx([x, y], abs=0.01)
                assert sure == pytest.approx(confidence, abs=1e-3)
                compared += 1
            else:
                assert np.isnan(joint).all()
    assert compared > 60


@openpifpaf
def test_what_the_worker_cannot_use_is_one_line(real, people, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    images = [people[0][0], ImageToDetect("broken.jpg", broken, "0" * 64, None)]
    said = message(lambda: detect(images, real, tmp_path / "shards"))
    assert said.startswith(f"{broken}: image broken.jpg")
    assert "cannot be decoded" in said
    assert "has no columns 3 to 69" in message(
        lambda: detect([replace(people[0][0], crop=(3, 70))], real, tmp_path / "shards")
    )
    foreign = tmp_path / "foreign.pkl"
    foreign.write_bytes(pickle.dumps({"model": "no network"}))
    digest = hashlib.sha256(foreign.read_bytes()).hexdigest()
    settings = replace(real, checkpoint=foreign, checkpoint_sha256=digest)
    assert "is no checkpoint that OpenPifPaf 0.13.11 can read" in message(
        lambda: detect(images[:1], settings, tmp_path / "shards")
    )
