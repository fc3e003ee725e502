"""The numpy face: what ``import caffe`` offers, under the same names."""

from __future__ import annotations

from .. import proto
from . import interface
from .interface import *  # noqa: F403
from .net_spec import layers

__version__ = "1.0.0"  # of the interface

__all__ = ["layers", "proto"]
__all__ += interface.__all__
