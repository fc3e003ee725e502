"""DetectionOutput, as TextBoxes++ has it (MhLiao/TextBoxes_plusplus, detection_output_layer.cpp and bbox_util.cpp)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape
from ...layers.registry import register
from ..ssd import boxes as bx
from ..ssd.detection_output import DetectionOutput

log = logging.getLogger(__name__)


@register("DetectionOutput", fork="textboxes_plus")
class SlantedDetectionOutput(DetectionOutput):
    """SSD's, with a slanted box for each box, which plays no part in the suppression.

    With ``use_polygon``, which is on by default, there are 12 codes for each prior, and the top is (1, 1, K, 15): after SSD's
    7 numbers x and y of four corners, clockwise from the upper left one, which are coded against those of the prior. Without
    it there are 9 codes, and the top is (1, 1, K, 12): two corners, coded against the prior's middle, and the height.
    Without any detection K is N: the image and -1. The fork writes no files, whatever ``save_output_param`` says.
    """

    inert_options = frozenset({"save_file"})

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        options = param.detection_output_param
        self.polygons = bool(options.use_polygon or not options.HasField("use_polygon"))
        self.code_size = 12 if self.polygons else 9
        super().__init__(param, bottom_shapes)
        if self.code_type != bx.CENTER_SIZE or self.variance_in_target:
            raise self.error(
                "needs code_type: CENTER_SIZE without variance_encoded_in_target; TextBoxes++ decodes no slanted boxes otherwise"
            )
        if self.results is not None:
            log.warning("%s", self.error("save_output_param: TextBoxes++ writes no files of detections, nor does this"))
            self.results = None

    def decode(self, codes: Tensor, prior: Tensor, variance: Tensor, *more: Tensor) -> Tensor:
        boxes = super().decode(codes[..., :4], prior, variance, *more)
        left, top, right, bottom = prior.unbind(-1)
        sides = torch.stack((right - left, bottom - top), -1)
        if self.polygons:
            start = torch.stack((left, top, right, top, right, bottom, left, bottom), -1)
        else:
            start = torch.stack(((left + right) / 2, (top + bottom) / 2), -1).repeat(1, 1, 2)
        pairs = start.shape[-1] // 2
        points = (
            variance[..., :2].repeat(1, 1, pairs) * codes[..., 4 : 4 + 2 * pairs] * sides.repeat(1, 1, pairs) + start
        )
        if self.polygons:
            return torch.cat((boxes, points), -1)
        height = (variance[..., 3:] * codes[..., 8:]).exp() * sides[..., 1:]
        return torch.cat((boxes, points, height), -1)
