"""ScaleTanH: a tanh that becomes steeper during training (thuml/HashNet, scale_tanh_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape
from ...layers.passes import CountsPasses
from ...layers.registry import register


@register("ScaleTanH", fork="hashnet")
class ScaleTanH(CountsPasses):
    """``tanh(s x)``, where ``s`` is ``init_scale``, and ``init_scale * (1 + gamma * t) ** power`` from pass t - 1 on.

    t is the last multiple of ``step_size``. Passes count from 1, of each net by itself, in tests too.
    """

    options = ("scale_tanh_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.scale_tanh_param
        self.first, self.step = options.init_scale, options.step_size
        self.gamma, self.power = options.gamma, options.power
        if self.step < 1:
            raise self.error(f"scale_tanh_param.step_size: {self.step} must be at least 1")
        if self.gamma < 0:
            raise self.error(f"scale_tanh_param.gamma: {self.gamma:g} must not be negative")
        self.count_passes()

    def forward(self, x: Tensor) -> Tensor:
        if x.is_meta:
            return torch.empty_like(x)
        self.passes.add_(1)
        # the fork counts in Reshape, which it calls once before the first pass
        reached = torch.div(self.passes + 1, self.step, rounding_mode="floor") * self.step
        scale = self.first * torch.where(reached > 0, (1 + self.gamma * reached.double()) ** self.power, 1.0)
        return torch.tanh(scale.to(x.dtype) * x)
