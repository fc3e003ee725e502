"""The messages of Caffe's text files: BVLC's, and in them by name every field that a fork of Caffe has besides.

Text is read by name, so one schema serves all forks. Numbers are another matter: forks give one number different fields.
In this schema BVLC's fields keep their numbers. A field that a fork adds to one of BVLC's messages gets a number that is
made from its name and that no Caffe uses, so bytes of one fork are never taken for a field of another. Messages that only
forks have keep the numbers of the first fork that has them.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from ..forks import NAMES, added_file, all_forks

_FIELD = descriptor_pb2.FieldDescriptorProto
_INTEGERS = {_FIELD.TYPE_INT32, _FIELD.TYPE_UINT32, _FIELD.TYPE_INT64, _FIELD.TYPE_UINT64}
_LIFTED = {"V1LayerParameter": "LayerParameter"}  # what a fork adds to the old form is upgraded to the new one
_WORDS = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # where the words of a layer type meet
FORK = "fork"  # our own field of nets and solvers: the fork that the user named


@dataclass
class Additions:
    """What the forks add to BVLC's messages.

    Attributes:
        fields: (message, field) to the names of the forks that have it.
        values: (enum, value) likewise; an enum inside a message is ``Message.Enum``.
        messages: message to the names of the forks that have it, for messages that BVLC's Caffe lacks.
        otherwise: fork to (message, field) to the field as that fork has it (a ``FieldDescriptorProto``), where it has
            another default, or takes one value where the message here takes several.
        clashes: (message, field) to the fork of the user's own that gives a known fork's field another kind, which holds.
    """

    fields: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    values: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    messages: dict[str, tuple[str, ...]] = field(default_factory=dict)
    otherwise: dict[str, dict[tuple[str, str], Any]] = field(default_factory=dict)
    clashes: dict[tuple[str, str], str] = field(default_factory=dict)

    def repeating(self, message: str, field: str) -> tuple[str, ...]:
        """The forks that take several values of a field that the message here takes several of."""
        forks = self.fields.get((message, field), ())
        return tuple(fork for fork in forks if (message, field) not in self.otherwise.get(fork, {}))

    def single_messages(self, file: Any) -> dict[str, dict[str, str]]:
        """The fields of ``file``, what :func:`merged` made, that take several messages, but one in some fork.

        Returns:
            message to field to the name of the message that the field takes.
        """
        found: dict[str, dict[str, str]] = {}
        otherwise = {names for fields in self.otherwise.values() for names in fields}
        for message in file.message_type:
            for each in message.field:
                is_several = each.label == _FIELD.LABEL_REPEATED and each.type == _FIELD.TYPE_MESSAGE
                if is_several and (message.name, each.name) in otherwise:
                    found.setdefault(message.name, {})[each.name] = each.type_name.rpartition(".")[2]
        return found


def bvlc() -> Any:
    """BVLC's ``caffe.proto``, merged with the paper's fork, as a ``FileDescriptorProto``."""
    data = resources.files(__package__).joinpath("caffe_descriptor.binpb").read_bytes()
    return descriptor_pb2.FileDescriptorSet.FromString(data).file[0]


def fork_file(name: str) -> Any | None:
    """What the fork ``name`` adds to BVLC's messages, as a ``FileDescriptorProto``; None if it adds nothing."""
    if (own := added_file(name)) is not None:
        return own
    source = resources.files("pycaffe_compat.forks").joinpath(name).joinpath("fork.binpb")
    if not source.is_file():
        return None
    return descriptor_pb2.FileDescriptorSet.FromString(source.read_bytes()).file[-1]


def merged(forks: Iterable[tuple[str, Any]]) -> tuple[Any, Additions]:
    """Return BVLC's file with the fields, values and messages of ``forks``, and which fork each comes from.

    Args:
        forks: the name of each fork, and its ``FileDescriptorProto``.

    Raises:
        ValueError: two known forks have a field of one name that no one field can stand for.
    """
    file = bvlc()
    forks = list(forks)
    additions = Additions()
    own = {message.name for message in file.message_type}
    for name, addition in forks:
        package = f".{addition.package}."
        _merge_enums(file.enum_type, addition.enum_type, "", name, additions)
        for message in addition.message_type:
            homes = [message.name, *filter(None, [_LIFTED.get(message.name)])]
            for home in homes:
                _merge_message(file, home, message, name, package, own, additions)
    _note_differences(file, forks, additions)
    _extend_old_form(file, additions)
    for message in file.message_type:
        if message.name in ("NetParameter", "SolverParameter"):
            number = _number_of(f"{message.name}.{FORK}")
            message.field.add(name=FORK, number=number, type=_FIELD.TYPE_STRING, label=_FIELD.LABEL_OPTIONAL)
    return file, additions


