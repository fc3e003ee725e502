"""Caffe's files live again in PyTorch.

For PyTorch, :func:`load` returns the ``nn.Module`` that a prototxt describes, with a caffemodel's weights in it. For scripts
written for Caffe, this package has the names of pycaffe (``Net``, ``SGDSolver``, ``TRAIN``, ``io`` …):
``import pycaffe_compat as caffe``, or ``python -m pycaffe_compat script.py`` for a script that says ``import caffe``.
"""

from __future__ import annotations

from typing import Any

from . import layers
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
from .net import load
from .proto.caffe_pb2 import TEST, TRAIN
from .pycaffe import (
    NCCL,
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    Blob,
    BlobVec,
    Classifier,
    Detector,
    Layer,
    NesterovSolver,
    Net,
    NetSpec,
    RMSPropSolver,
    SGDSolver,
    Timer,
    caffe_pb2,
    classifier,
    coord_map,
    detector,
    draw,
    get_solver,
    has_nccl,
    init_log,
    install_as_caffe,
    io,
    layer_type_list,
    log,
    net_spec,
    params,
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_random_seed,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
    to_proto,
)

__version__ = "0.1.0"


def _net_spec_layer(name: str) -> Any:
    """What ``layers.TYPE`` is for NetSpec, where ``layers`` is not that of ``caffe`` but the registry in this package."""
    if name in layers.REGISTRY:
        return getattr(net_spec.layers, name)
    raise AttributeError(f"module {layers.__name__!r} has no attribute {name!r}")


# so that NetSpec's layers.Convolution(…) works here too; set from above, as the layers know nothing of NetSpec
vars(layers)["__getattr__"] = _net_spec_layer

__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "BlobVec",
    "CaffeError",
    "Classifier",
    "DataError",
    "Detector",
    "DivergedError",
    "Layer",
    "LayerError",
    "MissingFileError",
    "NesterovSolver",
    "Net",
    "NetError",
    "NetSpec",
    "ParseError",
    "RMSPropSolver",
    "SGDSolver",
    "SolverError",
    "Timer",
    "UnknownNameError",
    "WeightsError",
    "caffe_pb2",
    "classifier",
    "coord_map",
    "detector",
    "draw",
    "get_solver",
    "has_nccl",
    "init_log",
    "install_as_caffe",
    "io",
    "layer_type_list",
    "layers",
    "load",
    "log",
    "net_spec",
    "params",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
]
