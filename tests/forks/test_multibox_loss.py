"""MultiBoxLoss against SSD's own numbers, and where there are none against its formulas and RefineDet's."""

import golden_layer as gl
import numpy as np
import pytest
import torch
from multibox_reference import multibox_loss

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import layer_class
from pycaffe_compat.proto import caffe_pb2

IMAGES, PLACES, CLASSES = 3, 40, 4


def prototxt(options: str, more: str = "") -> str:
    return f'name: "loss" type: "MultiBoxLoss" {more} multibox_loss_param {{ {options} }}'


def bottoms(kinds: int = 1, classes: int = CLASSES, truths: int = 7, seed: int = 0) -> list[torch.Tensor]:
    """Codes, scores, priors and labels: several true boxes near one prior, a row of image -1, an image without truth."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    corner = rand(PLACES, 2) * 0.9 - 0.1
    priors = torch.cat((corner, corner + 0.1 + 0.4 * rand(PLACES, 2)), 1)
    variances = torch.tensor([0.1, 0.1, 0.2, 0.3], dtype=torch.float64).expand(PLACES, 4)
    near = priors[torch.randperm(PLACES, generator=generator)[torch.arange(truths) % 4]] + 0.05 * rand(truths, 4)
    label = torch.cat(
        (torch.arange(truths)[:, None] % (IMAGES - 1), torch.randint(1, 4, (truths, 1), generator=generator)), 1
    )
    label = torch.cat((label, torch.zeros(truths, 1), near, torch.arange(truths)[:, None] % 3 == 0), 1)
    label[2, :2] = torch.tensor([-1, 0])
    loc = rand(IMAGES, PLACES * kinds * 4) * 2 - 1
    conf = rand(IMAGES, PLACES * classes) * 4 - 2
    return [loc, conf, torch.stack((priors, variances)).reshape(1, 2, -1), label.reshape(1, 1, truths, 8)]


def with_refinement(classes: int = CLASSES) -> list[torch.Tensor]:
    """RefineDet's further bottoms: scores of priors, and codes that move them."""
    generator = torch.Generator().manual_seed(5)
    scores = torch.rand(IMAGES, PLACES, 2, generator=generator, dtype=torch.float64).softmax(2)
    moves = torch.rand(IMAGES, PLACES * 4, generator=generator, dtype=torch.float64) - 0.5
    return [*bottoms(classes=classes), scores.flatten(1), moves]


def build(options: str, blobs: list[torch.Tensor], more: str = "") -> gl.Layer:
    return gl.build(prototxt(options, more), *(blob.shape for blob in blobs))


@pytest.mark.parametrize("name", gl.names("multibox_", folder="forks"))
def test_it_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


@pytest.mark.parametrize(
    "options",
    [
        "ignore_cross_boundary_bbox: true",
        "ignore_cross_boundary_bbox: true mining_type: NONE",
        "ignore_cross_boundary_bbox: true mining_type: HARD_EXAMPLE sample_size: 20",
        "share_location: false mining_type: NONE use_prior_for_matching: false",
        "share_location: false mining_type: NONE use_prior_for_matching: false conf_loss_type: LOGISTIC",
        "share_location: false mining_type: NONE code_type: CORNER_SIZE use_difficult_gt: false",
        "use_prior_for_matching: false bp_inside: true encode_variance_in_target: true code_type: CENTER_SIZE",
        "use_prior_for_matching: false match_type: BIPARTITE code_type: CORNER_SIZE loc_weight: 2",
        "bp_inside: true encode_variance_in_target: true loc_loss_type: L2",
        "nms_param { nms_threshold: 0.2 top_k: -1 } code_type: CENTER_SIZE",
        "nms_param { nms_threshold: 0.2 top_k: 5 }",
        "nms_param { nms_threshold: 0.2 }",
        "nms_param { nms_threshold: 0 } neg_pos_ratio: 1.5 neg_overlap: 0.1",
        "nms_param { nms_threshold: 0.3 top_k: 30 } use_prior_for_nms: true mining_type: HARD_EXAMPLE sample_size: 9",
        "mining_type: HARD_EXAMPLE loc_loss_type: L2 sample_size: 12 conf_loss_type: LOGISTIC",
        "conf_loss_type: LOGISTIC background_label_id: 4294967295",
        "conf_loss_type: LOGISTIC background_label_id: 7 mining_type: NONE",
        "overlap_threshold: 0 neg_pos_ratio: 1000 neg_overlap: 1",
        "neg_pos_ratio: -1",
    ],
)
def test_its_options_do_what_they_do_in_the_fork(options: str) -> None:
    blobs = bottoms(CLASSES if "share_location: false" in options else 1)
    check_against_reference(build(f"num_classes: {CLASSES} {options}", blobs), blobs)


