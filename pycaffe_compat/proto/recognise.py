"""Which forks of Caffe a net may be of, by the layer types and fields that it uses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..forks import all_forks
from . import caffe_pb2


class Addition(NamedTuple):
    """A field that is set and that BVLC's Caffe lacks, or a field of BVLC's with a value that it lacks.

    Attributes:
        path: the fields that lead to it, such as ``pooling_param.ceil_mode``, or ``loss_param.normalization=PRE_FIXED``.
        message, field: the names of the message that has it, and its own.
        forks: the names of the forks that have it.
        is_value: whether it is a value of one of BVLC's fields.
    """

    path: str
    message: str
    field: str
    forks: tuple[str, ...]
    is_value: bool = False


def additions(message: Any, path: str = "", inside: bool = False) -> Iterator[Addition]:
    """Yield the fields of forks that are set in ``message`` and in its messages.

    Args:
        path: what leads to ``message``.
        inside: whether to look into a message that only forks have, too; else its own field alone is yielded.
    """
    name = message.DESCRIPTOR.name
    for field, value in message.ListFields():
        here = f"{path}.{field.name}" if path else field.name
        forks = caffe_pb2.ADDITIONS.fields.get((name, field.name), ())
        if forks:
            yield Addition(here, name, field.name, forks)
        if field.message_type is not None and (inside or not forks):
            for each in value if hasattr(value, "add") else (value,):
                yield from additions(each, here, inside)
        elif field.enum_type is not None and not forks:
            for number in value if hasattr(value, "append") else (value,):
                described = field.enum_type.values_by_number[number]
                if of := value_forks(described):
                    yield Addition(f"{here}={described.name}", name, field.name, of, True)


def value_forks(value: Any) -> tuple[str, ...]:
    """The forks that have a value (its descriptor) of an enum and BVLC's Caffe has not."""
    full: str = value.type.full_name
    return caffe_pb2.ADDITIONS.values.get((full.removeprefix("caffe."), value.name), ())


def forks_of(net: Any) -> tuple[str, ...]:
    """Return the forks that a ``NetParameter`` may be of, those that have most of what it uses first.

    Empty if it uses nothing that BVLC's Caffe lacks. If any fork has all of it, only such forks are returned. The field
    ``fork`` of the net, where it is set, is the only one.
    """
    if net.fork:
        return (net.fork,)
    types = {layer.type for layer in net.layer}
    fields = {(each.message, each.field): each.forks for each in additions(net, inside=True)}
    scores = scores_of(types, fields)
    best = max(scores.values(), default=0)
    everything = len(fields) + len(types & _fork_types())
    if best == everything:
        return tuple(name for name, score in scores.items() if score == best)
    return tuple(sorted(scores, key=lambda name: -scores[name]))


def scores_of(types: set[str], fields: Mapping[tuple[str, str], Sequence[str]]) -> dict[str, int]:
    """How many of ``types`` and ``fields`` each fork has, for the forks that have any; ``fields`` holds the forks of each."""
    scores = {
        fork.name: len(types & fork.layer_types) + sum(fork.name in forks for forks in fields.values())
        for fork in all_forks()
    }
    return {name: score for name, score in scores.items() if score}


def _fork_types() -> frozenset[str]:
    return frozenset().union(*(fork.layer_types for fork in all_forks()))


def titles(names: Sequence[str]) -> str:
    """Say which forks ``names`` are: ``SSD (ssd), RefineDet (refinedet)``."""
    known = {fork.name: fork.title for fork in all_forks()}
    return ", ".join(f"{known[name]} ({name})" if name in known else name for name in names)
