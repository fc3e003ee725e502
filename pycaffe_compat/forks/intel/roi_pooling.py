"""ROIPooling, as Intel's Caffe has it (intel/caffe, roi_pooling_layer.cpp)."""

from __future__ import annotations

from typing import Any

from ...layers.base import Shape
from ...layers.registry import register
from ...tables import dims
from ..fast_rcnn.roi_pooling import ROIPooling


@register("ROIPooling", fork="intel")
class VolumeROIPooling(ROIPooling):
    """As Fast R-CNN's, but no gradient is lost. ``pooled_size`` also pools volumes.

    Regions of a volume (num, channels, depth, height, width) are image, z1, x1, y1, z2, x2, y2.
    """

    loses = False

    def read_sizes(self, options: Any, shape: Shape) -> tuple[int, ...]:
        axes = len(shape) - 2
        if axes == 2 and not options.pooled_size:
            return super().read_sizes(options, shape)
        if axes not in (2, 3):
            raise self.error(f"needs a bottom of 4 or 5 axes, not of shape {dims(shape)}")
        if axes == 3 and (options.HasField("pooled_h") or options.HasField("pooled_w")):
            raise self.error("roi_pooling_param: pooled_h and pooled_w are for planes; give pooled_size for volumes")
        sizes = tuple(options.pooled_size)
        if len(sizes) not in (1, axes):
            raise self.error(f"needs roi_pooling_param.pooled_size once or {axes} times, not {len(sizes)} times")
        if not all(sizes):
            raise self.error("roi_pooling_param.pooled_size: 0 must be at least 1")
        return sizes * axes if len(sizes) == 1 else sizes
