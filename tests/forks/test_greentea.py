"""MergeCrop, and data and pooling of any number of axes, of Caffe on OpenCL (naibaf7/caffe)."""

from __future__ import annotations

import itertools

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers.data_layers import MemoryData
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text


def reference(a: np.ndarray, b: np.ndarray, adds: bool, on: tuple[bool, bool]) -> np.ndarray:
    """MergeCropForward of mergecrop_layer.cu, one value after the other."""
    n, ca, *size = a.shape
    cb = b.shape[1]
    pads = [(big - small) // 2 for big, small in zip(b.shape[2:], size, strict=True)]
    area = int(np.prod(size))
    out = np.zeros((n, ca if adds else ca + cb, *size))
    for index, at in enumerate(itertools.product(*map(range, out.shape))):
        place = at[2:]
        moved = tuple(p + pad for p, pad in zip(place, pads, strict=True))
        if adds:
            out[at] = on[0] * a[at] + on[1] * b[at[:2] + moved]
            continue
        item = index // ((ca + cb) * area)
        if (index - item * (ca + cb) * area) // (ca * area) % 2 == 0:
            chosen = (item, index // area % ca, *place)
            out[at] = on[0] * a[chosen]
        else:
            chosen = (item, index // area % cb, *moved)
            out[at] = on[1] * b[chosen]
    return out


@pytest.mark.parametrize(
    ("options", "shapes", "on"),
    [
        ("", ((2, 3, 2, 3), (2, 3, 5, 3)), (True, True)),
        ("operation: STACK", ((2, 2, 2, 3), (2, 3, 4, 6)), (True, True)),
        ("operation: STACK", ((2, 1, 2, 2), (2, 3, 3, 3)), (True, True)),
        ("operation: ADD forward: true forward: false", ((2, 3, 2, 3), (2, 3, 4, 4)), (True, False)),
        ("operation: ADD", ((1, 2, 2, 3, 2), (1, 2, 4, 3, 5)), (True, True)),
        ("forward: false", ((1, 2, 2), (1, 2, 5)), (False, True)),
    ],
)
def test_bottoms_are_merged(options: str, shapes: tuple[tuple[int, ...], ...], on: tuple[bool, bool]) -> None:
    layer = gl.build(f'name: "m" type: "MergeCrop" mergecrop_param {{ {options} }}', *shapes)
    a, b = (torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    top = layer(a, b)
    np.testing.assert_array_equal(top.detach(), reference(a.detach().numpy(), b.detach().numpy(), "ADD" in options, on))
    assert gl.meta_shapes(layer, shapes) == [tuple(top.shape)]
    top.sum().backward()
    assert b.grad is None and (a.grad is None or bool((a.grad == float(on[0])).all()) or shapes[0][1] != shapes[1][1])


def test_the_second_bottom_gets_a_gradient_on_demand() -> None:
    layer = gl.build('type: "MergeCrop" mergecrop_param { backward: true backward: true }', (2, 2, 2, 3), (2, 2, 3, 5))
    gl.check_gradients(layer, torch.rand(2, 2, 2, 3).double(), torch.rand(2, 2, 3, 5).double())


@pytest.mark.parametrize(
    ("options", "shapes", "words"),
    [
        ("", ((1, 2, 4, 4), (1, 2, 3, 5)), "second bottom, 1×2×3×5, must be at least as large as the first, 1×2×4×4"),
        ("", ((1, 2, 4, 4), (2, 2, 4, 4)), "must be at least as large"),
        ("operation: ADD", ((1, 2, 4), (1, 3, 4)), "adds bottoms of as many channels, not 2 and 3"),
        ("forward: true forward: true forward: true", ((1, 2, 4), (1, 3, 4)), "3 values of forward"),
    ],
)
def test_bottoms_that_do_not_fit(options: str, shapes: tuple[tuple[int, ...], ...], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'type: "MergeCrop" mergecrop_param {{ {options} }}', *shapes)


VOLUMES = """layer { name: "data" type: "MemoryData" top: "data" memory_data_param { dim: 2 dim: 1 dim: 6 dim: 7 dim: 8 } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: MAX
  kernel_size: 2 kernel_size: 2 kernel_size: 3 stride: 1 pad: 0 dilation: 1 dilation: 2 dilation: 1 } }"""


def test_volumes_from_memory_are_pooled_with_a_dilation_for_each_axis() -> None:
    net = Net(parse_text(VOLUMES, caffe_pb2.NetParameter), "TRAIN")
    source = net.layers["data"]
    assert isinstance(source, MemoryData)
    x = np.random.default_rng(0).random((4, 1, 6, 7, 8)).astype(np.float32)
    source.reset(x, np.arange(4))
    out = net()["pool"]
    part = torch.from_numpy(x[:2])
    assert torch.equal(out, torch.nn.functional.max_pool3d(part, (2, 2, 3), 1, dilation=(1, 2, 1)))
    text = VOLUMES.replace('top: "data"', 'top: "data" top: "label"', 1)
    data = Net(parse_text(text, caffe_pb2.NetParameter), "TRAIN").layers["data"]
    assert isinstance(data, MemoryData)
    data.reset(x, np.arange(4))
    assert data()[1].shape == (2, 1, 1, 1, 1)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("dim: 8", "dim: 0", "memory_data_param.dim: 2×1×6×7×0 must be positive"),
        ("dim: 2 dim: 1 dim: 6 dim: 7 dim: 8", "batch_size: 2 channels: 1 height: 3 width: 3", "has 1 top blob"),
        ("dilation: 1 dilation: 2 dilation: 1", "dilation: 1 dilation: 2", "2 values of dilation for 3 axes"),
    ],
)
def test_sizes_that_do_not_fit(old: str, new: str, words: str) -> None:
    assert old in VOLUMES
    with pytest.raises(LayerError, match=words):
        Net(parse_text(VOLUMES.replace(old, new), caffe_pb2.NetParameter), "TRAIN")


@pytest.mark.parametrize("weighted", [False, True])
def test_a_euclidean_loss_is_over_all_values(weighted: bool) -> None:
    """Forward_cpu and Backward_cpu of euclidean_loss_layer.cpp, which divide by count(0)."""
    shape = "input_shape { dim: [2, 3, 4] }"
    text = f"""input: "a" {shape} input: "b" {shape} input: "w" {shape}"""
    text += """ layer { name: "l" type: "EuclideanLoss" bottom: "a" bottom: "b" %s top: "l" }"""
    net = Net(
        parse_text(text % ('bottom: "w"' if weighted else ""), caffe_pb2.NetParameter),
        "TRAIN",
        fork="" if weighted else "greentea",  # a third bottom is the fork's alone
    )
    a, b, w = torch.rand(3, 2, 3, 4)
    if not weighted:
        w = torch.ones_like(a)
    a.requires_grad_()
    b.requires_grad_()
    loss, _ = net.objective({"a": a, "b": b, "w": w})
    loss.backward()
    d = (w * (a - b)).detach()
    torch.testing.assert_close(loss.detach(), d.square().sum() / 24 / 2)
    torch.testing.assert_close(a.grad, d / 24)
    torch.testing.assert_close(b.grad, -d / 24)
