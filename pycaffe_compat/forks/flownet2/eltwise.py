"""Eltwise, as FlowNet2's Caffe has it (lmb-freiburg/flownet2, eltwise_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ...layers.base import Shape
from ...layers.common import Eltwise
from ...layers.registry import register


@register("Eltwise", fork=("flownet2", "liteflownet", "pwcnet"))
class AnyEltwise(Eltwise):
    """BVLC's Eltwise, but also accepts a single bottom: the result is the bottom times its ``coeff``."""

    replaces_bvlcs = True
    bottoms: ClassVar[tuple[int, int | None]] = (1, None)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if len(bottom_shapes) == 1 and self.operation != "SUM":
            raise self.error(f"operation: {self.operation} needs at least 2 bottoms")

    def forward(self, *bottoms: Tensor) -> Tensor:
        """Return a tensor of the shape of each bottom."""
        return super().forward(*bottoms) if len(bottoms) > 1 else bottoms[0] * self.coeffs[0]
