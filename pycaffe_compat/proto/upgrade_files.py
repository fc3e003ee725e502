"""Files of old nets and solvers into files of today's form: what ``upgrade_net_proto_text`` and its siblings do."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import ParseError
from ..files import atomic_path
from . import caffe_pb2
from .binary import read_message, write_message
from .caffemodel import BinaryWeights
from .kinds import EMPTY, NET, SOLVER, kind_of, mixed_up
from .numbers import fork_to_write, numbered, parse_net
from .reader import read_weights
from .text import format_text, read_text
from .upgrade import upgrade_net, upgrade_solver
from .writer import write_weights

Path = str | os.PathLike[str]


def upgrade_net_text(source: Path, target: Path) -> list[str]:
    """Write the prototxt net ``source``, upgraded, to ``target``; return what was upgraded, in words."""
    return _upgrade_text(source, target, caffe_pb2.NetParameter, upgrade_net)


def upgrade_solver_text(source: Path, target: Path) -> list[str]:
    """Write the prototxt solver ``source``, upgraded, to ``target``; return what was upgraded, in words."""
    return _upgrade_text(source, target, caffe_pb2.SolverParameter, upgrade_solver)


def upgrade_net_binary(source: Path, target: Path) -> list[str]:
    """Write the binary net or caffemodel ``source``, upgraded, to ``target``; return what was upgraded, in words.

    A net of a fork of Caffe keeps the fork's numbers. In a caffemodel of a fork that is not known, fields of layers that
    BVLC's Caffe uses otherwise are left out; a warning names them.
    """
    try:
        net: Any = read_message(source, caffe_pb2.NetParameter, lambda data, cls, name: parse_net(data, "", name))
    except ParseError as error:
        return _upgrade_weights(source, target, error)
    words = upgrade_net(net, os.fspath(source))
    write_message(target, numbered(net, fork_to_write(net)))
    return words


def _upgrade_weights(source: Path, target: Path, error: ParseError) -> list[str]:
    """Upgrade a caffemodel that is no ``NetParameter`` as a whole, for the reason ``error``, but holds weights."""
    try:
        weights = read_weights(source)
    except ParseError:
        raise error from None
    if not isinstance(weights, BinaryWeights):
        raise error
    net = weights.stored_net()
    words = upgrade_net(net, os.fspath(source))
    blobs = {name: weights[name] for name in weights}
    diffs = {name: weights.diffs(name) for name in weights}
    whole = {
        name: [np.zeros_like(blob) if diff is None else diff for blob, diff in zip(blobs[name], stored, strict=True)]
        for name, stored in diffs.items()
    }
    write_weights(target, net, blobs, whole if any(d is not None for each in diffs.values() for d in each) else None)
    return words


def _upgrade_text(source: Path, target: Path, cls: Any, upgrade: Callable[[Any, str], list[str]]) -> list[str]:
    kind = NET if cls is caffe_pb2.NetParameter else SOLVER
    try:
        message = read_text(source, cls, cls.DESCRIPTOR.name)
    except ParseError as error:
        if wrong := mixed_up(source, (kind,), f"a prototxt of a {cls.DESCRIPTOR.name}", error):
            raise ParseError(wrong) from None
        raise
    if kind_of(source) is EMPTY:
        raise ParseError(mixed_up(source, (kind,), f"a prototxt of a {cls.DESCRIPTOR.name}"))
    words = upgrade(message, os.fspath(source))
    with atomic_path(target) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(format_text(message))
    return words
