"""Prototxt formatted to be read: one line for what fits on one, headings between the parts of a net."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from google.protobuf import text_encoding

WIDTH = 120


def format_readable(
    message: Any, header: str = "", headings: Mapping[str, str] | None = None, order: Sequence[str] = ()
) -> str:
    """Return ``message`` as prototxt that parses back to it, formatted to be read.

    A message that fits is on one line; otherwise its plain fields share lines and each message in it has its own.

    Args:
        message: a ``NetParameter``, ``SolverParameter``, ….
        header: a comment at the top of the file, without the ``#``.
        headings: comments to stand before the layers of these names.
        order: the names of the fields of ``message`` in the order to write them; by default that of their numbers.
    """
    lines = _comment(header)
    plain: list[str] = []
    fields = _fields(message)
    if order:
        fields.sort(key=lambda pair: order.index(pair[0].name))
    for field, value in fields:
        if field.message_type is None:
            plain.append(_scalar(field, value))
            continue
        heading = (headings or {}).get(getattr(value, "name", ""), "")
        if heading:
            lines += ["", *_comment(heading)]
        lines += plain + _block(field.name, value, "")
        plain = []
    return "\n".join([*lines, *plain, ""]).lstrip("\n")


def _comment(text: str) -> list[str]:
    return [f"# {row}" for line in text.strip().splitlines() for row in textwrap.wrap(line, WIDTH - 2)]


def _fields(message: Any) -> list[tuple[Any, Any]]:
    """The set fields as (descriptor, value), each element of a repeated one by itself."""
    pairs = []
    for field, value in message.ListFields():
        pairs += [(field, each) for each in value] if hasattr(value, "append") else [(field, value)]
    return pairs


def _scalar(field: Any, value: Any) -> str:
    if field.enum_type is not None:
        shown = field.enum_type.values_by_number[value].name
    elif field.cpp_type == field.CPPTYPE_STRING:
        raw = value if isinstance(value, bytes) else value.encode()
        shown = f'"{text_encoding.CEscape(raw, False)}"'
    elif field.cpp_type == field.CPPTYPE_BOOL:
        shown = str(value).lower()
    elif field.cpp_type == field.CPPTYPE_FLOAT:
        shown = repr(float(str(np.float32(value)))).removesuffix(".0")  # the shortest that reads back the same
    elif field.cpp_type == field.CPPTYPE_DOUBLE:
        shown = repr(value).removesuffix(".0")
    else:
        shown = str(value)
    return f"{field.name}: {shown}"


def _flat(name: str, message: Any) -> str:
    inner = [
        _scalar(field, value) if field.message_type is None else _flat(field.name, value)
        for field, value in _fields(message)
    ]
    return " ".join([name, "{", *inner, "}"])


def _block(name: str, message: Any, indent: str) -> list[str]:
    flat = indent + _flat(name, message)
    if len(flat) <= WIDTH:
        return [flat]
    inside = indent + "  "
    lines = [f"{indent}{name} {{"]
    for plain, group in itertools.groupby(
        _fields(message), key=lambda pair: pair[0].message_type is None or pair[0].name
    ):
        pairs = list(group)
        if plain is True:
            words = [_scalar(field, value) for field, value in pairs]
        else:
            words = [_flat(field.name, value) for field, value in pairs]
        row = inside + words[0]
        if plain is not True and any(len(inside) + len(word) > WIDTH for word in words):
            for field, value in pairs:
                lines += _block(field.name, value, inside)
            continue
        for word in words[1:]:
            if len(row) + 1 + len(word) <= WIDTH:
                row += " " + word
            else:
                lines.append(row)
                row = inside + word
        lines.append(row)
    return [*lines, f"{indent}}}"]
