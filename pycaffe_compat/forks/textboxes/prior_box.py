"""PriorBox, as TextBoxes has it (MhLiao/TextBoxes, prior_box_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...layers.base import Shape
from ...layers.registry import register
from ..ssd.prior_box import PriorBox


@register("PriorBox", fork="textboxes")
class DoublePriorBox(PriorBox):
    """SSD's boxes, each followed by the same half a place below it. They are clipped unless ``clip: false``.

    Sizes are not cut to whole pixels.
    """

    shifts = ((0.0, 0.0), (0.0, 0.5))
    whole_pixels = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.prior_box_param
        self.clip = options.clip or not options.HasField("clip")

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.prior_box_param.min_size) < 2
