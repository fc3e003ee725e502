"""What forks let change during training: rates that rise, plateaus, momentum, decay, the rates of layers, when tests run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_solver import make, weights

from pycaffe_compat.errors import SolverError
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.solver import Policy, Solver, make_optimizer

NET = """net_param { layer { name: "in" type: "DummyData" top: "x" top: "y" dummy_data_param {
             shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 } data_filler { value: 1 } data_filler { value: 2 } } }
         layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param {
             num_output: 1 weight_filler { value: 0.5 } } }
         layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" } }"""


def policy(text: str) -> Policy:
    return Policy.from_solver(parse_text(text, caffe_pb2.SolverParameter), "s.prototxt")


def solver(text: str) -> Solver:
    return Solver(parse_text(f"{NET} lr_policy: 'fixed' base_lr: 0.1 max_iter: 8 {text}", caffe_pb2.SolverParameter))


def test_intels_warm_up_is_a_straight_line() -> None:
    p = policy('lr_policy: "step" gamma: 0.5 stepsize: 5 warmup_iter: 4 warmup_start_lr: 0.1')
    assert [p.rate(0.5, i) for i in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.25])
    assert [p.warmup_ratio(0.5, i) for i in range(5)] == pytest.approx([1, 2, 1.5, 4 / 3, 1])


def test_nvidias_ramp_is_a_parabola_and_min_lr_is_where_poly_ends() -> None:
    p = policy('lr_policy: "poly" power: 2 max_iter: 10 rampup_interval: 4 rampup_lr: 0.1 min_lr: 0.05')
    ramp = [0.1 + 0.4 * (i / 4) ** 2 for i in range(4)]
    poly = [0.45 * (1 - i / 10) ** 2 + 0.05 for i in range(4, 11)]
    assert [p.rate(0.5, i) for i in range(11)] == pytest.approx(ramp + poly)
    least = policy('lr_policy: "step" gamma: 0.1 stepsize: 1 min_lr: 0.02')
    assert [least.rate(0.5, i) for i in range(4)] == pytest.approx([0.5, 0.05, 0.02, 0.02])


def test_plateau_steps_where_the_loss_stays() -> None:
    p = policy('lr_policy: "plateau" gamma: 0.5 plateau_winsize: 3 plateau_winsize: 2')
    losses = [5, 4, 4, 4, 4, 4, 3, 4, 4, 4, 4, 4]
    rates = [p.rate(1.0, i, loss) for i, loss in enumerate(losses)]
    assert rates == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]
    again = policy('lr_policy: "plateau" gamma: 0.5 plateau_winsize: 3 plateau_winsize: 2')
    for i, loss in enumerate(losses[:6]):
        again.rate(1.0, i, loss)
    resumed = policy('lr_policy: "plateau" gamma: 0.5 plateau_winsize: 3 plateau_winsize: 2')
    resumed.current_step = again.current_step
    resumed.seek(again.state())
    assert [resumed.rate(1.0, i, losses[i]) for i in range(6, 12)] == rates[6:]


