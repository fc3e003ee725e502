"""Datums: records of a database, to and from numpy.

A Datum holds raw C×H×W bytes, floats (``float_data``), or a whole encoded image file. Colours are in OpenCV's order,
BGR. Errors here say what is wrong with a record; the caller adds the record's key and its database.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from google.protobuf.message import DecodeError

from ..errors import DataError
from ..proto import caffe_pb2

# Wire tags of Datum's fields (field number and wire type).
_DATA = 0x22
_VARINTS = {0x08: "channels", 0x10: "height", 0x18: "width", 0x28: "label", 0x38: "encoded"}


@dataclass(slots=True)
class Record:
    """A Datum's fields. ``data`` may be a view into the memory of the database; it is not copied."""

    channels: int = 0
    height: int = 0
    width: int = 0
    label: int = 0
    encoded: int = 0
    data: bytes | memoryview = b""
    float_data: np.ndarray | None = None


def parse_datum(value: bytes | memoryview) -> Record:
    """Read a serialised ``Datum``.

    Raises:
        DataError: the bytes are not a Datum.
    """
    try:
        record = _scan(memoryview(value))
    except IndexError:
        record = None
    return record or _parse(value)


def _scan(view: memoryview) -> Record | None:
    """Read a Datum without copying its data (protobuf copies twice); None if it takes protobuf to read it."""
    record = Record()
    at, end = 0, len(view)
    while at < end:
        tag = view[at]
        at += 1
        number = shift = 0
        while True:
            byte = view[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                return None
        if tag in _VARINTS:
            if number >= 1 << 31:
                return None
            setattr(record, _VARINTS[tag], number)
        elif tag == _DATA and at + number <= end:
            record.data = view[at : at + number]
            at += number
        else:
            return None
    return record


def _parse(value: bytes | memoryview) -> Record:
    try:
        datum = caffe_pb2.Datum.FromString(bytes(value))
    except DecodeError as error:
        raise DataError(f"is not a Datum: protobuf cannot parse its {len(value)} bytes") from error
    if not datum.channels and not datum.data and _is_annotated(value):
        raise DataError("is an AnnotatedDatum of SSD's Caffe, not a Datum: an AnnotatedData layer reads it")
    floats = np.array(datum.float_data, np.float32) if len(datum.float_data) else None
    return Record(
        datum.channels, datum.height, datum.width, datum.label, datum.encoded, datum.data if datum.data else b"", floats
    )


def _is_annotated(value: bytes | memoryview) -> bool:
    try:
        return bool(caffe_pb2.AnnotatedDatum.FromString(bytes(value)).datum.data)
    except DecodeError:
        return False


def datum_to_array(record: Record, color: bool | None = None) -> np.ndarray:
    """Return the image or floats of a Datum as C×H×W.

    An encoded image is decoded: as it was stored (grey, BGR or BGRA) if ``color`` is None, as BGR if True, as grey if
    False. The result is ``uint8``, or ``float32`` for ``float_data``; it may be a view of the record or of an H×W×C image.

    Raises:
        DataError: the image does not decode or is not 8-bit, or the data does not have C·H·W values.
    """
    if record.encoded:
        image = decode_image(record.data, color)
        return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    shape = (record.channels, record.height, record.width)
    if min(shape) <= 0:
        raise DataError(
            f"holds no image: channels, height, width are {shape[0]}, {shape[1]}, {shape[2]}; all must be at least 1"
        )
    have = np.frombuffer(record.data, np.uint8) if len(record.data) else record.float_data
    size = 0 if have is None else len(have)
    if have is None or size != shape[0] * shape[1] * shape[2]:
        raise DataError(
            f"holds {size} values, but channels × height × width = {shape[0]} × {shape[1]} × {shape[2]} "
            f"= {shape[0] * shape[1] * shape[2]}"
        )
    return have.reshape(shape)


def decode_image(data: bytes | memoryview, color: bool | None = None) -> np.ndarray:
    """Decode the bytes of a JPEG, PNG, … file: H×W×3 (BGR), H×W×4, or H×W, ``uint8``.

    ``color`` None keeps the channels of the file; True converts to BGR, False to grey.

    Raises:
        DataError: the bytes do not decode, or have more than 8 bits per channel.
    """
    flag = cv2.IMREAD_UNCHANGED if color is None else cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag) if len(data) else None
    except cv2.error as error:
        raise DataError(f"does not decode as an image: {error.err or error}") from error
    if image is None:
        raise DataError(f"does not decode as an image: {len(data)} bytes that begin with {bytes(data[:8])!r}")
    if image.dtype != np.uint8:
        raise DataError(f"has {image.dtype} pixels; Caffe reads 8-bit images only")
    return image


def array_to_datum(array: np.ndarray, label: int = 0) -> Any:
    """Return a C×H×W array as a ``Datum``: raw bytes if it is ``uint8``, ``float_data`` otherwise.

    Raises:
        DataError: the array has another number of axes.
    """
    if array.ndim != 3:
        raise DataError(f"a Datum holds a C×H×W array, not one of shape {array.shape}")
    channels, height, width = array.shape
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width, label=label, encoded=False)
    if array.dtype == np.uint8:
        datum.data = array.tobytes()
    else:
        datum.float_data.extend(np.asarray(array, np.float32).ravel())
    return datum
