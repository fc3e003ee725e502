"""EvalDetection of YOLO v1 (yeahkun/caffe-yolo, eval_detection_layer.cpp)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ..fast_rcnn.nms import suppress_by
from .grid import Grid, overlaps


class Boxes(NamedTuple):
    """The boxes of an image: their labels (n,), scores or difficulty (n,), and centres, widths and heights (n, 4)."""

    label: Tensor
    value: Tensor
    box: Tensor


class DetectionScores(Layer):
    """The numbers for each label's precision in a test: how many true boxes there are, and which predicted ones are right.

    The top is a row for each image: the number of true boxes of each label, and of each predicted box label, score, whether
    it is right and whether it is wrong, by label, the best first; the rest is 0. A box is right that overlaps the nearest true
    one of its label by ``threshold`` or more, if none before it does. Of equal scores the first counts, where Caffe's own
    sort has no rule. No gradient flows.

    Attributes:
        wrong_apart: whether a box that overlaps no true one enough is wrong; else it is neither.
    """

    options = ("eval_detection_param",)
    bottoms = (2, 2)
    differentiable = (False,)
    traceable = False
    head = True
    wrong_apart = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.eval_detection_param
        self.side, self.classes, self.boxes = options.side, options.num_class, options.num_object
        self.threshold, self.nms = options.threshold, options.nms
        self.by_sureness = options.score_type != options.PROB
        self.by_class = options.score_type != options.OBJ

    def score(self, sure: Tensor, probability: Tensor) -> Tensor:
        """The score of a box, as ``score_type`` says."""
        if not self.by_class:
            return sure.expand_as(sure * probability)
        return sure * probability if self.by_sureness else probability

    @abstractmethod
    def check(self, scores: Sequence[int], labels: Sequence[int]) -> None:
        """Raise a ``LayerError`` unless the bottoms have these shapes."""

    @abstractmethod
    def predicted(self, x: Tensor) -> list[Boxes]:
        """The boxes that a map predicts, for each image."""

    @abstractmethod
    def true(self, x: Tensor, labels: Tensor) -> list[Boxes]:
        """The true boxes of each image; ``value`` says which are difficult."""

    def forward(self, x: Tensor, labels: Tensor, *unread: Tensor) -> Tensor:
        """Return (N, classes + 4 * side² * num_object). Further bottoms are not read."""
        self.check(x.shape, labels.shape)
        made = x.new_zeros((len(x), self.classes + 4 * self.side**2 * self.boxes))
        if not x.is_meta:
            x, labels = x.detach(), labels.detach().to(x.dtype)
            for row, boxes, truth in zip(made, self.predicted(x), self.true(x, labels), strict=True):
                counted = truth.label[~truth.value.bool()]
                row[: self.classes] = torch.bincount(counted, minlength=self.classes).to(row.dtype)
                rows = self.judged(boxes, truth)
                row[self.classes : self.classes + rows.numel()] = rows.flatten()
        return made

    def judged(self, boxes: Boxes, truth: Boxes) -> Tensor:
        """A row for each box: label, score, whether it is right and whether it is wrong."""
        order = boxes.value.argsort(descending=True, stable=True)
        if self.nms >= 0:
            order = order[suppress_by(lambda a, b: overlaps(a[:, None], b) >= self.nms, boxes.box[order])]
        order = order[boxes.label[order].sort(stable=True).indices]
        label, score, box = (part[order] for part in boxes)
        right, wrong = torch.zeros_like(score), torch.ones_like(score)
        if len(truth.label) and len(label):
            near = overlaps(box[:, None], truth.box).nan_to_num(-1)
            near = torch.where(label[:, None] == truth.label, near, -2)
            best, of = near.max(1)
            met = best >= self.threshold
            counts = met & ~truth.value.bool()[of]
            at = torch.arange(len(of), device=of.device)
            first = torch.full_like(truth.label, len(of)).scatter_reduce(0, of[counts], at[counts], "amin")
            hit = counts & (first[of] == at)
            right = hit.to(score.dtype)
            known = (label[:, None] == truth.label).any(1)
            spared = (met & ~counts) | (known & ~met & (not self.wrong_apart))
            wrong = (~hit & ~spared).to(score.dtype)
        return torch.stack((label.to(score.dtype), score, right, wrong), 1)


@register("EvalDetection", fork="yolo_v1")
class GridDetectionScores(DetectionScores):
    """The numbers for each label's precision in a test, from :class:`.grid.Grid`'s map and labels (N, 7 * cells).

    Difficult true boxes do not count, nor do boxes that overlap them. With ``nms``, of boxes that overlap by as much or more
    the best stays, whatever their labels. A third bottom, the pictures, is not read.
    """

    bottoms = (2, 3)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.grid = Grid(self, param.eval_detection_param, bottom_shapes[:2])

    def check(self, scores: Sequence[int], labels: Sequence[int]) -> None:
        self.grid.check(scores, labels)

    def predicted(self, x: Tensor) -> list[Boxes]:
        scores, sure, boxes = self.grid.split(x)
        best, label = scores.max(1)
        value = self.score(sure.transpose(1, 2), best[..., None]).expand(-1, -1, self.boxes)
        placed = self.grid.in_image(boxes)
        return [
            Boxes(label[i].repeat_interleave(self.boxes), value[i].flatten(), placed[i].reshape(-1, 4))
            for i in range(len(x))
        ]

    def true(self, x: Tensor, labels: Tensor) -> list[Boxes]:
        truth = self.grid.read(labels)
        return [
            Boxes(truth.label[i][there], truth.difficult[i][there], truth.box[i][there])
            for i, there in enumerate(truth.there)
        ]
