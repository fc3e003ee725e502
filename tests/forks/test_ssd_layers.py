"""The layers of SSD's Caffe, against its own numbers."""

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError


@pytest.mark.parametrize("name", gl.names("permute_", folder="forks"))
def test_permute_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


def test_permute_has_its_gradient() -> None:
    layer = gl.build('name: "p" type: "Permute" permute_param { order: 2 order: 0 }', (2, 3, 4))
    gl.check_gradients(layer, torch.randn(2, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("order", "words"),
    [("order: 3", "order: 3 is not one of the 3 axes"), ("order: 1 order: 1", "names axis 1 2 times")],
)
def test_permute_refuses_a_bad_order(order: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "p" type: "Permute" permute_param {{ {order} }}', (2, 3, 4))
