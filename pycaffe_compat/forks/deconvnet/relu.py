"""ReLU that tells where it passed values, as DeconvNet's Caffe has it (HyeonwooNoh/caffe, relu_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register


@register("ReLU", fork="deconvnet")
class MaskedReLU(Layer):
    """ReLU; a second top is 1 where the bottom is above 0, otherwise 0, and has no gradient."""

    inert_options = frozenset({"engine"})
    tops = (2, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.negative_slope: float = param.relu_param.negative_slope

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.top) == 2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = F.leaky_relu(x, self.negative_slope) if self.negative_slope else F.relu(x)
        return y, (x.detach() > 0).to(x.dtype)
