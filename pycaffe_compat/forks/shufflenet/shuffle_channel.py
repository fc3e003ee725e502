"""ShuffleChannel, as ShuffleNet's Caffe has it (farmingyard/ShuffleNet, shuffle_channel_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("ShuffleChannel", fork=("shufflenet", "synopsys"))
class ShuffleChannel(Layer):
    """Interleaves the channels of ``group`` groups: channel ``g * (C / group) + k`` becomes ``k * group + g``.

    The top has four axes, those that the bottom lacks being 1.
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.group = param.shuffle_channel_param.group
        shape = bottom_shapes[0]
        if not 2 <= len(shape) <= 4:
            raise self.error(f"needs a bottom with 2 to 4 axes, not of shape {dims(shape)}")
        if self.group < 1 or shape[1] % self.group:
            raise self.error(f"shuffle_channel_param.group: {self.group} must divide its bottom's {shape[1]} channels")

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(*x.shape, *(1,) * (4 - x.dim()))
        return x.unflatten(1, (self.group, x.shape[1] // self.group)).transpose(1, 2).flatten(1, 2)
