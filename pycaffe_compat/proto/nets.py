"""Nets and solvers from files, upgraded; and the layers of a net that a state includes."""

from __future__ import annotations

import logging
import os
from typing import Any

from ..errors import NetError, ParseError, require_file
from ..forks import fork_named
from . import caffe_pb2
from .kinds import EMPTY, NETS, SOLVERS, is_empty_handed, mixed_up
from .numbers import own_default, parse_net
from .text import format_text, looks_binary, parse_text, read_bytes
from .upgrade import upgrade_net, upgrade_solver

_log = logging.getLogger(__name__)
_assumed = ""  # the fork of files for which none is named


def assume_fork(name: str) -> None:
    """Read nets and solvers as files of the fork of Caffe ``name`` from now on, where none is named; ``""`` to recognise it.

    Raises:
        UnknownNameError: there is no such fork.
    """
    global _assumed
    _assumed = fork_named(name).name if name else ""


def _fork_of(name: str) -> str:
    return fork_named(name).name if name else _assumed


def read_net(source: Any, fork: str = "") -> Any:
    """Return the upgraded ``NetParameter`` of ``source``.

    Args:
        source: the path of a prototxt file or of a binary ``NetParameter``; prototxt text itself; or a
            ``NetParameter``, which is not changed.
        fork: the fork of Caffe that the net is of, such as ``"segnet"``; empty to go by what it uses. The net keeps it in
            its field ``fork``.

    Raises:
        MissingFileError, ParseError, NetError: the file is missing, is not a net, or cannot be upgraded.
        UnknownNameError: there is no such fork.
    """
    fork = _fork_of(fork)
    net = _read_net(source, fork)
    if fork:
        net.fork = fork
    elif net.fork:
        fork_named(net.fork)
    return net


def _read_net(source: Any, fork: str) -> Any:
    if hasattr(source, "DESCRIPTOR"):
        net = caffe_pb2.NetParameter()
        net.MergeFromString(source.SerializeToString())
        upgrade_net(net)
        return net
    if isinstance(source, str) and "{" in source and not os.path.exists(source):
        data, file = source.encode("utf-8", "surrogateescape"), "<string>"
    else:
        return _read_net_file(require_file(source, "net"), fork)
    return _upgraded(parse_text(data, caffe_pb2.NetParameter, file), file)


def _read_net_file(file: str, fork: str) -> Any:
    try:
        data = read_bytes(file, "net")
        binary = looks_binary(data)
        net: Any = parse_net(data, fork, file) if binary else parse_text(data, caffe_pb2.NetParameter, file)
        suspect = is_empty_handed(net) and (binary or not data.strip())
    except ParseError as error:
        if words := mixed_up(file, NETS, "a net: a prototxt", error):
            raise ParseError(words) from None
        raise
    if suspect and (words := mixed_up(file, NETS, "a net: a prototxt")):
        raise ParseError(words)
    return _upgraded(net, file)


def _upgraded(net: Any, file: str) -> Any:
    shapeless = [] if net.input_shape or net.input_dim else list(net.input)
    for words in upgrade_net(net, file):
        _log.info("%s: upgraded %s", file, words)
    made = {top for layer in net.layer for top in layer.top}
    read = {bottom for layer in net.layer for bottom in layer.bottom}
    for name in shapeless:
        if name in read and name not in made:  # Caffe drops such an input, and misses it later
            raise NetError(
                f'{file}: input "{name}" has no shape; give input_shape {{ dim: 1 dim: 3 dim: 224 dim: 224 }}, '
                "or input_dim four times"
            )
    return net


def read_solver(path: str | os.PathLike[str], fork: str = "") -> Any:
    """Return the upgraded ``SolverParameter`` of the prototxt file at ``path``.

    ``fork`` is the fork of Caffe that the solver's nets are of, as in :func:`read_net`; the solver keeps it. Fields that are
    not set then hold what that fork takes for them.

    As in Caffe, the default ``snapshot_prefix`` is the path of the solver file without its ending. If the prefix is a
    folder, the name of the solver file is appended.

    Raises:
        MissingFileError, ParseError, SolverError: the file is missing, is not a solver, or cannot be upgraded.
    """
    file = os.fspath(path)
    require_file(file, "solver")
    try:
        data = read_bytes(file, "solver")
        solver = parse_text(data, caffe_pb2.SolverParameter, file)
    except ParseError as error:
        if words := mixed_up(file, SOLVERS, "a solver: a prototxt", error):
            raise ParseError(words) from None
        raise
    if not data.strip():
        raise ParseError(f"{file}: the file is {EMPTY}. Expected a solver: a prototxt")
    if _fork_of(fork):
        solver.fork = _fork_of(fork)
    for words in upgrade_solver(solver, file):
        _log.info("%s: upgraded %s", file, words)
    _set_own_defaults(solver)
    stem = os.path.splitext(file)[0]
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = stem
    elif os.path.isdir(solver.snapshot_prefix):
        solver.snapshot_prefix = os.path.join(solver.snapshot_prefix, os.path.basename(stem))
    return solver


