"""Layers for codes of pictures: HashNet's PairwiseLoss and ScaleTanH."""

from __future__ import annotations

import math

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer

N, C, L = 4, 3, 5
LABELS = np.array([[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, -1]], dtype=float)
OTHERS = np.array([[0, 0, 1, 1, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=float)


def build(prototxt: str, *shapes: tuple[int, ...], phase: int = 0) -> Layer:
    return gl.build(f'name: "l" {prototxt}', *shapes, dtype=torch.float64, phase=phase)


@pytest.mark.parametrize("gradual", [False, True])
@pytest.mark.parametrize("threshold", [-1, 0.25])
def test_pairwise_loss(gradual: bool, threshold: float) -> None:
    """Forward_gpu and Backward_gpu of pairwise_loss_layer.cu, as loops."""
    factor, weight, strength = 0.5, 3.0, 0.75
    options = f"class_num: {weight} sigmoid_param: {factor} l_lambda: {strength} l_threshold: {threshold}"
    layer = build(
        f'type: "PairwiseLoss" loss_weight: 2 pairwise_param {{ {options} continous_similarity: {str(gradual).lower()} }}',
        (N, C),
        (N, L),
        (N, C),
        (N, L),
    )
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, N, C)) * 2
    a, b = (torch.tensor(each, requires_grad=True) for each in (x, y))
    loss = layer(a, torch.tensor(LABELS), b, torch.tensor(OTHERS))
    (2 * loss).backward()  # as with the loss's weight, which the fork's gradient leaves out
    total, number, slope = 0.0, 0.0, np.zeros((N, N))
    for i in range(N):
        for j in range(N):
            product, z = LABELS[i] @ OTHERS[j], factor * x[i] @ y[j]
            if product < 0 or product >= L:
                continue
            alike = product > 0
            each = weight if alike else 1
            number += each
            if threshold >= 0 and z >= threshold:
                total += each * z * (1 - alike)
            else:
                total += each * (math.log(1 + math.exp(z)) - alike * z)
            slope[i, j] = 2 * (1 / (1 + math.exp(-z)) - alike) * each
            if gradual:
                lengths = (LABELS[i] @ LABELS[i] or 1) * (OTHERS[j] @ OTHERS[j] or 1)
                slope[i, j] *= 4 * (product**2 / lengths or 0.25)
    np.testing.assert_allclose(loss.item(), total / number)
    for have, want in ((a.grad, slope @ y), (b.grad, slope.T @ x)):
        want = (want * strength / number).ravel()
        want[:N] *= factor
        np.testing.assert_allclose(have.numpy().ravel(), want)


def test_what_a_pairwise_loss_cannot_take() -> None:
    with pytest.raises(LayerError, match="axis: 2 must be 1"):
        build('type: "PairwiseLoss" pairwise_param { axis: 2 }', (N, C), (N, L), (N, C), (N, L))
    with pytest.raises(LayerError, match="not 4×3, 4×5, 3×3, 3×5"):
        build('type: "PairwiseLoss"', (N, C), (N, L), (3, C), (3, L))
    with pytest.raises(LayerError, match="labels of one shape, not 4×5 and 4×4"):
        build('type: "PairwiseLoss"', (N, C), (N, L), (N, C), (N, 4))


def test_a_tanh_becomes_steeper() -> None:
    """Reshape of scale_tanh_layer.cpp, which is called once before the first pass."""
    layer = build('type: "ScaleTanH" scale_tanh_param { init_scale: 2 step_size: 3 gamma: 0.5 power: 0.5 }', (N, C))
    x = torch.randn(N, C, dtype=torch.float64)
    for count in range(2, 10):
        reached = count // 3 * 3
        scale = 2 * math.sqrt(1 + 0.5 * reached) if reached else 2
        np.testing.assert_allclose(layer(x), np.tanh(scale * x.numpy()))
    layer.seek({"passes": 0})
    np.testing.assert_allclose(layer(x), np.tanh(2 * x.numpy()))
    gl.check_gradients(build('type: "ScaleTanH" scale_tanh_param { step_size: 1000 }', (N, C)), x)
    with pytest.raises(LayerError, match="step_size: 0 must be at least 1"):
        build('type: "ScaleTanH" scale_tanh_param { step_size: 0 }', (N, C))
