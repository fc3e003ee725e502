"""The numbers of YOLO's first version: those that a net predicts for each cell of an image, and those of a true box.

Source: yeahkun/caffe-yolo, box_data_layer.cpp and detection_loss_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...tables import dims

NUMBERS = 7  # of a label, for each cell


class Labels(NamedTuple):
    """Labels by cell, (N, cells) each, ``box`` (N, cells, 4) of centre, width and height in parts of the image."""

    difficult: Tensor
    there: Tensor
    label: Tensor
    box: Tensor


class Grid:
    """A map of ``side`` x ``side`` cells: the scores of ``classes``, then how sure ``boxes`` boxes are, then the boxes.

    With ``constriant`` a box's centre is one within its cell, with ``sqrt`` its sides are roots.
    """

    def __init__(self, layer: Layer, options: Any, shapes: Sequence[Shape]) -> None:
        self.layer = layer
        self.side, self.classes, self.boxes = options.side, options.num_class, options.num_object
        self.roots, self.inside = options.sqrt, options.constriant
        self.cells = self.side**2
        self.check(*shapes)

    def check(self, scores: Sequence[int], labels: Sequence[int]) -> None:
        """Check that there are as many numbers as the options say.

        Raises:
            LayerError: there are not.
        """
        predicted = self.cells * (self.classes + 5 * self.boxes)
        if not scores or count(scores, 1) != predicted or count(labels, 1) != self.cells * NUMBERS or not self.cells:
            raise self.layer.error(
                f"needs {predicted} numbers an image for {self.side}×{self.side} cells of {self.classes} classes and "
                f"{self.boxes} boxes, and {self.cells * NUMBERS} of labels, not bottoms of {dims(scores)} and {dims(labels)}"
            )
        if labels[0] != scores[0]:
            raise self.layer.error(f"has labels of {labels[0]} images for {scores[0]}")

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The scores (N, classes, cells), the sureness (N, boxes, cells) and the boxes (N, boxes, 4, cells) of a map."""
        rows = x.reshape(len(x), -1, self.cells)
        scores, sure, boxes = rows.split((self.classes, self.boxes, 4 * self.boxes), 1)
        return scores, sure, boxes.reshape(len(x), self.boxes, 4, self.cells)

    def in_image(self, boxes: Tensor) -> Tensor:
        """Predicted ``boxes`` (N, boxes, 4, cells) in parts of the image, (N, cells, boxes, 4)."""
        boxes = boxes.permute(0, 3, 1, 2)
        centre, sides = boxes[..., :2], boxes[..., 2:]
        if self.inside:
            centre = (self.places(boxes)[:, None] + centre) / self.side
        return torch.cat((centre, sides.square() if self.roots else sides), -1)

    def places(self, like: Tensor) -> Tensor:
        """Column and row of each cell, (cells, 2)."""
        at = torch.arange(self.cells, device=like.device)
        return torch.stack((at % self.side, at // self.side), 1).to(like.dtype)

    def read(self, labels: Tensor) -> Labels:
        """The labels (N, 7 * cells).

        Raises:
            LayerError: a cell with a box has a label that is no class.
        """
        rows = labels.detach().reshape(len(labels), -1)
        difficult, there, label, box = rows.split((self.cells, self.cells, self.cells, 4 * self.cells), 1)
        there, label = there != 0, label.long()
        wrong = there & ((label < 0) | (label >= self.classes))
        if bool(wrong.any()):
            raise self.layer.error(f"label {int(label[wrong][0])} is not a class: there are {self.classes}, from 0")
        return Labels(difficult == 1, there, label, box.reshape(len(rows), self.cells, 4))


def overlaps(a: Tensor, b: Tensor) -> Tensor:
    """The intersection over union of boxes (…, 4) of centre, width and height; 0 for those apart."""
    low = torch.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = torch.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    sides = high - low
    common = sides.prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - common
    return torch.where((sides < 0).any(-1), 0, common / union)
