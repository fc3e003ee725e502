"""Defaults and numbers of values that forks of Caffe give one field differently."""

from __future__ import annotations

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers.making import make_layer
from pycaffe_compat.layers.own_options import with_own_options
from pycaffe_compat.layers.registry import layer_class
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text


def param_of(text: str) -> caffe_pb2.LayerParameter:
    return parse_text(f"layer {{ {text} }}", caffe_pb2.NetParameter).layer[0]


def test_a_default_is_that_of_the_layers_fork() -> None:
    """FocalLossParameter.alpha is 1 of happynear's, 0.25 of SSD with focal loss; UpsampleParameter.scale 2 and 1."""
    scores = [(2, 5), (2,)]
    assert gl.build('type: "FocalLoss"', *scores).alpha == 1
    boxes = [(1, 32), (1, 24), (1, 2, 32), (1, 1, 1, 8)]
    assert gl.build('type: "MultiBoxFocalLoss" multibox_loss_param { num_classes: 3 }', *boxes).alpha == 0.25
    assert gl.build('type: "Upsample"', (1, 2, 3, 3)).factor == 1
    assert gl.build('type: "Upsample"', (1, 2, 3, 3), (1, 2, 3, 3)).scale == (2, 2)


PRIORS = 'name: "p" type: "PriorBox" bottom: "x" bottom: "x" top: "p" prior_box_param { min_size: 3 %s }'


@pytest.mark.parametrize(
    ("fork", "options", "clips"),
    [("ssd", "", False), ("textboxes", "", True), ("textboxes", "clip: false", False), ("", "", False)],
)
def test_the_named_fork_decides_a_default(fork: str, options: str, clips: bool) -> None:
    assert make_layer(param_of(PRIORS % options), [(1, 2, 4, 4)] * 2, fork=fork).clip is clips


@pytest.mark.parametrize(
    ("text", "fork", "field", "value"),
    [
        ('type: "VideoData" video_data_param { source: "s" }', "tsn", "batch_size", 0),
        ('type: "VideoData" video_data_param { source: "s" }', "c3d", "batch_size", 1),
        ('type: "VideoData" video_data_param { source: "s" }', "c3d", "new_length", 0),
        ('type: "VideoData" video_data_param { source: "s" }', "video_caffe", "new_length", 1),
    ],
)
def test_what_a_layer_is_given(text: str, fork: str, field: str, value: int) -> None:
    param = param_of(text)
    before = param.SerializeToString()
    own = with_own_options(param, layer_class(param, fork=fork), fork, "layer")
    assert getattr(own.video_data_param, field) == value
    assert param.SerializeToString() == before


@pytest.mark.parametrize(
    ("text", "fork", "words"),
    [
        (
            'name: "d" type: "AnnotatedData" transform_param { resize_param { height: 2 width: 2 } '
            "resize_param { height: 3 width: 3 } }",
            "ssd",
            r'layer "d" \(AnnotatedData\): transform_param.resize_param is given 2 times, but SSD \(ssd\) takes one; '
            r"several work only in YOLO \(yolo\)",
        ),
        (
            PRIORS % "min_size: 4",
            "textboxes",
            r"prior_box_param.min_size is given 2 times, but TextBoxes \(textboxes\) takes one; several work only in SSD \(ssd\)",
        ),
        (
            'name: "c" type: "Convolution" convolution_param { num_output: 1 kernel_size: 3 dilation: 2 dilation: 1 }',
            "tsn",
            r"convolution_param.dilation is given 2 times, but Temporal .* \(tsn\) takes one; several work only in BVLC's Caffe",
        ),
    ],
)
def test_several_values_for_what_the_fork_takes_once(text: str, fork: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        make_layer(param_of(text), [(1, 2, 4, 4)] * 2, fork=fork)


def test_a_default_of_one_value_does_not_stand_beside_sides() -> None:
    sides = "num_output: 1 kernel_size: 3 stride_h: 2 stride_w: 1"
    text = f'name: "c" type: "Convolution" bottom: "x" top: "y" convolution_param {{ {sides} }}'
    net = Net(
        parse_text(f'input: "x" input_dim: [1, 1, 9, 9] layer {{ {text} }}', caffe_pb2.NetParameter),
        "TEST",
        fork="c3d_v10",
    )
    assert net(x=torch.zeros(1, 1, 9, 9))["y"].shape == (1, 1, 4, 7)


LOSS = """input: "a" input_shape { dim: [2, 3] } input: "b" input_shape { dim: [2, 3] }
layer { name: "l" type: "%s" bottom: "a" bottom: "b" top: "l" %s }"""


@pytest.mark.parametrize(
    ("kind", "fork", "weight"),
    [
        *(("SmoothL1Loss", fork, 1) for fork in ("ssd", "refinedet", "nvidia", "yolo")),
        *(("SmoothL1Loss", fork, 0) for fork in ("fast_rcnn", "rfcn", "intel", "tsn", "mscnn", "happynear", "ctpn")),
        ("SmoothL1LossOHEM", "rfcn", 0),
        ("EuclideanLoss", "fast_rcnn", 1),
    ],
)
def test_a_loss_without_weight_counts_as_in_its_fork(kind: str, fork: str, weight: float, caplog) -> None:
    """Fast R-CNN's SmoothL1LossLayer::LayerSetUp and its heirs leave out LossLayer's, which sets a weight of 1."""
    net = Net(parse_text(LOSS % (kind, ""), caffe_pb2.NetParameter), "TRAIN", fork=fork)
    assert net.loss_weights.get("l", 0) == weight
    assert ("it has no loss_weight, which defaults to 0 in" in caplog.text) is not bool(weight)
    given = Net(parse_text(LOSS % (kind, "loss_weight: 2"), caffe_pb2.NetParameter), "TRAIN", fork=fork)
    assert given.loss_weights["l"] == 2


def test_the_loss_of_centers_weighs_nothing_unless_told(caplog) -> None:
    text = LOSS.replace('input: "b" input_shape { dim: [2, 3] }', 'input: "b" input_shape { dim: 2 }')
    net = Net(parse_text(text % ("CenterLoss", "center_loss_param { num_output: 4 }"), caffe_pb2.NetParameter), "TRAIN")
    assert not net.loss_weights.get("l") and "which defaults to 0 in Center loss (caffe_face)" in caplog.text
