"""What MS-CNN's and Cascade R-CNN's nets learn from: losses, accuracies and targets, against the forks' own numbers."""

from __future__ import annotations

import math
from pathlib import Path

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.solver import Solver

PREFIXES = ("mscnn_", "cascade_")
MAP = 'name: "l" type: "DetectionLoss" detection_loss_param {{ cls_num: 3 field_w: 30 field_h: 50 downsample_rate: 8 {} }}'
GROUPS = (
    'name: "l" type: "DetectionGroupLoss" detection_group_loss_param {{ cls_num: 3 field_w: 30 field_h: 50 field_w: 40 '
    "field_h: 20 stride: 8 {} }}"
)


@pytest.mark.parametrize("name", gl.names(*PREFIXES, folder="forks"))
def test_it_is_as_in_the_fork(name: str) -> None:
    gl.check(name, "forks")


def net_of(layer: str, **shapes: tuple[int, ...]) -> Net:
    """A net of MS-CNN's of this one layer."""
    sizes = {name: " ".join(f"dim: {n}" for n in shape) for name, shape in shapes.items()}
    inputs = "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {size} }} }} }}'
        for name, size in sizes.items()
    )
    return Net(parse_text(f'fork: "mscnn" {inputs} layer {{ {layer} }}', caffe_pb2.NetParameter), "TRAIN")


def truth(n: int, objects: int, others: int, rows: int = 6, columns: int = 8) -> torch.Tensor:
    """Maps with so many objects of class 1 and places of background each; the rest is neither."""
    label, overlap = torch.zeros(n, rows * columns), torch.ones(n, rows * columns)
    label[:, :objects], overlap[:, -others:] = 1, 0.1
    box = torch.rand(n, 4, rows, columns, generator=torch.Generator().manual_seed(1)) * 20 + 20
    maps = label.reshape(n, 1, rows, columns), box, overlap.reshape(n, 1, rows, columns)
    return torch.cat(maps, 1)


def counted(gradient: torch.Tensor) -> torch.Tensor:
    """How many places of each image count for classes: those with a gradient."""
    return (gradient.abs().sum(1) > 0).flatten(1).sum(1)


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        ('sample_mode: "random" bg_multiple: 3', 4, 4 + 12),  # places are drawn twice, too, or are no background
        ('sample_mode: "bootstrap" bg_multiple: 2', 4 + 8, 4 + 8 + 4),  # 4 at least for the class without objects
        ('sample_mode: "mixture" bg_multiple: 2', 4 + 4, 4 + 4 + 4 + 8),
    ],
)
def test_detection_loss_takes_some_of_the_background(options: str, least: int, most: int) -> None:
    x, true = torch.randn(2, 7, 6, 8, requires_grad=True), truth(2, 4, 20)
    layer = gl.build(MAP.format(options), x.shape, true.shape)
    layer(x, true)[..., 0].sum().backward()
    assert all(least <= n <= most for n in counted(x.grad[:, :3]).tolist())
    assert not x.grad[:, :3].flatten(2)[:, :, 4:28].any()  # an overlap of 1 is neither object nor background


@pytest.mark.parametrize("mining", ["random", "bootstrap", "mixture"])
@pytest.mark.parametrize(
    ("options", "objects", "others"),
    [
        ("batch_size: 12 bg_multiple: 2", 4, 8),
        ("batch_size: -1 bg_multiple: 1", 8, 8),
        ("min_num_neg: 17 bg_multiple: 2", 8, 17),
    ],
)
def test_detection_group_loss_takes_some_of_each_image(mining: str, options: str, objects: int, others: int) -> None:
    scores, codes = torch.randn(4, 3, 6, 8, requires_grad=True), torch.randn(4, 4, 6, 8, requires_grad=True)
    true = truth(4, 4, 20)
    layer = gl.build(GROUPS.format(f'{options} neg_mining_type: "{mining}"'), scores.shape, codes.shape, true.shape)
    layer(scores, codes, true)[..., 0].sum().backward()
    by_image = counted(scores.grad).reshape(2, 2).sum(1)
    assert by_image.tolist() == [objects + others] * 2
    assert counted(codes.grad).reshape(2, 2).sum(1).tolist() == [objects] * 2


def test_gradients_of_losses_are_those_of_what_they_show() -> None:
    true = truth(2, 4, 20, 3, 4).double()
    layer = gl.build(MAP.format('sample_mode: "all" pos_neg_weighted: true'), (2, 7, 3, 4), true.shape)
    x = torch.randn(2, 7, 3, 4, dtype=torch.double) * 0.1
    assert torch.autograd.gradcheck(lambda a: layer(a, true)[..., 0], x.requires_grad_())
    options = 'sample_mode: "all"'
    net = net_of(
        f'bottom: "x" bottom: "t" top: "l" loss_weight: 0.5 {MAP.format(options)}', x=(2, 7, 3, 4), t=(2, 6, 3, 4)
    )
    total, tops = net.objective({"x": torch.randn(2, 7, 3, 4), "t": true.float()})
    assert torch.isclose(total, 0.5 * tops["l"].sum())  # Caffe counts both numbers


