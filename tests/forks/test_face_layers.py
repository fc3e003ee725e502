"""Losses and distances for faces: CenterLoss, MarginInnerProduct, TripletLoss, Normalize, InnerDistance, Flip."""

from __future__ import annotations

import math

import golden_layer as gl
import numpy as np
import pytest
import torch
from google.protobuf import text_format

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer, layer_class
from pycaffe_compat.layers.fillers import fill
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

N, K, CLASSES = 5, 3, 4
LABELS = [2, 0, 2, 3, 2]
DOUBLE = torch.float64


def features(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((N, K))).requires_grad_()


def labels() -> torch.Tensor:
    return torch.tensor(LABELS, dtype=DOUBLE)


def build(prototxt: str, *shapes: tuple[int, ...]) -> Layer:
    layer = gl.build(f'name: "l" {prototxt}', *shapes, dtype=DOUBLE)
    rng = np.random.default_rng(7)
    for blob in layer.blobs:
        blob.data.copy_(torch.from_numpy(rng.standard_normal(tuple(blob.shape))))
    return layer


# ---- center loss


def center_loss(more: str = "") -> Layer:
    return build(f'type: "CenterLoss" center_loss_param {{ num_output: {CLASSES} {more} }}', (N, K), (N,))


@pytest.mark.parametrize("distance", ["L1", "L2"])
def test_center_loss_has_the_forks_gradients(distance: str) -> None:
    """center_loss_layer.cpp: the centers move to the mean of their class, whatever the loss weighs."""
    layer = center_loss("" if distance == "L2" else 'distance_type: "L1"')
    x, center = features(), layer.blob(0).detach().numpy()
    apart = x.detach().numpy() - center[LABELS]
    loss = layer(x, labels())
    want = (apart**2).sum() / 2 / N if distance == "L2" else abs(apart).sum() / N
    np.testing.assert_allclose(loss.item(), want)
    (3 * loss).backward()
    step = apart if distance == "L2" else np.sign(apart)
    np.testing.assert_allclose(x.grad, 3 * step / N)
    moved = np.zeros_like(center)
    for row, label in zip(step, LABELS, strict=True):  # happynear's, who has the L1, adds the sum for each row again
        times = LABELS.count(label) if distance == "L1" else 1
        moved[label] -= times * row / (LABELS.count(label) + 1)
    np.testing.assert_allclose(layer.blob(0).grad, moved)


def test_center_loss_flattens_from_its_axis_and_checks_labels() -> None:
    layer = build(f'type: "CenterLoss" center_loss_param {{ num_output: {CLASSES} }}', (2, 3, 4, 5), (2,))
    assert layer.blob(0).shape == (CLASSES, 60)
    with pytest.raises(LayerError, match="label 7 at index 1 is not a class: there are 4, 0 to 3"):
        layer(torch.zeros(2, 3, 4, 5, dtype=DOUBLE), torch.tensor([0.0, 7.0]))
    with pytest.raises(LayerError, match='distance_type: "cos" is not one of L1, L2'):
        center_loss('distance_type: "cos"')
    with pytest.raises(LayerError, match="num_output: 0 must be at least 1"):
        build('type: "CenterLoss" center_loss_param { }', (2, 3), (2,))


# ---- A-Softmax


def psi(cos: float, margin: int) -> float:
    """cos(m a), mirrored so that it falls from 1 at a = 0 to 1 - 2 m at a = pi (the paper's equation 7)."""
    angle = math.acos(cos)
    k = min(int(angle * margin / math.pi), margin - 1)
    return (-1) ** k * math.cos(margin * angle) - 2 * k


def margin_layer(kind: str, more: str = "", tops: int = 1) -> Layer:
    named = " ".join(f'top: "t{i}"' for i in range(tops))
    option = f"margin_inner_product_param {{ num_output: {CLASSES} type: {kind} {more} }}"
    return build(f'type: "MarginInnerProduct" {named} {option}', (N, K), (N,))


