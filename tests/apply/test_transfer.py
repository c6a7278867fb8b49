"""`potgan transfer`: the pixels are the network's, whatever else was asked for; every way to name a pose names the same
pose; what is wrong is one line, and what is doubtful a warning."""

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from potgan.apply import transfer
from potgan.apply.transfer import Pose, doubts, fitted, gif_bytes, read_inputs
from potgan.cli import main
from potgan.common.errors import UserError
from potgan.data import batches
from potgan.data.keypoint_files import read_keypoints, write_keypoints
from potgan.data.pose import JOINT, TORSO, Keypoints
from potgan.data.pose_rendering import pose_mask
from potgan.data.synthetic.people import annotate, render_split
from potgan.measure.generate import synthesise
from potgan.methods.generator_file import TrainedGenerator, load_generator, save_generator
from potgan.methods.potgan.generator import Generator
from potgan.settings.schema import (
    DiscriminatorSettings,
    GeneratorSettings,
    GuidedFilterSettings,
    LossWeights,
    MaskSettings,
    OpenPifPafSettings,
    RunSettings,
    SyntheticSettings,
    TrainingSettings,
)
from potgan.training.loop import train

HEIGHT, WIDTH = 64, 32
SETTINGS = RunSettings(
    dataset="people",
    seed=5,
    image_size=(HEIGHT, WIDTH),
    generator=GeneratorSettings(width=8, control_points=(3, 3), guided_filter=GuidedFilterSettings("test")),
    discriminator=DiscriminatorSettings(width=4, normalization="none"),
    loss_weights=LossWeights(perceptual=0),
    masks=MaskSettings(limb_radius=2, heatmap_sigma=3.0),
    training=TrainingSettings(
        iterations=8, batch_size=4, learning_rate=2e-3, decay_from=8, perceptual_network="random", checkpoints=1
    ),
)


@dataclasses.dataclass
class People:
    """Images of synthetic people in a folder, their table, and a generator that was trained on them for some steps."""

    folder: Path
    table: Path
    keypoints: Keypoints
    data: batches.PairData
    checkpoint: Path

    @property
    def names(self) -> list[str]:
        return self.keypoints.names

    def image(self, k: int) -> Path:
        return self.folder / self.names[k]

    def pixels(self, k: int) -> np.ndarray:
        return self.data.images[k].permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> People:
    folder = tmp_path_factory.mktemp("people")
    settings = SyntheticSettings(
        train_identities=3, test_identities=1, images_per_identity=4, height=HEIGHT, width=WIDTH, seed=77
    )
    names, images, joints = [], [], []
    for render in render_split(settings, "train"):
        names.append(f"{Path(render.name).stem}.png")
        cv2.imwrite(str(folder / names[-1]), render.image[:, :, ::-1])
        images.append(render.image)
        joints.append(np.round(annotate(render)[0]))  # whole pixels, which every format holds
    joints = np.array(joints, np.float32)
    keypoints = Keypoints(names, joints, (~np.isnan(joints[:, :, 0])).astype(np.float32))
    table = folder / "table.csv"
    write_keypoints(keypoints, table, "own")
    count = len(names)
    masks = np.stack([255 * pose_mask(j, HEIGHT, WIDTH, 2) for j in joints])
    data = batches.PairData(
        names,
        torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(masks)[:, None],
        torch.from_numpy(joints),
        torch.arange(count),
        (torch.arange(count) + 1) % count,
        3.0,
    )
    run = folder / "run" / "train"
    train(data, None, SETTINGS, run, {"images": "people"}, torch.device("cpu"))
    return People(folder, table, keypoints, data, run / "generator-000008.pt")


@pytest.fixture
def trained(people) -> TrainedGenerator:
    return load_generator(people.checkpoint)


def run(people: People, out: Path, *arguments: object, source: int = 0, keypoints: bool = True) -> int:
    words = ["transfer", "--checkpoint", people.checkpoint, "--source", people.image(source), "--out", out, *arguments]
    words += ["--keypoints", people.table] if keypoints and "--keypoints" not in arguments else []
    return main([str(word) for word in [*words, "--device", "cpu"]])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))  # another decoder than the code's


