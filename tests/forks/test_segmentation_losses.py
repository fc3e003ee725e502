"""Losses and scores of segmentation nets in forks, against the formulas of their sources, written out as loops."""

from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch
from torch import Tensor

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer, layer_class
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text


def scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def labels(*shape: int, classes: int = 3, seed: int = 1) -> Tensor:
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed)).double()


def value_and_gradients(layer: Layer, *bottoms: Tensor) -> tuple[float, list[np.ndarray]]:
    leaves = [bottom.clone().requires_grad_() for bottom in bottoms]
    loss = layer(*leaves)
    loss.backward()
    return loss.item(), [np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy() for leaf in leaves]


@pytest.mark.parametrize("more", ["", "normalize: false"])
def test_segnets_class_weights(more: str) -> None:
    """softmax_loss_layer.cpp of alexgkendall/caffe-segnet: weights multiply, what is counted stays."""
    x, label, weights = scores(2, 3, 4, 5), labels(2, 1, 4, 5, classes=4), [0.5, 2.0, 1.25]
    label[label == 3] = 255
    option = " ".join(f"class_weighting: {weight}" for weight in weights)
    text = f'type: "SoftmaxWithLoss" loss_param {{ weight_by_label_freqs: true ignore_label: 255 {option} {more} }}'
    value, (gradient, _) = value_and_gradients(gl.build(text, x.shape, label.shape), x, label)
    probabilities = np.exp(x.numpy()) / np.exp(x.numpy()).sum(1, keepdims=True)
    loss, count, want = 0.0, 0, np.zeros(x.shape)
    for n, h, w in np.ndindex(2, 4, 5):
        wanted = int(label[n, 0, h, w])
        if wanted == 255:
            continue
        loss -= np.log(probabilities[n, wanted, h, w]) * weights[wanted]
        want[n, :, h, w] = (probabilities[n, :, h, w] - np.eye(3)[wanted]) * weights[wanted]
        count += 1
    by = 2 if more else count
    np.testing.assert_allclose(value, loss / by, rtol=1e-6)
    np.testing.assert_allclose(gradient, want / by, rtol=1e-6, atol=1e-12)


def test_class_weights_do_nothing_unless_they_are_asked_for() -> None:
    x, label = scores(2, 3, 2, 2), labels(2, 1, 2, 2)
    text = 'type: "SoftmaxWithLoss" loss_param { class_weighting: 9 weight_by_label_freqs: false }'
    plain = gl.build('type: "SoftmaxWithLoss"', x.shape, label.shape)
    assert gl.build(text, x.shape, label.shape)(x, label) == plain(x, label)


def test_there_is_a_weight_for_each_class() -> None:
    text = 'type: "SoftmaxWithLoss" loss_param { class_weighting: 9 weight_by_label_freqs: true }'
    with pytest.raises(LayerError, match="needs a class_weighting for each of the 3 classes; there are 1"):
        gl.build(text, (2, 3, 2, 2), (2, 1, 2, 2))


