"""LabelSpecificRescale (happynear/caffe-windows before March 2018, label_specific_rescale.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.loss import read_labels
from ...layers.registry import register


@register("LabelSpecificRescale", fork="happynear")
class LabelSpecificRescale(Layer):
    """In training, multiplies the score of each item's label by ``positive_weight``, and the others by ``negative_weight``.

    ``bias_fix`` adds ``1 - positive_weight`` to it, ``power_on_positive`` raises it to that power instead, its sign staying,
    and ``for_ip`` leaves labels' scores that are not above 0. With ``positive_weight_base`` the weight is, in training,
    ``positive_weight_base * (1 + gamma * t) ** -power`` in pass t, counted from ``iteration`` on, between
    ``positive_weight_min`` and ``positive_weight_max`` where they are given. In tests all is copied without
    ``rescale_test``. The second top is the weight. The fork reads neither ``positive_lower_bound`` nor ``negative_upper_bound``.
    """

    bottoms = (2, 2)
    tops = (1, 2)
    options = ("label_specific_rescale_param",)
    inert_options = frozenset({"positive_lower_bound", "negative_upper_bound"})
    differentiable = (True, False)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.label_specific_rescale_param
        self.weight, self.others = options.positive_weight, options.negative_weight
        self.in_tests, self.above, self.fixes = options.rescale_test, options.for_ip, options.bias_fix
        self.to_power, self.moves = options.power_on_positive, options.HasField("positive_weight_base")
        self.base, self.gamma, self.power = options.positive_weight_base, options.gamma, options.power
        self.least = options.positive_weight_min if options.HasField("positive_weight_min") else None
        self.most = options.positive_weight_max if options.HasField("positive_weight_max") else None
        self.passes = options.iteration
        if self.gamma < 0:
            raise self.error(f"label_specific_rescale_param.gamma: {self.gamma:g} must not be negative")
        if not bottom_shapes[0]:
            raise self.error("needs a bottom of scores (N, classes)")

    def state(self) -> dict[str, Any]:
        """The number of passes, which the weight follows, and the weight."""
        return {"passes": self.passes, "weight": self.weight}

    def seek(self, state: dict[str, Any]) -> None:
        self.passes, self.weight = state["passes"], state["weight"]

    def forward(self, x: Tensor, label: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.moves and self.training and not x.is_meta:
            self.passes += 1
            weight = self.base * (1 + self.gamma * self.passes) ** -self.power
            weight = weight if self.least is None else max(weight, self.least)
            self.weight = weight if self.most is None else min(weight, self.most)
        y = self._rescaled(x, label) if self.training or self.in_tests else x.clone()
        return (y, x.new_full((1,), self.weight)) if self.n_tops > 1 else y

    def _rescaled(self, x: Tensor, label: Tensor) -> Tensor:
        rows = x.flatten(1)
        labels = read_labels(self, rows, 1, label)
        own = rows.gather(1, labels.classes)
        if self.to_power:
            moved = own.sign() * own.abs().pow(self.weight)
        else:
            moved = own * self.weight + (1 - self.weight if self.fixes else 0)
        if self.above:
            moved = torch.where(own > 0, moved, own)
        return labels.guard((rows * self.others).scatter(1, labels.classes, moved).reshape(x.shape))
