"""DetectionOutput, as TextBoxes has it (MhLiao/TextBoxes, detection_output_layer.cpp)."""

from __future__ import annotations

from torch import Tensor

from ...layers.registry import register
from ..ssd.detection_output import DetectionOutput


@register("DetectionOutput", fork="textboxes")
class TextDetectionOutput(DetectionOutput):
    """SSD's, but without any detection the top is a single row of -1, (1, 1, 1, 7), however many images there are."""

    def nothing(self, images: int, like: Tensor) -> Tensor:
        return like.new_full((1, 7), -1)
