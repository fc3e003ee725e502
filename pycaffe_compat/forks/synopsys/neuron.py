"""Functions of single values, as synopsys-caffe has them (mish_layer.cpp, hard_swish_layer.cpp)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer
from ...layers.registry import register
from ...layers.slope import WithSlope


@register("Mish", fork="synopsys")
class Mish(Layer):
    """``x * tanh(log(1 + exp(x)))``. As in the fork, the gradient is the function's slope at the top's value."""

    options = ()

    def forward(self, x: Tensor) -> Tensor:
        y = F.mish(x.detach())
        soft = F.softplus(y)
        rise = soft.tanh()
        return WithSlope.apply(x, y, rise + y * (1 - rise * rise) * -torch.expm1(-soft))


@register("HardSwish", fork="synopsys")
class HardSwish(Layer):
    """``x * min(max(x + 3, 0), 6) / 6``."""

    options = ()

    def forward(self, x: Tensor) -> Tensor:
        return x * (x + 3).clamp(0, 6) / 6