@pytest.mark.parametrize(("kind", "margin"), [("SINGLE", 1), ("DOUBLE", 2), ("TRIPLE", 3), ("QUADRUPLE", 4)])
def test_margin_inner_product(kind: str, margin: int) -> None:
    layer = margin_layer(kind, "base: 1000 gamma: 0.125 power: 1 lambda_min: 5 iteration: 100", tops=2)
    x = features()
    y, mixed = layer(x, labels())
    weight = layer.blob(0).detach().numpy()
    np.testing.assert_allclose((weight**2).sum(1), 1)  # divided by their lengths in place
    mix = max(1000 / (1 + 0.125 * 101), 5)
    np.testing.assert_allclose(mixed, [mix])
    rows = x.detach().numpy()
    want = rows @ weight.T
    length = np.sqrt((rows**2).sum(1))
    for i, label in enumerate(LABELS):
        at_label = length[i] * psi(want[i, label] / length[i], margin)
        want[i, label] = want[i, label] if margin == 1 else (at_label + mix * want[i, label]) / (1 + mix)
    np.testing.assert_allclose(y.detach(), want, rtol=1e-9)
    assert layer.state() == {"passes": 101}
    _, later = layer(x, labels())
    np.testing.assert_allclose(later, [1000 / (1 + 0.125 * 102)])
    layer.seek({"passes": 100000})
    np.testing.assert_allclose(layer(x, labels())[1], [5])


@pytest.mark.parametrize("kind", ["DOUBLE", "TRIPLE", "QUADRUPLE"])
def test_margin_inner_product_has_the_forks_gradients(kind: str) -> None:
    """Backward_cpu of margin_inner_product_layer.cpp, written as its loops."""
    layer = margin_layer(kind, "base: 2")
    x = features()
    dy = np.random.default_rng(3).standard_normal((N, CLASSES))
    layer(x, labels()).backward(torch.from_numpy(dy))
    rows, weight, mix = x.detach().numpy(), layer.blob(0).detach().numpy(), 2.0
    np.testing.assert_allclose(layer.blob(0).grad, dy.T @ rows)
    want = np.zeros_like(rows)
    for i, label in enumerate(LABELS):
        length = np.sqrt((rows[i] ** 2).sum())
        for j in range(CLASSES):
            c = rows[i] @ weight[j] / length
            s0, s1, s3 = np.sign(c), np.sign(abs(c) - 0.5), np.sign(c) * np.sign(2 * c**2 - 1)
            if j != label:
                want[i] += dy[i, j] / (1 + mix) * weight[j]
            else:
                of_w, of_x = {
                    "DOUBLE": (4 * s0 * c, -(2 * s0 * c**2 + 1) / length),
                    "TRIPLE": (s1 * (12 * c**2 - 3), -(8 * s1 * c**3 - (s0 * (1 + s1) - 2)) / length),
                    "QUADRUPLE": (
                        s3 * (32 * c**3 - 16 * c),
                        -(s3 * (24 * c**4 - 8 * c**2 - 1) - (2 * s0 + s3 - 3)) / length,
                    ),
                }[kind]
                scale = np.hypot(of_w, of_x)
                want[i] += dy[i, j] / (1 + mix) * (of_w * weight[j] + of_x * rows[i]) / scale
            want[i] += mix / (1 + mix) * dy[i, j] * weight[j]
    np.testing.assert_allclose(x.grad, want, rtol=1e-9)


@pytest.mark.parametrize(("kind", "margin"), [("SINGLE", 1), ("DOUBLE", 2), ("TRIPLE", 3), ("QUADRUPLE", 4)])
def test_large_margin_inner_product(kind: str, margin: int) -> None:
    option = f"largemargin_inner_product_param {{ num_output: {CLASSES} type: {kind} base: 2 }}"
    layer = build(f'type: "LargeMarginInnerProduct" top: "y" top: "lambda" {option}', (N, K), (N,))
    x, weight = features().detach(), layer.blob(0).detach().clone().numpy()
    y, mix = layer(x, labels())
    assert mix.tolist() == [2] and np.array_equal(layer.blob(0).detach(), weight)
    want = x.numpy() @ weight.T
    for i, label in enumerate(LABELS):
        lengths = np.linalg.norm(x[i]) * np.linalg.norm(weight[label])
        at_label = lengths * psi(want[i, label] / lengths, margin)
        want[i, label] = (at_label + 2 * want[i, label]) / 3
    np.testing.assert_allclose(y.detach(), want, rtol=1e-6)
    alone = build(f'type: "LargeMarginInnerProduct" {option}', (N, K), (N,))
    gl.check_gradients(alone, x, torch.tensor(LABELS))


