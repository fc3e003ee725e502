"""The layers of Xilinx's Caffe, against OpenCV and against the loops of the fork's sources (Xilinx/Vitis-AI, caffe-xilinx)."""

from pathlib import Path

import cv2
import golden_layer as gl
import numpy as np
import pytest
import torch

import pycaffe_compat
from pycaffe_compat.errors import LayerError
from pycaffe_compat.proto import caffe_pb2, parse_text, write_weights


@pytest.mark.parametrize(
    "options", ["scale_h: 2 scale_w: 3", "new_height: 4 new_width: 13", "scale_h: 1.5 scale_w: 0.7"]
)
@pytest.mark.parametrize(("kind", "flag"), [("NEAREST", cv2.INTER_NEAREST), ("BILINEAR", cv2.INTER_LINEAR)])
def test_deephi_resize_is_opencvs(options: str, kind: str, flag: int) -> None:
    layer = gl.build(
        f'name: "r" type: "DeephiResize" deephi_resize_param {{ {options} resize_type: {kind} }}', (2, 3, 7, 9)
    )
    x = torch.rand(2, 3, 7, 9)
    y = layer(x)
    planes = [cv2.resize(plane, y.shape[:1:-1], interpolation=flag) for plane in x.reshape(6, 7, 9).numpy()]
    np.testing.assert_allclose(y.reshape(6, *y.shape[2:]), np.stack(planes), atol=2e-6)
    gl.check_gradients(layer, x.double())


