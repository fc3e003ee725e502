"""Data layers of images with label maps, as DeconvNet's Caffe has them (HyeonwooNoh/caffe, image_seg_data_layer.cpp, …)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...data.label_maps import PairFiles, Sample, Words, as_byte, cut_window
from ...errors import DataError
from ...layers.base import Shape
from ...layers.label_map_data import Load, SegmentationSource, corners
from ...layers.registry import register
from ...proto import caffe_pb2

_OTHER_LAYERS = frozenset({"has_label", "max_labels", "other_object_label"})


@register("ImageSegData", fork="deconvnet")
class ImageSegData(SegmentationSource):
    """Images and label maps of a list, cropped and mirrored together; label maps are resized by nearest neighbour.

    ``label_type`` says what a line has beside the image: the path of a label map (PIXEL), one label (IMAGE), or nothing.
    """

    inert_options = _OTHER_LAYERS


@register("WindowSegData", fork="deconvnet")
class WindowSegData(SegmentationSource):
    """Windows of images and of their label maps: lines as in ImageSegData, followed by the corners x1, y1, x2, y2.

    A window is resized to ``new_height`` × ``new_width``. Outside its image it is black, its label map ``ignore_label``.
    """

    inert_options = _OTHER_LAYERS
    windows = True
    forms = ("IMAGE LABELMAP X1 Y1 X2 Y2", "IMAGE LABEL X1 Y1 X2 Y2", "IMAGE X1 Y1 X2 Y2")


@register("WindowSegBinary", fork="deconvnet")
class WindowSegBinary(WindowSegData):
    """WindowSegData with label 1 for all from 1 to 254, if windows are resized. Source: window_seg_binary_layer.cpp."""

    def relabelling(self, options: Any, load: Load, files: PairFiles, at: int) -> Load | None:
        def binary(words: Words) -> Sample:
            sample = load(words)
            inside = (sample.labels > 0) & (sample.labels < 255)
            return sample._replace(labels=np.where(inside, np.uint8(1), sample.labels))

        return binary if options.new_height else None


@register("WindowInstSegData", fork="deconvnet")
class WindowInstSegData(WindowSegData):
    """WindowSegData for one instance: places of other instances get ``other_object_label``, if windows are resized.

    A line has besides a map of instances, after the label map, and at the end the instance that the window is of. Of the map
    0 and ``ignore_label`` are no instances. Source: window_inst_seg_data_layer.cpp.
    """

    inert_options = frozenset({"has_label", "max_labels"})
    forms = (
        "IMAGE LABELMAP INSTANCES X1 Y1 X2 Y2 INSTANCE",
        "IMAGE LABEL INSTANCES X1 Y1 X2 Y2 INSTANCE",
        "IMAGE X1 Y1 X2 Y2 INSTANCE",
    )

    def relabelling(self, options: Any, load: Load, files: PairFiles, at: int) -> Load | None:
        size, ignored, other = self.size_option(options), options.ignore_label, as_byte(options.other_object_label)
        if size is None or options.label_type != caffe_pb2.ImageDataParameter.PIXEL:
            return None

        def alone(words: Words) -> Sample:
            sample, whole = load(words), files.labels(words, 2)
            if whole.shape != sample.size:
                raise DataError(f"map of instances {words[2]} is not as large as the image {words[0]}")
            found = cut_window(Sample(whole, whole, sample.size), corners(words, at), 0, size).labels
            others = (found != int(words[-1])) & (found != ignored) & (found != 0)
            return sample._replace(labels=np.where(others, np.uint8(other), sample.labels))

        return alone


@register("WindowClsData", fork="deconvnet")
class WindowClsData(WindowSegData):
    """Windows of images, and which of the labels 1 to ``label_dim`` occur in their label maps: (N, ``label_dim``, 1, 1).

    0 and 255 do not count. Source: window_cls_data_layer.cpp.
    """

    options = ("image_data_param", "transform_param", "window_cls_data_param")

    def top_shapes(self) -> list[Shape]:
        shapes = super().top_shapes()
        return [shapes[0], *[(shapes[0][0], self._count(), 1, 1)][: len(shapes) - 1], *shapes[2:]]

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        shapes = super().known_shapes(param, channels)
        count = param.window_cls_data_param.label_dim
        return shapes and [shapes[0], (shapes[0][0], count, 1, 1), shapes[2]]

    def _count(self) -> int:
        count: int = self.param.window_cls_data_param.label_dim
        if count < 1:
            raise self.error(f"window_cls_data_param.label_dim: {count} must be at least 1")
        return count

    def forward(self) -> tuple[Tensor, ...]:
        tops = super().forward()
        if len(tops) < 2:
            return tops
        labels, count = tops[1].flatten(1).long(), self._count()
        labels = labels.where(labels != 255, 0)
        if labels.device.type == "cpu" and bool((labels > count).any()):
            raise self.error(f"label {int(labels.max())} is more than window_cls_data_param.label_dim: {count}")
        occur = torch.zeros(len(labels), count + 1, device=labels.device).scatter_(1, labels.clamp(max=count), 1.0)
        return (tops[0], occur[:, 1:, None, None].contiguous(), *tops[2:])
