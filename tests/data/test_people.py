"""The synthetic people: what an image depends on, the rays, the joints, the flow and the clothes. About 7 s on one core."""

import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from potgan.common.errors import UserError
from potgan.data.pose import JOINT, TORSO
from potgan.data.synthetic import body, clothes, people, scene, surfaces, textures
from potgan.settings.schema import SyntheticSettings

SMALL = SyntheticSettings(train_identities=20, test_identities=10, images_per_identity=8)
#: These colours were chosen by their names, and not taken from the renderer.
SEEN_COLOURS = {
    "white": (235, 235, 235),
    "black": (25, 25, 25),
    "grey": (128, 128, 128),
    "red": (200, 20, 30),
    "green": (30, 140, 60),
    "blue": (40, 80, 180),
    "yellow": (235, 210, 40),
    "pink": (240, 130, 170),
    "purple": (120, 50, 150),
    "cyan": (90, 200, 210),
}


@pytest.fixture(scope="module")
def renders() -> list[people.Render]:
    return [*people.render_split(SMALL, "train"), *people.render_split(SMALL, "test")]


@pytest.fixture(scope="module")
def evenly_lit() -> list[people.Render]:
    """The training images in even, white light and without blur. But for the brightness of a whole image, a point of the surface
    has the same colour in all of them."""
    even = [replace(site, ambient=1.0, diffuse=0.0, tint=(1, 1, 1), blur=0.0) for site in scene._SITES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene, "_SITES", even)
        forget()
        images = list(people.render_split(SMALL, "train"))
    forget()
    return images


def forget() -> None:
    """Drop everything that the modules keep between two renders."""
    for module in (body, clothes, people, scene, surfaces, textures):
        for cached in vars(module).values():
            if hasattr(cached, "cache_clear"):
                cached.cache_clear()


def side_of(r: people.Render) -> float:
    """How far the left shoulder lies to the right of the right one, in widths of the frame. It is positive if the person faces the
    camera."""
    return float(r.joints[JOINT["left_shoulder"], 0] - r.joints[JOINT["right_shoulder"], 0]) / r.image.shape[1]


def same_camera_pairs(renders: list[people.Render]) -> list[tuple[people.Render, people.Render]]:
    return [(a, b) for a, b in pairwise(renders) if (a.person, a.camera) == (b.person, b.camera)]


# ------------------------------------------------------------------------------------------- determinism and identity


def test_an_image_depends_on_seed_person_and_index_only():
    reference = people.render(SMALL, 3, 5)
    forget()
    other_counts = replace(SMALL, train_identities=5, test_identities=0, images_per_identity=6)
    people.render(other_counts, 1, 0)
    again = people.render(other_counts, 3, 5)
    assert reference.image.tobytes() == again.image.tobytes()
    assert reference.joints.tobytes() == again.joints.tobytes()
    assert (reference.name, reference.camera) == (again.name, again.camera)
    other_seed = people.render(replace(SMALL, seed=1), 3, 5)
    assert (reference.image != other_seed.image).mean() > 0.5


def test_two_processes_render_the_same_bytes():
    code = (
        "from potgan.data.synthetic import people; from potgan.settings.schema import SyntheticSettings; import hashlib;"
        "r = people.render(SyntheticSettings(), 7, 2); print(hashlib.sha256(r.image.tobytes()).hexdigest())"
    )
    digests = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 64


def test_torch_is_not_imported():
    code = "import sys, potgan.data.synthetic.people; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_names_follow_the_grammar_and_identities_are_disjoint(renders):
    grammar = re.compile(r"(\d{4})_c([1-6])s([1-6])_(\d{6})_(\d{2})\.jpg")
    names = [r.name for r in renders]
    assert len(set(names)) == len(names) == 30 * 8
    for r in renders:
        match = grammar.fullmatch(r.name)
        assert match, r.name
        assert int(match[1]) == r.person
        assert int(match[2]) == r.camera
    people = {split: {r.person for r in renders if r.split == split} for split in ("train", "test")}
    assert people == {"train": set(range(1, 21)), "test": set(range(21, 31))}
    assert names == sorted(names, key=lambda n: int(n[:4]))


def test_find_knows_every_render_without_rendering(renders):
    found = people.find(SMALL)
    assert list(found) == [r.name for r in renders]
    assert [found[r.name] for r in renders] == [(r.person, i % 8) for i, r in enumerate(renders)]


def test_cameras_setting_is_kept():
    assert {people.render(replace(SMALL, cameras=2), p, i).camera for p in (1, 2, 3) for i in range(8)} == {1, 2}


