"""``caffe.Timer``."""

from __future__ import annotations

import time

import torch


class Timer:
    """Measures the time from :meth:`start` to :meth:`stop`, work on the GPU included."""

    def __init__(self) -> None:
        self._begun: float | None = None
        self._seconds = 0.0

    def start(self) -> None:
        """Start measuring."""
        self._begun = _now()

    def stop(self) -> None:
        """Stop measuring."""
        if self._begun is not None:
            self._seconds, self._begun = _now() - self._begun, None

    @property
    def ms(self) -> float:
        """The milliseconds measured; a timer that runs is stopped."""
        self.stop()
        return self._seconds * 1e3


def _now() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
