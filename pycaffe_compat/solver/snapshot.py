"""Caffe's solver state, read and written: ``PREFIX_iter_N.solverstate`` and ``.solverstate.h5``.

The files are Caffe's own. What Caffe has no field for (positions of the data sources, states of the random number
generators, the window of the averaged loss) is one extra field (binary) or dataset (HDF5) of JSON, which Caffe skips.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h5py
import numpy as np
from torch import Tensor

from ..errors import CaffeError, SolverError, require_file
from ..files import atomic_path
from ..proto import caffe_pb2, wire
from ..proto.blob_proto import StoredBlob, blob_parts, to_numpy
from ..proto.hdf5 import create_hdf5

EXTRA_FIELD = 142_857  # of SolverState; Caffe's own numbers are small
EXTRA_DATASET = "pycaffe_compat"


@dataclass
class StoredHistory:
    """One history blob of a state file: its shape now, its numbers when :meth:`read` is called."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@dataclass
class State:
    """What a solver state says. ``extra`` is empty where Caffe itself wrote it."""

    iteration: int = 0
    learned_net: str = ""
    current_step: int = 0
    history: list[StoredHistory] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Whether a state or model of this name is HDF5, by Caffe's rule: it ends in ``.h5``."""
    return os.fspath(path).endswith(".h5")


def write_state(path: str | os.PathLike[str], state: State, history: Iterable[Tensor]) -> None:
    """Write ``state`` with the blobs of ``history`` (in Caffe's order); the file is whole or not there.

    Raises:
        CaffeError: the folder cannot be written to, or the disk is full.
    """
    write = _write_hdf5 if is_hdf5(path) else _write_binary
    with atomic_path(path) as temporary:
        write(temporary, state, history)


def _write_binary(path: str, state: State, history: Iterable[Tensor]) -> None:
    head = caffe_pb2.SolverState(iter=state.iteration, learned_net=state.learned_net).SerializeToString()
    tail = caffe_pb2.SolverState(current_step=state.current_step).SerializeToString()
    with open(path, "wb") as file:
        file.write(head)
        for tensor in history:
            parts = blob_parts(to_numpy(tensor))
            file.write(wire.header(3, sum(len(part) for part in parts)))
            file.writelines(parts)
        file.write(tail)
        if state.extra:
            extra = json.dumps(state.extra).encode()
            file.write(wire.header(EXTRA_FIELD, len(extra)) + extra)


def _write_hdf5(path: str, state: State, history: Iterable[Tensor]) -> None:
    with create_hdf5(path) as file:
        file["iter"] = np.array([state.iteration], np.int32)
        file["current_step"] = np.array([state.current_step], np.int32)
        _write_string(file, "learned_net", state.learned_net)
        group = file.create_group("history")
        for index, tensor in enumerate(history):
            group[str(index)] = to_numpy(tensor)
        if state.extra:
            file[EXTRA_DATASET] = np.frombuffer(json.dumps(state.extra).encode(), np.uint8)


def _write_string(file: h5py.File, name: str, text: str) -> None:
    """Caffe reads a C string of fixed length with its terminating zero, which h5py's own strings do not have."""
    data = text.encode() + b"\0"
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(data))
    kind.set_strpad(h5py.h5t.STR_NULLTERM)
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(data, f"S{len(data)}"), kind)


@contextlib.contextmanager
def open_state(path: str | os.PathLike[str]) -> Iterator[State]:
    """Open a solver state of either format, whatever its name; the history blobs are read while the block lasts.

    Raises:
        MissingFileError: there is no such file.
        SolverError: it is truncated, or no solver state.
    """
    name = require_file(path, "solver state", "a solver state is PREFIX_iter_N.solverstate, beside its .caffemodel")
    with _open_hdf5(name) if is_hdf5(name) or h5py.is_hdf5(name) else _open_binary(name) as state:
        yield state


@contextlib.contextmanager
def _open_binary(name: str) -> Iterator[State]:
    try:
        with open(name, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield _parse(data, name)
    except (OSError, ValueError) as error:
        if isinstance(error, CaffeError):
            raise
        raise SolverError(f"{name} is no solver state: {error}") from error


def _parse(data: Any, name: str) -> State:
    state = State()
    for item in wire.fields(data, 0, len(data)):
        known = caffe_pb2.SolverState.DESCRIPTOR.fields_by_number.get(item.number)
        if item.wire != (wire.VARINT if item.number in (1, 4) else wire.BYTES):
            if known is not None or item.number == EXTRA_FIELD:
                raise wire.CorruptError(item.begin, f"field {item.number} of wire type {item.wire}")
        elif item.number == 1:
            state.iteration = item.value
        elif item.number == 4:
            state.current_step = item.value
        elif item.number == 2:
            state.learned_net = data[item.start : item.end].decode()
        elif item.number == 3:
            blob = StoredBlob.read(data, item.start, item.end, f"{name}: history blob {len(state.history)}")
            state.history.append(StoredHistory(blob.shape, partial(_numbers, blob)))
        elif item.number == EXTRA_FIELD:
            state.extra = json.loads(data[item.start : item.end])
    return _checked(state, name)


@contextlib.contextmanager
def _open_hdf5(name: str) -> Iterator[State]:
    try:
        with h5py.File(name, "r") as file:
            yield _parse_hdf5(file, name)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, CaffeError):
            raise
        raise SolverError(f"{name} is no HDF5 solver state: {error}") from error


