"""TextBoxes++'s slanted boxes, against the formulas of its bbox_util.cpp and prior_box_layer.cpp one box at a time."""

from __future__ import annotations

import math

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

PRIORS = 12
OPTIONS = "num_classes: 2 code_type: CENTER_SIZE nms_param { nms_threshold: 0.3 top_k: 9 } keep_top_k: 5"


def bottoms(size: int) -> list[torch.Tensor]:
    rng = np.random.default_rng(2)
    corner = rng.uniform(0, 0.6, (PRIORS, 2))
    prior = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (PRIORS, 2))], 1)
    variance = np.tile([0.1, 0.15, 0.2, 0.25], (PRIORS, 1))
    blobs = [rng.normal(size=(2, PRIORS * size)), rng.uniform(size=(2, PRIORS * 2)), np.stack([prior, variance])]
    return [
        torch.from_numpy(blob.reshape(shape)) for blob, shape in zip(blobs, ((2, -1), (2, -1), (1, 2, -1)), strict=True)
    ]


def slanted(code: np.ndarray, prior: np.ndarray, variance: np.ndarray) -> list[float]:
    """DecodeBBoxPolygon and DecodeBBoxRBox, without the upright box."""
    left, top, right, bottom = prior
    width, height = right - left, bottom - top
    if len(code) == 12:
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    else:
        corners = [((left + right) / 2, (top + bottom) / 2)] * 2
    points = []
    for i, (x, y) in enumerate(corners):
        points += [variance[0] * code[4 + 2 * i] * width + x, variance[1] * code[5 + 2 * i] * height + y]
    return points if len(code) == 12 else [*points, math.exp(variance[3] * code[8]) * height]


@pytest.mark.parametrize(("size", "option"), [(12, ""), (12, "use_polygon: true"), (9, "use_polygon: false")])
def test_slanted_boxes_stand_beside_ssds_detections(size: int, option: str) -> None:
    loc, conf, prior = blobs = bottoms(size)
    snippet = f'type: "DetectionOutput" detection_output_param {{ {OPTIONS} %s }}'
    layer = gl.build(snippet % option, *(blob.shape for blob in blobs), fork="textboxes_plus")
    rows = layer(*blobs)[0, 0]
    assert gl.meta_shapes(layer, [blob.shape for blob in blobs]) == [(1, 1, 1, size + 3)]
    codes = loc.reshape(2, PRIORS, size)
    upright = codes[..., :4].reshape(2, -1)
    plain = gl.build(snippet % "", upright.shape, conf.shape, prior.shape, fork="ssd")
    torch.testing.assert_close(rows[:, :7], plain(upright, conf, prior)[0, 0])
    assert 4 < len(rows) <= 10
    scores = conf.reshape(2, PRIORS, 2)[..., 1]
    for row in rows.numpy():
        image = int(row[0])
        place = int((scores[image] - row[2]).abs().argmin())
        boxes, variances = prior[0].reshape(2, PRIORS, 4).numpy()
        np.testing.assert_allclose(row[7:], slanted(codes[image, place].numpy(), boxes[place], variances[place]))


def test_no_detections_are_the_image_and_minus_one() -> None:
    blobs = bottoms(12)
    options = (
        f'type: "DetectionOutput" detection_output_param {{ {OPTIONS} confidence_threshold: 2 use_polygon: true }}'
    )
    rows = gl.build(options, *(blob.shape for blob in blobs))(*blobs)
    assert rows.tolist() == [[[[image] + [-1] * 14 for image in (0, 1)]]]


@pytest.mark.parametrize("offset", [0.5, 0.25])
def test_denser_priors_stand_where_the_next_place_below_begins(offset: float) -> None:
    options = f"min_size: 8 max_size: 18 aspect_ratio: 4 offset: {offset} denser_prior_boxes: true"
    layer = gl.build(
        f'type: "PriorBox" prior_box_param {{ {options} }}', (1, 1, 2, 3), (1, 3, 40, 60), fork="textboxes_plus"
    )
    have = layer(torch.zeros(1, 1, 2, 3), torch.zeros(1, 3, 40, 60))[0, 0].reshape(-1, 4)
    want = []
    for h in range(2):
        for w in range(3):
            x = (w + offset) * 20
            for width, height in ((8, 8), (12, 12), (16, 4), (4, 16)):
                for y in ((h + offset) * 20, (h + 1) * 20):
                    want.append(
                        [(x - width / 2) / 60, (y - height / 2) / 40, (x + width / 2) / 60, (y + height / 2) / 40]
                    )
    torch.testing.assert_close(have, torch.tensor(want))


def test_a_net_with_slanted_boxes_is_known_by_its_options() -> None:
    text = """layer { name: "i" type: "Input" top: "x" top: "loc" top: "conf" input_param {
      shape { dim: 1 dim: 3 dim: 2 dim: 2 } shape { dim: 1 dim: 48 } shape { dim: 1 dim: 8 } } }
    layer { name: "p" type: "PriorBox" bottom: "x" bottom: "x" top: "prior" prior_box_param { min_size: 8 } }
    layer { name: "d" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior" top: "d"
      detection_output_param { num_classes: 2 %s } }"""
    for options, words in (("", "must have 16 numbers"), ("use_polygon: true", "needs code_type: CENTER_SIZE")):
        with pytest.raises(LayerError, match=words):
            Net(parse_text(text % options, caffe_pb2.NetParameter))
    assert Net(parse_text(text % "use_polygon: true code_type: CENTER_SIZE", caffe_pb2.NetParameter))
