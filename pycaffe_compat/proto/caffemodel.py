"""Trained weights from a ``.caffemodel``, memory-mapped and never parsed into messages.

A caffemodel is one ``NetParameter``. Its wire format is walked once, from length to length, so opening costs a few
reads a layer whatever the size; the numbers stay in the file until an array is looked at.
"""

from __future__ import annotations

import logging
import mmap
import os
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from ..errors import ParseError
from . import caffe_pb2, wire
from .binary import parse_binary
from .blob_proto import Shape, StoredBlob
from .numbers import bare_layer, bare_net, read_numbered
from .upgrade import upgrade_net, v1_type
from .weights import Weights

_log = logging.getLogger(__name__)
_CHUNK = 1 << 22  # numbers converted at a time where a copy cannot go straight from the file to its place
_READ = 1 << 30  # bytes asked of the system in one call; Linux transfers at most 2 GB


class _StoredLayer:
    """A layer as it lies in the file: its message's place and version, its name and type, its blobs."""

    def __init__(self, number: int, start: int, end: int) -> None:
        self.number, self.start, self.end = number, start, end
        self.name = ""
        self.type = ""
        self.blobs: list[StoredBlob] = []


# Field of NetParameter -> fields of its layer message: name, type, blobs.
_LAYERS, _LAYER = 2, 100
_FORMS = {_LAYERS: (4, 5, 6), _LAYER: (1, 2, 7)}
_V0_LAYER = 1
_V0_FORM = (1, 2, 50)
_V1_NAMES = {number: v1_type(name) for name, number in caffe_pb2.V1LayerParameter.LayerType.items()}


