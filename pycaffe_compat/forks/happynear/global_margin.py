"""GlobalLSEMargin: a margin and a scale that follow the batches (happynear/caffe-windows, global_lse_margin_layer.cu)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.loss import read_labels
from ...layers.registry import register
from ...tables import dims

NEAR, SAME = 0.1, 0.001  # what a mean takes part of, and when it has come to rest
KEPT = 0.9  # of the margin, in each pass
SCALE = 30.0  # without a filler
STATISTICS = 5


@register("GlobalLSEMargin", fork="happynear")
class GlobalLSEMargin(Layer):
    """``scale * (cos - margin [at the label])`` of cosines (N, classes), for a softmax loss.

    ``scale`` is learned, between ``min_value`` and ``max_value`` of ``scale_param``, or is the third bottom, a number for
    each item. ``margin`` is a blob that every pass moves, in tests too: nine parts of it and one of the mean of
    ``cos[label] - l`` over the items near it, where l is ``log(sum exp(scale * cos[k])) / scale`` over the other classes.
    It counts only while it is above 0, and has no gradient. The second top: mean scale, mean cosine at the label, mean l,
    mean of the largest other cosine, margin.
    """

    bottoms = (2, 3)
    tops = (1, 2)
    options = ("scale_param",)
    inert_options = frozenset({"axis", "num_axes", "bias_term", "bias_filler"})
    fork_options = frozenset({"scale_param.min_value", "scale_param.max_value"})
    blobs_declared = ("scale", "margin")
    differentiable = (True, False, True)
    scale: Tensor
    margin: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.scale_param
        x, label = bottom_shapes[:2]
        if not x or count(x, 1) < 2 or count(label) != x[0]:
            raise self.error(
                f"takes cosines (N, classes) of two classes at least and N labels, not {dims(x)} and {dims(label)}"
            )
        self.given = len(bottom_shapes) == 3
        if self.given and count(bottom_shapes[2]) != x[0]:
            raise self.error(f"takes a scale for each of {x[0]} items, not {dims(bottom_shapes[2])}")
        self.least = options.min_value if options.HasField("min_value") else 0.0
        self.most = options.max_value if options.HasField("max_value") else math.inf
        filler = options.filler if options.HasField("filler") else torch.tensor([SCALE])
        if not param.param:  # the fork's own rates
            param.param.add(lr_mult=1, decay_mult=0)
        self.add_blob("scale", (1,), filler, trainable=not self.given)
        self.add_blob("margin", (1,), trainable=False)

    def forward(self, x: Tensor, label: Tensor, scales: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        rows = x.flatten(1)
        labels = read_labels(self, rows, 1, label)
        if x.is_meta:
            return (x.clone(), x.new_empty(STATISTICS)) if self.n_tops > 1 else x.clone()
        with torch.no_grad():
            self.scale.clamp_(self.least, self.most)
        scale = self.scale.to(x.dtype).reshape(1, 1) if scales is None else scales.reshape(-1, 1)
        own = torch.zeros_like(rows, dtype=torch.bool).scatter(1, labels.classes, True)
        with torch.no_grad():
            target = rows.gather(1, labels.classes)
            others = rows.masked_fill(own, -torch.inf)
            log_sums = (scale * others).logsumexp(1, keepdim=True) / scale
            self._follow((target - log_sums).flatten())
            margin = self.margin.to(x.dtype)
        moved = torch.where(own & (margin > 0), rows - margin, rows)
        y = labels.guard((moved * scale).reshape(x.shape))
        if self.n_tops == 1:
            return y
        largest = others.amax(1).clamp(min=-1)
        means = (scale.detach().mean(), target.mean(), log_sums.mean(), largest.mean(), margin[0])
        return y, torch.stack(means)

    def _follow(self, margins: Tensor) -> None:
        """Bring the margin up to date; the first pass finds it from the mean."""
        old = self.margin.to(margins.dtype)[0]
        begins = old == 0
        found = _shift(margins, torch.where(begins, margins.mean(), old), begins)
        new = torch.where(begins, found, KEPT * old + (1 - KEPT) * found)
        self.margin.copy_(torch.where(found.isnan(), old, new).to(self.margin.dtype))


def _shift(values: Tensor, mean: Tensor, many: Tensor) -> Tensor:
    """Move ``mean`` to the mean of the values near it, or of all if none is near, up to 20 times if ``many``, else once."""
    rests = torch.zeros_like(many)
    for _ in range(20):
        from_here = torch.where(((values - mean).abs() < NEAR).any(), mean, values.mean())
        near = (values - from_here).abs() < NEAR
        found = torch.where(near, values, 0.0).sum() / near.sum()
        found = torch.where(near.any(), found, from_here)
        last = from_here
        mean = torch.where(rests, mean, found)
        rests = rests | ~many | ((last - found).abs() < SAME)
    return mean
