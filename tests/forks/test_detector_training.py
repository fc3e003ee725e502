"""A small detector in SSD's layers, from pictures with boxes to average precision."""

import contextlib
import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from pycaffe_compat.commands import test_net
from pycaffe_compat.errors import SolverError
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.solver import Solver
from pycaffe_compat.solver.log import log_to

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from samples import annotated, database

SIDE = 32
NET = """
layer { name: "data" type: "AnnotatedData" top: "data" top: "label" transform_param { mean_value: 60 scale: 0.02 }
  data_param { source: "SOURCE" batch_size: 8 backend: LMDB } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 12 kernel_size: 3 stride: 2 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2"
  convolution_param { num_output: 16 kernel_size: 5 stride: 2 pad: 2 weight_filler { type: "xavier" } } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "loc" type: "Convolution" bottom: "conv2" top: "loc"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "loc_perm" type: "Permute" bottom: "loc" top: "loc_perm" permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "loc_flat" type: "Flatten" bottom: "loc_perm" top: "loc_flat" }
layer { name: "conf" type: "Convolution" bottom: "conv2" top: "conf"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "conf_perm" type: "Permute" bottom: "conf" top: "conf_perm" permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "conf_flat" type: "Flatten" bottom: "conf_perm" top: "conf_flat" }
layer { name: "priors" type: "PriorBox" bottom: "conv2" bottom: "data" top: "priors"
  prior_box_param { min_size: 10 max_size: 20 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 } }
layer { name: "loss" type: "MultiBoxLoss" bottom: "loc_flat" bottom: "conf_flat" bottom: "priors" bottom: "label" top: "loss"
  include { phase: TRAIN } multibox_loss_param { num_classes: 3 code_type: CENTER_SIZE } }
layer { name: "scores" type: "Reshape" bottom: "conf_flat" top: "scores" include { phase: TEST }
  reshape_param { shape { dim: 0 dim: -1 dim: 3 } } }
layer { name: "softmax" type: "Softmax" bottom: "scores" top: "softmax" include { phase: TEST } softmax_param { axis: 2 } }
layer { name: "flat" type: "Flatten" bottom: "softmax" top: "flat" include { phase: TEST } }
layer { name: "found" type: "DetectionOutput" bottom: "loc_flat" bottom: "flat" bottom: "priors" top: "found"
  include { phase: TEST } detection_output_param { num_classes: 3 code_type: CENTER_SIZE confidence_threshold: 0.1
  nms_param { nms_threshold: 0.45 } } }
layer { name: "evaluate" type: "DetectionEvaluate" bottom: "found" bottom: "label" top: "detection_eval" include { phase: TEST }
  detection_evaluate_param { num_classes: 3 } }
"""
SOLVER = 'base_lr: 0.01 lr_policy: "fixed" type: "Adam" momentum: 0.9 max_iter: 100 random_seed: 2 solver_mode: CPU '


def scene(number: int) -> tuple[np.ndarray, list]:
    """A picture with a bright rectangle of the colour of its class."""
    random = np.random.default_rng(number)
    picture = random.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
    label = 1 + number % 2
    left, top = random.integers(0, SIDE - 16, 2)
    width, height = random.integers(9, 16, 2)
    picture[top : top + height, left : left + width, label] = 255
    corners = np.array([left, top, left + width, top + height]) / SIDE
    return picture, [(label, tuple(corners.tolist()), False)]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    return database(tmp_path_factory.mktemp("pictures") / "db", [annotated(*scene(i)) for i in range(32)])


def solver(source: str, options: str, net: str = NET) -> Solver:
    param = parse_text(SOLVER + options, caffe_pb2.SolverParameter)
    param.net_param.CopyFrom(parse_text(net.replace("SOURCE", source), caffe_pb2.NetParameter))
    return Solver(param)


def test_a_detector_learns_and_its_precision_rises(
    source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    tests = 'test_iter: 4 test_interval: 1000 test_initialization: false eval_type: "detection" ap_version: "11point"'
    trained = solver(source, f"{tests} show_per_class_result: true")
    with contextlib.closing(trained):
        before = trained.test()["detection_eval"]
        trained.step(1)
        first = trained.loss
        trained.step(39)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            after = trained.test()["detection_eval"]
        trained.net.save(tmp_path / "detector.caffemodel")
        assert trained.loss < first / 2
    assert before < 0.2
    assert after > 0.6
    said = [record.getMessage().strip() for record in caplog.records]
    assert f"Test net output #0: detection_eval = {after:g}" in said
    classes = [float(line.partition(": ")[2]) for line in said if line.startswith("class")]
    assert sum(classes) / 2 == pytest.approx(after, rel=1e-5)
    # the command says the same of the files
    (tmp_path / "net.prototxt").write_text(NET.replace("SOURCE", source))
    files = ["--model", str(tmp_path / "net.prototxt"), "--weights", str(tmp_path / "detector.caffemodel")]
    with log_to(sys.stderr):  # puts the log back as it was
        test_net.run([*files, "--iterations", "4", "--ap-version", "11point"])
    assert f"] detection_eval = {after:g}\n" in capsys.readouterr().err


def test_only_test_nets_that_evaluate_detections_have_a_precision(source: str) -> None:
    net = NET[: NET.index('layer { name: "evaluate"')].replace("confidence_threshold: 0.1", "confidence_threshold: 0.5")
    options = "test_iter: 4 test_interval: 9"
    with pytest.raises(SolverError, match=r'"found" has shape 1×1×1×7.*A Silence layer takes'):
        solver(source, options + ' eval_type: "detection"', net)
    with (
        contextlib.closing(solver(source, options, net)) as plain,
        pytest.raises(SolverError, match=r'"found" has shape .* has no mean. Score detections with'),
    ):
        plain.test()
