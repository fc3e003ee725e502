"""Solvers step by step against what Caffe computed, and from Caffe's own snapshots on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_files import assert_close, golden, names

from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.solver import GraphRunner, Solver
from pycaffe_compat.solver.snapshot import open_state

GOLDENS = names("solvers")


class Case:
    """One golden: a solver on its net, fed with the stored inputs."""

    def __init__(self, name: str, folder: Path) -> None:
        read = golden("solvers", name)
        self.data, meta = read.arrays, read.meta
        self.iters, self.snapshot_iter = meta["iters"], meta["snapshot_iter"]
        param = parse_text(meta["solver"], caffe_pb2.SolverParameter)
        param.net_param.CopyFrom(parse_text(meta["net"], caffe_pb2.NetParameter))
        param.snapshot_prefix = str(folder / "golden")
        case = self

        class Fed(GraphRunner):
            def batch(self) -> dict[str, torch.Tensor]:
                index = case.solver.iter
                return {name: torch.from_numpy(case.data[f"data/{name}"][index].copy()) for name in self.net.inputs}

        self.solver = Solver(param, device="cpu", runner=Fed)

    def begin(self) -> None:
        """Take the parameters that Caffe began with."""
        with torch.no_grad():
            for layer, blobs in self.solver.net.weights().items():
                for index, blob in enumerate(blobs):
                    blob.copy_(torch.from_numpy(self.data[f"init/{layer}/{index}"]))

    def step(self) -> None:
        """One step; the loss and the parameters after it are Caffe's."""
        self.solver.step(1)
        done = self.solver.iter
        assert_close(np.float32(self.solver.loss), self.data["loss"][done - 1], f"loss of step {done}")
        for layer, blobs in self.solver.net.weights().items():
            for index, blob in enumerate(blobs):
                key = f"param/{done}/{layer}/{index}"
                assert_close(blob.numpy(), self.data[key], key)


@pytest.mark.parametrize("name", GOLDENS)
def test_every_step_is_caffes(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    case.begin()
    for _ in range(case.iters):
        case.step()


@pytest.mark.parametrize("name", GOLDENS)
def test_caffes_own_snapshot_goes_on(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    state = tmp_path / "caffe.solverstate"
    state.write_bytes(case.data["file/solverstate"].tobytes())
    with open_state(state) as opened:
        model = tmp_path / Path(opened.learned_net).name
        assert not opened.extra
    model.write_bytes(case.data["file/caffemodel"].tobytes())
    case.solver.restore(state)
    assert case.solver.iter == case.snapshot_iter
    while case.solver.iter < case.iters:
        case.step()


@pytest.mark.parametrize("name", GOLDENS)
def test_our_snapshot_is_what_caffe_wrote(name: str, tmp_path: Path) -> None:
    case = Case(name, tmp_path)
    case.begin()
    case.solver.step(case.snapshot_iter)
    model_path, state_path = case.solver.snapshot()
    ours, caffes = caffe_pb2.SolverState(), caffe_pb2.SolverState()
    ours.ParseFromString(Path(state_path).read_bytes())
    caffes.ParseFromString(case.data["file/solverstate"].tobytes())
    assert (ours.iter, ours.current_step, ours.learned_net) == (caffes.iter, caffes.current_step, model_path)
    assert [list(blob.shape.dim) for blob in ours.history] == [list(blob.shape.dim) for blob in caffes.history]
    for mine, theirs in zip(ours.history, caffes.history, strict=True):
        assert_close(np.array(mine.data), np.array(theirs.data), "history")
    net, other = caffe_pb2.NetParameter(), caffe_pb2.NetParameter()
    net.ParseFromString(Path(model_path).read_bytes())
    other.ParseFromString(case.data["file/caffemodel"].tobytes())
    assert [layer.name for layer in net.layer if layer.blobs] == [layer.name for layer in other.layer if layer.blobs]