def test_a_net_with_a_margin_trains() -> None:
    text = """layer { name: "in" type: "Input" top: "x" top: "l" input_param { shape { dim: 5 dim: 3 } shape { dim: 5 } } }
        layer { name: "m" type: "MarginInnerProduct" bottom: "x" bottom: "l" top: "y" top: "lambda"
                margin_inner_product_param { num_output: 4 type: QUADRUPLE weight_filler { type: "xavier" } base: 1000
                                             gamma: 0.125 power: 1 lambda_min: 5 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "l" top: "loss" }"""
    net = Net(parse_text(text, caffe_pb2.NetParameter), "TRAIN")
    loss, _ = net.objective({"x": features().detach().float(), "l": labels().float()})
    loss.backward()
    assert net.learnable[0].tensor.grad.abs().sum() > 0


# ---- triplets


def test_triplet_loss() -> None:
    layer = build('type: "TripletLoss" triplet_loss_param { margin: 0.5 }', (N, K), (N, K), (N, K))
    a, p, n = (features(i).detach() for i in range(3))
    want = (0.5 + ((a - p) ** 2).sum(1) - ((a - n) ** 2).sum(1)).clamp(min=0).sum() / N / 2
    np.testing.assert_allclose(layer(a, p, n), want)
    gl.check_gradients(layer, a, p, n)
    with pytest.raises(LayerError, match="takes three embeddings of shape N×C"):
        build('type: "TripletLoss"', (2, 3), (2, 3), (2, 4))


# ---- distances and norms


@pytest.mark.parametrize("distance", ["L1", "L2"])
def test_inner_distance(distance: str) -> None:
    option = f'inner_distance_param {{ num_output: {CLASSES} distance_type: "{distance}" }}'
    layer = build(f'type: "InnerDistance" {option}', (N, K))
    x = features().detach()
    apart = x[:, None] - layer.blob(0).detach()
    np.testing.assert_allclose(layer(x).detach(), (apart.abs() if distance == "L1" else apart**2).sum(2))
    if distance == "L2":
        gl.check_gradients(layer, x)
    rows = build(f'type: "InnerDistance" {option}', (N, K), (CLASSES, K))
    assert not rows.blobs
    np.testing.assert_allclose(rows(x, layer.blob(0)).detach(), layer(x).detach())


def test_absolute_distances_have_the_forks_gradient() -> None:
    """inner_distance_layer.cpp: its sign(x) lacks parentheses, so that a falling value's slope is not multiplied."""
    layer = build(f'type: "InnerDistance" inner_distance_param {{ num_output: {CLASSES} distance_type: "L1" }}', (N, K))
    x, dy = features(), np.random.default_rng(1).standard_normal((N, CLASSES))
    layer(x).backward(torch.from_numpy(dy))
    apart = x.detach().numpy()[:, None] - layer.blob(0).detach().numpy()
    np.testing.assert_allclose(x.grad, (dy[..., None] * (apart > 0) - (apart < 0)).sum(1))
    np.testing.assert_allclose(layer.blob(0).grad, (dy[..., None] * (apart < 0) - (apart > 0)).sum(0))


@pytest.mark.parametrize(("fork", "start"), [("happynear", 0), ("domain_guided", 1)])
def test_bn_of_two_forks_follows_inverse_deviations(fork: str, start: float) -> None:
    """bn_layer.cpp: blob 3 is a running mean of 1 / sqrt(variance + eps), by which the TEST phase multiplies."""
    param = text_format.Parse(
        'name: "b" type: "BN" bottom: "x" top: "y" bn_param { momentum: 0.75 eps: 0.01 }', caffe_pb2.LayerParameter()
    )
    layer = layer_class(param, fork=fork)(param, [(N, K)])
    first = torch.full((1, K), -1.0)
    fill(first, layer.blob_specs[3].filler)
    assert layer.blob_specs[3].shape == (1, K) and first.eq(start).all()
    blobs = [torch.full((1, K, 1, 1), value, dtype=DOUBLE) for value in (2.0, 0.5, 0.1, 3.0)]
    for i, blob in enumerate(blobs):
        layer.set_blob(i, blob.clone())
    x = features().detach()
    inverse = 1 / (x.var(0, correction=0) + 0.01).sqrt()
    np.testing.assert_allclose(layer(x).detach(), 2 * (x - x.mean(0)) * inverse + 0.5)
    np.testing.assert_allclose(layer.running_mean.flatten(), 0.75 * 0.1 + 0.25 * x.mean(0))
    np.testing.assert_allclose(layer.running_var.flatten(), 0.75 * 3 + 0.25 * inverse)
    layer.eval()
    mean, running = layer.running_mean.flatten(), layer.running_var.flatten()
    np.testing.assert_allclose(layer(x).detach(), 2 * (x - mean) * running + 0.5)
    np.testing.assert_allclose(1 / (layer.variance.flatten() + 0.01).sqrt(), running)


