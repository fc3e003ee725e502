"""Real images, Datums and databases for the tests of this folder and of the data layers."""

from pathlib import Path

import cv2
import numpy as np

from pycaffe_compat.data.database import DatabaseWriter
from pycaffe_compat.data.datum import array_to_datum
from pycaffe_compat.proto import caffe_pb2

GOLDENS = Path(__file__).parents[1] / "goldens" / "data"


def image(seed: int = 0, height: int = 10, width: int = 12, channels: int = 3) -> np.ndarray:
    """A random C×H×W image."""
    return np.random.default_rng(seed).integers(0, 256, (channels, height, width), dtype=np.uint8)


def encoded(planes: np.ndarray, label: int = 0, kind: str = "png"):
    """A Datum that holds an image file."""
    picture = planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0)
    return caffe_pb2.Datum(data=cv2.imencode(f".{kind}", picture)[1].tobytes(), label=label, encoded=True)


def database(path, datums) -> str:
    """Write Datums (or bytes) into an LMDB, under the keys 00000000, 00000001, …."""
    with DatabaseWriter(path) as writer:
        for i, datum in enumerate(datums):
            writer.put(b"%08d" % i, datum if isinstance(datum, bytes) else datum.SerializeToString())
    return str(path)


def raw_database(path, images) -> str:
    """Write images as raw Datums; the label of each is its position."""
    return database(path, [array_to_datum(planes, label) for label, planes in enumerate(images)])
