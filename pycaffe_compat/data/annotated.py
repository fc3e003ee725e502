"""Batches of pictures and the boxes of their objects: the ``AnnotatedDatum`` records of SSD's Caffe."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from ..errors import DataError
from ..proto import caffe_pb2
from . import draws
from .augmentation import Augmentation
from .batches import DatabaseReader, Shape
from .boxes import Boxes
from .datum import Record, datum_to_array, parse_datum
from .transformer import Transformer

log = logging.getLogger(__name__)
_QUIET = functools.partial(
    np.errstate, over="ignore", invalid="ignore"
)  # boxes of NaN or infinity are dropped or clipped
COLUMNS = 8
MANY = 1000  # pictures in a row without a box before a warning
CREATE = "Make it with: caffe-create-annoset --anno-type detection ROOT LISTFILE {path}"
_MAKE = "caffe-create-annoset makes a database of them"


class _Held(NamedTuple):
    """Boxes of a picture, its height and width before it was resized, and which of the sizes it gets."""

    boxes: Boxes
    height: int
    width: int
    size: int


def parse_annotated(value: bytes | memoryview) -> Any:
    """Read a serialised ``AnnotatedDatum``.

    Raises:
        DataError: the bytes are not one; the message says so of a plain Datum.
    """
    try:
        record = caffe_pb2.AnnotatedDatum.FromString(bytes(value))
    except DecodeError as error:
        raise DataError(f"is not an AnnotatedDatum: protobuf cannot parse its {len(value)} bytes; {_MAKE}") from error
    if not record.HasField("datum"):
        try:
            plain = bool(parse_datum(value).data)
        except DataError:
            plain = False
        raise DataError(
            f"is {'a plain Datum, which a Data layer reads' if plain else 'not an AnnotatedDatum: it holds no picture'}; {_MAKE}"
        )
    return record


class AnnotatedReader(DatabaseReader):
    """Batches of the AnnotatedDatums of an LMDB, in key order, starting over at the end.

    Pictures and boxes are augmented, transformed together, and cut. The label of a batch has one row for each box: the number
    of its picture in the batch, its class, the number of the object among those of its class, left, top, right and bottom as
    fractions of the picture, and whether it is difficult. A batch without boxes has one row of -1. If the first record has no
    type, and ``anno_type`` is not given, the labels are those of the Datums.

    Args:
        color: that of :func:`.datum.datum_to_array`.
        augmentation: what is done first.
        typed: whether ``anno_type`` is given.

    Raises:
        MissingFileError, DataError: the database, its first record, or an option cannot be used.
    """

    def __init__(
        self,
        path: str,
        transformer: Transformer,
        batch_size: int,
        color: bool | None,
        augmentation: Augmentation,
        typed: bool,
    ) -> None:
        super().__init__(path, transformer, batch_size, color, CREATE)
        if batch_size > 1 and any(each.fits_small for each in transformer.resizings):
            raise DataError(
                f"batch_size is {batch_size}, but transform_param.resize_param with FIT_SMALL_SIZE makes images of different "
                "sizes: set batch_size: 1, or another resize_mode"
            )
        self._augmentation = augmentation
        self._random = self._random or augmentation.draws > 0
        self._typed = typed
        self._warned = self._warned_of_lost = self._warned_of_none = False
        self._without_boxes = 0
        first = self.first()
        record = self._parsed(first)
        self._boxed: bool = typed or record.HasField("type")
        self._first_boxes = sum(len(group.annotation) for group in record.annotation_group)

    def _parsed(self, item: tuple[bytes, memoryview]) -> Any:
        try:
            return parse_annotated(item[1])
        except DataError as error:
            raise DataError(f"{self.name(item)}: {error}") from error

    def shapes(self) -> list[Shape]:
        images, _ = super().shapes()
        return [images, (1, 1, max(self._first_boxes, 1), COLUMNS) if self._boxed else (self.batch_size, 1, 1, 1)]

    def prepare(self, item: tuple[bytes, memoryview], words: Sequence[int] = ()) -> tuple[np.ndarray, Any]:
        annotated = parse_annotated(item[1])
        datum = annotated.datum
        floats = np.array(datum.float_data, np.float32) if datum.float_data else None
        record = Record(
            datum.channels, datum.height, datum.width, datum.label, datum.encoded, datum.data or b"", floats
        )
        if not record.encoded:
            self._warn_raw()
        if self._boxed and not self._typed and not annotated.HasField("type"):
            raise DataError("has no type, but the first record of the database does: does it mix two kinds of records?")
        if not self._boxed and not datum.HasField("label"):
            raise DataError(
                "has neither boxes (type: BBOX) nor a label; a database of detections needs "
                "annotated_data_param { anno_type: BBOX } or records with a type"
            )
        image = datum_to_array(record, self._color)
        boxes = Boxes.of(annotated.annotation_group)
        self._warn_of_lost(item, boxes)
        if words and self._augmentation.draws:
            if image.dtype != np.uint8:
                raise DataError(
                    "holds floats (float_data), but batch_sampler, distort_param and expand_param are for bytes"
                )
            picture = np.ascontiguousarray(image.transpose(1, 2, 0)) if len(image) > 1 else image[0]
            drawn = draws.shares(words[-1], 0, self._augmentation.draws, draws.PICTURES)
            with _QUIET():
                picture, boxes = self._augmentation(picture, boxes, drawn, bool(record.encoded))
            image = picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)
        size = self.size_of(item)
        prepared = self._transformer.prepared(image, words, bool(record.encoded), size)
        if not self._boxed:
            return prepared, record.label
        _, height, width = image.shape
        return prepared, _Held(boxes, height, width, size)

    def size_of(self, item: Any) -> int:
        """Which of ``Transformer.resizings`` the picture of an item gets, if there are any."""
        return 0

    def _warn_raw(self) -> None:
        if self._augmentation.distorts and not self._warned:
            self._warned = True
            log.warning("%s: distort_param applies to encoded images only, as in SSD's Caffe", self._database.path)
        self._transformer.warn_raw(self._database.path)

    def _warn_of_lost(self, item: tuple[bytes, memoryview], boxes: Boxes) -> None:
        if self._warned_of_lost or not self._boxed:
            return
        lost = boxes.lost()
        if lost.any():
            self._warned_of_lost = True
            log.warning(
                "%s: %d of its %d boxes are left out, as in SSD's Caffe: they have no area within the picture, such as (%s), "
                "which should be left, top, right and bottom as fractions of the picture. Other records are not named",
                self.name(item),
                lost.sum(),
                len(boxes),
                ", ".join(f"{side:g}" for side in boxes.corners[lost][0]),
            )

    def labelled(self, label: Any, size: tuple[int, int], window: tuple[int, int, bool], cut: tuple[int, int]) -> Any:
        if not self._boxed:
            return label
        with _QUIET():
            return self._rows(label, size, window, cut)

    def _rows(
        self, label: _Held, size: tuple[int, int], window: tuple[int, int, bool], cut: tuple[int, int]
    ) -> np.ndarray:
        boxes, height, width, size_number = label
        resizing = self._transformer.resizings[size_number] if self._transformer.resizings else None
        top, left, mirrored = window
        if resizing is not None:
            boxes = resizing.moved(boxes, height, width)
        edges = np.array([left, top, left + cut[1], top + cut[0]], np.float32)
        part = edges / np.array([size[1], size[0]] * 2, np.float32)
        boxes = boxes.within(part, self._augmentation.emit, mirrored, size)
        if resizing is not None:
            boxes = resizing.extrapolated(boxes, height, width, part)
        return np.column_stack([boxes.labels, boxes.instances, boxes.corners, boxes.difficult]).astype(np.float32)

    def count_boxes(self, number: int) -> None:
        """Take note of how many boxes a batch has, and say once if as many pictures as there are, or a thousand, had none."""
        self._without_boxes = 0 if number else self._without_boxes + self.batch_size
        if not self._warned_of_none and self._without_boxes >= min(len(self._database), MANY):
            self._warned_of_none = True
            log.warning(
                "%s: the last %d images had no box, so nothing is learned from them",
                self._database.path,
                self._without_boxes,
            )

    @property
    def work(self) -> str:
        return "reading, decoding and augmenting pictures to"

    @property
    def advice(self) -> str:
        return "smaller pictures (caffe-create-annoset --max-dim N)"

    def _label_memory(self) -> np.ndarray:
        return np.empty(self.batch_size, object) if self._boxed else super()._label_memory()

    def collected(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        images, labels, windows = arrays
        if not self._boxed:
            return [images, labels.reshape(-1, 1, 1, 1), windows]
        numbers = np.repeat(np.arange(len(labels), dtype=np.float32), [len(rows) for rows in labels])
        rows = np.column_stack([numbers, np.concatenate(labels)])
        self.count_boxes(len(rows))
        if not len(rows):
            rows = np.full((1, COLUMNS), -1, np.float32)
        return [images, rows[None, None], windows]
