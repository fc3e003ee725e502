"""A layer's options as its own fork of Caffe has them, where forks differ: its defaults, and how many values it takes.

The messages of :mod:`..proto.caffe_pb2` hold the fields of all forks, each with the default of the first fork that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import LayerError
from ..forks import NAMES
from ..proto import caffe_pb2
from ..proto.additions import titles
from ..proto.numbers import own_default
from ..proto.recognise import forks_of
from .base import Layer
from .registry import VARIANTS


def with_own_options(param: Any, cls: type[Layer], fork: str, where: str) -> Any:
    """Return the ``LayerParameter`` with what its fork takes for fields that are not set, where that is not the message's.

    Args:
        param: the layer; it is not changed.
        cls: the class that runs it.
        fork: the layer's fork; empty for BVLC's Caffe.
        where: the layer and its file, for messages.

    Raises:
        LayerError: several values for a field that the layer's fork has one of; or a fork of the user's own has given a field
            that the class reads another kind.
    """
    _check_kinds(param, cls, where)
    otherwise = caffe_pb2.ADDITIONS.otherwise.get(fork)
    if not otherwise:
        return param
    concerned = {message for message, _ in otherwise}
    full = type(param)()
    full.CopyFrom(param)
    for name in cls.option_fields():
        field = param.DESCRIPTOR.fields_by_name[name]
        if field.message_type.name in concerned and not hasattr(getattr(full, name), "add"):
            getattr(full, name).SetInParent()
    _settle(full, "", fork, otherwise, where)
    return full


def fork_of_layer(param: Any, cls: type[Layer], fork: str, likely: Sequence[str]) -> str:
    """Return the fork whose layer this is: that which the net names or most likely is of, among those that have the class.

    Args:
        param: the ``LayerParameter``.
        cls: the class that runs it.
        fork: the fork that the net names; empty if none.
        likely: the forks that the net may be of, the likeliest first; by default those that the layer may be of.
    """
    if cls.forks and not likely:
        likely = forks_of(caffe_pb2.NetParameter(layer=[param]))
    candidates = [fork, *likely] if fork else [*likely]
    if fork and fork not in NAMES:
        return fork  # of the user's own: it may well have layers of others
    if cls.forks:
        return next((name for name in candidates if name in cls.forks), cls.forks[0])
    return candidates[0] if candidates else ""


def leaves_out_weight(param: Any, cls: type[Layer], fork: str, likely: Sequence[str]) -> bool:
    """Whether a loss counts for nothing unless ``loss_weight`` is given: in its fork, or in all that its net may be of."""
    if not cls.weightless:
        return False
    if fork:
        return fork_of_layer(param, cls, fork, likely) in cls.weightless
    having = {name for each in VARIANTS.get(param.type, ()) for name in each.forks}
    possible = [name for name in likely or forks_of(caffe_pb2.NetParameter(layer=[param])) if name in having]
    return bool(possible) and cls.weightless.issuperset(possible)


def _check_kinds(param: Any, cls: type[Layer], where: str) -> None:
    if not caffe_pb2.ADDITIONS.clashes or not set(cls.forks) <= set(NAMES):
        return
    for option in cls.option_fields():
        message = param.DESCRIPTOR.fields_by_name[option].message_type
        for (of, field), own in caffe_pb2.ADDITIONS.clashes.items():
            if (
                message is not None
                and of == message.name
                and set(caffe_pb2.ADDITIONS.fields[of, field]) & set(cls.forks)
            ):
                raise LayerError(
                    f"{where}: {option}.{field} has a different kind in {titles([own])} than in {titles(cls.forks[:1])}, whose "
                    f'layer this would be. Register your own class: @register("{cls.type_name}", fork="{own}")'
                )


def _settle(message: Any, path: str, fork: str, otherwise: dict[tuple[str, str], Any], where: str) -> None:
    name = message.DESCRIPTOR.name
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in value if hasattr(value, "add") else (value,):
                _settle(each, f"{path}{field.name}.", fork, otherwise, where)
    for (of, name_of_field), own in otherwise.items():
        if of != name:
            continue
        several = hasattr(getattr(message, name_of_field), "append")
        if several and own.label != own.LABEL_REPEATED:
            _check_single(message, name_of_field, path, fork, where)
        if own.type == own.TYPE_MESSAGE or (own.label == own.LABEL_REPEATED and not several):
            continue
        if (of, name_of_field) == ("LossParameter", "normalize"):
            continue  # old Caffes had it on by default, and it overrules normalization where it is set
        if several and (not own.default_value or (of, name_of_field) not in caffe_pb2.ADDITIONS.fields):
            continue  # none of BVLC's values stands for the default
        if several and not len(getattr(message, name_of_field)):
            getattr(message, name_of_field).append(own_default(fork, message, name_of_field))
        elif not several and not message.HasField(name_of_field):
            setattr(message, name_of_field, own_default(fork, message, name_of_field))


def _check_single(message: Any, field: str, path: str, fork: str, where: str) -> None:
    given = len(getattr(message, field))
    if given < 2:
        return
    name = message.DESCRIPTOR.name
    forks = caffe_pb2.ADDITIONS.repeating(name, field)
    others = titles(forks) if forks else "BVLC's Caffe"
    raise LayerError(
        f"{where}: {path}{field} is given {given} times, but {titles([fork])} takes one; several work only in {others}"
    )
