"""The update rules, used alone, against the formulas in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from update_rules import HYPER

from pycaffe_compat.errors import SolverError
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.solver import RULES, SGD, Adam, make_optimizer


def formula(rule: str, g: np.ndarray, h: list[np.ndarray], rate: float, t: int, o: dict[str, float]) -> np.ndarray:
    """The update of one parameter by Caffe's formulas; ``h`` is brought up to date."""
    if rule in ("SGD", "Nesterov"):
        old = h[0].copy()
        h[0][:] = o["momentum"] * old + rate * g
        return h[0] if rule == "SGD" else (1 + o["momentum"]) * h[0] - o["momentum"] * old
    if rule == "AdaGrad":
        h[0] += g * g
        return rate * g / (np.sqrt(h[0]) + o["delta"])
    if rule == "RMSProp":
        h[0][:] = o["rms_decay"] * h[0] + (1 - o["rms_decay"]) * g * g
        return rate * g / (np.sqrt(h[0]) + o["delta"])
    if rule == "AdaDelta":
        h[0][:] = o["momentum"] * h[0] + (1 - o["momentum"]) * g * g
        update = g * np.sqrt((o["delta"] + h[1]) / (o["delta"] + h[0]))
        h[1][:] = o["momentum"] * h[1] + (1 - o["momentum"]) * update * update
        return rate * update
    h[0][:] = o["momentum"] * h[0] + (1 - o["momentum"]) * g
    h[1][:] = o["momentum2"] * h[1] + (1 - o["momentum2"]) * g * g
    correction = np.sqrt(1 - o["momentum2"] ** t) / (1 - o["momentum"] ** t)
    return rate * correction * h[0] / (np.sqrt(h[1]) + o["delta"])


@pytest.mark.parametrize("decay", ["L1", "L2"])
@pytest.mark.parametrize("rule", RULES)
def test_rule_is_its_formula(rule: str, decay: str) -> None:
    generator = np.random.default_rng(0)
    w = [generator.normal(size=shape) for shape in ((3, 4), (5,), (2, 2))]
    mults = [(1.0, 1.0), (2.0, 0.0), (0.5, 3.0)]
    params = [torch.nn.Parameter(torch.tensor(each)) for each in w]
    groups = [{"params": [p], "lr_mult": lr, "decay_mult": d} for p, (lr, d) in zip(params, mults, strict=True)]
    options: dict[str, Any] = {"weight_decay": 0.1, "regularization_type": decay, "clip_gradients": 4.0, "iter_size": 2}
    optimizer = RULES[rule](groups, 0.05, **HYPER[rule], **options)
    history = [[np.zeros_like(each) for _ in optimizer.history_names] for each in w]
    for t in range(1, 6):
        grads = [generator.normal(size=each.shape) * t for each in w]  # clipped from some step on
        for p, g in zip(params, grads, strict=True):
            p.grad = torch.tensor(g)
        if t == 4:
            params[1].grad, grads[1] = None, np.zeros_like(grads[1])
        scale = min(1.0, 4.0 / np.sqrt(sum((g * g).sum() for g in grads))) / 2
        optimizer.step()
        for i, (lr, d) in enumerate(mults):
            g = grads[i] * scale + 0.1 * d * (w[i] if decay == "L2" else np.sign(w[i]))
            update = formula(rule, g, history[i], 0.05 * lr, t, HYPER[rule])
            w[i] = w[i] - update
            np.testing.assert_allclose(params[i].detach().numpy(), w[i], rtol=1e-12)
            np.testing.assert_allclose(params[i].grad.numpy(), update, rtol=1e-9, atol=1e-14)
    ordered = [each[slot] for slot in range(len(optimizer.history_names)) for each in history]
    for mine, theirs in zip(optimizer.history(), ordered, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("rule", RULES)
def test_state_dict_and_history_carry_everything(rule: str) -> None:
    def run(optimizer: Any, p: torch.Tensor, first: int, last: int) -> None:
        for t in range(first, last):
            p.grad = torch.full_like(p, 1.0 + t)
            optimizer.step()

    a, b, c = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
    through, loaded, taken = (RULES[rule]([p], 0.1, **HYPER[rule]) for p in (a, b, c))
    run(through, a, 0, 3)
    loaded.load_state_dict(copy.deepcopy(through.state_dict()))
    taken.load_history([h.numpy() for h in through.history()])
    taken.param_groups[0]["iter"] = 3
    b.data.copy_(a)
    c.data.copy_(a)
    for optimizer, p in ((through, a), (loaded, b), (taken, c)):
        run(optimizer, p, 3, 6)
    assert a.equal(b) and a.equal(c)


@pytest.mark.parametrize("rule", RULES)
def test_frozen_tensors_stay_and_a_rate_may_be_a_tensor(rule: str) -> None:
    statistics, weight = torch.tensor([1.0, 2.0]), torch.nn.Parameter(torch.ones(2))
    groups = [{"params": [statistics], "lr_mult": 0.0}, {"params": [weight]}]
    optimizer = RULES[rule](groups, torch.tensor(0.1), weight_decay=0.5, **HYPER[rule])
    other = torch.nn.Parameter(torch.ones(2))
    plain = RULES[rule]([other], 0.1, weight_decay=0.5, **HYPER[rule])
    for _ in range(3):
        weight.grad, other.grad = torch.ones(2), torch.ones(2)
        optimizer.step()
        plain.step()
    assert statistics.tolist() == [1.0, 2.0]
    torch.testing.assert_close(weight, other)


def test_frozen_parameter_coasts_on_restored_momentum() -> None:
    """As in Caffe: with lr_mult 0 the buffer gets nothing new, but what it holds is still applied."""
    p = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    optimizer = SGD([{"params": [p], "lr_mult": 0.0}], 0.1, momentum=0.5)
    optimizer.step()
    assert p.item() == 0 and not optimizer.state
    optimizer.load_history([torch.ones(1)])
    optimizer.step()
    optimizer.step()
    assert p.item() == -0.75


def test_nothing_to_clip_and_gradients_that_are_zero() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = SGD([p], 1.0, clip_gradients=0.5)
    optimizer.step()  # no gradient at all
    p.grad = torch.zeros(2)
    optimizer.step()
    assert p.tolist() == [1.0, 1.0]
    p.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.tensor([0.7, 0.6]))
    assert optimizer.gradient_norm is not None and optimizer.gradient_norm.item() == 5.0


