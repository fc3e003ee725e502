"""N + M iterations are N, stop, resume, M: bit for bit, with data order, crops, mirrors and dropout."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from small_solver import RULES, make, weights, write_files

from pycaffe_compat.errors import SolverError
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.solver import Solver
from pycaffe_compat.solver.resume import flaw, newest_sound
from pycaffe_compat.solver.run import train
from pycaffe_compat.solver.snapshot import open_state

POLICY = 'lr_policy: "multistep" gamma: 0.5 stepvalue: 2 stepvalue: 5 average_loss: 3'


@pytest.mark.parametrize("layout", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("rule", RULES)
def test_resumed_run_is_the_uninterrupted_one(rule: str, layout: str, tmp_path: Path) -> None:
    options = f"{RULES[rule]} {POLICY} snapshot_format: {layout} iter_size: 2"
    through = make(tmp_path, options)
    through.step(7)
    stopped = make(tmp_path, options)
    stopped.step(4)
    _, state = stopped.snapshot()
    stopped.step(2)  # what comes after the snapshot leaves no trace in it
    resumed = make(tmp_path, options + " random_seed: 77")
    resumed.restore(state)
    resumed.step(3)
    assert resumed.iter == 7
    assert weights(resumed) == weights(through)
    assert (resumed.loss, resumed.rate) == (through.loss, through.rate)
    learned = [learnable.tensor for learnable in resumed.net.learnable]
    theirs = [learnable.tensor for learnable in through.net.learnable]
    for mine, other in zip(resumed.optimizer.history(learned), through.optimizer.history(theirs), strict=True):
        assert mine.equal(other)


def test_solve_resumes_with_the_same_tests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = "test_interval: 2 test_iter: 1 display: 1 snapshot: 4 max_iter: 8"

    def scores() -> list[str]:
        texts = [record.getMessage() for record in caplog.records]
        return [t for t in texts if "net output" in t or (", loss = " in t and t.startswith("Iteration 8"))]

    with caplog.at_level(logging.INFO, "pycaffe_compat"):
        make(tmp_path, options).solve()
        through = scores()
        caplog.clear()
        resumed = make(tmp_path, options)
        resumed.solve(tmp_path / "small_iter_4.solverstate")
    assert scores() == through[-len(scores()) :]
    assert len([t for t in scores() if "Test net output" in t]) == 6  # at 4, 6 and 8: loss and accuracy


def test_a_state_without_positions_goes_on_by_its_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = "iter_size: 2 type: 'SGD'"
    through = make(tmp_path, options, dropout=0)
    through.step(5)
    stopped = make(tmp_path, options, dropout=0)
    stopped.step(3)
    _, path = stopped.snapshot()
    with open_state(path) as state:
        assert state.extra["train"]["data"]["position"] == 30
    plain = caffe_pb2.SolverState.FromString(Path(path).read_bytes())
    plain.DiscardUnknownFields()
    Path(path).write_bytes(plain.SerializeToString())
    resumed = make(tmp_path, options, dropout=0)
    with caplog.at_level(logging.INFO, "pycaffe_compat"):
        resumed.restore(path)
    assert "goes on after 6 batches" in caplog.text
    resumed.step(2)
    assert weights(resumed) == weights(through)


def test_weights_are_found_beside_a_state_that_was_moved(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    first = make(there)
    first.step(2)
    first.snapshot()
    there.rename(here)
    second = make(tmp_path)
    second.restore(here / "small_iter_2.solverstate")
    assert weights(second) == weights(first)


RECURRENT = """
base_lr: 0.1 lr_policy: "fixed" type: "SGD" momentum: 0.9 random_seed: 5 snapshot_prefix: "PREFIX"
net_param {
  layer { name: "data" type: "DummyData" top: "x" top: "cont" top: "y"
    dummy_data_param {
      shape { dim: 3 dim: 2 dim: 4 } shape { dim: 3 dim: 2 } shape { dim: 3 dim: 2 dim: 5 }
      data_filler { type: "gaussian" } data_filler { value: 1 } data_filler { type: "gaussian" } } }
  layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h"
    recurrent_param { num_output: 5 weight_filler { type: "uniform" min: -0.5 max: 0.5 } } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "h" bottom: "y" top: "loss" }
}
"""


def test_a_sequence_that_goes_on_over_batches_goes_on_after_resuming(tmp_path: Path) -> None:
    def solver() -> Solver:
        text = RECURRENT.replace("PREFIX", str(tmp_path / "lstm"))
        return Solver(parse_text(text, caffe_pb2.SolverParameter), device="cpu")

    through = solver()
    through.step(5)
    stopped = solver()
    stopped.step(2)
    _, state = stopped.snapshot()
    resumed = solver()
    resumed.restore(state)
    resumed.step(3)
    assert weights(resumed) == weights(through)


def spoil_model(state: Path) -> None:
    model = state.with_suffix(".caffemodel")
    model.write_bytes(model.read_bytes()[:-50])


def change_model(state: Path) -> None:
    model = state.with_suffix(".caffemodel")
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)


def change_history(state: Path) -> None:
    content = bytearray(state.read_bytes())
    content[2000] ^= 1
    state.write_bytes(content)


def change_generators(state: Path) -> None:
    content = state.read_bytes()
    at = content.index(b'"cpu": "') + 4000
    other = b"A" if content[at : at + 1] != b"A" else b"B"
    state.write_bytes(content[:at] + other + content[at + 1 :])


def cut_between_fields(state: Path) -> None:
    with open_state(state):
        message = caffe_pb2.SolverState.FromString(state.read_bytes())
    message.ClearField("current_step")
    del message.history[1:]
    state.write_bytes(message.SerializeToString())


FLAWS = {
    "state cut": (lambda state: state.write_bytes(state.read_bytes()[:-20]), "is not a solver state"),
    "state cut between fields": (cut_between_fields, "current_step, is missing"),
    "state empty": (lambda state: state.write_bytes(b""), "not a solver state"),
    "state of zeros": (lambda state: state.write_bytes(bytes(state.stat().st_size)), "not a solver state"),
    "state a folder": (lambda state: (state.unlink(), state.mkdir()), "not a solver state"),
    "state a dangling link": (lambda state: (state.unlink(), state.symlink_to("gone")), "link to gone"),
    "history changed": (change_history, "CRC-32"),
    "generators changed": (
        change_generators,
        "it is damaged: the field that this package adds has been changed (CRC-32)",
    ),
    "model cut": (spoil_model, "were written with the state"),
    "model empty": (lambda state: state.with_suffix(".caffemodel").write_bytes(b""), "has 0 bytes"),
    "model gone": (lambda state: state.with_suffix(".caffemodel").unlink(), "which are not there"),
    "model changed": (change_model, "damaged, or of another run"),
}


@pytest.mark.parametrize("kind", FLAWS)
def test_resume_passes_over_a_snapshot_that_is_not_sound(kind: str, tmp_path: Path) -> None:
    options = f"{RULES['SGD']} snapshot: 2 max_iter: 7"
    (tmp_path / "through").mkdir()
    through = make(tmp_path / "through", options)
    through.step(7)
    first = write_files(tmp_path, options)
    train(str(first), cpu=True, iterations=6, progress=False)
    (tmp_path / "small_iter_10.solverstate").write_bytes((tmp_path / "small_iter_6.solverstate").read_bytes())
    (tmp_path / "other_iter_99.solverstate").write_bytes(b"")  # of another prefix
    spoil, why = FLAWS[kind]
    newest = tmp_path / "small_iter_10.solverstate"
    if "model" in kind:
        newest.unlink()
        newest = tmp_path / "small_iter_6.solverstate"
    spoil(newest)
    said = io.StringIO()
    resumed = train(str(first), cpu=True, resume=True, weights="gone.caffemodel", progress=False, log_file=said)
    passed = [line for line in said.getvalue().splitlines() if line.startswith("W")]
    assert len(passed) == 1 and f"] Passing over {newest}: " in passed[0] and why in passed[0]
    used = 4 if "model" in kind else 6
    assert f"Restoring previous solver status from {tmp_path}/small_iter_{used}.solverstate" in said.getvalue()
    assert weights(resumed) == weights(through)


def test_resume_without_snapshots_starts_from_the_weights(tmp_path: Path) -> None:
    options = "max_iter: 0 snapshot_after_train: false"
    given = make(tmp_path, "random_seed: 8")
    given.net.save(tmp_path / "given.caffemodel")
    solver = str(write_files(tmp_path, options))
    said = io.StringIO()
    train(solver, cpu=True, resume=True, progress=False, log_file=said)
    assert f"No sound snapshot of {tmp_path}/small to resume from: starting from the beginning" in said.getvalue()
    model = f"{tmp_path}/given.caffemodel"
    started = train(solver, cpu=True, resume=True, weights=model, progress=False, log_file=said)
    assert f"starting from the weights {model}" in said.getvalue()
    assert weights(started) == weights(given)


def test_a_snapshot_of_another_type_or_net_is_not_passed_over(tmp_path: Path) -> None:
    make(tmp_path, RULES["Adam"]).snapshot()
    solver = str(write_files(tmp_path, RULES["SGD"]))
    with pytest.raises(SolverError, match=r"small_iter_0\.solverstate has .* solver type SGD"):
        train(solver, cpu=True, resume=True, progress=False)


def test_caffes_own_snapshots_without_checksums_are_resumed_from(tmp_path: Path) -> None:
    solver = make(tmp_path)
    solver.step(3)
    model, name = solver.snapshot()
    path = Path(name)
    message = caffe_pb2.SolverState.FromString(path.read_bytes())
    message.DiscardUnknownFields()
    path.write_bytes(message.SerializeToString())
    assert newest_sound(solver.param) == name
    whole = Path(model).read_bytes()
    Path(model).write_bytes(whole[: len(whole) // 2])
    assert flaw(path)


@pytest.mark.parametrize("layout", ["BINARYPROTO", "HDF5"])
def test_of_two_formats_the_solvers_own_comes_first(layout: str, tmp_path: Path) -> None:
    for each in ("BINARYPROTO", "HDF5"):
        make(tmp_path, f"snapshot_format: {each}").snapshot()
    solver = make(tmp_path, f"snapshot_format: {layout}")
    assert newest_sound(solver.param) == solver.snapshot_filename(".solverstate")


@pytest.mark.parametrize("name", ["solverstate", "solverstate.h5"])
def test_every_cut_of_a_state_is_noticed(name: str, tmp_path: Path) -> None:
    """Also one between two fields, where what is left is a valid message."""
    layout = "HDF5" if name.endswith("h5") else "BINARYPROTO"
    solver = make(tmp_path, f"snapshot_format: {layout} type: 'SGD'")
    path = Path(solver.snapshot()[1])
    content = path.read_bytes()
    ends = {*range(40), *range(len(content) - 300, len(content)), *range(0, len(content), 97)}
    for end in sorted(ends):
        path.write_bytes(content[:end])
        assert flaw(path), end
    path.write_bytes(content)
    assert not flaw(path)


def test_resume_and_snapshot_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(SolverError, match="not both"):
        train(str(write_files(tmp_path)), resume=True, snapshot="x.solverstate")
