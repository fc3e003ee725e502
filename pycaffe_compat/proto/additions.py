"""The fields and values in a message that forks of Caffe have and BVLC's has not, and what becomes of them here."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from ..forks import BVLC, all_forks
from . import caffe_pb2

log = logging.getLogger(__name__)
_MOST = 3  # forks that a message names


class Addition(NamedTuple):
    """A field that is set and that BVLC's Caffe lacks, or a field of BVLC's with a value that it lacks.

    Attributes:
        path: the fields that lead to it, such as ``pooling_param.ceil_mode``, or ``loss_param.normalization=PRE_FIXED``.
        message, field: the names of the message that has it, and its own.
        forks: the names of the forks that have it.
        is_value: whether it is a value of one of BVLC's fields.
        is_default: whether it says what the fork does without it.
    """

    path: str
    message: str
    field: str
    forks: tuple[str, ...]
    is_value: bool = False
    is_default: bool = False


def additions(message: Any, path: str = "", inside: bool = False) -> Iterator[Addition]:
    """Yield the fields of forks that are set in ``message`` and in its messages.

    Args:
        path: what leads to ``message``.
        inside: whether to look into a message that only forks have, too; else only its own field is yielded.
    """
    name = message.DESCRIPTOR.name
    for field, value in message.ListFields():
        here = f"{path}.{field.name}" if path else field.name
        forks = caffe_pb2.ADDITIONS.fields.get((name, field.name), ())
        if len(forks) > 1 and hasattr(value, "append") and len(value) > 1:
            forks = caffe_pb2.ADDITIONS.repeating(name, field.name)
        if forks:
            plain = field.message_type is None and not hasattr(value, "append")
            yield Addition(here, name, field.name, forks, is_default=plain and value == field.default_value)
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


def titles(names: Sequence[str]) -> str:
    """Say which forks ``names`` are: ``SSD (ssd), RefineDet (refinedet)``; many are counted."""
    known = {fork.name: fork.title for fork in (*all_forks(), BVLC)}
    shown = [f"{known[name]} ({name})" if name in known else name for name in names[:_MOST]]
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(shown) + more


def speed_only(each: Addition) -> str:
    """What a field that changes no result here steers in its fork; ``""`` for any other field."""
    return next((words for fork in all_forks() if (words := fork.speed.get(f"{each.message}.{each.field}"))), "")


def refusal(each: Addition) -> str:
    """Say that a field is not supported: its path, the forks that have it, and what it would do."""
    found = (fork.refused.get(f"{each.message}.{each.field}") for fork in all_forks() if fork.name in each.forks)
    words = next(filter(None, found), "")
    return f"{each.path} of {titles(each.forks)}{f', which {words}' if words else ''}"


def note(each: Addition, words: str, noted: set[str]) -> None:
    """Log that a field has no effect here and why, unless ``noted`` says that it has been logged."""
    name = f"{each.message}.{each.field}"
    if name not in noted:
        noted.add(name)
        log.info("%s of %s has no effect here: %s", each.path, titles(each.forks), words)


def unsupported(message: Any, supported: Collection[str], noted: set[str]) -> list[str]:
    """Say which of a message's own fields of forks are not supported here; log those that only affect speed.

    Args:
        message: a ``NetParameter`` or ``SolverParameter``, for example; nested messages are not checked.
        supported: the names of the supported fields.
        noted: the fields that have been logged.
    """
    bare = type(message)()
    bare.CopyFrom(message)
    for field in bare.DESCRIPTOR.fields:
        if field.message_type is not None and (bare.DESCRIPTOR.name, field.name) not in caffe_pb2.ADDITIONS.fields:
            bare.ClearField(field.name)
    refused = []
    for each in additions(bare):
        if each.field in supported or each.is_default:
            continue
        if words := speed_only(each):
            note(each, words, noted)
        else:
            refused.append(refusal(each))
    return refused
