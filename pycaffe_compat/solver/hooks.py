"""What happens around the iterations of a solver: hooks, Caffe's own and those that users add."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ..errors import SolverError
from . import log as lines
from .distributed import world
from .log import log

if TYPE_CHECKING:
    from .loop import Solver

Scores = Mapping[str, np.ndarray]


class Hook:
    """Methods that the solver calls; override what you need. ``solver.iter`` counts the updates done."""

    def before_training(self, solver: Solver) -> None:
        """``solve`` begins; a resumed state is already in place."""

    def before_iteration(self, solver: Solver) -> None:
        """An iteration begins."""

    def after_backward(self, solver: Solver) -> None:
        """The loss, the outputs and the summed gradients are there; the update is not done."""

    def after_update(self, solver: Solver) -> None:
        """The update is done and counted."""

    def after_test(self, solver: Solver, index: int, scores: Scores) -> None:
        """Test net ``index`` has been run; ``scores`` are the means of its outputs."""

    def after_training(self, solver: Solver) -> None:
        """``solve`` ends, early or not; also called when an error ends it."""


class Display(Hook):
    """Caffe's log lines every ``display`` iterations."""

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._done = 0

    def before_training(self, solver: Solver) -> None:
        self._since, self._done = time.perf_counter(), 0

    def after_update(self, solver: Solver) -> None:
        self._done += 1

    def after_backward(self, solver: Solver) -> None:
        if not solver.displaying:
            return
        now = time.perf_counter()
        lapse = now - self._since
        rate = self._done / lapse if lapse > 0 else 0.0
        log(
            lines.ITERATION,
            "Iteration %d (%g iter/s, %gs/%d iters), loss = %g",
            *(solver.iter, rate, lapse, solver.param.display, solver.loss),
        )
        self._since, self._done = now, 0
        outputs = {name: output.float().cpu().numpy() for name, output in solver.outputs.items()}
        log_outputs(lines.TRAIN_OUTPUT, "Train", outputs, solver.net.loss_weights)

    def after_test(self, solver: Solver, index: int, scores: Scores) -> None:
        log_outputs(lines.TEST_OUTPUT, "Test", scores, solver.test_nets[index].loss_weights)


def log_outputs(source: str, what: str, outputs: Scores, loss_weights: Mapping[str, float]) -> None:
    """Log every number of every output, numbered as Caffe does."""
    number = 0
    for name, values in outputs.items():
        weight = loss_weights.get(name, 0.0)
        for value in np.asarray(values).reshape(-1).tolist():
            loss = f" (* {weight:g} = {weight * value:g} loss)" if weight else ""
            log(source, "    %s net output #%d: %s = %g%s", what, number, name, value, loss)
            number += 1


class Test(Hook):
    """Runs the test nets every ``test_interval`` iterations."""

    __test__ = False  # not a test of ours

    def before_iteration(self, solver: Solver) -> None:
        param = solver.param
        if (
            param.test_interval
            and solver.iter % param.test_interval == 0
            and (solver.iter or param.test_initialization)
        ):
            solver.test_all()


class Snapshot(Hook):
    """Writes snapshots every ``snapshot`` iterations, and when a signal asks for one."""

    def after_update(self, solver: Solver) -> None:
        interval = solver.param.snapshot
        if (interval and solver.iter % interval == 0) or solver.snapshot_requested:
            solver.snapshot()


class Progress(Hook):
    """A progress bar on standard error: loss, learning rate, images per second, time left."""

    def __init__(self) -> None:
        self._bar: Any = None

    def before_training(self, solver: Solver) -> None:
        total = solver.param.max_iter
        self._bar = tqdm(total=total, initial=solver.iter, unit="it", file=sys.stderr, dynamic_ncols=True, leave=True)
        self._start = (time.perf_counter(), solver.iter)

    def after_update(self, solver: Solver) -> None:
        if self._bar is None:
            return
        since, first = self._start
        images = (solver.iter - first) * solver.images_per_iteration / max(time.perf_counter() - since, 1e-9)
        self._bar.set_postfix_str(f"loss {solver.loss:.4g}, lr {solver.rate:.3g}, {images:.0f} images/s", refresh=False)
        self._bar.update(solver.iter - self._bar.n)

    def after_training(self, solver: Solver) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class TensorBoard(Hook):
    """Scalars for TensorBoard: loss and rate every ``every`` iterations, the outputs of every test.

    Args:
        folder: where the event files go; made if missing.
        every: None takes the solver's ``display``, or 10.

    Raises:
        SolverError: the package ``tensorboard`` is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str], every: int | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SolverError("TensorBoard output needs the package tensorboard: pip install tensorboard") from error
        try:
            self._writer: Any = SummaryWriter(os.fspath(folder))
        except OSError as error:
            raise SolverError(f"cannot write TensorBoard events to {os.fspath(folder)}: {error.strerror}") from error
        self._every = every

    def after_update(self, solver: Solver) -> None:
        if solver.iter % (self._every or solver.param.display or 10) == 0:
            self._writer.add_scalar("train/loss", solver.loss, solver.iter)
            self._writer.add_scalar("train/lr", solver.rate, solver.iter)

    def after_test(self, solver: Solver, index: int, scores: Scores) -> None:
        for name, values in scores.items():
            for i, value in enumerate(np.asarray(values).reshape(-1).tolist()):
                tag = f"test{index}/{name}" + (f"/{i}" if np.size(values) > 1 else "")
                self._writer.add_scalar(tag, value, solver.iter)
        self._writer.flush()

    def after_training(self, solver: Solver) -> None:
        self._writer.close()


def images_per_iteration(solver: Solver) -> int:
    """How many items of a batch an iteration takes, over all processes."""
    first = next((step.tops[0] for step in solver.net.steps if not step.bottoms and step.tops), None)
    shape = solver.net.blob_shapes[first] if first is not None else ()
    return (shape[0] if shape else 1) * solver.param.iter_size * world()