def test_closure_is_called_with_gradients() -> None:
    p = torch.nn.Parameter(torch.ones(1))
    optimizer = Adam([p], 0.1)

    def closure() -> torch.Tensor:
        loss = (p * 3).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3.0
    assert p.item() == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('type: "Adagrad"', ["Adagrad", "AdaGrad", "valid types"]),
        ('type: "Sgd2"', ["Sgd2", "SGD", "Nesterov"]),
        ('type: "AdaGrad" momentum: 0.9', ["momentum: 0.9", "AdaGrad"]),
        ('type: "RMSProp" momentum: 0.9', ["momentum: 0.9", "RMSProp"]),
        ('type: "RMSProp" rms_decay: 1', ["rms_decay: 1"]),
        ('type: "Adam" momentum2: 1', ["momentum2: 1"]),
        ('regularization_type: "L3"', ["L3", "L1", "L2"]),
        ("weight_decay: nan", ["weight_decay"]),
    ],
)
def test_what_a_rule_cannot_work_with(text: str, words: list[str]) -> None:
    param = parse_text(f"base_lr: 1 {text}", caffe_pb2.SolverParameter)
    with pytest.raises(SolverError) as caught:
        make_optimizer(param, [{"params": [torch.nn.Parameter(torch.ones(1))]}])
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("name", RULES)
def test_a_frozen_parameter_takes_no_memory_until_it_has_a_history(name: str) -> None:
    trained, frozen = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2), requires_grad=False)

    def optimizer() -> Any:
        groups = [{"params": [trained]}, {"params": [frozen], "lr_mult": 0.0}]
        return RULES[name](groups, 0.1)

    first = optimizer()
    trained.grad = torch.ones(3)
    first.step()
    assert frozen not in first.state and len(first.state[trained]) == len(first.history_names)
    zeros = list(first.history())[1::2]
    assert all(not each.any() and each.shape == (2,) for each in zeros)

    again = optimizer()
    again.load_history(list(first.history()), [trained, frozen])
    assert frozen not in again.state
    full = [torch.full_like(each, 2.0) for each in first.history([trained, frozen])]
    again.load_history(full, [trained, frozen])
    assert [each.tolist() for each in again.history([trained, frozen])] == [each.tolist() for each in full]
