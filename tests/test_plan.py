"""Fusions: applied where nothing else looks in between, and never changing a result."""

from __future__ import annotations

import pytest
import torch
from golden_files import golden
from test_net import INPUT, net_of

from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

IMAGE = INPUT.replace("dim: 2 dim: 3", "dim: 2 dim: 3 dim: 9 dim: 9")
WINDOW = "kernel_size: 3 stride: 2"
RELU_POOL = (
    'layer {{ name: "r" type: "ReLU" bottom: "x" top: "{relu}" }}'
    'layer {{ name: "p" type: "Pooling" bottom: "{relu}" top: "p" top: "m" pooling_param {{ {window} }} }}'
)
UNPOOL = (
    'layer {{ name: "q" type: "Power" bottom: "p" top: "q" power_param {{ shift: -0.5 }} }}'
    'layer {{ name: "qr" type: "ReLU" bottom: "q" top: "q" }}'
    'layer {{ name: "u" type: "Depooling" bottom: "q" bottom: "m" top: "u" {second} pooling_param {{ pool: SWITCH {window} }} '
    "propagate_down: true propagate_down: false }}"
)
NORMALIZE = (
    'layer { name: "i" type: "SafeInv" bottom: "w" top: "i" }'
    'layer { name: "n" type: "Eltwise" bottom: "u" bottom: "i" top: "n" eltwise_param { operation: PROD } }'
)


def same(text: str) -> tuple[Net, Net]:
    """Run a net fused and unfused: outputs and gradients of parameters and inputs are equal to the last bit."""
    torch.manual_seed(3)
    fused, plain = net_of(text, "TRAIN"), net_of(text, "TRAIN", fuse=False)
    plain.load_state_dict(fused.state_dict())
    results = []
    for net in (fused, plain):
        torch.manual_seed(4)
        batch = {n: torch.randn(net.blob_shapes[n], requires_grad=True) for n in net.inputs}
        outputs = net(batch)
        sum((o * torch.arange(o.numel()).view(o.shape)).sum() for o in outputs.values()).backward()
        results.append([*outputs.values(), *(b.grad for b in batch.values()), *(p.grad for p in net.parameters())])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    return fused, plain


@pytest.mark.parametrize("relu", ["x", "y"])
def test_relu_and_switches_go_into_pooling_and_depooling(relu: str) -> None:
    fused, plain = same(IMAGE + RELU_POOL.format(relu=relu, window=WINDOW) + UNPOOL.format(second="", window=WINDOW))
    assert [len(plain._calls), len(fused._calls)] == [5, 3]


@pytest.mark.parametrize(
    ("unpooler", "calls"),
    [
        ('type: "Upsample" upsample_param { upsample_h: 9 upsample_w: 9 }', 3),
        ('type: "Unpooling" unpooling_param { kernel_size: 3 stride: 3 unpool_size: 9 }', 3),
        ('type: "Upsample" upsample_param { upsample_h: 10 upsample_w: 9 }', 4),  # other planes
    ],
)
def test_switches_go_into_the_unpooling_of_forks_where_windows_do_not_overlap(unpooler: str, calls: int) -> None:
    depooling = 'type: "Depooling" bottom: "q" bottom: "m" top: "u" {second} pooling_param {{ pool: SWITCH {window} }}'
    own = UNPOOL.replace(depooling, 'type: {kind} bottom: "q" bottom: "m" top: "u"')
    kind = unpooler.removeprefix("type: ")
    fused, plain = same(IMAGE + RELU_POOL.format(relu="x", window="kernel_size: 3 stride: 3") + own.format(kind=kind))
    assert [len(plain._calls), len(fused._calls)] == [5, calls]


def test_depooling_safeinv_product_is_one_call() -> None:
    text = (
        IMAGE + RELU_POOL.format(relu="x", window=WINDOW) + UNPOOL.format(second='top: "w"', window=WINDOW) + NORMALIZE
    )
    fused, plain = same(text)
    assert [len(plain._calls), len(fused._calls)] == [7, 3]


