"""Warp, Grid, NegSquare and ExpMax, as LiteFlowNet's Caffe has them.

Sources: twhui/LiteFlowNet, warp_layer.cu, grid_layer.cpp, negsquare_layer.cu and expmax_layer.cu.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims
from ..flownet2.flow import values_at


@register("Warp", fork="liteflownet")
class WarpTo(Layer):
    """The image (N, C, H, W) read at the coordinates in the second bottom (N, 2, H, W): x, then y.

    Between four places the value is interpolated; what lies outside of the image counts as 0.
    """

    bottoms: ClassVar[tuple[int, int | None]] = (2, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        image, places = bottom_shapes
        if len(image) != 4 or places != (image[0], 2, *image[2:]):
            raise self.error(
                f"needs an image (N, C, H, W) and places (N, 2, H, W), not bottoms of {dims(image)} and {dims(places)}"
            )

    def forward(self, image: Tensor, places: Tensor) -> Tensor:
        """Return a tensor of the image's shape."""
        height, width = image.shape[2:]
        x, y = places[:, 0], places[:, 1]
        top = torch.zeros_like(image)
        for down in (0, 1):
            for right in (0, 1):
                row, column = y.detach().floor() + down, x.detach().floor() + right
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                weight = (1 - (row - y if down else y - row)) * (1 - (column - x if right else x - column))
                values = values_at(image, torch.where(inside, row, 0), torch.where(inside, column, 0))
                top = top + torch.where(inside, weight, 0)[:, None] * torch.where(inside[:, None], values, 0)
        return top


@register("Grid", fork="liteflownet")
class Grid(Layer):
    """The coordinates of each place of the bottom (N, C, H, W): (N, 2, H, W), x, then y. No gradient."""

    options = ()
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"needs a bottom (N, C, H, W), not of shape {dims(bottom_shapes[0])}")

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        row, column = (torch.arange(side, device=x.device, dtype=x.dtype) for side in (height, width))
        grid = torch.stack([column.expand(height, -1), row[:, None].expand(-1, width)])
        return grid.repeat(x.shape[0], 1, 1, 1)


@register("NegSquare", fork="liteflownet")
class NegSquare(Layer):
    """``-x^2``. It passes no gradient, because the fork multiplies the top's gradient by memory of its own that is 0."""

    options = ()
    differentiable = (False,)
    passes_places = True

    def forward(self, x: Tensor) -> Tensor:
        return -x.detach().square()


@register("ExpMax", fork="liteflownet")
class ExpMax(Layer):
    """``base^(shift + scale * (x - m))``: m is the maximum over channels at each place of the first item, and 0 for the others.

    ``base: -1`` is e. The gradient does not know of m.
    """

    options = ("expmax_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.expmax_param
        if options.base != -1 and not options.base > 0:
            raise self.error(f"expmax_param.base: {options.base:g} must be above 0, or -1 for e")
        logarithm = 1.0 if options.base == -1 else math.log(options.base)
        self.inner, self.outer = logarithm * options.scale, math.exp(logarithm * options.shift)
        if len(bottom_shapes[0]) < 2:
            raise self.error(f"needs a bottom (N, C, …), not of shape {dims(bottom_shapes[0])}")

    def forward(self, x: Tensor) -> Tensor:
        most = x.detach().amax(1, keepdim=True)
        most = torch.cat([most[:1], torch.zeros_like(most[1:])])
        return (self.inner * (x - most)).exp() * self.outer
