"""L1Loss, as FlowNet2's Caffe has it (lmb-freiburg/flownet2, l1loss_layer.cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape
from ...layers.loss import LossLayer
from ...layers.registry import register


@register("L1Loss", fork=("flownet2", "liteflownet", "pwcnet"))
class LocationL1Loss(LossLayer):
    """``sum |a - b| / N``, ignoring NaN, or of a single bottom; ``l2_per_location`` takes L2 norms over channels.

    That is ``sqrt(sum of squares + epsilon)``, or that sum to LiteFlowNet's ``power``; with ``l2_prescale_by_channels`` it is of
    the mean of squares. Differences (or sums of squares) below ``plateau`` (its square) count as 0. ``normalize_by_num_entries``
    divides by how many differences are numbers, by the number of channels, and not by N.
    """

    options = ("l1_loss_param",)
    bottoms = (1, 2)
    differentiable = (True, True)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.l1_loss_param
        self.l2, self.prescale = options.l2_per_location, options.l2_prescale_by_channels
        self.power = options.power
        self.by_entries, self.epsilon, self.plateau = options.normalize_by_num_entries, options.epsilon, options.plateau
        if any(len(shape) < 2 for shape in bottom_shapes):
            raise self.error("needs bottoms with at least 2 axes (N, C, …)")

    def forward(self, a: Tensor, b: Tensor | None = None) -> Tensor:
        """Return the loss as a tensor without axes. Both are (N, C, …) of one shape."""
        if b is not None:
            self.batch_size(a, b)
            self.same_count(a, b)
            a = a - b.reshape(a.shape)
        numbers = ~a.isnan()
        divisor: Tensor | int = a.shape[0]
        if self.by_entries:
            divisor = numbers.sum() / a.shape[1]
        if not self.l2:
            kept = numbers & (a.abs() >= self.plateau) if self.plateau > 0 else numbers
            loss = rising(torch.where(kept, a, 0))
            return torch.where(kept, loss, 0).sum() / divisor
        squares = torch.where(numbers, a, 0).square().sum(1)
        if self.prescale:
            squares = squares / a.shape[1]
        if self.plateau > 0:
            squares = torch.where(squares.abs() < self.plateau**2, 0, squares)
        norms = (squares + self.epsilon).sqrt() if self.power == 0.5 else (squares + self.epsilon) ** self.power
        return norms.sum() / divisor


def rising(x: Tensor) -> Tensor:
    """``|x|``, whose derivative at 0 is -1, as in the fork."""
    return torch.where(x > 0, x, -x)
