"""Arrays where numpy cannot work in the tensors' memory, as on a GPU: copies, up- and downloaded when they must be.

Where there is a GPU the tests run on it; elsewhere on the CPU with its memory kept out of numpy's reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_files import assert_close, golden, names

import pycaffe_compat as caffe
from pycaffe_compat.pycaffe import blob as blob_module

NET = """
force_backward: true
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "tanh" type: "TanH" bottom: "ip" top: "ip" }
layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1 reduction_param { operation: SUMSQ } }
"""


@pytest.fixture(autouse=True)
def far(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" snapshot_prefix: "s" test_iter: 1 test_interval: 2'
    )
    if torch.cuda.is_available():
        caffe.set_mode_gpu()
    else:
        monkeypatch.setattr(blob_module, "in_host_memory", lambda device: False)
    yield
    caffe.set_mode_cpu()


def filled(net: caffe.Net) -> caffe.Net:
    net.blobs["data"].data[...] = np.arange(6).reshape(2, 3) / 6
    return net


def test_writes_are_used_and_results_are_read() -> None:
    net = filled(caffe.Net("net.prototxt", caffe.TRAIN))
    held = net.blobs["ip"].data
    assert not np.shares_memory(held, net.params["ip"][0].data)
    net.params["ip"][0].data[...] = weight = np.linspace(-1, 1, 12).reshape(4, 3).astype(np.float32)
    net.params["ip"][1].data[:] = 0.5
    out = net.forward(blobs=["ip"])
    want = np.tanh(net.blobs["data"].data @ weight.T + 0.5)
    np.testing.assert_allclose(out["ip"], want, rtol=1e-5)
    np.testing.assert_allclose(out["loss"], (want**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(net.blobs["ip"].data, want, rtol=1e-5)
    net.blobs["ip"].data[0] = 0
    np.testing.assert_allclose(net.forward(start="loss")["loss"], (want[1] ** 2).sum(), rtol=1e-5)
    net.forward()
    net.backward()
    once = net.params["ip"][0].diff.copy()
    assert np.abs(once).max() > 0
    net.params["ip"][0].diff[...] += 1
    net.backward()
    np.testing.assert_allclose(net.params["ip"][0].diff, 2 * once + 1, rtol=1e-4)
    net.clear_param_diffs()
    assert not net.params["ip"][0].diff.any()


def test_reshape_keeps_written_values() -> None:
    net = filled(caffe.Net("net.prototxt", caffe.TRAIN))
    net.blobs["data"].reshape(1, 6)
    np.testing.assert_allclose(net.blobs["data"].data, np.arange(6)[None] / 6)
    net.blobs["data"].reshape(4, 3)
    assert not net.blobs["data"].data.any()
    assert net.forward(end="ip")["ip"].shape == (4, 4)


def test_loaded_and_shared_weights_are_not_overwritten_by_arrays_from_before() -> None:
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.save("w.caffemodel")
    want = net.params["ip"][0].data.copy()
    net.params["ip"][0].data[...] = 9
    net.copy_from("w.caffemodel")
    filled(net).forward()
    np.testing.assert_array_equal(net.params["ip"][0].data, want)
    other = caffe.Net("net.prototxt", caffe.TEST)
    other.params["ip"][0].data[...] = 7
    net.params["ip"][0].data[...] = 3
    other.share_with(net)
    other.forward()
    np.testing.assert_array_equal(other.params["ip"][0].data, 3)
    net.params["ip"][0].data[...] = 2  # the other net sees it, though this one does not run
    other.params["ip"][1].data[...] = 4
    out = filled(other).forward(blobs=["ip"])["ip"]
    np.testing.assert_allclose(
        out, np.tanh(2 * other.blobs["data"].data.sum(1, keepdims=True) + 4) * np.ones(4), rtol=1e-5
    )
    other.params["ip"][0].data[0] = 5
    assert net.params["ip"][0].data[0, 0] == 5 and net.params["ip"][0].data[1, 0] == 2
    net.params["ip"][0].data[...] = 3
    assert other.params["ip"][0].data[0, 0] == 3
    other.save("x.caffemodel")
    np.testing.assert_array_equal(caffe.Net("net.prototxt", "x.caffemodel", caffe.TEST).params["ip"][0].data, 3)


def test_a_solver_uses_written_values_and_shows_its_results() -> None:
    solver = caffe.SGDSolver("solver.prototxt")
    filled(solver.net), filled(solver.test_nets[0])
    solver.net.params["ip"][0].data[...] = 0.25
    solver.net.params["ip"][0].diff[...] = 2
    solver.apply_update()
    np.testing.assert_allclose(solver.net.params["ip"][0].data, 0.05, atol=1e-6)
    np.testing.assert_array_equal(solver.test_nets[0].params["ip"][0].data, solver.net.params["ip"][0].data)
    solver.step(2)
    solver.snapshot()
    kept = solver.net.params["ip"][0].data.copy()
    solver.net.params["ip"][0].data[...] = 0
    solver.restore("s_iter_2.solverstate")
    np.testing.assert_array_equal(solver.net.params["ip"][0].data, kept)
    solver.step(1)
    assert (solver.net.params["ip"][0].data != kept).any()


@pytest.mark.parametrize("name", names("solvers")[:3])
def test_solver_goldens(name: str) -> None:
    case = golden("solvers", name)
    Path("net.prototxt").write_text(case.meta["net"])
    Path("solver.prototxt").write_text(f'net: "net.prototxt" snapshot_prefix: "s" {case.meta["solver"]}')
    solver = caffe.get_solver("solver.prototxt")
    for path, value in case.group("init").items():
        layer, index = path.split("/")
        solver.net.params[layer][int(index)].data[...] = value
    for k in range(1, case.meta["iters"] + 1):
        for blob, values in case.group("data").items():
            solver.net.blobs[blob].data[...] = values[k - 1]
        solver.step(1)
        for path, want in case.group(f"param/{k}").items():
            layer, index = path.split("/")
            assert_close(solver.net.params[layer][int(index)].data, want, f"step {k}: {path}")