def test_multifixed_has_a_rate_for_each_stage() -> None:
    p = policy('lr_policy: "multifixed" stagelr: 0.1 stagelr: 0.3 stagelr: 0.2 stageiter: 2 stageiter: 4 stageiter: 6')
    assert [p.rate(9.0, i) for i in range(9)] == pytest.approx([0.1] * 3 + [0.3] * 2 + [0.2] * 4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('lr_policy: "plateau" gamma: 0.1', 'lr_policy "plateau" never steps without plateau_winsize'),
        ('lr_policy: "multifixed" stagelr: 1', "as many stagelr as stageiter, and at least one, but has 1 and 0"),
        ('lr_policy: "fixed" warmup_iter: 2 rampup_interval: 2', "are two kinds of warm-up; give one of them"),
        ('lr_policy: "fixed" warmup_iter: -1', "warmup_iter: -1 must be a finite number that is not negative"),
        ('lr_policy: "fixed" min_lr: nan', "min_lr: nan must be a finite number"),
        ('lr_policy: "fixed" warmup_iter: 3 warmup_start_lr: inf', "warmup_start_lr: inf must be a finite number"),
        ('lr_policy: "plateau" gamma: 0.1 plateau_winsize: 9 plateau_winsize: 0', "plateau_winsize: 9, 0; each"),
        ('lr_policy: "multifixed" stagelr: -0.1 stageiter: 2', "stagelr: -0.1 must be a finite number"),
    ],
)
def test_rates_that_cannot_be(text: str, words: str) -> None:
    with pytest.raises(SolverError, match=f"s.prototxt: .*{words}"):
        policy(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('momentum_policy: "polly"', 's.prototxt: momentum_policy: "polly" is not one of fixed, poly, opt'),
        ('larc: true larc_policy: "x"', 'larc_policy: "x" is not one of scale, clip'),
        ("larc: true larc_eta: nan", "larc_eta: nan must be a finite number"),
        ("local_lr_auto: true local_gw_ratio: -1", "local_gw_ratio: -1 must be a finite number that is not negative"),
        ('momentum_policy: "poly" momentum_power: -1', "momentum_power: -1 must be a finite number"),
        ('weight_decay_policy: "poly" weight_decay_power: -2', "weight_decay_power: -2 must be a finite number"),
        ("larc: true local_lr_auto: true", "both adapt rates; give one"),
        ('momentum_policy: "poly" max_iter: 0', "max_iter: 0 must be positive"),
    ],
)
def test_courses_that_cannot_be(text: str, words: str) -> None:
    param = parse_text(f"{NET} base_lr: 1 lr_policy: 'fixed' max_iter: 1", caffe_pb2.SolverParameter)
    param.MergeFrom(parse_text(text, caffe_pb2.SolverParameter))
    with pytest.raises(SolverError, match=words):
        Solver(param, file="s.prototxt")


def test_momentum_and_decay_change_as_nvidias_formulas_say() -> None:
    made = solver(
        "momentum: 0.5 momentum_policy: 'poly' max_momentum: 0.9 momentum_power: 2 "
        "weight_decay: 0.1 weight_decay_policy: 'poly' max_weight_decay: 0.5"
    )
    for i in range(4):
        made.step(1)
        group = made.optimizer.param_groups[0]
        assert group["momentum"] == pytest.approx(0.5 + 0.4 * (i / 8) ** 2)
        assert group["weight_decay"] == pytest.approx(0.1 + 0.4 * i / 8)
    best = solver("momentum_policy: 'opt' max_momentum: 0.7")
    best.step(1)
    assert best.optimizer.param_groups[0]["momentum"] == pytest.approx(min((1 - 0.5 * 0.1**0.5) ** 2, 0.7))


def test_a_rate_below_0_stays_where_no_min_lr_is_given() -> None:
    falling = policy('lr_policy: "step" gamma: 0.5 stepsize: 1')
    assert [falling.rate(-0.5, i) for i in range(3)] == [-0.5, -0.25, -0.125]
    param = parse_text(f"{NET} lr_policy: 'fixed' base_lr: -0.1 momentum_policy: 'opt'", caffe_pb2.SolverParameter)
    trained = Solver(param)
    trained.step(1)
    assert trained.optimizer.param_groups[0]["momentum"] == 1


def test_intels_warm_up_corrects_the_momentum() -> None:
    """sgd_solver.cpp of intel/caffe: the history of the last iteration is brought to the new rate."""
    made = solver("momentum: 0.5 warmup_iter: 4 warmup_start_lr: 0.02")
    w, v = np.full((1, 3), 0.5), np.zeros((1, 3))
    b, vb = np.zeros(1), np.zeros(1)
    rates = [0.02, 0.04, 0.06, 0.08, 0.1]
    for i, rate in enumerate(rates):
        made.step(1)
        g = w.sum() + b - 2
        momentum = 0.5 * (rate / rates[i - 1] if 0 < i < 4 else 1)
        v, vb = momentum * v + rate * g, momentum * vb + rate * g
        w, b = w - v, b - vb
        np.testing.assert_allclose(made.net.learnable[0].tensor.detach(), w, rtol=1e-5)


