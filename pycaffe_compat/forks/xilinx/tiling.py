"""Tiling and GSTiling, as Xilinx's Caffe has them (Xilinx/Vitis-AI, caffe-xilinx, tiling_layer.cpp and gs_tiling_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


class _Tiles(Layer):
    """Exchanges channels for places, in squares of ``side`` x ``side`` that the option ``field`` gives."""

    field = ""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        (option,) = self.option_fields()
        self.side = getattr(getattr(param, option), self.field)
        self.reverse = param.gs_tiling_param.reverse
        if self.side < 1:
            raise self.error(f"{option}.{self.field}: {self.side} must be at least 1")
        self.check_bottom(bottom_shapes[0])

    def check_bottom(self, shape: Shape) -> None:
        """Raise unless the bottom has four axes, and each square of the top as many channels as places."""
        if len(shape) != 4:
            raise self.error(f"needs a bottom (num, channels, height, width), not of shape {dims(shape)}")
        if shape[1] % self.side**2:
            raise self.error(f"{self.field}: {self.side}, squared, must divide its bottom's {shape[1]} channels")


@register("Tiling", fork="xilinx")
class Tiling(_Tiles):
    """(N, C, H, W) to (N, C / t², H * t, W * t), t = ``tile_dim``: each t² consecutive channels fill a square."""

    options = ("tiling_param",)
    field = "tile_dim"

    def forward(self, x: Tensor) -> Tensor:
        """Return the tiled planes."""
        self.check_bottom(x.shape)
        n, c, h, w = x.shape
        if not x.numel():  # pixel_shuffle's gradient has another shape then
            return x.reshape(n, c // self.side**2, h * self.side, w * self.side)
        return F.pixel_shuffle(x, self.side)


@register("GSTiling", fork="xilinx")
class GSTiling(_Tiles):
    """(N, C, H, W) to (N, C * s², H / s, W / s), s = ``stride``: channels of the same place in their square are contiguous.

    ``reverse`` goes back: (N, C / s², H * s, W * s).
    """

    options = ("gs_tiling_param",)
    field = "stride"

    def check_bottom(self, shape: Shape) -> None:
        if self.reverse or len(shape) != 4:
            super().check_bottom(shape)
        elif shape[2] % self.side or shape[3] % self.side:
            raise self.error(
                f"gs_tiling_param.stride: {self.side} must divide the sides of planes of {dims(shape[2:])}"
            )

    def forward(self, x: Tensor) -> Tensor:
        self.check_bottom(x.shape)
        n, c, h, w = x.shape
        s = self.side
        if self.reverse:
            few = c // s**2
            return x.reshape(n, s, s, few, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, few, h * s, w * s)
        return x.reshape(n, c, h // s, s, w // s, s).permute(0, 3, 5, 1, 2, 4).reshape(n, c * s**2, h // s, w // s)
