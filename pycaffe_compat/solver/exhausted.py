"""What to do where the memory, or the disk, does not suffice for a training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from ..errors import CaffeError, OutOfMemoryError, SolverError
from ..layers.data_layers import BatchSource
from ..memory import is_exhausted
from ..net import Net
from ..proto import caffe_pb2
from .resume import newest_sound

_MOST = 300  # characters of the system's own message


@contextlib.contextmanager
def explained(param: Any, net: Net | None, when: str) -> Iterator[None]:
    """Turn an error for want of memory in the block into one that says what to reduce.

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
        on_gpu = isinstance(error, torch.OutOfMemoryError) or (net is not None and net.device.type == "cuda")
        place = "the GPU" if on_gpu else "this machine or container"
        raise OutOfMemoryError(
            f"{when}: the memory of {place} does not suffice ({first or type(error).__name__}). {_advice(param, net)}. "
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
