"""Several processes that train one net, as pycaffe's scripts with NCCL do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import warm_start

import pycaffe_compat as caffe
from pycaffe_compat.errors import CaffeError
from pycaffe_compat.pycaffe import mode

NET = """
layer { name: "x" type: "Input" top: "x" top: "t" input_param { shape { dim: %d dim: 3 } shape { dim: %d dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 2 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""
SOLVER = 'train_net: "%s.prototxt" base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" iter_size: 2 layer_wise_reduce: true'
SCRIPT = """
import sys
import numpy as np
import caffe

rank, uid = int(sys.argv[1]), sys.argv[2].encode()
caffe.set_solver_count(2)
caffe.set_solver_rank(rank)
caffe.set_multiprocess(True)
solver = caffe.SGDSolver("half.prototxt.solver")
if rank == 0:
    solver.net.copy_from("start.caffemodel")
data = np.load("data.npz")
solver.net.blobs["x"].data[...] = data["x"][4 * rank : 4 * rank + 4]
solver.net.blobs["t"].data[...] = data["t"][4 * rank : 4 * rank + 4]
nccl = caffe.NCCL(solver, uid)
nccl.bcast()
solver.add_callback(nccl)
if solver.param.layer_wise_reduce:
    solver.net.after_backward(nccl)
solver.step(3)
solver.net.save(f"trained{rank}.caffemodel")
"""


def test_two_processes_train_as_one_with_both_their_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    data = {"x": random.standard_normal((8, 3)), "t": random.standard_normal((8, 2))}
    np.savez("data.npz", **data)
    for name, size in (("half", 4), ("whole", 8)):
        Path(f"{name}.prototxt").write_text(NET % (size, size))
        Path(f"{name}.prototxt.solver").write_text(SOLVER % name)
    alone = caffe.SGDSolver("whole.prototxt.solver")
    alone.net.save("start.caffemodel")
    for name, values in data.items():
        alone.net.blobs[name].data[...] = values
    alone.step(3)

    Path("script.py").write_text(SCRIPT)
    uid = caffe.NCCL.new_uid().decode()
    started = [warm_start.start("-m", "pycaffe_compat", "script.py", str(rank), uid) for rank in range(2)]
    for process in started:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    for rank in range(2):
        trained = caffe.Net("half.prototxt", f"trained{rank}.caffemodel", caffe.TEST)
        for mine, theirs in zip(trained.params["ip"], alone.net.params["ip"], strict=True):
            np.testing.assert_allclose(mine.data, theirs.data, rtol=1e-5, atol=1e-6)


@pytest.fixture
def two_solvers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(mode, "_solver_count", 2)
    yield


def test_ranks_that_cannot_be_are_refused(two_solvers: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for call, value in ((caffe.set_solver_count, 0), (caffe.set_solver_rank, -1)):
        with pytest.raises(CaffeError, match=str(value)):
            call(value)
    monkeypatch.setattr(mode, "_solver_rank", 2)
    (tmp_path / "net.prototxt").write_text(NET % (1, 1))
    (tmp_path / "solver.prototxt").write_text(SOLVER % "net")
    monkeypatch.chdir(tmp_path)
    solver = caffe.SGDSolver("solver.prototxt")
    with pytest.raises(CaffeError, match="rank 2 of 2"):
        caffe.NCCL(solver, caffe.NCCL.new_uid())


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_a_script_for_mpi_runs_in_one_process_and_not_in_several(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")
    caffe.mpi_init()
    caffe.mpi_finalize()
    caffe.mpi_fin()
    monkeypatch.setenv(variable, "4")
    with pytest.raises(CaffeError, match=r"MPI has started 4 processes.* torchrun"):
        caffe.mpi_init()