def _set_own_defaults(solver: Any) -> None:
    """Give fields of a solver that are not set what its fork has for their default, where that is another than here."""
    for (of, name), own in caffe_pb2.ADDITIONS.otherwise.get(solver.fork, {}).items():
        if of == "SolverParameter" and own.label != own.LABEL_REPEATED and own.type != own.TYPE_MESSAGE:
            is_single = not hasattr(getattr(solver, name), "append")
            if is_single and not solver.HasField(name):
                setattr(solver, name, own_default(solver.fork, solver, name))


def filter_net(net: Any, state: Any = None) -> Any:
    """Return a copy of ``net`` with the layers that ``state`` includes, and that state as its ``state``.

    A layer without rules is included. A layer with ``include`` rules is included if any of them is met; a layer with
    ``exclude`` rules if none is. A layer without ``phase`` gets that of the state.

    Args:
        net: an upgraded ``NetParameter``.
        state: a ``NetState``; None for the net's own.

    Raises:
        NetError: a layer has both ``include`` and ``exclude`` rules.
    """
    state = net.state if state is None else state
    filtered = caffe_pb2.NetParameter()
    filtered.CopyFrom(net)
    filtered.ClearField("layer")
    filtered.state.CopyFrom(state)
    for layer in net.layer:
        if included(layer, state):
            copy = filtered.layer.add()
            copy.CopyFrom(layer)
            if not copy.HasField("phase"):
                copy.phase = state.phase
    return filtered


def included(layer: Any, state: Any) -> bool:
    """Whether a net in ``state`` has this ``LayerParameter``, by its ``include`` and ``exclude`` rules.

    Raises:
        NetError: the layer has rules of both kinds.
    """
    if layer.include and layer.exclude:
        raise NetError(f'layer "{layer.name}" has both include and exclude rules; give one kind')
    if layer.include:
        return any(_meets(state, rule) for rule in layer.include)
    return not any(_meets(state, rule) for rule in layer.exclude)


def rules_in_words(layer: Any, state: Any) -> str:
    """Say which rules leave the layer out of a net in ``state``, such as ``include { phase: TRAIN }``."""
    kind = "include" if layer.include else "exclude"
    rules = layer.include or [rule for rule in layer.exclude if _meets(state, rule)]
    return " and ".join(f"{kind} {{ {' '.join(format_text(rule).split())} }}" for rule in rules)


def state_in_words(state: Any) -> str:
    """Say what a net is built for: ``phase TEST, level 1, stage deploy``; a level of 0 and no stages are left out."""
    words = [f"phase {caffe_pb2.Phase.Name(state.phase)}"]
    if state.level:
        words.append(f"level {state.level}")
    if state.stage:
        words.append(f"stage {' '.join(state.stage)}")
    return ", ".join(words)


def _meets(state: Any, rule: Any) -> bool:
    if rule.HasField("phase") and rule.phase != state.phase:
        return False
    if rule.HasField("min_level") and state.level < rule.min_level:
        return False
    if rule.HasField("max_level") and state.level > rule.max_level:
        return False
    stages = set(state.stage)
    return stages.issuperset(rule.stage) and stages.isdisjoint(rule.not_stage)


def as_phase(phase: int | str) -> int:
    """Return Caffe's phase number for ``"TRAIN"``, ``"TEST"`` or the number itself.

    Raises:
        NetError: it is neither.
    """
    if isinstance(phase, str):
        if phase.upper() not in ("TRAIN", "TEST"):
            raise NetError(f'unknown phase "{phase}": it must be TRAIN or TEST')
        return caffe_pb2.Phase.Value(phase.upper())
    if phase not in (caffe_pb2.TRAIN, caffe_pb2.TEST):
        raise NetError(f"unknown phase {phase!r}: it must be {caffe_pb2.TRAIN} (TRAIN) or {caffe_pb2.TEST} (TEST)")
    return int(phase)
