"""PriorBox, as TextBoxes has it (MhLiao/TextBoxes, prior_box_layer.cpp)."""

from __future__ import annotations

from typing import Any

from ...layers.registry import register
from ..ssd.prior_box import PriorBox


@register("PriorBox", fork="textboxes")
class DoublePriorBox(PriorBox):
    """SSD's boxes, each followed by a copy half a step below. They are clipped unless ``clip: false``.

    Sizes are not cut to whole pixels.
    """

    shifts = ((0.0, 0.0), (0.0, 0.5))
    whole_pixels = False

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.prior_box_param.min_size) < 2
