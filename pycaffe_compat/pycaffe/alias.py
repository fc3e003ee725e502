"""Make ``import caffe`` mean this package in this process."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

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


class _ForkModules:
    """Finds what a fork adds to the package ``caffe`` (SSD's ``caffe.model_libs``) in the fork's own folder ``python``."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return where the module ``name`` lies, if it is one of ``caffe`` and a ``caffe`` on ``sys.path`` has it.

        Raises:
            ModuleNotFoundError: neither a ``caffe`` on ``sys.path`` nor this package has it.
        """
        package, _, module = name.rpartition(".")
        if package != "caffe":
            return None
        folders = [os.path.join(folder or os.curdir, "caffe") for folder in sys.path]
        packages = [folder for folder in folders if os.path.isfile(os.path.join(folder, "__init__.py"))]
        found = PathFinder.find_spec(name, packages, target)
        if found is not None and found.loader is not None:
            return found
        own = PathFinder.find_spec(name, path, target)
        if own is None:
            raise ModuleNotFoundError(
                f"No module named {name!r}: Caffe has none. If the {module} of a fork is meant, put the python folder of the "
                "fork's sources on PYTHONPATH",
                name=name,
            )
        return own


def install_as_caffe() -> None:
    """Make ``import caffe`` and ``from caffe.proto import caffe_pb2`` mean this package, from now on in this process.

    Modules that a fork adds to ``caffe`` (``caffe.model_libs`` of SSD) are taken from the fork's own folder ``python``, where
    that is on ``sys.path``; their ``import caffe`` is this package too.

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
    if _ForkModules not in sys.meta_path:
        sys.meta_path.insert(0, _ForkModules)
