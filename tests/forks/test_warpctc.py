"""Label sequences of warpctc-caffe: CtcLoss, LabelsequenceAccuracy, ContinuationIndicator, and a net of all."""

from __future__ import annotations

import itertools

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

T, N, C, BLANK = 4, 3, 3, 2
LABELS = [[0, BLANK, 1], [BLANK, BLANK, 0], [1, 1, BLANK]]


def ctc(more: str = "", scores: tuple[int, ...] = (T, N, C), labels: tuple[int, ...] = (N, 3)) -> Layer:
    option = f"blank_label: {BLANK} alphabet_size: {C} time_step: {T}"
    text = f'layer {{ name: "c" type: "CtcLoss" ctc_loss_param {{ {more or option} }} }}'
    return gl.build(str(parse_text(text, caffe_pb2.NetParameter).layer[0]), scores, labels, dtype=torch.float64)


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [k for k, _ in itertools.groupby(path) if k != BLANK]


def cost(scores: np.ndarray, labels: list[int]) -> float:
    """Minus the logarithm of the probability of all paths (T, C) that collapse to the labels."""
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    wanted = [k for k in labels if k != BLANK]
    paths = (path for path in itertools.product(range(C), repeat=len(p)) if collapsed(path) == wanted)
    return -np.log(sum(np.prod([p[t, k] for t, k in enumerate(path)]) for path in paths))


def test_ctc_loss_counts_all_alignments_and_has_the_gradient_of_the_sum() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((T, N, C))).requires_grad_()
    label = torch.tensor(LABELS, dtype=torch.float64)
    loss = ctc()(x, label)
    np.testing.assert_allclose(loss.item(), np.mean([cost(x.detach().numpy()[:, i], LABELS[i]) for i in range(N)]))
    (grad,) = torch.autograd.grad(loss, x)
    step = 1e-6 * torch.randn_like(x)
    up, down = (ctc()(x.detach() + s * step, label) for s in (1, -1))
    np.testing.assert_allclose((grad * step).sum().item() / N, (up - down).item() / 2, rtol=1e-5)


