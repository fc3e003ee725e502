"""Batches for ``Data`` and ``ImageData``: which records a batch holds, and the jobs that fill it."""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, MissingFileError, prefixed
from . import draws
from .database import CREATE, Database
from .datum import datum_to_array, parse_datum
from .effort import DECODING, Effort
from .image_list import OTHER_LABELS, Entry, Several, read_image, read_labels_list, read_list, several_labels
from .loader import Buffers, Job, default_threads
from .transformer import Transformer

_HELD = 1 << 19  # bytes of decoded images that the cache of a core holds until they are transformed together
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
    order, and decode them in :meth:`prepare`, which runs in parallel.

    Attributes:
        as_bytes: make batches of bytes, cropped only, which :meth:`finish` turns into floats on their device: a quarter of
            the memory and of what is sent to a GPU. Batches of ``float_data`` are made as ever. Set it before a batch is
            begun.
        effort: what decoding and transforming cost is added to it.
    """

    def __init__(self, transformer: Transformer, batch_size: int) -> None:
        self.batch_size = batch_size
        self.as_bytes = False
        self.effort: Effort | None = None
        self._transformer = transformer
        self._random = transformer.random
        self._interleaved = False  # how bytes lie in memory: H×W×C
        self._images, self._labels, self._windows = Buffers(), Buffers(), Buffers()

    def fetch(self, shard: Shard, position: int) -> Any:
        """Return the input of :meth:`prepare` for the record at ``position``."""
        raise NotImplementedError

    def prepare(self, item: Any, words: Sequence[int] = ()) -> tuple[np.ndarray, Any]:
        """Return the image of an item (C×H×W), all but cropped, and its label.

        ``words`` are ``Transformer.WORDS`` random numbers, or none if nothing is random or only the shape matters.
        """
        raise NotImplementedError

    def labelled(self, label: Any, size: tuple[int, int], window: tuple[int, int, bool], cut: tuple[int, int]) -> Any:
        """Return what a batch holds for the label of :meth:`prepare`.

        Args:
            label: that label.
            size: height and width of the image.
            window: what :meth:`.Transformer.window` has chosen for it.
            cut: height and width of what is cut from it.
        """
        return label

    def name(self, item: Any) -> str:
        """Name the record of an item, for error messages."""
        raise NotImplementedError

    def first(self) -> Any:
        """Return an item whose shape is that of a batch. The net asks for it before it knows the seed."""
        return self.fetch(Shard(0), 0)

    def shapes(self) -> list[Shape]:
        item = self.first()
        try:
            image, _ = self.prepare(item)
            shape = self._transformer.check(image.shape)
        except DataError as error:
            raise DataError(f"{self.name(item)}: {error}") from error
        self._interleaved = image.shape[0] > 1 and image.strides[0] == image.itemsize
        return [(self.batch_size, *shape), (self.batch_size,)]

    @property
    def crop(self) -> int:
        """The side of what is cut from an image, or of a square of its size; 0 for whole images."""
        return round(math.prod(self._transformer.crop or (0, 0)) ** 0.5)

    @property
    def work(self) -> str:
        """What :meth:`prepare` does, for the log."""
        return "reading, decoding and resizing images to" if self._transformer.resizings else DECODING

    @property
    def advice(self) -> str:
        """What would make that less; empty if smaller or raw records would."""
        return "pictures that are no larger than resize_param makes them" if self._transformer.resizings else ""

    def begin(self, shard: Shard, position: int) -> tuple[list[np.ndarray], list[Job]]:
        positions = shard.positions(position, self.batch_size)
        items = [self.fetch(shard, int(at)) for at in positions]
        words: Sequence[Sequence[int]] = [()] * self.batch_size
        if self._random:
            words = draws.words(shard.seed, positions, self._transformer.WORDS).tolist()
        try:
            first = self.prepare(items[0], words[0])
            shape = self._transformer.check(first[0].shape)
        except DataError as error:
            raise DataError(f"{self.name(items[0])}: {error}") from error
        as_bytes = self.as_bytes and first[0].dtype == np.uint8
        arrays = self._take(shape, as_bytes)
        out, labels, windows = self._planar(arrays[0]), *arrays[1:]
        made = torch.from_numpy(arrays[0])
        margin = 2 * self._transformer.pad
        cut = shape[1] - margin, shape[2] - margin

        def fill(start: int, stop: int) -> None:
            transforming, pixels, held, begun = 0.0, 0, 0, time.perf_counter()
            chosen: list[tuple[int, int, bool]] = []
            views: list[np.ndarray] = []  # of the database: they take no memory and can be transformed together
            for i in range(start, stop):
                try:
                    image, label = self.prepare(items[i], words[i]) if i else first
                    chosen.append(self._transformer.window(image, words[i], shape))
                    labels[i] = self.labelled(label, image.shape[1:], chosen[-1], cut)
                    if as_bytes:
                        self._transformer.crop_bytes(image, chosen[-1], out[i])
                except DataError as error:
                    raise DataError(f"{self.name(items[i])}: {error}") from error
                pixels += image.shape[1] * image.shape[2]
                if not as_bytes:
                    views.append(image)
                    held += image.nbytes if image.flags.writeable else 0
                    if held >= _HELD or i == stop - 1:
                        since, part = time.perf_counter(), slice(i + 1 - len(views), i + 1)
                        windows[part] = chosen[-len(views) :]
                        self._transformer.transform(views, windows[part], made[part])
                        transforming += time.perf_counter() - since
                        views.clear()
                        held = 0
                del image  # the next one takes the same memory
            windows[start:stop] = chosen
            if self.effort is not None:
                decoding = time.perf_counter() - begun - transforming
                self.effort.made(stop - start, pixels, decoding, transforming)

        chunk = min(16, math.ceil(self.batch_size / default_threads()))
        starts = range(0, self.batch_size, chunk)
        return arrays, [functools.partial(fill, i, min(i + chunk, self.batch_size)) for i in starts]

    def _take(self, shape: Shape, as_bytes: bool) -> list[np.ndarray]:
        """Return memory for a batch: images, labels, and the windows that were cut."""
        size = (*shape[1:], shape[0]) if as_bytes and self._interleaved else shape
        return [
            self._images.take(self.batch_size, *size, dtype=np.uint8 if as_bytes else np.float32),
            self._label_memory(),
            self._windows.take(self.batch_size, 3, dtype=np.int32),
        ]

    def _label_memory(self) -> np.ndarray:
        """Return memory for what :meth:`labelled` returns for each image."""
        return self._labels.take(self.batch_size)

    def collected(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Return the arrays of a batch whose jobs are done, as tensors can be made of them."""
        return arrays

    def _planar(self, images: Any) -> Any:
        """The images as N×C×H×W: an array, or a tensor."""
        if not self._interleaved or images.dtype not in (np.uint8, torch.uint8):
            return images
        return images.permute(0, 3, 1, 2) if isinstance(images, Tensor) else images.transpose(0, 3, 1, 2)

    def finish(self, tops: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return images and labels of a batch whose arrays are these tensors by now, on any one device."""
        images, labels, windows = tops
        if images.dtype != torch.uint8:
            return images, labels
        return self._transformer.finish(self._planar(images), windows), labels


class DatabaseReader(ImageReader):
    """Batches of the Datums of an LMDB, in key order, starting over at the end.

    ``color`` is that of :func:`.datum.datum_to_array`; ``create`` that of :class:`.database.Database`.
    """

    def __init__(
        self, path: str, transformer: Transformer, batch_size: int, color: bool | None, create: str = CREATE
    ) -> None:
        super().__init__(transformer, batch_size)
        with prefixed("data_param.source"):
            self._database = Database(path, create)
        self._color = color

    def __len__(self) -> int:
        return len(self._database)

    def fetch(self, shard: Shard, position: int) -> tuple[bytes, memoryview]:
        return self._database.read(position)

    def prepare(self, item: tuple[bytes, memoryview], words: Sequence[int] = ()) -> tuple[np.ndarray, Any]:
        record = parse_datum(item[1])
        if not record.encoded:
            self._transformer.warn_raw(self._database.path)
        image = datum_to_array(record, self._color)
        return self._transformer.prepared(image, words, bool(record.encoded)), record.label

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
        labels: how many labels a line has; None for one, which makes labels without a second axis.
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
        labels: int | None = None,
    ) -> None:
        super().__init__(transformer, batch_size)
        self._several = () if labels is None else (labels,)
        self._entries: Sequence[Entry | Several]
        with prefixed("image_data_param.source"):
            self._entries = read_list(path) if labels is None else read_labels_list(path, labels)
        if skip > len(self._entries):
            raise DataError(f"image_data_param.rand_skip {skip} is more than the {len(self._entries)} images of {path}")
        self._root, self._color, self._size = root, color, size
        self._order = draws.Order(len(self._entries), shuffle, skip)

    def __len__(self) -> int:
        return len(self._entries)

    def shapes(self) -> list[Shape]:
        images, labels = super().shapes()
        return [images, (*labels, *self._several)]

    def _label_memory(self) -> np.ndarray:
        return self._labels.take(self.batch_size, *self._several)

    def first(self) -> Entry | Several:
        return self._entries[0]

    def fetch(self, shard: Shard, position: int) -> Entry | Several:
        return self._entries[self._order.index(shard.seed, position)]

    def prepare(self, item: Entry | Several, words: Sequence[int] = ()) -> tuple[np.ndarray, Any]:
        try:
            image = read_image(self._root + item.path, self._color, self._size)
        except MissingFileError as error:
            one = isinstance(item, Entry) and several_labels(self._root, item)
            raise MissingFileError(f"{error}. {OTHER_LABELS}" if one else error) from error
        planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
        return self._transformer.prepared(planes, words), item.label

    def name(self, item: Entry | Several) -> str:
        return f"image {os.path.join(self._root, item.path)}"