def check_against_reference(layer: gl.Layer, blobs: list[torch.Tensor]) -> None:
    loc, conf, *others = blobs
    loss = layer(loc.requires_grad_(), conf.requires_grad_(), *others)
    loss.backward()
    want = multibox_loss(layer.param, *(blob.detach().numpy() for blob in blobs))
    assert want.matches, "a test of nothing"
    np.testing.assert_allclose(loss.item(), want.loss, rtol=1e-9)
    np.testing.assert_allclose(loc.grad, want.loc_diff, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(conf.grad, want.conf_diff, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mines", ["", "do_neg_mining: true", "do_neg_mining: false"])
@pytest.mark.parametrize("kind", ["SOFTMAX", "LOGISTIC"])
def test_textboxes_mines_the_likeliest_objects_unless_told_not_to(mines: str, kind: str) -> None:
    blobs = bottoms()
    shapes = [tuple(blob.shape) for blob in blobs]
    options = f"num_classes: {CLASSES} conf_loss_type: {kind} neg_pos_ratio: 1 {mines}"
    layer = gl.build(f'type: "MultiBoxLoss" multibox_loss_param {{ {options} }}', *shapes, fork="textboxes")
    told = build(f"num_classes: {CLASSES} conf_loss_type: {kind} neg_pos_ratio: 1", blobs).param
    if "false" in mines:
        told.multibox_loss_param.mining_type = caffe_pb2.MultiBoxLossParameter.NONE
    loc, conf, *others = blobs
    loss = layer(loc.requires_grad_(), conf.requires_grad_(), *others)
    loss.backward()
    arrays = [blob.detach().numpy() for blob in blobs]
    want = multibox_loss(told, *arrays, by_objects=True)
    np.testing.assert_allclose(loss.item(), want.loss, rtol=1e-9)
    np.testing.assert_allclose(loc.grad, want.loc_diff, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(conf.grad, want.conf_diff, rtol=1e-9, atol=1e-12)
    if want.negatives and kind == "SOFTMAX":
        assert want.loss != multibox_loss(told, *arrays).loss, "a test of nothing"


@pytest.mark.parametrize("number", [5, 6])
@pytest.mark.parametrize(
    "options",
    [
        "objectness_score: 0.5 code_type: CENTER_SIZE",
        "objectness_score: 0.45 mining_type: HARD_EXAMPLE sample_size: 20",
        "code_type: CENTER_SIZE bp_inside: true mining_type: NONE",
        "objectness_score: 0.5 code_type: CENTER_SIZE bp_inside: true use_prior_for_matching: false",
    ],
)
def test_refinedets_priors_are_moved_and_the_weak_are_not_mined(options: str, number: int) -> None:
    blobs = with_refinement()[:number]
    check_against_reference(build(f"num_classes: 4 {options}", blobs), blobs)


def test_refinedets_first_loss_takes_all_objects_for_one_class() -> None:
    blobs = bottoms(classes=2)
    assert blobs[3][0, 0, :, 1].max() > 1
    loss = build("num_classes: 2 objectness_score: 0.01", blobs)(*blobs)
    blobs[3][0, 0, :, 1] = 1
    assert loss == build("num_classes: 2", blobs)(*blobs)


def test_forks_that_are_named_read_labels_in_their_own_way() -> None:
    blobs = bottoms(classes=2)
    labels = blobs[3][0, 0, :, 1]
    assert labels.max() > 1
    plain = build("num_classes: 2", blobs)
    openvinos, nvidias = (
        layer_class(plain.param, fork=fork)(plain.param, [(1,)] * 4) for fork in ("openvino", "nvidia")
    )
    have = openvinos(*blobs)
    labels[labels > 1] = 1
    assert have == plain(*blobs)
    labels[0] = 0
    have = nvidias(*blobs)
    blobs[3][0, 0, 0, 0] = -1
    assert have == plain(*blobs)
    assert isinstance(build("num_classes: 2 ignore_difficult_gt: true", blobs), type(nvidias))


@pytest.mark.parametrize("conf_loss", ["SOFTMAX", "LOGISTIC"])
@pytest.mark.parametrize("mining", ["MAX_NEGATIVE", "HARD_EXAMPLE", "NONE"])
def test_without_any_truth_it_is_what_the_scores_lose(mining: str, conf_loss: str) -> None:
    loc, conf, prior, _ = bottoms()
    layer = build(
        f"num_classes: 4 mining_type: {mining} conf_loss_type: {conf_loss}", [loc, conf, prior, torch.zeros(1, 1, 0, 8)]
    )
    values = []
    for label in (torch.zeros(1, 1, 0, 8), torch.full((1, 1, 1, 8), -1.0)):
        values.append(layer(loc.requires_grad_(), conf.requires_grad_(), prior, label))
        slopes = torch.autograd.grad(values[-1], (loc, conf))
        assert not slopes[0].any()
        assert bool(slopes[1].any()) == (mining == "NONE")
    want = multibox_loss(layer.param, *(blob.detach().numpy() for blob in (loc, conf, prior)), np.zeros((0, 8)))
    assert values[0].item() == values[1].item() == pytest.approx(want.loss)


def test_it_has_its_gradient() -> None:
    *learnt, prior, label = blobs = [blob[:2] for blob in bottoms(truths=4)]
    layer = build("num_classes: 4 code_type: CENTER_SIZE neg_pos_ratio: 1", blobs)
    leaves = [blob.requires_grad_() for blob in learnt]
    assert torch.autograd.gradcheck(lambda loc, conf: layer(loc, conf, prior, label), leaves, fast_mode=True)


def test_propagate_down_says_what_counts() -> None:
    blobs = bottoms()
    options = "num_classes: 4"
    both, loc, conf, none = (
        build(options, blobs, more)(*blobs).item()
        for more in (
            "",
            "propagate_down: true propagate_down: false propagate_down: false propagate_down: false",
            "propagate_down: false propagate_down: true propagate_down: false propagate_down: false",
            "propagate_down: false propagate_down: false propagate_down: false propagate_down: false",
        )
    )
    assert both == pytest.approx(loc + conf)
    assert loc and conf and not none


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "needs multibox_loss_param.num_classes, 1 or more"),
        ("num_classes: 4 do_neg_mining: false", "do_neg_mining: false contradicts mining_type: MAX_NEGATIVE"),
        ("num_classes: 4 share_location: false", "share_location: false needs mining_type: NONE"),
        ("num_classes: 4 background_label_id: 4", "background_label_id: 4 is not one of the 4 classes"),
        (
            "num_classes: 4 background_label_id: 4294967295",
            "-1 must be one of the classes with conf_loss_type: SOFTMAX",
        ),
        ("num_classes: 4 mining_type: HARD_EXAMPLE sample_size: 0", "sample_size: 0 must be above 0"),
        ("num_classes: 4 map_object_to_agnostic: true", "map_object_to_agnostic needs num_classes: 2"),
    ],
)
def test_options_that_contradict_each_other_are_errors(options: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        build(options, bottoms())


def change(blob: int, index: tuple[int, ...], value: float) -> list[torch.Tensor]:
    blobs = bottoms()
    blobs[blob][index] = value
    return blobs


@pytest.mark.parametrize(
    ("blobs", "words"),
    [
        (bottoms(kinds=2), "needs 160 locations an image, 4 for each of the 40 prior boxes, .* 3×320"),
        (bottoms(classes=3), "needs 160 confidences an image, 4 for each"),
        ([*bottoms()[:3], torch.zeros(1, 1, 3, 7)], "labels of shape 1×1×G×8, .*, not of 1×1×3×7"),
        ([*bottoms()[:2], torch.zeros(1, 2, 3), bottoms()[3]], "prior boxes of shape 1×2×.4 P., .* not 1×2×3"),
        ([bottoms()[0][:2], *bottoms()[1:]], "same first axis"),
        (
            [*bottoms(), torch.zeros(3, 40)],
            r"its fifth bottom, scores of priors, must be \(3, 40 \* 2\), not of shape 3×40",
        ),
        ([*with_refinement()[:5], torch.zeros(3, 40)], r"its sixth, codes of priors, must be \(3, 40 \* 4\)"),
        (change(3, (0, 0, 1, 1), 0), r"row 1 of the labels \(1, 0, .* is background_label_id"),
        (change(3, (0, 0, 1, 1), 4), r"row 1 of the labels \(1, 4, .* there are 4 \(num_classes\), 0 to 3"),
        (change(2, (0, 1, slice(2, None, 4)), 0), r"variances of prior box \d+ \(0.1, 0.1, 0, 0.3\) must be above 0"),
    ],
)
def test_bottoms_that_do_not_fit_are_errors(blobs: list[torch.Tensor], words: str) -> None:
    layer = build("num_classes: 4", blobs)
    with pytest.raises(LayerError, match=words):
        layer(*blobs)
    if "of shape" in words or "an image" in words:  # known before there is data
        with pytest.raises(LayerError, match=words):
            gl.meta_shapes(layer, [blob.shape for blob in blobs])


def test_boxes_without_area_match_nothing_unless_a_code_needs_it() -> None:
    *_, prior, label = blobs = bottoms()
    label[0, 0, 0, 5] = label[0, 0, 0, 3]
    label[0, 0, 1, 5] = label[0, 0, 1, 3] - 0.1
    prior[0, 0, 2] = prior[0, 0, 0]
    layer = build("num_classes: 4 code_type: CENTER_SIZE", blobs)
    want = multibox_loss(layer.param, *(blob.numpy() for blob in blobs))
    assert want.matches
    assert layer(*blobs).item() == pytest.approx(want.loss)
    with pytest.raises(LayerError, match=r"prior box 0 \(.*\) has no area, which code_type needs"):
        build("num_classes: 4 code_type: CENTER_SIZE use_prior_for_matching: false", blobs)(*blobs)


def test_what_refinedet_mixes_up_is_an_error() -> None:
    with pytest.raises(LayerError, match="nms_param cannot be used with scores of priors"):
        build("num_classes: 4 nms_param { top_k: 9 }", with_refinement())
    with pytest.raises(LayerError, match="need share_location: true"):
        build("num_classes: 4 mining_type: NONE share_location: false", with_refinement())


def test_mining_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    build("num_classes: 4 nms_param { nms_threshold: 0.5 }", bottoms())
    assert "nms_param: top_k is 0" in caplog.text


def test_focal_loss_takes_the_place_of_softmax() -> None:
    """The gradient of focal_loss_layer.cpp, number by number; the codes lose as before."""
    blobs = bottoms(seed=3)
    options = "num_classes: 4 mining_type: NONE code_type: CENTER_SIZE"
    plain, focal = (build(options, blobs), build(options, blobs, "focal_loss_param { gamma: 1.5 }"))
    assert focal.type_name == "MultiBoxLoss"  # whose focal_loss_param is not read
    text = prototxt(options, "focal_loss_param { gamma: 1.5 }").replace("MultiBoxLoss", "MultiBoxFocalLoss")
    focal = gl.build(text, *(blob.shape for blob in blobs))
    grads = []
    for layer in (plain, focal):
        loc, conf = (blob.clone().requires_grad_() for blob in blobs[:2])
        layer(loc, conf, *blobs[2:]).backward()
        grads.append((loc.grad, conf.grad.reshape(-1, CLASSES)))
    assert torch.equal(grads[0][0], grads[1][0])
    p = blobs[1].reshape(-1, CLASSES).softmax(1)
    label = (grads[0][1] < 0).long().argmax(1)  # softmax pushes the label's score alone
    scale = (grads[0][1] / (p - torch.nn.functional.one_hot(label, CLASSES)))[:, :1]  # what the loss is divided by
    pt, log = p.gather(1, label[:, None]), p.gather(1, label[:, None]).log()
    at_label = 0.25 * (1 - pt) ** 1.5 * (1.5 * pt * log + pt - 1)
    elsewhere = 0.25 * ((1 - pt) ** 0.5 * (-1.5 * log * pt * p) + (1 - pt) ** 1.5 * p)
    want = torch.where(torch.arange(CLASSES) == label[:, None], at_label, elsewhere) * scale
    torch.testing.assert_close(grads[1][1], want)
    with pytest.raises(LayerError, match=r"focal_loss_param\.gamma: -1 must not be negative"):
        gl.build(text.replace("1.5", "-1"), *(blob.shape for blob in blobs))
