"""synopsys-caffe: padding of each side, and TensorFlow's operations, against its code written out (layers of these names)."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import pycaffe_compat
from pycaffe_compat.errors import LayerError

F64 = torch.float64


def pooled(x, mode, kernel, stride, sides, ceil):
    """pooling_layer.cpp, window by window; ``sides``: left, right, top, bottom."""
    left, right, top, bottom = sides
    n, c, height, width = x.shape
    counts = []
    for size, k, s, before, after in (
        (height, *kernel[:1], *stride[:1], top, bottom),
        (width, kernel[1], stride[1], left, right),
    ):
        room = (size + before + after - k) / s
        count = (math.ceil(room) if ceil else math.floor(room)) + 1
        counts.append(count - (any(sides) and (count - 1) * s >= size + before))
    y = np.zeros((n, c, *counts))
    for row, column in np.ndindex(*counts):
        h0, w0 = row * stride[0] - top, column * stride[1] - left
        if mode == "MAX":
            part = x[:, :, max(h0, 0) : h0 + kernel[0], max(w0, 0) : w0 + kernel[1]]
            y[:, :, row, column] = part.max((2, 3))
            continue
        h1, w1 = min(h0 + kernel[0], height + bottom), min(w0 + kernel[1], width + right)
        area = (h1 - h0) * (w1 - w0)
        h0, w0, h1, w1 = max(h0, 0), max(w0, 0), min(h1, height), min(w1, width)
        if mode == "AVE_EXC_PAD":
            area = (h1 - h0) * (w1 - w0)
        y[:, :, row, column] = x[:, :, h0:h1, w0:w1].sum((2, 3)) / area
    return y


@pytest.mark.parametrize("mode", ["MAX", "AVE", "AVE_EXC_PAD"])
@pytest.mark.parametrize(
    ("sides", "kernel", "stride", "ceil"),
    [((0, 1, 0, 1), (3, 3), (2, 2), True), ((1, 0, 2, 1), (3, 2), (2, 1), False), ((2, 2, 1, 0), (3, 3), (3, 3), True)],
)
def test_pooling_pads_each_side(mode, sides, kernel, stride, ceil) -> None:
    x = torch.randn(2, 3, 7, 8, dtype=F64)
    named = " ".join(f"pad_{side}: {size}" for side, size in zip("lrtb", sides, strict=True))
    layer = gl.build(
        f'name: "p" type: "Pooling" pooling_param {{ pool: {mode} kernel_h: {kernel[0]} kernel_w: {kernel[1]} '
        f"stride_h: {stride[0]} stride_w: {stride[1]} ceil_mode: {str(ceil).lower()} {named} }}",
        x.shape,
    )
    assert layer.fork == "synopsys"
    np.testing.assert_allclose(layer(x), pooled(x.numpy(), mode, kernel, stride, sides, ceil))
    gl.check_gradients(layer, x)


def test_pooling_without_padding_of_its_own_is_bvlcs() -> None:
    x = torch.randn(2, 3, 7, 8, dtype=F64)
    plain = 'name: "p" type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1'
    layer = gl.build(f"{plain} pad_l: 0 pad_r: 0 pad_t: 0 pad_b: 0 }}", x.shape)
    torch.testing.assert_close(layer(x), gl.build(f"{plain} }}", x.shape)(x))
    whole = gl.build('name: "p" type: "Pooling" pooling_param { pool: AVE_TF global_pooling: true }', x.shape)
    torch.testing.assert_close(whole(x), x.mean((2, 3), keepdim=True))


@pytest.mark.parametrize(("size", "stride", "kernel"), list(itertools.product([7, 8], [1, 2, 3], [2, 3])))
def test_same_is_tensorflows(size: int, stride: int, kernel: int) -> None:
    x = torch.randn(1, 2, size, size, dtype=F64)
    whole = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    before, after = whole // 2, whole - whole // 2
    options = f"kernel_size: {kernel} stride: {stride} pad_type: 1"
    layer = gl.build(
        f'name: "c" type: "Convolution" convolution_param {{ num_output: 2 {options} }}', x.shape, dtype=F64
    )
    layer.weight.data.normal_()
    padded = F.pad(x, (before, after, before, after))
    torch.testing.assert_close(layer(x), F.conv2d(padded, layer.weight, layer.bias, stride))
    pooling = gl.build(f'name: "p" type: "Pooling" pooling_param {{ pool: AVE_EXC_PAD {options} }}', x.shape)
    counted = F.avg_pool2d(F.pad(torch.ones_like(x), (before, after, before, after)), kernel, stride)
    torch.testing.assert_close(pooling(x), F.avg_pool2d(padded, kernel, stride) / counted)


def test_convolution_pads_each_side() -> None:
    layer = gl.build(
        'name: "c" type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 stride: 2 dilation: 2 group: 2 pad_l: 1 '
        'pad_b: 2 pad_t: 3 weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } }',
        (2, 2, 6, 7),
        dtype=F64,
    )
    x = torch.randn(2, 2, 6, 7, dtype=F64)
    want = F.conv2d(F.pad(x, (1, 0, 3, 2)), layer.weight, layer.bias, 2, 0, 2, 2)
    torch.testing.assert_close(layer(x), want)
    assert layer.fork == "synopsys" and layer.flops([x.shape], [want.shape]) > 0
    gl.check_gradients(layer, x)


def test_batch_norm_adds_eps_behind_the_root() -> None:
    layer = gl.build(
        'name: "b" type: "BatchNorm" batch_norm_param { eps: 0.1 add_eps_before_sqrt: false }', (2, 3, 4), phase=1
    )
    layer.running_mean.uniform_(), layer.running_var.uniform_(), layer.scale_factor.fill_(2)
    x = torch.randn(2, 3, 4)
    mean, deviation = layer.running_mean / 2, (layer.running_var / 2).sqrt() + 0.1
    torch.testing.assert_close(layer(x), (x - mean[:, None]) / deviation[:, None])
    inside = gl.build('name: "b" type: "BatchNorm" batch_norm_param { add_eps_before_sqrt: true }', (2, 3, 4))
    torch.testing.assert_close(inside(x), F.batch_norm(x, None, None, training=True))


def test_products_and_sums_spread() -> None:
    for one, other in (((2, 3, 4, 5), (2, 3, 1, 1)), ((4, 5), (2, 3, 4, 1)), ((2, 3), ()), ((), (2, 3))):
        a, b = torch.randn(one, dtype=F64), torch.randn(other, dtype=F64)
        product, total = (gl.build(f'name: "m" type: "{kind}"', one, other) for kind in ("Mul", "Add"))
        torch.testing.assert_close(product(a, b), a * b)
        torch.testing.assert_close(total(a, b), a + b)
        gl.check_gradients(product, a, b)
    layer = gl.build('name: "m" type: "Mul" mul_param { mul_shape: [3, 1] }', (2, 3, 4), dtype=F64)
    layer.factor.data.uniform_()
    x = torch.randn(2, 3, 4, dtype=F64)
    torch.testing.assert_close(layer(x), x * layer.factor)


def test_space_goes_to_batch_and_back() -> None:
    """TensorFlow's definition: what lies at a place of a block comes together."""
    x = torch.arange(2 * 3 * 5 * 2.0, dtype=F64).view(2, 3, 5, 2)
    layer = gl.build(
        'name: "s" type: "SpaceToBatchND" space_to_batch_nd_param { block_shape: [2, 3] paddings: [1, 0, 0, 1] }',
        x.shape,
    )
    y = layer(x)
    padded = F.pad(x, (0, 0, 0, 1, 1, 0))
    assert y.shape == (12, 2, 2, 2)
    for i, j, n in itertools.product(range(2), range(3), range(2)):
        torch.testing.assert_close(y[(i * 3 + j) * 2 + n], padded[n, i::2, j::3])
    back = gl.build(
        'name: "b" type: "BatchToSpaceND" batch_to_space_nd_param { block_shape: [2, 3] crops: [1, 0, 0, 1] }', y.shape
    )
    assert back(y).equal(x)
    gl.check_gradients(layer, x.clone())


