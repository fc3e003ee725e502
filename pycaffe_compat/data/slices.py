"""Batches of records that hold several arrays: the channels of a Datum, sliced, each slice in an encoding of its own.

Source: custom_data_layer.cpp of lmb-freiburg/flownet2, whose records are two images, a flow, and a mask.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError, prefixed, require_file
from . import draws, glibc
from .batches import Shape, Shard
from .database import Database
from .datum import Record, parse_datum
from .loader import Buffers, Job

CREATE = "FlowNet2's tools convert_imageset_and_flow and convert_imageset_and_disparity made such databases"
UINT8, UINT16FLOW, BOOL1 = 1, 2, 3
_FLOW_STEPS = 32  # the numbers of a flow are stored in parts of a pixel
_UNKNOWN = 2**15 - 1


@dataclass(frozen=True)
class Selection:
    """Which records are read, and in what order.

    Attributes:
        labels, label: a file with a number for each record, and the number of those that are read; empty: all are.
        start, stop: the first and last of these; ``stop`` below 0 for the end.
        shuffle: change the order.
        shuffle_first: before ``start`` and ``stop`` are looked at.
        seed: of the order; 0 for one that the shard's seed decides.
        every: in which batches the order is changed again; 0 for never.
        block: how many records that follow each other stay together, the last of them at its place; 0 for all.
    """

    labels: str = ""
    label: int = 0
    start: int = 0
    stop: int = -1
    shuffle: bool = False
    shuffle_first: bool = True
    seed: int = 0
    every: int = 0
    block: int = 0

    def records(self, count: int) -> np.ndarray:
        """Return the numbers of the records, of ``count``, as the file and, where it is known, the first order says.

        Raises:
            DataError: the range is empty, or no record has the label.
        """
        chosen = np.arange(count)
        if self.labels:
            with prefixed("data_param.preselection_file"):
                chosen = np.flatnonzero(read_numbers(self.labels, count) == self.label)
                if not len(chosen):
                    raise DataError(f"{self.labels} has no record with preselection_label {self.label}")
        start = min(max(self.start, 0), len(chosen) - 1)
        stop = len(chosen) - 1 if not 0 <= self.stop < len(chosen) else self.stop
        if stop < start:
            raise DataError(f"data_param.range_end: {stop} is before range_start: {start}")
        if self.shuffle_first:
            return self._first(chosen)[start : stop + 1]
        return self._first(chosen[start : stop + 1])

    def _first(self, chosen: np.ndarray) -> np.ndarray:
        if not self.shuffle or not self.seed:
            return chosen
        chosen, drawn = chosen.copy(), glibc.numbers(self.seed)
        for part in self.parts(len(chosen)):
            glibc.shuffle(chosen[part], drawn)
        return chosen

    def parts(self, count: int) -> list[slice]:
        """The parts of ``count`` records that are shuffled, each by itself."""
        if not self.block:
            return [slice(0, count)]
        return [slice(at, min(at + self.block, count) - 1) for at in range(0, count, self.block)]

    def order(self, chosen: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        """Return the records in the order after ``epoch`` changes; ``seed`` is the shard's."""
        if not self.shuffle or (not epoch and self.seed):
            return chosen
        chosen, parts = chosen.copy(), self.parts(len(chosen))
        for number, part in enumerate(parts):
            items = chosen[part]
            chosen[part] = items[draws.permutation(seed, epoch * len(parts) + number, len(items))]
        return chosen


def read_numbers(path: str | os.PathLike[str], count: int) -> np.ndarray:
    """Read a text file of ``count`` integers.

    Raises:
        MissingFileError: there is no such file.
        DataError: it has other words, or another number of them.
    """
    name = require_file(path, "list of labels")
    with open(name, encoding="utf-8", errors="surrogateescape") as file:
        words = file.read().split()
    for word in words:
        if not word.lstrip("+-").isdigit():
            raise DataError(f'{name}: "{word[:40]}" is not an integer; expected one for each record')
    if len(words) != count:
        raise DataError(
            f"{name} has {len(words)} numbers, but the database {count} records; expected one for each record"
        )
    return np.array([int(word) for word in words], object)


