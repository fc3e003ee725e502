"""SigmoidCrossEntropyBalanceLoss, as OSVOS's Caffe has it (sigmoid_cross_entropy_balance_loss_layer.cpp)."""

from __future__ import annotations

from ...layers.registry import register
from ..hed.sigmoid_cross_entropy_loss import BalancedSigmoidCrossEntropyLoss


@register("SigmoidCrossEntropyBalanceLoss", fork="osvos")
class SigmoidCrossEntropyBalanceLoss(BalancedSigmoidCrossEntropyLoss):
    """HED's SigmoidCrossEntropyLoss under another name: ones and zeros have equal weight in each image."""

    replaces_bvlcs = False