@pytest.mark.parametrize("mode", ["", "align_corners", "half_pixel_centers", "pytorch_half_pixel"])
@pytest.mark.parametrize("size", [(3, 9), (8, 4), (1, 5)])
def test_bilinear_resizing_is_the_forks(mode, size) -> None:
    x = torch.randn(2, 3, 6, 5, dtype=F64)
    flag = f"{mode}: true" if mode else ""
    options = f"output_height: {size[0]} output_width: {size[1]} {flag}"
    layer = gl.build(
        f'name: "r" type: "ResizeBilinear" resize_bilinear_param {{ {options} data_format: "NCHW" }}', x.shape
    )
    want = np.zeros((2, 3, *size))

    def place(i, new, old):
        scale = (old - 1) / (new - 1) if mode == "align_corners" and new > 1 else old / new
        at = np.float32(i) * np.float32(scale)
        if mode == "half_pixel_centers" or (mode and "pytorch" in mode and new > 1):
            at = (np.float32(i) + np.float32(0.5)) * np.float32(scale) - np.float32(0.5)
        elif mode == "pytorch_half_pixel":
            at = np.float32(-0.5)
        return max(math.floor(at), 0), min(math.ceil(at), old - 1), float(at - math.floor(at))

    for i, j in np.ndindex(*size):
        (a, b, u), (c, d, v) = place(i, size[0], 6), place(j, size[1], 5)
        top = x[:, :, a, c] + (x[:, :, a, d] - x[:, :, a, c]) * v
        bottom = x[:, :, b, c] + (x[:, :, b, d] - x[:, :, b, c]) * v
        want[:, :, i, j] = top + (bottom - top) * u
    np.testing.assert_allclose(layer(x), want, atol=1e-6)
    last = gl.build(f'name: "r" type: "ResizeBilinear" resize_bilinear_param {{ {options} }}', (2, 6, 5, 3))
    torch.testing.assert_close(last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), layer(x))


