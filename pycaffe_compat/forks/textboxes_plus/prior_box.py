"""PriorBox, as TextBoxes++ has it (MhLiao/TextBoxes_plusplus, prior_box_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...layers.base import Shape
from ...layers.registry import register
from ..ssd.prior_box import PriorBox


@register("PriorBox", fork="textboxes_plus")
class DenserPriorBox(PriorBox):
    """SSD's boxes; with ``denser_prior_boxes``, each is followed by a copy on the border to the place below."""

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if param.prior_box_param.denser_prior_boxes:
            self.shifts = ((0.0, 0.0), (0.0, 1.0 - self.offset))
