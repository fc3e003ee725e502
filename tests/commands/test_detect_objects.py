"""caffe-detect-objects on a net whose detection can be worked out by hand: a box in the middle, scored by the picture's blue."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from pycaffe_compat.commands.detect_objects import main
from pycaffe_compat.proto import caffe_pb2, parse_text, write_weights

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "loc" type: "InnerProduct" bottom: "pool" top: "loc" inner_product_param { num_output: 4 } }
layer { name: "conf" type: "InnerProduct" bottom: "pool" top: "conf" inner_product_param { num_output: 3 } }
layer { name: "prior" type: "PriorBox" bottom: "pool" bottom: "data" top: "prior" prior_box_param { min_size: 4 } }
layer { name: "found" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior" top: "found"
  detection_output_param { num_classes: 3 code_type: CENTER_SIZE confidence_threshold: 0.01 } }
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A net that finds label 2 in blue pictures, with a score of the mean blue, 1 for the largest, and a picture of 0.8."""
    monkeypatch.chdir(tmp_path)
    Path("deploy.prototxt").write_text(NET)
    blue = np.zeros((3, 3), np.float32)
    blue[2, 0] = 1
    write_weights(
        "net.caffemodel",
        parse_text(NET, caffe_pb2.NetParameter),
        {
            "loc": [np.zeros((4, 3), np.float32), np.zeros(4, np.float32)],
            "conf": [blue, np.zeros(3, np.float32)],
        },
    )
    assert cv2.imwrite("blue.png", np.full((40, 80, 3), (204, 0, 0), np.uint8))
    assert cv2.imwrite("red.png", np.full((40, 80, 3), (0, 0, 204), np.uint8))
    return [
        "deploy.prototxt",
        "net.caffemodel",
        "blue.png",
        "red.png",
        "--mean=0",
        "--scale=0.00392156862745098",
        "--cpu",
    ]


def test_objects_are_listed_and_drawn(net: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.prototxt").write_text('item { name: "n2" label: 2 display_name: "sky" }')
    assert main([*net, "--labels", "labels.prototxt", "--out", "drawn"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:]] == [
        ["blue.png", "sky", "0.800", "20", "10", "60", "30"],
        ["red.png", "nothing"],
    ]
    before, after = cv2.imread("blue.png"), cv2.imread("drawn/blue.png")
    changed = (before != after).any(2)
    assert changed[29, 20:60].all()  # the box's lower edge
    assert changed[10:30, [20, 59]].all()
    assert not changed[31:].any()
    np.testing.assert_array_equal(cv2.imread("red.png"), cv2.imread("drawn/red.png"))


@pytest.mark.parametrize("names", ["none\nsea\nsky\n", "sea\nsky\n"])
def test_json_with_names_from_a_text_file(net: list[str], capsys: pytest.CaptureFixture[str], names: str) -> None:
    Path("labels.txt").write_text(names)
    assert main([*net, "--labels", "labels.txt", "--json", "--threshold", "0.7"]) == 0
    blue, red = map(json.loads, capsys.readouterr().out.splitlines())
    assert blue == {
        "picture": "blue.png",
        "objects": [{"label": 2, "name": "sky", "score": pytest.approx(0.8), "box": [20.0, 10.0, 60.0, 30.0]}],
    }
    assert red["objects"] == []
    assert main([*net, "--threshold", "0.81", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["objects"] == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--labels", "five.txt"], "five.txt has 5 lines, but the net has 3 classes"),
        (["--labels", "gone.txt"], "gone.txt"),
        (["--out", "."], "blue.png would be written over"),
        (["--out", "drawn", "other/blue.png"], "two images would be drawn to drawn/blue.png"),
        (["text.png"], "text.png is not an image"),
        (["--mean", "1,2"], "mean: 2 numbers for 3 channels"),
    ],
)
def test_mistakes_are_one_line(
    net: list[str], capsys: pytest.CaptureFixture[str], change: list[str], words: str
) -> None:
    Path("five.txt").write_text("a\nb\nc\nd\ne\n")
    Path("text.png").write_text("no picture")
    Path("other").mkdir()
    Path("other/blue.png").write_bytes(Path("blue.png").read_bytes())
    assert main([*net, *change]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert words in error[0]


YOLO = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "map" type: "Convolution" bottom: "pool" top: "map" convolution_param { num_output: 7 kernel_size: 1 } }
layer { name: "found" type: "Yolov3DetectionOutput" bottom: "map" top: "found" yolov3_detection_output_param {
  num_classes: 2 num_box: 1 biases: 4 biases: 4 anchors_scale: 8 mask_group_num: 1 mask: 0 } }
"""


def test_yolo_finds_the_same(net: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    weight, bias = np.zeros((7, 3, 1, 1), np.float32), np.float32([0, 0, 0, 0, 20, -9, -5])
    weight[6, 0] = 10  # the second class is blue
    Path("deploy.prototxt").write_text(YOLO)
    write_weights("net.caffemodel", parse_text(YOLO, caffe_pb2.NetParameter), {"map": [weight, bias]})
    Path("labels.txt").write_text("sea\nsky\n")
    assert main([*net, "--labels", "labels.txt", "--json"]) == 0
    blue, red = map(json.loads, capsys.readouterr().out.splitlines())
    score = pytest.approx(1 / (1 + np.exp(-3)), rel=1e-3)
    assert blue["objects"] == [{"label": 2, "name": "sky", "score": score, "box": [20.0, 10.0, 60.0, 30.0]}]
    assert red["objects"] == []


def test_a_net_that_detects_nothing_is_refused(net: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("deploy.prototxt").write_text(NET[: NET.index('layer { name: "found"')])
    assert main(net) == 1
    assert "must give one output of detections, 1×1×K×7" in capsys.readouterr().err
