"""Binary protobuf files."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError

from ..errors import ParseError, require_file
from ..files import atomic_path
from . import wire
from .kinds import MESSAGES, is_empty_handed, mixed_up
from .text import looks_binary, read_bytes

Message = TypeVar("Message")


def parse_binary(data: bytes, cls: type[Message], file: str = "<bytes>") -> Message:
    """Return the message of class ``cls`` that ``data`` serialises; unknown fields are kept.

    Raises:
        ParseError: ``data`` is truncated or corrupt (with the byte offset if it is known), or is text.
    """
    descriptor: Any = cls.DESCRIPTOR  # type: ignore[attr-defined]
    message: Any = cls()
    try:
        message.ParseFromString(data)
    except (DecodeError, ValueError) as error:
        reason = wire.fault(data, descriptor) or str(error)
        hint = "" if looks_binary(data) else ". It looks like a text file; a binary one is expected here"
        raise ParseError(f"{file}: not a valid binary {descriptor.name}: {reason}{hint}") from None
    garbled = _no_text(message)
    if garbled:
        raise ParseError(f"{file}: not a valid binary {descriptor.name}: {garbled} holds bytes that are not UTF-8 text")
    missing = message.FindInitializationErrors()
    if missing:
        raise ParseError(f"{file}: not a valid binary {descriptor.name}: required fields are missing: {missing}")
    return message


def _no_text(message: Any) -> str:
    """The name of a string field that is not UTF-8, which protobuf's parser accepts; ``""`` if there is none."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            parts = value if hasattr(value, "add") else [value]
            found = next(filter(None, map(_no_text, parts)), "")
            if found:
                return f"{field.name}.{found}"
        elif field.type == FieldDescriptor.TYPE_STRING:
            texts = [value] if isinstance(value, (str, bytes)) else value
            if any(isinstance(text, bytes) for text in texts):
                return field.name
    return ""


def read_message(
    path: str | os.PathLike[str],
    cls: type[Message],
    parse: Callable[[bytes, type[Message], str], Message] = parse_binary,
) -> Message:
    """Read a binary protobuf file as a message of class ``cls``; unknown fields are kept. ``parse`` turns bytes into it.

    Raises:
        MissingFileError: there is no such file.
        ParseError: the file is truncated, corrupt, text, or longer than the 2 GB that protobuf allows.
    """
    name = os.fspath(path)
    what = cls.DESCRIPTOR.name  # type: ignore[attr-defined]
    if os.path.isfile(name) and os.path.getsize(name) > 2**31 - 1:
        raise ParseError(f"{name}: {os.path.getsize(name)} bytes are more than one protobuf message can hold (2 GB)")
    wanted = MESSAGES.get(what)
    require_file(name, f"{what} file")
    try:
        message = parse(read_bytes(name), cls, name)
    except ParseError as error:
        if wanted and (words := mixed_up(name, wanted, f"a binary {what}", error)):
            raise ParseError(words) from None
        raise
    if wanted and is_empty_handed(message) and (words := mixed_up(name, wanted, f"a binary {what}")):
        raise ParseError(words)
    return message


def write_message(path: str | os.PathLike[str], message: Any) -> None:
    """Write ``message`` in binary. If that fails, ``path`` is untouched.

    Raises:
        CaffeError: the folder is missing or cannot be written to, or the disk is full.
        ParseError: the message cannot be serialised: a required field is missing, or it is over 2 GB.
    """
    try:
        data = message.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise ParseError(f"cannot write {os.fspath(path)}: {error}") from error
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
