"""DetectionGroupLoss of Cascade R-CNN (zhaoweicai/cascade-rcnn, detection_group_loss_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape
from ...layers.loss import FLT_MIN
from ...layers.registry import register
from ..mscnn.boxes import ranked
from ..mscnn.detection_loss import SAMPLING, PlaceLoss
from ..mscnn.truth import Truth
from .groups import check_maps, read_groups

RANKINGS = ("conf_prob", "conf_loss")
BOX_LOSSES = ("Smooth_L1", "Euclidean_L2")


@register("DetectionGroupLoss", fork="cascade_rcnn")
class DetectionGroupLoss(PlaceLoss):
    """Compares scores (N G, classes, H, W) and boxes (N G, 4, H, W), for G fields each, with maps (N G, 6, H, W).

    Those hold label, centre, width, height and overlap. Of the places of an image with an object, and of those with label 0
    and an overlap below ``bg_threshold``, some count: ``batch_size`` in the ratio of 1 to ``bg_multiple``, or for -1 all
    objects and ``bg_multiple`` times as many others, ``min_num_neg`` at least. Which: at random, or of the background those
    that ``neg_ranking_type`` puts first ("bootstrap"), or half of each ("mixture"). Where ``field_whr`` and ``field_xyr``
    are given, boxes are limited by them, with the gradient as if they were not; the fork writes that into its bottom, too.
    """

    options = ("detection_group_loss_param", "bbox_reg_param")
    bottoms = (3, 3)
    differentiable = (True, True, False)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        options = param.detection_group_loss_param
        super().__init__(param, bottom_shapes, options)
        self.sizes, self.stride = read_groups(self, options)
        self.limited = options.HasField("field_whr") and options.HasField("field_xyr")
        for name, words in (
            ("neg_mining_type", SAMPLING),
            ("neg_ranking_type", RANKINGS),
            ("bbox_loss_type", BOX_LOSSES),
        ):
            if getattr(options, name) not in words:
                raise self.error(f'{name}: "{getattr(options, name)}" is not one of {", ".join(words)}')
        self.mining, self.by_loss = options.neg_mining_type, options.neg_ranking_type == "conf_loss"
        self.smooth = options.bbox_loss_type == "Smooth_L1"
        self.batch, self.least = options.batch_size, options.min_num_neg
        if self.batch != -1 and self.batch < 1:
            raise self.error(f"batch_size: {self.batch} must be at least 1, or -1 for all objects")
        check_maps(self, self.classes, len(self.sizes), bottom_shapes)

    def forward(self, scores: Tensor, codes: Tensor, truth: Tensor) -> Tensor:
        """Return (1, 1, 1, 2): the loss, and what boxes make of it."""
        check_maps(self, self.classes, len(self.sizes), [tuple(x.shape) for x in (scores, codes, truth)])
        if scores.is_meta:
            return scores.new_empty((1, 1, 1, 2))
        true, columns = Truth.read(truth), scores.shape[3]
        scores, codes = scores.flatten(2), codes.flatten(2)
        label = true.label.clamp(max=1) if self.objectness else true.label
        ignored = self.ignored(label)
        classes = self.classes_of(label, (label > 0) & ~ignored)
        keep = self.sample(self.rank(scores.detach(), classes), true)
        there, weight = label > 0, torch.ones_like(true.overlap)
        if self.weighted:
            weight = torch.where(there, *self.balance(weight, keep & there, keep & ~there))
        sizes = true.box.new_tensor(self.sizes).repeat(len(true.box) // len(self.sizes), 1)
        wanted = self.fields.encode(true.box, columns, sizes, self.stride)
        objects = keep & (true.label != 0) & ~self.ignored(true.label)
        return self.both(
            self.class_loss(scores, classes, keep & ~ignored, weight),
            self.box_loss(self.fields.limit(codes) if self.limited else codes, wanted, objects),
        )

    def rank(self, scores: Tensor, classes: Tensor) -> Tensor:
        """How wrong the scores (M, C, P) are, (M, P)."""
        if not self.by_loss:
            return 1 - F.softmax(scores, 1)[:, 0]
        return -F.log_softmax(scores, 1).gather(1, classes[:, None])[:, 0].clamp(min=math.log(FLT_MIN))

    def sample(self, wrong: Tensor, truth: Truth) -> Tensor:
        """Which places (M, P) count."""
        groups = len(self.sizes)
        by_image = [x.reshape(len(x) // groups, -1) for x in (truth.label > 0, truth.background(self.below), wrong)]
        keep = torch.zeros_like(by_image[0])
        for row, there, free, worst in zip(keep, *by_image, strict=True):
            objects, others = there.nonzero().squeeze(1), free.nonzero().squeeze(1)
            if self.batch == -1:
                most, number = len(objects), max(len(objects) * self.multiple, self.least)
            else:
                most = min(math.floor(self.batch / (1 + self.multiple) + 0.5), len(objects))
                number = self.batch - most
            row[_drawn(objects, most)] = True
            row[self.choose(others, worst[others], min(number, len(others)))] = True
        return keep.reshape(truth.label.shape)

    def choose(self, places: Tensor, wrong: Tensor, number: int) -> Tensor:
        """``number`` of ``places``."""
        if self.mining == "random" or number == len(places):
            return _drawn(places, number)
        worst = places[ranked(wrong)]
        hard = number if self.mining == "bootstrap" else math.floor(number / 2 + 0.5)
        return torch.cat((worst[:hard], _drawn(worst[hard:], number - hard)))


def _drawn(places: Tensor, number: int) -> Tensor:
    """``number`` of ``places`` at random; all where there are no more."""
    if number >= len(places):
        return places
    return places[torch.randperm(len(places), device=places.device)[:number]]