def _parse_hdf5(file: h5py.File, name: str) -> State:
    for needed in ("iter", "learned_net", "current_step", "history"):
        if needed not in file:
            raise SolverError(
                f'{name} is no solver state: it has no "{needed}" (it has {", ".join(map(str, file)) or "nothing"})'
            )
    group = file["history"]
    if not isinstance(group, h5py.Group) or sorted(group) != sorted(str(i) for i in range(len(group))):
        raise SolverError(f'{name}: the datasets of "history" must be named 0, 1, 2, …')
    state = State(_number(file, "iter"), _text(_value(file, "learned_net")), _number(file, "current_step"))
    for index in range(len(group)):
        dataset = group[str(index)]
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "f":
            raise SolverError(f"{name}: history/{index} is no dataset of floating-point numbers")
        state.history.append(StoredHistory(tuple(dataset.shape), partial(_whole, dataset)))
    if EXTRA_DATASET in file:
        state.extra = json.loads(bytes(_value(file, EXTRA_DATASET)))
    return _checked(state, name)


def _numbers(blob: StoredBlob) -> np.ndarray:
    return blob.array().copy()


def _whole(dataset: h5py.Dataset) -> np.ndarray:
    return dataset[()]


def _value(file: h5py.File, name: str) -> Any:
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f'"{name}" is no dataset')
    if dataset.nbytes > (1 << 20) + 1100 * dataset.id.get_storage_size():  # deflate packs about 1:1032 at most
        raise ValueError(f'"{name}" claims {dataset.nbytes} bytes, but {dataset.id.get_storage_size()} are stored')
    return dataset[()]


def _number(file: h5py.File, name: str) -> int:
    value = np.asarray(_value(file, name))
    if value.size != 1 or value.dtype.kind not in "iu":
        raise ValueError(f'"{name}" is not one integer')
    return int(value.reshape(-1)[0])


def _text(value: Any) -> str:
    return (value if isinstance(value, bytes) else str(value).encode()).split(b"\0")[0].decode()


def _checked(state: State, name: str) -> State:
    if not isinstance(state.extra, dict):
        raise SolverError(f"{name}: the field of this package does not hold what it wrote")
    for what, value in (("iter", state.iteration), ("current_step", state.current_step)):
        if not 0 <= value < 2**31:
            raise SolverError(f"{name}: {what} {value} is out of range")
    return state


def find_learned_net(state: State, path: str | os.PathLike[str]) -> str:
    """Return where the model of ``state``, read from ``path``, is: where it was written to, or beside the state.

    Raises:
        SolverError: it is in neither place.
    """
    beside = os.path.join(os.path.dirname(os.fspath(path)), os.path.basename(state.learned_net))
    for candidate in (state.learned_net, beside):
        if os.path.isfile(candidate):
            return candidate
    raise SolverError(
        f"{os.fspath(path)} belongs to the weights {state.learned_net}, which are neither there nor at {beside}"
    )


def load_history(state: State, name: str, optimizer: Any, learnables: list[Any]) -> None:
    """Give the optimizer the history blobs of ``state``, read from the file ``name``.

    ``learnables`` are those of the net, in its order.

    Raises:
        SolverError: a number of blobs, or a shape, that is not that of the net and the solver's type.
    """
    slots = [(h, learnable) for h in optimizer.history_names for learnable in learnables]
    kind = type(optimizer).__name__
    if len(state.history) != len(slots):
        raise SolverError(
            f"{name} has {len(state.history)} history blobs; solver type {kind} on this net has {len(slots)} "
            f"({len(optimizer.history_names)} for each of {len(learnables)} parameters). "
            "Was it written by another solver type or net?"
        )
    arrays = []
    for index, (stored, (_, learnable)) in enumerate(zip(state.history, slots, strict=True)):
        want = tuple(learnable.tensor.shape)
        if _core(stored.shape) != _core(want):
            raise SolverError(
                f'{name}: history blob {index} has shape {stored.shape}, but parameter "{learnable.name}" has {want}'
            )
        arrays.append(stored.read().reshape(want))
    optimizer.load_history(arrays, [learnable.tensor for learnable in learnables])


def _core(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without leading ones: files of old have four axes always."""
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape
