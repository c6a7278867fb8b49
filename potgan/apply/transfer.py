"""A trained generator put to use: one person's image, other poses, and pictures of that person in them.

A pose is asked for as a word of the command line:

    b.jpg            the person in an image, whose joints stand in a key-point table under the image's file name, or are
                     found by OpenPifPaf
    poses.csv        every row of a key-point table in any format that `pose_files.py` reads (also COCO's and OpenPose's JSON)
    poses.csv:NAME   one row of it

The network is given one pose at a time, always. Sums of floating-point numbers depend on the size of a batch (of 786,432
values some 3 came out one level apart between batches of 1, 8 and 32 on a CPU), and the picture of a pose must not depend
on which other poses were asked for.
"""

from __future__ import annotations

import dataclasses
import difflib
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from potgan.apply.runs import open_generator
from potgan.common.device import device_name, pick_device
from potgan.common.errors import UserError
from potgan.common.files import sha256_of, write_bytes
from potgan.common.paths import openpifpaf_environment
from potgan.common.progress import progress, say
from potgan.data.batches import PARSING, Batch, to_mask, to_model, to_pixels
from potgan.data.detection import BUILD, DetectorSettings, ImageToDetect, detect
from potgan.data.keypoint_files import match_names, read_keypoints
from potgan.data.keypoints import checkpoint_of
from potgan.data.pixels import decode_image, png_bytes, resize, scale_joints
from potgan.data.pose import JOINT, JOINTS, TORSO, Keypoints
from potgan.data.pose_rendering import draw_skeleton, heatmaps, model_mask
from potgan.methods.generator_file import TrainedGenerator
from potgan.settings.schema import OpenPifPafSettings

#: What a word on the command line must end in to be an image; anything else is a table.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")
OUT_SUFFIXES = (".png", ".gif")
DETECTOR = OpenPifPafSettings()

#: Where a generator is no longer trusted without a word. Of the 12,116 training images of Market-1501 that the rule `patn`
#: uses (published key points), 1 % have fewer joints, and 1 % have a torso (middle of the shoulders to middle of the hips)
#: outside of this range, in heights of the frame.
FEWEST_JOINTS = 8
TORSO_RANGE = (0.18, 0.42)
#: Every training image has the frame's proportions. Beyond a fifth the stretched person shows.
LARGEST_STRETCH = 1.2

#: Strips: pixels that a frame is high at least (small frames are enlarged), frames in a row, pixels between frames.
SHOWN_HEIGHT = 256
COLUMNS = 9
GAP = 6


@dataclass(frozen=True)
class Pose:
    """One pose in the generator's frame. joints: (18, 2) pixels, NaN = missing. stretch: how many times wider than high the
    image that it is from became when it was fitted into the frame (1 = as it was)."""

    name: str
    joints: np.ndarray
    stretch: float = 1.0


# ---------------------------------------------------------------------------------------------------------------------
# The network


