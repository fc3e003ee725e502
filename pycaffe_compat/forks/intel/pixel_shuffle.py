"""Reshape that spreads channels over planes, as Intel's Caffe has it (intel/caffe, reshape_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("Reshape", fork="intel")
class PixelShuffle(Layer):
    """With ``pixelshuffler: r``, (N, C * r², H, W) to (N, C, H * r, W * r): r² channels fill a square, row by row."""

    options = ("reshape_param",)
    inert_options = frozenset({"shape", "axis", "num_axes"})

    @classmethod
    def fits(cls, param: Any) -> bool:
        return bool(param.reshape_param.HasField("pixelshuffler") and param.reshape_param.pixelshuffler != 1)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.factor, shape = param.reshape_param.pixelshuffler, bottom_shapes[0]
        if self.factor < 1:
            raise self.error(f"reshape_param.pixelshuffler: {self.factor} must be at least 1")
        if len(shape) != 4 or shape[1] % self.factor**2:
            raise self.error(
                f"needs a bottom (N, C, H, W) whose channels reshape_param.pixelshuffler: {self.factor} divides, squared; not "
                f"of shape {dims(shape)}"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H * r, W * r)."""
        return F.pixel_shuffle(x, self.factor)
