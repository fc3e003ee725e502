"""Make ``import caffe`` mean this package in this process."""

from __future__ import annotations

import importlib
import sys

from ..errors import CaffeError

_ROOT = __package__.rpartition(".")[0]
_FACE = __package__
_MODULES = {
    "caffe": _FACE,
    "caffe.pycaffe": _FACE,
    "caffe._caffe": _FACE,
    "caffe.io": f"{_FACE}.io",
    "caffe.net_spec": f"{_FACE}.net_spec",
    "caffe.coord_map": f"{_FACE}.coord_map",
    "caffe.draw": f"{_FACE}.draw",
    "caffe.classifier": f"{_FACE}.classifier",
    "caffe.detector": f"{_FACE}.detector",
    "caffe.proto": f"{_ROOT}.proto",
    "caffe.proto.caffe_pb2": f"{_ROOT}.proto.caffe_pb2",
}


def install_as_caffe() -> None:
    """Make ``import caffe`` and ``from caffe.proto import caffe_pb2`` mean this package, from now on in this process.

    Raises:
        CaffeError: another ``caffe`` has been imported already.
    """
    loaded = sys.modules.get("caffe")
    face = importlib.import_module(_FACE)
    if loaded is not None and loaded is not face:
        raise CaffeError(f"another caffe is imported already, from {getattr(loaded, '__file__', '?')}")
    for name, target in _MODULES.items():
        module = sys.modules[name] = importlib.import_module(target)
        parent, _, attribute = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], attribute, module)
