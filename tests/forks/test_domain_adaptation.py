"""Layers of domain adaptation: GradientScaler of DANN, and Xlearn's MMDLoss, JMMDLoss, EntropyLoss and OuterProduct."""

from __future__ import annotations

import math
from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer
from pycaffe_compat.solver import Solver

DOUBLE = torch.float64


def build(prototxt: str, *shapes: tuple[int, ...], phase: int = 0) -> Layer:
    return gl.build(f'name: "l" {prototxt}', *shapes, dtype=DOUBLE, phase=phase)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).requires_grad_()


# ---- reversed gradients


def reversed_by(layer: Layer, iteration: int | None = None) -> float:
    """What the layer multiplies a gradient with."""
    if iteration is not None:
        layer.at_iteration(iteration)
    x = randn(2, 3)
    (y,) = layer(x)
    assert torch.equal(y, x)
    y.sum().backward()
    assert x.grad is not None and len(x.grad.unique()) == 1
    return x.grad.flatten()[0].item()


def test_a_gradient_is_reversed_more_and_more() -> None:
    """AdaptationCoefficientHandler of gradient_scaler_layer.cpp."""
    layer = build('type: "GradientScaler" gradient_scaler_param { lower_bound: 0.1 alpha: 5 max_iter: 20 }', (2, 3))
    assert reversed_by(layer) == -1
    for iteration in (0, 7, 20, 50):
        progress = min(1, iteration / 20)
        want = 2 * 0.9 / (1 + math.exp(-5 * progress)) - 0.9 + 0.1
        np.testing.assert_allclose(reversed_by(layer, iteration), -want, rtol=1e-6)


def test_a_threshold_counts_passes_of_training() -> None:
    layer = build('type: "GradientScaler" gradient_scaler_param { threshold_iter: 2 }', (2, 3))
    assert layer.fork == "dann" and [reversed_by(layer) for _ in range(3)] == [0, 0, -1]
    assert layer.state() == {"passes": 3}
    layer.seek({"passes": 1})
    assert reversed_by(layer) == 0


