"""How much of the time of training goes into waiting for data, and a warning where that is much."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any, NamedTuple

from ..layers.data_layers import BatchSource
from . import log as lines
from .hooks import Hook
from .log import log

MOST = 0.05
LEAST_ITERATIONS, LEAST_SECONDS = 20, 2.0


class _Iteration(NamedTuple):
    seconds: float
    data: float


class Waiting(Hook):
    """Watches the newest iterations, tests and snapshots aside; warns once where data takes more than 5 % of their time.

    These are the last 20, or as many as make 2 seconds. The very first does not count: the threads that make batches start
    in it.
    """

    reads_update = False

    def __init__(self) -> None:
        self._warned = False
        self._before: dict[str, float] = {}
        self._clear()

    def _clear(self) -> None:
        self._newest: deque[_Iteration] = deque()
        self._seconds = self._data = 0.0  # of the newest
        self._started = False

    @property
    def share(self) -> float | None:
        """The share of the newest iterations' time that was spent on waiting for data; None before the second."""
        return self._data / self._seconds if self._newest and self._seconds else None

    def before_training(self, solver: Any) -> None:
        self._clear()

    def before_iteration(self, solver: Any) -> None:
        self._before = dict(solver.runner.parts.seconds)
        self._since = time.perf_counter()

    def after_backward(self, solver: Any) -> None:
        self._passes = time.perf_counter() - self._since

    def after_update(self, solver: Any) -> None:
        if not self._started:
            self._started = True
            return
        parts = solver.runner.parts.seconds
        data, update = (max(parts[part] - self._before[part], 0.0) for part in ("data", "update"))
        self._enter(_Iteration(self._passes + update, data))
        if not self._warned and self._is_enough() and (self.share or 0) > MOST:
            self._warned = True
            self._warn(solver)

    def _enter(self, iteration: _Iteration) -> None:
        self._newest.append(iteration)
        self._seconds += iteration.seconds
        self._data += iteration.data
        while len(self._newest) > LEAST_ITERATIONS and self._seconds - self._newest[0].seconds >= LEAST_SECONDS:
            old = self._newest.popleft()
            self._seconds -= old.seconds
            self._data -= old.data

    def _is_enough(self) -> bool:
        return len(self._newest) >= LEAST_ITERATIONS and self._seconds >= LEAST_SECONDS

    def _warn(self, solver: Any) -> None:
        sources = [source for source in solver.net.sources.values() if isinstance(source, BatchSource)]
        log(
            lines.DATA,
            "Waiting for data took %.0f %% of the time of the last %d iterations. %s",
            100 * (self.share or 0),
            len(self._newest),
            ". ".join(source.describe_effort() for source in sources) or "No layer of this package makes the batches",
            level=logging.WARNING,
        )
