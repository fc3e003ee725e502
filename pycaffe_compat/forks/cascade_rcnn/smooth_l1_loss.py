"""SmoothL1Loss of Cascade R-CNN (zhaoweicai/cascade-rcnn, smooth_L1_loss_layer.cu)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...layers.registry import register
from ..fast_rcnn.smooth_l1_loss import SmoothL1Loss, by_place


@register("SmoothL1Loss", fork="cascade_rcnn")
class SmoothL1LossOfEach(SmoothL1Loss):
    """Faster R-CNN's SmoothL1Loss; a second top is the loss at each place, (N, 1, H, W), without a gradient."""

    tops = (1, 2)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return not param.HasField("smoothl1_param")

    def finish(self, loss: Tensor, n: int) -> Tensor | tuple[Tensor, Tensor]:
        total = loss.sum() / n
        return total if self.n_tops == 1 else (total, by_place(loss))
