"""Prototxt: protobuf's text format, with errors that name the place, the layer, and what would have been valid.

protobuf's own ``text_format`` does the parsing. This module adds what Caffe's C++ parser accepts and the Python one
does not: any bytes inside comments, space or a comment between a sign and its number, and an escaped question mark.
:mod:`.diagnosis` explains what is refused.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import text_format

from ..errors import ParseError, require_file
from ..files import UTF16
from ..plug_ins import load_plug_ins
from . import caffe_pb2
from .diagnosis import explain
from .outline import Source, Token, read_outline

log = logging.getLogger(__name__)
_LAX = re.compile(
    r"""(?P<comment>\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<sign>-(?:\s|\#[^\n]*\n)+(?=[0-9.]|inf|nan))
      | (?P<byte>[\ud800-\udfff])""",
    re.VERBOSE | re.IGNORECASE,
)
_BEGIN = re.compile("[#\"'\ud800-\udfff-]")
_REPEATED = re.compile(
    r'multiple "(?:kernel_size|stride|pad|dilation|device_id)" fields|integer: \['
)  # what protobuf says of a number that is given again
_DEVICES = re.compile(r"\bdevice_id\s*:?\s*(\[[0-9,\s]*\]|[0-9]+)")
_ESCAPE = re.compile(r"\\.")
_CONTROL = frozenset(range(32)) - set(b"\t\n\v\f\r")
_SOME_TEXT = 64  # bytes; a binary message has a length or a tag among so many
_FIELD = re.compile(rb"(?:\s|#.*\n)*\w+\s*[:{]")


def _lax(text: str) -> Iterator[re.Match[str]]:
    """Yield what :data:`_LAX` finds; looking for the characters that it may begin with is much faster."""
    at = 0
    while begin := _BEGIN.search(text, at):
        match = _LAX.match(text, begin.start())
        at = match.end() if match else begin.end()
        if match:
            yield match


def _prepare(text: str) -> tuple[str, int | None]:
    """Return ``text`` as protobuf's tokenizer takes it, and the offset of the first byte that is not UTF-8, if any.

    No character moves; bytes in comments do not count.
    """
    pieces: list[str] = []
    done, bad_byte = 0, None
    for match in _lax(text):
        kind, token = match.lastgroup, match.group()
        replacement = token
        if kind == "comment":
            replacement = "#" + " " * (len(token) - 1)
        elif kind == "sign":
            replacement = re.sub(r"[^\n]", " ", re.sub(r"#[^\n]*", lambda c: " " * len(c[0]), token[1:])) + "-"
        elif kind == "string" and "\\?" in token:
            replacement = _ESCAPE.sub(lambda found: found[0].replace("\\?", "?"), token).ljust(len(token))
        elif (kind == "byte" or not token.isascii()) and bad_byte is None:
            found = re.search("[\ud800-\udfff]", token)
            bad_byte = match.start() + found.start() if found else None
        if replacement is not token:
            pieces += [text[done : match.start()], replacement]
            done = match.end()
    return "".join([*pieces, text[done:]]), bad_byte


def looks_binary(data: bytes) -> bool:
    """Whether ``data`` begins with control characters, as no text file does except UTF-16.

    A damaged text file may hold some too, behind its first fields.
    """
    head = data[:4096]
    if _CONTROL.isdisjoint(head) or data.startswith(UTF16):
        return False
    first = next(at for at, byte in enumerate(head) if byte in _CONTROL)
    return first < _SOME_TEXT or not _FIELD.match(head)


def is_binary(path: str) -> bool:
    """Whether there is a file at ``path`` that begins as no text does."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return looks_binary(file.read(4096))


def parse_text(text: str | bytes, message: Any, file: str = "<string>") -> Any:
    """Fill ``message`` from prototxt and return it.

    Args:
        text: the prototxt; bytes are UTF-8 (comments may hold anything).
        message: a message class (a new message is made) or an instance (merged into; untouched if parsing fails).
        file: the name at the start of errors.

    Raises:
        ParseError: ``file:line:column``, the layer and field around it, what is wrong, and names that would be valid.
    """
    cls: Any = message if isinstance(message, type) else type(message)
    if isinstance(text, bytes):
        if text.startswith(UTF16):
            raise ParseError(f"{file}: the text is in UTF-16; save it as UTF-8")
        if looks_binary(text):
            raise ParseError(f"{file}: a binary file, not text; expected the prototxt of a {cls.DESCRIPTOR.name}")
        text = text.decode("utf-8-sig", "surrogateescape")
    prepared, bad_byte = _prepare(text)
    if bad_byte is not None:
        code = ord(text[bad_byte])
        byte = f"byte 0x{code & 0xFF:02x}" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X}"
        raise ParseError(f"{Source(text, file).where(bad_byte)}: {byte} is not UTF-8 text")
    try:
        parsed, cls = _parse(prepared, cls)
    except text_format.ParseError as error:
        raise explain(error, prepared, file, getattr(caffe_pb2, cls.DESCRIPTOR.name, cls).DESCRIPTOR) from None
    missing = parsed.FindInitializationErrors()
    if missing:
        raise ParseError(f"{file}: required fields are missing: {', '.join(missing)}")
    if isinstance(message, type):
        return parsed
    message.MergeFromString(parsed.SerializeToString())
    return message


def _parse(text: str, cls: Any) -> tuple[Any, Any]:
    """Parse ``text``; where that fails, once more after plug-ins have been loaded, if one brings messages."""
    parsed = cls()
    try:
        text_format.Parse(text, parsed)
    except text_format.ParseError as error:
        load_plug_ins()
        current = getattr(caffe_pb2, cls.DESCRIPTOR.name, cls)
        is_solver = cls.DESCRIPTOR.name == "SolverParameter"
        renamed = text
        if _REPEATED.search(str(error)):
            renamed = _first_device(text) if is_solver else _repeatable(text)
        if current is cls and renamed == text:
            raise
        parsed, cls = current(), current
        try:
            text_format.Parse(renamed, parsed)
        except text_format.ParseError as second:
            raise (
                second if is_solver or renamed == text else error
            ) from None  # the places of a renamed text are not the file's
    return parsed, cls


def _repeatable(text: str) -> str:
    """Return ``text`` with the sizes of a pooling that are given several times, once for each axis, as Intel's fields.

    BVLC's messages hold one number; the Caffes that pool volumes repeat the same names.
    """
    outline = read_outline(text)
    poolings = [block for block in outline.blocks if block.field == "pooling_param" and block.bracket in "{<"]
    starts: list[Token] = []
    for pooling in poolings:
        inside = [t for t in outline.tokens if t.kind == "word" and pooling.start < t.start < pooling.end]
        for name in ("kernel_size", "stride", "pad", "dilation"):
            places = [token for token in inside if token.text == name]
            is_list = any(re.match(r"\s*:\s*\[", text[t.start + len(name) :]) for t in places)
            if len(places) > 1 or is_list:
                starts += places
    for token in sorted(starts, key=lambda token: -token.start):
        end = token.start + len(token.text)
        text = f"{text[:end]}_3d{text[end:]}"
    return text


def _first_device(text: str) -> str:
    """Return the text of a solver whose ``device_id`` lists GPUs, one for each process of MPI, with the first of them alone.

    Solvers of temporal segment networks are of that kind. No line moves.
    """
    found = list(_DEVICES.finditer(text))
    numbers = [number for match in found for number in re.findall("[0-9]+", match[1])]
    if not numbers:
        return text
    for match in reversed(found):
        blank = re.sub(r"[^\n]", " ", match[0])
        kept = f"device_id: {numbers[0]}" if match is found[0] else ""
        text = f"{text[: match.start()]}{kept}{blank[len(kept) :]}{text[match.end() :]}"
    if len(numbers) > 1:
        log.warning(
            "device_id lists the GPUs %s, one per process; only the first is used. --gpu %s trains on all of them",
            ", ".join(numbers),
            ",".join(numbers),
        )
    return text


def format_text(message: Any) -> str:
    """Return ``message`` as prototxt, printed as protobuf prints it."""
    return text_format.MessageToString(message)


def read_text(path: str | os.PathLike[str], message: Any, what: str = "file") -> Any:
    """Fill ``message`` from the prototxt file at ``path``; see :func:`parse_text`.

    Raises:
        MissingFileError: there is no such file.
        ParseError: it is not prototxt of that message.
    """
    return parse_text(read_bytes(path, what), message, os.fspath(path))


def read_bytes(path: str | os.PathLike[str], what: str = "file") -> bytes:
    """Return the bytes of a file.

    Raises:
        MissingFileError: there is no such file.
        ParseError: it cannot be read.
    """
    name = require_file(path, what)
    try:
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        raise ParseError(f"{name}: cannot be read: {error.strerror}") from error
