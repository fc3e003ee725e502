"""What to do where the memory does not suffice for a training."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import torch

from ..errors import CaffeError, OutOfMemoryError
from ..layers.data_layers import BatchSource
from ..net import Net
from ..proto import caffe_pb2
from .resume import newest_sound

_WORDS = re.compile(
    r"can't allocate memory|cannot allocate memory|not enough memory|out of memory|ALLOC_FAILED|bad_alloc",
    re.IGNORECASE,
)
_MOST = 300  # characters of the system's own message


def is_exhausted(error: BaseException) -> bool:
    """Whether an error of Python, PyTorch or a CUDA library says that there is not enough memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and not isinstance(error, CaffeError) and bool(_WORDS.search(str(error)))


@contextlib.contextmanager
def explained(param: Any, net: Net, when: str) -> Iterator[None]:
    """Turn an error for want of memory in the block into one that says what to reduce.

    Args:
        param: the ``SolverParameter``.
        net: the net that runs in the block.
        when: what is done in the block: ``"iteration 12"``, say.

    Raises:
        OutOfMemoryError: the memory did not suffice.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, CaffeError) or not is_exhausted(error):
            raise
        first = (str(error).splitlines() or [""])[0][:_MOST]
        place = "the GPU" if net.device.type == "cuda" else "this machine or container"
        raise OutOfMemoryError(
            f"{when}: the memory of {place} does not suffice ({first or type(error).__name__}). {_advice(param, net)}. "
            f"{_left(param)}"
        ) from error


def _advice(param: Any, net: Net) -> str:
    batches = {
        name: source.top_shapes()[0][0] for name, source in net.sources.items() if isinstance(source, BatchSource)
    }
    sizes = ", ".join(f'"{name}" (now {size})' for name, size in batches.items())
    less = f"Reduce batch_size of the data layer {sizes}" if sizes else "Reduce the first dimension of the inputs"
    if net.phase == caffe_pb2.TRAIN:
        less += f" and raise iter_size (now {param.iter_size}) to keep the effective batch"
    return f"{less}, or compute in mixed precision (--amp)"


def _left(param: Any) -> str:
    newest = newest_sound(param) if param.snapshot_prefix else ""
    return (
        f"The newest snapshot, {newest}, is sound: go on from it with --resume"
        if newest
        else "There is no snapshot yet"
    )
