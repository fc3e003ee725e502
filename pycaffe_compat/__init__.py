"""Caffe's files live again in PyTorch.

For PyTorch, :func:`load` returns the ``nn.Module`` that a prototxt describes, with a caffemodel's weights in it. For scripts
written for Caffe, this package has the names of pycaffe (``Net``, ``SGDSolver``, ``TRAIN``, ``io`` …):
``import pycaffe_compat as caffe``, or ``python -m pycaffe_compat script.py`` for a script that says ``import caffe``.
"""

from __future__ import annotations

from typing import Any

from . import interruption, layers  # interruption comes first: it covers the imports of the others
from .errors import (
    CaffeError,
    DataError,
    DivergedError,
    LayerError,
    MissingFileError,
    NetError,
    ParseError,
    SolverError,
    UnknownNameError,
    WeightsError,
)
from .net import CaffeModule, load
from .pycaffe import interface, net_spec
from .pycaffe.interface import *  # noqa: F403

__version__ = "0.1.0"


def _net_spec_layer(name: str) -> Any:
    """What ``layers.TYPE`` is for NetSpec, where ``layers`` is not that of ``caffe`` but the registry in this package."""
    if name in layers.REGISTRY:
        return getattr(net_spec.layers, name)
    raise AttributeError(f"module {layers.__name__!r} has no attribute {name!r}")


# so that NetSpec's layers.Convolution(…) works here too; set from above, as the layers know nothing of NetSpec
vars(layers)["__getattr__"] = _net_spec_layer

__all__ = [
    "CaffeError",
    "CaffeModule",
    "DataError",
    "DivergedError",
    "LayerError",
    "MissingFileError",
    "NetError",
    "ParseError",
    "SolverError",
    "UnknownNameError",
    "WeightsError",
    "layers",
    "load",
]
__all__ += interface.__all__

interruption.as_before()
