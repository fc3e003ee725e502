"""Pad and Squeeze of synopsys-caffe, against what pad_layer.cpp and squeeze_layer.cpp do."""

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError


def test_pad_puts_a_value_around_every_axis() -> None:
    numbers = (0, 1, 2, 0, 1, 3)
    paddings = " ".join(f"paddings: {n}" for n in numbers)
    layer = gl.build(f'type: "Pad" pad_param {{ {paddings} constant_values: -2.5 }}', (2, 3, 4))
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    want = np.pad(x.numpy(), [(0, 1), (2, 0), (1, 3)], constant_values=-2.5)
    np.testing.assert_array_equal(layer(x), want)
    assert gl.meta_shapes(layer, [(2, 3, 4)]) == [want.shape]
    gl.check_gradients(layer, x)


@pytest.mark.parametrize(
    ("shape", "options", "want"),
    [
        ((2, 1, 3, 1), "", (2, 3)),
        ((2, 1, 3, 1), "axis: 1", (2, 3, 1)),
        ((2, 1, 3, 1), "axis: -1 axis: 1", (2, 3)),
        ((1, 1), "", ()),
    ],
)
def test_squeeze_takes_axes_of_length_1_away(shape: tuple[int, ...], options: str, want: tuple[int, ...]) -> None:
    layer = gl.build(f'type: "Squeeze" squeeze_param {{ {options} }}', shape)
    x = torch.randn(shape)
    assert layer(x).shape == want
    assert layer(x).flatten().tolist() == x.flatten().tolist()
    assert gl.meta_shapes(layer, [shape]) == [want]


def test_what_they_cannot_do() -> None:
    with pytest.raises(LayerError, match="paddings is given 2 times; a bottom of shape 2×3 needs 4"):
        gl.build('type: "Pad" pad_param { paddings: 1 paddings: 1 }', (2, 3))
    with pytest.raises(LayerError, match="axis: 1 of a bottom of shape 2×3 is not of length 1"):
        gl.build('type: "Squeeze" squeeze_param { axis: 1 }', (2, 3))
    with pytest.raises(LayerError, match="axis"):
        gl.build('type: "Squeeze" squeeze_param { axis: 2 }', (2, 1))
