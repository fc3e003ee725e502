"""PSROIPooling, as R-FCN's Caffe has it (daijifeng001/caffe-rfcn, psroi_pooling_layer.cpp and .cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Layer, Shape, untraced
from ...layers.loss import precise
from ...layers.registry import register
from ...tables import dims
from ..fast_rcnn.bins import Bins, read_regions, rounded, tracing, whole


class PositionSensitive(Layer):
    """Regions (R, 5) of a bottom with channels of its own for each bin, as (R, output_dim, group_size, group_size).

    A region is image, x1, y1, x2, y2. No gradient flows to regions. Subclasses have read ``channels`` and ``group`` when they
    check the bottom.
    """

    bottoms = (2, 2)
    differentiable = (True, False)
    channels: int
    group: int

    def check_channels(self, shape: Shape) -> None:
        """Raise a ``LayerError`` unless a bottom of this shape has the channels of all bins."""
        if len(shape) != 4 or shape[1] != self.channels * self.group**2:
            raise self.error(
                f"needs a bottom with {self.channels * self.group**2} channels (output_dim {self.channels} times "
                f"group_size {self.group} squared) and 4 axes, not of shape {dims(shape)}"
            )

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        """Return the values of the bins.

        Raises:
            LayerError: a region is of no image of the batch.
        """
        if x.is_meta:
            return x.new_empty((len(regions), self.channels, self.group, self.group))
        return self.pool(x, regions)

    def pool(self, x: Tensor, regions: Tensor) -> Tensor:
        """As :meth:`forward`, for tensors with memory."""
        raise NotImplementedError


@register("PSROIPooling", fork=("rfcn", "psroi_align", "intel", "happynear", "cascade_rcnn"))
class PSROIPooling(PositionSensitive):
    """The mean of each bin of a grid over a region, each bin in its own channels.

    Bin (i, j) of ``group_size`` x ``group_size`` of output channel c is the mean of channel
    ``(c * group_size + i) * group_size + j`` over its cells; bins may overlap, and a bin outside of the plane is 0. A
    region's corners, rounded and the last included, times ``spatial_scale`` are not rounded again. No gradient flows to
    regions.
    """

    options = ("psroi_pooling_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.psroi_pooling_param, bottom_shapes[0]
        self.scale, self.channels, self.group = options.spatial_scale, options.output_dim, options.group_size
        if not options.HasField("spatial_scale"):
            raise self.error("needs psroi_pooling_param.spatial_scale")
        for field in ("output_dim", "group_size"):
            if getattr(options, field) < 1:
                raise self.error(f"needs psroi_pooling_param.{field}, at least 1")
        self.check_channels(shape)

    @untraced
    def pool(self, x: Tensor, regions: Tensor) -> Tensor:
        """As :meth:`forward`, for tensors with memory."""
        images, corners = read_regions(self, x, regions)
        group, sides = self.group, x.shape[2:]
        corners = rounded(corners)
        low, high = corners[:, :2] * self.scale, (corners[:, 2:] + 1) * self.scale
        length = (high - low).clamp(min=0.1) / group
        bins = torch.arange(group + 1, dtype=low.dtype, device=x.device)[:, None]
        first = (bins[:-1] * length[:, None] + low[:, None]).floor()
        stop = (bins[1:] * length[:, None] + low[:, None]).ceil()
        edges = [
            (whole(first[..., k]).clamp(0, side), whole(stop[..., k]).clamp(0, side))
            for k, side in ((1, sides[0]), (0, sides[1]))
        ]
        grid = Bins(images, *([edge[i] for edge in edges] for i in (0, 1)))
        if tracing():
            return self._by_sums(x, grid)
        # every bin is a region of its own, in one of group² maps of its image
        maps = images[:, None] * group**2 + torch.arange(group**2, device=x.device)
        each = Bins(
            maps.flatten(), *([axis.flatten()[:, None] for axis in grid.grid(side)] for side in (grid.first, grid.stop))
        )
        at, start = each.cells(sides)
        rows = precise(x).reshape(len(x), self.channels, group**2, -1).permute(0, 2, 3, 1).reshape(-1, self.channels)
        area = torch.stack(each.sizes()).prod(0).clamp(min=1)
        means = F.embedding_bag(at, rows, start, mode="sum") / area[:, None]
        return means.reshape(len(regions), group, group, self.channels).permute(0, 3, 1, 2).contiguous().to(x.dtype)

    def _by_sums(self, x: Tensor, grid: Bins) -> Tensor:
        """The means by sums of everything above and to the left, which takes the same steps for all regions."""
        maps = x.double().unflatten(1, (self.channels, self.group, self.group)).permute(0, 2, 3, 4, 5, 1)
        sums = F.pad(maps.cumsum(3).cumsum(4), (0, 0, 1, 0, 1, 0))
        bin_ = torch.arange(self.group, device=x.device)
        total: Tensor | int = 0
        for rows, sign in ((grid.stop[0], 1), (grid.first[0], -1)):
            for columns, other in ((grid.stop[1], 1), (grid.first[1], -1)):
                at = (grid.images[:, None, None], bin_[:, None], bin_, rows[:, :, None], columns[:, None])
                total = total + sign * other * sums[at]
        tall, wide = ((stop - first).clamp(min=0) for first, stop in zip(grid.first, grid.stop, strict=True))
        area = (tall[:, :, None] * wide[:, None])[..., None]
        means = torch.where(area == 0, 0, total / area.clamp(min=1))
        return means.permute(0, 3, 1, 2).contiguous().to(x.dtype)
