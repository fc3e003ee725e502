"""Training of poses: the records, what is done to pictures and people, and the maps, against the forks' code written out."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import cv2
import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.data.database import DatabaseWriter
from pycaffe_compat.data.poses import Person, add_hill, draw_limb, read_people
from pycaffe_compat.errors import CaffeError
from pycaffe_compat.forks.rtpose_train.pose_data import COCO, MPI
from pycaffe_compat.proto import caffe_pb2

STILL = "scale_prob: 0 max_rotate_degree: 0 center_perterb_max: 0 flip_prob: -1"
HEIGHT, WIDTH = 90, 100


def meta(people, joints: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """genLMDB.py's channel of numbers: ``people`` are (place, scale, joints (J, 3)), the first one the record's."""
    plane = np.zeros((height, width), np.uint8)

    def put(row: int, *numbers: float, start: int = 0) -> None:
        data = np.frombuffer(struct.pack(f"{len(numbers)}f", *numbers), np.uint8)
        plane[row, start : start + len(data)] = data

    plane[0, :4] = list(b"COCO")
    put(1, height, width)
    plane[2, 1] = len(people) - 1
    place, scale, own = people[0]
    put(3, *place)
    put(4, scale)
    for i in range(3):
        put(5 + i, *own[:, i])
    others = len(people) - 1
    for p, (place, scale, known) in enumerate(people[1:]):
        put(8 + p, *place)
        put(8 + others, scale, start=4 * p)
        for i in range(3):
            put(9 + others + 3 * p + i, *known[:, i])
    return plane


def somebody(draw: np.random.Generator, joints: int, known: int = 1):
    places = draw.uniform(20, 70, (joints, 2))
    return places.mean(0), 0.5, np.column_stack([places, np.full(joints, known)])


def record(people, joints: int, seed: int = 0, channels: int = 6) -> np.ndarray:
    draw = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(draw.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), (9, 9), 3).transpose(2, 0, 1)
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[:, :30] = 0
    return np.stack([*picture, meta(people, joints), mask, mask])[:channels]


def database(path: Path, planes: np.ndarray) -> Path:
    with DatabaseWriter(path) as written:
        datum = caffe_pb2.Datum(channels=len(planes), height=HEIGHT, width=WIDTH, data=planes.tobytes())
        written.put(b"0000000", datum.SerializeToString())
    return path


def usual(options: str, **values: float) -> str:
    """The options with the usual values of those that they leave out."""
    return options + "".join(f" {name}: {value}" for name, value in values.items() if f"{name}:" not in options)


USUAL = {"stride": 8, "crop_size_x": 64, "crop_size_y": 72, "target_dist": 0.5}


def poses(path: Path, options: str = "", phase: int = 0, parts: int = 56, lmdb: int = 17):
    return gl.build(
        f'name: "d" type: "CPMData" top: "data" top: "label" data_param {{ source: "{path}" batch_size: 2 backend: LMDB }} '
        f"cpm_transform_param {{ {usual(options, num_parts=parts, np_in_lmdb=lmdb, **USUAL)} }}",
        phase=phase,
    )


def limb_maps(people, first, second, limbs, size, mask, parts: int):
    """generateLabelMap and the weights of Transform_nv, place by place, for people (J, 3) of pixels and what is known."""
    height, width = size[0] // 8, size[1] // 8
    maps = np.zeros((2 * (parts + 1), height, width))
    maps[: parts + 1] = cv2.resize(mask, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_CUBIC) / 255
    made = maps[parts + 1 :]
    for number, person in enumerate(people):
        joints = []
        for a, b in zip(first, second, strict=True):
            one, two = person[a], person[b]
            state = 2 if 2 in (one[2], two[2]) else 3 if 3 in (one[2], two[2]) else int(one[2] and two[2])
            joints.append(((one[0] + two[0]) / 2, (one[1] + two[1]) / 2, state))
        if not number:
            for i, joint in enumerate(joints):
                if joint[2] == 3:
                    maps[i] = 0
        for i, (x, y, state) in enumerate(joints):
            for row, column in np.ndindex(height, width):
                far = ((3.5 + 8 * column - x) ** 2 + (3.5 + 8 * row - y) ** 2) / 2 / 49
                if state <= 1 and far <= 4.6052:
                    plane = made[2 * len(limbs) + i]
                    plane[row, column] = min(plane[row, column] + math.exp(-far), 1)
        for i, (one, two) in enumerate(limbs):
            a, b = np.array(joints[one][:2]) / 8, np.array(joints[two][:2]) / 8
            if joints[one][2] > 1 or joints[two][2] > 1:
                continue
            step = (b - a) / math.hypot(*(b - a))
            low, high = np.minimum(a, b) - 1, np.maximum(a, b) + 1
            for row in range(max(round(low[1]), 0), min(round(high[1]), height)):
                for column in range(max(round(low[0]), 0), min(round(high[0]), width)):
                    if abs((column - a[0]) * step[1] - (row - a[1]) * step[0]) <= 1:
                        made[2 * i : 2 * i + 2, row, column] = step
    made[-1] = (1 - made[2 * len(limbs) : -1].max(0)).clip(0)
    return maps


@pytest.mark.parametrize(("parts", "joints", "skeleton"), [(56, 17, COCO), (43, 16, MPI)])
def test_maps_of_people_who_stay_where_they_are(tmp_path: Path, parts: int, joints: int, skeleton) -> None:
    draw = np.random.default_rng(1)
    people = [somebody(draw, joints), somebody(draw, joints), somebody(draw, joints, 0)]
    people[0][2][[3, 7], 2] = 3  # not marked
    people[0][2][5, 2] = 0  # hidden
    people[1][2][8] = -4, 30, 1  # outside
    people[0] = (np.array([50.4, 40.2]), *people[0][1:])
    planes = record(people, joints)
    layer = poses(database(tmp_path / "db", planes), STILL, parts=parts, lmdb=joints)
    picture, maps = layer()
    layer.close()
    assert picture.shape == (2, 6, 72, 64) and maps.shape == (2, 2 * (parts + 1), 9, 8)
    top, left = (
        round(39.7) - 36,
        round(49.9) - 32,
    )  # half a pixel on, as even a turn by 0 degrees makes pictures larger by 1
    images = [np.ascontiguousarray(planes[:3].transpose(1, 2, 0)), planes[4]]
    turned = [
        cv2.warpAffine(
            image,
            np.array([[1, 0, 0.5], [0, 1, 0.5]]),
            (WIDTH + 1, HEIGHT + 1),
            flags=cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(around,) * 3,
        )[top : top + 72, left : left + 64]
        for image, around in zip(images, (128, 255), strict=True)
    ]
    np.testing.assert_allclose(picture[0, :3], (turned[0].transpose(2, 0, 1) - 128.0) / 256, atol=1e-6)
    assert not picture[:, 3:].any() and not turned[1].all()
    mask = np.ascontiguousarray(turned[1])
    moved = []
    for number, (_, _, known) in enumerate(people):
        states = np.where(known[:, 2] == 0, 0, 1)
        places = known[:, :2] - 1
        states[(places < 0).any(1)] = 2
        if not number:
            states[known[:, 2] == 3] = 3
        moved.append(np.column_stack([places + 0.5 - [left, top], states]))
    want = limb_maps(moved, skeleton.first, skeleton.second, skeleton.limbs, (72, 64), mask, parts)
    np.testing.assert_allclose(maps[0], want, atol=2e-4)


def test_joints_follow_the_picture(tmp_path: Path) -> None:
    """Dark discs at the joints are found again where the maps have their hills, however the picture is changed."""
    places = np.array([[x, y] for y in (25, 45, 65, 80) for x in (20, 40, 60, 80)] + [[50, 15]], float)
    person = (np.array([50.0, 45.0]), 0.5, np.column_stack([places + 1, np.ones(17)]))
    planes = record([person], 17)
    planes[:3] = 255
    for x, y in places[[0, 8, 10]]:  # the nose, and the right arm, which mirroring makes the left one
        grid = np.hypot(np.arange(WIDTH) - x, np.arange(HEIGHT)[:, None] - y)
        planes[:3, grid < 4] = 0
    options = (
        "crop_size_x: 176 crop_size_y: 168 stride: 1 scale_prob: 1 scale_min: 0.8 scale_max: 1.3 max_rotate_degree: 40 "
    )
    layer = poses(database(tmp_path / "db", planes), options + "center_perterb_max: 9 flip_prob: 0.5 sigma: 3")
    for _ in range(4):
        pictures, maps = layer()
        for picture, each in zip(pictures, maps, strict=True):
            dark = picture[:3].mean(0) < -0.4
            hills = each[57 + 38 :]
            arms = [all(dark[highest(hills[i])] for i in arm) for arm in ((3, 4), (6, 7))]
            assert dark[highest(hills[0])] and any(arms)
    layer.close()


def highest(plane: torch.Tensor) -> tuple[int, ...]:
    """Where a map is highest."""
    return tuple(int(i) for i in np.unravel_index(int(plane.argmax()), plane.shape))


def test_a_mirrored_picture_has_left_for_right(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    path = database(tmp_path / "db", record([somebody(draw, 17)], 17))
    plain, flipped = (poses(path, STILL.replace("-1", flip))() for flip in ("-1", "1"))
    np.testing.assert_array_equal(flipped[0], plain[0].flip(-1))
    np.testing.assert_allclose(flipped[1][:, :57], plain[1][:, :57].flip(-1), atol=1e-6)
    hills, mirrored = plain[1][0, 57 + 38 : -1], flipped[1][0, 57 + 38 : -1].flip(-1)
    order = np.arange(18)
    order[[*COCO.right, *COCO.left]] = order[[*COCO.left, *COCO.right]]
    np.testing.assert_allclose(mirrored, hills[order], atol=1e-6)


def test_batches_depend_on_seed_and_position(tmp_path: Path) -> None:
    path = database(tmp_path / "db", record([somebody(np.random.default_rng(5), 17)], 17))
    one, two = poses(path, "gray: 1"), poses(path, "gray: 1")
    one.seed = two.seed = 3
    first, second = one(), one()
    assert not first[0].equal(second[0]) and not first[0][0].equal(first[0][1])
    two.seek({"seed": 3, "position": 2})
    assert two()[0].equal(second[0]) and first[0][0, 0].equal(first[0][0, 2])
    for layer in (one, two):
        layer.close()


def test_hills_and_limbs_of_nobody_change_nothing() -> None:
    planes = np.zeros((2, 5, 6), np.float32)
    draw_limb(planes, np.array([9.0, 9.0], np.float32), np.array([9.0, 9.0], np.float32))
    add_hill(planes[0], np.array([-500.0, 900.0], np.float32), 8, 7)
    draw_limb(planes, np.array([-90.0, -90.0], np.float32), np.array([-50.0, -90.0], np.float32))
    assert not planes.any()


def test_people_are_read_row_by_row() -> None:
    draw = np.random.default_rng(6)
    given = [somebody(draw, 16) for _ in range(4)]
    people = read_people(meta(given, 16), 16, marks=False)
    assert len(people) == 4 and all(isinstance(person, Person) for person in people)
    for person, (place, scale, known) in zip(people, given, strict=True):
        np.testing.assert_allclose(person.place, place - 1, rtol=1e-6)
        np.testing.assert_allclose(person.joints, known[:, :2] - 1, rtol=1e-6)
        assert person.scale == scale and (person.seen == 1).all()


def single(path: Path, options: str = "", parts: int = 14):
    return gl.build(
        f'name: "d" type: "CPMData" top: "data" top: "label" cpmdata_param {{ source: "{path}" batch_size: 1 backend: LMDB }} '
        f"transform_param {{ {usual(options, num_parts=parts, **USUAL)} }}"
    )


def test_maps_of_pose_machines(tmp_path: Path) -> None:
    draw = np.random.default_rng(7)
    people = [somebody(draw, 16), somebody(draw, 16)]
    people[0] = (np.array([51.0, 41.0]), *people[0][1:])
    path = database(tmp_path / "db", record(people, 16, channels=4))
    picture, maps = single(path, STILL)()
    assert picture.shape == (1, 4, 72, 64) and maps.shape == (1, 30, 9, 8)
    x, y = np.arange(64) - 32.5, np.arange(72)[:, None] - 36.5
    far = (x**2 + y**2) / 2 / 21**2
    np.testing.assert_allclose(picture[0, 3], np.where(far > 4.6052, 0, np.exp(-far)), atol=1e-6)
    order = [9, 8, 12, 11, 10, 13, 14, 15, 2, 1, 0, 3, 4, 5]
    for joint, number in enumerate(order):
        both = np.zeros((9, 8))
        for index, (_, _, known) in enumerate(people):
            u, v = known[number, 0] - 0.5 - 18, known[number, 1] - 0.5 - 4
            far = ((3.5 + 8 * np.arange(8) - u) ** 2 + (3.5 + 8 * np.arange(9)[:, None] - v) ** 2) / 2 / 49
            both = (both + np.where(far > 4.6052, 0, np.exp(-far))).clip(0, 1)
            if not index:
                np.testing.assert_allclose(maps[0, joint], both, atol=1e-5)
        np.testing.assert_allclose(maps[0, 15 + joint], both, atol=1e-5)
    for start in (0, 15):
        np.testing.assert_allclose(maps[0, start + 14], 1 - maps[0, start : start + 14].amax(0), atol=1e-6)
    plain = single(path, f"{STILL} put_gaussian: false", parts=28)
    assert [top.shape for top in plain()] == [(1, 3, 72, 64), (1, 58, 9, 8)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("num_parts: 14", "num_parts: 14 must be 56"),
        ("np_in_lmdb: 16", "np_in_lmdb: 16 must be at least 17"),
        ("aug_way: 'table'", "aug_way: table must be"),
        ("crop_size: 3", "crop_size: 3 must be left out"),
        ("stride: 0", "stride: 0 must be at least 1"),
        ("scale_min: 2", "scale_min: 2.0 must be above 0"),
        ("target_dist: 0", "target_dist: 0.0 must be above 0"),
    ],
)
def test_options_that_cannot_be_are_errors(tmp_path: Path, options: str, words: str) -> None:
    path = database(tmp_path / "db", record([somebody(np.random.default_rng(0), 17)], 17))
    with pytest.raises(CaffeError, match=words):
        poses(path, options)
    with pytest.raises(CaffeError, match="only for training"):
        poses(path, phase=1)
    with pytest.raises(CaffeError, match="np_in_lmdb: 9 at least 16"):
        single(path, "np_in_lmdb: 9")


def test_records_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    planes = record([somebody(np.random.default_rng(0), 17)], 17)
    with pytest.raises(CaffeError, match=r'record "0000000".*has 4 channels; expected 5 to 6'):
        poses(database(tmp_path / "few", planes[:4]))
    planes[3, 2, 1] = 21
    with pytest.raises(CaffeError, match=r"22 people with 17 joints .* take 93 rows of 84"):
        poses(database(tmp_path / "many", planes))
    planes[3, 2, 1] = 0
    planes[3, 4, :4] = 0
    with pytest.raises(CaffeError, match="a person of scale 0"):
        poses(database(tmp_path / "flat", planes))
