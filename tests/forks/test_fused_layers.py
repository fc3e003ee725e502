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