@pytest.mark.parametrize(
    ("change", "person", "index", "message"),
    [
        ({}, 31, 0, "person 31"),
        ({}, 0, 0, "person 0"),
        ({}, 1, 8, "image 8"),
        ({"cameras": 7}, 1, 0, "cameras is 7"),
        ({"height": 4}, 1, 0, "too small"),
        ({"train_identities": 10000}, 1, 0, "four digits"),
    ],
)
def test_user_errors_are_one_line(change, person, index, message):
    with pytest.raises(UserError, match=message) as error:
        people.render(replace(SMALL, **change), person, index)
    assert "\n" not in str(error.value)


def test_unknown_split_and_foreign_flow_are_user_errors(renders):
    with pytest.raises(UserError, match="'query'"):
        list(people.render_split(SMALL, "query"))
    with pytest.raises(UserError, match="different persons"):
        people.exact_flow(renders[0], renders[8])


# ------------------------------------------------------------------------------------------------------ ray casting


def turn(axis: tuple[float, float, float], angle: float) -> np.ndarray:
    return cv2.Rodrigues(np.array(axis) / np.linalg.norm(axis) * angle)[0]


def test_a_ball_is_a_disc_with_the_height_of_a_ball():
    radius, scale, centre = 0.3, 50.0, (31.0, 33.0)
    shape = np.array([[radius, radius, 1, 0, -1 / radius**2, radius]])
    grid = surfaces.sample_grid(scale, centre, 64, 64)
    part, depth = surfaces.cast(turn((1, 2, 3), 1.1)[None], np.array([[0.0, 0.0, 0.2]]), shape, *grid)
    row, column = np.nonzero(part == 0)
    off = np.hypot(column / 2 - 0.5 - centre[0], row / 2 - 0.5 - centre[1]) / scale
    assert part.shape == (129, 129)
    assert len(row) == pytest.approx(np.pi * (radius * scale * 2) ** 2, rel=0.01)
    assert off.max() <= radius + 1e-6
    assert depth[row, column] == pytest.approx(0.2 + np.sqrt(np.maximum(radius**2 - off**2, 0)), abs=1e-3)


number = st.floats(0.3, 1.0)


@settings(max_examples=25, deadline=None)
@given(
    radii=st.tuples(number, number, number),
    semi_axes=st.tuples(st.floats(0.1, 0.3), st.floats(0.1, 0.3), st.floats(0.15, 0.4)),
    axis=st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(0.1, 1)),
    angle=st.floats(-1.0, 1.0),
)
def test_casting_agrees_with_marching_along_the_ray(radii, semi_axes, axis, angle):
    """A second, simple method walks along the ray from the camera to where it first enters the surface."""
    width, depth, half = semi_axes
    q2, q1, q0 = np.polyfit([half, 0, -half], np.square(radii), 2)
    rotation, origin = turn(axis, angle), np.array([0.02, -0.03, 0.1])
    shape = np.array([[width, depth, q0, q1, q2, half]])
    grid = surfaces.sample_grid(20.0, (15.5, 15.5), 32, 32)
    part, picture = surfaces.cast(rotation[None], origin[None], shape, *grid)
    assert np.array_equal(part < 0, picture == -np.inf)
    picture = picture.ravel()

    steps = np.linspace(1.2, -1.0, 1101)  # toward the back, .002 a step
    for sample in range(0, 65 * 65, 37):
        row, column = divmod(sample, 65)
        x, y = (column / 2 - 0.5 - 15.5) / 20, (15.5 - row / 2 + 0.5) / 20
        local = (np.stack([np.full(1101, x), np.full(1101, y), steps], 1) - origin) @ rotation
        value = (
            (local[:, 0] / width) ** 2 + (local[:, 2] / depth) ** 2 - (q0 + q1 * local[:, 1] + q2 * local[:, 1] ** 2)
        )
        enters = (value[:-1] > 0) & (value[1:] <= 0)
        first = np.flatnonzero(enters)
        inside_range = abs(local[first + 1, 1]) <= half - 0.01
        outside_range = abs(local[first + 1, 1]) > half + 0.01
        if len(first) == 0 or outside_range.all():
            grazing = value.min() < 0.01
            assert picture[sample] == -np.inf or grazing
        elif len(first) == 1 and inside_range.all():
            assert picture[sample] == pytest.approx(steps[first[0] + 1], abs=0.005)


# ---------------------------------------------------------------------------------------------------- joints and views


