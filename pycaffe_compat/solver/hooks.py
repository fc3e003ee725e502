"""What happens around the iterations of a solver: Caffe's own hooks and those that users add."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ..errors import SolverError
from ..net import Net
from . import log as lines
from .distributed import world
from .log import log

Scores = Mapping[str, np.ndarray]


class WaitsForData(Protocol):
    """What the progress line asks of :class:`~.waiting.Waiting`."""

    @property
    def share(self) -> float | None: ...


class Training(Protocol):
    """What hooks see of a :class:`~.loop.Solver` and may ask of it."""

    param: Any
    net: Net
    test_nets: list[Net]
    iter: int
    rate: float
    outputs: Mapping[str, Tensor]

    @property
    def waiting(self) -> WaitsForData: ...

    @property
    def loss(self) -> float: ...

    @property
    def displaying(self) -> bool: ...

    @property
    def tests_now(self) -> bool: ...

    def test_all(self) -> None: ...

    def snapshot(self) -> tuple[str, str]: ...


class Hook:
    """Methods that the solver calls, each with itself; override what you need. ``solver.iter`` counts the updates done.

    A hook keeps its state between calls in its own attributes.
    """

    reads_update: bool = True
    """Whether the hook looks for the update in the gradients. Where no hook does, ``solve`` does not write it."""

    def before_training(self, solver: Any) -> None:
        """``solve`` begins; a resumed state is already in place."""

    def before_iteration(self, solver: Any) -> None:
        """An iteration begins."""

    def after_backward(self, solver: Any) -> None:
        """The loss, the outputs and the summed gradients are there; the update is not done."""

    def snapshot_requested(self, solver: Any) -> None:
        """A signal has asked for a snapshot; :meth:`after_update` of the same iteration follows."""

    def after_update(self, solver: Any) -> None:
        """The update is done and counted."""

    def after_test(self, solver: Any, index: int, scores: Scores) -> None:
        """Test net ``index`` has been run; ``scores`` are the means of its outputs."""

    def after_training(self, solver: Any) -> None:
        """``solve`` ends, early or not; also called when an error ends it."""


class Callbacks(Hook):
    """Two functions, as pycaffe's ``add_callback`` takes them: called before the first pass and before the update."""

    def __init__(self, on_start: Callable[[], None], on_gradients_ready: Callable[[], None]) -> None:
        self._on_start, self._on_gradients_ready = on_start, on_gradients_ready

    def before_iteration(self, solver: Training) -> None:
        self._on_start()

    def after_backward(self, solver: Training) -> None:
        self._on_gradients_ready()


class Display(Hook):
    """Caffe's log lines every ``display`` iterations."""

    reads_update = False

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._done = 0

    def before_training(self, solver: Training) -> None:
        self._since, self._done = time.perf_counter(), 0

    def after_update(self, solver: Training) -> None:
        self._done += 1

    def after_backward(self, solver: Training) -> None:
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

    def after_test(self, solver: Training, index: int, scores: Scores) -> None:
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

    reads_update = False
    __test__ = False  # not a test of ours

    def before_iteration(self, solver: Training) -> None:
        if solver.tests_now and (solver.iter or solver.param.test_initialization):
            solver.test_all()


class Snapshot(Hook):
    """Writes snapshots every ``snapshot`` iterations, and when a signal asks for one."""

    reads_update = False

    def __init__(self) -> None:
        self._requested = False

    def snapshot_requested(self, solver: Training) -> None:
        self._requested = True

    def after_update(self, solver: Training) -> None:
        interval, requested = solver.param.snapshot, self._requested
        self._requested = False
        if requested or (interval and solver.iter % interval == 0):
            solver.snapshot()


class Progress(Hook):
    """A progress bar on standard error: loss, learning rate, images per second, waiting for data, time left."""

    reads_update = False

    def __init__(self) -> None:
        self._bar: Any = None

    def before_training(self, solver: Training) -> None:
        total = solver.param.max_iter
        self._bar = tqdm(total=total, initial=solver.iter, unit="it", file=sys.stderr, dynamic_ncols=True, leave=True)
        self._start = (time.perf_counter(), solver.iter)

    def after_update(self, solver: Training) -> None:
        if self._bar is None:
            return
        since, first = self._start
        images = (solver.iter - first) * images_per_iteration(solver) / max(time.perf_counter() - since, 1e-9)
        state = f"loss {solver.loss:.4g}, lr {solver.rate:.3g}, {images:.0f} images/s"
        if (share := solver.waiting.share) is not None:
            state += f", {share:.0%} waiting for data"
        self._bar.set_postfix_str(state, refresh=False)
        self._bar.update(solver.iter - self._bar.n)

    def after_training(self, solver: Training) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class TensorBoard(Hook):
    """Scalars for TensorBoard: loss and rate every ``every`` iterations, the outputs of every test.

    If they can no longer be written (on a full disk, for example), the log says so once, and training continues without them.

    Args:
        folder: where the event files go; made if missing.
        every: None takes the solver's ``display``, or 10.

    Raises:
        SolverError: the package ``tensorboard`` is not installed, or the folder cannot be written to.
    """

    reads_update = False

    def __init__(self, folder: str | os.PathLike[str], every: int | None = None) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SolverError("TensorBoard output needs the package tensorboard: pip install tensorboard") from error
        self._folder = os.fspath(folder)
        try:
            self._writer: Any = SummaryWriter(self._folder)
        except OSError as error:
            raise SolverError(f"cannot write TensorBoard events to {self._folder}: {error.strerror}") from error
        self._every = every
        self._failed = False
        self._others: Callable[[threading.ExceptHookArgs], Any] = threading.excepthook

    def before_training(self, solver: Training) -> None:
        self._others, threading.excepthook = threading.excepthook, self._in_thread

    def after_update(self, solver: Training) -> None:
        if solver.iter % (self._every or solver.param.display or 10) == 0:
            self._attempt(self._add, {"train/loss": solver.loss, "train/lr": solver.rate}, solver.iter)

    def after_test(self, solver: Training, index: int, scores: Scores) -> None:
        scalars = {
            f"test{index}/{name}" + (f"/{i}" if np.size(values) > 1 else ""): value
            for name, values in scores.items()
            for i, value in enumerate(np.asarray(values).reshape(-1).tolist())
        }
        self._attempt(self._add, scalars, solver.iter)
        self._attempt(self._writer.flush)

    def after_training(self, solver: Training) -> None:
        self._attempt(self._writer.close)
        threading.excepthook = self._others

    def _add(self, scalars: Mapping[str, float], iteration: int) -> None:
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, iteration)

    def _attempt(self, write: Callable[..., None], *values: Any) -> None:
        """Write, unless that has failed before; where it fails now, say so."""
        if self._failed:
            return
        try:
            write(*values)
        except OSError as error:
            self._failed = True
            message = "Cannot write TensorBoard events to %s: %s; the training goes on without them"
            log(lines.ITERATION, message, self._folder, error.strerror or error, level=logging.WARNING)

    def _in_thread(self, failed: threading.ExceptHookArgs) -> None:
        """What fails in the thread of the writer, which hands the error on to who writes next; others as before."""
        if not (isinstance(failed.exc_value, OSError) and type(failed.thread).__module__.startswith("tensorboard.")):
            self._others(failed)


def images_per_iteration(solver: Training) -> int:
    """How many items of a batch an iteration takes, over all processes."""
    first = next((step.tops[0] for step in solver.net.steps if not step.bottoms and step.tops), None)
    shape = solver.net.blob_shapes[first] if first is not None else ()
    return (shape[0] if shape else 1) * solver.param.iter_size * world()
