"""Solvers step by step against what Caffe computed, and from Caffe's own snapshots on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.solver import GraphRunner, Solver
from pycaffe_compat.solver.snapshot import open_state

GOLDENS = sorted((Path(__file__).parents[1] / "goldens" / "solvers").glob("*.npz"))


class Case:
    """One golden: a solver on its net, fed with the stored inputs."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.data = np.load(path)
        meta = json.loads(str(self.data["meta"]))
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

    def step(self) -> None:
        """One step; the loss and the parameters after it are Caffe's."""
        self.solver.step(1)
        done = self.solver.iter
        close(self.data["loss"][done - 1], self.solver.loss)
        for layer, blobs in self.solver.net.weights().items():
            for index, blob in enumerate(blobs):
                close(self.data[f"param/{done}/{layer}/{index}"], blob.numpy())


def close(want: np.ndarray, have: np.ndarray | float) -> None:
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("path", GOLDENS, ids=lambda p: p.stem)
def test_every_step_is_caffes(path: Path, tmp_path: Path) -> None:
    case = Case(path, tmp_path)
    with torch.no_grad():
        for layer, blobs in case.solver.net.weights().items():
            for index, blob in enumerate(blobs):
                blob.copy_(torch.from_numpy(case.data[f"init/{layer}/{index}"]))
    for _ in range(case.iters):
        case.step()


@pytest.mark.parametrize("path", GOLDENS, ids=lambda p: p.stem)
def test_caffes_own_snapshot_goes_on(path: Path, tmp_path: Path) -> None:
    case = Case(path, tmp_path)
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


@pytest.mark.parametrize("path", GOLDENS, ids=lambda p: p.stem)
def test_our_snapshot_is_what_caffe_wrote(path: Path, tmp_path: Path) -> None:
    case = Case(path, tmp_path)
    with torch.no_grad():
        for layer, blobs in case.solver.net.weights().items():
            for index, blob in enumerate(blobs):
                blob.copy_(torch.from_numpy(case.data[f"init/{layer}/{index}"]))
    case.solver.step(case.snapshot_iter)
    model_path, state_path = case.solver.snapshot()
    ours, caffes = caffe_pb2.SolverState(), caffe_pb2.SolverState()
    ours.ParseFromString(Path(state_path).read_bytes())
    caffes.ParseFromString(case.data["file/solverstate"].tobytes())
    assert (ours.iter, ours.current_step, ours.learned_net) == (caffes.iter, caffes.current_step, model_path)
    assert [list(blob.shape.dim) for blob in ours.history] == [list(blob.shape.dim) for blob in caffes.history]
    for mine, theirs in zip(ours.history, caffes.history, strict=True):
        close(np.array(theirs.data), np.array(mine.data))
    net, other = caffe_pb2.NetParameter(), caffe_pb2.NetParameter()
    net.ParseFromString(Path(model_path).read_bytes())
    other.ParseFromString(case.data["file/caffemodel"].tobytes())
    assert [layer.name for layer in net.layer if layer.blobs] == [layer.name for layer in other.layer if layer.blobs]
