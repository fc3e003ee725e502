"""Mean files (``.binaryproto``): a ``BlobProto`` that holds one image, as ``compute_image_mean`` writes it."""

from __future__ import annotations

import math
import os

import numpy as np

from ..errors import DataError, ParseError, require_file
from ..proto import blob_to_array, caffe_pb2, read_message, write_message
from ..proto.kinds import BLOBS, told_apart
from ..proto.numbers import classes
from ..tables import dims


def require_one_mean(has_file: bool, values: int) -> None:
    """Raise a ``DataError`` if options have both a ``mean_file`` and ``values``, a number of ``mean_value`` fields."""
    if has_file and values:
        raise DataError("transform_param: give mean_file or mean_value, not both")


def require_mean_values(values: int, channels: int) -> None:
    """Raise a ``DataError`` unless ``values``, the number of ``mean_value`` fields, is 1 or ``channels``."""
    if values not in (1, channels):
        raise DataError(
            f"transform_param has {values} mean_values for {channels} channels; give one, or one for each channel"
        )


def read_mean(path: str | os.PathLike[str], axes: int | None = 3) -> np.ndarray:
    """Return the mean image of a file: ``float32``, C×H×W.

    ``axes`` is the number of its axes; None takes any, as for the mean clip of videos, C×L×H×W.

    Raises:
        MissingFileError, DataError: the file is missing, or does not hold exactly one image.
    """
    name = require_file(path, "mean file")
    array = "; write_mean of pycaffe_compat.data.mean makes one of an array" if name.endswith(".npy") else ""
    with told_apart(name, BLOBS, f"a mean file (.binaryproto){array}"):
        return _read_mean(name, axes)


def _read_mean(name: str, axes: int | None) -> np.ndarray:
    try:
        mean = np.asarray(blob_to_array(read_message(name, caffe_pb2.BlobProto)), np.float32)
    except ParseError as error:
        raise DataError(f"mean file {name} is not a BlobProto: {error}") from error
    if mean.ndim > 3 and mean.shape[0] == 1:
        mean = mean[0]
    if mean.ndim != (axes or mean.ndim) or not mean.size:
        raise DataError(f"mean file {name} holds an array of shape {mean.shape}; expected one image, C×H×W")
    return mean


def read_clip_mean(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the mean of clips of videos, C×L×H×W, or of stacked frames, C×H×W; C3D 1.0's files have other field numbers.

    Raises:
        MissingFileError, DataError: as :func:`read_mean`.
    """
    name = require_file(path, "mean file")
    with told_apart(name, BLOBS, "a mean file (.binaryproto)"):
        try:
            blob = read_message(name, caffe_pb2.BlobProto)
            if blob.HasField("shape") or blob.data or not blob.diff:
                return _read_mean(name, None)
            blob = read_message(name, classes("c3d_v10")["BlobProto"])
        except ParseError as error:
            raise DataError(f"mean file {name} is not a BlobProto: {error}") from error
        shape = (blob.channels, blob.length, blob.height, blob.width)
        if blob.num != 1 or math.prod(shape) != len(blob.data):
            raise DataError(f"mean file {name} holds {len(blob.data)} values; expected one clip, {dims(shape)}")
        return np.array(blob.data, np.float32).reshape(shape)


def write_mean(path: str | os.PathLike[str], mean: np.ndarray) -> None:
    """Write a C×H×W mean image as Caffe does: with ``num``, ``channels``, ``height``, ``width`` and ``data``."""
    channels, height, width = mean.shape
    blob = caffe_pb2.BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(np.asarray(mean, np.float32).ravel())
    write_message(path, blob)
