"""The compiled library ``pycaffe_compat._C``: pooling kernels and the allocator of recycled memory."""

from __future__ import annotations

import functools
import importlib.util

import torch

NAME = f"{__package__}._C"


@functools.cache
def load() -> str | None:
    """Load the library once; return None if that went well, otherwise why not."""
    spec = importlib.util.find_spec(NAME)
    if spec is None or spec.origin is None:
        return "not built (pip install --no-build-isolation builds it, where PyTorch and a C++ compiler are installed)"
    try:
        torch.ops.load_library(spec.origin)
    except (OSError, RuntimeError) as error:
        return f"{spec.origin} does not load: {error}"
    return None
