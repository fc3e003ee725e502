"""The parts that the time of training is split into."""

import time

import torch
from small_solver import make

from pycaffe_compat.solver.parts import PARTS, Parts


def test_parts_add_up_to_what_training_took(tmp_path):
    solver = make(tmp_path)
    solver.step(1)
    solver.runner.parts.reset()
    start = time.perf_counter()
    solver.step(5)
    took = time.perf_counter() - start
    seconds = solver.runner.parts.seconds
    assert tuple(seconds) == PARTS
    assert all(value > 0 for value in seconds.values())
    assert sum(seconds.values()) <= took
    solver.close()


def test_time_between_parts_counts_for_none():
    parts = Parts(torch.device("cpu"))
    time.sleep(0.02)
    parts.begin()
    parts.end("data")
    assert parts.seconds["data"] < 0.02
    time.sleep(0.02)
    parts.end("update")
    assert parts.seconds["update"] >= 0.02
    assert parts.share("update") > parts.share("data") > 0
    parts.reset()
    assert sum(parts.seconds.values()) == 0
    assert parts.share("data") == 0