def test_visible_joints_lie_on_the_body(renders):
    for r in renders:
        body = cv2.dilate(r.body.astype(np.uint8), np.ones((3, 3)))  # the nose's tip may round off the silhouette
        x, y = np.round(r.joints[r.visible]).astype(int).T
        assert body[y, x].all(), r.name
    on_body = [r.body[tuple(np.round(r.joints[r.visible, ::-1]).astype(int).T)].mean() for r in renders]
    assert np.mean(on_body) > 0.96  # the others are tips that rounding puts one pixel beside the silhouette


def test_the_nose_is_seen_from_the_front_only(renders):
    widest = {r.person: max(abs(side_of(o)) for o in renders if o.person == r.person) for r in renders}
    front = [r.visible[JOINT["nose"]] for r in renders if side_of(r) > 0.92 * widest[r.person]]
    back = [r for r in renders if side_of(r) < -0.92 * widest[r.person]]
    assert len(front) > 20
    assert len(back) > 20
    assert np.mean(front) > 0.95
    for r in back:  # where the head is turned far, the nose shows in profile, past both ears
        nose, *ears = r.joints[[JOINT["nose"], JOINT["right_ear"], JOINT["left_ear"]], 0]
        assert not r.visible[JOINT["nose"]] or not min(ears) < nose < max(ears)
    assert np.mean([r.visible[JOINT["nose"]] for r in back]) < 0.1


def test_a_profile_shows_the_near_side(renders):
    """A person who faces the right edge shows the right side to the camera. One who faces the left edge shows the left side."""
    seen = {"right": [], "left": []}
    for r in renders:
        if abs(side_of(r)) > 0.06:
            continue
        near = "right" if r.joints[JOINT["nose"], 0] > r.joints[[16, 17], 0].mean() else "left"
        far = "left" if near == "right" else "right"
        joints = ("shoulder", "elbow")  # a hip is often behind the hand of its side
        pairs = [(r.visible[JOINT[f"{near}_{j}"]], r.visible[JOINT[f"{far}_{j}"]]) for j in joints]
        seen[near] += pairs
    for pairs in seen.values():
        near, far = np.mean(pairs, axis=0)
        assert near > 0.9
        assert far < 0.3


def test_left_and_right_are_the_persons(renders):
    """The right shoulder, hip and eye of a person who faces the camera lie at smaller x than the left ones. From behind they lie
    at larger x."""
    for r in renders:
        if r.visible[[JOINT["right_eye"], JOINT["left_eye"]]].all() and abs(side_of(r)) > 0.2:
            assert side_of(r) > 0
    hips = [  # independent of the shoulders: hips turn with them
        np.sign(r.joints[JOINT["left_hip"], 0] - r.joints[JOINT["right_hip"], 0]) == np.sign(side_of(r))
        for r in renders
        if abs(side_of(r)) > 0.25
    ]
    assert np.mean(hips) > 0.98


def test_a_visible_joint_is_not_behind_a_hand_or_the_other_side(renders):
    covered = []
    for r in renders:
        for side, other in (("right", "left"), ("left", "right")):
            for joint in (JOINT[f"{side}_{name}"] for name in ("shoulder", "hip", "knee", "ankle")):
                if r.visible[joint]:
                    x, y = np.round(r.joints[joint]).astype(int)
                    part = body.PARTS[r.surface.part[y, x]]
                    covered.append(part.startswith(other) or part.endswith(("hand", "forearm", "bag", "backpack")))
    assert len(covered) > 1000
    assert np.mean(covered) < 0.008  # rounding may give the pixel beside; four seeds gave 0.002 to 0.004


def test_every_person_is_seen_from_all_sides(renders):
    for person in range(1, 31):
        views = [side_of(r) for r in renders if r.person == person]
        assert max(views) > 0.25
        assert min(views) < -0.25
        assert len({r.camera for r in renders if r.person == person}) == 3


def test_the_person_fills_the_frame(renders):
    rows = np.array([np.flatnonzero(r.body.any(axis=1))[[0, -1]] for r in renders])
    assert (rows[:, 0] > 0).mean() > 0.95
    assert (rows[:, 1] - rows[:, 0] > 0.80 * 128).all()
    heads = [abs(r.joints[JOINT["nose"], 1] - r.joints[JOINT["neck"], 1]) for r in renders]
    assert 0.06 * 128 < np.median(heads) < 0.16 * 128


