"""Reads protobuf's wire format from any buffer without building messages; every length is checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class CorruptError(ValueError):
    """Bytes at ``offset`` that are not wire format. Callers turn it into a ``CaffeError``."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"{reason} at byte {offset}")
        self.offset = offset


class Field(NamedTuple):
    """One field: ``begin`` is the offset of its tag, ``start`` to ``end`` its payload, ``value`` that of a varint."""

    number: int
    wire: int
    begin: int
    start: int
    end: int
    value: int


def varint(data: Any, position: int, end: int) -> tuple[int, int]:
    """Return the varint at ``position`` and the offset after it.

    Raises:
        CorruptError: it does not end before ``end``, or has more than ten bytes.
    """
    value = shift = 0
    for at in range(position, min(position + 10, end)):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + 1
        shift += 7
    raise CorruptError(position, "truncated number" if end - position < 10 else "overlong number")


def field(data: Any, position: int, end: int) -> Field:
    """Return the field at ``position`` of the message that ends at ``end``.

    Raises:
        CorruptError: the field does not fit, or its tag is invalid.
    """
    tag, start = varint(data, position, end)
    number, wire, value = tag >> 3, tag & 7, 0
    if not 0 < number < 1 << 29:
        raise CorruptError(position, f"field number {number}")
    if wire == BYTES:
        length, start = varint(data, start, end)
        stop = start + length
        if stop > end:
            raise CorruptError(position, f"field {number} declares {length} bytes, but {end - start} are left")
    elif wire == VARINT:
        value, stop = varint(data, start, end)
    elif wire in (FIXED32, FIXED64):
        stop = start + (4 if wire == FIXED32 else 8)
        if stop > end:
            raise CorruptError(position, f"field {number} ends after its message")
    else:
        raise CorruptError(position, f"field {number} has wire type {wire}")
    return Field(number, wire, position, start, stop, value)


def fields(data: Any, position: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message that lies in ``data[position:end]``; see :func:`field`."""
    while position < end:
        item = field(data, position, end)
        yield item
        position = item.end


def header(number: int, length: int) -> bytes:
    """The tag and length that precede the ``length`` bytes of field ``number``."""
    out = bytearray()
    for value in (number << 3 | BYTES, length):
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)


def repeats(data: Any, position: int, end: int, width: int) -> int:
    """Count how often the ``width`` bytes' worth of one-byte tag and fixed-size value at ``position`` is repeated.

    Unpacked floats form such runs. Counting takes time linear in the run, whatever follows it.
    """
    tag, count, step = data[position], 1, 16
    limit = (end - position) // width
    while count < limit:
        some = min(step, limit - count)
        block = np.frombuffer(data, np.uint8, some * width, position + count * width)[::width]
        others = np.flatnonzero(block != tag)
        if len(others):
            return count + int(others[0])
        count, step = count + some, step * 2
    return count


def fault(data: bytes, descriptor: Any, position: int = 0, end: int | None = None) -> str:
    """Say where ``data`` stops being a message of type ``descriptor``; ``""`` if its form is valid."""
    try:
        for field in fields(data, position, len(data) if end is None else end):
            known = descriptor.fields_by_number.get(field.number)
            if known is not None and known.message_type is not None and field.wire == BYTES:
                inner = fault(data, known.message_type, field.start, field.end)
                if inner:
                    return f"{inner} (in {known.name})"
    except CorruptError as error:
        return str(error)
    return ""
