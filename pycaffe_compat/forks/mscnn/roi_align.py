"""ROIAlign, as MS-CNN's and Cascade R-CNN's Caffe have it (zhaoweicai/mscnn, roi_align_layer.cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, untraced
from ...layers.registry import register
from ...tables import dims
from ..fast_rcnn.bins import read_pooled, read_regions


@register("ROIAlign", fork=("mscnn", "cascade_rcnn"))
class GridROIAlign(Layer):
    """Values at the corners of a region's bins, ``pooled_h + 1`` by ``pooled_w + 1``, by bilinear interpolation.

    A region is made larger by ``pad_ratio`` of its sides on each side. What lies more than half a place outside of the plane
    is 0, and so is a region without area. No gradient flows to regions.
    """

    options = ("roi_pooling_param",)
    bottoms = (2, 2)
    differentiable = (True, False)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.roi_pooling_param, bottom_shapes[0]
        if len(shape) != 4:
            raise self.error(f"needs a bottom (num, channels, height, width), not of shape {dims(shape)}")
        self.pooled = read_pooled(self, options, "roi_pooling_param")
        self.scale, self.pad_ratio = options.spatial_scale, options.pad_ratio

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        """Return (R, channels, pooled_h + 1, pooled_w + 1) for regions (R, 5) of image, x1, y1, x2, y2.

        Raises:
            LayerError: a region is of no image of the batch.
        """
        if x.is_meta:
            return x.new_empty((len(regions), x.shape[1], *(n + 1 for n in self.pooled)))
        return self.align(x, regions)

    @untraced
    def align(self, x: Tensor, regions: Tensor) -> Tensor:
        """As :meth:`forward`, for tensors with memory."""
        images, corners = read_regions(self, x, regions)
        low, high = corners.chunk(2, 1)
        pad = (high - low + 1) * self.pad_ratio
        low, high = (low - pad) * self.scale - 0.5, (high + pad) * self.scale - 0.5
        size = high - low
        weights, places = [], []
        for k, bins, side in ((1, self.pooled[0], x.shape[2]), (0, self.pooled[1], x.shape[3])):
            step = torch.arange(bins + 1, dtype=low.dtype, device=x.device)
            at = low[:, k, None] + step * (size[:, k, None] / bins)
            inside = (at >= -0.5) & (at <= side - 0.5) & (size > 0).all(1, keepdim=True)
            first = at.floor().long().clamp(-1, side)
            rest = at.clamp(0, side - 1) - first.clamp(0, side - 1)
            weights.append([torch.where(inside, share, 0).to(x.dtype) for share in (1 - rest, rest)])
            places.append([place.clamp(0, side - 1) for place in (first, first + 1)])
        rows = x.movedim(1, -1)
        y = x.new_zeros(())
        for down, row in zip(weights[0], places[0], strict=True):
            for across, column in zip(weights[1], places[1], strict=True):
                values = rows[images[:, None, None], row[:, :, None], column[:, None]]
                y = y + values * (down[:, :, None] * across[:, None])[..., None]
        return y.movedim(-1, 1).contiguous()
