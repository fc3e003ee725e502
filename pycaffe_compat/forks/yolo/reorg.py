"""Reorg, as MobileNet-YOLO's Caffe has it from Darknet (eric612/MobileNet-YOLO, reorg_layer.cpp and .hpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims

DEFAULT_STRIDE = 2  # choasup/caffe-yolo9000's; the others have none, and crash without a stride


@register("Reorg", fork=("yolo", "intel", "synopsys", "xilinx"))
class Reorg(Layer):
    """Darknet's reorg, which moves places into channels: (N, C, H, W) to (N, C * stride², H / stride, W / stride).

    It is not space to depth: the bottom's memory is read as (N, C / stride², H * stride, W * stride), and each square of
    ``stride`` x ``stride`` of that gives its values to as many blocks of channels. ``reverse`` spreads channels over
    squares: (N, C / stride², H * stride, W * stride).
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.reorg_param, bottom_shapes[0]
        self.stride = options.stride if options.HasField("stride") else DEFAULT_STRIDE
        self.reverse = options.reverse
        if self.stride < 1:
            raise self.error(f"reorg_param.stride: {self.stride} must be at least 1")
        if len(shape) != 4:
            raise self.error(f"needs a bottom (num, channels, height, width), not of shape {dims(shape)}")
        if shape[1] % self.stride**2:
            raise self.error(
                f"reorg_param.stride: {self.stride}, squared, must divide its bottom's {shape[1]} channels"
            )
        if not self.reverse and (shape[2] % self.stride or shape[3] % self.stride):
            raise self.error(f"reorg_param.stride: {self.stride} must divide the sides of planes of {dims(shape[2:])}")

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        s = self.stride
        few = c // s**2
        if self.reverse:
            return x.reshape(n, s, s, few, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, few, h * s, w * s)
        squares = x.reshape(n, few, h, s, w, s)
        return squares.permute(0, 3, 5, 1, 2, 4).reshape(n, c * s**2, h // s, w // s)
