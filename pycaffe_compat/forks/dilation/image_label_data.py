"""ImageLabelData, as the Caffe of dilated convolutions has it (fyu/caffe-dilation, image_label_data_layer.cpp)."""

from __future__ import annotations

import functools
from typing import Any

import cv2
import numpy as np

from ...data.draws import Order
from ...data.label_maps import Changes, LabelMapReader, PairFiles, Sample, Size, Words, read_pairs
from ...errors import DataError, prefixed
from ...layers.base import Shape
from ...layers.label_map_data import LabelMapSource
from ...layers.registry import register
from ...proto import caffe_pb2

_OUTSIDE = 255  # the label of what lies outside an image


@register("ImageLabelData", fork="dilation")
class ImageLabelData(LabelMapSource):
    """Crops of images with a margin around them, and subsampled labels of the crops, from two lists of files.

    An image is scaled at random between ``min_scale`` and ``max_scale`` with ``rand_scale``, gets a margin as wide as
    ``label_slice.offset`` on each side, and more if it is smaller than ``crop_size``: reflected, or 0 with ``padding:
    ZERO``; labels there are 255. ``label_slice`` takes ``dim`` labels, ``stride`` apart, from ``offset`` on, of each crop.
    """

    options = ("image_label_data_param", "transform_param")
    tops = (2, 2)

    @classmethod
    def source(cls, param: Any) -> str:
        return str(param.image_label_data_param.image_list_path)

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        options, crop = param.image_label_data_param, cls.crop_of(param)
        if crop is None:
            return None
        n = options.batch_size
        return [(n, 3, *crop), (n, 1, *options.label_slice.dim)]

    def make_reader(self, param: Any) -> LabelMapReader:
        options, transform = param.image_label_data_param, param.transform_param
        size = self.batch_size(options)
        crop = self.crop_of(param)
        if crop is None:
            raise self.error("transform_param.crop_size is 0; it must say what size is cut from images")
        part = self._slice(options.label_slice, crop[0])
        if options.rand_scale and not 0 < options.min_scale <= options.max_scale:
            raise self.error(
                f"min_scale: {options.min_scale:g} must be above 0 and at most max_scale: {options.max_scale:g}"
            )
        lines = {}
        for field in ("image_list_path", "label_list_path"):
            with prefixed(f"image_label_data_param.{field}"):
                lines[field] = [words[0] for words in read_pairs(getattr(options, field), "PATH")]
        images, labels = lines.values()
        if len(images) != len(labels):
            raise DataError(
                f"{options.image_list_path} names {len(images)} images, but {options.label_list_path} {len(labels)} label maps"
            )
        order = Order.of_list(len(images), options, "image_label_data_param", f"images of {options.image_list_path}")
        folders = (options.image_dir, options.label_dir)
        folders = folders if any(folders) else (options.data_dir, options.data_dir)
        pairs = [(folders[0] + image, folders[1] + label) for image, label in zip(images, labels, strict=True)]
        changes = Changes(
            crop=crop,
            at_random=self.phase == caffe_pb2.TRAIN,
            mirror=transform.mirror,
            between=(options.min_scale, options.max_scale) if options.rand_scale else None,
            widen=functools.partial(
                _widened,
                margin=tuple(options.label_slice.offset),
                least=crop[0],
                reflect=options.padding == caffe_pb2.ImageLabelDataParameter.REFLECT,
            ),
            take=part,
        )
        return LabelMapReader(_both, pairs, size, order, changes, transform, self.phase)

    def _slice(self, options: Any, side: int) -> tuple[slice, slice]:
        """Which labels of a crop are taken: rows and columns."""
        counts = [len(options.dim), len(options.stride), len(options.offset)]
        if counts != [2, 2, 2] or min(*options.dim, *options.stride) < 1:
            raise self.error(
                "image_label_data_param.label_slice needs dim, stride and offset twice each, for height and width; dim and "
                "stride must be at least 1"
            )
        parts = []
        for dim, stride, offset in zip(options.dim, options.stride, options.offset, strict=True):
            if offset + (dim - 1) * stride >= side:
                raise self.error(
                    f"label_slice takes {dim} labels {stride} apart from {offset} on, but crops are {side} wide and high"
                )
            parts.append(slice(offset, offset + (dim - 1) * stride + 1, stride))
        return parts[0], parts[1]


def _both(words: Words) -> Sample:
    return PairFiles().both(words)


def _widened(sample: Sample, margin: Size, least: int, reflect: bool) -> Sample:
    """Give both of a pair a margin, of height and width, on each side, and more where they are smaller than ``least``."""

    def widened(array: np.ndarray, edges: tuple[int, int, int, int], outside: int | None) -> np.ndarray:
        kind = cv2.BORDER_REFLECT_101 if outside is None else cv2.BORDER_CONSTANT
        try:
            return cv2.copyMakeBorder(array, *edges, kind, value=(outside or 0,) * 3)
        except cv2.error as error:
            raise DataError(f"cannot be widened by {edges} (top, bottom, left, right): {error.err or error}") from error

    for edges in (lambda shape: (margin[0], margin[0], margin[1], margin[1]), functools.partial(_lacking, least=least)):
        around = edges(sample.image.shape)
        if any(around):
            image = widened(sample.image, around, None if reflect else 0)
            sample = sample._replace(image=image, labels=widened(sample.labels, around, _OUTSIDE))
    return sample


def _lacking(shape: tuple[int, ...], least: int) -> tuple[int, int, int, int]:
    """What an image lacks at the top, bottom, left and right: of an odd number of columns, the left gets one more."""
    rows, columns = max(least - shape[0], 0), max(least - shape[1], 0)
    return rows // 2, rows - rows // 2, columns - columns // 2, columns // 2
