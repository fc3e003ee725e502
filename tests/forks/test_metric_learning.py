"""Losses of embeddings: LiftedStructSimilaritySoftmaxLoss."""

from __future__ import annotations

import math

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer

LABELS = [3, 1, 3, 0, 1, 3]


def build(prototxt: str, *shapes: tuple[int, ...]) -> Layer:
    return gl.build(f'name: "l" {prototxt}', *shapes, dtype=torch.float64)


def test_lifted_structures() -> None:
    """Forward_cpu of lifted_struct_similarity_softmax_layer.cpp, as loops; its gradient is the derivative."""
    options = "lifted_struct_sim_softmax_loss_param { margin: 0.7 }"
    layer = build(f'type: "LiftedStructSimilaritySoftmaxLoss" {options}', (6, 4, 1, 1), (6,))
    x = torch.randn(6, 4, 1, 1, dtype=torch.float64)
    label = torch.tensor(LABELS)
    values = x.numpy().reshape(6, 4)
    distance = np.sqrt(((values[:, None] - values) ** 2).sum(2))
    total, number = 0.0, 0
    for i in range(6):
        for j in range(i + 1, 6):
            if LABELS[i] == LABELS[j]:
                far = [0.7 - distance[a, k] for a in (i, j) for k in range(6) if LABELS[k] != LABELS[a]]
                total += max(math.log(sum(map(math.exp, far))) + distance[i, j], 0) ** 2
                number += 1
    np.testing.assert_allclose(layer(x, label).item(), total / number / 2)
    gl.check_gradients(layer, x, label)


def test_lifted_structures_need_pairs_and_others() -> None:
    layer = build('type: "LiftedStructSimilaritySoftmaxLoss"', (3, 4), (3,))
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert math.isnan(layer(x, torch.tensor([0, 1, 2])).item())
    loss = layer(x, torch.tensor([1, 1, 1]))
    loss.backward()
    assert loss.item() == 0 and not x.grad.any()
    with pytest.raises(LayerError, match=r"takes embeddings \(N, C\) and N labels, not 3×4×2 and 3"):
        build('type: "LiftedStructSimilaritySoftmaxLoss"', (3, 4, 2), (3,))
