"""Affinity, ConnectedComponent and MalisLoss of Caffe on OpenCL, against what they mean."""

from __future__ import annotations

import itertools

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError

F64 = torch.float64


def test_affinity_is_the_lesser_of_neighbours_and_has_the_forks_gradient() -> None:
    layer = gl.build(
        'name: "a" type: "Affinity" top: "a" top: "b" affinity_param { offset: 1 }', (1, 2, 3, 4), (1, 1, 3, 4)
    )
    x, label = torch.randn(1, 2, 3, 4, dtype=F64, requires_grad=True), torch.rand(1, 1, 3, 4, dtype=F64)
    first, second = layer(x, label)
    want, plane = np.zeros((2, 3, 4)), x.detach()[0, 1].numpy()
    for y, u in np.ndindex(2, 3):
        want[:, y, u] = min(plane[y, u], plane[y + 1, u]), min(plane[y, u], plane[y, u + 1])
    torch.testing.assert_close(first[0].detach(), torch.from_numpy(want))
    assert second.shape == (1, 2, 3, 4)
    weight = torch.randn(1, 2, 3, 4, dtype=F64)
    (first * weight).sum().backward()
    grad = torch.zeros(3, 4, dtype=F64)
    grad[:-1, :-1] = weight[0, :, :-1, :-1].sum(0)
    torch.testing.assert_close(x.grad[0], torch.stack([-grad, grad]))


def test_components_are_numbered_as_rows_come_upon_them() -> None:
    layer = gl.build('name: "c" type: "ConnectedComponent"', (1, 1, 3, 5))
    plane = torch.tensor([[[[2.0, 0, 1, 1, 2], [2, 1, 0, 1, 0], [0, 1, 2, 2, 2]]]])
    assert layer(plane).tolist() == [[[[3, 0, 4, 4, 5], [3, 6, 0, 4, 0], [0, 6, 7, 7, 7]]]]


def least_on_the_best_path(weights: np.ndarray) -> np.ndarray:
    """For each pair of places of (edges, H, W), the edges being down and right: by the algorithm of Floyd and Warshall."""
    _, h, w = weights.shape
    best = np.full((h * w, h * w), -np.inf)
    for y, x in np.ndindex(h, w):
        for edge, (v, u) in enumerate(((y + 1, x), (y, x + 1))):
            if v < h and u < w:
                best[y * w + x, v * w + u] = best[v * w + u, y * w + x] = weights[edge, y, x]
    for k in range(h * w):
        best = np.maximum(best, np.minimum(best[:, k, None], best[None, k]))
    return best


def test_malis_loss_is_of_the_least_affinities_between_places() -> None:
    given, true = torch.rand(2, 2, 3, 4, dtype=F64), torch.rand(2, 2, 3, 4, dtype=F64)
    parts = torch.tensor([[[[1.0, 1, 0, 2], [1, 2, 2, 2], [3, 3, 0, 1]]], [[[1, 1, 1, 1]] * 3]])
    layer = gl.build('name: "m" type: "MalisLoss"', (2, 2, 3, 4), (2, 2, 3, 4), (2, 1, 3, 4))

    def value(given: np.ndarray) -> float:
        total = 0.0
        for item in range(2):
            labels = parts[item, 0].flatten().tolist()
            upper, lower = (
                least_on_the_best_path(f(given[item], true[item].numpy())) for f in (np.maximum, np.minimum)
            )
            pairs = [p for p in itertools.combinations(range(12), 2) if labels[p[0]] and labels[p[1]]]
            same = [(1 - lower[p]) ** 2 for p in pairs if labels[p[0]] == labels[p[1]]]
            apart = [upper[p] ** 2 for p in pairs if labels[p[0]] != labels[p[1]]]
            total += 0.5 * sum(same) / max(len(same), 1) + 0.5 * sum(apart) / max(len(apart), 1)
        return total / 2

    given.requires_grad_()
    loss = layer(given, true, parts)
    assert loss.item() == pytest.approx(value(given.detach().numpy()))
    loss.backward()
    # where both affinities are one, the fork's gradient for two items is the slope
    base = given.detach()
    given.grad = None
    layer(given, base.clone(), parts).backward()
    true = base.clone()
    for place in np.ndindex(2, 2, 3, 4):
        moved, before = base.clone(), true
        moved[place] += 1e-6
        true = moved
        high = value(moved.numpy())
        true = before
        slope = (high - value(base.numpy())) / 1e-6
        assert given.grad[place].item() == pytest.approx(slope, abs=1e-4)


def test_the_gradient_of_one_edge_is_the_forks() -> None:
    layer = gl.build('name: "m" type: "MalisLoss"', (1, 1, 2), (1, 1, 2), (1, 1, 2))
    given = torch.tensor([[[0.3, 0.9]]], dtype=F64, requires_grad=True)
    for label, true, want in (([1, 1], 1.0, -(1 - 0.3) / 2), ([1, 2], 0.0, 0.3 / 2), ([1, 0], 0.0, 0.0)):
        given.grad = None
        layer(given, torch.full((1, 1, 2), true, dtype=F64), torch.tensor([[label]], dtype=F64)).backward()
        torch.testing.assert_close(given.grad, torch.tensor([[[want, 0.0]]], dtype=F64))


@pytest.mark.parametrize(
    ("text", "shapes", "words"),
    [
        ('type: "Affinity" affinity_param { offset: 2 }', [(1, 2, 3, 3)], "offset: 2 is not a channel"),
        ('type: "MalisLoss"', [(1, 2, 3, 3), (1, 2, 3, 3), (1, 1, 3, 4)], "needs affinities"),
        ('type: "MalisLoss"', [(1, 4, 3, 3), (1, 4, 3, 3), (1, 1, 3, 3)], "a fourth bottom"),
        ('type: "ConnectedComponent"', [(3, 3)], "needs a bottom"),
    ],
)
def test_what_does_not_fit_is_an_error(text: str, shapes: list[tuple[int, ...]], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "x" {text}', *shapes)


def test_components_of_nothing_and_of_other_axes() -> None:
    layer = gl.build('name: "c" type: "ConnectedComponent"', (1, 1, 3, 5))
    assert layer(torch.zeros(2, 1, 0, 3)).shape == (2, 1, 0, 3)
    with pytest.raises(LayerError, match=r"needs a bottom \(N, C, H, W\), not of shape 1×1×3×5×1"):
        layer(torch.zeros(1, 1, 3, 5, 1))
