"""Losses of distances to the centres of all classes, as happynear's Caffe has them.

Sources: happynear/caffe-windows, general_constrastive_loss_layer.cpp, general_triplet_loss_layer.cpp and
confidence_penalty_loss_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import LOG_THRESHOLD, Labels, LossLayer, read_labels
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims

KEPT = 0.99  # of the mean distance, in each pass


def first_maximum(rows: Tensor) -> Tensor:
    """The index of the first maximum of each row, as a column; the last index if a number of the row is NaN."""
    last = rows.shape[1] - 1
    place = torch.arange(rows.shape[1], device=rows.device)
    return torch.where(rows == rows.amax(1, keepdim=True), place, last).amin(1, keepdim=True)


class DistanceLoss(LossLayer):
    """The base class of losses over distances (N, classes); a second top holds mean distances."""

    tops: ClassVar[tuple[int, int | None]] = (1, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        x = bottom_shapes[0]
        if not x or count(x, 1) < 2 or count(bottom_shapes[1]) != x[0]:
            raise self.error(
                f"takes distances (N, classes) to two classes at least and N labels, not {dims(x)} and "
                f"{dims(bottom_shapes[1])}"
            )

    def at_labels(self, x: Tensor, label: Tensor) -> tuple[Tensor, Labels, Tensor]:
        """The distances as rows, the labels, and where the labels' own distances are."""
        rows = x.flatten(1)
        labels = read_labels(self, rows, 1, label)
        own = torch.zeros_like(rows, dtype=torch.bool).scatter(1, labels.classes, True)
        return rows, labels, own


