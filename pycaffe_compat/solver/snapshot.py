"""Snapshots: what a solver writes to go on from, and Caffe's solver state, ``PREFIX_iter_N.solverstate`` or ``.solverstate.h5``.

The files are Caffe's own. What Caffe has no field for (positions of the data sources, states of the random number
generators, the window of the averaged loss) is one extra field (binary) or dataset (HDF5) of JSON, which Caffe skips.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import mmap
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from ..errors import CaffeError, DivergedError, SolverError, require_file
from ..files import OPEN_ELSEWHERE, atomic_path, remove_strays
from ..layers.data_layers import BatchSource
from ..loading import same_shape
from ..memory import is_exhausted
from ..net import Learnable, Net
from ..proto import caffe_pb2, wire
from ..proto.blob_proto import StoredBlob, blob_parts, to_numpy
from ..proto.hdf5 import create_hdf5
from ..proto.kinds import STATES, mixed_up
from . import claim, distributed
from . import log as lines
from .log import log
from .policies import Policy
from .rules import CaffeOptimizer
from .runner import Runner

PathLike = str | os.PathLike[str]
EARLIER = "go on from an earlier snapshot, with a smaller base_lr"
STRAYS = r".*_iter_\d+\.(caffemodel|solverstate)(\.h5)?"  # the names of snapshots
EXTRA_FIELD = 142_857  # of SolverState; Caffe's own numbers are small
EXTRA_DATASET = "pycaffe_compat"
HISTORY_SUM = "history_crc32"
EXTRA_SUM = "extra_crc32"


@dataclass
class StoredHistory:
    """One history blob of a state file: its shape now, its numbers when :meth:`read` is called."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


@dataclass
class State:
    """What a solver state says. ``extra`` is empty where Caffe itself wrote it.

    ``ends`` is False where a binary state lacks the field that comes last: it was cut off between two fields.
    ``history_sum`` is the CRC-32 of the history blobs as they were written; None where the file does not say.
    """

    iteration: int = 0
    learned_net: str = ""
    current_step: int = 0
    history: list[StoredHistory] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    ends: bool = True
    history_sum: int | None = None


def filename(param: Any, iteration: int, extension: str) -> str:
    """Caffe's name for a file of an iteration: ``PREFIX_iter_N`` and the extension, with ``.h5`` for HDF5."""
    hdf5 = param.snapshot_format == caffe_pb2.SolverParameter.HDF5
    return f"{param.snapshot_prefix}_iter_{iteration}{extension}{'.h5' if hdf5 else ''}"


