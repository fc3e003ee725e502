"""tools/caffe.py: Caffe's command line, flags as its scripts write them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pycaffe_compat.layers import python_layer

Tool = Callable[..., tuple[int, str]]
NET = """
name: "made up"
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: 6 dim: 4 } shape { dim: 6 } data_filler { type: "gaussian" } data_filler { value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
"""
NUMBER = r"-?[0-9.]+(?:e[-+]?\d+)?"


def said(log: str) -> list[str]:
    return [line.split("] ", 1)[-1] for line in log.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{tmp_path / "net.prototxt"}" base_lr: 0.1 lr_policy: "step" gamma: 0.1 stepsize: 20 max_iter: 30 '
        f'display: 10 test_iter: 2 test_interval: 20 snapshot_prefix: "{tmp_path / "made"}" random_seed: 1 '
        "solver_mode: CPU"
    )
    return tmp_path


def test_train_then_test_then_read_the_log(folder: Path, tool: Tool) -> None:
    code, log = tool("caffe", "-logtostderr", "train", f"--solver={folder / 'solver.prototxt'}", "-phase", "TRAIN")
    assert code == 0, log
    lines = said(log)
    assert lines[0] == "-phase is not for train: left out"
    assert f"Creating training net from net file: {folder / 'net.prototxt'}" in lines
    assert f"Creating test net (#0) specified by net file: {folder / 'net.prototxt'}" in lines
    # scripts read intervals from the solver that Caffe logs
    assert "Initializing solver from parameters: " in lines and "\ntest_interval: 20\n" in log
    for line in ("Use CPU.", "Starting Optimization", "Solving made up", "Optimization Done."):
        assert line in lines
    (folder / "train.log").write_text(log)

    code, out = tool("parse_log", "-verbose", folder / "train.log", folder)
    assert (code, out) == (0, f"Wrote {folder / 'train.log.train'}\nWrote {folder / 'train.log.test'}\n")
    train = [line.split(",") for line in (folder / "train.log.train").read_text().splitlines()]
    assert train[0] == ["NumIters", "Seconds", "LearningRate", "loss"]
    assert [row[0] for row in train[1:]] == ["0.0", "10.0", "20.0"]
    assert [f"Train net output #0: loss = {row[3]} (* 1 = {row[3]} loss)" for row in train[1:]] == [
        line.strip() for line in lines if "Train net output" in line
    ]
    test = [line.split(",") for line in (folder / "train.log.test").read_text().splitlines()]
    assert test[0] == ["NumIters", "Seconds", "LearningRate", "accuracy", "loss"]
    assert [(row[0], row[2]) for row in test[1:]] == [("0.0", "0.1"), ("20.0", "0.1")]
    assert float(test[2][4]) < float(test[1][4])  # it learned that all labels are 1
    code, out = tool("plot_training_log", 5, folder / "rate.png", folder / "train.log")
    assert code == 0 and (folder / "rate.png").read_bytes()[:4] == b"\x89PNG", out

    weights = folder / "made_iter_30.caffemodel"
    arguments = ["-model", folder / "net.prototxt", "-weights", weights, "-iterations", 3]
    code, log = tool("caffe", *arguments, "test")
    assert code == 0, log
    lines = said(log)
    assert "Running for 3 iterations." in lines
    batches = [line for line in lines if line.startswith("Batch ")]
    assert [re.sub(f"= {NUMBER}$", "= _", line) for line in batches] == [
        f"Batch {i}, {name} = _" for i in range(3) for name in ("accuracy", "loss")
    ]
    losses = [float(line.split("= ")[1]) for line in batches if "loss" in line]
    mean = float(next(line for line in lines if line.startswith("Loss: ")).removeprefix("Loss: "))
    assert mean == pytest.approx(sum(losses) / 3, rel=1e-4)
    assert re.fullmatch(rf"loss = {NUMBER} \(\* 1 = {NUMBER} loss\)", lines[-1])


def test_time(folder: Path, tool: Tool) -> None:
    code, log = tool("caffe", "time", "--model", folder / "net.prototxt", "--iterations=2", "-phase", "test")
    lines = said(log)
    assert code == 0, log
    assert [line.split("\t")[0].strip() for line in lines if "\tforward: " in line] == [
        "data",
        "ip",
        "loss",
        "accuracy",
    ]
    assert re.fullmatch(rf"Average Forward pass: {NUMBER} ms\.", lines[-6])


def test_the_log_goes_to_a_folder_too(folder: Path, tool: Tool) -> None:
    logs = folder / "logs"
    code, log = tool("caffe", "device_query", "-log_dir", logs)
    assert code == 1 and f"there is no folder {logs}" in log
    logs.mkdir()
    (logs / "caffe.INFO").symlink_to("the log of an earlier run")
    code, log = tool("caffe", "device_query", f"--log_dir={logs}")
    file = (logs / "caffe.INFO").resolve()
    assert code == 0 and file.parent == logs and file.name.startswith("caffe.") and ".log.INFO." in file.name
    head, rest = file.read_text().split("threadid file:line] msg\n")
    assert rest == log
    assert re.fullmatch(r"Log file created at: (\d+/){2}\d+ [\d:]+\nRunning on machine: .+\nLog line format: .+ ", head)


def test_the_flags_of_caffes_logger(folder: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOG_minloglevel", "0")  # which the flag sets
    train = ["caffe", "train", "-solver", folder / "solver.prototxt", "-iterations", 1]
    code, log = tool(*train, "-v", 1, "--stderrthreshold=2", "-colorlogtostderr", "--logbufsecs", 0)
    assert code == 0 and "Optimization Done." in said(log)
    assert tool(*train, "-minloglevel", "2") == (0, "")
    monkeypatch.setenv("GLOG_minloglevel", "3")
    assert tool(*train) == (0, "")
    assert tool(*train, "-minloglevel=9") == (
        1,
        'caffe: -minloglevel: "9" is not a level; valid: 0 (all), 1 (warnings), 2 (errors), 3 (fatal errors)\n',
    )


def test_python_layers_run_when_they_are_allowed(folder: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(python_layer.VARIABLE, raising=False)
    monkeypatch.setattr(python_layer, "_allowed", False)
    monkeypatch.syspath_prepend(str(folder))
    (folder / "layer_that_says_caffe.py").write_text(
        "import caffe\n"
        "class Half(caffe.Layer):\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)\n"
        "    def forward(self, bottom, top): top[0].data[...] = bottom[0].data / 2\n"
        "    def backward(self, top, down, bottom): bottom[0].diff[...] = top[0].diff / 2\n"
    )
    python = 'type: "Python" bottom: "ip" top: "half" python_param { module: "layer_that_says_caffe" layer: "Half" }'
    (folder / "net.prototxt").write_text(f'{NET} layer {{ name: "half" {python} }}')
    arguments = ["caffe", "time", "-model", folder / "net.prototxt", "-iterations", 1]
    code, log = tool(*arguments)
    assert code == 1 and f"{python_layer.VARIABLE}=1" in log.splitlines()[-1]
    code, log = tool(*arguments, "--allow-python-layers")
    assert code == 0 and "half\tforward: " in log, log
    python_layer.allow(False)
    monkeypatch.setenv(python_layer.VARIABLE, "1")
    assert tool(*arguments)[0] == 0
    for name in [name for name in sys.modules if name.split(".")[0] == "caffe"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 0, "device_query  show the GPUs"),
        (["--help"], 0, "-solver X, --solver=X"),
        (["train", "-help"], 0, "--sighup_effect"),
        (["-version"], 0, "caffe version 1.0.0"),
        (["tarin", "-solver", "x"], 2, "invalid choice: 'tarin'"),
        (["train"], 2, "required: --solver"),
        (["test", "-model", "x"], 2, "required: --weights"),
        (["time"], 2, "required: --model"),
        (["train", "-solver", "nowhere.prototxt"], 1, "caffe: solver not found: nowhere.prototxt"),
        (["train", "-solver", "x", "-snapshot", "y", "-weights", "z"], 1, "not both"),
        (["test", "-model", "nowhere.prototxt", "-weights", "x"], 1, "caffe: net not found: nowhere.prototxt"),
        (["time", "-model", "nowhere.prototxt", "-gpu", "99"], 1, "there is no GPU 99"),
        (["device_query", "-gpu", "x"], 1, '"x" is not a number'),
    ],
)
def test_usage_and_mistakes(arguments: list[str], code: int, words: str, tool: Tool) -> None:
    ended, text = tool("caffe", *arguments)
    assert ended == code and words in text and "Traceback" not in text, text