@register("GeneralContrastiveLoss", fork="happynear")
class GeneralContrastiveLoss(DistanceLoss):
    """Distances to the own class above ``positive_margin``, and to other classes below ``negative_margin``, summed, over N.

    They are multiplied by ``positive_weight`` and ``negative_weight``; an own distance counts at most
    ``positive_outlier_thresh``, from where on it has no gradient. ``exp_negative_weight`` takes ``exp(-d)`` of others below
    the margin. ``max_negative_only`` keeps the largest term of the others of each item, ``max_positive_only`` the smallest own
    term of the batch, as in the fork. With ``positive_first`` others count only where the own distance is at most
    ``positive_upper_bound``. ``normalize_negative`` divides the gradient of the others by ``n = |sum| / normalize_negative / N``
    where n is above ``positive_weight``. With ``add_intra_mae`` the negative margin grows by a moving average of the mean own
    term, at most ``max_negative_margin``.

    A third bottom holds the distances that the loss is made from; the gradient goes to the first. The second top: mean own
    term, mean of how far others are below the margin, and the moving average with ``add_intra_mae``. The fork does not read
    ``square``.
    """

    bottoms = (2, 3)
    options = ("general_contrastive_loss_param",)
    inert_options = frozenset({"square"})
    differentiable = (True, False, False)
    average: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.o = o = _Options(param.general_contrastive_loss_param)
        if o.normalizes and not o.normalize_negative > 0:
            raise self.error(
                f"general_contrastive_loss_param.normalize_negative: {o.normalize_negative:g} must be above 0"
            )
        if len(bottom_shapes) == 3 and count(bottom_shapes[2]) != count(bottom_shapes[0]):
            raise self.error(
                f"takes two bottoms of distances of one shape, not {dims(bottom_shapes[0])} and {dims(bottom_shapes[2])}"
            )
        self.register_buffer("average", torch.zeros((), dtype=torch.float64), persistent=False)

    def prepare(self, bottom_shapes: Sequence[Shape], device: torch.device) -> None:
        self.average = self.average.to(device)

    def state(self) -> dict[str, Any]:
        """The moving average of the own terms."""
        return {"average": float(self.average)}

    def seek(self, state: dict[str, Any]) -> None:
        self.average.fill_(state["average"])

    def forward(self, x: Tensor, label: Tensor, other: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss as a tensor without axes, and the mean distances if there is a top for them."""
        o = self.o
        rows, labels, own = self.at_labels(x, label)
        n, classes = rows.shape
        d = rows.detach() if other is None else other.detach().reshape(rows.shape)
        margin: float | Tensor = o.negative_margin
        if o.add_intra_mae and not x.is_meta:
            margin = self.average.to(d.dtype) + o.negative_margin
        own_distance = d.gather(1, labels.classes)
        near = (own_distance - o.positive_margin).clamp(min=0, max=o.positive_outlier_thresh)
        below = (margin - d).clamp(min=0)
        counts = (d < margin) & ~own
        terms = torch.where(counts, (-d).exp() if o.exp_negative_weight else below, 0.0) * o.negative_weight
        positive = near * o.positive_weight
        kept = ~own
        if o.max_negative_only:
            # the fork begins with class 0, even where that is the item's own
            start = torch.where(labels.classes == 0, positive, -torch.inf)
            seen = torch.where(own, start, terms)
            kept = kept & torch.zeros_like(own).scatter(1, first_maximum(seen), True)
        waits = own_distance > o.positive_upper_bound if o.positive_first else torch.zeros_like(near, dtype=torch.bool)
        others = torch.where(kept & ~waits, terms, 0.0)
        slope = (
            torch.where(kept & counts & ~waits, -(-d).exp() if o.exp_negative_weight else -1.0, 0.0) * o.negative_weight
        )
        if o.normalizes:
            size = slope.sum().abs() / o.normalize_negative / n
            slope = torch.where(size > o.positive_weight, slope / size, slope)
        inside = (own_distance > o.positive_margin) & (own_distance < o.positive_outlier_thresh)
        if o.max_positive_only:
            least = torch.zeros_like(inside).scatter(0, first_maximum(-positive.t()), True)
            positive, inside = torch.where(least, positive, 0.0), inside & least
        own_slope = (inside | waits).to(d.dtype) * o.positive_weight
        value = torch.where(own, positive, others).abs() / n
        loss = labels.guard(WithSlope.apply(rows, value, torch.where(own, own_slope, slope) / n).sum())
        if not x.is_meta:
            self.average.mul_(KEPT).add_((1 - KEPT) * near.mean()).clamp_(max=o.max_negative_margin)
        if self.n_tops == 1:
            return loss
        means = [near.mean(), torch.where(own, 0.0, below).sum() / n / (classes - 1)]
        return loss, torch.stack([*means, *([self.average.to(d.dtype)] if o.add_intra_mae else [])])


class _Options:
    """The numbers of ``general_contrastive_loss_param``."""

    def __init__(self, options: Any) -> None:
        self.positive_margin: float = options.positive_margin
        self.negative_margin: float = options.negative_margin
        self.positive_weight: float = options.positive_weight
        self.negative_weight: float = options.negative_weight
        self.normalizes: bool = options.HasField("normalize_negative")
        self.normalize_negative: float = options.normalize_negative
        self.positive_outlier_thresh: float = options.positive_outlier_thresh
        self.max_negative_only: bool = options.max_negative_only
        self.max_positive_only: bool = options.max_positive_only
        self.positive_first: bool = options.positive_first
        self.positive_upper_bound: float = options.positive_upper_bound
        self.exp_negative_weight: bool = options.exp_negative_weight
        self.add_intra_mae: bool = options.add_intra_mae
        self.max_negative_margin: float = options.max_negative_margin


@register("GeneralTripletLoss", fork="happynear")
class GeneralTripletLoss(DistanceLoss):
    """``sum max(own + margin - d, 0) * negative_weight / N``: d: distances to other classes; ``own``: to the own.

    ``hardest_only`` keeps the largest term of each item. With ``positive_first`` the others count only where ``own`` is at
    most ``positive_upper_bound``. The gradient is the fork's: ``-negative_weight`` for each term, and ``positive_weight`` for
    ``own``, once, if there is a term or ``add_center_loss``. The second top: the mean distances to the own class and to
    the others.
    """

    options = ("general_triplet_loss_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.general_triplet_loss_param
        self.margin, self.centers, self.hardest = options.margin, options.add_center_loss, options.hardest_only
        self.positive, self.negative = options.positive_weight, options.negative_weight
        self.first, self.bound = options.positive_first, options.positive_upper_bound

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss as a tensor without axes, and the mean distances if there is a top for them."""
        rows, labels, own = self.at_labels(x, label)
        n, classes = rows.shape
        d = rows.detach()
        near = d.gather(1, labels.classes)
        terms = torch.where(own, 0.0, (near + self.margin - d).clamp(min=0) * self.negative)
        reached = (near + self.margin > d) & ~own
        if self.hardest:
            hardest = torch.zeros_like(own).scatter(1, first_maximum(terms), True) & (terms > 0)
            reached, terms = hardest & (d != 0), torch.where(hardest, terms, 0.0)
        slope = torch.where(reached, -self.negative, 0.0).to(d.dtype)
        if self.hardest:  # the fork leaves the term itself where the distance is 0
            slope = torch.where(terms.ne(0) & ~reached, terms, slope)
        pulls = reached.any(1, keepdim=True) | self.centers
        if self.first:
            waits = near > self.bound
            terms, slope, pulls = (
                torch.where(waits, 0.0, terms),
                torch.where(waits, 0.0, slope),
                pulls | waits,
            )
        slope = torch.where(own, pulls.to(d.dtype) * self.positive, slope)
        loss = labels.guard(WithSlope.apply(rows, terms.abs() / n, slope / n).sum())
        if self.n_tops == 1:
            return loss
        return loss, torch.stack([near.mean(), torch.where(own, 0.0, d).sum() / n / (classes - 1)])


@register("ConfidencePenaltyLoss", fork="happynear")
class ConfidencePenaltyLoss(LossLayer):
    """Mean over N items of ``-(1 - beta) log p[label] - beta / (N - 1) sum log p[k]`` over the other classes k, p being given.

    The fork divides by N - 1 where the number of other classes may have been meant; N must be 2 at least.
    """

    options = ("confidence_penalty_loss_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.beta: float = param.confidence_penalty_loss_param.beta
        if not bottom_shapes[0] or bottom_shapes[0][0] < 2:
            raise self.error(f"takes probabilities (N, classes) of two items at least, not {dims(bottom_shapes[0])}")

    def forward(self, p: Tensor, label: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        rows = p.flatten(1)
        n = len(rows)
        labels = read_labels(self, rows, 1, label)
        weight = torch.full_like(rows, self.beta / (n - 1)).scatter(1, labels.classes, 1 - self.beta) / n
        floored = rows.detach().clamp(min=LOG_THRESHOLD)
        return labels.guard(WithSlope.apply(rows, -weight * floored.log(), -weight / floored).sum())
