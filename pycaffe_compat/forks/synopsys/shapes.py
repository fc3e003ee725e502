"""Layers that change shapes, as synopsys-caffe has them (pad_layer.cpp and squeeze_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("Pad", fork="synopsys")
class Pad(Layer):
    """Pads the bottom with ``constant_values``; ``paddings`` has the numbers before and after each axis, in order.

    The fork has no gradient; here it is the true one.
    """

    options = ("pad_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        paddings, axes = list(param.pad_param.paddings), len(bottom_shapes[0])
        if len(paddings) != 2 * axes:
            raise self.error(
                f"pad_param.paddings is given {len(paddings)} times; a bottom of shape {dims(bottom_shapes[0])} needs "
                f"{2 * axes}, two for each axis"
            )
        pairs = [paddings[i : i + 2] for i in range(0, 2 * axes, 2)]
        self.paddings = [number for pair in reversed(pairs) for number in pair]  # torch's begin with the last axis
        self.value: float = param.pad_param.constant_values

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.paddings, value=self.value)


@register("Squeeze", fork="synopsys")
class Squeeze(Layer):
    """Removes the axes ``axis``, which must have length 1; if none is given, removes all axes of length 1."""

    options = ("squeeze_param",)
    shares_memory = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        shape = bottom_shapes[0]
        self.given = {self.canonical_axis(axis, len(shape)) for axis in param.squeeze_param.axis}
        self.top_shape(shape)

    def top_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the top.

        Raises:
            LayerError: an axis that is given is not of length 1.
        """
        for axis in sorted(self.given):
            if shape[axis] != 1:
                raise self.error(f"squeeze_param.axis: {axis} of a bottom of shape {dims(shape)} is not of length 1")
        return tuple(n for axis, n in enumerate(shape) if n != 1 or (self.given and axis not in self.given))

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self.top_shape(x.shape))
