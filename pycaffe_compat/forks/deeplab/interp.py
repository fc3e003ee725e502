"""Interp, as DeepLab's and PSPNet's Caffe have it (hszhao/PSPNet, interp_layer.cpp and util/interp.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("Interp", fork=("deeplab", "deeplab_v1", "pspnet", "synopsys", "caffe_ocr"))
class Interp(Layer):
    """Planes cropped by ``pad_beg`` and ``pad_end`` (at most 0), then resized by bilinear interpolation with aligned corners.

    The size comes from ``shrink_factor`` alone, ``(n - 1) / shrink + 1`` with the quotient rounded down, or from
    ``zoom_factor`` alone, ``n + (n - 1) * (zoom - 1)``, or else from ``height`` and ``width``, or else from both factors,
    shrink first.
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.interp_param
        self.crop = (-options.pad_beg, -options.pad_end)
        factors = [name for name in ("shrink_factor", "zoom_factor") if options.HasField(name)]
        both = options.HasField("height") and options.HasField("width")
        if min(self.crop) < 0:
            raise self.error(
                f"pad_beg: {options.pad_beg} and pad_end: {options.pad_end} must not be above 0; they crop"
            )
        if not factors and not both:
            raise self.error("needs interp_param.zoom_factor, shrink_factor, or height and width")
        self.plane = (options.height, options.width) if both and len(factors) != 1 else None
        self.shrink, self.zoom = options.shrink_factor, options.zoom_factor
        if self.plane is None and min(self.shrink, self.zoom) < 1:
            raise self.error(f"shrink_factor: {self.shrink} and zoom_factor: {self.zoom} must be at least 1")
        if self.plane is not None and min(self.plane) < 1:
            raise self.error(f"height: {self.plane[0]} and width: {self.plane[1]} must be at least 1")
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"needs a bottom (num, channels, height, width), not of shape {dims(bottom_shapes[0])}")
        if min(bottom_shapes[0][2:]) <= sum(self.crop):
            raise self.error(
                f"pad_beg: {options.pad_beg} and pad_end: {options.pad_end} leave nothing of planes of "
                f"{dims(bottom_shapes[0][2:])}"
            )

    def _side(self, n: int) -> int:
        n = (n - 1) // self.shrink + 1
        return n + (n - 1) * (self.zoom - 1)

    def forward(self, x: Tensor) -> Tensor:
        begin, end = self.crop
        x = x[:, :, begin : x.shape[2] - end, begin : x.shape[3] - end]
        size = self.plane or (self._side(x.shape[2]), self._side(x.shape[3]))
        return F.interpolate(x, size, mode="bilinear", align_corners=True)
