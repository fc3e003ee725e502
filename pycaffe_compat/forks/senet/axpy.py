"""Axpy, as SENet's Caffe has it (hujie-frank/SENet, axpy_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("Axpy", fork=("senet", "densenet", "yolo", "nvidia", "intel", "happynear", "synopsys"))
class Axpy(Layer):
    """``a * x + y``: ``a`` (N, C, 1, …) has one factor per channel, and ``x`` and ``y`` have the same shape."""

    bottoms = (3, 3)
    options = ()

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        scale, x, y = (tuple(shape) for shape in bottom_shapes)
        if x != y:
            raise self.error(f"its second and third bottoms must have one shape, but have {dims(x)} and {dims(y)}")
        if len(x) < 2 or scale[:2] != x[:2] or set(scale[2:]) - {1}:
            allowed = f"{dims(x[:2])} or {dims((*x[:2], 1, 1))}"
            raise self.error(f"its first bottom must have shape {allowed} for a second of {dims(x)}, not {dims(scale)}")

    def forward(self, scale: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return scale.reshape(*x.shape[:2], *(1,) * (x.dim() - 2)) * x + y
