"""ProposalTarget of Cascade R-CNN (zhaoweicai/cascade-rcnn, proposal_target_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Shape
from ...layers.registry import register
from ..mscnn.proposal_target import ProposalTarget


@register("ProposalTarget", fork="cascade_rcnn")
class CascadeProposalTarget(ProposalTarget):
    """MS-CNN's, but true boxes have 8 numbers, the last of which is ignored; rows with image -1 are skipped.

    ``append_gtbox`` says whether they become proposals, ``pickup_discard`` whether others fill up. A single region is drawn
    at random, and that where there would be none. Boxes whose overlap is not in ``bbox_thr_lw`` … ``bbox_thr_hg`` have weights
    of 0.
    """

    inclusive = True
    true_columns = (7, 8)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.proposal_target_param
        self.takes_true_boxes, self.fills_up = options.append_gtbox, options.pickup_discard
        self.learned = (options.bbox_thr_lw, options.bbox_thr_hg)

    def usable(self, true: Tensor) -> Tensor:
        return super().usable(true[true[:, 0].trunc() != -1])

    def lacking(self, taken: int) -> int:
        return int(taken == 0)

    def counts(self, overlap: Tensor) -> Tensor:
        low, high = self.learned
        return (overlap >= low) & (overlap <= high)
