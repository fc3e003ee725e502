"""PSROIAlign (afantideng/R-FCN-PSROIAlign, psroi_align_layer.cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape, untraced
from ...layers.registry import register
from ..fast_rcnn.bins import read_regions
from ..rfcn.psroi_pooling import PositionSensitive


@register("PSROIAlign", fork="psroi_align")
class PSROIAlign(PositionSensitive):
    """The mean of ``sample_num`` x ``sample_num`` points in each bin of a region, each bin in its own channels, as in R-FCN.

    A point takes its value from the four places around it. Bins are cut to the plane, but the points stay as far apart as in
    the whole bin, and those beyond its end are 0. The gradient of a place beyond the last that the whole bin reaches is lost,
    as in the fork. No gradient flows to regions.
    """

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.psroi_align_param, bottom_shapes[0]
        for field in ("output_dim", "group_size", "sample_num"):
            if getattr(options, field) < 1:
                raise self.error(f"needs psroi_align_param.{field}, at least 1")
        self.scale, self.channels, self.group = options.spatial_scale, options.output_dim, options.group_size
        self.points = options.sample_num
        self.check_channels(shape)

    @untraced
    def pool(self, x: Tensor, regions: Tensor) -> Tensor:
        """As :meth:`forward`, for tensors with memory."""
        images, corners = read_regions(self, x, regions)
        group = self.group
        planes = x.reshape(x.shape[0], self.channels, group, group, *x.shape[2:]).permute(0, 2, 3, 4, 5, 1)
        down, across = (
            self._points(corners[:, k] * self.scale, (corners[:, 2 + k] + 1) * self.scale, side)
            for k, side in ((1, x.shape[2]), (0, x.shape[3]))
        )
        image = images[:, None, None, None, None]
        row, column = (torch.arange(group, device=x.device).view(shape) for shape in ((group, 1, 1, 1), (group, 1, 1)))
        y = x.new_zeros(())
        for share, place, found in down:
            for part, where, seen in across:
                h, w = place[:, :, None, :, None], where[:, None, :, None, :]
                values = planes[image, row, column, h, w]
                kept = (found[:, :, None, :, None] & seen[:, None, :, None, :])[..., None]
                weight = (share[:, :, None, :, None] * part[:, None, :, None, :])[..., None].to(x.dtype)
                y = y + (torch.where(kept, values, values.detach()) * weight).sum((3, 4))
        return (y / self.points**2).permute(0, 3, 1, 2).contiguous()

    def _points(self, low: Tensor, high: Tensor, side: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For the two places next to each point of an axis (R, group, points): weight, place, whether its gradient counts."""
        length = (high - low).clamp(min=0.1)[:, None] / self.group
        step = torch.arange(self.group + 1, device=low.device, dtype=low.dtype)
        whole = step * length + low[:, None]  # the bins' ends before they are cut
        cut = whole.clamp(0, side - 1)
        first, stop = cut[:, :-1, None], cut[:, 1:, None]
        number = torch.arange(1, self.points + 1, device=low.device, dtype=low.dtype)
        at = first + number * (length / (self.points + 1))[..., None]
        inside = (at < stop).to(low.dtype)
        place = at.clamp(max=side - 1).floor()
        rest = at.clamp(max=side - 1) - place
        start, end = whole[:, :-1, None].floor().clamp(0, side), whole[:, 1:, None].ceil().clamp(0, side)
        made = []
        for share, where in ((1 - rest, place), (rest, (place + 1).clamp(max=side - 1))):
            made.append((share * inside, where.long(), (where >= start) & (where < end)))
        return made
