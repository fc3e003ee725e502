"""Activations and poolings that forks have for backbones: ReLU6, ReLU with limits, ``ceil_mode``."""

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError


@pytest.mark.parametrize("name", gl.names("relu", folder="forks"))
def test_limited_relu_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


@pytest.mark.parametrize("type_name", ["ReLU6", "ReLU"])
def test_relu6_has_no_gradient_at_its_limits(type_name: str) -> None:
    option = "relu_param { relu6: true }" if type_name == "ReLU" else ""
    layer = gl.build(f'name: "r" type: "{type_name}" {option}', (4,))
    x = torch.tensor([0.0, 6.0, 5.0, 7.0], requires_grad=True)
    y = layer(x)
    y.backward(torch.ones(4))
    assert y.tolist() == [0, 6, 5, 6] and x.grad.tolist() == [0, 0, 1, 0]


def test_relu6_in_place_reads_what_it_wrote() -> None:
    layer = gl.build('name: "r" type: "ReLU6" bottom: "x" top: "x" relu6_param { negative_slope: -1 }', (3,))
    x = torch.tensor([-3.0, 2.0, 8.0], requires_grad=True)
    layer(x).backward(torch.ones(3))
    assert x.grad.tolist() == [1, 1, 0]  # -3 became 3, whose slope is 1


def test_relu_keeps_what_is_between_its_limits() -> None:
    layer = gl.build('name: "r" type: "ReLU" relu_param { minimum: 1 maximum: 4 }', (3,))
    assert layer(torch.tensor([0.5, 2.0, 9.0])).tolist() == [1, 2, 4]
    x = torch.linspace(0.1, 6, 8, dtype=torch.float64)
    gl.check_gradients(layer, x)


@pytest.mark.parametrize(("mode", "size"), [("false", 3), ("true", 4)])
def test_ceil_mode_rounds_the_number_of_windows(mode: str, size: int) -> None:
    layer = gl.build(
        f'name: "p" type: "Pooling" pooling_param {{ kernel_size: 2 stride: 2 ceil_mode: {mode} }}', (1, 1, 7, 7)
    )
    assert layer(torch.zeros(1, 1, 7, 7)).shape == (1, 1, size, size)


def test_ceil_mode_and_round_mode_must_agree() -> None:
    option = "pooling_param { kernel_size: 2 ceil_mode: false round_mode: CEIL }"
    with pytest.raises(LayerError, match="ceil_mode: false and round_mode: CEIL, which disagree"):
        gl.build(f'name: "p" type: "Pooling" {option}', (1, 1, 7, 7))