class Snapshots:
    """Writes the snapshots of a solver, and brings the solver back to one.

    Args:
        param: the ``SolverParameter``: where snapshots go, and in which format.
        runner: of the train net, whose weights, data layers and own state are kept.
        test_nets: the places of their data layers are kept.
        optimizer, policy: whose history and step are kept.
        seed: that of the run, the same in all processes.
    """

    def __init__(
        self,
        param: Any,
        runner: Runner,
        test_nets: Sequence[Net],
        optimizer: CaffeOptimizer,
        policy: Policy,
        seed: int = 0,
    ) -> None:
        self._param = param
        self._seed = seed
        self._runner, self._net, self._test_nets = runner, runner.net, test_nets
        self._optimizer, self._policy = optimizer, policy
        self._swept = False

    def filename(self, iteration: int, extension: str) -> str:
        """Caffe's name for a file of an iteration; see :func:`filename`."""
        return filename(self._param, iteration, extension)

    def check_folder(self) -> None:
        """Find out now whether snapshots can be written; make their folder if it is not there.

        The first time, temporary files that a killed run left there are removed.

        Raises:
            SolverError: the folder cannot be made or written to.
        """
        param = self._param
        if not self._asked_for():
            return
        if not param.snapshot_prefix:
            raise SolverError(
                "snapshots are enabled, but snapshot_prefix is not set; set it, or set snapshot_after_train: false"
            )
        folder = os.path.dirname(os.path.abspath(param.snapshot_prefix))
        try:
            os.makedirs(folder, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise SolverError(
                f"snapshot_prefix: {param.snapshot_prefix}: cannot write to the folder {folder}: {error.strerror}"
            ) from error
        if not self._swept:
            self._swept = True
            for path in remove_strays(folder, STRAYS):
                log(lines.SNAPSHOT_NET, "Removed %s: a run that was killed left it half written", path)

    def _asked_for(self) -> bool:
        """Whether this process is to write snapshots by itself."""
        return bool(self._param.snapshot or self._param.snapshot_after_train) and distributed.rank() == 0

    def claimed(self) -> contextlib.AbstractContextManager[None]:
        """Keep other trainings from writing snapshots of this prefix while the block lasts (:func:`.claim.claimed`).

        Raises:
            SolverError: another training does write them.
        """
        return claim.claimed(self._param.snapshot_prefix) if self._asked_for() else contextlib.nullcontext()

    def write(self, iteration: int, losses: Iterable[float]) -> tuple[str, str]:
        """Write model and solver state; return their paths. Of several processes the first one writes.

        Args:
            iteration: the number of updates done.
            losses: those that the averaged loss runs over.

        Raises:
            CaffeError: the folder cannot be written to, or the disk is full; earlier snapshots are as they were.
            DivergedError: a parameter holds a number that is not finite; nothing is written.
        """
        if spoilt := nonfinite_parameter(self._net):
            raise DivergedError(
                f"iteration {iteration}: no snapshot, as {spoilt} has numbers that are not finite: {EARLIER}"
            )
        model, state = self.filename(iteration, ".caffemodel"), self.filename(iteration, ".solverstate")
        if distributed.rank():
            self._seed_rank(iteration)
            return model, state
        prefix = self._param.snapshot_prefix
        if not claim.holds(prefix) and (other := claim.holder(prefix)):
            both = "snapshot_prefix: %s: another training writes its snapshots there, too (%s): the last one wins"
            log(lines.SNAPSHOT_NET, both, prefix, other, level=logging.WARNING)
        kind = "HDF5" if is_hdf5(model) else "binary proto"
        log(lines.SNAPSHOT_NET, "Snapshotting to %s file %s", kind, model)
        self._net.save(model, diffs=self._param.snapshot_diff)
        log(lines.SNAPSHOT_STATE, "Snapshotting solver state to %s file %s", kind, state)
        learned = [learnable.tensor for learnable in self._net.learnable]
        extra = {**self._extra(losses), "model": file_sum(model)}
        write_state(
            state, State(iteration, model, self._policy.current_step, extra=extra), self._optimizer.history(learned)
        )
        return model, state

    def _seed_rank(self, iteration: int) -> None:
        """Reseed torch in every process but the first: the file has only the first one's generators.

        Done at each snapshot and when one is restored, so that a resumed run draws what the uninterrupted one draws.
        """
        torch.manual_seed((self._seed + distributed.rank() + 1_000_003 * iteration) % 2**63)

    def _extra(self, losses: Iterable[float]) -> dict[str, Any]:
        """What Caffe has no field for."""
        generators = {"cpu": torch.get_rng_state()}
        if self._net.device.type == "cuda":
            generators["cuda"] = torch.cuda.get_rng_state(self._net.device)
        return {
            "version": 1,
            "seed": self._seed,
            "train": _layer_states(self._net),
            "tests": [_layer_states(net) for net in self._test_nets],
            "generators": {
                name: base64.b64encode(bytes(state.tolist())).decode() for name, state in generators.items()
            },
            "losses": list(losses),
            "runner": self._runner.state(),
            "policy": self._policy.state(),
        }

    def restore(self, path: PathLike) -> tuple[int, list[float]]:
        """Bring nets, optimizer and policy to where a solver state was taken; return its iteration and losses.

        A state of ours restores everything bit for bit. For Caffe's own, the data layers skip what its iterations took.

        Raises:
            SolverError: it is no solver state, or not of this net and solver type.
        """
        name = os.fspath(path)
        with open_state(path) as state:
            model = find_learned_net(state, name) if state.learned_net else None
            load_history(state, name, self._optimizer, self._net.learnable)
        if model is not None:
            self._net.load_weights(model)
        self._policy.current_step = state.current_step
        log(lines.STATE_READ, "%s: iteration %d", name, state.iteration)
        if not state.extra:
            self._seek_by_count(state.iteration)
            return state.iteration, []
        try:
            return state.iteration, self._restore_extra(state.extra, state.iteration)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            if isinstance(error, CaffeError) or is_exhausted(error):
                raise
            raise SolverError(f"{name}: the field that this package added is not valid: {error!r}") from error

    def _restore_extra(self, extra: dict[str, Any], iteration: int) -> list[float]:
        self._seed = int(extra.get("seed", self._seed))
        for net, states in zip([self._net, *self._test_nets], [extra["train"], *extra["tests"]], strict=False):
            layers = net.layers
            for name in states.keys() & layers.keys():
                layers[name].seek(states[name])
        self._runner.seek(extra.get("runner", {}))
        self._policy.seek(extra.get("policy", {}))
        losses = [float(loss) for loss in extra["losses"]]
        saved = {
            name: torch.tensor(list(base64.b64decode(text)), dtype=torch.uint8)
            for name, text in extra["generators"].items()
        }
        if distributed.rank():
            self._seed_rank(iteration)
        else:
            torch.set_rng_state(saved["cpu"])
            if self._net.device.type == "cuda" and "cuda" in saved:
                torch.cuda.set_rng_state(saved["cuda"], self._net.device)
        return losses

    def _seek_by_count(self, iteration: int) -> None:
        """Caffe's states do not say where the data was: skip the batches that the iterations so far have taken."""
        batches = iteration * self._param.iter_size
        for name, source in self._net.sources.items():
            if isinstance(source, BatchSource):
                position = batches * source.top_shapes()[0][0] * source.world
                source.seek({**source.state(), "position": position})
                message = 'Data layer "%s" goes on after %d batches: the state does not say where it was'
                log(lines.STATE_READ, message, name, batches)


def _layer_states(net: Net) -> dict[str, Any]:
    """What the layers carry from pass to pass, of those that carry anything."""
    states = {name: layer.state() for name, layer in net.layers.items()}
    return {name: state for name, state in states.items() if state}


def nonfinite_parameter(net: Net) -> str:
    """The first parameter that holds a number that is not finite, in words; ``""`` where all are sound."""
    for learnable in net.learnable:
        if not bool(torch.isfinite(learnable.tensor).all()):
            return f'layer "{learnable.layer.name}", parameter {learnable.index}'
    return ""


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


def file_sum(path: str | os.PathLike[str]) -> dict[str, int]:
    """The length and the CRC-32 of a file."""
    crc = length = 0
    with open(path, "rb") as file:
        while part := file.read(1 << 24):
            crc, length = zlib.crc32(part, crc), length + len(part)
    return {"bytes": length, "crc32": crc}


def add_to_sum(array: np.ndarray, crc: int) -> int:
    """The CRC-32 of history blobs (as float32) with one more, ``array``."""
    return zlib.crc32(np.ascontiguousarray(array, np.float32).data, crc)


def _extra_field(state: State, history_sum: int) -> bytes:
    """The JSON of what Caffe has no field for, with the CRC-32 sums of the history and of this field itself.

    Caffe's own fields have no sum: programs of users may change them.
    """
    extra = json.loads(json.dumps({**state.extra, HISTORY_SUM: history_sum}))
    return json.dumps({**extra, EXTRA_SUM: _extra_sum(extra)}).encode()


def _extra_sum(extra: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(extra, sort_keys=True).encode())


def _write_binary(path: str, state: State, history: Iterable[Tensor]) -> None:
    head = caffe_pb2.SolverState(iter=state.iteration, learned_net=state.learned_net).SerializeToString()
    tail = caffe_pb2.SolverState(current_step=state.current_step).SerializeToString()
    crc = 0
    with open(path, "wb") as file:
        file.write(head)
        for tensor in history:
            array = to_numpy(tensor)
            crc = add_to_sum(array, crc)
            parts = blob_parts(array)
            file.write(wire.header(3, sum(len(part) for part in parts)))
            file.writelines(parts)
        if state.extra:
            extra = _extra_field(state, crc)
            file.write(wire.header(EXTRA_FIELD, len(extra)) + extra)
        file.write(tail)  # last, as in Caffe's own files: a file without it was cut off


def _write_hdf5(path: str, state: State, history: Iterable[Tensor]) -> None:
    with create_hdf5(path) as file:
        file["iter"] = np.array([state.iteration], np.int32)
        file["current_step"] = np.array([state.current_step], np.int32)
        _write_string(file, "learned_net", state.learned_net)
        group = file.create_group("history")
        crc = 0
        for index, tensor in enumerate(history):
            group[str(index)] = array = to_numpy(tensor)
            crc = add_to_sum(array, crc)
        if state.extra:
            extra = _extra_field(state, crc)
            file[EXTRA_DATASET] = np.frombuffer(extra, np.uint8)


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
        SolverError: it is truncated or damaged, or no solver state.
    """
    name = require_file(path, "solver state", "a solver state is PREFIX_iter_N.solverstate, beside its .caffemodel")
    with contextlib.ExitStack() as stack:
        try:
            opener = _open_hdf5 if is_hdf5(name) or h5py.is_hdf5(name) else _open_binary
            state = stack.enter_context(opener(name))
        except SolverError as error:
            _refuse_other_kinds(name, error)
            raise
        if not state.history:
            _refuse_other_kinds(name)
        yield state


def _refuse_other_kinds(name: str, error: object = "") -> None:
    if words := mixed_up(name, STATES, "a solver state: a .solverstate or .solverstate.h5", error):
        raise SolverError(words) from None


@contextlib.contextmanager
def _open_binary(name: str) -> Iterator[State]:
    try:
        with open(name, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield _parse(data, name)
    except (OSError, ValueError) as error:
        if isinstance(error, CaffeError) or is_exhausted(error):
            raise
        raise SolverError(f"{name} is not a solver state: {error}") from error


def _parse(data: Any, name: str) -> State:
    state = State(ends=False)
    for item in wire.fields(data, 0, len(data)):
        known = caffe_pb2.SolverState.DESCRIPTOR.fields_by_number.get(item.number)
        if item.wire != (wire.VARINT if item.number in (1, 4) else wire.BYTES):
            if known is not None or item.number == EXTRA_FIELD:
                raise wire.CorruptError(item.begin, f"field {item.number} of wire type {item.wire}")
        elif item.number == 1:
            state.iteration = item.value
        elif item.number == 4:
            state.current_step, state.ends = item.value, True
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
    except BlockingIOError as error:
        raise SolverError(f"{name} cannot be read: {OPEN_ELSEWHERE}") from error
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, CaffeError) or is_exhausted(error):
            raise
        raise SolverError(f"{name} is not an HDF5 solver state: {error}") from error


def _parse_hdf5(file: h5py.File, name: str) -> State:
    for needed in ("iter", "learned_net", "current_step", "history"):
        if needed not in file:
            raise SolverError(
                f'{name} is not a solver state: it has no "{needed}" (it has {", ".join(map(str, file)) or "nothing"})'
            )
    group = file["history"]
    if not isinstance(group, h5py.Group) or sorted(group) != sorted(str(i) for i in range(len(group))):
        raise SolverError(f'{name}: the datasets of "history" must be named 0, 1, 2, …')
    state = State(_number(file, "iter"), _text(_value(file, "learned_net")), _number(file, "current_step"))
    for index in range(len(group)):
        dataset = group[str(index)]
        if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind != "f":
            raise SolverError(f"{name}: history/{index} is not a dataset of floating-point numbers")
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
        raise ValueError(f'"{name}" is not a dataset')
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
        raise SolverError(f"{name}: the field that this package adds has been changed")
    for what, value in (("iter", state.iteration), ("current_step", state.current_step)):
        if not 0 <= value < 2**31:
            raise SolverError(f"{name}: {what} {value} is out of range")
    written = state.extra.pop(EXTRA_SUM, None)
    if written is not None and written != _extra_sum(state.extra):
        raise SolverError(f"{name} is damaged: the field that this package adds has been changed (CRC-32)")
    state.history_sum = state.extra.pop(HISTORY_SUM, None)
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
    missing = (
        "which are not there"
        if os.path.abspath(beside) == os.path.abspath(state.learned_net)
        else f"which are neither there nor at {beside}"
    )
    raise SolverError(f"{os.fspath(path)} belongs to the weights {state.learned_net}, {missing}")


def load_history(state: State, name: str, optimizer: CaffeOptimizer, learnables: Sequence[Learnable]) -> None:
    """Give the optimizer the history blobs of ``state``, read from the file ``name``.

    ``learnables`` are those of the net, in its order.

    Raises:
        SolverError: a number of blobs, or a shape, that is not that of the net and the solver's type; or numbers that are not
            those that were written.
    """
    slots = [(h, learnable) for h in optimizer.history_names for learnable in learnables]
    kind = type(optimizer).__name__
    if len(state.history) != len(slots):
        raise SolverError(
            f"{name} has {len(state.history)} history blobs; solver type {kind} on this net has {len(slots)} "
            f"({len(optimizer.history_names)} for each of {len(learnables)} parameters). "
            "Was it written with another solver type or net?"
        )
    arrays, crc = [], 0
    for index, (stored, (_, learnable)) in enumerate(zip(state.history, slots, strict=True)):
        want = tuple(learnable.tensor.shape)
        if not same_shape(stored.shape, want):
            raise SolverError(
                f'{name}: history blob {index} has shape {stored.shape}, but parameter "{learnable.name}" has {want}'
            )
        array = stored.read()
        crc = add_to_sum(array, crc)
        arrays.append(array.reshape(want))
    if state.history_sum not in (None, crc):
        raise SolverError(f"{name} is damaged: its history blobs are not those that were written (CRC-32)")
    optimizer.load_history(arrays, [learnable.tensor for learnable in learnables])