def test_temporal_segments_norm_makes_four_axes() -> None:
    param = caffe_pb2.LayerParameter(name="n", type="Normalize", bottom=["x"], top=["y"])
    layer = layer_class(param, fork="tsn")(param, [(1, 2)])
    assert layer(torch.tensor([[3.0, 4.0]])).shape == (1, 2, 1, 1)
    with pytest.raises(LayerError, match="at most 4 axes"):
        layer_class(param, fork="tsn")(param, [(1, 2, 3, 4, 5)])


def test_inner_distance_moves_only_the_center_of_the_class() -> None:
    option = f"inner_distance_param {{ num_output: {CLASSES} update_center_only: true }}"
    layer = build(f'type: "InnerDistance" {option}', (N, K), (N,))
    x, dy = features(), np.random.default_rng(1).standard_normal((N, CLASSES))
    layer(x, labels()).backward(torch.from_numpy(dy))
    rows, weight = x.detach().numpy(), layer.blob(0).detach().numpy()
    want = np.zeros_like(weight)
    for i, label in enumerate(LABELS):
        want[label] += 2 * dy[i, label] * (weight[label] - rows[i])
    np.testing.assert_allclose(layer.blob(0).grad, want)
    np.testing.assert_allclose(x.grad, 2 * (dy[..., None] * (rows[:, None] - weight)).sum(1))


def test_inner_distance_normalizes_its_rows_in_place() -> None:
    layer = build(f'type: "InnerDistance" inner_distance_param {{ num_output: {CLASSES} normalize: true }}', (N, K))
    before = layer.blob(0).detach().clone()
    layer(features())
    want = before / (before.square().sum(1, keepdim=True) + 1e-6).sqrt()
    np.testing.assert_allclose(layer.blob(0).detach(), want)


def test_inner_product_normalizes_its_weights_in_place() -> None:
    layer = build('type: "InnerProduct" inner_product_param { num_output: 4 normalize: true }', (N, K))
    before, x = layer.blob(0).detach().clone(), features()
    y = layer(x)
    want = before / (before.square().sum(1, keepdim=True) + 1e-6).sqrt()
    np.testing.assert_allclose(layer.blob(0).detach(), want)
    np.testing.assert_allclose(y.detach(), x.detach() @ want.t() + layer.blob(1).detach())
    y.sum().backward()
    np.testing.assert_allclose(layer.blob(0).grad, x.detach().sum(0).expand(4, K))
    with pytest.raises(LayerError, match="normalize does not go with transpose"):
        build('type: "InnerProduct" inner_product_param { num_output: 4 normalize: true transpose: true }', (N, K))


@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_normalize_divides_by_the_norm_of_the_channels(norm: str) -> None:
    option = f'normalize_param {{ normalize_type: "{norm}" bp_norm: true }}'
    layer = build(f'type: "Normalize" top: "y" top: "n" {option}', (2, 3, 2, 2))
    x = torch.randn(2, 3, 2, 2, dtype=DOUBLE)
    length = x.abs().sum(1, True) + 1e-6 if norm == "L1" else ((x**2).sum(1, True) + 1e-6).sqrt()
    for have, want in zip(layer(x), (x / length, length), strict=True):
        np.testing.assert_allclose(have, want)
    gl.check_gradients(layer, x)


