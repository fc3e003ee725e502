"""Weights that are cut and grow again: CConvolution and CInnerProduct of dynamic network surgery."""

from __future__ import annotations

import golden_layer as gl
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer

ONE = "weight_mask_filler { value: 1 } bias_mask_filler { value: 1 }"
GAUSSIAN = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'


def inner(options: str, phase: int = 0) -> Layer:
    text = f"inner_product_param {{ num_output: 5 {GAUSSIAN} }} cinner_product_param {{ {ONE} {options} }}"
    return gl.build(f'name: "c" type: "CInnerProduct" {text}', (3, 4), dtype=torch.float64, phase=phase)


def test_small_weights_are_cut_and_grow_again() -> None:
    """Forward_gpu and Backward_gpu of compress_inner_product_layer.cu."""
    layer = inner("c_rate: -0.25 power: 0")
    weight, bias, masks = layer.blob(0), layer.blob(1), (layer.blob(2), layer.blob(3))
    values = np.concatenate([weight.detach().numpy().ravel(), bias.detach().numpy().ravel()])
    threshold = abs(values).mean() - 0.25 * np.sqrt((values**2).mean() - abs(values).mean() ** 2)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    want = abs(values) > 0.9 * threshold
    assert np.array_equal(torch.cat([m.flatten() for m in masks]).numpy(), want) and 0 < want.sum() < len(want)
    cut_weight, cut_bias = (value.detach() * mask for value, mask in zip((weight, bias), masks, strict=True))
    torch.testing.assert_close(y.detach(), F.linear(x.detach(), cut_weight, cut_bias))
    top = torch.randn(3, 5, dtype=torch.float64)
    layer.set_blob(0, weight.detach().requires_grad_())
    y = layer(x)
    y.backward(top)
    torch.testing.assert_close(layer.blob(0).grad, top.t() @ x.detach())  # of what is cut, too
    torch.testing.assert_close(x.grad, top @ cut_weight)
    small = (masks[0] == 0).nonzero()[0].tolist()
    for size, counts in ((1.05, 0), (1.15, 1)):
        layer.blob(0).data[small[0], small[1]] = size * threshold
        layer(x)
        assert masks[0][small[0], small[1]] == counts
    assert layer.state()["mean"] == pytest.approx(abs(values).mean())


def test_masks_stand_still_after_their_time_and_in_tests() -> None:
    x = torch.randn(3, 4, dtype=torch.float64)
    for layer in (inner("iter_stop: 0"), inner("", phase=1)):
        layer(x)
        assert layer.blob(2).all()
    layer = inner("gamma: 1e30")
    layer(x)
    before = layer.blob(2).clone()
    layer.at_iteration(1)  # the probability is nearly 0 now
    layer.blob(0).data.zero_()
    layer(x)
    assert torch.equal(layer.blob(2), before)


def test_a_convolution_with_masks() -> None:
    text = f"num_output: 4 kernel_size: 3 pad: 1 stride: 2 group: 2 {GAUSSIAN}"
    layer = gl.build(
        f'name: "c" type: "CConvolution" convolution_param {{ {text} }} cconvolution_param {{ {ONE} c_rate: 0 power: 0 }}',
        (2, 4, 5, 6),
        dtype=torch.float64,
    )
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    y = layer(x)
    mask = layer.blob(2)
    assert 0 < mask.sum() < mask.numel()
    weight, bias = layer.blob(0) * mask, layer.blob(1) * layer.blob(3)
    torch.testing.assert_close(y, F.conv2d(x, weight, bias, (2, 2), (1, 1), 1, 2))
    with pytest.raises(LayerError, match="bias_term: false crashes the fork"):
        gl.build(
            'type: "CConvolution" convolution_param { num_output: 1 kernel_size: 1 bias_term: false }', (1, 1, 2, 2)
        )
