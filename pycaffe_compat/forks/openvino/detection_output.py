"""DetectionOutputExtended of OpenVINO's training toolbox (openvinotoolkit/training_toolbox_caffe, that layer's .cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape
from ...layers.registry import register
from ...tables import dims
from ..ssd.detection_output import DetectionOutput


@register("DetectionOutputExtended", fork="openvino")
class DetectionOutputExtended(DetectionOutput):
    """SSD's DetectionOutput of one class of objects, which also says where each detection was found.

    The codes are (N, H, W, anchors · 4). The top is (1, 1, K, 10): image, label, score, xmin, ymin, xmax, ymax, anchor, and x and
    y of the place in the H × W map.
    """

    bottoms = (3, 3)
    more_columns = 3

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        if self.classes != 2:
            raise self.error(
                f"detection_output_param.num_classes: {self.classes} must be 2, the background and the objects"
            )
        if not self.share_location:
            raise self.error("detection_output_param.share_location: false is not supported")
        self.labels, self.results = [1], None
        if len(bottom_shapes[0]) != 4 or bottom_shapes[0][3] % 4:
            raise self.error(
                f"takes codes of shape (num, height, width, anchors * 4), not {dims(bottom_shapes[0])}; leave out Flatten"
            )

    @torch.no_grad()
    def forward(self, loc: Tensor, conf: Tensor, prior: Tensor, *_: Tensor) -> Tensor:
        return super().forward(loc, conf, prior, loc)

    def decode(self, codes: Tensor, prior: Tensor, variance: Tensor, *more: Tensor) -> Tensor:
        boxes = super().decode(codes, prior, variance)
        _, height, width, numbers = more[0].shape
        y, x, anchor = torch.meshgrid(
            *(torch.arange(n, device=boxes.device, dtype=boxes.dtype) for n in (height, width, numbers // 4)),
            indexing="ij",
        )
        places = torch.stack((anchor, x, y), 3).reshape(1, -1, 1, 3)
        return torch.cat((boxes, places.expand(len(boxes), -1, -1, -1)), 3)