@torch.no_grad()
def transfer(
    trained: TrainedGenerator, source: np.ndarray, source_joints: np.ndarray, poses: Sequence[Pose], batch_size: int = 8
) -> np.ndarray:
    """(N, H, W, 3) uint8: the person of `source` in each of the N poses.

    source: (H, W, 3) uint8 RGB of the generator's size; source_joints: (18, 2) in its pixels. batch_size: poses whose masks
    are moved to the device and whose pictures are fetched from it together; the pictures do not depend on it. On a GPU,
    TF32 and the search for the fastest algorithm are off, so that a picture comes out the same again.
    """
    height, width = trained.image_size
    device = next(trained.generator.parameters()).device
    if PARSING in trained.generator.needs:
        raise UserError(
            "this generator reads the parsing of the source image (a class for each pixel), which `potgan transfer` cannot make; "
            "use it on a data set that has one"
        )

    def masks_of(joints: Sequence[np.ndarray]) -> torch.Tensor:
        drawn = np.stack([model_mask(pose, height, width, trained.masks) for pose in joints])
        return to_mask(torch.from_numpy(drawn)[:, None].to(device))

    image = to_model(torch.from_numpy(source).permute(2, 0, 1)[None].contiguous().to(device))
    source_mask = masks_of([source_joints])
    source_at = torch.from_numpy(source_joints.astype(np.float32))[None].to(device)
    source_maps = heatmaps(source_at, height, width, trained.masks.heatmap_sigma)
    pictures = []
    parts = [poses[first : first + batch_size] for first in range(0, len(poses), batch_size)]
    shown = progress(parts, len(poses), "transfer", "poses", weight=len) if len(parts) > 1 else parts
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        for part in shown:
            masks = masks_of([pose.joints for pose in part])
            joints = torch.from_numpy(np.stack([pose.joints for pose in part]).astype(np.float32)).to(device)
            made = []
            for k in range(len(part)):
                batch = Batch(
                    source_image=image,
                    source_mask=source_mask,
                    target_mask=masks[k : k + 1],
                    source_heatmaps=source_maps,
                    target_heatmaps=heatmaps(joints[k : k + 1], height, width, trained.masks.heatmap_sigma),
                    source_joints=source_at,
                    target_joints=joints[k : k + 1],
                )
                made.append(to_pixels(trained.generator.synthesise(batch).image))
            pictures.append(torch.cat(made).permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(pictures)


# ---------------------------------------------------------------------------------------------------------------------
# Images and poses


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image that a person named."""
    try:
        image = decode_image(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the path and its rights") from None
    if image is None:
        raise UserError(f"{path}: cannot be decoded as an image; name a whole JPEG or PNG file")
    return image


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def split_word(word: str) -> tuple[Path, str | None]:
    """`poses.csv:NAME` -> (poses.csv, NAME); a path that exists as it stands has no name behind it."""
    if Path(word).exists():
        return Path(word), None
    for place, character in enumerate(word):
        if character == ":" and Path(word[:place]).exists():
            return Path(word[:place]), word[place + 1 :]
    raise UserError(f"{word}: no such file; a pose is an image, a key-point table, or TABLE:NAME for one of its rows")


def row_of(table: Keypoints, name: str, path: Path) -> np.ndarray:
    """(18, 2) joints of the row of that name, or of the one that differs by a `.jpg` only."""
    found = match_names([name], table.names).get(name)
    if found is None:
        near = difflib.get_close_matches(name, table.names, n=1) or table.names[:1]
        hint = f", such as {near[0]!r}" if near else ""
        raise UserError(f"{path}: has no pose of {name!r}; it has {len(table):,} names{hint}")
    return table.of(found)


def joints_of_images(
    paths: Sequence[Path], tables: Sequence[Path], detector: OpenPifPafSettings = DETECTOR, person: str = "score"
) -> dict[Path, np.ndarray]:
    """Path -> (18, 2) joints in the image's own pixels: by file name from the tables where any are named, else by OpenPifPaf.

    person: as in `read_keypoints`, for the tables.

    Raises UserError for an image that no table has, and where neither tables nor OpenPifPaf's environment are there.
    """
    paths = list(dict.fromkeys(paths))
    if not paths:
        return {}
    if not tables:
        return _detected(paths, detector)
    read = [(table, read_keypoints(table, person)) for table in tables]
    found = {}
    for path in paths:
        fitting = next(((table, k) for table, k in read if match_names([path.name], k.names)), None)
        if fitting is None and len(read) > 1:
            raise UserError(
                f"{', '.join(map(str, tables))}: none has a pose of {path.name!r}; name the table that has it"
            )
        table, keypoints = fitting or read[0]
        found[path] = row_of(keypoints, path.name, table)
    return found


def _detected(paths: list[Path], settings: OpenPifPafSettings) -> dict[Path, np.ndarray]:
    environment = openpifpaf_environment()
    python = environment / "bin" / "python"
    if not python.is_file():
        raise UserError(
            f"{paths[0]}: its pose is not known; name a key-point table that has it (--keypoints TABLE), or build OpenPifPaf's "
            f"environment, which finds it: {BUILD} {environment}"
        )
    checkpoint, sha256 = checkpoint_of(settings, "transfer")
    # OpenPifPaf misses small people, so that an image of 128 rows is enlarged `scale` times; a large image is not.
    by_scale: dict[float, list[Path]] = {}
    for path in paths:
        scale = max(1.0, round(settings.scale * 128 / read_picture(path).shape[0], 2))
        by_scale.setdefault(scale, []).append(path)
    found = {}
    for scale, group in by_scale.items():
        images = [ImageToDetect(f"{i} {path.name}", path, sha256_of(path), None) for i, path in enumerate(group)]
        how = DetectorSettings(
            checkpoint, sha256, scale, settings.batch_size, 1, settings.shard_size, settings.device, python
        )
        with tempfile.TemporaryDirectory() as shards:
            keypoints, _ = detect(images, how, Path(shards))
        found |= dict(zip(group, keypoints.joints, strict=True))
    return found


def fitted(name: str, joints: np.ndarray, old: tuple[int, int], frame: tuple[int, int]) -> Pose:
    """The pose of an image of size `old` in the generator's frame."""
    stretch = (frame[1] / old[1]) / (frame[0] / old[0])
    return Pose(name, scale_joints(joints, old, frame) if old != frame else joints.astype(np.float32), stretch)


def read_inputs(
    source: Path,
    words: Sequence[str],
    frame: tuple[int, int],
    source_word: str | None = None,
    tables: Sequence[Path] = (),
    pose_size: tuple[int, int] | None = None,
    detector: OpenPifPafSettings = DETECTOR,
    person: str = "score",
) -> tuple[np.ndarray, Pose, list[Pose]]:
    """(source image in the frame, its pose, the target poses), from what a person named.

    words: as in the head of this module. source_word: a table or TABLE:NAME with the source's pose, in its pixels. tables:
    key points of images, by file name. pose_size: (height, width) of the images whose pixels the rows of pose tables count;
    None: the generator's frame. person: which of several people in an image of a table is meant (`read_keypoints`).

    Raises UserError for whatever is wrong with any of them; a pose without any joint is.
    """
    image = read_picture(source)
    targets = [split_word(word) for word in words]
    for path, name in targets:
        if name is not None and is_image(path):
            raise UserError(f"{path}:{name}: an image has one pose; only a table has names")
    sizes = {path: read_picture(path).shape[:2] for path, _ in targets if is_image(path)}
    found = joints_of_images([*sizes, *([] if source_word else [source])], tables, detector, person)
    joints = _source_row(source_word, source, person) if source_word else found[source]
    if np.isnan(joints[:, 0]).all():
        raise UserError(f"{source}: has no person whose joints are known; its pose decides what is moved")
    source_pose = fitted(source.name, joints, image.shape[:2], frame)

    poses: list[Pose] = []
    for path, name in targets:
        if is_image(path):
            poses.append(fitted(path.name, found[path], sizes[path], frame))
            continue
        table = read_keypoints(path, person)
        rows = [(n, table.of(n)) for n in table.names] if name is None else [(name, row_of(table, name, path))]
        if not rows:
            raise UserError(f"{path}: has no rows; name a table with at least one pose")
        poses += [fitted(n, row, pose_size or frame, frame) for n, row in rows]
    empty = [pose.name for pose in poses if np.isnan(pose.joints[:, 0]).all()]
    if empty:
        raise UserError(f"{_several(empty, len(poses))} no person in it; leave it out")
    return resize(image, frame), source_pose, poses


def _source_row(word: str, source: Path, person: str) -> np.ndarray:
    path, name = split_word(word)
    if is_image(path):
        raise UserError(f"{path}: is an image; --source-pose names a key-point table, or TABLE:NAME")
    table = read_keypoints(path, person)
    if name is None and len(table) == 1:
        return table.joints[0]
    return row_of(table, name or source.name, path)


# ---------------------------------------------------------------------------------------------------------------------
# Outside of what the generator was trained on


def doubts(trained: TrainedGenerator, source: Pose, poses: Sequence[Pose]) -> list[str]:
    """One line for each way in which source or poses lie outside of what the generator has seen; none for none.

    What is checked is what is known: proportions of the images, joints, the torso, its length (the constants above), the
    frame, and that synthetic people are no photographs. How alike clothes, cameras or backgrounds are is not measured.
    """
    height, width = trained.image_size
    everyone = [source, *poses]
    checks: list[tuple[str, list[str]]] = []

    def check(what: str, wrong: list[Pose]) -> None:
        if wrong:
            checks.append((what, [pose.name for pose in wrong]))

    def present(pose: Pose) -> np.ndarray:
        return pose.joints[~np.isnan(pose.joints[:, 0])]

    def outside(pose: Pose) -> float:
        inside = (present(pose) >= -0.5) & (present(pose) <= np.array([width, height]) - 0.5)
        return float((~inside.all(axis=1)).mean())

    check(
        f"proportions far from the generator's {width} x {height} (width x height), and people are stretched by more than a "
        "fifth; crop the image to the person first",
        [pose for pose in everyone if max(pose.stretch, 1 / pose.stretch) > LARGEST_STRETCH],
    )
    check(
        f"fewer than {FEWEST_JOINTS} of {len(JOINTS)} joints, as 1 % of Market-1501's training images have",
        [pose for pose in everyone if len(present(pose)) < FEWEST_JOINTS],
    )
    torsos = {id(pose): _torso(pose.joints) / height for pose in everyone}
    check(
        "not both shoulders and both hips, which every image of a training pair has",
        [pose for pose in everyone if np.isnan(torsos[id(pose)])],
    )
    check(
        "more than half of the joints outside of the frame",
        [pose for pose in everyone if outside(pose) > 0.5],
    )
    low, high = TORSO_RANGE
    check(
        f"a torso shorter than {low} or longer than {high} of the frame's height, where 99 % of Market-1501's training images "
        "lie between; crop the image to the person, or give --pose-size",
        [pose for pose in everyone if torsos[id(pose)] < low or torsos[id(pose)] > high],
    )
    lines = [f"{_several(names, len(everyone))} {what}" for what, names in checks]
    if trained.run.get("kind") == "synthetic":
        lines.append("the generator was trained on rendered people: photographs are outside of what it has seen")
    return lines


def _torso(joints: np.ndarray) -> float:
    """Middle of the shoulders to middle of the hips in pixels, NaN where one of the four is missing."""
    if np.isnan(joints[list(TORSO), 0]).any():
        return np.nan
    right_hip, left_hip, left, right = (
        joints[JOINT[n]] for n in ("right_hip", "left_hip", "left_shoulder", "right_shoulder")
    )
    return float(np.linalg.norm((left + right) / 2 - (left_hip + right_hip) / 2))


def _several(names: list[str], of: int) -> str:
    """`b.jpg has`, or `3 of 40 poses (first: b.jpg) have`."""
    return f"{names[0]}: has" if len(names) == 1 else f"{len(names)} of {of} poses (first: {names[0]}) have"


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


def with_skeleton(picture: np.ndarray, joints: np.ndarray) -> np.ndarray:
    return draw_skeleton(joints, *picture.shape[:2], background=picture)


def strip(
    source: np.ndarray, source_joints: np.ndarray, results: np.ndarray, poses: Sequence[Pose], overlay: bool
) -> np.ndarray:
    """(h, w, 3) uint8 RGB: the source, then every result, each with its pose above it (or, `overlay`, drawn on it).

    Frames less than 256 pixels high are enlarged by a whole number, smoothly. Rows of 9 frames; each begins with the source.
    """
    zoom = zoom_of(source.shape[0])
    first = _column(source, source_joints, overlay, zoom, mark=False)
    columns = [_column(result, pose.joints, overlay, zoom) for result, pose in zip(results, poses, strict=True)]
    per_row = COLUMNS - 1
    rows = [[first, *columns[k : k + per_row]] for k in range(0, len(columns), per_row)]
    widest = max(map(len, rows))
    blank = np.full_like(first, 255)
    return _stacked([_side_by_side(row + [blank] * (widest - len(row))) for row in rows], 3 * GAP)


def frames(source: np.ndarray, results: np.ndarray, poses: Sequence[Pose], overlay: bool) -> list[np.ndarray]:
    """One picture per pose for an animation: source, pose, result side by side (or, `overlay`, source and drawn-on result)."""
    zoom = zoom_of(source.shape[0])
    shown = []
    for result, pose in zip(results, poses, strict=True):
        panels = [_enlarged(source, zoom)]
        if not overlay:
            panels.append(draw_skeleton(pose.joints, *source.shape[:2], scale=zoom))
        panels.append(_column(result, pose.joints, True, zoom) if overlay else _enlarged(result, zoom))
        shown.append(_side_by_side(panels))
    return shown


def zoom_of(height: int) -> int:
    return max(1, -(-SHOWN_HEIGHT // height))


def _column(picture: np.ndarray, joints: np.ndarray, overlay: bool, zoom: int, mark: bool = True) -> np.ndarray:
    height, width = picture.shape[:2]
    large = _enlarged(picture, zoom)
    if overlay:
        return draw_skeleton(joints, height, width, background=large, scale=zoom) if mark else large
    return _stacked([draw_skeleton(joints, height, width, scale=zoom), large], GAP)


def _enlarged(picture: np.ndarray, zoom: int) -> np.ndarray:
    return resize(picture, (picture.shape[0] * zoom, picture.shape[1] * zoom))


def _side_by_side(panels: list[np.ndarray]) -> np.ndarray:
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)


def _stacked(panels: list[np.ndarray], gap: int) -> np.ndarray:
    between = np.full((gap, panels[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, between)][:-1], axis=0)


def gif_bytes(pictures: list[np.ndarray], frames_per_second: float) -> bytes:
    """An endless animation. One palette for all frames and no dithering: neither flickers."""
    from PIL import Image

    # Of many frames some are enough: they show the same person.
    chosen = pictures[:: -(-len(pictures) // 32)]
    palette = Image.fromarray(np.concatenate(chosen)).quantize(
        256, Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE
    )
    indexed = [Image.fromarray(p).quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    buffer = io.BytesIO()
    indexed[0].save(
        buffer, "GIF", save_all=True, append_images=indexed[1:], duration=round(1000 / frames_per_second), loop=0,
        optimize=False,
    )  # fmt: skip
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------------------------------------
# The verb


def transfer_files(
    checkpoint: Path,
    source: Path,
    words: Sequence[str],
    out: Path,
    *,
    source_word: str | None,
    tables: Sequence[Path],
    person: str,
    pose_size: Sequence[int] | None,
    overlay: bool,
    batch_size: int,
    frames_per_second: float,
    device: str,
) -> None:
    """`potgan transfer`: read, warn, synthesise, and write `out`. The parameters are the options of that verb.

    checkpoint: a run's folder or a generator's file. A .png of one pose is the picture itself in the generator's size, bit for
    bit; of several, or as .gif, a strip or an animation. Raises UserError as the functions above do, for a suffix of `out`
    that is none of OUT_SUFFIXES, and where `out` would replace an input.
    """
    pose_size = None if pose_size is None else tuple(pose_size)
    _check(source, words, out, batch_size, frames_per_second, pose_size)
    where = _device(device)
    trained = open_generator(checkpoint, where)
    detector = dataclasses.replace(DETECTOR, device="cpu" if device == "cpu" else "auto")
    image, source_pose, poses = read_inputs(
        source, words, trained.image_size, source_word, tables, pose_size, detector, person
    )
    for line in doubts(trained, source_pose, poses):
        say(f"potgan transfer: warning: {line}")
    torch.set_num_threads(1)  # sums must not depend on how many cores a machine has
    results = transfer(trained, image, source_pose.joints, poses, batch_size)
    if out.suffix.lower() == ".gif":
        content = gif_bytes(frames(image, results, poses, overlay), frames_per_second)
    elif len(poses) > 1:
        content = png_bytes(strip(image, source_pose.joints, results, poses, overlay))
    else:
        content = png_bytes(with_skeleton(results[0], poses[0].joints) if overlay else results[0])
    write_bytes(out, content)
    origin = "/".join(str(trained.run[key]) for key in ("dataset", "model") if trained.run.get(key))
    count = "1 pose" if len(poses) == 1 else f"{len(poses):,} poses"
    say(f"{out}: {source.name} in {count}, by iteration {trained.iteration:,} of {origin}, on {device_name(where)}")


def _check(
    source: Path,
    words: Sequence[str],
    out: Path,
    batch_size: int,
    frames_per_second: float,
    pose_size: tuple[int, int] | None,
) -> None:
    if out.suffix.lower() not in OUT_SUFFIXES:
        raise UserError(f"{out}: --out ends in .png (a picture, or a strip of several) or .gif (an animation)")
    for given in (source, *(split_word(word)[0] for word in words)):
        if given.exists() and out.exists() and given.samefile(out):
            raise UserError(f"{out}: is one of the inputs; give --out another name")
    if batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, and is {batch_size}")
    if not 0.1 <= frames_per_second <= 50:
        raise UserError(
            f"--frames-per-second must lie between 0.1 and 50, which GIF can hold, and is {frames_per_second:g}"
        )
    if pose_size is not None and min(pose_size) < 1:
        raise UserError(f"--pose-size must be a height and a width in pixels, and is {pose_size[0]} {pose_size[1]}")


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; leave it out or use cpu")
    return torch.device("cpu") if name == "cpu" else pick_device()
