"""Softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .base import Layer, Shape
from .registry import register


@register("Softmax")
class Softmax(Layer):
    """Softmax over ``axis``; ``engine`` has no effect. Source: Caffe's ``SoftmaxLayer``."""

    head = True
    inert_options = frozenset({"engine"})

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.axis: int = param.softmax_param.axis

    def forward(self, x: Tensor) -> Tensor:
        """Return the probabilities, of the shape of ``x``."""
        return F.softmax(x, self.canonical_axis(self.axis, x.dim(), "softmax_param.axis"))
