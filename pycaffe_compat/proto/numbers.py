"""Nets in binary: read by the numbers of one fork of Caffe, never of two, and written with the numbers of the net's fork.

Forks give one number different fields. Each fork has message classes of its own here, with its true numbers; a net is
parsed by them and turned into the messages of :mod:`.caffe_pb2` by name.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from ..errors import ParseError
from ..forks import BVLC, NAMES, all_forks, fork_named
from . import caffe_pb2, wire
from .additions import additions, titles
from .binary import parse_binary
from .recognise import forks_of
from .schema import bvlc, fork_file, known_forks, message_classes, renumbered

_LAYERS, _LAYER, _V0_LAYER = 2, 100, 1  # fields of a net, and of a layer in the older form
_BLOBS = {_LAYERS: 6, _LAYER: 7, _V0_LAYER: 50}  # where their messages hold blobs
_BLOB = 9  # the last number of BVLC's BlobProto
_MOST = 6  # unknown fields that a message lists


class Reading(NamedTuple):
    """A net as one fork's numbers read it.

    Attributes:
        fork: the fork's name.
        net: the ``NetParameter`` of :mod:`.caffe_pb2`, or None if the bytes are none of that fork's.
        unknown: the fields that the fork does not have, in words.
        types: the layer types of other forks that it does not have.
        fitting: how many layers have options in the field that is named after their type.
    """

    fork: str
    net: Any
    unknown: tuple[str, ...]
    types: tuple[str, ...]
    fitting: int


def parse_net(data: bytes, fork: str, file: str) -> Any:
    """Return the ``NetParameter`` of :mod:`.caffe_pb2` that ``data`` serialises by the numbers of some fork, with its blobs.

    Args:
        data: the bytes of a file.
        fork: whose numbers they are; empty to find out.
        file: the name that errors begin with.

    Raises:
        ParseError: the bytes are damaged or no net; or as :func:`read_numbered`.
    """
    try:
        bare = bare_net(data)
    except wire.CorruptError:
        return parse_binary(data, caffe_pb2.NetParameter, file)  # says what is wrong
    found, numbers = _recognised(bare, fork, file)
    if numbers == BVLC.name:
        net = parse_binary(data, caffe_pb2.NetParameter, file)
    else:
        message, net = classes(numbers)["NetParameter"](), caffe_pb2.NetParameter()
        message.ParseFromString(data)
        recast(message, net)
    if found.fork:
        net.fork = found.fork
    return net


def bare_net(data: Any, start: int = 0, end: int = -1) -> bytes:
    """Return a binary ``NetParameter`` without the blobs of its layers.

    Raises:
        CorruptError: the bytes are no wire format.
    """
    pieces: list[bytes] = []
    for item in wire.fields(data, start, len(data) if end < 0 else end):
        if item.number in (_LAYERS, _LAYER) and item.wire == wire.BYTES:
            body = bare_layer(data, item.start, item.end, item.number)
            pieces += [wire.header(item.number, len(body)), body]
        else:
            pieces.append(data[item.begin : item.end])
    return b"".join(pieces)


def bare_layer(data: Any, start: int, end: int, number: int) -> bytes:
    """Return the layer from ``start`` to ``end`` without its blobs; ``number`` is the field of the net that holds it."""
    pieces: list[bytes] = []
    for item in wire.fields(data, start, end):
        if item.number == _V0_LAYER and number == _LAYERS and item.wire == wire.BYTES:
            body = bare_layer(data, item.start, item.end, _V0_LAYER)
            pieces += [wire.header(item.number, len(body)), body]
        elif item.number != _BLOBS[number]:
            pieces.append(data[item.begin : item.end])
    return b"".join(pieces)


def read_numbered(data: bytes, fork: str, file: str) -> Any:
    """Return the net that ``data``, a binary ``NetParameter`` without blobs, holds, in the messages of :mod:`.caffe_pb2`.

    Args:
        data: the bytes.
        fork: whose numbers they are; empty to find out.
        file: the name that errors begin with.

    Raises:
        ParseError: the fork lacks fields that are there; or, where none is named, no fork has all of them, or several have
            and give them different meanings. The message names the candidates.
    """
    return _recognised(data, fork, file)[0]


def _recognised(data: bytes, fork: str, file: str) -> tuple[Any, str]:
    """The net, and the fork whose numbers it has."""
    own = caffe_pb2.NetParameter()
    try:
        own.ParseFromString(data)
        is_own = next(additions(own), None) is not None and next(unknown_fields(own), None) is None
    except DecodeError:
        is_own = False
    named = own.fork or fork  # a file that was written here says whose numbers it has
    if is_own and (not named or not _is_of(data, named)):  # written here, with fields of several forks
        own.fork = fork or own.fork
        return own, BVLC.name
    if named:
        net = _as(data, fork_named(named).name, file)
        net.fork = fork or named
        return net, named
    plain = reading(data, BVLC.name)
    is_plain = plain.net is not None and not plain.unknown and not plain.types
    names = [each.name for each in all_forks()]
    rivals = _rivals(plain.net) if is_plain else set(names)
    readings = [plain, *(reading(data, name) for name in names if name in rivals)]
    possible = [each for each in readings if each.net is not None and not each.unknown]
    if not possible:
        if all(each.net is None for each in readings):
            parse_binary(data, caffe_pb2.NetParameter, file)  # says what is wrong
        raise ParseError(f"{file}: {_of_none(readings, file)}")
    best = max((-len(each.types), each.fitting) for each in possible)
    possible = [each for each in possible if (-len(each.types), each.fitting) == best]
    distinct = {each.net.SerializeToString(deterministic=True): each for each in reversed(possible)}
    if len(distinct) > 1:
        raise ParseError(f"{file}: {_of_several(list(distinct.values())[::-1])}")
    return possible[0].net, possible[0].fork


def forget() -> None:
    """Forget what was made of the forks' files: one has been added."""
    classes.cache_clear()
    _other_meanings.cache_clear()


