"""Yolov3, YOLO v3's loss, as MobileNet-YOLO's Caffe has it (eric612/MobileNet-YOLO, yolov3_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape, register
from ...proto import caffe_pb2
from .boxes import by_cell, decode
from .grid_loss import GridLoss, last_of_each, shape_overlaps


@register("Yolov3", fork="yolo")
class Yolov3(GridLoss):
    """YOLO v3's loss of a map (N, num * (5 + classes), H, W) against labels (N, 300 * 5) of class, x, y, w, h.

    ``biases`` are anchors in pixels of an image ``anchors_scale`` times as large as the map; ``mask`` names those of this map.
    For each box of truth the anchor that is most alike is to predict it, if it is one of this map's, and so are others that
    are alike by more than ``iou_thresh``. Of several boxes of truth for one prediction the last gives the coordinates, and all
    give classes. A box that no truth overlaps by more than ``thresh`` is to predict that there is nothing. The loss is the sum
    of squares of what is wrong, by N, and the gradient what is wrong itself, by N; with ``use_logic_gradient`` through the
    sigmoids. A truth whose centre is outside of the image belongs to the nearest cell. ``iou_loss`` MSE alone is done here.
    """

    options = ("yolov3_param",)
    # the fork reads noobject_scale and side, but not what it read; the others belong to other values of iou_loss
    inert_options = frozenset({"side", "noobject_scale", "iou_normalizer", "max_delta", "accumulate"})

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
        if options.iou_loss != caffe_pb2.Yolov3Parameter.MSE:
            name = caffe_pb2.Yolov3Parameter.IOU_LOSS.Name(options.iou_loss)
            raise self.error(f"yolov3_param.iou_loss: {name} is not done here; MSE is")
        if options.use_focal_loss:
            raise self.error("yolov3_param.use_focal_loss: true is not done here")
        if not self.scale:
            raise self.error("yolov3_param.anchors_scale: 0 must be at least 1")
        if len(self.mask) < self.anchors or not all(mask < len(self.biases) for mask in self.mask):
            raise self.error(
                f"needs yolov3_param.mask for num: {self.anchors} anchors, each one of the {len(self.biases)} pairs of biases; "
                f"it is {', '.join(map(str, self.mask)) or 'empty'}"
            )
        self.check_map(bottom_shapes[0])

    def wrong(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        truths, seen = self.truths(x, labels, 1)
        n, (height, width) = len(x), x.shape[-2:]
        maps = by_cell(x, self.anchors)
        active = maps.sigmoid()
        active[:, :, 2:4] = maps[:, :, 2:4]
        sides = x.new_tensor(self.biases) / x.new_tensor((width * self.scale, height * self.scale))
        boxes = decode(active[:, :, :2], maps[:, :, 2:4], sides[self.mask])
        wrong = maps.new_zeros(maps.shape)
        wrong[:, :, 4] = torch.where(self.best_overlap(boxes, truths, seen) <= self.threshold, active[:, :, 4], 0)

        truth, anchor = self.pairs(shape_overlaps(sides, truths)).nonzero().unbind(1)
        column, row = truths.cells(width, height)
        cell, place, image = torch.stack((column, row), 1), row * width + column, truths.image
        number = (image[truth] * self.anchors + anchor) * height * width + place[truth]
        last = last_of_each(number, n * self.anchors * height * width)
        at = image[truth[last]], anchor[last], slice(None), place[truth[last]]
        found = active.flatten(-2)[at]
        true, mine = truths.box[truth[last]], sides[self.mask][anchor[last]]
        aim = torch.cat(
            (true[:, :2] * x.new_tensor((width, height)) - cell[truth[last]], (true[:, 2:] / mine).log()), 1
        )
        found[:, :4] = -self.coord_scale * (2 - true[:, 2:].prod(1, keepdim=True)) * (aim - found[:, :4])
        found[:, 4] = (found[:, 4] - 1) * (self.object_scale if self.through else 1)
        aims = found.new_full((n * self.anchors * height * width, self.classes), 0.5 * self.smooth)
        aims[number, truths.label[truth].clamp(0, self.classes - 1)] = 1 - self.smooth + 0.5 * self.smooth
        found[:, 5:] = -self.class_scale * (aims[number[last]] - found[:, 5:])
        wrong.flatten(-2)[at] = found
        if not self.through:
            return wrong.reshape(x.shape), wrong.reshape(x.shape)
        slope = active * (1 - active)
        slope[:, :, 2:4] = 1
        return wrong.reshape(x.shape), (wrong * slope).reshape(x.shape)

    def pairs(self, alike: Tensor) -> Tensor:
        """Which anchors of this map are to predict which boxes of truth, bool (K, anchors).

        Args:
            alike: the overlaps (K, A) of the shapes of the boxes of truth with those of all anchors.
        """
        mask = torch.tensor(self.mask, device=alike.device)
        most, best = alike.max(1, keepdim=True)
        is_best = (mask == best) & (most > 0)
        if self.second_threshold >= 1:
            return is_best
        # the fork passes over the anchor with the number that the best one has in the mask
        position = torch.where(is_best.any(1, keepdim=True), is_best.long().argmax(1, keepdim=True), best)
        return is_best | ((alike[:, mask] > self.second_threshold) & (mask != position))
