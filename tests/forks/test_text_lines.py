"""The layers of caffe_ocr, which reads lines of text, against what its sources add up."""

from __future__ import annotations

import itertools
import math

import golden_layer as gl
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import layer_class
from pycaffe_compat.proto import caffe_pb2

F64 = torch.float64


def dense_block(x: torch.Tensor, blobs: list[torch.Tensor], steps: int, narrows: bool, training: bool) -> torch.Tensor:
    """DenseBlock_layer.cu, step by step; convolutions as DenseBlock_layer.cpp writes them out."""

    def normal(x, scale, bias, mean, variance):
        if training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        y = (x - mean.view(-1, 1, 1)) / (variance.view(-1, 1, 1) + 1e-5).sqrt()
        return (y * scale.view(-1, 1, 1) + bias.view(-1, 1, 1)).clamp(min=0)

    def convolution(x, filters):  # out[y, x] gathers in[y + half - i, x + half - j]
        size = filters.shape[2]
        wide = F.pad(x, (size // 2,) * 4)
        top = 0
        for i, j in itertools.product(range(size), repeat=2):
            part = wide[:, :, size - 1 - i :, size - 1 - j :][:, :, : x.shape[2], : x.shape[3]]
            top = top + torch.einsum("nchw,oc->nohw", part, filters[:, :, i, j])
        return top

    for t in range(steps):
        y = normal(x, *(blobs[steps * k + t] for k in (1, 2, 3, 4)))
        if narrows:
            y = normal(convolution(y, blobs[5 * steps + t]), *(blobs[steps * k + t] for k in (6, 7, 8, 9)))
        x = torch.cat([x, convolution(y, blobs[t])], 1)
    return x


@pytest.mark.parametrize("narrows", [False, True])
@pytest.mark.parametrize("phase", [0, 1])
def test_dense_block_is_the_forks(narrows: bool, phase: int) -> None:
    layer = gl.build(
        f'name: "d" type: "DenseBlock" denseblock_param {{ numTransition: 2 initChannel: 64 growthRate: 2 '
        f'use_BC: {str(narrows).lower()} Filter_Filler {{ type: "msra" }} BN_Scaler_Filler {{ value: 1.5 }} }}',
        (2, 3, 4, 5),
        dtype=F64,
        phase=phase,
    )
    assert len(layer.blobs) == (21 if narrows else 11)
    assert tuple(name for name, _ in [*layer.named_parameters(), *layer.named_buffers()]) != ()
    with torch.no_grad():
        for spec, blob in zip(layer.blob_specs, layer.blobs, strict=True):
            blob.uniform_(0.5, 1.5) if spec.shape[0] == 1 else blob.normal_()
    before = [blob.detach().clone() for blob in layer.blobs]
    x = torch.randn(2, 3, 4, 5, dtype=F64)
    torch.testing.assert_close(layer(x).detach(), dense_block(x, before, 2, narrows, phase == 0))
    running = layer.blob(2 * 3)  # the means of the first step
    follows = torch.full_like(running, 0.9) * before[6] + 0.1 * x.mean((0, 2, 3)).view(1, 3, 1, 1)
    torch.testing.assert_close(running, follows if phase == 0 else before[6])
    if phase == 0:
        variance = 0.9 * before[8] + 0.1 * x.var((0, 2, 3)).view(1, 3, 1, 1)
        torch.testing.assert_close(layer.blob(8), variance)
    gl.check_gradients(layer, x[:1, :, :2, :3].clone())


def test_dense_block_drops_new_channels_in_training() -> None:
    text = "numTransition: 1 initChannel: 2 growthRate: 3 use_dropout: true dropout_amount: 0.5"
    layer = gl.build(
        f'name: "d" type: "DenseBlock" denseblock_param {{ {text} Filter_Filler {{ value: 1 }} '
        "BN_Scaler_Filler { value: 1 } BN_Bias_Filler { value: 5 } }",
        (4, 2, 8, 8),
    )
    y = layer(torch.rand(4, 2, 8, 8))
    assert y[:, :2].all() and 0.3 < (y[:, 2:] == 0).float().mean() < 0.7


def cost(scores: np.ndarray, labels: list[int], blank: int) -> float:
    """-log of the probability of ``labels``: the sum over all paths (T steps) that come to them."""
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    total = 0.0
    for path in itertools.product(range(p.shape[1]), repeat=len(p)):
        if [label for label, _ in itertools.groupby(path) if label != blank] == labels:
            total += math.prod(p[t, label] for t, label in enumerate(path))
    return -math.log(total) if total else 0.0


def test_warp_ctc_loss_takes_labels_in_three_forms() -> None:
    x = torch.randn(4, 2, 3, dtype=F64, requires_grad=True)
    scores = x.detach().numpy()
    layer = gl.build('name: "l" type: "WarpCTCLoss"', (4, 2, 3), (2, 3))
    want = (cost(scores[:, 0], [1, 2], 0) + cost(scores[:, 1], [2], 0)) / 2
    loss = layer(x, torch.tensor([[0.0, 1, 2], [2, 0, 0]]))
    assert loss.item() == pytest.approx(want)
    loss.backward()
    plain = x.detach().clone().requires_grad_()
    targets, lengths = torch.tensor([[1, 2], [2, 0]]), torch.tensor([2, 1])
    F.ctc_loss(plain.log_softmax(2), targets, torch.tensor([4, 4]), lengths, reduction="sum").backward()
    torch.testing.assert_close(x.grad, plain.grad)  # that of the sum

    layer = gl.build('name: "l" type: "WarpCTCLoss"', (4, 2, 3), (4, 2), (4, 2))
    going = torch.tensor([[0.0, 0], [1, 1], [1, 1], [0, 1]])
    labels = torch.tensor([[0.0, 1], [1, -1], [-1, 0], [0, 0]])
    want = (cost(scores[:3, 0], [1, 2], 0) + cost(scores[:, 1], [2], 0)) / 2
    assert layer(x, going, labels).item() == pytest.approx(want)

    layer = gl.build('name: "l" type: "WarpCTCLoss" ctc_loss_param { blank_index: 2 }', (4, 2, 3), (2,), (2,), (3, 2))
    want = (cost(scores[:3, 0], [0, 1], 2) + cost(scores[:, 1], [1], 2)) / 2
    have = layer(x, torch.tensor([3.0, 4]), torch.tensor([2.0, 1]), torch.tensor([[0.0, 1], [1, 9], [9, 9]]))
    assert have.item() == pytest.approx(want)


def test_labels_that_are_none_are_an_error() -> None:
    layer = gl.build('name: "l" type: "WarpCTCLoss"', (4, 1, 3), (1, 2))
    with pytest.raises(LayerError, match="label 3 is not one of 0 to 2"):
        layer(torch.zeros(4, 1, 3), torch.tensor([[1.0, 3]]))
    with pytest.raises(LayerError, match="do not belong together"):
        gl.build('name: "l" type: "WarpCTCLoss"', (4, 2, 3), (1, 2))
    with pytest.raises(LayerError, match="do not belong together"):
        gl.build('name: "l" type: "WarpCTCLoss"', (4, 2, 3), (4, 2, 2), (4, 2))
    with pytest.raises(LayerError, match="growthRate must be at least 1"):
        gl.build('name: "d" type: "DenseBlock" denseblock_param { growthRate: 0 }', (1, 3, 4, 4))


def test_the_decoder_judges_labels() -> None:
    param = caffe_pb2.LayerParameter(name="a", type="CTCGreedyDecoder", bottom=["x", "label"], top=["acc"], phase=1)
    layer = layer_class(param, fork="caffe_ocr")(param, [(4, 3, 3), (3, 2)])
    best = torch.tensor([[1, 1, 2], [0, 1, 2], [2, 0, 0], [2, 1, 1]])  # 1 2, 1 1, 2 1
    labels = torch.tensor([[1.0, 2], [1, 0], [0, -1]])
    top = layer(F.one_hot(best, 3).float(), labels)
    assert top.shape == (1, 2, 1, 1)
    torch.testing.assert_close(top.flatten(), torch.tensor([1 - (0 + 0.5 + 1) / 3, 1 / 3]))
    labels[1, 1] = torch.nan
    with pytest.raises(LayerError, match="a label that is not finite"):
        layer(F.one_hot(best, 3).float(), labels)


@pytest.mark.parametrize("copies", [False, True])
def test_reverse_time_turns_the_first_steps(copies: bool) -> None:
    layer = gl.build(
        f'name: "r" type: "ReverseTime" reverse_time_param {{ copy_remaining: {str(copies).lower()} }}', (3, 2, 2), (2,)
    )
    x = torch.arange(12, dtype=F64).reshape(3, 2, 2)
    y = layer(x, torch.tensor([2.0, 3]))
    assert y[:, 0].tolist() == [[4, 5], [0, 1], [8, 9] if copies else [0, 0]]
    assert y[:, 1].tolist() == [[10, 11], [6, 7], [2, 3]]
    gl.check_gradients(layer, x, torch.tensor([2, 3]))


def test_ctc_refuses_steps_that_cannot_be() -> None:
    with pytest.raises(LayerError, match="takes scores T×N×C, at least one step, not 0×2×3"):
        gl.build('name: "l" type: "WarpCTCLoss"', (0, 2, 3), (2, 2))
    layer = gl.build('name: "l" type: "WarpCTCLoss"', (4, 2, 3), (2,), (2,), (2, 2))
    with pytest.raises(LayerError, match="numbers of steps or labels are not of 4 steps and 2 labels"):
        layer(torch.rand(4, 2, 3), torch.tensor([-1, 2]), torch.ones(2), torch.ones(2, 2))
    with pytest.raises(LayerError, match="its bottoms do not belong together: 4×1×3, 2, 2, 2×2"):
        layer(torch.rand(4, 1, 3), torch.ones(2), torch.ones(2), torch.ones(2, 2))
