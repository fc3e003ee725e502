"""FocalLoss over class scores, as happynear's Caffe has it (happynear/caffe-windows, focal_loss_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Shape
from ...layers.loss import FLT_MIN, SoftmaxLoss, floored
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...proto import caffe_pb2

LEAST = 1e-10  # what the gradient divides by at least


@register("FocalLoss", fork="happynear")
class FocalLoss(SoftmaxLoss):
    """Mean of ``-(alpha - p)^gamma log(p)``, where p is the softmax at the label; ``type: ONEADDP`` uses ``alpha + p``.

    The gradient takes ``alpha`` for 1, as in the fork. A second top holds the softmax. The fork reads neither ``beta`` nor
    ``type: LINEAR``.
    """

    options = ("focal_loss_param", "softmax_param", "loss_param")
    inert_options = frozenset({"engine", "beta"})
    floor = FLT_MIN
    axis_option = "softmax_param.axis"

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.focal_loss_param
        self.gamma, self.alpha = options.gamma, options.alpha
        self.sign = 1 if options.type == caffe_pb2.FocalLossParameter.ONEADDP else -1
        if self.gamma < 0 or not self.alpha > 0:
            raise self.error(
                f"focal_loss_param: gamma: {self.gamma:g} must not be negative, and alpha: {self.alpha:g} be above 0"
            )

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the loss as a tensor without axes, and the probabilities if there is a top for them."""
        logarithms, axis, labels = self.log_probabilities(x, label)
        logarithm = floored(logarithms.gather(axis, labels.classes), self.floor)
        log_p = logarithm.detach()
        p = log_p.exp()
        weight = (self.alpha + self.sign * p).pow(self.gamma)
        change = self.sign * self.gamma * weight / (1 + self.sign * p).clamp(min=LEAST) * log_p * p
        loss = WithSlope.apply(logarithm, -weight * log_p, -(weight + change))
        return self.finish(x, axis, labels, loss)
