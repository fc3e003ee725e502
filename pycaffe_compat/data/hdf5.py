"""Batches for ``HDF5Data``: one dataset for each top, with the rows along the first axis."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Iterator

import h5py
import numpy as np

from ..errors import DataError, MissingFileError, nearest, prefixed, require_file
from ..files import OPEN_ELSEWHERE, open_text
from ..proto.kinds import DATASETS, LISTS, told_apart
from . import draws
from .batches import Shape, Shard
from .loader import Buffers, Job


class Hdf5Reader:
    """Batches of the rows of HDF5 files, in order, starting over at the end. Files are read whole, as in Caffe.

    With ``shuffle``, the files and the rows of each file have a new order in every epoch.

    Args:
        path: a text file with the paths of the HDF5 files.
        names: the datasets to read; they have the names of the tops.

    Raises:
        MissingFileError, DataError: the list or a listed file is missing; a dataset is missing, is not numeric, differs
            from the others of its file in its number of rows, or from the first file in the shape of a row.
    """

    def __init__(self, path: str, names: list[str], batch_size: int, shuffle: bool = False) -> None:
        self.batch_size = batch_size
        self._names = names
        self._shuffle = shuffle
        lists = told_apart(path, LISTS, "a text file that lists HDF5 files, one path per line")
        with prefixed("hdf5_data_param.source"), lists:
            self._files = _read_paths(path)
            try:
                surveys = [self._survey(name) for name in self._files]
            except MissingFileError as error:
                raise MissingFileError(f"{error}, for {path}") from error
        self._rows = [shapes[0][0] for shapes in surveys]
        self._tails = [shape[1:] for shape in surveys[0]]
        for name, shapes in zip(self._files, surveys, strict=True):
            for dataset, shape, tail in zip(names, shapes, self._tails, strict=True):
                if shape[1:] != tail:
                    raise DataError(
                        f'dataset "{dataset}" has rows of shape {shape[1:]} in {name}, but {tail} in {self._files[0]}'
                    )
        self._load = functools.lru_cache(maxsize=2)(self._read)
        self._order = functools.lru_cache(maxsize=4)(draws.permutation)
        self._buffers = [Buffers() for _ in names]

    def _survey(self, name: str) -> list[Shape]:
        """Check the datasets of a file and return their shapes, without reading the data."""
        shapes = []
        with told_apart(name, DATASETS, "an HDF5 file with a dataset for each top"), _open(name) as file:
            for dataset in self._names:
                if dataset not in file or not isinstance(file[dataset], h5py.Dataset):
                    has = ", ".join(map(str, file)) or "nothing"
                    raise DataError(
                        f'{name} has no dataset "{dataset}"{nearest(dataset, map(str, file))}; it holds: {has}'
                    )
                data = file[dataset]
                if data.dtype.kind not in "fiu":
                    raise DataError(f'dataset "{dataset}" of {name} holds {data.dtype}; expected floats or integers')
                if not data.shape or not data.shape[0]:
                    raise DataError(f'dataset "{dataset}" of {name} has shape {data.shape}; expected at least one row')
                # Deflate packs at most about 1:1032. A larger claim means a damaged header: do not allocate memory for it.
                if data.nbytes > (1 << 26) + 1100 * data.id.get_storage_size():
                    raise DataError(
                        f'dataset "{dataset}" of {name} claims {data.nbytes} bytes, but the file stores '
                        f"only {data.id.get_storage_size()} for it: it is damaged"
                    )
                shapes.append(data.shape)
        if len({shape[0] for shape in shapes}) > 1:
            rows = ", ".join(f'"{dataset}" {shape[0]}' for dataset, shape in zip(self._names, shapes, strict=True))
            raise DataError(f"the datasets of {name} have different numbers of rows: {rows}")
        return shapes

    def _read(self, index: int) -> list[np.ndarray]:
        with _open(self._files[index]) as file:
            return [file[name].astype(np.float32)[()] for name in self._names]

    def shapes(self) -> list[Shape]:
        """Return the shapes of the tops."""
        return [(self.batch_size, *tail) for tail in self._tails]

    def _locate(self, shard: Shard, position: int) -> tuple[int, int]:
        """Return the file, and the row in it, at ``position``."""
        epoch, row = divmod(position, sum(self._rows))
        files = range(len(self._files))
        for index in self._order(shard.seed, epoch, len(self._files)).tolist() if self._shuffle else files:
            if row < self._rows[index]:
                break
            row -= self._rows[index]
        if self._shuffle:
            order = self._order(shard.seed, epoch * len(self._files) + index, self._rows[index], draws.ROWS)
            row = int(order[row])
        return index, row

    def begin(self, shard: Shard, position: int) -> tuple[list[np.ndarray], list[Job]]:
        """Return the arrays of a batch, already filled; there are no jobs."""
        arrays = [
            buffers.take(self.batch_size, *tail) for buffers, tail in zip(self._buffers, self._tails, strict=True)
        ]
        places = [self._locate(shard, int(at)) for at in shard.positions(position, self.batch_size)]
        start = 0
        for index, group in itertools.groupby(places, key=lambda place: place[0]):
            rows = [row for _, row in group]
            for array, dataset in zip(arrays, self._load(index), strict=True):
                np.take(dataset, rows, axis=0, out=array[start : start + len(rows)], mode="clip")
            start += len(rows)
        return arrays, []


def _read_paths(path: str) -> list[str]:
    """Return the paths in a list of HDF5 files; they are separated by white space, as in Caffe."""
    require_file(path, "list of HDF5 files")
    with open_text(path) as file:
        paths = file.read().split()
    if not paths:
        raise DataError(f"{path} is empty; expected the paths of HDF5 files, one per line")
    return paths


@contextlib.contextmanager
def _open(name: str) -> Iterator[h5py.File]:
    """Open an HDF5 file. Every error of the HDF5 library, now or in the block, becomes a DataError."""
    require_file(name, "HDF5 file")
    try:
        with h5py.File(name, "r") as file:
            yield file
    except BlockingIOError as error:
        raise DataError(f"{os.fspath(name)} cannot be read: {OPEN_ELSEWHERE}") from error
    except (OSError, KeyError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{os.fspath(name)} is not an HDF5 file, or is damaged: {error}") from error
