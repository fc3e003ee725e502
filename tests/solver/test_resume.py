"""N + M iterations are N, stop, resume, M: bit for bit, with data order, crops, mirrors and dropout."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from small_solver import RULES, make, weights

from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.solver import Solver
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
