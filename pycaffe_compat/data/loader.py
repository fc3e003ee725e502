"""Batches prefetched by background threads.

Reading, decoding and arithmetic release Python's lock, so threads suffice and nothing is copied between processes. All
threads work on one batch before the next, so at most ``prefetch`` batches are in memory, however many threads there are.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .effort import Clock, Effort, processors

Job = Callable[[], None]
LINE = 64  # bytes of a line of the cache
Begin = Callable[[int], tuple[list[np.ndarray], list[Job]]]


def default_threads() -> int:
    """The number of processors that this process may use, at most 16."""
    return min(processors(), 16)


class Loader:
    """Makes batches in background threads and returns them in order.

    The content of a batch depends only on its position, not on the threads. :meth:`next` raises an error of a thread for
    the batch that it belongs to. The threads start at the first call of :meth:`next`; they end at :meth:`close`, when the
    loader is garbage, or with the interpreter.

    Args:
        begin: called with the position of each batch, in order; returns its arrays and the jobs that fill them. The jobs
            run in parallel.
        stride: the distance between the positions of two batches.
        prefetch: how many batches are ready or in progress.
        threads: the number of threads; by default one for each processor, at most 16.
        effort: what the threads do is added to it.
    """

    def __init__(
        self,
        begin: Begin,
        stride: int,
        prefetch: int = 4,
        threads: int | None = None,
        effort: Effort | None = None,
    ) -> None:
        self.position = 0
        self._begin = begin
        self._stride = stride
        self._prefetch = max(prefetch, 1)
        self.threads = threads or default_threads()
        self._effort = effort or Effort()
        self._work: _Work | None = None

    def next(self) -> list[np.ndarray]:
        """Return the arrays of the next batch and move on.

        Raises:
            Exception: making the batch failed. The position stays, so the next call raises the error again.
        """
        if self._work is not None and self._work.pid != os.getpid():
            self._work = None
        if self._work is None:
            self._work = _Work(self._begin, self.position, self._stride, self._prefetch, self._effort)
            self._stop = weakref.finalize(self, self._work.stop)
            self._work.start(self.threads)
        arrays = self._work.next()
        self.position += self._stride
        return arrays

    @property
    def ready(self) -> bool:
        """Whether :meth:`next` returns a batch at once."""
        return self._work is not None and self._work.pid == os.getpid() and self._work.ready()

    def seek(self, position: int) -> None:
        """Continue at ``position``; prefetched batches are dropped."""
        self.close()
        self.position = position

    def close(self) -> None:
        """Stop the threads and drop prefetched batches. The loader can be used again."""
        work, self._work = self._work, None
        if work is not None and work.pid == os.getpid():
            self._stop()


class _Batch:
    """A batch in progress: ``left`` jobs are not done; ``error`` is that of the earliest job that failed."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.arrays: list[np.ndarray] = []
        self.left = 1
        self.error: tuple[int, BaseException] | None = None

    def fail(self, index: int, error: BaseException) -> None:
        if self.error is None or index < self.error[0]:
            self.error = (index, error)


class _Work:
    """The state that the threads share. They hold no reference to the loader, so it can become garbage and stop them."""

    def __init__(self, begin: Begin, position: int, stride: int, prefetch: int, effort: Effort) -> None:
        self.pid = os.getpid()
        self.begin = begin
        self.position = position
        self.stride = stride
        self.prefetch = prefetch
        self.effort = effort
        self.changed = threading.Condition()
        self.batches: deque[_Batch] = deque()
        self.jobs: deque[tuple[_Batch, int, Job]] = deque()
        self.beginning = False
        self.stopped = False
        self.threads: list[threading.Thread] = []

    def start(self, count: int) -> None:
        self.threads = [
            threading.Thread(target=self.run, name="pycaffe_compat data", daemon=True) for _ in range(count)
        ]
        for thread in self.threads:
            thread.start()

    def run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.stopped or self.jobs or self.may_begin())
                if self.stopped:
                    return
                if self.jobs:
                    batch, index, job = self.jobs.popleft()
                else:
                    batch = _Batch(self.position)
                    self.position += self.stride
                    self.batches.append(batch)
                    self.beginning = True
                    index, job = -1, self.beginner(batch)
            since = Clock.now()
            try:
                job()
            except BaseException as error:
                batch.fail(index, error)
            self.effort.worked(since)
            # A job keeps its records alive: drop it before waiting for the next one.
            del job
            with self.changed:
                batch.left -= 1
                self.beginning = self.beginning and index >= 0
                if index < 0 or not batch.left:
                    self.changed.notify_all()

    def may_begin(self) -> bool:
        return not self.beginning and len(self.batches) < self.prefetch

    def beginner(self, batch: _Batch) -> Job:
        def begin() -> None:
            batch.arrays, jobs = self.begin(batch.position)
            with self.changed:
                batch.left += len(jobs)
                self.jobs.extend((batch, index, job) for index, job in enumerate(jobs))

        return begin

    def ready(self) -> bool:
        with self.changed:
            return bool(self.batches) and not self.batches[0].left and self.batches[0].error is None

    def next(self) -> list[np.ndarray]:
        with self.changed:
            self.changed.wait_for(lambda: self.stopped or (self.batches and not self.batches[0].left))
            if self.stopped:
                raise RuntimeError("the loader was closed while another thread waited for a batch")
            batch = self.batches[0]
            if batch.error:
                raise batch.error[1]
            self.batches.popleft()
            self.changed.notify_all()
            return batch.arrays

    def stop(self, patience: float = 2.0) -> None:
        """End the threads. One that hangs in a read is abandoned after ``patience`` seconds; it is a daemon."""
        if self.pid != os.getpid():
            return
        with self.changed:
            self.stopped = True
            self.jobs.clear()
            self.batches.clear()
            self.changed.notify_all()
        if threading.current_thread() in self.threads:  # this thread collected the loader as garbage
            return
        deadline = time.monotonic() + patience
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))


class Buffers:
    """Memory for the arrays of a batch, recycled when the last tensor over it is gone.

    The system hands out new memory of this size page by page, which takes longer than filling it. Once CUDA is in use the
    memory is page-locked, and torch's own cache recycles it.
    """

    def __init__(self) -> None:
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype = np.dtype(np.float32)
        self._free: list[np.ndarray] = []

    def take(self, *shape: int, dtype: npt.DTypeLike = np.float32) -> np.ndarray:
        """Return an uninitialised array of ``shape``; its memory is recycled when the array is gone."""
        kind = np.dtype(dtype)
        if torch.cuda.is_initialized():
            return torch.empty(shape, dtype=getattr(torch, kind.name), pin_memory=True).numpy()
        if (shape, kind) != (self._shape, self._dtype):
            self._shape, self._dtype, self._free = shape, kind, []
        try:
            memory = self._free.pop()
        except IndexError:
            memory = _aligned(shape, kind)
        array = memory.view()
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array


def _aligned(shape: tuple[int, ...], kind: np.dtype) -> np.ndarray:
    """Return uninitialised memory that begins at a line of the cache.

    numpy's begins 16 bytes after one. A row of floats that is written past the cache then ends within a line, and the next
    row writes the rest: each such line goes to memory twice.
    """
    size = math.prod(shape) * kind.itemsize
    memory = np.empty(size + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    return memory[begin : begin + size].view(kind).reshape(shape)


def to_tensor(array: np.ndarray) -> Tensor:
    """Return a tensor over the memory of ``array``, page-locked if that of the array is."""
    return array.base if isinstance(array.base, Tensor) else torch.from_numpy(array)
