"""SmoothL1Loss, as R-FCN's Caffe has it (daijifeng001/caffe-rfcn, branch r-fcn, smooth_L1_loss_layer.cpp and .cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Shape
from ...layers.loss import PRE_FIXED
from ...layers.registry import register
from ..fast_rcnn.smooth_l1_loss import SmoothL1Loss, by_place, four_axes


@register("SmoothL1Loss", fork="rfcn")
class RfcnSmoothL1Loss(SmoothL1Loss):
    """Fast R-CNN's SmoothL1Loss, divided as ``loss_param`` says; a second top is the loss at each place.

    VALID, the default, divides by the number of places N H W. A layer with ``sigma`` or four bottoms
    is Faster R-CNN's, as in py-R-FCN.
    """

    fork_options = PRE_FIXED
    tops = (1, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.plain = len(bottom_shapes) == 4 or param.HasField("smooth_l1_loss_param")
        if self.plain and self.n_tops > 1:
            raise self.error("has 2 top blobs, but with four bottoms or smooth_l1_loss_param takes exactly 1")

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.bottom) < 4 and not param.HasField("smooth_l1_loss_param")

    def finish(self, loss: Tensor, n: int) -> Tensor | tuple[Tensor, Tensor]:
        if self.plain:
            return super().finish(loss, n)
        _, _, height, width = four_axes(loss.shape)
        total = loss.sum() / self.normalizer(None, n, n * height * width)
        return total if self.n_tops == 1 else (total, by_place(loss))
