"""Caffe's protobuf messages, made from the packaged descriptor without protoc.

The descriptor lives in a pool of its own, so any protobuf runtime works and a real ``caffe_pb2`` in the same process
does not collide. Every top-level message class and enum of ``caffe.proto`` is an attribute of this module, as in the
module that protoc would have generated (``caffe_pb2.NetParameter``, ``caffe_pb2.TRAIN``).
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal import enum_type_wrapper


def _load() -> dict[str, Any]:
    serialized = resources.files(__package__).joinpath("caffe_descriptor.binpb").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(serialized)
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    factory: Any = message_factory
    if hasattr(factory, "GetMessageClass"):
        get_class = factory.GetMessageClass
    else:  # protobuf before 4.22
        get_class = factory.MessageFactory(pool).GetPrototype
    names: dict[str, Any] = {}
    for file in files.file:
        descriptor = pool.FindFileByName(file.name)
        names["DESCRIPTOR"] = descriptor
        for name, message in descriptor.message_types_by_name.items():
            names[name] = get_class(message)
        for name, enum in descriptor.enum_types_by_name.items():
            names[name] = enum_type_wrapper.EnumTypeWrapper(enum)
            names.update({value.name: value.number for value in enum.values})
    return names


globals().update(_load())


def __getattr__(name: str) -> Any:
    raise AttributeError(f"caffe.proto has no message or enum value {name!r}")
