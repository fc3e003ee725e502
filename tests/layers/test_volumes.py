"""Pooling of volumes and lines, with dilation, and without padding in averages: against sums over all places."""

from __future__ import annotations

import itertools

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

LINE, PLANES, VOLUME = (2, 3, 9), (2, 2, 7, 6), (2, 2, 4, 5, 6)


def pooling(options: str, shape: tuple[int, ...], tops: int = 1) -> Layer:
    named = " ".join(f'top: "y{i}"' for i in range(tops))
    param = parse_text(
        f'layer {{ name: "p" type: "Pooling" {named} pooling_param {{ {options} }} }}', caffe_pb2.NetParameter
    ).layer[0]
    return gl.build(str(param), shape)


def reference(
    x: np.ndarray,
    mode: str,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    dilation: int,
    counts: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Forward_cpu of intel/caffe's pooling_layer.cpp for volumes, written for any number of axes, with dilation."""
    n = len(kernel)
    size = x.shape[-n:]
    extent = [dilation * (k - 1) + 1 for k in kernel]
    out = [-(-(size[a] + 2 * pad[a] - extent[a]) // stride[a]) + 1 for a in range(n)]
    if any(pad):
        out = [o - ((o - 1) * stride[a] >= size[a] + pad[a]) for a, o in enumerate(out)]
    flat = x.reshape(-1, *size)
    y, mask = np.zeros((len(flat), *out)), np.zeros((len(flat), *out))
    for at in itertools.product(*map(range, out)):
        axes = [[at[a] * stride[a] - pad[a] + i * dilation for i in range(kernel[a])] for a in range(n)]
        counted = np.prod(
            [sum((p < size[a] + pad[a]) if counts else (0 <= p < size[a]) for p in axes[a]) for a in range(n)]
        )
        inside = [p for p in itertools.product(*axes) if all(0 <= p[a] < size[a] for a in range(n))]
        values = np.stack([flat[(slice(None), *p)] for p in inside])
        if mode == "MAX":
            y[(slice(None), *at)] = values.max(0)
            mask[(slice(None), *at)] = [np.ravel_multi_index(inside[i], size) for i in values.argmax(0)]
        else:
            y[(slice(None), *at)] = values.sum(0) / (counted if mode == "AVE" else 1)
    return y.reshape(*x.shape[:-n], *out), mask.reshape(*x.shape[:-n], *out)


@pytest.mark.parametrize("mode", ["MAX", "AVE", "SUM"])
@pytest.mark.parametrize(
    ("options", "shape", "kernel", "stride", "pad", "dilation", "counts"),
    [
        ("kernel_size: 2 stride: 2", VOLUME, (2, 2, 2), (2, 2, 2), (0, 0, 0), 1, True),
        (
            "kernel_size: 1 kernel_size: 2 kernel_size: 3 stride: 2 pad: 0 pad: 1 pad: 2",
            VOLUME,
            (1, 2, 3),
            (2, 2, 2),
            (0, 1, 2),
            1,
            True,
        ),
        ("kernel_size: [3, 2, 2] stride: [1, 2, 2]", VOLUME, (3, 2, 2), (1, 2, 2), (0, 0, 0), 1, True),
        (
            "kernel_size_3d: 3 pad_3d: 1 stride_3d: 2 avg_include_pad: false",
            VOLUME,
            (3, 3, 3),
            (2, 2, 2),
            (1, 1, 1),
            1,
            False,
        ),
        ("global_pooling: true", VOLUME, (4, 5, 6), (1, 1, 1), (0, 0, 0), 1, True),
        ("kernel_size: 2 dilation: 2", VOLUME, (2, 2, 2), (1, 1, 1), (0, 0, 0), 2, True),
        ("kernel_size: 3 dilation: 2 pad: 2 stride: 2", PLANES, (3, 3), (2, 2), (2, 2), 2, True),
        ("kernel_h: 3 kernel_w: 1 pad_h: 1 pad_w: 0 avg_include_pad: false", PLANES, (3, 1), (1, 1), (1, 0), 1, False),
        ("kernel_size: 3 stride: 2", LINE, (3,), (2,), (0,), 1, True),
        ("kernel_size: 2 axis: 2", VOLUME, (2, 2), (1, 1), (0, 0), 1, True),
    ],
)
def test_pools_as_the_formula(mode, options, shape, kernel, stride, pad, dilation, counts) -> None:
    x = np.random.default_rng(0).standard_normal(shape)
    layer = pooling(f"pool: {mode} {options}", shape, tops=1 + (mode == "MAX"))
    y, mask = reference(x, mode, kernel, stride, pad, dilation, counts)
    tops = gl.tops_of(layer(torch.from_numpy(x)))
    assert gl.meta_shapes(layer, [shape]) == [y.shape] * len(tops)
    np.testing.assert_allclose(tops[0], y, rtol=1e-12)
    if mode == "MAX":
        np.testing.assert_array_equal(tops[1], mask)
        assert torch.equal(pooling(options, shape)(torch.from_numpy(x)), tops[0])


@pytest.mark.parametrize("mode", ["MAX", "AVE"])
def test_gradients(mode: str) -> None:
    layer = pooling(f"pool: {mode} kernel_size: 2 kernel_size: 3 kernel_size: 2 stride: 2 pad: 1", (1, 2, 3, 4, 3))
    gl.check_gradients(layer, torch.randn(1, 2, 3, 4, 3, dtype=torch.float64))


def test_the_first_of_equal_values_has_the_gradient() -> None:
    x = torch.zeros(1, 1, 2, 2, 2, requires_grad=True)
    pooling("kernel_size: 2", tuple(x.shape))(x).sum().backward()
    assert x.grad.flatten().tolist() == [1, 0, 0, 0, 0, 0, 0, 0]


def test_planes_are_pooled_alike_with_and_without_the_repetition() -> None:
    x = torch.randn(PLANES)
    once = pooling("kernel_h: 3 kernel_w: 2 stride: 2", PLANES)(x)
    assert torch.equal(once, pooling("kernel_size: 3 kernel_size: 2 stride: 2", PLANES)(x))


def test_a_net_of_volumes_runs() -> None:
    text = """
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 6 dim: 6 } } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 3 kernel_size: 1 } }
        layer { name: "r" type: "ReLU" bottom: "c" top: "c" }
        layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param {
            kernel_size: 1 kernel_size: 2 kernel_size: 2 stride: [1, 2, 2] } }"""
    net = Net(parse_text(text, caffe_pb2.NetParameter), "TEST")
    assert net(x=torch.ones(1, 2, 4, 6, 6))["p"].shape == (1, 3, 4, 3, 3)


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        (
            "kernel_size: 5",
            VOLUME,
            r"kernel along the depth is 5, larger than the input's depth 4 plus twice the pad 0",
        ),
        (
            "kernel_size: 4 dilation: 2",
            PLANES,
            r"the width is 4 \(extent 7 with dilation 2\), larger than the input's width 6",
        ),
        ("kernel_size: 2 kernel_size: 2", VOLUME, "2 values of kernel_size for 3 axes; give one, or one for each"),
        ("kernel_h: 2 kernel_w: 2", VOLUME, "kernel_h is for planes, with both sides; for 3 axes give kernel_size"),
        ("stride: 2", VOLUME, "no kernel_size, nor kernel_h and kernel_w, nor global_pooling"),
        ("kernel_size: 2 pad: 2", VOLUME, "the pad along the depth is 2, but must be smaller than the kernel, 2"),
        ("kernel_size: 2 stride: 0", VOLUME, "the stride along the depth is 0, but must be positive"),
        ("kernel_size: 1 stride: 3 pool: STOCHASTIC", VOLUME, "STOCHASTIC pools only planes, without dilation"),
        ("kernel_size: 2 kernel_size_3d: 2", VOLUME, "kernel_size together with kernel_size_3d; give one of them"),
        ("kernel_size: 1 stride: 5", VOLUME, "window 1 along the depth would have no input in it, as the depth is 4"),
        ("kernel_size: 2", (1, 1, 2, 2, 2, 2), "pools over 1 to 3 axes behind the channels"),
        ("kernel_size: 2 axis: 5", PLANES, "pooling_param.axis: 5 is out of range"),
        ("kernel_size: 2 dilation: 2 mask_index_type: LOCAL", PLANES, "LOCAL is for planes without dilation"),
    ],
)
def test_refuses_what_cannot_be(options: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        pooling(options, shape)
