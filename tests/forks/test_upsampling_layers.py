"""The layers that make planes larger or smaller, against their forks' numbers: the two Upsample, Unpooling, Reorg."""

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text


@pytest.mark.parametrize("name", gl.names("upsample_", "reorg_", folder="forks"))
def test_layer_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


def test_the_last_value_stands_and_each_gets_the_gradient() -> None:
    layer = gl.build('name: "u" type: "Upsample"', (1, 1, 1, 3), (1, 1, 1, 3))
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]], requires_grad=True)
    y = layer(x, torch.tensor([[[[4.0, 0.0, 4.0]]]]))
    y.backward(torch.arange(12.0).reshape(1, 1, 2, 6) + 1)
    assert y.flatten().tolist() == [2, 0, 0, 0, 3, *[0] * 7]
    assert x.grad.flatten().tolist() == [5, 1, 5]


def test_masked_upsample_has_its_gradient() -> None:
    layer = gl.build('name: "u" type: "Upsample" upsample_param { pad_out_w: true }', (1, 2, 2, 2), (1, 2, 2, 2))
    mask = torch.tensor([[[[0, 2], [7, 11]], [[5, 3], [1, 4]]]])
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64)
    assert layer(x, mask).shape == (1, 2, 4, 3)
    gl.check_gradients(layer, x, mask)


