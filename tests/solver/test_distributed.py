"""Several processes are one process with the batch of all of them."""

from __future__ import annotations

from pathlib import Path

import torch
import warm_start
from small_solver import make, write_files

ROOT = Path(__file__).parents[2]
LEAVE = """
import sys, weakref
import torch.distributed as dist
from pycaffe_compat.solver import Solver, distributed

distributed.start(use_gpu=False)
solver = Solver(sys.argv[1])
group = weakref.ref(dist.group.WORLD)
solver.step(2)
solver.close()
distributed.stop()
sys.exit("the solver holds its process group" if group() is not None else 0)
"""


def run_two(*arguments: str | Path) -> str:
    """Run a program as both processes; return what they wrote to standard error."""
    errors = ""
    for process in warm_start.start_ranks(*arguments):
        errors += process.communicate(100)[1]
        assert process.returncode == 0, errors
    return errors


def test_two_processes_are_one_with_both_batches(tmp_path: Path) -> None:
    options = (
        'type: "Nesterov" momentum: 0.9 weight_decay: 0.01 clip_gradients: 1 iter_size: 2 max_iter: 4 '
        "test_iter: 1 test_interval: 2 display: 1"
    )
    path = write_files(tmp_path, options, batch=3, dropout=0)
    errors = run_two(ROOT / "tools" / "train_net.py", "--cpu", "--solver", path)
    assert errors.count("Iteration 2, Testing net") == 1  # the first process logs and tests
    assert errors.count("solver.cpp:218] Iteration 3") == 1

    alone = make(tmp_path, options, batch=6, dropout=0)
    alone.step(4)
    trained = make(tmp_path, options, batch=6, dropout=0)
    trained.restore(tmp_path / "small_iter_4.solverstate")
    assert trained.net.sources["data"].state()["position"] == alone.net.sources["data"].state()["position"] == 48
    for mine, other in zip(trained.net.learnable, alone.net.learnable, strict=True):
        torch.testing.assert_close(mine.tensor, other.tensor, rtol=1e-4, atol=1e-6)


def test_a_closed_solver_lets_go_of_its_process_group(tmp_path: Path) -> None:
    """Else whoever frees the solver last may wait for ever for a worker thread of the group."""
    (tmp_path / "leave.py").write_text(LEAVE)
    run_two(tmp_path / "leave.py", write_files(tmp_path, batch=3))
