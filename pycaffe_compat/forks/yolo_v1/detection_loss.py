"""DetectionLoss, YOLO v1's loss (yeahkun/caffe-yolo, detection_loss_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape
from ...layers.loss import LossLayer
from ...layers.registry import register
from .grid import Grid, overlaps

FARTHEST = 20.0  # boxes that are farther from the true one than this are not told apart


@register("DetectionLoss", fork="yolo_v1")
class GridDetectionLoss(LossLayer):
    """The squared errors of :class:`.grid.Grid`'s map, compared with labels (N, 7 * cells).

    In a cell with a true box the classes count, and of its boxes the one that overlaps it most, or if none does, the one next
    to it; all other boxes are to be unsure. Each kind is divided by the number of true boxes, or of boxes that are none, and
    multiplied by its scale. The gradient is not that of the loss: it is what is wrong itself, by N, and a box is to be as sure
    as it overlaps.
    """

    options = ("detection_loss_param",)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.detection_loss_param
        self.grid = Grid(self, options, bottom_shapes)
        self.object_scale, self.noobject_scale = options.object_scale, options.noobject_scale
        self.class_scale, self.coord_scale = options.class_scale, options.coord_scale

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the loss as a tensor without axes; NaN without any true box, as in Caffe."""
        self.grid.check(x.shape, labels.shape)
        if x.is_meta:
            return x.new_empty(())
        loss, wrong = self._compare(x.detach(), labels)
        along = (x * (wrong / len(x))).sum()  # whose gradient is the fork's
        return loss + (along - along.detach())

    def _compare(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and what is wrong with each number of ``x``."""
        grid, n = self.grid, len(x)
        scores, sure, boxes = grid.split(x)
        truth = grid.read(labels.to(x.dtype))
        placed, true = grid.in_image(boxes), truth.box[:, :, None]
        iou = overlaps(placed, true)
        far = (placed - true).square().sum(-1).sqrt()
        far = torch.where(far < FARTHEST, far, FARTHEST)
        best_iou, by_iou = iou.nan_to_num(-1).max(-1)  # of equal ones the first
        best = torch.where(best_iou > 0, by_iou, far.argmin(-1))
        best_iou = best_iou.clamp(min=0)
        there = truth.there
        chosen = torch.nn.functional.one_hot(best, grid.boxes).bool() & there[..., None]  # (N, cells, boxes)
        sure_by_cell = sure.transpose(1, 2)
        wrong_sure = torch.where(
            chosen, self.object_scale * (sure_by_cell - best_iou[..., None]), self.noobject_scale * sure_by_cell
        )
        wanted = torch.nn.functional.one_hot(truth.label.clamp(0, grid.classes - 1), grid.classes).to(x.dtype)
        off = torch.where(there[..., None], scores.transpose(1, 2) - wanted, 0)
        target = truth.box.clone()
        if grid.inside:
            target[..., :2] = target[..., :2] * grid.side - grid.places(x)
        if grid.roots:
            target[..., 2:] = target[..., 2:].sqrt()
        away = torch.where(chosen[..., None], boxes.permute(0, 3, 1, 2) - target[:, :, None], 0)
        objects = there.sum()
        loss = (
            self.class_scale * off.square().sum() / objects
            + self.coord_scale * away.square().sum() / objects
            + self.object_scale * torch.where(chosen, sure_by_cell - 1, 0).square().sum() / objects
            + self.noobject_scale * torch.where(chosen, 0, sure_by_cell).square().sum() / (sure.numel() - objects)
        )
        wrong = torch.cat(
            (
                (self.class_scale * off).transpose(1, 2),
                wrong_sure.transpose(1, 2),
                (self.coord_scale * away).permute(0, 2, 3, 1).reshape(n, -1, grid.cells),
            ),
            1,
        )
        return loss, wrong.reshape(x.shape)
