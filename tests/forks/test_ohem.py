"""R-FCN's losses and choice for online hard example mining, against loops over regions as in its sources."""

from typing import Any

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

draw = np.random.default_rng(2)


def build(type_name: str, options: str, tops: int, *shapes: tuple[int, ...]) -> Layer:
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    return gl.build(f'name: "l" type: "{type_name}" {names} {options}', *shapes)


def tensors(*arrays: Any) -> list[torch.Tensor]:
    return [torch.tensor(np.asarray(array, np.float32)) for array in arrays]


def test_softmax_loss_with_three_tops_is_r_fcns() -> None:
    x, label = torch.randn(4, 3), torch.tensor([2.0, 0, 1, 1])
    layer, plain = (build(name, "", 3, (4, 3), (4,)) for name in ("SoftmaxWithLoss", "SoftmaxWithLossOHEM"))
    for have, want in zip(layer(x, label), plain(x, label), strict=True):
        assert torch.equal(have, want)


@pytest.mark.parametrize(
    ("options", "divisor"),
    [
        ("loss_param { ignore_label: -1 }", 3),
        ("loss_param { ignore_label: -1 normalization: FULL }", 4),
        ("loss_param { ignore_label: -1 normalization: PRE_FIXED pre_fixed_normalizer: 8 }", 8),
        ("loss_param { ignore_label: -1 normalization: PRE_FIXED pre_fixed_normalizer: 0.5 }", 1),
        ("loss_param { ignore_label: -1 normalization: NONE }", 1),
    ],
)
def test_softmax_loss_gives_the_loss_of_each_region(options: str, divisor: float) -> None:
    x, label = draw.standard_normal((4, 3)), np.array([2, -1, 0, 1]).reshape(4, 1, 1, 1)
    layer = build("SoftmaxWithLossOHEM", options, 3, (4, 3), (4, 1, 1, 1))
    scores, labels = tensors(x, label)
    loss, prob, each = layer(scores.requires_grad_(), labels)
    want = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    losses = [0 if k < 0 else -np.log(p[k]) for p, k in zip(want, label.flatten(), strict=True)]
    assert each.shape == (4, 1, 1, 1) and not each.requires_grad and not prob.requires_grad
    np.testing.assert_allclose(each.flatten().numpy(), losses, rtol=1e-5)
    np.testing.assert_allclose(prob.numpy(), want, rtol=1e-5)
    assert loss.item() == pytest.approx(sum(losses) / divisor, rel=1e-5)
    gl.check_gradients(build("SoftmaxWithLossOHEM", options, 1, (4, 3), (4,)), torch.from_numpy(x), labels.long())


@pytest.mark.parametrize("normalization", ["VALID", "BATCH_SIZE", "PRE_FIXED pre_fixed_normalizer: 3"])
def test_smooth_l1_loss_leaves_weights_out_of_the_gradient(normalization: str) -> None:
    a, b, w = 2 * draw.standard_normal((3, 2, 4, 4, 2))  # d on both sides of 1
    layer = build("SmoothL1LossOHEM", f"loss_param {{ normalization: {normalization} }}", 2, *[a.shape] * 3)
    first, second, weights = tensors(a, b, w)
    loss, each = layer(first.requires_grad_(), second.requires_grad_(), weights)
    loss.backward()
    d = w * (a - b)
    errors = np.where(abs(d) < 1, 0.5 * d * d, abs(d) - 0.5)
    divisor = {"VALID": 16, "BATCH_SIZE": 2}.get(normalization, 3)
    assert loss.item() == pytest.approx(errors.sum() / divisor, rel=1e-5)
    np.testing.assert_allclose(each.numpy(), errors.sum(1, keepdims=True), rtol=1e-4)
    np.testing.assert_allclose(first.grad.numpy(), d.clip(-1, 1) / divisor, rtol=1e-4, atol=1e-6)
    assert torch.equal(second.grad, -first.grad)


def annotate(rois: np.ndarray, losses: np.ndarray, kept: int) -> np.ndarray:
    """Which regions BoxAnnotatorOHEMLayer::Forward_gpu of box_annotator_ohem_layer.cu keeps."""
    left, keep = {}, np.zeros(len(losses), bool)
    for index in np.argsort(-losses, kind="stable"):
        image = int(rois[index, 0])
        keep[index] = left.setdefault(image, kept) > 0
        left[image] -= 1
    return keep


