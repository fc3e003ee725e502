"""A net's layers as the pycaffe interface shows them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..layers import Layer
from ..layers.python_layer import PythonLayer
from .blob import Blob, ParameterArray
from .containers import BlobVec


class NetLayer:
    """A layer of a :class:`~.net.Net`: its Caffe ``type``, its parameter ``blobs``, and the ``module`` behind it.

    Of a layer that is written in Python, ``python`` is the object of the user's class; its methods and attributes are
    reached through this layer too, as in pycaffe (``net.layers[0].set_roidb(…)``).
    """

    _OWN = ("module", "blobs", "python")

    def __init__(self, module: Layer, blobs: BlobVec) -> None:
        self.module = module
        self.blobs = blobs
        self.python: Any = module.python if isinstance(module, PythonLayer) else None

    @property
    def name(self) -> str:
        return self.module.name

    @property
    def type(self) -> str:
        return self.module.type_name

    def __getattr__(self, name: str) -> Any:
        if name not in self._OWN and self.python is not None:
            return getattr(self.python, name)
        raise AttributeError(f"{self!r} has no attribute {name!r}" if "module" in vars(self) else name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "blobs" and "blobs" in vars(self):
            self.blobs.assign(value)
        elif name in self._OWN or self.python is None:
            super().__setattr__(name, value)
        else:
            setattr(self.python, name, value)

    def __repr__(self) -> str:
        return f"<{self.type} layer {self.name!r}>"


def parameter_blob(layer: Layer, index: int) -> Blob:
    """The blob of a parameter: ``data`` is its memory, ``diff`` that of its gradient."""
    spec = layer.blob_specs[index]
    without_gradient: list[Tensor] = []

    def value() -> Tensor:
        return layer.blob(index).detach()

    def gradient() -> Tensor:
        tensor = layer.blob(index)
        if spec.trainable and tensor.requires_grad:
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
            return tensor.grad
        if not without_gradient or without_gradient[0].device != tensor.device:
            without_gradient[:] = [torch.zeros_like(tensor, requires_grad=False)]
        return without_gradient[0]

    def has_gradient() -> bool:
        return bool(without_gradient) or layer.blob(index).grad is not None

    return Blob(ParameterArray(value), ParameterArray(gradient, has_gradient))
