"""WeightedSoftmaxWithLoss, a layer that was added to several Caffes (silver-rush/Weighted_Softmax_Loss)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Shape
from ...layers.loss import SoftmaxWithLoss, floored
from ...layers.registry import register


@register("WeightedSoftmaxWithLoss", fork="weighted_softmax")
class WeightedSoftmaxWithLoss(SoftmaxWithLoss):
    """SoftmaxWithLoss, but places with the label ``softmax_param.pos_cid`` count ``pos_mult`` times.

    What the sum is divided by does not change.
    """

    fork_options = frozenset({"softmax_param.pos_mult", "softmax_param.pos_cid"})

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.weight: float = param.softmax_param.pos_mult
        self.weighted_class: int = param.softmax_param.pos_cid

    @classmethod
    def fits(cls, param: Any) -> bool:
        return True

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the loss as a tensor without axes, and the probabilities if there is a top for them."""
        logarithms, axis, labels = self.log_probabilities(x, label)
        loss = -floored(logarithms.gather(axis, labels.classes), self.floor)
        loss = loss.where(labels.classes != self.weighted_class, loss * self.weight)
        return self.finish(x, axis, labels, loss)
