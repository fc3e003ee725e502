"""ManhattanLoss, a layer of the joint regressor's Caffe (qxcv/caffe, manhattan_loss_layer.cpp)."""

from __future__ import annotations

from torch import Tensor

from ...layers.loss import LossLayer, precise
from ...layers.registry import register
from ...layers.slope import WithSlope

EPSILON = 1e-3


@register("ManhattanLoss", fork="joint_regressor")
class ManhattanLoss(LossLayer):
    """``sum(|a - b|) / N``; both bottoms get gradients.

    Their gradient has ``d / (|d| + 0.001)`` in the place of the sign of a difference ``d``, as in the source.
    """

    options = ()
    differentiable = (True,)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        n = self.batch_size(a, b)
        self.same_count(a, b)
        difference = precise(a) - precise(b).reshape(a.shape)
        size = difference.detach().abs()
        return WithSlope.apply(difference, size, difference.detach() / (size + EPSILON)).sum() / n
