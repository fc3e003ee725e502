"""What MS-CNN's nets show of their training: DetectionAccuracy and BboxAccuracy (zhaoweicai/mscnn, the files of these names)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.registry import register
from ...tables import dims
from .boxes import Fields, overlaps, read_normalization
from .truth import Truth, check_map

KNOWN = 0.975  # a region that overlaps a true box by more is that box itself


def mean(values: Tensor) -> Tensor:
    """The mean, (); -1 without any value."""
    return values.mean() if values.numel() else values.new_tensor(-1)


class PlaceAccuracy(Layer):
    """The base class of what says how right the scores and boxes at the places of maps are.

    Attributes:
        inclusive: how boxes overlap; see :func:`.boxes.overlaps`.
    """

    differentiable = (False,)
    traceable = False
    head = True
    negative_is_none = True
    tops = (1, 2)
    inclusive: ClassVar[bool] = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape], options: Any) -> None:
        super().__init__(param, bottom_shapes)
        self.classes, self.objectness, self.below = options.cls_num, options.objectness, options.bg_threshold
        if self.classes < 1 or (self.objectness and self.classes != 2):
            raise self.error(f"cls_num: {self.classes} must be at least 1, and 2 with objectness")
        self.fields = Fields(self, options, *read_normalization(self, param.bbox_reg_param))
        loss = param.loss_param
        self.ignore_label: int | None = loss.ignore_label if loss.HasField("ignore_label") else None

    def made(self, like: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The tops without values."""
        accuracy = like.new_empty((1, 1, 1, 2))
        return accuracy if self.n_tops == 1 else (accuracy, like.new_empty((1, 1, 1, 1)))

    def judge(self, hit: Tensor, truth: Truth, low: Tensor, sides: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The tops, of which places (M, P) are right, and of the boxes at them, first corners and sides (M, P, 2)."""
        label = truth.label.clamp(max=1) if self.objectness else truth.label
        counted = (truth.label != 0) | (truth.overlap < self.below)
        objects = truth.label != 0
        if self.ignore_label is not None:
            counted &= label != self.ignore_label
            objects &= truth.label != self.ignore_label
        hit = hit.to(low.dtype)
        accuracy = torch.stack((mean(hit[counted]), mean(hit[counted & (label != 0)]))).reshape(1, 1, 1, 2)
        if self.n_tops == 1:
            return accuracy
        centre, size = truth.box.to(low.dtype).mT.split(2, 2)
        true = torch.cat((centre - size / 2, size), 2)[objects]
        part = overlaps(torch.cat((low, sides), 2)[objects], true, self.inclusive)
        return accuracy, mean(part).reshape(1, 1, 1, 1)


@register("DetectionAccuracy", fork="mscnn")
class MapDetectionAccuracy(PlaceAccuracy):
    """The accuracy of a DetectionLoss's map: the fraction of places with the right class, overall and among those with an object.

    A class is right that is among the ``top_k`` with the highest scores, of equal ones the last. Places with label 0 and an
    overlap of ``bg_threshold`` or more do not count. The second top is the mean overlap of the boxes at objects with the true
    ones. -1 stands for the mean of nothing.
    """

    options = ("detection_accuracy_param", "bbox_reg_param")
    bottoms = (2, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        options = param.detection_accuracy_param
        super().__init__(param, bottom_shapes, options)
        self.size, self.stride, self.best = (options.field_w, options.field_h), options.downsample_rate, options.top_k
        if options.coord_num != 4 or not 1 <= self.best <= self.classes:
            raise self.error(
                f"coord_num: {options.coord_num} must be 4, and top_k: {self.best} 1 to the number of classes, {self.classes}"
            )
        check_map(self, self.classes, *bottom_shapes)

    def forward(self, x: Tensor, truth: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return both shares, (1, 1, 1, 2), and the mean overlap, (1, 1, 1, 1), if there is a top for it."""
        check_map(self, self.classes, tuple(x.shape), tuple(truth.shape))
        if x.is_meta:
            return self.made(x)
        scores, codes = x.detach().split((self.classes, 4), 1)
        true = Truth.read(truth)
        label = true.label.clamp(max=1) if self.objectness else true.label
        order = self.classes - 1 - scores.flatten(2).flip(1).argsort(dim=1, descending=True, stable=True)
        hit = (order[:, : self.best] == label[:, None]).any(1)
        return self.judge(hit, true, *self.fields.decode(codes, *self.size, self.stride))


@register("BboxAccuracy", fork="mscnn")
class BoxAccuracy(Layer):
    """The mean overlap of decoded boxes, from codes (R, K) and regions (R, 5), with the matched true boxes (R, 6).

    Those are label, corners and overlap of the region. The codes of a region are the four of its label. Regions of the
    background, and those that overlap their true box by more than 0.975, do not count. The second top is the same of the
    regions themselves. -1 stands for the mean of nothing.
    """

    options = ("bbox_reg_param",)
    bottoms = (3, 3)
    tops = (1, 2)
    differentiable = (False,)
    traceable = False
    head = True
    negative_is_none = True
    inclusive: ClassVar[bool] = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.mean, self.std = read_normalization(self, param.bbox_reg_param)
        self.aware = param.bbox_reg_param.cls_aware
        codes, regions, matched = bottom_shapes
        wide = codes[1:2] and codes[1] % 4 == 0 and (self.aware or codes[1] == 8)
        if not wide or count(regions, 1) != 5 or count(matched, 1) != 6:
            raise self.error(
                f"needs codes R×{'4 classes' if self.aware else 8}, regions R×5 and matched boxes R×6, not "
                f"{', '.join(map(dims, bottom_shapes))}"
            )

    def forward(self, codes: Tensor, regions: Tensor, matched: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return one mean, or both, (1, 1, 1, 1) each.

        Raises:
            LayerError: the bottoms are not of as many regions, or a label has no codes.
        """
        if not len(codes) == len(regions) == len(matched):
            raise self.error(f"has {len(codes)} codes and {len(matched)} matched boxes for {len(regions)} regions")
        if codes.is_meta:
            top = codes.new_empty((1, 1, 1, 1))
            return top if self.n_tops == 1 else (top, top)
        rows = matched.detach().reshape(-1, 6)
        counted = (rows[:, 0].long() > 0) & (rows[:, 5] <= KNOWN)
        rows, regions = rows[counted], regions.detach().reshape(-1, 5)[counted]
        label = rows[:, 0].long() if self.aware else torch.ones_like(rows[:, 0], dtype=torch.long)
        by_label = codes.detach().reshape(len(codes), -1, 4)[counted]
        if len(label) and int(label.max()) >= by_label.shape[1]:
            raise self.error(f"has codes for {by_label.shape[1]} labels, but label {int(label.max())}")
        code = by_label[torch.arange(len(label), device=label.device), label]
        code = code * code.new_tensor(self.std) + code.new_tensor(self.mean)
        boxes, true = (torch.cat((x[:, 1:3], x[:, 3:5] - x[:, 1:3] + 1), 1).to(code.dtype) for x in (regions, rows))
        low, size = boxes.split(2, 1)
        sides = size * code[:, 2:].exp()
        made = torch.cat((code[:, :2] * size + (low + size / 2) - sides / 2, sides), 1)
        after, before = (mean(overlaps(x, true, self.inclusive)).reshape(1, 1, 1, 1) for x in (made, boxes))
        return after if self.n_tops == 1 else (after, before)
