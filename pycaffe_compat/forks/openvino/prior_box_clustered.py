"""PriorBoxClustered, as Intel's training toolbox has it (prior_box_clustered_layer.cpp)."""

from __future__ import annotations

from typing import Any

from ...layers.registry import register
from ..ssd.prior_box import Priors


@register("PriorBoxClustered", fork="openvino")
class PriorBoxClustered(Priors):
    """PriorBox with boxes of given ``width`` and ``height``, found by clustering the data's boxes.

    It has no use for ``min_size``, ``max_size``, ``aspect_ratio`` and ``flip``, as in the fork.
    """

    def box_sizes(self, options: Any) -> list[tuple[float, float]]:
        widths, heights = list(options.width), list(options.height)
        if not widths or len(widths) != len(heights):
            raise self.error(
                f"prior_box_param has {len(widths)} width and {len(heights)} height; give one of each for every box"
            )
        self._check_positive("width", widths)
        self._check_positive("height", heights)
        return list(zip(widths, heights, strict=True))
