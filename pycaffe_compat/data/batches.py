"""Batches for ``Data`` and ``ImageData``: which records a batch holds, and the jobs that fill it."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import DataError, prefixed
from . import draws
from .database import Database
from .datum import datum_to_array, parse_datum
from .image_list import Entry, read_image, read_list
from .loader import Buffers, Job, default_threads
from .transformer import Transformer

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Shard:
    """One training process among several, and the seed that they share.

    Process ``rank`` of ``world`` takes the records ``rank``, ``rank + world``, …, as Caffe's solvers do.
    """

    seed: int
    rank: int = 0
    world: int = 1

    def positions(self, position: int, count: int) -> np.ndarray:
        """Return the positions, in the endless sequence of records, of the ``count`` records of the batch at ``position``."""
        return position + self.rank + self.world * np.arange(count)


class Reader(Protocol):
    """Makes batches for a :class:`~.loader.Loader`."""

    batch_size: int

    def shapes(self) -> list[Shape]:
        """Return the shapes of the tops, from the first record."""

    def begin(self, shard: Shard, position: int) -> tuple[list[np.ndarray], list[Job]]:
        """Return the arrays of the batch at ``position`` and the jobs that fill them."""


class ImageReader:
    """Batches of transformed images and their labels.

    As in Caffe, the first record of a batch sets its shape. Subclasses find records in :meth:`fetch`, which is called in
    order, and decode them in :meth:`decode`, which runs in parallel.
    """

    def __init__(self, transformer: Transformer, batch_size: int) -> None:
        self.batch_size = batch_size
        self._transformer = transformer
        self._buffers = Buffers()

    def fetch(self, shard: Shard, position: int) -> Any:
        """Return the input of :meth:`decode` for the record at ``position``."""
        raise NotImplementedError

    def decode(self, item: Any) -> tuple[np.ndarray, int]:
        """Return the image (C×H×W) and the label of an item."""
        raise NotImplementedError

    def name(self, item: Any) -> str:
        """Name the record of an item, for error messages."""
        raise NotImplementedError

    def first(self) -> Any:
        """Return an item whose shape is that of a batch. The net asks for it before it knows the seed."""
        return self.fetch(Shard(0), 0)

    def shapes(self) -> list[Shape]:
        item = self.first()
        try:
            shape = self._transformer.check(self.decode(item)[0].shape)
        except DataError as error:
            raise DataError(f"{self.name(item)}: {error}") from error
        return [(self.batch_size, *shape), (self.batch_size,)]

    def begin(self, shard: Shard, position: int) -> tuple[list[np.ndarray], list[Job]]:
        positions = shard.positions(position, self.batch_size)
        items = [self.fetch(shard, int(at)) for at in positions]
        try:
            first = self.decode(items[0])
            shape = self._transformer.check(first[0].shape)
        except DataError as error:
            raise DataError(f"{self.name(items[0])}: {error}") from error
        arrays = [self._buffers.take(self.batch_size, *shape), np.empty(self.batch_size, np.float32)]
        words: Sequence[Sequence[int]] = [()] * self.batch_size
        if self._transformer.random:
            words = draws.words(shard.seed, positions, self._transformer.WORDS).tolist()

        def fill(start: int, stop: int) -> None:
            for i in range(start, stop):
                try:
                    image, label = self.decode(items[i]) if i else first
                    self._transformer(image, words[i], arrays[0][i])
                    arrays[1][i] = label
                except DataError as error:
                    raise DataError(f"{self.name(items[i])}: {error}") from error

        chunk = min(8, math.ceil(self.batch_size / default_threads()))
        starts = range(0, self.batch_size, chunk)
        return arrays, [functools.partial(fill, i, min(i + chunk, self.batch_size)) for i in starts]


class DatabaseReader(ImageReader):
    """Batches of the Datums of an LMDB, in key order, starting over at the end.

    ``color`` is that of :func:`.datum.datum_to_array`.
    """

    def __init__(self, path: str, transformer: Transformer, batch_size: int, color: bool | None) -> None:
        super().__init__(transformer, batch_size)
        with prefixed("data_param.source"):
            self._database = Database(path)
        self._color = color

    def fetch(self, shard: Shard, position: int) -> tuple[bytes, memoryview]:
        return self._database.read(position)

    def decode(self, item: tuple[bytes, memoryview]) -> tuple[np.ndarray, int]:
        record = parse_datum(item[1])
        if not record.encoded:
            self._transformer.warn_raw(self._database.path)
        return datum_to_array(record, self._color), record.label

    def name(self, item: tuple[bytes, memoryview]) -> str:
        return f'record "{item[0].decode(errors="backslashreplace")}" of {self._database.path}'


class ListReader(ImageReader):
    """Batches of the images of a list file.

    Args:
        path: the list file.
        root: a prefix of every path in the list; text, not a folder.
        color: decode to BGR; otherwise to grey.
        size: ``(height, width)`` to resize to, or None.
        shuffle: use a new order in every epoch.
        skip: start at a random one of the first ``skip`` images.
    """

    def __init__(
        self,
        path: str,
        transformer: Transformer,
        batch_size: int,
        *,
        root: str = "",
        color: bool = True,
        size: tuple[int, int] | None = None,
        shuffle: bool = False,
        skip: int = 0,
    ) -> None:
        super().__init__(transformer, batch_size)
        with prefixed("image_data_param.source"):
            self._entries = read_list(path)
        if skip > len(self._entries):
            raise DataError(f"image_data_param.rand_skip {skip} is more than the {len(self._entries)} images of {path}")
        self._root, self._color, self._size, self._shuffle, self._skip = root, color, size, shuffle, skip
        self._order = functools.lru_cache(maxsize=2)(draws.permutation)

    def __len__(self) -> int:
        return len(self._entries)

    def first(self) -> Entry:
        return self._entries[0]

    def fetch(self, shard: Shard, position: int) -> Entry:
        if self._skip:
            position += draws.draw(shard.seed, 0, self._skip, draws.SKIP)
        epoch, index = divmod(position, len(self._entries))
        if self._shuffle:
            index = int(self._order(shard.seed, epoch, len(self._entries))[index])
        return self._entries[index]

    def decode(self, item: Entry) -> tuple[np.ndarray, int]:
        image = read_image(self._root + item.path, self._color, self._size)
        return image[None] if image.ndim == 2 else image.transpose(2, 0, 1), item.label

    def name(self, item: Entry) -> str:
        return f"image {os.path.join(self._root, item.path)}"
