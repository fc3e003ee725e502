"""Denormal numbers, those nearer to 0 than 1.2e-38 in float32: taken as 0 while a net trains on the CPU.

Many processors take a hundred times as long for them. A net makes them by itself: the weights and momenta of a unit that no
longer fires shrink at every update, by weight decay, until they are denormal. PyTorch's switch holds for the thread that
calls it; here it reaches the threads of the operators too.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from .. import extension
from ..errors import CaffeError

VARIABLE = "PYCAFFE_COMPAT_DENORMALS"
_DENORMAL = 2.0**-140  # in float32


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """Take denormal numbers as 0 while the block lasts, in the results of operators and in what they read.

    ``PYCAFFE_COMPAT_DENORMALS=1`` computes with them. Without the compiled library the switch reaches only the calling thread.

    Raises:
        CaffeError: ``PYCAFFE_COMPAT_DENORMALS`` is neither 0 nor 1.
    """
    if kept() or are_flushed():
        yield
        return
    _flush(True)
    try:
        yield
    finally:
        _flush(False)


def kept() -> bool:
    """Whether the user wants denormal numbers.

    Raises:
        CaffeError: ``PYCAFFE_COMPAT_DENORMALS`` is neither 0 nor 1.
    """
    wanted = os.environ.get(VARIABLE, "0")
    if wanted not in ("0", "1"):
        raise CaffeError(f'{VARIABLE} is "{wanted}"; valid: 0, or 1 to compute with denormal numbers')
    return wanted == "1"


def are_flushed() -> bool:
    """Whether this thread takes denormal numbers as 0."""
    return bool((torch.tensor([_DENORMAL]) * 1 == 0).item())


def _flush(on: bool) -> None:
    if extension.load() is None:
        torch.ops.pycaffe_compat.flush_denormals(on)
    else:
        torch.set_flush_denormal(on)