def test_annotate_reports_hidden_torso_joints_only(renders):
    torso = np.zeros(18, bool)
    torso[[JOINT["neck"], *TORSO]] = True
    inferred = pairable = 0
    for r in renders:
        joints, confidence = people.annotate(r)
        assert joints.shape == (18, 2)
        assert (confidence[r.visible] == 1).all()
        assert np.array_equal(np.isnan(joints[:, 0]), confidence == 0)
        assert (joints[confidence > 0] == r.joints[confidence > 0]).all()
        assert not (confidence[~torso & ~r.visible] > 0).any()
        assert set(np.unique(confidence)) <= {0, 0.5, 1}
        inferred += (confidence == 0.5).sum()
        pairable += (confidence[list(TORSO)] > 0).all()
    assert inferred > 50
    assert pairable > 0.95 * len(renders)


@pytest.mark.parametrize("factor", [0.5, 2])
def test_other_sizes_are_the_same_scene(factor):
    size = {"height": int(128 * factor), "width": int(64 * factor)}
    for person, index in ((1, 0), (4, 3), (9, 6)):
        one, other = people.render(SMALL, person, index), people.render(replace(SMALL, **size), person, index)
        assert other.image.shape == (size["height"], size["width"], 3)
        assert other.image.dtype == np.uint8
        # Distances from the image's edge are what is scaled, and the edge lies at -0.5.
        assert other.joints + 0.5 == pytest.approx((one.joints + 0.5) * factor, abs=1e-3)
        assert other.body.sum() == pytest.approx(one.body.sum() * factor**2, rel=0.06)


def test_a_square_frame_works():
    r = people.render(replace(SMALL, height=96, width=96), 2, 0)
    assert r.image.shape == (96, 96, 3)
    assert r.body[:, :10].sum() == 0


# ------------------------------------------------------------------------------------------------------------- flow


def test_flow_of_an_image_with_itself_is_zero(renders):
    for r in renders[::30]:
        flow, visible = people.exact_flow(r, r)
        assert flow.shape == (128, 64, 2)
        assert flow.dtype == np.float32
        assert abs(flow).max() < 1e-3
        assert not (visible & ~r.body).any()
        assert visible.sum() > 0.97 * r.body.sum()


def test_warping_the_source_by_the_flow_shows_the_target(evenly_lit):
    """The error after warping (bilinear, by OpenCV) is compared with that without flow, and with a flow shifted by 3 pixels."""
    y, x = np.mgrid[0:128, 0:64].astype(np.float32)
    errors = []
    for source, target in same_camera_pairs(evenly_lit):
        flow, visible = people.exact_flow(source, target)
        inner = cv2.erode(visible.astype(np.uint8), np.ones((3, 3))) > 0
        if inner.sum() < 150:
            continue

        def error(dx, dy, flow=flow, source=source, target=target, inner=inner):
            warped = cv2.remap(source.image, x + flow[..., 0] + dx, y + flow[..., 1] + dy, cv2.INTER_LINEAR)
            return abs(warped.astype(float) - target.image)[inner].mean()

        at_rest = abs(source.image.astype(float) - target.image)[inner].mean()
        errors.append((error(0, 0), at_rest, error(3, 0), error(-3, 0), error(0, 3), error(0, -3)))
    errors = np.array(errors)
    assert len(errors) > 40
    exact, at_rest, *shifted = errors.mean(axis=0)
    assert exact < 0.45 * at_rest
    assert exact < 0.6 * min(shifted)
    assert (errors[:, 0] < errors[:, 1]).mean() > 0.95
    assert (errors[:, 0] < errors[:, 2:].mean(axis=1)).mean() > 0.9


def test_forward_and_backward_flow_meet(renders):
    gaps, met = [], []
    for source, target in same_camera_pairs(renders)[::4]:
        flow, visible = people.exact_flow(source, target)
        back, back_visible = people.exact_flow(target, source)
        row, column = np.nonzero(visible)
        at_x = np.round(column + flow[row, column, 0]).astype(int)
        at_y = np.round(row + flow[row, column, 1]).astype(int)
        both = back_visible[at_y, at_x]
        there = np.stack([at_x + back[at_y, at_x, 0], at_y + back[at_y, at_x, 1]], 1)[both]
        gaps.append(np.hypot(*(there - np.stack([column, row], 1)[both]).T))
        met.append(both)
    assert np.concatenate(met).mean() > 0.8
    gaps = np.concatenate(gaps)
    assert np.median(gaps) < 1
    assert (gaps < 2).mean() > 0.9


