"""Graphs of ATen alone: torch.jit.trace of nets, and exported programs after the decompositions."""

import pytest
import torch

import pycaffe_compat
from pycaffe_compat import ops

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 9 } } }\n'
POOLING = 'layer { name: "p" type: "%s" bottom: "data" top: "p" pooling_param { %s } }'
SWITCH = """layer { name: "p" type: "Pooling" bottom: "data" top: "q" top: "m" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "u" type: "Depooling" bottom: "q" bottom: "m" top: "p" top: "w"
        pooling_param { pool: SWITCH kernel_size: 3 stride: 2 } }"""
NETS = {
    "MAX": POOLING % ("Pooling", "kernel_size: 3 stride: 2 pad: 1"),
    "AVE": POOLING % ("Pooling", "pool: AVE kernel_size: 2 stride: 2"),
    "SUM": POOLING % ("Pooling", "pool: SUM kernel_size: 2 stride: 2"),
    "FIX": POOLING % ("Pooling", "pool: FIX kernel_size: 3 stride: 2"),
    "STOCHASTIC": POOLING % ("Pooling", "pool: STOCHASTIC kernel_size: 3 stride: 2"),
    "SWITCH": SWITCH,
    "unpool FIX": POOLING % ("Depooling", "pool: FIX kernel_size: 2 stride: 2"),
    "unpool AVE": POOLING % ("Depooling", "pool: AVE kernel_size: 3 stride: 2 pad: 1"),
    "SPP": 'layer { name: "p" type: "SPP" bottom: "data" top: "p" spp_param { pyramid_height: 3 } }',
}


@pytest.fixture(params=NETS)
def net(request, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(DATA + NETS[request.param])
    return pycaffe_compat.load(path)


def assert_same(net, module):
    for batch in (2, 5):
        x = torch.randn(batch, 3, 7, 9)
        want, have = net(data=x), module(x)
        assert want.keys() == have.keys()
        assert all(torch.equal(have[name], want[name]) for name in want)


@pytest.mark.filterwarnings("error::torch.jit.TracerWarning")
def test_traces_hold_aten_alone_and_serve_any_batch(net):
    traced = torch.jit.trace(net, (torch.randn(2, 3, 7, 9),), strict=False)
    assert_same(net, traced)
    assert not any("pycaffe" in node.kind() for node in traced.inlined_graph.nodes())


def test_decompositions_leave_aten_alone(net):
    program = torch.export.export(net, (torch.randn(2, 3, 7, 9),))
    assert any("pycaffe_compat" in str(node.target) for node in program.graph.nodes)
    program = program.run_decompositions(ops.decompositions())
    assert not any("pycaffe_compat" in str(node.target) for node in program.graph.nodes)
    x = torch.randn(2, 3, 7, 9)
    for name, want in net(data=x).items():
        torch.testing.assert_close(program.module()(x)[name], want, rtol=1e-6, atol=1e-6)


def test_a_local_position_right_of_the_plane_is_no_place():
    mask = torch.tensor([[[[1.0, 0.0, 1.0]]]])  # the last window starts in the last column
    index = ops.mask_to_index(mask, (1, 2), (1, 2), 0, (2, 5), local=True)
    assert index.tolist() == [[[[1, 2, -1]]]]
