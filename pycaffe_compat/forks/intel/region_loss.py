"""RegionLoss, YOLO v2's loss, as Intel's Caffe has it (intel/caffe, region_loss_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.registry import register
from ...tables import dims
from ..yolo.grid_loss import Truths
from ..yolo.region_loss import RegionLoss


@register("RegionLoss", fork="intel")
class FocalRegionLoss(RegionLoss):
    """YOLO v2's loss with labels in SSD's form (1, 1, boxes, 8), counted from 1, and smooth L1 for coordinates.

    As YOLO's own, but what is wrong with coordinates is limited to 1, that with a box that is there is
    ``2 (1 - p)^3 p (1 - p)``, and the loss is not divided by N. ``side`` is that of the map.
    """

    inert_options = frozenset({"softmax", "jitter", "rescore", "absolute", "random"})
    least_biases = 0

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.region_loss_param
        if options.class_map:
            raise self.error(f"region_loss_param.class_map: {options.class_map} is not supported")
        if tuple(bottom_shapes[0][2:]) != (options.side, options.side):
            raise self.error(
                f"region_loss_param.side: {options.side} must be that of its map, {dims(bottom_shapes[0][2:])}"
            )

    def check_truths(self, map_shape: Sequence[int], shape: Sequence[int]) -> None:
        if count(shape) % 8:
            raise self.error(f"needs labels of 8 numbers for each box, not of shape {dims(shape)}")

    def read_labels(self, x: Tensor, labels: Tensor) -> tuple[Truths, Tensor]:
        self.check_truths(x.shape, labels.shape)
        rows = labels.to(x.dtype).reshape(-1, 8)
        rows = rows[rows[:, 0].long() != -1]
        image, order = rows[:, 0].long().sort(stable=True)
        if len(image) and not 0 <= int(image[0]) <= int(image[-1]) < len(x):
            raise self.error(
                f"a label is of image {int(image[0] if image[0] < 0 else image[-1])}; there are {len(x)}, from 0"
            )
        rows = rows[order]
        low, high = rows[:, 3:5], rows[:, 5:7]
        box = torch.cat(((low + high) / 2, high - low), 1)
        label = rows[:, 1].long() - 1
        self.check_labels(label)
        return Truths(image, label, box), torch.ones_like(image, dtype=torch.bool)

    def total(self, wrong: Tensor) -> Tensor:
        return wrong.square().sum()

    def coordinates(self, difference: Tensor, true: Tensor) -> Tensor:
        return -self.coord_scale * difference.clamp(-1, 1)

    def thing(self, objects: Tensor, iou: Tensor) -> Tensor:
        return -self.object_scale * 2 * (1 - objects) ** 3 * (objects * (1 - objects))
