"""Boxes one at a time, by the formulas of SSD's Caffe (bbox_util.cpp, im_transforms.cpp), against all at once."""

from dataclasses import replace

import numpy as np
import pytest
from one_box import F, area, shared, some_boxes

from pycaffe_compat.data.boxes import Emit, coverage, jaccard
from pycaffe_compat.data.resizing import Resizing
from pycaffe_compat.errors import DataError
from pycaffe_compat.proto import caffe_pb2

P = caffe_pb2.ResizeParameter
MODES = {"warp": P.WARP, "small": P.FIT_SMALL_SIZE, "pad": P.FIT_LARGE_SIZE_AND_PAD}


def resized(box, param, width, height):
    new_h, new_w, old_w, old_h = F(param.height), F(param.width), F(width), F(height)
    aspect, x_pad, y_pad = old_w / old_h, F(0), F(0)
    x1, y1, x2, y2 = box[0] * old_w, box[1] * old_h, box[2] * old_w, box[3] * old_h
    if param.resize_mode == P.FIT_LARGE_SIZE_AND_PAD:
        if aspect > new_w / new_h:
            y_pad = (new_h - new_w / aspect) / F(2)
        else:
            x_pad = (new_w - aspect * new_h) / F(2)
    elif param.resize_mode == P.FIT_SMALL_SIZE:
        if aspect < new_w / new_h:
            new_h = new_w / aspect
        else:
            new_w = aspect * new_h
    x1 = x_pad + max(F(0), x1 * (new_w - F(2) * x_pad) / old_w)
    x2 = x_pad + min(new_w, x2 * (new_w - F(2) * x_pad) / old_w)
    y1 = y_pad + max(F(0), y1 * (new_h - F(2) * y_pad) / old_h)
    y2 = y_pad + min(new_h, y2 * (new_h - F(2) * y_pad) / old_h)
    return [x1 / new_w, y1 / new_h, x2 / new_w, y2 / new_h]


def emitted(box, size, window, emit):
    if emit.emit_type == caffe_pb2.EmitConstraint.CENTER:
        x, y = (box[0] + box[2]) / F(2), (box[1] + box[3]) / F(2)
        return window[0] <= x <= window[2] and window[1] <= y <= window[3]
    part = area(shared(box, window))
    return (part / area(box, size) if part > 0 else 0) > F(emit.emit_overlap)


def projected(box, window):
    if box[0] >= window[2] or box[2] <= window[0] or box[1] >= window[3] or box[3] <= window[1]:
        return None
    sides = window[2] - window[0], window[3] - window[1]
    moved = [max(min((edge - window[i % 2]) / sides[i % 2], F(1)), F(0)) for i, edge in enumerate(box)]
    return moved if area(moved) > 0 else None


def test_small_boxes_are_dropped_where_they_are_to_be() -> None:
    """As MeetEmitConstraint of sfzhang15/FaceBoxes: a side of 16 pixels, the last one included, is too small."""
    emit = Emit(caffe_pb2.EmitConstraint(emit_type="CENTER"), 16)
    corners = np.array([[0, 0, 15, 40], [0, 0, 16, 40], [0, 0, 40, 15], [60, 60, 99, 99]], F) / F(100)
    boxes = some_boxes(0).where(np.arange(len(some_boxes(0).corners)) < len(corners))
    boxes = replace(boxes, corners=corners)
    window = np.array([0, 0, 0.5, 0.5], F)
    assert emit.keeps(boxes, window, (100, 100)).tolist() == [False, True, False, False]
    assert emit.keeps(boxes, window, (200, 200)).tolist() == [True, True, True, False]


@pytest.mark.parametrize("emit", ["", "emit_type: CENTER", "emit_type: MIN_OVERLAP emit_overlap: 0.4"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_box_is_resized_kept_moved_and_clipped_as_in_ssd(emit, mode, mirrored) -> None:
    constraint = caffe_pb2.EmitConstraint()
    if emit:
        field, _, overlap = emit.partition(" emit_overlap: ")
        constraint.emit_type = caffe_pb2.EmitConstraint.EmitType.Value(field.split()[-1])
        constraint.emit_overlap = float(overlap or 0)
    for seed, (width, height) in enumerate([(500, 375), (333, 500), (300, 300)]):
        param = P(resize_mode=MODES[mode], height=300, width=280)
        boxes, window = (
            some_boxes(seed),
            np.array([0.125, 0.3, 0.9, 0.95], F) if seed else np.array([-0.4, -0.1, 1.2, 1.5], F),
        )
        got = Resizing(param).moved(boxes, height, width).within(window, Emit(constraint) if emit else None, mirrored)
        want = []
        for number, (box, size) in enumerate(zip(boxes.corners, boxes.sizes, strict=True)):
            moved = resized(box, param, width, height)
            if emit and not emitted(moved, size, window, constraint):
                continue
            if (moved := projected(moved, window)) is not None:
                if mirrored:
                    moved = [F(1) - moved[2], moved[1], F(1) - moved[0], moved[3]]
                want.append((number, moved))
        assert 20 < len(want) < 200
        assert got.instances.tolist() == [number for number, _ in want]
        np.testing.assert_array_equal(got.corners, np.array([box for _, box in want], F))
        np.testing.assert_array_equal(got.difficult, boxes.difficult[got.instances])


def test_overlaps() -> None:
    a, b = some_boxes(3), some_boxes(4)
    for one, two, own, other, overlap, part in zip(
        a.corners, b.corners, a.sizes, b.sizes,
        jaccard(a.corners, b.corners, a.areas(), b.areas()), coverage(a.corners, a.areas(), b.corners), strict=True,
    ):  # fmt: skip
        common = area(shared(one, two))
        assert overlap == (common / (area(one, own) + area(two, other) - common) if common > 0 else 0)
        assert part == (common / area(one, own) if common > 0 else 0)


@pytest.mark.parametrize(
    ("mode", "width", "height", "want"),
    [
        ("warp", 1000, 600, (0.1, 0.3, 0.3, 0.6)),
        ("small", 1000, 600, (0.1, 0.3, 0.3, 0.6)),
        ("pad", 1000, 600, (0.1, (180 * 0.3 + 60) / 300, 0.3, (180 * 0.6 + 60) / 300)),
        ("pad", 600, 1000, ((180 * 0.1 + 60) / 300, 0.3, (180 * 0.3 + 60) / 300, 0.6)),
    ],
)
def test_the_values_of_ssds_own_tests(mode, width, height, want) -> None:
    boxes = replace(some_boxes(0, 1), corners=np.array([[0.1, 0.3, 0.3, 0.6]], F))
    moved = Resizing(P(resize_mode=MODES[mode], height=300, width=300)).moved(boxes, height, width)
    np.testing.assert_allclose(moved.corners, [want], atol=1e-6)


def test_a_window_smaller_than_its_scale_is_refused() -> None:
    resizing = Resizing(P(resize_mode=P.FIT_SMALL_SIZE, height=30, width=30, height_scale=50, width_scale=10))
    with pytest.raises(DataError, match="height_scale × width_scale 50 × 10 is more than the 30 × 40 pixels"):
        resizing.extrapolated(some_boxes(0), 60, 80, np.array([0, 0, 1, 1], F))
