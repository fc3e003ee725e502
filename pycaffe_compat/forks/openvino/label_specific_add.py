"""LabelSpecificAdd, as OpenVINO's training toolbox has it (openvinotoolkit/training_toolbox_caffe, label_specific_add.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...layers.base import Shape
from ...layers.registry import register
from ..happynear.channel_scale import LabelSpecificAdd


@register("LabelSpecificAdd", fork="openvino")
class LabelSpecificSubtract(LabelSpecificAdd):
    """In training, subtracts ``|bias|`` from the score of each item's label where that is above it. Otherwise a copy."""

    tops = (1, 1)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.bias, self.moves = -abs(self.bias), False
