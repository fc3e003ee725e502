"""Caffe's layers, one ``nn.Module`` per type, in a registry by Caffe's type names.

Each module of this package is a family. Layers of forks of Caffe are in :mod:`pycaffe_compat.forks`.
"""

from __future__ import annotations

import importlib
import pkgutil

from .. import forks
from .base import Layer, Source
from .registry import REGISTRY, layer_class, register

for _module in pkgutil.iter_modules(__path__):
    if _module.name == "catalog":  # a program about the registry, not a family in it
        continue
    importlib.import_module(f"{__name__}.{_module.name}")
for _module in pkgutil.walk_packages(forks.__path__, f"{forks.__name__}."):
    importlib.import_module(_module.name)

__all__ = ["REGISTRY", "Layer", "Source", "layer_class", "register"]
