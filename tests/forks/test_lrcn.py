"""Eltwise with coefficients from a blob, by eltwise_layer.cpp of LisaAnne/lisa-caffe-public."""

from __future__ import annotations

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError


@pytest.mark.parametrize("weights", [(2, 3), (2, 3, 4)])
def test_bottoms_are_summed_with_their_coefficients(weights: tuple[int, ...]) -> None:
    text = 'type: "Eltwise" eltwise_param { coeff_blob: true coeff: 2 coeff: -1 }'
    layer = gl.build(text, (3, 4, 5), (3, 4, 5), weights)
    a, b = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    c = torch.rand(weights, dtype=torch.float64)
    wide = c.view(*weights, *(1,) * (4 - len(weights)))
    torch.testing.assert_close(layer(a, b, c), 2 * wide[0] * a - wide[1] * b)
    x = [a.requires_grad_(), b.requires_grad_(), c.requires_grad_()]
    layer(*x).sum().backward()
    torch.testing.assert_close(x[1].grad, (-wide[1]).expand_as(b))
    assert x[2].grad is None


@pytest.mark.parametrize(
    ("options", "shapes", "words"),
    [
        ("operation: MAX", ((2, 3), (1, 2)), "coeff_blob is for operation: SUM"),
        ("", ((2, 3), (2, 2)), "last bottom, have shape 2×2; expected 1 and the first axes of 2×3"),
        ("", ((2, 3), (2, 4), (2, 2)), "they must agree"),
        ("coeff: 1 coeff: 2", ((2, 3), (1, 2)), "coeff is given 2 times for 1 bottoms"),
    ],
)
def test_coefficients_that_do_not_fit(options: str, shapes: tuple[tuple[int, ...], ...], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'type: "Eltwise" eltwise_param {{ coeff_blob: true {options} }}', *shapes)
