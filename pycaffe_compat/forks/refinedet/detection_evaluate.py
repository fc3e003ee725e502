"""DetectionEvaluate, as RefineDet's Caffe has it (sfzhang15/RefineDet, detection_evaluate_layer.cpp and bbox_util.cpp)."""

from __future__ import annotations

from torch import Tensor

from ...layers.registry import register
from ..ssd.detection_evaluate import DetectionEvaluate
from .multibox_loss import one_object


@register("DetectionEvaluate", fork="refinedet")
class RefinedDetectionEvaluate(DetectionEvaluate):
    """SSD's, but with 2 classes every true box has class 1."""

    def relabel(self, labels: Tensor) -> Tensor:
        return one_object(labels, self.classes)
