"""EvalDetection of YOLO v2, as Intel's Caffe has it (intel/caffe, eval_detection_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.registry import register
from ...tables import dims
from ..yolo.boxes import by_cell, decode
from ..yolo_v1.eval_detection import Boxes, DetectionScores

ANCHORS = 5
LEAST = 0.005  # scores below this are left out


@register("EvalDetection", fork="intel")
class RegionDetectionScores(DetectionScores):
    """The numbers for each label's precision in a test, from a map (N, 5 * (5 + classes), side, side) and labels like SSD's.

    Labels are (1, 1, boxes, 8), from 1; ``biases`` are the anchors in cells. Boxes that overlap by ``nms`` or more, whatever
    their labels, and those with a score below 0.005 are left out; without ``nms`` all are. A box that overlaps no true one of
    its label enough is neither right nor wrong.
    """

    wrong_apart = False
    bottoms = (2, 3)
    inert_options = frozenset({"sqrt", "constriant"})

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.eval_detection_param
        if self.boxes != ANCHORS or len(options.biases) < 2 * ANCHORS:
            raise self.error(
                f"eval_detection_param needs num_object: {ANCHORS} and width and height of as many anchors in biases, not "
                f"num_object: {self.boxes} and {len(options.biases)} biases"
            )
        self.biases = torch.tensor(options.biases[: 2 * ANCHORS]).reshape(ANCHORS, 2)
        self.check(*bottom_shapes[:2])

    @classmethod
    def fits(cls, param: Any) -> bool:
        return bool(param.eval_detection_param.biases)

    def check(self, scores: Sequence[int], labels: Sequence[int]) -> None:
        wanted = (ANCHORS * (5 + self.classes), self.side, self.side)
        if tuple(scores[1:]) != wanted or count(labels) % 8:
            raise self.error(
                f"needs a map N×{dims(wanted)} and labels of 8 numbers for each box, not {dims(scores)} and {dims(labels)}"
            )

    def predicted(self, x: Tensor) -> list[Boxes]:
        cells = by_cell(x, ANCHORS)
        anchors = self.biases.to(x) / self.side
        boxes = decode(cells[:, :, :2].sigmoid(), cells[:, :, 2:4], anchors).permute(0, 3, 4, 1, 2).flatten(1, 3)
        best, label = cells[:, :, 5:].softmax(2).max(2)
        value = self.score(cells[:, :, 4].sigmoid(), best)
        label, value = (part.permute(0, 2, 3, 1).flatten(1) for part in (label, value))
        return [Boxes(*parts) for parts in zip(label, value, boxes, strict=True)]

    def judged(self, boxes: Boxes, truth: Boxes) -> Tensor:
        if self.nms < 0:
            return boxes.value.new_empty((0, 4))
        rows = super().judged(boxes, truth)
        return rows[rows[:, 1] >= LEAST]

    def true(self, x: Tensor, labels: Tensor) -> list[Boxes]:
        rows = labels.reshape(-1, 8)
        rows = rows[rows[:, 0].long() != -1]
        image, label = rows[:, 0].long(), rows[:, 1].long() - 1
        for name, values, most in (("image", image, len(x)), ("class", label, self.classes)):
            wrong = (values < 0) | (values >= most)
            if bool(wrong.any()):
                raise self.error(f"a label is of {name} {int(values[wrong][0])}; there are {most}, from 0")
        low, high = rows[:, 3:5], rows[:, 5:7]
        box = torch.cat(((low + high) / 2, high - low), 1)
        return [Boxes(label[image == i], torch.zeros_like(label[image == i]), box[image == i]) for i in range(len(x))]
