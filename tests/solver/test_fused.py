"""The compiled update against the ``torch._foreach`` functions, to the bit."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from update_rules import HYPER

from pycaffe_compat import ops
from pycaffe_compat.ops import backends
from pycaffe_compat.ops.update import can_update
from pycaffe_compat.solver import RULES, SGD, CaffeOptimizer

ODD = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, -1e-42, 1e-45, 3e38, -3e38, 1e-20, 1e20]
SHAPES = ((), (1,), (3,), (16,), (0, 4), (33,), (2, 3, 5, 7), (4097,), (70001,))
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "L2": {"weight_decay": 0.1},
    "all": {"weight_decay": 0.1, "regularization_type": "L1", "clip_gradients": 4.0, "iter_size": 3},
}


@pytest.fixture(autouse=True)
def _extension() -> None:
    assert backends.unavailable("extension", "cpu") is None, "the extension is to be built before it is tested"
    assert can_update(torch.ones(1)), "the extension has no update operators; build it again"


def drawn(generator: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Numbers of all magnitudes, a tenth of them odd."""
    x = torch.randn(shape, generator=generator, dtype=dtype) * torch.exp(
        3 * torch.randn(shape, generator=generator, dtype=dtype)
    )
    odd = torch.tensor(ODD, dtype=dtype)[torch.randint(len(ODD), shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 0.1, odd, x)


def states(optimizer: CaffeOptimizer, dtype: torch.dtype, steps: int = 3) -> Iterator[Tensor]:
    """Train on drawn gradients; yield parameters, updates and history after each step."""
    generator = torch.Generator().manual_seed(3)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for _ in range(steps):
        for p in params:
            p.grad = drawn(generator, tuple(p.shape), dtype)
        optimizer.step()
        yield from (p.detach().clone() for p in params)
        if optimizer.keep_update:
            yield from (p.grad.clone() for p in params)
        yield from (h.clone() for h in optimizer.history())


def made(rule: str, dtype: torch.dtype, rate: Any = 0.05, **options: Any) -> CaffeOptimizer:
    generator = torch.Generator().manual_seed(2)
    params = [torch.nn.Parameter(drawn(generator, shape, dtype)) for shape in SHAPES]
    groups = [{"params": params[:4], "lr_mult": 2.0, "decay_mult": 0.0}, {"params": params[4:8]}]
    groups.append({"params": params[8:], "lr_mult": 0.0})
    return RULES[rule](groups, rate, **HYPER[rule], **options)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Signs of zeros count, those of NaN do not."""
    return bool((((a == b) & (a.signbit() == b.signbit())) | (a.isnan() & b.isnan())).all())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_same_bits_as_foreach(rule: str, dtype: torch.dtype, options: dict[str, Any]) -> None:
    fused = list(states(made(rule, dtype, **options), dtype))
    with ops.use_backend("torch"):
        foreach = list(states(made(rule, dtype, **options), dtype))
    assert all(map(same_bits, fused, foreach))
    assert len(fused) == len(foreach)


@pytest.mark.parametrize("capability", ("default", "avx2"))
def test_same_bits_in_every_instruction_set(capability: str) -> None:
    code = (
        "import sys, torch; sys.path[:0] = sys.argv[1:]; import test_fused as t\n"
        "for rule in t.RULES: t.test_same_bits_as_foreach(rule, torch.float32, t.OPTIONS['all'])"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
    here = Path(__file__).parent
    subprocess.run([sys.executable, "-c", code, str(here), str(here.parent)], env=environment, check=True)


@pytest.mark.parametrize("rule", RULES)
def test_rate_as_a_tensor_and_without_keeping_the_update(rule: str) -> None:
    want = list(states(made(rule, torch.float32), torch.float32))
    rate = torch.tensor(0.05, dtype=torch.float64)
    assert all(map(same_bits, states(made(rule, torch.float32, rate), torch.float32), want))
    each = len(SHAPES)
    got = list(states(made(rule, torch.float32, keep_update=False), torch.float32, steps=1))
    assert all(map(same_bits, got, want[:each] + want[2 * each :]))


@pytest.mark.parametrize("rule", RULES)
def test_a_run_may_go_on_the_other_way(rule: str) -> None:
    through = list(states(made(rule, torch.float32), torch.float32, steps=1))
    optimizer = made(rule, torch.float32)
    with ops.use_backend("torch"):
        assert all(map(same_bits, states(optimizer, torch.float32, steps=1), through))
    resumed = made(rule, torch.float32)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # loading takes the tensors themselves
    pairs = [
        (group["params"], other["params"])
        for group, other in zip(resumed.param_groups, optimizer.param_groups, strict=True)
    ]
    for mine, theirs in pairs:
        for p, q in zip(mine, theirs, strict=True):
            p.data.copy_(q.data)
    with ops.use_backend("torch"):
        wanted = list(states(optimizer, torch.float32, steps=2))
    assert all(map(same_bits, states(resumed, torch.float32, steps=2), wanted))


def test_the_gradient_stays_where_the_update_is_not_kept() -> None:
    p = torch.nn.Parameter(torch.ones(5))
    p.grad = torch.full((5,), 2.0)
    SGD([p], 0.5, keep_update=False).step()
    assert p.grad.tolist() == [2.0] * 5 and p.tolist() == [0.0] * 5


@pytest.mark.parametrize("rule", RULES)
def test_layouts_may_differ(rule: str) -> None:
    def run(last: bool) -> list[Tensor]:
        torch.manual_seed(0)
        dense, wide = torch.randn(4, 3, 5, 5), torch.randn(6, 8)
        form = torch.channels_last if last else torch.contiguous_format
        params = [dense.to(memory_format=form), wide[:, ::2] if last else wide[:, ::2].contiguous()]
        optimizer = RULES[rule]([{"params": params}], 0.1, weight_decay=0.1, **HYPER[rule])
        found = []
        for _ in range(2):
            params[0].grad, params[1].grad = torch.randn(4, 3, 5, 5), torch.randn(4, 6).t()
            optimizer.step()
            found += [t.clone() for p in params for t in (p, p.grad)] + list(optimizer.history())
        return found

    assert all(torch.equal(a, b) for a, b in zip(run(True), run(False), strict=True))


def test_other_types_run_on_foreach() -> None:
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    p.grad = torch.ones_like(p)
    SGD([p], 0.5).step()
    assert p.tolist() == [0.5] * 4 and not can_update(p)


def test_a_rule_with_an_update_of_its_own_keeps_it() -> None:
    class Halved(SGD):
        def update(self, group: Any, rate: Any, grads: list[Tensor], *history: list[Tensor]) -> None:
            torch._foreach_mul_(grads, rate / 2)

    p = torch.nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    Halved([p], 1.0).step()
    assert p.tolist() == [0.5, 0.5]


def test_a_step_counts_as_a_change_for_autograd() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    loss = (p * p).sum()
    loss.backward(retain_graph=True)
    SGD([p], 0.1).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def arguments(**changed: Any) -> tuple[list[Any], dict[str, Any]]:
    tensors: dict[str, Any] = {
        **{name: [torch.ones(2, 3), torch.ones(4)] for name in ("params", "grads", "history")},
        "rate": torch.tensor(0.1),
        "scale": torch.tensor(0.5),
        **changed,
    }
    scale = tensors.pop("scale")
    return list(tensors.values()), {"momentum": 0.9, "scale": scale, "decay": 0.1}


@pytest.mark.parametrize(
    ("changed", "words"),
    (
        ({"grads": [torch.ones(2, 3)]}, "2 params, but 1 grads"),
        ({"grads": [torch.ones(2, 3), torch.ones(5)]}, r"grads\[1\] has shape \[5\], but params\[1\] has \[4\]"),
        ({"history": [torch.ones(2, 3), torch.ones(4).double()]}, r"history\[1\] is Double, but params\[0\] is Float"),
        ({"params": [torch.ones(2, 3).half(), torch.ones(4)]}, r"params\[0\] is Half, but must be Float or Double"),
        ({"rate": torch.ones(2)}, "rate must be one floating-point number"),
        ({"scale": torch.tensor(1)}, "scale must be one floating-point number"),
    ),
)
def test_wrong_arguments_are_one_clear_error(changed: dict[str, Any], words: str) -> None:
    args, options = arguments(**changed)
    with pytest.raises(ValueError, match=f"sgd_update_: {words}"):
        torch.ops.pycaffe_compat.sgd_update_(*args, **options)


def test_a_history_that_does_not_fit_is_an_error_of_ours() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = SGD([p], 0.1)
    optimizer.state[p]["momentum_buffer"] = torch.zeros(4)
    with pytest.raises(ops.OperatorError, match=r"history\[0\] has shape \[4\], but params\[0\] has \[3\]"):
        optimizer.step()


def test_opcheck() -> None:
    args, options = arguments()
    torch.library.opcheck(torch.ops.pycaffe_compat.sgd_update_.default, tuple(args), options)
    lists = [[torch.rand(3), torch.rand(2, 2)] for _ in range(4)]
    adam = {"momentum": 0.9, "momentum2": 0.99, "delta": 1e-8}
    torch.library.opcheck(torch.ops.pycaffe_compat.adam_update_.default, (*lists, torch.tensor(0.1)), adam)
