"""Proposal, as happynear's Caffe has it (happynear/caffe-windows, proposal_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...layers.base import Layer, Shape, untraced
from ...layers.registry import register
from ...tables import dims
from ..fast_rcnn.anchors import moved, placed
from ..fast_rcnn.nms import suppress


@register("Proposal", fork="happynear")
class Proposal(Layer):
    """Regions of interest from the scores and shifts of anchors, as in Faster R-CNN's Python layer.

    The bottoms are scores (N, 2 A, H, W), of which the second half counts; shifts (N, 4 A, H, W); and height and width of
    the images, which are all of one size, with the factors by which they were made larger (of height, of width) for
    ``min_size``. The tops are regions (R, 5) of image, x1, y1, x2, y2, and their scores (R,). The A anchors are every
    ``ratio`` with every ``scale``. A box that is too small scores 0, but stays. Without both factors ``min_size`` is taken as
    it is, as on Caffe's GPUs. Of equal scores the first counts, where Caffe's own sort has no rule. No gradient flows.
    """

    bottoms = (3, 3)
    tops = (1, 2)
    differentiable = (False,)
    open_axes = (0,)
    traceable = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.proposal_param
        self.stride, self.min_size, self.threshold = options.feat_stride, options.min_size, options.nms_thresh
        self.before, self.after = options.pre_nms_topn, options.post_nms_topn
        for field in ("ratio", "scale"):
            values = getattr(options, field)
            if not values or not all(value > 0 for value in values):
                raise self.error(f"needs proposal_param.{field}, once or more often, above 0")
        for field in ("base_size", "pre_nms_topn", "post_nms_topn"):
            if not getattr(options, field):
                raise self.error(f"proposal_param.{field}: 0 must be at least 1")
        self.anchors = _anchors(options.base_size, options.ratio, options.scale)
        self.check_shapes(*bottom_shapes)

    def check_shapes(self, scores: Sequence[int], shifts: Sequence[int], sizes: Sequence[int]) -> None:
        """Check that scores and shifts are of the same places and of all anchors, and that the image has a size.

        Raises:
            LayerError: they are not, or it has not.
        """
        a = len(self.anchors)
        wanted = [(*scores[:1], number * a, *scores[2:]) for number in (2, 4)]
        if len(scores) != 4 or [tuple(scores), tuple(shifts)] != wanted:
            raise self.error(
                f"needs scores N×{2 * a}×H×W and shifts N×{4 * a}×H×W for {a} anchors (every ratio with every scale), not "
                f"{dims(scores)} and {dims(shifts)}"
            )
        if math.prod(sizes) < 2:
            raise self.error(f"needs height and width of the images in its third bottom, which has shape {dims(sizes)}")

    def forward(self, scores: Tensor, shifts: Tensor, sizes: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return regions (R, 5), at most ``post_nms_topn`` an image, and their scores (R,) if there is a top for them."""
        self.check_shapes(scores.shape, shifts.shape, sizes.shape)
        if scores.is_meta:
            most = len(scores) * self.after
            regions, found = scores.new_empty((most, 5)), scores.new_empty((most,))
        else:
            regions, found = self.propose(scores.detach(), shifts.detach(), sizes.detach().flatten())
        return regions if self.n_tops == 1 else (regions, found)

    @untraced
    def propose(self, scores: Tensor, shifts: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, for tensors with memory; both tops."""
        n, _, height, width = scores.shape
        a = len(self.anchors)
        floats = scores.dtype if scores.dtype == torch.float64 else torch.float32
        values = scores.to(floats)[:, a:].permute(0, 2, 3, 1).reshape(n, -1)  # by row, column and anchor
        codes = shifts.to(floats).reshape(n, a, 4, height, width).permute(0, 3, 4, 1, 2).reshape(n, -1, 4)
        tall, wide, *factors = sizes.to(floats).tolist()
        boxes = clipped(moved(placed(self.anchors, self.stride, height, width, codes), codes), tall, wide)
        sides = boxes[..., 2:] - boxes[..., :2] + 1
        least = [self.min_size * factor for factor in factors[1::-1]] if len(factors) > 1 else [self.min_size] * 2
        values = (sides >= sides.new_tensor(least)).all(-1) * values
        regions, found = [], []
        for image in range(n):
            best, order = values[image].sort(descending=True, stable=True)
            order = order[: self.before]
            kept = suppress(boxes[image][order], self.threshold, self.after)
            at = boxes.new_full((len(kept), 1), image)
            regions.append(torch.cat((at, boxes[image][order[kept]]), 1))
            found.append(best[kept])
        return torch.cat(regions).to(scores.dtype), torch.cat(found).to(scores.dtype)


def clipped(boxes: Tensor, height: float, width: float) -> Tensor:
    """Boxes (…, 4) limited to the pixels of the image; NaN becomes 0."""
    limit = boxes.new_tensor((width, height, width, height)) - 1
    return torch.minimum(boxes.nan_to_num(0, math.inf, -math.inf), limit).clamp(min=0)


def _anchors(base: int, ratios: Sequence[float], scales: Sequence[float]) -> np.ndarray:
    """The boxes (A, 4) around a square of side ``base`` at 0, by ratio and scale, in Caffe's float32 arithmetic."""
    centre = np.float32(0.5) * (np.float32(base) - np.float32(1))
    boxes = []
    for ratio in np.array(ratios, np.float32):
        width = np.sqrt(np.float32(base * base) / ratio)
        height = width * ratio
        for scale in np.array(scales, np.float32):
            half = [np.float32(0.5) * int(float(side * scale) / base - 1 + 0.5) for side in (width, height)]
            boxes.append([centre - half[0], centre - half[1], centre + half[0], centre + half[1]])
    return np.array(boxes, np.float32)
