"""Solver goldens through the pycaffe interface: parameters after every step, and going on from Caffe's own snapshot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden_files import Golden, assert_close, golden, names

import pycaffe_compat as caffe
from pycaffe_compat.errors import SolverError


def solver_of(case: Golden, folder: Path) -> caffe.SGDSolver:
    (folder / "net.prototxt").write_text(case.meta["net"])
    (folder / "solver.prototxt").write_text(
        f'net: "{folder}/net.prototxt" snapshot_prefix: "{folder}/snap" {case.meta["solver"]}'
    )
    return caffe.get_solver(str(folder / "solver.prototxt"))


def run(solver: caffe.SGDSolver, case: Golden, first: int, last: int) -> None:
    data = case.group("data")
    for k in range(first, last + 1):
        for blob, values in data.items():
            solver.net.blobs[blob].data[...] = values[k - 1]
        solver.step(1)
        assert_close(solver.net.blobs["loss"].data, case.arrays["loss"][k - 1], f"loss {k}")
        for path, want in case.group(f"param/{k}").items():
            layer, index = path.split("/")
            assert_close(solver.net.params[layer][int(index)].data, want, f"step {k}: {path}")


@pytest.mark.parametrize("name", names("solvers"))
def test_golden(name: str, tmp_path: Path) -> None:
    case = golden("solvers", name)
    solver = solver_of(case, tmp_path)
    for path, value in case.group("init").items():
        layer, index = path.split("/")
        solver.net.params[layer][int(index)].data[...] = value
    run(solver, case, 1, case.meta["iters"])
    assert solver.iter == case.meta["iters"]


@pytest.mark.parametrize("name", names("solvers"))
def test_going_on_from_caffes_snapshot(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = golden("solvers", name)
    monkeypatch.chdir(tmp_path)
    at = case.meta["snapshot_iter"]
    (tmp_path / f"snap_iter_{at}.caffemodel").write_bytes(case.group("file")["caffemodel"].tobytes())
    (tmp_path / f"snap_iter_{at}.solverstate").write_bytes(case.group("file")["solverstate"].tobytes())
    solver = solver_of(case, tmp_path)
    solver.net.copy_from(f"snap_iter_{at}.caffemodel")
    solver.restore(f"snap_iter_{at}.solverstate")
    assert solver.iter == at
    run(solver, case, at + 1, case.meta["iters"])


def test_a_class_trains_by_its_own_rule_and_get_solver_by_the_files(tmp_path: Path) -> None:
    case = golden("solvers", "adam")
    assert type(solver_of(case, tmp_path)) is caffe.AdamSolver
    assert caffe.NesterovSolver(str(tmp_path / "solver.prototxt")).param.type == "Nesterov"
    assert caffe.get_solver(bytes(tmp_path / "solver.prototxt")).param.type == "Adam"
    (tmp_path / "solver.prototxt").write_text('net: "x" type: "Adm" base_lr: 1')
    with pytest.raises(SolverError, match="did you mean Adam"):
        caffe.get_solver(str(tmp_path / "solver.prototxt"))


def test_snapshot_and_restore_go_on_alike(tmp_path: Path) -> None:
    case = golden("solvers", "nesterov")
    solver = solver_of(case, tmp_path)
    for path, value in case.group("init").items():
        layer, index = path.split("/")
        solver.net.params[layer][int(index)].data[...] = value
    run(solver, case, 1, 4)
    solver.snapshot()
    again = solver_of(case, tmp_path)
    again.restore(str(tmp_path / "snap_iter_4.solverstate"))
    run(again, case, 5, 8)
    for layer, blobs in solver.net.params.items():
        assert len(blobs) == len(again.net.params[layer])
    shared = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    again.share_weights(shared)
    np.testing.assert_array_equal(shared.params["ip"][0].data, again.net.params["ip"][0].data)


def test_arguments_that_a_solver_does_not_take(tmp_path: Path) -> None:
    solver = solver_of(golden("solvers", "adam"), tmp_path)
    for count in (-1, 1.5, "2", None):
        with pytest.raises(SolverError, match="the number of updates must be an integer of at least 0"):
            solver.step(count)
    solver.step(np.int64(0))
    for use, message in (
        (lambda: solver.restore(None), "restore takes the path of a solver state"),
        (lambda: solver.share_weights("x"), "share_weights takes a Net"),
        (lambda: solver.add_callback(print), "two functions"),
        (lambda: solver.add_callback(5, 6), "two functions"),
    ):
        with pytest.raises(TypeError, match=message):
            use()
    for name in ("net", "test_nets", "iter", "lr"):
        with pytest.raises(AttributeError):
            setattr(solver, name, None)
    assert solver.iter == 0
