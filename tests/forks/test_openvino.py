"""The layers of OpenVINO's training toolbox that recognise actions, against what its sources add up."""

from __future__ import annotations

import itertools
import math

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer

N, C, H, W = 2, 3, 2, 4


def build(prototxt: str, *shapes: tuple[int, ...], phase: int = 0) -> Layer:
    return gl.build(f'name: "l" {prototxt}', *shapes, dtype=torch.float64, phase=phase)


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def test_grn() -> None:
    x = randn(N, C, H, W)
    layer = build('type: "GRN" grn_param { bias: 0.25 }', (N, C, H, W))
    want = x.numpy() / np.sqrt((x.numpy() ** 2).sum(1, keepdims=True) + 0.25)
    np.testing.assert_allclose(layer(x), want, rtol=1e-12)
    gl.check_gradients(layer, x)
    straight, x = build('type: "GRN" grn_param { dummy_backward: true }', (N, C, H, W)), x.requires_grad_()
    dy = randn(N, C, H, W, seed=1)
    straight(x).backward(dy)
    assert torch.equal(x.grad, dy)
    with pytest.raises(LayerError, match="bias: -1 must not be negative"):
        build('type: "GRN" grn_param { bias: -1 }', (N, C, H, W))


def test_scale_filter() -> None:
    options, shape = "scale_filter_param { min_scale: 0.5 max_scale: 2 }", (5, 20, H, W)
    x = randn(*shape).requires_grad_()
    y = build(f'type: "ScaleFilter" {options}', *[shape])(x)
    factor = (y / x).detach()
    np.testing.assert_allclose(factor, factor[:, :, :1, :1].expand(shape), rtol=1e-12)
    assert 0.5 <= factor.min() < 0.6
    assert 1.9 < factor.max() <= 2
    y.sum().backward()
    np.testing.assert_allclose(x.grad, factor, rtol=1e-12)
    assert torch.equal(build(f'type: "ScaleFilter" {options}', *[shape], phase=1)(x), x)
    with pytest.raises(LayerError, match="min_scale: 2 must be above 0 and below max_scale: 1"):
        build('type: "ScaleFilter" scale_filter_param { min_scale: 2 max_scale: 1 }', (N, C, H, W))


def detections(*rows: tuple[int, int, int, int, int, int]) -> torch.Tensor:
    """Rows of item, anchor, track, action, x, y."""
    found = torch.full((1, 1, len(rows), 11), 0.5, dtype=torch.float64)
    for at, row in enumerate(rows):
        found[0, 0, at, [0, 6, 7, 8, 9, 10]] = torch.tensor(row, dtype=torch.float64)
        found[0, 0, at, 2:6] = torch.arange(4) + 10.0 * at
    return found


ROWS = [(0, 3, 7, 1, 3, 1), (-1, 0, 0, 0, 0, 0), (1, 0, 7, 2, 0, 0), (0, 3, 7, 0, 3, 1), (1, 1, 1, 5, 2, 0)]
EXTRACT = 'type: "AnchorEmbeddingExtractor" top: "e" top: "l" {} embedding_extractor_param {{ num_anchors: 4 {} }}'


def test_embeddings_of_detections() -> None:
    maps, found = [randn(N, C, H, W, seed=i) for i in range(4)], detections(*ROWS)
    shapes = (tuple(found.shape), *[(N, C, H, W)] * 4)
    layer = build(
        EXTRACT.format('top: "w"', "label_src_pos: 8 num_valid_actions: 5 output_instance_weights: true"), *shapes
    )
    embeddings, labels, weights = layer(found, *maps)
    want = [maps[3][0, :, 1, 3], maps[0][1, :, 0, 0], maps[3][0, :, 1, 3]]
    assert torch.equal(embeddings, torch.stack(want))
    assert labels.tolist() == [1, 2, 0]
    assert weights.tolist() == [0.5, 1, 0.5]
    plain = build(EXTRACT.format("", "label_src_pos: 8"), *shapes)
    assert torch.autograd.gradcheck(
        lambda *maps: plain(found, *maps)[0], [each.clone().requires_grad_() for each in maps]
    )
    layer = build(EXTRACT.format('top: "p"', "label_src_pos: 7 output_proposals: true"), *shapes)
    _, labels, proposals = layer(found, *maps)
    assert labels.tolist() == [7, 7, 7, 1]
    assert proposals.tolist() == [[0, 0, 1, 2, 3], [1, 20, 21, 22, 23], [0, 30, 31, 32, 33], [1, 40, 41, 42, 43]]
    none = layer(detections(ROWS[1]), *maps)
    assert [top.tolist() for top in none] == [[[0.0] * C], [-1], [[-1] * 5]]
    with pytest.raises(LayerError, match="a detection has column 4; there are 4, from 0 on"):
        layer(detections((0, 0, 0, 0, 4, 0)), *maps)


