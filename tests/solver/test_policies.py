"""Learning-rate policies: Caffe's formulas, the steps they count, and the scheduler."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from pycaffe_compat.errors import SolverError
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.solver import SGD, CaffeLR, Policy

CASES = {
    "fixed": ({}, lambda i: 1.0),
    "step": ({"gamma": 0.5, "stepsize": 3}, lambda i: 0.5 ** (i // 3)),
    "exp": ({"gamma": 0.9}, lambda i: 0.9**i),
    "inv": ({"gamma": 0.1, "power": 0.75}, lambda i: (1 + 0.1 * i) ** -0.75),
    "multistep": ({"gamma": 0.1, "stepvalue": (2, 5)}, lambda i: 0.1 ** ((i >= 2) + (i >= 5))),
    "poly": ({"power": 2.0, "max_iter": 20}, lambda i: (1 - i / 20) ** 2),
    "sigmoid": ({"gamma": -0.5, "stepsize": 4}, lambda i: 1 / (1 + math.exp(0.5 * (i - 4)))),
}


@pytest.mark.parametrize("name", CASES)
def test_policy_is_its_formula(name: str) -> None:
    fields, formula = CASES[name]
    policy = Policy(name, **fields)
    for i in range(10):
        assert policy.rate(0.02, i) == pytest.approx(0.02 * formula(i), rel=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_scheduler_is_the_policy(name: str) -> None:
    fields, formula = CASES[name]
    p = torch.nn.Parameter(torch.ones(1))
    groups = [{"params": [p]}, {"params": [torch.nn.Parameter(torch.ones(1))], "lr": 3.0}]
    optimizer = SGD(groups, 0.5)
    scheduler = CaffeLR(optimizer, name, **fields)
    for i in range(4):
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.5 * formula(i), 3 * formula(i)])
        optimizer.step()
        scheduler.step()
    groups = [{**group, "lr": 9.0} for group in optimizer.param_groups]
    again = CaffeLR(SGD(groups, 0.5), name, **fields)
    again.load_state_dict(scheduler.state_dict())
    scheduler.step()
    again.step()
    assert again.get_last_lr()[0] == scheduler.get_last_lr()[0] == pytest.approx(0.5 * formula(5))


def test_multistep_takes_one_step_a_call_and_goes_on_from_a_state() -> None:
    policy = Policy("multistep", gamma=0.5, stepvalue=(2, 2, 3))
    assert [policy.factor(i) for i in range(5)] == [1, 1, 0.5, 0.25, 0.125]
    restored = Policy("multistep", gamma=0.5, stepvalue=(2, 2, 3), current_step=2)
    assert restored.factor(3) == 0.125


def test_poly_of_no_iterations_has_no_rate() -> None:
    policy = Policy("poly", power=0.5, max_iter=0)  # of a solver that only tests
    for iteration in (0, 1):
        with pytest.raises(SolverError, match="no value at iteration"):
            policy.factor(iteration)


def test_extremes_are_numbers_or_errors() -> None:
    assert Policy("exp", gamma=10.0).factor(10**6) == math.inf
    assert Policy("sigmoid", gamma=100.0, stepsize=10**6).factor(0) == 0
    with pytest.raises(SolverError, match="no value at iteration 11"):
        Policy("poly", power=0.5, max_iter=10).factor(11)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["lr_policy is not set", "fixed", "sigmoid"]),
        ('lr_policy: "stepp"', ["stepp", "did you mean step", "multistep"]),
        ('lr_policy: "step" gamma: 0.1', ["divides by stepsize", "not set"]),
        ('lr_policy: "step" gamma: 0.1 stepsize: 0', ["stepsize: 0"]),
        ('lr_policy: "step" gamma: -0.1 stepsize: 1', ["gamma: -0.1"]),
        ('lr_policy: "poly" power: 1', ["divides by max_iter", "not set"]),
        ('lr_policy: "poly" power: 1 max_iter: -1', ["max_iter: -1"]),
    ],
)
def test_what_a_policy_cannot_work_with_is_named(text: str, words: list[str]) -> None:
    with pytest.raises(SolverError) as caught:
        Policy.from_solver(parse_text(text, caffe_pb2.SolverParameter), "s.prototxt")
    assert all(word in str(caught.value) for word in ["s.prototxt: ", *words]), caught.value


@pytest.mark.parametrize(
    ("text", "rates", "words"),
    [
        ('"multistep" stepvalue: 2 stepvalue: 3', [1, 1, 0, 0], "gamma is not set.* before iteration 2 .*, and 0"),
        ('"multistep"', [1, 1, 1, 1], "gamma is not set.* base_lr throughout"),
        ('"step" stepsize: 2', [1, 1, 0, 0], "gamma is not set.* before iteration 2, and 0"),
        ('"exp"', [1, 0, 0, 0], "gamma is not set.* base_lr in iteration 0, and 0"),
        ('"inv" gamma: 0.5', [1, 1, 1, 1], "power is not set.* throughout"),
        ('"inv" power: 0.5', [1, 1, 1, 1], "gamma is not set.* throughout"),
        ('"inv"', [1, 1, 1, 1], "gamma and power are not set.* throughout"),
        ('"poly" max_iter: 9', [1, 1, 1, 1], "power is not set.* throughout"),
        ('"sigmoid" stepsize: 2', [0.5, 0.5, 0.5, 0.5], "gamma is not set.* half of base_lr throughout"),
        ('"sigmoid" gamma: 1', [0.5, 0.73105858, 0.88079708, 0.95257413], "stepsize is not set.* at iteration 0"),
    ],
)
def test_fields_that_are_not_set_are_zero(text: str, rates: list[float], words: str) -> None:
    policy = Policy.from_solver(parse_text(f"lr_policy: {text}", caffe_pb2.SolverParameter))
    assert [policy.rate(1.0, i) for i in range(4)] == pytest.approx(rates)
    assert re.search(words, policy.assumed())


def test_a_zero_that_is_written_needs_no_word() -> None:
    text = 'lr_policy: "multistep" gamma: 0 stepvalue: 2'
    assert Policy.from_solver(parse_text(text, caffe_pb2.SolverParameter)).assumed() == ""


def test_rates_are_rounded_to_single_precision() -> None:
    policy = Policy("exp", gamma=0.9)
    for i in range(1, 6):
        rate = policy.rate(0.1, i)
        assert rate == float(np.float32(0.1 * 0.9**i)) != 0.1 * 0.9**i


def test_the_scheduler_says_what_is_not_set(caplog: pytest.LogCaptureFixture) -> None:
    optimizer = SGD([torch.nn.Parameter(torch.ones(1))], 0.5)
    scheduler = CaffeLR(optimizer, "multistep", stepvalue=(2,))
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == [0]
    assert len([r for r in caplog.records if "gamma is not set" in r.getMessage()]) == 1
