"""Small layers of happynear's Caffe: functions of single values, Gram matrices, coordinates."""

from __future__ import annotations

import math

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer

SHAPE = (2, 3, 4, 5)


def build(prototxt: str, phase: int = 0, shape: tuple[int, ...] = SHAPE) -> Layer:
    return gl.build(f'name: "l" {prototxt}', shape, dtype=torch.float64, phase=phase)


@pytest.mark.parametrize(
    ("prototxt", "function"),
    [
        ('type: "Cosine"', np.cos),
        ('type: "Arccos"', np.arccos),
        ('type: "Truncation" truncation_param { lower_bound: -0.2 upper_bound: 0.3 }', lambda x: np.clip(x, -0.2, 0.3)),
        ('type: "SoftTruncation" soft_truncation_param { c: 0.5 }', lambda x: 1 - np.exp(-x / 0.5)),
    ],
)
def test_functions_of_values(prototxt: str, function) -> None:
    x = torch.rand(SHAPE, dtype=torch.float64) * 1.8 - 0.9
    layer = build(prototxt)
    np.testing.assert_allclose(layer(x), function(x.numpy()), rtol=1e-6)
    gl.check_gradients(layer, x)


def test_gradients_at_the_ends() -> None:
    x = torch.tensor([1.0, 0.995], dtype=torch.float64, requires_grad=True)
    build('type: "Arccos"', shape=(2,))(x).sum().backward()
    np.testing.assert_allclose(x.grad, -1 / math.sqrt(1 - 0.99**2))
    x = torch.tensor([0.0, 5.0, 2.0], dtype=torch.float64, requires_grad=True)
    build('type: "Truncation"', shape=(3,))(x).sum().backward()
    assert x.grad.tolist() == [0, 0, 1]


def test_insanity_divides_by_random_numbers_in_training_and_by_their_mean_else() -> None:
    x = torch.randn(SHAPE, dtype=torch.float64)
    y = build('type: "Insanity" insanity_param { lb: 3 ub: 8 }')(x)
    below = x < 0
    ratio = (x / y)[below]
    assert torch.equal(y[~below], x[~below]) and 3 <= ratio.min() < 4 and 7 < ratio.max() <= 8
    y = build('type: "Insanity" insanity_param { lb: 3 ub: 8 }', phase=1)(x)
    np.testing.assert_allclose((x / y)[below], 5 / math.log(8 / 3))
    with pytest.raises(LayerError, match="ub: 3 must be above lb: 3"):
        build('type: "Insanity" insanity_param { lb: 3 ub: 3 }')


def test_noise_is_for_training() -> None:
    x = torch.full((100, 100), 4.0, dtype=torch.float64)
    noise = build('type: "Noise" noise_param { gaussian_std: 0.5 bias: 1 }', shape=(100, 100))(x) - x
    assert abs(noise.mean() - 1) < 0.1 and abs(noise.std() - 2) < 0.1
    noise = build('type: "Noise" noise_param { uniform_range: 2 bias: 1 }', shape=(100, 100))(x) - x
    assert -1 <= noise.min() < -0.9 and 2.9 < noise.max() <= 3
    assert torch.equal(build('type: "Noise" noise_param { uniform_range: 2 }', phase=1, shape=(100, 100))(x), x)
    with pytest.raises(LayerError, match="needs gaussian_std or uniform_range"):
        build('type: "Noise"')


def test_gram_and_slope() -> None:
    x = torch.randn(SHAPE, dtype=torch.float64)
    gram = build('type: "Gram"')
    want = np.einsum("nchw,ndhw->ncd", x, x) / (3 * 20)
    np.testing.assert_allclose(gram(x), want[..., None])
    gl.check_gradients(gram, x)
    y = build('type: "Slope"')(x.detach())
    assert y.shape == (2, 5, 4, 5) and torch.equal(y[:, :3], x)
    np.testing.assert_allclose(y[1, 3, :, 2], [0, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(y[0, 4, 1], [0, 0.2, 0.4, 0.6, 0.8])
