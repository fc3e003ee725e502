"""DetectionLoss of MS-CNN (zhaoweicai/mscnn, detection_loss_layer.cpp), and what Cascade R-CNN's has in common with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape
from ...layers.loss import FLT_MIN, LossLayer, floored, precise
from ...layers.registry import register
from .boxes import Fields, ranked, read_normalization
from .truth import Truth, check_map

SAMPLING = ("random", "bootstrap", "mixture")


class PlaceLoss(LossLayer):
    """The base class of losses of scores and boxes at the places of maps, of which some count.

    The top has two numbers, the loss and its part that boxes make. Both count in the objective, but the gradient is the
    first's only, as in the forks.

    Attributes:
        smooth: boxes count as in Fast R-CNN, else by squares.
    """

    random = True
    traceable = False
    smooth: bool

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape], options: Any) -> None:
        super().__init__(param, bottom_shapes)
        self.classes, self.part = options.cls_num, getattr(options, "lambda")
        self.objectness, self.weighted = options.objectness, options.pos_neg_weighted
        self.below, self.multiple = options.bg_threshold, options.bg_multiple
        if self.classes < 2:
            raise self.error(f"cls_num: {self.classes} must be at least 2, with the background")
        if self.objectness and self.classes != 2:
            raise self.error(f"objectness needs cls_num: 2, not {self.classes}")
        self.fields = Fields(self, options, *read_normalization(self, param.bbox_reg_param))

    def classes_of(self, label: Tensor, counted: Tensor) -> Tensor:
        """Labels as numbers of classes.

        Raises:
            LayerError: a label of the places that ``counted`` says is no class.
        """
        wrong = counted & ((label < 0) | (label >= self.classes))
        if bool(wrong.any()):
            raise self.error(f"label {int(label[wrong][0])} is not a class: there are {self.classes}, from 0")
        return label.clamp(0, self.classes - 1)

    def ignored(self, label: Tensor) -> Tensor:
        """Where ``label`` is ``ignore_label``."""
        return torch.zeros_like(label, dtype=torch.bool) if self.ignore_label is None else label == self.ignore_label

    def class_loss(self, scores: Tensor, classes: Tensor, counted: Tensor, weight: Tensor) -> Tensor:
        """The mean of ``-weight log(softmax)`` of scores (M, C, P) at the places (M, P) that count; 0 without any."""
        loss = -floored(F.log_softmax(precise(scores), 1).gather(1, classes[:, None])[:, 0], FLT_MIN)
        return torch.where(counted, loss * weight, 0).sum() / counted.sum().clamp(min=1)

    def box_loss(self, codes: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
        """The mean over the numbers of codes (M, 4, P) against ``wanted`` at the places that count; 0 without any."""
        off = torch.where(counted[:, None], precise(codes) - wanted, 0)
        loss = F.smooth_l1_loss(off, torch.zeros_like(off), reduction="sum") if self.smooth else off.square().sum() / 2
        return loss / (4 * counted.sum()).clamp(min=1)

    def both(self, class_loss: Tensor, box_loss: Tensor) -> Tensor:
        """The top, (1, 1, 1, 2)."""
        boxes = self.part * box_loss
        return torch.stack((class_loss + boxes, boxes.detach())).reshape(1, 1, 1, 2)

    def balance(self, weight: Tensor, objects: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """``weight`` scaled for objects, and scaled for the background, so that they have the shares of ``bg_multiple``.

        Args:
            objects, others: the places (M, P) of either kind that count. Of a kind without any the weights stay.
        """
        share, total = 1 / (1 + self.multiple), (objects.sum() + others.sum()).to(weight.dtype)
        scaled = []
        for part, kind in ((share, objects), (1 - share, others)):
            have = weight[kind].sum()
            scaled.append(weight * torch.where(have != 0, part * total / have, 1))
        return scaled[0], scaled[1]


@register("DetectionLoss", fork="mscnn")
class MapDetectionLoss(PlaceLoss):
    """Compares a map (N, classes + 4, H, W) of scores and boxes, for fields of ``field_w`` x ``field_h``, with one (N, 6, H, W).

    That holds label, centre, width, height and overlap. All places with an object count, and of those with label 0 and an
    overlap below ``bg_threshold`` some: by ``sample_mode`` places drawn at random, or those with the highest scores of each
    class ("bootstrap"), ``bg_multiple`` times as many as objects, half of each ("mixture"), or, with any other word, all.
    Boxes are limited by ``field_whr`` and ``field_xyr``, with the gradient as if they were not. ``pos_neg_weighted`` gives
    objects and background shares of 1 to ``bg_multiple``; in the fork the gradient is NaN where no background counts.
    """

    options = ("detection_loss_param", "bbox_reg_param")

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        options = param.detection_loss_param
        super().__init__(param, bottom_shapes, options)
        if options.coord_num != 4:
            raise self.error(f"coord_num: {options.coord_num} must be 4")
        if not (options.field_w and options.field_h and options.downsample_rate):
            raise self.error("needs field_w, field_h and downsample_rate, each above 0")
        self.size, self.stride = (options.field_w, options.field_h), options.downsample_rate
        self.smooth, self.mode, self.by_overlap = options.bb_smooth, options.sample_mode, options.iou_weighted
        check_map(self, self.classes, *bottom_shapes)

    def forward(self, x: Tensor, truth: Tensor) -> Tensor:
        """Return (1, 1, 1, 2): the loss, and what boxes make of it."""
        check_map(self, self.classes, tuple(x.shape), tuple(truth.shape))
        if x.is_meta:
            return x.new_empty((1, 1, 1, 2))
        scores, codes = x.flatten(2).split((self.classes, 4), 1)
        true = Truth.read(truth)
        label = true.label.clamp(max=1) if self.objectness else true.label
        there, ignored = label != 0, self.ignored(label)
        classes = self.classes_of(label, there & ~ignored)
        background = self.sample(scores.detach(), classes, there, true.background(self.below))
        weight = torch.where(there, true.overlap, 1) if self.by_overlap else torch.ones_like(true.overlap)
        if self.weighted and bool(there.any()):
            weight = torch.where(there, *self.balance(weight, there, background))
        objects = (true.label != 0) & ~self.ignored(true.label)
        wanted = self.fields.encode(true.box, x.shape[3], true.box.new_tensor([self.size]), self.stride)
        return self.both(
            self.class_loss(scores, classes, (there | background) & ~ignored, weight),
            self.box_loss(self.fields.limit(codes), wanted, objects),
        )

    def sample(self, scores: Tensor, classes: Tensor, there: Tensor, candidates: Tensor) -> Tensor:
        """Which of the ``candidates`` (N, P) for background count."""
        if self.mode not in SAMPLING:
            return candidates
        share, keep = 0.5 if self.mode == "mixture" else 1.0, torch.zeros_like(candidates)
        places = candidates.shape[1]
        for i, free in enumerate(candidates):
            if self.mode != "bootstrap":
                number = max(int(int(there[i].sum()) * self.multiple * share), 4 * (self.classes - 1))
                drawn = torch.randint(places, (number,), device=free.device)
                keep[i, drawn] = free[drawn]
            if self.mode != "random":
                at = free.nonzero().squeeze(1)
                for k in range(1, self.classes):
                    of_class = int((there[i] & (classes[i] == k)).sum())
                    number = max(int(of_class * self.multiple * share), 4)
                    keep[i, at[ranked(scores[i, k, at])[:number]]] = True
        return keep
