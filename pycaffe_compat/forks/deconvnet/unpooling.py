"""Unpooling, as DeconvNet's Caffe has it (HyeonwooNoh/caffe, unpooling_layer.cpp and .cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import ops
from ...layers.base import Maker, Shape
from ...layers.pooling import GivenPlane, Pooling
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...ops import Window
from ...tables import dims
from ..segnet.upsample import place

Pair = tuple[int, int]


@register("Unpooling", fork="deconvnet")
class Unpooling(GivenPlane):
    """Planes of size ``unpool_size``, or ``unpool_h`` and ``unpool_w``, with the windows' values at their places and 0 elsewhere.

    MAX puts each value at the place that a mask (a second bottom, that of a MAX Pooling) names, or without one at the
    first place of its window; where several have one place, the last of them stands. AVE and TILE put each value at every
    place of its window, AVE divided by the window's size; where windows overlap, values add up. The gradient of TILE is
    divided by the window's size, as in the fork.
    """

    inert_options = frozenset({"engine"})
    bottoms = (1, 2)
    differentiable = (True, False)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.unpooling_param, tuple(bottom_shapes[0])
        if len(shape) != 4:
            raise self.error(f"needs a bottom with 4 axes (N, C, H, W), not of shape {dims(shape)}")
        self.mode: str = type(options).UnpoolMethod.Name(options.unpool)
        masked = len(bottom_shapes) > 1
        if masked and self.mode != "MAX":
            raise self.error(f"unpooling_param.unpool: {self.mode} takes no mask; only MAX takes a second bottom")
        if masked and tuple(bottom_shapes[1]) != shape:
            raise self.error(f"the mask has shape {dims(bottom_shapes[1])}, but the values have {dims(shape)}")
        kernel = self._sides(options, "kernel_size", "kernel_h", "kernel_w")
        stride = self._sides(options, "stride", "stride_h", "stride_w")
        plane = self._sides(options, "unpool_size", "unpool_h", "unpool_w")
        pad = self._sides(options, "pad", "pad_h", "pad_w")
        if pad != (0, 0):
            raise self.error(f"unpooling_param: pad is {dims(pad)}; the fork unpools only without padding")
        self.window = Window(kernel, stride, pad)
        self.unpooled = plane
        if problem := self.window.problem():
            raise self.error(f"unpooling_param: {problem}")
        if min(plane) < 1:
            raise self.error(f"unpooling_param: the planes to make are {dims(plane)}; they must have places")
        reach = [(shape[2 + axis] - 1) * stride[axis] for axis in (0, 1)]
        if self.mode != "MAX" and (reach[0] >= plane[0] or reach[1] >= plane[1]):
            raise self.error(
                f"its {dims(shape[2:])} windows do not all reach the planes of {dims(plane)} that it makes; give a larger "
                "unpool_size or a smaller stride"
            )
        self.checks_makers = masked

    def _sides(self, options: Any, square: str, tall: str, wide: str) -> Pair:
        """An option as ``(h, w)``: given as ``square``, or as both ``tall`` and ``wide``."""
        given = [name for name in (tall, wide) if options.HasField(name)]
        if len(given) == 1 or (given and options.HasField(square)):
            raise self.error(f"unpooling_param: give {square}, or {tall} and {wide}")
        if given:
            return getattr(options, tall), getattr(options, wide)
        side = getattr(options, square)
        if not options.HasField(square) and square in ("kernel_size", "unpool_size"):
            raise self.error(f"unpooling_param: give {square}, or {tall} and {wide}")
        return side, side

    def check_makers(self, makers: Sequence[Maker], shapes: Sequence[Shape]) -> None:
        """Refuse the mask of planes of another width, whose values would silently move."""
        super().check_makers(makers, shapes)
        pooling = makers[1].layer
        if not isinstance(pooling, Pooling) or makers[1].top != 1:
            return
        plane = ops.plane_of(makers[1].bottom_shapes[0])
        local = pooling.volumes is None and pooling.local
        if plane[1] != self.unpooled[1] or plane[0] > self.unpooled[0] or local:
            raise self.error(
                f'its mask numbers the places of planes of {dims(plane)}, the bottom of layer "{pooling.name}" (Pooling)'
                f"{', window by window' if local else ''}, but the planes here are {dims(self.unpooled)}, so values would "
                "land in other places"
            )

    def plane(self, shape: Sequence[int]) -> Pair:
        return self.unpooled

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if self.mode == "AVE":
            return ops.unpool_average(x, *self.window, self.unpooled)
        if self.mode == "TILE":
            tiled = ops.unpool_sum(x.detach(), *self.window, self.unpooled)
            return WithSlope.apply(ops.unpool_average(x, *self.window, self.unpooled), tiled, None)
        return place(self, x, self._first_places(x) if mask is None else mask, self.unpooled, self.made_by is not None)

    def _first_places(self, x: Tensor) -> Tensor:
        rows, columns = (
            (torch.arange(count, device=x.device) * stride).clamp(max=side - 1)
            for count, stride, side in zip(x.shape[2:], self.window.stride, self.unpooled, strict=True)
        )
        return (rows[:, None] * self.unpooled[1] + columns).expand(x.shape)