def test_a_solver_tells_the_iteration(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text("""
        layer { name: "d" type: "DummyData" top: "x" top: "t"
          dummy_data_param { shape { dim: 4 dim: 2 } shape { dim: 4 dim: 1 } data_filler { value: 1 } } }
        layer { name: "f" type: "InnerProduct" bottom: "x" top: "f" param { lr_mult: 1 }
          inner_product_param { num_output: 1 bias_term: false weight_filler { value: 1 } } }
        layer { name: "g" type: "GradientScaler" bottom: "f" top: "g" gradient_scaler_param { max_iter: 10 } }
        layer { name: "l" type: "EuclideanLoss" bottom: "g" bottom: "t" top: "l" }""")
    (tmp_path / "solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" solver_mode: CPU')
    solver = Solver(str(tmp_path / "solver.prototxt"))
    weight = solver.net.layers["f"].blob(0)
    before = weight.detach().clone()
    solver.step(1)
    assert torch.equal(weight, before)  # the coefficient of iteration 0 is the lower bound
    solver.step(1)
    coefficient = 2 / (1 + math.exp(-1)) - 1
    np.testing.assert_allclose(weight.detach(), [[1 + 0.1 * coefficient] * 2], rtol=1e-6)


def test_what_a_gradient_scaler_cannot_take() -> None:
    with pytest.raises(LayerError, match="it takes a top for each bottom"):
        build('type: "GradientScaler"', (2,), (2,))
    with pytest.raises(LayerError, match="lower_bound: 2 must not be above upper_bound: 1"):
        build('type: "GradientScaler" gradient_scaler_param { lower_bound: 2 }', (2,))
    with pytest.raises(LayerError, match="alpha: -1 must not be negative"):
        build('type: "GradientScaler" gradient_scaler_param { alpha: -1 }', (2,))


# ---- discrepancies


def draws(seed: int, numbers: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """The items that a layer draws after ``torch.manual_seed(seed)``: s1, s2, t1, t2 of each term."""
    torch.manual_seed(seed)
    many, found = max(numbers), []
    for number in numbers:
        first, second = (torch.randint(number, (many,)).tolist() for _ in range(2))
        found += [first, [(b + 1) % number if a == b else b for a, b in zip(first, second, strict=True)]]
    return list(zip(*found, strict=True))


def bandwidth(items: np.ndarray) -> float:
    apart = ((items[:, None] - items) ** 2).sum()
    return (len(items) ** 2 - len(items)) / apart


def kernels(gamma: float, number: int, ratio: float) -> list[float]:
    return [gamma / ratio ** (number // 2) * ratio**i for i in range(number)]


def test_mmd_loss_and_its_gradient() -> None:
    """Forward_gpu and Backward_gpu of mmd_layer.cu, with the same draws in both."""
    layer = build('type: "MMDLoss" mmd_param { kernel_num: 3 kernel_mul: 1.5 }', (5, 4), (6, 4))
    x, y = randn(5, 4), randn(6, 4, seed=1)
    torch.manual_seed(3)
    loss = layer(x, y)
    (2 * loss).backward()
    a, b = x.detach().numpy(), y.detach().numpy()
    widths = kernels(bandwidth(np.concatenate([a, b])), 3, 1.5)
    want, da, db = 0.0, np.zeros_like(a), np.zeros_like(b)
    for s1, s2, t1, t2 in draws(3, (5, 6)):
        terms = ((1, a, s1, a, s2, da, da), (1, b, t1, b, t2, db, db), (-1, a, s1, b, t2, da, db))
        for sign, p, i, q, j, dp, dq in (*terms, (-1, a, s2, b, t1, da, db)):
            d = p[i] - q[j]
            want += sign * sum(math.exp(-g * (d @ d)) for g in widths)
            slope = sign * sum(-2 * g * math.exp(-g * (d @ d)) for g in widths) / 6
            dp[i] += 2 * slope * d
            dq[j] -= 2 * slope * d
    np.testing.assert_allclose(loss.item(), want)
    np.testing.assert_allclose(x.grad, da)
    np.testing.assert_allclose(y.grad, db)


def test_a_bandwidth_can_stay() -> None:
    layer = build('type: "MMDLoss" mmd_param { fix_gamma: true }', (5, 4), (6, 4))
    x, y = randn(5, 4), randn(6, 4, seed=1)
    layer(x, y)
    first = layer.state()["gamma"]
    layer(3 * x, y)
    np.testing.assert_allclose(first, bandwidth(torch.cat([x, y]).detach().numpy()))
    assert layer.state()["gamma"] == first
    layer.seek({"gamma": 0.5})
    layer(x, y)
    assert layer.state()["gamma"] == 0.5


def test_joint_discrepancy_shows_0_and_has_the_forks_gradient() -> None:
    """Backward_gpu of jmmd_layer.cu."""
    options = "kernel_num: 2 kernel_mul: 3 label_kernel_num: 2 label_kernel_mul: 1.5 sigma: 1.7"
    layer = build(f'type: "JMMDLoss" jmmd_param {{ {options} }}', (5, 4), (6, 4), (5, 3), (6, 3))
    bottoms = [randn(5, 4), randn(6, 4, seed=1), randn(5, 3, seed=2), randn(6, 3, seed=3)]
    torch.manual_seed(5)
    loss = layer(*bottoms)
    loss.backward()
    assert loss.item() == 0
    a, b, c, d = (each.detach().numpy() for each in bottoms)
    widths = kernels(bandwidth(np.concatenate([a, b])), 2, 3)
    grads = [np.zeros_like(each) for each in (a, b, c, d)]
    for s1, s2, t1, t2 in draws(5, (5, 6)):
        for sign, p, i, q, j in ((1, 0, s1, 0, s2), (1, 1, t1, 1, t2), (-1, 0, s1, 1, t2), (-1, 0, s2, 1, t1)):
            far = (a, b)[p][i] - (a, b)[q][j]
            unlike = (c, d)[p][i] - (c, d)[q][j]
            alike = sum(math.exp(-(unlike @ unlike) / (1.7 / 1.5 * 1.5**k)) for k in range(2))
            near = [math.exp(-g * (far @ far)) for g in widths]
            slope = sign * alike * sum(-2 * g * k for g, k in zip(widths, near, strict=True)) / 6
            grads[p][i] += slope * far
            grads[q][j] -= slope * far
            slope = sign * -2 / 1.7 * sum(near) * alike / 6
            grads[2 + p][i] += slope * unlike
            grads[2 + q][j] -= slope * unlike
    for bottom, want in zip(bottoms, grads, strict=True):
        np.testing.assert_allclose(bottom.grad, want, rtol=1e-6)


def test_what_a_discrepancy_cannot_take() -> None:
    with pytest.raises(LayerError, match="with as many values each, not 5×4 and 5×3"):
        build('type: "MMDLoss"', (5, 4), (5, 3))
    with pytest.raises(LayerError, match="kernel_num: 0 must be at least 1"):
        build('type: "MMDLoss" mmd_param { kernel_num: 0 }', (5, 4), (5, 4))
    shapes = (5, 4), (6, 4), (5, 3), (6, 3)
    with pytest.raises(LayerError, match="sigma: 0 must be above 0, or auto_sigma: true"):
        build('type: "JMMDLoss"', *shapes)
    with pytest.raises(LayerError, match="not 4×3 for features 5×4"):
        build('type: "JMMDLoss" jmmd_param { sigma: 1 }', *shapes[:2], (4, 3), (6, 3))
    with pytest.raises(LayerError, match="takes items of two domains, not 0 and 6"):
        build('type: "MMDLoss"', (5, 4), (6, 4))(randn(0, 4), randn(6, 4))
    layer = build('type: "JMMDLoss" jmmd_param { auto_sigma: true }', *shapes)
    assert layer(*(randn(*shape) for shape in shapes)).item() == 0


def test_one_item_has_no_discrepancy_to_learn_from() -> None:
    assert not build('type: "MMDLoss"', (1, 4), (6, 4))(randn(1, 4), randn(6, 4)).requires_grad


def test_features_without_further_axes_have_one_value() -> None:
    x, y = randn(5), randn(6, seed=1)
    losses = []
    for shape in ((), (1,)):
        layer = build('type: "MMDLoss"', (5, *shape), (6, *shape))
        torch.manual_seed(2)
        losses.append(layer(x.reshape(5, *shape), y.reshape(6, *shape)).item())
    assert losses[0] == losses[1] != 0


# ---- entropy, products


def test_entropy_loss_shows_its_negative_and_has_the_gradient_of_the_mean() -> None:
    """Forward_gpu and Backward_gpu of entropy_loss_layer.cu."""
    layer = build('type: "EntropyLoss" entropy_param { threshold: 0.05 iterations_num: 1 }', (3, 4))
    p = torch.tensor(
        [[0.7, 0.2, 0.099994, 6e-6], [0.25] * 4, [0.9, 0.04, 0.03, 0.03]], dtype=DOUBLE, requires_grad=True
    )
    first = layer(p)
    first.backward()
    assert first.item() == 0 and not p.grad.any()  # the first pass waits
    p.grad = None
    loss = layer(p)
    (0.5 * loss).backward()
    values = p.detach().numpy()
    np.testing.assert_allclose(loss.item(), sum(v * math.log(v) for v in values.flatten() if v >= 1e-5))
    np.testing.assert_allclose(p.grad, np.where(values < 0.05, 0, -(1 + np.log(values)) / 3 / 2))
    assert layer.state() == {"passes": 2}


def test_outer_product() -> None:
    layer = build('type: "OuterProduct"', (3, 4), (3, 2, 1, 1))
    a, b = randn(3, 4), randn(3, 2, 1, 1, seed=1)
    np.testing.assert_allclose(
        layer(a, b).detach(), np.einsum("ni,nj->nij", a.detach(), b[..., 0, 0].detach())[:, None]
    )
    gl.check_gradients(layer, a, b)
    with pytest.raises(LayerError, match=r"takes vectors \(N, A\) and \(N, B\), not 3×4 and 2×4"):
        build('type: "OuterProduct"', (3, 4), (2, 4))
