"""A function with a derivative of one's choice, for layers whose gradient in Caffe is not that of what they compute."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class WithSlope(torch.autograd.Function):
    """``WithSlope.apply(x, value, slope)`` is ``value``, with ``slope`` (1 for None) for its derivative by ``x``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, slope: Tensor | None) -> Tensor:
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return grad if slope is None else grad * slope, None, None
