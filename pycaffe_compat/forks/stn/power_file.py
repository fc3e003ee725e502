"""PowerFile (daerduoCarey/SpatialTransformerLayer, power_file_layer.cpp and .cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.fillers import read_numbers
from ...layers.registry import register


@register("PowerFile", fork="stn")
class PowerFile(Layer):
    """``x`` plus the numbers of ``shift_file``, one for each value of an item; missing numbers are 0."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.power_file_param, bottom_shapes[0]
        if not shape:
            raise self.error("needs a bottom with at least 1 axis")
        self.shift = torch.zeros(count(shape, 1))
        if options.HasField("shift_file"):
            numbers = read_numbers(options.shift_file, "shift_file")[: len(self.shift)]
            self.shift[: len(numbers)] = torch.tensor(numbers)
        self.shift = self.shift.view(shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift.to(x)