def test_a_mask_of_larger_planes_is_an_error() -> None:
    layer = gl.build('name: "u" type: "Upsample"', (1, 1, 1, 1), (1, 1, 1, 1))
    with pytest.raises(LayerError, match=r'layer "u" \(Upsample\): its mask names place 4, outside .* 2×2'):
        layer(torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 4.0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("scale: 1", "a scale of 1×1 must be at least 2"),
        ("scale: 2 scale_h: 2 scale_w: 2", "both scale and scale_h, scale_w are given"),
        ("scale_h: 2", "scale_h without the other"),
        ("upsample_w: 2", "upsample_w without the other"),
        ("upsample_h: 1 upsample_w: 4", "upsample_h: 1 and upsample_w: 4 must be at least 2"),
        ("scale: 3 pad_out_h: true", "need a scale of 2, not 3×3"),
    ],
)
def test_masked_upsample_refuses_what_gives_no_size(options: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "u" type: "Upsample" upsample_param {{ {options} }}', (1, 1, 2, 2), (1, 1, 2, 2))


def test_nearest_upsample_and_reorg_have_their_gradients() -> None:
    up = gl.build('name: "u" type: "Upsample" upsample_param { scale: 3 }', (1, 2, 2, 1))
    gl.check_gradients(up, torch.randn(1, 2, 2, 1, dtype=torch.float64))
    for reverse in ("false", "true"):
        option = f"reorg_param {{ stride: 2 reverse: {reverse} }}"
        reorg = gl.build(f'name: "r" type: "Reorg" {option}', (2, 4, 2, 4))
        gl.check_gradients(reorg, torch.randn(2, 4, 2, 4, dtype=torch.float64))


def test_reorg_takes_darknets_places() -> None:
    """The index arithmetic of reorg_layer.hpp, place by place, for a stride that no golden has."""
    x, s = np.random.default_rng(0).standard_normal((2, 18, 3, 6)).astype(np.float32), 3
    n, c, h, w = x.shape
    read, want = x.reshape(n, c // s**2, h * s, w * s), np.empty_like(x)
    for k in range(c):
        block, channel = divmod(k, c // s**2)
        for j in range(h):
            for i in range(w):
                want[:, k, j, i] = read[:, channel, j * s + block // s, i * s + block % s]
    layer = gl.build('name: "r" type: "Reorg" reorg_param { stride: 3 }', x.shape)
    np.testing.assert_array_equal(layer(torch.from_numpy(x)), want.reshape(n, c * s**2, h // s, w // s))


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        ("stride: 0", (1, 4, 2, 2), "stride: 0 must be at least 1"),
        ("stride: 2", (1, 6, 2, 2), "stride: 2, squared, must divide its bottom's 6 channels"),
        ("stride: 2", (1, 4, 2, 3), "stride: 2 must divide the sides of planes of 2×3"),
    ],
)
def test_reorg_refuses_what_it_cannot_divide(options: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "r" type: "Reorg" reorg_param {{ {options} }}', shape)


def unpooled(
    x: np.ndarray,
    mode: str,
    kernel: int,
    stride: int,
    plane: tuple[int, int],
    mask: np.ndarray | None,
    grad: np.ndarray,
):
    """Forward and backward of unpooling_layer.cpp of DeconvNet's Caffe, written out; the top begins as 0, as on its GPU."""
    top, back = np.zeros((*x.shape[:2], plane[0] * plane[1])), np.zeros(x.shape)
    grad = grad.reshape(top.shape)
    for n, c, h, w in np.ndindex(x.shape):
        if mode == "MAX":
            at = (
                int(mask[n, c, h, w])
                if mask is not None
                else min(h * stride, plane[0] - 1) * plane[1] + min(w * stride, plane[1] - 1)
            )
            top[n, c, at] = x[n, c, h, w]
            back[n, c, h, w] = grad[n, c, at]
            continue
        rows, columns = (
            range(h * stride, min(h * stride + kernel, plane[0])),
            range(w * stride, min(w * stride + kernel, plane[1])),
        )
        size = len(rows) * len(columns)
        for row in rows:
            for column in columns:
                top[n, c, row * plane[1] + column] += x[n, c, h, w] / (size if mode == "AVE" else 1)
                back[n, c, h, w] += grad[n, c, row * plane[1] + column] / size
    return top.reshape(*x.shape[:2], *plane), back


@pytest.mark.parametrize("mode", ["MAX", "AVE", "TILE", "MAX masked"])
@pytest.mark.parametrize(
    ("kernel", "stride", "plane"), [(2, 2, (6, 8)), (3, 2, (6, 8)), (3, 1, (7, 5)), (2, 3, (9, 11))]
)
def test_deconvnets_unpooling(mode: str, kernel: int, stride: int, plane: tuple[int, int]) -> None:
    mode, masked = mode.split()[0], "masked" in mode
    rng = np.random.default_rng(0)
    x, grad = rng.standard_normal((2, 3, 3, 4)), rng.standard_normal((2, 3, *plane))
    mask = rng.integers(0, plane[0] * plane[1], x.shape).astype(float) if masked else None
    option = f"unpool: {mode} kernel_size: {kernel} stride: {stride} unpool_h: {plane[0]} unpool_w: {plane[1]}"
    layer = gl.build(f'type: "Unpooling" unpooling_param {{ {option} }}', *[x.shape] * (1 + masked))
    leaf = torch.from_numpy(x).requires_grad_()
    y = layer(leaf, torch.from_numpy(mask)) if mask is not None else layer(leaf)
    y.backward(torch.from_numpy(grad))
    want, back = unpooled(x, mode, kernel, stride, plane, mask, grad)
    np.testing.assert_allclose(y.detach(), want, atol=1e-12)
    np.testing.assert_allclose(leaf.grad, back, atol=1e-12)


UNPOOLING = "unpooling_param { kernel_size: 2 stride: 2 unpool_size: 6 }"


@pytest.mark.parametrize("unpooling", [f'type: "Unpooling" {UNPOOLING}', 'type: "Upsample"'])
@pytest.mark.parametrize("kernel", [2, 3])
def test_the_mask_of_a_pooling_brings_the_maxima_back(unpooling: str, kernel: int) -> None:
    """With windows that do not overlap by another way, which must make the same."""
    text = f"""layer {{ name: "i" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 dim: 6 dim: 6 }} }} }}
        layer {{ name: "p" type: "Pooling" bottom: "x" top: "y" top: "m" pooling_param {{ kernel_size: {kernel} stride: 2 }} }}
        layer {{ name: "u" {unpooling} bottom: "y" bottom: "m" top: "z" }}"""
    net = Net(parse_text(text, caffe_pb2.NetParameter), "TEST")
    assert (net.layers["u"].made_by is not None) == (kernel == 2)
    x = torch.randn(2, 3, 6, 6)
    blobs, _ = net.run(x=x)
    values, mask = blobs["y"].flatten(2), blobs["m"].long().flatten(2)
    want = torch.zeros(2, 3, 36)
    for n, c in np.ndindex(2, 3):
        for value, at in zip(values[n, c], mask[n, c], strict=True):
            want[n, c, at] = value
    assert torch.equal(blobs["z"].flatten(2), want) and torch.equal(net(x=x)["z"], blobs["z"])


@pytest.mark.parametrize(
    ("option", "bottoms", "words"),
    [
        ("kernel_size: 2", 1, "give unpool_size, or unpool_h and unpool_w"),
        ("unpool_size: 4", 1, "give kernel_size, or kernel_h and kernel_w"),
        ("unpool_size: 4 kernel_size: 2 kernel_h: 2 kernel_w: 2", 1, "give kernel_size, or kernel_h"),
        ("unpool_size: 4 kernel_size: 2 pad: 1", 1, "pad is 1×1"),
        ("unpool_size: 0 kernel_size: 2", 1, "they must have places"),
        ("unpool_size: 4 kernel_size: 0", 1, "kernel"),
        ("unpool_size: 4 kernel_size: 2 unpool: AVE", 2, "only MAX takes a second bottom"),
        ("unpool_size: 2 kernel_size: 2 stride: 2 unpool: TILE", 1, "windows do not all reach the planes of 2×2"),
    ],
)
def test_unpooling_refuses_what_it_cannot_do(option: str, bottoms: int, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "u" type: "Unpooling" unpooling_param {{ {option} }}', *[(1, 1, 2, 2)] * bottoms)


def test_unpooling_refuses_the_mask_of_other_planes() -> None:
    text = f"""layer {{ name: "i" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 dim: 8 dim: 8 }} }} }}
        layer {{ name: "p" type: "Pooling" bottom: "x" top: "y" top: "m" pooling_param {{ kernel_size: 2 stride: 2 }} }}
        layer {{ name: "u" type: "Unpooling" {UNPOOLING} bottom: "y" bottom: "m" top: "z" }}"""
    with pytest.raises(
        LayerError, match=r'places of planes of 8×8, the bottom of layer "p" .* the planes here are 6×6'
    ):
        Net(parse_text(text, caffe_pb2.NetParameter), "TEST")


def test_a_relu_with_two_tops_tells_where_it_passed_values() -> None:
    """relu_layer.cpp of HyeonwooNoh/caffe."""
    layer = gl.build('type: "ReLU" relu_param { negative_slope: 0.5 } top: "y" top: "mask"', (2, 3))
    x = torch.tensor([[-2.0, 0, 3], [1, -1, 0]], requires_grad=True)
    y, mask = layer(x)
    assert y.tolist() == [[-1, 0, 3], [1, -0.5, 0]] and mask.tolist() == [[0, 0, 1], [1, 0, 0]]
    (y.sum() + mask.sum()).backward()
    assert x.grad is not None and x.grad.tolist() == [[0.5, 0.5, 1], [1, 0.5, 0.5]]
