"""Regions on their way through Cascade R-CNN's nets (zhaoweicai/cascade-rcnn, scale_route_layer.cpp, roi_pooling_layer.cu)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.registry import register
from ...tables import dims
from ..mscnn.roi_pooling import PaddedROIPooling


@register("ROIPooling", fork="cascade_rcnn")
class WholeROIPooling(PaddedROIPooling):
    """As MS-CNN's, but no gradient is lost."""

    loses = False


@register("ScaleRoute", fork="cascade_rcnn")
class ScaleRoute(Layer):
    """Keeps, from each bottom, the items of regions (the first bottom, (R, 5)) with a scale in ``low_scale`` … ``high_scale``.

    The scale is the root of the area; ``high_scale`` is not included. Where no region is, the one next to the middle of both
    stays. No gradient flows.
    """

    bottoms = (1, None)
    tops = (1, None)
    differentiable = (False,)
    open_axes = (0,)
    traceable = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.scale_route_param
        if param.top and len(param.top) != len(bottom_shapes):
            raise self.error(f"has {len(param.top)} tops, but makes one for each of its {len(bottom_shapes)} bottoms")
        self.check_bottoms(bottom_shapes)
        has_low, has_high = options.HasField("low_scale"), options.HasField("high_scale")
        self.low, self.high = options.low_scale if has_low else 0.0, options.high_scale if has_high else math.inf
        if (has_low and self.low <= 0) or self.high <= self.low:
            raise self.error(
                f"scale_route_param: low_scale: {self.low:g} must be above 0 and below high_scale: {self.high:g}"
            )
        ends = [end for end, given in ((self.low, has_low), (self.high, has_high)) if given]
        self.middle = math.prod(ends) ** (1 / len(ends)) if ends else 256.0

    def check_bottoms(self, shapes: Sequence[Shape]) -> None:
        """Raise unless the first bottom holds regions, and all are of as many items."""
        if not shapes[0] or count(shapes[0], 1) != 5:
            raise self.error(f"needs regions R×5 as its first bottom, not {dims(shapes[0])}")
        if any(not shape or shape[0] != shapes[0][0] for shape in shapes):
            raise self.error(f"needs bottoms of as many items, not {', '.join(map(dims, shapes))}")

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return what is chosen of each bottom.

        Raises:
            LayerError: there is no region, or the bottoms are not of as many items.
        """
        self.check_bottoms([x.shape for x in bottoms])
        if bottoms[0].is_meta:
            tops = tuple(x.new_empty((1, *x.shape[1:])) for x in bottoms)
        else:
            rows = bottoms[0].detach().reshape(len(bottoms[0]), 5)
            sides = rows[:, 3:] - rows[:, 1:3]
            scale = ((sides + 1).prod(1) * (sides >= 0).all(1)).sqrt()
            chosen = ((scale >= self.low) & (scale < self.high)).nonzero().squeeze(1)
            if not len(chosen):
                if not len(rows):
                    raise self.error("has no regions to choose from")
                chosen = (scale / self.middle).log2().abs().argmin().reshape(1)
            tops = tuple(x.detach()[chosen] for x in bottoms)
        return tops if len(tops) > 1 else tops[0]
