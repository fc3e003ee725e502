"""SmoothL1Loss, as Intel's Caffe has it (intel/caffe, smooth_L1_loss_layer.cpp)."""

from __future__ import annotations

from torch import Tensor

from ...layers.registry import register
from ...proto import caffe_pb2
from ..fast_rcnn.smooth_l1_loss import SmoothL1Loss

NONE = caffe_pb2.LossParameter.NONE


@register("SmoothL1Loss", fork="intel")
class IntelSmoothL1Loss(SmoothL1Loss):
    """Faster R-CNN's SmoothL1Loss, but ``loss_param { normalization: NONE }`` leaves the sum undivided."""

    def finish(self, loss: Tensor, n: int) -> Tensor:
        return loss.sum() / (1 if self.mode == NONE else n)
