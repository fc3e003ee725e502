"""Losses of forks: FocalLoss of happynear's Caffe, L1Loss of NVIDIA's and FlowNet2's, a weighted softmax, ManhattanLoss."""

from __future__ import annotations

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer

N, C, H, W = 3, 4, 2, 2


def build(prototxt: str, *shapes: tuple[int, ...]) -> Layer:
    return gl.build(f'name: "l" {prototxt}', *shapes, dtype=torch.float64)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@pytest.mark.parametrize(
    ("options", "alpha", "sign"), [("", 1, -1), ("gamma: 0.5 alpha: 1.5", 1.5, -1), ("type: ONEADDP gamma: 3", 1, 1)]
)
def test_focal_loss(options: str, alpha: float, sign: int) -> None:
    """Forward_cpu and Backward_cpu of focal_loss_layer.cpp."""
    gamma = float(options.split("gamma: ")[1].split()[0]) if "gamma" in options else 2.0
    layer = build(f'type: "FocalLoss" focal_loss_param {{ {options} }} loss_param {{ ignore_label: 1 }}', (N, C), (N,))
    x, label = randn(N, C).requires_grad_(), [0, 1, 3]
    loss = layer(x, torch.tensor(label, dtype=torch.float64))
    p = torch.softmax(x.detach(), 1).numpy()
    want, dx = 0.0, np.zeros((N, C))
    for i, k in enumerate(label):
        if k == 1:
            continue
        power = (alpha + sign * p[i, k]) ** gamma
        want -= power * np.log(p[i, k])
        grad = sign * gamma * power / (1 + sign * p[i, k]) * np.log(p[i, k]) * p[i, k] + power
        dx[i] = grad * (p[i] - np.eye(C)[k])
    np.testing.assert_allclose(loss.item(), want / 2, rtol=1e-9)
    loss.backward()
    np.testing.assert_allclose(x.grad, dx / 2, rtol=1e-9)


def test_focal_loss_over_places_has_its_gradient_and_probabilities() -> None:
    layer = build('type: "FocalLoss" top: "l" top: "p"', (N, C, H, W), (N, 1, H, W))
    x, label = randn(N, C, H, W), torch.randint(0, C, (N, 1, H, W)).double()
    torch.testing.assert_close(layer(x, label)[1], torch.softmax(x, 1))
    alone = build('type: "FocalLoss"', (N, C, H, W), (N, 1, H, W))
    gl.check_gradients(alone, x, label.long())
    with pytest.raises(LayerError, match="gamma: -1 must not be negative"):
        build('type: "FocalLoss" focal_loss_param { gamma: -1 }', (N, C), (N,))


def test_l1_loss_of_nvidia() -> None:
    layer = build('type: "L1Loss"', (N, C), (N, C))
    a, b = randn(N, C), randn(N, C, seed=1)
    assert layer.fork == "nvidia"
    torch.testing.assert_close(layer(a, b), (a - b).abs().sum() / N)
    gl.check_gradients(layer, a, b)


FLOW = 'type: "L1Loss" l1_loss_param {{ {} }}'


