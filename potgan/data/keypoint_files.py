"""Files of key points in several formats, which are read by their content, and written without loss where the format allows it.

    own           `keypoints.csv`: one named column per number, which is empty where a joint is missing
    patn          the annotation table of the published data, `name:keypoints_y:keypoints_x`, with integers, and -1 where a joint
                  is missing (Deformable GAN's compute_coordinates.py; PATN and its successors)
    patn-x-first  the same table with the x list first; the header tells the two apart
    coco17        COCO's JSON of key points (`images`, `annotations`), with 17 joints and no neck
    openpose      a folder of OpenPose's `<stem>_keypoints.json`, or one such file, with COCO's 18 joints or BODY_25

Two further formats are read, with COCO's 17 joints: AlphaPose's list of results, whose `image_id` is a file's name, and a folder of
OpenPifPaf's `<name>.predictions.json`, or one such file.

A table that is written as `own`, `coco17` or `openpose` is read with the same order of images and the same float32 numbers, bit for
bit. What the last two formats do not hold is written under the key `potgan`, which other readers ignore. `patn` truncates to
whole pixels, as the programs that write the published tables do.

All readers treat unusual input in the same way:
    - Text is UTF-8, with or without a byte order mark. Lines end in LF or CR LF. Blank lines are ignored.
    - Coordinates outside the image are kept, as OpenPifPaf has them; heat maps and masks end at the frame. More than ten million
      pixels are an error, and so is a pose that counts shares of the image in place of pixels.
    - A joint with confidence 0 is missing, whatever its coordinates are. A confidence between 1 and 2 in OpenPose's or COCO's
      files counts as 1, because the peak of an interpolated heat map can be too high. More is an error: the numbers have another
      scale, or stand in another order.
    - A name is the name of a file without folders, and stands once.
    - A line of a table has at most `LONGEST_LINE` bytes, and a JSON file at most `LARGEST_JSON`.
Every fault is a UserError of one line. It names the file, and the line or the place in the JSON tree.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from potgan.common.errors import UserError
from potgan.common.files import Json, is_of_macos, new_folder, plain_path, write_text
from potgan.common.progress import say
from potgan.data.pose import JOINT, JOINTS, Keypoints, refuse_outside, refuse_shares

FORMATS = ("own", "patn", "patn-x-first", "coco17", "openpose")
#: Bytes of one line of a table. A row of `keypoints.csv` has some 500. A file with longer lines is no table, or has lost its line
#: breaks.
LONGEST_LINE = 2**20
#: Bytes of one JSON file. COCO's person_keypoints_train2017.json has some 240 million; ours have about 1,000 per image.
LARGEST_JSON = 2**29

#: COCO's 17 key points (cocodataset.org, "Keypoint Detection"), and its skeleton, whose joints are numbered from 1.
COCO_JOINTS = (
    "nose",
    "left_eye",
    "right_eye",
    "left_ear",
    "right_ear",
    "left_shoulder",
    "right_shoulder",
    "left_elbow",
    "right_elbow",
    "left_wrist",
    "right_wrist",
    "left_hip",
    "right_hip",
    "left_knee",
    "right_knee",
    "left_ankle",
    "right_ankle",
)
COCO_SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11), (2, 3),
    (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip
#: The places of our 18 joints in OpenPose's BODY_25, which also has the middle of the hips (8) and feet (from 19 on). Source:
#: OpenPose, poseParameters.hpp, POSE_BODY_25_BODY_PARTS.
BODY_25_PLACES = (*range(8), *range(9, 19))

_COLUMNS = ["name"] + [f"{joint}_{part}" for joint in JOINTS for part in ("x", "y", "confidence")]
_PEER_HEADERS = {"name:keypoints_y:keypoints_x": "yx", "name:keypoints_x:keypoints_y": "xy"}
#: The largest coordinate, in pixels. Up to here float32, and a text of seven digits, hold every integer.
_LARGEST = 10**7
_COCO_PLACES = np.array([JOINT[name] for name in COCO_JOINTS])
_OPENPOSE_ENDING = "_keypoints.json"
_OPENPIFPAF_ENDING = ".predictions.json"
#: Of each of some people: the row of the image, what a file holds of the person, and its place in the JSON tree.
_People = list[tuple[int, dict[str, Json], str]]
#: The characters of numbers in a table. `float` would also take `nan`, `1_0`, and digits of other scripts.
_NUMBER_CHARACTERS = re.compile(r"[-+.0-9eE,]*")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def read_keypoints(path: str | Path, person: str = "score") -> Keypoints:
    """Read a table of key points in any format of this module. The content tells the format.

    Rows keep their order in the file. For COCO this is the order of `images`. For OpenPose it is the order that `write_keypoints`
    has recorded, or else that of the sorted names. For a list of results it is the order in which the images come first.

    person: which of several people in an image is taken. `score` is the one with the highest score, as in the programs that write
    the published tables, and the first of those with equal scores. The score is COCO's `score` where all people in the image have
    one, and else the sum of the confidences. `largest` is the one whose joints lie in the largest box. A number counts the people
    of an image from 1, in the order of the file. A line on standard error says how many are left out.

    Raises UserError, which names the file and the line or the place in the JSON tree, for: a missing file, an unknown header, JSON
    of another kind, another number of joints than 18 (17 and 25 in their formats), a value that is no number, NaN, a name that is
    empty, has a folder or stands twice, a line that is too long, text that is not UTF-8, joints that count shares of the image or
    the pixels of another one, and a number of a person that an image with people does not have.
    """
    path = Path(path)
    if person not in ("score", "largest") and not re.fullmatch(r"[1-9][0-9]{0,3}", person):
        raise UserError(f"--person must be score, largest or a number from 1 on, and is {person[:80]!r}")
    try:
        keypoints = _read_any(path, person)
    except FileNotFoundError:
        raise UserError(f"{path}: no such key-point table") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the path and its rights") from None
    refuse_shares(keypoints, str(path))
    return keypoints


def _read_any(path: Path, person: str) -> Keypoints:
    """The table at a path. The first character of a file tells JSON from a table of lines, which have one person per image."""
    if path.is_dir():
        return _read_folder(path, person)
    if path.name.endswith(_OPENPIFPAF_ENDING):
        return _read_openpifpaf([path], path, person)
    with open(path, "rb") as file:
        start = file.peek(4096).removeprefix(_BYTE_ORDER_MARK).lstrip()[:1]
        if start not in (b"{", b"["):
            return _read_table(file, path)
        tree = _json_tree(file, path)
        one_image = type(tree) is dict and "people" in tree
        if one_image:
            return _read_openpose([path], path, person)
        return _read_results(tree, path, person) if type(tree) is list else _read_coco(tree, path, person)


def _read_table(file: BinaryIO, path: Path) -> Keypoints:
    """A table of text lines: `own`, `patn` or `patn-x-first`."""
    lines = _lines(file, path)
    number, header = next(lines, (1, ""))
    axes = _PEER_HEADERS.get(header.replace(" ", ""))
    columns = _fields(header, f"{path}, line {number}")
    if axes is not None:
        row, settle = partial(_peer_row, axes=axes), _settle_peers
    elif columns[: len(_COLUMNS)] == _COLUMNS:
        row, settle = partial(_own_row, width=len(columns)), _settle_own
    else:
        raise UserError(
            f"{path}, line {number}: unknown header {header[:60]!r}; expected {' or '.join(map(repr, _PEER_HEADERS))} "
            f"(published annotation tables) or {','.join(_COLUMNS[:4])!r}... (keypoints.csv)"
        )
    first: dict[str, int] = {}
    numbers = []
    for number, line in lines:
        where = f"{path}, line {number}"
        name, values = row(line, where)
        _check_name(name, where)
        if name in first:
            raise UserError(
                f"{where}: image {name[:80]!r} stands twice (first in line {first[name]}); remove one of the rows"
            )
        first[name] = number
        numbers.append(values)
    places = [f"{path}, line {number}" for number in first.values()]
    return Keypoints(list(first), *settle(np.array(numbers, np.float64), places))


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, str]]:
    """The number and the text of each line that is not blank. No more than one line is in memory at a time."""
    number = 0
    while line := file.readline(LONGEST_LINE + 1):
        number += 1
        where = f"{path}, line {number}"
        if len(line) > LONGEST_LINE:
            raise UserError(
                f"{where}: is longer than {LONGEST_LINE:,} bytes, and a row has some hundred; is it a key-point table, "
                "with its line breaks?"
            )
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise UserError(f"{where}: is not UTF-8 text; expected a key-point table (CSV or JSON, unpacked)") from None
        if text.strip():
            yield number, text


def _fields(line: str, where: str) -> list[str]:
    """The fields of a line of a CSV table."""
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise UserError(f"{where}: is no row of a CSV table ({error}); correct its quotes") from None


def _peer_row(line: str, where: str, axes: str) -> tuple[str, list[float]]:
    """The name, and 36 numbers: the 18 x, and then the 18 y. axes: "yx" or "xy", the order of the two lists."""
    fields = line.split(":")
    if len(fields) != 3:
        raise UserError(f"{where}: has {len(fields)} fields instead of 3 (name: {axes[0]} list: {axes[1]} list)")
    name = fields[0].strip()
    lists = {}
    for axis, text in zip(axes, fields[1:], strict=True):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if type(values) is not list or not {type(v) for v in values} <= {int, float}:
            raise UserError(
                f"{where}: the {axis} list of {name[:60]!r} is no list of numbers; expected [1, 2, ...] with "
                f"{len(JOINTS)} pixel coordinates, -1 for a missing joint"
            )
        if len(values) != len(JOINTS):
            raise UserError(
                f"{where}: {name[:60]!r} has {len(values)} {axis} values; the pose has {len(JOINTS)} joints "
                "(-1 for a missing one)"
            )
        for value in values:
            if not -_LARGEST <= value <= _LARGEST:
                raise UserError(f"{where}: {_shown(value)} in the {axis} list is no pixel coordinate; correct the row")
        lists[axis] = values
    return name, lists["x"] + lists["y"]


def _settle_peers(numbers: np.ndarray, places: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(N, 36) numbers of `_peer_row` -> (N, 18, 2) joints and (N, 18) confidence.

    A joint with -1 in one of the lists is missing. Deformable GAN writes -1 into both, and its cords_to_map ignores a joint with
    one.
    """
    joints = numbers.reshape(len(places), 2, len(JOINTS)).transpose(0, 2, 1).astype(np.float32, order="C")
    joints[(joints == -1).any(axis=2)] = np.nan
    return joints, (~np.isnan(joints[:, :, 0])).astype(np.float32)


