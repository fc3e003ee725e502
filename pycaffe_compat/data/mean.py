"""Mean files: a ``BlobProto`` with one image (``.binaryproto``), as ``compute_image_mean`` writes it."""

from __future__ import annotations

import os

import numpy as np

from ..errors import DataError, ParseError
from ..proto import blob_to_array, caffe_pb2, read_message, write_message


def read_mean(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the mean image of a file: ``float32``, C×H×W.

    Raises:
        MissingFileError, DataError: no such file, or one that does not hold exactly one image.
    """
    try:
        mean = np.asarray(blob_to_array(read_message(path, caffe_pb2.BlobProto)), np.float32)
    except ParseError as error:
        raise DataError(f"mean file {os.fspath(path)} is no BlobProto: {error}") from error
    if mean.ndim == 4 and mean.shape[0] == 1:
        mean = mean[0]
    if mean.ndim != 3 or not mean.size:
        raise DataError(f"mean file {os.fspath(path)} holds an array of shape {mean.shape}; wanted one image, C×H×W")
    return mean


def write_mean(path: str | os.PathLike[str], mean: np.ndarray) -> None:
    """Write a C×H×W mean image in Caffe's form: ``num``, ``channels``, ``height``, ``width`` and ``data``."""
    channels, height, width = mean.shape
    blob = caffe_pb2.BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(np.asarray(mean, np.float32).ravel())
    write_message(path, blob)
