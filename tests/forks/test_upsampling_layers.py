"""The layers that make planes larger or smaller, against their forks' numbers: the two Upsample, Reorg."""

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError


@pytest.mark.parametrize("name", gl.names("upsample_", "reorg_", folder="forks"))
def test_layer_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


def test_the_last_value_stands_and_each_gets_the_gradient() -> None:
    layer = gl.build('name: "u" type: "Upsample"', (1, 1, 1, 3), (1, 1, 1, 3))
    x = torch.tensor([[[[1.0, 2.0, 3.0]]]], requires_grad=True)
    y = layer(x, torch.tensor([[[[4.0, 0.0, 4.0]]]]))
    y.backward(torch.arange(12.0).reshape(1, 1, 2, 6) + 1)
    assert y.flatten().tolist() == [2, 0, 0, 0, 3, *[0] * 7]
    assert x.grad.flatten().tolist() == [5, 1, 5]


def test_masked_upsample_has_its_gradient() -> None:
    layer = gl.build('name: "u" type: "Upsample" upsample_param { pad_out_w: true }', (1, 2, 2, 2), (1, 2, 2, 2))
    mask = torch.tensor([[[[0, 2], [7, 11]], [[5, 3], [1, 4]]]])
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64)
    assert layer(x, mask).shape == (1, 2, 4, 3)
    gl.check_gradients(layer, x, mask)


def test_a_mask_of_larger_planes_is_an_error() -> None:
    layer = gl.build('name: "u" type: "Upsample"', (1, 1, 1, 1), (1, 1, 1, 1))
    with pytest.raises(LayerError, match=r'layer "u" \(Upsample\): its mask names place 4, outside .* 2×2'):
        layer(torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 4.0))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("scale: 1", "a scale of 1×1 must be at least 2"),
        ("scale: 2 scale_h: 2 scale_w: 2", "scale beside scale_h and scale_w"),
        ("scale_h: 2", "scale_h without the other"),
        ("upsample_w: 2", "upsample_w without the other"),
        ("upsample_h: 1 upsample_w: 4", "upsample_h: 1 and upsample_w: 4 must be at least 2"),
        ("scale: 3 pad_out_h: true", "need a scale of 2, not 3×3"),
    ],
)
def test_masked_upsample_refuses_what_gives_no_size(options: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "u" type: "Upsample" upsample_param {{ {options} }}', (1, 1, 2, 2), (1, 1, 2, 2))


def test_nearest_upsample_and_reorg_have_their_gradients() -> None:
    up = gl.build('name: "u" type: "Upsample" upsample_param { scale: 3 }', (1, 2, 2, 1))
    gl.check_gradients(up, torch.randn(1, 2, 2, 1, dtype=torch.float64))
    for reverse in ("false", "true"):
        option = f"reorg_param {{ stride: 2 reverse: {reverse} }}"
        reorg = gl.build(f'name: "r" type: "Reorg" {option}', (2, 4, 2, 4))
        gl.check_gradients(reorg, torch.randn(2, 4, 2, 4, dtype=torch.float64))


def test_reorg_takes_darknets_places() -> None:
    """The index arithmetic of reorg_layer.hpp, place by place, for a stride that no golden has."""
    x, s = np.random.default_rng(0).standard_normal((2, 18, 3, 6)).astype(np.float32), 3
    n, c, h, w = x.shape
    read, want = x.reshape(n, c // s**2, h * s, w * s), np.empty_like(x)
    for k in range(c):
        block, channel = divmod(k, c // s**2)
        for j in range(h):
            for i in range(w):
                want[:, k, j, i] = read[:, channel, j * s + block // s, i * s + block % s]
    layer = gl.build('name: "r" type: "Reorg" reorg_param { stride: 3 }', x.shape)
    np.testing.assert_array_equal(layer(torch.from_numpy(x)), want.reshape(n, c * s**2, h // s, w // s))


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        ("", (1, 4, 2, 2), "needs reorg_param.stride"),
        ("stride: 2", (1, 6, 2, 2), "stride: 2, squared, must divide its bottom's 6 channels"),
        ("stride: 2", (1, 4, 2, 3), "stride: 2 must divide the sides of planes of 2×3"),
    ],
)
def test_reorg_refuses_what_it_cannot_divide(options: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "r" type: "Reorg" reorg_param {{ {options} }}', shape)
