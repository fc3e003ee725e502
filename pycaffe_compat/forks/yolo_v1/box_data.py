"""BoxData, the data layer of YOLO (yeahkun/caffe-yolo and intel/caffe, box_data_layer.cpp and data_transformer.cpp)."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from torch import Tensor

from ...data import draws
from ...data.batches import DatabaseReader, Reader
from ...data.datum import datum_to_array, parse_datum
from ...data.transformer import Transformer
from ...errors import DataError
from ...layers.base import Shape
from ...layers.data_layers import OF_IMAGES, DatabaseSource, shapes_of_images
from ...layers.registry import register
from .grid import NUMBERS

log = logging.getLogger(__name__)

COLUMNS = 6  # of a box: class, difficult, centre, width and height in parts of the picture
SMALLEST = 30  # a part of a picture is smaller by this percentage at most
TRIES = 200


class BoxReader(DatabaseReader):
    """Batches of encoded Datums of an LMDB whose ``float_data`` are boxes, six numbers each.

    In training a part of each picture, at random, that holds the centre of a box, is resized to the whole.

    Args:
        layer: makes the labels.
        train: whether pictures are cut.
    """

    def __init__(
        self, layer: BoxSource, path: str, transformer: Transformer, batch_size: int, color: bool | None, train: bool
    ) -> None:
        super().__init__(path, transformer, batch_size, color)
        self._layer, self._train = layer, train
        self._random = self._random or train

    def prepare(self, item: tuple[bytes, memoryview], words: Sequence[int] = ()) -> tuple[np.ndarray, Any]:
        record = parse_datum(item[1])
        floats = record.float_data
        if not record.encoded or floats is None or len(floats) % COLUMNS:
            have = 0 if floats is None else len(floats)
            raise DataError(
                f"holds {'an' if record.encoded else 'no'} encoded picture and {have} float_data; expected one, and {COLUMNS} "
                "numbers for each of its boxes: class, difficult, x, y, width, height"
            )
        if not np.isfinite(floats).all():
            raise DataError("has a box with a number that is not finite")
        boxes, image = floats.reshape(-1, COLUMNS), datum_to_array(record, self._color)
        if self._train and words:
            image, boxes = _part(image, boxes, words[-1])
        return self._transformer.prepared(image, words), self._layer.labels_of(boxes)

    def _label_memory(self) -> np.ndarray:
        return self._labels.take(self.batch_size, sum(self._layer.lengths))

    def shapes(self) -> list[Shape]:
        pictures, _ = super().shapes()
        return [pictures, *((self.batch_size, length) for length in self._layer.lengths)]

    def finish(self, tops: Sequence[Tensor]) -> tuple[Tensor, ...]:
        pictures, labels = super().finish(tops)
        return pictures, *(part.contiguous() for part in labels.split(self._layer.lengths, 1))


def _part(image: np.ndarray, boxes: np.ndarray, word: int) -> tuple[np.ndarray, np.ndarray]:
    """A part of a picture (C, H, W), resized to the whole, and the boxes with their centre in it."""
    _, height, width = image.shape
    size = np.array([width, height])
    at = (boxes[:, 2:] * np.array([width, height] * 2, np.float32)).astype(int)
    drawn = draws.shares(word, 0, 3 * TRIES, draws.PICTURES).reshape(-1, 3)
    for scale, x, y in drawn:
        part = (size * np.float32(1 - int(scale * SMALLEST) / 100)).astype(int) - 1
        low = (np.array([x, y]) * (size - part)).astype(int)
        inside = ((at[:, :2] >= low) & (at[:, :2] < low + part)).all(1)
        if inside.any():
            moved = boxes[inside].copy()
            moved[:, 2:] = (at[inside] - [*low, 0, 0]) / np.array([*part] * 2, np.float32)
            cut = np.ascontiguousarray(
                image[:, low[1] : low[1] + part[1], low[0] : low[0] + part[0]].transpose(1, 2, 0)
            )
            whole = cv2.resize(cut, (width, height))
            return (whole[None] if whole.ndim == 2 else whole.transpose(2, 0, 1)), moved
    raise DataError("has no box whose centre is within a part of the picture")


class BoxSource(DatabaseSource):
    """The base class of both BoxData.

    Attributes:
        lengths: how many numbers an image has in each top of labels.
    """

    options = ("data_param", "transform_param")
    fork_options = OF_IMAGES
    inert_options = frozenset({"prefetch", "rand_skip"})
    tops: ClassVar[tuple[int, int | None]] = (1, None)
    lengths: list[int]

    @classmethod
    def sides(cls, param: Any) -> list[int]:
        """The ``side`` of each top of labels."""
        return list(param.data_param.side) or [7]

    @classmethod
    @abstractmethod
    def length(cls, side: int) -> int:
        """How many numbers an image has in a top of labels."""

    @abstractmethod
    def labels_of(self, boxes: np.ndarray) -> np.ndarray:
        """The labels of an image for all tops, one after the other, of boxes (n, 6)."""

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        shapes = shapes_of_images(param.transform_param, param.data_param.batch_size, channels)
        labels = [(param.data_param.batch_size, cls.length(side)) for side in cls.sides(param)]
        return shapes and [shapes[0], *labels][: max(len(param.top), 1)]

    def open(self, param: Any, transformer: Transformer, batch_size: int, color: bool | None) -> Reader:
        if self.n_tops == 1:
            return DatabaseReader(param.data_param.source, transformer, batch_size, color)
        sides = self.sides(param)
        if len(sides) != self.n_tops - 1 or min(sides) < 1:
            raise self.error(
                f"has {self.n_tops - 1} tops of labels; give data_param.side, at least 1, for each (one: 7 by default)"
            )
        if transformer.mirror or transformer.crop:
            log.warning(
                'layer "%s" (%s): transform_param.mirror and crop_size change only pictures, not their boxes, as in the fork',
                self.name,
                self.type_name,
            )
        self.lengths = [self.length(side) for side in sides]
        return BoxReader(self, param.data_param.source, transformer, batch_size, color, transformer.train)


@register("BoxData", fork="yolo_v1")
class GridBoxData(BoxSource):
    """Images of an LMDB, with their boxes assigned to the cells of ``side`` x ``side`` grids: labels (N, 7 * cells).

    Those are whether the box is difficult, whether there is one, its class, each by cell, and its centre, width and height; of
    several boxes in a cell the last. The records are encoded Datums with ``float_data``. In training a part of 70 to 100 percent
    of a picture, with the centre of a box, is resized to the whole. What is random has the fork's distribution, not the numbers
    of its generator.
    """

    @classmethod
    def length(cls, side: int) -> int:
        return NUMBERS * side**2

    def labels_of(self, boxes: np.ndarray) -> np.ndarray:
        if (boxes[:, 0] < 0).any():
            raise DataError(f"has a box of class {boxes[:, 0].min():g}; classes are from 0 on")
        parts = []
        for side in self.sides(self.param):
            labels = np.zeros((NUMBERS, side**2), np.float32)
            labels[2] = -1
            place = np.minimum(np.floor(boxes[:, 2:4] * np.float32(side)), side - 1).astype(int)
            if (place < 0).any():
                raise DataError("has a box whose centre is left of the picture or above it")
            cells = side * place[:, 1] + place[:, 0]
            for cell, box in zip(cells, boxes, strict=True):  # the last box of a cell stays
                labels[:3, cell] = box[1], 1, box[0]
                labels[3:].reshape(-1, 4)[cell] = box[2:]
            parts.append(labels.ravel())
        return np.concatenate(parts)


@register("BoxData", fork="intel")
class ListBoxData(BoxSource):
    """As YOLO v1's BoxData, but labels (N, 150) are a list of boxes (class, centre, width, height), padded with 0."""

    most = 30

    @classmethod
    def length(cls, side: int) -> int:
        return cls.most * 5

    def labels_of(self, boxes: np.ndarray) -> np.ndarray:
        if len(boxes) > self.most:
            raise DataError(f"has {len(boxes)} boxes; a label of this layer holds {self.most}")
        if (boxes[:, 0] < 0).any():
            raise DataError(f"has a box of class {boxes[:, 0].min():g}; classes are from 0 on")
        labels = np.zeros((self.most, 5), np.float32)
        labels[: len(boxes)] = boxes[:, [0, 2, 3, 4, 5]]
        return np.tile(labels.ravel(), len(self.lengths))
