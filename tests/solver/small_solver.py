"""A small net on a real database (crops, mirrors, dropout), and solvers for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from golden_files import ROOT

from pycaffe_compat.proto import caffe_pb2, format_text, parse_text
from pycaffe_compat.solver import Solver

NET = """
name: "small"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ crop_size: 12 mirror: true scale: 0.00390625 }}
  data_param {{ source: "{lmdb}" batch_size: {batch} backend: LMDB }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ crop_size: 12 scale: 0.00390625 }}
  data_param {{ source: "{lmdb}" batch_size: 5 backend: LMDB }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param {{ lr_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  convolution_param {{ num_output: 4 kernel_size: 3 stride: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "drop" type: "Dropout" bottom: "conv" top: "conv" dropout_param {{ dropout_ratio: {dropout} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 2 }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
"""
SOLVER = 'base_lr: 0.05 lr_policy: "fixed" max_iter: 10 random_seed: 3 solver_mode: CPU'
RULES = {
    "SGD": 'type: "SGD" momentum: 0.9 weight_decay: 0.01',
    "Nesterov": 'type: "Nesterov" momentum: 0.9 weight_decay: 0.01',
    "AdaGrad": 'type: "AdaGrad" weight_decay: 0.01 regularization_type: "L1"',
    "RMSProp": 'type: "RMSProp" rms_decay: 0.9 weight_decay: 0.01',
    "AdaDelta": 'type: "AdaDelta" momentum: 0.9 delta: 1e-6',
    "Adam": 'type: "Adam" momentum: 0.9 weight_decay: 0.01',
}


def net_text(batch: int = 5, dropout: float = 0.5) -> str:
    return NET.format(lmdb=ROOT / "data" / "raw_lmdb", batch=batch, dropout=dropout)


def solver_param(folder: Path, options: str = "", **net: Any) -> Any:
    """The parameters of a solver whose snapshots go into ``folder``; ``options`` may override any of its fields."""
    param = parse_text(SOLVER, caffe_pb2.SolverParameter)
    param.net_param.CopyFrom(parse_text(net_text(**net), caffe_pb2.NetParameter))
    param.snapshot_prefix = str(folder / "small")
    param.MergeFrom(parse_text(options, caffe_pb2.SolverParameter))
    return param


def make(folder: Path, options: str = "", hooks: Any = (), **net: Any) -> Solver:
    return Solver(solver_param(folder, options, **net), hooks=hooks)


def write_files(folder: Path, options: str = "", **net: Any) -> Path:
    """The same as files: the path of ``solver.prototxt``, whose net lies beside it."""
    (folder / "net.prototxt").write_text(net_text(**net))
    path = folder / "solver.prototxt"
    param = solver_param(folder, options, **net)
    param.ClearField("net_param")
    param.net = str(folder / "net.prototxt")
    path.write_text(format_text(param))
    return path


def weights(solver: Solver) -> list[bytes]:
    """Every number of every parameter, bit for bit."""
    return [blob.numpy().tobytes() for blobs in solver.net.weights().values() for blob in blobs]
