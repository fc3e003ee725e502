"""What to do where the memory, or the disk, does not suffice for a training."""

from __future__ import annotations

import contextlib
import logging
import math
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from .. import memory
from ..errors import CaffeError, OutOfMemoryError, SolverError
from ..layers.data_layers import BatchSource
from ..memory import is_exhausted
from ..net import Net
from ..proto import caffe_pb2
from . import log as lines
from .log import log
from .resume import newest_sound

_MOST = 300  # characters of the system's own message


@contextlib.contextmanager
def explained(param: Any, net: Net | None, when: str) -> Iterator[None]:
    """Turn an out-of-memory error in the block into one that says what to reduce.

    Args:
        param: the ``SolverParameter``.
        net: the net that runs in the block; None where it is still being built.
        when: what is done in the block: ``"iteration 12"``, say.

    Raises:
        OutOfMemoryError: the memory did not suffice.
    """
    try:
        yield
    except (CaffeError, MemoryError, OSError, RuntimeError) as error:
        if isinstance(error, OutOfMemoryError) or not is_exhausted(error):
            raise
        first = (str(error).splitlines() or [""])[0][:_MOST]
        traceback.clear_frames(error.__traceback__)  # the pass that failed holds what is needed to look at snapshots
        memory.release()
        on_gpu = isinstance(error, torch.OutOfMemoryError) or (net is not None and net.device.type == "cuda")
        place = "the GPU" if on_gpu else "this machine or container"
        raise OutOfMemoryError(
            f"{when}: not enough memory on {place} ({first or type(error).__name__}). {_advice(param, net)}. "
            f"{_left(param)}"
        ) from error


@contextlib.contextmanager
def snapshots_named(param: Any) -> Iterator[None]:
    """Where a file cannot be written in the block, on a full disk say, add which snapshot is left.

    Raises:
        SolverError: it cannot.
    """
    try:
        yield
    except CaffeError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise SolverError(f"{error}. {_left(param)}") from error.__cause__


def warn_of_shortage(param: Any, net: Net, precision: torch.dtype) -> None:
    """Log where a training pass will hardly fit into what is left of the memory of this machine or container.

    Linux seldom refuses memory: it ends a process that uses more than there is, without a word. So this is said before.

    Args:
        param: the ``SolverParameter``.
        net: the train net.
        precision: of the values between its layers.
    """
    if net.device.type == "cpu" and (lacking := memory.lacking(precision.itemsize * _most_values(net))):
        message = "A training pass takes about %s: the system may end this process without a word. %s"
        log(lines.MEMORY, message, lacking, _advice(param, net), level=logging.WARNING)


def _most_values(net: Net) -> int:
    """How many numbers a pass holds at its height: the values kept so far, and the gradients of a layer's tops and bottoms."""
    kept = most = 0
    for step in net.steps:
        if not step.needs_backward:
            continue
        own = sum(math.prod(net.blob_shapes[top]) for top in step.tops)
        if not step.layer.shares_memory and not set(step.tops) & set(step.bottoms):
            kept += own
        below = sum(
            math.prod(net.blob_shapes[bottom])
            for bottom, needed in zip(step.bottoms, step.bottom_needs, strict=True)
            if needed
        )
        most = max(most, kept + own + below)
    return most


def _advice(param: Any, net: Net | None) -> str:
    if net is None:
        return "Reduce batch_size of the data layers, or the size of the layers that hold the most (num_output)"
    batches = {
        name: source.top_shapes()[0][0] for name, source in net.sources.items() if isinstance(source, BatchSource)
    }
    sizes = ", ".join(f'"{name}" (now {size})' for name, size in batches.items())
    less = f"Reduce batch_size of the data layer {sizes}" if sizes else "Reduce the first dimension of the inputs"
    if net.phase == caffe_pb2.TRAIN:
        less += f" and raise iter_size (now {param.iter_size}) to keep the effective batch"
    return f"{less}, or compute in mixed precision (--amp)"


def _left(param: Any) -> str:
    try:
        newest = newest_sound(param) if param.snapshot_prefix else ""
    except OutOfMemoryError as error:
        return f"Whether its snapshots are sound could not be seen: {error}"
    return (
        f"The newest snapshot, {newest}, is sound: go on from it with --resume"
        if newest
        else "There is no sound snapshot"
    )
