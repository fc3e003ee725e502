"""Nets of DeepDetect's Caffe: texts parse, and what differs from other forks is refused by name."""

import golden_layer as gl
import pytest
import torch
from google.protobuf import text_format

import pycaffe_compat
from pycaffe_compat.errors import CaffeError
from pycaffe_compat.proto import caffe_pb2
from pycaffe_compat.proto.numbers import classes, read_numbered

INPUT = 'input: "x" input_shape { dim: 1 dim: 4 dim: 6 dim: 6 }'
DISTORTED = 'layer {{ name: "d" type: "AnnotatedData" top: "y" transform_param {{ distort_param {{ {} }} }} }}'


@pytest.mark.parametrize(
    ("layer", "field"),
    [
        ('type: "DetectionOutput" detection_output_param { nms_param { soft_nms: true } }', "nms_param.soft_nms"),
        ('type: "AnnotatedData" transform_param { noise_param { all_effects: true } }', "noise_param.all_effects"),
        ('type: "AnnotatedData" transform_param { distort_param { brightness: true } }', "distort_param.brightness"),
        ('type: "ContinuationIndicator" continuation_indicator_param { axis: 1 }', "continuation_indicator_param.axis"),
        ('type: "Softmax" bottom: "x" softmax_param { scaling_temperature: 2 }', "softmax_param.scaling_temperature"),
        ('type: "BroadcastMul" bottom: "x" bottom: "x"', 'unknown layer type "BroadcastMul"'),
    ],
)
def test_what_the_fork_alone_has_is_refused_by_name(layer, field, tmp_path):
    file = tmp_path / "net.prototxt"
    file.write_text(f'{INPUT} layer {{ name: "l" top: "y" {layer} }}')
    with pytest.raises(CaffeError, match=r"(?s)" + field.replace(".", r"\.") + r".*DeepDetect's Caffe"):
        pycaffe_compat.load(str(file))


@pytest.mark.parametrize(
    ("fork", "options"),
    [
        ("ssd", "brightness_prob: 0.5 brightness_delta: 32"),
        ("deepdetect", "prob: 0.5 brightness: true brightness_delta: 32"),
    ],
)
def test_distortions_in_binary_are_read_by_the_numbers_of_their_fork(fork, options):
    text = DISTORTED.format(options)
    data = text_format.Parse(text, classes(fork)["NetParameter"]()).SerializeToString()
    read = read_numbered(data, "", "net.caffemodel")
    read.ClearField("fork")
    assert read == text_format.Parse(text, caffe_pb2.NetParameter())


@pytest.mark.parametrize(
    ("options", "scale", "alpha"), [("", 1.05070102, 1.67326319), ("lambda: 2 alpha: 0.5", 2, 0.5)]
)
def test_selu_is_the_forks(options, scale, alpha):
    x = torch.linspace(-3, 3, 12, dtype=torch.float64)
    layer = gl.build(f'name: "s" type: "SeLu" selu_param {{ {options} }}', x.shape)
    want = scale * torch.where(x > 0, x, alpha * (x.exp() - 1))
    torch.testing.assert_close(layer(x), want)
    gl.check_gradients(layer, x.clone())
    if not options:
        torch.testing.assert_close(layer(x), torch.nn.functional.selu(x))
    # in place the fork looks at the top instead of the bottom
    in_place = gl.build(f'name: "s" type: "SeLu" bottom: "x" top: "x" selu_param {{ {options} }}', x.shape)
    leaf = x.clone().requires_grad_()
    in_place(leaf).sum().backward()
    torch.testing.assert_close(leaf.grad, scale * torch.where(want > 0, 1, alpha * want.exp()))


def test_selu_dropout_keeps_mean_and_variance():
    torch.manual_seed(1)
    x = torch.randn(400000, dtype=torch.float64).requires_grad_()
    text = 'name: "d" type: "SeLuDropout" selu_dropout_param { dropout_ratio: 0.3 }'
    y = gl.build(text, x.shape)(x)
    assert abs(y.mean()) < 0.01 and abs(y.var() - 1) < 0.01
    y.sum().backward()
    lost = x.grad == 0
    assert abs(lost.double().mean() - 0.3) < 0.005 and y[lost].unique().numel() == 1
    factor = (0.7 * (1 + 1.75809932**2 * 0.3)) ** -0.5
    torch.testing.assert_close(x.grad[~lost], torch.full_like(x.grad[~lost], factor))
    torch.testing.assert_close(y[~lost], factor * x[~lost] + factor * 0.3 * 1.75809932)
    assert gl.build(text, x.shape, phase=1)(x).equal(x)
    with pytest.raises(CaffeError, match="dropout_ratio: 1 must be between"):
        gl.build(text.replace("0.3", "1"), (2,))
