"""True boxes as NVIDIA's Caffe reads them (NVIDIA/caffe, bbox_util.cpp): those of the background are left out."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ...layers.registry import register
from ..ssd.detection_evaluate import DetectionEvaluate
from ..ssd.multibox_loss import MultiBoxLoss
from ..ssd.truth import LEFT_OUT


def above_background(labels: Tensor, background: int) -> Tensor:
    """NVIDIA's way of reading labels: they are rounded, and the background's and those below it are left out."""
    whole = ((labels.abs() + 0.5).floor() * torch.sign(labels)).long()
    return whole.masked_fill(whole <= background, LEFT_OUT)


@register("MultiBoxLoss", fork="nvidia")
class NvidiaMultiBoxLoss(MultiBoxLoss):
    """SSD's, but true boxes with the background's label, or below, are ignored. ``ignore_difficult_gt`` does nothing."""

    inert_options: ClassVar[frozenset[str]] = frozenset({"ignore_difficult_gt"})

    def relabel(self, labels: Tensor) -> Tensor:
        return above_background(labels, self.background)


@register("DetectionEvaluate", fork="nvidia")
class NvidiaDetectionEvaluate(DetectionEvaluate):
    """SSD's, but true boxes labelled as background are ignored."""

    def relabel(self, labels: Tensor) -> Tensor:
        return above_background(labels, self.background)
