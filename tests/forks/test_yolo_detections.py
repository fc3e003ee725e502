"""The detections of YOLO v2 and v3, against the numbers of MobileNet-YOLO's own code."""

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError


@pytest.mark.parametrize("name", gl.names("yolov3_detections", "yolo_detections", folder="forks"))
def test_layer_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


def logit(p: float) -> float:
    return torch.tensor(p, dtype=torch.float64).logit().item()


def test_gaussian_boxes_are_read_as_on_gpus() -> None:
    options = (
        "num_classes: 2 num_box: 1 biases: 8 biases: 4 anchors_scale: 8 mask_group_num: 1 mask: 0 gaussian_box: true"
    )
    layer = gl.build(
        f'name: "y" type: "Yolov3DetectionOutput" yolov3_detection_output_param {{ {options} }}', (1, 11, 1, 2)
    )
    x = torch.full((1, 11, 1, 2), -20.0)  # nothing there
    spread = [0.1, 0.2, 0.3, 0.4]  # of x, y, w and h
    numbers = [0.25, 0, 0.5, 0, 0, 0, 0, 0, 0.8, 0.5, 0.9]
    x[0, :, 0, 1] = torch.tensor([logit(p) if p else 0 for p in numbers])
    x[0, 1:8:2, 0, 1] = torch.tensor([logit(p) for p in spread])
    confidence = 0.8 * (4 - sum(spread) - 0.1) / 4  # the fork takes the first one twice
    found = layer(x)[0, 0]
    box = [(1 + 0.25) / 2 - 0.25, 0.5 - 0.25, (1 + 0.25) / 2 + 0.25, 0.5 + 0.25]
    assert found.shape == (1, 7)  # the second class suppresses the first, which has the same box
    assert found[0].tolist() == pytest.approx([0, 2, 0.9 * confidence, *box], rel=1e-5)


def test_detections_have_no_gradient_and_keep_the_type() -> None:
    layer = gl.build(
        'name: "y" type: "YoloDetectionOutput" yolo_detection_output_param { num_classes: 1 num_box: 1 biases: 1 biases: 1 }',
        (1, 6, 2, 2),
    )
    found = layer(torch.zeros(1, 6, 2, 2, dtype=torch.float64, requires_grad=True))
    assert found.dtype == torch.float64 and not found.requires_grad


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("num_box: 1", "needs yolov3_detection_output_param.num_classes, at least 1"),
        ("num_classes: 2 num_box: 1 biases: 1", "biases must be pairs of width and height, not 1 numbers"),
        ("num_classes: 2 num_box: 1 mask_group_num: 2", "mask_group_num: 2 must be the number of bottoms, 1"),
        ("num_classes: 2 num_box: 1 mask_group_num: 1", "needs .*anchors_scale for each of 1 bottoms, not 0"),
        ("num_classes: 2 num_box: 1 mask_group_num: 1 anchors_scale: 0", "anchors_scale: 0 must be at least 1"),
        ("num_classes: 2 num_box: 1 mask_group_num: 1 anchors_scale: 8", "needs .*mask for 1 boxes of each bottom"),
        (
            "num_classes: 2 num_box: 1 mask_group_num: 1 anchors_scale: 8 mask: 1 biases: 1 biases: 1",
            "mask: 1 is not one of the 1 pairs of biases",
        ),
        (
            "num_classes: 3 num_box: 1 mask_group_num: 1 anchors_scale: 8 mask: 0 biases: 1 biases: 1",
            "needs bottoms with 8 channels, num_box 1 times 5 and num_classes 3, .* not 1×7×2×3",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(options: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "y" type: "Yolov3DetectionOutput" yolov3_detection_output_param {{ {options} }}', (1, 7, 2, 3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("num_box: 1 biases: 1 biases: 1", "needs square maps, not 2×3"),
        ("num_box: 2 biases: 1 biases: 1", "needs .*biases, width and height of 2 boxes; there are 2 numbers"),
    ],
)
def test_version_2_needs_square_maps_and_its_boxes(options: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(
            f'name: "y" type: "YoloDetectionOutput" yolo_detection_output_param {{ num_classes: 2 {options} }}',
            (1, 7, 2, 3),
        )
