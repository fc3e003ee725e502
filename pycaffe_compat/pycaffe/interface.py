"""The names of pycaffe that ``caffe`` and this package's top level have in common.

``caffe`` has two more, ``layers`` and ``proto``, which mean subpackages at the top level.
"""

from __future__ import annotations

from ..layers import REGISTRY
from ..layers.python_layer import Layer
from ..proto import caffe_pb2
from ..proto.caffe_pb2 import TEST, TRAIN
from . import classifier, coord_map, detector, draw, io, net_spec
from .alias import install_as_caffe
from .blob import Blob
from .classifier import Classifier
from .containers import BlobVec
from .detector import Detector
from .log import init_log, log, set_logging_disabled
from .mode import (
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_random_seed,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from .net import Net
from .net_spec import NetSpec, params, to_proto
from .parallel import NCCL, has_nccl, mpi_fin, mpi_finalize, mpi_init
from .solver import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    get_solver,
)
from .timer import Timer


def layer_type_list() -> list[str]:
    """The names of all layer types, in alphabetical order."""
    return sorted(REGISTRY)


__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "BlobVec",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
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
    "log",
    "mpi_fin",
    "mpi_finalize",
    "mpi_init",
    "net_spec",
    "params",
    "set_device",
    "set_logging_disabled",
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