class BinaryWeights(Weights):
    """Weights over a memory-mapped caffemodel."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.layer_types = {}
        self._fd = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._fd)
        try:
            self._map = mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise ParseError(f"{file}: cannot be mapped into memory: {error}") from error
        self._layers: dict[str, _StoredLayer] = {}
        self._at: _StoredLayer | None = None
        try:
            self._walk()
        except (wire.CorruptError, UnicodeDecodeError) as error:
            raise ParseError(f"{file}: not a valid caffemodel: {error}{self._place()}") from None
        if not self._layers:
            raise ParseError(f"{file}: not a caffemodel: it holds no layers")

    def _place(self) -> str:
        if self._at is None:
            return ""
        label = f'layer "{self._at.name}"' if self._at.name else "the layer"
        return f" (in {label} that starts at byte {self._at.start} of {len(self._map)})"

    def _walk(self) -> None:
        known = caffe_pb2.NetParameter.DESCRIPTOR.fields_by_number
        for item in wire.fields(self._map, 0, len(self._map)):
            if item.number in _FORMS and item.wire == wire.BYTES:
                layer = self._at = _StoredLayer(item.number, item.start, item.end)
                self._read_layer(layer, item.start, item.end, _FORMS[item.number], item.number == _LAYERS)
                self._at = None
                self._layers.pop(layer.name, None)
                self._layers[layer.name] = layer
                self.layer_types[layer.name] = layer.type
            elif item.number in known and not _wire_fits(known[item.number], item.wire):
                raise wire.CorruptError(item.begin, f"{known[item.number].name} has wire type {item.wire}")
            elif item.number == 1:
                self.net_name = self._string(item)

    def _read_layer(self, layer: _StoredLayer, start: int, end: int, form: tuple[int, int, int], v1: bool) -> None:
        name, kind, blobs = form
        for item in wire.fields(self._map, start, end):
            if item.number == name and item.wire == wire.BYTES:
                layer.name = self._string(item)
            elif item.number == kind and item.wire == wire.BYTES:
                layer.type = self._string(item)
            elif item.number == kind and item.wire == wire.VARINT and v1:
                layer.type = _V1_NAMES.get(item.value, "")
            elif item.number == blobs and item.wire == wire.BYTES:
                what = f'{self.file}: layer "{layer.name}" blob {len(layer.blobs)}'
                layer.blobs.append(StoredBlob.read(self._map, item.start, item.end, what))
            elif item.number == _V0_LAYER and v1 and item.wire == wire.BYTES:
                self._read_layer(layer, item.start, item.end, _V0_FORM, False)
            elif item.number in form or (item.number == _V0_LAYER and v1):
                raise wire.CorruptError(item.begin, f"field {item.number} of a layer has wire type {item.wire}")

    def _string(self, item: wire.Field) -> str:
        return self._map[item.start : item.end].decode("utf-8")

    def _layer(self, name: object) -> _StoredLayer:
        layer = self._layers.get(name) if isinstance(name, str) else None
        if layer is None:
            raise self._unknown(name)
        return layer

    def __getitem__(self, name: str) -> list[np.ndarray]:
        return [blob.array() for blob in self._layer(name).blobs]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __contains__(self, name: object) -> bool:
        return name in self._layers

    def shapes(self, name: str) -> list[Shape | None]:
        return [blob.shape for blob in self._layer(name).blobs]

    def diffs(self, name: str) -> list[np.ndarray | None]:
        return [blob.array("diff") if blob.has("diff") else None for blob in self._layer(name).blobs]

    def readinto(self, name: str, index: int, out: np.ndarray) -> None:
        blob = self._layer(name).blobs[index]
        blob.check("data")
        self._fits(name, index, blob.shape, out)
        offset = blob.contiguous("data")
        if offset is not None and out.dtype == np.dtype("<f4") and out.flags.c_contiguous and hasattr(os, "preadv"):
            self._pread(out.reshape(-1).view(np.uint8).data, offset, blob.what)
            return
        flat = out.reshape(-1) if out.flags.c_contiguous else out.flat
        done = 0
        for piece in blob.pieces("data"):
            for begin in range(0, len(piece), _CHUNK):
                some = piece[begin : begin + _CHUNK]
                flat[done : done + len(some)] = some
                done += len(some)
        self.release()

    def _pread(self, target: memoryview, offset: int, what: str) -> None:
        done = 0
        while done < len(target):
            got = os.preadv(self._fd, [target[done : done + _READ]], offset + done)
            if not got:
                raise ParseError(f"{what}: the file became shorter while it was being read")
            done += got

    def release(self) -> None:
        """Let go of the mapped pages, so that they no longer count as the process's memory; arrays stay valid."""
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def skeleton(self) -> Any:
        """The upgraded ``NetParameter`` of the file without its blobs.

        The numbers are those of the fork of Caffe that has all fields of the file. If there is none, they are taken for
        BVLC's; where the bytes are not what the field should hold, it is left out, and a warning is logged.
        """
        net = self.stored_net()
        upgrade_net(net, self.file)
        return net

    def stored_net(self) -> Any:
        """As :meth:`skeleton`, but not upgraded."""
        try:
            return read_numbered(bare_net(self._map), "", self.file)
        except ParseError:
            pass
        net: Any = caffe_pb2.NetParameter()
        pieces: list[bytes] = []
        for item in wire.fields(self._map, 0, len(self._map)):
            if item.number not in _FORMS:
                pieces.append(self._map[item.begin : item.end])
                continue
            body = bare_layer(self._map, item.start, item.end, item.number)
            if item.number == _LAYERS:
                net.layers.append(self._sound_layer(body, caffe_pb2.V1LayerParameter))
            else:
                net.layer.append(self._sound_layer(body, caffe_pb2.LayerParameter))
        net.MergeFrom(parse_binary(b"".join(pieces), caffe_pb2.NetParameter, self.file))
        return net

    def _sound_layer(self, body: bytes, cls: Any) -> Any:
        """The layer of class ``cls`` that ``body`` serialises, without fields whose bytes are something else."""
        try:
            return parse_binary(body, cls, self.file)
        except ParseError:
            pass
        layer: Any = cls()
        foreign = _foreign_fields(body, cls)
        for item in wire.fields(body, 0, len(body)):
            if item.number not in foreign:
                layer.MergeFrom(parse_binary(body[item.begin : item.end], cls, self.file))
        for number, field in foreign.items():
            _log.warning(
                '%s: layer "%s": field %d is not the %s of BVLC Caffe (is the file from a fork?); it is left out',
                self.file,
                layer.name,
                number,
                field,
            )
        return layer


def _foreign_fields(body: bytes, cls: Any) -> dict[int, str]:
    """The numbers and names of fields in ``body`` that ``cls`` has for messages and whose bytes are something else."""
    known = cls.DESCRIPTOR.fields_by_number
    return {
        item.number: known[item.number].name
        for item in wire.fields(body, 0, len(body))
        if item.number in known
        and known[item.number].message_type is not None
        and not _is_message(body[item.begin : item.end], cls)
    }


def _is_message(data: bytes, cls: Any) -> bool:
    """Whether ``data`` serialises a message of class ``cls``, with all that it requires."""
    message = cls()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return False
    return message.IsInitialized()


def _wire_fits(field: Any, got: int) -> bool:
    if field.cpp_type in (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_MESSAGE):
        return got == wire.BYTES
    return got == wire.VARINT or (got == wire.BYTES and field.name == "input_dim")
