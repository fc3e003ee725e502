"""Padding, as DeepLab v1's Caffe has it (padding_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("Padding", fork="deeplab_v1")
class Padding(Layer):
    """Pads planes with ``pad_beg`` rows and columns of 0 before and ``pad_end`` after them; negative numbers crop."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.padding_param, tuple(bottom_shapes[0])
        self.begin, self.end = options.pad_beg, options.pad_end
        if self.begin * self.end < 0:
            raise self.error(f"pad_beg: {self.begin} and pad_end: {self.end} must not have different signs")
        if len(shape) != 4:
            raise self.error(f"needs a bottom (num, channels, height, width), not of shape {dims(shape)}")
        if min(shape[2:]) + self.begin + self.end < 1:
            raise self.error(
                f"pad_beg: {self.begin} and pad_end: {self.end} leave nothing of planes of {dims(shape[2:])}"
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (self.begin, self.end, self.begin, self.end))