def test_regions_are_drawn_where_proposals_are_too_few() -> None:
    options = "num_img_per_batch: 2 batch_size: 40 fg_fraction: 0.25 img_width: 90 img_height: 70"
    tops = " ".join(f'top: "{name}"' for name in "rltiom")
    text = f'name: "p" type: "ProposalTarget" proposal_target_param {{ cls_num: 3 {options} }} {tops} bottom: "a" bottom: "b"'
    true = torch.tensor([[0, 10, 10, 50, 50, 2, 0], [1, 20, 5, 60, 40, 1, 0]], dtype=torch.float)
    near = true[:, :5].repeat(14, 1) + torch.tensor([0, 1, 0, 0, 1.0])
    far = torch.tensor([[0, 200, 200, 240, 240], [1, 300, 300, 330, 310.0]])
    layer = net_of(text, a=(30, 5), b=(2, 7)).layers["p"]
    rois, labels, *_ = (x[:, :, 0, 0] for x in layer(torch.cat((near, far)), true))
    assert labels.flatten().bool().sum() == 10 and rois[10:12].tolist() == far.tolist()
    drawn = rois[12:]
    assert len(drawn) == 28 and (drawn[:, 3:] - drawn[:, 1:3] >= 31).all() and drawn[:, 3].max() < 100
    layer.picture = (32, 70)
    with pytest.raises(LayerError, match="img_width: 32 and img_height: 70 are too small"):
        layer(torch.cat((near, far)), true)
    with pytest.raises(LayerError, match=r"a true box with label 3; labels are from 1 to 2, by cls_num"):
        layer(far, true + torch.tensor([0, 0, 0, 0, 0, 1, 0]))
    with pytest.raises(LayerError, match="a region of image 2, but num_img_per_batch: 2"):
        layer(far + torch.tensor([1, 0, 0, 0, 0]), true)


@pytest.mark.parametrize(
    ("text", "shapes", "message"),
    [
        (MAP.format("objectness: true"), [(1, 7, 2, 2), (1, 6, 2, 2)], "objectness needs cls_num: 2, not 3"),
        (MAP.format("coord_num: 5"), [(1, 7, 2, 2), (1, 6, 2, 2)], "coord_num: 5 must be 4"),
        (MAP.format(""), [(1, 8, 2, 2), (1, 6, 2, 2)], "needs a map N×7×H×W for cls_num: 3"),
        (
            GROUPS.format("batch_size: 0"),
            [(2, 3, 2, 2), (2, 4, 2, 2), (2, 6, 2, 2)],
            "batch_size: 0 must be at least 1, or -1",
        ),
        (
            GROUPS.format('neg_mining_type: "hard"'),
            [(2, 3, 2, 2), (2, 4, 2, 2), (2, 6, 2, 2)],
            '"hard" is not one of random',
        ),
        (GROUPS.format("field_w: 3"), [(2, 3, 2, 2), (2, 4, 2, 2), (2, 6, 2, 2)], "they are given 3, 2 and 1 times"),
        (GROUPS.format(""), [(3, 3, 2, 2), (3, 4, 2, 2), (3, 6, 2, 2)], "for G = 2 fields"),
        ('name: "h" type: "HardMining" propagate_down: true', [(4, 1), (4, 5)], "passes no gradient"),
        ('name: "h" type: "HardMining"', [(4, 1), (3, 5)], "needs losses R"),
    ],
)
def test_what_cannot_be_is_an_error(text: str, shapes: list, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        gl.build(text, *shapes)


def test_a_solvers_test_leaves_out_what_was_not_there(tmp_path: Path) -> None:
    net = """
        fork: "mscnn"
        layer { name: "d" type: "DummyData" top: "codes" top: "rois" top: "matched" dummy_data_param {
          shape { dim: 2 dim: 8 } shape { dim: 2 dim: 5 } shape { dim: 2 dim: 6 } } }
        layer { name: "b" type: "BboxAccuracy" bottom: "codes" bottom: "rois" bottom: "matched" top: "iou" }
    """
    options = 'test_iter: 2 test_interval: 9 base_lr: 0.1 lr_policy: "fixed" max_iter: 1'
    (tmp_path / "solver.prototxt").write_text(f"{options} net_param {{ {net} }}")
    solver = Solver(tmp_path / "solver.prototxt")
    assert math.isnan(solver.test()["iou"].item())


def test_a_label_that_is_no_class_is_an_error() -> None:
    true = truth(1, 2, 4)
    true[0, 0, 0, 0] = 3
    with pytest.raises(LayerError, match="label 3 is not a class: there are 3"):
        gl.build(MAP.format(""), (1, 7, 6, 8), true.shape)(torch.zeros(1, 7, 6, 8), true)
    layer = gl.build('name: "h" type: "HardMining" hard_mining_param { num_image: 1 }', (2, 1), (2, 5))
    with pytest.raises(LayerError, match="a region of image 1, but num_image: 1"):
        layer(torch.zeros(2, 1), torch.ones(2, 5))
