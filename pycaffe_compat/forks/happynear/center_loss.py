"""CenterLoss, as happynear's Caffe has it (happynear/caffe-windows, branch ms, center_loss_layer.cpp and .cu)."""

from __future__ import annotations

from typing import Any

from ...layers.registry import register
from ..caffe_face.center_loss import CenterLoss


@register("CenterLoss", fork="happynear")
class RepeatedCenterLoss(CenterLoss):
    """caffe-face's CenterLoss, but a center's gradient counts once for every feature of its class."""

    repeats = True

    @classmethod
    def fits(cls, param: Any) -> bool:
        return param.center_loss_param.HasField("distance_type")