@pytest.mark.parametrize("kept", [1, 3, 20])
def test_the_worst_regions_of_each_image_keep_labels_and_weights(kept: int) -> None:
    rois = np.concatenate((draw.integers(0, 3, (12, 1)), draw.uniform(0, 9, (12, 4))), 1)
    losses, labels, weights = draw.integers(0, 4, 12) / 4, draw.integers(1, 9, 12), draw.uniform(1, 2, (12, 8))
    options = f"box_annotator_ohem_param {{ roi_per_img: {kept} ignore_label: -2 }}"
    layer = build("BoxAnnotatorOHEM", options, 2, (12, 5), (12,), (12,), (12, 8))
    kept_labels, kept_weights = layer(*tensors(rois, losses, labels, weights))
    keep = annotate(rois, losses, kept)
    assert kept_labels.shape == (12, 1, 1, 1) and kept_weights.shape == (12, 8, 1, 1)
    np.testing.assert_array_equal(kept_labels.flatten().numpy(), np.where(keep, labels, -2))
    np.testing.assert_allclose(kept_weights.reshape(12, 8).numpy(), np.where(keep[:, None], weights, 0), rtol=1e-6)


RFCN_HEAD = """
input: "scores" input_shape { dim: 6 dim: 3 } input: "labels" input_shape { dim: 6 dim: 1 dim: 1 dim: 1 }
input: "boxes" input_shape { dim: 6 dim: 8 dim: 1 dim: 1 } input: "targets" input_shape { dim: 6 dim: 8 dim: 1 dim: 1 }
input: "inside" input_shape { dim: 6 dim: 8 dim: 1 dim: 1 } input: "rois" input_shape { dim: 6 dim: 5 }
layer { name: "c" type: "SoftmaxWithLossOHEM" bottom: "scores" bottom: "labels" top: "cl" top: "cp" top: "each_c"
  loss_weight: 0 loss_weight: 0 loss_weight: 0 propagate_down: false propagate_down: false }
layer { name: "b" type: "SmoothL1LossOHEM" bottom: "boxes" bottom: "targets" bottom: "inside" top: "bl" top: "each_b"
  loss_weight: 0 loss_weight: 0 propagate_down: false propagate_down: false propagate_down: false }
layer { name: "e" type: "Eltwise" bottom: "each_c" bottom: "each_b" top: "each" propagate_down: false propagate_down: false }
layer { name: "a" type: "BoxAnnotatorOHEM" bottom: "rois" bottom: "each" bottom: "labels" bottom: "inside"
  top: "hard" top: "weights" propagate_down: false propagate_down: false propagate_down: false propagate_down: false
  box_annotator_ohem_param { roi_per_img: 2 ignore_label: -1 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "hard" top: "loss"
  loss_param { ignore_label: -1 normalization: PRE_FIXED pre_fixed_normalizer: 2 } }
layer { name: "loss_b" type: "SmoothL1LossOHEM" bottom: "boxes" bottom: "targets" bottom: "weights" top: "loss_b"
  loss_weight: 1 loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 2 } }
layer { name: "s" type: "Silence" bottom: "cl" bottom: "cp" bottom: "bl" }
"""


def test_the_head_of_rfcn_trains_on_the_worst_regions() -> None:
    net = Net(parse_text(RFCN_HEAD, caffe_pb2.NetParameter()), "TRAIN", file="rfcn.prototxt")
    scores = torch.zeros(6, 3)
    scores[[1, 4]] = torch.tensor([-5.0, 5.0, 0.0])  # the worst two, as all labels are 0
    batch = {"scores": scores, "labels": torch.zeros(6, 1, 1, 1), "rois": torch.zeros(6, 5)}
    batch |= {name: torch.zeros(6, 8, 1, 1) for name in ("boxes", "targets", "inside")}
    scores.requires_grad_()
    outputs = net(**batch)
    outputs["loss"].backward()
    assert scores.grad.abs().sum(1).nonzero().flatten().tolist() == [1, 4]
    assert outputs["loss"].item() == pytest.approx(10.00676, rel=1e-4)


@pytest.mark.parametrize(
    ("type_name", "options", "shapes", "words"),
    [
        (
            "BoxAnnotatorOHEM",
            "",
            ((2, 5), (2,), (2,), (2, 8)),
            "needs box_annotator_ohem_param.roi_per_img, at least 1",
        ),
        (
            "BoxAnnotatorOHEM",
            "box_annotator_ohem_param { roi_per_img: 1 }",
            ((2, 5), (3,), (2,), (2, 8)),
            "needs regions N×5, .* not 2×5, 3, 2, 2×8",
        ),
        ("SmoothL1LossOHEM", "", ((2, 4), (2, 8)), "its bottoms must have one shape, not 2×4 and 2×8"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(type_name: str, options: str, shapes: tuple[Any, ...], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "l" type: "{type_name}" {options}', *shapes)
