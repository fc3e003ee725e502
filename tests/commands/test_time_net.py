"""Times of layers, and the lines that say them."""

import re
from pathlib import Path

import pytest

from pycaffe_compat.commands.device_query import device_query
from pycaffe_compat.commands.time_net import time_net
from pycaffe_compat.errors import SolverError
from pycaffe_compat.solver import log as lines

NET = """
name: "timed"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 16 dim: 16 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "a_relu_with_a_long_name" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "loss" type: "Reduction" bottom: "conv1" top: "loss" loss_weight: 2 include { phase: TRAIN } }
"""
NUMBER = r"([0-9.]+(?:e[-+]?\d+)?)"


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]):
    """Everything that commands log, without the prefix of the lines."""
    logger = lines.logger
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level
    yield lambda: [line.split("] ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


def test_every_layer_is_timed(logged, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    timing = time_net(str(tmp_path / "net.prototxt"), iterations=3)
    said = logged()
    layers = ["data", "conv1", "a_relu_with_a_long_name", "loss"]
    assert list(timing.forward_by_layer) == list(timing.backward_by_layer) == layers
    assert 0 < sum(timing.forward_by_layer.values()) <= timing.forward
    assert 0 < sum(timing.backward_by_layer.values()) <= timing.backward
    assert timing.forward + timing.backward <= timing.both
    assert said[:3] == ["Use CPU.", "Performing Forward", "Initial loss: 0"]
    assert [re.sub(NUMBER + " ms", "_ ms", line) for line in said[3:]] == [
        "Performing Backward",
        "*** Benchmark begins ***",
        "Testing for 3 iterations.",
        *(f"Iteration: {i} forward-backward time: _ ms." for i in (1, 2, 3)),
        "Average time per layer: ",
        *(f"{name:>10}\t{way}: _ ms." for name in layers for way in ("forward", "backward")),
        "Average Forward pass: _ ms.",
        "Average Backward pass: _ ms.",
        "Average Forward-Backward: _ ms.",
        "Total Time: _ ms.",
        "*** Benchmark ends ***",
        "A training step, its layers fused, with SGD: data _ ms, forward _ ms, backward _ ms, update _ ms.",
    ]
    assert list(timing.step) == ["data", "forward", "backward", "update"]
    assert all(each > 0 for each in timing.step.values())
    assert f"     conv1\tforward: {timing.forward_by_layer['conv1']:g} ms." in said


def test_a_deploy_net_is_timed_forward(logged, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    timing = time_net(str(tmp_path / "net.prototxt"), iterations=1, phase="TEST")
    assert list(timing.forward_by_layer) == ["data", "conv1", "a_relu_with_a_long_name"]
    assert timing.backward_by_layer["conv1"] < timing.forward_by_layer["conv1"]
    assert timing.step == {}
    with pytest.raises(SolverError, match=r"iterations: 0"):
        time_net(str(tmp_path / "net.prototxt"), iterations=0)


def test_gpus_are_shown_or_said_to_be_missing(logged) -> None:
    count = device_query()
    said = logged()
    assert said[0] == "Querying GPUs all"
    if count:
        assert sum(line.startswith("Device id: ") for line in said) == count
        assert sum(line.startswith("Total global memory: ") for line in said) == count
    else:
        assert said[1].startswith("No GPU: torch ")
    with pytest.raises(SolverError, match=r"there is no GPU 99"):
        device_query("99")
