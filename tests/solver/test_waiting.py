"""The time that waiting for data takes: on the progress line, and a warning that says what would help."""

import logging
import sys
import time
from pathlib import Path

import pytest
from small_solver import make, solver_param

from pycaffe_compat.solver import Hook, Solver
from pycaffe_compat.solver.hooks import Progress

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from samples import database, encoded, image


class Thinking(Hook):
    """Makes an iteration take as long as a larger net would."""

    def before_iteration(self, solver):
        time.sleep(0.11)


@pytest.fixture
def large_pictures(tmp_path):
    return database(tmp_path / "large", [encoded(image(i, 700, 900), i) for i in range(2)])


def said(caplog):
    return [record.getMessage() for record in caplog.records if "Waiting for data" in record.getMessage()]


def test_slow_data_is_told_once_with_what_would_help(large_pictures, tmp_path, caplog):
    param = solver_param(tmp_path)
    param.net_param.layer[0].data_param.source = large_pictures
    solver = Solver(param)
    solver.net.sources["data"].threads = 1
    with caplog.at_level(logging.WARNING, logger="pycaffe_compat"):
        while not said(caplog) and solver.iter < 2000:
            solver.step(5)
        told = said(caplog)
        assert len(told) == 1
        solver.step(40)
        assert said(caplog) == told
    assert solver.waiting.share > 0.05
    solver.close()
    assert 'layer "data" (Data): 1 thread, busy' in told[0]
    assert "of it reading and decoding images of 794² pixels" in told[0]
    assert "smaller pictures (caffe-convert-imageset --shorter_edge 14: the layer keeps 12²)" in told[0]


def test_data_that_is_there_in_time_is_not_mentioned(tmp_path, caplog):
    solver = make(tmp_path, "max_iter: 30", hooks=[Thinking()])
    assert solver.waiting.share is None
    with caplog.at_level(logging.WARNING, logger="pycaffe_compat"):
        solver.step(23)
    assert 0 <= solver.waiting.share < 0.05
    assert not said(caplog)
    solver.close()


def test_the_progress_line_has_it(tmp_path, capsys):
    solver = make(tmp_path, "max_iter: 4 snapshot_after_train: false", hooks=[Progress()])
    solver.solve()
    solver.close()
    assert "% waiting for data" in capsys.readouterr().err


def test_a_training_that_transforms_on_the_device_is_the_same(tmp_path, caplog):
    losses = []
    for on_device in (False, True):
        with caplog.at_level(logging.INFO, logger="pycaffe_compat"):
            solver = Solver(solver_param(tmp_path), device_transform=on_device)
        assert solver.net.sources["data"].device_transform is on_device
        solver.step(5)
        losses.append(solver.loss)
        solver.close()
    assert losses[0] == losses[1]
    told = [r.getMessage() for r in caplog.records if "on the device" in r.getMessage()]
    assert told == ["Subtracting means, scaling and mirroring on the device: layers data"]
