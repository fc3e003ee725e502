"""Which nets a solver trains and tests: Caffe's rules for ``net``, ``train_net``, ``test_net`` and their like."""

from __future__ import annotations

import logging
import os
from typing import Any, NamedTuple

from ..errors import MissingFileError, SolverError
from ..layers.data_layers import BatchSource
from ..loading import LoadReport
from ..net import Net
from ..proto import caffe_pb2, read_net
from . import log as lines
from .log import log

TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")


def _locate(path: str, solver_file: str) -> str:
    """The path as Caffe takes it; where nothing is there, the same path beside the solver file."""
    beside = os.path.join(os.path.dirname(solver_file), path)
    return beside if not os.path.exists(path) and os.path.exists(beside) else path


def _read_net(net: Any, solver_file: str, field: str, fork: str) -> Any:
    """The net that ``field`` of a solver gives; where its file is missing, the error names solver and field."""
    try:
        return read_net(net, fork)
    except MissingFileError as error:
        if not solver_file:
            raise
        folder = os.path.dirname(os.path.abspath(solver_file))
        beside = os.path.isabs(net) or folder == os.getcwd()
        raise MissingFileError(
            f"{solver_file}: {field}: {error}" + ("" if beside else f"; nor is it in the solver's folder {folder}")
        ) from None


def _with_state(net: Any, phase: int, state: Any) -> Any:
    """A copy of ``net`` with its state: the phase, overridden by the net's own fields, overridden by the solver's."""
    merged = caffe_pb2.NetState(phase=phase)
    merged.MergeFrom(net.state)
    if state is not None:
        merged.MergeFrom(state)
    result = caffe_pb2.NetParameter()
    result.CopyFrom(net)
    result.state.CopyFrom(merged)
    return result


class Found(NamedTuple):
    """A net that a solver gives: with its state, the file that its errors name, and its source, as in Caffe's log."""

    net: Any
    file: str
    source: str


def _found(field: str, value: Any, net: Any, solver_file: str) -> Found:
    if isinstance(value, str):
        return Found(net, value, f"{field} file: {value}")
    return Found(net, solver_file, field)


def train_net_param(param: Any, file: str) -> Found:
    """Return the train net of a ``SolverParameter`` with its state, and where it comes from.

    Raises:
        SolverError: no field names it, or more than one does.
    """
    given = [field for field in TRAIN_FIELDS if param.HasField(field)]
    where = f"{file}: " if file else ""
    if len(given) != 1:
        have = f"has {len(given)}: {', '.join(given)}" if given else "has none"
        raise SolverError(
            f"{where}a solver must name its train net in exactly one of {', '.join(TRAIN_FIELDS)}; this one {have}"
        )
    value = getattr(param, given[0])
    if isinstance(value, str):
        value = _locate(value, file)
    net = _with_state(_read_net(value, file, given[0], param.fork), caffe_pb2.TRAIN, param.train_state)
    return _found(given[0], value, net, file)


def test_net_params(param: Any, file: str) -> list[Found]:
    """Return the test nets of a ``SolverParameter`` with their states, and where each comes from.

    These are ``test_net_param``, ``test_net``, and ``net`` (or ``net_param``) once for every further ``test_iter``.

    Raises:
        SolverError: the numbers of test nets, ``test_iter`` and ``test_state`` do not fit, or ``test_interval`` is
            missing.
    """
    where = f"{file}: " if file else ""
    own = len(param.test_net_param) + len(param.test_net)
    generic = param.HasField("net") or param.HasField("net_param")
    iters = len(param.test_iter)
    if iters < own or (iters > own and not generic):
        raise SolverError(
            f"{where}test_iter must be given once for each test net: it is given {iters} times, "
            f"there are {own} test nets"
        )
    if param.test_state and len(param.test_state) != iters:
        raise SolverError(
            f"{where}test_state must be given once for each test net or not at all: "
            f"it is given {len(param.test_state)} times, there are {iters} test nets"
        )
    if iters and param.test_interval <= 0:
        raise SolverError(
            f"{where}test_interval: {param.test_interval} must be positive, as there are test nets (test_iter)"
        )
    found: list[tuple[str, Any]] = [("test_net_param", net) for net in param.test_net_param]
    found += [("test_net", _locate(path, file)) for path in param.test_net]
    if iters > own:
        shared = ("net", _locate(param.net, file)) if param.HasField("net") else ("net_param", param.net_param)
        found += [shared] * (iters - own)
    states = list(param.test_state) or [None] * iters
    return [
        _found(field, net, _with_state(_read_net(net, file, field, param.fork), caffe_pb2.TEST, state), file)
        for (field, net), state in zip(found, states, strict=True)
    ]


test_net_params.__test__ = False  # type: ignore[attr-defined]


def warn_of_missing(report: LoadReport) -> None:
    """Log which layers of a net have no weights in any of the loaded files and so keep their fillers."""
    if gaps := report.gaps():
        log(lines.FINETUNING, "%s", gaps[0].upper() + gaps[1:], level=logging.WARNING)


def warn_of_untrained(index: int, report: LoadReport) -> None:
    """Log which layers of test net ``index`` score with what their fillers made: neither trained nor loaded."""
    if report.missing:
        message = "Test net (#%d): %s: not in the training net, and so not trained"
        log(lines.CREATING_TEST, message, index, ", ".join(report.missing), level=logging.WARNING)


def tell_of_records(index: int, net: Net, iterations: int) -> None:
    """Log which data layers of test net ``index`` a test does not pass through a whole number of times.

    Batches are always full, as Caffe's: a test goes on where the last one stopped, and over the end of the data to its start.
    """
    for name, layer in net.sources.items():
        if not isinstance(layer, BatchSource) or not layer.records:
            continue
        seen, records = iterations * layer.in_a_batch, layer.records
        if seen % records == 0:
            continue
        message = 'Test net (#%d): test_iter %d times batch_size %d of layer "%s" is %d of its %d records: %s'
        rest = "the next test goes on with the others" if seen < records else "some count once more than others"
        log(lines.CREATING_TEST, message, index, iterations, layer.in_a_batch, name, seen, records, rest)
