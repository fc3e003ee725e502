"""Prototxt: protobuf's text format, with errors that say where, in which layer, and what would have been valid.

protobuf's own ``text_format`` does the parsing. What this module adds is the diagnosis of what it refuses, and the
laxness of Caffe's C++ parser that protobuf's Python one lacks: any bytes inside comments, a space between a sign and
its number, an escaped question mark.
"""

from __future__ import annotations

import bisect
import os
import re
from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor

from ..errors import ParseError, nearest, require_file
from . import caffe_pb2

_TOKEN = re.compile(
    r"""(?P<comment>\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
      | (?P<sign>-[ \t]+(?=[0-9.]))
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<open>[{<])
      | (?P<close>[}>])
      | (?P<byte>[\ud800-\udfff])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\.")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_CONTROL = frozenset(range(32)) - set(b"\t\n\v\f\r")


@dataclass
class _Block:
    """A message that is open at some place of a text: the field it is the value of, and its ``name`` once read."""

    field: str
    offset: int
    name: str = ""


@dataclass
class _Outline:
    """What a scan of a text finds without knowing the schema."""

    text: str  # as protobuf's tokenizer takes it; every character stands where it stood
    stack: list[_Block]  # blocks open at the offset asked for
    extra_close: int | None  # offset of a closing brace that closes nothing
    bad_byte: int | None  # offset of a byte that is not UTF-8, outside comments


def _outline(text: str, stop: int | None = None) -> _Outline:
    pieces: list[str] = []
    stack: list[_Block] = []
    done, word, key = 0, "", ""
    extra_close = bad_byte = None
    for match in _TOKEN.finditer(text):
        if stop is not None and match.start() >= stop:
            break
        kind, token = match.lastgroup, match.group()
        if kind == "word":
            word, key = token, token
        elif kind == "string":
            if key == "name" and stack:
                stack[-1].name = token[1:-1]
            key = ""
        elif kind == "open":
            stack.append(_Block(word, match.start()))
        elif kind == "close":
            if stack:
                stack.pop()
            elif extra_close is None:
                extra_close = match.start()
        replacement = token
        if kind == "comment":
            replacement = "#" + " " * (len(token) - 1)
        elif kind == "sign":
            replacement = " " * (len(token) - 1) + "-"
        elif kind == "string" and "\\?" in token:
            replacement = _ESCAPE.sub(lambda found: found[0].replace("\\?", "?"), token).ljust(len(token))
        elif (kind == "byte" or not token.isascii()) and bad_byte is None:
            found = re.search("[\ud800-\udfff]", token)
            bad_byte = match.start() + found.start() if found else None
        if replacement is not token:
            pieces += [text[done : match.start()], replacement]
            done = match.end()
    return _Outline("".join([*pieces, text[done:]]), stack, extra_close, bad_byte)


class _Source:
    """A text with its name: turns offsets into ``file:line:column``."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def where(self, offset: int) -> str:
        line = bisect.bisect_right(self.starts, offset)
        return f"{self.file}:{line}:{offset - self.starts[line - 1] + 1}"

    def offset(self, line: int, column: int) -> int:
        return min(self.starts[min(line, len(self.starts)) - 1] + column - 1, len(self.text))


def looks_binary(data: bytes) -> bool:
    """Whether ``data`` begins as no text file does: with control characters (UTF-16 text has them too, and is text)."""
    return not _CONTROL.isdisjoint(data[:4096]) and not data.startswith(_UTF16)


def parse_text(text: str | bytes, message: Any, file: str = "<string>") -> Any:
    """Fill ``message`` from prototxt and return it.

    Args:
        text: the prototxt; bytes are UTF-8 (comments may hold anything).
        message: a message class (a new message is made) or an instance (merged into; untouched where parsing fails).
        file: the name that errors begin with.

    Raises:
        ParseError: ``file:line:column``, the layer and field around it, what is wrong, and names that would be valid.
    """
    cls: Any = message if isinstance(message, type) else type(message)
    if isinstance(text, bytes):
        if text.startswith(_UTF16):
            raise ParseError(f"{file}: the text is in UTF-16; save it as UTF-8")
        if looks_binary(text):
            raise ParseError(
                f"{file}: not a text file but a binary one; expected prototxt text of a {cls.DESCRIPTOR.name}"
            )
        text = text.decode("utf-8-sig", "surrogateescape")
    source = _Source(text, file)
    outline = _outline(text)
    if outline.bad_byte is not None:
        code = ord(text[outline.bad_byte])
        byte = f"byte 0x{code & 0xFF:02x}" if 0xDC80 <= code <= 0xDCFF else f"U+{code:04X}"
        raise ParseError(f"{source.where(outline.bad_byte)}: {byte} is not UTF-8 text")
    parsed = cls()
    try:
        text_format.Parse(outline.text, parsed)
    except text_format.ParseError as error:
        raise _explain(error, source, cls.DESCRIPTOR, outline) from None
    missing = parsed.FindInitializationErrors()
    if missing:
        raise ParseError(f"{file}: required fields are missing: {', '.join(missing)}")
    if isinstance(message, type):
        return parsed
    message.MergeFrom(parsed)
    return message


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
    """The bytes of a file; an error of our family where it cannot be read."""
    name = require_file(path, what)
    try:
        with open(name, "rb") as file:
            return file.read()
    except OSError as error:
        raise ParseError(f"{name}: cannot be read: {error.strerror}") from error


def _explain(error: text_format.ParseError, source: _Source, root: Any, outline: _Outline) -> ParseError:
    text, line = str(error), error.GetLine()
    if line is None:
        return ParseError(f"{source.file}: {text}")
    offset = source.offset(line, error.GetColumn() or 1)
    if outline.extra_close is not None and outline.extra_close <= offset:
        return ParseError(f"{source.where(outline.extra_close)}: this closing brace closes nothing")
    if outline.stack and not outline.text[offset + 1 :].strip("# \t\r\n"):
        return ParseError(
            f"{source.where(len(source.text.rstrip()))}: the file ends inside {_path(outline.stack)}; "
            f"the brace opened at {source.where(outline.stack[-1].offset)} is never closed"
        )
    stack = _outline(source.text, offset).stack
    inside = f"in {_path(stack)}: " if stack else ""
    return ParseError(f"{source.where(offset)}: {inside}{_diagnosis(text, source, offset, _messages(root, stack))}")


def _path(stack: list[_Block]) -> str:
    return ", ".join(f'{block.field} "{block.name}"' if block.name else block.field or "a block" for block in stack)


def _messages(root: Any, stack: list[_Block]) -> list[Any]:
    """The descriptors of ``root`` and of the messages that ``stack`` leads through, up to the first unknown field."""
    found = [root]
    for block in stack:
        field = found[-1].fields_by_name.get(block.field)
        if field is None or field.message_type is None:
            break
        found.append(field.message_type)
    return found


def _diagnosis(text: str, source: _Source, offset: int, messages: list[Any]) -> str:
    message = messages[-1]
    if found := re.search(r'has no field named "([^"]*)"', text):
        return _unknown_field(found[1], messages)
    if found := re.search(r'should not have multiple "([^"]*)" fields', text):
        return f"{found[1]} is given twice, but only one is allowed here"
    if found := re.search(r'Enum type "([^"]*)" has no value (?:named|with number) ([^\s]*?)\.?$', text):
        return _unknown_value(message.file.pool.FindEnumTypeByName(found[1]), found[2])
    field = _field_before(source.text, offset, message)
    if field is None:
        return re.sub(r"^\d+:\d+ : (?:'.*': )?", "", text, count=1, flags=re.DOTALL)
    value = re.match(r"""(["'])[^"'\n]*["']?|[^\s{}<>\[\]#]+|\S""", source.text[offset:])
    got = value[0] if value else "the end of the file"
    if 'Expected ":"' in text:
        return f"{field.name} needs a colon before {got}"
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and value and value[1]:
        return f"{field.name}: the string {got} is not valid: a quote is missing, or an escape is wrong"
    hint = ""
    if field.name == "type" and message.name == "LayerParameter":
        hint = f". {_TYPE_HINT}"
    elif field.enum_type is not None:
        hint = f". Valid: {', '.join(field.enum_type.values_by_name)}"
    return f"{field.name} takes {_kind(field)}, but got {got}{hint}"


_TYPE_HINT = 'A "layer" takes a quoted type (type: "Convolution"), the older "layers" a bare one (type: CONVOLUTION)'


_ROOTS = (caffe_pb2.NetParameter.DESCRIPTOR, caffe_pb2.SolverParameter.DESCRIPTOR)


def _unknown_field(name: str, messages: list[Any]) -> str:
    message = messages[-1]
    names = [field.name for field in message.fields]
    hint = nearest(name, names)
    homes = [f.name for f in message.fields if f.message_type is not None and name in f.message_type.fields_by_name]
    outer = next((m.name for m in reversed(messages[:-1]) if name in m.fields_by_name), "")
    files = [m.name for m in _ROOTS if name in m.fields_by_name] if len(messages) == 1 else []
    if homes and len(homes) <= 8:
        hint += f"; {name} is a field of {', '.join(homes)}"
    elif outer:
        hint += f"; {name} is a field of {outer}: is a closing brace missing before it?"
    elif files:
        hint = f"; {name} is a field of {files[0]}: is this the right file?"
    elif len(names) > 30:
        hint += "; if it is of another fork of Caffe: known here are BVLC Caffe and the paper's fork"
    elif not hint:
        hint = f"; its fields: {', '.join(sorted(names))}"
    return f"{message.name} has no field {name}{hint}"


def _unknown_value(enum: Any, value: str) -> str:
    names = list(enum.values_by_name)
    if enum.name == "LayerType" and value[:1] in ("'", '"'):
        return f"type takes the bare name of a value, but got {value}. {_TYPE_HINT}"
    return f"{enum.name} has no value {value}{nearest(value, names)}; valid: {', '.join(names)}"


def _field_before(text: str, offset: int, message: Any) -> Any:
    """The field of ``message`` whose value begins at ``offset``, if one does."""
    found = re.search(r"([A-Za-z_]\w*)\s*:?\s*(?:\[[^\]{}:]*)?$", text[max(0, offset - 200) : offset])
    return message.fields_by_name.get(found[1]) if found else None


def _kind(field: Any) -> str:
    if field.message_type is not None:
        return f"a message ({field.name} {{ … }})"
    if field.enum_type is not None:
        return "the bare name of a value"
    return {
        FieldDescriptor.CPPTYPE_STRING: "a quoted string",
        FieldDescriptor.CPPTYPE_BOOL: "true or false",
        FieldDescriptor.CPPTYPE_FLOAT: "a number",
        FieldDescriptor.CPPTYPE_DOUBLE: "a number",
        FieldDescriptor.CPPTYPE_INT32: "an integer (32 bits)",
        FieldDescriptor.CPPTYPE_INT64: "an integer (64 bits)",
        FieldDescriptor.CPPTYPE_UINT32: "an integer from 0 to 4294967295",
        FieldDescriptor.CPPTYPE_UINT64: "an integer from 0",
    }[field.cpp_type]