@pytest.mark.parametrize("entries", [False, True])
@pytest.mark.parametrize(("l2", "prescale"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("plateau", [0.0, 0.75])
def test_l1_loss_of_flownet2(entries: bool, l2: bool, prescale: bool, plateau: float) -> None:
    """Forward_gpu of l1loss_layer.cu; what is not a number does not count."""
    flags = f"normalize_by_num_entries: {entries} l2_per_location: {l2} l2_prescale_by_channels: {prescale}".lower()
    layer = build(FLOW.format(f"{flags} plateau: {plateau} epsilon: 0.25"), (N, C, H, W), (N, C, H, W))
    assert layer.fork == "flownet2"
    a, b = randn(N, C, H, W), randn(N, C, H, W, seed=1)
    b[0, :, 0, 1] = b[2, 1, 1, 0] = np.nan
    d = (a - b).numpy()
    mask = ~np.isnan(d)
    d = np.where(mask, d, 0)
    divisor = mask.sum() / C if entries else N
    if l2:
        squares = (d**2).sum(1) / (C if prescale else 1)
        want = np.sqrt(np.where(squares < plateau**2, 0, squares) + 0.25).sum()
    else:
        want = abs(np.where(abs(d) < plateau, 0, d)).sum()
    np.testing.assert_allclose(layer(a, b).item(), want / divisor)
    clean = torch.where(b.isnan(), torch.zeros_like(b), b)
    gl.check_gradients(layer, a, clean)
    a.requires_grad_()
    layer(a, b).backward()
    assert a.grad.isfinite().all() and (a.grad.numpy()[~mask] == 0).all()


def test_l1_loss_with_a_power_is_liteflownets() -> None:
    layer = build(FLOW.format("l2_per_location: true power: 0.25 epsilon: 0.5"), (N, C, H, W), (N, C, H, W))
    a, b = randn(N, C, H, W), randn(N, C, H, W, seed=1)
    torch.testing.assert_close(layer(a, b), (((a - b) ** 2).sum(1) + 0.5).pow(0.25).sum() / N)
    gl.check_gradients(layer, a, b)


def test_l1_loss_of_one_bottom_is_flownet2s() -> None:
    layer, x = build('type: "L1Loss"', (N, C)), randn(N, C)
    assert layer.fork == "flownet2"
    torch.testing.assert_close(layer(x), x.abs().sum() / N)


@pytest.mark.parametrize(
    ("normalize", "divisor"),
    [("normalize: false", 3), ("", 10), ("normalization: FULL", 12), ("normalization: NONE", 1)],
)
def test_weighted_softmax_loss(normalize: str, divisor: int) -> None:
    """Forward_cpu and Backward_cpu of weighted_softmax_loss_layer.cpp: ignored places do not count in VALID."""
    options = f"softmax_param {{ pos_cid: 2 pos_mult: 2.5 }} loss_param {{ ignore_label: 1 {normalize} }}"
    layer = build(f'type: "WeightedSoftmaxWithLoss" {options}', (N, C, H, W), (N, 1, H, W))
    x, label = randn(N, C, H, W).requires_grad_(), np.array([0, 1, 2, 3, 2, 2, 0, 0, 1, 3, 3, 2]).reshape(N, 1, H, W)
    loss = layer(x, torch.from_numpy(label).double())
    loss.backward()
    p = torch.softmax(x.detach(), 1).numpy()
    want, dx = 0.0, p.copy()
    for n, h, w in np.ndindex(N, H, W):
        k = label[n, 0, h, w]
        if k == 1:
            dx[n, :, h, w] = 0
            continue
        weight = 2.5 if k == 2 else 1
        want -= weight * np.log(p[n, k, h, w])
        dx[n, k, h, w] -= 1
        dx[n, :, h, w] *= weight
    assert loss.item() == pytest.approx(want / divisor)
    np.testing.assert_allclose(x.grad, dx / divisor)


def test_the_weighted_class_is_the_second_one_unless_it_is_named() -> None:
    layer = build('type: "WeightedSoftmaxWithLoss" softmax_param { pos_mult: 3 }', (2, C), (2,))
    x = randn(2, C)
    logarithms = x.log_softmax(1)
    want = -(3 * logarithms[0, 1] + logarithms[1, 0]) / 2
    assert layer(x, torch.tensor([1.0, 0.0])).item() == pytest.approx(want.item())


def test_manhattan_loss() -> None:
    """Forward_cpu and Backward_cpu of manhattan_loss_layer.cpp, whose gradient is not the sign."""
    layer = build('type: "ManhattanLoss"', (N, C), (N, C, 1, 1))
    a, b = randn(N, C).requires_grad_(), randn(N, C, 1, 1, seed=1)
    b[0] = a.detach()[0].reshape(C, 1, 1) - 1e-3  # where the source's number shows
    b.requires_grad_()
    loss = layer(a, b)
    (2 * loss).backward()
    d = (a - b.reshape(N, C)).detach().numpy()
    assert loss.item() == pytest.approx(np.abs(d).sum() / N)
    want = 2 * d / (np.abs(d) + 1e-3) / N
    np.testing.assert_allclose(a.grad, want)
    np.testing.assert_allclose(b.grad.reshape(N, C), -want)
    assert want[0, 0] == pytest.approx(1 / N)
    with pytest.raises(LayerError, match="same number of values"):
        layer(a, torch.zeros(N, C + 1, dtype=torch.float64))
