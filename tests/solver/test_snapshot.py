"""Solver states: Caffe's own format, and files that are none."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_solver import RULES, make, solver_param, weights

from pycaffe_compat.errors import CaffeError, MissingFileError, SolverError
from pycaffe_compat.files import atomic_path
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.proto.wire import header
from pycaffe_compat.solver import Solver
from pycaffe_compat.solver.snapshot import EXTRA_FIELD, State, open_state, write_state

HISTORY = [torch.arange(6.0).reshape(2, 3), torch.tensor(7.0), torch.zeros(0, 4)]
STATE = State(12, "weights/näme_iter_12.caffemodel", 3, extra={"losses": [1.5]})


@pytest.mark.parametrize("name", ["a.solverstate", "a.solverstate.h5"])
def test_round_trip(name: str, tmp_path: Path) -> None:
    write_state(tmp_path / name, STATE, HISTORY)
    with open_state(tmp_path / name) as state:
        assert (state.iteration, state.learned_net, state.current_step) == (12, STATE.learned_net, 3)
        assert state.extra == STATE.extra
        assert [stored.shape for stored in state.history] == [(2, 3), (), (0, 4)]
        for stored, tensor in zip(state.history, HISTORY, strict=True):
            np.testing.assert_array_equal(stored.read(), tensor.numpy())


def test_binary_is_a_plain_solver_state(tmp_path: Path) -> None:
    write_state(tmp_path / "a.solverstate", STATE, HISTORY[:1])
    message = caffe_pb2.SolverState.FromString((tmp_path / "a.solverstate").read_bytes())
    assert (message.iter, message.learned_net, message.current_step) == (12, STATE.learned_net, 3)
    assert list(message.history[0].shape.dim) == [2, 3] and list(message.history[0].data) == [0, 1, 2, 3, 4, 5]


def test_hdf5_is_laid_out_as_caffes(tmp_path: Path) -> None:
    write_state(tmp_path / "a.solverstate.h5", STATE, HISTORY[:2])
    with h5py.File(tmp_path / "a.solverstate.h5") as file:
        assert file["iter"].shape == file["current_step"].shape == (1,) and file["iter"].dtype == np.int32
        kind = file["learned_net"].id.get_type()
        assert file["learned_net"].shape == () and not kind.is_variable_str()
        assert kind.get_size() == len(STATE.learned_net.encode()) + 1 and kind.get_strpad() == h5py.h5t.STR_NULLTERM
        assert sorted(file["history"]) == ["0", "1"] and file["history/0"].dtype == np.float32


@pytest.mark.parametrize("name", ["a.solverstate.h5", "renamed.solverstate"])
def test_hdf5_written_by_caffe_is_read(name: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / name, "w") as file:
        file["iter"] = np.array([4], np.int32)
        file["current_step"] = np.array([1], np.int32)
        file["learned_net"] = np.bytes_(b"x.caffemodel.h5")
        for index in range(11):
            file[f"history/{index}"] = np.full((2,), index, np.float32)
    with open_state(tmp_path / name) as state:
        assert (state.iteration, state.learned_net, state.extra) == (4, "x.caffemodel.h5", {})
        assert [stored.read()[0] for stored in state.history] == list(range(11))


def test_unpacked_and_double_histories_are_read(tmp_path: Path) -> None:
    message = caffe_pb2.SolverState(iter=1)
    message.history.add(num=1, channels=1, height=1, width=2).double_data.extend([0.5, 2.5])
    (tmp_path / "a.solverstate").write_bytes(message.SerializeToString())
    with open_state(tmp_path / "a.solverstate") as state:
        assert state.history[0].shape == (1, 1, 1, 2)
        assert state.history[0].read().ravel().tolist() == [0.5, 2.5]


def test_old_four_dimensional_histories_fit(tmp_path: Path) -> None:
    solver = make(tmp_path, RULES["SGD"])
    solver.step(2)
    _, path = solver.snapshot()
    message = caffe_pb2.SolverState.FromString(Path(path).read_bytes())
    for blob in message.history:
        dims = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
        blob.ClearField("shape")
        blob.num, blob.channels, blob.height, blob.width = dims
    Path(path).write_bytes(message.SerializeToString())
    other = make(tmp_path, RULES["SGD"])
    other.restore(path)
    for a, b in zip(solver.optimizer.history(), other.optimizer.history(), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize(("wrote", "reads"), [("SGD", "Adam"), ("AdaDelta", "SGD")])
def test_state_of_another_type(wrote: str, reads: str, tmp_path: Path) -> None:
    first = make(tmp_path, RULES[wrote])
    _, path = first.snapshot()
    with pytest.raises(SolverError, match=rf"history blobs; solver type {reads}"):
        make(tmp_path, RULES[reads]).restore(path)


def test_state_of_another_net(tmp_path: Path) -> None:
    _, path = make(tmp_path).snapshot()
    param = solver_param(tmp_path)
    param.net_param.layer[5].inner_product_param.num_output = 11
    other = Solver(param)
    before = weights(other)
    with pytest.raises(SolverError, match=r'history blob 2 has shape \(10, .* parameter "ip.weight" has \(11, '):
        other.restore(path)
    assert weights(other) == before and other.iter == 0


def test_weights_that_are_gone(tmp_path: Path) -> None:
    solver = make(tmp_path)
    model, path = solver.snapshot()
    Path(model).unlink()
    with pytest.raises(SolverError, match=r"small_iter_0\.caffemodel, which are not there$"):
        solver.restore(path)
    (tmp_path / "elsewhere").mkdir()
    moved = Path(path).rename(tmp_path / "elsewhere" / "moved.solverstate")
    with pytest.raises(SolverError, match=r"small_iter_0\.caffemodel, which are neither there nor at .*"):
        solver.restore(moved)
    with pytest.raises(MissingFileError, match="solver state not found"):
        solver.restore(tmp_path / "other.solverstate")


def _spoil(path: Path, **values: Any) -> None:
    message = caffe_pb2.SolverState.FromString(path.read_bytes())
    for name, value in values.items():
        setattr(message, name, value)
    path.write_bytes(message.SerializeToString())


@pytest.mark.parametrize(
    "extra", [b"{", b"[]", b'{"train": 3}', b'{"train": {"data": {"position": "x"}}, "tests": []}']
)
def test_an_extra_field_that_is_not_ours(extra: bytes, tmp_path: Path) -> None:
    solver = make(tmp_path)
    _, name = solver.snapshot()
    path = Path(name)
    message = caffe_pb2.SolverState.FromString(path.read_bytes())
    message.DiscardUnknownFields()
    path.write_bytes(message.SerializeToString() + header(EXTRA_FIELD, len(extra)) + extra)
    with pytest.raises(SolverError, match=r"small_iter_0\.solverstate"):
        solver.restore(path)


def test_iterations_out_of_range(tmp_path: Path) -> None:
    _, name = make(tmp_path).snapshot()
    _spoil(Path(name), iter=-3)
    with pytest.raises(SolverError, match=r"iter .* out of range"), open_state(name):
        pass


@pytest.mark.parametrize("name", ["empty.solverstate", "empty.solverstate.h5", "folder.solverstate"])
def test_what_is_no_state(name: str, tmp_path: Path) -> None:
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(SolverError, match="solver state"), open_state(tmp_path / name):
        pass


def test_hdf5_that_is_no_state(tmp_path: Path) -> None:
    path = tmp_path / "a.solverstate.h5"
    with h5py.File(path, "w") as file:
        file["iter"] = np.array([4], np.int32)
    with pytest.raises(SolverError, match='has no "learned_net"'), open_state(path):
        pass
    with h5py.File(path, "a") as file:
        file["learned_net"], file["current_step"] = b"x", np.array([1.5])
        file["history/0"] = np.zeros(2)
    with pytest.raises(SolverError, match="current_step"), open_state(path):
        pass
    with h5py.File(path, "a") as file:
        del file["current_step"]
        file["current_step"] = np.array([1])
        file["history/5"] = np.zeros(2)
    with pytest.raises(SolverError, match="named 0, 1, 2"), open_state(path):
        pass


@pytest.fixture(scope="module")
def valid(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("valid")
    for name in ("a.solverstate", "a.solverstate.h5"):
        write_state(folder / name, STATE, HISTORY)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["a.solverstate", "a.solverstate.h5"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_files_are_errors_of_ours_or_read(name: str, data: st.DataObject, valid: dict[str, bytes]) -> None:
    content = bytearray(valid[name])
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    for _ in range(data.draw(st.integers(0, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            with open_state(path) as state:
                for stored in state.history:
                    if np.prod(stored.shape, dtype=float) < 1e6:
                        stored.read()
        except CaffeError:
            pass


def test_diffs_are_the_updates(tmp_path: Path) -> None:
    solver = make(tmp_path, "snapshot_diff: true momentum: 0.9")
    before = [learnable.tensor.detach().clone() for learnable in solver.net.learnable]
    solver.step(1)
    model, _ = solver.snapshot()
    net = caffe_pb2.NetParameter.FromString(Path(model).read_bytes())
    blobs = [blob for layer in net.layer for blob in layer.blobs]
    for blob, old, learnable in zip(blobs, before, solver.net.learnable, strict=True):
        update = np.array(blob.diff).reshape(old.shape)
        np.testing.assert_allclose(old.numpy() - update, learnable.tensor.detach().numpy(), atol=1e-6)


def test_model_is_a_net_that_loads(tmp_path: Path) -> None:
    solver = make(tmp_path, "snapshot_format: HDF5")
    solver.step(1)
    model, state = solver.snapshot()
    assert (model, state) == (f"{tmp_path}/small_iter_1.caffemodel.h5", f"{tmp_path}/small_iter_1.solverstate.h5")
    other = Solver(solver_param(tmp_path), weights=[model])
    assert weights(other) == weights(solver)
    plain = parse_text("", caffe_pb2.SolverParameter)
    assert plain.snapshot_format == caffe_pb2.SolverParameter.BINARYPROTO


@pytest.mark.parametrize(
    ("stored", "fits"),
    [
        ((10, 100), True),
        ((1, 1, 10, 100), True),
        ((1, 10, 100), True),
        ((100, 10), False),
        ((1000,), False),
        ((10, 100, 1), False),
        ((10, 10, 10), False),
        ((1, 1, 1, 10, 100), True),  # as C3D stores them
        ((), False),
    ],
)
def test_histories_fit_where_weights_of_their_shape_do(stored: tuple[int, ...], fits: bool, tmp_path: Path) -> None:
    solver = make(tmp_path, RULES["SGD"])
    _, path = solver.snapshot()
    message = caffe_pb2.SolverState.FromString(Path(path).read_bytes())
    assert list(message.history[2].shape.dim) == [10, 100]
    message.history[2].shape.dim[:] = stored
    if not stored:
        message.history[2].data[:] = [1.0]
    Path(path).write_bytes(message.SerializeToString())
    if fits:
        solver.restore(path)
    else:
        with pytest.raises(SolverError, match="history blob 2 has shape"):
            solver.restore(path)


def test_snapshots_are_as_readable_as_other_files(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    for path in make(tmp_path).snapshot():
        assert Path(path).stat().st_mode == plain.stat().st_mode


def test_what_a_killed_run_left_is_removed_at_the_next_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stray = tmp_path / ".small_iter_4.caffemodel.abcd_123.caffemodel"
    stray.write_bytes(b"half")
    with atomic_path(tmp_path / "small_iter_9.solverstate") as temporary, caplog.at_level("INFO", "pycaffe_compat"):
        make(tmp_path, "max_iter: 1").solve()
        assert Path(temporary).exists()  # another training, which lives
    assert not stray.exists() and str(stray) in caplog.text
    assert (tmp_path / "small_iter_9.solverstate").exists()
