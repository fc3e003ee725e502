"""AnnotatedData of MobileNet-YOLO: one of several sizes for ten batches, and labels of 300 rows a picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_annotated_data import annotated, batches, database, scene

from pycaffe_compat.data.boxes import Boxes
from pycaffe_compat.data.sampling import JitterSampler
from pycaffe_compat.errors import CaffeError
from pycaffe_compat.layers.making import make_layer
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

SIZES = "resize_param { prob: 0.25 height: 40 width: 48 } resize_param { prob: 0.75 height: 24 width: 32 }"
WHOLE = "annotated_data_param { yolo_data_type: 1 yolo_data_jitter: 0 }"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> str:
    return database(tmp_path_factory.mktemp("yolo") / "db", [annotated(*scene(i)) for i in range(12)])


def text_of(source: str, transform: str, more: str, batch: int = 2) -> str:
    return (
        f'name: "d" type: "AnnotatedData" top: "data" top: "label" transform_param {{ {transform} }} {more} '
        f'data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }}'
    )


def make(source: str, transform: str = "resize_param { height: 40 width: 48 }", more: str = WHOLE, batch: int = 2):
    param = parse_text(text_of(source, transform, more, batch), caffe_pb2.LayerParameter)
    layer = make_layer(param, [], fork="yolo")
    layer.seed = 3
    return layer


def test_a_row_has_class_middle_and_size(scenes) -> None:
    images, labels = batches(make(scenes), 1)[0]
    assert images.shape == (2, 3, 40, 48) and labels.shape == (2, 1, 300, 5)
    for number in range(2):
        boxes = sorted(scene(number)[1])
        rows = labels[number, 0]
        want = [
            (label - 1, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
            for label, (left, top, right, bottom), _ in boxes
        ]
        got = sorted(map(tuple, rows[: len(boxes)].tolist()))
        np.testing.assert_allclose(got, want, atol=1e-5)
        assert not rows[len(boxes) :].any()


def test_difficult_boxes_are_left_out_on_demand(scenes) -> None:
    every = batches(make(scenes, batch=12), 1)[0][1]
    easy = batches(make(scenes, more=WHOLE.replace("{", "{ train_diffcult: false", 1), batch=12), 1)[0][1]
    difficult = every[..., 0].eq(1) & every[..., 3].gt(0)  # the scenes' objects of class 2
    assert difficult.any() and not (easy[..., 0].eq(1) & easy[..., 3].gt(0)).any()
    assert easy[..., 3].gt(0).sum() == (every[..., 3].gt(0) & ~difficult).sum()


def test_ten_batches_have_one_size_and_a_seed_decides_which(scenes) -> None:
    layer = make(scenes, SIZES)
    assert layer.top_shapes()[0] == (2, 3, 40, 48)
    sizes = [tuple(images.shape[2:]) for images, _ in batches(layer, 400)]
    tens = [sizes[i : i + 10] for i in range(0, 400, 10)]
    assert all(len(set(each)) == 1 for each in tens)
    assert 3 <= sum(each[0] == (40, 48) for each in tens) <= 19
    layer.seek({"seed": 3, "position": 2 * 105})
    assert [tuple(images.shape[2:]) for images, _ in batches(layer, 20)] == sizes[105:125]


def test_boxes_of_ssds_kind_are_scaled_with_each_size(scenes) -> None:
    layer = make(scenes, SIZES, "annotated_data_param { yolo_data_jitter: 0 }")
    for images, labels in batches(layer, 40):
        assert labels.shape[3] == 8 and images.shape[2] in (40, 24)
        assert bool((labels[0, 0, :, 3:7] <= 1).all())


def test_a_window_of_jitter() -> None:
    boxes = Boxes.of([])
    sampler = JitterSampler(0.3, False)
    assert sampler(boxes, np.array([0.1, 1, 1, 1, 1])).tolist() == [0, 0, 1, 1]
    np.testing.assert_allclose(sampler(boxes, np.array([0.3, 1, 0, 0.5, 0.5])), [0.075, 0, 0.925, 1], atol=1e-6)
    np.testing.assert_allclose(sampler(boxes, np.array([0.9, 1, 0.5, 1, 0])), [0.3, 0, 1, 0.85], atol=1e-6)
    np.testing.assert_allclose(
        JitterSampler(0.3, True)(boxes, np.array([0.9, 1, 0, 0, 1])), [0, 0.3, 0.7, 1], atol=1e-6
    )


def test_jitter_is_what_the_fork_does_unless_it_is_told_otherwise(scenes) -> None:
    plain, cut = make(scenes), make(scenes, more="annotated_data_param { yolo_data_type: 1 }")
    assert not torch.equal(batches(plain, 3)[2][0], batches(cut, 3)[2][0])


@pytest.mark.parametrize(
    ("transform", "more", "words"),
    [
        (SIZES.replace("0.75", "0.5"), WHOLE, r"the sum of prob is 0.25 \+ 0.5 = 0.75; it must be 1"),
        (
            "",
            "annotated_data_param { yolo_data_type: 1 }",
            "yolo_data_jitter, 0.3 if not given, needs transform_param.resize",
        ),
        (SIZES, WHOLE.replace("jitter: 0", "jitter: 2"), "yolo_data_jitter: 2 must be at least 0 and below 1"),
        (SIZES, WHOLE.replace("{", "{ difficult_label_warmup: true", 1), "not supported: difficult_label_warmup"),
        (f"{SIZES} cvt_bgr2rgb: true", WHOLE, "not supported: transform_param.cvt_bgr2rgb"),
    ],
)
def test_what_cannot_be_used_is_one_error(scenes, transform: str, more: str, words: str) -> None:
    with pytest.raises(CaffeError, match=words):
        make(scenes, transform, more)


def test_more_boxes_than_rows_are_an_error(tmp_path) -> None:
    picture, _ = scene(0)
    source = database(tmp_path / "db", [annotated(picture, [(1, (0.1, 0.1, 0.5, 0.5), False)] * 301)])
    with pytest.raises(CaffeError, match=r"has 301 boxes; with yolo_data_type: 1 a picture has room for 300"):
        batches(make(source, batch=1), 1)


def test_a_net_trains_on_pictures_of_several_sizes(scenes) -> None:
    """The data layer, a map and YOLO v3's loss, as in the fork's models."""
    head = (
        'layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 24 kernel_size: 8 '
        'stride: 8 weight_filler { type: "xavier" } } } '
        'layer { name: "loss" type: "Yolov3" bottom: "c" bottom: "label" top: "loss" yolov3_param { num_class: 3 num: 3 '
        "anchors_scale: 8 mask: 0 mask: 1 mask: 2 biases: [4, 4, 8, 8, 12, 12] } }"
    )
    net = Net(parse_text(f"layer {{ {text_of(scenes, SIZES, WHOLE)} }} {head}", caffe_pb2.NetParameter), "TRAIN")
    shapes: set[tuple[int, ...]] = set()
    for _ in range(300):  # a size lasts ten batches
        if len(shapes) == 2:
            break
        batch = net.draw()
        loss, _ = net.objective(batch)
        loss.backward()
        shapes.add(tuple(batch["data"].shape[2:]))
    net.close()
    assert len(shapes) == 2