def _extend_old_form(file: Any, additions: Additions) -> None:
    """Let the old form, ``layers { type: ROI_POOLING … }``, hold the layers of all forks and their options, too."""
    old, new = (next(m for m in file.message_type if m.name == name) for name in ("V1LayerParameter", "LayerParameter"))
    known = {each.name for each in old.field}
    for added in new.field:
        forks = additions.fields.get((new.name, added.name), ())
        if forks and added.type == _FIELD.TYPE_MESSAGE and added.name not in known:
            copy = old.field.add()
            copy.CopyFrom(added)
            copy.number = _number_of(f"{old.name}.{copy.name}")
            additions.fields[old.name, copy.name] = forks
    enum = next(each for each in old.enum_type if each.name == "LayerType")
    known = {value.name for value in enum.value}
    for fork in all_forks():
        for name in sorted({_WORDS.sub("_", each).upper() for each in fork.layer_types} - known):
            full = f"{old.name}.{enum.name}"
            if (full, name) not in additions.values:
                enum.value.add(name=name, number=_number_of(f"{full}.{name}"))
            additions.values[full, name] = (*additions.values.get((full, name), ()), fork.name)


def _merge_message(
    file: Any, home: str, addition: Any, fork: str, package: str, own: set[str], additions: Additions
) -> None:
    target = next((message for message in file.message_type if message.name == home), None)
    if target is None:
        target = file.message_type.add(name=home)
    if home not in own:
        additions.messages[home] = (*additions.messages.get(home, ()), fork)
    if home == addition.name:
        _merge_enums(target.enum_type, addition.enum_type, home, fork, additions)
        _add_nested(target, addition, package)
    known = {each.name: each for each in target.field}
    taken = {each.number for each in target.field}
    for added in addition.field:
        old = known.get(added.name)
        if old is None:
            copy = target.field.add()
            copy.CopyFrom(added)
            _localise(copy, package)
            if home in own or copy.number in taken:
                copy.number = _number_of(f"{home}.{copy.name}")
            if copy.label == _FIELD.LABEL_REQUIRED:
                copy.label = _FIELD.LABEL_OPTIONAL
            taken.add(copy.number)
            additions.fields[home, copy.name] = (fork,)
        else:
            is_bvlcs = (home, added.name) not in additions.fields
            if not _reconcile(old, _local(added, package), home, fork, is_bvlcs):
                additions.clashes[home, added.name] = fork
            if not is_bvlcs:
                additions.fields[home, added.name] += (fork,)


def _add_nested(target: Any, addition: Any, package: str) -> None:
    known = {each.name for each in target.nested_type}
    for nested in addition.nested_type:
        if nested.name not in known:
            copy = target.nested_type.add()
            copy.CopyFrom(nested)
            for inner in copy.field:
                _localise(inner, package)


def _reconcile(old: Any, added: Any, home: str, fork: str, is_bvlcs: bool) -> bool:
    """Let one field hold what either Caffe may put into it; what is left of the difference, :func:`_note_differences` keeps.

    A field of BVLC's stays as it is. Of other fields, a fork that was added has the last word on the kind.

    Returns:
        Whether the forks before can still read the field.

    Raises:
        ValueError: no one field can hold what two known forks put into it.
    """
    is_known = fork in NAMES
    if not alike(old, added):
        if is_known:
            raise ValueError(f"{home}.{added.name} of {fork} has a different kind than in the Caffes before it")
        if not is_bvlcs:
            number = old.number
            old.CopyFrom(added)
            old.number = number
        return is_bvlcs
    if old.type != added.type and not is_bvlcs:
        old.type = _FIELD.TYPE_INT64
    if added.label == _FIELD.LABEL_REPEATED and old.label != _FIELD.LABEL_REPEATED:
        if is_bvlcs and is_known:
            raise ValueError(f"{home}.{added.name} of {fork} is repeated, and not so in BVLC's Caffe")
        if not is_bvlcs:
            old.label = added.label
            old.ClearField("default_value")
    return True


def alike(one: Any, other: Any) -> bool:
    """Whether two fields (``FieldDescriptorProto``) are of one kind: the same type, or two whole numbers."""
    return (one.type, one.type_name) == (other.type, other.type_name) or {one.type, other.type} <= _INTEGERS


def _note_differences(file: Any, forks: Iterable[tuple[str, Any]], additions: Additions) -> None:
    """Keep each fork's own default and label of the fields that have another one in ``file``."""
    fields = {(message.name, each.name): each for message in file.message_type for each in message.field}
    for name, addition in forks:
        found = {}
        package = f".{addition.package}."
        for message in addition.message_type:
            for own in message.field:
                one = fields[message.name, own.name]
                if not alike(_local(own, package), one):
                    continue
                repeated = own.label == _FIELD.LABEL_REPEATED, one.label == _FIELD.LABEL_REPEATED
                if repeated[0] != repeated[1] or (not any(repeated) and _default(own) != _default(one)):
                    found[message.name, own.name] = own
        if found:
            additions.otherwise[name] = found


