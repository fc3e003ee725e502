"""RegionLoss, YOLO v2's loss, as MobileNet-YOLO's Caffe has it (eric612/MobileNet-YOLO, region_loss_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape
from ...layers.registry import register
from .boxes import by_cell, decode, overlaps
from .grid_loss import GridLoss, Truths, last_of_each, shape_overlaps


@register("RegionLoss", fork="yolo")
class RegionLoss(GridLoss):
    """YOLO v2's loss for a map (N, num * (5 + classes), H, H) and labels (N, 300 * 5) of class, x, y, w, h.

    For each box of truth the anchor of its cell that is most alike is to predict it; of two boxes of truth for one, the last.
    A box that no truth overlaps by more than ``thresh`` is to predict that there is nothing. Anchors are ``biases`` in cells.
    With ``bias_match: 0`` the predicted sizes are compared in their place. The loss is the sum of squares of what is wrong, by
    N, and the gradient what is wrong itself, by N. A truth whose centre is outside of the image belongs to the nearest cell.
    """

    inert_options = frozenset({"side", "softmax", "jitter", "absolute", "random", "class_map"})
    least_biases: ClassVar[int] = 10  # with fewer the fork takes none of them

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.region_loss_param
        self.anchors, self.classes = options.num, options.num_class
        self.match_anchors, self.rescore, self.threshold = (
            bool(options.bias_match),
            bool(options.rescore),
            options.thresh,
        )
        self.object_scale, self.noobject_scale = options.object_scale, options.noobject_scale
        self.class_scale, self.coord_scale = options.class_scale, options.coord_scale
        if options.coords != 4:
            raise self.error(f"region_loss_param.coords: {options.coords} must be 4")
        if options.softmax_tree:
            raise self.error(f"region_loss_param.softmax_tree: {options.softmax_tree} is not supported")
        least = max(self.least_biases, 2 * self.anchors)
        if len(options.biases) < least:
            raise self.error(
                f"needs region_loss_param.biases, width and height of num: {self.anchors} anchors and at least {least} "
                f"numbers; there are {len(options.biases)}"
            )
        self.biases = list(zip(options.biases[::2], options.biases[1::2], strict=False))[: self.anchors]
        self.check_map(bottom_shapes[0])
        self.check_truths(bottom_shapes[0], bottom_shapes[1])

    def check_map(self, shape: Sequence[int]) -> None:
        super().check_map(shape)
        if shape[2] != shape[3]:
            raise self.error(f"needs a square map, not {shape[2]}×{shape[3]}")

    def read_labels(self, x: Tensor, labels: Tensor) -> tuple[Truths, Tensor]:
        """The boxes of truth, and which of them forbid that a box predicts nothing."""
        return self.truths(x, labels, 1)

    def judge(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        truths, seen = self.read_labels(x, labels)
        n, side = len(x), x.shape[-1]
        maps = by_cell(x, self.anchors)
        offsets, objects, classes = maps[:, :, :2].sigmoid(), maps[:, :, 4].sigmoid(), maps[:, :, 5:].softmax(2)
        anchors = x.new_tensor(self.biases) / side
        boxes = decode(offsets, maps[:, :, 2:4], anchors)
        wrong = maps.new_zeros(maps.shape)
        nothing = self.noobject_scale * objects * (objects * (1 - objects))
        free = self.best_overlap(boxes, truths, seen) <= self.threshold
        wrong[:, :, 4] = torch.where(free, nothing, 0)

        column, row = truths.cells(side, side)
        place = row * side + column
        flat = [part.flatten(-2) for part in (offsets, maps[:, :, 2:4], objects[:, :, None], classes, boxes)]
        sizes = anchors if self.match_anchors else flat[4][truths.image, :, 2:, place]
        anchor, image = shape_overlaps(sizes, truths).argmax(1), truths.image
        last = last_of_each((image * self.anchors + anchor) * side**2 + place, n * self.anchors * side**2)
        at = image[last], anchor[last], slice(None), place[last]
        offset, exponent, thing, likely, box = (part[at] for part in flat)
        true, cell = truths.box[last], torch.stack((column, row), 1)[last]
        box = torch.cat(((cell + offset) / side, box[:, 2:]), 1)
        iou = overlaps(box[:, None], true[:, None])[:, 0]
        aims = true[:, :2] * side - cell, (true[:, 2:] / anchors[anchor[last]]).log()
        one = F.one_hot(truths.label[last].clamp(0, self.classes - 1), self.classes)
        found = torch.cat(
            (
                self.coordinates(aims[0] - offset, true) * (offset * (1 - offset)),
                self.coordinates(aims[1] - exponent, true),
                self.thing(thing, iou),
                self.class_scale * (likely - one),
            ),
            1,
        )
        wrong.flatten(-2)[at] = found
        return self.total(wrong), wrong.reshape(x.shape) / n

    def total(self, wrong: Tensor) -> Tensor:
        """The loss, of what is wrong with each number of the map."""
        return wrong.square().sum() / len(wrong)

    def coordinates(self, difference: Tensor, true: Tensor) -> Tensor:
        """What is wrong with offsets or exponents (K, 2) that differ so from what they should be, for truths (K, 4)."""
        scale = self.coord_scale if self.rescore else self.coord_scale * (2 - true[:, 2:].prod(1, keepdim=True))
        return -scale * difference

    def thing(self, objects: Tensor, iou: Tensor) -> Tensor:
        """What is wrong with the certainty (K, 1) that there is something, for boxes that overlap their truths so."""
        aim = iou if self.rescore else 1
        return -self.object_scale * (aim - objects) * (objects * (1 - objects))
