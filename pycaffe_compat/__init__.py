"""Caffe's files live again in PyTorch.

For PyTorch, :func:`load` returns the ``nn.Module`` that a prototxt describes, with a caffemodel's weights in it. For scripts
written for Caffe, this package has the names of pycaffe (``Net``, ``SGDSolver``, ``TRAIN``, ``io`` …):
``import pycaffe_compat as caffe``, or ``python -m pycaffe_compat script.py`` for a script that says ``import caffe``.
"""

from __future__ import annotations

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
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    Blob,
    Classifier,
    Detector,
    Layer,
    NesterovSolver,
    Net,
    NetSpec,
    RMSPropSolver,
    SGDSolver,
    caffe_pb2,
    coord_map,
    draw,
    get_solver,
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
    set_random_seed,
    to_proto,
)

__version__ = "0.1.0"

__all__ = [
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
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
    "UnknownNameError",
    "WeightsError",
    "caffe_pb2",
    "coord_map",
    "draw",
    "get_solver",
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
    "set_random_seed",
    "to_proto",
]
