"""CompactBilinear, with the places and signs of its fork."""

from __future__ import annotations

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

A, B = (2, 3, 2, 3), (2, 5, 2, 3)
RAND = "1804289383 846930886 1681692777 1714636915 1957747793 424238335 719885386 1649760492 596516649 1189641421 1025202362"
DRAWS = [*map(int, RAND.split()), 1350490027, 783368690, 1102520059, 2044897763, 1967513926]  # glibc, after srand(1)


def build(options: str, *shapes: tuple[int, ...]) -> Layer:
    text = f'name: "c" type: "CompactBilinear" compact_bilinear_param {{ {options} }}'
    return gl.build(text, *shapes, dtype=torch.float64)


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("sums", [True, False])
def test_compact_bilinear(size: int, sums: bool) -> None:
    """Reshape and Forward_cpu of compact_bilinear_layer.cpp, as loops without Fourier transforms; odd sizes ran on GPUs."""
    layer = build(f"num_output: {size} sum_pool: {str(sums).lower()}", A, B)
    a, b = np.random.default_rng(0).standard_normal((2, *B))
    a = a[:, : A[1]]
    places = [[draw % size for draw in DRAWS[:3]], [draw % size for draw in DRAWS[6:11]]]
    signs = [[2 * (draw % 2) - 1 for draw in DRAWS[3:6]], [2 * (draw % 2) - 1 for draw in DRAWS[11:]]]
    want = np.zeros((2, size, 2, 3))
    for i in range(3):
        for j in range(5):
            place = (places[0][i] + places[1][j]) % size
            want[:, place] += size * signs[0][i] * signs[1][j] * a[:, i] * b[:, j]
    if sums:
        want = want.sum((2, 3), keepdims=True)
    bottoms = torch.from_numpy(a.copy()), torch.from_numpy(b)
    np.testing.assert_allclose(layer(*bottoms).numpy(), want, atol=1e-12)
    gl.check_gradients(layer, *bottoms)


def test_compact_bilinear_of_one_bottom() -> None:
    """The two sides have places and signs of their own."""
    layer = build("num_output: 8", A, A)
    x = torch.randn(A, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, x), (x,))
    assert not torch.equal(layer.places0, layer.places1)


@pytest.mark.parametrize(
    ("options", "shapes", "message"),
    [
        ("", (A, B), "num_output must be given, at least 1"),
        ("num_output: 4", (A, (2, 3, 2, 4)), "differ at most in C, not 2×3×2×3 and 2×3×2×4"),
        ("num_output: 4", ((2, 3), (2, 3)), r"two bottoms \(N, C, H, W\)"),
    ],
)
def test_wrong_options_and_bottoms(options: str, shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(options, *shapes)


def test_compact_bilinear_in_half_precision() -> None:
    """PyTorch has no Fourier transforms of bfloat16."""
    layer, x = build("num_output: 8", A, A), torch.randn(A).bfloat16()
    y = layer(x, x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, layer(x.float(), x.float()).bfloat16())


def test_signed_sqrt() -> None:
    """Forward_cpu and Backward_cpu of signed_sqrt_layer.cpp, whose gradient is finite at 0."""
    layer = gl.build('name: "s" type: "SignedSqrt"', (2, 2), dtype=torch.float64)
    x = torch.tensor([[4.0, -9], [0, 0.25]], dtype=torch.float64, requires_grad=True)
    y = layer(x)
    np.testing.assert_array_equal(y.detach().numpy(), [[2, -3], [0, 0.5]])
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), [[0.5 / 2.03, 0.5 / 3.03], [0.5 / 0.03, 0.5 / 0.53]])


def test_the_head_of_its_nets_is_of_this_fork() -> None:
    """CompactBilinear of one blob, SignedSqrt and L2Normalize, as in examples/compact_bilinear of the fork."""
    net = Net(
        parse_text(
            'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }'
            'layer { name: "b" type: "CompactBilinear" bottom: "x" bottom: "x" top: "b"'
            " compact_bilinear_param { num_output: 8 } }"
            'layer { name: "s" type: "SignedSqrt" bottom: "b" top: "s" }'
            'layer { name: "n" type: "L2Normalize" bottom: "s" top: "n" }',
            caffe_pb2.NetParameter,
        ),
        phase="TEST",
    )
    norms = net(torch.randn(2, 3, 4, 4))["n"].flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(2))
