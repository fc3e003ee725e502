"""ROIPooling, as happynear's Caffe has it (happynear/caffe-windows, roi_pooling_layer.cpp and .cu)."""

from __future__ import annotations

from torch import Tensor

from ...layers.registry import register
from ..fast_rcnn.roi_pooling import ROIPooling


@register("ROIPooling", fork="happynear")
class HalvesUpROIPooling(ROIPooling):
    """As Fast R-CNN's, but halves are rounded up, for negative coordinates too."""

    def cells_of(self, corners: Tensor) -> tuple[Tensor, Tensor]:
        low, high = corners.chunk(2, 1)
        return (low * self.scale + 0.5).floor(), (high * self.scale + 0.5).floor()
