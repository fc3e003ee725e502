"""Embeddings: LiftedStructSimilaritySoftmaxLoss, and the tables that persons are found by."""

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


# ---- online instance matching


def test_labels_find_their_rows_in_a_table() -> None:
    """Forward_cpu and Backward_cpu of labeled_matching_layer.cpp."""
    text = 'type: "LabeledMatching" top: "s" top: "l" labeled_matching_param { num_classes: 5 momentum: 0.25 }'
    layer = build(text, (6, 4, 1, 1), (6,))
    table, age = np.zeros((5, 4)), np.zeros(5)
    labels = [3, -1, 3, 5000, 0, 3]
    for seed in range(3):
        x = torch.from_numpy(np.random.default_rng(seed).standard_normal((6, 4, 1, 1))).requires_grad_()
        scores, known = layer(x, torch.tensor(labels, dtype=torch.float64))
        assert known.tolist() == [3, -1, 3, -1, 0, 3]
        rows = x.detach().numpy().reshape(6, 4)
        np.testing.assert_allclose(scores.detach(), rows @ table.T)
        top = np.random.default_rng(seed + 9).standard_normal((6, 5))
        scores.backward(torch.from_numpy(top))
        np.testing.assert_allclose(x.grad.numpy().reshape(6, 4), top @ table)
        age += 1
        for row, label in zip(rows, labels, strict=True):
            if 0 <= label < 5:
                table[label] = 0.25 * table[label] + 0.75 * row
                age[label] = 0
        np.testing.assert_allclose(layer.blob(0), table)
        np.testing.assert_allclose(layer.blob(1), age)


def test_persons_without_a_name_go_round() -> None:
    """Backward_cpu of unlabeled_matching_layer.cpp."""
    layer = build('type: "UnlabeledMatching" unlabeled_matching_param { queue_size: 3 }', (5, 2), (5,))
    queue, tail = np.zeros((3, 2)), 0
    for seed, labels in enumerate(([-1, 7, -1, 2, 2], [-1, -1, -1, -1, -1], [1, 2, -1, -1, 0])):
        x = torch.from_numpy(np.random.default_rng(seed).standard_normal((5, 2))).requires_grad_()
        scores = layer(x, torch.tensor(labels))
        np.testing.assert_allclose(scores.detach(), x.detach().numpy() @ queue.T)
        scores.sum().backward()
        for row, label in zip(x.detach().numpy(), labels, strict=True):
            if label == -1:
                queue[tail] = row
                tail = (tail + 1) % 3
        np.testing.assert_allclose(layer.blob(0), queue)
    assert layer.state() == {"tail": tail}


def test_a_table_stands_still_without_a_rate() -> None:
    layer = build('type: "UnlabeledMatching" param { lr_mult: 0 }', (1, 2), (1,))
    layer(torch.ones(1, 2, dtype=torch.float64, requires_grad=True), torch.tensor([-1])).sum().backward()
    assert not layer.blob(0).any()
    with pytest.raises(LayerError, match=r"takes features \(N, …\), 2 each, and N labels, not 1×2 and 2"):
        build('type: "UnlabeledMatching"', (1, 2), (2,))
    with pytest.raises(LayerError, match="num_classes: 0 must be at least 1"):
        build('type: "LabeledMatching" top: "a" top: "b"', (1, 2), (1,))


def test_matching_takes_any_number_of_items_but_not_of_features() -> None:
    for text in (
        'type: "LabeledMatching" top: "a" top: "b" labeled_matching_param { num_classes: 3 }',
        "type: 'UnlabeledMatching' unlabeled_matching_param { queue_size: 3 }",
    ):
        layer = build(text, (2, 4), (2,))
        x = torch.zeros(0, 4, dtype=torch.float64, requires_grad=True)
        top = gl.tops_of(layer(x, torch.zeros(0)))[0]
        top.sum().backward()
        assert top.shape == (0, 3) and x.grad is not None and x.grad.shape == (0, 4)
        with pytest.raises(LayerError, match=r"features \(N, …\), 4 each, and N labels, not 2×3 and 2"):
            layer(torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2))
        assert gl.tops_of(build(text, (2,), (2,))(torch.ones(2, dtype=torch.float64), torch.zeros(2)))[0].shape == (
            2,
            3,
        )
    with pytest.raises(LayerError, match="at least one each, and N labels, not 2×0 and 2"):
        build("type: 'UnlabeledMatching' unlabeled_matching_param { queue_size: 3 }", (2, 0), (2,))
