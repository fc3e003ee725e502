"""True boxes as OpenVINO's training toolbox reads them (openvinotoolkit/training_toolbox_caffe, bbox_util.cpp)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...layers.registry import register
from ..ssd.detection_evaluate import DetectionEvaluate
from ..ssd.multibox_loss import MultiBoxLoss


def within_classes(labels: Tensor, background: int, classes: int) -> Tensor:
    """OpenVINO's way of reading labels: larger ones are the last class, and where there are 2 classes all are objects."""
    whole = labels.long()
    return torch.full_like(whole, background + 1) if classes == 2 else whole.clamp(max=classes - 1)


@register("MultiBoxLoss", fork="openvino")
class OpenvinoMultiBoxLoss(MultiBoxLoss):
    """SSD's, but out-of-range labels count as the last class, and with 2 classes all objects are one class."""

    def relabel(self, labels: Tensor) -> Tensor:
        return within_classes(labels, self.background, self.classes)


@register("DetectionEvaluate", fork="openvino")
class OpenvinoDetectionEvaluate(DetectionEvaluate):
    """SSD's, but out-of-range labels count as the last class, and with 2 classes all objects are one class."""

    def relabel(self, labels: Tensor) -> Tensor:
        return within_classes(labels, self.background, self.classes)
