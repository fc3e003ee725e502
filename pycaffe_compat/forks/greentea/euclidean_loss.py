"""EuclideanLoss with weights, as Caffe on OpenCL has it (naibaf7/caffe, euclidean_loss_layer.cpp)."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ...layers.loss import EuclideanLoss, precise
from ...layers.registry import register
from ...layers.slope import WithSlope


@register("EuclideanLoss", fork="greentea")
class WeightedEuclideanLoss(EuclideanLoss):
    """``sum((w (a - b))^2) / 2`` divided by the number of elements, not of images; w is an optional third bottom (default 1).

    The gradient is that of the fork: of ``w (a - b)``, and so with w once.
    """

    replaces_bvlcs = True
    bottoms: ClassVar[tuple[int, int | None]] = (2, 3)
    differentiable = (True, True, False)

    def forward(self, a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the loss as a tensor without axes. Bottoms of one number of elements, the first (N, …)."""
        self.batch_size(a, b)
        self.same_count(a, b)
        difference = precise(a) - precise(b).reshape(a.shape)
        if weights is not None:
            self.same_count(a, weights)
            weighted = precise(weights).detach().reshape(a.shape) * difference
            difference = WithSlope.apply(difference, weighted.detach(), None)
        return F.mse_loss(difference, difference.new_zeros(()).expand_as(difference)) / 2