@pytest.mark.parametrize(
    ("tops", "options", "words"),
    [
        ("", "", "label_src_pos must be given, from 0 to 10"),
        ("", "label_src_pos: 8 num_anchors: 3", "num_anchors: 3 must be 4"),
        ('top: "w"', "label_src_pos: 8", "its third top needs one of"),
    ],
)
def test_embeddings_need_their_options(tops: str, options: str, words: str) -> None:
    text = EXTRACT.format(tops, options)
    with pytest.raises(LayerError, match=words):
        build(text.replace("num_anchors: 4", "") if "anchors: 3" in text else text, (1, 1, 1, 11), *[(N, C, H, W)] * 4)


def test_detections_say_where_they_are() -> None:
    anchors = 2
    priors = H * W * anchors
    layer = build(
        'type: "DetectionOutputExtended" detection_output_param { num_classes: 2 code_type: CENTER_SIZE '
        "confidence_threshold: 0.5 nms_param { nms_threshold: 1.0 } }",
        (N, H, W, anchors * 4),
        (N, priors * 2),
        (1, 2, priors * 4),
        phase=1,
    )
    prior = torch.tensor([0.1, 0.2, 0.3, 0.6, *[0.1] * 4]).double().view(2, 1, 4).expand(2, priors, 4).reshape(1, 2, -1)
    scores = torch.zeros(N, H, W, anchors, 2).double()
    scores[0, 1, 3, 0, 1], scores[1, 0, 2, 1, 1], scores[1, 1, 0, 0, 1] = 0.9, 0.6, 0.7
    (found,) = layer(torch.zeros(N, H, W, anchors * 4).double(), scores.reshape(N, -1), prior)[0]
    heads, boxes, places = found.split([3, 4, 3], 1)
    np.testing.assert_allclose(heads, [[0, 1, 0.9], [1, 1, 0.7], [1, 1, 0.6]])
    np.testing.assert_allclose(boxes, [[0.1, 0.2, 0.3, 0.6]] * 3)
    assert places.tolist() == [[0, 3, 1], [0, 0, 1], [1, 2, 0]]
    none = layer(torch.zeros(N, H, W, anchors * 4).double(), scores.reshape(N, -1) * 0, prior)
    assert none.tolist() == [[[[i, *[-1] * 9] for i in range(N)]]]


def adaptive_loss(x, label, weight, options, smoothed):
    """Forward_cpu and Backward_cpu of softmax_loss_layer.cpp: the loss, its gradient, frequencies and weights."""
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    values, valid, counts = np.zeros(label.shape), np.zeros(label.shape), np.zeros(C)
    for place in itertools.product(*map(range, label.shape)):
        at = (place[0], slice(None), *place[1:])
        if (k := label[place]) != 1:
            value = -math.log(p[at][k]) + options["entropy"] * (np.log(p[at]) * p[at]).sum()
            if value > 0:
                values[place], valid[place] = value, 1
                counts[k] += 1
    counts /= valid.sum()
    for k in range(C):
        smoothed[k] = 0.75 * smoothed[k] + 0.25 * counts[k] if smoothed[k] > 0 else counts[k]
    mean = smoothed[smoothed > 0].sum() / C
    weights = np.array([min(max(mean / s if s > 0 else 0, 0.125), options["most"]) * 2 for s in smoothed])
    by_place = weight * valid * weights[label]
    divisor = max(1, int((weight * valid).sum()))
    dx = p.copy()
    for place in itertools.product(*map(range, label.shape)):
        at = (place[0], slice(None), *place[1:])
        dx[at] *= 1 + options["entropy"] * (-(np.log(p[at]) * p[at]).sum() + np.log(p[at]))
        dx[at][label[place]] -= 1
        dx[at] *= by_place[place]
    return (values * by_place).sum() / divisor, dx / divisor, smoothed, weights


