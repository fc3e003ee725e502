"""Whether an error came because there was not enough memory, whoever raised it."""

from __future__ import annotations

import errno
import re

import torch

from ..errors import CaffeError

_WORDS = re.compile(
    r"can't allocate memory|cannot allocate memory|not enough memory|out of memory|ALLOC_FAILED|bad_alloc",
    re.IGNORECASE,
)


def is_exhausted(error: BaseException) -> bool:
    """Whether an error of Python, the system, PyTorch or a CUDA library says that there is not enough memory.

    One of this package does where one of those is its cause.
    """
    while isinstance(error, CaffeError) and not isinstance(error, MemoryError):
        cause = error.__cause__
        if cause is None or cause is error:  # Python lets an error that is raised from itself be its own cause
            return False
        error = cause
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno == errno.ENOMEM
    return isinstance(error, (OSError, RuntimeError)) and bool(_WORDS.search(str(error)))
