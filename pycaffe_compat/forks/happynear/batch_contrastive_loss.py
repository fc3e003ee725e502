"""BatchContrastiveLoss, as happynear's Caffe has it (happynear/caffe-windows, batch_contrastive_loss_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import LossLayer
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims
from .distance_losses import first_maximum


@register("BatchContrastiveLoss", fork="happynear")
class BatchContrastiveLoss(LossLayer):
    """Distances above ``positive_margin`` in pairs with one label, and below ``negative_margin`` in others: the mean over pairs.

    Bottoms: the distances (N, N) between the items of a batch, of which the upper triangle counts, and N labels. The terms are
    multiplied by ``positive_weight`` and ``negative_weight``. ``max_only`` takes the largest of each kind, and their sum.
    The gradient is the fork's: that of the sum by N, or by 2 with ``max_only``. The second top: the mean distances of
    pairs of one label and of others, NaN where there is no such pair. The fork adds the mean to what the pass before left in
    the top, which is an error of its; here each pass begins at 0.
    """

    options = ("batch_contrastive_loss_param",)
    tops: ClassVar[tuple[int, int | None]] = (1, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.batch_contrastive_loss_param
        self.positive_margin, self.negative_margin = options.positive_margin, options.negative_margin
        self.positive, self.negative = options.positive_weight, options.negative_weight
        self.max_only: bool = options.max_only
        x, label = bottom_shapes[:2]
        n = x[0] if x else 0
        if n < 2 or count(x) != n * n or len(x) < 2 or x[1] != n or count(label) != n:
            raise self.error(
                f"takes the distances N×N of N items, two at least, and N labels, not {dims(x)} and {dims(label)}"
            )

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss as a tensor without axes, and the mean distances if there is a top for them."""
        n = len(x)
        rows = x.reshape(n, n)
        d, labels = rows.detach(), label.detach().reshape(n)
        pairs = torch.ones_like(d, dtype=torch.bool).triu(1)
        same = labels[:, None] == labels
        together, apart = pairs & same, pairs & ~same
        over, under = together & (d > self.positive_margin), apart & (d < self.negative_margin)
        if self.max_only:
            over, under = _first(d, over), _first(-d, under)
        slope = over.to(d.dtype) * self.positive - under.to(d.dtype) * self.negative
        value = torch.where(over, (d - self.positive_margin) * self.positive, 0.0)
        value = value + torch.where(under, (self.negative_margin - d) * self.negative, 0.0)
        parts = 1 if self.max_only else n * (n - 1) // 2
        loss = WithSlope.apply(rows, value / parts, slope / (2 if self.max_only else n)).sum()
        if self.n_tops == 1:
            return loss
        return loss, torch.stack([torch.where(kind, d, 0.0).sum() / kind.sum() for kind in (together, apart)])


def _first(d: Tensor, among: Tensor) -> Tensor:
    """Where the first maximum of those ``among`` is; nowhere if there are none."""
    place = first_maximum(d.masked_fill(~among, -torch.inf).reshape(1, -1))
    return torch.zeros_like(among).reshape(1, -1).scatter(1, place, True).view_as(among) & among
