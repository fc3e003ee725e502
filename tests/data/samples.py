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


def annotated(picture: np.ndarray, boxes=(), kind: str = "png"):
    """An AnnotatedDatum of an H×W×3 picture; a box is its class, its corners as fractions, and whether it is difficult."""
    record = caffe_pb2.AnnotatedDatum(type=caffe_pb2.AnnotatedDatum.BBOX)
    if kind:
        record.datum.CopyFrom(encoded(picture.transpose(2, 0, 1), -1, kind))
    else:
        record.datum.CopyFrom(array_to_datum(np.ascontiguousarray(picture.transpose(2, 0, 1)), -1))
    for label, corners, *difficult in boxes:
        group = next((each for each in record.annotation_group if each.group_label == label), None)
        group = group or record.annotation_group.add(group_label=label)
        names = ("xmin", "ymin", "xmax", "ymax")
        box = caffe_pb2.NormalizedBBox(**dict(zip(names, map(float, corners), strict=True)), difficult=any(difficult))
        group.annotation.add(instance_id=len(group.annotation), bbox=box)
    return record
