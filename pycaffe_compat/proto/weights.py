"""What the weights of a file look like, whatever its format."""

from __future__ import annotations

import abc
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import UnknownNameError, WeightsError, nearest
from . import caffe_pb2
from .blob_proto import Shape


class Weights(Mapping[str, "list[np.ndarray]"]):
    """The blobs of a file by layer name, in the file's order: ``weights["conv1"]`` is ``[weight, bias]``.

    Layers without blobs are there with an empty list. Where a file has several layers of one name, the last one counts:
    Caffe copies each in turn. Arrays are read-only and have the shape that the file states (four dimensions in old
    files).

    Attributes:
        file: the path it was read from.
        net_name: the name of the net, ``""`` where none is stored.
        layer_types: layer name to type, in the names of today (``"Convolution"``); empty for HDF5, which has no types.
        partial: the file may leave out blobs that a layer shares from another, as Caffe's HDF5 files do. Such a blob is
            None
            in lists of arrays and shapes, or missing at their end.
    """

    file: str
    net_name: str = ""
    layer_types: dict[str, str]
    partial: bool = False

    @abc.abstractmethod
    def shapes(self, name: str) -> list[Shape | None]:
        """The shapes of the layer's blobs, without reading them."""

    @abc.abstractmethod
    def diffs(self, name: str) -> list[np.ndarray | None]:
        """The gradients stored with the layer's blobs; None for a blob stored without."""

    @abc.abstractmethod
    def readinto(self, name: str, index: int, out: np.ndarray) -> None:
        """Copy blob ``index`` of layer ``name`` into ``out``, which has as many elements (in any shape), and any float
        dtype.

        This is the way to load a net: where ``out`` is contiguous float32 the numbers go from the file into it without
        a copy in between and without mapped pages counting as memory of the process.

        Raises:
            WeightsError: ``out`` has another number of elements.
        """

    def skeleton(self) -> Any:
        """The upgraded ``NetParameter`` of the file without its blobs; layers of names alone where the file is HDF5."""
        net = caffe_pb2.NetParameter(name=self.net_name)
        net.layer.extend(caffe_pb2.LayerParameter(name=name) for name in self)
        return net

    def _unknown(self, name: object) -> UnknownNameError:
        return UnknownNameError(f"{self.file} has no layer {name!r}{nearest(str(name), self)}")

    def _fits(self, name: str, index: int, shape: Shape, out: np.ndarray) -> None:
        if math.prod(shape) != out.size:
            raise WeightsError(f'{self.file}: layer "{name}" blob {index} has shape {shape}, not {out.shape}')
