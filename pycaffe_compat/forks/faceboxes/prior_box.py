"""PriorBox, as FaceBoxes has it (sfzhang15/FaceBoxes, prior_box_layer.cpp; Zhang et al., IJCB 2017)."""

from __future__ import annotations

from typing import Any

from ...layers.registry import register
from ..ssd.prior_box import PriorBox
from . import DENSE

GRIDS = {32: 4, 64: 2}  # how many boxes of a size stand side by side at a place, a quarter of their side apart


@register("PriorBox", fork="faceboxes")
class DensePriorBox(PriorBox):
    """SSD's boxes, with squares a pixel smaller; each place gets a 4 x 4 grid for ``min_size`` 32, and 2 x 2 for 64.

    Those two sizes stand together with 128 alone, 21 boxes a place.
    """

    def box_sizes(self, options: Any) -> list[tuple[float, float]]:
        sizes = [int(size) for size in options.min_size]
        plain = not options.max_size and not options.aspect_ratio
        if len(sizes) == len(DENSE) or set(sizes) & set(GRIDS):
            if tuple(sizes) != DENSE or not plain:
                raise self.error(
                    "prior_box_param: min_size 32 and 64, and three sizes, are for min_size 32, 64 and 128 without max_size and "
                    "aspect_ratio in FaceBoxes' Caffe; where the net is SSD's, --fork ssd"
                )
            boxes = []
            self.moved = []
            for size in sizes:
                side = GRIDS.get(size, 1)
                steps = [(at - side // 2) * size / 4 for at in range(side)]
                self.moved += [(x, y) for y in steps for x in steps]
                boxes += [(size - 1.0, size - 1.0)] * side**2
            return boxes
        least = [(float(size),) * 2 for size in sizes]
        return [(w - 1, h - 1) if (w, h) in least else (w, h) for w, h in super().box_sizes(options)]
