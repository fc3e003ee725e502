"""tests/goldens/make_golden.py: with this package as its Caffe it makes the goldens that Caffe made."""

from __future__ import annotations

import json
import runpy
import subprocess
from pathlib import Path
from typing import Any

import golden_files
import numpy as np
import pytest
import warm_start

import pycaffe_compat

SCRIPT = golden_files.ROOT / "make_golden.py"
MAKER: dict[str, Any] = runpy.run_path(str(SCRIPT))
NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 5 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "loss" }
layer { name: "bn" type: "BatchNorm" bottom: "y" top: "z" }
"""


# One of each kind: gradients, a shared blob, statistics, a loss, an output without a gradient, no backward pass, no
# force_backward, the fork. tests/pycaffe/test_layer_goldens.py has them all.
LIKE = (
    *("conv_k3p1", "ip_shared", "bn_train", "bn_test", "inplace_chain", "infogain", "pool_mask_k2s2", "accuracy"),
    *("embed", "lstm", "filter", "depool_switch_k2s2", "dropout_test"),
)


@pytest.mark.parametrize("name", LIKE)
def test_it_makes_the_goldens_again(name: str) -> None:
    golden = golden_files.golden("layers", name)
    made, meta = MAKER["like"](pycaffe_compat, golden_files.ROOT / "layers" / f"{name}.npz")
    assert set(made) == set(golden.arrays)
    for key, want in golden.arrays.items():
        if key == "param_diff/c_l/1":  # a bias in front of a BatchNorm: 0 but for rounding
            np.testing.assert_allclose(made[key], want, atol=1e-5)
        else:
            golden_files.assert_close(made[key], want, f"{name}: {key}")
        assert made[key].dtype == want.dtype
    assert {**meta, "source": ""} == {**golden.meta, "source": ""}


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return warm_start.run(SCRIPT, *arguments, "--caffe", "pycaffe_compat", cwd=folder)


def test_a_new_golden_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    np.save(tmp_path / "t.npy", np.arange(4.0))
    arguments = ("--input", "t=t.npy", "--param", "ip/1=constant:0.5", "--no-diff", "t", "--seed", "3")
    done = run(tmp_path, "net.prototxt", "new.npz", *arguments)
    assert done.returncode == 0, done.stderr
    golden = golden_files.Golden(tmp_path / "new.npz")
    assert golden.meta["prototxt"] == "force_backward: true\n" + NET
    assert set(golden.group("out")) == {"y", "loss", "z"}
    assert set(golden.group("in_diff")) == {"x"}
    assert set(golden.group("top_diff")) == {"z"}
    assert set(golden.group("state")) == {"bn/0", "bn/1", "bn/2"}
    np.testing.assert_array_equal(golden.group("in")["t"], np.arange(4))
    weight, bias, x = golden.group("param")["ip/0"], golden.group("param")["ip/1"], golden.group("in")["x"]
    np.testing.assert_array_equal(bias, np.full(5, 0.5))
    np.testing.assert_allclose(golden.group("out")["y"], x @ weight.T + 0.5, rtol=1e-5)
    assert run(tmp_path, "--like", "new.npz", "again.npz").returncode == 0
    for key, want in golden_files.Golden(tmp_path / "again.npz").arrays.items():
        np.testing.assert_array_equal(golden.arrays[key], want)
    done = run(tmp_path, "net.prototxt", "part.npz", *arguments[:2], "--blobs", "z", "--forward-only", "--seed", "4")
    assert done.returncode == 0, done.stderr
    part = golden_files.Golden(tmp_path / "part.npz")
    assert set(part.group("out")) == {"z"} and not part.group("in_diff")
    assert not np.array_equal(part.group("in")["x"], x)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["net.prototxt", "a.npz", "--input", "t=labels"], "in/t=labels: a SPEC is"),
        (["net.prototxt", "a.npz", "--input", "u=normal:0,1"], "the net has no in/u; it has in/x, in/t"),
        (["net.prototxt", "a.npz", "--forward-only", "--blobs", "w"], "the net makes no w; it makes y, loss, z"),
        (["a.npz"], "give a NET or --like"),
    ],
)
def test_mistakes(arguments: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(
        NET.replace('type: "SoftmaxWithLoss"', 'type: "EuclideanLoss"').replace(
            'bottom: "t" top: "loss"', 'bottom: "y" top: "loss"'
        )
    )
    done = run(tmp_path, *arguments)
    assert done.returncode != 0 and words in done.stderr
    assert not (tmp_path / "a.npz").exists()


def test_its_meta_is_what_the_goldens_have(tmp_path: Path) -> None:
    golden, meta = MAKER["make"](pycaffe_compat, NET, specs={"in/t": "integers:0,5"}, source="a Caffe")
    MAKER["write"](tmp_path / "a.npz", golden, meta)
    with np.load(tmp_path / "a.npz") as file:
        written = json.loads(str(file["meta"]))
    assert set(written) == set(golden_files.golden("layers", "conv_k3p1").meta)
    assert written["source"] == "a Caffe"
