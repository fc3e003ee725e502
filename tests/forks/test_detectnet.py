"""DetectNetTransformation. What it must make is worked out by the formulas of NVIDIA's Caffe: detectnet_transform_layer.cpp
and detectnet_coverage_rectangular.cpp."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.data.mean import write_mean
from pycaffe_compat.errors import DataError, LayerError, MissingFileError
from pycaffe_compat.forks.nvidia.detectnet import Change, DetectNetTransformation
from pycaffe_compat.proto import caffe_pb2

STILL = " ".join(f"{name}_prob: 0" for name in ("hue_rotation", "desaturation", "flip", "scale", "rotation", "crop"))
SIZE = "image_size_x: 48 image_size_y: 32 stride: 8"


def build(truth: str, changes: str = STILL, transform: str = "", phase: str = "TRAIN") -> DetectNetTransformation:
    text = f"""name: "d" type: "DetectNetTransformation" bottom: "a" bottom: "b" top: "c" top: "d"
        detectnet_groundtruth_param {{ {truth} }} detectnet_augmentation_param {{ {changes} }}
        transform_param {{ {transform} }}"""
    layer = gl.build(text, (2, 3, 32, 48), (2, 1, 5, 16), phase=caffe_pb2.Phase.Value(phase))
    assert isinstance(layer, DetectNetTransformation)
    return layer


def label(*boxes: tuple[float, ...]) -> torch.Tensor:
    """Labels of two pictures: boxes (x, y, width, height, class) of the first, none of the second."""
    made = torch.zeros(2, 1, 5, 16)
    made[:, 0, 0, 1] = 16
    made[0, 0, 0, 0] = len(boxes)
    for row, (x, y, width, height, kind) in enumerate(boxes, 1):
        made[0, 0, row, :6] = torch.tensor([x, y, width, height, 0.5, kind])
    return made


def reference(
    boxes: Sequence[tuple[float, ...]], share: float, least: float, most: float, norm: bool, crop: bool
) -> np.ndarray:
    """generate of CoverageGenerator, for classes 1 and 4 as 0 and 1, on 4×6 squares of 8 pixels."""
    made, stride = np.zeros((10, 4, 6)), 8
    for x, y, width, height, kind in boxes:
        right, bottom = x + width, y + height
        if crop:
            x, y, right, bottom = max(x, 0), max(y, 0), min(right, 48), min(bottom, 32)
        width, height = right - x, bottom - y
        if kind not in (1, 4) or width <= 0 or height <= 0:
            continue
        part = [min(side, max(least, side * share)) if least else min(most, side * share) for side in (width, height)]
        left, top = (x + right - part[0]) / 2, (y + bottom - part[1]) / 2
        for row in range(max(0, math.floor(top / 8)), min(4, math.ceil((top + part[1]) / 8))):
            for column in range(max(0, math.floor(left / 8)), min(6, math.ceil((left + part[0]) / 8))):
                gx, gy = 8 * column, 8 * row
                across = min(left + part[0], gx + 8) - max(left, gx)
                down = min(top + part[1], gy + 8) - max(top, gy)
                if across <= 0 or down <= 0 or across * down / 64 <= 1.2e-7:
                    continue
                made[8:, row, column] = 0
                made[:8, row, column] = [
                    1, x - gx, y - gy, right - gx, bottom - gy, 1 / width, 1 / height,
                    max(0 if norm else 1, stride**2 / (part[0] * part[1])),
                ]  # fmt: skip
                made[8 if kind == 1 else 9, row, column] = 1
    return made


BOXES = [(2, 3, 30, 20, 1), (-6, -4, 16, 12, 4), (20.5, 10, 9, 19, 4), (3, 3, 9, 9, 2)]


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(
    ("options", "share", "least", "most"),
    [
        ("gridbox_type: GRIDBOX_MIN min_cvg_len: 12 scale_cvg: 0.4", 0.4, 12, 0),
        ("gridbox_type: GRIDBOX_MAX max_cvg_len: 14 scale_cvg: 0.8", 0.8, 0, 14),
    ],
)
def test_boxes_are_marked_on_the_grid(
    options: str, share: float, least: float, most: float, norm: bool, crop: bool
) -> None:
    classes = "object_class { src: 1 dst: 0 } object_class { src: 4 dst: 1 }"
    truth = f"{SIZE} {options} obj_norm: {str(norm).lower()} crop_bboxes: {str(crop).lower()} {classes}"
    layer = build(truth)
    picture = torch.rand(2, 3, 32, 48) * 255
    data, grid = layer(picture, label(*BOXES))
    torch.testing.assert_close(data, picture, rtol=1e-5, atol=1e-3)
    assert grid.shape == (2, 10, 4, 6) and not grid[1].any()
    np.testing.assert_allclose(grid[0], reference(BOXES, share, least, most, norm, crop), rtol=1e-5, atol=1e-5)


def test_one_class_is_the_car_of_kitti() -> None:
    grid = build(SIZE)(torch.zeros(2, 3, 32, 48), label((8, 8, 16, 16, 1), (32, 8, 16, 16, 2)))[1]
    assert grid.shape == (2, 9, 4, 6) and grid[0, 8].nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_test_resizes_to_the_size_of_the_net() -> None:
    layer = build(
        "image_size_x: 24 image_size_y: 16 stride: 8", "", "mean_value: 100 mean_value: 110 mean_value: 120", "TEST"
    )
    picture = torch.rand(2, 3, 32, 48) * 255
    data, grid = layer(picture, label((16, 0, 16, 16, 1)))
    means = np.array([100, 110, 120])
    want = cv2.resize((picture[0].numpy().transpose(1, 2, 0) - means) / 255, (24, 16), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(data[0].numpy().transpose(1, 2, 0), want * 255, atol=1e-2)
    assert grid[0, 1:5, 0, 1].tolist() == [0, 0, 8, 8]


def test_pictures_and_boxes_move_together() -> None:
    """A white box on black, flipped, resized, turned and cropped: where the box is said to be, it is white."""
    layer = build(SIZE)
    image = np.zeros((32, 48, 3), np.float32)
    image[10:20, 12:30] = 255
    box = np.array([[12, 10, 18, 10]], np.float32)
    for flip in (False, True):
        for size in ((48, 32), (96, 48)):
            for rotation in (0, 90, -90):
                change = Change(0, 1, flip, size, rotation, (5, -3))
                data = layer.changed(image, change)[..., 0]
                x, y, width, height = layer.moved(box, change, (48, 32))[0]
                middle = (round(y + height / 2), round(x + width / 2))
                assert (0 < middle[0] < 32 and 0 < middle[1] < 48) or (size != (48, 32) or rotation), change
                if 2 < middle[0] < 30 and 2 < middle[1] < 46:
                    assert data[middle] > 200, change
                if not rotation and size == (48, 32):
                    rows, columns = np.nonzero(data > 200)
                    np.testing.assert_allclose([columns.min(), rows.min()], [x + flip, y])
                    assert (columns.max() - columns.min() + 1, rows.max() - rows.min() + 1) == (width, height)


def test_colours_change_and_mean_comes_after() -> None:
    layer = build(SIZE, transform="mean_value: 50")
    image = np.zeros((32, 48, 3), np.float32)
    image[..., 2] = 255  # red
    blue = layer.changed(image, Change(-120, 1, False, (48, 32), 0, (0, 0)))
    np.testing.assert_allclose(blue[0, 0], [205, -50, -50], atol=1e-2)
    grey = layer.changed(image, Change(0, 0.5, False, (48, 32), 0, (0, 0)))
    np.testing.assert_allclose(grey[0, 0], [77.5, 77.5, 205], atol=1e-2)


def test_changes_are_drawn_within_their_bounds() -> None:
    options = "hue_rotation_prob: 0.5 hue_rotation: 20 desaturation_prob: 0.5 desaturation_max: 0.4 flip_prob: 0.5 "
    options += "scale_prob: 0.5 scale_min: 0.5 scale_max: 2 rotation_prob: 0.5 max_rotate_degree: 9 crop_prob: 0.5 "
    layer = build(SIZE, options + "shift_x: 6 shift_y: 4")
    torch.manual_seed(0)
    drawn = [layer.draw((48, 32)) for _ in range(400)]
    for values, still, low, high in (
        ([c.hue for c in drawn], 0, -20, 20),
        ([c.saturation for c in drawn], 1, 0.6, 1),
        ([c.rotation for c in drawn], 0, -9, 9),
        ([c.size[0] for c in drawn], 48, 24, 96),
    ):
        moved = [value for value in values if value != still]
        assert 150 < len(moved) < 250 and low <= min(moved) and max(moved) <= high
        assert max(moved) - min(moved) > 0.8 * (high - low)
    assert 150 < sum(c.flip for c in drawn) < 250
    plain = [c.corner for c in drawn if c.size == (48, 32) and not c.rotation]
    assert {x for x, _ in plain} == set(range(-3, 4)) and {y for _, y in plain} == set(range(-2, 3))


def test_a_mean_image_is_resized_to_the_pictures(tmp_path: Path) -> None:
    mean = np.random.default_rng(0).random((3, 16, 24)).astype(np.float32) * 255
    write_mean(tmp_path / "mean.binaryproto", mean)
    layer = build(SIZE, transform=f'mean_file: "{tmp_path}/mean.binaryproto"')
    data, _ = layer(torch.zeros(2, 3, 32, 48), label())
    want = cv2.resize(mean.transpose(1, 2, 0), (48, 32), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(data[1].numpy().transpose(1, 2, 0), -want, atol=1e-3)


def test_faults_are_named() -> None:
    with pytest.raises(LayerError, match="stride 0; all must be at least 1"):
        build("stride: 0")
    with pytest.raises(LayerError, match="2 mean_values; give 1 or 3"):
        build(SIZE, transform="mean_value: 1 mean_value: 2")
    with pytest.raises(MissingFileError, match=r'"d".*mean file not found: none'):
        build(SIZE, transform='mean_file: "none"')
    with pytest.raises(LayerError, match="takes labels of shape"):
        gl.build('name: "d" type: "DetectNetTransformation"', (2, 3, 32, 48), (2, 1, 4, 9))
    with pytest.raises(LayerError, match="takes pictures of shape"):
        gl.build('name: "d" type: "DetectNetTransformation"', (2, 1, 32, 48), (2, 1, 4, 16))
    full = label()
    full[0, 0, 0, 0] = 5
    with pytest.raises(DataError, match="begins with 5 and 16; expected the number of boxes, at most 4, and 16"):
        build(SIZE)(torch.zeros(2, 3, 32, 48), full)
