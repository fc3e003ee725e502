"""L1Loss, as NVIDIA's Caffe has it (NVIDIA/caffe 0.17, l1_loss_layer.cpp)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...layers.loss import LossLayer
from ...layers.registry import register


@register("L1Loss", fork=("nvidia", "xilinx"))
class L1Loss(LossLayer):
    """``sum |a - b| / N``; both bottoms get gradients."""

    options = ()
    differentiable = (True, True)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return not param.HasField("l1_loss_param") and len(param.bottom) == 2  # else it is FlowNet2's

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the loss as a tensor without axes. Both are (N, …) with the same number of values."""
        n = self.batch_size(a, b)
        self.same_count(a, b)
        return (a - b.reshape(a.shape)).abs().sum() / n
