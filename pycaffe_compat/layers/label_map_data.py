"""What the data layers of forks for segmentation share: tops for images, label maps and sizes.

The layers themselves are in :mod:`pycaffe_compat.forks`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, ClassVar, cast

from ..data.draws import Order
from ..data.label_maps import Changes, LabelMapReader, PairFiles, Sample, Size, Words, as_byte, cut_window, read_pairs
from ..errors import prefixed
from ..proto import caffe_pb2
from .base import Shape
from .data_layers import BatchSource

Load = Callable[[Words], Sample]
log = logging.getLogger(__name__)
_MOVED = ("scale", "mean_file", "crop_size", "mirror")  # old places of what transform_param holds


class LabelMapSource(BatchSource):
    """A source of images, their label maps and sizes, which a list file names."""

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        options = getattr(param, cls.option_fields()[0])
        size = cls.crop_of(param) or (options.new_height, options.new_width)
        if not min(size):
            return None
        planes = 3 if options.is_color else 1
        n = options.batch_size
        return [(n, planes, *size), (n, 1, *cls.label_size(param, size)), (n, 1, 1, 2)]

    @classmethod
    def crop_of(cls, param: Any) -> Size | None:
        """Height and width of what is cut from an image and its label map; None for all of it."""
        side: int = param.transform_param.crop_size
        return (side, side) if side else None

    @classmethod
    def label_size(cls, param: Any, size: Size) -> Size:
        """Height and width of label maps beside images of ``size``."""
        return size

    def read(self, param: Any, form: str, load: Load, changes: Changes, more: bool = False) -> LabelMapReader:
        """Return the reader of the list that the options name.

        Args:
            param: the ``LayerParameter``.
            form, more: as in :func:`..data.label_maps.read_pairs`.
            load: reads the files of a line.
            changes: what is done to both of a pair.
        """
        field = self.option_fields()[0]
        options = getattr(param, field)
        if field != "dense_image_data_param":
            warn_moved(self, options, field)
        size = self.batch_size(options)
        with prefixed(f"{field}.source"):
            pairs = read_pairs(options.source, form, more)
        order = Order.of_list(len(pairs), options, field, f"images of {options.source}")
        return LabelMapReader(load, pairs, size, order, changes, param.transform_param, self.phase)


def warn_moved(layer: BatchSource, options: Any, field: str) -> None:
    """Warn of options that ``layer`` does not read, in the fork either, but that other data layers know."""
    fields = options.DESCRIPTOR.fields_by_name
    for name in _MOVED:
        if name in fields and options.HasField(name):
            log.warning(
                'layer "%s" (%s): %s.%s has no effect; only transform_param.%s has',
                layer.name,
                layer.type_name,
                field,
                name,
                name,
            )


class SegmentationSource(LabelMapSource):
    """A line holds an image and what ``label_type`` says: a label map (PIXEL), one label (IMAGE, the default), or nothing.

    Crops are random in TRAIN and central in TEST. An image smaller than the crop is padded with its mean, its label map
    with ``ignore_label``.
    """

    options: ClassVar[tuple[str, ...] | None] = ("image_data_param", "transform_param")
    tops = (1, 3)
    nearest: ClassVar[bool] = True
    windows: ClassVar[bool] = False
    forms: ClassVar[tuple[str, str, str]] = ("IMAGE LABELMAP", "IMAGE LABEL", "IMAGE")

    def relabelling(self, options: Any, load: Load, files: PairFiles, at: int) -> Load | None:
        """Return what reads a line, window and all, and changes its labels; None if they stay.

        Args:
            options: the layer's.
            load: reads a line.
            files: reads its files.
            at: which word of a line is the first corner of the window.
        """
        return None

    def make_reader(self, param: Any) -> LabelMapReader:
        options, transform = param.image_data_param, param.transform_param
        if transform.HasField("mean_file"):
            raise self.error("does not take transform_param.mean_file; give mean_value")
        size = self.size_option(options)
        whole = None if self.windows else size
        files = PairFiles(options.root_folder, options.is_color, whole, whole, self.nearest)
        kinds = caffe_pb2.ImageDataParameter
        form, load = self.forms[0], cast(Load, files.both)
        if options.label_type == kinds.IMAGE:
            form, load = self.forms[1], lambda words: files.filled(words, int(words[1]))
        elif options.label_type == kinds.NONE:
            form, load = self.forms[2], lambda pair: files.filled(pair, options.ignore_label)
        if self.windows:
            at = form.split().index("X1")
            load = functools.partial(_cut, load, at, options.ignore_label, size)
            load = self.relabelling(options, load, files, at) or load
        changes = Changes(
            crop=self.crop_of(param),
            at_random=self.phase == caffe_pb2.TRAIN,
            mirror=transform.mirror,
            scales=tuple(transform.scale_factors),
            pad_label=as_byte(options.ignore_label),
        )
        if any(not factor > 0 for factor in changes.scales):
            raise self.error(f"transform_param.scale_factors {list(changes.scales)}: each must be above 0")
        return self.read(param, form, load, changes, more=True)


def _cut(load: Load, at: int, outside: int, size: Size | None, words: Words) -> Sample:
    with prefixed(f"image {words[0]}"):
        return cut_window(load(words), corners(words, at), outside, size)


def corners(words: Words, at: int) -> tuple[int, int, int, int]:
    """The window in a line whose word ``at`` is its first corner: x1, y1, x2, y2, bounds included."""
    x1, y1, x2, y2 = map(int, words[at : at + 4])
    return x1, y1, x2, y2