def test_deeplabs_weights_of_a_file_divide_too(tmp_path: Path) -> None:
    """softmax_loss_layer.cpp of DeepLab v1: divided by the sum of the weights; several labels may be ignored."""
    x, label, weights = scores(2, 3, 4, 5), labels(2, 1, 4, 5, classes=5), [0.5, 2.0, 1.25]
    (tmp_path / "loss_weight.txt").write_text("0.5\n2 1.25\n")
    text = f'''type: "SoftmaxWithLoss" softmaxloss_param {{ weight_source: "{tmp_path}/loss_weight.txt" ignore_label: 3
        ignore_label: 4 }}'''
    value, (gradient, _) = value_and_gradients(gl.build(text, x.shape, label.shape), x, label)
    probabilities = np.exp(x.numpy()) / np.exp(x.numpy()).sum(1, keepdims=True)
    loss, total, want = 0.0, 0.0, np.zeros(x.shape)
    for n, h, w in np.ndindex(2, 4, 5):
        wanted = int(label[n, 0, h, w])
        if wanted < 3:
            loss -= np.log(probabilities[n, wanted, h, w]) * weights[wanted]
            want[n, :, h, w] = (probabilities[n, :, h, w] - np.eye(3)[wanted]) * weights[wanted]
            total += weights[wanted]
    np.testing.assert_allclose(value, loss / total, rtol=1e-6)
    np.testing.assert_allclose(gradient, want / total, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("content", ["1 2", "1 2 x", "1 2 -3", ""])
def test_a_file_of_weights_has_one_for_each_class(content: str, tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text(content)
    text = f'type: "SoftmaxWithLoss" softmaxloss_param {{ weight_source: "{tmp_path}/w.txt" }}'
    with pytest.raises(LayerError, match=r"weight_source .*w.txt has \d words .* for each of the 3 classes"):
        gl.build(text, (2, 3, 2, 2), (2, 1, 2, 2))


def test_a_net_of_deeplab_v1_is_read_and_trains(tmp_path: Path) -> None:
    """As its published nets are: the old form, holes, labels shrunk by Interp, and its own loss and score."""
    text = """input: "x" input_dim: 1 input_dim: 2 input_dim: 9 input_dim: 9
        input: "label" input_dim: 1 input_dim: 1 input_dim: 9 input_dim: 9
        layers { name: "c" type: CONVOLUTION bottom: "x" top: "c" convolution_param { num_output: 3 kernel_size: 3 pad: 2
            hole: 2 weight_filler { type: "gaussian" std: 0.1 } } }
        layers { name: "s" type: INTERP bottom: "c" top: "s" interp_param { shrink_factor: 4 } }
        layers { name: "ls" type: INTERP bottom: "label" top: "ls" interp_param { shrink_factor: 4 } }
        layers { name: "loss" type: SOFTMAX_LOSS bottom: "s" bottom: "ls" top: "loss"
            softmaxloss_param { ignore_label: 255 } include: { phase: TRAIN } }
        layers { name: "a" type: SEG_ACCURACY bottom: "s" bottom: "ls" top: "a" seg_accuracy_param { ignore_label: 255 } }"""
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    net = Net(str(path), "TRAIN")
    assert net.layers["c"].dilation == (2, 2) and net.blob_shapes["s"] == (1, 3, 3, 3)
    label = torch.randint(3, (1, 1, 9, 9)).float()
    label[..., :5, :5] = 255
    objective, outputs = net.objective({"x": torch.randn(1, 2, 9, 9), "label": label})
    objective.backward()
    assert 0.5 < outputs["loss"] < 2 and outputs["a"].shape == (1, 1, 1, 3)


def hed_layer(text: str = "", fork: str = "hed", shape: tuple[int, ...] = (2, 1, 3, 4)) -> Layer:
    param = parse_text(f'name: "l" type: "SigmoidCrossEntropyLoss" {text}', caffe_pb2.LayerParameter)
    return layer_class(param, fork=fork)(param, [shape, shape])


def test_heds_loss_balances_ones_and_zeros_in_each_image() -> None:
    x, target = scores(2, 1, 3, 4) * 3, labels(2, 1, 3, 4)  # 2 is neither
    value, (gradient, _) = value_and_gradients(hed_layer(), x, target)
    loss, want = 0.0, 1 / (1 + np.exp(-x.numpy())) - target.numpy()
    for n in range(2):
        ones, zeros = (int((target[n] == kind).sum()) for kind in (1, 0))
        assert ones and zeros and ones + zeros < 12
        for at in np.ndindex(1, 3, 4):
            score, wanted = x[n][at].item(), target[n][at].item()
            if wanted < 2:
                share = (zeros if wanted == 1 else ones) / (ones + zeros)
                loss += share * (np.log1p(np.exp(score)) - score * wanted)
                want[n][at] *= share
    np.testing.assert_allclose(value, loss / 2, rtol=1e-6)
    np.testing.assert_allclose(gradient, want / 2, rtol=1e-6, atol=1e-12)


def test_a_net_of_hed_has_heds_loss_and_others_have_not() -> None:
    text = """layer { name: "l" type: "SigmoidCrossEntropyLoss" bottom: "x" bottom: "t" top: "loss" }"""
    inputs = 'layer { name: "i" type: "Input" top: "x" top: "t" input_param { shape { dim: 1 dim: 8 } } }'
    for extra, fork, kind in (
        ("", "", "SigmoidCrossEntropyLoss"),
        ("", "hed", "BalancedSigmoidCrossEntropyLoss"),
        (
            'layer { name: "a" type: "Axpy" bottom: "s" bottom: "x" bottom: "x" top: "a" }',
            "",
            "SigmoidCrossEntropyLoss",
        ),
    ):
        s = 'layer { name: "s" type: "Input" top: "s" input_param { shape { dim: 1 dim: 8 } } }' if extra else ""
        shape = "shape { dim: 1 dim: 8 dim: 1 dim: 1 }" if extra else "shape { dim: 1 dim: 8 }"
        net = parse_text(
            inputs.replace("shape { dim: 1 dim: 8 }", shape) + s + extra + text, caffe_pb2.NetParameter(fork=fork)
        )
        assert type(Net(net, "TRAIN").layers["l"]).__name__ == kind
    param = parse_text('name: "l" type: "SigmoidCrossEntropyLoss"', caffe_pb2.LayerParameter)
    assert layer_class(param, likely=("hed",)).__name__ == "BalancedSigmoidCrossEntropyLoss"


def test_osvos_has_heds_loss_by_another_name() -> None:
    x, target = scores(2, 1, 3, 4), labels(2, 1, 3, 4, classes=2)
    layer = gl.build('type: "SigmoidCrossEntropyBalanceLoss"', x.shape, target.shape)
    assert layer(x, target) == hed_layer()(x, target)
    param = parse_text('name: "l" type: "SigmoidCrossEntropyLoss"', caffe_pb2.LayerParameter)
    assert layer_class(param, likely=("osvos",)).__name__ == "SigmoidCrossEntropyLoss"


def test_heds_loss_takes_no_normalization() -> None:
    with pytest.raises(LayerError, match=r"takes no loss_param.normalization: in HED's Caffe"):
        hed_layer("loss_param { normalization: VALID }")


def test_the_dice_coefficient() -> None:
    """dice_coef_loss_layer.cpp: the gradient lacks the division by the number of images."""
    x, y = scores(3, 2, 2, 2).sigmoid(), labels(3, 2, 2, 2, classes=2)
    layer = gl.build('type: "DiceCoefLoss"', x.shape, y.shape)
    value, gradients = value_and_gradients(layer, x, y)
    a, b = x.numpy().reshape(3, -1), y.numpy().reshape(3, -1)
    below = (a * a).sum(1) + (b * b).sum(1) + 1
    dice = (2 * (a * b).sum(1) + 1) / below
    np.testing.assert_allclose(value, 1 - dice.mean(), rtol=1e-6)
    for gradient, own, other in ((gradients[0], a, b), (gradients[1], b, a)):
        want = (-2 * other + 2 * dice[:, None] * own) / below[:, None]
        np.testing.assert_allclose(gradient.reshape(3, -1), want, rtol=1e-6, atol=1e-12)


def seg_accuracy(matrix: np.ndarray) -> list[float]:
    """accuracy, avgRecall(false) and avgJaccard of confusion_matrix.cpp."""
    recalls, overlaps = [], []
    for c in range(len(matrix)):
        row, column, hit = matrix[c].sum(), matrix[:, c].sum(), matrix[c, c]
        if row:
            recalls.append(hit / row)
        overlaps.append(1.0 if hit == row + column - hit else hit / (row + column - hit))
    return [np.trace(matrix) / matrix.sum(), float(np.mean(recalls)), float(np.mean(overlaps))]


def confusion(x: Tensor, label: Tensor, ignored: set[int]) -> np.ndarray:
    matrix = np.zeros((x.shape[1],) * 2, int)
    for n, h, w in np.ndindex(x.shape[0], *x.shape[2:]):
        if int(label[n, 0, h, w]) not in ignored:
            best = max((x[n, c, h, w].item(), c) for c in range(x.shape[1]))[1]  # pairs, as the fork sorts them
            matrix[int(label[n, 0, h, w]), best] += 1
    return matrix


@pytest.mark.parametrize("reset", [True, False])
def test_seg_accuracy(reset: bool) -> None:
    text = f'type: "SegAccuracy" seg_accuracy_param {{ ignore_label: 255 ignore_label: 1 reset: {str(reset).lower()} }}'
    layer = gl.build(text, (2, 5, 6, 7), (2, 1, 6, 7), phase=1)
    total = np.zeros((5, 5), int)
    for seed in range(3):
        x, label = (
            scores(2, 5, 6, 7, seed=seed).round(),
            labels(2, 1, 6, 7, seed=seed),
        )  # ties; classes 3, 4 never occur
        x[:, 4] = -9
        label[:, :, :2] = 255
        matrix = confusion(x, label, {255, 1})
        total = matrix if reset else total + matrix
        if seed == 2:  # another layer goes on from the state of this one
            state, layer = layer.state(), gl.build(text, x.shape, label.shape, phase=1)
            layer.seek(state)
        top = layer(x, label)
        assert top.shape == (1, 1, 1, 3)
        np.testing.assert_allclose(top.flatten(), seg_accuracy(total), rtol=1e-6)


def test_eltwise_accuracy_counts_places() -> None:
    x, label = scores(2, 4, 5, 6).mul(2).round(), labels(2, 1, 5, 6, classes=6)
    layer = gl.build(
        'type: "EltwiseAccuracy" eltwise_accuracy_param { top_k: 2 ignore_label: 3 }', x.shape, label.shape
    )
    hits = seen = 0
    for n, h, w in np.ndindex(2, 5, 6):
        best = sorted(((x[n, c, h, w].item(), c) for c in range(4)), reverse=True)[:2]
        seen += int(label[n, 0, h, w]) != 3
        hits += int(label[n, 0, h, w]) != 3 and int(label[n, 0, h, w]) in [c for _, c in best]
    top = layer(x, label)
    assert top.shape == (1, 1, 1, 1) and 0 < hits < seen
    np.testing.assert_allclose(top.item(), hits / seen)


def test_several_scores_a_class() -> None:
    """red_softmax_loss_layer.cpp and red_accuracy_layer.cpp: class k of 3 has scores 7k/3 to 7(k + 1)/3, rounded down."""
    x, label = scores(2, 7, 3, 4), labels(2, 1, 3, 4, classes=4)
    ends = [0, 2, 4, 7]
    text = 'type: "RedSoftmaxLoss" red_softmax_loss_param { class_num: 3 } loss_param { ignore_label: 3 }'
    layer = gl.build(text, x.shape, label.shape)
    value, (gradient, _) = value_and_gradients(layer, x, label)
    probabilities = np.exp(x.numpy()) / np.exp(x.numpy()).sum(1, keepdims=True)
    loss, hits, count, want = 0.0, 0, 0, np.zeros(x.shape)
    for n, h, w in np.ndindex(2, 3, 4):
        wanted = int(label[n, 0, h, w])
        if wanted == 3:
            continue
        sums = [probabilities[n, ends[k] : ends[k + 1], h, w].sum() for k in range(3)]
        loss -= np.log(sums[wanted])
        want[n, :, h, w] = probabilities[n, :, h, w]
        own = slice(ends[wanted], ends[wanted + 1])
        want[n, own, h, w] -= probabilities[n, own, h, w] / sums[wanted]
        hits += int(np.argmax(sums)) == wanted
        count += 1
    np.testing.assert_allclose(value, loss / count, rtol=1e-6)
    np.testing.assert_allclose(gradient, want / count, rtol=1e-6, atol=1e-9)
    text = 'type: "RedAccuracy" red_accuracy_param { class_num: 3 ignore_label: 3 }'
    np.testing.assert_allclose(gl.build(text, x.shape, label.shape)(x, label).item(), hits / count)


@pytest.mark.parametrize("mode", ["Accuracy", "Precision", "Recall", "F_measure"])
def test_binary_accuracy(mode: str) -> None:
    x, label = scores(4, 5), labels(4, 5)  # label 2 is neither
    layer = gl.build(f'type: "BinAccuracy" binary_accuracy_param {{ accuracy_mode: {mode} }}', x.shape, label.shape)
    pairs = [(a > 0, b) for a, b in zip(x.flatten().tolist(), label.flatten().tolist(), strict=True)]
    tp, fn, fp, tn = (pairs.count(pair) for pair in ((True, 1), (False, 1), (True, 0), (False, 0)))
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    want = {
        "Accuracy": (tp + tn) / (tp + fn + fp + tn),
        "Precision": precision,
        "Recall": recall,
        "F_measure": 2 * precision * recall / (precision + recall),
    }
    np.testing.assert_allclose(layer(x, label).item(), want[mode], rtol=1e-6)


def test_channels_are_dropped_whole() -> None:
    layer = gl.build('type: "DropoutChannel" dropout_param { dropout_ratio: 0.75 }', (20, 30, 2, 3))
    planes = layer(torch.ones(20, 30, 2, 3)).flatten(2)
    assert (planes == planes[..., :1]).all() and set(planes.flatten().tolist()) == {0.0, 4.0}
    assert 0.2 < (planes[..., 0] > 0).float().mean() < 0.3


@pytest.mark.parametrize(
    ("text", "shapes", "words"),
    [
        (
            '"RedSoftmaxLoss" red_softmax_loss_param { class_num: 4 }',
            [(2, 3, 4, 4), (2, 1, 4, 4)],
            "class_num: 4 must be",
        ),
        (
            '"RedAccuracy" red_accuracy_param { class_num: 2 top_k: 3 }',
            [(2, 3, 4, 4), (2, 1, 4, 4)],
            "1 to the 2 classes",
        ),
        ('"BinAccuracy"', [(2, 3), (2, 1)], "scores and labels of one shape"),
        ('"DropoutChannel"', [(2, 3)], "needs a bottom"),
        ('"SegAccuracy"', [(2, 3, 4, 4), (2, 1, 4, 5)], "labels .* but they have 2×3×4×4 and 2×1×4×5"),
        ('"EltwiseAccuracy"', [(2, 3), (2, 1)], "needs scores"),
        (
            '"EltwiseAccuracy" eltwise_accuracy_param { top_k: 4 }',
            [(2, 3, 1, 1), (2, 1, 1, 1)],
            "top_k: 4 must be from 1",
        ),
    ],
)
def test_faults_are_named(text: str, shapes: list[tuple[int, ...]], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f"type: {text}", *shapes)


def test_a_label_that_is_no_class_is_named() -> None:
    layer = gl.build('type: "SegAccuracy"', (1, 3, 1, 2), (1, 1, 1, 2))
    with pytest.raises(LayerError, match="label 255 is not a class"):
        layer(scores(1, 3, 1, 2), torch.tensor([0.0, 255]).reshape(1, 1, 1, 2))


@pytest.mark.parametrize(("option", "dropped"), [("sample_weights_test: true", True), ("", False)])
def test_bayesian_segnet_drops_out_in_tests_too(option: str, dropped: bool) -> None:
    layer = gl.build(f'type: "Dropout" dropout_param {{ {option} }}', (1000,), phase=1)
    values = set(layer(torch.ones(1000)).tolist())
    assert values == ({0.0, 2.0} if dropped else {1.0})
