"""Layers that Intel's Caffe makes one of: a convolution or inner product with its ReLU, and with a sum before that."""

from __future__ import annotations

import golden_layer as gl
import pytest
import torch
import torch.nn.functional as F

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer

SHAPE = (2, 3, 5, 5)
SIZE = 'num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" std: 1 }'


def convolution(options: str, *shapes: tuple[int, ...]) -> Layer:
    return gl.build(f'name: "c" type: "Convolution" convolution_param {{ {SIZE} {options} }}', *shapes)


@pytest.mark.parametrize(
    ("options", "slope"), [("relu: true", 0), ("relu: true negative_slope: 0.5", 0.5), ("relu: false", 1)]
)
def test_a_convolution_may_apply_a_relu(options: str, slope: float) -> None:
    layer, x = convolution(options, SHAPE), torch.randn(SHAPE)
    assert layer.fork == "intel" and convolution("", SHAPE).fork == ""
    torch.testing.assert_close(layer(x), F.leaky_relu(F.conv2d(x, layer.blob(0), layer.blob(1)), slope))


def test_a_convolution_may_add_another_blob_first() -> None:
    layer = convolution("relu: true fusion_type: SUM_FUSION coeff: 1 coeff: 1", SHAPE, (2, 4, 3, 3))
    x, other = torch.randn(SHAPE), torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(layer(x, other), F.relu(F.conv2d(x, layer.blob(0), layer.blob(1)) + other))
    with pytest.raises(LayerError, match=r"SUM_FUSION adds 2×4×3×4 to its 2×4×3×3, which must be equal"):
        layer(x, torch.zeros(2, 4, 3, 4))


def test_an_inner_product_may_apply_a_relu() -> None:
    option = 'inner_product_param { num_output: 4 relu: true negative_slope: 0.25 weight_filler { type: "xavier" } }'
    layer, x = gl.build(f'name: "i" type: "InnerProduct" {option}', (5, 3)), torch.randn(5, 3)
    torch.testing.assert_close(layer(x), F.leaky_relu(F.linear(x, layer.blob(0), layer.blob(1)), 0.25))


def test_concat_permutes_and_flattens_the_heads_of_ssd() -> None:
    """As Permute, Flatten and Concat do."""
    a, b = torch.rand(2, 8, 3, 4), torch.rand(2, 12, 1, 2)
    layer = gl.build('name: "c" type: "Concat" concat_param { axis: 1 per_fla_fuse: true }', a.shape, b.shape)
    assert layer.fork == "intel"
    want = torch.cat([x.permute(0, 2, 3, 1).reshape(2, -1) for x in (a, b)], 1)
    assert torch.equal(layer(a, b), want[:, :, None, None])
    with pytest.raises(LayerError, match="joins bottoms on axis 1, not 2"):
        gl.build('name: "c" type: "Concat" concat_param { axis: 2 per_fla_fuse: true }', a.shape, b.shape)
    with pytest.raises(LayerError, match="of one number of items, not of shape 1×8"):
        gl.build('name: "c" type: "Concat" concat_param { per_fla_fuse: true }', a.shape, (1, 8))


@pytest.mark.parametrize("factor", [2, 3])
def test_pixels_are_shuffled_as_in_the_fork(factor: int) -> None:
    """reshape_layer.cpp of Intel's Caffe, value by value."""
    x = torch.randn(2, 2 * factor**2, 3, 4, dtype=torch.float64)
    layer = gl.build(f'name: "r" type: "Reshape" reshape_param {{ pixelshuffler: {factor} }}', x.shape)
    want = torch.zeros(2, 2, 3 * factor, 4 * factor, dtype=torch.float64)
    for c in range(x.shape[1]):
        want[:, c // factor**2, c // factor % factor :: factor, c % factor :: factor] = x[:, c]
    assert layer.fork == "intel" and layer(x).equal(want)
    gl.check_gradients(layer, x)
    with pytest.raises(LayerError, match="divides, squared"):
        gl.build('name: "r" type: "Reshape" reshape_param { pixelshuffler: 3 }', (1, 6, 2, 2))
