"""DeephiResize, as Xilinx's Caffe has it (Xilinx/Vitis-AI, AI-Model-Zoo/caffe-xilinx, deephi_resize_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...proto import caffe_pb2
from ...tables import dims


@register("DeephiResize", fork="xilinx")
class DeephiResize(Layer):
    """Planes resized as in OpenCV: the value to the left and above (``NEAREST``), or bilinear with half-pixel centres.

    The size is ``new_height`` x ``new_width``, or ``scale_h`` and ``scale_w`` times that of the bottom, rounded down. The fork
    has no gradient; here it is the derivative.
    """

    options = ("deephi_resize_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.deephi_resize_param, bottom_shapes[0]
        if len(shape) != 4:
            raise self.error(f"needs a bottom (num, channels, height, width), not of shape {dims(shape)}")
        for both in (("new_height", "new_width"), ("scale_h", "scale_w")):
            if len({options.HasField(name) for name in both}) == 2:
                raise self.error(f"deephi_resize_param has one of {both[0]} and {both[1]}; give both or none")
        if options.use_dpu:
            raise self.error(
                "deephi_resize_param.use_dpu: true computes in bytes, as the DPU does; that is not supported"
            )
        self.nearest = options.resize_type == caffe_pb2.DeephiResizeParameter.NEAREST
        self.fixed = (options.new_height, options.new_width) if options.HasField("new_height") else None
        self.scales = (np.float32(options.scale_h), np.float32(options.scale_w))
        if min(self.size(shape)) < 1:
            raise self.error(f"resizes planes of {dims(shape[2:])} to {dims(self.size(shape))}")

    def size(self, shape: Sequence[int]) -> tuple[int, int]:
        """Height and width of the top of a bottom with this shape."""
        if self.fixed is not None:
            return self.fixed
        height, width = (int(np.float32(n) * s) for n, s in zip(shape[2:], self.scales, strict=True))
        return height, width

    def forward(self, x: Tensor) -> Tensor:
        size = self.size(x.shape)
        if not self.nearest:
            return F.interpolate(x, size, mode="bilinear", align_corners=False)
        for axis, after in enumerate(size, 2):
            x = x.index_select(axis, x.new_tensor(nearest(x.shape[axis], after)).long())
        return x


def nearest(before: int, after: int) -> list[int]:
    """Of each place among ``after`` the nearest one among ``before``, as OpenCV's ``INTER_NEAREST`` computes it."""
    step = 1 / (after / before)
    return [min(int(place * step), before - 1) for place in range(after)]