def _own_row(line: str, where: str, width: int) -> tuple[str, list[float]]:
    """The name, and 54 numbers: x, y and confidence of each joint; NaN where a field is empty."""
    fields = _fields(line, where)
    if len(fields) != width:
        raise UserError(
            f"{where}: has {len(fields)} fields instead of {width} (the header's: name, then x, y, confidence of "
            f"{len(JOINTS)} joints)"
        )
    texts = fields[1 : len(_COLUMNS)]
    try:
        if _NUMBER_CHARACTERS.fullmatch(",".join(texts)):
            return fields[0], [float(text) if text else np.nan for text in texts]
    except ValueError:
        pass
    for column, text in zip(_COLUMNS[1:], texts, strict=True):
        try:
            if _NUMBER_CHARACTERS.fullmatch(text):
                float(text or "0")
                continue
        except ValueError:
            pass
        raise UserError(
            f"{where}: {column} is {text[:60]!r}, which is no number; leave the three fields of a missing joint empty"
        )
    raise AssertionError(f"{where}: no field is at fault")


def _settle_own(numbers: np.ndarray, places: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(N, 54) numbers of `_own_row` -> (N, 18, 2) joints and (N, 18) confidence. A joint has all three of its fields or none."""
    numbers = numbers.reshape(len(places), len(JOINTS), 3)
    empty = np.isnan(numbers)
    for wrong, part, what in (
        (empty[:, :, 0] & ~empty[:, :, 1], 0, "is empty and the joint's y is not"),
        (empty[:, :, 1] & ~empty[:, :, 0], 1, "is empty and the joint's x is not"),
        (empty[:, :, 2] & ~empty[:, :, 0], 2, "is empty and the joint's x and y are not"),
        (empty[:, :, 0] & (numbers[:, :, 2] > 0), 0, "is empty and the joint's confidence is not 0"),
        (abs(numbers[:, :, 0]) > _LARGEST, 0, "is no pixel coordinate"),
        (abs(numbers[:, :, 1]) > _LARGEST, 1, "is no pixel coordinate"),
        ((numbers[:, :, 2] < 0) | (numbers[:, :, 2] > 1), 2, "is not in [0, 1]"),
    ):
        if wrong.any():
            row, joint = np.argwhere(wrong)[0]
            value = "" if empty[row, joint, part] else f" = {numbers[row, joint, part]:.7g}"
            raise UserError(
                f"{places[row]}: {_COLUMNS[1 + 3 * joint + part]}{value} {what}; a joint has x, y (pixels) and confidence "
                "(0 to 1), or three empty fields"
            )
    return _joints_of(numbers)


def _joints_of(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 18, 3) x, y and confidence, already checked -> (..., 18, 2) joints and (..., 18) confidence, both float32."""
    points = points.astype(np.float32)
    joints, confidence = points[..., :2].copy(), np.nan_to_num(points[..., 2])
    joints[confidence == 0] = np.nan
    return joints, confidence


def _check_name(name: object, where: str) -> None:
    """Raise UserError for a name that can be no file name or no field of a table."""
    if type(name) is not str:
        raise UserError(f"{where}: the name of the image is {_shown(name)}; expected a file name")
    if not name:
        raise UserError(f"{where}: the name of the image is empty; fill it in or remove the row")
    if "/" in name or "\\" in name or name in (".", ".."):
        raise UserError(f"{where}: the image name {name[:80]!r} has a folder; leave only the file's name")
    if not name.isprintable() or name != name.strip():
        raise UserError(
            f"{where}: the image name {name[:80]!r} begins or ends with a blank, or has a character that does not print; "
            "correct the name"
        )


# ---------------------------------------------------------------------------------------------------------------------
# JSON


def _json_of(path: Path) -> Json:
    """What one JSON file of a folder holds."""
    try:
        with open(path, "rb") as file:
            return _json_tree(file, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check it and its rights") from None


def _json_tree(file: BinaryIO, path: Path) -> Json:
    """What a JSON file holds."""
    content = file.read(LARGEST_JSON + 1) if path.stat().st_size <= LARGEST_JSON else None
    if content is None or len(content) > LARGEST_JSON:
        raise UserError(f"{path}: has more than {LARGEST_JSON:,} bytes, too many for key points; split it by image")
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8 text; expected key points as JSON") from None
    except RecursionError:
        raise UserError(f"{path}: is nested too deeply for key points; expected COCO's or OpenPose's JSON") from None
    except ValueError as error:
        raise UserError(f"{path}: is not JSON, or cut off ({error}); export or fetch it again") from None


def _shown(value: object) -> str:
    """A JSON value in a few characters, for a message."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return "null" if value is None else repr(value)[:40]


def _item(tree: Json, key: str, kind: type, where: str) -> list[Json] | dict[str, Json]:
    """`tree[key]`. Raises UserError where `tree` is no object, or the value is missing or not of this kind."""
    if type(tree) is not dict:
        raise UserError(f"{where}: is {_shown(tree)}; expected an object with {key!r}")
    if type(tree.get(key)) is not kind:
        what = f"is {_shown(tree[key])}" if key in tree else "is missing"
        raise UserError(f"{where}: {key!r} {what}; expected {'a list' if kind is list else 'an object'}")
    return tree[key]


def _numbers(values: Json, where: str, expected: Mapping[int, str]) -> list[float]:
    """A flat list of numbers between -10^7 and 10^7. expected: each allowed length -> what the numbers then are, in words."""
    wanted = " or ".join(f"{length} ({what})" for length, what in expected.items())
    if type(values) is not list:
        raise UserError(f"{where}: is {_shown(values)}; expected a list of numbers: {wanted}")
    if len(values) not in expected:
        raise UserError(f"{where}: has {len(values)} numbers; expected {wanted}")
    for i, value in enumerate(values):
        if type(value) not in (int, float) or not -_LARGEST <= value <= _LARGEST:
            raise UserError(f"{where}[{i}]: {_shown(value)} is no pixel coordinate or confidence; correct the number")
    return values


def _check_confidence(confidence: np.ndarray, where: Callable[[int], str]) -> None:
    """Raise UserError where any of the (N, joints) confidences or visibilities is outside [0, 2]. where: row -> its place."""
    wrong = (confidence < 0) | (confidence > 2)
    if wrong.any():
        row, joint = np.argwhere(wrong)[0]
        raise UserError(
            f"{where(row)}: the confidence of key point {joint} is {confidence[row, joint]:.7g}; expected 0 to 1, with "
            "the numbers in the order x, y, confidence"
        )


def _read_coco(tree: Json, path: Path, person: str) -> Keypoints:
    """The key points in COCO's JSON. They must lie in their images where it says how large these are."""
    images = _item(tree, "images", list, f"{path}, JSON of another kind")
    annotations = _item(tree, "annotations", list, f"{path}, JSON of another kind")
    _check_categories(tree.get("categories", []), path)
    names: dict[str, int] = {}
    row_of: dict[int | str, int] = {}
    for i, image in enumerate(images):
        where = f"{path}, images[{i}]"
        if type(image) is not dict or type(image.get("id")) not in (int, str):
            raise UserError(f"{where}: has no id; expected an object with 'id' and 'file_name'")
        name = image.get("file_name")
        _check_name(name, where)
        if name in names or image["id"] in row_of:
            raise UserError(
                f"{where}: image {name[:80]!r} (id {_shown(image['id'])}) stands twice; remove one of the entries"
            )
        names[name] = row_of[image["id"]] = i
    people: _People = []
    for i, annotation in enumerate(annotations):
        where = f"{path}, annotations[{i}]"
        _item(annotation, "keypoints", list, where)
        owner = annotation.get("image_id")
        if type(owner) not in (int, str) or owner not in row_of:
            raise UserError(f"{where}: image_id {_shown(owner)} is not in 'images'; add the image or remove the entry")
        people.append((row_of[owner], annotation, where))
    keypoints = _one_of_each(list(names), people, path, person)
    sizes = [(image.get("height"), image.get("width")) for image in images]
    if all(type(length) is int and length > 0 for size in sizes for length in size):
        refuse_outside(keypoints, sizes, str(path))
    return keypoints


def _read_results(results: list[Json], path: Path, person: str) -> Keypoints:
    """The key points in a list of results whose `image_id` is the name of a file, as AlphaPose writes it."""
    if not results or any(type(result) is dict and type(result.get("image_id")) is int for result in results):
        raise UserError(
            f"{path}: is a list of results without image names; expected file names as 'image_id' (AlphaPose), or COCO's key "
            "points with 'images' and 'annotations'"
        )
    names: dict[str, int] = {}
    people: _People = []
    for i, result in enumerate(results):
        where = f"{path}[{i}]"
        _item(result, "keypoints", list, where)
        _check_name(result.get("image_id"), where)
        people.append((names.setdefault(result["image_id"], len(names)), result, where))
    return _one_of_each(list(names), people, path, person)


def _read_openpifpaf(paths: list[Path], source: Path, person: str) -> Keypoints:
    """The key points in files of OpenPifPaf's predictions (`--json-output`), one per image. source: their folder, or the file."""
    people: _People = []
    for row, path in enumerate(paths):
        results = _json_of(path)
        if type(results) is not list:
            raise UserError(f"{path}: is {_shown(results)}; expected OpenPifPaf's list of people")
        for k, result in enumerate(results):
            _item(result, "keypoints", list, f"{path}[{k}]")
            people.append((row, result, f"{path}[{k}]"))
    names = [path.name.removesuffix(_OPENPIFPAF_ENDING) for path in paths]
    for name, path in zip(names, paths, strict=True):
        _check_name(name, str(path))
    return _one_of_each(names, people, source, person)


def _one_of_each(names: list[str], people: _People, source: Path, person: str) -> Keypoints:
    """A table of the images `names` with one of the people in each, who have COCO's 17 key points.

    The third number of a joint is its visibility: 0 for missing, 1 for hidden (confidence 0.5), 2 for visible (confidence 1). If it
    has a fraction anywhere in the file, it is the confidence, as detectors write it. The neck stands under the key `potgan`. Where
    that is missing, it is the middle of the shoulders where both are there, with the lower of their confidences.
    """
    raw, extras = [], []
    for _, found, where in people:
        raw.append(_numbers(found["keypoints"], f"{where}.keypoints", {51: "x, y, v of COCO's 17 key points"}))
        score = found.get("score")
        if "score" in found and (type(score) not in (int, float) or not abs(score) <= _LARGEST):
            raise UserError(f"{where}.score: {_shown(score)} is no number; correct or remove it")
        extras.append((score, _coco_extra(found.get("potgan"), f"{where}.potgan")))

    points = np.zeros((len(raw), len(JOINTS), 3))
    given = np.array(raw, np.float64).reshape(len(raw), len(COCO_JOINTS), 3)
    third = given[:, :, 2]
    _check_confidence(third, lambda i: f"{people[i][2]}.keypoints")
    given[:, :, 2] = np.minimum(third, 1) if (third % 1).any() else third / 2
    points[:, _COCO_PLACES] = given
    shoulders = points[:, [JOINT["right_shoulder"], JOINT["left_shoulder"]]]
    points[:, JOINT["neck"], :2] = shoulders[:, :, :2].mean(axis=1)
    points[:, JOINT["neck"], 2] = shoulders[:, :, 2].min(axis=1)
    for i, (_, extra) in enumerate(extras):
        if extra is not None:
            neck, confidence = extra
            if neck is not None:
                points[i, JOINT["neck"]] = (*neck, 1)
            # A joint that is missing by COCO's own numbers stays missing, since another program may have removed it.
            points[i, :, 2] = np.where(points[i, :, 2] == 0, 0, confidence)
            points[i, JOINT["neck"], 2] = 0 if neck is None else confidence[JOINT["neck"]]

    together: dict[int, list[int]] = {}
    for i, (row, _, _) in enumerate(people):
        together.setdefault(row, []).append(i)
    chosen = np.zeros((len(names), len(JOINTS), 3))
    for row, rivals in together.items():
        scores = [extras[i][0] for i in rivals]
        place = _place_of(person, points[rivals], None if None in scores else scores, f"{source}: {names[row]}")
        chosen[row] = points[rivals[place]]
    _say_left_out([len(rivals) for rivals in together.values()], source, person)
    return Keypoints(names, *_joints_of(chosen))


def _place_of(person: str, points: np.ndarray, scores: list[float] | None, where: str) -> int:
    """Which of the people in an image is meant by `person`, counted from 0. points: (P, 18, 3). scores: of a file that has them."""
    if person.isdigit():
        if int(person) > len(points):
            raise UserError(
                f"{where}: shows {len(points)} people, so that --person {person} is none; name a smaller number"
            )
        return int(person) - 1
    if person == "largest":
        there = points[:, :, 2:] > 0
        low = np.where(there, points[:, :, :2], np.inf).min(axis=1)
        high = np.where(there, points[:, :, :2], -np.inf).max(axis=1)
        return int(np.argmax(np.where(there.any(axis=(1, 2)), np.prod(high - low, axis=1), -1)))
    return int(np.argmax(points[:, :, 2].sum(axis=1) if scores is None else scores))


def _say_left_out(people: list[int], source: Path, person: str) -> None:
    """Say how many people are left out. people: how many there are in each image."""
    several = [count for count in people if count > 1]
    taken = {"score": "the one of the highest score", "largest": "the largest one"}.get(person, f"number {person}")
    if several:
        say(
            f"{source}: {len(several):,} images show several people; {taken} is taken, and {sum(several) - len(several):,} people "
            "are left out"
        )


def _check_categories(categories: Json, path: Path) -> None:
    """Raise UserError where the joints are others than COCO's. Some data sets have 17 joints in another order (Human3.6M)."""
    for i, category in enumerate(categories if type(categories) is list else []):
        joints = category.get("keypoints") if type(category) is dict else None
        if joints is not None and joints != list(COCO_JOINTS):
            raise UserError(
                f"{path}, categories[{i}].keypoints: are not COCO's 17 ({', '.join(COCO_JOINTS[:3])}, ...); "
                "convert the file to COCO's order"
            )


def _coco_extra(extra: Json, where: str) -> tuple[list[float] | None, list[float]] | None:
    """The neck (x, y, or None) and the 18 confidences under the key `potgan`; None where the file has no such key."""
    if extra is None:
        return None
    confidence = _item(extra, "confidence", list, where)
    confidence = _numbers(confidence, f"{where}.confidence", {len(JOINTS): "the confidences of our joints"})
    if not 0 <= min(confidence) <= max(confidence) <= 1:
        raise UserError(f"{where}.confidence: is not within 0 to 1; export the file again or remove the key 'potgan'")
    neck = extra.get("neck")
    return None if neck is None else _numbers(neck, f"{where}.neck", {2: "x, y"}), confidence


def _read_folder(folder: Path, person: str) -> Keypoints:
    """The key points in a folder of OpenPose's or OpenPifPaf's files."""
    inside = sorted(path for path in folder.iterdir() if not is_of_macos(path.name))
    openpose = [path for path in inside if path.name.endswith(_OPENPOSE_ENDING)]
    openpifpaf = [path for path in inside if path.name.endswith(_OPENPIFPAF_ENDING)]
    if openpose and openpifpaf:
        raise UserError(f"{folder}: has files of OpenPose and of OpenPifPaf; name a folder with those of one of them")
    if openpifpaf:
        return _read_openpifpaf(openpifpaf, folder, person)
    if not openpose:
        raise UserError(
            f"{folder}: has no *{_OPENPOSE_ENDING}; expected a folder of OpenPose's files (--write_json), or of OpenPifPaf's "
            f"*{_OPENPIFPAF_ENDING} (--json-output)"
        )
    return _read_openpose(openpose, folder, person)


def _read_openpose(paths: list[Path], source: Path, person: str) -> Keypoints:
    """The key points in files of OpenPose's JSON (OpenPose, doc/02_output.md). source: their folder, or the file.

    A joint with confidence 0 is missing. The files hold no score of a person, so it is the sum of the confidences. The file
    `<stem>_keypoints.json`, or `<stem>.json`, belongs to the image `<stem>.jpg`.
    """
    expected = {3 * len(JOINTS): "x, y, confidence of COCO's 18", 75: "x, y, confidence of BODY_25"}
    names: dict[str, Path] = {}
    rows, counts, chosen = [], [], np.zeros((len(paths), len(JOINTS), 3))
    for i, path in enumerate(paths):
        tree = _json_of(path)
        people = []
        for k, found in enumerate(_item(tree, "people", list, str(path))):
            where = f"{path}, people[{k}]"
            values = _item(found, "pose_keypoints_2d", list, where)
            values = _numbers(values, f"{where}.pose_keypoints_2d", expected)
            points = np.array(values, np.float64).reshape(-1, 3)
            people.append(points[list(BODY_25_PLACES)] if len(points) == 25 else points)
        counts.append(len(people))
        if people:
            people = np.array(people)
            _check_confidence(people[:, :, 2], lambda k, p=path: f"{p}, people[{k}].pose_keypoints_2d")
            people[:, :, 2] = np.minimum(people[:, :, 2], 1)
            chosen[i] = people[_place_of(person, people, None, str(path))]
        extra = tree.get("potgan")
        extra = extra if type(extra) is dict else {}
        stem = path.name.removesuffix(_OPENPOSE_ENDING if path.name.endswith(_OPENPOSE_ENDING) else ".json")
        name = stem + ("" if extra.get("whole_name") is True else ".jpg")
        _check_name(name, str(path))
        if name in names:
            raise UserError(
                f"{path}: image {name!r} stands twice (also in {names[name].name}); remove one of the files"
            )
        names[name] = path
        rows.append(extra.get("row"))
    _say_left_out(counts, source, person)
    joints, confidence = _joints_of(chosen)
    order = np.arange(len(paths))
    if all(type(row) is int and abs(row) <= _LARGEST for row in rows):
        order = np.argsort(rows, kind="stable")
    listed = list(names)
    return Keypoints([listed[i] for i in order], joints[order], confidence[order])


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def write_keypoints(
    keypoints: Keypoints, path: str | Path, format: str, sizes: Mapping[str, tuple[int, int]] | None = None
) -> None:
    """Write a table in one of FORMATS, whole or not at all. `openpose` is a folder, and the others are one file.

    sizes: name -> (height, width) of the image; only `coco17` uses it. Raises UserError for an unknown format, a name or a number
    that the format cannot hold, and a folder that holds other files than OpenPose's, because it would be replaced.
    """
    path = Path(path)
    try:
        match format:
            case "own":
                content: str | dict[str, str] = keypoints_csv(keypoints)
            case "patn" | "patn-x-first":
                content = annotation_csv(keypoints, x_first=format == "patn-x-first")
            case "coco17":
                content = coco_json(keypoints, sizes)
            case "openpose":
                content = openpose_json(keypoints)
            case _:
                raise UserError(f"unknown key-point format {format!r}; choose one of {', '.join(FORMATS)}")
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if isinstance(content, str):
        write_text(path, content)
    else:
        _write_folder(path, content)


def keypoints_csv(keypoints: Keypoints, digits: int | None = None) -> str:
    """The text of `keypoints.csv`.

    Numbers have `digits` digits. By default they have as few as give the same float32 number when they are read.
    """
    points = _points(keypoints)
    texts = iter(_shortest(points) if digits is None else [f"{value:.{digits}g}" for value in points.tolist()])
    lines = [",".join(_COLUMNS)]
    for name, present in zip(keypoints.names, _present(keypoints).tolist(), strict=True):
        cells = [f"{next(texts)},{next(texts)},{next(texts)}" if there else ",," for there in present]
        quoted = '"' + name.replace('"', '""') + '"' if "," in name or '"' in name else name
        lines.append(",".join([quoted, *cells]))
    return "\n".join(lines) + "\n"


def annotation_csv(keypoints: Keypoints, x_first: bool = False) -> str:
    """The text of a published annotation table: integers, y before x (or `x_first`), and -1 where a joint is missing.

    Coordinates are truncated to whole pixels, as in the published tables. Fractions and confidences are lost, and a joint whose x
    or y is -1, or between -2 and -1, is missing when the table is read.
    """
    axes = (0, 1) if x_first else (1, 0)
    lines = [next(header for header, order in _PEER_HEADERS.items() if order == ("xy" if x_first else "yx"))]
    _points(keypoints)
    for name, joints in zip(keypoints.names, keypoints.joints, strict=True):
        if ":" in name:
            raise UserError(f"image name {name!r}: this format separates its fields with ':'; choose another format")
        whole = np.where(np.isnan(joints), -1, np.nan_to_num(joints)).astype(int)
        lines.append(f"{name}: {whole[:, axes[0]].tolist()}: {whole[:, axes[1]].tolist()}")
    return "\n".join(lines) + "\n"


def coco_json(keypoints: Keypoints, sizes: Mapping[str, tuple[int, int]] | None = None) -> str:
    """The text of a file of COCO's key points, with one image or annotation per line.

    sizes: name -> (height, width) of the image in pixels. Without it the images have no `height` and `width`, which viewers and
    detectors demand and pycocotools does not. An image without joints has no annotation. The visibility v is 2 for a joint that is
    there, and else 0. `bbox` (x, y, width, height) and `area` enclose the joints, not the person. The key `potgan` has the neck
    (x, y, or null) and the 18 confidences in the order of JOINTS.
    """
    values = iter(map(float, _shortest(_points(keypoints))))
    images, annotations = [], []
    for i, (name, present) in enumerate(zip(keypoints.names, _present(keypoints).tolist(), strict=True)):
        image: dict[str, Json] = {"id": i + 1, "file_name": name}
        if sizes is not None:
            if name not in sizes:
                raise UserError(f"image {name!r}: its height and width are not known; give the sizes of all images")
            image["height"], image["width"] = (int(length) for length in sizes[name])
        images.append(json.dumps(image, ensure_ascii=False))
        pose = {JOINTS[k]: (next(values), next(values), next(values)) for k, there in enumerate(present) if there}
        if not pose:
            continue
        flat = [v for joint in COCO_JOINTS for v in ((*pose[joint][:2], 2) if joint in pose else (0, 0, 0))]
        xs, ys, _ = zip(*pose.values(), strict=True)
        width, height = max(xs) - min(xs), max(ys) - min(ys)
        annotation = {
            "id": len(annotations) + 1,
            "image_id": i + 1,
            "category_id": 1,
            "iscrowd": 0,
            "num_keypoints": sum(flat[2::3]) // 2,
            "keypoints": flat,
            "bbox": [min(xs), min(ys), width, height],
            "area": width * height,
            "potgan": {
                "neck": pose["neck"][:2] if "neck" in pose else None,
                "confidence": [pose[joint][2] if joint in pose else 0 for joint in JOINTS],
            },
        }
        annotations.append(json.dumps(annotation))
    person = {"id": 1, "name": "person", "supercategory": "person"}
    person |= {"keypoints": COCO_JOINTS, "skeleton": COCO_SKELETON}
    lists = {"categories": [json.dumps(person)], "images": images, "annotations": annotations}
    return "{\n" + ",\n".join(f'"{key}": [\n' + ",\n".join(rows) + "\n]" for key, rows in lists.items()) + "\n}\n"


def openpose_json(keypoints: Keypoints) -> dict[str, str]:
    """File name -> text, for one file of OpenPose's JSON per image, with one person or none, and COCO's 18 joints.

    The key `potgan` has the row of the image. Where the image's name does not end in `.jpg`, it also has `whole_name`, which says
    that the file's stem is the whole name. Raises UserError if two images would have the same file (`a.png` and `a.png.jpg`).
    """
    values = iter(map(float, _shortest(_points(keypoints))))
    texts: dict[str, str] = {}
    for i, (name, present) in enumerate(zip(keypoints.names, _present(keypoints).tolist(), strict=True)):
        flat = [v for there in present for v in ((next(values), next(values), next(values)) if there else (0, 0, 0))]
        people = [{"person_id": [-1], "pose_keypoints_2d": flat}] if any(present) else []
        extra = {"row": i} if name.endswith(".jpg") else {"row": i, "whole_name": True}
        file = name.removesuffix(".jpg") + _OPENPOSE_ENDING
        if file in texts:
            raise UserError(f"image name {name!r}: {file!r} stands for another image too; choose another format")
        texts[file] = json.dumps({"version": 1.3, "people": people, "potgan": extra}) + "\n"
    return texts


def _write_folder(folder: Path, texts: dict[str, str]) -> None:
    """Write a folder of files (name -> text), whole or not at all. A folder of the user's is not replaced."""
    if not texts:
        raise UserError(f"{folder}: the table has no images, and an empty folder is no table; choose another format")
    if folder.exists():
        inside = sorted(folder.iterdir()) if folder.is_dir() else [folder]
        strangers = [p.name for p in inside if not p.name.endswith(_OPENPOSE_ENDING)]
        if strangers:
            raise UserError(f"{folder}: {strangers[0]!r} is there, and would be replaced; choose a new folder")
    try:
        with new_folder(folder) as new:
            for name, text in texts.items():
                (new / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror or error}); choose another place") from None


def _present(keypoints: Keypoints) -> np.ndarray:
    """(N, 18) bool: which joints have coordinates, and a confidence other than 0."""
    return ~np.isnan(keypoints.joints).any(axis=2) & (keypoints.confidence != 0)


def _points(keypoints: Keypoints) -> np.ndarray:
    """(3 M,) float32: x, y and confidence of the M joints that are there, one after the other.

    Raises UserError for names and numbers that a reader would refuse.
    """
    for name in keypoints.names:
        _check_name(name, "key points")
    if len(set(keypoints.names)) != len(keypoints):
        name = Counter(keypoints.names).most_common(1)[0][0]
        raise UserError(f"image name {name!r} stands twice; each image has one row")
    present = _present(keypoints)
    points = np.concatenate([keypoints.joints, keypoints.confidence[:, :, None]], axis=2).astype(np.float32)
    with np.errstate(invalid="ignore"):
        good = (abs(points[:, :, :2]) <= _LARGEST).all(axis=2) & (points[:, :, 2] >= 0) & (points[:, :, 2] <= 1)
    if (present & ~good).any():
        row, joint = np.argwhere(present & ~good)[0]
        x, y, confidence = points[row, joint]
        raise UserError(
            f"image {keypoints.names[row]!r}: {JOINTS[joint]} is at ({x:g}, {y:g}) with confidence {confidence:g}; expected "
            "pixels, and a confidence in [0, 1]"
        )
    return points[present].ravel()


def _shortest(values: np.ndarray) -> list[str]:
    """Each float32 number as the shortest text that gives the same number, without `.0` at its end. -0 keeps its sign."""
    return [text.removesuffix(".0") for text in map(str, values)]


# ---------------------------------------------------------------------------------------------------------------------
# Names


def match_names(wanted: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Name in a table -> name of its image, for the names that have an image.

    wanted: the names in the table. known: the names of all images. The image has the same name, or else a name that has `.jpg` in
    small letters, or once more or once less: Market-1501's published test table has 18 names that end in `.jpg.jpg`, and copies of
    the data set do not all have them. A name that fits two images is left out. Two names that fit one image are left out, too,
    unless one of them is exactly the image's name.
    """
    wanted, known = list(dict.fromkeys(wanted)), set(known)
    found = {name: name for name in wanted if name in known}
    near: dict[str, str] = {}
    for name in wanted:
        plain = plain_path(name)
        if name in found or not plain.endswith(".jpg"):
            continue
        shorter = plain.removesuffix(".jpg")
        fitting = [other for other in (plain, shorter, plain + ".jpg") if other.endswith(".jpg") and other in known]
        if len(fitting) == 1:
            near[name] = fitting[0]
    claims = Counter([*found.values(), *near.values()])
    found |= {name: other for name, other in near.items() if claims[other] == 1}
    return {name: found[name] for name in wanted if name in found}
