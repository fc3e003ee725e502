"""Trained weights from a file of any kind, and the names of their blobs."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..errors import WeightsError
from ..layers import REGISTRY, Layer
from ..layers.base import Shape
from ..layers.registry import VARIANTS
from ..proto import caffe_pb2

PathLike = str | os.PathLike[str]
Progress = Callable[[int], object]

CAFFE = (".caffemodel", ".caffemodel.h5", ".h5")
SUFFIXES = (*CAFFE, ".pt", ".pth", ".safetensors", ".npz")


@dataclass
class Model:
    """Trained weights from a file of any kind. Iterating gives the names of its layers, those without blobs too.

    Attributes:
        file: where they came from, for messages.
        blobs: layer name to its arrays in Caffe's order; layers without blobs are left out.
        names: layer name to the names of its blobs (``weight``, ``bias``).
        skeleton: a ``NetParameter`` with a layer for each, with types and options if the file has them.
    """

    file: str
    blobs: dict[str, list[np.ndarray]]
    names: dict[str, list[str]] = field(default_factory=dict)
    skeleton: Any = None
    partial: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.skeleton is None:
            self.skeleton = caffe_pb2.NetParameter()
        have = {layer.name: layer.type for layer in self.skeleton.layer}
        for name, arrays in self.blobs.items():
            if name not in have:
                self.skeleton.layer.add(name=name)
            self.names.setdefault(name, blob_names(have.get(name, ""), [array.shape for array in arrays]))

    def __iter__(self) -> Iterator[str]:
        return iter({layer.name: None for layer in self.skeleton.layer})

    def shapes(self, name: str) -> list[Shape | None]:
        """The shapes of a layer's blobs."""
        return [array.shape for array in self.blobs.get(name, [])]

    def state_dict(self) -> dict[str, np.ndarray]:
        """The arrays by ``LAYER.BLOB``, in order."""
        return {
            f"{layer}.{name}": array
            for layer, arrays in self.blobs.items()
            for name, array in zip(self.names[layer], arrays, strict=True)
        }

    @property
    def numbers(self) -> int:
        """The number of elements in all blobs."""
        return sum(array.size for arrays in self.blobs.values() for array in arrays)


def blob_names(type_name: str, shapes: Sequence[Shape]) -> list[str]:
    """Return the names that a layer of ``type_name`` (``""`` if unknown) gives its blobs, as in ``state_dict``."""
    if not type_name and len(shapes) == 3 and math.prod(shapes[2]) == 1 and shapes[0] == shapes[1]:
        type_name = "BatchNorm"
    return list(REGISTRY.get(type_name, Layer).blob_names(len(shapes)))


def in_order(names: Iterable[str]) -> list[str]:
    """The names of one layer's blobs in the layer's order, for files that store none.

    It is the order of the layer type with the fewest blobs that declares all of them: types of several forks may give
    blobs of one name different places.
    """
    given = list(names)
    declared = {cls.blobs_declared for each in REGISTRY for cls in VARIANTS.get(each, [REGISTRY[each]])}
    fitting = sorted((each for each in declared if set(given) <= set(each)), key=lambda each: (len(each), each))
    order = fitting[0] if fitting else ("weight", "bias")

    def place(name: str) -> float:
        digits = name.removeprefix("blob")
        return int(digits) if digits.isdecimal() else order.index(name) if name in order else math.inf

    return sorted(given, key=place)


def suffix_of(path: PathLike) -> str:
    """Return the ending of ``path``, which chooses the format.

    Raises:
        WeightsError: the ending is unknown.
    """
    text = os.fspath(path).lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if text.endswith(suffix):
            return suffix
    nets = "; caffe-export-net writes whole nets" if text.endswith((".onnx", ".pt2", ".ts.pt", ".py")) else ""
    raise WeightsError(f"{os.fspath(path)}: the file name's ending must be one of {', '.join(SUFFIXES)}{nets}")
