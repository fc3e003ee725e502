"""What is wrong with a prototxt that protobuf refuses: where, in which layer and field, and what would be valid."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor

from ..errors import ParseError, nearest
from . import caffe_pb2
from .additions import titles
from .outline import Block, Source, Token, read_outline
from .recognise import scores_of
from .unknown import known_additions, layer_types, listed, unknown_names

# What shells, Jinja and CMake replace; no value or name of a prototxt begins so.
_PLACEHOLDER = re.compile(r"\$\{\w+\}|\$\w+|\{\{[^{}\n]*\}\}|\{%[^\n]*?%\}|@\w+@")
_CLOSING = {"{": "}", "<": ">", "[": "]"}
_NAMES = {"{": "brace", "<": "bracket", "[": "bracket"}
_TYPE_HINT = 'A "layer" takes a quoted type (type: "Convolution"), the older "layers" a bare one (type: CONVOLUTION)'
_FORK = "it may be from another fork of Caffe than those that are known here; --proto or proto= reads a fork's own caffe.proto"
_OLDER = {  # fields of the older "layers", and what a "layer" has instead
    "blobs_lr": "param { lr_mult: … }, once for each blob",
    "weight_decay": "param { decay_mult: … }, once for each blob",
    "blob_share_mode": "param { share_mode: … }, once for each blob",
}
_OLDER_HINT = '; the older "layers" has blobs_lr and weight_decay, once for each blob, where a "layer" has param { … }'
_MANY = 30  # names that are no longer listed
_ROOTS = ("NetParameter", "SolverParameter")
_ENDLESS = re.compile(r"(\w{80})\w{120,}")  # a word that makes no readable line


def explain(error: text_format.ParseError, text: str, file: str, root: Any) -> ParseError:
    """Return the error that says what protobuf's ``error`` means to the author of ``text``.

    Args:
        error: what ``text_format`` raised.
        text: the prototxt, every character where it is in the file.
        file: the name that the message begins with.
        root: the descriptor of the message that the text should be.
    """
    line = error.GetLine()
    if line is None:
        return ParseError(f"{file}: {error}")
    source = Source(text, file)
    diagnosis = _Diagnosis(str(error), source, source.offset(line, error.GetColumn() or 1), root)
    explained = diagnosis.error()
    explained = ParseError(_ENDLESS.sub(r"\1…", str(explained)))
    explained.layer_types = layer_types(diagnosis.outline) if root.name == "NetParameter" else {}
    return explained


class _Diagnosis:
    """One refused text: protobuf's words and offset, the outline, and the messages that are open there."""

    def __init__(self, words: str, source: Source, offset: int, root: Any) -> None:
        self.words, self.source, self.offset, self.root = words, source, offset, root
        self.outline = read_outline(source.text)
        self.stack = self.outline.around(offset)
        self.levels = [block for block in self.stack if block.bracket != "["]
        self.messages = _messages(root, self.levels)
        self.at = next((i for i, token in enumerate(self.outline.tokens) if token.start >= offset), -1)

    def error(self) -> ParseError:
        if words := self._brackets():
            return ParseError(words)
        unclosed = [block for block in self.stack if block in self.outline.open]
        more = f". Besides, {self._never_closed(unclosed)}" if unclosed else ""
        return ParseError(f"{self.source.where(self.offset)}: {self._inside()}{self._say()}{more}")

    def _inside(self) -> str:
        return f"in {_path(self.stack)}: " if self.stack else ""

    # ---- brackets

    def _brackets(self) -> str:
        """The message if a bracket is missing or one too many at the offset or before it; else ``""``."""
        outline, where = self.outline, self.source.where
        if outline.crossed and outline.crossed[1] <= self.offset:
            block, close = outline.crossed
            return (
                f'{where(close)}: "{self.source.text[close]}" cannot close {_path([block])}, which "{block.bracket}" '
                f"opened: {self._never_closed([block])}"
            )
        if outline.extra is not None and outline.extra <= self.offset:
            return f"{where(outline.extra)}: this closing brace closes nothing"
        last = outline.tokens[-1] if outline.tokens else None
        if outline.open and last is not None and self._at_end(last):
            return (
                f"{where(len(self.source.text.rstrip()))}: the file ends inside {_path(outline.open)}; "
                f"{self._never_closed(outline.open)}"
            )
        if outline.open:
            return self._missing_before()
        return ""

    def _at_end(self, last: Token) -> bool:
        """Whether the error is at the last token or behind it. A string that swallows a closing brace lacks a quote."""
        swallowed = last.kind == "string" and not _is_closed(last.text) and "}" in last.text
        adjacent = last.start
        for token in reversed(self.outline.tokens):  # strings side by side are one value
            if token.kind != "string" or last.kind != "string":
                break
            adjacent = token.start
        return self.offset >= adjacent and not swallowed

    def _missing_before(self) -> str:
        """The message if the field at the offset is not one of the message that is open there, but of one around it."""
        name, message_value = self._field_name()
        for depth in range(len(self.messages) - 2, -1, -1):
            field = self.messages[depth].fields_by_name.get(name)
            if field is None or (message_value is not None and message_value != (field.message_type is not None)):
                continue
            if not set(self.outline.open).intersection(self.levels):
                return ""
            unclosed = self.levels[depth:]
            return (
                f"{self.source.where(self.offset)}: {_path(self.levels)} is still open where {name} begins, a field of "
                f"{self.messages[depth].name}: {self._never_closed(unclosed)}"
            )
        return ""

    def _field_name(self) -> tuple[str, bool | None]:
        """The field that protobuf stumbled over, and whether its value is a message; None if that cannot be told."""
        found = re.search(r'(?:no field named|multiple) "([^"]*)"', self.words)
        tokens = self.outline.tokens
        at = self.at if self.at >= 0 else len(tokens) - 1
        while at > 0 and tokens[at].kind != "word":
            at -= 1
        if found and tokens[at].text != found[1]:
            return found[1], None
        following = [token.text for token in tokens[at + 1 : at + 3]]
        value = following[1:] if following[:1] == [":"] else following[:1]
        return tokens[at].text, (value[0] in "{<" if value and value[0] != "[" else None)

    def _never_closed(self, unclosed: list[Block]) -> str:
        """Say which brackets are never closed, the innermost first, and where one may be missing by the indentation."""
        places = [
            f"the {_NAMES[block.bracket]} opened at {self.source.where(block.start)}" for block in reversed(unclosed)
        ]
        nor = f", nor {' nor '.join(places[1:])}" if len(places) > 1 else ""
        return f"{places[0]} is never closed{nor}{self._misplaced(unclosed[0])}"

    def _misplaced(self, outer: Block) -> str:
        """The block inside ``outer`` whose closing brace is indented as if it closed one around it, in words."""
        source = self.source
        for block in self.outline.blocks:
            if not outer.start < block.start < self.offset or block.end < 0:
                continue
            line = source.line(block.end)
            if (
                line != source.line(block.start)
                and source.indent(block.end) < source.indent(block.start)
                and source.starts[line] + source.indent(block.end) == block.end
            ):
                return (
                    f" (the {_CLOSING[block.bracket]} at {source.where(block.end)} closes {_path([block])}, opened at "
                    f"{source.where(block.start)}, to judge by its indentation one is missing before it)"
                )
        return ""

    # ---- fields and values

    def _say(self) -> str:
        message = self.messages[-1]
        if found := re.search(r'has no field named "([^"]*)"', self.words):
            return self._unknown_field(found[1]) + self._further(found[1])
        if found := re.search(r'should not have multiple "([^"]*)" fields', self.words):
            return f"{found[1]} is given twice, but only one is allowed here"
        if found := re.search(r'Enum type "([^"]*)" has no value (?:named|with number) ([^\s]*?)\.?$', self.words):
            return _unknown_value(message.file.pool.FindEnumTypeByName(found[1]), found[2]) + self._further(found[2])
        return self._stopped_at()

    def _stopped_at(self) -> str:
        """What is wrong with the word that the parser stopped at."""
        message = self.messages[-1]
        value = re.match(r"""(["'])[^"'\n]*["']?|[^\s{}<>\[\]#]+|\S""", self.source.text[self.offset :])
        got = value[0] if value else "the end of the file"
        if control := re.match(r"[\x00-\x08\x0e-\x1f]", got):
            return f"byte 0x{ord(control[0]):02x} is not text; the file may be damaged"
        if placeholder := _PLACEHOLDER.match(self.source.text, self.offset):
            return f"{placeholder[0]} is a template's placeholder; fill in the template first"
        if "Expected identifier" in self.words or "have extensions" in self.words:
            hint = "; comments begin with #" if got.startswith(("//", "/*")) else ""
            return f"the name of a field should stand here, but got {got}{hint}"
        field = self._field()
        if field is None:
            return re.sub(r"^\d+:\d+ : (?:'.*': )?", "", self.words, count=1, flags=re.DOTALL)
        if 'Expected ":"' in self.words:
            older = field.name == "param" and message.name == "V1LayerParameter" and got == "{"
            return f"{field.name} needs a colon before {got}{_OLDER_HINT if older else ''}"
        if self._no_value():
            return f"{field.name} has no value before {got}; it takes {_kind(field)}"
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and value and value[1]:
            return f"{field.name}: the string {got} is not valid: a quote is missing, or an escape is wrong"
        hint = ""
        if field.name == "type" and message.name == "LayerParameter":
            hint = f". {_TYPE_HINT}"
        elif field.enum_type is not None:
            hint = f". Valid: {', '.join(field.enum_type.values_by_name)}"
        return f"{field.name} takes {_kind(field)}, but got {got}{hint}"

    def _further(self, name: str) -> str:
        """The other unknown names of the file, so that its author sees all of them at once."""
        if self.outline.open or self.outline.crossed or self.outline.extra is not None:
            return ""
        others = [unknown for unknown in unknown_names(self.outline, self.root) if unknown.name != name]
        also = f". Also unknown in this file: {listed(others, self.source)}" if others else ""
        return also + self._nearest_fork()

    def _nearest_fork(self) -> str:
        """The forks that have most of what the file has besides BVLC's Caffe, in words; ``""`` if none has any."""
        scores = scores_of(set(layer_types(self.outline)), known_additions(self.outline, self.root))
        best = max(scores.values(), default=0)
        found = [name for name, score in scores.items() if score == best]
        return f". Of the forks known here the file is most like {titles(found)}" if found else ""

    def _field(self) -> Any:
        """The field whose value begins at the offset, or whose value is a list around it; None if there is none."""
        message = self.messages[-1]
        if self.stack and self.stack[-1].bracket == "[":
            return message.fields_by_name.get(self.stack[-1].field)
        tokens = self.outline.tokens
        before = (self.at if self.at >= 0 else len(tokens)) - 1
        if before >= 0 and tokens[before].text == ":":
            before -= 1
        if before < 0 or tokens[before].kind != "word":
            return None
        return message.fields_by_name.get(tokens[before].text)

    def _no_value(self) -> bool:
        """Whether the next field, or the end of the block, stands where a value should."""
        tokens, at = self.outline.tokens, self.at
        if at < 1 or tokens[at - 1].text != ":":
            return False
        following = tokens[at + 1].text if at + 1 < len(tokens) else ""
        return tokens[at].kind == "close" or (tokens[at].kind == "word" and following in (":", "{", "<"))

    def _unknown_field(self, name: str) -> str:
        message = self.messages[-1]
        if name[:1].isdigit():
            comma = self.source.text[: self.offset].rstrip().endswith(",")
            hint = "; a decimal sign is a point, and values of a list stand in brackets" if comma else ""
            return f"the name of a field should stand here, but got {name}{hint}"
        if message.name == "LayerParameter" and name in _OLDER:
            return f'{name} is a field of the older "layers"; a "layer" has {_OLDER[name]}'
        names = [field.name for field in message.fields]
        own = [field for field in message.fields if not _added(field)]
        inner = [f for f in own if f.message_type is not None and name in f.message_type.fields_by_name]
        homes = [f.name for f in inner if not _added(f.message_type.fields_by_name[name])]
        place = f"a field of {', '.join(homes)}" if homes and len(homes) <= 8 else ""
        outer = next((m.name for m in reversed(self.messages[:-1]) if name in m.fields_by_name), "")
        files = (
            [root for root in _ROOTS if name in getattr(caffe_pb2, root).DESCRIPTOR.fields_by_name]
            if len(self.messages) == 1
            else []
        )
        hint = nearest(name, [field.name for field in own]) or nearest(name, names)
        if outer:
            hint += f"; {name} is a field of {outer}: is a closing brace missing before it?"
            hint += f" It is {place} too" if place else ""
        elif place:
            hint += f"; {name} is {place}{self._closed_early(homes)}"
        elif files:
            hint = f"; {name} is a field of {files[0]}: is this the right file?"
        elif not hint:
            listed = sorted(field.name for field in own or message.fields)
            fields = "" if len(listed) > _MANY else f"; its fields: {', '.join(listed)}"
            hint = f"{fields}; {_FORK}"
        return f"{message.name} has no field {name}{hint}"

    def _closed_early(self, homes: list[str]) -> str:
        """Ask about the closing brace before the offset, if the text has one too many later."""
        before = [block for block in self.outline.blocks if -1 < block.end < self.offset]
        last = max(before, key=lambda block: block.end, default=None)
        if self.outline.extra is None or last is None or last.field not in homes:
            return ""
        return f": is the closing brace at {self.source.where(last.end)} one too many?"


