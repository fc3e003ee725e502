"""GradientScaler: reversed gradients (ddtm/caffe, branch grl; thuml/Xlearn: gradient_scaler_layer.cpp and .cu)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape
from ...layers.passes import CountsPasses
from ...layers.registry import register
from ...layers.slope import WithSlope


@register("GradientScaler", fork=("dann", "xlearn"))
class GradientScaler(CountsPasses):
    """Passes its bottoms on unchanged; gradients are multiplied by ``-c``.

    In iteration t of a solver ``c`` is ``2 h / (1 + exp(-alpha p)) - h + lower_bound``, with ``h = upper_bound -
    lower_bound`` and ``p = min(t / max_iter, 1)``: it rises from the lower bound towards the upper one. Without a solver it
    is 1. In Xlearn's Caffe it is 0 for the first ``threshold_iter`` passes of training.
    """

    bottoms = (1, None)
    tops = (1, None)
    shares_memory = True
    coefficient: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.gradient_scaler_param
        self.low, self.high, self.alpha = options.lower_bound, options.upper_bound, options.alpha
        self.end, self.threshold = options.max_iter, options.threshold_iter
        if self.n_tops != len(bottom_shapes):
            raise self.error(f"has {len(bottom_shapes)} bottoms and {self.n_tops} tops; it takes a top for each bottom")
        if self.low > self.high:
            raise self.error(
                f"gradient_scaler_param.lower_bound: {self.low:g} must not be above upper_bound: {self.high:g}"
            )
        if self.alpha < 0 or self.end < 1:
            raise self.error(
                f"gradient_scaler_param: alpha: {self.alpha:g} must not be negative, and max_iter: {self.end:g} at least 1"
            )
        self.register_buffer("coefficient", torch.ones((), dtype=torch.float32), persistent=False)
        self.count_passes()

    def prepare(self, bottom_shapes: Sequence[Shape], device: torch.device) -> None:
        super().prepare(bottom_shapes, device)
        self.coefficient = self.coefficient.to(device)

    def at_iteration(self, number: int) -> None:
        height = self.high - self.low
        progress = min(1.0, number / self.end)
        self.coefficient.fill_(2 * height / (1 + math.exp(-self.alpha * progress)) - height + self.low)

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        if bottoms[0].is_meta:
            return tuple(x.view_as(x) for x in bottoms)
        factor = -self.coefficient
        if self.threshold:
            if self.training:
                self.passes.add_(1)
            factor = torch.where(self.passes > self.threshold, factor, 0.0)
        return tuple(WithSlope.apply(x, x.detach(), factor) for x in bottoms)
