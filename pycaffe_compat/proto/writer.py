"""Writes weights as Caffe does, array by array, so that no message ever holds all of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import WeightsError
from ..files import atomic_path
from . import caffe_pb2, wire
from .additions import additions
from .blob_proto import blob_parts, to_numpy
from .copying import copy_fields
from .hdf5 import write_hdf5
from .numbers import bare_net, fork_to_write, numbered

_log = logging.getLogger(__name__)
_LAYER, _BLOBS = 100, 7
ONE_MESSAGE = 2**31 - 1  # bytes that protobuf's parsers take


def write_weights(
    path: str | os.PathLike[str],
    net: Any,
    blobs: Mapping[str, Sequence[Any]],
    diffs: Mapping[str, Sequence[Any]] | None = None,
    hdf5: bool | None = None,
) -> None:
    """Write a caffemodel, or Caffe's HDF5 form if ``path`` ends in ``.h5``. Nothing is left behind if writing fails.

    A caffemodel is byte for byte what Caffe itself would write. That of a net of a fork has the fork's numbers, and its name in
    a field that no Caffe has, so that it is read by them. Protobuf's parsers stop at 2 GB: a larger caffemodel is
    read only by :func:`read_weights`, and a warning says so.

    Args:
        path: the file.
        net: the ``NetParameter``. As in Caffe, its name and layers are stored; blobs inside it are not.
        blobs: layer name to its blobs: numpy arrays or tensors, float32 (``data``) or float64 (``double_data``).
        diffs: the gradients in the same form, or None to store none.
        hdf5: whether to write HDF5; None to go by the path.

    Raises:
        WeightsError: blobs for a layer that the net does not have, or diffs whose number or shapes differ from the
        blobs'. CaffeError: the file cannot be written.
    """
    names = [layer.name for layer in net.layer]
    for what, arrays in (("blobs", blobs), ("diffs", diffs or {})):
        unknown = sorted(set(arrays) - set(names))
        if unknown:
            raise WeightsError(
                f"cannot write {os.fspath(path)}: {what} for layers that the net does not have: {unknown}"
            )
    for name, gradients in (diffs or {}).items():
        have, want = [tuple(g.shape) for g in gradients], [tuple(b.shape) for b in blobs.get(name, ())]
        if have != want:
            raise WeightsError(f'cannot write {os.fspath(path)}: layer "{name}": diffs {have} for blobs {want}')
    with atomic_path(path) as temporary:
        if os.fspath(path).endswith(".h5") if hdf5 is None else hdf5:
            write_hdf5(temporary, names, blobs, diffs)
            return
        with open(temporary, "wb") as file:
            fork = fork_to_write(net)
            said = fork or (net.fork if next(additions(net), None) else "")
            file.write(caffe_pb2.NetParameter(name=net.name, **({"fork": said} if said else {})).SerializeToString())
            for layer in numbered(_bare(net), fork).layer if fork else net.layer:
                _write_layer(file, layer, blobs.get(layer.name, ()), (diffs or {}).get(layer.name))
            size = file.tell()
    if size > ONE_MESSAGE:
        _log.warning(
            "%s: over 2 GB; this package can read it, but Caffe cannot; .caffemodel.h5 has no limit", os.fspath(path)
        )


def _bare(net: Any) -> Any:
    return caffe_pb2.NetParameter.FromString(bare_net(net.SerializeToString()))


def _write_layer(file: Any, layer: Any, blobs: Sequence[Any], diffs: Sequence[Any] | None) -> None:
    numbers = {field.name: field.number for field in layer.DESCRIPTOR.fields}
    head = _without(layer, {name for name, number in numbers.items() if number >= _BLOBS}).SerializeToString()
    tail = _without(layer, {name for name, number in numbers.items() if number <= _BLOBS}).SerializeToString()
    parts: list[Any] = []
    for index, blob in enumerate(blobs):
        fields = blob_parts(to_numpy(blob), None if diffs is None else to_numpy(diffs[index]))
        parts += [wire.header(_BLOBS, sum(map(len, fields))), *fields]
    file.write(wire.header(_LAYER, len(head) + sum(map(len, parts)) + len(tail)))
    for part in (head, *parts, tail):
        file.write(part)


def _without(message: Any, names: set[str]) -> Any:
    """A copy of ``message`` without the fields ``names``; their values are never copied."""
    copy = type(message)()
    copy_fields(message, copy, names)
    return copy
