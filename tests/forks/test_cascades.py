"""Proposals, regions and detections of MS-CNN and Cascade R-CNN, against loops over places as in their sources."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch
from box_reference import common_part

from pycaffe_compat.errors import LayerError
from pycaffe_compat.forks.mscnn.boxes import overlaps
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

MEAN, STD = (0.1, -0.1, 0.05, 0.0), (0.1, 0.1, 0.2, 0.2)
REG = f"bbox_reg_param {{ {' '.join(f'bbox_mean: {m}' for m in MEAN)} {' '.join(f'bbox_std: {s}' for s in STD)} }}"
DRAW = np.random.default_rng(3)


def survivors(boxes: list, kind: str, threshold: float, inclusive: bool) -> list:
    kept: list = []
    for box in boxes:
        if all(common_part(other[:4], box[:4], kind, inclusive) <= threshold for other in kept):
            kept.append(box)
    return kept


def around(codes, x: int, y: int, field, stride: float, xyr: float, whr: float) -> list[float]:
    """The first corner and the sides of the box at a place."""
    shifted = [c * s + m for c, s, m in zip(codes, STD, MEAN, strict=True)]
    centre = [min(max(shifted[k], -1 / xyr), 1 / xyr) * field[k] + (at + 0.5) * stride for k, at in enumerate((x, y))]
    sides = [field[k] * math.exp(min(max(shifted[2 + k], -math.log(whr)), math.log(whr))) for k in range(2)]
    return [centre[0] - sides[0] / 2, centre[1] - sides[1] / 2, *sides]


@pytest.mark.parametrize("kind", ["IOU", "IOMU", "IOFU"])
def test_box_output_keeps_the_best_boxes_of_all_maps(kind: str) -> None:
    maps = [DRAW.standard_normal(shape).astype(np.float32) * 2 for shape in ((2, 7, 4, 6), (2, 7, 2, 3))]
    fields, strides, fg, most, after = [(40, 30), (70, 60)], [8, 16], 0.5, 30, 6
    options = " ".join(
        f"field_w: {w} field_h: {h} downsample_rate: {s}" for (w, h), s in zip(fields, strides, strict=True)
    )
    layer = gl.build(
        f'name: "b" type: "BoxOutput" top: "r" top: "s" {REG} box_output_param {{ {options} fg_thr: {fg} iou_thr: 0.4 '
        f'nms_type: "{kind}" max_nms_num: {most} max_post_nms_num: {after} min_size: 12 }}',
        *(x.shape for x in maps),
    )
    want = []
    for image in range(2):
        boxes = []
        for x, field, stride in zip(maps, fields, strides, strict=True):
            _, _, height, width = x.shape
            for row in range(height):
                for column in range(width):
                    values = x[image, :, row, column]
                    score = values[1:3].max() - values[0]
                    left, top, w, h = around(values[3:], column, row, field, stride, 2, 2)
                    left, top = max(left, 0), max(top, 0)
                    w, h = min(w, width * stride - left), min(h, height * stride - top)
                    if score >= fg and w >= 12 and h >= 12:
                        boxes.append((left, top, left + w, top + h, score))
        boxes = sorted(boxes, key=lambda box: -box[4])[:most]
        want += [(image, *box) for box in survivors(boxes, kind, 0.4, inclusive=False)[:after]]
    regions, scored = layer(*map(torch.from_numpy, maps))
    assert len(want) > 3
    np.testing.assert_allclose(scored[:, :, 0, 0], want, rtol=1e-4, atol=1e-3)
    assert torch.equal(regions, scored[:, :5])
    regions, scored = layer(*(torch.zeros(x.shape) for x in maps))
    assert regions.flatten().tolist() == [0, 1, 1, 10, 10] and scored.flatten().tolist() == [0] * 6


def test_of_equal_scores_box_output_takes_the_last() -> None:
    x = torch.zeros(1, 6, 1, 3)
    x[:, 1] = 1
    layer = gl.build(
        'name: "b" type: "BoxOutput" box_output_param { field_w: 8 field_h: 8 downsample_rate: 8 min_size: 1 }', x.shape
    )
    assert layer(x)[:, 1, 0, 0].tolist() == [16, 8, 0]


def test_box_group_output_has_several_fields_a_place() -> None:
    shapes = [((4, 3, 3, 4), [(30, 20), (20, 30)], 8), ((2, 3, 2, 2), [(40, 40)], 16)]
    bottoms, groups = [], ""
    for (n, classes, h, w), fields, stride in shapes:
        probabilities = DRAW.random((n, classes, h, w)).astype(np.float32)
        bottoms += [probabilities, DRAW.standard_normal((n, 4, h, w)).astype(np.float32)]
        groups += f"box_group_param {{ {' '.join(f'field_w: {a} field_h: {b}' for a, b in fields)} stride: {stride} }} "
    layer = gl.build(
        f'name: "b" type: "BoxGroupOutput" top: "r" top: "s" {REG} box_group_output_param {{ {groups} fg_thr: 0.3 '
        "iou_thr: 0.5 field_xyr: 4 field_whr: 3 min_size: 10 max_nms_num: 25 max_post_nms_num: 9 }",
        *(x.shape for x in bottoms),
    )
    want = []
    for image in range(2):
        boxes = []
        for probabilities, codes, (_, fields, stride) in zip(bottoms[::2], bottoms[1::2], shapes, strict=True):
            _, _, height, width = codes.shape
            for k, field in enumerate(fields):
                item = image * len(fields) + k
                for row in range(height):
                    for column in range(width):
                        score = 1 - probabilities[item, 0, row, column]
                        left, top, w, h = around(codes[item, :, row, column], column, row, field, stride, 4, 3)
                        right, bottom = min(left + w - 1, width * stride), min(top + h - 1, height * stride)
                        left, top = max(left, 0), max(top, 0)
                        if score >= 0.3 and right - left + 1 >= 10 and bottom - top + 1 >= 10:
                            boxes.append((left, top, right, bottom, score))
        boxes = sorted(boxes, key=lambda box: -box[4])[:25]
        want += [(image, *box) for box in survivors(boxes, "IOU", 0.5, inclusive=True)[:9]]
    np.testing.assert_allclose(layer(*map(torch.from_numpy, bottoms))[1][:, :, 0, 0], want, rtol=1e-4, atol=1e-3)


def decoded(code, region) -> list[float]:
    bx, by, bw, bh = (c * s + m for c, s, m in zip(code, STD, MEAN, strict=True))
    pw, ph = region[2] - region[0] + 1, region[3] - region[1] + 1
    tw, th = pw * math.exp(bw), ph * math.exp(bh)
    x = bx * pw + 0.5 * (region[0] + region[2]) - (tw - 1) / 2
    y = by * ph + 0.5 * (region[1] + region[3]) - (th - 1) / 2
    return [x, y, x + tw - 1, y + th - 1]


def regions_of(number: int, far: int = 40) -> np.ndarray:
    low = DRAW.random((number, 2)) * far
    return np.hstack((np.zeros((number, 1)), low, low + 5 + DRAW.random((number, 2)) * far))


def test_decode_bbox_gives_the_next_stage_its_regions() -> None:
    codes, regions = DRAW.standard_normal((5, 8)), regions_of(5)
    text = f'name: "d" type: "DecodeBBox" {REG} decode_bbox_param {{ gt_iou_thr: 0.8 }}'
    layer = gl.build(text, (5, 8), (5, 5), phase=1)
    want = [[0, *decoded(code[4:], region[1:])] for code, region in zip(codes, regions, strict=True)]
    np.testing.assert_allclose(layer(torch.tensor(codes), torch.tensor(regions))[:, :, 0, 0], want, rtol=1e-6)
    layer = gl.build(text, (5, 8), (5, 5), (5, 6))
    codes[1, 6:] = -60  # inside out: its sides are below a pixel
    matched = np.array([0, 0, 0.9, 0.79, 0])[:, None] * np.ones((1, 6))
    left = layer(*(torch.tensor(x) for x in (codes, regions, matched)))
    np.testing.assert_allclose(left[:, :, 0, 0], [want[i] for i in (0, 3, 4)], rtol=1e-6)
    with pytest.raises(LayerError, match="leaves out all regions"):
        layer(torch.tensor(codes), torch.tensor(regions), torch.ones(5, 6))
    with pytest.raises(LayerError, match="is for training"):
        gl.build(text, (5, 8), (5, 5), (5, 6), phase=1)


@pytest.mark.parametrize("aware", [True, False])
def test_frcnn_output_detects_by_class(aware: bool) -> None:
    scores, regions = DRAW.random((12, 3)), regions_of(12, 20)
    codes = DRAW.standard_normal((12, 12 if aware else 8)) * 0.5
    reg = REG.replace("}", f" cls_aware: {str(aware).lower()} }}")
    layer = gl.build(
        f'name: "f" type: "FrcnnOutput" {reg} frcnn_output_param {{ conf_thr: 0.4 iou_thr: 0.3 max_det_num: 5 }}',
        scores.shape,
        codes.shape,
        regions.shape,
        (1, 2),
    )
    found = []
    for label in (1, 2):
        boxes = []
        for i in np.argsort(-scores[:, label]):
            at = 4 * (label if aware else 1)
            x1, y1, x2, y2 = decoded(codes[i, at : at + 4], regions[i, 1:])
            if scores[i, label] >= 0.4:
                boxes.append((max(x1, 0), max(y1, 0), min(x2, 35), min(y2, 30), label, scores[i, label]))
        found += survivors(boxes, "IOU", 0.3, inclusive=True)
    assert len(found) > 5
    found = sorted(sorted(found, key=lambda box: -box[5])[:5], key=lambda box: box[4])
    made = layer(*(torch.tensor(x) for x in (scores, codes, regions, np.array([[30.0, 35]]))))[:, :, 0, 0]
    assert made[0].tolist() == [0, -1, -1, -1, -1, -1, -1]
    np.testing.assert_allclose(made[1:], [(0, *box) for box in found], rtol=1e-6)
    regions[3, 0] = 1
    with pytest.raises(LayerError, match="one picture at a time"):
        layer(*(torch.tensor(x) for x in (scores, codes, regions, np.ones((1, 2)))))


def test_detections_are_judged_in_pixels(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("a 100 200\nb 50 50\n")
    options = f'num_classes: 3 evaluate_difficult_gt: false name_size_file: "{names}"'
    text = f'name: "e" type: "DetectionEvaluate" detection_evaluate_param {{ {options} }} bottom: "d" bottom: "t" bottom: "s"'
    layer = gl.build(text, (6, 7, 1, 1), (3, 8, 1, 1), (2, 2, 1, 1))
    found = torch.tensor(
        [
            [0, -1, -1, -1, -1, -1, -1],
            [0, 0, 0, 9, 9, 1, 0.4],
            [0, 0, 0, 9, 10, 1, 0.9],
            [0, 30, 30, 39, 39, 1, 0.6],  # a difficult box: neither right nor wrong
            [0, 0, 0, 9, 9, 2, 0.3],
            [1, 0, 0, 4, 4, 2, 0.7],  # in the picture 0 to 2 of 0 to 4.5: 3² of 5.5² pixels
        ]
    )
    true = torch.tensor([[0, 0, 0, 9, 9, 1, 1, 0], [0, 30, 30, 39, 39, 1, 0, 1], [1, 0, 0, 9, 9, 2, 0, 0], [-1] * 8])
    sizes = torch.tensor([[50, 100], [100, 100]])
    rows = layer(*(x.float()[..., None, None] for x in (found, true, sizes)))
    assert rows.shape == (7, 5, 1, 1) and layer.seen == 0
    want = [
        [-1, 1, 1, -1, -1],
        [-1, 2, 1, -1, -1],
        [0, 1, 0.9, 1, 0],
        [0, 1, 0.6, 0, 0],
        [0, 1, 0.4, 0, 1],
        [0, 2, 0.3, 0, 1],
    ]
    torch.testing.assert_close(rows[:, :, 0, 0], torch.tensor([*want, [1, 2, 0.7, 0, 1]]))
    layer.threshold = 0.25
    assert layer(*(x.float() for x in (found, true, sizes)))[6, 3] == 1
    with pytest.raises(LayerError, match="a true box with label 0"):
        layer(found, torch.zeros(1, 8), sizes)
    with pytest.raises(LayerError, match="a detection of image 1, but 1 sizes"):
        layer(found, true, sizes[:1])
    with pytest.raises(LayerError, match=r"needs detection_evaluate_param\.name_size_file"):
        gl.build(text.replace(f'name_size_file: "{names}"', ""), (6, 7), (3, 8), (2, 2))


def test_scale_route_chooses_regions_of_a_size() -> None:
    boxes = torch.tensor([[0, 0, 0, 9, 9], [0, 0, 0, 99, 99], [0, 5, 5, 4, 9], [0, 0, 0, 49, 49]], dtype=torch.float)
    data = torch.arange(8.0).reshape(4, 2)
    text = 'name: "s" type: "ScaleRoute" scale_route_param {{ {} }} bottom: "a" bottom: "b" top: "c" top: "d"'
    layer = gl.build(text.format("low_scale: 10 high_scale: 100"), (4, 5), (4, 2))
    regions, rest = layer(boxes, data)
    assert torch.equal(regions, boxes[[0, 3]]) and rest.tolist() == [[0, 1], [6, 7]]
    assert gl.build(text.format("low_scale: 200"), (4, 5), (4, 2))(boxes, data)[1].tolist() == [[2, 3]]
    with pytest.raises(LayerError, match="low_scale: 5 must be above 0 and below high_scale: 2"):
        gl.build(text.format("low_scale: 5 high_scale: 2"), (4, 5), (4, 2))


def test_roi_align_takes_the_corners_of_bins() -> None:
    x = DRAW.standard_normal((2, 2, 5, 6))
    regions = np.array([[0, 2, 3, 20, 17.5], [1, -9, -9, 12, 30], [1, 8, 8, 4, 12], [0, 0, 0, 47, 39]], np.float64)
    layer = gl.build(
        'name: "a" type: "ROIAlign" roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.125 pad_ratio: 0.1 }',
        x.shape,
        regions.shape,
    )
    want = np.zeros((4, 2, 4, 3))
    ratio = np.float32(0.1)
    for n, (image, x1, y1, x2, y2) in enumerate(regions):
        pad_w, pad_h = (x2 - x1 + 1) * ratio, (y2 - y1 + 1) * ratio
        left, right = (x1 - pad_w) / 8 - 0.5, (x2 + pad_w) / 8 - 0.5
        top, bottom = (y1 - pad_h) / 8 - 0.5, (y2 + pad_h) / 8 - 0.5
        if right <= left or bottom <= top:
            continue
        for i in range(4):
            for j in range(3):
                h, w = top + i * (bottom - top) / 3, left + j * (right - left) / 2
                if not (-0.5 <= h <= 4.5 and -0.5 <= w <= 5.5):
                    continue
                down, across = math.floor(h), math.floor(w)
                h, w = min(max(h, 0), 4), min(max(w, 0), 5)
                rows, columns = (np.clip([down, down + 1], 0, 4), np.clip([across, across + 1], 0, 5))
                lh, lw = h - rows[0], w - columns[0]
                plane = x[int(image)]
                for row, share in zip(rows, (1 - lh, lh), strict=True):
                    for column, part in zip(columns, (1 - lw, lw), strict=True):
                        want[n, :, i, j] += plane[:, row, column] * share * part
    np.testing.assert_allclose(layer(torch.tensor(x), torch.tensor(regions)), want, atol=1e-6)
    assert not want[2].any() and (want == 0).any(axis=(2, 3))[1].all()
    assert torch.autograd.gradcheck(lambda a: layer(a, torch.tensor(regions)), torch.tensor(x, requires_grad=True))


def test_a_cascade_runs_through_and_its_regions_are_of_any_number() -> None:
    text = """
        layer { name: "in" type: "Input" top: "p" top: "b" top: "f" input_param {
          shape { dim: 2 dim: 3 dim: 4 dim: 4 } shape { dim: 2 dim: 4 dim: 4 dim: 4 } shape { dim: 1 dim: 2 dim: 8 dim: 8 } } }
        layer { name: "r" type: "BoxGroupOutput" bottom: "p" bottom: "b" top: "r" box_group_output_param {
          box_group_param { field_w: 16 field_h: 16 field_w: 24 field_h: 24 stride: 16 } iou_thr: 0.7 } }
        layer { name: "a" type: "ROIAlign" bottom: "f" bottom: "r" top: "a" roi_pooling_param {
          pooled_h: 1 pooled_w: 1 spatial_scale: 0.125 } }
        layer { name: "c" type: "InnerProduct" bottom: "a" top: "c" inner_product_param { num_output: 8 } }
        layer { name: "d" type: "DecodeBBox" bottom: "c" bottom: "r" top: "d" }
    """
    net = Net(parse_text(text, caffe_pb2.NetParameter), "TEST")
    batch = {"p": torch.rand(2, 3, 4, 4), "b": torch.zeros(2, 4, 4, 4), "f": torch.rand(1, 2, 8, 8)}
    made = net(**batch)["d"]
    assert made.shape[1:] == (5, 1, 1) and len(made) > 4
    assert torch.equal(pickle.loads(pickle.dumps(net))(**batch)["d"], made)


@pytest.mark.parametrize(
    ("layer", "shapes", "words"),
    [
        ('type: "FrcnnOutput"', [(3, 2), (3, 8), (3, 5, 2), (1, 2)], "regions R×5 or R×6 .*, not 3×2, 3×8, 3×5×2, 1×2"),
        ('type: "FrcnnOutput"', [(3, 2, 2), (3, 8), (3, 5), (1, 2)], "needs probabilities R×classes"),
        ('type: "DecodeBBox"', [(3, 8, 2), (3, 5)], "needs codes R×8, regions R×5 .*, not 3×8×2, 3×5"),
        ('type: "DecodeBBox"', [(3, 8), (3, 5), (3, 0)], "matched boxes R×n, not 3×8, 3×5, 3×0"),
        ('type: "BboxAccuracy"', [(3, 6), (3, 5), (3, 6)], "codes R×4 classes, regions R×5 .*, not 3×6, 3×5, 3×6"),
        ('type: "ScaleRoute"', [(3, 5, 2)], "needs regions R×5 as its first bottom, not 3×5×2"),
    ],
)
def test_items_of_other_sizes_are_refused(layer: str, shapes: list[tuple[int, ...]], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "l" {layer}', *shapes)


def test_regions_may_have_further_axes_of_one() -> None:
    boxes = torch.tensor([[0, 0, 0, 9, 9], [0, 0, 0, 99, 99]], dtype=torch.float).reshape(2, 5, 1, 1)
    layer = gl.build('name: "s" type: "ScaleRoute" scale_route_param { high_scale: 50 }', (2, 5, 1, 1))
    assert torch.equal(layer(boxes), boxes[:1])
    with pytest.raises(LayerError, match="needs regions R×5"):
        layer(boxes[:, :4])


@pytest.mark.parametrize(
    ("a", "b", "apart", "inclusive"),
    [
        ((0, 0, 4, 4), (2, 1, 4, 4), 6 / 26, 6 / 26),
        ((0, 0, 4, 4), (4, 0, 4, 4), 0, 0),
        ((0, 0, 4, 4), (0, 4, 4, 4), 0, 0),
        ((0, 0, 4, 4), (3.5, 0, 4, 4), 2 / 30, 0),
        ((0, 0, 4, 2), (1, 0, 2, 4), 4 / 12, 4 / 12),
        ((0, 0, 4, 4), (1, 1, 0, 2), 0, 0),
        ((0, 0, 4, 4), (1, 1, 2, 0), 0, 0),
        ((1, 1, 0, 2), (1, 1, 0, 2), 0, 0),
        ((1, 1, 2, 0), (1, 1, 2, 0), 0, 0),
    ],
)
def test_what_boxes_of_corner_and_sides_have_in_common(a: tuple, b: tuple, apart: float, inclusive: float) -> None:
    for first, second in ((a, b), (b, a)):
        boxes = torch.tensor([first, second], dtype=torch.float64)
        assert overlaps(boxes[0], boxes[1], inclusive=False).item() == pytest.approx(apart)
        assert overlaps(boxes[0], boxes[1], inclusive=True).item() == pytest.approx(inclusive)