def local_rates(text: str, steps: int = 3) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The parameters after some steps, and by the formulas of GetLocalRate (NVIDIA/caffe, intel/caffe, sgd_solver.cpp)."""
    param = parse_text(f"type: 'SGD' base_lr: 0.1 weight_decay: 0.05 iter_size: 2 {text}", caffe_pb2.SolverParameter)
    rng = np.random.default_rng(1)
    values = [rng.standard_normal(4), rng.standard_normal((2, 3)), np.zeros(2)]
    tensors = [torch.nn.Parameter(torch.from_numpy(v.copy())) for v in values]
    groups = [{"params": tensors[:2], "lr_mult": 2.0, "decay_mult": 3.0}, {"params": tensors[2:]}]
    optimizer = make_optimizer(param, groups)
    history, correlation = [np.zeros_like(v) for v in values], [0.0] * 3
    for _ in range(steps):
        for i, p in enumerate(tensors):
            grad = rng.standard_normal(p.shape)
            p.grad = torch.from_numpy(2 * grad)
            w, g = np.linalg.norm(values[i]), np.linalg.norm(grad)
            local = 1.0
            if w and g:
                if param.local_lr_auto:
                    local = param.local_gw_ratio * w / (g + param.weight_decay * w)
                else:
                    local = (1 - param.momentum) * param.larc_eta * w / g
            if param.larc_turbo:
                m = np.linalg.norm(history[i])
                now = (grad * history[i]).sum() / (g * m) if m else 0.0
                correlation[i] = 0.95 * correlation[i] + 0.05 * now
                local -= 0.9 * correlation[i]
            rate = min(param.base_lr, local) if param.larc and param.larc_policy == "clip" else param.base_lr * local
            decayed = grad + param.weight_decay * (3 if i < 2 else 1) * values[i]
            history[i] = param.momentum * history[i] + rate * decayed
            values[i] = values[i] - history[i]
        optimizer.step()
    return [p.detach().numpy() for p in tensors], values


@pytest.mark.parametrize(
    "text",
    [
        "momentum: 0.5 larc: true larc_eta: 0.25",
        "momentum: 0.5 larc: true larc_eta: 0.25 larc_policy: 'clip'",
        "momentum: 0.5 larc: true larc_eta: 0.25 larc_turbo: true",
        "momentum: 0.5 local_lr_auto: true local_gw_ratio: 0.25",
    ],
)
def test_rates_of_layers_are_the_forks_formulas(text: str) -> None:
    have, want = local_rates(text)
    for a, b in zip(have, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_blob_that_does_not_learn_does_not_learn_with_larc_either() -> None:
    frozen = torch.nn.Parameter(torch.ones(3))
    frozen.grad = torch.ones(3)
    param = parse_text("type: 'SGD' base_lr: 1 larc: true", caffe_pb2.SolverParameter)
    make_optimizer(param, [{"params": [frozen], "lr_mult": 0.0}]).step()
    assert frozen.tolist() == [1, 1, 1]


def test_other_rules_ignore_larc_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made = solver("type: 'Adam' momentum: 0.9 larc: true")
    assert made.optimizer.local_rate is None
    assert 'larc has no effect with type: "Adam"; in its fork it works only with SGD' in caplog.text


def test_test_offset_moves_the_tests(tmp_path: Path) -> None:
    made = make(tmp_path, "test_interval: 3 test_offset: 1 test_iter: 1 test_initialization: false")
    assert [i for i in range(8) if (setattr(made, "iter", i) or made.tests_now)] == [1, 4, 7]


def test_a_plateau_resumes_bit_for_bit(tmp_path: Path) -> None:
    options = 'lr_policy: "plateau" gamma: 0.5 plateau_winsize: 2 plateau_winsize: 2 plateau_winsize: 1 momentum: 0.9'
    through: Any = make(tmp_path, options)
    through.step(3)
    _, state = through.snapshot()
    through.step(4)
    resumed = make(tmp_path, options)
    resumed.restore(state)
    resumed.step(4)
    assert weights(resumed) == weights(through)
    assert resumed.policy.state() == through.policy.state()