# ------------------------------------------------------------------------------------------------------------ the network


def test_the_picture_is_what_the_network_makes_of_these_inputs(people, trained) -> None:
    """Written out once more: x / 127.5 - 1, exp(-d^2 / 2 sigma^2), masks, and back."""
    joints = people.keypoints.joints
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    maps = np.zeros((1, 18, HEIGHT, WIDTH), np.float32)
    for k, (u, v) in enumerate(joints[4]):
        if not np.isnan(u):
            maps[0, k] = np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 3.0**2))
    masks = [torch.from_numpy(pose_mask(joints[k], HEIGHT, WIDTH, 2)).float()[None, None] for k in (0, 4)]
    source = torch.from_numpy(people.pixels(0).transpose(2, 0, 1)[None] / np.float32(127.5) - np.float32(1))
    with torch.no_grad():
        out = trained.generator(source, *masks, torch.from_numpy(maps)).image
    wanted = np.clip(np.round((out[0].permute(1, 2, 0).numpy() + 1) * 127.5), 0, 255)
    found = transfer.transfer(trained, people.pixels(0), joints[0], [Pose("b", joints[4])])
    assert found.shape == (1, HEIGHT, WIDTH, 3)
    assert found.dtype == np.uint8
    assert np.abs(found[0] - wanted).max() <= 1  # a rounding at a half, where sums differ
    assert (found[0] == wanted).mean() > 0.999


def test_it_is_what_the_stage_generate_makes_of_the_pair(people, trained) -> None:
    made = list(synthesise(trained.generator, people.data, 4))
    for pair in (0, 5):
        source, target = int(people.data.sources[pair]), int(people.data.targets[pair])
        joints = people.keypoints.joints
        pose = Pose("b", joints[target])
        found = transfer.transfer(trained, people.pixels(source), joints[source], [pose])[0]
        assert np.abs(found.astype(int) - made[pair][0]).max() <= 1


