"""Losses: Caffe's numbers, each normalization, gradients, floors, labels that are no class."""

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError, MissingFileError, ParseError
from pycaffe_compat.layers import REGISTRY
from pycaffe_compat.proto.binary import write_message
from pycaffe_compat.proto.blob_proto import array_to_blob


@pytest.mark.parametrize(
    "name",
    gl.names("softmaxloss", "infogain", "euclidean", "hinge", "contrastive", "multinomial", "sigmoidce", "two_losses"),
)
def test_golden(name):
    gl.check(name)


def scores(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([1.0, 0, 2, 1])
SQUARE = LABELS.reshape(2, 2)


@pytest.mark.parametrize(
    "prototxt, inputs",
    [
        ('"SoftmaxWithLoss" softmax_param { axis: 0 } LOSS { normalization: BATCH_SIZE }', [scores(2, 2), LABELS[:2]]),
        ('"SoftmaxWithLoss" softmax_param { axis: -1 } LOSS { normalize: false }', [scores(2, 2, 3), SQUARE]),
        ('"SoftmaxWithLoss" LOSS { ignore_label: 1 normalization: FULL }', [scores(4, 3), LABELS]),
        ('"SoftmaxWithLoss" LOSS { ignore_label: 1 normalization: NONE }', [scores(1, 3, 2, 2), SQUARE[None]]),
        ('"SoftmaxWithLoss" LOSS { ignore_label: 1 normalization: BATCH_SIZE }', [scores(4, 3), LABELS]),
        (
            '"InfogainLoss" infogain_loss_param { axis: -1 } LOSS { ignore_label: 0 }',
            [scores(2, 2, 3), SQUARE, scores(3, 3)],
        ),
        ('"InfogainLoss" LOSS { normalization: FULL }', [scores(2, 3, 2), SQUARE, scores(1, 1, 3, 3)]),
        ('"MultinomialLogisticLoss"', [scores(4, 3).softmax(1), LABELS]),
        ('"EuclideanLoss"', [scores(2, 3, 2), scores(2, 6, seed=1)]),
        ('"HingeLoss"', [scores(4, 3, 1, 1), LABELS]),
        ('"HingeLoss" hinge_loss_param { norm: L2 }', [scores(4, 3), LABELS]),
        (
            '"ContrastiveLoss" contrastive_loss_param { margin: 9 legacy_version: true }',
            [scores(4, 3), scores(4, 3, seed=1), LABELS],
        ),
        ('"SigmoidCrossEntropyLoss" LOSS { ignore_label: 2 normalization: VALID }', [scores(4, 1), LABELS]),
        ('"SigmoidCrossEntropyLoss" LOSS { ignore_label: 2 normalize: true }', [scores(2, 2), SQUARE]),
        ('"SigmoidCrossEntropyLoss" LOSS { normalization: NONE }', [scores(4, 1), scores(4, seed=1).sigmoid()]),
        ('"SigmoidCrossEntropyLoss" LOSS { normalization: FULL }', [scores(4, 2), scores(4, 2, seed=1).sigmoid()]),
    ],
)
def test_gradients(prototxt, inputs):
    prototxt = f"type: {prototxt}".replace("LOSS", "loss_param")
    layer = gl.build(prototxt, *(i.shape for i in inputs), dtype=torch.float64)
    learns = [*layer.differentiable, layer.differentiable[-1]][: len(inputs)]
    inputs = [i.clone().double().requires_grad_() for i in inputs]
    assert gl.meta_shapes(layer, [i.shape for i in inputs]) == [()]
    checked = [i for i, learn in zip(inputs, learns, strict=True) if learn]

    def run(*given):
        remaining = iter(given)
        return layer(*(next(remaining) if learn else i for i, learn in zip(inputs, learns, strict=True)))

    assert torch.autograd.gradcheck(run, checked)
    grads = torch.autograd.grad(layer(*inputs), inputs, allow_unused=True)
    assert [g is not None for g in grads] == learns


def nll(x, label, divisor, keep=None):
    """-log softmax over axis 1, summed over the places to keep, divided."""
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    picked = -np.log(np.take_along_axis(p, label[:, None], 1)[:, 0])
    return (picked if keep is None else picked[keep]).sum() / divisor


@pytest.mark.parametrize(
    "mode, divisor",
    [
        ("normalization: VALID", 14),
        ("normalization: FULL", 24),
        ("normalization: BATCH_SIZE", 2),
        ("normalization: NONE", 1),
        ("normalize: true", 14),
        ("normalize: false", 2),
        ("normalization: FULL normalize: false", 24),
        ("", 14),
    ],
)
def test_softmax_normalization(mode, divisor):
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 5, 3, 4))
    label = rng.integers(0, 4, (2, 3, 4))
    label.flat[:10] = 255
    keep = label != 255
    layer = gl.build(f'type: "SoftmaxWithLoss" loss_param {{ ignore_label: 255 {mode} }}', x.shape, label.shape)
    want = nll(x, np.where(keep, label, 0), divisor, keep)
    for shape in ((2, 3, 4), (2, 1, 3, 4)):
        got = layer(torch.from_numpy(x), torch.from_numpy(label.reshape(shape)).double())
        assert got.shape == () and float(got) == pytest.approx(want)


