"""tools/train_net.py, run as users run it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from golden_files import ROOT as GOLDENS

from pycaffe_compat.proto import caffe_pb2, parse_text

Tool = Callable[..., tuple[int, str]]
NET = f"""
layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ crop_size: 8 mirror: true }}
  data_param {{ source: "{GOLDENS / "data" / "raw_lmdb"}" batch_size: 4 backend: LMDB }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "gaussian" std: 0.0001 }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
layer {{ name: "extra" type: "Silence" bottom: "label" include {{ phase: TRAIN stage: "quiet" }} }}
"""


@pytest.fixture
def solver(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    path = tmp_path / "solver.prototxt"
    path.write_text(
        f'net: "{tmp_path / "net.prototxt"}" base_lr: 0.0001 lr_policy: "fixed" momentum: 0.9 max_iter: 6 display: 2 '
        f'test_iter: 3 test_interval: 4 snapshot: 3 snapshot_prefix: "{tmp_path / "model"}" random_seed: 1 '
        "solver_mode: CPU"
    )
    return path


def test_train_then_go_on_then_fine_tune(solver: Path, tool: Tool) -> None:
    folder = solver.parent
    code, log = tool("train_net", "--solver", solver)
    assert code == 0, log
    through = (folder / "model_iter_6.caffemodel").read_bytes()
    (folder / "model_iter_6.caffemodel").unlink()
    code, log = tool("train_net", "-solver", solver, "-snapshot", folder / "model_iter_3.solverstate", "--progress")
    assert code == 0 and "Restoring previous solver status" in log, log
    assert "100%" in log and "images/s" in log  # the bar
    assert (folder / "model_iter_6.caffemodel").read_bytes() == through
    solver.write_text(solver.read_text().replace("snapshot: 3", ""))
    code, log = tool(
        "train_net", "--solver", solver, "--weights", folder / "model_iter_6.caffemodel", "--iterations", 0
    )
    assert code == 0 and "Finetuning from" in log, log
    tuned = caffe_pb2.NetParameter.FromString((folder / "model_iter_0.caffemodel").read_bytes())
    trained = caffe_pb2.NetParameter.FromString(through)
    assert [layer.blobs for layer in tuned.layer] == [layer.blobs for layer in trained.layer]


def test_a_solver_that_trains_nothing_is_reported(solver: Path, tool: Tool) -> None:
    assert tool("train_net", "--solver", solver)[0] == 0
    code, log = tool("train_net", "--solver", solver, "--snapshot", solver.parent / "model_iter_6.solverstate")
    assert code == 0 and "Iteration 6 is not before max_iter 6: nothing is left to train" in log, log
    solver.write_text(solver.read_text().replace("max_iter: 6", ""))
    code, log = tool("train_net", "--solver", solver)
    assert code == 1 and f"{solver}: max_iter is not set" in log, log
    assert tool("train_net", "--solver", solver, "--iterations", 1)[0] == 0


def test_log_parsers_find_their_lines(solver: Path, tool: Tool) -> None:
    """What Caffe's parse_log and extract_seconds read: the prefix, the start, iterations, rates, outputs."""
    _, log = tool("train_net", "--solver", solver, "--stage", "quiet")
    lines = log.splitlines()
    prefix = re.compile(r"^I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \w+\.cpp:\d+\] ")
    begin = next(i for i, line in enumerate(lines) if line.endswith("Initializing solver from parameters: ")) + 1
    end = next(i for i, line in enumerate(lines) if "Creating training net from" in line)
    parse_text("\n".join(lines[begin:end]), caffe_pb2.SolverParameter)
    assert all(prefix.match(line) for line in lines[:begin] + lines[end:]), log
    assert sum("Solving " in line for line in lines) == 1
    found: dict[str, list[tuple[int, float]]] = {"train": [], "test": [], "lr": []}
    iteration = -1
    for line in lines:
        if match := re.search(r"Iteration (\d+)", line):
            iteration = int(match[1])
        if match := re.search(r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)", line):
            found["lr"].append((iteration, float(match[1])))
        if match := re.search(r"Train net output #(\d+): (\S+) = ([\.\deE+-]+)", line):
            found["train"].append((iteration, float(match[3])))
        if match := re.search(r"Test net output #(\d+): (\S+) = ([\.\deE+-]+)", line):
            found["test"].append((iteration, float(match[3])))
    assert found["lr"] == [(0, 0.0001), (2, 0.0001), (4, 0.0001)]
    assert [i for i, _ in found["train"]] == [0, 2, 4]
    assert [i for i, _ in found["test"]] == [0, 0, 4, 4]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--solver", "nowhere.prototxt"], "nowhere.prototxt"),
        (["--weights", "a.caffemodel"], "a.caffemodel"),
        (["--snapshot", "a.solverstate"], "solver state not found: a.solverstate"),
        (["--snapshot", "a.solverstate", "--weights", "b"], "not both"),
        (["--gpu", "many"], "--gpu"),
        (["--gpu", "99"], "there is no GPU 99"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], words: str, solver: Path, tool: Tool) -> None:
    code, log = tool("train_net", "--solver", solver, *arguments)
    last = log.strip().splitlines()[-1]
    assert code == 1 and words in last and "Traceback" not in log, log


def test_help_shows_examples(tool: Tool) -> None:
    code, text = tool("train_net", "--help")
    assert code == 0 and "--weights encoder.caffemodel,decoder.caffemodel" in text and "torchrun" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("mode", "flags", "warns"), [("GPU", [], 1), ("GPU", ["--cpu"], 0), (None, [], 0)])
def test_training_on_the_cpu_where_the_solver_says_gpu_is_said_once(
    solver: Path, tool: Tool, mode: str | None, flags: list[str], warns: int
) -> None:
    solver.write_text(solver.read_text().replace("solver_mode: CPU", f"solver_mode: {mode}" if mode else ""))
    code, log = tool("train_net", "--solver", solver, "--iterations", 1, *flags)
    assert code == 0, log
    assert log.count(f"{solver}: solver_mode: GPU, but PyTorch finds no GPU here: training on the CPU") == warns
