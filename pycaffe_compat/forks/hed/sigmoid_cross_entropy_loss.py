"""SigmoidCrossEntropyLoss balanced by class, as the Caffe of holistically nested edges has it (s9xie/hed)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import LossLayer, precise
from ...layers.registry import register
from ...layers.slope import WithSlope


@register("SigmoidCrossEntropyLoss", fork="hed")
class BalancedSigmoidCrossEntropyLoss(LossLayer):
    """Cross entropy of ``sigmoid(x)`` and targets 0 or 1, with equal weight for both in each image, divided by N.

    A place with target 1 weighs as much as the share of the zeros among the zeros and ones of its image, and the other way
    round. A target of any other value adds nothing, but its gradient is ``sigmoid(x) - target`` over N, as in the fork.
    Source: ``sigmoid_cross_entropy_loss_layer.cpp`` of s9xie/hed.
    """

    options = ("loss_param",)
    replaces_bvlcs = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if given := [field.name for field, _ in param.loss_param.ListFields()]:
            raise self.error(f"takes no loss_param.{given[0]}: in HED's Caffe it is always divided by the batch size")

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        n = self.batch_size(x, target)
        self.same_count(x, target)
        scores = precise(x).reshape(n, count(x.shape, 1))
        wanted = target.detach().reshape(scores.shape).to(scores.dtype)
        ones, zeros = wanted == 1, wanted == 0
        positives, negatives = (kind.sum(1, keepdim=True).to(scores.dtype) for kind in (ones, zeros))
        both = positives + negatives
        weights = ones * (negatives / both) + zeros * (positives / both)
        values = F.binary_cross_entropy_with_logits(scores.detach(), wanted, reduction="none")
        slopes = (scores.detach().sigmoid() - wanted) * weights.where(ones | zeros, 1)
        return WithSlope.apply(scores, (values * weights).where(ones | zeros, 0), slopes).sum() / n
