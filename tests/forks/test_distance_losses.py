"""happynear's losses of distances, GlobalLSEMargin and Local."""

from __future__ import annotations

import math

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

N, CLASSES = 5, 4
LABELS = [2, 0, 3, 0, 1]
DOUBLE = torch.float64


def build(prototxt: str, *shapes: tuple[int, ...], tops: int = 1) -> Layer:
    named = " ".join(f'top: "t{i}"' for i in range(tops))
    return gl.build(f'name: "l" {named} {prototxt}', *(shapes or ((N, CLASSES), (N,))), dtype=DOUBLE)


def distances(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0, 2, (N, CLASSES))).requires_grad_()


def contrastive(d: np.ndarray, o: dict[str, float], average: float) -> tuple[float, np.ndarray, list[float]]:
    """Forward_cpu and Backward_cpu of general_constrastive_loss_layer.cpp as loops: loss, gradient, mean distances."""
    diff, grad = np.zeros_like(d), np.zeros_like(d)
    margin = o["negative_margin"] + (average if o["add_intra_mae"] else 0)
    far = close = 0.0
    hardest, least = [0] * N, 0
    for i, label in enumerate(LABELS):
        for j in range(CLASSES):
            if j == label:
                value = min(o["positive_outlier_thresh"], max(0, d[i, j] - o["positive_margin"]))
                diff[i, j] = value * o["positive_weight"]
                close += value
                if diff[i, j] < diff[least, LABELS[least]]:
                    least = i
            elif d[i, j] < margin:
                value = math.exp(-d[i, j]) if o["exp_negative_weight"] else margin - d[i, j]
                diff[i, j] = value * o["negative_weight"]
                far += margin - d[i, j]
                if diff[i, j] > diff[i, hardest[i]]:
                    hardest[i] = j
    total = 0.0
    for i, label in enumerate(LABELS):
        waits = o["positive_first"] and d[i, label] > o["positive_upper_bound"]
        for j in range(CLASSES):
            if j == label:
                if not o["max_positive_only"] or i == least:
                    total += abs(diff[i, j])
                inside = o["positive_margin"] < d[i, j] < o["positive_outlier_thresh"]
                if waits or (inside and not (o["max_positive_only"] and i != least)):
                    grad[i, j] = o["positive_weight"]
            elif not waits and not (o["max_negative_only"] and j != hardest[i]):
                total += abs(diff[i, j])
                if d[i, j] < margin:
                    grad[i, j] = -o["negative_weight"] * (math.exp(-d[i, j]) if o["exp_negative_weight"] else 1)
    others = np.ones_like(d, dtype=bool)
    others[range(N), LABELS] = False
    if o["normalize_negative"]:
        size = abs(grad[others].sum()) / o["normalize_negative"] / N
        if size > o["positive_weight"]:
            grad[others] /= size
    average = min(0.99 * average + 0.01 * close / N, o["max_negative_margin"])
    means = [close / N, far / N / (CLASSES - 1), *([average] if o["add_intra_mae"] else [])]
    return total / N, grad / N, means


DEFAULTS = {
    "positive_margin": 0.0,
    "negative_margin": 1.0,
    "positive_weight": 1.0,
    "negative_weight": 1.0,
    "normalize_negative": 0.0,
    "positive_outlier_thresh": 4.0,
    "max_negative_only": False,
    "max_positive_only": False,
    "positive_first": False,
    "positive_upper_bound": 1.0,
    "exp_negative_weight": False,
    "add_intra_mae": False,
    "max_negative_margin": 1.2,
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"positive_margin": 0.5, "positive_outlier_thresh": 1.25, "positive_weight": 2.0, "negative_weight": 0.5},
        {"max_negative_only": True, "negative_margin": 1.5},
        {"max_positive_only": True, "exp_negative_weight": True},
        {"positive_first": True, "positive_upper_bound": 0.75},
        {"normalize_negative": 0.125, "positive_weight": 0.5},
        {"add_intra_mae": True, "max_negative_margin": 0.015625},
    ],
)
def test_general_contrastive_loss(options: dict[str, float]) -> None:
    given = " ".join(f"{name}: {str(value).lower()}" for name, value in options.items())
    layer = build(f'type: "GeneralContrastiveLoss" general_contrastive_loss_param {{ {given} }}', tops=2)
    average = 0.0
    for seed in range(3):
        d = distances(seed)
        loss, means = layer(d, torch.tensor(LABELS))
        (2 * loss).backward()
        want, grad, wanted = contrastive(d.detach().numpy(), {**DEFAULTS, **options}, average)
        average = wanted[2] if len(wanted) == 3 else 0
        np.testing.assert_allclose(loss.item(), want)
        np.testing.assert_allclose(d.grad, 2 * grad)
        np.testing.assert_allclose(means, wanted)
    layer.seek(layer.state())


