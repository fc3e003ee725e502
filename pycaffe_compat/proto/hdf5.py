"""Caffe's HDF5 weights: ``/data/LAYER/0``, ``/data/LAYER/1``, …, and the gradients likewise under ``/diff``.

HDF5 takes the ``/`` in a layer's name as a path, so ``conv1_2/relu`` is a group inside ``conv1_2``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from ..errors import ParseError
from .blobs import Shape, to_numpy
from .caffemodel import Weights


class HDF5Weights(Weights):
    """Weights over an open HDF5 file. A blob that the file leaves out (shared from another layer) has shape None."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.layer_types = {}
        try:
            self._h5 = h5py.File(file, "r")
            data = self._h5.get("data")
            if not isinstance(data, h5py.Group):
                raise ParseError(
                    f'{file}: not a Caffe model: no group "data" (it has {", ".join(self._h5) or "nothing"})'
                )
            self._layers = dict(_layers(data, ""))
        except (OSError, RuntimeError) as error:
            raise ParseError(f"{file}: not a valid HDF5 file: {error}") from None

    def __getitem__(self, name: str) -> list[np.ndarray]:
        return [self._read(dataset) for dataset in self._blobs(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __contains__(self, name: object) -> bool:
        return name in self._layers

    def shapes(self, name: str) -> list[Shape]:
        return [dataset.shape for dataset in self._blobs(name)]

    def diffs(self, name: str) -> list[np.ndarray | None]:
        stored = self._h5.get(f"diff/{name}")
        found = [stored.get(str(index)) if stored is not None else None for index in range(len(self._blobs(name)))]
        return [self._read(dataset) if isinstance(dataset, h5py.Dataset) else None for dataset in found]

    def readinto(self, name: str, index: int, out: np.ndarray) -> None:
        dataset = self._blobs(name)[index]
        self._fits(name, index, dataset.shape, out)
        try:
            if out.flags.c_contiguous and out.size and out.shape == dataset.shape:
                dataset.read_direct(out)
            else:
                out[...] = self._read(dataset).reshape(out.shape)
        except (OSError, RuntimeError, TypeError) as error:
            raise ParseError(f"{self.file}: {dataset.name} cannot be read: {error}") from None

    def _blobs(self, name: str) -> list[Any]:
        if name not in self._layers:
            raise self._unknown(name)
        return self._layers[name]

    def _read(self, dataset: Any) -> np.ndarray:
        try:
            array = to_numpy(dataset[()])
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise ParseError(f"{self.file}: {dataset.name} cannot be read: {error}") from None
        array.flags.writeable = False
        return array


def _layers(group: Any, prefix: str) -> Iterator[tuple[str, list[Any]]]:
    """The layers inside ``group``: each group that holds datasets, and each that holds nothing."""
    for key, item in group.items():
        if not isinstance(item, h5py.Group):
            continue
        name = prefix + key
        blobs = {int(n): item[n] for n in item if n.isdecimal() and isinstance(item.get(n), h5py.Dataset)}
        if blobs or not len(item):
            missing = next((i for i in range(len(blobs)) if i not in blobs), None)
            if missing is not None:
                raise ParseError(f"{item.file.filename}: {item.name} has no dataset {missing}")
            yield name, [blobs[index] for index in range(len(blobs))]
        yield from _layers(item, f"{name}/")


def write_hdf5(path: str, names: Sequence[str], blobs: Mapping[str, Any], diffs: Mapping[str, Any] | None) -> None:
    """Write the blobs of the layers ``names`` into a new HDF5 file at ``path``.

    Tensors that share memory are stored once and linked. A layer without blobs gets an empty group, as in Caffe, unless
    its name would put that group inside another layer's.
    """
    with h5py.File(path, "w", libver=("earliest", "v108")) as file:
        for kind, arrays in (("data", blobs), ("diff", diffs)):
            if arrays is None:
                continue
            root = file.create_group(kind)
            stored: dict[tuple[Any, ...], Any] = {}
            for name in names:
                values = arrays.get(name) or []
                if not values and "/" in name:
                    continue
                group = root.require_group(name)
                for index, value in enumerate(values):
                    array = to_numpy(value)
                    key = (array.__array_interface__["data"][0], array.shape, array.dtype)
                    if array.size and key in stored:
                        group[str(index)] = stored[key]
                    else:
                        stored[key] = group.create_dataset(str(index), data=array)
