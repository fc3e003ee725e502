"""How a pass is run: precision, layout, compilation; against the same net written in plain PyTorch."""

import logging
import sys

import pytest
import torch
from golden_files import ROOT
from small_solver import make, solver_param

from pycaffe_compat.errors import SolverError
from pycaffe_compat.layers import Layer, register
from pycaffe_compat.layers.registry import REGISTRY
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, filter_net, parse_text, read_net
from pycaffe_compat.solver import GraphRunner, Solver
from pycaffe_compat.solver.replay import hold

REPOSITORY = ROOT.parents[1]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

from plain_swwae import PlainSWWAE, plain_optimizer  # noqa: E402

SIDE, BATCH, STEPS = 32, 2, 2


def vgg(dropout=0.5, **options):
    """A solver of the paper's SWWAE-all on VGG-16, on small pictures."""
    net = read_net(REPOSITORY / "prototxt" / "swwae_all_train_val.prototxt")
    net.state.phase = caffe_pb2.TRAIN
    net = filter_net(net, net.state)
    layer = next(layer for layer in net.layer if layer.type == "Data")
    given = caffe_pb2.LayerParameter(name="data", type="Input", top=layer.top)
    given.input_param.shape.add(dim=[BATCH, 3, SIDE, SIDE])
    given.input_param.shape.add(dim=[BATCH])
    layer.CopyFrom(given)
    param = caffe_pb2.SolverParameter(base_lr=1e-3, lr_policy="fixed", momentum=0.9, weight_decay=5e-4, random_seed=1)
    param.snapshot_after_train = False
    param.net_param.CopyFrom(net)
    for layer in param.net_param.layer:
        if layer.type == "Dropout":
            layer.dropout_param.dropout_ratio = dropout

    class Fixed(GraphRunner):
        def batch(self):
            return {"data": pictures(), "label": torch.arange(BATCH, dtype=torch.float32)}

    return Solver(param, device="cpu", runner=lambda net: Fixed(net, **options))


def pictures():
    return torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def scaled(net):
    """Weights large enough for every loss to count: the paper's fillers let the signal die on the way."""
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1:
                generator = torch.Generator().manual_seed(parameter.numel())
                parameter.copy_(torch.nn.init.kaiming_normal_(torch.empty(parameter.shape), generator=generator))


def losses(solver):
    torch.manual_seed(7)
    found = []
    for _ in range(STEPS):
        solver.step(1)
        found.append(solver.loss)
    solver.close()
    return found


def test_training_agrees_with_plain_pytorch():
    """The same net and optimizer, by hand: the losses of the first passes are the same numbers."""
    solver = vgg()
    scaled(solver.net)
    plain = PlainSWWAE(side=SIDE)
    plain.load(solver.net.state_dict())
    optimizer = plain_optimizer(plain, 1e-3)
    torch.manual_seed(7)
    want = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        objective = plain(pictures(), torch.arange(BATCH))
        objective.backward()
        optimizer.step()
        want.append(objective.item())
    have = losses(solver)
    assert have[0] == want[0]
    assert have == pytest.approx(want, rel=1e-5)  # Caffe's rule has the rate inside the momentum, PyTorch's outside
    assert abs(want[-1] - want[0]) > 1e-3 * want[0]


def test_mixed_precision_stays_near_float32():
    found = {}
    for amp in (None, "bfloat16"):
        solver = vgg(dropout=0, amp=amp)  # a mask drawn in bfloat16 is another one
        scaled(solver.net)
        found[amp] = losses(solver)
    assert found["bfloat16"] != found[None]
    # 3.5 % of the last loss where the processor has no bfloat16 instructions
    assert found["bfloat16"] == pytest.approx(found[None], rel=0.03, abs=0.02 * found[None][0])


@pytest.mark.parametrize(
    ("options", "last"),
    (
        ({}, False),
        ({"amp": "bfloat16"}, True),
        ({"channels_last": True}, True),
        ({"amp": "bfloat16", "channels_last": False}, False),
    ),
    ids=str,
)
def test_the_layout_follows_the_precision_unless_asked(tmp_path, options, last):
    net = Net(solver_param(tmp_path).net_param, "TRAIN")
    GraphRunner(net, **options)
    assert net.layers["conv"].weight.is_contiguous(memory_format=torch.channels_last) == last
    net.close()


