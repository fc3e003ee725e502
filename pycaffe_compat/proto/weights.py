"""The weights of a file, in any format."""

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

    Layers without blobs have an empty list. If several layers of a file have the same name, the last one counts, as
    Caffe copies each in turn. Arrays are read-only and have the shape stored in the file (four dimensions in old
    files).

    Attributes:
        file: its path.
        net_name: the name of the net, ``""`` if none is stored.
        layer_types: layer name to type, in the names of today (``"Convolution"``); empty for HDF5, which has no types.
        partial: the file may leave out blobs that a layer shares with another, as Caffe's HDF5 files do. Such a blob
            is None in lists of arrays and shapes, or missing at their end.
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
        """The gradients stored with the layer's blobs; None for a blob without one."""

    @abc.abstractmethod
    def readinto(self, name: str, index: int, out: np.ndarray) -> None:
        """Copy blob ``index`` of layer ``name`` into ``out``, of any float dtype and any shape with as many elements.

        Nets are loaded this way. If ``out`` is contiguous float32, the numbers go straight from the file into it: there
        is no copy in between, and no mapped pages count as memory of the process.

        Raises:
            WeightsError: ``out`` has another number of elements.
        """

    def skeleton(self) -> Any:
        """The upgraded ``NetParameter`` of the file without its blobs; for HDF5, layers with names only."""
        net = caffe_pb2.NetParameter(name=self.net_name)
        net.layer.extend(caffe_pb2.LayerParameter(name=name) for name in self)
        return net

    def _unknown(self, name: object) -> UnknownNameError:
        return UnknownNameError(f"{self.file} has no layer {name!r}{nearest(str(name), self)}")

    def _fits(self, name: str, index: int, shape: Shape, out: np.ndarray) -> None:
        if math.prod(shape) != out.size:
            raise WeightsError(f'{self.file}: layer "{name}" blob {index} has shape {shape}, not {out.shape}')
