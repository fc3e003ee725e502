"""The pycaffe interface: what ``import caffe`` offers, under the same names."""

from __future__ import annotations

from typing import Any

from .. import proto
from ..layers.python_layer import FixedBlobs as RawBlobVec  # noqa: F401  (of caffe._caffe: what a Python layer is given)
from . import former, interface
from .interface import *  # noqa: F403
from .net_spec import layers

__version__ = "1.0.0"  # of the interface

__all__ = ["layers", "proto"]
__all__ += interface.__all__


def __getattr__(name: str) -> Any:
    raise former.lacking(f"module {__name__!r}", name, former.OF_MODULE)