def test_normalize_has_no_gradient_of_the_norm_unless_asked_and_may_leave_the_division_out() -> None:
    x = features()
    y, norm = build('type: "Normalize" top: "y" top: "n"  normalize_param { normalize_type: "L2" }', (N, K))(x)
    assert y.shape == (N, K, 1, 1) and norm.shape == (N, 1, 1, 1) and not norm.requires_grad
    dy = torch.randn(N, K, 1, 1, dtype=DOUBLE)
    y.backward(dy)
    fixed = features()
    build('type: "Normalize" normalize_param { fix_gradient: true }', (N, K))(fixed).backward(dy)
    np.testing.assert_allclose(fixed.grad, x.grad * norm.reshape(N, 1))


@pytest.mark.parametrize(
    ("more", "fork"),
    [("", "ssd"), ("norm_param { }", "ssd"), ("normalize_param { }", "happynear"), ('top: "y" top: "n"', "happynear")],
)
def test_fields_and_tops_tell_which_normalize_is_meant(more: str, fork: str) -> None:
    assert build(f'type: "Normalize" {more}', (N, K)).fork == fork


def test_tsns_normalize_takes_whole_items() -> None:
    text = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 2 dim: 2 } } }
              layer { name: "n" type: "Normalize" bottom: "x" top: "y" }"""
    x = torch.randn(2, 3, 2, 2)
    net = Net(parse_text(text, caffe_pb2.NetParameter(fork="tsn")), "TEST")
    np.testing.assert_allclose(net(x=x)["y"], x / x.flatten(1).norm(dim=1)[:, None, None, None], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "axes"), [("", (3,)), ("flip_height: true", (2, 3)), ("flip_width: false flip_height: true", (2,))]
)
def test_flip(options: str, axes: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, 4, 5, dtype=DOUBLE)
    layer = build(f'type: "Flip" flip_param {{ {options} }}', (2, 3, 4, 5))
    assert torch.equal(layer(x), x.flip(axes))
    gl.check_gradients(layer, x)


# ---- inter-class distances


@pytest.mark.parametrize("kind", ["AMONG", "MEAN"])
def test_inter_class_pushes_the_weights_of_the_batch_apart(kind: str) -> None:
    """inter_class_layer.cpp of wy1iu/sphereface-plus, weight by weight."""
    layer = build(
        f'type: "InterClass" top: "d" top: "a" inter_class_param {{ num_output: {CLASSES} type: {kind} iteration: 5 '
        "alpha_start_iter: 6 alpha_start_value: 10 alpha_step: 0.5 alpha_stepvalue: 7 alpha_stepvalue: 9 }",
        (N, K),
        (N,),
    )
    weight = layer.weight.detach().numpy().copy()
    mean = weight.mean(0)
    mean /= np.sqrt(mean @ mean + 1e-5)
    alphas = []
    for _ in range(4):
        layer.weight.grad = None
        distance, alpha = layer(features(), labels())
        alphas.append(alpha.item())
        (0.1 * distance).backward()  # whose weight makes no difference
        want = np.zeros_like(weight)
        if kind == "AMONG":
            value = sum(((weight[i] - weight[j]) ** 2).sum() for i in range(CLASSES) for j in LABELS) / CLASSES
            for j in LABELS:
                want[j] += -4 * alphas[-1] / (N * value**2 + 1e-5) * (weight[j] - mean)
        else:
            value = 1 - sum(mean @ weight[j] for j in LABELS) / N
            for j in LABELS:
                want[j] += alphas[-1] / N * mean
        np.testing.assert_allclose(distance.item(), value)
        np.testing.assert_allclose(layer.weight.grad, want)
    assert alphas == [10, 10.5, 10.5, 11]
    layer.seek(layer.state())
    assert layer(features(), labels())[1].item() == 11
    with pytest.raises(LayerError, match=r"alpha_stepvalue: \[5\] must rise from alpha_start_iter: 6"):
        build(
            'type: "InterClass" inter_class_param { num_output: 4 alpha_start_iter: 6 alpha_stepvalue: 5 }',
            (N, K),
            (N,),
        )


def test_center_loss_needs_the_features_of_its_centers() -> None:
    with pytest.raises(LayerError, match="takes at least one feature of each item, from axis 1 on, not 4×0×5"):
        build('type: "CenterLoss" center_loss_param { num_output: 3 }', (4, 0, 5), (4,))
    with pytest.raises(LayerError, match="takes 6 features of each item, from axis 1 on, not 4×5"):
        build('type: "CenterLoss" center_loss_param { num_output: 3 }', (4, 6), (4,))(torch.ones(4, 5), torch.ones(4))
