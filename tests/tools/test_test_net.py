"""tools/test_net.py against the same net run by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_files import ROOT as GOLDENS

from pycaffe_compat.net import Net

Tool = Callable[..., tuple[int, str]]
NET = f"""
layer {{ name: "data" type: "Data" top: "data" top: "label"
  data_param {{ source: "{GOLDENS / "data" / "raw_lmdb"}" batch_size: 4 backend: LMDB }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "gaussian" std: 0.0001 }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 3 }}
layer {{ name: "top3" type: "Accuracy" bottom: "ip" bottom: "label" top: "top3" accuracy_param {{ top_k: 3 }} }}
"""


def messages(log: str) -> list[str]:
    return [line.split("] ", 1)[-1] for line in log.splitlines()]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    model, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    model.write_text(NET)
    net = Net(model, "TEST")
    net.save(weights)
    net.close()
    return model, weights


def test_means_of_every_output(files: tuple[Path, Path], tool: Tool) -> None:
    model, weights = files
    code, log = tool("test_net", "--model", model, "-weights", weights, "--iterations", 5, "--cpu")
    lines = messages(log)
    assert code == 0, log
    net = Net(model, "TEST", weights=weights)
    with torch.no_grad():
        outputs = [net() for _ in range(5)]
    net.close()
    loss, top3 = (np.mean([float(o[name]) for o in outputs]) for name in ("loss", "top3"))
    assert [f"Batch {i}, top3 = {float(o['top3']):g}" for i, o in enumerate(outputs)] == [
        n for n in lines if "Batch" in n and "top3" in n
    ]
    assert f"Loss: {3 * loss:g}" in lines
    assert lines[-2:] == [f"loss = {loss:g} (* 3 = {3 * loss:g} loss)", f"top3 = {top3:g}"]


def test_mistakes_are_one_line(files: tuple[Path, Path], tmp_path: Path, tool: Tool) -> None:
    model, weights = files
    (tmp_path / "inputs.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 } } }'
    )
    for arguments, words in (
        (["--weights", tmp_path / "no.caffemodel", "--model", model], "no.caffemodel"),
        (["--weights", weights, "--model", tmp_path / "inputs.prototxt"], "Input layers"),
        (["--weights", weights, "--model", model, "--iterations", 0], "iterations: 0"),
    ):
        code, log = tool("test_net", *arguments)
        assert code == 1 and words in log.strip().splitlines()[-1] and "Traceback" not in log, log


def test_layers_without_weights_are_named(files: tuple[Path, Path], tmp_path: Path, tool: Tool) -> None:
    model, weights = files
    more = (
        NET
        + """
    layer { name: "other" type: "InnerProduct" bottom: "data" top: "other" inner_product_param { num_output: 2 } }
    """
    )
    (tmp_path / "more.prototxt").write_text(more)
    code, log = tool(
        "test_net", "--model", tmp_path / "more.prototxt", "--weights", weights, "--iterations", 1, "--cpu"
    )
    assert code == 0 and f"No weights for other in {weights}: they keep what their fillers made" in log, log
    model.write_text(NET.replace('"ip"', '"fc"'))
    code, log = tool("test_net", "--model", model, "--weights", weights, "--iterations", 1, "--cpu")
    assert code == 1 and f"{weights} has no weights for any layer of {model}" in log, log
    (tmp_path / "solver.prototxt").write_text(
        f'net: "{model}" base_lr: 0.1 lr_policy: "fixed" max_iter: 0 snapshot_after_train: false solver_mode: CPU'
    )
    code, log = tool("train_net", "--solver", tmp_path / "solver.prototxt", "--weights", weights)
    assert code == 0 and f"No weights for fc in {weights}" in log, log
