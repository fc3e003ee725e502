"""AnnotatedData, as MobileNet-YOLO has it (eric612/MobileNet-YOLO, annotated_data_layer.cpp and sampler.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...data import draws
from ...data.annotated import AnnotatedReader
from ...data.augmentation import Augmentation
from ...data.batches import Reader, Shard
from ...data.sampling import JitterSampler
from ...data.transformer import Transformer
from ...errors import DataError
from ...layers.base import Shape
from ...layers.registry import register
from ...proto import caffe_pb2
from ..ssd.annotated_data import AnnotatedData

_ROWS = 300  # boxes that a picture has room for
_LASTING = 10  # batches of one size
_NEAR = 0.01  # how close to 1 the probabilities must come
_READ = """scale mirror crop_size mean_file mean_value force_color force_gray crop_h crop_w resize_param noise_param
distort_param expand_param emit_constraint"""


@register("AnnotatedData", fork="yolo")
class YoloAnnotatedData(AnnotatedData):
    """Images and their objects' boxes; every ten batches, one of several ``resize_param`` is drawn by ``prob``.

    With ``yolo_data_type: 1`` the second top is N×1×300×5: a row for each box with its class, counted from 0, the middle,
    width and height; 0 elsewhere. Otherwise it is SSD's. Without ``batch_sampler`` a random window of at least
    ``1 - yolo_data_jitter`` of each side is cut. ``train_diffcult: false`` leaves out difficult boxes.
    """

    inert_options = frozenset(
        {
            "label_map_file",
            "prefetch",
            "rand_skip",
            "single_class",
            "seg_scales",
            "seg_resize_width",
            "seg_resize_height",
        }
    )
    several_sizes = True

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        shapes = super().known_shapes(param, channels)
        yolo = param.annotated_data_param.yolo_data_type == 1
        return shapes and [shapes[0], (shapes[0][0], 1, _ROWS, 5) if yolo else shapes[1]]

    def open(self, param: Any, transformer: Transformer, batch_size: int, color: bool | None) -> Reader:
        options, transform = param.annotated_data_param, param.transform_param
        unread = [field.name for field, value in transform.ListFields() if field.name not in _READ.split() and value]
        if unread:
            raise self.error(f"not supported: transform_param.{', transform_param.'.join(unread)}")
        if options.difficult_label_warmup and options.train_diffcult and options.yolo_data_type == 1:
            raise self.error("not supported: difficult_label_warmup, which leaves out difficult boxes at first")
        sampler = None
        if not options.batch_sampler and options.yolo_data_jitter:
            sampler = JitterSampler(options.yolo_data_jitter, _keeps_proportions(transform))
        augmentation = Augmentation(transform, options.batch_sampler, color, sampler)
        typed = options.HasField("anno_type")
        reader = _YoloReader(param.data_param.source, transformer, batch_size, color, augmentation, typed)
        reader.of_yolo, reader.takes_difficult = options.yolo_data_type == 1, options.train_diffcult
        reader.shares = _shares(transform.resize_param)
        return reader


def _shares(resizings: Sequence[Any]) -> np.ndarray:
    """The probabilities of the sizes, summed up."""
    given = [each.prob for each in resizings]
    if given and (min(given) < 0 or abs(sum(given) - 1) > _NEAR):
        words = " + ".join(f"{value:g}" for value in given)
        raise DataError(f"transform_param.resize_param: the sum of prob is {words} = {sum(given):g}; it must be 1")
    return np.cumsum(given) / (sum(given) or 1)


def _keeps_proportions(transform: Any) -> bool:
    padded = {each.resize_mode == caffe_pb2.ResizeParameter.FIT_LARGE_SIZE_AND_PAD for each in transform.resize_param}
    if len(padded) != 1:
        raise DataError(
            "annotated_data_param.yolo_data_jitter, 0.3 if not given, needs transform_param.resize_param, all with "
            "FIT_LARGE_SIZE_AND_PAD or none; give batch_sampler, or yolo_data_jitter: 0 for whole pictures"
        )
    return padded.pop()


class _YoloReader(AnnotatedReader):
    """Reads what :class:`YoloAnnotatedData` makes; an item has the number of its size besides.

    Attributes:
        of_yolo: make labels of ``yolo_data_type: 1``.
        takes_difficult: do not leave out difficult boxes of these.
        shares: the probabilities of the sizes, summed up.
    """

    of_yolo: bool
    takes_difficult: bool
    shares: np.ndarray

    def first(self) -> Any:
        return (*super().fetch(Shard(0), 0), 0)

    def fetch(self, shard: Shard, position: int) -> Any:
        size = 0
        if len(self.shares) > 1:
            lasting = position // (_LASTING * self.batch_size * shard.world)
            drawn = draws.shares(shard.seed, lasting, 1, draws.SIZES)[0]
            size = int(min(np.searchsorted(self.shares, drawn, "right"), len(self.shares) - 1))
        return (*super().fetch(shard, position), size)

    def size_of(self, item: Any) -> int:
        number: int = item[2]
        return number

    def shapes(self) -> list[Shape]:
        images, labels = super().shapes()
        return [images, (self.batch_size, 1, _ROWS, 5) if self._boxed and self.of_yolo else labels]

    def _rows(self, *how: Any) -> np.ndarray:
        rows = super()._rows(*how)
        if not self.of_yolo:
            return rows
        if not self.takes_difficult:
            rows = rows[rows[:, -1] == 0]
        if len(rows) > _ROWS:
            raise DataError(f"has {len(rows)} boxes; with yolo_data_type: 1 a picture has room for {_ROWS}")
        return rows

    def collected(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        if not self._boxed or not self.of_yolo:
            return super().collected(arrays)
        images, labels, windows = arrays
        self.count_boxes(sum(map(len, labels)))
        made = np.zeros((len(labels), 1, _ROWS, 5), np.float32)
        for row, found in zip(made[:, 0], labels, strict=True):
            left, top, right, bottom = found[:, 2:6].T
            row[: len(found)] = np.stack(
                [found[:, 0] - 1, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top], 1
            )
        return [images, made, windows]
