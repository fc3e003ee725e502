"""The layers of segmentation nets, against their forks' numbers: the two BN, Interp."""

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

SEGNETS = "bn_param { scale_filler { value: 1 } shift_filler { value: 0.5 } }"
PSPNETS = "bn_param { slope_filler { value: 2 } bias_filler { value: 0.5 } %s }"


@pytest.mark.parametrize("name", gl.names("bn_", "segnet_bn_", "interp_", folder="forks"))
def test_layer_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


@pytest.mark.parametrize(
    ("option", "blobs"),
    [
        (SEGNETS, ["scale", "shift"]),
        ("bn_param { bn_mode: INFERENCE }", ["scale", "shift"]),
        (PSPNETS % "", ["slope", "bias", "running_mean", "running_var"]),
        ("bn_param { icnet: true }", ["slope", "bias", "running_mean", "running_var"]),
        ("bn_param { frozen: true }", ["slope", "bias", "running_mean", "running_var"]),
    ],
)
def test_the_fields_tell_which_bn_is_meant(option: str, blobs: list[str]) -> None:
    layer = gl.build(f'name: "b" type: "BN" {option}', (2, 3, 4, 4))
    assert [spec.name for spec in layer.blob_specs] == blobs


@pytest.mark.parametrize(("fork", "blobs"), [("segnet", 2), ("tsn", 4), ("synopsys", 2)])
def test_the_named_fork_tells_which_bn_is_meant(fork: str, blobs: int) -> None:
    text = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 3 dim: 3 } } }'
    net = parse_text(f'{text} layer {{ name: "b" type: "BN" bottom: "x" top: "y" }}', caffe_pb2.NetParameter(fork=fork))
    assert len(Net(net, "TEST").state_dict()) == blobs


def test_a_bn_with_fields_of_both_kinds_is_an_error() -> None:
    with pytest.raises(LayerError, match="its options are of no one fork"):
        gl.build('name: "b" type: "BN" bn_param { bn_mode: INFERENCE frozen: true }', (2, 3, 4, 4))


@pytest.mark.parametrize("option", [SEGNETS, "bn_param { bn_mode: INFERENCE scale_filler { value: 2 } }", PSPNETS % ""])
def test_bn_has_its_gradients(option: str) -> None:
    layer = gl.build(f'name: "b" type: "BN" {option}', (2, 2, 3, 2), dtype=torch.float64)
    gl.check_gradients(layer, torch.randn(2, 2, 3, 2, dtype=torch.float64))


def test_a_frozen_bn_passes_the_gradient_through_its_running_statistics() -> None:
    layer = gl.build(f'name: "b" type: "BN" {PSPNETS % "frozen: true eps: 0"}', (2, 3, 4, 4))
    layer.running_var.fill_(4)
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))  # slope 2 over a deviation of 2
    assert not list(layer.parameters()) and layer.running_mean.eq(0).all() and layer.running_var.eq(4).all()


def test_segnets_bn_makes_the_statistics_in_both_phases() -> None:
    layer = gl.build(f'name: "b" type: "BN" top: "y" top: "m" top: "v" {SEGNETS}', (3, 2, 4, 5), phase=1)
    x = torch.randn(3, 2, 4, 5) + 1
    y, mean, variance = layer(x)
    flat = x.transpose(0, 1).flatten(1).double().numpy()
    np.testing.assert_allclose(mean.flatten(), flat.mean(1), rtol=1e-5)
    np.testing.assert_allclose(variance.flatten(), flat.var(1), rtol=1e-4)
    np.testing.assert_allclose(y.detach().mean((0, 2, 3)), 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ("shrink_factor: 3 zoom_factor: 2", (7, 5)),  # 10 to 4 to 7, 8 to 3 to 5
        ("shrink_factor: 3 zoom_factor: 2 height: 4 width: 9", (4, 9)),
        ("zoom_factor: 2 height: 4 width: 9", (19, 15)),
        ("zoom_factor: 2 pad_beg: -1 pad_end: -2", (13, 9)),
    ],
)
def test_interp_makes_the_size_that_the_options_give(options: str, size: tuple[int, int]) -> None:
    layer = gl.build(f'name: "i" type: "Interp" interp_param {{ {options} }}', (1, 1, 10, 8))
    assert layer(torch.zeros(1, 1, 10, 8)).shape == (1, 1, *size)


def test_interp_crops_before_it_resizes() -> None:
    option = "interp_param { zoom_factor: 3 pad_beg: -1 pad_end: -2 }"
    layer = gl.build(f'name: "i" type: "Interp" {option}', (1, 1, 6, 6))
    x = torch.arange(36.0).reshape(1, 1, 6, 6)
    assert torch.equal(layer(x)[0, 0, ::3, ::3], x[0, 0, 1:4, 1:4])


def test_interp_has_the_forks_coordinates_in_large_planes() -> None:
    """PSPNet's own sizes: 60 to 473, by the formula of util/interp.cpp in float32."""
    x = np.random.default_rng(0).standard_normal((60, 60)).astype(np.float32)
    where = np.float32(59) / np.float32(472) * np.arange(473, dtype=np.float32)
    low = where.astype(np.int64)
    high = np.minimum(low + 1, 59)
    share = where - low.astype(np.float32)
    rows = (1 - share) * x[:, low] + share * x[:, high]
    want = (1 - share[:, None]) * rows[low] + share[:, None] * rows[high]
    layer = gl.build('name: "i" type: "Interp" interp_param { height: 473 width: 473 }', (1, 1, 60, 60))
    np.testing.assert_allclose(layer(torch.from_numpy(x)[None, None])[0, 0], want, rtol=0, atol=1e-6)


def test_interp_has_its_gradient() -> None:
    layer = gl.build('name: "i" type: "Interp" interp_param { height: 7 width: 2 pad_end: -1 }', (1, 2, 4, 5))
    gl.check_gradients(layer, torch.randn(1, 2, 4, 5, dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "needs interp_param.zoom_factor, shrink_factor, or height and width"),
        ("height: 4", "needs interp_param.zoom_factor"),
        ("height: 4 width: 0", "height: 4 and width: 0 must be at least 1"),
        ("zoom_factor: 0", "zoom_factor: 0 must be at least 1"),
        ("zoom_factor: 2 pad_beg: 1", "pad_beg: 1 and pad_end: 0 must not be above 0"),
        ("zoom_factor: 2 pad_beg: -2 pad_end: -2", "leave nothing of planes of 4×5"),
    ],
)
def test_interp_refuses_what_gives_no_size(options: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "i" type: "Interp" interp_param {{ {options} }}', (1, 2, 4, 5))