def test_all_ignored_is_zero():
    layer = gl.build('type: "SoftmaxWithLoss" loss_param { ignore_label: -1 }', (2, 3), (2,))
    x = torch.randn(2, 3, requires_grad=True)
    loss = layer(x, torch.full((2,), -1.0))
    loss.backward()
    assert loss.item() == 0 and not x.grad.any()


def test_probabilities_are_a_top_without_gradient():
    layer = gl.build('type: "SoftmaxWithLoss" top: "loss" top: "p" softmax_param { axis: 2 }', (2, 3, 4), (2, 3))
    x = torch.randn(2, 3, 4, requires_grad=True)
    loss, p = layer(x, torch.zeros(2, 3))
    torch.testing.assert_close(p, x.detach().softmax(2))
    assert loss.requires_grad and not p.requires_grad
    assert gl.meta_shapes(layer, [(2, 3, 4), (2, 3)]) == [(), (2, 3, 4)]


@pytest.mark.parametrize("type_, floor", [("SoftmaxWithLoss", np.finfo(np.float32).tiny), ("InfogainLoss", 1e-20)])
def test_hopeless_scores_have_a_floor_and_a_gradient(type_, floor):
    x = torch.tensor([[500.0, 0, 0]], requires_grad=True)
    rest = (torch.eye(3),) if type_ == "InfogainLoss" else ()
    layer = gl.build(f'type: "{type_}"', (1, 3), (1,), *(r.shape for r in rest))
    loss = layer(x, torch.tensor([1.0]), *rest)
    loss.backward()
    assert loss.item() == pytest.approx(-np.log(floor), rel=1e-6)
    torch.testing.assert_close(x.grad, torch.tensor([[1.0, -1, 0]]))