def _is_of(data: bytes, fork: str) -> bool:
    found = reading(data, fork_named(fork).name)
    return found.net is not None and not found.unknown


def _as(data: bytes, fork: str, file: str) -> Any:
    found = reading(data, fork)
    if found.net is None:
        raise ParseError(f"{file}: the file is not a net of {titles([fork])}")
    if found.unknown:
        raise ParseError(f"{file}: {titles([fork])} has no {_listed(found.unknown)}; is it from another fork?")
    return found.net


def reading(data: bytes, fork: str) -> Reading:
    """Read a binary ``NetParameter`` by the numbers of ``fork``."""
    message = classes(fork)["NetParameter"]()
    net = caffe_pb2.NetParameter()
    try:
        message.ParseFromString(data)
        unknown = [*unknown_fields(message)]
        recast(message, net)
    except (DecodeError, ValueError):
        return Reading(fork, None, (), (), 0)
    if net.FindInitializationErrors():
        return Reading(fork, None, (), (), 0)
    others = frozenset().union(*(each.layer_types for each in all_forks())) - fork_named(fork).layer_types
    types = dict.fromkeys(layer.type for layer in net.layer if layer.type in others)
    return Reading(fork, net, tuple(dict.fromkeys(unknown)), tuple(types), sum(map(_fits_type, net.layer)))


@cache
def classes(fork: str) -> dict[str, Any]:
    """The message classes of a fork by name, with its own numbers."""
    if fork == BVLC.name:
        return {name: getattr(caffe_pb2, name) for name in caffe_pb2.DESCRIPTOR.message_types_by_name}
    addition = fork_file(fork)
    return message_classes(renumbered(addition) if addition is not None else bvlc())[1]


def own_default(fork: str, message: Any, field: str) -> Any:
    """What a field of ``message``, one of :mod:`.caffe_pb2`, holds in the Caffe of ``fork`` where it is not set."""
    own = classes(fork)[message.DESCRIPTOR.name].DESCRIPTOR.fields_by_name[field]
    if own.enum_type is not None:
        return _value(own.enum_type, message.DESCRIPTOR.fields_by_name[field].enum_type, own.default_value)
    return own.default_value


def recast(source: Any, target: Any) -> None:
    """Copy ``source`` into ``target``, a message of other numbers, field by field by name.

    Raises:
        ValueError: ``target`` lacks a field or value that is set, or takes one value where there are several.
    """
    if source.DESCRIPTOR.name == "BlobProto" and not any(f.number > _BLOB for f, _ in source.ListFields()):
        target.MergeFromString(source.SerializeToString())  # its numbers may be millions
        return
    fields = target.DESCRIPTOR.fields_by_name
    for field, value in source.ListFields():
        into = fields.get(field.name)
        if into is None or (into.message_type is None) != (field.message_type is None):
            raise ValueError(f"{target.DESCRIPTOR.name} has no {field.name}")
        repeated = hasattr(value, "append")
        if repeated and len(value) > 1 and not hasattr(getattr(target, field.name), "append"):
            raise ValueError(f"{target.DESCRIPTOR.name}.{field.name} takes one value, not {len(value)}")
        values = list(value) if repeated else [value]
        if field.message_type is not None:
            for item in values:
                inner = getattr(target, field.name)
                inner = inner.add() if hasattr(inner, "add") else inner
                inner.SetInParent()
                recast(item, inner)
            continue
        if field.enum_type is not None:
            values = [_value(field.enum_type, into.enum_type, number) for number in values]
        try:
            if hasattr(getattr(target, field.name), "append"):
                getattr(target, field.name).extend(values)
            else:
                setattr(target, field.name, values[-1])
        except TypeError:
            raise ValueError(f"{target.DESCRIPTOR.name}.{field.name} is of another kind") from None


def _value(source: Any, target: Any, number: int) -> int:
    name = source.values_by_number[number].name
    if target is None or name not in target.values_by_name:
        raise ValueError(f"{source.name} has no {name}")
    return target.values_by_name[name].number


