"""Losses of exponentials of distances, as happynear's Caffe has them.

Sources: happynear/caffe-windows, soft_contrastive_loss_layer.cpp and nca_loss_layer.cpp. The fork adds each loss to what the
pass before left in the top, which is an error of its; here each pass begins at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims
from .distance_losses import DistanceLoss, first_maximum


class WeighedLoss(DistanceLoss):
    """A loss of distances with a weight for each item, a third bottom, by whose share of the mean its gradient is multiplied."""

    bottoms = (2, 3)
    differentiable = (True, False, False)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if len(bottom_shapes) == 3 and count(bottom_shapes[2]) != bottom_shapes[0][0]:
            raise self.error(f"takes a weight for each of {bottom_shapes[0][0]} items, not {dims(bottom_shapes[2])}")

    def weighed(self, slope: Tensor, weight: Tensor | None) -> Tensor:
        """The gradient (N, classes) of the summed loss as that of its mean, with the weights of the items."""
        n = len(slope)
        if weight is None:
            return slope / n
        shares = weight.detach().to(slope.dtype).reshape(n, 1)
        return slope * shares / shares.mean() / n


@register("SoftContrastiveLoss", fork="happynear")
class SoftContrastiveLoss(WeighedLoss):
    """``positive_weight * p + log sum_k exp(s (negative_margin - d[k]))``, summed, by N, over other classes k below the margin.

    ``p`` is how far the own distance is above ``positive_margin``, at most ``positive_outlier_thresh`` of
    ``general_contrastive_loss_param``; s is ``negative_weight``, not ``exponent_scale``, which the fork does not read.
    ``square`` squares p and what s multiplies. The gradient is the fork's: with ``square``, the distance itself times
    ``positive_weight`` for the own one, and half the slope of the square for others. The second top: the mean of p, and that of
    how far others are below the margin.
    """

    options = ("soft_contrastive_loss_param", "general_contrastive_loss_param")
    inert_options = frozenset({"exponent_scale"})

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.soft_contrastive_loss_param
        self.positive_margin, self.negative_margin = options.positive_margin, options.negative_margin
        self.positive, self.negative = options.positive_weight, options.negative_weight
        self.outlier: float = param.general_contrastive_loss_param.positive_outlier_thresh
        self.square: bool = options.square

    def forward(self, x: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss as a tensor without axes, and the mean distances if there is a top for them."""
        rows, labels, own = self.at_labels(x, label)
        n, classes = rows.shape
        d = rows.detach()
        near = (d.gather(1, labels.classes) - self.positive_margin).clamp(min=0, max=self.outlier)
        below = (self.negative_margin - d).clamp(min=0)
        counts = (d < self.negative_margin) & ~own
        power = (below.square() if self.square else below) * self.negative
        power = power.masked_fill(~counts, -torch.inf)
        total = power.logsumexp(1, keepdim=True)
        share = (power - total).exp().masked_fill(~counts, 0)
        slope = -self.negative * share * (below if self.square else 1)
        inside = (d > self.positive_margin) & (d < self.outlier)
        pull = torch.where(inside, d if self.square else 1.0, 0.0) * self.positive
        slope = self.weighed(torch.where(own, pull, slope), weight)
        positive = self.positive * (near.square() if self.square else near)
        terms = positive + total.masked_fill(~counts.any(1, keepdim=True), 0)
        value = torch.where(own, terms, 0.0) / n
        loss = labels.guard(WithSlope.apply(rows, value, slope).sum())
        if self.n_tops == 1:
            return loss
        return loss, torch.stack([near.mean(), torch.where(counts, below, 0.0).sum() / n / (classes - 1)])


@register("NCALoss", fork="happynear")
class NCALoss(WeighedLoss):
    """``d[label] + sum_k exp(-d[k])`` over the other classes k, summed and divided by N.

    ``min_negative_only`` keeps the smallest d[k]; where the own class is the first and the nearest, the fork takes that,
    whose gradient is then that of the exponential alone. Other entries keep in the fork what their gradient was in the pass
    before; here they have none. The second top: the mean distances to the own class and to the others.
    """

    options = ("nca_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.nearest_only: bool = param.nca_param.min_negative_only

    def forward(self, x: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss as a tensor without axes, and the mean distances if there is a top for them."""
        rows, labels, own = self.at_labels(x, label)
        n, classes = rows.shape
        d = rows.detach()
        others = ~own
        if self.nearest_only:
            can_stay = others | (labels.classes == 0)  # the fork begins with class 0, even where that is the own one
            nearest = first_maximum(-d.masked_fill(~can_stay, torch.inf))
            others = torch.zeros_like(own).scatter(1, nearest, True)
        far = torch.where(others, (-d).exp(), 0.0)
        value = torch.where(own, d, 0.0) + far
        slope = torch.where(others, -far, own.to(d.dtype))
        loss = labels.guard(WithSlope.apply(rows, value / n, self.weighed(slope, weight)).sum())
        if self.n_tops == 1:
            return loss
        return loss, torch.stack(
            [torch.where(own, d, 0.0).sum() / n, torch.where(own, 0.0, d).sum() / n / (classes - 1)]
        )