@pytest.mark.parametrize("weighted", [False, True])
def test_adaptive_softmax_loss(weighted: bool) -> None:
    options = {"entropy": 0.5, "most": 1.25}
    tops = "".join(f'top: "{i}" ' for i in range(1 + 2 * C))
    label = np.random.default_rng(3).integers(0, C, (N, H, W))
    shapes = [(N, C, H, W), (N, H, W)] + [(N, H, W)] * weighted
    layer = build(
        f'type: "SoftmaxWithLoss" {tops} loss_param {{ ignore_label: 1 adaptive_weighting: true gamma: 0.75 scale: 2 '
        "min_weight: 0.125 max_weight: 1.25 max_entropy_weight: 0.5 }",
        *shapes,
    )
    assert layer.fork == "openvino"
    assert gl.meta_shapes(layer, shapes) == [()] * (1 + 2 * C)
    weight = np.abs(randn(N, H, W, seed=4).numpy()) if weighted else np.ones((N, H, W))
    smoothed = np.full(C, -1.0)
    for run in range(3):
        x = (3 * randn(N, C, H, W, seed=run)).requires_grad_()
        loss, dx, smoothed, weights = adaptive_loss(x.detach().numpy(), label, weight, options, smoothed)
        have, *shown = layer(x, torch.from_numpy(label).double(), *[torch.from_numpy(weight)] * weighted)
        np.testing.assert_allclose(have.item(), loss, rtol=1e-6)
        np.testing.assert_allclose([top.item() for top in shown], np.stack([smoothed, weights], 1).ravel(), rtol=1e-6)
        have.backward()
        np.testing.assert_allclose(x.grad, dx, rtol=1e-5, atol=1e-9)


def test_entropy_alone_leaves_out_places_without_loss() -> None:
    layer = build('type: "SoftmaxWithLoss" loss_param { max_entropy_weight: 4 }', (2, C), (2,))
    x = torch.tensor([[0.0, 0, 0], [9, 0, 0]]).double()
    p = torch.softmax(x, 1)
    entropy = 4 * (p * p.log()).sum(1)
    kept = [v for v in (-p[:, 0].log() + entropy).tolist() if v > 0]
    assert len(kept) < 2
    assert layer(x, torch.zeros(2).double()).item() == pytest.approx(sum(kept))
    for wrong, words in (
        ("gamma: 0", "gamma: 0 must be above 0"),
        ("scale: 0", "scale: 0 must be above 0"),
        ("min_weight: 2 max_weight: 1", "min_weight: 2 must not be negative, and below max_weight: 1"),
    ):
        with pytest.raises(LayerError, match=words):
            build(f'type: "SoftmaxWithLoss" loss_param {{ adaptive_weighting: true {wrong} }}', (2, C), (2,))


def test_parameter_has_a_filler() -> None:
    layer = build('type: "Parameter" parameter_param { shape { dim: 3 dim: 2 } filler { value: 4 } }')
    assert layer.blob_specs[0].filler.value == 4


def test_inner_product_with_given_weights() -> None:
    x, weight = randn(2, 3, 4), randn(5, 4, seed=1)
    layer = build(
        'type: "InnerProduct" inner_product_param { axis: 2 normalize: false bias_term: false }', (2, 3, 4), (5, 4)
    )
    assert not layer.blobs
    torch.testing.assert_close(layer(x, weight), x @ weight.T)
