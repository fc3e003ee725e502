"""Denormal numbers while a net trains on the CPU."""

from __future__ import annotations

import pytest
import torch

from pycaffe_compat import extension
from pycaffe_compat.errors import CaffeError
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.solver import Hook, Solver
from pycaffe_compat.solver.denormals import VARIABLE, are_flushed, flushed

DENORMAL = 2.0**-140
NET = """
layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 dim: 3 } data_filler { value: 0 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 bias_term: false } }
layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }
"""


def share_of_zeros(count: int = 1 << 22) -> float:
    """How much of a large tensor of denormal numbers an operator on all threads takes as 0."""
    x = torch.full((count,), DENORMAL)
    return float(((x * torch.ones(())).view(torch.int32) == 0).float().mean())


def test_every_thread_of_an_operator_takes_them_as_0() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert share_of_zeros() == 0  # and the threads exist
        with flushed():
            with flushed():
                pass
            assert share_of_zeros() == (1.0 if extension.load() is None else 0.5)
        assert share_of_zeros() == 0
    finally:
        torch.set_num_threads(before)


def test_a_wrong_wish_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "no")
    with pytest.raises(CaffeError, match=f'{VARIABLE} is "no"; valid: 0, or 1'), flushed():
        pass


@pytest.mark.parametrize("kept", [False, True])
def test_weights_shrink_until_they_would_be_denormal(kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(int(kept)))
    seen = []

    class Watch(Hook):
        def after_update(self, solver: Solver) -> None:
            seen.append(are_flushed())

    text = f'base_lr: 0.5 lr_policy: "fixed" weight_decay: 1 net_param {{ {NET} }} solver_mode: CPU'
    solver = Solver(parse_text(text, caffe_pb2.SolverParameter), hooks=[Watch()])
    with torch.no_grad():
        solver.net.layers["ip"].blob(0).fill_(2.0**-125)
    solver.step(10)  # each halves the weights
    assert seen == [not kept] * 10 and not are_flushed()
    left = solver.net.layers["ip"].blob(0)
    assert bool((left == (2.0**-135 if kept else 2.0**-126)).all())  # the last step would have been denormal
