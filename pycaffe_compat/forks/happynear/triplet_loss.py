"""TripletLoss of three embeddings, as happynear's Caffe has it (happynear/caffe-windows, triplet_loss_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import LossLayer
from ...layers.registry import register
from ...tables import dims


@register("TripletLoss", fork="happynear")
class TripletLoss(LossLayer):
    """``sum max(margin + |a - p|^2 - |a - n|^2, 0) / (2 N)`` of anchors a, positives p and negatives n, each (N, C).

    A fourth bottom, the weights of samples, is not read, as in the fork.
    """

    bottoms = (3, 4)
    differentiable = (True, True, True, False)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.margin: float = param.triplet_loss_param.margin
        shapes = bottom_shapes[:3]
        if len(shapes[0]) < 2 or count(shapes[0], 2) != 1 or any(count(s) != count(shapes[0]) for s in shapes):
            raise self.error(f"takes three embeddings of shape N×C (or N×C×1×1), not {', '.join(map(dims, shapes))}")

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss as a tensor without axes."""
        n = self.batch_size(anchor, positive)
        self.batch_size(anchor, negative)
        a = anchor.reshape(n, -1)
        near = (a - positive.reshape(n, -1)).square().sum(1)
        far = (a - negative.reshape(n, -1)).square().sum(1)
        return F.relu(self.margin + near - far).sum() / (2 * n)
