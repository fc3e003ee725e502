"""The layers of spatial transformers, against their kernels written out place by place."""

from __future__ import annotations

import math
from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch

import pycaffe_compat
from pycaffe_compat.errors import CaffeError

F64 = torch.float64


def seen(images: np.ndarray, theta: np.ndarray, height: int, width: int) -> np.ndarray:
    """st_layer.cu: what the thread of each place of the top adds up."""
    n, c, h, w = images.shape
    top = np.zeros((n, c, height, width))
    for i, s, t in np.ndindex(n, height, width):
        place = np.array([s / height * 2 - 1, t / width * 2 - 1, 1])
        x, y = (theta[i].reshape(2, 3) @ place + 1) / 2 * (h, w)
        for row in (math.floor(x), math.floor(x) + 1):
            for column in (math.floor(y), math.floor(y) + 1):
                if 0 <= row < h and 0 <= column < w:
                    top[i, :, s, t] += (1 - abs(x - row)) * (1 - abs(y - column)) * images[i, :, row, column]
    return top


def test_spatial_transformer_reads_between_places() -> None:
    layer = gl.build('name: "s" type: "SpatialTransformer" st_param { output_H: 3 output_W: 4 }', (2, 2, 5, 6), (2, 6))
    images, theta = torch.randn(2, 2, 5, 6, dtype=F64), torch.randn(2, 6, dtype=F64) / 2
    theta += torch.tensor([1, 0, 0, 0, 1, 0])
    torch.testing.assert_close(layer(images, theta), torch.from_numpy(seen(images.numpy(), theta.numpy(), 3, 4)))
    assert gl.meta_shapes(layer, [(2, 2, 5, 6), (2, 6)]) == [(2, 2, 3, 4)]
    gl.check_gradients(layer, images, theta)


def test_coefficients_may_be_fixed() -> None:
    fixed = "theta_1_1: 0.5 theta_1_2: 0.1 theta_2_1: -0.2 theta_2_2: 0.7 to_compute_dU: false"
    layer = gl.build(f'name: "s" type: "SpatialTransformer" st_param {{ {fixed} }}', (1, 2, 5, 6), (1, 2, 1, 1))
    images, moved = torch.randn(1, 2, 5, 6, dtype=F64), torch.tensor([[[[0.1]], [[-0.3]]]], dtype=F64)
    images.requires_grad_(), moved.requires_grad_()
    top = layer(images, moved)
    theta = np.array([[0.5, 0.1, 0.1, -0.2, 0.7, -0.3]])
    torch.testing.assert_close(top.detach(), torch.from_numpy(seen(images.detach().numpy(), theta, 5, 6)))
    top.sum().backward()
    assert images.grad is None and moved.grad is not None


def test_the_losses_are_of_what_lies_beyond() -> None:
    theta = torch.randn(2, 6, dtype=F64)
    layer = gl.build('name: "l" type: "STLoss" st_loss_param { output_H: 3 output_W: 4 }', (2, 6))
    want = 0.0
    for i, s, t in np.ndindex(2, 3, 4):
        x = theta[i].numpy().reshape(2, 3) @ (s * 2 / 3 - 1, t * 2 / 4 - 1, 1)
        want += (np.maximum(abs(x) - 1, 0) ** 2).sum() / 2 / 24
    torch.testing.assert_close(layer(theta), torch.tensor(want, dtype=F64))
    gl.check_gradients(layer, theta)
    layer = gl.build('name: "l" type: "LocLoss" loc_loss_param { threshold: 0.5 }', (2, 2))
    x = torch.tensor([[0.2, -1.5], [0.75, -0.5]], dtype=F64)
    torch.testing.assert_close(layer(x), torch.tensor((1 + 0.0625) / 8, dtype=F64))
    gl.check_gradients(layer, x + 0.01)


def test_power_file_and_the_filler_read_numbers(tmp_path: Path) -> None:
    path = tmp_path / "numbers.txt"
    path.write_text("1 0 -0.5\n0 1 0.25\n")
    layer = gl.build(f'name: "p" type: "PowerFile" power_file_param {{ shift_file: "{path}" }}', (2, 8))
    torch.testing.assert_close(layer(torch.zeros(2, 8))[1], torch.tensor([1, 0, -0.5, 0, 1, 0.25, 0, 0]))
    net = tmp_path / "net.prototxt"
    text = f"""layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: [1, 2, 4, 4] }} }} }}
      layer {{ name: "theta" type: "InnerProduct" bottom: "data" top: "theta" inner_product_param {{ num_output: 6
        weight_filler {{ type: "constant" }} bias_filler {{ type: "file" file: "{path}" }} }} }}
      layer {{ name: "st" type: "SpatialTransformer" bottom: "data" bottom: "theta" top: "st" }}"""
    net.write_text(text)
    x = torch.rand(1, 2, 4, 4)
    want = torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :, :4]
    want = 0.5 * torch.nn.functional.pad(want, (0, 1))[..., :4] + 0.5 * torch.nn.functional.pad(want, (0, 1))[..., 1:]
    torch.testing.assert_close(pycaffe_compat.load(net, phase="TEST")(data=x)["st"], want)
    for numbers, words in (("1 2 3", "3 numbers for 6 values"), ("1 x", "no list of numbers")):
        path.write_text(numbers)
        with pytest.raises(CaffeError, match=words):
            pycaffe_compat.load(net, phase="TEST")


@pytest.mark.parametrize(
    ("text", "shapes", "words"),
    [
        ('type: "SpatialTransformer"', [(1, 3, 4, 4), (1, 5)], "needs 6 coefficients"),
        ('type: "SpatialTransformer" st_param { theta_1_1: 1 }', [(1, 3, 4, 4), (1, 6)], "needs 5 coefficients"),
        ('type: "SpatialTransformer" st_param { sampler_type: "nearest" }', [(1, 3, 4, 4), (1, 6)], "only ones are"),
        ('type: "SpatialTransformer" st_param { output_H: 0 }', [(1, 3, 4, 4), (1, 6)], "output_H: 0"),
        ('type: "LocLoss" loc_loss_param { threshold: 0 }', [(1, 3)], "threshold: 0 must be above 0"),
        ('type: "STLoss" st_loss_param { output_H: 2 output_W: 2 }', [(1, 3)], "needs 6 coefficients"),
        ('type: "PowerFile" power_file_param { shift_file: "none.txt" }', [(1, 3)], "shift_file not found: none.txt"),
    ],
)
def test_what_does_not_fit_is_an_error(text: str, shapes: list[tuple[int, ...]], words: str) -> None:
    with pytest.raises(CaffeError, match=words):
        gl.build(f'name: "x" {text}', *shapes)