def test_flow_carries_joints_to_joints(renders):
    """Near a joint that both images show, the flow points to a place near the same joint.

    It cannot be the same place, because the joint lies inside the flesh, and the flow is that of the surface.
    """
    off, at_rest = [], []
    for source, target in same_camera_pairs(renders):
        if side_of(source) * side_of(target) < 0:
            continue
        flow, visible = people.exact_flow(source, target)
        for joint in ("right_knee", "left_knee", "right_wrist", "left_wrist", "nose", "right_elbow", "left_elbow"):
            k = JOINT[joint]
            if source.visible[k] and target.visible[k]:
                x, y = np.round(target.joints[k]).astype(int)
                if visible[y, x]:
                    off.append(np.hypot(*(target.joints[k] + flow[y, x] - source.joints[k])))
                    at_rest.append(np.hypot(*(target.joints[k] - source.joints[k])))
    assert len(off) > 40
    assert np.median(off) < 0.55 * np.median(at_rest)
    assert np.median(off) < 3.5
    # The distance is the thickness of a knee at most. Where it is larger, the rounded pixel of the joint shows the limb beside it.
    assert np.percentile(off, 97) < 0.1 * 128


def test_points_turned_away_are_not_visible(renders):
    """A picture from behind does not show the face, and one from the front does not show the back of the torso."""
    torso = body.PART["torso"]
    checked, noses = 0, []
    for a in renders:
        for b in (r for r in renders if r.person == a.person):
            if side_of(a) > 0.36 and side_of(b) < -0.36:
                _, visible = people.exact_flow(source=b, target=a)
                noses += list(visible[a.surface.part == body.PART["nose"]])
                assert visible[a.surface.part == torso].mean() < 0.25
                checked += 1
    assert checked > 5
    assert np.mean(noses) < 0.1  # a turned head may show its tip


# ------------------------------------------------------------------------------------------------------------ clothes


def test_a_backpack_is_seen_from_behind_and_not_from_the_front(renders):
    front, back = [], []
    for r in renders:
        if body.PART["backpack"] not in r.surface.ids:
            assert not (r.surface.part == body.PART["backpack"]).any()
            continue
        share = (r.surface.part == body.PART["backpack"]).sum() / r.body.sum()
        if side_of(r) > 0.33:
            front.append(share)
        elif side_of(r) < -0.33:
            back.append(share)
    assert len(front) > 3
    assert len(back) > 3
    assert max(front) < 0.02  # an edge of it at most
    assert min(back) > 0.05


def test_the_torso_shows_its_colour_class(evenly_lit):
    names, colours = list(SEEN_COLOURS), np.array(list(SEEN_COLOURS.values()))
    assert tuple(names) == clothes.UPPER_COLOURS
    hits = []
    for r in evenly_lit:
        cloth = r.image[(r.surface.part == body.PART["torso"]) | (r.surface.part == body.PART["hem"])]
        nearest = np.linalg.norm(colours - np.median(cloth, axis=0), axis=1).argmin()
        hits.append(nearest == r.upper_colour)
    assert np.mean(hits) > 0.6  # by chance it would be 0.1; second colours and bags hide the colour in the other images


def test_a_strap_runs_down_to_its_bag(evenly_lit):
    """The strap is painted and the bag is a part, so the strap's lower end must be on the bag's side, in front and behind."""
    ends = []
    for r in evenly_lit:
        bag, torso = (r.surface.part == body.PART[part] for part in ("bag", "torso"))
        shoulder, hip = r.joints[JOINT["neck"]], (r.joints[JOINT["right_hip"]] + r.joints[JOINT["left_hip"]]) / 2
        at_hip = bag.any() and abs(np.nonzero(bag)[0].mean() - hip[1]) < 8
        if not at_hip or bag.sum() < 8 or abs(side_of(r)) < 0.28 or body.PART["backpack"] in r.surface.ids:
            continue
        colour = np.median(r.image[bag], axis=0)
        row, column = np.nonzero(torso & (abs(r.image.astype(float) - colour).max(axis=2) < 25))
        if not 8 < len(row) < 0.4 * torso.sum():
            continue  # hidden, or the cloth has the strap's colour
        middle = (shoulder[1] + hip[1]) / 2 - 4
        lower, upper = column[row > middle], column[row < middle]
        if len(lower) > 3 and len(upper) > 3:
            bag_x = np.nonzero(bag)[1].mean()
            ends.append(abs(lower.mean() - bag_x) < abs(upper.mean() - bag_x))
    assert len(ends) > 5
    assert np.mean(ends) > 0.8


def test_classes_are_balanced_over_a_deck():
    looks = [people.look_of(0, person) for person in range(1, 61)]
    labels = [(look.upper_colour, look.lower_colour) for look in looks]
    assert len(set(labels)) == 60 == len(clothes.UPPER_COLOURS) * len(clothes.LOWER_COLOURS)
