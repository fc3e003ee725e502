"""``BlobProto``: where its numbers lie in a buffer, and numpy arrays over them; arrays back into bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import ParseError
from . import caffe_pb2, wire

Shape = tuple[int, ...]

_LEGACY = {1: 0, 2: 1, 3: 2, 4: 3}  # num, channels, height, width
_NUMBERS = {5: "data", 6: "diff", 8: "double_data", 9: "double_diff"}
_FIELD = {name: number for number, name in _NUMBERS.items()}
_SHAPE = 7
_WIDTH = 5  # C3D 1.0 has length 3, height 4, width 5, data 6 and diff 7
# NVIDIA Caffe's own: the bytes of an array, and the number of their type in its enum.
_RAW_TYPES = {10: "data", 11: "diff"}
_RAW = {12: "data", 13: "diff"}
_FLOAT16, _FLOAT32, _FLOAT64 = np.dtype("<f2"), np.dtype("<f4"), np.dtype("<f8")
_RAW_DTYPES = {0: (_FLOAT64, _FLOAT32), 1: (_FLOAT32,), 2: (_FLOAT16,)}  # 0 is DOUBLE; the size says if FLOAT is meant


@dataclass
class Run:
    """Numbers that lie together: ``stride`` apart, the first at ``start``."""

    start: int
    count: int
    stride: int


@dataclass
class StoredBlob:
    """One serialised ``BlobProto`` inside ``buffer``: its shape and where its numbers are. Nothing is copied until
    asked.

    Attributes:
        what: names the blob in errors.
        runs: for each of ``data``, ``diff``, ``double_data``, ``double_diff`` the places of its numbers.
        raw: for ``data`` and ``diff`` the start and the length of NVIDIA Caffe's ``raw_data`` and ``raw_diff``.
        raw_types: likewise the number of their type.
    """

    buffer: Any
    what: str
    legacy: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    has_legacy: bool = False
    dims: list[int] = field(default_factory=list)
    runs: dict[str, list[Run]] = field(default_factory=dict)
    raw: dict[str, tuple[int, int]] = field(default_factory=dict)
    raw_types: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, buffer: Any, start: int, end: int, what: str) -> StoredBlob:
        """Walk the message in ``buffer[start:end]``.

        Raises:
            wire.CorruptError: it is no ``BlobProto``, or a length does not fit.
        """
        blob = cls(buffer, what)
        of_video = False
        position = start
        while position < end:
            item = wire.field(buffer, position, end)
            position = item.end
            if item.number in _LEGACY and item.wire == wire.VARINT:
                blob.legacy[_LEGACY[item.number]] = _int32(item.value)
                blob.has_legacy = True
            elif item.number == _WIDTH and item.wire == wire.VARINT:
                blob.legacy = [*blob.legacy[:4], _int32(item.value)]
                blob.has_legacy = of_video = True
            elif of_video and item.number in (_WIDTH + 1, _WIDTH + 2):
                position = blob._add_run(item._replace(number=item.number - 1), end)
            elif item.number == _SHAPE and item.wire == wire.BYTES:
                blob.dims += _dims(buffer, item)
            elif item.number in _NUMBERS:
                position = blob._add_run(item, end)
            elif item.number in _RAW and item.wire == wire.BYTES:
                blob.raw[_RAW[item.number]] = item.start, item.end - item.start
            elif item.number in _RAW_TYPES and item.wire == wire.VARINT:
                blob.raw_types[_RAW_TYPES[item.number]] = item.value
            elif item.number <= max(_NUMBERS):
                raise wire.CorruptError(item.begin, f"BlobProto field {item.number} has wire type {item.wire}")
        return blob

    def _add_run(self, item: wire.Field, end: int) -> int:
        """Note the numbers of ``item``; where they are unpacked, of the whole run. Returns the offset behind them."""
        name = _NUMBERS[item.number]
        size = 8 if name.startswith("double") else 4
        runs = self.runs.setdefault(name, [])
        if item.wire == wire.BYTES:
            length = item.end - item.start
            if length % size:
                raise wire.CorruptError(item.begin, f"{name} has {length} bytes, which is not a multiple of {size}")
            if length:
                runs.append(Run(item.start, length // size, size))
            return item.end
        if item.wire != (wire.FIXED64 if size == 8 else wire.FIXED32):
            raise wire.CorruptError(item.begin, f"{name} has wire type {item.wire}")
        stride = item.end - item.begin
        count = wire.repeats(self.buffer, item.begin, end, stride) if item.start - item.begin == 1 else 1
        runs.append(Run(item.start, count, stride))
        return item.begin + count * stride

    @property
    def shape(self) -> Shape:
        """As in Caffe: the old four dimensions (C3D 1.0's five) where the blob has any of them, else ``shape``."""
        return tuple(self.legacy if self.has_legacy else self.dims)

    def has(self, name: str) -> bool:
        """Whether numbers are stored for ``name``: data or diff."""
        return self.count(name) > 0 or (name in self.raw and name in self.raw_types)

    def count(self, name: str) -> int:
        """How many numbers are stored for ``name``: data or diff."""
        return sum(run.count for run in self._runs(name)[1])

    def _runs(self, name: str) -> tuple[np.dtype, list[Run]]:
        """The type of the numbers of ``name`` and where they lie, in the order in which NVIDIA Caffe looks for them."""
        doubles, floats = self.runs.get(f"double_{name}"), self.runs.get(name, [])
        if doubles:
            return _FLOAT64, doubles
        if not floats and name in self.raw:
            start, length = self.raw[name]
            for dtype in _RAW_DTYPES.get(self.raw_types.get(name, -1), ()):
                if length and length == math.prod(self.shape) * dtype.itemsize:
                    return dtype, [Run(start, length // dtype.itemsize, dtype.itemsize)]
        return _FLOAT32, floats

    def check(self, name: str) -> None:
        """Raise a ``ParseError`` unless the blob has ``name`` (data or diff) and as many numbers as its shape says."""
        have, shape = self.count(name), self.shape
        if any(dim < 0 for dim in shape):
            raise ParseError(f"{self.what}: shape {shape} has a negative dimension")
        if math.prod(shape) == have:
            return
        if not have and name in self.raw:
            raise ParseError(f"{self.what}: {self._raw_fault(name)}")
        other = "diff" if name == "data" else "data"
        if not have and self.has(other):
            raise ParseError(f"{self.what}: holds {other} but no {name}")
        raise ParseError(f"{self.what}: shape {shape} has {math.prod(shape)} elements, but {have} numbers of {name}")

    def _raw_fault(self, name: str) -> str:
        """Why NVIDIA Caffe's raw bytes for ``name`` are not the numbers of this blob."""
        kind, length = self.raw_types.get(name), self.raw[name][1]
        raw = f"raw_{name} of NVIDIA Caffe (field {12 if name == 'data' else 13})"
        if kind is None:
            return f"holds no {name}; its {length} bytes of {raw} say no type (field {10 if name == 'data' else 11})"
        if kind not in _RAW_DTYPES:
            return f"{raw} has type {kind}; read are 0 (DOUBLE), 1 (FLOAT) and 2 (FLOAT16)"
        types = " or ".join(str(dtype) for dtype in _RAW_DTYPES[kind])
        count = math.prod(self.shape)
        return f"shape {self.shape} has {count} elements of {types}, but {raw} holds {length} bytes"

    def array(self, name: str = "data") -> np.ndarray:
        """The numbers as an array of the blob's shape: float64 where stored as doubles, else float32.

        Packed numbers in one run are a view of the buffer (read-only where the buffer is, and not aligned where the
        file has them so); others are copied together, and half ones widened.
        """
        self.check(name)
        dtype, runs = self._runs(name)
        if len(runs) == 1 and runs[0].stride == dtype.itemsize:
            array = np.frombuffer(self.buffer, dtype, runs[0].count, runs[0].start).reshape(self.shape)
        else:
            parts = list(self.pieces(name))
            array = (np.concatenate(parts) if parts else np.empty(0, dtype)).reshape(self.shape)
        return array.astype(_FLOAT32) if dtype == _FLOAT16 else array

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """The numbers in order, as one flat array a run, in the type in which they are stored."""
        dtype, runs = self._runs(name)
        size = dtype.itemsize
        for run in runs:
            if run.stride == size:
                yield np.frombuffer(self.buffer, dtype, run.count, run.start)
            else:
                tag = run.stride - size
                rows = np.frombuffer(self.buffer, np.uint8, run.count * run.stride, run.start - tag)
                yield np.ascontiguousarray(rows.reshape(run.count, run.stride)[:, tag:]).view(dtype).ravel()

    def contiguous(self, name: str) -> int | None:
        """The offset of the numbers in the buffer where they are one packed run of float32, else None."""
        dtype, runs = self._runs(name)
        return runs[0].start if dtype == _FLOAT32 and len(runs) == 1 and runs[0].stride == 4 else None


def _int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _dims(buffer: Any, shape: wire.Field) -> list[int]:
    dims: list[int] = []
    for item in wire.fields(buffer, shape.start, shape.end):
        if item.number != 1:
            continue
        if item.wire == wire.VARINT:
            dims.append(item.value)
        elif item.wire == wire.BYTES:
            position = item.start
            while position < item.end:
                value, position = wire.varint(buffer, position, item.end)
                dims.append(value)
        else:
            raise wire.CorruptError(item.begin, f"shape has wire type {item.wire}")
    return [dim - (1 << 64) if dim >= 1 << 63 else dim for dim in dims]


def blob_to_array(blob: Any, diff: bool = False, what: str = "blob") -> np.ndarray:
    """Return the numbers of a ``BlobProto`` as a new array: float64 where they are stored as doubles, else float32.

    Args:
        blob: the message; both forms of dimensions are read.
        diff: the gradients instead of the data.
        what: names the blob in errors.

    Raises:
        ParseError: the shape does not fit the numbers, or the blob holds only the other of data and diff.
    """
    data = blob.SerializeToString()
    try:
        return StoredBlob.read(data, 0, len(data), what).array("diff" if diff else "data").copy()
    except wire.CorruptError as error:
        raise ParseError(f"{what}: not a valid BlobProto: {error}") from None


def array_to_blob(array: Any, diff: Any = None) -> Any:
    """Return a ``BlobProto`` with ``shape``: float64 arrays become ``double_data``, all others float32 ``data``.

    Args:
        array: the data: numpy, a torch tensor, or anything ``numpy.asarray`` takes.
        diff: gradients of the same shape, or None.
    """
    parts = blob_parts(to_numpy(array), None if diff is None else to_numpy(diff))
    return caffe_pb2.BlobProto.FromString(b"".join(parts))


def to_numpy(value: Any) -> np.ndarray:
    """``value`` (numpy, torch, a list) as a little-endian array in C order: float64 stays, all else becomes float32."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if not str(value.dtype).endswith(("float32", "float64")):
            value = value.float()
        value = value.numpy()
    array = np.asarray(value)
    dtype = np.dtype("<f8" if array.dtype == np.float64 else "<f4")
    return np.asarray(array, dtype, order="C")


def blob_parts(data: np.ndarray, diff: np.ndarray | None = None) -> list[bytes | memoryview]:
    """The serialised ``BlobProto`` of ``data`` (and ``diff``), as buffers to write one after the other: arrays are not
    copied.

    The arrays are as :func:`to_numpy` returns them; the fields stand in the order in which Caffe writes them.
    """
    stored = {"double_data" if data.dtype.itemsize == 8 else "data": data}
    if diff is not None:
        stored["double_diff" if diff.dtype.itemsize == 8 else "diff"] = diff
    fields: dict[int, list[bytes | memoryview]] = {
        _FIELD[name]: [wire.header(_FIELD[name], array.nbytes), array.ravel().view(np.uint8).data]
        for name, array in stored.items()
        if array.size
    }
    shape = caffe_pb2.BlobShape(dim=data.shape).SerializeToString()
    fields[_SHAPE] = [wire.header(_SHAPE, len(shape)), shape]
    return [part for number in sorted(fields) for part in fields[number]]
