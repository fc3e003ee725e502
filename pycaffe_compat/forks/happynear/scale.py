"""Scale with limits, as happynear's Caffe has it (happynear/caffe-windows, scale_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Shape
from ...layers.linear import Scale
from ...layers.registry import register
from ...layers.slope import rewritten


@register("Scale", fork="happynear")
class LimitedScale(Scale):
    """Scale, but its factors are clipped to ``min_value`` … ``max_value`` before each pass."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.scale_param
        self.least = options.min_value if options.HasField("min_value") else None
        self.most = options.max_value if options.HasField("max_value") else None

    @classmethod
    def fits(cls, param: Any) -> bool:
        options = param.scale_param
        return bool(options.HasField("min_value") or options.HasField("max_value"))

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        factors = self.weight if scale is None else scale
        if not x.is_meta:
            factors = rewritten(factors, factors.detach().clamp(self.least, self.most))
        return super().forward(x, factors)
