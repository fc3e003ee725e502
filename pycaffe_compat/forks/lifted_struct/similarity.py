"""LiftedStructSimilaritySoftmaxLoss (rksltnl/Caffe-Deep-Metric-Learning-CVPR16, lifted_struct_similarity_softmax_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import LossLayer
from ...layers.registry import register
from ...tables import dims


@register("LiftedStructSimilaritySoftmaxLoss", fork="lifted_struct")
class LiftedStructSimilaritySoftmaxLoss(LossLayer):
    """Mean of ``max(log(sum exp(margin - d(i, k)) + sum exp(margin - d(j, l))) + d(i, j), 0)^2 / 2`` of pairs with one label.

    The pairs are all i < j; k runs over the items with other labels than i, l over those with others than j; d is the
    distance of two embeddings (N, C) or (N, C, 1, 1). Labels are compared as they are. A batch without a pair gives NaN, as
    in the fork.
    """

    options = ("lifted_struct_sim_softmax_loss_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.margin: float = param.lifted_struct_sim_softmax_loss_param.margin
        x, label = bottom_shapes
        if len(x) < 2 or count(x, 2) != 1 or not label or count(label) != x[0]:
            raise self.error(f"takes embeddings (N, C) and N labels, not {dims(x)} and {dims(label)}")

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        n = self.batch_size(x, label)
        features, labels = x.reshape(n, -1), label.detach().reshape(-1)
        same = labels[:, None] == labels
        itself = torch.eye(n, dtype=torch.bool, device=x.device)
        squared = (features[:, None] - features).square().sum(2)
        distance = squared.masked_fill(itself, 1).sqrt().masked_fill(itself, 0)
        lowest = torch.finfo(x.dtype).min
        others = (self.margin - distance).masked_fill(same, lowest)
        nearest = others.logsumexp(1)
        hinge = F.relu(torch.logaddexp(nearest[:, None], nearest) + distance)
        pairs = (same & ~itself).triu()
        loss = torch.where(pairs, hinge.square(), 0).sum() / 2
        number = pairs.sum()
        return loss / torch.where(number > 0, number.to(loss.dtype), math.nan)
