"""EntropyLoss and OuterProduct (thuml/Xlearn, entropy_loss_layer.cu and outerproduct_layer.cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.loss import LossLayer
from ...layers.passes import CountsPasses
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...tables import dims

LEAST = 1e-5  # smaller probabilities add nothing to the loss


@register("EntropyLoss", fork="xlearn")
class EntropyLoss(CountsPasses, LossLayer):
    """``sum p log p`` of probabilities (N, classes), whose gradient is that of the mean entropy of an item: ``-(1 + log p) / N``.

    Probabilities below ``threshold`` have no gradient. For the first ``iterations_num`` passes of training loss and gradient
    are 0. Labels, a second bottom, are not read, and neither is ``ignore_label``.
    """

    bottoms = (1, 2)
    options = ("entropy_param",)
    inert_options = frozenset({"ignore_label"})

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.entropy_param
        self.threshold, self.waits = options.threshold, options.iterations_num
        if not bottom_shapes[0]:
            raise self.error("takes probabilities (N, classes), not a single number")
        self.count_passes()

    def forward(self, p: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the loss as a tensor without axes."""
        fixed = p.detach()
        logarithm = fixed.log()
        value = torch.where(fixed < LEAST, 0.0, -(fixed * logarithm).abs())
        slope = torch.where(fixed < self.threshold, 0.0, -(1 + logarithm) / max(len(p), 1))
        if self.waits and not p.is_meta:
            begun = self.passes >= self.waits
            value, slope = torch.where(begun, value, 0.0), torch.where(begun, slope, 0.0)
            if self.training:
                self.passes.add_(1)
        return WithSlope.apply(p, value, slope).sum()


@register("OuterProduct", fork="xlearn")
class OuterProduct(Layer):
    """The products of each value of one vector with each of another: (N, A) and (N, B) make (N, 1, A, B)."""

    bottoms = (2, 2)
    options = ()

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        a, b = bottom_shapes
        if len(a) < 2 or len(b) < 2 or a[0] != b[0] or count(a, 2) != 1 or count(b, 2) != 1:
            raise self.error(f"takes vectors (N, A) and (N, B), not {dims(a)} and {dims(b)}")

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a.flatten(1)[:, None, :, None] * b.flatten(1)[:, None, None, :]
