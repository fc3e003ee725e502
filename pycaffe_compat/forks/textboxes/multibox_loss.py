"""MultiBoxLoss, as TextBoxes has it (MhLiao/TextBoxes, multibox_loss_layer.cpp and bbox_util.cpp)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...layers.registry import register
from ..ssd.multibox_loss import MultiBoxLoss, Options
from ..ssd.truth import Truth


@register("MultiBoxLoss", fork="textboxes")
class TextMultiBoxLoss(MultiBoxLoss):
    """SSD's, from before ``mining_type``: ``do_neg_mining``, on by default, turns the mining of negatives on or off.

    They are ranked by the largest probability of a class that is not the background.
    """

    def mining_of(self, options: Any) -> int:
        mines = options.do_neg_mining or not options.HasField("do_neg_mining")
        return int(Options.MAX_NEGATIVE if mines else Options.NONE)

    def _check_options(self, options: Any) -> None:
        super()._check_options(options)
        if self.mining != Options.NONE and not self.ratio > 0:
            raise self.error(f"neg_pos_ratio: {self.ratio:g} must be above 0, or say do_neg_mining: false")

    def _ranking_losses(self, index: Tensor, scores: Tensor, truth: Truth) -> Tensor:
        is_background = torch.arange(self.classes, device=scores.device) == self.background
        best = scores.masked_fill(is_background, -torch.inf).amax(2)
        if self.logistic:
            return best.sigmoid()
        most = scores.amax(2)
        return (best - most).exp() / (scores - most[..., None]).exp().sum(2)
