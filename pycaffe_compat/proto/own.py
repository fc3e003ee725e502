"""A fork of the user's own, by its ``caffe.proto``: its messages stand beside those of the forks that are known."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import tempfile
from importlib import util
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.message import DecodeError

from ..errors import CaffeError, ParseError, require_file
from ..forks import NAMES, Fork, add_fork, added_file
from . import caffe_pb2, numbers
from .schema import alike, bvlc

log = logging.getLogger(__name__)
_FOLDERS = ("", "src", "caffe", "proto")  # on the way to a caffe.proto, they say nothing about whose it is
_CHATTER = re.compile(r"warning|^WARNING: All log messages|^[IW]\d{4} ")  # the compiler's, and of what it logs with


def use_proto(path: str | os.PathLike[str], name: str = "") -> str:
    """Read files by the user's own ``caffe.proto`` too, from now on; return the name of that fork.

    Its fields and messages are then known by name in every text, and ``fork=NAME`` reads binary nets by its numbers. Its
    defaults hold for the layers of its nets. Where it gives a name of another fork another kind, its own kind holds; where one
    of them takes several values, the field takes several. A field of BVLC's keeps its kind; a warning says so.

    Args:
        path: the file; what it imports is looked for in its folder. Or what ``protoc --include_imports
            --descriptor_set_out=FILE.binpb`` made of it, which needs no compiler here.
        name: what to call the fork; empty for the name of the file, or of the folder that holds the Caffe.

    Raises:
        MissingFileError: there is no such file. ParseError: it is no proto2 file of Caffe's messages.
        CaffeError: the compiler of proto files is not installed, or the name is that of a fork that is known.
    """
    file = require_file(path, "caffe.proto")
    name = name or _name(file)
    if name in NAMES:
        raise CaffeError(f'{file}: "{name}" is the name of a built-in fork; rename your file')
    addition = difference(compile_proto(file), file)
    if added_file(name) != addition:
        if other := other_kinds(addition):
            log.warning("%s: read as in BVLC's Caffe: %s", file, ", ".join(other))
        add_fork(Fork(name=name, title=os.path.basename(file), source=os.path.abspath(file)), addition)
        caffe_pb2.reload()
        numbers.forget()
    return name


def compile_proto(file: str) -> list[Any]:
    """Compile a proto file, or read a compiled one; return it and what it imports, imports first (``FileDescriptorProto``).

    Raises:
        ParseError: it does not compile; the compiler's words follow. CaffeError: there is no compiler.
    """
    if file.endswith(".binpb"):
        with open(file, "rb") as compiled:
            try:
                return list(descriptor_pb2.FileDescriptorSet.FromString(compiled.read()).file)
            except DecodeError:
                raise ParseError(f"{file}: not a compiled proto file (protoc --descriptor_set_out)") from None
    if util.find_spec("grpc_tools") is None:
        raise CaffeError(f"{file}: reading a caffe.proto needs a proto compiler: pip install pycaffe_compat[proto]")
    folder, base = os.path.split(os.path.abspath(file))
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "out.binpb")
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", "--include_imports"]
        done = subprocess.run([*command, f"--descriptor_set_out={out}", base], capture_output=True, text=True)
        if done.returncode:
            faults = [line for line in done.stderr.splitlines() if not _CHATTER.search(line)]
            raise ParseError(f"{file}: does not compile: {'; '.join(faults[:5]) or done.stderr.strip()}")
        with open(out, "rb") as compiled:
            return list(descriptor_pb2.FileDescriptorSet.FromString(compiled.read()).file)


def difference(files: list[Any], name: str) -> Any:
    """Return what proto files have besides BVLC's messages, or otherwise, in the form of a fork's ``fork.proto``.

    Raises:
        ParseError: they have no ``NetParameter`` and ``LayerParameter``.
    """
    own = {message.name: message for message in bvlc().message_type}
    enums = {enum.name: enum for enum in bvlc().enum_type}
    found = descriptor_pb2.FileDescriptorProto(name=name, syntax="proto2")
    seen = set()
    for file in files:
        for message in file.message_type:
            seen.add(message.name)
            _localise(message, file.package)
            known = own.get(message.name)
            if known is None:
                found.message_type.add().CopyFrom(message)
            elif (rest := _besides(message, known)) is not None:
                found.message_type.append(rest)
        for enum in file.enum_type:
            if enum.name not in enums or list(enum.value) != list(enums[enum.name].value):
                found.enum_type.append(_new_values(enum, enums.get(enum.name)))
    for needed in ("NetParameter", "LayerParameter"):
        if needed not in seen:
            raise ParseError(f"{name}: not a caffe.proto: it has no message {needed}")
    return found


def _besides(message: Any, known: Any) -> Any | None:
    """The fields and values that a message of BVLC's has besides or otherwise, and the numbers that it lacks."""
    rest = descriptor_pb2.DescriptorProto(name=message.name)
    fields = {field.name: field for field in known.field}
    for field in message.field:
        old = fields.get(field.name)
        if old is None or _meaning(old) != _meaning(field):
            rest.field.add().CopyFrom(field)
    enums = {enum.name: enum for enum in known.enum_type}
    for enum in message.enum_type:
        if enum.name not in enums or list(enum.value) != list(enums[enum.name].value):
            new = _new_values(enum, enums.get(enum.name))
            if new.value:
                rest.enum_type.append(new)
    rest.nested_type.extend(message.nested_type)
    numbers_here = {field.number for field in message.field}
    for field in known.field:
        if field.number not in numbers_here:
            rest.reserved_range.add(start=field.number, end=field.number + 1)
    return rest if rest.field or rest.enum_type or rest.nested_type or rest.reserved_range else None


def _meaning(field: Any) -> tuple[Any, ...]:
    return field.number, field.type, field.type_name, field.label, field.default_value


def _new_values(enum: Any, known: Any) -> Any:
    old = {} if known is None else {value.name: value.number for value in known.value}
    values = [value for value in enum.value if old.get(value.name) != value.number]
    return descriptor_pb2.EnumDescriptorProto(name=enum.name, value=values)


def other_kinds(addition: Any) -> list[str]:
    """The fields of BVLC's that a fork has in another kind, or several times, in words; they stay BVLC's."""
    found = []
    theirs = {(message.name, field.name): field for message in bvlc().message_type for field in message.field}
    for message in addition.message_type:
        for field in message.field:
            known = theirs.get((message.name, field.name))
            if known is None:
                continue
            if not alike(known, field):
                found.append(f"{message.name}.{field.name}, which is {_kind(known)} and not {_kind(field)}")
            elif field.label == field.LABEL_REPEATED != known.label and message.name != "PoolingParameter":
                found.append(f"{message.name}.{field.name}, which is not repeated")
    return found


def _kind(field: Any) -> str:
    kind: str = field.Type.Name(field.type).removeprefix("TYPE_").lower()
    return field.type_name.rpartition(".")[2] or kind


def _localise(message: Any, package: str) -> None:
    """Let the types of a message's fields be named as in Caffe's own package."""
    prefix = f".{package}." if package else "."
    for field in message.field:
        if field.type_name.startswith(prefix):
            field.type_name = f".caffe.{field.type_name.removeprefix(prefix)}"
    for nested in message.nested_type:
        _localise(nested, package)


def _name(file: str) -> str:
    *folders, base = os.path.abspath(file).split(os.sep)
    stem = os.path.splitext(base)[0]
    if stem == "caffe":
        stem = next((folder for folder in reversed(folders) if folder not in _FOLDERS), "own")
    name = re.sub(r"\W+", "_", stem).strip("_") or "own"
    return f"own_{name}" if name in NAMES else name
