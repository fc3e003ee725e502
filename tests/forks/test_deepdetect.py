"""Nets of DeepDetect's Caffe: texts parse, and what differs from other forks is refused by name."""

import pytest
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
        ('type: "SeLu" bottom: "x" selu_param { lambda: 2 }', 'unknown layer type "SeLu"'),
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
