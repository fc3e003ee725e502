"""The losses of YOLO v2 and v3, against the numbers of MobileNet-YOLO's and Intel's own code."""

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.forks.yolo.iou_losses import gradient, similarity
from pycaffe_compat.layers import layer_class
from pycaffe_compat.proto import caffe_pb2, parse_text

ANCHORS = " ".join(f"biases: {side}" for side in (1, 1, 2, 2, 0.5, 3, 3, 0.5, 4, 4))
REGION = f"num: 1 num_class: 2 {ANCHORS}"


@pytest.mark.parametrize("name", gl.names("region_loss", "yolov3_loss", folder="forks"))
def test_layer_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


@pytest.mark.parametrize("kind", ["RegionLoss", "Yolov3"])
def test_without_truth_all_boxes_are_to_predict_nothing(kind: str) -> None:
    options = {"RegionLoss": f"region_loss_param {{ {REGION} }}", "Yolov3": V3}[kind]
    layer = gl.build(f'name: "l" type: "{kind}" {options}', (2, 7, 3, 3), (2, 1, 300, 5))
    x = torch.randn(2, 7, 3, 3, requires_grad=True)
    layer(x, torch.zeros(2, 1, 300, 5)).backward()
    others = torch.cat((x.grad[:, :4], x.grad[:, 5:]), 1)
    assert not others.any() and (x.grad[:, 4] > 0).all()


@pytest.mark.parametrize("kind", ["RegionLoss", "Yolov3"])
def test_a_centre_on_the_edge_belongs_to_the_last_cell(kind: str) -> None:
    options = {"RegionLoss": f"region_loss_param {{ {REGION} }}", "Yolov3": V3}[kind]
    layer = gl.build(f'name: "l" type: "{kind}" {options}', (1, 7, 3, 3), (1, 1, 300, 5))
    labels = torch.zeros(1, 1, 300, 5)
    labels[0, 0, 0] = torch.tensor([1, 1, 1, 0.3, 0.3])
    x = torch.zeros(1, 7, 3, 3, requires_grad=True)
    layer(x, labels).backward()
    assert x.grad[0, 5:].abs().sum(0).nonzero().tolist() == [[2, 2]] and x.grad[0, 6, 2, 2] < 0


V3 = f"yolov3_param {{ num: 1 num_class: 2 mask: 4 {ANCHORS} }}"


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("RegionLoss", "num: 1 num_class: 2", "needs region_loss_param.biases, .* at least 10 numbers; there are 0"),
        ("RegionLoss", f"{REGION} coords: 5", "region_loss_param.coords: 5 must be 4"),
        ("RegionLoss", f'{REGION} softmax_tree: "a.tree"', "softmax_tree: a.tree is not supported"),
        ("RegionLoss", f"num: 2 num_class: 2 {ANCHORS}", "needs a map with 14 channels, num 2 times 5 and num_class 2"),
        ("Yolov3", f"num: 1 num_class: 2 {ANCHORS}", "needs yolov3_param.mask for num: 1 anchors, .* it is empty"),
        ("Yolov3", f"num: 1 num_class: 2 mask: 5 {ANCHORS}", "one of the 5 pairs of biases; it is 5"),
        ("Yolov3", f"num: 1 num_class: 2 mask: 0 anchors_scale: 0 {ANCHORS}", "anchors_scale: 0 must be at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(kind: str, options: str, words: str) -> None:
    field = {"RegionLoss": "region_loss_param", "Yolov3": "yolov3_param"}[kind]
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "l" type: "{kind}" {field} {{ {options} }}', (1, 7, 3, 3), (1, 1, 300, 5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ('side: 3 class_map: "a.map"', "class_map: a.map is not supported"),
        ("side: 13", "side: 13 must be that of its map, 3×3"),
    ],
)
def test_intels_loss_needs_the_side_and_takes_no_map(options: str, words: str) -> None:
    text = f'name: "l" type: "RegionLoss" bottom: "x" bottom: "t" top: "l" region_loss_param {{ {REGION} {options} }}'
    param = parse_text(text, caffe_pb2.LayerParameter())
    with pytest.raises(LayerError, match=words):
        layer_class(param, fork="intel")(param, [(1, 7, 3, 3), (1, 1, 4, 8)])


def test_labels_that_are_no_class_or_do_not_fit_are_errors() -> None:
    layer = gl.build(f'name: "l" type: "Yolov3" {V3}', (1, 7, 3, 3), (1, 1, 300, 5))
    labels = torch.zeros(1, 1, 300, 5)
    labels[0, 0, 0] = torch.tensor([2, 0.5, 0.5, 0.3, 0.3])
    with pytest.raises(LayerError, match=r'layer "l" \(Yolov3\): label 2 is not a class: there are 2, 0 to 1'):
        layer(torch.zeros(1, 7, 3, 3), labels)
    with pytest.raises(
        LayerError, match=r"labels of class, x, y, w and h for each of 1 images, not of shape 2×1×300×5$"
    ):
        layer(torch.zeros(1, 7, 3, 3), torch.zeros(2, 1, 300, 5))


@pytest.mark.parametrize(("kind", "options"), [("RegionLoss", f"region_loss_param {{ {REGION} }}"), ("Yolov3", V3)])
def test_labels_as_intels_are_refused_when_the_net_is_built(kind: str, options: str) -> None:
    with pytest.raises(LayerError, match=r"not of shape 1×1×5×8; Intel's Caffe has 8 numbers: --fork intel"):
        gl.build(f'name: "l" type: "{kind}" {options}', (1, 7, 3, 3), (1, 1, 5, 8))


@pytest.mark.parametrize("kind", ["IOU", "GIOU"])
def test_the_gradient_of_an_overlap_is_its_derivative_but_twice_that_of_sides(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    box, true = (torch.rand(40, 4, dtype=torch.float64, generator=generator) * 0.6 + 0.2 for _ in range(2))
    meet = similarity("IOU", box, true) > 0
    assert meet.sum() > 20
    box, true = box[meet].requires_grad_(), true[meet]
    similarity(kind, box, true).sum().backward()
    torch.testing.assert_close(gradient(kind, box.detach(), true), box.grad * torch.tensor([1, 1, 2, 2]))
