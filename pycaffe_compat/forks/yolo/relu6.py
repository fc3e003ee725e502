"""ReLU6, as MobileNet-YOLO's Caffe has it (eric612/MobileNet-YOLO, relu6_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.neuron import Overwritten
from ...layers.registry import register


@register("ReLU6", fork=("yolo", "synopsys", "xilinx"))
class ReLU6(Overwritten):
    """``x`` above 0, else ``negative_slope * x``, and at most 6; the gradient is 0 from 6 on, ``negative_slope`` up to 0."""

    options = ("relu6_param",)
    inert_options = frozenset({"engine"})
    limit = 6.0

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.negative_slope = param.relu6_param.negative_slope
        self.spoils = self.negative_slope < 0
        self.keeps_positive = self.negative_slope >= 0

    def withstands(self, later: Layer) -> bool:
        return False

    def function(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(x, self.negative_slope) if self.negative_slope else F.relu(x)
        return torch.where(y < self.limit, y, self.limit)  # clamp would pass the gradient at the limit

    def slope(self, bottom: Tensor, top: Tensor) -> Tensor:
        rising = torch.where(bottom > 0, 1, self.negative_slope).to(bottom.dtype)
        return torch.where(bottom < self.limit, rising, 0)