def test_pixels_do_not_depend_on_the_batch_nor_on_the_other_poses(people, trained) -> None:
    joints = people.keypoints.joints
    poses = [Pose(str(k), joints[k % len(joints)] + k // len(joints)) for k in range(40)]
    whole = transfer.transfer(trained, people.pixels(0), joints[0], poses, batch_size=1)
    assert len({picture.tobytes() for picture in whole}) == 40
    for size in (8, 32, 40, 100):
        assert np.array_equal(transfer.transfer(trained, people.pixels(0), joints[0], poses, batch_size=size), whole)
    alone = transfer.transfer(trained, people.pixels(0), joints[0], poses[17:18])
    assert np.array_equal(alone[0], whole[17])
    backwards = transfer.transfer(trained, people.pixels(0), joints[0], poses[::-1], batch_size=8)
    assert np.array_equal(backwards[::-1], whole)


def test_the_network_never_sees_two_poses_at_once(people, trained, monkeypatch) -> None:
    """That is what makes the test above exact and not lucky: batched sums differ in few pixels of a million."""
    seen = []
    forward = Generator.forward
    monkeypatch.setattr(Generator, "forward", lambda self, *a: seen.append({len(x) for x in a}) or forward(self, *a))
    poses = [Pose(str(k), people.keypoints.joints[k]) for k in range(5)]
    transfer.transfer(trained, people.pixels(0), people.keypoints.joints[0], poses, batch_size=4)
    assert seen == [{1}] * 5


# ------------------------------------------------------------------------------------------------------------------ poses


def test_every_way_to_name_a_pose_gives_the_same_picture(people, tmp_path, trained) -> None:
    name, row = people.names[4], people.keypoints.rows([4])
    write_keypoints(row, tmp_path / "patn.csv", "patn")
    write_keypoints(row, tmp_path / "coco.json", "coco17")
    write_keypoints(row, tmp_path / "openpose", "openpose")
    (one,) = (tmp_path / "openpose").iterdir()
    ways = [people.image(4), f"{people.table}:{name}", tmp_path / "patn.csv", tmp_path / "coco.json", one,
            tmp_path / "openpose"]  # fmt: skip
    pictures = []
    for k, way in enumerate(ways):
        assert run(people, tmp_path / f"{k}.png", "--pose", way) == 0
        pictures.append((tmp_path / f"{k}.png").read_bytes())
    assert len(set(pictures)) == 1
    joints = people.keypoints.joints
    wanted = transfer.transfer(trained, people.pixels(0), joints[0], [Pose("b", joints[4])])[0]
    assert np.array_equal(pixels(tmp_path / "0.png"), wanted)


def test_a_table_is_all_its_rows_in_their_order_and_a_row_by_its_name(people) -> None:
    _, source, poses = read_inputs(
        people.image(2), [f"{people.table}:{people.names[7]}", str(people.table)], (HEIGHT, WIDTH), None, [people.table]
    )
    assert [pose.name for pose in poses] == [people.names[7], *people.names]
    np.testing.assert_array_equal(source.joints, people.keypoints.joints[2])
    np.testing.assert_array_equal(poses[0].joints, people.keypoints.joints[7])


def test_the_sources_own_pose(people, tmp_path) -> None:
    one = tmp_path / "one.csv"
    write_keypoints(people.keypoints.rows([3]), one, "own")
    for word, row in ((str(one), 3), (f"{people.table}:{people.names[6]}", 6), (str(people.table), 0)):
        source = read_inputs(people.image(0), [str(one)], (HEIGHT, WIDTH), word)[1]
        np.testing.assert_array_equal(source.joints, people.keypoints.joints[row])


def test_a_table_whose_name_has_a_colon(people, tmp_path) -> None:
    path = tmp_path / "12:30.csv"
    write_keypoints(people.keypoints.rows([3, 4]), path, "own")
    assert transfer.split_word(str(path)) == (path, None)
    assert transfer.split_word(f"{path}:{people.names[4]}") == (path, people.names[4])


def test_larger_images_are_resized_with_their_joints(people, tmp_path) -> None:
    """Three times as large by pixel doubling: pixel p's three columns are 3 p to 3 p + 2, its centre is 3 p + 1."""
    large = tmp_path / people.names[0]
    cv2.imwrite(str(large), np.kron(people.pixels(0), np.ones((3, 3, 1), np.uint8))[:, :, ::-1])
    table = tmp_path / "large.csv"
    joints = people.keypoints.joints[:1] * 3 + 1
    write_keypoints(Keypoints([people.names[0]], joints, people.keypoints.confidence[:1]), table, "own")
    image, source, poses = read_inputs(large, [str(large)], (HEIGHT, WIDTH), None, [table])
    np.testing.assert_array_equal(image, people.pixels(0))
    for pose in (source, poses[0]):
        np.testing.assert_allclose(pose.joints, people.keypoints.joints[0], atol=1e-4)
        assert pose.stretch == 1
    row = read_inputs(large, [str(table)], (HEIGHT, WIDTH), None, [table], pose_size=(3 * HEIGHT, 3 * WIDTH))[2][0]
    np.testing.assert_allclose(row.joints, people.keypoints.joints[0], atol=1e-4)
    assert run(people, tmp_path / "c.png", "--pose", table, "--pose-size", 3 * HEIGHT, 3 * WIDTH) == 0
    assert pixels(tmp_path / "c.png").shape == (HEIGHT, WIDTH, 3)


def test_stretch_is_width_over_height() -> None:
    joints = np.zeros((18, 2), np.float32)
    assert fitted("a", joints, (64, 64), (64, 32)).stretch == 0.5
    assert fitted("a", joints, (128, 64), (64, 32)).stretch == 1.0


# ------------------------------------------------------------------------------------------------------------- OpenPifPaf


def test_without_tables_and_openpifpaf_one_line_says_what_to_do(people, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("POTGAN_OPENPIFPAF_ENV", str(tmp_path / "absent"))
    assert run(people, tmp_path / "c.png", "--pose", people.image(1), keypoints=False) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--keypoints TABLE" in said
    assert f"build.sh {tmp_path / 'absent'}" in said


def test_detected_joints_belong_to_their_images(people, tmp_path, monkeypatch) -> None:
    """A detector that puts the nose at (width, height) of the file it is given, enlarged so that people are large enough."""
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").write_text("")
    weights = tmp_path / "weights.pkl"
    weights.write_bytes(b"")
    monkeypatch.setenv("POTGAN_OPENPIFPAF_ENV", str(tmp_path / "env"))
    scales = []

    def detect(images, settings, shards):
        joints = np.full((len(images), 18, 2), np.nan, np.float32)
        for k, image in enumerate(images):
            assert image.sha256 == hashlib.sha256(image.path.read_bytes()).hexdigest()
            joints[k, JOINT["nose"]] = cv2.imread(str(image.path)).shape[1::-1]
            scales.append(settings.scale)
        assert len({image.name for image in images}) == len(images)
        return Keypoints([image.name for image in images], joints, np.ones((len(images), 18), np.float32)), {}

    monkeypatch.setattr(transfer, "detect", detect)
    paths = []
    for folder, size in (("a", (64, 32)), ("b", (128, 64)), ("c", (640, 480))):  # all of one name
        (tmp_path / folder).mkdir()
        paths.append(tmp_path / folder / "x.png")
        cv2.imwrite(str(paths[-1]), np.zeros((*size, 3), np.uint8))
    settings = OpenPifPafSettings(checkpoint=str(weights), checkpoint_sha256="0" * 64)
    found = transfer.joints_of_images([*paths, paths[0]], [], settings)
    assert {p: j[JOINT["nose"]].tolist() for p, j in found.items()} == {
        paths[0]: [32, 64], paths[1]: [64, 128], paths[2]: [480, 640],
    }  # fmt: skip
    assert scales == [6, 3, 1]


def test_openpifpaf_itself(tmp_path, monkeypatch) -> None:
    from test_detection import CHECKPOINT, ENVIRONMENT

    if not (ENVIRONMENT / "ready").is_file():
        pytest.skip(f"{ENVIRONMENT} is not there")
    monkeypatch.setenv("POTGAN_OPENPIFPAF_ENV", str(ENVIRONMENT))
    render = next(render_split(SyntheticSettings(train_identities=0, test_identities=1, seed=901), "test"))
    path = tmp_path / "x.png"
    cv2.imwrite(str(path), render.image[:, :, ::-1])
    digest = hashlib.sha256(CHECKPOINT.read_bytes()).hexdigest()
    settings = OpenPifPafSettings(checkpoint=str(CHECKPOINT), checkpoint_sha256=digest, scale=2.0, device="cpu")
    found = transfer.joints_of_images([path], [], settings)[path]
    distance = np.linalg.norm(found - annotate(render)[0], axis=1)
    assert np.nanmedian(distance) < 4  # pixels of 128


# ---------------------------------------------------------------------------------------------------------------- pictures


def test_the_same_again_gives_the_same_bytes(people, tmp_path) -> None:
    for suffix in ("png", "gif"):
        for k in range(2):
            assert run(people, tmp_path / f"{k}.{suffix}", "--pose", people.table, "--batch-size", 1 + 7 * k) == 0
        assert (tmp_path / f"0.{suffix}").read_bytes() == (tmp_path / f"1.{suffix}").read_bytes()


def test_a_strip_shows_source_poses_and_results(people, tmp_path, trained) -> None:
    """Frames of 64 x 32 are shown 256 x 128; gaps of 6 pixels; pose above, picture below; 8 results a row."""
    joints = people.keypoints.joints
    assert run(people, tmp_path / "c.png", "--pose", people.table) == 0
    found = pixels(tmp_path / "c.png").astype(int)
    assert found.shape == (2 * (256 + 6 + 256) + 18, 9 * 128 + 8 * 6, 3)
    results = transfer.transfer(trained, people.pixels(0), joints[0], [Pose(str(k), j) for k, j in enumerate(joints)])

    def frame(row: int, column: int, upper: bool) -> np.ndarray:
        top, left = row * (256 + 6 + 256 + 18) + (0 if upper else 262), column * 134
        return found[top : top + 256, left : left + 128]

    for shown, wanted in (
        (frame(0, 0, False), people.pixels(0)),
        (frame(1, 0, False), people.pixels(0)),
        (frame(0, 1, False), results[0]),
        (frame(0, 8, False), results[7]),
        (frame(1, 1, False), results[8]),
    ):
        small = shown.reshape(64, 4, 32, 4, 3).mean(axis=(1, 3))
        assert np.abs(small - wanted).mean() < 3  # smooth enlargement and back
    for k in range(18):
        x, y = joints[2, k]
        if not np.isnan(x):
            place = frame(0, 3, True)[int(4 * y + 2), int(4 * x + 2)]
            assert place.max() > 100  # a coloured disc at the joint
    assert (frame(1, 7, False) == 255).all()  # 12 poses: the second row has 4


def test_an_overlay_is_drawn_on_the_result(people, tmp_path) -> None:
    assert run(people, tmp_path / "plain.png", "--pose", people.image(4)) == 0
    assert run(people, tmp_path / "drawn.png", "--pose", people.image(4), "--overlay") == 0
    changed = (pixels(tmp_path / "plain.png") != pixels(tmp_path / "drawn.png")).any(axis=2)
    joints = people.keypoints.joints[4]
    joints = joints[~np.isnan(joints[:, 0])].astype(int)
    assert changed[joints[:, 1], joints[:, 0]].all()
    assert changed.mean() < 0.5
    assert run(people, tmp_path / "strip.png", "--pose", people.image(4), people.image(5), "--overlay") == 0
    assert pixels(tmp_path / "strip.png").shape == (256, 3 * 128 + 2 * 6, 3)


def test_a_gif_has_a_frame_a_pose_and_stays_near_its_colours(people, tmp_path) -> None:
    assert run(people, tmp_path / "c.gif", "--pose", people.table, "--frames-per-second", 10) == 0
    gif = Image.open(tmp_path / "c.gif")
    assert (gif.n_frames, gif.size, gif.info["loop"], gif.info["duration"]) == (12, (3 * 128 + 12, 256), 0, 100)
    y, x = np.mgrid[:40, :60]
    picture = np.stack([3 * x, 4 * y, 255 - 2 * x], axis=2).astype(np.uint8)
    (tmp_path / "d.gif").write_bytes(gif_bytes([picture, picture[::-1]], 5))
    gif = Image.open(tmp_path / "d.gif")
    for k, wanted in enumerate((picture, picture[::-1])):
        gif.seek(k)
        assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - wanted).mean() < 8


# ---------------------------------------------------------------------------------------------------------------- doubts


def standing(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A person that fills the frame: a torso of 0.3 of its height."""
    joints = np.full((18, 2), np.nan, np.float32)
    for name, (x, y) in {
        "nose": (0.5, 0.1), "neck": (0.5, 0.2), "right_shoulder": (0.3, 0.2), "left_shoulder": (0.7, 0.2),
        "right_hip": (0.4, 0.5), "left_hip": (0.6, 0.5), "right_knee": (0.4, 0.7), "left_knee": (0.6, 0.7),
        "right_ankle": (0.4, 0.9), "left_ankle": (0.6, 0.9),
    }.items():  # fmt: skip
        joints[JOINT[name]] = x * width, y * height
    return joints


def without(joints: np.ndarray, *names: str) -> np.ndarray:
    joints = joints.copy()
    joints[[JOINT[name] for name in names]] = np.nan
    return joints


def test_a_usual_pose_raises_no_doubt(trained) -> None:
    assert doubts(trained, Pose("a", standing()), [Pose("b", standing() + 2)]) == []


@pytest.mark.parametrize(
    ("joints", "stretch", "said"),
    [
        (standing(), 1.25, "b: has proportions far from the generator's 32 x 64"),
        (standing(), 0.75, "b: has proportions far from"),
        (without(standing(), "nose", "neck", "left_ankle"), 1.0, "b: has fewer than 8 of 18 joints"),
        (without(standing(), "left_hip"), 1.0, "b: has not both shoulders and both hips"),
        (standing() + np.array([2 * WIDTH // 3, 0]), 1.0, "b: has more than half of the joints outside of the frame"),
        (standing() * 0.5, 1.0, "b: has a torso shorter than 0.18 or longer than 0.42"),
        (standing() * 1.5, 1.0, "b: has a torso shorter than 0.18 or longer than 0.42"),
    ],
)
def test_each_doubt_is_one_line_of_its_own(trained, joints: np.ndarray, stretch: float, said: str) -> None:
    usual, odd = Pose("a", standing()), Pose("b", joints.astype(np.float32), stretch)
    for lines in (doubts(trained, usual, [usual, odd, usual]), doubts(trained, odd, [usual])):
        (line,) = lines
        assert line.startswith(said)


def test_just_inside_the_limits_is_no_doubt(trained) -> None:
    for joints, stretch in ((standing(), 1.19), (standing() * 0.62, 1.0), (standing() * 1.05, 1 / 1.19),
                            (without(standing(), "nose", "neck"), 1.0)):  # fmt: skip
        assert doubts(trained, Pose("a", joints.astype(np.float32), stretch), [Pose("b", standing())]) == []


def test_a_doubt_about_many_poses_is_still_one_line(trained) -> None:
    small = [Pose(f"b{k}", standing() * 0.5) for k in range(3)]
    (line,) = doubts(trained, Pose("a", standing()), small)
    assert line.startswith("3 of 4 poses (first: b0) have a torso")


def test_a_generator_of_rendered_people_says_so(trained) -> None:
    synthetic = dataclasses.replace(trained, run=trained.run | {"kind": "synthetic"})
    (line,) = doubts(synthetic, Pose("a", standing()), [Pose("b", standing())])
    assert "trained on rendered people" in line


def test_one_percent_of_the_published_training_images_lies_outside_of_each_limit(shared, trained) -> None:
    """The numbers that the warnings name, counted from the published table; a frame of 128 x 64."""
    table = read_keypoints(shared / "published" / "market-annotation-train.csv")
    used = table.joints[table.present[:, list(TORSO)].all(axis=1)]
    assert len(used) == 12116
    market = dataclasses.replace(trained, image_size=(128, 64))
    poses = [Pose(str(k), joints) for k, joints in enumerate(used)]
    counts = {}
    for line in doubts(market, poses[0], poses[1:]):
        count, of = re.match(r"(\d+) of (\d+) poses", line).groups()
        assert int(of) == 12116
        counts["torso" if "torso" in line else "joints"] = int(count) / 12116
    assert counts == pytest.approx({"torso": 0.01, "joints": 0.01}, abs=0.002)


def test_doubts_are_printed_and_the_picture_is_still_made(people, tmp_path, capsys) -> None:
    poses = tmp_path / "poses.csv"
    joints = np.stack([standing(), standing() * 0.5])
    write_keypoints(
        Keypoints(["a.jpg", "b.jpg"], joints, (~np.isnan(joints[:, :, 0])).astype(np.float32)), poses, "own"
    )
    assert run(people, tmp_path / "c.png", "--pose", poses) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert any(line.startswith("potgan transfer: warning: b.jpg: has a torso") for line in warnings)
    assert (tmp_path / "c.png").is_file()


# --------------------------------------------------------------------------------------------------------- what is wrong


def test_wrong_input_is_one_line_and_writes_nothing(people, tmp_path, capsys) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    nobody = tmp_path / "nobody.csv"
    empty = Keypoints(["n.jpg"], np.full((1, 18, 2), np.nan, np.float32), np.zeros((1, 18), np.float32))
    write_keypoints(empty, nobody, "own")
    rows = tmp_path / "rows.csv"
    rows.write_text(people.table.read_text().splitlines()[0] + "\n")
    stranger = tmp_path / "stranger.png"
    stranger.write_bytes(people.image(1).read_bytes())
    other = tmp_path / "other.pt"
    save_generator(other, Generator(SETTINGS.generator, (HEIGHT, WIDTH)), SETTINGS, 1, {})
    content = torch.load(other, weights_only=True)
    settings = json.loads(content["generator_settings"]) | {"width": 16}
    torch.save(content | {"generator_settings": json.dumps(settings)}, other)
    good, out = people.image(4), tmp_path / "c.png"
    source_table = people.table
    cases = [
        (["--pose", tmp_path / "absent.jpg"], "absent.jpg: no such file; a pose is"),
        (["--pose", text], "text.jpg: cannot be decoded as an image"),
        (["--pose", nobody], "n.jpg: has no person in it"),
        (["--pose", rows], "rows.csv: has no rows"),
        (["--pose", f"{people.table}:nobody.png"], "has no pose of 'nobody.png'; it has 12 names"),
        (["--pose", stranger], "has no pose of 'stranger.png'"),
        (["--pose", f"{good}:x"], "an image has one pose"),
        (["--pose", people.checkpoint], "generator-000008.pt, line 1"),
        (["--pose", good, "--checkpoint", text], "is no generator file, or is damaged"),
        (["--pose", good, "--checkpoint", other], "do not fit its own settings"),
        (["--pose", good, "--checkpoint", tmp_path / "absent.pt"], "no such checkpoint"),
        (["--pose", good, "--checkpoint", tmp_path], "is no run"),
        (["--pose", good, "--source", tmp_path / "absent.jpg"], "absent.jpg: no such image"),
        (["--pose", good, "--source", text], "text.jpg: cannot be decoded"),
        (["--pose", good, "--source-pose", nobody], "has no person whose joints are known"),
        (["--pose", good, "--source-pose", good], "is an image; --source-pose names a key-point table"),
        (["--pose", good, "--source-pose", f"{source_table}:x.png"], "has no pose of 'x.png'"),
        (["--pose", good, "--keypoints", tmp_path / "absent.csv"], "absent.csv: no such key-point table"),
        (["--pose", good, "--keypoints", people.table, nobody, "--source", stranger], "none has a pose of 'stranger.png'"),
        (["--pose", good, "--out", tmp_path / "c.jpg"], "--out ends in .png"),
        (["--pose", good, "--out", good], "is one of the inputs"),
        (["--pose", good, "--out", people.image(0)], "is one of the inputs"),
        (["--pose", good, "--batch-size", 0], "--batch-size must be at least 1"),
        (["--pose", good, "--frames-per-second", 0], "--frames-per-second must lie between"),
        (["--pose", good, "--pose-size", 0, 10], "--pose-size must be"),
    ]  # fmt: skip
    before = {path: path.read_bytes() for path in (good, people.image(0))}
    for arguments, said in cases:
        assert run(people, out, *arguments) == 2, arguments
        error = capsys.readouterr().err
        assert said in error, arguments
        assert error.count("\n") == 1, error
        assert not out.exists()
    assert {path: path.read_bytes() for path in before} == before
    if not torch.cuda.is_available():
        words = ["transfer", "--checkpoint", people.checkpoint, "--source", good, "--pose", good, "--out", out]
        assert main([*map(str, words), "--keypoints", str(people.table), "--device", "cuda"]) == 2
        assert "sees no GPU" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_image_without_rights_is_one_line(tmp_path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(UserError, match="cannot be read"):
        transfer.read_picture(path)


# ------------------------------------------------------------------------------------------------------------ real images


def test_a_real_person_in_another_real_persons_pose(shared, tmp_path, capsys) -> None:
    """Market-1501's own names, sizes and published key points; no training: the weights are a fresh network's."""
    import zipfile

    sample = shared / "market1501-sample"
    first, second = "0598_c3s2_015412_02.jpg", "0004_c3s3_075569_03.jpg"
    with zipfile.ZipFile(sample / "Market-1501-sample.zip") as archive:
        for entry in archive.namelist():
            if Path(entry).name in (first, second):
                (tmp_path / Path(entry).name).write_bytes(archive.read(entry))
    settings = dataclasses.replace(SETTINGS, image_size=(128, 64), masks=MaskSettings())
    torch.manual_seed(0)
    save_generator(tmp_path / "g.pt", Generator(settings.generator, (128, 64)), settings, 1, {})
    words = ["transfer", "--checkpoint", "g.pt", "--source", first, "--pose", second, "--out", "c.png", "--device", "cpu",
             "--keypoints", str(sample / "market-annotation-test.csv")]  # fmt: skip
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        assert main(words) == 0
    finally:
        os.chdir(here)
    assert pixels(tmp_path / "c.png").shape == (128, 64, 3)
    assert "warning" not in capsys.readouterr().err
