"""ROIPooling, as MS-CNN's Caffe has it (zhaoweicai/mscnn, roi_pooling_layer.cpp and .cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape
from ...layers.registry import register
from ..fast_rcnn.bins import rounded
from ..fast_rcnn.roi_pooling import ROIPooling


@register("ROIPooling", fork="mscnn")
class PaddedROIPooling(ROIPooling):
    """As Fast R-CNN's, but regions are first enlarged on each side by ``pad_ratio`` of their size.

    On its way back Caffe cuts regions to the image, but not on its way forward, so that it loses the gradients of bins
    that it no longer finds.
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.pad_ratio = param.roi_pooling_param.pad_ratio

    def cells_of(self, corners: Tensor) -> tuple[Tensor, Tensor]:
        low, high = corners.chunk(2, 1)
        pad = (high - low + 1) * self.pad_ratio
        return rounded((low - pad) * self.scale), rounded((high + pad) * self.scale)

    def gradient_span(self, low: Tensor, high: Tensor, side: int) -> tuple[Tensor, Tensor]:
        image = rounded(torch.tensor(float(side)) / self.scale)
        return low.clamp(min=0), high.clamp(max=int(image) - 1)
