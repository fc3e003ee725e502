"""Transpose and Reverse, as CTPN's Caffe has them (tianzhi0549/CTPN, transpose_layer.cpp, reverse_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("Transpose", fork=("ctpn", "caffe_ocr"))
class Transpose(Layer):
    """Reorders the axes as ``dim`` says, which names each of them once."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.order = tuple(param.transpose_param.dim)
        if sorted(self.order) != list(range(len(bottom_shapes[0]))):
            raise self.error(
                f"transpose_param.dim: {dims(self.order) or 'nothing'} must name each axis of {dims(bottom_shapes[0])} once"
            )

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order).contiguous()


@register("Reverse", fork=("ctpn", "caffe_ocr"))
class Reverse(Layer):
    """Reverses the bottom along ``axis``, by default the first."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.axis = self.canonical_axis(param.reverse_param.axis, len(bottom_shapes[0]), "reverse_param.axis")

    def forward(self, x: Tensor) -> Tensor:
        return torch.flip(x, (self.axis,))