def test_gs_tiling_is_the_forks_loop_and_goes_back() -> None:
    s, x = 2, torch.rand(2, 3, 4, 6)
    there = gl.build('name: "t" type: "GSTiling" gs_tiling_param { stride: 2 }', (2, 3, 4, 6))
    back = gl.build('name: "t" type: "GSTiling" gs_tiling_param { stride: 2 reverse: true }', (2, 12, 2, 3))
    expected = torch.zeros(2, 12, 2, 3)
    for c, row, column in np.ndindex(3, 4, 6):
        to = ((row % s) * s + column % s) * 3 + c
        expected[:, to, row // s, column // s] = x[:, c, row, column]
    assert there(x).equal(expected)
    assert back(expected).equal(x)
    gl.check_gradients(there, x.double())


def test_tiling_is_the_forks_loop() -> None:
    t, x = 2, torch.rand(2, 12, 2, 3)
    layer = gl.build('name: "t" type: "Tiling" tiling_param { tile_dim: 2 }', (2, 12, 2, 3))
    expected = torch.zeros(2, 3, 4, 6)
    for c, row, column, ty, tx in np.ndindex(3, 2, 3, t, t):
        expected[:, c, row * t + ty, column * t + tx] = x[:, c * t * t + ty * t + tx, row, column]
    assert layer(x).equal(expected)


def fixed(x: float, places: int, bits: int) -> float:
    """``fix_data1`` of quantize.cpp."""
    step = 2.0**-places
    place = x / step
    whole = (
        np.ceil(place) if place < 0 and place - np.floor(place) == 0.5 else np.sign(place) * np.floor(abs(place) + 0.5)
    )
    return min(max(whole * step, -(2 ** (bits - 1)) * step), (2 ** (bits - 1) - 1) * step)


@pytest.mark.parametrize(("places", "bits"), [(0, 8), (3, 8), (-2, 4), (7.9, 8)])
def test_fixed_neuron_rounds_as_the_dpu(places: float, bits: int) -> None:
    layer = gl.build(f'name: "f" type: "FixedNeuron" fixed_param {{ bit_width: {bits} }}', (200,), phase=caffe_pb2.TEST)
    layer.places.fill_(places)
    x = torch.cat([torch.arange(-50, 50) / 4, torch.randn(100) * 40])
    expected = [fixed(float(v), int(np.floor(places)), bits) for v in x.double()]
    assert layer(x).tolist() == expected
    x.requires_grad_()
    layer(x).backward(torch.arange(200.0))
    assert x.grad is not None and x.grad.equal(torch.arange(200.0))


def test_fixed_neuron_of_a_data_layer_cuts_off() -> None:
    layer = gl.build(
        'name: "f" type: "FixedNeuron" fixed_param { follow_data_layer: true }', (4,), phase=caffe_pb2.TEST
    )
    assert layer(torch.tensor([-2.7, -0.2, 1.9, 300.0])).tolist() == [-2, 0, 1, 300]


def test_fixed_neuron_does_not_train() -> None:
    with pytest.raises(LayerError, match="trains quantised nets, which is not supported"):
        gl.build('name: "f" type: "FixedNeuron"', (4,), phase=caffe_pb2.TRAIN)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ('type: "DeephiResize" deephi_resize_param { scale_h: 2 }', "has one of scale_h and scale_w"),
        ('type: "DeephiResize" deephi_resize_param { use_dpu: true }', "use_dpu: true computes in bytes"),
        ('type: "DeephiResize" deephi_resize_param { scale_h: 0.1 scale_w: 1 }', "resizes planes of 4×4 to 0×4"),
        ('type: "GSTiling"', "gs_tiling_param.stride: 0 must be at least 1"),
        ('type: "GSTiling" gs_tiling_param { stride: 3 }', "3 must divide the sides of planes of 4×4"),
        ('type: "Tiling" tiling_param { tile_dim: 2 }', "2, squared, must divide its bottom's 3 channels"),
        ('type: "FixedNeuron" fixed_param { bit_width: 0 }', "bit_width: 0 must be at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(layer: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "l" {layer}', (1, 3, 4, 4), phase=caffe_pb2.TEST)


NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 8 dim: 6 dim: 4 } } }
layer { name: "up" type: "DeephiResize" bottom: "data" top: "up" deephi_resize_param { scale_h: 2 scale_w: 2 } }
layer { name: "tile" type: "GSTiling" bottom: "up" top: "tile" gs_tiling_param { stride: 2 reverse: true } }
layer { name: "bn" type: "BatchNorm" bottom: "tile" top: "bn" batch_norm_param { scale_filler { value: 1 } bias_filler { } } }
layer { name: "fix" type: "FixedNeuron" bottom: "bn" top: "fix" fixed_param { bit_width: 8 } }
"""


def test_a_net_is_read_with_its_blobs(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    scale, bias, mean, variance = np.random.default_rng(0).uniform(0.5, 2, (4, 1, 2, 1, 1)).astype(np.float32)
    blobs = {
        "bn": [scale, bias, mean, variance, np.zeros((1, 1, 1, 1), np.float32)],
        "fix": [np.array([4], np.float32)],
    }
    write_weights(tmp_path / "net.caffemodel", parse_text(NET, caffe_pb2.NetParameter()), blobs)
    net = pycaffe_compat.load(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    blobs, _ = net.run({"data": torch.rand(1, 8, 6, 4)})
    expected = scale * (blobs["tile"].numpy() - mean) / np.sqrt(variance + 1e-5) + bias
    np.testing.assert_allclose(blobs["bn"].detach(), expected, atol=1e-5)
    assert net.layers["fix"].step == 1 / 16


@pytest.mark.parametrize(
    "options", ['"Tiling" tiling_param { tile_dim: 2 }', '"GSTiling" gs_tiling_param { stride: 2 }']
)
def test_tiles_of_nothing_and_of_other_axes(options: str) -> None:
    layer = gl.build(f'name: "t" type: {options}', (1, 4, 2, 2))
    x = torch.zeros(0, 4, 2, 2, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert [tuple(y.shape)] == gl.meta_shapes(layer, [(0, 4, 2, 2)]) and x.grad is not None
    with pytest.raises(LayerError, match=r"needs a bottom \(num, channels, height, width\), not of shape 1×1×4×2×2"):
        layer(torch.zeros(1, 1, 4, 2, 2))