class SliceReader:
    """Batches of the slices of the records of an LMDB, N×C×H×W each, ``float32``, and perhaps of their labels, N×1×1×1.

    Records are looked up by the number in their key, ``%08d``, as in the fork.

    Args:
        path: the database.
        cuts: the channels where a new slice begins.
        encodings: of the slices; bytes for those that have none.
        mean: what is subtracted, which must fit (C, H, W), or numbers for the first channels; None for nothing.
        scale: what the differences are multiplied by.

    Raises:
        MissingFileError, DataError: the database, its first record, or what selects from it cannot be used.
    """

    def __init__(
        self,
        path: str,
        batch_size: int,
        cuts: Sequence[int],
        encodings: Sequence[int],
        selection: Selection,
        mean: np.ndarray | Sequence[float] | None = None,
        scale: float = 1.0,
    ) -> None:
        self.batch_size = batch_size
        with prefixed("data_param.source"):
            self._database = Database(path, CREATE)
        self._cuts, self._encodings, self._scale = list(cuts), list(encodings), scale
        self._selection = selection
        self._chosen = selection.records(len(self._database))
        self._order = functools.lru_cache(maxsize=2)(functools.partial(selection.order, self._chosen))
        item = self._database.read(0)
        with prefixed(self._name(item)):
            first = parse_datum(item[1])
            self._shape = (first.channels, first.height, first.width)
            if self._cuts and not all(
                a < b for a, b in zip([0, *self._cuts], [*self._cuts, first.channels], strict=True)
            ):
                raise DataError(
                    f"has {first.channels} channels, which slice_point {', '.join(map(str, self._cuts))} does not cut into slices"
                )
            self._mean = self._read_mean(mean)
            self._decoded(first)
        self._buffers = [Buffers() for _ in range(len(self._cuts) + 2)]

    def _read_mean(self, mean: np.ndarray | Sequence[float] | None) -> np.ndarray | None:
        if mean is None:
            return None
        if isinstance(mean, np.ndarray):
            if mean.shape != self._shape:
                raise DataError(f"has shape {self._shape}, but the mean of data_param.mean_file {mean.shape}")
            return mean
        if len(mean) > self._shape[0]:
            raise DataError(f"has {self._shape[0]} channels, but data_param.subtract {len(mean)} numbers")
        values = np.zeros((self._shape[0], 1, 1), np.float32)
        values[: len(mean), 0, 0] = mean
        return values

    def __len__(self) -> int:
        return len(self._chosen)

    def shapes(self) -> list[Shape]:
        """Return the shapes of the slices, and of labels."""
        channels, height, width = self._shape
        edges = [0, *self._cuts, channels]
        slices = [(self.batch_size, b - a, height, width) for a, b in itertools.pairwise(edges)]
        return [*slices, (self.batch_size, 1, 1, 1)]

    def begin(self, shard: Shard, position: int) -> tuple[list[np.ndarray], list[Job]]:
        """Return the arrays of the batch at ``position`` and the jobs that fill them."""
        batch = position // (self.batch_size * shard.world)
        epoch = batch // self._selection.every if self._selection.every else 0
        order = self._order(shard.seed, epoch)
        numbers = order[shard.positions(position, self.batch_size) % len(order)]
        arrays = [buffers.take(*shape) for buffers, shape in zip(self._buffers, self.shapes(), strict=True)]
        edges = [0, *self._cuts, self._shape[0]]

        def fill(i: int) -> None:
            item = self._database.find(b"%08d" % numbers[i])
            if item is None:
                raise DataError(
                    f'database {self._database.path} has no record "{numbers[i]:08d}" or behind it; its keys must be numbers '
                    "of 8 digits from 0 on"
                )
            with prefixed(self._name(item)):
                record = parse_datum(item[1])
                planes = self._decoded(record)
            for array, start, stop in zip(arrays, edges, edges[1:], strict=False):
                array[i] = planes[start:stop]
            arrays[-1][i] = record.label

        return arrays, [functools.partial(fill, i) for i in range(self.batch_size)]

    def _name(self, item: tuple[bytes, memoryview]) -> str:
        return f'record "{item[0].decode(errors="backslashreplace")}" of {self._database.path}'

    def _decoded(self, record: Record) -> np.ndarray:
        shape = (record.channels, record.height, record.width)
        if shape != self._shape:
            raise DataError(f"has channels, height and width {shape}, but the first record {self._shape}")
        planes = decoded(record, self._cuts, self._encodings)
        if self._mean is not None:
            planes = planes - self._mean
        return planes if self._scale == 1 else planes * np.float32(self._scale)


def decoded(record: Record, cuts: Sequence[int], encodings: Sequence[int]) -> np.ndarray:
    """Return the values of a record, C×H×W ``float32``.

    ``UINT8`` has a byte for each value. ``UINT16FLOW`` has two, the lower one first, of a signed number in parts of 1/32, the
    largest of which stands for none (NaN). ``BOOL1`` has a bit for each value of one channel, the lowest of a byte first.

    Raises:
        DataError: the record holds no values, or not as many as these need.
    """
    channels, height, width = record.channels, record.height, record.width
    if min(channels, height, width) < 1:
        raise DataError(f"holds no arrays: channels, height, width are {channels}, {height}, {width}")
    if record.encoded:
        raise DataError("holds an encoded picture; its arrays must be stored one after the other")
    if record.float_data is not None and not len(record.data):
        if encodings:
            raise DataError("holds floats (float_data), which have no encoding; remove data_param.encoding")
        if len(record.float_data) != channels * height * width:
            raise DataError(
                f"holds {len(record.float_data)} values; channels × height × width are {channels * height * width}"
            )
        return record.float_data.reshape(channels, height, width)
    data, at, parts = np.frombuffer(record.data, np.uint8), 0, []
    edges = [0, *cuts, channels]
    kinds = [encodings[i] if i < len(encodings) else UINT8 for i in range(len(edges) - 1)]
    area = height * width
    sizes = {UINT8: area, UINT16FLOW: 2 * area, BOOL1: (area + 7) // 8}
    wanted = sum(sizes[kind] * (b - a) for kind, a, b in zip(kinds, edges, edges[1:], strict=False))
    if len(data) != wanted:
        raise DataError(
            f"holds {len(data)} bytes; {channels} channels of {height}×{width} take {wanted} with data_param.slice_point and "
            "encoding"
        )
    for kind, start, stop in zip(kinds, edges, edges[1:], strict=False):
        size = sizes[kind] * (stop - start)
        part, at = data[at : at + size], at + size
        if kind == UINT8:
            values = part.astype(np.float32)
        elif kind == UINT16FLOW:
            stored = np.frombuffer(part.tobytes(), "<i2")
            values = np.where(stored == _UNKNOWN, np.float32(np.nan), stored / np.float32(_FLOW_STEPS))
        else:
            if stop - start != 1:
                raise DataError(f"has {stop - start} channels in a slice of encoding BOOL1, which has one")
            values = np.unpackbits(part, bitorder="little")[:area].astype(np.float32)
        parts.append(values.reshape(-1, height, width))
    return np.concatenate(parts)
