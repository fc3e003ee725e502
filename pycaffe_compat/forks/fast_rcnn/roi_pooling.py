"""ROIPooling, as Fast R-CNN's Caffe has it (rbgirshick/caffe-fast-rcnn, roi_pooling_layer.cpp and .cu)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, untraced
from ...layers.registry import register
from ...tables import dims
from .bins import Bins, largest, read_pooled, read_regions, rounded, tracing, whole


@register(
    "ROIPooling", fork=("fast_rcnn", "mnc", "rfcn", "psroi_align", "ctpn", "tsn", "person_search", "synopsys", "xilinx")
)
class ROIPooling(Layer):
    """The maximum of each bin of a grid over a region, in each channel.

    A region's corners times ``spatial_scale`` are rounded to cells, both inclusive; bins may overlap. A bin outside of the
    plane is 0. Caffe's gradient is looked for from the cell: it is lost where, by rounding, a bin reaches beyond its region.
    No gradient flows to regions.

    Attributes:
        loses: whether gradients are lost so.
    """

    options = ("roi_pooling_param",)
    bottoms = (2, 2)
    differentiable = (True, False)
    planes_traceable = False
    loses: ClassVar[bool] = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.roi_pooling_param, bottom_shapes[0]
        self.scale = options.spatial_scale
        self.pooled = self.read_sizes(options, shape)

    def read_sizes(self, options: Any, shape: Shape) -> tuple[int, ...]:
        """The number of bins on each axis of the planes.

        Raises:
            LayerError: one is missing or 0, or the bottom's ``shape`` has another number of axes.
        """
        if len(shape) != 4:
            raise self.error(f"needs a bottom (num, channels, height, width), not of shape {dims(shape)}")
        return read_pooled(self, options, "roi_pooling_param")

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        """Return (R, channels, pooled_h, pooled_w) for regions (R, 5) of image, x1, y1, x2, y2.

        Raises:
            LayerError: a region is of no image of the batch.
        """
        if x.is_meta:
            return x.new_empty((len(regions), x.shape[1], *self.pooled))
        return self.pool(x, regions)

    @untraced
    def pool(self, x: Tensor, regions: Tensor) -> Tensor:
        images, corners = read_regions(self, x, regions)
        sides, axes = x.shape[2:], len(self.pooled)
        low, high = (whole(each) for each in self.cells_of(corners))
        order = (1, 0) if axes == 2 else (0, 2, 1)  # of x and y, or of z, x and y, for the axes of planes
        spans = [(low[:, k], high[:, k]) for k in order]
        edges = [
            self.edges(a, b, bins, side, corners.dtype)
            for (a, b), bins, side in zip(spans, self.pooled, sides, strict=True)
        ]
        bins = Bins(images, [first for first, _ in edges], [stop for _, stop in edges])
        lowest = torch.finfo(x.dtype).min
        rows = x.movedim(1, -1)
        rows = torch.where(rows > lowest, rows, lowest).contiguous()  # Caffe passes over NaN and -FLT_MAX
        if torch.is_grad_enabled() and x.requires_grad and not tracing():
            places = largest(rows.detach(), bins, True)
            lost = self.lost(places, bins, spans, sides, corners.dtype) if self.loses else None
            values = rows.reshape(-1, rows.shape[-1]).gather(0, places)
            values = values if lost is None else torch.where(lost, values.detach(), values)
            empty = torch.stack(bins.sizes()).amin(0) == 0
            values = torch.where(empty[:, None], 0, values) if bool(empty.any()) else values
        else:
            values = largest(rows, bins, False)
        each = values.reshape(-1, math.prod(self.pooled), x.shape[1])
        return each.transpose(1, 2).unflatten(2, self.pooled)

    def cells_of(self, corners: Tensor) -> tuple[Tensor, Tensor]:
        """The first and the last cell of each region, (R, axes) each, for its corners in pixels."""
        low, high = corners.chunk(2, 1)
        return rounded(low * self.scale), rounded(high * self.scale)

    @staticmethod
    def edges(low: Tensor, high: Tensor, bins: int, side: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The first cells of the bins of one axis, and those after their last, (R, bins) each."""
        length = _bin_length(low, high, bins, dtype)
        at = torch.arange(bins + 1, dtype=dtype, device=low.device)
        first = (at[:-1] * length).floor().long() + low[:, None]
        stop = (at[1:] * length).ceil().long() + low[:, None]
        return first.clamp(0, side), stop.clamp(0, side)

    def gradient_span(self, low: Tensor, high: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """The cells of one axis from which gradients are looked for."""
        return low, high

    def lost(
        self,
        places: Tensor,
        bins: Bins,
        spans: Sequence[tuple[Tensor, Tensor]],
        sides: Sequence[int],
        dtype: torch.dtype,
    ) -> Tensor | None:
        """Which maxima Caffe does not find again on its way back, in the shape of ``places``; None if it finds all."""
        tables, fine = [], []
        for k, ((low, high), side) in enumerate(zip(spans, sides, strict=True)):
            table = _found_again(*self.gradient_span(low, high, side), self.pooled[k], side, dtype)
            cell = torch.arange(side, device=places.device)
            inside = (cell >= bins.first[k][:, :, None]) & (cell < bins.stop[k][:, :, None])
            fine.append((table | ~inside).all(2))
            tables.append(table)
        bad = (~torch.stack(bins.grid(fine)).all(0)).flatten().nonzero().squeeze(1)
        if not len(bad):
            return None
        place, rest = places[bad], bad
        found = torch.ones_like(place, dtype=torch.bool)
        region = bad.div(len(places) // len(bins.images), rounding_mode="floor")
        for table, side in zip(reversed(tables), reversed(sides), strict=True):
            pooled = table.shape[1]
            found &= table[region[:, None], (rest % pooled)[:, None], place % side]
            rest, place = rest.div(pooled, rounding_mode="floor"), place.div(side, rounding_mode="floor")
        return torch.zeros_like(places, dtype=torch.bool).index_copy(0, bad, ~found)


def _bin_length(low: Tensor, high: Tensor, bins: int, dtype: torch.dtype) -> Tensor:
    return (high - low + 1).clamp(min=1).to(dtype)[:, None] / bins


def _found_again(low: Tensor, high: Tensor, bins: int, side: int, dtype: torch.dtype) -> Tensor:
    """Whether Caffe's way back looks into a bin for a cell, (R, bins, side): its own division says so, and the region."""
    cell = torch.arange(side, device=low.device)
    offset = cell - low[:, None]
    length = _bin_length(low, high, bins, dtype)
    first, stop = (offset.to(dtype) / length).floor()[:, None], ((offset + 1).to(dtype) / length).ceil()[:, None]
    each = torch.arange(bins, device=low.device)[:, None]
    inside = (offset >= 0) & (cell <= high[:, None])
    return (each >= first) & (each < stop) & inside[:, None]
