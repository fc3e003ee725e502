"""The stand-in for the dropout that ENet's prototxts run in Python."""

from __future__ import annotations

import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

SHAPE = (4, 50, 2, 3)
TEXT = """layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: {} dim: {} dim: {} dim: {} }} }} }}
          layer {{ name: "d" type: "Python" bottom: "x" top: "y" python_param {{ module: "spatial_dropout"
            layer: "SpatialDropoutLayer" param_str: "{}" }} }}"""


def build(options: str, phase: str = "TEST") -> Net:
    return Net(parse_text(TEXT.format(*SHAPE, options), caffe_pb2.NetParameter), phase)


def test_planes_are_dropped_by_the_phase_that_the_text_gives() -> None:
    x = torch.rand(SHAPE).add_(1).requires_grad_()
    y = build("{\\'phase\\': \\'TRAIN\\', \\'p\\': \\'0.75\\'}")(x=x)["y"]
    factor = (y / x).detach()
    kept = factor[:, :, 0, 0] > 0
    torch.testing.assert_close(factor, 4.0 * kept[:, :, None, None].expand(SHAPE))
    assert 20 < kept.sum() < 80
    assert len(torch.unique(kept, dim=0)) == len(kept)
    dy = torch.rand(SHAPE)
    y.backward(dy)
    torch.testing.assert_close(x.grad, dy * 4 * kept[-1][:, None, None])  # backward has the last item's alone
    torch.testing.assert_close(build("{\\'phase\\': \\'TEST\\', \\'p\\': 0.75}", "TRAIN")(x=x)["y"], 4 * x)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("{\\'p\\': 1, \\'phase\\': 0}", "p: 1 must be between 0 and 1"),
        ("{\\'p\\': 0.5}", "must be a Python dict with a number p and a phase"),
        ("phase", "must be a Python dict with a number p and a phase"),
    ],
)
def test_its_options_are_checked(options: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        build(options)
