"""Layers for codes of pictures: HashNet's PairwiseLoss and ScaleTanH, SSDH's losses and scores."""

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


@pytest.mark.parametrize(("kind", "sign"), [("K1", -1), ("K2", 1)])
def test_losses_of_codes(kind: str, sign: int) -> None:
    """K1_euclidean_loss_layer.cpp and K2_euclidean_loss_layer.cpp, whose second bottom has the gradient of the first."""
    layer = build(f'type: "{kind}_EuclideanLoss"', (N, C), (N, C))
    x = torch.rand(N, C, dtype=torch.float64, requires_grad=True)
    loss = layer(x, x.detach())
    np.testing.assert_allclose(loss.item(), sign * ((x.detach().numpy() - 0.5) ** 2).sum() / (2 * N * C))
    (3 * loss).backward()
    once = 3 * sign * (x.detach() - 0.5) / (N * C)
    torch.testing.assert_close(x.grad, once)
    x.grad = None
    (3 * layer(x, x)).backward()
    torch.testing.assert_close(x.grad, 2 * once)
    with pytest.raises(LayerError, match="takes two bottoms of one shape"):
        build(f'type: "{kind}_EuclideanLoss"', (N, C), (N, C + 1))


def test_loss_of_several_labels() -> None:
    """multi_label_sigmod_loss_layer.cpp."""
    layer = build('type: "MultiLabelSigmoidLoss"', (N, L), (N, L))
    x, label = torch.randn(N, L, dtype=torch.float64), torch.randint(-1, 2, (N, L))
    want = 0.0
    for value, each in zip(x.flatten().tolist(), label.flatten().tolist(), strict=True):
        if each:
            want -= value * ((each > 0) - (value >= 0)) - math.log(1 + math.exp(value - 2 * value * (value >= 0)))
    np.testing.assert_allclose(layer(x, label).item(), want / N)
    gl.check_gradients(layer, x, label)
    both = build('type: "MultiLabelSigmoidLoss" top: "l" top: "p"', (N, L), (N, L))
    torch.testing.assert_close(both(x, label)[1], x.detach().sigmoid())


def test_scores_of_several_labels() -> None:
    """multi_label_accuracy_layer.cpp."""
    layer = build('type: "MultiLabelAccuracy"', (2, 4), (2, 4))
    x = torch.tensor([[1.0, -1, 2, 0], [3, -2, -1, 1]], dtype=torch.float64)
    label = torch.tensor([[1, 1, -1, 1], [0, -1, -1, 1]])  # 3 of 4 right, 1 wrong; 2 of 3 known
    scores = layer(x, label)
    assert scores.shape == (1, 5, 1, 1)
    np.testing.assert_allclose(scores.flatten(), [3 / 4, 2 / 3, 2 / (4 / 3 + 3 / 2), 3 / 4, 6 / (6 + 1 + 1)])
    assert layer(x, torch.zeros(2, 4)).tolist() == torch.zeros(1, 5, 1, 1).tolist()
    assert math.isnan(layer(x, torch.ones(2, 4)).flatten()[2])


def test_code_losses_refuse_bottoms_of_two_shapes() -> None:
    layer = gl.build('name: "k" type: "K1_EuclideanLoss"', (2, 3), (2, 3))
    with pytest.raises(LayerError, match=r"takes two bottoms of one shape, .* not 2×3 and 2"):
        layer(torch.rand(2, 3), torch.rand(2))