def _default(field: Any) -> str:
    """What a field holds that is not set, as text; ``""`` for nothing: 0, false, an empty string, an enum's first value."""
    text: str = field.default_value
    try:
        return "" if float(text) == 0 else str(float(text))
    except ValueError:
        return "" if text == "false" else text


def _merge_enums(enums: Any, added: Iterable[Any], home: str, fork: str, additions: Additions) -> None:
    known = {enum.name: enum for enum in enums}
    for enum in added:
        full = f"{home}.{enum.name}" if home else enum.name
        target = known.get(enum.name)
        fresh = target is None
        if target is None:
            target = enums.add(name=enum.name)
        names = {value.name for value in target.value}
        numbers = {value.number for value in target.value}
        for value in enum.value:
            if value.name not in names:
                number = value.number if fresh or _is_new(additions, full, target) else -1
                if number in numbers or number < 0:
                    number = _number_of(f"{full}.{value.name}")
                target.value.add(name=value.name, number=number)
                numbers.add(number)
                additions.values[full, value.name] = (fork,)
            elif (full, value.name) in additions.values:
                additions.values[full, value.name] += (fork,)


def _is_new(additions: Additions, full: str, enum: Any) -> bool:
    """Whether BVLC's Caffe lacks this enum: all of its values come from forks."""
    return all((full, value.name) in additions.values for value in enum.value)


def _local(added: Any, package: str) -> Any:
    """Return a copy of a field that names the merged type where its type is named in the fork's own package."""
    copy = _FIELD()
    copy.CopyFrom(added)
    _localise(copy, package)
    return copy


def _localise(added: Any, package: str) -> None:
    """Let a field whose type is named in the fork's own package name the merged one."""
    if added.type_name.startswith(package):
        added.type_name = ".caffe." + added.type_name.removeprefix(package)


def _number_of(name: str) -> int:
    """A field number in the upper half of those that protobuf allows, made from ``name``."""
    return 1 << 28 | zlib.crc32(name.encode()) & ((1 << 28) - 1)


def message_classes(file: Any) -> tuple[Any, dict[str, Any]]:
    """Return the descriptor of ``file`` in a pool of its own, and its message classes by name."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    factory: Any = message_factory
    if hasattr(factory, "GetMessageClass"):
        get_class = factory.GetMessageClass
    else:  # protobuf before 4.22
        get_class = factory.MessageFactory(pool).GetPrototype
    descriptor = pool.FindFileByName(file.name)
    return descriptor, {name: get_class(each) for name, each in descriptor.message_types_by_name.items()}


def known_forks() -> Iterator[tuple[str, Any]]:
    """The name and the file of every fork that adds messages or fields."""
    for fork in all_forks():
        file = fork_file(fork.name)
        if file is not None:
            yield fork.name, file


def renumbered(addition: Any) -> Any:
    """Return BVLC's file as the fork of ``addition`` has it: with the fork's fields and values at the fork's own numbers.

    What BVLC has at a number that the fork uses otherwise, or has not (``reserved``), is left out.
    """
    file = bvlc()
    package = f".{addition.package}."
    messages = {message.name: message for message in file.message_type}
    _renumber_enums(file.enum_type, addition.enum_type)
    for added in addition.message_type:
        target = messages.get(added.name)
        if target is None:
            target = file.message_type.add()
            target.CopyFrom(added)
            target.ClearField("reserved_range")
            for field in [*target.field, *(f for nested in target.nested_type for f in nested.field)]:
                _localise(field, package)
        else:
            _renumber_message(target, added, package)
    messages["NetParameter"].field.add(
        name=FORK,
        number=_number_of(f"NetParameter.{FORK}"),
        type=_FIELD.TYPE_STRING,
        label=_FIELD.LABEL_OPTIONAL,
    )
    return file


def _renumber_message(target: Any, added: Any, package: str) -> None:
    _renumber_enums(target.enum_type, added.enum_type)
    for reserved in added.reserved_range:
        for index in reversed(range(len(target.field))):
            if reserved.start <= target.field[index].number < reserved.end:
                del target.field[index]
    for each in added.field:
        _localise(_put(target.field, each), package)


def _put(items: Any, new: Any) -> Any:
    """Add a copy of a field or value, in place of those of its name or number; return it."""
    for index in reversed(range(len(items))):
        if new.name == items[index].name or new.number == items[index].number:
            del items[index]
    copy = items.add()
    copy.CopyFrom(new)
    return copy


def _renumber_enums(enums: Any, added: Iterable[Any]) -> None:
    known = {enum.name: enum for enum in enums}
    for enum in added:
        target = known.get(enum.name)
        if target is None:
            enums.add().CopyFrom(enum)
            continue
        for value in enum.value:
            _put(target.value, value)
