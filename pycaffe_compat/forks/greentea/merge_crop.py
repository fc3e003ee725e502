"""MergeCrop, as Caffe on OpenCL has it (naibaf7/caffe, mergecrop_layer.cpp and mergecrop_layer.cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims


@register("MergeCrop", fork="greentea")
class MergeCrop(Layer):
    """Crops the centre of the second bottom to the first's size, and concatenates channels (STACK) or adds (ADD).

    ``forward: false``, once for each bottom, takes zeros for it; ``backward: false`` gives it no gradient, as the second gets
    none by default. Bottoms with unlike numbers of channels are stacked in an order that differs from item to item, as in
    the fork, whose kernel counts channels from the start of the batch.
    """

    options = ("mergecrop_param",)
    bottoms = (2, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.mergecrop_param
        self.adds: bool = options.operation == options.ADD
        self.forwards, self.backwards = [True, True], [True, False]
        for name, flags in (("forward", self.forwards), ("backward", self.backwards)):
            given = list(getattr(options, name))
            if len(given) > 2:
                raise self.error(f"mergecrop_param has {len(given)} values of {name}; give at most one for each bottom")
            flags[: len(given)] = given
        first, second = (tuple(shape) for shape in bottom_shapes)
        fits = len(first) == len(second) > 2 and first[0] == second[0]
        if not fits or any(a > b for a, b in zip(first[2:], second[2:], strict=True)):
            raise self.error(
                f"the second bottom, {dims(second)}, must be at least as large as the first, {dims(first)}"
            )
        if self.adds and first[1] != second[1]:
            raise self.error(f"adds bottoms of as many channels, not {first[1]} and {second[1]}")

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        for axis in range(2, a.ndim):
            b = b.narrow(axis, (b.shape[axis] - a.shape[axis]) // 2, a.shape[axis])
        a, b = (x.detach() if not back else x for x, back in zip((a, b), self.backwards, strict=True))
        a, b = (x if on else x * 0 for x, on in zip((a, b), self.forwards, strict=True))
        if self.adds:
            return a + b
        stacked = torch.cat((a, b), 1)
        if a.shape[1] == b.shape[1]:
            return stacked
        order = self._order(a.shape[0], a.shape[1], b.shape[1], a.device)
        return stacked[torch.arange(a.shape[0], device=a.device)[:, None], order]

    @staticmethod
    def _order(items: int, a: int, b: int, device: torch.device) -> Tensor:
        """Which channel, of ``a`` and then ``b``, is where in each item of a stack."""
        place = torch.arange(a + b, device=device)
        count = torch.arange(items, device=device)[:, None] * (a + b) + place
        return torch.where(place // a % 2 == 0, count % a, a + count % b)
