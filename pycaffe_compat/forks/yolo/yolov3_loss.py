"""Yolov3, YOLO v3's loss, as MobileNet-YOLO's Caffe has it (eric612/MobileNet-YOLO, yolov3_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape
from ...layers.registry import register
from ...proto import caffe_pb2
from .boxes import by_cell, decode
from .grid_loss import GridLoss, Truths, last_of_each, shape_overlaps
from .iou_losses import gradient, similarity


@register("Yolov3", fork="yolo")
class Yolov3(GridLoss):
    """YOLO v3's loss for a map (N, num * (5 + classes), H, W) and labels (N, 300 * 5) of class, x, y, w, h.

    ``biases`` are anchors in pixels of an image ``anchors_scale`` times as large as the map; ``mask`` names those of this map.
    For each box of truth the anchor that is most alike is to predict it, if it is one of this map's, and so are others that
    are alike by more than ``iou_thresh``. Of several boxes of truth for one prediction the last gives the coordinates, and all
    give classes. A box that no truth overlaps by more than ``thresh`` is to predict that there is nothing. The loss is the sum
    of squares of what is wrong, by N, and the gradient what is wrong itself, by N; with ``use_logic_gradient`` through the
    sigmoids. A truth whose centre is outside of the image belongs to the nearest cell.

    With an ``iou_loss`` other than MSE, the gradient of coordinates is that of this measure, times ``iou_normalizer``, at most
    ``max_delta``, and the sum over the boxes of truth unless ``accumulate: false``; the loss counts 1 less the measure, on
    average, for them. ``use_focal_loss`` is for classes.
    """

    options = ("yolov3_param",)
    inert_options = frozenset({"side", "noobject_scale"})  # the fork does nothing with them

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.yolov3_param
        self.anchors, self.classes, self.scale = options.num, options.num_class, options.anchors_scale
        self.threshold, self.second_threshold = options.thresh, options.iou_thresh
        self.object_scale, self.class_scale, self.coord_scale = (
            options.object_scale,
            options.class_scale,
            options.coord_scale,
        )
        self.through, self.smooth = options.use_logic_gradient, options.label_smooth_eps
        self.biases = list(zip(options.biases[::2], options.biases[1::2], strict=False))
        self.mask = list(options.mask)[: self.anchors]
        self.measure: str = caffe_pb2.Yolov3Parameter.IOU_LOSS.Name(options.iou_loss)
        self.weight, self.accumulate, self.focal = options.iou_normalizer, options.accumulate, options.use_focal_loss
        self.limit = options.max_delta if options.max_delta < torch.finfo(torch.float32).max else math.inf
        if not self.scale:
            raise self.error("yolov3_param.anchors_scale: 0 must be at least 1")
        if len(self.mask) < self.anchors or not all(mask < len(self.biases) for mask in self.mask):
            raise self.error(
                f"needs yolov3_param.mask for num: {self.anchors} anchors, each one of the {len(self.biases)} pairs of biases; "
                f"it is {', '.join(map(str, self.mask)) or 'empty'}"
            )
        self.check_map(bottom_shapes[0])
        self.check_truths(bottom_shapes[0], bottom_shapes[1])

    def judge(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        truths, seen = self.truths(x, labels, 1)
        maps = by_cell(x, self.anchors)
        active = maps.sigmoid()
        active[:, :, 2:4] = maps[:, :, 2:4]
        n, (height, width) = len(x), x.shape[-2:]
        sides = x.new_tensor(self.biases) / x.new_tensor((width * self.scale, height * self.scale))
        mine = sides[self.mask]
        boxes = decode(active[:, :, :2], maps[:, :, 2:4], mine)
        wrong = maps.new_zeros(maps.shape)
        wrong[:, :, 4] = torch.where(self.best(boxes, truths, seen) <= self.threshold, active[:, :, 4], 0)

        pairs = self.pairs(self.alike(sides, truths))
        truth, _, anchor = pairs.nonzero().unbind(1)
        column, row = truths.cells(width, height)
        image, place = truths.image[truth], (row * width + column)[truth]
        number = (image * self.anchors + anchor) * height * width + place
        at = image, anchor, slice(None), place
        true, label = truths.box[truth], truths.label[truth].clamp(0, self.classes - 1)
        found, flat = active.flatten(-2)[at], wrong.flatten(-2)
        first = last_of_each(number.flip(0), n * self.anchors * height * width).flip(0)
        last = last_of_each(number, n * self.anchors * height * width)
        rest = wrong.new_zeros(())
        if self.measure == "MSE":
            cell = torch.stack((column, row), 1)[truth]
            aim = torch.cat((true[:, :2] * x.new_tensor((width, height)) - cell, (true[:, 2:] / mine[anchor]).log()), 1)
            coordinates = -self.coord_scale * (2 - true[:, 2:].prod(1, keepdim=True)) * (aim - found[:, :4])
        else:
            box = boxes.flatten(-2)[at]
            coordinates = self.pull(box, true, found[:, 2:4])
            kind = "DIOU" if self.measure == "IOU" else self.measure
            rest = self.weight * (1 - similarity(kind, box, true)).sum() / max(1, len(box))
        if self.measure != "MSE" and self.accumulate:
            sums = coordinates.new_zeros((n * self.anchors * height * width, 4)).index_add(0, number, coordinates)
            coordinates = sums[number]
        target = image[last], anchor[last], slice(None), place[last]
        values = torch.zeros_like(found)
        values[:, :4] = coordinates
        values[:, 4] = (found[:, 4] - 1) * (self.object_scale if self.through else 1)
        values[:, 5:] = self.class_errors(found[:, 5:], label, number, first, n * self.anchors * height * width)
        flat[target] = values[last]
        counted = wrong if self.measure == "MSE" else wrong[:, :, 4:]
        loss = (counted.square().sum() + rest) / n
        if not self.through:
            return loss, wrong.reshape(x.shape) / n
        slope = active * (1 - active)
        if self.measure != "MSE":  # the fork has put the map itself there by then
            slope[:, :, :2] = maps[:, :, :2] * (1 - maps[:, :, :2])
        slope[:, :, 2:4] = 1
        return loss, (wrong * slope).reshape(x.shape) / n

    def class_errors(self, likely: Tensor, label: Tensor, number: Tensor, first: Tensor, places: int) -> Tensor:
        """What is wrong with the classes (K, classes) of the boxes ``number``, for the labels of all their boxes of truth.

        The first label of a box says what all of its classes should be, the others what theirs should.
        """
        one = F.one_hot(label, self.classes).to(likely.dtype)
        if self.focal:
            p = likely.gather(1, label[:, None]) + 1e-15
            slope = -(1 - p) * (2 * p * p.log() + p - 1)
            errors = -self.class_scale * (one - likely) * (0.5 * slope)
        else:
            errors = -self.class_scale * (one * (1 - self.smooth) + 0.5 * self.smooth - likely)
        table = likely.new_zeros((places, self.classes))
        table[number[first]] = errors[first]
        later = ~first
        aim = 1 - self.smooth + 0.5 * self.smooth
        picked = likely.gather(1, label[:, None])[:, 0]
        table[number[later], label[later]] = (-self.class_scale * (aim - picked))[later]
        return table[number]

    def pull(self, box: Tensor, true: Tensor, exponents: Tensor) -> Tensor:
        """What is wrong with the coordinates (K, 4) of boxes by the measure of ``iou_loss``."""
        box = torch.cat((box[:, :2], torch.where(box[:, 2:] == 0, 1, box[:, 2:])), 1)
        slope = gradient(self.measure, box, true)
        slope = torch.cat((slope[:, :2], slope[:, 2:] * exponents.exp()), 1) * self.weight
        return -torch.where(slope.isfinite(), slope, 0).clamp(-self.limit, self.limit)

    def best(self, boxes: Tensor, truths: Truths, seen: Tensor) -> Tensor:
        """As :meth:`best_overlap`, by the measure of ``iou_loss``."""
        if self.measure in ("MSE", "IOU"):
            return self.best_overlap(boxes, truths, seen)
        return self.best_overlap(boxes, truths, seen, lambda a, b: similarity(self.measure, a[:, None], b[None]))

    def alike(self, sides: Tensor, truths: Truths) -> Tensor:
        """How alike the shapes of boxes of truth and of anchors are, (K, A)."""
        if self.measure in ("MSE", "IOU"):
            return shape_overlaps(sides, truths)
        anchor, box = F.pad(sides, (2, 0)), F.pad(truths.box[:, 2:], (2, 0))
        return similarity(self.measure, anchor, box[:, None]).nan_to_num(0)

    def pairs(self, alike: Tensor) -> Tensor:
        """Which anchors of this map are to predict which boxes of truth, bool (K, 2, anchors): as the best, or as others.

        Args:
            alike: (K, A), of the boxes of truth and all anchors.
        """
        mask = torch.tensor(self.mask, device=alike.device)
        most, best = alike.max(1, keepdim=True)
        is_best = (mask == best) & (most > 0)
        # of the others the fork leaves out the anchor with the number that the best one has in the mask: often not the best
        position = torch.where(is_best.any(1, keepdim=True), is_best.long().argmax(1, keepdim=True), best)
        others = (alike[:, mask] > self.second_threshold) & (mask != position) & (self.second_threshold < 1)
        return torch.stack((is_best, others), 1)