@pytest.mark.parametrize(
    ("flag", "rows"),
    [
        ("", [0, 0, 1, 2, 3]),
        ("align_corners: true", [0, 1, 2, 2, 3]),
        ("half_pixel_centers: true", [0, 1, 2, 2, 3]),
        ("half_pixel_onnx: true", [0, 0, 1, 2, 3]),
    ],
)
def test_nearest_resizing_is_the_forks(flag: str, rows: list[int]) -> None:
    x = torch.randn(1, 2, 4, 3)
    layer = gl.build(
        'name: "r" type: "ResizeNearestNeighbor" resize_nearest_neighbor_param { data_format: "NCHW" output_height: 5 '
        f"scale_width: 1 {flag} }}",
        x.shape,
    )
    torch.testing.assert_close(layer(x), x[:, :, rows])


@pytest.mark.parametrize(
    ("text", "shapes", "words"),
    [
        (
            'type: "Convolution" convolution_param { num_output: 1 kernel_size: 1 pad: 1 pad_l: 1 }',
            1,
            "give pad, or pad_l",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 1 kernel_size: 9 pad_l: 1 }',
            1,
            "is larger than its input",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 1 kernel_size: 1 pad_l: -1 }',
            1,
            "pad_l: -1 must not be",
        ),
        (
            'type: "Convolution" convolution_param { num_output: 1 kernel_size: 1 pad_l: 1 input_scale: 2 }',
            1,
            "input_scale is not",
        ),
        ('type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 pad_l: 1 }', 1, "pool: STOCHASTIC"),
        ('type: "Pooling" pooling_param { kernel_size: 9 pad_l: 1 }', 1, "windows of 9×9 are larger"),
        ('type: "BatchNorm" batch_norm_param { add_eps_before_sqrt: false }', 1, "only with running statistics"),
        ('type: "Add"', 2, "do not go together"),
        (
            'type: "SpaceToBatchND" space_to_batch_nd_param { block_shape: 3 paddings: [0, 0] }',
            1,
            "block_shape: 3 must divide axis 1",
        ),
        (
            'type: "BatchToSpaceND" batch_to_space_nd_param { block_shape: 3 crops: [0, 0] }',
            1,
            "must divide the 2 images",
        ),
        ('type: "SpaceToBatchND"', 1, "needs block_shape"),
        ('type: "ResizeBilinear" resize_bilinear_param { data_format: "NC" }', 1, 'data_format is "NC"'),
        (
            'type: "ResizeBilinear" resize_bilinear_param { align_corners: true half_pixel_centers: true }',
            1,
            "do not go together",
        ),
        ('type: "ResizeNearestNeighbor" resize_nearest_neighbor_param { output_height: 0 }', 1, "sides are at least 1"),
    ],
)
def test_what_does_not_fit_is_an_error(text: str, shapes: int, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "x" {text}', *[(2, 2, 4, 4), (2, 3, 4, 4)][:shapes])


def test_a_net_of_tensorflows_layers_runs(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'input: "x" input_shape { dim: 1 dim: 2 dim: 8 dim: 8 } '
        'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 3 kernel_h: 3 kernel_w: 3 '
        "stride_h: 2 stride_w: 2 pad_l: 0 pad_r: 1 pad_t: 0 pad_b: 1 } } "
        'layer { name: "r" type: "ReLU" bottom: "c" top: "c" } '
        'layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { pool: MAX kernel_size: 2 stride: 2 pad_r: 1 } } '
        'layer { name: "m" type: "Mul" bottom: "p" bottom: "p" top: "m" }'
    )
    net = pycaffe_compat.load(path, phase="TEST")
    assert net.blob_shapes["c"] == (1, 3, 4, 4) and net.layers["c"].fork == "synopsys"
    assert net(x=torch.rand(1, 2, 8, 8))["m"].shape == (1, 3, 2, 2)