def test_general_contrastive_loss_of_other_distances() -> None:
    layer = build('type: "GeneralContrastiveLoss"', (N, CLASSES), (N,), (N, CLASSES))
    x, d = distances(1), distances(2)
    loss = layer(x, torch.tensor(LABELS), d)
    loss.backward()
    want, grad, _ = contrastive(d.detach().numpy(), DEFAULTS, 0)
    np.testing.assert_allclose(loss.item(), want)
    np.testing.assert_allclose(x.grad, grad)
    assert d.grad is None


@pytest.mark.parametrize("hardest", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("centers", [False, True])
def test_general_triplet_loss(hardest: bool, first: bool, centers: bool) -> None:
    """Forward_cpu and Backward_cpu of general_triplet_loss_layer.cpp, as loops."""
    flags = f"hardest_only: {hardest} positive_first: {first} add_center_loss: {centers}".lower()
    options = f"margin: 0.25 positive_weight: 1.5 negative_weight: 0.5 positive_upper_bound: 1.25 {flags}"
    layer = build(f'type: "GeneralTripletLoss" general_triplet_loss_param {{ {options} }}', tops=2)
    x = distances(4)
    loss, means = layer(x, torch.tensor(LABELS))
    loss.backward()
    d, grad, total = x.detach().numpy(), np.zeros((N, CLASSES)), 0.0
    for i, label in enumerate(LABELS):
        if first and d[i, label] > 1.25:
            grad[i, label] = 1.5
            continue
        terms = {j: (d[i, label] + 0.25 - d[i, j]) * 0.5 for j in range(CLASSES) if j != label}
        terms = {j: value for j, value in terms.items() if value > 0}
        if hardest and terms:
            worst = max(terms, key=terms.__getitem__)
            terms = {worst: terms[worst]}
        for j, value in terms.items():
            total += value
            grad[i, j] = -0.5
        if centers or terms:
            grad[i, label] = 1.5
    np.testing.assert_allclose(loss.item(), total / N)
    np.testing.assert_allclose(x.grad, grad / N)
    own = d[range(N), LABELS]
    np.testing.assert_allclose(means, [own.mean(), (d.sum() - own.sum()) / N / (CLASSES - 1)])


def test_confidence_penalty_loss() -> None:
    """Forward_cpu of confidence_penalty_loss_layer.cpp, which divides by one less than the number of items."""
    layer = build('type: "ConfidencePenaltyLoss" confidence_penalty_loss_param { beta: 0.25 }')
    p = torch.softmax(distances().detach(), 1)
    want = 0.0
    for i, label in enumerate(LABELS):
        for j in range(CLASSES):
            want -= (0.75 if j == label else 0.25 / (N - 1)) * math.log(p[i, j]) / N
    np.testing.assert_allclose(layer(p, torch.tensor(LABELS)).item(), want)
    gl.check_gradients(layer, p, torch.tensor(LABELS))


def test_what_losses_of_distances_cannot_take() -> None:
    with pytest.raises(LayerError, match="to two classes at least and N labels, not 5×1 and 5"):
        build('type: "GeneralTripletLoss"', (N, 1), (N,))
    with pytest.raises(LayerError, match="normalize_negative: 0 must be above 0"):
        build('type: "GeneralContrastiveLoss" general_contrastive_loss_param { normalize_negative: 0 }')
    with pytest.raises(LayerError, match="of two items at least, not 1×4"):
        build('type: "ConfidencePenaltyLoss"', (1, CLASSES), (1,))
    with pytest.raises(LayerError, match="label 2 at index 0 is not a class"):
        build('type: "GeneralTripletLoss"', (N, 2), (N,))(torch.zeros(N, 2, dtype=DOUBLE), torch.tensor(LABELS))


def test_distances_that_are_no_numbers_point_at_no_class_beyond() -> None:
    """On a GPU an index beyond the classes would end the process."""
    layer = build('type: "GeneralTripletLoss" general_triplet_loss_param { hardest_only: true }')
    layer(torch.full((N, CLASSES), torch.nan, dtype=DOUBLE), torch.tensor(LABELS))


# ---- losses of exponentials, and of pairs of a batch


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
def test_soft_contrastive_loss(square: bool, weighed: bool) -> None:
    """Forward_cpu and Backward_cpu of soft_contrastive_loss_layer.cpp, as loops; the last item has no one near."""
    options = f"positive_margin: 0.5 negative_margin: 1.25 positive_weight: 1.5 negative_weight: 0.75 square: {square}"
    outlier = "general_contrastive_loss_param { positive_outlier_thresh: 1.25 }"
    layer = build(
        f'type: "SoftContrastiveLoss" soft_contrastive_loss_param {{ {options.lower()} }} {outlier}',
        *((N, CLASSES), (N,), (N,))[: 2 + weighed],
        tops=2,
    )
    x, weight = distances(5), torch.linspace(0.5, 2, N, dtype=DOUBLE)
    x.data[N - 1] += 2
    loss, means = layer(x, torch.tensor(LABELS), *([weight] if weighed else []))
    (3 * loss).backward()
    d, grad, total, close, far = x.detach().numpy(), np.zeros((N, CLASSES)), 0.0, 0.0, 0.0
    for i, label in enumerate(LABELS):
        near = min(1.25, max(0, d[i, label] - 0.5))
        close += near
        total += 1.5 * (near**2 if square else near)
        if 0.5 < d[i, label] < 1.25:
            grad[i, label] = 1.5 * (d[i, label] if square else 1)
        under = {j: 1.25 - d[i, j] for j in range(CLASSES) if j != label and d[i, j] < 1.25}
        powers = {j: math.exp(0.75 * (gap**2 if square else gap)) for j, gap in under.items()}
        far += sum(under.values())
        total += math.log(sum(powers.values())) if powers else 0
        for j, gap in under.items():
            grad[i, j] = -0.75 * powers[j] / sum(powers.values()) * (gap if square else 1)
    if weighed:
        grad *= (weight / weight.mean()).numpy()[:, None]
    np.testing.assert_allclose(loss.item(), total / N)
    np.testing.assert_allclose(x.grad, 3 * grad / N)
    np.testing.assert_allclose(means, [close / N, far / N / (CLASSES - 1)])


@pytest.mark.parametrize("nearest", [False, True])
def test_nca_loss(nearest: bool) -> None:
    """Forward_cpu and Backward_cpu of nca_loss_layer.cpp, as loops."""
    layer = build(f'type: "NCALoss" nca_param {{ min_negative_only: {str(nearest).lower()} }}', tops=2)
    x = distances(6)
    x.data[1, 0] = 0.0  # the own class of this item is the first and the nearest
    loss, means = layer(x, torch.tensor(LABELS))
    loss.backward()
    d, grad, total = x.detach().numpy(), np.zeros((N, CLASSES)), 0.0
    for i, label in enumerate(LABELS):
        total += d[i, label]
        grad[i, label] = 1
        least = 0
        for j in range(CLASSES):
            if j != label and d[i, j] < d[i, least]:
                least = j
        for j in [least] if nearest else [j for j in range(CLASSES) if j != label]:
            total += math.exp(-d[i, j])
            grad[i, j] = -math.exp(-d[i, j])
    np.testing.assert_allclose(loss.item(), total / N)
    np.testing.assert_allclose(x.grad, grad / N)
    own = d[range(N), LABELS]
    np.testing.assert_allclose(means, [own.mean(), (d.sum() - own.sum()) / N / (CLASSES - 1)])


@pytest.mark.parametrize("max_only", [False, True])
@pytest.mark.parametrize("margins", [(0.5, 1.25), (5, 0)])
def test_batch_contrastive_loss(max_only: bool, margins: tuple[float, float]) -> None:
    """Forward_cpu and Backward_cpu of batch_contrastive_loss_layer.cpp, as loops; no pair is beyond the second margins."""
    options = f"positive_margin: {margins[0]} negative_margin: {margins[1]} positive_weight: 1.5 negative_weight: 0.75"
    flag = f"max_only: {str(max_only).lower()}"
    layer = build(
        f'type: "BatchContrastiveLoss" batch_contrastive_loss_param {{ {options} {flag} }}', (6, 6), (6,), tops=2
    )
    x = torch.from_numpy(np.random.default_rng(7).uniform(0.25, 2, (6, 6))).requires_grad_()
    labels = [0, 1, 0, 1, 2, 0]
    loss, means = layer(x, torch.tensor(labels))
    (2 * loss).backward()
    d, grad = x.detach().numpy(), np.zeros((6, 6))
    kinds: dict[bool, list[float]] = {True: [], False: []}
    terms: dict[bool, dict[tuple[int, int], float]] = {True: {}, False: {}}
    for i in range(6):
        for j in range(i + 1, 6):
            same = labels[i] == labels[j]
            kinds[same].append(d[i, j])
            over = d[i, j] - margins[0] if same else margins[1] - d[i, j]
            if over > 0:
                terms[same][i, j] = over * (1.5 if same else 0.75)
    if max_only:
        terms = {same: {max(t, key=t.__getitem__): max(t.values())} if t else {} for same, t in terms.items()}
    for same, found in terms.items():
        for place in found:
            grad[place] = (1.5 if same else -0.75) / (2 if max_only else 6)
    total = sum(sum(found.values()) for found in terms.values())
    np.testing.assert_allclose(loss.item(), total / (1 if max_only else 15))
    np.testing.assert_allclose(x.grad, 2 * grad)
    np.testing.assert_allclose(means, [np.mean(kinds[True]), np.mean(kinds[False])])


def test_what_losses_of_pairs_and_exponentials_cannot_take() -> None:
    with pytest.raises(
        LayerError, match="takes the distances N×N of N items, two at least, and N labels, not 5×4 and 5"
    ):
        build('type: "BatchContrastiveLoss"')
    with pytest.raises(LayerError, match="takes a weight for each of 5 items, not 4"):
        build('type: "NCALoss"', (N, CLASSES), (N,), (4,))


# ---- GlobalLSEMargin


def shift(margins: list[float], mean: float, loops: int) -> float:
    """MeanShift of global_lse_margin_layer.cu."""
    last = mean
    while loops:
        loops -= 1
        near = [m for m in margins if abs(m - mean) < 0.1]
        if not near:
            mean = last = sum(margins) / len(margins)
            loops += 1
            continue
        mean = sum(near) / len(near)
        if abs(last - mean) < 0.001:
            break
        last = mean
    return mean


@pytest.mark.parametrize("given", [False, True])
def test_global_margin(given: bool) -> None:
    """Forward_gpu of global_lse_margin_layer.cu; the gradients are the true ones for a margin that stands."""
    shapes = ((N, CLASSES), (N,), (N, 1))[: 2 + given]
    layer = build('type: "GlobalLSEMargin" scale_param { filler { value: 90 } max_value: 12 }', *shapes, tops=2)
    rng = np.random.default_rng(3)
    margin = 0.0
    for _ in range(3):
        cos = rng.uniform(-0.2, 0.2, (N, CLASSES))
        cos[range(N), LABELS] += 0.5
        scales = rng.uniform(5, 9, (N, 1)) if given else np.full((N, 1), 12.0)
        bottoms = [torch.tensor(cos), torch.tensor(LABELS), *([torch.tensor(scales)] if given else [])]
        y, statistics = layer(*bottoms)
        own = np.zeros((N, CLASSES), dtype=bool)
        own[range(N), LABELS] = True
        sums = np.log(np.where(own, 0, np.exp(scales * cos)).sum(1)) / scales[:, 0]
        target = cos[own]
        margins = (cos[range(N), LABELS] - sums).tolist()
        if margin:
            margin = 0.9 * margin + 0.1 * shift(margins, margin, 1)
        else:
            margin = shift(margins, sum(margins) / N, 20)
        np.testing.assert_allclose(y.detach(), scales * (cos - margin * own), rtol=1e-6)
        largest = np.where(own, -1, cos).max(1).mean()
        want = [scales.mean(), target.mean(), sums.mean(), largest, margin]
        np.testing.assert_allclose(statistics, want, rtol=1e-6)
    assert layer.blob(1).item() > 0 and layer.blob_specs[0].trainable is not given


def test_the_gradients_of_a_global_margin() -> None:
    layer = build('type: "GlobalLSEMargin"', (N, CLASSES), (N,))
    x, label = torch.rand(N, CLASSES, dtype=DOUBLE, requires_grad=True), torch.tensor(LABELS)
    scale = torch.nn.Parameter(layer.blob(0).detach().clone())
    layer.set_blob(0, scale)
    y = layer(x, label)
    seed = torch.randn(N, CLASSES, dtype=DOUBLE)
    y.backward(seed)
    torch.testing.assert_close(x.grad, 30 * seed)
    torch.testing.assert_close(scale.grad, (seed * y.detach()).sum()[None] / 30)


def test_a_global_margin_learns_its_scale_without_decay() -> None:
    net = Net(
        parse_text(
            """layer { name: "i" type: "Input" top: "x" top: "l" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
            layer { name: "m" type: "GlobalLSEMargin" bottom: "x" bottom: "l" top: "y" }""",
            caffe_pb2.NetParameter,
        ),
        "TRAIN",
    )
    rates = [(each.lr_mult, each.decay_mult) for each in net.learnable if each.tensor.requires_grad]
    assert rates == [(1, 0)]
    with pytest.raises(LayerError, match="takes a scale for each of 5 items, not 4"):
        build('type: "GlobalLSEMargin"', (N, CLASSES), (N,), (4,))


# ---- Local


@pytest.mark.parametrize("bias", [True, False])
def test_filters_of_each_place(bias: bool) -> None:
    options = f"num_output: 2 kernel_size: 3 stride: 2 pad: 1 bias_term: {str(bias).lower()}"
    layer = build(
        f'type: "Local" local_param {{ {options} weight_filler {{ type: "gaussian" std: 1 }} }}', (2, 3, 5, 4)
    )
    assert layer.blob(0).shape == (2, 1, 27, 6)
    if bias:
        layer.blob(1).data.normal_()
    x = torch.randn(2, 3, 5, 4, dtype=DOUBLE)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    weight = layer.blob(0).detach().numpy()
    want = np.zeros((2, 2, 3, 2))
    for row in range(3):
        for column in range(2):
            window = padded[:, :, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3].reshape(2, 27)
            want[:, :, row, column] = window @ weight[:, 0, :, 2 * row + column].T
    if bias:
        want += layer.blob(1).detach().numpy().reshape(1, 2, 3, 2)
    np.testing.assert_allclose(layer(x).detach(), want)
    gl.check_gradients(layer, x)


def test_what_filters_of_each_place_cannot_take() -> None:
    with pytest.raises(LayerError, match=r"local_param\.num_output: 0 must be at least 1"):
        build('type: "Local" local_param { kernel_size: 3 }', (1, 1, 4, 4))
    with pytest.raises(LayerError, match="kernel_size: 5 is more than the planes have: 4×4"):
        build('type: "Local" local_param { kernel_size: 5 num_output: 1 }', (1, 1, 4, 4))
    layer = build('type: "Local" local_param { kernel_size: 3 num_output: 1 }', (1, 1, 4, 4))
    with pytest.raises(LayerError, match="has filters for 2×2 places, not for planes 1×1×6×6"):
        layer(torch.zeros(1, 1, 6, 6, dtype=DOUBLE))


def test_the_class_of_the_least_distance_can_be_the_right_one() -> None:
    x = torch.tensor([[0.3, 0.1, 0.2], [0.5, 0.6, 0.4], [0.1, 0.7, 0.9], [0.2, 0.2, 0.3]], dtype=DOUBLE)
    label = torch.tensor([1, 0, 2, 1])
    layer = build('type: "Accuracy" accuracy_param { min_is_better: true }', (4, 3), (4,))
    assert layer(x, label).item() == 0.25  # of equal distances none is the least
    layer = build('type: "Accuracy" accuracy_param { min_is_better: true top_k: 2 }', (4, 3), (4,))
    assert layer(x, label).item() == 0.75
