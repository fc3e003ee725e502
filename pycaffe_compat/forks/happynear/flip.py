"""Flip, as happynear's Caffe has it (happynear/caffe-windows, flip_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("Flip", fork="happynear")
class Flip(Layer):
    """Mirrors each plane of (N, C, H, W): left and right (``flip_width``, the default), top and bottom (``flip_height``)."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.flip_param
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"needs a bottom with 4 axes (N, C, H, W), not of shape {dims(bottom_shapes[0])}")
        self.axes = [axis for axis, flips in ((3, options.flip_width), (2, options.flip_height)) if flips]

    def forward(self, x: Tensor) -> Tensor:
        return torch.flip(x, self.axes)
