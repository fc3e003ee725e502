"""What the losses of YOLO's versions share: boxes of truth, and the cells and anchors that are to predict them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import count, untraced
from ...layers.loss import LossLayer, precise
from ...layers.slope import WithSlope
from ...tables import dims
from .boxes import overlaps


class Truths(NamedTuple):
    """The boxes of truth of all images, one after the other.

    Attributes:
        image: which image each is of, (K,).
        label: its class from 0, (K,).
        box: x, y, w, h in parts of the image, (K, 4).
    """

    image: Tensor
    label: Tensor
    box: Tensor

    def cells(self, width: int, height: int) -> tuple[Tensor, Tensor]:
        """The column and the row of the cell that each centre lies in, (K,) each; the nearest for one outside."""
        column, row = (self.box[:, k] * side for k, side in enumerate((width, height)))
        return column.long().clamp(0, width - 1), row.long().clamp(0, height - 1)


class GridLoss(LossLayer):
    """The sum of squares of what a layer finds wrong with a map (N, anchors * (5 + classes), H, W), which is its gradient too.

    In the forks the gradient is what is wrong itself, and not the derivative of its square; so it is here.

    Attributes:
        anchors: how many boxes a cell predicts.
        classes: how many classes there are.
    """

    anchors: int
    classes: int

    def check_map(self, shape: Sequence[int]) -> None:
        """Check that a map has the channels of all boxes.

        Raises:
            LayerError: it has not.
        """
        channels = self.anchors * (5 + self.classes)
        if len(shape) != 4 or shape[1] != channels:
            raise self.error(
                f"needs a map with {channels} channels, num {self.anchors} times 5 and num_class {self.classes}, not of "
                f"shape {dims(shape)}"
            )

    def check_truths(self, map_shape: Sequence[int], shape: Sequence[int]) -> None:
        """Check that labels have 5 numbers for each box, and are of as many images as the map.

        Raises:
            LayerError: they have not, or are not.
        """
        if shape[-1:] == (8,) or count(shape, 1) % 5 or tuple(shape[:1]) != tuple(map_shape[:1]):
            hint = "; Intel's Caffe has 8 numbers: --fork intel" if shape[-1:] == (8,) else ""
            raise self.error(
                f"needs labels of class, x, y, w and h for each of {map_shape[0]} images, not of shape {dims(shape)}{hint}"
            )

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        self.check_map(x.shape)
        if x.is_meta:
            return x.new_empty(())
        return self.compare(precise(x), labels.detach())

    @untraced
    def compare(self, x: Tensor, labels: Tensor) -> Tensor:
        """As :meth:`forward`, for tensors with memory."""
        return WithSlope.apply(x, *self.judge(x.detach(), labels))

    def judge(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a map, as a tensor without axes, and its gradient, in the shape of the map."""
        raise NotImplementedError

    def truths(self, x: Tensor, labels: Tensor, side: int) -> tuple[Truths, Tensor]:
        """Read labels (N, 300 * 5) of class, x, y, w, h, each image's up to the first whose width is 0.

        Returns:
            those, and for each whether no box before it in its image has its number ``side`` 0.

        Raises:
            LayerError: there are other numbers of labels, or (on the CPU) one is of no class.
        """
        self.check_truths(x.shape, labels.shape)
        n = len(x)
        rows = labels.to(x.dtype).reshape(n, -1, 5)
        there, seen = ((rows[..., k] != 0).cumprod(1).bool() for k in (3, side))
        image = there.nonzero()[:, 0]
        found = Truths(image, rows[there][:, 0].long(), rows[there][:, 1:])
        self.check_labels(found.label)
        return found, seen[there]

    def check_labels(self, label: Tensor) -> None:
        """Raise a ``LayerError`` if a label, counted from 0, is of no class; only on the CPU, as for other losses."""
        if label.device.type == "cpu" and bool(((label < 0) | (label >= self.classes)).any()):
            at = int(((label < 0) | (label >= self.classes)).nonzero()[0])
            raise self.error(
                f"label {int(label[at])} is not a class: there are {self.classes}, 0 to {self.classes - 1}"
            )

    def best_overlap(
        self, boxes: Tensor, truths: Truths, seen: Tensor, measure: Callable[[Tensor, Tensor], Tensor] = overlaps
    ) -> Tensor:
        """The largest overlap of each predicted box with a box of truth of its image, at least 0.

        Args:
            boxes: (N, anchors, 4, H, W).
            seen: the boxes of truth that count, (K,).
            measure: the overlaps of some boxes (n, 4) and others (m, 4), as (n, m).

        Returns:
            (N, anchors, H, W).
        """
        n, anchors, _, height, width = boxes.shape
        best = boxes.new_zeros((n, anchors * height * width))
        flat = boxes.permute(0, 1, 3, 4, 2).reshape(n, -1, 4)
        for image in range(n):
            box = truths.box[(truths.image == image) & seen]
            if len(box):
                best[image] = measure(flat[image], box).nan_to_num(0).amax(1).clamp(min=0)
        return best.view(n, anchors, height, width)


def shape_overlaps(sides: Tensor, truths: Truths) -> Tensor:
    """The overlaps (K, A) of boxes of truth with boxes of ``sides`` (A, 2) or (K, A, 2) about the same centre; 0 for NaN."""
    box = F.pad(truths.box[:, None, 2:], (2, 0))
    others = F.pad(sides.expand(len(box), -1, -1), (2, 0))
    return overlaps(box, others)[:, 0].nan_to_num(0)


def last_of_each(places: Tensor, number: int) -> Tensor:
    """Which of ``places`` (K,), 0 to ``number``, is named by none that follows, bool (K,)."""
    order = torch.arange(len(places), device=places.device)
    last = order.new_full((number,), -1).scatter_reduce(0, places, order, "amax")
    return last[places] == order
