"""Caffe's protobuf messages, made from the packaged descriptors without protoc.

The descriptor lives in a pool of its own, so any protobuf runtime works and a real ``caffe_pb2`` in the same process
does not collide. Every top-level message class and enum of ``caffe.proto`` is an attribute of this module, as in the
module that protoc would have generated (``caffe_pb2.NetParameter``, ``caffe_pb2.TRAIN``). So is every message of a fork
(``caffe_pb2.PriorBoxParameter``), and BVLC's messages have the forks' fields by name; :mod:`.schema` says how.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.internal import enum_type_wrapper

from .one_or_several import let_one_do
from .schema import Additions, known_forks, merged, message_classes

ADDITIONS: Additions


def _load() -> dict[str, Any]:
    file, additions = merged(known_forks())
    descriptor, classes = message_classes(file)
    for name, fields in additions.single_messages(file).items():
        let_one_do(classes[name], {field: classes[kind] for field, kind in fields.items()})
    names: dict[str, Any] = {"DESCRIPTOR": descriptor, "ADDITIONS": additions, **classes}
    for name, enum in descriptor.enum_types_by_name.items():
        names[name] = enum_type_wrapper.EnumTypeWrapper(enum)
        names.update({value.name: value.number for value in enum.values})
    return names


def reload() -> None:
    """Rebuild the messages, with those of forks added since; the field numbers stay.

    Messages of the old classes hold the same bytes.
    """
    globals().update(_load())


reload()


def __getattr__(name: str) -> Any:
    raise AttributeError(f"caffe.proto has no message or enum value {name!r}")