SMALL = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: BATCH dim: 3 dim: SIDE dim: SIDE } shape { dim: BATCH } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "act" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }"""


@pytest.mark.parametrize(
    ("batch", "side", "act", "last"),
    [
        (16, 32, "ReLU", True),
        (15, 32, "ReLU", False),
        (16, 65, "ReLU", False),
        (16, 32, "ReLU6", False),  # a fork's layer, which was not measured
    ],
)
def test_small_images_in_large_batches_are_channels_last(batch: int, side: int, act: str, last: bool) -> None:
    text = SMALL.replace("BATCH", str(batch)).replace("SIDE", str(side)).replace('"ReLU"', f'"{act}"')
    net = Net(parse_text(text, caffe_pb2.NetParameter), "TRAIN")
    test_net = Net(parse_text(text, caffe_pb2.NetParameter), "TEST", share=net)
    runners = [GraphRunner(net), GraphRunner(test_net)]
    assert net.layers["conv"].weight.is_contiguous(memory_format=torch.channels_last) == last
    for runner in runners:
        assert runner._next()["data"].is_contiguous(memory_format=torch.channels_last) == last


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"amp": "float8"}, 'amp: "float8" is not known; valid: bfloat16, float16'),
        ({"amp": "float16"}, "float16 is for CUDA devices, and the net is on the CPU; use bfloat16"),
        ({"cuda_graph": True}, "--cuda-graph needs the net on a CUDA device, but it is on the CPU"),
        ({"cuda_graph": True, "compile": True}, "--cuda-graph cannot be combined with --compile"),
    ),
    ids=str,
)
def test_what_cannot_be_is_an_error(tmp_path, options, message):
    net = Net(solver_param(tmp_path).net_param, "TRAIN")
    with pytest.raises(SolverError, match=message):
        GraphRunner(net, **options)
    net.close()


def test_a_graph_takes_batches_of_one_shape_alone():
    inputs = {}
    first = {"data": torch.ones(4, 3), "label": torch.zeros(4)}
    hold(first, inputs)
    places = {name: held.data_ptr() for name, held in inputs.items()}
    assert all(places[name] != value.data_ptr() for name, value in first.items()), "the batch is somebody's memory"
    hold({"data": torch.full((4, 3), 2.0), "label": torch.ones(4)}, inputs)
    assert inputs["data"].eq(2).all() and inputs["label"].eq(1).all()
    message = r"--cuda-graph: label has shape \(3,\) in this batch and had \(4,\) when the graph was captured"
    with pytest.raises(SolverError, match=message):
        hold({"data": torch.zeros(4, 3), "label": torch.zeros(3)}, inputs)
    assert inputs["data"].eq(2).all(), "half a batch was copied"
    assert {name: held.data_ptr() for name, held in inputs.items()} == places


def test_a_compiled_net_trains_as_it_is(tmp_path):
    found = []
    for compile in (False, "aot_eager"):
        solver = Solver(solver_param(tmp_path), device="cpu", runner=lambda net, c=compile: GraphRunner(net, compile=c))
        solver.step(4)
        found.append(solver.loss)
        solver.close()
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.fixture
def uncompilable():
    """A layer whose operator tells the compiler a shape that is wrong, so that compiling fails."""

    @torch.library.custom_op("tests::contrary", mutates_args=())
    def contrary(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    @contrary.register_fake
    def _(x):
        raise ValueError("no shape can be told")

    contrary.register_autograd(lambda ctx, dy: dy)

    @register("Contrary")
    class Contrary(Layer):
        def forward(self, x):
            return x if x.is_meta else contrary(x)

    yield
    del REGISTRY["Contrary"]


def test_what_cannot_be_compiled_runs_as_it_is_and_is_said_once(tmp_path, uncompilable, caplog):
    found = []
    for compile in (False, "aot_eager"):
        param = solver_param(tmp_path, dropout=0)
        index = [layer.name for layer in param.net_param.layer].index("ip")
        layers = list(param.net_param.layer)
        layers.insert(index, caffe_pb2.LayerParameter(name="odd", type="Contrary", bottom=["conv"], top=["conv"]))
        del param.net_param.layer[:]
        param.net_param.layer.extend(layers)
        with caplog.at_level(logging.WARNING, logger="pycaffe_compat"):
            solver = Solver(param, device="cpu", runner=lambda net, c=compile: GraphRunner(net, compile=c))
            solver.step(3)
        found.append(solver.loss)
        solver.close()
    assert found[1] == pytest.approx(found[0], rel=1e-5)
    said = [record.getMessage() for record in caplog.records if "--compile" in record.getMessage()]
    assert len(said) == 2, said
    assert "cannot be compiled whole" in said[0]
    assert 'layer "odd" (Contrary) runs as it is' in said[1]


def test_the_update_is_skipped_only_when_the_runner_says_so(tmp_path):
    solver = make(tmp_path)
    before = [learnable.tensor.clone() for learnable in solver.net.learnable]
    assert solver.runner.update(solver.optimizer) is True
    solver.step(1)
    assert any(not torch.equal(b, learnable.tensor) for b, learnable in zip(before, solver.net.learnable, strict=True))
    assert solver.runner.state() == {}
    solver.close()