def unknown_fields(message: Any, path: str = "", layer: str = "") -> Any:
    """Yield the numbers in ``message`` that it has no field for: ``field 211 of layer "relu6"``."""
    for each in UnknownFieldSet(message):  # type: ignore[attr-defined]
        where = f"{path} of " if path else ""
        yield f"field {each.field_number} of {where}{layer or 'the net'}"
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for item in value if hasattr(value, "add") else (value,):
            if field.name in ("layer", "layers"):
                yield from unknown_fields(item, "", f'layer "{item.name}"')
            else:
                yield from unknown_fields(item, f"{path}.{field.name}" if path else field.name, layer)


def _fits_type(layer: Any) -> bool:
    """Whether a layer has options in the field that is named after its type."""
    own = layer.type.lower() + "param"
    return any(field.name.replace("_", "") == own for field, _ in layer.ListFields())


@cache
def _other_meanings() -> dict[tuple[str, int], set[str]]:
    """The (message, number) of BVLC's fields to the forks that have it for another field."""
    own = {(m.name, f.number): f.name for m in bvlc().message_type for f in m.field}
    found: dict[tuple[str, int], set[str]] = {}
    for name, addition in known_forks():
        for message in addition.message_type:
            for field in message.field:
                at = (message.name, field.number)
                if own.get(at, field.name) != field.name:
                    found.setdefault(at, set()).add(name)
    return found


def _rivals(message: Any) -> set[str]:
    """The forks that have a number of a field that is set in a message of BVLC's for another field."""
    found: set[str] = set()
    for field, value in message.ListFields():
        found |= _other_meanings().get((message.DESCRIPTOR.name, field.number), set())
        if field.message_type is not None:
            found = found.union(*map(_rivals, value if hasattr(value, "add") else (value,)))
    return found


def _of_several(readings: list[Reading]) -> str:
    meanings = "; ".join(f"{titles([each.fork])}: {difference}" for each, difference in _differences(readings))
    return (
        "its numbers could be those of several forks of Caffe, which mean different things. Name one with --fork or fork=, "
        f"or give the net as a prototxt and this file as weights (--weights). {meanings}"
    )


def _differences(readings: list[Reading]) -> list[tuple[Reading, str]]:
    """What each reading has that not all others have: the first layer that differs, as text."""
    found = []
    for each in readings:
        for index, layer in enumerate(_layers(each.net)):
            if any(index >= len(_layers(o.net)) or _layers(o.net)[index] != layer for o in readings):
                text = " ".join(str(layer).split())
                found.append((each, f"layer {{ {text[:160]}{' …' if len(text) > 160 else ''} }}"))
                break
        else:
            found.append((each, "the net itself differs"))
    return found


def _layers(net: Any) -> list[Any]:
    return [*net.layer, *net.layers]


def _of_none(readings: list[Reading], file: str) -> str:
    read = [each for each in readings if each.net is not None]
    if not read:
        return "not a net of any fork of Caffe that is known here"
    closest = min(read, key=lambda each: (-len(_layers(each.net)), len(each.unknown) + len(each.types)))
    return (
        "not readable as a net, as no fork of Caffe that is known here has all of its fields. The closest, "
        f"{titles([closest.fork])}, has no {_listed(closest.unknown)}. Its weights are readable all the same: give the net "
        f"as a prototxt and this file as weights (--weights); caffe-convert-caffemodel {file} --list shows them"
    )


def _listed(unknown: Any) -> str:
    more = f" and {len(unknown) - _MOST} more" if len(unknown) > _MOST else ""
    return ", ".join(unknown[:_MOST]) + more


def fork_to_write(net: Any) -> str:
    """Return the fork whose numbers a net is written with, which its ``fork`` field then names.

    It is the one that the net names, or the first that has all that the net uses. Empty if the net uses nothing but BVLC's
    fields, or if no fork has all: fields of forks then keep the numbers of :mod:`.schema`, which no Caffe has, so that they
    are skipped where they are not known. ``"bvlc"`` if the net has a field of BVLC's that could be taken for a fork's.
    """
    bare = caffe_pb2.NetParameter.FromString(bare_net(net.SerializeToString()))
    if net.fork and net.fork not in (*NAMES, BVLC.name) and _holds(net.fork, bare) and _renumbers(net.fork, bare):
        return str(net.fork)
    if not any(next(additions(layer), None) for layer in (*net.layer, *net.layers)):
        # densenet's ceil_mode has this number, and the opposite meaning
        return BVLC.name if any(layer.pooling_param.HasField("round_mode") for layer in net.layer) else ""
    return next((fork for fork in forks_of(bare) if fork != BVLC.name and _holds(fork, bare)), "")


def _holds(fork: str, net: Any) -> bool:
    try:
        recast(net, classes(fork)["NetParameter"]())
    except ValueError:
        return False
    return True


def _renumbers(fork: str, net: Any) -> bool:
    """Whether a net is other bytes with the numbers of ``fork``."""
    message: bytes = numbered(net, fork).SerializeToString(deterministic=True)
    return message != net.SerializeToString(deterministic=True)


def numbered(net: Any, fork: str) -> Any:
    """Return a net as a message with the numbers of ``fork``; as it is for ``""``."""
    if not fork or fork == BVLC.name:
        return net
    message = classes(fork)["NetParameter"]()
    recast(net, message)
    return message
