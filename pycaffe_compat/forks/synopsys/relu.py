"""ReLU with limits, as synopsys-caffe has it (relu_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape
from ...layers.neuron import Overwritten
from ...layers.registry import register


@register("ReLU", fork="synopsys")
class LimitedReLU(Overwritten):
    """ReLU, then clipped to 6 (``relu6``), ``maximum`` and ``minimum``, if these are not 0.

    The gradient is 0 at and beyond a limit.
    """

    inert_options = frozenset({"engine"})

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.relu_param
        self.negative_slope = options.negative_slope
        limits = [limit for limit in (6.0 if options.relu6 else 0.0, options.maximum) if limit > 0]
        self.most = min(limits, default=float("inf"))
        self.least = options.minimum or float("-inf")

    @classmethod
    def fits(cls, param: Any) -> bool:
        options = param.relu_param
        return any(options.HasField(name) for name in ("relu6", "maximum", "minimum"))

    def function(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(x, self.negative_slope) if self.negative_slope else F.relu(x)
        value = y.detach().clamp(max=self.most).clamp(min=self.least)
        # a negative slope may exceed a limit, but the gradient depends only on the bottom
        return torch.where((x < self.most) & (x > self.least), y + (value - y.detach()), value)

    def slope(self, bottom: Tensor, top: Tensor) -> Tensor:
        rising = torch.where(bottom > 0, 1, self.negative_slope).to(bottom.dtype)
        return torch.where((bottom < self.most) & (bottom > self.least), rising, 0)
