"""Proposal, as synopsys-caffe has it (proposal_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape, untraced
from ...layers.registry import register
from ..fast_rcnn.anchors import moved, placed
from ..fast_rcnn.bins import rounded
from ..fast_rcnn.nms import suppress
from ..fast_rcnn.proposals import Proposals


@register("Proposal", fork="synopsys")
class RoundedProposal(Proposals):
    """Regions of interest from the scores and shifts of the anchors in Faster R-CNN's Python layer.

    The bottoms are scores (1, 2 A, H, W), of which the second half counts; shifts (1, 4 A, H, W); and height, width and
    scale of the image. The tops are regions (R, 5) of 0, x1, y1, x2, y2, and their scores (R, 1). ``anchor_scale`` 3 is
    short for scales 8, 16 and 32, and ``anchor_ratio`` 3 for ratios 0.5, 1 and 2; other numbers for 32, and 1. The last box
    stays, however small. Of equal scores the last counts. ``pre_nms_topn`` only says how many boxes Caffe sorts.
    """

    inert_options = frozenset({"pre_nms_topn"})

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.proposal_param
        self.stride, self.nominal = options.feat_stride, options.max_rois
        self.min_size, self.threshold = options.rpn_min_size, options.rpn_nms_thresh
        for field in ("feat_stride", "anchor_base_size", "max_rois"):
            if getattr(options, field) < 1:
                raise self.error(f"proposal_param.{field}: {getattr(options, field)} must be at least 1")
        scales = (8, 16, 32) if options.anchor_scale == 3 else (32,)
        ratios = (0.5, 1, 2) if options.anchor_ratio == 3 else (1,)
        self.anchors = _anchors(options.anchor_base_size, ratios, scales)
        self.check_shapes(*bottom_shapes)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return not param.proposal_param.ratio and not param.proposal_param.scale

    @untraced
    def propose(self, scores: Tensor, shifts: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, for tensors with memory; both tops.

        Raises:
            LayerError: height, width or scale of the image are not finite.
        """
        height, width = scores.shape[2:]
        a = len(self.anchors)
        values = scores[0, a:].float().flatten()  # by anchor, row and column
        codes = shifts.float().reshape(a, 4, -1).transpose(1, 2).reshape(-1, 4)
        anchors = placed(self.anchors, self.stride, height, width, codes)
        anchors = anchors.reshape(-1, a, 4).transpose(0, 1).reshape(-1, 4)
        tall, wide, scale = sizes.tolist()[:3]
        if not math.isfinite(tall + wide + scale):
            raise self.error(
                f"height, width and scale of its image are {tall:g}, {wide:g} and {scale:g}; they must be finite"
            )
        limit = codes.new_tensor((int(wide), int(tall), int(wide), int(tall))) - 1
        boxes = moved(anchors, codes)
        boxes = torch.where(boxes < limit, boxes, limit).clamp(min=0)  # NaN becomes the limit
        stays = (boxes[:, 2:] - boxes[:, :2] + 1 >= self.min_size * scale).all(1)
        stays[-1] = True
        boxes, values = boxes[stays].flip(0), values[stays].flip(0)
        values, order = values.sort(descending=True, stable=True)
        boxes = boxes[order]
        kept = suppress(boxes, self.threshold, self.nominal, touching=True)
        regions = F.pad(boxes[kept], (1, 0))
        return regions.to(scores.dtype), values[kept, None].to(scores.dtype)


def _anchors(base: int, ratios: Sequence[float], scales: Sequence[float]) -> np.ndarray:
    """The boxes (A, 4) around a square of side ``base`` at 0, by ratio and scale; ratios give whole sides."""
    centre = 0.5 * (base - 1)
    boxes = []
    for ratio in ratios:
        width = float(rounded(torch.tensor(math.sqrt(base * base / ratio))))
        height = float(rounded(torch.tensor(width * ratio)))
        half = [(0.5 * (width * scale - 1), 0.5 * (height * scale - 1)) for scale in scales]
        boxes += [(centre - w, centre - h, centre + w, centre + h) for w, h in half]
    return np.array(boxes, np.float32)
