"""MultiBoxFocalLoss (canteen-man/MobileNet-SSD-Focal-loss, multibox_focal_loss_layer.cpp and focal_loss_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ...layers.base import Shape
from ...layers.loss import FLT_MIN, floored
from ...layers.registry import register
from ..ssd.multibox_loss import MultiBoxLoss


@register("MultiBoxFocalLoss", fork="ssd_focal")
class MultiBoxFocalLoss(MultiBoxLoss):
    """SSD's MultiBoxLoss; with SOFTMAX, scores cost ``-alpha (1 - p)^gamma log(p)`` for a label's probability p.

    Mining ranks by ``-log(p)``, as SSD's.
    """

    options: ClassVar[tuple[str, ...] | None] = ("multibox_loss_param", "loss_param", "focal_loss_param")
    inert_options = frozenset({"engine", "axis"})  # the fork's own axis is always that of the classes

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.focal_loss_param
        self.alpha, self.gamma = options.alpha, options.gamma
        if self.gamma < 0:
            raise self.error(f"focal_loss_param.gamma: {self.gamma:g} must not be negative")

    def entropy(self, logarithms: Tensor) -> Tensor:
        return -self.alpha * ((1 - logarithms.exp()).pow(self.gamma) * floored(logarithms, FLT_MIN)).sum()
