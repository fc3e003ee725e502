"""What Cascade R-CNN's nets show of their training (zhaoweicai/cascade-rcnn, detection_group_accuracy_layer.cpp and
bbox_accuracy_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape
from ...layers.registry import register
from ..mscnn.accuracy import BoxAccuracy, PlaceAccuracy
from ..mscnn.truth import Truth
from .groups import check_maps, read_groups


@register("DetectionGroupAccuracy", fork="cascade_rcnn")
class DetectionGroupAccuracy(PlaceAccuracy):
    """The accuracy of a DetectionGroupLoss's maps: the fraction of places with the right class, overall and with an object.

    The right class has the highest score, of equal ones the first. Places with label 0 and an overlap of ``bg_threshold`` or
    more do not count. The second top is the mean overlap of the boxes at objects with the true ones. -1 stands for the mean of
    nothing.
    """

    options = ("detection_group_accuracy_param", "bbox_reg_param")
    bottoms = (3, 3)
    inclusive = True

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        options = param.detection_group_accuracy_param
        super().__init__(param, bottom_shapes, options)
        self.sizes, self.stride = read_groups(self, options)
        check_maps(self, self.classes, len(self.sizes), bottom_shapes)

    def forward(self, scores: Tensor, codes: Tensor, truth: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return both shares, (1, 1, 1, 2), and the mean overlap, (1, 1, 1, 1), if there is a top for it."""
        check_maps(self, self.classes, len(self.sizes), [tuple(x.shape) for x in (scores, codes, truth)])
        if scores.is_meta:
            return self.made(scores)
        true, groups = Truth.read(truth), len(self.sizes)
        label = true.label.clamp(max=1) if self.objectness else true.label
        decoded = [
            self.fields.decode(codes.detach()[k::groups], *size, self.stride) for k, size in enumerate(self.sizes)
        ]
        low, sides = (
            torch.stack(part, 1).flatten(0, 1) for part in zip(*decoded, strict=True)
        )  # the maps in their order
        return self.judge(scores.detach().flatten(2).argmax(1) == label, true, low, sides)


@register("BboxAccuracy", fork="cascade_rcnn")
class InclusiveBoxAccuracy(BoxAccuracy):
    """As MS-CNN's, but boxes that share less than a pixel do not overlap."""

    inclusive = True