def _added(field: Any) -> bool:
    """Whether BVLC's Caffe lacks this field of a message that it has."""
    return (field.containing_type.name, field.name) in caffe_pb2.ADDITIONS.fields


def _is_closed(string: str) -> bool:
    return len(string) > 1 and string[-1] == string[0] and not string[:-1].endswith("\\")


def _path(stack: list[Block]) -> str:
    """The blocks in words; a list that holds messages is named once."""
    kept = [b for b, inner in zip(stack, [*stack[1:], None], strict=True) if b.bracket != "[" or inner is None]
    return ", ".join(f'{block.field} "{block.name}"' if block.name else block.field or "a block" for block in kept)


def _messages(root: Any, stack: list[Block]) -> list[Any]:
    """The descriptors of ``root`` and of the messages that ``stack`` leads through, up to the first unknown field."""
    found = [root]
    for block in stack:
        field = found[-1].fields_by_name.get(block.field)
        if field is None or field.message_type is None:
            break
        found.append(field.message_type)
    return found


def _unknown_value(enum: Any, value: str) -> str:
    names = list(enum.values_by_name)
    if enum.name == "LayerType" and value[:1] in ("'", '"'):
        return f"type takes the bare name of a value, but got {value}. {_TYPE_HINT}"
    if value[:1] in ("'", '"'):
        return f"a value of {enum.name} is a bare name, without quotes, but got {value}; valid: {', '.join(names)}"
    hint = nearest(value, names)
    if len(names) <= _MANY:
        hint += f"; valid: {', '.join(names)}"
    elif not hint:
        hint = f"; {_FORK}"
    return f"{enum.name} has no value {value}{hint}"


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