def test_multinomial_floor():
    x = torch.tensor([[0.0, 1.0], [0.25, 0.75]], requires_grad=True)
    loss = gl.build('type: "MultinomialLogisticLoss"', (2, 2), (2,))(x, torch.tensor([0.0, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(-(np.log(1e-20) + np.log(0.75)) / 2)
    torch.testing.assert_close(x.grad, torch.tensor([[-0.5e20, 0], [0, -0.5 / 0.75]]))


def test_contrastive_gradient_has_its_epsilon():
    """The loss of a pair that does not match is (margin - d)^2 / 2; Caffe's gradient divides by d + 1e-4."""
    a = torch.tensor([[0.3, 0.4], [0.0, 0.0], [2.0, 0.0]], requires_grad=True)
    b = torch.zeros(3, 2, requires_grad=True)
    layer = gl.build('type: "ContrastiveLoss"', (3, 2), (3, 2), (3,))
    loss = layer(a, b, torch.zeros(3))
    loss.backward()
    assert loss.item() == pytest.approx((0.5**2 + 1) / 6)
    want = torch.zeros(3, 2)
    want[0] = -0.5 / (0.5 + 1e-4) * torch.tensor([0.3, 0.4]) / 3
    torch.testing.assert_close(a.grad, want)
    torch.testing.assert_close(b.grad, -want)


def test_labels_are_truncated():
    layer = gl.build('type: "SoftmaxWithLoss"', (2, 3), (2,))
    x = torch.randn(2, 3)
    assert torch.equal(layer(x, torch.tensor([1.9, -0.9])), layer(x, torch.tensor([1.0, 0.0])))


def test_infogain_matrix_from_a_file(tmp_path):
    matrix = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    path = tmp_path / "h.binaryproto"
    write_message(path, array_to_blob(matrix))
    x, label = torch.randn(4, 3), LABELS
    from_file = gl.build(f'type: "InfogainLoss" infogain_loss_param {{ source: "{path}" }}', x.shape, label.shape)
    from_bottom = gl.build('type: "InfogainLoss"', x.shape, label.shape, matrix.shape)
    assert gl.meta_shapes(from_file, [x.shape, label.shape]) == [()]
    assert torch.equal(from_file(x, label), from_bottom(x, label, torch.from_numpy(matrix)))
    want = -(torch.from_numpy(matrix[0, 0])[label.long()] * x.log_softmax(1)).sum() / 4
    torch.testing.assert_close(from_file(x, label), want)


def test_infogain_matrix_that_is_missing_or_bad(tmp_path):
    with pytest.raises(LayerError, match="third bottom, or infogain_loss_param"):
        gl.build('type: "InfogainLoss"', (4, 3), (4,))
    with pytest.raises(MissingFileError, match=r"h\.binaryproto"):
        gl.build('type: "InfogainLoss" infogain_loss_param { source: "/nowhere/h.binaryproto" }', (4, 3), (4,))
    bad = tmp_path / "bad.binaryproto"
    bad.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ParseError, match=r"bad\.binaryproto"):
        gl.build(f'type: "InfogainLoss" infogain_loss_param {{ source: "{bad}" }}', (4, 3), (4,))
    with pytest.raises(LayerError, match="infogain matrix of 3×3, not 4×4"):
        gl.build('type: "InfogainLoss"', (4, 3), (4,), (4, 4))(torch.zeros(4, 3), torch.zeros(4), torch.zeros(4, 4))


@pytest.mark.parametrize("type_", ["SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss"])
@pytest.mark.parametrize("bad", [3.0, -1.0, float("nan")])
def test_label_that_is_no_class(type_, bad):
    layer = gl.build(f'name: "l" type: "{type_}"', (2, 3), (2,))
    with pytest.raises(LayerError, match=rf'layer "l" \({type_}\): label {bad:g} at index 1 .* 3, 0 to 2'):
        layer(torch.ones(2, 3), torch.tensor([0, bad]))


def test_label_that_is_neither_class_nor_ignored():
    layer = gl.build('type: "SoftmaxWithLoss" loss_param { ignore_label: 255 }', (3, 3), (3,))
    assert torch.isfinite(layer(torch.ones(3, 3), torch.tensor([0.0, 255, 2])))
    with pytest.raises(LayerError, match=r"label 254 at index 1 .* ignore_label is 255"):
        layer(torch.ones(3, 3), torch.tensor([0.0, 254, 2]))


@pytest.mark.parametrize("type_", ["SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss"])
def test_compiled_label_that_is_no_class_makes_nan(type_, monkeypatch):
    """Where the host does not look (on a GPU, or compiled) the loss is NaN and the gradients are not."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    layer = gl.build(f'type: "{type_}"', (2, 3), (2,))
    x = torch.ones(2, 3, requires_grad=True)
    loss = layer(x, torch.tensor([0.0, 7]))
    loss.backward()
    assert torch.isnan(loss) and torch.isfinite(x.grad).all()
    assert torch.isfinite(layer(x, torch.tensor([0.0, 2])))


@pytest.mark.parametrize("type_", ["SoftmaxWithLoss", "EuclideanLoss", "SigmoidCrossEntropyLoss"])
def test_half_precision_sums_in_float32(type_):
    x = torch.full((64, 4096), 10.0, dtype=torch.bfloat16).requires_grad_()
    target = torch.zeros(64) if type_ == "SoftmaxWithLoss" else torch.zeros(64, 4096)
    loss = gl.build(f'type: "{type_}" loss_param {{ normalization: NONE }}', x.shape, target.shape)(x, target)
    want = {"SoftmaxWithLoss": 64 * np.log(4096), "EuclideanLoss": 4096 * 50, "SigmoidCrossEntropyLoss": 64 * 4096 * 10}
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(want[type_], rel=1e-4)
    loss.backward()
    assert x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "prototxt, shapes, message",
    [
        ('"SoftmaxWithLoss"', [(4, 3), (3,)], "same first axis .* 4×3 and 3"),
        ('"SoftmaxWithLoss"', [(4, 3), (4, 3)], "takes 4 labels for scores of shape 4×3 .* shape 4×3"),
        ('"SoftmaxWithLoss"', [(4, 3, 2), (4,)], "takes 8 labels"),
        ('"SoftmaxWithLoss" softmax_param { axis: 2 }', [(4, 3), (4,)], "softmax_param.axis: 2 is out of range"),
        ('"InfogainLoss" infogain_loss_param { axis: -3 }', [(4, 3), (4,), (3, 3)], "infogain_loss_param.axis: -3"),
        ('"SoftmaxWithLoss"', [(4, 3)], "1 bottom blob, but takes exactly 2"),
        ('"EuclideanLoss"', [(4, 3), (4, 2)], "4×3 and 4×2"),
        ('"EuclideanLoss"', [(4, 3), (2, 6)], "same first axis"),
        ('"EuclideanLoss"', [(), ()], "scalar and scalar"),
        ('"SigmoidCrossEntropyLoss"', [(4, 3), (4, 2)], "same number of values"),
        ('"HingeLoss"', [(4, 3), (4, 2)], "takes 4 labels"),
        ('"MultinomialLogisticLoss"', [(4, 3), (4, 1, 2)], "takes 4 labels"),
        ('"ContrastiveLoss"', [(4, 3), (4, 3)], "2 bottom blobs, but takes exactly 3"),
        ('"ContrastiveLoss"', [(4, 3), (4, 2), (4,)], "same number of values"),
        ('"ContrastiveLoss"', [(4, 3, 2), (4, 3, 2), (4,)], "takes embeddings of shape N×C"),
        ('"ContrastiveLoss"', [(4, 3), (4, 3), (4, 2)], "one label a pair: 4"),
    ],
)
def test_bottoms_that_do_not_fit(prototxt, shapes, message):
    with pytest.raises(LayerError, match=message):
        gl.meta_shapes(gl.build(f"type: {prototxt}", *shapes), shapes)


def test_every_loss_says_it_is_one():
    losses = {name for name, cls in REGISTRY.items() if cls.loss}
    assert losses >= {n for n in REGISTRY if n.endswith("Loss")} - {"Python"}
    assert REGISTRY["EuclideanLoss"].differentiable == (True,)