def test_labels_that_do_not_fit_cost_nothing_and_later_steps_do_not_count() -> None:
    x = torch.randn(T, N, C, dtype=torch.float64)
    short = ctc(f"blank_label: {BLANK} alphabet_size: {C} time_step: 2")
    label = torch.tensor([[0, 1, 0], [0, BLANK, 1], [1, 1, BLANK]], dtype=torch.float64)  # only the second fits
    np.testing.assert_allclose(short(x, label).item(), cost(x[:2, 1].numpy(), [0, 1]) / N)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ctc("alphabet_size: 4 time_step: 2"), "alphabet_size: 4 must be the size of the scores' last axis, 3"),
        (lambda: ctc("alphabet_size: 3 time_step: 5"), "time_step: 5 must be from 1 to the steps of its bottom, 4"),
        (
            lambda: ctc("alphabet_size: 3 time_step: 4 blank_label: 3"),
            "blank_label: 3 is not a label: there are 0 to 2",
        ),
        (lambda: ctc(labels=(2, 3)), "takes scores T×N×C and labels N×L, not shapes 4×3×3 and 2×3"),
        (lambda: ctc()(torch.zeros(T, N, C), torch.full((N, 3), 5.0)), "label 5 is not one of 0 to 2"),
    ],
)
def test_what_cannot_be(call, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        call()


def test_accuracy_of_sequences() -> None:
    paths = [[0, 0, BLANK, 1], [1, BLANK, 1, 1], [0, 1, BLANK, BLANK], [BLANK, BLANK, BLANK, BLANK]]
    scores = torch.nn.functional.one_hot(torch.tensor(paths), C).float()
    layer = gl.build(
        f'name: "a" type: "LabelsequenceAccuracy" labelsequence_accuracy_param {{ blank_label: {BLANK} }}',
        (4, T, C),
        (4, 3),
    )
    wanted = torch.tensor([[0, 1, BLANK], [1, 1, BLANK], [0, 1, 1], [BLANK, 0, BLANK]]).float()
    assert layer(scores, wanted).item() == 0.5


def test_a_net_learns_sequences() -> None:
    text = f"""
        layer {{ name: "in" type: "Input" top: "x" top: "l"
                 input_param {{ shape {{ dim: {T} dim: {N} dim: 2 }} shape {{ dim: {N} dim: 3 }} }} }}
        layer {{ name: "c" type: "ContinuationIndicator" top: "c"
                 continuation_indicator_param {{ time_step: {T} batch_size: {N} }} }}
        layer {{ name: "r" type: "LSTM" bottom: "x" bottom: "c" top: "r"
                 recurrent_param {{ num_output: {C} weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "loss" type: "CtcLoss" bottom: "r" bottom: "l" top: "loss"
                 ctc_loss_param {{ blank_label: {BLANK} alphabet_size: {C} time_step: {T} }} }}
        layer {{ name: "p" type: "Permute" bottom: "r" top: "p" permute_param {{ order: 1 order: 0 order: 2 }} }}
        layer {{ name: "a" type: "LabelsequenceAccuracy" bottom: "p" bottom: "l" top: "a"
                 labelsequence_accuracy_param {{ blank_label: {BLANK} }} }}"""
    net = Net(parse_text(text, caffe_pb2.NetParameter), "TRAIN")
    batch = {"x": torch.randn(T, N, 2), "l": torch.tensor(LABELS).float()}
    loss, _ = net.objective(batch)
    loss.backward()
    values, _ = net.run(batch)
    assert net.blob_shapes["c"] == (T, N) and 0 <= values["a"] <= 1
    assert values["c"].tolist() == [[0] * N] + [[1] * N] * (T - 1)
    assert all(learnable.tensor.grad.abs().sum() > 0 for learnable in net.learnable)


def test_the_greedy_decoder_reads_the_best_labels_until_the_end() -> None:
    """ctc_decoder_layer.cpp of MhLiao/TextBoxes_plusplus, on sequences whose best labels are given."""
    best = np.array([[0, 2, 2, 3, 2, 0], [1, 1, 3, 1, 0, 0], [3, 3, 3, 3, 3, 3]]).T  # (T, N); 3 is the blank
    scores = torch.full((6, 3, 4), 0.1, dtype=torch.float64)
    scores.scatter_(2, torch.tensor(best)[..., None], 0.6)
    going = torch.ones(6, 3, dtype=torch.float64)
    going[0], going[4:, 0] = 0, 0
    truth = torch.tensor([[0, 2, -1, 0, 0, 0], [1, 1, 0, -1, 0, 0], [-1, 0, 0, 0, 0, 0]], dtype=torch.float64).T
    text = 'name: "d" type: "CTCGreedyDecoder" {} ctc_decoder_param {{ {} }}'
    layer = gl.build(text.format('top: "s" top: "p" top: "a"', ""), scores.shape, going.shape, truth.shape)
    sequences, sums, accuracy = layer(scores, going, truth)
    assert sequences[..., 0, 0].tolist() == [[0, 2, -1, -1, -1, -1], [1, 1, 0, -1, -1, -1], [-1] * 6]
    torch.testing.assert_close(sums.flatten(), torch.tensor([-2.4, -3.6, -3.6], dtype=torch.float64))
    assert accuracy.item() == 1
    layer = gl.build(
        text.format('top: "s" top: "a"', "ctc_merge_repeated: false blank_index: 1"), *[(6, 3, 4)] + [(6, 3)] * 2
    )
    sequences, accuracy = layer(scores, going, truth)
    assert sequences[..., 0, 0].tolist() == [[0, 2, 2, 3, -1, -1], [3, 0, 0, -1, -1, -1], [3] * 6]
    np.testing.assert_allclose(accuracy.item(), 1 - (2 / 4 + 2 / 3 + 6 / 6) / 3)
    whole = gl.build(text.format("", ""), scores.shape)(scores)
    assert whole[0, :, 0, 0].tolist() == [0, 2, 2, 0, -1, -1]
    with pytest.raises(LayerError, match="needs scores T×N×C and further bottoms T×N, not 6×3×4, 3×6"):
        gl.build(text.format("", ""), scores.shape, (3, 6))
