"""ROIWarping of multi-task network cascades (daijifeng001/caffe-mnc, roi_warping_layer.cu; Dai et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, untraced
from ...layers.registry import register
from ...layers.slope import TracedFunction
from ...tables import dims
from ..fast_rcnn.bins import read_pooled, read_regions, rounded


class Axis(NamedTuple):
    """Where the values of regions lie on one axis: between two places each, (R, pooled).

    Attributes:
        first, second: the places; the same one at the edge of the plane.
        rest: how far from the first to the second.
        inside: whether it lies within half a place of the plane; else the value is 0.
        to_first, to_second: whether the gradient reaches the place, in the fork.
        part: how far it is from the first corner to the second, as the gradient of the corners has it.
    """

    first: Tensor
    second: Tensor
    rest: Tensor
    inside: Tensor
    to_first: Tensor
    to_second: Tensor
    part: Tensor

    @classmethod
    def of(cls, low: Tensor, high: Tensor, pooled: int, side: int) -> Axis:
        """Of regions from ``low`` to ``high``, whole numbers (R, 1)."""
        step = torch.arange(pooled, dtype=low.dtype, device=low.device)
        at = low + step * ((high - low).clamp(min=0) / pooled)
        inside = (at >= -0.5) & (at <= side - 0.5)
        at = at.clamp(0, side - 1)
        first = at.long()
        second = (first + 1).clamp(max=side - 1)
        size = (high - low + 1).clamp(min=1) / pooled

        def reached(place: Tensor) -> Tensor:
            start = ((place - low - 1) / size - 1).floor().clamp(min=0)
            stop = ((place - low + 1) / size).ceil()
            return inside & (place >= low) & (place <= high) & (step >= start) & (step < stop)

        to_second = reached(second) & (second > first)
        return cls(first, second, at - first, inside, reached(first), to_second, (at - low) / size / pooled)


class _Warped(TracedFunction):
    """The values, with the fork's gradients for planes (N, C, H, W) and regions (R, 5)."""

    @staticmethod
    def forward(x: Tensor, regions: Tensor, images: Tensor, down: Axis, across: Axis, scale: float) -> Tensor:
        rows = x.movedim(1, -1)
        inside = (down.inside[:, :, None] & across.inside[:, None]).to(x.dtype)
        y = x.new_zeros(())
        for row, share in ((down.first, 1 - down.rest), (down.second, down.rest)):
            for column, part in ((across.first, 1 - across.rest), (across.second, across.rest)):
                weight = share[:, :, None] * part[:, None] * inside
                y = y + rows[images[:, None, None], row[:, :, None], column[:, None]] * weight[..., None]
        return y.movedim(-1, 1).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, regions, images, down, across, scale = inputs
        ctx.save_for_backward(x, regions, images, *down, *across)
        ctx.scale = scale

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, regions, images, *axes = ctx.saved_tensors
        down, across = Axis(*axes[: len(Axis._fields)]), Axis(*axes[len(Axis._fields) :])
        of_x = of_regions = None
        if ctx.needs_input_grad[0]:
            of_x = _of_planes(x, images, down, across, grad)
        if ctx.needs_input_grad[1]:
            of_regions = _of_regions(x, images, down, across, grad, ctx.scale).to(regions.dtype).reshape(regions.shape)
        return of_x, of_regions, None, None, None, None


def _of_planes(x: Tensor, images: Tensor, down: Axis, across: Axis, grad: Tensor) -> Tensor:
    _, channels, height, width = x.shape
    made, flat = x.new_zeros((len(x) * height * width, channels)), grad.movedim(1, -1)
    for row, share in ((down.first, (1 - down.rest) * down.to_first), (down.second, down.rest * down.to_second)):
        for column, part in (
            (across.first, (1 - across.rest) * across.to_first),
            (across.second, across.rest * across.to_second),
        ):
            at = (images[:, None, None] * height + row[:, :, None]) * width + column[:, None]
            weight = share[:, :, None] * part[:, None]
            made.index_add_(0, at.flatten(), (flat * weight[..., None]).reshape(-1, channels))
    return made.reshape(len(x), height, width, channels).movedim(-1, 1).contiguous()


def _of_regions(x: Tensor, images: Tensor, down: Axis, across: Axis, grad: Tensor, scale: float) -> Tensor:
    rows = x.movedim(1, -1)
    corner = [
        [rows[images[:, None, None], row[:, :, None], column[:, None]] for column in (across.first, across.second)]
        for row in (down.first, down.second)
    ]
    y, z = down.rest[:, :, None, None], across.rest[:, None, :, None]
    along_x = (1 - y) * (corner[0][1] - corner[0][0]) + y * (corner[1][1] - corner[1][0])
    along_y = (1 - z) * (corner[1][0] - corner[0][0]) + z * (corner[1][1] - corner[0][1])
    counted = (down.inside & (down.second > down.first))[:, :, None] & (across.inside & (across.second > across.first))[
        :, None
    ]
    flat = grad.movedim(1, -1)
    by_x, by_y = ((flat * along).sum(-1) * counted * scale for along in (along_x, along_y))
    part_x, part_y = across.part[:, None], down.part[:, :, None]
    corners = (by_x * (1 - part_x), by_y * (1 - part_y), by_x * part_x, by_y * part_y)
    return torch.stack((by_x.new_zeros(len(by_x)), *(each.sum((1, 2)) for each in corners)), 1)


@register("ROIWarping", fork="mnc")
class ROIWarping(Layer):
    """Warps regions (R, 5) (image and corners) of planes (N, C, H, W) to grids by bilinear interpolation.

    Corners times ``spatial_scale`` are rounded to whole numbers; the grid begins at the first and ends a step before the second.
    What lies more than half a place outside of the plane is 0. Regions get gradients, too, of corners that are not rounded. The
    gradient of planes is the fork's, which loses what lies next to the last places of large regions.
    """

    bottoms = (2, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.roi_warping_param, bottom_shapes[0]
        self.check_planes(shape)
        self.pooled, self.scale = read_pooled(self, options, "roi_warping_param"), options.spatial_scale

    def check_planes(self, shape: Shape) -> None:
        """Raise unless the first bottom has four axes, and each image a place at least."""
        if len(shape) != 4 or not all(shape[1:]):
            raise self.error(f"needs a bottom (num, channels, height, width), not of shape {dims(shape)}")

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        """Return (R, channels, pooled_h, pooled_w).

        Raises:
            LayerError: a region is of no image of the batch, or the images have another number of axes, or no places.
        """
        self.check_planes(x.shape)
        if x.is_meta:
            return x.new_empty((len(regions), x.shape[1], *self.pooled))
        return self.warp(x, regions)

    @untraced
    def warp(self, x: Tensor, regions: Tensor) -> Tensor:
        """As :meth:`forward`, for tensors with memory."""
        images, corners = read_regions(self, x, regions)
        left, top, right, bottom = rounded(corners * self.scale).to(x.dtype).split(1, 1)
        down = Axis.of(top, bottom, self.pooled[0], x.shape[2])
        across = Axis.of(left, right, self.pooled[1], x.shape[3])
        return _Warped.apply(x, regions, images, down, across, self.scale)
