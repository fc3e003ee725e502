"""Caffe's HDF5 weights: ``/data/LAYER/0``, ``/data/LAYER/1``, …, and the gradients likewise under ``/diff``.

HDF5 takes the ``/`` in a layer's name as a path, so ``conv1_2/relu`` is a group inside ``conv1_2``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from ..errors import ParseError, WeightsError
from ..files import OPEN_ELSEWHERE, sink
from .blob_proto import Shape, to_numpy
from .weights import Weights

_MOST_BLOBS = 1000  # of one layer; a recurrent layer of Caffe has a handful
_DEFLATE = 1032  # zlib cannot compress by more than this factor
_ERRORS = (OSError, RuntimeError, TypeError, ValueError, KeyError)


class HDF5Weights(Weights):
    """Weights over an open HDF5 file."""

    partial = True

    def __init__(self, file: str) -> None:
        self.file = file
        self.layer_types = {}
        self._layers: dict[str, list[Any]] = {}
        try:
            self._h5 = h5py.File(file, "r")
            data = self._h5.get("data")
            if not isinstance(data, h5py.Group):
                names = ", ".join(map(str, self._h5)) or "nothing"
                raise ParseError(f'{file}: not a Caffe model: it has no group "data"; it has {names}')
            self._walk(data, "", [])
        except BlockingIOError:
            raise ParseError(f"{file}: cannot be read: {OPEN_ELSEWHERE}") from None
        except _ERRORS as error:
            if isinstance(error, ParseError):
                raise
            raise ParseError(f"{file}: not a valid HDF5 file: {error}") from None

    def _walk(self, group: Any, prefix: str, inside: list[Any]) -> None:
        """Note the layers inside ``group``: each group that holds blobs, and each that holds nothing."""
        for key in group:
            if isinstance(key, bytes):
                raise ParseError(f"{self.file}: {group.name} holds a name that is not text: {key!r}")
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise ParseError(f"{self.file}: {group.name}/{key} is a link; links are not followed")
            item = group[key]
            if not isinstance(item, h5py.Group):
                continue
            if item in inside:
                raise ParseError(f"{self.file}: {item.name} contains itself")
            blobs = {int(n): item[n] for n in item if n.isascii() and n.isdecimal() and self._is_blob(item, n)}
            if blobs or not len(item):
                count = max(blobs, default=-1) + 1
                if count > _MOST_BLOBS:
                    raise ParseError(f"{self.file}: {item.name} has a blob number {count - 1}")
                self._layers[prefix + key] = [blobs.get(index) for index in range(count)]
            self._walk(item, f"{prefix}{key}/", [*inside, item])

    def _is_blob(self, group: Any, name: str) -> bool:
        if group.get(name, getclass=True) is not h5py.Dataset:
            return False
        dataset = group[name]
        if dataset.shape is None or dataset.dtype.kind not in "fiu" or dataset.external or dataset.is_virtual:
            raise ParseError(f"{self.file}: {dataset.name} is not an array of numbers stored in this file")
        if dataset.nbytes > _DEFLATE * dataset.id.get_storage_size():
            raise ParseError(f"{self.file}: {dataset.name} declares {dataset.nbytes} bytes, but fewer are stored")
        return True

    def __getitem__(self, name: str) -> list[Any]:
        return [None if dataset is None else self._read(dataset) for dataset in self._blobs(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __contains__(self, name: object) -> bool:
        return name in self._layers

    def shapes(self, name: str) -> list[Shape | None]:
        return [None if dataset is None else dataset.shape for dataset in self._blobs(name)]

    def diffs(self, name: str) -> list[np.ndarray | None]:
        found: list[np.ndarray | None] = []
        for index in range(len(self._blobs(name))):
            path = f"diff/{name}/{index}"
            try:
                stored = path in self._h5 and self._is_blob(self._h5[f"diff/{name}"], str(index))
                dataset = self._h5[path] if stored else None
            except _ERRORS as error:
                raise ParseError(f"{self.file}: {path} cannot be read: {error}") from None
            found.append(None if dataset is None else self._read(dataset))
        return found

    def readinto(self, name: str, index: int, out: np.ndarray) -> None:
        dataset = self._blobs(name)[index]
        if dataset is None:
            raise WeightsError(f'{self.file}: layer "{name}" blob {index} is left out (shared from another layer)')
        self._fits(name, index, dataset.shape, out)
        if out.flags.c_contiguous and out.size:
            try:
                dataset.read_direct(out.reshape(dataset.shape))
            except _ERRORS as error:
                raise ParseError(f"{self.file}: {dataset.name} cannot be read: {error}") from None
        else:
            out[...] = self._read(dataset).reshape(out.shape)

    def _blobs(self, name: str) -> list[Any]:
        if name not in self._layers:
            raise self._unknown(name)
        return self._layers[name]

    def _read(self, dataset: Any) -> np.ndarray:
        try:
            array = to_numpy(dataset[()])
        except _ERRORS as error:
            raise ParseError(f"{self.file}: {dataset.name} cannot be read: {error}") from None
        array.flags.writeable = False
        return array


@contextlib.contextmanager
def create_hdf5(path: str, **options: Any) -> Iterator[h5py.File]:
    """Yield a new HDF5 file to write into; ``options`` are those of ``h5py.File``.

    Raises:
        OSError: it cannot be written, for example because the disk is full.
    """
    with sink(path) as target, h5py.File(target, "w", **options) as file:
        yield file


def write_hdf5(path: str, names: Sequence[str], blobs: Mapping[str, Any], diffs: Mapping[str, Any] | None) -> None:
    """Write the blobs of the layers ``names`` into a new HDF5 file at ``path``.

    Blobs that share memory are stored once and linked. A layer without blobs gets an empty group, as in Caffe, unless
    a "/" in its name would put that group inside another layer's.

    Raises:
        WeightsError: a layer whose name HDF5 cannot hold. OSError: the file cannot be written.
    """
    with create_hdf5(path, libver=("earliest", "v108")) as file:
        for kind, arrays in (("data", blobs), ("diff", diffs)):
            if arrays is None:
                continue
            root = file.create_group(kind)
            stored: dict[Any, tuple[Any, Any]] = {}  # keeps each blob alive, so that its memory is not reused
            for name in names:
                values = arrays.get(name) or []
                if not values and "/" in name:
                    continue
                group = _group(root, name)
                for index, value in enumerate(values):
                    if value is None:
                        continue
                    key = _memory(value)
                    if key in stored:
                        group[str(index)] = stored[key][1]
                    else:
                        stored[key] = value, _dataset(group, index, value, name)


def _group(root: Any, name: str) -> Any:
    if not all(part not in ("", ".") for part in name.split("/")):
        raise WeightsError(f'HDF5 cannot hold a layer named "{name}"; write a .caffemodel instead')
    try:
        return root.require_group(name)
    except (TypeError, ValueError) as error:
        raise WeightsError(f'HDF5 cannot hold the layer "{name}" along with the others: {error}') from None


def _dataset(group: Any, index: int, value: Any, name: str) -> Any:
    if str(index) in group:
        raise WeightsError(f'HDF5 cannot hold both the layer "{name}" and a layer "{name}/{index}"')
    return group.create_dataset(str(index), data=to_numpy(value))


def _memory(value: Any) -> Any:
    """A key that two blobs have in common if and only if they are the same memory."""
    if hasattr(value, "data_ptr") and value.numel():
        return value.device, value.data_ptr(), value.shape, value.stride(), value.dtype
    if isinstance(value, np.ndarray) and value.size:
        return value.__array_interface__["data"][0], value.shape, value.strides, value.dtype
    return object()
