"""ReverseTime, as caffe_ocr has it (senlinuc/caffe_ocr, reverse_time_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("ReverseTime", fork="caffe_ocr")
class ReverseTime(Layer):
    """Reverses the first steps of each item of (T, N, …); the second bottom (N) says how many.

    The rest is 0, or with ``copy_remaining`` as it was; the fork leaves it as its memory was. The gradient goes the same way.
    """

    bottoms = (2, 2)
    differentiable = (True, False)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.copies = param.reverse_time_param.copy_remaining
        x, lengths = bottom_shapes
        if len(x) < 2 or lengths != x[1:2]:
            raise self.error(f"needs bottoms T×N×… and N, not {dims(x)} and {dims(lengths)}")

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Return a tensor of the shape of ``x``."""
        step = torch.arange(x.shape[0], device=x.device)[:, None]
        number = lengths.detach().long().clamp(0, x.shape[0])
        inside = (step < number).view(*x.shape[:2], *(1,) * (x.dim() - 2))
        source = torch.where(step < number, number - 1 - step, step).view(inside.shape).expand(x.shape)
        y = x.gather(0, source)
        return y if self.copies else torch.where(inside, y, 0)