@pytest.mark.parametrize(
    "more",
    [
        'layer { name: "t" type: "TanH" bottom: "y" top: "t" }',  # the ReLU's result is read elsewhere
        'layer { name: "t" type: "TanH" bottom: "m" top: "t" }',  # the mask is
    ],
)
def test_a_blob_that_somebody_reads_is_made(more: str) -> None:
    fused, plain = same(
        IMAGE + RELU_POOL.format(relu="y", window=WINDOW) + UNPOOL.format(second="", window=WINDOW) + more
    )
    assert len(fused._calls) > len(plain._calls) - 2


def test_windows_that_differ_keep_the_float_mask() -> None:
    text = (
        IMAGE
        + RELU_POOL.format(relu="x", window="kernel_size: 3 stride: 3")
        + UNPOOL.format(second="", window="kernel_size: 3 stride: 3").replace(
            "SWITCH kernel_size: 3", "SWITCH mask_index_type: GLOBAL kernel_size: 3"
        )
    )
    fused, _ = same(text)
    local = net_of(
        text.replace(
            "pooling_param { kernel_size: 3 stride: 3 }",
            "pooling_param { kernel_size: 3 stride: 3 mask_index_type: LOCAL }",
        ),
        "TRAIN",
    )
    assert len(local._calls) > len(fused._calls)


@pytest.mark.parametrize("name", ["mini_swwae_all", "mini_sae_all"])
def test_the_papers_nets_are_unchanged(name: str) -> None:
    text = golden("layers", name).meta["prototxt"]
    param = parse_text(text, caffe_pb2.NetParameter)
    fused, plain = Net(param, "TRAIN"), Net(param, "TRAIN", fuse=False)
    plain.load_state_dict(fused.state_dict())
    assert len(fused._calls) < len(plain._calls)
    batch = {n: torch.randn(fused.blob_shapes[n]) for n in fused.inputs}
    batch["t"] = torch.ones(fused.blob_shapes["t"])
    for net in (fused, plain):
        net.objective(batch)[0].backward()
    for (key, a), b in zip(fused.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), key


@pytest.mark.parametrize(
    "layer",
    [
        'type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } }',
        *(f'type: "Pooling" pooling_param {{ pool: {mode} {WINDOW} }}' for mode in ("MAX", "AVE", "SUM")),
        'type: "Pooling" pooling_param { pool: MAX kernel_size: 3 dilation: 2 }',
        'type: "Pooling" pooling_param { pool: AVE global_pooling: true }',
    ],
)
def test_a_relu_after_a_layer_that_makes_fresh_memory_writes_over_it(layer: str) -> None:
    chain = IMAGE + f'layer {{ name: "c" bottom: "x" top: "c" {layer} }}'
    relu = 'layer { name: "r" type: "ReLU" bottom: "c" top: "r" }'
    fused, _ = same(chain + relu)
    assert fused._calls[-1].run is torch.relu_
    fused, _ = same(chain + relu + 'layer { name: "t" type: "TanH" bottom: "c" top: "t" }')
    assert all(call.run is not torch.relu_ for call in fused._calls)
    fused, _ = same(IMAGE + 'layer { name: "r" type: "ReLU" bottom: "x" top: "x" }')
    assert all(call.run is not torch.relu_ for call in fused._calls)


def test_a_hook_on_a_layer_is_called_although_the_layer_would_be_fused() -> None:
    net = net_of(IMAGE + RELU_POOL.format(relu="y", window=WINDOW))
    seen = []
    handle = net.layers["r"].register_forward_hook(lambda layer, bottoms, top: seen.append(top))
    net(x=torch.randn(2, 3, 9, 9))
    assert len(seen) == 1
    handle.remove()
    net(x=torch.randn(2, 3, 9, 9))
    assert len(seen) == 1


@pytest.mark.parametrize("first", ["TanH", "ReLU"])
@pytest.mark.parametrize("then", ["ReLU", "BatchNorm"])
def test_what_an_earlier_layer_takes_its_derivative_from_is_made(first: str, then: str) -> None:
    same(
        IMAGE
        + 'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 2 kernel_size: 2 '
        'weight_filler { type: "gaussian" std: 0.5 } } }'
        + f'layer {{ name: "f" type: "{first}" bottom: "c" top: "c" }}'
        + f'layer {{ name: "t" type: "{then}" bottom: "c" top: "c" }}'
        + RELU_POOL.format(relu="c", window=WINDOW).replace('bottom: "x"', 'bottom: "c"')
    )
